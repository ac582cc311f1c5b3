-- Who speaks as a node: which run of which enrolment, whether two do, and whether the
-- market still deals with it. The rule stands in sql/api/nodes.sql.
ALTER TABLE ng.node
    ADD COLUMN attested integer NOT NULL DEFAULT 1, -- how often it was enrolled
    ADD COLUMN instance text,         -- of whom was heard last: the enrolment it counts runs of
    ADD COLUMN run bigint,            -- ... and the run; with boot_id they are the speaker
    ADD COLUMN seq bigint,            -- ... and the number of its sync: grows within a boot
    ADD COLUMN repeats integer NOT NULL DEFAULT 0, -- syncs whose number did not grow
    ADD COLUMN repeated_at timestamptz,
    ADD COLUMN cloned_at timestamptz, -- two agents go on with this identity
    ADD COLUMN banned_at timestamptz,
    ADD COLUMN banned_why text,
    ADD COLUMN banned_by text,
    ADD COLUMN peer text NOT NULL DEFAULT '', -- the address its syncs come from
    ADD COLUMN moved_at timestamptz,  -- when that changed last
    ADD CHECK ((instance IS NULL) = (run IS NULL)),
    ADD CHECK ((banned_at IS NULL) = (banned_why IS NULL) AND (banned_at IS NULL) = (banned_by IS NULL));

-- Who spoke as the node before, since it was enrolled last.
CREATE TABLE ng.node_speaker (
    node_id integer NOT NULL REFERENCES ng.node,
    instance text NOT NULL,
    run bigint NOT NULL,
    boot_id text NOT NULL,
    seq bigint NOT NULL,
    heard_at timestamptz NOT NULL,
    returns integer NOT NULL DEFAULT 0, -- came back after another had spoken
    PRIMARY KEY (node_id, instance, run, boot_id)
);

-- The keys a node has signed receipts with: one that enrols again has another, and may
-- still hold receipts of the earlier one.
CREATE TABLE ng.node_key (
    node_id integer NOT NULL REFERENCES ng.node,
    receipt_key ng.sha256 NOT NULL,
    attested integer NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (node_id, receipt_key)
);
INSERT INTO ng.node_key (node_id, receipt_key, attested, since)
SELECT id, receipt_key, attested, enrolled_at FROM ng.node;
-- A node has a key from its first row on, whoever makes that.
CREATE FUNCTION ng.node_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ng.node_key (node_id, receipt_key, attested) VALUES (NEW.id, NEW.receipt_key, NEW.attested)
    ON CONFLICT (node_id, receipt_key) DO UPDATE SET attested = excluded.attested;
    RETURN NULL;
END $$;
CREATE TRIGGER keys AFTER INSERT OR UPDATE OF receipt_key ON ng.node
    FOR EACH ROW EXECUTE FUNCTION ng.node_key();

-- A receipt says which of the node's keys it was signed with; without, the newest.
CREATE OR REPLACE FUNCTION ng.receipt_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.receipt_key IS NULL THEN
        SELECT n.receipt_key INTO NEW.receipt_key FROM ng.node n WHERE n.id = NEW.node_id;
    END IF;
    RETURN NEW;
END $$;
