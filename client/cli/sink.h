/* sink: what is on its way to standard output or error: queued, written in pieces that
 * a pipe takes at once after poll() said so. Whoever fills it watches its bound. */
#ifndef NEARGPU_SINK_H
#define NEARGPU_SINK_H
#include <stdbool.h>

#include "client/lib/strbuf.h"

#define SINK_QUEUE_MAX (256 * 1024) /* a source pauses above this */

struct sink {
    int fd;
    struct strbuf queue;
    size_t done;       /* bytes of queue already written */
    bool broken, file; /* nobody reads any more; a regular file */
};

void sink_init(struct sink *s, int fd);
void sink_done(struct sink *s);
size_t sink_queued(const struct sink *s);
void sink_take(struct sink *s, const void *data, size_t len);
/* One write. False: the reader has just gone; what was queued is dropped. */
bool sink_flush(struct sink *s);

#endif
