/* HTTP/1.1 connections over a socket pair: what is refused and how, what is answered
 * and in which order, and how long a connection may take. */
#include "tests/unit/unit.h"

#include <event2/bufferevent.h>
#include <stdio.h>

#include "client/lib/xalloc.h"
#include "server/net/http1.h"
#include "tests/unit/wire.h"

#define HELD_MAX 64

struct fixture {
    struct event_base *base;
    struct http1_server *http;
    struct wire w;
    int requests, gone, closed;
    uint64_t held[HELD_MAX]; /* requests for /hold…, answered by the test */
    int held_count;
    char last_done[256];
};

static void say(struct fixture *f, uint64_t id, const char *text)
{
    struct flow_reply r = {.status = 200,
                           .content_type = "text/plain",
                           .body = text,
                           .body_len = strlen(text)};
    http1_reply(f->http, id, &r);
}

static void on_request(void *env, const struct http1_request *rq)
{
    struct fixture *f = env;
    f->requests++;
    if (strncmp(rq->head->target, "/hold", 5) == 0) {
        ck_assert_int_lt(f->held_count, HELD_MAX);
        f->held[f->held_count++] = rq->id;
        http1_bind(f->http, rq->id, 77, strcmp(rq->head->target, "/hold-poll") == 0);
        return;
    }
    struct strbuf b = STRBUF_INIT;
    strbuf_addf(&b, "<%s %s ", rq->head->method, rq->head->target);
    if (rq->body_len < 100)
        strbuf_add(&b, rq->body, rq->body_len);
    else
        strbuf_addf(&b, "%zu bytes", rq->body_len);
    strbuf_adds(&b, ">");
    say(f, rq->id, strbuf_str(&b));
    strbuf_done(&b);
}

static void on_gone(void *env, uint64_t flow_id)
{
    struct fixture *f = env;
    ck_assert_uint_eq(flow_id, 77);
    f->gone++;
}

static void on_done(void *env, const struct http1_done *done)
{
    struct fixture *f = env;
    snprintf(f->last_done, sizeof(f->last_done), "%s %s %d", done->method, done->path,
             done->status);
}

static void on_closed(void *env)
{
    struct fixture *f = env;
    f->closed++;
}

static void connect_wire(struct fixture *f, struct wire *w)
{
    int fd[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    evutil_make_socket_nonblocking(fd[0]);
    *w = (struct wire){.base = f->base, .fd = fd[1]};
    http1_accept(f->http,
                 bufferevent_socket_new(
                     f->base, fd[0], BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS),
                 "192.0.2.1:5000");
}

static void open_with(struct fixture *f, struct http1_opts opts)
{
    *f = (struct fixture){.base = event_base_new()};
    opts.base = f->base;
    opts.env = f;
    opts.on_request = on_request;
    opts.on_gone = on_gone;
    opts.on_done = on_done;
    opts.on_closed = on_closed;
    opts.closed_env = f;
    f->http = http1_server_new(&opts);
    connect_wire(f, &f->w);
}

static void open_fixture(struct fixture *f)
{
    struct http1_opts opts = {.linger_us = 50000};
    open_with(f, opts);
}

static void close_fixture(struct fixture *f)
{
    wire_done(&f->w);
    http1_server_free(f->http);
    event_base_free(f->base);
}

/* ---- refusals ---- */

struct refusal {
    const char *name;
    const char *bytes;
    size_t len; /* 0: strlen */
    int status;
    const char *detail; /* part of it */
};

#define H "Host: a\r\n"
static const struct refusal refusals[] = {
    {"bare LF everywhere", "GET / HTTP/1.1\nHost: a\n\n", 0, 400, "line feed"},
    {"bare LF in one header", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 0, 400,
     "line feed"},
    {"bare LF as empty line", "GET / HTTP/1.1\r\n" H "\n", 0, 400, "line feed"},
    {"bare CR in a value", "GET / HTTP/1.1\r\n" H "X: a\rb\r\n\r\n", 0, 400,
     "carriage return"},
    {"CR CR LF", "GET / HTTP/1.1\r\r\n" H "\r\n", 0, 400, "carriage return"},
    {"NUL in a value", "GET / HTTP/1.1\r\n" H "X: a\0b\r\n\r\n", 34, 400, "control"},
    {"NUL in the target", "GET /\0 HTTP/1.1\r\n" H "\r\n", 28, 400, "control"},
    {"escape character", "GET / HTTP/1.1\r\n" H "X: \033[1m\r\n\r\n", 0, 400,
     "control"},
    {"DEL", "GET / HTTP/1.1\r\n" H "X: \177\r\n\r\n", 0, 400, "control"},
    {"space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 0, 400,
     "header name"},
    {"tab before the colon", "GET / HTTP/1.1\r\n" H "X\t: a\r\n\r\n", 0, 400,
     "header name"},
    {"no colon", "GET / HTTP/1.1\r\n" H "X\r\n\r\n", 0, 400, "header name"},
    {"empty header name", "GET / HTTP/1.1\r\n" H ": a\r\n\r\n", 0, 400, "header name"},
    {"quote in a header name", "GET / HTTP/1.1\r\n" H "X\"Y: a\r\n\r\n", 0, 400,
     "header name"},
    {"obs-fold with space", "GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n", 0, 400,
     "folded"},
    {"obs-fold with tab", "GET / HTTP/1.1\r\n" H "X: a\r\n\tb\r\n\r\n", 0, 400,
     "folded"},
    {"fold right after the request line", "GET / HTTP/1.1\r\n X: a\r\n" H "\r\n", 0,
     400, "folded"},
    {"no Host", "GET / HTTP/1.1\r\nX: y\r\n\r\n", 0, 400, "missing Host"},
    {"no header at all", "GET / HTTP/1.1\r\n\r\n", 0, 400, "missing Host"},
    {"two Hosts", "GET / HTTP/1.1\r\n" H H "\r\n", 0, 400, "twice"},
    {"two different Hosts", "GET / HTTP/1.1\r\n" H "hOST: b\r\n\r\n", 0, 400, "twice"},
    {"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 0, 400, "Host"},
    {"Host with user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 0, 400, "Host"},
    {"Host with path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 0, 400, "Host"},
    {"Host with a blank", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 0, 400, "Host"},
    {"Host with a bad port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 0, 400, "Host"},
    {"HTTP/1.9", "GET / HTTP/1.9\r\n" H "\r\n", 0, 505, "HTTP/1.1"},
    {"HTTP/1.2", "GET / HTTP/1.2\r\n" H "\r\n", 0, 505, "HTTP/1.1"},
    {"HTTP/0.9 with a version", "GET / HTTP/0.9\r\n" H "\r\n", 0, 505, "HTTP/1.1"},
    {"HTTP/2.0", "GET / HTTP/2.0\r\n" H "\r\n", 0, 505, "HTTP/1.1"},
    {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, 505, "HTTP/1.1"},
    {"HTTP/0.9", "GET /\r\n\r\n", 0, 400, "request line"},
    {"HTTP/1.10", "GET / HTTP/1.10\r\n" H "\r\n", 0, 400, "version"},
    {"http/1.1", "GET / http/1.1\r\n" H "\r\n", 0, 400, "version"},
    {"HTTP/1,1", "GET / HTTP/1,1\r\n" H "\r\n", 0, 400, "version"},
    {"version with a blank after", "GET / HTTP/1.1 \r\n" H "\r\n", 0, 400, "version"},
    {"tab after the method", "GET\t/ HTTP/1.1\r\n" H "\r\n", 0, 400, "method"},
    {"two blanks after the method", "GET  / HTTP/1.1\r\n" H "\r\n", 0, 400, ""},
    {"two blanks before the version", "GET /  HTTP/1.1\r\n" H "\r\n", 0, 400,
     "version"},
    {"blank before the method", " GET / HTTP/1.1\r\n" H "\r\n", 0, 400, "method"},
    {"no method", "/ HTTP/1.1\r\n" H "\r\n", 0, 400, "method"},
    {"unknown method", "BREW / HTTP/1.1\r\n" H "\r\n", 0, 501, "method"},
    {"lower-case method", "get / HTTP/1.1\r\n" H "\r\n", 0, 501, "method"},
    {"method of 21 letters", "AAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n" H "\r\n", 0, 400,
     "method"},
    {"empty line first", "\r\nGET / HTTP/1.1\r\n" H "\r\n", 0, 400, "empty line"},
    {"absolute form", "GET http://a/ HTTP/1.1\r\n" H "\r\n", 0, 400, "path"},
    {"authority form", "CONNECT a:443 HTTP/1.1\r\n" H "\r\n", 0, 400, "path"},
    {"asterisk form", "OPTIONS * HTTP/1.1\r\n" H "\r\n", 0, 400, "path"},
    {"relative target", "GET v1 HTTP/1.1\r\n" H "\r\n", 0, 400, "path"},
    {"fragment", "GET /#x HTTP/1.1\r\n" H "\r\n", 0, 400, "target"},
    {"quote in the target", "GET /\"x HTTP/1.1\r\n" H "\r\n", 0, 400, "target"},
    {"backslash in the target", "GET /\\x HTTP/1.1\r\n" H "\r\n", 0, 400, "target"},
    {"8-bit byte in the target", "GET /\xe6 HTTP/1.1\r\n" H "\r\n", 0, 400, "target"},
    {"CL and TE",
     "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
     "0\r\n\r\n",
     0, 400, "both"},
    {"TE and CL",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
     "0\r\n\r\n",
     0, 400, "both"},
    {"two equal CLs",
     "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 0, 400,
     "twice"},
    {"CL list", "POST / HTTP/1.1\r\n" H "Content-Length: 1, 1\r\n\r\nx", 0, 400,
     "Content-Length"},
    {"CL +3", "POST / HTTP/1.1\r\n" H "Content-Length: +3\r\n\r\nabc", 0, 400,
     "Content-Length"},
    {"CL -1", "POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", 0, 400,
     "Content-Length"},
    {"CL 0x3", "POST / HTTP/1.1\r\n" H "Content-Length: 0x3\r\n\r\nabc", 0, 400,
     "Content-Length"},
    {"CL 3a", "POST / HTTP/1.1\r\n" H "Content-Length: 3a\r\n\r\nabc", 0, 400,
     "Content-Length"},
    {"CL empty", "POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", 0, 400,
     "Content-Length"},
    {"CL 1 2", "POST / HTTP/1.1\r\n" H "Content-Length: 1 2\r\n\r\n", 0, 400,
     "Content-Length"},
    {"CL past the bound", "POST / HTTP/1.1\r\n" H "Content-Length: 262145\r\n\r\n", 0,
     413, "body too large"},
    {"CL of 30 digits",
     "POST / HTTP/1.1\r\n" H "Content-Length: 100000000000000000000000000000\r\n\r\n",
     0, 413, "body too large"},
    {"TE gzip", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n", 0, 400,
     "Transfer-Encoding"},
    {"TE gzip, chunked",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 0,
     400, "Transfer-Encoding"},
    {"TE chunked, chunked",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 0,
     400, "Transfer-Encoding"},
    {"TE twice",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n"
     "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     0, 400, "twice"},
    {"TE xchunked",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 0, 400,
     "Transfer-Encoding"},
    {"TE identity", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", 0,
     400, "Transfer-Encoding"},
    {"TE in HTTP/1.0",
     "POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, 400,
     "HTTP/1.0"},
#define CHUNKED "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
    {"chunk size 0x3", CHUNKED "0x3\r\nabc\r\n0\r\n\r\n", 0, 400, "chunk size"},
    {"chunk size +3", CHUNKED "+3\r\nabc\r\n0\r\n\r\n", 0, 400, "chunk size"},
    {"chunk size with a blank", CHUNKED "3 \r\nabc\r\n0\r\n\r\n", 0, 400, "chunk size"},
    {"chunk size empty", CHUNKED "\r\nabc\r\n0\r\n\r\n", 0, 400, "chunk size"},
    {"chunk extension", CHUNKED "3;a=b\r\nabc\r\n0\r\n\r\n", 0, 400, "chunk size"},
    {"chunk size with bare LF", CHUNKED "3\nabc\r\n0\r\n\r\n", 0, 400, "chunk size"},
    {"chunk size with CR and more", CHUNKED "3\rXabc\r\n0\r\n\r\n", 0, 400, "framing"},
    {"chunk without its end", CHUNKED "3\r\nabcd\r\n0\r\n\r\n", 0, 400, "framing"},
    {"chunk ended by bare LF", CHUNKED "3\r\nabc\n0\r\n\r\n", 0, 400, "framing"},
    {"trailer", CHUNKED "0\r\nX: y\r\n\r\n", 0, 400, "trailers"},
    {"chunk past the bound", CHUNKED "40001\r\n", 0, 413, "body too large"},
    {"chunk of 2^64", CHUNKED "10000000000000003\r\nabc", 0, 413, "body too large"},
    {"unknown expectation", "POST / HTTP/1.1\r\n" H "Expect: magic\r\n\r\n", 0, 417,
     "expectation"},
    {"Authorization twice",
     "GET / HTTP/1.1\r\n" H "Authorization: a\r\nAuthorization: b\r\n\r\n", 0, 400,
     "twice"},
    {"TLS to a plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11, 400,
     "control"},
};

START_TEST(test_refusal)
{
    const struct refusal *r = &refusals[_i];
    struct fixture f;
    open_fixture(&f);
    wire_send(&f.w, r->bytes, r->len != 0 ? r->len : strlen(r->bytes));
    ck_assert_msg(wire_until_closed(&f.w, 3000), "%s: stays open", r->name);
    ck_assert_msg(wire_status(&f.w) == r->status, "%s: %.200s", r->name,
                  strbuf_str(&f.w.got));
    ck_assert_msg(strstr(strbuf_str(&f.w.got), r->detail) != NULL, "%s: %s", r->name,
                  strbuf_str(&f.w.got));
    ck_assert_ptr_nonnull(strstr(strbuf_str(&f.w.got), "Connection: close\r\n"));
    ck_assert_ptr_nonnull(strstr(strbuf_str(&f.w.got), "application/problem+json"));
    ck_assert_msg(f.requests == 0, "%s: was handed on", r->name);
    close_fixture(&f);
}
END_TEST

/* The same bytes one at a time: the verdict must not depend on how they arrive. */
START_TEST(test_refusal_bytewise)
{
    const struct refusal *r = &refusals[_i];
    struct fixture f;
    open_fixture(&f);
    size_t len = r->len != 0 ? r->len : strlen(r->bytes);
    for (size_t i = 0; i < len && f.w.got.len == 0; i++) {
        wire_send(&f.w, r->bytes + i, 1);
        event_base_loop(f.base, EVLOOP_NONBLOCK);
        wire_read(&f.w);
    }
    ck_assert_msg(wire_until_closed(&f.w, 3000), "%s: stays open", r->name);
    ck_assert_msg(wire_status(&f.w) == r->status, "%s: %.200s", r->name,
                  strbuf_str(&f.w.got));
    ck_assert_int_eq(f.requests, 0);
    close_fixture(&f);
}
END_TEST

/* ---- sizes ---- */

static void send_filled(struct fixture *f, const char *before, size_t fill,
                        const char *after)
{
    struct strbuf b = STRBUF_INIT;
    strbuf_adds(&b, before);
    for (size_t i = 0; i < fill; i++)
        strbuf_addc(&b, 'a');
    strbuf_adds(&b, after);
    wire_send(&f->w, b.data, b.len);
    strbuf_done(&b);
}

START_TEST(test_sizes)
{
    static const struct {
        const char *before;
        size_t fill;
        const char *after;
        int status;
    } cases[] = {
        {"GET /", HTTP1_TARGET_MAX - 1, " HTTP/1.1\r\n" H "\r\n", 200},
        {"GET /", HTTP1_TARGET_MAX, " HTTP/1.1\r\n" H "\r\n", 414},
        {"GET /", 1000000, " HTTP/1.1\r\n" H "\r\n", 414},
        {"GET / HTTP/1.1\r\n" H "X: ", HTTP_HEAD_MAX - 16 - 9 - 3 - 4, "\r\n\r\n", 200},
        {"GET / HTTP/1.1\r\n" H "X: ", HTTP_HEAD_MAX - 16 - 9 - 3 - 3, "\r\n\r\n", 431},
        {"GET / HTTP/1.1\r\n" H "X: ", 1000000, "\r\n\r\n", 431},
        {"POST / HTTP/1.1\r\n" H "Content-Length: 262144\r\n\r\n", 262144, "", 200},
        {CHUNKED "40000\r\n", 0x40000, "\r\n0\r\n\r\n", 200},
        {CHUNKED "3ffff\r\n", 0x3ffff, "\r\n2\r\nab\r\n0\r\n\r\n", 413},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;
        open_fixture(&f);
        send_filled(&f, cases[i].before, cases[i].fill, cases[i].after);
        ck_assert_msg(wire_until(&f.w, "\r\n\r\n", 3000), "case %zu", i);
        ck_assert_msg(wire_status(&f.w) == cases[i].status, "case %zu: %.60s", i,
                      strbuf_str(&f.w.got));
        if (cases[i].status != 200)
            ck_assert_msg(wire_until_closed(&f.w, 3000), "case %zu stays open", i);
        close_fixture(&f);
    }
}
END_TEST

START_TEST(test_too_many_headers)
{
    struct fixture f;
    open_fixture(&f);
    wire_sends(&f.w, "GET / HTTP/1.1\r\n" H);
    for (int i = 0; i < HTTP1_HEADERS_MAX; i++)
        wire_sends(&f.w, "X: y\r\n");
    wire_sends(&f.w, "\r\n");
    ck_assert(wire_until_closed(&f.w, 3000));
    ck_assert_int_eq(wire_status(&f.w), 431);
    close_fixture(&f);
}
END_TEST

/* ---- what is answered ---- */

START_TEST(test_keep_alive_and_bodies)
{
    static const struct {
        const char *bytes, *answer;
    } cases[] = {
        {"GET /a?b=c HTTP/1.1\r\n" H "\r\n", "<GET /a?b=c >"},
        {"POST /p HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc", "<POST /p abc>"},
        {"POST /z HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", "<POST /z >"},
        {"POST /n HTTP/1.1\r\n" H "\r\n", "<POST /n >"},
        {"POST /c HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n"
         "3\r\nabc\r\n0a\r\n0123456789\r\n0\r\n\r\n",
         "<POST /c abc0123456789>"},
        {"POST /e HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "<POST /e >"},
        {"DELETE /d HTTP/1.1\r\nhOsT:a:8443  \r\nX:\t\r\n\r\n", "<DELETE /d >"},
        {"GET /6 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n", "<GET /6 >"},
        {"GET /u HTTP/1.1\r\n" H "Connection: Upgrade, HTTP2-Settings\r\n"
         "Upgrade: h2c\r\nHTTP2-Settings: AAM\r\n\r\n",
         "<GET /u >"},
        {"PATCH /l HTTP/1.1\r\n" H "X: caf\xc3\xa9\r\n\r\n", "<PATCH /l >"},
    };
    struct fixture f;
    open_fixture(&f);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        strbuf_reset(&f.w.got);
        wire_sends(&f.w, cases[i].bytes);
        ck_assert_msg(wire_until(&f.w, cases[i].answer, 3000), "%s: %s", cases[i].bytes,
                      strbuf_str(&f.w.got));
        ck_assert_int_eq(wire_status(&f.w), 200);
    }
    ck_assert(!f.w.closed); /* all on one connection */
    close_fixture(&f);
}
END_TEST

START_TEST(test_response_head)
{
    struct fixture f;
    open_fixture(&f);
    wire_sends(&f.w, "GET / HTTP/1.1\r\n" H "\r\n");
    ck_assert(wire_until(&f.w, "<GET / >", 3000));
    const char *s = strbuf_str(&f.w.got);
    ck_assert_ptr_nonnull(strstr(s, "\r\nContent-Length: 8\r\n"));
    ck_assert_ptr_nonnull(strstr(s, "\r\nDate: "));
    ck_assert_ptr_nonnull(strstr(s, "\r\nCache-Control: no-store\r\n"));
    ck_assert_ptr_nonnull(strstr(s, "\r\nX-Content-Type-Options: nosniff\r\n"));
    const char *id = strstr(s, "\r\nX-Request-Id: ");
    ck_assert_ptr_nonnull(id);
    char uuid[UUID_TEXT] = "";
    memcpy(uuid, id + 16, UUID_TEXT - 1);
    ck_assert(uuid_is_valid(uuid));
    ck_assert_ptr_null(strstr(s, "Connection: close"));
    close_fixture(&f);
}
END_TEST

START_TEST(test_head_has_no_body)
{
    struct fixture f;
    open_fixture(&f);
    wire_sends(&f.w, "HEAD /h HTTP/1.1\r\n" H "\r\nGET /g HTTP/1.1\r\n" H "\r\n");
    ck_assert(wire_until(&f.w, "<GET /g >", 3000));
    ck_assert_ptr_null(strstr(strbuf_str(&f.w.got), "<HEAD"));
    ck_assert_ptr_nonnull(strstr(strbuf_str(&f.w.got), "Content-Length: 10\r\n"));
    close_fixture(&f);
}
END_TEST

START_TEST(test_closes_when_asked)
{
    static const char *const cases[] = {
        "GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\n" H "\r\nGET /smuggled HTTP/1.0\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;
        open_fixture(&f);
        wire_sends(&f.w, cases[i]);
        ck_assert(wire_until_closed(&f.w, 3000));
        ck_assert_int_eq(wire_status(&f.w), 200);
        ck_assert_int_eq(f.requests, 1);
        ck_assert_ptr_nonnull(strstr(strbuf_str(&f.w.got), "Connection: close\r\n"));
        close_fixture(&f);
    }
    struct fixture f;
    open_fixture(&f);
    wire_sends(&f.w, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    ck_assert(wire_until(&f.w, "<GET / >", 3000));
    ck_assert_ptr_nonnull(strstr(strbuf_str(&f.w.got), "Connection: keep-alive\r\n"));
    close_fixture(&f);
}
END_TEST

START_TEST(test_expect_continue)
{
    struct fixture f;
    open_fixture(&f);
    wire_sends(&f.w, "POST /x HTTP/1.1\r\n" H "Expect: 100-continue\r\n"
                     "Content-Length: 2\r\n\r\n");
    ck_assert(wire_until(&f.w, "HTTP/1.1 100 Continue\r\n\r\n", 3000));
    wire_sends(&f.w, "ok");
    ck_assert(wire_until(&f.w, "<POST /x ok>", 3000));
    ck_assert_int_eq(wire_count(&f.w, "100 Continue"), 1);
    strbuf_reset(&f.w.got);
    /* the body is there already: nobody waits for a permission */
    wire_sends(&f.w, "POST /y HTTP/1.1\r\n" H "Expect: 100-continue\r\n"
                     "Content-Length: 2\r\n\r\nok");
    ck_assert(wire_until(&f.w, "<POST /y ok>", 3000));
    ck_assert_int_eq(wire_count(&f.w, "100 Continue"), 0);
    /* the permission must not overtake the reply before it */
    strbuf_reset(&f.w.got);
    wire_sends(&f.w, "GET /hold HTTP/1.1\r\n" H "\r\nPOST /z HTTP/1.1\r\n" H
                     "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    wire_pass(&f.w, 30);
    ck_assert_uint_eq(f.w.got.len, 0);
    say(&f, f.held[0], "<held>");
    ck_assert(wire_until(&f.w, "100 Continue", 3000));
    const char *got = strbuf_str(&f.w.got);
    ck_assert(strstr(got, "<held>") < strstr(got, "100 Continue"));
    close_fixture(&f);
}
END_TEST

START_TEST(test_pipeline_in_order)
{
    struct fixture f;
    open_fixture(&f);
    wire_sends(&f.w,
               "GET /hold1 HTTP/1.1\r\n" H "\r\nGET /quick HTTP/1.1\r\n" H
               "\r\nGET /hold2 HTTP/1.1\r\n" H "\r\nGET /last HTTP/1.1\r\n" H "\r\n");
    wire_pass(&f.w, 30);
    ck_assert_int_eq(f.requests, 4);
    ck_assert_uint_eq(f.w.got.len, 0);
    say(&f, f.held[1], "<two>");
    wire_pass(&f.w, 30);
    ck_assert_uint_eq(f.w.got.len, 0);
    say(&f, f.held[0], "<one>");
    ck_assert(wire_until(&f.w, "<GET /last >", 3000));
    const char *s = strbuf_str(&f.w.got);
    const char *one = strstr(s, "<one>"), *quick = strstr(s, "<GET /quick >");
    const char *two = strstr(s, "<two>"), *last = strstr(s, "<GET /last >");
    ck_assert(one != NULL && one < quick && quick < two && two < last);
    say(&f, f.held[0], "<again>"); /* an id that is over: nothing */
    wire_pass(&f.w, 10);
    ck_assert_int_eq(wire_count(&f.w, "<again>"), 0);
    close_fixture(&f);
}
END_TEST

START_TEST(test_pipeline_is_bounded)
{
    struct fixture f;
    open_fixture(&f);
    for (int i = 0; i < HTTP1_PIPELINE_MAX + 10; i++)
        wire_sends(&f.w, "GET /hold HTTP/1.1\r\n" H "\r\n");
    wire_pass(&f.w, 50);
    ck_assert_int_eq(f.requests, HTTP1_PIPELINE_MAX);
    say(&f, f.held[0], "<one>");
    wire_pass(&f.w, 50);
    ck_assert_int_eq(f.requests, HTTP1_PIPELINE_MAX + 1);
    for (int i = 1; i < HTTP1_PIPELINE_MAX + 10; i++) {
        wire_pass(&f.w, 5);
        say(&f, f.held[i], "<more>");
    }
    wire_pass(&f.w, 50);
    ck_assert_int_eq(wire_count(&f.w, "<more>"), HTTP1_PIPELINE_MAX + 9);
    close_fixture(&f);
}
END_TEST

/* What was asked before the malformed request is still answered, what came after not.
 */
START_TEST(test_refusal_after_good_ones)
{
    struct fixture f;
    open_fixture(&f);
    wire_sends(&f.w, "GET /hold HTTP/1.1\r\n" H "\r\nGET /bad HTTP/1.1\r\nHost : a\r\n"
                     "\r\nGET /after HTTP/1.1\r\n" H "\r\n");
    wire_pass(&f.w, 50);
    ck_assert_uint_eq(f.w.got.len, 0);
    say(&f, f.held[0], "<one>");
    ck_assert(wire_until_closed(&f.w, 3000));
    const char *s = strbuf_str(&f.w.got);
    const char *one = strstr(s, "<one>"), *bad = strstr(s, "HTTP/1.1 400 ");
    ck_assert(one != NULL && bad != NULL && one < bad);
    ck_assert_int_eq(f.requests, 1);
    close_fixture(&f);
}
END_TEST

START_TEST(test_client_gone)
{
    struct fixture f;
    open_fixture(&f);
    wire_sends(&f.w, "GET /hold HTTP/1.1\r\n" H "\r\nGET /hold HTTP/1.1\r\n" H "\r\n");
    wire_pass(&f.w, 20);
    close(f.w.fd);
    f.w.fd = -1;
    wire_pass(&f.w, 20);
    ck_assert_int_eq(f.gone, 2);
    ck_assert_int_eq(f.closed, 1);
    ck_assert_str_eq(f.last_done, "GET /hold 499");
    say(&f, f.held[0], "<late>"); /* must not touch what is freed */
    ck_assert_uint_eq(http1_connections(f.http), 0);
    close_fixture(&f);
}
END_TEST

/* ---- streams ---- */

START_TEST(test_stream)
{
    struct fixture f;
    open_fixture(&f);
    wire_sends(&f.w, "GET /hold HTTP/1.1\r\n" H "\r\nGET /next HTTP/1.1\r\n" H "\r\n");
    wire_pass(&f.w, 20);
    struct flow_reply head = {.status = 200, .content_type = "text/event-stream"};
    http1_stream_begin(f.http, f.held[0], &head);
    ck_assert_int_eq(http1_stream_write(f.http, f.held[0], "data: 1\n\n", 9), 0);
    ck_assert(wire_until(&f.w, "9\r\ndata: 1\n\n\r\n", 3000));
    ck_assert_ptr_nonnull(
        strstr(strbuf_str(&f.w.got), "Transfer-Encoding: chunked\r\n"));
    ck_assert_int_eq(http1_stream_write(f.http, f.held[0], "data: 2\n\n", 9), 0);
    http1_stream_end(f.http, f.held[0]);
    ck_assert(wire_until(&f.w, "<GET /next >", 3000));
    ck_assert_ptr_nonnull(
        strstr(strbuf_str(&f.w.got), "data: 2\n\n\r\n0\r\n\r\nHTTP/1.1 200"));
    ck_assert_int_eq(http1_stream_write(f.http, f.held[0], "x", 1), -1);
    close_fixture(&f);
}
END_TEST

START_TEST(test_stream_to_http10)
{
    struct fixture f;
    open_fixture(&f);
    wire_sends(&f.w, "GET /hold HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    wire_pass(&f.w, 20);
    struct flow_reply head = {.status = 200, .content_type = "text/event-stream"};
    http1_stream_begin(f.http, f.held[0], &head);
    ck_assert_int_eq(http1_stream_write(f.http, f.held[0], "data: 1\n\n", 9), 0);
    http1_stream_end(f.http, f.held[0]);
    ck_assert(wire_until_closed(&f.w, 3000));
    ck_assert_ptr_nonnull(strstr(strbuf_str(&f.w.got), "\r\n\r\ndata: 1\n\n"));
    ck_assert_ptr_nonnull(strstr(strbuf_str(&f.w.got), "Connection: close"));
    close_fixture(&f);
}
END_TEST

START_TEST(test_stream_buffer_is_bounded)
{
    struct fixture f;
    char block[1024];
    memset(block, 'x', sizeof(block));
    open_fixture(&f);
    wire_sends(&f.w, "GET /hold HTTP/1.1\r\n" H "\r\n");
    wire_pass(&f.w, 20);
    struct flow_reply head = {.status = 200, .content_type = "text/event-stream"};
    http1_stream_begin(f.http, f.held[0], &head);
    int written = 0; /* the client reads nothing */
    for (int i = 0; i < 4096; i++) {
        event_base_loop(f.base, EVLOOP_NONBLOCK);
        if (http1_stream_write(f.http, f.held[0], block, sizeof(block)) < 0)
            break;
        written++;
    }
    ck_assert_int_ge(written, FLOW_STREAM_BUFFER_MAX / 1100);
    ck_assert_int_lt(written, 2048); /* ours and the kernel's, then no more */
    close_fixture(&f);
}
END_TEST

/* ---- time ---- */

#define FAST                                                                         \
    {                                                                                \
        .head_us = 100000, .body_us = 150000, .idle_us = 200000, .write_us = 150000, \
        .linger_us = 50000                                                           \
    }

START_TEST(test_slow_head)
{
    struct http1_opts opts = FAST;
    struct fixture f;
    open_with(&f, opts);
    int64_t began = wire_ms();
    /* a byte now and then does not buy more time */
    for (int i = 0; i < 100 && !f.w.closed && f.w.got.len == 0; i++) {
        wire_send(&f.w, &"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"[i % 40], 1);
        wire_pass(&f.w, 10);
    }
    ck_assert(wire_until_closed(&f.w, 3000));
    ck_assert_int_eq(wire_status(&f.w), 408);
    ck_assert_int_ge(wire_ms() - began, 90);
    ck_assert_int_le(wire_ms() - began, 1500);
    close_fixture(&f);
}
END_TEST

START_TEST(test_silent_connection)
{
    struct http1_opts opts = FAST;
    struct fixture f;
    open_with(&f, opts);
    int64_t began = wire_ms();
    ck_assert(wire_until_closed(&f.w, 3000));
    ck_assert_uint_eq(f.w.got.len, 0);
    ck_assert_int_ge(wire_ms() - began, 90);
    close_fixture(&f);
}
END_TEST

/* The limit of a head is not the idle limit, also on a connection that was kept. */
START_TEST(test_slow_second_head)
{
    struct http1_opts opts = {.head_us = 100000, .idle_us = 5000000};
    struct fixture f;
    open_with(&f, opts);
    wire_sends(&f.w, "GET / HTTP/1.1\r\n" H "\r\n");
    ck_assert(wire_until(&f.w, "<GET / >", 3000));
    wire_pass(&f.w, 200);
    ck_assert(!f.w.closed);
    int64_t began = wire_ms();
    wire_sends(&f.w, "GET /late");
    ck_assert(wire_until(&f.w, "HTTP/1.1 408 ", 3000));
    ck_assert_int_ge(wire_ms() - began, 90);
    close_fixture(&f);
}
END_TEST

START_TEST(test_slow_body)
{
    struct http1_opts opts = {.head_us = 100000, .body_us = 400000, .linger_us = 50000};
    struct fixture f;
    open_with(&f, opts);
    int64_t began = wire_ms();
    wire_sends(&f.w, "POST / HTTP/1.1\r\n" H "Content-Length: 100\r\n\r\n");
    for (int i = 0; i < 100 && !f.w.closed && f.w.got.len == 0; i++) {
        wire_send(&f.w, "x", 1);
        wire_pass(&f.w, 10);
    }
    ck_assert(wire_until_closed(&f.w, 3000));
    ck_assert_int_eq(wire_status(&f.w), 408);
    ck_assert_int_ge(wire_ms() - began, 380);
    ck_assert_int_eq(f.requests, 0);
    close_fixture(&f);
}
END_TEST

START_TEST(test_idle_limit_and_long_poll)
{
    struct http1_opts opts = FAST;
    struct fixture f;
    open_with(&f, opts);
    wire_sends(&f.w, "GET /hold HTTP/1.1\r\n" H "\r\n");
    wire_pass(&f.w, 500); /* longer than any limit: it waits for us */
    ck_assert(!f.w.closed);
    int64_t began = wire_ms();
    say(&f, f.held[0], "<one>");
    ck_assert(wire_until(&f.w, "<one>", 3000));
    ck_assert(wire_until_closed(&f.w, 3000));
    ck_assert_int_ge(wire_ms() - began, 180);
    close_fixture(&f);
}
END_TEST

START_TEST(test_reader_that_stops)
{
    struct http1_opts opts = FAST;
    struct fixture f;
    open_with(&f, opts);
    wire_sends(&f.w, "GET /hold HTTP/1.1\r\n" H "\r\n");
    wire_pass(&f.w, 20);
    size_t len = 8 * 1024 * 1024;
    char *big = xmalloc(len);
    memset(big, 'x', len);
    struct flow_reply r = {
        .status = 200, .content_type = "text/plain", .body = big, .body_len = len};
    http1_reply(f.http, f.held[0], &r);
    free(big);
    int fd = f.w.fd;
    f.w.fd = -1; /* wire_turn reads nothing */
    wire_pass(&f.w, 600);
    ck_assert_uint_eq(http1_connections(f.http), 0);
    f.w.fd = fd;
    close_fixture(&f);
}
END_TEST

/* ---- stop ---- */

START_TEST(test_stop)
{
    struct fixture f;
    open_fixture(&f);
    struct wire idle, poll;
    connect_wire(&f, &idle);
    connect_wire(&f, &poll);
    wire_sends(&poll, "GET /hold-poll HTTP/1.1\r\n" H "\r\n");
    wire_pass(&poll, 20);
    wire_sends(&f.w, "GET /hold HTTP/1.1\r\n" H "\r\n");
    wire_pass(&f.w, 20);
    ck_assert_int_eq(f.held_count, 2);
    http1_server_stop(f.http);
    ck_assert(wire_until_closed(&idle, 1000));
    ck_assert(wire_until_closed(&poll, 1000));
    ck_assert_int_eq(f.gone, 1);
    ck_assert_uint_eq(http1_connections(f.http), 1);
    say(&f, f.held[1], "<done>");
    ck_assert(wire_until_closed(&f.w, 3000));
    ck_assert_ptr_nonnull(strstr(strbuf_str(&f.w.got), "<done>"));
    ck_assert_ptr_nonnull(strstr(strbuf_str(&f.w.got), "Connection: close"));
    wire_pass(&f.w, 100);
    ck_assert_uint_eq(http1_connections(f.http), 0);
    wire_done(&idle);
    wire_done(&poll);
    close_fixture(&f);
}
END_TEST

#define REFUSALS (int)(sizeof(refusals) / sizeof(refusals[0]))

UNIT_MAIN("http1", tcase_add_loop_test(tc, test_refusal, 0, REFUSALS);
          tcase_add_loop_test(tc, test_refusal_bytewise, 0, REFUSALS);
          UNIT_CASE(test_sizes) UNIT_CASE(test_too_many_headers)
              UNIT_CASE(test_keep_alive_and_bodies) UNIT_CASE(test_response_head)
                  UNIT_CASE(test_head_has_no_body) UNIT_CASE(test_closes_when_asked)
                      UNIT_CASE(test_expect_continue) UNIT_CASE(test_pipeline_in_order)
                          UNIT_CASE(test_pipeline_is_bounded) UNIT_CASE(
                              test_refusal_after_good_ones) UNIT_CASE(test_client_gone)
                              UNIT_CASE(test_stream) UNIT_CASE(test_stream_to_http10)
                                  UNIT_CASE(test_stream_buffer_is_bounded) UNIT_CASE(
                                      test_slow_head) UNIT_CASE(test_silent_connection)
                                      UNIT_CASE(test_slow_second_head)
                                          UNIT_CASE(test_slow_body)
                                              UNIT_CASE(test_idle_limit_and_long_poll)
                                                  UNIT_CASE(test_reader_that_stops)
                                                      UNIT_CASE(test_stop))
