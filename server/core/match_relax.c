/* match_relax: what a tenant would have to give way in, and by how much. Each proposal
 * is tried: the place is judged again with that one member changed, and what does not
 * fit then is not proposed. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/lib/timefmt.h"
#include "server/core/match_int.h"
#include "server/core/match_reason.h"

#define MS 1000

static bool fits(const struct match_market *m, const struct match_query *q,
                 const struct match_place *p)
{
    struct match_plan plan;
    return match_at(m, q, p->offer, &plan) == MATCH_OK;
}

/* ---- words ---- */

static void amount_text(struct match_relax *r, const char *before, int64_t micro,
                        const char *after)
{
    char number[32];
    snprintf(number, sizeof number, "%" PRId64 ".%06" PRId64, micro / 1000000,
             micro % 1000000);
    size_t len = strlen(number);
    while (number[len - 1] == '0') {
        number[--len] = '\0';
    }
    if (number[len - 1] == '.') {
        number[len - 1] = '\0';
    }
    snprintf(r->text, sizeof r->text, "%s%s%s", before, number, after);
}

/* "23:40" or, when it is another day or not a whole minute, more. */
static void time_text(int64_t at_us, const char *other, char out[TIMEFMT_MAX])
{
    char at[TIMEFMT_MAX];
    timefmt_utc(at_us, at);
    bool same_day = strncmp(at, other, 10) == 0;
    bool whole = strncmp(at + 16, ":00Z", 4) == 0;
    if (same_day && whole) {
        snprintf(out, TIMEFMT_MAX, "%.5s", at + 11);
    } else {
        snprintf(out, TIMEFMT_MAX, "%s", same_day ? at + 11 : at);
    }
}

/* ---- proposals ---- */

static bool by_start(const struct match_market *m, const struct match_query *q,
                     const struct match_reason_facts *facts, struct match_place *p)
{
    struct match_query by = *q;
    char asked[TIMEFMT_MAX], from[TIMEFMT_MAX], to[TIMEFMT_MAX];
    if (!facts->has_later) {
        return false;
    }
    /* A whole minute, or second, reads better; the very instant is there at last. */
    static const int64_t steps_us[] = {60 * US_PER_S, US_PER_S, 1};
    size_t i = 0;
    do {
        int64_t step_us = steps_us[i++];
        by.from_us = by.latest_us = (facts->later_us + step_us - 1) / step_us * step_us;
    } while (!fits(m, &by, p) && i < 3);
    if (!fits(m, &by, p)) {
        return false;
    }
    timefmt_utc(q->latest_us / US_PER_S * US_PER_S, asked);
    time_text(by.from_us, asked, to);
    time_text(q->latest_us / US_PER_S * US_PER_S, asked, from);
    p->relax.member = "start";
    p->relax.value = by.from_us;
    snprintf(p->relax.text, sizeof p->relax.text, "%s instead of %s", to, from);
    return true;
}

static bool by_gpus(const struct match_market *m, const struct match_query *q, int most,
                    struct match_place *p)
{
    struct match_query by = *q;
    for (int gpus = most < q->gpus ? most : q->gpus - 1; gpus > 0; gpus--) {
        by.gpus = gpus;
        if (fits(m, &by, p)) {
            p->relax.member = "gpus";
            p->relax.value = gpus;
            snprintf(p->relax.text, sizeof p->relax.text, "%d GPU%s", gpus,
                     gpus == 1 ? "" : "s");
            return true;
        }
    }
    return false;
}

static bool by_nodes(const struct match_market *m, const struct match_query *q,
                     struct match_place *p)
{
    struct match_query by = *q;
    for (by.nodes = match_nodes(q) - 1; by.nodes > 0; by.nodes--) {
        if (fits(m, &by, p)) {
            p->relax.member = "nodes";
            p->relax.value = by.nodes;
            snprintf(p->relax.text, sizeof p->relax.text, "%d node%s instead of %d",
                     by.nodes, by.nodes == 1 ? "" : "s", q->nodes);
            return true;
        }
    }
    return false;
}

/* The widest that fits, in whole lanes of some path; 0: without a path of its own. */
static bool by_bandwidth(const struct match_market *m, const struct match_query *q,
                         struct match_place *p)
{
    struct match_query by = *q;
    int64_t best_Bps = -1;
    for (size_t i = 0; m->paths != NULL && i < m->paths->count; i++) {
        const struct match_path *way = &m->paths->paths[i];
        for (int lanes = way->lanes; lanes > 0; lanes--) {
            by.bandwidth_Bps = lanes * way->lane_Bps;
            if (by.bandwidth_Bps < q->bandwidth_Bps && by.bandwidth_Bps > best_Bps &&
                fits(m, &by, p)) {
                best_Bps = by.bandwidth_Bps;
            }
        }
    }
    by.bandwidth_Bps = 0;
    if (best_Bps < 0 && !fits(m, &by, p)) {
        return false;
    }
    p->relax.member = "bandwidth";
    p->relax.value = best_Bps > 0 ? best_Bps : 0;
    if (best_Bps > 0) {
        amount_text(&p->relax, "", best_Bps / 1000 * 8, " Gbit/s");
    } else {
        snprintf(p->relax.text, sizeof p->relax.text, "no path of its own");
    }
    return true;
}

/* A member that is a name: the place's own. */
static bool by_name(const struct match_market *m, const struct match_query *by,
                    struct match_place *p, const char *member, const char *name)
{
    if (!fits(m, by, p)) {
        return false;
    }
    p->relax.member = member;
    p->relax.name = name;
    snprintf(p->relax.text, sizeof p->relax.text, "%s %s", member, name);
    return true;
}

/* A list of names that are not wanted, without this one: tried without the list. */
static bool by_leave(const struct match_market *m, const struct match_query *by,
                     struct match_place *p, const char *member, const char *name)
{
    if (!by_name(m, by, p, member, name)) {
        return false;
    }
    snprintf(p->relax.text, sizeof p->relax.text, "allow %.50s", name);
    return true;
}

static void by_exclusion(const struct match_market *m, const struct match_query *q,
                         struct match_place *p)
{
    const struct match_offer *o = &m->offers[p->offer];
    struct match_query by = *q;
    if (match_named(&q->deny_providers, o->provider_name)) {
        by.deny_providers.count = 0;
        by_leave(m, &by, p, "deny_provider", o->provider_name);
    } else if (match_named(&q->deny_sites, o->site_name)) {
        by.deny_sites.count = 0;
        by_leave(m, &by, p, "deny_site", o->site_name);
    } else if (q->only_site != NULL && strcmp(q->only_site, o->site_name) != 0) {
        by.only_site = o->site_name;
        by_name(m, &by, p, "site", o->site_name);
    } else {
        by.only_provider = NULL;
        by.only_providers.count = 0;
        by_name(m, &by, p, "provider", o->provider_name);
    }
}

/* ---- bounds that are numbers ---- */

static void by_rtt(const struct match_market *m, const struct match_query *q,
                   struct match_place *p)
{
    struct match_query by = *q;
    by.max_rtt_us = (p->rtt.rtt_us + MS - 1) / MS * MS;
    if (fits(m, &by, p)) {
        p->relax.member = "max_rtt";
        p->relax.value = by.max_rtt_us;
        amount_text(&p->relax, "+", (by.max_rtt_us - q->max_rtt_us) * MS, " ms");
    }
}

static void by_price(const struct match_market *m, const struct match_query *q,
                     struct match_place *p)
{
    const struct match_offer *o = &m->offers[p->offer];
    struct match_query by = *q;
    by.max_price_micro = q->spot ? o->spot_price_micro : o->price_micro;
    if (by.max_price_micro > q->max_price_micro && fits(m, &by, p)) {
        p->relax.member = "max_price_per_gpu_hour";
        p->relax.value = by.max_price_micro;
        amount_text(&p->relax, "", by.max_price_micro - q->max_price_micro,
                    " more per GPU-hour");
    }
}

static void by_slowdown(const struct match_market *m, const struct match_query *q,
                        struct match_place *p)
{
    struct match_query by = *q;
    by.max_slowdown_ppm = (p->slowdown_ppm + 9999) / 10000 * 10000;
    if (fits(m, &by, p)) {
        char to[sizeof p->relax.text];
        p->relax.member = "max_slowdown";
        p->relax.value = by.max_slowdown_ppm;
        amount_text(&p->relax, "", by.max_slowdown_ppm, " instead of ");
        memcpy(to, p->relax.text, sizeof to);
        amount_text(&p->relax, to, q->max_slowdown_ppm, "");
    }
}

static void by_budget(const struct match_market *m, const struct match_query *q,
                      struct match_place *p)
{
    struct match_query by = *q;
    by.max_total_micro = p->price_total_micro;
    if (q->max_total_micro > 0 && by.max_total_micro > q->max_total_micro &&
        fits(m, &by, p)) {
        p->relax.member = "max_price";
        p->relax.value = by.max_total_micro;
        amount_text(&p->relax, "", by.max_total_micro - q->max_total_micro, " more");
    }
}

/* ---- */

static void by_rest(const struct match_market *m, const struct match_query *q,
                    struct match_place *p)
{
    const struct match_offer *o = &m->offers[p->offer];
    struct match_query by = *q;
    if (p->why == MATCH_MODEL) {
        by.gpu_model = NULL;
        by_name(m, &by, p, "gpu", o->gpu_model);
    } else if (p->why == MATCH_RESIDENCY) {
        by.residency = o->residency;
        by_name(m, &by, p, "residency", o->residency);
    } else if (p->why == MATCH_ZONE) {
        by.avoid_zones.count = 0;
        by_leave(m, &by, p, "avoid_zone", o->zone);
    } else if (p->why == MATCH_NO_SPOT) {
        by.spot = false;
        if (by_name(m, &by, p, "spot", "")) {
            snprintf(p->relax.text, sizeof p->relax.text, "firm instead of spot");
        }
    } else if (p->why == MATCH_MEMORY) {
        by.min_memory_mib = o->gpu_memory_mib;
        if (fits(m, &by, p)) {
            p->relax.member = "min_memory_mib";
            p->relax.value = o->gpu_memory_mib;
            snprintf(p->relax.text, sizeof p->relax.text, "%" PRId64 " MiB",
                     o->gpu_memory_mib);
        }
    }
}

void match_relax(const struct match_market *m, const struct match_query *q,
                 const struct match_reason_facts *facts, struct match_place *p)
{
    p->relax.member = "";
    switch (p->why) {
    case MATCH_TOO_FAR: by_rtt(m, q, p); break;
    case MATCH_TOO_DEAR: by_price(m, q, p); break;
    case MATCH_TOO_SLOW: by_slowdown(m, q, p); break;
    case MATCH_OVER_BUDGET: by_budget(m, q, p); break;
    case MATCH_EXCLUDED: by_exclusion(m, q, p); break;
    case MATCH_NODE_TOO_SMALL: by_gpus(m, q, facts->largest, p); break;
    case MATCH_TOO_FEW_NODES: by_nodes(m, q, p); break;
    case MATCH_BUSY:
        if (!by_start(m, q, facts, p) && !by_nodes(m, q, p)) {
            by_gpus(m, q, p->free_gpus, p);
        }
        break;
    case MATCH_NO_PATH: by_bandwidth(m, q, p); break;
    case MATCH_PATH_BUSY:
        if (!by_start(m, q, facts, p)) {
            by_bandwidth(m, q, p);
        }
        break;
    default: by_rest(m, q, p); break;
    }
}
