-- The market's people and places: tenants, providers, API keys, sites, join codes, nodes, prices,
-- data sets. Instants cross the API as int64 microseconds, refusals as SQLSTATE NGnnn with
-- nnn an err_code of client/lib/err.h and a text ready to be shown.

CREATE OR REPLACE FUNCTION ng.check_name(p_what text, p_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_name IS NULL OR p_name !~ '^[a-z0-9][a-z0-9-]{0,62}$' THEN
        RAISE EXCEPTION '% name "%" is not valid: 1 to 63 of a-z, 0-9 and -, not starting with -', p_what, left(coalesce(p_name, ''), 80)
            USING ERRCODE = 'NG020';
    END IF;
END $$;

CREATE OR REPLACE FUNCTION api.market() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('name', name, 'currency', currency, 'fee_ppm', fee_ppm, 'tax_ppm', tax_ppm,
        'issuer_name', issuer_name) FROM market
$$;

CREATE OR REPLACE FUNCTION api.tenant_create(p_name text, p_zone text, p_credit_micro bigint, p_key_hash bytea,
    p_principal text, p_key text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_key, p_hash);
    v_id uuid;
    v_currency text := (SELECT currency FROM market);
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    PERFORM check_name('tenant', p_name);
    IF p_zone IS NOT NULL AND NOT EXISTS (SELECT FROM pg_timezone_names WHERE name = p_zone) THEN
        RAISE EXCEPTION 'time zone "%" is not known: use a name such as Asia/Tokyo', left(p_zone, 80) USING ERRCODE = 'NG020';
    END IF;
    IF coalesce(p_credit_micro, 0) < 0 THEN
        RAISE EXCEPTION 'credit must not be negative' USING ERRCODE = 'NG020';
    END IF;
    INSERT INTO tenant (name, zone) VALUES (p_name, coalesce(p_zone, 'Asia/Tokyo'))
    ON CONFLICT (name) DO NOTHING RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        RAISE EXCEPTION 'tenant % exists already', p_name USING ERRCODE = 'NG006';
    END IF;
    INSERT INTO api_key (hash, role, tenant_id) VALUES (p_key_hash, 'tenant', v_id);
    INSERT INTO account (kind, tenant_id, currency, guarded, floor_micro) VALUES
        ('wallet', v_id, v_currency, true, -coalesce(p_credit_micro, 0)), ('hold', v_id, v_currency, true, 0);
    PERFORM tell('key.changed', v_id, NULL, NULL, '{}');
    RETURN idem_new(p_principal, p_key, p_hash, jsonb_build_object('id', v_id, 'name', p_name));
END $$;

CREATE OR REPLACE FUNCTION api.tenant_list(p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    WITH page AS (
        SELECT t.*, w.balance_micro AS available, h.balance_micro AS held, w.currency
          FROM tenant t
          LEFT JOIN account w ON w.tenant_id = t.id AND w.kind = 'wallet'
          LEFT JOIN account h ON h.tenant_id = t.id AND h.kind = 'hold' AND h.currency = w.currency
         WHERE p_cursor IS NULL OR t.name > p_cursor ORDER BY t.name LIMIT p_limit)
    SELECT jsonb_build_object(
        'tenants', coalesce(jsonb_agg(jsonb_build_object('id', id, 'name', name, 'zone', zone, 'created_us', us(created_at),
            'available_micro', coalesce(available, 0), 'held_micro', coalesce(held, 0), 'currency', currency) ORDER BY name), '[]'),
        'next', CASE WHEN count(*) = p_limit THEN max(name::text) END) FROM page
$$;

CREATE OR REPLACE FUNCTION api.topup(p_tenant text, p_amount_micro bigint, p_currency text, p_reference text,
    p_principal text, p_key text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_key, p_hash);
    v_id uuid;
    v_wallet integer;
    v_balance bigint;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    SELECT id INTO v_id FROM tenant WHERE name = p_tenant;
    IF v_id IS NULL THEN
        RAISE EXCEPTION 'no tenant is named %', left(p_tenant, 80) USING ERRCODE = 'NG005';
    END IF;
    IF p_amount_micro <= 0 THEN
        RAISE EXCEPTION 'the amount must be more than nothing' USING ERRCODE = 'NG020';
    END IF;
    IF p_currency <> (SELECT currency FROM market) THEN
        RAISE EXCEPTION 'this market settles in %, not %', (SELECT currency FROM market), p_currency USING ERRCODE = 'NG020';
    END IF;
    v_wallet := account_of('wallet', v_id, NULL, p_currency);
    PERFORM post('topup', account_of('bank', NULL, NULL, p_currency), v_wallet, p_currency, p_amount_micro, NULL, NULL);
    SELECT balance_micro INTO v_balance FROM account WHERE id = v_wallet;
    PERFORM tell('wallet.changed', v_id, NULL, NULL, jsonb_build_object('reference', p_reference));
    RETURN idem_new(p_principal, p_key, p_hash,
        jsonb_build_object('balance_micro', v_balance, 'currency', p_currency, 'reference', p_reference));
END $$;

CREATE OR REPLACE FUNCTION api.provider_create(p_name text, p_fee_ppm bigint, p_key_hash bytea,
    p_principal text, p_key text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_key, p_hash);
    v_id uuid;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    PERFORM check_name('provider', p_name);
    IF p_fee_ppm IS NOT NULL AND p_fee_ppm NOT BETWEEN 0 AND 1000000 THEN
        RAISE EXCEPTION 'fee_ppm % is not between 0 and 1000000', p_fee_ppm USING ERRCODE = 'NG020';
    END IF;
    INSERT INTO provider (name, fee_ppm) VALUES (p_name, p_fee_ppm) ON CONFLICT (name) DO NOTHING RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        RAISE EXCEPTION 'provider % exists already', p_name USING ERRCODE = 'NG006';
    END IF;
    INSERT INTO api_key (hash, role, provider_id) VALUES (p_key_hash, 'provider', v_id);
    PERFORM tell('key.changed', NULL, NULL, NULL, '{}');
    RETURN idem_new(p_principal, p_key, p_hash, jsonb_build_object('id', v_id, 'name', p_name));
END $$;

CREATE OR REPLACE FUNCTION api.provider_list(p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    WITH page AS (SELECT * FROM provider WHERE p_cursor IS NULL OR name > p_cursor ORDER BY name LIMIT p_limit)
    SELECT jsonb_build_object(
        'providers', coalesce(jsonb_agg(jsonb_build_object('id', id, 'name', name, 'fee_ppm', fee_ppm,
            'created_us', us(created_at)) ORDER BY name), '[]'),
        'next', CASE WHEN count(*) = p_limit THEN max(name::text) END) FROM page
$$;

CREATE OR REPLACE FUNCTION api.site_create(p_name text, p_city text, p_lat double precision, p_lon double precision,
    p_residency text, p_principal text, p_key text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_key, p_hash);
    v_id integer;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    PERFORM check_name('site', p_name);
    IF p_lat NOT BETWEEN -90 AND 90 OR p_lon NOT BETWEEN -180 AND 180 THEN
        RAISE EXCEPTION 'latitude % and longitude % are no place: -90..90 and -180..180', p_lat, p_lon USING ERRCODE = 'NG020';
    END IF;
    IF p_residency !~ '^[a-z]{2}$' THEN
        RAISE EXCEPTION 'residency "%" is not a two-letter country code such as jp', left(p_residency, 80) USING ERRCODE = 'NG020';
    END IF;
    INSERT INTO site (name, city, lat, lon, residency) VALUES (p_name, p_city, p_lat, p_lon, p_residency)
    ON CONFLICT (name) DO NOTHING RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        RAISE EXCEPTION 'site % exists already', p_name USING ERRCODE = 'NG006';
    END IF;
    PERFORM tell('site.changed', NULL, NULL, NULL, jsonb_build_object('site_id', v_id));
    RETURN idem_new(p_principal, p_key, p_hash, jsonb_build_object('id', v_id, 'name', p_name, 'city', p_city,
        'lat', p_lat, 'lon', p_lon, 'residency', p_residency));
END $$;

CREATE OR REPLACE FUNCTION api.site_list() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('sites', coalesce(jsonb_agg(jsonb_build_object('id', s.id, 'name', s.name, 'city', s.city,
        'lat', s.lat, 'lon', s.lon, 'residency', s.residency, 'nodes', n.nodes, 'gpus', coalesce(n.gpus, 0)) ORDER BY s.name), '[]'))
      FROM site s
      JOIN LATERAL (SELECT count(*) AS nodes, sum(upper(gpus) - lower(gpus)) AS gpus FROM node
                     WHERE site_id = s.id AND state <> 'retired') n ON true
$$;

CREATE OR REPLACE FUNCTION api.join_code(p_provider uuid, p_site text, p_node text, p_code_hash bytea, p_expires_us bigint,
    p_principal text, p_key text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_key, p_hash);
    v_site integer;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    PERFORM check_name('node', p_node);
    SELECT id INTO v_site FROM site WHERE name = p_site;
    IF v_site IS NULL THEN
        RAISE EXCEPTION 'no site is named %', left(p_site, 80) USING ERRCODE = 'NG005';
    END IF;
    IF EXISTS (SELECT FROM node WHERE site_id = v_site AND name = p_node AND provider_id <> p_provider) THEN
        RAISE EXCEPTION 'node % of site % belongs to another provider', p_node, p_site USING ERRCODE = 'NG006';
    END IF;
    INSERT INTO join_code (hash, site_id, provider_id, node_name, expires_at)
    VALUES (p_code_hash, v_site, p_provider, p_node, ts(p_expires_us));
    RETURN idem_new(p_principal, p_key, p_hash, jsonb_build_object('expires_us', p_expires_us, 'site', p_site, 'node', p_node));
END $$;

CREATE OR REPLACE FUNCTION api.node_list(p_provider uuid, p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    WITH page AS (
        SELECT n.*, s.name AS site, p.name AS provider, r.per_gpu_hour_micro, r.currency, g.idle, g.leased
          FROM node n JOIN site s ON s.id = n.site_id JOIN provider p ON p.id = n.provider_id
          LEFT JOIN price r ON r.node_id = n.id AND r.during @> now()
          JOIN LATERAL (SELECT count(*) FILTER (WHERE state = 'idle') AS idle, count(*) FILTER (WHERE state = 'leased') AS leased
                          FROM gpu WHERE node_id = n.id) g ON true
         WHERE (p_provider IS NULL OR n.provider_id = p_provider) AND (p_cursor IS NULL OR n.id > p_cursor::integer)
         ORDER BY n.id LIMIT p_limit)
    SELECT jsonb_build_object(
        'nodes', coalesce(jsonb_agg(jsonb_build_object('id', id, 'name', name, 'site', site, 'provider', provider,
            'gpu_model', gpu_model, 'gpus', coalesce(upper(gpus) - lower(gpus), 0), 'idle', idle, 'leased', leased,
            'state', state, 'last_sync_us', us(last_sync_at), 'address', address,
            'price_micro', per_gpu_hour_micro, 'currency', currency) ORDER BY id), '[]'),
        'next', CASE WHEN count(*) = p_limit THEN max(id)::text END) FROM page
$$;

CREATE OR REPLACE FUNCTION api.price_list(p_provider uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('prices', coalesce(jsonb_agg(jsonb_build_object('site', s.name, 'provider', p.name, 'node', n.name,
        'gpu_model', n.gpu_model, 'from_us', us(lower(r.during)), 'to_us', us(upper(r.during)),
        'per_gpu_hour_micro', r.per_gpu_hour_micro, 'currency', r.currency) ORDER BY s.name, p.name, n.name, lower(r.during)), '[]'))
      FROM price r JOIN node n ON n.id = r.node_id JOIN site s ON s.id = n.site_id JOIN provider p ON p.id = n.provider_id
     WHERE (p_provider IS NULL OR n.provider_id = p_provider) AND (upper_inf(r.during) OR upper(r.during) > now())
$$;

-- From now on; bookings made before keep their price. An unchanged price stays as it is.
CREATE OR REPLACE FUNCTION ng.price_set_node(p_node integer, p_micro bigint, p_currency text, p_by text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE v_now timestamptz := clock_timestamp();
BEGIN
    PERFORM 1 FROM ng.node WHERE id = p_node FOR UPDATE;
    IF EXISTS (SELECT FROM ng.price WHERE node_id = p_node AND during @> v_now
                 AND per_gpu_hour_micro = p_micro AND currency = p_currency) THEN
        RETURN false;
    END IF;
    UPDATE ng.price SET during = tstzrange(lower(during), v_now) WHERE node_id = p_node AND during @> v_now AND lower(during) < v_now;
    DELETE FROM ng.price WHERE node_id = p_node AND lower(during) >= v_now;
    INSERT INTO ng.price (node_id, during, currency, per_gpu_hour_micro, set_by)
    VALUES (p_node, tstzrange(v_now, NULL), p_currency, p_micro, p_by);
    PERFORM ng.tell('price.changed', NULL, NULL, p_node, '{}');
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION api.price_set(p_provider uuid, p_site text, p_node text, p_model text,
    p_micro bigint, p_currency text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_node integer;
    v_count integer := 0;
BEGIN
    IF p_micro < 0 THEN
        RAISE EXCEPTION 'a price must not be negative' USING ERRCODE = 'NG020';
    END IF;
    IF p_currency <> (SELECT currency FROM market) THEN
        RAISE EXCEPTION 'this market settles in %, not %', (SELECT currency FROM market), p_currency USING ERRCODE = 'NG020';
    END IF;
    FOR v_node IN
        SELECT n.id FROM node n JOIN site s ON s.id = n.site_id
         WHERE n.provider_id = p_provider AND n.state <> 'retired' AND (p_site IS NULL OR s.name = p_site)
           AND (p_node IS NULL OR n.name = p_node)
           AND (p_model IS NULL OR n.gpu_model ~* ('(^|[^[:alnum:]])' || regexp_replace(p_model, '([^[:alnum:]])', '\\\1', 'g') || '($|[^[:alnum:]])'))
         ORDER BY n.id
    LOOP
        PERFORM price_set_node(v_node, p_micro, p_currency, 'provider');
        v_count := v_count + 1;
    END LOOP;
    IF v_count = 0 THEN
        RAISE EXCEPTION 'no node of yours matches: see `neargpu provider nodes`' USING ERRCODE = 'NG005';
    END IF;
    RETURN jsonb_build_object('nodes', v_count);
END $$;

CREATE OR REPLACE FUNCTION ng.dataset_json(d ng.dataset) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', d.id, 'name', d.name, 'endpoint', d.endpoint, 'site', s.name,
        'lat', coalesce(d.lat, s.lat), 'lon', coalesce(d.lon, s.lon), 'size_bytes', d.size_bytes, 'created_us', ng.us(d.created_at),
        'rtts', coalesce((SELECT jsonb_agg(jsonb_build_object('node', n.name, 'site', ns.name, 'min_us', r.min_us, 'p50_us', r.p50_us,
                    'p99_us', r.p99_us, 'count', r.count, 'at_us', ng.us(r.at)) ORDER BY r.p50_us)
                 FROM ng.rtt r JOIN ng.node n ON n.id = r.node_id JOIN ng.site ns ON ns.id = n.site_id
                WHERE r.dataset_id = d.id), '[]'))
      FROM (SELECT 1) one LEFT JOIN ng.site s ON s.id = d.site_id
$$;

CREATE OR REPLACE FUNCTION api.dataset_add(p_tenant uuid, p_name text, p_endpoint text, p_site text,
    p_lat double precision, p_lon double precision, p_size bigint, p_principal text, p_key text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_key, p_hash);
    v_site integer;
    v dataset;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    PERFORM check_name('data set', p_name);
    IF p_endpoint !~ '^(https?|tcp)://([a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?(/[[:graph:]]*)?$' OR length(p_endpoint) > 500 THEN
        RAISE EXCEPTION 'endpoint "%" is not valid: http://HOST:PORT/PATH or tcp://HOST:PORT', left(p_endpoint, 80) USING ERRCODE = 'NG020';
    END IF;
    IF p_site IS NOT NULL THEN
        SELECT id INTO v_site FROM site WHERE name = p_site;
        IF v_site IS NULL THEN
            RAISE EXCEPTION 'no site is named %', left(p_site, 80) USING ERRCODE = 'NG005';
        END IF;
    END IF;
    IF (p_lat IS NULL) <> (p_lon IS NULL) OR p_lat NOT BETWEEN -90 AND 90 OR p_lon NOT BETWEEN -180 AND 180 THEN
        RAISE EXCEPTION 'a place needs a latitude -90..90 and a longitude -180..180' USING ERRCODE = 'NG020';
    END IF;
    INSERT INTO dataset (tenant_id, name, endpoint, site_id, lat, lon, size_bytes)
    VALUES (p_tenant, p_name, p_endpoint, v_site, p_lat, p_lon, p_size)
    ON CONFLICT (tenant_id, name) WHERE removed_at IS NULL DO NOTHING RETURNING * INTO v;
    IF v.id IS NULL THEN
        RAISE EXCEPTION 'data set % exists already', p_name USING ERRCODE = 'NG006';
    END IF;
    PERFORM tell('dataset.changed', p_tenant, NULL, NULL, jsonb_build_object('dataset_id', v.id));
    RETURN idem_new(p_principal, p_key, p_hash, dataset_json(v));
END $$;

CREATE OR REPLACE FUNCTION api.dataset_list(p_tenant uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('datasets', coalesce(jsonb_agg(dataset_json(d) ORDER BY d.name), '[]'))
      FROM dataset d WHERE d.tenant_id = p_tenant AND d.removed_at IS NULL
$$;

CREATE OR REPLACE FUNCTION ng.dataset_named(p_tenant uuid, p_name text) RETURNS ng.dataset
LANGUAGE plpgsql STABLE AS $$
DECLARE v ng.dataset;
BEGIN
    SELECT * INTO v FROM ng.dataset WHERE tenant_id = p_tenant AND name = p_name AND removed_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no data set is named %: see `neargpu data list`', left(p_name, 80) USING ERRCODE = 'NG005';
    END IF;
    RETURN v;
END $$;
CREATE OR REPLACE FUNCTION api.dataset_get(p_tenant uuid, p_name text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT dataset_json(dataset_named(p_tenant, p_name))
$$;
CREATE OR REPLACE FUNCTION api.dataset_remove(p_tenant uuid, p_name text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v dataset := dataset_named(p_tenant, p_name);
BEGIN
    UPDATE dataset SET removed_at = now() WHERE id = v.id AND removed_at IS NULL;
    PERFORM tell('dataset.changed', p_tenant, NULL, NULL, jsonb_build_object('dataset_id', v.id));
    RETURN jsonb_build_object('id', v.id);
END $$;
