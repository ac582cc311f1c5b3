/* pgarray: one-dimensional arrays in PostgreSQL's binary wire format, built element by
 * element; the cheapest way to hand many rows to one statement. Pure.
 * Source: array_recv() and the element types' receive functions. */
#ifndef NEARGPU_PGARRAY_H
#define NEARGPU_PGARRAY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/strbuf.h"

struct pgarray {
    struct strbuf bytes;
    uint32_t type; /* element's OID */
    uint32_t count;
    bool nulls;
};
#define PGARRAY_BOOL  16u
#define PGARRAY_BYTEA 17u
#define PGARRAY_INT8  20u
#define PGARRAY_INT4  23u
#define PGARRAY_TEXT  25u
#define PGARRAY_UUID  2950u

void pgarray_init(struct pgarray *a, uint32_t type);
void pgarray_done(struct pgarray *a);
void pgarray_null(struct pgarray *a);
void pgarray_bool(struct pgarray *a, bool v);
void pgarray_int(struct pgarray *a, int64_t v); /* int4 or int8, by the type */
void pgarray_text(struct pgarray *a, const char *s);
void pgarray_bytes(struct pgarray *a, const void *data, size_t len);
void pgarray_uuid(struct pgarray *a, const char *text); /* "" is null */
/* The whole value; valid until the next call on a. */
const char *pgarray_value(struct pgarray *a, int *ret_len);

#endif
