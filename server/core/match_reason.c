/* match_reason: one line per reason. Amounts are printed without a currency, because an
 * offer does not name one here; the caller's table does. */
#include "server/core/match_int.h"
#include "server/core/match_reason.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/lib/timefmt.h"

#define NUMBER_MAX 48 /* two 64-bit numbers and a point */

/* value / 1e6 (or 1e3) with the fewest digits, at least `least`, that are exact. */
static void decimal(int64_t value, int digits, int least, char out[NUMBER_MAX])
{
    int64_t scale = 1;
    for (int i = 0; i < digits; i++) {
        scale *= 10;
    }
    snprintf(out, NUMBER_MAX, "%" PRId64 ".%0*" PRId64, value / scale, digits,
             value % scale);
    size_t len = strlen(out);
    for (int i = digits; i > least && out[len - 1] == '0'; i--) {
        out[--len] = '\0';
    }
    if (out[len - 1] == '.') {
        out[len - 1] = '\0';
    }
}

static void compare(struct match_place *p, const char *label, int64_t have,
                    int64_t bound, const char *unit)
{
    bool is_ms = strcmp(unit, " ms") == 0;
    int digits = is_ms ? 3 : 6, least = is_ms ? 1 : 0;
    char a[NUMBER_MAX], b[NUMBER_MAX];
    decimal(have, digits, least, a);
    decimal(bound, digits, least, b);
    snprintf(p->reason, sizeof p->reason, "%s: %s%s > %s%s", label, a, unit, b, unit);
}

static void busy(const struct match_query *q, const struct match_reason_facts *facts,
                 struct match_place *p)
{
    char when[TIMEFMT_MAX], lack[80];
    if (q->nodes > 1)
        snprintf(lack, sizeof lack, "there are no %d nodes with %d free GPU%s each",
                 q->nodes, q->gpus, q->gpus == 1 ? "" : "s");
    else if (q->gpus == 1)
        snprintf(lack, sizeof lack, "no node has a free GPU");
    else
        snprintf(lack, sizeof lack,
                 "no node has %d free GPUs side by side, best has %d", q->gpus,
                 p->free_gpus);
    if (!facts->has_later) {
        snprintf(p->reason, sizeof p->reason, "%s", lack);
        return;
    }
    timefmt_utc(facts->later_us, when);
    snprintf(p->reason, sizeof p->reason, "busy until %s (before, %s)", when, lack);
}

static void path_busy(const struct match_reason_facts *facts, struct match_place *p)
{
    char when[TIMEFMT_MAX];
    if (!facts->has_later) {
        snprintf(p->reason, sizeof p->reason, "the path to the data is booked");
        return;
    }
    timefmt_utc(facts->later_us, when);
    snprintf(p->reason, sizeof p->reason,
             "the path to the data is booked, or not lit, until %s", when);
}

static void excluded(const struct match_offer *o, const struct match_query *q,
                     struct match_place *p)
{
    size_t cap = sizeof p->reason;
    bool by_site = q->only_site != NULL && strcmp(q->only_site, o->site_name) != 0;
    if (by_site)
        snprintf(p->reason, cap, "excluded: site %s, asked for %s", o->site_name,
                 q->only_site);
    else if (q->only_provider != NULL &&
             strcmp(q->only_provider, o->provider_name) != 0)
        snprintf(p->reason, cap, "excluded: provider %s, asked for %s",
                 o->provider_name, q->only_provider);
    else if (match_named(&q->deny_providers, o->provider_name))
        snprintf(p->reason, cap, "excluded: provider %s is not wanted",
                 o->provider_name);
    else if (match_named(&q->deny_sites, o->site_name))
        snprintf(p->reason, cap, "excluded: site %s is not wanted", o->site_name);
    else
        snprintf(p->reason, cap, "excluded: provider %s is not among those asked for",
                 o->provider_name);
}

static void too_small(const struct match_query *q,
                      const struct match_reason_facts *facts, struct match_place *p)
{
    if (facts->largest == 0) {
        snprintf(p->reason, sizeof p->reason, "no node offers GPUs now");
    } else {
        snprintf(p->reason, sizeof p->reason,
                 "node too small: %d GPUs side by side asked, largest node offers %d",
                 q->gpus, facts->largest);
    }
}

void match_reason(const struct match_market *m, const struct match_query *q,
                  const struct match_reason_facts *facts, struct match_place *p)
{
    const struct match_offer *o = &m->offers[p->offer];
    size_t cap = sizeof p->reason;
    p->reason[0] = '\0';
    switch (p->why) {
    case MATCH_OK:
    case MATCH_WHY_COUNT: break;
    case MATCH_DOWN: snprintf(p->reason, cap, "down: no node reported lately"); break;
    case MATCH_MODEL:
        snprintf(p->reason, cap, "other GPU: %s, asked for %s", o->gpu_model,
                 q->gpu_model);
        break;
    case MATCH_MEMORY:
        snprintf(p->reason, cap,
                 "too little GPU memory: %" PRId64 " MiB < %" PRId64 " MiB",
                 o->gpu_memory_mib, q->min_memory_mib);
        break;
    case MATCH_RESIDENCY:
        snprintf(p->reason, cap, "residency %s, asked for %s", o->residency,
                 q->residency);
        break;
    case MATCH_EXCLUDED: excluded(o, q, p); break;
    case MATCH_NO_RTT:
        snprintf(p->reason, cap,
                 "no RTT known to the data: not probed yet and no place to compute "
                 "it from");
        break;
    case MATCH_TOO_FAR:
        compare(p, "too far", p->rtt.rtt_us, q->max_rtt_us, " ms");
        break;
    case MATCH_TOO_DEAR:
        if (facts->price_overflow) {
            snprintf(p->reason, cap, "too dear: the price is out of range");
        } else {
            compare(p, "too dear", q->spot ? o->spot_price_micro : o->price_micro,
                    q->max_price_micro, " per GPU-hour");
        }
        break;
    case MATCH_TOO_SLOW:
        compare(p, "too slow", p->slowdown_ppm, q->max_slowdown_ppm, "");
        break;
    case MATCH_ZONE:
        snprintf(p->reason, cap, "in zone %s, which is to be avoided", o->zone);
        break;
    case MATCH_NO_SPOT: snprintf(p->reason, cap, "sells no spot leases"); break;
    case MATCH_NO_PATH:
        snprintf(p->reason, cap, "no path of that width to the data");
        break;
    case MATCH_TOO_FEW_NODES:
        snprintf(p->reason, cap, "fewer than %d nodes%s with %d GPU%s each", q->nodes,
                 q->together == MATCH_DOMAIN ? " of one fabric" : "", q->gpus,
                 q->gpus == 1 ? "" : "s");
        break;
    case MATCH_PATH_BUSY: path_busy(facts, p); break;
    case MATCH_NODE_TOO_SMALL: too_small(q, facts, p); break;
    case MATCH_BUSY: busy(q, facts, p); break;
    case MATCH_OVER_BUDGET:
        if (q->max_total_micro > 0 && p->price_total_micro > q->max_total_micro)
            compare(p, "over budget", p->price_total_micro, q->max_total_micro,
                    " in all");
        else
            compare(p, "over budget", p->effective_micro, q->max_effective_micro,
                    " effective");
        break;
    }
}
