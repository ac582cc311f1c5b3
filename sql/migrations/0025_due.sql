-- What waits to be rated is a row a chain (reservation and node) beside the receipts, which
-- are then never changed for it: a mark in each receipt rewrote all of it, signature and all.
-- That a receipt is rated stands in the meter: its number is not above the meter's.
CREATE TABLE ng.receipt_due (
    reservation_id uuid NOT NULL REFERENCES ng.reservation,
    node_id integer NOT NULL REFERENCES ng.node,
    seq integer NOT NULL,             -- the newest that was received
    received_at timestamptz NOT NULL, -- since when the chain waits
    PRIMARY KEY (reservation_id, node_id)
) WITH (fillfactor = 70);
INSERT INTO ng.receipt_due
SELECT reservation_id, node_id, max(seq), min(received_at) FROM ng.receipt WHERE NOT rated GROUP BY 1, 2;

CREATE FUNCTION ng.note_due() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    INSERT INTO receipt_due AS d (reservation_id, node_id, seq, received_at)
    SELECT reservation_id, node_id, max(seq), min(received_at) FROM made GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (reservation_id, node_id) DO UPDATE SET seq = greatest(d.seq, excluded.seq);
    RETURN NULL;
END $$;
CREATE TRIGGER due AFTER INSERT ON ng.receipt REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.note_due();

DROP VIEW IF EXISTS report.check_unbilled, report.unbilled CASCADE;
DROP TRIGGER append_only_rated ON ng.receipt;
ALTER TABLE ng.receipt DROP COLUMN rated; -- and its index
