/* pgarray: binary arrays; see the header. */
#include "server/db/pgarray.h"

#include <assert.h>
#include <string.h>

#include "client/lib/uuid.h"

#define HEADER 20 /* dimensions, null flag, type, length, lower bound */

static void put32(char *to, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        to[i] = (char)(v >> (24 - 8 * i));
}

static void element(struct pgarray *a, const void *data, size_t len)
{
    char head[4];
    put32(head, (uint32_t)len);
    strbuf_add(&a->bytes, head, 4);
    strbuf_add(&a->bytes, data, len);
    a->count++;
}

void pgarray_init(struct pgarray *a, uint32_t type)
{
    static const char zero[HEADER];
    memset(a, 0, sizeof *a);
    a->type = type;
    strbuf_add(&a->bytes, zero, HEADER);
}

void pgarray_done(struct pgarray *a)
{
    strbuf_done(&a->bytes);
}

void pgarray_null(struct pgarray *a)
{
    char head[4];
    put32(head, UINT32_MAX);
    strbuf_add(&a->bytes, head, 4);
    a->nulls = true;
    a->count++;
}

void pgarray_bool(struct pgarray *a, bool v)
{
    char byte = v ? 1 : 0;
    assert(a->type == PGARRAY_BOOL);
    element(a, &byte, 1);
}

void pgarray_int(struct pgarray *a, int64_t v)
{
    char bytes[8];
    put32(bytes, (uint32_t)((uint64_t)v >> 32));
    put32(bytes + 4, (uint32_t)v);
    if (a->type == PGARRAY_INT8) {
        element(a, bytes, 8);
        return;
    }
    assert(a->type == PGARRAY_INT4 && v >= INT32_MIN && v <= INT32_MAX);
    element(a, bytes + 4, 4);
}

void pgarray_text(struct pgarray *a, const char *s)
{
    assert(a->type == PGARRAY_TEXT);
    element(a, s, strlen(s));
}

void pgarray_bytes(struct pgarray *a, const void *data, size_t len)
{
    assert(a->type == PGARRAY_BYTEA);
    element(a, data, len);
}

static unsigned nibble(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a' + 10);
}

void pgarray_uuid(struct pgarray *a, const char *text)
{
    char bytes[16];
    assert(a->type == PGARRAY_UUID);
    if (text[0] == '\0') {
        pgarray_null(a);
        return;
    }
    assert(uuid_is_valid(text));
    for (int i = 0; i < 16; i++, text += 2) {
        if (*text == '-')
            text++;
        bytes[i] = (char)(nibble(text[0]) << 4 | nibble(text[1]));
    }
    element(a, bytes, 16);
}

const char *pgarray_value(struct pgarray *a, int *ret_len)
{
    char *head = a->bytes.data;
    put32(head, a->count > 0 ? 1 : 0);
    put32(head + 4, a->nulls ? 1 : 0);
    put32(head + 8, a->type);
    put32(head + 12, a->count);
    put32(head + 16, 1);
    /* An empty array has no dimension to describe. */
    *ret_len = a->count > 0 ? (int)a->bytes.len : 12;
    return head;
}
