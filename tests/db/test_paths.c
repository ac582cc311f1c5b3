/* Paths on a real database: what operators sell, lanes booked with GPUs or not at all,
 * never sold twice, lit and put out when it is time, billed once for what they served.
 */
#include <stdio.h>
#include <string.h>

#include "client/lib/digest.h"
#include "client/lib/xalloc.h"
#include "tests/db/market.h"
#include "tests/unit/unit.h"

#define SETUP_US   (HOUR_US / 2)
#define LANE_MICRO INT64_C(60000000) /* a lane-hour */

static struct market m;
static int path;
static int64_t slot_us = 10 * HOUR_US; /* each test has hours of its own */

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

static json_t *first_path(const char *id)
{
    return json_array_get(json_object_get(get(id), "paths"), 0);
}

#define CREATE(name, to, lanes)                                                    \
    STORE_PATH_CREATE, STORE_ARGS(S_TEXT(name), S_TEXT("acme"), S_TEXT("fukuoka"), \
                                  S_TEXT(to), S_INT(lanes), S_INT(1250000000),     \
                                  S_INT(11600), S_BOOL(true), S_INT(LANE_MICRO),   \
                                  S_INT(SETUP_US), S_TEXT("admin"), S_NULL, S_NULL)

START_TEST(test_sell)
{
    market_ok(&m, STORE_SITE_CREATE,
              STORE_ARGS(S_TEXT("tokyo"), S_TEXT("Tokyo"), S_REAL(35.6), S_REAL(139.7),
                         S_TEXT("jp"), S_TEXT("kanto"), S_TEXT("a"), S_NULL, S_NULL));
    json_t *p = market_ok(&m, CREATE("fuk-tyo", "tokyo", 8));
    path = (int)market_int(p, "id");
    ck_assert_str_eq(market_text(p, "from"), "fukuoka");
    ck_assert_str_eq(market_text(p, "to"), "tokyo");
    ck_assert_str_eq(market_text(p, "provider"), "acme");
    ck_assert_int_eq(market_int(p, "lanes"), 8);
    market_refused(&m, ERR_CONFLICT, CREATE("fuk-tyo", "tokyo", 8));
    market_refused(&m, ERR_BAD_REQUEST, CREATE("loop", "fukuoka", 8));
    market_refused(&m, ERR_BAD_REQUEST, CREATE("wide", "tokyo", 65));
    market_refused(&m, ERR_NOT_FOUND, CREATE("far", "osaka", 8));
    p = market_ok(&m, CREATE("fuk-tyo-2", "tokyo", 3));
    p = market_ok(&m, STORE_PATH_PATCH,
                  STORE_ARGS(S_TEXT("fuk-tyo-2"), S_INT(5), S_NULL, S_NULL, S_NULL,
                             S_TEXT("down")));
    ck_assert_str_eq(market_text(p, "state"), "down");
    ck_assert_int_eq(market_int(p, "per_lane_hour_micro"), 5);
    ck_assert_int_eq(market_int(p, "setup_us"), SETUP_US);
    market_refused(
        &m, ERR_NOT_FOUND, STORE_PATH_PATCH,
        STORE_ARGS(S_TEXT("none"), S_INT(5), S_NULL, S_NULL, S_NULL, S_NULL));
    market_refused(
        &m, ERR_BAD_REQUEST, STORE_PATH_PATCH,
        STORE_ARGS(S_TEXT("fuk-tyo"), S_INT(-1), S_NULL, S_NULL, S_NULL, S_NULL));
    p = market_ok(&m, STORE_PATH_LIST, STORE_NO_ARGS);
    ck_assert_uint_eq(json_array_size(json_object_get(p, "paths")), 2);
}
END_TEST

static void on_rows(void *arg, uint64_t id, const struct store_result *r)
{
    int *done = arg;
    (void)id;
    ck_assert_int_eq(r->status, STORE_OK);
    ck_assert_uint_eq(store_rows(r), 2);
    ck_assert_str_eq(store_text(r, 0, 1), "fuk-tyo");
    ck_assert_int_eq(store_i64(r, 0, 5), 8);
    ck_assert_int_eq(store_i64(r, 0, 6), 1250000000);
    ck_assert_int_eq(store_i64(r, 0, 7), 11600);
    ck_assert_int_eq(store_i64(r, 0, 8), 1);
    ck_assert_int_eq(store_i64(r, 0, 9), LANE_MICRO);
    ck_assert_int_eq(store_i64(r, 0, 10), SETUP_US);
    ck_assert_str_eq(store_text(r, 0, 11), "up");
    *done = 1;
}

START_TEST(test_world)
{
    int done = 0;
    struct store_arg all = S_NULL;
    store_call(m.store, STORE_WORLD_PATHS, &all, 1, store_to(on_rows, &done, 0));
    market_wait(&m, &done);
}
END_TEST

START_TEST(test_with_gpus_or_not_at_all)
{
    struct market_booking b;
    struct market_booked r, other;
    int64_t at = hours(3);
    market_booking(&m, &b, 0, 0, 2, at, HOUR_US);
    market_booking_path(&b, path, 2, 4, LANE_MICRO, SETUP_US);
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    ck_assert_uint_eq(r.lane_booking_count, 1);
    json_t *p = first_path(r.id);
    ck_assert_int_eq(market_int(p, "booking"), r.lane_booking_id[0]);
    ck_assert_str_eq(market_text(p, "name"), "fuk-tyo");
    ck_assert_int_eq(market_int(p, "first"), 2);
    ck_assert_int_eq(market_int(p, "lanes"), 4);
    ck_assert_int_eq(market_int(p, "bandwidth_Bps"), INT64_C(5000000000));
    ck_assert_int_eq(market_int(p, "start_us"), b.book.start_us - SETUP_US);
    ck_assert_str_eq(market_text(p, "state"), "planned");
    /* 2 x 100 for GPUs, 4 x 60 for lanes: the set-up is not charged. */
    ck_assert_int_eq(market_int(get(r.id), "held_micro"), 440000000);
    /* The lanes are taken: GPUs that are free are not booked either. */
    market_booking(&m, &b, 1, 0, 2, at, HOUR_US);
    market_booking_path(&b, path, 5, 2, LANE_MICRO, SETUP_US);
    market_book_ok(&m, &b, STORE_BOOK_LOST, &other);
    /* GPUs are taken: lanes that are free are not booked. */
    market_booking(&m, &b, 0, 1, 2, at, HOUR_US);
    market_booking_path(&b, path, 6, 2, LANE_MICRO, SETUP_US);
    market_book_ok(&m, &b, STORE_BOOK_LOST, &other);
    /* Beyond the path, on one that is down, backwards. */
    market_booking(&m, &b, 1, 0, 2, at, HOUR_US);
    market_booking_path(&b, path, 6, 3, LANE_MICRO, SETUP_US);
    market_book_ok(&m, &b, STORE_BOOK_LOST, &other);
    market_booking(&m, &b, 1, 0, 2, at, HOUR_US);
    market_booking_path(&b, path + 1, 0, 1, LANE_MICRO, SETUP_US);
    market_book_ok(&m, &b, STORE_BOOK_LOST, &other);
    ck_assert_int_eq(market_sql(&m, "SELECT count(*) FROM ng.path_booking"), 1);
    /* Beside it, and in its set-up of somebody else's end. */
    market_booking(&m, &b, 1, 0, 2, at, HOUR_US);
    market_booking_path(&b, path, 0, 2, LANE_MICRO, SETUP_US);
    market_booking_path(&b, path, 6, 2, LANE_MICRO, SETUP_US);
    market_book_ok(&m, &b, STORE_BOOK_OK, &other);
    ck_assert_uint_eq(other.lane_booking_count, 2);
    market_booking(&m, &b, 0, 4, 1, at + HOUR_US, HOUR_US);
    market_booking_path(&b, path, 2, 1, LANE_MICRO, 1);
    market_book_ok(&m, &b, STORE_BOOK_LOST, &other);
    market_booking(&m, &b, 0, 4, 1, at + HOUR_US, HOUR_US);
    market_booking_path(&b, path, 2, 1, LANE_MICRO, 0);
    market_book_ok(&m, &b, STORE_BOOK_OK, &other);
    /* The first cannot be extended now; cancelled, its lanes are free. */
    market_refused(&m, ERR_CONFLICT, STORE_RESV_EXTEND,
                   STORE_ARGS(S_TEXT(m.tenant), S_TEXT(r.id),
                              S_INT(m.now_us + at + HOUR_US + 1), S_INT(0),
                              S_BOOL(false), S_INT(m.now_us)));
    json_t *j = market_ok(&m, STORE_RESV_CANCEL,
                          STORE_ARGS(S_TEXT(m.tenant), S_TEXT(r.id), S_TEXT("x"),
                                     S_BOOL(false), S_INT(m.now_us)));
    ck_assert_int_eq(market_int(json_object_get(j, "change"), "delta_micro"),
                     -440000000);
    ck_assert_str_eq(market_text(first_path(r.id), "state"), "released");
    market_booking(&m, &b, 0, 0, 2, at, HOUR_US);
    market_booking_path(&b, path, 2, 4, LANE_MICRO, SETUP_US);
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    market_check(&m);
}
END_TEST

/* Two servers sell lanes at random; the books are then read naively. */
START_TEST(test_never_twice)
{
    enum { N = 300 };
    struct market other = m;
    struct market_booking *b = xcalloc(N, sizeof *b);
    struct market_booked *r = xcalloc(N, sizeof *r);
    uint32_t seed;
    digest_random(&seed, sizeof seed);
    printf("seed %u\n", seed);
    srandom(seed);
    other.store =
        store_new(m.base, &(struct store_opts){.conninfo = testdb_conninfo(
                                                   m.db, "neargpu_server", "neargpu"),
                                               .readers = 1,
                                               .writers = 2,
                                               .origin = "test-2"});
    int64_t at = hours(60);
    for (int i = 0; i < N; i++) {
        market_booking(&m, &b[i], i % 2, (int)(random() % 8), 1,
                       at + random() % 48 * HOUR_US, (1 + random() % 4) * HOUR_US);
        int first = (int)(random() % 8);
        market_booking_path(&b[i], path, first, 1 + (int)(random() % (8 - first)),
                            LANE_MICRO, random() % 2 * SETUP_US);
        market_book(i % 2 == 0 ? &m : &other, &b[i], &r[i]);
    }
    int ok = 0;
    for (int i = 0; i < N; i++) {
        market_wait(&m, &r[i].done);
        ck_assert_int_eq(r[i].status, STORE_OK);
        ok += r[i].outcome == STORE_BOOK_OK;
        ck_assert_int_eq(market_sql(&m,
                                    "SELECT count(*) FROM ng.path_booking WHERE "
                                    "reservation_id = '%s'",
                                    b[i].book.id),
                         r[i].outcome == STORE_BOOK_OK);
        json_decref(b[i].request);
    }
    ck_assert_int_gt(ok, 10);
    ck_assert_int_lt(ok, N);
    ck_assert_int_eq(
        market_sql(&m, "SELECT count(*) FROM ng.path_booking a JOIN ng.path_booking b "
                       "ON a.id < b.id AND a.path_id = b.path_id AND lower(a.lanes) < "
                       "upper(b.lanes) AND lower(b.lanes) < upper(a.lanes) AND "
                       "lower(a.during) < upper(b.during) AND lower(b.during) < "
                       "upper(a.during)"),
        0);
    store_free(other.store);
    market_check(&m);
    free(b);
    free(r);
}
END_TEST

/* ---- lit and put out, and the bill ---- */

static json_t *due(int64_t now_us)
{
    return json_object_get(market_ok(&m, STORE_PATHS_DUE,
                                     STORE_ARGS(S_INT(now_us), S_INT(60), S_INT(100))),
                           "due");
}

static void set(int64_t id, const char *state, const char *error, int64_t now_us)
{
    market_ok(&m, STORE_PATH_SET,
              STORE_ARGS(S_INT(id), S_TEXT(state), S_TEXT(error), S_INT(now_us)));
}

static void teardown_receipt(const char *id, int64_t from_us, int64_t to_us)
{
    json_t *receipts = json_pack(
        "[{s:s,s:i,s:s,s:s,s:s,s:I,s:I,s:I,s:s}]", "reservation", id, "seq", 1, "hash",
        "22222222222222222222222222222222222222222222222222222222222222aa", "prev", "",
        "kind", "teardown", "from_us", (json_int_t)from_us, "to_us", (json_int_t)to_us,
        "gpu_ms", (json_int_t)((to_us - from_us) / 1000), "jws", "x");
    json_t *r = market_ok(
        &m, STORE_RECEIPTS,
        STORE_ARGS(S_INT(m.node[0]), S_JSON(receipts), S_INT(to_us + 1000000)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "acks")), 1);
    json_decref(receipts);
}

/* As neargpu-billd does; how many were posted. */
static int64_t bill(void)
{
    market_sql(&m,
               "SELECT count(api.billing_post(c.reservation_id, c.node_id, c.seq, "
               "c.gpu_ms, a.amount, ng.money_mul(a.amount, c.fee_ppm, 1000000))) FROM "
               "api.billing_claim(99) c CROSS JOIN LATERAL (SELECT "
               "ng.money_mul(least(c.gpu_ms, c.max_gpu_ms), c.per_gpu_hour_micro, "
               "3600000) AS amount) a");
    return market_sql(
        &m, "SELECT count(*) FILTER (WHERE x = 'posted') FROM (SELECT "
            "api.billing_path_post(c.booking, c.lane_ms, a.amount, "
            "ng.money_mul(a.amount, c.fee_ppm, 1000000)) AS x FROM "
            "api.billing_path_claim(99) c CROSS JOIN LATERAL (SELECT "
            "ng.money_mul(c.lane_ms, c.per_lane_hour_micro, 3600000) AS amount) a) y");
}

/* Lit half an hour late, after the first try was heard nothing of. */
static void light_late(const char *resv, int64_t id, int64_t start)
{
    json_t *d;
    ck_assert_uint_eq(json_array_size(due(start - SETUP_US - 1)), 0);
    d = due(start - SETUP_US);
    ck_assert_uint_eq(json_array_size(d), 1);
    d = json_array_get(d, 0);
    ck_assert_int_eq(market_int(d, "id"), id);
    ck_assert_str_eq(market_text(d, "action"), "light");
    ck_assert_int_eq(market_int(d, "lanes"), 2);
    /* Claimed for a minute; then, since nothing was heard, due again. */
    ck_assert_uint_eq(json_array_size(due(start - SETUP_US + 1000000)), 0);
    ck_assert_uint_eq(json_array_size(due(start - SETUP_US + 60000000)), 1);
    set(id, NULL, "the far end does not answer", start - SETUP_US + 60000000);
    ck_assert_str_eq(market_text(first_path(resv), "error"),
                     "the far end does not answer");
    /* Lit half an hour late. */
    market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(start), S_INT(HOUR_US)));
    ck_assert_uint_eq(json_array_size(due(start + HOUR_US / 2)), 1);
    set(id, "lit", NULL, start + HOUR_US / 2);
    set(id, "lit", NULL, start + HOUR_US); /* repeated: changes nothing */
    ck_assert_str_eq(market_text(first_path(resv), "state"), "lit");
    ck_assert_uint_eq(json_array_size(due(start + HOUR_US)), 0);
    ck_assert_int_eq(bill(), 0); /* not over */
}

/* At its end it goes out before the next one is lit on the same lanes, which fails. */
static void put_out(int64_t id, int64_t next, int64_t end)
{
    json_t *d;
    d = due(end);
    ck_assert_uint_eq(json_array_size(d), 1);
    ck_assert_str_eq(market_text(json_array_get(d, 0), "action"), "release");
    set(id, "released", NULL, end + 5000000);
    d = due(end + 6000000);
    ck_assert_uint_eq(json_array_size(d), 1);
    ck_assert_str_eq(market_text(json_array_get(d, 0), "action"), "light");
    ck_assert_int_eq(market_int(json_array_get(d, 0), "id"), next);
    set(next, "failed", "no fibre", end + 7000000);
}

START_TEST(test_life_and_bill)
{
    struct market_booking b;
    struct market_booked r, next;
    testdb_sql(m.admin, "UPDATE ng.path_booking SET during = 'empty', state = "
                        "'released'; UPDATE ng.booking SET during = 'empty'; UPDATE "
                        "ng.reservation SET state = 'cancelled' WHERE state = "
                        "'confirmed'; UPDATE ng.path_booking SET billed_at = now()");
    market_booking(&m, &b, 0, 0, 1, hours(4), 2 * HOUR_US);
    int64_t start = b.book.start_us, end = b.book.end_us;
    market_booking_path(&b, path, 0, 2, LANE_MICRO, SETUP_US);
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    int64_t id = r.lane_booking_id[0];
    market_booking(&m, &b, 0, 0, 1, end - m.now_us, HOUR_US);
    market_booking_path(&b, path, 1, 2, LANE_MICRO, 0);
    market_book_ok(&m, &b, STORE_BOOK_OK, &next);
    light_late(r.id, id, start);
    put_out(id, next.lane_booking_id[0], end);
    teardown_receipt(r.id, start, end);
    ck_assert_str_eq(market_text(get(r.id), "state"), "ended");
    int64_t pending = market_sql(
        &m,
        "SELECT coalesce(sum(amount_micro), 0) FROM ng.transfer t JOIN ng.account a "
        "ON a.id = t.cr WHERE a.kind = 'provider_pending'");
    ck_assert_int_eq(bill(), 1);
    ck_assert_int_eq(bill(), 0); /* once */
    /* 2 lanes x 1.5 h x 60 = 180; with the GPU's 2 h x 100, 5 % fee of each. */
    ck_assert_int_eq(market_int(get(r.id), "captured_micro"), 380000000);
    ck_assert_int_eq(
        market_sql(&m, "SELECT sum(amount_micro) FROM ng.transfer t JOIN ng.account a "
                       "ON a.id = t.cr WHERE a.kind = 'provider_pending'") -
            pending,
        361000000);
    ck_assert_int_eq(market_sql(&m,
                                "SELECT fee_micro FROM ng.path_booking WHERE id = "
                                "%lld",
                                (long long)id),
                     9000000);
    ck_assert_int_ge(market_sql(&m, "SELECT api.billing_release('1 hour', 1000)"), 1);
    ck_assert_int_eq(market_int(get(r.id), "released_micro"), 60000000);
    ck_assert_str_eq(testdb_state(m.admin,
                                  "UPDATE ng.path_booking SET captured_micro = 1 WHERE "
                                  "billed_at IS NOT NULL"),
                     "23001");
    /* One that was never lit costs nothing. */
    market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(end + HOUR_US / 2), S_INT(0)));
    market_ok(&m, STORE_RESV_CANCEL,
              STORE_ARGS(S_TEXT(m.tenant), S_TEXT(next.id), S_TEXT("x"), S_BOOL(false),
                         S_INT(end + HOUR_US / 2)));
    ck_assert_int_eq(bill(), 1);
    ck_assert_int_eq(market_int(get(next.id), "captured_micro"), 0);
    market_check(&m);
}
END_TEST

/* A server that died while it lit left lanes lit: they are put out before the same
 * lanes are lit for another, also when an attempt before or after that one was refused.
 */
START_TEST(test_unheard_of_is_put_out)
{
    for (int refused = 0; refused < 3; refused++) { /* not at all, before, after */
        struct market_booking b;
        struct market_booked r, next;
        market_booking(&m, &b, 0, 0, 1, hours(8), 2 * HOUR_US);
        int64_t now = b.book.start_us - SETUP_US, end = b.book.end_us;
        market_booking_path(&b, path, 0, 2, LANE_MICRO, SETUP_US);
        market_book_ok(&m, &b, STORE_BOOK_OK, &r);
        market_booking(&m, &b, 0, 0, 1, end - m.now_us, 2 * HOUR_US);
        market_booking_path(&b, path, 1, 2, LANE_MICRO, 0);
        market_book_ok(&m, &b, STORE_BOOK_OK, &next);
        if (refused == 1) {
            ck_assert_uint_eq(json_array_size(due(now)), 1);
            set(r.lane_booking_id[0], NULL, "the far end does not answer", now);
            now += 61000000;
        }
        ck_assert_uint_eq(json_array_size(due(now)), 1); /* and nothing is heard */
        if (refused == 2) {
            now += 61000000;
            ck_assert_uint_eq(json_array_size(due(now)), 1);
            set(r.lane_booking_id[0], NULL, "the far end does not answer", now);
        }
        put_out(r.lane_booking_id[0], next.lane_booking_id[0], end);
        market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(end), S_INT(0)));
        market_ok(&m, STORE_RESV_CANCEL,
                  STORE_ARGS(S_TEXT(m.tenant), S_TEXT(next.id), S_TEXT("x"),
                             S_BOOL(false), S_INT(end + 10000000)));
    }
    ck_assert_int_eq(bill(), 6);
    market_check(&m);
}
END_TEST

static void setup(void)
{
    market_open(&m, 2, INT64_C(1000000000000000));
}

static void teardown(void)
{
    market_close(&m);
}

int main(void)
{
    setenv("CK_FORK", "no", 1);
    Suite *suite = suite_create("paths");
    TCase *tc = tcase_create("paths");
    tcase_set_timeout(tc, 120);
    tcase_add_unchecked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_sell);
    tcase_add_test(tc, test_world);
    tcase_add_test(tc, test_with_gpus_or_not_at_all);
    tcase_add_test(tc, test_never_twice);
    tcase_add_test(tc, test_life_and_bill);
    tcase_add_test(tc, test_unheard_of_is_put_out);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
