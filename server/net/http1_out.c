/* http1_out: exchanges and the writing of replies, in the order of the requests. The
 * first exchange of a connection writes straight into its output, the others into a
 * buffer of their own until their turn comes. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/xalloc.h"
#include "server/net/http1_priv.h"

const char *http1_status_text(int status)
{
    const char *text = http_status_str((enum http_status)status);
    return text != NULL && text[0] != '<' ? text : "Unknown";
}

struct http1_xchg *http1_xchg_new(struct http1_conn *c, int64_t now_us)
{
    struct http1_xchg *x = xcalloc(1, sizeof(*x));
    uint8_t random[10];
    digest_random(random, sizeof(random));
    uuid_v7(now_us, random, x->request_id);
    x->conn = c;
    x->minor = 1;
    x->started_us = now_us;
    x->id = ids_add(&c->server->ids, x);
    *c->tail = x;
    c->tail = &x->next;
    c->pending++;
    return x;
}

/* Unlinks nothing: the caller takes it off the queue. */
static void xchg_free(struct http1_xchg *x)
{
    struct http1_server *s = x->conn->server;
    if (x->out != NULL)
        evbuffer_free(x->out);
    s->stats.replies[x->status == 499 ? 0 : x->status / 100]++;
    if (s->opts.on_done != NULL) {
        struct http1_done done = {
            .method = x->method != NULL ? x->method : "-",
            .path = x->path != NULL ? x->path : "-",
            .who = x->who[0] != '\0' ? x->who : "-",
            .remote = x->conn->remote,
            .request_id = x->request_id,
            .status = x->status,
            .is_poll = x->cuttable,
            .took_us = clock_now_us() - x->started_us,
            .bytes = x->bytes,
        };
        s->opts.on_done(s->opts.env, &done);
    }
    ids_drop(&s->ids, x->id);
    free(x->method);
    free(x->path);
    free(x);
}

void http1_xchg_drop_all(struct http1_conn *c)
{
    struct http1_server *s = c->server;
    while (c->first != NULL) {
        struct http1_xchg *x = c->first;
        c->first = x->next;
        c->pending--;
        if (x->state != XCHG_DONE && x->flow_id != 0)
            s->opts.on_gone(s->opts.env, x->flow_id);
        if (x->state == XCHG_WAITING)
            x->status = 499;
        xchg_free(x);
    }
    c->tail = &c->first;
}

static struct evbuffer *xchg_out(struct http1_xchg *x)
{
    if (x == x->conn->first)
        return bufferevent_get_output(x->conn->bev);
    if (x->out == NULL)
        x->out = evbuffer_new();
    return x->out;
}

/* Exchanges at the front that are done leave; the next one's buffer goes out. */
static void conn_advance(struct http1_conn *c)
{
    while (c->first != NULL && c->first->state == XCHG_DONE) {
        struct http1_xchg *x = c->first;
        c->first = x->next;
        if (c->first == NULL)
            c->tail = &c->first;
        c->pending--;
        xchg_free(x);
        struct http1_xchg *n = c->first;
        if (n != NULL && n->out != NULL)
            evbuffer_add_buffer(bufferevent_get_output(c->bev), n->out);
    }
    http1_conn_settle(c);
}

static const char *server_date(struct http1_server *s)
{
    time_t now = (time_t)(clock_now_us() / 1000000);
    if (now != s->date_at || s->date[0] == '\0') {
        struct tm tm;
        gmtime_r(&now, &tm);
        strftime(s->date, sizeof(s->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        s->date_at = now;
    }
    return s->date;
}

/* The last reply of a connection says so. */
static void decide_last(struct http1_xchg *x)
{
    struct http1_conn *c = x->conn;
    if (c->server->stopping && x->next == NULL)
        x->last = true;
    if (x->last && c->phase < PHASE_SHUT)
        c->phase = PHASE_SHUT;
}

static void write_head(struct http1_xchg *x, const struct flow_reply *r, bool stream)
{
    struct strbuf b = STRBUF_INIT;
    bool body_allowed = r->status >= 200 && r->status != 204 && r->status != 304;
    decide_last(x);
    strbuf_addf(&b, "HTTP/1.1 %d %s\r\nDate: %s\r\n", r->status,
                http1_status_text(r->status), server_date(x->conn->server));
    if (r->content_type[0] != '\0')
        strbuf_addf(&b, "Content-Type: %s\r\n", r->content_type);
    if (!stream && body_allowed)
        strbuf_addf(&b, "Content-Length: %zu\r\n", r->body_len);
    if (stream && x->chunked)
        strbuf_adds(&b, "Transfer-Encoding: chunked\r\n");
    strbuf_addf(&b, "X-Request-Id: %s\r\n", x->request_id);
    bool cached = false;
    for (size_t i = 0; i < r->header_count; i++) {
        strbuf_addf(&b, "%s: %s\r\n", r->headers[i].name, r->headers[i].value);
        cached = cached || strcmp(r->headers[i].name, "Cache-Control") == 0;
    }
    if (!cached)
        strbuf_adds(&b, "Cache-Control: no-store\r\n");
    strbuf_adds(&b, "X-Content-Type-Options: nosniff\r\n"
                    "Strict-Transport-Security: max-age=31536000\r\n");
    if (x->last)
        strbuf_adds(&b, "Connection: close\r\n");
    else if (x->minor == 0)
        strbuf_adds(&b, "Connection: keep-alive\r\n");
    strbuf_adds(&b, "\r\n");
    x->status = r->status;
    struct evbuffer *out = xchg_out(x);
    evbuffer_add(out, b.data, b.len);
    strbuf_done(&b);
    if (!stream && body_allowed && !x->is_head && r->body_len > 0) {
        evbuffer_add(out, r->body, r->body_len);
        x->bytes = r->body_len;
    }
}

void http1_reply(struct http1_server *s, uint64_t id, const struct flow_reply *reply)
{
    struct http1_xchg *x = ids_find(&s->ids, id);
    if (x == NULL)
        return;
    assert(x->state == XCHG_WAITING);
    write_head(x, reply, false);
    x->state = XCHG_DONE;
    conn_advance(x->conn);
}

void http1_refuse(struct http1_xchg *x, const struct http1_fault *fault)
{
    const char *code = fault->status == 413 ? "too_large" : "bad_request";
    if (fault->status == 408)
        code = "timeout";
    struct strbuf b = STRBUF_INIT;
    strbuf_addf(&b,
                "{\"type\":\"urn:neargpu:error:%s\",\"title\":\"%s\",\"status\":%d,"
                "\"detail\":\"%s\",\"code\":\"%s\",\"instance\":\"urn:uuid:%s\"}",
                code, http1_status_text(fault->status), fault->status, fault->why, code,
                x->request_id);
    struct flow_reply reply = {
        .status = fault->status,
        .content_type = "application/problem+json",
        .body = b.data,
        .body_len = b.len,
    };
    struct http1_server *s = x->conn->server;
    s->stats.refused++;
    x->last = true;
    http1_reply(s, x->id, &reply);
    strbuf_done(&b);
}

/* ---- streams ---- */

void http1_stream_begin(struct http1_server *s, uint64_t id,
                        const struct flow_reply *head)
{
    struct http1_xchg *x = ids_find(&s->ids, id);
    if (x == NULL)
        return;
    assert(x->state == XCHG_WAITING);
    x->state = XCHG_STREAMING;
    x->chunked = x->minor == 1;
    if (!x->chunked)
        x->last = true; /* HTTP/1.0: the end of the connection is the end of the body */
    write_head(x, head, true);
}

int http1_stream_write(struct http1_server *s, uint64_t id, const void *data,
                       size_t len)
{
    struct http1_xchg *x = ids_find(&s->ids, id);
    if (x == NULL)
        return -1;
    assert(x->state == XCHG_STREAMING);
    struct evbuffer *out = xchg_out(x);
    if (evbuffer_get_length(out) + len > FLOW_STREAM_BUFFER_MAX)
        return -1;
    if (len == 0 || x->is_head)
        return 0; /* an empty chunk would end the body */
    if (x->chunked)
        evbuffer_add_printf(out, "%zx\r\n", len);
    evbuffer_add(out, data, len);
    if (x->chunked)
        evbuffer_add(out, "\r\n", 2);
    x->bytes += len;
    return 0;
}

void http1_stream_end(struct http1_server *s, uint64_t id)
{
    struct http1_xchg *x = ids_find(&s->ids, id);
    if (x == NULL)
        return;
    assert(x->state == XCHG_STREAMING);
    if (x->chunked && !x->is_head)
        evbuffer_add(xchg_out(x), "0\r\n\r\n", 5);
    x->state = XCHG_DONE;
    conn_advance(x->conn);
}

void http1_bind(struct http1_server *s, uint64_t id, uint64_t flow_id, bool cuttable)
{
    struct http1_xchg *x = ids_find(&s->ids, id);
    if (x == NULL)
        return;
    x->flow_id = flow_id;
    x->cuttable = cuttable;
}

void http1_set_who(struct http1_server *s, uint64_t id, const char *who)
{
    struct http1_xchg *x = ids_find(&s->ids, id);
    if (x != NULL)
        snprintf(x->who, sizeof(x->who), "%s", who);
}
