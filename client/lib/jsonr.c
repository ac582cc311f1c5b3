/* jsonr: see jsonr.h. One pass, no memory, no recursion but that of the caller's
 * tables. */
#include "client/lib/jsonr.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

static void jsonr_space(struct jsonr *r)
{
    while (r->p < r->end &&
           (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'))
        r->p++;
}

/* Takes one punctuation mark, with white space before it. */
static bool jsonr_take(struct jsonr *r, char c)
{
    jsonr_space(r);
    if (r->p == r->end || *r->p != c)
        return false;
    r->p++;
    return true;
}

static int jsonr_expected(const struct jsonr *r, const char *what, struct err *err)
{
    if (r->p == r->end)
        return err_set(err, ERR_BAD_REQUEST, "expected %s, got the end", what);
    unsigned char c = (unsigned char)*r->p;
    if (c > 0x20 && c < 0x7f)
        return err_set(err, ERR_BAD_REQUEST, "expected %s, got '%c'", what, c);
    return err_set(err, ERR_BAD_REQUEST, "expected %s, got byte 0x%02x", what, c);
}

/* A string's bytes, borrowed from the input. */
static int jsonr_string(struct jsonr *r, const char **ret, size_t *ret_len,
                        struct err *err)
{
    if (!jsonr_take(r, '"'))
        return jsonr_expected(r, "a string", err);
    const char *start = r->p;
    while (r->p < r->end && *r->p != '"') {
        unsigned char c = (unsigned char)*r->p;
        if (c < 0x20 || c > 0x7e || c == '\\')
            return jsonr_expected(r, "printable ASCII without escapes", err);
        r->p++;
    }
    if (r->p == r->end)
        return jsonr_expected(r, "the end of the string", err);
    *ret = start;
    *ret_len = (size_t)(r->p - start);
    r->p++;
    return 0;
}

int jsonr_text(struct jsonr *r, char *out, size_t cap, struct err *err)
{
    const char *text;
    size_t len;
    if (jsonr_string(r, &text, &len, err) != 0)
        return -1;
    if (len == 0 || len >= cap)
        return err_set(err, ERR_BAD_REQUEST, "expected 1..%zu characters, got %zu",
                       cap - 1, len);
    memcpy(out, text, len);
    out[len] = '\0';
    return 0;
}

int jsonr_integer(struct jsonr *r, int64_t max, int64_t *ret, struct err *err)
{
    jsonr_space(r);
    const char *start = r->p;
    int64_t value = 0;
    for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *r->p - '0', &value) || value > max)
            return err_set(err, ERR_BAD_REQUEST, "expected integer 0..%" PRId64, max);
    if (r->p == start)
        return jsonr_expected(r, "an integer", err);
    if (*start == '0' && r->p - start > 1)
        return err_set(err, ERR_BAD_REQUEST, "integer with leading zeros");
    if (r->p < r->end && (*r->p == '.' || *r->p == 'e' || *r->p == 'E'))
        return err_set(err, ERR_BAD_REQUEST, "expected an integer, got a real number");
    *ret = value;
    return 0;
}

/* Index of the field of this name, looking first where it should be next. */
static size_t jsonr_find(const struct jsonr_field *fields, size_t count, size_t next,
                         const char *name, size_t len)
{
    for (size_t n = 0; n < count; n++) {
        size_t i = next + n < count ? next + n : next + n - count;
        if (strncmp(fields[i].name, name, len) == 0 && fields[i].name[len] == '\0')
            return i;
    }
    return count;
}

static int jsonr_value(struct jsonr *r, const struct jsonr_field *f, void *out,
                       struct err *err)
{
    void *target = (char *)out + f->offset;
    int rc = f->read != NULL ? f->read(r, target, err)
             : f->cap > 0    ? jsonr_text(r, target, f->cap, err)
                             : jsonr_integer(r, f->max, target, err);
    return rc == 0 ? 0 : err_prefix(err, "/%s", f->name);
}

int jsonr_object(struct jsonr *r, const struct jsonr_field *fields, size_t count,
                 void *out, struct err *err)
{
    assert(count <= 64); /* one bit a field */
    uint64_t seen = 0;
    size_t i = count - 1;
    if (!jsonr_take(r, '{'))
        return jsonr_expected(r, "an object", err);
    for (bool first = true; !jsonr_take(r, '}'); first = false) {
        const char *name;
        size_t len;
        if (!first && !jsonr_take(r, ','))
            return jsonr_expected(r, "',' or '}'", err);
        if (jsonr_string(r, &name, &len, err) != 0)
            return -1;
        i = jsonr_find(fields, count, i + 1 < count ? i + 1 : 0, name, len);
        if (i == count)
            return err_set(err, ERR_BAD_REQUEST, "/%.*s: unknown member",
                           (int)(len < 60 ? len : 60), name);
        if ((seen >> i & 1) != 0)
            return err_set(err, ERR_BAD_REQUEST, "/%s: is there twice", fields[i].name);
        seen |= UINT64_C(1) << i;
        if (!jsonr_take(r, ':'))
            return jsonr_expected(r, "':'", err);
        if (jsonr_value(r, &fields[i], out, err) != 0)
            return -1;
    }
    for (size_t f = 0; f < count; f++)
        if (fields[f].required && (seen >> f & 1) == 0)
            return err_set(err, ERR_BAD_REQUEST, "/%s: missing", fields[f].name);
    return 0;
}

int jsonr_array(struct jsonr *r, size_t max, jsonr_read_fn *read, void *out,
                struct err *err)
{
    if (!jsonr_take(r, '['))
        return jsonr_expected(r, "an array", err);
    for (size_t n = 0; n == 0 || !jsonr_take(r, ']'); n++) {
        if (n > 0 && !jsonr_take(r, ','))
            return jsonr_expected(r, "',' or ']'", err);
        if (n == max)
            return err_set(err, ERR_BAD_REQUEST, "more than %zu elements", max);
        if (read(r, out, err) != 0)
            return err_prefix(err, "/%zu", n);
    }
    return 0;
}

int jsonr_end(struct jsonr *r, struct err *err)
{
    jsonr_space(r);
    return r->p == r->end ? 0 : jsonr_expected(r, "nothing more", err);
}
