-- Money: who earned, who paid, at what price. Days are those of the transfers.

-- Gross is what was captured on a day, net what is left of it after what went back on that
-- day, of whatever use.
CREATE VIEW report.provider_revenue AS
    SELECT m.day, p.name AS provider, s.name AS site, m.currency, sum(m.reservations)::bigint AS reservations,
           round(sum(m.gpu_ms) / 3600000, 3) AS used, trim_scale(sum(m.gross_micro) / 1e6) AS gross, trim_scale(sum(m.fee_micro) / 1e6) AS fee,
           trim_scale(sum(m.gross_micro - m.fee_micro) / 1e6) AS revenue, trim_scale(sum(m.refund_micro) / 1e6) AS refunded,
           trim_scale(sum(m.credit_micro) / 1e6) AS credited,
           trim_scale(sum(m.gross_micro - m.fee_micro - (m.refund_micro + m.credit_micro - m.back_fee_micro - m.back_market_micro)) / 1e6) AS net
      FROM ng.roll_money m JOIN ng.provider p ON p.id = m.provider_id JOIN ng.site s ON s.id = m.site_id
     WHERE m.day >= report.since() AND m.day < report.until()
       AND (report.only('model') IS NULL OR m.gpu_model = report.only('model'))
     GROUP BY 1, 2, 3, 4;
COMMENT ON COLUMN report.provider_revenue.used IS 'GPU-hours';
COMMENT ON COLUMN report.provider_revenue.gross IS 'currency';
COMMENT ON COLUMN report.provider_revenue.fee IS 'currency';
COMMENT ON COLUMN report.provider_revenue.revenue IS 'currency';
COMMENT ON COLUMN report.provider_revenue.refunded IS 'currency';
COMMENT ON COLUMN report.provider_revenue.credited IS 'currency';
COMMENT ON COLUMN report.provider_revenue.net IS 'currency';

CREATE VIEW report.take_rate AS
    SELECT m.day, p.name AS provider, m.currency, trim_scale(sum(m.gross_micro) / 1e6) AS gross, trim_scale(sum(m.fee_micro) / 1e6) AS fee,
           round(100 * sum(m.fee_micro) / nullif(sum(m.gross_micro), 0), 3) AS take_rate,
           trim_scale(sum(m.refund_micro + m.credit_micro) / 1e6) AS given_back, trim_scale(sum(m.back_fee_micro) / 1e6) AS fee_back,
           CASE WHEN sum(m.gross_micro) > sum(m.refund_micro + m.credit_micro)
                THEN round(100 * sum(m.fee_micro - m.back_fee_micro) / sum(m.gross_micro - m.refund_micro - m.credit_micro), 3) END AS net_take_rate
      FROM ng.roll_money m JOIN ng.provider p ON p.id = m.provider_id
     WHERE m.day >= report.since() AND m.day < report.until()
     GROUP BY 1, 2, 3;
COMMENT ON COLUMN report.take_rate.gross IS 'currency';
COMMENT ON COLUMN report.take_rate.fee IS 'currency';
COMMENT ON COLUMN report.take_rate.take_rate IS '%';
COMMENT ON COLUMN report.take_rate.given_back IS 'currency';
COMMENT ON COLUMN report.take_rate.fee_back IS 'currency';
COMMENT ON COLUMN report.take_rate.net_take_rate IS '%';

CREATE VIEW report.top_tenants AS
    WITH spent AS (
        SELECT tenant_id, currency, sum(gpu_ms) AS gpu_ms, sum(gross_micro) AS gross, sum(refund_micro) AS refund, sum(credit_micro) AS credit
          FROM ng.roll_money m
         WHERE day >= report.since() AND day < report.until()
           AND (report.only('site') IS NULL OR m.site_id = (SELECT id FROM ng.site WHERE name = report.only('site')))
           AND (report.only('provider') IS NULL OR m.provider_id = (SELECT id FROM ng.provider WHERE name = report.only('provider')))
           AND (report.only('model') IS NULL OR m.gpu_model = report.only('model'))
         GROUP BY 1, 2),
    made AS (
        SELECT tenant_id, currency, count(*) AS reservations FROM ng.reservation
         WHERE created_at >= report.since() AND created_at < report.until() GROUP BY 1, 2)
    SELECT t.name AS tenant, x.currency, coalesce(x.reservations, 0) AS reservations, round(coalesce(x.gpu_ms, 0) / 3600000, 3) AS used,
           trim_scale(coalesce(x.gross, 0) / 1e6) AS spent, round(100 * x.gross / nullif(sum(x.gross) OVER (PARTITION BY x.currency), 0), 2) AS share,
           trim_scale(coalesce(x.refund, 0) / 1e6) AS refunded, trim_scale(coalesce(x.credit, 0) / 1e6) AS credited,
           trim_scale(coalesce(x.gross - x.refund - x.credit, 0) / 1e6) AS net,
           trim_scale(coalesce((SELECT a.balance_micro FROM ng.account a WHERE a.kind = 'hold' AND a.tenant_id = x.tenant_id
                        AND a.currency = x.currency), 0) / 1e6) AS held
      FROM (SELECT * FROM spent FULL JOIN made USING (tenant_id, currency)) x JOIN ng.tenant t ON t.id = x.tenant_id
     WHERE x.gross IS NOT NULL OR coalesce(report.only('site'), report.only('provider'), report.only('model')) IS NULL;
COMMENT ON COLUMN report.top_tenants.used IS 'GPU-hours';
COMMENT ON COLUMN report.top_tenants.spent IS 'currency';
COMMENT ON COLUMN report.top_tenants.share IS '%';
COMMENT ON COLUMN report.top_tenants.held IS 'currency';
COMMENT ON COLUMN report.top_tenants.refunded IS 'currency';
COMMENT ON COLUMN report.top_tenants.credited IS 'currency';
COMMENT ON COLUMN report.top_tenants.net IS 'currency';

-- Herfindahl-Hirschman: the sum of squares of shares in percent; 10,000 is one party alone.
CREATE VIEW report.concentration AS
    WITH parts AS (
        SELECT x.side, m.currency, x.party, sum(m.gross_micro) AS gross
          FROM ng.roll_money m CROSS JOIN LATERAL (VALUES ('provider', m.provider_id), ('tenant', m.tenant_id)) AS x(side, party)
         WHERE m.day >= report.since() AND m.day < report.until()
           AND (report.only('site') IS NULL OR m.site_id = (SELECT id FROM ng.site WHERE name = report.only('site')))
           AND (report.only('model') IS NULL OR m.gpu_model = report.only('model'))
           AND m.reservations > 0 -- not only money that went back
         GROUP BY 1, 2, 3),
    shares AS (
        SELECT side, currency, 100 * gross / nullif(sum(gross) OVER (PARTITION BY side, currency), 0) AS share,
               row_number() OVER (PARTITION BY side, currency ORDER BY gross DESC) AS place FROM parts)
    SELECT side, currency, count(*) AS parties, round(sum(share * share)) AS hhi, round(max(share), 2) AS top_1,
           round(sum(share) FILTER (WHERE place <= 3), 2) AS top_3
      FROM shares WHERE share IS NOT NULL GROUP BY 1, 2;
COMMENT ON COLUMN report.concentration.top_1 IS '%';
COMMENT ON COLUMN report.concentration.top_3 IS '%';

-- Tenants by the month of their first charge, and how many of them are charged later.
CREATE VIEW report.retention AS
    WITH months AS (
        SELECT tenant_id, date_trunc('month', day, 'UTC') AS month, sum(gpu_ms) AS gpu_ms
          FROM ng.roll_money WHERE reservations > 0 GROUP BY 1, 2),
    cohorts AS (SELECT tenant_id, month, gpu_ms, min(month) OVER (PARTITION BY tenant_id) AS cohort FROM months),
    counted AS (
        SELECT cohort, month, count(*) AS active, sum(gpu_ms) AS gpu_ms FROM cohorts GROUP BY 1, 2)
    SELECT c.cohort, ((extract(year FROM c.month AT TIME ZONE 'UTC') - extract(year FROM c.cohort AT TIME ZONE 'UTC')) * 12
               + extract(month FROM c.month AT TIME ZONE 'UTC') - extract(month FROM c.cohort AT TIME ZONE 'UTC'))::integer AS month,
           f.active AS tenants, c.active, round(100.0 * c.active / f.active, 1) AS retention, round(c.gpu_ms / 3600000, 3) AS used
      FROM counted c JOIN counted f ON f.cohort = c.cohort AND f.month = c.cohort
     WHERE c.cohort >= report.since() AND c.cohort < report.until();
COMMENT ON COLUMN report.retention.retention IS '%';
COMMENT ON COLUMN report.retention.used IS 'GPU-hours';

-- What a GPU-hour was sold for: firm use only. The index is 100 on the model's first day in
-- the period.
CREATE VIEW report.price_index AS
    SELECT x.day, x.gpu_model, x.currency, round(x.gpu_ms / 3600000, 3) AS used, round(x.price, 6) AS price,
           round(100 * x.price / nullif(first_value(x.price) OVER (PARTITION BY x.gpu_model, x.currency ORDER BY x.day), 0), 2) AS index
      FROM (SELECT day, gpu_model, currency, sum(gpu_ms) AS gpu_ms, sum(gross_micro) * 3.6 / sum(gpu_ms) AS price
              FROM ng.roll_money m
             WHERE NOT spot AND gpu_ms > 0 AND day >= report.since() AND day < report.until()
               AND (report.only('site') IS NULL OR m.site_id = (SELECT id FROM ng.site WHERE name = report.only('site')))
               AND (report.only('provider') IS NULL OR m.provider_id = (SELECT id FROM ng.provider WHERE name = report.only('provider')))
             GROUP BY 1, 2, 3) x;
COMMENT ON COLUMN report.price_index.used IS 'GPU-hours';
COMMENT ON COLUMN report.price_index.price IS 'currency per GPU-hour';

CREATE VIEW report.spot_discount AS
    SELECT x.day, x.gpu_model, x.currency, round(x.spot_ms / 3600000, 3) AS spot, round(x.firm_price, 6) AS firm_price,
           round(x.spot_price, 6) AS spot_price, round(100 * (1 - x.spot_price / nullif(x.firm_price, 0)), 2) AS discount
      FROM (SELECT day, gpu_model, currency, sum(gpu_ms) FILTER (WHERE spot) AS spot_ms,
                   sum(gross_micro) FILTER (WHERE NOT spot) * 3.6 / nullif(sum(gpu_ms) FILTER (WHERE NOT spot), 0) AS firm_price,
                   sum(gross_micro) FILTER (WHERE spot) * 3.6 / nullif(sum(gpu_ms) FILTER (WHERE spot), 0) AS spot_price
              FROM ng.roll_money m
             WHERE gpu_model <> '' AND day >= report.since() AND day < report.until()
               AND (report.only('site') IS NULL OR m.site_id = (SELECT id FROM ng.site WHERE name = report.only('site')))
             GROUP BY 1, 2, 3) x
     WHERE x.spot_ms > 0;
COMMENT ON COLUMN report.spot_discount.spot IS 'GPU-hours';
COMMENT ON COLUMN report.spot_discount.firm_price IS 'currency per GPU-hour';
COMMENT ON COLUMN report.spot_discount.spot_price IS 'currency per GPU-hour';
COMMENT ON COLUMN report.spot_discount.discount IS '%';

-- Money that went back, by document, why, and out of whose account it came. What a bank or an
-- administrator took back of top-ups is there too: it went from the tenant.
CREATE VIEW report.refunds AS
    SELECT date_trunc('day', t.at, 'UTC') AS day, coalesce(n.name, '') AS tenant, x.what, coalesce(c.reason, s.reason, b.reason, '') AS reason,
           coalesce(i.fault, CASE c.borne_by WHEN 'market' THEN 'platform' ELSE c.borne_by END, '') AS fault,
           CASE WHEN d.provider_id IS NOT NULL THEN 'provider' WHEN d.tenant_id IS NOT NULL THEN 'tenant'
                WHEN d.kind = 'sla_expense' THEN 'market' WHEN d.kind = 'tax_output' THEN 'tax' ELSE d.kind END AS borne_by,
           coalesce(p.name, '') AS provider, t.currency, count(DISTINCT split_part(t.ref, '/', x.id)) AS documents,
           count(DISTINCT t.reservation_id) AS reservations, trim_scale(sum(t.amount_micro) / 1e6) AS amount
      FROM ng.transfer t JOIN ng.account d ON d.id = t.dr JOIN ng.account k ON k.id = t.cr
      LEFT JOIN ng.tenant n ON n.id = coalesce(k.tenant_id, d.tenant_id)
      CROSS JOIN LATERAL (SELECT CASE WHEN t.kind LIKE 'refund%' THEN 'credit_note' WHEN t.kind LIKE 'sla%' THEN 'sla_credit' ELSE t.kind END AS what,
                                 CASE WHEN t.kind LIKE 'sla%' THEN 2 ELSE 1 END AS id) x
      LEFT JOIN ng.credit_note c ON x.what = 'credit_note' AND c.number = split_part(t.ref, '/', 1)
      LEFT JOIN ng.sla_credit s ON x.what = 'sla_credit' AND s.id = CASE WHEN t.ref ~ '^sla/[0-9]{1,18}/' THEN split_part(t.ref, '/', 2)::bigint END
      LEFT JOIN ng.incident i ON i.id = s.incident_id
      LEFT JOIN ng.chargeback b ON x.what = 'chargeback' AND b.transfer_id = CASE WHEN t.ref ~ '^[0-9]{1,18}/' THEN split_part(t.ref, '/', 1)::bigint END
      LEFT JOIN ng.provider p ON p.id = CASE WHEN split_part(t.ref, '/', x.id + 1) ~ '^[0-9a-f-]{36}$' THEN split_part(t.ref, '/', x.id + 1)::uuid END
     WHERE t.kind IN ('reversal', 'refund', 'refund_fee', 'refund_tax', 'sla', 'sla_fee', 'promo', 'promo_used', 'promo_back', 'chargeback')
       AND t.kind NOT LIKE 'promo%' AND d.kind <> 'fx' -- what was paid for it, in another currency
       AND t.at >= report.since() AND t.at < report.until()
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
COMMENT ON COLUMN report.refunds.amount IS 'currency';

-- What documents say of tax, by the day they were issued: what a return of consumption tax needs.
CREATE VIEW report.tax AS
    SELECT date_trunc('day', x.at, 'UTC') AS day, x.currency, x.class, round(x.rate_ppm / 10000.0, 2) AS rate,
           count(*) FILTER (WHERE NOT x.back) AS invoices, trim_scale(coalesce(sum(x.base) FILTER (WHERE NOT x.back), 0) / 1e6) AS base,
           trim_scale(coalesce(sum(x.tax) FILTER (WHERE NOT x.back), 0) / 1e6) AS tax, count(*) FILTER (WHERE x.back) AS credit_notes,
           trim_scale(coalesce(sum(x.base) FILTER (WHERE x.back), 0) / 1e6) AS base_back,
           trim_scale(coalesce(sum(x.tax) FILTER (WHERE x.back), 0) / 1e6) AS tax_back,
           trim_scale(sum(CASE WHEN x.back THEN -x.tax ELSE x.tax END) / 1e6) AS due
      FROM (SELECT i.issued_at AS at, i.tenant_id, i.currency, t.class::text, t.rate_ppm, t.base_micro AS base, t.tax_micro AS tax, false AS back
              FROM ng.invoice i JOIN ng.invoice_tax t ON t.number = i.number
            UNION ALL
            SELECT c.issued_at, c.tenant_id, c.currency, t.class, t.rate_ppm, t.base_micro, t.tax_micro, true
              FROM ng.credit_note c JOIN ng.credit_note_tax t ON t.number = c.number) x
     WHERE x.at >= report.since() AND x.at < report.until()
       AND (report.only('tenant') IS NULL OR x.tenant_id = (SELECT id FROM ng.tenant WHERE name = report.only('tenant')))
     GROUP BY 1, 2, 3, 4;
COMMENT ON COLUMN report.tax.rate IS '%';
COMMENT ON COLUMN report.tax.base IS 'currency';
COMMENT ON COLUMN report.tax.tax IS 'currency';
COMMENT ON COLUMN report.tax.base_back IS 'currency';
COMMENT ON COLUMN report.tax.tax_back IS 'currency';
COMMENT ON COLUMN report.tax.due IS 'currency';

-- Reservations that were disputed, by the day that they were: what was captured of them, what
-- waits with the provider for the end of it, and what the tenant had back.
CREATE VIEW report.disputes AS
    SELECT date_trunc('day', d.opened_at, 'UTC') AS day, t.name AS tenant, d.reason, CASE WHEN d.closed_at IS NULL THEN 'open' ELSE 'closed' END AS state,
           r.currency, count(*) AS reservations, round(extract(epoch FROM max(coalesce(d.closed_at, now()) - d.opened_at))) AS longest,
           trim_scale(sum(r.captured_micro) / 1e6) AS captured, trim_scale(sum(w.micro) / 1e6) AS waiting,
           trim_scale(sum(r.refunded_micro) / 1e6) AS refunded, trim_scale(sum(r.credited_micro) / 1e6) AS credited
      FROM ng.dispute d JOIN ng.reservation r ON r.id = d.reservation_id JOIN ng.tenant t ON t.id = r.tenant_id
      CROSS JOIN LATERAL (SELECT coalesce(sum(x.amount_micro), 0) AS micro FROM ng.transfer x
                            JOIN ng.settle_parked k ON k.transfer_id = x.id AND k.settlement_id IS NULL
                           WHERE x.reservation_id = r.id AND x.kind = 'capture') w
     WHERE d.opened_at >= report.since() AND d.opened_at < report.until()
     GROUP BY 1, 2, 3, 4, 5;
COMMENT ON COLUMN report.disputes.longest IS 's';
COMMENT ON COLUMN report.disputes.captured IS 'currency';
COMMENT ON COLUMN report.disputes.waiting IS 'currency';
COMMENT ON COLUMN report.disputes.refunded IS 'currency';
COMMENT ON COLUMN report.disputes.credited IS 'currency';

-- Payouts by the day they moved: one that came back after it was confirmed is no more paid.
CREATE VIEW report.payouts AS
    SELECT date_trunc('day', t.at, 'UTC') AS day, v.name AS provider, t.currency,
           count(*) FILTER (WHERE t.kind = 'payout') AS payouts,
           trim_scale(coalesce(sum(t.amount_micro) FILTER (WHERE t.kind = 'payout'), 0) / 1e6) AS sent,
           trim_scale(coalesce(sum(CASE t.kind WHEN 'payout_done' THEN t.amount_micro ELSE -t.amount_micro END)
               FILTER (WHERE t.kind = 'payout_done' OR t.kind = 'payout_back' AND t.ref LIKE '%/done'), 0) / 1e6) AS confirmed,
           count(*) FILTER (WHERE t.kind = 'payout_back' AND t.ref NOT LIKE '%/done') AS returns,
           trim_scale(coalesce(sum(t.amount_micro) FILTER (WHERE t.kind = 'payout_back' AND t.ref NOT LIKE '%/done'), 0) / 1e6) AS returned,
           trim_scale(coalesce(sum(t.amount_micro) FILTER (WHERE t.kind = 'payout_fee'), 0) / 1e6) AS bank_fees
      FROM ng.transfer t
      JOIN ng.payout p ON p.id = split_part(t.ref, '/', 2)::bigint JOIN ng.provider v ON v.id = p.provider_id
     WHERE t.kind IN ('payout', 'payout_done', 'payout_back', 'payout_fee') AND t.at >= report.since() AND t.at < report.until()
     GROUP BY 1, 2, 3;
COMMENT ON COLUMN report.payouts.sent IS 'currency';
COMMENT ON COLUMN report.payouts.confirmed IS 'currency';
COMMENT ON COLUMN report.payouts.returned IS 'currency';
COMMENT ON COLUMN report.payouts.bank_fees IS 'currency';

-- What the platform kept: fees less what it gave back of them, less its own expenses, each
-- as its account moved. What a bank took for a payout's return is out of the fees.
CREATE VIEW report.margin AS
    WITH other AS (
        SELECT date_trunc('day', t.at, 'UTC') AS day, t.currency,
               sum(CASE WHEN d.kind = 'fee' THEN t.amount_micro WHEN c.kind = 'fee' THEN -t.amount_micro ELSE 0 END) AS fee_back,
               sum(CASE WHEN d.kind = 'sla_expense' THEN t.amount_micro WHEN c.kind = 'sla_expense' THEN -t.amount_micro ELSE 0 END) AS sla,
               sum(CASE WHEN d.kind = 'promo_expense' THEN t.amount_micro WHEN c.kind = 'promo_expense' THEN -t.amount_micro ELSE 0 END) AS promo
          FROM (SELECT * FROM ng.transfer
                 WHERE kind IN ('reversal', 'refund', 'refund_fee', 'refund_tax', 'sla', 'sla_fee', 'promo', 'promo_used', 'promo_back', 'chargeback')
                UNION ALL
                SELECT * FROM ng.transfer WHERE kind = 'payout_fee') t
          JOIN ng.account d ON d.id = t.dr JOIN ng.account c ON c.id = t.cr
         WHERE d.kind <> 'fx' AND t.at >= report.since() AND t.at < report.until()
         GROUP BY 1, 2),
    earned AS (
        SELECT day, currency, sum(gross_micro) AS gross, sum(fee_micro) AS fee FROM ng.roll_money
         WHERE day >= report.since() AND day < report.until() GROUP BY 1, 2)
    SELECT x.day, x.currency, trim_scale(coalesce(x.gross, 0) / 1e6) AS gross, trim_scale(coalesce(x.fee, 0) / 1e6) AS fee, trim_scale(coalesce(x.fee_back, 0) / 1e6) AS fee_back,
           trim_scale(coalesce(x.sla, 0) / 1e6) AS sla, trim_scale(coalesce(x.promo, 0) / 1e6) AS promo,
           trim_scale((coalesce(x.fee, 0) - coalesce(x.fee_back, 0) - coalesce(x.sla, 0) - coalesce(x.promo, 0)) / 1e6) AS margin,
           round(100 * (coalesce(x.fee, 0) - coalesce(x.fee_back, 0) - coalesce(x.sla, 0) - coalesce(x.promo, 0)) / nullif(x.gross, 0), 3) AS of_gross
      FROM (SELECT * FROM earned FULL JOIN other USING (day, currency)) x
     WHERE x.gross IS NOT NULL OR x.fee_back <> 0 OR x.sla <> 0 OR x.promo <> 0;
COMMENT ON COLUMN report.margin.gross IS 'currency';
COMMENT ON COLUMN report.margin.fee IS 'currency';
COMMENT ON COLUMN report.margin.fee_back IS 'currency';
COMMENT ON COLUMN report.margin.sla IS 'currency';
COMMENT ON COLUMN report.margin.promo IS 'currency';
COMMENT ON COLUMN report.margin.margin IS 'currency';
COMMENT ON COLUMN report.margin.of_gross IS '%';

INSERT INTO report.catalog (name, description, time_column, days, period, filters, sort, rolls, chart) VALUES
    ('provider_revenue', 'captured use by day, provider and site: gross, fee, provider''s share, what went back', 'day', 366, true,
     '{site,provider,model,currency}', 'day, provider, site, currency', '{money}',
     '{"kind": "line", "x": "day", "y": ["revenue"], "series": "provider"}'),
    ('take_rate', 'the platform''s fee as a share of what was captured, and of what is left of it, by day and provider', 'day', 366, true,
     '{provider,currency}', 'day, provider, currency', '{money}', '{"kind": "line", "x": "day", "y": ["take_rate"], "series": "provider", "mean": true}'),
    ('top_tenants', 'tenants by what they spent', NULL, NULL, true,
     '{site,provider,tenant,model,currency}', 'spent DESC, tenant', '{money}', '{"kind": "bar", "x": "tenant", "y": ["spent"]}'),
    ('concentration', 'how much of what was captured few parties have, on both sides', NULL, NULL, true,
     '{site,model,currency}', 'side, currency', '{money}', '{"kind": "bar", "x": "side", "y": ["hhi"]}'),
    ('retention', 'tenants by the month of their first charge, and how many of them came back', NULL, NULL, true,
     '{}', 'cohort, month', '{money}', '{"kind": "heat", "x": "month", "y": ["cohort"], "value": "retention"}'),
    ('price_index', 'what a GPU-hour of firm use was sold for, by day and model', 'day', 366, true,
     '{site,provider,model,currency}', 'day, gpu_model, currency', '{money}',
     '{"kind": "line", "x": "day", "y": ["index"], "series": "gpu_model", "mean": true}'),
    ('spot_discount', 'what spot use cost less than firm use, by day and model', 'day', 366, true,
     '{site,model,currency}', 'day, gpu_model, currency', '{money}',
     '{"kind": "line", "x": "day", "y": ["discount"], "series": "gpu_model", "mean": true}'),
    ('refunds', 'money that went back, by day, tenant, document, reason and who bore it', 'day', 366, true,
     '{tenant,provider,currency}', 'day, tenant, what, reason, borne_by, provider', '{}',
     '{"kind": "line", "x": "day", "y": ["amount"], "series": "what"}'),
    ('disputes', 'reservations that were disputed, by day, tenant and reason', 'day', 366, true,
     '{tenant,currency}', 'day, tenant, reason, state', '{}', '{"kind": "line", "x": "day", "y": ["reservations"], "series": "state"}'),
    ('tax', 'base and tax per rate, invoiced and given back, by day of the document', 'day', 366, true,
     '{tenant,currency}', 'day, rate DESC, class, currency', '{}', '{"kind": "line", "x": "day", "y": ["due"], "series": "class"}'),
    ('payouts', 'money sent to providers, confirmed, and come back, by day and provider', 'day', 366, true,
     '{provider,currency}', 'day, provider, currency', '{}', '{"kind": "line", "x": "day", "y": ["sent"], "series": "provider"}'),
    ('margin', 'what the platform kept of its fees after what it gave back and its expenses, by day', 'day', 366, true,
     '{currency}', 'day, currency', '{money}', '{"kind": "line", "x": "day", "y": ["fee", "margin"]}');
