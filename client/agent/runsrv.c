/* runsrv: see runsrv.h. One client is a bufferevent to the tenant and, once a job is
 * attached, one to its keeper; bytes of the keeper pass through as they are (they are
 * frames already), frames of the tenant are looked at. Clients are freed by a reaper,
 * never inside a callback. */
#include "client/agent/runsrv.h"

#include <errno.h>
#include <netdb.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/agent/runauth.h"
#include "client/agent/runjobs.h"
#include "client/lib/addr.h"
#include "client/lib/b64.h"
#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/frame.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/tlsx.h"
#include "client/lib/xalloc.h"

#define PIPE_MAX                                                        \
    (256 * 1024) /* waiting for a slow side: then the other is not read \
                  */
#define LINGER_US   INT64_C(2000000) /* for the peer to read the last frame */
#define RUN_VERSION 1

enum client_state {
    CLIENT_ASKING,    /* nonce sent, waiting for the request */
    CLIENT_STARTING,  /* its job is being started */
    CLIENT_ATTACHED,  /* frames pass */
    CLIENT_FLUSHING,  /* the last frame is being written */
    CLIENT_LINGERING, /* write side shut, waiting for the peer's end */
    CLIENT_DEAD
};

struct client {
    struct runsrv *srv;
    struct client *next;
    enum client_state state;
    struct bufferevent *tenant, *keeper;
    bool tls;
    struct frame_reader in;
    struct event *timer;
    char nonce[JWS_KID_MAX];
    char tenant_id[UUID_TEXT]; /* "": not known yet */
    struct starting *starting; /* what it waits for; NULL: nothing */
};

/* A job whose keeper has not said yet that it runs. Its client may leave meanwhile. */
struct starting {
    struct runsrv *srv;
    struct starting *next;
    struct client *client; /* NULL: gone */
    struct event *event;   /* the keeper's word, or its time is over */
    struct launch_ready ready;
    char lease[JOURNAL_ID_MAX], job[JOURNAL_ID_MAX];
};

struct runsrv {
    struct agent *a;
    SSL_CTX *ctx;
    struct evconnlistener *tcp, *local;
    char *local_path;
    char address[300];
    struct client *clients;
    size_t count;
    struct starting *starting;
    struct event *reaper;
};

static void set_state(struct client *c, enum client_state s)
{
    c->state = s;
    if (s == CLIENT_DEAD)
        event_active(c->srv->reaper, EV_TIMEOUT, 1);
}

static void client_free(struct client *c)
{
    if (c->starting != NULL)
        c->starting->client = NULL;
    if (c->keeper != NULL)
        bufferevent_free(c->keeper);
    if (c->tenant != NULL)
        bufferevent_free(c->tenant);
    frame_reader_done(&c->in);
    event_free(c->timer);
    free(c);
}

static void reap(evutil_socket_t fd, short what, void *arg)
{
    struct runsrv *r = arg;
    (void)fd;
    (void)what;
    for (struct client **p = &r->clients; *p != NULL;) {
        struct client *c = *p;
        if (c->state != CLIENT_DEAD) {
            p = &c->next;
            continue;
        }
        *p = c->next;
        r->count--;
        client_free(c);
    }
}

static void arm(struct client *c, int64_t us)
{
    struct timeval tv = {us / US_PER_S, us % US_PER_S};
    event_add(c->timer, &tv);
}

/* --- towards the tenant --- */

static void send_frame(struct client *c, char type, const void *data, size_t len)
{
    struct strbuf b = STRBUF_INIT;
    frame_put(&b, type, data, len);
    bufferevent_write(c->tenant, b.data, b.len);
    strbuf_done(&b);
}

static void send_json(struct client *c, char type, json_t *take)
{
    char *text = jsonx_dump(take);
    send_frame(c, type, text, strlen(text)); /* all of ours fit: runjobs.h */
    free(text);
    json_decref(take);
}

static void linger(struct client *c)
{
    evutil_socket_t fd = bufferevent_getfd(c->tenant);
    SSL *ssl = c->tls ? bufferevent_openssl_get_ssl(c->tenant) : NULL;
    if (ssl != NULL && SSL_is_init_finished(ssl))
        (void)SSL_shutdown(ssl);
    (void)shutdown(fd, SHUT_WR);
    set_state(c, CLIENT_LINGERING);
    arm(c, LINGER_US);
}

/* Writes out what is queued, then closes in a way that loses none of it. */
static void finish(struct client *c)
{
    if (c->state >= CLIENT_FLUSHING)
        return;
    set_state(c, CLIENT_FLUSHING);
    if (c->keeper != NULL) /* nothing comes behind the last frame */
        bufferevent_disable(c->keeper, EV_READ | EV_WRITE);
    bufferevent_setwatermark(c->tenant, EV_WRITE, 0, 0);
    arm(c, RUNSRV_FIRST_US);
    if (evbuffer_get_length(bufferevent_get_output(c->tenant)) == 0)
        linger(c);
}

static void refuse(struct client *c, const char *step, const struct err *err)
{
    json_t *o = json_object();
    json_object_set_new(o, "error", json_string(err_code_name(err->code)));
    json_object_set_new(o, "step", json_string(step));
    json_object_set_new(o, "detail", json_string(err->text));
    /* Anyone can send rubbish; only what got as far as a token is worth a line. */
    if (strcmp(step, "frame") == 0 || strcmp(step, "request") == 0)
        log_debug("run: refused at %s: %s", step, err->text);
    else
        log_info("run: refused at %s: %s", step, err->text);
    send_json(c, 'E', o);
    finish(c);
}

/* --- the keeper's side --- */

static void keeper_read(struct bufferevent *bev, void *arg)
{
    struct client *c = arg;
    struct evbuffer *to = bufferevent_get_output(c->tenant);
    bufferevent_read_buffer(bev, to);
    if (evbuffer_get_length(to) > PIPE_MAX)
        bufferevent_disable(bev, EV_READ);
}

static void keeper_write(struct bufferevent *bev, void *arg)
{
    struct client *c = arg;
    (void)bev;
    if (c->state == CLIENT_ATTACHED)
        bufferevent_enable(c->tenant, EV_READ);
}

static void keeper_event(struct bufferevent *bev, short what, void *arg)
{
    struct client *c = arg;
    if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)))
        return;
    /* A job that ended takes no more input, but its last words are still to be read:
     * reading comes to the end by itself. */
    if ((what & BEV_EVENT_ERROR) && (what & BEV_EVENT_WRITING))
        return;
    bufferevent_read_buffer(bev, bufferevent_get_output(c->tenant));
    finish(c);
}

static void attach(struct client *c, const char *dir, const char *job, int64_t offset)
{
    struct err err;
    int fd;
    if (launch_attach(dir, job, &fd, &err) != 0) {
        refuse(c, "attach", &err);
        return;
    }
    json_t *r = json_object();
    json_object_set_new(r, "job", json_string(job));
    json_object_set_new(r, "offset", json_integer(offset));
    json_object_set_new(r, "state", json_string(runjobs_state(dir, job)));
    send_json(c, 'r', r);
    struct strbuf b = STRBUF_INIT;
    char text[64];
    int len = snprintf(text, sizeof(text), "{\"offset\":%" PRId64 "}", offset);
    frame_put(&b, 'a', text, (size_t)len);
    c->keeper = bufferevent_socket_new(c->srv->a->base, fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(c->keeper, keeper_read, keeper_write, keeper_event, c);
    bufferevent_setwatermark(c->keeper, EV_READ, 0, PIPE_MAX);
    bufferevent_enable(c->keeper, EV_READ | EV_WRITE);
    bufferevent_write(c->keeper, b.data, b.len);
    strbuf_done(&b);
    event_del(c->timer);
    set_state(c, CLIENT_ATTACHED);
}

/* --- requests --- */

static void starting_free(struct starting *s)
{
    for (struct starting **p = &s->srv->starting; *p != NULL; p = &(*p)->next) {
        if (*p == s) {
            *p = s->next;
            break;
        }
    }
    if (s->client != NULL)
        s->client->starting = NULL;
    if (s->ready.fd >= 0)
        close(s->ready.fd);
    event_free(s->event);
    free(s);
}

static void tenant_read(struct bufferevent *bev, void *arg);

static void start_told(evutil_socket_t fd, short what, void *arg)
{
    struct starting *s = arg;
    struct client *c = s->client;
    struct leases *leases = s->srv->a->leases;
    struct err err;
    (void)fd;
    (void)what;
    int rc = launch_take_ready(&s->ready, &err);
    if (rc == 0)
        return;
    if (rc > 0) {
        log_info("lease %s: job %s started", s->lease, s->job);
        leases_job_started(leases, s->lease);
    }
    if (c != NULL && c->state == CLIENT_STARTING && rc < 0) {
        refuse(c, "launch", &err);
    } else if (c != NULL && c->state == CLIENT_STARTING) {
        char *dir = leases_dir(leases, s->lease);
        attach(c, dir, s->job, 0);
        free(dir);
        bufferevent_enable(c->tenant, EV_READ);
        if (c->state == CLIENT_ATTACHED) /* what came behind the request */
            tenant_read(c->tenant, c);
    } else if (rc < 0) {
        log_warn("lease %s: job %s: %s", s->lease, s->job, err.text);
    }
    starting_free(s);
}

static void wait_for_start(struct client *c, const char *lease,
                           const struct leases_launched *out)
{
    struct runsrv *r = c->srv;
    struct starting *s = xcalloc(1, sizeof(*s));
    int64_t left_us = out->ready.until_us - clock_boot_us();
    struct timeval tv = {left_us / US_PER_S + 1, 0};
    s->srv = r;
    s->client = c;
    s->ready = out->ready;
    snprintf(s->lease, sizeof(s->lease), "%s", lease);
    snprintf(s->job, sizeof(s->job), "%s", out->job);
    s->next = r->starting;
    r->starting = s;
    s->event = event_new(r->a->base, s->ready.fd, EV_READ | EV_PERSIST, start_told, s);
    event_add(s->event, &tv);
    c->starting = s;
    event_del(c->timer);
    bufferevent_disable(c->tenant, EV_READ);
    set_state(c, CLIENT_STARTING);
}

static bool is_starting(const struct runsrv *r, const char *job)
{
    const struct starting *s = r->starting;
    while (s != NULL && strcmp(s->job, job) != 0)
        s = s->next;
    return s != NULL;
}

static int open_for_launch(struct client *c, struct runauth *r, const char **ret_step,
                           struct err *err)
{
    struct leases *leases = c->srv->a->leases;
    struct order *o = xcalloc(1, sizeof(*o));
    order_from_token(&r->claims, o);
    const struct journal_lease *j = leases_find(leases, o->id);
    int rc = j != NULL && o->not_after_us > j->not_after_us
                 ? leases_extend(leases, o, err)
                 : leases_open(leases, o, ret_step, err);
    free(o);
    return rc;
}

static void do_launch(struct client *c, struct runauth *r)
{
    struct agent *a = c->srv->a;
    struct leases_launch in = {.claims = &r->claims,
                               .argv_hash = r->argv_hash,
                               .argv = r->argv,
                               .envp = r->envp,
                               .cwd = r->cwd,
                               .want_stdin = r->want_stdin,
                               .files = r->files,
                               .file_count = r->file_count};
    struct leases_launched out = {0};
    const char *step = "lease", *lease = r->claims.lease.reservation;
    struct err err;
    int rc = is_starting(c->srv, r->claims.jti)
                 ? err_set(&err, ERR_UNAVAILABLE, "the job is being started")
                 : open_for_launch(c, r, &step, &err);
    if (rc == 0) {
        rc = leases_launch(a->leases, &in, &out, &err);
        step = out.step;
    }
    if (rc != 0) {
        refuse(c, step, &err);
    } else if (!out.again) {
        wait_for_start(c, lease, &out);
    } else {
        char *dir = leases_dir(a->leases, lease);
        log_info("lease %s: job %s asked for again", lease, out.job);
        attach(c, dir, out.job, 0);
        free(dir);
    }
}

static void do_attach(struct client *c, struct runauth *r)
{
    char *dir = leases_dir(c->srv->a->leases, r->claims.lease.reservation);
    char job[JOURNAL_ID_MAX];
    struct err err;
    if (r->job != NULL)
        snprintf(job, sizeof(job), "%s", r->job);
    if (r->job == NULL && runjobs_latest(dir, job, &err) != 0)
        refuse(c, "attach", &err);
    else
        attach(c, dir, job, r->offset);
    free(dir);
}

static void do_jobs(struct client *c, struct runauth *r)
{
    char *dir = leases_dir(c->srv->a->leases, r->claims.lease.reservation);
    json_t *o = json_object();
    json_object_set_new(o, "jobs", runjobs_json(dir));
    send_json(c, 'r', o);
    finish(c);
    free(dir);
}

static void do_stop(struct client *c, struct runauth *r)
{
    leases_end(c->srv->a->leases, r->claims.lease.reservation, "stopped");
    send_json(c, 'r', json_pack("{s:s}", "state", "stopped"));
    finish(c);
}

/* One tenant's connections leave room for those of the others. */
static int check_share(struct client *c, const char *tenant, struct err *err)
{
    size_t same = 0;
    for (const struct client *o = c->srv->clients; o != NULL; o = o->next)
        same +=
            o != c && o->state <= CLIENT_ATTACHED && strcmp(o->tenant_id, tenant) == 0;
    if (same >= RUNSRV_TENANT_MAX)
        return err_set(err, ERR_QUOTA, "%d connections of this tenant are open already",
                       RUNSRV_TENANT_MAX);
    snprintf(c->tenant_id, sizeof(c->tenant_id), "%s", tenant);
    return 0;
}

static void take_request(struct client *c, const struct frame *f)
{
    static void (*const serve[])(struct client *, struct runauth *) = {
        [RUNAUTH_LAUNCH] = do_launch,
        [RUNAUTH_ATTACH] = do_attach,
        [RUNAUTH_JOBS] = do_jobs,
        [RUNAUTH_STOP] = do_stop,
    };
    struct runauth *r = xcalloc(1, sizeof(*r));
    const char *step;
    struct err err;
    if (runauth_check(c->srv->a, f->type, f->data, f->len, c->nonce, r, &step, &err) !=
        0) {
        refuse(c, step, &err);
    } else {
        if (check_share(c, r->claims.sub, &err) == 0)
            serve[r->kind](c, r);
        else
            refuse(c, "share", &err);
        runauth_done(r);
    }
    free(r);
}

static void take_attached(struct client *c, const struct frame *f)
{
    struct strbuf b = STRBUF_INIT;
    if (f->type != 'i' && f->type != 'I' && f->type != 's') {
        struct err err;
        (void)err_set(&err, ERR_BAD_REQUEST, "a frame of type 0x%02x in a job's stream",
                      (unsigned char)f->type);
        refuse(c, "stream", &err);
        return;
    }
    frame_put(&b, f->type, f->data, f->len);
    bufferevent_write(c->keeper, b.data, b.len);
    strbuf_done(&b);
    if (evbuffer_get_length(bufferevent_get_output(c->keeper)) > PIPE_MAX)
        bufferevent_disable(c->tenant, EV_READ);
}

static bool is_heard(const struct client *c)
{
    return c->state == CLIENT_ASKING || c->state == CLIENT_ATTACHED;
}

/* Every whole frame that is there: before more is fed, as frame.h wants it. */
static int take_frames(struct client *c, struct err *err)
{
    struct frame f;
    int got = 0;
    while (is_heard(c) && (got = frame_next(&c->in, &f, err)) > 0) {
        if (c->state == CLIENT_ASKING)
            take_request(c, &f);
        else
            take_attached(c, &f);
    }
    return got < 0 ? -1 : 0;
}

static void tenant_read(struct bufferevent *bev, void *arg)
{
    struct client *c = arg;
    char buf[16 * 1024];
    size_t len;
    struct err err;
    int got = 0;
    while (is_heard(c) && (got = take_frames(c, &err)) == 0 &&
           (len = bufferevent_read(bev, buf, sizeof(buf))) > 0)
        frame_feed(&c->in, buf, len);
    if (got < 0)
        refuse(c, "frame", &err);
    if (c->state > CLIENT_ATTACHED) /* not listened to any more */
        evbuffer_drain(bufferevent_get_input(bev), SIZE_MAX);
}

static void tenant_write(struct bufferevent *bev, void *arg)
{
    struct client *c = arg;
    /* May also be about what was written before the last frame. */
    if (c->state == CLIENT_FLUSHING &&
        evbuffer_get_length(bufferevent_get_output(bev)) == 0)
        linger(c);
    else if (c->state == CLIENT_ATTACHED && c->keeper != NULL)
        bufferevent_enable(c->keeper, EV_READ);
}

static void tenant_event(struct bufferevent *bev, short what, void *arg)
{
    struct client *c = arg;
    (void)bev;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT))
        set_state(c, CLIENT_DEAD);
}

static void client_late(evutil_socket_t fd, short what, void *arg)
{
    struct client *c = arg;
    (void)fd;
    (void)what;
    set_state(c, CLIENT_DEAD);
}

/* --- listening --- */

static void greet(struct client *c)
{
    uint8_t raw[32];
    digest_random(raw, sizeof(raw));
    b64_encode(raw, sizeof(raw), c->nonce);
    json_t *o = json_object();
    json_object_set_new(o, "nonce", json_string(c->nonce));
    json_object_set_new(o, "audience", json_string(c->srv->a->id.spiffe_id));
    json_object_set_new(o, "version", json_integer(RUN_VERSION));
    send_json(c, 'n', o);
}

/* Who vanished without a word (a laptop closed, a path cut) is noticed in about two
 * minutes, though his job may print nothing for days. */
static void tune_tcp(evutil_socket_t fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},   {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 60}, {IPPROTO_TCP, TCP_KEEPINTVL, 15},
        {IPPROTO_TCP, TCP_KEEPCNT, 4},
    };
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value,
                         sizeof(options[i].value));
}

static void add_client(struct runsrv *r, evutil_socket_t fd, SSL *ssl)
{
    struct client *c = xcalloc(1, sizeof(*c));
    c->srv = r;
    c->tls = ssl != NULL;
    frame_reader_init(&c->in);
    c->timer = evtimer_new(r->a->base, client_late, c);
    if (ssl != NULL)
        tune_tcp(fd);
    c->tenant = ssl != NULL
                    ? bufferevent_openssl_socket_new(r->a->base, fd, ssl,
                                                     BUFFEREVENT_SSL_ACCEPTING,
                                                     BEV_OPT_CLOSE_ON_FREE)
                    : bufferevent_socket_new(r->a->base, fd, BEV_OPT_CLOSE_ON_FREE);
    c->next = r->clients;
    r->clients = c;
    r->count++;
    bufferevent_setcb(c->tenant, tenant_read, tenant_write, tenant_event, c);
    bufferevent_setwatermark(c->tenant, EV_READ, 0, PIPE_MAX);
    bufferevent_setwatermark(c->tenant, EV_WRITE, PIPE_MAX / 2, 0);
    bufferevent_enable(c->tenant, EV_READ | EV_WRITE);
    arm(c, RUNSRV_FIRST_US);
    greet(c);
}

static void accepted(struct evconnlistener *l, evutil_socket_t fd,
                     struct sockaddr *addr, int len, void *arg)
{
    struct runsrv *r = arg;
    (void)addr;
    (void)len;
    SSL *ssl = NULL;
    if (r->count >= RUNSRV_CLIENTS_MAX) {
        evutil_closesocket(fd);
        return;
    }
    if (l == r->tcp && (ssl = SSL_new(r->ctx)) == NULL) {
        evutil_closesocket(fd);
        return;
    }
    add_client(r, fd, ssl);
}

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                       const unsigned char *in, unsigned in_len, void *arg)
{
    static const unsigned char ours[] = "\x0d" FRAME_ALPN;
    (void)ssl;
    (void)arg;
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof(ours) - 1, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int make_ctx(const struct agent *a, SSL_CTX **ret, struct err *err)
{
    struct tlsx_files files = {.cert_file = a->id.cert_file,
                               .key_file = a->id.key_file};
    if (tlsx_server_ctx(&files, false, ret, err) != 0)
        return -1;
    SSL_CTX_set_alpn_select_cb(*ret, choose_alpn, NULL);
    return 0;
}

void runsrv_new_identity(struct runsrv *r)
{
    struct err err;
    SSL_CTX *ctx;
    if (r == NULL || r->tcp == NULL)
        return;
    if (make_ctx(r->a, &ctx, &err) != 0) {
        log_error("run listener: %s", err.text);
        return;
    }
    SSL_CTX_free(r->ctx);
    r->ctx = ctx;
}

/* "ADDRESS:PORT" or "[IPV6]:PORT"; port 0 lets the system choose, which libevent's own
 * parser does not take. */
static int listen_address(const char *text, struct sockaddr_storage *addr,
                          socklen_t *len, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    struct addrinfo *found = NULL;
    struct addr at;
    if (!addr_split(text, strlen(text), &at) || at.host[0] == '\0' ||
        at.port[0] == '\0')
        return err_set(err, ERR_BAD_REQUEST, "listen: \"%s\" is no address and port",
                       text);
    int rc = getaddrinfo(at.host, at.port, &hints, &found);
    if (rc != 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "listen: \"%s\" is no address and port: %s", text,
                       gai_strerror(rc));
    memcpy(addr, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int listen_tcp(struct runsrv *r, struct err *err)
{
    const struct settings *conf = &r->a->conf;
    struct sockaddr_storage addr;
    socklen_t len = sizeof(addr);
    if (strcmp(conf->listen, "none") == 0)
        return 0;
    if (listen_address(conf->listen, &addr, &len, err) != 0)
        return -1;
    if (make_ctx(r->a, &r->ctx, err) != 0)
        return -1;
    r->tcp = evconnlistener_new_bind(r->a->base, accepted, r,
                                     LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC |
                                         LEV_OPT_REUSEABLE,
                                     128, (struct sockaddr *)&addr, (int)len);
    if (r->tcp == NULL)
        return err_sys(err, errno, "listen: %s", conf->listen);
    socklen_t got = sizeof(addr);
    char host[64], port[8];
    if (conf->advertise != NULL)
        snprintf(r->address, sizeof(r->address), "%s", conf->advertise);
    else if (getsockname(evconnlistener_get_fd(r->tcp), (struct sockaddr *)&addr,
                         &got) == 0 &&
             getnameinfo((struct sockaddr *)&addr, got, host, sizeof(host), port,
                         sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(r->address, sizeof(r->address),
                 addr.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return 0;
}

static int listen_local(struct runsrv *r, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (fsx_mkdirs(r->a->conf.runtime_dir, 0755, err) != 0)
        return -1;
    r->local_path = xasprintf("%s/agent.sock", r->a->conf.runtime_dir);
    if (strlen(r->local_path) >= sizeof(addr.sun_path))
        return err_set(err, ERR_BAD_REQUEST, "runtime_dir: %s is too long",
                       r->local_path);
    memcpy(addr.sun_path, r->local_path, strlen(r->local_path));
    (void)unlink(r->local_path);
    mode_t old = umask(0117);
    r->local = evconnlistener_new_bind(r->a->base, accepted, r,
                                       LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC,
                                       16, (struct sockaddr *)&addr, sizeof(addr));
    (void)umask(old);
    if (r->local == NULL)
        return err_sys(err, errno, "%s", r->local_path);
    return 0;
}

int runsrv_new(struct agent *a, struct runsrv **ret, struct err *err)
{
    struct runsrv *r = xcalloc(1, sizeof(*r));
    r->a = a;
    r->reaper = event_new(a->base, -1, 0, reap, r);
    if (listen_tcp(r, err) != 0 || listen_local(r, err) != 0) {
        runsrv_free(r);
        return -1;
    }
    if (r->address[0] != '\0')
        log_info("tenants connect to %s", r->address);
    *ret = r;
    return 0;
}

void runsrv_free(struct runsrv *r)
{
    if (r == NULL)
        return;
    while (r->starting != NULL)
        starting_free(r->starting);
    while (r->clients != NULL) {
        struct client *c = r->clients;
        r->clients = c->next;
        client_free(c);
    }
    if (r->tcp != NULL)
        evconnlistener_free(r->tcp);
    if (r->local != NULL) {
        evconnlistener_free(r->local);
        (void)unlink(r->local_path);
    }
    free(r->local_path);
    SSL_CTX_free(r->ctx);
    event_free(r->reaper);
    free(r);
}

const char *runsrv_address(const struct runsrv *r)
{
    return r->address;
}
