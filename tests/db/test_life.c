/* The life of reservations on a real database: extend, shorten, cancel, receipts,
 * teardown, transitions by time, failure; the money at each point. */
#include <stdio.h>
#include <string.h>

#include "client/lib/digest.h"
#include "client/lib/xalloc.h"
#include "tests/db/market.h"
#include "tests/unit/unit.h"

#define DAY_US  (24 * HOUR_US)
#define CREDIT  INT64_C(1000000000000)
#define PER_GPU INT64_C(100000000)

static struct market m;
static int64_t slot_us = DAY_US; /* each case books after the others */

static void setup(void)
{
    market_open(&m, 2, CREDIT);
}

static void teardown(void)
{
    market_close(&m);
}

/* Books `count` GPUs of node n for two hours; the id in id. Returns the start. */
static int64_t booked(int n, int count, char id[UUID_TEXT])
{
    struct market_booking b;
    struct market_booked r;
    slot_us += 10 * HOUR_US;
    market_booking(&m, &b, n, 0, count, slot_us, 2 * HOUR_US);
    market_book(&m, &b, &r);
    market_wait(&m, &r.done);
    ck_assert_int_eq(r.status, STORE_OK);
    ck_assert_int_eq(r.outcome, STORE_BOOK_OK);
    memcpy(id, r.id, UUID_TEXT);
    json_decref(b.request);
    return b.book.start_us;
}

static int64_t held(void)
{
    return market_int(
        market_ok(&m, STORE_WALLET, STORE_ARGS(S_TEXT(m.tenant), S_INT(1))),
        "held_micro");
}

static json_t *get(const char *id)
{
    return market_ok(&m, STORE_RESV_GET, STORE_ARGS(S_NULL, S_TEXT(id)));
}

#define EXTEND(id, end, gen, now)                                           \
    STORE_RESV_EXTEND, STORE_ARGS(S_TEXT(m.tenant), S_TEXT(id), S_INT(end), \
                                  S_INT(gen), S_BOOL(false), S_INT(now))
#define CANCEL(id, now)                                                     \
    STORE_RESV_CANCEL,                                                      \
        STORE_ARGS(S_TEXT(m.tenant), S_TEXT(id), S_TEXT("changed my mind"), \
                   S_BOOL(false), S_INT(now))

START_TEST(test_extend)
{
    char id[UUID_TEXT], next[UUID_TEXT];
    int64_t before = held();
    int64_t start = booked(0, 4, id);
    int64_t end = start + 2 * HOUR_US;
    ck_assert_int_eq(held() - before, 8 * PER_GPU);
    json_t *r = market_ok(&m, EXTEND(id, end + HOUR_US / 2, 1, start - HOUR_US));
    ck_assert_int_eq(market_int(r, "end_us"), end + HOUR_US / 2);
    ck_assert_int_eq(market_int(r, "total_micro"), 10 * PER_GPU);
    ck_assert_int_eq(market_int(r, "generation"), 2);
    ck_assert_int_eq(held() - before, 10 * PER_GPU);
    /* The same again, as after a lost answer; an old generation. */
    r = market_ok(&m, EXTEND(id, end + HOUR_US / 2, 1, start - HOUR_US));
    ck_assert_int_eq(market_int(r, "generation"), 2);
    market_refused(&m, ERR_CONFLICT, EXTEND(id, end + HOUR_US, 1, start - HOUR_US));
    /* Into another's window. */
    struct market_booking b;
    struct market_booked other;
    market_booking(&m, &b, 0, 3, 1, end + HOUR_US - m.now_us, HOUR_US);
    market_book(&m, &b, &other);
    market_wait(&m, &other.done);
    ck_assert_int_eq(other.outcome, STORE_BOOK_OK);
    memcpy(next, other.id, sizeof next);
    json_decref(b.request);
    market_refused(&m, ERR_CONFLICT, EXTEND(id, end + 2 * HOUR_US, 0, start));
    market_ok(&m, EXTEND(id, end + HOUR_US, 0, start)); /* touching is fine */
    ck_assert_int_eq(market_int(get(id), "generation"), 3);
    /* Not another tenant's. */
    market_refused(&m, ERR_NOT_FOUND, STORE_RESV_EXTEND,
                   STORE_ARGS(S_TEXT(m.provider), S_TEXT(id), S_INT(end), S_INT(0),
                              S_BOOL(false), S_INT(start)));
    market_refused(&m, ERR_CONFLICT, EXTEND(id, end + 9 * HOUR_US, 0, end + HOUR_US));
    market_check(&m);
    market_ok(&m, CANCEL(next, start));
    slot_us += 10 * HOUR_US;
}
END_TEST

START_TEST(test_extend_beyond_the_wallet)
{
    char id[UUID_TEXT];
    int64_t start = booked(0, 8, id), before = held();
    market_refused(&m, ERR_BAD_REQUEST,
                   EXTEND(id, start + 20000 * HOUR_US, 0, start - HOUR_US));
    testdb_sql(m.admin, "UPDATE ng.account SET floor_micro = balance_micro - 1 WHERE "
                        "kind = 'wallet'");
    market_refused(&m, ERR_FUNDS,
                   EXTEND(id, start + 200 * HOUR_US, 0, start - HOUR_US));
    testdb_sql(m.admin, "UPDATE ng.account SET floor_micro = -1000000000000 WHERE kind "
                        "= 'wallet'");
    ck_assert_int_eq(held(), before);
    ck_assert_int_eq(market_int(get(id), "generation"), 1);
    market_check(&m);
}
END_TEST

START_TEST(test_shorten)
{
    char id[UUID_TEXT];
    int64_t before = held(), start = booked(1, 2, id);
    market_refused(&m, ERR_CONFLICT, EXTEND(id, start, 0, start - 2 * DAY_US));
    json_t *r = market_ok(&m, EXTEND(id, start + HOUR_US, 0, start - 2 * DAY_US));
    ck_assert_int_eq(market_int(r, "total_micro"), 2 * PER_GPU);
    json_t *a = json_array_get(json_object_get(r, "allocations"), 0);
    ck_assert_int_eq(market_int(a, "end_us"), start + HOUR_US);
    ck_assert_int_eq(held() - before, 2 * PER_GPU);
    /* Its node knows of it by now: what it was told stays blocked, and is not paid. */
    r = market_ok(&m, EXTEND(id, start + HOUR_US / 2, 0, start - HOUR_US));
    ck_assert_int_eq(market_int(r, "total_micro"), PER_GPU);
    a = json_array_get(json_object_get(r, "allocations"), 0);
    ck_assert_int_eq(market_int(a, "end_us"), start + HOUR_US);
    ck_assert_int_eq(held() - before, PER_GPU);
    json_t *none = json_array();
    r = market_ok(&m, STORE_DESIRED,
                  STORE_ARGS(S_INT(m.node[1]), S_JSON(none), S_INT(start)));
    json_decref(none);
    a = json_array_get(json_object_get(r, "leases"), 0);
    ck_assert_int_eq(market_int(a, "not_after_us"), start + HOUR_US / 2);
    ck_assert_int_eq(market_int(a, "generation"), 3);
    /* And back again, into what is blocked still. */
    r = market_ok(&m, EXTEND(id, start + HOUR_US, 0, start));
    ck_assert_int_eq(market_int(r, "total_micro"), 2 * PER_GPU);
    ck_assert_int_eq(held() - before, 2 * PER_GPU);
    market_check(&m);
}
END_TEST

START_TEST(test_cancel_before)
{
    char id[UUID_TEXT], again[UUID_TEXT];
    int64_t before = held(), start = booked(0, 8, id);
    json_t *r = market_ok(&m, CANCEL(id, start - HOUR_US));
    ck_assert_str_eq(market_text(r, "state"), "cancelled");
    ck_assert_str_eq(market_text(r, "reason"), "changed my mind");
    ck_assert_int_eq(held(), before);
    r = market_ok(&m, CANCEL(id, start - HOUR_US)); /* repeated */
    ck_assert_str_eq(market_text(r, "state"), "cancelled");
    ck_assert_int_eq(held(), before);
    slot_us -= 10 * HOUR_US; /* the same place is free */
    ck_assert_int_eq(booked(0, 8, again), start);
    market_refused(&m, ERR_CONFLICT, EXTEND(id, start + 3 * HOUR_US, 0, start));
    r = market_ok(&m, STORE_STATUS, STORE_ARGS(S_INT(start)));
    bool found = false;
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(r, "revoked"), i, v) found =
        found || strcmp(market_text(v, "reservation"), id) == 0;
    ck_assert(found);
    market_check(&m);
}
END_TEST

/* ---- receipts -------------------------------------------------------------------- */

struct chain {
    int seq;
    char last[SHA256_HEX];
};

static json_t *receipt(struct chain *c, const char *id, const char *kind, int64_t from,
                       int64_t to, int64_t gpu_ms)
{
    char text[200], hash[SHA256_HEX];
    snprintf(text, sizeof text, "%s %d %s %lld %lld", id, c->seq + 1, kind,
             (long long)to, (long long)gpu_ms);
    digest_sha256_hex(text, strlen(text), hash);
    json_t *r = json_pack("{s:s,s:i,s:s,s:s,s:s,s:I,s:I,s:I,s:[],s:s}", "reservation",
                          id, "seq", c->seq + 1, "hash", hash, "prev", c->last, "kind",
                          kind, "from_us", (json_int_t)from, "to_us", (json_int_t)to,
                          "gpu_ms", (json_int_t)gpu_ms, "gaps", "jws", text);
    c->seq++;
    memcpy(c->last, hash, sizeof hash);
    return r;
}

/* Sends one (taken); "" or the code it was refused with. */
static const char *put(int node, json_t *one, int64_t now)
{
    static char code[32];
    json_t *list = json_array();
    json_array_append_new(list, one);
    json_t *r = market_ok(&m, STORE_RECEIPTS,
                          STORE_ARGS(S_INT(m.node[node]), S_JSON(list), S_INT(now)));
    json_decref(list);
    json_t *refused = json_array_get(json_object_get(r, "rejected"), 0);
    ck_assert_uint_eq(json_array_size(json_object_get(r, "acks")), refused == NULL);
    snprintf(code, sizeof code, "%s",
             refused != NULL ? market_text(refused, "code") : "");
    return code;
}

/* What is no receipt of this chain, whose last interval went from start for an hour;
 * before is the chain before that one. */
static void refuse_others(const char *id, const struct chain *before,
                          const struct chain *now, int64_t start)
{
    const int64_t to = start + HOUR_US, use = 28800000;
    static const struct {
        int node, more_ms, skip, other_prev;
        bool again;
        const char *want;
    } cases[] = {
        {0, 0, 0, 0, true, ""}, /* acknowledged again */
        {0, 1, 0, 0, true, "fork"},     {0, 0, 1, 0, false, "gap"},
        {0, 0, 0, 1, false, "chain"},   {0, -1, 0, 0, false, "backward"},
        {1, 0, 0, 0, false, "foreign"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct chain x = cases[i].again ? *before : *now;
        x.seq += cases[i].skip;
        if (cases[i].other_prev)
            x.last[0] = x.last[0] == '0' ? '1' : '0';
        json_t *r = receipt(&x, id, "interval", start, to, use + cases[i].more_ms);
        ck_assert_str_eq(put(cases[i].node, r, to), cases[i].want);
    }
}

START_TEST(test_receipts_and_teardown)
{
    char id[UUID_TEXT], next[UUID_TEXT];
    struct chain c = {0}, copy;
    int64_t start = booked(0, 8, id);
    json_t *r =
        market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(start), S_INT(60000000)));
    ck_assert_uint_ge(json_array_size(json_object_get(r, "started")), 1);
    ck_assert_str_eq(market_text(get(id), "state"), "active");
    ck_assert_str_eq(put(0, receipt(&c, id, "ready", start, start, 0), start), "");
    copy = c;
    ck_assert_str_eq(put(0,
                         receipt(&c, id, "interval", start, start + HOUR_US, 28800000),
                         start + HOUR_US),
                     "");
    refuse_others(id, &copy, &c, start);
    /* The teardown frees the GPUs from its end on, before the promised one. */
    int64_t gone = start + HOUR_US + HOUR_US / 4;
    struct market_booking b;
    struct market_booked other;
    market_booking(&m, &b, 0, 0, 8, gone - m.now_us, HOUR_US / 2);
    market_book(&m, &b, &other);
    market_wait(&m, &other.done);
    ck_assert_int_eq(other.outcome, STORE_BOOK_LOST);
    ck_assert_str_eq(
        put(0, receipt(&c, id, "teardown", start + HOUR_US, gone, 36000000), gone), "");
    r = get(id);
    ck_assert_str_eq(market_text(r, "state"), "ended");
    ck_assert_int_eq(market_int(r, "ended_us"), gone);
    market_book(&m, &b, &other);
    market_wait(&m, &other.done);
    ck_assert_int_eq(other.outcome, STORE_BOOK_OK);
    memcpy(next, other.id, sizeof next);
    json_decref(b.request);
    struct chain x = c;
    ck_assert_str_eq(
        put(0, receipt(&x, id, "interval", gone, gone + 1, 36000000), gone), "closed");
    r = market_ok(&m, STORE_USAGE,
                  STORE_ARGS(S_TEXT(m.tenant), S_NULL, S_TEXT(id), S_NULL, S_NULL,
                             S_NULL, S_INT(10)));
    json_t *u = json_array_get(json_object_get(r, "usage"), 0);
    ck_assert_int_eq(market_int(u, "gpu_ms"), 36000000);
    ck_assert_uint_eq(json_array_size(json_object_get(u, "receipts")), 3);
    char *forks = testdb_one(m.admin, "SELECT count(*) FROM ng.receipt_fork");
    ck_assert_str_eq(forks, "1");
    free(forks);
    testdb_sql(m.admin, "BEGIN; SET LOCAL session_replication_role = replica; "
                        "DELETE FROM ng.receipt_fork; COMMIT");
    market_ok(&m, CANCEL(next, gone - HOUR_US));
}
END_TEST

/* A teardown before the lease began does not end it; use under another lease's epoch is
 * none of it. */
START_TEST(test_receipts_out_of_place)
{
    char id[UUID_TEXT];
    struct chain none = {0}, c = {0};
    int64_t start = booked(0, 4, id);
    ck_assert_str_eq(
        put(0, receipt(&none, id, "teardown", start - HOUR_US, start, 0), start - 1),
        "early");
    ck_assert_str_eq(market_text(get(id), "state"), "confirmed");
    none.seq = 0;
    json_t *one = receipt(&none, id, "ready", start, start, 0);
    json_object_set_new(one, "epoch", json_integer(start + 1));
    ck_assert_str_eq(put(0, one, start), "foreign");
    one = receipt(&c, id, "ready", start, start, 0);
    json_object_set_new(one, "epoch", json_integer(start));
    ck_assert_str_eq(put(0, one, start), "");
    ck_assert_str_eq(market_text(get(id), "state"), "active");
    ck_assert_str_eq(put(0,
                         receipt(&c, id, "teardown", start, start + HOUR_US, 14400000),
                         start + HOUR_US),
                     "");
    ck_assert_str_eq(market_text(get(id), "state"), "ended");
    market_check(&m);
}
END_TEST

START_TEST(test_cancel_running)
{
    char id[UUID_TEXT];
    struct chain c = {0};
    int64_t start = booked(1, 4, id), before = held();
    json_t *r = market_ok(&m, CANCEL(id, start + HOUR_US / 2));
    ck_assert_str_eq(market_text(r, "state"), "ended");
    ck_assert_int_eq(held(), before); /* billing gives the rest back */
    /* Still blocked until the node says it is gone. */
    struct market_booking b;
    struct market_booked other;
    market_booking(&m, &b, 1, 0, 1, start + HOUR_US - m.now_us, HOUR_US);
    market_book(&m, &b, &other);
    market_wait(&m, &other.done);
    ck_assert_int_eq(other.outcome, STORE_BOOK_LOST);
    json_t *leases = json_pack("[s]", id);
    r = market_ok(
        &m, STORE_DESIRED,
        STORE_ARGS(S_INT(m.node[1]), S_JSON(leases), S_INT(start + HOUR_US / 2)));
    json_t *e = json_array_get(json_object_get(r, "end"), 0);
    ck_assert_str_eq(market_text(e, "reservation"), id);
    json_decref(leases);
    ck_assert_str_eq(put(1, receipt(&c, id, "ready", start, start, 0), start), "");
    ck_assert_str_eq(
        put(1, receipt(&c, id, "teardown", start, start + HOUR_US * 3 / 4, 10800000),
            start + HOUR_US),
        "");
    market_book(&m, &b, &other);
    market_wait(&m, &other.done);
    ck_assert_int_eq(other.outcome, STORE_BOOK_OK);
    json_decref(b.request);
    market_check(&m);
}
END_TEST

START_TEST(test_transitions)
{
    char ran[UUID_TEXT], silent[UUID_TEXT];
    struct chain c = {0};
    int64_t start = booked(0, 1, ran);
    int64_t start2 = booked(1, 1, silent);
    int64_t grace = 60000000, end2 = start2 + 2 * HOUR_US;
    ck_assert_str_eq(put(0, receipt(&c, ran, "ready", start, start, 0), start), "");
    ck_assert_str_eq(market_text(get(ran), "state"), "active");
    market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(end2 + grace - 1), S_INT(grace)));
    ck_assert_str_eq(market_text(get(ran), "state"), "ended");
    ck_assert_str_eq(market_text(get(silent), "state"), "active");
    market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(end2 + grace), S_INT(grace)));
    json_t *r = get(silent);
    ck_assert_str_eq(market_text(r, "state"), "failed");
    ck_assert_ptr_nonnull(strstr(market_text(r, "reason"), "not delivered"));
    r = market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(end2 + grace), S_INT(grace)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "started")), 0);
    ck_assert_uint_eq(json_array_size(json_object_get(r, "ended")), 0);
}
END_TEST

START_TEST(test_fail)
{
    char id[UUID_TEXT], again[UUID_TEXT];
    int64_t start = booked(0, 8, id);
    json_t *r = market_ok(
        &m, STORE_RESV_FAIL,
        STORE_ARGS(S_TEXT(id), S_TEXT("node lost"), S_INT(0), S_INT(m.now_us)));
    ck_assert_str_eq(market_text(r, "state"), "failed");
    slot_us -= 10 * HOUR_US;
    ck_assert_int_eq(booked(0, 8, again), start);
    market_check(&m);
}
END_TEST

START_TEST(test_two_nodes_end_together)
{
    struct market_booking b;
    struct market_booked r;
    struct chain c[2] = {{0}};
    slot_us += 10 * HOUR_US;
    market_booking(&m, &b, 0, 0, 8, slot_us, HOUR_US);
    market_booking_add(&m, &b, 1, 0, 8);
    market_book(&m, &b, &r);
    market_wait(&m, &r.done);
    ck_assert_int_eq(r.outcome, STORE_BOOK_OK);
    int64_t start = b.book.start_us, end = b.book.end_us;
    for (int n = 0; n < 2; n++)
        ck_assert_str_eq(put(n, receipt(&c[n], r.id, "ready", start, start, 0), start),
                         "");
    ck_assert_str_eq(
        put(0, receipt(&c[0], r.id, "teardown", start, end, 28800000), end), "");
    ck_assert_str_eq(market_text(get(r.id), "state"), "active");
    ck_assert_str_eq(
        put(1, receipt(&c[1], r.id, "teardown", start, end, 28800000), end), "");
    ck_assert_str_eq(market_text(get(r.id), "state"), "ended");
    json_decref(b.request);
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1);
    Suite *suite = suite_create("life");
    TCase *tc = tcase_create("life");
    tcase_set_timeout(tc, 120);
    tcase_add_unchecked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_extend);
    tcase_add_test(tc, test_extend_beyond_the_wallet);
    tcase_add_test(tc, test_shorten);
    tcase_add_test(tc, test_cancel_before);
    tcase_add_test(tc, test_receipts_and_teardown);
    tcase_add_test(tc, test_receipts_out_of_place);
    tcase_add_test(tc, test_cancel_running);
    tcase_add_test(tc, test_transitions);
    tcase_add_test(tc, test_fail);
    tcase_add_test(tc, test_two_nodes_end_together);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
