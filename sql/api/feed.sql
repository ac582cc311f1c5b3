-- The change feed, the load of a server's copy of the market, and the match log.

-- Rows are read in the order (xid, id), and only those whose transaction began before
-- every one that still runs: nothing can appear behind a cursor later.
CREATE OR REPLACE FUNCTION api.feed_head() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('cursor', pg_snapshot_xmin(pg_current_snapshot()) || ':0')
$$;

CREATE OR REPLACE FUNCTION ng.event_json(e ng.event) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('cursor', e.xid || ':' || e.id, 'at_us', ng.us(e.at), 'kind', e.kind,
        'origin', e.origin, 'tenant_id', e.tenant_id, 'reservation_id', e.reservation_id,
        'node_id', e.node_id, 'payload', e.payload)
$$;

CREATE OR REPLACE FUNCTION ng.cursor_xid(p_cursor text) RETURNS xid8
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN split_part(p_cursor, ':', 1)::xid8;
EXCEPTION WHEN data_exception THEN
    PERFORM ng.refuse(20, 'the cursor is not one of ours');
END $$;
CREATE OR REPLACE FUNCTION ng.cursor_id(p_cursor text) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN split_part(p_cursor, ':', 2)::bigint;
EXCEPTION WHEN data_exception THEN
    PERFORM ng.refuse(20, 'the cursor is not one of ours');
END $$;

-- Not p_own: without the bookings that the asking server made itself and knows of. They
-- count: read is how many were passed. Of an order that waited it heard before, so that
-- only the feed says in what order that and its booking came.
DROP FUNCTION IF EXISTS api.changes(text, bigint);
CREATE OR REPLACE FUNCTION api.changes(p_cursor text, p_limit bigint, p_own boolean) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_xid xid8 := cursor_xid(p_cursor);
    v_id bigint := cursor_id(p_cursor);
    v_me text := coalesce(current_setting('neargpu.origin', true), '');
    v_read bigint;
    v_last text;
    v jsonb;
BEGIN
    WITH e AS MATERIALIZED (
        SELECT * FROM event
         WHERE (xid, id) > (v_xid, v_id) AND xid < pg_snapshot_xmin(pg_current_snapshot())
         ORDER BY xid, id LIMIT p_limit)
    SELECT (SELECT count(*) FROM e),
           (SELECT e.xid || ':' || e.id FROM e ORDER BY e.xid DESC, e.id DESC LIMIT 1),
           (SELECT jsonb_agg(event_json(e) ORDER BY e.xid, e.id) FROM e
             WHERE p_own OR e.origin <> v_me OR e.kind <> 'reservation.confirmed'
                OR (e.payload->>'generation')::bigint > 1)
      INTO v_read, v_last, v;
    RETURN jsonb_build_object('events', coalesce(v, '[]'), 'cursor', coalesce(v_last, p_cursor), 'read', v_read);
END $$;

CREATE OR REPLACE FUNCTION api.events(p_tenant uuid, p_provider uuid, p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_xid xid8 := cursor_xid(coalesce(p_cursor, '0:0'));
    v_id bigint := cursor_id(coalesce(p_cursor, '0:0'));
    v jsonb;
BEGIN
    SELECT jsonb_agg((event_json(e) - 'origin') ORDER BY e.xid, e.id) INTO v
      FROM (SELECT * FROM event x
             WHERE (xid, id) > (v_xid, v_id) AND xid < pg_snapshot_xmin(pg_current_snapshot())
               AND (p_tenant IS NULL OR x.tenant_id = p_tenant)
               AND (p_provider IS NULL OR x.provider_id = p_provider
                    OR EXISTS (SELECT FROM node n WHERE n.id = x.node_id AND n.provider_id = p_provider)
                    OR EXISTS (SELECT FROM booking b JOIN node n ON n.id = b.node_id
                                WHERE b.reservation_id = x.reservation_id AND n.provider_id = p_provider))
               AND (p_tenant IS NULL AND p_provider IS NULL OR x.kind NOT IN ('key.changed', 'node.probed'))
             ORDER BY xid, id LIMIT p_limit) e;
    RETURN jsonb_build_object('events', coalesce(v, '[]'), 'cursor', coalesce(v->-1->>'cursor', p_cursor, '0:0'));
END $$;

CREATE OR REPLACE FUNCTION api.world_keys()
RETURNS TABLE (hash text, role text, tenant_id uuid, provider_id uuid, name text, id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT encode(k.hash, 'hex'), CASE WHEN k.pending THEN 'pending' ELSE k.role END, k.tenant_id, k.provider_id, coalesce(t.name, p.name, k.label), k.id
      FROM api_key k LEFT JOIN tenant t ON t.id = k.tenant_id LEFT JOIN provider p ON p.id = k.provider_id
     WHERE k.revoked_at IS NULL
$$;

DROP FUNCTION IF EXISTS api.world_sites(bigint), api.world_nodes(bigint), api.world_bookings(bigint);
CREATE OR REPLACE FUNCTION api.world_sites(p_id bigint)
RETURNS TABLE (id integer, name text, city text, lat double precision, lon double precision, residency text, zone text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT id, name, city, lat, lon, residency, zone FROM site WHERE p_id IS NULL OR id = p_id ORDER BY id
$$;

CREATE OR REPLACE FUNCTION api.world_nodes(p_id bigint)
RETURNS TABLE (id integer, site_id integer, provider_id uuid, provider text, name text, spiffe_id text, cert text,
    next_cert text, receipt_key text, gpus integer, gpu_model text, gpu_memory_mib integer, offered bigint,
    windows jsonb, address text, state text, last_sync_us bigint, price_micro bigint, currency text, uuids json,
    domain text, spot_micro bigint, notice_us bigint, earlier_keys json)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT n.id, n.site_id, n.provider_id, v.name, n.name, n.spiffe_id, encode(n.cert_sha256, 'hex'),
           encode(n.next_cert_sha256, 'hex'), encode(n.receipt_key, 'hex'), coalesce(upper(n.gpus) - lower(n.gpus), 0),
           n.gpu_model, n.gpu_memory_mib, n.offered,
           CASE WHEN isempty(n.windows) THEN '[]'
                ELSE (SELECT jsonb_agg(jsonb_build_array(us(lower(w)), us(upper(w))) ORDER BY w) FROM unnest(n.windows) w) END,
           n.address, node_state(n), us(n.last_sync_at), p.per_gpu_hour_micro, p.currency,
           array_to_json(ARRAY(SELECT g.uuid FROM gpu g WHERE g.node_id = n.id ORDER BY g.ix)),
           n.domain, t.per_gpu_hour_micro, coalesce(t.notice_us, 0),
           CASE WHEN n.attested = 1 THEN '[]'
                ELSE array_to_json(ARRAY(SELECT encode(k.receipt_key, 'hex') FROM node_key k
                                          WHERE k.node_id = n.id AND k.receipt_key <> n.receipt_key ORDER BY k.attested DESC LIMIT 16)) END
      FROM node n JOIN provider v ON v.id = n.provider_id
      LEFT JOIN price p ON p.node_id = n.id AND p.during @> clock_timestamp()
      LEFT JOIN spot_terms t ON t.node_id = n.id AND t.currency = currency()
     WHERE (p_id IS NULL OR n.id = p_id) AND (p_id IS NOT NULL OR n.state <> 'retired')
     ORDER BY n.id
$$;

CREATE OR REPLACE FUNCTION api.world_datasets(p_id bigint)
RETURNS TABLE (id integer, tenant_id uuid, name text, endpoint text, site_id integer, lat double precision,
    lon double precision, size_bytes bigint, removed integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT id, tenant_id, name, endpoint, site_id, lat, lon, size_bytes, (removed_at IS NOT NULL)::integer
      FROM dataset WHERE (p_id IS NULL AND removed_at IS NULL) OR id = p_id ORDER BY id
$$;

CREATE OR REPLACE FUNCTION api.world_rtts(p_node bigint)
RETURNS TABLE (node_id integer, dataset_id integer, min_us bigint, p50_us bigint, p99_us bigint, count integer, at_us bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT r.node_id, r.dataset_id, r.min_us, r.p50_us, r.p99_us, r.count, us(r.at)
      FROM rtt r JOIN dataset d ON d.id = r.dataset_id AND d.removed_at IS NULL
     WHERE p_node IS NULL OR r.node_id = p_node
$$;

-- Millions of rows: no join for what only spot leases need, and instants as doubles, which
-- are exact to the microsecond until the year 2242 (extract() is numeric, and slow).
CREATE OR REPLACE FUNCTION api.world_bookings(p_now bigint)
RETURNS TABLE (booking bigint, node_id integer, first integer, count integer, from_us bigint, to_us bigint, reservation_id uuid,
    spot integer, started_us bigint, per_gpu_hour_micro bigint, notice_us bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT b.id, b.node_id, lower(b.gpus) - lower(n.gpus), upper(b.gpus) - lower(b.gpus),
           (date_part('epoch', lower(b.during)) * 1000000)::bigint, (date_part('epoch', upper(b.during)) * 1000000)::bigint,
           CASE WHEN b.notice_us IS NOT NULL THEN b.reservation_id END,
           CASE WHEN b.notice_us IS NULL THEN 0
                ELSE (SELECT can_go(r)::integer FROM reservation r WHERE r.id = b.reservation_id) END,
           CASE WHEN b.notice_us IS NOT NULL THEN (SELECT us(lower(r.during)) FROM reservation r WHERE r.id = b.reservation_id) END,
           CASE WHEN b.notice_us IS NOT NULL THEN b.per_gpu_hour_micro END, coalesce(b.notice_us, 0)
      FROM booking b JOIN node n ON n.id = b.node_id
     WHERE upper(b.during) > ts(p_now)
$$;

CREATE OR REPLACE FUNCTION api.match_log_put(m_at bigint[], m_tenant uuid[], m_kind text[], m_outcome text[],
    m_us bigint[], m_model text[], m_gpus integer[], m_duration bigint[], m_site integer[], m_dataset integer[],
    m_rtt bigint[], m_slowdown bigint[], m_why text[])
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    INSERT INTO match_log (at, tenant_id, kind, outcome, match_us, gpu_model, gpus, duration_s, site_id,
        dataset_id, rtt_us, slowdown_ppm, why)
    SELECT ts(a), t, k, o, least(u, 2147483647), m, g, least(d, 2147483647), nullif(s, 0), nullif(ds, 0),
           nullif(r, 0), nullif(sl, 0), w
      FROM unnest(m_at, m_tenant, m_kind, m_outcome, m_us, m_model, m_gpus, m_duration, m_site, m_dataset,
               m_rtt, m_slowdown, m_why) AS x(a, t, k, o, u, m, g, d, s, ds, r, sl, w)
$$;

CREATE OR REPLACE FUNCTION api.admin_status() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object(
        'tenants', (SELECT count(*) FROM tenant), 'providers', (SELECT count(*) FROM provider),
        'sites', (SELECT count(*) FROM site), 'gpus', (SELECT count(*) FROM gpu),
        'nodes', (SELECT coalesce(jsonb_object_agg(state, n), '{}') FROM (SELECT node_state(n) AS state, count(*) AS n FROM node n GROUP BY 1) x),
        'reservations', (SELECT coalesce(jsonb_object_agg(state, n), '{}') FROM (SELECT state, count(*) AS n FROM reservation GROUP BY state) x),
        'database', jsonb_build_object('version', current_setting('server_version'),
            'size_bytes', pg_database_size(current_database()),
            'connections', (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),
            'now_us', us(clock_timestamp())),
        'checks', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', name, 'rows', breaches) ORDER BY name), '[]') FROM api.check_all()),
        -- What billd last found: the same that /metrics says.
        'alarms', (SELECT coalesce(jsonb_agg(jsonb_build_object('check', name, 'rows', breaches, 'at_us', us(at)) ORDER BY name), '[]')
                     FROM check_result WHERE breaches > 0),
        'rollups', rollup_status())
$$;
