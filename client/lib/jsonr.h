/* jsonr: a strict reader of small JSON objects whose shape is known, straight into a
 * struct, without allocating: for what is verified per request (headers and claims of
 * tokens), where building a tree costs more than everything but the signature.
 *
 * Stricter than JSON on purpose: strings are printable ASCII without escapes, numbers
 * are integers from 0 up, members are each known and there once. Whatever it accepts is
 * valid JSON and means the same to any other reader. Depth is that of the caller's
 * tables, so input cannot nest. For everything else use jsonx. Pure. */
#ifndef NEARGPU_JSONR_H
#define NEARGPU_JSONR_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

struct jsonr {
    const char *p, *end;
};

/* Reads one value at the cursor into out; 0 or -1 with ERR_BAD_REQUEST. */
typedef int jsonr_read_fn(struct jsonr *r, void *out, struct err *err);

/* One member: a text when cap is set, a value of its own when read is set, else an
 * integer 0..max (int64_t). */
struct jsonr_field {
    const char *name;
    bool required;
    size_t offset; /* of the target in the struct handed to jsonr_object() */
    size_t cap;    /* bytes of the char array, NUL included; "" is refused */
    int64_t max;
    jsonr_read_fn *read; /* gets the target, not the struct */
};
#define JSONR_COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* Reads an object by its table (at most 64 members). Targets of members that are not
 * there stay as they are. Quickest when members come in the order of the table. */
int jsonr_object(struct jsonr *r, const struct jsonr_field *fields, size_t count,
                 void *out, struct err *err) MUST_USE;
/* Reads an array of 1..max elements, each by read(r, out, err). */
int jsonr_array(struct jsonr *r, size_t max, jsonr_read_fn *read, void *out,
                struct err *err) MUST_USE;
int jsonr_text(struct jsonr *r, char *out, size_t cap, struct err *err) MUST_USE;
int jsonr_integer(struct jsonr *r, int64_t max, int64_t *ret, struct err *err) MUST_USE;
/* Only white space may be left. */
int jsonr_end(struct jsonr *r, struct err *err) MUST_USE;

#endif
