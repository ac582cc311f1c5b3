/* neargpu-billd as a process, and invoices month by month. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"
#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

static struct ledger l;

static void pause_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000},
              NULL);
}

/* A reservation of one GPU of node n, of an hour 100 days ago to tomorrow. */
static void book(int n, const char *tenant, int first, int number)
{
    char *got = ledger_text(
        &l,
        "SELECT t.book(lpad('%d', 32, '0')::uuid, '%s', now() - interval '100 days',"
        " now() + interval '1 day', ARRAY[%d], ARRAY[%d], ARRAY[1], 1000000)",
        number, tenant, n, first);
    ck_assert_str_eq(got, "ok");
    free(got);
}

static void receipt(int number, int seq, const char *kind, long long gpu_ms)
{
    char *got = ledger_text(
        &l,
        "SELECT t.receipt(lpad('%d', 32, '0')::uuid, (SELECT node_id FROM ng.booking "
        "WHERE reservation_id = lpad('%d', 32, '0')::uuid), %d, '%s', %lld)",
        number, number, seq, kind, gpu_ms);
    ck_assert_str_eq(got, "");
    free(got);
}

static int64_t rated(int number)
{
    return ledger_int(&l,
                      "SELECT count(*) FROM ng.receipt r JOIN ng.meter m USING "
                      "(reservation_id, node_id) WHERE r.seq <= m.seq AND "
                      "reservation_id = lpad('%d', 32, '0')::uuid",
                      number);
}

static void wait_rated(int number, int64_t count)
{
    int64_t end_us = clock_boot_us() + 20000000;
    while (rated(number) < count && clock_boot_us() < end_us)
        pause_ms(20);
    ck_assert_int_eq(rated(number), count);
}

/* ---- invoices ----------------------------------------------------------------- */

static void expect(const char *want, const char *sql)
{
    char *got = testdb_one(l.pg, sql);
    ck_assert_msg(strcmp(got, want) == 0, "%s\n is %s\n not %s", sql, got, want);
    free(got);
}

#define INVOICES(tenant)                                                            \
    "SELECT string_agg(concat_ws(' ', number, lower(period) AT TIME ZONE t.zone, "  \
    "upper(period) AT TIME ZONE t.zone, quantity_gpu_ms, amount_micro, tax_micro)," \
    " E'\\n' ORDER BY period) FROM ng.invoice i JOIN ng.tenant t ON t.id = "        \
    "tenant_id JOIN ng.invoice_line x USING (number) WHERE line = 1 AND t.name = "  \
    "'" tenant "'"

/* Use captured in November, in December's last microsecond and in January's first: each
 * month its own invoice, its own quantity; the year's numbers begin anew. */
START_TEST(months)
{
    ledger_sql(&l, "SELECT t.tenant('monthly', 'Asia/Tokyo', 100000000000)");
    book(1, "monthly", 0, 1);
    receipt(1, 1, "ready", 0);
    for (int seq = 2; seq <= 4; seq++) { /* a round each: a capture each */
        receipt(1, seq, "interval", 36000000LL * (seq - 1) + (seq == 4));
        ledger_once(&l);
    }
    testdb_sql(
        l.pg,
        "BEGIN; SET LOCAL session_replication_role = replica;"
        "UPDATE ng.transfer SET at = CASE right(ref, 2) WHEN '/2' THEN "
        "timestamptz '2025-11-15 00:00+00' WHEN '/3' THEN '2025-12-31 "
        "14:59:59.999999+00'"
        " ELSE '2025-12-31 15:00+00' END WHERE kind IN ('capture', 'fee'); COMMIT");
    ledger_once(&l);
    expect("INV-2025-000001 2025-11-01 00:00:00 2025-12-01 00:00:00 36000000 10000000 "
           "1000000\n"
           "INV-2026-000001 2025-12-01 00:00:00 2026-01-01 00:00:00 36000000 10000000 "
           "1000000\n"
           "INV-2026-000002 2026-01-01 00:00:00 2026-02-01 00:00:00 36000001 10000000 "
           "1000000",
           INVOICES("monthly"));
    ledger_once(&l);
    expect("3", "SELECT count(*) FROM ng.invoice");
    ledger_check(&l);
}
END_TEST

START_TEST(numbers_grow_past_six_digits)
{
    testdb_sql(
        l.pg,
        "BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO "
        "ng.invoice SELECT 'INV-2024-999999', tenant_id, currency, "
        "'[2000-01-01,2000-02-01)', now(), 0, 0, 0, 0, '{}' FROM ng.invoice LIMIT "
        "1; INSERT INTO ng.invoice SELECT 'INV-2024-1000000', tenant_id, currency,"
        " '[2000-02-01,2000-03-01)', now(), 0, 0, 0, 0, '{}' FROM ng.invoice "
        "LIMIT 1");
    expect("INV-2024-1000001", "SELECT ng.invoice_number('2024')");
    testdb_sql(l.pg, "ROLLBACK");
    expect("INV-2024-000001", "SELECT ng.invoice_number('2024')");
}
END_TEST

/* The hold takes all the wallet had: tax is receivable, and taken from the next top-up.
 */
START_TEST(receivable_is_collected)
{
    char *number, want[80];
    ledger_sql(&l, "SELECT t.tenant('poor', 'UTC', 36000000)");
    ck_assert_int_eq(
        ledger_int(&l, "SELECT count(*) FROM t.book(lpad('2', 32, '0')::uuid, 'poor', "
                       "now() - interval '36 h', now(), ARRAY[1], "
                       "ARRAY[1], ARRAY[1], 1000000) b WHERE b = 'ok'"),
        1);
    receipt(2, 1, "ready", 0);
    receipt(2, 2, "teardown", 36 * 3600000LL);
    ledger_once(&l);
    ck_assert_int_eq(
        LEDGER_BILLD(&l, &number, "invoice", "--tenant", "poor", "--until", "now"), 0);
    time_t now = time(NULL);
    struct tm tm;
    snprintf(want, sizeof want, "INV-%d-0000", 1900 + gmtime_r(&now, &tm)->tm_year);
    ck_assert_msg(strncmp(number, want, strlen(want)) == 0, "%s", number);
    free(number);
    expect("0 -4000000",
           "SELECT t.balance('wallet', id) || ' ' || t.balance('receivable', id) FROM "
           "ng.tenant WHERE name = 'poor'");
    testdb_sql(l.pg, "SELECT api.topup('poor', 3000000, 'JPY', 'r1', 'a', NULL, NULL)");
    ledger_once(&l);
    testdb_sql(l.pg, "SELECT api.topup('poor', 3000000, 'JPY', 'r2', 'a', NULL, NULL)");
    ledger_once(&l);
    ledger_once(&l);
    expect("2000000 0",
           "SELECT t.balance('wallet', id) || ' ' || t.balance('receivable', id) FROM "
           "ng.tenant WHERE name = 'poor'");
    ledger_check(&l);
}
END_TEST

/* An invoice that ends after the clock's now: what is captured next belongs after it.
 */
START_TEST(clock_set_back)
{
    ledger_sql(&l, "SELECT t.tenant('clock', 'UTC', 100000000000)");
    book(1, "clock", 2, 3);
    receipt(3, 1, "ready", 0);
    testdb_sql(l.pg,
               "BEGIN; INSERT INTO ng.invoice SELECT "
               "ng.invoice_number('2026'), id, 'JPY', tstzrange(now() - interval "
               "'1 h', now() + interval '1 h'), now(), 0, 100000, 0, 0, '{}' FROM "
               "ng.tenant WHERE name = 'clock'; INSERT INTO ng.invoice_line SELECT "
               "number, 1, '', NULL, 0, 0 FROM ng.invoice JOIN ng.tenant t ON t.id "
               "= tenant_id WHERE name = 'clock'; INSERT INTO ng.invoice_tax SELECT "
               "number, 'standard', 100000, 0, 0 FROM ng.invoice JOIN ng.tenant t ON "
               "t.id = tenant_id WHERE name = 'clock'; COMMIT");
    receipt(3, 2, "interval", 3600000);
    ledger_once(&l);
    expect("t",
           "SELECT bool_and(at = (SELECT max(upper(period)) FROM ng.invoice)) FROM "
           "ng.transfer WHERE reservation_id = lpad('3', 32, '0')::uuid AND kind IN "
           "('capture', 'fee')");
    ledger_check(&l);
}
END_TEST

/* A node that reports more use than time has passed is paid for the time, and a minute.
 */
START_TEST(use_needs_time)
{
    ck_assert_int_eq(
        ledger_int(&l, "SELECT count(*) FROM t.book(lpad('4', 32, '0')::uuid, 'clock', "
                       "now() - interval '1 h', now() + interval '9 h', ARRAY[1], "
                       "ARRAY[3], ARRAY[2], 1000000) b WHERE b = 'ok'"),
        1);
    receipt(4, 1, "ready", 0);
    receipt(4, 2, "interval", 20 * 3600000LL);
    ledger_once(&l);
    /* 2 x (1 h + 1 min) at 1 JPY = 2.0333, and what passed since the booking */
    expect("t", "SELECT amount_micro BETWEEN 2033333 AND 2040000 FROM ng.meter WHERE "
                "reservation_id = lpad('4', 32, '0')::uuid");
    expect("1", "SELECT count(*) FROM report.check_amount"); /* it shows */
    ledger_sql(&l, "SELECT api.resv_cancel(NULL, lpad('4', 32, '0')::uuid, 'x', "
                   "false, ng.us(now()))");
    receipt(4, 3, "teardown", 20 * 3600000LL);
    ledger_once(&l);
    ledger_check(&l);
}
END_TEST

/* A credit line is no money: the bank has nothing, and the wallet may go below zero. */
START_TEST(credit_line)
{
    testdb_sql(l.pg, "SELECT api.tenant_create('trusted', 'UTC', 36000000, "
                     "sha256('trusted'), 'a', NULL, NULL)");
    expect("36000000 0",
           "SELECT api.wallet(id, 5)->>'available_micro' || ' ' || "
           "t.balance('wallet', id) FROM ng.tenant WHERE name = 'trusted'");
    static const char book_sql[] =
        "SELECT t.book(lpad('%d', 32, '0')::uuid, 'trusted', now() - interval '%d h', "
        "now(), ARRAY[1], ARRAY[%d], ARRAY[1], 1000000)";
    char *got = ledger_text(&l, book_sql, 5, 36, 6);
    ck_assert_str_eq(got, "ok");
    free(got);
    got = ledger_text(&l, book_sql, 6, 1, 7);
    ck_assert_str_eq(got, "funds");
    free(got);
    expect("0 -36000000",
           "SELECT api.wallet(id, 5)->>'available_micro' || ' ' || "
           "t.balance('wallet', id) FROM ng.tenant WHERE name = 'trusted'");
    ledger_check(&l);
}
END_TEST

/* ---- the process -------------------------------------------------------------- */

START_TEST(errors_are_one_line)
{
    static const struct {
        const char *args[5], *text;
        int status;
    } t[] = {
        {{"invoice", "--tenant", "nobody", "--until", "now"},
         "neargpu-billd: invoice of nobody: no tenant is named nobody\n",
         5},
        {{"invoice", "--tenant", "lab"},
         "neargpu-billd: invoice needs --tenant NAME and --until TIME\n",
         2},
        {{"reverse", "--transfer", "x"},
         "neargpu-billd: --transfer: 'x' is not a number\n",
         2},
        {{"reverse", "--transfer", "99999"},
         "neargpu-billd: there is no transfer 99999\n",
         5},
        {{"check"}, "all checks are empty\n", 0},
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        const char *args[6] = {NULL};
        char *got;
        memcpy(args, t[i].args, sizeof t[i].args);
        int status = ledger_billd(&l, &got, args);
        ck_assert_str_eq(got, t[i].text);
        ck_assert_int_eq(status, t[i].status);
        free(got);
    }
    char *got;
    ck_assert_int_eq(LEDGER_BILLD(&l, &got, "invoice", "--tenant", "monthly", "--until",
                                  "2999-01-01T00:00:00Z"),
                     0);
    ck_assert_str_eq(got, "nothing to invoice\n");
    free(got);
    testdb_sql(l.pg, "INSERT INTO ng.receipt_fork VALUES (lpad('1', 32, '0')::uuid, 1, "
                     "1, 'x')");
    ck_assert_int_eq(LEDGER_BILLD(&l, &got, "check"), 6);
    ck_assert_str_eq(got, "check_receipt_fork: 1 rows\n"
                          "neargpu-billd: what must be empty is not\n");
    free(got);
    testdb_sql(l.pg, "BEGIN; SET LOCAL session_replication_role = replica; "
                     "DELETE FROM ng.receipt_fork; COMMIT");
}
END_TEST

/* A node's clock may be a minute ahead: what it told is charged, and the end is not
 * moved to before that. */
START_TEST(an_end_before_what_was_charged)
{
    ledger_sql(&l, "SELECT t.tenant('ahead', 'UTC', 100000000000)");
    char *got = ledger_text(
        &l, "SELECT t.book(lpad('40', 32, '0')::uuid, 'ahead', now() - interval '1 h', "
            "now() + interval '1 h', ARRAY[t.node('n3', 'tokyo', 'acme', 1)], "
            "ARRAY[0], ARRAY[1], 3600000000)");
    ck_assert_str_eq(got, "ok");
    free(got);
    receipt(40, 1, "ready", 0);
    receipt(40, 2, "interval", 3650000);
    ledger_once(&l);
    ck_assert_str_eq(testdb_state(l.pg,
                                  "SELECT api.resv_extend(NULL, lpad('40', 32, "
                                  "'0')::uuid, ng.us(now()) + 10000000, 0, false, "
                                  "ng.us(now()))"),
                     "NG006");
    ledger_sql(&l,
               "SELECT api.resv_extend(NULL, lpad('40', 32, '0')::uuid, ng.us(now()) "
               "+ 60000000, 0, false, ng.us(now()))");
    ledger_check(&l);
}
END_TEST

START_TEST(top_up_is_reversed_once)
{
    char id[24], *got;
    ledger_sql(&l, "SELECT t.tenant('typo', 'UTC', 0)");
    testdb_sql(l.pg,
               "SELECT api.topup('typo', 9000000, 'JPY', 'oops', 'a', NULL, NULL)");
    snprintf(
        id, sizeof id, "%lld",
        (long long)ledger_int(&l, "SELECT id FROM ng.transfer WHERE ref = 'oops'"));
    ck_assert_int_eq(LEDGER_BILLD(&l, NULL, "reverse", "--transfer", id), 0);
    ck_assert_int_eq(LEDGER_BILLD(&l, &got, "reverse", "--transfer", id), 6);
    ck_assert_ptr_nonnull(strstr(got, "was reversed before"));
    free(got);
    expect("0", "SELECT t.balance('wallet', id) FROM ng.tenant WHERE name = 'typo'");
    ledger_check(&l);
}
END_TEST

/* TERM while it sleeps, and while it waits for a lock that another session holds. */
START_TEST(ends_at_once)
{
    for (int locked = 0; locked < 2; locked++) {
        int status;
        if (locked) {
            receipt(1, 5, "interval", 144000001);
            testdb_sql(l.pg, "SELECT pg_advisory_lock(hashtext('neargpu.billing'))");
        }
        pid_t pid =
            ledger_billd_start(&l, (const char *const[]){"--interval", "1h", NULL});
        pause_ms(500);
        int64_t t0 = clock_boot_us();
        ck_assert_int_eq(kill(pid, SIGTERM), 0);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_lt(clock_boot_us() - t0, 200000);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", status);
        if (locked)
            testdb_sql(l.pg, "SELECT pg_advisory_unlock_all()");
    }
    ledger_once(&l);
    ledger_check(&l);
}
END_TEST

START_TEST(database_goes_away)
{
    int status;
    pid_t pid =
        ledger_billd_start(&l, (const char *const[]){"--interval", "100ms", NULL});
    receipt(1, 6, "interval", 150000000);
    wait_rated(1, 6);
    PQfinish(l.pg);
    testdb_kill(l.db);
    pause_ms(400);
    ck_assert_int_eq(waitpid(pid, &status, WNOHANG), 0); /* it goes on */
    testdb_again(l.db);
    l.pg = testdb_connect(l.db, "postgres", "neargpu");
    receipt(1, 7, "interval", 151000000);
    wait_rated(1, 7);
    kill(pid, SIGTERM);
    waitpid(pid, &status, 0);
    ledger_check(&l);
}
END_TEST

START_TEST(two_at_once)
{
    pid_t pid[2];
    int status;
    ledger_sql(&l, "SELECT t.tenant('busy', 'UTC', 100000000000)");
    for (int r = 0; r < 4; r++)
        book(2, "busy", r, 10 + r);
    for (int i = 0; i < 2; i++)
        pid[i] =
            ledger_billd_start(&l, (const char *const[]){"--interval", "100ms", NULL});
    for (int seq = 1; seq <= 60; seq++)
        for (int r = 0; r < 4; r++)
            receipt(10 + r, seq,
                    seq == 1    ? "ready"
                    : seq == 60 ? "teardown"
                                : "interval",
                    1000003LL * (seq - 1));
    for (int r = 0; r < 4; r++)
        wait_rated(10 + r, 60);
    for (int i = 0; i < 2; i++) {
        kill(pid[i], SIGTERM);
        waitpid(pid[i], &status, 0);
        ck_assert_int_eq(status, 0);
    }
    ledger_once(&l);
    /* 59,000,177 ms at 1 JPY/h = 16,388,938.06; node 2 belongs to zero: no own fee. */
    expect("16388938", "SELECT string_agg(DISTINCT amount_micro::text, ' ') FROM "
                       "ng.meter WHERE node_id = 2");
    ledger_check(&l);
}
END_TEST

/* A receipt without its predecessor (only tampering makes one) waits alone. */
START_TEST(gap_stops_no_other)
{
    book(2, "busy", 5, 20);
    book(2, "busy", 6, 21);
    testdb_sql(
        l.pg,
        "INSERT INTO ng.receipt (reservation_id, node_id, seq, hash, kind, during,"
        " gpu_ms, jws) SELECT lpad('20', 32, '0')::uuid, 2, n, sha256('x'), "
        "'interval', '[2026-01-01,2026-01-02)', 1, '' FROM generate_series(2, "
        "1500) n");
    receipt(21, 1, "ready", 0);
    ledger_once(&l);
    ck_assert_int_eq(rated(21), 1);
    ck_assert_int_eq(rated(20), 0);
    testdb_sql(l.pg,
               "INSERT INTO ng.receipt (reservation_id, node_id, seq, hash, kind, "
               "during, gpu_ms, jws) VALUES (lpad('20', 32, '0')::uuid, 2, 1, "
               "sha256('x'), 'ready', '[2026-01-01,2026-01-02)', 0, '')");
    ledger_once(&l);
    ck_assert_int_eq(rated(20), 1500);
    ledger_check(&l);
}
END_TEST

/* Many sessions move money between the same two accounts, both ways, and others rate:
 * none waits for another in a ring. */
START_TEST(no_deadlock)
{
    enum { SESSIONS = 6, MOVES = 150 };
    static const char move[] =
        "SELECT ng.post('hold', ng.account_of('%s', id, NULL, 'JPY'), "
        "ng.account_of('%s',"
        " id, NULL, 'JPY'), 'JPY', %d, NULL, NULL) FROM ng.tenant WHERE name = 'busy'";
    pid_t pid[SESSIONS];
    ledger_sql(&l, move, "wallet", "hold",
               SESSIONS * MOVES); /* so that none is short */
    for (int s = 0; s < SESSIONS; s++) {
        pid[s] = fork();
        ck_assert_int_ge(pid[s], 0);
        if (pid[s] > 0)
            continue;
        PGconn *pg = PQconnectdb(testdb_conninfo(l.db, "postgres", "neargpu"));
        for (int i = 0; i < MOVES; i++) {
            char sql[400];
            snprintf(sql, sizeof sql, move, s % 2 == 0 ? "wallet" : "hold",
                     s % 2 == 0 ? "hold" : "wallet", 1);
            if (strcmp(testdb_state(pg, sql), "00000") != 0)
                _exit(1);
        }
        PQfinish(pg);
        _exit(0);
    }
    for (int s = 0; s < SESSIONS; s++) {
        int status;
        waitpid(pid[s], &status, 0);
        ck_assert_int_eq(status, 0);
    }
    ledger_sql(&l, move, "hold", "wallet", SESSIONS * MOVES);
    ledger_check(&l);
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1); /* one database for all cases */
    ledger_open(&l, NULL);
    testdb_sql(l.pg, "SELECT t.node('n1', 'tokyo', 'acme', 8), t.node('n2', 'tokyo', "
                     "'zero', 8)");
    Suite *suite = suite_create("billing");
    TCase *tc = tcase_create("billing");
    tcase_add_test(tc, months);
    tcase_add_test(tc, numbers_grow_past_six_digits);
    tcase_add_test(tc, receivable_is_collected);
    tcase_add_test(tc, errors_are_one_line);
    tcase_add_test(tc, top_up_is_reversed_once);
    tcase_add_test(tc, an_end_before_what_was_charged);
    tcase_add_test(tc, clock_set_back);
    tcase_add_test(tc, credit_line);
    tcase_add_test(tc, use_needs_time);
    tcase_add_test(tc, ends_at_once);
    tcase_add_test(tc, database_goes_away);
    tcase_add_test(tc, two_at_once);
    tcase_add_test(tc, no_deadlock);
    tcase_add_test(tc, gap_stops_no_other);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    ledger_close(&l);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
