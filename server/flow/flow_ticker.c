/* The server's own flow: about once a second, what is due by time (world_tick), and the
 * flows that do the market's own work when one of their kind does not run already. It
 * runs until the runner ends. */
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"

/* Nothing told of a change: how often they look all the same. */
#define WAITING_EACH_US (20 * US_PER_S)
#define OUTAGE_EACH_US  (5 * US_PER_S)
/* Planning a long list may take a twentieth of the server's time. */
#define WAITING_REST 20

struct ticker {
    int64_t waiting_us, outage_us; /* when they last began */
    uint64_t version;              /* of the world then */
};

static uint64_t begin(struct flow *f, const struct flow_kind *kind)
{
    struct err err; /* too many flows: the next tick tries again */
    return flow_start(f->runner, kind, NULL, 0, f->now_us, &err);
}

static void begin_work(struct flow *f)
{
    struct ticker *s = f->state;
    struct world *w = world_of(f);
    if (!w->loaded || w->reload)
        return;
    bool orders = w->wait_due || (w->order_count > 0 && s->version != w->version) ||
                  f->now_us - s->waiting_us >= WAITING_EACH_US;
    bool rested = f->now_us - s->waiting_us >= w->waiting_cost_us * WAITING_REST;
    if (w->waiting_flow == 0 && orders && rested) {
        s->waiting_us = f->now_us;
        s->version = w->version;
        w->wait_due = false;
        w->waiting_flow = begin(f, &flow_waiting);
    }
    if (w->outage_flow == 0 &&
        (w->outage_due || f->now_us - s->outage_us >= OUTAGE_EACH_US)) {
        s->outage_us = f->now_us;
        w->outage_due = false;
        w->outage_flow = begin(f, &flow_outage);
    }
    if (w->paths_flow == 0 && w->paths.count > 0)
        w->paths_flow = begin(f, &flow_paths_due);
}

static enum flow_turn ticker_tick(struct flow *f)
{
    struct world *w = world_of(f);
    if (f->now_us - w->ticked_us >= US_PER_S || f->now_us < w->ticked_us) {
        world_tick(w, f->now_us);
        begin_work(f);
    }
    flow_wait_until(f, w->ticked_us + US_PER_S);
    return FLOW_AGAIN;
}

static const struct flow_step ticker_steps[] = {{"tick", ticker_tick}};
const struct flow_kind flow_ticker =
    FLOW_KIND("flow_ticker", struct ticker, ticker_steps);
