-- The market's countersign of each receipt: with it a node cannot show another one under
-- that number, nor the market deny that it had this one. Given once.
ALTER TABLE ng.receipt ADD COLUMN countersign text;
CREATE TRIGGER append_only_countersign BEFORE UPDATE OF countersign ON ng.receipt
    FOR EACH ROW WHEN (OLD.countersign IS NOT NULL AND NEW.countersign IS DISTINCT FROM OLD.countersign)
    EXECUTE FUNCTION ng.refuse_change();

-- The key each receipt was signed with: a node that enrols again has another.
ALTER TABLE ng.receipt ADD COLUMN receipt_key ng.sha256;
CREATE FUNCTION ng.receipt_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT n.receipt_key INTO NEW.receipt_key FROM ng.node n WHERE n.id = NEW.node_id;
    RETURN NEW;
END $$;
CREATE TRIGGER signed_by BEFORE INSERT ON ng.receipt FOR EACH ROW EXECUTE FUNCTION ng.receipt_key();
CREATE TRIGGER append_only_key BEFORE UPDATE OF receipt_key ON ng.receipt
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
