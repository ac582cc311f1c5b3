/* slowdown: predicted slow-down of a job whose data is R away (docs/matching.md). SI
 * units.
 *
 *   demand     d = gpus x demand_Bps_per_gpu
 *   supply     X = min(B, storage, S W/R, S X_loss, D q / ((1+m) R + t_s + q/B))
 *   stream     s = max(1, d/X) + k R/T_step
 *   once       max(0, V/X - T_local)               cold epoch or model start-up
 *   checkpoint s + (V_ckpt/X + n R)/interval
 *   sync       s = 1 + v/B' + c R                  B' = min(B, S W/R, S X_loss)
 *   request    s + (m R + bytes/X)/T_response      X without the request term
 *   federated  (max_i(T_i) + 2 V_model/X + c max_i(T_i) R) / max_i(T_i)
 *   job        (T_local + once)/T_local x s
 *
 * Every slow-down is >= 1 and at most SLOWDOWN_CEILING; it never falls when RTT, loss
 * or demand rise or bandwidth falls. Inputs that are negative or not a number count as
 * 0, huge ones as 1e18: nothing that comes out is infinite or NaN. slowdown_predict
 * uses no pow, log, memory or text: a match asks it once per site and data set.
 *
 * Doubles are allowed here and nowhere near money or time; results are rounded once, in
 * match.c. Known wrong by construction: no overlap of sync and compute (too
 * pessimistic). It knows nothing of queues inside the storage or of other tenants'
 * traffic: bandwidth_Bps is what is left. Sources: RFC 3448 section 3.1, DLIO/MLPerf
 * Storage profiles. Pure. */
#ifndef NEARGPU_SLOWDOWN_H
#define NEARGPU_SLOWDOWN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

enum slowdown_kind {
    SLOWDOWN_STREAM,     /* reads all the time */
    SLOWDOWN_COLD,       /* reads the data set once, then from the node's cache */
    SLOWDOWN_STARTUP,    /* reads the model once, streams little */
    SLOWDOWN_CHECKPOINT, /* writes a checkpoint every interval */
    SLOWDOWN_SYNC,       /* exchanges gradients with the far site */
    SLOWDOWN_REQUEST,    /* answers requests from far away (inference) */
    SLOWDOWN_FEDERATED   /* groups train near their data and exchange models */
};
#define SLOWDOWN_KINDS 7
const char *slowdown_kind_name(enum slowdown_kind kind); /* "stream" ... */
/* Also "cold" for "cold_then_cached". False: no such kind. */
bool slowdown_kind_find(const char *name, enum slowdown_kind *ret);

struct slowdown_profile {
    const char *name;
    enum slowdown_kind kind;
    const char *gpu;           /* model the numbers are for */
    double demand_Bps_per_gpu; /* bytes/s one GPU reads at full speed */
    double request_bytes;      /* q of the stream */
    double outstanding_per_gpu;
    /* m: extra serial round trips of a read (open, look up), of kind request: all
     * serial round trips of a response. */
    double trips_per_request;
    double step_s;         /* T_step, 0: not known */
    double trips_per_step; /* k: round trips a step waits for, 0 with prefetch */
    double au_min;         /* accelerator utilisation the benchmark asks for, 0: none;
                              a slow-down over 1/au_min fails it */
    /* Bulk transfers: start-up, cold epoch, checkpoint, model exchange. */
    double bulk_request_bytes; /* 0: as the stream */
    double bulk_outstanding_per_gpu;
    double startup_bytes;   /* V: model, or data set of a cold epoch; once */
    double startup_local_s; /* time the same takes with the data local */
    double checkpoint_bytes;
    double checkpoint_interval_s; /* 0: checkpoints are not counted */
    double sync_Bps;              /* v: bytes exchanged per second of compute */
    double sync_trips_Hz;         /* c: round trips per second of compute */
    double response_bytes;        /* of a request and its response together */
    double response_local_s;      /* response time of a user next to the GPU */
    double model_bytes;           /* federated: exchanged twice a round */
    double round_s;               /* federated: computing of one round */
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
    double loss;                  /* 0..1; 0: none */
    double streams, window_bytes; /* TCP; 0: one stream, window not the limit */
    double storage_Bps;           /* what the storage itself gives; 0: not a limit */
    bool lossless;                /* an optical path of our own: loss is not counted */
};
#define SLOWDOWN_SERVICE_S      0.0005
#define SLOWDOWN_MSS_BYTES      1460.0
#define SLOWDOWN_CHECKPOINT_RTT 2.0  /* n: open and commit, serial */
#define SLOWDOWN_CEILING        1e9  /* no slow-down is said to be larger */
#define SLOWDOWN_UNLIMITED_BPS  1e18 /* supply when nothing limits it */

/* One data set (kind sync: far site; kind federated: group, path to the coordinator).
 *
 * Inputs of equal path_id go the same way and share its bandwidth and streams: their
 * demands add up. `share` is how much of the profile's demand and start-up bytes this
 * input carries; shares may sum to more than 1 when each data set is read at the
 * profile's full rate. 0: not told: then any one of them may carry the whole, which is
 * the whole job's, so several untold ones on one path count once. */
struct slowdown_input {
    struct slowdown_path path;
    int path_id;    /* 0: the site's own link */
    double share;   /* 0: not told */
    double round_s; /* federated: T_i of this group; 0: the profile's */
};

enum slowdown_bound {
    SLOWDOWN_NOT_BOUND,
    SLOWDOWN_BOUND_BANDWIDTH,
    SLOWDOWN_BOUND_OUTSTANDING,
    SLOWDOWN_BOUND_WINDOW,
    SLOWDOWN_BOUND_LOSS,
    SLOWDOWN_BOUND_STORAGE,
    SLOWDOWN_BOUND_TRIPS /* serial round trips of each read, step, response, round */
};
/* not_bound bandwidth outstanding window loss storage trips */
const char *slowdown_bound_name(enum slowdown_bound bound);

/* Which part of the formula the bound is of. */
enum slowdown_term {
    SLOWDOWN_TERM_NONE,
    SLOWDOWN_TERM_STREAM,
    SLOWDOWN_TERM_ONCE,
    SLOWDOWN_TERM_CHECKPOINT,
    SLOWDOWN_TERM_SYNC,
    SLOWDOWN_TERM_RESPONSE,
    SLOWDOWN_TERM_ROUND
};

struct slowdown_result {
    double steady; /* >= 1: the slowest input */
    double once_s; /* seconds added once (start-up, cold epoch): the longest input */
    double job;    /* (t_local + once)/t_local * steady; == steady if t_local 0 */
    /* What costs most time: term, its limit and the index of its input. */
    enum slowdown_bound bound;
    enum slowdown_term term;
    size_t input;
    double lost; /* its part: of the local time (0.12: 12 %); start-up without a
                    t_local_s: 0 */
    /* Of the stream of the input that decides `steady`; kinds without one: 0,
     * SLOWDOWN_UNLIMITED_BPS, 0. */
    double demand_Bps, supply_Bps;     /* of all inputs that go this way */
    double outstanding_needed_per_gpu; /* to be unbound by outstanding requests */
    /* For slowdown_advice: the case of the binding input, sane numbers. */
    struct slowdown_path path;
    double gpus, group_share, own_share, round_s;
};
/* t_local_s: duration the tenant asked for (0: steady only). gpus >= 1. */
void slowdown_predict(const struct slowdown_profile *p,
                      const struct slowdown_path *path, double gpus, double t_local_s,
                      struct slowdown_result *ret);
/* Several inputs, each with its path: the slow-down is that of the slowest input, the
 * once-costs those of the longest (they load side by side). count 0: slow-down 1.
 * Cost grows with count squared; callers keep to DATASETS_PER_REQUEST_MAX. With one
 * input it equals slowdown_predict. A caller that knows a lower bound first filters
 * sites, predicts, and asks for advice only for what it will show. */
void slowdown_predict_inputs(const struct slowdown_profile *p,
                             const struct slowdown_input *inputs, size_t count,
                             double gpus, double t_local_s,
                             struct slowdown_result *ret);

/* One line a tenant can act on ("bound by outstanding requests: raise prefetch from 8
 * to 24 per GPU"), "" when not bound. Never longer than SLOWDOWN_ADVICE_MAX with its 0.
 * Works from the result alone: the profile is the one it was predicted with. */
#define SLOWDOWN_ADVICE_MAX 120
void slowdown_advice(const struct slowdown_profile *p, const struct slowdown_result *r,
                     char *out, size_t cap);

/* ---- a tenant's own numbers ----
 *
 * The fields a tenant may name, each once: the request object `custom`, its
 * documentation and `--demand` all come from this table. The value is a double at
 * `offset` of struct slowdown_profile, min..max inclusive. */
struct slowdown_field {
    const char *name;
    size_t offset;
    double min, max;
    unsigned kinds;  /* bit 1 << kind: where the field means something */
    unsigned needed; /* bit 1 << kind: where it must be given */
    const char *what;
};
extern const struct slowdown_field slowdown_fields[];
extern const size_t slowdown_field_count;

struct slowdown_number {
    const char *name; /* borrowed for the call */
    double value;
};
/* Builds a profile named "custom" (static strings only: it may be copied and outlives
 * its caller's names). kind NULL: stream, so that `--demand 200MB/s` is one number
 * demand_Bps_per_gpu. ERR_BAD_REQUEST with the member's name: unknown, twice, out of
 * bounds, of no use to the kind, missing for the kind. *ret untouched on failure. */
int slowdown_profile_from(const char *kind, const struct slowdown_number *numbers,
                          size_t count, struct slowdown_profile *ret,
                          struct err *err) MUST_USE;

#endif
