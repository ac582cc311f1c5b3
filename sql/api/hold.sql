-- Rolling holds. A reservation holds its price up to paid_until: its end when that is null.
-- At first that is one window (market.hold_window_us) from its start; when half a window is
-- left, billd holds on to a window from then. Money that does not reach so far is told
-- (event funds.low), once and whenever the instant moves; a quarter of a window before
-- paid_until, an hour at most, the lease's end is set to it, so that its nodes know it in
-- time and end it by themselves.
--
-- Invariant: what is held net of what was given back is the price of the bookings up to
-- paid_until (report.check_paid).

-- Up to where a lease of this time is held at p_now; null: to its end.
CREATE OR REPLACE FUNCTION ng.hold_end(p_during tstzrange, p_now timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN x.t < upper(p_during) THEN x.t END
      FROM (SELECT greatest(lower(p_during), p_now) + hold_window_us * interval '1 microsecond' AS t FROM ng.market) x
$$;
-- When to look at it again: half a window before.
CREATE OR REPLACE FUNCTION ng.hold_due(p_paid_until timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT p_paid_until - hold_window_us / 2 * interval '1 microsecond' FROM ng.market
$$;

-- What new reservations hold at first: as ng.resv_price() up to the end of the window, of
-- bookings that are no rows yet. Arrays as api.book(); nothing for one that is but held.
CREATE OR REPLACE FUNCTION ng.first_holds(p_window bigint, r_start bigint[], r_end bigint[], r_total bigint[], r_hold bigint[],
    b_resv integer[], b_count integer[], b_from bigint[], b_price bigint[],
    l_resv integer[], l_count integer[], l_from bigint[], l_to bigint[], l_price bigint[])
RETURNS bigint[] LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(CASE
               WHEN x.hold > 0 THEN 0
               WHEN p_window IS NULL OR x.e - x.s <= p_window THEN x.total
               ELSE (SELECT coalesce(sum(ng.money_mul(b.count * greatest(0, x.s + p_window - b.f), b.price, 3600000000)), 0)
                       FROM unnest(b_resv, b_count, b_from, b_price) AS b(r, count, f, price) WHERE b.r = x.n)
                  + (SELECT coalesce(sum(ng.money_mul(l.count * greatest(0,
                               CASE WHEN l.t < x.e THEN least(x.s + p_window, l.t) ELSE x.s + p_window END - greatest(l.f, x.s)),
                               l.price, 3600000000)), 0)
                       FROM unnest(l_resv, l_count, l_from, l_to, l_price) AS l(r, count, f, t, price) WHERE l.r = x.n)
               END::bigint ORDER BY x.n)
      FROM unnest(r_start, r_end, r_total, r_hold) WITH ORDINALITY AS x(s, e, total, hold, n)
$$;

-- ---- as time goes ----

-- The last whole second up to p_target that p_can more pays for; r.paid_until when none does.
CREATE OR REPLACE FUNCTION ng.hold_reach(r ng.reservation, p_target timestamptz, p_can bigint) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_net bigint := r.held_micro - r.released_micro;
    v_low bigint := 0; -- seconds that are paid
    v_high bigint := floor(extract(epoch FROM p_target - r.paid_until));
    v_mid bigint;
BEGIN
    WHILE v_low < v_high LOOP
        v_mid := (v_low + v_high + 1) / 2;
        IF ng.resv_price(r.id, r.paid_until + make_interval(secs => v_mid)) - v_net <= p_can THEN
            v_low := v_mid;
        ELSE
            v_high := v_mid - 1;
        END IF;
    END LOOP;
    RETURN r.paid_until + make_interval(secs => v_low);
END $$;

-- Holds its price up to p_until, or to its end. The caller has locked reservation and accounts.
CREATE OR REPLACE FUNCTION ng.hold_on(r ng.reservation, p_until timestamptz) RETURNS ng.reservation
LANGUAGE plpgsql AS $$
DECLARE
    v_to timestamptz := CASE WHEN p_until < upper(r.during) THEN p_until END;
    v_more bigint := greatest(0, ng.resv_price(r.id, coalesce(v_to, upper(r.during))) - (r.held_micro - r.released_micro));
BEGIN
    PERFORM ng.move_hold(r, v_more, format('%s/paid/%s/%s', r.id, r.generation, ng.us(p_until)));
    UPDATE ng.reservation SET held_micro = held_micro + v_more, paid_until = v_to, hold_due_at = ng.hold_due(v_to)
     WHERE id = r.id RETURNING * INTO r;
    RETURN r;
END $$;

-- The end of one whose money does not reach further: at paid_until, which its nodes are told
-- ahead; one for which that is over (nobody looked in time) ends in some seconds. As an end
-- that its tenant sets earlier (ng.extend_earlier): its GPUs are free with the teardown.
CREATE OR REPLACE FUNCTION ng.hold_stop(r ng.reservation, p_why text, p_now timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_end timestamptz := CASE WHEN r.paid_until > p_now THEN r.paid_until ELSE p_now + interval '5 seconds' END;
    v_total bigint;
BEGIN
    IF v_end >= upper(r.during) THEN
        UPDATE ng.reservation SET hold_due_at = NULL WHERE id = r.id;
        RETURN;
    END IF;
    PERFORM ng.lanes_cut(r.id, v_end);
    v_total := ng.resv_price(r.id, v_end);
    UPDATE ng.reservation SET during = tstzrange(lower(during), v_end), generation = generation + 1,
        per_hour_micro = ng.resv_per_hour(id), total_micro = v_total, hold_due_at = NULL,
        funds_low_at = coalesce(funds_low_at, p_now),
        paid_until = CASE WHEN paid_until < v_end THEN paid_until END,
        effective_micro = CASE WHEN total_micro = 0 THEN 0 ELSE round(effective_micro::numeric * v_total / total_micro)::bigint END,
        reason = format('%s paid for it until %s only', p_why, ng.time_text(v_end))
     WHERE id = r.id;
    PERFORM ng.tell_resv('reservation.unpaid', r.id);
END $$;

CREATE OR REPLACE FUNCTION ng.hold_tell(r ng.reservation, p_why text, p_short bigint) RETURNS void
LANGUAGE sql AS $$
    SELECT ng.tell('funds.low', r.tenant_id, r.id, NULL, jsonb_build_object('paid_until_us', ng.us(r.paid_until),
        'end_us', ng.us(upper(r.during)), 'why', p_why, 'currency', r.currency, 'short_micro', p_short))
$$;

-- What one that is over has used behind what is paid for, as far as the wallet goes: nobody
-- looked in time.
CREATE OR REPLACE FUNCTION ng.hold_late(r ng.reservation) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE v_until timestamptz := least(upper(r.during), r.ended_at + interval '1 minute');
BEGIN
    IF r.paid_until < v_until AND NOT r.rest_back THEN
        r := ng.hold_on(r, ng.hold_reach(r, v_until, greatest(0, coalesce((SELECT ng.spendable(w) FROM ng.account w
            WHERE w.kind = 'wallet' AND w.tenant_id = r.tenant_id AND w.currency = r.currency), 0))));
    END IF;
    UPDATE ng.reservation SET hold_due_at = NULL WHERE id = r.id;
END $$;

-- One of them, at its time.
CREATE OR REPLACE FUNCTION ng.hold_roll(r ng.reservation, p_window interval, p_now timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    -- A job is told ten seconds before its end (server/flow/lease.h), whenever that was set.
    v_notice interval := greatest(least(p_window / 4, interval '1 hour'), interval '12 seconds');
    v_target timestamptz := least(greatest(p_now + p_window, r.paid_until), upper(r.during));
    v_before timestamptz := r.paid_until;
    v_warned boolean := r.funds_low_at IS NOT NULL;
    v_need bigint := ng.resv_price(r.id, v_target) - (r.held_micro - r.released_micro);
    v_can bigint := coalesce((SELECT ng.spendable(w) FROM ng.account w
        WHERE w.kind = 'wallet' AND w.tenant_id = r.tenant_id AND w.currency = r.currency), 0);
    v_why text;
    v_reach timestamptz;
BEGIN
    IF v_need <= v_can THEN
        r := ng.hold_on(r, v_target);
        UPDATE ng.reservation SET funds_low_at = NULL WHERE id = r.id AND funds_low_at IS NOT NULL;
        RETURN;
    END IF;
    v_why := CASE ng.why_unpaid(r.tenant_id, r.currency) WHEN 'budget' THEN 'the budget' ELSE 'the wallet' END;
    -- What is there is taken in steps, and in the end whatever it is.
    v_reach := ng.hold_reach(r, v_target, greatest(v_can, 0));
    IF v_reach - v_before >= p_window / 24 OR (v_before - v_notice <= p_now AND v_reach > v_before) THEN
        r := ng.hold_on(r, v_reach);
    END IF;
    IF r.paid_until - v_notice <= p_now THEN
        PERFORM ng.hold_stop(r, v_why, p_now);
        RETURN;
    END IF;
    UPDATE ng.reservation SET funds_low_at = coalesce(funds_low_at, p_now),
        hold_due_at = least(p_now + least(p_window / 100, interval '1 minute'), r.paid_until - v_notice)
     WHERE id = r.id;
    IF NOT v_warned OR r.paid_until > v_before THEN
        PERFORM ng.hold_tell(r, v_why, v_need - greatest(v_can, 0));
    END IF;
END $$;

-- Those that are due, as many as p_limit; another billd's are passed over, not those that
-- somebody's new row refers to (NO KEY). Returns how many were looked at.
CREATE OR REPLACE FUNCTION api.billing_hold(p_now timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_window interval := (SELECT coalesce(hold_window_us, lease_max_us()) * interval '1 microsecond' FROM market);
    v_ids uuid[];
    r reservation;
BEGIN
    SELECT array_agg(x.id) INTO v_ids
      FROM (SELECT id FROM reservation WHERE hold_due_at <= p_now ORDER BY hold_due_at, id LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED) x;
    PERFORM 1 FROM account
      WHERE kind IN ('wallet', 'hold') AND tenant_id IN (SELECT tenant_id FROM reservation WHERE id = ANY (v_ids))
      ORDER BY id FOR NO KEY UPDATE;
    FOR r IN SELECT * FROM reservation WHERE id = ANY (v_ids) ORDER BY paid_until, id LOOP
        IF r.state IN ('confirmed', 'active') AND r.paid_until < upper(r.during) THEN
            PERFORM hold_roll(r, v_window, p_now);
        ELSE
            PERFORM hold_late(r);
        END IF;
    END LOOP;
    RETURN coalesce(cardinality(v_ids), 0);
END $$;

-- Functions inside views run as their reader, who may not read the tables.
CREATE OR REPLACE FUNCTION report.resv_price(p_id uuid, p_end timestamptz) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$ SELECT resv_price(p_id, p_end) $$;
-- What is held of a lease that goes on is its price up to where it is paid for; more only when
-- it was cut by preemption, which leaves the total that was agreed. One that is paid for to
-- before its end is looked at again, or was found too late.
CREATE OR REPLACE VIEW report.check_paid AS
    SELECT r.id AS reservation, r.held_micro - r.released_micro AS net_micro, p.micro AS paid_micro, r.paid_until
      FROM ng.reservation r
      CROSS JOIN LATERAL (
          SELECT CASE WHEN r.paid_until IS NULL AND r.preempted_by IS NULL THEN r.total_micro
                      ELSE report.resv_price(r.id, least(r.paid_until, upper(r.during))) END AS micro) p
     WHERE r.state IN ('confirmed', 'active')
       AND (r.held_micro - r.released_micro < p.micro
            OR r.held_micro - r.released_micro > p.micro AND r.preempted_by IS NULL
            OR r.paid_until < upper(r.during) AND r.hold_due_at IS NULL AND r.funds_low_at IS NULL);
