-- Charges as cost reports want them (FOCUS): a row for what each node or path of a
-- reservation was charged in a billing period; for an invoice also what makes up the
-- difference to what is payable: rounding, refunds before it, tax; for a period also what
-- credit notes gave back in it, which correct an invoice unless they came before it.

-- GPU-milliseconds of one node that were charged before p_at.
CREATE OR REPLACE FUNCTION ng.charged_node_ms(p_reservation uuid, p_node integer, p_at timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT least(c.gpu_ms, w.max_gpu_ms)
          FROM (SELECT max(split_part(t.ref, '/', 3)::integer) AS seq FROM ng.transfer t
                 WHERE t.reservation_id = p_reservation AND t.kind IN ('capture', 'fee') AND t.at < p_at
                   AND split_part(t.ref, '/', 2) = p_node::text) x
          JOIN ng.receipt c ON c.reservation_id = p_reservation AND c.node_id = p_node AND c.seq = x.seq
          CROSS JOIN LATERAL ng.use_terms(p_reservation, p_node, c.received_at) w), 0)
$$;

CREATE OR REPLACE FUNCTION ng.charge_rows(p_tenant uuid, p_invoice text, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (key text, doc jsonb) LANGUAGE sql STABLE AS $$
    WITH used AS (
        SELECT t.reservation_id AS resv, split_part(t.ref, '/', 2) AS unit,
               CASE WHEN split_part(t.ref, '/', 2) = 'path' THEN split_part(t.ref, '/', 3)::bigint END AS lane,
               m.month, greatest(p_from, m.month) AS a, least(p_to, m.next) AS z, sum(t.amount_micro)::bigint AS amount,
               coalesce(p_invoice, (SELECT i.number FROM ng.invoice i WHERE i.tenant_id = p_tenant AND i.currency = h.currency
                                      AND i.period @> min(t.at) AND i.period @> max(t.at))) AS invoice -- null: none yet, or two
          FROM ng.account h
          JOIN ng.transfer t ON t.dr = h.id AND t.kind IN ('capture', 'fee') AND t.at >= p_from AND t.at < p_to
          JOIN ng.tenant n ON n.id = h.tenant_id
          CROSS JOIN LATERAL (SELECT date_trunc('month', t.at, n.zone) AS month,
                                     date_trunc('month', date_trunc('month', t.at, n.zone) + interval '40 days', n.zone) AS next) m
         WHERE h.kind = 'hold' AND h.tenant_id = p_tenant
         GROUP BY 1, 2, 3, 4, 5, 6, h.currency),
    i AS (SELECT * FROM ng.invoice WHERE number = p_invoice),
    lines AS (
        -- What of a reservation's lines is not in its rows of use: nothing, as a rule, but a
        -- line that was refunded before it was invoiced.
        SELECT l.line, l.description, l.reservation_id, (l.amount_micro - CASE WHEN l.reservation_id IS NULL OR l.amount_micro < 0 THEN 0
                   WHEN row_number() OVER w = 1 THEN coalesce((SELECT sum(u.amount) FROM used u WHERE u.resv = l.reservation_id), 0)
                        - (sum(l.amount_micro) OVER w - l.amount_micro)
                   ELSE l.amount_micro END)::bigint AS amount
          FROM ng.invoice_line l WHERE l.number = p_invoice
        WINDOW w AS (PARTITION BY l.reservation_id, l.amount_micro < 0 ORDER BY l.line
                     ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING))
    SELECT 'a/' || u.resv || '/' || lpad(u.unit, 10, '0') || '/' || to_char(u.month, 'YYYYMM'), jsonb_build_object(
               'category', 'Usage', 'what', 'gpu', 'amount_micro', u.amount, 'price_micro', w.price,
               'quantity_ms', q.ms, 'list_price_micro', f.price,
               'list_micro', CASE WHEN v.spot THEN ng.money_mul(q.ms, f.price, 3600000) ELSE u.amount END,
               'description', format('%s x %s, %s', w.gpus, n.gpu_model, n.name), 'model', n.gpu_model, 'node', n.name,
               'site', s.name, 'city', s.city, 'provider', o.name, 'reservation', v.id, 'spot', v.spot,
               'invoice', u.invoice, 'from_us', ng.us(d.a), 'to_us', ng.us(greatest(d.a, least(d.z, u.z))),
               'period_from_us', ng.us(u.month), 'period_to_us', ng.us(date_trunc('month', u.month + interval '40 days', t.zone)))
      FROM used u JOIN ng.reservation v ON v.id = u.resv JOIN ng.tenant t ON t.id = v.tenant_id
      JOIN ng.node n ON u.unit <> 'path' AND n.id = nullif(u.unit, 'path')::integer
      JOIN ng.site s ON s.id = n.site_id JOIN ng.provider o ON o.id = n.provider_id
      CROSS JOIN LATERAL ng.chain_terms(u.resv, n.id) w
      CROSS JOIN LATERAL (SELECT ng.charged_node_ms(u.resv, n.id, u.z) - ng.charged_node_ms(u.resv, n.id, u.a) AS ms) q
      CROSS JOIN LATERAL (SELECT coalesce(CASE WHEN v.spot THEN (SELECT p.per_gpu_hour_micro FROM ng.price p
                                   WHERE p.node_id = n.id AND p.during @> v.created_at) END, w.price) AS price) f -- the firm one
      -- What is charged when all of it was before the month has its own time.
      CROSS JOIN LATERAL (SELECT CASE WHEN e.z <= u.a THEN lower(v.during) ELSE greatest(lower(v.during), u.a) END AS a, e.z
                            FROM (SELECT coalesce(v.ended_at, upper(v.during)) AS z) e) d
    UNION ALL
    SELECT 'b/' || u.resv || '/' || u.lane || '/' || to_char(u.month, 'YYYYMM'), jsonb_build_object(
               'category', 'Usage', 'what', 'lane', 'amount_micro', u.amount, 'price_micro', k.per_lane_hour_micro,
               'list_price_micro', k.per_lane_hour_micro, 'quantity_ms', k.served_ms, 'list_micro', u.amount,
               'description', format('%s lanes of %s', upper(k.lanes) - lower(k.lanes), p.name), 'node', p.name,
               'site', s.name, 'city', s.city, 'provider', o.name, 'reservation', v.id, 'spot', false,
               'invoice', u.invoice, 'from_us', ng.us(lower(v.during)), 'to_us', ng.us(greatest(lower(v.during), coalesce(v.ended_at, upper(v.during)))),
               'period_from_us', ng.us(u.month), 'period_to_us', ng.us(date_trunc('month', u.month + interval '40 days', t.zone)))
      FROM used u JOIN ng.reservation v ON v.id = u.resv JOIN ng.tenant t ON t.id = v.tenant_id
      JOIN ng.path_booking k ON k.id = u.lane JOIN ng.path p ON p.id = k.path_id
      JOIN ng.site s ON s.id = p.site_a JOIN ng.provider o ON o.id = p.provider_id
    UNION ALL
    SELECT 'c/' || lpad(l.line::text, 10, '0'), jsonb_build_object('category', 'Adjustment', 'what', 'line', 'amount_micro', l.amount,
               'list_micro', l.amount, 'description', l.description, 'reservation', l.reservation_id,
               'from_us', ng.us(lower(i.period)), 'to_us', ng.us(upper(i.period)))
      FROM lines l, i WHERE l.amount <> 0
    UNION ALL
    SELECT 'd/' || t.class, jsonb_build_object('category', 'Tax', 'what', 'tax', 'amount_micro', t.tax_micro, 'list_micro', t.tax_micro,
               'description', format('tax, %s %%', round(t.rate_ppm / 10000.0, 2)),
               'from_us', ng.us(lower(i.period)), 'to_us', ng.us(upper(i.period)))
      FROM i JOIN ng.invoice_tax t ON t.number = i.number WHERE t.tax_micro <> 0
    UNION ALL
    SELECT 'e/' || c.number || '/' || x.key, jsonb_build_object('category', x.category, 'what', 'note', 'amount_micro', -x.amount,
               'list_micro', -x.amount, 'description', x.description, 'reservation', v.id, 'invoice', c.number,
               'corrects', c.invoice, 'from_us', ng.us(lower(v.during)),
               'to_us', ng.us(greatest(lower(v.during), coalesce(v.ended_at, upper(v.during)))),
               'period_from_us', ng.us(m.month), 'period_to_us', ng.us(date_trunc('month', m.month + interval '40 days', n.zone)))
      FROM ng.credit_note c JOIN ng.reservation v ON v.id = c.reservation_id JOIN ng.tenant n ON n.id = c.tenant_id
      CROSS JOIN LATERAL (SELECT date_trunc('month', c.issued_at, n.zone) AS month) m
      CROSS JOIN LATERAL (
            SELECT lpad(l.line::text, 10, '0') AS key, 'Adjustment' AS category, l.amount_micro AS amount, l.description
              FROM ng.credit_note_line l WHERE l.number = c.number
            UNION ALL
            SELECT t.class::text, 'Tax', t.tax_micro, format('tax, %s %%', round(t.rate_ppm / 10000.0, 2))
              FROM ng.credit_note_tax t WHERE t.number = c.number AND t.tax_micro <> 0) x
     WHERE p_invoice IS NULL AND c.tenant_id = p_tenant AND c.issued_at >= p_from AND c.issued_at < p_to
$$;

-- Of one invoice (its period and its number on each row), or of what a tenant was charged in
-- [p_from, p_to), invoiced or not.
CREATE OR REPLACE FUNCTION api.charges(p_tenant uuid, p_invoice text, p_from bigint, p_to bigint, p_cursor text, p_limit bigint)
RETURNS jsonb LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ng, pg_temp AS $$
DECLARE
    i invoice;
    v_tenant tenant;
    v_rows jsonb;
BEGIN
    IF p_invoice IS NOT NULL THEN
        SELECT * INTO i FROM invoice WHERE number = p_invoice AND (p_tenant IS NULL OR tenant_id = p_tenant);
        IF NOT FOUND THEN
            PERFORM refuse(5, format('there is no invoice %s', left(p_invoice, 40)));
        END IF;
    ELSIF p_tenant IS NULL THEN
        PERFORM refuse(20, 'say which invoice: an administrator has no charges of his own');
    END IF;
    SELECT * INTO STRICT v_tenant FROM tenant WHERE id = coalesce(i.tenant_id, p_tenant);
    SELECT jsonb_agg(jsonb_build_object('invoice', i.number) || r.doc || jsonb_build_object('_key', r.key,
               'currency', coalesce(i.currency, currency()), 'tenant', v_tenant.name,
               'tenant_id', v_tenant.id, 'issuer', coalesce(i.document->>'issuer', (SELECT issuer_name FROM market)))
               || CASE WHEN i.number IS NULL THEN '{}' ELSE jsonb_build_object('period_from_us', us(lower(i.period)),
                      'period_to_us', us(upper(i.period))) END ORDER BY r.key)
      INTO v_rows
      FROM (SELECT * FROM charge_rows(v_tenant.id, i.number, coalesce(lower(i.period), ts(p_from), '-infinity'),
                                      coalesce(upper(i.period), ts(p_to), now())) c
             WHERE p_cursor IS NULL OR c.key > p_cursor ORDER BY c.key LIMIT p_limit + 1) r;
    RETURN page('charges', v_rows, p_limit);
END $$;
