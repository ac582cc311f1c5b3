-- Standing orders and preemption. Which order is booked where, and who makes room for
-- whom, the servers plan (server/core); what they plan is checked here, under locks.

-- Gives back all that is held of a reservation; the ref is used once.
CREATE OR REPLACE FUNCTION ng.refund(r ng.reservation, p_ref text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ng.move_hold(r, r.captured_micro + r.released_micro - r.held_micro, p_ref);
    UPDATE ng.reservation SET released_micro = held_micro - captured_micro WHERE id = r.id;
END $$;

-- A duration as people read it: 90s, 2m, 1h.
CREATE OR REPLACE FUNCTION ng.duration_text(p_us bigint) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_us % 3600000000 = 0 THEN p_us / 3600000000 || 'h'
                WHEN p_us % 60000000 = 0 THEN p_us / 60000000 || 'm'
                ELSE round(p_us / 1000000.0, 3)::double precision || 's' END
$$;
CREATE OR REPLACE FUNCTION ng.time_text(t timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
$$;

-- When an order of this request stops waiting, as it says itself.
CREATE OR REPLACE FUNCTION ng.wait_until(r ng.reservation) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((r.request->>'wait_until')::timestamptz, r.created_at + interval '14 days');
EXCEPTION WHEN data_exception THEN
    RETURN r.created_at + interval '14 days';
END $$;

-- Makes room: the victims, locked by the caller, lose what lies behind their cut. A spot
-- lease is told to its node for less than its notice at a time and not earlier than a
-- third of it before the start (ng.desired), so that nobody opens what is not ended at
-- least a notice ahead, and one that starts later can go whole. Returns those that went
-- whole: the caller gives back their money once it has the accounts' locks. NGX01: some
-- victim is none.
CREATE OR REPLACE FUNCTION ng.preempt(p_ids uuid[], p_cuts bigint[], p_now bigint) RETURNS uuid[]
LANGUAGE plpgsql AS $$
DECLARE
    v record;
    r ng.reservation;
    v_now timestamptz := ng.ts(p_now);
    v_notice bigint;
    v_whole uuid[] := '{}';
    v_gone jsonb;
    v_lanes jsonb;
BEGIN
    FOR v IN SELECT x.id, max(x.cut) AS cut FROM unnest(p_ids, p_cuts) AS x(id, cut) GROUP BY x.id ORDER BY x.id LOOP
        SELECT * INTO r FROM ng.reservation WHERE id = v.id;
        SELECT CASE WHEN bool_and(b.notice_us IS NOT NULL) THEN max(b.notice_us) END INTO v_notice
          FROM ng.booking b WHERE b.reservation_id = v.id;
        IF r.id IS NULL OR NOT r.spot OR r.preempted_by IS NOT NULL OR v_notice IS NULL OR upper(r.during) <= v_now
            OR NOT EXISTS (SELECT FROM ng.resv_rule WHERE from_state = r.state AND event = 'preempt') THEN
            RAISE EXCEPTION 'reservation % cannot be preempted', v.id USING ERRCODE = 'NGX01';
        END IF;
        IF r.state = 'active' OR ng.us(lower(r.during)) <= p_now + v_notice THEN
            IF v.cut < p_now + v_notice OR ng.ts(v.cut) >= upper(r.during) THEN
                RAISE EXCEPTION 'the cut of % is less than its notice away, or cuts nothing', v.id USING ERRCODE = 'NGX01';
            END IF;
            PERFORM ng.resv_cut(v.id, ng.ts(v.cut));
            UPDATE ng.reservation SET during = tstzrange(lower(during), ng.ts(v.cut)), generation = generation + 1,
                fault = 'preempted', preempted_by = 'firm demand', preempted_at = v_now,
                reason = format('preempted by firm demand at %s: notice %s', ng.time_text(v_now), ng.duration_text(v_notice))
             WHERE id = v.id;
            PERFORM ng.tell_resv('reservation.preempted', v.id);
        ELSIF r.request->>'wait' = 'true' AND ng.wait_until(r) > v_now THEN
            v_gone := ng.gone(ng.bookings_payload(v.id));
            v_lanes := ng.gone(ng.lanes_payload(v.id));
            DELETE FROM ng.booking WHERE reservation_id = v.id;
            PERFORM ng.lanes_drop(v.id);
            UPDATE ng.reservation SET state = 'waiting', generation = generation + 1,
                during = tstzrange(v_now, ng.wait_until(r)), per_hour_micro = 0, total_micro = 0, effective_micro = 0,
                paid_until = NULL, hold_due_at = NULL, funds_low_at = NULL,
                reason = format('preempted by firm demand at %s before it started: waits again', ng.time_text(v_now))
             WHERE id = v.id;
            INSERT INTO ng.waiting (reservation_id, until) VALUES (v.id, ng.wait_until(r));
            PERFORM ng.tell_resv('reservation.preempted', v.id, v_gone, v_lanes);
            v_whole := v_whole || v.id;
        ELSE
            PERFORM ng.resv_revoke(r, 'preempted by firm demand');
            PERFORM ng.resv_empty(v.id);
            UPDATE ng.reservation SET state = 'cancelled', generation = generation + 1, ended_at = v_now,
                fault = 'preempted', preempted_by = 'firm demand', preempted_at = v_now,
                reason = format('preempted by firm demand at %s before it started', ng.time_text(v_now))
             WHERE id = v.id;
            PERFORM ng.tell_resv('reservation.preempted', v.id);
            v_whole := v_whole || v.id;
        END IF;
    END LOOP;
    RETURN v_whole;
END $$;

-- A standing order: a reservation in state waiting, with no booking and no money held.
CREATE OR REPLACE FUNCTION api.wait_put(p_id uuid, p_tenant uuid, p_request jsonb, p_until bigint, p_spot boolean,
    p_now bigint, p_key text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    r reservation;
    v_key text := coalesce(p_key, p_id::text);
BEGIN
    IF p_until <= p_now THEN
        PERFORM refuse(20, 'the time until which it may wait is over');
    END IF;
    INSERT INTO reservation (id, tenant_id, state, created_at, during, request, currency, per_hour_micro, total_micro,
        effective_micro, fee_ppm, idem_key, idem_hash, spot)
    SELECT p_id, p_tenant, 'waiting', ts(p_now), span(p_now, p_until), p_request, m.currency, 0, 0, 0, m.fee_ppm, v_key,
           p_hash, coalesce(p_spot, false)
      FROM market m
    ON CONFLICT (tenant_id, idem_key) DO NOTHING RETURNING * INTO r;
    IF r.id IS NULL THEN
        SELECT * INTO STRICT r FROM reservation WHERE tenant_id = p_tenant AND idem_key = v_key;
        IF r.idem_hash <> p_hash THEN
            PERFORM refuse(25, format('idempotency key %s was used with another request', v_key));
        END IF;
        RETURN resv_json(r) || '{"replayed": true}';
    END IF;
    INSERT INTO waiting (reservation_id, until) VALUES (p_id, ts(p_until));
    PERFORM tell_resv('reservation.waiting', p_id);
    RETURN resv_json(r);
END $$;

CREATE OR REPLACE FUNCTION api.wait_list() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('orders', coalesce(jsonb_agg(jsonb_build_object('id', r.id, 'tenant_id', r.tenant_id,
               'tenant', t.name, 'priority', t.priority, 'created_us', us(r.created_at), 'until_us', us(w.until),
               'spot', r.spot, 'position', w.position, 'predicted_us', us(w.predicted_at), 'why', w.why,
               'request', r.request, 'generation', r.generation)
               ORDER BY t.priority DESC, r.created_at, r.id), '[]'))
      FROM waiting w JOIN reservation r ON r.id = w.reservation_id AND r.state = 'waiting'
      JOIN tenant t ON t.id = r.tenant_id
$$;

-- What the planner thinks of orders that wait: shown, and nothing else. Locks them in the
-- order of their ids; of two planners the later wins. A prediction that moves by less
-- than a minute is written, not told.
CREATE OR REPLACE FUNCTION api.wait_plan(p_plan jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v record;
    v_changed integer := 0;
BEGIN
    FOR v IN
        SELECT w.reservation_id AS id, x.position, ts(x.predicted) AS predicted, x.why,
               w.position <> x.position OR (w.predicted_at IS NULL) <> (x.predicted IS NULL)
               OR coalesce(abs(us(w.predicted_at) - x.predicted) >= 60000000, false) AS news
          FROM (SELECT uuid_of(e->>'id') AS id, coalesce((e->>'position')::integer, 0) AS position,
                       (e->>'predicted_us')::bigint AS predicted, coalesce(e->>'why', '') AS why
                  FROM jsonb_array_elements(p_plan) e) x
          JOIN waiting w ON w.reservation_id = x.id
         WHERE (w.position, w.predicted_at, w.why) IS DISTINCT FROM (x.position, ts(x.predicted), x.why)
         ORDER BY w.reservation_id FOR UPDATE OF w
    LOOP
        UPDATE waiting SET position = v.position, predicted_at = v.predicted, why = v.why WHERE reservation_id = v.id;
        IF v.news THEN
            PERFORM tell_resv('reservation.planned', v.id);
        END IF;
        v_changed := v_changed + 1;
    END LOOP;
    RETURN jsonb_build_object('changed', v_changed);
END $$;
