-- Where a payout went has a place in the log: with the record of one that is sent from now
-- on. The leaves of those before stay what they are.
ALTER TABLE ng.payout ADD COLUMN bank_logged boolean NOT NULL DEFAULT false;
UPDATE ng.payout SET bank_logged = file_id IS NULL;
ALTER TABLE ng.payout ALTER bank_logged SET DEFAULT true;
CREATE TRIGGER append_only_logged BEFORE UPDATE OF bank_logged ON ng.payout
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
