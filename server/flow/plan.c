/* plan: ranking, preemption, and a plan settled into rows (contract in plan.h). */
#include "server/flow/plan.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/core/preempt.h"

/* ---- the question ---- */

static int find_data(const struct world *w, const struct request *rq,
                     const char *tenant_id, struct plan_data *ret, struct err *err)
{
    for (size_t i = 0; i < rq->data_count; i++) {
        int data = world_data_find(w, tenant_id, rq->data[i]);
        if (data < 0)
            return err_set(err, ERR_NOT_FOUND,
                           "/%s/%zu: you have no data set '%s'; see `data list`",
                           rq->federated ? "federated" : "data", i, rq->data[i]);
        if (rq->bandwidth_Bps > 0 && w->data[data].site < 0)
            return err_set(err, ERR_BAD_REQUEST,
                           "/bandwidth: no path leads to '%s': it was added without a "
                           "site",
                           rq->data[i]);
        if (rq->stay && w->data[data].site < 0)
            return err_set(err, ERR_BAD_REQUEST,
                           "/residency: the country of '%s' is not known: it was added "
                           "without a site",
                           rq->data[i]);
        if (rq->stay)
            ret->residency[i] = w->sites[w->data[data].site].residency;
        if (i > 0 && rq->stay && !rq->federated &&
            strcmp(ret->residency[i], ret->residency[0]) != 0)
            return err_set(
                err, ERR_BAD_REQUEST,
                "/residency: '%s' lies in %s, '%s' in %s: no place is in both",
                rq->data[0], ret->residency[0], rq->data[i], ret->residency[i]);
        ret->data[i] = data;
        ret->site[i] = w->data[data].site;
    }
    ret->count = rq->data_count;
    return 0;
}

static struct match_names names(const struct request_names *n)
{
    return (struct match_names){n->name, n->count};
}

/* Everything but what needs the world; borrows from both. */
static struct match_query query_of(const struct request *rq,
                                   const struct plan_data *where, int64_t now_us)
{
    static const enum match_together together[] = {[TOGETHER_SITE] = MATCH_SITE,
                                                   [TOGETHER_DOMAIN] = MATCH_DOMAIN,
                                                   [TOGETHER_ANY] = MATCH_ANY};
    return (struct match_query){
        .gpu_model = rq->gpu,
        .min_memory_mib = rq->min_memory_mib,
        .gpus = (int)rq->gpus,
        .len_us = rq->len_us,
        .from_us = rq->from_us,
        .latest_us = rq->latest_us,
        .data = where->data,
        .data_count = where->count,
        .data_site = where->site,
        .profile = rq->profile,
        .max_rtt_us = rq->max_rtt_us,
        .max_price_micro = rq->max_gpu_hour_micro,
        .max_total_micro = rq->max_total_micro,
        .max_slowdown_ppm = rq->max_slowdown_ppm,
        .residency = rq->stay && !rq->federated ? where->residency[0] : rq->residency,
        .group_residency = rq->stay && rq->federated ? where->residency : NULL,
        .only_site = rq->site,
        .only_providers = names(&rq->only_provider),
        .deny_providers = names(&rq->deny_provider),
        .deny_sites = names(&rq->deny_site),
        .avoid_zones = names(&rq->avoid_zone),
        .nodes = (int)rq->nodes,
        .together = together[rq->together],
        .spread_zones = rq->spread_zones,
        .federated = rq->federated,
        .spot = rq->spot,
        .bandwidth_Bps = rq->bandwidth_Bps,
        .now_us = now_us};
}

int plan_query(const struct world *w, const struct request *rq, const char *tenant_id,
               int64_t now_us, struct plan_data *where, struct match_query *ret,
               struct err *err)
{
    if (find_data(w, rq, tenant_id, where, err) != 0)
        return -1;
    *ret = query_of(rq, where, now_us);
    return 0;
}

struct match_market plan_market(const struct world *w)
{
    return (struct match_market){.calendar = w->calendar,
                                 .topo = w->topo,
                                 .offers = w->offers,
                                 .offer_count = w->offer_count,
                                 .paths = &w->paths};
}

/* ---- ranking ---- */

int plan_rank(struct world *w, const struct request *rq, const char *tenant_id,
              int64_t now_us, struct plan *ret, struct err *err)
{
    struct plan p = {.why = MATCH_OK};
    struct match_query q;
    if (plan_query(w, rq, tenant_id, now_us, &p.where, &q, err) != 0)
        return -1;
    struct match_market market = plan_market(w);
    digest_random(&p.spread, sizeof(p.spread));
    q.spread = p.spread;
    p.best = xcalloc(1, sizeof(*p.best));
    int64_t before = clock_boot_us();
    p.why = match_best(&market, &q, p.best);
    p.match_us = clock_boot_us() - before;
    p.fits = p.why == MATCH_OK;
    *ret = p;
    return 0;
}

bool plan_preempt(struct world *w, const struct request *rq, int64_t now_us,
                  struct plan *p)
{
    if (p->fits || rq->spot || w->firm == NULL || w->spot_count == 0)
        return false;
    struct match_query q = query_of(rq, &p->where, now_us);
    q.spread = p->spread;
    struct match_market market = plan_market(w);
    struct preempt_spot *spots = world_preempt_spots(w);
    struct preempt_market m = {&market, w->firm, spots, w->spot_count};
    struct preempt_plan *found = xcalloc(1, sizeof(*found));
    if (preempt_find(&m, &q, found) == MATCH_OK) {
        *p->best = found->plan;
        p->fits = true;
        p->preempts = xcalloc(found->victim_count + 1, sizeof(*p->preempts));
        p->preempt_count = found->victim_count;
        for (size_t i = 0; i < found->victim_count; i++) {
            const struct preempt_victim *v = &found->victims[i];
            memcpy(p->preempts[i].id, world_spot_reservation(w, v->reservation),
                   UUID_TEXT);
            p->preempts[i].cut_us = v->cut_us;
        }
    }
    free(found);
    free(spots);
    return p->fits;
}

void plan_judge(struct world *w, const struct request *rq, int64_t now_us,
                struct plan *p)
{
    struct match_query q = query_of(rq, &p->where, now_us);
    q.spread = p->spread;
    struct match_market market = plan_market(w);
    free(p->places);
    p->count = w->offer_count;
    p->places = xcalloc(p->count + 1, sizeof(*p->places));
    p->fit = match_judge(&market, &q, p->places);
    if (p->fits)
        match_advise(&market, &q, p->best);
}

void plan_done(struct plan *p)
{
    free(p->best);
    free(p->preempts);
    free(p->places);
    *p = (struct plan){0};
}

/* ---- one plan, settled ---- */

/* The farthest of the plan's sites from a data set of the request. */
static struct topo_rtt rtt_to(const struct world *w, const struct match_plan *plan,
                              int data, int group, int64_t now_us)
{
    struct topo_rtt worst = {0};
    int last_site = -1;
    for (int i = 0; i < plan->slot_count; i++) {
        int site = w->nodes[plan->slots[i].node].site;
        if ((group >= 0 && plan->slots[i].group != group) || site == last_site)
            continue;
        struct topo_rtt rtt = topo_rtt(w->topo, site, data, now_us);
        if (rtt.source == TOPO_UNKNOWN)
            return rtt;
        if (last_site < 0 || rtt.rtt_us > worst.rtt_us)
            worst = rtt;
        last_site = site;
    }
    return worst;
}

static int group_of(const struct match_plan *plan, int data)
{
    for (int g = 0; g < plan->group_count; g++)
        if (plan->groups[g].data == data)
            return g;
    return -1;
}

static json_t *site_name(const struct world *w, int site)
{
    return site >= 0 ? json_string(w->sites[site].name) : json_null();
}

static json_t *data_of(const struct world *w, const struct plan_data *where,
                       const struct match_plan *plan, int64_t now_us)
{
    json_t *out = json_array();
    for (size_t i = 0; i < where->count; i++) {
        const struct world_data *d = &w->data[where->data[i]];
        int group = group_of(plan, (int)i);
        struct topo_rtt rtt = rtt_to(w, plan, where->data[i], group, now_us);
        int64_t slowdown_ppm =
            group >= 0 ? plan->groups[group].slowdown_ppm : plan->slowdown_ppm;
        json_array_append_new(out, json_pack("{s:s, s:o, s:o, s:I}", "name", d->name,
                                             "site", site_name(w, d->site), "rtt_us",
                                             rtt.source == TOPO_UNKNOWN
                                                 ? json_null()
                                                 : json_integer(rtt.rtt_us),
                                             "slowdown_ppm", (json_int_t)slowdown_ppm));
    }
    return out;
}

static bool is_federated(const struct match_plan *plan)
{
    return plan->group_count > 0 && plan->groups[0].data >= 0;
}

static json_t *groups_of(const struct world *w, const struct plan_data *where,
                         const struct match_plan *plan)
{
    json_t *out = json_array();
    for (int g = 0; is_federated(plan) && g < plan->group_count; g++) {
        int nodes = 0;
        for (int i = 0; i < plan->slot_count; i++)
            nodes += plan->slots[i].group == g;
        json_array_append_new(
            out, json_pack("{s:s, s:o, s:i}", "data",
                           w->data[where->data[plan->groups[g].data]].name, "site",
                           site_name(w, plan->groups[g].site), "nodes", nodes));
    }
    return out;
}

void plan_settle(const struct world *w, const struct plan_data *where,
                 const struct match_plan *plan, int64_t now_us, struct plan_pick *ret)
{
    struct match_market market = plan_market(w);
    struct plan_pick pick = {
        .plan = xcalloc(1, sizeof(*pick.plan)),
        .slot_price_micro =
            xcalloc((size_t)plan->slot_count + 1, sizeof(*pick.slot_price_micro)),
        .lane_price_micro =
            xcalloc((size_t)plan->lanes_count + 1, sizeof(*pick.lane_price_micro)),
        .data = data_of(w, where, plan, now_us),
        .groups = groups_of(w, where, plan),
        .coordinator = is_federated(plan)
                           ? site_name(w, plan->groups[plan->coordinator].site)
                           : json_null()};
    *pick.plan = *plan;
    for (int i = 0; i < plan->slot_count; i++)
        pick.slot_price_micro[i] = match_slot_price(&market, plan, i);
    for (int i = 0; i < plan->lanes_count; i++)
        pick.lane_price_micro[i] = w->paths.paths[plan->lanes[i].path].price_micro;
    *ret = pick;
}

void plan_pick(const struct world *w, const struct plan *p, int64_t now_us,
               struct plan_pick *ret)
{
    plan_settle(w, &p->where, p->best, now_us, ret);
    if (p->preempt_count == 0)
        return;
    ret->preempts = xcalloc(p->preempt_count, sizeof(*ret->preempts));
    memcpy(ret->preempts, p->preempts, p->preempt_count * sizeof(*ret->preempts));
    ret->preempt_count = p->preempt_count;
}

void plan_pick_done(struct plan_pick *pick)
{
    free(pick->plan);
    free(pick->slot_price_micro);
    free(pick->lane_price_micro);
    free(pick->preempts);
    json_decref(pick->data);
    json_decref(pick->groups);
    json_decref(pick->coordinator);
    *pick = (struct plan_pick){0};
}

void plan_pick_start(struct plan_pick *pick, int64_t start_us)
{
    struct match_plan *p = pick->plan;
    for (int i = 0; i < p->lanes_count; i++)
        p->lanes[i].from_us += start_us - p->start_us;
    p->start_us = start_us;
}

static bool is_open(const struct world_node *n, int64_t from_us, int64_t to_us)
{
    int64_t at = from_us; /* windows are sorted; those that touch count as one */
    for (size_t i = 0; i < n->window_count && at < to_us; i++)
        if (n->windows[i].from_us <= at && n->windows[i].to_us > at)
            at = n->windows[i].to_us;
    return n->window_count == 0 || at >= to_us;
}

int plan_pick_stands(const struct world *w, const struct plan_pick *pick,
                     struct err *err)
{
    const struct match_plan *p = pick->plan;
    for (int i = 0; i < p->slot_count; i++) {
        const struct match_slot *s = &p->slots[i];
        const struct world_node *n = &w->nodes[s->node];
        uint64_t run = p->gpus == 64 ? UINT64_MAX : (UINT64_C(1) << p->gpus) - 1;
        if (strcmp(n->state, "up") != 0 || ((n->offered >> s->first) & run) != run ||
            !is_open(n, p->start_us, p->start_us + p->len_us))
            return err_set(err, ERR_CONFLICT,
                           "node %s at %s does not offer the quoted GPUs any more; ask "
                           "for another quote",
                           n->name, w->sites[n->site].name);
    }
    for (int i = 0; i < p->lanes_count; i++)
        if (!w->paths.paths[p->lanes[i].path].up)
            return err_set(err, ERR_CONFLICT,
                           "the quoted path %s is down; ask for another quote",
                           w->path_info[p->lanes[i].path].name);
    return 0;
}

static int64_t int_of(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(obj, name));
}

bool plan_pick_is(const struct world *w, const struct plan_pick *pick,
                  const json_t *resv)
{
    const struct match_plan *p = pick->plan;
    const json_t *have = json_object_get(resv, "allocations"), *a;
    size_t i;
    if (int_of(resv, "start_us") != p->start_us ||
        int_of(resv, "end_us") != p->start_us + p->len_us ||
        json_array_size(have) != (size_t)p->slot_count ||
        json_array_size(json_object_get(resv, "paths")) != (size_t)p->lanes_count)
        return false;
    json_array_foreach(have, i, a)
    {
        if (int_of(a, "node_id") != w->nodes[p->slots[i].node].id ||
            int_of(a, "first") != p->slots[i].first || int_of(a, "count") != p->gpus)
            return false;
    }
    json_array_foreach(json_object_get(resv, "paths"), i, a)
    {
        if (int_of(a, "path_id") != w->path_info[p->lanes[i].path].id ||
            int_of(a, "lanes") != p->lanes[i].count)
            return false;
    }
    return true;
}

/* ---- for the database ---- */

void plan_rows(const struct world *w, const struct plan_pick *pick,
               struct plan_rows *ret)
{
    const struct match_plan *p = pick->plan;
    int64_t end_us = p->start_us + p->len_us;
    ret->bookings = xcalloc((size_t)p->slot_count + 1, sizeof(*ret->bookings));
    ret->paths = xcalloc((size_t)p->lanes_count + 1, sizeof(*ret->paths));
    for (int i = 0; i < p->slot_count; i++) {
        const struct world_node *n = &w->nodes[p->slots[i].node];
        ret->bookings[i] =
            (struct store_booking){.node_id = n->id,
                                   .site_id = w->sites[n->site].id,
                                   .first = p->slots[i].first,
                                   .count = p->gpus,
                                   .from_us = p->start_us,
                                   .to_us = end_us,
                                   .per_gpu_hour_micro = pick->slot_price_micro[i]};
    }
    for (int i = 0; i < p->lanes_count; i++)
        ret->paths[i] =
            (struct store_path_booking){.path_id = w->path_info[p->lanes[i].path].id,
                                        .first = p->lanes[i].first,
                                        .count = p->lanes[i].count,
                                        .from_us = p->lanes[i].from_us,
                                        .to_us = end_us,
                                        .price_micro = pick->lane_price_micro[i]};
    ret->extra = json_pack("{s:O, s:O}", "groups", pick->groups, "coordinator",
                           pick->coordinator);
}

void plan_rows_done(struct plan_rows *rows)
{
    free(rows->bookings);
    free(rows->paths);
    json_decref(rows->extra);
}

void plan_book(const struct world *w, const struct plan_pick *pick,
               const struct plan_rows *rows, struct store_book *book)
{
    const struct match_plan *p = pick->plan;
    book->start_us = p->start_us;
    book->end_us = p->start_us + p->len_us;
    book->per_hour_micro = p->per_hour_micro;
    book->total_micro = p->total_micro;
    book->effective_micro = p->effective_micro;
    book->spot = p->spot;
    book->data = pick->data;
    /* What most bookings lack is not sent. */
    book->extra = json_array_size(pick->groups) > 0 ? rows->extra : NULL;
    book->bookings = rows->bookings;
    book->booking_count = (size_t)p->slot_count;
    book->paths = rows->paths;
    book->path_count = (size_t)p->lanes_count;
    book->preempts = pick->preempts;
    book->preempt_count = pick->preempt_count;
    memcpy(book->currency, w->currency, sizeof(book->currency));
}

/* ---- the match log ---- */

void plan_log(struct world *w, const struct request *rq, const struct plan *p,
              const char *tenant_id, const char *kind, const char *outcome)
{
    const struct match_plan *best = p->fits ? p->best : NULL;
    struct store_match_log m = {
        .at_us = clock_now_us(),
        .tenant_id = tenant_id,
        .kind = kind,
        .outcome = outcome,
        .match_us = p->match_us,
        .gpu_model = rq->gpu != NULL ? rq->gpu : "",
        .gpus = (int)request_gpus(rq),
        .duration_s = rq->len_us / US_PER_S,
        .dataset_id = p->where.count > 0 ? w->data[p->where.data[0]].id : 0,
        .why = p->fits ? "" : match_why_name(p->why)};
    if (best != NULL) {
        const struct topo_rtt *rtt = &best->groups[0].rtt;
        m.site_id = w->sites[w->nodes[best->slots[0].node].site].id;
        m.slowdown_ppm = best->slowdown_ppm;
        m.rtt_us = rtt->source == TOPO_UNKNOWN ? 0 : rtt->rtt_us;
    }
    store_log_match(w->store, &m);
}
