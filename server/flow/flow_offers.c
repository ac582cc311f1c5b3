/* GET /v1/offers, /v1/calendar, /v1/profiles: what could be had, from this server's
 * copy of the market: no question to the database, nothing is held. */
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/plan.h"

struct nothing {
    char unused;
};

/* ---- offers ---- */

static enum flow_turn offers_rank(struct flow *f)
{
    struct world *w = world_of(f);
    const char *tenant = f->rq->who.tenant_id;
    struct request rq;
    struct plan plan;
    struct err err;
    if (request_from_query(f->rq->query, f->rq->query_count, w->currency, f->now_us,
                           &rq, &err) != 0)
        return flow_fail(f, &err);
    if (plan_rank(w, &rq, tenant, f->now_us, &plan, &err) != 0) {
        request_done(&rq);
        return flow_fail(f, &err);
    }
    plan_log(w, &rq, &plan, tenant, "offers", plan.fit > 0 ? "ok" : "no_fit");
    json_t *reply = json_pack("{s:o, s:o}", "offers", plan_offers(w, &plan), "rejected",
                              plan_rejected(w, &plan));
    plan_done(&plan);
    request_done(&rq);
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step offers_steps[] = {{"rank", offers_rank}};
const struct flow_kind flow_offers =
    FLOW_KIND("flow_offers", struct nothing, offers_steps);

/* ---- calendar ---- */

#define CALENDAR_SLOTS_MAX 400

struct span_query {
    int64_t from_us, to_us, step_us;
};

static int query_span(const struct flow *f, struct span_query *ret, struct err *err)
{
    const char *from = flow_query(f, "from"), *to = flow_query(f, "to"),
               *step = flow_query(f, "step");
    ret->from_us = f->now_us - f->now_us % US_PER_HOUR;
    ret->step_us = US_PER_HOUR;
    if (from != NULL && timefmt_parse(from, &ret->from_us, err) != 0)
        return err_prefix(err, "from");
    ret->to_us = ret->from_us + 24 * US_PER_HOUR;
    if (to != NULL && timefmt_parse(to, &ret->to_us, err) != 0)
        return err_prefix(err, "to");
    if (step != NULL && timefmt_parse_duration(step, &ret->step_us, err) != 0)
        return err_prefix(err, "step");
    if (ret->step_us < 60 * US_PER_S || ret->to_us <= ret->from_us ||
        (ret->to_us - ret->from_us) / ret->step_us >= CALENDAR_SLOTS_MAX)
        return err_set(err, ERR_BAD_REQUEST,
                       "from, to, step: at most %d steps of at least 1m",
                       CALENDAR_SLOTS_MAX);
    return 0;
}

static json_t *offer_slots(const struct world *w, int offer, const struct span_query *q)
{
    const struct match_offer *o = &w->offers[offer];
    json_t *slots = json_array();
    for (int64_t at = q->from_us; at < q->to_us; at += q->step_us) {
        int64_t end = at + q->step_us < q->to_us ? at + q->step_us : q->to_us;
        int best, total;
        calendar_capacity(w->calendar, o->site, o->model, at, end, &best, &total);
        json_array_append_new(slots, json_pack("{s:o, s:o, s:i, s:i}", "from",
                                               jsonx_time(at), "to", jsonx_time(end),
                                               "free", total, "largest", best));
    }
    return json_pack("{s:s, s:s, s:s, s:o}", "site", o->site_name, "provider",
                     o->provider_name, "gpu_model", o->gpu_model, "slots", slots);
}

static enum flow_turn calendar_reply(struct flow *f)
{
    static const char *const names[] = {"from", "to", "step", "gpu", "site", NULL};
    const struct world *w = world_of(f);
    struct span_query q;
    struct err err;
    if (flow_query_check(f, names, &err) != 0 || query_span(f, &q, &err) != 0)
        return flow_fail(f, &err);
    const char *gpu = flow_query(f, "gpu"), *site = flow_query(f, "site");
    json_t *list = json_array();
    for (size_t i = 0; i < w->offer_count; i++)
        if ((site == NULL || strcmp(site, w->offers[i].site_name) == 0) &&
            (gpu == NULL || match_model_fits(w->offers[i].gpu_model, gpu)))
            json_array_append_new(list, offer_slots(w, (int)i, &q));
    return flow_reply_json(f, 200, json_pack("{s:o}", "calendar", list));
}

static const struct flow_step calendar_steps[] = {{"reply", calendar_reply}};
const struct flow_kind flow_calendar =
    FLOW_KIND("flow_calendar", struct nothing, calendar_steps);

/* ---- profiles ---- */

static enum flow_turn profiles_reply(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    json_t *list = json_array();
    for (size_t i = 0; i < slowdown_profile_count; i++) {
        const struct slowdown_profile *p = &slowdown_profiles[i];
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:s, s:s}", "name", p->name,
                            "kind", slowdown_kind_name(p->kind), "gpu",
                            p->gpu != NULL ? p->gpu : "", "demand_Bps_per_gpu",
                            p->demand_Bps_per_gpu, "request_bytes", p->request_bytes,
                            "outstanding_per_gpu", p->outstanding_per_gpu, "source",
                            p->source != NULL ? p->source : "", "assumed",
                            p->assumed != NULL ? p->assumed : ""));
    }
    return flow_reply_json(f, 200, json_pack("{s:o}", "profiles", list));
}

static const struct flow_step profiles_steps[] = {{"reply", profiles_reply}};
const struct flow_kind flow_profiles =
    FLOW_KIND("flow_profiles", struct nothing, profiles_steps);
