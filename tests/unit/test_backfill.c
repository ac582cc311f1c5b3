/* backfill: the queue's order, who may overtake whom, what shadows block and where. */
#include <string.h>

#include "client/lib/timefmt.h"
#include "server/core/backfill.h"
#include "tests/unit/unit.h"

#define NOW    INT64_C(1795392000000000) /* 2026-11-23T00:00:00Z */
#define HOUR   US_PER_HOUR
#define DAY    (24 * HOUR)
#define ORDERS 4
#define SHADOW INT64_C(-1000000)

enum { CHEAP, DEAR };

/* One node of 8 GPUs at each of two sites. */
static struct rig {
    struct calendar *cal, *firm, *lanes;
    struct topo *topo;
    struct match_offer offers[2];
    struct match_path path;
    struct match_paths paths;
    struct match_market market;
    struct backfill b;
    struct backfill_order orders[ORDERS];
    struct match_plan plans[ORDERS];
    struct backfill_place places[ORDERS];
} r;

static void setup(void)
{
    static const char *const sites[] = {"chiba", "tokyo"};
    memset(&r, 0, sizeof(r));
    r.cal = calendar_new();
    r.firm = calendar_new();
    r.lanes = calendar_new();
    r.topo = topo_new();
    for (int i = 0; i < 2; i++) {
        struct calendar_node n = {.site = i, .model = i, .gpus = 8, .offered = 0xff};
        calendar_set_node(r.cal, i, &n);
        calendar_set_node(r.firm, i, &n);
        r.offers[i] = (struct match_offer){.site = i,
                                           .model = i,
                                           .site_name = sites[i],
                                           .provider_name = "acme",
                                           .gpu_model = "NVIDIA H100 80GB HBM3",
                                           .residency = "jp",
                                           .price_micro = (1 + i) * 100 * MATCH_PPM,
                                           .spot_price_micro = (1 + i) * 50 * MATCH_PPM,
                                           .notice_us = 120 * US_PER_S,
                                           .gpu_memory_mib = 81559,
                                           .up = true};
    }
    r.path = (struct match_path){.from_site = CHEAP,
                                 .to_site = DEAR,
                                 .lanes = 2,
                                 .lane_Bps = 1250000000,
                                 .price_micro = MATCH_PPM,
                                 .setup_us = HOUR,
                                 .lossless = true,
                                 .up = true};
    struct calendar_node lane = {.gpus = 2, .offered = 3};
    calendar_set_node(r.lanes, 0, &lane);
    r.paths = (struct match_paths){&r.path, 1, r.lanes};
    r.market = (struct match_market){.calendar = r.cal,
                                     .topo = r.topo,
                                     .offers = r.offers,
                                     .offer_count = 1,
                                     .paths = &r.paths};
    r.b = (struct backfill){.market = &r.market,
                            .calendar = r.cal,
                            .lanes = r.lanes,
                            .firm = r.firm,
                            .first_id = SHADOW};
    for (int i = 0; i < ORDERS; i++) {
        r.places[i].plan = &r.plans[i];
        r.orders[i].id = i + 1;
        r.orders[i].query = (struct match_query){.gpus = 8,
                                                 .len_us = HOUR,
                                                 .from_us = NOW,
                                                 .latest_us = NOW + 7 * DAY,
                                                 .now_us = NOW};
    }
}

static void teardown(void)
{
    calendar_free(r.cal);
    calendar_free(r.firm);
    calendar_free(r.lanes);
    topo_free(r.topo);
}

static void order(int i, int gpus, int64_t hours)
{
    r.orders[i].query.gpus = gpus;
    r.orders[i].query.len_us = hours * HOUR;
}

static void expect_start(int i, int64_t hours)
{
    ck_assert_msg(r.places[i].why == MATCH_OK, "order %d: %s", i,
                  match_why_name(r.places[i].why));
    ck_assert_msg(r.plans[i].start_us == NOW + hours * HOUR, "order %d: %f h", i,
                  (double)(r.plans[i].start_us - NOW) / (double)HOUR);
}

START_TEST(test_order_of_the_queue)
{
    struct backfill_order a = {.id = 2, .priority = 1, .since_us = 5}, b = a;
    ck_assert_int_eq(backfill_compare(&a, &b), 0);
    b.id = 3;
    ck_assert_int_lt(backfill_compare(&a, &b), 0);
    b.since_us = 4;
    ck_assert_int_gt(backfill_compare(&a, &b), 0);
    b.priority = 0;
    ck_assert_int_lt(backfill_compare(&a, &b), 0);
    ck_assert_int_gt(backfill_compare(&b, &a), 0);
}
END_TEST

/* Half of the node is busy for two hours. The first waits for it; what is small and
 * short goes before it, what is small and long would delay it and does not. */
START_TEST(test_small_ones_overtake_only_without_harm)
{
    setup();
    calendar_book(r.cal, 1, 0, 0, 4, NOW, NOW + 2 * HOUR);
    order(0, 8, 1);
    order(1, 4, 3);
    order(2, 4, 2);
    order(3, 1, 1);
    backfill_plan(&r.b, r.orders, ORDERS, r.places);
    expect_start(0, 2);
    expect_start(1, 3);
    expect_start(2, 0);
    expect_start(3, 3); /* the third has the other half until the first begins */
    teardown();
}
END_TEST

/* The cheap place is free in a day, the dear one in an hour: that one, unless it is
 * beyond the order's bounds. At equal starts the cheap one. */
START_TEST(test_earliest_first_then_cheapest)
{
    setup();
    r.market.offer_count = 2;
    calendar_book(r.cal, 1, CHEAP, 0, 8, NOW, NOW + DAY);
    calendar_book(r.cal, 2, DEAR, 0, 8, NOW, NOW + HOUR);
    order(0, 8, 1);
    order(1, 8, 1);
    order(2, 8, 30);
    order(3, 8, 1);
    r.orders[1].query.max_price_micro = 150 * MATCH_PPM;
    r.orders[3].query.from_us = NOW + 60 * HOUR;
    backfill_plan(&r.b, r.orders, ORDERS, r.places);
    expect_start(0, 1);
    ck_assert_int_eq(r.plans[0].slots[0].offer, DEAR);
    expect_start(1, 24);
    ck_assert_int_eq(r.plans[1].slots[0].offer, CHEAP);
    expect_start(2, 2);
    ck_assert_int_eq(r.plans[2].slots[0].offer, DEAR);
    expect_start(3, 60);
    ck_assert_int_eq(r.plans[3].slots[0].offer, CHEAP);
    teardown();
}
END_TEST

START_TEST(test_no_place_takes_nothing)
{
    setup();
    order(0, 9, 1);
    order(1, 8, 1);
    order(2, 8, 1);
    order(3, 8, 1);
    r.orders[2].query.latest_us = NOW + HOUR - 1; /* the second is there until NOW+1h */
    backfill_plan(&r.b, r.orders, ORDERS, r.places);
    ck_assert_int_ne(r.places[0].why, MATCH_OK);
    expect_start(1, 0);
    ck_assert_int_eq(r.places[2].why, MATCH_BUSY);
    expect_start(3, 1);
    ck_assert_int_eq(r.b.shadow_count, 2);
    teardown();
}
END_TEST

/* Shadows block newcomers, go when planned anew, and firm demand passes over those of
 * spot orders. */
START_TEST(test_shadows)
{
    setup();
    order(0, 8, 1);
    order(1, 4, 1);
    r.orders[1].query.spot = true;
    backfill_plan(&r.b, r.orders, 2, r.places);
    expect_start(0, 0);
    expect_start(1, 1);
    ck_assert_int_eq(r.plans[1].per_hour_micro, 4 * 50 * MATCH_PPM);
    ck_assert_uint_eq(calendar_booking_count(r.cal), 2);
    ck_assert_uint_eq(calendar_booking_count(r.firm), 1);
    ck_assert_uint_eq(calendar_free_mask(r.cal, 0, NOW, NOW + HOUR), 0);
    ck_assert_uint_eq(calendar_free_mask(r.firm, 0, NOW, NOW + HOUR), 0);
    ck_assert_uint_eq(calendar_free_mask(r.cal, 0, NOW + HOUR, NOW + 2 * HOUR), 0xf0);
    ck_assert_uint_eq(calendar_free_mask(r.firm, 0, NOW + HOUR, NOW + 2 * HOUR), 0xff);
    backfill_plan(&r.b, r.orders, 1, r.places);
    expect_start(0, 0);
    ck_assert_uint_eq(calendar_booking_count(r.cal), 1);
    backfill_clear(&r.b);
    ck_assert_uint_eq(calendar_booking_count(r.cal), 0);
    ck_assert_uint_eq(calendar_booking_count(r.firm), 0);
    ck_assert_int_eq(r.b.shadow_count, 0);
    teardown();
}
END_TEST

/* Both lanes are booked with the GPUs, from the set-up on; the next order waits for
 * lanes though there are GPUs. */
START_TEST(test_lanes_have_shadows)
{
    static const int data[] = {0}, there[] = {DEAR};
    setup();
    for (int i = 0; i < 2; i++) {
        struct match_query *q = &r.orders[i].query;
        order(i, 2, 2);
        q->data = data;
        q->data_site = there;
        q->data_count = 1;
        q->bandwidth_Bps = 2500000000;
    }
    backfill_plan(&r.b, r.orders, 2, r.places);
    expect_start(0, 1);
    ck_assert_int_eq(r.plans[0].lanes_count, 1);
    expect_start(1, 4); /* set-up begins when the first one's lease ends */
    ck_assert_uint_eq(calendar_booking_count(r.lanes), 2);
    ck_assert_uint_eq(calendar_free_mask(r.lanes, 0, NOW, NOW + 1), 0);
    ck_assert_uint_eq(calendar_free_mask(r.lanes, 0, NOW + 6 * HOUR, NOW + 7 * HOUR),
                      3);
    backfill_clear(&r.b);
    ck_assert_uint_eq(calendar_booking_count(r.lanes), 0);
    teardown();
}
END_TEST

/* All or nothing, and not from the one node that would do for one of them. */
START_TEST(test_gang_waits_for_all_its_nodes)
{
    setup();
    struct calendar_node n = {.site = 0, .model = 0, .gpus = 8, .offered = 0xff};
    calendar_set_node(r.cal, 2, &n);
    calendar_book(r.cal, 1, 2, 0, 1, NOW, NOW + 3 * HOUR);
    order(0, 8, 1);
    r.orders[0].query.nodes = 2;
    order(1, 8, 2);
    order(2, 8, 4);
    backfill_plan(&r.b, r.orders, 3, r.places);
    expect_start(0, 3);
    ck_assert_int_eq(r.plans[0].slot_count, 2);
    expect_start(1, 0);
    expect_start(2, 4);
    ck_assert_int_eq(r.b.shadow_count, 4);
    teardown();
}
END_TEST

UNIT_MAIN("backfill",
          UNIT_CASE(test_order_of_the_queue)
              UNIT_CASE(test_small_ones_overtake_only_without_harm)
                  UNIT_CASE(test_earliest_first_then_cheapest)
                      UNIT_CASE(test_no_place_takes_nothing) UNIT_CASE(test_shadows)
                          UNIT_CASE(test_lanes_have_shadows)
                              UNIT_CASE(test_gang_waits_for_all_its_nodes))
