/* fuzz_jsonx: any bytes as JSON. What is accepted is an object within the bounds of
 * depth, survives writing and reading, and has one canonical form; decoding by table
 * only ever writes what its bounds allow. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/jsonx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sample {
    const char *s;
    int64_t i, t, d;
    bool b;
    double r;
    json_t *o, *a, *any;
};

#define AT(member) offsetof(struct sample, member)
static const struct jsonx_field fields[] = {
    {"s", JSONX_STRING, false, AT(s), 1, 8},
    {"i", JSONX_INT, false, AT(i), -4, 16},
    {"t", JSONX_TIME, false, AT(t)},
    {"d", JSONX_DURATION, false, AT(d), 1, 1000000},
    {"b", JSONX_BOOL, false, AT(b)},
    {"r", JSONX_REAL, false, AT(r), 1, 10},
    {"o", JSONX_OBJECT, false, AT(o)},
    {"a", JSONX_ARRAY, false, AT(a), 1, 3},
    {"any", JSONX_ANY, false, AT(any)},
};

static void decode(const json_t *v)
{
    struct sample out = {.s = "x", .i = 0, .d = 1, .r = 1};
    struct err err = {0};
    if (jsonx_decode(v, fields, JSONX_COUNT(fields), &out, "", &err) != 0) {
        assert(err.code == ERR_BAD_REQUEST && err.text[0] == '/');
        return;
    }
    assert(strlen(out.s) >= 1 && strlen(out.s) <= 8);
    assert(out.i >= -4 && out.i <= 16 && out.d >= 1 && out.d <= 1000000);
    assert(out.r >= 1 && out.r <= 10 && out.t >= 0);
    assert(out.o == NULL || json_is_object(out.o));
    assert(out.a == NULL ||
           (json_array_size(out.a) >= 1 && json_array_size(out.a) <= 3));
}

static void canonical(const json_t *v)
{
    char *once = jsonx_canonical(v);
    if (once == NULL)
        return; /* holds a real number */
    json_t *back = json_loads(once, JSON_REJECT_DUPLICATES, NULL);
    assert(back != NULL && json_equal(back, v));
    char *twice = jsonx_canonical(back);
    assert(strcmp(once, twice) == 0);
    json_decref(back);
    free(once);
    free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    json_t *v = jsonx_parse((const char *)data, size, 65536, &err);
    if (v == NULL) {
        assert(err.code == ERR_BAD_REQUEST || err.code == ERR_TOO_LARGE);
        return 0;
    }
    assert(json_is_object(v));
    char *text = jsonx_dump(v);
    int deep = jsonx_check_depth(text, strlen(text), JSONX_DEPTH_MAX, NULL);
    assert(deep == 0);
    json_t *back = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert(back != NULL);
    /* Reals are written with 15 digits, which is less than they may have, but stays. */
    char *again = jsonx_dump(back);
    assert(strcmp(text, again) == 0);
    free(again);
    canonical(v);
    decode(v);
    json_decref(back);
    json_decref(v);
    free(text);
    return 0;
}
