/* test_sim: room against a plain count at every instant; the facts of the loop over
 * places against match_best; draws. Whole runs are in tests/system/sim.sh. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/lib/xalloc.h"
#include "server/sim/choose.h"
#include "server/sim/room.h"
#include "tests/unit/unit.h"

static uint64_t rng;

static int below(int n)
{
    rng = sim_draw(rng, 1, 2);
    return (int)(rng % (unsigned)n);
}

static uint64_t seed_rng(void)
{
    const char *given = getenv("NEARGPU_SEED");
    rng = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    printf("seed %" PRIu64 "\n", rng);
    return rng;
}

/* ---- room ---- */

#define NODES 6
#define SPAN  90

struct model {
    struct sim_node nodes[NODES];
    int used[NODES][SPAN * 3]; /* GPUs taken during each unit of time */
};

static bool fits(const struct model *m, int node, const struct room_query *q, int at)
{
    for (int t = at; t < at + q->len_us; t++) {
        if (m->used[node][t] + q->gpus > m->nodes[node].gpus) {
            return false;
        }
    }
    return true;
}

/* Earliest start by asking every instant; -1: none. */
static int naive(const struct model *m, const struct room_query *q)
{
    for (int at = (int)q->from_us; at <= q->latest_us; at++) {
        int have = 0;
        for (int i = 0; i < NODES; i++) {
            bool is_of_place =
                m->nodes[i].site == q->site && m->nodes[i].model == q->model;
            have += is_of_place && fits(m, i, q, at);
        }
        if (have >= q->nodes) {
            return at;
        }
    }
    return -1;
}

static void check_found(const struct model *m, const struct room_query *q, int start,
                        const int *nodes)
{
    uint64_t seen = 0;
    for (int i = 0; i < q->nodes; i++) {
        ck_assert(m->nodes[nodes[i]].site == q->site &&
                  m->nodes[nodes[i]].model == q->model);
        ck_assert_msg((seen >> nodes[i] & 1) == 0, "node %d twice", nodes[i]);
        seen |= UINT64_C(1) << nodes[i];
        ck_assert_msg(fits(m, nodes[i], q, start), "node %d has no room", nodes[i]);
    }
}

START_TEST(room_is_a_count)
{
    uint64_t seed = seed_rng();
    for (int round = 0; round < 60; round++) {
        static struct model m;
        struct sim_world w = {.nodes = m.nodes, .node_count = NODES};
        memset(&m, 0, sizeof m);
        for (int i = 0; i < 2; i++) {
            names_add(&w.sites, i == 0 ? "a" : "b", NULL);
            names_add(&w.models, i == 0 ? "X" : "Y", NULL);
        }
        for (int i = 0; i < NODES; i++) {
            m.nodes[i] = (struct sim_node){
                .site = below(3) == 0, .model = below(4) == 0, .gpus = 1 + below(8)};
        }
        struct room *r = room_new(&w);
        int now = 0;
        for (int op = 0; op < 120 && now < SPAN / 2; op++) {
            struct room_query q = {.site = below(2),
                                   .model = below(2),
                                   .nodes = 1 + (below(3) == 0) * below(3),
                                   .gpus = 1 + below(8),
                                   .from_us = now,
                                   .latest_us = now + below(SPAN),
                                   .len_us = 1 + below(20),
                                   .spread = (uint32_t)below(1000)};
            int64_t start = -1;
            int found[NODES];
            bool ok = room_find(r, &q, &start, found);
            int want = naive(&m, &q);
            ck_assert_msg((ok ? start : -1) == want,
                          "seed %" PRIu64 " round %d op %d: %" PRId64 ", expected %d",
                          seed, round, op, ok ? start : -1, want);
            for (int i = 0; ok && i < q.nodes; i++) {
                check_found(&m, &q, want, found);
                room_take(r, found[i], q.gpus, start, start + q.len_us);
            }
            for (int i = 0; ok && i < q.nodes; i++) {
                for (int t = want; t < want + q.len_us; t++) {
                    m.used[found[i]][t] += q.gpus;
                }
            }
            now += below(8) == 0;
            room_forget(r, below(NODES), now);
        }
        room_free(r);
        names_done(&w.sites);
        names_done(&w.models);
    }
}
END_TEST

/* ---- choose ---- */

static void make_world(struct sim_world *w, struct sim_node *nodes, int64_t *rtt_us,
                       int64_t *price_micro)
{
    *w = (struct sim_world){
        .nodes = nodes, .node_count = 12, .rtt_us = rtt_us, .price_micro = price_micro};
    for (int i = 0; i < 4; i++) {
        char name[2] = {(char)('a' + i), 0};
        names_add(&w->sites, name, NULL);
    }
    names_add(&w->models, "X", NULL);
    names_add(&w->models, "Y", NULL);
    names_add(&w->wishes, "", NULL);
    for (int i = 0; i < 12; i++) {
        nodes[i] = (struct sim_node){NULL, i % 4, i >= 4 && below(2), 1 + below(8)};
    }
    for (int i = 0; i < 16; i++) {
        rtt_us[i] = below(10) == 0 ? SIM_RTT_UNKNOWN : below(60000);
    }
    for (int i = 0; i < 8; i++) {
        price_micro[i] = below(12) == 0 ? SIM_PRICE_UNKNOWN : 1 + below(4000000);
    }
    w->profiles = xcalloc(slowdown_profile_count, sizeof *w->profiles);
    w->profile_count = slowdown_profile_count;
    for (size_t i = 0; i < slowdown_profile_count; i++) {
        w->profiles[i].model = slowdown_profiles[i];
    }
}

/* The same question to match_best (through the calendar) and to the loop (through
 * room) has the same answer: the two ways must not drift apart. */
START_TEST(two_ways_agree)
{
    uint64_t seed = seed_rng();
    for (int round = 0; round < 300; round++) {
        struct sim_world w;
        struct sim_node nodes[12];
        int64_t rtt_us[16], price_micro[8];
        struct sim_market m;
        static struct sim_choice by_best, by_loop;
        make_world(&w, nodes, rtt_us, price_micro);
        sim_market_init(&m, &w);
        struct room *room = room_new(&w);
        for (int n = 0; n < 40; n++) {
            struct sim_job job = {.duration_us = (1 + below(1000)) * 1000000,
                                  .gpus = 1 + below(8),
                                  .profile = below((int)w.profile_count + 1) - 1};
            struct sim_ask ask = {.policy = SIM_NEARGPU,
                                  .data = below(4),
                                  .chance =
                                      sim_draw(seed, (uint64_t)round, (uint64_t)n)};
            if (job.gpus > m.wishes[0].largest) {
                continue;
            }
            m.room = NULL;
            sim_choose(&m, &job, &ask, &by_best);
            m.room = room;
            sim_choose(&m, &job, &ask, &by_loop);
            ck_assert_msg(by_best.why == by_loop.why,
                          "seed %" PRIu64 " round %d job %d: %s, %s", seed, round, n,
                          sim_why_name(by_best.why), sim_why_name(by_loop.why));
            if (by_best.why != MATCH_OK) {
                continue;
            }
            ck_assert_msg(
                by_best.offer == by_loop.offer && by_best.rtt_us == by_loop.rtt_us &&
                    by_best.slowdown_ppm == by_loop.slowdown_ppm &&
                    by_best.len_us == by_loop.len_us && by_best.gpus == by_loop.gpus,
                "seed %" PRIu64 " round %d job %d: place %d, %d", seed, round, n,
                by_best.offer, by_loop.offer);
            /* Filled the same way, from the low end, both keep the same room. */
            const struct calendar_slot *slot = &by_best.slots[0];
            calendar_book(m.calendar, n, slot->node, slot->first, job.gpus, 0,
                          SIM_TIME_MAX_US);
            room_take(room, slot->node, job.gpus, 0, SIM_TIME_MAX_US);
        }
        room_free(room);
        sim_market_done(&m);
        names_done(&w.sites);
        names_done(&w.models);
        names_done(&w.wishes);
        free(w.profiles);
    }
}
END_TEST

START_TEST(draws)
{
    ck_assert(sim_draw(1, 2, 3) == sim_draw(1, 2, 3));
    ck_assert(sim_draw(1, 2, 3) != sim_draw(2, 1, 3));
    ck_assert(sim_draw(1, 2, 3) != sim_draw(1, 3, 2));
    int buckets[16] = {0};
    for (uint64_t i = 0; i < 16000; i++) {
        buckets[sim_draw(7, i, 1) >> 60]++;
    }
    for (int i = 0; i < 16; i++) {
        ck_assert_msg(buckets[i] > 880 && buckets[i] < 1120, "bucket %d: %d", i,
                      buckets[i]);
    }
}
END_TEST

UNIT_MAIN("sim", UNIT_CASE(room_is_a_count) UNIT_CASE(two_ways_agree) UNIT_CASE(draws))
