-- What waits for the log stands in the queue by the hundred: a statement that makes many
-- rows puts a few into the queue, not as many again. ng.log_queue (sql/api/log.sql) does it.
ALTER TABLE ng.log_todo ADD COLUMN refs text[];
UPDATE ng.log_todo SET refs = ARRAY[ref];
ALTER TABLE ng.log_todo DROP COLUMN ref, ALTER COLUMN refs SET NOT NULL,
    ADD CONSTRAINT log_todo_refs CHECK (cardinality(refs) BETWEEN 1 AND 100 AND array_position(refs, NULL) IS NULL),
    DROP CONSTRAINT log_todo_kind, ADD CONSTRAINT log_todo_kind CHECK (length(kind) BETWEEN 1 AND 20);

CREATE OR REPLACE FUNCTION ng.log_receipts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ng.log_queue('usage', 'receipt', ARRAY(SELECT reservation_id || '/' || node_id || '/' || seq FROM made));
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION ng.log_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ng.log_queue('ledger', 'transfer', ARRAY(SELECT id::text FROM made));
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION ng.log_invoices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ng.log_queue('ledger', 'invoice', ARRAY(SELECT number FROM made));
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION ng.log_prices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ng.log_queue('ledger', 'price',
        ARRAY(SELECT node_id || '/' || ng.us(lower(during)) FROM made WHERE lower(during) IS NOT NULL));
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION ng.log_quotes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ng.log_queue('ledger', 'quote', ARRAY(SELECT id::text FROM made));
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION ng.log_credit_notes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ng.log_queue('ledger', 'credit_note', ARRAY(SELECT number FROM made));
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION ng.log_payout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ng.log_queue('ledger', 'payout', ARRAY[NEW.id || CASE NEW.state WHEN 'returned' THEN '/returned' ELSE '' END]);
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION ng.log_agreed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ng.log_queue('ledger', 'agreed', ARRAY(SELECT reservation_id || '/' || generation FROM made));
    RETURN NULL;
END $$;
