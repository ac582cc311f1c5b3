/* test_httpc: the HTTPS client against a real TLS server on loopback that answers,
 * refuses, stalls, breaks off and lies. */
#include <event2/event.h>
#include <signal.h>
#include <sys/stat.h>

#include "client/lib/clock.h"
#include "client/lib/httpc.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/unit/tls_kit.h"
#include "tests/unit/unit.h"

static struct tls_kit kit;
static struct tls_server server;
static char base_url[60];

/* One request's head and body; false at the end of the connection. */
static bool read_request(SSL *ssl, char *buf, size_t cap)
{
    size_t len = 0, want = 0;
    char *end = NULL;
    while (end == NULL || len < want) {
        int n = SSL_read(ssl, buf + len, (int)(cap - 1 - len));
        if (n <= 0)
            return false;
        len += (size_t)n;
        buf[len] = '\0';
        if (end == NULL && (end = strstr(buf, "\r\n\r\n")) != NULL) {
            const char *cl = strstr(buf, "Content-Length: ");
            want =
                (size_t)(end - buf) + 4 + (cl == NULL ? 0 : strtoul(cl + 16, NULL, 10));
        }
    }
    return true;
}

static void reply(SSL *ssl, const char *status, const char *headers, const char *body)
{
    char text[4096];
    int n =
        snprintf(text, sizeof(text), "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n%s",
                 status, strlen(body), headers, body);
    SSL_write(ssl, text, n);
}

/* What the request looked like, as JSON. */
static void reply_echo(SSL *ssl, const char *request, int connection)
{
    char uri[100], body[2048];
    tlsx_peer_uri(ssl, uri, sizeof(uri));
    const char *payload = strstr(request, "\r\n\r\n") + 4;
    json_t *v = json_pack(
        "{s:i, s:s, s:s, s:s%, s:b, s:b, s:b}", "connection", connection, "body",
        payload, "uri", uri, "line", request, strcspn(request, "\r"), "bearer",
        strstr(request, "\r\nAuthorization: Bearer ngk_x\r\n") != NULL, "key",
        strstr(request, "\r\nIdempotency-Key: k1\r\n") != NULL, "json",
        strstr(request, "\r\nContent-Type: application/json\r\n") != NULL);
    char *text = json_dumps(v, 0);
    snprintf(body, sizeof(body), "%s", text);
    free(text);
    json_decref(v);
    reply(ssl, "200 OK", "Content-Type: application/json\r\n", body);
}

#define PROBLEM "Content-Type: application/problem+json\r\n"

static const struct {
    const char *path, *status, *headers, *body;
} answers[] = {
    {"/empty", "204 No Content", "", ""},
    {"/array", "200 OK", "", "[1,2]"},
    {"/text", "200 OK", "Content-Type: text/plain\r\n", "plain"},
    {"/created", "201 Created", "", "{\"id\":1}"},
    {"/funds", "402 Payment Required", PROBLEM,
     "{\"type\":\"about:blank\",\"title\":\"t\",\"status\":402,\"detail\":\"wallet has "
     "3 "
     "JPY\\n\\u001b[31m\",\"code\":\"funds\"}"},
    {"/reused", "422 Unprocessable", PROBLEM,
     "{\"title\":\"other body\",\"code\":\"key_reused\"}"},
    {"/new-code", "404 Not Found", PROBLEM,
     "{\"detail\":\"d\",\"code\":\"brand_new\"}"},
    {"/none-code", "404 Not Found", PROBLEM, "{\"detail\":\"d\",\"code\":\"none\"}"},
    {"/limited", "429 Too Many Requests", PROBLEM "Retry-After: 7\r\n",
     "{\"code\":\"rate_limited\"}"},
    {"/broken", "500 Internal Server Error", "", "<html>"},
    {"/gateway", "502 Bad Gateway", "", ""},
    {"/moved", "302 Found", "Location: /array\r\n", ""},
    {"/deep", "200 OK", "",
     "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1"},
};

/* True when the connection may go on. */
static bool answer(SSL *ssl, const char *request, int connection)
{
    char path[60] = "";
    sscanf(request, "%*s %59s", path);
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
        if (strcmp(path, answers[i].path) == 0) {
            reply(ssl, answers[i].status, answers[i].headers, answers[i].body);
            return true;
        }
    if (strcmp(path, "/drop") == 0)
        return false;
    if (strcmp(path, "/half") == 0) {
        static const char half[] =
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\"";
        SSL_write(ssl, half, sizeof(half) - 1);
        return false;
    }
    if (strcmp(path, "/huge") == 0) {
        static const char head[] =
            "HTTP/1.1 200 OK\r\nContent-Length: 99000000\r\n\r\n";
        static char block[65536];
        SSL_write(ssl, head, sizeof(head) - 1);
        for (int i = 0; i < 1500; i++)
            if (SSL_write(ssl, block, sizeof(block)) <= 0)
                return false;
        return false;
    }
    if (strcmp(path, "/stall") == 0) {
        char byte;
        SSL_read(ssl, &byte, 1); /* until the client goes */
        return false;
    }
    reply_echo(ssl, request, connection);
    return true;
}

static void serve(struct tls_server *s, SSL *ssl, int connection)
{
    char request[8192];
    while (read_request(ssl, request, sizeof(request))) {
        s->requests++;
        if (!answer(ssl, request, connection))
            return;
    }
}

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
    tls_kit_init(&kit);
    tls_kit_issue(&kit, "server", "IP:127.0.0.1");
    tls_kit_issue(&kit, "node", "URI:spiffe://m/site/s/node/n");
    struct tlsx_files f = {tls_kit_path(&kit, "ca.pem"),
                           tls_kit_path(&kit, "server.pem"),
                           tls_kit_path(&kit, "server.key")};
    SSL_CTX *ctx;
    ck_assert_int_eq(tlsx_server_ctx(&f, true, &ctx, NULL), 0);
    tls_server_start(&server, ctx, serve);
    snprintf(base_url, sizeof(base_url), "https://127.0.0.1:%d", server.port);
}

static void teardown(void)
{
    tls_server_stop(&server);
    tls_kit_done(&kit);
}

static struct httpc *client(const char *url, struct event_base *base)
{
    struct httpc_conf conf = {.base_url = url,
                              .ca_file = tls_kit_path(&kit, "ca.pem"),
                              .bearer = "ngk_x",
                              .user_agent = "test"};
    struct httpc *h;
    struct err err;
    ck_assert_msg(httpc_new(&conf, base, &h, &err) == 0, "%s", err.text);
    return h;
}

START_TEST(test_call)
{
    struct httpc *h = client(base_url, NULL);
    json_t *body = json_pack("{s:i}", "n", 1);
    struct httpc_request rq = {
        .method = "POST", .path = "/echo?x=1", .body = body, .idempotency_key = "k1"};
    struct httpc_reply r;
    struct err err;
    ck_assert_msg(httpc_call(h, &rq, &r, &err) == 0, "%s", err.text);
    ck_assert_int_eq(r.status, 200);
    const char *line, *echoed, *uri;
    int connection, bearer, key, json;
    ck_assert_int_eq(json_unpack(r.body, "{s:s, s:s, s:s, s:i, s:b, s:b, s:b}", "line",
                                 &line, "body", &echoed, "uri", &uri, "connection",
                                 &connection, "bearer", &bearer, "key", &key, "json",
                                 &json),
                     0);
    ck_assert_str_eq(line, "POST /echo?x=1 HTTP/1.1");
    ck_assert_str_eq(echoed, "{\"n\":1}");
    ck_assert_str_eq(uri, "");
    ck_assert(bearer && key && json && connection == 1);
    httpc_reply_done(&r);
    json_decref(body);
    /* Other methods, the same connection. */
    static const char *const methods[] = {"GET", "DELETE", "PATCH", "POST"};
    for (size_t i = 0; i < 4; i++) {
        rq = (struct httpc_request){.method = methods[i], .path = "/echo"};
        ck_assert_msg(httpc_call(h, &rq, &r, &err) == 0, "%s", err.text);
        line = json_string_value(json_object_get(r.body, "line"));
        ck_assert_int_eq(strncmp(line, methods[i], strlen(methods[i])), 0);
        ck_assert(!json_is_true(json_object_get(r.body, "key")));
        ck_assert_int_eq(json_integer_value(json_object_get(r.body, "connection")), 1);
        httpc_reply_done(&r);
    }
    httpc_free(h);
}
END_TEST

START_TEST(test_replies)
{
    static const struct {
        const char *path;
        int status;
        enum err_code code; /* ERR_NONE: a good reply */
        const char *text;
        bool json;
        int64_t retry;
    } table[] = {
        {"/empty", 204, ERR_NONE, NULL, false, 0},
        {"/array", 200, ERR_NONE, NULL, true, 0},
        {"/text", 200, ERR_NONE, NULL, false, 0},
        {"/created", 201, ERR_NONE, NULL, true, 0},
        {"/deep", 200, ERR_NONE, NULL, false, 0},
        {"/funds", 402, ERR_FUNDS, "wallet has 3 JPY  [31m", true, 0},
        {"/reused", 422, ERR_KEY_REUSED, "other body", true, 0},
        {"/new-code", 404, ERR_NOT_FOUND, "d", true, 0},
        {"/none-code", 404, ERR_NOT_FOUND, "d", true, 0},
        {"/limited", 429, ERR_RATE_LIMITED, "the server answered with HTTP status 429",
         true, 7},
        {"/broken", 500, ERR_INTERNAL, "the server answered with HTTP status 500",
         false, 0},
        {"/gateway", 502, ERR_UNKNOWN, "the server answered with HTTP status 502",
         false, 0},
        {"/moved", 302, ERR_INTERNAL, "the server answered with HTTP status 302", false,
         0},
    };
    struct httpc *h = client(base_url, NULL);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct httpc_request rq = {.method = "POST", .path = table[i].path};
        struct httpc_reply r;
        struct err err = {0};
        int rc = httpc_call(h, &rq, &r, &err);
        ck_assert_msg((rc == 0) == (table[i].code == ERR_NONE), "%s: %s", table[i].path,
                      err.text);
        ck_assert_int_eq(r.status, table[i].status);
        ck_assert_msg((r.body != NULL) == table[i].json, "%s", table[i].path);
        ck_assert_int_eq(r.retry_after_s, table[i].retry);
        ck_assert_ptr_nonnull(r.text);
        if (rc != 0) {
            ck_assert_msg(err.code == table[i].code, "%s: code %d", table[i].path,
                          (int)err.code);
            ck_assert_str_eq(err.text, table[i].text);
        }
        httpc_reply_done(&r);
    }
    ck_assert_int_eq(server.connections, 1);
    httpc_free(h);
}
END_TEST

static enum err_code failing(struct httpc *h, const char *method, const char *path,
                             int64_t timeout_us)
{
    struct httpc_request rq = {
        .method = method, .path = path, .timeout_us = timeout_us};
    struct httpc_reply r;
    struct err err = {0};
    ck_assert_msg(httpc_call(h, &rq, &r, &err) == -1, "%s %s", method, path);
    ck_assert_int_eq(r.status, 0);
    ck_assert_int_gt((int)strlen(err.text), 0);
    httpc_reply_done(&r);
    return err.code;
}

/* The line between "nothing was done" and "nobody knows". */
START_TEST(test_outcomes)
{
    struct httpc *h = client(base_url, NULL);
    ck_assert_int_eq(failing(h, "POST", "/drop", 0), ERR_UNKNOWN);
    ck_assert_int_eq(failing(h, "POST", "/half", 0), ERR_UNKNOWN);
    ck_assert_int_eq(failing(h, "DELETE", "/drop", 0), ERR_UNKNOWN);
    ck_assert_int_eq(failing(h, "GET", "/drop", 0), ERR_UNREACHABLE);
    int64_t from = clock_boot_us();
    ck_assert_int_eq(failing(h, "POST", "/stall", 200000), ERR_UNKNOWN);
    ck_assert_int_eq(failing(h, "GET", "/stall", 200000), ERR_UNREACHABLE);
    ck_assert_int_lt(clock_boot_us() - from, 5 * US_PER_S);
    ck_assert_int_eq(failing(h, "GET", "/huge", 0), ERR_TOO_LARGE);
    ck_assert_int_eq(failing(h, "POST", "no-slash", 0), ERR_BAD_REQUEST);
    ck_assert_int_eq(failing(h, "POST", "/a\r\nX: y", 0), ERR_BAD_REQUEST);
    httpc_free(h);
    server.drop_before_tls = true;
    h = client(base_url, NULL);
    ck_assert_int_eq(failing(h, "POST", "/echo", 0), ERR_UNREACHABLE);
    httpc_free(h);
}
END_TEST

START_TEST(test_unreachable)
{
    /* A port that was just free, a name that is not in the certificate, another CA. */
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    char url[60];
    snprintf(url, sizeof(url), "https://127.0.0.1:%d", ntohs(a.sin_port));
    struct httpc *h = client(url, NULL);
    ck_assert_int_eq(failing(h, "POST", "/echo", 0), ERR_UNREACHABLE);
    httpc_free(h);
    close(fd);
    snprintf(url, sizeof(url), "https://localhost:%d", server.port);
    h = client(url, NULL);
    ck_assert_int_eq(failing(h, "POST", "/echo", 0), ERR_UNREACHABLE);
    httpc_free(h);
    struct tls_kit other;
    tls_kit_init(&other);
    struct httpc_conf conf = {.base_url = base_url,
                              .ca_file = tls_kit_path(&other, "ca.pem")};
    ck_assert_int_eq(httpc_new(&conf, NULL, &h, NULL), 0);
    ck_assert_int_eq(failing(h, "POST", "/echo", 0), ERR_UNREACHABLE);
    httpc_free(h);
    tls_kit_done(&other);
    ck_assert_int_eq(server.requests, 0); /* nothing was sent to any of them */
}
END_TEST

START_TEST(test_tls12_server_is_refused)
{
    SSL_CTX_set_min_proto_version(server.ctx, TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(server.ctx, TLS1_2_VERSION);
    struct httpc *h = client(base_url, NULL);
    ck_assert_int_eq(failing(h, "POST", "/echo", 0), ERR_UNREACHABLE);
    httpc_free(h);
}
END_TEST

START_TEST(test_conf_refused)
{
    struct httpc *h = NULL;
    struct err err;
    struct httpc_conf conf = {.base_url = "http://127.0.0.1:1",
                              .ca_file = tls_kit_path(&kit, "ca.pem")};
    ck_assert_int_eq(httpc_new(&conf, NULL, &h, &err), -1);
    conf.base_url = base_url;
    conf.bearer = "a\r\nb";
    ck_assert_int_eq(httpc_new(&conf, NULL, &h, &err), -1);
    conf.bearer = NULL;
    conf.ca_file = NULL;
    ck_assert_int_eq(httpc_new(&conf, NULL, &h, &err), -1);
    conf.ca_file = tls_kit_path(&kit, "ca.pem");
    conf.cert_file = tls_kit_path(&kit, "node.pem");
    conf.key_file = tls_kit_path(&kit, "node.key");
    ck_assert_int_eq(chmod(conf.key_file, 0640), 0);
    ck_assert_int_eq(httpc_new(&conf, NULL, &h, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "chmod 600"));
    ck_assert_ptr_null(h);
}
END_TEST

struct async {
    struct event_base *base;
    struct httpc *h;
    int left, good, failed;
    enum err_code code;
    char uri[60];
    struct httpc_op *victim, *self;
    bool free_in_callback;
};

static void on_done(void *arg, const struct httpc_reply *r, const struct err *err)
{
    struct async *a = arg;
    if (err == NULL)
        a->good++;
    else {
        a->failed++;
        a->code = err->code;
    }
    const char *uri = json_string_value(json_object_get(r->body, "uri"));
    snprintf(a->uri, sizeof(a->uri), "%s", uri == NULL ? "" : uri);
    httpc_cancel(a->victim);
    a->victim = NULL;
    httpc_cancel(a->self); /* one's own operation, while its callback runs: no effect */
    a->self = NULL;
    if (a->free_in_callback) {
        httpc_free(a->h);
        a->h = NULL;
    }
    if (--a->left == 0)
        event_base_loopbreak(a->base);
}

static void loop(struct async *a, int expected)
{
    struct timeval limit = {10, 0};
    a->left = expected;
    event_base_loopexit(a->base, &limit);
    event_base_dispatch(a->base);
}

START_TEST(test_async)
{
    struct async a = {.base = event_base_new()};
    struct httpc_conf conf = {.base_url = base_url,
                              .ca_file = tls_kit_path(&kit, "ca.pem"),
                              .cert_file = tls_kit_path(&kit, "node.pem"),
                              .key_file = tls_kit_path(&kit, "node.key")};
    ck_assert_int_eq(httpc_new(&conf, a.base, &a.h, NULL), 0);
    struct httpc_request echo = {.method = "POST", .path = "/echo"};
    for (int i = 0; i < 20; i++)
        httpc_start(a.h, &echo, on_done, &a);
    loop(&a, 20);
    ck_assert_int_eq(a.good, 20);
    ck_assert_str_eq(a.uri, "spiffe://m/site/s/node/n");
    int connections = server.connections;
    httpc_start(a.h, &echo, on_done, &a);
    loop(&a, 1);
    ck_assert_int_eq(a.good, 21);
    ck_assert_int_eq(server.connections, connections); /* kept alive */
    struct httpc_request drop = {.method = "POST", .path = "/drop"};
    httpc_start(a.h, &drop, on_done, &a);
    loop(&a, 1);
    ck_assert_int_eq(a.code, ERR_UNKNOWN);
    struct httpc_request bad = {.method = "POST", .path = "bad"};
    a.self = httpc_start(a.h, &bad, on_done, &a);
    ck_assert_int_eq(a.failed, 1); /* never from within httpc_start */
    loop(&a, 1);
    ck_assert_int_eq(a.code, ERR_BAD_REQUEST);
    struct httpc_request stall = {
        .method = "POST", .path = "/stall", .timeout_us = 300000};
    httpc_start(a.h, &stall, on_done, &a);
    loop(&a, 1);
    ck_assert_int_eq(a.code, ERR_UNKNOWN);
    ck_assert_int_eq(a.failed, 3);
    httpc_free(a.h);
    event_base_free(a.base);
}
END_TEST

START_TEST(test_async_cancel)
{
    struct async a = {.base = event_base_new()};
    a.h = client(base_url, a.base);
    struct httpc_request echo = {.method = "GET", .path = "/echo"},
                         stall = {.method = "GET", .path = "/stall"};
    /* Cancelled at once, and from the callback of another. */
    httpc_cancel(httpc_start(a.h, &echo, on_done, &a));
    a.victim = httpc_start(a.h, &stall, on_done, &a);
    a.self = httpc_start(a.h, &echo, on_done, &a);
    loop(&a, 1);
    ck_assert_int_eq(a.good, 1);
    ck_assert_int_eq(a.failed, 0);
    ck_assert_ptr_null(a.victim);
    /* A client freed with requests in flight calls nobody. */
    for (int i = 0; i < 3; i++)
        httpc_start(a.h, &stall, on_done, &a);
    struct timeval soon = {0, 100000};
    event_base_loopexit(a.base, &soon);
    event_base_dispatch(a.base);
    httpc_free(a.h);
    event_base_loop(a.base, EVLOOP_NONBLOCK);
    ck_assert_int_eq(a.good + a.failed, 1);
    /* Freed from within a callback, with others in flight and others ready. */
    a.h = client(base_url, a.base);
    a.free_in_callback = true;
    struct httpc_request bad = {.method = "GET", .path = "bad"};
    httpc_start(a.h, &bad, on_done, &a);
    httpc_start(a.h, &bad, on_done, &a);
    httpc_start(a.h, &stall, on_done, &a);
    loop(&a, 1);
    ck_assert_int_eq(a.failed, 1);
    ck_assert_ptr_null(a.h);
    event_base_loop(a.base, EVLOOP_NONBLOCK);
    ck_assert_int_eq(a.failed, 1);
    event_base_free(a.base);
}
END_TEST

START_TEST(test_escape)
{
    char *text = httpc_escape("a b&c=d/\xc3\xa9+~");
    ck_assert_str_eq(text, "a%20b%26c%3Dd%2F%C3%A9%2B~");
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("httpc");
    TCase *tc = tcase_create("httpc");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_call);
    tcase_add_test(tc, test_replies);
    tcase_add_test(tc, test_outcomes);
    tcase_add_test(tc, test_unreachable);
    tcase_add_test(tc, test_tls12_server_is_refused);
    tcase_add_test(tc, test_conf_refused);
    tcase_add_test(tc, test_async);
    tcase_add_test(tc, test_async_cancel);
    tcase_add_test(tc, test_escape);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
