-- The market's countersign of each receipt: with it a node cannot show another one under
-- that number, nor the market deny that it had this one. Given once.
ALTER TABLE ng.receipt ADD COLUMN countersign text;
CREATE TRIGGER append_only_countersign BEFORE UPDATE OF countersign ON ng.receipt
    FOR EACH ROW WHEN (OLD.countersign IS NOT NULL AND NEW.countersign IS DISTINCT FROM OLD.countersign)
    EXECUTE FUNCTION ng.refuse_change();
