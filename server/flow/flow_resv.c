/* GET, PATCH and DELETE of reservations: seen, made longer or shorter, given back. */
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/uuid.h"
#include "server/core/resv.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/request.h"

static int id_of(const struct flow *f, const char **ret, struct err *err)
{
    *ret = flow_param(f, "id");
    return uuid_is_valid(*ret)
               ? 0
               : err_set(err, ERR_NOT_FOUND, "there is no reservation '%.60s'", *ret);
}

static enum flow_turn resv_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    return flow_reply_json(f, 200, render_resv(db_of(f)->json));
}

/* ---- list ---- */

static enum flow_turn list_read(struct flow *f)
{
    static const char *const names[] = {"state", NULL};
    const char *state = flow_query(f, "state");
    enum resv_state known;
    struct db_page page;
    struct err err;
    if (db_page(f, names, &page, &err) != 0)
        return flow_fail(f, &err);
    if (page.cursor != NULL && !uuid_is_valid(page.cursor)) {
        err_set(&err, ERR_BAD_REQUEST, "cursor: is not one of ours");
        return flow_fail(f, &err);
    }
    if (state != NULL && !resv_state_from_name(state, &known)) {
        err_set(&err, ERR_BAD_REQUEST, "state: there is no state '%.30s'", state);
        return flow_fail(f, &err);
    }
    return db_call(
        f, STORE_RESV_LIST,
        STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(state), DB_PAGE(page)));
}

static enum flow_turn list_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *list = json_array(), *next = json_object_get(db_of(f)->json, "next");
    const json_t *resv;
    size_t i;
    json_array_foreach(json_object_get(db_of(f)->json, "reservations"), i, resv)
        json_array_append_new(list, render_resv(resv));
    return flow_reply_json(f, 200,
                           json_pack("{s:o, s:O?}", "reservations", list, "next",
                                     next != NULL ? next : json_null()));
}

static const struct flow_step list_steps[] = {{"read", list_read},
                                              {"reply", list_reply}};
const struct flow_kind flow_resv_list =
    FLOW_KIND_DONE("flow_resv_list", struct db_state, list_steps, db_done);

/* ---- get ---- */

static enum flow_turn get_read(struct flow *f)
{
    const char *id;
    struct err err;
    if (!db_no_query(f, &err) || id_of(f, &id, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_RESV_GET,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(id)));
}

static const struct flow_step get_steps[] = {{"read", get_read}, {"reply", resv_reply}};
const struct flow_kind flow_resv_get =
    FLOW_KIND_DONE("flow_resv_get", struct db_state, get_steps, db_done);

/* ---- extend, shrink ---- */

static enum flow_turn extend_write(struct flow *f)
{
    struct patch {
        int64_t end_us;
    } patch;
    static const struct jsonx_field fields[] = {
        {"end", JSONX_TIME, true, offsetof(struct patch, end_us)}};
    const char *id;
    int64_t generation = 0;
    struct err err;
    if (!db_no_query(f, &err) || id_of(f, &id, &err) != 0 ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &patch, "", &err) != 0)
        return flow_fail(f, &err);
    if (f->rq->if_match[0] != '\0' &&
        request_int("If-Match", f->rq->if_match, 1, INT32_MAX, &generation, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_RESV_EXTEND,
                   STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(id),
                              S_INT(patch.end_us), S_INT(generation),
                              S_INT(f->now_us)));
}

static enum flow_turn changed_reply(struct flow *f)
{
    world_poll(world_of(f)); /* our own copy, and the node's agent, learn of it */
    return resv_reply(f);
}

static const struct flow_step extend_steps[] = {{"write", extend_write},
                                                {"reply", changed_reply}};
const struct flow_kind flow_resv_extend =
    FLOW_KIND_DONE("flow_resv_extend", struct db_state, extend_steps, db_done);

/* ---- cancel ---- */

static enum flow_turn cancel_write(struct flow *f)
{
    const char *id;
    struct err err;
    if (!db_no_query(f, &err) || id_of(f, &id, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_RESV_CANCEL,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(id),
                              S_TEXT(f->rq->who.role == ROLE_TENANT
                                         ? "cancelled by the tenant"
                                         : "cancelled by an administrator"),
                              S_INT(f->now_us)));
}

static const struct flow_step cancel_steps[] = {{"write", cancel_write},
                                                {"reply", changed_reply}};
const struct flow_kind flow_resv_cancel =
    FLOW_KIND_DONE("flow_resv_cancel", struct db_state, cancel_steps, db_done);
