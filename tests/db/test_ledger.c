/* The ledger's promises, each attacked directly: by every role and by the owner of the
 * tables. And the views that must be empty: each shows a breach that is planted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/money.h"
#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

#define R1 "'00000000-0000-7000-8000-000000000001'"
#define R2 "'00000000-0000-7000-8000-000000000002'"

static struct ledger l;

/* lab: 10000 JPY, R1 used for 1,800,001 ms of 2 GPUs at 1000 JPY and ended, R2 running;
 * an invoice over R1's use. */
START_TEST(fixture)
{
    ledger_sql(&l,
               "SELECT t.tenant('lab', 'Asia/Tokyo', 10000000000),"
               " t.tenant('other', 'Asia/Tokyo', 0), t.node('n1', 'tokyo', 'acme', 8),"
               " t.node('n2', 'tokyo', 'zero', 8)");
    ledger_sql(&l, "SELECT t.book(" R1 ", 'lab', now() - interval '2 h', now() - "
                   "interval '1 h', ARRAY[1], ARRAY[0], ARRAY[2], 1000000000)");
    ledger_sql(&l,
               "SELECT t.book(" R2 ", 'lab', now() - interval '1 h', now() + "
               "interval '1 h', ARRAY[1, 2], ARRAY[4, 0], ARRAY[1, 1], 1000000000)");
    ledger_sql(&l, "SELECT t.receipt(" R1 ", 1, 1, 'ready', 0)");
    ledger_sql(&l, "SELECT t.receipt(" R1 ", 1, 2, 'interval', 900000)");
    ledger_sql(&l, "SELECT t.receipt(" R1 ", 1, 3, 'teardown', 1800001)");
    ledger_once(&l);
    char *got;
    int status = LEDGER_BILLD(&l, &got, "invoice", "--tenant", "lab", "--until", "now");
    ck_assert_msg(status == 0, "%s", got);
    free(got);
    ledger_sql(&l, "SELECT t.receipt(" R2 ", 1, 1, 'ready', 0)");
    ledger_sql(&l, "SELECT t.receipt(" R2 ", 1, 2, 'interval', 600000)");
    ledger_once(&l);
    ledger_check(&l);
}
END_TEST

START_TEST(known_amounts)
{
    /* 1,800,001 ms at 1000 JPY/h: 500,000,277.8 micro; fee 5 % 25,000,013.9. */
    char *got = ledger_text(
        &l, "SELECT concat_ws(' ', held_micro, captured_micro, released_micro) "
            "FROM ng.reservation WHERE id = " R1);
    ck_assert_str_eq(got, "2000000000 500000278 1499999722");
    free(got);
    got = ledger_text(&l, "SELECT concat_ws(' ', amount_micro, fee_micro, closed) "
                          "FROM ng.meter WHERE reservation_id = " R1);
    ck_assert_str_eq(got, "500000278 25000014 t");
    free(got);
    got = ledger_text(&l, "SELECT concat_ws(' ', net_micro, tax_micro, total_micro) "
                          "FROM ng.invoice WHERE number LIKE '%%-000001'");
    ck_assert_str_eq(got, "500000000 50000000 550000000");
    free(got);
    got = ledger_text(
        &l,
        "SELECT string_agg(concat_ws(' ', line, quantity_gpu_ms, amount_micro), ', ' "
        "ORDER BY line) FROM ng.invoice_line");
    ck_assert_str_eq(got, "1 1800001 500000278, 2 0 -278");
    free(got);
}
END_TEST

/* SQL and the state it must fail with, as the owner of every table. */
static const struct attack {
    const char *sql, *state;
} attacks[] = {
    {"UPDATE ng.account SET balance_micro = -1 WHERE kind = 'wallet'", "23514"},
    {"UPDATE ng.account SET balance_micro = -1 WHERE kind = 'hold'", "23514"},
    {"UPDATE ng.account SET guarded = false", "23001"},
    {"UPDATE ng.account SET currency = 'USD' WHERE id = 1", "23001"},
    {"DELETE FROM ng.account", "23001"},
    {"TRUNCATE ng.account CASCADE", "23001"},
    {"SELECT ng.post('hold', ng.account_of('wallet', id, NULL, 'JPY'), "
     "ng.account_of('hold', id, NULL, 'JPY'), 'JPY', 10000000000, NULL, 'x') FROM "
     "ng.tenant WHERE name = 'lab'",
     "23514"},
    {"SELECT ng.post('release', ng.account_of('hold', id, NULL, 'JPY'), "
     "ng.account_of('wallet', id, NULL, 'JPY'), 'JPY', 10000000000, NULL, 'x') FROM "
     "ng.tenant WHERE name = 'lab'",
     "23514"},
    {"UPDATE ng.transfer SET amount_micro = 1", "23001"},
    {"DELETE FROM ng.transfer", "23001"},
    {"TRUNCATE ng.transfer CASCADE", "23001"},
    {"UPDATE ng.invoice SET net_micro = 0, total_micro = tax_micro", "23001"},
    {"DELETE FROM ng.invoice", "23001"},
    {"TRUNCATE ng.invoice CASCADE", "23001"},
    {"UPDATE ng.invoice_line SET amount_micro = 1", "23001"},
    {"DELETE FROM ng.invoice_line", "23001"},
    {"TRUNCATE ng.invoice_line", "23001"},
    {"UPDATE ng.receipt SET gpu_ms = gpu_ms + 1", "23001"},
    {"UPDATE ng.receipt SET received_at = now()", "23001"},
    {"DELETE FROM ng.receipt", "23001"},
    {"TRUNCATE ng.receipt", "23001"},
    /* The form of a transfer. */
    {"INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro) SELECT 'topup', "
     "1, "
     "2, 'USD', 5",
     "23503"},
    {"INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro) SELECT 'topup', "
     "1, "
     "2, 'JPY', 0",
     "23514"},
    {"INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro) SELECT 'topup', "
     "1, "
     "2, 'JPY', -5",
     "23514"},
    {"INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro) SELECT 'topup', "
     "1, "
     "1, 'JPY', 5",
     "23514"},
    {"INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro) SELECT 'gift', 1, "
     "2, 'JPY', 5",
     "23514"},
    {"INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro) SELECT 'topup', "
     "1, "
     "9999, 'JPY', 5",
     "23503"},
    {"INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro, ref) SELECT kind, "
     "dr, cr, currency, amount_micro, ref FROM ng.transfer WHERE kind = 'topup'",
     "23505"},
    {"SELECT ng.must_post(now(), kind, dr, cr, currency, amount_micro, NULL, ref) FROM "
     "ng.transfer WHERE kind = 'topup'",
     "NG006"},
    {"SELECT ng.post('topup', dr, cr, 'JPY', -5, NULL, 'y') FROM ng.transfer WHERE "
     "kind "
     "= 'topup'",
     "23514"},
    /* Corrections: exact, and once. */
    {"INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro, reverses) SELECT "
     "'reversal', cr, dr, currency, amount_micro - 1, id FROM ng.transfer WHERE kind = "
     "'topup'",
     "23514"},
    {"INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro, reverses) SELECT "
     "'reversal', dr, cr, currency, amount_micro, id FROM ng.transfer WHERE kind = "
     "'topup'",
     "23514"},
    {"INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro) SELECT "
     "'reversal', "
     "cr, dr, currency, amount_micro FROM ng.transfer WHERE kind = 'topup'",
     "23514"},
    {"INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro, reverses) SELECT "
     "'reversal', cr, dr, currency, amount_micro, id FROM ng.transfer t, "
     "generate_series(1, 2) WHERE kind = 'topup'",
     "23505"},
    {"SELECT api.billing_reverse(id) FROM ng.transfer WHERE kind = 'capture'", "NG006"},
    {"SELECT api.billing_reverse(id) FROM ng.transfer WHERE kind = 'topup'", "NG007"},
    {"SELECT api.billing_reverse(123456789)", "NG005"},
    /* Holds. */
    {"UPDATE ng.reservation SET captured_micro = held_micro - released_micro + 1",
     "23514"},
    {"UPDATE ng.reservation SET released_micro = held_micro - captured_micro + 1",
     "23514"},
    {"UPDATE ng.reservation SET captured_micro = -1", "23514"},
    {"UPDATE ng.reservation SET state = 'confirmed' WHERE state = 'ended'", "NG006"},
    {"INSERT INTO ng.booking (reservation_id, node_id, site_id, gpus, during, epoch, "
     "per_gpu_hour_micro) SELECT reservation_id, node_id, site_id, gpus, during, "
     "epoch, "
     "1 FROM ng.booking",
     "23P01"},
    /* Receipts and meters. */
    {"INSERT INTO ng.receipt SELECT * FROM ng.receipt", "23505"},
    {"INSERT INTO ng.meter SELECT * FROM ng.meter", "23505"},
    {"SELECT api.billing_post(" R2 ", 1, 3, 600000, 0, 0)", "NG005"},
    /* Invoices: one an instant, the sum of their lines, each number once. */
    {"INSERT INTO ng.invoice SELECT number || '9', tenant_id, currency, period, "
     "issued_at, net_micro, tax_ppm, tax_micro, total_micro, document FROM ng.invoice",
     "23P01"},
    {"INSERT INTO ng.invoice SELECT number, tenant_id, 'USD', period, issued_at, "
     "net_micro, tax_ppm, tax_micro, total_micro, document FROM ng.invoice",
     "23505"},
    {"INSERT INTO ng.invoice SELECT number || '9', tenant_id, 'USD', period, "
     "issued_at, "
     "net_micro, tax_ppm, tax_micro, total_micro + 1, document FROM ng.invoice",
     "23514"},
    {"INSERT INTO ng.invoice SELECT number || '9', tenant_id, 'USD', period, "
     "issued_at, "
     "net_micro, tax_ppm, tax_micro, total_micro, document FROM ng.invoice",
     "23514"},
    {"INSERT INTO ng.invoice_line SELECT number, 99, '', NULL, 0, 1 FROM ng.invoice",
     "23514"},
    {"SELECT api.billing_invoice('lab', now() + interval '1 h', '[]', '[]')", "NG020"},
    {"SELECT api.billing_invoice('nobody', now(), '[]', '[]')", "NG005"},
    {"SELECT api.billing_invoice('lab', clock_timestamp(), '[]', '[]')", "NG006"},
    {"INSERT INTO ng.account (kind, tenant_id, currency, guarded) SELECT kind, "
     "tenant_id, currency, true FROM ng.account WHERE kind = 'wallet'",
     "23505"},
};

/* In a transaction as this role, committed, so that deferred constraints speak. */
static const char *as_role(const char *role, const char *sql)
{
    static char state[6];
    char text[1024];
    snprintf(text, sizeof text, "BEGIN; SET LOCAL ROLE %s; %s; COMMIT", role, sql);
    snprintf(state, sizeof state, "%s", testdb_state(l.pg, text));
    PQclear(PQexec(l.pg, "ROLLBACK"));
    return state;
}

START_TEST(owner_cannot_break_it)
{
    const char *sql = attacks[_i].sql, *state = as_role("neargpu_owner", sql);
    ck_assert_msg(strcmp(state, attacks[_i].state) == 0, "%s: %s, not %s", sql, state,
                  attacks[_i].state);
    ledger_check(&l);
}
END_TEST

START_TEST(no_program_writes_tables)
{
    static const char *const roles[] = {"neargpu_server", "neargpu_billd",
                                        "neargpu_report"};
    static const char *const verbs[] = {"SELECT * FROM %s", "DELETE FROM %s",
                                        "INSERT INTO %s DEFAULT VALUES", "TRUNCATE %s"};
    PGresult *r = PQexec(l.pg, "SELECT c.oid::regclass FROM pg_class c WHERE "
                               "relnamespace = 'ng'::regnamespace AND relkind = 'r'");
    ck_assert_int_gt(PQntuples(r), 20);
    for (int t = 0; t < PQntuples(r); t++)
        for (size_t i = 0; i < 3; i++)
            for (size_t v = 0; v < 4; v++) {
                char sql[200];
                snprintf(sql, sizeof sql, verbs[v], PQgetvalue(r, t, 0));
                const char *state = as_role(roles[i], sql);
                ck_assert_msg(strcmp(state, "42501") == 0, "%s may %s: %s", roles[i],
                              sql, state);
            }
    PQclear(r);
}
END_TEST

START_TEST(each_function_has_one_program)
{
    /* Every function of api runs for one program, no function of ng for any but the
     * rounding that views use, and nothing for everybody. */
    char *got = ledger_text(
        &l, "SELECT coalesce(string_agg(p.oid::regprocedure::text, ', '), '') FROM "
            "pg_proc p WHERE pronamespace IN ('api'::regnamespace, 'ng'::regnamespace)"
            " AND has_function_privilege('neargpu_server', p.oid, 'execute')::int + "
            "has_function_privilege('neargpu_billd', p.oid, 'execute')::int + "
            "has_function_privilege('neargpu_report', p.oid, 'execute')::int <> "
            "(pronamespace = 'api'::regnamespace OR proname = 'money_mul')::int");
    ck_assert_str_eq(got, "");
    free(got);
    ck_assert_str_eq(as_role("neargpu_server", "SELECT api.billing_release('0', 1)"),
                     "42501");
    ck_assert_str_eq(as_role("neargpu_billd", "SELECT api.market()"), "42501");
    ck_assert_str_eq(as_role("neargpu_report", "SELECT api.market()"), "42501");
    PGconn *pg = PQconnectdb(testdb_conninfo(l.db, "neargpu_owner", "neargpu"));
    ck_assert_int_eq(PQstatus(pg), CONNECTION_BAD); /* the owner cannot log in */
    PQfinish(pg);
}
END_TEST

START_TEST(posting_again_moves_nothing)
{
    ck_assert_str_eq(testdb_state(l.pg, "BEGIN"), "00000");
    int64_t before = ledger_int(&l, "SELECT sum(balance_micro) FROM ng.account");
    char *got = ledger_text(&l, "SELECT ng.post(kind, dr, cr, currency, amount_micro, "
                                "NULL, ref) FROM ng.transfer WHERE kind = 'topup'");
    ck_assert_str_eq(got, "f");
    free(got);
    ck_assert_int_eq(ledger_int(&l, "SELECT sum(balance_micro) FROM ng.account"),
                     before);
    /* A receipt rated again, one that is not there, one too far on. */
    got = ledger_text(&l, "SELECT api.billing_post(" R2 ", 1, 2, 600000, 1, 1)");
    ck_assert_str_eq(got, "again");
    free(got);
    got = ledger_text(&l, "SELECT api.billing_post(" R2 ", 1, 4, 600000, 1, 1)");
    ck_assert_str_eq(got, "gap");
    free(got);
    testdb_sql(l.pg, "ROLLBACK");
}
END_TEST

START_TEST(amounts_are_computed_twice)
{
    /* 700,000 ms: 194,444,444 and 5 % of it, and nothing else. */
    static const char *const wrong[] = {
        "700000, 194444445, 9722222", "700000, 194444443, 9722222",
        "700000, 194444444, 9722223", "700001, 194444444, 9722222",
        "700000, NULL, 9722222"};
    char sql[200];
    testdb_sql(l.pg, "SELECT t.receipt(" R2 ", 1, 3, 'interval', 700000)");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(sql, sizeof sql, "SELECT api.billing_post(" R2 ", 1, 3, %s)",
                 wrong[i]);
        ck_assert_str_eq(as_role("neargpu_billd", sql), "NG006");
    }
    ck_assert_str_eq(as_role("neargpu_billd", "SELECT api.billing_post(" R2
                                              ", 1, 3, 700000, 194444444, 9722222)"),
                     "00000");
    ledger_check(&l);
}
END_TEST

/* A path that R1, which is over, had booked. */
#define PATH_SQL                                                                      \
    "INSERT INTO ng.path (name, provider_id, site_a, site_b, lanes, lane_bytes_s, "   \
    "currency, per_lane_hour_micro) SELECT 'p', id, 1, 2, '[1,3)', 1, 'JPY', 1 FROM " \
    "ng.provider LIMIT 1; INSERT INTO ng.path_booking (reservation_id, path_id, "     \
    "lanes, during, per_lane_hour_micro, fee_ppm) SELECT " R1 ", id, '[1,2)', "       \
    "'[2026-01-01,2026-01-02)', 1, 0 FROM ng.path; "

/* What only a superuser without triggers can do, and the view that shows it. */
#define ROLLED    "UPDATE ng.roll_state SET fresh_at = now();"
#define YESTERDAY "date_trunc('day', now(), 'UTC') - interval '1 day'"

#define NOTE_SQL(number)                                                              \
    "INSERT INTO ng.credit_note SELECT 'CN-2026-" number                              \
    "', tenant_id, currency, id, "                                                    \
    "NULL, now(), 'market', 'x', 'a', 1, 0, 0, 1, '{}' FROM ng.reservation WHERE id " \
    "= " R1

static const struct breach {
    const char *view, *sql;
} breaches[] = {
    {"balance", "UPDATE ng.account SET balance_micro = balance_micro + 1 WHERE kind = "
                "'wallet'"},
    {"paid", "UPDATE ng.reservation SET held_micro = held_micro + 1"},
    {"paid", "UPDATE ng.reservation SET paid_until = upper(during) - interval '1 ms'"},
    {"balance", "UPDATE ng.transfer SET amount_micro = amount_micro + 1 WHERE kind = "
                "'topup'"},
    {"hold", "UPDATE ng.account SET balance_micro = balance_micro + 1 WHERE kind = "
             "'hold'"},
    {"hold", "DELETE FROM ng.account WHERE kind = 'hold'"},
    {"settled", "UPDATE ng.settle_cursor SET transfer_id = 999999"},
    {"settled",
     "INSERT INTO ng.settlement (account, provider_id, currency, transfers, captures, "
     "gross_micro, less_micro, reserve_ppm, reserve_micro, release_at) SELECT id, "
     "provider_id, currency, 'empty', 0, 1, 0, 0, 0, now() FROM ng.account WHERE kind "
     "= 'provider_pending' LIMIT 1"},
    {"payout", "INSERT INTO ng.payout (provider_id, currency, amount_micro, "
               "requested_by, state, approved_by, approved_at, file_id) SELECT id, "
               "'JPY', 1000000, 'a', 'sent', 'b', now(), 1 FROM ng.provider LIMIT 1"},
    {"payout", "INSERT INTO ng.payout_file (made_by, pay_on, currency, count, "
               "total_micro) VALUES ('a', now(), 'JPY', 1, 1)"},
    {"payout",
     "INSERT INTO ng.payout (provider_id, currency, amount_micro, "
     "requested_by, state, approved_by, approved_at, ended_by, ended_at, "
     "confirmed_by, confirmed_at, file_id) SELECT id, 'JPY', 1000000, 'a', "
     "'done', 'b', now(), 'a', now(), 'a', now(), 1 FROM ng.provider LIMIT 1"},
    {"admins",
     "INSERT INTO ng.api_key (hash, role, label, created_at) VALUES (sha256('1'), "
     "'admin', 'one', now() - interval '2 days'), (sha256('2'), 'admin', 'two', now() "
     "- "
     "interval '1 day'); INSERT INTO ng.api_key (hash, role, label, made_by, alone) "
     "VALUES (sha256('3'), 'admin', 'three', 'one', true)"},
    {"credit_note", "UPDATE ng.reservation SET refunded_micro = 1 WHERE id = " R1},
    {"credit_note", NOTE_SQL("000001")},
    {"credit_note",
     "INSERT INTO ng.credit_note SELECT 'CN-2026-000001', tenant_id, currency, id, "
     "(SELECT min(number) FROM ng.invoice), now(), 'market', 'x', 'a', 1, NULL, 0, 1, "
     "'{}' FROM ng.reservation WHERE id = " R1},
    {"credit_note_numbers", NOTE_SQL("000002")},
    {"chargeback", "INSERT INTO ng.chargeback SELECT id, now(), 'x', amount_micro, 0 "
                   "FROM ng.transfer WHERE kind = 'topup'"},
    {"captured", "UPDATE ng.reservation SET captured_micro = captured_micro - 1 WHERE "
                 "id = " R1},
    {"captured", "UPDATE ng.meter SET amount_micro = amount_micro - 1"},
    {"captured", "DELETE FROM ng.transfer WHERE kind = 'fee'"},
    {"account", "UPDATE ng.account SET currency = 'EUR' WHERE kind = 'bank'"},
    {"account", "UPDATE ng.account SET balance_micro = 1 WHERE kind = 'bank'"},
    {"account", "UPDATE ng.account SET floor_micro = -1 WHERE kind = 'hold'"},
    {"meter", "UPDATE ng.meter SET seq = seq + 1"},
    {"meter", "UPDATE ng.meter SET closed = NOT closed"},
    {"meter", "UPDATE ng.meter SET gpu_ms = gpu_ms - 1"},
    {"usage", "UPDATE ng.usage SET amount_micro = amount_micro + 1"},
    {"usage", "DELETE FROM ng.usage"},
    {"usage", "UPDATE ng.usage SET site_id = site_id + 1"},
    {"amount", "UPDATE ng.meter SET amount_micro = amount_micro + 1"},
    {"amount", "UPDATE ng.meter SET fee_micro = fee_micro + 1"},
    {"amount", "UPDATE ng.meter SET gpu_ms = gpu_ms + 1000 WHERE NOT closed"},
    {"amount", "UPDATE ng.booking SET per_gpu_hour_micro = 1"},
    {"double_booking",
     "ALTER TABLE ng.booking DROP CONSTRAINT booking_no_double; INSERT INTO ng.booking "
     "(reservation_id, node_id, site_id, gpus, during, epoch, per_gpu_hour_micro) "
     "SELECT " R1 ", node_id, site_id, gpus, during, epoch, 1 FROM ng.booking"},
    {"path",
     PATH_SQL "UPDATE ng.path_booking SET captured_micro = 5, billed_at = now()"},
    {"path", PATH_SQL "UPDATE ng.path_booking SET fee_micro = 0, billed_at = now();"
                      "UPDATE ng.reservation SET ended_at = now() - interval '1 day';"
                      "UPDATE ng.path_booking SET billed_at = NULL"},
    {"double_path",
     PATH_SQL "ALTER TABLE ng.path_booking DROP CONSTRAINT path_booking_no_double; "
              "INSERT INTO ng.path_booking (reservation_id, path_id, lanes, during, "
              "per_lane_hour_micro, fee_ppm) SELECT reservation_id, path_id, lanes, "
              "during, 1, 0 FROM ng.path_booking"},
    {"whole", "UPDATE ng.reservation SET state = 'waiting' WHERE id = " R2},
    {"whole", "UPDATE ng.reservation SET state = 'confirmed' WHERE id = " R2
              "; DELETE FROM ng.booking WHERE reservation_id = " R2},
    {"whole", "INSERT INTO ng.waiting VALUES (" R2 ", now())"},
    {"invoice", "UPDATE ng.invoice SET tax_micro = tax_micro + 1000000, total_micro = "
                "total_micro + 1000000"},
    {"invoice", "UPDATE ng.invoice SET tax_micro = tax_micro + 1, total_micro = "
                "total_micro + 1"},
    {"tax", "UPDATE ng.invoice_tax SET tax_micro = tax_micro + 1"},
    {"tax", "DELETE FROM ng.transfer WHERE kind = 'tax'"},
    {"tax", "UPDATE ng.transfer SET ref = replace(ref, 'standard', 'reduced') WHERE "
            "kind = 'tax'"},
    {"invoice", "UPDATE ng.invoice_tax SET rate_ppm = 80000"},
    {"invoice", "UPDATE ng.invoice_tax SET base_micro = base_micro + 1000000"},
    {"invoice", "DELETE FROM ng.invoice_tax"},
    {"invoice", "UPDATE ng.invoice_line SET tax_class = 'reduced'"},
    {"invoice", "UPDATE ng.invoice_line SET amount_micro = amount_micro + 1"},
    {"invoice", "DELETE FROM ng.invoice_line"},
    {"invoice", "UPDATE ng.invoice SET currency = 'ZZZ'"},
    {"invoiced", "UPDATE ng.transfer SET at = at - interval '1 day' WHERE kind = "
                 "'capture'"},
    {"invoiced", "DELETE FROM ng.invoice_line WHERE line = 1"},
    {"invoice_numbers", "UPDATE ng.invoice SET number = left(number, 9) || '000007'"},
    {"unbilled", "UPDATE ng.meter SET seq = 0; UPDATE ng.receipt SET received_at = "
                 "now() - interval '61 s'; DELETE FROM ng.receipt_due"},
    {"unbilled", "UPDATE ng.meter SET seq = 0; UPDATE ng.receipt SET received_at = "
                 "now() - interval '61 s'; UPDATE ng.reservation SET rest_back = true; "
                 "INSERT INTO ng.receipt_due SELECT reservation_id, node_id, seq, "
                 "received_at FROM ng.receipt ON CONFLICT DO NOTHING"},
    {"receipt_fork", "INSERT INTO ng.receipt_fork VALUES (" R1 ", 1, 1, 'x')"},
    {"rollup",
     ROLLED "INSERT INTO ng.roll_money VALUES (" YESTERDAY
            ", gen_random_uuid(), 1, gen_random_uuid(), '', false, 'JPY', 1, 0, 0, 1)"},
    {"rollup", ROLLED "INSERT INTO ng.roll_use VALUES (" YESTERDAY
                      ", 1, gen_random_uuid(), '', false, 1, 1, 0, 0, 0)"},
    {"rollup", ROLLED "INSERT INTO ng.roll_match VALUES (" YESTERDAY
                      ", 'quote', 'ok', '', '', 1, 1, 1)"},
    {"budget",
     "INSERT INTO ng.budget (tenant_id, currency, limit_micro, hard, period, since, "
     "until, held_micro) SELECT id, 'JPY', 9, false, 'total', now(), 'infinity', 7 "
     "FROM ng.tenant WHERE name = 'lab'"},
    {"promo",
     "SELECT ng.account_of('promo', id, NULL, 'JPY') FROM ng.tenant WHERE name = "
     "'lab'; UPDATE ng.account SET balance_micro = 5 WHERE kind = 'promo'"},
    {"sla", "UPDATE ng.reservation SET credited_micro = 5 WHERE id = " R1},
    {"fx", "UPDATE ng.transfer SET kind = 'fx' WHERE kind = 'topup'"},
    {"log",
     "UPDATE ng.log SET vkey = 'k'; UPDATE ng.transfer SET at = now() - interval "
     "'2 minutes' WHERE id = 1"},
    {"agreed", "UPDATE ng.log SET vkey = 'k'; UPDATE ng.agreed_cursor SET past = NULL; "
               "DELETE FROM ng.event; DELETE FROM ng.agreed"},
};

START_TEST(views_show_breaches)
{
    const struct breach *b = &breaches[_i];
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM report.check_%s", b->view),
                     0);
    testdb_sql(l.pg, "BEGIN; SET LOCAL session_replication_role = replica");
    testdb_sql(l.pg, b->sql);
    int64_t rows = ledger_int(&l, "SELECT count(*) FROM report.check_%s", b->view);
    int64_t counted = ledger_int(
        &l, "SELECT breaches FROM api.check_all() WHERE name = 'check_%s'", b->view);
    testdb_sql(l.pg, "ROLLBACK");
    ck_assert_msg(rows > 0, "check_%s does not show: %s", b->view, b->sql);
    ck_assert_int_eq(rows, counted);
}
END_TEST

START_TEST(every_view_is_counted_and_tested)
{
    PGresult *r =
        PQexec(l.pg, "SELECT substr(viewname, 7), EXISTS (SELECT FROM "
                     "api.check_all() WHERE name = viewname) FROM pg_views "
                     "WHERE schemaname = 'report' AND viewname LIKE 'check%'");
    ck_assert_int_ge(PQntuples(r), 10);
    for (int i = 0; i < PQntuples(r); i++) {
        bool tested = false;
        for (size_t j = 0; j < sizeof breaches / sizeof breaches[0]; j++)
            tested = tested || strcmp(breaches[j].view, PQgetvalue(r, i, 0)) == 0;
        ck_assert_msg(tested, "check_%s is not tested", PQgetvalue(r, i, 0));
        ck_assert_str_eq(PQgetvalue(r, i, 1), "t");
    }
    PQclear(r);
}
END_TEST

/* SQL and C round the same, also where a quotient of 16 digits would be rounded twice.
 */
START_TEST(sql_rounds_as_c)
{
    unsigned seed = 4217;
    for (int i = 0; i < 3000; i++) {
        int64_t unit = i % 3 == 0 ? 3600000 : i % 3 == 1 ? 1000000 : 3600000000;
        int64_t q = (int64_t)rand_r(&seed) << (rand_r(&seed) % 20);
        int64_t p = (int64_t)rand_r(&seed) - RAND_MAX / 4, want;
        struct err err;
        if (i % 5 == 0) { /* just under a half: p q = unit (n + 1/2) - 1 */
            p = 1;
            q = unit * (INT64_C(1234567) + rand_r(&seed) % 1000000) + unit / 2 - 1;
        }
        if (money_mul(q, p, unit, &want, &err) != 0)
            continue;
        int64_t got = ledger_int(&l, "SELECT ng.money_mul(%lld, %lld, %lld)",
                                 (long long)q, (long long)p, (long long)unit);
        ck_assert_msg(got == want, "%lld * %lld / %lld: SQL %lld, C %lld", (long long)q,
                      (long long)p, (long long)unit, (long long)got, (long long)want);
    }
}
END_TEST

START_TEST(exponents_are_the_same)
{
    int known = 0;
    for (int a = 0; a < 26 * 26 * 26; a++) {
        char code[4] = {(char)('A' + a / 676), (char)('A' + a / 26 % 26),
                        (char)('A' + a % 26), '\0'};
        known += money_currency_known(code);
    }
    PGresult *r = PQexec(l.pg, "SELECT currency, exponent FROM ng.currency_exponent");
    ck_assert_int_eq(PQntuples(r), known);
    for (int i = 0; i < PQntuples(r); i++)
        ck_assert_int_eq(money_exponent(PQgetvalue(r, i, 0)),
                         strtol(PQgetvalue(r, i, 1), NULL, 10));
    PQclear(r);
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1); /* one database for all cases */
    ledger_open(&l, NULL);
    Suite *suite = suite_create("ledger");
    TCase *tc = tcase_create("ledger");
    tcase_add_test(tc, fixture);
    tcase_add_test(tc, known_amounts);
    tcase_add_loop_test(tc, owner_cannot_break_it, 0,
                        (int)(sizeof attacks / sizeof attacks[0]));
    tcase_add_test(tc, no_program_writes_tables);
    tcase_add_test(tc, each_function_has_one_program);
    tcase_add_test(tc, posting_again_moves_nothing);
    tcase_add_loop_test(tc, views_show_breaches, 0,
                        (int)(sizeof breaches / sizeof breaches[0]));
    tcase_add_test(tc, every_view_is_counted_and_tested);
    tcase_add_test(tc, amounts_are_computed_twice);
    tcase_add_test(tc, sql_rounds_as_c);
    tcase_add_test(tc, exponents_are_the_same);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    ledger_close(&l);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
