/* probe: see probe.h. One target is one little machine: waiting for its time, looking
 * up the name, connecting, and (http) asking. Its event either waits for the next time
 * or belongs to the socket. */
#include "client/agent/probe.h"

#include <errno.h>
#include <event2/dns.h>
#include <event2/util.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

enum target_state { T_WAITING, T_RESOLVING, T_CONNECTING, T_ASKING };

struct target {
    struct probe *owner;
    struct target *next;
    char dataset[64], endpoint[512];
    struct endpoint ep;
    enum target_state state;
    struct event *timer, *io;
    struct evdns_getaddrinfo_request *lookup;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    int fd;
    bool warm;        /* http: the uncounted request was answered */
    bool answered;    /* the first byte of this answer has come */
    bool last_answer; /* the server said it will close */
    int64_t asked_us;
    int64_t samples[PROBE_SAMPLES_MAX];
    size_t count;
    unsigned reconnects;
    char head[HTTP_HEAD_MAX];
    size_t head_len;
    bool has_result, failed_before;
    bool dead; /* freed once its look-up has called back */
    struct probe_result result;
};

struct probe {
    struct event_base *base;
    struct evdns_base *dns;
    struct probe_conf conf;
    struct sockaddr_storage source;
    int source_len; /* 0: any */
    struct target *targets;
    size_t running;
};

static void target_step(evutil_socket_t fd, short what, void *arg);

static void arm(struct event *ev, int64_t us)
{
    struct timeval tv = {us / US_PER_S, us % US_PER_S};
    event_add(ev, &tv);
}

/* Between 3/4 and 5/4 of the interval. */
static int64_t jittered(int64_t us)
{
    uint32_t r;
    digest_random(&r, sizeof(r));
    return us * 3 / 4 + (int64_t)((uint64_t)us / 2 * r / UINT32_MAX);
}

static void close_socket(struct target *t)
{
    if (t->io != NULL)
        event_free(t->io);
    t->io = NULL;
    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
}

static void finish(struct target *t, const char *why)
{
    struct probe *p = t->owner;
    bool had = t->has_result;
    close_socket(t);
    if (t->state != T_WAITING)
        p->running--;
    t->state = T_WAITING;
    t->has_result = false;
    if (why == NULL && p->conf.now(p->conf.arg, &t->result.at_us)) {
        probe_stats(t->samples, t->count, &t->result);
        t->has_result = true;
        t->failed_before = false;
        log_debug("probe %s: min %lld us, p50 %lld us", t->dataset,
                  (long long)t->result.min_us, (long long)t->result.p50_us);
    } else if (why != NULL && !t->failed_before) {
        t->failed_before = true;
        log_warn("probe %s (%s): %s", t->dataset, t->endpoint, why);
    }
    arm(t->timer, jittered(p->conf.interval_us));
    if (had != t->has_result && p->conf.changed != NULL)
        p->conf.changed(p->conf.arg);
}

static void wait_io(struct target *t, short what)
{
    if (t->io != NULL)
        event_free(t->io);
    t->io = event_new(t->owner->base, t->fd, what, target_step, t);
    arm(t->io, PROBE_TIMEOUT_US);
}

static void connect_now(struct target *t)
{
    const struct probe *p = t->owner;
    int one = 1;
    close_socket(t);
    t->head_len = 0;
    t->answered = t->last_answer = false;
    t->fd = socket(t->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (t->fd < 0) {
        finish(t, strerror(errno));
        return;
    }
    (void)setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (p->source_len > 0 && bind(t->fd, (const struct sockaddr *)&p->source,
                                  (socklen_t)p->source_len) != 0) {
        finish(t, strerror(errno));
        return;
    }
    t->state = T_CONNECTING;
    t->asked_us = clock_boot_us();
    if (connect(t->fd, (struct sockaddr *)&t->addr, t->addr_len) != 0 &&
        errno != EINPROGRESS) {
        finish(t, strerror(errno));
        return;
    }
    wait_io(t, EV_WRITE);
}

static void ask(struct target *t)
{
    char text[1024];
    const char *bracket = strchr(t->ep.host, ':') != NULL ? "[" : "";
    int len = snprintf(text, sizeof(text),
                       "HEAD %s HTTP/1.1\r\nHost: %s%s%s:%s\r\n"
                       "User-Agent: neargpu-agent\r\nAccept: */*\r\n\r\n",
                       t->ep.path, bracket, t->ep.host, *bracket != '\0' ? "]" : "",
                       t->ep.port);
    t->state = T_ASKING;
    t->head_len = 0;
    t->answered = false;
    t->asked_us = clock_boot_us();
    if (send(t->fd, text, (size_t)len, MSG_NOSIGNAL) != len) {
        finish(t, "the request could not be sent");
        return;
    }
    wait_io(t, EV_READ);
}

static void add_sample(struct target *t, int64_t us)
{
    if (t->count < t->owner->conf.samples)
        t->samples[t->count++] = us > 0 ? us : 1;
}

static void connected(struct target *t)
{
    int64_t now = clock_boot_us();
    int why = 0;
    socklen_t len = sizeof(why);
    (void)getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &why, &len);
    if (why != 0) {
        finish(t, strerror(why));
        return;
    }
    if (t->ep.http) {
        ask(t);
        return;
    }
    add_sample(t, now - t->asked_us);
    if (t->count == t->owner->conf.samples)
        finish(t, NULL);
    else
        connect_now(t);
}

/* The answer's head is complete: count it and go on. */
static void answered(struct target *t, int64_t rtt_us)
{
    if (t->warm)
        add_sample(t, rtt_us);
    t->warm = true;
    t->last_answer = strncmp(t->head, "HTTP/1.0", 8) == 0 ||
                     strcasestr(t->head, "\r\nconnection: close") != NULL;
    if (t->count == t->owner->conf.samples) {
        finish(t, NULL);
    } else if (!t->last_answer) {
        ask(t);
    } else if (t->reconnects++ < PROBE_SAMPLES_MAX + 1) {
        connect_now(t);
    } else {
        finish(t, "the server closes every connection");
    }
}

static void readable(struct target *t)
{
    int64_t now = clock_boot_us();
    if (!t->answered) {
        t->answered = true;
        t->asked_us = now - t->asked_us; /* from here on: the round trip */
    }
    ssize_t n =
        recv(t->fd, t->head + t->head_len, sizeof(t->head) - 1 - t->head_len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        wait_io(t, EV_READ);
        return;
    }
    if (n <= 0) {
        finish(t, n == 0 ? "the server closed the connection" : strerror(errno));
        return;
    }
    t->head_len += (size_t)n;
    t->head[t->head_len] = '\0';
    if (strncmp(t->head, "HTTP/1.", t->head_len < 7 ? t->head_len : 7) != 0)
        finish(t, "the answer is not HTTP/1");
    else if (strstr(t->head, "\r\n\r\n") != NULL)
        answered(t, t->asked_us);
    else if (t->head_len + 1 == sizeof(t->head))
        finish(t, "the answer's head does not end");
    else
        wait_io(t, EV_READ);
}

static void target_step(evutil_socket_t fd, short what, void *arg)
{
    struct target *t = arg;
    (void)fd;
    if (what & EV_TIMEOUT)
        finish(t, "timed out");
    else if (t->state == T_CONNECTING)
        connected(t);
    else
        readable(t);
}

static void resolved(int result, struct evutil_addrinfo *list, void *arg)
{
    struct target *t = arg;
    t->lookup = NULL;
    if (t->dead) {
        if (list != NULL)
            evutil_freeaddrinfo(list);
        free(t);
        return;
    }
    if (result != 0 || list == NULL) {
        finish(t, evutil_gai_strerror(result));
        return;
    }
    memcpy(&t->addr, list->ai_addr, list->ai_addrlen);
    t->addr_len = list->ai_addrlen;
    evutil_freeaddrinfo(list);
    connect_now(t);
}

static void begin(evutil_socket_t fd, short what, void *arg)
{
    struct target *t = arg;
    struct probe *p = t->owner;
    (void)fd;
    (void)what;
    if (p->running >= PROBE_AT_ONCE) {
        arm(t->timer, jittered(50000));
        return;
    }
    struct evutil_addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                    .ai_flags = EVUTIL_AI_NUMERICSERV};
    if (p->source_len > 0)
        hints.ai_family = p->source.ss_family;
    p->running++;
    t->state = T_RESOLVING;
    t->count = 0;
    t->reconnects = 0;
    t->warm = false;
    /* May call back before it returns. */
    struct evdns_getaddrinfo_request *rq =
        evdns_getaddrinfo(p->dns, t->ep.host, t->ep.port, &hints, resolved, t);
    if (t->state == T_RESOLVING)
        t->lookup = rq;
}

static void target_free(struct target *t)
{
    if (t->state != T_WAITING)
        t->owner->running--;
    close_socket(t);
    event_free(t->timer);
    if (t->lookup == NULL) {
        free(t);
        return;
    }
    t->dead = true;
    evdns_getaddrinfo_cancel(t->lookup);
}

static struct target *target_new(struct probe *p, const struct desired_probe *want)
{
    struct err err;
    struct endpoint ep;
    if (endpoint_parse(want->endpoint, &ep, &err) != 0) {
        log_warn("probe %s: %s", want->dataset, err.text);
        return NULL;
    }
    struct target *t = xcalloc(1, sizeof(*t));
    t->owner = p;
    t->ep = ep;
    t->fd = -1;
    snprintf(t->dataset, sizeof(t->dataset), "%s", want->dataset);
    snprintf(t->endpoint, sizeof(t->endpoint), "%s", want->endpoint);
    t->timer = evtimer_new(p->base, begin, t);
    arm(t->timer, jittered(20000));
    return t;
}

static struct target *take(struct target **from, const struct desired_probe *want)
{
    for (struct target **at = from; *at != NULL; at = &(*at)->next) {
        struct target *t = *at;
        if (strcmp(t->dataset, want->dataset) == 0 &&
            strcmp(t->endpoint, want->endpoint) == 0) {
            *at = t->next;
            return t;
        }
    }
    return NULL;
}

void probe_set(struct probe *p, const struct desired_probe *list, size_t count)
{
    struct target *old = p->targets;
    p->targets = NULL;
    for (size_t i = 0; i < count; i++) {
        struct target *t = take(&old, &list[i]);
        if (t == NULL)
            t = target_new(p, &list[i]);
        if (t != NULL) {
            t->next = p->targets;
            p->targets = t;
        }
    }
    while (old != NULL) {
        struct target *t = old;
        old = t->next;
        target_free(t);
    }
}

void probe_set_interval(struct probe *p, int64_t interval_us)
{
    if (interval_us == p->conf.interval_us)
        return;
    p->conf.interval_us = interval_us;
    for (struct target *t = p->targets; t != NULL; t = t->next)
        if (t->state == T_WAITING && t->has_result)
            arm(t->timer, jittered(interval_us));
}

int probe_new(struct event_base *base, const struct probe_conf *conf,
              struct probe **ret, struct err *err)
{
    struct probe *p = xcalloc(1, sizeof(*p));
    p->base = base;
    p->conf = *conf;
    p->conf.source = NULL;
    p->source_len = sizeof(p->source);
    if (conf->source == NULL) {
        p->source_len = 0;
    } else if (evutil_parse_sockaddr_port(conf->source, (struct sockaddr *)&p->source,
                                          &p->source_len) != 0) {
        free(p);
        return err_set(err, ERR_BAD_REQUEST, "probe_source: \"%s\" is no address",
                       conf->source);
    }
    if (p->conf.samples > PROBE_SAMPLES_MAX)
        p->conf.samples = PROBE_SAMPLES_MAX;
    p->dns = evdns_base_new(base, EVDNS_BASE_INITIALIZE_NAMESERVERS |
                                      EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (p->dns == NULL) { /* no resolv.conf: numeric addresses and /etc/hosts remain */
        p->dns = evdns_base_new(base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
        if (p->dns != NULL)
            (void)evdns_base_load_hosts(p->dns, "/etc/hosts");
    }
    if (p->dns == NULL) {
        free(p);
        return err_set(err, ERR_INTERNAL, "no resolver");
    }
    *ret = p;
    return 0;
}

void probe_free(struct probe *p)
{
    if (p == NULL)
        return;
    probe_set(p, NULL, 0);
    evdns_base_free(p->dns, 0);
    free(p);
}

json_t *probe_json(const struct probe *p)
{
    json_t *list = json_array();
    for (const struct target *t = p->targets; t != NULL; t = t->next) {
        if (!t->has_result)
            continue;
        json_t *o = json_object();
        json_object_set_new(o, "dataset", json_string(t->dataset));
        json_object_set_new(o, "min_us", json_integer(t->result.min_us));
        json_object_set_new(o, "p50_us", json_integer(t->result.p50_us));
        json_object_set_new(o, "p99_us", json_integer(t->result.p99_us));
        json_object_set_new(o, "count", json_integer(t->result.count));
        json_object_set_new(o, "at", jsonx_time(t->result.at_us));
        json_array_append_new(list, o);
    }
    return list;
}
