-- Budgets of tenants, promotional credit, incidents and the credits that follow from them,
-- exchange of currencies, and what the checks last found. What moves money stands in
-- sql/api/credit.sql.

-- ---- budgets ----

-- What a tenant commits itself to: held now, and captured in the period. It is moved by the
-- transfers themselves (trigger), in their transaction, after the hold's account was locked.
CREATE TABLE ng.budget (
    tenant_id uuid PRIMARY KEY REFERENCES ng.tenant,
    currency ng.currency NOT NULL,
    limit_micro bigint NOT NULL CHECK (limit_micro >= 0),
    hard boolean NOT NULL,
    period text NOT NULL CHECK (period IN ('month', 'total')),
    since timestamptz NOT NULL, -- a month of the tenant's zone; total: when it was set
    until timestamptz NOT NULL CHECK (until > since),
    held_micro bigint NOT NULL DEFAULT 0 CHECK (held_micro >= 0),
    spent_micro bigint NOT NULL DEFAULT 0 CHECK (spent_micro >= 0),
    carried_micro bigint NOT NULL DEFAULT 0, -- more than the limit when it was set or the period began
    alerted smallint NOT NULL DEFAULT 0 CHECK (alerted IN (0, 50, 80, 100)),
    CONSTRAINT budget_limit CHECK (NOT hard OR held_micro + spent_micro <= greatest(limit_micro, carried_micro))
);

CREATE FUNCTION ng.budget_move() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v record;
BEGIN
    IF NOT EXISTS (SELECT FROM budget) THEN
        RETURN NULL;
    END IF;
    FOR v IN
        SELECT b.tenant_id, h.id AS hold, sum(CASE WHEN m.cr = h.id THEN m.amount_micro ELSE -m.amount_micro END)::bigint AS held,
               coalesce(sum(m.amount_micro) FILTER (WHERE m.dr = h.id AND m.kind IN ('capture', 'fee') AND m.at >= b.since), 0)::bigint AS spent
          FROM made m JOIN account h ON h.id IN (m.dr, m.cr) AND h.kind = 'hold'
          JOIN budget b ON b.tenant_id = h.tenant_id AND b.currency = h.currency
         GROUP BY b.tenant_id, h.id ORDER BY b.tenant_id
    LOOP
        PERFORM budget_apply(v.tenant_id, v.hold, v.held, v.spent);
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER budget AFTER INSERT ON ng.transfer REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.budget_move();

-- ---- promotional credit ----

CREATE TABLE ng.promo_grant (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES ng.tenant,
    currency ng.currency NOT NULL,
    amount_micro bigint NOT NULL CHECK (amount_micro > 0),
    used_micro bigint NOT NULL DEFAULT 0 CHECK (used_micro >= 0),
    back_micro bigint NOT NULL DEFAULT 0 CHECK (back_micro >= 0), -- expired
    expires_at timestamptz NOT NULL,
    reason text NOT NULL CHECK (btrim(reason) <> ''),
    granted_by text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT promo_whole CHECK (used_micro + back_micro <= amount_micro)
);
CREATE INDEX promo_grant_open ON ng.promo_grant (tenant_id, currency, expires_at, id) WHERE used_micro + back_micro < amount_micro;
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF id, tenant_id, currency, amount_micro, expires_at, reason, granted_by, at ON ng.promo_grant
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.promo_grant
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
-- Up to which transfer a tenant's use was set against its promotional credit; refunds that
-- came before there was use to set them against are carried.
CREATE TABLE ng.promo_cursor (
    tenant_id uuid NOT NULL REFERENCES ng.tenant,
    currency ng.currency NOT NULL,
    transfer_id bigint NOT NULL,
    carry_micro bigint NOT NULL DEFAULT 0 CHECK (carry_micro <= 0),
    PRIMARY KEY (tenant_id, currency)
);

-- ---- incidents ----

CREATE TABLE ng.incident (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    what text NOT NULL CHECK (what IN ('provider', 'site', 'node', 'path', 'platform')),
    provider_id uuid REFERENCES ng.provider,
    site_id integer REFERENCES ng.site,
    node_id integer REFERENCES ng.node,
    path_id integer REFERENCES ng.path,
    fault text NOT NULL CHECK (fault IN ('provider', 'platform')),
    from_at timestamptz NOT NULL,
    to_at timestamptz,
    reason text NOT NULL CHECK (btrim(reason) <> ''),
    opened_by text NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_by text,
    reservation_id uuid REFERENCES ng.reservation, -- the market saw it in this lease
    CHECK ((what = 'provider') = (provider_id IS NOT NULL) AND (what = 'site') = (site_id IS NOT NULL)
        AND (what = 'node') = (node_id IS NOT NULL) AND (what = 'path') = (path_id IS NOT NULL)),
    CHECK (what <> 'platform' OR fault = 'platform'),
    CHECK (to_at >= from_at),
    CHECK ((to_at IS NULL) = (closed_by IS NULL))
);
CREATE UNIQUE INDEX incident_seen ON ng.incident (reservation_id, node_id) WHERE reservation_id IS NOT NULL;
CREATE INDEX incident_open ON ng.incident (id) WHERE to_at IS NULL;
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OF id, what, provider_id, site_id, node_id, path_id, fault, from_at, reason,
    opened_by, opened_at, reservation_id ON ng.incident
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_closed BEFORE UPDATE OF to_at, closed_by ON ng.incident
    FOR EACH ROW WHEN (OLD.to_at IS NOT NULL) EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.incident
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

CREATE TABLE ng.sla_credit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident_id bigint NOT NULL REFERENCES ng.incident,
    reservation_id uuid NOT NULL REFERENCES ng.reservation,
    amount_micro bigint NOT NULL CHECK (amount_micro > 0),
    reason text NOT NULL CHECK (btrim(reason) <> ''),
    credited_by text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (incident_id, reservation_id)
);
CREATE INDEX sla_credit_reservation ON ng.sla_credit (reservation_id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.sla_credit
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.sla_credit
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

-- Never more credited than was captured, less what was refunded.
ALTER TABLE ng.reservation ADD COLUMN credited_micro bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT reservation_credited CHECK (credited_micro BETWEEN 0 AND captured_micro - refunded_micro);

-- What the market sees by itself: a lease that is billed to its end is looked at once.
CREATE TABLE ng.sla_due (
    reservation_id uuid PRIMARY KEY REFERENCES ng.reservation
);
-- Of these, the highest whose bounds are both passed by the time a node was not there.
CREATE TABLE ng.sla_terms (
    share_ppm integer PRIMARY KEY CHECK (share_ppm BETWEEN 1 AND 1000000), -- of the lease's time
    gap interval NOT NULL CHECK (gap > '0'),
    credit_ppm integer NOT NULL CHECK (credit_ppm BETWEEN 1 AND 1000000)   -- of what was captured for that node
);
INSERT INTO ng.sla_terms VALUES (10000, '10 minutes', 100000), (50000, '10 minutes', 250000), (200000, '10 minutes', 500000);

-- ---- exchange ----

CREATE TABLE ng.fx_rate (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    base ng.currency NOT NULL,
    quote ng.currency NOT NULL CHECK (quote <> base),
    rate numeric(24, 9) NOT NULL CHECK (rate > 0), -- of quote for 1 of base
    source text NOT NULL CHECK (btrim(source) <> ''),
    set_by text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX fx_rate_newest ON ng.fx_rate (base, quote, id DESC);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.fx_rate
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.fx_rate
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
CREATE TABLE ng.fx (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rate_id bigint NOT NULL REFERENCES ng.fx_rate,
    paid bigint NOT NULL UNIQUE REFERENCES ng.transfer,     -- Dr bank · Cr fx, in the rate's base
    received bigint NOT NULL UNIQUE REFERENCES ng.transfer, -- Dr fx · Cr wallet, in its quote
    CHECK (paid <> received)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.fx
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.fx
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();

-- ---- what the checks found ----

CREATE TABLE ng.check_result (
    name text PRIMARY KEY,
    breaches bigint NOT NULL,
    at timestamptz NOT NULL
);
