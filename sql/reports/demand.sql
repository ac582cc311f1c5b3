-- What was asked for, what became of it, and how fast.

CREATE VIEW report.match_latency AS
    WITH h AS (
        SELECT day, kind, bucket, requests AS n FROM ng.roll_latency_day WHERE day >= report.since() AND day < report.until()),
    c AS (
        SELECT day, kind, report.bucket_value(bucket) AS us, sum(n) OVER (PARTITION BY day, kind ORDER BY bucket) AS upto,
               sum(n) OVER (PARTITION BY day, kind) AS total FROM h)
    SELECT day, kind, max(total)::bigint AS requests, min(us) FILTER (WHERE upto >= 0.5 * total) AS p50,
           min(us) FILTER (WHERE upto >= 0.95 * total) AS p95, min(us) FILTER (WHERE upto >= 0.99 * total) AS p99,
           min(us) FILTER (WHERE upto >= 0.999 * total) AS p999
      FROM c GROUP BY 1, 2;
COMMENT ON COLUMN report.match_latency.p50 IS 'us';
COMMENT ON COLUMN report.match_latency.p95 IS 'us';
COMMENT ON COLUMN report.match_latency.p99 IS 'us';
COMMENT ON COLUMN report.match_latency.p999 IS 'us';

CREATE VIEW report.unmet_demand AS
    SELECT date_trunc('day', hour, 'UTC') AS day, nullif(gpu_model, '') AS gpu_model, why AS top_reason, outcome,
           sum(requests)::bigint AS requests, sum(gpus)::bigint AS gpus, round(sum(gpu_ms) / 3600000, 3) AS gpu_hours
      FROM ng.roll_match
     WHERE kind IN ('quote', 'reserve') AND outcome <> 'ok' AND hour >= report.since() AND hour < report.until()
     GROUP BY 1, 2, 3, 4;
COMMENT ON COLUMN report.unmet_demand.gpu_hours IS 'GPU-hours';

-- By hour of the week: 1 is Monday.
CREATE VIEW report.demand_heatmap AS
    SELECT extract(isodow FROM hour AT TIME ZONE 'UTC')::integer AS weekday, extract(hour FROM hour AT TIME ZONE 'UTC')::integer AS hour,
           sum(requests)::bigint AS requests, sum(gpus)::bigint AS gpus, round(sum(gpu_ms) / 3600000, 3) AS asked,
           round(coalesce(sum(gpu_ms) FILTER (WHERE outcome <> 'ok'), 0) / 3600000, 3) AS unmet
      FROM ng.roll_match
     WHERE kind IN ('quote', 'reserve') AND roll_match.hour >= report.since() AND roll_match.hour < report.until()
       AND (report.only('model') IS NULL OR gpu_model = report.only('model'))
     GROUP BY 1, 2;
COMMENT ON COLUMN report.demand_heatmap.asked IS 'GPU-hours';
COMMENT ON COLUMN report.demand_heatmap.unmet IS 'GPU-hours';

CREATE VIEW report.lead_time AS
    WITH h AS (
        SELECT day, CASE WHEN spot THEN 'spot' ELSE 'firm' END AS kind, bucket, sum(reservations) AS n, sum(gpu_ms) AS gpu_ms FROM ng.roll_lead
         WHERE day >= report.since() AND day < report.until() GROUP BY 1, 2, 3),
    c AS (
        SELECT h.*, report.bucket_value(bucket) AS s, sum(n) OVER (PARTITION BY day, kind ORDER BY bucket) AS upto,
               sum(n) OVER (PARTITION BY day, kind) AS total FROM h)
    SELECT day, kind, max(total)::bigint AS reservations, round(sum(gpu_ms) / 3600000, 3) AS booked,
           min(s) FILTER (WHERE upto >= 0.5 * total) AS p50, min(s) FILTER (WHERE upto >= 0.9 * total) AS p90,
           min(s) FILTER (WHERE upto >= 0.99 * total) AS p99,
           round(100 * coalesce(sum(n) FILTER (WHERE s < 3600), 0) / max(total), 1) AS within_hour
      FROM c GROUP BY 1, 2;
COMMENT ON COLUMN report.lead_time.booked IS 'GPU-hours';
COMMENT ON COLUMN report.lead_time.p50 IS 's';
COMMENT ON COLUMN report.lead_time.p90 IS 's';
COMMENT ON COLUMN report.lead_time.p99 IS 's';
COMMENT ON COLUMN report.lead_time.within_hour IS '%';

CREATE VIEW report.conversion AS
    SELECT q.day, t.name AS tenant, sum(q.quotes)::bigint AS quotes, sum(q.reserved)::bigint AS reserved,
           round(100 * sum(q.reserved) / sum(q.quotes), 1) AS conversion, round(sum(q.wait_s) / nullif(sum(q.reserved), 0), 1) AS mean_wait
      FROM ng.roll_quote q JOIN ng.tenant t ON t.id = q.tenant_id
     WHERE q.day >= report.since() AND q.day < report.until()
     GROUP BY 1, 2;
COMMENT ON COLUMN report.conversion.conversion IS '%';
COMMENT ON COLUMN report.conversion.mean_wait IS 's';

-- Where reservations stand, and what became of them.
CREATE VIEW report.reservations AS
    SELECT date_trunc('day', r.created_at, 'UTC') AS day, r.state,
           CASE WHEN r.spot THEN 'spot' ELSE 'firm' END AS kind, count(*) AS reservations,
           sum(b.gpus) AS gpus, count(*) FILTER (WHERE b.nodes > 1) AS gangs,
           count(*) FILTER (WHERE r.preempted_by IS NOT NULL) AS preempted,
           count(*) FILTER (WHERE r.replaced_at IS NOT NULL) AS replaced,
           count(*) FILTER (WHERE r.state = 'waiting') AS waiting_now,
           round(extract(epoch FROM max(now() - r.created_at) FILTER (WHERE r.state = 'waiting'))) AS oldest_wait,
           trim_scale(sum(r.captured_micro) / 1e6) AS spent
      FROM ng.reservation r
      CROSS JOIN LATERAL (SELECT coalesce(sum(upper(x.gpus) - lower(x.gpus)), 0) AS gpus, count(*) AS nodes
                            FROM ng.booking x WHERE x.reservation_id = r.id) b
     WHERE r.created_at >= report.since() AND r.created_at < report.until()
       AND (report.only('tenant') IS NULL OR r.tenant_id = (SELECT id FROM ng.tenant WHERE name = report.only('tenant')))
     GROUP BY 1, 2, 3;
COMMENT ON COLUMN report.reservations.oldest_wait IS 's';
COMMENT ON COLUMN report.reservations.spent IS 'currency';

-- Spot reservations by the day they were made, and those that had to go.
CREATE VIEW report.preemption AS
    SELECT date_trunc('day', r.created_at, 'UTC') AS day, s.name AS site, count(*) AS reservations,
           count(*) FILTER (WHERE r.preempted_at IS NOT NULL) AS preempted,
           round(100.0 * count(*) FILTER (WHERE r.preempted_at IS NOT NULL) / count(*), 1) AS rate,
           round(avg(extract(epoch FROM r.preempted_at - lower(r.during))) FILTER (WHERE r.preempted_at > lower(r.during))) AS mean_run
      FROM ng.reservation r
      JOIN LATERAL (SELECT b.site_id FROM ng.booking b WHERE b.reservation_id = r.id ORDER BY b.id LIMIT 1) b ON true
      JOIN ng.site s ON s.id = b.site_id
     WHERE r.spot AND r.created_at >= report.since() AND r.created_at < report.until()
     GROUP BY 1, 2;
COMMENT ON COLUMN report.preemption.rate IS '%';
COMMENT ON COLUMN report.preemption.mean_run IS 's';

-- Use that was not what was promised: reservations that failed by a fault, time that a node
-- was away during a lease, and incidents with what was credited for them. The first two may
-- be what an incident is about: it loses no time of its own.
CREATE VIEW report.sla_breaches AS
    SELECT date_trunc('day', x.at, 'UTC') AS day, coalesce(s.name, '') AS site, coalesce(p.name, '') AS provider, x.breach, x.reason, x.fault,
           count(*) AS breaches, count(DISTINCT x.reservation_id) AS reservations, round(sum(x.gpus * greatest(0, x.lost_s)) / 3600, 3) AS lost,
           NULL::text AS currency, NULL::numeric AS credited, NULL::numeric AS by_provider, NULL::numeric AS by_market
      FROM (SELECT coalesce(r.ended_at, r.created_at) AS at, r.id AS reservation_id, b.node_id, r.fault AS breach, '' AS reason, '' AS fault,
                   upper(b.gpus) - lower(b.gpus) AS gpus,
                   extract(epoch FROM upper(r.during) - greatest(lower(r.during), r.ended_at)) AS lost_s
              FROM ng.reservation r JOIN ng.booking b ON b.reservation_id = r.id
             WHERE r.fault IS NOT NULL AND r.fault <> 'preempted' AND r.state = 'failed'
            UNION ALL
            SELECT r.received_at, r.reservation_id, r.node_id, 'gap: ' || left(coalesce(g->>'why', '?'), 40), '', '', k.gpus,
                   extract(epoch FROM (g->>'to')::timestamptz - (g->>'from')::timestamptz)
              FROM ng.receipt r CROSS JOIN LATERAL jsonb_array_elements(r.gaps) g
              CROSS JOIN LATERAL (SELECT coalesce(sum(upper(b.gpus) - lower(b.gpus)), 0) AS gpus FROM ng.booking b
                                   WHERE b.reservation_id = r.reservation_id AND b.node_id = r.node_id) k
             WHERE r.gaps <> '[]' AND g->>'from' ~ '^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[.0-9]*Z$'
               AND g->>'to' ~ '^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[.0-9]*Z$') x
      JOIN ng.node n ON n.id = x.node_id JOIN ng.site s ON s.id = n.site_id JOIN ng.provider p ON p.id = n.provider_id
     WHERE x.at >= report.since() AND x.at < report.until()
     GROUP BY 1, 2, 3, 4, 5, 6
    UNION ALL
    -- Of an incident a row for each provider that gave back, or whose it was.
    SELECT date_trunc('day', x.from_at, 'UTC'), coalesce(s.name, ''), coalesce(p.name, ''), 'incident: ' || x.what, x.reason, x.fault, count(DISTINCT x.id),
           count(DISTINCT x.reservation_id), NULL, x.currency, trim_scale(coalesce(sum(x.amount_micro), 0) / 1e6),
           trim_scale(coalesce(sum(x.amount_micro) FILTER (WHERE x.account IN ('provider_pending', 'provider_available', 'provider_reserve')), 0) / 1e6),
           trim_scale(coalesce(sum(x.amount_micro) FILTER (WHERE x.account IN ('fee', 'sla_expense')), 0) / 1e6)
      FROM (SELECT i.id, i.from_at, i.what, i.reason, i.fault, coalesce(i.site_id, n.site_id, h.site_a) AS site_id,
                   coalesce(CASE WHEN w.who ~ '^[0-9a-f-]{36}$' THEN w.who::uuid END, i.provider_id, n.provider_id, h.provider_id) AS provider_id,
                   c.reservation_id, t.currency, t.amount_micro, a.kind AS account
              FROM ng.incident i LEFT JOIN ng.node n ON n.id = i.node_id LEFT JOIN ng.path h ON h.id = i.path_id
              LEFT JOIN ng.sla_credit c ON c.incident_id = i.id
              LEFT JOIN ng.transfer t ON t.reservation_id = c.reservation_id AND t.kind IN ('sla', 'sla_fee') AND starts_with(t.ref, 'sla/' || c.id || '/')
              LEFT JOIN ng.account a ON a.id = t.dr
              CROSS JOIN LATERAL (SELECT split_part(t.ref, '/', 3) AS who) w
             WHERE i.from_at >= report.since() AND i.from_at < report.until()) x
      LEFT JOIN ng.site s ON s.id = x.site_id LEFT JOIN ng.provider p ON p.id = x.provider_id
     GROUP BY 1, 2, 3, 4, 5, 6, x.currency;
COMMENT ON COLUMN report.sla_breaches.lost IS 'GPU-hours';
COMMENT ON COLUMN report.sla_breaches.credited IS 'currency';
COMMENT ON COLUMN report.sla_breaches.by_provider IS 'currency';
COMMENT ON COLUMN report.sla_breaches.by_market IS 'currency';

INSERT INTO report.catalog (name, description, time_column, days, period, filters, sort, rolls, chart) VALUES
    ('match_latency', 'time the matching core took per request, by day and kind', 'day', 366, true,
     '{}', 'day, kind', '{match}', '{"kind": "line", "x": "day", "y": ["p50", "p99"], "series": "kind"}'),
    ('unmet_demand', 'quotes and reservations that found no place, with the reason that excluded most', 'day', 366, true,
     '{model}', 'day, requests DESC, top_reason', '{match}', '{"kind": "line", "x": "day", "y": ["gpu_hours"], "series": "top_reason"}'),
    ('demand_heatmap', 'what was asked for, and not to be had, by hour of the week', NULL, NULL, true,
     '{model}', 'weekday, hour', '{match}', '{"kind": "heat", "x": "hour", "y": ["weekday"], "value": "asked"}'),
    ('lead_time', 'how far ahead of their start reservations were made, by day and kind', 'day', 366, true,
     '{}', 'day, kind', '{orders}', '{"kind": "line", "x": "day", "y": ["p50", "p90"], "series": "kind"}'),
    ('conversion', 'quotes, and those that became reservations, by day and tenant', 'day', 366, true,
     '{tenant}', 'day, tenant', '{orders}', '{"kind": "line", "x": "day", "y": ["quotes", "reserved"]}'),
    ('reservations', 'reservations made by day, state and kind, with gangs, waiting, preempted, replaced', 'day', 366, true,
     '{tenant}', 'day, state, kind', '{}', '{"kind": "line", "x": "day", "y": ["reservations"], "series": "state"}'),
    ('preemption', 'spot reservations made, and preempted, by day and site', 'day', 366, true,
     '{site}', 'day, site', '{}', '{"kind": "line", "x": "day", "y": ["reservations", "preempted"]}'),
    ('sla_breaches', 'reservations that failed by a fault, time a node was away, and incidents with their credits, by day, site and provider', 'day', 366, true,
     '{site,provider}', 'day, site, provider, breach, reason', '{}', '{"kind": "line", "x": "day", "y": ["lost"], "series": "provider"}');
