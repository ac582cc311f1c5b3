-- Money and use as their owners see them: wallet, usage, invoices; and the administrator's status.

CREATE OR REPLACE FUNCTION api.wallet(p_tenant uuid, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    WITH w AS (SELECT * FROM account WHERE tenant_id = p_tenant AND kind = 'wallet' AND currency = ng.currency())
    SELECT jsonb_build_object('currency', ng.currency(), 'available_micro', coalesce((SELECT balance_micro FROM w), 0),
        'credit_micro', coalesce((SELECT -floor_micro FROM w), 0),
        'held_micro', coalesce((SELECT balance_micro FROM account
                                 WHERE tenant_id = p_tenant AND kind = 'hold' AND currency = ng.currency()), 0),
        'transfers', coalesce((SELECT jsonb_agg(jsonb_build_object('id', x.id, 'at_us', us(x.at), 'kind', x.kind,
                'amount_micro', x.amount, 'reservation', x.reservation_id, 'ref', x.ref) ORDER BY x.id DESC)
            FROM (SELECT t.*, CASE WHEN t.cr = w.id THEN t.amount_micro ELSE -t.amount_micro END AS amount
                    FROM w JOIN transfer t ON t.cr = w.id OR t.dr = w.id
                   ORDER BY t.id DESC LIMIT p_limit) x), '[]'))
$$;

-- Rated use, one row a reservation and node; the cursor is "reservation/node".
CREATE OR REPLACE FUNCTION api.usage(p_tenant uuid, p_provider uuid, p_reservation uuid, p_from_us bigint, p_to_us bigint,
    p_cursor text, p_limit bigint)
RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    WITH chains AS (
        SELECT r.reservation_id, r.node_id, min(lower(r.during)) AS start, max(upper(r.during)) AS finish,
               max(r.gpu_ms) AS gpu_ms,
               jsonb_agg(jsonb_build_object('seq', r.seq, 'kind', r.kind, 'from_us', us(lower(r.during)), 'to_us', us(upper(r.during)),
                   'gpu_ms', r.gpu_ms, 'hash', encode(r.hash, 'hex'), 'gaps', r.gaps, 'jws', r.jws) ORDER BY r.seq) AS receipts
          FROM receipt r JOIN reservation v ON v.id = r.reservation_id JOIN node n ON n.id = r.node_id
         WHERE (p_tenant IS NULL OR v.tenant_id = p_tenant) AND (p_provider IS NULL OR n.provider_id = p_provider)
           AND (p_reservation IS NULL OR r.reservation_id = p_reservation)
         GROUP BY r.reservation_id, r.node_id),
    page AS (
        SELECT c.*, c.reservation_id || '/' || c.node_id AS key FROM chains c
         WHERE (p_from_us IS NULL OR c.finish > ts(p_from_us)) AND (p_to_us IS NULL OR c.start < ts(p_to_us))
           AND (p_cursor IS NULL OR c.reservation_id || '/' || c.node_id < p_cursor)
         ORDER BY c.reservation_id || '/' || c.node_id DESC LIMIT p_limit)
    SELECT jsonb_build_object(
        'usage', coalesce(jsonb_agg(jsonb_build_object('reservation', p.reservation_id, 'node', n.name, 'site', s.name,
            'provider', o.name, 'from_us', us(p.start), 'to_us', us(p.finish), 'gpu_ms', p.gpu_ms,
            'amount_micro', coalesce(m.amount_micro, 0), 'currency', v.currency, 'closed', coalesce(m.closed, false),
            'receipts', p.receipts) ORDER BY p.key DESC), '[]'),
        'next', CASE WHEN count(*) = p_limit THEN min(p.key) END)
      FROM page p JOIN node n ON n.id = p.node_id JOIN site s ON s.id = n.site_id JOIN provider o ON o.id = n.provider_id
      JOIN reservation v ON v.id = p.reservation_id
      LEFT JOIN meter m ON m.reservation_id = p.reservation_id AND m.node_id = p.node_id
$$;

CREATE OR REPLACE FUNCTION ng.invoice_json(i ng.invoice) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('number', i.number, 'tenant', (SELECT name FROM ng.tenant WHERE id = i.tenant_id),
        'currency', i.currency, 'from_us', ng.us(lower(i.period)), 'to_us', ng.us(upper(i.period)),
        'issued_us', ng.us(i.issued_at), 'net_micro', i.net_micro, 'tax_micro', i.tax_micro, 'total_micro', i.total_micro)
$$;
CREATE OR REPLACE FUNCTION api.invoice_list(p_tenant uuid, p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    WITH page AS (
        SELECT i.* FROM invoice i
         WHERE (p_tenant IS NULL OR i.tenant_id = p_tenant) AND (p_cursor IS NULL OR i.number < p_cursor)
         ORDER BY i.number DESC LIMIT p_limit)
    SELECT jsonb_build_object('invoices', coalesce(jsonb_agg(invoice_json(p) ORDER BY p.number DESC), '[]'),
        'next', CASE WHEN count(*) = p_limit THEN min(p.number) END) FROM page p
$$;
CREATE OR REPLACE FUNCTION api.invoice_get(p_tenant uuid, p_number text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v invoice;
BEGIN
    SELECT * INTO v FROM invoice WHERE number = p_number AND (p_tenant IS NULL OR tenant_id = p_tenant);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no invoice of yours has the number %', left(p_number, 80) USING ERRCODE = 'NG005';
    END IF;
    RETURN invoice_json(v) || jsonb_build_object('tax_ppm', v.tax_ppm, 'document', v.document,
        'lines', (SELECT coalesce(jsonb_agg(jsonb_build_object('line', l.line, 'description', l.description,
            'reservation', l.reservation_id, 'quantity_gpu_ms', l.quantity_gpu_ms, 'amount_micro', l.amount_micro) ORDER BY l.line), '[]')
            FROM invoice_line l WHERE l.number = v.number));
END $$;

CREATE OR REPLACE FUNCTION api.admin_status() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT jsonb_build_object(
        'tenants', (SELECT count(*) FROM tenant), 'providers', (SELECT count(*) FROM provider),
        'sites', (SELECT count(*) FROM site),
        'nodes', (SELECT coalesce(jsonb_object_agg(state, n), '{}') FROM (SELECT state, count(*) AS n FROM node GROUP BY state) x),
        'gpus', (SELECT count(*) FROM gpu),
        'reservations', (SELECT coalesce(jsonb_object_agg(state, n), '{}')
                           FROM (SELECT state, count(*) AS n FROM reservation GROUP BY state) x),
        'database', jsonb_build_object('version', current_setting('server_version'),
            'size_bytes', pg_database_size(current_database()),
            'connections', (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),
            'now_us', us(clock_timestamp())),
        'checks', (SELECT jsonb_agg(jsonb_build_object('name', name, 'rows', breaches) ORDER BY name) FROM api.check_all()))
$$;
