/* Attacks on a market that is full of everything (history_run): each role tries to read
 * and write each table, and the owner of the tables tries to change what is only added
 * to. Tables are found in the catalog: a new one fails here until it is guarded, or is
 * listed below with what may change in it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "tests/db/history_run.h"
#include "tests/unit/unit.h"

static struct ledger *l;

START_TEST(a_market_full_of_everything)
{
    run_plant();
    run_steps(500);
    /* What no event of it makes. */
    ledger_sql(
        l,
        "INSERT INTO ng.audit (at, actor, address, method, path, status, request_id) "
        "VALUES (now(), 'a', '', 'GET', '/', 200, ''); INSERT INTO ng.price (node_id, "
        "during, currency, per_gpu_hour_micro, set_by) VALUES (1, tstzrange(now(), "
        "NULL), ng.currency(), 1, 'a'); SELECT api.quote_put(gen_random_uuid(), id, 0, "
        "1, "
        "'{}', '{}', t.hash('x'), 'a', NULL, NULL) FROM ng.tenant LIMIT 1; INSERT INTO "
        "ng.budget (tenant_id, currency, limit_micro, hard, period, since, until, "
        "held_micro) SELECT t.tenant('thrifty', 'UTC', 0), ng.currency(), 9, true, "
        "'total', now(), 'infinity', 7");
    ledger_sql(
        l,
        "SET session_replication_role = replica; INSERT INTO ng.payout_file (made_by, "
        "pay_on, currency, count, total_micro) VALUES ('a', now(), ng.currency(), 1, "
        "1000000); INSERT INTO ng.payout (provider_id, currency, amount_micro, "
        "requested_by, state, approved_by, approved_at, confirmed_by, confirmed_at, "
        "ended_by, ended_at, file_id) SELECT id, ng.currency(), 1000000, 'a', "
        "'returned', 'b', now(), 'a', now(), 'a', now(), (SELECT max(id) FROM "
        "ng.payout_file) FROM ng.provider LIMIT 1; INSERT INTO ng.payout_result "
        "(read_by, sha256, format, count) VALUES ('a', t.hash('x'), 'csv', 1); "
        "INSERT INTO ng.payout_result_line (result_id, line, payout_id, state, "
        "changed) SELECT 1, 2, max(id), 'returned', true FROM ng.payout; SET "
        "session_replication_role = origin");
}
END_TEST

/* In a transaction as this role, undone again. */
static const char *as_role(const char *role, const char *sql)
{
    static char state[6];
    char *text = xasprintf(
        "BEGIN; SET LOCAL ROLE %s; %s; SET CONSTRAINTS ALL IMMEDIATE", role, sql);
    snprintf(state, sizeof(state), "%s", testdb_state(l->pg, text));
    PQclear(PQexec(l->pg, "ROLLBACK"));
    free(text);
    return state;
}

/* Tables with their columns. */
#define TABLES(where)                                                                  \
    "SELECT c.relname, (SELECT string_agg(quote_ident(attname), ',' ORDER BY attnum) " \
    "FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped "    \
    "AND "                                                                             \
    "attgenerated = '') FROM pg_class c WHERE relnamespace = 'ng'::regnamespace AND "  \
    "relkind IN ('r', 'p') AND " where " ORDER BY 1"

START_TEST(no_program_touches_a_table)
{
    static const char *const roles[] = {"neargpu_server", "neargpu_billd",
                                        "neargpu_report"};
    static const char *const verbs[] = {
        "SELECT FROM ng.%s",       "INSERT INTO ng.%s SELECT * FROM ng.%s",
        "DELETE FROM ng.%s",       "TRUNCATE ng.%s CASCADE",
        "LOCK TABLE ng.%s",        "ALTER TABLE ng.%s DISABLE TRIGGER ALL",
        "DROP TABLE ng.%s CASCADE"};
    PGresult *t = PQexec(l->pg, TABLES("true"));
    ck_assert_int_gt(PQntuples(t), 60);
    for (int i = 0; i < PQntuples(t); i++)
        for (size_t r = 0; r < 3; r++) {
            const char *name = PQgetvalue(t, i, 0);
            char *columns = xstrdup(PQgetvalue(t, i, 1)),
                 *first = strtok_r(columns, ",", &(char *){NULL});
            for (size_t v = 0; v <= sizeof(verbs) / sizeof(verbs[0]); v++) {
                char *sql =
                    v < sizeof(verbs) / sizeof(verbs[0])
                        ? xasprintf(verbs[v], name, name)
                        : xasprintf("UPDATE ng.%s SET %s = %s", name, first, first);
                const char *state = as_role(roles[r], sql);
                ck_assert_msg(strcmp(state, "42501") == 0, "%s may %s: %s", roles[r],
                              sql, state);
                free(sql);
            }
            free(columns);
        }
    PQclear(t);
}
END_TEST

/* What of a table may change, "*" all of it, and whether its rows may go; of a table
 * that is not here, nothing. Values that may only grow are attacked further down. */
static const struct mutable
{
    const char *table, *columns;
    bool rows_go;
}
mutables[] = {
    /* Settings, and what is known of people and machines: each change is in the audit
     * log, and what followed from the old value is kept where it was used. */
    {"market", "*", true},
    {"tenant", "*", true},
    {"tenant_key", "*", true},
    {"provider", "*", true},
    {"api_key", "*", true},
    {"join_code", "*", true},
    {"site", "*", true},
    {"dataset", "*", true},
    {"node", "*", true},
    {"node_speaker", "*", true},
    {"node_key", "attested", false},
    {"gpu", "*", true},
    {"gpu_past", "*", true},
    {"path", "*", true},
    {"rtt", "*", true},
    {"spot_terms", "*", true},
    {"sla_terms", "*", true},
    {"currency_exponent", "*", true},
    {"resv_rule", "*", true},
    {"witness", "*", true},
    /* The market's present: bookings are made, moved and undone. */
    {"booking", "*", true},
    {"path_booking", "*", true},
    {"waiting", "*", true},
    {"token", "*", true},
    {"revocation", "*", true},
    {"budget", "*", true},
    /* Queues, outboxes, replies, caches. */
    {"event", "*", true},
    {"idempotency", "*", true},
    {"log", "*", true},
    {"log_todo", "*", true},
    {"agreed_cursor", "*", true}, /* what it passes twice is there already */
    {"node_witness", "*", true},  /* the newest word of each node */
    {"log_tile", "*", true}, /* hashes of leaves: computed again by whoever verifies */
    {"invoice_check", "*", true}, /* empty when a transaction ends */
    {"receipt_due", "*", true},   /* a queue; check_unbilled does not trust it */
    {"sla_due", "*", true},
    {"check_result", "*", true},
    /* Statistics, made anew from what is kept. */
    {"match_log%", "*", true},
    {"roll_%", "*", true},
    /* Records with a part that goes on. */
    {"account", "balance_micro,floor_micro", false},
    {"receipt", "countersign", false},
    {"dispute", "closed_by,closed_at", false},
    {"settlement", "released_at,released_micro", false},
    {"settle_parked", "settlement_id", false},
    {"settle_cursor", "transfer_id,ppm,net_micro,reserve_micro", false},
    {"settle_less", "micro", false},
    {"payout",
     "state,approved_by,approved_at,file_id,confirmed_by,confirmed_at,ended_by,ended_"
     "at,reason,fee_micro,fee_by",
     false},
    {"refund_share", "gross_micro,fee_micro", false},
    {"incident", "to_at,closed_by", false},
    {"promo_grant", "used_micro,back_micro", false},
    {"promo_cursor", "transfer_id,carry_micro", false},
    {"meter", "seq,gpu_ms,amount_micro,fee_micro,closed", false},
    {"quote", "request,plan", false},
    {"price", "during", false},
    {"tax_rate", "during", false},
    {"tax_rule", "during", false},
    {"reservation",
     "state,reason,during,ended_at,request,data,per_hour_micro,total_micro,"
     "effective_micro,fee_ppm,held_micro,captured_micro,released_micro,idem_key,idem_"
     "hash,"
     "quote_id,spot,generation,hold_until,fault,preempted_by,preempted_at,replaced_at,"
     "groups,coordinator,refunded_micro,credited_micro,rest_back,paid_until,hold_due_"
     "at,funds_low_at",
     true},
};

static const struct mutable *may_change(const char *table)
{
    for (size_t i = 0; i < sizeof(mutables) / sizeof(mutables[0]); i++) {
        const char *t = mutables[i].table;
        size_t n = strcspn(t, "%");
        if (t[n] == '%' ? strncmp(t, table, n) == 0 : strcmp(t, table) == 0)
            return &mutables[i];
    }
    return NULL;
}

static bool listed(const char *column, const char *list)
{
    size_t n = strlen(column);
    for (const char *at = list; (at = strstr(at, column)) != NULL; at++)
        if ((at == list || at[-1] == ',') && (at[n] == ',' || at[n] == '\0'))
            return true;
    return false;
}

/* Refused as a change of what is only added to (or of a number that was given out). */
static void refused(const char *sql, const char *what)
{
    const char *state = as_role("neargpu_owner", sql);
    ck_assert_msg(
        strcmp(state, "23001") == 0 || strcmp(state, "428C9") == 0,
        "the owner may %s (%s): guard it in a migration, or list %s here with "
        "what may change and why",
        sql, state, what);
}

/* Where there are no rows, triggers of rows say nothing: they have to be there. */
static void guarded_empty(const char *table)
{
    char *n = ledger_text(
        l,
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'ng.%s'::regclass AND tgfoid "
        "= "
        "'ng.refuse_change()'::regprocedure AND tgtype & 9 = 9 AND tgenabled = 'O'",
        table);
    ck_assert_msg(
        strcmp(n, "0") != 0,
        "nothing keeps the rows of %s: guard it in a migration, or list it here",
        table);
    free(n);
}

START_TEST(the_owner_only_adds)
{
    static const struct mutable nothing = {.columns = ""};
    int full = 0;
    PGresult *t = PQexec(l->pg, TABLES("true"));
    for (int i = 0; i < PQntuples(t); i++) {
        const char *name = PQgetvalue(t, i, 0);
        const struct mutable *m = may_change(name);
        char *columns = xstrdup(PQgetvalue(t, i, 1)), *save = NULL, *sql;
        bool rows = ledger_int(l, "SELECT count(*) FROM (SELECT FROM ng.%s LIMIT 1) x",
                               name) > 0;
        m = m != NULL ? m : &nothing;
        full += rows && strcmp(m->columns, "*") != 0;
        for (char *c = strtok_r(columns, ",", &save);
             c != NULL && rows && strcmp(m->columns, "*") != 0;
             c = strtok_r(NULL, ",", &save)) {
            if (listed(c, m->columns))
                continue;
            sql = xasprintf("UPDATE ng.%s SET %s = %s", name, c, c);
            refused(sql, name);
            free(sql);
        }
        if (!m->rows_go) {
            sql = xasprintf("DELETE FROM ng.%s", name);
            if (rows)
                refused(sql, name);
            else
                guarded_empty(name);
            free(sql);
        }
        if (!m->rows_go || strcmp(m->columns, "*") != 0) {
            sql = xasprintf("TRUNCATE ng.%s", name);
            char *all = xasprintf("%s CASCADE", sql);
            refused(all, name);
            free(all);
            free(sql);
        }
        free(columns);
    }
    ck_assert_int_ge(full, 30); /* the market has something in nearly all of them */
    PQclear(t);
}
END_TEST

/* What may change, but only onwards: SQL and the state it fails with, as the owner. */
static const struct attack {
    const char *sql, *state;
} attacks[] = {
    {"UPDATE ng.meter SET seq = seq - 1 WHERE seq > 0", "23001"},
    {"UPDATE ng.meter SET amount_micro = amount_micro - 1 WHERE amount_micro > 0",
     "23001"},
    {"UPDATE ng.meter SET fee_micro = fee_micro - 1 WHERE fee_micro > 0", "23001"},
    {"UPDATE ng.meter SET closed = false WHERE closed", "23001"},
    {"UPDATE ng.settle_cursor SET transfer_id = 0", "23001"},
    {"UPDATE ng.settle_less SET micro = -1", "23514"},
    {"UPDATE ng.promo_cursor SET transfer_id = 0", "23001"},
    {"UPDATE ng.refund_share SET gross_micro = gross_micro - 1 WHERE gross_micro > 0",
     "23001"},
    {"UPDATE ng.refund_share SET fee_micro = fee_micro - 1 WHERE fee_micro > 0",
     "23001"},
    {"UPDATE ng.dispute SET closed_at = NULL, closed_by = NULL WHERE closed_at IS NOT "
     "NULL",
     "23001"},
    {"UPDATE ng.promo_grant SET used_micro = amount_micro - back_micro + 1", "23514"},
    {"UPDATE ng.incident SET to_at = now() WHERE to_at IS NOT NULL", "23001"},
    {"UPDATE ng.settlement SET released_micro = 0 WHERE released_at IS NOT NULL",
     "23001"},
    {"UPDATE ng.payout SET state = 'approved' WHERE state IN ('done', 'returned')",
     "23514"},
    {"UPDATE ng.path_booking SET captured_micro = 0 WHERE billed_at IS NOT NULL",
     "23001"},
    {"UPDATE ng.budget SET limit_micro = 0, carried_micro = 0 WHERE hard AND "
     "held_micro + "
     "spent_micro > 0",
     "23514"},
    {"UPDATE ng.account SET floor_micro = 1000000000000000 WHERE kind = 'wallet'",
     "23514"},
};

START_TEST(it_only_goes_on)
{
    const struct attack *a = &attacks[_i];
    const char *state = as_role("neargpu_owner", a->sql);
    ck_assert_msg(strcmp(state, a->state) == 0, "%s: %s, not %s", a->sql, state,
                  a->state);
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1); /* one database for all cases */
    l = run_open(1);
    Suite *suite = suite_create("guards");
    TCase *tc = tcase_create("guards");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, a_market_full_of_everything);
    tcase_add_test(tc, no_program_touches_a_table);
    tcase_add_test(tc, the_owner_only_adds);
    tcase_add_loop_test(tc, it_only_goes_on, 0,
                        (int)(sizeof(attacks) / sizeof(attacks[0])));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    run_close();
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
