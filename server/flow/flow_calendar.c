/* GET /v1/calendar: what is free when, from this server's copy of the market: no
 * question to the database, nothing is promised. A row for each place, a figure for
 * each step of time: GPUs that are free during all of it. */
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/request.h"

/* A screen has fewer columns, a chart fewer pixels. */
#define CALENDAR_STEPS_MAX   400
#define CALENDAR_STEP_MIN_US (60 * US_PER_S)

struct nothing {
    char unused;
};

struct span_query {
    int64_t from_us, step_us;
    size_t count;
    int64_t gpus;
};

static int query_span(const struct flow *f, struct span_query *ret, struct err *err)
{
    const char *from = flow_query(f, "from"), *to = flow_query(f, "to"),
               *step = flow_query(f, "step"), *gpus = flow_query(f, "gpus");
    int64_t to_us;
    ret->from_us = f->now_us - f->now_us % US_PER_HOUR;
    ret->step_us = US_PER_HOUR;
    ret->gpus = 1;
    if (from != NULL && timefmt_parse(from, &ret->from_us, err) != 0)
        return err_prefix(err, "from");
    to_us = ret->from_us + 24 * US_PER_HOUR;
    if (to != NULL && timefmt_parse(to, &to_us, err) != 0)
        return err_prefix(err, "to");
    if (step != NULL && timefmt_parse_duration(step, &ret->step_us, err) != 0)
        return err_prefix(err, "step");
    if (gpus != NULL &&
        request_int("gpus", gpus, 1, GPUS_PER_NODE_MAX, &ret->gpus, err) != 0)
        return -1;
    if (ret->step_us < CALENDAR_STEP_MIN_US || to_us <= ret->from_us ||
        (to_us - ret->from_us - 1) / ret->step_us >= CALENDAR_STEPS_MAX)
        return err_set(err, ERR_BAD_REQUEST,
                       "from, to, step: at most %d steps of at least 1m",
                       CALENDAR_STEPS_MAX);
    ret->count = (size_t)((to_us - ret->from_us - 1) / ret->step_us + 1);
    return 0;
}

/* GPUs on offer, booked or not, by offer. Caller frees. */
static int *total_gpus(const struct world *w)
{
    int *total = xcalloc(w->offer_count + 1, sizeof(*total));
    for (size_t i = 0; i < w->node_count; i++) {
        int offer = world_offer_of(w, (int)i);
        if (offer >= 0)
            total[offer] += __builtin_popcountll(w->nodes[i].offered);
    }
    return total;
}

static json_t *offer_json(const struct world *w, const struct match_offer *o, int total,
                          const struct span_query *q)
{
    struct calendar_step steps[CALENDAR_STEPS_MAX];
    json_t *list = json_array();
    calendar_series(w->calendar, o->site, o->model, q->from_us, q->step_us, q->count,
                    steps);
    for (size_t i = 0; i < q->count; i++)
        json_array_append_new(list, json_pack("{s:i, s:i}", "free", steps[i].total,
                                              "best_node", steps[i].best_node));
    return json_pack("{s:s, s:s, s:s, s:i, s:o}", "site", o->site_name, "provider",
                     o->provider_name, "gpu_model", o->gpu_model, "total", total,
                     "steps", list);
}

static bool is_asked(const struct flow *f, const struct match_offer *o,
                     const struct span_query *q)
{
    const struct world *w = world_of(f);
    const char *gpu = flow_query(f, "gpu"), *site = flow_query(f, "site");
    return (site == NULL || strcmp(site, o->site_name) == 0) &&
           (gpu == NULL || match_model_fits(o->gpu_model, gpu)) &&
           (q->gpus == 1 ||
            calendar_largest(w->calendar, o->site, o->model) >= q->gpus);
}

static enum flow_turn calendar_reply(struct flow *f)
{
    static const char *const names[] = {"from", "to",   "step", "gpu",
                                        "gpus", "site", NULL};
    const struct world *w = world_of(f);
    struct span_query q;
    char step[TIMEFMT_MAX];
    struct err err;
    if (flow_query_check(f, names, &err) != 0 || query_span(f, &q, &err) != 0)
        return flow_fail(f, &err);
    int *total = total_gpus(w);
    json_t *list = json_array();
    for (size_t i = 0; i < w->offer_count; i++)
        if (is_asked(f, &w->offers[i], &q))
            json_array_append_new(list, offer_json(w, &w->offers[i], total[i], &q));
    free(total);
    timefmt_duration(q.step_us, step);
    return flow_reply_json(f, 200,
                           json_pack("{s:o, s:s, s:o}", "from", jsonx_time(q.from_us),
                                     "step", step, "offers", list));
}

static const struct flow_step calendar_steps[] = {{"reply", calendar_reply}};
const struct flow_kind flow_calendar =
    FLOW_KIND("flow_calendar", struct nothing, calendar_steps);
