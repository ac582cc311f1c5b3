/* data_endpoint: a data set's HTTP endpoint as sites at different distances see it. It
 * answers any request with 200 after the round trip that belongs to the client's source
 * address, so that the agents' probes measure real waiting over real TCP.
 *
 *   data_endpoint LISTEN_ADDR:PORT SOURCE=MICROSECONDS [SOURCE=MICROSECONDS …]
 *
 * Prints the bound port. An address that is not listed is answered at once. Ends with
 * the process that started it, unless NEARGPU_STAY is set: a market left running by its
 * script keeps its data. Test tool.
 */
#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#define DELAYS_MAX 64

static struct delay {
    struct in_addr source;
    long us;
} delays[DELAYS_MAX];
static int delay_count;

struct conn {
    struct bufferevent *bev;
    struct event *timer;
    long us;
    int owed; /* requests seen and not yet answered */
};

static void conn_free(struct conn *c)
{
    event_free(c->timer);
    bufferevent_free(c->bev);
    free(c);
}

static void answer(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;
    (void)fd;
    (void)what;
    for (; c->owed > 0; c->owed--)
        evbuffer_add_printf(bufferevent_get_output(c->bev),
                            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct conn *c = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    for (;;) {
        struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
        if (end.pos < 0)
            break;
        evbuffer_drain(in, (size_t)end.pos + 4);
        c->owed++;
    }
    if (evbuffer_get_length(in) > 16384) {
        conn_free(c);
        return;
    }
    if (c->owed > 0 && !event_pending(c->timer, EV_TIMEOUT, NULL)) {
        struct timeval tv = {c->us / 1000000, c->us % 1000000};
        event_add(c->timer, &tv);
    }
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    (void)bev;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        conn_free(arg);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa,
                      int len, void *arg)
{
    struct event_base *base = evconnlistener_get_base(l);
    struct sockaddr_in *sin = (struct sockaddr_in *)sa;
    struct conn *c = calloc(1, sizeof(*c));
    int one = 1;
    (void)len;
    (void)arg;
    if (c == NULL)
        abort();
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    for (int i = 0; i < delay_count; i++)
        if (delays[i].source.s_addr == sin->sin_addr.s_addr)
            c->us = delays[i].us;
    c->bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    c->timer = evtimer_new(base, answer, c);
    bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

static void parse_delay(char *text)
{
    char *eq = strchr(text, '=');
    if (eq == NULL || delay_count == DELAYS_MAX) {
        fprintf(stderr, "data_endpoint: bad delay '%s': want ADDRESS=MICROSECONDS\n",
                text);
        exit(2);
    }
    *eq = '\0';
    if (inet_aton(text, &delays[delay_count].source) == 0) {
        fprintf(stderr, "data_endpoint: '%s' is not an IPv4 address\n", text);
        exit(2);
    }
    delays[delay_count++].us = strtol(eq + 1, NULL, 10);
}

int main(int argc, char **argv)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    char *colon = argc > 1 ? strrchr(argv[1], ':') : NULL;
    if (getenv("NEARGPU_STAY") == NULL)
        prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    if (colon != NULL) {
        *colon = '\0';
        addr.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    }
    if (colon == NULL || inet_aton(argv[1], &addr.sin_addr) == 0) {
        fprintf(stderr, "usage: data_endpoint ADDR:PORT [SOURCE=MICROSECONDS …]\n");
        return 2;
    }
    for (int i = 2; i < argc; i++)
        parse_delay(argv[i]);
    struct event_config *cfg = event_config_new();
    event_config_set_flag(cfg, EVENT_BASE_FLAG_PRECISE_TIMER);
    struct event_base *base = event_base_new_with_config(cfg);
    struct evconnlistener *l = evconnlistener_new_bind(
        base, on_accept, NULL, LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_FREE, -1,
        (struct sockaddr *)&addr, sizeof(addr));
    if (l == NULL) {
        perror("data_endpoint: bind");
        return 1;
    }
    struct sockaddr_in bound;
    socklen_t bound_len = sizeof(bound);
    getsockname(evconnlistener_get_fd(l), (struct sockaddr *)&bound, &bound_len);
    printf("%d\n", ntohs(bound.sin_port));
    fflush(stdout);
    event_base_dispatch(base);
    return 0;
}
