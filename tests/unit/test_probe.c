/* probe: against real servers on loopback, one thread each, with a known delay. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client/agent/probe.h"
#include "client/lib/clock.h"
#include "client/lib/timefmt.h"
#include "tests/unit/unit.h"

struct server {
    int fd;
    int port;
    pthread_t thread;
    int delay_ms;
    bool close_each; /* "Connection: close" after each answer */
    const char *answer;
    int connections, requests;
};

static void nap(int ms)
{
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&ts, NULL);
}

static void serve_one(struct server *s, int fd)
{
    char buf[2048];
    ssize_t n;
    while ((n = read(fd, buf, sizeof(buf) - 1)) > 0) {
        buf[n] = '\0';
        s->requests++;
        ck_assert_int_eq(
            strncmp(buf, "HEAD /data?x=1 HTTP/1.1\r\nHost: 127.0.0.1:", 41), 0);
        nap(s->delay_ms);
        /* In two pieces: the first byte counts, the whole head must be read. */
        if (write(fd, s->answer, 5) != 5)
            break;
        nap(5);
        size_t rest = strlen(s->answer) - 5;
        if (write(fd, s->answer + 5, rest) != (ssize_t)rest || s->close_each)
            break;
    }
    close(fd);
}

static void *server_main(void *arg)
{
    struct server *s = arg;
    int fd;
    while ((fd = accept(s->fd, NULL, NULL)) >= 0) {
        s->connections++;
        serve_one(s, fd);
    }
    return NULL;
}

static void server_start(struct server *s)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof(a);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(s->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    ck_assert_int_eq(listen(s->fd, 16), 0);
    ck_assert_int_eq(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
    s->port = ntohs(a.sin_port);
    ck_assert_int_eq(pthread_create(&s->thread, NULL, server_main, s), 0);
}

static void server_stop(struct server *s)
{
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
}

struct world {
    struct event_base *base;
    struct probe *probe;
    int changes;
};

static bool now(void *arg, int64_t *ret_us)
{
    (void)arg;
    *ret_us = 42 * US_PER_S;
    return true;
}

static void changed(void *arg)
{
    struct world *w = arg;
    w->changes++;
}

static void world_init(struct world *w, const char *source)
{
    struct probe_conf conf = {.source = source,
                              .samples = 5,
                              .interval_us = 200000,
                              .now = now,
                              .changed = changed,
                              .arg = w};
    struct err err;
    memset(w, 0, sizeof(*w));
    w->base = event_base_new();
    ck_assert_msg(probe_new(w->base, &conf, &w->probe, &err) == 0, "%s", err.text);
}

static void world_done(struct world *w)
{
    probe_free(w->probe);
    event_base_loop(w->base, EVLOOP_NONBLOCK);
    event_base_free(w->base);
}

static void run_until(struct world *w, int changes, int64_t max_us)
{
    int64_t end = clock_boot_us() + max_us;
    while (w->changes < changes && clock_boot_us() < end) {
        struct timeval tv = {0, 20000};
        event_base_loopexit(w->base, &tv);
        event_base_dispatch(w->base);
    }
}

static void measure(struct world *w, const char *url)
{
    struct desired_probe p = {.dataset = "7"};
    snprintf(p.endpoint, sizeof(p.endpoint), "%s", url);
    probe_set(w->probe, &p, 1);
    run_until(w, 1, 5 * US_PER_S);
}

static int64_t figure(const struct world *w, const char *key)
{
    json_t *list = probe_json(w->probe);
    ck_assert_uint_eq(json_array_size(list), 1);
    int64_t v = json_integer_value(json_object_get(json_array_get(list, 0), key));
    json_decref(list);
    return v;
}

START_TEST(test_http)
{
    struct server s = {.delay_ms = 20,
                       .answer = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"};
    struct world w;
    char url[64];
    server_start(&s);
    world_init(&w, "127.0.0.1");
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/data?x=1", s.port);
    measure(&w, url);
    ck_assert_int_eq(figure(&w, "count"), 5);
    ck_assert_int_ge(figure(&w, "min_us"), 20000);
    ck_assert_int_lt(figure(&w, "min_us"), 60000);
    ck_assert_int_ge(figure(&w, "p99_us"), figure(&w, "p50_us"));
    ck_assert_int_eq(s.connections, 1);  /* kept alive */
    ck_assert_int_eq(s.requests, 5 + 1); /* one to warm up */
    world_done(&w);
    server_stop(&s);
}
END_TEST

START_TEST(test_http_server_closes)
{
    struct server s = {.delay_ms = 1,
                       .close_each = true,
                       .answer = "HTTP/1.1 404 No\r\nConnection: close\r\n\r\n"};
    struct world w;
    char url[64];
    server_start(&s);
    world_init(&w, NULL);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/data?x=1", s.port);
    measure(&w, url);
    ck_assert_int_eq(figure(&w, "count"), 5);
    ck_assert_int_eq(s.connections, 6);
    world_done(&w);
    server_stop(&s);
}
END_TEST

START_TEST(test_tcp)
{
    struct server s = {.answer = "HTTP/1.1 200 OK\r\n\r\n"};
    struct world w;
    char url[64];
    server_start(&s);
    world_init(&w, NULL);
    snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", s.port);
    measure(&w, url);
    ck_assert_int_eq(figure(&w, "count"), 5);
    ck_assert_int_ge(figure(&w, "min_us"), 1);
    world_done(&w);
    server_stop(&s);
}
END_TEST

START_TEST(test_failure_is_absent)
{
    struct server s = {.delay_ms = 1, .answer = "HTTP/1.1 200 OK\r\n\r\n"};
    struct world w;
    char url[64];
    server_start(&s);
    world_init(&w, NULL);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/data?x=1", s.port);
    measure(&w, url);
    ck_assert_int_eq(figure(&w, "count"), 5);
    server_stop(&s);
    run_until(&w, 2, 5 * US_PER_S); /* the next measurement fails */
    json_t *list = probe_json(w.probe);
    ck_assert_uint_eq(json_array_size(list), 0);
    json_decref(list);
    world_done(&w);
}
END_TEST

START_TEST(test_not_http)
{
    struct server s = {.delay_ms = 1, .answer = "SSH-2.0-OpenSSH_9.2\r\n\r\n"};
    struct world w;
    char url[64];
    server_start(&s);
    world_init(&w, NULL);
    struct desired_probe p = {.dataset = "7"};
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/data?x=1", s.port);
    snprintf(p.endpoint, sizeof(p.endpoint), "%s", url);
    probe_set(w.probe, &p, 1);
    run_until(&w, 1, 300000);
    ck_assert_int_eq(w.changes, 0);
    world_done(&w);
    server_stop(&s);
}
END_TEST

START_TEST(test_endpoints)
{
    static const struct {
        const char *url, *host, *port, *path;
        bool http;
    } good[] = {
        {"http://h.example:81/a/b?c", "h.example", "81", "/a/b?c", true},
        {"http://h", "h", "80", "/", true},
        {"http://[::1]:8080", "::1", "8080", "/", true},
        {"https://h/x", "h", "443", "/x", false},
        {"tcp://10.0.0.1:5432", "10.0.0.1", "5432", "/", false},
        {"http://h?q", "h", "80", "/?q", true},
        {"store.example:443", "store.example", "443", "/", false},
    };
    static const char *const bad[] = {
        "",
        "h",
        "ftp://h:1",
        "tcp://h",
        "http://:80",
        "http://",
        "tcp://h:0",
        "tcp://h:65536",
        "tcp://h:1x",
        "http://[::1:80",
        "http://h/a b",
        "http://h:/",
        "http://h/a\r\nX: y",
    };
    struct endpoint ep;
    struct err err;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        ck_assert_msg(endpoint_parse(good[i].url, &ep, &err) == 0, "%s", good[i].url);
        ck_assert_str_eq(ep.host, good[i].host);
        ck_assert_str_eq(ep.port, good[i].port);
        ck_assert_str_eq(ep.path, good[i].path);
        ck_assert_int_eq(ep.http, good[i].http);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(endpoint_parse(bad[i], &ep, &err) == -1, "%s", bad[i]);
}
END_TEST

START_TEST(test_stats)
{
    int64_t v[] = {50, 10, 40, 30, 20}, hundred[100], one[] = {7};
    struct probe_result r;
    probe_stats(v, 5, &r);
    ck_assert_int_eq(r.min_us, 10);
    ck_assert_int_eq(r.p50_us, 30);
    ck_assert_int_eq(r.p99_us, 50);
    for (int i = 0; i < 100; i++)
        hundred[i] = 100 - i;
    probe_stats(hundred, 100, &r);
    ck_assert_int_eq(r.p50_us, 50);
    ck_assert_int_eq(r.p99_us, 99);
    probe_stats(one, 1, &r);
    ck_assert_int_eq(r.p99_us, 7);
}
END_TEST

UNIT_MAIN("probe",
          UNIT_CASE(test_http) UNIT_CASE(test_http_server_closes) UNIT_CASE(test_tcp)
              UNIT_CASE(test_failure_is_absent) UNIT_CASE(test_not_http)
                  UNIT_CASE(test_endpoints) UNIT_CASE(test_stats))
