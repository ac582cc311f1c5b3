-- Budgets, promotional credit, credits for what was not delivered, exchange of currencies.
-- Bodies of requests come as they were sent and are checked here. What decides over sums of
-- captures does so under ng.billing_lock().

-- ---- budgets ----

CREATE OR REPLACE FUNCTION ng.tenant_named(p_name text) RETURNS ng.tenant
LANGUAGE plpgsql STABLE AS $$
DECLARE v ng.tenant;
BEGIN
    SELECT * INTO v FROM ng.tenant WHERE name = p_name;
    IF NOT FOUND THEN
        PERFORM ng.refuse(5, format('no tenant is named %s', p_name));
    END IF;
    RETURN v;
END $$;
-- A member that is a whole number, or nothing.
CREATE OR REPLACE FUNCTION ng.body_int(p jsonb, p_name text) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p->p_name IS NULL OR jsonb_typeof(p->p_name) = 'null' THEN
        RETURN NULL;
    ELSIF jsonb_typeof(p->p_name) <> 'number' OR p->>p_name !~ '^-?[0-9]{1,18}$' THEN
        PERFORM ng.refuse(20, format('/%s: no whole number of at most 18 digits', p_name));
    END IF;
    RETURN (p->>p_name)::bigint;
END $$;
-- A money member in the market's currency, more than nothing; or NULL.
CREATE OR REPLACE FUNCTION ng.body_money(p jsonb, p_name text) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE v_micro bigint := ng.body_int(p->p_name, 'micro');
BEGIN
    IF p->p_name IS NULL THEN
        RETURN NULL;
    ELSIF p->p_name->>'currency' IS DISTINCT FROM ng.currency() THEN
        PERFORM ng.refuse(20, format('/%s/currency: this market keeps accounts in %s', p_name, ng.currency()));
    ELSIF v_micro IS NULL OR v_micro <= 0 OR v_micro > 1000000000000000 THEN
        PERFORM ng.refuse(20, format('/%s/micro: more than 0, at most %s', p_name, ng.money_text(1000000000000000, ng.currency())));
    END IF;
    RETURN v_micro;
END $$;
CREATE OR REPLACE FUNCTION ng.body_text(p jsonb, p_name text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(p->p_name) IS DISTINCT FROM 'string' OR btrim(p->>p_name) = '' OR length(p->>p_name) > 200
        OR p->>p_name ~ '[[:cntrl:]]' THEN
        PERFORM ng.refuse(20, format('/%s: a line of text is needed, at most 200 characters', p_name));
    END IF;
    RETURN p->>p_name;
END $$;
CREATE OR REPLACE FUNCTION ng.body_time(p jsonb, p_name text) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p->p_name IS NULL THEN
        RETURN NULL;
    ELSIF p->>p_name !~ '^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$' THEN
        PERFORM ng.refuse(20, format('/%s: not an RFC 3339 instant', p_name));
    END IF;
    RETURN (p->>p_name)::timestamptz;
EXCEPTION WHEN datetime_field_overflow OR invalid_datetime_format THEN
    PERFORM ng.refuse(20, format('/%s: no such instant', p_name));
END $$;
CREATE OR REPLACE FUNCTION ng.body_only(p jsonb, VARIADIC p_names text[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE v_name text;
BEGIN
    IF jsonb_typeof(p) IS DISTINCT FROM 'object' THEN
        PERFORM ng.refuse(20, 'the body is not an object');
    END IF;
    SELECT k INTO v_name FROM jsonb_object_keys(p) k WHERE k <> ALL (p_names) LIMIT 1;
    IF FOUND THEN
        PERFORM ng.refuse(20, format('/%s: unknown member', v_name));
    END IF;
END $$;

CREATE OR REPLACE FUNCTION ng.month_of(p_at timestamptz, p_zone text, OUT since timestamptz, OUT until timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT date_trunc('month', p_at AT TIME ZONE p_zone) AT TIME ZONE p_zone,
           (date_trunc('month', p_at AT TIME ZONE p_zone) + interval '1 month') AT TIME ZONE p_zone
$$;
CREATE OR REPLACE FUNCTION ng.captured_since(p_hold integer, p_since timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(amount_micro), 0)::bigint FROM ng.transfer
     WHERE dr = p_hold AND kind IN ('capture', 'fee') AND at >= p_since
$$;

-- Each of 50, 80 and 100 % once a period.
CREATE OR REPLACE FUNCTION ng.budget_alert(p_tenant uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    b ng.budget;
    v_level integer;
BEGIN
    SELECT * INTO b FROM ng.budget WHERE tenant_id = p_tenant;
    FOREACH v_level IN ARRAY ARRAY[50, 80, 100] LOOP
        CONTINUE WHEN v_level <= b.alerted OR b.held_micro + b.spent_micro = 0
            OR (b.held_micro + b.spent_micro)::numeric * 100 < b.limit_micro::numeric * v_level;
        UPDATE ng.budget SET alerted = v_level WHERE tenant_id = p_tenant;
        PERFORM ng.tell('budget.alert', p_tenant, NULL, NULL, jsonb_build_object('percent', v_level, 'hard', b.hard,
            'period', b.period, 'currency', b.currency, 'limit_micro', b.limit_micro,
            'committed_micro', b.held_micro + b.spent_micro));
    END LOOP;
END $$;

-- Called by the trigger on transfers. A new period begins with what is held.
CREATE OR REPLACE FUNCTION ng.budget_apply(p_tenant uuid, p_hold integer, p_held bigint, p_spent bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    b ng.budget;
    v_month record;
BEGIN
    SELECT * INTO b FROM ng.budget WHERE tenant_id = p_tenant FOR NO KEY UPDATE;
    IF clock_timestamp() >= b.until THEN
        SELECT * INTO v_month FROM ng.month_of(clock_timestamp(), (SELECT zone FROM ng.tenant WHERE id = p_tenant));
        b.since := v_month.since;
        b.until := v_month.until;
        b.alerted := 0;
        b.spent_micro := ng.captured_since(p_hold, b.since);
        b.carried_micro := CASE WHEN b.held_micro > b.limit_micro THEN b.held_micro ELSE 0 END;
    ELSE
        b.spent_micro := b.spent_micro + p_spent;
    END IF;
    b.held_micro := b.held_micro + p_held;
    IF p_held + p_spent < 0 THEN -- what came back does not stay allowed
        b.carried_micro := CASE WHEN b.held_micro + b.spent_micro > b.limit_micro
            THEN least(b.carried_micro, b.held_micro + b.spent_micro) ELSE 0 END;
    END IF;
    UPDATE ng.budget SET since = b.since, until = b.until, alerted = b.alerted, spent_micro = b.spent_micro,
        held_micro = b.held_micro, carried_micro = b.carried_micro WHERE tenant_id = p_tenant;
    PERFORM ng.budget_alert(p_tenant);
END $$;

-- What a hard budget leaves; NULL without one. Never less than nothing, though a month may
-- begin with more held than it allows: what takes no money is not refused for it.
CREATE OR REPLACE FUNCTION ng.budget_room(p_tenant uuid, p_currency text) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT greatest(0, greatest(b.limit_micro, CASE WHEN clock_timestamp() < b.until THEN b.carried_micro ELSE 0 END)
           - b.held_micro - CASE WHEN clock_timestamp() < b.until THEN b.spent_micro ELSE 0 END)
      FROM ng.budget b WHERE b.tenant_id = p_tenant AND b.currency = p_currency AND b.hard
$$;
-- What a new hold may take of a wallet.
CREATE OR REPLACE FUNCTION ng.spendable(w ng.account) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT least(w.balance_micro - w.floor_micro, ng.budget_room(w.tenant_id, w.currency))
$$;
-- Which of the two did not cover it: 'budget' or 'funds'.
CREATE OR REPLACE FUNCTION ng.why_unpaid(p_tenant uuid, p_currency text) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN ng.budget_room(p_tenant, p_currency) < coalesce((
               SELECT w.balance_micro - w.floor_micro FROM ng.account w
                WHERE w.kind = 'wallet' AND w.tenant_id = p_tenant AND w.currency = p_currency), 0)
           THEN 'budget' ELSE 'funds' END
$$;

CREATE OR REPLACE FUNCTION ng.budget_json(p_tenant uuid) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('tenant', t.name, 'currency', b.currency, 'limit_micro', b.limit_micro, 'hard', b.hard,
               'period', b.period, 'from_us', ng.us(CASE WHEN x.over THEN b.until ELSE b.since END),
               'to_us', CASE WHEN isfinite(b.until) AND NOT x.over THEN ng.us(b.until) END,
               'held_micro', b.held_micro, 'spent_micro', CASE WHEN x.over THEN 0 ELSE b.spent_micro END,
               'committed_micro', b.held_micro + CASE WHEN x.over THEN 0 ELSE b.spent_micro END,
               'alerted_percent', CASE WHEN x.over THEN 0 ELSE b.alerted END)
      FROM ng.budget b JOIN ng.tenant t ON t.id = b.tenant_id
      CROSS JOIN LATERAL (SELECT clock_timestamp() >= b.until AS over) x
     WHERE b.tenant_id = p_tenant
$$;
-- Of p_tenant; an administrator (NULL) names one.
CREATE OR REPLACE FUNCTION ng.budget_owner(p_tenant uuid, p_name text) RETURNS ng.tenant
LANGUAGE plpgsql STABLE AS $$
DECLARE v ng.tenant;
BEGIN
    IF p_tenant IS NULL AND p_name IS NULL THEN
        PERFORM ng.refuse(20, 'tenant: say whose budget');
    ELSIF p_tenant IS NULL THEN
        RETURN ng.tenant_named(p_name);
    END IF;
    SELECT * INTO STRICT v FROM ng.tenant WHERE id = p_tenant;
    IF p_name IS NOT NULL AND p_name <> v.name THEN
        PERFORM ng.refuse(4, 'tenant: only your own budget');
    END IF;
    RETURN v;
END $$;
CREATE OR REPLACE FUNCTION api.budget_get(p_tenant uuid, p_name text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v jsonb := budget_json((budget_owner(p_tenant, p_name)).id);
BEGIN
    IF v IS NULL THEN
        PERFORM refuse(5, 'there is no budget');
    END IF;
    RETURN v;
END $$;
CREATE OR REPLACE FUNCTION api.budget_set(p_tenant uuid, p_name text, p_body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_owner tenant := budget_owner(p_tenant, p_name);
    v_period text := coalesce(p_body->>'period', 'month');
    v_limit bigint;
    v_old budget;
    v_hold account;
    v_since timestamptz;
    v_until timestamptz;
    v_spent bigint;
BEGIN
    PERFORM body_only(p_body, 'limit', 'hard', 'period');
    v_limit := body_money(p_body, 'limit');
    IF v_limit IS NULL THEN
        PERFORM refuse(20, '/limit: is missing');
    ELSIF v_period NOT IN ('month', 'total') THEN
        PERFORM refuse(20, '/period: month or total');
    ELSIF coalesce(jsonb_typeof(p_body->'hard'), 'boolean') <> 'boolean' THEN
        PERFORM refuse(20, '/hard: true or false');
    END IF;
    PERFORM account_of('hold', v_owner.id, NULL, currency());
    PERFORM 1 FROM account WHERE kind IN ('wallet', 'hold') AND tenant_id = v_owner.id ORDER BY id FOR NO KEY UPDATE;
    SELECT * INTO STRICT v_hold FROM account WHERE kind = 'hold' AND tenant_id = v_owner.id AND currency = currency();
    SELECT * INTO v_old FROM budget WHERE tenant_id = v_owner.id;
    IF v_period = 'month' THEN
        SELECT m.since, m.until INTO v_since, v_until FROM month_of(clock_timestamp(), v_owner.zone) m;
    ELSE
        v_since := CASE WHEN v_old.period = 'total' THEN v_old.since ELSE clock_timestamp() END;
        v_until := 'infinity';
    END IF;
    v_spent := captured_since(v_hold.id, v_since);
    DELETE FROM budget WHERE tenant_id = v_owner.id;
    INSERT INTO budget (tenant_id, currency, limit_micro, hard, period, since, until, held_micro, spent_micro, carried_micro)
    VALUES (v_owner.id, v_hold.currency, v_limit, coalesce((p_body->>'hard')::boolean, true), v_period, v_since, v_until,
        v_hold.balance_micro, v_spent,
        CASE WHEN v_hold.balance_micro + v_spent > v_limit THEN v_hold.balance_micro + v_spent ELSE 0 END);
    PERFORM budget_alert(v_owner.id);
    RETURN budget_json(v_owner.id);
END $$;
CREATE OR REPLACE FUNCTION api.budget_remove(p_tenant uuid, p_name text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v_owner tenant := budget_owner(p_tenant, p_name);
BEGIN
    DELETE FROM budget WHERE tenant_id = v_owner.id;
    IF NOT FOUND THEN
        PERFORM refuse(5, 'there is no budget');
    END IF;
    RETURN jsonb_build_object('tenant', v_owner.name);
END $$;
DROP VIEW IF EXISTS report.check_budget;
CREATE VIEW report.check_budget AS
    SELECT b.tenant_id, b.held_micro, h.balance_micro, b.spent_micro, c.sum AS captured_micro
      FROM ng.budget b
      JOIN ng.account h ON h.kind = 'hold' AND h.tenant_id = b.tenant_id AND h.currency = b.currency
      CROSS JOIN LATERAL (SELECT coalesce(sum(amount_micro), 0) AS sum FROM ng.transfer
                           WHERE dr = h.id AND kind IN ('capture', 'fee') AND at >= b.since AND at < b.until) c
     WHERE b.held_micro <> h.balance_micro OR b.spent_micro <> c.sum;

-- ---- promotional credit ----

-- Of a grant, in billing's order of accounts: the wallet may go lower by what is unspent.
CREATE OR REPLACE FUNCTION ng.promo_lock(p_tenant uuid, p_currency text) RETURNS void
LANGUAGE sql AS $$
    SELECT ng.billing_lock();
    SELECT ng.account_of(k, p_tenant, NULL, p_currency) FROM unnest(ARRAY['wallet', 'hold', 'promo']) k;
    SELECT 1 FROM ng.account WHERE kind IN ('wallet', 'hold', 'promo') AND tenant_id = p_tenant AND currency = p_currency
      ORDER BY id FOR NO KEY UPDATE
$$;
CREATE OR REPLACE FUNCTION ng.promo_json(g ng.promo_grant) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', g.id, 'tenant', (SELECT name FROM ng.tenant WHERE id = g.tenant_id),
        'currency', g.currency, 'amount_micro', g.amount_micro, 'used_micro', g.used_micro, 'expired_micro', g.back_micro,
        'left_micro', g.amount_micro - g.used_micro - g.back_micro, 'expires_us', ng.us(g.expires_at),
        'at_us', ng.us(g.at), 'reason', g.reason)
$$;
CREATE OR REPLACE FUNCTION api.promo_grant(p_body jsonb, p_by text, p_principal text, p_idem text, p_hash bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v_owner tenant;
    v_amount bigint;
    v_expires timestamptz;
    v_promo account;
    v_hold integer;
    g promo_grant;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    PERFORM body_only(p_body, 'tenant', 'amount', 'expires', 'reason');
    v_owner := tenant_named(body_text(p_body, 'tenant'));
    v_amount := body_money(p_body, 'amount');
    v_expires := body_time(p_body, 'expires');
    IF v_amount IS NULL OR v_expires IS NULL THEN
        PERFORM refuse(20, '/amount and /expires are needed');
    ELSIF v_expires <= clock_timestamp() THEN
        PERFORM refuse(20, '/expires: has passed');
    END IF;
    PERFORM promo_lock(v_owner.id, currency());
    SELECT * INTO STRICT v_promo FROM account WHERE kind = 'promo' AND tenant_id = v_owner.id AND currency = currency();
    v_hold := account_of('hold', v_owner.id, NULL, v_promo.currency);
    INSERT INTO promo_cursor (tenant_id, currency, transfer_id)
    SELECT v_owner.id, v_promo.currency, coalesce((SELECT max(id) FROM transfer), 0)
    ON CONFLICT (tenant_id, currency) DO UPDATE SET transfer_id = excluded.transfer_id, carry_micro = 0
     WHERE v_promo.balance_micro = 0; -- use before there was any left is not paid by it
    INSERT INTO promo_grant (tenant_id, currency, amount_micro, expires_at, reason, granted_by)
    VALUES (v_owner.id, v_promo.currency, v_amount, v_expires, body_text(p_body, 'reason'), p_by) RETURNING * INTO g;
    PERFORM must_post(clock_timestamp(), 'promo', account_of('promo_expense', NULL, NULL, g.currency), v_promo.id, g.currency,
        v_amount, NULL, 'promo/' || g.id);
    UPDATE account SET floor_micro = floor_micro - v_amount
     WHERE kind = 'wallet' AND tenant_id = v_owner.id AND currency = g.currency;
    PERFORM tell('wallet.changed', v_owner.id, NULL, NULL);
    RETURN idem_new(p_principal, p_idem, p_hash, promo_json(g));
END $$;
CREATE OR REPLACE FUNCTION api.promo_list(p_tenant uuid, p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT page('promos', (SELECT jsonb_agg(promo_json(g) || jsonb_build_object('_key', lpad(g.id::text, 18, '0')) ORDER BY g.id DESC)
        FROM (SELECT * FROM promo_grant
               WHERE (p_tenant IS NULL OR tenant_id = p_tenant) AND (p_cursor IS NULL OR id < p_cursor::bigint)
               ORDER BY id DESC LIMIT p_limit + 1) g), p_limit)
$$;

-- Takes p_amount of a grant out of the promo account and lifts the wallet's floor by it.
CREATE OR REPLACE FUNCTION ng.promo_take(g ng.promo_grant, p_kind text, p_cr integer, p_amount bigint, p_ref text) RETURNS void
LANGUAGE sql AS $$
    UPDATE ng.promo_grant SET used_micro = used_micro + CASE WHEN p_kind = 'promo_used' THEN p_amount ELSE 0 END,
        back_micro = back_micro + CASE WHEN p_kind = 'promo_back' THEN p_amount ELSE 0 END WHERE id = g.id;
    SELECT ng.must_post(clock_timestamp(), p_kind, ng.account_of('promo', g.tenant_id, NULL, g.currency), p_cr, g.currency,
        p_amount, NULL, p_ref);
    UPDATE ng.account SET floor_micro = floor_micro + p_amount
     WHERE kind = 'wallet' AND tenant_id = g.tenant_id AND currency = g.currency
$$;
-- One tenant's use since the cursor, less what was given back of it, is paid by its grants,
-- the first to expire first. Then what expired goes back, as far as it is not held.
CREATE OR REPLACE FUNCTION ng.promo_round(p_tenant uuid, p_currency text) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_wallet integer := ng.account_of('wallet', p_tenant, NULL, p_currency);
    v_hold integer := ng.account_of('hold', p_tenant, NULL, p_currency);
    v_expense integer := ng.account_of('promo_expense', NULL, NULL, p_currency);
    c ng.promo_cursor;
    g ng.promo_grant;
    v_last bigint;
    v_net numeric;
    v_take bigint;
    v_count integer := 0;
BEGIN
    PERFORM ng.promo_lock(p_tenant, p_currency);
    SELECT * INTO STRICT c FROM ng.promo_cursor WHERE tenant_id = p_tenant AND currency = p_currency FOR UPDATE;
    SELECT coalesce(sum(x.amount), 0) + c.carry_micro, greatest(c.transfer_id, max(x.id)) INTO v_net, v_last
      FROM (SELECT id, amount_micro AS amount FROM ng.transfer
             WHERE dr = v_hold AND id > c.transfer_id AND kind IN ('capture', 'fee')
            UNION ALL
            SELECT id, -amount_micro FROM ng.transfer
             WHERE cr = v_wallet AND id > c.transfer_id AND kind IN ('refund', 'refund_fee', 'sla', 'sla_fee')) x;
    FOR g IN SELECT * FROM ng.promo_grant
              WHERE tenant_id = p_tenant AND currency = p_currency AND used_micro + back_micro < amount_micro
              ORDER BY expires_at, id
    LOOP
        v_take := least(v_net, g.amount_micro - g.used_micro - g.back_micro);
        EXIT WHEN v_take <= 0;
        PERFORM ng.promo_take(g, 'promo_used', v_wallet, v_take, 'promo/' || g.id || '/' || v_last);
        v_net := v_net - v_take;
        v_count := v_count + 1;
    END LOOP;
    UPDATE ng.promo_cursor SET transfer_id = v_last, carry_micro = least(v_net, 0)
     WHERE tenant_id = p_tenant AND currency = p_currency;
    FOR g IN SELECT * FROM ng.promo_grant
              WHERE tenant_id = p_tenant AND currency = p_currency AND used_micro + back_micro < amount_micro
                AND expires_at <= clock_timestamp()
              ORDER BY expires_at, id
    LOOP
        v_take := least((SELECT balance_micro - floor_micro FROM ng.account WHERE id = v_wallet),
            g.amount_micro - g.used_micro - g.back_micro);
        CONTINUE WHEN v_take <= 0;
        PERFORM ng.promo_take(g, 'promo_back', v_expense, v_take, 'promo/' || g.id || '/back/' || (g.back_micro + v_take));
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;
CREATE OR REPLACE FUNCTION api.billing_promo() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v record;
    v_count integer := 0;
BEGIN
    FOR v IN SELECT tenant_id, currency FROM account WHERE kind = 'promo' AND balance_micro > 0 ORDER BY id LOOP
        v_count := v_count + promo_round(v.tenant_id, v.currency);
    END LOOP;
    RETURN v_count;
END $$;
DROP VIEW IF EXISTS report.check_promo;
CREATE VIEW report.check_promo AS
    SELECT p.tenant_id, p.currency, p.balance_micro, g.left_micro, w.floor_micro, g.used_micro, t.used_micro AS transfers_micro
      FROM ng.account p
      CROSS JOIN LATERAL (SELECT coalesce(sum(amount_micro - used_micro - back_micro), 0) AS left_micro,
                                 coalesce(sum(used_micro), 0) AS used_micro, coalesce(sum(back_micro), 0) AS back_micro
                            FROM ng.promo_grant WHERE tenant_id = p.tenant_id AND currency = p.currency) g
      CROSS JOIN LATERAL (SELECT coalesce(sum(amount_micro) FILTER (WHERE kind = 'promo_used'), 0) AS used_micro,
                                 coalesce(sum(amount_micro) FILTER (WHERE kind = 'promo_back'), 0) AS back_micro
                            FROM ng.transfer WHERE dr = p.id) t
      JOIN ng.account w ON w.kind = 'wallet' AND w.tenant_id = p.tenant_id AND w.currency = p.currency
     WHERE p.kind = 'promo' AND (p.balance_micro <> g.left_micro OR -w.floor_micro < p.balance_micro
        OR g.used_micro <> t.used_micro OR g.back_micro <> t.back_micro);

-- ---- incidents and what is credited for them ----

CREATE OR REPLACE FUNCTION ng.incident_json(i ng.incident) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', i.id, 'what', i.what, 'name', coalesce(
               (SELECT name FROM ng.provider WHERE id = i.provider_id), (SELECT name FROM ng.site WHERE id = i.site_id),
               (SELECT name FROM ng.node WHERE id = i.node_id), (SELECT name FROM ng.path WHERE id = i.path_id), ''),
        'fault', i.fault, 'from_us', ng.us(i.from_at), 'to_us', ng.us(i.to_at), 'reason', i.reason,
        'opened_by', i.opened_by, 'reservation', i.reservation_id, 'currency', ng.currency(),
        'credits', (SELECT count(*) FROM ng.sla_credit c WHERE c.incident_id = i.id),
        'credited_micro', (SELECT coalesce(sum(c.amount_micro), 0) FROM ng.sla_credit c WHERE c.incident_id = i.id))
$$;
CREATE OR REPLACE FUNCTION api.incident_open(p_body jsonb, p_by text, p_principal text, p_idem text, p_hash bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_reply jsonb := idem_old(p_principal, p_idem, p_hash);
    v_what text := p_body->>'what';
    v_name text := p_body->>'name';
    i incident;
BEGIN
    IF v_reply IS NOT NULL THEN
        RETURN v_reply;
    END IF;
    PERFORM body_only(p_body, 'what', 'name', 'site', 'fault', 'from', 'to', 'reason');
    IF v_what IS NULL OR v_what NOT IN ('provider', 'site', 'node', 'path', 'platform') THEN
        PERFORM refuse(20, '/what: provider, site, node, path or platform');
    ELSIF (v_what = 'platform') <> (v_name IS NULL) THEN
        PERFORM refuse(20, '/name: of the provider, site, node or path');
    END IF;
    IF v_what = 'node' AND (SELECT count(*) FROM node n JOIN site s ON s.id = n.site_id
                             WHERE n.name = v_name AND (p_body->>'site' IS NULL OR s.name = p_body->>'site')) > 1 THEN
        PERFORM refuse(20, format('/site: several nodes are named %s', v_name));
    END IF;
    SELECT id INTO i.provider_id FROM provider WHERE v_what = 'provider' AND name = v_name;
    SELECT id INTO i.site_id FROM site WHERE v_what = 'site' AND name = v_name;
    SELECT n.id INTO i.node_id FROM node n JOIN site s ON s.id = n.site_id
     WHERE v_what = 'node' AND n.name = v_name AND (p_body->>'site' IS NULL OR s.name = p_body->>'site');
    SELECT id INTO i.path_id FROM path WHERE v_what = 'path' AND name = v_name;
    IF v_what <> 'platform' AND coalesce(i.provider_id::text, i.site_id::text, i.node_id::text, i.path_id::text) IS NULL THEN
        PERFORM refuse(5, format('there is no %s %s', v_what, v_name));
    END IF;
    i.fault := coalesce(p_body->>'fault', CASE WHEN v_what = 'platform' THEN 'platform' ELSE 'provider' END);
    IF i.fault NOT IN ('provider', 'platform') OR v_what = 'platform' AND i.fault <> 'platform' THEN
        PERFORM refuse(20, '/fault: provider or platform');
    END IF;
    i.from_at := coalesce(body_time(p_body, 'from'), clock_timestamp());
    i.to_at := body_time(p_body, 'to');
    IF i.to_at < i.from_at THEN
        PERFORM refuse(20, '/to: before /from');
    ELSIF greatest(i.from_at, i.to_at) > clock_timestamp() + interval '1 minute' THEN
        PERFORM refuse(20, format('/%s: has not come yet', CASE WHEN i.from_at > clock_timestamp() THEN 'from' ELSE 'to' END));
    END IF;
    INSERT INTO incident (what, provider_id, site_id, node_id, path_id, fault, from_at, to_at, closed_by, reason, opened_by)
    VALUES (v_what, i.provider_id, i.site_id, i.node_id, i.path_id, i.fault, i.from_at, i.to_at,
        CASE WHEN i.to_at IS NOT NULL THEN p_by END, body_text(p_body, 'reason'), p_by)
    RETURNING * INTO i;
    RETURN idem_new(p_principal, p_idem, p_hash, incident_json(i));
END $$;
CREATE OR REPLACE FUNCTION ng.incident_get(p_id text) RETURNS ng.incident
LANGUAGE plpgsql AS $$
DECLARE i ng.incident;
BEGIN
    SELECT * INTO i FROM ng.incident WHERE id = CASE WHEN p_id ~ '^[0-9]{1,18}$' THEN p_id::bigint END FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ng.refuse(5, format('there is no incident %s', p_id));
    END IF;
    RETURN i;
END $$;
CREATE OR REPLACE FUNCTION api.incident_close(p_id text, p_body jsonb, p_by text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    i incident := incident_get(p_id);
    v_to timestamptz;
BEGIN
    PERFORM body_only(p_body, 'to');
    v_to := body_time(p_body, 'to');
    IF i.to_at IS NOT NULL AND v_to IS DISTINCT FROM i.to_at AND v_to IS NOT NULL THEN
        PERFORM refuse(6, format('incident %s is closed', i.id));
    ELSIF i.to_at IS NULL THEN
        v_to := coalesce(v_to, clock_timestamp());
        IF v_to < i.from_at THEN
            PERFORM refuse(20, '/to: before the incident began');
        END IF;
        UPDATE incident SET to_at = v_to, closed_by = p_by WHERE id = i.id RETURNING * INTO i;
    END IF;
    RETURN incident_json(i);
END $$;

-- What of a reservation was captured for what an incident is about and is not given back,
-- by who earned it.
CREATE OR REPLACE FUNCTION ng.sla_base(i ng.incident, p_reservation uuid)
RETURNS TABLE (provider_id uuid, gross bigint, fee bigint) LANGUAGE sql STABLE AS $$
    SELECT y.provider_id, y.gross, ng.money_mul(y.gross, w.fee_micro, w.gross_micro)
      FROM (
    SELECT x.provider_id, sum(x.gross)::bigint AS gross
      FROM (SELECT n.provider_id, m.amount_micro AS gross
              FROM ng.meter m JOIN ng.node n ON n.id = m.node_id
             WHERE m.reservation_id = p_reservation AND i.what <> 'path' AND coalesce(n.provider_id = i.provider_id, true)
               AND coalesce(n.site_id = i.site_id, true) AND coalesce(n.id = i.node_id, true)
            UNION ALL
            SELECT p.provider_id, k.captured_micro
              FROM ng.path_booking k JOIN ng.path p ON p.id = k.path_id
             WHERE k.reservation_id = p_reservation AND i.what IN ('path', 'platform', 'provider')
               AND coalesce(p.id = i.path_id, true) AND coalesce(p.provider_id = i.provider_id, true)) x
     GROUP BY x.provider_id) z
      JOIN ng.refund_rest(p_reservation) w ON w.provider_id = z.provider_id AND w.gross_micro > 0
      CROSS JOIN LATERAL (SELECT z.provider_id, least(z.gross, w.gross_micro) AS gross) y
     WHERE y.gross > 0
$$;
-- What a tenant had back of what was captured.
CREATE OR REPLACE FUNCTION ng.taken_back(r ng.reservation) RETURNS bigint
LANGUAGE sql STABLE AS $$ SELECT r.refunded_micro + r.credited_micro $$;

-- Credits p_amount, or p_ppm of what was captured for what the incident is about, to the
-- tenant of a reservation, once an incident: at the cost of whose fault it was. Each
-- provider bears its part, the market the fee it had of that.
CREATE OR REPLACE FUNCTION ng.sla_post(i ng.incident, p_reservation uuid, p_ppm bigint, p_amount bigint, p_by text)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    r ng.reservation;
    v record;
    v_base bigint;
    v_amount bigint;
    v_wallet integer;
    v_id bigint;
    v_ref text;
    v_done bigint := 0; -- of the base, then of the amount
    v_paid bigint := 0;
    v_part bigint;
    v_fee bigint;
    v_rest bigint; -- what the provider does not have, the market bears
BEGIN
    PERFORM ng.billing_lock();
    SELECT * INTO r FROM ng.reservation WHERE id = p_reservation FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ng.refuse(5, format('there is no reservation %s', p_reservation));
    END IF;
    IF EXISTS (SELECT FROM ng.sla_credit WHERE incident_id = i.id AND reservation_id = r.id) THEN
        PERFORM ng.refuse(6, format('reservation %s was credited for incident %s', r.id, i.id));
    END IF;
    SELECT coalesce(sum(gross), 0) INTO v_base FROM ng.sla_base(i, r.id);
    v_amount := coalesce(p_amount, least(ng.money_mul(v_base, p_ppm, 1000000), r.captured_micro - ng.taken_back(r)));
    IF v_amount > least(v_base, r.captured_micro - ng.taken_back(r)) THEN
        PERFORM ng.refuse(6, format('%s micro is more than what was captured for this and is not given back yet: %s', v_amount,
            least(v_base, r.captured_micro - ng.taken_back(r))));
    ELSIF v_amount <= 0 THEN
        PERFORM ng.refuse(6, format('nothing was captured of reservation %s for incident %s, or it was given back', r.id, i.id));
    END IF;
    INSERT INTO ng.sla_credit (incident_id, reservation_id, amount_micro, reason, credited_by)
    VALUES (i.id, r.id, v_amount, i.reason, p_by) RETURNING id INTO v_id;
    UPDATE ng.reservation SET credited_micro = credited_micro + v_amount WHERE id = r.id;
    v_wallet := ng.account_of('wallet', r.tenant_id, NULL, r.currency);
    v_ref := 'sla/' || v_id;
    IF i.fault = 'platform' THEN
        PERFORM ng.must_post(clock_timestamp(), 'sla', ng.account_of('sla_expense', NULL, NULL, r.currency), v_wallet,
            r.currency, v_amount, r.id, v_ref || '/platform');
    ELSE
        FOR v IN SELECT * FROM ng.sla_base(i, r.id) ORDER BY provider_id LOOP
            v_done := v_done + v.gross;
            v_part := ng.money_mul(v_done, v_amount, v_base) - v_paid;
            v_fee := ng.money_mul(v_part, v.fee, v.gross);
            v_rest := ng.provider_take('sla', v.provider_id, r.currency, r.id, v_part - v_fee, v_wallet, v_ref || '/' || v.provider_id);
            PERFORM ng.must_post(clock_timestamp(), 'sla', ng.account_of('sla_expense', NULL, NULL, r.currency), v_wallet,
                r.currency, v_rest, r.id, v_ref || '/' || v.provider_id || '/market');
            INSERT INTO ng.refund_share (reservation_id, provider_id, gross_micro, fee_micro) VALUES (r.id, v.provider_id, v_part, v_fee)
            ON CONFLICT (reservation_id, provider_id) DO UPDATE SET gross_micro = refund_share.gross_micro + excluded.gross_micro,
                fee_micro = refund_share.fee_micro + excluded.fee_micro;
            PERFORM ng.must_post(clock_timestamp(), 'sla_fee', ng.account_of('fee', NULL, NULL, r.currency), v_wallet,
                r.currency, v_fee, r.id, v_ref || '/' || v.provider_id);
            v_paid := v_paid + v_part;
        END LOOP;
    END IF;
    PERFORM ng.tell('sla.credit', r.tenant_id, r.id, NULL, jsonb_build_object('incident', i.id, 'currency', r.currency,
        'amount_micro', v_amount, 'reason', i.reason));
    RETURN v_amount;
END $$;

-- One reservation, or every one that used what the incident is about while it lasted.
CREATE OR REPLACE FUNCTION api.sla_credit(p_id text, p_body jsonb, p_by text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    i incident := incident_get(p_id);
    v_ppm bigint;
    v_amount bigint;
    v_resv uuid;
    v_each uuid;
    v_list jsonb := '[]';
BEGIN
    PERFORM body_only(p_body, 'reservation', 'percent_ppm', 'amount');
    v_ppm := body_int(p_body, 'percent_ppm');
    v_amount := body_money(p_body, 'amount');
    IF (v_ppm IS NULL) = (v_amount IS NULL) OR v_ppm NOT BETWEEN 1 AND 1000000 THEN
        PERFORM refuse(20, 'say /percent_ppm, from 1 to 1000000, or /amount');
    END IF;
    PERFORM billing_lock();
    IF p_body ? 'reservation' THEN
        v_resv := uuid_of(p_body->>'reservation');
        IF v_resv IS NULL THEN
            PERFORM refuse(20, '/reservation: not an id');
        END IF;
        v_amount := sla_post(i, v_resv, v_ppm, v_amount, p_by);
        v_list := jsonb_build_array(jsonb_build_object('reservation', v_resv, 'amount_micro', v_amount, 'currency', currency()));
    ELSIF v_amount IS NOT NULL THEN
        PERFORM refuse(20, '/amount: is for one /reservation; for all of them say /percent_ppm');
    ELSE
        FOR v_each IN
            SELECT r.id FROM reservation r
             WHERE r.during && tstzrange(i.from_at, coalesce(i.to_at, 'infinity')) AND r.captured_micro > taken_back(r)
               AND coalesce(r.ended_at, 'infinity') > i.from_at
               AND EXISTS (SELECT FROM sla_base(i, r.id))
               AND NOT EXISTS (SELECT FROM sla_credit c WHERE c.incident_id = i.id AND c.reservation_id = r.id)
             ORDER BY r.id
        LOOP
            v_amount := sla_post(i, v_each, v_ppm, NULL, p_by);
            v_list := v_list || jsonb_build_object('reservation', v_each, 'amount_micro', v_amount, 'currency', currency());
        END LOOP;
    END IF;
    RETURN jsonb_build_object('incident', i.id, 'credits', v_list);
END $$;

-- Leases that are billed to their end are looked at once.
CREATE OR REPLACE FUNCTION ng.sla_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    INSERT INTO sla_due VALUES (NEW.id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER sla_note AFTER UPDATE OF rest_back ON ng.reservation
    FOR EACH ROW WHEN (NEW.rest_back AND NOT OLD.rest_back AND NEW.captured_micro > 0) EXECUTE FUNCTION ng.sla_note();
-- A node that was not there for longer than the terms allow is an incident, its provider's
-- fault, and is credited: that of the outage (incident.sql), or one of the lease's own.
CREATE OR REPLACE FUNCTION api.billing_sla(p_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v record;
    i incident;
    v_ppm integer;
    v_count integer := 0;
BEGIN
    PERFORM billing_lock();
    FOR v IN
        WITH due AS (
            DELETE FROM sla_due WHERE reservation_id IN (SELECT reservation_id FROM sla_due ORDER BY 1 LIMIT p_limit FOR UPDATE SKIP LOCKED)
            RETURNING reservation_id)
        SELECT r.id, m.node_id, n.name, lower(r.during) AS since, w.until, w.promised_ms, w.promised_ms - m.gpu_ms / c.gpus AS gap_ms
          FROM due d JOIN reservation r ON r.id = d.reservation_id
          JOIN meter m ON m.reservation_id = r.id AND m.amount_micro > 0
          JOIN node n ON n.id = m.node_id
          CROSS JOIN LATERAL chain_terms(r.id, m.node_id) c
          CROSS JOIN LATERAL (
              SELECT x.until, ((us(x.until) - us(lower(r.during))) / 1000) AS promised_ms
                FROM (SELECT CASE WHEN r.state = 'failed' THEN upper(r.during)
                                  ELSE least(upper(r.during), coalesce(r.ended_at, upper(r.during))) END AS until) x) w
         WHERE c.gpus > 0 AND w.promised_ms > 0
         ORDER BY r.id, m.node_id
    LOOP
        SELECT t.credit_ppm INTO v_ppm FROM sla_terms t
         WHERE v.gap_ms >= extract(epoch FROM t.gap) * 1000 AND v.gap_ms::numeric * 1000000 >= v.promised_ms::numeric * t.share_ppm
         ORDER BY t.credit_ppm DESC LIMIT 1;
        CONTINUE WHEN NOT FOUND OR EXISTS (SELECT FROM incident x WHERE x.reservation_id = v.id AND x.node_id = v.node_id);
        i := outage_of(v.node_id, v.since, v.until); -- seen while it lasted, or only now
        CONTINUE WHEN EXISTS (SELECT FROM sla_credit c WHERE c.incident_id = i.id AND c.reservation_id = v.id);
        IF i.id IS NULL THEN
            INSERT INTO incident (what, node_id, fault, from_at, to_at, reason, opened_by, closed_by, reservation_id)
            VALUES ('node', v.node_id, 'provider', v.since, v.until, format('node %s was not there for %s of %s minutes of the lease',
                v.name, v.gap_ms / 60000, v.promised_ms / 60000), 'market', 'market', v.id)
            RETURNING * INTO i;
        END IF;
        -- An incident all the same where nothing is left to give back, or a part of it is none.
        IF (SELECT least(money_mul((SELECT coalesce(sum(gross), 0)::bigint FROM sla_base(i, r.id)), v_ppm, 1000000),
                         r.captured_micro - taken_back(r)) > 0 FROM reservation r WHERE r.id = v.id) THEN
            PERFORM sla_post(i, v.id, v_ppm, NULL, 'market');
        END IF;
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;
DROP VIEW IF EXISTS report.check_sla;
CREATE VIEW report.check_sla AS
    SELECT r.id AS reservation, r.credited_micro, coalesce(c.sum, 0) AS credits_micro, coalesce(t.sum, 0) AS transfers_micro
      FROM ng.reservation r
      LEFT JOIN (SELECT reservation_id, sum(amount_micro) FROM ng.sla_credit GROUP BY 1) c ON c.reservation_id = r.id
      LEFT JOIN (SELECT reservation_id, sum(amount_micro) FROM ng.transfer WHERE kind IN ('sla', 'sla_fee') GROUP BY 1) t
        ON t.reservation_id = r.id
     WHERE r.credited_micro <> coalesce(c.sum, 0) OR r.credited_micro <> coalesce(t.sum, 0);

-- ---- exchange ----

CREATE OR REPLACE FUNCTION api.fx_set(p_body jsonb, p_by text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v fx_rate;
BEGIN
    PERFORM body_only(p_body, 'base', 'quote', 'rate', 'source');
    IF NOT EXISTS (SELECT FROM currency_exponent WHERE currency = p_body->>'base')
        OR NOT EXISTS (SELECT FROM currency_exponent WHERE currency = p_body->>'quote') OR p_body->>'base' = p_body->>'quote' THEN
        PERFORM refuse(20, '/base and /quote: two currencies, such as EUR and JPY');
    ELSIF jsonb_typeof(p_body->'rate') IS DISTINCT FROM 'string' OR p_body->>'rate' !~ '^[0-9]{1,12}(\.[0-9]{1,9})?$'
        OR (p_body->>'rate')::numeric = 0 THEN
        PERFORM refuse(20, '/rate: a decimal number as text, more than 0, at most 9 digits after the point');
    END IF;
    INSERT INTO fx_rate (base, quote, rate, source, set_by)
    VALUES (p_body->>'base', p_body->>'quote', (p_body->>'rate')::numeric, body_text(p_body, 'source'), p_by) RETURNING * INTO v;
    RETURN jsonb_build_object('id', v.id, 'base', v.base, 'quote', v.quote, 'rate', trim_scale(v.rate)::text, 'source', v.source,
        'at_us', us(v.at), 'set_by', v.set_by);
END $$;
-- The newest of each pair.
CREATE OR REPLACE FUNCTION api.fx_list() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('rates', coalesce(jsonb_agg(jsonb_build_object('id', v.id, 'base', v.base, 'quote', v.quote,
        'rate', trim_scale(v.rate)::text, 'source', v.source, 'at_us', us(v.at), 'set_by', v.set_by) ORDER BY v.base, v.quote), '[]'))
      FROM (SELECT DISTINCT ON (base, quote) * FROM fx_rate ORDER BY base, quote, id DESC) v
$$;
-- p_micro at a rate, half away from zero, in whole numbers.
CREATE OR REPLACE FUNCTION ng.fx_convert(p_micro bigint, p_rate numeric) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT div(2 * p_micro::numeric * (p_rate * 1000000000) + 1000000000, 2000000000::numeric)::bigint
$$;
-- A top-up in another currency: two legs at the newest rate. False: the reference is taken.
CREATE OR REPLACE FUNCTION ng.fx_topup(p_wallet integer, p_amount bigint, p_currency text, p_reference text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_rate ng.fx_rate;
    v_to text := ng.currency();
    v_got bigint;
BEGIN
    SELECT * INTO v_rate FROM ng.fx_rate WHERE base = p_currency AND quote = v_to ORDER BY id DESC LIMIT 1;
    IF NOT FOUND THEN
        PERFORM ng.refuse(20, format('this market keeps accounts in %s, and has no rate for %s', v_to, p_currency));
    END IF;
    v_got := ng.fx_convert(p_amount, least(v_rate.rate, 2e15 / p_amount)); -- far too much stays a bigint
    IF v_got <= 0 OR v_got > 1000000000000000 THEN
        PERFORM ng.refuse(20, format('/amount/micro: at %s that is too little or too much: at most %s', trim_scale(v_rate.rate), ng.money_text(1000000000000000, v_to)));
    END IF;
    IF NOT ng.post('fx', ng.account_of('bank', NULL, NULL, p_currency), ng.account_of('fx', NULL, NULL, p_currency), p_currency,
        p_amount, NULL, p_reference || '/paid') THEN
        RETURN false;
    END IF;
    PERFORM ng.must_post(clock_timestamp(), 'fx', ng.account_of('fx', NULL, NULL, v_to), p_wallet, v_to, v_got, NULL, p_reference);
    INSERT INTO ng.fx (rate_id, paid, received)
    SELECT v_rate.id, a.id, b.id FROM ng.transfer a, ng.transfer b
     WHERE a.kind = 'fx' AND a.ref = p_reference || '/paid' AND b.kind = 'fx' AND b.ref = p_reference;
    RETURN true;
END $$;
-- Both legs at the rate, and undone both or neither.
DROP VIEW IF EXISTS report.check_fx;
CREATE VIEW report.check_fx AS
    SELECT t.id AS transfer, x.id AS exchange, x.rate, x.paid_micro, x.received_micro
      FROM ng.transfer t
      LEFT JOIN (SELECT f.*, r.rate, r.base, r.quote, a.amount_micro AS paid_micro, a.currency AS paid_in, a.kind AS paid_kind,
                        b.amount_micro AS received_micro, b.currency AS received_in, b.kind AS received_kind
                   FROM ng.fx f JOIN ng.fx_rate r ON r.id = f.rate_id JOIN ng.transfer a ON a.id = f.paid
                   JOIN ng.transfer b ON b.id = f.received) x ON t.id IN (x.paid, x.received)
     WHERE t.kind = 'fx' AND (x.id IS NULL OR (x.base, x.quote) <> (x.paid_in, x.received_in)
        OR (x.paid_kind, x.received_kind) <> ('fx', 'fx')
        OR EXISTS (SELECT FROM ng.transfer r WHERE r.reverses = x.paid) <> EXISTS (SELECT FROM ng.transfer r WHERE r.reverses = x.received)
        OR x.received_micro <> div(2 * x.paid_micro::numeric * (x.rate * 1000000000) + 1000000000, 2000000000::numeric));

-- ---- alarms ----

-- Reads all checks and keeps what they found, for administrators to be told.
CREATE OR REPLACE FUNCTION api.billing_check()
RETURNS TABLE (name text, breaches bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO check_result (name, breaches, at) SELECT c.name, c.breaches, clock_timestamp() FROM api.check_all() c
    ON CONFLICT (name) DO UPDATE SET breaches = excluded.breaches, at = excluded.at;
    DELETE FROM check_result r WHERE r.at < statement_timestamp();
    RETURN QUERY SELECT r.name, r.breaches FROM check_result r ORDER BY 1;
END $$;
CREATE OR REPLACE FUNCTION api.check_last() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('checks', (SELECT coalesce(jsonb_object_agg(name, breaches), '{}') FROM check_result),
        'checked_us', (SELECT us(min(at)) FROM check_result),
        'receipt_forks', (SELECT count(*) FROM receipt_fork), 'rollups', rollup_status())
$$;
