/* GET /v1/offers, /v1/profiles: what could be had, from this server's copy of the
 * market: no question to the database, nothing is held. */
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
    plan_log(w, &rq, &plan, tenant, "offers", plan.fits ? "ok" : "no_fit");
    plan_judge(w, &rq, f->now_us, &plan);
    json_t *reply =
        json_pack("{s:o, s:o}", "offers", plan_offers(w, &plan, &rq, f->now_us),
                  "rejected", plan_rejected(w, &plan, &rq));
    plan_done(&plan);
    request_done(&rq);
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step offers_steps[] = {{"rank", offers_rank}};
const struct flow_kind flow_offers =
    FLOW_KIND("flow_offers", struct nothing, offers_steps);

/* ---- profiles ---- */

static double number_of(const struct slowdown_profile *p,
                        const struct slowdown_field *d)
{
    double v;
    memcpy(&v, (const char *)p + d->offset, sizeof(v));
    return v;
}

static json_t *profile_json(const struct slowdown_profile *p)
{
    json_t *out =
        json_pack("{s:s, s:s, s:s}", "name", p->name, "kind",
                  slowdown_kind_name(p->kind), "gpu", p->gpu != NULL ? p->gpu : "");
    for (size_t i = 0; i < slowdown_field_count; i++)
        json_object_set_new(out, slowdown_fields[i].name,
                            json_real(number_of(p, &slowdown_fields[i])));
    json_object_set_new(out, "source", json_string(p->source != NULL ? p->source : ""));
    json_object_set_new(out, "assumed",
                        json_string(p->assumed != NULL ? p->assumed : ""));
    return out;
}

static enum flow_turn profiles_reply(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    json_t *list = json_array(), *fields = json_array();
    for (size_t i = 0; i < slowdown_profile_count; i++)
        json_array_append_new(list, profile_json(&slowdown_profiles[i]));
    for (size_t i = 0; i < slowdown_field_count; i++)
        json_array_append_new(
            fields, json_pack("{s:s, s:s, s:f, s:f}", "name", slowdown_fields[i].name,
                              "what", slowdown_fields[i].what, "min",
                              slowdown_fields[i].min, "max", slowdown_fields[i].max));
    return flow_reply_json(f, 200,
                           json_pack("{s:o, s:o}", "profiles", list, "fields", fields));
}

static const struct flow_step profiles_steps[] = {{"reply", profiles_reply}};
const struct flow_kind flow_profiles =
    FLOW_KIND("flow_profiles", struct nothing, profiles_steps);
