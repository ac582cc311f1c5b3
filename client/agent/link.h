/* link: the one way between the two processes of a running agent, a stream socketpair.
 *
 *   warden  root: leases, journal, gates, tokens, receipts; in a network namespace
 *           without interfaces
 *   front   an unprivileged user with everything taken away that it does not need
 *           (front_confine.h): the market's server, tenants' connections, probes
 *
 * A message is one byte kind, four bytes length (big endian) and that many bytes of
 * JSON, one object; link_rules[] says who may send it, how long it may be and whether a
 * descriptor comes with it. The warden believes nothing that comes here: whatever does
 * not fit the table, or what its taker refuses, ends the link, and with it that front
 * (another is started). The front ends when the link does.
 *
 * Invariants: messages arrive in order and whole; what waits for a slow reader is
 * bounded (LINK_QUEUE_MAX), past that the link ends; a descriptor is never received
 * from the front. */
#ifndef NEARGPU_AGENT_LINK_H
#define NEARGPU_AGENT_LINK_H
#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "client/lib/bounds.h"
#include "client/lib/err.h"

#define LINK_BYTES_MAX (4 * 1024 * 1024)    /* a sync: status and 1024 leases, twice */
#define LINK_QUEUE_MAX (2 * LINK_BYTES_MAX) /* a reader that far behind is stuck */
#define LINK_FDS_MAX   16                   /* received and not yet taken */

enum link_side { LINK_WARDEN, LINK_FRONT };

enum link_kind {
    /* front to warden */
    LINK_UP,    /* {"address"}: it listens there ("" nowhere) and is confined */
    LINK_REPLY, /* {"body"}: what the market answered to a sync */
    LINK_ACKED, /* {"countersigns"?,"rejected"?} | {"error"}: to the receipts sent last
                 */
    LINK_KEYS,  /* {"key_set"} | {"error"}: what LINK_FETCH asked for */
    LINK_GREET, /* {"client","fd"}: a tenant has come, a nonce is wanted; with his
                   connection when that is the node's own socket */
    LINK_REQUEST, /* {"client","type","payload"}: his first frame */
    LINK_GONE,    /* {"client"} */
    LINK_BANNED,  /* {"status"}: the signed document that revokes what runs here */
    /* warden to front */
    LINK_SETTINGS, /* first of all: what the front has to know; see warden_front.c */
    LINK_OBSERVED, /* {"body","fresh","changed","offset_us"?}: for the next sync */
    LINK_RECEIPTS, /* {"receipts"}: to be posted */
    LINK_FETCH,    /* {}: the market's key set is wanted */
    LINK_NONCE,    /* {"client","nonce","audience"}; without the two: he has them */
    LINK_ANSWER,   /* {"client","type","payload","fd"}: a frame for the tenant; with a
                      descriptor: the keeper's socket, whose frames follow it */
    LINK_KINDS
};

struct link_rule {
    const char *name;
    enum link_side from;
    size_t max; /* bytes of payload */
    bool may_have_fd;
};
extern const struct link_rule link_rules[LINK_KINDS];

struct link;

/* One message. `doc` is borrowed, fd (-1: none) is the taker's. -1: not understood,
 * which ends the link. Must not free the link. */
typedef int link_take_fn(void *arg, enum link_kind kind, const json_t *doc, int fd_take,
                         struct err *err);
/* The link is over, once, never from inside another call of the link: may free it. */
typedef void link_end_fn(void *arg, const struct err *why);

struct link_conf {
    enum link_side side; /* ours */
    link_take_fn *take;
    link_end_fn *end;
    void *arg;
};

/* Closes what the other side has sent, whatever it is, without waiting for anything.
 * -1: nothing. */
void link_drop_fd(int fd_take);

/* fd is taken, also made non-blocking. */
struct link *link_new(struct event_base *base, int fd_take, const struct link_conf *c);
void link_free(struct link *l);
/* Queues one message; doc is consumed, fd (-1: none) too. ERR_TOO_LARGE over the kind's
 * bound: then nothing was sent and the link goes on. On a link that has ended nothing
 * happens. */
int link_send(struct link *l, enum link_kind kind, json_t *doc_take, int fd_take,
              struct err *err) MUST_USE;

#endif
