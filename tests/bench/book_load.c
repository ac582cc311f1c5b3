/* book_load: closed-loop load of POST /v1/reservations over TLS 1.3 keep-alive
 * connections: each client sends, waits for the reply, sends the next. Prints one JSON
 * line {"clients","seconds","ok","refused","failed","per_s","p50_us","p99_us"}.
 *
 *   book_load HOST PORT CA_FILE KEY_FILE CLIENTS SECONDS RUN_NAME
 *
 * Starts are drawn over the next 13 days at whole hours, so that bookings meet a
 * calendar that fills; RUN_NAME keeps idempotency keys of different runs apart. Bench
 * tool. */
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <arpa/inet.h>

#define CLIENTS_MAX 512
#define SAMPLES_MAX 4000000

struct client {
    struct bufferevent *bev;
    int64_t sent_ns;
    int waiting;
};

static struct {
    struct event_base *base;
    char key[128];
    const char *run;
    int clients, open;
    int64_t end_ns;
    uint64_t rng, serial;
    long ok, refused, failed;
    uint32_t *samples_us;
    size_t sample_count;
} g;

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static uint64_t next_random(void)
{
    g.rng ^= g.rng << 13;
    g.rng ^= g.rng >> 7;
    g.rng ^= g.rng << 17;
    return g.rng;
}

static void send_request(struct client *c)
{
    char body[256], start[32];
    time_t t =
        time(NULL) / 3600 * 3600 + 3600 * (time_t)(1 + next_random() % (13 * 24));
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(start, sizeof(start), "%Y-%m-%dT%H:%M:%SZ", &tm);
    int len = snprintf(
        body, sizeof(body),
        "{\"gpu\":\"H100\",\"gpus\":1,\"duration\":\"1h\",\"start\":\"%s\"}", start);
    c->sent_ns = now_ns();
    c->waiting = 1;
    evbuffer_add_printf(bufferevent_get_output(c->bev),
                        "POST /v1/reservations HTTP/1.1\r\nHost: bench\r\n"
                        "Authorization: Bearer %s\r\nContent-Type: application/json\r\n"
                        "Idempotency-Key: %s-%llu\r\nContent-Length: %d\r\n\r\n%s",
                        g.key, g.run, (unsigned long long)g.serial++, len, body);
}

static void close_client(struct client *c)
{
    if (c->bev == NULL)
        return;
    bufferevent_free(c->bev);
    c->bev = NULL;
    if (--g.open == 0)
        event_base_loopbreak(g.base);
}

/* Consumes one whole reply; returns its status, or 0 when it is not there yet. */
static int take_reply(struct evbuffer *in)
{
    struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
    char head[4096];
    if (end.pos < 0 || (size_t)end.pos >= sizeof(head))
        return 0;
    evbuffer_copyout(in, head, (size_t)end.pos);
    head[end.pos] = '\0';
    const char *len = strcasestr(head, "content-length:");
    size_t body = len != NULL ? strtoul(len + 15, NULL, 10) : 0;
    if (evbuffer_get_length(in) < (size_t)end.pos + 4 + body)
        return 0;
    evbuffer_drain(in, (size_t)end.pos + 4 + body);
    return (int)strtol(head + 9, NULL, 10);
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct client *c = arg;
    int status = take_reply(bufferevent_get_input(bev));
    if (status == 0)
        return;
    int64_t now = now_ns();
    if (g.sample_count < SAMPLES_MAX)
        g.samples_us[g.sample_count++] = (uint32_t)((now - c->sent_ns) / 1000);
    c->waiting = 0;
    if (status == 201)
        g.ok++;
    else if (status == 409 || status == 422)
        g.refused++;
    else
        g.failed++;
    if (now >= g.end_ns)
        close_client(c);
    else
        send_request(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct client *c = arg;
    (void)bev;
    if (what & BEV_EVENT_CONNECTED) {
        send_request(c);
        return;
    }
    g.failed += c->waiting;
    close_client(c);
}

static void open_client(struct client *c, SSL_CTX *ctx, const struct sockaddr_in *sin)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)sin, sizeof(*sin)) != 0) {
        perror("book_load: connect");
        exit(1);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    evutil_make_socket_nonblocking(fd);
    c->bev = bufferevent_openssl_socket_new(
        g.base, fd, SSL_new(ctx), BUFFEREVENT_SSL_CONNECTING, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    g.open++;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void report(double seconds)
{
    qsort(g.samples_us, g.sample_count, sizeof(*g.samples_us), by_value);
    size_t n = g.sample_count > 0 ? g.sample_count : 1;
    printf("{\"clients\":%d,\"seconds\":%.2f,\"ok\":%ld,\"refused\":%ld,\"failed\":%ld,"
           "\"per_s\":%.1f,\"p50_us\":%u,\"p99_us\":%u}\n",
           g.clients, seconds, g.ok, g.refused, g.failed, (double)g.ok / seconds,
           g.samples_us[n / 2], g.samples_us[n * 99 / 100]);
}

int main(int argc, char **argv)
{
    static struct client clients[CLIENTS_MAX];
    if (argc != 8) {
        fprintf(
            stderr,
            "usage: book_load HOST PORT CA_FILE KEY_FILE CLIENTS SECONDS RUN_NAME\n");
        return 2;
    }
    struct sockaddr_in sin = {.sin_family = AF_INET,
                              .sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10))};
    inet_pton(AF_INET, argv[1], &sin.sin_addr);
    FILE *f = fopen(argv[4], "r");
    if (f == NULL || fgets(g.key, sizeof(g.key), f) == NULL) {
        perror("book_load: key file");
        return 1;
    }
    fclose(f);
    g.key[strcspn(g.key, "\r\n")] = '\0';
    g.clients = (int)strtol(argv[5], NULL, 10);
    if (g.clients < 1 || g.clients > CLIENTS_MAX)
        return 2;
    g.run = argv[7];
    g.rng = (uint64_t)now_ns() | 1;
    g.samples_us = calloc(SAMPLES_MAX, sizeof(*g.samples_us));
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (g.samples_us == NULL ||
        SSL_CTX_load_verify_locations(ctx, argv[3], NULL) != 1) {
        fprintf(stderr, "book_load: cannot use CA file %s\n", argv[3]);
        return 1;
    }
    g.base = event_base_new();
    int64_t start = now_ns();
    g.end_ns = start + 1000000000 * strtoll(argv[6], NULL, 10);
    for (int i = 0; i < g.clients; i++)
        open_client(&clients[i], ctx, &sin);
    event_base_dispatch(g.base);
    report((double)(now_ns() - start) / 1e9);
    return g.failed == 0 ? 0 : 1;
}
