-- What banks say of payouts, read from their files; payouts that come back after they were
-- confirmed, and the bank's fee for that; accounts abroad; providers that are told; and
-- administrators whom another approves. What moves it stands in sql/api/payout.sql and admins.sql.

-- ---- accounts abroad ----

-- ISO 13616: the length of its country, where that is known, and the remainder 1 of 97 with
-- the first four characters last and letters as 10 to 35.
CREATE FUNCTION ng.is_iban(p text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p ~ '^[A-Z]{2}[0-9]{2}[0-9A-Z]{11,30}$' THEN
        coalesce((SELECT length(p) = n FROM (VALUES
            (15, 'NO'), (16, 'BE'), (18, 'DK FI FK FO GL NL SD'), (19, 'MK SI'), (20, 'AT BA EE KZ LT LU MN XK'),
            (21, 'CH HR LI LV'), (22, 'BG BH CR DE GB GE IE ME RS VA'), (23, 'AE GI IL IQ OM SO TL'),
            (24, 'AD CZ ES MD PK RO SA SE SK TN VG'), (25, 'LY PT ST'), (26, 'IS TR'),
            (27, 'BI DJ FR GR IT MC MR SM'), (28, 'AL AZ BY CY DO GT HU LB NI PL'), (29, 'BR EG PS QA UA'),
            (30, 'JO KW MU YE'), (31, 'MT SC'), (32, 'LC'), (33, 'RU')) AS x(n, countries)
            WHERE left(p, 2) = ANY (string_to_array(countries, ' '))), true)
        AND (SELECT string_agg(CASE WHEN c ~ '[0-9]' THEN c ELSE (ascii(c) - 55)::text END, '' ORDER BY i)::numeric % 97
               FROM string_to_table(substr(p, 5) || left(p, 4), NULL) WITH ORDINALITY AS y(c, i)) = 1
        ELSE false END
$$;
-- What goes into a file that a bank or a spreadsheet reads: letters that every bank takes,
-- and nothing in front that is taken for a formula.
CREATE FUNCTION ng.is_bank_latin(p text, p_max integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT char_length(p) <= p_max AND p ~ '^[0-9A-Za-z][0-9A-Za-z /?:().,''+-]*$'
$$;
-- {holder, iban, bic} or {holder, account, bank_name or bic}.
CREATE FUNCTION ng.is_bank_abroad(p jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(jsonb_typeof(p) = 'object' AND p - '{holder,iban,bic,account,bank_name}'::text[] = '{}'
        AND ng.is_bank_latin(p->>'holder', 70) AND (p ? 'iban') <> (p ? 'account')
        AND (p->>'iban' IS NULL OR ng.is_iban(p->>'iban'))
        AND (p->>'account' IS NULL OR ng.is_bank_latin(p->>'account', 34) AND (p ? 'bic' OR p ? 'bank_name'))
        AND (p->>'bic' IS NULL OR p->>'bic' ~ '^[A-Z]{6}[0-9A-Z]{2}([0-9A-Z]{3})?$')
        AND (p->>'bank_name' IS NULL OR ng.is_bank_latin(p->>'bank_name', 70))
        AND NOT EXISTS (SELECT FROM jsonb_each(p) WHERE jsonb_typeof(value) <> 'string'), false)
$$;
ALTER TABLE ng.provider DROP CONSTRAINT provider_bank_check,
    ADD CONSTRAINT provider_bank CHECK (bank IS NULL OR ng.is_bank(bank) OR ng.is_bank_abroad(bank));

-- ---- a payout comes back ----

-- The list as it is then, and one more: what the bank takes for sending money back.
DO $$
DECLARE v text;
BEGIN
    SELECT pg_get_constraintdef(oid) INTO STRICT v FROM pg_constraint
     WHERE conrelid = 'ng.transfer'::regclass AND conname = 'transfer_kind';
    EXECUTE 'ALTER TABLE ng.transfer DROP CONSTRAINT transfer_kind, ADD CONSTRAINT transfer_kind '
        || replace(v, '''payout_back''::text', '''payout_back''::text, ''payout_fee''::text');
END $$;
CREATE INDEX transfer_payout ON ng.transfer (at) WHERE kind IN ('payout', 'payout_done', 'payout_back', 'payout_fee');

-- ended_… says how it ended at last; confirmed_… stays when it came back after that.
ALTER TABLE ng.payout
    ADD COLUMN confirmed_by text,
    ADD COLUMN confirmed_at timestamptz,
    ADD COLUMN fee_micro bigint NOT NULL DEFAULT 0, -- the bank's, for sending it back
    ADD COLUMN fee_by text; -- who bears it
UPDATE ng.payout SET confirmed_by = ended_by, confirmed_at = ended_at WHERE state = 'done';
ALTER TABLE ng.payout
    ADD CONSTRAINT payout_confirmed CHECK ((confirmed_by IS NULL) = (confirmed_at IS NULL)
        AND (state <> 'done' OR confirmed_by IS NOT NULL) AND (confirmed_by IS NULL OR state IN ('done', 'returned'))),
    ADD CONSTRAINT payout_fee CHECK (fee_micro BETWEEN 0 AND amount_micro AND (fee_micro > 0) = (fee_by IS NOT NULL)
        AND (fee_by IS NULL OR fee_by IN ('provider', 'market') AND state = 'returned'));
-- The way of a payout, whoever writes; who approved, confirmed and ended it, which file it
-- was in and what its return cost are said once; and whole minor units only.
CREATE OR REPLACE FUNCTION ng.check_payout() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'requested' THEN
            RAISE EXCEPTION 'a payout does not begin as %', NEW.state USING ERRCODE = 'check_violation';
        END IF;
        IF NEW.amount_micro % (SELECT (10 ^ (6 - exponent))::bigint FROM currency_exponent WHERE currency = NEW.currency) IS DISTINCT FROM 0 THEN
            RAISE EXCEPTION 'a payout is in whole minor units of %', NEW.currency USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN (('requested', 'approved'), ('requested', 'rejected'),
            ('approved', 'sent'), ('approved', 'rejected'), ('sent', 'done'), ('sent', 'returned'), ('done', 'returned'))
        OR OLD.approved_by IS NOT NULL AND (NEW.approved_by, NEW.approved_at) IS DISTINCT FROM (OLD.approved_by, OLD.approved_at)
        OR OLD.file_id IS NOT NULL AND NEW.file_id IS DISTINCT FROM OLD.file_id
        OR OLD.confirmed_at IS NOT NULL AND (NEW.confirmed_by, NEW.confirmed_at) IS DISTINCT FROM (OLD.confirmed_by, OLD.confirmed_at)
        OR OLD.ended_at IS NOT NULL AND NEW.state = OLD.state
            AND (NEW.ended_by, NEW.ended_at, NEW.reason, NEW.fee_micro, NEW.fee_by)
                IS DISTINCT FROM (OLD.ended_by, OLD.ended_at, OLD.reason, OLD.fee_micro, OLD.fee_by) THEN
        RAISE EXCEPTION 'payout % is %', OLD.id, OLD.state USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
-- In the log once when it is sent and once when it comes back.
CREATE OR REPLACE FUNCTION ng.log_payout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ng.log_todo (log, kind, ref)
    VALUES ('ledger', 'payout', NEW.id || CASE NEW.state WHEN 'returned' THEN '/returned' ELSE '' END);
    RETURN NULL;
END $$;
CREATE TRIGGER logged_back AFTER UPDATE OF state ON ng.payout
    FOR EACH ROW WHEN (OLD.state <> 'returned' AND NEW.state = 'returned') EXECUTE FUNCTION ng.log_payout();
INSERT INTO ng.log_todo (log, kind, ref) SELECT 'ledger', 'payout', id || '/returned' FROM ng.payout WHERE state = 'returned' ORDER BY id;

-- ---- files of results ----

CREATE TABLE ng.payout_result (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    read_by text NOT NULL,
    sha256 ng.sha256 NOT NULL UNIQUE, -- of the file's bytes: read once
    format text NOT NULL CHECK (format IN ('zengin', 'csv')),
    count integer NOT NULL CHECK (count > 0)
);
CREATE TABLE ng.payout_result_line (
    result_id bigint NOT NULL REFERENCES ng.payout_result,
    line integer NOT NULL CHECK (line > 0),
    payout_id bigint NOT NULL REFERENCES ng.payout,
    state text NOT NULL CHECK (state IN ('done', 'returned')),
    on_day date, -- as the bank says
    reason text NOT NULL DEFAULT '',
    changed boolean NOT NULL, -- false: it was so already
    PRIMARY KEY (result_id, line),
    UNIQUE (result_id, payout_id)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.payout_result
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.payout_result
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.payout_result_line
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.payout_result_line
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

-- ---- events of a provider ----

ALTER TABLE ng.event ADD COLUMN provider_id uuid;

-- ---- administrators ----

-- One that an administrator made opens nothing until another one's yes; alone: there was
-- nobody to ask. Keys of before stay as they are.
ALTER TABLE ng.api_key
    ADD COLUMN made_by text,
    ADD COLUMN pending boolean NOT NULL DEFAULT false,
    ADD COLUMN alone boolean NOT NULL DEFAULT false,
    ADD COLUMN approved_by text,
    ADD COLUMN approved_at timestamptz,
    ADD CONSTRAINT pending_admin CHECK (role = 'admin' OR NOT pending AND NOT alone AND made_by IS NULL),
    ADD CONSTRAINT admin_approved CHECK ((approved_by IS NULL) = (approved_at IS NULL) AND NOT (pending AND (alone OR approved_by IS NOT NULL))),
    ADD CONSTRAINT admin_four_eyes CHECK (approved_by IS NULL OR made_by IS NOT NULL AND approved_by <> made_by),
    ADD CONSTRAINT admin_waits CHECK (pending OR made_by IS NULL OR alone OR approved_by IS NOT NULL);
CREATE FUNCTION ng.check_admin() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT OLD.pending AND NEW.pending OR NEW.made_by IS DISTINCT FROM OLD.made_by OR NEW.alone <> OLD.alone
        OR OLD.approved_by IS NOT NULL AND (NEW.approved_by, NEW.approved_at) IS DISTINCT FROM (OLD.approved_by, OLD.approved_at)
        OR OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS NULL THEN
        RAISE EXCEPTION 'who made and who approved administrator % stands', OLD.label USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER way BEFORE UPDATE ON ng.api_key FOR EACH ROW WHEN (OLD.role = 'admin') EXECUTE FUNCTION ng.check_admin();
