/* frame: the frames between a tenant, an agent and a lease's keeper (docs/wire.md):
 * one type byte, four bytes length (big endian), payload of at most RUN_FRAME_MAX.
 * An encoder and an incremental decoder over bytes handed in; what a frame means is
 * left to its users. Pure. */
#ifndef NEARGPU_FRAME_H
#define NEARGPU_FRAME_H
#include <stddef.h>
#include <stdint.h>

#include "client/lib/bounds.h"
#include "client/lib/err.h"
#include "client/lib/strbuf.h"

#define FRAME_HEAD_LEN 5
#define FRAME_ALPN     "neargpu-run/1"

struct frame {
    char type;
    const uint8_t *data; /* borrowed from the reader until its next call */
    size_t len;
};

/* Appends one frame; len <= RUN_FRAME_MAX (asserted). */
void frame_put(struct strbuf *b, char type, const void *data, size_t len);
/* Appends data as as many frames of this type as it takes (none for no data). */
void frame_put_all(struct strbuf *b, char type, const void *data, size_t len);

struct frame_reader {
    uint8_t *buf;
    size_t start, len, cap; /* buf[start .. start+len) is not yet taken */
};
void frame_reader_init(struct frame_reader *r);
void frame_reader_done(struct frame_reader *r);
/* Hands over bytes as they arrived. Take every frame out before feeding more: what is
 * kept then is less than one frame. */
void frame_feed(struct frame_reader *r, const void *data, size_t len);
/* 1: *ret is the next frame; 0: more bytes are needed; -1: the length is over the bound
 * (ERR_TOO_LARGE), the stream cannot be used any more. */
int frame_next(struct frame_reader *r, struct frame *ret, struct err *err) MUST_USE;
/* Bytes fed and not yet taken: not 0 at the end of a stream means it was cut. */
size_t frame_pending(const struct frame_reader *r);

#endif
