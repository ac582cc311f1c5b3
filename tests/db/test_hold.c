/* Rolling holds (sql/api/hold.sql) on a real database: what is held at first, on to
 * when as time goes, what becomes of a lease whose money does not reach; and random
 * histories in which a rolled hold bills the same as one of the whole price. Time is an
 * argument of what is tested, so that days pass in no time. test_hold [SEED]. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "client/lib/xalloc.h"
#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

#define HOUR_MICRO 1000000LL /* of one GPU */

static struct ledger l;
static unsigned seed;
static int number; /* of the last reservation */

static int pick(int n)
{
    return (int)(rand_r(&seed) % (unsigned)n);
}

/* A tenant of its own with so much, the window of the market, and T0, five days ago. */
static void fresh(const char *tenant, int64_t money, const char *window)
{
    ledger_sql(&l, "SELECT t.tenant('%s', 'UTC', %" PRId64 ")", tenant, money);
    ledger_sql(&l,
               "UPDATE ng.market SET hold_window_us = extract(epoch FROM %s) * 1000000",
               window);
}

/* `gpus` GPUs for so many hours from T0 + at; "ok" or why not. */
static char *book(const char *tenant, int at_h, int hours, int gpus)
{
    number++;
    return ledger_text(&l,
                       "SELECT t.book(lpad('%d', 32, '0')::uuid, '%s', t.t0() + "
                       "'%d h', t.t0() + '%d h', ARRAY[%d], ARRAY[0], ARRAY[%d], "
                       "1000000)",
                       number, tenant, at_h, at_h + hours, number, gpus);
}

static void book_ok(const char *tenant, int at_h, int hours, int gpus)
{
    char *got = book(tenant, at_h, hours, gpus);
    ck_assert_str_eq(got, "ok");
    free(got);
    ledger_sql(&l,
               "SELECT ng.resv_start_if_due(r, t.t0() + '%d h') FROM "
               "ng.reservation r WHERE id = lpad('%d', 32, '0')::uuid",
               at_h, number);
}

/* What billd would do at T0 + hours. */
static void roll(double at_h)
{
    ledger_sql(&l, "SELECT api.billing_hold(t.t0() + %f * interval '1 h', 500)", at_h);
}

/* "HELD PAID DUE LOW END" in hours from T0, of reservation n; held in GPU-hours. */
static void expect(int n, const char *want)
{
    char *got = ledger_text(&l, "SELECT t.state(%d)", n);
    ck_assert_msg(strcmp(got, want) == 0, "reservation %d is %s, not %s", n, got, want);
    free(got);
}

static int64_t wallet(const char *tenant)
{
    return ledger_int(
        &l, "SELECT t.balance('wallet', id) FROM ng.tenant WHERE name = '%s'", tenant);
}

static int64_t events(const char *kind)
{
    return ledger_int(&l,
                      "SELECT count(*) FROM ng.event WHERE kind = '%s' AND "
                      "reservation_id = lpad('%d', 32, '0')::uuid",
                      kind, number);
}

static void top_up(const char *tenant, int64_t micro)
{
    ledger_sql(
        &l, "SELECT api.topup('%s', %" PRId64 ", ng.currency(), NULL, 'a', NULL, NULL)",
        tenant, micro);
}

/* ---- what is held ---------------------------------------------------------------- */

START_TEST(first_window)
{
    fresh("first", 1000 * HOUR_MICRO, "interval '1 day'");
    book_ok("first", 0, 24, 2); /* as long as the window: all of it */
    expect(number, "48 24 - - 24");
    book_ok("first", 2, 25, 2);
    expect(number, "48 26 14 - 27");
    book_ok("first", 0, 120, 1);
    expect(number, "24 24 12 - 120");
    ck_assert_int_eq(wallet("first"), (1000 - 120) * HOUR_MICRO);
    ledger_check(&l);
    /* Not all of it has to be there. */
    fresh("little", 24 * HOUR_MICRO, "interval '1 day'");
    char *got = book("little", 0, 24 * 30, 2);
    ck_assert_str_eq(got, "funds");
    free(got);
    book_ok("little", 0, 24 * 30, 1);
    expect(number, "24 24 12 - 720");
    /* A market may want all of it. */
    fresh("whole", 120 * HOUR_MICRO, "NULL::interval");
    book_ok("whole", 0, 120, 1);
    expect(number, "120 120 - - 120");
    ledger_check(&l);
}
END_TEST

START_TEST(rolls)
{
    fresh("rolls", 60 * HOUR_MICRO, "interval '1 day'");
    book_ok("rolls", 0, 60, 1);
    roll(11.9);
    expect(number, "24 24 12 - 60");
    roll(12);
    expect(number, "36 36 24 - 60");
    roll(12);
    roll(13);
    expect(number, "36 36 24 - 60");
    roll(24.5);
    expect(number, "48.5 48.5 36.5 - 60");
    roll(37);
    expect(number, "60 60 - - 60"); /* its end is nearer than a window */
    roll(59);
    expect(number, "60 60 - - 60");
    ck_assert_int_eq(wallet("rolls"), 0);
    ck_assert_int_eq(events("funds.low"), 0);
    ledger_check(&l);
}
END_TEST

START_TEST(nobody_looked)
{
    /* Behind paid_until: what ran unpaid is held as soon as somebody looks. */
    fresh("late", 100 * HOUR_MICRO, "interval '1 day'");
    book_ok("late", 0, 80, 1);
    roll(30);
    expect(number, "54 54 42 - 80");
    /* And when it is over by then. */
    book_ok("late", 0, 40, 1);
    ledger_sql(&l,
               "UPDATE ng.reservation SET state = 'ended', ended_at = t.t0() + "
               "interval '30 h' WHERE id = lpad('%d', 32, '0')::uuid",
               number);
    roll(50);
    ck_assert_int_eq(ledger_int(&l,
                                "SELECT held_micro FROM ng.reservation WHERE id = "
                                "lpad('%d', 32, '0')::uuid",
                                number),
                     30 * HOUR_MICRO + 16667);
    ledger_check(&l);
}
END_TEST

/* ---- money that does not reach --------------------------------------------------- */

/* Somebody's uncommitted row that refers to a lease keeps nobody from holding on. */
START_TEST(referred_to)
{
    PGconn *other = testdb_connect(l.db, "postgres", "neargpu");
    char *sql;
    fresh("ref", 100 * HOUR_MICRO, "interval '1 day'");
    book_ok("ref", 0, 80, 1);
    sql = xasprintf("BEGIN; SELECT 1 FROM ng.reservation WHERE id = "
                    "lpad('%d', 32, '0')::uuid FOR KEY SHARE",
                    number);
    testdb_sql(other, sql);
    roll(12);
    expect(number, "36 36 24 - 80");
    free(sql);
    PQfinish(other);
}
END_TEST

START_TEST(warned_then_topped_up)
{
    fresh("warned", 30 * HOUR_MICRO, "interval '1 day'");
    book_ok("warned", 0, 100, 1);
    roll(12); /* six of twelve hours are there: taken */
    expect(number, "30 30 12.017 12 100");
    ck_assert_int_eq(events("funds.low"), 1);
    ck_assert_int_eq(
        ledger_int(&l,
                   "SELECT (payload->>'short_micro')::bigint FROM ng.event WHERE "
                   "kind = 'funds.low' AND reservation_id = "
                   "lpad('%d', 32, '0')::uuid",
                   number),
        6 * HOUR_MICRO);
    roll(14);
    roll(20);
    ck_assert_int_eq(events("funds.low"), 1); /* told once */
    top_up("warned", 500 * HOUR_MICRO);
    roll(21);
    expect(number, "45 45 33 - 100");
    ck_assert_int_eq(events("reservation.unpaid"), 0);
    ledger_check(&l);
}
END_TEST

START_TEST(ends_where_money_does)
{
    fresh("broke", 24 * HOUR_MICRO, "interval '1 day'");
    book_ok("broke", 0, 100, 1);
    roll(12);
    ck_assert_int_eq(events("funds.low"), 1);
    expect(number, "24 24 12.017 12 100");
    roll(22.9);
    expect(number, "24 24 22.917 12 100");
    roll(23); /* an hour ahead it is settled */
    expect(number, "24 24 - 12 24");
    ck_assert_int_eq(events("reservation.unpaid"), 1);
    char *got = ledger_text(&l,
                            "SELECT reason || ' ' || state || ' ' || total_micro FROM "
                            "ng.reservation WHERE id = lpad('%d', 32, '0')::uuid",
                            number);
    ck_assert(strncmp(got, "the wallet paid for it until ", 29) == 0);
    ck_assert(strstr(got, "only active 24000000") != NULL);
    free(got);
    /* Its node is told the new end; the GPUs stay blocked till its teardown. */
    ck_assert_int_eq(
        ledger_int(&l,
                   "SELECT (ng.us(t.t0() + '24 h') = (ng.desired(%d, '{}', t.t0() + "
                   "'23 h')->'leases'->0->>'not_after_us')::bigint)::integer",
                   number),
        1);
    ck_assert_int_eq(ledger_int(&l,
                                "SELECT count(*) FROM ng.booking WHERE reservation_id "
                                "= lpad('%d', 32, '0')::uuid AND upper(during) = "
                                "t.t0() + '100 h'",
                                number),
                     1);
    ledger_check(&l);
    /* With money it can have its time again. */
    top_up("broke", 40 * HOUR_MICRO);
    ledger_sql(&l,
               "SELECT api.resv_extend(tenant_id, id, ng.us(t.t0() + '100 h'), 0, "
               "false, ng.us(t.t0() + '23 h')) FROM ng.reservation WHERE id = "
               "lpad('%d', 32, '0')::uuid",
               number);
    expect(number, "47 47 35 - 100");
    ledger_check(&l);
}
END_TEST

START_TEST(last_money_is_used)
{
    /* Less than a step is taken at the last moment only; then what comes is ended. */
    fresh("last", 24 * HOUR_MICRO + HOUR_MICRO / 2, "interval '1 day'");
    book_ok("last", 0, 100, 1);
    roll(12);
    expect(number, "24 24 12.017 12 100");
    roll(23);
    expect(number, "24.5 24.5 23.017 12 100"); /* now half an hour more, told anew */
    ck_assert_int_eq(events("funds.low"), 2);
    roll(23.5);
    expect(number, "24.5 24.5 - 12 24.5");
    ck_assert_int_eq(wallet("last"), 0);
    /* Nobody looked until it was over: it ends in some seconds. */
    fresh("over", 24 * HOUR_MICRO, "interval '1 day'");
    book_ok("over", 0, 100, 1);
    roll(30);
    ck_assert_int_eq(ledger_int(&l,
                                "SELECT extract(epoch FROM upper(during) - "
                                "lower(during)) FROM ng.reservation WHERE id = "
                                "lpad('%d', 32, '0')::uuid",
                                number),
                     30 * 3600 + 5);
    ledger_check(&l);
}
END_TEST

START_TEST(one_wallet)
{
    /* Who ends first comes first. */
    fresh("many", (24 + 24 + 14) * HOUR_MICRO, "interval '1 day'");
    book_ok("many", 1, 100, 1);
    book_ok("many", 0, 100, 1);
    roll(13);
    expect(number, "37 37 25 - 100");
    expect(number - 1, "25 26 13.017 13 101");
    ledger_check(&l);
}
END_TEST

START_TEST(budget)
{
    fresh("thrifty", 500 * HOUR_MICRO, "interval '1 day'");
    ledger_sql(&l, "SELECT api.budget_set(id, NULL, '{\"limit\": {\"currency\": "
                   "\"JPY\", \"micro\": 24000000}}') FROM ng.tenant WHERE name = "
                   "'thrifty'");
    book_ok("thrifty", 0, 100, 1);
    roll(12);
    roll(23);
    expect(number, "24 24 - 12 24");
    char *got = ledger_text(&l,
                            "SELECT reason FROM ng.reservation WHERE id = "
                            "lpad('%d', 32, '0')::uuid",
                            number);
    ck_assert(strncmp(got, "the budget paid for it until ", 29) == 0);
    free(got);
    ledger_check(&l);
}
END_TEST

/* ---- changes ----------------------------------------------------------------------
 */

START_TEST(changed)
{
    fresh("changed", 1000 * HOUR_MICRO, "interval '1 day'");
    book_ok("changed", 0, 20, 1);
    static const struct {
        int at_h, end_h;
        const char *want;
    } steps[] = {
        {1, 24, "24 24 - - 24"},     {2, 30, "26 26 14 - 30"},
        {3, 100, "27 27 15 - 100"},  {4, 40, "28 28 16 - 40"},
        {5, 20, "20 20 - - 20"},     {6, 26, "26 26 - - 26"},
        {7, 400, "31 31 19 - 400"},  {8, 32, "32 32 - - 32"},
        {31, 400, "55 55 43 - 400"},
    };
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        ledger_sql(&l,
                   "SELECT api.resv_extend(tenant_id, id, ng.us(t.t0() + '%d h'), 0, "
                   "false, ng.us(t.t0() + '%d h')) FROM ng.reservation WHERE id = "
                   "lpad('%d', 32, '0')::uuid",
                   steps[i].end_h, steps[i].at_h, number);
        char *got = ledger_text(
            &l, "SELECT regexp_replace(t.state(%d), '^[0-9.]+', t.net(%d)::text)",
            number, number);
        ck_assert_msg(strcmp(got, steps[i].want) == 0, "step %zu is %s, not %s", i, got,
                      steps[i].want);
        free(got);
        ledger_check(&l);
    }
    ck_assert_int_eq(wallet("changed"), (1000 - 55) * HOUR_MICRO);
    /* With a shorter window what is paid for stays so. */
    ledger_sql(&l, "UPDATE ng.market SET hold_window_us = 21600000000");
    ledger_sql(&l,
               "SELECT api.resv_extend(tenant_id, id, ng.us(t.t0() + '500 h'), 0, "
               "false, ng.us(t.t0() + '32 h')) FROM ng.reservation WHERE id = "
               "lpad('%d', 32, '0')::uuid",
               number);
    ck_assert_int_eq(wallet("changed"), (1000 - 55) * HOUR_MICRO);
    roll(52.5);
    ck_assert_int_eq(wallet("changed"), (1000 * 2 - 117) * HOUR_MICRO / 2);
    ledger_check(&l);
}
END_TEST

/* ---- random: the same bill as with the whole price held ---------------------------
 */

/* Leases of whatever length and window, extended and cut short, receipts as they come,
 * billd's rounds at random times: each is charged what it used times its price, and the
 * rest is back in the wallet. */
START_TEST(as_the_whole)
{
    enum { LEASES = 6 };
    struct {
        int no, gpus, at_h, end_h, seq;
        int64_t ms;
    } lease[LEASES];
    char name[16], window[32];
    int64_t money = 20000 * HOUR_MICRO, worth = 0;
    snprintf(name, sizeof(name), "random%d", _i);
    snprintf(window, sizeof(window), "interval '%d minutes'", 30 + pick(3000));
    fresh(name, money, window);
    for (int i = 0; i < LEASES; i++) {
        lease[i].gpus = 1 + pick(8);
        lease[i].at_h = pick(10);
        lease[i].end_h = lease[i].at_h + 1 + pick(100);
        book_ok(name, lease[i].at_h, lease[i].end_h - lease[i].at_h, lease[i].gpus);
        lease[i].no = number;
        lease[i].seq = 0;
        lease[i].ms = 0;
    }
    for (int h = 0; h < 112; h += 1 + pick(9)) {
        roll(h + pick(60) / 60.0);
        for (int i = 0; i < LEASES; i++) {
            if (h <= lease[i].at_h || h >= lease[i].end_h)
                continue;
            if (pick(6) == 0) {
                lease[i].end_h = h + 1 + pick(20);
                ledger_sql(&l,
                           "SELECT api.resv_extend(tenant_id, id, ng.us(t.t0() + '%d "
                           "h'), 0, false, ng.us(t.t0() + '%d h')) FROM ng.reservation "
                           "WHERE id = lpad('%d', 32, '0')::uuid",
                           lease[i].end_h, h, lease[i].no);
            }
            int64_t most = (h - lease[i].at_h) * 3600000LL * lease[i].gpus;
            lease[i].ms += pick((int)((most - lease[i].ms) / 2 + 1));
            ledger_sql(&l,
                       "SELECT t.receipt(lpad('%d', 32, '0')::uuid, %d, %d, '%s', "
                       "%" PRId64 ")",
                       lease[i].no, lease[i].no, lease[i].seq + 1,
                       lease[i].seq == 0 ? "ready" : "interval", lease[i].ms);
            lease[i].seq++;
        }
        if (pick(3) == 0)
            ledger_once(&l);
    }
    for (int i = 0; i < LEASES; i++)
        if (lease[i].seq > 0)
            ledger_sql(&l,
                       "SELECT t.receipt(lpad('%d', 32, '0')::uuid, %d, %d, "
                       "'teardown', %" PRId64 ")",
                       lease[i].no, lease[i].no, lease[i].seq + 1, lease[i].ms);
    ledger_sql(&l, "SELECT api.transitions(ng.us(now()), 0)");
    ledger_once(&l);
    ledger_sql(&l, "SELECT api.billing_release('0', 1000)");
    for (int i = 0; i < LEASES; i++) {
        int64_t captured =
            ledger_int(&l,
                       "SELECT captured_micro FROM ng.reservation WHERE id = "
                       "lpad('%d', 32, '0')::uuid",
                       lease[i].no);
        ck_assert_msg(captured == (lease[i].ms * HOUR_MICRO + 1800000) / 3600000,
                      "seed %u: %d GPUs' %" PRId64 " ms are billed %" PRId64, seed,
                      lease[i].gpus, lease[i].ms, captured);
        worth += captured;
    }
    ck_assert_int_eq(wallet(name), money - worth);
    ledger_check(&l);
}
END_TEST

START_TEST(killed)
{
    fresh("killed", 100000 * HOUR_MICRO, "interval '12 h'");
    for (int i = 0; i < 40; i++)
        book_ok("killed", 0, 24 * 7, 1);
    for (int i = 0; i < 6; i++) {
        pid_t pid =
            ledger_billd_start(&l, (const char *const[]){"--interval", "100ms", NULL});
        nanosleep(&(struct timespec){.tv_nsec = 1000000 * (10 + pick(60))}, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        ledger_check(&l);
    }
    ledger_once(&l);
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM ng.reservation r JOIN "
                                    "ng.tenant t ON t.id = r.tenant_id WHERE t.name = "
                                    "'killed' AND r.paid_until > now() + interval '11 "
                                    "h' AND held_micro = ng.resv_price(r.id, "
                                    "r.paid_until)"),
                     40);
    ledger_check(&l);
}
END_TEST

static const char helpers[] =
    "CREATE TABLE t.zero AS SELECT date_trunc('second', now()) - interval '5 days' AS "
    "t;"
    "CREATE FUNCTION t.t0() RETURNS timestamptz LANGUAGE sql AS 'SELECT t FROM t.zero';"
    "CREATE FUNCTION t.h(p timestamptz) RETURNS text LANGUAGE sql AS"
    "  $$ SELECT coalesce(trim_scale(round((extract(epoch FROM p - t.t0()) / "
    "3600)::numeric, 3))::text, '-') $$;"
    "CREATE FUNCTION t.net(n integer) RETURNS numeric LANGUAGE sql AS"
    "  $$ SELECT trim_scale((held_micro - released_micro) / 1000000.0) FROM "
    "ng.reservation WHERE id = lpad(n::text, 32, '0')::uuid $$;"
    "CREATE FUNCTION t.state(n integer) RETURNS text LANGUAGE sql AS"
    "  $$ SELECT concat_ws(' ', trim_scale(held_micro / 1000000.0), "
    "t.h(coalesce(paid_until, upper(during))), t.h(hold_due_at), t.h(funds_low_at), "
    "t.h(upper(during))) FROM ng.reservation WHERE id = lpad(n::text, 32, "
    "'0')::uuid $$;";

int main(int argc, char **argv)
{
    seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : (unsigned)time(NULL);
    printf("seed %u\n", seed);
    ledger_open(&l, NULL);
    testdb_sql(l.pg, helpers);
    testdb_sql(l.pg, "SELECT t.node('n' || i, 'tokyo', 'acme', 8) FROM "
                     "generate_series(1, 200) i");
    Suite *s = suite_create("hold");
    TCase *t = tcase_create("hold");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, first_window);
    tcase_add_test(t, rolls);
    tcase_add_test(t, nobody_looked);
    tcase_add_test(t, referred_to);
    tcase_add_test(t, warned_then_topped_up);
    tcase_add_test(t, ends_where_money_does);
    tcase_add_test(t, last_money_is_used);
    tcase_add_test(t, one_wallet);
    tcase_add_test(t, budget);
    tcase_add_test(t, changed);
    tcase_add_loop_test(t, as_the_whole, 0, 6);
    tcase_add_test(t, killed);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_set_fork_status(runner, CK_NOFORK); /* the database is one process's */
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    ledger_close(&l);
    return failed == 0 ? 0 : 1;
}
