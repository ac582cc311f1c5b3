/* http1: connections and the reading of requests (contract in http1.h).
 *
 * The input of a connection goes through two readers: http1_scan, which refuses
 * whatever is not plainly allowed, and the library, which parses. They must agree on
 * the length of head and body; otherwise the request is refused. */
#include "server/net/http1.h"

#include <assert.h>
#include <event2/bufferevent_ssl.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client/lib/clock.h"
#include "client/lib/tlsx.h"
#include "client/lib/xalloc.h"
#include "server/net/http1_priv.h"

static void conn_read(struct http1_conn *c);

/* ---- the library ---- */

/* An Upgrade is ignored (RFC 9110 7.8 allows it): each message has a parser of its own,
 * so the library has nothing to hand over. */

static int lib_body(http_parser *p, const char *at, size_t len)
{
    struct http1_msg *m = p->data;
    strbuf_add(&m->body, at, len);
    return 0;
}

static int lib_complete(http_parser *p)
{
    struct http1_msg *m = p->data;
    m->complete = true;
    return 0;
}

static const http_parser_settings lib_settings = {
    .on_body = lib_body,
    .on_message_complete = lib_complete,
};

/* All of data must be taken, else the two readers disagree. */
static bool lib_feed(struct http1_msg *m, const char *data, size_t len)
{
    return http_parser_execute(&m->parser, &lib_settings, data, len) == len &&
           m->parser.http_errno == HPE_OK;
}

/* ---- messages ---- */

static void msg_free(struct http1_msg *m)
{
    if (m == NULL)
        return;
    strbuf_done(&m->body);
    free(m->head_copy);
    free(m);
}

static struct http1_msg *msg_new(const char *head, size_t len)
{
    struct http1_msg *m = xcalloc(1, sizeof(*m));
    m->head_copy = xmalloc(len + 1);
    memcpy(m->head_copy, head, len);
    m->head_copy[len] = '\0';
    m->head_len = len;
    http_parser_init(&m->parser, HTTP_REQUEST);
    m->parser.data = m;
    return m;
}

/* ---- life of a connection ---- */

static void conn_arm(struct http1_conn *c, int64_t us)
{
    struct timeval tv = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    event_add(c->deadline, &tv);
}

static void conn_disarm(struct http1_conn *c)
{
    event_del(c->deadline);
}

static void conn_unlink(struct http1_conn *c)
{
    struct http1_server *s = c->server;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        s->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    s->stats.connections--;
}

/* No callback runs for it any more; the reaper frees it. */
static void conn_die(struct http1_conn *c)
{
    struct http1_server *s = c->server;
    if (c->phase == PHASE_DEAD)
        return;
    c->phase = PHASE_DEAD;
    conn_disarm(c);
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    bufferevent_setcb(c->bev, NULL, NULL, NULL, NULL);
    http1_xchg_drop_all(c);
    conn_unlink(c);
    c->prev = NULL;
    c->next = s->dead;
    s->dead = c;
    struct timeval now = {0, 0};
    event_add(s->reaper, &now);
}

static void conn_free(struct http1_conn *c)
{
    msg_free(c->msg);
    event_free(c->deadline);
    bufferevent_free(c->bev);
    free(c->peer_uri);
    free(c->peer_thumbprint);
    free(c);
}

static void server_reap(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct http1_server *s = arg;
    while (s->dead != NULL) {
        struct http1_conn *c = s->dead;
        s->dead = c->next;
        conn_free(c);
        if (s->opts.on_closed != NULL)
            s->opts.on_closed(s->opts.closed_env);
    }
}

/* All is written. Closing now with unread input would make the kernel reset the
 * connection and could destroy the reply on its way: end our side, wait for theirs. */
static void conn_linger(struct http1_conn *c)
{
    SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
    if (ssl != NULL)
        (void)SSL_shutdown(ssl);
    (void)shutdown(bufferevent_getfd(c->bev), SHUT_WR);
    c->phase = PHASE_LINGER;
    evbuffer_drain(bufferevent_get_input(c->bev), SIZE_MAX);
    bufferevent_enable(c->bev, EV_READ);
    conn_arm(c, c->server->opts.linger_us);
}

static void conn_shut(struct http1_conn *c)
{
    msg_free(c->msg);
    c->msg = NULL;
    c->phase = PHASE_SHUT;
    conn_disarm(c);
}

static void conn_refuse(struct http1_conn *c, const struct http1_fault *fault)
{
    struct http1_xchg *x = http1_xchg_new(c, clock_now_us());
    if (c->msg != NULL && c->msg->head.method != NULL) {
        const struct http1_head *h = &c->msg->head;
        x->method = xstrndup(h->method, h->method_len);
        x->path = xstrndup(h->target, strcspn(h->target, "? \r"));
    }
    conn_shut(c);
    http1_refuse(x, fault);
}

/* ---- reading ---- */

/* From the end of the head to the first byte of the body. */
static enum http1_scan conn_head(struct http1_conn *c, const char *data, size_t len,
                                 struct http1_fault *fault)
{
    struct http1_msg *m = c->msg = msg_new(data, len);
    if (http1_head_split(m->head_copy, len, &m->head, fault) == HTTP1_BAD)
        return HTTP1_BAD;
    const struct http1_head *h = &m->head;
    if (h->has_length && h->content_length > HTTP_BODY_MAX) {
        *fault = (struct http1_fault){413, "body too large"};
        return HTTP1_BAD;
    }
    if (!lib_feed(m, data, len)) {
        bool method = m->parser.http_errno == HPE_INVALID_METHOD;
        *fault = (struct http1_fault){method ? 501 : 400,
                                      method ? "unknown method" : "malformed request"};
        return HTTP1_BAD;
    }
    m->body_left = h->content_length;
    http1_chunks_init(&m->chunks, HTTP_BODY_MAX);
    m->wants_100 = h->expect_continue && h->minor == 1;
    bool none = !h->chunked && h->content_length == 0;
    if (none != m->complete) {
        *fault = (struct http1_fault){400, "malformed request"};
        return HTTP1_BAD;
    }
    c->phase = PHASE_BODY;
    return none ? HTTP1_DONE : HTTP1_MORE;
}

/* Looks for the end of the head in what has arrived. DONE: a request without a body. */
static enum http1_scan conn_read_head(struct http1_conn *c, struct evbuffer *in,
                                      struct http1_fault *fault)
{
    size_t have = evbuffer_get_length(in);
    if (have > HTTP_HEAD_MAX + 1)
        have = HTTP_HEAD_MAX + 1;
    if (have == c->lines.seen)
        return HTTP1_MORE;
    if (c->phase == PHASE_IDLE) {
        c->phase = PHASE_HEAD;
        if (c->served)
            conn_arm(c, c->server->opts.head_us);
    }
    const char *data = (const char *)evbuffer_pullup(in, (ev_ssize_t)have);
    enum http1_scan got = http1_lines_feed(&c->lines, data, have, fault);
    if (got != HTTP1_DONE)
        return got;
    size_t len = c->lines.seen;
    got = conn_head(c, data, len, fault);
    if (got == HTTP1_BAD)
        return got;
    evbuffer_drain(in, len);
    c->served = true;
    c->msg->started_us = clock_now_us();
    if (got == HTTP1_MORE)
        conn_arm(c, c->server->opts.body_us);
    return got;
}

static enum http1_scan conn_read_body(struct http1_conn *c, struct evbuffer *in,
                                      struct http1_fault *fault)
{
    struct http1_msg *m = c->msg;
    for (;;) {
        struct evbuffer_iovec v;
        if (evbuffer_peek(in, -1, NULL, &v, 1) < 1 || v.iov_len == 0)
            return HTTP1_MORE;
        size_t used = v.iov_len;
        enum http1_scan got = HTTP1_MORE;
        if (m->head.chunked) {
            got = http1_chunks_feed(&m->chunks, v.iov_base, v.iov_len, &used, fault);
            if (got == HTTP1_BAD)
                return got;
        } else {
            if (used > m->body_left)
                used = (size_t)m->body_left;
            m->body_left -= used;
            if (m->body_left == 0)
                got = HTTP1_DONE;
        }
        if (!lib_feed(m, v.iov_base, used) || m->complete != (got == HTTP1_DONE)) {
            *fault = (struct http1_fault){400, "malformed body"};
            return HTTP1_BAD;
        }
        evbuffer_drain(in, used);
        if (got == HTTP1_DONE)
            return got;
    }
}

/* The request is whole: an exchange is made and the handler called. */
static void conn_dispatch(struct http1_conn *c)
{
    struct http1_server *s = c->server;
    struct http1_msg *m = c->msg;
    struct http1_xchg *x = http1_xchg_new(c, m->started_us);
    conn_disarm(c);
    c->msg = NULL;
    c->phase = PHASE_IDLE;
    c->lines = (struct http1_lines){0};
    s->stats.requests++;
    http1_head_terminate(&m->head);
    x->minor = m->head.minor;
    x->is_head = strcmp(m->head.method, "HEAD") == 0;
    x->method = xstrdup(m->head.method);
    x->path = xstrndup(m->head.target, strcspn(m->head.target, "?"));
    if (http_should_keep_alive(&m->parser) == 0) {
        x->last = true;
        conn_shut(c);
    }
    struct http1_request rq = {
        .id = x->id,
        .head = &m->head,
        .body = strbuf_str(&m->body),
        .body_len = m->body.len,
        .has_body = m->head.chunked || m->head.has_length,
        .remote = c->remote,
        .peer_uri = c->peer_uri != NULL ? c->peer_uri : "",
        .peer_thumbprint = c->peer_thumbprint != NULL ? c->peer_thumbprint : "",
        .request_id = x->request_id,
        .now_us = m->started_us,
    };
    s->opts.on_request(s->opts.env, &rq);
    msg_free(m);
}

/* Whether the next request may be read now. */
static bool conn_has_room(const struct http1_conn *c)
{
    return c->pending < c->server->opts.pipeline_max &&
           evbuffer_get_length(bufferevent_get_output(c->bev)) < HTTP1_OUTPUT_MAX;
}

static void conn_send_100(struct http1_conn *c)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (c->msg == NULL || !c->msg->wants_100 || c->pending > 0)
        return;
    c->msg->wants_100 = false;
    evbuffer_add(bufferevent_get_output(c->bev), text, sizeof(text) - 1);
}

/* Reads as many requests as are there and allowed. */
static void conn_read(struct http1_conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    struct http1_fault fault = {0, ""};
    c->reading = true;
    while (c->phase <= PHASE_BODY && conn_has_room(c)) {
        enum http1_scan got = c->phase == PHASE_BODY ? conn_read_body(c, in, &fault)
                                                     : conn_read_head(c, in, &fault);
        if (got == HTTP1_BAD) {
            conn_refuse(c, &fault);
        } else if (got == HTTP1_DONE) {
            conn_dispatch(c);
        } else if (c->phase != PHASE_BODY || evbuffer_get_length(in) == 0) {
            break;
        }
    }
    c->reading = false;
    conn_send_100(c);
    if (c->phase >= PHASE_SHUT)
        evbuffer_drain(in, SIZE_MAX);
}

/* Nothing to read, nothing to answer: how long may it stay? */
static void conn_idle(struct http1_conn *c)
{
    if (c->server->stopping)
        conn_die(c);
    else if (c->served)
        conn_arm(c, c->server->opts.idle_us);
}

void http1_conn_settle(struct http1_conn *c)
{
    if (c->reading || c->phase == PHASE_DEAD || c->phase == PHASE_LINGER)
        return;
    if (c->phase <= PHASE_BODY)
        conn_read(c);
    if (c->phase == PHASE_SHUT && c->msg != NULL)
        conn_shut(c);
    if (c->pending > 0)
        return;
    bool flushed = evbuffer_get_length(bufferevent_get_output(c->bev)) == 0;
    if (c->phase == PHASE_SHUT && flushed)
        conn_linger(c);
    else if (c->phase == PHASE_IDLE && flushed)
        conn_idle(c);
}

/* ---- libevent ---- */

static void on_read(struct bufferevent *bev, void *arg)
{
    (void)bev;
    struct http1_conn *c = arg;
    if (c->phase >= PHASE_SHUT) {
        evbuffer_drain(bufferevent_get_input(c->bev), SIZE_MAX);
        return;
    }
    http1_conn_settle(c);
}

static void on_written(struct bufferevent *bev, void *arg)
{
    (void)bev;
    http1_conn_settle(arg);
}

static void conn_identify(struct http1_conn *c)
{
    SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
    if (ssl == NULL || SSL_get0_peer_certificate(ssl) == NULL ||
        SSL_get_verify_result(ssl) != X509_V_OK)
        return;
    char uri[FLOW_URI_MAX], thumbprint[FLOW_THUMBPRINT_MAX];
    tlsx_peer_uri(ssl, uri, sizeof(uri));
    tlsx_peer_thumbprint(ssl, thumbprint, sizeof(thumbprint));
    c->peer_uri = xstrdup(uri);
    c->peer_thumbprint = xstrdup(thumbprint);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    (void)bev;
    struct http1_conn *c = arg;
    if (what & BEV_EVENT_CONNECTED) {
        conn_identify(c);
        return;
    }
    if (what & BEV_EVENT_TIMEOUT)
        c->server->stats.timeouts++;
    conn_die(c); /* end, error, or no progress in writing */
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct http1_conn *c = arg;
    bool started = c->phase == PHASE_BODY || c->phase == PHASE_HEAD;
    if (c->phase != PHASE_LINGER)
        c->server->stats.timeouts++;
    if (!started) {
        conn_die(c);
        return;
    }
    static const struct http1_fault slow = {408, "the request took too long to arrive"};
    conn_refuse(c, &slow);
}

/* ---- the server ---- */

static void default_us(int64_t *value, int64_t fallback)
{
    if (*value == 0)
        *value = fallback;
}

struct http1_server *http1_server_new(const struct http1_opts *opts)
{
    struct http1_server *s = xcalloc(1, sizeof(*s));
    s->opts = *opts;
    default_us(&s->opts.head_us, HTTP1_HEAD_US);
    default_us(&s->opts.body_us, HTTP1_BODY_US);
    default_us(&s->opts.idle_us, HTTP1_IDLE_US);
    default_us(&s->opts.write_us, HTTP1_WRITE_US);
    default_us(&s->opts.linger_us, HTTP1_LINGER_US);
    if (s->opts.pipeline_max == 0)
        s->opts.pipeline_max = HTTP1_PIPELINE_MAX;
    s->reaper = event_new(opts->base, -1, 0, server_reap, s);
    assert(s->reaper != NULL);
    http_parser_set_max_header_size(HTTP_HEAD_MAX * 2); /* ours is the stricter one */
    return s;
}

void http1_server_free(struct http1_server *s)
{
    if (s == NULL)
        return;
    while (s->conns != NULL)
        conn_die(s->conns);
    server_reap(-1, 0, s);
    event_free(s->reaper);
    ids_done(&s->ids);
    free(s);
}

void http1_accept(struct http1_server *s, struct bufferevent *bev_take,
                  const char *remote)
{
    struct http1_conn *c = xcalloc(1, sizeof(*c));
    c->server = s;
    c->bev = bev_take;
    c->tail = &c->first;
    snprintf(c->remote, sizeof(c->remote), "%s", remote);
    c->deadline = event_new(s->opts.base, -1, 0, on_deadline, c);
    assert(c->deadline != NULL);
    c->next = s->conns;
    if (s->conns != NULL)
        s->conns->prev = c;
    s->conns = c;
    s->stats.connections++;
    s->stats.accepted++;
    struct timeval write_tv = {.tv_sec = s->opts.write_us / 1000000,
                               .tv_usec = s->opts.write_us % 1000000};
    bufferevent_set_timeouts(c->bev, NULL, &write_tv);
    bufferevent_setwatermark(c->bev, EV_READ, 0, HTTP_HEAD_MAX * 4);
    bufferevent_setcb(c->bev, on_read, on_written, on_event, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    /* Handshake and first head together: a connection that says nothing is dropped. */
    conn_arm(c, s->opts.head_us);
}

size_t http1_connections(const struct http1_server *s)
{
    return s->stats.connections;
}

void http1_stats(const struct http1_server *s, struct http1_stats *ret)
{
    *ret = s->stats;
    ret->exchanges = s->ids.live;
}

void http1_server_stop(struct http1_server *s)
{
    s->stopping = true;
    struct http1_conn *next;
    for (struct http1_conn *c = s->conns; c != NULL; c = next) {
        next = c->next;
        bool cut = true;
        for (const struct http1_xchg *x = c->first; x != NULL; x = x->next)
            cut = cut && x->cuttable;
        bool flushed = evbuffer_get_length(bufferevent_get_output(c->bev)) == 0;
        if (cut && flushed && c->phase != PHASE_BODY && c->phase != PHASE_LINGER)
            conn_die(c);
    }
}
