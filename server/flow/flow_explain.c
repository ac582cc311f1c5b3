/* GET /v1/explain: what a reservation would get now, and why nothing else: each place
 * with the bound that excluded it and the nearest change of the request that would fit
 * there. From this server's copy of the market: nothing is asked, nothing is held. */
#include <string.h>

#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/plan.h"
#include "server/flow/render.h"

struct explain {
    char unused;
};

/* The plan as the reservation it would be; it has no id. */
static json_t *chosen(struct flow *f, const struct plan *plan)
{
    struct world *w = world_of(f);
    struct plan_pick pick;
    struct plan_resv who = {"", f->rq->who.name, "waiting", f->now_us};
    plan_pick(w, plan, f->now_us, &pick);
    json_t *resv = plan_resv(w, &pick, &who);
    json_t *out = render_resv(resv);
    json_decref(resv);
    plan_pick_done(&pick);
    return out;
}

static const char *advice(const struct plan *plan)
{
    const struct match_plan *best = plan->best;
    if (!plan->fits)
        return "";
    int worst = 0;
    for (int g = 1; g < best->group_count; g++)
        if (best->groups[g].slowdown_ppm > best->groups[worst].slowdown_ppm)
            worst = g;
    return best->groups[worst].advice;
}

static enum flow_turn explain_rank(struct flow *f)
{
    struct world *w = world_of(f);
    struct request rq;
    struct plan plan;
    struct err err;
    if (request_from_query(f->rq->query, f->rq->query_count, w->currency, f->now_us,
                           &rq, &err) != 0)
        return flow_fail(f, &err);
    if (plan_rank(w, &rq, f->rq->who.tenant_id, f->now_us, &plan, &err) != 0) {
        request_done(&rq);
        return flow_fail(f, &err);
    }
    plan_judge(w, &rq, f->now_us, &plan);
    plan_preempt(w, &rq, f->now_us, &plan); /* as a reservation would */
    json_t *reply = json_pack("{s:o, s:o, s:s}", "chosen",
                              plan.fits ? chosen(f, &plan) : json_null(), "rejected",
                              plan_rejected(w, &plan, &rq), "advice", advice(&plan));
    plan_done(&plan);
    request_done(&rq);
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step explain_steps[] = {{"rank", explain_rank}};
const struct flow_kind flow_explain =
    FLOW_KIND("flow_explain", struct explain, explain_steps);
