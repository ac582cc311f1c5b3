/* What a superuser alters is found: in a market that has every kind of record, each
 * column of each table behind them is changed, each row removed and each copied under
 * another name, with triggers and constraints out of the way; the check of the log
 * (sequencer_verify) or one of the check views has to see it. Columns are read from the
 * catalogue, so a new one is attacked by itself. What is justly not found stands below
 * with its reason, and a test sees that it is still not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/sequencer.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

#define R(n) "'00000000-0000-7000-8000-00000000000" #n "'"
#define BANK                                                                   \
    "'{\"bank\": \"0001\", \"branch\": \"012\", \"type\": \"1\", \"number\": " \
    "\"1234567\", \"holder\": \"ｶ)ｱｸﾒ\"}'"

static struct ledger l;
static char dir[64];

/* Rows that are attacked: one of each sort is enough. */
static const struct {
    const char *table, *rows;
} attacked[] = {
    {"transfer", "SELECT DISTINCT ON (kind) ctid FROM ng.transfer"},
    {"receipt", "SELECT DISTINCT ON (kind) ctid FROM ng.receipt"},
    {"invoice", "SELECT ctid FROM ng.invoice"},
    {"invoice_line", "SELECT ctid FROM ng.invoice_line LIMIT 3"},
    {"invoice_tax", "SELECT ctid FROM ng.invoice_tax"},
    {"credit_note", "SELECT ctid FROM ng.credit_note"},
    {"credit_note_tax", "SELECT ctid FROM ng.credit_note_tax"},
    {"price", "SELECT ctid FROM ng.price"},
    {"quote", "SELECT ctid FROM ng.quote"},
    {"payout", "SELECT ctid FROM ng.payout"},
    {"agreed", "SELECT ctid FROM ng.agreed LIMIT 2"},
    {"booking", "SELECT ctid FROM ng.booking LIMIT 2"},
    {"account", "SELECT DISTINCT ON (kind) ctid FROM ng.account a WHERE EXISTS (SELECT "
                "FROM ng.transfer WHERE a.id IN (dr, cr))"},
    {"meter", "SELECT ctid FROM ng.meter LIMIT 2"},
    {"usage", "SELECT ctid FROM ng.usage LIMIT 2"},
    {"log", "SELECT ctid FROM ng.log"},
    {"log_leaf", "SELECT DISTINCT ON (log) ctid FROM ng.log_leaf"},
    {"log_tile", "SELECT ctid FROM ng.log_tile"},
    {"log_checkpoint", "SELECT DISTINCT ON (log) ctid FROM ng.log_checkpoint"},
};

/* "table.column", or "table -" (a row removed), "table +" (a row added). */
static const struct {
    const char *what, *why;
} unseen[] = {
    {"receipt.countersign", "the market's own signature: its holder has it"},
    {"receipt.receipt_key", "the signature says which key made it"},
    {"credit_note.borne_by", "the transfers say whose money it was"},
    {"credit_note.issued_by", "stands in the audit log"},
    {"quote.request", "its hash is logged; the text goes after a month"},
    {"quote.plan", "its hash is logged; the text goes after a month"},
    /* of one that is done; of one that came back they are in the log */
    {"payout.ended_by", "stands in the audit log"},
    {"payout.ended_at", "its transfers have the instant"},
    {"payout.reason", "none"},
    {"payout.confirmed_by", "stands in the audit log"},
    {"payout.confirmed_at", "its transfers have the instant"},
    {"payout.fee_by", "there was no fee"},
    /* where and when a lease may run: charged is what was agreed, as signed receipts
     * say it was used */
    {"booking.site_id", "the node's"},
    {"booking.during", "working state: cut when a lease ends early"},
    {"booking.epoch", "working state: receipts name it"},
    {"account.floor_micro", "a wallet's credit line: an administrator's word"},
    /* sums of it are held against meters */
    {"usage.at", "what a report puts it under"},
    {"usage.used_at", "what a report puts it under"},
    {"usage.quantity_ms", "what a report counts; charged is the meter"},
    {"usage.late_ms", "what a report counts"},
    {"usage.gpu_model", "what a report puts it under: a node's may change"},
    {"log_leaf.at", "a remark"},
    {"log_checkpoint.at", "a remark"},
};

static void set_up(void)
{
    ledger_open(&l, NULL);
    snprintf(dir, sizeof(dir), "/tmp/neargpu-tamper.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ledger_sql(&l,
               "SELECT t.tenant('lab', 'Asia/Tokyo', 100000000000), "
               "t.node('n1', 'tokyo', 'acme', 8), t.node('n2', 'tokyo', 'zero', 8)");
    ledger_sql(&l, "UPDATE ng.node SET gpu_model = 'A10' WHERE name = 'n2'");
    ledger_sql(&l, "SELECT api.market_set(0, 100000, 0, " BANK
                   " || '{\"client\": \"0123456789\"}'::jsonb, NULL, 'Ote')");
    ledger_sql(&l, "SELECT api.tax_rate_set('{\"class\": \"reduced\", \"rate_ppm\": "
                   "80000}', 'admin'), api.tax_rule_set('{\"meter\": \"gpu\", "
                   "\"gpu_model\": \"A10\", \"class\": \"reduced\"}', 'admin')");
    ledger_sql(&l, "INSERT INTO ng.price (node_id, during, currency, "
                   "per_gpu_hour_micro, set_by) SELECT id, tstzrange(now(), NULL), "
                   "'JPY', 1000400000, 'test' FROM ng.node");
    ledger_sql(&l, "SELECT api.quote_put(gen_random_uuid(), id, ng.us(now()), "
                   "ng.us(now()) + 3600000000, '{}', '{}', sha256('q'), 'a', NULL, "
                   "NULL) FROM ng.tenant");
    for (int n = 1; n <= 2; n++) {
        char *id = xasprintf("'00000000-0000-7000-8000-00000000000%d'", n);
        char *got = ledger_text(
            &l,
            "SELECT t.book(%s, 'lab', now() - interval '3 h', now() - interval '1 h', "
            "ARRAY[1, 2], ARRAY[%d, %d], ARRAY[1, 1], 1000400000)",
            id, n, n);
        ck_assert_str_eq(got, "ok");
        ledger_sql(&l,
                   "SELECT t.receipt(%s, n, 1, 'ready', 0), t.receipt(%s, n, 2, "
                   "'interval', 1800000), t.receipt(%s, n, 3, 'teardown', 3600001) "
                   "FROM generate_series(1, 2) n",
                   id, id, id);
        free(got);
        free(id);
    }
    ledger_once(&l);
    ck_assert_int_eq(
        LEDGER_BILLD(&l, NULL, "invoice", "--tenant", "lab", "--until", "now"), 0);
    ledger_sql(&l, "SELECT api.refund(" R(2) ", 500000000, 'slow', 'provider', 'a', "
                                             "NULL, NULL, 'admin')");
    ledger_once(&l);
    ledger_sql(&l, "SELECT api.provider_bank(id, " BANK ", 'T7000012050002') FROM "
                   "ng.provider WHERE name = 'acme'");
    for (int n = 1; n <= 2; n++)
        ledger_sql(
            &l,
            "SELECT api.payout_request('acme', 100000000, 'a', NULL, NULL, 'admin');"
            "SELECT api.payout_act(%d, 'approve', NULL, NULL, NULL, NULL, 'hanako'), "
            "api.payout_file_new(ng.bank_today()::text, 'a', NULL, NULL, 'x'), "
            "api.payout_act(%d, 'done', NULL, NULL, NULL, NULL, 'admin')",
            n, n);
    ledger_sql(&l, "SELECT api.payout_act(2, 'returned', 'closed', NULL, NULL, NULL, "
                   "'hanako')");
    char *key = xasprintf("%s/log.key", dir), *got;
    ck_assert_msg(LEDGER_BILLD(&l, &got, "--once", "--log-key", key) == 0, "%s", got);
    free(got);
    free(key);
    /* As it is an hour later: nothing is new any more. */
    ledger_sql(&l,
               "SET session_replication_role = replica; UPDATE ng.event SET at = at - "
               "interval '1 h'; RESET session_replication_role");
    /* Constraints would refuse much of what follows, and a superuser can drop them. */
    ledger_sql(
        &l,
        "DO $$ DECLARE v record; BEGIN FOR v IN SELECT conrelid::regclass AS rel, "
        "conname FROM pg_constraint WHERE connamespace = 'ng'::regnamespace AND "
        "contype IN ('c', 'x') AND conrelid <> 0 AND coninhcount = 0 LOOP EXECUTE "
        "format('ALTER TABLE %%s DROP CONSTRAINT %%I', v.rel, v.conname); END LOOP; "
        "FOR v IN SELECT attrelid::regclass AS rel, attname FROM pg_attribute a JOIN "
        "pg_class c ON c.oid = attrelid WHERE relnamespace = 'ng'::regnamespace AND "
        "attidentity <> '' LOOP EXECUTE format('ALTER TABLE %%s ALTER %%I DROP "
        "IDENTITY', v.rel, v.attname); END LOOP; END $$");
}

/* Another value of the column's type, plausible rather than wild. */
static char *other(const char *type, const char *column)
{
    static const struct {
        const char *type, *value, *null;
    } rows[] = {
        {"smallint", "%1$s + 1::smallint", "1"},
        {"integer", "%1$s + 1000003", "1000003"},
        {"bigint", "%1$s + 1000003", "1000003"},
        {"numeric", "%1$s + 1", "1"},
        {"text", "%1$s || 'x'", "'x'"},
        {"ng.tax_class", "'zero'", "'zero'"},
        {"ng.currency", "CASE %1$s WHEN 'USD' THEN 'EUR' ELSE 'USD' END", "'USD'"},
        {"boolean", "NOT %1$s", "true"},
        {"uuid", "md5(%1$s::text)::uuid", "gen_random_uuid()"},
        {"bytea", "set_byte(%1$s, 0, get_byte(%1$s, 0) # 1)", "'\\x00'"},
        {"ng.sha256", "set_byte(%1$s, 0, get_byte(%1$s, 0) # 1)", "sha256('')"},
        {"date", "%1$s + 1", "now()::date"},
        {"interval", "%1$s + interval '1 s'", "interval '1 s'"},
        {"timestamp with time zone", "%1$s + interval '1 s'", "now()"},
        {"tstzrange",
         "tstzrange(lower(%1$s) + interval '1 s', upper(%1$s) + interval '1 s')",
         "tstzrange(now(), NULL)"},
        {"int4range", "int4range(lower(%1$s) + 1, upper(%1$s) + 1)", "int4range(1, 2)"},
        {"jsonb",
         "CASE WHEN %1$s = '[]' THEN '[{\"forged\": 1}]' WHEN jsonb_typeof(%1$s) = "
         "'array' THEN %1$s - 0 ELSE %1$s || '{\"forged\": 1}' END",
         "'{}'"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].type, type) == 0) {
            char *value = xasprintf(rows[i].value, column);
            char *all = xasprintf("coalesce(%s, %s)", value, rows[i].null);
            free(value);
            return all;
        }
    ck_abort_msg("no other value is known of type %s (%s)", type, column);
}

/* Whether the administrator's checks see what this statement does, which is undone. */
static bool found(const char *sql)
{
    struct err err;
    char *breaches = NULL;
    int64_t leaves;
    testdb_sql(l.pg, "BEGIN; SET LOCAL session_replication_role = replica");
    const char *state = testdb_state(l.pg, sql);
    if (strcmp(state, "00000") != 0) {
        testdb_sql(l.pg, "ROLLBACK");
        ck_assert_msg(strcmp(state, "23505") == 0, "%s: %s", state, sql);
        return true; /* a key refuses it */
    }
    bool seen = sequencer_verify(l.pg, &breaches, &leaves, &err) != 0 ||
                breaches[0] != '\0' ||
                ledger_int(&l, "SELECT count(*) FROM api.check_all() WHERE breaches "
                               "> 0") > 0;
    free(breaches);
    testdb_sql(l.pg, "ROLLBACK");
    return seen;
}

static int wrong;

/* Of a column or a table: how many rows were attacked and not found, and what of. */
static void judge(const char *what, int missed, const char *sql)
{
    bool excepted = false;
    for (size_t i = 0; i < sizeof(unseen) / sizeof(unseen[0]); i++)
        excepted = excepted || strcmp(unseen[i].what, what) == 0;
    if ((missed > 0) == excepted)
        return;
    wrong++;
    if (excepted)
        printf("%s: is found, and need not be excepted\n", what);
    else
        printf("%s: not found: %s\n", what, sql);
}

static void each_column(const char *table, const char *rows)
{
    char *list = xasprintf(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid "
        "= 'ng.%s'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = "
        "'' ORDER BY attnum",
        table);
    PGresult *columns = PQexec(l.pg, list), *which = PQexec(l.pg, rows);
    ck_assert_msg(PQntuples(columns) > 0 && PQntuples(which) > 0, "%s has no rows",
                  table);
    for (int c = 0; c < PQntuples(columns); c++) {
        const char *column = PQgetvalue(columns, c, 0);
        char *value = other(PQgetvalue(columns, c, 1), column);
        char *what = xasprintf("%s.%s", table, column), *sql = NULL;
        int missed = 0;
        for (int row = 0; row < PQntuples(which) && missed == 0; row++) {
            free(sql);
            sql = xasprintf("UPDATE ng.%s SET %s = %s WHERE ctid = '%s'", table, column,
                            value, PQgetvalue(which, row, 0));
            missed += !found(sql);
        }
        judge(what, missed, sql);
        free(sql);
        free(what);
        free(value);
    }
    PQclear(columns);
    PQclear(which);
    free(list);
}

START_TEST(test_altered)
{
    const char *table = attacked[_i].table;
    wrong = 0;
    each_column(table, attacked[_i].rows);
    char *what = xasprintf("%s -", table);
    char *sql = xasprintf("DELETE FROM ng.%s WHERE ctid IN (SELECT ctid FROM (%s) x "
                          "LIMIT 1)",
                          table, attacked[_i].rows);
    judge(what, !found(sql), sql);
    free(sql);
    free(what);
    ck_assert_msg(wrong == 0, "%s: %d are not as they should be", table, wrong);
}
END_TEST

/* Without which all of the above would be found. */
START_TEST(test_clean)
{
    ck_assert(!found("SELECT"));
    /* Each exception is of something that is there. */
    for (size_t i = 0; i < sizeof(unseen) / sizeof(unseen[0]); i++) {
        bool known = false;
        for (size_t k = 0; k < sizeof(attacked) / sizeof(attacked[0]); k++)
            known = known || strncmp(unseen[i].what, attacked[k].table,
                                     strcspn(unseen[i].what, ". ")) == 0;
        ck_assert_msg(known, "%s is not attacked", unseen[i].what);
    }
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1);
    Suite *suite = suite_create("tamper");
    TCase *tc = tcase_create("tamper");
    tcase_set_timeout(tc, 300);
    tcase_add_unchecked_fixture(tc, set_up, NULL);
    tcase_add_test(tc, test_clean);
    tcase_add_loop_test(tc, test_altered, 0, sizeof(attacked) / sizeof(attacked[0]));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    struct err err;
    ledger_close(&l);
    return fsx_remove_tree(dir, &err) != 0 || failed != 0;
}
