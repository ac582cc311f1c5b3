-- Who did what to which object, from where, and what became of it: every request that may
-- change something, and every one that was refused for want of a right. Written after the
-- answer, in batches; never a body, a header or a query, so that no secret is in it.
CREATE TABLE ng.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,      -- tenant:NAME, provider:NAME, admin:NAME, agent:SPIFFE id, anonymous
    address text NOT NULL,    -- peer's
    method text NOT NULL,
    path text NOT NULL,       -- names the object
    status integer NOT NULL,  -- HTTP status
    request_id text NOT NULL
);
CREATE INDEX audit_actor ON ng.audit (actor, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON ng.audit
    FOR EACH ROW EXECUTE FUNCTION ng.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON ng.audit
    FOR EACH STATEMENT EXECUTE FUNCTION ng.refuse_change();
