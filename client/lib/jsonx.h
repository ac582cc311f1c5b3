/* jsonx: strict JSON over jansson. Duplicate keys, trailing text, too deep or too large
 * input, unknown members, wrong types and numbers out of range are refused, each with
 * its place as a JSON pointer ("/gpus: expected integer 1..16, got string"). Pure. */
#ifndef NEARGPU_JSONX_H
#define NEARGPU_JSONX_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

/* Parses one object of at most max_len bytes and JSONX_DEPTH_MAX levels. Returns a new
 * reference or NULL with err (ERR_BAD_REQUEST / ERR_TOO_LARGE). */
json_t *jsonx_parse(const char *text, size_t len, size_t max_len,
                    struct err *err) MUST_USE;
/* Refuses arrays and objects nested deeper than max before the parser sees them. */
int jsonx_check_depth(const char *text, size_t len, int max_depth,
                      struct err *err) MUST_USE;

enum jsonx_type {
    JSONX_STRING,   /* const char * borrowed from the tree; min/max bound its bytes */
    JSONX_INT,      /* int64_t within [min, max] */
    JSONX_BOOL,     /* bool */
    JSONX_REAL,     /* double (integers accepted), finite, within [min, max] */
    JSONX_TIME,     /* int64_t us from an RFC 3339 string */
    JSONX_DURATION, /* int64_t us from "4h" style text, within [min, max] */
    JSONX_OBJECT,   /* json_t * borrowed */
    JSONX_ARRAY,    /* json_t * borrowed; min/max bound its length */
    JSONX_ANY,      /* json_t * borrowed */
};

struct jsonx_field {
    const char *name;
    enum jsonx_type type;
    bool required;    /* an absent optional member leaves the target untouched;
                         JSON null counts as absent for optional members */
    size_t offset;    /* offsetof the target member in the caller's struct */
    int64_t min, max; /* both 0: no bound (strings then: 0..1024 bytes) */
};

/* Decodes obj into the struct at out by the table; `at` is the pointer prefix for
 * messages ("" at the root). Members not in the table are refused by name. */
int jsonx_decode(const json_t *obj, const struct jsonx_field *fields, size_t count,
                 void *out, const char *at, struct err *err) MUST_USE;
#define JSONX_COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* Compact dump, members in insertion order, reals with 15 digits (as people write them;
 * not every double survives); caller frees with free(). */
char *jsonx_dump(const json_t *v);
/* Canonical form: RFC 8785 for the subset without reals: sorted keys, no spaces,
 * integers exactly as they are (also beyond 2^53). NULL when the value has a real
 * number. Caller frees. */
char *jsonx_canonical(const json_t *v);

/* {"currency":c,"micro":n} */
json_t *jsonx_money(const char *currency, int64_t micro);
/* RFC 3339 UTC string value, json null when us is INT64_MIN. */
json_t *jsonx_time(int64_t us);

#endif
