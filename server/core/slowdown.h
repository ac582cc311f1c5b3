/* slowdown: predicted slow-down of a job whose data is R away (docs/matching.md). SI
 * units. The stream and once-only terms of the model; sync, request and federated terms
 * join here. Doubles are allowed here and nowhere near money or time; results are
 * rounded once, in match.c. Sources: RFC 3448 section 3.1, DLIO/MLPerf Storage
 * profiles. Pure. */
#ifndef NEARGPU_SLOWDOWN_H
#define NEARGPU_SLOWDOWN_H
#include <stddef.h>
#include <stdint.h>

enum slowdown_kind {
    SLOWDOWN_STREAM,
    SLOWDOWN_COLD,
    SLOWDOWN_STARTUP,
    SLOWDOWN_CHECKPOINT
};

struct slowdown_profile {
    const char *name;
    enum slowdown_kind kind;
    const char *gpu;           /* model the numbers are for */
    double demand_Bps_per_gpu; /* bytes/s one GPU reads at full speed */
    double request_bytes;
    double outstanding_per_gpu;
    double startup_bytes;    /* once */
    double checkpoint_bytes; /* each interval */
    double step_s;
    const char *source;
    const char *assumed; /* fields that are assumed, "" none */
};
extern const struct slowdown_profile slowdown_profiles[];
extern const size_t slowdown_profile_count;
const struct slowdown_profile *slowdown_find(const char *name); /* NULL: unknown */

struct slowdown_path {
    double rtt_s;
    double bandwidth_Bps;         /* left for this job */
    double service_s;             /* storage service time, 0.5 ms unless known */
    double loss;                  /* 0: lossless optical path */
    double streams, window_bytes; /* TCP; 0: not the limit */
};
#define SLOWDOWN_SERVICE_S 0.0005

enum slowdown_bound {
    SLOWDOWN_NOT_BOUND,
    SLOWDOWN_BOUND_BANDWIDTH,
    SLOWDOWN_BOUND_OUTSTANDING,
    SLOWDOWN_BOUND_WINDOW,
    SLOWDOWN_BOUND_LOSS
};
struct slowdown_result {
    double steady; /* >= 1 */
    double once_s; /* seconds added once (start-up, cold epoch) */
    double job;    /* (t_local + once)/t_local * steady; == steady if t_local 0 */
    enum slowdown_bound bound;
    double demand_Bps, supply_Bps;
    double outstanding_needed_per_gpu; /* to be unbound by outstanding requests */
};
/* t_local_s: duration the tenant asked for (0: steady only). gpus >= 1. */
void slowdown_predict(const struct slowdown_profile *p,
                      const struct slowdown_path *path, double gpus, double t_local_s,
                      struct slowdown_result *ret);
/* One line of advice ("bound by outstanding requests: raise prefetch from 8 to 24"),
 * "" when not bound. */
void slowdown_advice(const struct slowdown_profile *p, const struct slowdown_result *r,
                     char *out, size_t cap);

#endif
