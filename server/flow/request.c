#include "server/flow/request.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/core/match.h"

/* As decoded, before defaults and bounds across members. */
struct raw {
    const char *gpu, *profile, *residency, *site, *provider, *quote;
    int64_t gpus, nodes, duration_us;
    int64_t start_us, earliest_us, latest_us;
    json_t *data, *max_price, *max_hour;
    int64_t max_rtt_us, min_memory_mib;
    double max_slowdown;
};

#define NO_TIME INT64_MIN

static const struct jsonx_field members[] = {
    {"gpu", JSONX_STRING, false, offsetof(struct raw, gpu), 1, 64},
    {"gpus", JSONX_INT, false, offsetof(struct raw, gpus), 1, GPUS_PER_NODE_MAX},
    {"nodes", JSONX_INT, false, offsetof(struct raw, nodes), 1, GANG_NODES_MAX},
    {"duration", JSONX_DURATION, false, offsetof(struct raw, duration_us),
     REQUEST_MIN_US, LEASE_MAX_US},
    {"start", JSONX_TIME, false, offsetof(struct raw, start_us)},
    {"earliest", JSONX_TIME, false, offsetof(struct raw, earliest_us)},
    {"latest", JSONX_TIME, false, offsetof(struct raw, latest_us)},
    {"data", JSONX_ARRAY, false, offsetof(struct raw, data), 0,
     DATASETS_PER_REQUEST_MAX},
    {"profile", JSONX_STRING, false, offsetof(struct raw, profile), 1, 64},
    {"max_rtt", JSONX_DURATION, false, offsetof(struct raw, max_rtt_us), 1,
     10 * US_PER_S},
    {"max_price", JSONX_OBJECT, false, offsetof(struct raw, max_price)},
    {"max_price_per_gpu_hour", JSONX_OBJECT, false, offsetof(struct raw, max_hour)},
    {"max_slowdown", JSONX_REAL, false, offsetof(struct raw, max_slowdown), 1, 1000},
    {"residency", JSONX_STRING, false, offsetof(struct raw, residency), 2, 2},
    {"site", JSONX_STRING, false, offsetof(struct raw, site), 1, NAME_BYTES_MAX},
    {"provider", JSONX_STRING, false, offsetof(struct raw, provider), 1,
     NAME_BYTES_MAX},
    {"min_memory_mib", JSONX_INT, false, offsetof(struct raw, min_memory_mib), 1,
     INT64_C(1) << 30},
    {"quote", JSONX_STRING, false, offsetof(struct raw, quote), 36, 36},
};

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
    __int128 quantity = (__int128)rq->gpus * rq->len_us;
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
    if (raw->max_price != NULL)
        rq->max_gpu_hour_micro = hourly_bound(rq, total);
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

static int fill_data(const struct raw *raw, struct request *rq, struct err *err)
{
    size_t i;
    json_t *name;
    json_array_foreach(raw->data, i, name)
    {
        if (!json_is_string(name) || json_string_length(name) > NAME_BYTES_MAX ||
            json_string_length(name) == 0)
            return err_set(err, ERR_BAD_REQUEST,
                           "/data/%zu: expected the name of a data set", i);
        for (size_t k = 0; k < i; k++)
            if (strcmp(rq->data[k], json_string_value(name)) == 0)
                return err_set(err, ERR_BAD_REQUEST, "/data/%zu: named twice", i);
        rq->data[rq->data_count++] = json_string_value(name);
    }
    return 0;
}

static int fill(const struct raw *raw, const char *currency, int64_t now_us,
                struct request *rq, struct err *err)
{
    rq->gpu = raw->gpu;
    rq->residency = raw->residency;
    rq->site = raw->site;
    rq->provider = raw->provider;
    rq->quote = raw->quote;
    rq->gpus = raw->gpus;
    rq->min_memory_mib = raw->min_memory_mib;
    rq->len_us = raw->duration_us;
    rq->max_rtt_us = raw->max_rtt_us;
    rq->max_slowdown_ppm = llround(raw->max_slowdown * (double)MATCH_PPM);
    if (raw->quote != NULL) /* the quote has the rest */
        return uuid_is_valid(raw->quote)
                   ? 0
                   : err_set(err, ERR_BAD_REQUEST, "/quote: not an id");
    if (raw->duration_us == 0)
        return err_set(err, ERR_BAD_REQUEST, "/duration: is required, such as 4h");
    if (raw->nodes > 1)
        return err_set(err, ERR_BAD_REQUEST,
                       "/nodes: more than one node a reservation is not offered; "
                       "reserve %" PRId64 " times",
                       raw->nodes);
    if (rq->residency != NULL &&
        strspn(rq->residency, "abcdefghijklmnopqrstuvwxyz") != 2)
        return err_set(err, ERR_BAD_REQUEST,
                       "/residency: two lower-case letters of a country, such as jp");
    if (raw->profile != NULL && (rq->profile = slowdown_find(raw->profile)) == NULL)
        return err_set(err, ERR_BAD_REQUEST,
                       "/profile: '%s' is not known: neargpu profiles lists them (GET "
                       "/v1/profiles)",
                       raw->profile);
    if (fill_times(raw, now_us, rq, err) != 0 ||
        fill_prices(raw, currency, rq, err) != 0 || fill_data(raw, rq, err) != 0)
        return -1;
    /* A bound that would bound nothing is a mistake, not a wish. */
    if (rq->max_rtt_us > 0 && rq->data_count == 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "/max_rtt: bounds the distance to data: name the data sets");
    return 0;
}

int request_from_body(const json_t *body, const char *currency, int64_t now_us,
                      struct request *ret, struct err *err)
{
    struct raw raw = {.gpus = 1,
                      .nodes = 1,
                      .start_us = NO_TIME,
                      .earliest_us = NO_TIME,
                      .latest_us = NO_TIME};
    struct request rq = {.tree = body != NULL ? json_deep_copy(body) : json_object()};
    if (jsonx_decode(rq.tree, members, JSONX_COUNT(members), &raw, "", err) != 0 ||
        fill(&raw, currency, now_us, &rq, err) != 0) {
        request_done(&rq);
        return -1;
    }
    *ret = rq;
    return 0;
}

void request_done(struct request *rq)
{
    json_decref(rq->tree);
    rq->tree = NULL;
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

/* ---- the query ---- */

int request_int(const char *name, const char *text, int64_t min, int64_t max,
                int64_t *ret, struct err *err)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    bool digits = text[0] >= '0' && text[0] <= '9'; /* strtoll skips blanks and '+' */
    if (!digits || *end != '\0' || errno != 0 || v < min || v > max)
        return err_set(err, ERR_BAD_REQUEST,
                       "%s: expected an integer from %" PRId64 " to %" PRId64, name,
                       min, max);
    *ret = v;
    return 0;
}

static int query_real(const char *name, const char *text, json_t **ret, struct err *err)
{
    char *end;
    size_t plain = strspn(text, "0123456789.");
    double v = strtod(text, &end);
    if (text[0] == '\0' || text[plain] != '\0' || *end != '\0')
        return err_set(err, ERR_BAD_REQUEST, "%s: expected a number", name);
    *ret = json_real(v);
    return 0;
}

/* "4000" or "4000 JPY": an amount in major units. */
static int query_money(const char *name, const char *text, const char *currency,
                       json_t **ret, struct err *err)
{
    char amount[MONEY_TEXT_MAX];
    size_t len = strspn(text, "0123456789.");
    const char *unit = text + len + strspn(text + len, " ");
    int64_t micro;
    if (len == 0 || len >= sizeof(amount) ||
        (*unit != '\0' && strcmp(unit, currency) != 0))
        return err_set(err, ERR_BAD_REQUEST,
                       "%s: expected an amount in %s, such as 4000", name, currency);
    memcpy(amount, text, len);
    amount[len] = '\0';
    if (money_parse(amount, &micro, err) != 0)
        return err_prefix(err, "%s", name);
    *ret = jsonx_money(currency, micro);
    return 0;
}

static json_t *query_names(const char *text)
{
    json_t *out = json_array();
    while (*text != '\0') {
        size_t len = strcspn(text, ",");
        json_array_append_new(out, json_stringn(text, len));
        text += len + (text[len] == ',');
    }
    return out;
}

static int query_value(const struct jsonx_field *m, const struct flow_pair *p,
                       const char *currency, json_t **ret, struct err *err)
{
    int64_t n;
    switch (m->type) {
    case JSONX_INT:
        if (request_int(p->name, p->value, m->min, m->max, &n, err) != 0)
            return -1;
        *ret = json_integer(n);
        return 0;
    case JSONX_REAL: return query_real(p->name, p->value, ret, err);
    case JSONX_OBJECT: return query_money(p->name, p->value, currency, ret, err);
    case JSONX_ARRAY: *ret = query_names(p->value); return 0;
    default: *ret = json_string(p->value); return 0;
    }
}

int request_from_query(const struct flow_pair *query, size_t count,
                       const char *currency, int64_t now_us, struct request *ret,
                       struct err *err)
{
    json_t *body = json_object();
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        const char *name = query[i].name;
        json_t *value = NULL;
        if (strcmp(name, "near") == 0)
            name = "data";
        size_t k = 0;
        while (k < JSONX_COUNT(members) && strcmp(members[k].name, name) != 0)
            k++;
        if (k == JSONX_COUNT(members) || strcmp(name, "quote") == 0)
            rc = err_set(err, ERR_BAD_REQUEST, "unknown query parameter '%s'", name);
        else if (json_object_get(body, name) != NULL)
            rc = err_set(err, ERR_BAD_REQUEST, "'%s' is given twice", name);
        else
            rc = query_value(&members[k], &query[i], currency, &value, err);
        if (rc == 0)
            json_object_set_new(body, name, value);
    }
    if (rc == 0)
        rc = request_from_body(body, currency, now_us, ret, err);
    json_decref(body);
    return rc;
}
