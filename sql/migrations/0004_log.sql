-- The verifiable log: two append-only Merkle trees (RFC 6962), "usage" of receipts and
-- "ledger" of transfers, invoices and prices. A row that must be in a log is queued by the
-- transaction that makes it; neargpu-billd, the only sequencer, gives it its index, and signs
-- the tree's head. The leaf commits to the row and to a random nonce, so that the log can be
-- public and tells nothing. docs/log.md says how to check one.
CREATE TABLE ng.log (
    name text PRIMARY KEY CHECK (name IN ('usage', 'ledger')),
    size bigint NOT NULL DEFAULT 0 CHECK (size >= 0),
    vkey text NOT NULL DEFAULT '' -- of the key that signs it (C2SP signed-note)
);
INSERT INTO ng.log (name) VALUES ('usage'), ('ledger');

CREATE TABLE ng.log_todo (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    log text NOT NULL REFERENCES ng.log,
    kind text NOT NULL CHECK (kind IN ('receipt', 'transfer', 'invoice', 'price')),
    ref text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE ng.log_leaf (
    log text NOT NULL REFERENCES ng.log,
    index bigint NOT NULL CHECK (index >= 0),
    kind text NOT NULL,
    ref text NOT NULL,
    nonce bytea NOT NULL CHECK (octet_length(nonce) = 16),
    leaf ng.sha256 NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (log, index),
    UNIQUE (kind, ref)
);

-- Tiles of 256 hashes (C2SP tlog-tiles): level 0 has leaves, level n the roots of 256^n.
CREATE TABLE ng.log_tile (
    log text NOT NULL REFERENCES ng.log,
    level smallint NOT NULL CHECK (level BETWEEN 0 AND 7),
    index bigint NOT NULL CHECK (index >= 0),
    hashes bytea NOT NULL CHECK (octet_length(hashes) BETWEEN 32 AND 8192 AND octet_length(hashes) % 32 = 0),
    PRIMARY KEY (log, level, index)
);

-- Every signed head. One that was shown to anybody must stay.
CREATE TABLE ng.log_checkpoint (
    log text NOT NULL REFERENCES ng.log,
    size bigint NOT NULL,
    note text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (log, size)
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.log_leaf
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.log_leaf
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.log_checkpoint
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.log_checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

-- One statement, however many rows.
CREATE FUNCTION ng.log_receipts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ng.log_todo (log, kind, ref)
    SELECT 'usage', 'receipt', reservation_id || '/' || node_id || '/' || seq FROM made;
    RETURN NULL;
END $$;
CREATE FUNCTION ng.log_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ng.log_todo (log, kind, ref) SELECT 'ledger', 'transfer', id::text FROM made;
    RETURN NULL;
END $$;
CREATE FUNCTION ng.log_invoices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ng.log_todo (log, kind, ref) SELECT 'ledger', 'invoice', number FROM made;
    RETURN NULL;
END $$;
CREATE FUNCTION ng.log_prices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ng.log_todo (log, kind, ref)
    SELECT 'ledger', 'price', node_id || '/' || ng.us(lower(during)) FROM made WHERE lower(during) IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER logged AFTER INSERT ON ng.receipt REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.log_receipts();
CREATE TRIGGER logged AFTER INSERT ON ng.transfer REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.log_transfers();
CREATE TRIGGER logged AFTER INSERT ON ng.invoice REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.log_invoices();
CREATE TRIGGER logged AFTER INSERT ON ng.price REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.log_prices();

-- What was there before the log.
INSERT INTO ng.log_todo (log, kind, ref)
SELECT 'usage', 'receipt', reservation_id || '/' || node_id || '/' || seq FROM ng.receipt ORDER BY received_at;
INSERT INTO ng.log_todo (log, kind, ref) SELECT 'ledger', 'transfer', id::text FROM ng.transfer ORDER BY id;
INSERT INTO ng.log_todo (log, kind, ref) SELECT 'ledger', 'invoice', number FROM ng.invoice ORDER BY issued_at;
