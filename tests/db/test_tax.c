/* Several rates of tax on a real database, through neargpu-billd: who and what is of
 * which class and since when, base and tax once per class, postings, charges, refunds;
 * periods end where taxes change; the sums attacked as the owner of the tables; random
 * histories against sums made here. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"
#include "tests/db/ledger.h"
#include "tests/unit/unit.h"

#define R(n) "lpad('" #n "', 32, '0')::uuid"

static struct ledger l;
static unsigned seed;

static void expect(const char *want, const char *sql)
{
    char *got = testdb_one(l.pg, sql);
    ck_assert_msg(strcmp(got, want) == 0, "%s\n is %s\n not %s", sql, got, want);
    free(got);
}

static void invoice(const char *tenant, int want)
{
    char *got;
    int status =
        LEDGER_BILLD(&l, &got, "invoice", "--tenant", tenant, "--until", "now");
    ck_assert_msg(status == want, "%s: %d, not %d: %s", tenant, status, want, got);
    free(got);
}

/* Booked for 1 GPU a node and used for an hour on each, at 1,000.4 a GPU-hour. */
static void used(const char *id, const char *tenant, const char *nodes,
                 const char *firsts)
{
    char *got = ledger_text(
        &l,
        "SELECT t.book(%s, '%s', now() - interval '3 h', now() - interval '1 h', "
        "ARRAY[%s], ARRAY[%s], array_fill(1, ARRAY[cardinality(ARRAY[%s])]), "
        "1000400000)",
        id, tenant, nodes, firsts, nodes);
    ck_assert_str_eq(got, "ok");
    free(got);
    ledger_sql(&l,
               "SELECT t.receipt(%s, n, 1, 'ready', 0), t.receipt(%s, n, 2, "
               "'teardown', 3600000) FROM unnest(ARRAY[%s]) n",
               id, id, nodes);
    ledger_once(&l);
}

START_TEST(set_up)
{
    ledger_sql(&l,
               "SELECT t.tenant('lab', 'Asia/Tokyo', 100000000000), "
               "t.tenant('abroad', 'UTC', 100000000000), "
               "t.tenant('later', 'UTC', 100000000000), "
               "t.node('n1', 'tokyo', 'acme', 16), t.node('n2', 'tokyo', 'zero', 8)");
    ledger_sql(&l, "SELECT api.market_set(NULL, NULL, NULL, NULL, NULL, 'Ote')");
    ledger_sql(&l, "UPDATE ng.node SET gpu_model = 'A10' WHERE name = 'n2'");
    ledger_sql(&l, "SELECT api.tax_rate_set('{\"class\": \"reduced\", \"rate_ppm\": "
                   "80000}', 'admin')");
    ledger_sql(&l, "SELECT api.tax_rule_set('{\"meter\": \"gpu\", \"gpu_model\": "
                   "\"A10\", \"class\": \"reduced\"}', 'admin')");
    ledger_sql(&l, "SELECT api.tax_rule_set('{\"tenant\": \"abroad\", \"class\": "
                   "\"zero\"}', 'admin')");
}
END_TEST

#define TAXES(tenant)                                                                \
    "SELECT string_agg(concat_ws(' ', x.class, rate_ppm, base_micro, x.tax_micro),"  \
    " ', ' ORDER BY number, rate_ppm DESC) FROM ng.invoice_tax x JOIN ng.invoice i " \
    "USING (number) JOIN ng.tenant t ON t.id = i.tenant_id WHERE t.name = '" tenant  \
    "'"

START_TEST(once_per_rate)
{
    used(R(1), "lab", "1,2", "0,0"); /* a lease of both: a line for each */
    used(R(2), "lab", "2", "1");
    invoice("lab", 0);
    /* 1000.4 -> 1000, tax 100; 2000.8 -> 2001, tax 160.08 -> 160. */
    expect("standard 100000 1000000000 100000000, reduced 80000 2001000000 160000000",
           TAXES("lab"));
    expect("3001000000 260000000 3261000000",
           "SELECT concat_ws(' ', net_micro, tax_micro, total_micro) FROM ng.invoice");
    expect("1 reduced 3600000 1000400000, 2 standard 3600000 1000400000, 3 reduced "
           "3600000 1000400000, 4 reduced 0 200000, 5 standard 0 -400000",
           "SELECT string_agg(concat_ws(' ', line, tax_class, quantity_gpu_ms, "
           "amount_micro), ', ' ORDER BY line) FROM ng.invoice_line");
    expect("reduced 160000000, standard 100000000",
           "SELECT string_agg(split_part(ref, '/', 2) || ' ' || amount_micro, ', ' "
           "ORDER BY ref) FROM ng.transfer WHERE kind = 'tax'");
    expect("-200000", "SELECT -t.balance('rounding', NULL) - 400000");
    expect("0", "SELECT (SELECT sum((x->>'amount_micro')::bigint) FROM "
                "jsonb_array_elements(api.charges(NULL, (SELECT number FROM "
                "ng.invoice), NULL, NULL, NULL, 500)->'charges') x) - (SELECT "
                "total_micro FROM ng.invoice)");
    expect("tax, 10.00 %: 100000000, tax, 8.00 %: 160000000",
           "SELECT string_agg((x->>'description') || ': ' || (x->>'amount_micro'), ', "
           "' ORDER BY x->>'description') FROM "
           "jsonb_array_elements(api.charges(NULL, (SELECT number FROM ng.invoice), "
           "NULL, NULL, NULL, 500)->'charges') x WHERE x->>'category' = 'Tax'");
    ledger_check(&l);
}
END_TEST

/* Part of the lease of both goes back, then all of it: each class its tax, and with the
 * last of it all that was taken. */
START_TEST(refunds_go_back_per_rate)
{
    ledger_sql(&l, "SELECT api.refund(" R(1) ", 1000400000, 'slow', 'provider', 'a', "
                                             "NULL, NULL, 'admin')");
    expect("reduced 500200000 40000000, standard 500200000 50000000",
           "SELECT string_agg(concat_ws(' ', class, base_micro, tax_micro), ', ' ORDER "
           "BY class) FROM ng.credit_note_tax");
    ledger_sql(&l, "SELECT api.refund(" R(1) ", NULL, 'slow', 'provider', 'a', NULL, "
                                             "NULL, 'admin')");
    ledger_sql(&l, "SELECT api.refund(" R(2) ", NULL, 'slow', 'market', 'a', NULL, "
                                             "NULL, 'admin')");
    expect("reduced 160000000, standard 100000000",
           "SELECT string_agg(class || ' ' || tax, ', ' ORDER BY class) FROM (SELECT "
           "class, sum(tax_micro) AS tax FROM ng.credit_note_tax GROUP BY 1) x");
    expect("0", "SELECT t.balance('tax_output', NULL)");
    ledger_check(&l);
}
END_TEST

/* Refunded before it is invoiced: divided over the classes as the use is. */
START_TEST(early_refunds_lessen_each_rate)
{
    used(R(3), "lab", "1,2", "1,2");
    ledger_sql(&l, "SELECT api.refund(" R(3) ", 100000001, 'slow', 'provider', 'a', "
                                             "NULL, NULL, 'admin')");
    invoice("lab", 0);
    expect("reduced 1000400000, reduced -50000001, standard 1000400000, standard "
           "-50000000",
           "SELECT string_agg(tax_class || ' ' || amount_micro, ', ' ORDER BY "
           "tax_class, amount_micro DESC) FROM ng.invoice_line WHERE reservation_id "
           "= " R(3));
    expect("0", "SELECT (SELECT sum((x->>'amount_micro')::bigint) FROM "
                "jsonb_array_elements(api.charges(NULL, i.number, NULL, NULL, NULL, "
                "500)->'charges') x) - total_micro FROM ng.invoice i ORDER BY number "
                "DESC LIMIT 1");
    ledger_check(&l);
}
END_TEST

START_TEST(a_tenant_abroad)
{
    used(R(4), "abroad", "1,2", "2,3");
    invoice("abroad", 0);
    expect("zero 0 2001000000 0", TAXES("abroad"));
    ledger_check(&l);
}
END_TEST

/* Taxes change between two captures: an invoice ends there, each part has its rate. */
START_TEST(a_period_ends_where_taxes_change)
{
    used(R(5), "later", "1", "3");
    ledger_sql(&l, "SELECT api.tax_rate_set('{\"class\": \"standard\", \"rate_ppm\": "
                   "120000}', 'admin')");
    used(R(6), "later", "1", "4");
    invoice("later", 6);
    char *at = ledger_text(&l, "SELECT ng.log_time(lower(during)) FROM ng.tax_rate "
                               "WHERE rate_ppm = 120000");
    ck_assert_int_eq(
        LEDGER_BILLD(&l, NULL, "invoice", "--tenant", "later", "--until", at), 0);
    free(at);
    invoice("later", 0);
    expect("standard 100000 1000000000 100000000, standard 120000 1000000000 120000000",
           TAXES("later"));
    ledger_check(&l);
}
END_TEST

/* By itself, in months that are over. */
START_TEST(due_in_parts)
{
    used(R(7), "later", "1", "5");
    used(R(8), "later", "1", "6");
    testdb_sql(
        l.pg,
        "BEGIN; SET LOCAL session_replication_role = replica; UPDATE ng.transfer SET "
        "at = now() - interval '200 days' + CASE reservation_id WHEN " R(
            7) " THEN "
               "interval '0' ELSE interval '2 s' END WHERE kind IN ('capture', 'fee') "
               "AND "
               "reservation_id IN (" R(7) ", " R(
                   8) "); DELETE FROM ng.invoice WHERE tenant_id "
                      "= (SELECT id FROM ng.tenant WHERE name = 'later'); UPDATE "
                      "ng.transfer SET at "
                      "= now() WHERE kind IN ('capture', 'fee') AND reservation_id IN "
                      "(" R(5) ", " R(6) "); UPDATE ng.tax_rate SET during = CASE WHEN "
                                         "rate_ppm = 120000 THEN "
                                         "tstzrange(now() - interval '200 days' + "
                                         "interval '1 s', NULL) ELSE "
                                         "tstzrange(NULL, now() - interval '200 days' "
                                         "+ interval '1 s') END WHERE class "
                                         "= 'standard'");
    expect("2", "SELECT count(*) FROM api.billing_due(now()) WHERE tenant = 'later'");
    expect("t", "SELECT min(until) = now() - interval '200 days' + interval '1 s' FROM "
                "api.billing_due(now()) WHERE tenant = 'later'");
    testdb_sql(l.pg, "ROLLBACK");
}
END_TEST

/* What is due by class and rate, of all documents. */
START_TEST(report)
{
    expect("12.00 120 0 120, 10.00 295 100 195, 8.00 236 160 76, 0.00 0 0 0",
           "SELECT string_agg(concat_ws(' ', rate, tax::real, tax_back::real, "
           "due::real), ', ' ORDER BY rate DESC) FROM report.tax");
}
END_TEST

static const struct attack {
    const char *sql, *state;
} attacks[] = {
#define COPY_INVOICE                                                                   \
    "INSERT INTO ng.invoice SELECT 'X', tenant_id, 'USD', period, issued_at, 100000, " \
    "NULL, 10000, 110000, document FROM ng.invoice LIMIT 1; INSERT INTO "              \
    "ng.invoice_line VALUES ('X', 1, '', NULL, 0, 100000, 'standard');"
    /* Right, and then with each part wrong. */
    {COPY_INVOICE "INSERT INTO ng.invoice_tax VALUES ('X', 'standard', 100000, 100000, "
                  "10000)",
     "00000"},
    {COPY_INVOICE, "23514"},
    {COPY_INVOICE "INSERT INTO ng.invoice_tax VALUES ('X', 'reduced', 100000, 100000, "
                  "10000)",
     "23514"},
    {COPY_INVOICE "INSERT INTO ng.invoice_tax VALUES ('X', 'standard', 40000, 100000, "
                  "10000)",
     "23514"},
    {COPY_INVOICE "INSERT INTO ng.invoice_tax VALUES ('X', 'standard', 100000, 90000, "
                  "10000)",
     "23514"},
    {COPY_INVOICE "INSERT INTO ng.invoice_tax VALUES ('X', 'standard', 100000, 100000, "
                  "10000), ('X', 'zero', 0, 0, 0)",
     "23514"},
    {"INSERT INTO ng.invoice_line SELECT number, 99, '', NULL, 0, 1, 'standard' FROM "
     "ng.invoice",
     "23514"},
    {"INSERT INTO ng.invoice_line SELECT number, 99, '', NULL, 0, 1, 'standard' FROM "
     "ng.invoice; DELETE FROM ng.invoice_check",
     "23514"},
    /* After what was right was checked already. */
    {COPY_INVOICE "INSERT INTO ng.invoice_tax VALUES ('X', 'standard', 100000, 100000, "
                  "10000); SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO ng.invoice_line "
                  "VALUES ('X', 2, '', NULL, 0, 1, 'standard')",
     "23514"},
    {"INSERT INTO ng.invoice_tax SELECT number, 'exempt', 0, 0, 0 FROM ng.invoice",
     "23514"},
    {"INSERT INTO ng.invoice_tax SELECT number, 'exempt', 100000, 0, 0 FROM ng.invoice "
     "WHERE tax_micro > 0 LIMIT 1",
     "23505"},
    {"INSERT INTO ng.credit_note_tax SELECT number, 'exempt', 0, 1, 0 FROM "
     "ng.credit_note LIMIT 1",
     "23514"},
    {"UPDATE ng.invoice_tax SET tax_micro = 0", "23001"},
    {"DELETE FROM ng.invoice_tax", "23001"},
    {"TRUNCATE ng.invoice_tax", "23001"},
    {"UPDATE ng.credit_note_tax SET tax_micro = 0", "23001"},
    {"UPDATE ng.tax_rate SET rate_ppm = 1", "23001"},
    {"UPDATE ng.tax_rate SET during = '(,)'", "23001"},
    {"UPDATE ng.tax_rate SET during = tstzrange(lower(during), now() - interval '1 s') "
     "WHERE class = 'reduced'",
     "23001"},
    {"UPDATE ng.tax_rate SET during = tstzrange('2020-01-01', NULL) WHERE class = "
     "'standard' AND upper_inf(during)",
     "23001"},
    {"DELETE FROM ng.tax_rate WHERE class = 'standard' AND upper_inf(during)", "23001"},
    {"DELETE FROM ng.tax_rate WHERE class = 'zero'", "23001"},
    {"DELETE FROM ng.tax_rule", "23001"},
    {"INSERT INTO ng.tax_rate VALUES ('standard', 1, '[2020-01-01,2021-01-01)', 'x')",
     "23P01"},
    {"INSERT INTO ng.tax_rate VALUES ('zero', 5, '[2020-01-01,2021-01-01)', 'x')",
     "23514"},
    {"INSERT INTO ng.tax_rule (tenant_id, class, during, set_by) SELECT tenant_id, "
     "'outside', during, 'x' FROM ng.tax_rule WHERE tenant_id IS NOT NULL",
     "23P01"},
    {"SELECT api.tax_rate_set('{\"class\": \"zero\", \"rate_ppm\": 1}', 'a')", "NG020"},
    {"SELECT api.tax_rate_set('{\"class\": \"reduced\", \"rate_ppm\": 120000}', 'a')",
     "NG006"},
    {"SELECT api.tax_rate_set('{\"class\": \"reduced\", \"rate_ppm\": 1, \"from\": "
     "\"2020-01-01T00:00:00Z\"}', 'a')",
     "NG020"},
    {"SELECT api.tax_rule_set('{\"tenant\": \"lab\", \"meter\": \"gpu\", \"class\": "
     "\"zero\"}', 'a')",
     "NG020"},
    {"SELECT api.tax_rule_set('{\"tenant\": \"lab\", \"class\": \"none\"}', 'a')",
     "NG020"},
    {"SELECT api.tax_rule_set('{\"tenant\": \"nobody\", \"class\": \"zero\"}', 'a')",
     "NG005"},
};

START_TEST(sums_cannot_be_broken)
{
    const struct attack *a = &attacks[_i];
    PQclear(PQexec(l.pg, "ROLLBACK")); /* of a test that failed */
    testdb_sql(l.pg, "BEGIN; SET LOCAL ROLE neargpu_owner");
    char *sql = xasprintf("%s; SET CONSTRAINTS ALL IMMEDIATE", a->sql);
    const char *state = testdb_state(l.pg, sql);
    ck_assert_msg(strcmp(state, a->state) == 0, "%s: %s, not %s", a->sql, state,
                  a->state);
    free(sql);
    testdb_sql(l.pg, "ROLLBACK");
}
END_TEST

/* Promotional credit that was used and credits for incidents are on the invoice in
 * whose time they came, once; credit notes on the one they refer to. */
START_TEST(credits_and_notes)
{
    ledger_sql(&l, "SELECT t.tenant('given', 'UTC', 100000000000)");
    ledger_sql(&l, "SELECT api.promo_grant('{\"tenant\": \"given\", \"amount\": "
                   "{\"currency\": \"JPY\", \"micro\": 300000000}, \"expires\": "
                   "\"2999-01-01T00:00:00Z\", \"reason\": \"welcome\"}', 'admin', "
                   "'a', NULL, NULL)");
    used(R(9), "given", "1", "7");
    ledger_once(&l);
    ledger_sql(&l, "SELECT api.incident_open('{\"what\": \"platform\", \"reason\": "
                   "\"log-in was down\"}', 'admin', 'a', NULL, NULL)");
    ledger_sql(&l, "SELECT api.sla_credit((SELECT max(id)::text FROM ng.incident), "
                   "jsonb_build_object('amount', jsonb_build_object('currency', 'JPY', "
                   "'micro', 50000000), 'reservation', " R(9) "::text), 'admin')");
    invoice("given", 0);
    used(R(10), "given", "1", "8");
    invoice("given", 0);
#define CREDITS                                                                  \
    "SELECT coalesce(string_agg(concat_ws(' ', x->>'kind', x->>'amount_micro', " \
    "x->>'reason'), ', '), 'none') FROM (SELECT * FROM ng.invoice ORDER BY number "
    expect("promo 300000000 welcome, sla 50000000 log-in was down",
           CREDITS "DESC LIMIT 1 OFFSET 1) i, jsonb_array_elements(api.invoice_get("
                   "NULL, i.number)->'credits') x");
    expect("none", CREDITS "DESC LIMIT 1) i, jsonb_array_elements(api.invoice_get("
                           "NULL, i.number)->'credits') x");
    ledger_sql(&l, "SELECT api.refund(" R(10) ", NULL, 'slow', 'market', 'a', NULL, "
                                              "NULL, 'admin')");
    expect("1 t",
           "SELECT concat_ws(' ', jsonb_array_length(i->'credit_notes'), "
           "i->'credit_notes'->0->>'number' = c->>'number' AND c->'of'->'from_us' = "
           "i->'from_us' AND c->'document'->>'address' = 'Ote') FROM "
           "api.invoice_get(NULL, (SELECT max(number) FROM ng.invoice)) i, "
           "api.credit_note_get(NULL, (SELECT max(number) FROM ng.credit_note)) c");
    ledger_check(&l);
}
END_TEST

/* What a quote says of tax: each part of the plan in its class. */
START_TEST(quotes)
{
#define QUOTED(tenant, nodes, lanes, total)                               \
    "SELECT ng.plan_tax((SELECT id FROM ng.tenant WHERE name = '" tenant  \
    "'), '{\"slots\": [" nodes "], \"lanes\": [" lanes "], \"gpus\": 2, " \
    "\"len_us\": 3600000000, \"total_micro\": " total "}', now())"
#define ON1 "{\"node_id\": 1, \"price_micro\": 1000000000}"
#define ON2 "{\"node_id\": 2, \"price_micro\": 500000000}"
    expect("{\"micro\": 240000000, \"rate_ppm\": 120000}",
           QUOTED("lab", ON1, "", "2000000000"));
    expect("{\"micro\": 320000000, \"rate_ppm\": null}",
           QUOTED("lab", ON1 "," ON2, "", "3000000000"));
    expect("{\"micro\": 92000000, \"rate_ppm\": null}", /* the rest is the path's */
           QUOTED("lab", ON2, "{}", "1100000000"));
    expect("{\"micro\": 0, \"rate_ppm\": 0}",
           QUOTED("abroad", ON1 "," ON2, "{}", "3100000000"));
}
END_TEST

/* ---- random histories ---- */

enum { TENANTS = 3, CLASSES = 3, STEPS = 60, LEASES = STEPS };
static const char *const class_names[CLASSES] = {"standard", "reduced", "outside"};

/* What is not invoiced yet, by tenant and class, and the rates in force. */
struct naive {
    unsigned seed;
    int64_t open[TENANTS][CLASSES], ppm[CLASSES];
    bool any[TENANTS][CLASSES];
    int leases, owner[LEASES];
};

static int upto(struct naive *m, int n)
{
    return rand_r(&m->seed) % n;
}

static int64_t rounded(int64_t quantity, int64_t price, int64_t unit)
{
    __int128 twice = (__int128)2 * quantity * price + unit;
    return (int64_t)(twice / (2 * (__int128)unit));
}

/* A lease on one node or both, used for any part of its time. Tenant m2 is outside. */
static void use_some(struct naive *m)
{
    int tenant = upto(m, TENANTS), nodes = 1 + upto(m, 3), n = m->leases;
    int64_t price = 1 + upto(m, 2000000000);
    m->owner[m->leases++] = tenant;
    ledger_sql(
        &l,
        "SELECT t.book(lpad('%d', 32, 'a')::uuid, 'm%d', now() - interval '3 h',"
        " now() - interval '1 h', (ARRAY[m.a, m.b])[%d:%d], (ARRAY[%d,%d])[1:%d], "
        "(ARRAY[1,1])[1:%d], %lld) FROM (SELECT min(id) AS a, max(id) AS b FROM "
        "ng.node WHERE name IN ('big1', 'big2')) m",
        n, tenant, nodes == 2 ? 2 : 1, nodes == 1 ? 1 : 2, n, n, nodes == 3 ? 2 : 1,
        nodes == 3 ? 2 : 1, (long long)price);
    for (int i = 0; i < 2; i++) {
        int class = tenant == 2 ? 2 : i;
        int64_t ms = upto(m, 7200000);
        if ((nodes & (i + 1)) == 0)
            continue;
        ledger_sql(&l,
                   "SELECT t.receipt(lpad('%d', 32, 'a')::uuid, id, 1, 'ready', 0), "
                   "t.receipt(lpad('%d', 32, 'a')::uuid, id, 2, 'teardown', %lld) FROM "
                   "ng.node WHERE name = 'big%d'",
                   n, n, (long long)ms, i + 1);
        int64_t amount = rounded(ms, price, 3600000);
        m->open[tenant][class] += amount;
        m->any[tenant][class] |= amount > 0;
    }
    ledger_once(&l);
}

static void invoice_all(struct naive *m, int tenant)
{
    struct strbuf want = STRBUF_INIT;
    char name[8];
    for (int c = 0; c < CLASSES; c++) {
        if (!m->any[tenant][c])
            continue;
        int64_t base = rounded(m->open[tenant][c], 1, 1000000) * 1000000;
        int64_t tax = rounded(base, m->ppm[c], INT64_C(1000000000000)) * 1000000;
        strbuf_addf(&want, "%s %lld %lld %lld\n", class_names[c], (long long)m->ppm[c],
                    (long long)base, (long long)tax);
    }
    memset(m->open[tenant], 0, sizeof(m->open[tenant]));
    memset(m->any[tenant], 0, sizeof(m->any[tenant]));
    int64_t before = ledger_int(&l, "SELECT count(*) FROM ng.invoice");
    snprintf(name, sizeof(name), "m%d", tenant);
    invoice(name, 0);
    char *got = ledger_text(
        &l,
        "SELECT coalesce(string_agg(concat_ws(' ', class, rate_ppm, base_micro, "
        "tax_micro) || E'\\n', '' ORDER BY array_position(ARRAY['standard', 'reduced', "
        "'outside'], class::text)), '') FROM ng.invoice_tax WHERE number = (SELECT "
        "number FROM ng.invoice ORDER BY number DESC LIMIT 1) AND (SELECT count(*) "
        "FROM ng.invoice) > %lld",
        (long long)before);
    ck_assert_str_eq(got, want.len > 0 ? strbuf_str(&want) : "");
    free(got);
    strbuf_done(&want);
}

/* Rates change when nothing is open: an invoice spans no change. */
static void change_rates(struct naive *m)
{
    for (int t = 0; t < TENANTS; t++)
        invoice_all(m, t);
    for (int c = 0; c < 2; c++) {
        int64_t ppm = 10000 * (1 + upto(m, 10)) + 250 + 500 * c; /* never the other's */
        if (ppm == m->ppm[c])
            continue;
        m->ppm[c] = ppm;
        ledger_sql(&l,
                   "SELECT api.tax_rate_set('{\"class\": \"%s\", \"rate_ppm\": %lld}', "
                   "'a')",
                   class_names[c], (long long)ppm);
    }
}

/* Some of a lease that is invoiced, or all that is left of it. */
static void refund_some(struct naive *m, int n)
{
    char *left = ledger_text(
        &l,
        "SELECT captured_micro - refunded_micro - credited_micro FROM ng.reservation "
        "WHERE id = lpad('%d', 32, 'a')::uuid AND EXISTS (SELECT FROM ng.invoice_line "
        "WHERE reservation_id = lpad('%d', 32, 'a')::uuid)",
        n, n);
    int64_t rest = strtoll(left, NULL, 10);
    free(left);
    if (rest <= 0)
        return;
    ledger_sql(&l,
               "SELECT api.refund(lpad('%d', 32, 'a')::uuid, %lld, 'slow', 'market', "
               "'a', NULL, NULL, 'admin')",
               n,
               (long long)(m == NULL || upto(m, 3) == 0
                               ? rest
                               : 1 + rand_r(&m->seed) %
                                         (rest < 1000000000 ? rest : 1000000000)));
}

/* Of each invoice and class, what is given back so far and its tax: the rate of it, to
 * a minor unit, and never more than was taken. */
static void check_notes(bool all)
{
    char *wrong = ledger_text(
        &l,
        "SELECT coalesce(string_agg(number || ' ' || class, ', '), '') FROM (SELECT "
        "i.*, n.base, n.tax FROM ng.invoice_tax i JOIN ng.invoice USING (number) JOIN "
        "ng.tenant t ON t.id = tenant_id AND t.name ~ '^m[0-2]$' LEFT JOIN (SELECT "
        "c.invoice, x.class, sum(x.base_micro) AS base, sum(x.tax_micro) AS tax FROM "
        "ng.credit_note c JOIN ng.credit_note_tax x USING (number) GROUP BY 1, 2) n ON "
        "n.invoice = number AND n.class = i.class) x WHERE tax > tax_micro OR abs(tax "
        "- "
        "base * rate_ppm / 1000000) > 1000000 OR %s",
        all ? "tax IS DISTINCT FROM tax_micro" : "false");
    ck_assert_str_eq(wrong, "");
    free(wrong);
}

START_TEST(histories)
{
    struct naive m = {.seed = seed, .ppm = {120000, 80000, 0}};
    ledger_sql(&l, "SELECT t.tenant('m0', 'Asia/Tokyo', 1000000000000), t.tenant('m1', "
                   "'UTC', 1000000000000), t.tenant('m2', 'UTC', 1000000000000), "
                   "t.node('big1', 'tokyo', 'acme', 60), t.node('big2', 'tokyo', "
                   "'zero', 60)");
    ledger_sql(&l, "UPDATE ng.node SET gpu_model = 'A10' WHERE name = 'big2'");
    ledger_sql(&l, "UPDATE ng.sla_terms SET gap = '1000 days'"); /* no credits */
    ledger_sql(&l, "SELECT api.tax_rule_set('{\"tenant\": \"m2\", \"class\": "
                   "\"outside\"}', 'a')");
    for (int step = 0; step < STEPS; step++) {
        int what = upto(&m, 10);
        if (what < 6)
            use_some(&m);
        else if (what < 8)
            invoice_all(&m, upto(&m, TENANTS));
        else if (what < 9)
            change_rates(&m);
        else if (m.leases > 0)
            refund_some(&m, upto(&m, m.leases));
        check_notes(false);
    }
    for (int t = 0; t < TENANTS; t++)
        invoice_all(&m, t);
    ledger_check(&l);
    for (int n = 0; n < m.leases; n++)
        refund_some(NULL, n);
    check_notes(true);
    ledger_check(&l);
}
END_TEST

/* Said again, a rate or a rule changes nothing. */
START_TEST(said_again)
{
    expect("t", "SELECT (SELECT count(*) FROM ng.tax_rate) + (SELECT count(*) FROM "
                "ng.tax_rule) = (SELECT jsonb_array_length(r->'rates') + "
                "jsonb_array_length(r->'rules') FROM api.tax_rate_set('{\"class\": "
                "\"reduced\", \"rate_ppm\": 80000}', 'b') r)");
    expect("2", "SELECT jsonb_array_length(api.tax_rule_set('{\"tenant\": \"abroad\", "
                "\"class\": \"zero\"}', 'b')->'rules')");
}
END_TEST

static void set_rate(int ppm, int year)
{
    ledger_sql(&l,
               "SELECT api.tax_rate_set('{\"class\": \"standard\", \"rate_ppm\": %d, "
               "\"from\": \"%d-01-01T00:00:00Z\"}', 'b')",
               ppm, year);
}
static void set_class(const char *class, int year)
{
    ledger_sql(&l,
               "SELECT api.tax_rule_set('{\"tenant\": \"later\", \"class\": \"%s\", "
               "\"from\": \"%d-01-01T00:00:00Z\"}', 'b')",
               class, year);
}

/* What is set for later holds until the next that is set, and is changed and taken back
 * before it begins: a year mistyped is no lasting harm. */
START_TEST(taken_back_before_it_begins)
{
#define RATES                                                                        \
    "SELECT string_agg(concat_ws(' ', rate_ppm, to_char(lower(during), 'YYYY'), "    \
    "to_char(upper(during), 'YYYY')), ', ' ORDER BY during) FROM ng.tax_rate WHERE " \
    "class = 'standard' AND (upper_inf(during) OR upper(during) > now())"
#define CLASSES                                                                  \
    "SELECT coalesce(string_agg(concat_ws(' ', class, to_char(lower(during), "   \
    "'YYYY'), to_char(upper(during), 'YYYY')), ', ' ORDER BY during), '') FROM " \
    "ng.tax_rule WHERE tenant_id = (SELECT id FROM ng.tenant WHERE name = 'later')"
    char *before = testdb_one(l.pg, RATES);
    char *year = ledger_text(&l, "SELECT to_char(now(), 'YYYY')");
    char *want = xasprintf(
        "120000 %s 2100, 130000 2100 2150, 150000 2150 2200, 140000 2200", year);
    set_rate(130000, 2100);
    set_rate(140000, 2200);
    set_rate(150000, 2150);
    expect(want, RATES);
    set_rate(150000, 2150);
    set_rate(150000, 2160); /* it is so then */
    expect(want, RATES);
    free(want);
    want = xasprintf("120000 %s 2100, 130000 2100 2150, 170000 2150 2200, 140000 2200",
                     year);
    set_rate(170000, 2150);
    expect(want, RATES);
    free(want);
    want = xasprintf("120000 %s 2100, 130000 2100 2200, 140000 2200", year);
    set_rate(130000, 2150);
    expect(want, RATES);
    set_rate(130000, 2200);
    set_rate(120000, 2100);
    expect(before, RATES);
    free(want);
    free(year);
    free(before);

    set_class("zero", 2100);
    set_class("exempt", 2200);
    set_class("reduced", 2150);
    expect("zero 2100 2150, reduced 2150 2200, exempt 2200", CLASSES);
    set_class("zero", 2150);
    set_class("zero", 2200);
    expect("zero 2100", CLASSES);
    set_class("outside", 2100);
    set_class("outside", 2050);
    set_class("standard", 2080);
    expect("outside 2050 2080, standard 2080 2100, outside 2100", CLASSES);
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
    Suite *suite = suite_create("tax");
    TCase *tc = tcase_create("tax");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, set_up);
    tcase_add_test(tc, once_per_rate);
    tcase_add_test(tc, refunds_go_back_per_rate);
    tcase_add_test(tc, early_refunds_lessen_each_rate);
    tcase_add_test(tc, a_tenant_abroad);
    tcase_add_test(tc, a_period_ends_where_taxes_change);
    tcase_add_test(tc, due_in_parts);
    tcase_add_test(tc, report);
    tcase_add_test(tc, credits_and_notes);
    tcase_add_test(tc, quotes);
    tcase_add_loop_test(tc, sums_cannot_be_broken, 0,
                        (int)(sizeof(attacks) / sizeof(attacks[0])));
    tcase_add_test(tc, said_again);
    tcase_add_test(tc, taken_back_before_it_begins);
    tcase_add_test(tc, histories);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    ledger_close(&l);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
