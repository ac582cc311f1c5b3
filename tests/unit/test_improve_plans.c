/* test_improve_plans: random waiting lists, planned and then improved: starts and
 * bounds hold, plans say what match_at() says of their offers, shadows stand where
 * plans say and vanish with backfill_clear(); gangs and those without a place stay. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "server/core/improve.h"
#include "tests/unit/unit.h"

#define SITES  4
#define NODES  10
#define GPUS   4
#define ORDERS 24

struct rig {
    struct match_offer offers[SITES];
    struct calendar *calendar, *firm, *empty;
    struct topo *topo;
    struct match_market market;
    struct backfill planner;
    struct backfill_order orders[ORDERS];
    struct backfill_place places[ORDERS];
    struct match_plan plans[ORDERS], before[ORDERS];
    int data[ORDERS];
};
static struct rig r;
static uint64_t rng;

static int below(int n)
{
    rng = rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int)((rng >> 33) % (unsigned)n);
}

static void make_market(void)
{
    memset(&r, 0, sizeof r);
    r.calendar = calendar_new();
    r.firm = calendar_new();
    r.empty = calendar_new();
    r.topo = topo_new();
    for (int i = 0; i < SITES; i++) {
        r.offers[i] = (struct match_offer){.site = i,
                                           .model = i,
                                           .site_name = "",
                                           .provider_name = "",
                                           .gpu_model = "H100",
                                           .residency = i == 0 ? "us" : "jp",
                                           .price_micro = 1000000 + below(2000000),
                                           .spot_price_micro = 500000,
                                           .notice_us = 1000000,
                                           .up = true};
        for (int d = 0; d < SITES; d++) {
            topo_declared(r.topo, i, d, 100 + below(30000), 0);
        }
    }
    for (int n = 0; n < NODES; n++) {
        struct calendar_node node = {.site = n % SITES,
                                     .model = n % SITES,
                                     .gpus = GPUS,
                                     .offered = (1u << GPUS) - 1};
        calendar_set_node(r.calendar, n, &node);
        calendar_set_node(r.firm, n, &node);
        calendar_set_node(r.empty, n, &node);
    }
    r.market = (struct match_market){.calendar = r.calendar,
                                     .topo = r.topo,
                                     .offers = r.offers,
                                     .offer_count = SITES};
    r.planner = (struct backfill){
        .market = &r.market, .calendar = r.calendar, .firm = r.firm, .first_id = -100};
}

static void make_orders(void)
{
    for (int i = 0; i < ORDERS; i++) {
        r.data[i] = below(SITES);
        r.orders[i] = (struct backfill_order){
            .id = i + 1,
            .since_us = i,
            .query = {.gpus = 1 + below(GPUS),
                      .len_us = (1 + below(5)) * INT64_C(3600000000),
                      .latest_us = below(3) * INT64_C(3600000000),
                      .data = &r.data[i],
                      .data_count = 1,
                      .nodes = below(8) == 0 ? 2 : 1,
                      .residency = below(4) == 0 ? "jp" : NULL,
                      .max_effective_micro =
                          below(4) == 0 ? 1000000 + below(30000000) : 0,
                      .spot = below(6) == 0,
                      .profile = below(3) ? slowdown_find("resnet50_h100") : NULL,
                      .spread = (uint32_t)i}};
        r.places[i] = (struct backfill_place){.plan = &r.plans[i]};
    }
}

/* What a server would be told of that offer with nothing else in the way. */
static void check_plan(int i, int64_t max_rise_ppm)
{
    static struct match_plan alone;
    const struct match_plan *is = &r.plans[i], *was = &r.before[i];
    struct match_query q = r.orders[i].query;
    struct match_market market = r.market;
    q.from_us = q.latest_us = is->start_us;
    market.calendar = r.empty;
    ck_assert_int_eq(match_at(&market, &q, is->slots[0].offer, &alone), MATCH_OK);
    ck_assert_int_eq(is->start_us, was->start_us);
    ck_assert_int_eq(is->len_us, was->len_us);
    ck_assert_int_eq(is->slot_count, was->slot_count);
    ck_assert_int_eq(is->effective_micro, alone.effective_micro);
    ck_assert_int_eq(is->total_micro, alone.total_micro);
    ck_assert_int_eq(is->per_hour_micro, alone.per_hour_micro);
    ck_assert_int_eq(is->slowdown_ppm, alone.slowdown_ppm);
    ck_assert_int_eq(is->groups[0].site, alone.groups[0].site);
    ck_assert_int_eq(is->groups[0].rtt.rtt_us, alone.groups[0].rtt.rtt_us);
    ck_assert_int_eq(is->groups[0].slowdown_ppm, alone.groups[0].slowdown_ppm);
    ck_assert((is->effective_micro - was->effective_micro) * MATCH_PPM <=
              was->effective_micro * max_rise_ppm);
    for (int k = 0; k < is->slot_count; k++) {
        const struct match_slot *s = &is->slots[k];
        uint64_t mine = ((UINT64_C(1) << is->gpus) - 1) << s->first;
        int64_t end_us = is->start_us + is->len_us;
        ck_assert_int_eq(s->node % SITES, r.offers[s->offer].site);
        ck_assert((calendar_free_mask(r.calendar, s->node, is->start_us, end_us) &
                   mine) == 0);
        uint64_t firm = calendar_free_mask(r.firm, s->node, is->start_us, end_us);
        ck_assert(is->spot || (firm & mine) == 0);
        for (int j = 0; j < i; j++) {
            for (int l = 0; r.places[j].why == MATCH_OK && l < r.plans[j].slot_count;
                 l++) {
                const struct match_slot *o = &r.plans[j].slots[l];
                uint64_t theirs = ((UINT64_C(1) << r.plans[j].gpus) - 1) << o->first;
                ck_assert_msg(o->node != s->node || (mine & theirs) == 0 ||
                                  r.plans[j].start_us >= end_us ||
                                  is->start_us >=
                                      r.plans[j].start_us + r.plans[j].len_us,
                              "orders %d and %d collide", i, j);
            }
        }
    }
}

START_TEST(plans_stay_plans)
{
    const char *given = getenv("NEARGPU_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    int64_t all_saved = 0;
    printf("seed %" PRIu64 "\n", seed);
    rng = seed;
    for (int round = 0; round < 100; round++) {
        struct improve_limits limits = {300, below(2) ? IMPROVE_RISE_PPM : 2000000,
                                        seed + (uint64_t)round};
        int64_t was = 0, is = 0;
        enum match_why why[ORDERS];
        make_market();
        make_orders();
        backfill_plan(&r.planner, r.orders, ORDERS, r.places);
        memcpy(r.before, r.plans, sizeof r.before);
        size_t booked = calendar_booking_count(r.calendar);
        size_t firm = calendar_booking_count(r.firm);
        for (int i = 0; i < ORDERS; i++) {
            why[i] = r.places[i].why;
        }
        int64_t saved = improve_plans(&r.planner, r.orders, ORDERS, r.places, &limits);
        for (int i = 0; i < ORDERS; i++) {
            ck_assert_int_eq(r.places[i].why, why[i]);
            if (why[i] == MATCH_OK) {
                check_plan(i, limits.max_rise_ppm);
                was += r.before[i].effective_micro;
                is += r.plans[i].effective_micro;
            }
        }
        ck_assert_int_eq(saved, was - is);
        all_saved += saved;
        ck_assert_uint_eq(calendar_booking_count(r.calendar), booked);
        ck_assert_uint_eq(calendar_booking_count(r.firm), firm);
        backfill_clear(&r.planner);
        ck_assert_uint_eq(calendar_booking_count(r.calendar), 0);
        ck_assert_uint_eq(calendar_booking_count(r.firm), 0);
        calendar_free(r.calendar);
        calendar_free(r.firm);
        calendar_free(r.empty);
        topo_free(r.topo);
    }
    ck_assert_int_gt(all_saved, 0);
}
END_TEST

UNIT_MAIN("improve_plans", UNIT_CASE(plans_stay_plans))
