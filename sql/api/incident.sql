-- Outages as they happen, and the terms of what is credited for them. A node that is lost
-- while leases run on it is an incident from when it was last heard of until it is heard of
-- again; their tenants and its provider are told. What is credited follows when each lease
-- is billed to its end (api.billing_sla), from what its receipts say.

CREATE OR REPLACE FUNCTION ng.incident_tell(i ng.incident, p_kind text) RETURNS void
LANGUAGE sql AS $$
    SELECT ng.tell(p_kind, r.tenant_id, r.id, i.node_id, jsonb_build_object('incident', i.id, 'from_us', ng.us(i.from_at),
               'to_us', ng.us(i.to_at), 'reason', i.reason))
      FROM ng.reservation r
     WHERE r.id IN (SELECT b.reservation_id FROM ng.booking b
                     WHERE b.node_id = i.node_id AND b.during && tstzrange(i.from_at, i.to_at, '[]'))
       AND r.state = 'active' AND r.during && tstzrange(i.from_at, i.to_at, '[]')
     ORDER BY r.id
$$;
CREATE OR REPLACE FUNCTION ng.node_outage() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_since timestamptz := coalesce(NEW.last_sync_at, clock_timestamp());
    i incident;
BEGIN
    IF NEW.state = 'lost' THEN
        INSERT INTO incident (what, node_id, fault, from_at, reason, opened_by)
        SELECT 'node', NEW.id, 'provider', v_since, format('node %s at %s has not been heard of since %s', NEW.name, s.name, time_text(v_since)), 'market'
          FROM site s
         WHERE s.id = NEW.site_id
           AND EXISTS (SELECT FROM booking b JOIN reservation r ON r.id = b.reservation_id
                        WHERE b.node_id = NEW.id AND upper(b.during) > v_since AND r.state = 'active' AND upper(r.during) > v_since)
        ON CONFLICT DO NOTHING RETURNING * INTO i;
        IF FOUND THEN
            PERFORM incident_tell(i, 'incident.opened');
        END IF;
    ELSE
        UPDATE incident SET to_at = greatest(from_at, v_since), closed_by = 'market'
         WHERE node_id = NEW.id AND to_at IS NULL AND opened_by = 'market' AND reservation_id IS NULL RETURNING * INTO i;
        IF FOUND THEN
            PERFORM incident_tell(i, 'incident.closed');
        END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER outage AFTER UPDATE OF state ON ng.node
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state AND 'lost' IN (OLD.state, NEW.state)) EXECUTE FUNCTION ng.node_outage();

-- The outage of a node that a lease was in, if the market saw one.
CREATE OR REPLACE FUNCTION ng.outage_of(p_node integer, p_since timestamptz, p_until timestamptz) RETURNS ng.incident
LANGUAGE sql STABLE AS $$
    SELECT i FROM ng.incident i
     WHERE i.node_id = p_node AND i.opened_by = 'market' AND i.reservation_id IS NULL
       AND i.from_at < p_until AND coalesce(i.to_at, 'infinity') > p_since
     ORDER BY coalesce(i.to_at, 'infinity') - i.from_at DESC, i.id LIMIT 1
$$;

-- Whether an incident is about what somebody had booked then (p_tenant), or has (p_provider).
CREATE OR REPLACE FUNCTION ng.incident_hits(i ng.incident, p_tenant uuid, p_provider uuid) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN p_provider IS NOT NULL THEN i.what = 'platform' OR i.provider_id = p_provider
            OR EXISTS (SELECT FROM ng.node n WHERE n.provider_id = p_provider AND (n.id = i.node_id OR n.site_id = i.site_id))
            OR EXISTS (SELECT FROM ng.path p WHERE p.provider_id = p_provider AND p.id = i.path_id)
        ELSE EXISTS (
            SELECT FROM ng.reservation r
             WHERE r.tenant_id = p_tenant AND r.state NOT IN ('waiting', 'held')
               AND r.during && tstzrange(i.from_at, coalesce(i.to_at, greatest(i.from_at, clock_timestamp())), '[]') -- so far
               AND coalesce(r.ended_at, 'infinity') > i.from_at
               AND (i.what = 'platform' OR EXISTS (
                    SELECT FROM ng.booking b JOIN ng.node n ON n.id = b.node_id
                     WHERE b.reservation_id = r.id AND (n.id = i.node_id OR n.site_id = i.site_id OR n.provider_id = i.provider_id))
                 OR EXISTS (SELECT FROM ng.path_booking k JOIN ng.path p ON p.id = k.path_id
                             WHERE k.reservation_id = r.id AND (p.id = i.path_id OR p.provider_id = i.provider_id))))
        END
$$;
-- All of them for an administrator (both null); a tenant is not told what others were credited.
DROP FUNCTION IF EXISTS api.incident_list(text, bigint);
CREATE OR REPLACE FUNCTION api.incident_list(p_tenant uuid, p_provider uuid, p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT page('incidents', (SELECT jsonb_agg(incident_json(i)
               || CASE WHEN p_tenant IS NULL THEN '{}'
                       ELSE (SELECT jsonb_build_object('credits', count(*), 'credited_micro', coalesce(sum(c.amount_micro), 0))
                               FROM sla_credit c JOIN reservation r ON r.id = c.reservation_id
                              WHERE c.incident_id = i.id AND r.tenant_id = p_tenant) END
               || jsonb_build_object('_key', lpad(i.id::text, 18, '0')) ORDER BY i.id DESC)
        FROM (SELECT x.* FROM incident x
               WHERE (p_cursor IS NULL OR x.id < p_cursor::bigint)
                 AND (p_tenant IS NULL AND p_provider IS NULL OR incident_hits(x, p_tenant, p_provider))
               ORDER BY x.id DESC LIMIT p_limit + 1) i), p_limit)
$$;

-- ---- terms ----

CREATE OR REPLACE FUNCTION api.sla_terms() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('terms', coalesce(jsonb_agg(jsonb_build_object('share_ppm', share_ppm,
        'gap_s', extract(epoch FROM gap)::bigint, 'credit_ppm', credit_ppm) ORDER BY share_ppm), '[]')) FROM sla_terms
$$;
-- All of them at once; for leases that are billed to their end from now on.
CREATE OR REPLACE FUNCTION api.sla_terms_set(p_body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v jsonb;
    n integer := 0;
BEGIN
    PERFORM body_only(p_body, 'terms');
    IF jsonb_typeof(p_body->'terms') IS DISTINCT FROM 'array' OR jsonb_array_length(p_body->'terms') > 20 THEN
        PERFORM refuse(20, '/terms: a list of at most 20');
    END IF;
    LOCK TABLE sla_terms IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM sla_terms;
    FOR v IN SELECT * FROM jsonb_array_elements(p_body->'terms') LOOP
        PERFORM body_only(v, 'share_ppm', 'gap_s', 'credit_ppm');
        IF coalesce(body_int(v, 'share_ppm') NOT BETWEEN 1 AND 1000000, true) OR coalesce(body_int(v, 'credit_ppm') NOT BETWEEN 1 AND 1000000, true)
            OR coalesce(body_int(v, 'gap_s') NOT BETWEEN 1 AND 2678400, true) THEN
            PERFORM refuse(20, format('/terms/%s: share_ppm and credit_ppm are 1 to 1000000, gap_s one second to 31 days', n));
        END IF;
        BEGIN
            INSERT INTO sla_terms VALUES ((v->>'share_ppm')::integer, make_interval(secs => (v->>'gap_s')::bigint), (v->>'credit_ppm')::integer);
        EXCEPTION WHEN unique_violation THEN
            PERFORM refuse(20, format('/terms/%s: a share of the time is there once', n));
        WHEN check_violation THEN
            PERFORM refuse(20, format('/terms/%s: a longer outage is not credited less: %s', n, sqlerrm));
        END;
        n := n + 1;
    END LOOP;
    RETURN api.sla_terms();
END $$;
