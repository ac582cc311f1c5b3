/* frame: one type byte, four bytes length (big endian), payload of at most
 * RUN_FRAME_MAX bytes. Used between tenant, agent and keeper, and in the output log.
 * Pure. Source: docs/wire.md. */
#ifndef NEARGPU_FRAME_H
#define NEARGPU_FRAME_H
#include <stddef.h>
#include <stdint.h>

#include "client/lib/bounds.h"
#include "client/lib/err.h"
#include "client/lib/strbuf.h"

#define FRAME_HEAD 5

struct frame {
    char type;
    const uint8_t *payload; /* borrowed from the buffer that was read */
    size_t len;
};

void frame_head(char type, size_t len, uint8_t out[FRAME_HEAD]);
/* Appends one frame; len <= RUN_FRAME_MAX. */
void frame_add(struct strbuf *b, char type, const void *payload, size_t len);
/* Takes the first frame of data. Returns bytes used, 0 when more are needed, -1 when
 * the length is over RUN_FRAME_MAX. */
int64_t frame_take(const void *data, size_t len, struct frame *ret,
                   struct err *err) MUST_USE;

#endif
