/* /v1/providers, /v1/join-codes, /v1/nodes, /v1/prices: who sells, and what. Bans stand
 * in flow_node.c. */
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/request.h"
#include "server/flow/secret.h"

struct create {
    struct db_slot db;
    char secret[SECRET_TEXT_MAX];
    uint8_t hash[SHA256_LEN];
};

/* ---- providers ---- */

static enum flow_turn create_write(struct flow *f)
{
    struct body {
        const char *name;
        int64_t fee_ppm;
    } b = {NULL, -1};
    static const struct jsonx_field fields[] = {
        {"name", JSONX_STRING, true, offsetof(struct body, name), 1, NAME_BYTES_MAX},
        {"fee_ppm", JSONX_INT, false, offsetof(struct body, fee_ppm), 0, 1000000},
    };
    struct create *s = f->state;
    struct db_idem idem;
    struct err err;
    if (!DB_BODY(f, fields, &b, &err) || request_name("/name", b.name, &err) != 0)
        return flow_fail(f, &err);
    secret_make(SECRET_API_KEY, s->secret, s->hash);
    db_idem(f, &idem);
    return db_call(f, STORE_PROVIDER_CREATE,
                   STORE_ARGS(S_TEXT(b.name),
                              b.fee_ppm >= 0 ? S_INT(b.fee_ppm) : S_NULL,
                              S_BYTES(s->hash, SHA256_LEN), DB_IDEM(idem)));
}

static enum flow_turn create_reply(struct flow *f)
{
    struct create *s = f->state;
    if (db_failed(f))
        return db_fail(f);
    const char *id = json_string_value(json_object_get(s->db.json, "id"));
    const char *name = json_string_value(json_object_get(s->db.json, "name"));
    world_add_key(world_of(f), s->hash, "provider", id, name);
    return flow_reply_json(
        f, 201,
        json_pack("{s:s, s:s, s:s}", "id", id, "name", name, "api_key", s->secret));
}

static const struct flow_step create_steps[] = {{"write", create_write},
                                                {"reply", create_reply}};
const struct flow_kind flow_provider_create =
    FLOW_KIND_DONE("flow_provider_create", struct create, create_steps, db_done);

static enum flow_turn providers_read(struct flow *f)
{
    static const char *const none[] = {NULL};
    struct db_page page;
    struct err err;
    if (db_page(f, none, &page, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_PROVIDER_LIST, STORE_ARGS(DB_PAGE(page)));
}

static enum flow_turn list_reply(struct flow *f)
{
    return db_failed(f) ? db_fail(f)
                        : flow_reply_json(f, 200, render_times(db_of(f)->json));
}

DB_FLOW(flow_provider_list, "read", providers_read, list_reply);

/* ---- join codes ---- */

#define JOIN_TTL_US     (US_PER_HOUR)
#define JOIN_TTL_MAX_US (30 * 24 * US_PER_HOUR)

static enum flow_turn join_write(struct flow *f)
{
    struct body {
        const char *site, *node;
        int64_t ttl_us;
    } b = {NULL, NULL, JOIN_TTL_US};
    static const struct jsonx_field fields[] = {
        {"site", JSONX_STRING, true, offsetof(struct body, site), 1, NAME_BYTES_MAX},
        {"node", JSONX_STRING, true, offsetof(struct body, node), 1, NAME_BYTES_MAX},
        {"ttl", JSONX_DURATION, false, offsetof(struct body, ttl_us), US_PER_S,
         JOIN_TTL_MAX_US},
    };
    struct create *s = f->state;
    struct db_idem idem;
    struct err err;
    if (!DB_BODY(f, fields, &b, &err) || request_name("/node", b.node, &err) != 0)
        return flow_fail(f, &err);
    secret_make(SECRET_JOIN, s->secret, s->hash);
    db_idem(f, &idem);
    return db_call(f, STORE_JOIN_CODE,
                   STORE_ARGS(S_TEXT(f->rq->who.provider_id), S_TEXT(b.site),
                              S_TEXT(b.node), S_BYTES(s->hash, SHA256_LEN),
                              S_INT(f->now_us + b.ttl_us), DB_IDEM(idem)));
}

static enum flow_turn join_reply(struct flow *f)
{
    struct create *s = f->state;
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = render_times(s->db.json);
    json_object_del(reply, "replayed"); /* each asking gets a code of its own */
    json_object_set_new(reply, "code", json_string(s->secret));
    json_object_set_new(reply, "ca_sha256", json_string(ca_sha256(world_of(f)->ca)));
    return flow_reply_json(f, 201, reply);
}

static const struct flow_step join_steps[] = {{"write", join_write},
                                              {"reply", join_reply}};
const struct flow_kind flow_join_code =
    FLOW_KIND_DONE("flow_join_code", struct create, join_steps, db_done);

/* ---- a node's identity anew ---- */

static enum flow_turn reattest_write(struct flow *f)
{
    struct body {
        const char *site;
        int64_t ttl_us;
    } b = {NULL, JOIN_TTL_US};
    static const struct jsonx_field fields[] = {
        {"site", JSONX_STRING, false, offsetof(struct body, site), 1, NAME_BYTES_MAX},
        {"ttl", JSONX_DURATION, false, offsetof(struct body, ttl_us), US_PER_S,
         JOIN_TTL_MAX_US},
    };
    struct create *s = f->state;
    struct db_idem idem;
    struct err err;
    if (!DB_BODY(f, fields, &b, &err))
        return flow_fail(f, &err);
    secret_make(SECRET_JOIN, s->secret, s->hash);
    db_idem(f, &idem);
    return db_call(f, STORE_NODE_REATTEST,
                   STORE_ARGS(S_TEXT(db_provider_scope(f)),
                              S_TEXT(flow_param(f, "name")), S_TEXT(b.site),
                              S_BYTES(s->hash, SHA256_LEN), S_INT(f->now_us + b.ttl_us),
                              DB_IDEM(idem)));
}

static const struct flow_step reattest_steps[] = {{"write", reattest_write},
                                                  {"reply", join_reply}};
const struct flow_kind flow_node_reattest =
    FLOW_KIND_DONE("flow_node_reattest", struct create, reattest_steps, db_done);

/* ---- nodes ---- */

static enum flow_turn nodes_read(struct flow *f)
{
    struct db_page page;
    struct err err;
    if (db_page_by_number(f, &page, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_NODE_LIST,
                   STORE_ARGS(S_TEXT(db_provider_scope(f)), DB_PAGE(page)));
}

static enum flow_turn nodes_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = render_times(db_of(f)->json), *n;
    size_t i;
    json_array_foreach(json_object_get(reply, "nodes"), i, n)
    {
        render_money(n, "price_micro", "price", world_of(f)->currency);
        json_object_del(n, "currency");
    }
    return flow_reply_json(f, 200, reply);
}

DB_FLOW(flow_node_list, "read", nodes_read, nodes_reply);

/* ---- prices ---- */

static enum flow_turn prices_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_PRICE_LIST, STORE_ARGS(S_TEXT(db_provider_scope(f))));
}

/* Replaces member `us_name` by a duration `name` (null when it was null). */
static void render_duration(json_t *obj, const char *us_name, const char *name)
{
    const json_t *us = json_object_get(obj, us_name);
    char text[TIMEFMT_MAX];
    if (json_is_integer(us))
        timefmt_duration(json_integer_value(us), text);
    json_object_set_new(obj, name,
                        json_is_integer(us) ? json_string(text) : json_null());
    json_object_del(obj, us_name);
}

static enum flow_turn prices_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = render_times(db_of(f)->json), *p;
    size_t i;
    json_array_foreach(json_object_get(reply, "prices"), i, p)
    {
        render_money(p, "per_gpu_hour_micro", "per_gpu_hour", world_of(f)->currency);
        json_object_set(p, "since", json_object_get(p, "from"));
        json_object_del(p, "from");
        json_object_set(p, "until", json_object_get(p, "to"));
        json_object_del(p, "to");
        render_money(p, "spot_per_gpu_hour_micro", "spot_per_gpu_hour",
                     world_of(f)->currency);
        render_duration(p, "notice_us", "notice");
        json_object_del(p, "currency");
    }
    return flow_reply_json(f, 200, reply);
}

DB_FLOW(flow_price_list, "read", prices_read, prices_reply);

struct price_body {
    const char *site, *node, *gpu;
    json_t *price, *spot;
    int64_t notice_us;
};

/* How long a node goes on with a spot lease that it is told nothing new about: shorter,
 * and a moment without the server would end jobs. */
#define NOTICE_MIN_US (30 * US_PER_S)
#define NOTICE_MAX_US (24 * US_PER_HOUR)

static int read_price(const struct flow *f, struct price_body *b, int64_t *ret_micro,
                      int64_t *ret_spot, struct err *err)
{
    static const struct jsonx_field fields[] = {
        {"site", JSONX_STRING, false, offsetof(struct price_body, site), 1,
         NAME_BYTES_MAX},
        {"node", JSONX_STRING, false, offsetof(struct price_body, node), 1,
         NAME_BYTES_MAX},
        {"gpu", JSONX_STRING, false, offsetof(struct price_body, gpu), 1, 64},
        {"per_gpu_hour", JSONX_OBJECT, true, offsetof(struct price_body, price)},
        {"spot_per_gpu_hour", JSONX_OBJECT, false, offsetof(struct price_body, spot)},
        {"notice", JSONX_DURATION, false, offsetof(struct price_body, notice_us), 0,
         NOTICE_MAX_US},
    };
    const char *currency = world_of(f)->currency;
    if (jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), b, "", err) != 0 ||
        request_money(b->price, "/per_gpu_hour", currency, ret_micro, err) != 0 ||
        (b->spot != NULL &&
         request_money(b->spot, "/spot_per_gpu_hour", currency, ret_spot, err) != 0))
        return -1;
    if (b->notice_us > 0 && b->notice_us < NOTICE_MIN_US)
        return err_set(err, ERR_BAD_REQUEST,
                       "/notice: 0s (no spot) or 30s to 24h is needed");
    return 0;
}

static enum flow_turn price_write(struct flow *f)
{
    struct price_body b = {.notice_us = -1};
    struct err err;
    int64_t micro = -1, spot = -1;
    if (!db_no_query(f, &err) || read_price(f, &b, &micro, &spot, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_PRICE_SET,
                   STORE_ARGS(S_TEXT(f->rq->who.provider_id), S_TEXT(b.site),
                              S_TEXT(b.node), S_TEXT(b.gpu), S_INT(micro),
                              S_TEXT(world_of(f)->currency),
                              spot >= 0 ? S_INT(spot) : S_NULL,
                              b.notice_us >= 0 ? S_INT(b.notice_us) : S_NULL));
}

/* Beyond this many nodes the new price is seen when the feed tells of it. */
#define LEARN_ALL_MAX 2000

static enum flow_turn price_learn(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    world_poll(world_of(f));
    if (world_of(f)->node_count > LEARN_ALL_MAX)
        return FLOW_MORE;
    world_read(world_of(f), STORE_WORLD_NODES, 0, f->id);
    return FLOW_WAIT;
}

static const struct flow_step price_steps[] = {
    {"write", price_write}, {"learn", price_learn}, {"reply", list_reply}};
const struct flow_kind flow_price_set =
    FLOW_KIND_DONE("flow_price_set", struct db_state, price_steps, db_done);
