-- Roll-ups against the rows they are made of: days that are over and not being made anew.
CREATE OR REPLACE VIEW report.check_rollup AS
    WITH days AS (
        SELECT date_trunc('day', now(), 'UTC') - make_interval(days => i) AS day FROM generate_series(1, 7) i),
    fresh AS (SELECT kind, fresh_at FROM ng.roll_state WHERE fresh_at > now() - interval '1 hour')
    SELECT 'money' AS rollup, d.day, coalesce(u.gross, 0) AS rows_say, coalesce(r.gross, 0) AS rollup_says
      FROM days d
      CROSS JOIN LATERAL (SELECT sum(amount_micro) AS gross FROM ng.usage WHERE at >= d.day AND at < d.day + interval '24 hours') u
      CROSS JOIN LATERAL (SELECT sum(gross_micro) AS gross FROM ng.roll_money WHERE day = d.day) r
     WHERE coalesce(u.gross, 0) <> coalesce(r.gross, 0) AND EXISTS (SELECT FROM fresh WHERE kind = 'money')
       AND NOT EXISTS (SELECT FROM ng.roll_dirty k WHERE k.kind = 'money' AND k.hour = d.day)
    UNION ALL
    SELECT 'given back', d.day, u.back, coalesce(r.back, 0)
      FROM days d
      CROSS JOIN LATERAL (SELECT coalesce((SELECT sum(net_micro) FROM ng.credit_note WHERE issued_at >= d.day AND issued_at < d.day + interval '24 hours'), 0)
          + coalesce((SELECT sum(amount_micro) FROM ng.sla_credit WHERE at >= d.day AND at < d.day + interval '24 hours'), 0) AS back) u
      CROSS JOIN LATERAL (SELECT sum(refund_micro + credit_micro) AS back FROM ng.roll_money WHERE day = d.day) r
     WHERE u.back <> coalesce(r.back, 0) AND EXISTS (SELECT FROM fresh WHERE kind = 'money')
       AND NOT EXISTS (SELECT FROM ng.roll_dirty k WHERE k.kind = 'money' AND k.hour = d.day)
    UNION ALL
    SELECT 'use', d.day, coalesce(u.gpu_ms, 0), coalesce(r.gpu_ms, 0)
      FROM days d
      CROSS JOIN LATERAL (SELECT sum(quantity_ms) AS gpu_ms FROM ng.usage
                           WHERE node_id IS NOT NULL AND used_at >= d.day AND used_at < d.day + interval '24 hours') u
      CROSS JOIN LATERAL (SELECT sum(gpu_ms) AS gpu_ms FROM ng.roll_use WHERE hour >= d.day AND hour < d.day + interval '24 hours') r
     WHERE coalesce(u.gpu_ms, 0) <> coalesce(r.gpu_ms, 0) AND EXISTS (SELECT FROM fresh WHERE kind = 'use')
       AND NOT EXISTS (SELECT FROM ng.roll_dirty k WHERE k.kind = 'use' AND k.hour >= d.day AND k.hour < d.day + interval '24 hours')
    UNION ALL
    SELECT x.rollup, d.day, coalesce(x.of, 0), coalesce(x.site, 0)
      FROM days d
      CROSS JOIN LATERAL (
          SELECT 'use by site' AS rollup, (SELECT sum(gpu_ms) FROM ng.roll_use WHERE hour >= d.day AND hour < d.day + interval '24 hours') AS of,
                 (SELECT sum(gpu_ms) FROM ng.roll_use_site WHERE hour >= d.day AND hour < d.day + interval '24 hours') AS site
          UNION ALL
          SELECT 'capacity by site', (SELECT sum(gpu_ms + firm_ms + spot_ms) FROM ng.roll_capacity WHERE hour >= d.day AND hour < d.day + interval '24 hours'),
                 (SELECT sum(gpu_ms + booked_ms) FROM ng.roll_capacity_site WHERE hour >= d.day AND hour < d.day + interval '24 hours')) x
     WHERE coalesce(x.of, 0) <> coalesce(x.site, 0)
    UNION ALL
    SELECT 'match', d.day, u.n, coalesce(r.n, 0)
      FROM days d
      CROSS JOIN LATERAL (SELECT count(*) AS n FROM ng.match_log WHERE at >= d.day AND at < d.day + interval '24 hours') u
      CROSS JOIN LATERAL (SELECT sum(requests) AS n FROM ng.roll_match WHERE hour >= d.day AND hour < d.day + interval '24 hours') r
     WHERE u.n <> coalesce(r.n, 0) AND EXISTS (SELECT FROM fresh WHERE kind = 'match')
       AND NOT EXISTS (SELECT FROM ng.roll_dirty k WHERE k.kind = 'match' AND k.hour >= d.day AND k.hour < d.day + interval '24 hours');

-- How far behind the roll-ups are.
CREATE VIEW report.freshness AS
    SELECT kind AS rollup, fresh_at AS fresh_as_of, round(extract(epoch FROM now() - fresh_at)) AS age,
           (SELECT count(*) FROM ng.roll_dirty d WHERE d.kind = s.kind) AS marked
      FROM ng.roll_state s;
COMMENT ON COLUMN report.freshness.age IS 's';
INSERT INTO report.catalog (name, description, time_column, days, period, filters, sort, rolls, chart) VALUES
    ('freshness', 'up to when each roll-up has everything', NULL, NULL, false, '{}', 'rollup', '{}', NULL);

-- One report as JSON (not jsonb: it is written once and read once, and that is twice as fast): {name, description, fresh_as_of, from, to, filters, chart, columns:
-- [{name, unit}], rows: [[…]]}. fresh_as_of: what was committed before is in it; null: it was
-- never rolled up. Names come from the catalog only; values are bound.
DROP FUNCTION IF EXISTS report.run(text, timestamptz, timestamptz, text), report.run(text, timestamptz, timestamptz, text, text, text, text, text);
CREATE FUNCTION report.run(p_name text, p_from timestamptz DEFAULT NULL, p_to timestamptz DEFAULT NULL,
    p_site text DEFAULT NULL, p_provider text DEFAULT NULL, p_tenant text DEFAULT NULL, p_model text DEFAULT NULL,
    p_currency text DEFAULT NULL)
RETURNS json LANGUAGE plpgsql SECURITY DEFINER SET search_path = report, pg_temp AS $$
DECLARE
    v report.catalog;
    v_rel oid;
    v_columns jsonb;
    v_names text[];
    v_list text;
    v_where text := 'true';
    v_rows json;
    v_from timestamptz := p_from;
    v_filters jsonb := jsonb_strip_nulls(jsonb_build_object('site', p_site, 'provider', p_provider, 'tenant', p_tenant,
        'model', p_model, 'currency', p_currency));
    v_filter text;
    v_fresh timestamptz := now();
BEGIN
    SELECT * INTO v FROM report.catalog WHERE name = p_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no report is named %: the list of them has their names', left(p_name, 60) USING ERRCODE = 'NG005';
    END IF;
    FOR v_filter IN SELECT jsonb_object_keys(v_filters) LOOP
        IF NOT v_filter = ANY (v.filters) THEN
            RAISE EXCEPTION 'report % cannot be filtered by %: it has %', p_name, v_filter,
                coalesce(nullif(array_to_string(v.filters, ', '), ''), 'no filters') USING ERRCODE = 'NG020';
        END IF;
    END LOOP;
    IF (p_from IS NOT NULL OR p_to IS NOT NULL) AND NOT v.period THEN
        RAISE EXCEPTION 'report % is about now: it takes no period', p_name USING ERRCODE = 'NG020';
    END IF;
    IF p_from >= p_to THEN
        RAISE EXCEPTION 'the period ends before it begins' USING ERRCODE = 'NG020';
    END IF;
    IF p_site IS NOT NULL AND NOT EXISTS (SELECT FROM ng.site WHERE name = p_site) THEN
        RAISE EXCEPTION 'no site is named %', p_site USING ERRCODE = 'NG005';
    END IF;
    IF p_provider IS NOT NULL AND NOT EXISTS (SELECT FROM ng.provider WHERE name = p_provider) THEN
        RAISE EXCEPTION 'no provider is named %', p_provider USING ERRCODE = 'NG005';
    END IF;
    IF p_tenant IS NOT NULL AND NOT EXISTS (SELECT FROM ng.tenant WHERE name = p_tenant) THEN
        RAISE EXCEPTION 'no tenant is named %', p_tenant USING ERRCODE = 'NG005';
    END IF;
    -- What was asked for may be no node's model.
    IF p_model IS NOT NULL AND NOT 'match' = ANY (v.rolls) AND NOT EXISTS (SELECT FROM ng.node WHERE gpu_model = p_model)
        AND NOT EXISTS (SELECT FROM ng.roll_use_day WHERE gpu_model = p_model) THEN
        RAISE EXCEPTION 'no node has GPUs of model %: there are %', left(p_model, 60),
            coalesce((SELECT left(string_agg(DISTINCT gpu_model, ', '), 200) FROM ng.node WHERE gpu_model <> ''), 'none') USING ERRCODE = 'NG005';
    END IF;
    IF p_currency IS NOT NULL AND NOT EXISTS (SELECT FROM ng.account WHERE currency = p_currency) THEN
        RAISE EXCEPTION 'no account is in currency %: there are %', left(p_currency, 60),
            coalesce((SELECT string_agg(DISTINCT currency, ', ') FROM ng.account), 'none') USING ERRCODE = 'NG005';
    END IF;
    IF v_from IS NULL AND v.days IS NOT NULL THEN
        v_from := date_trunc('day', least(now(), p_to) - make_interval(days => v.days), 'UTC');
    END IF;
    PERFORM set_config('report.' || f, coalesce(v_filters->>f, ''), true) FROM unnest(ARRAY['site', 'provider', 'tenant', 'model', 'currency']) f;
    PERFORM set_config('report.since', coalesce(v_from::text, ''), true), set_config('report.until', coalesce(p_to::text, ''), true);
    v_rel := format('report.%I', v.name)::regclass;
    SELECT jsonb_agg(jsonb_build_object('name', attname, 'unit', coalesce(col_description(v_rel, attnum), '')) ORDER BY attnum),
           array_agg(attname::text), string_agg(format('x.%I', attname), ', ' ORDER BY attnum)
      INTO v_columns, v_names, v_list FROM pg_attribute WHERE attrelid = v_rel AND attnum > 0 AND NOT attisdropped;
    IF v.time_column IS NOT NULL THEN
        v_where := v_where || format(' AND ($1 IS NULL OR %1$I >= $1) AND ($2 IS NULL OR %1$I < $2)', v.time_column);
    END IF;
    FOR v_filter IN SELECT CASE f WHEN 'model' THEN 'gpu_model' ELSE f END FROM jsonb_object_keys(v_filters) f LOOP
        IF v_filter = ANY (v_names) THEN
            v_where := v_where || format(' AND %I = $3->>%L', v_filter, CASE v_filter WHEN 'gpu_model' THEN 'model' ELSE v_filter END);
        END IF;
    END LOOP;
    EXECUTE format('SELECT coalesce(json_agg(json_build_array(%s)), ''[]'') FROM (SELECT * FROM report.%I WHERE %s ORDER BY %s LIMIT 100000) x',
        v_list, v.name, v_where, v.sort) INTO v_rows USING v_from, p_to, v_filters;
    IF v.rolls <> '{}' THEN
        SELECT CASE WHEN count(fresh_at) = count(*) THEN min(fresh_at) END INTO v_fresh FROM ng.roll_state WHERE kind = ANY (v.rolls);
    END IF;
    RETURN json_build_object('name', v.name, 'description', v.description, 'fresh_as_of', v_fresh, 'from', v_from, 'to', p_to,
        'filters', v_filters, 'chart', v.chart, 'columns', v_columns, 'rows', v_rows);
END $$;
