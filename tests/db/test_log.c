/* The verifiable log on a real PostgreSQL: every record gets its leaf, whoever
 * sequences and whenever it is killed; and what a superuser alters, removes or replaces
 * is found. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"
#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

static struct ledger l;
static char dir[64], *key;

static void pause_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000},
              NULL);
}

static void begin(void)
{
    ledger_open(&l, NULL);
    snprintf(dir, sizeof(dir), "/tmp/neargpu-log.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    key = xasprintf("%s/log.key", dir);
    ledger_sql(&l, "SELECT t.tenant('alpha', 'Asia/Tokyo', 500000000000),"
                   " t.node('n1', 'tokyo', 'acme', 8)");
}

static void end(void)
{
    struct err err;
    ledger_close(&l);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
    free(key);
}

static void sequence(void)
{
    char *got;
    int status = LEDGER_BILLD(&l, &got, "--once", "--log-key", key);
    ck_assert_msg(status == 0, "%s", got);
    free(got);
}

static void expect_clean(void)
{
    char *got;
    int status = LEDGER_BILLD(&l, &got, "verify-log");
    ck_assert_msg(status == 0, "%s", got);
    free(got);
}

static void expect_breach(const char *what)
{
    char *got;
    int status = LEDGER_BILLD(&l, &got, "verify-log");
    ck_assert_int_eq(status, 6);
    ck_assert_msg(strstr(got, what) != NULL, "'%s' is not in:\n%s", what, got);
    free(got);
}

/* As the superuser who knows how to get round triggers. */
static void forge(const char *sql)
{
    ledger_sql(&l, "BEGIN; SET LOCAL session_replication_role = replica; %s; COMMIT",
               sql);
}

static void topup(int n)
{
    ledger_sql(
        &l, "SELECT api.topup('alpha', 1000000, 'JPY', 'more/%d', 'a', NULL, NULL)", n);
}

/* Every record has one leaf, indexes are dense, nothing waits. */
static void expect_whole(void)
{
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM ng.log_todo"), 0);
    ck_assert_int_eq(ledger_int(&l, "SELECT (SELECT count(*) FROM ng.transfer) + "
                                    "(SELECT count(*) FROM ng.receipt) + (SELECT "
                                    "count(*) FROM ng.invoice) + (SELECT count(*) "
                                    "FROM ng.price WHERE lower(during) IS NOT NULL) + "
                                    "(SELECT count(*) FROM ng.agreed)"),
                     ledger_int(&l, "SELECT count(*) FROM ng.log_leaf"));
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM ng.log g WHERE size <> "
                                    "(SELECT count(*) FROM ng.log_leaf WHERE log = "
                                    "name) OR size <> coalesce((SELECT max(index) + 1 "
                                    "FROM ng.log_leaf WHERE log = name), 0)"),
                     0);
}

/* A reservation of an hour, used and invoiced: all kinds of records. */
static void trade(void)
{
    ledger_sql(&l,
               "INSERT INTO ng.price (node_id, during, currency, per_gpu_hour_micro, "
               "set_by) SELECT id, tstzrange(now(), NULL), 'JPY', 300000000, 'test' "
               "FROM ng.node");
    char *got = ledger_text(
        &l, "SELECT t.book(lpad('1', 32, '0')::uuid, 'alpha', now() - interval '1 "
            "hour', now() + interval '1 hour', ARRAY[1], ARRAY[1], ARRAY[2], "
            "300000000)");
    ck_assert_str_eq(got, "ok");
    free(got);
    ledger_sql(&l, "SELECT t.receipt(lpad('1', 32, '0')::uuid, 1, 1, 'ready', 0),"
                   " t.receipt(lpad('1', 32, '0')::uuid, 1, 2, 'interval', 60000),"
                   " t.receipt(lpad('1', 32, '0')::uuid, 1, 3, 'teardown', 120000)");
    sequence();
    ck_assert_int_eq(
        LEDGER_BILLD(&l, &got, "invoice", "--tenant", "alpha", "--until", "now"), 0);
    free(got);
    sequence();
}

START_TEST(test_kept)
{
    begin();
    ck_assert_int_gt(ledger_int(&l, "SELECT count(*) FROM ng.log_todo"), 0);
    trade();
    expect_whole();
    expect_clean();
    ck_assert_int_eq(ledger_int(&l, "SELECT count(DISTINCT kind) FROM ng.log_leaf"), 5);
    /* A round without anything new signs nothing new. */
    int64_t heads = ledger_int(&l, "SELECT count(*) FROM ng.log_checkpoint");
    sequence();
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM ng.log_checkpoint"), heads);
    /* Beyond one tile, and one batch. */
    ledger_sql(&l, "SELECT api.topup('alpha', 1000000, 'JPY', 'bulk/' || n, 'a', NULL, "
                   "NULL) FROM generate_series(1, 2300) n");
    sequence();
    expect_whole();
    expect_clean();
    ck_assert_int_ge(ledger_int(&l, "SELECT count(*) FROM ng.log_tile WHERE level = 1"),
                     1);
    /* Another key is another log. */
    char *other = xasprintf("%s/other.key", dir), *got;
    topup(1);
    (void)LEDGER_BILLD(&l, &got, "--once", "--log-key", other);
    ck_assert_msg(strstr(got, "another key would begin another log") != NULL, "%s",
                  got);
    free(got);
    free(other);
    sequence();
    expect_clean();
    end();
}
END_TEST

START_TEST(test_found)
{
    static const struct {
        const char *sql, *undo, *what;
    } rows[] = {
        {"UPDATE ng.transfer SET amount_micro = amount_micro + 1 WHERE id = 1",
         "UPDATE ng.transfer SET amount_micro = amount_micro - 1 WHERE id = 1",
         "transfer 1 was altered"},
        {"UPDATE ng.receipt SET jws = jws || 'y' WHERE seq = 2",
         "UPDATE ng.receipt SET jws = rtrim(jws, 'y') WHERE seq = 2",
         "/1/2 was altered"},
        {"UPDATE ng.receipt SET gpu_ms = gpu_ms + 1 WHERE seq = 2",
         "UPDATE ng.receipt SET gpu_ms = gpu_ms - 1 WHERE seq = 2", "/1/2 was altered"},
        {"UPDATE ng.invoice_line SET description = description || '.'",
         "UPDATE ng.invoice_line SET description = rtrim(description, '.')",
         "invoice "},
        {"UPDATE ng.price SET per_gpu_hour_micro = per_gpu_hour_micro + 1",
         "UPDATE ng.price SET per_gpu_hour_micro = per_gpu_hour_micro - 1", "price 1/"},
        {"UPDATE ng.booking SET per_gpu_hour_micro = per_gpu_hour_micro + 1",
         "UPDATE ng.booking SET per_gpu_hour_micro = per_gpu_hour_micro - 1",
         "agreed 00000000-0000-0000-0000-000000000001/1 was altered"},
        {"UPDATE ng.booking SET fee_ppm = fee_ppm + 1",
         "UPDATE ng.booking SET fee_ppm = fee_ppm - 1", "was altered"},
        {"UPDATE ng.agreed SET bookings = jsonb_set(bookings, "
         "'{0,per_gpu_hour_micro}', '299999999')",
         "UPDATE ng.agreed SET bookings = jsonb_set(bookings, "
         "'{0,per_gpu_hour_micro}', '300000000')",
         "/1 was altered"},
        {"UPDATE ng.booking SET per_gpu_hour_micro = 1; UPDATE ng.agreed SET bookings "
         "= jsonb_set(bookings, '{0,per_gpu_hour_micro}', '1')",
         "UPDATE ng.booking SET per_gpu_hour_micro = 300000000; UPDATE ng.agreed SET "
         "bookings = jsonb_set(bookings, '{0,per_gpu_hour_micro}', '300000000')",
         "/1 was altered"},
        {"CREATE TABLE t.gone AS SELECT * FROM ng.transfer WHERE id = 2; DELETE FROM "
         "ng.transfer WHERE id = 2",
         "INSERT INTO ng.transfer OVERRIDING SYSTEM VALUE SELECT * FROM t.gone",
         "transfer 2 was removed"},
        {"CREATE TABLE t.head AS SELECT * FROM ng.log_checkpoint WHERE log = 'ledger' "
         "ORDER BY size DESC LIMIT 1; UPDATE ng.log_checkpoint c SET note = o.note "
         "FROM "
         "ng.log_checkpoint o, t.head h WHERE c.log = h.log AND c.size = h.size AND "
         "o.log = 'usage'",
         "UPDATE ng.log_checkpoint c SET note = h.note FROM t.head h WHERE c.log = "
         "h.log AND c.size = h.size",
         "log ledger: head"},
        {"CREATE TABLE t.leaf AS SELECT * FROM ng.log_leaf WHERE log = 'ledger' AND "
         "index = 1; UPDATE ng.log_leaf SET leaf = sha256('x') WHERE log = 'ledger' "
         "AND "
         "index = 1",
         "UPDATE ng.log_leaf SET leaf = (SELECT leaf FROM t.leaf) WHERE log = 'ledger' "
         "AND index = 1",
         "is not that of its leaves"},
    };
    begin();
    trade();
    expect_clean();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        forge(rows[i].sql);
        expect_breach(rows[i].what);
        forge(rows[i].undo);
        expect_clean();
    }
    /* The last leaf and its row, with the size set back: the head of before is missing.
     */
    forge("DELETE FROM ng.log_checkpoint c USING ng.log g WHERE c.log = g.name AND "
          "c.size = g.size AND g.name = 'ledger'");
    expect_breach("its last head is missing");
    end();
}
END_TEST

/* Many records of one statement wait in few rows. The sequencer takes whole rows, and a
 * row goes when all of it has its place: a part is not an append. */
START_TEST(test_queue)
{
    begin();
    sequence();
    char *waiting = NULL;
    ledger_sql(&l,
               "SELECT ng.post_batch('topup', 'JPY', array_agg(b), array_agg(w), "
               "array_agg(n::bigint), array_agg(NULL::uuid), array_agg(NULL::text)) "
               "FROM generate_series(0, 250) n, ng.account_of('bank', NULL, NULL, "
               "'JPY') b, ng.account_of('wallet', (SELECT id FROM ng.tenant WHERE "
               "name = 'alpha'), NULL, 'JPY') w");
    waiting = ledger_text(&l, "SELECT string_agg(cardinality(refs)::text, ' ' ORDER BY "
                              "id) FROM ng.log_todo");
    ck_assert_str_eq(waiting, "100 100 50");
    free(waiting);
    /* As many rows as begin within the limit, in the order of their making. */
    ck_assert_int_eq(
        ledger_int(&l, "SELECT count(*) FROM api.billing_log_take('ledger', 1)"), 100);
    ck_assert_int_eq(
        ledger_int(&l, "SELECT count(*) FROM api.billing_log_take('ledger', 101)"),
        200);
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM (SELECT n, row_number() OVER "
                                    "() AS place, (body->>'amount_micro')::integer AS "
                                    "amount FROM api.billing_log_take('ledger', 999) "
                                    "WITH ORDINALITY AS t(id, kind, ref, body, n)) x "
                                    "WHERE place <> n OR amount <> n"),
                     0);
    static const char *const wrong[] = {
        "x.n < 100",                                         /* not all of a row */
        "x.n <= 100 UNION ALL SELECT 0, 'transfer', '1'",    /* and one of no row */
        "x.n < 100 UNION ALL SELECT id, kind, '1' FROM t",   /* one for another */
        "x.n <= 100 UNION ALL SELECT id, kind, ref FROM t ", /* one twice */
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char *sql = xasprintf(
            "WITH t AS (SELECT id, kind, ref FROM api.billing_log_take('ledger', 1) "
            "LIMIT 1) SELECT api.billing_log_append('ledger', size, vkey, (SELECT "
            "jsonb_agg(jsonb_build_object('id', y.id, 'kind', y.kind, 'ref', y.ref, "
            "'nonce', md5(y.ref), 'leaf', repeat('0', 64))) FROM (SELECT x.id, x.kind, "
            "x.ref FROM api.billing_log_take('ledger', 1) WITH ORDINALITY AS x(id, "
            "kind, "
            "ref, body, n) WHERE %s) y), '[]', 'n') FROM ng.log WHERE name = 'ledger'",
            wrong[i]);
        const char *state = testdb_state(l.pg, sql);
        ck_assert_msg(strcmp(state, "NG006") == 0 || strcmp(state, "23505") == 0,
                      "%s: %s", wrong[i], state);
        free(sql);
    }
    sequence();
    expect_whole();
    expect_clean();
    end();
}
END_TEST

/* Neither role of the market may touch the log but through its functions. */
START_TEST(test_append_only)
{
    begin();
    trade();
    ck_assert_str_eq(testdb_state(l.pg, "UPDATE ng.log_leaf SET ref = 'x'"), "23001");
    ck_assert_str_eq(testdb_state(l.pg, "DELETE FROM ng.log_leaf"), "23001");
    ck_assert_str_eq(testdb_state(l.pg, "TRUNCATE ng.log_checkpoint CASCADE"), "23001");
    ck_assert_str_eq(testdb_state(l.pg, "DELETE FROM ng.log_checkpoint"), "23001");
    PGconn *billd = testdb_connect(l.db, "neargpu_billd", "neargpu");
    ck_assert_str_eq(testdb_state(billd, "INSERT INTO ng.log_leaf DEFAULT VALUES"),
                     "42501");
    ck_assert_str_eq(testdb_state(billd, "DELETE FROM ng.log_todo"), "42501");
    /* Appends that are not what was queued, or not at the end. */
    ck_assert_str_eq(testdb_state(billd, "SELECT api.billing_log_append('ledger', 0, "
                                         "'k', '[]', '[]', 'n')"),
                     "NG006");
    PQfinish(billd);
    PGconn *server = testdb_connect(l.db, "neargpu_server", "neargpu");
    ck_assert_str_eq(
        testdb_state(server, "SELECT * FROM api.billing_log_take('usage', 1)"),
        "42501");
    PQfinish(server);
    end();
}
END_TEST

/* Each change of a reservation is another generation of what is agreed; the booking's
 * own transaction writes none of it, and what is charged is what was kept. */
START_TEST(test_agreed)
{
    const char *id = "lpad('2', 32, '0')::uuid";
    begin();
    char *got = ledger_text(
        &l,
        "SELECT t.book(%s, 'alpha', now() + interval '2 hours', now() + interval "
        "'4 hours', ARRAY[1], ARRAY[0], ARRAY[4], 300000000)",
        id);
    ck_assert_str_eq(got, "ok");
    free(got);
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM ng.agreed"), 0);
    sequence();
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM ng.agreed"), 1);
    ledger_sql(&l, "SELECT api.resv_extend(NULL, id, ng.us(upper(during)) + 3600000000,"
                   " 0, false, ng.us(now())) FROM ng.reservation");
    sequence();
    ledger_sql(&l, "SELECT api.resv_shrink(NULL, id, 2, 0, false, ng.us(now()))"
                   " FROM ng.reservation");
    sequence();
    ck_assert_int_eq(
        ledger_int(
            &l,
            "SELECT sum(generation * 100 + (bookings#>>'{0,gpus}')::integer)"
            " FROM ng.agreed WHERE bookings#>>'{0,per_gpu_hour_micro}' = '300000000'"),
        104 + 204 + 302);
    ledger_sql(&l, "SELECT api.resv_cancel(NULL, id, 'x', false, ng.us(now()))"
                   " FROM ng.reservation"); /* nothing is agreed any more */
    sequence();
    ck_assert_int_eq(
        ledger_int(&l, "SELECT count(*) FROM ng.log_leaf WHERE kind = 'agreed'"), 3);
    ck_assert_str_eq(testdb_state(l.pg, "UPDATE ng.booking SET per_gpu_hour_micro = 1"),
                     "23001");
    ck_assert_str_eq(testdb_state(l.pg, "UPDATE ng.booking SET node_id = 1"), "23001");
    ck_assert_str_eq(testdb_state(l.pg, "UPDATE ng.agreed SET spot = true"), "23001");
    ck_assert_str_eq(testdb_state(l.pg, "DELETE FROM ng.agreed"), "23001");
    expect_whole();
    expect_clean();
    /* A booking at another price than was agreed, whoever made it. */
    got = ledger_text(
        &l,
        "SELECT t.book(lpad('3', 32, '0')::uuid, 'alpha', now() + interval '2 "
        "hours', now() + interval '4 hours', ARRAY[1], ARRAY[0], ARRAY[4], 300000000)");
    ck_assert_str_eq(got, "ok");
    free(got);
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM report.check_agreed"), 0);
    sequence();
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM report.check_agreed"), 0);
    forge("UPDATE ng.booking SET per_gpu_hour_micro = 1");
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM report.check_agreed"), 1);
    end();
}
END_TEST

/* A transaction that goes on holds up events, but no charge is logged without its
 * price. */
START_TEST(test_agreed_held_up)
{
    begin();
    sequence(); /* what was there before is taken without events */
    PGconn *other = testdb_connect(l.db, "postgres", "neargpu");
    testdb_sql(other, "BEGIN; SELECT pg_current_xact_id()");
    trade();
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM ng.agreed"), 1);
    expect_whole();
    testdb_sql(other, "COMMIT");
    PQfinish(other);
    sequence();
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM ng.agreed"), 1);
    expect_clean();
    end();
}
END_TEST

/* Reservations of before there was such a table. */
START_TEST(test_agreed_before)
{
    begin();
    ledger_sql(
        &l,
        "SELECT t.book(lpad(n::text, 32, '0')::uuid, 'alpha', now() + n * interval '2 "
        "hours', now() + n * interval '2 hours' + interval '1 hour', ARRAY[1], "
        "ARRAY[0], ARRAY[1], 1000)"
        " FROM generate_series(1, 7) n");
    forge("DELETE FROM ng.event");
    for (int i = 0; i < 5; i++)
        ledger_sql(&l, "SELECT api.billing_agreed(3)");
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM ng.agreed"), 7);
    ck_assert_int_eq(
        ledger_int(&l, "SELECT count(*) FROM ng.agreed_cursor WHERE past IS NULL"), 1);
    end();
}
END_TEST

/* A payout has a leaf when it is sent and one when it comes back; what becomes of it
 * changes neither. */
START_TEST(test_payout)
{
    begin();
    ledger_sql(&l, "SELECT api.provider_bank(id, b, NULL), api.market_set(NULL, NULL, "
                   "NULL, b || '{\"client\": \"0123456789\"}', NULL), "
                   "ng.post('settle', ng.account_of('provider_pending', NULL, id, "
                   "'JPY'), ng.account_of('provider_available', NULL, id, 'JPY'), "
                   "'JPY', 1000000000, NULL, 'x') FROM ng.provider, (SELECT "
                   "'{\"bank\": \"0001\", \"branch\": \"012\", \"type\": \"1\", "
                   "\"number\": \"1234567\", \"holder\": \"A\"}'::jsonb) x(b) WHERE "
                   "name = 'acme'");
    ledger_sql(&l,
               "SELECT api.payout_request('acme', NULL, 'a', NULL, NULL, 'one'), "
               "api.payout_act(1, 'approve', NULL, NULL, NULL, NULL, 'two'), "
               "api.payout_file_new(ng.bank_today()::text, 'a', NULL, NULL, 'one')");
    sequence();
    ledger_sql(&l, "SELECT api.payout_act(1, 'done', NULL, NULL, NULL, NULL, 'one')");
    ledger_sql(&l, "SELECT api.payout_act(1, 'returned', 'closed', NULL, 880000000, "
                   "'market', 'two')");
    sequence();
    char *got = ledger_text(&l, "SELECT string_agg(ref, ' ' ORDER BY index) FROM "
                                "ng.log_leaf WHERE kind = 'payout'");
    ck_assert_str_eq(got, "1 1/returned");
    free(got);
    /* Sent, confirmed, both taken back, the fee: each a transfer with its own. */
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM ng.log_leaf f JOIN "
                                    "ng.transfer t ON f.kind = 'transfer' AND f.ref = "
                                    "t.id::text WHERE t.kind LIKE 'payout%%'"),
                     5);
    expect_clean();
    forge("UPDATE ng.payout SET reason = 'lost'");
    expect_breach("payout 1/returned was altered");
    forge("UPDATE ng.payout SET reason = 'closed', requested_by = 'six'");
    expect_breach("payout 1 was altered");
    forge("UPDATE ng.payout SET requested_by = 'one'");
    expect_clean();
    end();
}
END_TEST

START_TEST(test_killed)
{
    unsigned seed = 7;
    begin();
    for (int i = 0; i < 25; i++) {
        ledger_sql(&l,
                   "SELECT api.topup('alpha', 1000000, 'JPY', 'kill/%d/' || n, 'a', "
                   "NULL, NULL) FROM generate_series(1, 150) n",
                   i);
        const char *args[] = {"--interval", "100ms", "--log-key", key, NULL};
        int one = ledger_billd_start(&l, args), two = ledger_billd_start(&l, args);
        pause_ms(20 + rand_r(&seed) % 60);
        kill(one, SIGKILL);
        kill(two, SIGKILL);
        waitpid(one, NULL, 0);
        waitpid(two, NULL, 0);
    }
    sequence();
    expect_whole();
    expect_clean();
    ledger_check(&l);
    end();
}
END_TEST

UNIT_MAIN("log", UNIT_CASE(test_kept) UNIT_CASE(test_found) UNIT_CASE(test_queue)
                     UNIT_CASE(test_append_only) UNIT_CASE(test_agreed)
                         UNIT_CASE(test_agreed_held_up) UNIT_CASE(test_agreed_before)
                             UNIT_CASE(test_payout) UNIT_CASE(test_killed))
