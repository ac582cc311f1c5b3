/* choose: the market of the files as the matching core sees it, and one decision: where
 * does this job go, by which policy, and if nowhere, why not.
 *
 *   neargpu   lowest effective cost (price x GPUs x hours x slow-down), then smaller
 * RTT nearest   smallest RTT to the data, then lower price cheapest  lowest price per
 * GPU-hour; it does not look at distance random    any, by seed Ties are broken by a
 * draw that depends on seed, job and place only. For all of them a place is a (site,
 * GPU model), and hard facts are the same: no RTT known to the data of a job with a
 * profile, no such model, no price, too few GPUs.
 *
 * A job that asks for more GPUs than any node of the models it takes has is a gang:
 * whole nodes of one site and model, each the largest the site has of it. Slow-downs
 * are predicted with unlimited bandwidth and no loss between sites: only the RTT and
 * the profile decide. It books nothing. Pure. */
#ifndef NEARGPU_SIM_CHOOSE_H
#define NEARGPU_SIM_CHOOSE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/bounds.h"
#include "server/core/match.h"
#include "server/sim/room.h"
#include "server/sim/world.h"

enum sim_policy { SIM_NEARGPU, SIM_NEAREST, SIM_CHEAPEST, SIM_RANDOM };
#define SIM_POLICIES 4
const char *sim_policy_name(enum sim_policy policy);

/* Why a job is refused: match_why, and what only a trace can meet. */
enum sim_why {
    SIM_NO_PRICE = MATCH_WHY_COUNT, /* no place of its models has a price */
    SIM_ENDLESS,                    /* slowed down past the end of counted time */
    SIM_WHY_COUNT
};
const char *sim_why_name(int why);

/* Places that have a GPU model a wish names. */
struct sim_wish {
    struct match_offer *offers; /* copies, for match_best */
    int *ids;                   /* index of each in market.offers */
    size_t count;
    int largest;  /* GPUs of the largest node among them */
    int no_offer; /* why, when count is 0 */
};
struct sim_market {
    const struct sim_world *world; /* borrowed */
    struct calendar *calendar;     /* node i is world->nodes[i] */
    struct room *room; /* NULL, or used in place of the calendar; the caller's */
    struct topo *topo; /* data set d is the one at site d */
    struct match_offer *offers; /* one per (site, model) with nodes and a price */
    int *largest;               /* GPUs of its largest node */
    int *whole;                 /* nodes of that size */
    size_t offer_count;
    struct sim_wish *wishes;
    struct match_plan *plan; /* scratch */
};
void sim_market_init(struct sim_market *m, const struct sim_world *w);
void sim_market_done(struct sim_market *m);

struct sim_choice {
    int why;                  /* MATCH_OK: the rest holds */
    int offer;                /* index into market.offers */
    int64_t start_us, len_us; /* len: duration x slow-down */
    int64_t rtt_us;           /* SIM_RTT_UNKNOWN */
    int64_t slowdown_ppm;
    int nodes, gpus; /* GPUs of each node */
    struct calendar_slot slots[GANG_NODES_MAX];
};
struct sim_ask {
    enum sim_policy policy;
    int data;        /* site of the data */
    uint64_t chance; /* drawn for this job */
    /* Start in [now, latest]: at the earliest instant any place has, and among those of
     * one instant as the policy says. */
    int64_t now_us, latest_us;
};
/* BUSY: it would fit if others were gone. Any other refusal holds for ever. */
void sim_choose(const struct sim_market *m, const struct sim_job *job,
                const struct sim_ask *ask, struct sim_choice *ret);

/* A number that depends on all three and looks random (SplitMix64). */
uint64_t sim_draw(uint64_t seed, uint64_t a, uint64_t b);

#endif
