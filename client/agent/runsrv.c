/* runsrv: see runsrv.h. One client is a bufferevent to the tenant and, once a job is
 * attached, one to its keeper; bytes of the keeper pass through as they are (they are
 * frames already), frames of the tenant are looked at. Clients are freed by a reaper,
 * never inside a callback. */
#include "client/agent/runsrv.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/lib/addr.h"
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
#define LINGER_US INT64_C(2000000)  /* for the peer to read the last frame */
#define ANSWER_US INT64_C(60000000) /* more than any start of a job takes */

enum client_state {
    CLIENT_COMING,    /* the warden is asked for a nonce */
    CLIENT_ASKING,    /* nonce sent, waiting for the request */
    CLIENT_WAITING,   /* the warden has the request */
    CLIENT_ATTACHED,  /* frames pass */
    CLIENT_FLUSHING,  /* the last frame is being written */
    CLIENT_LINGERING, /* write side shut, waiting for the peer's end */
    CLIENT_DEAD
};

struct client {
    struct runsrv *srv;
    struct client *next;
    int64_t id; /* never used again in the life of this process */
    enum client_state state;
    struct bufferevent *tenant, *keeper;
    bool tls;
    struct frame_reader in;
    struct event *timer;
};

struct runsrv {
    struct front *f;
    SSL_CTX *ctx;
    struct evconnlistener *tcp, *local;
    char address[300];
    struct client *clients;
    size_t count;
    int64_t last_id;
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
        front_tell(r->f, LINK_GONE, json_pack("{s:I}", "client", (json_int_t)c->id));
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

static void send_json(struct client *c, char type, const json_t *doc)
{
    char *text = jsonx_dump(doc);
    size_t len = strlen(text);
    send_frame(c, type, text, len <= RUN_FRAME_MAX ? len : 0);
    free(text);
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

/* What is refused here is no request at all. */
static void refuse(struct client *c, const char *step, const struct err *err)
{
    json_t *o = json_object();
    json_object_set_new(o, "error", json_string(err_code_name(err->code)));
    json_object_set_new(o, "step", json_string(step));
    json_object_set_new(o, "detail", json_string(err->text));
    log_debug("run: refused at %s: %s", step, err->text);
    send_json(c, 'E', o);
    json_decref(o);
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

static void attach(struct client *c, int fd)
{
    (void)evutil_make_socket_nonblocking(fd);
    c->keeper = bufferevent_socket_new(c->srv->f->base, fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(c->keeper, keeper_read, keeper_write, keeper_event, c);
    bufferevent_setwatermark(c->keeper, EV_READ, 0, PIPE_MAX);
    bufferevent_enable(c->keeper, EV_READ | EV_WRITE);
    event_del(c->timer);
    set_state(c, CLIENT_ATTACHED);
}

/* --- requests --- */

static void take_request(struct client *c, const struct frame *f)
{
    const char type[2] = {f->type, '\0'};
    json_t *o = json_object();
    json_t *text = json_stringn((const char *)f->data, f->len);
    struct err err;
    int rc = -1;
    json_object_set_new(o, "client", json_integer(c->id));
    if (text == NULL || json_object_set_new(o, "payload", text) != 0 ||
        json_object_set_new(o, "type", json_stringn(type, 1)) != 0) {
        (void)err_set(&err, ERR_BAD_REQUEST, "the request is no text");
        json_decref(o);
    } else {
        rc = link_send(c->srv->f->link, LINK_REQUEST, o, -1, &err);
    }
    if (rc != 0) {
        refuse(c, "request", &err);
        return;
    }
    set_state(c, CLIENT_WAITING);
    bufferevent_disable(c->tenant, EV_READ);
    arm(c, ANSWER_US);
}

static struct client *find(const struct runsrv *r, int64_t id)
{
    for (struct client *c = r->clients; c != NULL; c = c->next)
        if (c->id == id)
            return c;
    return NULL;
}

static void tenant_read(struct bufferevent *bev, void *arg);

int runsrv_take_nonce(struct runsrv *r, const json_t *doc, struct err *err)
{
    struct row {
        int64_t client;
        const char *nonce, *audience;
    } row = {0};
    static const struct jsonx_field fields[] = {
        {"client", JSONX_INT, true, offsetof(struct row, client), 1, INT64_MAX},
        {"nonce", JSONX_STRING, false, offsetof(struct row, nonce), 1, 200},
        {"audience", JSONX_STRING, false, offsetof(struct row, audience), 1, 600},
    };
    if (jsonx_decode(doc, fields, JSONX_COUNT(fields), &row, "", err) != 0)
        return -1;
    struct client *c = find(r, row.client);
    if (c == NULL || c->state != CLIENT_COMING)
        return 0; /* gone meanwhile */
    if (row.nonce != NULL && row.audience != NULL) {
        json_t *o = json_object();
        json_object_set_new(o, "nonce", json_string(row.nonce));
        json_object_set_new(o, "audience", json_string(row.audience));
        json_object_set_new(o, "version", json_integer(RUNSRV_VERSION));
        send_json(c, 'n', o);
        json_decref(o);
    }
    set_state(c, CLIENT_ASKING);
    tenant_read(c->tenant, c);
    return 0;
}

int runsrv_take_answer(struct runsrv *r, const json_t *doc, int fd_take,
                       struct err *err)
{
    struct row {
        int64_t client;
        const char *type;
        json_t *payload;
        bool fd;
    } row = {0};
    static const struct jsonx_field fields[] = {
        {"client", JSONX_INT, true, offsetof(struct row, client), 1, INT64_MAX},
        {"type", JSONX_STRING, true, offsetof(struct row, type), 1, 1},
        {"payload", JSONX_OBJECT, true, offsetof(struct row, payload), 0, 0},
        {"fd", JSONX_BOOL, true, offsetof(struct row, fd), 0, 0},
    };
    int rc = jsonx_decode(doc, fields, JSONX_COUNT(fields), &row, "", err);
    struct client *c = rc == 0 ? find(r, row.client) : NULL;
    if (c == NULL || c->state != CLIENT_WAITING) {
        if (fd_take >= 0)
            close(fd_take);
        return rc;
    }
    send_json(c, row.type[0], row.payload);
    if (fd_take < 0) {
        finish(c);
        return 0;
    }
    attach(c, fd_take);
    bufferevent_enable(c->tenant, EV_READ);
    tenant_read(c->tenant, c); /* what came behind the request */
    return 0;
}

static void take_attached(struct client *c, const struct frame *f)
{
    struct strbuf b = STRBUF_INIT;
    if (strchr("iIsw", f->type) == NULL || f->type == '\0') {
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

/* The warden looks itself who is at the other end of the node's own socket, and gives
 * him the nonce over it: this process neither says nor hears it. */
static void greet(struct client *c, int fd_take)
{
    struct err err;
    json_t *o = json_pack("{s:I}", "client", (json_int_t)c->id);
    if (link_send(c->srv->f->link, LINK_GREET, o, fd_take, &err) != 0)
        log_error("front: %s", err.text);
}

static void add_client(struct runsrv *r, evutil_socket_t fd, SSL *ssl)
{
    struct client *c = xcalloc(1, sizeof(*c));
    c->srv = r;
    c->id = ++r->last_id;
    c->tls = ssl != NULL;
    frame_reader_init(&c->in);
    c->timer = evtimer_new(r->f->base, client_late, c);
    if (ssl != NULL)
        tune_tcp(fd);
    c->tenant = ssl != NULL
                    ? bufferevent_openssl_socket_new(r->f->base, fd, ssl,
                                                     BUFFEREVENT_SSL_ACCEPTING,
                                                     BEV_OPT_CLOSE_ON_FREE)
                    : bufferevent_socket_new(r->f->base, fd, BEV_OPT_CLOSE_ON_FREE);
    c->next = r->clients;
    r->clients = c;
    r->count++;
    bufferevent_setcb(c->tenant, tenant_read, tenant_write, tenant_event, c);
    bufferevent_setwatermark(c->tenant, EV_READ, 0, PIPE_MAX);
    bufferevent_setwatermark(c->tenant, EV_WRITE, PIPE_MAX / 2, 0);
    bufferevent_enable(c->tenant, EV_READ | EV_WRITE);
    arm(c, RUNSRV_FIRST_US);
    greet(c, ssl != NULL ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0));
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

static int make_ctx(const struct front *f, SSL_CTX **ret, struct err *err)
{
    struct tlsx_files files = {.cert_file = f->cert.cert_file,
                               .key_file = f->cert.key_file};
    if (tlsx_server_ctx(&files, false, ret, err) != 0)
        return -1;
    SSL_CTX_set_alpn_select_cb(*ret, choose_alpn, NULL);
    return 0;
}

int runsrv_new_identity(struct runsrv *r, struct err *err)
{
    SSL_CTX *ctx;
    if (r->tcp == NULL)
        return 0;
    if (make_ctx(r->f, &ctx, err) != 0)
        return err_prefix(err, "run listener");
    SSL_CTX_free(r->ctx);
    r->ctx = ctx;
    return 0;
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
    const struct front_conf *conf = &r->f->conf;
    struct sockaddr_storage addr;
    socklen_t len = sizeof(addr);
    if (strcmp(conf->listen, "none") == 0)
        return 0;
    if (listen_address(conf->listen, &addr, &len, err) != 0)
        return -1;
    r->tcp = evconnlistener_new_bind(r->f->base, accepted, r,
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
    const char *dir = r->f->conf.runtime_dir;
    if (fsx_mkdirs(dir, 0755, err) != 0)
        return -1;
    if ((size_t)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/agent.sock", dir) >=
        sizeof(addr.sun_path))
        return err_set(err, ERR_BAD_REQUEST, "runtime_dir: %s is too long", dir);
    (void)unlink(addr.sun_path);
    mode_t old = umask(0117);
    r->local = evconnlistener_new_bind(r->f->base, accepted, r,
                                       LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC,
                                       16, (struct sockaddr *)&addr, sizeof(addr));
    (void)umask(old);
    if (r->local == NULL)
        return err_sys(err, errno, "%s", addr.sun_path);
    return 0;
}

int runsrv_new(struct front *f, struct runsrv **ret, struct err *err)
{
    struct runsrv *r = xcalloc(1, sizeof(*r));
    r->f = f;
    r->reaper = event_new(f->base, -1, 0, reap, r);
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
    while (r->clients != NULL) {
        struct client *c = r->clients;
        r->clients = c->next;
        client_free(c);
    }
    if (r->tcp != NULL)
        evconnlistener_free(r->tcp);
    if (r->local != NULL)
        evconnlistener_free(r->local);
    SSL_CTX_free(r->ctx);
    event_free(r->reaper);
    free(r);
}

const char *runsrv_address(const struct runsrv *r)
{
    return r->address;
}
