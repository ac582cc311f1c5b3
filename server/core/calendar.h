/* calendar: which GPUs of which node are free when. Exact half-open intervals in
 * microseconds; at one instant an end comes before a start, so [a,b) and [b,c) touch
 * and do not overlap. Each GPU of a node is a bit (0..gpus-1). The database decides
 * bookings; this is a server's own copy that it matches on (a lost race means re-read).
 * Lanes of a path are booked the same way: a path is a node, a lane a bit.
 *
 * Within 14 days of calendar_expire's now no query scans the nodes of a site. Finding
 * allocates nothing, but writes scratch: a calendar belongs to one thread. No clock, no
 * I/O. Pure. */
#ifndef NEARGPU_CALENDAR_H
#define NEARGPU_CALENDAR_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/bounds.h"

struct calendar;

struct calendar_node {
    int site;         /* dense site index */
    int model;        /* dense GPU model index */
    int domain;       /* fabric domain within the site; 0: the site's common one */
    int gpus;         /* 1..GPUS_PER_NODE_MAX */
    uint64_t offered; /* advertised and healthy GPUs; 0: node is not offered now */
    /* Availability windows of the provider, sorted by start; empty: always. Windows
     * that touch or overlap count as one. */
    const struct calendar_span *windows; /* copied */
    size_t window_count;
};
struct calendar_span {
    int64_t from_us, to_us;
};

struct calendar *calendar_new(void);
void calendar_free(struct calendar *c);
/* Adds or replaces node `id` (dense index); its bookings stay. */
void calendar_set_node(struct calendar *c, int id, const struct calendar_node *n);
void calendar_set_offered(struct calendar *c, int id, uint64_t offered);
/* Site, model and fabric domain of node `id`; false: it is not set. */
bool calendar_where(const struct calendar *c, int id, int *ret_site, int *ret_model,
                    int *ret_domain);

/* Blocks GPUs [first, first+count) of node for [from,to) under booking id `booking`
 * (unique; the same id again replaces it: idempotent). An empty [from,to) blocks
 * nothing and forgets the id. Bookings of a node that is not set yet are kept. */
void calendar_book(struct calendar *c, int64_t booking, int node, int first, int count,
                   int64_t from_us, int64_t to_us);
/* Unknown ids have no effect (idempotent). */
void calendar_release(struct calendar *c, int64_t booking);
/* Forgets bookings that ended before now, and says where now is: from the first call
 * on, finding is quick for starts in the 14 days that follow; before it, and beyond
 * them, it is right but looks at each node. So: load nodes and bookings, call it once
 * (1,000,000 GPUs take seconds), then every minute or so. A now before the last one
 * moves nothing back. */
void calendar_expire(struct calendar *c, int64_t now_us);

/* GPUs of node free and offered during all of [from,to); 0 when from >= to. */
uint64_t calendar_free_mask(const struct calendar *c, int node, int64_t from_us,
                            int64_t to_us);
/* Lowest contiguous run of `count` set bits, best fit (smallest run that holds it,
 * ties: lowest); -1 when there is none. */
int calendar_pick(uint64_t mask, int count);

struct calendar_slot {
    int node, first;
    int64_t start_us;
};
/* One node of the site and model with `gpus` neighbours free during [start, start+len)
 * with the earliest start in [from, latest]. `skip` (may be NULL) says to leave a node
 * out. Among equal starts best fit (the run it is cut from is the shortest), then
 * lowest (node ^ spread) so that requests spread. `skip` must answer the same for the
 * same node within one call; it may not be asked about nodes that cannot win. */
typedef bool calendar_skip_fn(void *arg, int node);
struct calendar_query {
    int site, model, gpus;
    int64_t from_us, latest_us, len_us;
    uint32_t spread;
    calendar_skip_fn *skip;
    void *skip_arg;
};
bool calendar_find(const struct calendar *c, const struct calendar_query *q,
                   struct calendar_slot *ret);
/* `nodes` different nodes of the site and model, each with query.gpus neighbours free
 * during the same [start, start+len), with the earliest start in [from, latest].
 * one_domain: all of one fabric domain. Fills ret[0..nodes), all with that start;
 * false: there is none. */
struct calendar_gang {
    struct calendar_query query;
    int nodes;
    bool one_domain;
};
bool calendar_find_gang(const struct calendar *c, const struct calendar_gang *g,
                        struct calendar_slot *ret);
/* Capacity over time, for people to look at: for i in [0,count) what is free during
 * all of [from + i step, from + (i+1) step), as calendar_capacity says it. */
struct calendar_step {
    int best_node, total;
};
void calendar_series(const struct calendar *c, int site, int model, int64_t from_us,
                     int64_t step_us, size_t count, struct calendar_step *ret);
/* Over [from,to), site and model: the longest run of free neighbours on one node (what
 * can be sold as one piece), and all free GPUs. */
void calendar_capacity(const struct calendar *c, int site, int model, int64_t from_us,
                       int64_t to_us, int *ret_best_node, int *ret_total);
/* Longest run of neighbours any node of site and model offers when nothing is booked;
 * 0: no such node. Windows are not looked at. */
int calendar_largest(const struct calendar *c, int site, int model);
size_t calendar_booking_count(const struct calendar *c);
/* Bytes held, all tables together. */
size_t calendar_bytes(const struct calendar *c);

#endif
