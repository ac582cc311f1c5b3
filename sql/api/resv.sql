-- Reservations after they are booked: read, fail, move on by time; quotes and tokens. What
-- their tenants change stands in change.sql. Locks: as book.sql says.

CREATE OR REPLACE FUNCTION ng.resv_lock(p_tenant uuid, p_id uuid) RETURNS ng.reservation
LANGUAGE plpgsql AS $$
DECLARE v ng.reservation;
BEGIN
    SELECT * INTO v FROM ng.reservation WHERE id = p_id AND (p_tenant IS NULL OR tenant_id = p_tenant) FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ng.refuse(5, format('there is no reservation %s', p_id));
    END IF;
    RETURN v;
END $$;

CREATE OR REPLACE FUNCTION api.resv_get(p_tenant uuid, p_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v reservation;
BEGIN
    SELECT * INTO v FROM reservation WHERE id = p_id AND (p_tenant IS NULL OR tenant_id = p_tenant);
    IF NOT FOUND THEN
        PERFORM refuse(5, format('there is no reservation %s', p_id));
    END IF;
    RETURN resv_json(v);
END $$;

CREATE OR REPLACE FUNCTION api.resv_by_key(p_tenant uuid, p_key text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v reservation;
BEGIN
    SELECT * INTO v FROM reservation WHERE tenant_id = p_tenant AND idem_key = p_key;
    IF NOT FOUND THEN
        PERFORM refuse(5, 'nothing was booked with this key');
    END IF;
    RETURN resv_json(v);
END $$;

CREATE OR REPLACE FUNCTION api.resv_list(p_tenant uuid, p_state text, p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT page('reservations', (SELECT jsonb_agg(resv_json(r) || jsonb_build_object('_key', r.id) ORDER BY r.id DESC)
        FROM (SELECT * FROM reservation
               WHERE (p_tenant IS NULL OR tenant_id = p_tenant) AND (p_state IS NULL OR state = p_state)
                 AND (p_cursor IS NULL OR id < p_cursor::uuid)
               ORDER BY id DESC LIMIT p_limit + 1) r), p_limit)
$$;

-- What the bookings of a reservation cost from their start to p_end, in all. Lanes cost
-- from the reservation's start on: their set-up is the operator's.
CREATE OR REPLACE FUNCTION ng.resv_price(p_id uuid, p_end timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT (SELECT coalesce(sum(ng.money_mul((upper(b.gpus) - lower(b.gpus)) * greatest(0, ng.us(p_end) - ng.us(lower(b.during))),
                       b.per_gpu_hour_micro, 3600000000)), 0)
              FROM ng.booking b WHERE b.reservation_id = p_id AND NOT isempty(b.during))::bigint
         + (SELECT coalesce(sum(ng.money_mul((upper(k.lanes) - lower(k.lanes)) * greatest(0,
                       ng.us(CASE WHEN upper(k.during) < upper(r.during) THEN least(p_end, upper(k.during)) ELSE p_end END)
                       - ng.us(greatest(lower(k.during), lower(r.during)))), k.per_lane_hour_micro, 3600000000)), 0)
              FROM ng.path_booking k JOIN ng.reservation r ON r.id = k.reservation_id
             WHERE k.reservation_id = p_id AND NOT isempty(k.during))::bigint
$$;
-- And an hour of it.
CREATE OR REPLACE FUNCTION ng.resv_per_hour(p_id uuid) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT (SELECT coalesce(sum((upper(gpus) - lower(gpus)) * per_gpu_hour_micro), 0) FROM ng.booking
             WHERE reservation_id = p_id AND NOT isempty(during))::bigint
         + (SELECT coalesce(sum((upper(lanes) - lower(lanes)) * per_lane_hour_micro), 0) FROM ng.path_booking
             WHERE reservation_id = p_id AND NOT isempty(during))::bigint
$$;

-- Blocks nothing from p_at on. What somebody is lighting counts as lit, and is put out.
CREATE OR REPLACE FUNCTION ng.lanes_cut(p_id uuid, p_at timestamptz) RETURNS void
LANGUAGE sql AS $$
    UPDATE ng.path_booking SET during = CASE WHEN lower(during) < p_at THEN tstzrange(lower(during), p_at) ELSE 'empty' END,
        state = CASE WHEN lower(during) < p_at OR state <> 'planned' THEN state
                     WHEN claimed_until IS NULL THEN 'released' ELSE 'lit' END
     WHERE reservation_id = p_id AND upper(during) > p_at
$$;
-- Another place: what is still to be put out is kept, without its claim on the lanes.
CREATE OR REPLACE FUNCTION ng.lanes_drop(p_id uuid) RETURNS void
LANGUAGE sql AS $$
    SELECT ng.lanes_cut(p_id, '-infinity');
    DELETE FROM ng.path_booking WHERE reservation_id = p_id AND state <> 'lit'
$$;
CREATE OR REPLACE FUNCTION ng.resv_cut(p_id uuid, p_at timestamptz) RETURNS void
LANGUAGE sql AS $$
    UPDATE ng.booking SET during = CASE WHEN lower(during) < p_at THEN tstzrange(lower(during), p_at) ELSE 'empty' END
     WHERE reservation_id = p_id AND upper(during) > p_at;
    SELECT ng.lanes_cut(p_id, p_at)
$$;
CREATE OR REPLACE FUNCTION ng.resv_empty(p_id uuid) RETURNS void
LANGUAGE sql AS $$
    UPDATE ng.booking SET during = 'empty' WHERE reservation_id = p_id;
    SELECT ng.lanes_cut(p_id, '-infinity')
$$;

CREATE OR REPLACE FUNCTION ng.move_hold(r ng.reservation, p_delta bigint, p_ref text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_wallet integer := ng.account_of('wallet', r.tenant_id, NULL, r.currency);
    v_hold integer := ng.account_of('hold', r.tenant_id, NULL, r.currency);
BEGIN
    IF p_delta > 0 THEN
        PERFORM ng.post('hold', v_wallet, v_hold, r.currency, p_delta, r.id, p_ref);
    ELSIF p_delta < 0 THEN
        PERFORM ng.post('release', v_hold, v_wallet, r.currency, -p_delta, r.id, p_ref);
    END IF;
EXCEPTION WHEN check_violation THEN
    PERFORM ng.refuse(CASE WHEN why = 'budget' THEN 33 ELSE 7 END, format('your %s does not cover %s %s more',
        CASE WHEN why = 'budget' THEN why ELSE 'wallet' END, round(p_delta / 1000000.0, 6), r.currency))
       FROM ng.why_unpaid(r.tenant_id, r.currency) why;
END $$;

CREATE OR REPLACE FUNCTION ng.resv_revoke(r ng.reservation, p_reason text) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO ng.revocation (reservation_id, reason, until) VALUES (r.id, p_reason, upper(r.during))
    ON CONFLICT DO NOTHING
$$;

CREATE OR REPLACE FUNCTION ng.resv_start_if_due(r ng.reservation, p_now timestamptz) RETURNS ng.reservation
LANGUAGE plpgsql AS $$
BEGIN
    IF r.state = 'confirmed' AND lower(r.during) <= p_now THEN
        UPDATE ng.reservation SET state = 'active' WHERE id = r.id RETURNING * INTO r;
        PERFORM ng.tell_resv('reservation.started', r.id);
    END IF;
    RETURN r;
END $$;

-- The market or a provider cannot deliver. One that did not start gets everything back;
-- GPUs of a reservation that may run somewhere stay blocked until its end or a teardown
-- receipt, and billing gives back what was not used. p_generation (0: any) is what the
-- caller decided on: of several servers one may have helped it meanwhile.
DROP FUNCTION IF EXISTS api.resv_fail(uuid, text, bigint);
CREATE OR REPLACE FUNCTION api.resv_fail(p_id uuid, p_reason text, p_generation bigint, p_now bigint)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE r reservation := resv_start_if_due(resv_lock(NULL, p_id), ts(p_now));
BEGIN
    IF r.state = 'failed' THEN
        RETURN resv_json(r);
    END IF;
    IF NOT EXISTS (SELECT FROM resv_rule WHERE from_state = r.state AND event = 'fail') THEN
        PERFORM refuse(6, format('a reservation that is %s cannot fail', r.state));
    END IF;
    IF p_generation <> 0 AND p_generation <> r.generation THEN
        PERFORM refuse(6, format('the reservation has generation %s, not %s: read it again', r.generation, p_generation));
    END IF;
    PERFORM resv_revoke(r, p_reason);
    IF r.state = 'active' THEN
        PERFORM lanes_cut(p_id, ts(p_now));
    ELSE
        PERFORM resv_empty(p_id);
        PERFORM refund(r, p_id || '/fail');
        DELETE FROM waiting WHERE reservation_id = p_id;
    END IF;
    UPDATE reservation SET state = 'failed', reason = p_reason, fault = p_reason, generation = generation + 1,
        ended_at = least(ts(p_now), upper(during))
     WHERE id = p_id RETURNING * INTO r;
    PERFORM tell_resv('reservation.failed', p_id);
    RETURN resv_json(r);
END $$;

-- Nothing of these can be delivered as it is: a node they are booked on is lost or banned.
-- What runs on a banned one is to end (begun), what runs on a lost one goes on.
CREATE OR REPLACE FUNCTION api.resv_lost(p_now bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('reservations', coalesce(jsonb_agg(resv_json(r) || jsonb_build_object('lost', x.nodes, 'begun', lower(r.during) <= ts(p_now), 'banned', x.banned)
               ORDER BY lower(r.during), r.id), '[]'))
      FROM (SELECT b.reservation_id AS id, jsonb_agg(DISTINCT b.node_id) AS nodes, min(lower(b.during)) AS start, bool_or(n.banned_at IS NOT NULL) AS banned
              FROM node n JOIN booking b ON b.node_id = n.id AND NOT isempty(b.during)
               AND (lower(b.during) > ts(p_now) OR (n.banned_at IS NOT NULL AND upper(b.during) > ts(p_now)))
              JOIN reservation v ON v.id = b.reservation_id
               AND ((v.state = 'confirmed' AND lower(v.during) > ts(p_now))
                    OR (n.banned_at IS NOT NULL AND v.state IN ('confirmed', 'active') AND upper(v.during) > ts(p_now)))
             WHERE n.state IN ('lost', 'retired') OR n.banned_at IS NOT NULL
             GROUP BY b.reservation_id ORDER BY start, id LIMIT 500) x
      JOIN reservation r ON r.id = x.id
$$;

-- What a site's loss would hit.
CREATE OR REPLACE FUNCTION api.site_resv(p_site text, p_now bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v_site integer := (SELECT id FROM site WHERE name = p_site);
BEGIN
    IF v_site IS NULL THEN
        PERFORM refuse(5, format('no site is named %s', p_site));
    END IF;
    RETURN (SELECT jsonb_build_object('site', p_site, 'reservations',
                       coalesce(jsonb_agg(resv_json(r) ORDER BY t.name, lower(r.during), r.id), '[]'))
              FROM reservation r JOIN tenant t ON t.id = r.tenant_id
             WHERE r.state IN ('confirmed', 'active') AND NOT r.spot
               AND r.id IN (SELECT b.reservation_id FROM node n JOIN booking b ON b.node_id = n.id
                             WHERE n.site_id = v_site AND upper(b.during) > ts(p_now)));
END $$;

-- What is due by time. Skips what another server is working on: it does the same.
-- An active reservation ends when its nodes reported it gone (api.receipts), or here
-- p_grace after its end; one that no node ever reported was not delivered. Holds end with
-- their quote or at their start, orders when they have waited long enough.
CREATE OR REPLACE FUNCTION api.transitions(p_now bigint, p_grace bigint)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_now timestamptz := ts(p_now);
    v_late timestamptz := ts(p_now - p_grace);
    r record;
    v_started uuid[] := '{}';
    v_ended uuid[] := '{}';
    v_expired uuid[] := '{}';
BEGIN
    FOR r IN SELECT id FROM reservation WHERE state = 'confirmed' AND lower(during) <= v_now
              ORDER BY lower(during) LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        UPDATE reservation SET state = 'active' WHERE id = r.id;
        PERFORM tell_resv('reservation.started', r.id);
        v_started := v_started || r.id;
    END LOOP;
    FOR r IN SELECT id, during FROM reservation
              WHERE state = 'active' AND upper(during) <= v_late
              ORDER BY upper(during) LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        IF EXISTS (SELECT FROM receipt WHERE reservation_id = r.id) THEN
            UPDATE reservation SET state = 'ended', ended_at = upper(during) WHERE id = r.id;
            PERFORM tell_resv('reservation.ended', r.id);
        ELSE
            UPDATE reservation SET state = 'failed', reason = 'not delivered: no node reported it',
                ended_at = upper(during) WHERE id = r.id;
            PERFORM tell_resv('reservation.failed', r.id);
        END IF;
        v_ended := v_ended || r.id;
    END LOOP;
    FOR r IN SELECT id FROM reservation
              WHERE state = 'held' AND (hold_until <= v_now OR lower(during) <= v_now)
              ORDER BY id LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        PERFORM resv_empty(r.id);
        UPDATE reservation SET state = 'cancelled', reason = 'hold expired', ended_at = v_now WHERE id = r.id;
        PERFORM tell_resv('reservation.cancelled', r.id);
        v_expired := v_expired || r.id;
    END LOOP;
    FOR r IN SELECT v.id, w.until, w.why FROM waiting w JOIN reservation v ON v.id = w.reservation_id AND v.state = 'waiting'
              WHERE w.until <= v_now ORDER BY v.id LIMIT 1000 FOR UPDATE OF v SKIP LOCKED
    LOOP
        DELETE FROM waiting WHERE reservation_id = r.id;
        UPDATE reservation SET state = 'failed', ended_at = v_now, generation = generation + 1,
            reason = format('nothing fitted until %s', time_text(r.until))
                || CASE WHEN r.why IN ('', 'funds') THEN '' ELSE ': ' || r.why END
         WHERE id = r.id;
        PERFORM tell_resv('reservation.failed', r.id);
        v_expired := v_expired || r.id;
    END LOOP;
    RETURN jsonb_build_object('started', to_jsonb(v_started), 'ended', to_jsonb(v_ended), 'expired', to_jsonb(v_expired));
END $$;

CREATE OR REPLACE FUNCTION api.quote_put(p_id uuid, p_tenant uuid, p_created bigint, p_expires bigint,
    p_request jsonb, p_plan jsonb, p_quote_hash bytea, p_principal text, p_idem text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    INSERT INTO quote (id, tenant_id, created_at, expires_at, request, plan, hash)
    VALUES (p_id, p_tenant, ts(p_created), ts(p_expires), p_request, p_plan, p_quote_hash);
    RETURN idem_new(p_principal, p_idem, p_hash, jsonb_build_object('id', p_id, 'expires_us', p_expires, 'tax', plan_tax(p_tenant, p_plan, ts(p_created))));
END $$;

CREATE OR REPLACE FUNCTION api.quote_get(p_tenant uuid, p_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v quote;
BEGIN
    SELECT * INTO v FROM quote WHERE id = p_id AND tenant_id = p_tenant;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('there is no quote %s', p_id));
    END IF;
    RETURN jsonb_build_object('id', v.id, 'created_us', us(v.created_at), 'expires_us', us(v.expires_at),
        'request', v.request, 'plan', v.plan, 'hash', encode(v.hash, 'hex'), 'tax', plan_tax(p_tenant, v.plan, v.created_at));
END $$;

CREATE OR REPLACE FUNCTION api.token_log(p_reservation uuid, p_tokens jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    INSERT INTO token (jti, reservation_id, node_id, jkt, kid, issued_at, expires_at)
    SELECT (t->>'jti')::uuid, p_reservation, (t->>'node_id')::integer, t->>'jkt', t->>'kid',
           ts((t->>'issued_us')::bigint), ts((t->>'expires_us')::bigint)
      FROM jsonb_array_elements(p_tokens) t
    ON CONFLICT DO NOTHING;
    RETURN '{}';
END $$;

-- Revoked leases that could still run or be started. Those far in the future were never
-- told to a node. min_epochs: GPUs of those that had begun, for which only a grant of a
-- later booking is good (a booking's epoch is its start).
CREATE OR REPLACE FUNCTION api.status(p_now bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('seq', (SELECT last_value FROM status_seq),
        'min_epochs', coalesce((SELECT jsonb_object_agg(y.uuid, y.epoch)
            FROM (SELECT g.uuid, max(b.epoch) AS epoch
                    FROM revocation v JOIN booking b ON b.reservation_id = v.reservation_id
                    JOIN gpu g ON g.no >= lower(b.gpus) AND g.no < upper(b.gpus)
                   WHERE v.until > ts(p_now) AND b.epoch <= p_now
                   GROUP BY g.uuid ORDER BY max(b.epoch) DESC LIMIT 1000) y), '{}'),
        'revoked', coalesce((SELECT jsonb_agg(jsonb_build_object('reservation', x.reservation_id, 'reason', x.reason) ORDER BY x.seq)
            FROM (SELECT v.* FROM revocation v JOIN reservation r ON r.id = v.reservation_id
                   WHERE v.until > ts(p_now) AND lower(r.during) < ts(p_now) + interval '2 days'
                   ORDER BY v.seq DESC LIMIT 10000) x), '[]'))
$$;
