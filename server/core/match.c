/* match: every place judged: facts first (RTT, slow-down, prices), then the bounds in
 * one fixed order, then the calendars, then one sort; those that do not fit get words
 * and the nearest relaxation. match_plan.c finds the best without all that. */
#include "server/core/match.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "server/core/match_int.h"
#include "server/core/match_reason.h"

static const char *const why_names[MATCH_WHY_COUNT] = {
    [MATCH_OK] = "ok",
    [MATCH_DOWN] = "down",
    [MATCH_MODEL] = "model",
    [MATCH_MEMORY] = "memory",
    [MATCH_RESIDENCY] = "residency",
    [MATCH_EXCLUDED] = "excluded",
    [MATCH_NO_RTT] = "no_rtt",
    [MATCH_TOO_FAR] = "too_far",
    [MATCH_TOO_DEAR] = "too_dear",
    [MATCH_TOO_SLOW] = "too_slow",
    [MATCH_NODE_TOO_SMALL] = "node_too_small",
    [MATCH_ZONE] = "zone",
    [MATCH_NO_SPOT] = "no_spot",
    [MATCH_NO_PATH] = "no_path",
    [MATCH_TOO_FEW_NODES] = "too_few_nodes",
    [MATCH_BUSY] = "busy",
    [MATCH_PATH_BUSY] = "path_busy",
    [MATCH_OVER_BUDGET] = "over_budget",
};

const char *match_why_name(enum match_why why)
{
    return (unsigned)why < MATCH_WHY_COUNT ? why_names[why] : "unknown";
}

/* Lower case, and 0 for a separator: ASCII only, whatever the locale. */
static char fold(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return (char)(c - 'A' + 'a');
    }
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? c : 0;
}

bool match_model_fits(const char *have, const char *want)
{
    size_t len = strlen(want);
    size_t have_len = strlen(have);
    for (size_t at = 0; len > 0 && at + len <= have_len; at++) {
        bool is_word =
            (at == 0 || fold(have[at - 1]) == 0) && fold(have[at + len]) == 0;
        size_t i = 0;
        while (is_word && i < len && fold(have[at + i]) == fold(want[i])) {
            i++;
        }
        if (is_word && i == len) {
            return true;
        }
    }
    return false;
}

/* ---- one place ---- */

/* The request as one place is asked: of a gang anywhere it may give one node, of a
 * federated one it may serve one of the groups. */
static struct match_query asked_of_place(const struct match_query *q, int group)
{
    struct match_query one = q->federated ? match_group_query(q, group) : *q;
    if (one.together == MATCH_ANY) {
        one.nodes = 1;
    }
    return one;
}

static void lacks(const struct match_market *m, const struct match_query *q,
                  const struct match_offer *o, struct match_place *p,
                  struct match_reason_facts *facts)
{
    int total;
    calendar_capacity(m->calendar, o->site, o->model, q->from_us,
                      q->from_us + q->len_us, &p->free_gpus, &total);
    struct match_query later = *q, alone;
    struct match_plan plan;
    later.from_us = q->latest_us;
    later.latest_us = q->latest_us + HORIZON_US;
    later.max_total_micro = later.max_effective_micro = 0;
    facts->has_later = match_at(m, &later, p->offer, &plan) == MATCH_OK;
    facts->later_us = facts->has_later ? plan.start_us : 0;
    if (facts->has_later || match_nodes(q) == 1 || p->why == MATCH_PATH_BUSY) {
        return;
    }
    alone = later;
    alone.nodes = 1;
    alone.bandwidth_Bps = 0;
    if (match_at(m, &alone, p->offer, &plan) == MATCH_OK) {
        p->why = MATCH_TOO_FEW_NODES;
    }
}

static void judge(const struct match_market *m, const struct match_query *q, int offer,
                  struct match_place *p)
{
    const struct match_offer *o = &m->offers[offer];
    struct match_reason_facts facts = {0};
    *p = (struct match_place){.offer = offer, .slot = {.node = -1, .first = -1}};
    p->relax.member = "";
    struct match_facts f = {.advice = p->advice};
    struct match_plan plan;
    p->why = match_facts(m, q, o, &f);
    facts.price_overflow = f.overflow;
    p->rtt = f.rtt;
    p->slowdown_ppm = f.slowdown_ppm;
    p->price_total_micro = f.total_micro;
    p->effective_micro = f.effective_micro;
    p->effective_per_hour_micro = f.gpu_effective_micro;
    if (p->why == MATCH_OK) {
        facts.largest = calendar_largest(m->calendar, o->site, o->model);
        p->why = facts.largest < q->gpus ? MATCH_NODE_TOO_SMALL
                                         : match_site(m, q, offer, &f, &plan);
    }
    if (p->why == MATCH_OK) {
        p->slot = (struct calendar_slot){plan.slots[0].node, plan.slots[0].first,
                                         plan.start_us};
        p->rtt = plan.groups[0].rtt;
        p->slowdown_ppm = plan.slowdown_ppm;
        p->price_total_micro = plan.total_micro;
        p->effective_micro = plan.effective_micro;
        return;
    }
    if (p->why == MATCH_BUSY || p->why == MATCH_PATH_BUSY) {
        lacks(m, q, o, p, &facts);
    }
    match_reason(m, q, &facts, p);
    match_relax(m, q, &facts, p);
}

int match_free(const struct calendar *cal, const struct match_offer *o,
               const struct match_place *p, int64_t len_us)
{
    int best, total;
    calendar_capacity(cal, o->site, o->model, p->slot.start_us,
                      p->slot.start_us + len_us, &best, &total);
    return best;
}

/* ---- their order ---- */

struct order {
    const struct match_offer *offers;
    uint32_t spread;
};

static int compare_i64(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

/* Unknown sorts behind every distance. */
static int64_t rtt_key(const struct topo_rtt *rtt)
{
    return rtt->source == TOPO_UNKNOWN ? INT64_MAX : rtt->rtt_us;
}

/* Fibonacci hashing: neighbours in the list end far apart, differently per request. */
uint32_t match_spread(uint32_t spread, int offer)
{
    uint32_t x = ((uint32_t)offer ^ spread) * UINT32_C(2654435769);
    return (x ^ x >> 15) * UINT32_C(2246822519);
}

static int compare_places(const void *pa, const void *pb, void *arg)
{
    const struct match_place *a = pa, *b = pb;
    const struct order *order = arg;
    int by = compare_i64(a->why, b->why);
    if (by == 0 && a->why == MATCH_OK) {
        by = compare_i64(a->effective_micro, b->effective_micro);
        by = by != 0 ? by : compare_i64(a->slot.start_us, b->slot.start_us);
        by = by != 0 ? by : compare_i64(rtt_key(&a->rtt), rtt_key(&b->rtt));
        by = by != 0 ? by
                     : compare_i64(order->offers[b->offer].reliability_ppm,
                                   order->offers[a->offer].reliability_ppm);
        by = by != 0 ? by
                     : compare_i64(match_spread(order->spread, a->offer),
                                   match_spread(order->spread, b->offer));
    }
    return by != 0 ? by : compare_i64(a->offer, b->offer);
}

bool match_plan_before(const struct match_market *m, const struct match_query *q,
                       const struct match_plan *a, const struct match_plan *b)
{
    int oa = a->slots[0].offer, ob = b->slots[0].offer;
    int by = compare_i64(a->effective_micro, b->effective_micro);
    by = by != 0 ? by : compare_i64(a->start_us, b->start_us);
    by = by != 0 ? by
                 : compare_i64(rtt_key(&a->groups[0].rtt), rtt_key(&b->groups[0].rtt));
    by = by != 0 ? by
                 : compare_i64(m->offers[ob].reliability_ppm,
                               m->offers[oa].reliability_ppm);
    by = by != 0
             ? by
             : compare_i64(match_spread(q->spread, oa), match_spread(q->spread, ob));
    return (by != 0 ? by : compare_i64(oa, ob)) < 0;
}

void match_advise(const struct match_market *m, const struct match_query *q,
                  struct match_plan *plan)
{
    int64_t worst_ppm[MATCH_GROUPS_MAX] = {0};
    for (int i = 0; i < plan->slot_count; i++) {
        const struct match_slot *s = &plan->slots[i];
        struct match_query one = asked_of_place(q, s->group);
        char advice[MATCH_ADVICE_MAX] = "";
        struct match_facts f = {.advice = advice};
        match_facts(m, &one, &m->offers[s->offer], &f);
        if (f.slowdown_ppm > worst_ppm[s->group]) {
            worst_ppm[s->group] = f.slowdown_ppm;
            memcpy(plan->groups[s->group].advice, advice, sizeof advice);
        }
    }
}

size_t match_judge(const struct match_market *m, const struct match_query *q,
                   struct match_place *places)
{
    assert(q->gpus >= 1 && q->len_us > 0);
    size_t fitting = 0;
    int groups = q->federated ? (int)q->data_count : 1;
    for (size_t i = 0; i < m->offer_count; i++) {
        for (int g = 0; g < groups; g++) {
            struct match_query one = asked_of_place(q, g);
            struct match_place p;
            judge(m, &one, (int)i, &p);
            bool is_better = p.why == MATCH_OK
                                 ? places[i].why != MATCH_OK
                                 : p.why > places[i].why && places[i].why != MATCH_OK;
            if (g == 0 || is_better) {
                places[i] = p;
            }
        }
        fitting += places[i].why == MATCH_OK;
    }
    struct order order = {m->offers, q->spread};
    qsort_r(places, m->offer_count, sizeof *places, compare_places, &order);
    return fitting;
}

size_t match_rank(const struct calendar *cal, const struct topo *topo,
                  const struct match_offer *offers, size_t offer_count,
                  const struct match_query *q, struct match_place *places)
{
    const struct match_market m = {
        .calendar = cal, .topo = topo, .offers = offers, .offer_count = offer_count};
    return match_judge(&m, q, places);
}
