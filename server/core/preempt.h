/* preempt: what firm demand may take from spot leases when no free place fits. Among
 * the places it could have by preemption the one that costs least to lose: the sum over
 * the victims of the work lost, GPUs x price x time run so far; ties: the victims that
 * started latest, then the lower effective cost. A victim keeps its notice: nothing
 * begins on its GPUs before now + its notice.
 *
 * Decides nothing in the database: the booking names the victims, and is lost when one
 * of them changed meanwhile. Single nodes and gangs of one site without paths. Pure. */
#ifndef NEARGPU_PREEMPT_H
#define NEARGPU_PREEMPT_H
#include "server/core/match.h"

struct preempt_spot {    /* a spot booking that blocks something */
    int64_t reservation; /* the caller's number of it: equal for bookings of one */
    int node, first, count;
    int64_t from_us, to_us;
    int64_t per_gpu_hour_micro, notice_us;
};
struct preempt_victim {
    int64_t reservation;
    int64_t cut_us; /* when its lease ends instead */
};
#define PREEMPT_VICTIMS_MAX 256
struct preempt_market {
    const struct match_market *market;
    const struct calendar *firm; /* firm bookings alone */
    const struct preempt_spot *spots;
    size_t spot_count;
};
struct preempt_plan {
    struct match_plan plan;
    struct preempt_victim
        victims[PREEMPT_VICTIMS_MAX]; /* a plan with more is passed over */
    size_t victim_count;
};
/* MATCH_OK and *ret filled; else why not even so, *ret untouched. */
enum match_why preempt_find(const struct preempt_market *m, const struct match_query *q,
                            struct preempt_plan *ret);

#endif
