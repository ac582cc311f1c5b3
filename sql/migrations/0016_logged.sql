-- Credit notes and payouts have a place in the log: a note when it is made, a payout when
-- it is sent: from then on what the log has of it does not change.
CREATE FUNCTION ng.log_credit_notes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ng.log_todo (log, kind, ref) SELECT 'ledger', 'credit_note', number FROM made;
    RETURN NULL;
END $$;
CREATE TRIGGER logged AFTER INSERT ON ng.credit_note REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.log_credit_notes();
CREATE FUNCTION ng.log_payout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ng.log_todo (log, kind, ref) VALUES ('ledger', 'payout', NEW.id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER logged AFTER UPDATE OF state ON ng.payout
    FOR EACH ROW WHEN (OLD.state <> 'sent' AND NEW.state = 'sent') EXECUTE FUNCTION ng.log_payout();
INSERT INTO ng.log_todo (log, kind, ref) SELECT 'ledger', 'credit_note', number FROM ng.credit_note ORDER BY issued_at;
INSERT INTO ng.log_todo (log, kind, ref)
SELECT 'ledger', 'payout', id::text FROM ng.payout WHERE state IN ('sent', 'done', 'returned') ORDER BY id;
