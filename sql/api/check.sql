-- Columns that are kept for speed and say again what other rows say: what must be empty of
-- them (the other check views stand with what they check). No constraint can hold these,
-- and who switches triggers off could alter them unseen.

-- Balances are kept, and floors allowed, where the kind says so; transfers are in their
-- accounts' currency.
CREATE OR REPLACE VIEW report.check_account AS
    SELECT a.id AS account, a.kind, a.currency, a.guarded, a.balance_micro, a.floor_micro
      FROM ng.account a
      LEFT JOIN (SELECT DISTINCT x.account, t.currency
                   FROM (SELECT DISTINCT dr, cr, currency FROM ng.transfer) t, LATERAL (VALUES (t.dr), (t.cr)) AS x(account)) t
        ON t.account = a.id AND t.currency <> a.currency
     WHERE t.account IS NOT NULL
        OR a.guarded <> (a.kind IN ('wallet', 'hold', 'promo', 'provider_available', 'provider_reserve'))
        OR NOT a.guarded AND a.balance_micro <> 0
        OR a.kind <> 'wallet' AND a.floor_micro <> 0
        OR (a.kind IN ('wallet', 'hold', 'promo', 'receivable')) <> (a.tenant_id IS NOT NULL)
        OR (a.kind LIKE 'provider_%') <> (a.provider_id IS NOT NULL);

-- A meter stands at a receipt that is there, counts what that one told (or the teardown
-- before it), and is closed by a teardown alone.
CREATE OR REPLACE VIEW report.check_meter AS
    SELECT m.reservation_id AS reservation, m.node_id AS node, m.seq, m.gpu_ms, r.gpu_ms AS told_ms, m.closed
      FROM ng.meter m
      LEFT JOIN LATERAL (SELECT min(d.seq) AS seq FROM ng.receipt d
                          WHERE d.reservation_id = m.reservation_id AND d.node_id = m.node_id AND d.kind = 'teardown'
                            AND d.seq <= m.seq) d ON true
      LEFT JOIN ng.receipt r ON r.reservation_id = m.reservation_id AND r.node_id = m.node_id AND r.seq = coalesce(d.seq, m.seq)
     WHERE m.gpu_ms <> coalesce(r.gpu_ms, 0) OR (r.seq IS NULL) <> (m.seq = 0) OR m.closed <> (d.seq IS NOT NULL)
        OR NOT EXISTS (SELECT FROM ng.receipt x WHERE x.reservation_id = m.reservation_id AND x.node_id = m.node_id AND x.seq = m.seq)
           AND m.seq <> 0;

-- What reports read of use is what was captured, of whom, where and on which node.
CREATE OR REPLACE VIEW report.check_usage AS
    SELECT coalesce(u.reservation_id, c.reservation_id) AS reservation, coalesce(u.node_id, c.node_id) AS node,
           c.amount AS captured_micro, u.amount AS usage_micro, c.fee AS fee_micro, u.fee AS usage_fee_micro
      FROM (SELECT x.reservation_id, x.node_id, sum(x.amount_micro) AS amount, sum(x.fee_micro) AS fee,
                   bool_or(r.id IS NULL OR x.tenant_id <> r.tenant_id OR x.currency <> r.currency OR x.spot <> r.spot
                           OR x.node_id IS NOT NULL AND (n.id IS NULL OR x.provider_id <> n.provider_id OR x.site_id <> n.site_id)) AS wrong
              FROM ng.usage x
              LEFT JOIN (SELECT id, tenant_id, currency, spot FROM ng.reservation) r ON r.id = x.reservation_id
              LEFT JOIN (SELECT id, provider_id, site_id FROM ng.node) n ON n.id = x.node_id
             GROUP BY x.reservation_id, x.node_id) u
      FULL JOIN (SELECT reservation_id, node_id, amount_micro AS amount, fee_micro AS fee FROM ng.meter
                 UNION ALL
                 SELECT reservation_id, NULL, sum(captured_micro), sum(fee_micro) FROM ng.path_booking GROUP BY reservation_id) c
        ON c.reservation_id = u.reservation_id AND coalesce(c.node_id, 0) = coalesce(u.node_id, 0)
     WHERE coalesce(u.amount, 0) <> coalesce(c.amount, 0) OR coalesce(u.fee, 0) <> coalesce(c.fee, 0) OR u.wrong;

-- Whether a receipt's columns are what its signed text says. Its text is in the log.
CREATE OR REPLACE FUNCTION ng.receipt_told(r ng.receipt) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_text text := translate(split_part(r.jws, '.', 2), '-_', '+/');
    p jsonb := convert_from(decode(rpad(v_text, (length(v_text) + 3) / 4 * 4, '='), 'base64'), 'UTF8')::jsonb;
BEGIN
    RETURN (r.hash, r.reservation_id::text, r.seq::text, r.kind, r.gpu_ms::text, r.gaps)
           IS NOT DISTINCT FROM (sha256(convert_to(r.jws, 'UTF8')), p->>'reservation', p->>'seq', p->>'kind', p->>'gpu_ms', p->'gaps')
       AND (isempty(r.during) OR (lower(r.during), upper(r.during)) IS NOT DISTINCT FROM
            ((p->>'from')::timestamptz, (p->>'to')::timestamptz));
EXCEPTION WHEN data_exception THEN
    RETURN false; -- not a signed text at all
END $$;
