/* slowdown_advice: what binds, in words a tenant can act on. Outside the hot path: it
 * works out what would be needed from the case that the prediction kept. */
#include <math.h>
#include <stdio.h>

#include "server/core/slowdown.h"

const char *slowdown_bound_name(enum slowdown_bound bound)
{
    switch (bound) {
    case SLOWDOWN_NOT_BOUND: return "not_bound";
    case SLOWDOWN_BOUND_BANDWIDTH: return "bandwidth";
    case SLOWDOWN_BOUND_OUTSTANDING: return "outstanding";
    case SLOWDOWN_BOUND_WINDOW: return "window";
    case SLOWDOWN_BOUND_LOSS: return "loss";
    case SLOWDOWN_BOUND_STORAGE: return "storage";
    case SLOWDOWN_BOUND_TRIPS: return "trips";
    }
    return "unknown";
}

/* The rate that would end the loss of time of the binding term; 0: no rate would. */
static double wanted_Bps(const struct slowdown_profile *p,
                         const struct slowdown_result *r)
{
    switch (r->term) {
    case SLOWDOWN_TERM_STREAM: return r->gpus * p->demand_Bps_per_gpu * r->group_share;
    case SLOWDOWN_TERM_ONCE:
        return p->startup_local_s > 0
                   ? p->startup_bytes * r->group_share / p->startup_local_s
                   : 0;
    default: return 0;
    }
}

/* Two figures are enough to book by, rounded up so that it suffices. */
static double round_up(double x)
{
    if (!(x > 0)) {
        return 0;
    }
    double unit = pow(10, floor(log10(x)) - 1);
    return ceil(x / unit - 1e-9) * unit;
}

static const char *what_of(const struct slowdown_result *r)
{
    switch (r->term) {
    case SLOWDOWN_TERM_ONCE: return "start-up bound";
    case SLOWDOWN_TERM_CHECKPOINT: return "checkpoints bound";
    case SLOWDOWN_TERM_SYNC: return "synchronisation bound";
    case SLOWDOWN_TERM_RESPONSE: return "response bound";
    case SLOWDOWN_TERM_ROUND: return "rounds bound";
    case SLOWDOWN_TERM_STREAM:
    case SLOWDOWN_TERM_NONE: break;
    }
    return "bound";
}

/* " or use 5 GPUs instead of 8": only a stream's demand shrinks with the GPUs. */
static void fewer_gpus(const struct slowdown_profile *p,
                       const struct slowdown_result *r, char *out, size_t cap)
{
    double each = p->demand_Bps_per_gpu * r->group_share;
    double few = each > 0 ? floor(r->supply_Bps / each) : 0;
    out[0] = '\0';
    if (r->term == SLOWDOWN_TERM_STREAM && few >= 1 && few < r->gpus) {
        snprintf(out, cap, " or use %.0f GPU%s instead of %.0f", few,
                 few > 1 ? "s" : "", r->gpus);
    }
}

static void advise_bandwidth(const struct slowdown_profile *p,
                             const struct slowdown_result *r, char *out, size_t cap)
{
    char fewer[48];
    double wanted = wanted_Bps(p, r);
    fewer_gpus(p, r, fewer, sizeof fewer);
    if (wanted > 0) {
        snprintf(out, cap, "%s by bandwidth: book a path of %.3g Gbit/s%s", what_of(r),
                 round_up(wanted * 8e-9), fewer);
    } else {
        snprintf(out, cap, "%s by bandwidth: twice %.3g Gbit/s halves it", what_of(r),
                 r->path.bandwidth_Bps * 8e-9);
    }
}

static void advise_outstanding(const struct slowdown_profile *p,
                               const struct slowdown_result *r, char *out, size_t cap)
{
    if (r->term == SLOWDOWN_TERM_STREAM) {
        snprintf(out, cap,
                 "bound by outstanding requests: raise prefetch from %.0f to %.0f "
                 "per GPU",
                 p->outstanding_per_gpu, ceil(r->outstanding_needed_per_gpu));
        return;
    }
    snprintf(out, cap,
             "%s by outstanding requests: read larger or more parallel blocks",
             what_of(r));
}

static void advise_window(const struct slowdown_profile *p,
                          const struct slowdown_result *r, char *out, size_t cap)
{
    double wanted = wanted_Bps(p, r), bytes = wanted * r->path.rtt_s;
    if (wanted > 0) {
        snprintf(out, cap,
                 "%s by the TCP window: raise it from %.3g MiB to %.3g MiB or use %.0f "
                 "streams",
                 what_of(r), r->path.window_bytes / 1048576,
                 round_up(bytes / r->path.streams / 1048576),
                 ceil(bytes / r->path.window_bytes));
    } else {
        snprintf(out, cap,
                 "%s by the TCP window: twice %.3g MiB or %.0f streams halve it",
                 what_of(r), r->path.window_bytes / 1048576, 2 * r->path.streams);
    }
}

static void advise_loss(const struct slowdown_profile *p,
                        const struct slowdown_result *r, char *out, size_t cap)
{
    double wanted = wanted_Bps(p, r);
    double streams = wanted > 0 && r->term == SLOWDOWN_TERM_STREAM && r->supply_Bps > 0
                         ? ceil(r->path.streams * wanted / r->supply_Bps)
                         : 2 * r->path.streams;
    snprintf(out, cap,
             "%s by packet loss: use %.0f TCP streams instead of %.0f or a lossless "
             "path",
             what_of(r), streams, r->path.streams);
}

static void advise_storage(const struct slowdown_profile *p,
                           const struct slowdown_result *r, char *out, size_t cap)
{
    char fewer[48];
    fewer_gpus(p, r, fewer, sizeof fewer);
    snprintf(out, cap, "%s by the storage (%.3g GB/s): use a faster copy%s", what_of(r),
             r->path.storage_Bps * 1e-9, fewer);
}

static void advise_trips(const struct slowdown_profile *p,
                         const struct slowdown_result *r, char *out, size_t cap)
{
    switch (r->term) {
    case SLOWDOWN_TERM_STREAM:
        if (r->demand_Bps > r->supply_Bps) {
            snprintf(
                out, cap,
                "bound by %.3g extra round trips a read: keep files open, or raise "
                "prefetch from %.0f to %.0f per GPU",
                p->trips_per_request, p->outstanding_per_gpu,
                ceil(r->outstanding_needed_per_gpu));
        } else {
            snprintf(out, cap, "bound by %.3g round trips a step: prefetch the reads",
                     p->trips_per_step);
        }
        break;
    case SLOWDOWN_TERM_RESPONSE:
        snprintf(
            out, cap,
            "response bound by %.3g round trips of %.3g ms: keep connections open, "
            "or serve nearer",
            p->trips_per_request, r->path.rtt_s * 1e3);
        break;
    default:
        snprintf(out, cap,
                 "%s by round trips of %.3g ms: exchange less often, or nearer",
                 what_of(r), r->path.rtt_s * 1e3);
        break;
    }
}

void slowdown_advice(const struct slowdown_profile *p, const struct slowdown_result *r,
                     char *out, size_t cap)
{
    out[0] = '\0';
    switch (r->bound) {
    case SLOWDOWN_NOT_BOUND: break;
    case SLOWDOWN_BOUND_BANDWIDTH: advise_bandwidth(p, r, out, cap); break;
    case SLOWDOWN_BOUND_OUTSTANDING: advise_outstanding(p, r, out, cap); break;
    case SLOWDOWN_BOUND_WINDOW: advise_window(p, r, out, cap); break;
    case SLOWDOWN_BOUND_LOSS: advise_loss(p, r, out, cap); break;
    case SLOWDOWN_BOUND_STORAGE: advise_storage(p, r, out, cap); break;
    case SLOWDOWN_BOUND_TRIPS: advise_trips(p, r, out, cap); break;
    }
}
