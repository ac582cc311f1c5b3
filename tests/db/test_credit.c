/* Budgets, promotional credit, credits for incidents, exchange: known answers, each
 * rule attacked as the owner of the tables and as the programs, and random histories of
 * promo and credits against sums kept here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/lib/xalloc.h"
#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

static struct ledger l;
static int lease_count, node_count;

#define JPY         "000000"
#define BODY_JPY(n) "{\"currency\": \"JPY\", \"micro\": " n "}"

/* A lease of a whole node of one GPU for an hour that ended a minute ago, or now
 * begins. */
static char *new_id(void)
{
    return ledger_text(&l, "SELECT '00000000-0000-7000-8000-' || lpad('%d', 12, '0')",
                       ++lease_count);
}

/* Books an hour of one GPU at `price` yen for a tenant, on node and GPU of its own. */
static char *book(const char *tenant, const char *id, int price)
{
    int node =
        (int)ledger_int(&l, "SELECT t.node('x%d', 'tokyo', 'acme', 1)", ++node_count);
    return ledger_text(&l,
                       "SELECT t.book('%s', '%s', now() - interval '1 h', now() + "
                       "interval '1 s', ARRAY[%d], ARRAY[0], ARRAY[1], %d" JPY ")",
                       id, tenant, node, price);
}

/* The use of `ms` GPU-milliseconds, the end, billed. */
static void use(const char *id, int ms)
{
    ledger_sql(
        &l,
        "SELECT t.receipt('%s', node_id, s, k, %d * (s - 1) / 2) FROM ng.booking, "
        "(VALUES (1, 'ready'), (2, 'interval'), (3, 'teardown')) x(s, k) WHERE "
        "reservation_id = '%s'",
        id, ms, id);
    ledger_sql(&l, "SELECT api.transitions(ng.us(now()) + 60000000, 1000)");
    ledger_once(&l);
}

static void expect(const char *want, const char *sql)
{
    char *got = ledger_text(&l, "%s", sql);
    ck_assert_msg(strcmp(got, want) == 0, "%s\n is '%s', not '%s'", sql, got, want);
    free(got);
}

static void refused(const char *state, const char *sql)
{
    PGresult *r = PQexec(l.pg, sql);
    const char *got = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    ck_assert_msg(got != NULL && strcmp(got, state) == 0, "%s: %s, not %s (%s)", sql,
                  got != NULL ? got : "done", state, PQerrorMessage(l.pg));
    PQclear(r);
}

static void tenant(const char *name, long yen)
{
    ledger_sql(&l, "SELECT t.tenant('%s', 'Asia/Tokyo', %ld" JPY ")", name, yen);
}

static void budget_set(const char *name, int yen, const char *more)
{
    ledger_sql(&l,
               "SELECT api.budget_set(NULL, '%s', '{\"limit\": {\"currency\": \"JPY\", "
               "\"micro\": %d" JPY "}%s}')",
               name, yen, more);
}

/* ---- budgets ---- */

#define BUDGET_OF(name)                                                         \
    "SELECT concat_ws(' ', held_micro, spent_micro, alerted) FROM ng.budget b " \
    "JOIN ng.tenant t ON t.id = b.tenant_id WHERE t.name = '" name "'"
#define ALERTS_OF(name)                                                          \
    "SELECT string_agg(payload->>'percent', ' ' ORDER BY e.id) FROM ng.event e " \
    "JOIN ng.tenant t ON t.id = e.tenant_id WHERE kind = 'budget.alert' AND "    \
    "t.name = '" name "'"

START_TEST(a_hard_budget_refuses)
{
    tenant("hard", 100000);
    budget_set("hard", 2000, "");
    char *a = new_id(), *got = book("hard", a, 1000); /* 1000.28 yen: an hour and 1 s */
    ck_assert_str_eq(got, "ok");
    free(got);
    expect("1000277778 0 50", BUDGET_OF("hard"));
    char *b = new_id();
    got = book("hard", b, 1000);
    ck_assert_str_eq(got, "budget");
    free(got);
    expect("1000277778 0 50", BUDGET_OF("hard"));
    free(b);
    b = new_id();
    got = book("hard", b, 900);
    ck_assert_str_eq(got, "ok");
    free(got);
    expect("50 80", ALERTS_OF("hard"));
    use(a, 1800000); /* half used: 500 yen spent, the rest comes back */
    expect("900250000 500000000 80", BUDGET_OF("hard"));
    free(a);
    a = new_id();
    got = book("hard", a, 590);
    ck_assert_str_eq(got, "ok");
    free(got);
    expect("50 80", ALERTS_OF("hard")); /* 99.5 %; each once */
    ledger_check(&l);
    free(a);
    free(b);
}
END_TEST

START_TEST(a_wallet_that_is_short_is_not_a_budget)
{
    tenant("poor", 100);
    budget_set("poor", 5000, "");
    char *a = new_id(), *got = book("poor", a, 1000);
    ck_assert_str_eq(got, "funds");
    free(got);
    free(a);
}
END_TEST

START_TEST(a_soft_budget_only_tells)
{
    tenant("soft", 100000);
    budget_set("soft", 1000, ", \"hard\": false, \"period\": \"total\"");
    char *a = new_id(), *got = book("soft", a, 3000);
    ck_assert_str_eq(got, "ok");
    free(got);
    free(a);
    expect("50 80 100", ALERTS_OF("soft"));
    expect("3000833333 0 100", BUDGET_OF("soft"));
    ledger_sql(&l, "SELECT api.budget_remove(NULL, 'soft')");
    refused("NG005", "SELECT api.budget_get(NULL, 'soft')");
    ledger_check(&l);
}
END_TEST

START_TEST(a_month_begins_with_what_is_held)
{
    tenant("monthly", 100000);
    budget_set("monthly", 2000, "");
    char *a = new_id(), *b = new_id(), *got = book("monthly", a, 1500);
    free(got);
    use(a, 3600000); /* 1500 spent */
    got = book("monthly", b, 1000);
    ck_assert_str_eq(got, "budget");
    free(got);
    /* The month is over. */
    ledger_sql(&l,
               "UPDATE ng.budget SET since = now() - interval '60 days', until = "
               "now() - interval '30 days' FROM ng.tenant t WHERE t.id = tenant_id "
               "AND name = 'monthly'; UPDATE ng.budget SET spent_micro = 0, until = "
               "now() - interval '1 s', since = now() - interval '2 s' FROM "
               "ng.tenant t WHERE t.id = tenant_id AND name = 'monthly'");
    free(b);
    b = new_id();
    got = book("monthly", b, 400); /* 1500 of this real month count again */
    ck_assert_str_eq(got, "ok");
    free(got);
    expect("400111111 1500000000 80", BUDGET_OF("monthly"));
    ledger_check(&l);
    free(a);
    free(b);
}
END_TEST

/* More is held than the limit, which was lowered, when the month begins: a quote that
 * holds its place takes no money, and is not refused. */
START_TEST(a_month_that_begins_over_its_limit)
{
    tenant("over", 100000);
    budget_set("over", 2000, "");
    char *a = new_id(), *got = book("over", a, 1500);
    ck_assert_str_eq(got, "ok");
    free(got);
    free(a);
    budget_set("over", 1000, "");
    ledger_sql(&l, "UPDATE ng.budget SET until = now() - interval '1 s', since = now() "
                   "- interval '2 s' FROM ng.tenant t WHERE t.id = tenant_id AND name "
                   "= 'over'");
    expect("0", "SELECT ng.spendable(w) FROM ng.account w JOIN ng.tenant t ON t.id = "
                "w.tenant_id WHERE kind = 'wallet' AND t.name = 'over'");
    budget_set("over", 1000, ""); /* the views compare it with this month */
    ledger_check(&l);
}
END_TEST

/* ---- promo ---- */

static long grant(const char *name, int yen, const char *until)
{
    return (long)ledger_int(
        &l,
        "SELECT api.promo_grant(jsonb_build_object('tenant', '%s', 'amount', "
        "'{\"currency\": \"JPY\", \"micro\": %d" JPY "}'::jsonb, 'expires', "
        "to_char((now() + interval '%s') AT TIME ZONE 'UTC', "
        "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), 'reason', 'test'), 'a', 'a', NULL, NULL)"
        "->>'id'",
        name, yen, until);
}

#define WALLET(name)                                                            \
    "SELECT concat_ws(' ', balance_micro, floor_micro) FROM ng.account a JOIN " \
    "ng.tenant t ON t.id = a.tenant_id WHERE kind = 'wallet' AND name = '" name "'"
#define GRANTS(name)                                                          \
    "SELECT string_agg(concat_ws('/', used_micro, back_micro), ' ' ORDER BY " \
    "g.id) FROM ng.promo_grant g JOIN ng.tenant t ON t.id = tenant_id WHERE " \
    "name = '" name "'"

START_TEST(promo_pays_first_what_expires_first)
{
    tenant("young", 0);
    grant("young", 1000, "2 days");
    grant("young", 600, "1 day");
    expect("0 -1600000000", WALLET("young"));
    char *a = new_id(), *got = book("young", a, 1500);
    ck_assert_str_eq(got, "ok");
    free(got);
    use(a, 1800000); /* 750 yen */
    expect("150000000/0 600000000/0", GRANTS("young"));
    expect("0 -850000000", WALLET("young"));
    ledger_once(&l); /* again: nothing */
    expect("150000000/0 600000000/0", GRANTS("young"));
    /* It expires while 500 of it are held: those go back when they are free. */
    char *b = new_id();
    got = book("young", b, 500);
    ck_assert_str_eq(got, "ok");
    free(got);
    ledger_sql(&l, "SET session_replication_role = replica; UPDATE ng.promo_grant SET "
                   "expires_at = now(); SET session_replication_role = origin");
    ledger_once(&l);
    expect("150000000/349861111 600000000/0", GRANTS("young"));
    use(b, 0);
    ledger_once(&l);
    expect("150000000/850000000 600000000/0", GRANTS("young"));
    expect("0 0", WALLET("young"));
    ledger_check(&l);
    free(a);
    free(b);
}
END_TEST

/* ---- incidents ---- */

static long incident(const char *what)
{
    return (long)ledger_int(
        &l,
        "SELECT api.incident_open('{%s, \"reason\": \"cut\", "
        "\"from\": \"2020-01-01T00:00:00Z\"}', 'a', 'a', NULL, NULL)"
        "->>'id'",
        what);
}

START_TEST(an_outage_is_credited_once_and_never_more_than_captured)
{
    tenant("hurt", 10000);
    char *a = new_id(), *got = book("hurt", a, 1000);
    free(got);
    use(a, 3600000); /* 1000 yen, fee 50 */
    long by_provider = incident("\"what\": \"provider\", \"name\": \"acme\"");
    long by_market = incident("\"what\": \"platform\"");
    ledger_sql(&l,
               "SELECT api.sla_credit('%ld', '{\"reservation\": \"%s\", "
               "\"percent_ppm\": 250000}', 'a')",
               by_provider, a);
    expect("237500000 12500000",
           "SELECT concat_ws(' ', sum(amount_micro) FILTER (WHERE kind = 'sla'), "
           "sum(amount_micro) FILTER (WHERE kind = 'sla_fee')) FROM ng.transfer");
    char *sql;
    ck_assert_int_ge(asprintf(&sql,
                              "SELECT api.sla_credit('%ld', '{\"reservation\": "
                              "\"%s\", \"percent_ppm\": 1}', 'a')",
                              by_provider, a),
                     0);
    refused("NG006", sql); /* once an incident */
    free(sql);
    ck_assert_int_ge(asprintf(&sql,
                              "SELECT api.sla_credit('%ld', '{\"reservation\": "
                              "\"%s\", \"amount\": " BODY_JPY("750000001") "}', 'a')",
                              by_market, a),
                     0);
    refused("NG006", sql); /* 750 are left */
    free(sql);
    ledger_sql(&l,
               "SELECT api.sla_credit('%ld', '{\"reservation\": \"%s\", "
               "\"percent_ppm\": 1000000}', 'a')",
               by_market, a);
    expect("1000000000", "SELECT credited_micro FROM ng.reservation ORDER BY "
                         "credited_micro DESC LIMIT 1");
    expect("10000000000 0", WALLET("hurt")); /* all of it came back */
    ledger_check(&l);
    free(a);
}
END_TEST

START_TEST(the_market_sees_gaps_itself)
{
    tenant("gap", 10000);
    ledger_sql(&l,
               "INSERT INTO ng.sla_terms VALUES (10000, '10 min', 100000), (200000, "
               "'10 min', 500000)");
    char *a = new_id(), *b = new_id(), *got = book("gap", a, 1000);
    free(got);
    got = ledger_text(&l,
                      "SELECT t.book('%s', 'gap', now() - interval '1 h', now() + "
                      "interval '1 s', ARRAY[t.node('whole', 'tokyo', 'acme', 1)], "
                      "ARRAY[0], ARRAY[1], 1000" JPY ")",
                      b);
    free(got);
    use(b, 3600000); /* all of it: no credit */
    use(a, 2000000); /* 26 minutes short: half of 555.555556 */
    ledger_once(&l);
    expect("1 market provider 277777778",
           "SELECT concat_ws(' ', count(*), min(opened_by), min(fault), "
           "sum(amount_micro)) "
           "FROM ng.incident i JOIN ng.sla_credit c ON c.incident_id = i.id WHERE "
           "i.reservation_id IS NOT NULL");
    ledger_sql(&l, "DELETE FROM ng.sla_terms");
    ledger_check(&l);
    free(a);
    free(b);
}
END_TEST

/* A tenth of 4 micro-yen is nothing; and of two providers' nodes one has given back all
 * that it earned. Both are incidents, and hold up nobody's round. */
START_TEST(an_outage_that_is_worth_nothing)
{
    tenant("small", 10000);
    char *a = new_id(), *b = new_id(), *got;
    ledger_sql(
        &l,
        "SELECT t.book('%s', 'small', now() - interval '1 h', now() + interval '1 "
        "s', ARRAY[t.node('cheap', 'tokyo', 'acme', 1)], ARRAY[0], ARRAY[1], 8)",
        a);
    ledger_sql(
        &l,
        "SELECT t.book('%s', 'small', now() - interval '1 h', now() + interval '1 "
        "s', ARRAY[t.node('two', 'tokyo', 'acme', 1), t.node('one', 'tokyo', "
        "'zero', 1)], ARRAY[0, 0], ARRAY[1, 1], 1000" JPY ")",
        b);
    use(b, 1800000);
    refused("NG020",
            "SELECT api.incident_open('{\"what\": \"node\", \"name\": "
            "\"one\", \"reason\": \"x\", \"from\": \"2999-01-01T00:00:00Z\"}', "
            "'a', 'a', NULL, NULL)");
    got = ledger_text(&l, "SELECT api.incident_open('{\"what\": \"node\", \"name\": "
                          "\"one\", \"reason\": \"x\"}', 'a', 'a', NULL, NULL)->>'id'");
    ledger_sql(&l,
               "SELECT api.sla_credit('%s', '{\"reservation\": \"%s\", "
               "\"percent_ppm\": 1000000}', 'a')",
               got, b);
    free(got);
    ledger_sql(&l,
               "INSERT INTO ng.sla_terms VALUES (10000, '10 min', 100000); INSERT "
               "INTO ng.sla_due VALUES ('%s')",
               b);
    use(a, 1800000);
    expect(
        "3 50000000",
        "SELECT concat_ws(' ', count(*), sum(c.amount_micro) FILTER (WHERE "
        "i.reservation_id IS NOT NULL)) FROM ng.incident i LEFT JOIN ng.sla_credit c "
        "ON c.incident_id = i.id JOIN ng.node n ON n.id = i.node_id WHERE n.name IN "
        "('cheap', 'one', 'two') AND i.reservation_id IS NOT NULL");
    ledger_sql(&l, "DELETE FROM ng.sla_terms");
    ledger_check(&l);
    free(a);
    free(b);
}
END_TEST

/* Seen while it lasts: told, listed for whom it hit, ended when the node is back; the
 * lease's credit is for it, once, and it is nobody's incident whom it did not hit. */
START_TEST(an_outage_is_an_incident_while_it_lasts)
{
    tenant("cutoff", 10000);
    tenant("bystander", 10000);
    ledger_sql(&l, "SELECT api.sla_terms_set('{\"terms\": [{\"share_ppm\": 10000, "
                   "\"gap_s\": 600, \"credit_ppm\": 100000}]}')");
    char *a = new_id(), *b = new_id(), *got = book("cutoff", a, 1000);
    free(got);
    int node = node_count;
    got = book("bystander", b, 1000);
    free(got);
    ledger_sql(&l, "SELECT ng.resv_start_if_due(r, now()) FROM ng.reservation r WHERE "
                   "state = 'confirmed'");
    ledger_sql(&l,
               "UPDATE ng.node SET last_sync_at = now() - interval '40 min' WHERE name "
               "= 'x%d'",
               node);
    ledger_sql(&l, "SELECT api.nodes_overdue(ng.us(now()), 30000000, 600000000)");
    ledger_sql(&l, "SELECT api.nodes_overdue(ng.us(now()), 30000000, 600000000)");
    expect(
        "1 t t market",
        "SELECT concat_ws(' ', count(*), bool_and(to_at IS NULL), bool_and(from_at < "
        "now() - interval '39 min'), min(opened_by)) FROM ng.incident WHERE node_id "
        "IS NOT NULL AND reservation_id IS NULL AND opened_by = 'market'");
    expect("cutoff",
           "SELECT string_agg(t.name, ' ') FROM ng.event e JOIN ng.tenant t ON t.id = "
           "e.tenant_id WHERE e.kind = 'incident.opened'");
    static const char seen[] =
        "SELECT jsonb_array_length(api.incident_list(id, NULL, NULL, 9)->'incidents') "
        "FROM ng.tenant WHERE name = '%s'";
    int64_t before = ledger_int(&l, seen, "bystander");
    ck_assert_int_eq(ledger_int(&l, seen, "cutoff"), before + 1);
    expect("1 0", "SELECT concat_ws(' ', sum(n) FILTER (WHERE p.name = 'acme'), sum(n) "
                  "FILTER (WHERE p.name = 'zero')) FROM ng.provider p, LATERAL (SELECT "
                  "count(*) AS n FROM jsonb_array_elements(api.incident_list(NULL, "
                  "p.id, NULL, 99)->'incidents') i WHERE i->>'opened_by' = 'market' "
                  "AND i->>'reservation' IS NULL) x");
    ledger_sql(&l,
               "UPDATE ng.node SET state = 'up', last_sync_at = now() WHERE name = "
               "'x%d'",
               node);
    expect("1 1",
           "SELECT concat_ws(' ', count(*) FILTER (WHERE to_at >= now() - "
           "interval '1 min' AND closed_by = 'market'), (SELECT count(*) FROM "
           "ng.event WHERE kind = 'incident.closed')) FROM ng.incident WHERE "
           "node_id IS NOT NULL AND reservation_id IS NULL AND opened_by = 'market'");
    use(a, 2400000); /* 40 of 60 minutes were used: a tenth of 666.666667 */
    use(b, 3600000);
    ledger_once(&l);
    ledger_once(&l);
    expect(
        "1 66666667 t",
        "SELECT concat_ws(' ', count(*), sum(c.amount_micro), bool_and(i.reason LIKE "
        "'%has not been heard of since%')) FROM ng.sla_credit c JOIN ng.incident i "
        "ON i.id = c.incident_id JOIN ng.reservation r ON r.id = c.reservation_id "
        "JOIN ng.tenant t ON t.id = r.tenant_id WHERE t.name = 'cutoff'");
    ledger_sql(&l, "SELECT api.sla_terms_set('{\"terms\": []}')");
    ledger_check(&l);
    free(a);
    free(b);
}
END_TEST

START_TEST(terms_of_credits)
{
    static const char *const wrong[] = {
        "{}",
        "{\"terms\": {}}",
        "{\"terms\": [{\"share_ppm\": 0, \"gap_s\": 1, \"credit_ppm\": 1}]}",
        "{\"terms\": [{\"share_ppm\": 1, \"gap_s\": 0, \"credit_ppm\": 1}]}",
        "{\"terms\": [{\"share_ppm\": 1, \"gap_s\": 1}]}",
        "{\"terms\": [{\"share_ppm\": 1, \"gap_s\": 1, \"credit_ppm\": 1000001}]}",
        "{\"terms\": [{\"share_ppm\": 1, \"gap_s\": 1, \"credit_ppm\": 1, "
        "\"x\": 1}]}",
        "{\"terms\": [{\"share_ppm\": 1, \"gap_s\": 1, \"credit_ppm\": 1}, "
        "{\"share_ppm\": 1, \"gap_s\": 2, \"credit_ppm\": 2}]}",
        "{\"terms\": [{\"share_ppm\": 2, \"gap_s\": 1, \"credit_ppm\": 5}, "
        "{\"share_ppm\": 1, \"gap_s\": 1, \"credit_ppm\": 6}]}"};
    char sql[300];
    ledger_sql(&l, "SELECT api.sla_terms_set('{\"terms\": [{\"share_ppm\": 500, "
                   "\"gap_s\": 60, \"credit_ppm\": 7}]}')");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        snprintf(sql, sizeof(sql), "SELECT api.sla_terms_set('%s')", wrong[i]);
        refused("NG020", sql);
    }
    expect("500 60 7", "SELECT concat_ws(' ', t->>'share_ppm', t->>'gap_s', "
                       "t->>'credit_ppm') FROM "
                       "jsonb_array_elements(api.sla_terms()->'terms') t");
    /* Which step it is; the same credit for more is no less. */
    PGresult *res = PQexec(
        l.pg,
        "SELECT api.sla_terms_set('{\"terms\": [{\"share_ppm\": 10000, \"gap_s\": "
        "9, \"credit_ppm\": 250000}, {\"share_ppm\": 55000, \"gap_s\": 1, "
        "\"credit_ppm\": 100000}]}')");
    ck_assert_msg(
        strstr(PQresultErrorMessage(res),
               "/terms/1: a longer outage is not credited less: from 5.5 % of "
               "the time 10 % are credited, less than the 25 % from 1 % on") != NULL,
        "%s", PQresultErrorMessage(res));
    PQclear(res);
    ledger_sql(&l, "SELECT api.sla_terms_set('{\"terms\": [{\"share_ppm\": 55000, "
                   "\"gap_s\": 1, \"credit_ppm\": 250000}, {\"share_ppm\": 10000, "
                   "\"gap_s\": 9, \"credit_ppm\": 250000}]}')");
    refused("23514", "UPDATE ng.sla_terms SET credit_ppm = 1 WHERE share_ppm = 55000");
    refused("23514", "INSERT INTO ng.sla_terms VALUES (90000, '1 s', 249999)");
    ledger_sql(&l, "SELECT api.sla_terms_set('{\"terms\": []}')");
}
END_TEST

/* ---- exchange ---- */

START_TEST(euro_become_yen_at_the_rate)
{
    tenant("euro", 0);
    refused("NG020",
            "SELECT api.topup('euro', 100000000, 'EUR', 'e1', 'a', NULL, NULL)");
    ledger_sql(&l,
               "SELECT api.fx_set('{\"base\": \"EUR\", \"quote\": \"JPY\", \"rate\": "
               "\"165.32\", \"source\": \"test\"}', 'a')");
    ledger_sql(&l, "SELECT api.topup('euro', 100010000, 'EUR', 'e1', 'a', NULL, NULL)");
    expect("16533653200 0", WALLET("euro"));
    refused("NG006",
            "SELECT api.topup('euro', 100010000, 'EUR', 'e1', 'a', NULL, NULL)");
    /* Half away from zero. */
    expect("2 1 0",
           "SELECT concat_ws(' ', ng.fx_convert(3, 0.5), ng.fx_convert(1, 0.5), "
           "ng.fx_convert(1, 0.499999999))");
    ledger_check(&l);
}
END_TEST

#define FX_HAS                                                                         \
    "SELECT string_agg(concat_ws(' ', a.kind, a.currency, (SELECT coalesce(sum(CASE "  \
    "WHEN t.cr = a.id THEN amount_micro ELSE -amount_micro END), 0) FROM ng.transfer " \
    "t WHERE a.id IN (t.dr, t.cr) AND t.id > %s)), ', ' ORDER BY a.kind, a.currency) " \
    "FROM ng.account a WHERE a.kind = 'fx' OR (a.kind, a.currency) = ('bank', 'EUR')"

/* The rate has changed and some is spent: it goes back as it came, and the rest is owed
 * in yen. One is taken back by either of its transfers, once; and not one alone. */
START_TEST(euro_that_the_bank_takes_back)
{
    tenant("back", 0);
    char *since = ledger_text(&l, "SELECT max(id) FROM ng.transfer"), *sql, *got;
    for (int i = 0; i < 3; i++)
        ledger_sql(&l,
                   "SELECT api.topup('back', 100000000, 'EUR', 'b%d', 'a', NULL, NULL)",
                   i);
    ledger_sql(&l, "SELECT api.fx_set('{\"base\": \"EUR\", \"quote\": \"JPY\", "
                   "\"rate\": \"170\", \"source\": \"test\"}', 'a')");
    ledger_sql(&l,
               "SELECT api.withdraw('back', 20000000000, 'spent', 'a', NULL, NULL)");
    sql = xasprintf(FX_HAS, since);
    expect("bank EUR -300000000, fx EUR 300000000, fx JPY -49596000000", sql);
    got =
        ledger_text(&l, "SELECT api.billing_reverse(id) FROM ng.transfer WHERE kind = "
                        "'fx' AND ref = 'b0/paid'");
    free(got);
    expect("bank EUR -200000000, fx EUR 200000000, fx JPY -33064000000", sql);
    expect("13064000000 0", WALLET("back"));
    expect("13064000000 3468000000 JPY",
           "SELECT concat_ws(' ', wallet_micro, receivable_micro, currency) FROM "
           "api.billing_chargeback((SELECT id FROM ng.transfer WHERE kind = 'fx' AND "
           "ref = 'b1'), 'disputed')");
    expect("bank EUR -100000000, fx EUR 100000000, fx JPY -16532000000", sql);
    expect("0 16532000000 JPY",
           "SELECT concat_ws(' ', wallet_micro, receivable_micro, currency) FROM "
           "api.billing_chargeback((SELECT id FROM ng.transfer WHERE kind = 'fx' AND "
           "ref = 'b2/paid'), 'disputed')");
    expect("bank EUR 0, fx EUR 0, fx JPY 0", sql);
    static const char *const again[] = {"b0",      "b0/paid", "b1",
                                        "b1/paid", "b2",      "b2/paid"};
    for (size_t i = 0; i < sizeof(again) / sizeof(again[0]); i++)
        for (int bank = 0; bank < 2; bank++) {
            char *what = xasprintf(
                "SELECT api.%s) FROM ng.transfer WHERE kind = 'fx' AND "
                "ref = '%s'",
                bank ? "billing_chargeback(id, 'x'" : "billing_reverse(id", again[i]);
            refused("NG006", what);
            free(what);
        }
    expect("20000", "SELECT (ng.owed(id, 'JPY') / 1000000)::text FROM ng.tenant WHERE "
                    "name = 'back'");
    ledger_check(&l);
    free(sql);
    free(since);
}
END_TEST

/* ---- attacks ---- */

static const struct attack {
    const char *sql, *state;
} attacks[] = {
    {"UPDATE ng.budget SET held_micro = limit_micro + carried_micro + 1 WHERE hard",
     "23514"},
    {"UPDATE ng.budget SET held_micro = -1", "23514"},
    {"UPDATE ng.promo_grant SET used_micro = amount_micro + 1", "23514"},
    {"UPDATE ng.promo_grant SET used_micro = -1", "23514"},
    {"UPDATE ng.promo_grant SET amount_micro = amount_micro + 1", "23001"},
    {"UPDATE ng.promo_grant SET reason = ''", "23001"},
    {"DELETE FROM ng.promo_grant", "23001"},
    {"TRUNCATE ng.promo_grant", "23001"},
    {"UPDATE ng.account SET balance_micro = -1 WHERE kind = 'promo'", "23514"},
    {"UPDATE ng.promo_cursor SET carry_micro = 1", "23514"},
    {"UPDATE ng.reservation SET credited_micro = captured_micro + 1", "23514"},
    {"UPDATE ng.reservation SET credited_micro = -1", "23514"},
    {"INSERT INTO ng.sla_credit (incident_id, reservation_id, amount_micro, reason, "
     "credited_by) "
     "SELECT 999999, id, 1, 'x', 'x' FROM ng.reservation LIMIT 1",
     "23503"},
    {"INSERT INTO ng.sla_credit (reservation_id, amount_micro, reason, credited_by) "
     "SELECT id, 1, 'x', 'x' FROM ng.reservation LIMIT 1",
     "23502"},
    {"INSERT INTO ng.sla_credit (incident_id, reservation_id, amount_micro, reason, "
     "credited_by) "
     "SELECT i.id, r.id, 1, ' ', 'x' FROM ng.reservation r, ng.incident i LIMIT 1",
     "23514"},
    {"INSERT INTO ng.sla_credit (incident_id, reservation_id, amount_micro, reason, "
     "credited_by) "
     "SELECT incident_id, reservation_id, 1, 'x', 'x' FROM ng.sla_credit LIMIT 1",
     "23505"},
    {"UPDATE ng.sla_credit SET amount_micro = 1", "23001"},
    {"DELETE FROM ng.sla_credit", "23001"},
    {"TRUNCATE ng.sla_credit", "23001"},
    {"UPDATE ng.incident SET reason = 'other'", "23001"},
    {"UPDATE ng.incident SET fault = 'platform'", "23001"},
    {"DELETE FROM ng.incident", "23001"},
    {"INSERT INTO ng.incident (what, fault, from_at, reason, opened_by) VALUES "
     "('platform', 'provider', now(), 'x', 'x')",
     "23514"},
    {"INSERT INTO ng.incident (what, fault, from_at, reason, opened_by) VALUES "
     "('node', 'provider', now(), 'x', 'x')",
     "23514"},
    {"INSERT INTO ng.incident (what, fault, from_at, reason, opened_by) VALUES "
     "('platform', 'platform', now(), '', 'x')",
     "23514"},
    {"UPDATE ng.fx_rate SET rate = 1", "23001"},
    {"DELETE FROM ng.fx_rate", "23001"},
    {"TRUNCATE ng.fx_rate CASCADE", "23001"},
    {"UPDATE ng.fx SET rate_id = rate_id", "23001"},
    {"INSERT INTO ng.fx (rate_id, paid, received) SELECT rate_id, paid, received FROM "
     "ng.fx",
     "23505"},
    {"INSERT INTO ng.fx_rate (base, quote, rate, source, set_by) VALUES ('EUR', 'EUR', "
     "1, "
     "'x', 'x')",
     "23514"},
    {"SET ROLE neargpu_server; UPDATE ng.budget SET limit_micro = 1", "42501"},
    {"SET ROLE neargpu_server; SELECT api.billing_promo()", "42501"},
    {"SET ROLE neargpu_server; SELECT ng.sla_post(NULL, NULL, 1, 1, '')", "42501"},
    {"SET ROLE neargpu_billd; INSERT INTO ng.fx_rate VALUES (1)", "42501"},
    {"SET ROLE neargpu_billd; SELECT api.sla_credit('1', '{}', 'x')", "42501"},
    {"SET ROLE neargpu_billd; SELECT api.promo_grant('{}', 'x', 'x', NULL, NULL)",
     "42501"},
    {"SET ROLE neargpu_report; SELECT * FROM ng.budget", "42501"},
};

START_TEST(the_database_refuses)
{
    PQclear(PQexec(l.pg, "ROLLBACK")); /* of one that failed */
    testdb_sql(l.pg, "BEGIN");
    refused(attacks[_i].state, attacks[_i].sql);
    testdb_sql(l.pg, "ROLLBACK");
}
END_TEST

/* Leases, grants and credits at random, against sums kept here: each use is paid by
 * promo as far as there is some left, credits come back to it first, and none is more
 * than what was captured. */
START_TEST(random_histories)
{
    const char *text = getenv("SEED");
    unsigned seed =
        text != NULL ? (unsigned)strtoul(text, NULL, 10) : (unsigned)time(NULL);
    int64_t left = 0, used = 0, carry = 0;
    printf("test_credit: SEED=%u\n", seed);
    tenant("rnd", 1000000);
    for (int i = 0; i < 20; i++) {
        if (rand_r(&seed) % 3 == 0) {
            int yen = 1 + rand_r(&seed) % 900;
            grant("rnd", yen, "5 days");
            carry = left == 0 ? 0 : carry;
            left += (int64_t)yen * 1000000;
        }
        char *a = new_id(), *got = book("rnd", a, 1 + rand_r(&seed) % 1999);
        ck_assert_str_eq(got, "ok");
        free(got);
        use(a, rand_r(&seed) % 1800000 * 2);
        int64_t captured = ledger_int(
            &l, "SELECT captured_micro FROM ng.reservation WHERE id = '%s'", a);
        int64_t net = carry + captured;
        int64_t take = net < left ? net : left;
        take = take < 0 ? 0 : take;
        used += take;
        left -= take;
        carry = net - take < 0 ? net - take : 0;
        if (captured > 0 && rand_r(&seed) % 2 == 0) {
            int64_t ppm = 1 + rand_r(&seed) % 1000000;
            int64_t back = ledger_int(&l,
                                      "SELECT api.sla_credit('%ld', "
                                      "'{\"reservation\": \"%s\", \"percent_ppm\": "
                                      "%lld}', 'a')#>>'{credits,0,amount_micro}'",
                                      incident("\"what\": \"provider\", \"name\": "
                                               "\"acme\""),
                                      a, (long long)ppm);
            ck_assert(back > 0 && back <= captured);
            if (left > 0)
                carry -= back;
        }
        ledger_check(&l);
        int64_t is = ledger_int(
            &l, "SELECT coalesce(sum(used_micro), 0) FROM ng.promo_grant g JOIN "
                "ng.tenant t ON t.id = tenant_id WHERE name = 'rnd'");
        ck_assert_msg(is == used, "SEED=%u step %d: used %lld, not %lld", seed, i,
                      (long long)is, (long long)used);
        free(a);
    }
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1); /* one database for all cases */
    ledger_open(&l, NULL);
    Suite *suite = suite_create("credit");
    TCase *tc = tcase_create("credit");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, a_hard_budget_refuses);
    tcase_add_test(tc, a_wallet_that_is_short_is_not_a_budget);
    tcase_add_test(tc, a_soft_budget_only_tells);
    tcase_add_test(tc, a_month_begins_with_what_is_held);
    tcase_add_test(tc, a_month_that_begins_over_its_limit);
    tcase_add_test(tc, promo_pays_first_what_expires_first);
    tcase_add_test(tc, an_outage_is_credited_once_and_never_more_than_captured);
    tcase_add_test(tc, the_market_sees_gaps_itself);
    tcase_add_test(tc, an_outage_that_is_worth_nothing);
    tcase_add_test(tc, an_outage_is_an_incident_while_it_lasts);
    tcase_add_test(tc, terms_of_credits);
    tcase_add_test(tc, euro_become_yen_at_the_rate);
    tcase_add_test(tc, euro_that_the_bank_takes_back);
    tcase_add_loop_test(tc, the_database_refuses, 0,
                        (int)(sizeof attacks / sizeof attacks[0]));
    tcase_add_test(tc, random_histories);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    ledger_close(&l);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
