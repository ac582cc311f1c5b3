/* calendar: edges by name; tests/model has the random operations. */
#include <stdint.h>

#include "server/core/calendar.h"
#include "tests/unit/unit.h"

static struct calendar *one_node(int gpus)
{
    struct calendar *c = calendar_new();
    struct calendar_node n = {
        .site = 0, .model = 0, .gpus = gpus, .offered = UINT64_MAX};
    calendar_set_node(c, 0, &n);
    return c;
}

static int64_t find_start(const struct calendar *c, int gpus, int64_t from,
                          int64_t latest, int64_t len)
{
    struct calendar_query q = {
        .gpus = gpus, .from_us = from, .latest_us = latest, .len_us = len};
    struct calendar_slot slot;
    return calendar_find(c, &q, &slot) ? slot.start_us : -1;
}

START_TEST(test_end_meets_start)
{
    struct calendar *c = one_node(8);
    calendar_book(c, 1, 0, 0, 8, 100, 200);
    ck_assert_uint_eq(calendar_free_mask(c, 0, 0, 100), 0xff);
    ck_assert_uint_eq(calendar_free_mask(c, 0, 0, 101), 0);
    ck_assert_uint_eq(calendar_free_mask(c, 0, 199, 300), 0);
    ck_assert_uint_eq(calendar_free_mask(c, 0, 200, 300), 0xff);
    ck_assert_uint_eq(calendar_free_mask(c, 0, 200, 200), 0);
    ck_assert_int_eq(find_start(c, 8, 0, 1000, 100), 0);
    ck_assert_int_eq(find_start(c, 8, 0, 1000, 101), 200);
    ck_assert_int_eq(find_start(c, 8, 0, 199, 101), -1);
    ck_assert_int_eq(find_start(c, 8, 1, 200, 100), 200);
    calendar_free(c);
}
END_TEST

START_TEST(test_same_id_replaces_and_release_is_idempotent)
{
    struct calendar *c = one_node(8);
    calendar_book(c, 7, 0, 0, 4, 0, 100);
    calendar_book(c, 7, 0, 4, 4, 50, 100);
    ck_assert_uint_eq(calendar_booking_count(c), 1);
    ck_assert_uint_eq(calendar_free_mask(c, 0, 0, 100), 0x0f);
    calendar_release(c, 7);
    calendar_release(c, 7);
    calendar_release(c, -12345);
    ck_assert_uint_eq(calendar_booking_count(c), 0);
    ck_assert_uint_eq(calendar_free_mask(c, 0, 0, 100), 0xff);
    calendar_free(c);
}
END_TEST

/* A long booking that starts far before the asked time still blocks. */
START_TEST(test_long_before)
{
    struct calendar *c = one_node(2);
    calendar_book(c, 1, 0, 0, 1, 0, 1000000);
    for (int i = 0; i < 500; i++) {
        calendar_book(c, 2 + i, 0, 1, 1, i * 10, i * 10 + 9);
    }
    ck_assert_uint_eq(calendar_free_mask(c, 0, 900000, 900001), 2);
    ck_assert_int_eq(find_start(c, 2, 100, INT64_MAX, 5), 1000000);
    ck_assert_int_eq(find_start(c, 1, 100, INT64_MAX, 1), 109);
    ck_assert_int_eq(find_start(c, 1, 100, INT64_MAX, 2), 4999);
    calendar_release(c, 1);
    ck_assert_int_eq(find_start(c, 2, 100, INT64_MAX, 1), 109);
    calendar_free(c);
}
END_TEST

START_TEST(test_windows)
{
    struct calendar *c = calendar_new();
    struct calendar_span w[] = {{100, 200}, {200, 300}, {400, 500}};
    struct calendar_node n = {
        .gpus = 4, .offered = 15, .windows = w, .window_count = 3};
    calendar_set_node(c, 0, &n);
    w[0].from_us = 0; /* copied: the caller's array is its own again */
    ck_assert_int_eq(find_start(c, 4, 0, 1000, 200), 100);
    ck_assert_int_eq(find_start(c, 4, 0, 1000, 201), -1);
    ck_assert_int_eq(find_start(c, 4, 250, 1000, 100), 400);
    ck_assert_int_eq(find_start(c, 4, 401, 1000, 100), -1);
    ck_assert_uint_eq(calendar_free_mask(c, 0, 150, 250), 15);
    ck_assert_uint_eq(calendar_free_mask(c, 0, 250, 350), 0);
    calendar_free(c);
}
END_TEST

START_TEST(test_unset_and_odd_queries)
{
    struct calendar *c = calendar_new();
    calendar_book(c, 1, 5, 0, 4, 0, 100); /* before the node is known */
    calendar_set_offered(c, 5, 0xff);
    ck_assert_uint_eq(calendar_free_mask(c, 5, 200, 300), 0);
    struct calendar_node n = {.site = 2, .model = 3, .gpus = 8, .offered = 0xff};
    calendar_set_node(c, 5, &n);
    ck_assert_uint_eq(calendar_free_mask(c, 5, 0, 50), 0xf0);
    ck_assert_uint_eq(calendar_free_mask(c, -1, 0, 50), 0);
    ck_assert_uint_eq(calendar_free_mask(c, 99999, 0, 50), 0);
    struct calendar_slot slot = {-7, -7, -7};
    struct calendar_query q = {.site = 2, .model = 3, .gpus = 1, .len_us = 0};
    ck_assert(!calendar_find(c, &q, &slot));
    q.len_us = 5;
    q.gpus = 0;
    ck_assert(!calendar_find(c, &q, &slot));
    q.gpus = 65;
    ck_assert(!calendar_find(c, &q, &slot));
    q.gpus = 1;
    q.latest_us = -1;
    ck_assert(!calendar_find(c, &q, &slot));
    ck_assert_int_eq(slot.node, -7); /* untouched */
    /* A node that changes its place leaves the old list. */
    n.site = 4;
    calendar_set_node(c, 5, &n);
    q.latest_us = 0;
    ck_assert(!calendar_find(c, &q, &slot));
    q.site = 4;
    ck_assert(calendar_find(c, &q, &slot));
    ck_assert_int_eq(slot.first, 4);
    calendar_free(c);
    calendar_free(NULL);
}
END_TEST

START_TEST(test_pick)
{
    static const struct {
        uint64_t mask;
        int count, first;
    } rows[] = {
        {0, 1, -1},
        {0xff, 8, 0},
        {0xff, 9, -1},
        {0xe7, 3, 0},
        {0xe7, 2, 0},
        {0xd7, 2, 6},
        {0xd7, 1, 4},
        {0xd7, 3, 0},
        {0xd7, 4, -1},
        {UINT64_MAX, 64, 0},
        {UINT64_MAX, 65, -1},
        {UINT64_MAX << 1, 63, 1},
        {UINT64_C(1) << 63, 1, 63},
        {0xff, 0, -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ck_assert_int_eq(calendar_pick(rows[i].mask, rows[i].count), rows[i].first);
    }
}
END_TEST

static bool skip_three(void *arg, int node)
{
    (void)arg;
    return node == 3;
}

START_TEST(test_best_fit_then_spread)
{
    struct calendar *c = calendar_new();
    struct calendar_node n = {.gpus = 8, .offered = 0xff};
    for (int i = 0; i < 8; i++) {
        calendar_set_node(c, i, &n);
    }
    struct calendar_query q = {.gpus = 2, .len_us = 10, .spread = 6};
    struct calendar_slot slot;
    ck_assert(calendar_find(c, &q, &slot));
    ck_assert_int_eq(slot.node, 6);
    calendar_book(c, 1, 3, 2, 6, 0, 10); /* node 3 has exactly two left */
    ck_assert(calendar_find(c, &q, &slot));
    ck_assert_int_eq(slot.node, 3);
    ck_assert_int_eq(slot.first, 0);
    q.skip = skip_three;
    ck_assert(calendar_find(c, &q, &slot));
    ck_assert_int_eq(slot.node, 6);
    calendar_free(c);
}
END_TEST

START_TEST(test_expire_and_far_future)
{
    struct calendar *c = one_node(8);
    calendar_book(c, 1, 0, 0, 8, 0, 10);
    calendar_book(c, 2, 0, 0, 8, 10, INT64_MAX);
    calendar_expire(c, 10);
    ck_assert_uint_eq(calendar_booking_count(c), 1);
    ck_assert_int_eq(find_start(c, 8, 5, INT64_MAX, 5), 5);
    ck_assert_int_eq(find_start(c, 8, 6, INT64_MAX - 1, 5), -1);
    ck_assert_uint_eq(calendar_free_mask(c, 0, INT64_MAX - 1, INT64_MAX), 0);
    calendar_free(c);
}
END_TEST

START_TEST(test_many_ids)
{
    struct calendar *c = calendar_new();
    struct calendar_node n = {.gpus = 8, .offered = 0xff};
    for (int i = 0; i < 300; i++) {
        n.site = i % 100; /* also grows the table of groups */
        n.model = i % 3;
        calendar_set_node(c, i, &n);
    }
    for (int64_t i = 0; i < 20000; i++) {
        calendar_book(c, i << 32, (int)(i % 300), (int)(i % 8), 1, i, i + 50);
    }
    for (int64_t i = 0; i < 20000; i += 2) {
        calendar_release(c, i << 32);
    }
    ck_assert_uint_eq(calendar_booking_count(c), 10000);
    for (int64_t i = 1; i < 20000; i += 2) {
        calendar_release(c, i << 32);
    }
    ck_assert_uint_eq(calendar_booking_count(c), 0);
    int best, total;
    calendar_capacity(c, 7, 1, 0, 1000000, &best, &total);
    ck_assert_int_eq(best, 8);
    ck_assert_int_eq(total, 8);
    ck_assert_int_eq(calendar_largest(c, 7, 1), 8);
    ck_assert_int_eq(calendar_largest(c, 7, 9), 0);
    calendar_free(c);
}
END_TEST

/* So many ids that some of them share the 32 bits of their hash that a table keeps: a
 * release must still take the right one. */
START_TEST(test_ids_of_one_hash)
{
    struct calendar *c = calendar_new();
    struct calendar_node n = {.gpus = 8, .offered = 0xff};
    for (int i = 0; i < 1000; i++) {
        calendar_set_node(c, i, &n);
    }
    for (int i = 0; i < 300000; i++) {
        calendar_book(c, i, i % 1000, 0, 1, i, i + 1);
    }
    for (int i = 0; i < 300000; i += 2) {
        calendar_release(c, i);
    }
    ck_assert_uint_eq(calendar_booking_count(c), 150000);
    for (int i = 0; i < 300000; i++) {
        uint64_t mask = calendar_free_mask(c, i % 1000, i, i + 1);
        ck_assert_uint_eq(mask, i % 2 == 0 ? 0xff : 0xfe);
    }
    calendar_free(c);
}
END_TEST

/* ---- with an index: six nodes or more, and a now ---- */

#define SLOT (INT64_C(15) * 60 * 1000000)
#define DAY  (96 * SLOT)
#define NOW  (INT64_C(20000) * DAY)

static struct calendar *some_nodes(int count, int gpus)
{
    struct calendar *c = calendar_new();
    struct calendar_node n = {.gpus = gpus, .offered = UINT64_MAX};
    for (int i = 0; i < count; i++) {
        n.domain = i / 3;
        calendar_set_node(c, i, &n);
    }
    calendar_expire(c, NOW);
    return c;
}

START_TEST(test_starts_at_edges_of_slots)
{
    /* Everything is booked until 1 us before, at and 1 us after an edge. */
    for (int64_t off = -1; off <= 1; off++) {
        struct calendar *c = some_nodes(6, 8);
        int64_t end = NOW + 40 * SLOT + off;
        for (int i = 0; i < 6; i++) {
            calendar_book(c, i, i, 0, 8, NOW, i == 4 ? end : end + 1);
            calendar_book(c, 10 + i, i, 0, 8, end + 8 * SLOT, end + 9 * SLOT);
        }
        ck_assert_int_eq(find_start(c, 8, NOW, NOW + DAY, 8 * SLOT), end);
        ck_assert_int_eq(find_start(c, 8, NOW, end - 1, 8 * SLOT), -1);
        ck_assert_int_eq(find_start(c, 8, end, end, 8 * SLOT), end);
        ck_assert_int_eq(find_start(c, 8, end, end, 8 * SLOT + 1), -1);
        ck_assert_int_eq(find_start(c, 8, end + 1, end + 1, 8 * SLOT - 1), end + 1);
        ck_assert_int_eq(find_start(c, 8, end + 1, end + 1, 8 * SLOT), -1);
        ck_assert_int_eq(find_start(c, 1, end - 1, end - 1, 1), -1);
        ck_assert_int_eq(find_start(c, 1, NOW, NOW + DAY, 1), end);
        ck_assert_int_eq(find_start(c, 1, NOW, NOW + DAY, 8 * SLOT + 1),
                         end + 9 * SLOT);
        calendar_free(c);
    }
}
END_TEST

START_TEST(test_nodes_of_64)
{
    struct calendar *c = some_nodes(5, 64);
    for (int i = 0; i < 5; i++) {
        calendar_book(c, i, i, 63, 1, NOW, NOW + DAY);
        calendar_book(c, 10 + i, i, 31, 1, NOW + DAY, NOW + 2 * DAY);
    }
    ck_assert_int_eq(find_start(c, 63, NOW, NOW + 3 * DAY, DAY), NOW);
    ck_assert_int_eq(find_start(c, 64, NOW, NOW + 3 * DAY, DAY), NOW + 2 * DAY);
    ck_assert_int_eq(find_start(c, 33, NOW + DAY, NOW + DAY, DAY), -1);
    ck_assert_int_eq(find_start(c, 32, NOW + DAY, NOW + DAY, DAY), NOW + DAY);
    ck_assert_int_eq(find_start(c, 32, NOW, NOW + DAY, 2 * DAY), NOW + DAY);
    ck_assert_int_eq(find_start(c, 31, NOW, NOW, 2 * DAY), NOW);
    ck_assert_int_eq(calendar_largest(c, 0, 0), 64);
    int best, total;
    calendar_capacity(c, 0, 0, NOW + SLOT / 2, NOW + 2 * SLOT, &best, &total);
    ck_assert_int_eq(best, 63);
    ck_assert_int_eq(total, 5 * 63);
    calendar_free(c);
}
END_TEST

/* A node of 16 joins an index of 8, and one of 8 takes the place of one that left. */
START_TEST(test_nodes_come_and_go)
{
    struct calendar *c = some_nodes(70, 8);
    for (int i = 0; i < 70; i++) {
        calendar_book(c, i, i, 0, 8, NOW, NOW + DAY);
    }
    ck_assert_int_eq(find_start(c, 1, NOW, NOW, SLOT), -1);
    struct calendar_node n = {.gpus = 16, .offered = UINT64_MAX};
    calendar_set_node(c, 3, &n);
    ck_assert_int_eq(find_start(c, 8, NOW, NOW, SLOT), NOW);
    ck_assert_int_eq(find_start(c, 9, NOW, NOW + DAY, SLOT), NOW + DAY);
    n.site = 1;
    calendar_set_node(c, 3, &n);
    ck_assert_int_eq(find_start(c, 1, NOW, NOW, SLOT), -1);
    ck_assert_int_eq(find_start(c, 16, NOW, NOW + 2 * DAY, SLOT), -1);
    calendar_release(c, 69); /* the last one took position 3 */
    ck_assert_int_eq(find_start(c, 8, NOW, NOW, DAY), NOW);
    calendar_set_offered(c, 69, 0x7f);
    ck_assert_int_eq(find_start(c, 8, NOW, NOW, DAY), -1);
    ck_assert_int_eq(find_start(c, 7, NOW, NOW, DAY), NOW);
    calendar_set_offered(c, 69, 0);
    ck_assert_int_eq(find_start(c, 1, NOW, NOW, DAY), -1);
    calendar_free(c);
}
END_TEST

START_TEST(test_beyond_the_horizon)
{
    struct calendar *c = some_nodes(8, 8);
    for (int i = 0; i < 8; i++) {
        calendar_book(c, i, i, 0, 8, NOW + SLOT, NOW + 300 * DAY + i);
    }
    ck_assert_int_eq(find_start(c, 8, NOW, NOW, SLOT), NOW);
    ck_assert_int_eq(find_start(c, 8, NOW, NOW + 200 * DAY, SLOT + 1), -1);
    ck_assert_int_eq(find_start(c, 8, NOW, NOW + 366 * DAY, 30 * DAY), NOW + 300 * DAY);
    struct calendar_gang g = {.query = {.gpus = 8,
                                        .from_us = NOW,
                                        .latest_us = NOW + 366 * DAY,
                                        .len_us = DAY},
                              .nodes = 3};
    struct calendar_slot slots[3];
    ck_assert(calendar_find_gang(c, &g, slots));
    ck_assert_int_eq(slots[0].start_us, NOW + 300 * DAY + 2);
    g.one_domain = true;
    g.query.from_us = NOW + 300 * DAY + 3;
    ck_assert(calendar_find_gang(c, &g, slots));
    ck_assert_int_eq(slots[0].start_us, NOW + 300 * DAY + 3);
    ck_assert_int_eq(slots[2].node / 3, 0);
    /* What was beyond the horizon is within it once time has moved on. */
    calendar_expire(c, NOW + 295 * DAY);
    ck_assert_uint_eq(calendar_booking_count(c), 8);
    ck_assert_int_eq(find_start(c, 8, NOW + 295 * DAY, NOW + 366 * DAY, DAY),
                     NOW + 300 * DAY);
    calendar_release(c, 5);
    ck_assert_int_eq(find_start(c, 8, NOW + 295 * DAY, NOW + 366 * DAY, DAY),
                     NOW + 295 * DAY);
    calendar_free(c);
}
END_TEST

/* The windows of time that a summary knows move on slot by slot, the base by eight
 * hours: each step must say what a fresh calendar says. */
START_TEST(test_time_moves_on)
{
    struct calendar *c = some_nodes(5, 8);
    for (int i = 0; i < 5 * 60; i++) {
        int64_t from = NOW + (i / 5) * 32 * SLOT + i * 7 * SLOT / 5;
        calendar_book(c, i, i % 5, 0, 8, from, from + 25 * SLOT + i);
    }
    for (int64_t now = NOW; now < NOW + 20 * DAY; now += 9 * SLOT) {
        calendar_expire(c, now);
        struct calendar *fresh = some_nodes(5, 8);
        for (int i = 0; i < 5 * 60; i++) {
            int64_t from = NOW + (i / 5) * 32 * SLOT + i * 7 * SLOT / 5;
            calendar_book(fresh, i, i % 5, 0, 8, from, from + 25 * SLOT + i);
        }
        for (int len = 1; len < 60; len += 5) {
            ck_assert_int_eq(find_start(c, 8, now, now + 14 * DAY, len * SLOT),
                             find_start(fresh, 8, now, now + 14 * DAY, len * SLOT));
        }
        calendar_free(fresh);
    }
    calendar_free(c);
}
END_TEST

START_TEST(test_gang)
{
    struct calendar *c = some_nodes(9, 8); /* domains of three */
    struct calendar_slot s[9] = {0};
    struct calendar_gang g = {
        .query = {.gpus = 8, .from_us = NOW, .latest_us = NOW, .len_us = DAY},
        .nodes = 3};
    calendar_book(c, 1, 0, 0, 1, NOW, NOW + DAY);
    calendar_book(c, 2, 3, 0, 1, NOW, NOW + DAY);
    calendar_book(c, 3, 6, 0, 1, NOW, NOW + SLOT / 3);
    ck_assert(calendar_find_gang(c, &g, s));
    g.nodes = 7;
    ck_assert(!calendar_find_gang(c, &g, s));
    g.nodes = 6;
    ck_assert(calendar_find_gang(c, &g, s));
    g.nodes = 3;
    g.one_domain = true;
    ck_assert(!calendar_find_gang(c, &g, s));
    g.query.latest_us = NOW + 2 * DAY;
    ck_assert(calendar_find_gang(c, &g, s));
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(s[i].node / 3, 2);
        ck_assert_int_eq(s[i].start_us, NOW + SLOT / 3);
        ck_assert_int_eq(s[i].first, 0);
    }
    g.query.gpus = 7; /* nodes with just seven left are taken before whole ones */
    g.query.latest_us = NOW;
    g.one_domain = false;
    ck_assert(calendar_find_gang(c, &g, s));
    ck_assert_int_eq(s[0].node % 3 + s[1].node % 3 + s[2].node % 3, 0);
    g.nodes = 10;
    ck_assert(!calendar_find_gang(c, &g, s));
    g.nodes = 0;
    ck_assert(!calendar_find_gang(c, &g, s));
    calendar_free(c);
}
END_TEST

START_TEST(test_series)
{
    struct calendar *c = some_nodes(6, 8);
    struct calendar_step s[4];
    for (int i = 0; i < 6; i++) {
        calendar_book(c, i, i, 0, 4, NOW + SLOT, NOW + 2 * SLOT + 1);
    }
    calendar_book(c, 9, 0, 4, 4, NOW + 3 * SLOT, NOW + DAY);
    calendar_series(c, 0, 0, NOW, SLOT, 4, s);
    ck_assert_int_eq(s[0].best_node, 8);
    ck_assert_int_eq(s[0].total, 48);
    ck_assert_int_eq(s[1].best_node, 4);
    ck_assert_int_eq(s[1].total, 24);
    ck_assert_int_eq(s[2].total, 24);
    ck_assert_int_eq(s[3].best_node, 8);
    ck_assert_int_eq(s[3].total, 44);
    calendar_series(c, 5, 0, NOW, SLOT, 1, s);
    ck_assert_int_eq(s[0].total, 0);
    ck_assert_uint_gt(calendar_bytes(c), 6 * 1400);
    calendar_free(c);
}
END_TEST

UNIT_MAIN("calendar",
          UNIT_CASE(test_end_meets_start)
              UNIT_CASE(test_same_id_replaces_and_release_is_idempotent)
                  UNIT_CASE(test_long_before) UNIT_CASE(test_windows)
                      UNIT_CASE(test_unset_and_odd_queries) UNIT_CASE(test_pick)
                          UNIT_CASE(test_best_fit_then_spread) UNIT_CASE(
                              test_expire_and_far_future) UNIT_CASE(test_many_ids)
                              UNIT_CASE(test_ids_of_one_hash)
                                  UNIT_CASE(test_starts_at_edges_of_slots)
                                      UNIT_CASE(test_nodes_of_64)
                                          UNIT_CASE(test_nodes_come_and_go)
                                              UNIT_CASE(test_beyond_the_horizon)
                                                  UNIT_CASE(test_time_moves_on)
                                                      UNIT_CASE(test_gang)
                                                          UNIT_CASE(test_series))
