#include "server/flow/request.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "client/lib/uuid.h"
#include "server/core/match.h"
#include "server/flow/request_priv.h"

/* As decoded, before defaults and bounds across members. */
struct raw {
    const char *gpu, *profile, *residency, *site, *quote, *together;
    const char *bandwidth, *demand;
    int64_t gpus, nodes, duration_us;
    int64_t start_us, earliest_us, latest_us, until_us;
    json_t *data, *federated, *max_price, *max_hour, *custom;
    json_t *provider, *deny_provider, *deny_site, *avoid_zone;
    bool spread_zones, spot, hold, wait;
    int64_t max_rtt_us, min_memory_mib;
    double max_slowdown;
};

#define NO_TIME INT64_MIN

const struct jsonx_field request_members[] = {
    {"gpu", JSONX_STRING, false, offsetof(struct raw, gpu), 1, 64},
    {"gpus", JSONX_INT, false, offsetof(struct raw, gpus), 1, GPUS_PER_NODE_MAX},
    {"nodes", JSONX_INT, false, offsetof(struct raw, nodes), 1, REQUEST_NODES_MAX},
    {"together", JSONX_STRING, false, offsetof(struct raw, together), 1, 16},
    {"spread_zones", JSONX_BOOL, false, offsetof(struct raw, spread_zones)},
    {"duration", JSONX_DURATION, false, offsetof(struct raw, duration_us),
     REQUEST_MIN_US, LEASE_MAX_US},
    {"start", JSONX_TIME, false, offsetof(struct raw, start_us)},
    {"earliest", JSONX_TIME, false, offsetof(struct raw, earliest_us)},
    {"latest", JSONX_TIME, false, offsetof(struct raw, latest_us)},
    {"data", JSONX_ARRAY, false, offsetof(struct raw, data), 0,
     DATASETS_PER_REQUEST_MAX},
    {"federated", JSONX_ARRAY, false, offsetof(struct raw, federated), 2,
     REQUEST_GROUPS_MAX},
    {"profile", JSONX_STRING, false, offsetof(struct raw, profile), 1, 64},
    {"demand", JSONX_STRING, false, offsetof(struct raw, demand), 1, 32},
    {"custom", JSONX_OBJECT, false, offsetof(struct raw, custom)},
    {"bandwidth", JSONX_STRING, false, offsetof(struct raw, bandwidth), 1, 32},
    {"max_rtt", JSONX_DURATION, false, offsetof(struct raw, max_rtt_us), 1,
     10 * US_PER_S},
    {"max_price", JSONX_OBJECT, false, offsetof(struct raw, max_price)},
    {"max_price_per_gpu_hour", JSONX_OBJECT, false, offsetof(struct raw, max_hour)},
    {"max_slowdown", JSONX_REAL, false, offsetof(struct raw, max_slowdown), 1, 1000},
    {"residency", JSONX_STRING, false, offsetof(struct raw, residency), 2, 4},
    {"site", JSONX_STRING, false, offsetof(struct raw, site), 1, NAME_BYTES_MAX},
    {"provider", JSONX_ANY, false, offsetof(struct raw, provider)},
    {"deny_provider", JSONX_ARRAY, false, offsetof(struct raw, deny_provider), 0,
     REQUEST_NAMES_MAX},
    {"deny_site", JSONX_ARRAY, false, offsetof(struct raw, deny_site), 0,
     REQUEST_NAMES_MAX},
    {"avoid_zone", JSONX_ARRAY, false, offsetof(struct raw, avoid_zone), 0,
     REQUEST_NAMES_MAX},
    {"min_memory_mib", JSONX_INT, false, offsetof(struct raw, min_memory_mib), 1,
     INT64_C(1) << 30},
    {"spot", JSONX_BOOL, false, offsetof(struct raw, spot)},
    {"hold", JSONX_BOOL, false, offsetof(struct raw, hold)},
    {"wait", JSONX_BOOL, false, offsetof(struct raw, wait)},
    {"wait_until", JSONX_TIME, false, offsetof(struct raw, until_us)},
    {"quote", JSONX_STRING, false, offsetof(struct raw, quote), 36, 36},
};
const size_t request_member_count = JSONX_COUNT(request_members);

int request_money(const json_t *obj, const char *at, const char *currency,
                  int64_t *ret_micro, struct err *err)
{
    struct money {
        const char *currency;
        int64_t micro;
    } m = {NULL, 0};
    static const struct jsonx_field fields[] = {
        {"currency", JSONX_STRING, true, offsetof(struct money, currency), 3, 3},
        {"micro", JSONX_INT, true, offsetof(struct money, micro), 0, INT64_MAX},
    };
    if (jsonx_decode(obj, fields, JSONX_COUNT(fields), &m, at, err) != 0)
        return -1;
    if (strcmp(m.currency, currency) != 0)
        return err_set(err, ERR_BAD_REQUEST, "%s/currency: this market trades in %s",
                       at, currency);
    *ret_micro = m.micro;
    return 0;
}

/* The highest hourly price whose total is within `total`. */
static int64_t hourly_bound(const struct request *rq, int64_t total)
{
    __int128 quantity = (__int128)request_gpus(rq) * rq->len_us;
    __int128 price = (__int128)total * US_PER_HOUR / quantity;
    return price > INT64_MAX ? INT64_MAX : price < 1 ? 1 : (int64_t)price;
}

static int fill_prices(const struct raw *raw, const char *currency, struct request *rq,
                       struct err *err)
{
    int64_t hour = 0, total = 0;
    if (raw->max_hour != NULL && request_money(raw->max_hour, "/max_price_per_gpu_hour",
                                               currency, &hour, err) != 0)
        return -1;
    if (raw->max_price != NULL &&
        request_money(raw->max_price, "/max_price", currency, &total, err) != 0)
        return -1;
    if (raw->max_price != NULL) {
        rq->max_gpu_hour_micro = hourly_bound(rq, total);
        rq->max_total_micro = total > 0 ? total : 1;
    }
    /* 0 means "no bound" further on; a bound of nothing admits only what is free. */
    if (raw->max_hour != NULL && hour == 0)
        hour = 1;
    if (raw->max_hour != NULL &&
        (rq->max_gpu_hour_micro == 0 || hour < rq->max_gpu_hour_micro))
        rq->max_gpu_hour_micro = hour;
    return 0;
}

static int fill_times(const struct raw *raw, int64_t now_us, struct request *rq,
                      struct err *err)
{
    bool range = raw->earliest_us != NO_TIME || raw->latest_us != NO_TIME;
    if (raw->start_us != NO_TIME && range)
        return err_set(err, ERR_BAD_REQUEST,
                       "/start: give either start or earliest and latest");
    rq->from_us = now_us;
    rq->latest_us = now_us;
    rq->at_once = raw->start_us == NO_TIME && !range;
    if (raw->start_us != NO_TIME) {
        if (raw->start_us < now_us - REQUEST_PAST_US)
            return err_set(err, ERR_BAD_REQUEST, "/start: is in the past");
        if (raw->start_us > now_us)
            rq->from_us = rq->latest_us = raw->start_us;
    } else if (range) {
        if (raw->earliest_us != NO_TIME && raw->earliest_us > now_us)
            rq->from_us = raw->earliest_us;
        rq->latest_us =
            raw->latest_us != NO_TIME ? raw->latest_us : now_us + HORIZON_US;
        if (rq->latest_us < rq->from_us)
            return err_set(err, ERR_BAD_REQUEST,
                           "/latest: is before the earliest possible start");
    }
    if (rq->from_us > now_us + HORIZON_US)
        return err_set(err, ERR_BAD_REQUEST, "/start: at most %d days ahead",
                       (int)(HORIZON_US / (24 * US_PER_HOUR)));
    if (rq->latest_us > now_us + HORIZON_US)
        rq->latest_us = now_us + HORIZON_US;
    return 0;
}

static int fill_wait(const struct raw *raw, int64_t now_us, struct request *rq,
                     struct err *err)
{
    rq->wait = raw->wait;
    if (raw->until_us != NO_TIME && !raw->wait)
        return err_set(err, ERR_BAD_REQUEST, "/wait_until: is of no use without wait");
    if (!raw->wait)
        return 0;
    rq->until_us = raw->until_us != NO_TIME ? raw->until_us
                   : rq->at_once            ? now_us + REQUEST_WAIT_US
                                            : rq->latest_us;
    if (rq->until_us <= now_us && raw->until_us != NO_TIME)
        return err_set(err, ERR_BAD_REQUEST, "/wait_until: is in the past");
    if (rq->until_us > now_us + HORIZON_US)
        return err_set(err, ERR_BAD_REQUEST, "/wait_until: at most %d days ahead",
                       (int)(HORIZON_US / (24 * US_PER_HOUR)));
    return 0;
}

/* An array of different names; its length is bounded by its row of the table. */
static int fill_names(const json_t *list, const char *at, const char *what,
                      const char **ret, size_t *ret_count, struct err *err)
{
    size_t i;
    json_t *name;
    json_array_foreach(list, i, name)
    {
        if (!json_is_string(name) || json_string_length(name) > NAME_BYTES_MAX ||
            json_string_length(name) == 0)
            return err_set(err, ERR_BAD_REQUEST, "%s/%zu: expected the name of a %s",
                           at, i, what);
        for (size_t k = 0; k < i; k++)
            if (strcmp(ret[k], json_string_value(name)) == 0)
                return err_set(err, ERR_BAD_REQUEST, "%s/%zu: named twice", at, i);
        ret[(*ret_count)++] = json_string_value(name);
    }
    return 0;
}

static int fill_data(const struct raw *raw, struct request *rq, struct err *err)
{
    rq->federated = raw->federated != NULL;
    if (rq->federated && raw->data != NULL)
        return err_set(err, ERR_BAD_REQUEST,
                       "/data: a federated request names its data sets in federated");
    const char *at = rq->federated ? "/federated" : "/data";
    if (fill_names(rq->federated ? raw->federated : raw->data, at, "data set", rq->data,
                   &rq->data_count, err) != 0)
        return -1;
    /* A bound that would bound nothing is a mistake, not a wish. */
    if (rq->max_rtt_us > 0 && rq->data_count == 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "/max_rtt: bounds the distance to data: name the data sets");
    if (raw->bandwidth != NULL && rq->data_count == 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "/bandwidth: is that of the path to data: name the data sets");
    return raw->bandwidth == NULL
               ? 0
               : request_rate("/bandwidth", raw->bandwidth, &rq->bandwidth_Bps, err);
}

static int fill_places(const struct raw *raw, struct request *rq, struct err *err)
{
    const struct {
        const json_t *list;
        const char *at, *what;
        struct request_names *names;
    } lists[] = {
        {raw->deny_provider, "/deny_provider", "provider", &rq->deny_provider},
        {raw->deny_site, "/deny_site", "site", &rq->deny_site},
        {raw->avoid_zone, "/avoid_zone", "zone", &rq->avoid_zone},
        {json_is_array(raw->provider) ? raw->provider : NULL, "/provider", "provider",
         &rq->only_provider},
    };
    rq->stay = rq->residency != NULL && strcmp(rq->residency, "data") == 0;
    if (rq->stay && rq->data_count == 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "/residency: \"data\" is the country of the data: name the data "
                       "sets");
    if (rq->stay)
        rq->residency = NULL;
    if (rq->residency != NULL &&
        (strlen(rq->residency) != 2 ||
         strspn(rq->residency, "abcdefghijklmnopqrstuvwxyz") != 2))
        return err_set(
            err, ERR_BAD_REQUEST,
            "/residency: two lower-case letters of a country, such as jp, or "
            "\"data\": that of the data");
    if (json_is_string(raw->provider) && json_string_length(raw->provider) >= 1 &&
        json_string_length(raw->provider) <= NAME_BYTES_MAX)
        rq->only_provider.name[rq->only_provider.count++] =
            json_string_value(raw->provider);
    else if (raw->provider != NULL &&
             (json_array_size(raw->provider) == 0 ||
              json_array_size(raw->provider) > REQUEST_NAMES_MAX))
        return err_set(err, ERR_BAD_REQUEST,
                       "/provider: expected a name, or an array of 1..%d names",
                       REQUEST_NAMES_MAX);
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        if (fill_names(lists[i].list, lists[i].at, lists[i].what, lists[i].names->name,
                       &lists[i].names->count, err) != 0)
            return -1;
    return 0;
}

static int fill_gang(const struct raw *raw, struct request *rq, struct err *err)
{
    static const char *const names[] = {
        [TOGETHER_SITE] = "site", [TOGETHER_DOMAIN] = "domain", [TOGETHER_ANY] = "any"};
    rq->gpus = raw->gpus;
    rq->nodes = raw->nodes;
    rq->spread_zones = raw->spread_zones;
    if (raw->together != NULL) {
        size_t k = 0;
        while (k < 3 && strcmp(names[k], raw->together) != 0)
            k++;
        if (k == 3)
            return err_set(err, ERR_BAD_REQUEST,
                           "/together: expected \"domain\", \"site\" or \"any\"");
        rq->together = (enum request_together)k;
    }
    if (rq->nodes * request_groups(rq) > REQUEST_NODES_MAX)
        return err_set(err, ERR_BAD_REQUEST, "/nodes: at most %d in all groups",
                       REQUEST_NODES_MAX);
    bool apart = rq->together == TOGETHER_ANY && rq->nodes > 1;
    if (rq->spread_zones && !apart && !rq->federated)
        return err_set(err, ERR_BAD_REQUEST,
                       "/spread_zones: needs several nodes with together \"any\", or "
                       "federated");
    return 0;
}

/* custom: {"kind"?: text, NAME: number…} */
static int own_profile(const json_t *custom, struct slowdown_profile *ret,
                       struct err *err)
{
    struct slowdown_number numbers[64];
    const char *kind = NULL, *name;
    size_t count = 0;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)custom, name, v)
    {
        bool is_kind = strcmp(name, "kind") == 0;
        if (is_kind ? !json_is_string(v) : !json_is_number(v))
            return err_set(err, ERR_BAD_REQUEST, "/custom/%.40s: expected a %s", name,
                           is_kind ? "text" : "number");
        if (is_kind) {
            kind = json_string_value(v);
            continue;
        }
        if (count == sizeof(numbers) / sizeof(numbers[0]))
            return err_set(err, ERR_BAD_REQUEST, "/custom: too many members");
        numbers[count++] = (struct slowdown_number){name, json_number_value(v)};
    }
    return slowdown_profile_from(kind, numbers, count, ret, err);
}

static int fill_profile(const struct raw *raw, struct request *rq, struct err *err)
{
    int given = (raw->profile != NULL) + (raw->demand != NULL) + (raw->custom != NULL);
    if (given > 1)
        return err_set(err, ERR_BAD_REQUEST,
                       "/profile: give one of profile, demand and custom");
    if (raw->profile != NULL && (rq->profile = slowdown_find(raw->profile)) == NULL)
        return err_set(err, ERR_BAD_REQUEST,
                       "/profile: '%s' is not known: neargpu profiles lists them (GET "
                       "/v1/profiles)",
                       raw->profile);
    if (raw->demand == NULL && raw->custom == NULL)
        return 0;
    struct slowdown_profile own;
    int64_t demand_Bps;
    if (raw->custom != NULL) {
        if (own_profile(raw->custom, &own, err) != 0)
            return -1;
    } else {
        if (request_rate("/demand", raw->demand, &demand_Bps, err) != 0)
            return -1;
        const struct slowdown_number n = {"demand_Bps_per_gpu", (double)demand_Bps};
        if (slowdown_profile_from(NULL, &n, 1, &own, err) != 0)
            return err_prefix(err, "/demand");
    }
    rq->own = xcalloc(1, sizeof(*rq->own));
    *rq->own = own;
    rq->profile = rq->own;
    return 0;
}

static int fill(const struct raw *raw, const char *currency, int64_t now_us,
                struct request *rq, struct err *err)
{
    rq->gpu = raw->gpu;
    rq->residency = raw->residency;
    rq->site = raw->site;
    rq->quote = raw->quote;
    rq->min_memory_mib = raw->min_memory_mib;
    rq->len_us = raw->duration_us;
    rq->max_rtt_us = raw->max_rtt_us;
    rq->max_slowdown_ppm = llround(raw->max_slowdown * (double)MATCH_PPM);
    rq->spot = raw->spot;
    rq->hold = raw->hold;
    rq->gpus = raw->gpus;
    rq->nodes = raw->nodes;
    if (raw->quote != NULL) /* the quote has the rest */
        return uuid_is_valid(raw->quote)
                   ? 0
                   : err_set(err, ERR_BAD_REQUEST, "/quote: not an id");
    if (raw->duration_us == 0)
        return err_set(err, ERR_BAD_REQUEST, "/duration: is required, such as 4h");
    if (fill_profile(raw, rq, err) != 0 || fill_times(raw, now_us, rq, err) != 0 ||
        fill_wait(raw, now_us, rq, err) != 0 || fill_data(raw, rq, err) != 0 ||
        fill_gang(raw, rq, err) != 0 || fill_places(raw, rq, err) != 0 ||
        fill_prices(raw, currency, rq, err) != 0)
        return -1;
    return 0;
}

int request_from_body(const json_t *body, const char *currency, int64_t now_us,
                      struct request *ret, struct err *err)
{
    struct raw raw = {.gpus = 1,
                      .nodes = 1,
                      .start_us = NO_TIME,
                      .earliest_us = NO_TIME,
                      .latest_us = NO_TIME,
                      .until_us = NO_TIME};
    struct request rq = {.tree = body != NULL ? json_deep_copy(body) : json_object()};
    if (jsonx_decode(rq.tree, request_members, request_member_count, &raw, "", err) !=
            0 ||
        fill(&raw, currency, now_us, &rq, err) != 0) {
        request_done(&rq);
        return -1;
    }
    *ret = rq;
    return 0;
}

int request_from_stored(const json_t *tree, const char *currency, int64_t created_us,
                        int64_t now_us, struct request *ret, struct err *err)
{
    struct request rq;
    if (request_from_body(tree, currency, created_us, &rq, err) != 0)
        return -1;
    bool fixed = !rq.at_once && rq.from_us == rq.latest_us;
    if (rq.at_once)
        rq.latest_us = rq.wait ? rq.until_us : now_us;
    if (rq.from_us < now_us)
        rq.from_us = now_us;
    if (fixed && rq.latest_us >= now_us - REQUEST_PAST_US && rq.latest_us < now_us)
        rq.latest_us = now_us;
    if (rq.latest_us < rq.from_us) {
        request_done(&rq);
        return err_set(err, ERR_CONFLICT, "the latest start it asked for has passed");
    }
    *ret = rq;
    return 0;
}

static bool is_start(const char *name)
{
    return strcmp(name, "start") == 0 || strcmp(name, "earliest") == 0 ||
           strcmp(name, "latest") == 0;
}

json_t *request_merge(const json_t *stored, const json_t *overrides)
{
    json_t *out = json_deep_copy(stored), *v;
    const char *name;
    json_object_foreach((json_t *)(uintptr_t)overrides, name, v)
    {
        if (is_start(name)) {
            json_object_del(out, "start");
            json_object_del(out, "earliest");
            json_object_del(out, "latest");
        }
    }
    json_object_update(out, (json_t *)(uintptr_t)overrides);
    json_object_foreach((json_t *)(uintptr_t)overrides, name, v)
    {
        if (json_is_null(v))
            json_object_del(out, name);
    }
    return out;
}

void request_done(struct request *rq)
{
    json_decref(rq->tree);
    free(rq->own);
    rq->tree = NULL;
    rq->own = NULL;
}

int request_name(const char *at, const char *text, struct err *err)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");
    if (len == 0 || len > NAME_BYTES_MAX || text[len] != '\0' || text[0] == '-')
        return err_set(err, ERR_BAD_REQUEST,
                       "%s: a name has lower-case letters, digits and hyphens, at most "
                       "%d",
                       at, NAME_BYTES_MAX);
    return 0;
}
