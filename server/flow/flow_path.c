/* /v1/paths: the optical paths between sites, for administrators to set up and for all
 * to see. What is booked of them is in path bookings; having those lit and released is
 * flow_paths_due.c. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/request.h"

#define LANES_MAX    64                 /* a bit per lane in the calendar */
#define LANE_BPS_MAX (INT64_C(1) << 40) /* bytes a second */
#define SETUP_MAX_US                                                          \
    (7 * 24 * US_PER_HOUR)          /* hours are usual, days would be digging \
                                     */
#define GBPS_BPS INT64_C(125000000) /* bytes a second */

/* A lane's price is what is kept and charged; per Gbit/s is what people compare. Half
 * up; -1: beyond what money holds. */
static int64_t lane_price(int64_t per_gbps, int64_t lane_Bps)
{
    __int128 price = ((__int128)per_gbps * lane_Bps + GBPS_BPS / 2) / GBPS_BPS;
    return price > INT64_MAX / 1000 ? -1 : (int64_t)price;
}

static int64_t gbps_price(int64_t per_lane, int64_t lane_Bps)
{
    return (int64_t)(((__int128)per_lane * GBPS_BPS + lane_Bps / 2) / lane_Bps);
}

static json_t *rate_text(int64_t Bps)
{
    static const struct {
        const char *unit;
        int64_t bits;
    } units[] = {{"Tbps", INT64_C(1000000000000)},
                 {"Gbps", INT64_C(1000000000)},
                 {"Mbps", INT64_C(1000000)},
                 {"Kbps", INT64_C(1000)},
                 {"bps", 1}};
    size_t i = 0;
    while (Bps * 8 % units[i].bits != 0)
        i++;
    return json_sprintf("%" PRId64 "%s", Bps * 8 / units[i].bits, units[i].unit);
}

static json_t *duration_text(int64_t us)
{
    char text[TIMEFMT_MAX];
    timefmt_duration(us, text);
    return json_string(text);
}

static int64_t int_of(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(obj, name));
}

/* As the database has it -> as the wire has it. */
static json_t *path_json(const json_t *p, const char *currency)
{
    static const char *const same[] = {"id",       "name",  "from",     "to", "lanes",
                                       "lossless", "state", "provider", "lit"};
    json_t *out = json_object();
    int64_t lane_Bps = int_of(p, "lane_Bps"), rtt_us = int_of(p, "rtt_us");
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        if (json_object_get(p, same[i]) != NULL)
            json_object_set(out, same[i], json_object_get(p, same[i]));
    json_object_set_new(out, "lane_bandwidth", rate_text(lane_Bps));
    json_object_set_new(out, "rtt", rtt_us > 0 ? duration_text(rtt_us) : json_null());
    json_object_set_new(out, "setup", duration_text(int_of(p, "setup_us")));
    json_object_set_new(
        out, "price_per_gbps_hour",
        json_pack("{s:s, s:I}", "currency", currency, "micro",
                  (json_int_t)gbps_price(int_of(p, "per_lane_hour_micro"), lane_Bps)));
    return out;
}

/* Reads the path again, so that the next request of this client can use it. */
static enum flow_turn path_learn(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    world_read(world_of(f), STORE_WORLD_PATHS, int_of(db_of(f)->json, "id"), f->id);
    return FLOW_WAIT;
}

/* ---- create ---- */

struct create_body {
    const char *name, *from, *to, *lane_bandwidth, *provider;
    int64_t lanes, rtt_us, setup_us;
    bool lossless;
    json_t *price;
};

static int read_body(const struct flow *f, struct create_body *b, int64_t *ret_lane_Bps,
                     int64_t *ret_price, struct err *err)
{
    static const struct jsonx_field fields[] = {
        {"name", JSONX_STRING, true, offsetof(struct create_body, name), 1,
         NAME_BYTES_MAX},
        {"from", JSONX_STRING, true, offsetof(struct create_body, from), 1,
         NAME_BYTES_MAX},
        {"to", JSONX_STRING, true, offsetof(struct create_body, to), 1, NAME_BYTES_MAX},
        {"lanes", JSONX_INT, true, offsetof(struct create_body, lanes), 1, LANES_MAX},
        {"lane_bandwidth", JSONX_STRING, true,
         offsetof(struct create_body, lane_bandwidth), 1, 32},
        {"rtt", JSONX_DURATION, false, offsetof(struct create_body, rtt_us), 1,
         10 * US_PER_S},
        {"lossless", JSONX_BOOL, false, offsetof(struct create_body, lossless)},
        {"price_per_gbps_hour", JSONX_OBJECT, true,
         offsetof(struct create_body, price)},
        {"setup", JSONX_DURATION, false, offsetof(struct create_body, setup_us), 0,
         SETUP_MAX_US},
        {"provider", JSONX_STRING, true, offsetof(struct create_body, provider), 1,
         NAME_BYTES_MAX},
    };
    int64_t per_gbps;
    if (jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), b, "", err) != 0 ||
        request_name("/name", b->name, err) != 0 ||
        request_rate("/lane_bandwidth", b->lane_bandwidth, ret_lane_Bps, err) != 0 ||
        request_money(b->price, "/price_per_gbps_hour", world_of(f)->currency,
                      &per_gbps, err) != 0)
        return -1;
    if (*ret_lane_Bps > LANE_BPS_MAX)
        return err_set(err, ERR_BAD_REQUEST, "/lane_bandwidth: too much for one lane");
    *ret_price = lane_price(per_gbps, *ret_lane_Bps);
    if (*ret_price < 0)
        return err_set(err, ERR_BAD_REQUEST, "/price_per_gbps_hour: too much");
    if (strcmp(b->from, b->to) == 0)
        return err_set(err, ERR_BAD_REQUEST, "/to: a path joins two sites");
    return 0;
}

static enum flow_turn create_write(struct flow *f)
{
    struct create_body b = {.name = NULL};
    struct db_idem idem;
    struct err err;
    int64_t lane_Bps = 0, price = 0;
    if (!db_no_query(f, &err) || read_body(f, &b, &lane_Bps, &price, &err) != 0)
        return flow_fail(f, &err);
    db_idem(f, &idem);
    return db_call(f, STORE_PATH_CREATE,
                   STORE_ARGS(S_TEXT(b.name), S_TEXT(b.provider), S_TEXT(b.from),
                              S_TEXT(b.to), S_INT(b.lanes), S_INT(lane_Bps),
                              b.rtt_us > 0 ? S_INT(b.rtt_us) : S_NULL,
                              S_BOOL(b.lossless), S_INT(price), S_INT(b.setup_us),
                              DB_IDEM(idem)));
}

static enum flow_turn create_reply(struct flow *f)
{
    return flow_reply_json(f, 201, path_json(db_of(f)->json, world_of(f)->currency));
}

static const struct flow_step create_steps[] = {
    {"write", create_write}, {"learn", path_learn}, {"reply", create_reply}};
const struct flow_kind flow_path_create =
    FLOW_KIND_DONE("flow_path_create", struct db_state, create_steps, db_done);

/* ---- change ---- */

struct patch_body {
    const char *state;
    json_t *price;
    int64_t rtt_us, setup_us;
};

/* *ret_price stays when the price does. */
static int read_patch(const struct flow *f, struct patch_body *b, int64_t *ret_price,
                      struct err *err)
{
    static const struct jsonx_field fields[] = {
        {"state", JSONX_STRING, false, offsetof(struct patch_body, state), 1, 8},
        {"price_per_gbps_hour", JSONX_OBJECT, false,
         offsetof(struct patch_body, price)},
        {"rtt", JSONX_DURATION, false, offsetof(struct patch_body, rtt_us), 1,
         10 * US_PER_S},
        {"setup", JSONX_DURATION, false, offsetof(struct patch_body, setup_us), 0,
         SETUP_MAX_US},
    };
    const struct world *w = world_of(f);
    const char *name = flow_param(f, "name");
    int path = world_path_find(w, name);
    int64_t per_gbps;
    if (jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), b, "", err) != 0)
        return -1;
    if (path < 0)
        return err_set(err, ERR_NOT_FOUND, "no path is named %.63s", name);
    if (json_object_size(f->rq->body) == 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "nothing to change: state, price_per_gbps_hour, rtt or setup");
    if (b->state != NULL && strcmp(b->state, "up") != 0 &&
        strcmp(b->state, "down") != 0)
        return err_set(err, ERR_BAD_REQUEST, "/state: '%s' is neither up nor down",
                       b->state);
    if (b->price == NULL)
        return 0;
    if (request_money(b->price, "/price_per_gbps_hour", w->currency, &per_gbps, err) !=
        0)
        return -1;
    *ret_price = lane_price(per_gbps, w->paths.paths[path].lane_Bps);
    return *ret_price >= 0
               ? 0
               : err_set(err, ERR_BAD_REQUEST, "/price_per_gbps_hour: too much");
}

static enum flow_turn patch_write(struct flow *f)
{
    struct patch_body b = {.setup_us = -1};
    struct err err;
    int64_t price = -1;
    if (!db_no_query(f, &err) || read_patch(f, &b, &price, &err) != 0)
        return flow_fail(f, &err);
    return db_call(
        f, STORE_PATH_PATCH,
        STORE_ARGS(S_TEXT(flow_param(f, "name")), price >= 0 ? S_INT(price) : S_NULL,
                   b.setup_us >= 0 ? S_INT(b.setup_us) : S_NULL,
                   b.rtt_us > 0 ? S_INT(b.rtt_us) : S_NULL, S_NULL, S_TEXT(b.state)));
}

static enum flow_turn patch_reply(struct flow *f)
{
    return flow_reply_json(f, 200, path_json(db_of(f)->json, world_of(f)->currency));
}

static const struct flow_step patch_steps[] = {
    {"write", patch_write}, {"learn", path_learn}, {"reply", patch_reply}};
const struct flow_kind flow_path_patch =
    FLOW_KIND_DONE("flow_path_patch", struct db_state, patch_steps, db_done);

/* ---- list ---- */

static enum flow_turn list_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_PATH_LIST, STORE_NO_ARGS);
}

static enum flow_turn list_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *list = json_array();
    const json_t *p;
    size_t i;
    json_array_foreach(json_object_get(db_of(f)->json, "paths"), i, p)
        json_array_append_new(list, path_json(p, world_of(f)->currency));
    return flow_reply_json(f, 200, json_pack("{s:o}", "paths", list));
}

static const struct flow_step list_steps[] = {{"read", list_read},
                                              {"reply", list_reply}};
const struct flow_kind flow_path_list =
    FLOW_KIND_DONE("flow_path_list", struct db_state, list_steps, db_done);
