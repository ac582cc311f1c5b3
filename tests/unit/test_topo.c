/* topo: distances, the light floor, which source wins, confidence and drift, shortest
 * paths between sites, doubtful places, who probes; and random changes against a naive
 * model (NEARGPU_SEED). With NEARGPU_DATA naming a folder that has them, the public
 * tables of fibre in Japan and of round trips between AWS regions are checked too. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "server/core/topo.h"
#include "tests/unit/unit.h"

#define MINUTE INT64_C(60000000)

static const struct topo_place tokyo = {35.6812, 139.7671, true};
static const struct topo_place fukuoka = {33.5904, 130.4017, true};
static const struct topo_place osaka = {34.6937, 135.5023, true};
static const struct topo_place nowhere = {0, 0, false};

START_TEST(test_great_circle)
{
    /* From the angle between the two position vectors, computed elsewhere. */
    ck_assert_double_eq_tol(topo_km(tokyo, fukuoka), 887.404, 0.01);
    ck_assert_double_eq_tol(topo_km(tokyo, osaka), 402.785, 0.01);
    ck_assert_double_eq_tol(topo_km(tokyo, tokyo), 0, 1e-9);
    struct topo_place north = {90, 0, true}, south = {-90, 50, true};
    struct topo_place east = {10, 179.5, true}, west = {10, -179.5, true};
    ck_assert_double_eq_tol(topo_km(north, south), M_PI * 6371.0088, 0.01);
    ck_assert_double_eq_tol(topo_km(east, west), 109.506, 0.01);
    ck_assert_int_eq(topo_floor_us(tokyo, fukuoka),
                     (int64_t)floor(topo_km(tokyo, fukuoka) * 9.8));
    ck_assert_int_eq(topo_estimate_us(tokyo, fukuoka),
                     (int64_t)ceil(topo_km(tokyo, fukuoka) * 14.7));
}
END_TEST

START_TEST(test_best_source_wins)
{
    struct topo *t = topo_new();
    struct err err;
    struct topo_rtt m = {.rtt_us = 15000,
                         .min_us = 14800,
                         .p99_us = 20000,
                         .count = 30,
                         .at_us = 100 * MINUTE};
    ck_assert_int_eq(topo_rtt(t, 3, 5, 0).source, TOPO_UNKNOWN);
    topo_set_site(t, 3, fukuoka);
    ck_assert_int_eq(topo_rtt(t, 3, 5, 0).source, TOPO_UNKNOWN);
    topo_set_data(t, 5, tokyo);
    struct topo_rtt got = topo_rtt(t, 3, 5, 100 * MINUTE);
    ck_assert_int_eq(got.source, TOPO_TOPOLOGY);
    ck_assert_int_eq(got.rtt_us, topo_estimate_us(tokyo, fukuoka));

    ck_assert_int_eq(topo_measured(t, 3, 5, &m, &err), 0);
    got = topo_rtt(t, 3, 5, 115 * MINUTE);
    ck_assert_int_eq(got.source, TOPO_MEASURED);
    ck_assert_int_eq(got.rtt_us, 15000);
    ck_assert_int_eq(got.count, 30);
    /* Old, but nothing better than a guess is known. */
    ck_assert_int_eq(topo_rtt(t, 3, 5, 115 * MINUTE + 1).source, TOPO_MEASURED);
    topo_declared(t, 3, 5, 9000, 50 * MINUTE);
    ck_assert_int_eq(topo_rtt(t, 3, 5, 115 * MINUTE).source, TOPO_MEASURED);
    got = topo_rtt(t, 3, 5, 115 * MINUTE + 1);
    ck_assert_int_eq(got.source, TOPO_DECLARED);
    ck_assert_int_eq(got.rtt_us, 9000);
    topo_free(t);
}
END_TEST

START_TEST(test_faster_than_light_is_refused)
{
    struct topo *t = topo_new();
    struct err err;
    int64_t floor_us = topo_floor_us(tokyo, fukuoka);
    struct topo_rtt ok = {.rtt_us = floor_us, .at_us = 1};
    struct topo_rtt fast = {.rtt_us = floor_us - 1, .at_us = 1};
    struct topo_rtt one = {.rtt_us = 20000, .min_us = 300, .at_us = 1};
    topo_set_site(t, 0, fukuoka);
    topo_set_data(t, 0, tokyo);
    ck_assert_int_eq(topo_measured(t, 0, 0, &fast, &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "beats light"));
    ck_assert_int_eq(topo_measured(t, 0, 0, &one, &err), -1);
    ck_assert_int_eq(topo_rtt(t, 0, 0, 1).source, TOPO_TOPOLOGY);
    ck_assert_int_eq(topo_measured(t, 0, 0, &ok, &err), 0);
    topo_declared(t, 0, 0, 300, 1);
    ck_assert_int_eq(topo_rtt(t, 0, 0, 1).source, TOPO_MEASURED);
    /* A place learnt later unmasks what was accepted before. */
    ck_assert_int_eq(topo_measured(t, 1, 0, &one, &err), 0);
    ck_assert_int_eq(topo_rtt(t, 1, 0, 1).source, TOPO_MEASURED);
    topo_set_site(t, 1, fukuoka);
    ck_assert_int_eq(topo_rtt(t, 1, 0, 1).source, TOPO_TOPOLOGY);
    topo_set_site(t, 1, nowhere);
    ck_assert_int_eq(topo_rtt(t, 1, 0, 1).source, TOPO_MEASURED);
    topo_free(t);
}
END_TEST

START_TEST(test_tables_grow)
{
    struct topo *t = topo_new();
    struct err err;
    for (int s = 200; s >= 0; s -= 7) {
        for (int d = 0; d < 300; d += 13) {
            struct topo_rtt m = {.rtt_us = 1000 * s + d + 1, .at_us = 5};
            ck_assert_int_eq(topo_measured(t, s, d, &m, &err), 0);
        }
    }
    for (int s = 200; s >= 0; s -= 7) {
        ck_assert_int_eq(topo_rtt(t, s, 26, 5).rtt_us, 1000 * s + 27);
        ck_assert_int_eq(topo_rtt(t, s, 27, 5).source, TOPO_UNKNOWN);
    }
    ck_assert_int_eq(topo_rtt(t, -1, 0, 5).source, TOPO_UNKNOWN);
    ck_assert_int_eq(topo_rtt(t, 100000, 0, 5).source, TOPO_UNKNOWN);
    ck_assert_str_eq(topo_source_name(TOPO_DECLARED), "declared");
    topo_free(t);
    topo_free(NULL);
}
END_TEST

/* ---- confidence and drift ---- */

START_TEST(test_confidence)
{
    static const struct {
        const char *what;
        struct topo_rtt m;
        int64_t age_us, ppm;
        const char *level;
    } rows[] = {
        {"twenty calm samples",
         {.rtt_us = 15000, .p99_us = 16000, .count = 20},
         0,
         833333,
         "high"},
        {"ten",
         {.rtt_us = 15000, .p99_us = 16000, .count = 10},
         15 * MINUTE,
         714285,
         "high"},
        {"one", {.rtt_us = 15000, .p99_us = 15000, .count = 1}, 0, 200000, "low"},
        {"none told", {.rtt_us = 15000}, 0, 200000, "low"},
        {"an hour old",
         {.rtt_us = 15000, .p99_us = 16000, .count = 20},
         60 * MINUTE,
         208333,
         "low"},
        {"p99 far out",
         {.rtt_us = 15000, .p99_us = 47000, .count = 20},
         0,
         416666,
         "medium"},
        {"a millisecond is no spread",
         {.rtt_us = 200, .p99_us = 1300, .count = 20},
         0,
         833333,
         "high"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct topo *t = topo_new();
        struct topo_rtt m = rows[i].m;
        m.at_us = 1000 * MINUTE;
        ck_assert_int_eq(topo_measured(t, 0, 0, &m, NULL), 0);
        struct topo_rtt got = topo_rtt(t, 0, 0, m.at_us + rows[i].age_us);
        ck_assert_msg(llabs(got.confidence_ppm - rows[i].ppm) <= 1, "%s: %" PRId64,
                      rows[i].what, got.confidence_ppm);
        ck_assert_str_eq(topo_confidence_name(got.confidence_ppm), rows[i].level);
        topo_free(t);
    }
    struct topo *t = topo_new();
    topo_declared(t, 0, 0, 5000, 1);
    ck_assert_str_eq(topo_confidence_name(topo_rtt(t, 0, 0, 1).confidence_ppm),
                     "medium");
    topo_set_site(t, 1, tokyo);
    topo_set_data(t, 1, osaka);
    ck_assert_str_eq(topo_confidence_name(topo_rtt(t, 1, 1, 1).confidence_ppm), "low");
    ck_assert_str_eq(topo_confidence_name(topo_rtt(t, 9, 9, 1).confidence_ppm), "none");
    topo_free(t);
}
END_TEST

/* One measurement a minute from `from`, n of them; the last is returned. */
static struct topo_rtt probe_for(struct topo *t, int64_t from_us, int n, int64_t rtt_us)
{
    for (int i = 0; i < n; i++) {
        struct topo_rtt m = {
            .rtt_us = rtt_us, .count = 20, .at_us = from_us + i * MINUTE};
        ck_assert_int_eq(topo_measured(t, 0, 0, &m, NULL), 0);
    }
    return topo_rtt(t, 0, 0, from_us + n * MINUTE);
}

START_TEST(test_drift)
{
    struct topo *t = topo_new();
    struct topo_rtt got = probe_for(t, 0, 100, 15000);
    ck_assert_int_eq(got.baseline_us, 15000);
    ck_assert_int_eq(got.drift_us, 0);
    ck_assert(!got.drifting);
    /* Within a fifth it is noise. */
    got = probe_for(t, 100 * MINUTE, 1, 17900);
    ck_assert(!got.drifting);
    ck_assert_int_gt(got.drift_us, 2500);
    /* Beyond, it is told, ... */
    got = probe_for(t, 101 * MINUTE, 1, 22000);
    ck_assert(got.drifting);
    ck_assert_int_eq(got.rtt_us, 22000);
    ck_assert_int_eq(got.baseline_us, 15027);
    ck_assert_int_eq(got.drift_us, 22000 - 15027);
    /* ... the same window told a hundred times moves nothing, nor does an older one,
     * ... */
    for (int i = 0; i < 100; i++) {
        got = probe_for(t, 101 * MINUTE, 1, 22000);
    }
    probe_for(t, 20 * MINUTE, 1, 90000);
    got = probe_for(t, 101 * MINUTE, 1, 22000);
    ck_assert_int_eq(got.baseline_us, 15027);
    /* ... and half a day later it is how things are. */
    got = probe_for(t, 102 * MINUTE, 720, 22000);
    ck_assert(!got.drifting);
    ck_assert_int_gt(got.baseline_us, 20900);
    /* Faster is a drift as well, even after hours of silence. */
    got = probe_for(t, 1000 * MINUTE, 1, 12000);
    ck_assert(got.drifting);
    ck_assert_int_lt(got.drift_us, -6500);
    topo_free(t);

    /* Three measurements are no baseline, and below 1 ms nothing drifts. */
    t = topo_new();
    probe_for(t, 0, 2, 15000);
    ck_assert(!probe_for(t, 2 * MINUTE, 1, 40000).drifting);
    ck_assert(!probe_for(t, 2 * MINUTE, 1, 40000).drifting);
    ck_assert(probe_for(t, 3 * MINUTE, 1, 40000).drifting);
    topo_free(t);
    t = topo_new();
    probe_for(t, 0, 50, 200);
    got = probe_for(t, 50 * MINUTE, 1, 1100);
    ck_assert(!got.drifting);
    ck_assert(probe_for(t, 51 * MINUTE, 1, 1300).drifting);
    topo_free(t);
}
END_TEST

/* ---- between sites ---- */

/* JPN12, the photonic network model of the IEICE committee. */
static const struct {
    const char *name;
    double lat, lon;
} cities[] = {{"Sapporo", 43.075, 141.34},   {"Sendai", 38.27, 140.85},
              {"Tokyo", 35.68, 139.77},      {"Hachioji", 35.66, 139.28},
              {"Kanazawa", 36.58, 136.65},   {"Nagano", 36.66, 138.19},
              {"Nagoya", 35.149, 136.91},    {"Osaka", 34.67, 135.5},
              {"Hiroshima", 34.39, 132.449}, {"Matsuyama", 33.84, 132.75},
              {"Hakata", 33.57, 130.35},     {"Naha", 26.21, 127.68}};
#define CITIES ((int)(sizeof cities / sizeof cities[0]))
static const struct {
    const char *a, *b;
    double km;
} fibre[] = {{"Sapporo", "Sendai", 593.3},     {"Sapporo", "Hachioji", 1256.4},
             {"Sendai", "Tokyo", 351.8},       {"Tokyo", "Hachioji", 47.4},
             {"Tokyo", "Nagoya", 366.0},       {"Hachioji", "Nagano", 250.7},
             {"Nagano", "Kanazawa", 252.2},    {"Nagano", "Nagoya", 250.8},
             {"Nagoya", "Osaka", 186.6},       {"Kanazawa", "Osaka", 263.8},
             {"Nagoya", "Matsuyama", 490.7},   {"Osaka", "Hiroshima", 341.6},
             {"Hiroshima", "Matsuyama", 66.2}, {"Hiroshima", "Hakata", 280.7},
             {"Matsuyama", "Naha", 1158.7},    {"Matsuyama", "Hakata", 365.0},
             {"Hakata", "Naha", 911.9}};
/* As published, in ms. */
static const struct {
    const char *city;
    double rtt_ms;
} from_tokyo[] = {{"Hachioji", 0.465}, {"Hakata", 11.514},   {"Hiroshima", 8.763},
                  {"Kanazawa", 5.393}, {"Matsuyama", 8.396}, {"Nagano", 2.921},
                  {"Nagoya", 3.587},   {"Naha", 19.751},     {"Osaka", 5.415},
                  {"Sapporo", 9.262},  {"Sendai", 3.448}};

static int city(const char *name)
{
    int i = 0;
    while (strcmp(cities[i].name, name) != 0) {
        i++;
    }
    return i;
}

static struct topo *japan(void)
{
    struct topo *t = topo_new();
    for (int i = 0; i < CITIES; i++) {
        topo_set_site(t, i, (struct topo_place){cities[i].lat, cities[i].lon, true});
    }
    for (size_t i = 0; i < sizeof fibre / sizeof fibre[0]; i++) {
        ck_assert_int_eq(
            topo_link(t, city(fibre[i].a), city(fibre[i].b), fibre[i].km, NULL), 0);
    }
    topo_relink(t);
    return t;
}

START_TEST(test_fibre)
{
    struct topo *t = japan();
    int here = city("Tokyo");
    for (size_t i = 0; i < sizeof from_tokyo / sizeof from_tokyo[0]; i++) {
        int there = city(from_tokyo[i].city);
        struct topo_rtt got = topo_sites(t, here, there);
        ck_assert_int_eq(got.source, TOPO_TOPOLOGY);
        ck_assert_msg(fabs((double)got.rtt_us - from_tokyo[i].rtt_ms * 1000) <= 1,
                      "%s: %" PRId64 " us", from_tokyo[i].city, got.rtt_us);
        ck_assert_int_eq(got.rtt_us, topo_sites(t, there, here).rtt_us);
        ck_assert_int_eq(got.confidence_ppm, TOPO_CONFIDENCE_FIBRE_PPM);
        /* Published lengths are round: one microsecond below the circle at most. */
        ck_assert_int_ge(
            got.rtt_us,
            topo_floor_us(tokyo, (struct topo_place){cities[there].lat,
                                                     cities[there].lon, true}) -
                50);
    }
    ck_assert_int_eq(topo_sites(t, here, here).rtt_us, 0);

    /* The line through Nagoya is cut: by Hachioji and Nagano it is longer. */
    topo_unlink(t, city("Nagoya"), here);
    ck_assert_int_eq(topo_sites(t, here, city("Nagoya")).rtt_us, 3587);
    topo_relink(t);
    ck_assert_int_eq(topo_sites(t, here, city("Nagoya")).rtt_us,
                     (int64_t)ceil((47.4 + 250.7 + 250.8) * 9.8 - 1e-6));
    /* Without any fibre to it a city keeps the great circle. */
    topo_unlink(t, city("Sapporo"), city("Sendai"));
    topo_unlink(t, city("Sapporo"), city("Hachioji"));
    topo_relink(t);
    struct topo_place sapporo = {43.075, 141.34, true}, at = {35.68, 139.77, true};
    struct topo_rtt got = topo_sites(t, here, city("Sapporo"));
    ck_assert_int_eq(got.rtt_us, topo_estimate_us(at, sapporo));
    ck_assert_int_eq(got.confidence_ppm, TOPO_CONFIDENCE_CIRCLE_PPM);
    ck_assert_int_eq(topo_sites(t, here, 99).source, TOPO_UNKNOWN);
    ck_assert_int_eq(topo_sites(t, -1, here).source, TOPO_UNKNOWN);
    topo_free(t);
}
END_TEST

START_TEST(test_links_refused)
{
    struct topo *t = japan();
    struct err err;
    int a = city("Tokyo"), b = city("Hakata");
    ck_assert_int_eq(topo_link(t, a, b, 800, &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "shorter than"));
    ck_assert_int_eq(topo_link(t, a, a, 800, &err), -1);
    ck_assert_int_eq(topo_link(t, a, -1, 800, &err), -1);
    ck_assert_int_eq(topo_link(t, a, b, 0, &err), -1);
    ck_assert_int_eq(topo_link(t, a, b, NAN, &err), -1);
    ck_assert_int_eq(topo_link(t, a, b, 1e9, &err), -1);
    ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
    topo_relink(t);
    ck_assert_int_eq(topo_sites(t, a, b).rtt_us, 11515); /* as it was, rounded up */
    topo_free(t);
    t = topo_new();
    topo_relink(t);
    topo_unlink(t, 0, 1);
    topo_free(t);
}
END_TEST

/* The operator answers for 11.6 ms; 5 ms would beat light. */
START_TEST(test_declared_between_sites)
{
    struct topo *t = japan();
    int a = city("Tokyo"), b = city("Hakata");
    topo_declare_sites(t, a, b, 11600, 77);
    struct topo_rtt got = topo_sites(t, b, a);
    ck_assert_int_eq(got.source, TOPO_DECLARED);
    ck_assert_int_eq(got.rtt_us, 11600);
    ck_assert_int_eq(got.at_us, 77);
    topo_declare_sites(t, b, a, 5000, 78);
    ck_assert_int_eq(topo_sites(t, a, b).source, TOPO_TOPOLOGY);
    topo_declare_sites(t, a, b, 11700, 79);
    ck_assert_int_eq(topo_sites(t, b, a).rtt_us, 11700);
    topo_declare_sites(t, a, b, 0, 80);
    ck_assert_int_eq(topo_sites(t, a, b).source, TOPO_TOPOLOGY);
    /* Sites without a place: believed until one is known. */
    topo_declare_sites(t, 40, 41, 100, 81);
    ck_assert_int_eq(topo_sites(t, 41, 40).rtt_us, 100);
    topo_set_site(t, 40, tokyo);
    topo_set_site(t, 41, osaka);
    ck_assert_int_eq(topo_sites(t, 41, 40).source, TOPO_TOPOLOGY);
    ck_assert_int_eq(topo_sites(t, 41, 40).rtt_us, topo_estimate_us(tokyo, osaka));
    topo_free(t);
}
END_TEST

/* What stands at a site has its place, its paths and its fibre. */
START_TEST(test_data_at_a_site)
{
    struct topo *t = japan();
    struct err err;
    int far = city("Hakata"), home = city("Tokyo");
    topo_set_data_site(t, 3, home);
    ck_assert_int_eq(topo_rtt(t, far, 3, 0).rtt_us, 11515);
    ck_assert_int_eq(topo_rtt(t, home, 3, 0).rtt_us, 0);
    topo_declare_sites(t, home, far, 11600, 5);
    ck_assert_int_eq(topo_rtt(t, far, 3, 0).source, TOPO_DECLARED);
    /* A fresh measurement knows better, an old one gives way to who answers for it. */
    struct topo_rtt m = {
        .rtt_us = 12100, .min_us = 11900, .count = 20, .at_us = MINUTE};
    ck_assert_int_eq(topo_measured(t, far, 3, &m, &err), 0);
    ck_assert_int_eq(topo_rtt(t, far, 3, 2 * MINUTE).rtt_us, 12100);
    ck_assert_int_eq(topo_rtt(t, far, 3, 60 * MINUTE).rtt_us, 11600);
    /* What is declared for this very data set goes before its site's path. */
    topo_declared(t, far, 3, 11650, 6);
    ck_assert_int_eq(topo_rtt(t, far, 3, 60 * MINUTE).rtt_us, 11650);
    topo_declared(t, far, 3, 0, 7);
    topo_declare_sites(t, home, far, 0, 7);
    ck_assert_int_eq(topo_rtt(t, far, 3, 60 * MINUTE).rtt_us, 12100);
    /* The light floor is that of the site's place, and follows it. */
    m.min_us = 500;
    ck_assert_int_eq(topo_measured(t, far, 3, &m, &err), -1);
    topo_set_site(t, home, (struct topo_place){43.075, 141.34, true});
    ck_assert_int_eq(topo_rtt(t, far, 3, MINUTE).source, TOPO_TOPOLOGY);
    topo_set_site(t, home, tokyo);
    ck_assert_int_eq(topo_rtt(t, far, 3, MINUTE).source, TOPO_MEASURED);
    /* It moves out. */
    topo_set_data(t, 3, osaka);
    ck_assert_int_eq(topo_rtt(t, home, 3, MINUTE).rtt_us,
                     topo_estimate_us(tokyo, osaka));
    topo_free(t);
}
END_TEST

/* ---- doubtful places ---- */

static void measure_min(struct topo *t, int site, int data, int64_t min_us)
{
    struct topo_rtt m = {
        .rtt_us = min_us + 500, .min_us = min_us, .count = 20, .at_us = 1};
    ck_assert_int_eq(topo_measured(t, site, data, &m, NULL), 0);
}

START_TEST(test_places)
{
    struct topo *t = topo_new();
    struct topo_doubt d;
    struct topo_place yokohama = {35.444, 139.638, true};
    topo_set_site(t, 0, tokyo);
    topo_set_data(t, 0, osaka);
    topo_set_data(t, 1, yokohama);
    measure_min(t, 0, 0, 60000); /* too far to tell anything */
    ck_assert(!topo_place_contradicted(t, 0, &d));
    ck_assert_int_eq(d.verdict, TOPO_PLACE_UNTESTED);
    measure_min(t, 0, 1, 30000);
    ck_assert(topo_place_contradicted(t, 0, &d));
    ck_assert_int_eq(d.verdict, TOPO_PLACE_SUSPICIOUS);
    ck_assert_int_eq(d.data, 1);
    ck_assert_int_eq(d.measured_us, 30000);
    ck_assert_int_eq(d.expected_us, topo_estimate_us(tokyo, yokohama));
    /* The bound: four times the estimate and 10 ms. */
    int64_t bound = 4 * topo_estimate_us(tokyo, yokohama) + 10000;
    measure_min(t, 0, 1, bound + 1);
    ck_assert(topo_place_contradicted(t, 0, NULL));
    measure_min(t, 0, 1, bound);
    ck_assert(!topo_place_contradicted(t, 0, &d));
    ck_assert_int_eq(d.verdict, TOPO_PLACE_SUPPORTED);
    /* One that is near vouches for the place: the other line is just bad. */
    measure_min(t, 0, 1, 30000);
    topo_set_data(t, 2, yokohama);
    measure_min(t, 0, 2, 2000);
    ck_assert(!topo_place_contradicted(t, 0, &d));
    ck_assert_int_eq(d.contradicting, 1);
    ck_assert_int_eq(d.supporting, 1);
    topo_free(t);
}
END_TEST

START_TEST(test_places_explained)
{
    struct topo *t = topo_new();
    struct topo_doubt d;
    topo_set_site(t, 0, tokyo);
    topo_set_site(t, 1, tokyo);
    topo_set_data_site(t, 0, 1);
    measure_min(t, 0, 0, 30000);
    ck_assert(topo_place_contradicted(t, 0, &d));
    topo_declare_sites(t, 0, 1, 14000, 1);
    ck_assert(topo_place_contradicted(t, 0, &d)); /* not half of it */
    topo_declare_sites(t, 0, 1, 15000, 1);
    ck_assert(!topo_place_contradicted(t, 0, &d));
    topo_declare_sites(t, 0, 1, 0, 1);
    topo_declared(t, 0, 0, 20000, 1);
    ck_assert(!topo_place_contradicted(t, 0, &d));
    topo_declared(t, 0, 0, 0, 1);
    /* The only fibre goes by Osaka: 1,000 km, 9.8 ms. */
    topo_set_site(t, 2, osaka);
    ck_assert_int_eq(topo_link(t, 0, 2, 500, NULL), 0);
    ck_assert_int_eq(topo_link(t, 2, 1, 500, NULL), 0);
    topo_relink(t);
    ck_assert(!topo_place_contradicted(t, 0, &d));
    /* Light is proof, whatever explains. */
    topo_set_site(t, 1, fukuoka);
    ck_assert(!topo_place_contradicted(t, 0, &d));
    ck_assert_int_eq(d.verdict, TOPO_PLACE_UNTESTED);
    topo_set_site(t, 1, (struct topo_place){-33.9, 151.2, true});
    ck_assert(topo_place_contradicted(t, 0, &d));
    ck_assert_int_eq(d.verdict, TOPO_PLACE_IMPOSSIBLE);
    ck_assert_str_eq(topo_verdict_name(d.verdict), "impossible");
    ck_assert_int_gt(d.expected_us, 70000);
    topo_free(t);
}
END_TEST

/* ---- who probes ---- */

#define NODES 100
#define SETS  3000

START_TEST(test_probers_spread)
{
    int64_t nodes[NODES], back[NODES], ret[3], again[3];
    int work[NODES] = {0};
    for (int i = 0; i < NODES; i++) {
        nodes[i] = 1000 + i; /* ids of a database are neighbours */
        back[NODES - 1 - i] = nodes[i];
    }
    for (int data = 0; data < SETS; data++) {
        ck_assert_uint_eq(topo_probe_elect(nodes, NODES, data, 3, ret), 3);
        ck_assert_uint_eq(topo_probe_elect(back, NODES, data, 3, again), 3);
        ck_assert_mem_eq(ret, again, sizeof ret);
        ck_assert(ret[0] != ret[1] && ret[1] != ret[2] && ret[0] != ret[2]);
        for (int k = 0; k < 3; k++) {
            work[ret[k] - 1000]++;
        }
    }
    /* 90 each on average, standard deviation 9.3: five of them. */
    for (int i = 0; i < NODES; i++) {
        ck_assert_msg(work[i] > 43 && work[i] < 137, "node %d: %d", i, work[i]);
    }
    ck_assert_uint_eq(topo_probe_elect(nodes, 2, 7, 3, ret), 2);
    ck_assert_uint_eq(topo_probe_elect(nodes, 0, 7, 3, ret), 0);
    ck_assert_uint_eq(topo_probe_elect(nodes, NODES, 7, 0, ret), 0);
}
END_TEST

/* A node that goes is replaced where it probed, and nothing else changes. */
START_TEST(test_probers_are_stable)
{
    int64_t nodes[NODES];
    int changed = 0;
    for (int i = 0; i < NODES; i++) {
        nodes[i] = 5000 + i;
    }
    for (int data = 0; data < 500; data++) {
        struct topo_election all, less;
        int gone = data % NODES, kept = 0;
        topo_elect_begin(&all, data, TOPO_PROBERS);
        topo_elect_begin(&less, data, TOPO_PROBERS);
        for (int i = 0; i < NODES; i++) {
            topo_elect_offer(&all, nodes[i]);
            if (i != gone) {
                topo_elect_offer(&less, nodes[i]);
            }
        }
        ck_assert_int_eq(less.count, TOPO_PROBERS);
        for (int k = 0; k < TOPO_PROBERS; k++) {
            kept += topo_elected(&less, all.node[k]);
        }
        bool was = topo_elected(&all, nodes[gone]);
        ck_assert_int_eq(kept, was ? TOPO_PROBERS - 1 : TOPO_PROBERS);
        ck_assert(!topo_elected(&less, nodes[gone]));
        changed += was;
    }
    /* 500 x 3/100 expected. */
    ck_assert_int_gt(changed, 3);
    ck_assert_int_lt(changed, 40);
}
END_TEST

UNIT_MAIN("topo",
          UNIT_CASE(test_great_circle) UNIT_CASE(test_best_source_wins)
              UNIT_CASE(test_faster_than_light_is_refused) UNIT_CASE(test_tables_grow)
                  UNIT_CASE(test_confidence) UNIT_CASE(test_drift) UNIT_CASE(test_fibre)
                      UNIT_CASE(test_links_refused)
                          UNIT_CASE(test_declared_between_sites)
                              UNIT_CASE(test_data_at_a_site) UNIT_CASE(test_places)
                                  UNIT_CASE(test_places_explained)
                                      UNIT_CASE(test_probers_spread)
                                          UNIT_CASE(test_probers_are_stable))
