/* slowdown: the formulas of the model. A `pipe` is what the path can deliver to so many
 * outstanding requests of one size, and what holds it back. What a loss of time is due
 * to is noted as it is added up: the largest one is what the tenant is told. */
#include "server/core/slowdown.h"

#include <math.h>

#define HUGE_AMOUNT 1e18
#define ONCE_MAX_S  1e15
#define SUPPLY_MIN  1e-18 /* something always comes through: no division by 0 */

struct pipe {
    double supply_Bps;
    double wait_s; /* of one request */
    enum slowdown_bound bound;
};

/* One input made ready: its path with sane numbers, and how much it carries. */
struct lane {
    struct slowdown_path path;
    double group,
        own; /* shares of the profile's demand: all on this path, this input */
    double gpus;
};

/* Slow-down of one input, and what costs most of it. */
struct loss_of {
    double steady, largest;
    enum slowdown_term term;
    enum slowdown_bound bound;
    double demand_Bps, supply_Bps, wait_s; /* of the stream, where there is one */
};

/* Negative and NaN count as nothing; what is huge stays a number after a product. */
static inline double amount(double x)
{
    return x > 0 ? (x < HUGE_AMOUNT ? x : HUGE_AMOUNT) : 0;
}

/* Field by field: copies of fresh structs cost more here than all the arithmetic. */
static inline void make_sane(const struct slowdown_path *path,
                             struct slowdown_path *ret)
{
    double loss = amount(path->loss), streams = amount(path->streams);
    ret->rtt_s = amount(path->rtt_s);
    ret->bandwidth_Bps = amount(path->bandwidth_Bps);
    ret->service_s = amount(path->service_s);
    ret->loss = path->lossless ? 0 : (loss < 1 ? loss : 1);
    ret->streams = streams > 0 ? streams : 1;
    ret->window_bytes = amount(path->window_bytes);
    ret->storage_Bps = amount(path->storage_Bps);
    ret->lossless = path->lossless;
}

/* RFC 3448 section 3.1 with b = 1 and t_RTO = 4 R: one TCP stream under loss p. */
static double loss_limit_Bps(const struct slowdown_path *path)
{
    double p = path->loss, r = path->rtt_s;
    double wait = r * sqrt(2 * p / 3) + 12 * r * sqrt(3 * p / 8) * p * (1 + 32 * p * p);
    return SLOWDOWN_MSS_BYTES / wait;
}

static inline void narrow(struct pipe *pipe, double limit_Bps,
                          enum slowdown_bound bound)
{
    if (limit_Bps < pipe->supply_Bps) {
        pipe->supply_Bps = limit_Bps > SUPPLY_MIN ? limit_Bps : SUPPLY_MIN;
        pipe->bound = bound;
    }
}

/* What the way itself carries: all inputs on it share this. */
static inline struct pipe carries(const struct slowdown_path *path)
{
    struct pipe pipe = {.supply_Bps = SLOWDOWN_UNLIMITED_BPS};
    if (path->bandwidth_Bps > 0) {
        narrow(&pipe, path->bandwidth_Bps, SLOWDOWN_BOUND_BANDWIDTH);
    }
    if (path->rtt_s > 0) {
        if (path->window_bytes > 0) {
            narrow(&pipe, path->streams * path->window_bytes / path->rtt_s,
                   SLOWDOWN_BOUND_WINDOW);
        }
        if (path->loss > 0) {
            narrow(&pipe, path->streams * loss_limit_Bps(path), SLOWDOWN_BOUND_LOSS);
        }
    }
    return pipe;
}

/* ... and what the storage gives: `own` of every `group` bytes come from it. */
static inline struct pipe delivers(const struct lane *lane)
{
    struct pipe pipe = carries(&lane->path);
    if (lane->path.storage_Bps > 0) {
        narrow(&pipe, lane->path.storage_Bps * lane->group / lane->own,
               SLOWDOWN_BOUND_STORAGE);
    }
    return pipe;
}

/* Time one request takes from send to last byte, `trips` round trips in a row. */
static inline double request_s(const struct slowdown_path *path, double request_bytes,
                               double trips)
{
    double transfer_s =
        path->bandwidth_Bps > 0 ? request_bytes / path->bandwidth_Bps : 0;
    return trips * path->rtt_s + path->service_s + transfer_s;
}

/* ... and what so many requests in flight ask for. Every input has its share of them.
 */
static struct pipe reads(const struct lane *lane, double outstanding_per_gpu,
                         double request_bytes, double trips)
{
    struct pipe pipe = delivers(lane);
    double outstanding = lane->gpus * amount(outstanding_per_gpu) * lane->group;
    double bytes = amount(request_bytes);
    pipe.wait_s = request_s(&lane->path, bytes, trips);
    if (outstanding > 0 && bytes > 0 && pipe.wait_s > 0) {
        narrow(&pipe, outstanding * bytes / pipe.wait_s, SLOWDOWN_BOUND_OUTSTANDING);
    }
    return pipe;
}

static double read_trips(const struct slowdown_profile *p)
{
    return p->kind == SLOWDOWN_REQUEST ? 1 : 1 + amount(p->trips_per_request);
}

static struct pipe reads_bulk(const struct slowdown_profile *p, const struct lane *lane)
{
    return p->bulk_request_bytes > 0
               ? reads(lane, p->bulk_outstanding_per_gpu, p->bulk_request_bytes,
                       read_trips(p))
               : reads(lane, p->outstanding_per_gpu, p->request_bytes, read_trips(p));
}

static void lose(struct loss_of *l, double part, enum slowdown_term term,
                 enum slowdown_bound bound)
{
    l->steady += part;
    if (part > l->largest) {
        l->largest = part;
        l->term = term;
        l->bound = bound;
    }
}

static void lose_stream(const struct slowdown_profile *p, const struct lane *lane,
                        struct loss_of *l)
{
    double demand_Bps = lane->gpus * amount(p->demand_Bps_per_gpu) * lane->group;
    double trips = read_trips(p);
    struct pipe pipe = reads(lane, p->outstanding_per_gpu, p->request_bytes, trips);
    l->demand_Bps = demand_Bps;
    l->supply_Bps = pipe.supply_Bps;
    l->wait_s = pipe.wait_s;
    if (demand_Bps > pipe.supply_Bps) {
        double part = demand_Bps / pipe.supply_Bps - 1;
        /* Without the extra trips the requests in flight would do. */
        if (pipe.bound == SLOWDOWN_BOUND_OUTSTANDING && trips > 1 &&
            reads(lane, p->outstanding_per_gpu, p->request_bytes, 1).supply_Bps >=
                demand_Bps) {
            pipe.bound = SLOWDOWN_BOUND_TRIPS;
        }
        lose(l, part, SLOWDOWN_TERM_STREAM, pipe.bound);
    }
    if (p->step_s > 0) {
        lose(l, amount(p->trips_per_step) * lane->path.rtt_s / p->step_s,
             SLOWDOWN_TERM_STREAM, SLOWDOWN_BOUND_TRIPS);
    }
}

static void lose_checkpoint(const struct slowdown_profile *p, const struct lane *lane,
                            struct loss_of *l)
{
    if (!(p->checkpoint_interval_s > 0)) {
        return;
    }
    /* A checkpoint goes to one place, whole. */
    struct lane whole = *lane;
    whole.group = whole.own = 1;
    struct pipe pipe = reads_bulk(p, &whole);
    double write_s = amount(p->checkpoint_bytes) / pipe.supply_Bps;
    double trips_s = SLOWDOWN_CHECKPOINT_RTT * lane->path.rtt_s;
    lose(l, (write_s + trips_s) / p->checkpoint_interval_s, SLOWDOWN_TERM_CHECKPOINT,
         write_s > trips_s ? pipe.bound : SLOWDOWN_BOUND_TRIPS);
}

static void lose_sync(const struct slowdown_profile *p, const struct lane *lane,
                      struct loss_of *l)
{
    struct pipe pipe = carries(&lane->path);
    double exchange = amount(p->sync_Bps) * lane->group / pipe.supply_Bps;
    double trips = amount(p->sync_trips_Hz) * lane->path.rtt_s;
    lose(l, exchange, SLOWDOWN_TERM_SYNC, pipe.bound);
    lose(l, trips, SLOWDOWN_TERM_SYNC, SLOWDOWN_BOUND_TRIPS);
}

static void lose_response(const struct slowdown_profile *p, const struct lane *lane,
                          struct loss_of *l)
{
    if (!(p->response_local_s > 0)) {
        return;
    }
    struct pipe pipe = delivers(lane);
    double trips_s = amount(p->trips_per_request) * lane->path.rtt_s;
    double transfer_s = amount(p->response_bytes) * lane->group / pipe.supply_Bps;
    lose(l, trips_s / p->response_local_s, SLOWDOWN_TERM_RESPONSE,
         SLOWDOWN_BOUND_TRIPS);
    lose(l, transfer_s / p->response_local_s, SLOWDOWN_TERM_RESPONSE, pipe.bound);
}

static void lose_round(const struct slowdown_profile *p, const struct lane *lane,
                       double round_s, struct loss_of *l)
{
    if (!(round_s > 0)) {
        return;
    }
    struct pipe pipe = reads_bulk(p, lane);
    lose(l, 2 * amount(p->model_bytes) * lane->group / pipe.supply_Bps / round_s,
         SLOWDOWN_TERM_ROUND, pipe.bound);
    lose(l, amount(p->sync_trips_Hz) * lane->path.rtt_s, SLOWDOWN_TERM_ROUND,
         SLOWDOWN_BOUND_TRIPS);
}

static void steady_of(const struct slowdown_profile *p, const struct lane *lane,
                      double round_s, struct loss_of *l)
{
    *l = (struct loss_of){.steady = 1, .supply_Bps = SLOWDOWN_UNLIMITED_BPS};
    switch (p->kind) {
    case SLOWDOWN_STREAM:
    case SLOWDOWN_STARTUP:
        lose_stream(p, lane, l);
        lose_checkpoint(p, lane, l);
        break;
    case SLOWDOWN_COLD:
    case SLOWDOWN_CHECKPOINT: lose_checkpoint(p, lane, l); break;
    case SLOWDOWN_SYNC: lose_sync(p, lane, l); break;
    case SLOWDOWN_REQUEST:
        lose_stream(p, lane, l);
        lose_response(p, lane, l);
        break;
    case SLOWDOWN_FEDERATED: lose_round(p, lane, round_s, l); break;
    }
    l->steady = l->steady < SLOWDOWN_CEILING ? l->steady : SLOWDOWN_CEILING;
}

/* Seconds added once by this input. */
static double once_of(const struct slowdown_profile *p, const struct lane *lane,
                      enum slowdown_bound *ret_bound)
{
    if (!(p->startup_bytes > 0)) {
        return 0;
    }
    struct pipe pipe = reads_bulk(p, lane);
    double load_s = amount(p->startup_bytes) * lane->group / pipe.supply_Bps;
    double extra_s = load_s - amount(p->startup_local_s);
    *ret_bound = pipe.bound;
    return extra_s > 0 ? (extra_s < ONCE_MAX_S ? extra_s : ONCE_MAX_S) : 0;
}

/* What all inputs on the path of inputs[i] carry of the profile's demand. Groups of a
 * federated job send a model each, so there an input counts in full when not told. */
static double group_share(const struct slowdown_profile *p,
                          const struct slowdown_input *inputs, size_t count, size_t i)
{
    double told = 0;
    bool untold = false;
    for (size_t k = 0; k < count; k++) {
        if (inputs[k].path_id != inputs[i].path_id) {
            continue;
        }
        if (inputs[k].share > 0) {
            told += amount(inputs[k].share);
        } else if (p->kind == SLOWDOWN_FEDERATED) {
            told += 1;
        } else {
            untold = true;
        }
    }
    return untold && told < 1 ? 1 : amount(told);
}

static double longest_round_s(const struct slowdown_profile *p,
                              const struct slowdown_input *inputs, size_t count)
{
    double longest = 0;
    for (size_t i = 0; i < count; i++) {
        double round_s = amount(inputs[i].round_s);
        if (!(round_s > 0)) {
            round_s = amount(p->round_s);
        }
        longest = round_s > longest ? round_s : longest;
    }
    return longest;
}

static void set_lane(const struct slowdown_profile *p,
                     const struct slowdown_input *inputs, size_t count, size_t i,
                     double gpus, struct lane *ret)
{
    make_sane(&inputs[i].path, &ret->path);
    ret->own = inputs[i].share > 0 ? amount(inputs[i].share) : 1;
    ret->group = count > 1 ? group_share(p, inputs, count, i) : ret->own;
    ret->gpus = gpus;
}

/* What the inputs come to, while they are gone through. */
struct total {
    struct loss_of slowest; /* of input slowest_i */
    size_t slowest_i, once_i;
    double once_s; /* the longest */
    enum slowdown_bound once_bound;
};

static void add_input(const struct slowdown_profile *p, const struct lane *lane,
                      size_t i, double round_s, struct total *t)
{
    struct loss_of l;
    enum slowdown_bound bound = SLOWDOWN_NOT_BOUND;
    steady_of(p, lane, round_s, &l);
    if (l.steady > t->slowest.steady) {
        t->slowest = l;
        t->slowest_i = i;
    }
    double once_s = once_of(p, lane, &bound);
    if (once_s > t->once_s) {
        t->once_s = once_s;
        t->once_bound = bound;
        t->once_i = i;
    }
}

static void show(const struct slowdown_profile *p, const struct total *t,
                 double t_local_s, struct slowdown_result *r)
{
    const struct loss_of *l = &t->slowest;
    double once_part = t_local_s > 0 ? t->once_s / amount(t_local_s) : 0;
    double job = l->steady * (1 + once_part), lost = l->largest;
    r->steady = l->steady;
    r->once_s = t->once_s;
    r->job = job < SLOWDOWN_CEILING ? job : SLOWDOWN_CEILING;
    r->term = l->term;
    r->bound = l->bound;
    r->input = t->slowest_i;
    if (t->once_s > 0 && (once_part > lost || l->term == SLOWDOWN_TERM_NONE)) {
        r->term = SLOWDOWN_TERM_ONCE;
        r->bound = t->once_bound;
        r->input = t->once_i;
        lost = once_part;
    }
    r->lost = lost < SLOWDOWN_CEILING ? lost : SLOWDOWN_CEILING;
    r->demand_Bps = amount(l->demand_Bps);
    r->supply_Bps = l->supply_Bps;
    r->outstanding_needed_per_gpu = p->request_bytes > 0
                                        ? amount(amount(p->demand_Bps_per_gpu) *
                                                 l->wait_s / amount(p->request_bytes))
                                        : 0;
}

void slowdown_predict_inputs(const struct slowdown_profile *p,
                             const struct slowdown_input *inputs, size_t count,
                             double gpus, double t_local_s, struct slowdown_result *ret)
{
    struct total t = {.slowest = {.supply_Bps = SLOWDOWN_UNLIMITED_BPS}};
    struct lane lane = {.gpus = 0};
    ret->gpus = amount(gpus);
    ret->round_s =
        p->kind == SLOWDOWN_FEDERATED ? longest_round_s(p, inputs, count) : 0;
    for (size_t i = 0; i < count; i++) {
        set_lane(p, inputs, count, i, ret->gpus, &lane);
        add_input(p, &lane, i, ret->round_s, &t);
    }
    if (count == 0) {
        t.slowest.steady = 1;
    }
    show(p, &t, t_local_s, ret);
    if (count > 1) {
        set_lane(p, inputs, count, ret->input, ret->gpus, &lane);
    }
    make_sane(&lane.path, &ret->path);
    ret->group_share = lane.group;
    ret->own_share = lane.own;
}

void slowdown_predict(const struct slowdown_profile *p,
                      const struct slowdown_path *path, double gpus, double t_local_s,
                      struct slowdown_result *ret)
{
    struct slowdown_input one;
    one.path = *path;
    one.path_id = 0;
    one.share = one.round_s = 0;
    slowdown_predict_inputs(p, &one, 1, gpus, t_local_s, ret);
}
