-- What the other files share. Instants go in and out as bigint us since the epoch, hashes
-- come out as hex. Refusals are SQLSTATE NGnnn, nnn the number in client/lib/err.h; their
-- text is shown to people.

-- STABLE like the operators in them, or they would not be inlined.
CREATE OR REPLACE FUNCTION ng.ts(us bigint) RETURNS timestamptz
LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$
    SELECT timestamptz '1970-01-01 00:00:00+00' + us * interval '1 microsecond'
$$;
CREATE OR REPLACE FUNCTION ng.us(t timestamptz) RETURNS bigint
LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$
    SELECT (extract(epoch FROM t) * 1000000)::bigint
$$;
CREATE OR REPLACE FUNCTION ng.span(from_us bigint, to_us bigint) RETURNS tstzrange
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT tstzrange(ng.ts(from_us), ng.ts(to_us))
$$;

-- NULL for what is no id; so that keys are compared as such, with their indexes.
CREATE OR REPLACE FUNCTION ng.uuid_of(t text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN t ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN t::uuid END
$$;

CREATE OR REPLACE FUNCTION ng.refuse(code integer, text text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', text USING ERRCODE = 'NG' || lpad(code::text, 3, '0');
END $$;

CREATE OR REPLACE FUNCTION ng.currency() RETURNS text
LANGUAGE sql STABLE AS $$ SELECT currency::text FROM ng.market $$;

-- Replies of creates, kept under the caller's key. idem_old() locks the key until commit,
-- so that of two equal requests at once the second sees the first's reply.
CREATE OR REPLACE FUNCTION ng.idem_old(p_principal text, p_key text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE v ng.idempotency;
BEGIN
    IF p_key IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(p_principal || chr(10) || p_key, 0));
    SELECT * INTO v FROM ng.idempotency WHERE principal = p_principal AND key = p_key;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF v.request_hash <> p_hash THEN
        PERFORM ng.refuse(25, format('idempotency key %s was used with another request', p_key));
    END IF;
    RETURN v.reply || '{"replayed": true}';
END $$;
CREATE OR REPLACE FUNCTION ng.idem_new(p_principal text, p_key text, p_hash bytea, p_reply jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF p_key IS NOT NULL THEN
        INSERT INTO ng.idempotency (principal, key, request_hash, reply)
        VALUES (p_principal, p_key, p_hash, p_reply);
    END IF;
    RETURN p_reply;
END $$;

CREATE OR REPLACE FUNCTION ng.tell(p_kind text, p_tenant uuid, p_reservation uuid, p_node integer,
    p_payload jsonb DEFAULT '{}')
RETURNS void LANGUAGE sql AS $$
    INSERT INTO ng.event (kind, tenant_id, reservation_id, node_id, payload)
    VALUES (p_kind, p_tenant, p_reservation, p_node, p_payload)
$$;

-- What a reservation's events carry: enough for a server to set its calendars right.
-- A booking that blocks nothing has from = to; p_gone: those that are rows no more.
-- spot: firm demand may have it, now; one that was preempted is let be until its end.
CREATE OR REPLACE FUNCTION ng.can_go(r ng.reservation) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT r.spot AND r.preempted_by IS NULL AND r.state IN ('confirmed', 'active')
$$;
DROP FUNCTION IF EXISTS ng.resv_payload(uuid);
CREATE OR REPLACE FUNCTION ng.bookings_payload(p_id uuid) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('booking', b.id, 'node_id', b.node_id,
               'site_id', b.site_id, 'first', lower(b.gpus) - lower(n.gpus),
               'count', upper(b.gpus) - lower(b.gpus), 'from_us', coalesce(ng.us(lower(b.during)), 0),
               'to_us', coalesce(ng.us(upper(b.during)), 0), 'per_gpu_hour_micro', b.per_gpu_hour_micro,
               'notice_us', b.notice_us) ORDER BY b.id), '[]')
      FROM ng.booking b JOIN ng.node n ON n.id = b.node_id WHERE b.reservation_id = p_id
$$;
CREATE OR REPLACE FUNCTION ng.lanes_payload(p_id uuid) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('booking', k.id, 'path_id', k.path_id,
               'first', lower(k.lanes) - lower(p.lanes), 'count', upper(k.lanes) - lower(k.lanes),
               'from_us', coalesce(ng.us(lower(k.during)), 0), 'to_us', coalesce(ng.us(upper(k.during)), 0))
               ORDER BY k.id), '[]')
      FROM ng.path_booking k JOIN ng.path p ON p.id = k.path_id WHERE k.reservation_id = p_id
$$;
-- What is listed so, as blocking nothing.
CREATE OR REPLACE FUNCTION ng.gone(p_list jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_agg(e || '{"from_us": 0, "to_us": 0}' ORDER BY n), '[]')
      FROM jsonb_array_elements(p_list) WITH ORDINALITY AS x(e, n)
$$;
CREATE OR REPLACE FUNCTION ng.resv_payload(p_id uuid, p_gone jsonb, p_gone_lanes jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('state', r.state, 'reason', r.reason, 'generation', r.generation,
               'start_us', ng.us(lower(r.during)), 'end_us', ng.us(upper(r.during)),
               'spot', ng.can_go(r),
               'bookings', p_gone || ng.bookings_payload(r.id), 'lanes', p_gone_lanes || ng.lanes_payload(r.id))
      FROM ng.reservation r WHERE r.id = p_id
$$;
DROP FUNCTION IF EXISTS ng.tell_resv(text, uuid);
CREATE OR REPLACE FUNCTION ng.tell_resv(p_kind text, p_id uuid, p_gone jsonb DEFAULT '[]', p_gone_lanes jsonb DEFAULT '[]')
RETURNS void LANGUAGE sql AS $$
    INSERT INTO ng.event (kind, tenant_id, reservation_id, payload)
    SELECT p_kind, r.tenant_id, r.id, ng.resv_payload(r.id, p_gone, p_gone_lanes) FROM ng.reservation r WHERE r.id = p_id
$$;

-- The GPUs of a booking as they were when it began.
CREATE OR REPLACE FUNCTION ng.booking_gpus(p_gpus int4range, p_from timestamptz) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(coalesce(w.uuid, g.uuid) ORDER BY i) FILTER (WHERE coalesce(w.uuid, g.uuid) IS NOT NULL), '[]')
      FROM generate_series(lower(p_gpus), upper(p_gpus) - 1) i
      LEFT JOIN ng.gpu g ON g.no = i
      LEFT JOIN LATERAL (SELECT x.uuid FROM ng.gpu_past x WHERE x.no = i AND x.until > p_from
                          ORDER BY x.until LIMIT 1) w ON true
$$;

-- The reservation as the API shows it, before times and money are formatted.
CREATE OR REPLACE FUNCTION ng.resv_json(r ng.reservation) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', r.id, 'tenant', (SELECT name FROM ng.tenant WHERE id = r.tenant_id),
        'tenant_id', r.tenant_id, 'state', r.state, 'reason', r.reason, 'created_us', ng.us(r.created_at),
        'start_us', CASE WHEN k.count > 0 THEN ng.us(lower(r.during)) END,
        'end_us', CASE WHEN k.count > 0 THEN ng.us(upper(r.during)) END, 'ended_us', ng.us(r.ended_at),
        'hold_until_us', CASE WHEN r.state = 'held' THEN ng.us(r.hold_until) END,
        'data', r.data, 'currency', r.currency, 'per_hour_micro', r.per_hour_micro,
        'total_micro', r.total_micro, 'effective_micro', r.effective_micro, 'held_micro', r.held_micro,
        'paid_until_us', CASE WHEN k.count > 0 THEN ng.us(coalesce(r.paid_until, upper(r.during))) END, 'funds_low_us', ng.us(r.funds_low_at),
        'captured_micro', r.captured_micro, 'released_micro', r.released_micro, 'spot', r.spot,
        'generation', r.generation, 'quote_id', r.quote_id, 'idem_hash', encode(r.idem_hash, 'hex'),
        'request', r.request)
    || jsonb_build_object('fault', r.fault, 'preempted_by', r.preempted_by, 'groups', r.groups,
        'coordinator', r.coordinator,
        'nodes', CASE WHEN k.count > 0 THEN k.count ELSE coalesce((r.request->>'nodes')::bigint, 1) END,
        'allocations', k.list,
        'paths', (SELECT coalesce(jsonb_agg(jsonb_build_object('booking', x.id, 'path_id', x.path_id, 'name', p.name,
                'from', a.name, 'to', z.name, 'first', lower(x.lanes) - lower(p.lanes),
                'lanes', upper(x.lanes) - lower(x.lanes),
                'bandwidth_Bps', (upper(x.lanes) - lower(x.lanes)) * p.lane_bytes_s,
                'start_us', ng.us(coalesce(lower(x.during), lower(r.during))),
                'end_us', ng.us(coalesce(upper(x.during), upper(r.during))), 'state', x.state, 'error', x.error,
                'per_lane_hour_micro', x.per_lane_hour_micro) ORDER BY x.id), '[]')
            FROM ng.path_booking x JOIN ng.path p ON p.id = x.path_id
            JOIN ng.site a ON a.id = p.site_a JOIN ng.site z ON z.id = p.site_b
           WHERE x.reservation_id = r.id -- not what it had before it moved
             AND NOT (isempty(x.during) AND r.state IN ('waiting', 'held', 'confirmed', 'active'))),
        'waiting', (SELECT jsonb_build_object('position', w.position, 'predicted_us', ng.us(w.predicted_at),
                'since_us', ng.us(r.created_at), 'until_us', ng.us(w.until), 'priority', t.priority, 'why', w.why)
            FROM ng.waiting w JOIN ng.tenant t ON t.id = r.tenant_id
           WHERE w.reservation_id = r.id AND r.state = 'waiting'))
      FROM (
        SELECT count(*), coalesce(jsonb_agg(jsonb_build_object('booking', b.id, 'node_id', b.node_id,
                'site_id', b.site_id, 'site', s.name, 'zone', s.zone, 'rank', b.rank,
                'provider', p.name, 'node', n.name, 'address', n.address, 'ssh', n.ssh, 'spiffe_id', n.spiffe_id,
                'first', lower(b.gpus) - lower(n.gpus), 'count', upper(b.gpus) - lower(b.gpus),
                'gpus', ng.booking_gpus(b.gpus, coalesce(lower(b.during), r.created_at)),
                'start_us', ng.us(coalesce(lower(b.during), lower(r.during))),
                'end_us', ng.us(coalesce(upper(b.during), upper(r.during))), 'epoch', b.epoch,
                'notice_us', b.notice_us, 'per_gpu_hour_micro', b.per_gpu_hour_micro) ORDER BY b.id), '[]') AS list
          FROM (SELECT *, row_number() OVER (ORDER BY id) - 1 AS rank FROM ng.booking WHERE reservation_id = r.id) b
          JOIN ng.node n ON n.id = b.node_id JOIN ng.site s ON s.id = b.site_id
          JOIN ng.provider p ON p.id = n.provider_id) k
$$;

-- A page is fetched with one row more than asked for, to know whether there is a next;
-- each row carries its place as _key, which is not shown.
CREATE OR REPLACE FUNCTION ng.page(p_name text, p_rows jsonb, p_limit bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object(p_name, coalesce(jsonb_agg(e - '_key' ORDER BY n) FILTER (WHERE n <= p_limit), '[]'),
               'next', CASE WHEN count(*) > p_limit THEN max(e->>'_key') FILTER (WHERE n = p_limit) END)
      FROM jsonb_array_elements(coalesce(p_rows, '[]')) WITH ORDINALITY AS x(e, n)
$$;
