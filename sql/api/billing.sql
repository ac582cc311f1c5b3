-- Billing: what neargpu-billd may do, and the views that must be empty. billd computes amounts
-- (billing/core); these functions post them, each receipt exactly once: ng.meter is the
-- cursor. One advisory lock orders rating against invoicing, so that an invoice's period
-- contains exactly the captures made before it was closed.

CREATE OR REPLACE FUNCTION ng.billing_lock() RETURNS void
LANGUAGE sql AS $$ SELECT pg_advisory_xact_lock(hashtext('neargpu.billing')) $$;

-- round half away from zero of quantity * price / unit, as client/lib/money.h.
CREATE OR REPLACE FUNCTION ng.money_mul(quantity bigint, price_micro bigint, unit bigint)
RETURNS bigint LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT round(quantity::numeric * price_micro / unit)::bigint
$$;

CREATE OR REPLACE FUNCTION ng.account_of(p_kind text, p_tenant uuid, p_provider uuid, p_currency text)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE v_id integer;
BEGIN
    SELECT id INTO v_id FROM ng.account
     WHERE kind = p_kind AND tenant_id IS NOT DISTINCT FROM p_tenant
       AND provider_id IS NOT DISTINCT FROM p_provider AND currency = p_currency;
    IF v_id IS NULL THEN
        INSERT INTO ng.account (kind, tenant_id, provider_id, currency, guarded)
        VALUES (p_kind, p_tenant, p_provider, p_currency, p_kind IN ('wallet', 'hold', 'provider_available'))
        ON CONFLICT DO NOTHING;
        SELECT id INTO v_id FROM ng.account
         WHERE kind = p_kind AND tenant_id IS NOT DISTINCT FROM p_tenant
           AND provider_id IS NOT DISTINCT FROM p_provider AND currency = p_currency;
    END IF;
    RETURN v_id;
END $$;

-- One transfer and the guarded balances it moves. ref makes it idempotent: a repeated
-- (kind, ref) returns false and moves nothing. Debiting a wallet below its floor raises
-- check_violation (account_floor).
CREATE OR REPLACE FUNCTION ng.post(p_kind text, p_dr integer, p_cr integer, p_currency text,
    p_amount bigint, p_reservation uuid, p_ref text, p_reverses bigint DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF p_amount = 0 THEN
        RETURN false;
    END IF;
    INSERT INTO ng.transfer (at, kind, dr, cr, currency, amount_micro, reservation_id, ref, reverses)
    VALUES (clock_timestamp(), p_kind, p_dr, p_cr, p_currency, p_amount, p_reservation, p_ref, p_reverses)
    ON CONFLICT (kind, ref) WHERE ref IS NOT NULL DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- In the order of ids, so that two posters never wait for each other in a ring.
    PERFORM 1 FROM ng.account WHERE id IN (p_dr, p_cr) AND guarded ORDER BY id FOR UPDATE;
    UPDATE ng.account SET balance_micro = balance_micro - p_amount WHERE id = p_dr AND guarded;
    UPDATE ng.account SET balance_micro = balance_micro + p_amount WHERE id = p_cr AND guarded;
    RETURN true;
END $$;

-- Receipts not rated yet, oldest first, with what rating needs. gpu_ms and the rated sums
-- are cumulative. max_gpu_ms bounds what may be charged: GPUs x the promised window.
CREATE OR REPLACE FUNCTION api.billing_claim(p_limit integer)
RETURNS TABLE (reservation_id uuid, node_id integer, seq integer, kind text, gpu_ms bigint,
    max_gpu_ms bigint, per_gpu_hour_micro bigint, fee_ppm integer, rated_seq integer,
    rated_gpu_ms bigint, rated_amount_micro bigint, rated_fee_micro bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT r.reservation_id, r.node_id, r.seq, r.kind, r.gpu_ms, w.max_gpu_ms, w.price, v.fee_ppm,
           coalesce(m.seq, 0), coalesce(m.gpu_ms, 0), coalesce(m.amount_micro, 0), coalesce(m.fee_micro, 0)
      FROM receipt r
      JOIN reservation v ON v.id = r.reservation_id
      JOIN LATERAL (
          SELECT (sum(upper(b.gpus) - lower(b.gpus))
                     * (extract(epoch FROM upper(v.during) - lower(v.during)) * 1000))::bigint AS max_gpu_ms,
                 max(b.per_gpu_hour_micro) AS price
            FROM booking b WHERE b.reservation_id = r.reservation_id AND b.node_id = r.node_id) w ON true
      LEFT JOIN meter m ON m.reservation_id = r.reservation_id AND m.node_id = r.node_id
     WHERE NOT r.rated
     ORDER BY r.received_at, r.reservation_id, r.node_id, r.seq
     LIMIT p_limit
$$;

-- Posts one rated receipt: cumulative amount and fee after it. Returns 'posted', 'again'
-- (this receipt was rated already) or 'gap' (an earlier one is missing: wait).
CREATE OR REPLACE FUNCTION api.billing_post(p_reservation uuid, p_node integer, p_seq integer,
    p_gpu_ms bigint, p_amount_micro bigint, p_fee_micro bigint)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v meter;
    v_resv reservation;
    v_provider uuid;
    v_kind text;
    v_delta bigint;
    v_fee bigint;
    v_hold integer;
    v_ref text := p_reservation || '/' || p_node || '/' || p_seq;
BEGIN
    PERFORM billing_lock();
    INSERT INTO meter (reservation_id, node_id) VALUES (p_reservation, p_node) ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT v FROM meter WHERE reservation_id = p_reservation AND node_id = p_node FOR UPDATE;
    IF p_seq <= v.seq THEN
        RETURN 'again';
    ELSIF p_seq <> v.seq + 1 THEN
        RETURN 'gap';
    END IF;
    UPDATE receipt SET rated = true
     WHERE reservation_id = p_reservation AND node_id = p_node AND seq = p_seq
    RETURNING kind INTO STRICT v_kind;
    SELECT * INTO STRICT v_resv FROM reservation WHERE id = p_reservation FOR UPDATE;
    SELECT provider_id INTO STRICT v_provider FROM node WHERE id = p_node;
    -- A closed meter and a spent hold capture nothing more: the receipt is kept as late.
    v_delta := greatest(0, least(p_amount_micro - v.amount_micro,
        v_resv.held_micro - v_resv.captured_micro - v_resv.released_micro));
    v_fee := least(v_delta, greatest(0, p_fee_micro - v.fee_micro));
    v_hold := account_of('hold', v_resv.tenant_id, NULL, v_resv.currency);
    PERFORM post('capture', v_hold, account_of('provider_pending', NULL, v_provider, v_resv.currency),
        v_resv.currency, v_delta - v_fee, p_reservation, v_ref);
    PERFORM post('fee', v_hold, account_of('fee', NULL, NULL, v_resv.currency),
        v_resv.currency, v_fee, p_reservation, v_ref);
    UPDATE meter SET seq = p_seq, gpu_ms = greatest(gpu_ms, p_gpu_ms), amount_micro = amount_micro + v_delta,
        fee_micro = fee_micro + v_fee, closed = closed OR v_kind = 'teardown'
     WHERE reservation_id = p_reservation AND node_id = p_node;
    UPDATE reservation SET captured_micro = captured_micro + v_delta WHERE id = p_reservation;
    RETURN 'posted';
END $$;

-- Gives back what is left of holds: when every node's meter is closed, when a reservation
-- ended without delivery, and p_grace after the end at the latest. Returns how many.
CREATE OR REPLACE FUNCTION api.billing_release(p_grace interval, p_limit integer)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v record;
    v_count integer := 0;
BEGIN
    PERFORM billing_lock();
    FOR v IN
        SELECT r.id, r.tenant_id, r.currency, r.held_micro - r.captured_micro - r.released_micro AS rest
          FROM reservation r
         WHERE r.state IN ('ended', 'cancelled', 'failed')
           AND r.held_micro > r.captured_micro + r.released_micro
           AND NOT EXISTS (SELECT FROM receipt x WHERE x.reservation_id = r.id AND NOT x.rated)
           AND (coalesce((SELECT bool_and(coalesce(m.closed, false))
                            FROM booking b LEFT JOIN meter m ON m.reservation_id = b.reservation_id AND m.node_id = b.node_id
                           WHERE b.reservation_id = r.id), true)
                OR coalesce(r.ended_at, upper(r.during)) + p_grace < clock_timestamp())
         ORDER BY r.id LIMIT p_limit
         FOR UPDATE OF r SKIP LOCKED
    LOOP
        PERFORM post('release', account_of('hold', v.tenant_id, NULL, v.currency),
            account_of('wallet', v.tenant_id, NULL, v.currency), v.currency, v.rest, v.id, v.id || '/end');
        UPDATE reservation SET released_micro = released_micro + v.rest WHERE id = v.id;
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;

-- Captured use of a tenant since its last invoice, up to p_until: one line a reservation.
CREATE OR REPLACE FUNCTION api.billing_open_lines(p_tenant text, p_until timestamptz)
RETURNS TABLE (tenant_id uuid, currency text, period_from timestamptz, period_to timestamptz,
    reservation_id uuid, description text, quantity_gpu_ms bigint, amount_micro bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    WITH who AS (
        SELECT t.id, t.zone, a.id AS hold, a.currency,
               coalesce((SELECT max(upper(i.period)) FROM invoice i WHERE i.tenant_id = t.id AND i.currency = a.currency),
                        date_trunc('month', t.created_at, t.zone)) AS since
          FROM tenant t JOIN account a ON a.tenant_id = t.id AND a.kind = 'hold'
         WHERE t.name = p_tenant)
    SELECT w.id, w.currency, w.since, p_until, x.reservation_id,
           format('%s x %s, %s, reservation %s', n.count, n.model, n.site, x.reservation_id),
           coalesce((SELECT sum(m.gpu_ms) FROM meter m WHERE m.reservation_id = x.reservation_id), 0)::bigint,
           x.amount
      FROM who w
      JOIN LATERAL (
          SELECT t.reservation_id, sum(t.amount_micro)::bigint AS amount
            FROM transfer t
           WHERE t.dr = w.hold AND t.kind IN ('capture', 'fee') AND t.at >= w.since AND t.at < p_until
           GROUP BY t.reservation_id) x ON true
      JOIN LATERAL (
          SELECT sum(upper(b.gpus) - lower(b.gpus)) AS count, min(nd.gpu_model) AS model, min(s.name) AS site
            FROM booking b JOIN node nd ON nd.id = b.node_id JOIN site s ON s.id = nd.site_id
           WHERE b.reservation_id = x.reservation_id) n ON true
     WHERE p_until > w.since
     ORDER BY x.reservation_id
$$;

-- Issues the invoice that billd computed from exactly these lines. Under the lock the sum
-- of lines must still be what was captured in the period. Tax is taken from the wallet as
-- far as it reaches; the rest is receivable. Numbers have no holes: the next one is the
-- last plus one, under the lock.
CREATE OR REPLACE FUNCTION api.billing_invoice(p_tenant text, p_until timestamptz, p_lines jsonb,
    p_net_micro bigint, p_residue_micro bigint, p_tax_ppm integer, p_tax_micro bigint)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_tenant tenant;
    v_market market;
    v_currency text;
    v_from timestamptz;
    v_sum bigint;
    v_given bigint;
    v_number text;
    v_wallet integer;
    v_paid bigint;
    v_rounding integer;
BEGIN
    PERFORM billing_lock();
    -- Captures made later must fall into the next period.
    IF p_until > clock_timestamp() THEN
        RAISE EXCEPTION 'an invoice cannot reach into the future: % has not come yet', p_until
            USING ERRCODE = 'NG020';
    END IF;
    SELECT * INTO STRICT v_market FROM market;
    SELECT * INTO v_tenant FROM tenant WHERE name = p_tenant;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no tenant is named %', p_tenant USING ERRCODE = 'NG005';
    END IF;
    SELECT min(currency), min(period_from), coalesce(sum(amount_micro), 0)
      INTO v_currency, v_from, v_sum FROM api.billing_open_lines(p_tenant, p_until);
    SELECT coalesce(sum((l->>'amount_micro')::bigint), 0) INTO v_given FROM jsonb_array_elements(p_lines) l;
    IF v_sum = 0 THEN
        RETURN NULL;
    END IF;
    IF v_given <> v_sum OR p_net_micro <> v_sum + p_residue_micro THEN
        RAISE EXCEPTION 'the lines given sum to %, but % was captured: read them again', v_given, v_sum
            USING ERRCODE = 'NG006';
    END IF;
    SELECT 'INV-' || to_char(p_until AT TIME ZONE v_tenant.zone, 'YYYY') || '-' ||
           lpad((1 + coalesce(max(right(number, 6)::integer), 0))::text, 6, '0')
      INTO v_number FROM invoice
     WHERE number LIKE 'INV-' || to_char(p_until AT TIME ZONE v_tenant.zone, 'YYYY') || '-%';
    INSERT INTO invoice (number, tenant_id, currency, period, net_micro, tax_ppm, tax_micro, total_micro, document)
    VALUES (v_number, v_tenant.id, v_currency, tstzrange(v_from, p_until), p_net_micro, p_tax_ppm, p_tax_micro,
        p_net_micro + p_tax_micro, jsonb_build_object(
            'issuer', v_market.issuer_name, 'registration', v_market.issuer_registration,
            'market', v_market.name, 'recipient', v_tenant.name, 'zone', v_tenant.zone));
    INSERT INTO invoice_line (number, line, description, reservation_id, quantity_gpu_ms, amount_micro)
    SELECT v_number, n, l->>'description', (l->>'reservation_id')::uuid, (l->>'quantity_gpu_ms')::bigint,
           (l->>'amount_micro')::bigint
      FROM jsonb_array_elements(p_lines) WITH ORDINALITY AS x(l, n);
    v_wallet := account_of('wallet', v_tenant.id, NULL, v_currency);
    v_rounding := account_of('rounding', NULL, NULL, v_currency);
    IF p_residue_micro <> 0 THEN
        INSERT INTO invoice_line (number, line, description, quantity_gpu_ms, amount_micro)
        VALUES (v_number, 1 + jsonb_array_length(p_lines), 'rounding to the minor unit', 0, p_residue_micro);
    END IF;
    -- Rounding up and tax are due from the wallet; what it lacks is receivable.
    SELECT least(greatest(0, balance_micro - floor_micro), p_tax_micro) INTO v_paid
      FROM account WHERE id = v_wallet FOR UPDATE;
    PERFORM post('tax', v_wallet, account_of('tax_output', NULL, NULL, v_currency), v_currency,
        v_paid, NULL, v_number || '/wallet');
    PERFORM post('tax', account_of('receivable', v_tenant.id, NULL, v_currency),
        account_of('tax_output', NULL, NULL, v_currency), v_currency, p_tax_micro - v_paid, NULL, v_number || '/receivable');
    IF p_residue_micro > 0 THEN
        SELECT least(greatest(0, balance_micro - floor_micro), p_residue_micro) INTO v_paid FROM account WHERE id = v_wallet;
        PERFORM post('rounding', v_wallet, v_rounding, v_currency, v_paid, NULL, v_number || '/wallet');
        PERFORM post('rounding', account_of('receivable', v_tenant.id, NULL, v_currency), v_rounding, v_currency,
            p_residue_micro - v_paid, NULL, v_number || '/receivable');
    ELSE
        PERFORM post('rounding', v_rounding, v_wallet, v_currency, -p_residue_micro, NULL, v_number || '/wallet');
    END IF;
    RETURN v_number;
END $$;

-- Tenants with a whole month (in their zone) to invoice: name and the month's end.
CREATE OR REPLACE FUNCTION api.billing_due(p_now timestamptz)
RETURNS TABLE (tenant text, until timestamptz)
LANGUAGE sql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT t.name, date_trunc('month', p_now, t.zone) FROM tenant t
     WHERE EXISTS (SELECT FROM api.billing_open_lines(t.name, date_trunc('month', p_now, t.zone)))
$$;

CREATE OR REPLACE FUNCTION api.billing_market()
RETURNS TABLE (currency text, tax_ppm integer)
LANGUAGE sql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT currency, tax_ppm FROM market
$$;

-- What must be empty. Each view lists breaches; api.check_all() counts them.
CREATE OR REPLACE VIEW report.check_balance AS
    SELECT a.id AS account, a.kind, a.balance_micro,
           coalesce(c.sum, 0) - coalesce(d.sum, 0) AS transfers_micro
      FROM ng.account a
      LEFT JOIN (SELECT cr, sum(amount_micro) FROM ng.transfer GROUP BY cr) c ON c.cr = a.id
      LEFT JOIN (SELECT dr, sum(amount_micro) FROM ng.transfer GROUP BY dr) d ON d.dr = a.id
     WHERE a.guarded AND a.balance_micro <> coalesce(c.sum, 0) - coalesce(d.sum, 0);
CREATE OR REPLACE VIEW report.check_hold AS
    SELECT a.tenant_id, a.currency, a.balance_micro, coalesce(r.open, 0) AS reservations_micro
      FROM ng.account a
      LEFT JOIN (SELECT tenant_id, currency, sum(held_micro - captured_micro - released_micro) AS open
                   FROM ng.reservation GROUP BY tenant_id, currency) r
        ON r.tenant_id = a.tenant_id AND r.currency = a.currency
     WHERE a.kind = 'hold' AND a.balance_micro <> coalesce(r.open, 0);
CREATE OR REPLACE VIEW report.check_captured AS
    SELECT r.id AS reservation, r.captured_micro, coalesce(t.sum, 0) AS transfers_micro, coalesce(m.sum, 0) AS meters_micro
      FROM ng.reservation r
      LEFT JOIN (SELECT reservation_id, sum(amount_micro) FROM ng.transfer WHERE kind IN ('capture', 'fee')
                  GROUP BY reservation_id) t ON t.reservation_id = r.id
      LEFT JOIN (SELECT reservation_id, sum(amount_micro) FROM ng.meter GROUP BY reservation_id) m ON m.reservation_id = r.id
     WHERE r.captured_micro <> coalesce(t.sum, 0) OR r.captured_micro <> coalesce(m.sum, 0);
CREATE OR REPLACE VIEW report.check_amount AS
    SELECT m.reservation_id AS reservation, m.node_id AS node, m.gpu_ms, m.amount_micro,
           ng.money_mul(least(m.gpu_ms, w.max_gpu_ms), w.price, 3600000) AS expected_micro
      FROM ng.meter m JOIN ng.reservation v ON v.id = m.reservation_id
      JOIN LATERAL (
          SELECT (sum(upper(b.gpus) - lower(b.gpus)) * (extract(epoch FROM upper(v.during) - lower(v.during)) * 1000))::bigint AS max_gpu_ms,
                 max(b.per_gpu_hour_micro) AS price
            FROM ng.booking b WHERE b.reservation_id = m.reservation_id AND b.node_id = m.node_id) w ON true
     WHERE m.amount_micro <> ng.money_mul(least(m.gpu_ms, w.max_gpu_ms), w.price, 3600000)
       AND v.held_micro > v.captured_micro + v.released_micro; -- a hold spent or given back caps the amount
CREATE OR REPLACE VIEW report.check_double_booking AS
    SELECT a.id AS booking, b.id AS other FROM ng.booking a
      JOIN ng.booking b ON a.id < b.id AND a.gpus && b.gpus AND a.during && b.during;
CREATE OR REPLACE VIEW report.check_invoice AS
    SELECT i.number, i.net_micro, l.sum AS lines_micro FROM ng.invoice i
      LEFT JOIN (SELECT number, sum(amount_micro) FROM ng.invoice_line GROUP BY number) l ON l.number = i.number
     WHERE i.net_micro IS DISTINCT FROM l.sum OR i.tax_micro <> ng.money_mul(i.net_micro, i.tax_ppm, 1000000)
       AND abs(i.tax_micro - ng.money_mul(i.net_micro, i.tax_ppm, 1000000)) >= 1000000;
CREATE OR REPLACE VIEW report.check_unbilled AS
    SELECT reservation_id AS reservation, node_id AS node, seq, received_at FROM ng.receipt
     WHERE NOT rated AND received_at < now() - interval '60 s';
CREATE OR REPLACE VIEW report.check_receipt_fork AS
    SELECT reservation_id AS reservation, node_id AS node, seq, at FROM ng.receipt_fork;

CREATE OR REPLACE FUNCTION api.check_all()
RETURNS TABLE (name text, breaches bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = report, ng, pg_temp AS $$
    SELECT 'check_balance', count(*) FROM check_balance
    UNION ALL SELECT 'check_hold', count(*) FROM check_hold
    UNION ALL SELECT 'check_captured', count(*) FROM check_captured
    UNION ALL SELECT 'check_amount', count(*) FROM check_amount
    UNION ALL SELECT 'check_double_booking', count(*) FROM check_double_booking
    UNION ALL SELECT 'check_invoice', count(*) FROM check_invoice
    UNION ALL SELECT 'check_unbilled', count(*) FROM check_unbilled
    UNION ALL SELECT 'check_receipt_fork', count(*) FROM check_receipt_fork
$$;
