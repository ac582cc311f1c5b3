-- What there is, what of it is used, and by what data.

-- GPUs that existed, were booked and were used, hour by hour: one row of the roll-ups by site
-- each, those by provider for one of them only. Rounded in whole numbers, and floating: its
-- rows are many, and a division of numerics takes longer than the rest of a row.
CREATE VIEW report.utilisation_hourly AS
    SELECT c.hour, s.name AS site, c.gpu_model, ((c.gpu_ms + 1800) / 3600)::float8 / 1000 AS capacity,
           ((c.booked_ms + 1800) / 3600)::float8 / 1000 AS booked, ((coalesce(u.gpu_ms, 0) + 1800) / 3600)::float8 / 1000 AS used,
           ((1000 * c.booked_ms + c.gpu_ms / 2) / nullif(c.gpu_ms, 0))::float8 / 10 AS utilisation
      FROM (SELECT hour, site_id, gpu_model, gpu_ms, booked_ms FROM ng.roll_capacity_site
             WHERE report.only('provider') IS NULL AND hour >= report.since() AND hour < report.until()
            UNION ALL
            SELECT hour, site_id, gpu_model, sum(gpu_ms)::bigint, sum(firm_ms + spot_ms)::bigint FROM ng.roll_capacity
             WHERE hour >= report.since() AND hour < report.until()
               AND provider_id = (SELECT id FROM ng.provider WHERE name = report.only('provider'))
             GROUP BY 1, 2, 3) c
      LEFT JOIN (SELECT hour, site_id, gpu_model, gpu_ms FROM ng.roll_use_site
                  WHERE report.only('provider') IS NULL AND hour >= report.since() AND hour < report.until()
                 UNION ALL
                 SELECT hour, site_id, gpu_model, sum(gpu_ms)::bigint FROM ng.roll_use
                  WHERE hour >= report.since() AND hour < report.until()
                    AND provider_id = (SELECT id FROM ng.provider WHERE name = report.only('provider'))
                  GROUP BY 1, 2, 3) u
        ON u.hour = c.hour AND u.site_id = c.site_id AND u.gpu_model = c.gpu_model
      JOIN ng.site s ON s.id = c.site_id;
COMMENT ON COLUMN report.utilisation_hourly.capacity IS 'GPU-hours';
COMMENT ON COLUMN report.utilisation_hourly.booked IS 'GPU-hours';
COMMENT ON COLUMN report.utilisation_hourly.used IS 'GPU-hours';
COMMENT ON COLUMN report.utilisation_hourly.utilisation IS '%';

-- Idle: on offer, on a node that is up and within its windows, and not booked now.
CREATE VIEW report.idle_capacity AS
    SELECT s.name AS site, p.name AS provider, n.gpu_model, count(*) AS nodes,
           count(*) FILTER (WHERE n.state = 'up') AS nodes_up,
           sum(upper(n.gpus) - lower(n.gpus)) AS gpus, sum(o.offered) AS offered, sum(b.gpus) AS booked_now,
           coalesce(sum(greatest(0, o.offered - b.gpus))
               FILTER (WHERE n.state = 'up' AND (n.windows = '{}' OR n.windows @> now())), 0) AS idle_now
      FROM ng.node n JOIN ng.site s ON s.id = n.site_id JOIN ng.provider p ON p.id = n.provider_id
      CROSS JOIN LATERAL (SELECT length(replace(n.offered::bit(64)::text, '0', '')) AS offered) o
      CROSS JOIN LATERAL (SELECT coalesce(sum(upper(b.gpus) - lower(b.gpus)), 0) AS gpus FROM ng.booking b
                           WHERE b.node_id = n.id AND upper(b.during) > now() AND b.during @> now()) b
     WHERE n.gpus IS NOT NULL AND n.state <> 'retired'
     GROUP BY 1, 2, 3;

-- Idle GPUs as the runs of neighbours that a booking can take.
CREATE VIEW report.fragmentation AS
    WITH free AS (
        SELECT n.site_id, n.gpu_model, n.id AS node_id, upper(n.gpus) - lower(n.gpus) AS size, g.i
          FROM ng.node n CROSS JOIN LATERAL generate_series(0, upper(n.gpus) - lower(n.gpus) - 1) g(i)
         WHERE n.gpus IS NOT NULL AND n.state = 'up' AND (n.windows = '{}' OR n.windows @> now())
           AND (n.offered >> g.i) & 1 = 1
           AND NOT EXISTS (SELECT FROM ng.booking b WHERE b.node_id = n.id AND upper(b.during) > now()
                              AND b.during @> now() AND b.gpus @> lower(n.gpus) + g.i)),
    runs AS (
        SELECT site_id, gpu_model, node_id, size, count(*) AS len
          FROM (SELECT f.*, i - row_number() OVER (PARTITION BY node_id ORDER BY i) AS run FROM free f) x
         GROUP BY site_id, gpu_model, node_id, size, run)
    SELECT s.name AS site, r.gpu_model, sum(len) AS idle, count(DISTINCT node_id) AS nodes,
           count(*) FILTER (WHERE len = size) AS whole_nodes, max(len) AS longest_run,
           sum(len / 2) AS fits_2, sum(len / 4) AS fits_4, sum(len / 8) AS fits_8,
           round(100 * (1 - coalesce(sum(len) FILTER (WHERE len = size), 0) / sum(len)), 1) AS fragmentation
      FROM runs r JOIN ng.site s ON s.id = r.site_id
     GROUP BY 1, 2;
COMMENT ON COLUMN report.fragmentation.fragmentation IS '%';

-- Of what was used, what had been promised firmly.
CREATE VIEW report.reserved_coverage AS
    SELECT u.day, s.name AS site, u.gpu_model,
           round(sum(u.gpu_ms) FILTER (WHERE NOT u.spot) / 3600000.0, 3) AS firm,
           round(sum(u.gpu_ms) FILTER (WHERE u.spot) / 3600000.0, 3) AS spot,
           round(100.0 * coalesce(sum(u.gpu_ms) FILTER (WHERE NOT u.spot), 0) / nullif(sum(u.gpu_ms), 0), 1) AS coverage
      FROM ng.roll_use_day u JOIN ng.site s ON s.id = u.site_id
     WHERE u.day >= report.since() AND u.day < report.until()
     GROUP BY 1, 2, 3;
COMMENT ON COLUMN report.reserved_coverage.firm IS 'GPU-hours';
COMMENT ON COLUMN report.reserved_coverage.spot IS 'GPU-hours';
COMMENT ON COLUMN report.reserved_coverage.coverage IS '%';

-- Seasonal naive with a trend: a day is the mean of that weekday in the last four weeks,
-- times how the last two weeks compare with the two before them. The same rule, applied a
-- week ahead to each of the last 28 days, gives the error and the 80 % band.
CREATE VIEW report.forecast AS
    WITH today AS (SELECT least(now(), report.until()) AS at, date_trunc('day', least(now(), report.until()), 'UTC') AS day),
    daily AS (
        SELECT u.day, u.gpu_model, sum(u.gpu_ms) / 3600000.0 AS used
          FROM ng.roll_use_day u, today t
         WHERE u.day >= t.day - interval '71 days' AND u.day < t.day
           AND (report.only('site') IS NULL OR u.site_id = (SELECT id FROM ng.site WHERE name = report.only('site')))
         GROUP BY 1, 2),
    -- Every day of the models that were used at all, those without use as 0.
    filled AS (
        SELECT d.day, m.gpu_model, coalesce(x.used, 0) AS used, m.since
          FROM today t CROSS JOIN (SELECT gpu_model, min(day) AS since FROM daily GROUP BY 1) m
          CROSS JOIN LATERAL generate_series(m.since, t.day - interval '1 day', interval '1 day') d(day)
          LEFT JOIN daily x ON x.day = d.day AND x.gpu_model = m.gpu_model),
    -- What is asked for: 28 days to come from what is known today, 28 days past from what was
    -- known a week before each.
    wanted AS (
        SELECT m.gpu_model, t.day + make_interval(days => i) AS day, t.day AS known
          FROM today t, generate_series(0, 27) i, (SELECT DISTINCT gpu_model FROM filled) m
        UNION ALL
        SELECT f.gpu_model, f.day, f.day - interval '6 days' FROM filled f, today t
         WHERE f.day >= t.day - interval '28 days' AND f.since <= f.day - interval '34 days'),
    base AS (
        SELECT w.gpu_model, w.day, w.known,
               avg(f.used) FILTER (WHERE extract(isodow FROM f.day AT TIME ZONE 'UTC') = extract(isodow FROM w.day AT TIME ZONE 'UTC')) AS level,
               avg(f.used) FILTER (WHERE f.day >= w.known - interval '14 days') AS late,
               avg(f.used) FILTER (WHERE f.day < w.known - interval '14 days') AS early
          FROM wanted w JOIN filled f ON f.gpu_model = w.gpu_model AND f.day >= w.known - interval '28 days' AND f.day < w.known
         GROUP BY 1, 2, 3),
    -- The trend is what two weeks made of the two before, halved for the distance, and bounded.
    told AS (
        SELECT gpu_model, day, known, level * least(1.5, greatest(0.5, coalesce(sqrt(late / nullif(early, 0)), 1))) AS forecast
          FROM base WHERE level IS NOT NULL),
    error AS (
        SELECT x.gpu_model, 100 * sum(abs(x.forecast - f.used)) / nullif(sum(f.used), 0) AS wape, stddev_pop(x.forecast - f.used) AS sd,
               100 * sum(abs(n.used - f.used)) / nullif(sum(f.used), 0) AS naive, count(*) AS days
          FROM told x JOIN today t ON x.day < t.day JOIN filled f ON f.gpu_model = x.gpu_model AND f.day = x.day
          JOIN filled n ON n.gpu_model = x.gpu_model AND n.day = x.day - interval '7 days'
         GROUP BY 1)
    SELECT x.day, x.gpu_model, round(x.forecast::numeric, 3) AS forecast, round(greatest(0, x.forecast - 1.2816 * e.sd)::numeric, 3) AS low,
           round((x.forecast + 1.2816 * e.sd)::numeric, 3) AS high, round(e.wape::numeric, 1) AS error,
           round(e.naive::numeric, 1) AS naive_error, coalesce(e.days, 0) AS tested
      FROM told x JOIN today t ON x.day >= t.day LEFT JOIN error e ON e.gpu_model = x.gpu_model;
COMMENT ON COLUMN report.forecast.forecast IS 'GPU-hours';
COMMENT ON COLUMN report.forecast.low IS 'GPU-hours';
COMMENT ON COLUMN report.forecast.high IS 'GPU-hours';
COMMENT ON COLUMN report.forecast.error IS '%';
COMMENT ON COLUMN report.forecast.naive_error IS '%';
COMMENT ON COLUMN report.forecast.tested IS 'days';

CREATE VIEW report.late_usage AS
    SELECT u.day, s.name AS site, p.name AS provider, sum(u.receipts) AS receipts, sum(u.late) AS late,
           round(100.0 * sum(u.late) / sum(u.receipts), 2) AS share, round(sum(u.late_gpu_ms) / 3600000.0, 3) AS late_use,
           round(max(u.worst_late_ms) / 1000.0, 1) AS worst
      FROM ng.roll_use_day u JOIN ng.site s ON s.id = u.site_id JOIN ng.provider p ON p.id = u.provider_id
     WHERE u.day >= report.since() AND u.day < report.until()
     GROUP BY 1, 2, 3;
COMMENT ON COLUMN report.late_usage.share IS '%';
COMMENT ON COLUMN report.late_usage.late_use IS 'GPU-hours';
COMMENT ON COLUMN report.late_usage.worst IS 's';

-- Must be empty: what should have been charged by now, and why it was not.
CREATE VIEW report.unbilled AS
    SELECT r.received_at AS since, t.name AS tenant, s.name AS site, p.name AS provider, r.reservation_id AS reservation, n.name AS node,
           count(*) AS receipts, round(greatest(0, max(r.gpu_ms) - coalesce(max(m.gpu_ms), 0)) / 3600000.0, 3) AS used,
           CASE WHEN min(r.seq) > coalesce(max(m.seq), 0) + 1 THEN 'receipt ' || coalesce(max(m.seq), 0) + 1 || ' is missing'
                ELSE 'not rated' END AS why
      FROM (SELECT x.*, min(x.received_at) OVER (PARTITION BY x.reservation_id, x.node_id) AS first_at FROM ng.receipt_due d
              LEFT JOIN ng.meter u ON u.reservation_id = d.reservation_id AND u.node_id = d.node_id
              JOIN ng.receipt x ON x.reservation_id = d.reservation_id AND x.node_id = d.node_id AND x.seq > coalesce(u.seq, 0)
             WHERE x.received_at < now() - interval '60 seconds') y
      CROSS JOIN LATERAL (SELECT y.reservation_id, y.node_id, y.seq, y.gpu_ms, y.first_at AS received_at) r
      JOIN ng.reservation v ON v.id = r.reservation_id JOIN ng.tenant t ON t.id = v.tenant_id
      JOIN ng.node n ON n.id = r.node_id JOIN ng.site s ON s.id = n.site_id JOIN ng.provider p ON p.id = n.provider_id
      LEFT JOIN ng.meter m ON m.reservation_id = r.reservation_id AND m.node_id = r.node_id
     GROUP BY 1, 2, 3, 4, 5, 6
    UNION ALL
    SELECT v.ended_at, t.name, s.name, p.name, k.reservation_id, h.name, 1,
           NULL, 'a path that was not billed'
      FROM ng.path_booking k JOIN ng.reservation v ON v.id = k.reservation_id JOIN ng.tenant t ON t.id = v.tenant_id
      JOIN ng.path h ON h.id = k.path_id JOIN ng.site s ON s.id = h.site_a JOIN ng.provider p ON p.id = h.provider_id
     WHERE k.billed_at IS NULL AND v.state IN ('ended', 'cancelled', 'failed') AND v.ended_at < now() - interval '10 minutes';
COMMENT ON COLUMN report.unbilled.used IS 'GPU-hours';

CREATE VIEW report.rtt_matrix AS
    SELECT s.name AS site, d.name AS dataset, t.name AS tenant, count(*) AS nodes, min(r.min_us) AS min,
           percentile_disc(0.5) WITHIN GROUP (ORDER BY r.p50_us) AS p50, max(r.p99_us) AS p99,
           sum(r.count) AS samples, round(extract(epoch FROM now() - max(r.at))) AS age
      FROM ng.rtt r JOIN ng.node n ON n.id = r.node_id JOIN ng.site s ON s.id = n.site_id
      JOIN ng.dataset d ON d.id = r.dataset_id JOIN ng.tenant t ON t.id = d.tenant_id
     WHERE d.removed_at IS NULL
     GROUP BY 1, 2, 3;
COMMENT ON COLUMN report.rtt_matrix.min IS 'us';
COMMENT ON COLUMN report.rtt_matrix.p50 IS 'us';
COMMENT ON COLUMN report.rtt_matrix.p99 IS 'us';
COMMENT ON COLUMN report.rtt_matrix.age IS 's';

-- Where the data of reservations stood, and where their GPUs were. Data that stands at none
-- of the market's sites has the site "elsewhere".
CREATE VIEW report.interregion_flow AS
    SELECT coalesce(d.site, 'elsewhere') AS data_site, s.name AS site, count(DISTINCT r.id) AS reservations,
           round(sum(b.gpus * extract(epoch FROM b.till - b.since)) / 3600, 3) AS booked,
           count(DISTINCT r.id) FILTER (WHERE h.residency <> s.residency) AS abroad,
           round(avg(d.rtt_us)) AS rtt
      FROM ng.reservation r
      CROSS JOIN LATERAL (SELECT x->>'site' AS site, CASE WHEN jsonb_typeof(x->'rtt_us') = 'number' THEN (x->>'rtt_us')::numeric END AS rtt_us
                            FROM jsonb_array_elements(r.data) x WHERE jsonb_typeof(r.data) = 'array') d
      JOIN LATERAL (SELECT k.site_id, sum(upper(k.gpus) - lower(k.gpus)) AS gpus, min(lower(k.during)) AS since, max(upper(k.during)) AS till
                      FROM ng.booking k WHERE k.reservation_id = r.id AND NOT isempty(k.during) GROUP BY 1) b ON true
      JOIN ng.site s ON s.id = b.site_id LEFT JOIN ng.site h ON h.name = d.site
     WHERE r.created_at >= report.since() AND r.created_at < report.until()
     GROUP BY 1, 2;
COMMENT ON COLUMN report.interregion_flow.booked IS 'GPU-hours';
COMMENT ON COLUMN report.interregion_flow.rtt IS 'us';

-- Promised and delivered, of bookings that ended within the period. A promise is for the
-- whole reservation where it failed, and to its end where it ended before: what was given back
-- is neither promised nor delivered. A node that leaves a gang alone does not end it.
CREATE VIEW report.provider_reliability AS
    SELECT p.name AS provider, s.name AS site, count(DISTINCT r.id) AS reservations,
           count(DISTINCT r.id) FILTER (WHERE e.failed) AS failed,
           count(DISTINCT r.id) FILTER (WHERE r.replaced_at IS NOT NULL) AS replaced,
           round(sum(t.promised_ms) / 3600000, 3) AS promised,
           round(sum(least(coalesce(m.gpu_ms, 0), t.promised_ms)) / 3600000, 3) AS delivered,
           round(coalesce(sum(t.early_ms) FILTER (WHERE v.asked), 0) / 3600000, 3) AS given_back,
           round(coalesce(sum(t.early_ms) FILTER (WHERE NOT v.asked), 0) / 3600000, 3) AS ended_early,
           round(100 * sum(least(coalesce(m.gpu_ms, 0), t.promised_ms)) / nullif(sum(t.promised_ms), 0), 2) AS reliability
      FROM ng.node n JOIN ng.site s ON s.id = n.site_id JOIN ng.provider p ON p.id = n.provider_id
      CROSS JOIN LATERAL (
          SELECT k.reservation_id, sum(upper(k.gpus) - lower(k.gpus)) AS gpus, min(lower(k.during)) AS since
            FROM (SELECT x.reservation_id, x.gpus, x.during FROM ng.booking x
                   WHERE x.node_id = n.id AND upper(x.during) >= report.since() AND upper(x.during) < least(report.until(), now())) k
           GROUP BY k.reservation_id) b
      JOIN ng.reservation r ON r.id = b.reservation_id
      CROSS JOIN LATERAL (SELECT r.state = 'failed' AND r.fault IS DISTINCT FROM 'preempted' AS failed) e
      CROSS JOIN LATERAL (SELECT CASE WHEN e.failed THEN upper(r.during)
                                      ELSE greatest(b.since, least(upper(r.during), coalesce(r.ended_at, upper(r.during)))) END AS until) u
      CROSS JOIN LATERAL (SELECT 1000 * b.gpus * extract(epoch FROM u.until - b.since) AS promised_ms,
                                 CASE WHEN r.fault IS NULL THEN 1000 * b.gpus * extract(epoch FROM upper(r.during) - u.until) ELSE 0 END AS early_ms) t
      CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM ng.revocation k WHERE k.reservation_id = r.id) AS asked) v
      LEFT JOIN ng.meter m ON m.reservation_id = b.reservation_id AND m.node_id = n.id
     GROUP BY 1, 2;
COMMENT ON COLUMN report.provider_reliability.promised IS 'GPU-hours';
COMMENT ON COLUMN report.provider_reliability.delivered IS 'GPU-hours';
COMMENT ON COLUMN report.provider_reliability.given_back IS 'GPU-hours';
COMMENT ON COLUMN report.provider_reliability.ended_early IS 'GPU-hours';
COMMENT ON COLUMN report.provider_reliability.reliability IS '%';

-- Lanes sold, and what they earned, by the day that the reservation began.
CREATE VIEW report.path_use AS
    SELECT date_trunc('day', lower(r.during), 'UTC') AS day, p.name AS path, v.name AS provider, a.name AS site, z.name AS to_site,
           count(*) AS bookings, count(*) FILTER (WHERE k.state = 'failed') AS failed,
           round(sum((upper(k.lanes) - lower(k.lanes)) * coalesce(extract(epoch FROM upper(k.during) - lower(k.during)), 0) / 3600), 3) AS booked,
           round(coalesce(sum(k.served_ms), 0) / 3600000.0, 3) AS served,
           trim_scale(sum(k.captured_micro) / 1e6) AS gross, trim_scale(sum(k.fee_micro) / 1e6) AS fee
      FROM ng.path_booking k JOIN ng.path p ON p.id = k.path_id JOIN ng.provider v ON v.id = p.provider_id
      JOIN ng.site a ON a.id = p.site_a JOIN ng.site z ON z.id = p.site_b JOIN ng.reservation r ON r.id = k.reservation_id
     GROUP BY 1, 2, 3, 4, 5;
COMMENT ON COLUMN report.path_use.booked IS 'lane-hours';
COMMENT ON COLUMN report.path_use.served IS 'lane-hours';
COMMENT ON COLUMN report.path_use.gross IS 'currency';
COMMENT ON COLUMN report.path_use.fee IS 'currency';

INSERT INTO report.catalog (name, description, time_column, days, period, filters, sort, rolls, chart) VALUES
    ('utilisation_hourly', 'GPU-hours there were, booked and used, by site, model and hour', 'hour', 31, true,
     '{site,provider,model}', 'hour, site, gpu_model', '{capacity,use}',
     '{"kind": "line", "x": "hour", "y": ["capacity", "booked", "used"]}'),
    ('idle_capacity', 'GPUs offered, booked and idle now, by site, provider and model', NULL, NULL, false,
     '{site,provider,model}', 'site, provider, gpu_model', '{}', '{"kind": "bar", "x": "site", "y": ["offered", "booked_now", "idle_now"]}'),
    ('fragmentation', 'idle GPUs now as the runs of neighbours that can be booked, by site and model', NULL, NULL, false,
     '{site,model}', 'site, gpu_model', '{}', '{"kind": "bar", "x": "site", "y": ["idle", "longest_run"]}'),
    ('reserved_coverage', 'GPU-hours used under firm reservations and on spot, by day, site and model', 'day', 366, true,
     '{site,model}', 'day, site, gpu_model', '{use}', '{"kind": "line", "x": "day", "y": ["firm", "spot"]}'),
    ('forecast', 'GPU-hours expected of the next 28 days, by model, with the error that the same rule made', NULL, NULL, true,
     '{site,model}', 'gpu_model, day', '{use}', '{"kind": "line", "x": "day", "y": ["forecast"], "series": "gpu_model"}'),
    ('late_usage', 'receipts that were heard of more than 5 minutes after their end, by day, site and provider', 'day', 366, true,
     '{site,provider}', 'day, site, provider', '{use}', '{"kind": "line", "x": "day", "y": ["receipts", "late"]}'),
    ('unbilled', 'use that should have been charged by now: must be empty', NULL, NULL, false,
     '{site,provider,tenant}', 'since, reservation, node', '{}', NULL),
    ('rtt_matrix', 'measured round trips between sites and data sets', NULL, NULL, false,
     '{site,tenant}', 'dataset, p50', '{}', '{"kind": "heat", "x": "site", "y": ["dataset"], "value": "p50"}'),
    ('interregion_flow', 'where the data of reservations stood, and where their GPUs were', NULL, NULL, true,
     '{site}', 'data_site, site', '{}', '{"kind": "heat", "x": "site", "y": ["data_site"], "value": "booked"}'),
    ('provider_reliability', 'GPU-hours promised and delivered, by provider and site, of bookings that ended', NULL, NULL, true,
     '{site,provider}', 'provider, site', '{}', '{"kind": "bar", "x": "provider", "y": ["promised", "delivered"]}'),
    ('path_use', 'lanes of paths booked, served and earned, by day and path', 'day', 366, true,
     '{site,provider}', 'day, path', '{}', '{"kind": "line", "x": "day", "y": ["booked", "served"]}');
