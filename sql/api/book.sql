-- api.book(): one group commit. All arrays r_* have one element a reservation, b_* one a
-- booking, b_resv the (1-based) number of its reservation. Each reservation ends as
--   ok         booked, its money held
--   duplicate  its idempotency key was used before with the same request: id is that one's
--   key_reused … with another request
--   lost       some GPU is taken, is none of the node's, or the node is gone
--   funds      the wallet does not cover it
-- and is booked whole or not at all. Locks are taken in one order everywhere: reservations
-- by (tenant, key), bookings by GPU number, accounts by id.
--
-- Nearly always all of them end as ok. So just that is tried first, with plain
-- inserts: ON CONFLICT on the exclusion constraint would search its index twice a row.
-- Whatever is in the way undoes the attempt, and book_each() decides one by one.

CREATE OR REPLACE FUNCTION ng.book_undo(p_ids uuid[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM ng.booking WHERE reservation_id = ANY (p_ids);
    DELETE FROM ng.reservation WHERE id = ANY (p_ids);
END $$;

-- Of these reservations, the ids of those that the wallets cover, in the order given.
-- Locks the wallets and holds. One decision a tenant when all of it is covered; else one
-- by one.
CREATE OR REPLACE FUNCTION ng.book_afford(p_ids uuid[], p_tenants uuid[], p_currencies text[], p_amounts bigint[])
RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    v record;
    v_left bigint;
    v_ids uuid[];
    i integer;
BEGIN
    PERFORM 1 FROM ng.account a
      WHERE a.kind IN ('wallet', 'hold') AND a.tenant_id = ANY (p_tenants)
      ORDER BY a.id FOR UPDATE;
    SELECT array_agg(x.id) INTO v_ids
      FROM unnest(p_ids, p_tenants, p_currencies, p_amounts) AS x(id, tenant, currency, amount)
      JOIN (SELECT y.tenant, y.currency FROM unnest(p_tenants, p_currencies, p_amounts) AS y(tenant, currency, amount)
              LEFT JOIN ng.account w ON w.kind = 'wallet' AND w.tenant_id = y.tenant AND w.currency = y.currency
             GROUP BY y.tenant, y.currency
            HAVING sum(y.amount) <= coalesce(max(w.balance_micro - w.floor_micro), 0)) ok
        ON ok.tenant = x.tenant AND ok.currency = x.currency;
    v_ids := coalesce(v_ids, '{}');
    IF cardinality(v_ids) = cardinality(p_ids) THEN
        RETURN v_ids;
    END IF;
    FOR v IN
        SELECT DISTINCT x.tenant, x.currency,
               coalesce((SELECT w.balance_micro - w.floor_micro FROM ng.account w
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

CREATE OR REPLACE FUNCTION ng.book_each(
    r_id uuid[], r_tenant uuid[], r_quote uuid[], r_now bigint[], r_start bigint[], r_end bigint[],
    r_request text[], r_data text[], r_currency text[], r_per_hour bigint[], r_total bigint[],
    r_effective bigint[], r_key text[], r_hash bytea[], r_spot boolean[],
    b_resv integer[], b_node integer[], b_site integer[], b_first integer[], b_count integer[],
    b_from bigint[], b_to bigint[], b_price bigint[])
RETURNS TABLE (outcome text, id uuid, bookings bigint[])
LANGUAGE plpgsql SET search_path = ng, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_market market;
    v_new uuid[];
    v_numbers bigint[]; -- ids for the bookings, given out beforehand
    v_booked uuid[];    -- reservation of each booking made
    v_whole uuid[];
    v_kept uuid[];
BEGIN
    SELECT * INTO STRICT v_market FROM market;

    -- 1. Reservations. What is not returned has its key taken.
    WITH fresh AS (
        INSERT INTO reservation (id, tenant_id, state, created_at, during, request, data, currency,
            per_hour_micro, total_micro, effective_micro, fee_ppm, held_micro, idem_key, idem_hash, quote_id, spot)
        SELECT x.id, x.tenant, 'confirmed', ts(x.now), span(x.s, x.e), x.request::jsonb, x.data::jsonb, x.currency,
               x.per_hour, x.total, x.effective, coalesce(f.fee_ppm, v_market.fee_ppm), x.total, x.key, x.hash, x.quote, x.spot
          FROM unnest(r_id, r_tenant, r_quote, r_now, r_start, r_end, r_request, r_data, r_currency,
                   r_per_hour, r_total, r_effective, r_key, r_hash, r_spot)
               WITH ORDINALITY AS x(id, tenant, quote, now, s, e, request, data, currency,
                   per_hour, total, effective, key, hash, spot, n)
          LEFT JOIN (SELECT DISTINCT ON (y.r) y.r, p.fee_ppm
                       FROM unnest(b_resv, b_node) WITH ORDINALITY AS y(r, node, k)
                       JOIN node n ON n.id = y.node JOIN provider p ON p.id = n.provider_id
                      ORDER BY y.r, y.k) f ON f.r = x.n
         ORDER BY x.tenant, x.key
        ON CONFLICT (tenant_id, idem_key) DO NOTHING
        RETURNING reservation.id)
    SELECT coalesce(array_agg(fresh.id), '{}') INTO v_new FROM fresh;

    -- 2. Bookings: the exclusion constraint decides.
    v_numbers := ARRAY(SELECT nextval('booking_id_seq') FROM generate_series(1, cardinality(b_resv)));
    WITH made AS (
        INSERT INTO booking (id, reservation_id, node_id, site_id, gpus, during, epoch, per_gpu_hour_micro)
        OVERRIDING SYSTEM VALUE
        SELECT y.id, x.id, n.id, n.site_id,
               int4range(lower(n.gpus) + y.first, lower(n.gpus) + y.first + y.count),
               span(y.f, y.t), y.f, y.price
          FROM unnest(v_numbers, b_resv, b_node, b_site, b_first, b_count, b_from, b_to, b_price)
               AS y(id, r, node, site, first, count, f, t, price)
          JOIN unnest(r_id) WITH ORDINALITY AS x(id, n) ON x.n = y.r
          JOIN node n ON n.id = y.node AND n.site_id = y.site AND n.state <> 'retired'
           AND y.first >= 0 AND y.count > 0 AND lower(n.gpus) + y.first + y.count <= upper(n.gpus)
         WHERE x.id = ANY (v_new) AND y.f < y.t
         ORDER BY lower(n.gpus) + y.first, y.f
        ON CONFLICT DO NOTHING
        RETURNING booking.reservation_id)
    SELECT coalesce(array_agg(made.reservation_id), '{}') INTO v_booked FROM made;
    SELECT coalesce(array_agg(w.id), '{}') INTO v_whole
      FROM (SELECT x.id, count(*) AS want FROM unnest(b_resv) AS y(r)
              JOIN unnest(r_id) WITH ORDINALITY AS x(id, n) ON x.n = y.r GROUP BY x.id) w
      JOIN (SELECT m.id, count(*) AS got FROM unnest(v_booked) AS m(id) GROUP BY 1) g ON g.id = w.id AND g.got = w.want
     WHERE w.id = ANY (v_new);
    IF cardinality(v_whole) < cardinality(v_new) THEN
        PERFORM book_undo(ARRAY(SELECT unnest(v_new) EXCEPT SELECT unnest(v_whole)));
    END IF;

    -- 3. Money.
    SELECT coalesce(book_afford(array_agg(x.id ORDER BY x.n), array_agg(x.tenant ORDER BY x.n),
                array_agg(x.currency ORDER BY x.n), array_agg(x.total ORDER BY x.n)), '{}')
      INTO v_kept
      FROM unnest(r_id, r_tenant, r_currency, r_total) WITH ORDINALITY AS x(id, tenant, currency, total, n)
     WHERE x.id = ANY (v_whole);
    IF cardinality(v_kept) < cardinality(v_whole) THEN
        PERFORM book_undo(ARRAY(SELECT unnest(v_whole) EXCEPT SELECT unnest(v_kept)));
    END IF;
    WITH held AS (
        INSERT INTO transfer (kind, dr, cr, currency, amount_micro, reservation_id, ref)
        SELECT 'hold', w.id, h.id, x.currency, x.total, x.id, x.id || '/hold'
          FROM unnest(r_id, r_tenant, r_currency, r_total) AS x(id, tenant, currency, total)
          JOIN account w ON w.kind = 'wallet' AND w.tenant_id = x.tenant AND w.currency = x.currency
          JOIN account h ON h.kind = 'hold' AND h.tenant_id = x.tenant AND h.currency = x.currency
         WHERE x.id = ANY (v_kept) AND x.total > 0
        RETURNING dr, cr, amount_micro),
    moved AS (
        SELECT dr AS id, -sum(amount_micro) AS delta FROM held GROUP BY dr
        UNION ALL
        SELECT cr, sum(amount_micro) FROM held GROUP BY cr)
    UPDATE account a SET balance_micro = balance_micro + m.delta FROM moved m WHERE a.id = m.id;

    -- 4. The outbox.
    INSERT INTO event (kind, tenant_id, reservation_id, payload)
    SELECT 'reservation.confirmed', x.tenant, x.id,
           jsonb_build_object('state', 'confirmed', 'reason', '', 'generation', 1,
               'start_us', x.s, 'end_us', x.e, 'bookings', k.bookings)
      FROM unnest(r_id, r_tenant, r_start, r_end) WITH ORDINALITY AS x(id, tenant, s, e, n)
      JOIN (SELECT y.r, jsonb_agg(jsonb_build_object('booking', y.id, 'node_id', y.node, 'site_id', y.site,
                       'first', y.first, 'count', y.count, 'from_us', y.f, 'to_us', y.t)) AS bookings
              FROM unnest(v_numbers, b_resv, b_node, b_site, b_first, b_count, b_from, b_to)
                   AS y(id, r, node, site, first, count, f, t)
             GROUP BY y.r) k ON k.r = x.n
     WHERE x.id = ANY (v_kept);

    IF cardinality(v_kept) = cardinality(r_id) THEN
        RETURN QUERY
        SELECT 'ok', x.id, k.ids
          FROM unnest(r_id) WITH ORDINALITY AS x(id, n)
          JOIN (SELECT y.r, array_agg(y.id ORDER BY y.k) AS ids
                  FROM unnest(v_numbers, b_resv) WITH ORDINALITY AS y(id, r, k) GROUP BY y.r) k ON k.r = x.n
         ORDER BY x.n;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT CASE WHEN x.id = ANY (v_kept) THEN 'ok'
                WHEN x.id = ANY (v_whole) THEN 'funds'
                WHEN x.id = ANY (v_new) THEN 'lost'
                WHEN old.idem_hash = x.hash THEN 'duplicate'
                ELSE 'key_reused' END,
           CASE WHEN x.id = ANY (v_new) THEN x.id ELSE old.id END,
           CASE WHEN x.id = ANY (v_kept) THEN k.ids END
      FROM unnest(r_id, r_tenant, r_key, r_hash) WITH ORDINALITY AS x(id, tenant, key, hash, n)
      JOIN (SELECT y.r, array_agg(y.id ORDER BY y.k) AS ids
              FROM unnest(v_numbers, b_resv) WITH ORDINALITY AS y(id, r, k) GROUP BY y.r) k ON k.r = x.n
      LEFT JOIN reservation old ON x.id <> ALL (v_new) AND old.tenant_id = x.tenant AND old.idem_key = x.key
     ORDER BY x.n;
END $$;

CREATE OR REPLACE FUNCTION api.book(
    r_id uuid[], r_tenant uuid[], r_quote uuid[], r_now bigint[], r_start bigint[], r_end bigint[],
    r_request text[], r_data text[], r_currency text[], r_per_hour bigint[], r_total bigint[],
    r_effective bigint[], r_key text[], r_hash bytea[], r_spot boolean[],
    b_resv integer[], b_node integer[], b_site integer[], b_first integer[], b_count integer[],
    b_from bigint[], b_to bigint[], b_price bigint[])
RETURNS TABLE (outcome text, id uuid, bookings bigint[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_count integer := cardinality(r_id);
    v_fee integer[];
    v_low integer[]; -- number of each node's first GPU
    v_wallet integer[];
    v_hold integer[];
    v_numbers bigint[];
BEGIN
    IF b_resv <> ARRAY(SELECT generate_series(1, v_count)) THEN -- not one booking each
        RETURN QUERY SELECT * FROM book_each(r_id, r_tenant, r_quote, r_now, r_start, r_end, r_request, r_data, r_currency,
            r_per_hour, r_total, r_effective, r_key, r_hash, r_spot, b_resv, b_node, b_site, b_first, b_count,
            b_from, b_to, b_price);
        RETURN;
    END IF;
    BEGIN
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

        INSERT INTO reservation (id, tenant_id, state, created_at, during, request, data, currency,
            per_hour_micro, total_micro, effective_micro, fee_ppm, held_micro, idem_key, idem_hash, quote_id, spot)
        SELECT x.id, x.tenant, 'confirmed', ts(x.now), span(x.s, x.e), x.request::jsonb, x.data::jsonb, x.currency,
               x.per_hour, x.total, x.effective, x.fee, x.total, x.key, x.hash, x.quote, x.spot
          FROM unnest(r_id, r_tenant, r_quote, r_now, r_start, r_end, r_request, r_data, r_currency,
                   r_per_hour, r_total, r_effective, v_fee, r_key, r_hash, r_spot)
               AS x(id, tenant, quote, now, s, e, request, data, currency,
                   per_hour, total, effective, fee, key, hash, spot)
         ORDER BY x.tenant, x.key;

        INSERT INTO booking (id, reservation_id, node_id, site_id, gpus, during, epoch, per_gpu_hour_micro)
        OVERRIDING SYSTEM VALUE
        SELECT y.id, y.resv, y.node, y.site, int4range(y.low + y.first, y.low + y.first + y.count), span(y.f, y.t), y.f, y.price
          FROM unnest(v_numbers, r_id, b_node, b_site, v_low, b_first, b_count, b_from, b_to, b_price)
               AS y(id, resv, node, site, low, first, count, f, t, price)
         ORDER BY y.low + y.first, y.f;

        -- The wallet's floor is a constraint of its own.
        PERFORM 1 FROM account a WHERE a.id = ANY (v_wallet || v_hold) ORDER BY a.id FOR UPDATE;
        INSERT INTO transfer (kind, dr, cr, currency, amount_micro, reservation_id, ref)
        SELECT 'hold', x.wallet, x.hold, x.currency, x.total, x.id, x.id || '/hold'
          FROM unnest(r_id, v_wallet, v_hold, r_currency, r_total) AS x(id, wallet, hold, currency, total)
         WHERE x.total > 0;
        UPDATE account a SET balance_micro = a.balance_micro + m.delta
          FROM (SELECT x.account, sum(x.delta)::bigint AS delta
                  FROM (SELECT w.account, -w.total AS delta FROM unnest(v_wallet, r_total) AS w(account, total)
                        UNION ALL
                        SELECT h.account, h.total FROM unnest(v_hold, r_total) AS h(account, total)) x
                 GROUP BY x.account) m
         WHERE a.id = m.account AND m.delta <> 0;

        INSERT INTO event (kind, tenant_id, reservation_id, payload)
        SELECT 'reservation.confirmed', x.tenant, x.id,
               format('{"state": "confirmed", "reason": "", "generation": 1, "start_us": %s, "end_us": %s, "bookings": '
                   '[{"booking": %s, "node_id": %s, "site_id": %s, "first": %s, "count": %s, "from_us": %s, "to_us": %s}]}',
                   x.s, x.e, x.number, x.node, x.site, x.first, x.count, x.f, x.t)::jsonb -- half of jsonb_build_object()'s time
          FROM unnest(r_id, r_tenant, r_start, r_end, v_numbers, b_node, b_site, b_first, b_count, b_from, b_to)
               AS x(id, tenant, s, e, number, node, site, first, count, f, t);
        RETURN QUERY SELECT 'ok', x.id, ARRAY[x.number] FROM unnest(r_id, v_numbers) AS x(id, number);
    EXCEPTION WHEN integrity_constraint_violation OR deadlock_detected OR SQLSTATE 'NG006' THEN
        RETURN QUERY SELECT * FROM book_each(r_id, r_tenant, r_quote, r_now, r_start, r_end, r_request, r_data, r_currency,
            r_per_hour, r_total, r_effective, r_key, r_hash, r_spot, b_resv, b_node, b_site, b_first, b_count,
            b_from, b_to, b_price);
    END;
END $$;
