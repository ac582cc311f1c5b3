#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables are set by market.sh
# bench_ledger OUT.json: durable transfers per second, one a commit and in batches of 1,000, to one
# guarded account and to a thousand, beside pgbench's one-row inserts on the same cluster in the
# same run; receipts that billd rates and posts per
# second, and how far it lags behind 2,000 leases that report once a minute. Rounds alternate;
# medians and spread.
set -euo pipefail
out=$1
build=$NEARGPU_BUILD
[ "$(id -u)" = 0 ] || { echo "bench_ledger needs root (embedded cluster under its own user)" >&2; exit 1; }
run=$(mktemp -d /var/tmp/neargpu-bench.XXXXXX)
chmod 755 "$run"
# shellcheck source=tests/system/market.sh
. "$NEARGPU_SRC/tests/system/market.sh"
trap 'market_stop; rm -rf "$run"' EXIT
rounds=${BENCH_ROUNDS:-3}
seconds=${BENCH_SECONDS:-5}
receipts=${BENCH_RECEIPTS:-20} # of each of 2,000 leases, in each round

server_start
psql_admin() { psql -X -q -At -v ON_ERROR_STOP=1 -h "$run/server/run" -U postgres -d neargpu "$@"; }

# 2,000 leases of one GPU that have run for a day: odd ones all of one tenant on nodes of one
# provider ("hot"), even ones of 1,000 tenants on nodes of 1,000 providers ("spread").
psql_admin <<'SQL'
CREATE SCHEMA bench;
CREATE TABLE bench.one (id bigserial PRIMARY KEY, v integer);
INSERT INTO ng.site (name, city, lat, lon, residency) VALUES ('tokyo', 'Tokyo', 35.69, 139.69, 'jp');
INSERT INTO ng.provider (name) SELECT 'p' || i FROM generate_series(0, 1000) i;
SELECT api.tenant_create('t' || i, 'UTC', NULL, sha256(('t' || i)::bytea), 'a', NULL, NULL),
       api.topup('t' || i, 5000000000000, ng.currency(), 'first/' || i, 'a', NULL, NULL) FROM generate_series(0, 1000) i \g /dev/null
INSERT INTO ng.node (site_id, provider_id, name, spiffe_id, receipt_key, gpus, gpu_model, gpu_memory_mib, offered, state, last_sync_at)
SELECT s.id, p.id, 'n' || i, 'spiffe://bench/' || i, sha256(('r' || i)::bytea), int4range(i, i + 1), 'H100-SXM5-80GB', 81559, 1, 'up', now()
  FROM generate_series(1, 2000) i JOIN ng.provider p ON p.name = 'p' || CASE WHEN i % 2 = 1 THEN 0 ELSE i / 2 END, ng.site s;
CREATE TABLE bench.lease AS
SELECT n.id AS node, t.id AS tenant, lower(n.gpus) % 2 = 1 AS hot,
       ('00000000-0000-7000-8000-' || lpad(n.id::text, 12, '0'))::uuid AS id
  FROM ng.node n JOIN ng.tenant t ON t.name = 't' || CASE WHEN lower(n.gpus) % 2 = 1 THEN 0 ELSE lower(n.gpus) / 2 END;
-- As a server books, straight into the tables: state, bookings, and the hold of thirty days.
INSERT INTO ng.reservation (id, tenant_id, state, created_at, during, request, data, currency, per_hour_micro, total_micro, effective_micro,
    fee_ppm, held_micro, idem_key, idem_hash)
SELECT id, tenant, 'confirmed', now() - interval '1 day', tstzrange(now() - interval '1 day', now() + interval '29 days'), '{}', '[]', ng.currency(),
       1990000, 1432800000, 1432800000, 50000, 1432800000, id::text, sha256(id::text::bytea) FROM bench.lease;
INSERT INTO ng.booking (reservation_id, node_id, site_id, gpus, during, epoch, per_gpu_hour_micro)
SELECT l.id, n.id, n.site_id, n.gpus, v.during, ng.us(lower(v.during)), 1990000
  FROM bench.lease l JOIN ng.node n ON n.id = l.node JOIN ng.reservation v ON v.id = l.id;
SELECT ng.post('hold', ng.account_of('wallet', tenant, NULL, ng.currency()), ng.account_of('hold', tenant, NULL, ng.currency()), ng.currency(),
       1432800000, id, id || '/hold') FROM bench.lease \g /dev/null
UPDATE ng.reservation SET state = 'active';
-- The next receipts of some leases: a minute each.
CREATE FUNCTION bench.receipts(p_count integer, p_hot boolean) RETURNS void LANGUAGE sql AS $$
    INSERT INTO ng.receipt (reservation_id, node_id, seq, hash, kind, during, gpu_ms, jws)
    SELECT l.id, l.node, s.seq, sha256((l.id || '/' || s.seq)::bytea), CASE s.seq WHEN 1 THEN 'ready' ELSE 'interval' END,
           tstzrange(now() - interval '1 minute', now()), (s.seq - 1) * 60000::bigint, repeat('x', 600)
      FROM bench.lease l
      CROSS JOIN LATERAL (SELECT coalesce(max(seq), 0) AS last FROM ng.receipt r WHERE r.reservation_id = l.id AND r.node_id = l.node) r
      CROSS JOIN LATERAL generate_series(r.last + 1, r.last + p_count) AS s(seq)
     WHERE p_hot IS NULL OR l.hot = p_hot ORDER BY s.seq, l.id $$;
-- One transfer a commit, into one tenant's wallet or into one of a thousand.
CREATE TABLE bench.wallet AS
SELECT row_number() OVER (ORDER BY t.name = 't0' DESC) - 1 AS n, a.id FROM ng.account a JOIN ng.tenant t ON t.id = a.tenant_id WHERE a.kind = 'wallet';
ALTER TABLE bench.wallet ADD PRIMARY KEY (n);
CREATE TABLE bench.bank AS SELECT ng.account_of('bank', NULL, NULL, ng.currency()) AS id;
ANALYZE;
SQL
echo 'INSERT INTO bench.one (v) VALUES (1);' >"$run/one.sql"
echo "SELECT ng.post('topup', b.id, w.id, ng.currency(), 1000, NULL, NULL) FROM bench.bank b, bench.wallet w WHERE w.n = 0;" >"$run/hot.sql"
printf '%s\n' '\set n random(1, 1000)' \
    "SELECT ng.post('topup', b.id, w.id, ng.currency(), 1000, NULL, NULL) FROM bench.bank b, bench.wallet w WHERE w.n = :n;" >"$run/spread.sql"
batch="ng.post_batch('topup', ng.currency(), array_agg(b.id), array_agg(w.id), array_agg(1000::bigint), array_agg(NULL::uuid), array_agg(NULL::text))"
echo "SELECT $batch FROM bench.bank b, bench.wallet w, generate_series(1, 1000) WHERE w.n = 0;" >"$run/batch_hot.sql"
echo "SELECT $batch FROM bench.bank b, bench.wallet w WHERE w.n > 0;" >"$run/batch_spread.sql"
rate() { # rate SCRIPT CLIENTS
    /usr/lib/postgresql/15/bin/pgbench -n -M prepared -f "$run/$1.sql" -c "$2" -j "$(($2 < 2 ? 1 : 2))" -T "$seconds" \
        -h "$run/server/run" -U postgres neargpu 2>/dev/null | awk '/^tps/ {print $3}'
}
# rated HOT [EACH]: what one round of billd rates of new receipts, per second
rated() {
    psql_admin -c "SELECT bench.receipts(${2:-$receipts}, $1)" -c 'CHECKPOINT' >/dev/null
    "$neargpu_billd" --data-dir "$run/server" --once 2>"$run/billd.out" || { cat "$run/billd.out" >&2; return 1; }
    sed -n 's/.*rated \([0-9]*\) receipts in \([0-9]*\) ms.*/\1 \2/p' "$run/billd.out" | awk '{print 1000 * $1 / $2}'
}
rated true >/dev/null # plans and caches
for round in $(seq "$rounds"); do
    for clients in 1 8 64; do
        rate one "$clients" >>"$run/pgbench.$clients"
        rate hot "$clients" >>"$run/hot.$clients"
        rate spread "$clients" >>"$run/spread.$clients"
    done
    for clients in 1 4; do
        rate batch_hot "$clients" >>"$run/batch_hot.$clients"
        rate batch_spread "$clients" >>"$run/batch_spread.$clients"
    done
    rated NULL >>"$run/rated.all"
    rated NULL 1 >>"$run/rated.one"
done
# 2,000 leases that report once a minute, spread evenly, for a while: the age of the oldest
# receipt that is not rated, seen twice a second.
billd_start
for second in $(seq "${BENCH_LAG_S:-20}"); do
    psql_admin -c "INSERT INTO ng.receipt (reservation_id, node_id, seq, hash, kind, during, gpu_ms, jws)
        SELECT l.id, l.node, r.last + 1, sha256((l.id || '/' || r.last + 1)::bytea), 'interval', tstzrange(now() - interval '1 minute', now()),
               r.last * 60000::bigint, repeat('x', 600)
          FROM bench.lease l CROSS JOIN LATERAL (SELECT max(seq) AS last FROM ng.receipt r WHERE r.reservation_id = l.id) r
         WHERE l.node % 60 = $second % 60"
    for _ in 1 2; do
        sleep 0.5
        psql_admin -c 'SELECT coalesce(round(extract(epoch FROM now() - min(received_at)) * 1000), 0) FROM ng.receipt_due' >>"$run/lag"
    done
done
breaches=$(psql_admin -c "SELECT coalesce(string_agg(name || ' ' || breaches, ', '), '') FROM api.check_all()
    WHERE breaches > 0 AND name IN ('check_balance', 'check_captured', 'check_amount', 'check_unbilled')")
[ -z "$breaches" ] || { echo "bench_ledger: the ledger is not right: $breaches" >&2; exit 1; }
list() { paste -sd, "$1" | sed 's/^/[/; s/$/]/'; }
jq -n --argjson p1 "$(list "$run/pgbench.1")" --argjson p8 "$(list "$run/pgbench.8")" --argjson p64 "$(list "$run/pgbench.64")" \
    --argjson h1 "$(list "$run/hot.1")" --argjson h8 "$(list "$run/hot.8")" --argjson h64 "$(list "$run/hot.64")" \
    --argjson s1 "$(list "$run/spread.1")" --argjson s8 "$(list "$run/spread.8")" --argjson s64 "$(list "$run/spread.64")" \
    --argjson bh1 "$(list "$run/batch_hot.1")" --argjson bh4 "$(list "$run/batch_hot.4")" \
    --argjson bs1 "$(list "$run/batch_spread.1")" --argjson bs4 "$(list "$run/batch_spread.4")" \
    --argjson ra "$(list "$run/rated.all")" --argjson ro "$(list "$run/rated.one")" \
    --argjson lag "$(list "$run/lag")" '
    def median: sort | .[(length - 1) / 2 | floor];
    def spread: (max - min) / median;
    {name: "ledger", metrics: {
        "ledger.pgbench_1_per_s": ($p1 | median), "ledger.pgbench_8_per_s": ($p8 | median), "ledger.pgbench_64_per_s": ($p64 | median),
        "ledger.pgbench_64_spread": ($p64 | spread),
        "ledger.single_hot_1_per_s": ($h1 | median), "ledger.single_hot_8_per_s": ($h8 | median), "ledger.single_hot_64_per_s": ($h64 | median),
        "ledger.single_spread_1_per_s": ($s1 | median), "ledger.single_spread_8_per_s": ($s8 | median), "ledger.single_spread_64_per_s": ($s64 | median),
        "ledger.batch_hot_1_per_s": ($bh1 | median * 1000), "ledger.batch_hot_4_per_s": ($bh4 | median * 1000),
        "ledger.batch_spread_1_per_s": ($bs1 | median * 1000), "ledger.batch_spread_4_per_s": ($bs4 | median * 1000),
        "ledger.batch_spread": ($bs1 | spread),
        "ledger.batch_vs_pgbench_64": ([($bs1 | median), ($bs4 | median), ($bh1 | median), ($bh4 | median)] | max * 1000 / ($p64 | median)),
        "ledger.hot_vs_spread": (($bs1 | median) / ($bh1 | median)),
        "ledger.rated_per_s": ($ra | median), "ledger.rated_spread": ($ra | spread), "ledger.rated_once_per_s": ($ro | median),
        "ledger.lag_p50_ms": ($lag | median), "ledger.lag_max_ms": ($lag | max)},
     note: "one machine, also runs the load; batches are of 1,000 transfers, with 1 or 4 clients; hot: one guarded account, spread: 1,000; hot_vs_spread is the cost of the hot case over that of the spread one; rated: 2,000 leases with some receipts each (rated_once: one each), with capture, fee, meter, hold and the log'"'"'s queue; lag: billd with interval 1 s and 2,000 leases reporting once a minute"}' >"$out"
