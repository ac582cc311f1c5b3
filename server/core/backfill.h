/* backfill: the waiting list's planner. Orders are planned in the order of the queue
 * (priority high first, then age, then id) over the live calendars; each takes the
 * earliest start within its bounds, of the plans at that start the cheapest, and its
 * shadow blocks that for those behind it and for newcomers: conservative backfill,
 * nobody is delayed by one behind. (Mu'alem and Feitelson 2001.)
 *
 * Each planning begins anew: a place follows from the market and from the orders before
 * it. So a start may become later when capacity leaves, and, seldom, when an order
 * before it finds another place as something is given back or taken; the first in the
 * queue is never later by what others book or give back.
 *
 * It books nothing and knows no prices in the ledger; an order it finds a place for is
 * booked by the caller. An order without a place has no shadow: it takes nothing from
 * those behind. The same archive serves neargpud and neargpu-sim. Pure. */
#ifndef NEARGPU_BACKFILL_H
#define NEARGPU_BACKFILL_H
#include "server/core/match.h"

struct backfill_order {
    int64_t id; /* unique, > 0; ties of the queue */
    int priority;
    int64_t since_us;
    struct match_query query; /* from_us .. latest_us: where it may start; borrowed
                                 pointers live as long as the order */
};
struct backfill_place {
    enum match_why why;      /* MATCH_OK: plan is there */
    struct match_plan *plan; /* the caller's, one an order */
};

/* Shadows have booking ids below `first_id` downwards: the caller keeps a range of its
 * own, for GPUs and for lanes alike. */
struct backfill {
    const struct match_market *market;
    struct calendar *calendar, *lanes; /* those of the market; lanes may be NULL */
    struct calendar *firm; /* also takes firm orders' shadows; may be NULL */
    int64_t first_id;
    int64_t shadow_count; /* of all orders planned; private */
};
/* < 0: a goes before b. */
int backfill_compare(const struct backfill_order *a, const struct backfill_order *b);
/* Removes all shadows, then plans orders[order[0]], orders[order[1]], … which the
 * caller has sorted by backfill_compare(); places parallel with orders. */
void backfill_plan(struct backfill *b, const struct backfill_order *orders,
                   size_t count, struct backfill_place *places);
/* Removes all shadows. */
void backfill_clear(struct backfill *b);

#endif
