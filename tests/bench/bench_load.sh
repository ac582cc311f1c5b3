#!/usr/bin/env bash
# bench_load OUT.json: how long a server takes from its start until it serves a market of
# a million GPUs (125,000 nodes of 8 in 200 sites, 14 days ahead, 70 % booked), beside the
# time psql takes to read the same rows and drop them: that is the limit. Medians of the
# starts. BENCH_NODES makes it smaller.
# shellcheck disable=SC2154,SC2034 # build is used by, server_pid and server_addr are set by market.sh
set -euo pipefail
out=$1
build=$NEARGPU_BUILD
[ "$(id -u)" = 0 ] || { echo "bench_load needs root (embedded cluster under its own user)" >&2; exit 1; }
run=$(mktemp -d /var/tmp/neargpu-bench.XXXXXX)
chmod 755 "$run"
# shellcheck source=tests/system/market.sh
. "$NEARGPU_SRC/tests/system/market.sh"
trap 'market_stop; rm -rf "$run"' EXIT
nodes=${BENCH_NODES:-125000}
rounds=${BENCH_ROUNDS:-3}

server_start
login admin "$run/server/admin.key"
tenant_create bench 1000000000
psql_admin() { psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$run/server/run" -U postgres -d neargpu "$@"; }
# Straight into the tables, without their checks: what is measured is reading them. Twenty
# bookings a node: two halves of it, ten leases of a day to 1.5 each, with gaps.
psql_admin <<SQL
    SET session_replication_role = replica;
    SET synchronous_commit = off;
    SET maintenance_work_mem = '1GB';
    SET max_parallel_maintenance_workers = 0;
    ALTER TABLE ng.booking DROP CONSTRAINT booking_no_double;
    INSERT INTO ng.site (name, city, lat, lon, residency)
    SELECT 's' || i, 'City', -60 + (i * 37) % 120, -180 + (i * 61) % 360, 'jp' FROM generate_series(1, 200) i;
    INSERT INTO ng.provider (name) VALUES ('bench-gpu');
    INSERT INTO ng.node (site_id, provider_id, name, spiffe_id, cert_sha256, receipt_key, gpus, gpu_model, gpu_memory_mib, offered, state, last_sync_at)
    SELECT s.id, p.id, 'n' || i, 'spiffe://bench/' || i, sha256(('c' || i)::bytea), sha256(('r' || i)::bytea),
           int4range(i * 8, i * 8 + 8), 'H100-SXM5-80GB', 81559, 255, 'up', now() + interval '1 day'
      FROM generate_series(1, $nodes) i JOIN ng.site s ON s.name = 's' || (1 + i % 200), ng.provider p;
    INSERT INTO ng.gpu (no, node_id, ix, uuid, model, memory_mib, minor, state)
    SELECT lower(n.gpus) + g, n.id, g, 'GPU-' || lpad((n.id * 8 + g)::text, 36, '0'), n.gpu_model, n.gpu_memory_mib, g, 'idle'
      FROM ng.node n, generate_series(0, 7) g;
    INSERT INTO ng.price (node_id, during, currency, per_gpu_hour_micro, set_by)
    SELECT id, tstzrange(now(), NULL), 'USD', 1990000 + site_id, 'bench' FROM ng.node;
    CREATE TEMP TABLE lease AS
    SELECT n.id AS node, n.site_id AS site, gen_random_uuid() AS resv, half, lower(n.gpus) + half * 4 AS first,
           now() + (k * 33.6 + random() * 9) * interval '1 hour' AS f, (22 + random() * 2) * interval '1 hour' AS len
      FROM ng.node n, generate_series(0, 1) half, generate_series(0, 9) k;
    INSERT INTO ng.reservation (id, tenant_id, state, created_at, during, request, currency, per_hour_micro, total_micro,
        effective_micro, fee_ppm, idem_key, idem_hash)
    SELECT resv, t.id, 'confirmed', now(), tstzrange(f, f + len), '{}', 'USD', 0, 0, 0, 0, resv, sha256('x'::bytea)
      FROM lease, ng.tenant t WHERE t.name = 'bench';
    INSERT INTO ng.booking (reservation_id, node_id, site_id, gpus, during, epoch, per_gpu_hour_micro)
    SELECT resv, node, site, int4range(first, first + 4), tstzrange(f, f + len), 0, 0 FROM lease;
    ANALYZE;
SQL
bookings=$(psql_admin -c 'SELECT count(*) FROM ng.booking')
booked=$(psql_admin -c "SELECT sum(extract(epoch FROM upper(during) - lower(during)) * (upper(gpus) - lower(gpus))) / ($nodes * 8.0 * 14 * 86400) FROM ng.booking")
for round in $(seq "$rounds"); do
    kill -TERM "$server_pid"
    wait_for 60 pid_gone "$server_pid"
    from=$(date +%s%N)
    server_start
    echo "$((($(date +%s%N) - from) / 1000000))" >>"$run/ready"
    awk '/^VmHWM/ {print $2}' "/proc/$server_pid/status" >>"$run/hwm"
    grep 'world:' "$run/neargpud.log" | tail -n 1 >&2 || true
    from=$(date +%s%N)
    for table in "world_nodes(NULL)" "world_bookings(0)"; do
        psql_admin -c "SELECT * FROM api.$table" >/dev/null
    done
    echo "$((($(date +%s%N) - from) / 1000000))" >>"$run/psql"
    echo "start $(tail -n 1 "$run/ready") ms, psql $(tail -n 1 "$run/psql") ms" >&2
done
jq -n --slurpfile r "$run/ready" --slurpfile p "$run/psql" --slurpfile m "$run/hwm" --argjson nodes "$nodes" --argjson bookings "$bookings" --argjson booked "$booked" '
    def median: sort | .[(length - 1) / 2 | floor];
    def spread: (max - min) / median;
    {name: "load", metrics: {"load.ready_s": (($r | median) / 1000), "load.ready_spread": ($r | spread), "load.psql_s": (($p | median) / 1000),
        "load.vs_psql": (($r | median) / ($p | median)), "load.nodes": $nodes, "load.gpus": ($nodes * 8), "load.bookings": $bookings,
        "load.booked": $booked, "load.rss_mib": (($m | median) / 1024 | floor)},
     note: "start of neargpud with its cluster until /readyz answers 200; psql reads the two large tables through the same functions"}' >"$out"
