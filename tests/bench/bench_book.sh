#!/usr/bin/env bash
# bench_book OUT.json: durable reservations per second through the whole API (TLS, JSON, matching,
# shellcheck disable=SC2154 # server_pid and server_addr are set by market.sh
# exclusion constraint, ledger hold) with 1, 8 and 64 clients, beside pgbench's one-row
# inserts on the same cluster in the same run. Rounds alternate; medians and spread.
set -euo pipefail
out=$1
build=$NEARGPU_BUILD
[ "$(id -u)" = 0 ] || { echo "bench_book needs root (embedded cluster under its own user)" >&2; exit 1; }
run=$(mktemp -d /var/tmp/neargpu-bench.XXXXXX)
chmod 755 "$run"
# shellcheck source=tests/system/market.sh
. "$NEARGPU_SRC/tests/system/market.sh"
trap 'market_stop; rm -rf "$run"' EXIT
server_options='--rate-limits no' # the load is one tenant's
rounds=${BENCH_ROUNDS:-3}
seconds=${BENCH_SECONDS:-5}

server_start
login admin "$run/server/admin.key"
tenant_create bench 1000000000
# 400 nodes of 8 GPUs at one site, straight into the tables: what is measured is booking.
sql neargpu_owner "
    INSERT INTO ng.site (name, city, lat, lon, residency) VALUES ('tokyo', 'Tokyo', 35.69, 139.69, 'jp');
    INSERT INTO ng.provider (name) VALUES ('bench-gpu');
    INSERT INTO ng.node (site_id, provider_id, name, spiffe_id, cert_sha256, receipt_key, gpus, gpu_model, gpu_memory_mib, offered, state, last_sync_at)
    SELECT s.id, p.id, 'n' || i, 'spiffe://bench/' || i, sha256(('c' || i)::bytea), sha256(('r' || i)::bytea),
           int4range(i * 8, i * 8 + 8), 'H100-SXM5-80GB', 81559, 255, 'up', now() + interval '1 day'
      FROM generate_series(1, 400) i, ng.site s, ng.provider p;
    INSERT INTO ng.gpu (no, node_id, ix, uuid, model, memory_mib, minor, state)
    SELECT lower(n.gpus) + g, n.id, g, 'GPU-' || n.id || '-' || g, n.gpu_model, n.gpu_memory_mib, g, 'idle'
      FROM ng.node n, generate_series(0, 7) g;
    INSERT INTO ng.price (node_id, during, currency, per_gpu_hour_micro, set_by)
    SELECT id, tstzrange(now(), NULL), 'USD', 1990000, 'bench' FROM ng.node;"
kill -TERM "$server_pid"
wait_for 30 pid_gone "$server_pid"
server_start

psql_admin() { psql -X -q -h "$run/server/run" -U postgres -d neargpu "$@"; }
psql_admin -c 'CREATE TABLE public.bench_one (id bigserial PRIMARY KEY, v integer)'
echo 'INSERT INTO bench_one (v) VALUES (1);' >"$run/one.sql"
pgbench_rate() {
    /usr/lib/postgresql/15/bin/pgbench -n -M prepared -f "$run/one.sql" -c "$1" -j "$(($1 < 2 ? 1 : 2))" -T "$seconds" \
        -h "$run/server/run" -U postgres neargpu 2>/dev/null | awk '/^tps/ {print $3}'
}
for round in $(seq "$rounds"); do
    for clients in 1 8 64; do
        pgbench_rate "$clients" >>"$run/pgbench.$clients"
        "$build/tests/bench/book_load" "${server_addr%:*}" "${server_addr##*:}" "$run/server/pki/ca.pem" "$run/bench.key" \
            "$clients" "$seconds" "r$round-$clients" >>"$run/api.$clients" || true
    done
done
for clients in 1 8 64; do
    echo "pgbench $clients: $(paste -sd' ' "$run/pgbench.$clients")" >&2
    jq -c . "$run/api.$clients" >&2
done
jq -n --slurpfile a1 "$run/api.1" --slurpfile a8 "$run/api.8" --slurpfile a64 "$run/api.64" \
    --slurpfile p1 "$run/pgbench.1" --slurpfile p8 "$run/pgbench.8" --slurpfile p64 "$run/pgbench.64" '
    def median: sort | .[(length - 1) / 2 | floor];
    def spread: (max - min) / median;
    {name: "book", metrics: {
        "book.api_1_per_s": ($a1 | map(.per_s) | median), "book.api_8_per_s": ($a8 | map(.per_s) | median),
        "book.api_64_per_s": ($a64 | map(.per_s) | median), "book.api_64_spread": ($a64 | map(.per_s) | spread),
        "book.p50_ms_1": ($a1 | map(.p50_us / 1000) | median), "book.p99_ms_1": ($a1 | map(.p99_us / 1000) | median),
        "book.p50_ms_8": ($a8 | map(.p50_us / 1000) | median), "book.p99_ms_8": ($a8 | map(.p99_us / 1000) | median),
        "book.p50_ms_64": ($a64 | map(.p50_us / 1000) | median), "book.p99_ms_64": ($a64 | map(.p99_us / 1000) | median),
        "book.refused": ([$a1[], $a8[], $a64[]] | map(.refused) | add), "book.failed": ([$a1[], $a8[], $a64[]] | map(.failed) | add),
        "book.pgbench_1_per_s": ($p1 | median), "book.pgbench_8_per_s": ($p8 | median), "book.pgbench_64_per_s": ($p64 | median),
        "book.pgbench_64_spread": ($p64 | spread),
        "book.vs_pgbench_1": (($a1 | map(.per_s) | median) / ($p1 | median)),
        "book.vs_pgbench_8": (($a8 | map(.per_s) | median) / ($p8 | median)),
        "book.vs_pgbench_64": (($a64 | map(.per_s) | median) / ($p64 | median))},
     note: "medians of alternating rounds on one machine that also runs the load; closed loop; 400 nodes x 8 GPUs, 1 GPU 1 h each, starts over 13 days; rate limits off"}' >"$out"
