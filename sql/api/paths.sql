-- Paths between sites: what operators sell, what is to be lit and put out.

CREATE OR REPLACE FUNCTION ng.path_json(p ng.path) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', p.id, 'name', p.name, 'provider', v.name, 'provider_id', v.id,
        'from_site', a.id, 'from', a.name, 'to_site', z.id, 'to', z.name, 'lanes', upper(p.lanes) - lower(p.lanes),
        'lane_Bps', p.lane_bytes_s, 'rtt_us', p.rtt_us, 'lossless', p.lossless,
        'per_lane_hour_micro', p.per_lane_hour_micro, 'currency', p.currency, 'setup_us', p.setup_us, 'state', p.state,
        'lit', (SELECT coalesce(sum(upper(k.lanes) - lower(k.lanes)), 0) FROM ng.path_booking k
                 WHERE k.path_id = p.id AND k.state = 'lit'))
      FROM ng.provider v, ng.site a, ng.site z
     WHERE v.id = p.provider_id AND a.id = p.site_a AND z.id = p.site_b
$$;

CREATE OR REPLACE FUNCTION ng.path_site(p_name text) RETURNS integer
LANGUAGE plpgsql STABLE AS $$
DECLARE v_id integer := (SELECT id FROM ng.site WHERE name = p_name);
BEGIN
    IF v_id IS NULL THEN
        PERFORM ng.refuse(5, format('no site is named %s', p_name));
    END IF;
    RETURN v_id;
END $$;

CREATE OR REPLACE FUNCTION api.path_create(p_name text, p_provider text, p_from text, p_to text, p_lanes bigint,
    p_lane_bps bigint, p_rtt bigint, p_lossless boolean, p_price bigint, p_setup bigint,
    p_principal text, p_idem text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v_provider uuid;
    v_first integer;
    v ng.path;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    SELECT id INTO v_provider FROM provider WHERE name = p_provider;
    IF v_provider IS NULL THEN
        PERFORM refuse(5, format('no provider is named %s', p_provider));
    ELSIF p_from = p_to THEN
        PERFORM refuse(20, 'a path joins two different sites');
    ELSIF p_lanes NOT BETWEEN 1 AND 64 THEN
        PERFORM refuse(20, 'a path has 1 to 64 lanes');
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('neargpu.lane_no'));
    v_first := nextval('lane_no');
    PERFORM setval('lane_no', v_first + p_lanes - 1);
    INSERT INTO path (name, provider_id, site_a, site_b, lanes, lane_bytes_s, rtt_us, lossless, currency,
        per_lane_hour_micro, setup_us)
    VALUES (p_name, v_provider, path_site(p_from), path_site(p_to), int4range(v_first, v_first + p_lanes::integer), p_lane_bps,
        p_rtt, coalesce(p_lossless, false), currency(), p_price, coalesce(p_setup, 0))
    ON CONFLICT (name) DO NOTHING RETURNING * INTO v;
    IF v.id IS NULL THEN
        PERFORM refuse(6, format('a path named %s is there already', p_name));
    END IF;
    PERFORM tell('path.changed', NULL, NULL, NULL, jsonb_build_object('path_id', v.id));
    RETURN idem_new(p_principal, p_idem, p_hash, path_json(v));
END $$;

-- What is booked keeps its price and its set-up. A path that is down is sold no more; what
-- is booked on it stays booked, and is not charged while it is not lit.
CREATE OR REPLACE FUNCTION api.path_patch(p_name text, p_price bigint, p_setup bigint, p_rtt bigint, p_lossless boolean,
    p_state text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v ng.path;
BEGIN
    UPDATE path SET per_lane_hour_micro = coalesce(p_price, per_lane_hour_micro), setup_us = coalesce(p_setup, setup_us),
        rtt_us = coalesce(p_rtt, rtt_us), lossless = coalesce(p_lossless, lossless), state = coalesce(p_state, state)
     WHERE name = p_name RETURNING * INTO v;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('no path is named %s', p_name));
    END IF;
    PERFORM tell('path.changed', NULL, NULL, NULL, jsonb_build_object('path_id', v.id));
    RETURN path_json(v);
END $$;

CREATE OR REPLACE FUNCTION api.path_list() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('paths', coalesce(jsonb_agg(path_json(p) ORDER BY p.name), '[]')) FROM path p
$$;

-- An attempt to light it was not answered: it may be lit.
CREATE OR REPLACE FUNCTION ng.may_be_lit(k ng.path_booking) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$ SELECT k.doubtful OR k.claimed_until IS NOT NULL AND k.error = '' $$;

-- Bookings whose equipment is not as it should be now, claimed by the caller for a while:
-- those to be put out first. Lanes that another booking has lit, or may have, are lit later.
-- What could not be lit within its time, or is not wanted any more, is given up; when nobody
-- told what became of an attempt, it is put out.
CREATE OR REPLACE FUNCTION api.paths_due(p_now bigint, p_claim_s bigint, p_limit bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_now timestamptz := ts(p_now);
    v_due jsonb;
BEGIN
    UPDATE path_booking k SET state = CASE WHEN may_be_lit(k) THEN 'lit' ELSE 'failed' END,
        error = CASE WHEN claimed_until IS NULL AND error = '' THEN 'it was never lit' ELSE error END
     WHERE k.id IN (SELECT id FROM path_booking WHERE state = 'planned' AND upper(during) <= v_now
                   ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED);
    UPDATE path_booking k SET state = CASE WHEN may_be_lit(k) THEN 'lit' ELSE 'released' END
     WHERE k.id IN (SELECT id FROM path_booking WHERE state = 'planned' AND isempty(during)
                   ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED);
    WITH due AS (
        SELECT k.id, CASE k.state WHEN 'lit' THEN 'release' ELSE 'light' END AS action
          FROM path_booking k JOIN reservation r ON r.id = k.reservation_id
         WHERE (k.claimed_until IS NULL OR k.claimed_until <= v_now)
           AND (k.state = 'lit' AND NOT coalesce(upper(k.during) > v_now, false)
                OR k.state = 'planned' AND k.during @> v_now AND r.state IN ('confirmed', 'active')
                   AND NOT EXISTS (SELECT FROM path_booking o WHERE o.path_id = k.path_id AND o.id <> k.id AND o.lanes && k.lanes
                                      AND (o.state = 'lit' OR o.state = 'planned' AND may_be_lit(o))))
         ORDER BY k.state = 'planned', k.id LIMIT p_limit FOR UPDATE OF k SKIP LOCKED),
    claimed AS (
        UPDATE path_booking k SET claimed_until = v_now + p_claim_s * interval '1 second', error = '', doubtful = may_be_lit(k)
          FROM due WHERE k.id = due.id
        RETURNING k.*, due.action)
    SELECT jsonb_agg(jsonb_build_object('id', c.id, 'reservation', c.reservation_id, 'tenant', t.name, 'path_id', c.path_id,
               'path', p.name, 'provider', v.name, 'action', c.action, 'from', a.name, 'to', z.name,
               'first', lower(c.lanes) - lower(p.lanes), 'lanes', upper(c.lanes) - lower(c.lanes),
               'lane_Bps', p.lane_bytes_s, 'bandwidth_Bps', (upper(c.lanes) - lower(c.lanes)) * p.lane_bytes_s,
               'from_us', us(coalesce(lower(c.during), lower(c.lit))), 'to_us', us(coalesce(upper(c.during), v_now)))
               ORDER BY c.action DESC, c.id)
      INTO v_due
      FROM claimed c JOIN path p ON p.id = c.path_id JOIN provider v ON v.id = p.provider_id
      JOIN site a ON a.id = p.site_a JOIN site z ON z.id = p.site_b
      JOIN reservation r ON r.id = c.reservation_id JOIN tenant t ON t.id = r.tenant_id;
    RETURN jsonb_build_object('due', coalesce(v_due, '[]'));
END $$;

-- What became of it. Out of order (a light that ends after the booking did) is taken as it
-- is: the next paths_due() sets it right.
CREATE OR REPLACE FUNCTION api.path_set(p_id bigint, p_state text, p_error text, p_now bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v path_booking;
    v_old text;
    v_now timestamptz := ts(p_now);
    v_dark boolean := false; -- to be put out, and not charged
BEGIN
    SELECT * INTO v FROM path_booking WHERE id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('there is no booking %s of a path', p_id));
    ELSIF p_state NOT IN ('lit', 'released', 'failed') THEN
        PERFORM refuse(20, format('a booked path does not become %s', p_state));
    END IF;
    v_old := v.state;
    IF p_state IS NULL OR v_old = p_state OR v_old IN ('released', 'failed') AND p_state <> 'lit' THEN
        UPDATE path_booking SET error = coalesce(p_error, '') WHERE id = p_id AND p_error IS NOT NULL;
        RETURN jsonb_build_object('id', p_id, 'state', v_old);
    END IF;
    -- What may be lit is not dark because another attempt failed.
    IF p_state = 'failed' AND v.doubtful THEN
        p_state := 'lit';
        v_dark := true;
    END IF;
    UPDATE path_booking SET state = p_state, error = coalesce(p_error, ''), claimed_until = NULL, doubtful = false,
        lit = CASE WHEN v_dark THEN NULL WHEN p_state = 'lit' THEN tstzrange(v_now, NULL)
                   WHEN v.lit IS NOT NULL THEN tstzrange(lower(v.lit), greatest(v_now, lower(v.lit))) END
     WHERE id = p_id;
    INSERT INTO event (kind, tenant_id, reservation_id, payload)
    SELECT 'path.' || p_state, r.tenant_id, r.id,
           jsonb_build_object('booking', p_id, 'path_id', v.path_id, 'error', coalesce(p_error, ''))
      FROM reservation r WHERE r.id = v.reservation_id;
    RETURN jsonb_build_object('id', p_id, 'state', p_state);
END $$;

CREATE OR REPLACE FUNCTION api.world_paths(p_id bigint)
RETURNS TABLE (id integer, name text, provider text, from_site integer, to_site integer, lanes integer, lane_bytes_s bigint,
    rtt_us bigint, lossless integer, price_micro bigint, setup_us bigint, state text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT p.id, p.name, v.name, p.site_a, p.site_b, upper(p.lanes) - lower(p.lanes), p.lane_bytes_s, p.rtt_us,
           p.lossless::integer, p.per_lane_hour_micro, p.setup_us, p.state
      FROM path p JOIN provider v ON v.id = p.provider_id
     WHERE p_id IS NULL OR p.id = p_id ORDER BY p.id
$$;

CREATE OR REPLACE FUNCTION api.world_lanes(p_now bigint)
RETURNS TABLE (booking bigint, path_id integer, first integer, count integer, from_us bigint, to_us bigint, reservation_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT k.id, k.path_id, lower(k.lanes) - lower(p.lanes), upper(k.lanes) - lower(k.lanes),
           us(lower(k.during)), us(upper(k.during)), k.reservation_id
      FROM path_booking k JOIN path p ON p.id = k.path_id
     WHERE upper(k.during) > ts(p_now)
$$;
