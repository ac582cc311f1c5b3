-- Money out: settlement of what providers earned, payouts, refunds with credit notes, top-ups
-- that the bank took back, money that tenants take out. What moves it stands in
-- sql/api/settle.sql, payout.sql and refund.sql.

-- T and 13 digits, the first of which makes the weighted sum of the others whole (the
-- corporate number's own check).
CREATE FUNCTION ng.is_registration(p text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p ~ '^T[1-9][0-9]{12}$' THEN substr(p, 2, 1)::integer = 9 - (
        SELECT sum(substr(p, 15 - n, 1)::integer * (CASE WHEN n % 2 = 1 THEN 1 ELSE 2 END))
          FROM generate_series(1, 12) n) % 9 ELSE false END
$$;
-- What a bank's file may have in a name: JIS X 0201, capital letters and half-width kana.
CREATE FUNCTION ng.is_bank_text(p text, p_max integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT char_length(p) <= p_max AND p ~ '^[0-9A-Z ().,/｢｣\-ｱ-ﾝﾞﾟｦ]*$'
$$;
-- An account at a bank: {bank, bank_name, branch, branch_name, type, number, holder}.
CREATE FUNCTION ng.is_bank(p jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(p->>'bank' ~ '^[0-9]{4}$' AND p->>'branch' ~ '^[0-9]{3}$' AND p->>'type' IN ('1', '2', '4', '9')
        AND p->>'number' ~ '^[0-9]{7}$' AND ng.is_bank_text(p->>'holder', 30) AND p->>'holder' <> ''
        AND ng.is_bank_text(coalesce(p->>'bank_name', ''), 15) AND ng.is_bank_text(coalesce(p->>'branch_name', ''), 15), false)
$$;

ALTER TABLE ng.market
    ADD COLUMN dispute_window interval NOT NULL DEFAULT '7 days' CHECK (dispute_window >= '0'),
    ADD COLUMN reserve_ppm integer NOT NULL DEFAULT 0 CHECK (reserve_ppm BETWEEN 0 AND 1000000),
    ADD COLUMN reserve_for interval NOT NULL DEFAULT '30 days' CHECK (reserve_for >= '0'),
    ADD COLUMN bank jsonb CHECK (bank IS NULL OR ng.is_bank(bank) AND coalesce(bank->>'client' ~ '^[0-9]{10}$', false)); -- whom payouts are charged to
ALTER TABLE ng.provider
    ADD COLUMN bank jsonb CHECK (bank IS NULL OR ng.is_bank(bank)),
    ADD COLUMN registration text CHECK (registration IS NULL OR ng.is_registration(registration)),
    ADD COLUMN reserve_ppm integer CHECK (reserve_ppm BETWEEN 0 AND 1000000), -- null: the market's
    ADD COLUMN zone text NOT NULL DEFAULT 'Asia/Tokyo'; -- months of statements

-- Of administrators, each has a name: what one asked for another approves.
UPDATE ng.api_key SET label = 'admin' WHERE role = 'admin' AND label IN ('', 'first')
   AND id = (SELECT id FROM ng.api_key WHERE role = 'admin' AND revoked_at IS NULL ORDER BY created_at, id LIMIT 1);
UPDATE ng.api_key SET label = 'admin-' || left(id::text, 8) WHERE role = 'admin' AND label IN ('', 'first');
CREATE FUNCTION ng.admin_label() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.label := CASE WHEN NEW.label IN ('', 'first') THEN 'admin' ELSE NEW.label END;
    RETURN NEW;
END $$;
CREATE TRIGGER admin_label BEFORE INSERT OR UPDATE OF label ON ng.api_key
    FOR EACH ROW WHEN (NEW.role = 'admin') EXECUTE FUNCTION ng.admin_label();
CREATE UNIQUE INDEX api_key_admin ON ng.api_key (label) WHERE role = 'admin' AND revoked_at IS NULL;

-- ---- settlement ----

-- Of a provider's account of what is pending: which captures were looked at. What is kept
-- back is the rounded part of all that was settled under one rate, less what was kept.
CREATE TABLE ng.settle_cursor (
    account integer PRIMARY KEY REFERENCES ng.account,
    transfer_id bigint NOT NULL DEFAULT 0,
    ppm integer NOT NULL DEFAULT 0,
    net_micro bigint NOT NULL DEFAULT 0,     -- settled under this rate
    reserve_micro bigint NOT NULL DEFAULT 0  -- ... and kept of it
);
CREATE TABLE ng.settlement (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    account integer NOT NULL REFERENCES ng.account,
    provider_id uuid NOT NULL REFERENCES ng.provider,
    currency ng.currency NOT NULL,
    transfers int8range NOT NULL, -- the captures in it, by number; empty: one that was disputed
    captures bigint NOT NULL CHECK (captures >= 0),
    gross_micro bigint NOT NULL CHECK (gross_micro >= 0),
    less_micro bigint NOT NULL CHECK (less_micro BETWEEN 0 AND gross_micro), -- refunded meanwhile
    reserve_ppm integer NOT NULL,
    reserve_micro bigint NOT NULL CHECK (reserve_micro BETWEEN 0 AND gross_micro - less_micro),
    release_at timestamptz NOT NULL,
    released_at timestamptz,
    released_micro bigint CHECK (released_micro BETWEEN 0 AND reserve_micro),
    CHECK ((released_at IS NULL) = (released_micro IS NULL)),
    CONSTRAINT settled_once EXCLUDE USING gist (account WITH =, transfers WITH &&)
);
CREATE INDEX settlement_reserved ON ng.settlement (account, release_at, id) WHERE released_at IS NULL AND reserve_micro > 0;
CREATE INDEX settlement_provider ON ng.settlement (provider_id, at);
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF id, at, account, provider_id, currency, transfers, captures, gross_micro,
    less_micro, reserve_ppm, reserve_micro, release_at ON ng.settlement
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_released BEFORE UPDATE OF released_at, released_micro ON ng.settlement
    FOR EACH ROW WHEN (OLD.released_at IS NOT NULL) EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.settlement
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

-- Of a reservation's captures that are not settled: what was taken back of them already.
CREATE TABLE ng.settle_less (
    account integer NOT NULL REFERENCES ng.account,
    reservation_id uuid NOT NULL REFERENCES ng.reservation,
    micro bigint NOT NULL CHECK (micro >= 0),
    PRIMARY KEY (account, reservation_id)
);
-- A reservation in dispute is not settled; its captures that were due meanwhile wait here.
CREATE TABLE ng.dispute (
    reservation_id uuid PRIMARY KEY REFERENCES ng.reservation,
    reason text NOT NULL CHECK (reason <> ''),
    opened_by text NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_by text,
    closed_at timestamptz,
    CHECK ((closed_by IS NULL) = (closed_at IS NULL))
);
CREATE TABLE ng.settle_parked (
    transfer_id bigint PRIMARY KEY REFERENCES ng.transfer,
    account integer NOT NULL REFERENCES ng.account,
    reservation_id uuid NOT NULL REFERENCES ng.reservation,
    settlement_id bigint REFERENCES ng.settlement -- once
);
CREATE INDEX settle_parked_open ON ng.settle_parked (account) WHERE settlement_id IS NULL;
CREATE INDEX settle_parked_settled ON ng.settle_parked (settlement_id) WHERE settlement_id IS NOT NULL;
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF transfer_id, account, reservation_id ON ng.settle_parked
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_settled BEFORE UPDATE OF settlement_id ON ng.settle_parked
    FOR EACH ROW WHEN (OLD.settlement_id IS NOT NULL) EXECUTE FUNCTION ng.refuse_change();

-- ---- payouts ----

CREATE TABLE ng.payout_file (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    made_by text NOT NULL,
    pay_on date NOT NULL,
    currency ng.currency NOT NULL,
    bank jsonb, -- the market's, as it was
    count integer NOT NULL CHECK (count > 0),
    total_micro bigint NOT NULL CHECK (total_micro > 0)
);
CREATE TABLE ng.payout (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider_id uuid NOT NULL REFERENCES ng.provider,
    currency ng.currency NOT NULL,
    amount_micro bigint NOT NULL CHECK (amount_micro > 0),
    bank jsonb, -- as it was when it was asked for
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    state text NOT NULL DEFAULT 'requested'
        CHECK (state IN ('requested', 'approved', 'sent', 'done', 'returned', 'rejected')),
    approved_by text,
    approved_at timestamptz,
    file_id bigint REFERENCES ng.payout_file,
    ended_by text, -- done, returned, rejected
    ended_at timestamptz,
    reason text NOT NULL DEFAULT '',
    CONSTRAINT four_eyes CHECK (approved_by <> requested_by),
    CHECK ((approved_by IS NULL) = (approved_at IS NULL) AND (ended_by IS NULL) = (ended_at IS NULL)),
    CHECK (state NOT IN ('approved', 'sent', 'done', 'returned') OR approved_by IS NOT NULL),
    CHECK ((file_id IS NOT NULL) = (state IN ('sent', 'done', 'returned'))),
    CHECK ((ended_at IS NOT NULL) = (state IN ('done', 'returned', 'rejected')))
);
CREATE UNIQUE INDEX payout_open ON ng.payout (provider_id, currency) WHERE state IN ('requested', 'approved'); -- one at a time
CREATE INDEX payout_file_of ON ng.payout (file_id) WHERE file_id IS NOT NULL;
CREATE INDEX payout_provider ON ng.payout (provider_id, id);
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF id, provider_id, currency, amount_micro, bank, requested_by, requested_at ON ng.payout
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.payout
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.payout_file
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.payout_file
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
-- The way of a payout, whoever writes; who approved and which file it was in are said once;
-- and whole minor units only.
CREATE FUNCTION ng.check_payout() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'requested' THEN
            RAISE EXCEPTION 'a payout does not begin as %', NEW.state USING ERRCODE = 'check_violation';
        END IF;
        IF NEW.amount_micro % (SELECT (10 ^ (6 - exponent))::bigint FROM currency_exponent WHERE currency = NEW.currency) IS DISTINCT FROM 0 THEN
            RAISE EXCEPTION 'a payout is in whole minor units of %', NEW.currency USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN (('requested', 'approved'), ('requested', 'rejected'),
            ('approved', 'sent'), ('approved', 'rejected'), ('sent', 'done'), ('sent', 'returned'))
        OR OLD.approved_by IS NOT NULL AND (NEW.approved_by, NEW.approved_at) IS DISTINCT FROM (OLD.approved_by, OLD.approved_at)
        OR OLD.file_id IS NOT NULL AND NEW.file_id IS DISTINCT FROM OLD.file_id
        OR OLD.ended_at IS NOT NULL AND (NEW.ended_by, NEW.ended_at, NEW.reason) IS DISTINCT FROM (OLD.ended_by, OLD.ended_at, OLD.reason) THEN
        RAISE EXCEPTION 'payout % is %', OLD.id, OLD.state USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER way BEFORE INSERT OR UPDATE ON ng.payout FOR EACH ROW EXECUTE FUNCTION ng.check_payout();

-- ---- refunds ----

-- Never more than was captured, of a reservation and of each provider's part in it.
ALTER TABLE ng.reservation ADD COLUMN refunded_micro bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT reservation_refunded CHECK (refunded_micro BETWEEN 0 AND captured_micro);
CREATE TABLE ng.refund_share (
    reservation_id uuid NOT NULL REFERENCES ng.reservation,
    provider_id uuid NOT NULL REFERENCES ng.provider,
    gross_micro bigint NOT NULL DEFAULT 0 CHECK (gross_micro >= 0), -- fee included
    fee_micro bigint NOT NULL DEFAULT 0 CHECK (fee_micro BETWEEN 0 AND gross_micro),
    PRIMARY KEY (reservation_id, provider_id)
);
CREATE TABLE ng.credit_note (
    number text PRIMARY KEY CHECK (number ~ '^CN-[0-9]{4}-[0-9]{6,}$'),
    tenant_id uuid NOT NULL REFERENCES ng.tenant,
    currency ng.currency NOT NULL,
    reservation_id uuid NOT NULL REFERENCES ng.reservation,
    invoice text REFERENCES ng.invoice, -- null: it lessens the next one
    issued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    borne_by text NOT NULL CHECK (borne_by IN ('provider', 'market')),
    reason text NOT NULL CHECK (reason <> ''),
    issued_by text NOT NULL,
    net_micro bigint NOT NULL CHECK (net_micro > 0),
    tax_ppm integer NOT NULL,
    tax_micro bigint NOT NULL CHECK (tax_micro >= 0),
    total_micro bigint NOT NULL,
    document jsonb NOT NULL, -- issuer, recipient as printed
    CHECK (total_micro = net_micro + tax_micro),
    CHECK (invoice IS NOT NULL OR tax_micro = 0)
);
CREATE INDEX credit_note_tenant ON ng.credit_note (tenant_id, number);
CREATE INDEX credit_note_reservation ON ng.credit_note (reservation_id);
CREATE INDEX credit_note_invoice ON ng.credit_note (invoice) WHERE invoice IS NOT NULL;
CREATE TABLE ng.credit_note_line (
    number text NOT NULL REFERENCES ng.credit_note,
    line integer NOT NULL,
    description text NOT NULL,
    reservation_id uuid NOT NULL,
    amount_micro bigint NOT NULL CHECK (amount_micro > 0),
    PRIMARY KEY (number, line)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.credit_note
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.credit_note
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.credit_note_line
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.credit_note_line
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
-- When the transaction ends: its lines are its net sum, what a reservation's notes say is
-- what was refunded of it, and no invoice gets back more tax than it took.
CREATE FUNCTION ng.check_credit_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v credit_note;
BEGIN
    SELECT * INTO STRICT v FROM credit_note WHERE number = NEW.number;
    IF v.net_micro IS DISTINCT FROM (SELECT sum(amount_micro) FROM credit_note_line WHERE number = v.number) THEN
        RAISE EXCEPTION 'credit note % is not the sum of its lines', v.number USING ERRCODE = 'check_violation';
    END IF;
    IF (SELECT refunded_micro FROM reservation WHERE id = v.reservation_id)
        <> (SELECT sum(net_micro) FROM credit_note WHERE reservation_id = v.reservation_id) THEN
        RAISE EXCEPTION 'credit note %: reservation % says otherwise', v.number, v.reservation_id USING ERRCODE = 'check_violation';
    END IF;
    IF (SELECT sum(tax_micro) FROM credit_note WHERE invoice = v.invoice) > (SELECT tax_micro FROM invoice WHERE number = v.invoice) THEN
        RAISE EXCEPTION 'credit note %: invoice % had less tax', v.number, v.invoice USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER sums AFTER INSERT ON ng.credit_note DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ng.check_credit_note();
CREATE CONSTRAINT TRIGGER sums AFTER INSERT ON ng.credit_note_line DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ng.check_credit_note();

-- ---- what the bank took back ----

CREATE TABLE ng.chargeback (
    transfer_id bigint PRIMARY KEY REFERENCES ng.transfer, -- the top-up; once
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason text NOT NULL CHECK (reason <> ''),
    wallet_micro bigint NOT NULL CHECK (wallet_micro >= 0),
    receivable_micro bigint NOT NULL CHECK (receivable_micro >= 0)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.chargeback
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.chargeback
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
-- Of a top-up, all of it, and not one that was reversed; nor is one reversed afterwards.
CREATE FUNCTION ng.check_chargeback() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM transfer WHERE id = NEW.transfer_id AND kind = 'topup'
                      AND amount_micro = NEW.wallet_micro + NEW.receivable_micro)
        OR EXISTS (SELECT FROM transfer WHERE reverses = NEW.transfer_id) THEN
        RAISE EXCEPTION 'transfer % is not a top-up of that amount, or was reversed', NEW.transfer_id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER whole BEFORE INSERT ON ng.chargeback FOR EACH ROW EXECUTE FUNCTION ng.check_chargeback();
CREATE FUNCTION ng.check_not_charged_back() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM chargeback WHERE transfer_id = NEW.reverses) THEN
        RAISE EXCEPTION 'transfer % was taken back by the bank', NEW.reverses USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER not_charged_back BEFORE INSERT ON ng.transfer
    FOR EACH ROW WHEN (NEW.reverses IS NOT NULL) EXECUTE FUNCTION ng.check_not_charged_back();
