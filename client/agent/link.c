/* link: see link.h. */
#include "client/agent/link.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"

#define HEAD_LEN   5
#define READ_CHUNK (64 * 1024)

/* A tenant's frame is text within text: each quote in it is two bytes. */
#define REQUEST_MAX (2 * RUN_FRAME_MAX + 1024)

const struct link_rule link_rules[LINK_KINDS] = {
    [LINK_UP] = {"up", LINK_FRONT, 1024, false},
    [LINK_REPLY] = {"reply", LINK_FRONT, LINK_BYTES_MAX, false},
    [LINK_ACKED] = {"acked", LINK_FRONT, HTTP_BODY_MAX * 4, false},
    [LINK_KEYS] = {"keys", LINK_FRONT, JWKS_BYTES_MAX * 4, false},
    [LINK_GREET] = {"greet", LINK_FRONT, 64, true},
    [LINK_REQUEST] = {"request", LINK_FRONT, REQUEST_MAX, false},
    [LINK_GONE] = {"gone", LINK_FRONT, 64, false},
    [LINK_BANNED] = {"banned", LINK_FRONT, STATUS_BYTES_MAX + 1024, false},
    [LINK_SETTINGS] = {"settings", LINK_WARDEN, 64 * 1024, false},
    [LINK_OBSERVED] = {"observed", LINK_WARDEN, LINK_BYTES_MAX, false},
    [LINK_RECEIPTS] = {"receipts", LINK_WARDEN, HTTP_BODY_MAX * 2, false},
    [LINK_FETCH] = {"fetch", LINK_WARDEN, 64, false},
    [LINK_NONCE] = {"nonce", LINK_WARDEN, 1024, false},
    [LINK_ANSWER] = {"answer", LINK_WARDEN, REQUEST_MAX, true},
};

struct out {
    struct out *next;
    int fd; /* goes with the first byte; -1: none, or gone */
    size_t len, sent;
    uint8_t bytes[];
};

struct link {
    struct link_conf conf;
    int fd;
    struct event *readable, *writable, *over;
    struct out *first, **last;
    size_t queued;
    uint8_t *in;
    size_t in_len, in_cap;
    int fds[LINK_FDS_MAX];
    size_t fd_count;
    bool ended;
    struct err why;
};

static void end(struct link *l, const struct err *why)
{
    if (l->ended)
        return;
    l->ended = true;
    l->why = *why;
    event_del(l->readable);
    event_del(l->writable);
    event_active(l->over, EV_TIMEOUT, 1);
}

static void over(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    (void)fd;
    (void)what;
    l->conf.end(l->conf.arg, &l->why);
}

/* --- in --- */

void link_drop_fd(int fd_take)
{
    struct linger none = {0, 0};
    if (fd_take < 0)
        return;
    (void)setsockopt(fd_take, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    close(fd_take);
}

static int take_fds(struct link *l, struct msghdr *m, struct err *err)
{
    int rc = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (l->fd_count < LINK_FDS_MAX) {
                l->fds[l->fd_count++] = fd;
            } else {
                link_drop_fd(fd);
                rc = err_set(err, ERR_BAD_REQUEST, "a descriptor that none expects");
            }
        }
    }
    if (m->msg_flags & MSG_CTRUNC)
        rc = err_set(err, ERR_BAD_REQUEST, "more descriptors than a message has");
    return rc;
}

static int take_one(struct link *l, uint8_t kind, const char *text, size_t len,
                    struct err *err)
{
    const struct link_rule *rule = &link_rules[kind];
    json_t *doc = jsonx_parse(text, len, rule->max, err);
    int fd = -1, rc = -1;
    if (doc != NULL && json_is_true(json_object_get(doc, "fd"))) {
        if (rule->may_have_fd && l->fd_count > 0) {
            fd = l->fds[0];
            memmove(l->fds, l->fds + 1, --l->fd_count * sizeof(l->fds[0]));
        } else {
            json_decref(doc);
            return err_set(err, ERR_BAD_REQUEST, "%s: no descriptor came with it",
                           rule->name);
        }
    }
    if (doc != NULL)
        rc = l->conf.take(l->conf.arg, (enum link_kind)kind, doc, fd, err);
    json_decref(doc);
    return rc < 0 ? err_prefix(err, "%s", rule->name) : 0;
}

static int check_head(const struct link *l, uint8_t kind, size_t len, struct err *err)
{
    if (kind >= LINK_KINDS || link_rules[kind].from == l->conf.side)
        return err_set(err, ERR_BAD_REQUEST, "a message of kind %u", kind);
    if (len > link_rules[kind].max)
        return err_set(err, ERR_TOO_LARGE, "%s: %zu bytes", link_rules[kind].name, len);
    return 0;
}

static int take_all(struct link *l, struct err *err)
{
    size_t at = 0;
    int rc = 0;
    while (rc == 0 && !l->ended && l->in_len - at >= HEAD_LEN) {
        const uint8_t *p = l->in + at;
        size_t len =
            (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | (size_t)p[4];
        rc = check_head(l, p[0], len, err);
        if (rc != 0 || l->in_len - at < HEAD_LEN + len)
            break;
        rc = take_one(l, p[0], (const char *)p + HEAD_LEN, len, err);
        at += HEAD_LEN + len;
    }
    memmove(l->in, l->in + at, l->in_len - at);
    l->in_len -= at;
    return rc;
}

static void room(struct link *l)
{
    if (l->in_cap - l->in_len >= READ_CHUNK)
        return;
    l->in_cap = l->in_cap == 0 ? 2 * READ_CHUNK : l->in_cap * 2;
    l->in = xrealloc(l->in, l->in_cap);
}

static void read_some(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    struct err err;
    union {
        char bytes[CMSG_SPACE(LINK_FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    (void)what;
    room(l);
    struct iovec v = {l->in + l->in_len, READ_CHUNK};
    struct msghdr m = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    int rc = 0;
    if (n < 0)
        rc = err_sys(&err, errno, "recvmsg");
    else if (take_fds(l, &m, &err) != 0)
        rc = -1;
    else if (n == 0)
        rc = err_set(&err, ERR_UNREACHABLE, "the other side is gone");
    if (rc == 0) {
        l->in_len += (size_t)n;
        rc = take_all(l, &err);
    }
    /* One comes with the first byte of its message. */
    if (rc == 0 && l->in_len == 0 && l->fd_count > 0)
        rc = err_set(&err, ERR_BAD_REQUEST, "a descriptor that none expects");
    if (rc != 0)
        end(l, &err);
}

/* --- out --- */

static void drop_first(struct link *l)
{
    struct out *o = l->first;
    l->first = o->next;
    if (l->first == NULL)
        l->last = &l->first;
    l->queued -= o->len;
    if (o->fd >= 0)
        close(o->fd);
    free(o);
}

static ssize_t write_one(struct link *l, struct out *o)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec v = {o->bytes + o->sent, o->len - o->sent};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    if (o->fd >= 0) {
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &o->fd, sizeof(int));
    }
    ssize_t n = sendmsg(l->fd, &m, MSG_NOSIGNAL);
    if (n > 0 && o->fd >= 0) {
        close(o->fd);
        o->fd = -1;
    }
    return n;
}

static void write_some(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    struct err err;
    (void)fd;
    (void)what;
    while (l->first != NULL && !l->ended) {
        ssize_t n = write_one(l, l->first);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < 0) {
            (void)err_sys(&err, errno, "sendmsg");
            end(l, &err);
            return;
        }
        l->first->sent += (size_t)n;
        if (l->first->sent == l->first->len)
            drop_first(l);
    }
    if (l->first != NULL && !l->ended)
        event_add(l->writable, NULL);
}

int link_send(struct link *l, enum link_kind kind, json_t *doc_take, int fd_take,
              struct err *err)
{
    assert(link_rules[kind].from == l->conf.side);
    assert(fd_take < 0 || link_rules[kind].may_have_fd);
    if (link_rules[kind].may_have_fd)
        json_object_set_new(doc_take, "fd", json_boolean(fd_take >= 0));
    char *text = jsonx_dump(doc_take);
    size_t len = strlen(text);
    json_decref(doc_take);
    int rc = 0;
    if (len > link_rules[kind].max)
        rc = err_set(err, ERR_TOO_LARGE, "%s: %zu bytes", link_rules[kind].name, len);
    if (rc != 0 || l->ended) {
        free(text);
        if (fd_take >= 0)
            close(fd_take);
        return rc;
    }
    struct out *o = xmalloc(sizeof(*o) + HEAD_LEN + len);
    *o = (struct out){NULL, fd_take, HEAD_LEN + len, 0};
    uint8_t head[HEAD_LEN] = {(uint8_t)kind, (uint8_t)(len >> 24), (uint8_t)(len >> 16),
                              (uint8_t)(len >> 8), (uint8_t)len};
    memcpy(o->bytes, head, HEAD_LEN);
    memcpy(o->bytes + HEAD_LEN, text, len);
    free(text);
    *l->last = o;
    l->last = &o->next;
    l->queued += o->len;
    if (l->queued > LINK_QUEUE_MAX) {
        struct err why;
        (void)err_set(&why, ERR_TIMEOUT, "the other side does not read");
        end(l, &why);
    } else {
        event_add(l->writable, NULL);
    }
    return 0;
}

/* --- life --- */

struct link *link_new(struct event_base *base, int fd_take, const struct link_conf *c)
{
    struct link *l = xcalloc(1, sizeof(*l));
    l->conf = *c;
    l->fd = fd_take;
    l->last = &l->first;
    (void)fcntl(fd_take, F_SETFL, fcntl(fd_take, F_GETFL) | O_NONBLOCK);
    (void)fcntl(fd_take, F_SETFD, FD_CLOEXEC);
    l->readable = event_new(base, fd_take, EV_READ | EV_PERSIST, read_some, l);
    l->writable = event_new(base, fd_take, EV_WRITE, write_some, l);
    l->over = event_new(base, -1, 0, over, l);
    event_add(l->readable, NULL);
    return l;
}

void link_free(struct link *l)
{
    if (l == NULL)
        return;
    event_free(l->readable);
    event_free(l->writable);
    event_free(l->over);
    while (l->first != NULL)
        drop_first(l);
    for (size_t i = 0; i < l->fd_count; i++)
        link_drop_fd(l->fds[i]);
    free(l->in);
    close(l->fd);
    free(l);
}
