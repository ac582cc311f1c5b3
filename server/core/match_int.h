/* match_int: what the files of match share. Not for others.
 *
 * match.c         all places judged, sorted, worded
 * match_facts.c   one offer: round trip, slow-down, prices, bounds without a calendar
 * match_find.c    one offer's nodes and lanes in the calendars, for one site
 * match_plan.c    the best plan: one site, anywhere, federated
 * match_relax.c   the nearest relaxation of a rejected place
 * match_reason.c  the words */
#ifndef NEARGPU_MATCH_INT_H
#define NEARGPU_MATCH_INT_H
#include "server/core/match.h"

/* Paths there may be between two sites for one data set. */
#define MATCH_ROUTES_MAX 8

/* One way to one data set, wide enough. */
struct match_route {
    int path, lanes;
    int64_t price_micro; /* of all its lanes for an hour */
};
/* The ways to one data set, cheapest first; count 0: none is needed. */
struct match_routes {
    struct match_route route[MATCH_ROUTES_MAX];
    int count, data;
};

/* What is known of an offer without its calendar. */
struct match_facts {
    struct topo_rtt rtt; /* worst over the data sets */
    int64_t slowdown_ppm;
    int64_t gpu_hour_micro;                   /* firm or spot, as asked */
    int64_t total_micro;                      /* all nodes, GPUs and cheapest lanes */
    int64_t effective_micro;                  /* of the cheapest ways */
    int64_t price_micro, gpu_effective_micro; /* GPUs of one node; a GPU-hour */
    bool overflow;                            /* a price that does not fit */
    struct match_routes routes[DATASETS_PER_REQUEST_MAX];
    size_t route_count;
    bool brief;   /* the caller's wish: nothing else than why, when it is no */
    char *advice; /* where to put it, NULL: not wanted; MATCH_ADVICE_MAX bytes */
};
#define MATCH_ADVICE_MAX 120

static inline int match_nodes(const struct match_query *q)
{
    return q->nodes > 1 ? q->nodes : 1;
}

/* Fills all but advice's pointer; the bounds in one fixed order. */
enum match_why match_facts(const struct match_market *m, const struct match_query *q,
                           const struct match_offer *o, struct match_facts *f);
/* The same anew for the ways that the plan's group `group_count`, the one that is being
 * added, took (they may not be the cheapest): these come first in f->routes. */
enum match_why match_facts_by(const struct match_market *m, const struct match_query *q,
                              const struct match_plan *plan, int offer,
                              struct match_facts *f);
/* Is there more than one way to some data? */
static inline bool match_has_choice(const struct match_facts *f)
{
    for (size_t i = 0; i < f->route_count; i++) {
        if (f->routes[i].count > 1) {
            return true;
        }
    }
    return false;
}
/* One group's query of a federated one. */
struct match_query match_group_query(const struct match_query *q, int group);
/* quantity x price per hour over len; false: does not fit. */
bool match_price(int64_t quantity, int64_t price_micro, int64_t len_us,
                 int64_t *ret_micro);
/* Is `name` among them? */
bool match_named(const struct match_names *names, const char *name);
/* The zone a site counts for when zones must differ: two offers are of one zone. */
bool match_same_zone(const struct match_offer *a, const struct match_offer *b);

/* Nodes and lanes of one offer for one group, appended to the plan at its slot_count
 * and lanes_count; sets start_us. Nodes of the plan's slots so far are left out. */
enum match_why match_find(const struct match_market *m, const struct match_query *q,
                          int offer, const struct match_facts *f,
                          struct match_plan *plan);
/* Only the lanes, at the plan's start_us, which is returned; when one of them is taken
 * none is added: the next start worth a look, INT64_MAX: none. */
int64_t match_lanes_later(const struct match_market *m, const struct match_query *q,
                          const struct match_facts *f, struct match_plan *plan);
/* The next start at which a way that is taken at start_us may be free; INT64_MAX: none.
 */
int64_t match_ways_later(const struct match_market *m, const struct match_query *q,
                         const struct match_facts *f, int64_t start_us);
/* Prices and slow-down of a plan whose slots, lanes and groups' slow-downs are set;
 * false: does not fit. */
bool match_total(const struct match_market *m, struct match_plan *plan);
/* As match_rank() sorts: does plan a of one site go before b? */
bool match_plan_before(const struct match_market *m, const struct match_query *q,
                       const struct match_plan *a, const struct match_plan *b);
uint32_t match_spread(uint32_t spread, int offer);
/* One offer that passed match_facts(): calendar and budget. */
enum match_why match_site(const struct match_market *m, const struct match_query *q,
                          int offer, struct match_facts *f, struct match_plan *plan);
bool match_leaves_out(void *plan, int node); /* calendar_skip_fn */

#endif
