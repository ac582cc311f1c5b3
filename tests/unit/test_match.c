/* match: each bound with its words, the order, and the same market ranked by hand. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "client/lib/timefmt.h"
#include "server/core/match.h"
#include "tests/unit/unit.h"

#define NOW  INT64_C(1795392000000000) /* 2026-11-23T00:00:00Z */
#define HOUR US_PER_HOUR
#define YEN  MATCH_PPM

/* Tokyo has the data; Tokyo is dear, Fukuoka cheap and 11.5 ms away, Seoul 30 ms. */
struct market {
    struct calendar *cal;
    struct topo *topo;
    struct match_offer offers[3];
};
enum { TOKYO, FUKUOKA, SEOUL };

static const int data_zero[] = {0};

static void market_init(struct market *m)
{
    static const char *const sites[] = {"tokyo", "fukuoka", "seoul"};
    static const char *const residency[] = {"jp", "jp", "kr"};
    static const int64_t price[] = {400 * YEN, 300 * YEN, 150 * YEN};
    static const int64_t rtt[] = {200, 11500, 30000};
    m->cal = calendar_new();
    m->topo = topo_new();
    for (int i = 0; i < 3; i++) {
        struct topo_rtt measured = {.rtt_us = rtt[i], .count = 20, .at_us = NOW};
        struct calendar_node n = {.site = i, .model = i, .gpus = 8, .offered = 0xff};
        m->offers[i] = (struct match_offer){.site = i,
                                            .model = i,
                                            .site_name = sites[i],
                                            .provider_name = "acme",
                                            .gpu_model = "NVIDIA H100 80GB HBM3",
                                            .residency = residency[i],
                                            .price_micro = price[i],
                                            .gpu_memory_mib = 81559,
                                            .reliability_ppm = 999000,
                                            .bandwidth_Bps = INT64_C(12500000000),
                                            .up = true};
        ck_assert_int_eq(topo_measured(m->topo, i, 0, &measured, NULL), 0);
        calendar_set_node(m->cal, i, &n);
    }
}

static void market_done(struct market *m)
{
    calendar_free(m->cal);
    topo_free(m->topo);
}

static struct match_query query(void)
{
    return (struct match_query){.gpu_model = "h100",
                                .gpus = 8,
                                .len_us = 4 * HOUR,
                                .from_us = NOW,
                                .latest_us = NOW,
                                .data = data_zero,
                                .data_count = 1,
                                .profile = slowdown_find("resnet50_h100"),
                                .now_us = NOW};
}

START_TEST(test_model_names)
{
    static const struct {
        const char *have, *want;
        bool fits;
    } rows[] = {
        {"H100", "H100", true},
        {"H100", "h100", true},
        {"H100-SXM5-80GB", "H100", true},
        {"NVIDIA H100 80GB HBM3", "h100", true},
        {"NVIDIA H100 80GB HBM3", "H100-80GB", true},
        {"NVIDIA H100 80GB HBM3", "HBM3", true},
        {"NVIDIA GeForce RTX 4090", "rtx-4090", true},
        {"NVIDIA GH100", "H100", false},
        {"A100-SXM4-80GB", "A10", false},
        {"NVIDIA L40S", "L40", false},
        {"H100", "H100-SXM5-80GB", false},
        {"H100", "", false},
        {"", "H100", false},
        {"A10 A100", "A100", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ck_assert_msg(match_model_fits(rows[i].have, rows[i].want) == rows[i].fits,
                      "'%s' for '%s'", rows[i].have, rows[i].want);
    }
}
END_TEST

/* ResNet at 11.5 ms runs 1.17 times as long: 300 yen become 352, less than 400. At
 * 30 ms 150 yen become 447: the cheapest offer is the dearest. */
START_TEST(test_effective_cost_decides)
{
    struct market m;
    struct match_place p[3];
    market_init(&m);
    struct match_query q = query();
    ck_assert_uint_eq(match_rank(m.cal, m.topo, m.offers, 3, &q, p), 3);
    ck_assert_int_eq(p[0].offer, FUKUOKA);
    ck_assert_int_eq(p[1].offer, TOKYO);
    ck_assert_int_eq(p[2].offer, SEOUL);
    ck_assert_int_eq(p[0].slowdown_ppm, 1173636);
    ck_assert_int_eq(p[0].price_total_micro, 9600 * YEN);
    ck_assert_int_eq(p[0].effective_micro, 9600 * INT64_C(1173636));
    ck_assert_int_eq(p[0].effective_per_hour_micro, 300 * INT64_C(1173636));
    ck_assert_int_eq(p[0].slot.node, FUKUOKA);
    ck_assert_int_eq(p[0].slot.start_us, NOW);
    ck_assert_int_eq(match_free(m.cal, &m.offers[p[0].offer], &p[0], q.len_us), 8);
    ck_assert_str_eq(p[0].reason, "");
    ck_assert_str_eq(p[0].advice,
                     "bound by outstanding requests: raise prefetch from 8 "
                     "to 10 per GPU");
    ck_assert_int_eq(p[1].slowdown_ppm, MATCH_PPM);

    q.profile = NULL; /* by price alone */
    ck_assert_uint_eq(match_rank(m.cal, m.topo, m.offers, 3, &q, p), 3);
    ck_assert_int_eq(p[0].offer, SEOUL);
    ck_assert_int_eq(p[0].effective_micro, p[0].price_total_micro);
    market_done(&m);
}
END_TEST

/* What one change of the query or of an offer says about Fukuoka. */
START_TEST(test_reasons)
{
    struct market m;
    struct match_place p[3];
    market_init(&m);
    struct match_offer *f = &m.offers[FUKUOKA];
    const struct match_offer kept = *f;
    static const struct {
        int change;
        enum match_why why;
        const char *name, *reason;
    } rows[] = {
        {0, MATCH_DOWN, "down", "down: no node reported lately"},
        {1, MATCH_MODEL, "model", "other GPU: NVIDIA H100 80GB HBM3, asked for A100"},
        {2, MATCH_MEMORY, "memory", "too little GPU memory: 81559 MiB < 90000 MiB"},
        {3, MATCH_RESIDENCY, "residency", "residency jp, asked for kr"},
        {4, MATCH_EXCLUDED, "excluded", "excluded: site fukuoka, asked for tokyo"},
        {5, MATCH_EXCLUDED, "excluded", "excluded: provider acme, asked for other"},
        {6, MATCH_NO_RTT, "no_rtt",
         "no RTT known to the data: not probed yet and no place to compute it from"},
        {7, MATCH_TOO_FAR, "too_far", "too far: 11.5 ms > 5.0 ms"},
        {8, MATCH_TOO_DEAR, "too_dear",
         "too dear: 300 per GPU-hour > 299.5 per GPU-hour"},
        {9, MATCH_TOO_SLOW, "too_slow", "too slow: 1.173636 > 1.1"},
        {10, MATCH_NODE_TOO_SMALL, "node_too_small",
         "node too small: 9 GPUs side by side asked, largest node offers 8"},
        {11, MATCH_BUSY, "busy",
         "busy until 2026-11-23T23:40:00Z (before, no node has 8 free GPUs side by "
         "side, "
         "best has 4)"},
        {12, MATCH_OVER_BUDGET, "over_budget",
         "over budget: 11266.9056 effective > 10000 effective"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct match_query q = query();
        static const int data_unknown[] = {0, 9};
        *f = kept;
        switch (rows[i].change) {
        case 0: f->up = false; break;
        case 1: q.gpu_model = "A100"; break;
        case 2: q.min_memory_mib = 90000; break;
        case 3: q.residency = "kr"; break;
        case 4: q.only_site = "tokyo"; break;
        case 5: q.only_provider = "other"; break;
        case 6:
            q.data = data_unknown;
            q.data_count = 2;
            break;
        case 7: q.max_rtt_us = 5000; break;
        case 8: q.max_price_micro = 299500000; break;
        case 9: q.max_slowdown_ppm = 1100000; break;
        case 10: q.gpus = 9; break;
        case 11:
            calendar_book(m.cal, 1, FUKUOKA, 4, 4, NOW + HOUR, NOW + 1420 * 60 * YEN);
            break;
        default: q.max_effective_micro = 10000 * YEN; break;
        }
        match_rank(m.cal, m.topo, m.offers, 3, &q, p);
        calendar_release(m.cal, 1);
        for (int k = 0; k < 3; k++) {
            if (p[k].offer == FUKUOKA) {
                ck_assert_int_eq(p[k].why, rows[i].why);
                ck_assert_str_eq(match_why_name(p[k].why), rows[i].name);
                ck_assert_str_eq(p[k].reason, rows[i].reason);
            }
        }
    }
    market_done(&m);
}
END_TEST

START_TEST(test_bounds_are_inclusive)
{
    struct market m;
    struct match_place p[3];
    market_init(&m);
    struct match_query q = query();
    q.only_site = "fukuoka";
    q.max_rtt_us = 11500;
    q.max_price_micro = 300 * YEN;
    q.max_slowdown_ppm = 1173636;
    q.max_effective_micro = 9600 * INT64_C(1173636);
    q.min_memory_mib = 81559;
    ck_assert_uint_eq(match_rank(m.cal, m.topo, m.offers, 3, &q, p), 1);
    q.max_effective_micro--;
    ck_assert_uint_eq(match_rank(m.cal, m.topo, m.offers, 3, &q, p), 0);
    market_done(&m);
}
END_TEST

START_TEST(test_data_bounds)
{
    struct market m;
    struct match_place p[3];
    market_init(&m);
    struct match_query q = query();
    static const int unknown[] = {9};
    q.data = unknown; /* nothing known, nothing asked of it: price decides */
    q.profile = NULL;
    ck_assert_uint_eq(match_rank(m.cal, m.topo, m.offers, 3, &q, p), 3);
    q.max_rtt_us = 1000000;
    ck_assert_uint_eq(match_rank(m.cal, m.topo, m.offers, 3, &q, p), 0);
    ck_assert_int_eq(p[0].why, MATCH_NO_RTT);
    /* Two data sets: the far one counts. */
    struct topo_rtt far = {.rtt_us = 15000, .at_us = NOW};
    static const int both[] = {0, 1};
    ck_assert_int_eq(topo_measured(m.topo, TOKYO, 1, &far, NULL), 0);
    q = query();
    q.data = both;
    q.data_count = 2;
    ck_assert_uint_eq(match_rank(m.cal, m.topo, m.offers, 3, &q, p), 1);
    ck_assert_int_eq(p[0].offer, TOKYO);
    ck_assert_int_eq(p[0].rtt.rtt_us, 15000);
    ck_assert_int_eq(p[0].slowdown_ppm / 10000, 151);
    /* Without data there is no distance and no slow-down. */
    q = query();
    q.data_count = 0;
    q.max_rtt_us = 1;
    ck_assert_uint_eq(match_rank(m.cal, m.topo, m.offers, 3, &q, p), 3);
    ck_assert_int_eq(p[0].offer, SEOUL);
    market_done(&m);
}
END_TEST

START_TEST(test_out_of_range_price)
{
    struct market m;
    struct match_place p[3];
    market_init(&m);
    struct match_query q = query();
    m.offers[FUKUOKA].price_micro = INT64_MAX / 2;
    ck_assert_uint_eq(match_rank(m.cal, m.topo, m.offers, 3, &q, p), 2);
    ck_assert_int_eq(p[2].why, MATCH_TOO_DEAR);
    ck_assert_str_eq(p[2].reason, "too dear: the price is out of range");
    market_done(&m);
}
END_TEST

/* Ties: earlier start, then smaller RTT, then reliability, then a spread that changes
 * with the request. */
START_TEST(test_ties)
{
    struct market m;
    struct match_place p[3];
    market_init(&m);
    struct match_query q = query();
    q.profile = NULL;
    q.latest_us = NOW + 24 * HOUR;
    for (int i = 0; i < 3; i++) {
        m.offers[i].price_micro = 100 * YEN;
    }
    match_rank(m.cal, m.topo, m.offers, 3, &q, p);
    ck_assert_int_eq(p[0].offer, TOKYO);
    calendar_book(m.cal, 1, TOKYO, 0, 1, NOW, NOW + HOUR);
    match_rank(m.cal, m.topo, m.offers, 3, &q, p);
    ck_assert_int_eq(p[0].offer, FUKUOKA);
    ck_assert_int_eq(p[2].offer, TOKYO);
    ck_assert_int_eq(p[2].slot.start_us, NOW + HOUR);
    calendar_release(m.cal, 1);

    q.data_count = 0;
    m.offers[SEOUL].reliability_ppm = 999001;
    match_rank(m.cal, m.topo, m.offers, 3, &q, p);
    ck_assert_int_eq(p[0].offer, SEOUL);
    m.offers[SEOUL].reliability_ppm = 999000;
    int first[3] = {0};
    for (uint32_t s = 0; s < 300; s++) {
        q.spread = s * 7919;
        match_rank(m.cal, m.topo, m.offers, 3, &q, p);
        first[p[0].offer]++;
    }
    for (int i = 0; i < 3; i++) {
        ck_assert_msg(first[i] > 50, "offer %d first %d times of 300", i, first[i]);
    }
    market_done(&m);
}
END_TEST

/* ---- random markets against brute force ---- */

#define OFFERS      6
#define NODES       12
#define RANDOM_RUNS 20000

static uint64_t rng_state;

static int below(int n)
{
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return (int)((rng_state * UINT64_C(2685821657736338717) >> 33) % (uint64_t)n);
}

struct brute {
    bool fits;
    int64_t start_us, effective;
    double rtt_us;
};

static const char *const models[] = {"H100-SXM", "A100-PCIE"};
static const char *const places[] = {"jp", "kr"};

/* Times are whole hours, so every possible start is on the hour. */
static bool brute_start(const struct market *m, const struct match_query *q, int offer,
                        int64_t *ret_us)
{
    for (int64_t t = q->from_us; t <= q->latest_us; t += HOUR) {
        for (int node = offer; node < NODES; node += OFFERS) {
            uint64_t mask = calendar_free_mask(m->cal, node, t, t + q->len_us);
            if (calendar_pick(mask, q->gpus) >= 0) {
                *ret_us = t;
                return true;
            }
        }
    }
    return false;
}

static struct brute brute_force(const struct market *m, const struct match_offer *o,
                                const struct match_query *q, int offer)
{
    struct brute b = {.rtt_us = -1};
    double slow = 1;
    for (size_t i = 0; i < q->data_count; i++) {
        struct topo_rtt rtt = topo_rtt(m->topo, o->site, q->data[i], q->now_us);
        if (rtt.source == TOPO_UNKNOWN) {
            b.rtt_us = INFINITY;
            continue;
        }
        b.rtt_us = fmax(b.rtt_us, (double)rtt.rtt_us);
        if (q->profile != NULL) {
            struct slowdown_path path = {(double)rtt.rtt_us / 1e6,
                                         (double)o->bandwidth_Bps, SLOWDOWN_SERVICE_S};
            struct slowdown_result r;
            slowdown_predict(q->profile, &path, q->gpus, (double)q->len_us / 1e6, &r);
            slow = fmax(slow, r.job);
        }
    }
    int64_t ppm = (int64_t)floor(slow * 1e6 + 0.5);
    /* Whole hours and whole yen: exact without rounding. */
    int64_t total = o->price_micro * q->gpus * (q->len_us / HOUR);
    b.effective = (int64_t)(((__int128)total * ppm + MATCH_PPM / 2) / MATCH_PPM);
    bool blind = q->data_count > 0 && isinf(b.rtt_us) &&
                 (q->profile != NULL || q->max_rtt_us > 0);
    if (isinf(b.rtt_us)) {
        b.effective = total;
    }
    b.fits =
        o->up && strncmp(o->gpu_model, q->gpu_model, 4) == 0 &&
        (q->residency == NULL || strcmp(o->residency, q->residency) == 0) && !blind &&
        !(q->max_rtt_us > 0 && q->data_count > 0 && b.rtt_us > (double)q->max_rtt_us) &&
        !(q->max_price_micro > 0 && o->price_micro > q->max_price_micro) &&
        !(q->max_slowdown_ppm > 0 && ppm > q->max_slowdown_ppm) &&
        brute_start(m, q, offer, &b.start_us) &&
        !(q->max_effective_micro > 0 && b.effective > q->max_effective_micro);
    return b;
}

static void random_market(struct market *m, struct match_offer *offers)
{
    m->cal = calendar_new();
    m->topo = topo_new();
    for (int i = 0; i < OFFERS; i++) {
        offers[i] = (struct match_offer){.site = i / 2,
                                         .model = i,
                                         .site_name = "s",
                                         .provider_name = "p",
                                         .gpu_model = models[below(2)],
                                         .residency = places[below(2)],
                                         .price_micro = (1 + below(4)) * 100 * YEN,
                                         .reliability_ppm = below(2),
                                         .bandwidth_Bps = (1 + below(3)) * 1250000000LL,
                                         .up = below(8) != 0};
    }
    for (int node = 0; node < NODES; node++) {
        int offer = node % OFFERS;
        struct calendar_node n = {.site = offer / 2,
                                  .model = offer,
                                  .gpus = 1 << below(4),
                                  .offered = UINT64_MAX};
        calendar_set_node(m->cal, node, &n);
        for (int i = below(6); i > 0; i--) {
            int first = below(n.gpus);
            int64_t from = NOW + below(30) * HOUR;
            calendar_book(m->cal, node * 10 + i, node, first, 1 + below(n.gpus - first),
                          from, from + (1 + below(10)) * HOUR);
        }
    }
    for (int site = 0; site < OFFERS / 2; site++) {
        for (int d = 0; d < 2; d++) {
            struct topo_rtt rtt = {.rtt_us = 200 + below(4) * 9000, .at_us = NOW};
            if (below(5) != 0) {
                ck_assert_int_eq(topo_measured(m->topo, site, d, &rtt, NULL), 0);
            }
        }
    }
}

static struct match_query random_query(void)
{
    static const char *const profiles[] = {"resnet50_h100", "unet3d_h100",
                                           "llama2_70b_lora_8xh100"};
    static const int both[] = {0, 1};
    struct match_query q = {.gpu_model = below(2) != 0 ? "H100" : "A100",
                            .gpus = 1 + below(8),
                            .len_us = (1 + below(6)) * HOUR,
                            .from_us = NOW + below(20) * HOUR,
                            .data = both,
                            .data_count = (size_t)below(3),
                            .now_us = NOW,
                            .spread = (uint32_t)below(1000)};
    q.latest_us = q.from_us + below(20) * HOUR;
    q.profile = below(3) != 0 ? slowdown_find(profiles[below(3)]) : NULL;
    q.max_rtt_us = below(3) == 0 ? 5000 + below(3) * 9000 : 0;
    q.max_price_micro = below(4) == 0 ? (1 + below(4)) * 100 * YEN : 0;
    q.max_slowdown_ppm = below(4) == 0 ? MATCH_PPM + below(1000000) : 0;
    q.max_effective_micro = below(4) == 0 ? (1 + below(40)) * 100 * YEN : 0;
    q.residency = below(4) == 0 ? places[below(2)] : NULL;
    return q;
}

static bool is_better(const struct brute *a, const struct match_offer *oa,
                      const struct brute *b, const struct match_offer *ob)
{
    if (a->effective != b->effective) {
        return a->effective < b->effective;
    }
    if (a->start_us != b->start_us) {
        return a->start_us < b->start_us;
    }
    double ra = a->rtt_us < 0 ? INFINITY : a->rtt_us;
    double rb = b->rtt_us < 0 ? INFINITY : b->rtt_us;
    if (ra < rb || rb < ra) {
        return ra < rb;
    }
    return oa->reliability_ppm > ob->reliability_ppm;
}

static size_t compare_run(const struct market *m, const struct match_offer *offers,
                          const struct match_query *q)
{
    struct match_place p[OFFERS];
    struct brute b[OFFERS];
    size_t want = 0, differences = 0,
           fitting = match_rank(m->cal, m->topo, offers, OFFERS, q, p);
    unsigned seen = 0;
    for (int i = 0; i < OFFERS; i++) {
        b[i] = brute_force(m, &offers[i], q, i);
        want += b[i].fits;
    }
    differences += want != fitting;
    for (size_t i = 0; i < OFFERS; i++) {
        int o = p[i].offer;
        seen |= 1u << o;
        differences += (p[i].why == MATCH_OK) != b[o].fits;
        differences += (p[i].reason[0] == '\0') != b[o].fits;
        if (i < fitting && b[o].fits) {
            uint64_t mask =
                calendar_free_mask(m->cal, p[i].slot.node, p[i].slot.start_us,
                                   p[i].slot.start_us + q->len_us);
            uint64_t run = ((UINT64_C(1) << q->gpus) - 1) << p[i].slot.first;
            differences += p[i].effective_micro != b[o].effective;
            differences += p[i].slot.start_us != b[o].start_us;
            differences += p[i].slot.node % OFFERS != o || (mask & run) != run;
        }
        if (i + 1 < fitting) {
            int next = p[i + 1].offer;
            differences += is_better(&b[next], &offers[next], &b[o], &offers[o]);
        }
    }
    return differences + (seen != (1u << OFFERS) - 1);
}

START_TEST(test_brute_force)
{
    const char *text = getenv("NEARGPU_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : 20261122;
    size_t differences = 0, placed = 0;
    rng_state = seed * 2 + 1;
    for (int run = 0; run < RANDOM_RUNS; run++) {
        struct market m;
        struct match_offer offers[OFFERS];
        struct match_place p[OFFERS];
        random_market(&m, offers);
        struct match_query q = random_query();
        differences += compare_run(&m, offers, &q);
        placed += match_rank(m.cal, m.topo, offers, OFFERS, &q, p) > 0;
        market_done(&m);
    }
    ck_assert_msg(differences == 0, "seed %" PRIu64 ": %zu differences", seed,
                  differences);
    ck_assert_uint_gt(placed, RANDOM_RUNS / 10);
    ck_assert_uint_lt(placed, RANDOM_RUNS * 9 / 10);
}
END_TEST

UNIT_MAIN("match",
          UNIT_CASE(test_model_names) UNIT_CASE(test_effective_cost_decides)
              UNIT_CASE(test_reasons) UNIT_CASE(test_bounds_are_inclusive)
                  UNIT_CASE(test_data_bounds) UNIT_CASE(test_out_of_range_price)
                      UNIT_CASE(test_ties) UNIT_CASE(test_brute_force))
