-- Reports for administrators: views that a read-only role may query with any SQL client,
-- also by `neargpu admin report NAME` and GET /v1/reports/NAME. Units stand as column
-- comments; report.catalog says which column a period and a site filter. Hours and days
-- are UTC. docs/reports.md describes each.

CREATE TABLE IF NOT EXISTS report.catalog (
    name text PRIMARY KEY,
    description text NOT NULL,
    time_column text,  -- filtered by from and to; null: the report is about now
    site_column text,
    sort text NOT NULL -- ORDER BY list
);

DROP VIEW IF EXISTS report.utilisation_hourly, report.idle_capacity, report.match_latency,
    report.unmet_demand, report.provider_revenue, report.top_tenants, report.rtt_matrix, report.reservations,
    report.path_use CASCADE;

-- GPUs that existed and were booked, hour by hour, for 92 days at most. A node counts from
-- its enrolment to now (retired: to its last report). Each span of time becomes two steps,
-- +GPUs and -GPUs; an hour is the level it begins with and the steps inside it, so the
-- work grows with the bookings, not with bookings times hours.
CREATE VIEW report.utilisation_hourly AS
    WITH window_ AS (
        SELECT date_trunc('hour', greatest(min(enrolled_at), now() - interval '92 days'), 'UTC') AS since, now() AS until
          FROM ng.node WHERE gpus IS NOT NULL),
    spans AS (
        SELECT n.site_id, n.gpu_model, upper(n.gpus) - lower(n.gpus) AS gpus, 0 AS used,
               greatest(n.enrolled_at, w.since) AS a,
               least(CASE WHEN n.state = 'retired' THEN n.last_sync_at ELSE w.until END, w.until) AS z
          FROM ng.node n, window_ w WHERE n.gpus IS NOT NULL
        UNION ALL
        SELECT n.site_id, n.gpu_model, 0, upper(b.gpus) - lower(b.gpus),
               greatest(lower(b.during), w.since), least(upper(b.during), w.until)
          FROM window_ w JOIN ng.booking b ON NOT isempty(b.during) AND lower(b.during) < w.until AND upper(b.during) > w.since
          JOIN ng.node n ON n.id = b.node_id),
    steps AS (
        SELECT site_id, gpu_model, a AS at, gpus, used FROM spans WHERE a < z
        UNION ALL
        SELECT site_id, gpu_model, z, -gpus, -used FROM spans WHERE a < z),
    stepped AS (
        SELECT site_id, gpu_model, date_trunc('hour', at, 'UTC') AS hour, sum(gpus) AS gpus, sum(used) AS used,
               sum(gpus * (3600 - extract(epoch FROM at - date_trunc('hour', at, 'UTC')))) AS gpu_s,
               sum(used * (3600 - extract(epoch FROM at - date_trunc('hour', at, 'UTC')))) AS used_s
          FROM steps GROUP BY 1, 2, 3),
    hourly AS (
        SELECT p.site_id, p.gpu_model, h.hour,
               3600 * coalesce(sum(x.gpus) OVER before, 0) + coalesce(x.gpu_s, 0) AS gpu_s,
               3600 * coalesce(sum(x.used) OVER before, 0) + coalesce(x.used_s, 0) AS used_s
          FROM (SELECT DISTINCT site_id, gpu_model FROM stepped) p
          CROSS JOIN (SELECT generate_series(since, until, interval '1 hour') AS hour FROM window_) h
          LEFT JOIN stepped x ON x.site_id = p.site_id AND x.gpu_model = p.gpu_model AND x.hour = h.hour
        WINDOW before AS (PARTITION BY p.site_id, p.gpu_model ORDER BY h.hour ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
    SELECT h.hour, s.name AS site, h.gpu_model, round(h.gpu_s / 3600, 3) AS capacity,
           round(h.used_s / 3600, 3) AS booked, round(100 * h.used_s / nullif(h.gpu_s, 0), 1) AS utilisation
      FROM hourly h JOIN ng.site s ON s.id = h.site_id
     WHERE h.gpu_s > 0 OR h.used_s > 0;
COMMENT ON COLUMN report.utilisation_hourly.capacity IS 'GPU-hours';
COMMENT ON COLUMN report.utilisation_hourly.booked IS 'GPU-hours';
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

CREATE VIEW report.match_latency AS
    SELECT date_trunc('day', at, 'UTC') AS day, kind, count(*) AS requests,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY match_us) AS p50,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY match_us) AS p95,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY match_us) AS p99,
           percentile_cont(0.999) WITHIN GROUP (ORDER BY match_us) AS p999
      FROM ng.match_log GROUP BY 1, 2;
COMMENT ON COLUMN report.match_latency.p50 IS 'us';
COMMENT ON COLUMN report.match_latency.p95 IS 'us';
COMMENT ON COLUMN report.match_latency.p99 IS 'us';
COMMENT ON COLUMN report.match_latency.p999 IS 'us';

CREATE VIEW report.unmet_demand AS
    SELECT date_trunc('day', at, 'UTC') AS day, nullif(gpu_model, '') AS gpu_model, why AS top_reason, outcome,
           count(*) AS requests, sum(gpus) AS gpus, round(sum(gpus * duration_s / 3600.0), 3) AS gpu_hours
      FROM ng.match_log WHERE kind IN ('quote', 'reserve') AND outcome <> 'ok' GROUP BY 1, 2, 3, 4;
COMMENT ON COLUMN report.unmet_demand.gpu_hours IS 'GPU-hours';

CREATE VIEW report.provider_revenue AS
    SELECT date_trunc('day', t.at, 'UTC') AS day, p.name AS provider, s.name AS site, t.currency,
           count(DISTINCT t.reservation_id) AS reservations,
           sum(t.amount_micro) / 1e6 AS gross,
           coalesce(sum(t.amount_micro) FILTER (WHERE t.kind = 'fee'), 0) / 1e6 AS fee,
           coalesce(sum(t.amount_micro) FILTER (WHERE t.kind = 'capture'), 0) / 1e6 AS revenue
      FROM ng.transfer t
      JOIN LATERAL (
          SELECT n.provider_id, n.site_id FROM ng.node n
           WHERE split_part(t.ref, '/', 2) <> 'path' AND n.id = nullif(split_part(t.ref, '/', 2), 'path')::integer
          UNION ALL
          SELECT p.provider_id, p.site_a FROM ng.path_booking k JOIN ng.path p ON p.id = k.path_id
           WHERE split_part(t.ref, '/', 2) = 'path' AND k.id = split_part(t.ref, '/', 3)::bigint) n ON true
      JOIN ng.provider p ON p.id = n.provider_id JOIN ng.site s ON s.id = n.site_id
     WHERE t.kind IN ('capture', 'fee')
     GROUP BY 1, 2, 3, 4;
COMMENT ON COLUMN report.provider_revenue.gross IS 'currency';
COMMENT ON COLUMN report.provider_revenue.fee IS 'currency';
COMMENT ON COLUMN report.provider_revenue.revenue IS 'currency';

CREATE VIEW report.top_tenants AS
    SELECT t.name AS tenant, r.currency, count(*) AS reservations,
           round(coalesce(sum(m.gpu_ms), 0) / 3600000.0, 3) AS used,
           sum(r.captured_micro) / 1e6 AS spent,
           sum(r.held_micro - r.captured_micro - r.released_micro) / 1e6 AS held
      FROM ng.reservation r JOIN ng.tenant t ON t.id = r.tenant_id
      LEFT JOIN (SELECT reservation_id, sum(gpu_ms) AS gpu_ms FROM ng.meter GROUP BY reservation_id) m ON m.reservation_id = r.id
     GROUP BY 1, 2;
COMMENT ON COLUMN report.top_tenants.used IS 'GPU-hours';
COMMENT ON COLUMN report.top_tenants.spent IS 'currency';
COMMENT ON COLUMN report.top_tenants.held IS 'currency';

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

-- Where reservations stand, and what became of them.
CREATE VIEW report.reservations AS
    SELECT date_trunc('day', r.created_at, 'UTC') AS day, r.state,
           CASE WHEN r.spot THEN 'spot' ELSE 'firm' END AS kind, count(*) AS reservations,
           sum(b.gpus) AS gpus, count(*) FILTER (WHERE b.nodes > 1) AS gangs,
           count(*) FILTER (WHERE r.preempted_by IS NOT NULL) AS preempted,
           count(*) FILTER (WHERE r.replaced_at IS NOT NULL) AS replaced,
           count(*) FILTER (WHERE r.state = 'waiting') AS waiting_now,
           round(extract(epoch FROM max(now() - r.created_at) FILTER (WHERE r.state = 'waiting'))) AS oldest_wait,
           sum(r.captured_micro) / 1e6 AS spent
      FROM ng.reservation r
      CROSS JOIN LATERAL (SELECT coalesce(sum(upper(x.gpus) - lower(x.gpus)), 0) AS gpus, count(*) AS nodes
                            FROM ng.booking x WHERE x.reservation_id = r.id) b
     GROUP BY 1, 2, 3;
COMMENT ON COLUMN report.reservations.oldest_wait IS 's';
COMMENT ON COLUMN report.reservations.spent IS 'currency';

-- Lanes sold, and what they earned, by the day that the reservation began.
CREATE VIEW report.path_use AS
    SELECT date_trunc('day', lower(r.during), 'UTC') AS day, p.name AS path, v.name AS provider, a.name AS site, z.name AS to_site,
           count(*) AS bookings, count(*) FILTER (WHERE k.state = 'failed') AS failed,
           round(sum((upper(k.lanes) - lower(k.lanes)) * coalesce(extract(epoch FROM upper(k.during) - lower(k.during)), 0) / 3600), 3) AS booked,
           round(coalesce(sum(k.served_ms), 0) / 3600000.0, 3) AS served,
           sum(k.captured_micro) / 1e6 AS gross, sum(k.fee_micro) / 1e6 AS fee
      FROM ng.path_booking k JOIN ng.path p ON p.id = k.path_id JOIN ng.provider v ON v.id = p.provider_id
      JOIN ng.site a ON a.id = p.site_a JOIN ng.site z ON z.id = p.site_b JOIN ng.reservation r ON r.id = k.reservation_id
     GROUP BY 1, 2, 3, 4, 5;
COMMENT ON COLUMN report.path_use.booked IS 'lane-hours';
COMMENT ON COLUMN report.path_use.served IS 'lane-hours';
COMMENT ON COLUMN report.path_use.gross IS 'currency';
COMMENT ON COLUMN report.path_use.fee IS 'currency';

INSERT INTO report.catalog (name, description, time_column, site_column, sort) VALUES
    ('utilisation_hourly', 'GPU-hours there were and booked, by site, model and hour', 'hour', 'site', 'hour, site, gpu_model'),
    ('idle_capacity', 'GPUs offered, booked and idle now, by site, provider and model', NULL, 'site', 'site, provider, gpu_model'),
    ('match_latency', 'time the matching core took per request, by day and kind', 'day', NULL, 'day, kind'),
    ('unmet_demand', 'quotes and reservations that found no place, with the reason that excluded most', 'day', NULL, 'day, requests DESC, top_reason'),
    ('provider_revenue', 'captured use by day, provider and site: gross, fee, provider''s share', 'day', 'site', 'day, provider, site'),
    ('top_tenants', 'tenants by what they spent', NULL, NULL, 'spent DESC, tenant'),
    ('reservations', 'reservations made by day, state and kind, with gangs, waiting, preempted, replaced', 'day', NULL, 'day, state, kind'),
    ('path_use', 'lanes of paths booked, served and earned, by day and path', 'day', 'site', 'day, path'),
    ('rtt_matrix', 'measured round trips between sites and data sets', NULL, 'site', 'dataset, p50')
ON CONFLICT (name) DO UPDATE SET description = excluded.description, time_column = excluded.time_column,
    site_column = excluded.site_column, sort = excluded.sort;

-- One report as JSON: {name, columns: [{name, unit}], rows: [[…]]}. Names come from the
-- catalog only; values are bound.
CREATE OR REPLACE FUNCTION report.run(p_name text, p_from timestamptz, p_to timestamptz, p_site text)
RETURNS jsonb LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = report, pg_temp AS $$
DECLARE
    v report.catalog;
    v_rel oid;
    v_columns jsonb;
    v_list text;
    v_where text := 'true';
    v_rows jsonb;
BEGIN
    SELECT * INTO v FROM report.catalog WHERE name = p_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no report is named %: there are %', p_name,
            (SELECT string_agg(name, ', ' ORDER BY name) FROM report.catalog) USING ERRCODE = 'NG005';
    END IF;
    IF p_site IS NOT NULL AND v.site_column IS NULL THEN
        RAISE EXCEPTION 'report % has no sites to filter by', p_name USING ERRCODE = 'NG020';
    END IF;
    IF (p_from IS NOT NULL OR p_to IS NOT NULL) AND v.time_column IS NULL THEN
        RAISE EXCEPTION 'report % is about now: it takes no period', p_name USING ERRCODE = 'NG020';
    END IF;
    IF p_from >= p_to THEN
        RAISE EXCEPTION 'the period ends before it begins' USING ERRCODE = 'NG020';
    END IF;
    IF p_site IS NOT NULL AND NOT EXISTS (SELECT FROM ng.site WHERE name = p_site) THEN
        RAISE EXCEPTION 'no site is named %', p_site USING ERRCODE = 'NG005';
    END IF;
    v_rel := format('report.%I', v.name)::regclass;
    SELECT jsonb_agg(jsonb_build_object('name', attname, 'unit', coalesce(col_description(v_rel, attnum), '')) ORDER BY attnum),
           string_agg(format('to_jsonb(x.%I)', attname), ', ' ORDER BY attnum)
      INTO v_columns, v_list FROM pg_attribute WHERE attrelid = v_rel AND attnum > 0 AND NOT attisdropped;
    IF v.time_column IS NOT NULL THEN
        v_where := v_where || format(' AND ($1 IS NULL OR %1$I >= $1) AND ($2 IS NULL OR %1$I < $2)', v.time_column);
    END IF;
    IF v.site_column IS NOT NULL THEN
        v_where := v_where || format(' AND ($3 IS NULL OR %I = $3)', v.site_column);
    END IF;
    EXECUTE format('SELECT coalesce(jsonb_agg(jsonb_build_array(%s)), ''[]'') FROM (SELECT * FROM report.%I WHERE %s ORDER BY %s LIMIT 100000) x',
        v_list, v.name, v_where, v.sort) INTO v_rows USING p_from, p_to, p_site;
    RETURN jsonb_build_object('name', v.name, 'description', v.description, 'columns', v_columns, 'rows', v_rows);
END $$;
