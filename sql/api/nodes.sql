-- Who speaks as a node. A certificate says which node it is, not how many hold it: a copied
-- disk, a snapshot started twice and a stolen key all have it.
--
-- A speaker is (instance, run, boot): the enrolment's random name, the number of the agent's
-- run, the machine's boot. The speaker heard last is in ng.node, those before it in
-- ng.node_speaker.
--   * Another speaker takes the place of the one before. An agent that starts anew, a reboot,
--     a disk put back from a backup: each is a new speaker, and the old one is never heard again.
--   * One that had its place taken and is heard again, with a higher number than it had, has
--     returned. One return may be a request that was held up on its way; at its second return
--     within the life of a certificate both have gone on after each other: cloned. One whose
--     number is not higher was held up: it is answered, and changes nothing.
--   * Copies that are the same speaker (a machine's memory, or one disk twice within one
--     boot) draw their numbers apart: the agent's grow within a boot. The same number or a
--     lower one is a repeat; four within an hour: cloned. The same request, done twice after
--     a lost database connection, has the time it had and is none.
--   * An agent that names no instance is not judged.
-- A cloned node is refused on sync (so it starts nothing) until it is enrolled anew; its
-- certificate and what is remembered of its speakers end with that. What runs goes on.
-- A banned node is refused as well, its leases are revoked (flow_outage), and nothing but
-- the end of the ban helps. Receipts are taken from both: they are evidence, a node's chain
-- has place for one only, and what is paid is bounded by the booking and the hold.

-- As people and servers are told it: nothing is offered but what is 'up'.
CREATE OR REPLACE FUNCTION ng.node_state(n ng.node) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN n.state = 'retired' THEN n.state WHEN n.banned_at IS NOT NULL THEN 'banned'
                WHEN n.cloned_at IS NOT NULL THEN 'cloned' ELSE n.state END
$$;

CREATE OR REPLACE FUNCTION ng.cert_life() RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '24 hours' $$;
CREATE OR REPLACE FUNCTION ng.speakers_max() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 100 $$;

-- The one before, kept; those too old to matter, and more than are of use, forgotten.
CREATE OR REPLACE FUNCTION ng.speaker_keep(n ng.node, p_now timestamptz) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO ng.node_speaker AS s (node_id, instance, run, boot_id, seq, heard_at)
    VALUES (n.id, n.instance, n.run, n.boot_id, n.seq, coalesce(n.last_sync_at, p_now))
    ON CONFLICT (node_id, instance, run, boot_id) DO UPDATE SET seq = greatest(s.seq, excluded.seq), heard_at = excluded.heard_at;
    DELETE FROM ng.node_speaker WHERE node_id = n.id AND heard_at < p_now - ng.cert_life();
    DELETE FROM ng.node_speaker WHERE node_id = n.id AND ctid IN (SELECT ctid FROM ng.node_speaker
        WHERE node_id = n.id ORDER BY heard_at DESC OFFSET ng.speakers_max())
$$;

-- A sync is heard. Its outcome: 'ok', 'late' (held up: to be answered, not taken), 'cloned'.
-- The node's row is locked by the caller, who writes ret_node's columns of the speaker.
CREATE OR REPLACE FUNCTION ng.node_hear(n ng.node, p_agent jsonb, p_now timestamptz, OUT ret_node ng.node, OUT outcome text)
LANGUAGE plpgsql AS $$
DECLARE
    v_name text[] := regexp_match(p_agent->>'instance', '^([0-9a-f]{32})\.([0-9]{1,18})$');
    v_boot text := coalesce(p_agent->>'boot_id', '');
    v_seq bigint := coalesce((p_agent->>'seq')::bigint, 0);
    v_back ng.node_speaker;
BEGIN
    ret_node := n;
    outcome := 'ok';
    IF p_agent->>'instance' IS NULL THEN
        RETURN;
    ELSIF v_name IS NULL THEN
        PERFORM ng.refuse(20, '/agent/instance: 32 hex digits, a point and a number were expected');
    END IF;
    IF n.instance = v_name[1] AND n.run = v_name[2]::bigint AND n.boot_id = v_boot THEN
        IF v_seq <= n.seq AND NOT (v_seq = n.seq AND p_now IS NOT DISTINCT FROM n.last_sync_at) THEN
            ret_node.repeats := CASE WHEN n.repeated_at > p_now - interval '1 hour' THEN n.repeats + 1 ELSE 1 END;
            ret_node.repeated_at := p_now;
            outcome := CASE WHEN ret_node.repeats >= 4 THEN 'cloned' ELSE 'ok' END;
        END IF;
        ret_node.seq := greatest(n.seq, v_seq);
        RETURN;
    END IF;
    SELECT * INTO v_back FROM ng.node_speaker WHERE node_id = n.id AND instance = v_name[1]
       AND run = v_name[2]::bigint AND boot_id = v_boot AND heard_at > p_now - ng.cert_life();
    IF FOUND AND v_seq <= v_back.seq THEN
        outcome := 'late';
        RETURN;
    END IF;
    IF FOUND THEN
        UPDATE ng.node_speaker SET returns = returns + 1 WHERE node_id = n.id AND instance = v_name[1]
           AND run = v_name[2]::bigint AND boot_id = v_boot;
        outcome := CASE WHEN v_back.returns + 1 >= 2 THEN 'cloned' ELSE 'ok' END;
    END IF;
    IF n.instance IS NOT NULL THEN
        PERFORM ng.speaker_keep(n, p_now);
    END IF;
    ret_node.instance := v_name[1];
    ret_node.run := v_name[2]::bigint;
    ret_node.boot_id := v_boot;
    ret_node.seq := v_seq;
    ret_node.repeats := 0;
    ret_node.repeated_at := NULL;
END $$;

-- Why a node is not spoken with: null: it is.
CREATE OR REPLACE FUNCTION ng.node_refusal(n ng.node) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE WHEN n.banned_at IS NOT NULL THEN jsonb_build_object('refused', 'banned',
                    'detail', format('this node was banned from the market at %s: %s; its leases are revoked. Ask the market''s administrator',
                                     ng.time_text(n.banned_at), n.banned_why))
                WHEN n.cloned_at IS NOT NULL THEN jsonb_build_object('refused', 'cloned',
                    'detail', format('since %s two agents go on with the identity of this node, and the market speaks with neither; what runs goes on. '
                                     'Stop the one that is not meant, run `neargpu provider reattest %s`, and enrol the other with its code',
                                     ng.time_text(n.cloned_at), n.name)) END;
END $$;

CREATE OR REPLACE FUNCTION ng.node_cloned(n ng.node, p_now timestamptz) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ng.node SET cloned_at = p_now WHERE id = n.id RETURNING * INTO n;
    PERFORM ng.tell('node.changed', NULL, NULL, n.id);
    PERFORM ng.tell('node.cloned', NULL, NULL, n.id, jsonb_build_object('node', n.name,
        'site', (SELECT name FROM ng.site WHERE id = n.site_id)));
    RETURN ng.node_refusal(n);
END $$;

-- The same node from another address is noted, not refused: machines are carried about and
-- providers of access change. Once an hour at most.
CREATE OR REPLACE FUNCTION ng.node_from(n ng.node, p_peer text, p_now timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(p_peer, '') IN ('', n.peer) THEN
        RETURN;
    END IF;
    IF n.peer <> '' AND coalesce(n.moved_at < p_now - interval '1 hour', true) THEN
        UPDATE ng.node SET peer = p_peer, moved_at = p_now WHERE id = n.id;
        PERFORM ng.tell('node.moved', NULL, NULL, n.id, jsonb_build_object('node', n.name,
            'site', (SELECT name FROM ng.site WHERE id = n.site_id), 'from', n.peer, 'to', p_peer));
    ELSE
        UPDATE ng.node SET peer = p_peer WHERE id = n.id;
    END IF;
END $$;

-- p_provider null: any's. A name is good without its site when only one site has it.
CREATE OR REPLACE FUNCTION ng.node_named(p_provider uuid, p_name text, p_site text) RETURNS ng.node
LANGUAGE plpgsql AS $$
DECLARE
    v integer[];
    n ng.node;
BEGIN
    v := ARRAY(SELECT x.id FROM ng.node x JOIN ng.site s ON s.id = x.site_id
                WHERE x.name = p_name AND (p_site IS NULL OR s.name = p_site)
                  AND (p_provider IS NULL OR x.provider_id = p_provider));
    IF cardinality(v) = 0 THEN
        PERFORM ng.refuse(5, CASE WHEN p_site IS NULL THEN format('there is no node %s', p_name)
                                  ELSE format('there is no node %s at %s', p_name, p_site) END);
    ELSIF cardinality(v) > 1 THEN
        PERFORM ng.refuse(6, format('%s sites have a node %s: say which with site', cardinality(v), p_name));
    END IF;
    SELECT * INTO n FROM ng.node WHERE id = v[1] FOR NO KEY UPDATE;
    RETURN n;
END $$;

CREATE OR REPLACE FUNCTION ng.node_ban_json(n ng.node) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('node_id', n.id, 'node', n.name, 'site', (SELECT name FROM ng.site WHERE id = n.site_id),
        'state', ng.node_state(n), 'reason', n.banned_why, 'banned_us', ng.us(n.banned_at), 'banned_by', n.banned_by)
$$;

-- Repeating changes nothing: the first reason stays.
CREATE OR REPLACE FUNCTION api.node_ban(p_name text, p_site text, p_reason text, p_by text, p_now bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE n node := node_named(NULL, p_name, p_site);
BEGIN
    IF n.banned_at IS NULL THEN
        UPDATE node SET banned_at = ts(p_now), banned_why = p_reason, banned_by = p_by WHERE id = n.id RETURNING * INTO n;
        PERFORM tell('node.changed', NULL, NULL, n.id);
        PERFORM tell('node.banned', NULL, NULL, n.id, node_ban_json(n) - 'node_id' - 'banned_us');
    END IF;
    RETURN node_ban_json(n);
END $$;

CREATE OR REPLACE FUNCTION api.node_unban(p_name text, p_site text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE n node := node_named(NULL, p_name, p_site);
BEGIN
    IF n.banned_at IS NOT NULL THEN
        UPDATE node SET banned_at = NULL, banned_why = NULL, banned_by = NULL WHERE id = n.id RETURNING * INTO n;
        PERFORM tell('node.changed', NULL, NULL, n.id);
        PERFORM tell('node.unbanned', NULL, NULL, n.id, jsonb_build_object('node', n.name,
            'site', (SELECT name FROM site WHERE id = n.site_id)));
    END IF;
    RETURN node_ban_json(n);
END $$;

-- A join code for a node that is there. Its site and name bind it; enrolling with it keeps
-- the node's number, leases and bookings.
CREATE OR REPLACE FUNCTION api.node_reattest(p_provider uuid, p_name text, p_site text, p_code_hash bytea,
    p_expires bigint, p_principal text, p_idem text, p_hash bytea)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE n node := node_named(p_provider, p_name, p_site);
BEGIN
    IF n.banned_at IS NOT NULL THEN
        PERFORM refuse(32, format('node %s is banned: %s', n.name, n.banned_why));
    ELSIF n.state = 'retired' THEN
        PERFORM refuse(6, format('node %s is retired: a join code makes it anew', n.name));
    END IF;
    RETURN api.join_code(n.provider_id, (SELECT name::text FROM site WHERE id = n.site_id), n.name::text, p_code_hash,
        p_expires, p_principal, p_idem, p_hash);
END $$;

-- What enrolling anew ends: the earlier certificate, the earlier speakers, the clone.
CREATE OR REPLACE FUNCTION ng.node_attest(n ng.node) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM ng.node_speaker WHERE node_id = n.id;
    PERFORM ng.tell('node.attested', NULL, NULL, n.id, jsonb_build_object('node', n.name,
        'site', (SELECT name FROM ng.site WHERE id = n.site_id), 'times', n.attested));
END $$;
