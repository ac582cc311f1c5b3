/* /v1/datasets: where a tenant's data is. Agents measure the distance to each. */
#include <string.h>

#include "client/lib/endpoint.h"
#include "client/lib/jsonx.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/request.h"

#define ENDPOINT_MAX 500 /* agents take at most 511 bytes */

/* DATASET of server/db/store.h as the wire has it. */
static json_t *dataset_json(const json_t *store)
{
    json_t *out = render_times(store);
    json_t *rtts = json_incref(json_object_get(out, "rtts"));
    json_object_del(out, "rtts");
    json_object_set_new(out, "rtt", rtts != NULL ? rtts : json_array());
    return out;
}

static enum flow_turn dataset_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    return flow_reply_json(f, 200, dataset_json(db_of(f)->json));
}

/* ---- add ---- */

struct body {
    const char *name, *endpoint, *site;
    double lat, lon;
    int64_t size_bytes;
};
#define NOWHERE 1000.0

static int body_decode(const struct flow *f, struct body *b, struct err *err)
{
    static const struct jsonx_field fields[] = {
        {"name", JSONX_STRING, true, offsetof(struct body, name), 1, NAME_BYTES_MAX},
        {"endpoint", JSONX_STRING, true, offsetof(struct body, endpoint), 3,
         ENDPOINT_MAX},
        {"site", JSONX_STRING, false, offsetof(struct body, site), 1, NAME_BYTES_MAX},
        {"lat", JSONX_REAL, false, offsetof(struct body, lat), -90, 90},
        {"lon", JSONX_REAL, false, offsetof(struct body, lon), -180, 180},
        {"size_bytes", JSONX_INT, false, offsetof(struct body, size_bytes), 0,
         INT64_C(1) << 62},
    };
    *b = (struct body){.lat = NOWHERE, .lon = NOWHERE, .size_bytes = -1};
    if (jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), b, "", err) != 0 ||
        request_name("/name", b->name, err) != 0)
        return -1;
    if ((b->lat == NOWHERE) != (b->lon == NOWHERE))
        return err_set(err, ERR_BAD_REQUEST, "/lat: give both lat and lon");
    if (b->site != NULL && b->lat != NOWHERE)
        return err_set(err, ERR_BAD_REQUEST, "/site: give either site or lat and lon");
    if (b->site != NULL && world_site_find(world_of(f), b->site) < 0)
        return err_set(err, ERR_NOT_FOUND, "/site: there is no site '%s'", b->site);
    struct endpoint ep;
    for (const char *p = b->endpoint; *p != '\0'; p++)
        if (*p <= ' ' || *p > '~')
            return err_set(err, ERR_BAD_REQUEST,
                           "/endpoint: expected HOST:PORT or a URL");
    return endpoint_parse(b->endpoint, &ep, err) != 0 ? err_prefix(err, "/endpoint")
                                                      : 0;
}

static enum flow_turn add_write(struct flow *f)
{
    struct body b;
    struct db_idem idem;
    struct err err;
    if (!db_no_query(f, &err) || body_decode(f, &b, &err) != 0)
        return flow_fail(f, &err);
    db_idem(f, &idem);
    return db_call(
        f, STORE_DATASET_ADD,
        STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(b.name), S_TEXT(b.endpoint),
                   S_TEXT(b.site), b.lat != NOWHERE ? S_REAL(b.lat) : S_NULL,
                   b.lon != NOWHERE ? S_REAL(b.lon) : S_NULL,
                   b.size_bytes >= 0 ? S_INT(b.size_bytes) : S_NULL, DB_IDEM(idem)));
}

/* The tenant's next request may name it. */
static enum flow_turn add_learn(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    world_read(world_of(f), STORE_WORLD_DATASETS,
               json_integer_value(json_object_get(db_of(f)->json, "id")), f->id);
    world_poll(world_of(f));
    return FLOW_WAIT;
}

static enum flow_turn add_reply(struct flow *f)
{
    return flow_reply_json(f, 201, dataset_json(db_of(f)->json));
}

static const struct flow_step add_steps[] = {
    {"write", add_write}, {"learn", add_learn}, {"reply", add_reply}};
const struct flow_kind flow_dataset_add =
    FLOW_KIND_DONE("flow_dataset_add", struct db_state, add_steps, db_done);

/* ---- list ---- */

static enum flow_turn list_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_DATASET_LIST, STORE_ARGS(S_TEXT(f->rq->who.tenant_id)));
}

static enum flow_turn list_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *list = json_array();
    const json_t *d;
    size_t i;
    json_array_foreach(json_object_get(db_of(f)->json, "datasets"), i, d)
        json_array_append_new(list, dataset_json(d));
    return flow_reply_json(f, 200, json_pack("{s:o}", "datasets", list));
}

static const struct flow_step list_steps[] = {{"read", list_read},
                                              {"reply", list_reply}};
const struct flow_kind flow_dataset_list =
    FLOW_KIND_DONE("flow_dataset_list", struct db_state, list_steps, db_done);

/* ---- get ---- */

static enum flow_turn get_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(
        f, STORE_DATASET_GET,
        STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(flow_param(f, "name"))));
}

static const struct flow_step get_steps[] = {{"read", get_read},
                                             {"reply", dataset_reply}};
const struct flow_kind flow_dataset_get =
    FLOW_KIND_DONE("flow_dataset_get", struct db_state, get_steps, db_done);

/* ---- remove ---- */

static enum flow_turn remove_write(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(
        f, STORE_DATASET_REMOVE,
        STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(flow_param(f, "name"))));
}

static enum flow_turn remove_learn(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    world_read(world_of(f), STORE_WORLD_DATASETS,
               json_integer_value(json_object_get(db_of(f)->json, "id")), f->id);
    return FLOW_WAIT;
}

static enum flow_turn remove_reply(struct flow *f)
{
    return flow_reply_empty(f, 204);
}

static const struct flow_step remove_steps[] = {
    {"write", remove_write}, {"learn", remove_learn}, {"reply", remove_reply}};
const struct flow_kind flow_dataset_remove =
    FLOW_KIND_DONE("flow_dataset_remove", struct db_state, remove_steps, db_done);
