/* Each report on a small market made by hand, with the answer worked out on paper; what
 * a report takes as arguments; what its role may do; and docs/reports.md against the
 * database. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/fsx.h"
#include "client/lib/strbuf.h"
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

/* Day D: the 10th of last month. t.d(h) is h hours after it began. */
static const char day_d[] =
    "CREATE FUNCTION t.d(h numeric DEFAULT 0) RETURNS timestamptz LANGUAGE sql AS $$"
    "  SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month' + "
    "interval '9 days') AT TIME ZONE 'UTC' + h * interval '1 hour' $$;"
    /* h hours after the last Sunday of a week that is over began. */
    "CREATE FUNCTION t.s(h numeric) RETURNS timestamptz LANGUAGE sql AS $$ SELECT "
    "date_trunc('week', now(), 'UTC') - interval '1 day' + h * interval '1 hour' $$;"
    "CREATE FUNCTION t.use(p_at timestamptz, p_tenant text, p_node text, p_spot "
    "boolean, hours numeric, jpy numeric, fee numeric, late bigint) RETURNS void "
    "LANGUAGE sql AS $$ INSERT INTO ng.usage (at, used_at, quantity_ms, amount_micro, "
    "fee_micro, late_ms, reservation_id, tenant_id, provider_id, site_id, node_id, "
    "spot, currency, gpu_model) SELECT p_at, p_at, hours * 3600000, jpy * 1000000, fee "
    "* 1000000, late, md5(p_at || p_tenant || p_node || p_spot)::uuid, t.id, "
    "n.provider_id, n.site_id, n.id, p_spot, 'JPY', n.gpu_model FROM ng.tenant t, "
    "ng.node n WHERE t.name = p_tenant AND n.name = p_node $$;"
    /* A reservation of a node's GPUs [first, first + count) as it stands when it is
     * over.
     */
    "CREATE FUNCTION t.resv(p_id integer, p_tenant text, p_node text, first integer, "
    "count integer, made timestamptz, since timestamptz, till timestamptz, p_spot "
    "boolean) RETURNS void LANGUAGE sql AS $$ INSERT INTO ng.reservation (id, "
    "tenant_id, state, created_at, during, request, currency, per_hour_micro, "
    "total_micro, effective_micro, fee_ppm, idem_key, idem_hash, spot) SELECT "
    "lpad(p_id::text, 32, '0')::uuid, t.id, 'confirmed', made, tstzrange(since, till), "
    "'{}', 'JPY', 0, 0, 0, 0, 'r' || p_id, t.hash('r' || p_id), p_spot FROM ng.tenant "
    "t WHERE t.name = p_tenant; INSERT INTO ng.booking (reservation_id, node_id, "
    "site_id, gpus, during, epoch, per_gpu_hour_micro, notice_us) SELECT "
    "lpad(p_id::text, 32, '0')::uuid, n.id, n.site_id, int4range(lower(gpus) + first, "
    "lower(gpus) + first + count), tstzrange(since, till), 1, 1, CASE WHEN p_spot THEN "
    "60000000 END FROM ng.node n WHERE n.name = p_node $$;";

static const char plant_use[] =
    "SELECT t.use(t.d(1), 'ann', 'n1', false, 10, 1000, 50, 0),"
    " t.use(t.d(1), 'bob', 'n1', false, 30, 3000, 150, 400000),"
    " t.use(t.d(5), 'ann', 'z1', false, 20, 1000, 0, 0),"
    " t.use(t.d(5), 'bob', 'n1', true, 10, 400, 20, 0),"
    " t.use(t.d(26), 'ann', 'n1', false, 10, 1200, 60, 0),"
    /* three weeks into the month before */
    " t.use(t.d() - interval '20 days', 'ann', 'n1', false, 10, 1000, 50, 0)";

static const char plant_orders[] =
    "SELECT t.resv(1, 'ann', 'n1', 0, 2, t.d() + interval '1 min', t.d(1), t.d(3), "
    "false),"
    " t.resv(2, 'bob', 'z1', 0, 4, t.d(2), t.d(2), t.d(3), true),"
    " t.resv(3, 'bob', 'n1', 2, 1, t.d(1), t.d(2), t.d(3), false),"
    " t.resv(4, 'bob', 'k1', 2, 2, now(), now() - interval '1 h', now() + interval '1 "
    "h', false);"
    "INSERT INTO ng.quote (id, tenant_id, created_at, expires_at, request, plan, hash) "
    "SELECT lpad(i::text, 32, '0')::uuid, t.id, t.d(), t.d(1), '{}', '{}', "
    "t.hash('q') FROM ng.tenant t, generate_series(1, 3) i WHERE t.name = 'ann';"
    "BEGIN; SET LOCAL session_replication_role = replica;"
    "INSERT INTO ng.dispute (reservation_id, reason, opened_by) VALUES "
    "(lpad('1', 32, '0')::uuid, 'slow', 'root');"
    "UPDATE ng.reservation SET quote_id = lpad('2', 32, '0')::uuid, data = "
    "'[{\"name\": \"set\", \"site\": \"osaka\", \"rtt_us\": 9000}]' WHERE id = "
    "lpad('1', 32, '0')::uuid;"
    "UPDATE ng.reservation SET preempted_by = 'firm demand', preempted_at = t.d(3) "
    "WHERE id = lpad('2', 32, '0')::uuid;"
    "UPDATE ng.reservation SET state = 'failed', fault = 'node_lost', ended_at = "
    "t.d(3), during = tstzrange(t.d(2), t.d(6)) WHERE id = lpad('3', 32, '0')::uuid;"
    "INSERT INTO ng.meter (reservation_id, node_id, seq, gpu_ms) SELECT r.id, n.id, 1, "
    "CASE WHEN r.idem_key = 'r1' THEN 14400000 ELSE 1800000 END FROM ng.reservation r, "
    "ng.node n WHERE n.name = 'n1' AND r.idem_key IN ('r1', 'r3');"
    "INSERT INTO ng.receipt (reservation_id, node_id, seq, hash, kind, during, gpu_ms, "
    "gaps, jws, received_at) SELECT r.id, n.id, 1, t.hash('x'), 'interval', "
    "tstzrange(t.d(1), t.d(2)), 0, jsonb_build_array(jsonb_build_object('from', "
    "ng.log_time(t.d(1)), 'to', ng.log_time(t.d(1.5)), 'why', 'reboot'), "
    "'{\"from\": \"nonsense\", \"to\": 7}'::jsonb), 'x', t.d(2) FROM "
    "ng.reservation r, ng.node n WHERE n.name = 'n1' AND r.idem_key = 'r1';"
    /* 2 minutes old, and what is before it is missing */
    "INSERT INTO ng.receipt (reservation_id, node_id, seq, hash, kind, during, gpu_ms, "
    "jws, received_at) SELECT r.id, n.id, 2, t.hash('y'), 'interval', "
    "tstzrange(now(), now()), 7200000, 'x', now() - interval '2 min' FROM "
    "ng.reservation r, ng.node n WHERE n.name = 'k1' AND r.idem_key = 'r4';"
    "INSERT INTO ng.receipt_due SELECT reservation_id, node_id, seq, received_at FROM "
    "ng.receipt WHERE seq = 2;"
    "COMMIT;"
    "INSERT INTO ng.match_log (at, kind, outcome, match_us, gpu_model, gpus, "
    "duration_s, why) SELECT t.s(12), 'offers', 'ok', n, '', 1, 60, '' "
    "FROM generate_series(1, 1000) n;"
    "INSERT INTO ng.match_log (at, kind, outcome, match_us, gpu_model, gpus, "
    "duration_s, why) SELECT t.s(23.99), CASE WHEN n = 1 THEN 'quote' "
    "ELSE 'reserve' END, 'no_fit', 5, 'H100', 4, 1800, CASE WHEN n < 3 THEN 'price' "
    "ELSE 'rtt' END FROM generate_series(1, 5) n;"
    "INSERT INTO ng.match_log (at, kind, outcome, match_us, gpu_model, gpus, "
    "duration_s) VALUES (t.s(23), 'reserve', 'ok', 5, 'H100', 2, 3600)";

/* What is used of model F: 10 GPU-hours on working days, 2 at week-ends, every day for
 * ten weeks: a rule that knows weeks makes no error. */
static const char plant_weeks[] =
    "SELECT t.use(d + interval '3 h', 'ann', 'f1', false, CASE WHEN extract(isodow "
    "FROM d AT TIME ZONE 'UTC') < 6 THEN 10 ELSE 2 END, 0, 0, 0) FROM "
    "generate_series(date_trunc('day', now(), 'UTC') - interval '70 days', "
    "date_trunc('day', now(), 'UTC') - interval '1 day', interval '1 day') d";

/* osaka: node r1 of 8 GPUs, there since 2 1/2 hours before the present hour; 2 of them
 * booked for the middle half of an hour and all of the next but 15 minutes. r2 and r3
 * now. */
static const char plant_capacity[] =
    "SELECT t.node('r1', 'osaka', 'acme', 8), t.node('r2', 'osaka', 'acme', 4), "
    "t.node('r3', 'osaka', 'acme', 4);"
    "UPDATE ng.node SET enrolled_at = date_trunc('hour', now()) - interval '150 min', "
    "gpu_model = 'R' WHERE name = 'r1';"
    "UPDATE ng.node SET gpu_model = 'B', offered = 7 WHERE name = 'r2';"
    "UPDATE ng.node SET gpu_model = 'B', state = 'lost' WHERE name = 'r3';"
    "SELECT t.resv(11, 'ann', 'r1', 0, 2, now(), date_trunc('hour', now()) - interval "
    "'105 min', date_trunc('hour', now()) - interval '15 min', false),"
    /* now: 2 of r2's, 1 of r3's */
    " t.resv(12, 'ann', 'r2', 0, 2, now(), now() - interval '1 s', now() + interval '6 "
    "h', false), t.resv(13, 'ann', 'r3', 0, 1, now(), now() - interval '1 s', now() + "
    "interval '6 h', false);"
    "UPDATE ng.roll_state SET done_to = now() - interval '3 h' WHERE kind = "
    "'capacity'; UPDATE ng.roll_state SET done_to = t.d() WHERE kind = 'orders'";

static void plant(void)
{
    testdb_sql(l.pg, day_d);
    testdb_sql(
        l.pg, "SELECT api.site_create('osaka', 'Osaka', 34.7, 135.5, 'jp', NULL, 'a', "
              "NULL, NULL), api.site_create('kyoto', 'Kyoto', 35, 135.7, 'jp', NULL, "
              "'b', NULL, NULL), t.tenant('ann', 'UTC', 1000000000), t.tenant('bob', "
              "'UTC', 1000000000), t.node('n1', 'tokyo', 'acme', 8), t.node('z1', "
              "'osaka', 'zero', 8), t.node('k1', 'kyoto', 'acme', 8), t.node('k2', "
              "'kyoto', 'acme', 4), t.node('f1', 'kyoto', 'zero', 8);"
              "UPDATE ng.node SET gpu_model = 'A100' WHERE name = 'z1'; UPDATE ng.node "
              "SET gpu_model = 'F' WHERE name = 'f1'");
    testdb_sql(l.pg, plant_use);
    testdb_sql(l.pg, plant_orders);
    testdb_sql(l.pg, plant_weeks);
    testdb_sql(l.pg, plant_capacity);
    testdb_sql(
        l.pg, "SELECT api.path_create('osa-tyo', 'acme', 'osaka', 'tokyo', 4, 1000000, "
              "NULL, false, 1000000, 0, 'a', NULL, NULL);"
              "INSERT INTO ng.path_booking (reservation_id, path_id, lanes, during, "
              "per_lane_hour_micro, fee_ppm) SELECT lpad('1', 32, '0')::uuid, id, "
              "int4range(lower(lanes), lower(lanes) + 2), tstzrange(t.d(1), t.d(3)), "
              "1000000, 50000 FROM ng.path;"
              "INSERT INTO ng.dataset (tenant_id, name, endpoint) SELECT id, n, 'x:1' "
              "FROM ng.tenant, unnest(ARRAY['kept', 'gone']) n WHERE ng.tenant.name = "
              "'ann'; UPDATE ng.dataset SET removed_at = now() WHERE name = 'gone';"
              "INSERT INTO ng.rtt SELECT n.id, d.id, 100 * k, 110 * k, 150 * k, 20, "
              "now() - k * interval '10 s' FROM (SELECT id, row_number() OVER (ORDER "
              "BY id) AS k FROM ng.node WHERE name IN ('r1', 'r2', 'r3')) n, "
              "ng.dataset d;"
              "SELECT ng.post('sla', ng.account_of('sla_expense', NULL, NULL, 'JPY'), "
              "ng.account_of('wallet', id, NULL, 'JPY'), 'JPY', 10000000, NULL, "
              "'sla/1') FROM ng.tenant WHERE name = 'ann';"
              /* Sent, confirmed, come back for a fee of 2 that the market bears. */
              "INSERT INTO ng.payout (provider_id, currency, amount_micro, "
              "requested_by) SELECT id, 'JPY', 9000000, 'a' FROM ng.provider WHERE "
              "name = 'acme'; SELECT ng.post(k, ng.account_of(dr, NULL, NULL, 'JPY'), "
              "ng.account_of(cr, NULL, NULL, 'JPY'), 'JPY', yen * 1000000, NULL, ref) "
              "FROM (VALUES ('payout', 'rounding', 'payout_clearing', 9, 'payout/1'), "
              "('payout_done', 'payout_clearing', 'bank', 9, 'payout/1'), "
              "('payout_back', 'bank', 'payout_clearing', 9, 'payout/1/done'), "
              "('payout_back', 'payout_clearing', 'rounding', 9, 'payout/1'), "
              "('payout_fee', 'fee', 'bank', 2, 'payout/1')) x(k, dr, cr, yen, ref)");
    testdb_sql(
        l.pg,
        "BEGIN; INSERT INTO ng.invoice SELECT 'INV-2001-000001', id, 'JPY', "
        "'[2001-01-01,2001-02-01)', t.d(), 300000000, NULL, 28000000, 328000000, '{}' "
        "FROM ng.tenant WHERE name = 'bob'; INSERT INTO ng.invoice_line VALUES "
        "('INV-2001-000001', 1, '', NULL, 0, 200000000, 'standard'), "
        "('INV-2001-000001', 2, '', NULL, 0, 100000000, 'reduced'); INSERT INTO "
        "ng.invoice_tax VALUES ('INV-2001-000001', 'standard', 100000, 200000000, "
        "20000000), ('INV-2001-000001', 'reduced', 80000, 100000000, 8000000); SELECT "
        "ng.post('tax', ng.account_of('receivable', t.id, NULL, 'JPY'), "
        "ng.account_of('tax_output', NULL, NULL, 'JPY'), 'JPY', x.tax_micro, NULL, "
        "x.number || '/' || x.class || '/receivable') FROM ng.tenant t, ng.invoice_tax "
        "x WHERE t.name = 'bob'; COMMIT");
    ledger_once(&l);
}

/* One row of the report: its columns, joined by spaces. */
static const struct {
    const char *want, *columns, *report, *where;
} known[] = {
    /* what there is */
    {"4 0 0, 8 1.5 18.8, 8 1.5 18.8",
     "string_agg(concat_ws(' ', capacity, booked, utilisation), ', ' ORDER BY hour)",
     "utilisation_hourly",
     "site = 'osaka' AND gpu_model = 'R' AND hour < "
     "date_trunc('hour', now())"},
    {"t", "abs(capacity - 8 * extract(epoch FROM fresh_at - hour) / 3600) < 0.1",
     "utilisation_hourly, ng.roll_state",
     "kind = 'capacity' AND site = 'osaka' AND gpu_model = "
     "'R' AND hour = date_trunc('hour', now())"},
    {"2 1 8 7 3 1",
     "concat_ws(' ', nodes, nodes_up, gpus, offered, booked_now, idle_now)",
     "idle_capacity", "site = 'osaka' AND gpu_model = 'B'"},
    /* k1: 2 of 8 booked in the middle, runs of 2 and 4; k2: 4, whole */
    {"10 2 1 4 5 2 0 60.0",
     "concat_ws(' ', idle, nodes, whole_nodes, longest_run, fits_2, fits_4, fits_8, "
     "fragmentation)",
     "fragmentation", "site = 'kyoto' AND gpu_model = 'H100'"},
    {"40.000 10.000 80.0", "concat_ws(' ', firm, spot, coverage)", "reserved_coverage",
     "day = t.d() AND site = 'tokyo' AND gpu_model = 'H100'"},
    {"28 t t 0.0 0.0 28",
     "concat_ws(' ', count(*), bool_and(forecast = low AND low = high), bool_and("
     "forecast = CASE WHEN extract(isodow FROM day AT TIME ZONE 'UTC') < 6 THEN 10 "
     "ELSE "
     "2 END), max(error), max(naive_error), max(tested))",
     "forecast", "gpu_model = 'F'"},
    {"3 1 33.33 30.000 400.0", "concat_ws(' ', receipts, late, share, late_use, worst)",
     "late_usage", "day = t.d() AND provider = 'acme' AND site = 'tokyo'"},
    {"bob kyoto k1 1 2.000 receipt 1 is missing",
     "string_agg(concat_ws(' ', tenant, site, node, receipts, used, why), ', ')",
     "unbilled", "true"},
    {"osaka kept ann 3 100 220 450 60 t",
     "concat_ws(' ', site, dataset, tenant, nodes, min, p50, p99, samples, "
     "age BETWEEN 10 AND 100)",
     "rtt_matrix", "true"},
    {"osaka tokyo 1 4.000 0 9000",
     "string_agg(concat_ws(' ', data_site, site, reservations, booked, abroad, rtt), "
     "', ')",
     "interregion_flow", "true"},
    /* a failed one promised 4 hours, not the one that its booking was cut to */
    {"2 1 0 8.000 4.500 0.000 0.000 56.25",
     "concat_ws(' ', reservations, failed, replaced, promised, delivered, given_back, "
     "ended_early, reliability)",
     "provider_reliability", "provider = 'acme' AND site = 'tokyo'"},
    {"osa-tyo acme osaka tokyo 1 0 4.000 0.000 0 0",
     "concat_ws(' ', path, provider, site, to_site, bookings, failed, booked, served, "
     "gross::real, fee::real)",
     "path_use", "day = t.d()"},
    /* what was asked for; a bucket's middle is within 3.2 % */
    {"1000 t t t t",
     "concat_ws(' ', requests, abs(p50 - 500.5) < 16, abs(p95 - 950) < 31, abs(p99 - "
     "990) < 32, abs(p999 - 999) < 32)",
     "match_latency", "day = t.s(0) AND kind = 'offers'"},
    {"1 5 5 5 5", "concat_ws(' ', requests, p50, p95, p99, p999)", "match_latency",
     "kind = 'quote'"},
    {"rtt 3 12 6.000, price 2 8 4.000",
     "string_agg(concat_ws(' ', top_reason, requests, gpus, gpu_hours), ', ' ORDER BY "
     "requests DESC)",
     "unmet_demand", "day = t.s(0)"},
    {"7 23 6 22 12.000 10.000", /* a Sunday */
     "string_agg(concat_ws(' ', weekday, hour, requests, gpus, asked, unmet), ', ')",
     "demand_heatmap", "true"},
    {"firm 2 8 t t 50.0",
     "concat_ws(' ', kind, reservations, round(booked), abs(p50 - 3540) < 114, abs(p90 "
     "- 3600) < 116, within_hour)",
     "lead_time", "day = t.d() AND kind = 'firm'"},
    {"ann 3 1 33.3 60.0",
     "concat_ws(' ', tenant, quotes, reserved, conversion, mean_wait)", "conversion",
     "day = t.d()"},
    {"confirmed firm 1 2, confirmed spot 1 4, failed firm 1 1",
     "string_agg(concat_ws(' ', state, kind, reservations, gpus), ', ' ORDER BY state, "
     "kind)",
     "reservations", "day = t.d()"},
    {"osaka 1 1 100.0 3600",
     "concat_ws(' ', site, reservations, preempted, rate, mean_run)", "preemption",
     "day = t.d()"},
    {"gap: reboot 1 1 1.000, node_lost 1 1 3.000",
     "string_agg(concat_ws(' ', breach, breaches, reservations, lost), ', ' ORDER BY "
     "breach)",
     "sla_breaches", "day = t.d() AND site = 'tokyo' AND provider = 'acme'"},
    /* money */
    {"3 50.000 4400 220 4180",
     "concat_ws(' ', reservations, used, gross::real, fee::real, revenue::real)",
     "provider_revenue", "day = t.d() AND provider = 'acme' AND site = 'tokyo'"},
    {"acme 4400 220 5.000, zero 1000 0 0.000",
     "string_agg(concat_ws(' ', provider, gross::real, fee::real, take_rate), ', ' "
     "ORDER BY provider)",
     "take_rate", "day = t.d()"},
    /* of 7,600: ann 4,200, bob 3,400; ann's use: 50 and the weeks' */
    {"ann 4200 55.26 4, bob 3400 44.74 3",
     "string_agg(concat_ws(' ', tenant, spent::real, share, reservations), ', ' ORDER "
     "BY spent DESC)",
     "top_tenants", "true"},
    /* acme 6,600 and zero 1,000: 86.84^2 + 13.16^2; 55.26^2 + 44.74^2 */
    {"provider 2 7715 86.84 100.00, tenant 2 5055 55.26 100.00",
     "string_agg(concat_ws(' ', side, parties, hhi, top_1, top_3), ', ' ORDER BY side)",
     "concentration", "true"},
    {"0 1 1 100.0",
     "string_agg(concat_ws(' ', month, tenants, active, retention), ', ')", "retention",
     "cohort = date_trunc('month', t.d(), 'UTC')"},
    {"0 t t", "concat_ws(' ', min(month), max(month) >= 2, bool_and(retention = 100))",
     "retention", "cohort < date_trunc('month', t.d(), 'UTC')"},
    {"40.000 100.000000 100.00, 10.000 120.000000 120.00",
     "string_agg(concat_ws(' ', used, price, index), ', ' ORDER BY day)", "price_index",
     "gpu_model = 'H100' AND day >= t.d()"},
    {"10.000 100.000000 40.000000 60.00",
     "concat_ws(' ', spot, firm_price, spot_price, discount)", "spot_discount",
     "day = t.d()"},
    {"ann sla_credit market 1 10",
     "concat_ws(' ', tenant, what, borne_by, documents, amount::real)", "refunds",
     "true"},
    {"5400 220 0 0 0 220 4.074",
     "concat_ws(' ', gross::real, fee::real, fee_back::real, sla::real, promo::real, "
     "margin::real, of_gross)",
     "margin", "day = t.d()"},
    {"reduced 8.00 1 100 8 8, standard 10.00 1 200 20 20",
     "string_agg(concat_ws(' ', class, rate, invoices, base::real, tax::real, "
     "due::real), ', ' ORDER BY class)",
     "tax", "day = t.d()"},
    {"acme 1 9 0 1 9 2",
     "concat_ws(' ', provider, payouts, sent, confirmed, returns, returned, bank_fees)",
     "payouts", "true"},
    {"0 2 10 -12", "concat_ws(' ', fee::real, fee_back::real, sla::real, margin::real)",
     "margin", "day = date_trunc('day', now(), 'UTC')"},
    {"capacity, match, money, orders, use", "string_agg(rollup, ', ' ORDER BY rollup)",
     "freshness", "fresh_as_of > now() - interval '10 min' AND marked = 0"},
};

START_TEST(known_answers)
{
    plant();
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        char sql[1000];
        snprintf(sql, sizeof sql, "SELECT %s FROM %s%s WHERE %s", known[i].columns,
                 known[i].report[0] == '(' ? "" : "report.", known[i].report,
                 known[i].where);
        expect(known[i].want, sql);
    }
}
END_TEST

/* Leases of four hours, two of them past, of one GPU a node. g1: the tenant gives it
 * back now. g2: its node ended it after an hour, unasked. g3 and g4, a gang: g4 leaves
 * it after an hour, the tenant gives it back now. */
START_TEST(early_ends)
{
    testdb_sql(
        l.pg,
        "SELECT api.site_create('nara', 'Nara', 34.7, 135.8, 'jp', NULL, 'a', NULL, "
        "NULL), t.tenant('eve', 'UTC', 1000000000000); SELECT t.node('g1', 'nara', "
        "'acme', 1), t.node('g2', 'nara', 'acme', 1), t.node('g3', 'nara', 'acme', 1), "
        "t.node('g4', 'nara', 'acme', 1);"
        "CREATE TABLE t.zero AS SELECT now() AS at;"
        "CREATE TABLE t.early AS SELECT n, lpad((90 + n)::text, 32, '0')::uuid AS id, "
        "t.book(lpad((90 + n)::text, 32, '0')::uuid, 'eve', at - interval '2 h', at + "
        "interval '2 h', (SELECT array_agg(id ORDER BY name) FROM ng.node WHERE name = "
        "ANY (nodes)), zeros, ones, 1000000) AS got FROM t.zero, (VALUES (1, "
        "'{g1}'::text[], '{0}'::integer[], '{1}'::integer[]), (2, '{g2}', '{0}', "
        "'{1}'), (3, '{g3,g4}', '{0,0}', '{1,1}')) x(n, nodes, zeros, ones)");
    expect("ok ok ok", "SELECT string_agg(got, ' ') FROM t.early");
    testdb_sql(
        l.pg,
        "CREATE FUNCTION t.run(p_n integer, p_node text, hours integer) RETURNS void "
        "LANGUAGE sql AS $$ SELECT t.receipt(e.id, k.id, 1, 'ready', 0, at - interval "
        "'2 h'), t.receipt(e.id, k.id, 2, 'teardown', 3600000 * hours, at - (2 - "
        "hours) * interval '1 h') FROM t.zero, t.early e, ng.node k WHERE e.n = p_n "
        "AND k.name = p_node $$;"
        "SELECT t.run(2, 'g2', 1), t.run(3, 'g4', 1);"
        "SELECT api.resv_cancel(v.tenant_id, v.id, 'done', false, ng.us(at)) FROM "
        "t.zero, ng.reservation v JOIN t.early e ON e.id = v.id WHERE n IN (1, 3);"
        "SELECT t.run(1, 'g1', 2), t.run(3, 'g3', 2)");
    ledger_once(&l);
    expect("3 0 7.000 6.000 6.000 3.000 85.71",
           "SELECT concat_ws(' ', reservations, failed, promised, delivered, "
           "given_back, ended_early, reliability) FROM report.provider_reliability "
           "WHERE site = 'nara'");
}
END_TEST

START_TEST(arguments)
{
    static const struct {
        const char *args, *state;
    } t[] = {
        {"'nonsense'", "NG005"},
        {"'catalog'", "NG005"},
        {"'check_hold; DROP TABLE ng.transfer'", "NG005"},
        {"'match_latency', NULL, NULL, 'tokyo'", "NG020"},
        {"'idle_capacity', now()", "NG020"},
        {"'idle_capacity', NULL, now()", "NG020"},
        {"'match_latency', now(), now()", "NG020"},
        {"'match_latency', now(), now() - interval '1 h'", "NG020"},
        {"'idle_capacity', p_site => 'nowhere'", "NG005"},
        {"'idle_capacity', p_provider => 'nobody'", "NG005"},
        {"'idle_capacity', p_model => 'H1'", "NG005"},
        {"'top_tenants', p_currency => 'XYZ'", "NG005"},
        {"'top_tenants', p_tenant => 'nobody'", "NG005"},
        {"'idle_capacity', p_tenant => 'ann'", "NG020"},
        {"'retention', p_currency => 'JPY'", "NG020"},
        {"'top_tenants', p_site => 'tokyo', p_provider => 'acme', p_tenant => 'ann', "
         "p_model => 'H100', p_currency => 'JPY'",
         "00000"},
    };
    PGconn *pg = testdb_connect(l.db, "neargpu_report", "neargpu");
    char sql[300];
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        snprintf(sql, sizeof sql, "SELECT report.run(%s)", t[i].args);
        const char *state = testdb_state(pg, sql);
        ck_assert_msg(strcmp(state, t[i].state) == 0, "%s: %s", sql, state);
    }
    PQfinish(pg);
}
END_TEST

/* Every report with every filter it has, as its role, each with rows where there are
 * any. */
START_TEST(filters)
{
    static const struct {
        const char *want, *what;
    } t[] = {
        {"32", "count(*) FROM report.catalog"},
        {"0", "count(*) FROM report.catalog WHERE json_array_length(report.run(name, "
              "CASE WHEN period THEN timestamptz '2026-01-01' END)->'rows') = 0"},
        /* the period and the filters go inside of sums */
        {"[[\"ann\", \"JPY\", 1, 20.000, 2200, 39.29, 0, 0, 2200, 0]]",
         "report.run('top_tenants', t.d(), t.d(48), 'tokyo', 'acme', 'ann', 'H100') "
         "->'rows'"},
        {"[[\"ann\", \"JPY\", 1, 20.000, 1000, 100.00, 0, 0, 1000, 0]]",
         "report.run('top_tenants', t.d(), t.d(24), p_provider => 'zero', p_model => "
         "'A100')->'rows'"},
        {"1", "json_array_length(report.run('take_rate', t.d(24), t.d(48), p_provider "
              "=> 'acme')->'rows')"},
        {"t", "(report.run('take_rate')->>'fresh_as_of')::timestamptz > now() - "
              "interval '10 min'"},
        {"t", "report.run('idle_capacity')->>'chart' IS NOT NULL"},
        /* of one provider: from other rows than those of all */
        {"t", "report.run('utilisation_hourly', p_site => 'osaka', p_model => 'R')"
              "->>'rows' = report.run('utilisation_hourly', p_site => 'osaka', p_model "
              "=> 'R', p_provider => 'acme')->>'rows'"},
        {"0", "json_array_length(report.run('utilisation_hourly', p_site => 'osaka', "
              "p_model => 'R', p_provider => 'zero')->'rows')"},
        /* nothing of a call stays behind */
        {"t", "report.since() = '-infinity' AND report.only('site') IS NULL"},
    };
    PGconn *pg = testdb_connect(l.db, "neargpu_report", "neargpu");
    testdb_sql(l.pg, "GRANT USAGE ON SCHEMA t TO neargpu_report");
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        char sql[600];
        snprintf(sql, sizeof sql, "SELECT %s", t[i].what);
        char *got = testdb_one(pg, sql);
        ck_assert_msg(strcmp(got, t[i].want) == 0, "%s\n is %s\n not %s", sql, got,
                      t[i].want);
        free(got);
    }
    PGresult *r = PQexec(pg, "SELECT format('SELECT report.run(%L, p_%s => %L)', name, "
                             "f, CASE f WHEN 'site' THEN 'tokyo' WHEN 'provider' THEN "
                             "'acme' WHEN 'tenant' THEN 'ann' WHEN 'model' THEN 'H100' "
                             "ELSE 'JPY' END) FROM report.catalog, unnest(filters) f");
    ck_assert_int_gt(PQntuples(r), 30);
    for (int i = 0; i < PQntuples(r); i++) {
        const char *state = testdb_state(pg, PQgetvalue(r, i, 0));
        ck_assert_msg(strcmp(state, "00000") == 0, "%s: %s", PQgetvalue(r, i, 0),
                      state);
    }
    PQclear(r);
    PQfinish(pg);
}
END_TEST

/* The role for reports reads the views of schema report and calls what stands there. It
 * writes nothing, even where it turns its read-only default off; it calls no function
 * of api, and sees no table of ng, each of them tried. */
START_TEST(role)
{
    PGconn *pg = testdb_connect(l.db, "neargpu_report", "neargpu");
    ck_assert_str_eq(testdb_state(pg, "CREATE TABLE x ()"), "25006");
    testdb_sql(pg, "SET default_transaction_read_only = off"); /* it may */
    static const struct {
        const char *each, *sql, *state;
    } t[] = {
        {"SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = "
         "'report'::regnamespace AND relkind IN ('r', 'v')",
         "SELECT * FROM %s", "00000"},
        {"SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = "
         "'report'::regnamespace AND relkind = 'r'",
         "DELETE FROM %s", "42501"},
        {"SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = "
         "'report'::regnamespace AND relkind = 'r'",
         "INSERT INTO %s DEFAULT VALUES", "42501"},
        {"SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = "
         "'report'::regnamespace AND relkind = 'r'",
         "TRUNCATE %s", "42501"},
        {"SELECT format('ng.%I', relname) FROM pg_class WHERE relnamespace = "
         "'ng'::regnamespace AND relkind IN ('r', 'p')",
         "SELECT * FROM %s", "42501"},
        {"SELECT format('ng.%I', relname) FROM pg_class WHERE relnamespace = "
         "'ng'::regnamespace AND relkind IN ('r', 'p')",
         "DELETE FROM %s", "42501"},
        {"SELECT format('ng.%I', relname) FROM pg_class WHERE relnamespace = "
         "'ng'::regnamespace AND relkind = 'S'",
         "SELECT nextval('%s')", "42501"},
        {"SELECT format('api.%I(%s)', proname, (SELECT string_agg('NULL::' || "
         "format_type(x, NULL), ', ' ORDER BY o) FROM unnest(proargtypes) WITH "
         "ORDINALITY a(x, o))) FROM pg_proc WHERE pronamespace = 'api'::regnamespace",
         "SELECT %s", "42501"},
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        PGresult *r = PQexec(l.pg, t[i].each);
        ck_assert_int_gt(PQntuples(r), 0);
        for (int k = 0; k < PQntuples(r); k++) {
            struct strbuf sql = STRBUF_INIT;
            const char *at = strstr(t[i].sql, "%s");
            strbuf_add(&sql, t[i].sql, (size_t)(at - t[i].sql));
            strbuf_adds(&sql, PQgetvalue(r, k, 0));
            strbuf_adds(&sql, at + 2);
            const char *state = testdb_state(pg, strbuf_str(&sql));
            ck_assert_msg(strcmp(state, t[i].state) == 0, "%s: %s", strbuf_str(&sql),
                          state);
            strbuf_done(&sql);
        }
        PQclear(r);
    }
    ck_assert_str_eq(testdb_state(pg, "CREATE TABLE x ()"), "42501");
    ck_assert_str_eq(testdb_state(pg, "CREATE TEMPORARY TABLE x ()"), "42501");
    ck_assert_str_eq(testdb_state(pg, "CREATE SCHEMA x"), "42501");
    ck_assert_str_eq(testdb_state(pg, "UPDATE report.take_rate SET fee = 0"), "55000");
    ck_assert_str_eq(testdb_state(pg, "SET ROLE neargpu_owner"), "42501");
    ck_assert_str_eq(testdb_state(pg, "SET SESSION AUTHORIZATION postgres"), "42501");
    ck_assert_str_eq(testdb_state(pg, "COPY report.catalog TO '/tmp/x'"), "42501");
    ck_assert_str_eq(testdb_state(pg, "SELECT ng.roll_money(now())"), "42501");
    PQfinish(pg);
}
END_TEST

/* Nor does it hold up the market's money, or write past the tables. */
START_TEST(role_takes_no_locks)
{
    PGconn *pg = testdb_connect(l.db, "neargpu_report", "neargpu");
    testdb_sql(pg, "SET default_transaction_read_only = off");
    static const char *const more[] = {
        "SELECT pg_advisory_lock(hashtext('neargpu.billing'))",
        "SELECT pg_advisory_xact_lock(hashtext('neargpu.billing'))",
        "SELECT pg_advisory_lock_shared(hashtext('neargpu.billing'))",
        "SELECT pg_try_advisory_lock(hashtext('neargpu.billing'))",
        "SELECT pg_try_advisory_xact_lock_shared(1, 2)",
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_put(1, 0, 'x')",
        "SELECT pg_logical_emit_message(false, 'x', 'x')"};
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
        const char *state = testdb_state(pg, more[i]);
        ck_assert_msg(strcmp(state, "42501") == 0, "%s: %s", more[i], state);
    }
    PQfinish(pg);
}
END_TEST

/* docs/reports.md has each report's columns and units in the database's order, and each
 * check view. */
START_TEST(page)
{
    struct err err;
    char *path = xasprintf("%s/docs/reports.md", l.source), *text;
    const char *at = "";
    ck_assert_msg(fsx_read(path, 1 << 20, &text, NULL, &err) == 0, "%s", err.text);
    PGresult *r = PQexec(
        l.pg,
        "SELECT format(E'## %s\\n\\n%s.\\n\\n| column | unit | what "
        "|\\n|---|---|---|\\n',"
        " name, upper(left(description, 1)) || substr(description, 2)), 0, name FROM "
        "report.catalog UNION ALL SELECT format(E'| %s | %s | ', attname, "
        "coalesce(col_description(attrelid, attnum), '')), attnum, name FROM "
        "pg_attribute "
        "a JOIN report.catalog c ON attrelid = format('report.%I', c.name)::regclass "
        "WHERE "
        "attnum > 0 ORDER BY 3, 2");
    ck_assert_int_gt(PQntuples(r), 40);
    for (int i = 0; i < PQntuples(r); i++) {
        const char *want = PQgetvalue(r, i, 0);
        if (strcmp(PQgetvalue(r, i, 1), "0") == 0) {
            at = strstr(text, want);
            ck_assert_msg(at != NULL, "docs/reports.md lacks: %s", want);
            at += strlen(want);
            continue;
        }
        ck_assert_msg(strncmp(at, want, strlen(want)) == 0,
                      "docs/reports.md: %s: not in its place: %s", PQgetvalue(r, i, 2),
                      want);
        at = strchr(at, '\n') + 1;
    }
    PQclear(r);
    r = PQexec(l.pg, "SELECT format('| %s |', name) FROM api.check_all()");
    for (int i = 0; i < PQntuples(r); i++)
        ck_assert_msg(strstr(text, PQgetvalue(r, i, 0)) != NULL,
                      "docs/reports.md lacks: %s", PQgetvalue(r, i, 0));
    PQclear(r);
    free(text);
    free(path);
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1); /* one database for all cases */
    ledger_open(&l, NULL);
    Suite *suite = suite_create("reports");
    TCase *tc = tcase_create("reports");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, known_answers);
    tcase_add_test(tc, early_ends);
    tcase_add_test(tc, arguments);
    tcase_add_test(tc, filters);
    tcase_add_test(tc, role);
    tcase_add_test(tc, role_takes_no_locks);
    tcase_add_test(tc, page);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    ledger_close(&l);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
