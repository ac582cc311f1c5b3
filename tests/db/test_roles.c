/* What each program's role may not do, and the state table of reservations in SQL
 * against the one in C. */
#include <stdio.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/core/resv.h"
#include "tests/db/market.h"
#include "tests/unit/unit.h"

static struct market m;

static void setup(void)
{
    market_open(&m, 1, INT64_C(1000000000000));
}

static void teardown(void)
{
    market_close(&m);
}

static void try_all(const char *role, const char *const attempts[][2])
{
    PGconn *pg = testdb_connect(m.db, role, "neargpu");
    for (size_t i = 0; attempts[i][0] != NULL; i++) {
        const char *state = testdb_state(pg, attempts[i][0]);
        ck_assert_msg(strcmp(state, attempts[i][1]) == 0, "%s: %s gives %s, not %s",
                      role, attempts[i][0], state, attempts[i][1]);
    }
    PQfinish(pg);
}

#define DENIED "42501"
#define FINE   "00000"

START_TEST(test_server)
{
    static const char *const attempts[][2] = {
        {"SELECT api.market()", FINE},
        {"SELECT * FROM ng.tenant", DENIED},
        {"INSERT INTO ng.booking (reservation_id) VALUES (gen_random_uuid())", DENIED},
        {"UPDATE ng.account SET balance_micro = 1", DENIED},
        {"DELETE FROM ng.transfer", DENIED},
        {"SELECT nextval('ng.gpu_no')", DENIED},
        {"SELECT ng.post('topup', 1, 2, 'JPY', 1, NULL, 'x')", DENIED},
        {"SELECT api.billing_claim(1)", DENIED},
        {"SELECT * FROM report.catalog", DENIED},
        {"SET ROLE neargpu_owner", DENIED},
        {"CREATE TABLE mine (i int)", DENIED},
        {"CREATE TABLE public.mine (i int)", DENIED},
        {"CREATE TEMP TABLE mine (i int)", DENIED},
        {"CREATE FUNCTION api.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'", DENIED},
        {"CREATE SCHEMA mine", DENIED},
        {"ALTER TABLE ng.booking DROP CONSTRAINT booking_no_double", DENIED},
        {"SELECT pg_read_file('/etc/passwd')", DENIED},
        {NULL, NULL},
    };
    try_all("neargpu_server", attempts);
}
END_TEST

START_TEST(test_billd)
{
    static const char *const attempts[][2] = {
        {"SELECT * FROM api.billing_due(now())", FINE},
        {"SELECT * FROM api.check_all()", FINE},
        {"SELECT api.market()", DENIED},
        {"SELECT api.topup('lab', 1, 'JPY', 'x', 'x', NULL, NULL)", DENIED},
        {"SELECT * FROM ng.transfer", DENIED},
        {"UPDATE ng.meter SET seq = 0", DENIED},
        {"SET ROLE neargpu_owner", DENIED},
        {NULL, NULL},
    };
    try_all("neargpu_billd", attempts);
}
END_TEST

START_TEST(test_report)
{
    static const char *const attempts[][2] = {
        {"SELECT count(*) FROM report.idle_capacity", FINE},
        {"SELECT report.run('idle_capacity', NULL, NULL, NULL)", FINE},
        {"SELECT * FROM ng.tenant", DENIED},
        {"SELECT api.market()", DENIED},
        {"DELETE FROM report.catalog", "25006"}, /* read-only transaction */
        {"CREATE TABLE public.mine (i int)", "25006"},
        /* Switched off, there is still no grant. */
        {"SET default_transaction_read_only = off", FINE},
        {"DELETE FROM report.catalog", DENIED},
        {"CREATE TEMP TABLE mine (i int)", DENIED},
        {NULL, NULL},
    };
    try_all("neargpu_report", attempts);
}
END_TEST

START_TEST(test_owner_cannot_log_in)
{
    PGconn *pg = PQconnectdb(testdb_conninfo(m.db, "neargpu_owner", "neargpu"));
    ck_assert_int_eq(PQstatus(pg), CONNECTION_BAD);
    PQfinish(pg);
}
END_TEST

START_TEST(test_functions_are_safe)
{
    /* Whoever may call a function of the owner must not choose what it finds. */
    char *n = testdb_one(
        m.admin,
        "SELECT coalesce(string_agg(oid::regprocedure::text, ', '), '') FROM "
        "pg_proc WHERE prosecdef AND pronamespace = 'api'::regnamespace AND NOT "
        "coalesce(array_to_string(proconfig, ',') LIKE 'search_path=%pg_temp%', "
        "false)");
    ck_assert_str_eq(n, "");
    free(n);
    n = testdb_one(m.admin,
                   "SELECT coalesce(string_agg(oid::regprocedure::text, ', '), "
                   "'') FROM pg_proc WHERE pronamespace IN ('api'::regnamespace, "
                   "'ng'::regnamespace) AND has_function_privilege('public', "
                   "oid, 'EXECUTE')");
    ck_assert_str_eq(n, "");
    free(n);
    n = testdb_one(m.admin,
                   "SELECT coalesce(string_agg(relname, ', '), '') FROM pg_class "
                   "c JOIN pg_roles r ON r.oid = relowner WHERE relnamespace IN "
                   "('ng'::regnamespace, 'report'::regnamespace) AND rolname <> "
                   "'neargpu_owner'");
    ck_assert_str_eq(n, "");
    free(n);
}
END_TEST

START_TEST(test_state_table)
{
    PGresult *r =
        PQexec(m.admin, "SELECT from_state, event, to_state FROM ng.resv_rule");
    ck_assert_int_eq(PQntuples(r), (int)resv_rule_count);
    for (size_t i = 0; i < resv_rule_count; i++) {
        bool found = false;
        for (int row = 0; row < PQntuples(r); row++)
            found =
                found ||
                (strcmp(PQgetvalue(r, row, 0), resv_state_name(resv_rules[i].from)) ==
                     0 &&
                 strcmp(PQgetvalue(r, row, 1), resv_event_name(resv_rules[i].event)) ==
                     0 &&
                 strcmp(PQgetvalue(r, row, 2), resv_state_name(resv_rules[i].to)) == 0);
        ck_assert_msg(found, "SQL lacks %s + %s", resv_state_name(resv_rules[i].from),
                      resv_event_name(resv_rules[i].event));
    }
    PQclear(r);
    char *check = testdb_one(
        m.admin,
        "SELECT string_agg(x[1], ' ') FROM pg_constraint, "
        "regexp_matches(pg_get_constraintdef(oid), '''([a-z]+)''', 'g') x WHERE "
        "conname = 'reservation_state_check'");
    char want[200] = "";
    for (int s = 0; s < RESV_STATE_COUNT; s++)
        snprintf(want + strlen(want), sizeof want - strlen(want), "%s%s",
                 s == 0 ? "" : " ", resv_state_name((enum resv_state)s));
    ck_assert_str_eq(check, want);
    free(check);
}
END_TEST

START_TEST(test_transition_trigger)
{
    /* Every pair of states, against the table in C, whoever writes. */
    struct market_booking b;
    struct market_booked booked;
    market_booking(&m, &b, 0, 0, 1, HOUR_US, HOUR_US);
    market_book(&m, &b, &booked);
    market_wait(&m, &booked.done);
    json_decref(b.request);
    for (int from = 0; from < RESV_STATE_COUNT; from++)
        for (int to = 0; to < RESV_STATE_COUNT; to++) {
            bool allowed = from == to;
            for (size_t i = 0; i < resv_rule_count; i++)
                allowed = allowed || ((int)resv_rules[i].from == from &&
                                      (int)resv_rules[i].to == to);
            char sql[300];
            testdb_sql(m.admin, "BEGIN; SET LOCAL session_replication_role = replica");
            snprintf(sql, sizeof sql, "UPDATE ng.reservation SET state = '%s'",
                     resv_state_name((enum resv_state)from));
            testdb_sql(m.admin, sql);
            testdb_sql(m.admin, "SET LOCAL session_replication_role = origin");
            snprintf(sql, sizeof sql, "UPDATE ng.reservation SET state = '%s'",
                     resv_state_name((enum resv_state)to));
            ck_assert_str_eq(testdb_state(m.admin, sql), allowed ? FINE : "NG006");
            testdb_sql(m.admin, "ROLLBACK");
        }
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1);
    Suite *suite = suite_create("roles");
    TCase *tc = tcase_create("roles");
    tcase_set_timeout(tc, 120);
    tcase_add_unchecked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_server);
    tcase_add_test(tc, test_billd);
    tcase_add_test(tc, test_report);
    tcase_add_test(tc, test_owner_cannot_log_in);
    tcase_add_test(tc, test_functions_are_safe);
    tcase_add_test(tc, test_state_table);
    tcase_add_test(tc, test_transition_trigger);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
