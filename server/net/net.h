/* net: the front of the server as one thing: listening sockets, HTTP connections and
 * dispatch, wired together, with a graceful stop. What main uses. The program must
 * ignore SIGPIPE. */
#ifndef NEARGPU_NET_H
#define NEARGPU_NET_H
#include <event2/event.h>
#include <openssl/ssl.h>

#include "server/net/dispatch.h"
#include "server/net/http1.h"
#include "server/net/listen.h"

struct net_opts {
    struct event_base *base;
    struct flow_runner *runner;
    const struct flow_auth *auth;
    const struct route *routes; /* net_routes */
    size_t route_count;
    SSL_CTX *ctx; /* borrowed: tlsx_server_ctx(…, ask_client = true) */
    const char *const *addresses;
    size_t address_count;
    size_t max_connections;          /* 0: default */
    const struct bucket_rate *rates; /* NULL: defaults */
    bool access_log;
    void (*told)(void *arg, const struct http1_done *done); /* as in dispatch.h */
    void *told_arg;
    int64_t head_us, body_us, idle_us, write_us; /* 0: defaults of http1.h */
};

/* The API, one row per method and path (routes.c). */
extern const struct route net_routes[];
extern const size_t net_route_count;

struct net_stats {
    struct http1_stats http;
    struct dispatch_stats dispatch;
};

struct net;

int net_new(const struct net_opts *opts, struct net **ret, struct err *err) MUST_USE;
/* Before the runner is freed. NULL is fine. */
void net_free(struct net *n);
const char *net_address(const struct net *n, size_t i); /* "" past the last */
void net_stats(const struct net *n, struct net_stats *ret);
void net_set_ctx(struct net *n, SSL_CTX *ctx);

/* Accepts no more, ends idle connections and long polls, lets the others finish; calls
 * stopped(arg) from the loop when all are closed, or after NET_STOP_US. */
void net_stop(struct net *n, void (*stopped)(void *arg), void *arg);
#define NET_STOP_US INT64_C(10000000)

#endif
