/* Gangs on a real database: whole or not at all under contention of several servers,
 * the fee of each node's provider, holds of quotes, a node that grows. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/xalloc.h"
#include "tests/db/market.h"
#include "tests/unit/unit.h"

static struct market m;
static int64_t slot_us = HOUR_US; /* each test has hours of its own */

static int64_t hours(int n)
{
    int64_t at = slot_us;
    slot_us += n * HOUR_US;
    return at;
}

static json_t *get(const char *id)
{
    return market_ok(&m, STORE_RESV_GET, STORE_ARGS(S_NULL, S_TEXT(id)));
}

static int64_t held(void)
{
    return market_int(
        market_ok(&m, STORE_WALLET, STORE_ARGS(S_TEXT(m.tenant), S_INT(1))),
        "held_micro");
}

START_TEST(test_gang_reads_back)
{
    struct market_booking b;
    struct market_booked r;
    int64_t at = hours(2);
    market_booking(&m, &b, 2, 0, 2, at, HOUR_US);
    market_booking_add(&m, &b, 0, 4, 2);
    market_booking_add(&m, &b, 1, 1, 2);
    b.book.extra = json_pack("{s:[{s:s,s:s,s:i}],s:s}", "groups", "data", "genome",
                             "site", "fukuoka", "nodes", 3, "coordinator", "fukuoka");
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    json_decref((json_t *)(uintptr_t)b.book.extra);
    json_t *j = get(r.id), *a = json_object_get(j, "allocations");
    ck_assert_int_eq(market_int(j, "nodes"), 3);
    ck_assert_str_eq(market_text(j, "coordinator"), "fukuoka");
    ck_assert_uint_eq(json_array_size(json_object_get(j, "groups")), 1);
    ck_assert_uint_eq(json_array_size(json_object_get(j, "paths")), 0);
    ck_assert(json_is_null(json_object_get(j, "waiting")));
    /* Ranks are in the order that was asked for, not of the nodes' numbers. */
    static const int nodes[] = {2, 0, 1};
    for (size_t i = 0; i < 3; i++) {
        ck_assert_int_eq(market_int(json_array_get(a, i), "rank"), (int64_t)i);
        ck_assert_int_eq(market_int(json_array_get(a, i), "node_id"), m.node[nodes[i]]);
        ck_assert_int_eq(market_int(json_array_get(a, i), "booking"), r.booking_id[i]);
    }
    market_check(&m);
}
END_TEST

START_TEST(test_part_is_nothing)
{
    struct market_booking one, gang;
    struct market_booked r;
    int64_t at = hours(3), before = held();
    market_booking(&m, &one, 1, 3, 1, at, HOUR_US);
    market_book_ok(&m, &one, STORE_BOOK_OK, &r);
    int64_t one_held = held() - before;
    market_booking(&m, &gang, 0, 0, 8, at, HOUR_US);
    market_booking_add(&m, &gang, 1, 0, 8);
    market_booking_add(&m, &gang, 2, 0, 8);
    market_book_ok(&m, &gang, STORE_BOOK_LOST, &r);
    ck_assert_int_eq(market_sql(&m,
                                "SELECT count(*) FROM ng.booking WHERE reservation_id "
                                "= '%s'",
                                gang.book.id),
                     0);
    ck_assert_int_eq(held() - before, one_held);
    market_booking(&m, &gang, 0, 0, 8, at, HOUR_US);
    market_booking_add(&m, &gang, 2, 0, 8);
    market_book_ok(&m, &gang, STORE_BOOK_OK, &r);
    market_check(&m);
}
END_TEST

START_TEST(test_fee_is_each_providers)
{
    /* Node n4 is another provider's from here on: a gang over two. */
    struct market_booking b;
    struct market_booked r;
    testdb_sql(m.admin, "INSERT INTO ng.provider (name, fee_ppm) VALUES ('zero', 0)");
    testdb_sql(m.admin, "UPDATE ng.node SET provider_id = (SELECT id FROM ng.provider "
                        "WHERE name = 'zero') WHERE name = 'n4'");
    market_booking(&m, &b, 0, 0, 2, hours(3), HOUR_US);
    market_booking_add(&m, &b, 3, 0, 2);
    int64_t end = b.book.end_us;
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    ck_assert_int_eq(market_sql(&m,
                                "SELECT fee_ppm FROM ng.booking WHERE reservation_id = "
                                "'%s' AND node_id = %d",
                                r.id, m.node[0]),
                     50000);
    ck_assert_int_eq(market_sql(&m,
                                "SELECT fee_ppm FROM ng.booking WHERE reservation_id = "
                                "'%s' AND node_id = %d",
                                r.id, m.node[3]),
                     0);
    for (int n = 0; n < 4; n += 3) {
        json_t *receipts = json_pack(
            "[{s:s,s:i,s:s,s:s,s:s,s:I,s:I,s:I,s:s}]", "reservation", r.id, "seq", 1,
            "hash", "11111111111111111111111111111111111111111111111111111111111111aa",
            "prev", "", "kind", "teardown", "from_us", (json_int_t)(end - HOUR_US),
            "to_us", (json_int_t)end, "gpu_ms", (json_int_t)7200000, "jws", "x");
        json_t *done =
            market_ok(&m, STORE_RECEIPTS,
                      STORE_ARGS(S_INT(m.node[n]), S_JSON(receipts), S_INT(end + 1)));
        ck_assert_uint_eq(json_array_size(json_object_get(done, "acks")), 1);
        json_decref(receipts);
    }
    char *rated = testdb_one(
        m.admin,
        "SELECT string_agg(c.fee_ppm || ' ' || api.billing_post(c.reservation_id, "
        "c.node_id, c.seq, c.gpu_ms, a.amount, ng.money_mul(a.amount, c.fee_ppm, "
        "1000000)), ', ' ORDER BY c.node_id) FROM api.billing_claim(9) c CROSS JOIN "
        "LATERAL (SELECT ng.money_mul(least(c.gpu_ms, c.max_gpu_ms), "
        "c.per_gpu_hour_micro, 3600000) AS amount) a");
    ck_assert_str_eq(rated, "50000 posted, 0 posted");
    free(rated);
    ck_assert_int_eq(
        market_sql(&m,
                   "SELECT sum(fee_micro) FROM ng.meter WHERE reservation_id = '%s'",
                   r.id),
        10000000);
    market_check(&m);
}
END_TEST

/* Whether somebody has a GPU that this one wanted. */
static bool blocked(const struct market_booking *b)
{
    for (size_t k = 0; k < b->book.booking_count; k++)
        if (market_sql(
                &m,
                "SELECT count(*) FROM ng.booking b JOIN ng.node n ON n.id = "
                "b.node_id WHERE n.id = %d AND b.gpus && int4range(lower(n.gpus) "
                "+ %d, lower(n.gpus) + %d) AND b.during && ng.span(%lld, %lld)",
                b->on[k].node_id, b->on[k].first, b->on[k].first + b->on[k].count,
                (long long)b->on[k].from_us, (long long)b->on[k].to_us) > 0)
            return true;
    return false;
}

/* Three servers with two writers each want random gangs of overlapping nodes and times:
 * each gang ends whole or lost, no error surfaces, and for every one that was lost some
 * other has a GPU that it wanted. */
START_TEST(test_contention)
{
    enum { N = 600, SERVERS = 3 };
    struct market server[SERVERS];
    struct market_booking *b = xcalloc(N, sizeof *b);
    struct market_booked *r = xcalloc(N, sizeof *r);
    uint32_t seed;
    digest_random(&seed, sizeof seed);
    printf("seed %u\n", seed);
    srandom(seed);
    for (int i = 0; i < SERVERS; i++) {
        char name[24];
        server[i] = m;
        snprintf(name, sizeof name, "gang-%d", i);
        server[i].store = store_new(
            m.base, &(struct store_opts){
                        .conninfo = testdb_conninfo(m.db, "neargpu_server", "neargpu"),
                        .readers = 1,
                        .writers = 2,
                        .origin = name});
    }
    int64_t at = hours(30);
    int64_t dead = market_sql(&m, "SELECT deadlocks FROM pg_stat_database WHERE "
                                  "datname = 'neargpu'");
    for (int i = 0; i < N; i++) {
        int nodes = 1 + (int)(random() % 4), first = (int)(random() % 4) * 2;
        int n = (int)(random() % 4);
        int64_t start = at + random() % 24 * HOUR_US;
        market_booking(&m, &b[i], n, first, 2, start, (1 + random() % 3) * HOUR_US);
        for (int k = 1; k < nodes; k++)
            market_booking_add(&m, &b[i], (n + k * 3) % 4, (int)(random() % 4) * 2, 2);
        market_book(&server[i % SERVERS], &b[i], &r[i]);
    }
    int ok = 0, lost = 0;
    for (int i = 0; i < N; i++) {
        market_wait(&m, &r[i].done);
        ck_assert_msg(r[i].status == STORE_OK, "%d: status %d", i, r[i].code);
        ok += r[i].outcome == STORE_BOOK_OK;
        lost += r[i].outcome == STORE_BOOK_LOST;
        int64_t rows = market_sql(
            &m, "SELECT count(*) FROM ng.booking WHERE reservation_id = '%s'",
            b[i].book.id);
        ck_assert_int_eq(
            rows, r[i].outcome == STORE_BOOK_OK ? (int64_t)b[i].book.booking_count : 0);
        json_decref(b[i].request);
    }
    ck_assert_int_eq(ok + lost, N);
    ck_assert_int_gt(ok, 10);
    ck_assert_int_gt(lost, 10);
    int idle = 0; /* lost ones that nobody stands in the way of */
    for (int i = 0; i < N; i++)
        idle += r[i].outcome == STORE_BOOK_LOST && !blocked(&b[i]);
    /* One may be lost to another in a batch before, which is lost to a third. */
    ck_assert_int_le(idle, N / 50);
    struct timespec pause = {.tv_nsec = 600000000}; /* statistics come late */
    nanosleep(&pause, NULL);
    printf(
        "%d gangs booked, %d lost (%d to one that was lost itself), %lld deadlocks\n",
        ok, lost, idle,
        (long long)(market_sql(&m, "SELECT deadlocks FROM pg_stat_database WHERE "
                                   "datname = 'neargpu'") -
                    dead));
    for (int i = 0; i < SERVERS; i++)
        store_free(server[i].store);
    market_check(&m);
    free(b);
    free(r);
}
END_TEST

/* ---- holds of quotes ---- */

#define QUOTE "0190a000-0000-7000-8000-00000000000"

static void hold(const char *quote, int64_t at, int64_t until_us,
                 struct market_booked *r)
{
    struct market_booking b;
    market_booking(&m, &b, 0, 0, 4, at, HOUR_US);
    snprintf(b.book.quote_id, sizeof b.book.quote_id, "%s", quote);
    b.book.hold_until_us = until_us;
    market_book_ok(&m, &b, STORE_BOOK_OK, r);
}

#define CONFIRM(quote, key, hash, now)                                           \
    STORE_RESV_CONFIRM, STORE_ARGS(S_TEXT(m.tenant), S_TEXT(quote), S_TEXT(key), \
                                   S_BYTES(hash, 32), S_INT(now))

START_TEST(test_hold_and_confirm)
{
    struct market_booked r, other;
    struct market_booking b;
    static const uint8_t hash[32] = {1}, another[32] = {2};
    int64_t at = hours(3), before = held();
    hold(QUOTE "1", at, m.now_us + 600000000, &r);
    json_t *j = get(r.id);
    ck_assert_str_eq(market_text(j, "state"), "held");
    ck_assert_int_eq(market_int(j, "hold_until_us"), m.now_us + 600000000);
    ck_assert_int_eq(held(), before);
    market_booking(&m, &b, 0, 3, 1, at, HOUR_US); /* it blocks */
    market_book_ok(&m, &b, STORE_BOOK_LOST, &other);
    market_refused(&m, ERR_NOT_FOUND, CONFIRM(QUOTE "9", "k1", hash, m.now_us));
    j = market_ok(&m, CONFIRM(QUOTE "1", "k1", hash, m.now_us));
    ck_assert_str_eq(market_text(j, "state"), "confirmed");
    ck_assert_str_eq(market_text(j, "id"), r.id);
    ck_assert_int_eq(held() - before, 400000000);
    j = market_ok(&m, CONFIRM(QUOTE "1", "k1", hash, m.now_us)); /* repeated */
    ck_assert(json_is_true(json_object_get(j, "replayed")));
    market_refused(&m, ERR_KEY_REUSED, CONFIRM(QUOTE "1", "k1", another, m.now_us));
    market_refused(&m, ERR_CONFLICT, CONFIRM(QUOTE "1", "k2", hash, m.now_us));
    ck_assert_int_eq(held() - before, 400000000);
    market_check(&m);
}
END_TEST

START_TEST(test_hold_expires)
{
    struct market_booked r;
    static const uint8_t hash[32] = {1};
    int64_t at = hours(3), before = held(), until = m.now_us + 600000000;
    hold(QUOTE "2", at, until, &r);
    market_refused(&m, ERR_CONFLICT, CONFIRM(QUOTE "2", "k3", hash, until));
    json_t *j =
        market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(until - 1), S_INT(0)));
    ck_assert_uint_eq(json_array_size(json_object_get(j, "expired")), 0);
    j = market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(until), S_INT(0)));
    ck_assert_uint_eq(json_array_size(json_object_get(j, "expired")), 1);
    ck_assert_str_eq(market_text(get(r.id), "state"), "cancelled");
    market_refused(&m, ERR_CONFLICT, CONFIRM(QUOTE "2", "k3", hash, until));
    hold(QUOTE "3", at, until, &r); /* the place is free again */
    testdb_sql(m.admin, "UPDATE ng.account SET floor_micro = balance_micro - 1 WHERE "
                        "kind = 'wallet'");
    market_refused(&m, ERR_FUNDS, CONFIRM(QUOTE "3", "k4", hash, m.now_us));
    testdb_sql(m.admin, "UPDATE ng.account SET floor_micro = -1000000000000000 WHERE "
                        "kind = 'wallet'");
    ck_assert_str_eq(market_text(get(r.id), "state"), "held");
    ck_assert_int_eq(held(), before);
    market_ok(&m, STORE_RESV_CANCEL,
              STORE_ARGS(S_TEXT(m.tenant), S_TEXT(r.id), S_TEXT("no"), S_BOOL(false),
                         S_INT(m.now_us)));
    market_check(&m);
}
END_TEST

/* ---- a node that grows ---- */

static json_t *observed(int count, int from)
{
    json_t *gpus = json_array();
    for (int g = 0; g < count; g++)
        json_array_append_new(
            gpus, json_pack("{s:i,s:o,s:s,s:i,s:i,s:s}", "index", g, "uuid",
                            json_sprintf("GPU-0-%d", from + g), "model", "H100",
                            "memory_mib", 81559, "minor", g, "state", "idle"));
    return json_pack("{s:{s:s,s:s},s:o}", "agent", "address", "a:1", "fabric", "ib-7",
                     "gpus", gpus);
}

START_TEST(test_growing_node)
{
    /* The last test: it needs nothing booked from now on at the node. A booking that is
     * not committed yet keeps the node from getting another block. */
    struct market_booking b;
    struct market_booked r;
    testdb_sql(m.admin, "UPDATE ng.booking SET during = 'empty'");
    market_booking(&m, &b, 0, 6, 2, hours(2), HOUR_US);
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    json_t *a = json_array_get(json_object_get(get(r.id), "allocations"), 0);
    json_t *was = json_deep_copy(json_object_get(a, "gpus"));
    ck_assert_str_eq(json_string_value(json_array_get(was, 0)), "GPU-0-6");
    int64_t end = b.book.end_us;
    PGconn *booker = testdb_connect(m.db, "postgres", "neargpu");
    char sql[300];
    testdb_sql(booker, "BEGIN");
    snprintf(sql, sizeof sql, "SELECT 1 FROM ng.node WHERE id = %d FOR KEY SHARE",
             m.node[0]);
    testdb_sql(booker, sql);
    json_t *grown = observed(10, 0);
    static int done;
    static struct market_booked ignored;
    (void)done;
    memset(&ignored, 0, sizeof ignored);
    store_call(m.store, STORE_SYNC,
               STORE_ARGS(S_INT(m.node[0]), S_JSON(grown), S_INT(end + HOUR_US)),
               store_to(market_booked, &ignored, 0));
    int64_t until = clock_boot_us() + 300000;
    while (clock_boot_us() < until)
        event_base_loop(m.base, EVLOOP_NONBLOCK);
    ck_assert_int_eq(ignored.done, 0); /* it waits for the booker */
    testdb_sql(booker, "COMMIT");
    market_wait(&m, &ignored.done);
    ck_assert_int_eq(ignored.status, STORE_OK);
    ck_assert_int_eq(market_sql(&m,
                                "SELECT upper(gpus) - lower(gpus) FROM ng.node WHERE "
                                "id = %d",
                                m.node[0]),
                     10);
    /* What was booked shows the GPUs that it had. The test's future is not the clock's.
     */
    testdb_sql(m.admin, "UPDATE ng.gpu_past SET until = until + interval '1 year'");
    a = json_array_get(json_object_get(get(r.id), "allocations"), 0);
    ck_assert(json_equal(was, json_object_get(a, "gpus")));
    ck_assert_int_eq(market_sql(&m,
                                "SELECT (domain = 'ib-7')::int FROM ng.node WHERE "
                                "id = %d",
                                m.node[0]),
                     1);
    json_decref(was);
    json_decref(grown);
    PQfinish(booker);
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
    Suite *suite = suite_create("gang");
    TCase *tc = tcase_create("gang");
    tcase_set_timeout(tc, 120);
    tcase_add_unchecked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_gang_reads_back);
    tcase_add_test(tc, test_part_is_nothing);
    tcase_add_test(tc, test_fee_is_each_providers);
    tcase_add_test(tc, test_contention);
    tcase_add_test(tc, test_hold_and_confirm);
    tcase_add_test(tc, test_hold_expires);
    tcase_add_test(tc, test_growing_node);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
