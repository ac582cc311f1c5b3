-- The verifiable log (sql/migrations/0004_log.sql). neargpu-billd takes rows that are not in
-- it, hashes them and appends; the database only keeps, in the order it was told.

-- What a leaf commits to: the row as it is now. Amounts and numbers beyond 2^53 are texts
-- (RFC 8785 has no others). Null when the row is gone. In plpgsql, which plans each kind's
-- query once a connection and begins no other: as one query it took ten times as long.
DROP FUNCTION IF EXISTS ng.log_account(integer); -- of before
CREATE OR REPLACE FUNCTION ng.log_account(a ng.account) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN a.id IS NOT NULL THEN concat_ws('/', a.kind, coalesce(a.tenant_id, a.provider_id)) END
$$;
CREATE OR REPLACE FUNCTION ng.log_time(p_at timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$ SELECT to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;
-- What was agreed, as it was kept and as it is charged: null where the two are not the same.
CREATE OR REPLACE FUNCTION ng.agreed_bookings(p_kept jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('booking', e->>'booking', 'node_id', e->'node_id', 'node', e->'node', 'gpus', e->'gpus',
               'per_gpu_hour_micro', CASE WHEN b.id IS NULL OR (b.node_id, b.per_gpu_hour_micro)
                   = ((e->>'node_id')::integer, (e->>'per_gpu_hour_micro')::bigint) THEN e->>'per_gpu_hour_micro' END,
               'fee_ppm', CASE WHEN b.id IS NULL OR b.fee_ppm IS NULL OR b.fee_ppm = (e->>'fee_ppm')::integer THEN e->'fee_ppm' END,
               'notice_us', e->>'notice_us') ORDER BY n), '[]')
      FROM jsonb_array_elements(p_kept) WITH ORDINALITY AS x(e, n)
      LEFT JOIN ng.booking b ON b.id = (e->>'booking')::bigint
$$;
CREATE OR REPLACE FUNCTION ng.agreed_lanes(p_kept jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('booking', e->>'booking', 'path', e->'path', 'lanes', e->'lanes',
               'per_lane_hour_micro', CASE WHEN k.id IS NULL OR k.per_lane_hour_micro = (e->>'per_lane_hour_micro')::bigint
                   THEN e->>'per_lane_hour_micro' END,
               'fee_ppm', CASE WHEN k.id IS NULL OR k.fee_ppm = (e->>'fee_ppm')::integer THEN e->'fee_ppm' END) ORDER BY n), '[]')
      FROM jsonb_array_elements(p_kept) WITH ORDINALITY AS x(e, n)
      LEFT JOIN ng.path_booking k ON k.id = (e->>'booking')::bigint
$$;
CREATE OR REPLACE FUNCTION ng.log_body(p_kind text, p_ref text) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    CASE p_kind
    WHEN 'receipt' THEN RETURN (
        SELECT jsonb_build_object('type', 'receipt', 'reservation', r.reservation_id, 'node', n.spiffe_id,
                   'seq', r.seq, 'sha256', encode(sha256(convert_to(r.jws, 'UTF8')), 'hex'),
                   'received_at', ng.log_time(r.received_at))
          FROM ng.receipt r JOIN (SELECT id, spiffe_id FROM ng.node) n ON n.id = r.node_id
         WHERE r.reservation_id = ng.uuid_of(split_part(p_ref, '/', 1))
           AND r.node_id = split_part(p_ref, '/', 2)::integer AND r.seq = split_part(p_ref, '/', 3)::integer);
    WHEN 'transfer' THEN RETURN (
        SELECT jsonb_build_object('type', 'transfer', 'id', t.id::text, 'at', ng.log_time(t.at), 'kind', t.kind,
                   'dr', ng.log_account(d), 'cr', ng.log_account(c), 'currency', t.currency,
                   'amount_micro', t.amount_micro::text, 'reservation', t.reservation_id, 'ref', t.ref,
                   'reverses', t.reverses::text)
          FROM ng.transfer t LEFT JOIN ng.account d ON d.id = t.dr LEFT JOIN ng.account c ON c.id = t.cr
         WHERE t.id = p_ref::bigint);
    WHEN 'invoice' THEN RETURN (
        SELECT jsonb_build_object('type', 'invoice', 'number', i.number, 'tenant', i.tenant_id, 'currency', i.currency,
                   'from', ng.log_time(lower(i.period)), 'to', ng.log_time(upper(i.period)),
                   'issued_at', ng.log_time(i.issued_at), 'net_micro', i.net_micro::text,
                   'tax_micro', i.tax_micro::text, 'total_micro', i.total_micro::text, 'document', i.document,
                   'lines', (SELECT jsonb_agg(jsonb_build_object('description', l.description, 'reservation', l.reservation_id,
                                 'quantity_gpu_ms', l.quantity_gpu_ms::text, 'amount_micro', l.amount_micro::text)
                                 || CASE WHEN i.tax_ppm IS NULL THEN jsonb_build_object('tax_class', l.tax_class) ELSE '{}' END ORDER BY l.line)
                               FROM ng.invoice_line l WHERE l.number = i.number))
               || CASE WHEN i.tax_ppm IS NULL THEN jsonb_build_object('taxes', ng.log_taxes(ng.invoice_taxes_json(i.number)))
                       ELSE jsonb_build_object('tax_ppm', i.tax_ppm) END
          FROM ng.invoice i WHERE i.number = p_ref);
    WHEN 'price' THEN RETURN (
        SELECT jsonb_build_object('type', 'price', 'node', n.spiffe_id, 'from', ng.log_time(lower(p.during)),
                   'currency', p.currency, 'per_gpu_hour_micro', p.per_gpu_hour_micro::text, 'set_by', p.set_by)
          FROM ng.price p JOIN ng.node n ON n.id = p.node_id
         WHERE p.node_id = split_part(p_ref, '/', 1)::integer
           AND lower(p.during) = ng.ts(split_part(p_ref, '/', 2)::bigint));
    WHEN 'quote' THEN RETURN (
        SELECT jsonb_build_object('type', 'quote', 'id', q.id, 'tenant', q.tenant_id, 'created_at', ng.log_time(q.created_at),
                   'expires_at', ng.log_time(q.expires_at), 'sha256', encode(q.hash, 'hex'))
          FROM ng.quote q WHERE q.id = ng.uuid_of(p_ref));
    WHEN 'credit_note' THEN RETURN (
        SELECT jsonb_build_object('type', 'credit_note', 'number', c.number, 'tenant', c.tenant_id, 'currency', c.currency,
                   'reservation', c.reservation_id, 'invoice', c.invoice, 'issued_at', ng.log_time(c.issued_at), 'reason', c.reason,
                   'net_micro', c.net_micro::text, 'tax_micro', c.tax_micro::text,
                   'total_micro', c.total_micro::text, 'document', c.document)
               || CASE WHEN c.tax_ppm IS NULL THEN jsonb_build_object('taxes', ng.log_taxes(ng.credit_note_taxes_json(c.number)))
                       ELSE jsonb_build_object('tax_ppm', c.tax_ppm) END
          FROM ng.credit_note c WHERE c.number = p_ref);
    WHEN 'payout' THEN RETURN (SELECT CASE WHEN p_ref LIKE '%/returned' THEN
        jsonb_build_object('type', 'payout_returned', 'id', p.id::text, 'provider', p.provider_id, 'currency', p.currency,
                   'amount_micro', p.amount_micro::text, 'confirmed_by', p.confirmed_by, 'confirmed_at', ng.log_time(p.confirmed_at),
                   'returned_by', p.ended_by, 'returned_at', ng.log_time(p.ended_at), 'reason', p.reason,
                   'fee_micro', p.fee_micro::text, 'fee_by', p.fee_by)
        ELSE jsonb_build_object('type', 'payout', 'id', p.id::text, 'provider', p.provider_id, 'currency', p.currency,
                   'amount_micro', p.amount_micro::text, 'requested_by', p.requested_by, 'requested_at', ng.log_time(p.requested_at),
                   'approved_by', p.approved_by, 'approved_at', ng.log_time(p.approved_at), 'file', p.file_id::text)
            || CASE WHEN p.bank_logged THEN jsonb_build_object('bank', p.bank) ELSE '{}' END END
          FROM ng.payout p
         WHERE p.id = split_part(p_ref, '/', 1)::bigint AND p.file_id IS NOT NULL AND (p.state = 'returned' OR p_ref NOT LIKE '%/returned'));
    WHEN 'agreed' THEN RETURN (
        SELECT jsonb_build_object('type', 'agreed', 'reservation', a.reservation_id, 'generation', a.generation,
                   'tenant', r.tenant_id, 'at', ng.log_time(a.at), 'from', ng.log_time(lower(a.during)),
                   'to', ng.log_time(upper(a.during)), 'currency', a.currency, 'spot', a.spot,
                   'bookings', ng.agreed_bookings(a.bookings), 'paths', ng.agreed_lanes(a.lanes))
          FROM ng.agreed a JOIN ng.reservation r ON r.id = a.reservation_id
         WHERE a.reservation_id = ng.uuid_of(split_part(p_ref, '/', 1)) AND a.generation = split_part(p_ref, '/', 2)::integer);
    ELSE RETURN NULL;
    END CASE;
END $$;

-- Keeps what is agreed of these reservations now, once a generation, and so puts it into the
-- log. One without a place has nothing.
CREATE OR REPLACE FUNCTION ng.agree(p_ids uuid[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO ng.agreed (reservation_id, generation, during, currency, spot, bookings, lanes)
    SELECT r.id, r.generation, r.during, r.currency, r.spot, b.list, coalesce(k.list, '[]')
      FROM ng.reservation r
      CROSS JOIN LATERAL (
          SELECT jsonb_agg(jsonb_build_object('booking', b.id, 'node_id', b.node_id, 'node', n.spiffe_id,
                     'gpus', upper(b.gpus) - lower(b.gpus), 'per_gpu_hour_micro', b.per_gpu_hour_micro,
                     'fee_ppm', coalesce(b.fee_ppm, r.fee_ppm), 'notice_us', b.notice_us) ORDER BY b.id) AS list
            FROM ng.booking b JOIN ng.node n ON n.id = b.node_id
           WHERE b.reservation_id = r.id AND NOT isempty(b.during)) b
      CROSS JOIN LATERAL (
          SELECT jsonb_agg(jsonb_build_object('booking', k.id, 'path', p.name, 'lanes', upper(k.lanes) - lower(k.lanes),
                     'per_lane_hour_micro', k.per_lane_hour_micro, 'fee_ppm', k.fee_ppm) ORDER BY k.id) AS list
            FROM ng.path_booking k JOIN ng.path p ON p.id = k.path_id
           WHERE k.reservation_id = r.id AND NOT isempty(k.during)) k
     WHERE r.id = ANY (p_ids) AND b.list IS NOT NULL
        AND NOT EXISTS (SELECT FROM ng.agreed a WHERE a.reservation_id = r.id AND a.generation = r.generation)
     ORDER BY r.id
    ON CONFLICT DO NOTHING
$$;
-- Before these are charged for the first time: events are read later than that when
-- something writes for long, and no charge is in the log without its price.
CREATE OR REPLACE FUNCTION ng.agree_first(p_ids uuid[]) RETURNS void
LANGUAGE sql AS $$
    SELECT ng.agree(x.ids)
      FROM (SELECT array_agg(DISTINCT i.id) AS ids FROM unnest(p_ids) AS i(id)
             WHERE NOT EXISTS (SELECT FROM ng.agreed a WHERE a.reservation_id = i.id)) x WHERE x.ids IS NOT NULL
$$;

-- Reads the next events, as the change feed does: nothing appears behind the cursor later.
-- What was changed twice in between is kept as it is now. Returns how many events (or
-- reservations of before) it read: p_limit, there may be more.
CREATE OR REPLACE FUNCTION api.billing_agreed(p_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    c agreed_cursor;
    v_ids uuid[];
    v_read integer;
BEGIN
    SELECT * INTO c FROM agreed_cursor FOR UPDATE;
    IF c.past IS NOT NULL THEN
        v_ids := ARRAY(SELECT id FROM reservation WHERE id < c.past ORDER BY id DESC LIMIT p_limit);
        PERFORM agree(v_ids);
        UPDATE agreed_cursor SET past = v_ids[p_limit];
        IF cardinality(v_ids) = p_limit THEN
            RETURN p_limit;
        END IF;
    END IF;
    WITH e AS MATERIALIZED (
        SELECT x.xid, x.id, x.kind, x.reservation_id FROM event x
         WHERE (x.xid, x.id) > (c.xid, c.id) AND x.xid < pg_snapshot_xmin(pg_current_snapshot())
         ORDER BY x.xid, x.id LIMIT p_limit),
    last AS (SELECT x.xid, x.id FROM e x ORDER BY x.xid DESC, x.id DESC LIMIT 1)
    SELECT (SELECT count(*) FROM e), ARRAY(SELECT DISTINCT x.reservation_id FROM e x WHERE x.reservation_id IS NOT NULL),
           (SELECT x.xid FROM last x), (SELECT x.id FROM last x)
      INTO v_read, v_ids, c.xid, c.id;
    IF v_read > 0 THEN
        PERFORM agree(v_ids);
        UPDATE agreed_cursor SET xid = c.xid, id = c.id;
    END IF;
    RETURN v_read;
END $$;

CREATE OR REPLACE FUNCTION api.billing_logs()
RETURNS TABLE (name text, size bigint, vkey text, market text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT l.name, l.size, l.vkey, m.name FROM log l CROSS JOIN market m ORDER BY l.name
$$;

-- Puts records into the queue of a log, some hundred a row, with the transaction that makes
-- them.
CREATE OR REPLACE FUNCTION ng.log_queue(p_log text, p_kind text, p_refs text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(p_refs) BETWEEN 1 AND 100 THEN
        INSERT INTO ng.log_todo (log, kind, refs) VALUES (p_log, p_kind, p_refs);
    ELSIF cardinality(p_refs) > 100 THEN
        INSERT INTO ng.log_todo (log, kind, refs)
        SELECT p_log, p_kind, array_agg(x.ref ORDER BY x.n)
          FROM unnest(p_refs) WITH ORDINALITY AS x(ref, n) GROUP BY (x.n - 1) / 100 ORDER BY (x.n - 1) / 100;
    END IF;
END $$;

-- Oldest first by queue number: whole rows of the queue, as many as begin within p_limit
-- records. A row whose transaction is still open is not seen yet and comes later: the index
-- is the sequencer's order, nothing else.
CREATE OR REPLACE FUNCTION api.billing_log_take(p_log text, p_limit integer)
RETURNS TABLE (id bigint, kind text, ref text, body jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT q.id, q.kind, x.ref, log_body(q.kind, x.ref)
      FROM (SELECT t.id, t.kind, t.refs, sum(cardinality(t.refs)) OVER (ORDER BY t.id) - cardinality(t.refs) AS earlier
              FROM log_todo t WHERE t.log = p_log ORDER BY t.id LIMIT p_limit) q
     CROSS JOIN LATERAL unnest(q.refs) WITH ORDINALITY AS x(ref, n)
     WHERE q.earlier < p_limit ORDER BY q.id, x.n
$$;

-- The first p_count hashes of a tile, as hex; null when it has fewer.
CREATE OR REPLACE FUNCTION api.billing_log_tile(p_log text, p_level integer, p_index bigint, p_count integer)
RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT encode(substr(hashes, 1, p_count * 32), 'hex') FROM log_tile
     WHERE log = p_log AND level = p_level AND index = p_index AND octet_length(hashes) >= p_count * 32
$$;

-- Appends to a log of exactly p_size leaves: leaves [{id, kind, ref, nonce, leaf}] (hex) get
-- the next indexes in their order, tiles [{level, index, hashes}] are as they are after it,
-- and the note is the signed head of the new size. All, or nothing (code 6: somebody else
-- appended). What was queued and is gone (a row cannot be) is refused.
CREATE OR REPLACE FUNCTION api.billing_log_append(p_log text, p_size bigint, p_vkey text, p_leaves jsonb, p_tiles jsonb, p_note text)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_log log;
    v_count bigint := jsonb_array_length(p_leaves);
    v_wrong bigint;
BEGIN
    SELECT * INTO v_log FROM log WHERE name = p_log FOR UPDATE;
    IF NOT FOUND OR v_log.size <> p_size THEN
        PERFORM refuse(6, format('the log %s has %s leaves, not %s', p_log, v_log.size, p_size));
    END IF;
    IF v_log.vkey NOT IN ('', p_vkey) THEN
        PERFORM refuse(6, format('the log %s is signed by %s: another key would begin another log', p_log, v_log.vkey));
    END IF;
    INSERT INTO log_leaf (log, index, kind, ref, nonce, leaf)
    SELECT p_log, p_size + e.place - 1, e.leaf->>'kind', e.leaf->>'ref', decode(e.leaf->>'nonce', 'hex'), decode(e.leaf->>'leaf', 'hex')
      FROM jsonb_array_elements(p_leaves) WITH ORDINALITY AS e(leaf, place);
    WITH leaf AS (
        SELECT (e.leaf->>'id')::bigint AS id, e.leaf->>'kind' AS kind, e.leaf->>'ref' AS ref
          FROM jsonb_array_elements(p_leaves) AS e(leaf)),
    gone AS (DELETE FROM log_todo t WHERE t.log = p_log AND t.id IN (SELECT x.id FROM leaf x) RETURNING t.id, t.kind, t.refs)
    SELECT count(*) INTO v_wrong
      FROM leaf x FULL JOIN (SELECT g.id, g.kind, r.ref FROM gone g CROSS JOIN LATERAL unnest(g.refs) AS r(ref)) g USING (id, kind, ref)
     WHERE x.id IS NULL OR g.id IS NULL;
    IF v_wrong <> 0 THEN
        PERFORM refuse(6, format('%s of %s rows are not what was queued for the log %s', v_wrong, v_count, p_log));
    END IF;
    INSERT INTO log_tile (log, level, index, hashes, inner_nodes)
    SELECT p_log, (t->>'level')::smallint, (t->>'index')::bigint, decode(t->>'hashes', 'hex'), decode(t->>'inner', 'hex')
      FROM jsonb_array_elements(p_tiles) AS x(t)
    ON CONFLICT (log, level, index) DO UPDATE SET hashes = excluded.hashes, inner_nodes = excluded.inner_nodes;
    UPDATE log SET size = p_size + v_count, vkey = p_vkey WHERE name = p_log;
    INSERT INTO log_checkpoint (log, size, note) VALUES (p_log, p_size + v_count, p_note);
    RETURN p_size + v_count;
END $$;

-- For a check of everything: leaves with their rows as they are now, the tiles, and the signed
-- heads. A receipt whose columns are not those of its text is not what was logged.
CREATE OR REPLACE FUNCTION api.billing_log_leaves(p_log text, p_from bigint, p_limit integer)
RETURNS TABLE (index bigint, kind text, ref text, nonce text, leaf text, body jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT l.index, l.kind, l.ref, encode(l.nonce, 'hex'), encode(l.leaf, 'hex'), log_body(l.kind, l.ref)
           || CASE WHEN l.kind = 'receipt' AND NOT EXISTS (
                  SELECT FROM receipt r WHERE r.reservation_id = uuid_of(split_part(l.ref, '/', 1)) AND r.node_id = split_part(l.ref, '/', 2)::integer
                     AND r.seq = split_part(l.ref, '/', 3)::integer AND receipt_told(r)) THEN '{"told": "otherwise"}'::jsonb ELSE '{}' END
      FROM log_leaf l WHERE l.log = p_log AND l.index >= p_from ORDER BY l.index LIMIT p_limit
$$;
CREATE OR REPLACE FUNCTION api.billing_log_tile_whole(p_log text, p_level integer, p_index bigint)
RETURNS TABLE (hashes text, inner_nodes text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT encode(t.hashes, 'hex'), encode(t.inner_nodes, 'hex') FROM log_tile t
     WHERE t.log = p_log AND t.level = p_level AND t.index = p_index
$$;
CREATE OR REPLACE FUNCTION api.billing_log_heads(p_log text, p_from bigint, p_to bigint)
RETURNS TABLE (size bigint, note text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT c.size, c.note FROM log_checkpoint c WHERE c.log = p_log AND c.size > p_from AND c.size <= p_to ORDER BY c.size
$$;

-- Records that no log has a minute after they were made. A market that keeps no log (its
-- billd has no log key) has nothing here.
CREATE OR REPLACE VIEW report.check_log AS
    SELECT x.log, x.kind, x.ref, x.at
      FROM (SELECT 'ledger' AS log, 'transfer' AS kind, id::text AS ref, at FROM ng.transfer
            UNION ALL
            SELECT 'ledger', 'invoice', number, issued_at FROM ng.invoice
            UNION ALL
            SELECT 'ledger', 'credit_note', number, issued_at FROM ng.credit_note
            UNION ALL
            SELECT 'ledger', 'payout', p.id::text, f.at FROM ng.payout p JOIN ng.payout_file f ON f.id = p.file_id
            UNION ALL
            SELECT 'ledger', 'payout', p.id || '/returned', p.ended_at FROM ng.payout p WHERE p.state = 'returned'
            UNION ALL
            SELECT 'ledger', 'quote', id::text, created_at FROM ng.quote
             WHERE created_at > (SELECT applied_at FROM public.neargpu_migration WHERE name = 'sql/migrations/0015_witness.sql')
            UNION ALL
            SELECT 'ledger', 'agreed', reservation_id || '/' || generation, at FROM ng.agreed
            UNION ALL
            SELECT 'usage', 'receipt', reservation_id || '/' || node_id || '/' || seq, received_at FROM ng.receipt) x
     WHERE x.at < now() - interval '60 seconds'
       AND EXISTS (SELECT FROM ng.log l WHERE l.name = x.log AND l.vkey <> '')
       AND NOT EXISTS (SELECT FROM ng.log_leaf l WHERE l.kind = x.kind AND l.ref = x.ref);

-- Bookings of which nothing was kept as agreed within a minute, or of which the price or the
-- notice is another now.
CREATE OR REPLACE VIEW report.check_agreed AS
    SELECT b.reservation_id, b.id AS booking, b.per_gpu_hour_micro, a.price AS agreed_micro
      FROM ng.booking b
      JOIN ng.reservation r ON r.id = b.reservation_id
      LEFT JOIN LATERAL (SELECT (e->>'per_gpu_hour_micro')::bigint AS price, (e->>'notice_us')::bigint AS notice
                           FROM ng.agreed x, jsonb_array_elements(x.bookings) e
                          WHERE x.reservation_id = b.reservation_id AND (e->>'booking')::bigint = b.id
                          ORDER BY x.generation DESC LIMIT 1) a ON true
     WHERE NOT isempty(b.during) AND (a.price, a.notice) IS DISTINCT FROM (b.per_gpu_hour_micro, b.notice_us)
       AND (SELECT past IS NULL FROM ng.agreed_cursor)
       AND EXISTS (SELECT FROM ng.log l WHERE l.name = 'ledger' AND l.vkey <> '')
       AND NOT EXISTS (SELECT FROM ng.event v JOIN ng.agreed_cursor c ON (v.xid, v.id) > (c.xid, c.id)
                        WHERE v.reservation_id = r.id AND v.at > now() - interval '60 seconds');

-- Of each level the tiles above these leaves, and the last one: no proof needs another.
CREATE OR REPLACE FUNCTION ng.log_tiles(p_log text, p_indexes bigint[], p_size bigint) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('level', t.level, 'index', t.index, 'hashes', encode(t.hashes, 'hex'),
               'inner', encode(t.inner_nodes, 'hex'))), '[]')
      FROM (SELECT DISTINCT v.level, div(i.index, 256::numeric ^ (v.level + 1))::bigint AS index
              FROM generate_series(0, 7) v(level), unnest(p_indexes || p_size) i(index)) w
      JOIN ng.log_tile t ON t.log = p_log AND t.level = w.level AND t.index = w.index
$$;
CREATE OR REPLACE FUNCTION ng.log_head(p_log text) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('vkey', g.vkey, 'size', g.size, 'checkpoint', coalesce(c.note, ''))
      FROM ng.log g LEFT JOIN ng.log_checkpoint c ON c.log = g.name AND c.size = g.size
     WHERE g.name = p_log
$$;
-- Each witness's newest cosignature of a log, newest first, 16 at most; the one that is
-- named in any case.
DROP FUNCTION IF EXISTS ng.log_witnessed(text);
CREATE OR REPLACE FUNCTION ng.log_witnessed(p_log text, p_witness text) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('witness', x.name, 'vkey', x.vkey, 'size', x.size, 'at_us', ng.us(x.at),
               'checkpoint', c.note || x.line) ORDER BY x.at DESC), '[]')
      FROM (SELECT w.name, w.vkey, s.*
              FROM ng.witness w
              CROSS JOIN LATERAL (SELECT g.log, g.size, g.line, g.at FROM ng.log_cosign g
                                   WHERE g.witness = w.name AND g.log = p_log ORDER BY g.size DESC LIMIT 1) s
             ORDER BY coalesce(w.name = p_witness, false) DESC, s.at DESC LIMIT 16) x
      JOIN ng.log_checkpoint c ON c.log = x.log AND c.size = x.size
$$;
-- The same of agents.
CREATE OR REPLACE FUNCTION ng.log_witnessed_nodes(p_log text, p_witness text) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('witness', x.name, 'vkey', x.vkey, 'size', x.size, 'at_us', ng.us(x.at),
               'checkpoint', c.note || x.line) ORDER BY x.at DESC), '[]')
      FROM ((SELECT * FROM ng.node_witness WHERE log = p_log AND at IS NOT NULL ORDER BY at DESC LIMIT 16)
            UNION
            SELECT * FROM ng.node_witness WHERE log = p_log AND at IS NOT NULL AND name = p_witness) x
      JOIN ng.log_checkpoint c ON c.log = x.log AND c.size = x.size
$$;
-- The newest signed head, and with p_from the tiles that prove it extends the log of that size.
DROP FUNCTION IF EXISTS api.log_checkpoint(text, bigint);
CREATE OR REPLACE FUNCTION api.log_checkpoint(p_log text, p_from bigint, p_witness text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v jsonb := log_head(p_log);
BEGIN
    IF v IS NULL THEN
        PERFORM refuse(5, format('there is no log %s: usage and ledger are', left(p_log, 40)));
    END IF;
    RETURN v || jsonb_build_object('log', p_log, 'witnessed', log_witnessed(p_log, p_witness) || log_witnessed_nodes(p_log, p_witness), 'tiles', CASE WHEN p_from > 0 THEN
        log_tiles(p_log, ARRAY[p_from - 1], (v->>'size')::bigint) ELSE '[]' END);
END $$;

-- What proves an invoice, or one reservation's use and money: the records, their leaves, the
-- tiles for the proofs, and the receipts' own texts with the keys of their nodes. Only what is
-- in a log already. More than 5,000 records are refused: an invoice of that size is asked for
-- by reservation.
CREATE OR REPLACE FUNCTION api.log_bundle(p_tenant uuid, p_invoice text, p_reservation uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_resv uuid[];
    v_entries jsonb;
    v_receipts jsonb;
BEGIN
    IF p_invoice IS NOT NULL THEN
        IF NOT EXISTS (SELECT FROM invoice WHERE number = p_invoice AND (p_tenant IS NULL OR tenant_id = p_tenant)) THEN
            PERFORM refuse(5, format('there is no invoice %s', left(p_invoice, 40)));
        END IF;
        v_resv := ARRAY(SELECT DISTINCT reservation_id FROM invoice_line
                         WHERE number = p_invoice AND reservation_id IS NOT NULL);
    ELSE
        v_resv := ARRAY(SELECT id FROM reservation WHERE id = p_reservation AND (p_tenant IS NULL OR tenant_id = p_tenant));
        IF v_resv = '{}' THEN
            PERFORM refuse(5, format('there is no reservation %s', p_reservation));
        END IF;
    END IF;
    WITH wanted AS (
        SELECT 'invoice' AS kind, p_invoice AS ref WHERE p_invoice IS NOT NULL
        UNION ALL
        SELECT 'credit_note', number FROM credit_note WHERE reservation_id = ANY (v_resv)
        UNION ALL
        SELECT 'transfer', id::text FROM transfer WHERE reservation_id = ANY (v_resv)
        UNION ALL
        SELECT 'agreed', reservation_id || '/' || generation FROM agreed WHERE reservation_id = ANY (v_resv)
        UNION ALL
        SELECT 'receipt', reservation_id || '/' || node_id || '/' || seq FROM receipt WHERE reservation_id = ANY (v_resv)
        LIMIT 5001)
    SELECT jsonb_agg(jsonb_build_object('log', l.log, 'index', l.index, 'nonce', encode(l.nonce, 'hex'),
               'record', log_body(l.kind, l.ref)) ORDER BY l.log, l.index)
      INTO v_entries
      FROM wanted w JOIN log_leaf l ON l.kind = w.kind AND l.ref = w.ref;
    IF jsonb_array_length(v_entries) > 5000 THEN
        PERFORM refuse(21, 'more than 5,000 records: ask for one reservation at a time');
    END IF;
    SELECT jsonb_agg(jsonb_build_object('node', n.spiffe_id, 'key', encode(coalesce(r.receipt_key, n.receipt_key), 'hex'), 'receipt', r.jws,
               'countersign', r.countersign)
               ORDER BY r.reservation_id, r.node_id, r.seq)
      INTO v_receipts
      FROM receipt r JOIN node n ON n.id = r.node_id WHERE r.reservation_id = ANY (v_resv);
    RETURN jsonb_build_object('format', 'neargpu-bundle-v1', 'market', (SELECT name FROM market),
        'logs', jsonb_build_object('usage', log_head('usage'), 'ledger', log_head('ledger')),
        'tiles', (SELECT jsonb_object_agg(g.name, log_tiles(g.name, ARRAY(SELECT (e->>'index')::bigint
                     FROM jsonb_array_elements(v_entries) e WHERE e->>'log' = g.name), g.size)) FROM log g),
        'entries', coalesce(v_entries, '[]'), 'receipts', coalesce(v_receipts, '[]'));
END $$;

-- ---- witnesses ----

-- The same key again changes nothing; a name is nobody else's, and keeps its key.
CREATE OR REPLACE FUNCTION api.witness_add(p_name text, p_vkey text, p_tenant uuid, p_provider uuid) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v witness;
BEGIN
    IF (SELECT count(*) FROM witness WHERE tenant_id IS NOT DISTINCT FROM p_tenant AND provider_id IS NOT DISTINCT FROM p_provider) >= 16
        AND NOT EXISTS (SELECT FROM witness WHERE name = p_name) THEN
        PERFORM refuse(21, 'an account has at most 16 witnesses');
    END IF;
    INSERT INTO witness (name, vkey, tenant_id, provider_id) VALUES (p_name, p_vkey, p_tenant, p_provider) ON CONFLICT DO NOTHING;
    SELECT * INTO v FROM witness WHERE name = p_name;
    IF (v.vkey, v.tenant_id, v.provider_id) IS DISTINCT FROM (p_vkey, p_tenant, p_provider) THEN
        PERFORM refuse(6, format('a witness named %s is there already, with another key or of another account', p_name));
    END IF;
    RETURN jsonb_build_object('name', v.name, 'vkey', v.vkey, 'added_us', us(v.added_at));
END $$;
DROP FUNCTION IF EXISTS api.witness_list();
CREATE OR REPLACE FUNCTION api.witness_list(p_nodes boolean) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('witnesses', coalesce(jsonb_agg(x.row ORDER BY x.name), '[]'))
      FROM (SELECT w.name, jsonb_build_object('name', w.name, 'vkey', w.vkey, 'added_us', us(w.added_at),
                       'last_us', us(g.at), 'age_s', extract(epoch FROM now() - g.at)::bigint) AS row
              FROM witness w CROSS JOIN LATERAL (SELECT max(at) AS at FROM log_cosign WHERE witness = w.name) g
            UNION ALL
            SELECT k.name, jsonb_build_object('name', k.name, 'vkey', k.vkey, 'added_us', us(k.added_at), 'last_us', us(k.at),
                       'age_s', extract(epoch FROM now() - k.at)::bigint, 'node', n.name, 'site', s.name, 'log', k.log, 'size', k.size,
                       'refused_us', us(k.refused_at), 'why', k.refused)
              FROM node_witness k JOIN node n ON n.id = k.node_id JOIN site s ON s.id = n.site_id
             WHERE p_nodes) x
$$;
-- What is to be compared with a cosignature before it is kept.
CREATE OR REPLACE FUNCTION api.log_note(p_log text, p_size bigint, p_witness text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_note text := (SELECT note FROM log_checkpoint WHERE log = p_log AND size = p_size);
    v_vkey text := (SELECT vkey FROM witness WHERE name = p_witness);
BEGIN
    IF v_vkey IS NULL THEN
        PERFORM refuse(5, format('no witness is named %s: add its key first', p_witness));
    ELSIF v_note IS NULL THEN
        PERFORM refuse(5, format('the log %s never had a head of %s leaves', left(p_log, 40), p_size));
    END IF;
    RETURN jsonb_build_object('note', v_note, 'vkey', v_vkey);
END $$;
CREATE OR REPLACE FUNCTION api.log_cosign(p_log text, p_size bigint, p_witness text, p_line text) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    INSERT INTO log_cosign (log, size, witness, line) VALUES (p_log, p_size, p_witness, p_line) ON CONFLICT DO NOTHING;
    SELECT jsonb_build_object('log', p_log, 'size', p_size, 'witness', p_witness)
$$;

-- ---- agents as witnesses, in their sync ----

-- p_ask {sizes: {NAME: size}, cosignatures: [{log, size}]}: the heads wanted with what proves
-- that they extend these sizes, and the notes that cosignatures are of.
CREATE OR REPLACE FUNCTION api.agent_log(p_node bigint, p_ask jsonb) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object(
        'heads', (SELECT coalesce(jsonb_agg(h.head || jsonb_build_object('log', w.log, 'from', w.size,
                             'tiles', CASE WHEN w.size BETWEEN 1 AND (h.head->>'size')::bigint
                                 THEN log_tiles(w.log, ARRAY[w.size - 1], (h.head->>'size')::bigint) ELSE '[]' END) ORDER BY w.log), '[]')
                    FROM (SELECT key AS log, value::bigint AS size FROM jsonb_each_text(p_ask->'sizes')) w
                    CROSS JOIN LATERAL (SELECT log_head(w.log) AS head) h),
        'notes', (SELECT coalesce(jsonb_agg(jsonb_build_object('log', c.log, 'size', c.size, 'note', c.note)), '[]')
                    FROM jsonb_array_elements(p_ask->'cosignatures') e
                    JOIN log_checkpoint c ON c.log = e->>'log' AND c.size = (e->>'size')::bigint))
$$;

-- p_rows [{log, size, line}]: cosignatures that were found to be right; p_refused [{log, detail}]:
-- heads that the node does not cosign, each told once an hour at most unless it is another.
CREATE OR REPLACE FUNCTION api.agent_cosign(p_node bigint, p_name text, p_vkey text, p_rows jsonb, p_refused jsonb,
    p_address text, p_request text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_node node;
    v record;
BEGIN
    SELECT * INTO v_node FROM node WHERE id = p_node AND banned_at IS NULL AND cloned_at IS NULL;
    IF NOT FOUND THEN
        RETURN '{}';
    END IF;
    INSERT INTO node_witness AS k (node_id, log, name, vkey, size, line, at)
    SELECT p_node::integer, r->>'log', p_name, p_vkey, (r->>'size')::bigint, r->>'line', clock_timestamp()
      FROM jsonb_array_elements(p_rows) r ORDER BY r->>'log'
    ON CONFLICT (node_id, log) DO UPDATE SET name = excluded.name, vkey = excluded.vkey, size = excluded.size,
        line = excluded.line, at = excluded.at, added_at = CASE WHEN k.vkey = excluded.vkey THEN k.added_at ELSE excluded.added_at END;
    FOR v IN SELECT r->>'log' AS log, r->>'detail' AS detail FROM jsonb_array_elements(p_refused) r ORDER BY 1 LOOP
        CONTINUE WHEN EXISTS (SELECT FROM node_witness k WHERE k.node_id = p_node AND k.log = v.log AND k.refused = v.detail
                                 AND k.refused_at > now() - interval '1 hour');
        INSERT INTO node_witness (node_id, log, name, vkey, refused_at, refused)
        VALUES (p_node::integer, v.log, p_name, p_vkey, clock_timestamp(), v.detail)
        ON CONFLICT (node_id, log) DO UPDATE SET refused_at = excluded.refused_at, refused = excluded.refused;
        PERFORM tell('log.refused', NULL, NULL, p_node::integer, jsonb_build_object('log', v.log, 'witness', p_name, 'detail', v.detail));
        INSERT INTO audit (at, actor, address, method, path, status, request_id)
        VALUES (clock_timestamp(), 'agent:' || v_node.spiffe_id, p_address, 'REFUSE', '/v1/log/checkpoint/' || v.log, 409, p_request);
    END LOOP;
    RETURN '{}';
END $$;
