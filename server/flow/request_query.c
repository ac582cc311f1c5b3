/* request_query: the request object as a query, and the texts in it: integers, money,
 * rates, lists (contract in request.h). A query becomes the same tree as a body. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/money.h"
#include "server/flow/request.h"
#include "server/flow/request_priv.h"

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

static int query_bool(const char *name, const char *text, json_t **ret, struct err *err)
{
    bool yes = strcmp(text, "true") == 0;
    if (!yes && strcmp(text, "false") != 0)
        return err_set(err, ERR_BAD_REQUEST, "%s: expected true or false", name);
    *ret = json_boolean(yes);
    return 0;
}

/* "kind:stream,demand_Bps_per_gpu:2e8" */
static int query_custom(const char *text, json_t **ret, struct err *err)
{
    json_t *out = json_object();
    while (*text != '\0') {
        size_t len = strcspn(text, ","), colon = strcspn(text, ":");
        char name[64], value[64], *end;
        if (colon >= len || colon >= sizeof(name) || len - colon > sizeof(value)) {
            json_decref(out);
            return err_set(err, ERR_BAD_REQUEST, "custom: expected NAME:NUMBER,…");
        }
        memcpy(name, text, colon);
        name[colon] = '\0';
        memcpy(value, text + colon + 1, len - colon - 1);
        value[len - colon - 1] = '\0';
        double v = strtod(value, &end);
        bool number = value[0] >= '0' && value[0] <= '9' && *end == '\0' &&
                      strspn(value, "0123456789.e+-") == strlen(value);
        json_object_set_new(out, name, number ? json_real(v) : json_string(value));
        text += len + (text[len] == ',');
    }
    *ret = out;
    return 0;
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
    case JSONX_BOOL: return query_bool(p->name, p->value, ret, err);
    case JSONX_OBJECT:
        return strcmp(m->name, "custom") == 0
                   ? query_custom(p->value, ret, err)
                   : query_money(p->name, p->value, currency, ret, err);
    case JSONX_ANY: /* one, or several */
        *ret = strchr(p->value, ',') == NULL ? json_string(p->value)
                                             : query_names(p->value);
        return 0;
    case JSONX_ARRAY: *ret = query_names(p->value); return 0;
    default: *ret = json_string(p->value); return 0;
    }
}

/* What only a quote or a reservation may say. */
static bool in_query(const char *name)
{
    return strcmp(name, "quote") != 0 && strcmp(name, "hold") != 0;
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
        while (k < request_member_count && strcmp(request_members[k].name, name) != 0)
            k++;
        if (k == request_member_count || !in_query(name))
            rc = err_set(err, ERR_BAD_REQUEST, "unknown query parameter '%s'", name);
        else if (json_object_get(body, name) != NULL)
            rc = err_set(err, ERR_BAD_REQUEST, "'%s' is given twice", name);
        else
            rc = query_value(&request_members[k], &query[i], currency, &value, err);
        if (rc == 0)
            json_object_set_new(body, name, value);
    }
    if (rc == 0)
        rc = request_from_body(body, currency, now_us, ret, err);
    json_decref(body);
    return rc;
}

/* ---- rates ---- */

/* Thousandths of `text`'s number: digits and at most three after a point. */
static const char *milli(const char *text, int64_t *ret)
{
    int64_t whole = 0, part = 0, unit = 1000;
    const char *at = text;
    for (; *at >= '0' && *at <= '9' && whole < INT64_C(1000000000); at++)
        whole = whole * 10 + (*at - '0');
    if (at == text)
        return NULL;
    if (*at == '.') {
        const char *point = at++;
        for (; *at >= '0' && *at <= '9' && unit > 1; at++) {
            unit /= 10;
            part += (*at - '0') * unit;
        }
        if (at == point + 1)
            return NULL;
    }
    *ret = whole * 1000 + part;
    return at;
}

int request_rate(const char *at, const char *text, int64_t *ret_Bps, struct err *err)
{
    static const struct {
        const char *name;
        int64_t factor;
    } units[] = {{"bps", 1},
                 {"Kbps", 1000},
                 {"Mbps", 1000000},
                 {"Gbps", 1000000000},
                 {"Tbps", INT64_C(1000000000000)},
                 {"B/s", 8},
                 {"KB/s", 8000},
                 {"MB/s", 8000000},
                 {"GB/s", INT64_C(8000000000)},
                 {"TB/s", INT64_C(8000000000000)}};
    int64_t n = 0;
    const char *unit = milli(text, &n);
    for (size_t i = 0; unit != NULL && i < sizeof(units) / sizeof(units[0]); i++) {
        __int128 milli_bits = (__int128)n * units[i].factor;
        __int128 bytes = milli_bits / 8000;
        if (strcmp(unit, units[i].name) != 0 || bytes < 1 || bytes > INT64_MAX / 8)
            continue;
        *ret_Bps = (int64_t)bytes;
        return 0;
    }
    return err_set(err, ERR_BAD_REQUEST,
                   "%s: expected a rate such as 40Gbps or 200MB/s", at);
}
