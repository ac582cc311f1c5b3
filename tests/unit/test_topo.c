/* topo: distances, the light floor, and which source wins. */
#include <math.h>
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

UNIT_MAIN("topo",
          UNIT_CASE(test_great_circle) UNIT_CASE(test_best_source_wins)
              UNIT_CASE(test_faster_than_light_is_refused) UNIT_CASE(test_tables_grow))
