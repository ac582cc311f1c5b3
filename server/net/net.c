/* net: see the header. */
#include "server/net/net.h"

#include <assert.h>
#include <stdlib.h>

#include "client/lib/xalloc.h"

struct net {
    struct event_base *base;
    struct dispatch *dispatch;
    struct http1_server *http;
    struct listener *listener;
    struct event *stop_timer;
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void on_accept(void *env, struct bufferevent *bev_take, const char *remote)
{
    struct net *n = env;
    http1_accept(n->http, bev_take, remote);
}

static void on_closed(void *env)
{
    struct net *n = env;
    if (n->listener != NULL)
        listener_closed(n->listener);
    if (n->stopping && http1_connections(n->http) == 0) {
        struct timeval now = {0, 0};
        event_add(n->stop_timer, &now);
    }
}

static void on_stop_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct net *n = arg;
    void (*stopped)(void *) = n->stopped;
    n->stopped = NULL;
    if (stopped != NULL)
        stopped(n->stopped_arg);
}

int net_new(const struct net_opts *opts, struct net **ret, struct err *err)
{
    struct net *n = xcalloc(1, sizeof(*n));
    struct dispatch_opts dispatch_opts = {
        .runner = opts->runner,
        .auth = opts->auth,
        .routes = opts->routes,
        .route_count = opts->route_count,
        .rates = opts->rates,
        .access_log = opts->access_log,
        .told = opts->told,
        .told_arg = opts->told_arg,
    };
    struct http1_opts http_opts = {
        .base = opts->base,
        .on_closed = on_closed,
        .closed_env = n,
        .head_us = opts->head_us,
        .body_us = opts->body_us,
        .idle_us = opts->idle_us,
        .write_us = opts->write_us,
    };
    struct listen_opts listen_opts = {
        .base = opts->base,
        .ctx = opts->ctx,
        .addresses = opts->addresses,
        .address_count = opts->address_count,
        .max_connections = opts->max_connections,
        .env = n,
        .on_accept = on_accept,
    };
    n->base = opts->base;
    n->stop_timer = event_new(opts->base, -1, 0, on_stop_timer, n);
    assert(n->stop_timer != NULL);
    n->dispatch = dispatch_new(&dispatch_opts);
    dispatch_fill(n->dispatch, &http_opts);
    n->http = http1_server_new(&http_opts);
    dispatch_bind(n->dispatch, n->http);
    if (listener_new(&listen_opts, &n->listener, err) < 0) {
        net_free(n);
        return -1;
    }
    *ret = n;
    return 0;
}

void net_free(struct net *n)
{
    if (n == NULL)
        return;
    n->stopping = false;
    http1_server_free(n->http);
    dispatch_free(n->dispatch);
    listener_free(n->listener);
    event_free(n->stop_timer);
    free(n);
}

const char *net_address(const struct net *n, size_t i)
{
    return listener_address(n->listener, i);
}

void net_stats(const struct net *n, struct net_stats *ret)
{
    http1_stats(n->http, &ret->http);
    dispatch_stats(n->dispatch, &ret->dispatch);
}

void net_set_ctx(struct net *n, SSL_CTX *ctx)
{
    listener_set_ctx(n->listener, ctx);
}

void net_stop(struct net *n, void (*stopped)(void *arg), void *arg)
{
    n->stopping = true;
    n->stopped = stopped;
    n->stopped_arg = arg;
    listener_stop(n->listener);
    http1_server_stop(n->http);
    bool none = http1_connections(n->http) == 0;
    struct timeval tv = {.tv_sec = none ? 0 : NET_STOP_US / 1000000, .tv_usec = 0};
    event_add(n->stop_timer, &tv);
}
