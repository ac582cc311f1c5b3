/* listen: see the header. */
#include "server/net/listen.h"

#include <assert.h>
#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client/lib/addr.h"
#include "client/lib/log.h"
#include "client/lib/xalloc.h"
#include "server/flow/flow.h"

/* Out of descriptors: trying again at once would only spin. */
#define ACCEPT_PAUSE_US 100000

struct listener {
    struct listen_opts opts;
    struct evconnlistener *sockets[LISTEN_ADDRESSES_MAX];
    char bound[LISTEN_ADDRESSES_MAX][FLOW_ADDR_MAX];
    size_t count;
    size_t open;
    bool paused, stopped;
    struct event *retry;
};

/* An IPv4 client of a dual-stack socket is shown, and counted, as IPv4. */
static void address_text(const struct sockaddr *sa, char *out, size_t cap)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)sa;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(out, cap, "%s:%u", host, (unsigned)ntohs(in->sin_port));
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)sa;
        unsigned port = ntohs(in6->sin6_port);
        bool mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
        if (mapped)
            inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], host, sizeof(host));
        else
            inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(out, cap, mapped ? "%s:%u" : "[%s]:%u", host, port);
    } else {
        snprintf(out, cap, "local:0");
    }
}

static void listener_set_accepting(struct listener *l, bool on)
{
    for (size_t i = 0; i < l->count; i++) {
        if (on)
            evconnlistener_enable(l->sockets[i]);
        else
            evconnlistener_disable(l->sockets[i]);
    }
    l->paused = !on;
}

static struct bufferevent *make_bev(struct listener *l, evutil_socket_t fd)
{
    int options = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;
    if (l->opts.ctx == NULL)
        return bufferevent_socket_new(l->opts.base, fd, options);
    SSL *ssl = SSL_new(l->opts.ctx);
    if (ssl == NULL)
        return NULL;
    struct bufferevent *bev = bufferevent_openssl_socket_new(
        l->opts.base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, options);
    if (bev == NULL)
        SSL_free(ssl);
    else /* a peer that just closes has ended, it has not broken anything */
        bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}

static void on_connection(struct evconnlistener *socket, evutil_socket_t fd,
                          struct sockaddr *sa, int sa_len, void *arg)
{
    (void)socket;
    (void)sa_len;
    struct listener *l = arg;
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    struct bufferevent *bev = make_bev(l, fd);
    if (bev == NULL) {
        evutil_closesocket(fd);
        return;
    }
    char remote[FLOW_ADDR_MAX];
    address_text(sa, remote, sizeof(remote));
    l->open++;
    if (l->open >= l->opts.max_connections) {
        listener_set_accepting(l, false);
        log_warn("%zu connections are open: accepting no more for now", l->open);
    }
    l->opts.on_accept(l->opts.env, bev, remote);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct listener *l = arg;
    if (!l->stopped && l->open < l->opts.max_connections)
        listener_set_accepting(l, true);
}

static void on_error(struct evconnlistener *socket, void *arg)
{
    (void)socket;
    struct listener *l = arg;
    log_warn("accept: %s", strerror(errno));
    listener_set_accepting(l, false);
    struct timeval tv = {.tv_sec = 0, .tv_usec = ACCEPT_PAUSE_US};
    event_add(l->retry, &tv);
}

static int listen_one(struct listener *l, const struct addrinfo *ai, const char *text,
                      struct err *err)
{
    struct evconnlistener *socket = evconnlistener_new_bind(
        l->opts.base, on_connection, l,
        LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_EXEC,
        LISTEN_BACKLOG, ai->ai_addr, (int)ai->ai_addrlen);
    if (socket == NULL)
        return err_sys(err, errno, "cannot listen on \"%s\"", text);
    evconnlistener_set_error_cb(socket, on_error);
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);
    if (getsockname(evconnlistener_get_fd(socket), (struct sockaddr *)&sa, &len) < 0) {
        evconnlistener_free(socket);
        return err_sys(err, errno, "cannot read the address of \"%s\"", text);
    }
    address_text((struct sockaddr *)&sa, l->bound[l->count], FLOW_ADDR_MAX);
    l->sockets[l->count++] = socket;
    return 0;
}

static int listen_on(struct listener *l, const char *text, struct err *err)
{
    struct addr at;
    if (!addr_split(text, strlen(text), &at) || at.port[0] == '\0')
        return err_set(err, ERR_USAGE, "listen address \"%s\": host:port is needed",
                       text);
    bool any = at.host[0] == '\0' || strcmp(at.host, "*") == 0;
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(any ? NULL : at.host, at.port, &hints, &found);
    if (rc != 0)
        return err_set(err, ERR_USAGE, "listen address \"%s\": %s", text,
                       gai_strerror(rc));
    rc = listen_one(l, found, text, err);
    freeaddrinfo(found);
    return rc;
}

int listener_new(const struct listen_opts *opts, struct listener **ret, struct err *err)
{
    if (opts->address_count == 0 || opts->address_count > LISTEN_ADDRESSES_MAX)
        return err_set(err, ERR_USAGE, "1 to %d listen addresses are needed",
                       LISTEN_ADDRESSES_MAX);
    struct listener *l = xcalloc(1, sizeof(*l));
    l->opts = *opts;
    if (l->opts.max_connections == 0)
        l->opts.max_connections = LISTEN_CONNECTIONS_MAX;
    l->retry = event_new(opts->base, -1, 0, on_retry, l);
    assert(l->retry != NULL);
    for (size_t i = 0; i < opts->address_count; i++)
        if (listen_on(l, opts->addresses[i], err) < 0) {
            listener_free(l);
            return -1;
        }
    *ret = l;
    return 0;
}

void listener_stop(struct listener *l)
{
    l->stopped = true;
    event_del(l->retry);
    for (size_t i = 0; i < l->count; i++)
        evconnlistener_free(l->sockets[i]);
    l->count = 0;
}

void listener_free(struct listener *l)
{
    if (l == NULL)
        return;
    listener_stop(l);
    event_free(l->retry);
    free(l);
}

const char *listener_address(const struct listener *l, size_t i)
{
    return i < LISTEN_ADDRESSES_MAX ? l->bound[i] : "";
}

void listener_closed(struct listener *l)
{
    assert(l->open > 0);
    l->open--;
    if (l->paused && !l->stopped && l->open < l->opts.max_connections)
        listener_set_accepting(l, true);
}

void listener_set_ctx(struct listener *l, SSL_CTX *ctx)
{
    l->opts.ctx = ctx;
}
