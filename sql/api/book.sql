-- api.book(): one group commit. All arrays r_* have one element a reservation, b_* one a
-- booking of GPUs, l_* one a booking of lanes; b_resv and l_resv are the (1-based) number
-- of its reservation. v_* (victims) and an order that waits come alone in their call. Each
-- reservation ends as
--   ok         booked, its money held up to the end of the first window (hold.sql; state held:
--              no money)
--   duplicate  its idempotency key was used before with the same request: id is that one's
--   key_reused … with another request
--   lost       some GPU or lane is taken, is none of the node's or path's, or that is gone;
--              a victim cannot be preempted; the order does not wait
--   funds      the wallet does not cover it
--   budget     the tenant's hard budget does not
-- and is booked whole or not at all.
--
-- Locks are taken in one order everywhere: reservations that are there by id, new ones by
-- (tenant, key), nodes by id, bookings by GPU number, paths by id, their bookings by lane,
-- accounts by id. A node that gets another block of GPU numbers is locked FOR UPDATE,
-- whoever books on it FOR KEY SHARE at least, and those that take several runs FOR NO KEY
-- UPDATE, so that of two gangs on one node the second waits before it has booked anything.
--
-- Nearly always a batch is of single bookings and all of them end as ok. So just that is
-- tried first, with plain inserts: ON CONFLICT on the exclusion constraint would search
-- its index twice a row. Whatever is in the way undoes the attempt, and book_each()
-- decides one by one.

DROP FUNCTION IF EXISTS api.book(uuid[], uuid[], uuid[], bigint[], bigint[], bigint[], text[], text[], text[], bigint[],
    bigint[], bigint[], text[], bytea[], boolean[], integer[], integer[], integer[], integer[], integer[], bigint[],
    bigint[], bigint[]);
DROP FUNCTION IF EXISTS ng.book_each(uuid[], uuid[], uuid[], bigint[], bigint[], bigint[], text[], text[], text[], bigint[],
    bigint[], bigint[], text[], bytea[], boolean[], integer[], integer[], integer[], integer[], integer[], bigint[],
    bigint[], bigint[]);
DROP FUNCTION IF EXISTS ng.book_afford(uuid[], uuid[], text[], bigint[]);

-- An order that waits is there already, and stays.
CREATE OR REPLACE FUNCTION ng.book_undo(p_ids uuid[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM ng.path_booking WHERE reservation_id = ANY (p_ids);
    DELETE FROM ng.booking WHERE reservation_id = ANY (p_ids);
    DELETE FROM ng.reservation r WHERE r.id = ANY (p_ids)
       AND NOT EXISTS (SELECT FROM ng.waiting w WHERE w.reservation_id = r.id);
END $$;

-- Of these reservations, the ids of those that the wallets cover, in the order given.
-- Locks the wallets and holds, those of the tenants p_also too. One decision a tenant when
-- all of it is covered; else one by one.
CREATE OR REPLACE FUNCTION ng.book_afford(p_ids uuid[], p_tenants uuid[], p_currencies text[], p_amounts bigint[],
    p_also uuid[])
RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    v record;
    v_left bigint;
    v_ids uuid[];
    i integer;
BEGIN
    PERFORM 1 FROM ng.account a
      WHERE a.kind IN ('wallet', 'hold') AND a.tenant_id = ANY (p_tenants || p_also)
      ORDER BY a.id FOR UPDATE;
    SELECT array_agg(x.id) INTO v_ids
      FROM unnest(p_ids, p_tenants, p_currencies, p_amounts) AS x(id, tenant, currency, amount)
      JOIN (SELECT y.tenant, y.currency FROM unnest(p_tenants, p_currencies, p_amounts) AS y(tenant, currency, amount)
              LEFT JOIN ng.account w ON w.kind = 'wallet' AND w.tenant_id = y.tenant AND w.currency = y.currency
             GROUP BY y.tenant, y.currency
            HAVING sum(y.amount) <= coalesce(max(ng.spendable(w)), 0)) ok
        ON ok.tenant = x.tenant AND ok.currency = x.currency;
    v_ids := coalesce(v_ids, '{}');
    IF cardinality(v_ids) = cardinality(p_ids) THEN
        RETURN v_ids;
    END IF;
    FOR v IN
        SELECT DISTINCT x.tenant, x.currency,
               coalesce((SELECT ng.spendable(w) FROM ng.account w
                          WHERE w.kind = 'wallet' AND w.tenant_id = x.tenant AND w.currency = x.currency), 0) AS can
          FROM unnest(p_ids, p_tenants, p_currencies) AS x(id, tenant, currency)
         WHERE x.id <> ALL (v_ids)
    LOOP
        v_left := v.can;
        FOR i IN 1 .. cardinality(p_ids) LOOP
            IF p_tenants[i] = v.tenant AND p_currencies[i] = v.currency AND p_amounts[i] <= v_left THEN
                v_left := v_left - p_amounts[i];
                v_ids := v_ids || p_ids[i];
            END IF;
        END LOOP;
    END LOOP;
    RETURN v_ids;
END $$;

-- Of p_new, those that got every booking they asked for: p_resv has the number of the
-- reservation of each that was wanted, p_got the id of each that was made.
CREATE OR REPLACE FUNCTION ng.book_whole(p_ids uuid[], p_new uuid[], p_resv integer[], p_got uuid[]) RETURNS uuid[]
LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(x.id), '{}')
      FROM unnest(p_ids) WITH ORDINALITY AS x(id, n)
      LEFT JOIN (SELECT r, count(*) AS want FROM unnest(p_resv) AS y(r) GROUP BY r) w ON w.r = x.n
      LEFT JOIN (SELECT id, count(*) AS got FROM unnest(p_got) AS m(id) GROUP BY id) g ON g.id = x.id
     WHERE x.id = ANY (p_new) AND coalesce(g.got, 0) = coalesce(w.want, 0)
$$;

-- The bookings of those of r_id that are in p_new. Returns those that got all of theirs;
-- the others have none.
CREATE OR REPLACE FUNCTION ng.book_place(p_new uuid[], r_id uuid[], r_spot boolean[],
    b_id bigint[], b_resv integer[], b_node integer[], b_site integer[], b_first integer[], b_count integer[],
    b_from bigint[], b_to bigint[], b_price bigint[],
    l_id bigint[], l_resv integer[], l_path integer[], l_first integer[], l_count integer[], l_from bigint[], l_to bigint[],
    l_price bigint[])
RETURNS uuid[] LANGUAGE plpgsql SET search_path = ng, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_got uuid[]; -- reservation of each booking made
    v_whole uuid[];
    v_lit uuid[];
BEGIN
    -- Spot is sold at nodes with terms only.
    WITH made AS (
        INSERT INTO booking (id, reservation_id, node_id, site_id, gpus, during, epoch, per_gpu_hour_micro, fee_ppm, notice_us)
        OVERRIDING SYSTEM VALUE
        SELECT y.id, x.id, n.id, n.site_id,
               int4range(lower(n.gpus) + y.first, lower(n.gpus) + y.first + y.count),
               span(y.f, y.t), y.f, y.price, coalesce(p.fee_ppm, m.fee_ppm), CASE WHEN x.spot THEN t.notice_us END
          FROM unnest(b_id, b_resv, b_node, b_site, b_first, b_count, b_from, b_to, b_price)
               AS y(id, r, node, site, first, count, f, t, price)
          JOIN unnest(r_id, r_spot) WITH ORDINALITY AS x(id, spot, n) ON x.n = y.r
          JOIN node n ON n.id = y.node AND n.site_id = y.site AND n.state <> 'retired'
           AND y.first >= 0 AND y.count > 0 AND lower(n.gpus) + y.first + y.count <= upper(n.gpus)
          JOIN provider p ON p.id = n.provider_id CROSS JOIN market m
          LEFT JOIN spot_terms t ON x.spot AND t.node_id = n.id
         WHERE x.id = ANY (p_new) AND y.f < y.t AND (NOT x.spot OR t.notice_us IS NOT NULL)
         ORDER BY lower(n.gpus) + y.first, y.f
        ON CONFLICT DO NOTHING
        RETURNING booking.reservation_id)
    SELECT coalesce(array_agg(made.reservation_id), '{}') INTO v_got FROM made;
    v_whole := book_whole(r_id, p_new, b_resv, v_got);
    DELETE FROM booking b WHERE b.reservation_id = ANY (ARRAY(SELECT unnest(v_got) EXCEPT SELECT unnest(v_whole)));
    IF cardinality(l_resv) = 0 OR cardinality(v_whole) = 0 THEN
        RETURN v_whole;
    END IF;

    PERFORM 1 FROM path WHERE path.id = ANY (l_path) ORDER BY path.id FOR NO KEY UPDATE;
    WITH made AS (
        INSERT INTO path_booking (id, reservation_id, path_id, lanes, during, per_lane_hour_micro, fee_ppm)
        OVERRIDING SYSTEM VALUE
        SELECT y.id, x.id, p.id, int4range(lower(p.lanes) + y.first, lower(p.lanes) + y.first + y.count),
               span(y.f, y.t), y.price, coalesce(v.fee_ppm, m.fee_ppm)
          FROM unnest(l_id, l_resv, l_path, l_first, l_count, l_from, l_to, l_price)
               AS y(id, r, path, first, count, f, t, price)
          JOIN unnest(r_id) WITH ORDINALITY AS x(id, n) ON x.n = y.r
          JOIN path p ON p.id = y.path AND p.state = 'up'
           AND y.first >= 0 AND y.count > 0 AND lower(p.lanes) + y.first + y.count <= upper(p.lanes)
          JOIN provider v ON v.id = p.provider_id CROSS JOIN market m
         WHERE x.id = ANY (v_whole) AND y.f < y.t
         ORDER BY lower(p.lanes) + y.first, y.f
        ON CONFLICT DO NOTHING
        RETURNING path_booking.reservation_id)
    SELECT coalesce(array_agg(made.reservation_id), '{}') INTO v_got FROM made;
    v_lit := book_whole(r_id, v_whole, l_resv, v_got);
    IF cardinality(v_lit) < cardinality(v_whole) THEN
        DELETE FROM path_booking k WHERE k.reservation_id = ANY (ARRAY(SELECT unnest(v_got) EXCEPT SELECT unnest(v_lit)));
        DELETE FROM booking b WHERE b.reservation_id = ANY (ARRAY(SELECT unnest(v_whole) EXCEPT SELECT unnest(v_lit)));
    END IF;
    RETURN v_lit;
END $$;

CREATE OR REPLACE FUNCTION ng.book_each(
    r_id uuid[], r_tenant uuid[], r_quote uuid[], r_now bigint[], r_start bigint[], r_end bigint[],
    r_request text[], r_data text[], r_currency text[], r_per_hour bigint[], r_total bigint[],
    r_effective bigint[], r_key text[], r_hash bytea[], r_spot boolean[], r_extra text[], r_hold bigint[], r_waiting boolean[],
    b_resv integer[], b_node integer[], b_site integer[], b_first integer[], b_count integer[],
    b_from bigint[], b_to bigint[], b_price bigint[],
    l_resv integer[], l_path integer[], l_first integer[], l_count integer[], l_from bigint[], l_to bigint[], l_price bigint[],
    p_also uuid[])
RETURNS TABLE (outcome text, id uuid, bookings bigint[], lanes bigint[])
LANGUAGE plpgsql SET search_path = ng, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_market market;
    v_first bigint[];        -- what each holds at first
    v_new uuid[];
    v_numbers bigint[];      -- ids for the bookings, given out beforehand
    v_lane_numbers bigint[]; -- and for those of lanes
    v_whole uuid[];
    v_kept uuid[];
BEGIN
    SELECT * INTO STRICT v_market FROM market;
    v_first := first_holds(v_market.hold_window_us, r_start, r_end, r_total, r_hold, b_resv, b_count, b_from, b_price,
        l_resv, l_count, l_from, l_to, l_price);

    -- 1. Reservations. What is not returned has its key taken.
    WITH fresh AS (
        INSERT INTO reservation (id, tenant_id, state, created_at, during, request, data, currency,
            per_hour_micro, total_micro, effective_micro, fee_ppm, held_micro, idem_key, idem_hash, quote_id, spot,
            hold_until, groups, coordinator, paid_until, hold_due_at)
        SELECT x.id, x.tenant, CASE WHEN x.hold > 0 THEN 'held' ELSE 'confirmed' END, ts(x.now), span(x.s, x.e),
               x.request::jsonb, x.data::jsonb, x.currency, x.per_hour, x.total, x.effective,
               coalesce(f.fee_ppm, v_market.fee_ppm), x.first, x.key, x.hash,
               x.quote, x.spot, CASE WHEN x.hold > 0 THEN ts(x.hold) END,
               coalesce(x.extra::jsonb->'groups', '[]'), x.extra::jsonb->>'coordinator', p.until, hold_due(p.until)
          FROM unnest(r_id, r_tenant, r_quote, r_now, r_start, r_end, r_request, r_data, r_currency,
                   r_per_hour, r_total, r_effective, r_key, r_hash, r_spot, r_extra, r_hold, r_waiting, v_first)
               WITH ORDINALITY AS x(id, tenant, quote, now, s, e, request, data, currency,
                   per_hour, total, effective, key, hash, spot, extra, hold, waits, first, n)
         CROSS JOIN LATERAL (SELECT CASE WHEN x.hold = 0 THEN hold_end(span(x.s, x.e), ts(x.s)) END AS until) p
          LEFT JOIN (SELECT DISTINCT ON (y.r) y.r, p.fee_ppm
                       FROM unnest(b_resv, b_node) WITH ORDINALITY AS y(r, node, k)
                       JOIN node n ON n.id = y.node JOIN provider p ON p.id = n.provider_id
                      ORDER BY y.r, y.k) f ON f.r = x.n
         WHERE NOT x.waits
         ORDER BY x.tenant, x.key
        ON CONFLICT (tenant_id, idem_key) DO NOTHING
        RETURNING reservation.id)
    SELECT coalesce(array_agg(fresh.id), '{}')
           || ARRAY(SELECT x.id FROM unnest(r_id, r_waiting) AS x(id, waits) WHERE x.waits)
      INTO v_new FROM fresh;

    -- 2. GPUs and lanes: the exclusion constraints decide. Of two gangs in each other's way
    -- in the middle both may have lost: what is freed so is tried for once more, one by one.
    PERFORM 1 FROM node WHERE node.id = ANY (b_node) ORDER BY node.id FOR NO KEY UPDATE;
    v_numbers := ARRAY(SELECT nextval('booking_id_seq') FROM generate_series(1, cardinality(b_resv)));
    v_lane_numbers := ARRAY(SELECT nextval('path_booking_id_seq') FROM generate_series(1, cardinality(l_resv)));
    v_whole := book_place(v_new, r_id, r_spot, v_numbers, b_resv, b_node, b_site, b_first, b_count, b_from, b_to, b_price,
        v_lane_numbers, l_resv, l_path, l_first, l_count, l_from, l_to, l_price);
    IF cardinality(v_whole) < cardinality(v_new) - 1
        AND EXISTS (SELECT FROM (SELECT r FROM unnest(b_resv) r UNION ALL SELECT r FROM unnest(l_resv) r) y
                     WHERE r_id[y.r] = ANY (v_new) AND r_id[y.r] <> ALL (v_whole) GROUP BY y.r HAVING count(*) > 1) THEN
        FOR i IN 1 .. cardinality(r_id) LOOP
            CONTINUE WHEN r_id[i] = ANY (v_whole) OR r_id[i] <> ALL (v_new);
            v_whole := v_whole || book_place(r_id[i:i], r_id, r_spot, v_numbers, b_resv, b_node, b_site, b_first, b_count,
                b_from, b_to, b_price, v_lane_numbers, l_resv, l_path, l_first, l_count, l_from, l_to, l_price);
        END LOOP;
    END IF;
    IF cardinality(v_whole) < cardinality(v_new) THEN
        PERFORM book_undo(ARRAY(SELECT unnest(v_new) EXCEPT SELECT unnest(v_whole)));
    END IF;

    -- 3. Money.
    SELECT coalesce(book_afford(array_agg(x.id ORDER BY x.n), array_agg(x.tenant ORDER BY x.n),
                array_agg(x.currency ORDER BY x.n),
                array_agg(x.first ORDER BY x.n), p_also), '{}')
      INTO v_kept
      FROM unnest(r_id, r_tenant, r_currency, v_first) WITH ORDINALITY AS x(id, tenant, currency, first, n)
     WHERE x.id = ANY (v_whole);
    IF cardinality(v_kept) < cardinality(v_whole) THEN
        PERFORM book_undo(ARRAY(SELECT unnest(v_whole) EXCEPT SELECT unnest(v_kept)));
    END IF;
    WITH held AS (
        INSERT INTO transfer (kind, dr, cr, currency, amount_micro, reservation_id, ref)
        SELECT 'hold', w.id, h.id, x.currency, x.first, x.id,
               CASE WHEN x.waits THEN x.id || '/hold/' || (SELECT generation FROM reservation r WHERE r.id = x.id)
                    ELSE x.id || '/hold' END
          FROM unnest(r_id, r_tenant, r_currency, v_first, r_waiting) AS x(id, tenant, currency, first, waits)
          JOIN account w ON w.kind = 'wallet' AND w.tenant_id = x.tenant AND w.currency = x.currency
          JOIN account h ON h.kind = 'hold' AND h.tenant_id = x.tenant AND h.currency = x.currency
         WHERE x.id = ANY (v_kept) AND x.first > 0
        RETURNING dr, cr, amount_micro),
    moved AS (
        SELECT dr AS id, -sum(amount_micro) AS delta FROM held GROUP BY dr
        UNION ALL
        SELECT cr, sum(amount_micro) FROM held GROUP BY cr)
    UPDATE account a SET balance_micro = balance_micro + m.delta FROM moved m WHERE a.id = m.id;

    -- 4. The outbox.
    PERFORM tell_resv(CASE WHEN x.hold > 0 THEN 'reservation.held' ELSE 'reservation.confirmed' END, x.id)
       FROM unnest(r_id, r_hold) WITH ORDINALITY AS x(id, hold, n)
      WHERE x.id = ANY (v_kept) ORDER BY x.n;

    RETURN QUERY
    SELECT CASE WHEN x.id = ANY (v_kept) THEN 'ok'
                WHEN x.id = ANY (v_whole) THEN why_unpaid(x.tenant, (SELECT currency FROM market))
                WHEN x.id = ANY (v_new) THEN 'lost'
                WHEN old.idem_hash = x.hash THEN 'duplicate'
                ELSE 'key_reused' END,
           CASE WHEN x.id = ANY (v_new) THEN x.id ELSE old.id END,
           CASE WHEN x.id = ANY (v_kept) THEN k.ids END,
           CASE WHEN x.id = ANY (v_kept) THEN j.ids END
      FROM unnest(r_id, r_tenant, r_key, r_hash) WITH ORDINALITY AS x(id, tenant, key, hash, n)
      JOIN (SELECT y.r, array_agg(y.id ORDER BY y.k) AS ids
              FROM unnest(v_numbers, b_resv) WITH ORDINALITY AS y(id, r, k) GROUP BY y.r) k ON k.r = x.n
      LEFT JOIN (SELECT y.r, array_agg(y.id ORDER BY y.k) AS ids
              FROM unnest(v_lane_numbers, l_resv) WITH ORDINALITY AS y(id, r, k) GROUP BY y.r) j ON j.r = x.n
      LEFT JOIN reservation old ON x.id <> ALL (v_new) AND old.tenant_id = x.tenant AND old.idem_key = x.key
     ORDER BY x.n;
END $$;

-- One reservation that takes the place of others, or that waits until now. What is not
-- ok undoes all, the victims' loss too.
CREATE OR REPLACE FUNCTION ng.book_one(
    r_id uuid[], r_tenant uuid[], r_quote uuid[], r_now bigint[], r_start bigint[], r_end bigint[],
    r_request text[], r_data text[], r_currency text[], r_per_hour bigint[], r_total bigint[],
    r_effective bigint[], r_key text[], r_hash bytea[], r_spot boolean[], r_extra text[], r_hold bigint[], r_waiting boolean[],
    b_resv integer[], b_node integer[], b_site integer[], b_first integer[], b_count integer[],
    b_from bigint[], b_to bigint[], b_price bigint[],
    l_resv integer[], l_path integer[], l_first integer[], l_count integer[], l_from bigint[], l_to bigint[], l_price bigint[],
    v_id uuid[], v_cut bigint[])
RETURNS TABLE (outcome text, id uuid, bookings bigint[], lanes bigint[])
LANGUAGE plpgsql SET search_path = ng, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v record;
    w reservation;
    v_refund uuid[]; -- victims that get everything back
BEGIN
    PERFORM 1 FROM reservation r
      WHERE r.id = ANY (v_id) OR r.id = CASE WHEN r_waiting[1] THEN r_id[1] END ORDER BY r.id FOR UPDATE;
    PERFORM 1 FROM node
      WHERE node.id = ANY (b_node) OR node.id IN (SELECT b.node_id FROM booking b WHERE b.reservation_id = ANY (v_id))
      ORDER BY node.id FOR NO KEY UPDATE;
    BEGIN
        IF r_waiting[1] THEN
            SELECT * INTO w FROM reservation r WHERE r.id = r_id[1];
            IF w.state IS DISTINCT FROM 'waiting' OR w.tenant_id <> r_tenant[1] THEN
                SELECT 'lost' AS outcome, r_id[1] AS id INTO v;
                RAISE EXCEPTION 'the order waits no more' USING ERRCODE = 'NGX01';
            END IF;
            UPDATE reservation r SET state = 'confirmed', during = span(r_start[1], r_end[1]), data = r_data[1]::jsonb,
                per_hour_micro = r_per_hour[1], total_micro = r_total[1], effective_micro = r_effective[1],
                held_micro = r.held_micro + (first_holds((SELECT m.hold_window_us FROM market m), r_start, r_end, r_total, r_hold, b_resv, b_count, b_from, b_price,
                    l_resv, l_count, l_from, l_to, l_price))[1],
                paid_until = hold_end(span(r_start[1], r_end[1]), ts(r_start[1])),
                hold_due_at = hold_due(hold_end(span(r_start[1], r_end[1]), ts(r_start[1]))), funds_low_at = NULL,
                spot = r_spot[1], reason = '', generation = r.generation + 1,
                groups = coalesce(r_extra[1]::jsonb->'groups', '[]'), coordinator = r_extra[1]::jsonb->>'coordinator',
                fee_ppm = (SELECT coalesce(p.fee_ppm, m.fee_ppm) FROM node n JOIN provider p ON p.id = n.provider_id
                             CROSS JOIN market m WHERE n.id = b_node[1])
             WHERE r.id = r_id[1];
        END IF;
        SELECT 'lost' AS outcome, r_id[1] AS id INTO v; -- what preempt() may raise
        v_refund := preempt(v_id, v_cut, r_now[1]);
        SELECT * INTO v FROM book_each(r_id, r_tenant, r_quote, r_now, r_start, r_end, r_request, r_data, r_currency,
            r_per_hour, r_total, r_effective, r_key, r_hash, r_spot, r_extra, r_hold, r_waiting, b_resv, b_node, b_site,
            b_first, b_count, b_from, b_to, b_price, l_resv, l_path, l_first, l_count, l_from, l_to, l_price,
            ARRAY(SELECT r.tenant_id FROM reservation r WHERE r.id = ANY (v_refund)));
        IF v.outcome <> 'ok' THEN
            RAISE EXCEPTION '%', v.outcome USING ERRCODE = 'NGX01';
        END IF;
        -- While this waited for locks a node may have heard of its lease's next term: of
        -- the tenth by which that is shorter than the notice (desired) half is for this.
        IF us(clock_timestamp()) - us(statement_timestamp())
            > (SELECT min(b.notice_us) FROM booking b WHERE b.reservation_id = ANY (v_id)) / 20 THEN
            SELECT 'lost' AS outcome, r_id[1] AS id INTO v;
            RAISE EXCEPTION 'the notices began too long ago' USING ERRCODE = 'NGX01';
        END IF;
        PERFORM refund(r, r.id || '/preempt/' || r.generation) FROM reservation r WHERE r.id = ANY (v_refund) ORDER BY r.id;
        DELETE FROM waiting x WHERE x.reservation_id = r_id[1];
    EXCEPTION WHEN SQLSTATE 'NGX01' THEN
        RETURN QUERY SELECT v.outcome, v.id, NULL::bigint[], NULL::bigint[];
        RETURN;
    END;
    RETURN QUERY SELECT v.outcome, v.id, v.bookings, v.lanes;
END $$;

CREATE OR REPLACE FUNCTION api.book(
    r_id uuid[], r_tenant uuid[], r_quote uuid[], r_now bigint[], r_start bigint[], r_end bigint[],
    r_request text[], r_data text[], r_currency text[], r_per_hour bigint[], r_total bigint[],
    r_effective bigint[], r_key text[], r_hash bytea[], r_spot boolean[], r_extra text[], r_hold bigint[], r_waiting boolean[],
    b_resv integer[], b_node integer[], b_site integer[], b_first integer[], b_count integer[],
    b_from bigint[], b_to bigint[], b_price bigint[],
    l_resv integer[], l_path integer[], l_first integer[], l_count integer[], l_from bigint[], l_to bigint[], l_price bigint[],
    v_id uuid[], v_cut bigint[])
RETURNS TABLE (outcome text, id uuid, bookings bigint[], lanes bigint[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_count integer := cardinality(r_id);
    v_fee integer[];
    v_low integer[]; -- number of each node's first GPU
    v_wallet integer[];
    v_hold integer[];
    v_numbers bigint[];
    v_window bigint;
    v_first bigint[]; -- what each holds at first
BEGIN
    IF cardinality(v_id) > 0 OR true = ANY (r_waiting) THEN
        RETURN QUERY SELECT * FROM book_one(r_id, r_tenant, r_quote, r_now, r_start, r_end, r_request, r_data, r_currency,
            r_per_hour, r_total, r_effective, r_key, r_hash, r_spot, r_extra, r_hold, r_waiting, b_resv, b_node, b_site,
            b_first, b_count, b_from, b_to, b_price, l_resv, l_path, l_first, l_count, l_from, l_to, l_price,
            v_id, v_cut);
        RETURN;
    END IF;
    IF cardinality(l_resv) > 0 OR true = ANY (r_spot) OR 0 < ANY (r_hold)
        OR b_resv <> ARRAY(SELECT generate_series(1, v_count)) THEN -- not one firm booking each
        RETURN QUERY SELECT * FROM book_each(r_id, r_tenant, r_quote, r_now, r_start, r_end, r_request, r_data, r_currency,
            r_per_hour, r_total, r_effective, r_key, r_hash, r_spot, r_extra, r_hold, r_waiting, b_resv, b_node, b_site,
            b_first, b_count, b_from, b_to, b_price, l_resv, l_path, l_first, l_count, l_from, l_to, l_price, '{}');
        RETURN;
    END IF;
    BEGIN
        PERFORM 1 FROM node WHERE node.id = ANY (b_node) ORDER BY node.id FOR KEY SHARE;
        SELECT array_agg(lower(n.gpus) ORDER BY y.k), array_agg(coalesce(p.fee_ppm, m.fee_ppm) ORDER BY y.k)
          INTO v_low, v_fee
          FROM unnest(b_node, b_site, b_first, b_count, b_from, b_to) WITH ORDINALITY AS y(node, site, first, count, f, t, k)
          JOIN node n ON n.id = y.node AND n.site_id = y.site AND n.state <> 'retired'
           AND y.first >= 0 AND y.count > 0 AND lower(n.gpus) + y.first + y.count <= upper(n.gpus) AND y.f < y.t
          JOIN provider p ON p.id = n.provider_id CROSS JOIN market m;
        SELECT array_agg(w.id ORDER BY x.k), array_agg(h.id ORDER BY x.k) INTO v_wallet, v_hold
          FROM unnest(r_tenant, r_currency) WITH ORDINALITY AS x(tenant, currency, k)
          JOIN account w ON w.kind = 'wallet' AND w.tenant_id = x.tenant AND w.provider_id IS NULL AND w.currency = x.currency
          JOIN account h ON h.kind = 'hold' AND h.tenant_id = x.tenant AND h.provider_id IS NULL AND h.currency = x.currency;
        IF cardinality(v_low) IS DISTINCT FROM v_count OR cardinality(v_hold) IS DISTINCT FROM v_count THEN
            RAISE EXCEPTION 'a node or a wallet is missing' USING ERRCODE = 'NG006';
        END IF;
        v_numbers := ARRAY(SELECT nextval('booking_id_seq') FROM generate_series(1, v_count));
        v_window := (SELECT hold_window_us FROM market);
        v_first := CASE WHEN EXISTS (SELECT FROM unnest(r_start, r_end) AS x(s, e) WHERE x.e - x.s > v_window)
            THEN first_holds(v_window, r_start, r_end, r_total, r_hold, b_resv, b_count, b_from, b_price,
                l_resv, l_count, l_from, l_to, l_price)
            ELSE r_total END;

        INSERT INTO reservation (id, tenant_id, state, created_at, during, request, data, currency,
            per_hour_micro, total_micro, effective_micro, fee_ppm, held_micro, idem_key, idem_hash, quote_id, spot,
            paid_until, hold_due_at)
        SELECT x.id, x.tenant, 'confirmed', ts(x.now), span(x.s, x.e), x.request::jsonb, x.data::jsonb, x.currency,
               x.per_hour, x.total, x.effective, x.fee, x.first, x.key, x.hash, x.quote, x.spot,
               CASE WHEN x.e - x.s > v_window THEN ts(x.s + v_window) END,
               CASE WHEN x.e - x.s > v_window THEN ts(x.s + v_window - v_window / 2) END
          FROM unnest(r_id, r_tenant, r_quote, r_now, r_start, r_end, r_request, r_data, r_currency,
                   r_per_hour, r_total, r_effective, v_fee, r_key, r_hash, r_spot, v_first)
               AS x(id, tenant, quote, now, s, e, request, data, currency,
                   per_hour, total, effective, fee, key, hash, spot, first)
         ORDER BY x.tenant, x.key;

        INSERT INTO booking (id, reservation_id, node_id, site_id, gpus, during, epoch, per_gpu_hour_micro, fee_ppm)
        OVERRIDING SYSTEM VALUE
        SELECT y.id, y.resv, y.node, y.site, int4range(y.low + y.first, y.low + y.first + y.count), span(y.f, y.t), y.f, y.price, y.fee
          FROM unnest(v_numbers, r_id, b_node, b_site, v_low, b_first, b_count, b_from, b_to, b_price, v_fee)
               AS y(id, resv, node, site, low, first, count, f, t, price, fee)
         ORDER BY y.low + y.first, y.f;

        -- The wallet's floor is a constraint of its own.
        PERFORM 1 FROM account a WHERE a.id = ANY (v_wallet || v_hold) ORDER BY a.id FOR UPDATE;
        INSERT INTO transfer (kind, dr, cr, currency, amount_micro, reservation_id, ref)
        SELECT 'hold', x.wallet, x.hold, x.currency, x.first, x.id, x.id || '/hold'
          FROM unnest(r_id, v_wallet, v_hold, r_currency, v_first) AS x(id, wallet, hold, currency, first)
         WHERE x.first > 0;
        UPDATE account a SET balance_micro = a.balance_micro + m.delta
          FROM (SELECT x.account, sum(x.delta)::bigint AS delta
                  FROM (SELECT w.account, -w.first AS delta FROM unnest(v_wallet, v_first) AS w(account, first)
                        UNION ALL
                        SELECT h.account, h.first FROM unnest(v_hold, v_first) AS h(account, first)) x
                 GROUP BY x.account) m
         WHERE a.id = m.account AND m.delta <> 0;

        INSERT INTO event (kind, tenant_id, reservation_id, payload)
        SELECT 'reservation.confirmed', x.tenant, x.id,
               format('{"state": "confirmed", "reason": "", "generation": 1, "start_us": %s, "end_us": %s, "spot": false, '
                   '"lanes": [], "bookings": [{"booking": %s, "node_id": %s, "site_id": %s, "first": %s, "count": %s, '
                   '"from_us": %s, "to_us": %s, "per_gpu_hour_micro": %s, "notice_us": null}]}',
                   x.s, x.e, x.number, x.node, x.site, x.first, x.count, x.f, x.t, x.price)::jsonb -- half of jsonb_build_object()'s time
          FROM unnest(r_id, r_tenant, r_start, r_end, v_numbers, b_node, b_site, b_first, b_count, b_from, b_to, b_price)
               AS x(id, tenant, s, e, number, node, site, first, count, f, t, price);
        RETURN QUERY SELECT 'ok', x.id, ARRAY[x.number], '{}'::bigint[] FROM unnest(r_id, v_numbers) AS x(id, number);
    EXCEPTION WHEN integrity_constraint_violation OR deadlock_detected OR SQLSTATE 'NG006' THEN
        RETURN QUERY SELECT * FROM book_each(r_id, r_tenant, r_quote, r_now, r_start, r_end, r_request, r_data, r_currency,
            r_per_hour, r_total, r_effective, r_key, r_hash, r_spot, r_extra, r_hold, r_waiting, b_resv, b_node, b_site,
            b_first, b_count, b_from, b_to, b_price, l_resv, l_path, l_first, l_count, l_from, l_to, l_price, '{}');
    END;
END $$;
