/* preempt: whom a firm request takes the GPUs from, when, and when from nobody. */
#include <string.h>

#include "client/lib/timefmt.h"
#include "server/core/preempt.h"
#include "tests/unit/unit.h"

#define NOW    INT64_C(1795392000000000) /* 2026-11-23T00:00:00Z */
#define HOUR   US_PER_HOUR
#define MINUTE (60 * US_PER_S)
#define YEN    MATCH_PPM
#define NODES  4
#define SPOTS  8

/* One site sells four nodes of 8 GPUs, two in each fabric domain. */
static struct rig {
    struct calendar *firm;
    struct topo *topo;
    struct match_offer offer;
    struct match_market market;
    struct preempt_spot spots[SPOTS];
    struct preempt_market m;
    struct match_query q;
    struct preempt_plan plan;
} r;

static void setup(void)
{
    memset(&r, 0, sizeof(r));
    r.firm = calendar_new();
    r.topo = topo_new();
    for (int i = 0; i < NODES; i++) {
        struct calendar_node n = {.domain = 1 + i / 2, .gpus = 8, .offered = 0xff};
        calendar_set_node(r.firm, i, &n);
    }
    r.offer = (struct match_offer){.site_name = "chiba",
                                   .provider_name = "acme",
                                   .gpu_model = "NVIDIA H100 80GB HBM3",
                                   .residency = "jp",
                                   .price_micro = 100 * YEN,
                                   .spot_price_micro = 50 * YEN,
                                   .notice_us = 2 * MINUTE,
                                   .gpu_memory_mib = 81559,
                                   .up = true};
    r.market = (struct match_market){
        .calendar = r.firm, .topo = r.topo, .offers = &r.offer, .offer_count = 1};
    r.m = (struct preempt_market){&r.market, r.firm, r.spots, 0};
    r.q = (struct match_query){.gpus = 8,
                               .len_us = HOUR,
                               .from_us = NOW + 5 * MINUTE,
                               .latest_us = NOW + 5 * MINUTE,
                               .now_us = NOW};
}

static void teardown(void)
{
    calendar_free(r.firm);
    topo_free(r.topo);
}

static struct preempt_spot *spot(int64_t reservation, int node, int first, int count)
{
    struct preempt_spot *s = &r.spots[r.m.spot_count++];
    *s = (struct preempt_spot){.reservation = reservation,
                               .node = node,
                               .first = first,
                               .count = count,
                               .from_us = NOW - HOUR,
                               .to_us = NOW + 8 * HOUR,
                               .per_gpu_hour_micro = 50 * YEN,
                               .notice_us = 2 * MINUTE};
    return s;
}

static void firm(int node, int first, int count, int64_t minutes)
{
    calendar_book(r.firm, (int64_t)calendar_booking_count(r.firm) + 1, node, first,
                  count, NOW - HOUR, NOW + minutes * MINUTE);
}

static void expect(enum match_why want)
{
    enum match_why got = preempt_find(&r.m, &r.q, &r.plan);
    ck_assert_msg(got == want, "%s, not %s", match_why_name(got), match_why_name(want));
}

static bool is_victim(int64_t reservation)
{
    for (size_t i = 0; i < r.plan.victim_count; i++) {
        if (r.plan.victims[i].reservation == reservation) {
            return true;
        }
    }
    return false;
}

START_TEST(test_least_work_is_lost)
{
    setup();
    spot(10, 0, 0, 8);
    spot(11, 1, 0, 8)->from_us = NOW - 30 * MINUTE; /* 200 yen of work: the least */
    spot(12, 2, 0, 8)->per_gpu_hour_micro = 30 * YEN;
    spot(13, 3, 0, 8);
    expect(MATCH_OK);
    ck_assert_uint_eq(r.plan.victim_count, 1);
    ck_assert_int_eq(r.plan.victims[0].reservation, 11);
    ck_assert_int_eq(r.plan.victims[0].cut_us, NOW + 5 * MINUTE);
    ck_assert_int_eq(r.plan.plan.slot_count, 1);
    ck_assert_int_eq(r.plan.plan.slots[0].node, 1);
    ck_assert_int_eq(r.plan.plan.start_us, NOW + 5 * MINUTE);
    ck_assert_int_eq(r.plan.plan.total_micro, 800 * YEN);
    ck_assert(!r.plan.plan.spot);
    teardown();
}
END_TEST

/* Of one node the run whose victims lose least: 150 yen of one, or 17 of another with
 * a GPU on either side that nobody has. */
START_TEST(test_run_within_a_node)
{
    setup();
    for (int i = 1; i < NODES; i++) {
        firm(i, 0, 8, 600);
    }
    firm(0, 7, 1, 600);
    spot(10, 0, 0, 3);
    spot(11, 0, 4, 2)->from_us = NOW - 10 * MINUTE;
    r.q.gpus = 3;
    expect(MATCH_OK);
    ck_assert_uint_eq(r.plan.victim_count, 1);
    ck_assert_int_eq(r.plan.victims[0].reservation, 11);
    ck_assert_int_eq(r.plan.plan.slots[0].first, 3);
    r.q.gpus = 4;
    expect(MATCH_OK);
    ck_assert_int_eq(r.plan.plan.slots[0].first, 3);
    r.q.gpus = 7;
    expect(MATCH_OK);
    ck_assert_uint_eq(r.plan.victim_count, 2);
    r.q.gpus = 8;
    expect(MATCH_BUSY);
    teardown();
}
END_TEST

/* Equal losses (none has begun): the one that begins last. */
START_TEST(test_latest_start_breaks_ties)
{
    setup();
    firm(0, 0, 8, 600);
    for (int i = 1; i < NODES; i++) {
        spot(10 + i, i, 0, 8)->from_us = NOW + (i == 2 ? 40 : 20) * MINUTE;
    }
    expect(MATCH_OK);
    ck_assert_int_eq(r.plan.plan.slots[0].node, 2);
    ck_assert_int_eq(r.plan.victims[0].cut_us, NOW + 5 * MINUTE);
    teardown();
}
END_TEST

START_TEST(test_notice_is_kept)
{
    setup();
    for (int i = 0; i < NODES; i++) {
        spot(10 + i, i, 0, 8)->notice_us = (i == 3 ? 4 : 10) * MINUTE;
        r.spots[i].from_us -= i * HOUR;
    }
    expect(MATCH_OK); /* it has run longest, but it alone can be out in time */
    ck_assert_int_eq(r.plan.victims[0].reservation, 13);
    r.q.from_us = r.q.latest_us = NOW + 3 * MINUTE;
    expect(MATCH_BUSY);
    r.q.latest_us = NOW + HOUR; /* a range: at the first notice's end */
    expect(MATCH_OK);
    ck_assert_int_eq(r.plan.plan.start_us, NOW + 4 * MINUTE);
    ck_assert_int_eq(r.plan.victims[0].cut_us, NOW + 4 * MINUTE);
    /* One of its bookings has a longer notice: then the reservation has. */
    spot(13, 0, 0, 1)->notice_us = 30 * MINUTE;
    expect(MATCH_OK);
    ck_assert_int_eq(r.plan.plan.start_us, NOW + 10 * MINUTE);
    ck_assert(!is_victim(13));
    teardown();
}
END_TEST

/* A range: what is firm is waited for. */
START_TEST(test_firm_is_left_alone)
{
    setup();
    for (int i = 0; i < NODES; i++) {
        firm(i, i, 1, 60 + 10 * i);
        spot(10 + i, i, 0, 8);
    }
    expect(MATCH_BUSY);
    r.q.latest_us = NOW + 2 * HOUR;
    expect(MATCH_OK);
    ck_assert_int_eq(r.plan.plan.start_us, NOW + HOUR);
    ck_assert_int_eq(r.plan.plan.slots[0].node, 0);
    ck_assert_int_eq(r.plan.victims[0].cut_us, NOW + HOUR);
    r.q.max_price_micro = 99 * YEN;
    expect(MATCH_TOO_DEAR);
    r.q.max_price_micro = 0;
    r.q.max_total_micro = 799 * YEN;
    expect(MATCH_OVER_BUDGET);
    teardown();
}
END_TEST

/* Two of three nodes. Two leases that ran an hour cost 400 yen each; a gang on both
 * other nodes ran 50 minutes: each of its nodes alone costs 667, both no more. */
START_TEST(test_gang_is_lost_once)
{
    setup();
    spot(10, 0, 0, 8);
    spot(11, 1, 0, 8);
    spot(12, 2, 0, 8)->from_us = NOW - 50 * MINUTE;
    spot(12, 3, 0, 8)->from_us = NOW - 50 * MINUTE;
    r.q.nodes = 2;
    expect(MATCH_OK);
    ck_assert_uint_eq(r.plan.victim_count, 1);
    ck_assert_int_eq(r.plan.victims[0].reservation, 12);
    ck_assert_int_eq(r.plan.plan.slot_count, 2);
    ck_assert_int_eq(r.plan.plan.slots[0].node + r.plan.plan.slots[1].node, 5);
    r.q.nodes = 1;
    expect(MATCH_OK);
    ck_assert(!is_victim(12));
    r.q.nodes = 3;
    expect(MATCH_OK);
    ck_assert_uint_eq(r.plan.victim_count, 2);
    r.q.nodes = 5;
    expect(MATCH_BUSY);
    teardown();
}
END_TEST

/* Nodes 1 and 2 are the cheapest to clear, but of different domains. */
START_TEST(test_one_domain)
{
    setup();
    for (int i = 0; i < NODES; i++) {
        spot(10 + i, i, 0, 8)->from_us = NOW - (i == 1 || i == 2 ? 1 : 60) * MINUTE;
    }
    r.spots[3].from_us = NOW - 50 * MINUTE;
    r.q.nodes = 2;
    expect(MATCH_OK);
    ck_assert(is_victim(11) && is_victim(12));
    r.q.together = MATCH_DOMAIN;
    expect(MATCH_OK);
    ck_assert(is_victim(12) && is_victim(13));
    r.m.spot_count = 2; /* the second domain holds no spot booking: nobody is hurt */
    expect(MATCH_OK);
    ck_assert_uint_eq(r.plan.victim_count, 0);
    r.q.nodes = 3;
    expect(MATCH_BUSY);
    teardown();
}
END_TEST

START_TEST(test_what_is_not_served)
{
    setup();
    spot(10, 0, 0, 8);
    r.q.spot = true;
    expect(MATCH_BUSY);
    r.q.spot = false;
    r.q.bandwidth_Bps = 1;
    expect(MATCH_BUSY);
    r.q.bandwidth_Bps = 0;
    r.q.federated = true;
    expect(MATCH_BUSY);
    r.q.federated = false;
    r.q.together = MATCH_ANY;
    expect(MATCH_OK);
    r.q.nodes = 2;
    expect(MATCH_BUSY);
    r.q.nodes = 65;
    r.q.together = MATCH_SITE;
    expect(MATCH_BUSY);
    teardown();
}
END_TEST

UNIT_MAIN("preempt",
          UNIT_CASE(test_least_work_is_lost) UNIT_CASE(test_run_within_a_node)
              UNIT_CASE(test_latest_start_breaks_ties) UNIT_CASE(test_notice_is_kept)
                  UNIT_CASE(test_firm_is_left_alone) UNIT_CASE(test_gang_is_lost_once)
                      UNIT_CASE(test_one_domain) UNIT_CASE(test_what_is_not_served))
