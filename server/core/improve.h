/* improve: lowers the total effective cost of placements that were made one after the
 * other. The queue gives each order the best place left when its turn comes; taken
 * together that costs 5 to 20 % more than the best assignment of all of them. Here
 * some are taken out and put back differently, again and again, and what is cheaper in
 * sum is kept (large neighbourhood search: Shaw 1998; Pisinger and Ropke 2007).
 *
 * What may change is the place, nothing else: every order keeps its start, none loses
 * its place (one without may win one), and each goes only where its own bounds allow.
 * An order may get dearer so that others save more, by max_rise_ppm of what the queue
 * had given it at most: with 0 nobody gets worse, and since the queue's answer has
 * nobody who could do better alone, little is won.
 *
 * Single nodes without booked paths only: gangs stay where they are. It ranks nothing
 * and predicts nothing: the caller says what each order costs at each offer. The same
 * input and seed give the same answer. Pure. */
#ifndef NEARGPU_IMPROVE_H
#define NEARGPU_IMPROVE_H
#include <stddef.h>
#include <stdint.h>

#include "server/core/backfill.h"
#include "server/core/calendar.h"
#include "server/core/match.h"

#define IMPROVE_NEVER INT64_MAX
/* What serving one more is worth: more than all costs of a batch. */
#define IMPROVE_UNSERVED_MICRO (INT64_C(1) << 56)

#define IMPROVE_ITEMS_MAX 64 /* so that what is saved stays within 64 bits */

struct improve_item {
    int64_t booking; /* in the calendar under this id */
    int64_t start_us, len_us;
    int gpus;
    /* Effective cost at each offer, IMPROVE_NEVER where its bounds forbid it; borrowed.
     */
    const int64_t *cost_micro;
    int offer;                 /* where it is, -1: nowhere and not booked; changed */
    struct calendar_slot slot; /* its node and first GPU; changed */
};
/* A sensible limit: batches come within 2 % of the optimum, with half of it 6 %
 * (tests/bench/bench_place.sh). */
#define IMPROVE_RISE_PPM INT64_C(500000)

struct improve_limits {
    size_t rounds;        /* tries; cost grows with it, some microseconds each */
    int64_t max_rise_ppm; /* < 0: no limit but the order's own bounds */
    uint64_t seed;
};
/* Moves bookings of the items within the calendar. Returns micro-units saved, >= 0,
 * IMPROVE_UNSERVED_MICRO for each that was without a place and got one. Costs are below
 * 2^49 (560 million), items at most IMPROVE_ITEMS_MAX. */
int64_t improve(struct calendar *c, const struct match_offer *offers,
                size_t offer_count, struct improve_item *items, size_t count,
                const struct improve_limits *limits);

/* The same for what backfill_plan() just planned with these orders: the first
 * IMPROVE_ITEMS_MAX of them that take one node and no lanes. Moves their shadows and
 * rewrites their plans; starts, and whether an order has a plan, stay. */
int64_t improve_plans(struct backfill *b, const struct backfill_order *orders,
                      size_t count, struct backfill_place *places,
                      const struct improve_limits *limits);

#endif
