-- Billing: what neargpu-billd may do. billd computes amounts (billing/core); these
-- functions compute them again, post only what both agree on, and each receipt exactly
-- once: ng.meter is the cursor. One advisory lock orders rating against invoicing, so that
-- an invoice's period contains exactly the captures made before it was closed. Accounts
-- are locked in the order of their ids, before anything is inserted that refers to them.

-- ISO 4217 digits of the minor unit, as in client/lib/money.c (a test compares them).
CREATE TABLE IF NOT EXISTS ng.currency_exponent (
    currency ng.currency PRIMARY KEY,
    exponent smallint NOT NULL CHECK (exponent BETWEEN 0 AND 6)
);
INSERT INTO ng.currency_exponent (currency, exponent)
SELECT c, x.exponent
  FROM (VALUES
    (0, 'BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF'),
    (2, 'AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF'),
    (2, 'CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF'),
    (2, 'IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR'),
    (2, 'MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD'),
    (2, 'SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD YER'),
    (2, 'ZAR ZMW ZWG'),
    (3, 'BHD IQD JOD KWD LYD OMR TND')) AS x(exponent, codes),
  string_to_table(x.codes, ' ') AS c
ON CONFLICT (currency) DO UPDATE SET exponent = excluded.exponent;

CREATE OR REPLACE FUNCTION ng.billing_lock() RETURNS void
LANGUAGE sql AS $$ SELECT pg_advisory_xact_lock(hashtext('neargpu.billing')) $$;

-- round half away from zero of quantity * price / unit, as client/lib/money.h. In whole
-- numbers: a numeric quotient is itself rounded, and rounding twice is wrong.
CREATE OR REPLACE FUNCTION ng.money_mul(quantity bigint, price_micro bigint, unit bigint)
RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (sign(quantity::numeric) * sign(price_micro::numeric)
            * div(2 * abs(quantity::numeric * price_micro) + unit, 2 * unit::numeric))::bigint
$$;

-- One minor unit of a currency in micro-units; nothing for one that is not known.
CREATE OR REPLACE FUNCTION ng.minor_micro(p_currency text) RETURNS bigint
LANGUAGE sql STABLE STRICT AS $$
    SELECT (10 ^ (6 - exponent))::bigint FROM ng.currency_exponent WHERE currency = p_currency
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
        VALUES (p_kind, p_tenant, p_provider, p_currency, p_kind IN ('wallet', 'hold', 'promo', 'provider_available', 'provider_reserve'))
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
CREATE OR REPLACE FUNCTION ng.post_at(p_at timestamptz, p_kind text, p_dr integer, p_cr integer, p_currency text,
    p_amount bigint, p_reservation uuid, p_ref text, p_reverses bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF p_amount = 0 THEN
        RETURN false;
    END IF;
    -- Before the insert, whose foreign keys lock the accounts as well, and in the order of
    -- ids: two posters never wait for each other in a ring.
    PERFORM 1 FROM ng.account WHERE id IN (p_dr, p_cr) AND guarded ORDER BY id FOR NO KEY UPDATE;
    INSERT INTO ng.transfer (at, kind, dr, cr, currency, amount_micro, reservation_id, ref, reverses)
    VALUES (p_at, p_kind, p_dr, p_cr, p_currency, p_amount, p_reservation, p_ref, p_reverses)
    ON CONFLICT (kind, ref) WHERE ref IS NOT NULL DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE ng.account SET balance_micro = balance_micro - p_amount WHERE id = p_dr AND guarded;
    UPDATE ng.account SET balance_micro = balance_micro + p_amount WHERE id = p_cr AND guarded;
    RETURN true;
END $$;
CREATE OR REPLACE FUNCTION ng.post(p_kind text, p_dr integer, p_cr integer, p_currency text,
    p_amount bigint, p_reservation uuid, p_ref text, p_reverses bigint DEFAULT NULL)
RETURNS boolean LANGUAGE sql AS $$
    SELECT ng.post_at(clock_timestamp(), p_kind, p_dr, p_cr, p_currency, p_amount, p_reservation, p_ref, p_reverses)
$$;
-- Many transfers of one kind and currency, posted now, in the order of the arrays; amounts
-- of 0 are passed over. A ref that is taken is an error and nothing is posted.
-- Everybody locks accounts before budgets. Budgets stand behind holds alone, so a batch
-- that touches no hold inserts first: it keeps a busy account locked for its last update
-- only, and others insert meanwhile.
CREATE OR REPLACE FUNCTION ng.post_batch(p_kind text, p_currency text, p_dr integer[], p_cr integer[], p_amount bigint[],
    p_reservation uuid[], p_ref text[])
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_currency ng.currency := p_currency; -- its domain is checked once, not once a row
    v_held boolean := EXISTS (SELECT FROM ng.account WHERE id = ANY (p_dr || p_cr) AND kind = 'hold');
    v_count bigint;
BEGIN
    IF v_held THEN
        PERFORM 1 FROM ng.account WHERE id = ANY (p_dr || p_cr) AND guarded ORDER BY id FOR NO KEY UPDATE;
    END IF;
    INSERT INTO ng.transfer (at, kind, dr, cr, currency, amount_micro, reservation_id, ref)
    SELECT clock_timestamp(), p_kind, x.dr, x.cr, v_currency, x.amount, x.reservation, x.ref
      FROM unnest(p_dr, p_cr, p_amount, p_reservation, p_ref) AS x(dr, cr, amount, reservation, ref)
     WHERE x.amount <> 0;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF NOT v_held THEN
        PERFORM 1 FROM ng.account WHERE id = ANY (p_dr || p_cr) AND guarded ORDER BY id FOR NO KEY UPDATE;
    END IF;
    UPDATE ng.account a SET balance_micro = a.balance_micro + x.amount
      FROM (SELECT account, sum(amount) AS amount
              FROM (SELECT dr AS account, -amount FROM unnest(p_dr, p_amount) AS d(dr, amount)
                    UNION ALL
                    SELECT cr, amount FROM unnest(p_cr, p_amount) AS c(cr, amount)) y(account, amount)
             GROUP BY account) x
     WHERE a.id = x.account AND a.guarded AND x.amount <> 0;
    RETURN v_count;
END $$;
-- Both accounts of a transfer are there, in its currency (trigger of ng.transfer, once a
-- statement): each pair looked up once, however many transfers name it.
CREATE OR REPLACE FUNCTION ng.check_accounts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v_wrong record;
BEGIN
    SELECT x.account, x.currency INTO v_wrong
      FROM (SELECT dr AS account, currency FROM made UNION SELECT cr, currency FROM made) x
     WHERE NOT EXISTS (SELECT FROM account a WHERE a.id = x.account AND a.currency = x.currency) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'transfer %: there is no account % in %', (SELECT min(id) FROM made WHERE v_wrong.account IN (dr, cr)),
            v_wrong.account, v_wrong.currency USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END $$;
-- For callers that change other rows with the transfer: a ref that is taken is an error,
-- since the rows would say that money moved which did not.
CREATE OR REPLACE FUNCTION ng.must_post(p_at timestamptz, p_kind text, p_dr integer, p_cr integer, p_currency text,
    p_amount bigint, p_reservation uuid, p_ref text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT ng.post_at(p_at, p_kind, p_dr, p_cr, p_currency, p_amount, p_reservation, p_ref, NULL) AND p_amount <> 0 THEN
        PERFORM ng.refuse(6, format('transfer %s %s is in the ledger already', p_kind, p_ref));
    END IF;
END $$;

-- Where the tenant's last invoice ended; null before the first.
CREATE OR REPLACE FUNCTION ng.invoiced_until(p_tenant uuid, p_currency text) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT max(upper(period)) FROM ng.invoice WHERE tenant_id = p_tenant AND currency = p_currency
$$;

-- How long a booked path served its reservation, in lane-milliseconds: lanes x the part of
-- the reservation's time, up to where it ended, while the path was lit. Final when the
-- reservation is over.
CREATE OR REPLACE FUNCTION ng.path_use_ms(k ng.path_booking, r ng.reservation) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT (upper(k.lanes) - lower(k.lanes)) * greatest(0, (
               ng.us(least(r.ended_at, upper(r.during), upper(k.during), upper(k.lit)))
               - ng.us(greatest(lower(r.during), lower(k.during), lower(k.lit)))) / 1000)
     WHERE NOT isempty(k.during) AND k.lit IS NOT NULL AND NOT isempty(k.lit)
$$;

-- Paths of reservations that are over and not billed yet, with what billing needs. They
-- wait until nothing of the reservation runs, so that the use of GPUs, which was promised
-- out of the same hold, is rated as it comes.
CREATE OR REPLACE FUNCTION api.billing_path_claim(p_limit integer)
RETURNS TABLE (booking bigint, lane_ms bigint, per_lane_hour_micro bigint, fee_ppm integer)
LANGUAGE sql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT k.id, coalesce(path_use_ms(k, r), 0), k.per_lane_hour_micro, k.fee_ppm
      FROM path_booking k JOIN reservation r ON r.id = k.reservation_id
     WHERE k.billed_at IS NULL AND r.state IN ('ended', 'cancelled', 'failed')
     ORDER BY k.id LIMIT p_limit
$$;

-- Bills one of them, once: 'posted' or 'again'. To the path's operator, less the fee.
CREATE OR REPLACE FUNCTION api.billing_path_post(p_booking bigint, p_lane_ms bigint, p_amount_micro bigint, p_fee_micro bigint)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v path_booking;
    v_resv reservation;
    v_ms bigint;
    v_amount bigint;
    v_fee bigint;
    v_hold integer;
    v_at timestamptz;
    v_ref text;
BEGIN
    PERFORM billing_lock();
    SELECT r.* INTO v_resv FROM path_booking k JOIN reservation r ON r.id = k.reservation_id WHERE k.id = p_booking FOR UPDATE OF r;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('there is no booking %s of a path', p_booking));
    END IF;
    SELECT * INTO STRICT v FROM path_booking WHERE id = p_booking FOR UPDATE;
    IF v.billed_at IS NOT NULL THEN
        RETURN 'again';
    ELSIF v_resv.state NOT IN ('ended', 'cancelled', 'failed') THEN
        PERFORM refuse(6, format('reservation %s is not over', v_resv.id));
    END IF;
    v_ms := coalesce(path_use_ms(v, v_resv), 0);
    v_amount := money_mul(v_ms, v.per_lane_hour_micro, 3600000);
    IF (p_lane_ms, p_amount_micro, p_fee_micro) IS DISTINCT FROM (v_ms, v_amount, money_mul(v_amount, v.fee_ppm, 1000000)) THEN
        PERFORM refuse(6, format('path booking %s is worth %s: the amounts given differ, read it again', p_booking, v_amount));
    END IF;
    v_amount := least(v_amount, v_resv.held_micro - v_resv.captured_micro - v_resv.released_micro);
    v_fee := money_mul(v_amount, v.fee_ppm, 1000000);
    v_hold := account_of('hold', v_resv.tenant_id, NULL, v_resv.currency);
    v_at := greatest(clock_timestamp(), invoiced_until(v_resv.tenant_id, v_resv.currency));
    v_ref := v_resv.id || '/path/' || v.id;
    PERFORM agree_first(ARRAY[v_resv.id]);
    PERFORM must_post(v_at, 'capture', v_hold, account_of('provider_pending', NULL,
        (SELECT provider_id FROM path WHERE id = v.path_id), v_resv.currency), v_resv.currency, v_amount - v_fee, v_resv.id, v_ref);
    PERFORM must_post(v_at, 'fee', v_hold, account_of('fee', NULL, NULL, v_resv.currency), v_resv.currency, v_fee,
        v_resv.id, v_ref);
    INSERT INTO usage (at, used_at, quantity_ms, amount_micro, fee_micro, late_ms, reservation_id, tenant_id, provider_id, site_id,
        spot, currency, gpu_model)
    SELECT v_at, coalesce(lower(v_resv.during), v_at), v_ms, v_amount, v_fee, 0, v_resv.id, v_resv.tenant_id, p.provider_id, p.site_a,
           v_resv.spot, v_resv.currency, ''
      FROM path p WHERE p.id = v.path_id AND v_ms > 0;
    UPDATE path_booking SET captured_micro = v_amount, fee_micro = v_fee, served_ms = v_ms, billed_at = clock_timestamp() WHERE id = p_booking;
    UPDATE reservation SET captured_micro = captured_micro + v_amount WHERE id = v_resv.id;
    RETURN 'posted';
END $$;

-- Gives back what is left of holds: when every node's meter is closed or its booking never
-- began, and otherwise p_grace after the end. Receipts that wait to be rated come first.
-- Returns how many.
CREATE OR REPLACE FUNCTION api.billing_release(p_grace interval, p_limit integer)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v record;
    v_ids uuid[];
    v_count integer := 0;
BEGIN
    PERFORM billing_lock();
    SELECT coalesce(array_agg(x.id), '{}') INTO v_ids FROM (
        SELECT r.id
          FROM reservation r
         WHERE r.state IN ('ended', 'cancelled', 'failed')
           AND NOT r.rest_back
           AND NOT EXISTS (SELECT FROM receipt_due x WHERE x.reservation_id = r.id)
           AND NOT EXISTS (SELECT FROM path_booking k WHERE k.reservation_id = r.id AND k.billed_at IS NULL)
           AND (coalesce((SELECT bool_and(isempty(b.during) OR coalesce(m.closed, false))
                            FROM booking b LEFT JOIN meter m ON m.reservation_id = b.reservation_id AND m.node_id = b.node_id
                           WHERE b.reservation_id = r.id), true)
                OR coalesce(r.ended_at, upper(r.during)) + p_grace < clock_timestamp())
         ORDER BY r.id LIMIT p_limit
         FOR NO KEY UPDATE OF r SKIP LOCKED) x;
    FOR v IN
        SELECT x.currency, array_agg(x.hold) AS hold, array_agg(x.wallet) AS wallet, array_agg(x.rest) AS rest,
               array_agg(x.id) AS ids, array_agg(x.id || '/end') AS refs
          FROM (SELECT r.id, r.currency, r.held_micro - r.captured_micro - r.released_micro AS rest,
                       account_of('hold', r.tenant_id, NULL, r.currency) AS hold,
                       account_of('wallet', r.tenant_id, NULL, r.currency) AS wallet
                  FROM reservation r WHERE r.id = ANY (v_ids) ORDER BY r.id) x
         GROUP BY x.currency ORDER BY x.currency
    LOOP
        v_count := v_count + post_batch('release', v.currency, v.hold, v.wallet, v.rest, v.ids, v.refs);
    END LOOP;
    UPDATE reservation SET released_micro = held_micro - captured_micro WHERE id = ANY (v_ids);
    UPDATE reservation SET rest_back = true WHERE id = ANY (v_ids);
    RETURN v_count;
END $$;

-- What a tenant owes: what invoices and chargebacks left receivable.
CREATE OR REPLACE FUNCTION ng.owed(p_tenant uuid, p_currency text) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT (coalesce((SELECT sum(amount_micro) FROM ng.transfer WHERE dr = a.id), 0)
            - coalesce((SELECT sum(amount_micro) FROM ng.transfer WHERE cr = a.id), 0))::bigint
      FROM (SELECT (SELECT id FROM ng.account WHERE kind = 'receivable' AND tenant_id = p_tenant AND currency = p_currency) AS id) a
$$;
-- Takes what is owed from wallets that have something again: of one tenant, or of all. The
-- caller holds the billing lock.
CREATE OR REPLACE FUNCTION ng.collect(p_tenant uuid) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v record;
    v_count integer := 0;
BEGIN
    FOR v IN
        SELECT w.id AS wallet, r.id AS receivable, w.currency, w.balance_micro - w.floor_micro AS can, ng.owed(w.tenant_id, w.currency) AS due
          FROM ng.account w
          JOIN ng.account r ON r.kind = 'receivable' AND r.tenant_id = w.tenant_id AND r.currency = w.currency
         WHERE w.kind = 'wallet' AND w.balance_micro > w.floor_micro AND (p_tenant IS NULL OR w.tenant_id = p_tenant)
         ORDER BY w.id FOR NO KEY UPDATE OF w
    LOOP
        CONTINUE WHEN v.due <= 0;
        PERFORM ng.must_post(clock_timestamp(), 'collect', v.wallet, v.receivable, v.currency, least(v.due, v.can)::bigint, NULL, NULL);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;
CREATE OR REPLACE FUNCTION api.billing_collect()
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    PERFORM billing_lock();
    RETURN collect(NULL);
END $$;

-- GPU-milliseconds of a reservation that were charged before p_at, on these nodes (null: on
-- all): on each, what the last receipt captured by then says.
DROP FUNCTION IF EXISTS ng.charged_gpu_ms(uuid, timestamptz);
CREATE OR REPLACE FUNCTION ng.charged_gpu_ms(p_reservation uuid, p_at timestamptz, p_nodes integer[]) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(least(c.gpu_ms, w.max_gpu_ms)), 0)::bigint
      FROM (SELECT split_part(t.ref, '/', 2)::integer AS node, max(split_part(t.ref, '/', 3)::integer) AS seq
              FROM ng.transfer t
             WHERE t.reservation_id = p_reservation AND t.kind IN ('capture', 'fee') AND t.at < p_at
               AND split_part(t.ref, '/', 2) <> 'path'
             GROUP BY 1) x
      JOIN ng.receipt c ON c.reservation_id = p_reservation AND c.node_id = x.node AND c.seq = x.seq
      CROSS JOIN LATERAL ng.use_terms(p_reservation, x.node, c.received_at) w
     WHERE p_nodes IS NULL OR x.node = ANY (p_nodes)
$$;

-- Captured use of a tenant since its last invoice, up to p_until: one line a reservation and
-- class of tax. The period begins where the last one ended, or with the month of the first
-- capture, and spans no change of taxes. What was refunded before it is invoiced is a line of
-- its own, never more than the use beside it, and divided over the classes as that is.
DROP FUNCTION IF EXISTS api.billing_open_lines(text, timestamptz);
CREATE OR REPLACE FUNCTION api.billing_open_lines(p_tenant text, p_until timestamptz)
RETURNS TABLE (tenant_id uuid, currency text, period_from timestamptz, period_to timestamptz,
    reservation_id uuid, description text, quantity_gpu_ms bigint, amount_micro bigint, tax_class text, tax_ppm integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_tenant tenant;
    v_currency text := currency();
    v_hold integer;
    v_since timestamptz;
    v_first timestamptz;
BEGIN
    SELECT * INTO v_tenant FROM tenant WHERE name = p_tenant;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('no tenant is named %s', p_tenant));
    END IF;
    SELECT id INTO v_hold FROM account WHERE kind = 'hold' AND tenant_id = v_tenant.id AND currency = v_currency;
    v_since := coalesce(invoiced_until(v_tenant.id, v_currency), '-infinity');
    SELECT min(at) INTO v_first FROM transfer
     WHERE dr = v_hold AND kind IN ('capture', 'fee') AND at >= v_since AND at < p_until;
    IF tax_change_after(v_tenant.id, v_first) < p_until THEN
        PERFORM refuse(6, format('taxes of %s change at %s: an invoice up to then comes first', p_tenant,
            log_time(tax_change_after(v_tenant.id, v_first))));
    END IF;
    RETURN QUERY
    WITH used AS (
        SELECT t.reservation_id, split_part(t.ref, '/', 2) AS unit, sum(t.amount_micro) AS amount
          FROM transfer t
         WHERE t.dr = v_hold AND t.kind IN ('capture', 'fee') AND t.at >= v_since AND t.at < p_until
         GROUP BY 1, 2),
    classed AS (
        SELECT u.reservation_id, tax_class_of(v_tenant.id, CASE u.unit WHEN 'path' THEN 'path' ELSE 'gpu' END, n.gpu_model, v_first) AS class,
               sum(u.amount)::bigint AS amount, array_agg(n.id) FILTER (WHERE n.id IS NOT NULL) AS nodes, bool_or(u.unit = 'path') AS paths
          FROM used u LEFT JOIN node n ON n.id = CASE WHEN u.unit <> 'path' THEN u.unit::integer END
         GROUP BY 1, 2),
    whole AS (
        SELECT c.*, count(*) OVER (PARTITION BY c.reservation_id) = 1 AS alone,
               (sum(c.amount) OVER (PARTITION BY c.reservation_id ORDER BY c.class))::bigint AS upto,
               (sum(c.amount) OVER (PARTITION BY c.reservation_id))::bigint AS total
          FROM classed c),
    lines AS (
        SELECT w.*, w.amount AS line, false AS back FROM whole w
        UNION ALL
        SELECT w.*, money_mul(r.back, w.upto - w.amount, w.total) - money_mul(r.back, w.upto, w.total), true
          FROM whole w CROSS JOIN LATERAL (SELECT least(w.total, refund_open(w.reservation_id)) AS back) r
         WHERE r.back > 0 AND money_mul(r.back, w.upto, w.total) <> money_mul(r.back, w.upto - w.amount, w.total))
    SELECT v_tenant.id, v_currency, greatest(v_since, date_trunc('month', v_first, v_tenant.zone)), p_until,
           u.reservation_id,
           CASE WHEN u.back THEN format('refunded, reservation %s', u.reservation_id)
                WHEN u.nodes IS NULL AND NOT u.alone THEN format('path %s, reservation %s', l.paths, u.reservation_id)
                ELSE format('%s x %s, %s%s, reservation %s', n.count, n.model, n.site,
                    CASE WHEN u.alone OR u.paths THEN ', path ' || l.paths END, u.reservation_id) END,
           CASE WHEN u.back OR u.nodes IS NULL THEN 0
                ELSE charged_gpu_ms(u.reservation_id, p_until, u.nodes) - charged_gpu_ms(u.reservation_id, v_since, u.nodes) END,
           u.line, u.class, tax_rate_of(u.class, v_first)
      FROM lines u
      CROSS JOIN LATERAL (
          SELECT sum(upper(b.gpus) - lower(b.gpus)) AS count,
                 string_agg(DISTINCT nullif(nd.gpu_model, ''), ' + ') AS model, string_agg(DISTINCT s.name, ' + ') AS site
            FROM booking b JOIN node nd ON nd.id = b.node_id JOIN site s ON s.id = nd.site_id
           WHERE b.reservation_id = u.reservation_id AND (u.alone OR b.node_id = ANY (u.nodes))) n
      CROSS JOIN LATERAL (
          SELECT string_agg(DISTINCT p.name, ' + ') AS paths
            FROM path_booking k JOIN path p ON p.id = k.path_id
           WHERE k.reservation_id = u.reservation_id AND k.captured_micro > 0) l
     ORDER BY u.reservation_id, u.back, u.class;
END $$;

-- The next number of a year: the last plus one, under the billing lock, so that there are
-- no holes. Six digits, more when they are used up.
CREATE OR REPLACE FUNCTION ng.invoice_number(p_year text) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT 'INV-' || p_year || '-' || CASE WHEN n < 1000000 THEN lpad(n::text, 6, '0') ELSE n::text END
      FROM (SELECT 1 + coalesce(max(split_part(number, '-', 3)::bigint), 0) AS n
              FROM ng.invoice WHERE number LIKE 'INV-' || p_year || '-%') x
$$;

-- Takes an invoice's part from the wallet as far as it reaches; the rest is receivable.
CREATE OR REPLACE FUNCTION ng.invoice_charge(p_kind text, p_tenant uuid, p_cr integer, p_currency text,
    p_amount bigint, p_number text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_wallet integer := ng.account_of('wallet', p_tenant, NULL, p_currency);
    v_paid bigint;
BEGIN
    SELECT least(greatest(0, balance_micro - floor_micro), p_amount) INTO v_paid
      FROM ng.account WHERE id = v_wallet FOR NO KEY UPDATE;
    PERFORM ng.must_post(clock_timestamp(), p_kind, v_wallet, p_cr, p_currency, v_paid, NULL, p_number || '/wallet');
    PERFORM ng.must_post(clock_timestamp(), p_kind, ng.account_of('receivable', p_tenant, NULL, p_currency), p_cr,
        p_currency, p_amount - v_paid, NULL, p_number || '/receivable');
END $$;

-- What lines as of api.billing_open_lines make per class: the base, rounded once to the minor
-- unit, what the rounding moved, and the tax, rounded once.
CREATE OR REPLACE FUNCTION ng.invoice_taxes(p_lines jsonb, p_minor bigint)
RETURNS TABLE (class text, rate_ppm integer, base_micro bigint, residue_micro bigint, tax_micro bigint)
LANGUAGE sql STABLE AS $$
    SELECT x.class, x.ppm, b.base, b.base - x.sum, ng.money_mul(b.base, x.ppm, 1000000 * p_minor) * p_minor
      FROM (SELECT l->>'tax_class' AS class, max((l->>'tax_ppm')::integer) AS ppm, sum((l->>'amount_micro')::bigint)::bigint AS sum
              FROM jsonb_array_elements(p_lines) l GROUP BY 1) x
      CROSS JOIN LATERAL (SELECT ng.money_mul(x.sum, 1, p_minor) * p_minor AS base) b
$$;

-- Issues the invoice that billd computed from exactly these lines; null when there is
-- nothing to invoice. Under the lock the lines must still be what was captured, and the
-- taxes what the lines, the rates of their classes and the currency's minor unit give.
DROP FUNCTION IF EXISTS api.billing_invoice(text, timestamptz, jsonb, bigint, bigint, integer, bigint);
CREATE OR REPLACE FUNCTION api.billing_invoice(p_tenant text, p_until timestamptz, p_lines jsonb, p_taxes jsonb)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_tenant tenant;
    v_market market;
    v_from timestamptz;
    v_lines integer;
    v_open jsonb;
    v_taxes jsonb;
    v_net bigint;
    v_tax bigint;
    v_number text;
BEGIN
    PERFORM billing_lock();
    -- Captures made later must fall into the next period.
    IF p_until > clock_timestamp() THEN
        PERFORM refuse(20, format('an invoice cannot reach into the future: %s has not come yet', p_until));
    END IF;
    SELECT * INTO STRICT v_market FROM market;
    -- Read once: they are open no more when the invoice is there.
    SELECT min(l.period_from), count(*), jsonb_agg(to_jsonb(l) ORDER BY l.reservation_id, l.amount_micro DESC, l.tax_class)
      INTO v_from, v_lines, v_open FROM api.billing_open_lines(p_tenant, p_until) l;
    IF v_lines = 0 THEN
        RETURN NULL;
    END IF;
    SELECT * INTO STRICT v_tenant FROM tenant WHERE name = p_tenant;
    IF jsonb_array_length(p_lines) <> v_lines
        OR EXISTS (SELECT l->>'reservation_id', l->>'tax_class', (l->>'amount_micro')::bigint FROM jsonb_array_elements(v_open) l EXCEPT
                   SELECT l->>'reservation_id', l->>'tax_class', (l->>'amount_micro')::bigint FROM jsonb_array_elements(p_lines) l) THEN
        PERFORM refuse(6, 'the lines given are not what was captured: read them again');
    END IF;
    SELECT jsonb_agg(to_jsonb(t) ORDER BY t.class), sum(t.base_micro), sum(t.tax_micro) INTO v_taxes, v_net, v_tax
      FROM invoice_taxes(v_open, minor_micro(v_market.currency)) t;
    IF v_taxes IS DISTINCT FROM (SELECT jsonb_agg(t ORDER BY t->>'class') FROM jsonb_array_elements(p_taxes) t) THEN
        PERFORM refuse(6, format('taxes %s are not what the lines give', p_taxes));
    END IF;
    v_number := invoice_number(to_char(p_until AT TIME ZONE v_tenant.zone, 'YYYY'));
    INSERT INTO invoice (number, tenant_id, currency, period, net_micro, tax_micro, total_micro, document)
    VALUES (v_number, v_tenant.id, v_market.currency, tstzrange(v_from, p_until), v_net, v_tax, v_net + v_tax, jsonb_build_object(
            'issuer', v_market.issuer_name, 'registration', v_market.issuer_registration, 'address', v_market.issuer_address,
            'market', v_market.name, 'recipient', v_tenant.name, 'zone', v_tenant.zone, 'billing', v_tenant.billing));
    INSERT INTO invoice_line (number, line, description, reservation_id, quantity_gpu_ms, amount_micro, tax_class)
    SELECT v_number, n, l->>'description', (l->>'reservation_id')::uuid, (l->>'quantity_gpu_ms')::bigint,
           (l->>'amount_micro')::bigint, l->>'tax_class'
      FROM jsonb_array_elements(v_open) WITH ORDINALITY AS x(l, n);
    PERFORM invoice_tax_post(v_number, v_tenant.id, v_market.currency, v_lines, t)
       FROM jsonb_array_elements(v_taxes) WITH ORDINALITY AS x(t, n) ORDER BY n;
    RETURN v_number;
END $$;
-- One class of it: its row, its rounding as a line behind those of use, and their postings.
CREATE OR REPLACE FUNCTION ng.invoice_tax_post(p_number text, p_tenant uuid, p_currency text, p_lines integer, p_tax jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    t record;
    v_rounding integer := ng.account_of('rounding', NULL, NULL, p_currency);
BEGIN
    SELECT * INTO t FROM jsonb_to_record(p_tax) AS x(class text, rate_ppm integer, base_micro bigint, residue_micro bigint, tax_micro bigint);
    INSERT INTO ng.invoice_tax (number, class, rate_ppm, base_micro, tax_micro)
    VALUES (p_number, t.class, t.rate_ppm, t.base_micro, t.tax_micro);
    PERFORM ng.invoice_charge('tax', p_tenant, ng.account_of('tax_output', NULL, NULL, p_currency), p_currency, t.tax_micro,
        p_number || '/' || t.class);
    IF t.residue_micro <> 0 THEN
        INSERT INTO ng.invoice_line (number, line, description, quantity_gpu_ms, amount_micro, tax_class)
        SELECT p_number, greatest(p_lines, max(line)) + 1, 'rounding to the minor unit', 0, t.residue_micro, t.class
          FROM ng.invoice_line WHERE number = p_number;
    END IF;
    IF t.residue_micro > 0 THEN
        PERFORM ng.invoice_charge('rounding', p_tenant, v_rounding, p_currency, t.residue_micro, p_number || '/' || t.class);
    ELSE
        PERFORM ng.must_post(clock_timestamp(), 'rounding', v_rounding, ng.account_of('wallet', p_tenant, NULL, p_currency),
            p_currency, -t.residue_micro, NULL, p_number || '/' || t.class || '/wallet');
    END IF;
END $$;

-- Whole months (in the tenant's zone) with use that is not invoiced, the oldest first; a month
-- in which taxes changed in parts.
CREATE OR REPLACE FUNCTION api.billing_due(p_now timestamptz)
RETURNS TABLE (tenant text, until timestamptz)
LANGUAGE sql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT t.name, m.until
      FROM tenant t
      JOIN account h ON h.tenant_id = t.id AND h.kind = 'hold' AND h.currency = currency()
      CROSS JOIN LATERAL (
          SELECT DISTINCT least((date_trunc('month', x.at AT TIME ZONE t.zone) + interval '1 month') AT TIME ZONE t.zone,
                                tax_change_after(t.id, x.at)) AS until
            FROM transfer x
           WHERE x.dr = h.id AND x.kind IN ('capture', 'fee')
             AND x.at >= coalesce(invoiced_until(t.id, h.currency), '-infinity')
             AND x.at < date_trunc('month', p_now, t.zone)) m
     ORDER BY m.until, t.name
$$;

DROP FUNCTION IF EXISTS api.billing_market();

-- Of an exchange, the transfer that came to the wallet; of all others, themselves.
CREATE OR REPLACE FUNCTION ng.fx_received(p_transfer bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT received FROM ng.fx WHERE paid = p_transfer), p_transfer)
$$;
-- Undoes a top-up entered by mistake, once; both transfers of one in another currency.
-- Other transfers follow from reservations and invoices, and are not undone alone.
CREATE OR REPLACE FUNCTION api.billing_reverse(p_transfer bigint)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v transfer;
    v_paid transfer; -- in another currency
BEGIN
    PERFORM billing_lock();
    SELECT * INTO v FROM transfer WHERE id = fx_received(p_transfer);
    SELECT t.* INTO v_paid FROM fx JOIN transfer t ON t.id = fx.paid WHERE fx.received = v.id;
    IF v.id IS NULL THEN
        PERFORM refuse(5, format('there is no transfer %s', p_transfer));
    ELSIF v.kind <> 'topup' AND v_paid.id IS NULL THEN
        PERFORM refuse(6, format('transfer %s is a %s: only a top-up can be reversed', p_transfer, v.kind));
    ELSIF EXISTS (SELECT FROM transfer WHERE reverses = v.id) THEN
        PERFORM refuse(6, format('transfer %s was reversed before', p_transfer));
    ELSIF EXISTS (SELECT FROM chargeback WHERE transfer_id = v.id) THEN
        PERFORM refuse(6, format('transfer %s was taken back by the bank', p_transfer));
    END IF;
    BEGIN
        PERFORM post('reversal', v.cr, v.dr, v.currency, v.amount_micro, NULL, v.id::text, v.id);
        IF v_paid.id IS NOT NULL THEN
            PERFORM post('reversal', v_paid.cr, v_paid.dr, v_paid.currency, v_paid.amount_micro, NULL, v_paid.id::text, v_paid.id);
        END IF;
    EXCEPTION WHEN check_violation THEN
        PERFORM refuse(7, format('the wallet no longer has what transfer %s put into it', p_transfer));
    END;
    RETURN (SELECT id FROM transfer WHERE reverses = v.id);
END $$;

-- What must be empty. Each view lists breaches; api.check_all() counts them.
CREATE OR REPLACE VIEW report.check_balance AS
    SELECT a.id AS account, a.kind, a.balance_micro,
           coalesce(c.sum, 0) - coalesce(d.sum, 0) AS transfers_micro
      FROM ng.account a
      LEFT JOIN (SELECT cr, sum(amount_micro) FROM ng.transfer GROUP BY cr) c ON c.cr = a.id
      LEFT JOIN (SELECT dr, sum(amount_micro) FROM ng.transfer GROUP BY dr) d ON d.dr = a.id
     WHERE a.guarded AND a.balance_micro <> coalesce(c.sum, 0) - coalesce(d.sum, 0);
CREATE OR REPLACE VIEW report.check_hold AS
    SELECT coalesce(a.tenant_id, r.tenant_id) AS tenant_id, coalesce(a.currency, r.currency) AS currency,
           coalesce(a.balance_micro, 0) AS balance_micro, coalesce(r.open, 0) AS reservations_micro
      FROM (SELECT * FROM ng.account WHERE kind = 'hold') a
      FULL JOIN (SELECT tenant_id, currency, sum(held_micro - captured_micro - released_micro) AS open
                   FROM ng.reservation GROUP BY tenant_id, currency) r
        ON r.tenant_id = a.tenant_id AND r.currency = a.currency
     WHERE coalesce(a.balance_micro, 0) <> coalesce(r.open, 0);
DROP VIEW IF EXISTS report.check_captured;
CREATE VIEW report.check_captured AS
    SELECT r.id AS reservation, r.captured_micro, coalesce(t.sum, 0) AS transfers_micro, coalesce(m.sum, 0) AS meters_micro,
           coalesce(k.sum, 0) AS paths_micro
      FROM ng.reservation r
      LEFT JOIN (SELECT reservation_id, sum(amount_micro) FROM ng.transfer WHERE kind IN ('capture', 'fee')
                  GROUP BY reservation_id) t ON t.reservation_id = r.id
      LEFT JOIN (SELECT reservation_id, sum(amount_micro) FROM ng.meter GROUP BY reservation_id) m ON m.reservation_id = r.id
      LEFT JOIN (SELECT reservation_id, sum(captured_micro) FROM ng.path_booking GROUP BY reservation_id) k ON k.reservation_id = r.id
     WHERE r.captured_micro <> coalesce(t.sum, 0) OR r.captured_micro <> coalesce(m.sum, 0) + coalesce(k.sum, 0);
-- Each booked path of a reservation that is over is billed once, for no more than it served.
CREATE OR REPLACE VIEW report.check_path AS
    SELECT k.id AS booking, k.reservation_id AS reservation, k.captured_micro, k.fee_micro, t.captures,
           t.sum AS transfers_micro, w.micro AS worth_micro
      FROM ng.path_booking k JOIN ng.reservation r ON r.id = k.reservation_id
      CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE x.kind = 'capture') AS captures, coalesce(sum(x.amount_micro), 0) AS sum
                            FROM ng.transfer x WHERE x.reservation_id = r.id AND x.ref = r.id || '/path/' || k.id) t
      CROSS JOIN LATERAL (
          SELECT ng.money_mul((upper(k.lanes) - lower(k.lanes)) * coalesce(trunc(1000 * greatest(0,
                     extract(epoch FROM least(r.ended_at, upper(r.during), upper(k.during), upper(k.lit)))
                     - extract(epoch FROM greatest(lower(r.during), lower(k.during), lower(k.lit))))), 0)::bigint
                     * (k.lit IS NOT NULL AND NOT isempty(k.during))::integer, k.per_lane_hour_micro, 3600000) AS micro) w
     WHERE k.captured_micro <> t.sum OR t.captures > 1
        OR k.billed_at IS NOT NULL AND (
            k.captured_micro > w.micro
            OR k.fee_micro <> ng.money_mul(k.captured_micro, k.fee_ppm, 1000000)
            OR r.state NOT IN ('ended', 'cancelled', 'failed'))
        OR k.billed_at IS NULL AND r.state IN ('ended', 'cancelled', 'failed')
           AND coalesce(r.ended_at, upper(r.during)) < now() - interval '10 minutes';
CREATE OR REPLACE VIEW report.check_double_path AS
    SELECT a.id AS booking, b.id AS other FROM ng.path_booking a
      JOIN ng.path_booking b ON a.id < b.id AND a.lanes && b.lanes AND a.during && b.during;
-- A gang has all of its nodes or none; what waits has none and no money.
CREATE OR REPLACE VIEW report.check_whole AS
    SELECT r.id AS reservation, r.state, count(b.id) AS bookings, r.held_micro - r.captured_micro - r.released_micro AS held_micro
      FROM ng.reservation r LEFT JOIN ng.booking b ON b.reservation_id = r.id
     GROUP BY r.id
    HAVING (r.state = 'waiting') <> (EXISTS (SELECT FROM ng.waiting w WHERE w.reservation_id = r.id))
        OR r.state = 'waiting' AND (count(b.id) > 0 OR r.held_micro <> r.captured_micro + r.released_micro)
        OR r.state IN ('held', 'confirmed') AND (count(b.id) = 0 OR bool_or(isempty(b.during)))
        OR r.state = 'held' AND r.held_micro <> 0;
-- Never more than use times price, of the time that is promised (a minute is allowed: the end
-- may have been moved to before what a clock that is ahead told); less only when the hold
-- ended it, so that a node that tells more than time has passed shows.
CREATE OR REPLACE VIEW report.check_amount AS
    SELECT m.reservation_id AS reservation, m.node_id AS node, m.gpu_ms, m.amount_micro, e.expected_micro, m.fee_micro
      FROM ng.meter m JOIN ng.reservation v ON v.id = m.reservation_id
      CROSS JOIN LATERAL (
          SELECT sum(upper(b.gpus) - lower(b.gpus)) * 1000 AS gpus_ms, extract(epoch FROM upper(v.during) - lower(v.during)) AS s,
                 max(b.per_gpu_hour_micro) AS price, coalesce(max(b.fee_ppm), v.fee_ppm) AS fee_ppm
            FROM ng.booking b WHERE b.reservation_id = m.reservation_id AND b.node_id = m.node_id) w
      CROSS JOIN LATERAL (
          SELECT coalesce(ng.money_mul(least(m.gpu_ms, (w.gpus_ms * w.s)::bigint), w.price, 3600000), 0) AS expected_micro,
                 coalesce(ng.money_mul(least(m.gpu_ms, (w.gpus_ms * (w.s + 60))::bigint), w.price, 3600000), 0) AS most_micro) e
     WHERE m.amount_micro > e.most_micro
        OR (m.amount_micro < e.expected_micro AND v.held_micro > v.captured_micro + v.released_micro)
        OR m.fee_micro <> ng.money_mul(m.amount_micro, w.fee_ppm, 1000000);
CREATE OR REPLACE VIEW report.check_double_booking AS
    SELECT a.id AS booking, b.id AS other FROM ng.booking a
      JOIN ng.booking b ON a.id < b.id AND a.gpus && b.gpus AND a.during && b.during;
DROP VIEW IF EXISTS report.check_invoice;
CREATE VIEW report.check_invoice AS
    SELECT i.number, i.net_micro, l.sum AS lines_micro, i.tax_micro, t.tax AS expected_tax_micro
      FROM ng.invoice i
      LEFT JOIN (SELECT currency, (10 ^ (6 - exponent))::bigint AS minor_micro FROM ng.currency_exponent) u
        ON u.currency = i.currency
      LEFT JOIN (SELECT number, sum(amount_micro) FROM ng.invoice_line GROUP BY number) l ON l.number = i.number
      CROSS JOIN LATERAL (
          SELECT sum(x.base_micro) AS base, sum(ng.money_mul(x.base_micro, x.rate_ppm, 1000000 * u.minor_micro) * u.minor_micro) AS tax,
                 bool_or(x.tax_micro IS DISTINCT FROM ng.money_mul(x.base_micro, x.rate_ppm, 1000000 * u.minor_micro) * u.minor_micro
                         OR x.base_micro % u.minor_micro IS DISTINCT FROM 0
                         OR x.base_micro IS DISTINCT FROM (SELECT sum(y.amount_micro) FROM ng.invoice_line y
                                                            WHERE y.number = x.number AND y.tax_class = x.class)) AS wrong
            FROM ng.invoice_tax x WHERE x.number = i.number) t
     WHERE i.net_micro IS DISTINCT FROM l.sum OR i.net_micro IS DISTINCT FROM t.base OR i.total_micro <> i.net_micro + i.tax_micro
        OR i.tax_micro IS DISTINCT FROM t.tax OR t.wrong;
-- What documents say of tax is what was posted, class by class (of invoices of before classes: in all).
CREATE OR REPLACE VIEW report.check_tax AS
    SELECT coalesce(d.number, t.number) AS number, coalesce(d.class, t.class) AS class, d.tax_micro, t.posted_micro
      FROM (SELECT number, class::text, tax_micro FROM ng.invoice_tax WHERE tax_micro <> 0
            UNION ALL
            SELECT number, class, tax_micro FROM ng.credit_note_tax WHERE tax_micro <> 0) d
      FULL JOIN (
          SELECT split_part(ref, '/', 1) AS number, CASE WHEN split_part(ref, '/', 2) IN ('wallet', 'receivable', '') THEN 'standard'
                     ELSE split_part(ref, '/', 2) END AS class, sum(amount_micro) AS posted_micro
            FROM ng.transfer WHERE kind IN ('tax', 'refund_tax') GROUP BY 1, 2) t ON t.number = d.number AND t.class = d.class
     WHERE d.tax_micro IS DISTINCT FROM t.posted_micro;
-- What was captured before the end of the last invoice stands on the invoices, all of it.
CREATE OR REPLACE VIEW report.check_invoiced AS
    SELECT i.tenant_id, i.currency, i.until, coalesce(c.sum, 0) AS captured_micro, coalesce(l.sum, 0) AS lines_micro
      FROM (SELECT tenant_id, currency, max(upper(period)) AS until FROM ng.invoice GROUP BY tenant_id, currency) i
      CROSS JOIN LATERAL (
          SELECT sum(t.amount_micro) FROM ng.transfer t JOIN ng.account h ON h.id = t.dr
           WHERE h.kind = 'hold' AND h.tenant_id = i.tenant_id AND h.currency = i.currency
             AND t.kind IN ('capture', 'fee') AND t.at < i.until) c
      CROSS JOIN LATERAL (
          SELECT sum(x.amount_micro) FROM ng.invoice_line x JOIN ng.invoice y ON y.number = x.number
           WHERE y.tenant_id = i.tenant_id AND y.currency = i.currency AND x.reservation_id IS NOT NULL
             AND x.amount_micro > 0) l
     WHERE coalesce(c.sum, 0) <> coalesce(l.sum, 0);
-- Numbers of a year run from 1 without holes.
CREATE OR REPLACE VIEW report.check_invoice_numbers AS
    SELECT split_part(number, '-', 2) AS year, count(*) AS invoices, max(split_part(number, '-', 3)::bigint) AS last
      FROM ng.invoice GROUP BY 1
    HAVING count(*) <> max(split_part(number, '-', 3)::bigint);
CREATE OR REPLACE VIEW report.check_unbilled AS
    -- By the receipts and meters of what is not billed to its end, and of what is said to wait.
    SELECT x.reservation_id AS reservation, x.node_id AS node, r.seq, r.received_at
      FROM (SELECT b.reservation_id, b.node_id FROM ng.reservation v JOIN ng.booking b ON b.reservation_id = v.id
             WHERE v.state = 'active' OR v.state IN ('ended', 'cancelled', 'failed') AND NOT v.rest_back
            UNION
            SELECT reservation_id, node_id FROM ng.receipt_due) x
      LEFT JOIN ng.meter m ON m.reservation_id = x.reservation_id AND m.node_id = x.node_id
      JOIN ng.receipt r ON r.reservation_id = x.reservation_id AND r.node_id = x.node_id AND r.seq > coalesce(m.seq, 0)
     WHERE r.received_at < now() - interval '60 s';
CREATE OR REPLACE VIEW report.check_receipt_fork AS
    SELECT reservation_id AS reservation, node_id AS node, seq, at FROM ng.receipt_fork;

-- How many rows each check view has: every view of schema report that is named check_….
CREATE OR REPLACE FUNCTION api.check_all()
RETURNS TABLE (name text, breaches bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = report, ng, pg_temp AS $$
BEGIN
    FOR name IN SELECT c.relname FROM pg_class c
                 WHERE c.relnamespace = 'report'::regnamespace AND c.relkind = 'v' AND c.relname LIKE 'check\_%' ORDER BY 1
    LOOP
        EXECUTE format('SELECT count(*) FROM report.%I', name) INTO breaches;
        RETURN NEXT;
    END LOOP;
END $$;

-- The ledger as it stands, a page at a time by number, for export. Accounts by the names of
-- their owners.
CREATE OR REPLACE FUNCTION ng.account_name(p_id integer) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN a.tenant_id IS NOT NULL THEN 'tenant:' || t.name || ':' || a.kind
                WHEN a.provider_id IS NOT NULL THEN 'provider:' || p.name || ':' || substr(a.kind, 10)
                ELSE 'market:' || a.kind END
      FROM ng.account a LEFT JOIN ng.tenant t ON t.id = a.tenant_id LEFT JOIN ng.provider p ON p.id = a.provider_id
     WHERE a.id = p_id
$$;
CREATE OR REPLACE FUNCTION api.billing_ledger(p_from timestamptz, p_to timestamptz, p_after bigint, p_limit integer)
RETURNS TABLE (id bigint, at_us bigint, kind text, dr text, cr text, currency text, amount_micro bigint, reservation uuid, ref text, reverses bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT t.id, us(t.at), t.kind, account_name(t.dr), account_name(t.cr), t.currency, t.amount_micro, t.reservation_id, t.ref, t.reverses
      FROM transfer t
     WHERE t.id > p_after AND (p_from IS NULL OR t.at >= p_from) AND (p_to IS NULL OR t.at < p_to)
     ORDER BY t.id LIMIT p_limit
$$;
CREATE OR REPLACE FUNCTION api.billing_accounts() RETURNS TABLE (name text, currency text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT account_name(a.id), a.currency FROM account a ORDER BY a.currency, 1
$$;
