-- A tenant's keys.
CREATE OR REPLACE FUNCTION ng.tenant_key_json(k ng.tenant_key) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('jkt', k.jkt, 'key', k.ssh, 'name', k.name, 'created_us', ng.us(k.created_at))
$$;

-- At most 16: a node is told all of them with each lease.
CREATE OR REPLACE FUNCTION api.tenant_key_add(p_tenant uuid, p_jkt text, p_ssh text, p_name text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v tenant_key;
BEGIN
    PERFORM 1 FROM tenant WHERE id = p_tenant FOR UPDATE;
    SELECT * INTO v FROM tenant_key WHERE tenant_id = p_tenant AND jkt = p_jkt AND removed_at IS NULL;
    IF FOUND THEN
        RETURN tenant_key_json(v);
    END IF;
    IF (SELECT count(*) FROM tenant_key WHERE tenant_id = p_tenant AND removed_at IS NULL) >= 16 THEN
        PERFORM refuse(30, 'a tenant has at most 16 keys: remove one first');
    END IF;
    INSERT INTO tenant_key (tenant_id, jkt, ssh, name) VALUES (p_tenant, p_jkt, p_ssh, p_name) RETURNING * INTO v;
    RETURN tenant_key_json(v);
END $$;

CREATE OR REPLACE FUNCTION api.tenant_key_list(p_tenant uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('keys', coalesce(jsonb_agg(tenant_key_json(k) ORDER BY k.created_at, k.jkt), '[]'))
      FROM tenant_key k WHERE k.tenant_id = p_tenant AND k.removed_at IS NULL
$$;

CREATE OR REPLACE FUNCTION api.tenant_key_remove(p_tenant uuid, p_jkt text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    UPDATE tenant_key SET removed_at = now() WHERE tenant_id = p_tenant AND jkt = p_jkt AND removed_at IS NULL;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('you have no key %s', left(p_jkt, 60)));
    END IF;
    RETURN '{}';
END $$;

-- What a node is told of a lease's tenant: OpenSSH texts.
CREATE OR REPLACE FUNCTION ng.tenant_holders(p_tenant uuid) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(ssh || ' ' || name ORDER BY created_at, jkt), '[]')
      FROM ng.tenant_key WHERE tenant_id = p_tenant AND removed_at IS NULL
$$;
