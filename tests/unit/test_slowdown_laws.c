/* slowdown_laws: what must hold for every profile and path (random; NEARGPU_SEED):
 * never below 1, monotone, without jumps, finite whatever comes in; and advice that
 * holds when it is followed. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "server/core/slowdown.h"
#include "tests/unit/unit.h"

#define GBIT 0.125e9
/* As ck_assert_msg, which notes its place in a file each time: too slow for millions.
 */
#define HOLD(truth, ...)               \
    do {                               \
        if (!(truth))                  \
            ck_abort_msg(__VA_ARGS__); \
    } while (0)

static uint64_t rng_state;

static uint64_t rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state * UINT64_C(0x2545f4914f6cdd1d);
}

static uint64_t seed_rng(void)
{
    const char *text = getenv("NEARGPU_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : 20261123;
    rng_state = seed * 2 + 1;
    return seed;
}

/* Between lo and hi, evenly in the logarithm; one in eight is 0. */
static double wild(double lo, double hi)
{
    double u = (double)(rng() >> 11) * 0x1p-53;
    return rng() % 8 == 0 ? 0 : lo * pow(hi / lo, u);
}

static struct slowdown_profile wild_profile(void)
{
    return (struct slowdown_profile){.name = "wild",
                                     .kind =
                                         (enum slowdown_kind)(rng() % SLOWDOWN_KINDS),
                                     .demand_Bps_per_gpu = wild(1e3, 1e11),
                                     .request_bytes = wild(1, 1e10),
                                     .outstanding_per_gpu = wild(1, 1e3),
                                     .trips_per_request = wild(0.1, 100),
                                     .step_s = wild(1e-4, 100),
                                     .trips_per_step = wild(0.1, 100),
                                     .bulk_request_bytes = wild(1, 1e10),
                                     .bulk_outstanding_per_gpu = wild(1, 100),
                                     .startup_bytes = wild(1, 1e13),
                                     .startup_local_s = wild(0.1, 1e4),
                                     .checkpoint_bytes = wild(1, 1e13),
                                     .checkpoint_interval_s = wild(1, 1e5),
                                     .sync_Bps = wild(1, 1e11),
                                     .sync_trips_Hz = wild(1e-3, 1e3),
                                     .response_bytes = wild(1, 1e9),
                                     .response_local_s = wild(1e-3, 1e3),
                                     .model_bytes = wild(1, 1e12),
                                     .round_s = wild(1, 1e5)};
}

static struct slowdown_path wild_path(void)
{
    return (struct slowdown_path){.rtt_s = wild(1e-5, 1),
                                  .bandwidth_Bps = wild(1e5, 1e12),
                                  .service_s = wild(1e-5, 1e-2),
                                  .loss = wild(1e-8, 1),
                                  .streams = wild(1, 64),
                                  .window_bytes = wild(1e4, 1e9),
                                  .storage_Bps = wild(1e6, 1e12),
                                  .lossless = rng() % 4 == 0};
}

/* Followed, the advice holds: what it names binds no more, or binds at what it says. */
START_TEST(test_advice_is_true)
{
    uint64_t seed = seed_rng();
    int followed[SLOWDOWN_BOUND_TRIPS + 1] = {0};
    for (int i = 0; i < 100000; i++) {
        struct slowdown_profile p = wild_profile();
        struct slowdown_path path = wild_path();
        struct slowdown_result r;
        char text[SLOWDOWN_ADVICE_MAX + 80];
        p.kind = SLOWDOWN_STREAM;
        p.outstanding_per_gpu = ceil(p.outstanding_per_gpu);
        slowdown_predict(&p, &path, 8, 0, &r);
        slowdown_advice(&p, &r, text, sizeof text);
        HOLD(strlen(text) < SLOWDOWN_ADVICE_MAX + 30, "seed %" PRIu64 ": %s", seed,
             text);
        HOLD((r.bound == SLOWDOWN_NOT_BOUND) == (text[0] == '\0'), "%s", text);
        double to = 0;
        const char *at;
        if (r.term != SLOWDOWN_TERM_STREAM || r.lost > 1e6) {
            continue;
        }
        if ((at = strstr(text, "raise prefetch from ")) != NULL &&
            sscanf(at, "raise prefetch from %*s to %lf", &to) == 1) {
            p.outstanding_per_gpu = to;
        } else if (sscanf(text, "bound by bandwidth: book a path of %lf", &to) == 1) {
            path.bandwidth_Bps = to * GBIT * (1 + 1e-9);
        } else {
            continue;
        }
        enum slowdown_bound named = r.bound;
        slowdown_predict(&p, &path, 8, 0, &r);
        HOLD(r.term != SLOWDOWN_TERM_STREAM || r.lost < 0.01 ||
                 (r.bound != named && strstr(text, "; then ") != NULL) ||
                 strlen(text) > SLOWDOWN_ADVICE_MAX - 30,
             "seed %" PRIu64 ": \"%s\" followed: still %s, %g lost", seed, text,
             slowdown_bound_name(r.bound), r.lost);
        followed[named]++;
    }
    ck_assert_int_gt(followed[SLOWDOWN_BOUND_BANDWIDTH], 1000);
    ck_assert_int_gt(followed[SLOWDOWN_BOUND_OUTSTANDING], 1000);
    ck_assert_int_gt(followed[SLOWDOWN_BOUND_TRIPS], 100);
}
END_TEST

static void expect_sane(const struct slowdown_result *r, uint64_t seed, int run)
{
    bool sane = r->steady >= 1 && r->steady <= SLOWDOWN_CEILING &&
                r->job >= r->steady && r->job <= SLOWDOWN_CEILING && r->once_s >= 0 &&
                isfinite(r->once_s) && isfinite(r->demand_Bps) && r->supply_Bps > 0 &&
                isfinite(r->supply_Bps) && isfinite(r->outstanding_needed_per_gpu) &&
                isfinite(r->lost) && r->lost >= 0;
    HOLD(sane, "seed %" PRIu64 " run %d: steady %g once %g job %g supply %g", seed, run,
         r->steady, r->once_s, r->job, r->supply_Bps);
}

/* Never below 1; never falls when RTT, loss, GPUs or extra trips rise or bandwidth,
 * storage, streams or the window fall; no jump for a step of 1e-9. One input alone is
 * the same as slowdown_predict. */
START_TEST(test_laws)
{
    uint64_t seed = seed_rng();
    for (int run = 0; run < 200000; run++) {
        struct slowdown_profile p = wild_profile(), worse_p = p;
        struct slowdown_path path = wild_path(), worse_path = path;
        double gpus = (double)(1 + rng() % 64), worse_gpus = gpus;
        double t_s = wild(1, 1e6), by = 1 + wild(1e-9, 10);
        struct slowdown_result r, worse;
        slowdown_predict(&p, &path, gpus, t_s, &r);
        expect_sane(&r, seed, run);
        switch (rng() % 8) {
        case 0: worse_path.rtt_s *= by; break;
        case 1: worse_path.bandwidth_Bps /= by; break;
        case 2: worse_path.loss *= by; break;
        case 3: worse_path.storage_Bps /= by; break;
        case 4: worse_path.window_bytes /= by; break;
        case 5: worse_path.service_s *= by; break;
        case 6: worse_p.demand_Bps_per_gpu *= by; break;
        default: worse_p.trips_per_request *= by; break;
        }
        slowdown_predict(&worse_p, &worse_path, worse_gpus, t_s, &worse);
        expect_sane(&worse, seed, run);
        HOLD(worse.steady >= r.steady * (1 - 1e-12) &&
                 worse.once_s >= r.once_s * (1 - 1e-12) &&
                 worse.job >= r.job * (1 - 1e-12),
             "seed %" PRIu64 " run %d kind %d: %.15g after %.15g", seed, run, p.kind,
             worse.job, r.job);
        /* X falls at most as loss^3.5 and RTT: no step is more than 4 times as large.
         */
        if (by < 1 + 1e-6 && r.job < SLOWDOWN_CEILING) {
            double once = r.once_s + p.startup_local_s;
            ck_assert_double_le(worse.steady, r.steady * (1 + 10 * (by - 1)));
            ck_assert_double_le(worse.once_s, r.once_s + once * 10 * (by - 1) + 1e-12);
        }
        struct slowdown_input in = {.path = path, .path_id = (int)(rng() % 3)};
        slowdown_predict_inputs(&p, &in, 1, gpus, t_s, &worse);
        HOLD(worse.job == r.job, "seed %" PRIu64 " run %d", seed, run);
    }
}
END_TEST

/* Another input never makes a job faster, and shares of an untold split stay below the
 * whole on one path. */
START_TEST(test_laws_of_inputs)
{
    uint64_t seed = seed_rng();
    for (int run = 0; run < 50000; run++) {
        struct slowdown_profile p = wild_profile();
        struct slowdown_input in[4];
        struct slowdown_result r;
        double last = 1;
        for (size_t n = 0; n < 4; n++) {
            in[n] = (struct slowdown_input){.path = wild_path(),
                                            .path_id = (int)(rng() % 3),
                                            .share = wild(0.1, 1)};
            /* A round's length is relative to the slowest group's. */
            slowdown_predict_inputs(&p, in, n + 1, 8, 3600, &r);
            expect_sane(&r, seed, run);
            HOLD(r.job >= last * (1 - 1e-12) && r.input <= n,
                 "seed %" PRIu64 " run %d: %g after %g", seed, run, r.job, last);
            last = r.job;
        }
    }
}
END_TEST

/* Every number of profile and path in turn absurd, on top of each kind. */
START_TEST(test_absurd_numbers)
{
    static const double absurd[] = {0,       -1,   1e-300,   DBL_MIN,   1e300,
                                    DBL_MAX, 1e18, INFINITY, -INFINITY, NAN};
    static const size_t path_fields = 7;
    seed_rng();
    for (int run = 0; run < 20000; run++) {
        struct slowdown_profile p = wild_profile();
        struct slowdown_path path = wild_path();
        struct slowdown_result r;
        char text[SLOWDOWN_ADVICE_MAX];
        double *of_path = (double *)&path;
        double gpus = 8, t_s = 3600;
        for (int k = 0; k < 3; k++) {
            double x = absurd[rng() % (sizeof absurd / sizeof absurd[0])];
            switch (rng() % 4) {
            case 0: of_path[rng() % path_fields] = x; break;
            case 1: gpus = x; break;
            case 2: t_s = x; break;
            default:
                memcpy((char *)&p +
                           slowdown_fields[rng() % slowdown_field_count].offset,
                       &x, sizeof x);
                break;
            }
        }
        slowdown_predict(&p, &path, gpus, t_s, &r);
        expect_sane(&r, 0, run);
        slowdown_advice(&p, &r, text, sizeof text);
        HOLD(strstr(text, "nan") == NULL && strstr(text, "inf ") == NULL, "%s", text);
    }
}
END_TEST

UNIT_MAIN("slowdown_laws",
          UNIT_CASE(test_advice_is_true) UNIT_CASE(test_laws)
              UNIT_CASE(test_laws_of_inputs) UNIT_CASE(test_absurd_numbers))
