-- What reports are made of: one row for each use that was charged, roll-ups by hour and day
-- that neargpu-billd keeps (sql/api/rollup.sql), and what grows without end cut by month.

-- ---- use ----

-- What a rated receipt, or a billed path, was worth; written with the transfers that moved
-- the money. It says in one row what these say in three tables. Exactly once, since ng.meter
-- and path_booking.billed_at are; so it needs no unique index, which a table that is cut by
-- time could not have. Never changed.
CREATE TABLE ng.usage (
    at timestamptz NOT NULL,      -- charged: as the transfers
    used_at timestamptz NOT NULL, -- began
    quantity_ms bigint NOT NULL CHECK (quantity_ms >= 0), -- GPU-ms or lane-ms
    amount_micro bigint NOT NULL CHECK (amount_micro >= 0),
    fee_micro bigint NOT NULL CHECK (fee_micro BETWEEN 0 AND amount_micro),
    late_ms bigint NOT NULL,      -- from its end to when the market heard of it
    reservation_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    provider_id uuid NOT NULL,
    site_id integer NOT NULL,
    node_id integer,              -- null: a path
    spot boolean NOT NULL,
    currency text NOT NULL,
    gpu_model text NOT NULL       -- '' a path's
) PARTITION BY RANGE (at);
CREATE INDEX usage_at ON ng.usage USING brin (at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX usage_used_at ON ng.usage USING brin (used_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE TABLE ng.usage_rest PARTITION OF ng.usage DEFAULT;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.usage
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();

-- The log of matches, cut by month as well: a month that nobody needs is dropped as a whole.
-- What there is already becomes the part for all other times.
ALTER TABLE ng.match_log RENAME TO match_log_rest;
CREATE TABLE ng.match_log (LIKE ng.match_log_rest INCLUDING ALL) PARTITION BY RANGE (at);
ALTER TABLE ng.match_log ATTACH PARTITION ng.match_log_rest DEFAULT;

-- Makes the months from this one on, and returns how many were new. A month of which the
-- rest has rows already stays there.
CREATE FUNCTION ng.make_months(p_table text, p_count integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_from timestamptz;
    v_name text;
    v_made integer := 0;
    v_there boolean;
    v_to timestamptz;
BEGIN
    FOR i IN 0 .. p_count - 1 LOOP
        v_from := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i)) AT TIME ZONE 'UTC';
        v_to := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i + 1)) AT TIME ZONE 'UTC';
        v_name := format('%s_%s', p_table, to_char(v_from AT TIME ZONE 'UTC', 'YYYY_MM'));
        CONTINUE WHEN to_regclass('ng.' || v_name) IS NOT NULL;
        EXECUTE format('SELECT EXISTS (SELECT FROM ng.%I WHERE at >= $1 AND at < $2)', p_table || '_rest')
           INTO v_there USING v_from, v_to;
        CONTINUE WHEN v_there;
        EXECUTE format('CREATE TABLE ng.%I PARTITION OF ng.%I FOR VALUES FROM (%L) TO (%L)', v_name, p_table, v_from, v_to);
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END $$;
SELECT ng.make_months('usage', 13), ng.make_months('match_log', 13);

-- ---- roll-ups ----

-- Hours (UTC) that rows came for since they were rolled up: no key, so that writers do not
-- wait for each other. kind: use, money (a day), match, capacity.
CREATE TABLE ng.roll_dirty (
    kind text NOT NULL CHECK (kind IN ('use', 'money', 'match', 'capacity')),
    hour timestamptz NOT NULL
);
CREATE INDEX roll_dirty_kind ON ng.roll_dirty (kind, hour);

-- fresh_at: everything that was committed before is in it. done_to: of what is rolled up by
-- the clock, up to where. floor: what is older has no rows below it any more, and is kept.
CREATE TABLE ng.roll_state (
    kind text PRIMARY KEY,
    fresh_at timestamptz,
    done_to timestamptz NOT NULL DEFAULT '-infinity',
    floor timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO ng.roll_state (kind, done_to)
SELECT k, coalesce((SELECT greatest(min(enrolled_at), now() - interval '92 days') FROM ng.node HAVING count(*) > 0), now())
  FROM unnest(ARRAY['use', 'money', 'match', 'capacity', 'orders']) k;

-- GPU-milliseconds used, by the hour in which the use began.
CREATE TABLE ng.roll_use (
    hour timestamptz NOT NULL,
    site_id integer NOT NULL,
    provider_id uuid NOT NULL,
    gpu_model text NOT NULL,
    spot boolean NOT NULL,
    gpu_ms bigint NOT NULL,
    receipts bigint NOT NULL,
    late bigint NOT NULL,        -- heard of more than 5 minutes after its end
    late_gpu_ms bigint NOT NULL,
    worst_late_ms bigint NOT NULL,
    PRIMARY KEY (hour, site_id, provider_id, gpu_model, spot)
);
-- Money captured, by the day of the transfers.
CREATE TABLE ng.roll_money (
    day timestamptz NOT NULL,
    provider_id uuid NOT NULL,
    site_id integer NOT NULL,
    tenant_id uuid NOT NULL,
    gpu_model text NOT NULL,     -- '' paths
    spot boolean NOT NULL,
    currency text NOT NULL,
    gross_micro bigint NOT NULL,
    fee_micro bigint NOT NULL,
    gpu_ms bigint NOT NULL,      -- 0 for paths
    reservations bigint NOT NULL,
    PRIMARY KEY (day, provider_id, site_id, tenant_id, gpu_model, spot, currency)
);
-- GPU-milliseconds that there were, and that were booked.
CREATE TABLE ng.roll_capacity (
    hour timestamptz NOT NULL,
    site_id integer NOT NULL,
    provider_id uuid NOT NULL,
    gpu_model text NOT NULL,
    gpu_ms bigint NOT NULL,
    firm_ms bigint NOT NULL,
    spot_ms bigint NOT NULL,
    PRIMARY KEY (hour, site_id, provider_id, gpu_model)
);
CREATE TABLE ng.roll_match (
    hour timestamptz NOT NULL,
    kind text NOT NULL,
    outcome text NOT NULL,
    gpu_model text NOT NULL,
    why text NOT NULL,
    requests bigint NOT NULL,
    gpus bigint NOT NULL,
    gpu_ms numeric NOT NULL,     -- asked for
    PRIMARY KEY (hour, kind, outcome, gpu_model, why)
);
-- Histograms that can be added up: ng.bucket() says which value falls where.
CREATE TABLE ng.roll_latency (
    hour timestamptz NOT NULL,
    kind text NOT NULL,
    bucket smallint NOT NULL,
    requests bigint NOT NULL,
    PRIMARY KEY (hour, kind, bucket)
);
-- Reservations by the day they were made and how far ahead of their start (bucket of s), and
-- quotes with what became of them. A day is final when it is over.
CREATE TABLE ng.roll_lead (
    day timestamptz NOT NULL,
    spot boolean NOT NULL,
    bucket smallint NOT NULL,
    reservations bigint NOT NULL,
    gpu_ms numeric NOT NULL,
    PRIMARY KEY (day, spot, bucket)
);
CREATE TABLE ng.roll_quote (
    day timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    quotes bigint NOT NULL,
    reserved bigint NOT NULL,
    wait_s numeric NOT NULL,     -- from quote to reservation, all together
    PRIMARY KEY (day, tenant_id)
);
-- Cheap where rows come in the order of time.
CREATE INDEX reservation_created ON ng.reservation USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX quote_created ON ng.quote USING brin (created_at) WITH (pages_per_range = 32, autosummarize = on);
-- Money that moved otherwise than by use: rare, so that it costs captures nothing.
CREATE INDEX transfer_other ON ng.transfer (at) WHERE kind IN ('reversal', 'refund', 'refund_fee', 'refund_tax', 'sla',
    'sla_fee', 'promo', 'promo_used', 'promo_back', 'chargeback');

CREATE INDEX receipt_gaps ON ng.receipt (received_at) WHERE gaps <> '[]';
CREATE INDEX reservation_fault ON ng.reservation (created_at) WHERE fault IS NOT NULL;

CREATE FUNCTION ng.dirty_usage() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    INSERT INTO roll_dirty (kind, hour)
    SELECT DISTINCT 'use', date_trunc('hour', used_at, 'UTC') FROM made WHERE node_id IS NOT NULL
    UNION ALL
    SELECT DISTINCT 'money', date_trunc('day', at, 'UTC') FROM made;
    RETURN NULL;
END $$;
CREATE TRIGGER dirty AFTER INSERT ON ng.usage REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.dirty_usage();
CREATE FUNCTION ng.dirty_match() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    INSERT INTO roll_dirty (kind, hour) SELECT DISTINCT 'match', date_trunc('hour', at, 'UTC') FROM made;
    RETURN NULL;
END $$;
CREATE TRIGGER dirty AFTER INSERT ON ng.match_log REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION ng.dirty_match();
-- A booking that changes hours that are over. Others, which are nearly all, cost a
-- comparison.
CREATE FUNCTION ng.dirty_booking() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_from timestamptz;
    v_to timestamptz;
BEGIN
    IF TG_OP = 'INSERT' THEN
        v_from := lower(NEW.during);
        v_to := upper(NEW.during);
    ELSIF isempty(NEW.during) OR isempty(OLD.during) OR lower(NEW.during) <> lower(OLD.during) THEN
        v_from := least(lower(OLD.during), lower(NEW.during)); -- null where empty
        v_to := greatest(upper(OLD.during), upper(NEW.during));
    ELSE
        v_from := least(upper(OLD.during), upper(NEW.during));
        v_to := greatest(upper(OLD.during), upper(NEW.during));
    END IF;
    INSERT INTO roll_dirty (kind, hour)
    SELECT 'capacity', h FROM generate_series(date_trunc('hour', greatest(v_from, now() - interval '366 days'), 'UTC'),
                                              least(v_to, now()), interval '1 hour') h;
    RETURN NULL;
END $$;
CREATE TRIGGER dirty_past AFTER INSERT ON ng.booking
    FOR EACH ROW WHEN (lower(NEW.during) < date_trunc('hour', now())) EXECUTE FUNCTION ng.dirty_booking();
CREATE TRIGGER dirty_change AFTER UPDATE OF during ON ng.booking
    FOR EACH ROW WHEN (NEW.during <> OLD.during AND (lower(OLD.during) < now() OR lower(NEW.during) < now()))
    EXECUTE FUNCTION ng.dirty_booking();

-- What was there before. A capture may stand for several receipts of a chain: the last of
-- them has the money, each its own use.
INSERT INTO ng.usage (at, used_at, quantity_ms, amount_micro, fee_micro, late_ms, reservation_id, tenant_id, provider_id, site_id,
    node_id, spot, currency, gpu_model)
SELECT coalesce(c.at, f.at, r.received_at), coalesce(lower(r.during), r.received_at), r.used_ms,
       coalesce(c.amount_micro, 0) + coalesce(f.amount_micro, 0), coalesce(f.amount_micro, 0),
       greatest(0, coalesce(extract(epoch FROM r.received_at - upper(r.during)) * 1000, 0))::bigint,
       r.reservation_id, v.tenant_id, n.provider_id, n.site_id, r.node_id, v.spot, v.currency, n.gpu_model
  FROM (SELECT x.*, greatest(0, x.gpu_ms - lag(x.gpu_ms, 1, 0::bigint) OVER (PARTITION BY x.reservation_id, x.node_id ORDER BY x.seq)) AS used_ms
          FROM ng.receipt x WHERE x.rated) r
  JOIN ng.reservation v ON v.id = r.reservation_id JOIN ng.node n ON n.id = r.node_id
  LEFT JOIN ng.transfer c ON c.kind = 'capture' AND c.ref = r.reservation_id || '/' || r.node_id || '/' || r.seq
  LEFT JOIN ng.transfer f ON f.kind = 'fee' AND f.ref = r.reservation_id || '/' || r.node_id || '/' || r.seq
 WHERE r.used_ms > 0 OR c.id IS NOT NULL OR f.id IS NOT NULL
UNION ALL
SELECT coalesce(k.billed_at, now()), coalesce(lower(r.during), k.billed_at), coalesce(k.served_ms, 0), k.captured_micro, k.fee_micro, 0,
       k.reservation_id, r.tenant_id, p.provider_id, p.site_a, NULL, r.spot, r.currency, ''
  FROM ng.path_booking k JOIN ng.reservation r ON r.id = k.reservation_id JOIN ng.path p ON p.id = k.path_id
 WHERE k.captured_micro > 0;
INSERT INTO ng.roll_dirty (kind, hour) SELECT DISTINCT 'match', date_trunc('hour', at, 'UTC') FROM ng.match_log;
