/* improve: each round one order that knows a cheaper offer goes there; those in its way
 * on one node of that offer, and sometimes a few others, are taken out and put back,
 * large ones first, each at its cheapest offer with room. */
#include "server/core/improve.h"

#include <assert.h>
#include <stdlib.h>

#include "client/lib/xalloc.h"

#define OUT_MAX 24 /* orders taken out in one round: more seldom helps and costs */

struct search {
    struct calendar *calendar;
    const struct match_offer *offers;
    size_t offer_count;
    struct improve_item *items;
    size_t count;
    int64_t *ceiling; /* of each item's cost */
    int *by_cost;     /* [item * offer_count + rank]: allowed offers, cheapest first */
    size_t *allowed;  /* how many of them */
    uint64_t rng;
    size_t out[OUT_MAX];
    struct improve_item before[OUT_MAX];
    size_t out_count;
};

/* xorshift64*: a search needs no better one. */
static uint64_t draw(struct search *s, uint64_t below)
{
    s->rng ^= s->rng >> 12;
    s->rng ^= s->rng << 25;
    s->rng ^= s->rng >> 27;
    return (s->rng * UINT64_C(2685821657736338717) >> 32) % below;
}

static int64_t cost(const struct improve_item *item)
{
    return item->offer < 0 ? IMPROVE_UNSERVED_MICRO : item->cost_micro[item->offer];
}

static void set_ceilings(struct search *s, int64_t max_rise_ppm)
{
    for (size_t i = 0; i < s->count; i++) {
        __int128 now = cost(&s->items[i]);
        __int128 top = now + now * max_rise_ppm / MATCH_PPM;
        s->ceiling[i] =
            max_rise_ppm < 0 || top >= IMPROVE_NEVER ? IMPROVE_NEVER - 1 : (int64_t)top;
    }
}

/* Insertion sort by cost, ties by number: offers are some hundred at most. */
static void sort_offers(struct search *s, size_t i)
{
    const struct improve_item *item = &s->items[i];
    int *list = &s->by_cost[i * s->offer_count];
    size_t n = 0;
    for (size_t o = 0; o < s->offer_count; o++) {
        if (item->cost_micro[o] > s->ceiling[i]) {
            continue;
        }
        size_t at = n++;
        while (at > 0 && item->cost_micro[list[at - 1]] > item->cost_micro[o]) {
            list[at] = list[at - 1];
            at--;
        }
        list[at] = (int)o;
    }
    s->allowed[i] = n;
}

static void take_out(struct search *s, size_t i)
{
    for (size_t k = 0; k < s->out_count; k++) {
        if (s->out[k] == i) {
            return;
        }
    }
    if (s->out_count < OUT_MAX) {
        s->out[s->out_count] = i;
        s->before[s->out_count++] = s->items[i];
        calendar_release(s->calendar, s->items[i].booking);
    }
}

static void book(struct search *s, const struct improve_item *item)
{
    calendar_book(s->calendar, item->booking, item->slot.node, item->slot.first,
                  item->gpus, item->start_us, item->start_us + item->len_us);
}

static bool put_at(struct search *s, size_t i, int offer)
{
    struct improve_item *item = &s->items[i];
    struct calendar_query q = {.site = s->offers[offer].site,
                               .model = s->offers[offer].model,
                               .gpus = item->gpus,
                               .from_us = item->start_us,
                               .latest_us = item->start_us,
                               .len_us = item->len_us};
    if (!calendar_find(s->calendar, &q, &item->slot)) {
        return false;
    }
    item->offer = offer;
    book(s, item);
    return true;
}

/* Cheapest offer with room; now and then the second best, or the search runs in
 * circles. */
static bool put_back(struct search *s, size_t i)
{
    const int *list = &s->by_cost[i * s->offer_count];
    bool pass_one = draw(s, 8) == 0;
    for (size_t k = 0; k < s->allowed[i]; k++) {
        if (pass_one && k + 1 < s->allowed[i]) {
            pass_one = false;
            continue;
        }
        if (put_at(s, i, list[k])) {
            return true;
        }
    }
    return false;
}

/* Large ones first, they find room hardest; equal ones by chance. out[0] is placed. */
static void sort_out(struct search *s)
{
    for (size_t k = s->out_count - 1; k > 1; k--) {
        size_t other = 1 + draw(s, k);
        size_t i = s->out[k];
        struct improve_item item = s->before[k];
        s->out[k] = s->out[other];
        s->before[k] = s->before[other];
        s->out[other] = i;
        s->before[other] = item;
    }
    for (size_t k = 2; k < s->out_count; k++) {
        size_t i = s->out[k], at = k;
        struct improve_item item = s->before[k];
        while (at > 1 && s->before[at - 1].gpus < item.gpus) {
            s->out[at] = s->out[at - 1];
            s->before[at] = s->before[at - 1];
            at--;
        }
        s->out[at] = i;
        s->before[at] = item;
    }
}

static bool overlaps(const struct improve_item *a, const struct improve_item *b)
{
    return a->start_us < b->start_us + b->len_us &&
           b->start_us < a->start_us + a->len_us;
}

/* Takes out those that stand in the item's way on one node of the offer. */
static void clear_node(struct search *s, size_t i, int offer)
{
    size_t from = draw(s, s->count);
    int node = -1;
    for (size_t k = 0; k < s->count; k++) {
        size_t other = (from + k) % s->count;
        const struct improve_item *o = &s->items[other];
        if (other != i && o->offer == offer && (node < 0 || o->slot.node == node) &&
            overlaps(o, &s->items[i])) {
            node = o->slot.node;
            take_out(s, other);
        }
    }
}

static void restore(struct search *s)
{
    for (size_t k = 0; k < s->out_count; k++) {
        calendar_release(s->calendar, s->items[s->out[k]].booking);
    }
    for (size_t k = 0; k < s->out_count; k++) {
        s->items[s->out[k]] = s->before[k];
        if (s->before[k].offer >= 0) {
            book(s, &s->before[k]);
        }
    }
}

/* Tries one change; returns what it saves, 0 when it was undone. */
static int64_t try_change(struct search *s)
{
    size_t i = draw(s, s->count);
    const int *list = &s->by_cost[i * s->offer_count];
    size_t better = 0;
    while (better < s->allowed[i] &&
           s->items[i].cost_micro[list[better]] < cost(&s->items[i])) {
        better++;
    }
    if (better == 0) {
        return 0;
    }
    int offer = list[draw(s, better)];
    s->out_count = 0;
    take_out(s, i);
    bool fits = put_at(s, i, offer);
    if (!fits) {
        clear_node(s, i, offer);
        for (uint64_t more = draw(s, 4); more > 0; more--) {
            take_out(s, draw(s, s->count));
        }
        fits = put_at(s, i, offer);
    }
    if (fits && s->out_count > 1) {
        sort_out(s);
        for (size_t k = 1; fits && k < s->out_count; k++) {
            fits = put_back(s, s->out[k]) || s->before[k].offer < 0;
        }
    }
    __int128 saved = 0;
    for (size_t k = 0; k < s->out_count; k++) {
        saved += cost(&s->before[k]);
        saved -= cost(&s->items[s->out[k]]);
    }
    if (!fits || saved <= 0) {
        restore(s);
        return 0;
    }
    return (int64_t)saved;
}

int64_t improve(struct calendar *c, const struct match_offer *offers,
                size_t offer_count, struct improve_item *items, size_t count,
                const struct improve_limits *limits)
{
    int64_t saved = 0;
    if (count == 0 || offer_count == 0) {
        return 0;
    }
    assert(count <= IMPROVE_ITEMS_MAX);
    struct search s = {.calendar = c,
                       .offers = offers,
                       .offer_count = offer_count,
                       .items = items,
                       .count = count,
                       .rng = limits->seed | 1};
    s.ceiling = xcalloc(count, sizeof *s.ceiling);
    s.by_cost = xcalloc(count * offer_count, sizeof *s.by_cost);
    s.allowed = xcalloc(count, sizeof *s.allowed);
    set_ceilings(&s, limits->max_rise_ppm);
    for (size_t i = 0; i < count; i++) {
        assert(cost(&items[i]) != IMPROVE_NEVER);
        sort_offers(&s, i);
    }
    for (size_t round = 0; round < limits->rounds; round++) {
        saved += try_change(&s);
    }
    free(s.ceiling);
    free(s.by_cost);
    free(s.allowed);
    return saved;
}
