/* frame: see frame.h. Consumed bytes are moved out only when the buffer would have to
 * grow, so that decoding is linear in what was fed. */
#include "client/lib/frame.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"

void frame_put(struct strbuf *b, char type, const void *data, size_t len)
{
    assert(len <= RUN_FRAME_MAX);
    uint8_t head[FRAME_HEAD_LEN] = {(uint8_t)type, (uint8_t)(len >> 24),
                                    (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                                    (uint8_t)len};
    strbuf_add(b, head, sizeof(head));
    if (len > 0)
        strbuf_add(b, data, len);
}

void frame_put_all(struct strbuf *b, char type, const void *data, size_t len)
{
    const uint8_t *p = data;
    while (len > 0) {
        size_t part = len < RUN_FRAME_MAX ? len : RUN_FRAME_MAX;
        frame_put(b, type, p, part);
        p += part;
        len -= part;
    }
}

void frame_reader_init(struct frame_reader *r)
{
    *r = (struct frame_reader){NULL, 0, 0, 0};
}

void frame_reader_done(struct frame_reader *r)
{
    free(r->buf);
    frame_reader_init(r);
}

void frame_feed(struct frame_reader *r, const void *data, size_t len)
{
    if (len == 0)
        return;
    if (r->start + r->len + len > r->cap) {
        if (r->len > 0)
            memmove(r->buf, r->buf + r->start, r->len);
        r->start = 0;
        if (r->len + len > r->cap) {
            size_t cap = r->cap > 0 ? r->cap : 4096;
            while (cap < r->len + len)
                cap *= 2;
            r->buf = xrealloc(r->buf, cap);
            r->cap = cap;
        }
    }
    memcpy(r->buf + r->start + r->len, data, len);
    r->len += len;
}

int frame_next(struct frame_reader *r, struct frame *ret, struct err *err)
{
    if (r->len < FRAME_HEAD_LEN)
        return 0;
    const uint8_t *p = r->buf + r->start;
    size_t len =
        (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | (size_t)p[4];
    if (len > RUN_FRAME_MAX)
        return err_set(err, ERR_TOO_LARGE, "frame of %zu bytes, at most %d are allowed",
                       len, RUN_FRAME_MAX);
    if (r->len < FRAME_HEAD_LEN + len)
        return 0;
    *ret = (struct frame){(char)p[0], p + FRAME_HEAD_LEN, len};
    r->start += FRAME_HEAD_LEN + len;
    r->len -= FRAME_HEAD_LEN + len;
    return 1;
}

size_t frame_pending(const struct frame_reader *r)
{
    return r->len;
}
