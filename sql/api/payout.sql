-- Payouts: asked for by one administrator, approved by another, sent in a file to the bank,
-- and then done or returned, or done and returned after that; what the bank says of them is
-- read from its files. Settings of the market and of providers that money out needs, and a
-- provider's statement of a month.

-- ---- settings ----

CREATE OR REPLACE FUNCTION api.market_terms() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('dispute_window_s', extract(epoch FROM dispute_window)::bigint, 'reserve_ppm', reserve_ppm,
        'reserve_for_s', extract(epoch FROM reserve_for)::bigint, 'bank', bank, 'issuer_address', issuer_address, 'hold_window_s', coalesce(hold_window_us, 0) / 1000000) FROM market
$$;
DROP FUNCTION IF EXISTS api.market_set(bigint, bigint, bigint, jsonb), api.market_set(bigint, bigint, bigint, jsonb, bigint);
-- p_hold_us: how much of a lease's time is held ahead (hold.sql); 0: all of it. p_address:
-- the issuer's, as it stands on invoices from the next one on; '': none.
CREATE OR REPLACE FUNCTION api.market_set(p_window_s bigint, p_reserve_ppm bigint, p_reserve_for_s bigint, p_bank jsonb, p_hold_us bigint DEFAULT NULL,
    p_address text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    IF p_bank IS NOT NULL AND NOT (is_bank(p_bank) AND coalesce(p_bank->>'client' ~ '^[0-9]{10}$', false)) THEN
        PERFORM refuse(20, 'a bank account is a bank of 4 digits, a branch of 3, a type, a number of 7, a holder in half-width kana; and the client code of 10 digits');
    ELSIF p_hold_us <> 0 AND p_hold_us NOT BETWEEN 30000000 AND lease_max_us() THEN
        PERFORM refuse(20, 'hold_window: half a minute to 31 days, or 0 for the whole lease');
    END IF;
    IF translate(p_address, E'\n', '') ~ '[[:cntrl:]]' THEN
        PERFORM refuse(20, '/issuer_address: lines of text');
    END IF;
    UPDATE market SET dispute_window = coalesce(make_interval(secs => p_window_s), dispute_window), reserve_ppm = coalesce(p_reserve_ppm, reserve_ppm),
        reserve_for = coalesce(make_interval(secs => p_reserve_for_s), reserve_for), bank = coalesce(p_bank, bank),
        issuer_address = nullif(coalesce(p_address, issuer_address), ''),
        hold_window_us = CASE WHEN p_hold_us IS NULL THEN hold_window_us ELSE nullif(p_hold_us, 0) END;
    PERFORM tell('terms.changed', NULL, NULL, NULL, (SELECT jsonb_build_object('hold_window_us', coalesce(hold_window_us, 0)) FROM market));
    RETURN api.market_terms();
END $$;
CREATE OR REPLACE FUNCTION api.provider_terms(p_provider uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('name', p.name, 'bank', p.bank, 'registration', p.registration, 'zone', p.zone,
        'reserve_ppm', coalesce(p.reserve_ppm, (SELECT m.reserve_ppm FROM market m))) FROM provider p WHERE p.id = p_provider
$$;
CREATE OR REPLACE FUNCTION api.provider_bank(p_provider uuid, p_bank jsonb, p_registration text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    IF p_bank IS NOT NULL AND currency() = 'JPY' AND NOT is_bank(p_bank) THEN
        PERFORM refuse(20, 'a bank account is a bank of 4 digits, a branch of 3, a type, a number of 7 and a holder in half-width kana');
    ELSIF p_bank IS NOT NULL AND currency() <> 'JPY' AND p_bank ? 'iban' AND NOT is_iban(p_bank->>'iban') THEN
        PERFORM refuse(20, format('%s is no IBAN: its length or its check digits are wrong', left(p_bank->>'iban', 40)));
    ELSIF p_bank IS NOT NULL AND currency() <> 'JPY' AND NOT is_bank_abroad(p_bank) THEN
        PERFORM refuse(20, 'a bank account is a holder and an IBAN, or a holder, an account and the bank''s name or BIC, in plain Latin letters');
    ELSIF p_registration IS NOT NULL AND NOT is_registration(p_registration) THEN
        PERFORM refuse(20, 'a registration number is T and 13 digits, the first of which is the check digit of the others');
    END IF;
    UPDATE provider SET bank = coalesce(p_bank, bank), registration = coalesce(p_registration, registration) WHERE id = p_provider;
    RETURN api.provider_terms(p_provider);
END $$;
CREATE OR REPLACE FUNCTION api.provider_reserve(p_provider text, p_reserve_ppm bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v_id uuid;
BEGIN
    UPDATE provider SET reserve_ppm = p_reserve_ppm WHERE name = p_provider RETURNING id INTO v_id;
    IF v_id IS NULL THEN
        PERFORM refuse(5, format('no provider is named %s', left(p_provider, 60)));
    END IF;
    RETURN api.provider_terms(v_id);
END $$;

-- ---- payouts ----

-- As the command line prints it: "0 JPY", "1200.50 USD".
CREATE OR REPLACE FUNCTION ng.money_text(p_micro bigint, p_currency text) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_micro < 0 THEN '-' ELSE '' END || div(abs(p_micro::numeric), 1000000)
        || CASE WHEN length(f.digits) > 0 THEN '.' ELSE '' END || f.digits || ' ' || p_currency
      FROM (SELECT rpad(rtrim(x.six, '0'), greatest(x.digits, length(rtrim(x.six, '0'))), '0') AS digits
              FROM (SELECT lpad((abs(p_micro::numeric) % 1000000)::text, 6, '0') AS six,
                           coalesce((SELECT exponent FROM ng.currency_exponent WHERE currency = p_currency), 0) AS digits) x) f
$$;
-- What becomes of a payout is told to its provider.
CREATE OR REPLACE FUNCTION ng.tell_payout(p ng.payout) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO ng.event (kind, provider_id, payload)
    VALUES ('payout.' || p.state, p.provider_id, jsonb_build_object('payout', p.id, 'currency', p.currency, 'amount_micro', p.amount_micro,
        'reason', p.reason, 'fee_micro', p.fee_micro, 'fee_by', p.fee_by))
$$;
CREATE OR REPLACE FUNCTION ng.payout_json(p ng.payout) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', p.id, 'provider', (SELECT name FROM ng.provider WHERE id = p.provider_id), 'currency', p.currency,
        'amount_micro', p.amount_micro, 'state', p.state, 'requested_by', p.requested_by, 'created_us', ng.us(p.requested_at),
        'approved_by', p.approved_by, 'ended_by', p.ended_by, 'ended_us', ng.us(p.ended_at), 'file', p.file_id, 'reason', p.reason, 'bank', p.bank,
        'confirmed_by', p.confirmed_by, 'confirmed_us', ng.us(p.confirmed_at), 'fee_micro', p.fee_micro, 'fee_by', p.fee_by)
$$;
CREATE OR REPLACE FUNCTION api.payout_list(p_provider uuid, p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT page('payouts', (SELECT jsonb_agg(payout_json(p) || jsonb_build_object('_key', p.id::text) ORDER BY p.id DESC)
        FROM (SELECT * FROM payout
               WHERE (p_provider IS NULL OR provider_id = p_provider) AND (p_cursor IS NULL OR id < p_cursor::bigint)
               ORDER BY id DESC LIMIT p_limit + 1) p), p_limit)
        || jsonb_build_object('balances', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('provider', v.name, 'currency', currency(),
                'available_micro', coalesce((SELECT balance_micro FROM account WHERE kind = 'provider_available' AND provider_id = v.id AND currency = currency()), 0),
                'reserve_micro', coalesce((SELECT balance_micro FROM account WHERE kind = 'provider_reserve' AND provider_id = v.id AND currency = currency()), 0))
                ORDER BY v.name), '[]')
              FROM provider v WHERE p_provider IS NULL OR v.id = p_provider))
$$;

CREATE OR REPLACE FUNCTION api.payout_request(p_provider text, p_amount bigint, p_principal text, p_idem text, p_hash bytea, p_who text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v provider;
    v_minor bigint := minor_micro(currency());
    v_have bigint;
    v_amount bigint;
    v_payout payout;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    PERFORM billing_lock();
    SELECT * INTO v FROM provider WHERE name = p_provider;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('no provider is named %s', left(p_provider, 60)));
    ELSIF v.bank IS NULL OR is_bank_abroad(v.bank) = (currency() = 'JPY') THEN
        PERFORM refuse(6, format('%s has not said where to: neargpu provider bank set', v.name));
    ELSIF EXISTS (SELECT FROM payout WHERE provider_id = v.id AND currency = currency() AND state IN ('requested', 'approved')) THEN
        PERFORM refuse(6, format('a payout to %s is under way', v.name));
    END IF;
    SELECT coalesce(sum(balance_micro), 0) INTO v_have FROM account WHERE kind = 'provider_available' AND provider_id = v.id AND currency = currency();
    v_amount := coalesce(p_amount, div(v_have, v_minor) * v_minor);
    IF v_amount % v_minor <> 0 THEN
        PERFORM refuse(20, format('a payout is in whole minor units of %s', currency()));
    ELSIF v_amount <= 0 OR v_amount > v_have THEN
        PERFORM refuse(7, format('%s is available to %s', money_text(v_have, currency()), v.name));
    END IF;
    INSERT INTO payout (provider_id, currency, amount_micro, bank, requested_by) VALUES (v.id, currency(), v_amount, v.bank, p_who) RETURNING * INTO v_payout;
    RETURN idem_new(p_principal, p_idem, p_hash, payout_json(v_payout));
END $$;

-- Why a part of one is not taken back: what is left of it would be neither paid nor owed.
CREATE OR REPLACE FUNCTION ng.payout_part(v ng.payout, p_amount bigint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT format('payout %s is %s, not %s: it comes back whole or not at all; the bank''s fee is said beside it', v.id,
        ng.money_text(v.amount_micro, v.currency), ng.money_text(p_amount, v.currency))
$$;
-- Rejected, done or returned, and the money with it. One that comes back after it was
-- confirmed is first confirmed no more: both transfers are reversed as they were made. What
-- the bank takes for that is the provider's or the market's. The caller holds the billing lock.
CREATE OR REPLACE FUNCTION ng.payout_end(v ng.payout, p_state text, p_reason text, p_fee bigint, p_fee_by text, p_who text)
RETURNS ng.payout LANGUAGE plpgsql AS $$
DECLARE
    v_was ng.transfer;
    v_bank integer := ng.account_of('bank', NULL, NULL, v.currency);
    v_ref text := 'payout/' || v.id;
    v_kind text;
BEGIN
    IF p_state = 'done' THEN
        PERFORM ng.must_post(clock_timestamp(), 'payout_done', ng.account_of('payout_clearing', NULL, NULL, v.currency), v_bank, v.currency,
            v.amount_micro, NULL, v_ref);
        UPDATE ng.payout SET confirmed_by = p_who, confirmed_at = clock_timestamp(), state = p_state, ended_by = p_who,
            ended_at = clock_timestamp() WHERE id = v.id;
    ELSE
        UPDATE ng.payout SET state = p_state, ended_by = p_who, ended_at = clock_timestamp(), reason = coalesce(p_reason, ''),
            fee_micro = p_fee, fee_by = CASE WHEN p_fee > 0 THEN p_fee_by END WHERE id = v.id;
    END IF;
    IF p_state = 'returned' THEN
        FOREACH v_kind IN ARRAY CASE v.state WHEN 'done' THEN '{payout_done,payout}'::text[] ELSE '{payout}' END LOOP
            SELECT * INTO STRICT v_was FROM ng.transfer WHERE kind = v_kind AND ref = v_ref;
            IF NOT ng.post('payout_back', v_was.cr, v_was.dr, v.currency, v_was.amount_micro, NULL,
                v_ref || CASE v_kind WHEN 'payout' THEN '' ELSE '/done' END, v_was.id) THEN
                PERFORM ng.refuse(6, format('payout %s came back already', v.id));
            END IF;
        END LOOP;
        PERFORM ng.must_post(clock_timestamp(), 'payout_fee', CASE p_fee_by WHEN 'market' THEN ng.account_of('fee', NULL, NULL, v.currency)
            ELSE ng.account_of('provider_available', NULL, v.provider_id, v.currency) END, v_bank, v.currency, p_fee, NULL, v_ref);
    END IF;
    SELECT * INTO v FROM ng.payout WHERE id = v.id;
    PERFORM ng.tell_payout(v);
    RETURN v;
END $$;

-- approve, reject, done, returned: p_reason is for reject and returned, p_amount (what came
-- back), p_fee and p_fee_by for returned. Who asked for it does not approve it: the table
-- does not take it.
DROP FUNCTION IF EXISTS api.payout_act(bigint, text, text, text);
CREATE OR REPLACE FUNCTION api.payout_act(p_id bigint, p_act text, p_reason text, p_amount bigint, p_fee bigint, p_fee_by text, p_who text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v payout;
    v_from text[] := CASE p_act WHEN 'approve' THEN '{requested}'::text[] WHEN 'reject' THEN '{requested,approved}'
        WHEN 'done' THEN '{sent}' ELSE '{sent,done}' END;
    v_to text := CASE p_act WHEN 'approve' THEN 'approved' WHEN 'reject' THEN 'rejected' ELSE p_act END;
BEGIN
    PERFORM billing_lock();
    SELECT * INTO v FROM payout WHERE id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('there is no payout %s', p_id));
    ELSIF p_act <> 'returned' AND (p_amount IS NOT NULL OR p_fee IS NOT NULL OR p_fee_by IS NOT NULL) THEN
        PERFORM refuse(20, 'an amount and a fee are for what came back');
    ELSIF p_amount <> v.amount_micro THEN
        PERFORM refuse(6, payout_part(v, p_amount));
    ELSIF p_fee > v.amount_micro OR p_fee % minor_micro(v.currency) <> 0 THEN
        PERFORM refuse(20, format('a bank''s fee is in whole minor units, and not more than %s', money_text(v.amount_micro, v.currency)));
    ELSIF v.state = v_to THEN
        RETURN payout_json(v);
    ELSIF NOT v.state = ANY (v_from) THEN
        PERFORM refuse(6, format('payout %s is %s, not %s', p_id, v.state, array_to_string(v_from, ' or ')));
    ELSIF p_act = 'approve' AND v.requested_by = p_who THEN
        PERFORM refuse(4, format('payout %s was asked for by you: another administrator approves it', p_id));
    END IF;
    IF p_act = 'approve' THEN
        UPDATE payout SET state = 'approved', approved_by = p_who, approved_at = clock_timestamp() WHERE id = p_id RETURNING * INTO v;
        RETURN payout_json(v);
    END IF;
    RETURN payout_json(payout_end(v, v_to, p_reason, coalesce(p_fee, 0), coalesce(p_fee_by, 'provider'), p_who));
END $$;

CREATE OR REPLACE FUNCTION ng.payout_file_json(f ng.payout_file) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', f.id, 'created_us', ng.us(f.at), 'made_by', f.made_by, 'pay_on', f.pay_on, 'currency', f.currency,
        'count', f.count, 'total_micro', f.total_micro, 'bank', f.bank, 'payouts',
        (SELECT jsonb_agg(ng.payout_json(p) ORDER BY p.id) FROM ng.payout p WHERE p.file_id = f.id))
$$;
-- Where the bank is whose day it is.
CREATE OR REPLACE FUNCTION ng.bank_today() RETURNS date LANGUAGE sql STABLE AS $$
    SELECT (clock_timestamp() AT TIME ZONE CASE ng.currency() WHEN 'JPY' THEN 'Asia/Tokyo' ELSE 'UTC' END)::date
$$;
-- Which days are bank days and when a bank closes for one is the bank's to say. A Zengin
-- file has no year.
CREATE OR REPLACE FUNCTION ng.check_pay_on(p_day date, p_today date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_day < p_today THEN
        PERFORM ng.refuse(20, format('/pay_on: %s is over: the bank''s day is %s', p_day, p_today));
    ELSIF ng.currency() = 'JPY' AND p_day >= p_today + interval '1 year' THEN
        PERFORM ng.refuse(20, format('/pay_on: %s is more than a year away, and the file says no year', p_day));
    END IF;
END $$;
-- All approved payouts become one file, and are sent with it: each in one file only, since
-- none that is sent is approved. The file's text is made from the rows, the same each time.
CREATE OR REPLACE FUNCTION api.payout_file_new(p_pay_on text, p_principal text, p_idem text, p_hash bytea, p_who text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v payout;
    f payout_file;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    PERFORM check_pay_on(p_pay_on::date, bank_today());
    PERFORM billing_lock();
    PERFORM 1 FROM payout WHERE state = 'approved' AND currency = currency() ORDER BY id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse(6, 'no payout is approved');
    ELSIF currency() = 'JPY' AND (SELECT bank FROM market) IS NULL THEN
        PERFORM refuse(6, 'the market''s own account is not set: neargpu admin terms');
    ELSIF currency() = 'JPY' AND (SELECT max(amount_micro) / 1000000 > 9999999999 OR sum(amount_micro) / 1000000 > 999999999999 OR count(*) > 999999
              FROM payout WHERE state = 'approved' AND currency = currency()) THEN
        PERFORM refuse(21, 'these are more than a file can say');
    END IF;
    INSERT INTO payout_file (made_by, pay_on, currency, bank, count, total_micro)
    SELECT p_who, p_pay_on::date, currency(), (SELECT bank FROM market), count(*), sum(amount_micro)
      FROM payout WHERE state = 'approved' AND currency = currency()
    RETURNING * INTO f;
    FOR v IN SELECT * FROM payout WHERE state = 'approved' AND currency = currency() ORDER BY id LOOP
        BEGIN
            PERFORM must_post(clock_timestamp(), 'payout', account_of('provider_available', NULL, v.provider_id, v.currency),
                account_of('payout_clearing', NULL, NULL, v.currency), v.currency, v.amount_micro, NULL, 'payout/' || v.id);
        EXCEPTION WHEN check_violation THEN
            PERFORM refuse(7, format('payout %s is more than what is available by now: reject it', v.id));
        END;
        UPDATE payout SET state = 'sent', file_id = f.id WHERE id = v.id RETURNING * INTO v;
        PERFORM tell_payout(v);
    END LOOP;
    RETURN idem_new(p_principal, p_idem, p_hash, payout_file_json(f));
END $$;
CREATE OR REPLACE FUNCTION api.payout_file_get(p_id bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE f payout_file;
BEGIN
    SELECT * INTO f FROM payout_file WHERE id = p_id;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('there is no file %s', p_id));
    END IF;
    RETURN payout_file_json(f);
END $$;

-- ---- what the bank says ----

-- The payout that a line of a bank's file is about: the one it names, or of this account and
-- amount the only one that can become that state, or is it. Anything else refuses the file.
CREATE OR REPLACE FUNCTION ng.payout_of_line(p jsonb) RETURNS ng.payout
LANGUAGE plpgsql AS $$
DECLARE
    v ng.payout;
    v_ids bigint[];
    v_account jsonb := jsonb_strip_nulls(jsonb_build_object('bank', p->'bank', 'branch', p->'branch', 'type', p->'type', 'number', p->'number'));
    v_where text := format('line %s', p->>'line');
BEGIN
    IF p->>'payout' IS NULL THEN
        SELECT array_agg(id) INTO v_ids FROM ng.payout
         WHERE bank @> v_account AND amount_micro = (p->>'amount_micro')::bigint
           AND state = ANY (CASE p->>'state' WHEN 'done' THEN '{sent}'::text[] ELSE '{sent,done}' END);
        IF v_ids IS NULL THEN
            SELECT array_agg(id) INTO v_ids FROM ng.payout
             WHERE bank @> v_account AND amount_micro = (p->>'amount_micro')::bigint AND state = p->>'state';
        END IF;
        IF coalesce(array_length(v_ids, 1), 0) <> 1 THEN
            PERFORM ng.refuse(6, format('%s: %s payouts of this amount to this account can be meant: say done or returned by hand', v_where,
                coalesce(array_length(v_ids, 1), 0)));
        END IF;
    END IF;
    SELECT * INTO v FROM ng.payout WHERE id = coalesce((p->>'payout')::bigint, v_ids[1]) FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ng.refuse(6, format('%s: there is no payout %s', v_where, p->>'payout'));
    ELSIF v_account <> '{}' AND NOT coalesce(v.bank @> v_account, false) THEN
        PERFORM ng.refuse(6, format('%s: payout %s was not to this account', v_where, v.id));
    ELSIF (p->>'amount_micro')::bigint <> v.amount_micro THEN
        PERFORM ng.refuse(6, format('%s: %s', v_where, ng.payout_part(v, (p->>'amount_micro')::bigint)));
    ELSIF v.state <> p->>'state' AND (v.state, p->>'state') NOT IN (('sent', 'done'), ('sent', 'returned'), ('done', 'returned')) THEN
        PERFORM ng.refuse(6, format('%s: payout %s is %s: it cannot become %s', v_where, v.id, v.state, p->>'state'));
    END IF;
    RETURN v;
END $$;
-- A bank's file, whole or not at all, and its bytes once: p_lines [{line, payout or null,
-- state, reason, on, amount_micro, bank, branch, type, number}] as billing/core/bankresult
-- read them, its sums being right. What was never approved and sent is not paid by it.
CREATE OR REPLACE FUNCTION api.payout_results(p_format text, p_client text, p_sha256 bytea, p_lines jsonb, p_principal text, p_idem text,
    p_hash bytea, p_who text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v_file payout_result;
    v payout;
    v_line jsonb;
    v_changed boolean;
    v_out jsonb := '[]';
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    PERFORM billing_lock();
    SELECT * INTO v_file FROM payout_result WHERE sha256 = p_sha256;
    IF FOUND THEN
        PERFORM refuse(6, format('this file was read on %s UTC by %s: nothing in it is done again',
            to_char(v_file.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), v_file.read_by));
    ELSIF p_format = 'zengin' AND currency() <> 'JPY' THEN
        PERFORM refuse(6, format('a Zengin file is in yen, and this market is in %s', currency()));
    ELSIF p_client IS DISTINCT FROM (SELECT bank->>'client' FROM market) AND p_format = 'zengin' THEN
        PERFORM refuse(6, format('the file is for client %s of the bank: that is not this market', p_client));
    END IF;
    INSERT INTO payout_result (read_by, sha256, format, count) VALUES (p_who, p_sha256, p_format, jsonb_array_length(p_lines)) RETURNING * INTO v_file;
    FOR v_line IN SELECT * FROM jsonb_array_elements(p_lines) LOOP
        v := payout_of_line(v_line);
        IF EXISTS (SELECT FROM payout_result_line WHERE result_id = v_file.id AND payout_id = v.id) THEN
            PERFORM refuse(6, format('line %s: payout %s stands in the file twice', v_line->>'line', v.id));
        ELSIF (v_line->>'on')::date > (now() + interval '1 day')::date THEN
            PERFORM refuse(20, format('line %s: %s has not come yet', v_line->>'line', v_line->>'on'));
        END IF;
        v_changed := v.state <> v_line->>'state';
        IF v_changed THEN
            v := payout_end(v, v_line->>'state', v_line->>'reason', 0, NULL, p_who);
        END IF;
        INSERT INTO payout_result_line (result_id, line, payout_id, state, on_day, reason, changed)
        VALUES (v_file.id, (v_line->>'line')::integer, v.id, v_line->>'state', (v_line->>'on')::date, coalesce(v_line->>'reason', ''), v_changed);
        v_out := v_out || jsonb_build_object('line', (v_line->>'line')::integer, 'payout', v.id, 'provider',
            (SELECT name FROM provider WHERE id = v.provider_id), 'amount_micro', v.amount_micro, 'state', v.state, 'changed', v_changed,
            'on', v_line->'on', 'reason', coalesce(v_line->>'reason', ''));
    END LOOP;
    RETURN idem_new(p_principal, p_idem, p_hash, jsonb_build_object('id', v_file.id, 'format', p_format, 'count', v_file.count,
        'changed', (SELECT count(*) FROM payout_result_line WHERE result_id = v_file.id AND changed), 'lines', v_out));
END $$;

-- The files that were read, newest first.
CREATE OR REPLACE FUNCTION api.payout_result_list(p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT page('results', (SELECT jsonb_agg(jsonb_build_object('_key', r.id::text, 'id', r.id, 'at_us', us(r.at), 'read_by', r.read_by,
            'format', r.format, 'sha256', encode(r.sha256, 'hex'), 'count', r.count,
            'done', (SELECT count(*) FROM payout_result_line x WHERE x.result_id = r.id AND x.state = 'done'),
            'returned', (SELECT count(*) FROM payout_result_line x WHERE x.result_id = r.id AND x.state = 'returned'),
            'changed', (SELECT count(*) FROM payout_result_line x WHERE x.result_id = r.id AND x.changed)) ORDER BY r.id DESC)
        FROM (SELECT * FROM payout_result WHERE p_cursor IS NULL OR id < p_cursor::bigint ORDER BY id DESC LIMIT p_limit + 1) r), p_limit)
$$;

-- ---- the provider's statement ----

CREATE OR REPLACE FUNCTION ng.provider_sum(p_provider uuid, p_currency text, p_until timestamptz) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT '{"pending_micro": 0, "available_micro": 0, "reserve_micro": 0}' || coalesce(jsonb_object_agg(substr(a.kind, 10) || '_micro',
               (SELECT coalesce(sum(CASE WHEN t.cr = a.id THEN t.amount_micro ELSE -t.amount_micro END), 0)
                  FROM ng.transfer t WHERE a.id IN (t.cr, t.dr) AND t.at < p_until)), '{}')
      FROM ng.account a WHERE a.provider_id = p_provider AND a.currency = p_currency
$$;
-- A month in the provider's zone: what it was owed at its beginning and end, what was
-- captured for it by reservation and site, and every other movement by its kind.
CREATE OR REPLACE FUNCTION api.statement(p_provider uuid, p_month text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v provider;
    v_from timestamptz;
    v_to timestamptz;
BEGIN
    SELECT * INTO STRICT v FROM provider WHERE id = p_provider;
    v_from := to_date(p_month, 'YYYY-MM')::timestamp AT TIME ZONE v.zone;
    v_to := (to_date(p_month, 'YYYY-MM') + interval '1 month') AT TIME ZONE v.zone;
    IF v_from > clock_timestamp() THEN
        PERFORM refuse(20, format('month: %s has not begun in %s', p_month, v.zone));
    END IF;
    RETURN (
        WITH mine AS (SELECT id, kind FROM account WHERE provider_id = p_provider AND currency = currency()),
        moved AS (
            SELECT t.*, d.id IS NOT NULL AS out_, c.id IS NOT NULL AS in_
              FROM transfer t LEFT JOIN mine d ON d.id = t.dr LEFT JOIN mine c ON c.id = t.cr
             WHERE t.at >= v_from AND t.at < v_to AND (t.dr IN (SELECT id FROM mine) OR t.cr IN (SELECT id FROM mine)))
        SELECT jsonb_build_object('provider', v.name, 'registration', v.registration, 'month', p_month, 'zone', v.zone, 'currency', currency(),
            'from_us', us(v_from), 'to_us', us(v_to), 'over', v_to <= clock_timestamp(),
            'opening', provider_sum(p_provider, currency(), v_from), 'closing', provider_sum(p_provider, currency(), v_to),
            'captured', (SELECT coalesce(jsonb_agg(jsonb_build_object('reservation', u.reservation_id, 'site', s.name, 'quantity_ms', u.ms,
                    'gross_micro', u.gross, 'fee_micro', u.fee, 'net_micro', u.gross - u.fee) ORDER BY u.reservation_id, s.name), '[]')
                FROM (SELECT reservation_id, site_id, sum(quantity_ms) AS ms, sum(amount_micro) AS gross, sum(fee_micro) AS fee FROM usage
                       WHERE provider_id = p_provider AND currency = currency() AND at >= v_from AND at < v_to GROUP BY 1, 2) u
                JOIN site s ON s.id = u.site_id),
            'moved', '{"capture": 0, "refund": 0, "sla": 0, "payout": 0, "payout_back": 0, "payout_fee": 0}'
                || (SELECT coalesce(jsonb_object_agg(kind, amount), '{}') FROM ( -- seen by the provider; what stays with it is 0
                SELECT kind, sum(CASE WHEN in_ THEN amount_micro ELSE 0 END - CASE WHEN out_ THEN amount_micro ELSE 0 END) AS amount
                  FROM moved GROUP BY kind) k),
            'settled', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', s.id, 'at_us', us(s.at), 'captures', s.captures, 'gross_micro', s.gross_micro,
                    'refunded_micro', s.less_micro, 'reserve_micro', s.reserve_micro,
                    'available_micro', s.gross_micro - s.less_micro - s.reserve_micro) ORDER BY s.id), '[]')
                FROM (SELECT * FROM settlement WHERE provider_id = p_provider AND currency = currency() AND at >= v_from AND at < v_to
                       ORDER BY id LIMIT 1000) s),
            'refunded', (SELECT coalesce(jsonb_agg(jsonb_build_object('credit_note', m.number, 'reservation', m.reservation_id, 'amount_micro', m.amount)
                    ORDER BY m.number), '[]')
                FROM (SELECT split_part(ref, '/', 1) AS number, reservation_id, sum(amount_micro) AS amount FROM moved WHERE kind = 'refund' GROUP BY 1, 2) m),
            'payouts', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', substr(m.ref, 8), 'at_us', us(m.at), 'kind', m.kind,
                    'amount_micro', CASE WHEN m.in_ THEN m.amount_micro ELSE -m.amount_micro END) ORDER BY m.id), '[]')
                FROM moved m WHERE m.kind IN ('payout', 'payout_back', 'payout_fee'))));
END $$;

-- Each payout's transfers are those of its way, and another approved it.
CREATE OR REPLACE VIEW report.check_payout AS
    SELECT p.id AS payout, p.state, p.amount_micro, t.sent, t.done, t.back
      FROM ng.payout p
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(x.amount_micro) FILTER (WHERE x.kind = 'payout'), 0) AS sent,
                 coalesce(sum(x.amount_micro) FILTER (WHERE x.kind = 'payout_done'), 0) AS done,
                 coalesce(sum(x.amount_micro) FILTER (WHERE x.kind = 'payout_back'), 0) AS back,
                 coalesce(sum(x.amount_micro) FILTER (WHERE x.kind = 'payout_fee'), 0) AS fee
            FROM ng.transfer x
           WHERE x.kind IN ('payout', 'payout_done', 'payout_back', 'payout_fee') AND x.ref IN ('payout/' || p.id, 'payout/' || p.id || '/done')) t
     WHERE t.sent <> p.amount_micro * (p.state IN ('sent', 'done', 'returned'))::integer
        OR t.done <> p.amount_micro * (p.confirmed_by IS NOT NULL)::integer
        OR t.back <> p.amount_micro * (p.state = 'returned')::integer * (1 + (p.confirmed_by IS NOT NULL)::integer)
        OR t.fee <> p.fee_micro OR p.approved_by = p.requested_by
    UNION ALL
    SELECT f.id, 'file', f.total_micro, p.sum, p.count, f.count
      FROM ng.payout_file f
      CROSS JOIN LATERAL (SELECT coalesce(sum(amount_micro), 0) AS sum, count(*) AS count FROM ng.payout WHERE file_id = f.id) p
     WHERE (f.count, f.total_micro) <> (p.count, p.sum);
