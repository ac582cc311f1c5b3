-- Refunds with credit notes, top-ups that the bank took back, money that tenants take out.

CREATE OR REPLACE FUNCTION ng.credit_note_number(p_year text) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT 'CN-' || p_year || '-' || CASE WHEN n < 1000000 THEN lpad(n::text, 6, '0') ELSE n::text END
      FROM (SELECT 1 + coalesce(max(split_part(number, '-', 3)::bigint), 0) AS n
              FROM ng.credit_note WHERE number LIKE 'CN-' || p_year || '-%') x
$$;

-- What is refunded of a reservation and stands on no invoice yet: it lessens the next.
CREATE OR REPLACE FUNCTION ng.refund_open(p_reservation uuid) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT (coalesce((SELECT sum(net_micro) FROM ng.credit_note WHERE reservation_id = p_reservation AND invoice IS NULL), 0)
            + coalesce((SELECT sum(amount_micro) FROM ng.invoice_line WHERE reservation_id = p_reservation AND amount_micro < 0), 0))::bigint
$$;

-- What providers got, and the market's fee in it, of a reservation; less what went back.
CREATE OR REPLACE FUNCTION ng.refund_rest(p_reservation uuid)
RETURNS TABLE (provider_id uuid, gross_micro bigint, fee_micro bigint)
LANGUAGE sql STABLE AS $$
    SELECT x.provider_id, (sum(x.amount) - coalesce(max(s.gross_micro), 0))::bigint, (sum(x.fee) - coalesce(max(s.fee_micro), 0))::bigint
      FROM (SELECT n.provider_id, m.amount_micro AS amount, m.fee_micro AS fee
              FROM ng.meter m JOIN ng.node n ON n.id = m.node_id WHERE m.reservation_id = p_reservation
            UNION ALL
            SELECT p.provider_id, k.captured_micro, k.fee_micro
              FROM ng.path_booking k JOIN ng.path p ON p.id = k.path_id WHERE k.reservation_id = p_reservation) x
      LEFT JOIN ng.refund_share s ON s.reservation_id = p_reservation AND s.provider_id = x.provider_id
     GROUP BY x.provider_id
$$;

-- The transfers of one credit note: each provider's part of it, and in that the fee's, in
-- proportion to what is left of them. What a provider does not have, the market bears.
CREATE OR REPLACE FUNCTION ng.refund_post(c ng.credit_note) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v record;
    v_wallet integer := ng.account_of('wallet', c.tenant_id, NULL, c.currency);
    v_fee bigint;
    v_rest bigint;
BEGIN
    FOR v IN
        SELECT y.provider_id, y.gross_micro, y.fee_micro, ng.money_mul(c.net_micro, y.upto, y.total) - ng.money_mul(c.net_micro, y.upto - y.gross_micro, y.total) AS part
          FROM (SELECT x.*, (sum(gross_micro) OVER (ORDER BY provider_id))::bigint AS upto, (sum(gross_micro) OVER ())::bigint AS total
                  FROM ng.refund_rest(c.reservation_id) x WHERE x.gross_micro > 0) y
         ORDER BY y.provider_id
    LOOP
        v_fee := ng.money_mul(v.part, v.fee_micro, v.gross_micro);
        v_rest := v.part - v_fee;
        PERFORM ng.must_post(clock_timestamp(), 'refund_fee', ng.account_of('fee', NULL, NULL, c.currency), v_wallet, c.currency, v_fee,
            c.reservation_id, c.number || '/' || v.provider_id);
        IF c.borne_by = 'provider' THEN
            v_rest := ng.provider_take('refund', v.provider_id, c.currency, c.reservation_id, v_rest, v_wallet, c.number || '/' || v.provider_id);
        END IF;
        PERFORM ng.must_post(clock_timestamp(), 'refund', ng.account_of('sla_expense', NULL, NULL, c.currency), v_wallet, c.currency, v_rest,
            c.reservation_id, c.number || '/' || v.provider_id || '/market');
        INSERT INTO ng.refund_share (reservation_id, provider_id, gross_micro, fee_micro) VALUES (c.reservation_id, v.provider_id, v.part, v_fee)
        ON CONFLICT (reservation_id, provider_id) DO UPDATE SET gross_micro = refund_share.gross_micro + excluded.gross_micro,
            fee_micro = refund_share.fee_micro + excluded.fee_micro;
    END LOOP;
    FOR v IN SELECT class, tax_micro FROM ng.credit_note_tax WHERE number = c.number ORDER BY class LOOP
        PERFORM ng.must_post(clock_timestamp(), 'refund_tax', ng.account_of('tax_output', NULL, NULL, c.currency), v_wallet, c.currency, v.tax_micro,
            c.reservation_id, c.number || '/' || v.class);
    END LOOP;
END $$;

-- What of p_net of a reservation, given back against an invoice, is of which class: in
-- proportion to what is left of it there. Tax of several notes to one invoice is that of
-- their sum, and with the last of a class's lines the rest of its tax goes back.
CREATE OR REPLACE FUNCTION ng.refund_taxes(p_reservation uuid, p_invoice text, p_net bigint)
RETURNS TABLE (class text, rate_ppm integer, base_micro bigint, tax_micro bigint)
LANGUAGE sql STABLE AS $$
    WITH given AS (
        SELECT c.reservation_id, t.class, t.base_micro, t.tax_micro
          FROM ng.credit_note c JOIN ng.credit_note_tax t ON t.number = c.number WHERE c.invoice = p_invoice),
    rest AS (
        SELECT l.tax_class AS class, (sum(l.amount_micro) - coalesce((SELECT sum(g.base_micro) FROM given g
                   WHERE g.reservation_id = p_reservation AND g.class = l.tax_class), 0))::bigint AS rest
          FROM ng.invoice_line l WHERE l.number = p_invoice AND l.reservation_id = p_reservation GROUP BY 1),
    part AS (
        SELECT x.class, (ng.money_mul(p_net, x.upto, x.total) - ng.money_mul(p_net, x.upto - x.rest, x.total)) AS base
          FROM (SELECT r.*, (sum(rest) OVER (ORDER BY class))::bigint AS upto, (sum(rest) OVER ())::bigint AS total
                  FROM rest r WHERE rest > 0) x)
    SELECT p.class, i.rate_ppm, p.base, greatest(0, least(i.tax_micro - b.tax, CASE
               WHEN b.net + p.base = (SELECT sum(l.amount_micro) FROM ng.invoice_line l
                                       WHERE l.number = p_invoice AND l.reservation_id IS NOT NULL AND l.tax_class = p.class)
               THEN i.tax_micro - b.tax
               ELSE ng.money_mul((b.net + p.base)::bigint, i.rate_ppm, 1000000 * m.minor) * m.minor - b.tax END))::bigint
      FROM part p JOIN ng.invoice_tax i ON i.number = p_invoice AND i.class = p.class
      CROSS JOIN (SELECT ng.minor_micro(currency) AS minor FROM ng.invoice WHERE number = p_invoice) m
      CROSS JOIN LATERAL (SELECT coalesce(sum(g.base_micro), 0) AS net, coalesce(sum(g.tax_micro), 0) AS tax
                            FROM given g WHERE g.class = p.class) b
     WHERE p.base > 0
$$;

-- One credit note, against an invoice (the tax in its rates goes back as well) or, without
-- one, against what will be invoiced.
CREATE OR REPLACE FUNCTION ng.refund_note(r ng.reservation, p_invoice text, p_net bigint, p_by text, p_reason text, p_principal text)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_taxes jsonb := (SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]') FROM ng.refund_taxes(r.id, p_invoice, p_net) t);
    v_tax bigint := (SELECT coalesce(sum((t->>'tax_micro')::bigint), 0) FROM jsonb_array_elements(v_taxes) t);
    v_tenant ng.tenant;
    c ng.credit_note;
BEGIN
    SELECT * INTO STRICT v_tenant FROM ng.tenant WHERE id = r.tenant_id;
    INSERT INTO ng.credit_note (number, tenant_id, currency, reservation_id, invoice, borne_by, reason, issued_by, net_micro, tax_ppm, tax_micro,
        total_micro, document)
    SELECT ng.credit_note_number(to_char(clock_timestamp() AT TIME ZONE v_tenant.zone, 'YYYY')), r.tenant_id, r.currency, r.id, p_invoice, p_by, p_reason,
           p_principal, p_net, CASE WHEN p_invoice IS NULL THEN 0 END, v_tax, p_net + v_tax, jsonb_build_object('issuer', m.issuer_name,
               'registration', m.issuer_registration, 'address', m.issuer_address, 'market', m.name, 'recipient', v_tenant.name,
               'zone', v_tenant.zone, 'billing', v_tenant.billing)
      FROM ng.market m
    RETURNING * INTO c;
    INSERT INTO ng.credit_note_tax (number, class, rate_ppm, base_micro, tax_micro)
    SELECT c.number, t.class, t.rate_ppm, t.base_micro, t.tax_micro
      FROM jsonb_to_recordset(v_taxes) AS t(class text, rate_ppm integer, base_micro bigint, tax_micro bigint);
    INSERT INTO ng.credit_note_line (number, line, description, reservation_id, amount_micro)
    VALUES (c.number, 1, format('reservation %s: %s', r.id, p_reason), r.id, p_net);
    UPDATE ng.reservation SET refunded_micro = refunded_micro + p_net WHERE id = r.id;
    PERFORM ng.refund_post(c);
    RETURN c.number;
END $$;

-- Gives back net use of a reservation (null: all that is left), with the tax that was
-- invoiced on it: first of what is not invoiced yet, then of its invoices, the newest first.
CREATE OR REPLACE FUNCTION api.refund(p_reservation uuid, p_amount bigint, p_reason text, p_by text, p_principal text, p_idem text, p_hash bytea,
    p_who text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v reservation;
    v_left bigint;
    v_part record;
    v_notes text[] := '{}';
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    PERFORM billing_lock();
    SELECT * INTO v FROM reservation WHERE id = p_reservation FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('there is no reservation %s', p_reservation));
    END IF;
    v_left := coalesce(p_amount, v.captured_micro - v.refunded_micro - v.credited_micro);
    IF v_left <= 0 THEN
        PERFORM refuse(6, format('nothing is left to refund of reservation %s', p_reservation));
    ELSIF v_left > v.captured_micro - v.refunded_micro - v.credited_micro THEN
        PERFORM refuse(6, format('%s was captured and %s given back of reservation %s: less is left', money_text(v.captured_micro, v.currency),
            money_text(v.refunded_micro + v.credited_micro, v.currency), p_reservation));
    END IF;
    FOR v_part IN
        WITH i AS (
            SELECT i.number, upper(i.period) AS until, sum(l.amount_micro) - coalesce((SELECT sum(c.net_micro) FROM credit_note c
                       WHERE c.invoice = i.number AND c.reservation_id = v.id), 0) AS rest
              FROM invoice_line l JOIN invoice i ON i.number = l.number WHERE l.reservation_id = v.id GROUP BY i.number)
        SELECT NULL AS invoice, (v.captured_micro - v.refunded_micro - coalesce((SELECT sum(rest) FROM i), 0))::bigint AS rest,
               timestamptz 'infinity' AS until
        UNION ALL SELECT number, rest::bigint, until FROM i
        ORDER BY until DESC
    LOOP
        CONTINUE WHEN v_part.rest <= 0 OR v_left = 0;
        v_notes := v_notes || refund_note(v, v_part.invoice, least(v_left, v_part.rest), p_by, p_reason, p_who);
        v_left := v_left - least(v_left, v_part.rest);
    END LOOP;
    IF v_left <> 0 THEN
        PERFORM refuse(6, format('the invoices of reservation %s have less left to refund', p_reservation));
    END IF;
    PERFORM tell('wallet.changed', v.tenant_id, NULL, NULL);
    RETURN idem_new(p_principal, p_idem, p_hash, (
        SELECT jsonb_build_object('credit_notes', jsonb_agg(credit_note_json(c) ORDER BY c.number)) FROM credit_note c WHERE c.number = ANY (v_notes)));
END $$;

CREATE OR REPLACE FUNCTION ng.credit_note_json(c ng.credit_note) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('number', c.number, 'tenant', (SELECT name FROM ng.tenant WHERE id = c.tenant_id), 'currency', c.currency,
        'reservation', c.reservation_id, 'invoice', c.invoice, 'issued_us', ng.us(c.issued_at), 'borne_by', c.borne_by, 'reason', c.reason,
        'net_micro', c.net_micro, 'tax_ppm', CASE WHEN c.invoice IS NULL THEN c.tax_ppm
            ELSE (SELECT min(rate_ppm) FROM ng.credit_note_tax WHERE number = c.number HAVING count(*) = 1) END,
        'tax_micro', c.tax_micro, 'total_micro', c.total_micro, 'taxes', ng.credit_note_taxes_json(c.number))
$$;
CREATE OR REPLACE FUNCTION api.credit_note_list(p_tenant uuid, p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT page('credit_notes', (SELECT jsonb_agg(credit_note_json(c) || jsonb_build_object('_key', c.number) ORDER BY c.number DESC)
        FROM (SELECT * FROM credit_note
               WHERE (p_tenant IS NULL OR tenant_id = p_tenant) AND (p_cursor IS NULL OR number < p_cursor)
               ORDER BY number DESC LIMIT p_limit + 1) c), p_limit)
$$;
CREATE OR REPLACE FUNCTION api.credit_note_get(p_tenant uuid, p_number text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v credit_note;
BEGIN
    SELECT * INTO v FROM credit_note WHERE number = p_number AND (p_tenant IS NULL OR tenant_id = p_tenant);
    IF NOT FOUND THEN
        PERFORM refuse(5, format('there is no credit note %s', left(p_number, 40)));
    END IF;
    RETURN credit_note_json(v) || jsonb_build_object('document', v.document, 'of', (
        SELECT jsonb_build_object('issued_us', us(i.issued_at), 'from_us', us(lower(i.period)), 'to_us', us(upper(i.period)))
          FROM invoice i WHERE i.number = v.invoice), 'lines', (
        SELECT coalesce(jsonb_agg(jsonb_build_object('line', l.line, 'description', l.description, 'reservation', l.reservation_id,
                   'amount_micro', l.amount_micro) ORDER BY l.line), '[]')
          FROM credit_note_line l WHERE l.number = v.number));
END $$;

-- Of a top-up (of one in another currency: of what the wallet received), all of it, and not
-- one that was reversed.
CREATE OR REPLACE FUNCTION ng.check_chargeback() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM transfer t WHERE t.id = NEW.transfer_id AND t.amount_micro = NEW.wallet_micro + NEW.receivable_micro
                      AND (t.kind = 'topup' OR EXISTS (SELECT FROM fx WHERE received = t.id)))
        OR EXISTS (SELECT FROM transfer WHERE reverses = NEW.transfer_id) THEN
        RAISE EXCEPTION 'transfer % is not a top-up of that amount, or was reversed', NEW.transfer_id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
-- The bank took a top-up back: out of the wallet as far as it reaches, the rest is owed. The
-- wallet is at its floor then, and what comes in pays the debt first: nothing new can be
-- reserved, what is held stays. One in another currency goes back at the rate it came in at:
-- either of its transfers names it.
DROP FUNCTION IF EXISTS api.billing_chargeback(bigint, text);
CREATE FUNCTION api.billing_chargeback(p_transfer bigint, p_reason text)
RETURNS TABLE (wallet_micro bigint, receivable_micro bigint, currency text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v transfer;
    v_paid transfer; -- in another currency
    v_tenant uuid;
    v_take bigint;
BEGIN
    PERFORM billing_lock();
    SELECT * INTO v FROM transfer WHERE id = fx_received(p_transfer);
    SELECT t.* INTO v_paid FROM fx JOIN transfer t ON t.id = fx.paid WHERE fx.received = v.id;
    IF v.id IS NULL THEN
        PERFORM refuse(5, format('there is no transfer %s', p_transfer));
    ELSIF v.kind <> 'topup' AND v_paid.id IS NULL THEN
        PERFORM refuse(6, format('transfer %s is a %s: only a top-up is taken back by a bank', p_transfer, v.kind));
    ELSIF EXISTS (SELECT FROM chargeback WHERE transfer_id = v.id) OR EXISTS (SELECT FROM transfer WHERE reverses = v.id) THEN
        PERFORM refuse(6, format('transfer %s was reversed or taken back before', p_transfer));
    ELSIF coalesce(btrim(p_reason), '') = '' THEN
        PERFORM refuse(20, 'reason: say what the bank says');
    END IF;
    SELECT tenant_id, least(v.amount_micro, greatest(0, balance_micro - floor_micro)) INTO v_tenant, v_take
      FROM account WHERE id = v.cr FOR NO KEY UPDATE;
    INSERT INTO chargeback (transfer_id, reason, wallet_micro, receivable_micro) VALUES (v.id, p_reason, v_take, v.amount_micro - v_take);
    PERFORM must_post(clock_timestamp(), 'chargeback', v.cr, v.dr, v.currency, v_take, NULL, v.id || '/wallet');
    PERFORM must_post(clock_timestamp(), 'chargeback', account_of('receivable', v_tenant, NULL, v.currency), v.dr, v.currency,
        v.amount_micro - v_take, NULL, v.id || '/receivable');
    IF v_paid.id IS NOT NULL THEN
        PERFORM must_post(clock_timestamp(), 'chargeback', v_paid.cr, v_paid.dr, v_paid.currency, v_paid.amount_micro, NULL, v.id || '/paid');
    END IF;
    PERFORM tell('wallet.changed', v_tenant, NULL, NULL);
    RETURN QUERY SELECT v_take, v.amount_micro - v_take, v.currency::text;
END $$;

-- A tenant takes its rest out: only its own money, not its credit line, and after its debts.
CREATE OR REPLACE FUNCTION api.withdraw(p_tenant text, p_amount bigint, p_reference text, p_principal text, p_idem text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v_tenant uuid;
    v_wallet integer;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    PERFORM billing_lock();
    SELECT id INTO v_tenant FROM tenant WHERE name = p_tenant;
    IF v_tenant IS NULL THEN
        PERFORM refuse(5, format('no tenant is named %s', p_tenant));
    END IF;
    IF p_amount <= 0 OR p_amount % minor_micro(currency()) <> 0 THEN
        PERFORM refuse(20, format('money leaves in whole minor units of %s, and more than nothing', currency()));
    END IF;
    PERFORM collect(v_tenant);
    v_wallet := account_of('wallet', v_tenant, NULL, currency());
    IF owed(v_tenant, currency()) > 0 OR p_amount > (SELECT balance_micro FROM account WHERE id = v_wallet FOR NO KEY UPDATE) THEN
        PERFORM refuse(7, format('the wallet of %s has less than that of its own', p_tenant));
    END IF;
    IF NOT post('withdraw', v_wallet, account_of('bank', NULL, NULL, currency()), currency(), p_amount, NULL, p_reference) THEN
        PERFORM refuse(6, format('reference %s was booked before', p_reference));
    END IF;
    PERFORM tell('wallet.changed', v_tenant, NULL, NULL);
    RETURN idem_new(p_principal, p_idem, p_hash, jsonb_build_object('currency', currency(),
        'balance_micro', (SELECT balance_micro FROM account WHERE id = v_wallet)));
END $$;

-- What a note says is what came back to the wallet; a reservation's notes are what was
-- refunded of it; before an invoice they stand on one, as far as there was use.
CREATE OR REPLACE VIEW report.check_credit_note AS
    SELECT c.number, c.total_micro, t.sum AS transfers_micro, l.sum AS lines_micro
      FROM ng.credit_note c
      CROSS JOIN LATERAL (SELECT coalesce(sum(x.amount_micro), 0) AS sum FROM ng.transfer x
                           WHERE x.reservation_id = c.reservation_id AND x.kind IN ('refund', 'refund_fee', 'refund_tax')
                             AND split_part(x.ref, '/', 1) = c.number) t
      CROSS JOIN LATERAL (SELECT coalesce(sum(x.amount_micro), 0) AS sum FROM ng.credit_note_line x WHERE x.number = c.number) l
      CROSS JOIN LATERAL (SELECT coalesce(sum(x.base_micro), 0) AS base, coalesce(sum(x.tax_micro), 0) AS tax
                            FROM ng.credit_note_tax x WHERE x.number = c.number) y
     WHERE c.total_micro <> t.sum OR c.net_micro <> l.sum OR c.tax_micro <> y.tax OR c.invoice IS NOT NULL AND c.net_micro <> y.base
    UNION ALL
    SELECT r.id::text, r.refunded_micro, coalesce(c.net, 0), coalesce(s.gross, 0)
      FROM ng.reservation r
      LEFT JOIN (SELECT reservation_id, sum(net_micro) AS net, sum(net_micro) FILTER (WHERE invoice IS NULL) AS early
                   FROM ng.credit_note GROUP BY 1) c ON c.reservation_id = r.id
      LEFT JOIN (SELECT reservation_id, sum(gross) AS gross
                   FROM (SELECT reservation_id, gross_micro AS gross FROM ng.refund_share
                         UNION ALL -- credits that providers bear are in their shares too
                         SELECT reservation_id, -amount_micro FROM ng.transfer
                          WHERE kind IN ('sla', 'sla_fee') AND ref NOT LIKE '%/platform') x GROUP BY 1) s ON s.reservation_id = r.id
      LEFT JOIN (SELECT reservation_id, -sum(amount_micro) AS early FROM ng.invoice_line WHERE amount_micro < 0 AND reservation_id IS NOT NULL
                  GROUP BY 1) i ON i.reservation_id = r.id
     WHERE r.refunded_micro <> coalesce(c.net, 0) OR r.refunded_micro <> coalesce(s.gross, 0) OR coalesce(i.early, 0) > coalesce(c.early, 0);
CREATE OR REPLACE VIEW report.check_credit_note_numbers AS
    SELECT split_part(number, '-', 2) AS year, count(*) AS notes, max(split_part(number, '-', 3)::bigint) AS last
      FROM ng.credit_note GROUP BY 1
    HAVING count(*) <> max(split_part(number, '-', 3)::bigint);
CREATE OR REPLACE VIEW report.check_chargeback AS
    SELECT c.transfer_id AS transfer, c.wallet_micro, c.receivable_micro, t.wallet, t.receivable
      FROM ng.chargeback c
      LEFT JOIN ng.fx f ON f.received = c.transfer_id
      LEFT JOIN ng.transfer p ON p.id = f.paid
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(x.amount_micro) FILTER (WHERE x.ref = c.transfer_id || '/wallet'), 0) AS wallet,
                 coalesce(sum(x.amount_micro) FILTER (WHERE x.ref = c.transfer_id || '/receivable'), 0) AS receivable,
                 coalesce(sum(x.amount_micro) FILTER (WHERE x.ref = c.transfer_id || '/paid'
                     AND (x.dr, x.cr, x.currency) IS NOT DISTINCT FROM (p.cr, p.dr, p.currency)), 0) AS paid
            FROM ng.transfer x WHERE x.kind = 'chargeback'
             AND x.ref IN (c.transfer_id || '/wallet', c.transfer_id || '/receivable', c.transfer_id || '/paid')) t
     WHERE (c.wallet_micro, c.receivable_micro, coalesce(p.amount_micro, 0)) <> (t.wallet, t.receivable, t.paid);
