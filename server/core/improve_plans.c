/* improve_plans: the waiting list's plans as items, and back. Costs come from the same
 * facts that made the plans, so that a plan written here says what match_best would
 * have said of that offer. */
#include <assert.h>
#include <stdlib.h>

#include "client/lib/xalloc.h"
#include "server/core/improve.h"
#include "server/core/match_int.h"

struct batch {
    struct backfill *b;
    const struct backfill_order *orders;
    struct backfill_place *places;
    size_t offer_count;
    size_t count;
    size_t order[IMPROVE_ITEMS_MAX]; /* of each item */
    struct improve_item items[IMPROVE_ITEMS_MAX];
    int64_t *cost_micro; /* [item * offer_count + offer] */
};

static bool may_move(const struct match_query *q, const struct backfill_place *p)
{
    return p->why == MATCH_OK && p->plan->slot_count == 1 &&
           p->plan->lanes_count == 0 && q->bandwidth_Bps == 0 && !q->federated;
}

static bool is_over(int64_t have, int64_t bound)
{
    return bound > 0 && have > bound;
}

/* The order as it would be asked for its planned start. */
static struct match_query fixed(const struct match_query *q,
                                const struct match_plan *plan)
{
    struct match_query at = *q;
    at.from_us = at.latest_us = plan->start_us;
    return at;
}

static void ask_costs(struct batch *t, size_t item, const struct match_query *q)
{
    const struct match_market *m = t->b->market;
    for (size_t o = 0; o < t->offer_count; o++) {
        struct match_facts f = {.brief = true};
        bool fits = match_facts(m, q, &m->offers[o], &f) == MATCH_OK &&
                    !is_over(f.total_micro, q->max_total_micro) &&
                    !is_over(f.effective_micro, q->max_effective_micro);
        t->cost_micro[item * t->offer_count + o] =
            fits ? f.effective_micro : IMPROVE_NEVER;
    }
}

static void add_item(struct batch *t, size_t order, int64_t shadow)
{
    const struct match_plan *plan = t->places[order].plan;
    const struct match_slot *slot = &plan->slots[0];
    struct match_query q = fixed(&t->orders[order].query, plan);
    size_t item = t->count;
    ask_costs(t, item, &q);
    /* Sums of larger ones would not fit; nobody waits for such a one. */
    int64_t cost = t->cost_micro[item * t->offer_count + (size_t)slot->offer];
    if (cost >= IMPROVE_UNSERVED_MICRO / IMPROVE_ITEMS_MAX / 2) {
        return;
    }
    t->order[t->count++] = order;
    t->items[item] = (struct improve_item){
        .booking = shadow,
        .start_us = plan->start_us,
        .len_us = plan->len_us,
        .gpus = plan->gpus,
        .cost_micro = &t->cost_micro[item * t->offer_count],
        .offer = slot->offer,
        .slot = {slot->node, slot->first, plan->start_us},
    };
}

/* The plan at its new place; only what the place decides changes. */
static void rewrite(struct batch *t, size_t item)
{
    const struct improve_item *it = &t->items[item];
    const struct match_market *m = t->b->market;
    struct match_plan *plan = t->places[t->order[item]].plan;
    struct match_query q = fixed(&t->orders[t->order[item]].query, plan);
    struct match_group *group = &plan->groups[0];
    struct match_facts f = {0};
    enum match_why why = match_facts(m, &q, &m->offers[it->offer], &f);
    assert(why == MATCH_OK);
    plan->slots[0].node = it->slot.node;
    plan->slots[0].first = it->slot.first;
    plan->slots[0].offer = it->offer;
    group->site = m->offers[it->offer].site;
    group->rtt = f.rtt;
    group->advice[0] = '\0';
    group->slowdown_ppm = plan->slowdown_ppm = f.slowdown_ppm;
    bool fits = match_total(m, plan);
    assert(fits && plan->effective_micro == it->cost_micro[it->offer]);
    if (t->b->firm != NULL && !plan->spot) {
        calendar_book(t->b->firm, it->booking, it->slot.node, it->slot.first, it->gpus,
                      it->start_us, it->start_us + it->len_us);
    }
}

int64_t improve_plans(struct backfill *b, const struct backfill_order *orders,
                      size_t count, struct backfill_place *places,
                      const struct improve_limits *limits)
{
    const struct match_market *m = b->market;
    struct batch *t = xcalloc(1, sizeof *t);
    t->b = b;
    t->orders = orders;
    t->places = places;
    t->offer_count = m->offer_count;
    t->cost_micro = xcalloc(IMPROVE_ITEMS_MAX * (m->offer_count + 1), sizeof(int64_t));
    /* Shadows are numbered downwards in the order of planning, slots before lanes. */
    int64_t shadow = b->first_id;
    for (size_t i = 0; i < count; i++) {
        const struct match_plan *plan = places[i].plan;
        if (places[i].why != MATCH_OK) {
            continue;
        }
        if (t->count < IMPROVE_ITEMS_MAX && may_move(&orders[i].query, &places[i])) {
            add_item(t, i, shadow);
        }
        shadow -= plan->slot_count + (b->lanes != NULL ? plan->lanes_count : 0);
    }
    assert(b->first_id - shadow == b->shadow_count);
    int64_t saved =
        improve(b->calendar, m->offers, m->offer_count, t->items, t->count, limits);
    for (size_t i = 0; i < t->count; i++) {
        rewrite(t, i);
    }
    free(t->cost_micro);
    free(t);
    return saved;
}
