/* sink: see sink.h. */
#include "client/cli/sink.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cli/cli.h"

#define WRITE_CHUNK 4096 /* PIPE_BUF: after POLLOUT a pipe takes it at once */

void sink_init(struct sink *s, int fd)
{
    struct stat st;
    *s = (struct sink){.fd = fd};
    s->file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

void sink_done(struct sink *s)
{
    strbuf_done(&s->queue);
}

size_t sink_queued(const struct sink *s)
{
    return s->queue.len - s->done;
}

void sink_take(struct sink *s, const void *data, size_t len)
{
    if (s->broken)
        return;
    if (s->done > 0 && (s->done >= SINK_QUEUE_MAX || sink_queued(s) == 0)) {
        /* hold little */
        memmove(s->queue.data, s->queue.data + s->done, sink_queued(s));
        s->queue.len -= s->done;
        s->done = 0;
    }
    strbuf_add(&s->queue, data, len);
}

bool sink_flush(struct sink *s)
{
    size_t len = sink_queued(s);
    if (len == 0)
        return true;
    if (len > WRITE_CHUNK && !s->file)
        len = WRITE_CHUNK;
    ssize_t n = write(s->fd, s->queue.data + s->done, len);
    if (n > 0) {
        s->done += (size_t)n;
    } else if (n < 0 && errno != EINTR && errno != EAGAIN) {
        if (errno != EPIPE)
            cli_note("output is lost: %s", strerror(errno));
        s->broken = true;
        s->done = s->queue.len;
        return false;
    }
    return true;
}
