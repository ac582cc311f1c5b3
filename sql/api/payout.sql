-- Payouts: asked for by one administrator, approved by another, sent in a file to the bank,
-- and then done or returned. Settings of the market and of providers that money out needs,
-- administrators by name, and a provider's statement of a month.

CREATE OR REPLACE FUNCTION api.admin_create(p_name text, p_key_hash bytea, p_principal text, p_idem text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v_id uuid;
BEGIN
    IF idem_old(p_principal, p_idem, p_hash) IS NOT NULL THEN
        PERFORM refuse(6, format('an administrator named %s was made by this request: remove it and begin anew', p_name));
    END IF;
    BEGIN
        INSERT INTO api_key (hash, role, label) VALUES (p_key_hash, 'admin', p_name::slug) RETURNING id INTO v_id;
    EXCEPTION WHEN unique_violation THEN
        PERFORM refuse(6, format('an administrator named %s is there already', p_name));
    END;
    PERFORM tell('key.changed', NULL, NULL, NULL);
    RETURN idem_new(p_principal, p_idem, p_hash, jsonb_build_object('id', v_id, 'name', p_name));
END $$;
CREATE OR REPLACE FUNCTION api.admin_list() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('admins', coalesce(jsonb_agg(jsonb_build_object('name', label, 'id', id, 'created_us', us(created_at)) ORDER BY label), '[]'))
      FROM api_key WHERE role = 'admin' AND revoked_at IS NULL
$$;
-- Never the last one.
CREATE OR REPLACE FUNCTION api.admin_remove(p_name text, p_who text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('neargpu.admins'));
    IF p_name = p_who THEN
        PERFORM refuse(6, 'nobody removes himself: ask another administrator');
    END IF;
    UPDATE api_key SET revoked_at = now() WHERE role = 'admin' AND label = p_name AND revoked_at IS NULL;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('no administrator is named %s', left(p_name, 60)));
    END IF;
    PERFORM tell('key.changed', NULL, NULL, NULL);
    RETURN '{}';
END $$;

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
    IF p_bank IS NOT NULL AND NOT is_bank(p_bank) THEN
        PERFORM refuse(20, 'a bank account is a bank of 4 digits, a branch of 3, a type, a number of 7 and a holder in half-width kana');
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

CREATE OR REPLACE FUNCTION ng.payout_json(p ng.payout) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', p.id, 'provider', (SELECT name FROM ng.provider WHERE id = p.provider_id), 'currency', p.currency,
        'amount_micro', p.amount_micro, 'state', p.state, 'requested_by', p.requested_by, 'created_us', ng.us(p.requested_at),
        'approved_by', p.approved_by, 'ended_by', p.ended_by, 'ended_us', ng.us(p.ended_at), 'file', p.file_id, 'reason', p.reason, 'bank', p.bank)
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
    ELSIF v.bank IS NULL AND currency() = 'JPY' THEN
        PERFORM refuse(6, format('%s has not said where to: neargpu provider bank set', v.name));
    ELSIF EXISTS (SELECT FROM payout WHERE provider_id = v.id AND currency = currency() AND state IN ('requested', 'approved')) THEN
        PERFORM refuse(6, format('a payout to %s is under way', v.name));
    END IF;
    SELECT coalesce(sum(balance_micro), 0) INTO v_have FROM account WHERE kind = 'provider_available' AND provider_id = v.id AND currency = currency();
    v_amount := coalesce(p_amount, div(v_have, v_minor) * v_minor);
    IF v_amount % v_minor <> 0 THEN
        PERFORM refuse(20, format('a payout is in whole minor units of %s', currency()));
    ELSIF v_amount <= 0 OR v_amount > v_have THEN
        PERFORM refuse(7, format('%s micro are available to %s', v_have, v.name));
    END IF;
    INSERT INTO payout (provider_id, currency, amount_micro, bank, requested_by) VALUES (v.id, currency(), v_amount, v.bank, p_who) RETURNING * INTO v_payout;
    RETURN idem_new(p_principal, p_idem, p_hash, payout_json(v_payout));
END $$;

-- approve, reject, done, returned: p_reason is for reject and returned. Who asked for it does
-- not approve it: the table does not take it.
CREATE OR REPLACE FUNCTION api.payout_act(p_id bigint, p_act text, p_reason text, p_who text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v payout;
    v_from text := CASE p_act WHEN 'approve' THEN 'requested' WHEN 'reject' THEN 'requested or approved' ELSE 'sent' END;
    v_to text := CASE p_act WHEN 'approve' THEN 'approved' WHEN 'reject' THEN 'rejected' ELSE p_act END;
    v_sent transfer;
BEGIN
    PERFORM billing_lock();
    SELECT * INTO v FROM payout WHERE id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('there is no payout %s', p_id));
    ELSIF v.state = v_to THEN
        RETURN payout_json(v);
    ELSIF position(v.state IN v_from) = 0 THEN
        PERFORM refuse(6, format('payout %s is %s, not %s', p_id, v.state, v_from));
    ELSIF p_act = 'approve' AND v.requested_by = p_who THEN
        PERFORM refuse(4, format('payout %s was asked for by you: another administrator approves it', p_id));
    END IF;
    IF p_act = 'approve' THEN
        UPDATE payout SET state = 'approved', approved_by = p_who, approved_at = clock_timestamp() WHERE id = p_id;
    ELSE
        UPDATE payout SET state = v_to, ended_by = p_who, ended_at = clock_timestamp(), reason = coalesce(p_reason, '') WHERE id = p_id;
    END IF;
    IF p_act = 'done' THEN
        PERFORM must_post(clock_timestamp(), 'payout_done', account_of('payout_clearing', NULL, NULL, v.currency),
            account_of('bank', NULL, NULL, v.currency), v.currency, v.amount_micro, NULL, 'payout/' || p_id);
    ELSIF p_act = 'returned' THEN
        SELECT * INTO STRICT v_sent FROM transfer WHERE kind = 'payout' AND ref = 'payout/' || p_id;
        PERFORM post('payout_back', v_sent.cr, v_sent.dr, v.currency, v.amount_micro, NULL, 'payout/' || p_id, v_sent.id);
    END IF;
    SELECT * INTO v FROM payout WHERE id = p_id;
    RETURN payout_json(v);
END $$;

CREATE OR REPLACE FUNCTION ng.payout_file_json(f ng.payout_file) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', f.id, 'created_us', ng.us(f.at), 'made_by', f.made_by, 'pay_on', f.pay_on, 'currency', f.currency,
        'count', f.count, 'total_micro', f.total_micro, 'bank', f.bank, 'payouts',
        (SELECT jsonb_agg(ng.payout_json(p) ORDER BY p.id) FROM ng.payout p WHERE p.file_id = f.id))
$$;
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
        UPDATE payout SET state = 'sent', file_id = f.id WHERE id = v.id;
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

-- ---- the provider's statement ----

CREATE OR REPLACE FUNCTION ng.provider_sum(p_provider uuid, p_currency text, p_until timestamptz) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_object_agg(substr(a.kind, 10) || '_micro',
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
    RETURN (
        WITH mine AS (SELECT id, kind FROM account WHERE provider_id = p_provider AND currency = currency()),
        moved AS (
            SELECT t.*, d.id IS NOT NULL AS out_, c.id IS NOT NULL AS in_
              FROM transfer t LEFT JOIN mine d ON d.id = t.dr LEFT JOIN mine c ON c.id = t.cr
             WHERE t.at >= v_from AND t.at < v_to AND (t.dr IN (SELECT id FROM mine) OR t.cr IN (SELECT id FROM mine)))
        SELECT jsonb_build_object('provider', v.name, 'registration', v.registration, 'month', p_month, 'zone', v.zone, 'currency', currency(),
            'from_us', us(v_from), 'to_us', us(v_to),
            'opening', provider_sum(p_provider, currency(), v_from), 'closing', provider_sum(p_provider, currency(), v_to),
            'captured', (SELECT coalesce(jsonb_agg(jsonb_build_object('reservation', u.reservation_id, 'site', s.name, 'quantity_ms', u.ms,
                    'gross_micro', u.gross, 'fee_micro', u.fee, 'net_micro', u.gross - u.fee) ORDER BY u.reservation_id, s.name), '[]')
                FROM (SELECT reservation_id, site_id, sum(quantity_ms) AS ms, sum(amount_micro) AS gross, sum(fee_micro) AS fee FROM usage
                       WHERE provider_id = p_provider AND currency = currency() AND at >= v_from AND at < v_to GROUP BY 1, 2) u
                JOIN site s ON s.id = u.site_id),
            'moved', (SELECT coalesce(jsonb_object_agg(kind, amount), '{}') FROM ( -- seen by the provider; what stays with it is 0
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
                FROM moved m WHERE m.kind IN ('payout', 'payout_back'))));
END $$;

-- Each payout's transfers are those of its state, and another approved it.
CREATE OR REPLACE VIEW report.check_payout AS
    SELECT p.id AS payout, p.state, p.amount_micro, t.sent, t.done, t.back
      FROM ng.payout p
      CROSS JOIN LATERAL (
          SELECT coalesce(sum(x.amount_micro) FILTER (WHERE x.kind = 'payout'), 0) AS sent,
                 coalesce(sum(x.amount_micro) FILTER (WHERE x.kind = 'payout_done'), 0) AS done,
                 coalesce(sum(x.amount_micro) FILTER (WHERE x.kind = 'payout_back'), 0) AS back
            FROM ng.transfer x WHERE x.kind IN ('payout', 'payout_done', 'payout_back') AND x.ref = 'payout/' || p.id) t
     WHERE t.sent <> p.amount_micro * (p.state IN ('sent', 'done', 'returned'))::integer
        OR t.done <> p.amount_micro * (p.state = 'done')::integer OR t.back <> p.amount_micro * (p.state = 'returned')::integer
        OR p.approved_by = p.requested_by
    UNION ALL
    SELECT f.id, 'file', f.total_micro, p.sum, p.count, f.count
      FROM ng.payout_file f
      CROSS JOIN LATERAL (SELECT coalesce(sum(amount_micro), 0) AS sum, count(*) AS count FROM ng.payout WHERE file_id = f.id) p
     WHERE (f.count, f.total_micro) <> (p.count, p.sum);
