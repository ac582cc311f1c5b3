/* query: see query.h. One function a group of options; each refuses what it does
 * not understand with the option's name. */
#include "client/cli/query.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
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

/* Percent-encodes all but unreserved characters and those in `plain`. */
static void escape_but(struct strbuf *out, const char *value, const char *plain)
{
    for (const unsigned char *p = (const unsigned char *)value; *p != '\0'; p++) {
        if ((*p < 0x80 && isalnum(*p)) || strchr("-._~", *p) != NULL ||
            strchr(plain, *p) != NULL)
            strbuf_addc(out, (char)*p);
        else
            strbuf_addf(out, "%%%02X", *p);
    }
}

void query_escape(struct strbuf *out, const char *value)
{
    escape_but(out, value, "");
}

/* A list option: a,b in one word, or the option several times. */
static int add_names(const struct opt_values *opts, json_t *rq, const char *option,
                     const char *member, size_t max, struct err *err)
{
    json_t *names = json_array();
    const char *value;
    for (size_t n = 0; (value = opt_nth(opts, option, n)) != NULL; n++) {
        while (true) {
            size_t len = strcspn(value, ",");
            if (len == 0) {
                json_decref(names);
                return err_set(err, ERR_USAGE,
                               "--%s: a name is missing; write --%s a,b", option,
                               option);
            }
            json_array_append_new(names, json_stringn(value, len));
            if (value[len] == '\0')
                break;
            value += len + 1;
        }
    }
    if (json_array_size(names) > max) {
        json_decref(names);
        return err_set(err, ERR_USAGE, "--%s: at most %zu names in one request", option,
                       max);
    }
    if (json_array_size(names) > 0)
        json_object_set(rq, member, names);
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
    char text[TIMEFMT_MAX];
    if (when_parse_span(value, &us, err) < 0 || us <= 0)
        return err_set(err, ERR_USAGE,
                       "--%s: '%.40s' is no duration such as 15ms, 90m, 4h or 2d", name,
                       value);
    timefmt_duration(us, text); /* decimals are for people only */
    json_object_set_new(rq, member,
                        json_string(strchr(value, '.') != NULL ? text : value));
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

/* Bounds which are of the distance to data, and so bound nothing without any. A change
 * (partial) is joined with what was asked before: the server checks the whole. */
static int check_near(const json_t *rq, struct err *err)
{
    bool near =
        json_object_get(rq, "data") != NULL || json_object_get(rq, "federated") != NULL;
    bool work = json_object_get(rq, "profile") != NULL ||
                json_object_get(rq, "demand") != NULL ||
                json_object_get(rq, "custom") != NULL;
    if (!near && json_object_get(rq, "max_rtt") != NULL)
        return err_set(err, ERR_USAGE, "--max-rtt: say to which data set, with --near");
    if (!near && json_object_get(rq, "bandwidth") != NULL)
        return err_set(err, ERR_USAGE,
                       "--bandwidth: say to which data set, with --near");
    if (json_object_get(rq, "max_slowdown") != NULL && (!near || !work))
        return err_set(err, ERR_USAGE,
                       "--max-slowdown: say of which workload and how near to what, "
                       "with --profile and --near");
    return 0;
}

/* What excludes each other, or means nothing alone. */
static int check_together(const json_t *rq, struct err *err)
{
    int work = (json_object_get(rq, "profile") != NULL) +
               (json_object_get(rq, "demand") != NULL) +
               (json_object_get(rq, "custom") != NULL);
    if (work > 1)
        return err_set(err, ERR_USAGE,
                       "--profile, --demand and --custom exclude each other");
    if (json_object_get(rq, "data") != NULL && json_object_get(rq, "federated") != NULL)
        return err_set(err, ERR_USAGE,
                       "--near and --federated exclude each other: one gang near all "
                       "data sets, or a group near each");
    if (json_array_size(json_object_get(rq, "federated")) == 1)
        return err_set(err, ERR_USAGE,
                       "--federated: names at least two data sets, such as a,b");
    return 0;
}

static int add_rate(const struct opt_values *opts, json_t *rq, const char *name,
                    struct err *err)
{
    const char *value = opt_get(opts, name);
    int64_t bytes_per_s;
    if (value == NULL)
        return 0;
    if (when_parse_rate(value, &bytes_per_s, err) < 0)
        return err_prefix(err, "--%s", name);
    json_object_set_new(rq, name, json_string(value));
    return 0;
}

static int add_together(const struct opt_values *opts, json_t *rq, struct err *err)
{
    const char *value = opt_get(opts, "together");
    if (value == NULL)
        return 0;
    if (strcmp(value, "domain") != 0 && strcmp(value, "site") != 0 &&
        strcmp(value, "any") != 0)
        return err_set(err, ERR_USAGE,
                       "--together: '%.40s' is neither domain, site nor any", value);
    json_object_set_new(rq, "together", json_string(value));
    return 0;
}

/* "demand_Bps_per_gpu=2e8,kind=stream": numbers but for the kind of workload. */
static int add_custom(const struct opt_values *opts, json_t *rq, struct err *err)
{
    json_t *custom = json_object();
    const char *value;
    for (size_t n = 0; (value = opt_nth(opts, "custom", n)) != NULL; n++) {
        for (size_t len; *value != '\0'; value += len + (value[len] == ',')) {
            len = strcspn(value, ",");
            char *pair = xstrndup(value, len), *eq = strchr(pair, '='), *end = NULL;
            double number = eq != NULL ? strtod(eq + 1, &end) : 0;
            bool is_kind = strncmp(pair, "kind=", 5) == 0 && pair[5] != '\0';
            bool ok = eq != NULL && eq != pair && end != eq + 1 && *end == '\0' &&
                      eq[1 + strspn(eq + 1, "0123456789.e+-")] == '\0';
            if (is_kind || ok) {
                *eq = '\0';
                json_object_set_new(custom, pair,
                                    is_kind ? json_string(eq + 1) : json_real(number));
            }
            free(pair);
            if (!is_kind && !ok) {
                json_decref(custom);
                return err_set(err, ERR_USAGE,
                               "--custom: '%.*s' is no NAME=NUMBER, such as "
                               "demand_Bps_per_gpu=2e8",
                               len > 60 ? 60 : (int)len, value);
            }
        }
    }
    if (json_object_size(custom) > 0)
        json_object_set(rq, "custom", custom);
    json_decref(custom);
    return 0;
}

static int add_wait(const struct opt_values *opts, const struct when_env *env,
                    json_t *rq, struct err *err)
{
    static const char *const flags[][2] = {{"spot", "spot"},
                                           {"hold", "hold"},
                                           {"wait", "wait"},
                                           {"spread-zones", "spread_zones"}};
    const char *until = opt_get(opts, "wait-until");
    int64_t us;
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        if (opt_has(opts, flags[i][0]))
            json_object_set_new(rq, flags[i][1], json_true());
    if (until == NULL)
        return 0;
    if (when_parse(until, env, &us, err) < 0)
        return err_prefix(err, "--wait-until");
    if (us <= env->now_us)
        return err_set(err, ERR_USAGE, "--wait-until: is in the past");
    json_object_set_new(rq, "wait", json_true());
    json_object_set_new(rq, "wait_until", jsonx_time(us));
    return 0;
}

static int add_lists(const struct opt_values *opts, json_t *rq, struct err *err)
{
    static const struct {
        const char *option, *member;
        size_t max;
    } lists[] = {
        {"federated", "federated", QUERY_GROUPS_MAX},
        {"provider", "provider", QUERY_NAMES_MAX},
        {"deny-provider", "deny_provider", QUERY_NAMES_MAX},
        {"deny-site", "deny_site", QUERY_NAMES_MAX},
        {"avoid-zone", "avoid_zone", QUERY_NAMES_MAX},
    };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        if (add_names(opts, rq, lists[i].option, lists[i].member, lists[i].max, err) <
            0)
            return -1;
    json_t *only = json_object_get(rq, "provider");
    if (json_array_size(only) == 1) /* one name is a text, as it always was */
        json_object_set(rq, "provider", json_array_get(only, 0));
    return 0;
}

static int add_residency(const struct opt_values *opts, json_t *rq, struct err *err)
{
    const char *value = opt_get(opts, "residency");
    if (value == NULL)
        return 0;
    if (strcmp(value, "data") == 0) { /* wherever the data is, there */
        json_object_set_new(rq, "residency", json_string(value));
        return 0;
    }
    char country[3] = {(char)tolower((unsigned char)value[0]), '\0', '\0'};
    if (value[0] != '\0')
        country[1] = (char)tolower((unsigned char)value[1]);
    if (strlen(value) != 2 || country[0] < 'a' || country[0] > 'z' ||
        country[1] < 'a' || country[1] > 'z')
        return err_set(err, ERR_USAGE,
                       "--residency: '%.40s' is no country: two letters, such as jp, "
                       "or data: that of the data",
                       value);
    json_object_set_new(rq, "residency", json_string(country));
    return 0;
}

static int add_all(const struct opt_values *opts, const struct when_env *env,
                   const char *currency, json_t *rq, struct err *err)
{
    static const char *const texts[] = {"gpu", "profile", "site"};
    if (add_names(opts, rq, "near", "data", DATASETS_PER_REQUEST_MAX, err) < 0 ||
        add_int(opts, rq, "gpus", GPUS_PER_NODE_MAX, err) < 0 ||
        add_int(opts, rq, "nodes", QUERY_NODES_MAX, err) < 0 ||
        add_duration(opts, rq, "for", "duration", err) < 0 ||
        add_duration(opts, rq, "max-rtt", "max_rtt", err) < 0 ||
        add_start(opts, env, rq, err) < 0 || add_bounds(opts, currency, rq, err) < 0 ||
        add_residency(opts, rq, err) < 0)
        return -1;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const char *value = opt_get(opts, texts[i]);
        if (value != NULL)
            json_object_set_new(rq, texts[i], json_string(value));
    }
    if (add_lists(opts, rq, err) < 0 || add_together(opts, rq, err) < 0 ||
        add_rate(opts, rq, "bandwidth", err) < 0 ||
        add_rate(opts, rq, "demand", err) < 0 || add_custom(opts, rq, err) < 0 ||
        add_wait(opts, env, rq, err) < 0)
        return -1;
    return check_together(rq, err);
}

int query_build(const struct opt_values *opts, const struct when_env *env,
                const char *currency, json_t **ret, struct err *err)
{
    json_t *rq = json_object();
    if (opt_get(opts, "for") == NULL) {
        json_decref(rq);
        return err_set(err, ERR_USAGE, "say how long with --for, such as --for 4h");
    }
    if (add_all(opts, env, currency, rq, err) < 0 || check_near(rq, err) < 0) {
        json_decref(rq);
        return -1;
    }
    *ret = rq;
    return 0;
}

/* Options and members that do not have the same name. */
static const char *const names[][2] = {
    {"for", "duration"},
    {"near", "data"},
    {"between", "latest"},
    {"between", "earliest"},
    {"size", "size_bytes"},
    {"credit", "credit_micro"},
    {"fee", "fee_ppm"},
    {"min-memory", "min_memory_mib"},
    {"max-price-per-hour", "max_price_per_gpu_hour"},
};

void query_option_name(const char *member, char *out, size_t cap)
{
    snprintf(out, cap, "%s", member);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(member, names[i][1]) == 0)
            snprintf(out, cap, "%s", names[i][0]);
    for (char *p = out; *p != '\0'; p++)
        if (*p == '_')
            *p = '-';
}

static void member_name(const char *option, char *out, size_t cap)
{
    snprintf(out, cap, "%s", option);
    for (size_t i = sizeof(names) / sizeof(names[0]); i-- > 0;)
        if (strcmp(option, names[i][0]) == 0)
            snprintf(out, cap, "%s", names[i][1]);
    for (char *p = out; *p != '\0'; p++)
        if (*p == '-')
            *p = '_';
}

int query_overrides(const struct opt_values *opts, const struct when_env *env,
                    const char *currency, json_t **ret, struct err *err)
{
    json_t *rq = json_object();
    const char *without;
    int rc = add_all(opts, env, currency, rq, err);
    for (size_t n = 0; rc == 0 && (without = opt_nth(opts, "without", n)) != NULL;
         n++) {
        char member[48];
        member_name(without + (strncmp(without, "--", 2) == 0 ? 2 : 0), member,
                    sizeof(member));
        if (json_object_get(rq, member) != NULL)
            rc = err_set(err, ERR_USAGE, "--without %.40s: it is given as well",
                         without);
        else
            json_object_set_new(rq, member, json_null());
    }
    if (rc < 0)
        json_decref(rq);
    else
        *ret = rq;
    return rc;
}

/* The text of a value, not yet encoded: as an option takes it, and as a query does. */
static void value_text(const json_t *value, struct strbuf *out, char pair)
{
    const char *key, *between = "";
    json_t *item;
    size_t i;
    if (json_is_string(value)) {
        strbuf_adds(out, json_string_value(value));
    } else if (json_is_boolean(value)) {
        strbuf_adds(out, json_is_true(value) ? "true" : "false");
    } else if (json_is_array(value)) {
        json_array_foreach(value, i, item)
        {
            strbuf_adds(out, i > 0 ? "," : "");
            value_text(item, out, pair);
        }
    } else if (json_object_get(value, "micro") != NULL) {
        const char *currency = json_string_value(json_object_get(value, "currency"));
        char text[MONEY_TEXT_MAX];
        money_format(json_integer_value(json_object_get(value, "micro")),
                     currency != NULL ? currency : "", text);
        strbuf_addf(out, "%s%s", text, currency != NULL ? currency : "");
    } else if (json_is_object(value)) {
        json_object_foreach((json_t *)(uintptr_t)value, key, item)
        {
            strbuf_addf(out, "%s%s%c", between, key, pair);
            value_text(item, out, pair);
            between = ",";
        }
    } else if (json_is_real(value)) {
        double v = json_real_value(value);
        strbuf_addf(out, v < 1e9 ? "%.6f" : "%.9g", v);
    } else {
        strbuf_addf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    }
}

void query_value(const json_t *value, struct strbuf *out)
{
    value_text(value, out, '=');
}

void query_string(const json_t *request, struct strbuf *out)
{
    const char *key, *between = "";
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)request, key, value)
    {
        struct strbuf text = STRBUF_INIT;
        strbuf_addf(out, "%s%s=", between, strcmp(key, "data") == 0 ? "near" : key);
        between = "&";
        value_text(value, &text, ':');
        /* A name has no comma, so those of lists can stay readable. */
        escape_but(out, strbuf_str(&text), json_is_string(value) ? "" : ",:");
        strbuf_done(&text);
    }
}
