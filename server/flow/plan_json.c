/* plan_json: plans as JSON, for people, for quotes and for the database (contract in
 * plan.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/flow/plan.h"
#include "server/flow/render.h"

static int64_t int_of(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(obj, name));
}

/* ---- a plan as a reservation ---- */

static json_t *allocation(const struct world *w, const struct plan_pick *pick, int rank)
{
    const struct match_plan *p = pick->plan;
    const struct match_slot *s = &p->slots[rank];
    const struct world_node *n = &w->nodes[s->node];
    json_t *gpus = json_array();
    for (int i = s->first; i < s->first + p->gpus; i++)
        json_array_append(gpus, json_array_get(n->gpu_uuids, (size_t)i));
    return json_pack("{s:s, s:s, s:s, s:o, s:I, s:I, s:i, s:s}", "site",
                     w->sites[n->site].name, "provider", n->provider, "node", n->name,
                     "gpus", gpus, "start_us", (json_int_t)p->start_us, "end_us",
                     (json_int_t)(p->start_us + p->len_us), "rank", rank, "address",
                     n->address != NULL ? n->address : "");
}

static json_t *path(const struct world *w, const struct plan_pick *pick, int i)
{
    const struct match_plan *p = pick->plan;
    const struct match_lanes *l = &p->lanes[i];
    const struct match_path *m = &w->paths.paths[l->path];
    return json_pack("{s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:s}", "name",
                     w->path_info[l->path].name, "from", w->sites[m->from_site].name,
                     "to", w->sites[m->to_site].name, "lanes", l->count,
                     "bandwidth_Bps", (json_int_t)(m->lane_Bps * l->count), "start_us",
                     (json_int_t)l->from_us, "end_us",
                     (json_int_t)(p->start_us + p->len_us), "state", "planned");
}

int64_t plan_first_hold(const struct world *w, const struct plan_pick *pick)
{
    const struct match_plan *p = pick->plan;
    int64_t window_us = w->hold_window_us, sum = 0, micro;
    if (window_us == 0 || p->len_us <= window_us)
        return p->total_micro;
    for (int i = 0; i < p->slot_count; i++)
        if (money_mul(window_us * p->gpus, pick->slot_price_micro[i], US_PER_HOUR,
                      &micro, NULL) == 0)
            sum += micro;
    for (int i = 0; i < p->lanes_count; i++)
        if (money_mul(window_us * p->lanes[i].count, pick->lane_price_micro[i],
                      US_PER_HOUR, &micro, NULL) == 0)
            sum += micro;
    return sum;
}

json_t *plan_resv(const struct world *w, const struct plan_pick *pick,
                  const struct plan_resv *who)
{
    const struct match_plan *p = pick->plan;
    json_t *allocations = json_array(), *paths = json_array();
    for (int i = 0; i < p->slot_count; i++)
        json_array_append_new(allocations, allocation(w, pick, i));
    for (int i = 0; i < p->lanes_count; i++)
        json_array_append_new(paths, path(w, pick, i));
    json_t *out = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:O, s:o}", "id",
                            who->id, "tenant", who->tenant, "state", who->state,
                            "reason", "", "created_us", (json_int_t)who->created_us,
                            "start_us", (json_int_t)p->start_us, "end_us",
                            (json_int_t)(p->start_us + p->len_us), "allocations",
                            allocations, "data", pick->data, "paths", paths);
    json_t *rest = json_pack(
        "{s:s, s:I, s:I, s:I, s:b, s:i, s:i, s:O, s:O}", "currency", w->currency,
        "per_hour_micro", (json_int_t)p->per_hour_micro, "total_micro",
        (json_int_t)p->total_micro, "effective_micro", (json_int_t)p->effective_micro,
        "spot", p->spot, "generation", 1, "nodes", p->slot_count, "groups",
        pick->groups, "coordinator", pick->coordinator);
    json_object_update(out, rest);
    json_decref(rest);
    int64_t held_us = w->hold_window_us == 0 || w->hold_window_us > p->len_us
                          ? p->len_us
                          : w->hold_window_us;
    json_object_set_new(out, "held_micro",
                        json_integer((json_int_t)plan_first_hold(w, pick)));
    json_object_set_new(out, "paid_until_us",
                        json_integer((json_int_t)(p->start_us + held_us)));
    return out;
}

/* ---- for the database ---- */

json_t *plan_bookings_json(const struct plan_pick *pick, const struct plan_rows *rows)
{
    json_t *out = json_array();
    for (int i = 0; i < pick->plan->slot_count; i++) {
        const struct store_booking *b = &rows->bookings[i];
        json_array_append_new(
            out,
            json_pack("{s:i, s:i, s:i, s:i, s:I, s:I, s:I}", "node_id", b->node_id,
                      "site_id", b->site_id, "first", b->first, "count", b->count,
                      "from_us", (json_int_t)b->from_us, "to_us", (json_int_t)b->to_us,
                      "per_gpu_hour_micro", (json_int_t)b->per_gpu_hour_micro));
    }
    return out;
}

json_t *plan_paths_json(const struct plan_pick *pick, const struct plan_rows *rows)
{
    json_t *out = json_array();
    for (int i = 0; i < pick->plan->lanes_count; i++) {
        const struct store_path_booking *b = &rows->paths[i];
        json_array_append_new(
            out, json_pack("{s:i, s:i, s:i, s:I, s:I, s:I}", "path_id", b->path_id,
                           "first", b->first, "count", b->count, "from_us",
                           (json_int_t)b->from_us, "to_us", (json_int_t)b->to_us,
                           "price_micro", (json_int_t)b->price_micro));
    }
    return out;
}

json_t *plan_prices_json(const struct plan_pick *pick)
{
    const struct match_plan *p = pick->plan;
    return json_pack("{s:I, s:I, s:I}", "per_hour_micro", (json_int_t)p->per_hour_micro,
                     "total_micro", (json_int_t)p->total_micro, "effective_micro",
                     (json_int_t)p->effective_micro);
}

/* ---- a quote's pick ---- */

json_t *plan_pick_save(const struct world *w, const struct plan_pick *pick)
{
    const struct match_plan *p = pick->plan;
    json_t *slots = json_array(), *lanes = json_array();
    for (int i = 0; i < p->slot_count; i++)
        json_array_append_new(slots, json_pack("{s:i, s:i, s:i, s:I}", "node_id",
                                               w->nodes[p->slots[i].node].id, "first",
                                               p->slots[i].first, "group",
                                               p->slots[i].group, "price_micro",
                                               (json_int_t)pick->slot_price_micro[i]));
    for (int i = 0; i < p->lanes_count; i++)
        json_array_append_new(
            lanes, json_pack("{s:i, s:i, s:i, s:I, s:I}", "path_id",
                             w->path_info[p->lanes[i].path].id, "first",
                             p->lanes[i].first, "count", p->lanes[i].count, "from_us",
                             (json_int_t)p->lanes[i].from_us, "price_micro",
                             (json_int_t)pick->lane_price_micro[i]));
    return json_pack(
        "{s:o, s:o, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:O, s:O, s:O}", "slots",
        slots, "lanes", lanes, "gpus", p->gpus, "start_us", (json_int_t)p->start_us,
        "len_us", (json_int_t)p->len_us, "per_hour_micro",
        (json_int_t)p->per_hour_micro, "total_micro", (json_int_t)p->total_micro,
        "effective_micro", (json_int_t)p->effective_micro, "slowdown_ppm",
        (json_int_t)p->slowdown_ppm, "spot", p->spot, "data", pick->data, "groups",
        pick->groups, "coordinator", pick->coordinator);
}

static int find_path(const struct world *w, int64_t id)
{
    for (size_t i = 0; i < w->paths.count; i++)
        if (w->path_info[i].id == id)
            return (int)i;
    return -1;
}

static int load_slots(const struct world *w, const json_t *saved,
                      struct plan_pick *pick, struct err *err)
{
    const json_t *v;
    size_t i;
    json_array_foreach(json_object_get(saved, "slots"), i, v)
    {
        int node = world_node_find(w, (int)int_of(v, "node_id"));
        if (node < 0 || i >= MATCH_NODES_MAX)
            return err_set(err, ERR_CONFLICT,
                           "a quoted node is gone; ask for another quote");
        pick->plan->slots[i] = (struct match_slot){.node = node,
                                                   .first = (int)int_of(v, "first"),
                                                   .offer = world_offer_of(w, node),
                                                   .group = (int)int_of(v, "group")};
        pick->slot_price_micro[i] = int_of(v, "price_micro");
    }
    pick->plan->slot_count = (int)i;
    return 0;
}

static int load_lanes(const struct world *w, const json_t *saved,
                      struct plan_pick *pick, struct err *err)
{
    const json_t *v;
    size_t i;
    json_array_foreach(json_object_get(saved, "lanes"), i, v)
    {
        int path = find_path(w, int_of(v, "path_id"));
        if (path < 0 || i >= MATCH_PATHS_MAX)
            return err_set(err, ERR_CONFLICT,
                           "a quoted path is gone; ask for another quote");
        pick->plan->lanes[i] = (struct match_lanes){.path = path,
                                                    .first = (int)int_of(v, "first"),
                                                    .count = (int)int_of(v, "count"),
                                                    .from_us = int_of(v, "from_us")};
        pick->lane_price_micro[i] = int_of(v, "price_micro");
    }
    pick->plan->lanes_count = (int)i;
    return 0;
}

int plan_pick_load(const struct world *w, const json_t *saved, struct plan_pick *ret,
                   struct err *err)
{
    struct plan_pick pick = {
        .plan = xcalloc(1, sizeof(*pick.plan)),
        .slot_price_micro = xcalloc(MATCH_NODES_MAX, sizeof(*pick.slot_price_micro)),
        .lane_price_micro = xcalloc(MATCH_PATHS_MAX, sizeof(*pick.lane_price_micro)),
        .data = json_incref(json_object_get(saved, "data")),
        .groups = json_incref(json_object_get(saved, "groups")),
        .coordinator = json_incref(json_object_get(saved, "coordinator"))};
    struct match_plan *p = pick.plan;
    p->gpus = (int)int_of(saved, "gpus");
    p->start_us = int_of(saved, "start_us");
    p->len_us = int_of(saved, "len_us");
    p->per_hour_micro = int_of(saved, "per_hour_micro");
    p->total_micro = int_of(saved, "total_micro");
    p->effective_micro = int_of(saved, "effective_micro");
    p->slowdown_ppm = int_of(saved, "slowdown_ppm");
    p->spot = json_is_true(json_object_get(saved, "spot"));
    if (load_slots(w, saved, &pick, err) != 0 ||
        load_lanes(w, saved, &pick, err) != 0) {
        plan_pick_done(&pick);
        return -1;
    }
    *ret = pick;
    return 0;
}

/* ---- what the tenant sees of a ranking ---- */

/* The round trip and what is known of it: how, since when, from how much. */
static json_t *rtt_json(const struct topo_rtt *rtt, int64_t now_us)
{
    bool known = rtt->source != TOPO_UNKNOWN, measured = rtt->source == TOPO_MEASURED;
    bool aged = measured || (rtt->source == TOPO_DECLARED && rtt->at_us > 0);
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:b}", "rtt_us",
        known ? json_integer(rtt->rtt_us) : json_null(), "rtt_source",
        known ? json_string(topo_source_name(rtt->source)) : json_null(), "rtt_age_s",
        aged ? json_integer((now_us - rtt->at_us) / US_PER_S) : json_null(),
        "rtt_count", measured ? json_integer(rtt->count) : json_null(),
        "rtt_confidence",
        known ? json_string(topo_confidence_name(rtt->confidence_ppm)) : json_null(),
        "rtt_drift_us", measured ? json_integer(rtt->drift_us) : json_null(),
        "rtt_drifting", rtt->drifting);
}

static json_t *offer_json(const struct world *w, const struct match_place *place,
                          const struct request *rq, int64_t now_us)
{
    const struct match_offer *o = &w->offers[place->offer];
    bool spot = o->notice_us > 0;
    json_t *price = json_pack(
        "{s:s, s:I, s:I, s:I, s:I}", "currency", w->currency, "per_gpu_hour_micro",
        (json_int_t)(rq->spot ? o->spot_price_micro : o->price_micro), "total_micro",
        (json_int_t)place->price_total_micro, "effective_micro",
        (json_int_t)place->effective_micro, "effective_per_hour_micro",
        (json_int_t)place->effective_per_hour_micro);
    json_t *out = json_pack("{s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:o}", "site",
                            o->site_name, "provider", o->provider_name, "gpu_model",
                            o->gpu_model, "zone", o->zone != NULL ? o->zone : "",
                            "free", match_free(w->calendar, o, place, rq->len_us),
                            "start", jsonx_time(place->slot.start_us), "slowdown",
                            render_ppm(place->slowdown_ppm), "price", price);
    json_t *rest = json_pack(
        "{s:o, s:o, s:o, s:s}", "spot_per_gpu_hour_micro",
        spot ? json_integer(o->spot_price_micro) : json_null(), "notice_s",
        spot ? json_integer(o->notice_us / US_PER_S) : json_null(), "reliability",
        render_ppm(o->reliability_ppm), "advice", place->advice);
    json_t *rtt = rtt_json(&place->rtt, now_us);
    json_object_update(out, rtt);
    json_decref(rtt);
    json_object_update(out, rest);
    json_decref(rest);
    return out;
}

json_t *plan_offers(const struct world *w, const struct plan *p,
                    const struct request *rq, int64_t now_us)
{
    json_t *out = json_array();
    for (size_t i = 0; i < p->fit; i++)
        json_array_append_new(out, offer_json(w, &p->places[i], rq, now_us));
    return out;
}

/* "40Gbps", exactly, of bytes a second. */
static json_t *rate_json(int64_t Bps)
{
    char text[40];
    if (Bps % 125000000 == 0)
        snprintf(text, sizeof(text), "%" PRId64 "Gbps", Bps / 125000000);
    else if (Bps % 125000 == 0)
        snprintf(text, sizeof(text), "%" PRId64 "Mbps", Bps / 125000);
    else
        snprintf(text, sizeof(text), "%" PRId64 "B/s", Bps);
    return json_string(text);
}

static json_t *duration_json(int64_t us)
{
    char text[TIMEFMT_MAX];
    timefmt_duration(us, text);
    return json_string(text);
}

/* A list of names that are not wanted, without this one; null: that was all. */
static json_t *without(const json_t *list, const char *name)
{
    json_t *out = json_array(), *v;
    size_t i;
    json_array_foreach(list, i, v)
    {
        if (strcmp(json_string_value(v), name) != 0)
            json_array_append(out, v);
    }
    if (json_array_size(out) > 0)
        return out;
    json_decref(out);
    return json_null();
}

/* A value in the form its member has in a request; null: without that member. */
static json_t *relax_value(const struct world *w, const struct request *rq,
                           const struct match_relax *r)
{
    static const char *const times[] = {"start", "earliest", "latest", "wait_until"},
                             *const durations[] = {"max_rtt", "duration"},
                             *const moneys[] = {"max_price", "max_price_per_gpu_hour"};
    const json_t *list = json_object_get(rq->tree, r->member);
    if (r->name != NULL && json_is_array(list) && strcmp(r->member, "provider") != 0)
        return without(list, r->name);
    if (r->name != NULL)
        return json_string(r->name);
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
        if (strcmp(r->member, times[i]) == 0)
            return jsonx_time(r->value);
    for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++)
        if (strcmp(r->member, durations[i]) == 0)
            return duration_json(r->value);
    for (size_t i = 0; i < sizeof(moneys) / sizeof(moneys[0]); i++)
        if (strcmp(r->member, moneys[i]) == 0)
            return jsonx_money(w->currency, r->value);
    if (strcmp(r->member, "max_slowdown") == 0)
        return render_ppm(r->value);
    if (strcmp(r->member, "bandwidth") == 0)
        return r->value > 0 ? rate_json(r->value) : json_null();
    return json_integer(r->value);
}

static json_t *relax_json(const struct world *w, const struct request *rq,
                          const struct match_relax *r)
{
    if (r->member == NULL || r->member[0] == '\0')
        return json_null();
    /* "312 more" → "312 JPY more" */
    bool money = strncmp(r->member, "max_price", 9) == 0;
    size_t amount = money ? strcspn(r->text, " ") : 0;
    char text[sizeof(r->text) + 8];
    snprintf(text, sizeof(text), "%.*s%s%s%s", (int)amount, r->text, money ? " " : "",
             money ? w->currency : "", r->text + amount);
    return json_pack("{s:s, s:o, s:s}", "member", r->member, "value",
                     relax_value(w, rq, r), "text", text);
}

json_t *plan_rejected(const struct world *w, const struct plan *p,
                      const struct request *rq)
{
    json_t *out = json_array();
    for (size_t i = p->fit; i < p->count; i++) {
        const struct match_place *place = &p->places[i];
        const struct match_offer *o = &w->offers[place->offer];
        json_array_append_new(
            out, json_pack("{s:s, s:s, s:s, s:s, s:s, s:o}", "site", o->site_name,
                           "provider", o->provider_name, "gpu_model", o->gpu_model,
                           "why", match_why_name(place->why), "reason", place->reason,
                           "relax", relax_json(w, rq, &place->relax)));
    }
    return out;
}

void plan_no_fit(const struct world *w, const struct plan *p, struct err *err)
{
    if (p->count == 0) {
        err_set(err, ERR_NO_FIT, "nothing fits: no GPU is on offer in this market");
        return;
    }
    if (p->fit == p->count) {
        err_set(err, ERR_NO_FIT,
                "nothing fits: each place could serve a part, none all of it (%s)",
                match_why_name(p->why));
        return;
    }
    /* The filters are asked in order, so the last place got furthest. */
    const struct match_place *near = &p->places[p->count - 1];
    const struct match_offer *o = &w->offers[near->offer];
    err_set(err, ERR_NO_FIT, "nothing fits in %zu places; nearest: %s/%s: %s", p->count,
            o->site_name, o->provider_name, near->reason);
}
