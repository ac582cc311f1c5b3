-- Roll-ups (sql/migrations/0013_reports.sql), kept by neargpu-billd. A day at a time is made
-- anew from its rows: what is done twice, late or half and rolled back comes out the same.
-- Rows are marked in the transaction that writes them; the marks are taken before the rows
-- are read, so that whatever is written meanwhile leaves a mark for the next time.

-- Where a value falls: 16 buckets a doubling, so that a bucket's middle is within 3.2 % of
-- what is in it; below 32 each has its own.
CREATE OR REPLACE FUNCTION ng.bucket(p_value bigint) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN v < 16 THEN v
                ELSE (e - 5) * 16 + (v >> (e - 5)) END::smallint
      FROM (SELECT greatest(0, least(p_value, 4294967295)) AS v) x
      CROSS JOIN LATERAL (SELECT width_bucket(v, ARRAY[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384,
          32768, 65536, 131072, 262144, 524288, 1048576, 2097152, 4194304, 8388608, 16777216, 33554432, 67108864, 134217728,
          268435456, 536870912, 1073741824, 2147483648]::bigint[]) AS e) y
$$;
-- The middle of a bucket.
CREATE OR REPLACE FUNCTION report.bucket_value(p_bucket integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_bucket < 32 THEN p_bucket
                ELSE ((16 + p_bucket % 16)::bigint << (p_bucket / 16 - 1)) + (1::bigint << (p_bucket / 16 - 1)) / 2 END
$$;

-- Hours of one kind that are marked, of the oldest day that has any; the marks are gone.
-- Older than the floor are passed over: they have no rows any more to be made of.
CREATE OR REPLACE FUNCTION ng.roll_take(p_kind text) RETURNS timestamptz[]
LANGUAGE plpgsql AS $$
DECLARE
    v_floor timestamptz := (SELECT floor FROM ng.roll_state WHERE kind = p_kind);
    v_day timestamptz;
    v_hours timestamptz[];
BEGIN
    DELETE FROM ng.roll_dirty WHERE kind = p_kind AND hour < v_floor;
    SELECT date_trunc('day', min(hour), 'UTC') INTO v_day FROM ng.roll_dirty WHERE kind = p_kind;
    IF v_day IS NULL THEN
        RETURN NULL;
    END IF;
    WITH gone AS (
        DELETE FROM ng.roll_dirty WHERE kind = p_kind AND hour >= v_day AND hour < v_day + interval '24 hours' RETURNING hour)
    SELECT array_agg(DISTINCT date_trunc('hour', hour, 'UTC') ORDER BY date_trunc('hour', hour, 'UTC')) INTO v_hours FROM gone;
    RETURN v_hours;
END $$;

CREATE OR REPLACE FUNCTION ng.roll_use(h timestamptz[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM ng.roll_use WHERE hour = ANY (h);
    INSERT INTO ng.roll_use (hour, site_id, provider_id, gpu_model, spot, gpu_ms, receipts, late, late_gpu_ms, worst_late_ms)
    SELECT date_trunc('hour', used_at, 'UTC') AS hour, site_id, provider_id, gpu_model, spot, sum(quantity_ms), count(*),
           count(*) FILTER (WHERE late_ms > 300000), coalesce(sum(quantity_ms) FILTER (WHERE late_ms > 300000), 0), max(late_ms)
      FROM ng.usage
     WHERE node_id IS NOT NULL AND used_at >= h[1] AND used_at < h[cardinality(h)] + interval '1 hour'
       AND at >= h[1] - interval '1 day' -- charged after it began, but for clocks: passes over older months
       AND date_trunc('hour', used_at, 'UTC') = ANY (h)
     GROUP BY 1, 2, 3, 4, 5;
    DELETE FROM ng.roll_use_site WHERE hour = ANY (h);
    INSERT INTO ng.roll_use_site (hour, site_id, gpu_model, gpu_ms)
    SELECT hour, site_id, gpu_model, sum(gpu_ms) FROM ng.roll_use WHERE hour = ANY (h) GROUP BY 1, 2, 3;
    -- Hours of one day: its sums are made of its hours, which are few.
    DELETE FROM ng.roll_use_day WHERE day = date_trunc('day', h[1], 'UTC');
    INSERT INTO ng.roll_use_day (day, site_id, provider_id, gpu_model, spot, gpu_ms, receipts, late, late_gpu_ms, worst_late_ms)
    SELECT date_trunc('day', h[1], 'UTC'), site_id, provider_id, gpu_model, spot, sum(gpu_ms), sum(receipts), sum(late),
           sum(late_gpu_ms), max(worst_late_ms)
      FROM ng.roll_use
     WHERE hour >= date_trunc('day', h[1], 'UTC') AND hour < date_trunc('day', h[1], 'UTC') + interval '24 hours'
     GROUP BY 2, 3, 4, 5;
$$;

-- What credit notes and credits of a day gave back, as their transfers say, where it had been
-- earned: a provider's part is spread over what was captured for its nodes and paths (that
-- the incident is about), so that the parts add up to the transfers.
CREATE OR REPLACE FUNCTION ng.given_back(p_day timestamptz)
RETURNS TABLE (provider_id uuid, site_id integer, tenant_id uuid, gpu_model text, spot boolean, currency text, refund_micro bigint,
    credit_micro bigint, fee_micro bigint, market_micro bigint)
LANGUAGE sql STABLE AS $$
    WITH docs AS (
        SELECT number AS doc, reservation_id, true AS refund, NULL::bigint AS incident_id FROM ng.credit_note
         WHERE issued_at >= p_day AND issued_at < p_day + interval '24 hours'
        UNION ALL
        SELECT 'sla/' || id, reservation_id, false, incident_id FROM ng.sla_credit WHERE at >= p_day AND at < p_day + interval '24 hours'),
    parts AS (
        SELECT d.doc, d.reservation_id, d.refund, d.incident_id, CASE WHEN w.who <> 'platform' THEN w.who::uuid END AS provider_id, t.currency,
               sum(t.amount_micro)::bigint AS micro, coalesce(sum(t.amount_micro) FILTER (WHERE a.kind = 'fee'), 0)::bigint AS fee,
               coalesce(sum(t.amount_micro) FILTER (WHERE a.kind = 'sla_expense'), 0)::bigint AS market
          FROM docs d
          JOIN ng.transfer t ON t.reservation_id = d.reservation_id AND t.kind IN ('refund', 'refund_fee', 'sla', 'sla_fee')
                            AND starts_with(t.ref, d.doc || '/')
          JOIN ng.account a ON a.id = t.dr
          CROSS JOIN LATERAL (SELECT split_part(substr(t.ref, length(d.doc) + 2), '/', 1) AS who) w
         GROUP BY 1, 2, 3, 4, 5, 6),
    earned AS (
        SELECT m.reservation_id, n.provider_id, n.site_id, n.id AS node_id, NULL::integer AS path_id, n.gpu_model, m.amount_micro AS micro
          FROM ng.meter m JOIN ng.node n ON n.id = m.node_id WHERE m.reservation_id IN (SELECT reservation_id FROM docs)
        UNION ALL
        SELECT k.reservation_id, h.provider_id, h.site_a, NULL, h.id, '', k.captured_micro
          FROM ng.path_booking k JOIN ng.path h ON h.id = k.path_id WHERE k.reservation_id IN (SELECT reservation_id FROM docs)),
    placed AS (
        SELECT p.refund, p.currency, p.reservation_id, p.micro, p.fee, p.market, e.provider_id, e.site_id, e.gpu_model, e.micro AS weight,
               (sum(e.micro) OVER w)::bigint AS upto, (sum(e.micro) OVER (PARTITION BY p.doc, p.provider_id))::bigint AS total
          FROM parts p JOIN earned e ON e.reservation_id = p.reservation_id AND coalesce(e.provider_id = p.provider_id, true) AND e.micro > 0
          LEFT JOIN ng.incident i ON i.id = p.incident_id
         WHERE i.id IS NULL OR coalesce(e.provider_id = i.provider_id, true) AND CASE WHEN e.path_id IS NULL
               THEN i.what <> 'path' AND coalesce(e.site_id = i.site_id, true) AND coalesce(e.node_id = i.node_id, true)
               ELSE i.what IN ('path', 'platform', 'provider') AND coalesce(e.path_id = i.path_id, true) END
        WINDOW w AS (PARTITION BY p.doc, p.provider_id ORDER BY e.node_id, e.path_id))
    SELECT x.provider_id, x.site_id, r.tenant_id, x.gpu_model, r.spot, x.currency, CASE WHEN x.refund THEN y.micro ELSE 0 END,
           CASE WHEN x.refund THEN 0 ELSE y.micro END, y.fee, y.market
      FROM placed x JOIN ng.reservation r ON r.id = x.reservation_id
      CROSS JOIN LATERAL (SELECT ng.money_mul(x.micro, x.upto, x.total) - ng.money_mul(x.micro, x.upto - x.weight, x.total) AS micro,
                                 ng.money_mul(x.fee, x.upto, x.total) - ng.money_mul(x.fee, x.upto - x.weight, x.total) AS fee,
                                 ng.money_mul(x.market, x.upto, x.total) - ng.money_mul(x.market, x.upto - x.weight, x.total) AS market) y
$$;

CREATE OR REPLACE FUNCTION ng.roll_money(p_day timestamptz) RETURNS void LANGUAGE sql AS $$
    DELETE FROM ng.roll_money WHERE day = p_day;
    INSERT INTO ng.roll_money (day, provider_id, site_id, tenant_id, gpu_model, spot, currency, gross_micro, fee_micro, gpu_ms, reservations,
        refund_micro, credit_micro, back_fee_micro, back_market_micro)
    SELECT p_day, provider_id, site_id, tenant_id, gpu_model, spot, currency, sum(amount_micro), sum(fee_micro), sum(gpu_ms), count(reservation_id),
           sum(refund_micro), sum(credit_micro), sum(back_fee_micro), sum(back_market_micro)
      FROM (SELECT provider_id, site_id, tenant_id, gpu_model, spot, currency, reservation_id, sum(amount_micro) AS amount_micro,
                   sum(fee_micro) AS fee_micro, coalesce(sum(quantity_ms) FILTER (WHERE node_id IS NOT NULL), 0) AS gpu_ms,
                   0 AS refund_micro, 0 AS credit_micro, 0 AS back_fee_micro, 0 AS back_market_micro
              FROM ng.usage WHERE at >= p_day AND at < p_day + interval '24 hours'
             GROUP BY 1, 2, 3, 4, 5, 6, 7
            UNION ALL
            SELECT provider_id, site_id, tenant_id, gpu_model, spot, currency, NULL, 0, 0, 0, refund_micro, credit_micro, fee_micro, market_micro
              FROM ng.given_back(p_day)) x
     GROUP BY 2, 3, 4, 5, 6, 7;
$$;

CREATE OR REPLACE FUNCTION ng.roll_match(h timestamptz[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM ng.roll_match WHERE hour = ANY (h);
    INSERT INTO ng.roll_match (hour, kind, outcome, gpu_model, why, requests, gpus, gpu_ms)
    SELECT date_trunc('hour', at, 'UTC') AS hour, kind, outcome, gpu_model, why, count(*), sum(gpus), sum(gpus::numeric * duration_s * 1000)
      FROM ng.match_log
     WHERE at >= h[1] AND at < h[cardinality(h)] + interval '1 hour' AND date_trunc('hour', at, 'UTC') = ANY (h)
     GROUP BY 1, 2, 3, 4, 5;
    DELETE FROM ng.roll_latency WHERE hour = ANY (h);
    INSERT INTO ng.roll_latency (hour, kind, bucket, requests)
    SELECT date_trunc('hour', at, 'UTC') AS hour, kind, ng.bucket(match_us), count(*)
      FROM ng.match_log
     WHERE at >= h[1] AND at < h[cardinality(h)] + interval '1 hour' AND date_trunc('hour', at, 'UTC') = ANY (h)
     GROUP BY 1, 2, 3;
    DELETE FROM ng.roll_latency_day WHERE day = date_trunc('day', h[1], 'UTC');
    INSERT INTO ng.roll_latency_day (day, kind, bucket, requests)
    SELECT date_trunc('day', h[1], 'UTC'), kind, bucket, sum(requests) FROM ng.roll_latency
     WHERE hour >= date_trunc('day', h[1], 'UTC') AND hour < date_trunc('day', h[1], 'UTC') + interval '24 hours'
     GROUP BY 2, 3;
$$;

-- A node is there from its enrolment on, a retired one to its last report. An hour that is
-- not over counts up to p_until.
CREATE OR REPLACE FUNCTION ng.roll_capacity(h timestamptz[], p_until timestamptz) RETURNS void LANGUAGE sql AS $$
    DELETE FROM ng.roll_capacity WHERE hour = ANY (h);
    INSERT INTO ng.roll_capacity (hour, site_id, provider_id, gpu_model, gpu_ms, firm_ms, spot_ms)
    SELECT x.hour, n.site_id, n.provider_id, n.gpu_model, sum(x.gpu_ms), sum(x.firm_ms), sum(x.spot_ms)
      FROM (SELECT g AS hour, n.id AS node_id, (upper(n.gpus) - lower(n.gpus)) * floor(1000 * extract(epoch FROM
                       least(g + interval '1 hour', p_until, CASE WHEN n.state = 'retired' THEN n.last_sync_at END)
                       - greatest(g, n.enrolled_at)))::bigint AS gpu_ms, 0::bigint AS firm_ms, 0::bigint AS spot_ms
              FROM ng.node n CROSS JOIN unnest(h) g
             WHERE n.gpus IS NOT NULL AND n.enrolled_at < least(g + interval '1 hour', p_until)
               AND (n.state <> 'retired' OR n.last_sync_at > g)
            UNION ALL
            SELECT g, b.node_id, 0, CASE WHEN b.notice_us IS NULL THEN t.ms ELSE 0 END, CASE WHEN b.notice_us IS NULL THEN 0 ELSE t.ms END
              FROM ng.node n
              JOIN ng.booking b ON b.node_id = n.id AND upper(b.during) > h[1] AND NOT isempty(b.during)
                               AND lower(b.during) < least(h[cardinality(h)] + interval '1 hour', p_until)
              JOIN unnest(h) g ON g < upper(b.during) AND g + interval '1 hour' > lower(b.during)
              CROSS JOIN LATERAL (SELECT (upper(b.gpus) - lower(b.gpus)) * floor(1000 * extract(epoch FROM
                       least(g + interval '1 hour', p_until, upper(b.during)) - greatest(g, lower(b.during))))::bigint AS ms) t
             WHERE n.gpus IS NOT NULL AND t.ms > 0) x
      JOIN ng.node n ON n.id = x.node_id
     GROUP BY 1, 2, 3, 4
    HAVING sum(x.gpu_ms) + sum(x.firm_ms) + sum(x.spot_ms) > 0;
    DELETE FROM ng.roll_capacity_site WHERE hour = ANY (h);
    INSERT INTO ng.roll_capacity_site (hour, site_id, gpu_model, gpu_ms, booked_ms)
    SELECT hour, site_id, gpu_model, sum(gpu_ms), sum(firm_ms + spot_ms) FROM ng.roll_capacity WHERE hour = ANY (h) GROUP BY 1, 2, 3;
$$;

-- Reservations and quotes that were made on a day.
CREATE OR REPLACE FUNCTION ng.roll_orders(p_day timestamptz) RETURNS void LANGUAGE sql AS $$
    DELETE FROM ng.roll_lead WHERE day = p_day;
    INSERT INTO ng.roll_lead (day, spot, bucket, reservations, gpu_ms)
    SELECT p_day, r.spot, ng.bucket(floor(extract(epoch FROM lower(r.during) - r.created_at))::bigint), count(*),
           coalesce(sum(b.gpus * extract(epoch FROM upper(r.during) - lower(r.during)) * 1000), 0)
      FROM ng.reservation r
      LEFT JOIN LATERAL (SELECT sum(upper(x.gpus) - lower(x.gpus)) AS gpus FROM ng.booking x WHERE x.reservation_id = r.id) b ON true
     WHERE r.created_at >= p_day AND r.created_at < p_day + interval '24 hours' AND r.state <> 'waiting'
     GROUP BY 2, 3;
    DELETE FROM ng.roll_quote WHERE day = p_day;
    INSERT INTO ng.roll_quote (day, tenant_id, quotes, reserved, wait_s)
    SELECT p_day, q.tenant_id, count(*), count(r.made), coalesce(sum(extract(epoch FROM r.made - q.created_at)), 0)
      FROM ng.quote q
      LEFT JOIN LATERAL (SELECT min(v.created_at) AS made FROM ng.reservation v WHERE v.quote_id = q.id) r ON true
     WHERE q.created_at >= p_day AND q.created_at < p_day + interval '24 hours'
     GROUP BY 2;
$$;

-- Rolls up one day of one kind: true when there is more to do. One transaction each: billd
-- may be killed between any two.
CREATE OR REPLACE FUNCTION api.billing_rollup(p_kind text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_state roll_state;
    v_hours timestamptz[];
    v_more boolean := false;
    v_day timestamptz;
BEGIN
    SELECT * INTO v_state FROM roll_state WHERE kind = p_kind FOR UPDATE; -- one at a time
    IF NOT FOUND THEN
        PERFORM refuse(2, format('there is no roll-up %s', left(p_kind, 40)));
    END IF;
    IF p_kind = 'orders' THEN
        v_day := date_trunc('day', v_state.done_to, 'UTC');
        PERFORM roll_orders(v_day);
        IF v_state.done_to < v_day + interval '1 hour' THEN -- quotes turn into reservations for a while
            PERFORM roll_orders(v_day - interval '24 hours');
        END IF;
    ELSE
        v_hours := roll_take(p_kind);
        IF p_kind = 'capacity' AND (v_hours IS NULL OR v_hours[1] >= date_trunc('day', v_state.done_to, 'UTC')) THEN
            v_day := date_trunc('day', v_state.done_to, 'UTC');
            SELECT array_agg(DISTINCT x.h ORDER BY x.h) INTO v_hours
              FROM (SELECT h FROM unnest(v_hours) h WHERE h < v_day + interval '24 hours'
                    UNION ALL
                    SELECT h FROM generate_series(date_trunc('hour', v_state.done_to, 'UTC'),
                        least(v_now, v_day + interval '23 hours'), interval '1 hour') h) x;
        END IF;
        IF v_hours IS NOT NULL THEN
            IF p_kind = 'use' THEN
                PERFORM roll_use(v_hours);
            ELSIF p_kind = 'money' THEN
                PERFORM roll_money(v_hours[1]);
            ELSIF p_kind = 'match' THEN
                PERFORM roll_match(v_hours);
            ELSE
                PERFORM roll_capacity(v_hours, v_now);
            END IF;
        END IF;
        v_more := EXISTS (SELECT FROM roll_dirty WHERE kind = p_kind);
    END IF;
    IF v_day IS NOT NULL THEN -- by the clock: up to now, or the end of the day that was due
        v_more := v_more OR v_day + interval '24 hours' <= v_now;
        UPDATE roll_state SET done_to = least(v_day + interval '24 hours', v_now) WHERE kind = p_kind;
    ELSIF p_kind = 'capacity' THEN
        v_more := true;
    END IF;
    -- What was committed before this call began is in it, once nothing is marked.
    IF NOT v_more THEN
        UPDATE roll_state SET fresh_at = v_now WHERE kind = p_kind;
    END IF;
    RETURN v_more;
END $$;

-- A turn through all kinds is done; the next is in p_wait_us.
CREATE OR REPLACE FUNCTION api.billing_rolled(p_wait_us bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    UPDATE roll_state SET turn_at = clock_timestamp(), wait_us = p_wait_us
$$;
-- How fresh they are, for administrators. Late: no turn was made, or something was not brought
-- up to date, for four times as long as it should take.
CREATE OR REPLACE FUNCTION ng.rollup_status() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_turn timestamptz := (SELECT min(turn_at) FROM ng.roll_state);
    v_wait interval := coalesce((SELECT max(wait_us) FROM ng.roll_state), 0) * interval '1 microsecond';
    v_due timestamptz := clock_timestamp() - 4 * v_wait;
    v_behind text := (SELECT string_agg(kind, ', ' ORDER BY kind) FROM ng.roll_state WHERE fresh_at IS NULL OR fresh_at < v_due);
    v_advice text := '';
BEGIN
    IF v_turn IS NULL THEN
        v_advice := 'neargpu-billd has not rolled up yet: is it running?';
    ELSIF v_turn < v_due THEN
        v_advice := format('neargpu-billd has not rolled up since %s, and should every %s: is it running?', ng.time_text(v_turn),
            ng.duration_text(ng.us('epoch'::timestamptz + v_wait)));
    ELSIF v_behind IS NOT NULL THEN
        v_advice := format('neargpu-billd is behind with what reports read: %s', v_behind);
    END IF;
    RETURN jsonb_build_object('late', v_advice <> '', 'advice', v_advice, 'last_us', ng.us(v_turn), 'kinds', (
        SELECT jsonb_agg(jsonb_build_object('name', kind, 'until_us', ng.us(fresh_at)) ORDER BY kind) FROM ng.roll_state));
END $$;

-- Months ahead, and whole months of matches that nobody needs any more. What they were
-- rolled up to stays.
CREATE OR REPLACE FUNCTION api.billing_months() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_made integer := make_months('usage', 13) + make_months('match_log', 13);
    v_keep timestamptz := now() - interval '92 days';
    v_old record;
BEGIN
    PERFORM guard_months();
    FOR v_old IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                  WHERE i.inhparent = 'ng.match_log'::regclass AND c.relname ~ '^match_log_\d{4}_\d\d$'
                    AND (to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC' < v_keep
    LOOP
        EXECUTE format('DROP TABLE ng.%I', v_old.relname);
    END LOOP;
    -- A day before api.prune() begins to remove rows.
    UPDATE roll_state SET floor = date_trunc('day', v_keep + interval '2 days', 'UTC') WHERE kind = 'match';
    RETURN v_made;
END $$;

-- Takes the use of one whole month out of the table, as a table of its own that may be dumped
-- and dropped; its roll-ups stay. For an administrator: no program's role may.
CREATE OR REPLACE FUNCTION ng.usage_detach(p_month date) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_name text := format('usage_%s', to_char(p_month, 'YYYY_MM'));
    v_until timestamptz := (date_trunc('month', p_month::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass('ng.' || v_name) IS NULL THEN
        PERFORM refuse(5, format('there is no month %s', v_name));
    ELSIF v_until > now() - interval '92 days' THEN
        PERFORM refuse(6, 'the last three months are still needed');
    ELSIF EXISTS (SELECT FROM roll_dirty WHERE kind IN ('use', 'money') AND hour < v_until) THEN
        PERFORM refuse(6, 'some of it is not rolled up yet: is neargpu-billd running?');
    END IF;
    EXECUTE format('ALTER TABLE ng.usage DETACH PARTITION ng.%I', v_name);
    UPDATE roll_state SET floor = greatest(floor, v_until) WHERE kind IN ('use', 'money');
    RETURN 'ng.' || v_name;
END $$;
