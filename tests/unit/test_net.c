/* The front as a whole: dispatch's checks over plain loopback connections, then real
 * TLS with client certificates, the bound on connections, and the graceful stop. */
#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <openssl/pem.h>

#include "client/lib/b64.h"
#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/httpc.h"
#include "client/lib/tlsx.h"
#include "client/lib/xalloc.h"
#include "server/flow/loop.h"
#include "server/issuer/ca.h"
#include "server/net/net.h"
#include "tests/unit/wire.h"

/* ---- flows of the test ---- */

static enum flow_turn echo(struct flow *f)
{
    const struct flow_request *rq = f->rq;
    json_t *query = json_object();
    for (size_t i = 0; i < rq->query_count; i++)
        json_object_set_new(query, rq->query[i].name, json_string(rq->query[i].value));
    json_t *out = json_pack(
        "{s:s,s:s,s:i,s:s,s:s,s:o,s:O?,s:s,s:s,s:s,s:s}", "method", rq->method, "path",
        rq->path, "role", (int)rq->who.role, "name", rq->who.name, "remote", rq->remote,
        "query", query, "body", rq->body, "key", rq->idempotency_key, "if_match",
        rq->if_match, "thumbprint", rq->who.thumbprint, "last", rq->last_event_id);
    return flow_reply_json(f, 200, out);
}

static enum flow_turn param(struct flow *f)
{
    return flow_reply_json(f, 200, json_pack("{s:s}", "id", flow_param(f, "id")));
}

/* Named where a form was sent, as problem+json else. */
static enum flow_turn refuse(struct flow *f)
{
    struct err err;
    (void)err_set(&err, ERR_FORBIDDEN, "no \"%s\"", "such");
    flow_fail_as(f, "invalid_scope");
    return flow_fail(f, &err);
}

static int slow_done, poll_done;
static enum flow_turn slow_sleep(struct flow *f)
{
    flow_wait_until(f, f->now_us + 100000);
    return FLOW_WAIT;
}

static enum flow_turn slow_answer(struct flow *f)
{
    slow_done++;
    return flow_reply_json(f, 200, json_pack("{s:b}", "slow", 1));
}

static enum flow_turn poll_forever(struct flow *f)
{
    (void)f;
    return FLOW_AGAIN;
}

static void poll_ended(struct flow *f)
{
    (void)f;
    poll_done++;
}

static enum flow_turn tick(struct flow *f)
{
    int *n = f->state;
    char text[40];
    if (*n == 0)
        flow_stream_begin(f, 200, "text/event-stream");
    snprintf(text, sizeof(text), "id: %d\ndata: {}\n\n", ++*n);
    if (flow_stream_write(f, text, strlen(text)) < 0 || *n == 3)
        return FLOW_DONE;
    flow_wait_until(f, f->now_us + 10000);
    return FLOW_AGAIN;
}

static const struct flow_step echo_steps[] = {{"echo", echo}};
static const struct flow_kind echo_kind = FLOW_KIND("echo", int, echo_steps);
static const struct flow_step refuse_steps[] = {{"refuse", refuse}};
static const struct flow_kind refuse_kind = FLOW_KIND("refuse", int, refuse_steps);
static const struct flow_step param_steps[] = {{"param", param}};
static const struct flow_kind param_kind = FLOW_KIND("param", int, param_steps);
static const struct flow_step slow_steps[] = {{"sleep", slow_sleep},
                                              {"answer", slow_answer}};
static const struct flow_kind slow_kind = FLOW_KIND("slow", int, slow_steps);
static const struct flow_step poll_steps[] = {{"poll", poll_forever}};
static const struct flow_kind poll_kind =
    FLOW_KIND_POLL("poll", int, poll_steps, poll_ended);
static const struct flow_step tick_steps[] = {{"tick", tick}};
static const struct flow_kind tick_kind = FLOW_KIND_POLL("tick", int, tick_steps, NULL);

static const struct route routes[] = {
    {"GET", "/any", ROLE_ANY, &echo_kind, RATE_FREE, 0},
    {"POST", "/any", ROLE_ANY, &echo_kind, RATE_FREE, ROUTE_BODY},
    {"PUT", "/any", ROLE_ANY, &echo_kind, RATE_FREE, ROUTE_BODY_MAYBE},
    {"POST", "/form", ROLE_ANY, &echo_kind, RATE_FREE, ROUTE_BODY | ROUTE_FORM},
    {"POST", "/refuse", ROLE_ANY, &refuse_kind, RATE_FREE, ROUTE_BODY | ROUTE_FORM},
    {"GET", "/tenant", ROLE_TENANT, &echo_kind, RATE_FREE, 0},
    {"GET", "/keyed", ROLE_KEYED, &echo_kind, RATE_FREE, 0},
    {"GET", "/agent", ROLE_AGENT, &echo_kind, RATE_FREE, 0},
    {"GET", "/enroll", ROLE_ANON, &echo_kind, RATE_FREE, 0},
    {"GET", "/limited", ROLE_ANY, &echo_kind, RATE_READ, 0},
    {"GET", "/things/{id}", ROLE_ANY, &param_kind, RATE_FREE, 0},
    {"GET", "/slow", ROLE_ANY, &slow_kind, RATE_FREE, 0},
    {"GET", "/poll", ROLE_ANY, &poll_kind, RATE_FREE, 0},
    {"GET", "/events", ROLE_ANY, &tick_kind, RATE_FREE, ROUTE_EVENTS},
};

/* ---- the world's part ---- */

#define TENANT_KEY "ngk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ADMIN_KEY  "ngk_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define WRONG_KEY  "ngk_ccccccccccccccccccccccccccccccccccccccccccc"
#define NODE_URI   "spiffe://test.local/site/fukuoka/node/n1"

static char node_thumbprint[FLOW_THUMBPRINT_MAX];

static int auth_lookup(void *env, const uint8_t hash[32], struct flow_principal *ret)
{
    (void)env;
    static const struct {
        const char *key, *name;
        enum flow_role role;
    } keys[] = {{TENANT_KEY, "acme", ROLE_TENANT}, {ADMIN_KEY, "root", ROLE_ADMIN}};
    for (size_t i = 0; i < 2; i++) {
        uint8_t h[SHA256_LEN];
        digest_sha256(keys[i].key, strlen(keys[i].key), h);
        if (memcmp(h, hash, sizeof(h)) != 0)
            continue;
        ret->role = keys[i].role;
        snprintf(ret->name, sizeof(ret->name), "%s", keys[i].name);
        snprintf(ret->key_id, sizeof(ret->key_id), "key-%zu", i);
        return 0;
    }
    return -1;
}

static int agent_lookup(void *env, const char *uri, const char *thumbprint,
                        struct flow_principal *ret)
{
    (void)env;
    if (strcmp(uri, NODE_URI) != 0 || strcmp(thumbprint, node_thumbprint) != 0)
        return -1;
    ret->role = ROLE_AGENT;
    snprintf(ret->name, sizeof(ret->name), "n1");
    snprintf(ret->node_id, sizeof(ret->node_id), "1");
    snprintf(ret->thumbprint, sizeof(ret->thumbprint), "%s", thumbprint);
    return 0;
}

/* ---- fixture ---- */

struct fixture {
    struct event_base *base;
    struct flow_loop *loop;
    struct flow_runner *runner;
    struct net *net;
    struct wire w;
    bool stopped;
};

static const struct bucket_rate rates[RATE_CLASSES] = {
    [RATE_READ] = {100000, 3},
    [RATE_SIGNIN] = {1000000, 4},
};

static void open_with(struct fixture *f, SSL_CTX *ctx, size_t max_connections)
{
    static const char *const addresses[] = {"127.0.0.1:0", "[::1]:0"};
    static const struct flow_auth auth = {NULL, auth_lookup, agent_lookup};
    signal(SIGPIPE, SIG_IGN);
    slow_done = poll_done = 0;
    *f = (struct fixture){.base = event_base_new()};
    f->w.fd = -1;
    f->w.base = f->base;
    f->loop = flow_loop_new(f->base);
    struct flow_runner_opts runner_opts = {.kick = flow_loop_kick, .kick_arg = f->loop};
    f->runner = flow_runner_new(&runner_opts);
    flow_loop_bind(f->loop, f->runner);
    struct net_opts opts = {
        .base = f->base,
        .runner = f->runner,
        .auth = &auth,
        .routes = routes,
        .route_count = sizeof(routes) / sizeof(routes[0]),
        .ctx = ctx,
        .addresses = addresses,
        .address_count = 2,
        .max_connections = max_connections,
        .rates = rates,
        .write_us = 40000, /* shorter than /slow: must not count while waiting */
    };
    struct err err;
    ck_assert_msg(net_new(&opts, &f->net, &err) == 0, "%s", err.text);
}

static void dial(struct fixture *f, struct wire *w)
{
    struct sockaddr_in sa = {.sin_family = AF_INET};
    const char *bound = net_address(f->net, 0);
    ck_assert_int_eq(strncmp(bound, "127.0.0.1:", 10), 0);
    sa.sin_port = htons((uint16_t)strtol(bound + 10, NULL, 10));
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *w = (struct wire){.base = f->base, .fd = socket(AF_INET, SOCK_STREAM, 0)};
    ck_assert_int_eq(connect(w->fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
}

static void close_fixture(struct fixture *f)
{
    wire_done(&f->w);
    net_free(f->net);
    flow_runner_free(f->runner);
    flow_loop_free(f->loop);
    event_base_free(f->base);
}

/* ---- dispatch ---- */

#define KEY   "Authorization: Bearer "
#define JS    "Content-Type: application/json\r\n"
#define FORM  "Content-Type: application/x-www-form-urlencoded\r\n"
#define OAUTH "{\"error\":\""
static const struct {
    const char *line, *headers, *body;
    int status;
    const char *has;
} asks[] = {
    {"GET /any", "", "", 200, "\"role\":1"},
    {"GET /any?b=%E6%9D%B1&a=1%2b", "", "", 200, "\"a\":\"1+\""},
    {"GET /any?a=1&a=2", "", "", 400, "given twice"},
    {"GET /any?a=%zz", "", "", 400, "percent-encoding"},
    {"GET /nowhere", "", "", 404, "\"code\":\"not_found\""},
    {"GET /any/", "", "", 404, "no such path"},
    {"DELETE /any", "", "", 405, "Allow: GET, HEAD, POST, PUT\r\n"},
    {"GET /things/a%20b", "", "", 200, "{\"id\":\"a b\"}"},
    {"GET /things/a%2Fb", "", "", 400, "encoded slash"},
    /* who */
    {"GET /tenant", "", "", 401, "WWW-Authenticate: Bearer realm=\"neargpu\"\r\n"},
    {"GET /tenant", KEY TENANT_KEY "\r\n", "", 200, "\"name\":\"acme\""},
    {"GET /tenant", "Authorization: bearer " TENANT_KEY "\r\n", "", 200, "acme"},
    {"GET /tenant", KEY ADMIN_KEY "\r\n", "", 403, "\"code\":\"forbidden\""},
    {"GET /keyed", KEY ADMIN_KEY "\r\n", "", 200, "\"role\":8"},
    {"GET /any", KEY ADMIN_KEY "\r\n", "", 200, "\"role\":8"},
    {"GET /enroll", "", "", 200, "\"role\":1"},
    {"GET /enroll", KEY TENANT_KEY "\r\n", "", 200, "\"role\":2"},
    {"GET /any", KEY WRONG_KEY "\r\n", "", 401, "not valid"},
    {"GET /tenant", KEY TENANT_KEY "x\r\n", "", 401, "not valid"},
    {"GET /tenant", "Authorization: Basic abc\r\n", "", 401, "not valid"},
    {"GET /tenant", "Authorization: Bearer ngk_\r\n", "", 401, "not valid"},
    {"GET /agent", "", "", 401, "client certificate"},
    {"GET /agent", KEY TENANT_KEY "\r\n", "", 403, "forbidden"},
    /* media */
    {"GET /any", "Accept: */*\r\n", "", 200, ""},
    {"GET /any", "Accept: application/*;q=0.5\r\n", "", 200, ""},
    {"GET /any", "Accept: text/html, application/json;q=0.9\r\n", "", 200, ""},
    {"GET /any", "Accept: text/html\r\nAccept: application/json\r\n", "", 200, ""},
    {"GET /any", "Accept: text/html\r\n", "", 406, "\"status\":406"},
    {"GET /any", "Accept: application/jsonp\r\n", "", 406, ""},
    {"GET /events", "Accept: application/json\r\n", "", 406, "text/event-stream"},
    /* bodies */
    {"POST /any", JS, "{\"a\":1}", 200, "\"body\":{\"a\":1}"},
    {"POST /any", "Content-Type: Application/JSON; charset=UTF-8\r\n", "{}", 200, ""},
    {"POST /any", "", "{}", 415, "\"status\":415"},
    {"POST /any", "Content-Type: text/plain\r\n", "{}", 415, ""},
    {"POST /any", "Content-Type: application/jsonx\r\n", "{}", 415, ""},
    {"POST /any", "Content-Type: application/json; charset=latin1\r\n", "{}", 415, ""},
    {"POST /any", JS, "", 400, "needed as body"},
    {"POST /any", JS, "[1]", 400, ""},
    {"POST /any", JS, "{\"a\":1,\"a\":2}", 400, "\"code\":\"bad_request\""},
    {"POST /any", JS, "{\"a\":1} x", 400, ""},
    {"POST /any", JS, "{\"a\":", 400, ""},
    {"PUT /any", JS, "", 200, "\"body\":null"},
    {"PUT /any", JS, "{\"b\":2}", 200, "\"body\":{\"b\":2}"},
    {"GET /any", JS, "{}", 400, "takes no body"},
    /* forms: where the route takes them, and then in OAuth's words */
    {"POST /any", FORM, "a=1", 415, "application/json\""},
    {"POST /form", JS, "{\"a\":1}", 200, "\"body\":{\"a\":1}"},
    {"POST /form", JS, "{", 400, "\"code\":\"bad_request\""},
    {"POST /form", "Content-Type: text/plain\r\n", "a=1", 415, "x-www-form-urlencoded"},
    {"POST /form", FORM, "a=1&b=c+d", 200, "\"body\":{\"a\":[\"1\"],\"b\":[\"c d\"]}"},
    {"POST /form", "Content-Type: Application/X-WWW-Form-Urlencoded; charset=UTF-8\r\n",
     "a=1", 200, "\"a\":[\"1\"]"},
    {"POST /form", "Content-Type: application/x-www-form-urlencoded-x\r\n", "a=1", 415,
     ""},
    {"POST /form", FORM, "a=%0", 400, OAUTH "invalid_request\""},
    {"POST /form", FORM, "", 400, OAUTH "invalid_request\""},
    {"POST /form?a=%0", FORM, "a=1", 400, OAUTH "invalid_request\""},
    {"POST /form", FORM KEY WRONG_KEY "\r\n", "a=1", 401, OAUTH "invalid_client\""},
    {"POST /form", FORM KEY WRONG_KEY "\r\n", "a=1", 401, "WWW-Authenticate: Bearer "},
    {"POST /form", FORM "Authorization: Basic YTpi\r\n", "a=1", 401,
     OAUTH "invalid_client\""},
    {"POST /form", FORM "Accept: text/html\r\n", "a=1", 400, OAUTH "invalid_request\""},
    {"POST /refuse", JS, "{}", 403, "\"code\":\"forbidden\""},
    {"POST /refuse", FORM, "a=1", 400,
     OAUTH "invalid_scope\",\"error_description\":\"no 'such'\"}"},
    {"POST /refuse", FORM, "a=1", 400, "Cache-Control: no-store\r\n"},
    {"GET /form", FORM, "a=1", 405, "\"code\":\"method\""},
    /* keys and conditions */
    {"POST /any", JS "Idempotency-Key: a_B.9:-\r\n", "{}", 200, "\"key\":\"a_B.9:-\""},
    {"POST /any", JS "Idempotency-Key: \"quoted\"\r\n", "{}", 200,
     "\"key\":\"quoted\""},
    {"POST /any", JS "Idempotency-Key: a b\r\n", "{}", 400, "Idempotency-Key"},
    {"POST /any", JS "Idempotency-Key:\r\n", "{}", 400, "Idempotency-Key"},
    {"POST /any",
     JS "Idempotency-Key: "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
     "{}", 400, "Idempotency-Key"},
    {"GET /any", "If-Match: \"17\"\r\nLast-Event-ID: 42\r\n", "", 200,
     "\"if_match\":\"17\""},
    {"GET /any",
     "If-Match: "
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
     "", 400, "if-match"},
    {"GET /any", "Last-Event-ID: \xff\r\n", "", 400, "last-event-id"},
};

START_TEST(test_dispatch)
{
    struct fixture f;
    open_with(&f, NULL, 0);
    dial(&f, &f.w);
    struct strbuf b = STRBUF_INIT;
    strbuf_addf(&b, "%s HTTP/1.1\r\nHost: x\r\n%s", asks[_i].line, asks[_i].headers);
    if (asks[_i].body[0] != '\0')
        strbuf_addf(&b, "Content-Length: %zu\r\n", strlen(asks[_i].body));
    strbuf_addf(&b, "\r\n%sGET /things/end HTTP/1.1\r\nHost: x\r\n\r\n", asks[_i].body);
    wire_sends(&f.w, strbuf_str(&b));
    strbuf_done(&b);
    /* no refusal here costs the connection */
    ck_assert_msg(wire_until(&f.w, "{\"id\":\"end\"}", 3000), "%s",
                  strbuf_str(&f.w.got));
    ck_assert_msg(wire_status(&f.w) == asks[_i].status, "%s %s: %s", asks[_i].line,
                  asks[_i].headers, strbuf_str(&f.w.got));
    ck_assert_msg(strstr(strbuf_str(&f.w.got), asks[_i].has) != NULL, "%s: %s",
                  asks[_i].line, strbuf_str(&f.w.got));
    if (asks[_i].status >= 400) {
        bool oauth = strstr(strbuf_str(&f.w.got), OAUTH) != NULL;
        ck_assert_ptr_nonnull(
            strstr(strbuf_str(&f.w.got),
                   oauth ? "Content-Type: application/json\r\n"
                         : "Content-Type: application/problem+json\r\n"));
    }
    ck_assert_ptr_null(strstr(strbuf_str(&f.w.got), "ngk_"));
    close_fixture(&f);
}
END_TEST

static void ask_n(struct fixture *f, const char *request, int n, const char *status)
{
    strbuf_reset(&f->w.got);
    for (int i = 0; i < n; i++) {
        wire_sends(&f->w, request);
        int64_t end = wire_ms() + 3000;
        while (wire_count(&f->w, "HTTP/1.1 ") <= i && wire_ms() < end)
            wire_turn(&f->w);
    }
    ck_assert_msg(wire_count(&f->w, status) == n, "%s: %s", status,
                  strbuf_str(&f->w.got));
}

START_TEST(test_rates)
{
    struct fixture f;
    open_with(&f, NULL, 0);
    dial(&f, &f.w);
    const char *plain = "GET /limited HTTP/1.1\r\nHost: x\r\n\r\n";
    const char *keyed =
        "GET /limited HTTP/1.1\r\nHost: x\r\n" KEY TENANT_KEY "\r\n\r\n";
    const char *wrong = "GET /any HTTP/1.1\r\nHost: x\r\n" KEY WRONG_KEY "\r\n\r\n";
    ask_n(&f, plain, 3, "HTTP/1.1 200 ");
    ask_n(&f, plain, 1, "HTTP/1.1 429 ");
    ck_assert_ptr_nonnull(strstr(strbuf_str(&f.w.got), "\r\nRetry-After: 1\r\n"));
    ck_assert_ptr_nonnull(strstr(strbuf_str(&f.w.got), "\"code\":\"rate_limited\""));
    ask_n(&f, keyed, 3, "HTTP/1.1 200 "); /* a key has a bucket of its own */
    ask_n(&f, wrong, 4, "HTTP/1.1 401 ");
    ask_n(&f, wrong, 1, "HTTP/1.1 429 "); /* nobody tries keys for long */
    wire_pass(&f.w, 150);
    ask_n(&f, plain, 1, "HTTP/1.1 200 ");
    struct net_stats st;
    net_stats(f.net, &st);
    ck_assert_uint_eq(st.dispatch.limited, 2);
    ck_assert_uint_eq(st.dispatch.unauthenticated, 4);
    ck_assert_uint_eq(st.http.replies[2], 7);
    ck_assert_uint_eq(st.http.replies[4], 6);
    close_fixture(&f);
}
END_TEST

START_TEST(test_events)
{
    struct fixture f;
    open_with(&f, NULL, 0);
    dial(&f, &f.w);
    wire_sends(&f.w, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n"
                     "GET /things/end HTTP/1.1\r\nHost: x\r\n\r\n");
    ck_assert(wire_until(&f.w, "{\"id\":\"end\"}", 3000));
    ck_assert_ptr_nonnull(strstr(strbuf_str(&f.w.got), "id: 3\ndata: {}\n\n"));
    ck_assert_ptr_nonnull(
        strstr(strbuf_str(&f.w.got), "Content-Type: text/event-stream\r\n"));
    close_fixture(&f);
}
END_TEST

/* A client that leaves: the long poll ends, the other flow runs on. */
START_TEST(test_client_leaves)
{
    struct fixture f;
    open_with(&f, NULL, 0);
    dial(&f, &f.w);
    wire_sends(&f.w, "GET /poll HTTP/1.1\r\nHost: x\r\n\r\n"
                     "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    wire_pass(&f.w, 30);
    close(f.w.fd);
    f.w.fd = -1;
    wire_pass(&f.w, 30);
    ck_assert_int_eq(poll_done, 1);
    ck_assert_int_eq(slow_done, 0);
    wire_pass(&f.w, 150);
    ck_assert_int_eq(slow_done, 1);
    struct flow_stats st;
    flow_runner_stats(f.runner, &st);
    ck_assert_uint_eq(st.live, 0);
    close_fixture(&f);
}
END_TEST

START_TEST(test_connections_are_bounded)
{
    struct fixture f;
    struct wire w[3];
    open_with(&f, NULL, 2);
    for (int i = 0; i < 3; i++) {
        dial(&f, &w[i]);
        wire_sends(&w[i], "GET /any HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    ck_assert(wire_until(&w[0], "\"role\":1", 3000));
    ck_assert(wire_until(&w[1], "\"role\":1", 3000));
    ck_assert(!wire_until(&w[2], "\"role\":1", 100)); /* waits in the kernel's queue */
    wire_done(&w[0]);
    ck_assert(wire_until(&w[2], "\"role\":1", 3000));
    wire_done(&w[1]);
    wire_done(&w[2]);
    close_fixture(&f);
}
END_TEST

static void on_stopped(void *arg)
{
    struct fixture *f = arg;
    f->stopped = true;
}

START_TEST(test_graceful_stop)
{
    struct fixture f;
    struct wire idle;
    open_with(&f, NULL, 0);
    dial(&f, &f.w);
    dial(&f, &idle);
    wire_sends(&f.w, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    wire_pass(&f.w, 20);
    net_stop(f.net, on_stopped, &f);
    ck_assert(wire_until_closed(&idle, 1000));
    ck_assert(!f.stopped);
    ck_assert(wire_until(&f.w, "{\"slow\":true}", 3000));
    ck_assert(wire_until_closed(&f.w, 3000));
    wire_done(&f.w);
    for (int i = 0; i < 500 && !f.stopped; i++)
        wire_pass(&f.w, 1);
    ck_assert(f.stopped);
    wire_done(&idle);
    close_fixture(&f);
}
END_TEST

START_TEST(test_stop_with_nobody_there)
{
    struct fixture f;
    open_with(&f, NULL, 0);
    net_stop(f.net, on_stopped, &f);
    for (int i = 0; i < 500 && !f.stopped; i++)
        wire_pass(&f.w, 1);
    ck_assert(f.stopped);
    close_fixture(&f);
}
END_TEST

START_TEST(test_address_in_use)
{
    struct fixture f;
    open_with(&f, NULL, 0);
    const char *taken[] = {net_address(f.net, 0)};
    ck_assert_int_eq(strncmp(net_address(f.net, 1), "[::1]:", 6), 0);
    static const char *const bad[] = {"localhost", "nohost.invalid:1", "127.0.0.1:x"};
    struct listen_opts opts = {.base = f.base, .addresses = taken, .address_count = 1};
    struct listener *l;
    struct err err;
    ck_assert_int_eq(listener_new(&opts, &l, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, taken[0]));
    for (size_t i = 0; i < 3; i++) {
        opts.addresses = &bad[i];
        ck_assert_int_eq(listener_new(&opts, &l, &err), -1);
        ck_assert_int_eq(err.code, ERR_USAGE);
    }
    close_fixture(&f);
}
END_TEST

/* ---- TLS ---- */

struct pki {
    char dir[64], ca_file[96], cert[96], key[96], node_cert[96], node_key[96];
    char other_cert[96], other_key[96];
    SSL_CTX *ctx;
};

static void make_node(struct pki *p, struct ca *ca, const char *uri, const char *cert,
                      const char *key)
{
    char *key_pem, *csr_pem;
    struct ca_agent_cert made;
    struct err err;
    (void)p;
    ck_assert_int_eq(tlsx_make_csr(uri, &key_pem, &csr_pem, &err), 0);
    ck_assert_msg(ca_sign_agent(ca, csr_pem, uri, clock_now_us(), &made, &err) == 0,
                  "%s", err.text);
    FILE *out = fopen(cert, "w");
    fputs(made.pem, out);
    fclose(out);
    out = fopen(key, "w");
    fchmod(fileno(out), 0600);
    fputs(key_pem, out);
    fclose(out);
    free(key_pem);
    free(csr_pem);
    ca_agent_cert_done(&made);
}

static void make_pki(struct pki *p)
{
    static const char *const names[] = {"127.0.0.1"};
    struct ca *ca;
    struct err err;
    snprintf(p->dir, sizeof(p->dir), "/tmp/neargpu-test-net-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(p->dir));
#define IN_DIR(field, name) snprintf(p->field, sizeof(p->field), "%s/" name, p->dir)
    IN_DIR(ca_file, "ca.pem");
    IN_DIR(cert, "server.pem");
    IN_DIR(key, "server.key");
    IN_DIR(node_cert, "node.pem");
    IN_DIR(node_key, "node.key");
    IN_DIR(other_cert, "other.pem");
    IN_DIR(other_key, "other.key");
    ck_assert_msg(ca_open(p->dir, "test.local", clock_now_us(), &ca, &err) == 0, "%s",
                  err.text);
    ck_assert_msg(ca_ensure_server(ca, names, 1, clock_now_us(), &err) == 0, "%s",
                  err.text);
    make_node(p, ca, NODE_URI, p->node_cert, p->node_key);
    make_node(p, ca, NODE_URI, p->other_cert, p->other_key);
    ca_free(ca);
    struct tlsx_files files = {p->ca_file, p->cert, p->key};
    ck_assert_msg(tlsx_server_ctx(&files, true, &p->ctx, &err) == 0, "%s", err.text);
    FILE *in = fopen(p->node_cert, "r");
    X509 *x = PEM_read_X509(in, NULL, NULL, NULL);
    unsigned char *der = NULL;
    int len = i2d_X509(x, &der);
    uint8_t hash[SHA256_LEN];
    digest_sha256(der, (size_t)len, hash);
    b64_encode(hash, sizeof(hash), node_thumbprint);
    OPENSSL_free(der);
    X509_free(x);
    fclose(in);
}

static void drop_pki(struct pki *p)
{
    const char *files[] = {p->ca_file,  p->cert,       p->key,      p->node_cert,
                           p->node_key, p->other_cert, p->other_key};
    char ca_key[96];
    SSL_CTX_free(p->ctx);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        unlink(files[i]);
    snprintf(ca_key, sizeof(ca_key), "%s/ca.key", p->dir);
    unlink(ca_key);
    ck_assert_int_eq(rmdir(p->dir), 0);
}

struct answer {
    bool there;
    int status, role;
    char thumbprint[FLOW_THUMBPRINT_MAX];
};

static void on_answer(void *arg, const struct httpc_reply *reply, const struct err *err)
{
    struct answer *a = arg;
    a->there = true;
    a->status = reply->status;
    if (err != NULL)
        return;
    const char *thumbprint;
    if (json_object_get(reply->body, "slow") != NULL)
        return;
    ck_assert_int_eq(json_unpack(reply->body, "{s:i,s:s}", "role", &a->role,
                                 "thumbprint", &thumbprint),
                     0);
    snprintf(a->thumbprint, sizeof(a->thumbprint), "%s", thumbprint);
}

static struct answer call(struct fixture *f, struct pki *p, const char *cert,
                          const char *key, const char *path)
{
    char url[128];
    struct httpc *h;
    struct err err;
    struct answer a = {0};
    snprintf(url, sizeof(url), "https://%s", net_address(f->net, 0));
    struct httpc_conf conf = {.base_url = url,
                              .ca_file = p->ca_file,
                              .cert_file = cert,
                              .key_file = key,
                              .user_agent = "test"};
    ck_assert_msg(httpc_new(&conf, f->base, &h, &err) == 0, "%s", err.text);
    for (int i = 0; i < 2; i++) { /* the second on the kept connection */
        struct httpc_request rq = {
            .method = "GET", .path = path, .timeout_us = 5000000};
        a = (struct answer){0};
        httpc_start(h, &rq, on_answer, &a);
        for (int n = 0; n < 5000 && !a.there; n++)
            wire_pass(&f->w, 1);
        ck_assert(a.there);
    }
    httpc_free(h);
    return a;
}

START_TEST(test_tls_and_client_certificates)
{
    struct pki p;
    struct fixture f;
    make_pki(&p);
    open_with(&f, p.ctx, 0);
    struct answer a = call(&f, &p, NULL, NULL, "/any");
    ck_assert_int_eq(a.status, 200);
    ck_assert_int_eq(a.role, ROLE_ANON);
    a = call(&f, &p, p.node_cert, p.node_key, "/agent");
    ck_assert_int_eq(a.status, 200);
    ck_assert_int_eq(a.role, ROLE_AGENT);
    ck_assert_str_eq(a.thumbprint, node_thumbprint);
    a = call(&f, &p, p.node_cert, p.node_key, "/slow");
    ck_assert_int_eq(a.status, 200);
    /* the right name in a certificate the market does not know (any more) */
    a = call(&f, &p, p.other_cert, p.other_key, "/agent");
    ck_assert_int_eq(a.status, 401);
    a = call(&f, &p, p.other_cert, p.other_key, "/any");
    ck_assert_int_eq(a.role, ROLE_ANON);
    struct net_stats st;
    net_stats(f.net, &st);
    ck_assert_uint_eq(st.http.requests, 10);
    ck_assert_uint_eq(st.http.accepted, 5); /* kept alive */
    close_fixture(&f);
    drop_pki(&p);
}
END_TEST

/* Plain text to the TLS port, and a TLS connection that says nothing. */
START_TEST(test_tls_strangers)
{
    struct pki p;
    struct fixture f;
    make_pki(&p);
    open_with(&f, p.ctx, 0);
    dial(&f, &f.w);
    wire_sends(&f.w, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    ck_assert(wire_until_closed(&f.w, 3000));
    ck_assert_int_eq(wire_status(&f.w), 0);
    close_fixture(&f);
    drop_pki(&p);
}
END_TEST

UNIT_MAIN("net", tcase_add_loop_test(tc, test_dispatch, 0,
                                     (int)(sizeof(asks) / sizeof(asks[0])));
          UNIT_CASE(test_rates) UNIT_CASE(test_events) UNIT_CASE(test_client_leaves)
              UNIT_CASE(test_connections_are_bounded) UNIT_CASE(test_graceful_stop)
                  UNIT_CASE(test_stop_with_nobody_there) UNIT_CASE(test_address_in_use)
                      UNIT_CASE(test_tls_and_client_certificates)
                          UNIT_CASE(test_tls_strangers))
