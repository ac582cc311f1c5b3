/* listen: the listening sockets, and what turns an accepted one into a TLS connection
 * of http1. Bounded: past `max_connections` nothing is accepted until one has closed,
 * so that the kernel's backlog, not our memory, takes a rush. Knows nothing of HTTP. */
#ifndef NEARGPU_LISTEN_H
#define NEARGPU_LISTEN_H
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <openssl/ssl.h>

#include "client/lib/err.h"

#define LISTEN_ADDRESSES_MAX   16
#define LISTEN_CONNECTIONS_MAX 20000 /* 30 kB each: 600 MB */
#define LISTEN_BACKLOG         1024

struct listen_opts {
    struct event_base *base;
    SSL_CTX *ctx;                 /* borrowed; NULL: plain (tests, or behind a proxy on
                                     this machine) */
    const char *const *addresses; /* "host:port", "[v6]:port"; port 0: any */
    size_t address_count;
    size_t max_connections; /* 0: LISTEN_CONNECTIONS_MAX */
    void *env;
    /* A new connection: the bufferevent (callbacks deferred, closes its socket) and the
     * peer's address as text. */
    void (*on_accept)(void *env, struct bufferevent *bev_take, const char *remote);
};

struct listener;

/* Listens on all addresses, or fails naming the one it cannot have. */
int listener_new(const struct listen_opts *opts, struct listener **ret,
                 struct err *err) MUST_USE;
void listener_free(struct listener *l); /* NULL is fine */
/* The i-th address actually bound, as "host:port"; "" past the last. */
const char *listener_address(const struct listener *l, size_t i);
/* A connection given to on_accept is closed: room for another. */
void listener_closed(struct listener *l);
void listener_stop(struct listener *l); /* accepts no more */
/* New connections use this context from now on (certificates were renewed). */
void listener_set_ctx(struct listener *l, SSL_CTX *ctx);

#endif
