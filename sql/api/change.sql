-- What a tenant changes of its reservation: end, GPUs, place; and whether it has it at
-- all. Each is checked against the same constraints as a booking, under the lock order
-- that book.sql states, whole or not at all; p_dry does everything and undoes it. A
-- repeated request changes nothing more.

DROP FUNCTION IF EXISTS api.resv_extend(uuid, uuid, bigint, bigint, bigint);
DROP FUNCTION IF EXISTS api.resv_cancel(uuid, uuid, text, bigint);

-- As client/lib/bounds.h; tests/db compares them.
CREATE OR REPLACE FUNCTION ng.lease_max_us() RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT 31 * 24 * 3600 * 1000000::bigint $$;
CREATE OR REPLACE FUNCTION ng.horizon_us() RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT 366 * 24 * 3600 * 1000000::bigint $$;

-- With what the feed will tell of it, so that the server that asked need not wait for the
-- feed, which may wait for other transactions.
CREATE OR REPLACE FUNCTION ng.change_json(r ng.reservation, p_delta bigint, p_total bigint) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT ng.resv_json(r) || jsonb_build_object('change',
        jsonb_build_object('delta_micro', p_delta, 'new_total_micro', p_total, 'dry_run', false),
        'events', (SELECT coalesce(jsonb_agg(ng.event_json(e) ORDER BY e.id), '[]') FROM ng.event e
                    WHERE e.xid = pg_current_xact_id() AND e.reservation_id = r.id))
$$;
CREATE OR REPLACE FUNCTION ng.change_dry(p_change jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$ SELECT jsonb_set(p_change, '{change,dry_run}', 'true') - 'events' $$;

-- That it may be changed so now, and is what the caller read.
CREATE OR REPLACE FUNCTION ng.change_check(r ng.reservation, p_event text, p_generation bigint, p_now timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE v_over boolean := r.state <> 'waiting' AND upper(r.during) <= p_now;
BEGIN
    IF p_generation <> 0 AND p_generation <> r.generation THEN
        PERFORM ng.refuse(6, format('the reservation has generation %s, not %s: read it again', r.generation, p_generation));
    END IF;
    IF v_over OR NOT EXISTS (SELECT FROM ng.resv_rule WHERE from_state = r.state AND event = p_event) THEN
        PERFORM ng.refuse(6, format('a reservation that is %s cannot be changed', CASE WHEN v_over THEN 'over' ELSE r.state END));
    END IF;
    IF r.preempted_by IS NOT NULL THEN
        PERFORM ng.refuse(6, format('it was preempted by %s and ends at %s', r.preempted_by, ng.time_text(upper(r.during))));
    END IF;
END $$;
CREATE OR REPLACE FUNCTION ng.change_unstarted(r ng.reservation, p_now timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF r.state <> 'confirmed' OR lower(r.during) <= p_now THEN
        PERFORM ng.refuse(6, 'it has started: only its end can still be changed');
    END IF;
END $$;

-- The new price, and the money for the difference, up to where it is held (hold.sql). r is
-- the reservation as it was. What is paid for stays so.
DROP FUNCTION IF EXISTS ng.change_price(ng.reservation, bigint, text);
CREATE OR REPLACE FUNCTION ng.change_price(r ng.reservation, p_total bigint, p_ref text, p_now timestamptz) RETURNS ng.reservation
LANGUAGE plpgsql AS $$
DECLARE
    v_during tstzrange := (SELECT during FROM ng.reservation WHERE id = r.id);
    v_paid timestamptz := ng.hold_end(v_during, p_now);
    v_more bigint;
BEGIN
    IF v_paid IS NOT NULL AND lower(v_during) <= p_now THEN
        v_paid := greatest(v_paid, coalesce(r.paid_until, upper(r.during)));
    END IF;
    IF v_paid >= upper(v_during) THEN
        v_paid := NULL;
    END IF;
    v_more := CASE WHEN v_paid IS NULL THEN p_total ELSE ng.resv_price(r.id, v_paid) END - (r.held_micro - r.released_micro);
    PERFORM ng.move_hold(r, v_more, r.id || p_ref || r.generation);
    UPDATE ng.reservation SET generation = generation + 1, per_hour_micro = ng.resv_per_hour(id),
        held_micro = held_micro + greatest(0, v_more),
        released_micro = released_micro + greatest(0, -v_more),
        paid_until = v_paid, hold_due_at = ng.hold_due(v_paid),
        reason = CASE WHEN funds_low_at IS NULL THEN reason ELSE '' END, funds_low_at = NULL,
        effective_micro = CASE WHEN total_micro = 0 THEN 0
            ELSE round(effective_micro::numeric * p_total / total_micro)::bigint END,
        total_micro = p_total
     WHERE id = r.id RETURNING * INTO r;
    RETURN r;
END $$;

-- ---- the end ----

CREATE OR REPLACE FUNCTION ng.extend_later(r ng.reservation, p_end timestamptz, p_now timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF ng.us(p_end) - ng.us(lower(r.during)) > ng.lease_max_us() THEN
        PERFORM ng.refuse(20, format('a reservation is at most %s days long', ng.lease_max_us() / 86400000000));
    ELSIF ng.us(p_end) > ng.us(p_now) + ng.horizon_us() + ng.lease_max_us() THEN
        PERFORM ng.refuse(20, format('nothing is sold that far ahead: at most %s days', ng.horizon_us() / 86400000000));
    END IF;
    PERFORM 1 FROM ng.node WHERE id IN (SELECT node_id FROM ng.booking WHERE reservation_id = r.id) ORDER BY id FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM ng.booking b JOIN ng.node n ON n.id = b.node_id
                WHERE b.reservation_id = r.id AND (n.state = 'retired' OR isempty(b.during) OR upper(b.during) < upper(r.during)))
        OR EXISTS (SELECT FROM ng.path_booking k WHERE k.reservation_id = r.id
                    AND upper(k.during) < upper(r.during)) THEN
        PERFORM ng.refuse(6, 'part of the reservation has ended already');
    END IF;
    BEGIN
        PERFORM 1 FROM ng.booking WHERE reservation_id = r.id ORDER BY lower(gpus) FOR UPDATE;
        UPDATE ng.booking SET during = tstzrange(lower(during), p_end)
         WHERE reservation_id = r.id AND upper(during) < p_end;
    EXCEPTION WHEN exclusion_violation THEN
        PERFORM ng.refuse(6, 'the GPUs are booked by others after the present end');
    END;
    BEGIN
        PERFORM 1 FROM ng.path_booking WHERE reservation_id = r.id ORDER BY lower(lanes) FOR UPDATE;
        UPDATE ng.path_booking SET during = tstzrange(lower(during), p_end)
         WHERE reservation_id = r.id AND NOT isempty(during);
    EXCEPTION WHEN exclusion_violation THEN
        PERFORM ng.refuse(6, 'the path is booked by others after the present end');
    END;
END $$;

-- A node may have been told the old end, up to a day ahead, and opens what it was told
-- without asking again: then its GPUs stay blocked until the teardown receipt comes, or
-- the old end. The tenant pays to the new one in any case.
CREATE OR REPLACE FUNCTION ng.extend_earlier(r ng.reservation, p_end timestamptz, p_now timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_end <= p_now OR p_end <= lower(r.during) THEN
        PERFORM ng.refuse(6, 'the new end must be after now and after the start: cancel it instead');
    ELSIF ng.resv_price(r.id, p_end) < r.captured_micro THEN -- a node's clock may be a minute ahead
        PERFORM ng.refuse(6, 'use after the new end was charged already: choose one that is a minute away, or cancel it');
    END IF;
    IF r.state = 'confirmed' AND lower(r.during) > p_now + interval '1 day 1 minute' THEN
        PERFORM ng.resv_cut(r.id, p_end);
    ELSE
        PERFORM ng.lanes_cut(r.id, p_end);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION ng.extend_now(p_tenant uuid, p_id uuid, p_end timestamptz, p_generation bigint, p_now timestamptz)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    r ng.reservation := ng.resv_lock(p_tenant, p_id);
    v_old bigint := r.total_micro;
    v_total bigint;
BEGIN
    IF r.state <> 'waiting' AND upper(r.during) = p_end THEN
        RETURN ng.change_json(r, 0, r.total_micro); -- a repeated request
    END IF;
    PERFORM ng.change_check(r, 'extend', p_generation, p_now);
    IF p_end > upper(r.during) THEN
        PERFORM ng.extend_later(r, p_end, p_now);
    ELSE
        PERFORM ng.extend_earlier(r, p_end, p_now);
    END IF;
    UPDATE ng.reservation SET during = tstzrange(lower(during), p_end) WHERE id = p_id;
    v_total := ng.resv_price(p_id, p_end);
    r := ng.change_price(r, v_total, '/end/', p_now);
    PERFORM ng.tell_resv('reservation.extended', p_id);
    RETURN ng.change_json(r, v_total - v_old, v_total);
END $$;

CREATE OR REPLACE FUNCTION api.resv_extend(p_tenant uuid, p_id uuid, p_end bigint, p_generation bigint, p_dry boolean,
    p_now bigint)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v jsonb;
BEGIN
    IF NOT p_dry THEN
        RETURN extend_now(p_tenant, p_id, ts(p_end), p_generation, ts(p_now));
    END IF;
    BEGIN
        v := extend_now(p_tenant, p_id, ts(p_end), p_generation, ts(p_now));
        RAISE EXCEPTION 'dry run' USING ERRCODE = 'NGDRY';
    EXCEPTION WHEN SQLSTATE 'NGDRY' THEN
        RETURN change_dry(v);
    END;
END $$;

-- ---- fewer GPUs ----

CREATE OR REPLACE FUNCTION ng.shrink_now(p_tenant uuid, p_id uuid, p_gpus integer, p_generation bigint, p_now timestamptz)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    r ng.reservation := ng.resv_lock(p_tenant, p_id);
    v_old bigint := r.total_micro;
    v_total bigint;
    v_least integer;
    v_most integer;
BEGIN
    SELECT min(upper(gpus) - lower(gpus)), max(upper(gpus) - lower(gpus)) INTO v_least, v_most
      FROM ng.booking WHERE reservation_id = p_id;
    IF v_least = p_gpus AND v_most = p_gpus AND r.state = 'confirmed' THEN
        RETURN ng.change_json(r, 0, r.total_micro); -- a repeated request
    END IF;
    PERFORM ng.change_check(r, 'shrink', p_generation, p_now);
    PERFORM ng.change_unstarted(r, p_now);
    IF p_gpus < 1 OR p_gpus > v_least THEN
        PERFORM ng.refuse(6, format('it has %s GPUs a node: it can become 1 to %s', v_least, v_least));
    END IF;
    UPDATE ng.booking SET gpus = int4range(lower(gpus), lower(gpus) + p_gpus) WHERE reservation_id = p_id;
    UPDATE ng.reservation SET request = jsonb_set(request, '{gpus}', to_jsonb(p_gpus)) WHERE id = p_id;
    v_total := ng.resv_price(p_id, upper(r.during));
    r := ng.change_price(r, v_total, '/gpus/', p_now);
    PERFORM ng.tell_resv('reservation.shrunk', p_id);
    RETURN ng.change_json(r, v_total - v_old, v_total);
END $$;

CREATE OR REPLACE FUNCTION api.resv_shrink(p_tenant uuid, p_id uuid, p_gpus bigint, p_generation bigint, p_dry boolean,
    p_now bigint)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v jsonb;
BEGIN
    IF NOT p_dry THEN
        RETURN shrink_now(p_tenant, p_id, p_gpus::integer, p_generation, ts(p_now));
    END IF;
    BEGIN
        v := shrink_now(p_tenant, p_id, p_gpus::integer, p_generation, ts(p_now));
        RAISE EXCEPTION 'dry run' USING ERRCODE = 'NGDRY';
    EXCEPTION WHEN SQLSTATE 'NGDRY' THEN
        RETURN change_dry(v);
    END;
END $$;

-- ---- another place ----

-- Whether it stands where the request wants it already.
CREATE OR REPLACE FUNCTION ng.stands_at(p_id uuid, p_bookings jsonb, p_paths jsonb) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT NOT EXISTS (
               (SELECT b.node_id, (lower(b.gpus) - lower(n.gpus))::integer, (upper(b.gpus) - lower(b.gpus))::integer,
                       ng.us(lower(b.during)), ng.us(upper(b.during))
                  FROM ng.booking b JOIN ng.node n ON n.id = b.node_id WHERE b.reservation_id = p_id)
               EXCEPT
               (SELECT (e->>'node_id')::integer, (e->>'first')::integer, (e->>'count')::integer, (e->>'from_us')::bigint,
                       (e->>'to_us')::bigint FROM jsonb_array_elements(p_bookings) e))
       AND NOT EXISTS (
               (SELECT k.path_id, (lower(k.lanes) - lower(p.lanes))::integer, (upper(k.lanes) - lower(k.lanes))::integer,
                       ng.us(lower(k.during)), ng.us(upper(k.during))
                  FROM ng.path_booking k JOIN ng.path p ON p.id = k.path_id
                 WHERE k.reservation_id = p_id AND NOT isempty(k.during))
               EXCEPT
               (SELECT (e->>'path_id')::integer, (e->>'first')::integer, (e->>'count')::integer, (e->>'from_us')::bigint,
                       (e->>'to_us')::bigint FROM jsonb_array_elements(p_paths) e))
       AND jsonb_array_length(p_bookings) = (SELECT count(*) FROM ng.booking WHERE reservation_id = p_id)
       AND jsonb_array_length(p_paths) = (SELECT count(*) FROM ng.path_booking
                                           WHERE reservation_id = p_id AND NOT isempty(during))
$$;

-- The new bookings, at the prices given or, with p_keep, at those of the same rank before
-- (p_keep: [{count, per_gpu_hour_micro}] in order of rank).
CREATE OR REPLACE FUNCTION ng.move_bookings(r ng.reservation, p_bookings jsonb, p_keep jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_made integer;
    v_alike boolean := p_keep IS NOT NULL AND (SELECT jsonb_agg(e->'count' ORDER BY k) FROM jsonb_array_elements(p_keep)
        WITH ORDINALITY AS x(e, k)) = (SELECT jsonb_agg(e->'count' ORDER BY k) FROM jsonb_array_elements(p_bookings)
        WITH ORDINALITY AS y(e, k));
BEGIN
    WITH given AS (
        SELECT k, (e->>'node_id')::integer AS node, (e->>'site_id')::integer AS site, (e->>'first')::integer AS first,
               (e->>'count')::integer AS count, (e->>'from_us')::bigint AS f, (e->>'to_us')::bigint AS t,
               CASE WHEN v_alike THEN (p_keep->(k::integer - 1)->>'per_gpu_hour_micro')::bigint
                    ELSE (e->>'per_gpu_hour_micro')::bigint END AS price
          FROM jsonb_array_elements(p_bookings) WITH ORDINALITY AS x(e, k)),
    numbered AS MATERIALIZED (SELECT nextval('ng.booking_id_seq') AS id, g.* FROM (SELECT * FROM given ORDER BY k) g),
    made AS (
        INSERT INTO ng.booking (id, reservation_id, node_id, site_id, gpus, during, epoch, per_gpu_hour_micro, fee_ppm, notice_us)
        OVERRIDING SYSTEM VALUE
        SELECT y.id, r.id, n.id, n.site_id, int4range(lower(n.gpus) + y.first, lower(n.gpus) + y.first + y.count),
               ng.span(y.f, y.t), y.f, y.price, coalesce(p.fee_ppm, m.fee_ppm), CASE WHEN r.spot THEN s.notice_us END
          FROM numbered y
          JOIN ng.node n ON n.id = y.node AND n.site_id = y.site AND n.state NOT IN ('retired', 'lost')
           AND y.first >= 0 AND y.count > 0 AND lower(n.gpus) + y.first + y.count <= upper(n.gpus)
          JOIN ng.provider p ON p.id = n.provider_id CROSS JOIN ng.market m
          LEFT JOIN ng.spot_terms s ON r.spot AND s.node_id = n.id
         WHERE y.f < y.t AND (NOT r.spot OR s.notice_us IS NOT NULL)
         ORDER BY lower(n.gpus) + y.first, y.f
        RETURNING id)
    SELECT count(*) INTO v_made FROM made;
    IF v_made = 0 OR v_made <> jsonb_array_length(p_bookings) THEN
        PERFORM ng.refuse(6, 'a place it should move to is there no more');
    END IF;
EXCEPTION WHEN exclusion_violation THEN
    PERFORM ng.refuse(6, 'a place it should move to was taken meanwhile');
END $$;

CREATE OR REPLACE FUNCTION ng.move_paths(r ng.reservation, p_paths jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE v_made integer;
BEGIN
    PERFORM 1 FROM ng.path WHERE id IN (SELECT (e->>'path_id')::integer FROM jsonb_array_elements(p_paths) e)
      ORDER BY id FOR NO KEY UPDATE;
    WITH made AS (
        INSERT INTO ng.path_booking (reservation_id, path_id, lanes, during, per_lane_hour_micro, fee_ppm)
        SELECT r.id, p.id, int4range(lower(p.lanes) + y.first, lower(p.lanes) + y.first + y.count), ng.span(y.f, y.t),
               y.price, coalesce(v.fee_ppm, m.fee_ppm)
          FROM (SELECT (e->>'path_id')::integer AS path, (e->>'first')::integer AS first, (e->>'count')::integer AS count,
                       (e->>'from_us')::bigint AS f, (e->>'to_us')::bigint AS t, (e->>'price_micro')::bigint AS price
                  FROM jsonb_array_elements(p_paths) e) y
          JOIN ng.path p ON p.id = y.path AND p.state = 'up'
           AND y.first >= 0 AND y.count > 0 AND lower(p.lanes) + y.first + y.count <= upper(p.lanes)
          JOIN ng.provider v ON v.id = p.provider_id CROSS JOIN ng.market m
         WHERE y.f < y.t
         ORDER BY lower(p.lanes) + y.first, y.f
        RETURNING id)
    SELECT count(*) INTO v_made FROM made;
    IF v_made <> jsonb_array_length(p_paths) THEN
        PERFORM ng.refuse(6, 'a path it should move to is there no more');
    END IF;
EXCEPTION WHEN exclusion_violation THEN
    PERFORM ng.refuse(6, 'a path it should move to was taken meanwhile');
END $$;

-- p_to: {bookings, paths, start_us, end_us, prices, data, extra}.
CREATE OR REPLACE FUNCTION ng.move_now(p_tenant uuid, p_id uuid, p_generation bigint, p_to jsonb, p_keep boolean,
    p_now timestamptz)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    r ng.reservation := ng.resv_lock(p_tenant, p_id);
    v_old bigint := r.total_micro;
    v_total bigint;
    v_gone jsonb;
    v_lanes jsonb;
    v_prices jsonb;
BEGIN
    IF r.state = 'confirmed' AND ng.stands_at(p_id, p_to->'bookings', p_to->'paths') THEN
        RETURN ng.change_json(r, 0, r.total_micro); -- a repeated request
    END IF;
    PERFORM ng.change_check(r, CASE WHEN p_keep THEN 'replace' ELSE 'move' END, p_generation, p_now);
    PERFORM ng.change_unstarted(r, p_now);
    IF (p_to->>'end_us')::bigint <= (p_to->>'start_us')::bigint OR ng.ts((p_to->>'end_us')::bigint) <= p_now THEN
        PERFORM ng.refuse(20, 'the reservation would end before it begins, or before now');
    END IF;
    PERFORM 1 FROM ng.node n
      WHERE n.id IN (SELECT node_id FROM ng.booking WHERE reservation_id = p_id)
         OR n.id IN (SELECT (e->>'node_id')::integer FROM jsonb_array_elements(p_to->'bookings') e)
      ORDER BY n.id FOR NO KEY UPDATE;
    v_gone := ng.gone(ng.bookings_payload(p_id));
    v_lanes := ng.gone(ng.lanes_payload(p_id));
    SELECT jsonb_agg(jsonb_build_object('count', upper(gpus) - lower(gpus), 'per_gpu_hour_micro', per_gpu_hour_micro) ORDER BY id)
      INTO v_prices FROM ng.booking WHERE reservation_id = p_id;
    DELETE FROM ng.booking WHERE reservation_id = p_id;
    PERFORM ng.lanes_drop(p_id);
    PERFORM ng.move_bookings(r, p_to->'bookings', CASE WHEN p_keep THEN v_prices END);
    PERFORM ng.move_paths(r, p_to->'paths');
    UPDATE ng.reservation SET during = ng.span((p_to->>'start_us')::bigint, (p_to->>'end_us')::bigint),
        data = coalesce(nullif(p_to->'data', 'null'), data),
        groups = coalesce(nullif(p_to#>'{extra,groups}', 'null'), '[]'), coordinator = p_to#>>'{extra,coordinator}',
        request = coalesce(nullif(p_to#>'{extra,request}', 'null'), request),
        replaced_at = CASE WHEN p_keep THEN p_now ELSE replaced_at END
     WHERE id = p_id;
    v_total := ng.resv_price(p_id, ng.ts((p_to->>'end_us')::bigint));
    IF p_keep AND v_total > v_old THEN
        PERFORM ng.refuse(6, 'the new place costs more than the tenant pays');
    END IF;
    r := ng.change_price(r, v_total, '/move/', p_now);
    IF NOT p_keep AND p_to#>>'{prices,effective_micro}' IS NOT NULL THEN
        UPDATE ng.reservation SET effective_micro = (p_to#>>'{prices,effective_micro}')::bigint WHERE id = p_id RETURNING * INTO r;
    END IF;
    PERFORM ng.tell_resv(CASE WHEN p_keep THEN 'reservation.replaced' ELSE 'reservation.moved' END, p_id, v_gone, v_lanes);
    RETURN ng.change_json(r, v_total - v_old, v_total);
END $$;

CREATE OR REPLACE FUNCTION api.resv_move(p_tenant uuid, p_id uuid, p_generation bigint, p_bookings jsonb, p_paths jsonb,
    p_start bigint, p_end bigint, p_prices jsonb, p_data jsonb, p_extra jsonb, p_keep boolean, p_dry boolean, p_now bigint)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v jsonb;
    v_to jsonb := jsonb_build_object('bookings', p_bookings, 'paths', coalesce(p_paths, '[]'), 'start_us', p_start,
        'end_us', p_end, 'prices', p_prices, 'data', p_data, 'extra', p_extra);
BEGIN
    IF NOT p_dry THEN
        RETURN move_now(p_tenant, p_id, p_generation, v_to, p_keep, ts(p_now));
    END IF;
    BEGIN
        v := move_now(p_tenant, p_id, p_generation, v_to, p_keep, ts(p_now));
        RAISE EXCEPTION 'dry run' USING ERRCODE = 'NGDRY';
    EXCEPTION WHEN SQLSTATE 'NGDRY' THEN
        RETURN change_dry(v);
    END;
END $$;

-- ---- having it ----

-- A held reservation of a quote is paid for, and takes the key of the request that did it.
CREATE OR REPLACE FUNCTION api.resv_confirm(p_tenant uuid, p_quote uuid, p_key text, p_hash bytea, p_now bigint)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    r reservation;
    v_paid timestamptz;
    v_hold bigint;
BEGIN
    SELECT * INTO r FROM reservation WHERE quote_id = p_quote AND tenant_id = p_tenant AND hold_until IS NOT NULL
     ORDER BY id LIMIT 1 FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('nothing is held for quote %s', p_quote));
    END IF;
    IF r.state NOT IN ('held', 'cancelled') AND (p_key IS NULL OR r.idem_key = p_key) THEN
        IF p_key IS NOT NULL AND r.idem_hash <> p_hash THEN
            PERFORM refuse(25, format('idempotency key %s was used with another request', p_key));
        END IF;
        RETURN resv_json(r) || '{"replayed": true}';
    END IF;
    IF r.state = 'held' AND (r.hold_until <= ts(p_now) OR lower(r.during) <= ts(p_now)) OR r.state = 'cancelled' THEN
        PERFORM refuse(6, format('the quote held its place until %s: ask for a new one', time_text(r.hold_until)));
    ELSIF r.state <> 'held' THEN
        PERFORM refuse(6, 'the quote was used already');
    END IF;
    v_paid := hold_end(r.during, ts(p_now));
    v_hold := CASE WHEN v_paid IS NULL THEN r.total_micro ELSE resv_price(r.id, v_paid) END;
    PERFORM move_hold(r, v_hold, r.id || '/hold');
    BEGIN
        UPDATE reservation SET state = 'confirmed', held_micro = v_hold, paid_until = v_paid, hold_due_at = hold_due(v_paid), generation = generation + 1,
            idem_key = coalesce(p_key, idem_key), idem_hash = CASE WHEN p_key IS NULL THEN idem_hash ELSE p_hash END
         WHERE id = r.id RETURNING * INTO r;
    EXCEPTION WHEN unique_violation THEN
        PERFORM refuse(25, format('idempotency key %s was used with another request', p_key));
    END;
    PERFORM tell_resv('reservation.confirmed', r.id);
    RETURN resv_json(r);
END $$;

-- Not started: everything is given back. Running: it ends; the node is told to stop it,
-- its GPUs are free from the node's teardown receipt (or the promised end), and billing
-- gives back what was not used.
CREATE OR REPLACE FUNCTION ng.cancel_now(p_tenant uuid, p_id uuid, p_reason text, p_now timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    r ng.reservation := ng.resv_start_if_due(ng.resv_lock(p_tenant, p_id), p_now);
    v_to text;
    v_total bigint := 0;
BEGIN
    IF r.state = 'cancelled' OR (r.state = 'ended' AND EXISTS (SELECT FROM ng.revocation WHERE reservation_id = p_id)) THEN
        RETURN ng.change_json(r, 0, r.captured_micro); -- a repeated request
    END IF;
    SELECT to_state INTO v_to FROM ng.resv_rule WHERE from_state = r.state AND event = 'cancel';
    IF v_to IS NULL THEN
        PERFORM ng.refuse(6, format('a reservation that is %s cannot be cancelled', r.state));
    END IF;
    PERFORM ng.resv_revoke(r, p_reason);
    IF v_to = 'cancelled' THEN
        PERFORM ng.resv_empty(p_id);
        PERFORM ng.refund(r, p_id || '/cancel');
        DELETE FROM ng.waiting WHERE reservation_id = p_id;
    ELSE
        v_total := least(r.total_micro, ng.resv_price(p_id, least(p_now, upper(r.during))));
        PERFORM ng.lanes_cut(p_id, p_now);
    END IF;
    UPDATE ng.reservation SET state = v_to, reason = p_reason, generation = generation + 1,
        ended_at = least(p_now, upper(during))
     WHERE id = p_id RETURNING * INTO r;
    PERFORM ng.tell_resv(CASE v_to WHEN 'cancelled' THEN 'reservation.cancelled' ELSE 'reservation.ended' END, p_id);
    RETURN ng.change_json(r, v_total - CASE WHEN r.held_micro = 0 THEN 0 ELSE r.total_micro END, v_total);
END $$;

CREATE OR REPLACE FUNCTION api.resv_cancel(p_tenant uuid, p_id uuid, p_reason text, p_dry boolean, p_now bigint)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v jsonb;
BEGIN
    IF NOT p_dry THEN
        RETURN cancel_now(p_tenant, p_id, p_reason, ts(p_now));
    END IF;
    BEGIN
        v := cancel_now(p_tenant, p_id, p_reason, ts(p_now));
        RAISE EXCEPTION 'dry run' USING ERRCODE = 'NGDRY';
    EXCEPTION WHEN SQLSTATE 'NGDRY' THEN
        RETURN change_dry(v);
    END;
END $$;
