-- The audit log (sql/migrations/0005_audit.sql): added to, and read.
CREATE OR REPLACE FUNCTION api.audit_put(p_rows jsonb) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    INSERT INTO audit (at, actor, address, method, path, status, request_id)
    SELECT ts((r->>'at_us')::bigint), r->>'actor', r->>'address', r->>'method', r->>'path', (r->>'status')::integer, r->>'request_id'
      FROM jsonb_array_elements(p_rows) r;
    SELECT '{}'::jsonb
$$;

-- Newest first. p_scope: an actor that sees its own only; null: all. p_action begins
-- "METHOD /path", p_object is part of a path.
CREATE OR REPLACE FUNCTION api.audit_list(p_scope text, p_from bigint, p_to bigint, p_actor text, p_action text, p_object text,
    p_cursor text, p_limit bigint)
RETURNS jsonb LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    IF p_cursor !~ '^[0-9]{1,18}$' THEN
        PERFORM refuse(20, 'cursor: is not one that a reply gave as `next`');
    END IF;
    RETURN page('audit', (SELECT jsonb_agg(jsonb_build_object('_key', a.id::text, 'at_us', us(a.at), 'actor', a.actor,
            'address', a.address, 'action', a.method || ' ' || a.path, 'status', a.status, 'request_id', a.request_id) ORDER BY a.id DESC)
        FROM (SELECT * FROM audit
               WHERE (p_scope IS NULL OR actor = p_scope) AND (p_actor IS NULL OR actor = p_actor)
                 AND (p_from IS NULL OR at >= ts(p_from)) AND (p_to IS NULL OR at < ts(p_to))
                 AND (p_action IS NULL OR starts_with(method || ' ' || path, p_action))
                 AND (p_object IS NULL OR strpos(path, p_object) > 0)
                 AND (p_cursor IS NULL OR id < p_cursor::bigint)
               ORDER BY id DESC LIMIT p_limit + 1) a), p_limit);
END $$;
