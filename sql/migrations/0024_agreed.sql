-- What was agreed of a reservation has a place in the log. The booking writes nothing for
-- it: prices stand in its rows, which do not change (below), and its event says that there is
-- something new. billd reads both a moment later and keeps a copy, for a move replaces rows.
CREATE TABLE ng.agreed (
    reservation_id uuid NOT NULL REFERENCES ng.reservation,
    generation integer NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), -- when billd saw it
    during tstzrange NOT NULL,
    currency ng.currency NOT NULL,
    spot boolean NOT NULL,
    -- [{booking, node_id, node, gpus, per_gpu_hour_micro, fee_ppm, notice_us}]
    bookings jsonb NOT NULL,
    -- [{booking, path, lanes, per_lane_hour_micro, fee_ppm}]
    lanes jsonb NOT NULL,
    PRIMARY KEY (reservation_id, generation)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.agreed
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.agreed
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
-- As far as billd has read the events, and (from the newest on) the reservations from
-- before there was this table; past null: all of them.
CREATE TABLE ng.agreed_cursor (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    xid xid8 NOT NULL DEFAULT '0',
    id bigint NOT NULL DEFAULT 0,
    past uuid DEFAULT 'ffffffff-ffff-ffff-ffff-ffffffffffff'
);
INSERT INTO ng.agreed_cursor DEFAULT VALUES;

-- A price that was agreed stays: another one is another booking.
CREATE FUNCTION ng.keep_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the price of booking % was agreed', OLD.id USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER agreed BEFORE UPDATE OF reservation_id, node_id, per_gpu_hour_micro, fee_ppm, notice_us ON ng.booking
    FOR EACH ROW EXECUTE FUNCTION ng.keep_price();
CREATE TRIGGER agreed BEFORE UPDATE OF reservation_id, path_id, per_lane_hour_micro, fee_ppm ON ng.path_booking
    FOR EACH ROW EXECUTE FUNCTION ng.keep_price();

-- Which kinds there are is ng.log_body()'s to say.
ALTER TABLE ng.log_todo DROP CONSTRAINT log_todo_kind, ADD CONSTRAINT log_todo_kind CHECK (kind ~ '^[a-z_]{1,20}$');
CREATE FUNCTION ng.log_agreed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ng.log_todo (log, kind, ref) SELECT 'ledger', 'agreed', reservation_id || '/' || generation FROM made;
    RETURN NULL;
END $$;
CREATE TRIGGER logged AFTER INSERT ON ng.agreed REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.log_agreed();

-- Inner nodes of a tile, so that a proof hashes none anew: 128 over pairs of its hashes,
-- then 64, 32, 16, 8, 4, 2. What is not complete yet is zeros; null: made before.
ALTER TABLE ng.log_tile ADD COLUMN inner_nodes bytea CHECK (octet_length(inner_nodes) = 254 * 32);

-- Agents cosign what they are shown of the logs. Of a node and log the newest is kept: one
-- a minute from each would be most of the database. What one refused stands beside it.
CREATE TABLE ng.node_witness (
    node_id integer NOT NULL REFERENCES ng.node,
    log text NOT NULL CHECK (log IN ('usage', 'ledger')),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 127),
    vkey text NOT NULL, -- C2SP verifier key, algorithm 4
    added_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    size bigint, -- null: none was cosigned yet
    line text,
    at timestamptz,
    refused_at timestamptz, -- last
    refused text,
    PRIMARY KEY (node_id, log),
    FOREIGN KEY (log, size) REFERENCES ng.log_checkpoint (log, size),
    CHECK (num_nonnulls(size, line, at) IN (0, 3)),
    CHECK (num_nonnulls(refused_at, refused) IN (0, 2))
);
CREATE INDEX node_witness_at ON ng.node_witness (log, at DESC NULLS LAST);
