-- What tenants and providers may read of money and use.

CREATE OR REPLACE FUNCTION api.wallet(p_tenant uuid, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    WITH w AS (SELECT * FROM account WHERE kind = 'wallet' AND tenant_id = p_tenant AND currency = currency()),
    h AS (SELECT * FROM account WHERE kind = 'hold' AND tenant_id = p_tenant AND currency = currency()),
    t AS (
        (SELECT x.* FROM transfer x JOIN w ON x.dr = w.id ORDER BY x.id DESC LIMIT p_limit)
        UNION ALL
        (SELECT x.* FROM transfer x JOIN w ON x.cr = w.id ORDER BY x.id DESC LIMIT p_limit))
    SELECT jsonb_build_object('currency', currency(),
        'available_micro', coalesce((SELECT balance_micro - floor_micro FROM w), 0), -- with the credit line
        'held_micro', coalesce((SELECT balance_micro FROM h), 0),
        'promo_micro', coalesce((SELECT balance_micro FROM account WHERE kind = 'promo' AND tenant_id = p_tenant AND currency = currency()), 0),
        'budget', budget_json(p_tenant),
        'low', (SELECT coalesce(jsonb_agg(jsonb_build_object('reservation', r.id, 'paid_until_us', us(coalesce(r.paid_until, upper(r.during))))
                    ORDER BY r.paid_until, r.id), '[]')
                  FROM reservation r WHERE r.tenant_id = p_tenant AND r.funds_low_at IS NOT NULL AND r.state IN ('confirmed', 'active')),
        'transfers', coalesce((SELECT jsonb_agg(jsonb_build_object('id', x.id, 'at_us', us(x.at), 'kind', x.kind,
                'amount_micro', CASE WHEN x.cr = (SELECT id FROM w) THEN x.amount_micro ELSE -x.amount_micro END,
                'reservation', x.reservation_id, 'ref', x.ref) ORDER BY x.id DESC)
            FROM (SELECT * FROM t ORDER BY id DESC LIMIT p_limit) x), '[]'))
$$;

-- One row a reservation and node that has receipts, newest reservation first. The page is
-- chosen before its receipts are read.
CREATE OR REPLACE FUNCTION api.usage(p_tenant uuid, p_provider uuid, p_reservation uuid, p_from bigint,
    p_to bigint, p_cursor text, p_limit bigint)
RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT page('usage', (SELECT jsonb_agg(jsonb_build_object(
               '_key', k.id || '/' || lpad(k.node_id::text, 10, '0'), 'reservation', k.id, 'node', n.name,
               'site', s.name, 'provider', p.name, 'from_us', us(x.first), 'to_us', us(x.last), 'gpu_ms', x.gpu_ms,
               'amount_micro', coalesce(m.amount_micro, 0), 'currency', k.currency,
               'closed', coalesce(m.closed, false), 'receipts', x.receipts,
               'forks', (SELECT coalesce(jsonb_agg(jsonb_build_object('seq', f.seq, 'at_us', us(f.at), 'jws', f.jws) ORDER BY f.seq, f.at), '[]')
                           FROM receipt_fork f WHERE f.reservation_id = k.id AND f.node_id = k.node_id)) ORDER BY k.id DESC, k.node_id DESC)
      FROM (
          SELECT v.id, v.currency, b.node_id
            FROM reservation v
            JOIN LATERAL (SELECT DISTINCT node_id FROM booking WHERE reservation_id = v.id) b ON true
            JOIN node n ON n.id = b.node_id
           WHERE (p_tenant IS NULL OR v.tenant_id = p_tenant) AND (p_provider IS NULL OR n.provider_id = p_provider)
             AND (p_reservation IS NULL OR v.id = p_reservation)
             AND EXISTS (SELECT FROM receipt c WHERE c.reservation_id = v.id AND c.node_id = b.node_id
                            AND (p_from IS NULL OR upper(c.during) > ts(p_from)))
             AND (p_to IS NULL OR EXISTS (SELECT FROM receipt c WHERE c.reservation_id = v.id AND c.node_id = b.node_id
                            AND lower(c.during) < ts(p_to)))
             AND (p_cursor IS NULL OR v.id || '/' || lpad(b.node_id::text, 10, '0') < p_cursor)
           ORDER BY v.id DESC, b.node_id DESC LIMIT p_limit + 1) k
      JOIN LATERAL (
          SELECT min(lower(c.during)) AS first, max(upper(c.during)) AS last, max(c.gpu_ms) AS gpu_ms,
                 jsonb_agg(jsonb_build_object('seq', c.seq, 'kind', c.kind, 'from_us', us(lower(c.during)),
                     'to_us', us(upper(c.during)), 'gpu_ms', c.gpu_ms, 'hash', encode(c.hash, 'hex'),
                     'jws', c.jws) ORDER BY c.seq) AS receipts
            FROM receipt c WHERE c.reservation_id = k.id AND c.node_id = k.node_id) x ON true
      JOIN node n ON n.id = k.node_id JOIN site s ON s.id = n.site_id JOIN provider p ON p.id = n.provider_id
      LEFT JOIN meter m ON m.reservation_id = k.id AND m.node_id = k.node_id), p_limit)
$$;

CREATE OR REPLACE FUNCTION ng.invoice_json(i ng.invoice) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('number', i.number, 'tenant', (SELECT name FROM ng.tenant WHERE id = i.tenant_id),
        'currency', i.currency, 'from_us', ng.us(lower(i.period)), 'to_us', ng.us(upper(i.period)),
        'issued_us', ng.us(i.issued_at), 'net_micro', i.net_micro,
        'tax_ppm', (SELECT min(rate_ppm) FROM ng.invoice_tax WHERE number = i.number HAVING count(*) = 1),
        'tax_micro', i.tax_micro, 'total_micro', i.total_micro, 'taxes', ng.invoice_taxes_json(i.number))
$$;

-- What came into the wallet between the invoice before and the end of this one's period, out
-- of promotional credit (a row a grant) and for incidents. It is beside the invoice: the
-- wallet that pays has it.
CREATE OR REPLACE FUNCTION ng.invoice_credits(i ng.invoice) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(c.doc ORDER BY c.at, c.kind, c.id), '[]')
      FROM (SELECT coalesce(max(upper(period)), '-infinity') AS since FROM ng.invoice
             WHERE tenant_id = i.tenant_id AND currency = i.currency AND upper(period) <= lower(i.period)) s
      CROSS JOIN LATERAL (
          SELECT 'promo' AS kind, g.id, max(t.at) AS at, jsonb_build_object('kind', 'promo', 'grant', g.id, 'at_us', ng.us(max(t.at)),
                     'reason', g.reason, 'amount_micro', sum(t.amount_micro)) AS doc
            FROM ng.account a JOIN ng.transfer t ON t.dr = a.id AND t.kind = 'promo_used' AND t.at >= s.since AND t.at < upper(i.period)
            JOIN ng.promo_grant g ON g.id = split_part(t.ref, '/', 2)::bigint
           WHERE a.kind = 'promo' AND a.tenant_id = i.tenant_id AND a.currency = i.currency
           GROUP BY g.id
          UNION ALL
          SELECT 'sla', x.id, x.at, jsonb_build_object('kind', 'sla', 'incident', x.incident_id, 'reservation', x.reservation_id,
                     'at_us', ng.us(x.at), 'reason', x.reason, 'amount_micro', x.amount_micro)
            FROM ng.sla_credit x JOIN ng.reservation r ON r.id = x.reservation_id AND r.tenant_id = i.tenant_id AND r.currency = i.currency
           WHERE x.at >= s.since AND x.at < upper(i.period)) c
$$;

CREATE OR REPLACE FUNCTION api.invoice_list(p_tenant uuid, p_cursor text, p_limit bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    SELECT page('invoices', (SELECT jsonb_agg(invoice_json(i) || jsonb_build_object('_key', i.number) ORDER BY i.number DESC)
        FROM (SELECT * FROM invoice
               WHERE (p_tenant IS NULL OR tenant_id = p_tenant) AND (p_cursor IS NULL OR number < p_cursor)
               ORDER BY number DESC LIMIT p_limit + 1) i), p_limit)
$$;

CREATE OR REPLACE FUNCTION api.invoice_get(p_tenant uuid, p_number text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE v invoice;
BEGIN
    SELECT * INTO v FROM invoice WHERE number = p_number AND (p_tenant IS NULL OR tenant_id = p_tenant);
    IF NOT FOUND THEN
        PERFORM refuse(5, format('there is no invoice %s', p_number));
    END IF;
    RETURN invoice_json(v) || jsonb_build_object('document', v.document, 'credits', invoice_credits(v), 'credit_notes', (
        SELECT coalesce(jsonb_agg(jsonb_build_object('number', c.number, 'issued_us', us(c.issued_at), 'reason', c.reason,
                   'total_micro', c.total_micro) ORDER BY c.number), '[]')
          FROM credit_note c WHERE c.invoice = v.number), 'lines', (
        SELECT coalesce(jsonb_agg(jsonb_build_object('line', l.line, 'description', l.description,
                   'reservation', l.reservation_id, 'quantity_gpu_ms', l.quantity_gpu_ms,
                   'amount_micro', l.amount_micro, 'tax_class', l.tax_class) ORDER BY l.line), '[]')
          FROM invoice_line l WHERE l.number = v.number));
END $$;

-- How the tenant wants to be addressed; what is null stays, '' is taken away.
CREATE OR REPLACE FUNCTION api.tenant_billing(p_tenant uuid, p_name text, p_address text, p_language text) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = ng, pg_temp AS $$
    UPDATE tenant SET billing = billing || jsonb_strip_nulls(jsonb_build_object('name', p_name, 'address', p_address, 'language', p_language))
     WHERE id = p_tenant
    RETURNING jsonb_build_object('name', billing->>'name', 'address', billing->>'address', 'language', coalesce(billing->>'language', 'en'))
$$;
