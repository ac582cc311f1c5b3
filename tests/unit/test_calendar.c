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

UNIT_MAIN("calendar",
          UNIT_CASE(test_end_meets_start)
              UNIT_CASE(test_same_id_replaces_and_release_is_idempotent)
                  UNIT_CASE(test_long_before) UNIT_CASE(test_windows)
                      UNIT_CASE(test_unset_and_odd_queries) UNIT_CASE(test_pick)
                          UNIT_CASE(test_best_fit_then_spread)
                              UNIT_CASE(test_expire_and_far_future)
                                  UNIT_CASE(test_many_ids))
