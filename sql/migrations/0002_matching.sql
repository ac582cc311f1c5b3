-- Gangs, paths, standing orders, spot and changes of a reservation. Columns that are added
-- to what is there are null or have a default: no row of a large table is rewritten.

-- ---- places ----

ALTER TABLE ng.site ADD COLUMN zone text NOT NULL DEFAULT '' CHECK (length(zone) <= 63); -- disaster zone, '' none
ALTER TABLE ng.node ADD COLUMN domain text NOT NULL DEFAULT '' CHECK (length(domain) <= 63); -- fabric domain, '' none
ALTER TABLE ng.tenant ADD COLUMN priority integer NOT NULL DEFAULT 0 CHECK (priority BETWEEN -1000 AND 1000);

-- What a provider asks of preemptible use of a node; no row: the node sells none.
CREATE TABLE ng.spot_terms (
    node_id integer PRIMARY KEY REFERENCES ng.node,
    currency ng.currency NOT NULL,
    per_gpu_hour_micro bigint NOT NULL CHECK (per_gpu_hour_micro >= 0),
    notice_us bigint NOT NULL CHECK (notice_us BETWEEN 30000000 AND 86400000000)
);

-- GPUs that left their number: the node grew and got a new block, or the GPU was replaced.
-- Bookings that began before `until` were of this one.
CREATE TABLE ng.gpu_past (
    no integer NOT NULL,
    until timestamptz NOT NULL DEFAULT clock_timestamp(),
    node_id integer NOT NULL REFERENCES ng.node,
    uuid text NOT NULL,
    model text NOT NULL,
    PRIMARY KEY (no, until)
);
CREATE FUNCTION ng.keep_gpu() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ng.gpu_past (no, node_id, uuid, model) VALUES (OLD.no, OLD.node_id, OLD.uuid, OLD.model);
    RETURN OLD;
END $$;
CREATE TRIGGER keep BEFORE DELETE ON ng.gpu FOR EACH ROW EXECUTE FUNCTION ng.keep_gpu();

-- ---- paths ----

-- A path's lanes are neighbours in one global numbering, as a node's GPUs are.
CREATE SEQUENCE ng.lane_no AS integer;
CREATE TABLE ng.path (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name ng.slug NOT NULL UNIQUE,
    provider_id uuid NOT NULL REFERENCES ng.provider,
    site_a integer NOT NULL REFERENCES ng.site,
    site_b integer NOT NULL REFERENCES ng.site,
    lanes int4range NOT NULL CHECK (upper(lanes) - lower(lanes) BETWEEN 1 AND 64),
    lane_bytes_s bigint NOT NULL CHECK (lane_bytes_s > 0),
    rtt_us bigint CHECK (rtt_us > 0), -- what the operator guarantees, if it does
    lossless boolean NOT NULL DEFAULT false,
    currency ng.currency NOT NULL,
    per_lane_hour_micro bigint NOT NULL CHECK (per_lane_hour_micro >= 0),
    setup_us bigint NOT NULL DEFAULT 0 CHECK (setup_us BETWEEN 0 AND 604800000000),
    state text NOT NULL DEFAULT 'up' CHECK (state IN ('up', 'down')),
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (site_a <> site_b),
    EXCLUDE USING gist (lanes WITH &&)
);

-- As ng.booking: an empty range blocks nothing. during begins with the set-up. What is
-- charged is lanes x price x the time of the reservation that the path was there.
CREATE TABLE ng.path_booking (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reservation_id uuid NOT NULL REFERENCES ng.reservation,
    path_id integer NOT NULL REFERENCES ng.path,
    lanes int4range NOT NULL CHECK (NOT isempty(lanes)),
    during tstzrange NOT NULL,
    per_lane_hour_micro bigint NOT NULL CHECK (per_lane_hour_micro >= 0),
    fee_ppm integer NOT NULL,
    state text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'lit', 'released', 'failed')),
    error text NOT NULL DEFAULT '',
    claimed_until timestamptz, -- somebody is lighting or releasing it
    lit tstzrange, -- when it was lit; upper: when it was put out
    captured_micro bigint NOT NULL DEFAULT 0 CHECK (captured_micro >= 0),
    fee_micro bigint NOT NULL DEFAULT 0 CHECK (fee_micro BETWEEN 0 AND captured_micro),
    served_ms bigint,      -- lane-milliseconds that were billed
    billed_at timestamptz, -- once
    CHECK (billed_at IS NOT NULL OR captured_micro = 0),
    CONSTRAINT path_booking_no_double EXCLUDE USING gist (lanes WITH &&, during WITH &&)
);
CREATE INDEX path_booking_reservation ON ng.path_booking (reservation_id);
CREATE INDEX path_booking_path ON ng.path_booking (path_id, upper(during));
CREATE INDEX path_booking_work ON ng.path_booking (id) WHERE state IN ('planned', 'lit');
CREATE INDEX path_booking_unbilled ON ng.path_booking (reservation_id) WHERE billed_at IS NULL;

CREATE FUNCTION ng.keep_bill() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'path booking % was billed before', OLD.id USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER billed_once BEFORE UPDATE OF captured_micro, fee_micro, billed_at ON ng.path_booking
    FOR EACH ROW WHEN (OLD.billed_at IS NOT NULL) EXECUTE FUNCTION ng.keep_bill();

-- ---- reservations ----

ALTER TABLE ng.booking
    ADD COLUMN fee_ppm integer,  -- of the node's provider; null: the reservation's
    ADD COLUMN notice_us bigint; -- spot: its end is told this far ahead; null: firm
ALTER TABLE ng.reservation
    ADD COLUMN hold_until timestamptz, -- state held: as long as the quote
    ADD COLUMN fault text,             -- why it was not delivered as promised
    ADD COLUMN preempted_by text,
    ADD COLUMN preempted_at timestamptz,
    ADD COLUMN replaced_at timestamptz, -- when it last lost its node and got another
    ADD COLUMN groups jsonb NOT NULL DEFAULT '[]', -- [{data, site, nodes}] when federated
    ADD COLUMN coordinator text;                   -- site of rank 0 when federated
CREATE INDEX reservation_hold ON ng.reservation (hold_until) WHERE state = 'held';
CREATE INDEX reservation_quote ON ng.reservation (quote_id) WHERE quote_id IS NOT NULL;
CREATE INDEX booking_lost ON ng.booking (node_id, lower(during)) WHERE NOT isempty(during);

-- Standing orders: one row while a reservation waits. Position and prediction are the
-- planner's.
CREATE TABLE ng.waiting (
    reservation_id uuid PRIMARY KEY REFERENCES ng.reservation,
    until timestamptz NOT NULL,
    position integer NOT NULL DEFAULT 0 CHECK (position >= 0), -- from 1; 0: not planned yet
    predicted_at timestamptz,
    why text NOT NULL DEFAULT ''
);

-- As server/core/resv.c. preempt: a lease that a node may know of ends earlier; requeue:
-- one that no node knows of waits again.
INSERT INTO ng.resv_rule (from_state, event, to_state) VALUES
    ('confirmed', 'preempt', 'confirmed'),
    ('confirmed', 'requeue', 'waiting'),
    ('confirmed', 'shrink', 'confirmed'),
    ('confirmed', 'move', 'confirmed'),
    ('confirmed', 'replace', 'confirmed'),
    ('active', 'preempt', 'active');

-- For pruning.
CREATE INDEX event_at ON ng.event USING brin (at);
CREATE INDEX idempotency_at ON ng.idempotency USING brin (created_at);
CREATE INDEX token_expires ON ng.token (expires_at);
CREATE INDEX quote_expires ON ng.quote (expires_at);
