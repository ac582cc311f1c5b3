-- The change feed and the load of a server's own copy of the market. Order of a sequence
-- is not order of commit: a cursor is "xid:id", and only rows of transactions older than
-- every running one are given out, so that nothing appears behind a cursor later.

CREATE OR REPLACE FUNCTION ng.feed_end() RETURNS xid8
LANGUAGE sql STABLE AS $$ SELECT pg_snapshot_xmin(pg_current_snapshot()) $$;

CREATE OR REPLACE FUNCTION api.feed_head() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('cursor', feed_end() || ':0')
$$;

-- Events behind the cursor for one reader; both ids null: everything.
CREATE OR REPLACE FUNCTION ng.feed(p_tenant uuid, p_provider uuid, p_cursor text, p_limit bigint, p_origin boolean)
RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_xid xid8;
    v_id bigint;
    v_events jsonb;
    v_count bigint;
    v_last text;
BEGIN
    IF p_cursor IS NOT NULL AND p_cursor !~ '^[0-9]{1,19}:[0-9]{1,18}$' THEN
        RAISE EXCEPTION 'cursor "%" is not one of ours', left(p_cursor, 40) USING ERRCODE = 'NG020';
    END IF;
    v_xid := split_part(coalesce(p_cursor, '0:0'), ':', 1)::xid8;
    v_id := split_part(coalesce(p_cursor, '0:0'), ':', 2)::bigint;
    SELECT coalesce(jsonb_agg(x.event ORDER BY x.xid, x.id), '[]'), count(*),
           (array_agg(x.xid || ':' || x.id ORDER BY x.xid DESC, x.id DESC))[1]
      INTO v_events, v_count, v_last
      FROM (SELECT e.xid, e.id,
                   jsonb_build_object('cursor', e.xid || ':' || e.id, 'at_us', ng.us(e.at), 'kind', e.kind,
                       'tenant_id', e.tenant_id, 'reservation_id', e.reservation_id, 'node_id', e.node_id, 'payload', e.payload)
                   || CASE WHEN p_origin THEN jsonb_build_object('origin', e.origin) ELSE '{}' END AS event
              FROM ng.event e
             WHERE (e.xid, e.id) > (v_xid, v_id) AND e.xid < ng.feed_end()
               AND (p_tenant IS NULL OR e.tenant_id = p_tenant)
               AND (p_provider IS NULL OR e.node_id IN (SELECT id FROM ng.node WHERE provider_id = p_provider)
                    OR e.reservation_id IN (SELECT b.reservation_id FROM ng.booking b JOIN ng.node n ON n.id = b.node_id
                                             WHERE n.provider_id = p_provider))
             ORDER BY e.xid, e.id LIMIT p_limit) x;
    -- Nothing more: the reader may go on from the end of what was visible.
    IF v_count < p_limit THEN
        v_last := greatest(ng.feed_end(), v_xid)::text || ':0';
    END IF;
    RETURN jsonb_build_object('events', v_events, 'cursor', v_last);
END $$;
CREATE OR REPLACE FUNCTION api.changes(p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$ SELECT feed(NULL, NULL, p_cursor, p_limit, true) $$;
CREATE OR REPLACE FUNCTION api.events(p_tenant uuid, p_provider uuid, p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$ SELECT feed(p_tenant, p_provider, p_cursor, p_limit, false) $$;

CREATE OR REPLACE FUNCTION api.world_keys()
RETURNS TABLE (hash text, role text, tenant_id uuid, provider_id uuid, name text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT encode(k.hash, 'hex'), k.role, k.tenant_id, k.provider_id, coalesce(t.name::text, p.name::text, k.label)
      FROM api_key k LEFT JOIN tenant t ON t.id = k.tenant_id LEFT JOIN provider p ON p.id = k.provider_id
     WHERE k.revoked_at IS NULL
$$;
CREATE OR REPLACE FUNCTION api.world_sites(p_id bigint)
RETURNS TABLE (id integer, name text, city text, lat double precision, lon double precision, residency text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT s.id, s.name, s.city, s.lat, s.lon, s.residency FROM site s WHERE p_id IS NULL OR s.id = p_id ORDER BY s.id
$$;
CREATE OR REPLACE FUNCTION api.world_nodes(p_id bigint)
RETURNS TABLE (id integer, site_id integer, provider_id uuid, provider text, name text, spiffe_id text, cert text, next_cert text,
    receipt_key text, gpus integer, gpu_model text, gpu_memory_mib integer, offered bigint, windows jsonb, address text, state text,
    last_sync_us bigint, per_gpu_hour_micro bigint, currency text, uuids jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT n.id, n.site_id, n.provider_id, p.name, n.name, n.spiffe_id, encode(n.cert_sha256, 'hex'), encode(n.next_cert_sha256, 'hex'),
           encode(n.receipt_key, 'hex'), coalesce(upper(n.gpus) - lower(n.gpus), 0), n.gpu_model, n.gpu_memory_mib, n.offered,
           (SELECT coalesce(jsonb_agg(jsonb_build_array(us(lower(w)), us(upper(w))) ORDER BY w), '[]') FROM unnest(n.windows) w),
           n.address, n.state, us(n.last_sync_at), r.per_gpu_hour_micro, r.currency,
           (SELECT coalesce(jsonb_agg(g.uuid ORDER BY g.ix), '[]') FROM gpu g WHERE g.node_id = n.id)
      FROM node n JOIN provider p ON p.id = n.provider_id
      LEFT JOIN price r ON r.node_id = n.id AND r.during @> now()
     WHERE (p_id IS NULL OR n.id = p_id) AND n.state <> 'retired' ORDER BY n.id
$$;
CREATE OR REPLACE FUNCTION api.world_datasets(p_id bigint)
RETURNS TABLE (id integer, tenant_id uuid, name text, endpoint text, site_id integer, lat double precision, lon double precision,
    size_bytes bigint, removed integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT d.id, d.tenant_id, d.name, d.endpoint, d.site_id, coalesce(d.lat, s.lat), coalesce(d.lon, s.lon), d.size_bytes,
           (d.removed_at IS NOT NULL)::integer
      FROM dataset d LEFT JOIN site s ON s.id = d.site_id
     WHERE CASE WHEN p_id IS NULL THEN d.removed_at IS NULL ELSE d.id = p_id END ORDER BY d.id
$$;
CREATE OR REPLACE FUNCTION api.world_rtts(p_node bigint)
RETURNS TABLE (node_id integer, dataset_id integer, min_us bigint, p50_us bigint, p99_us bigint, count integer, at_us bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT r.node_id, r.dataset_id, r.min_us, r.p50_us, r.p99_us, r.count, us(r.at)
      FROM rtt r WHERE p_node IS NULL OR r.node_id = p_node ORDER BY r.node_id, r.dataset_id
$$;
CREATE OR REPLACE FUNCTION api.world_bookings(p_now_us bigint)
RETURNS TABLE (booking bigint, node_id integer, first integer, count integer, from_us bigint, to_us bigint, reservation_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT b.id, b.node_id, lower(b.gpus) - lower(n.gpus), upper(b.gpus) - lower(b.gpus), us(lower(b.during)), us(upper(b.during)),
           b.reservation_id
      FROM booking b JOIN node n ON n.id = b.node_id WHERE NOT isempty(b.during) AND upper(b.during) > ts(p_now_us)
$$;
