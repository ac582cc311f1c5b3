/* bench_http: the HTTPS front alone. A child process runs net/ and the flow runner with
 * one trivial flow (key lookup, strict JSON in, small JSON out); this process loads it
 * over TLS 1.3 keep-alive connections. What counts is the child's CPU time per request
 * (its CPU clock is read from here), since both share the machine; also full handshakes
 * per CPU second, and the child's memory per idle connection.
 * Usage: bench_http [RESULT.json]. */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/tlsx.h"
#include "client/lib/xalloc.h"
#include "server/flow/loop.h"
#include "server/issuer/ca.h"
#include "server/net/net.h"

#define CLIENTS  64
#define ROUNDS   5
#define ROUND_US 1000000
#define IDLE     1000
#define KEY      "ngk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void die(const char *what)
{
    fprintf(stderr, "bench_http: %s\n", what);
    exit(1);
}

/* ---- the server, in the child ---- */

static enum flow_turn answer(struct flow *f)
{
    const char *gpu = json_string_value(json_object_get(f->rq->body, "gpu"));
    return flow_reply_json(f, 201,
                           json_pack("{s:s,s:s,s:s,s:{s:s,s:I}}", "id",
                                     f->rq->request_id, "state", "held", "gpu",
                                     gpu != NULL ? gpu : "", "price", "currency", "JPY",
                                     "micro", (json_int_t)1990000));
}

static const struct flow_step steps[] = {{"answer", answer}};
static const struct flow_kind kind = FLOW_KIND("bench", int, steps);
static const struct route routes[] = {
    {"POST", "/v1/reservations", ROLE_TENANT, &kind, RATE_FREE, ROUTE_BODY},
};

static int auth_lookup(void *env, const uint8_t hash[32], struct flow_principal *ret)
{
    if (memcmp(env, hash, 32) != 0)
        return -1;
    ret->role = ROLE_TENANT;
    memcpy(ret->name, "acme", 5);
    return 0;
}

static int agent_lookup(void *env, const char *uri, const char *thumbprint,
                        struct flow_principal *ret)
{
    (void)env;
    (void)uri;
    (void)thumbprint;
    (void)ret;
    return -1;
}

static void serve(SSL_CTX *ctx, int ready_fd)
{
    static const char *const addresses[] = {"127.0.0.1:0"};
    uint8_t hash[32];
    struct err err;
    struct net *net;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    digest_sha256(KEY, strlen(KEY), hash);
    struct flow_auth auth = {hash, auth_lookup, agent_lookup};
    struct event_base *base = event_base_new();
    struct flow_loop *loop = flow_loop_new(base);
    struct flow_runner_opts ro = {.kick = flow_loop_kick, .kick_arg = loop};
    struct flow_runner *runner = flow_runner_new(&ro);
    flow_loop_bind(loop, runner);
    struct net_opts opts = {
        .base = base,
        .runner = runner,
        .auth = &auth,
        .routes = routes,
        .route_count = 1,
        .ctx = ctx,
        .addresses = addresses,
        .address_count = 1,
        .head_us = INT64_C(120000000), /* idle clients stay for the count */
    };
    if (net_new(&opts, &net, &err) < 0)
        die(err.text);
    const char *address = net_address(net, 0);
    if (write(ready_fd, address, strlen(address) + 1) < 0)
        _exit(1);
    event_base_dispatch(base);
    _exit(0);
}

/* ---- the load ---- */

struct client {
    struct bufferevent *bev;
    bool waiting;
};

static struct {
    struct event_base *base;
    struct sockaddr_in sa;
    SSL_CTX *ctx;
    pid_t server;
    bool running;
    long answers, connected, failed;
} g;

static const char body[] = "{\"gpu\":\"H100\",\"gpus\":8,\"duration\":\"4h\","
                           "\"data\":[\"genome-tokyo\"],\"max_rtt\":\"20ms\"}";

static void ask(struct client *c)
{
    c->waiting = true;
    evbuffer_add_printf(bufferevent_get_output(c->bev),
                        "POST /v1/reservations HTTP/1.1\r\nHost: bench\r\n"
                        "Authorization: Bearer " KEY "\r\n"
                        "Content-Type: application/json\r\nIdempotency-Key: k-1\r\n"
                        "Content-Length: %zu\r\n\r\n%s",
                        sizeof(body) - 1, body);
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct client *c = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    size_t len = evbuffer_get_length(in);
    const char *text = (const char *)evbuffer_pullup(in, -1);
    /* the reply is small and comes whole: its body ends with two braces */
    if (len < 4 || text[len - 1] != '}' || text[len - 2] != '}')
        return;
    if (memcmp(text, "HTTP/1.1 201", 12) != 0)
        g.failed++;
    evbuffer_drain(in, len);
    g.answers++;
    c->waiting = false;
    if (g.running)
        ask(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    (void)bev;
    (void)arg;
    if (what & BEV_EVENT_CONNECTED)
        g.connected++;
    else
        g.failed++;
}

static void dial(struct client *c)
{
    SSL *ssl = SSL_new(g.ctx);
    c->bev =
        bufferevent_openssl_socket_new(g.base, -1, ssl, BUFFEREVENT_SSL_CONNECTING,
                                       BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    if (bufferevent_socket_connect(c->bev, (struct sockaddr *)&g.sa, sizeof(g.sa)) < 0)
        die("connect");
    int one = 1;
    setsockopt(bufferevent_getfd(c->bev), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void turn_for(int64_t us)
{
    struct timeval tv = {us / 1000000, us % 1000000};
    event_base_loopexit(g.base, &tv);
    event_base_dispatch(g.base);
}

static void turn_until_connected(long want)
{
    for (int i = 0; i < 3000 && g.connected < want; i++)
        turn_for(10000);
    if (g.connected < want || g.failed > 0)
        die("connections failed");
}

static double server_cpu(void)
{
    clockid_t id;
    struct timespec ts;
    if (clock_getcpuclockid(g.server, &id) != 0 || clock_gettime(id, &ts) != 0)
        die("cannot read the server's CPU clock");
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static long server_rss_kb(void)
{
    char path[64], *text, *at;
    size_t len;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)g.server);
    FILE *in = fopen(path, "r");
    if (in == NULL)
        die("cannot read the server's memory");
    text = xcalloc(1, 16384);
    len = fread(text, 1, 16383, in);
    fclose(in);
    at = len > 0 ? strstr(text, "VmRSS:") : NULL;
    long kb = at != NULL ? strtol(at + 6, NULL, 10) : 0;
    free(text);
    return kb;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

struct result {
    double per_cpu_s[ROUNDS], per_s[ROUNDS];
    double handshakes_per_cpu_s, idle_kb;
};

static void load(struct result *r)
{
    static struct client clients[CLIENTS], idle[IDLE];
    for (int i = 0; i < CLIENTS; i++)
        dial(&clients[i]);
    turn_until_connected(CLIENTS);
    g.running = true;
    for (int i = 0; i < CLIENTS; i++)
        ask(&clients[i]);
    turn_for(ROUND_US / 2); /* warm */
    for (int i = 0; i < ROUNDS; i++) {
        double cpu = server_cpu();
        int64_t from = clock_boot_us();
        long before = g.answers;
        turn_for(ROUND_US);
        r->per_cpu_s[i] = (double)(g.answers - before) / (server_cpu() - cpu);
        r->per_s[i] =
            (double)(g.answers - before) * 1e6 / (double)(clock_boot_us() - from);
    }
    g.running = false;
    turn_for(100000);
    double cpu = server_cpu();
    long base = g.connected, rss = server_rss_kb();
    for (int i = 0; i < IDLE; i++) {
        dial(&idle[i]);
        if (i % 50 == 49)
            turn_until_connected(base + i + 1);
    }
    r->handshakes_per_cpu_s = IDLE / (server_cpu() - cpu);
    r->idle_kb = (double)(server_rss_kb() - rss) / IDLE;
    if (g.failed > 0)
        die("answers other than 201");
}

static void report(const char *path, struct result *r)
{
    qsort(r->per_cpu_s, ROUNDS, sizeof(double), by_value);
    qsort(r->per_s, ROUNDS, sizeof(double), by_value);
    json_t *out = json_pack(
        "{s:s,s:{s:f,s:f,s:f,s:f,s:f,s:f},s:s}", "name", "http", "metrics",
        "requests_per_cpu_second", r->per_cpu_s[ROUNDS / 2],
        "requests_per_cpu_second_low", r->per_cpu_s[0], "requests_per_cpu_second_high",
        r->per_cpu_s[ROUNDS - 1], "requests_per_second", r->per_s[ROUNDS / 2],
        "handshakes_per_cpu_second", r->handshakes_per_cpu_s, "idle_connection_kib",
        r->idle_kb, "note",
        "authenticated JSON POST over TLS 1.3 keep-alive, 64 clients on the same "
        "machine; CPU seconds are the server process's, medians of 5 rounds");
    char *text = jsonx_dump(out);
    json_decref(out);
    FILE *to = path != NULL ? fopen(path, "w") : stdout;
    if (to == NULL)
        die("cannot write the result");
    fprintf(to, "%s\n", text);
    if (to != stdout)
        fclose(to);
    free(text);
}

/* ---- setting up ---- */

static char dir[] = "/tmp/neargpu-bench-http-XXXXXX";

static void drop_dir(void)
{
    static const char *const names[] = {"ca.pem", "ca.key", "server.pem", "server.key"};
    char path[128];
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
}

static SSL_CTX *make_ctx(void)
{
    static const char *const names[] = {"127.0.0.1"};
    char ca_file[64], cert[64], key[64];
    struct ca *ca;
    SSL_CTX *ctx;
    struct err err;
    if (mkdtemp(dir) == NULL)
        die("mkdtemp");
    snprintf(ca_file, sizeof(ca_file), "%s/ca.pem", dir);
    snprintf(cert, sizeof(cert), "%s/server.pem", dir);
    snprintf(key, sizeof(key), "%s/server.key", dir);
    struct tlsx_files files = {ca_file, cert, key};
    if (ca_open(dir, "bench.local", clock_now_us(), &ca, &err) < 0 ||
        ca_ensure_server(ca, names, 1, clock_now_us(), &err) < 0 ||
        tlsx_server_ctx(&files, true, &ctx, &err) < 0)
        die(err.text);
    ca_free(ca);
    return ctx;
}

int main(int argc, char **argv)
{
    int fd[2];
    char address[64] = "";
    struct result result = {0};
    signal(SIGPIPE, SIG_IGN);
    SSL_CTX *ctx = make_ctx();
    if (pipe(fd) < 0)
        die("pipe");
    g.server = fork();
    if (g.server == 0)
        serve(ctx, fd[1]);
    drop_dir();
    if (g.server < 0 || read(fd[0], address, sizeof(address) - 1) <= 0)
        die("the server did not start");
    g.base = event_base_new();
    g.ctx = SSL_CTX_new(TLS_client_method());
    g.sa.sin_family = AF_INET;
    g.sa.sin_port = htons((uint16_t)strtol(strchr(address, ':') + 1, NULL, 10));
    g.sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    load(&result);
    kill(g.server, SIGKILL);
    waitpid(g.server, NULL, 0);
    report(argc > 1 ? argv[1] : NULL, &result);
    return 0;
}
