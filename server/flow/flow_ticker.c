/* The server's own flow: about once a second, what is due by time (world_tick). It runs
 * until the runner ends. */
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"

struct ticker {
    char unused;
};

static enum flow_turn ticker_tick(struct flow *f)
{
    if (f->now_us - world_of(f)->ticked_us >= US_PER_S ||
        f->now_us < world_of(f)->ticked_us)
        world_tick(world_of(f), f->now_us);
    flow_wait_until(f, world_of(f)->ticked_us + US_PER_S);
    return FLOW_AGAIN;
}

static const struct flow_step ticker_steps[] = {{"tick", ticker_tick}};
const struct flow_kind flow_ticker =
    FLOW_KIND("flow_ticker", struct ticker, ticker_steps);
