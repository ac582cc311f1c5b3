-- What went back to tenants, beside what was captured: in the roll-up of money, on the day
-- that a credit note was issued or a credit given, by who bore it. The rest of both is what
-- providers gave back.
ALTER TABLE ng.roll_money
    ADD COLUMN refund_micro bigint NOT NULL DEFAULT 0,     -- credit notes, without tax
    ADD COLUMN credit_micro bigint NOT NULL DEFAULT 0,     -- for incidents
    ADD COLUMN back_fee_micro bigint NOT NULL DEFAULT 0,   -- of both: out of the market's fees
    ADD COLUMN back_market_micro bigint NOT NULL DEFAULT 0; -- ... at the market's expense
CREATE INDEX credit_note_issued ON ng.credit_note (issued_at);
CREATE INDEX sla_credit_at ON ng.sla_credit (at);

CREATE FUNCTION ng.dirty_back() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    INSERT INTO roll_dirty (kind, hour)
    SELECT DISTINCT 'money', date_trunc('day', (to_jsonb(m)->>TG_ARGV[0])::timestamptz, 'UTC') FROM made m;
    RETURN NULL;
END $$;
CREATE TRIGGER dirty AFTER INSERT ON ng.credit_note REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.dirty_back('issued_at');
CREATE TRIGGER dirty AFTER INSERT ON ng.sla_credit REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.dirty_back('at');
INSERT INTO ng.roll_dirty (kind, hour)
SELECT 'money', date_trunc('day', issued_at, 'UTC') FROM ng.credit_note
UNION SELECT 'money', date_trunc('day', at, 'UTC') FROM ng.sla_credit;
CREATE INDEX incident_from ON ng.incident (from_at);
