/* Standing orders and spot on a real database: the queue, booking out of it, what
 * preemption cuts and refuses, terms told to nodes. */
#include <stdio.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/xalloc.h"
#include "tests/db/market.h"
#include "tests/unit/unit.h"

#define NOTICE_US INT64_C(120000000)
#define DAY_US    (24 * HOUR_US)

static struct market m;
static int64_t slot_us = 2 * HOUR_US; /* each test has hours of its own */

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

static void new_id(char id[UUID_TEXT])
{
    uint8_t random[10];
    digest_random(random, sizeof random);
    uuid_v7(m.now_us, random, id);
}

static void put(char id[UUID_TEXT], const char *tenant, int64_t until_us)
{
    static const uint8_t hash[32] = {7};
    json_t *request = json_pack("{s:i,s:b}", "nodes", 2, "wait", 1);
    new_id(id);
    json_t *r = market_ok(&m, STORE_WAIT_PUT,
                          STORE_ARGS(S_TEXT(id), S_TEXT(tenant), S_JSON(request),
                                     S_INT(until_us), S_BOOL(false), S_INT(m.now_us),
                                     S_NULL, S_BYTES(hash, 32)));
    ck_assert_str_eq(market_text(r, "state"), "waiting");
    json_decref(request);
}

static void cancel(const char *id)
{
    market_ok(&m, STORE_RESV_CANCEL,
              STORE_ARGS(S_NULL, S_TEXT(id), S_TEXT("no more"), S_BOOL(false),
                         S_INT(m.now_us)));
}

/* ---- the queue ---- */

START_TEST(test_order_of_the_queue)
{
    char a[UUID_TEXT], b[UUID_TEXT], c[UUID_TEXT], other[UUID_TEXT];
    uint8_t key[32] = {44};
    json_t *r = market_ok(&m, STORE_TENANT_CREATE,
                          STORE_ARGS(S_TEXT("vip"), S_NULL, S_INT(0), S_BYTES(key, 32),
                                     S_TEXT("a"), S_NULL, S_NULL));
    snprintf(other, sizeof other, "%s", market_text(r, "id"));
    put(a, m.tenant, m.now_us + DAY_US);
    m.now_us++;
    put(b, m.tenant, m.now_us + DAY_US);
    put(c, other, m.now_us + DAY_US);
    market_refused(&m, ERR_NOT_FOUND, STORE_TENANT_PRIORITY,
                   STORE_ARGS(S_TEXT("nobody"), S_INT(5)));
    market_refused(&m, ERR_BAD_REQUEST, STORE_TENANT_PRIORITY,
                   STORE_ARGS(S_TEXT("vip"), S_INT(1001)));
    market_ok(&m, STORE_TENANT_PRIORITY, STORE_ARGS(S_TEXT("vip"), S_INT(5)));
    json_t *list =
        json_object_get(market_ok(&m, STORE_WAIT_LIST, STORE_NO_ARGS), "orders");
    ck_assert_uint_eq(json_array_size(list), 3);
    ck_assert_str_eq(market_text(json_array_get(list, 0), "id"), c);
    ck_assert_str_eq(market_text(json_array_get(list, 1), "id"), a);
    ck_assert_str_eq(market_text(json_array_get(list, 2), "id"), b);
    ck_assert_int_eq(market_int(json_array_get(list, 0), "priority"), 5);

    json_t *plan = json_pack("[{s:s,s:i,s:I,s:s},{s:s,s:i,s:n,s:s},{s:s,s:i}]", "id", a,
                             "position", 2, "predicted_us",
                             (json_int_t)(m.now_us + HOUR_US), "why", "busy", "id", b,
                             "position", 3, "predicted_us", "why", "too far", "id",
                             "0190a000-0000-7000-8000-000000000000", "position", 1);
    r = market_ok(&m, STORE_WAIT_PLAN, STORE_ARGS(S_JSON(plan)));
    ck_assert_int_eq(market_int(r, "changed"), 2);
    r = market_ok(&m, STORE_WAIT_PLAN, STORE_ARGS(S_JSON(plan)));
    ck_assert_int_eq(market_int(r, "changed"), 0);
    json_decref(plan);
    r = get(a);
    ck_assert(json_is_null(json_object_get(r, "start_us")));
    ck_assert_int_eq(market_int(r, "nodes"), 2);
    r = json_object_get(r, "waiting");
    ck_assert_int_eq(market_int(r, "position"), 2);
    ck_assert_int_eq(market_int(r, "predicted_us"), m.now_us + HOUR_US);
    ck_assert_str_eq(market_text(r, "why"), "busy");
    cancel(a);
    ck_assert_str_eq(market_text(get(a), "state"), "cancelled");
    ck_assert(json_is_null(json_object_get(get(a), "waiting")));
    market_check(&m);
    cancel(b);
    cancel(c);
}
END_TEST

START_TEST(test_put_again)
{
    char id[UUID_TEXT], id2[UUID_TEXT];
    uint8_t hash[32] = {1};
    json_t *request = json_object();
    new_id(id);
    new_id(id2);
#define PUT(id)                                                               \
    STORE_WAIT_PUT, STORE_ARGS(S_TEXT(id), S_TEXT(m.tenant), S_JSON(request), \
                               S_INT(m.now_us + HOUR_US), S_BOOL(true),       \
                               S_INT(m.now_us), S_TEXT("key-1"), S_BYTES(hash, 32))
    json_t *r = market_ok(&m, PUT(id));
    ck_assert(json_is_true(json_object_get(r, "spot")));
    r = market_ok(&m, PUT(id2));
    ck_assert_str_eq(market_text(r, "id"), id);
    ck_assert(json_is_true(json_object_get(r, "replayed")));
    hash[0] = 2;
    market_refused(&m, ERR_KEY_REUSED, PUT(id2));
    market_refused(&m, ERR_BAD_REQUEST, STORE_WAIT_PUT,
                   STORE_ARGS(S_TEXT(id2), S_TEXT(m.tenant), S_JSON(request),
                              S_INT(m.now_us), S_BOOL(false), S_INT(m.now_us), S_NULL,
                              S_BYTES(hash, 32)));
    cancel(id);
    json_decref(request);
}
END_TEST

/* The booking of an order that waits. */
static void booking_of(const char *id, struct market_booking *b, int n, int64_t at)
{
    market_booking(&m, b, n, 0, 8, at, HOUR_US);
    memcpy(b->book.id, id, UUID_TEXT);
    b->book.waiting = true;
}

START_TEST(test_book_out_of_the_queue)
{
    char id[UUID_TEXT];
    struct market_booking b;
    struct market_booked r;
    int64_t at = hours(2), before = held();
    put(id, m.tenant, m.now_us + DAY_US);
    ck_assert_int_eq(held(), before);
    /* The place is taken: it waits on, whole. */
    market_booking(&m, &b, 1, 7, 1, at, HOUR_US);
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    booking_of(id, &b, 0, at);
    market_booking_add(&m, &b, 1, 0, 8);
    market_book_ok(&m, &b, STORE_BOOK_LOST, &r);
    ck_assert_str_eq(market_text(get(id), "state"), "waiting");
    /* No funds: the same. */
    testdb_sql(m.admin, "UPDATE ng.account SET floor_micro = balance_micro - 1 WHERE "
                        "kind = 'wallet'");
    booking_of(id, &b, 0, at);
    market_book_ok(&m, &b, STORE_BOOK_FUNDS, &r);
    testdb_sql(m.admin, "UPDATE ng.account SET floor_micro = -1000000000000000 WHERE "
                        "kind = 'wallet'");
    ck_assert_str_eq(market_text(get(id), "state"), "waiting");
    market_check(&m);
    before = held();
    booking_of(id, &b, 0, at);
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    ck_assert_str_eq(r.id, id);
    json_t *j = get(id);
    ck_assert_str_eq(market_text(j, "state"), "confirmed");
    ck_assert_int_eq(market_int(j, "start_us"), m.now_us + at);
    ck_assert_int_eq(market_int(j, "held_micro"), 800000000);
    ck_assert(json_is_null(json_object_get(j, "waiting")));
    ck_assert_int_eq(held() - before, 800000000);
    /* A second planner comes too late. */
    booking_of(id, &b, 2, at);
    market_book_ok(&m, &b, STORE_BOOK_LOST, &r);
    ck_assert_int_eq(held() - before, 800000000);
    market_check(&m);
}
END_TEST

START_TEST(test_expires)
{
    char id[UUID_TEXT];
    int64_t until = m.now_us + 5 * DAY_US;
    put(id, m.tenant, until);
    json_t *r =
        market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(until - 1), S_INT(DAY_US)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "expired")), 0);
    r = market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(until), S_INT(DAY_US)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "expired")), 1);
    r = get(id);
    ck_assert_str_eq(market_text(r, "state"), "failed");
    ck_assert_ptr_nonnull(strstr(market_text(r, "reason"), "nothing fitted until 20"));
    market_check(&m);
}
END_TEST

/* ---- spot ---- */

static void sell_spot(int64_t micro, int64_t notice_us)
{
    market_ok(&m, STORE_PRICE_SET,
              STORE_ARGS(S_TEXT(m.provider), S_NULL, S_NULL, S_NULL, S_INT(100000000),
                         S_TEXT("JPY"), S_INT(micro), S_INT(notice_us)));
}

START_TEST(test_terms)
{
    struct market_booking b;
    struct market_booked r;
    market_booking(&m, &b, 0, 0, 1, hours(2), HOUR_US);
    b.book.spot = true;
    market_book_ok(&m, &b, STORE_BOOK_LOST, &r); /* nobody sells spot */
    market_refused(&m, ERR_BAD_REQUEST, STORE_PRICE_SET,
                   STORE_ARGS(S_TEXT(m.provider), S_NULL, S_NULL, S_NULL,
                              S_INT(100000000), S_TEXT("JPY"), S_INT(1), S_NULL));
    market_refused(&m, ERR_BAD_REQUEST, STORE_PRICE_SET,
                   STORE_ARGS(S_TEXT(m.provider), S_NULL, S_NULL, S_NULL,
                              S_INT(100000000), S_TEXT("JPY"), S_INT(1), S_INT(1)));
    sell_spot(30000000, NOTICE_US);
    json_t *p = json_array_get(
        json_object_get(market_ok(&m, STORE_PRICE_LIST, STORE_ARGS(S_TEXT(m.provider))),
                        "prices"),
        0);
    ck_assert_int_eq(market_int(p, "spot_per_gpu_hour_micro"), 30000000);
    ck_assert_int_eq(market_int(p, "notice_us"), NOTICE_US);
    sell_spot(30000000, 0);
    p = json_array_get(
        json_object_get(market_ok(&m, STORE_PRICE_LIST, STORE_ARGS(S_TEXT(m.provider))),
                        "prices"),
        0);
    ck_assert(json_is_null(json_object_get(p, "notice_us")));
    sell_spot(30000000, NOTICE_US);
}
END_TEST

/* A spot reservation on all 8 GPUs of a node. */
static int64_t spot(int n, int64_t at, int64_t len_us, const char *wait,
                    char id[UUID_TEXT])
{
    struct market_booking b;
    struct market_booked r;
    market_booking(&m, &b, n, 0, 8, at, len_us);
    b.book.spot = true;
    json_decref(b.request);
    b.request = json_pack("{s:b}", "wait", wait != NULL);
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    memcpy(id, r.id, UUID_TEXT);
    return b.book.start_us;
}

static json_t *lease(int n, int64_t now_us)
{
    json_t *none = json_array();
    json_t *r = market_ok(&m, STORE_DESIRED,
                          STORE_ARGS(S_INT(m.node[n]), S_JSON(none), S_INT(now_us)));
    json_decref(none);
    return json_array_get(json_object_get(r, "leases"), 0);
}

/* Whenever a node last heard, it does not go on beyond a notice from then; and it is
 * told the next term in time. */
START_TEST(test_rolling_terms)
{
    char id[UUID_TEXT];
    int64_t start = spot(3, hours(3), 2 * HOUR_US, NULL, id), last = 0, told = 0;
    ck_assert_ptr_null(lease(3, start - NOTICE_US / 3 - 1));
    for (int64_t t = start - NOTICE_US / 3; t < start + 2 * HOUR_US; t += 7000001) {
        json_t *l = lease(3, t);
        int64_t end = market_int(l, "not_after_us");
        int64_t generation = market_int(l, "generation");
        ck_assert_int_le(end, t + NOTICE_US * 9 / 10);
        ck_assert_int_le(end, start + 2 * HOUR_US);
        ck_assert_int_eq(market_int(l, "not_before_us"), start);
        if (end < start + 2 * HOUR_US) /* at least half of it is always ahead */
            ck_assert_int_ge(end, t + NOTICE_US / 2);
        if (generation != last) {
            ck_assert_int_gt(generation, last);
            ck_assert_int_ge(end, told);
        } else {
            ck_assert_int_eq(end, told);
        }
        ck_assert_int_eq(generation >> 20, 1);
        last = generation;
        told = end;
    }
    cancel(id);
}
END_TEST

static enum store_book_outcome take(int n, int64_t at, const char *victim,
                                    int64_t now_us, int64_t cut_us)
{
    struct market_booking b;
    struct market_booked r;
    market_booking(&m, &b, n, 0, 2, at, HOUR_US);
    b.book.now_us = now_us;
    b.book.preempt_count = 1;
    memcpy(b.preempts[0].id, victim, UUID_TEXT);
    b.preempts[0].cut_us = cut_us;
    market_book(&m, &b, &r);
    market_wait(&m, &r.done);
    ck_assert_int_eq(r.status, STORE_OK);
    json_decref(b.request);
    return r.outcome;
}

START_TEST(test_preempt_running)
{
    char id[UUID_TEXT];
    int64_t at = hours(8), start = spot(0, at, 6 * HOUR_US, "wait", id);
    int64_t now = start + HOUR_US, cut = now + NOTICE_US;
    int64_t firm_at = cut - m.now_us;
    market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(start), S_INT(DAY_US)));
    ck_assert_str_eq(market_text(get(id), "state"), "active");
    /* Without a victim, with too short a notice, with a cut that leaves it in the way.
     */
    struct market_booking b;
    struct market_booked r;
    market_booking(&m, &b, 0, 0, 2, firm_at, HOUR_US);
    market_book_ok(&m, &b, STORE_BOOK_LOST, &r);
    ck_assert_int_eq(take(0, firm_at, id, now, cut - 1), STORE_BOOK_LOST);
    ck_assert_int_eq(take(0, firm_at, id, now, cut + 1), STORE_BOOK_LOST);
    json_t *j = get(id);
    ck_assert_int_eq(market_int(j, "end_us"), start + 6 * HOUR_US);
    ck_assert_int_eq(market_int(j, "generation"), 1);
    /* One who cannot pay preempts nobody. */
    testdb_sql(m.admin, "UPDATE ng.account SET floor_micro = balance_micro - 1 WHERE "
                        "kind = 'wallet'");
    ck_assert_int_eq(take(0, firm_at, id, now, cut), STORE_BOOK_FUNDS);
    testdb_sql(m.admin, "UPDATE ng.account SET floor_micro = -1000000000000000 WHERE "
                        "kind = 'wallet'");
    ck_assert_int_eq(market_int(get(id), "end_us"), start + 6 * HOUR_US);
    ck_assert_int_eq(take(0, firm_at, id, now, cut), STORE_BOOK_OK);
    j = get(id);
    ck_assert_str_eq(market_text(j, "state"), "active");
    ck_assert_int_eq(market_int(j, "end_us"), cut);
    ck_assert_str_eq(market_text(j, "fault"), "preempted");
    ck_assert_str_eq(market_text(j, "preempted_by"), "firm demand");
    ck_assert_ptr_nonnull(strstr(market_text(j, "reason"), "notice 2m"));
    /* What the node had been told before was never beyond the cut; now it hears of it.
     */
    ck_assert_int_le(market_int(lease(0, now), "not_after_us"), cut);
    ck_assert_int_eq(market_int(lease(0, now), "generation") >> 20, 2);
    ck_assert_int_eq(market_int(lease(0, cut - NOTICE_US / 4), "not_after_us"), cut);
    /* Not twice, and it stays cut. */
    ck_assert_int_eq(take(0, firm_at + HOUR_US, id, now, cut), STORE_BOOK_LOST);
    market_refused(&m, ERR_CONFLICT, STORE_RESV_EXTEND,
                   STORE_ARGS(S_TEXT(m.tenant), S_TEXT(id), S_INT(cut + 1), S_INT(0),
                              S_BOOL(false), S_INT(now)));
    market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(cut), S_INT(0)));
    ck_assert_str_eq(market_text(get(id), "state"), "failed"); /* no receipts here */
    market_check(&m);
}
END_TEST

START_TEST(test_preempt_before_it_starts)
{
    char waits[UUID_TEXT], goes[UUID_TEXT], firm[UUID_TEXT];
    int64_t before = held(), at = hours(4);
    int64_t start = spot(1, at, HOUR_US, "wait", waits);
    spot(2, at, HOUR_US, NULL, goes);
    int64_t now = start - 3 * NOTICE_US;
    struct market_booking b;
    struct market_booked r;
    market_booking(&m, &b, 1, 0, 8, at, HOUR_US);
    market_booking_add(&m, &b, 2, 0, 8);
    b.book.now_us = now;
    b.book.preempt_count = 2;
    memcpy(b.preempts[0].id, goes, UUID_TEXT);
    memcpy(b.preempts[1].id, waits, UUID_TEXT);
    b.preempts[0].cut_us = b.preempts[1].cut_us = now + NOTICE_US;
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    memcpy(firm, r.id, UUID_TEXT);
    json_t *j = get(goes);
    ck_assert_str_eq(market_text(j, "state"), "cancelled");
    ck_assert_str_eq(market_text(j, "fault"), "preempted");
    ck_assert_int_eq(market_int(j, "released_micro"), market_int(j, "held_micro"));
    j = get(waits);
    ck_assert_str_eq(market_text(j, "state"), "waiting");
    ck_assert_uint_eq(json_array_size(json_object_get(j, "allocations")), 0);
    ck_assert_int_eq(held() - before, 1600000000);
    market_check(&m);
    /* It gets another place, and pays for that one. */
    booking_of(waits, &b, 1, at + HOUR_US);
    b.book.spot = true;
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    ck_assert_int_eq(held() - before, 2400000000);
    market_check(&m);
    /* A firm one is no victim. */
    ck_assert_int_eq(take(1, at, firm, now, now + NOTICE_US), STORE_BOOK_LOST);
    /* The feed tells what became free. */
    ck_assert_int_eq(
        market_sql(&m,
                   "SELECT count(*) FROM ng.event, "
                   "jsonb_array_elements(payload->'bookings') b WHERE kind "
                   "= 'reservation.preempted' AND reservation_id = '%s' "
                   "AND b->'from_us' = b->'to_us'",
                   waits),
        1);
    cancel(firm);
    cancel(waits);
    market_check(&m);
}
END_TEST

/* A notice that began before the locks were had is too short by then: what its node
 * heard meanwhile may last longer than the cut. */
START_TEST(test_preempt_late)
{
    char id[UUID_TEXT];
    const int64_t notice = INT64_C(30000000);
    sell_spot(30000000, notice);
    int64_t at = hours(4), start = spot(0, at, 2 * HOUR_US, NULL, id);
    int64_t now = start + HOUR_US, cut = now + notice;
    market_ok(&m, STORE_TRANSITIONS, STORE_ARGS(S_INT(start), S_INT(DAY_US)));
    struct market_booking b;
    struct market_booked r;
    market_booking(&m, &b, 0, 0, 2, cut - m.now_us, HOUR_US);
    b.book.now_us = now;
    b.book.preempt_count = 1;
    memcpy(b.preempts[0].id, id, UUID_TEXT);
    b.preempts[0].cut_us = cut;
    testdb_sql(m.admin, "BEGIN; SELECT FROM ng.account FOR UPDATE");
    market_book(&m, &b, &r);
    int64_t until = clock_boot_us() + 2000000;
    while (clock_boot_us() < until) {
        struct timeval tv = {.tv_usec = 50000};
        event_base_loopexit(m.base, &tv);
        event_base_loop(m.base, EVLOOP_ONCE);
    }
    ck_assert_int_eq(r.done, 0);
    testdb_sql(m.admin, "COMMIT");
    market_wait(&m, &r.done);
    ck_assert_int_eq(r.outcome, STORE_BOOK_LOST);
    ck_assert_int_eq(market_int(get(id), "end_us"), start + 2 * HOUR_US);
    json_decref(b.request);
    ck_assert_int_eq(take(0, cut - m.now_us, id, now, cut), STORE_BOOK_OK);
    sell_spot(30000000, NOTICE_US);
    market_check(&m);
}
END_TEST

/* Firm requests of two servers race for the same victims: each victim is cut once,
 * every winner has its GPUs. */
START_TEST(test_preempt_race)
{
    enum { VICTIMS = 24, N = 4 * VICTIMS };
    struct market other = m;
    char id[VICTIMS][UUID_TEXT];
    struct market_booking *b = xcalloc(N, sizeof *b);
    struct market_booked *r = xcalloc(N, sizeof *r);
    int64_t at = hours(VICTIMS);
    for (int i = 0; i < VICTIMS; i++)
        spot(i % 4, at + i / 4 * HOUR_US, HOUR_US, i % 3 == 0 ? "wait" : NULL, id[i]);
    other.store =
        store_new(m.base, &(struct store_opts){.conninfo = testdb_conninfo(
                                                   m.db, "neargpu_server", "neargpu"),
                                               .readers = 1,
                                               .writers = 2,
                                               .origin = "test-2"});
    for (int i = 0; i < N; i++) {
        /* Both nodes of a pair, two victims, in opposite orders. */
        int v = i % VICTIMS, w = v ^ 1;
        market_booking(&m, &b[i], v % 4, 0, 8, at + v / 4 * HOUR_US, HOUR_US);
        market_booking_add(&m, &b[i], w % 4, 0, 8);
        b[i].book.preempt_count = 2;
        memcpy(b[i].preempts[0].id, id[v], UUID_TEXT);
        memcpy(b[i].preempts[1].id, id[w], UUID_TEXT);
        b[i].preempts[0].cut_us = b[i].preempts[1].cut_us = m.now_us + NOTICE_US;
        market_book(i % 2 == 0 ? &m : &other, &b[i], &r[i]);
    }
    int ok = 0;
    for (int i = 0; i < N; i++) {
        market_wait(&m, &r[i].done);
        ck_assert_msg(r[i].status == STORE_OK, "%d: %d", i, r[i].code);
        ok += r[i].outcome == STORE_BOOK_OK;
        json_decref(b[i].request);
    }
    ck_assert_int_eq(ok, VICTIMS / 2);
    for (int i = 0; i < VICTIMS; i++) {
        json_t *j = get(id[i]);
        ck_assert_str_eq(market_text(j, "state"), i % 3 == 0 ? "waiting" : "cancelled");
        ck_assert_int_eq(market_int(j, "generation"), 2);
        if (i % 3 == 0)
            cancel(id[i]);
    }
    store_free(other.store);
    market_check(&m);
    free(b);
    free(r);
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
    Suite *suite = suite_create("wait");
    TCase *tc = tcase_create("wait");
    tcase_set_timeout(tc, 120);
    tcase_add_unchecked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_order_of_the_queue);
    tcase_add_test(tc, test_put_again);
    tcase_add_test(tc, test_book_out_of_the_queue);
    tcase_add_test(tc, test_expires);
    tcase_add_test(tc, test_terms);
    tcase_add_test(tc, test_rolling_terms);
    tcase_add_test(tc, test_preempt_running);
    tcase_add_test(tc, test_preempt_before_it_starts);
    tcase_add_test(tc, test_preempt_late);
    tcase_add_test(tc, test_preempt_race);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
