#include "server/flow/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/flow/render.h"

static int find_data(const struct world *w, const struct request *rq,
                     const char *tenant_id, struct plan *p, struct err *err)
{
    for (size_t i = 0; i < rq->data_count; i++) {
        int data = world_data_find(w, tenant_id, rq->data[i]);
        if (data < 0)
            return err_set(err, ERR_NOT_FOUND,
                           "/data/%zu: you have no data set '%s'; see `data list`", i,
                           rq->data[i]);
        p->data[p->data_count++] = data;
    }
    return 0;
}

int plan_rank(struct world *w, const struct request *rq, const char *tenant_id,
              int64_t now_us, struct plan *ret, struct err *err)
{
    struct plan p = {.count = w->offer_count, .len_us = rq->len_us};
    if (rq->nodes > 1 || rq->federated)
        return err_set(err, ERR_BAD_REQUEST,
                       "/nodes: more than one node a reservation is not offered");
    if (find_data(w, rq, tenant_id, &p, err) != 0)
        return -1;
    struct match_query q = {.gpu_model = rq->gpu,
                            .min_memory_mib = rq->min_memory_mib,
                            .gpus = (int)rq->gpus,
                            .len_us = rq->len_us,
                            .from_us = rq->from_us,
                            .latest_us = rq->latest_us,
                            .data = p.data,
                            .data_count = p.data_count,
                            .profile = rq->profile,
                            .max_rtt_us = rq->max_rtt_us,
                            .max_price_micro = rq->max_gpu_hour_micro,
                            .max_slowdown_ppm = rq->max_slowdown_ppm,
                            .residency = rq->residency,
                            .only_site = rq->site,
                            .only_provider = rq->only_provider.name[0],
                            .now_us = now_us};
    digest_random(&q.spread, sizeof(q.spread));
    p.places = xcalloc(p.count + 1, sizeof(*p.places));
    int64_t before = clock_boot_us();
    p.fit = match_rank(w->calendar, w->topo, w->offers, w->offer_count, &q, p.places);
    p.match_us = clock_boot_us() - before;
    *ret = p;
    return 0;
}

void plan_done(struct plan *p)
{
    free(p->places);
    p->places = NULL;
}

/* ---- one place ---- */

static json_t *data_of(const struct world *w, const struct plan *p, int site,
                       int64_t slowdown_ppm, int64_t now_us)
{
    json_t *out = json_array();
    for (size_t i = 0; i < p->data_count; i++) {
        const struct world_data *d = &w->data[p->data[i]];
        struct topo_rtt rtt = topo_rtt(w->topo, site, p->data[i], now_us);
        json_array_append_new(
            out,
            json_pack("{s:s, s:o, s:o, s:I}", "name", d->name, "site",
                      d->site >= 0 ? json_string(w->sites[d->site].name) : json_null(),
                      "rtt_us",
                      rtt.source == TOPO_UNKNOWN ? json_null()
                                                 : json_integer(rtt.rtt_us),
                      "slowdown_ppm", (json_int_t)slowdown_ppm));
    }
    return out;
}

int plan_pick(struct world *w, const struct request *rq, const struct plan *p,
              int64_t now_us, struct plan_pick *ret, struct err *err)
{
    const struct match_place *best = &p->places[0];
    const struct match_offer *offer = &w->offers[best->offer];
    struct plan_pick pick = {.slot = best->slot,
                             .gpus = (int)rq->gpus,
                             .len_us = rq->len_us,
                             .gpu_hour_micro = offer->price_micro,
                             .total_micro = best->price_total_micro,
                             .effective_micro = best->effective_micro};
    if (money_mul(rq->gpus, offer->price_micro, 1, &pick.per_hour_micro, err) != 0)
        return -1;
    pick.data = data_of(w, p, offer->site, best->slowdown_ppm, now_us);
    *ret = pick;
    return 0;
}

void plan_pick_done(struct plan_pick *pick)
{
    json_decref(pick->data);
    pick->data = NULL;
}

static json_t *uuids_of(const struct world_node *n, int first, int count)
{
    json_t *out = json_array();
    for (int i = first; i < first + count; i++)
        json_array_append(out, json_array_get(n->gpu_uuids, (size_t)i));
    return out;
}

json_t *plan_resv(const struct world *w, const struct plan_pick *pick,
                  const struct plan_resv *who)
{
    const struct world_node *n = &w->nodes[pick->slot.node];
    int64_t start = pick->slot.start_us, end = start + pick->len_us;
    json_t *allocation = json_pack(
        "{s:s, s:s, s:s, s:o, s:I, s:I}", "site", w->sites[n->site].name, "provider",
        n->provider, "node", n->name, "gpus", uuids_of(n, pick->slot.first, pick->gpus),
        "start_us", (json_int_t)start, "end_us", (json_int_t)end);
    json_t *out = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:[o], s:O}", "id",
                            who->id, "tenant", who->tenant, "state", who->state,
                            "reason", "", "created_us", (json_int_t)who->created_us,
                            "start_us", (json_int_t)start, "end_us", (json_int_t)end,
                            "allocations", allocation, "data", pick->data);
    json_t *rest =
        json_pack("{s:s, s:I, s:I, s:I, s:b, s:i}", "currency", w->currency,
                  "per_hour_micro", (json_int_t)pick->per_hour_micro, "total_micro",
                  (json_int_t)pick->total_micro, "effective_micro",
                  (json_int_t)pick->effective_micro, "spot", 0, "generation", 1);
    json_object_update(out, rest);
    json_decref(rest);
    return out;
}

/* ---- a quote's pick ---- */

json_t *plan_pick_save(const struct world *w, const struct plan_pick *pick)
{
    return json_pack(
        "{s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:O}", "node_id",
        w->nodes[pick->slot.node].id, "first", pick->slot.first, "count", pick->gpus,
        "start_us", (json_int_t)pick->slot.start_us, "len_us", (json_int_t)pick->len_us,
        "gpu_hour_micro", (json_int_t)pick->gpu_hour_micro, "per_hour_micro",
        (json_int_t)pick->per_hour_micro, "total_micro", (json_int_t)pick->total_micro,
        "effective_micro", (json_int_t)pick->effective_micro, "data", pick->data);
}

static int64_t int_of(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(obj, name));
}

int plan_pick_load(const struct world *w, const json_t *saved, struct plan_pick *ret,
                   struct err *err)
{
    int node = world_node_find(w, (int)int_of(saved, "node_id"));
    if (node < 0)
        return err_set(err, ERR_CONFLICT,
                       "the quoted node is gone; ask for another quote");
    *ret = (struct plan_pick){
        .slot = {node, (int)int_of(saved, "first"), int_of(saved, "start_us")},
        .gpus = (int)int_of(saved, "count"),
        .len_us = int_of(saved, "len_us"),
        .gpu_hour_micro = int_of(saved, "gpu_hour_micro"),
        .per_hour_micro = int_of(saved, "per_hour_micro"),
        .total_micro = int_of(saved, "total_micro"),
        .effective_micro = int_of(saved, "effective_micro"),
        .data = json_incref(json_object_get(saved, "data"))};
    return 0;
}

/* ---- what the tenant sees of a ranking ---- */

static json_t *rtt_age(const struct topo_rtt *rtt, int64_t now_us)
{
    bool aged = rtt->source == TOPO_MEASURED || rtt->source == TOPO_DECLARED;
    return aged ? json_integer((now_us - rtt->at_us) / US_PER_S) : json_null();
}

static json_t *offer_json(const struct world *w, const struct match_place *place,
                          int64_t len_us)
{
    const struct match_offer *o = &w->offers[place->offer];
    bool known = place->rtt.source != TOPO_UNKNOWN;
    json_t *price = json_pack(
        "{s:s, s:I, s:I, s:I, s:I}", "currency", w->currency, "per_gpu_hour_micro",
        (json_int_t)o->price_micro, "total_micro", (json_int_t)place->price_total_micro,
        "effective_micro", (json_int_t)place->effective_micro,
        "effective_per_hour_micro", (json_int_t)place->effective_per_hour_micro);
    return json_pack(
        "{s:s, s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "site",
        o->site_name, "provider", o->provider_name, "gpu_model", o->gpu_model, "free",
        match_free(w->calendar, o, place, len_us), "start",
        jsonx_time(place->slot.start_us), "rtt_us",
        known ? json_integer(place->rtt.rtt_us) : json_null(), "rtt_source",
        known ? json_string(topo_source_name(place->rtt.source)) : json_null(),
        "rtt_age_s", rtt_age(&place->rtt, clock_now_us()), "slowdown",
        render_ppm(place->slowdown_ppm), "price", price, "reliability",
        render_ppm(o->reliability_ppm), "advice", place->advice);
}

json_t *plan_offers(const struct world *w, const struct plan *p)
{
    json_t *out = json_array();
    for (size_t i = 0; i < p->fit; i++)
        json_array_append_new(out, offer_json(w, &p->places[i], p->len_us));
    return out;
}

json_t *plan_rejected(const struct world *w, const struct plan *p)
{
    json_t *out = json_array();
    for (size_t i = p->fit; i < p->count; i++) {
        const struct match_offer *o = &w->offers[p->places[i].offer];
        json_array_append_new(out, json_pack("{s:s, s:s, s:s, s:s, s:s}", "site",
                                             o->site_name, "provider", o->provider_name,
                                             "gpu_model", o->gpu_model, "why",
                                             match_why_name(p->places[i].why), "reason",
                                             p->places[i].reason));
    }
    return out;
}

void plan_no_fit(const struct world *w, const struct plan *p, struct err *err)
{
    if (p->count == 0) {
        err_set(err, ERR_NO_FIT, "nothing fits: no GPU is on offer in this market");
        return;
    }
    /* The filters are asked in order, so the last place got furthest. */
    const struct match_place *near = &p->places[p->count - 1];
    const struct match_offer *o = &w->offers[near->offer];
    err_set(err, ERR_NO_FIT, "nothing fits in %zu places; nearest: %s/%s: %s", p->count,
            o->site_name, o->provider_name, near->reason);
}

/* ---- the match log ---- */

static const char *commonest_why(const struct plan *p)
{
    size_t n[MATCH_WHY_COUNT] = {0}, best = MATCH_OK;
    for (size_t i = p->fit; i < p->count; i++)
        n[p->places[i].why]++;
    for (size_t why = 1; why < MATCH_WHY_COUNT; why++)
        if (n[why] > n[best])
            best = why;
    return best == MATCH_OK ? "" : match_why_name((enum match_why)best);
}

void plan_log(struct world *w, const struct request *rq, const struct plan *p,
              const char *tenant_id, const char *kind, const char *outcome)
{
    const struct match_place *best = p->fit > 0 ? &p->places[0] : NULL;
    struct store_match_log m = {.at_us = clock_now_us(),
                                .tenant_id = tenant_id,
                                .kind = kind,
                                .outcome = outcome,
                                .match_us = p->match_us,
                                .gpu_model = rq->gpu != NULL ? rq->gpu : "",
                                .gpus = (int)rq->gpus,
                                .duration_s = rq->len_us / US_PER_S,
                                .dataset_id =
                                    p->data_count > 0 ? w->data[p->data[0]].id : 0,
                                .why = commonest_why(p)};
    if (best != NULL) {
        m.site_id = w->sites[w->offers[best->offer].site].id;
        m.slowdown_ppm = best->slowdown_ppm;
        m.rtt_us = best->rtt.source == TOPO_UNKNOWN ? 0 : best->rtt.rtt_us;
    }
    store_log_match(w->store, &m);
}
