/* jsonx: see jsonx.h. jansson checks UTF-8, escapes and numbers; what is added here is
 * size, depth before parsing, and decoding by table. */
#include "client/lib/jsonx.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define JSONX_STRING_MAX 1024 /* bytes of a string whose field names no bound */

int jsonx_check_depth(const char *text, size_t len, int max_depth, struct err *err)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++; /* the escaped character cannot end the string */
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > max_depth)
                return err_set(err, ERR_BAD_REQUEST,
                               "JSON at byte %zu is nested deeper than %d levels", i,
                               max_depth);
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return 0;
}

json_t *jsonx_parse(const char *text, size_t len, size_t max_len, struct err *err)
{
    if (len > max_len) {
        err_set(err, ERR_TOO_LARGE, "JSON of %zu bytes is over the limit of %zu", len,
                max_len);
        return NULL;
    }
    if (jsonx_check_depth(text, len, JSONX_DEPTH_MAX, err) != 0)
        return NULL;
    json_error_t why;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL) {
        err_set(err, ERR_BAD_REQUEST, "bad JSON at line %d column %d: %s", why.line,
                why.column, why.text);
        return NULL;
    }
    if (!json_is_object(root)) {
        json_decref(root);
        err_set(err, ERR_BAD_REQUEST, "expected a JSON object, got array");
        return NULL;
    }
    return root;
}

static const char *jsonx_kind(const json_t *v)
{
    static const char *const names[] = {"object", "array", "string", "integer",
                                        "real",   "true",  "false",  "null"};
    return v == NULL ? "nothing" : names[json_typeof(v)];
}

static const char *jsonx_expected(enum jsonx_type type)
{
    static const char *const names[] = {"string", "integer", "boolean",
                                        "number", "time",    "duration",
                                        "object", "array",   "value"};
    return names[type];
}

/* Where a value stands, for messages: "/allocations/0/gpus". */
struct jsonx_place {
    const char *at, *name;
    const struct jsonx_field *field;
};

static int jsonx_wrong_type(const struct jsonx_place *p, const json_t *v,
                            struct err *err)
{
    const struct jsonx_field *f = p->field;
    if (f->type == JSONX_INT && (f->min != 0 || f->max != 0))
        return err_set(err, ERR_BAD_REQUEST,
                       "%s/%s: expected integer %" PRId64 "..%" PRId64 ", got %s",
                       p->at, p->name, f->min, f->max, jsonx_kind(v));
    return err_set(err, ERR_BAD_REQUEST, "%s/%s: expected %s, got %s", p->at, p->name,
                   jsonx_expected(f->type), jsonx_kind(v));
}

static bool jsonx_bounded(const struct jsonx_field *f)
{
    return f->min != 0 || f->max != 0;
}

static int jsonx_in_range(const struct jsonx_place *p, int64_t value, const char *what,
                          struct err *err)
{
    const struct jsonx_field *f = p->field;
    if (!jsonx_bounded(f) || (value >= f->min && value <= f->max))
        return 0;
    return err_set(err, ERR_BAD_REQUEST,
                   "%s/%s: expected %s %" PRId64 "..%" PRId64 ", got %" PRId64, p->at,
                   p->name, what, f->min, f->max, value);
}

static int jsonx_get_string(const struct jsonx_place *p, const json_t *v, void *target,
                            struct err *err)
{
    const struct jsonx_field *f = p->field;
    if (!json_is_string(v))
        return jsonx_wrong_type(p, v, err);
    int64_t len = (int64_t)json_string_length(v);
    if (!jsonx_bounded(f) && len > JSONX_STRING_MAX)
        return err_set(err, ERR_BAD_REQUEST,
                       "%s/%s: string of %" PRId64 " bytes is over the limit of %d",
                       p->at, p->name, len, JSONX_STRING_MAX);
    if (jsonx_in_range(p, len, "string length", err) != 0)
        return -1;
    *(const char **)target = json_string_value(v);
    return 0;
}

static int jsonx_get_int(const struct jsonx_place *p, const json_t *v, void *target,
                         struct err *err)
{
    if (!json_is_integer(v))
        return jsonx_wrong_type(p, v, err);
    int64_t value = json_integer_value(v);
    if (jsonx_in_range(p, value, "integer", err) != 0)
        return -1;
    *(int64_t *)target = value;
    return 0;
}

static int jsonx_get_real(const struct jsonx_place *p, const json_t *v, void *target,
                          struct err *err)
{
    const struct jsonx_field *f = p->field;
    if (!json_is_number(v))
        return jsonx_wrong_type(p, v, err);
    double value = json_number_value(v);
    if (!isfinite(value) ||
        (jsonx_bounded(f) && (value < (double)f->min || value > (double)f->max)))
        return err_set(err, ERR_BAD_REQUEST,
                       "%s/%s: expected number %" PRId64 "..%" PRId64 ", got %g", p->at,
                       p->name, f->min, f->max, value);
    *(double *)target = value;
    return 0;
}

static int jsonx_get_time(const struct jsonx_place *p, const json_t *v, void *target,
                          struct err *err)
{
    int64_t us;
    if (!json_is_string(v))
        return jsonx_wrong_type(p, v, err);
    int rc = p->field->type == JSONX_TIME
                 ? timefmt_parse(json_string_value(v), &us, err)
                 : timefmt_parse_duration(json_string_value(v), &us, err);
    if (rc != 0)
        return err_prefix(err, "%s/%s", p->at, p->name);
    if (jsonx_bounded(p->field) && (us < p->field->min || us > p->field->max)) {
        char low[TIMEFMT_MAX], high[TIMEFMT_MAX];
        bool instant = p->field->type == JSONX_TIME;
        (instant ? timefmt_utc : timefmt_duration)(p->field->min, low);
        (instant ? timefmt_utc : timefmt_duration)(p->field->max, high);
        return err_set(err, ERR_BAD_REQUEST, "%s/%s: expected %s %s..%s, got %.40s",
                       p->at, p->name, jsonx_expected(p->field->type), low, high,
                       json_string_value(v));
    }
    *(int64_t *)target = us;
    return 0;
}

static int jsonx_get_tree(const struct jsonx_place *p, const json_t *v, void *target,
                          struct err *err)
{
    enum jsonx_type type = p->field->type;
    if ((type == JSONX_OBJECT && !json_is_object(v)) ||
        (type == JSONX_ARRAY && !json_is_array(v)))
        return jsonx_wrong_type(p, v, err);
    if (type == JSONX_ARRAY &&
        jsonx_in_range(p, (int64_t)json_array_size(v), "array length", err) != 0)
        return -1;
    /* Borrowed from the tree; callers keep and never change it. */
    *(json_t **)target = (json_t *)(uintptr_t)v;
    return 0;
}

static int jsonx_get(const struct jsonx_place *p, const json_t *v, void *target,
                     struct err *err)
{
    switch (p->field->type) {
    case JSONX_STRING: return jsonx_get_string(p, v, target, err);
    case JSONX_INT: return jsonx_get_int(p, v, target, err);
    case JSONX_REAL: return jsonx_get_real(p, v, target, err);
    case JSONX_TIME:
    case JSONX_DURATION: return jsonx_get_time(p, v, target, err);
    case JSONX_OBJECT:
    case JSONX_ARRAY:
    case JSONX_ANY: return jsonx_get_tree(p, v, target, err);
    case JSONX_BOOL: break;
    }
    if (!json_is_boolean(v))
        return jsonx_wrong_type(p, v, err);
    *(bool *)target = json_is_true(v);
    return 0;
}

/* Index of the field of this name, count when there is none. */
static size_t jsonx_find(const struct jsonx_field *fields, size_t count,
                         const char *name)
{
    size_t i = 0;
    while (i < count && strcmp(fields[i].name, name) != 0)
        i++;
    return i;
}

int jsonx_decode(const json_t *obj, const struct jsonx_field *fields, size_t count,
                 void *out, const char *at, struct err *err)
{
    if (!json_is_object(obj))
        return err_set(err, ERR_BAD_REQUEST, "%s: expected object, got %s",
                       at[0] == '\0' ? "/" : at, jsonx_kind(obj));
    assert(count <= 64); /* one bit a field */
    uint64_t seen = 0;
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)obj, name, v)
    {
        size_t i = jsonx_find(fields, count, name);
        if (i == count)
            return err_set(err, ERR_BAD_REQUEST, "%s/%.80s: unknown member", at, name);
        const struct jsonx_field *f = &fields[i];
        seen |= UINT64_C(1) << i;
        if (json_is_null(v) && !f->required && f->type != JSONX_ANY)
            continue;
        struct jsonx_place place = {at, f->name, f};
        if (jsonx_get(&place, v, (char *)out + f->offset, err) != 0)
            return -1;
    }
    for (size_t i = 0; i < count; i++)
        if (fields[i].required && (seen >> i & 1) == 0)
            return err_set(err, ERR_BAD_REQUEST, "%s/%s: missing", at, fields[i].name);
    return 0;
}

char *jsonx_dump(const json_t *v)
{
    char *text =
        json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    /* jansson fails only on a cycle or invalid UTF-8 built by us, or without memory. */
    if (text == NULL)
        abort();
    return text;
}

json_t *jsonx_money(const char *currency, int64_t micro)
{
    json_t *v =
        json_pack("{s:s, s:I}", "currency", currency, "micro", (json_int_t)micro);
    assert(v != NULL);
    return v;
}

json_t *jsonx_time(int64_t us)
{
    if (us == INT64_MIN)
        return json_null();
    char text[TIMEFMT_MAX];
    timefmt_utc(us, text);
    json_t *v = json_string(text);
    assert(v != NULL);
    return v;
}
