-- The market's people, places, prices and data sets.

CREATE OR REPLACE FUNCTION api.market() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('name', name, 'currency', currency, 'fee_ppm', fee_ppm, 'tax_ppm', tax_rate_of('standard', now()),
               'issuer_name', issuer_name, 'issuer_registration', issuer_registration,
               'hold_window_us', coalesce(hold_window_us, 0))
      FROM market
$$;

CREATE OR REPLACE FUNCTION api.tenant_create(p_name text, p_zone text, p_credit bigint, p_key_hash bytea,
    p_principal text, p_idem text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v_id uuid;
BEGIN
    IF v_reply IS NOT NULL THEN
        -- The first reply may never have arrived, and only its reader has that key: this
        -- one's key is good as well.
        INSERT INTO api_key (hash, role, tenant_id) VALUES (p_key_hash, 'tenant', (v_reply->>'id')::uuid)
        ON CONFLICT DO NOTHING;
        PERFORM tell('key.changed', NULL, NULL, NULL);
        RETURN v_reply;
    END IF;
    IF p_zone IS NOT NULL AND NOT EXISTS (SELECT FROM pg_timezone_names WHERE name = p_zone) THEN
        PERFORM refuse(20, format('no time zone is named %s', p_zone));
    END IF;
    IF p_credit < 0 THEN
        PERFORM refuse(20, 'credit must not be negative');
    END IF;
    INSERT INTO tenant (name, zone) VALUES (p_name, coalesce(p_zone, 'Asia/Tokyo'))
    ON CONFLICT (name) DO NOTHING RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        PERFORM refuse(6, format('a tenant named %s is there already', p_name));
    END IF;
    INSERT INTO api_key (hash, role, tenant_id) VALUES (p_key_hash, 'tenant', v_id);
    -- A credit line is how far the wallet may go below zero: no money has come in.
    INSERT INTO account (kind, tenant_id, currency, guarded, floor_micro)
    VALUES ('wallet', v_id, currency(), true, -coalesce(p_credit, 0)), ('hold', v_id, currency(), true, 0);
    PERFORM tell('key.changed', NULL, NULL, NULL);
    RETURN idem_new(p_principal, p_idem, p_hash, jsonb_build_object('id', v_id, 'name', p_name));
END $$;

CREATE OR REPLACE FUNCTION api.tenant_list(p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT page('tenants', (SELECT jsonb_agg(row ORDER BY name) FROM (
        SELECT t.name, jsonb_build_object('_key', t.name, 'id', t.id, 'name', t.name, 'zone', t.zone,
                   'created_us', us(t.created_at), 'priority', t.priority, 'currency', currency(),
                   'available_micro', coalesce(w.balance_micro - w.floor_micro, 0), 'held_micro', coalesce(h.balance_micro, 0)) AS row
          FROM tenant t
          LEFT JOIN account w ON w.kind = 'wallet' AND w.tenant_id = t.id AND w.currency = currency()
          LEFT JOIN account h ON h.kind = 'hold' AND h.tenant_id = t.id AND h.currency = currency()
         WHERE p_cursor IS NULL OR t.name > p_cursor
         ORDER BY t.name LIMIT p_limit + 1) x), p_limit)
$$;

-- Whose orders come first on the waiting list.
CREATE OR REPLACE FUNCTION api.tenant_priority(p_tenant text, p_priority bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v_id uuid;
BEGIN
    IF p_priority IS NULL OR p_priority NOT BETWEEN -1000 AND 1000 THEN
        PERFORM refuse(20, 'a priority is -1000 to 1000');
    END IF;
    UPDATE tenant SET priority = p_priority WHERE name = p_tenant RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        PERFORM refuse(5, format('no tenant is named %s', p_tenant));
    END IF;
    PERFORM tell('key.changed', NULL, NULL, NULL);
    RETURN jsonb_build_object('id', v_id, 'name', p_tenant, 'priority', p_priority);
END $$;

CREATE OR REPLACE FUNCTION api.topup(p_tenant text, p_amount bigint, p_currency text, p_reference text,
    p_principal text, p_idem text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v_tenant uuid;
    v_wallet integer;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    IF p_amount <= 0 THEN
        PERFORM refuse(20, 'the amount must be more than nothing');
    END IF;
    SELECT id INTO v_tenant FROM tenant WHERE name = p_tenant;
    IF v_tenant IS NULL THEN
        PERFORM refuse(5, format('no tenant is named %s', p_tenant));
    END IF;
    -- What is owed is taken at once, so that nothing can be reserved with it meanwhile.
    IF EXISTS (SELECT FROM account WHERE kind = 'receivable' AND tenant_id = v_tenant) THEN
        PERFORM billing_lock();
    END IF;
    v_wallet := account_of('wallet', v_tenant, NULL, currency());
    IF (CASE WHEN p_currency <> currency() THEN NOT fx_topup(v_wallet, p_amount, p_currency, p_reference)
             ELSE NOT post('topup', account_of('bank', NULL, NULL, p_currency), v_wallet, p_currency, p_amount, NULL, p_reference) END) THEN
        PERFORM refuse(6, format('reference %s was booked before', p_reference));
    END IF;
    PERFORM collect(v_tenant);
    PERFORM tell('wallet.changed', v_tenant, NULL, NULL);
    RETURN idem_new(p_principal, p_idem, p_hash, jsonb_build_object('currency', currency(),
        'balance_micro', (SELECT balance_micro FROM account WHERE id = v_wallet)));
END $$;

CREATE OR REPLACE FUNCTION api.provider_create(p_name text, p_fee_ppm bigint, p_key_hash bytea,
    p_principal text, p_idem text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v_id uuid;
BEGIN
    IF v_reply IS NOT NULL THEN
        INSERT INTO api_key (hash, role, provider_id) VALUES (p_key_hash, 'provider', (v_reply->>'id')::uuid)
        ON CONFLICT DO NOTHING;
        PERFORM tell('key.changed', NULL, NULL, NULL);
        RETURN v_reply;
    END IF;
    INSERT INTO provider (name, fee_ppm) VALUES (p_name, p_fee_ppm)
    ON CONFLICT (name) DO NOTHING RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        PERFORM refuse(6, format('a provider named %s is there already', p_name));
    END IF;
    INSERT INTO api_key (hash, role, provider_id) VALUES (p_key_hash, 'provider', v_id);
    PERFORM tell('key.changed', NULL, NULL, NULL);
    RETURN idem_new(p_principal, p_idem, p_hash, jsonb_build_object('id', v_id, 'name', p_name));
END $$;

CREATE OR REPLACE FUNCTION api.provider_list(p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT page('providers', (SELECT jsonb_agg(row ORDER BY name) FROM (
        SELECT name, jsonb_build_object('_key', name, 'id', id, 'name', name, 'created_us', us(created_at),
                   'fee_ppm', coalesce(fee_ppm, (SELECT m.fee_ppm FROM market m))) AS row
          FROM provider WHERE p_cursor IS NULL OR name > p_cursor
         ORDER BY name LIMIT p_limit + 1) x), p_limit)
$$;

DROP FUNCTION IF EXISTS api.site_create(text, text, double precision, double precision, text, text, text, bytea);
CREATE OR REPLACE FUNCTION ng.site_json(s ng.site) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', s.id, 'name', s.name, 'city', s.city, 'lat', s.lat, 'lon', s.lon,
        'residency', s.residency, 'zone', s.zone)
$$;
CREATE OR REPLACE FUNCTION api.site_create(p_name text, p_city text, p_lat double precision,
    p_lon double precision, p_residency text, p_zone text, p_principal text, p_idem text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v site;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    INSERT INTO site (name, city, lat, lon, residency, zone)
    VALUES (p_name, p_city, p_lat, p_lon, p_residency, coalesce(p_zone, ''))
    ON CONFLICT (name) DO NOTHING RETURNING * INTO v;
    IF v.id IS NULL THEN
        PERFORM refuse(6, format('a site named %s is there already', p_name));
    END IF;
    PERFORM tell('site.changed', NULL, NULL, NULL, jsonb_build_object('site_id', v.id));
    RETURN idem_new(p_principal, p_idem, p_hash, site_json(v));
END $$;

CREATE OR REPLACE FUNCTION api.site_patch(p_name text, p_zone text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v site;
BEGIN
    UPDATE site SET zone = coalesce(p_zone, zone) WHERE name = p_name RETURNING * INTO v;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('no site is named %s', p_name));
    END IF;
    PERFORM tell('site.changed', NULL, NULL, NULL, jsonb_build_object('site_id', v.id));
    RETURN site_json(v);
END $$;

CREATE OR REPLACE FUNCTION api.site_list() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('sites', coalesce(jsonb_agg(site_json(s) || jsonb_build_object(
               'nodes', coalesce(n.nodes, 0), 'gpus', coalesce(n.gpus, 0)) ORDER BY s.name), '[]'))
      FROM site s
      LEFT JOIN (SELECT site_id, count(*) AS nodes, sum(upper(gpus) - lower(gpus)) AS gpus
                   FROM node WHERE state <> 'retired' GROUP BY site_id) n ON n.site_id = s.id
$$;

CREATE OR REPLACE FUNCTION api.join_code(p_provider uuid, p_site text, p_node text, p_code_hash bytea,
    p_expires bigint, p_principal text, p_idem text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v_site integer;
    v_owner uuid;
BEGIN
    SELECT id INTO v_site FROM site WHERE name = p_site;
    IF v_site IS NULL THEN
        PERFORM refuse(5, format('no site is named %s', p_site));
    END IF;
    SELECT provider_id INTO v_owner FROM node WHERE site_id = v_site AND name = p_node;
    IF v_owner <> p_provider THEN
        PERFORM refuse(4, format('node %s at %s belongs to another provider', p_node, p_site));
    END IF;
    -- A repeated request gets a code of its own: the earlier one may not have arrived.
    INSERT INTO join_code (hash, site_id, provider_id, node_name, expires_at)
    VALUES (p_code_hash, v_site, p_provider, p_node, ts(p_expires));
    IF v_reply IS NOT NULL THEN
        RETURN v_reply || jsonb_build_object('expires_us', p_expires);
    END IF;
    RETURN idem_new(p_principal, p_idem, p_hash,
        jsonb_build_object('expires_us', p_expires, 'site', p_site, 'node', p_node));
END $$;

CREATE OR REPLACE FUNCTION api.node_list(p_provider uuid, p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT page('nodes', (SELECT jsonb_agg(row ORDER BY id) FROM (
        SELECT n.id, jsonb_build_object('_key', n.id::text, 'id', n.id, 'name', n.name, 'site', s.name,
                   'provider', p.name, 'gpu_model', n.gpu_model,
                   'gpus', coalesce(upper(n.gpus) - lower(n.gpus), 0),
                   'idle', (SELECT count(*) FROM gpu g WHERE g.node_id = n.id AND g.state = 'idle'),
                   'leased', (SELECT count(*) FROM gpu g WHERE g.node_id = n.id AND g.state = 'leased'),
                   'state', node_state(n), 'last_sync_us', us(n.last_sync_at), 'address', n.address,
                   'note', CASE WHEN n.banned_at IS NOT NULL THEN 'banned: ' || n.banned_why
                                WHEN n.cloned_at IS NOT NULL THEN 'two agents have its identity: reattest it' ELSE '' END,
                   'cloned_us', us(n.cloned_at), 'banned_us', us(n.banned_at), 'attested', n.attested, 'instance', n.instance || '.' || n.run,
                   'price_micro', (SELECT per_gpu_hour_micro FROM price WHERE node_id = n.id AND during @> now()),
                   'currency', currency()) AS row
          FROM node n JOIN site s ON s.id = n.site_id JOIN provider p ON p.id = n.provider_id
         WHERE (p_provider IS NULL OR n.provider_id = p_provider)
           AND (p_cursor IS NULL OR n.id > p_cursor::integer)
         ORDER BY n.id LIMIT p_limit + 1) x), p_limit)
$$;

CREATE OR REPLACE FUNCTION api.price_list(p_provider uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('prices', coalesce(jsonb_agg(jsonb_build_object('site', s.name, 'provider', v.name,
               'node', n.name, 'gpu_model', n.gpu_model, 'from_us', us(lower(p.during)),
               'to_us', us(upper(p.during)), 'per_gpu_hour_micro', p.per_gpu_hour_micro,
               'currency', p.currency, 'spot_per_gpu_hour_micro', t.per_gpu_hour_micro, 'notice_us', t.notice_us)
               ORDER BY s.name, n.name, lower(p.during)), '[]'))
      FROM price p JOIN node n ON n.id = p.node_id JOIN site s ON s.id = n.site_id
      JOIN provider v ON v.id = n.provider_id LEFT JOIN spot_terms t ON t.node_id = n.id
     WHERE (p_provider IS NULL OR n.provider_id = p_provider) AND (upper_inf(p.during) OR upper(p.during) > now())
$$;

-- Ends the price that is there and begins the new one, at this instant.
CREATE OR REPLACE FUNCTION ng.price_put(p_node integer, p_micro bigint, p_currency text, p_by text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v ng.price;
BEGIN
    IF p_currency <> ng.currency() THEN
        PERFORM ng.refuse(20, format('this market trades in %s, not %s', ng.currency(), p_currency));
    END IF;
    IF p_micro < 0 THEN
        PERFORM ng.refuse(20, 'a price must not be negative');
    END IF;
    PERFORM 1 FROM ng.node WHERE id = p_node FOR NO KEY UPDATE;
    SELECT * INTO v FROM ng.price WHERE node_id = p_node AND upper_inf(during);
    IF FOUND AND v.per_gpu_hour_micro = p_micro THEN
        RETURN false;
    END IF;
    IF FOUND THEN
        v_now := greatest(v_now, lower(v.during) + interval '1 microsecond');
        UPDATE ng.price SET during = tstzrange(lower(during), v_now) WHERE node_id = p_node AND upper_inf(during);
    END IF;
    INSERT INTO ng.price (node_id, during, currency, per_gpu_hour_micro, set_by)
    VALUES (p_node, tstzrange(v_now, NULL), p_currency, p_micro, p_by);
    PERFORM ng.tell('price.changed', NULL, NULL, p_node);
    RETURN true;
END $$;

-- Spot terms hold for what is booked from now on. A notice of 0 ends the sale of spot; of
-- price and notice, what is null stays as it is.
CREATE OR REPLACE FUNCTION ng.spot_put(p_node integer, p_micro bigint, p_notice bigint, p_currency text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v ng.spot_terms;
    v_new ng.spot_terms;
BEGIN
    SELECT * INTO v FROM ng.spot_terms WHERE node_id = p_node FOR UPDATE;
    IF p_notice = 0 THEN
        DELETE FROM ng.spot_terms WHERE node_id = p_node;
    ELSIF coalesce(p_micro, v.per_gpu_hour_micro) IS NULL OR coalesce(p_notice, v.notice_us) IS NULL THEN
        PERFORM ng.refuse(20, 'spot needs a price and a notice');
    ELSIF coalesce(p_notice, v.notice_us) NOT BETWEEN 30000000 AND 86400000000 THEN
        PERFORM ng.refuse(20, 'a notice is 30 s to 24 h');
    ELSE
        INSERT INTO ng.spot_terms (node_id, currency, per_gpu_hour_micro, notice_us)
        VALUES (p_node, p_currency, coalesce(p_micro, v.per_gpu_hour_micro), coalesce(p_notice, v.notice_us))
        ON CONFLICT (node_id) DO UPDATE SET currency = excluded.currency, per_gpu_hour_micro = excluded.per_gpu_hour_micro,
            notice_us = excluded.notice_us;
    END IF;
    SELECT * INTO v_new FROM ng.spot_terms WHERE node_id = p_node;
    IF v_new IS DISTINCT FROM v THEN
        PERFORM ng.tell('price.changed', NULL, NULL, p_node);
    END IF;
END $$;

DROP FUNCTION IF EXISTS api.price_set(uuid, text, text, text, bigint, text);
CREATE OR REPLACE FUNCTION api.price_set(p_provider uuid, p_site text, p_node text, p_model text,
    p_micro bigint, p_currency text, p_spot_micro bigint, p_notice bigint)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v record;
    v_count integer := 0;
BEGIN
    IF p_spot_micro < 0 THEN
        PERFORM refuse(20, 'a price must not be negative');
    END IF;
    FOR v IN
        SELECT n.id FROM node n JOIN site s ON s.id = n.site_id
         WHERE n.provider_id = p_provider AND n.state <> 'retired'
           AND (p_site IS NULL OR s.name = p_site) AND (p_node IS NULL OR n.name = p_node)
           AND (p_model IS NULL OR n.gpu_model = p_model OR n.gpu_model LIKE replace(replace(p_model, '%', ''), '_', '') || '-%')
         ORDER BY n.id
    LOOP
        PERFORM price_put(v.id, p_micro, p_currency, 'provider');
        IF p_spot_micro IS NOT NULL OR p_notice IS NOT NULL THEN
            PERFORM spot_put(v.id, p_spot_micro, p_notice, p_currency);
        END IF;
        v_count := v_count + 1;
    END LOOP;
    IF v_count = 0 THEN
        PERFORM refuse(5, 'none of your nodes matches');
    END IF;
    RETURN jsonb_build_object('nodes', v_count);
END $$;

CREATE OR REPLACE FUNCTION ng.dataset_json(d ng.dataset) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', d.id, 'name', d.name, 'endpoint', d.endpoint,
        'site', (SELECT name FROM ng.site WHERE id = d.site_id), 'lat', d.lat, 'lon', d.lon,
        'size_bytes', d.size_bytes, 'created_us', ng.us(d.created_at),
        'rtts', (SELECT coalesce(jsonb_agg(jsonb_build_object('node', n.name, 'site', s.name, 'min_us', r.min_us,
                     'p50_us', r.p50_us, 'p99_us', r.p99_us, 'count', r.count, 'at_us', ng.us(r.at)) ORDER BY r.p50_us), '[]')
                   FROM ng.rtt r JOIN ng.node n ON n.id = r.node_id JOIN ng.site s ON s.id = n.site_id
                  WHERE r.dataset_id = d.id))
$$;

CREATE OR REPLACE FUNCTION api.dataset_add(p_tenant uuid, p_name text, p_endpoint text, p_site text,
    p_lat double precision, p_lon double precision, p_size bigint, p_principal text, p_idem text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v_site site;
    v dataset;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    IF p_site IS NOT NULL THEN
        SELECT * INTO v_site FROM site WHERE name = p_site;
        IF NOT FOUND THEN
            PERFORM refuse(5, format('no site is named %s', p_site));
        END IF;
    END IF;
    INSERT INTO dataset (tenant_id, name, endpoint, site_id, lat, lon, size_bytes)
    VALUES (p_tenant, p_name, p_endpoint, v_site.id, coalesce(p_lat, v_site.lat), coalesce(p_lon, v_site.lon), p_size)
    ON CONFLICT (tenant_id, name) WHERE removed_at IS NULL DO NOTHING
    RETURNING * INTO v;
    IF v.id IS NULL THEN
        PERFORM refuse(6, format('you have a data set named %s already', p_name));
    END IF;
    PERFORM tell('dataset.changed', p_tenant, NULL, NULL, jsonb_build_object('dataset_id', v.id));
    RETURN idem_new(p_principal, p_idem, p_hash, dataset_json(v));
END $$;

CREATE OR REPLACE FUNCTION api.dataset_list(p_tenant uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('datasets', coalesce(jsonb_agg(dataset_json(d) ORDER BY d.name), '[]'))
      FROM dataset d WHERE d.tenant_id = p_tenant AND d.removed_at IS NULL
$$;

CREATE OR REPLACE FUNCTION api.dataset_get(p_tenant uuid, p_name text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v dataset;
BEGIN
    SELECT * INTO v FROM dataset WHERE tenant_id = p_tenant AND name = p_name AND removed_at IS NULL;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('you have no data set named %s', p_name));
    END IF;
    RETURN dataset_json(v);
END $$;

CREATE OR REPLACE FUNCTION api.dataset_remove(p_tenant uuid, p_name text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v_id integer;
BEGIN
    UPDATE dataset SET removed_at = now() WHERE tenant_id = p_tenant AND name = p_name AND removed_at IS NULL
    RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        PERFORM refuse(5, format('you have no data set named %s', p_name));
    END IF;
    PERFORM tell('dataset.changed', p_tenant, NULL, NULL, jsonb_build_object('dataset_id', v_id));
    RETURN jsonb_build_object('id', v_id);
END $$;
