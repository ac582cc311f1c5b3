-- Settlement: what a provider earned becomes available when the dispute window is over. The
-- cursor is the number of the last capture looked at: captures are made under the billing
-- lock, so that under it every smaller number is there. What is taken back of a provider
-- goes through provider_take, which keeps the sums that settlement needs.

-- Of a reservation's captures on this account: not settled, and not taken back.
CREATE OR REPLACE FUNCTION ng.unsettled(p_account integer, p_reservation uuid) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT (coalesce((SELECT sum(t.amount_micro) FROM ng.transfer t
                       WHERE t.reservation_id = p_reservation AND t.kind = 'capture' AND t.cr = p_account
                         AND (t.id > coalesce((SELECT transfer_id FROM ng.settle_cursor WHERE account = p_account), 0)
                              OR EXISTS (SELECT FROM ng.settle_parked k WHERE k.transfer_id = t.id AND k.settlement_id IS NULL))), 0)
            - coalesce((SELECT micro FROM ng.settle_less WHERE account = p_account AND reservation_id = p_reservation), 0))::bigint
$$;

-- Takes an amount from a provider for a reservation, in favour of account p_cr: from what is
-- pending of that reservation, then from what is available, then from the reserve. Returns
-- what it did not have. The caller holds the billing lock.
CREATE OR REPLACE FUNCTION ng.provider_take(p_kind text, p_provider uuid, p_currency text, p_reservation uuid, p_amount bigint,
    p_cr integer, p_ref text)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_account integer := ng.account_of('provider_pending', NULL, p_provider, p_currency);
    v_left bigint := p_amount;
    v_take bigint := least(p_amount, ng.unsettled(v_account, p_reservation));
    v_from text;
BEGIN
    IF v_take > 0 THEN
        PERFORM ng.must_post(clock_timestamp(), p_kind, v_account, p_cr, p_currency, v_take, p_reservation, p_ref || '/pending');
        INSERT INTO ng.settle_less (account, reservation_id, micro) VALUES (v_account, p_reservation, v_take)
        ON CONFLICT (account, reservation_id) DO UPDATE SET micro = settle_less.micro + excluded.micro;
        v_left := v_left - v_take;
    END IF;
    FOREACH v_from IN ARRAY ARRAY['available', 'reserve'] LOOP
        v_account := ng.account_of('provider_' || v_from, NULL, p_provider, p_currency);
        SELECT least(v_left, greatest(0, balance_micro)) INTO v_take FROM ng.account WHERE id = v_account FOR NO KEY UPDATE;
        PERFORM ng.must_post(clock_timestamp(), p_kind, v_account, p_cr, p_currency, v_take, p_reservation, p_ref || '/' || v_from);
        v_left := v_left - v_take;
    END LOOP;
    RETURN v_left;
END $$;

-- One settlement and its transfers. Under one rate the reserve is the rounded part of all
-- that was settled, however it was sliced.
CREATE OR REPLACE FUNCTION ng.settle_put(a ng.account, p_transfers int8range, p_captures bigint, p_gross bigint, p_less bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_cursor ng.settle_cursor;
    v_market ng.market;
    v_ppm integer;
    v_reserve bigint;
    v_id bigint;
BEGIN
    SELECT * INTO STRICT v_market FROM ng.market;
    SELECT coalesce(reserve_ppm, v_market.reserve_ppm) INTO v_ppm FROM ng.provider WHERE id = a.provider_id;
    UPDATE ng.settle_cursor SET ppm = v_ppm, net_micro = 0, reserve_micro = 0 WHERE account = a.id AND ppm <> v_ppm;
    SELECT * INTO STRICT v_cursor FROM ng.settle_cursor WHERE account = a.id;
    v_reserve := ng.money_mul(v_cursor.net_micro + p_gross - p_less, v_ppm, 1000000) - v_cursor.reserve_micro;
    INSERT INTO ng.settlement (account, provider_id, currency, transfers, captures, gross_micro, less_micro, reserve_ppm, reserve_micro, release_at)
    VALUES (a.id, a.provider_id, a.currency, p_transfers, p_captures, p_gross, p_less, v_ppm, v_reserve, clock_timestamp() + v_market.reserve_for)
    RETURNING id INTO v_id;
    UPDATE ng.settle_cursor SET net_micro = net_micro + p_gross - p_less, reserve_micro = reserve_micro + v_reserve WHERE account = a.id;
    PERFORM ng.must_post(clock_timestamp(), 'settle', a.id, ng.account_of('provider_available', NULL, a.provider_id, a.currency), a.currency,
        p_gross - p_less - v_reserve, NULL, 'settle/' || v_id);
    PERFORM ng.must_post(clock_timestamp(), 'reserve', a.id, ng.account_of('provider_reserve', NULL, a.provider_id, a.currency), a.currency,
        v_reserve, NULL, 'settle/' || v_id);
    RETURN v_id;
END $$;

-- What was taken back of these captures, and is deducted now. p_resv and p_gross: sums of
-- captures by reservation.
CREATE OR REPLACE FUNCTION ng.settle_deduct(p_account integer, p_resv uuid[], p_gross bigint[]) RETURNS bigint
LANGUAGE sql AS $$
    WITH due AS (
        SELECT l.reservation_id, least(l.micro, x.gross) AS micro
          FROM unnest(p_resv, p_gross) AS x(resv, gross)
          JOIN ng.settle_less l ON l.account = p_account AND l.reservation_id = x.resv WHERE l.micro > 0),
    done AS (
        UPDATE ng.settle_less l SET micro = l.micro - d.micro FROM due d
         WHERE l.account = p_account AND l.reservation_id = d.reservation_id)
    SELECT coalesce(sum(micro), 0)::bigint FROM due
$$;

CREATE OR REPLACE FUNCTION ng.settle_account(a ng.account, p_limit integer) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_after bigint;
    v_last bigint;
    v_resv uuid[];
    v_gross bigint[];
    v_captures bigint;
    v_until timestamptz := clock_timestamp() - (SELECT dispute_window FROM ng.market);
BEGIN
    INSERT INTO ng.settle_cursor (account) VALUES (a.id) ON CONFLICT DO NOTHING;
    SELECT transfer_id INTO v_after FROM ng.settle_cursor WHERE account = a.id FOR UPDATE;
    WITH page AS (SELECT t.id, t.at FROM ng.transfer t WHERE t.cr = a.id AND t.id > v_after ORDER BY t.id LIMIT p_limit)
    SELECT max(id) INTO v_last FROM page
     WHERE id < coalesce((SELECT min(id) FROM page WHERE at >= v_until), 9223372036854775807);
    IF v_last IS NULL THEN
        RETURN 0;
    END IF;
    INSERT INTO ng.settle_parked (transfer_id, account, reservation_id)
    SELECT t.id, a.id, t.reservation_id FROM ng.transfer t
      JOIN ng.dispute d ON d.reservation_id = t.reservation_id AND d.closed_at IS NULL
     WHERE t.cr = a.id AND t.id > v_after AND t.id <= v_last AND t.kind = 'capture';
    SELECT array_agg(x.resv), array_agg(x.gross), coalesce(sum(x.n), 0) INTO v_resv, v_gross, v_captures
      FROM (SELECT t.reservation_id AS resv, sum(t.amount_micro)::bigint AS gross, count(*) AS n
              FROM ng.transfer t
             WHERE t.cr = a.id AND t.id > v_after AND t.id <= v_last AND t.kind = 'capture'
               AND NOT EXISTS (SELECT FROM ng.settle_parked k WHERE k.transfer_id = t.id)
             GROUP BY t.reservation_id) x;
    IF v_captures > 0 THEN
        PERFORM ng.settle_put(a, int8range(v_after + 1, v_last + 1), v_captures, (SELECT sum(g) FROM unnest(v_gross) g)::bigint,
            ng.settle_deduct(a.id, v_resv, v_gross));
    END IF;
    UPDATE ng.settle_cursor SET transfer_id = v_last WHERE account = a.id;
    RETURN v_captures;
END $$;

-- Captures of disputes that are over, a reservation at a time.
CREATE OR REPLACE FUNCTION ng.settle_parked_of(a ng.account) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v record;
    v_id bigint;
    v_count bigint := 0;
BEGIN
    FOR v IN
        SELECT k.reservation_id AS resv, sum(t.amount_micro)::bigint AS gross, count(*) AS n
          FROM ng.settle_parked k JOIN ng.transfer t ON t.id = k.transfer_id
         WHERE k.account = a.id AND k.settlement_id IS NULL
           AND EXISTS (SELECT FROM ng.dispute d WHERE d.reservation_id = k.reservation_id AND d.closed_at IS NOT NULL)
         GROUP BY k.reservation_id ORDER BY k.reservation_id
    LOOP
        v_id := ng.settle_put(a, 'empty', v.n, v.gross, ng.settle_deduct(a.id, ARRAY[v.resv], ARRAY[v.gross]));
        UPDATE ng.settle_parked SET settlement_id = v_id WHERE account = a.id AND reservation_id = v.resv AND settlement_id IS NULL;
        v_count := v_count + v.n;
    END LOOP;
    RETURN v_count;
END $$;

-- A page of every provider's captures whose window is over; how many. Call it until 0.
CREATE OR REPLACE FUNCTION api.billing_settle(p_limit integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v account;
    v_count bigint := 0;
BEGIN
    PERFORM billing_lock();
    FOR v IN SELECT * FROM account WHERE kind = 'provider_pending' ORDER BY id LOOP
        v_count := v_count + settle_account(v, p_limit) + settle_parked_of(v);
    END LOOP;
    RETURN v_count;
END $$;

-- Reserves whose time is over become available, the oldest first. What was taken from a
-- reserve meanwhile is missing in the oldest.
CREATE OR REPLACE FUNCTION api.billing_unreserve(p_limit integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v record;
    v_free bigint;
    v_count bigint := 0;
BEGIN
    PERFORM billing_lock();
    FOR v IN
        SELECT s.*, account_of('provider_reserve', NULL, s.provider_id, s.currency) AS reserve,
               account_of('provider_available', NULL, s.provider_id, s.currency) AS available
          FROM settlement s WHERE s.released_at IS NULL AND s.reserve_micro > 0 AND s.release_at <= clock_timestamp()
         ORDER BY s.id LIMIT p_limit
    LOOP
        SELECT r.balance_micro - coalesce((SELECT sum(o.reserve_micro) FROM settlement o WHERE o.account = v.account AND o.released_at IS NULL
                                              AND o.reserve_micro > 0 AND o.id <> v.id), 0)
          INTO v_free FROM account r WHERE r.id = v.reserve FOR NO KEY UPDATE;
        v_free := greatest(0, least(v.reserve_micro, v_free));
        PERFORM must_post(clock_timestamp(), 'unreserve', v.reserve, v.available, v.currency, v_free, NULL, 'settle/' || v.id);
        UPDATE settlement SET released_at = clock_timestamp(), released_micro = v_free WHERE id = v.id;
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;

-- A tenant or an administrator disputes a reservation's use: it is not settled until an
-- administrator closes the dispute, after a refund or without one.
CREATE OR REPLACE FUNCTION api.dispute_open(p_tenant uuid, p_reservation uuid, p_reason text, p_by text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v dispute;
BEGIN
    PERFORM billing_lock();
    IF NOT EXISTS (SELECT FROM reservation WHERE id = p_reservation AND (p_tenant IS NULL OR tenant_id = p_tenant)) THEN
        PERFORM refuse(5, format('there is no reservation %s', p_reservation));
    END IF;
    INSERT INTO dispute (reservation_id, reason, opened_by) VALUES (p_reservation, p_reason, p_by) ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT v FROM dispute WHERE reservation_id = p_reservation;
    IF v.closed_at IS NOT NULL THEN
        PERFORM refuse(6, format('the dispute of reservation %s was closed before', p_reservation));
    END IF;
    RETURN jsonb_build_object('reservation', p_reservation, 'reason', v.reason, 'by', v.opened_by, 'since_us', us(v.opened_at));
END $$;
CREATE OR REPLACE FUNCTION api.dispute_close(p_reservation uuid, p_by text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    PERFORM billing_lock();
    UPDATE dispute SET closed_by = p_by, closed_at = clock_timestamp() WHERE reservation_id = p_reservation AND closed_at IS NULL;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('reservation %s is not in dispute', p_reservation));
    END IF;
    RETURN jsonb_build_object('reservation', p_reservation, 'by', p_by);
END $$;

-- Each settlement is the sum of its captures, less what was taken back, and was posted so;
-- every capture before the cursor is in one, or waits for the end of a dispute.
CREATE OR REPLACE VIEW report.check_settled AS
    SELECT s.id AS settlement, s.gross_micro, c.sum AS captures_micro, s.gross_micro - s.less_micro AS net_micro, t.sum AS transfers_micro
      FROM ng.settlement s
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(t.amount_micro), 0) AS sum, count(*) AS n FROM (
              SELECT x.amount_micro FROM ng.transfer x
               WHERE x.cr = s.account AND x.kind = 'capture' AND x.id >= lower(s.transfers) AND x.id < upper(s.transfers)
                 AND NOT EXISTS (SELECT FROM ng.settle_parked k WHERE k.transfer_id = x.id)
              UNION ALL
              SELECT x.amount_micro FROM ng.settle_parked k JOIN ng.transfer x ON x.id = k.transfer_id WHERE k.settlement_id = s.id) t) c
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(x.amount_micro), 0) AS sum, coalesce(sum(x.amount_micro) FILTER (WHERE x.kind = 'reserve'), 0) AS reserve
            FROM ng.transfer x WHERE x.kind IN ('settle', 'reserve') AND x.ref = 'settle/' || s.id AND x.dr = s.account) t
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(x.amount_micro), 0) AS sum FROM ng.transfer x WHERE x.kind = 'unreserve' AND x.ref = 'settle/' || s.id) r
     WHERE (s.gross_micro, s.captures) <> (c.sum, c.n) OR s.gross_micro - s.less_micro <> t.sum OR s.reserve_micro <> t.reserve
        OR coalesce(s.released_micro, 0) <> r.sum
    UNION ALL
    -- ... and what is pending is what was captured and is not settled, less what was taken back.
    SELECT NULL, a.id, o.open, l.less, b.balance
      FROM ng.account a
      LEFT JOIN ng.settle_cursor k ON k.account = a.id
      CROSS JOIN LATERAL (
          SELECT coalesce((SELECT sum(amount_micro) FROM ng.transfer WHERE cr = a.id), 0)
               - coalesce((SELECT sum(amount_micro) FROM ng.transfer WHERE dr = a.id), 0) AS balance) b
      CROSS JOIN LATERAL (
          SELECT coalesce((SELECT sum(amount_micro) FROM ng.transfer t WHERE t.cr = a.id AND t.kind = 'capture' AND t.id > coalesce(k.transfer_id, 0)), 0)
               + coalesce((SELECT sum(t.amount_micro) FROM ng.settle_parked p JOIN ng.transfer t ON t.id = p.transfer_id
                            WHERE p.account = a.id AND p.settlement_id IS NULL), 0) AS open) o
      CROSS JOIN LATERAL (SELECT coalesce(sum(micro), 0) AS less FROM ng.settle_less WHERE account = a.id) l
     WHERE a.kind = 'provider_pending' AND b.balance <> o.open - l.less;
