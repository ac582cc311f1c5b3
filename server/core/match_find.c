/* match_find: one offer's nodes, and the lanes to its data, at one start. GPUs and
 * lanes have calendars of their own: the one that is later says where the other looks
 * next, until both agree. */
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "server/core/match_int.h"

/* Turns of the search before it is called busy: each is a gap in some calendar. */
#define TURNS_MAX 256

bool match_leaves_out(void *plan, int node)
{
    const struct match_plan *p = plan;
    for (int i = 0; i < p->slot_count; i++) {
        if (p->slots[i].node == node) {
            return true;
        }
    }
    return false;
}

static int64_t setup_of(const struct match_market *m, const struct match_route *r)
{
    return m->paths->paths[r->path].setup_us;
}

/* ---- lanes ---- */

/* First lane of the way that is free for a lease from start, beside what the plan has
 * taken of the path; -1: none. */
static int lane_at(const struct match_market *m, const struct match_query *q,
                   const struct match_route *r, const struct match_plan *plan,
                   int64_t start_us)
{
    int64_t from_us = start_us - setup_of(m, r);
    if (from_us < q->now_us) {
        return -1;
    }
    uint64_t mask =
        calendar_free_mask(m->paths->lanes, r->path, from_us, start_us + q->len_us);
    for (int i = 0; i < plan->lanes_count; i++) {
        const struct match_lanes *l = &plan->lanes[i];
        if (l->path == r->path) {
            uint64_t run = l->count < 64 ? (UINT64_C(1) << l->count) - 1 : UINT64_MAX;
            mask &= ~(run << l->first);
        }
    }
    return calendar_pick(mask, r->lanes);
}

/* Earliest start after start_us at which the way may be free; INT64_MAX: none. */
static int64_t lane_later(const struct match_market *m, const struct match_query *q,
                          const struct match_route *r, int64_t start_us)
{
    int64_t setup_us = setup_of(m, r), from_us = start_us + 1 - setup_us;
    struct calendar_query find = {.site = 0,
                                  .model = r->path,
                                  .gpus = r->lanes,
                                  .from_us = from_us > q->now_us ? from_us : q->now_us,
                                  .latest_us = q->latest_us - setup_us,
                                  .len_us = q->len_us + setup_us};
    struct calendar_slot slot;
    if (find.from_us > find.latest_us ||
        !calendar_find(m->paths->lanes, &find, &slot)) {
        return INT64_MAX;
    }
    /* Free at once all the same: it is another group of this plan that has them. */
    return slot.start_us > find.from_us || find.from_us == q->now_us
               ? slot.start_us + setup_us
               : INT64_MAX;
}

/* Lanes to all the data at start, added to the plan, and start_us returned; else none
 * is added and the next start worth a look is returned, INT64_MAX: none. */
static int64_t add_lanes(const struct match_market *m, const struct match_query *q,
                         const struct match_facts *f, struct match_plan *plan,
                         int64_t start_us)
{
    int had = plan->lanes_count;
    int64_t next_us = start_us;
    for (size_t i = 0; i < f->route_count; i++) {
        const struct match_routes *ways = &f->routes[i];
        int64_t later_us = INT64_MAX;
        int first = ways->count == 0 ? 0 : -1, k = 0;
        for (; k < ways->count && first < 0; k++) {
            first = lane_at(m, q, &ways->route[k], plan, start_us);
        }
        if (ways->count > 0 && first >= 0) {
            const struct match_route *r = &ways->route[k - 1];
            plan->lanes[plan->lanes_count++] =
                (struct match_lanes){.path = r->path,
                                     .first = first,
                                     .count = r->lanes,
                                     .data = ways->data,
                                     .group = plan->group_count,
                                     .from_us = start_us - setup_of(m, r)};
        }
        for (k = 0; k < ways->count && first < 0; k++) {
            int64_t at_us = lane_later(m, q, &ways->route[k], start_us);
            later_us = at_us < later_us ? at_us : later_us;
        }
        if (first < 0 && later_us > next_us) {
            next_us = later_us;
        }
    }
    if (next_us != start_us) {
        plan->lanes_count = had;
    }
    return next_us;
}

int64_t match_lanes_later(const struct match_market *m, const struct match_query *q,
                          const struct match_facts *f, struct match_plan *plan)
{
    return add_lanes(m, q, f, plan, plan->start_us);
}

int64_t match_ways_later(const struct match_market *m, const struct match_query *q,
                         const struct match_facts *f, int64_t start_us)
{
    int64_t next_us = INT64_MAX;
    for (size_t i = 0; i < f->route_count; i++) {
        for (int k = 0; k < f->routes[i].count; k++) {
            int64_t at_us = lane_later(m, q, &f->routes[i].route[k], start_us);
            next_us = at_us < next_us ? at_us : next_us;
        }
    }
    return next_us;
}

/* ---- nodes ---- */

static bool find_nodes(const struct match_market *m, const struct match_query *q,
                       int offer, int64_t from_us, struct match_plan *plan)
{
    const struct match_offer *o = &m->offers[offer];
    struct calendar_slot found[MATCH_NODES_MAX];
    struct calendar_gang gang = {
        .query = {.site = o->site,
                  .model = o->model,
                  .gpus = q->gpus,
                  .from_us = from_us,
                  .latest_us = q->latest_us,
                  .len_us = q->len_us,
                  .spread = q->spread,
                  .skip = plan->slot_count > 0 ? match_leaves_out : NULL,
                  .skip_arg = plan},
        .nodes = match_nodes(q),
        .one_domain = q->together == MATCH_DOMAIN};
    bool fits = from_us <= q->latest_us &&
                (gang.nodes == 1 ? calendar_find(m->calendar, &gang.query, &found[0])
                                 : calendar_find_gang(m->calendar, &gang, found));
    for (int i = 0; fits && i < gang.nodes; i++) {
        plan->slots[plan->slot_count + i] = (struct match_slot){
            found[i].node, found[i].first, offer, plan->group_count};
    }
    if (fits) {
        plan->start_us = found[0].start_us;
    }
    return fits;
}

/* The first start that leaves time for the slowest set-up of the fastest ways. */
static int64_t first_start(const struct match_market *m, const struct match_query *q,
                           const struct match_facts *f)
{
    int64_t start_us = q->from_us;
    for (size_t i = 0; i < f->route_count; i++) {
        int64_t soonest_us = INT64_MAX;
        for (int k = 0; k < f->routes[i].count; k++) {
            int64_t at_us = q->now_us + setup_of(m, &f->routes[i].route[k]);
            soonest_us = at_us < soonest_us ? at_us : soonest_us;
        }
        if (f->routes[i].count > 0 && soonest_us > start_us) {
            start_us = soonest_us;
        }
    }
    return start_us;
}

enum match_why match_find(const struct match_market *m, const struct match_query *q,
                          int offer, const struct match_facts *f,
                          struct match_plan *plan)
{
    int64_t from_us = first_start(m, q, f);
    if (from_us > q->latest_us) {
        return MATCH_PATH_BUSY;
    }
    for (int turn = 0; turn < TURNS_MAX; turn++) {
        if (!find_nodes(m, q, offer, from_us, plan)) {
            return turn == 0 ? MATCH_BUSY : MATCH_PATH_BUSY;
        }
        from_us = add_lanes(m, q, f, plan, plan->start_us);
        if (from_us == plan->start_us) {
            plan->slot_count += match_nodes(q);
            return MATCH_OK;
        }
        if (from_us > q->latest_us) {
            break;
        }
    }
    return MATCH_PATH_BUSY;
}

/* ---- what it costs ---- */

int64_t match_slot_price(const struct match_market *m, const struct match_plan *p,
                         int slot)
{
    const struct match_offer *o = &m->offers[p->slots[slot].offer];
    return p->spot ? o->spot_price_micro : o->price_micro;
}

bool match_total(const struct match_market *m, struct match_plan *plan)
{
    bool fits = true;
    plan->per_hour_micro = plan->total_micro = 0;
    for (int i = 0; fits && i < plan->slot_count; i++) {
        int64_t micro, hour_micro, price = match_slot_price(m, plan, i);
        fits = match_price(plan->gpus, price, plan->len_us, &micro) &&
               !__builtin_mul_overflow(price, (int64_t)plan->gpus, &hour_micro) &&
               !__builtin_add_overflow(plan->total_micro, micro, &plan->total_micro) &&
               !__builtin_add_overflow(plan->per_hour_micro, hour_micro,
                                       &plan->per_hour_micro);
    }
    for (int i = 0; fits && i < plan->lanes_count; i++) {
        const struct match_lanes *l = &plan->lanes[i];
        int64_t micro, hour_micro, price = m->paths->paths[l->path].price_micro;
        fits = !__builtin_mul_overflow(price, (int64_t)l->count, &hour_micro) &&
               match_price(1, hour_micro, plan->len_us, &micro) &&
               !__builtin_add_overflow(plan->total_micro, micro, &plan->total_micro) &&
               !__builtin_add_overflow(plan->per_hour_micro, hour_micro,
                                       &plan->per_hour_micro);
    }
    return fits && money_mul(plan->slowdown_ppm, plan->total_micro, MATCH_PPM,
                             &plan->effective_micro, NULL) == 0;
}

static bool is_over(int64_t have, int64_t bound)
{
    return bound > 0 && have > bound;
}

static bool took_others(const struct match_plan *plan, const struct match_facts *f)
{
    for (int i = 0; i < plan->lanes_count; i++) {
        const struct match_lanes *l = &plan->lanes[i];
        if (f->routes[l->data].route[0].path != l->path) {
            return true;
        }
    }
    return false;
}

enum match_why match_site(const struct match_market *m, const struct match_query *q,
                          int offer, struct match_facts *f, struct match_plan *plan)
{
    plan->slot_count = plan->lanes_count = plan->group_count = 0;
    enum match_why why = match_find(m, q, offer, f, plan);
    if (why == MATCH_OK && took_others(plan, f)) {
        why = match_facts_by(m, q, plan, offer, f);
    }
    if (why != MATCH_OK) {
        return why;
    }
    plan->len_us = q->len_us;
    plan->gpus = q->gpus;
    plan->spot = q->spot;
    plan->group_count = 1;
    plan->coordinator = 0;
    plan->slowdown_ppm = f->slowdown_ppm;
    plan->groups[0] = (struct match_group){.data = -1,
                                           .site = m->offers[offer].site,
                                           .rtt = f->rtt,
                                           .slowdown_ppm = f->slowdown_ppm};
    if (!match_total(m, plan)) {
        return MATCH_TOO_DEAR;
    }
    return is_over(plan->total_micro, q->max_total_micro) ||
                   is_over(plan->effective_micro, q->max_effective_micro)
               ? MATCH_OVER_BUDGET
               : MATCH_OK;
}
