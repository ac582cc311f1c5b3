/* Booking through the store on a real database: outcomes, group commit, gangs, races of
 * two servers, lost connections, money. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/xalloc.h"
#include "tests/db/market.h"
#include "tests/unit/unit.h"

static struct market m;

static void book_one(struct market_booking *b, enum store_book_outcome want,
                     struct market_booked *ret)
{
    market_book(&m, b, ret);
    ck_assert_int_eq(ret->done, 0);
    market_wait(&m, &ret->done);
    ck_assert_int_eq(ret->status, STORE_OK);
    ck_assert_int_eq(ret->outcome, want);
}

static int64_t money(const char *what)
{
    json_t *r = market_ok(&m, STORE_WALLET, STORE_ARGS(S_TEXT(m.tenant), S_INT(5)));
    return market_int(r, what);
}

START_TEST(test_book_and_read)
{
    struct market_booking b;
    struct market_booked r;
    int64_t before = money("available_micro");
    market_booking(&m, &b, 0, 2, 4, HOUR_US, HOUR_US);
    market_booking_add(&m, &b, 1, 0, 8);
    book_one(&b, STORE_BOOK_OK, &r);
    ck_assert_str_eq(r.id, b.book.id);
    ck_assert_uint_eq(r.booking_count, 2);
    ck_assert_int_lt(r.booking_id[0], r.booking_id[1]);
    ck_assert_int_eq(before - money("available_micro"), 1200000000);
    json_t *j =
        market_ok(&m, STORE_RESV_GET, STORE_ARGS(S_TEXT(m.tenant), S_TEXT(b.book.id)));
    ck_assert_str_eq(market_text(j, "state"), "confirmed");
    ck_assert_str_eq(market_text(j, "tenant"), "lab");
    ck_assert_int_eq(market_int(j, "start_us"), b.book.start_us);
    ck_assert_int_eq(market_int(j, "end_us"), b.book.end_us);
    ck_assert_int_eq(market_int(j, "held_micro"), 1200000000);
    json_t *a = json_array_get(json_object_get(j, "allocations"), 0);
    ck_assert_int_eq(market_int(a, "booking"), r.booking_id[0]);
    ck_assert_int_eq(market_int(a, "first"), 2);
    ck_assert_int_eq(market_int(a, "count"), 4);
    ck_assert_str_eq(json_string_value(json_array_get(json_object_get(a, "gpus"), 0)),
                     "GPU-0-2");
    ck_assert_int_eq(market_int(a, "epoch"), b.book.start_us);
    json_t *other =
        market_ok(&m, STORE_RESV_BY_KEY, STORE_ARGS(S_TEXT(m.tenant), S_TEXT(b.key)));
    ck_assert_str_eq(market_text(other, "id"), b.book.id);
    market_refused(&m, ERR_NOT_FOUND, STORE_RESV_GET,
                   STORE_ARGS(S_TEXT(m.provider), S_TEXT(b.book.id)));
    market_check(&m);
    json_decref(b.request);
}
END_TEST

START_TEST(test_duplicate_and_reused_key)
{
    struct market_booking b, again;
    struct market_booked r;
    market_booking(&m, &b, 2, 0, 1, HOUR_US, HOUR_US);
    book_one(&b, STORE_BOOK_OK, &r);
    int64_t held = money("held_micro");
    market_booking(&m, &again, 2, 1, 1, HOUR_US, HOUR_US);
    memcpy(again.key, b.key, sizeof b.key);
    book_one(&again, STORE_BOOK_DUPLICATE, &r);
    ck_assert_str_eq(r.id, b.book.id);
    again.hash[0] = 1;
    book_one(&again, STORE_BOOK_KEY_REUSED, &r);
    ck_assert_int_eq(money("held_micro"), held);
    market_refused(&m, ERR_NOT_FOUND, STORE_RESV_GET,
                   STORE_ARGS(S_TEXT(m.tenant), S_TEXT(again.book.id)));
    json_decref(b.request);
    json_decref(again.request);
}
END_TEST

START_TEST(test_same_key_twice_at_once)
{
    struct market_booking b;
    struct market_booked r[3];
    market_booking(&m, &b, 2, 2, 1, HOUR_US, HOUR_US);
    for (int i = 0; i < 3; i++)
        market_book(&m, &b, &r[i]);
    int ok = 0;
    for (int i = 0; i < 3; i++) {
        market_wait(&m, &r[i].done);
        ck_assert_int_eq(r[i].status, STORE_OK);
        ok += r[i].outcome == STORE_BOOK_OK;
        if (r[i].outcome != STORE_BOOK_OK)
            ck_assert_int_eq(r[i].outcome, STORE_BOOK_DUPLICATE);
        ck_assert_str_eq(r[i].id, b.book.id);
    }
    ck_assert_int_eq(ok, 1);
    json_decref(b.request);
}
END_TEST

START_TEST(test_lost)
{
    struct market_booking b, clash, gang, touch;
    struct market_booked r;
    market_booking(&m, &b, 3, 2, 2, HOUR_US, HOUR_US);
    book_one(&b, STORE_BOOK_OK, &r);
    int64_t held = money("held_micro");
    market_booking(&m, &clash, 3, 3, 1, HOUR_US + HOUR_US / 2, HOUR_US);
    book_one(&clash, STORE_BOOK_LOST, &r);
    /* A gang that misses one node gets none. */
    market_booking(&m, &gang, 0, 0, 8, 100 * HOUR_US, HOUR_US);
    market_booking_add(&m, &gang, 3, 0, 3);
    gang.on[1].from_us = b.book.start_us;
    gang.on[1].to_us = b.book.end_us;
    book_one(&gang, STORE_BOOK_LOST, &r);
    ck_assert_int_eq(money("held_micro"), held);
    gang.book.booking_count = 1;
    book_one(&gang, STORE_BOOK_OK, &r);
    /* Half-open: the next may begin where the last ends. */
    market_booking(&m, &touch, 3, 2, 2, 2 * HOUR_US, HOUR_US);
    book_one(&touch, STORE_BOOK_OK, &r);
    /* GPUs the node does not have; a node of another site; nothing at all. */
    static const struct store_booking bad[] = {{.first = 7, .count = 2},
                                               {.first = -1, .count = 1},
                                               {.first = 8, .count = 1},
                                               {.first = 0, .count = 1, .site_id = 1},
                                               {.first = 0, .count = 0}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct market_booking x;
        market_booking(&m, &x, 3, bad[i].first, bad[i].count, 200 * HOUR_US, HOUR_US);
        x.book.total_micro = x.book.per_hour_micro = x.book.effective_micro = 0;
        x.on[0].site_id += bad[i].site_id;
        book_one(&x, STORE_BOOK_LOST, &r);
        json_decref(x.request);
    }
    market_check(&m);
    json_decref(b.request);
    json_decref(clash.request);
    json_decref(gang.request);
    json_decref(touch.request);
}
END_TEST

START_TEST(test_funds_in_order)
{
    /* A batch whose tenant can pay for some: in the order given, what fits. */
    struct market_booking b[6];
    struct market_booked r[6];
    static const int gpus[] = {4, 8, 1, 8, 2, 1};
    static const enum store_book_outcome want[] = {STORE_BOOK_OK,    STORE_BOOK_FUNDS,
                                                   STORE_BOOK_OK,    STORE_BOOK_FUNDS,
                                                   STORE_BOOK_FUNDS, STORE_BOOK_OK};
    uint8_t key[32] = {55};
    json_t *t = market_ok(&m, STORE_TENANT_CREATE,
                          STORE_ARGS(S_TEXT("poor"), S_NULL, S_INT(600000000),
                                     S_BYTES(key, 32), S_TEXT("a"), S_NULL, S_NULL));
    char poor[UUID_TEXT];
    snprintf(poor, sizeof poor, "%s", market_text(t, "id"));
    for (int i = 0; i < 6; i++) {
        market_booking(&m, &b[i], 0, 0, gpus[i], (300 + i) * HOUR_US, HOUR_US);
        memcpy(b[i].book.tenant_id, poor, sizeof poor);
        market_book(&m, &b[i], &r[i]);
    }
    for (int i = 0; i < 6; i++) {
        market_wait(&m, &r[i].done);
        ck_assert_int_eq(r[i].status, STORE_OK);
        ck_assert_msg(r[i].outcome == want[i], "booking %d: outcome %d", i,
                      r[i].outcome);
        json_decref(b[i].request);
    }
    json_t *w = market_ok(&m, STORE_WALLET, STORE_ARGS(S_TEXT(poor), S_INT(5)));
    ck_assert_int_eq(market_int(w, "available_micro"), 0);
    ck_assert_int_eq(market_int(w, "held_micro"), 600000000);
    struct store_stats st;
    store_stats(m.store, &st);
    market_check(&m);
}
END_TEST

START_TEST(test_group_commit)
{
    /* Many at once: few batches, each at most BOOK_BATCH_MAX, one winner a place. */
    enum { N = 600 };
    struct market_booking *b = xcalloc(N, sizeof *b);
    struct market_booked *r = xcalloc(N, sizeof *r);
    struct store_stats before, after;
    store_stats(m.store, &before);
    for (int i = 0; i < N; i++) {
        market_booking(&m, &b[i], i % 4, (i / 4) % 8, 1,
                       (1000 + (i / 32) % 9) * HOUR_US, HOUR_US);
        market_book(&m, &b[i], &r[i]);
    }
    int ok = 0, lost = 0;
    for (int i = 0; i < N; i++) {
        market_wait(&m, &r[i].done);
        ck_assert_int_eq(r[i].status, STORE_OK);
        ok += r[i].outcome == STORE_BOOK_OK;
        lost += r[i].outcome == STORE_BOOK_LOST;
        json_decref(b[i].request);
    }
    ck_assert_int_eq(ok, 4 * 8 * 9);
    ck_assert_int_eq(ok + lost, N);
    store_stats(m.store, &after);
    uint64_t batches = after.batches - before.batches;
    ck_assert_uint_ge(batches, N / BOOK_BATCH_MAX);
    ck_assert_uint_le(batches, N / BOOK_BATCH_MAX + 3);
    market_check(&m);
    free(b);
    free(r);
}
END_TEST

START_TEST(test_poisoned_batch)
{
    /* One that the database cannot digest fails alone. */
    struct market_booking b[5];
    struct market_booked r[5];
    for (int i = 0; i < 5; i++) {
        market_booking(&m, &b[i], 1, i, 1, 2000 * HOUR_US, HOUR_US);
        if (i == 2) /* no such tenant */
            memcpy(b[i].book.tenant_id, m.provider, sizeof m.provider);
        market_book(&m, &b[i], &r[i]);
    }
    for (int i = 0; i < 5; i++) {
        market_wait(&m, &r[i].done);
        ck_assert_int_eq(r[i].status, i == 2 ? STORE_FAILED : STORE_OK);
        ck_assert_int_eq(r[i].outcome, STORE_BOOK_OK);
        json_decref(b[i].request);
    }
}
END_TEST

START_TEST(test_two_servers)
{
    /* Two stores race for the same places in opposite orders: no deadlock answer, one
     * winner each, and the constraint was asked every time. */
    enum { N = 400 };
    struct market other = m;
    struct market_booking *b = xcalloc(2 * N, sizeof *b);
    struct market_booked *r = xcalloc(2 * N, sizeof *r);
    other.store =
        store_new(m.base, &(struct store_opts){.conninfo = testdb_conninfo(
                                                   m.db, "neargpu_server", "neargpu"),
                                               .readers = 1,
                                               .writers = 2,
                                               .origin = "test-2"});
    for (int i = 0; i < N; i++) {
        market_booking(&m, &b[i], i % 4, (i / 4) % 8, 1, (3000 + i / 32) * HOUR_US,
                       HOUR_US);
        int k = N - 1 - i;
        market_booking(&m, &b[N + i], k % 4, (k / 4) % 8, 1, (3000 + k / 32) * HOUR_US,
                       HOUR_US);
        market_book(&m, &b[i], &r[i]);
        market_book(&other, &b[N + i], &r[N + i]);
    }
    int ok = 0;
    for (int i = 0; i < 2 * N; i++) {
        market_wait(&m, &r[i].done);
        ck_assert_int_eq(r[i].status, STORE_OK);
        ok += r[i].outcome == STORE_BOOK_OK;
        json_decref(b[i].request);
    }
    ck_assert_int_eq(ok, N);
    for (int i = 0; i < N; i++)
        ck_assert_int_ne(r[i].outcome == STORE_BOOK_OK,
                         r[2 * N - 1 - i].outcome == STORE_BOOK_OK);
    store_free(other.store);
    market_check(&m);
    free(b);
    free(r);
}
END_TEST

START_TEST(test_lost_connection)
{
    /* Killed while the batch runs: unknown, and the key tells. */
    struct market_booking b, next;
    struct market_booked r, r2;
    PGconn *locker = testdb_connect(m.db, "postgres", "neargpu");
    testdb_sql(locker, "BEGIN; LOCK TABLE ng.reservation IN EXCLUSIVE MODE");
    market_booking(&m, &b, 1, 0, 1, 4000 * HOUR_US, HOUR_US);
    market_booking(&m, &next, 1, 0, 1, 4000 * HOUR_US, HOUR_US);
    market_book(&m, &b, &r);
    char *pid = xstrdup("");
    for (int i = 0; i < 200 && pid[0] == '\0'; i++) {
        event_base_loop(m.base, EVLOOP_NONBLOCK);
        free(pid);
        pid =
            testdb_one(locker, "SELECT pid FROM pg_stat_activity WHERE wait_event_type "
                               "= 'Lock' AND query LIKE '%api.book%'");
        struct timespec ts = {.tv_nsec = 10000000};
        nanosleep(&ts, NULL);
    }
    ck_assert_str_ne(pid, "");
    market_book(&m, &next, &r2); /* waits behind it, is not lost with it */
    char sql[80];
    snprintf(sql, sizeof sql, "SELECT pg_terminate_backend(%s)", pid);
    testdb_sql(locker, sql);
    market_wait(&m, &r.done);
    ck_assert_int_eq(r.status, STORE_UNKNOWN);
    ck_assert_int_eq(r.code, ERR_UNKNOWN);
    testdb_sql(locker, "COMMIT");
    market_refused(&m, ERR_NOT_FOUND, STORE_RESV_BY_KEY,
                   STORE_ARGS(S_TEXT(m.tenant), S_TEXT(b.key)));
    market_wait(&m, &r2.done);
    ck_assert_int_eq(r2.status, STORE_OK);
    ck_assert_int_eq(r2.outcome, STORE_BOOK_OK);
    PQfinish(locker);
    free(pid);
    json_decref(b.request);
    json_decref(next.request);
}
END_TEST

START_TEST(test_constraint_holds_for_all)
{
    PGconn *pg = testdb_connect(m.db, "postgres", "neargpu");
    testdb_sql(pg, "SET ROLE neargpu_owner");
    ck_assert_str_eq(
        testdb_state(pg,
                     "INSERT INTO ng.booking (reservation_id, node_id, site_id, gpus, "
                     "during, epoch, per_gpu_hour_micro) SELECT reservation_id, "
                     "node_id, site_id, gpus, during, epoch, per_gpu_hour_micro FROM "
                     "ng.booking WHERE NOT isempty(during) LIMIT 1"),
        "23P01");
    ck_assert_str_eq(testdb_state(pg, "UPDATE ng.transfer SET amount_micro = 1"),
                     "23001");
    ck_assert_str_eq(testdb_state(pg, "DELETE FROM ng.transfer"), "23001");
    ck_assert_str_eq(testdb_state(pg, "TRUNCATE ng.transfer CASCADE"), "23001");
    ck_assert_str_eq(testdb_state(pg, "UPDATE ng.account SET balance_micro = "
                                      "floor_micro - 1 WHERE kind = 'wallet'"),
                     "23514");
    ck_assert_str_eq(testdb_state(pg, "UPDATE ng.reservation SET state = 'ended' WHERE "
                                      "state = 'confirmed'"),
                     "NG006");
    PQfinish(pg);
}
END_TEST

static void setup(void)
{
    market_open(&m, 4, INT64_C(1000000000000000));
}

static void teardown(void)
{
    market_close(&m);
}

int main(void)
{
    setenv("CK_FORK", "no", 1);
    Suite *suite = suite_create("book");
    TCase *tc = tcase_create("book");
    tcase_set_timeout(tc, 120);
    tcase_add_unchecked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_book_and_read);
    tcase_add_test(tc, test_duplicate_and_reused_key);
    tcase_add_test(tc, test_same_key_twice_at_once);
    tcase_add_test(tc, test_lost);
    tcase_add_test(tc, test_funds_in_order);
    tcase_add_test(tc, test_group_commit);
    tcase_add_test(tc, test_poisoned_batch);
    tcase_add_test(tc, test_two_servers);
    tcase_add_test(tc, test_lost_connection);
    tcase_add_test(tc, test_constraint_holds_for_all);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
