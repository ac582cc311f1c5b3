/* query: see query.h. One function a group of options; each refuses what it does
 * not understand with the option's name. */
#include "client/cli/query.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/jsonx.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

int query_money(const char *text, const char *currency, json_t **ret, struct err *err)
{
    size_t len = strcspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ ");
    const char *unit = text + len;
    char *number = xstrndup(text, len);
    int64_t micro;
    int rc = money_parse(number, &micro, err);
    free(number);
    if (*unit == ' ')
        unit++;
    if (*unit == '\0')
        unit = currency;
    if (rc < 0 || micro < 0 || !money_currency_known(unit))
        return err_set(err, ERR_USAGE,
                       "'%.40s' is no amount: write it as 4000 (%s) or 4000JPY", text,
                       currency);
    *ret = jsonx_money(unit, micro);
    return 0;
}

void query_escape(struct strbuf *out, const char *value)
{
    for (const unsigned char *p = (const unsigned char *)value; *p != '\0'; p++) {
        if ((*p < 0x80 && isalnum(*p)) || strchr("-._~", *p) != NULL)
            strbuf_addc(out, (char)*p);
        else
            strbuf_addf(out, "%%%02X", *p);
    }
}

static int add_near(const struct opt_values *opts, json_t *rq, struct err *err)
{
    json_t *names = json_array();
    const char *value;
    for (size_t n = 0; (value = opt_nth(opts, "near", n)) != NULL; n++) {
        while (true) {
            size_t len = strcspn(value, ",");
            if (len == 0) {
                json_decref(names);
                return err_set(
                    err, ERR_USAGE,
                    "--near: a data set's name is missing; write --near a,b");
            }
            json_array_append_new(names, json_stringn(value, len));
            if (value[len] == '\0')
                break;
            value += len + 1;
        }
    }
    if (json_array_size(names) > DATASETS_PER_REQUEST_MAX) {
        json_decref(names);
        return err_set(err, ERR_USAGE, "--near: at most %d data sets in one request",
                       DATASETS_PER_REQUEST_MAX);
    }
    if (json_array_size(names) > 0)
        json_object_set(rq, "data", names);
    json_decref(names);
    return 0;
}

static int add_int(const struct opt_values *opts, json_t *rq, const char *name,
                   int64_t max, struct err *err)
{
    const char *value = opt_get(opts, name);
    int64_t n;
    if (value == NULL)
        return 0;
    if (when_parse_int(value, 1, max, &n, err) < 0)
        return err_prefix(err, "--%s", name);
    json_object_set_new(rq, name, json_integer(n));
    return 0;
}

static int add_duration(const struct opt_values *opts, json_t *rq, const char *name,
                        const char *member, struct err *err)
{
    const char *value = opt_get(opts, name);
    int64_t us;
    if (value == NULL)
        return 0;
    if (timefmt_parse_duration(value, &us, err) < 0 || us <= 0)
        return err_set(err, ERR_USAGE,
                       "--%s: '%.40s' is no duration such as 15ms, 90m, 4h or 2d", name,
                       value);
    json_object_set_new(rq, member, json_string(value));
    return 0;
}

static int add_start(const struct opt_values *opts, const struct when_env *env,
                     json_t *rq, struct err *err)
{
    const char *start = opt_get(opts, "start"), *between = opt_get(opts, "between");
    int64_t from, to;
    if (start != NULL && between != NULL)
        return err_set(err, ERR_USAGE,
                       "--start and --between exclude each other: a fixed start, or a "
                       "range to start in");
    if (start != NULL && strcmp(start, "now") != 0) {
        if (when_parse(start, env, &from, err) < 0)
            return err_prefix(err, "--start");
        json_object_set_new(rq, "start", jsonx_time(from));
    } else if (between != NULL) {
        if (when_range(between, env, &from, &to, err) < 0)
            return err_prefix(err, "--between");
        json_object_set_new(rq, "earliest", jsonx_time(from));
        json_object_set_new(rq, "latest", jsonx_time(to));
    } else {
        return 0;
    }
    /* A little late is typing; more is a wrong day or zone. */
    if (from < env->now_us - 300 * US_PER_S) {
        char text[TIMEFMT_MAX];
        timefmt_offset(from, env->zone(from), text);
        return err_set(err, ERR_USAGE, "--%s: %s is in the past",
                       start != NULL ? "start" : "between", text);
    }
    return 0;
}

static int add_bounds(const struct opt_values *opts, const char *currency, json_t *rq,
                      struct err *err)
{
    static const char *const prices[][2] = {
        {"max-price", "max_price"}, {"max-price-per-hour", "max_price_per_gpu_hour"}};
    const char *value;
    int64_t n;
    for (size_t i = 0; i < 2; i++) {
        json_t *money = NULL;
        if ((value = opt_get(opts, prices[i][0])) == NULL)
            continue;
        if (query_money(value, currency, &money, err) < 0)
            return err_prefix(err, "--%s", prices[i][0]);
        json_object_set_new(rq, prices[i][1], money);
    }
    if ((value = opt_get(opts, "max-slowdown")) != NULL) {
        if (when_parse_decimal(value, &n, err) < 0 || n < 1000000)
            return err_set(
                err, ERR_USAGE,
                "--max-slowdown: '%.40s' is no factor of at least 1, such as "
                "1.25",
                value);
        json_object_set_new(rq, "max_slowdown", json_real((double)n / 1e6));
    }
    if ((value = opt_get(opts, "min-memory")) != NULL) {
        if (when_parse_size(value, &n, err) < 0)
            return err_prefix(err, "--min-memory");
        json_object_set_new(rq, "min_memory_mib", json_integer(n >> 20));
    }
    return 0;
}

/* Bounds which are of the distance to data, and so bound nothing without any. */
static int check_near(const json_t *rq, struct err *err)
{
    bool near = json_object_get(rq, "data") != NULL;
    if (!near && json_object_get(rq, "max_rtt") != NULL)
        return err_set(err, ERR_USAGE, "--max-rtt: say to which data set, with --near");
    if (json_object_get(rq, "max_slowdown") != NULL &&
        (!near || json_object_get(rq, "profile") == NULL))
        return err_set(err, ERR_USAGE,
                       "--max-slowdown: say of which workload and how near to what, "
                       "with --profile and --near");
    return 0;
}

static int add_residency(const struct opt_values *opts, json_t *rq, struct err *err)
{
    const char *value = opt_get(opts, "residency");
    if (value == NULL)
        return 0;
    char country[3] = {(char)tolower((unsigned char)value[0]), '\0', '\0'};
    if (value[0] != '\0')
        country[1] = (char)tolower((unsigned char)value[1]);
    if (strlen(value) != 2 || country[0] < 'a' || country[0] > 'z' ||
        country[1] < 'a' || country[1] > 'z')
        return err_set(err, ERR_USAGE,
                       "--residency: '%.40s' is no country: two letters, such as jp",
                       value);
    json_object_set_new(rq, "residency", json_string(country));
    return 0;
}

int query_build(const struct opt_values *opts, const struct when_env *env,
                const char *currency, json_t **ret, struct err *err)
{
    static const char *const texts[] = {"gpu", "profile", "site", "provider"};
    json_t *rq = json_object();
    if (opt_get(opts, "for") == NULL) {
        json_decref(rq);
        return err_set(err, ERR_USAGE, "say how long with --for, such as --for 4h");
    }
    if (add_near(opts, rq, err) < 0 ||
        add_int(opts, rq, "gpus", GPUS_PER_NODE_MAX, err) < 0 ||
        add_int(opts, rq, "nodes", GANG_NODES_MAX, err) < 0 ||
        add_duration(opts, rq, "for", "duration", err) < 0 ||
        add_duration(opts, rq, "max-rtt", "max_rtt", err) < 0 ||
        add_start(opts, env, rq, err) < 0 || add_bounds(opts, currency, rq, err) < 0 ||
        add_residency(opts, rq, err) < 0) {
        json_decref(rq);
        return -1;
    }
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const char *value = opt_get(opts, texts[i]);
        if (value != NULL)
            json_object_set_new(rq, texts[i], json_string(value));
    }
    if (check_near(rq, err) < 0) {
        json_decref(rq);
        return -1;
    }
    *ret = rq;
    return 0;
}

void query_string(const json_t *request, struct strbuf *out)
{
    const char *key, *between = "";
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)request, key, value)
    {
        strbuf_addf(out, "%s%s=", between, strcmp(key, "data") == 0 ? "near" : key);
        between = "&";
        if (json_is_string(value)) {
            query_escape(out, json_string_value(value));
        } else if (json_is_array(value)) {
            size_t i;
            json_t *item;
            json_array_foreach(value, i, item)
            {
                if (i > 0)
                    strbuf_addc(out, ',');
                query_escape(out, json_string_value(item));
            }
        } else if (json_is_object(value)) {
            const char *currency =
                json_string_value(json_object_get(value, "currency"));
            char text[MONEY_TEXT_MAX];
            money_format(json_integer_value(json_object_get(value, "micro")), currency,
                         text);
            strbuf_addf(out, "%s%s", text, currency);
        } else if (json_is_real(value)) {
            strbuf_addf(out, "%.6f", json_real_value(value));
        } else {
            strbuf_addf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        }
    }
}
