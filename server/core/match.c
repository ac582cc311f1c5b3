/* match: facts of each offer first (RTT, slow-down, prices), then the bounds in one
 * fixed order, then the calendar, then one sort. */
#include "server/core/match.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "server/core/match_reason.h"

/* Slow-downs beyond this say "never" and keep products of prices inside 64 bits. */
#define SLOWDOWN_MAX 1e6

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

/* The RTT of the farthest data set; TOPO_UNKNOWN as soon as one is not known. */
static struct topo_rtt worst_rtt(const struct topo *topo, const struct match_offer *o,
                                 const struct match_query *q)
{
    struct topo_rtt worst = {0};
    for (size_t i = 0; i < q->data_count; i++) {
        struct topo_rtt rtt = topo_rtt(topo, o->site, q->data[i], q->now_us);
        if (rtt.source == TOPO_UNKNOWN) {
            return (struct topo_rtt){0};
        }
        if (worst.source == TOPO_UNKNOWN || rtt.rtt_us > worst.rtt_us) {
            worst = rtt;
        }
    }
    return worst;
}

/* All data sets share the site's link and the profile's demand is that of the whole
 * job, so the farthest one decides: the model never gets faster with distance. */
static void set_slowdown(const struct match_offer *o, const struct match_query *q,
                         struct match_place *p)
{
    p->slowdown_ppm = MATCH_PPM;
    if (q->profile == NULL || p->rtt.source == TOPO_UNKNOWN) {
        return;
    }
    struct slowdown_path path = {.rtt_s = (double)p->rtt.rtt_us * 1e-6,
                                 .bandwidth_Bps = (double)o->bandwidth_Bps,
                                 .service_s = SLOWDOWN_SERVICE_S};
    struct slowdown_result r;
    slowdown_predict(q->profile, &path, q->gpus, (double)q->len_us * 1e-6, &r);
    slowdown_advice(q->profile, &r, p->advice, sizeof p->advice);
    /* The one place where the model's doubles become an integer: half up to 1e-6. */
    p->slowdown_ppm =
        (int64_t)floor(fmin(r.job, SLOWDOWN_MAX) * (double)MATCH_PPM + 0.5);
}

static bool set_prices(const struct match_offer *o, const struct match_query *q,
                       struct match_place *p)
{
    int64_t gpu_us;
    return !__builtin_mul_overflow(q->len_us, (int64_t)q->gpus, &gpu_us) &&
           money_mul(gpu_us, o->price_micro, US_PER_HOUR, &p->price_total_micro,
                     NULL) == 0 &&
           money_mul(p->slowdown_ppm, p->price_total_micro, MATCH_PPM,
                     &p->effective_micro, NULL) == 0 &&
           money_mul(p->slowdown_ppm, o->price_micro, MATCH_PPM,
                     &p->effective_per_hour_micro, NULL) == 0;
}

static bool is_other(const char *asked, const char *have)
{
    return asked != NULL && strcmp(asked, have) != 0;
}

/* Bounds that need no calendar. */
static enum match_why judge_offer(const struct match_offer *o,
                                  const struct match_query *q,
                                  const struct match_place *p)
{
    if (q->gpu_model != NULL && !match_model_fits(o->gpu_model, q->gpu_model)) {
        return MATCH_MODEL;
    }
    if (o->gpu_memory_mib < q->min_memory_mib) {
        return MATCH_MEMORY;
    }
    if (is_other(q->residency, o->residency)) {
        return MATCH_RESIDENCY;
    }
    if (is_other(q->only_site, o->site_name) ||
        is_other(q->only_provider, o->provider_name)) {
        return MATCH_EXCLUDED;
    }
    if (!o->up) {
        return MATCH_DOWN;
    }
    bool needs_rtt = q->data_count > 0 && (q->max_rtt_us > 0 || q->profile != NULL);
    if (needs_rtt && p->rtt.source == TOPO_UNKNOWN) {
        return MATCH_NO_RTT;
    }
    if (q->max_rtt_us > 0 && p->rtt.rtt_us > q->max_rtt_us) {
        return MATCH_TOO_FAR;
    }
    if (q->max_price_micro > 0 && o->price_micro > q->max_price_micro) {
        return MATCH_TOO_DEAR;
    }
    if (q->max_slowdown_ppm > 0 && p->slowdown_ppm > q->max_slowdown_ppm) {
        return MATCH_TOO_SLOW;
    }
    return MATCH_OK;
}

/* Finds the slot; when there is none says how far the nearest one is. */
static enum match_why judge_calendar(const struct calendar *cal,
                                     const struct match_offer *o,
                                     const struct match_query *q, struct match_place *p,
                                     struct match_reason_facts *facts)
{
    facts->largest = calendar_largest(cal, o->site, o->model);
    if (facts->largest < q->gpus) {
        return MATCH_NODE_TOO_SMALL;
    }
    struct calendar_query find = {.site = o->site,
                                  .model = o->model,
                                  .gpus = q->gpus,
                                  .from_us = q->from_us,
                                  .latest_us = q->latest_us,
                                  .len_us = q->len_us,
                                  .spread = q->spread};
    bool fits = calendar_find(cal, &find, &p->slot);
    if (!fits) {
        int total;
        calendar_capacity(cal, o->site, o->model, q->from_us, q->from_us + q->len_us,
                          &p->free_gpus, &total);
        find.from_us = q->latest_us;
        find.latest_us = q->latest_us + HORIZON_US;
        struct calendar_slot later;
        facts->has_later = calendar_find(cal, &find, &later);
        facts->later_us = facts->has_later ? later.start_us : 0;
        return MATCH_BUSY;
    }
    return q->max_effective_micro > 0 && p->effective_micro > q->max_effective_micro
               ? MATCH_OVER_BUDGET
               : MATCH_OK;
}

int match_free(const struct calendar *cal, const struct match_offer *o,
               const struct match_place *p, int64_t len_us)
{
    int best, total;
    calendar_capacity(cal, o->site, o->model, p->slot.start_us,
                      p->slot.start_us + len_us, &best, &total);
    return best;
}

struct order {
    const struct match_offer *offers;
    uint32_t spread;
};

static int compare_i64(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

/* Unknown sorts behind every distance. */
static int64_t rtt_key(const struct match_place *p)
{
    return p->rtt.source == TOPO_UNKNOWN ? INT64_MAX : p->rtt.rtt_us;
}

/* Fibonacci hashing: neighbours in the list end far apart, differently per request. */
static uint32_t spread_key(const struct order *order, int offer)
{
    uint32_t x = ((uint32_t)offer ^ order->spread) * UINT32_C(2654435769);
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
        by = by != 0 ? by : compare_i64(rtt_key(a), rtt_key(b));
        by = by != 0 ? by
                     : compare_i64(order->offers[b->offer].reliability_ppm,
                                   order->offers[a->offer].reliability_ppm);
        by = by != 0 ? by
                     : compare_i64(spread_key(order, a->offer),
                                   spread_key(order, b->offer));
    }
    return by != 0 ? by : compare_i64(a->offer, b->offer);
}

size_t match_rank(const struct calendar *cal, const struct topo *topo,
                  const struct match_offer *offers, size_t offer_count,
                  const struct match_query *q, struct match_place *places)
{
    assert(q->gpus >= 1 && q->len_us > 0);
    size_t fitting = 0;
    for (size_t i = 0; i < offer_count; i++) {
        const struct match_offer *o = &offers[i];
        struct match_place *p = &places[i];
        struct match_reason_facts facts = {0};
        *p = (struct match_place){.offer = (int)i, .slot = {.node = -1, .first = -1}};
        p->rtt = worst_rtt(topo, o, q);
        set_slowdown(o, q, p);
        facts.price_overflow = !set_prices(o, q, p);
        p->why = judge_offer(o, q, p);
        if (p->why == MATCH_OK && facts.price_overflow) {
            p->why = MATCH_TOO_DEAR;
        }
        if (p->why == MATCH_OK) {
            p->why = judge_calendar(cal, o, q, p, &facts);
        }
        match_reason(o, q, &facts, p);
        fitting += p->why == MATCH_OK;
    }
    struct order order = {offers, q->spread};
    qsort_r(places, offer_count, sizeof *places, compare_places, &order);
    return fitting;
}
