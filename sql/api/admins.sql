-- Administrators by name. One alone cannot make a second person to approve what he asks for:
-- who is made by one waits for another's yes. Only where there is nobody to ask, the first
-- one makes the second by himself; one who was removed counts for a week more, so that to
-- remove the other and to make a third does not get round it unseen.

CREATE OR REPLACE FUNCTION ng.admin_grace() RETURNS interval
LANGUAGE sql IMMUTABLE AS $$ SELECT interval '7 days' $$;
-- Until when another than p_who counts as an administrator; null: there is nobody.
CREATE OR REPLACE FUNCTION ng.admin_others(p_who text) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT max(coalesce(revoked_at + ng.admin_grace(), 'infinity')) FROM ng.api_key
     WHERE role = 'admin' AND NOT pending AND label <> p_who AND (revoked_at IS NULL OR revoked_at > now() - ng.admin_grace())
$$;

DROP FUNCTION IF EXISTS api.admin_create(text, bytea, text, text, bytea);
CREATE OR REPLACE FUNCTION api.admin_create(p_name text, p_key_hash bytea, p_principal text, p_idem text, p_hash bytea, p_who text)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_id uuid;
    v_alone boolean;
BEGIN
    IF idem_old(p_principal, p_idem, p_hash) IS NOT NULL THEN
        PERFORM refuse(6, format('an administrator named %s was made by this request: remove it and begin anew', p_name));
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('neargpu.admins'));
    v_alone := admin_others(p_who) IS NULL;
    BEGIN
        INSERT INTO api_key (hash, role, label, made_by, alone, pending) VALUES (p_key_hash, 'admin', p_name::slug, p_who, v_alone, NOT v_alone)
        RETURNING id INTO v_id;
    EXCEPTION WHEN unique_violation THEN
        PERFORM refuse(6, format('an administrator named %s is there already', p_name));
    END;
    PERFORM tell('key.changed', NULL, NULL, NULL);
    RETURN idem_new(p_principal, p_idem, p_hash, jsonb_build_object('id', v_id, 'name', p_name, 'made_by', p_who,
        'pending', NOT v_alone, 'alone', v_alone));
END $$;

CREATE OR REPLACE FUNCTION ng.admin_json(k ng.api_key) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('name', k.label, 'id', k.id, 'created_us', ng.us(k.created_at), 'pending', k.pending, 'alone', k.alone,
        'made_by', k.made_by, 'approved_by', k.approved_by, 'approved_us', ng.us(k.approved_at))
$$;
CREATE OR REPLACE FUNCTION api.admin_list() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object('admins', coalesce(jsonb_agg(admin_json(k) ORDER BY label), '[]'))
      FROM api_key k WHERE role = 'admin' AND revoked_at IS NULL
$$;

CREATE OR REPLACE FUNCTION api.admin_approve(p_name text, p_who text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v api_key;
    v_others timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('neargpu.admins'));
    SELECT * INTO v FROM api_key WHERE role = 'admin' AND label = p_name AND revoked_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('no administrator is named %s', left(p_name, 60)));
    ELSIF NOT v.pending THEN
        RETURN admin_json(v);
    ELSIF v.made_by <> p_who THEN
        UPDATE api_key SET pending = false, approved_by = p_who, approved_at = clock_timestamp() WHERE id = v.id RETURNING * INTO v;
    ELSE
        v_others := admin_others(p_who);
        IF v_others < 'infinity' THEN
            PERFORM refuse(4, format('%s was made by you, and another administrator was removed this week: remove it, and make it again after %s UTC',
                p_name, to_char(v_others AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')));
        END IF;
        PERFORM refuse(4, format('%s was made by you: another administrator approves', p_name));
    END IF;
    PERFORM tell('key.changed', NULL, NULL, NULL);
    RETURN admin_json(v);
END $$;

-- Never the last one; one that waits is turned down with it.
CREATE OR REPLACE FUNCTION api.admin_remove(p_name text, p_who text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('neargpu.admins'));
    IF p_name = p_who THEN
        PERFORM refuse(6, 'nobody removes himself: ask another administrator');
    END IF;
    UPDATE api_key SET revoked_at = now() WHERE role = 'admin' AND label = p_name AND revoked_at IS NULL;
    IF NOT FOUND THEN
        PERFORM refuse(5, format('no administrator is named %s', left(p_name, 60)));
    END IF;
    PERFORM tell('key.changed', NULL, NULL, NULL);
    RETURN '{}';
END $$;

-- Made alone while another was there, or counted for a week more.
CREATE OR REPLACE VIEW report.check_admins AS
    SELECT k.label AS admin, k.made_by, k.created_at, o.label AS other
      FROM ng.api_key k
      JOIN ng.api_key o ON o.role = 'admin' AND o.id <> k.id AND o.label <> k.made_by AND NOT o.pending
       AND coalesce(o.approved_at, o.created_at) < k.created_at
       AND (o.revoked_at IS NULL OR o.revoked_at > k.created_at - interval '7 days') -- ng.admin_grace(), which its readers may not call
     WHERE k.alone;
