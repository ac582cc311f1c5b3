-- Rows that nobody needs any more. What was booked, billed, signed or logged is never
-- removed: of a quote the hash stays.

-- 20,000 of a kind at a time, so that no lock is held for long; the oldest first, as far
-- as their index gives that. Several servers may call it: they pass over each other's.
CREATE OR REPLACE FUNCTION api.prune(p_now bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    v_now timestamptz := ts(p_now);
    v_most CONSTANT integer := 20000;
    v_events integer;
    v_replies integer;
    v_tokens integer;
    v_matches integer;
    v_quotes integer;
BEGIN
    -- In the order of the primary key: what stays is younger than the rows removed.
    DELETE FROM event WHERE (xid, id) IN (
        SELECT x.xid, x.id FROM (SELECT xid, id, at FROM event ORDER BY xid, id LIMIT v_most) x
         WHERE x.at < v_now - interval '14 days');
    GET DIAGNOSTICS v_events = ROW_COUNT;
    DELETE FROM idempotency WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM idempotency WHERE created_at < v_now - interval '14 days' LIMIT v_most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_replies = ROW_COUNT;
    DELETE FROM token WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM token WHERE expires_at < v_now - interval '7 days' ORDER BY expires_at LIMIT v_most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_tokens = ROW_COUNT;
    DELETE FROM match_log WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM match_log WHERE at < v_now - interval '92 days' LIMIT v_most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_matches = ROW_COUNT;
    UPDATE quote SET request = '{}', plan = '{}' WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM quote WHERE expires_at < v_now - interval '30 days' AND plan <> '{}' ORDER BY expires_at LIMIT v_most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS v_quotes = ROW_COUNT;
    RETURN jsonb_build_object('events', v_events, 'idempotency', v_replies, 'tokens', v_tokens, 'match_log', v_matches,
        'quotes', v_quotes, 'more', greatest(v_events, v_replies, v_tokens, v_matches, v_quotes) = v_most);
END $$;
