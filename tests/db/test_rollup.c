/* Roll-ups: what they say is what their rows say, whatever comes late, twice or between
 * two ends of neargpu-billd by SIGKILL; months; what was there before the migration. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

static struct ledger l;

static void expect(const char *want, const char *sql)
{
    char *got = testdb_one(l.pg, sql);
    ck_assert_msg(strcmp(got, want) == 0, "%s\n is %s\n not %s", sql, got, want);
    free(got);
}

/* Rows that a roll-up has and its rows do not give, or the other way round. */
static const char wrong[] =
    "WITH use AS (SELECT date_trunc('hour', used_at, 'UTC'), site_id, provider_id, "
    "gpu_model, spot, sum(quantity_ms), count(*), count(*) FILTER (WHERE late_ms > "
    "300000), max(late_ms) FROM ng.usage WHERE node_id IS NOT NULL GROUP BY 1, 2, 3, "
    "4, "
    "5), rolled AS (SELECT hour, site_id, provider_id, gpu_model, spot, "
    "gpu_ms::numeric, "
    "receipts, late, worst_late_ms FROM ng.roll_use),"
    "money AS (SELECT date_trunc('day', at, 'UTC'), provider_id, tenant_id, currency, "
    "sum(amount_micro), sum(fee_micro), count(DISTINCT (reservation_id, gpu_model, "
    "spot, site_id)) FROM ng.usage GROUP BY 1, 2, 3, 4), sums AS (SELECT day, "
    "provider_id, tenant_id, currency, sum(gross_micro), sum(fee_micro), "
    "sum(reservations)::bigint FROM ng.roll_money GROUP BY 1, 2, 3, 4),"
    "asked AS (SELECT date_trunc('hour', at, 'UTC'), kind, outcome, count(*) FROM "
    "ng.match_log GROUP BY 1, 2, 3), asks AS (SELECT hour, kind, outcome, "
    "sum(requests)::bigint FROM ng.roll_match GROUP BY 1, 2, 3),"
    "times AS (SELECT date_trunc('hour', at, 'UTC'), kind, ng.bucket(match_us), "
    "count(*) "
    "FROM ng.match_log GROUP BY 1, 2, 3), buckets AS (SELECT hour, kind, bucket, "
    "requests FROM ng.roll_latency)"
    "SELECT (SELECT count(*) FROM ((TABLE use EXCEPT TABLE rolled) UNION ALL (TABLE "
    "rolled EXCEPT TABLE use)) x) || ' ' || (SELECT count(*) FROM ((TABLE money EXCEPT "
    "TABLE sums) UNION ALL (TABLE sums EXCEPT TABLE money)) x) || ' ' || (SELECT "
    "count(*) FROM ((TABLE asked EXCEPT TABLE asks) UNION ALL (TABLE asks EXCEPT TABLE "
    "asked)) x) || ' ' || (SELECT count(*) FROM ((TABLE times EXCEPT TABLE buckets) "
    "UNION ALL (TABLE buckets EXCEPT TABLE times)) x) || ' ' || (SELECT count(*) FROM "
    "((SELECT "
    "date_trunc('day', used_at, 'UTC'), site_id, provider_id, gpu_model, spot, "
    "sum(quantity_ms), count(*), max(late_ms) FROM ng.usage WHERE node_id IS NOT NULL "
    "GROUP BY 1, 2, 3, 4, 5) EXCEPT SELECT day, site_id, provider_id, gpu_model, spot, "
    "gpu_ms, receipts, worst_late_ms FROM ng.roll_use_day) x) || ' ' || (SELECT "
    "count(*) FROM (((SELECT hour, site_id, gpu_model, sum(gpu_ms), 0::numeric FROM "
    "ng.roll_use GROUP BY 1, 2, 3 UNION ALL SELECT hour, site_id, gpu_model, "
    "sum(gpu_ms), sum(firm_ms + spot_ms) FROM ng.roll_capacity GROUP BY 1, 2, 3) "
    "EXCEPT ALL (SELECT hour, site_id, gpu_model, gpu_ms, 0::numeric FROM "
    "ng.roll_use_site UNION ALL SELECT hour, site_id, gpu_model, gpu_ms, booked_ms "
    "FROM ng.roll_capacity_site))) x) || ' ' || (SELECT "
    "count(*) FROM ((SELECT date_trunc('day', at, 'UTC'), kind, ng.bucket(match_us), "
    "count(*) FROM ng.match_log GROUP BY 1, 2, 3) EXCEPT SELECT day, kind, bucket, "
    "requests FROM ng.roll_latency_day) x)";

/* 40 days of use and matches from a seed; posted up to three days after the use. */
static void plant(double seed, int rows)
{
    ledger_sql(
        &l,
        "SELECT setseed(%f); INSERT INTO ng.usage SELECT u + x.late, u, 1 + "
        "floor(random() * 3600000), a, floor(a * 0.05), floor(extract(epoch FROM "
        "x.late) * 1000), md5((i / 7)::text)::uuid, t.id, n.provider_id, n.site_id, "
        "CASE WHEN random() < 0.95 THEN n.id END, random() < 0.3, 'JPY', n.gpu_model "
        "FROM (SELECT i, now() - interval '40 days' * random() AS u, interval '3 days' "
        "* random() * (random() < 0.1)::integer AS late, floor(random() * 1000000) AS "
        "a, floor(1 + random() * 4)::integer AS n, floor(1 + random() * 5)::integer AS "
        "t FROM generate_series(1, %d) i) x JOIN (SELECT row_number() OVER (ORDER BY "
        "id) AS k, * FROM ng.node) n ON n.k = x.n JOIN (SELECT row_number() OVER "
        "(ORDER BY name) AS k, * FROM ng.tenant) t ON t.k = x.t",
        seed, rows);
    ledger_sql(
        &l,
        "INSERT INTO ng.match_log (at, kind, outcome, match_us, gpu_model, gpus, "
        "duration_s, why) SELECT now() - interval '40 days' * random(), "
        "(ARRAY['offers', 'quote', 'reserve'])[1 + floor(random() * 3)], "
        "(ARRAY['ok', 'no_fit'])[1 + floor(random() * 2)], floor(exp(random() * "
        "12)), 'H100', 1, 3600, '' FROM generate_series(1, %d)",
        rows);
}

static void all_rolled(void)
{
    ledger_once(&l);
    expect("0", "SELECT count(*) FROM ng.roll_dirty");
    expect("0 0 0 0 0 0 0", wrong);
    expect("0", "SELECT count(*) FROM report.check_rollup");
}

START_TEST(same_as_rows)
{
    plant(0.25, 4000);
    all_rolled();
    /* late, into hours that were rolled up long ago */
    plant(0.5, 50);
    char *before = testdb_one(l.pg, wrong);
    ck_assert_str_ne(before, "0 0 0 0 0 0 0");
    free(before);
    all_rolled();
    /* once more, though nothing came: the same */
    testdb_sql(l.pg, "CREATE TEMPORARY TABLE was AS SELECT * FROM ng.roll_money;"
                     "INSERT INTO ng.roll_dirty SELECT 'money', day FROM ng.roll_money "
                     "UNION ALL SELECT 'use', hour FROM ng.roll_use");
    all_rolled();
    expect("0", "SELECT count(*) FROM ((TABLE was EXCEPT TABLE ng.roll_money) UNION "
                "ALL (TABLE ng.roll_money EXCEPT TABLE was)) x");
}
END_TEST

/* Killed at random instants while it rolls up, with new rows in between. */
START_TEST(killed)
{
    unsigned seed = (unsigned)clock_now_us();
    fprintf(stderr, "seed %u\n", seed);
    for (int i = 0; i < 12; i++) {
        static const char *const args[] = {"--once", NULL};
        plant(0.01 * i, 400);
        pid_t pid = ledger_billd_start(&l, args);
        nanosleep(&(struct timespec){.tv_nsec = rand_r(&seed) % 60000000}, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    all_rolled();
}
END_TEST

/* A booking that is cut changes hours that were rolled up; what a node had counts from
 * its enrolment. */
START_TEST(capacity)
{
    static const char sum[] =
        "SELECT concat_ws(' ', round(sum(gpu_ms) / 3600000.0), round(sum(firm_ms) / "
        "3600000.0)) "
        "FROM ng.roll_capacity WHERE hour < date_trunc('hour', now()) AND hour >= "
        "date_trunc('hour', now()) - interval '30 h' AND gpu_model = 'H100' AND "
        "provider_id = (SELECT id FROM ng.provider WHERE name = 'acme')";
    testdb_sql(l.pg,
               "UPDATE ng.node SET enrolled_at = date_trunc('hour', now()) - interval "
               "'30 h' WHERE name = 'n1'; UPDATE ng.node SET enrolled_at = now() WHERE "
               "name <> 'n1'; UPDATE ng.roll_state SET done_to = now() - interval '40 "
               "h' WHERE kind = 'capacity'");
    ledger_once(&l);
    expect("240 0", sum);
    testdb_sql(l.pg,
               "SELECT t.book('00000000-0000-0000-0000-0000000000cc', 'a1', "
               "date_trunc('hour', now()) - interval '20 h', now() + interval '5 h', "
               "ARRAY[(SELECT id FROM ng.node WHERE name = 'n1')], ARRAY[0], ARRAY[2], "
               "1)");
    ledger_once(&l);
    expect("240 40", sum);
    testdb_sql(l.pg, "UPDATE ng.booking SET during = tstzrange(lower(during), "
                     "date_trunc('hour', now()) - interval '10 h') WHERE "
                     "reservation_id = '00000000-0000-0000-0000-0000000000cc'");
    ledger_once(&l);
    expect("240 20", sum);
    testdb_sql(l.pg, "UPDATE ng.booking SET during = 'empty' WHERE reservation_id = "
                     "'00000000-0000-0000-0000-0000000000cc'");
    ledger_once(&l);
    expect("240 0", sum);
}
END_TEST

/* What administrators are told: before the first turn, after one, when it stays away,
 * and when it comes but does not keep up. */
START_TEST(lateness)
{
    static const char said[] =
        "SELECT concat_ws(' | ', s->>'late', regexp_replace(s->>'advice', "
        "'[0-9T:-]{19}Z', 'T')) FROM ng.rollup_status() s";
    ledger_once(&l);
    expect("false | ", said);
    expect("t", "SELECT bool_and(wait_us >= 15000000 AND turn_at >= fresh_at) FROM "
                "ng.roll_state");
    testdb_sql(l.pg, "UPDATE ng.roll_state SET wait_us = 15000000, turn_at = now() - "
                     "interval '58 s', fresh_at = now() - interval '59 s'");
    expect("false | ", said);
    testdb_sql(l.pg, "UPDATE ng.roll_state SET turn_at = now() - interval '62 s'");
    expect("true | neargpu-billd has not rolled up since T, and should every 15s: is "
           "it running?",
           said);
    testdb_sql(l.pg, "UPDATE ng.roll_state SET turn_at = now(), fresh_at = CASE WHEN "
                     "kind IN ('use', 'money') THEN now() - interval '62 s' ELSE now() "
                     "END");
    expect("true | neargpu-billd is behind with what reports read: money, use", said);
    testdb_sql(l.pg, "UPDATE ng.roll_state SET turn_at = NULL, wait_us = NULL");
    expect("true | neargpu-billd has not rolled up yet: is it running?", said);
    ledger_once(&l);
    expect("false | ", said);
}
END_TEST

START_TEST(months)
{
    expect("13 13",
           "SELECT count(*) FILTER (WHERE inhparent = 'ng.usage'::regclass) - 1 || ' ' "
           "|| count(*) FILTER (WHERE inhparent = 'ng.match_log'::regclass) - 1 FROM "
           "pg_inherits WHERE inhparent IN ('ng.usage'::regclass, "
           "'ng.match_log'::regclass)");
    /* this month's rows stand in this month's part */
    expect("0", "SELECT count(*) FROM ng.usage_rest WHERE at >= date_trunc('month', "
                "now(), 'UTC')");
    /* an old month of matches goes, its roll-up stays; rows that come late for it do
     * not undo it */
    testdb_sql(l.pg,
               "CREATE TABLE ng.match_log_2024_01 PARTITION OF ng.match_log FOR VALUES "
               "FROM ('2024-01-01 00:00+00') TO ('2024-02-01 00:00+00');"
               "INSERT INTO ng.match_log (at, kind, outcome, match_us, gpus, "
               "duration_s) SELECT '2024-01-05 00:10+00', 'quote', 'ok', 7, 1, 60 FROM "
               "generate_series(1, 9); UPDATE ng.roll_state SET floor = '-infinity' "
               "WHERE kind = 'match'; SELECT api.billing_rollup('match')");
    expect("9", "SELECT sum(requests) FROM ng.roll_match WHERE hour < '2024-02-01'");
    ledger_once(&l);
    expect("", "SELECT to_regclass('ng.match_log_2024_01')");
    testdb_sql(l.pg, "INSERT INTO ng.match_log (at, kind, outcome, match_us, gpus, "
                     "duration_s) VALUES ('2024-01-05 00:10+00', 'quote', 'ok', 7, 1, "
                     "60)");
    ledger_once(&l);
    expect("9", "SELECT sum(requests) FROM ng.roll_match WHERE hour < '2024-02-01'");
    /* and an old month of use, taken out by hand */
    testdb_sql(l.pg,
               "CREATE TABLE ng.usage_2024_01 PARTITION OF ng.usage FOR VALUES FROM "
               "('2024-01-01 00:00+00') TO ('2024-02-01 00:00+00'); ALTER TABLE "
               "ng.usage_2024_01 OWNER TO neargpu_owner; INSERT INTO "
               "ng.usage SELECT '2024-01-09 00:00+00', '2024-01-08 23:00+00', 3600000, "
               "1000000, 50000, 0, gen_random_uuid(), t.id, n.provider_id, n.site_id, "
               "n.id, false, 'JPY', 'H100' FROM ng.tenant t, ng.node n WHERE t.name = "
               "'a1' AND n.name = 'n1'");
    ck_assert_str_eq(testdb_state(l.pg, "SELECT ng.usage_detach('2024-01-01')"),
                     "NG006"); /* not rolled up yet */
    ledger_once(&l);
    ck_assert_str_eq(
        testdb_state(l.pg, "SELECT ng.usage_detach(date_trunc('month', now())::date)"),
        "NG006");
    ck_assert_str_eq(testdb_state(l.pg, "SELECT ng.usage_detach('2023-01-01')"),
                     "NG005");
    expect("ng.usage_2024_01", "SELECT ng.usage_detach('2024-01-01')");
    expect("1", "SELECT count(*) FROM ng.usage_2024_01");
    testdb_sql(l.pg, "INSERT INTO ng.roll_dirty VALUES ('use', '2024-01-08 23:00+00'), "
                     "('money', '2024-01-09 00:00+00')");
    ledger_once(&l);
    expect("1000000 3600000",
           "SELECT (SELECT sum(gross_micro) FROM ng.roll_money WHERE day < "
           "'2024-02-01') || ' ' || (SELECT sum(gpu_ms) FROM ng.roll_use WHERE hour < "
           "'2024-02-01')");
}
END_TEST

/* Rating writes one row of use for what it charges, as the transfers say. */
START_TEST(rating_notes_use)
{
    ck_assert_int_eq(
        ledger_int(&l, "SELECT count(*) FROM t.book(lpad('7', 32, '0')::uuid, 'a1', "
                       "now() - interval '10 h', now() + interval '1 h', ARRAY[(SELECT "
                       "id FROM ng.node WHERE name = 'n3')], ARRAY[0], ARRAY[4], "
                       "1000000) b WHERE b = 'ok'"),
        1);
    testdb_sql(l.pg,
               "SELECT t.receipt(lpad('7', 32, '0')::uuid, n.id, s, k, ms, t) FROM "
               "ng.node n, (VALUES (1, 'ready', 0, now() - interval '10 h'), (2, "
               "'interval', 3600000, now() - interval '9 h'), (3, 'interval', 7200001, "
               "now() - interval '8 h'), (4, 'teardown', 9000000, now() - interval '7 "
               "h')) x(s, k, ms, t) WHERE n.name = 'n3' ORDER BY s");
    ledger_once(&l);
    expect("3600000 1000000 50000, 3600001 1000000 50000, 1799999 500000 25000",
           "SELECT string_agg(concat_ws(' ', quantity_ms, amount_micro, fee_micro), ', "
           "' ORDER BY used_at) FROM ng.usage WHERE reservation_id = lpad('7', 32, "
           "'0')::uuid AND late_ms > 20000000");
    expect("t", "SELECT (SELECT sum(amount_micro) FROM ng.usage WHERE reservation_id = "
                "r.id) = r.captured_micro FROM ng.reservation r WHERE id = lpad('7', "
                "32, '0')::uuid");
    ck_assert_str_eq(testdb_state(l.pg, "UPDATE ng.usage SET amount_micro = 0"),
                     "23001");
    ck_assert_str_eq(testdb_state(l.pg, "DELETE FROM ng.usage"), "23001");
}
END_TEST

/* The migration makes of what was rated before the same use that rating would have
 * noted. */
START_TEST(use_of_before)
{
    struct err err;
    char *path = xasprintf("%s/sql/migrations/0013_reports.sql", l.source), *text;
    static const char into[] = "INSERT INTO ng.usage (";
    ck_assert_msg(fsx_read(path, 1 << 20, &text, NULL, &err) == 0, "%s", err.text);
    char *at = strstr(text, into);
    ck_assert_ptr_nonnull(at);
    *strchr(at, ';') = '\0';
    /* Receipts had a mark then; now all of them are rated. */
    char *mark = strstr(at, "x.rated");
    ck_assert_ptr_nonnull(mark);
    memcpy(mark, "   true", 7);
    testdb_sql(l.pg, "CREATE TEMPORARY TABLE before (LIKE ng.usage)");
    ledger_sql(&l, "INSERT INTO before (%s", at + strlen(into));
    expect("3 2500000 125000 9000000",
           "SELECT concat_ws(' ', count(*), sum(amount_micro), sum(fee_micro), "
           "sum(quantity_ms)) FROM before WHERE reservation_id = lpad('7', 32, "
           "'0')::uuid");
    expect("0",
           "SELECT count(*) FROM (SELECT used_at, quantity_ms, late_ms, tenant_id, "
           "provider_id, site_id, node_id, spot, currency, gpu_model FROM before "
           "EXCEPT SELECT used_at, quantity_ms, late_ms, tenant_id, provider_id, "
           "site_id, node_id, spot, currency, gpu_model FROM ng.usage) x");
    free(text);
    free(path);
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1); /* one database for all cases */
    ledger_open(&l, NULL);
    testdb_sql(l.pg,
               "SELECT t.node('n1', 'tokyo', 'acme', 8), t.node('n2', 'tokyo', 'zero', "
               "8), t.node('n3', 'tokyo', 'acme', 8), t.node('n4', 'tokyo', 'zero', 8);"
               "UPDATE ng.node SET gpu_model = 'A100' WHERE name = 'n3'; SELECT "
               "t.tenant('a' || i, 'UTC', 1000000000) FROM generate_series(1, 5) i");
    Suite *suite = suite_create("rollup");
    TCase *tc = tcase_create("rollup");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, rating_notes_use);
    tcase_add_test(tc, use_of_before);
    tcase_add_test(tc, same_as_rows);
    tcase_add_test(tc, killed);
    tcase_add_test(tc, capacity);
    tcase_add_test(tc, lateness);
    tcase_add_test(tc, months);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    ledger_close(&l);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
