/* slowdown: the formulas of the model. `pipe` is what the path can deliver to so many
 * outstanding requests of one size, and what holds it back. */
#include "server/core/slowdown.h"

#include <math.h>
#include <stdio.h>

struct pipe {
    double supply_Bps; /* INFINITY: nothing limits */
    enum slowdown_bound bound;
};

/* RFC 3448 section 3.1 with b = 1 and t_RTO = 4 R: one TCP stream under loss p. */
static double loss_limit_Bps(const struct slowdown_path *path)
{
    double p = path->loss, r = path->rtt_s;
    double wait = r * sqrt(2 * p / 3) + 12 * r * sqrt(3 * p / 8) * p * (1 + 32 * p * p);
    return SLOWDOWN_MSS_BYTES / wait;
}

static void narrow(struct pipe *pipe, double limit_Bps, enum slowdown_bound bound)
{
    if (limit_Bps < pipe->supply_Bps) {
        pipe->supply_Bps = limit_Bps;
        pipe->bound = bound;
    }
}

/* Time one request takes from send to last byte. */
static double request_s(const struct slowdown_path *path, double request_bytes)
{
    double transfer_s =
        path->bandwidth_Bps > 0 ? request_bytes / path->bandwidth_Bps : 0;
    return path->rtt_s + path->service_s + transfer_s;
}

static struct pipe pipe_of(const struct slowdown_path *path, double outstanding,
                           double request_bytes)
{
    struct pipe pipe = {INFINITY, SLOWDOWN_NOT_BOUND};
    if (path->bandwidth_Bps > 0) {
        narrow(&pipe, path->bandwidth_Bps, SLOWDOWN_BOUND_BANDWIDTH);
    }
    double streams = path->streams > 0 ? path->streams : 1;
    if (path->streams > 0 && path->window_bytes > 0 && path->rtt_s > 0) {
        narrow(&pipe, streams * path->window_bytes / path->rtt_s,
               SLOWDOWN_BOUND_WINDOW);
    }
    if (path->loss > 0 && path->rtt_s > 0) {
        narrow(&pipe, streams * loss_limit_Bps(path), SLOWDOWN_BOUND_LOSS);
    }
    double wait_s = request_s(path, request_bytes);
    if (outstanding > 0 && request_bytes > 0 && wait_s > 0) {
        narrow(&pipe, outstanding * request_bytes / wait_s, SLOWDOWN_BOUND_OUTSTANDING);
    }
    return pipe;
}

static struct pipe bulk_pipe(const struct slowdown_profile *p,
                             const struct slowdown_path *path, double gpus)
{
    return p->bulk_request_bytes > 0
               ? pipe_of(path, gpus * p->bulk_outstanding_per_gpu,
                         p->bulk_request_bytes)
               : pipe_of(path, gpus * p->outstanding_per_gpu, p->request_bytes);
}

static void predict_stream(const struct slowdown_profile *p,
                           const struct slowdown_path *path, double gpus,
                           struct slowdown_result *r)
{
    struct pipe pipe = pipe_of(path, gpus * p->outstanding_per_gpu, p->request_bytes);
    r->demand_Bps = gpus * p->demand_Bps_per_gpu;
    r->supply_Bps = pipe.supply_Bps;
    if (r->demand_Bps > pipe.supply_Bps) {
        r->steady = r->demand_Bps / pipe.supply_Bps;
        r->bound = pipe.bound;
    }
    if (p->step_s > 0) {
        r->steady += p->trips_per_step * path->rtt_s / p->step_s;
    }
    if (p->request_bytes > 0) {
        r->outstanding_needed_per_gpu = p->demand_Bps_per_gpu *
                                        request_s(path, p->request_bytes) /
                                        p->request_bytes;
    }
}

static void predict_once(const struct slowdown_profile *p,
                         const struct slowdown_path *path, double gpus,
                         struct slowdown_result *r)
{
    struct pipe pipe = bulk_pipe(p, path, gpus);
    double extra_s = p->startup_bytes / pipe.supply_Bps - p->startup_local_s;
    if (extra_s > 0) {
        r->once_s = extra_s;
        if (r->bound == SLOWDOWN_NOT_BOUND) {
            r->bound = pipe.bound;
        }
    }
}

static void predict_checkpoint(const struct slowdown_profile *p,
                               const struct slowdown_path *path, double gpus,
                               struct slowdown_result *r)
{
    if (p->checkpoint_interval_s <= 0) {
        return;
    }
    struct pipe pipe = bulk_pipe(p, path, gpus);
    double write_s = p->checkpoint_bytes / pipe.supply_Bps;
    r->steady +=
        (write_s + SLOWDOWN_CHECKPOINT_RTT * path->rtt_s) / p->checkpoint_interval_s;
    if (r->bound == SLOWDOWN_NOT_BOUND && write_s > 0) {
        r->bound = pipe.bound;
    }
}

void slowdown_predict(const struct slowdown_profile *p,
                      const struct slowdown_path *path, double gpus, double t_local_s,
                      struct slowdown_result *ret)
{
    struct slowdown_result r = {.steady = 1, .bound = SLOWDOWN_NOT_BOUND};
    switch (p->kind) {
    case SLOWDOWN_STREAM:
        predict_stream(p, path, gpus, &r);
        predict_checkpoint(p, path, gpus, &r);
        break;
    case SLOWDOWN_STARTUP:
        predict_stream(p, path, gpus, &r);
        predict_once(p, path, gpus, &r);
        predict_checkpoint(p, path, gpus, &r);
        break;
    case SLOWDOWN_COLD:
        predict_once(p, path, gpus, &r);
        predict_checkpoint(p, path, gpus, &r);
        break;
    case SLOWDOWN_CHECKPOINT: predict_checkpoint(p, path, gpus, &r); break;
    case SLOWDOWN_SYNC:
        if (path->bandwidth_Bps > 0) {
            r.steady += p->sync_Bps / path->bandwidth_Bps;
        }
        r.steady += p->sync_trips_Hz * path->rtt_s;
        break;
    }
    r.job = t_local_s > 0 ? (t_local_s + r.once_s) / t_local_s * r.steady : r.steady;
    *ret = r;
}

void slowdown_advice(const struct slowdown_profile *p, const struct slowdown_result *r,
                     char *out, size_t cap)
{
    out[0] = '\0';
    switch (r->bound) {
    case SLOWDOWN_NOT_BOUND: break;
    case SLOWDOWN_BOUND_BANDWIDTH:
        snprintf(out, cap, "bound by bandwidth: distance does not matter, %s",
                 r->steady > 1 && r->demand_Bps > 0 ? "a wider path does"
                                                    : "a wider path shortens the load");
        break;
    case SLOWDOWN_BOUND_OUTSTANDING:
        if (r->demand_Bps > r->supply_Bps) {
            snprintf(out, cap,
                     "bound by outstanding requests: raise prefetch from %.0f to %.0f "
                     "per GPU",
                     p->outstanding_per_gpu, ceil(r->outstanding_needed_per_gpu));
        } else {
            snprintf(out, cap,
                     "bulk transfer bound by outstanding requests: read larger or more "
                     "parallel blocks");
        }
        break;
    case SLOWDOWN_BOUND_WINDOW:
        snprintf(out, cap,
                 "bound by the TCP window: use more streams or larger buffers");
        break;
    case SLOWDOWN_BOUND_LOSS:
        snprintf(out, cap, "bound by packet loss: use more streams or a lossless path");
        break;
    }
}
