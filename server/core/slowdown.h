/* slowdown: predicted slow-down of a job whose data is R away (docs/matching.md). SI
 * units.
 *
 *   demand  d = gpus x demand_Bps_per_gpu
 *   supply  X = min(B, S W/R, S X_loss, D q / ((1+m) R + t_s + q/B))
 *   stream  s = max(1, d/X) + k R/T_step
 *   once    max(0, V/X_bulk - T_local)            cold epoch or model start-up
 *   ckpt    s + (V_ckpt/X_bulk + n R)/interval
 *   sync    s = 1 + v/B + c R
 *
 * Doubles are allowed here and nowhere near money or time; results are rounded once, in
 * match.c. Known wrong by construction: no overlap of sync and compute (too
 * pessimistic). It does not model request latency of inference. Sources: RFC 3448
 * section 3.1, DLIO/MLPerf Storage profiles. Pure. */
#ifndef NEARGPU_SLOWDOWN_H
#define NEARGPU_SLOWDOWN_H
#include <stddef.h>
#include <stdint.h>

enum slowdown_kind {
    SLOWDOWN_STREAM,     /* reads all the time */
    SLOWDOWN_COLD,       /* reads the data set once, then from the node's cache */
    SLOWDOWN_STARTUP,    /* reads the model once, streams little */
    SLOWDOWN_CHECKPOINT, /* writes a checkpoint every interval */
    SLOWDOWN_SYNC        /* exchanges gradients with the far site */
};
const char *slowdown_kind_name(enum slowdown_kind kind); /* "stream" ... */

struct slowdown_profile {
    const char *name;
    enum slowdown_kind kind;
    const char *gpu;           /* model the numbers are for */
    double demand_Bps_per_gpu; /* bytes/s one GPU reads at full speed */
    double request_bytes;      /* q of the stream */
    double outstanding_per_gpu;
    double step_s;         /* T_step, 0: not known */
    double trips_per_step; /* k: round trips a step waits for, 0 with prefetch */
    /* Bulk transfers: start-up, cold epoch, checkpoint. */
    double bulk_request_bytes; /* 0: as the stream */
    double bulk_outstanding_per_gpu;
    double startup_bytes;   /* V: model, or data set of a cold epoch; once */
    double startup_local_s; /* time the same takes with the data local */
    double checkpoint_bytes;
    double checkpoint_interval_s; /* 0: checkpoints are not counted */
    double sync_Bps;              /* v: bytes exchanged per second of compute */
    double sync_trips_Hz;         /* c: round trips per second of compute */
    const char *source;
    const char *assumed; /* fields that are assumed, "" none */
};
extern const struct slowdown_profile slowdown_profiles[];
extern const size_t slowdown_profile_count;
const struct slowdown_profile *slowdown_find(const char *name); /* NULL: unknown */

struct slowdown_path {
    double rtt_s;
    double bandwidth_Bps;         /* left for this job; 0: not a limit */
    double service_s;             /* storage service time, as SLOWDOWN_SERVICE_S */
    double loss;                  /* 0: lossless optical path */
    double streams, window_bytes; /* TCP; 0: not the limit */
};
#define SLOWDOWN_SERVICE_S      0.0005
#define SLOWDOWN_MSS_BYTES      1460.0
#define SLOWDOWN_CHECKPOINT_RTT 2.0 /* n: open and commit, serial */

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
/* t_local_s: duration the tenant asked for (0: steady only). gpus >= 1. The bound is
 * that of the stream when it slows the job, else of the bulk transfer. */
void slowdown_predict(const struct slowdown_profile *p,
                      const struct slowdown_path *path, double gpus, double t_local_s,
                      struct slowdown_result *ret);
/* One line of advice ("bound by outstanding requests: raise prefetch from 8 to 24"),
 * "" when not bound. */
void slowdown_advice(const struct slowdown_profile *p, const struct slowdown_result *r,
                     char *out, size_t cap);

#endif
