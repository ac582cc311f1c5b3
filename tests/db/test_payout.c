/* Money out on a real database, through neargpu-billd: settlement, payouts, refunds,
 * chargebacks, withdrawals with known amounts; each rule attacked as the roles and as
 * the owner of the tables; then random histories, billd killed at random, against sums
 * made here. */
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

#define R(n) "'00000000-0000-7000-8000-00000000000" #n "'"
#define BANK                                                                   \
    "'{\"bank\": \"0001\", \"branch\": \"012\", \"type\": \"1\", \"number\": " \
    "\"1234567\", \"holder\": \"ｶ)ｱｸﾒ\"}'"
#define YEN INT64_C(1000000)

static struct ledger l;
static unsigned seed;

static int64_t balance(const char *kind, const char *provider)
{
    return ledger_int(&l,
                      "SELECT t.balance('%s', (SELECT id FROM ng.provider WHERE name = "
                      "'%s'))",
                      kind, provider);
}
static int64_t wallet(const char *tenant)
{
    return ledger_int(
        &l, "SELECT t.balance('wallet', (SELECT id FROM ng.tenant WHERE name = '%s'))",
        tenant);
}
static int64_t market_has(const char *kind)
{
    return ledger_int(&l, "SELECT t.balance('%s', NULL)", kind);
}
#define REFUSED(state, ...)                                                           \
    do {                                                                              \
        char *sql_ = xasprintf(__VA_ARGS__);                                          \
        const char *got_ = testdb_state(l.pg, sql_);                                  \
        ck_assert_msg(strcmp(got_, state) == 0, "%s: %s, not %s", sql_, got_, state); \
        free(sql_);                                                                   \
    } while (0)

/* What it says when it is refused; the next call's overwrites it. */
static const char *refusal(const char *sql)
{
    static char text[400];
    PGresult *r = PQexec(l.pg, sql);
    snprintf(text, sizeof(text), "%s", PQresultErrorMessage(r));
    PQclear(r);
    return text;
}

/* Two hours' lease of 2 GPUs at 1000 JPY, used for 1,800,001 ms: 500,000,278 micro, fee
 * 25,000,014. */
static void used(const char *id, int first, int64_t ms)
{
    ledger_sql(
        &l,
        "SELECT t.book(%s, 'lab', now() - interval '2 h', now() - interval '1 h',"
        " ARRAY[1], ARRAY[%d], ARRAY[2], 1000000000)",
        id, first);
    ledger_sql(&l, "SELECT t.receipt(%s, 1, 1, 'ready', 0)", id);
    ledger_sql(&l, "SELECT t.receipt(%s, 1, 2, 'teardown', %" PRId64 ")", id, ms);
    ledger_once(&l);
}

START_TEST(settlement)
{
    ledger_sql(&l, "SELECT t.tenant('lab', 'Asia/Tokyo', 10000000000), "
                   "t.node('n1', 'tokyo', 'acme', 60)");
    used(R(1), 0, 1800001);
    ck_assert_int_eq(balance("provider_pending", "acme"), 475000264);
    ck_assert_int_eq(balance("provider_available", "acme"), 0);
    /* The window is a week: nothing is due. Without one, all; a tenth is kept. */
    ledger_sql(&l, "SELECT api.market_set(0, 100000, 0, NULL, NULL)");
    ledger_sql(&l, "UPDATE ng.market SET reserve_for = '1 h'");
    ledger_once(&l);
    ledger_once(&l);
    ck_assert_int_eq(balance("provider_pending", "acme"), 0);
    ck_assert_int_eq(balance("provider_available", "acme"), 427500238);
    ck_assert_int_eq(balance("provider_reserve", "acme"), 47500026);
    ck_assert_int_eq(ledger_int(&l, "SELECT count(*) FROM ng.settlement"), 1);
    /* A disputed reservation waits for its end. */
    ledger_sql(&l, "UPDATE ng.market SET dispute_window = '7 days'");
    used(R(2), 4, 3600000);
    ledger_sql(&l, "SELECT api.dispute_open(NULL, " R(2) ", 'slow', 'admin')");
    ledger_sql(&l, "UPDATE ng.market SET dispute_window = '0'");
    ledger_once(&l);
    ck_assert_int_eq(balance("provider_pending", "acme"), 950000000);
    ledger_sql(&l, "SELECT api.dispute_close(" R(2) ", 'admin')");
    ledger_once(&l);
    ck_assert_int_eq(balance("provider_pending", "acme"), 0);
    /* Rounded together: a tenth of 1,425,000,264. */
    ck_assert_int_eq(balance("provider_reserve", "acme"), 142500026);
    ledger_check(&l);
    ledger_sql(&l, "SELECT set_config('session_replication_role', 'replica', false); "
                   "UPDATE ng.settlement SET release_at = now(); "
                   "SELECT set_config('session_replication_role', 'origin', false)");
    ledger_once(&l);
    ck_assert_int_eq(balance("provider_reserve", "acme"), 0);
    ck_assert_int_eq(balance("provider_available", "acme"), 1425000264);
    ledger_check(&l);
}
END_TEST

START_TEST(payouts)
{
    REFUSED("NG006",
            "SELECT api.payout_request('acme', NULL, 'a', NULL, NULL, 'admin')");
    REFUSED("NG020", "SELECT api.provider_bank(id, '{\"bank\": \"1\"}', NULL) FROM "
                     "ng.provider");
    ledger_sql(&l, "SELECT api.provider_bank(id, " BANK ", 'T7000012050002') FROM "
                   "ng.provider WHERE name = 'acme'");
    REFUSED("NG020", "SELECT api.provider_bank(id, NULL, 'T8000012050002') FROM "
                     "ng.provider");
    REFUSED("NG007", "SELECT api.payout_request('acme', 1426000000, 'a', NULL, NULL, "
                     "'admin')");
    REFUSED("NG020",
            "SELECT api.payout_request('acme', 1500000, 'a', NULL, NULL, 'admin')");
    ledger_sql(&l, "SELECT api.payout_request('acme', NULL, 'a', NULL, NULL, 'admin')");
    ck_assert_int_eq(ledger_int(&l, "SELECT amount_micro FROM ng.payout WHERE id = 1"),
                     1425 * YEN);
    REFUSED("NG006",
            "SELECT api.payout_request('acme', 1000000, 'a', NULL, NULL, 'x')");
    /* Nobody approves what he asked for: neither the function nor the table. */
    REFUSED("NG004",
            "SELECT api.payout_act(1, 'approve', NULL, NULL, NULL, NULL, 'admin')");
    REFUSED("23514", "UPDATE ng.payout SET state = 'approved', approved_by = "
                     "'admin', approved_at = now()");
    REFUSED("23514", "UPDATE ng.payout SET state = 'sent', file_id = 1");
    REFUSED("NG006",
            "SELECT api.payout_act(1, 'done', NULL, NULL, NULL, NULL, 'hanako')");
    REFUSED("NG006", "SELECT api.payout_file_new(ng.bank_today()::text, 'a', "
                     "NULL, NULL, 'x')");
    ledger_sql(&l,
               "SELECT api.payout_act(1, 'approve', NULL, NULL, NULL, NULL, 'hanako')");
    REFUSED("NG006", "SELECT api.payout_file_new(ng.bank_today()::text, 'a', "
                     "NULL, NULL, 'x')");
    ledger_sql(&l, "SELECT api.market_set(NULL, NULL, NULL, " BANK
                   " || '{\"client\": \"0123456789\"}'::jsonb, NULL)");
    ledger_sql(&l, "SELECT api.payout_file_new(ng.bank_today()::text, 'a', NULL, "
                   "NULL, 'x')");
    /* In one file only. */
    REFUSED("NG006", "SELECT api.payout_file_new(ng.bank_today()::text, 'a', "
                     "NULL, NULL, 'x')");
    REFUSED("23514", "UPDATE ng.payout SET file_id = NULL");
    REFUSED("23514", "UPDATE ng.payout SET state = 'approved', file_id = NULL");
    ck_assert_int_eq(balance("provider_available", "acme"), 264);
    ck_assert_int_eq(market_has("payout_clearing"), 1425 * YEN);
    ledger_sql(&l, "SELECT api.payout_act(1, 'returned', 'no such account', NULL, "
                   "NULL, NULL, 'admin')");
    ck_assert_int_eq(balance("provider_available", "acme"), 1425000264);
    ck_assert_int_eq(market_has("payout_clearing"), 0);
    ledger_sql(
        &l, "SELECT api.payout_request('acme', 1000000000, 'a', NULL, NULL, 'admin')");
    ledger_sql(&l,
               "SELECT api.payout_act(2, 'approve', NULL, NULL, NULL, NULL, 'hanako'), "
               "api.payout_file_new(ng.bank_today()::text, 'a', NULL, NULL, 'x'), "
               "api.payout_act(2, 'done', NULL, NULL, NULL, NULL, 'admin'), "
               "api.payout_act(2, 'done', NULL, NULL, NULL, NULL, 'admin')");
    ck_assert_int_eq(market_has("bank"), 1000 * YEN - 10000 * YEN);
    ck_assert_int_eq(balance("provider_available", "acme"), 425000264);
    ledger_check(&l);
}
END_TEST

START_TEST(one_comes_back)
{
    /* After it was confirmed: whole, both transfers reversed, the bank's fee the
     * provider's. */
    ck_assert_ptr_nonnull(
        strstr(refusal("SELECT api.payout_act(2, 'returned', 'x', 400000000, NULL, "
                       "NULL, 'admin')"),
               "payout 2 is 1000 JPY, not 400 JPY: it comes back whole"));
    REFUSED("NG020", "SELECT api.payout_act(2, 'returned', 'x', NULL, 1001000000, "
                     "NULL, 'admin')");
    REFUSED("NG020", "SELECT api.payout_act(2, 'done', NULL, NULL, 1000000, NULL, "
                     "'admin')");
    ledger_sql(&l, "SELECT api.payout_act(2, 'returned', 'closed', 1000000000, "
                   "880000000, 'provider', 'hanako')");
    ck_assert_int_eq(market_has("bank"), 880 * YEN - 10000 * YEN);
    ck_assert_int_eq(market_has("payout_clearing"), 0);
    ck_assert_int_eq(balance("provider_available", "acme"), 545000264);
    ck_assert_int_eq(
        ledger_int(&l, "SELECT count(*) FROM ng.transfer b JOIN ng.transfer o ON o.id "
                       "= b.reverses AND (o.dr, o.cr, o.amount_micro) = (b.cr, b.dr, "
                       "b.amount_micro) WHERE b.kind = 'payout_back' AND b.ref LIKE "
                       "'payout/2%%'"),
        2);
    char *got = ledger_text(
        &l, "SELECT concat_ws(' ', state, confirmed_by, ended_by, reason, fee_micro / "
            "1000000, fee_by) FROM ng.payout WHERE id = 2");
    ck_assert_str_eq(got, "returned admin hanako closed 880 provider");
    free(got);
    REFUSED("NG006", "SELECT api.payout_act(2, 'done', NULL, NULL, NULL, NULL, 'x')");
    ledger_check(&l);
}
END_TEST

/* Today, the day asked for, what is said of it. */
START_TEST(days_that_a_bank_can_pay_on)
{
    static const struct {
        const char *today, *day, *text;
    } t[] = {
        {"2026-11-24", "2026-11-23",
         "2026-11-23 is over: the bank's day is 2026-11-24"},
        {"2026-11-24", "2026-11-24", NULL},
        {"2026-11-24", "2026-11-28", NULL}, /* a Saturday: the bank's to say */
        {"2026-11-24", "2027-11-23", NULL},
        {"2026-11-24", "2027-11-24", "more than a year away"},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        char *sql =
            xasprintf("SELECT ng.check_pay_on('%s', '%s')", t[i].day, t[i].today);
        PGresult *res = PQexec(l.pg, sql);
        const char *said = PQresultErrorMessage(res);
        ck_assert_msg(t[i].text != NULL ? strstr(said, t[i].text) != NULL
                                        : PQresultStatus(res) == PGRES_TUPLES_OK,
                      "%s: %s", sql, said);
        PQclear(res);
        free(sql);
    }
    REFUSED("NG020",
            "SELECT api.payout_file_new((ng.bank_today() - 1)::text, 'a', NULL, NULL, "
            "'x')");
}
END_TEST

START_TEST(and_is_told)
{
    /* Its provider, in the order of things; another hears nothing. */
    char *got = ledger_text(
        &l, "SELECT string_agg(concat(e->>'kind', ' ', e->'payload'->>"
            "'payout'), ', ' ORDER BY n) FROM jsonb_array_elements(api."
            "events(NULL, (SELECT id FROM ng.provider WHERE name = 'acme'), "
            "NULL, 1000)->'events') WITH ORDINALITY AS x(e, n) WHERE "
            "e->>'kind' LIKE 'payout.%%'");
    ck_assert_str_eq(got, "payout.sent 1, payout.returned 1, payout.sent 2, "
                          "payout.done 2, payout.returned 2");
    free(got);
    ck_assert_int_eq(
        ledger_int(&l,
                   "SELECT count(*) FROM jsonb_array_elements(api.events(NULL, (SELECT "
                   "id FROM ng.provider WHERE name = 'zero'), NULL, 1000)->'events') e "
                   "WHERE e->>'kind' LIKE 'payout.%%'"),
        0);
    /* Statement, report and log have it. */
    got = ledger_text(
        &l, "SELECT concat_ws(' ', s->'moved'->>'payout', s->'moved'->>'payout_back', "
            "s->'moved'->>'payout_fee', jsonb_array_length(s->'payouts')) FROM "
            "api.statement((SELECT id FROM ng.provider WHERE name = 'acme'), "
            "to_char(now() AT TIME ZONE 'Asia/Tokyo', 'YYYY-MM')) s");
    ck_assert_str_eq(got, "-2425000000 2425000000 -880000000 5");
    free(got);
    REFUSED("NG020",
            "SELECT api.statement(id, '2999-01') FROM ng.provider WHERE name = "
            "'acme'"); /* not begun */
    got = ledger_text(&l, "SELECT concat_ws(' ', payouts, sent, confirmed, returns, "
                          "returned, bank_fees) FROM report.payouts");
    ck_assert_str_eq(got, "2 2425 0 2 2425 880");
    free(got);
    got = ledger_text(&l, "SELECT string_agg(array_to_string(refs, ' '), ' ' ORDER BY "
                          "id) FROM ng.log_todo "
                          "WHERE kind = 'payout'");
    ck_assert_str_eq(got, "1 1/returned 2 2/returned");
    free(got);
    got = ledger_text(&l, "SELECT concat_ws(' ', b->>'type', b->>'confirmed_by', "
                          "b->>'returned_by', b->>'fee_micro') FROM "
                          "ng.log_body('payout', '2/returned') b");
    ck_assert_str_eq(got, "payout_returned admin hanako 880000000");
    free(got);
    /* As before for the tests below. */
    ledger_sql(&l,
               "SELECT ng.post('reversal', ng.account_of('bank', NULL, NULL, 'JPY'), "
               "ng.account_of('provider_available', NULL, (SELECT id FROM "
               "ng.provider WHERE name = 'acme'), 'JPY'), 'JPY', 880000000, NULL, "
               "NULL, (SELECT id FROM ng.transfer WHERE kind = 'payout_fee'))");
    ledger_sql(&l, "SELECT api.payout_request('acme', 1000000000, 'a', NULL, NULL, "
                   "'admin'), api.payout_act(3, 'approve', NULL, NULL, NULL, NULL, "
                   "'hanako'), api.payout_file_new(ng.bank_today()::text, 'a', "
                   "NULL, NULL, 'x')");
    ledger_sql(&l, "SELECT api.payout_act(3, 'done', NULL, NULL, NULL, NULL, 'admin')");
    ck_assert_int_eq(balance("provider_available", "acme"), 425000264);
}
END_TEST

START_TEST(refunds)
{
    ledger_sql(&l, "UPDATE ng.market SET dispute_window = '7 days', reserve_ppm = 0");
    used(R(3), 8, 3600000); /* 1000 JPY, fee 50, not settled */
    int64_t had = wallet("lab"), fee = market_has("fee");
    REFUSED("NG006",
            "SELECT api.refund(" R(3) ", 1000000001, 'x', 'provider', 'a', NULL, "
                                      "NULL, 'admin')");
    ledger_sql(&l,
               "SELECT api.refund(" R(3) ", 200000000, 'slow', 'provider', 'a', NULL, "
                                         "NULL, 'admin')");
    ck_assert_int_eq(wallet("lab"), had + 200 * YEN);
    ck_assert_int_eq(market_has("fee"), fee - 10 * YEN);
    ck_assert_int_eq(balance("provider_pending", "acme"), 760 * YEN);
    /* Its own line on the invoice. */
    char *got;
    ck_assert_int_eq(
        LEDGER_BILLD(&l, &got, "invoice", "--tenant", "lab", "--until", "now"), 0);
    free(got);
    got =
        ledger_text(&l, "SELECT string_agg(amount_micro::text, ' ' ORDER BY line) FROM "
                        "ng.invoice_line WHERE reservation_id = " R(3));
    ck_assert_str_eq(got, "1000000000 -200000000");
    free(got);
    /* What is invoiced goes back with its tax; the market bears it. */
    had = wallet("lab");
    ledger_sql(&l,
               "SELECT api.refund(" R(3) ", 300000000, 'slow', 'market', 'a', NULL, "
                                         "NULL, 'admin')");
    ck_assert_int_eq(wallet("lab"), had + 330 * YEN);
    ck_assert_int_eq(market_has("sla_expense"), -285 * YEN);
    /* All the rest, after settlement: from available, and what that lacks the market.
     */
    ledger_sql(&l, "UPDATE ng.market SET dispute_window = '0'");
    ledger_once(&l);
    ck_assert_int_eq(balance("provider_pending", "acme"), 0);
    ledger_sql(&l,
               "SELECT api.refund(" R(3) ", NULL, 'slow', 'provider', 'a', NULL, NULL, "
                                         "'admin')");
    ck_assert_int_eq(balance("provider_available", "acme"), 425000264 + 285 * YEN);
    REFUSED("NG006",
            "SELECT api.refund(" R(3) ", NULL, 'x', 'provider', 'a', NULL, NULL, "
                                      "'admin')");
    got = ledger_text(&l,
                      "SELECT string_agg(concat_ws(' ', net_micro / 1000000, tax_micro "
                      "/ 1000000, invoice IS NULL), ', ' ORDER BY number) FROM "
                      "ng.credit_note");
    ck_assert_str_eq(got, "200 0 t, 300 30 f, 500 50 f");
    free(got);
    ledger_check(&l);
}
END_TEST

START_TEST(the_bank_takes_it_back)
{
    ledger_sql(&l, "SELECT t.tenant('shop', 'Asia/Tokyo', 1000000000)");
    ledger_sql(
        &l, "SELECT t.book(" R(4) ", 'shop', now() + interval '1 h', now() + interval "
                                  "'2 h', ARRAY[1], ARRAY[12], ARRAY[1], 600000000)");
    char *id = ledger_text(&l, "SELECT id FROM ng.transfer WHERE ref = 'first/shop'"),
         *got;
    ck_assert_int_ne(
        LEDGER_BILLD(&l, &got, "chargeback", "--topup", id, "--reason", " "), 0);
    ck_assert_msg(strstr(got, "say what the bank says") != NULL, "%s", got);
    free(got);
    ck_assert_int_eq(
        LEDGER_BILLD(&l, &got, "chargeback", "--topup", id, "--reason", "disputed"), 0);
    ck_assert_str_eq(got, "400 JPY from the wallet, 600 JPY are owed\n");
    free(got);
    ck_assert_int_eq(
        LEDGER_BILLD(&l, &got, "chargeback", "--topup", id, "--reason", "again"), 6);
    free(got);
    ck_assert_int_eq(LEDGER_BILLD(&l, &got, "reverse", "--transfer", id), 6);
    free(got);
    /* Nothing can be reserved; what comes in pays the debt first, at once. */
    ledger_sql(&l,
               "SELECT api.topup('shop', 700000000, 'JPY', 'again', 'a', NULL, NULL)");
    ck_assert_int_eq(wallet("shop"), 100 * YEN);
    REFUSED("NG007", "SELECT api.withdraw('shop', 101000000, NULL, 'a', NULL, NULL)");
    REFUSED("NG020", "SELECT api.withdraw('shop', 1500000, NULL, 'a', NULL, NULL)");
    ledger_sql(&l, "SELECT api.withdraw('shop', 100000000, 'w1', 'a', NULL, NULL)");
    ck_assert_int_eq(wallet("shop"), 0);
    free(id);
    ledger_check(&l);
}
END_TEST

/* SQL and the state it must fail with, as the owner of every table. */
static const struct attack {
    const char *sql, *state;
} attacks[] = {
    {"UPDATE ng.settlement SET gross_micro = gross_micro + 1", "23001"},
    {"UPDATE ng.settlement SET released_at = NULL, released_micro = NULL", "23001"},
    {"DELETE FROM ng.settlement", "23001"},
    {"TRUNCATE ng.settlement CASCADE", "23001"},
    {"INSERT INTO ng.settlement (account, provider_id, currency, transfers, captures, "
     "gross_micro, less_micro, reserve_ppm, reserve_micro, release_at) SELECT account, "
     "provider_id, currency, transfers, captures, gross_micro, less_micro, "
     "reserve_ppm, "
     "reserve_micro, release_at FROM ng.settlement WHERE NOT isempty(transfers)",
     "23P01"},
    {"UPDATE ng.settle_parked SET settlement_id = NULL", "23001"},
    {"UPDATE ng.payout SET amount_micro = 1", "23001"},
    {"UPDATE ng.payout SET bank = '{}'", "23001"},
    {"UPDATE ng.payout SET state = 'done' WHERE state = 'returned'", "23514"},
    {"UPDATE ng.payout SET confirmed_by = 'x' WHERE state = 'done'", "23514"},
    {"UPDATE ng.payout SET confirmed_by = NULL, confirmed_at = NULL WHERE state = "
     "'done'",
     "23514"},
    {"UPDATE ng.payout SET state = 'returned', fee_micro = amount_micro + 1, fee_by = "
     "'market' WHERE state = 'done'",
     "23514"},
    {"UPDATE ng.payout SET fee_micro = 1, fee_by = 'market' WHERE state = 'returned'",
     "23514"},
    {"UPDATE ng.payout SET reason = 'y' WHERE state = 'returned'", "23514"},
    {"UPDATE ng.payout SET approved_by = 'x'", "23514"},
    {"DELETE FROM ng.payout", "23001"},
    {"TRUNCATE ng.payout CASCADE", "23001"},
    {"UPDATE ng.payout_file SET total_micro = 1", "23001"},
    {"INSERT INTO ng.payout (provider_id, currency, amount_micro, requested_by) SELECT "
     "id, 'JPY', 1500000, 'a' FROM ng.provider",
     "23514"},
    {"INSERT INTO ng.payout (provider_id, currency, amount_micro, requested_by, state, "
     "approved_by, approved_at) SELECT id, 'JPY', 1000000, 'a', 'approved', 'b', now() "
     "FROM ng.provider",
     "23514"},
    {"INSERT INTO ng.payout (provider_id, currency, amount_micro, requested_by) SELECT "
     "id, 'JPY', 1000000, 'a' FROM ng.provider, generate_series(1, 2)",
     "23505"},
    {"UPDATE ng.reservation SET refunded_micro = captured_micro + 1", "23514"},
    {"UPDATE ng.credit_note SET net_micro = 1", "23001"},
    {"DELETE FROM ng.credit_note", "23001"},
    {"UPDATE ng.credit_note_line SET amount_micro = 1", "23001"},
    {"INSERT INTO ng.credit_note_line SELECT number, 9, 'x', reservation_id, 1 FROM "
     "ng.credit_note",
     "23514"},
    {"INSERT INTO ng.credit_note SELECT 'CN-2026-999999', tenant_id, currency, "
     "reservation_id, invoice, now(), borne_by, reason, issued_by, net_micro, tax_ppm, "
     "tax_micro, total_micro, document FROM ng.credit_note LIMIT 1",
     "23514"},
    {"UPDATE ng.chargeback SET reason = 'y'", "23001"},
    {"INSERT INTO ng.chargeback SELECT transfer_id, now(), 'x', wallet_micro, "
     "receivable_micro FROM ng.chargeback",
     "23505"},
    {"INSERT INTO ng.chargeback SELECT id, now(), 'x', 1, 0 FROM ng.transfer WHERE "
     "kind "
     "= 'topup'",
     "23514"},
    {"INSERT INTO ng.transfer (kind, dr, cr, currency, amount_micro, reverses) SELECT "
     "'reversal', cr, dr, currency, amount_micro, t.id FROM ng.transfer t JOIN "
     "ng.chargeback c ON c.transfer_id = t.id",
     "23514"},
    {"UPDATE ng.account SET balance_micro = -1 WHERE kind = 'provider_available'",
     "23514"},
    {"UPDATE ng.account SET balance_micro = -1 WHERE kind = 'provider_reserve'",
     "23514"},
    {"UPDATE ng.provider SET bank = '{}'", "23514"},
    {"UPDATE ng.provider SET registration = 'T1234567890123'", "23514"},
    {"INSERT INTO ng.api_key (hash, role, label) SELECT sha256(n::text::bytea), "
     "'admin', "
     "'same' "
     "FROM generate_series(1, 2) n",
     "23505"},
};

START_TEST(owner_cannot_break_it)
{
    char *text =
        xasprintf("BEGIN; SET LOCAL ROLE neargpu_owner; %s; COMMIT", attacks[_i].sql);
    char state[6];
    snprintf(state, sizeof(state), "%s", testdb_state(l.pg, text));
    PQclear(PQexec(l.pg, "ROLLBACK"));
    free(text);
    ck_assert_msg(strcmp(state, attacks[_i].state) == 0, "%s: %s, not %s",
                  attacks[_i].sql, state, attacks[_i].state);
}
END_TEST

/* ---- random histories ----------------------------------------------------------- */

#define LEASES 30
static struct {
    int64_t net[LEASES], gross[LEASES], back[LEASES], own[LEASES];
    int64_t earned, returned, paid; /* of the provider, all accounts together */
    int count;
} m;

static int pick(int n)
{
    return (int)(rand_r(&seed) % (unsigned)n);
}

static void kill_some(void)
{
    for (int n = pick(3); n > 0; n--) {
        pid_t pid =
            ledger_billd_start(&l, (const char *const[]){"--interval", "100ms", NULL});
        nanosleep(&(struct timespec){.tv_nsec = 1000000 * (5 + pick(60))}, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        while (ledger_int(&l, "SELECT count(*) FROM pg_stat_activity WHERE usename = "
                              "'neargpu_billd'") > 0)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

static char *lease_id(int i)
{
    return xasprintf("'00000000-0000-7000-8000-1%011d'", i);
}

static void lease(void)
{
    if (m.count == LEASES)
        return;
    int64_t ms = 1 + pick(3600000);
    char *id = lease_id(m.count);
    ledger_sql(
        &l,
        "SELECT t.book(%s, 'rich', now() - interval '2 h' - %d * interval '3 h', "
        "now() - interval '1 h' - %d * interval '3 h', ARRAY[(SELECT id FROM "
        "ng.node WHERE name = 'n2')], ARRAY[0], ARRAY[1], 777777777)",
        id, m.count, m.count);
    ledger_sql(&l,
               "SELECT t.receipt(%s, (SELECT id FROM ng.node WHERE name = 'n2'), s, "
               "CASE s WHEN 1 THEN 'ready' WHEN 4 THEN 'teardown' ELSE 'interval' END, "
               "%" PRId64 " * (s - 1) / 3) FROM generate_series(1, 4) s",
               id, ms);
    kill_some();
    ledger_once(&l);
    __int128 gross = ((__int128)ms * 777777777 * 2 + 3600000) / 7200000;
    m.gross[m.count] = (int64_t)gross;
    m.net[m.count] = (int64_t)(gross - (gross * 50000 * 2 + 1000000) / 2000000);
    m.earned += m.net[m.count++];
    free(id);
}

/* The provider bears it: its share leaves it, whatever it lies in, unless paid out. */
static void give_back(void)
{
    if (m.count == 0)
        return;
    int i = pick(m.count);
    int64_t left = m.gross[i] - m.back[i], amount = left / (1 + pick(4));
    if (amount == 0)
        return;
    char *id = lease_id(i);
    int64_t all = m.earned - m.returned - m.paid,
            before = balance("provider_pending", "rand") +
                     balance("provider_available", "rand") +
                     balance("provider_reserve", "rand");
    ck_assert_int_eq(all, before);
    ledger_sql(
        &l, "SELECT api.refund(%s, %" PRId64 ", 'x', 'provider', 'a', NULL, NULL, 'z')",
        id, amount);
    free(id);
    m.back[i] += amount;
    /* Exact in proportion to what was left: the provider's part, rounded as the fee is.
     */
    int64_t net_left = m.net[i] - m.own[i], fee_left = left - net_left;
    int64_t fee =
        (int64_t)(((__int128)amount * fee_left * 2 + left) / (2 * (__int128)left));
    m.own[i] += amount - fee;
    m.returned += amount - fee;
    /* What it no longer has the market bears. */
    int64_t now = balance("provider_pending", "rand") +
                  balance("provider_available", "rand") +
                  balance("provider_reserve", "rand");
    if (now != m.earned - m.returned - m.paid) {
        ck_assert_int_ge(now, m.earned - m.returned - m.paid);
        m.returned = m.earned - m.paid - now;
    }
}

static void act(int64_t id, const char *what, int64_t fee, const char *by)
{
    ledger_sql(&l,
               "SELECT api.payout_act(%" PRId64 ", '%s', 'x', NULL, NULLIF(%" PRId64
               ", 0), NULLIF('%s', ''), '%s')",
               id, what, fee, by, strcmp(what, "approve") == 0 ? "two" : "one");
}

/* The bank's word of a payout that is sent or done: by hand, maybe with its fee, or in
 * its file. */
static void bank_says(int64_t id, int64_t micro, bool back)
{
    int64_t fee = back && pick(2) ? (1 + pick((int)(micro / YEN))) * YEN : 0;
    bool ours = pick(2);
    if (fee > 0 || pick(2))
        act(id, back ? "returned" : "done", fee,
            fee == 0 ? "" : (ours ? "market" : "provider"));
    else
        ledger_sql(&l,
                   "SELECT api.payout_results('csv', NULL, sha256('%" PRId64
                   "/%d'), '[{\"line\": 2, \"payout\": %" PRId64 ", \"state\": "
                   "\"%s\"}]', 'a', NULL, NULL, 'two')",
                   id, back, id, back ? "returned" : "done");
    if (back)
        m.paid -= micro - (ours ? 0 : fee);
}

static void pay(void)
{
    int64_t some = balance("provider_available", "rand") / YEN * YEN;
    if (some == 0)
        return;
    ledger_sql(&l, "SELECT api.payout_request('rand', NULL, 'a', NULL, NULL, 'one')");
    int64_t id = ledger_int(&l, "SELECT max(id) FROM ng.payout");
    if (pick(6) == 0) {
        act(id, "reject", 0, "");
        return;
    }
    act(id, "approve", 0, "");
    ledger_sql(&l, "SELECT api.payout_file_new(ng.bank_today()::text, 'a', NULL, "
                   "NULL, 'one')");
    m.paid += some;
    if (pick(3) > 0)
        bank_says(id, some, pick(3) == 0);
}

/* Of one that was sent or paid long ago. */
static void bank_speaks(void)
{
    char *row = ledger_text(
        &l, "SELECT coalesce((SELECT concat_ws(' ', id, amount_micro, (state = "
            "'done')::int) FROM ng.payout WHERE state IN ('sent', 'done') AND "
            "provider_id = (SELECT id FROM ng.provider WHERE name = 'rand') ORDER BY "
            "(id * 7919) %% 101 LIMIT 1), '')");
    int64_t id, micro;
    int done;
    if (sscanf(row, "%" SCNd64 " %" SCNd64 " %d", &id, &micro, &done) == 3)
        bank_says(id, micro, done == 1 || pick(2));
    free(row);
}

static void settle(void)
{
    ledger_sql(&l, "UPDATE ng.market SET dispute_window = '%d', reserve_ppm = %d",
               pick(2) ? 0 : 7 * 86400, pick(3) * 50001);
    kill_some();
    ledger_once(&l);
}

START_TEST(histories)
{
    ledger_sql(&l, "UPDATE ng.market SET reserve_for = '0'; SELECT t.provider('rand', "
                   "NULL), t.tenant('rich', 'Asia/Tokyo', 900000000000), t.node('n2', "
                   "'tokyo', 'rand', 60); SELECT api.provider_bank(id, " BANK
                   ", NULL) FROM ng.provider WHERE name = 'rand'");
    for (int step = 0; step < 90; step++) {
        int what = pick(10);
        if (what < 4)
            lease();
        else if (what < 6)
            give_back();
        else if (what < 8)
            settle();
        else if (what < 9)
            pay();
        else
            bank_speaks();
        ck_assert_int_eq(balance("provider_pending", "rand") +
                             balance("provider_available", "rand") +
                             balance("provider_reserve", "rand"),
                         m.earned - m.returned - m.paid);
        if (step % 15 == 0)
            ledger_check(&l);
    }
    ledger_sql(&l, "UPDATE ng.market SET dispute_window = '0'");
    ledger_once(&l);
    ck_assert_int_eq(balance("provider_pending", "rand"), 0);
    ledger_check(&l);
}
END_TEST

int main(int argc, char **argv)
{
    setenv("CK_FORK", "no", 1);
    seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : (unsigned)time(NULL);
    printf("seed %u\n", seed);
    fflush(stdout);
    ledger_open(&l, NULL);
    Suite *suite = suite_create("payout");
    TCase *tc = tcase_create("payout");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, settlement);
    tcase_add_test(tc, payouts);
    tcase_add_test(tc, one_comes_back);
    tcase_add_test(tc, days_that_a_bank_can_pay_on);
    tcase_add_test(tc, and_is_told);
    tcase_add_test(tc, refunds);
    tcase_add_test(tc, the_bank_takes_it_back);
    tcase_add_loop_test(tc, owner_cannot_break_it, 0,
                        (int)(sizeof(attacks) / sizeof(attacks[0])));
    tcase_add_test(tc, histories);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    ledger_close(&l);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
