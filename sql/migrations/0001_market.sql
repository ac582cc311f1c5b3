-- The market's tables. Money is bigint micro-units; time is timestamptz in half-open
-- ranges; a node's GPUs are neighbours in one global numbering, so that a booking is a run
-- `gpus int4range`. Writes go through functions in schema api only; no program's role has
-- write grants here. Forward only: never edit a migration that has been released.

CREATE SCHEMA ng;
CREATE SCHEMA api;
CREATE SCHEMA report;

CREATE DOMAIN ng.slug AS text CHECK (VALUE ~ '^[a-z0-9][a-z0-9-]{0,62}$');
CREATE DOMAIN ng.currency AS text CHECK (VALUE ~ '^[A-Z]{3}$');
CREATE DOMAIN ng.sha256 AS bytea CHECK (octet_length(VALUE) = 32);

CREATE TABLE ng.market (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    name text NOT NULL,
    currency ng.currency NOT NULL,
    fee_ppm integer NOT NULL CHECK (fee_ppm BETWEEN 0 AND 1000000),
    tax_ppm integer NOT NULL CHECK (tax_ppm BETWEEN 0 AND 1000000),
    issuer_name text NOT NULL,
    issuer_registration text, -- T + 13 digits
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE ng.provider (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name ng.slug NOT NULL UNIQUE,
    fee_ppm integer CHECK (fee_ppm BETWEEN 0 AND 1000000), -- null: the market's
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE ng.tenant (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name ng.slug NOT NULL UNIQUE,
    zone text NOT NULL DEFAULT 'Asia/Tokyo', -- months of invoices
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE ng.api_key (
    hash ng.sha256 PRIMARY KEY,
    id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(), -- may be shown and logged
    role text NOT NULL CHECK (role IN ('tenant', 'provider', 'admin')),
    tenant_id uuid REFERENCES ng.tenant,
    provider_id uuid REFERENCES ng.provider,
    label text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    CHECK ((role = 'tenant') = (tenant_id IS NOT NULL)),
    CHECK ((role = 'provider') = (provider_id IS NOT NULL))
);

CREATE TABLE ng.site (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name ng.slug NOT NULL UNIQUE,
    city text NOT NULL,
    lat double precision NOT NULL CHECK (lat BETWEEN -90 AND 90),
    lon double precision NOT NULL CHECK (lon BETWEEN -180 AND 180),
    residency text NOT NULL CHECK (residency ~ '^[a-z]{2}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE SEQUENCE ng.gpu_no AS integer;

CREATE TABLE ng.node (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    site_id integer NOT NULL REFERENCES ng.site,
    provider_id uuid NOT NULL REFERENCES ng.provider,
    name ng.slug NOT NULL,
    spiffe_id text NOT NULL UNIQUE,
    cert_sha256 ng.sha256, -- null: enrolled, certificate not issued yet
    next_cert_sha256 ng.sha256, -- renewal is two-phase: valid too until first used
    receipt_key ng.sha256 NOT NULL, -- raw Ed25519 public key, 32 bytes
    gpus int4range, -- block of global GPU numbers; null until the first inventory
    gpu_model text NOT NULL DEFAULT '',
    gpu_memory_mib integer NOT NULL DEFAULT 0,
    offered bigint NOT NULL DEFAULT 0, -- bit i: GPU i of the block is on offer
    windows tstzmultirange NOT NULL DEFAULT '{}', -- empty: always
    advertised_price jsonb, -- what the agent's configuration said last; a change of it sets the price
    address text NOT NULL DEFAULT '',
    boot_id text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT 'enrolled' CHECK (state IN ('enrolled', 'up', 'unknown', 'lost', 'retired')),
    last_sync_at timestamptz,
    enrolled_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (site_id, name),
    UNIQUE (id, site_id),
    EXCLUDE USING gist (gpus WITH &&)
);

CREATE TABLE ng.gpu (
    no integer PRIMARY KEY,
    node_id integer NOT NULL REFERENCES ng.node,
    ix smallint NOT NULL CHECK (ix BETWEEN 0 AND 63),
    uuid text NOT NULL UNIQUE, -- one physical GPU is enrolled once in the whole market
    model text NOT NULL,
    memory_mib integer NOT NULL,
    pci text NOT NULL DEFAULT '',
    minor integer NOT NULL,
    state text NOT NULL CHECK (state IN ('idle', 'leased', 'busy', 'lost', 'quarantined')),
    UNIQUE (node_id, ix)
);

CREATE TABLE ng.join_code (
    hash ng.sha256 PRIMARY KEY,
    site_id integer NOT NULL REFERENCES ng.site,
    provider_id uuid NOT NULL REFERENCES ng.provider,
    node_name ng.slug NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    used_key ng.sha256 -- who used it: that key may ask again until it expires
);

-- One price at a time per node.
CREATE EXTENSION IF NOT EXISTS btree_gist SCHEMA public;
CREATE TABLE ng.price (
    node_id integer NOT NULL REFERENCES ng.node,
    during tstzrange NOT NULL CHECK (NOT isempty(during)),
    currency ng.currency NOT NULL,
    per_gpu_hour_micro bigint NOT NULL CHECK (per_gpu_hour_micro >= 0),
    set_by text NOT NULL,
    EXCLUDE USING gist (node_id WITH =, during WITH &&)
);

CREATE TABLE ng.dataset (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES ng.tenant,
    name ng.slug NOT NULL,
    endpoint text NOT NULL,
    site_id integer REFERENCES ng.site, -- where it stands, if it is one of our sites
    lat double precision,
    lon double precision,
    size_bytes bigint CHECK (size_bytes >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz
);
CREATE UNIQUE INDEX dataset_name ON ng.dataset (tenant_id, name) WHERE removed_at IS NULL;

CREATE TABLE ng.rtt (
    node_id integer NOT NULL REFERENCES ng.node,
    dataset_id integer NOT NULL REFERENCES ng.dataset,
    min_us bigint NOT NULL CHECK (min_us > 0),
    p50_us bigint NOT NULL CHECK (p50_us >= min_us),
    p99_us bigint NOT NULL CHECK (p99_us >= p50_us),
    count integer NOT NULL CHECK (count > 0),
    at timestamptz NOT NULL,
    PRIMARY KEY (node_id, dataset_id)
);

-- Reservation states. server/core/resv.c has the same rows; tests/db compares them.
CREATE TABLE ng.resv_rule (
    from_state text NOT NULL,
    event text NOT NULL,
    to_state text NOT NULL,
    PRIMARY KEY (from_state, event)
);
INSERT INTO ng.resv_rule (from_state, event, to_state) VALUES
    ('waiting', 'book', 'confirmed'),
    ('waiting', 'cancel', 'cancelled'),
    ('waiting', 'expire', 'failed'),
    ('waiting', 'fail', 'failed'),
    ('held', 'confirm', 'confirmed'),
    ('held', 'cancel', 'cancelled'),
    ('held', 'expire', 'cancelled'),
    ('held', 'fail', 'failed'),
    ('confirmed', 'start', 'active'),
    ('confirmed', 'cancel', 'cancelled'),
    ('confirmed', 'fail', 'failed'),
    ('confirmed', 'extend', 'confirmed'),
    ('active', 'end', 'ended'),
    ('active', 'cancel', 'ended'),
    ('active', 'fail', 'failed'),
    ('active', 'extend', 'active');

CREATE TABLE ng.reservation (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES ng.tenant,
    state text NOT NULL CHECK (state IN ('waiting', 'held', 'confirmed', 'active', 'ended', 'cancelled', 'failed')),
    reason text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    during tstzrange NOT NULL CHECK (NOT isempty(during)), -- what was promised
    ended_at timestamptz, -- when it was over, if before upper(during)
    request jsonb NOT NULL,
    data jsonb NOT NULL DEFAULT '[]', -- [{name, site, rtt_us, slowdown_ppm}]
    currency ng.currency NOT NULL,
    per_hour_micro bigint NOT NULL CHECK (per_hour_micro >= 0), -- all GPUs together
    total_micro bigint NOT NULL CHECK (total_micro >= 0),
    effective_micro bigint NOT NULL CHECK (effective_micro >= 0),
    fee_ppm integer NOT NULL,
    held_micro bigint NOT NULL DEFAULT 0 CHECK (held_micro >= 0),
    captured_micro bigint NOT NULL DEFAULT 0 CHECK (captured_micro >= 0),
    released_micro bigint NOT NULL DEFAULT 0 CHECK (released_micro >= 0),
    idem_key text NOT NULL,
    idem_hash ng.sha256 NOT NULL,
    quote_id uuid,
    spot boolean NOT NULL DEFAULT false,
    generation integer NOT NULL DEFAULT 1,
    UNIQUE (tenant_id, idem_key),
    CHECK (held_micro >= captured_micro + released_micro)
);
-- Partial: a booking pays for one of the two, and history for none.
CREATE INDEX reservation_active ON ng.reservation (upper(during)) WHERE state = 'active';
CREATE INDEX reservation_due ON ng.reservation (lower(during)) WHERE state IN ('held', 'confirmed');
CREATE INDEX reservation_tenant ON ng.reservation (tenant_id, id DESC);
CREATE INDEX reservation_rest ON ng.reservation (id) -- holds to give back
    WHERE state IN ('ended', 'cancelled', 'failed') AND held_micro > captured_micro + released_micro;

-- The table of rules is the only way from one state to another, whoever writes.
CREATE FUNCTION ng.check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state NOT IN ('waiting', 'held', 'confirmed') THEN
            RAISE EXCEPTION 'a reservation does not begin as %', NEW.state USING ERRCODE = 'NG006';
        END IF;
    ELSIF NOT EXISTS (SELECT FROM ng.resv_rule WHERE from_state = OLD.state AND to_state = NEW.state) THEN
        RAISE EXCEPTION 'a reservation that is % cannot become %', OLD.state, NEW.state USING ERRCODE = 'NG006';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER first_state BEFORE INSERT ON ng.reservation
    FOR EACH ROW WHEN (NEW.state <> 'confirmed') EXECUTE FUNCTION ng.check_transition();
CREATE TRIGGER next_state BEFORE UPDATE OF state ON ng.reservation
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION ng.check_transition();

-- The promise that a GPU is never sold twice for one instant: the exclusion constraint
-- holds for every role, the owner included. A cancelled booking's range becomes empty (an
-- empty range overlaps nothing); one ended early is cut at the node's teardown receipt.
CREATE TABLE ng.booking (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reservation_id uuid NOT NULL REFERENCES ng.reservation,
    node_id integer NOT NULL,
    site_id integer NOT NULL,
    gpus int4range NOT NULL CHECK (NOT isempty(gpus)),
    during tstzrange NOT NULL,
    epoch bigint NOT NULL, -- fencing: start in us; grows per GPU in order of use
    per_gpu_hour_micro bigint NOT NULL,
    FOREIGN KEY (node_id, site_id) REFERENCES ng.node (id, site_id),
    CONSTRAINT booking_no_double EXCLUDE USING gist (gpus WITH &&, during WITH &&)
);
CREATE INDEX booking_reservation ON ng.booking (reservation_id);
CREATE INDEX booking_node ON ng.booking (node_id, upper(during));

CREATE TABLE ng.quote (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES ng.tenant,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    request jsonb NOT NULL,
    plan jsonb NOT NULL,
    hash ng.sha256 NOT NULL
);

-- Replies of creates other than reservations (which carry their own key).
CREATE TABLE ng.idempotency (
    principal text NOT NULL,
    key text NOT NULL,
    request_hash ng.sha256 NOT NULL,
    reply jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (principal, key)
);

-- Outbox: what tenants, dashboards and other servers are told. xid orders by commit:
-- readers take rows whose xid is below every running transaction.
CREATE TABLE ng.event (
    id bigint GENERATED ALWAYS AS IDENTITY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    origin text NOT NULL DEFAULT coalesce(current_setting('neargpu.origin', true), ''), -- server instance
    tenant_id uuid,
    reservation_id uuid,
    node_id integer,
    payload jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (xid, id)
);
-- A hint that wakes readers at commit; the table is the truth.
CREATE FUNCTION ng.wake_readers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('neargpu', '');
    RETURN NULL;
END $$;
CREATE TRIGGER wake AFTER INSERT ON ng.event FOR EACH STATEMENT EXECUTE FUNCTION ng.wake_readers();

CREATE TABLE ng.token (
    jti uuid PRIMARY KEY,
    reservation_id uuid NOT NULL REFERENCES ng.reservation,
    node_id integer NOT NULL REFERENCES ng.node,
    jkt text NOT NULL,
    kid text NOT NULL,
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);

CREATE SEQUENCE ng.status_seq;
CREATE TABLE ng.revocation (
    reservation_id uuid PRIMARY KEY REFERENCES ng.reservation,
    seq bigint NOT NULL DEFAULT nextval('ng.status_seq'),
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    until timestamptz NOT NULL -- not needed in the status document after this
);

-- Signed usage receipts, one chain per reservation and node; each billed exactly once:
-- ng.meter is the cursor.
CREATE TABLE ng.receipt (
    reservation_id uuid NOT NULL REFERENCES ng.reservation,
    node_id integer NOT NULL REFERENCES ng.node,
    seq integer NOT NULL CHECK (seq > 0),
    hash ng.sha256 NOT NULL,
    kind text NOT NULL CHECK (kind IN ('ready', 'interval', 'teardown')),
    during tstzrange NOT NULL,
    gpu_ms bigint NOT NULL CHECK (gpu_ms >= 0), -- cumulative since ready
    gaps jsonb NOT NULL DEFAULT '[]',
    jws text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    rated boolean NOT NULL DEFAULT false,
    PRIMARY KEY (reservation_id, node_id, seq)
);
CREATE INDEX receipt_unrated ON ng.receipt (received_at) WHERE NOT rated;
-- A second, different receipt under a number already taken: evidence of a forked chain.
CREATE TABLE ng.receipt_fork (
    reservation_id uuid NOT NULL,
    node_id integer NOT NULL,
    seq integer NOT NULL,
    jws text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE ng.meter (
    reservation_id uuid NOT NULL REFERENCES ng.reservation,
    node_id integer NOT NULL REFERENCES ng.node,
    seq integer NOT NULL DEFAULT 0,       -- last rated receipt
    gpu_ms bigint NOT NULL DEFAULT 0,     -- rated so far
    amount_micro bigint NOT NULL DEFAULT 0,
    fee_micro bigint NOT NULL DEFAULT 0,
    closed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (reservation_id, node_id)
);

-- Ledger. One row per transfer (dr, cr, amount): balanced by construction. Wallet, hold
-- and available are guarded: their balance (credits minus debits) is kept in the row, with
-- its floor as a CHECK; the others are sums of transfers.
CREATE TABLE ng.account (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('bank', 'wallet', 'hold', 'receivable', 'provider_pending',
        'provider_available', 'provider_reserve', 'payout_clearing', 'fee', 'sla_expense', 'promo_expense',
        'rounding', 'tax_output', 'tax_input')),
    tenant_id uuid REFERENCES ng.tenant,
    provider_id uuid REFERENCES ng.provider,
    currency ng.currency NOT NULL,
    guarded boolean NOT NULL,
    balance_micro bigint NOT NULL DEFAULT 0,
    floor_micro bigint NOT NULL DEFAULT 0,
    UNIQUE NULLS NOT DISTINCT (kind, tenant_id, provider_id, currency),
    UNIQUE (id, currency),
    CONSTRAINT account_floor CHECK (NOT guarded OR balance_micro >= floor_micro),
    CHECK (guarded = (kind IN ('wallet', 'hold', 'provider_available'))),
    CHECK ((kind IN ('wallet', 'hold', 'receivable')) = (tenant_id IS NOT NULL)),
    CHECK ((kind IN ('provider_pending', 'provider_available', 'provider_reserve')) = (provider_id IS NOT NULL))
);
CREATE TABLE ng.transfer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL CHECK (kind IN ('topup', 'hold', 'capture', 'fee', 'release', 'tax', 'rounding', 'collect', 'reversal', 'settle', 'payout')),
    dr integer NOT NULL,
    cr integer NOT NULL,
    currency ng.currency NOT NULL,
    amount_micro bigint NOT NULL CHECK (amount_micro > 0),
    reservation_id uuid,
    ref text, -- idempotency: one transfer per (kind, ref)
    reverses bigint REFERENCES ng.transfer, -- once
    CHECK (dr <> cr),
    FOREIGN KEY (dr, currency) REFERENCES ng.account (id, currency),
    FOREIGN KEY (cr, currency) REFERENCES ng.account (id, currency)
);
CREATE UNIQUE INDEX transfer_reverses ON ng.transfer (reverses) WHERE reverses IS NOT NULL;
CREATE UNIQUE INDEX transfer_ref ON ng.transfer (kind, ref) WHERE ref IS NOT NULL;
CREATE INDEX transfer_dr ON ng.transfer (dr, id);
CREATE INDEX transfer_cr ON ng.transfer (cr, id);
CREATE INDEX transfer_captured ON ng.transfer (dr, at) WHERE kind IN ('capture', 'fee'); -- to be invoiced
CREATE INDEX transfer_reservation ON ng.transfer (reservation_id) WHERE reservation_id IS NOT NULL;

CREATE TABLE ng.invoice (
    number text PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES ng.tenant,
    currency ng.currency NOT NULL,
    period tstzrange NOT NULL,
    issued_at timestamptz NOT NULL DEFAULT now(),
    net_micro bigint NOT NULL,
    tax_ppm integer NOT NULL,
    tax_micro bigint NOT NULL,
    total_micro bigint NOT NULL,
    document jsonb NOT NULL, -- issuer, recipient, notes as printed
    CHECK (total_micro = net_micro + tax_micro),
    EXCLUDE USING gist (tenant_id WITH =, currency WITH =, period WITH &&)
);
CREATE TABLE ng.invoice_line (
    number text NOT NULL REFERENCES ng.invoice,
    line integer NOT NULL,
    description text NOT NULL,
    reservation_id uuid,
    quantity_gpu_ms bigint NOT NULL,
    amount_micro bigint NOT NULL,
    PRIMARY KEY (number, line)
);

-- Every match, for latency percentiles and unmet demand.
CREATE TABLE ng.match_log (
    at timestamptz NOT NULL,
    tenant_id uuid,
    kind text NOT NULL CHECK (kind IN ('offers', 'quote', 'reserve')),
    outcome text NOT NULL CHECK (outcome IN ('ok', 'no_fit', 'lost', 'funds')),
    match_us integer NOT NULL,
    gpu_model text NOT NULL DEFAULT '',
    gpus integer NOT NULL,
    duration_s integer NOT NULL,
    site_id integer,
    dataset_id integer,
    rtt_us bigint,
    slowdown_ppm bigint,
    why text NOT NULL DEFAULT '' -- the reason that excluded most places
);
CREATE INDEX match_log_at ON ng.match_log USING brin (at);

-- History is added to, never changed: no role may, and a trigger tells even the owner.
CREATE FUNCTION ng.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: add a correcting row instead', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.transfer
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.transfer
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.invoice
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.invoice
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.invoice_line
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.invoice_line
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
-- Of a receipt only `rated` changes, and only once.
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF reservation_id, node_id, seq, hash, kind, during, gpu_ms, gaps,
    jws, received_at ON ng.receipt
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_rated BEFORE UPDATE OF rated ON ng.receipt
    FOR EACH ROW WHEN (OLD.rated AND NOT NEW.rated) EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.receipt
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

-- A correction undoes one transfer, all of it, to the same accounts.
CREATE FUNCTION ng.check_reversal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ng.transfer t
                    WHERE t.id = NEW.reverses AND t.dr = NEW.cr AND t.cr = NEW.dr AND t.amount_micro = NEW.amount_micro
                      AND t.kind <> 'reversal') THEN
        RAISE EXCEPTION 'a reversal must be the exact opposite of an earlier transfer' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER exact_reversal BEFORE INSERT ON ng.transfer
    FOR EACH ROW WHEN (NEW.reverses IS NOT NULL OR NEW.kind = 'reversal') EXECUTE FUNCTION ng.check_reversal();

-- An invoice's net sum is the sum of its lines when the transaction ends.
-- Deferred triggers run as the session's role at commit, which may not read tables.
CREATE FUNCTION ng.check_invoice_sum() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    IF (SELECT net_micro FROM ng.invoice WHERE number = NEW.number)
        IS DISTINCT FROM (SELECT sum(amount_micro) FROM ng.invoice_line WHERE number = NEW.number) THEN
        RAISE EXCEPTION 'invoice % is not the sum of its lines', NEW.number USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER lines_sum AFTER INSERT ON ng.invoice DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ng.check_invoice_sum();
CREATE CONSTRAINT TRIGGER lines_sum AFTER INSERT ON ng.invoice_line DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ng.check_invoice_sum();
