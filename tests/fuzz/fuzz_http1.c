/* fuzz_http1: any bytes into an HTTP connection, twice: at once, and in pieces whose
 * sizes come from the input. Memory is the sanitizers' business; checked here is that
 * the requests seen, and the first refusal's status, do not depend on the pieces, and
 * that no request gets through with what http1_scan promises to refuse. */
#include <assert.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/strbuf.h"
#include "server/net/http1.h"
#include "server/net/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    struct http1_server *http;
    struct strbuf seen;
};

static void on_request(void *env, const struct http1_request *rq)
{
    struct run *r = env;
    const struct http1_head *h = rq->head;
    assert(h->target[0] == '/' && strlen(h->target) == h->target_len);
    assert(h->minor == 0 || http1_header(h, "host") != NULL);
    assert(!h->chunked || !h->has_length);
    assert(rq->body_len <= HTTP_BODY_MAX && rq->body[rq->body_len] == '\0');
    for (size_t i = 0; i < h->header_count; i++)
        assert(strpbrk(h->headers[i].name, " \t\r\n:") == NULL &&
               strpbrk(h->headers[i].value, "\r\n") == NULL);
    struct flow_request *parsed = flow_request_new();
    struct err err;
    const char *query = strchr(h->target, '?');
    if (query != NULL && uri_query(query + 1, parsed, &err) == 0)
        for (size_t i = 0; i < parsed->query_count; i++)
            assert(uri_is_utf8(parsed->query[i].value, strlen(parsed->query[i].value)));
    flow_request_free(parsed);
    json_t *form = uri_form(rq->body, rq->body_len, &err), *values;
    const char *name;
    json_object_foreach(form, name, values)
        assert(name[0] != '\0' && json_array_size(values) > 0);
    json_decref(form);
    strbuf_addf(&r->seen, "%s %s %zu|", h->method, h->target, rq->body_len);
    strbuf_add(&r->seen, rq->body, rq->body_len);
    struct flow_reply reply = {.status = 200, .content_type = "text/plain", .body = ""};
    http1_reply(r->http, rq->id, &reply);
}

static void on_gone(void *env, uint64_t flow_id)
{
    (void)env;
    (void)flow_id;
}

static void on_done(void *env, const struct http1_done *done)
{
    struct run *r = env;
    strbuf_addf(&r->seen, "<%d>", done->status);
}

static void run_once(struct event_base *base, const uint8_t *data, size_t size,
                     bool pieces, struct strbuf *seen)
{
    struct run r = {0};
    struct bufferevent *pair[2];
    struct http1_opts opts = {
        .base = base,
        .env = &r,
        .on_request = on_request,
        .on_gone = on_gone,
        .on_done = on_done,
    };
    r.http = http1_server_new(&opts);
    bufferevent_pair_new(base, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS, pair);
    bufferevent_enable(pair[1], EV_READ | EV_WRITE);
    http1_accept(r.http, pair[0], "192.0.2.1:1");
    size_t at = 0;
    while (at < size) {
        size_t n = pieces ? 1u + data[at] % 7u : size;
        if (n > size - at)
            n = size - at;
        bufferevent_write(pair[1], data + at, n);
        at += n;
        for (int i = 0; i < 4; i++)
            event_base_loop(base, EVLOOP_NONBLOCK);
    }
    for (int i = 0; i < 40; i++) /* 16 pipelined requests a round */
        event_base_loop(base, EVLOOP_NONBLOCK);
    http1_server_free(r.http);
    bufferevent_free(pair[1]);
    event_base_loop(base, EVLOOP_NONBLOCK);
    *seen = r.seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct event_base *base;
    struct strbuf whole, pieces;
    if (size > 20000)
        return 0;
    if (base == NULL)
        base = event_base_new();
    run_once(base, data, size, false, &whole);
    run_once(base, data, size, true, &pieces);
    assert(whole.len == pieces.len &&
           memcmp(strbuf_str(&whole), strbuf_str(&pieces), whole.len) == 0);
    strbuf_done(&whole);
    strbuf_done(&pieces);
    return 0;
}
