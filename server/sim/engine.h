/* engine: replays a trace over a market, event by event. At one instant ends come
 * first, then those who wait, then new submissions, each in the order of the file.
 *
 *   none      a job that cannot start when it is submitted is refused
 *   fifo      it waits; the one who waits longest starts as soon as any place has room,
 *             and nobody passes it
 *   backfill  conservative: at submission each job gets the earliest start that leaves
 *             everybody before it where they are. Durations are known exactly here, so
 *             the plan never has to be made again
 * A job that no empty market could serve is refused in each of them.
 *
 * A place has room when a node has as many GPUs free as the job asks for, wherever they
 * are. The market's calendar sells neighbouring GPUs; so the engine numbers a node's
 * GPUs anew when a job ends, and the free ones are neighbours again; plans into the
 * future (backfill) are kept in `room`, which counts. With `fixed_gpus` a job gets
 * neighbours and keeps them, as in the market, from the calendar alone, and
 * fragmentation is seen.
 *
 * Same world, options and seed: the same outcomes, whatever the machine. Pure: time is
 * only asked from `clock_ns`, for the cost of a match. */
#ifndef NEARGPU_SIM_ENGINE_H
#define NEARGPU_SIM_ENGINE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/sim/choose.h"
#include "server/sim/world.h"

enum sim_wait { SIM_WAIT_NONE, SIM_WAIT_FIFO, SIM_WAIT_BACKFILL };
#define SIM_WAITS 3
const char *sim_wait_name(enum sim_wait wait);

struct sim_options {
    enum sim_policy policy;
    enum sim_wait wait;
    uint64_t seed;
    bool fixed_gpus;
    int64_t (*clock_ns)(void); /* NULL: matches are not timed */
};
struct sim_outcome {
    int why;  /* MATCH_OK: placed; else refused, sim_why_name */
    int data; /* site of the data, given or drawn */
    int offer;
    int64_t start_us, end_us;
    int64_t rtt_us; /* SIM_RTT_UNKNOWN */
    int64_t slowdown_ppm;
    int64_t price_micro;                    /* per GPU-hour */
    int64_t charged_micro, effective_micro; /* of each node */
    int gpus;                               /* of each node */
    int *nodes;                             /* indexes into world.nodes */
    int node_count;
};
struct sim_run {
    struct sim_outcome *outcomes; /* as world.jobs */
    int64_t *match_ns;            /* one each time a place was looked for */
    size_t match_count, match_cap;
    int64_t run_ns;
};
void sim_run(const struct sim_world *w, const struct sim_options *options,
             struct sim_run *ret);
void sim_run_done(struct sim_run *r, const struct sim_world *w);

#endif
