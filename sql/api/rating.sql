-- Rating: signed receipts become captures of a hold, each exactly once. billd computes the
-- amounts (billing/core/rate.h), billing_post_batch computes them again and posts what both
-- agree on: many receipts a statement, since a commit and its locks cost more than a row.

-- What bounds and prices the use of one node: GPUs, the promised window, the booked price,
-- the fee of the node's provider. A node that the reservation has left (it moved before its
-- start) is owed nothing.
CREATE OR REPLACE FUNCTION ng.chain_terms(p_reservation uuid, p_node integer)
RETURNS TABLE (gpus bigint, since timestamptz, until timestamptz, price bigint, fee_ppm integer) LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(upper(b.gpus) - lower(b.gpus)), 0), lower(v.during), upper(v.during),
           coalesce(max(b.per_gpu_hour_micro), 0), coalesce(max(b.fee_ppm), v.fee_ppm)
      FROM ng.reservation v LEFT JOIN ng.booking b ON b.reservation_id = v.id AND b.node_id = p_node
     WHERE v.id = p_reservation
     GROUP BY v.during, v.fee_ppm
$$;
-- GPUs x the part of the window that had passed when use was reported, a minute allowed for
-- clocks.
CREATE OR REPLACE FUNCTION ng.window_gpu_ms(p_gpus bigint, p_since timestamptz, p_until timestamptz, p_at timestamptz)
RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (p_gpus * greatest(0, extract(epoch FROM least(p_until, p_at + interval '1 minute') - p_since) * 1000))::bigint
$$;
DROP FUNCTION IF EXISTS ng.use_terms(uuid, integer, timestamptz);
CREATE OR REPLACE FUNCTION ng.use_terms(p_reservation uuid, p_node integer, p_at timestamptz)
RETURNS TABLE (max_gpu_ms bigint, price bigint, fee_ppm integer) LANGUAGE sql STABLE AS $$
    SELECT ng.window_gpu_ms(w.gpus, w.since, w.until, p_at), w.price, w.fee_ppm
      FROM ng.chain_terms(p_reservation, p_node) w
$$;

-- Receipts not rated yet, in the order of their chains (reservation and node), without gaps:
-- of the chains that have waited longest, as many as p_limit. What follows a missing receipt
-- waits for it and holds up no other. gpu_ms is cumulative. LIMIT 1 keeps the planner, which
-- knows little of a queue, to the indexes: all receipts and meters are many.
DROP FUNCTION IF EXISTS ng.unrated_first(integer), ng.unrated_heads(integer);
CREATE OR REPLACE FUNCTION ng.unrated(p_limit integer)
RETURNS TABLE (reservation_id uuid, node_id integer, seq integer, kind text, gpu_ms bigint, received_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT h.reservation_id, h.node_id, c.seq, c.kind, c.gpu_ms, c.received_at
      FROM (SELECT d.reservation_id, d.node_id, coalesce(m.seq, 0) AS seq
              FROM ng.receipt_due d
              LEFT JOIN LATERAL (SELECT x.seq FROM ng.meter x WHERE x.reservation_id = d.reservation_id AND x.node_id = d.node_id LIMIT 1) m ON true
             CROSS JOIN LATERAL (SELECT FROM ng.receipt r
                WHERE r.reservation_id = d.reservation_id AND r.node_id = d.node_id AND r.seq = coalesce(m.seq, 0) + 1 LIMIT 1) next
             ORDER BY d.received_at, d.reservation_id, d.node_id LIMIT p_limit) h
      CROSS JOIN LATERAL (
          SELECT r.seq, r.kind, r.gpu_ms, r.received_at, row_number() OVER (ORDER BY r.seq) AS place FROM ng.receipt r
           WHERE r.reservation_id = h.reservation_id AND r.node_id = h.node_id AND r.seq > h.seq
           ORDER BY r.seq LIMIT p_limit) c
     WHERE c.seq = h.seq + c.place
     LIMIT p_limit
$$;
DROP FUNCTION IF EXISTS api.billing_claim(integer);
CREATE OR REPLACE FUNCTION api.billing_claim(p_limit integer)
RETURNS TABLE (reservation_id uuid, node_id integer, seq integer, kind text, gpu_ms bigint,
    max_gpu_ms bigint, per_gpu_hour_micro bigint, fee_ppm integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH taken AS MATERIALIZED (SELECT * FROM unrated(p_limit)),
    terms AS MATERIALIZED (
        SELECT c.reservation_id, c.node_id, w.*
          FROM (SELECT DISTINCT reservation_id, node_id FROM taken) c
          CROSS JOIN LATERAL chain_terms(c.reservation_id, c.node_id) w)
    SELECT t.reservation_id, t.node_id, t.seq, t.kind, t.gpu_ms, window_gpu_ms(w.gpus, w.since, w.until, t.received_at),
           w.price, w.fee_ppm
      FROM taken t JOIN terms w USING (reservation_id, node_id)
     ORDER BY t.reservation_id, t.node_id, t.seq;
END $$;

-- Posts rated receipts: cumulative amount and fee after each. A chain's receipts are given
-- in their order. What became of each: 'posted'; 'again' (it was rated already); 'gap' (one
-- before it is missing, or was not posted); 'missing' (there is no such receipt); 'differs'
-- (it is worth something else now: read it again). A spent hold captures nothing more, and
-- nothing follows a teardown: such a receipt is kept, and charged nothing. Amounts are those
-- of one after the other in the order given, whatever shares a hold; what a chain used
-- becomes one transfer.
CREATE OR REPLACE FUNCTION api.billing_post_batch(p_reservations uuid[], p_nodes integer[], p_seqs integer[],
    p_gpu_ms bigint[], p_amounts bigint[], p_fees bigint[])
RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v_outcomes text[];
BEGIN
    PERFORM billing_lock();
    PERFORM 1 FROM reservation WHERE id = ANY (p_reservations) ORDER BY id FOR NO KEY UPDATE;
    PERFORM agree_first(p_reservations);
    INSERT INTO meter (reservation_id, node_id)
    SELECT DISTINCT g.resv, g.node FROM unnest(p_reservations, p_nodes) AS g(resv, node)
      JOIN reservation v ON v.id = g.resv JOIN node n ON n.id = g.node
     WHERE NOT EXISTS (SELECT FROM meter m WHERE m.reservation_id = g.resv AND m.node_id = g.node);
    PERFORM account_of('fee', NULL, NULL, x.currency), account_of('provider_pending', NULL, x.provider_id, x.currency)
       FROM (SELECT DISTINCT n.provider_id, v.currency FROM unnest(p_reservations, p_nodes) AS g(resv, node)
               JOIN reservation v ON v.id = g.resv JOIN node n ON n.id = g.node) x
      WHERE NOT EXISTS (SELECT FROM account a WHERE a.kind = 'provider_pending' AND a.tenant_id IS NULL
                           AND a.provider_id = x.provider_id AND a.currency = x.currency)
         OR NOT EXISTS (SELECT FROM account a WHERE a.kind = 'fee' AND a.tenant_id IS NULL AND a.provider_id IS NULL
                           AND a.currency = x.currency);
    PERFORM 1 FROM account WHERE kind = 'hold' AND tenant_id IN (SELECT tenant_id FROM reservation WHERE id = ANY (p_reservations))
      ORDER BY id FOR NO KEY UPDATE;

    WITH given AS (
        SELECT * FROM unnest(p_reservations, p_nodes, p_seqs, p_gpu_ms, p_amounts, p_fees)
            WITH ORDINALITY AS g(resv, node, seq, gpu_ms, amount, fee, n)),
    chains AS MATERIALIZED ( -- what stands before the batch
        SELECT m.reservation_id AS resv, m.node_id AS node, m.seq AS rated, m.amount_micro, m.fee_micro, m.closed,
               v.tenant_id, v.currency, v.held_micro - v.captured_micro - v.released_micro AS rest, nd.provider_id,
               m.gpu_ms AS used_ms, v.spot, nd.site_id, nd.gpu_model, w.gpus, w.since, w.until, w.price, w.fee_ppm
          FROM (SELECT DISTINCT resv, node FROM given) g
          JOIN meter m ON m.reservation_id = g.resv AND m.node_id = g.node
          JOIN reservation v ON v.id = g.resv JOIN node nd ON nd.id = g.node
          CROSS JOIN LATERAL chain_terms(g.resv, g.node) w),
    tenants AS MATERIALIZED ( -- a clock that was set back must not put a capture into a period invoiced before
        SELECT x.tenant_id, x.currency, h.id AS hold, greatest(clock_timestamp(), invoiced_until(x.tenant_id, x.currency)) AS at
          FROM (SELECT DISTINCT tenant_id, currency FROM chains) x
          JOIN account h ON h.kind = 'hold' AND h.tenant_id = x.tenant_id AND h.currency = x.currency),
    judged AS (
        SELECT g.n, g.seq, c.*, r.kind, r.gpu_ms AS told_ms, x.worth, r.during, r.received_at,
               g.seq <= c.rated AS old, g.seq <= greatest(c.rated, max(g.seq) OVER before) AS again,
               g.seq IS DISTINCT FROM greatest(c.rated, max(g.seq) OVER before) + 1 AS gap,
               r.seq IS NULL AS missing,
               (g.gpu_ms, g.amount, g.fee) IS DISTINCT FROM (r.gpu_ms, x.worth, money_mul(x.worth, c.fee_ppm, 1000000)) AS differs
          FROM given g
          LEFT JOIN chains c ON c.resv = g.resv AND c.node = g.node
          LEFT JOIN receipt r ON r.reservation_id = g.resv AND r.node_id = g.node AND r.seq = g.seq
          CROSS JOIN LATERAL (SELECT money_mul(least(r.gpu_ms, window_gpu_ms(c.gpus, c.since, c.until, r.received_at)),
                                               c.price, 3600000) AS worth) x
        WINDOW before AS (PARTITION BY g.resv, g.node ORDER BY g.n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)),
    settled AS (
        SELECT j.*, bool_and(again OR NOT (gap OR missing OR differs)) OVER (PARTITION BY resv, node ORDER BY n) AS fine FROM judged j),
    used AS ( -- of those to be posted: what each would take of a hold without end
        SELECT s.*, s.closed OR coalesce(bool_or(kind = 'teardown') OVER before, false) AS over,
               greatest(0, worth - greatest(amount_micro, max(worth) OVER before)) AS more,
               greatest(0, told_ms - greatest(used_ms, max(told_ms) OVER before)) AS more_ms
          FROM settled s WHERE fine AND NOT again
        WINDOW before AS (PARTITION BY resv, node ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)),
    capped AS (
        SELECT u.*, least(rest, sum(CASE WHEN over THEN 0 ELSE more END) OVER (PARTITION BY resv ORDER BY n))::bigint AS spent FROM used u),
    taken AS (
        SELECT c.*, spent - lag(spent, 1, 0::bigint) OVER (PARTITION BY resv ORDER BY n) AS took FROM capped c),
    fees AS (
        SELECT t.*, money_mul(amount_micro + (sum(took) OVER (PARTITION BY resv, node ORDER BY n))::bigint, fee_ppm, 1000000) AS fee_after
          FROM taken t),
    due AS MATERIALIZED (
        SELECT f.*, fee_after - lag(fee_after, 1, fee_micro) OVER (PARTITION BY resv, node ORDER BY n) AS fee_took FROM fees f),
    mark AS (
        DELETE FROM receipt_due r USING (SELECT resv, node, max(seq) AS seq FROM due GROUP BY resv, node) d
         WHERE r.reservation_id = d.resv AND r.node_id = d.node AND r.seq <= d.seq),
    count_ AS (
        UPDATE meter m SET seq = x.seq, amount_micro = m.amount_micro + x.took, fee_micro = m.fee_micro + x.fee_took,
               gpu_ms = coalesce(x.told_ms, m.gpu_ms), closed = m.closed OR x.closes
          FROM (SELECT resv, node, max(seq) AS seq, sum(took) AS took, sum(fee_took) AS fee_took, bool_or(kind = 'teardown') AS closes,
                       (array_agg(told_ms ORDER BY n DESC) FILTER (WHERE NOT over))[1] AS told_ms
                  FROM due GROUP BY resv, node) x
         WHERE m.reservation_id = x.resv AND m.node_id = x.node),
    capture AS (
        UPDATE reservation v SET captured_micro = v.captured_micro + x.took
          FROM (SELECT resv, sum(took) AS took FROM due GROUP BY resv) x WHERE v.id = x.resv AND x.took > 0),
    balance AS (
        UPDATE account a SET balance_micro = a.balance_micro - x.took
          FROM (SELECT t.hold, sum(d.took) AS took FROM due d JOIN tenants t USING (tenant_id, currency) GROUP BY t.hold) x
         WHERE a.id = x.hold AND x.took > 0),
    noted AS ( -- for reports
        INSERT INTO usage (at, used_at, quantity_ms, amount_micro, fee_micro, late_ms, reservation_id, tenant_id, provider_id,
            site_id, node_id, spot, currency, gpu_model)
        SELECT t.at, coalesce(lower(d.during), d.received_at), CASE WHEN d.over THEN 0 ELSE d.more_ms END, d.took, d.fee_took,
               greatest(0, coalesce(us(d.received_at) - us(upper(d.during)), 0)) / 1000, d.resv, d.tenant_id, d.provider_id,
               d.site_id, d.node, d.spot, d.currency, d.gpu_model
          FROM due d JOIN tenants t USING (tenant_id, currency)
         WHERE d.took > 0 OR d.more_ms > 0 AND NOT d.over),
    posted AS ( -- one capture and one fee a chain, named after its last receipt
        INSERT INTO transfer (at, kind, dr, cr, currency, amount_micro, reservation_id, ref)
        SELECT t.at, k.kind, t.hold, k.cr, d.currency, k.amount, d.resv, d.resv || '/' || d.node || '/' || d.seq
          FROM (SELECT resv, node, tenant_id, provider_id, currency, max(seq) AS seq, sum(took)::bigint AS took,
                       sum(fee_took)::bigint AS fee_took
                  FROM due GROUP BY resv, node, tenant_id, provider_id, currency) d
          JOIN tenants t USING (tenant_id, currency)
          JOIN account p ON p.kind = 'provider_pending' AND p.provider_id = d.provider_id AND p.tenant_id IS NULL AND p.currency = d.currency
          JOIN account f ON f.kind = 'fee' AND f.tenant_id IS NULL AND f.provider_id IS NULL AND f.currency = d.currency
          CROSS JOIN LATERAL (VALUES ('capture', p.id, d.took - d.fee_took), ('fee', f.id, d.fee_took)) AS k(kind, cr, amount)
         WHERE k.amount <> 0
         ORDER BY d.resv, d.node, k.kind)
    SELECT array_agg(CASE WHEN old OR fine AND again THEN 'again' WHEN fine THEN 'posted' WHEN again OR gap THEN 'gap'
                          WHEN missing THEN 'missing' WHEN differs THEN 'differs' ELSE 'gap' END ORDER BY n)
      INTO v_outcomes FROM settled;
    RETURN v_outcomes;
END $$;

-- One of them; a receipt that is not there, or worth something else, is an error.
CREATE OR REPLACE FUNCTION api.billing_post(p_reservation uuid, p_node integer, p_seq integer,
    p_gpu_ms bigint, p_amount_micro bigint, p_fee_micro bigint)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_outcome text := (api.billing_post_batch(ARRAY[p_reservation], ARRAY[p_node], ARRAY[p_seq], ARRAY[p_gpu_ms],
        ARRAY[p_amount_micro], ARRAY[p_fee_micro]))[1];
BEGIN
    IF v_outcome = 'missing' THEN
        PERFORM refuse(5, format('there is no receipt %s/%s/%s', p_reservation, p_node, p_seq));
    ELSIF v_outcome = 'differs' THEN
        PERFORM refuse(6, format('receipt %s/%s/%s is not worth %s: the amounts given differ, read it again',
            p_reservation, p_node, p_seq, p_amount_micro));
    END IF;
    RETURN v_outcome;
END $$;
