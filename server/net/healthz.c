/* healthz: GET /healthz. Says only that this process serves requests; whether it can do
 * its work (database, caches) is /readyz, which is another flow's. */
#include "server/flow/flows.h"

static enum flow_turn healthz_answer(struct flow *f)
{
    return flow_reply_json(f, 200, json_pack("{s:s}", "status", "ok"));
}

static const struct flow_step healthz_steps[] = {{"answer", healthz_answer}};
const struct flow_kind flow_healthz = {
    .name = "healthz",
    .steps = healthz_steps,
    .step_count = 1,
};
