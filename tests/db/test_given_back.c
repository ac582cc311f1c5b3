/* What went back to tenants, in the reports: refunds, credits for incidents, a
 * chargeback and a dispute, posted as the programs post them, with answers worked out
 * by hand; then random refunds and credits against the transfers of the ledger. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

static struct ledger l;

#define R(n) "'00000000-0000-7000-8000-00000000000" #n "'"

static void expect(const char *want, const char *sql)
{
    char *got = ledger_text(&l, "%s", sql);
    ck_assert_msg(strcmp(got, want) == 0, "%s\n is '%s'\n not '%s'", sql, got, want);
    free(got);
}

/* An hour of one GPU of each of two nodes at 1,000 yen, half of it used, and billed:
 * 500 yen each. */
static void lease(int n, const char *tenant, const char *one, const char *two)
{
    char id[64];
    snprintf(id, sizeof id, "00000000-0000-7000-8000-%012d", n);
    char *got = ledger_text(
        &l,
        "SELECT t.book('%s', '%s', now() - interval '1 h', now() + interval '1 s', "
        "ARRAY[a.id, b.id], ARRAY[%d, %d], ARRAY[1, 1], 1000000000) FROM ng.node a, "
        "ng.node b WHERE a.name = '%s' AND b.name = '%s'",
        id, tenant, n - 1, n - 1, one, two);
    ck_assert_str_eq(got, "ok");
    free(got);
    ledger_sql(&l,
               "SELECT t.receipt('%s', node_id, s, k, 900000 * (s - 1)) FROM "
               "ng.booking, (VALUES (1, 'ready'), (2, 'interval'), (3, 'teardown')) "
               "x(s, k) WHERE reservation_id = '%s'",
               id, id);
    ledger_sql(&l, "SELECT api.transitions(ng.us(now()) + 60000000, 1000)");
    ledger_once(&l);
}

static void credit(const char *incident, const char *resv, int ppm)
{
    ledger_sql(&l,
               "SELECT api.sla_credit(api.incident_open('%s', 'root', 'a', NULL, NULL)"
               "->>'id', jsonb_build_object('reservation', %s, 'percent_ppm', %d), "
               "'root')",
               incident, resv, ppm);
}

static void plant(void)
{
    testdb_sql(
        l.pg,
        "SELECT api.site_create('osaka', 'Osaka', 34.7, 135.5, 'jp', NULL, 'a', NULL, "
        "NULL), t.tenant('cat', 'UTC', 100000000000), t.node('a1', 'tokyo', 'acme', "
        "8), t.node('a2', 'osaka', 'acme', 8), t.node('z1', 'osaka', 'zero', 8);"
        "SELECT api.topup('cat', 1000000000, 'JPY', 'stolen', 'a', NULL, NULL)");
    lease(1, "cat", "a1", "z1");
    /* 100 yen by halves: of acme's 50 the fee is 2.5. */
    testdb_sql(l.pg, "SELECT api.refund(" R(
                         1) ", 100000000, 'slow disks', 'provider', 'a', NULL, NULL, "
                            "'root')");
    /* A fifth of the 450 left of a1: 90, the fee 4.5 of it; then a tenth of 360 and
     * 450: 81, at the market's expense. */
    credit("{\"what\": \"node\", \"name\": \"a1\", \"reason\": \"disk gone\"}", R(1),
           200000);
    credit("{\"what\": \"platform\", \"reason\": \"no API\"}", R(1), 100000);
    ledger_sql(&l, "SELECT api.incident_open('{\"what\": \"site\", \"name\": "
                   "\"osaka\", \"fault\": \"platform\", \"reason\": \"flood\"}', "
                   "'root', 'a', NULL, NULL)");
    testdb_sql(l.pg,
               "SELECT api.dispute_open(NULL, " R(
                   1) ", 'not as said', 'root');"
                      "SELECT api.billing_chargeback(id, 'card stolen') FROM "
                      "ng.transfer WHERE ref = 'stolen';"
                      "SELECT api.topup('cat', 7000000, 'JPY', 'typo', 'a', NULL, "
                      "NULL);"
                      "SELECT api.billing_reverse(id) FROM ng.transfer WHERE ref = "
                      "'typo'");
    ledger_once(&l);
}

START_TEST(known_answers)
{
    static const struct {
        const char *want, *columns, *report, *where;
    } t[] = {
        {"acme 500 25 475 50 130.5 342, zero 500 0 500 50 40.5 450",
         "string_agg(concat_ws(' ', provider, gross, fee, revenue, refunded, credited, "
         "net), ', ' ORDER BY provider)",
         "provider_revenue", "true"},
        {"acme 500 25 5.000 180.5 7 5.634, zero 500 0 0.000 90.5 0 0.000",
         "string_agg(concat_ws(' ', provider, gross, fee, take_rate, given_back, "
         "fee_back, net_take_rate), ', ' ORDER BY provider)",
         "take_rate", "true"},
        {"cat 1000 100 171 729",
         "concat_ws(' ', tenant, spent, refunded, credited, net)", "top_tenants",
         "true"},
        {"7 81", "concat_ws(' ', sum(fee_back), sum(sla))", "margin", "true"},
        {"cat chargeback [card stolen] [] tenant [] 1 0 1000\n"
         "cat credit_note [slow disks] [provider] fee [acme] 1 1 2.5\n"
         "cat credit_note [slow disks] [provider] provider [acme] 1 1 47.5\n"
         "cat credit_note [slow disks] [provider] provider [zero] 1 1 50\n"
         "cat reversal [] [] tenant [] 1 0 7\n"
         "cat sla_credit [disk gone] [provider] fee [acme] 1 1 4.5\n"
         "cat sla_credit [disk gone] [provider] provider [acme] 1 1 85.5\n"
         "cat sla_credit [no API] [platform] market [] 1 1 81",
         "string_agg(format('%s %s [%s] [%s] %s [%s] %s %s %s', tenant, what, reason, "
         "fault, borne_by, provider, documents, reservations, amount), E'\\n' ORDER BY "
         "what, reason, borne_by, provider)",
         "refunds", "true"},
        {"cat [not as said] open 1 1000 100 171",
         "format('%s [%s] %s %s %s %s %s', tenant, reason, state, reservations, "
         "captured, refunded, credited)",
         "disputes", "true"},
        {"[tokyo] [acme] incident: node [disk gone] provider 1 1 [] JPY 90 85.5 4.5\n"
         "[] [] incident: platform [no API] platform 1 1 [] JPY 81 0 81\n"
         "[osaka] [] incident: site [flood] platform 1 0 []  0 0 0",
         "string_agg(format('[%s] [%s] %s [%s] %s %s %s [%s] %s %s %s %s', site, "
         "provider, breach, reason, fault, breaches, reservations, lost, currency, "
         "credited, by_provider, by_market), E'\\n' ORDER BY breach)",
         "sla_breaches", "true"},
    };
    plant();
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        char *sql;
        ck_assert_int_gt(asprintf(&sql, "SELECT %s FROM report.%s WHERE %s",
                                  t[i].columns, t[i].report, t[i].where),
                         0);
        expect(t[i].want, sql);
        free(sql);
    }
    /* The filters: of what is left, and inside of sums. */
    expect("[[\"cat\", \"JPY\", 1, 0.500, 500, 100.00, 50, 130.5, 319.5, 0]]",
           "SELECT report.run('top_tenants', p_provider => 'acme')->'rows'");
    expect("4", "SELECT json_array_length(report.run('refunds', p_provider => "
                "'acme')->'rows')");
    /* A settled dispute, whose captures waited, is over. */
    testdb_sql(l.pg, "UPDATE ng.market SET dispute_window = '0'");
    ledger_once(&l);
    expect("open 975", "SELECT concat_ws(' ', state, waiting) FROM report.disputes");
    testdb_sql(l.pg, "SELECT api.dispute_close(" R(1) ", 'root')");
    ledger_once(&l);
    expect("closed 0", "SELECT concat_ws(' ', state, waiting) FROM report.disputes");
    /* What comes after the provider has no money left, the market bears. */
    testdb_sql(l.pg, "SELECT api.refund(" R(
                         1) ", 9000000, 'late', 'market', 'a', NULL, NULL, 'root')");
    ledger_once(&l);
    expect("342 450", "SELECT string_agg(net::text, ' ' ORDER BY provider) FROM "
                      "report.provider_revenue");
    expect("109 171", "SELECT concat_ws(' ', refunded, credited) FROM "
                      "report.top_tenants");
    ledger_check(&l);
}
END_TEST

/* Leases on several nodes and sites of one provider, refunds and credits of random
 * sums: each provider's net is what the accounts say, micro by micro. */
START_TEST(random_sums)
{
    unsigned seed = (unsigned)time(NULL);
    fprintf(stderr, "seed %u\n", seed);
    static const char *const incidents[] = {
        "{\"what\": \"node\", \"name\": \"a2\", \"reason\": \"x\"}",
        "{\"what\": \"site\", \"name\": \"osaka\", \"reason\": \"x\"}",
        "{\"what\": \"provider\", \"name\": \"acme\", \"reason\": \"x\"}",
        "{\"what\": \"platform\", \"reason\": \"x\"}"};
    lease(2, "cat", "a1", "a2");
    lease(3, "cat", "a2", "z1");
    /* A node's incident is given back at its site. */
    credit(incidents[0], R(2), 100000);
    ledger_once(&l);
    expect("osaka 50, tokyo 130.5",
           "SELECT string_agg(site || ' ' || credited, ', ' ORDER BY site) FROM "
           "report.provider_revenue WHERE provider = 'acme'");
    for (int i = 0; i < 24; i++) {
        int n = 2 + rand_r(&seed) % 2, micro = 1 + rand_r(&seed) % 9999999;
        char resv[64];
        snprintf(resv, sizeof resv, "'00000000-0000-7000-8000-%012d'", n);
        if (rand_r(&seed) % 2 == 0)
            ledger_sql(&l,
                       "SELECT api.refund(%s, %d, 'x', '%s', 'a', NULL, NULL, 'root')",
                       resv, micro, rand_r(&seed) % 2 ? "provider" : "market");
        else
            credit(incidents[rand_r(&seed) % 4], resv, 1 + micro / 1000);
    }
    ledger_once(&l);
    expect("t t", "SELECT concat_ws(' ', sum(m.refund_micro) = (SELECT sum(net_micro) "
                  "FROM ng.credit_note), sum(m.credit_micro) = (SELECT "
                  "sum(amount_micro) FROM ng.sla_credit)) FROM ng.roll_money m");
    expect(
        "t, t",
        "SELECT string_agg((1000000 * x.net = (SELECT sum(CASE WHEN t.cr = a.id THEN "
        "t.amount_micro ELSE -t.amount_micro END) FROM ng.transfer t JOIN ng.account "
        "a ON a.id IN (t.dr, t.cr) WHERE a.provider_id = p.id))::text::char, ', ') "
        "FROM (SELECT provider, sum(net) AS net FROM report.provider_revenue GROUP "
        "BY 1) x JOIN ng.provider p ON p.name = x.provider");
    /* The market's part. */
    expect("t t",
           "SELECT concat_ws(' ', sum(back_fee_micro) = (SELECT sum(amount_micro) FROM "
           "ng.transfer WHERE kind IN ('refund_fee', 'sla_fee')), "
           "sum(back_market_micro) = (SELECT sum(t.amount_micro) FROM ng.transfer t "
           "JOIN ng.account a ON a.id = t.dr AND a.kind = 'sla_expense')) FROM "
           "ng.roll_money");
    /* Yesterday's documents: a day that the check looks at. */
    testdb_sql(l.pg,
               "BEGIN; SET LOCAL session_replication_role = replica; UPDATE "
               "ng.credit_note SET issued_at = issued_at - interval '1 day'; UPDATE "
               "ng.roll_state SET fresh_at = now(); COMMIT");
    expect("given back", "SELECT string_agg(DISTINCT rollup, ',') FROM "
                         "report.check_rollup");
    testdb_sql(l.pg, "INSERT INTO ng.roll_dirty SELECT DISTINCT 'money', "
                     "date_trunc('day', issued_at, 'UTC') FROM ng.credit_note");
    ledger_once(&l);
    ledger_check(&l);
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1); /* one database for all cases */
    ledger_open(&l, NULL);
    Suite *suite = suite_create("given_back");
    TCase *tc = tcase_create("given_back");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, known_answers);
    tcase_add_test(tc, random_sums);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    ledger_close(&l);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
