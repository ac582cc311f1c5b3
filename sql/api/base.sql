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

-- What a reservation's events carry: enough for a server to set its calendar right.
-- A booking that blocks nothing has from = to.
CREATE OR REPLACE FUNCTION ng.resv_payload(p_id uuid) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('state', r.state, 'reason', r.reason, 'generation', r.generation,
               'start_us', ng.us(lower(r.during)), 'end_us', ng.us(upper(r.during)),
               'bookings', (SELECT jsonb_agg(jsonb_build_object('booking', b.id, 'node_id', b.node_id,
                       'site_id', b.site_id, 'first', lower(b.gpus) - lower(n.gpus),
                       'count', upper(b.gpus) - lower(b.gpus),
                       'from_us', coalesce(ng.us(lower(b.during)), 0),
                       'to_us', coalesce(ng.us(upper(b.during)), 0)) ORDER BY b.id)
                   FROM ng.booking b JOIN ng.node n ON n.id = b.node_id WHERE b.reservation_id = r.id))
      FROM ng.reservation r WHERE r.id = p_id
$$;
CREATE OR REPLACE FUNCTION ng.tell_resv(p_kind text, p_id uuid) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO ng.event (kind, tenant_id, reservation_id, payload)
    SELECT p_kind, r.tenant_id, r.id, ng.resv_payload(r.id) FROM ng.reservation r WHERE r.id = p_id
$$;

-- The reservation as the API shows it, before times and money are formatted.
CREATE OR REPLACE FUNCTION ng.resv_json(r ng.reservation) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('id', r.id, 'tenant', (SELECT name FROM ng.tenant WHERE id = r.tenant_id),
        'tenant_id', r.tenant_id, 'state', r.state, 'reason', r.reason, 'created_us', ng.us(r.created_at),
        'start_us', ng.us(lower(r.during)), 'end_us', ng.us(upper(r.during)), 'ended_us', ng.us(r.ended_at),
        'data', r.data, 'currency', r.currency, 'per_hour_micro', r.per_hour_micro,
        'total_micro', r.total_micro, 'effective_micro', r.effective_micro, 'held_micro', r.held_micro,
        'captured_micro', r.captured_micro, 'released_micro', r.released_micro, 'spot', r.spot,
        'generation', r.generation, 'quote_id', r.quote_id, 'idem_hash', encode(r.idem_hash, 'hex'),
        'request', r.request)
    || jsonb_build_object('allocations', (
        SELECT coalesce(jsonb_agg(jsonb_build_object('booking', b.id, 'node_id', b.node_id, 'site', s.name,
                'provider', p.name, 'node', n.name, 'address', n.address, 'spiffe_id', n.spiffe_id,
                'first', lower(b.gpus) - lower(n.gpus), 'count', upper(b.gpus) - lower(b.gpus),
                'gpus', (SELECT coalesce(jsonb_agg(g.uuid ORDER BY g.no), '[]') FROM ng.gpu g
                          WHERE g.no >= lower(b.gpus) AND g.no < upper(b.gpus)),
                'start_us', ng.us(coalesce(lower(b.during), lower(r.during))),
                'end_us', ng.us(coalesce(upper(b.during), upper(r.during))),
                'epoch', b.epoch, 'per_gpu_hour_micro', b.per_gpu_hour_micro) ORDER BY b.id), '[]')
          FROM ng.booking b JOIN ng.node n ON n.id = b.node_id JOIN ng.site s ON s.id = b.site_id
          JOIN ng.provider p ON p.id = n.provider_id
         WHERE b.reservation_id = r.id))
$$;

-- A page is fetched with one row more than asked for, to know whether there is a next;
-- each row carries its place as _key, which is not shown.
CREATE OR REPLACE FUNCTION ng.page(p_name text, p_rows jsonb, p_limit bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object(p_name, coalesce(jsonb_agg(e - '_key' ORDER BY n) FILTER (WHERE n <= p_limit), '[]'),
               'next', CASE WHEN count(*) > p_limit THEN max(e->>'_key') FILTER (WHERE n = p_limit) END)
      FROM jsonb_array_elements(coalesce(p_rows, '[]')) WITH ORDINALITY AS x(e, n)
$$;
