-- Witnesses: who looks at the log's heads and says so, and what they cosigned. A witness's
-- name is its owner's as long as the key is there. Quotes get a place in the log.
CREATE TABLE ng.witness (
    name text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 127),
    vkey text NOT NULL UNIQUE, -- C2SP verifier key, algorithm 4
    tenant_id uuid REFERENCES ng.tenant,
    provider_id uuid REFERENCES ng.provider, -- neither: the market's own
    added_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (tenant_id IS NULL OR provider_id IS NULL)
);
CREATE TABLE ng.log_cosign (
    log text NOT NULL CHECK (log IN ('usage', 'ledger')),
    size bigint NOT NULL,
    witness text NOT NULL REFERENCES ng.witness,
    line text NOT NULL, -- of the signed note, with its newline
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (witness, log, size),
    FOREIGN KEY (log, size) REFERENCES ng.log_checkpoint (log, size)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.log_cosign
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.log_cosign
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

ALTER TABLE ng.log_todo DROP CONSTRAINT log_todo_kind_check, ADD CONSTRAINT log_todo_kind
    CHECK (kind IN ('receipt', 'transfer', 'invoice', 'price', 'quote', 'payout', 'credit_note'));
CREATE FUNCTION ng.log_quotes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ng.log_todo (log, kind, ref) SELECT 'ledger', 'quote', id::text FROM made;
    RETURN NULL;
END $$;
CREATE TRIGGER logged AFTER INSERT ON ng.quote REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.log_quotes();
-- Old quotes lose what was asked and offered, and keep its hash.
DROP INDEX ng.quote_expires;
CREATE INDEX quote_expires ON ng.quote (expires_at) WHERE plan <> '{}';
