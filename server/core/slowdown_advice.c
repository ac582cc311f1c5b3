/* slowdown_advice: what binds, in words a tenant can act on. Outside the hot path: it
 * works out what would be needed from the case that the prediction kept, and predicts
 * again to see what would bind then.
 *
 * What can be hidden altogether (a stream, a start-up that is slow when local too) is
 * advised away; what only becomes smaller is advised down to LEFT, and what is less
 * than twice that to half. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "server/core/slowdown.h"

#define LEFT 0.1
#define MIB  1048576.0
/* More than that many times as slow: no path hides it. */
#define HIDE_MAX 99.0

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

struct figure {
    char text[24];
};

/* Three figures, never an exponent. */
static struct figure figure(double x)
{
    struct figure f;
    x = fmax(fmin(x, 1e18), 0);
    snprintf(f.text, sizeof f.text, x >= 100 ? "%.0f" : x < 0.001 ? "%.6f" : "%.3g", x);
    return f;
}

static struct figure bytes(double x)
{
    struct figure f;
    double unit = x >= MIB ? MIB : 1024;
    snprintf(f.text, sizeof f.text, "%.18s %s", figure(x / unit).text,
             x >= MIB ? "MiB" : "KiB");
    return f;
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

/* ---- what would be needed ---- */

/* A start-up that is slow when local too can be as slow from afar: nobody loses. */
static bool is_hidden(const struct slowdown_profile *p, const struct slowdown_result *r)
{
    return r->term == SLOWDOWN_TERM_STREAM ||
           (r->term == SLOWDOWN_TERM_ONCE && p->startup_local_s > 0 &&
            r->once_s < HIDE_MAX * p->startup_local_s);
}

/* By how much the rate must rise. */
static double factor_wanted(const struct slowdown_profile *p,
                            const struct slowdown_result *r)
{
    if (r->term == SLOWDOWN_TERM_STREAM) {
        return 1 + r->lost;
    }
    if (is_hidden(p, r)) {
        return 1 + r->once_s / p->startup_local_s;
    }
    return r->lost > 2 * LEFT && r->term != SLOWDOWN_TERM_ONCE ? r->lost / LEFT : 2;
}

/* What is left then: "" nothing, " for 10 %", " to halve it". */
static const char *goal(const struct slowdown_profile *p,
                        const struct slowdown_result *r)
{
    if (is_hidden(p, r)) {
        return "";
    }
    return r->lost > 2 * LEFT && r->term != SLOWDOWN_TERM_ONCE ? " for a loss of 10 %"
                                                               : " to halve it";
}

static bool is_bulk(const struct slowdown_profile *p, const struct slowdown_result *r)
{
    return p->bulk_request_bytes > 0 && r->term != SLOWDOWN_TERM_STREAM;
}

/* Requests in flight per GPU. */
static double outstanding_now(const struct slowdown_profile *p,
                              const struct slowdown_result *r)
{
    return is_bulk(p, r) ? p->bulk_outstanding_per_gpu : p->outstanding_per_gpu;
}

static double outstanding_wanted(const struct slowdown_profile *p,
                                 const struct slowdown_result *r)
{
    return ceil(outstanding_now(p, r) * factor_wanted(p, r) - 1e-9);
}

static double window_wanted(const struct slowdown_profile *p,
                            const struct slowdown_result *r)
{
    return round_up(r->path.window_bytes / MIB * factor_wanted(p, r)) * MIB;
}

static double streams_wanted(const struct slowdown_profile *p,
                             const struct slowdown_result *r)
{
    return ceil(r->path.streams * factor_wanted(p, r) - 1e-9);
}

static double bandwidth_wanted_Bps(const struct slowdown_profile *p,
                                   const struct slowdown_result *r)
{
    return round_up(r->path.bandwidth_Bps * factor_wanted(p, r) * 8e-9) / 8e-9;
}

/* ---- what would bind then ---- */

/* The same stream with the advice followed; "" or "; then bandwidth binds at 1.31". */
static void append_next(const struct slowdown_profile *p,
                        const struct slowdown_result *r, char *out, size_t cap)
{
    if (r->term != SLOWDOWN_TERM_STREAM) {
        return;
    }
    struct slowdown_profile better = *p;
    struct slowdown_input input = {.path = r->path, .share = r->group_share};
    input.path.storage_Bps *= r->group_share / r->own_share;
    switch (r->bound) {
    case SLOWDOWN_BOUND_BANDWIDTH:
        input.path.bandwidth_Bps = bandwidth_wanted_Bps(p, r);
        break;
    case SLOWDOWN_BOUND_WINDOW: input.path.window_bytes = window_wanted(p, r); break;
    case SLOWDOWN_BOUND_LOSS: input.path.loss = 0; break;
    case SLOWDOWN_BOUND_STORAGE: input.path.storage_Bps = 0; break;
    case SLOWDOWN_BOUND_OUTSTANDING:
    case SLOWDOWN_BOUND_TRIPS:
        if (r->demand_Bps > r->supply_Bps) {
            better.outstanding_per_gpu = outstanding_wanted(p, r);
        } else {
            better.trips_per_step = 0;
        }
        break;
    case SLOWDOWN_NOT_BOUND: return;
    }
    struct slowdown_result next;
    slowdown_predict_inputs(&better, &input, 1, r->gpus, 0, &next);
    char text[48];
    static const char *const names[] = {
        [SLOWDOWN_BOUND_BANDWIDTH] = "bandwidth",
        [SLOWDOWN_BOUND_OUTSTANDING] = "prefetch",
        [SLOWDOWN_BOUND_WINDOW] = "the window",
        [SLOWDOWN_BOUND_LOSS] = "loss",
        [SLOWDOWN_BOUND_STORAGE] = "the storage",
        [SLOWDOWN_BOUND_TRIPS] = "round trips",
    };
    if (next.term != SLOWDOWN_TERM_STREAM || next.lost < 0.005) {
        return;
    }
    snprintf(text, sizeof text, "; then %s: %s", names[next.bound],
             figure(next.steady).text);
    if (strlen(out) + strlen(text) < cap) {
        memcpy(out + strlen(out), text, strlen(text) + 1);
    }
}

/* ---- words ---- */

static const char *what_of(const struct slowdown_result *r)
{
    switch (r->term) {
    case SLOWDOWN_TERM_ONCE: return "start-up bound";
    case SLOWDOWN_TERM_CHECKPOINT: return "checkpoints bound";
    case SLOWDOWN_TERM_SYNC: return "sync bound";
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
    double few = each > 0 ? floor(r->supply_Bps / each + 1e-9) : 0;
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
    fewer_gpus(p, r, fewer, sizeof fewer);
    snprintf(out, cap, "%s by bandwidth: book a path of %s Gbit/s%s%s", what_of(r),
             figure(bandwidth_wanted_Bps(p, r) * 8e-9).text, goal(p, r), fewer);
}

static void advise_outstanding(const struct slowdown_profile *p,
                               const struct slowdown_result *r, char *out, size_t cap)
{
    snprintf(out, cap, "%s by outstanding requests: raise %s from %s to %s per GPU%s",
             what_of(r),
             r->term == SLOWDOWN_TERM_STREAM ? "prefetch" : "those in flight",
             figure(outstanding_now(p, r)).text, figure(outstanding_wanted(p, r)).text,
             goal(p, r));
}

static void advise_window(const struct slowdown_profile *p,
                          const struct slowdown_result *r, char *out, size_t cap)
{
    snprintf(
        out, cap, "%s by the TCP window: raise it from %s to %s or use %s streams%s",
        what_of(r), bytes(r->path.window_bytes).text, bytes(window_wanted(p, r)).text,
        figure(streams_wanted(p, r)).text, goal(p, r));
}

static void advise_loss(const struct slowdown_profile *p,
                        const struct slowdown_result *r, char *out, size_t cap)
{
    snprintf(
        out, cap,
        "%s by packet loss: book a lossless path or use %s streams instead of %s%s",
        what_of(r), figure(streams_wanted(p, r)).text, figure(r->path.streams).text,
        goal(p, r));
}

static void advise_storage(const struct slowdown_profile *p,
                           const struct slowdown_result *r, char *out, size_t cap)
{
    char fewer[48];
    fewer_gpus(p, r, fewer, sizeof fewer);
    snprintf(out, cap, "%s by the storage: it gives %s GB/s, %s wanted%s%s", what_of(r),
             figure(r->path.storage_Bps * 1e-9).text,
             figure(round_up(r->path.storage_Bps * factor_wanted(p, r) * 1e-9)).text,
             goal(p, r), fewer);
}

static void advise_trips(const struct slowdown_profile *p,
                         const struct slowdown_result *r, char *out, size_t cap)
{
    struct figure ms = figure(r->path.rtt_s * 1e3);
    if (r->term == SLOWDOWN_TERM_STREAM && r->demand_Bps > r->supply_Bps) {
        snprintf(out, cap,
                 "bound by round trips: avoid %s a read, or raise prefetch from %s to "
                 "%s per GPU",
                 figure(p->trips_per_request).text, figure(outstanding_now(p, r)).text,
                 figure(outstanding_wanted(p, r)).text);
    } else if (r->term == SLOWDOWN_TERM_STREAM) {
        snprintf(out, cap, "bound by round trips: %s of %s ms a step, prefetch instead",
                 figure(p->trips_per_step).text, ms.text);
    } else if (r->term == SLOWDOWN_TERM_RESPONSE) {
        snprintf(out, cap,
                 "response bound by round trips: %s of %s ms, keep connections open or "
                 "serve nearer",
                 figure(p->trips_per_request).text, ms.text);
    } else {
        snprintf(out, cap, "%s by round trips of %s ms: do it less often, or nearer",
                 what_of(r), ms.text);
    }
}

void slowdown_advice(const struct slowdown_profile *p, const struct slowdown_result *r,
                     char *out, size_t cap)
{
    out[0] = '\0';
    switch (r->bound) {
    case SLOWDOWN_NOT_BOUND: return;
    case SLOWDOWN_BOUND_BANDWIDTH: advise_bandwidth(p, r, out, cap); break;
    case SLOWDOWN_BOUND_OUTSTANDING: advise_outstanding(p, r, out, cap); break;
    case SLOWDOWN_BOUND_WINDOW: advise_window(p, r, out, cap); break;
    case SLOWDOWN_BOUND_LOSS: advise_loss(p, r, out, cap); break;
    case SLOWDOWN_BOUND_STORAGE: advise_storage(p, r, out, cap); break;
    case SLOWDOWN_BOUND_TRIPS: advise_trips(p, r, out, cap); break;
    }
    append_next(p, r, out, cap);
}
