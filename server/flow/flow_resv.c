/* GET, PATCH and DELETE of reservations: seen, made longer, shorter or smaller, given
 * back; each change also as a dry run, which says what it would cost. */
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/uuid.h"
#include "server/core/resv.h"
#include "server/flow/call.h"
#include "server/flow/flow_resv.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/request.h"

int resv_id(const struct flow *f, const char **ret, struct err *err)
{
    *ret = flow_param(f, "id");
    return uuid_is_valid(*ret)
               ? 0
               : err_set(err, ERR_NOT_FOUND, "there is no reservation '%.60s'", *ret);
}

int resv_if_match(const struct flow *f, int64_t *generation, struct err *err)
{
    int64_t header;
    if (f->rq->if_match[0] == '\0')
        return 0;
    if (request_int("If-Match", f->rq->if_match, 1, INT32_MAX, &header, err) != 0)
        return -1;
    if (*generation != 0 && *generation != header)
        return err_set(err, ERR_BAD_REQUEST, "/generation: If-Match says another one");
    *generation = header;
    return 0;
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
    if (!db_no_query(f, &err) || resv_id(f, &id, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_RESV_GET,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(id)));
}

static const struct flow_step get_steps[] = {{"read", get_read}, {"reply", resv_reply}};
const struct flow_kind flow_resv_get =
    FLOW_KIND_DONE("flow_resv_get", struct db_state, get_steps, db_done);

/* ---- the end, fewer GPUs ---- */

/* Either the end moves or GPUs are given back, at the booked price: each is one
 * statement against the same constraints as a booking, so there is nothing that could
 * be left half done. */
struct change {
    struct db_slot db;
    int64_t end_us, gpus, generation;
    bool dry_run;
};

#define NO_TIME INT64_MIN

static int change_parse(const struct flow *f, struct change *s, struct err *err)
{
    static const struct jsonx_field fields[] = {
        {"end", JSONX_TIME, false, offsetof(struct change, end_us)},
        {"gpus", JSONX_INT, false, offsetof(struct change, gpus), 1, GPUS_PER_NODE_MAX},
        {"generation", JSONX_INT, false, offsetof(struct change, generation), 1,
         INT32_MAX},
        {"dry_run", JSONX_BOOL, false, offsetof(struct change, dry_run)},
    };
    s->end_us = NO_TIME;
    if (jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), s, "", err) != 0 ||
        resv_if_match(f, &s->generation, err) != 0)
        return -1;
    if ((s->end_us == NO_TIME) == (s->gpus == 0))
        return err_set(err, ERR_BAD_REQUEST,
                       "/end: change either the end or the GPUs, one at a time");
    return 0;
}

static enum flow_turn change_check(struct flow *f)
{
    const char *id;
    struct err err;
    if (!db_no_query(f, &err) || resv_id(f, &id, &err) != 0 ||
        change_parse(f, f->state, &err) != 0)
        return flow_fail(f, &err);
    return FLOW_MORE;
}

static enum flow_turn change_write(struct flow *f)
{
    const struct change *s = f->state;
    const char *tenant = f->rq->who.tenant_id, *id = flow_param(f, "id");
    if (s->end_us != NO_TIME)
        return db_call(f, STORE_RESV_EXTEND,
                       STORE_ARGS(S_TEXT(tenant), S_TEXT(id), S_INT(s->end_us),
                                  S_INT(s->generation), S_BOOL(s->dry_run),
                                  S_INT(f->now_us)));
    return db_call(f, STORE_RESV_SHRINK,
                   STORE_ARGS(S_TEXT(tenant), S_TEXT(id), S_INT(s->gpus),
                              S_INT(s->generation), S_BOOL(s->dry_run),
                              S_INT(f->now_us)));
}

static enum flow_turn changed_reply(struct flow *f)
{
    if (db_failed(f)) {
        world_poll(world_of(f)); /* perhaps somebody else's change: learn of it */
        return db_fail(f);
    }
    json_t *reply = render_change(db_of(f)->json);
    if (!json_is_true(json_object_get(json_object_get(reply, "change"), "dry_run")))
        world_told(world_of(f), json_object_get(db_of(f)->json, "events"));
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step change_steps[] = {
    {"check", change_check}, {"write", change_write}, {"reply", changed_reply}};
const struct flow_kind flow_resv_extend =
    FLOW_KIND_DONE("flow_extend", struct change, change_steps, db_done);

/* ---- cancel ---- */

static enum flow_turn cancel_write(struct flow *f)
{
    static const char *const names[] = {"dry_run", NULL};
    const char *id, *dry_run = flow_query(f, "dry_run");
    struct err err;
    if (flow_query_check(f, names, &err) != 0 || resv_id(f, &id, &err) != 0)
        return flow_fail(f, &err);
    bool dry = dry_run != NULL && strcmp(dry_run, "true") == 0;
    if (dry_run != NULL && !dry && strcmp(dry_run, "false") != 0) {
        err_set(&err, ERR_BAD_REQUEST, "dry_run: expected true or false");
        return flow_fail(f, &err);
    }
    return db_call(f, STORE_RESV_CANCEL,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(id),
                              S_TEXT(f->rq->who.role == ROLE_TENANT
                                         ? "cancelled by the tenant"
                                         : "cancelled by an administrator"),
                              S_BOOL(dry), S_INT(f->now_us)));
}

static const struct flow_step cancel_steps[] = {{"write", cancel_write},
                                                {"reply", changed_reply}};
const struct flow_kind flow_resv_cancel =
    FLOW_KIND_DONE("flow_cancel", struct db_state, cancel_steps, db_done);
