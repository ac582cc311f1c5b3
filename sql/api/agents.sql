-- Nodes: enrolment, what they report, what they are told, their receipts.

-- The code works once, for its site and node name; the key that used it may ask again
-- until it expires, since the answer may have been lost. A node that enrols anew keeps its
-- number, bookings and leases; its earlier certificate is void, and with it a clone's.
CREATE OR REPLACE FUNCTION api.enroll(p_code_hash bytea, p_receipt_key bytea, p_market text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    c join_code;
    s site;
    p provider;
    n node;
    v_times integer;
BEGIN
    SELECT * INTO c FROM join_code WHERE hash = p_code_hash FOR UPDATE;
    IF NOT FOUND OR c.expires_at <= clock_timestamp() THEN
        PERFORM refuse(22, 'the join code is not known or has expired: ask the provider for a new one');
    END IF;
    IF c.used_at IS NOT NULL AND c.used_key <> p_receipt_key THEN
        PERFORM refuse(22, 'the join code was used already: ask the provider for a new one');
    END IF;
    SELECT * INTO STRICT s FROM site WHERE id = c.site_id;
    SELECT * INTO STRICT p FROM provider WHERE id = c.provider_id;
    SELECT * INTO n FROM node WHERE site_id = s.id AND name = c.node_name FOR NO KEY UPDATE;
    IF n.banned_at IS NOT NULL THEN
        PERFORM refuse(32, node_refusal(n)->>'detail');
    END IF;
    v_times := coalesce(n.attested + (n.receipt_key <> p_receipt_key)::integer, 1);
    UPDATE join_code SET used_at = coalesce(used_at, clock_timestamp()), used_key = p_receipt_key WHERE hash = p_code_hash;
    INSERT INTO node (site_id, provider_id, name, spiffe_id, receipt_key)
    VALUES (s.id, p.id, c.node_name, format('spiffe://%s/site/%s/node/%s', p_market, s.name, c.node_name), p_receipt_key)
    ON CONFLICT (site_id, name) DO UPDATE SET receipt_key = excluded.receipt_key, cert_sha256 = NULL,
        next_cert_sha256 = NULL, attested = v_times, cloned_at = NULL,
        instance = NULL, run = NULL, seq = NULL, repeats = 0, repeated_at = NULL,
        state = CASE WHEN node.state = 'retired' THEN 'enrolled' ELSE node.state END
        WHERE node.provider_id = excluded.provider_id
    RETURNING * INTO n;
    IF n.id IS NULL THEN
        PERFORM refuse(4, format('node %s at %s belongs to another provider', c.node_name, s.name));
    END IF;
    PERFORM tell('node.changed', NULL, NULL, n.id);
    IF n.attested > 1 THEN
        PERFORM node_attest(n);
    END IF;
    RETURN jsonb_build_object('node_id', n.id, 'node', n.name, 'site', s.name, 'site_id', s.id,
        'provider', p.name, 'provider_id', p.id, 'spiffe_id', n.spiffe_id);
END $$;

CREATE OR REPLACE FUNCTION api.cert_set(p_node bigint, p_cert bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    UPDATE node SET cert_sha256 = coalesce(cert_sha256, p_cert),
        next_cert_sha256 = CASE WHEN cert_sha256 IS NULL THEN NULL ELSE p_cert END
     WHERE id = p_node;
    IF NOT FOUND THEN
        PERFORM refuse(5, 'there is no such node');
    END IF;
    PERFORM tell('node.changed', NULL, NULL, p_node::integer);
    RETURN '{}';
END $$;

CREATE OR REPLACE FUNCTION api.cert_used(p_node bigint, p_cert bytea) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    UPDATE node SET cert_sha256 = next_cert_sha256, next_cert_sha256 = NULL
     WHERE id = p_node AND next_cert_sha256 = p_cert;
    IF FOUND THEN
        PERFORM tell('node.changed', NULL, NULL, p_node::integer);
    END IF;
    RETURN '{}';
END $$;

-- GPUs of a node form a block of the global numbering, given out once, at the first
-- inventory; a place whose GPU went away may be taken by its replacement. A node that
-- grew gets a new block when nothing is booked on it from now on; whoever books on it has
-- its row locked, so that nothing is booked into the old block meanwhile.
CREATE OR REPLACE FUNCTION ng.node_block(n ng.node, p_count integer, p_now timestamptz) RETURNS int4range
LANGUAGE plpgsql AS $$
DECLARE v_from integer;
BEGIN
    IF n.gpus IS NOT NULL AND upper(n.gpus) - lower(n.gpus) >= p_count THEN
        RETURN n.gpus;
    END IF;
    PERFORM 1 FROM ng.node WHERE id = n.id FOR UPDATE;
    IF n.gpus IS NOT NULL AND (EXISTS (SELECT FROM ng.booking b WHERE b.node_id = n.id AND upper(b.during) > p_now)) THEN
        RETURN n.gpus;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('neargpu.gpu_no'));
    SELECT coalesce(setval('ng.gpu_no', nextval('ng.gpu_no') + p_count - 1) - p_count + 1, 1) INTO v_from;
    DELETE FROM ng.gpu WHERE node_id = n.id;
    RETURN int4range(v_from, v_from + p_count);
END $$;

CREATE OR REPLACE FUNCTION ng.node_inventory(n ng.node, p_gpus jsonb, p_now timestamptz) RETURNS ng.node
LANGUAGE plpgsql AS $$
DECLARE
    v_old ng.node := n;
    g record;
    v_no integer;
BEGIN
    IF jsonb_array_length(p_gpus) > 0 THEN
        n.gpus := ng.node_block(n, jsonb_array_length(p_gpus), p_now);
    END IF;
    IF n.gpus IS NULL THEN
        RETURN n;
    END IF;
    UPDATE ng.gpu SET state = 'lost' WHERE node_id = n.id AND state <> 'lost'
       AND uuid NOT IN (SELECT x->>'uuid' FROM jsonb_array_elements(p_gpus) x);
    FOR g IN
        SELECT x->>'uuid' AS uuid, x->>'model' AS model, (x->>'memory_mib')::integer AS memory_mib,
               coalesce(x->>'pci', '') AS pci, (x->>'minor')::integer AS minor, x->>'state' AS state
          FROM jsonb_array_elements(p_gpus) x ORDER BY (x->>'index')::integer
    LOOP
        UPDATE ng.gpu SET model = g.model, memory_mib = g.memory_mib, pci = g.pci, minor = g.minor, state = g.state
         WHERE node_id = n.id AND uuid = g.uuid
           AND (model, memory_mib, pci, minor, state) IS DISTINCT FROM (g.model, g.memory_mib, g.pci, g.minor, g.state);
        CONTINUE WHEN FOUND OR EXISTS (SELECT FROM ng.gpu WHERE node_id = n.id AND uuid = g.uuid);
        IF EXISTS (SELECT FROM ng.gpu WHERE uuid = g.uuid) THEN
            PERFORM ng.refuse(6, format('GPU %s is enrolled with another node', g.uuid));
        END IF;
        SELECT i INTO v_no FROM generate_series(lower(n.gpus), upper(n.gpus) - 1) i
         WHERE NOT EXISTS (SELECT FROM ng.gpu WHERE no = i) ORDER BY i LIMIT 1;
        IF v_no IS NULL THEN
            SELECT x.no INTO v_no FROM ng.gpu x WHERE x.node_id = n.id AND x.state = 'lost'
               AND NOT EXISTS (SELECT FROM ng.booking b WHERE b.node_id = n.id AND b.gpus @> x.no AND upper(b.during) > p_now)
             ORDER BY x.no LIMIT 1;
            CONTINUE WHEN v_no IS NULL; -- no place until bookings have passed
            DELETE FROM ng.gpu WHERE no = v_no;
        END IF;
        INSERT INTO ng.gpu (no, node_id, ix, uuid, model, memory_mib, pci, minor, state)
        VALUES (v_no, n.id, v_no - lower(n.gpus), g.uuid, g.model, g.memory_mib, g.pci, g.minor, g.state);
    END LOOP;
    SELECT coalesce(bit_or(1::bigint << x.ix) FILTER (WHERE x.state IN ('idle', 'leased')), 0),
           coalesce(min(x.model) FILTER (WHERE x.state <> 'lost'), n.gpu_model),
           coalesce(min(x.memory_mib) FILTER (WHERE x.state <> 'lost'), n.gpu_memory_mib)
      INTO n.offered, n.gpu_model, n.gpu_memory_mib FROM ng.gpu x WHERE x.node_id = n.id;
    RETURN n;
END $$;

-- A spot lease is told in terms, a third of its notice long: in term n (from 0, which
-- begins a term before the lease does) its end is said to be at most 9/10 of the notice
-- after the term's beginning, so that a preemption, which cuts it a notice ahead, needs
-- nothing of the node: the tenth is for clocks. null: not to be told yet.
CREATE OR REPLACE FUNCTION ng.spot_term(p_from timestamptz, p_notice bigint, p_now timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN p_now >= p_from - p_notice / 3 * interval '1 microsecond'
                THEN (ng.us(p_now) - ng.us(p_from) + p_notice / 3) / (p_notice / 3) END
$$;

-- What the node shall do: leases that end later than now and start within a day, those it
-- reported that must stop, receipts we have; what to measure the servers know. version covers all but
-- the receipts. The end is the reservation's when that is earlier: the booking may block
-- on until the node has confirmed it.
CREATE OR REPLACE FUNCTION ng.desired(p_node integer, p_reported text[], p_now timestamptz) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_leases jsonb;
    v_end jsonb;
    v_acks jsonb;
    v_next bigint;
BEGIN
    SELECT coalesce(jsonb_agg(jsonb_build_object('reservation', x.id, 'tenant', x.tenant_id,
               'gpus', (SELECT coalesce(jsonb_agg(g.uuid ORDER BY g.no), '[]') FROM ng.gpu g
                         WHERE g.no >= lower(x.gpus) AND g.no < upper(x.gpus)),
               'not_before_us', ng.us(lower(x.during)),
               'not_after_us', CASE WHEN x.notice_us IS NULL THEN ng.us(x.until)
                   ELSE least(ng.us(x.until), ng.us(lower(x.during)) + (x.term - 1) * (x.notice_us / 3) + x.notice_us * 9 / 10) END,
               'epoch', x.epoch, 'spot', x.notice_us IS NOT NULL, 'holders', ng.tenant_holders(x.tenant_id),
               'generation', CASE WHEN x.notice_us IS NULL THEN x.generation ELSE x.generation * 1048576::bigint + x.term END)
               ORDER BY lower(x.during), x.booking) FILTER (WHERE x.notice_us IS NULL OR x.term IS NOT NULL), '[]'),
           min(ng.us(lower(x.during)) + coalesce(x.term, -1) * (x.notice_us / 3)) FILTER (WHERE x.notice_us IS NOT NULL)
      INTO v_leases, v_next
      FROM (SELECT r.id, r.tenant_id, r.generation, b.id AS booking, b.gpus, b.during, b.epoch, b.notice_us,
                   least(upper(b.during), upper(r.during)) AS until,
                   ng.spot_term(lower(b.during), b.notice_us, p_now) AS term
              FROM ng.booking b JOIN ng.reservation r ON r.id = b.reservation_id
             WHERE b.node_id = p_node AND upper(b.during) > p_now AND lower(b.during) < p_now + interval '1 day'
               AND upper(r.during) > p_now AND r.state IN ('confirmed', 'active')) x;
    SELECT coalesce(jsonb_agg(jsonb_build_object('reservation', x.id, 'reason',
               CASE WHEN r.id IS NULL THEN 'unknown' WHEN r.reason <> '' THEN r.reason ELSE r.state END) ORDER BY x.id), '[]')
      INTO v_end
      FROM unnest(p_reported) AS x(id) LEFT JOIN ng.reservation r ON r.id = ng.uuid_of(x.id)
     WHERE r.id IS NULL OR r.state IN ('waiting', 'held', 'cancelled', 'failed', 'ended')
        OR NOT EXISTS (SELECT FROM ng.booking b WHERE b.reservation_id = r.id AND b.node_id = p_node);
    SELECT coalesce(jsonb_agg(jsonb_build_object('reservation', x.id, 'seq', a.seq) ORDER BY x.id), '[]')
      INTO v_acks
      FROM unnest(p_reported) AS x(id)
      JOIN LATERAL (SELECT max(seq) AS seq FROM ng.receipt WHERE reservation_id = ng.uuid_of(x.id) AND node_id = p_node) a ON a.seq IS NOT NULL;
    RETURN jsonb_build_object('version', md5(concat_ws('|', v_leases, v_end)),
        'leases', v_leases, 'end', v_end, 'acks', v_acks, 'next_us', v_next);
END $$;

CREATE OR REPLACE FUNCTION api.desired(p_node bigint, p_reported jsonb, p_now bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT coalesce(node_refusal(n), desired(n.id, ARRAY(SELECT jsonb_array_elements_text(p_reported)), ts(p_now)))
      FROM node n WHERE n.id = p_node
$$;

CREATE OR REPLACE FUNCTION ng.node_probes(p_node integer, p_probes jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE v record;
BEGIN
    FOR v IN
        INSERT INTO ng.rtt AS r (node_id, dataset_id, min_us, p50_us, p99_us, count, at)
        SELECT p_node, d.id, (x->>'min_us')::bigint, (x->>'p50_us')::bigint, (x->>'p99_us')::bigint,
               (x->>'count')::integer, ng.ts((x->>'at_us')::bigint)
          FROM jsonb_array_elements(p_probes) x
          JOIN ng.dataset d ON d.id = (x->>'dataset')::integer AND d.removed_at IS NULL
         ORDER BY d.id
        ON CONFLICT (node_id, dataset_id) DO UPDATE SET min_us = excluded.min_us, p50_us = excluded.p50_us,
            p99_us = excluded.p99_us, count = excluded.count, at = excluded.at
            WHERE r.at < excluded.at
        RETURNING dataset_id
    LOOP
        PERFORM ng.tell('node.probed', NULL, NULL, p_node, jsonb_build_object('dataset_id', v.dataset_id));
    END LOOP;
END $$;

-- {refused, detail} when the node is not spoken with (nodes.sql); what it says is not taken.
CREATE OR REPLACE FUNCTION api.sync(p_node bigint, p_observed jsonb, p_now bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    n node;
    v_new node;
    v_windows tstzmultirange;
    v_now timestamptz := ts(p_now);
    v_price jsonb := p_observed->'price';
    v_leases text[] := ARRAY(SELECT l->>'reservation' FROM jsonb_array_elements(coalesce(p_observed->'leases', '[]')) l);
    h record;
BEGIN
    SELECT * INTO n FROM node WHERE id = p_node FOR NO KEY UPDATE;
    IF NOT FOUND OR n.state = 'retired' THEN
        PERFORM refuse(4, 'this node is retired');
    ELSIF n.banned_at IS NOT NULL OR n.cloned_at IS NOT NULL THEN
        RETURN node_refusal(n);
    END IF;
    h := node_hear(n, p_observed->'agent', v_now);
    IF h.outcome = 'cloned' THEN
        RETURN node_cloned(n, v_now);
    ELSIF h.outcome = 'late' THEN
        RETURN desired(n.id, v_leases, v_now);
    END IF;
    PERFORM node_from(n, p_observed->>'peer', v_now);
    v_new := node_inventory(n, coalesce(p_observed->'gpus', '[]'), v_now);
    SELECT coalesce(range_agg(span((w->>'from_us')::bigint, (w->>'to_us')::bigint)), '{}') INTO v_windows
      FROM jsonb_array_elements(coalesce(p_observed->'windows', '[]')) w;
    v_new.windows := v_windows;
    v_new.address := coalesce(p_observed#>>'{agent,address}', '');
    v_new.boot_id := coalesce(p_observed#>>'{agent,boot_id}', '');
    v_new.ssh := nullif(p_observed#>'{agent,ssh}', 'null');
    v_new.domain := coalesce(p_observed#>>'{agent,fabric}', '');
    v_new.state := 'up';
    v_new.advertised_price := nullif(v_price, 'null');
    UPDATE node SET advertised_price = v_new.advertised_price, gpus = v_new.gpus, gpu_model = v_new.gpu_model, gpu_memory_mib = v_new.gpu_memory_mib,
        offered = v_new.offered, windows = v_new.windows, address = v_new.address, boot_id = v_new.boot_id, domain = v_new.domain, ssh = v_new.ssh,
        instance = (h.ret_node).instance, run = (h.ret_node).run, seq = (h.ret_node).seq,
        repeats = (h.ret_node).repeats, repeated_at = (h.ret_node).repeated_at,
        state = 'up', last_sync_at = v_now
     WHERE id = p_node;
    IF v_new IS DISTINCT FROM n THEN
        PERFORM tell('node.changed', NULL, NULL, n.id);
    END IF;
    -- Only a change: a price that the provider has set since stays.
    IF v_new.advertised_price IS NOT NULL AND v_new.advertised_price IS DISTINCT FROM n.advertised_price THEN
        PERFORM price_put(n.id, (v_price->>'micro')::bigint, v_price->>'currency', 'agent');
    END IF;
    PERFORM node_probes(n.id, coalesce(p_observed->'probes', '[]'));
    RETURN desired(n.id, v_leases, v_now);
END $$;

CREATE OR REPLACE FUNCTION api.nodes_overdue(p_now bigint, p_unknown_after bigint, p_lost_after bigint)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v record;
    v_unknown integer[] := '{}';
    v_lost integer[] := '{}';
BEGIN
    FOR v IN SELECT id, state, last_sync_at FROM node
              WHERE state IN ('up', 'unknown') AND last_sync_at < ts(p_now - p_unknown_after)
              ORDER BY id FOR UPDATE SKIP LOCKED
    LOOP
        IF v.last_sync_at < ts(p_now - p_lost_after) THEN
            UPDATE node SET state = 'lost' WHERE id = v.id;
            v_lost := v_lost || v.id;
        ELSIF v.state = 'up' THEN
            UPDATE node SET state = 'unknown' WHERE id = v.id;
            v_unknown := v_unknown || v.id;
        ELSE
            CONTINUE;
        END IF;
        PERFORM tell('node.changed', NULL, NULL, v.id);
    END LOOP;
    RETURN jsonb_build_object('unknown', to_jsonb(v_unknown), 'lost', to_jsonb(v_lost));
END $$;

-- A teardown frees the GPUs from its end on, and ends the reservation, its lanes with it,
-- when it was the last of its nodes.
CREATE OR REPLACE FUNCTION ng.teardown(p_reservation uuid, p_node integer, p_to timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    r ng.reservation;
    v_end timestamptz;
BEGIN
    SELECT * INTO STRICT r FROM ng.reservation WHERE id = p_reservation;
    UPDATE ng.booking SET during = CASE WHEN p_to <= lower(during) THEN 'empty'::tstzrange
                                        ELSE tstzrange(lower(during), p_to) END
     WHERE reservation_id = p_reservation AND node_id = p_node AND upper(during) > p_to;
    IF r.state = 'confirmed' THEN
        UPDATE ng.reservation SET state = 'active' WHERE id = p_reservation;
        r.state := 'active';
    END IF;
    IF r.state = 'active' AND NOT EXISTS (
        SELECT FROM ng.booking b WHERE b.reservation_id = p_reservation
           AND NOT EXISTS (SELECT FROM ng.receipt x WHERE x.reservation_id = p_reservation
                              AND x.node_id = b.node_id AND x.kind = 'teardown')) THEN
        SELECT greatest(lower(r.during), least(upper(r.during), max(upper(x.during)))) INTO v_end FROM ng.receipt x
         WHERE x.reservation_id = p_reservation AND x.kind = 'teardown';
        UPDATE ng.reservation SET state = 'ended', ended_at = v_end WHERE id = p_reservation;
        PERFORM ng.lanes_cut(p_reservation, v_end);
    END IF;
    PERFORM ng.tell_resv('reservation.ended', p_reservation);
END $$;

-- One receipt: '' when it is there now, else why it is refused: 'gap', 'fork', 'chain',
-- 'foreign', 'backward', 'closed', 'early' (of a lease that has not begun), 'key'. It may be
-- signed by any of the node's keys (hex in x.key; none: the newest), since one that enrols
-- again may still hold receipts of an earlier key; but not by one older than the key of the
-- receipt before it.
CREATE OR REPLACE FUNCTION ng.receipt_put(p_node integer, x jsonb, p_now timestamptz) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_resv uuid := (x->>'reservation')::uuid;
    v_seq integer := (x->>'seq')::integer;
    v_hash bytea := decode(x->>'hash', 'hex');
    v_prev bytea := decode(x->>'prev', 'hex');
    v_from timestamptz := ng.ts((x->>'from_us')::bigint);
    v_to timestamptz := ng.ts((x->>'to_us')::bigint);
    r ng.reservation;
    v_there bytea;
    v_last ng.receipt;
    v_key bytea := decode(x->>'key', 'hex');
BEGIN
    SELECT * INTO r FROM ng.reservation WHERE id = v_resv FOR UPDATE;
    IF NOT FOUND OR NOT EXISTS (SELECT FROM ng.booking WHERE reservation_id = v_resv AND node_id = p_node
                                    AND epoch = coalesce((x->>'epoch')::bigint, epoch)) THEN
        RETURN 'foreign';
    END IF;
    SELECT hash INTO v_there FROM ng.receipt WHERE reservation_id = v_resv AND node_id = p_node AND seq = v_seq;
    IF FOUND THEN
        IF v_there = v_hash THEN
            RETURN '';
        END IF;
        INSERT INTO ng.receipt_fork (reservation_id, node_id, seq, jws)
        SELECT v_resv, p_node, v_seq, x->>'jws' WHERE NOT EXISTS (SELECT FROM ng.receipt_fork f
            WHERE f.reservation_id = v_resv AND f.node_id = p_node AND f.seq = v_seq AND f.jws = x->>'jws');
        RETURN 'fork';
    END IF;
    SELECT * INTO v_last FROM ng.receipt WHERE reservation_id = v_resv AND node_id = p_node ORDER BY seq DESC LIMIT 1;
    IF v_seq <> coalesce(v_last.seq, 0) + 1 THEN
        RETURN 'gap';
    ELSIF v_prev <> coalesce(v_last.hash, ''::bytea) THEN
        RETURN 'chain';
    ELSIF v_last.kind = 'teardown' THEN
        RETURN 'closed';
    ELSIF x->>'kind' = 'teardown' AND r.state = 'confirmed' AND v_to <= lower(r.during) THEN
        RETURN 'early';
    ELSIF v_key IS NOT NULL AND NOT EXISTS (
            SELECT FROM ng.node_key k WHERE k.node_id = p_node AND k.receipt_key = v_key AND k.attested >= coalesce(
                (SELECT b.attested FROM ng.node_key b WHERE b.node_id = p_node AND b.receipt_key = v_last.receipt_key), 0)) THEN
        RETURN 'key';
    ELSIF v_to < v_from OR (x->>'gpu_ms')::bigint < coalesce(v_last.gpu_ms, 0) THEN
        RETURN 'backward';
    END IF;
    INSERT INTO ng.receipt (reservation_id, node_id, seq, hash, kind, during, gpu_ms, gaps, jws, received_at, receipt_key)
    VALUES (v_resv, p_node, v_seq, v_hash, x->>'kind', tstzrange(v_from, v_to), (x->>'gpu_ms')::bigint,
        coalesce(x->'gaps', '[]'), x->>'jws', p_now, v_key);
    IF x->>'kind' = 'teardown' THEN
        PERFORM ng.teardown(v_resv, p_node, v_to);
    ELSIF r.state = 'confirmed' AND lower(r.during) <= p_now THEN
        PERFORM ng.resv_start_if_due(r, p_now);
    END IF;
    RETURN '';
END $$;

-- Receipts of one node, oldest first. One that is refused refuses those that follow it in
-- its chain ('gap'), not the others.
CREATE OR REPLACE FUNCTION api.receipts(p_node bigint, p_receipts jsonb, p_now bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    x jsonb;
    v_why text;
    v_acks jsonb := '[]';
    v_rejected jsonb := '[]';
BEGIN
    -- Reservations are locked in the order of their ids, like everywhere.
    PERFORM 1 FROM reservation
      WHERE id IN (SELECT (y->>'reservation')::uuid FROM jsonb_array_elements(p_receipts) y) ORDER BY id FOR UPDATE;
    FOR x IN SELECT y FROM jsonb_array_elements(p_receipts) WITH ORDINALITY AS z(y, n) ORDER BY n LOOP
        v_why := receipt_put(p_node::integer, x, ts(p_now));
        IF v_why = '' THEN
            v_acks := v_acks || jsonb_build_object('reservation', x->'reservation', 'seq', x->'seq');
        ELSE
            v_rejected := v_rejected || jsonb_build_object('reservation', x->'reservation', 'seq', x->'seq',
                'code', v_why, 'detail', CASE v_why
                    WHEN 'foreign' THEN 'this node has no booking of that reservation with that epoch'
                    WHEN 'early' THEN 'the lease has not begun'
                    WHEN 'fork' THEN 'another receipt has this number: kept as evidence'
                    WHEN 'gap' THEN 'the receipt before it is missing'
                    WHEN 'chain' THEN 'it does not follow the receipt before it'
                    WHEN 'closed' THEN 'the teardown receipt was the last'
                    WHEN 'key' THEN 'it is signed by an older key than the receipt before it'
                    ELSE 'time or use runs backward' END);
        END IF;
    END LOOP;
    RETURN jsonb_build_object('acks', v_acks, 'rejected', v_rejected);
END $$;

-- Countersigns [{reservation, seq, hash, countersign}] of receipts that are there with that
-- hash; one that has a countersign keeps it. All there are of them: [{reservation, seq,
-- countersign}].
CREATE OR REPLACE FUNCTION api.receipts_signed(p_node bigint, p_list jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v jsonb;
BEGIN
    UPDATE receipt r SET countersign = y->>'countersign'
      FROM jsonb_array_elements(p_list) y
     WHERE r.reservation_id = uuid_of(y->>'reservation') AND r.node_id = p_node AND r.seq = (y->>'seq')::integer
       AND r.hash = decode(y->>'hash', 'hex') AND r.countersign IS NULL;
    SELECT coalesce(jsonb_agg(jsonb_build_object('reservation', r.reservation_id, 'seq', r.seq, 'countersign', r.countersign)
               ORDER BY r.reservation_id, r.seq), '[]')
      INTO v
      FROM jsonb_array_elements(p_list) y
      JOIN receipt r ON r.reservation_id = uuid_of(y->>'reservation') AND r.node_id = p_node AND r.seq = (y->>'seq')::integer
                    AND r.hash = decode(y->>'hash', 'hex');
    RETURN jsonb_build_object('countersigns', v);
END $$;
