/* lines: see lines.h. */
#include "client/cli/lines.h"

#include <string.h>

static void put_line(struct lines *l, const char *label, struct strbuf *out)
{
    if (label != NULL)
        strbuf_adds(out, label);
    strbuf_add(out, strbuf_str(&l->part), l->part.len);
    strbuf_addc(out, '\n');
    strbuf_reset(&l->part);
}

void lines_take(struct lines *l, const char *label, const void *data, size_t len,
                struct strbuf *out)
{
    const char *p = data, *end = p + len;
    while (p < end) {
        /* A return that ended the bytes before: its line feed, if any, is here. */
        if (label != NULL && l->part.len > 0 && l->part.data[l->part.len - 1] == '\r') {
            l->part.data[--l->part.len] = '\0';
            p += *p == '\n';
            put_line(l, label, out);
            continue;
        }
        size_t room = LINES_MAX - l->part.len, left = (size_t)(end - p), n = 0;
        while (n < left && n < room && p[n] != '\n' && (label == NULL || p[n] != '\r'))
            n++;
        strbuf_add(&l->part, p, n);
        p += n;
        if (p < end && *p == '\n') {
            p++;
            put_line(l, label, out);
        } else if (p < end && n < room) { /* kept until the byte after it is known */
            strbuf_addc(&l->part, *p++);
        } else if (p < end) {
            put_line(l, label, out);
        }
    }
}

void lines_end(struct lines *l, const char *label, struct strbuf *out)
{
    if (label != NULL && l->part.len > 0 && l->part.data[l->part.len - 1] == '\r')
        l->part.data[--l->part.len] = '\0';
    if (l->part.len > 0)
        put_line(l, label, out);
    strbuf_done(&l->part);
}
