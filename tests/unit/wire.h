/* wire: a raw client of a server that lives in the same event base: bytes in, bytes
 * out. For tests of what a polite client library would never send. */
#ifndef NEARGPU_TEST_WIRE_H
#define NEARGPU_TEST_WIRE_H
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/strbuf.h"

struct wire {
    struct event_base *base;
    int fd;
    bool closed; /* the server ended the connection */
    struct strbuf got;
};

static inline int64_t wire_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static inline void wire_read(struct wire *w)
{
    char buf[65536];
    for (;;) {
        ssize_t n = recv(w->fd, buf, sizeof(buf), MSG_DONTWAIT);
        if (n > 0) {
            strbuf_add(&w->got, buf, (size_t)n);
            continue;
        }
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            w->closed = true;
        return;
    }
}

/* One round of the server's loop, then whatever it sent. */
static inline void wire_turn(struct wire *w)
{
    struct timeval tick = {.tv_sec = 0, .tv_usec = 1000};
    event_base_loopexit(w->base, &tick);
    event_base_loop(w->base, EVLOOP_ONCE);
    if (w->fd >= 0)
        wire_read(w);
}

static inline void wire_send(struct wire *w, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(w->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN)
            return; /* the server has closed: the test looks at that */
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        } else {
            wire_turn(w);
        }
    }
}

static inline void wire_sends(struct wire *w, const char *text)
{
    wire_send(w, text, strlen(text));
}

/* Turns until what was received contains text, or is over, or ms have passed. */
static inline bool wire_until(struct wire *w, const char *text, int64_t ms)
{
    int64_t end = wire_ms() + ms;
    while (wire_ms() < end && !w->closed) {
        if (text != NULL && strstr(strbuf_str(&w->got), text) != NULL)
            return true;
        wire_turn(w);
    }
    return text != NULL && strstr(strbuf_str(&w->got), text) != NULL;
}

static inline bool wire_until_closed(struct wire *w, int64_t ms)
{
    (void)wire_until(w, NULL, ms);
    return w->closed;
}

static inline void wire_pass(struct wire *w, int64_t ms)
{
    int64_t end = wire_ms() + ms;
    while (wire_ms() < end)
        wire_turn(w);
}

/* Status of the first response received, 0 without one. */
static inline int wire_status(const struct wire *w)
{
    const char *s = strbuf_str(&w->got);
    if (strncmp(s, "HTTP/1.1 ", 9) != 0 || strlen(s) < 12)
        return 0;
    return (s[9] - '0') * 100 + (s[10] - '0') * 10 + (s[11] - '0');
}

static inline int wire_count(const struct wire *w, const char *text)
{
    int n = 0;
    for (const char *s = strbuf_str(&w->got); (s = strstr(s, text)) != NULL; s++)
        n++;
    return n;
}

static inline void wire_done(struct wire *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    strbuf_done(&w->got);
}

#endif
