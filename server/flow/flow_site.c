/* /v1/sites: the places where GPUs and data stand. */
#include "client/lib/jsonx.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/request.h"

/* ---- create ---- */

/* "" is no zone. */
static int check_zone(const char *zone, struct err *err)
{
    return zone == NULL || *zone == '\0' ? 0 : request_name("/zone", zone, err);
}

static enum flow_turn create_write(struct flow *f)
{
    struct body {
        const char *name, *city, *residency, *zone;
        double lat, lon;
    } b = {.zone = NULL};
    static const struct jsonx_field fields[] = {
        {"name", JSONX_STRING, true, offsetof(struct body, name), 1, NAME_BYTES_MAX},
        {"city", JSONX_STRING, true, offsetof(struct body, city), 1, 100},
        {"lat", JSONX_REAL, true, offsetof(struct body, lat), -90, 90},
        {"lon", JSONX_REAL, true, offsetof(struct body, lon), -180, 180},
        {"residency", JSONX_STRING, true, offsetof(struct body, residency), 2, 2},
        {"zone", JSONX_STRING, false, offsetof(struct body, zone), 0, NAME_BYTES_MAX},
    };
    struct db_idem idem;
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0 ||
        request_name("/name", b.name, &err) != 0 || check_zone(b.zone, &err) != 0)
        return flow_fail(f, &err);
    for (int i = 0; i < 2; i++)
        if (b.residency[i] < 'a' || b.residency[i] > 'z') {
            err_set(&err, ERR_BAD_REQUEST,
                    "/residency: two lower-case letters of a country, such as jp");
            return flow_fail(f, &err);
        }
    db_idem(f, &idem);
    return db_call(f, STORE_SITE_CREATE,
                   STORE_ARGS(S_TEXT(b.name), S_TEXT(b.city), S_REAL(b.lat),
                              S_REAL(b.lon), S_TEXT(b.residency), S_TEXT(b.zone),
                              DB_IDEM(idem)));
}

static enum flow_turn create_learn(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    world_read(world_of(f), STORE_WORLD_SITES,
               json_integer_value(json_object_get(db_of(f)->json, "id")), f->id);
    return FLOW_WAIT;
}

static enum flow_turn create_reply(struct flow *f)
{
    return flow_reply_json(f, 201, render_times(db_of(f)->json));
}

static const struct flow_step create_steps[] = {
    {"write", create_write}, {"learn", create_learn}, {"reply", create_reply}};
const struct flow_kind flow_site_create =
    FLOW_KIND_DONE("flow_site_create", struct db_state, create_steps, db_done);

/* ---- change ---- */

static enum flow_turn patch_write(struct flow *f)
{
    struct body {
        const char *zone;
    } b;
    static const struct jsonx_field fields[] = {
        {"zone", JSONX_STRING, true, offsetof(struct body, zone), 0, NAME_BYTES_MAX},
    };
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0 ||
        check_zone(b.zone, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_SITE_PATCH,
                   STORE_ARGS(S_TEXT(flow_param(f, "name")), S_TEXT(b.zone)));
}

static enum flow_turn patch_reply(struct flow *f)
{
    return flow_reply_json(f, 200, render_times(db_of(f)->json));
}

static const struct flow_step patch_steps[] = {
    {"write", patch_write}, {"learn", create_learn}, {"reply", patch_reply}};
const struct flow_kind flow_site_patch =
    FLOW_KIND_DONE("flow_site_patch", struct db_state, patch_steps, db_done);

/* ---- list ---- */

static enum flow_turn list_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_SITE_LIST, STORE_NO_ARGS);
}

static enum flow_turn list_reply(struct flow *f)
{
    return db_failed(f) ? db_fail(f)
                        : flow_reply_json(f, 200, render_times(db_of(f)->json));
}

static const struct flow_step list_steps[] = {{"read", list_read},
                                              {"reply", list_reply}};
const struct flow_kind flow_site_list =
    FLOW_KIND_DONE("flow_site_list", struct db_state, list_steps, db_done);
