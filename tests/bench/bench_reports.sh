#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables are set by market.sh
# bench_reports OUT.json: each report for a month from roll-ups over 10 million rows of use
# (BENCH_USAGE), p95 of BENCH_RUNS runs over the months of a year, beside what raw rows take in
# the same run; what the roll-ups cost, and what a row of use takes on disk.
set -euo pipefail
out=$1
build=$NEARGPU_BUILD
[ "$(id -u)" = 0 ] || { echo "bench_reports needs root (embedded cluster under its own user)" >&2; exit 1; }
run=$(mktemp -d /var/tmp/neargpu-bench.XXXXXX)
chmod 755 "$run"
# shellcheck source=tests/system/market.sh
. "$NEARGPU_SRC/tests/system/market.sh"
trap 'market_stop; rm -rf "$run"' EXIT
rows=${BENCH_USAGE:-10000000}
matches=${BENCH_MATCHES:-1000000} # in the 90 days that they are kept
runs=${BENCH_RUNS:-20}

server_start
psql_admin() { psql -X -q -At -v ON_ERROR_STOP=1 -h "$run/server/run" -U postgres -d neargpu "$@"; }
since() { echo "$(($(date +%s%N) / 1000000 - $1))"; }
now_ms() { echo "$(($(date +%s%N) / 1000000))"; }

# A year: 400 nodes of 8 GPUs, 10 sites, 20 providers, 100 tenants. Leases of 96 hours, one row an
# hour each; as many at a time as make the rows. Their months are parts of their own, as billd
# would have made them.
leases=$(((rows + 8759) / 8760))
[ "$leases" -le 3200 ] || { echo "bench_reports: at most 28 million rows" >&2; exit 1; }
start=$(now_ms)
psql_admin -v leases="$leases" -v matches="$matches" >"$run/load.out" <<'SQL'
CREATE SCHEMA bench;
CREATE FUNCTION bench.since() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT date_trunc('month', now(), 'UTC') - interval '12 months' $$;
INSERT INTO ng.site (name, city, lat, lon, residency) SELECT 's' || i, 'C' || i, 35, 135 + i, 'jp' FROM generate_series(0, 9) i;
INSERT INTO ng.provider (name) SELECT 'p' || i FROM generate_series(0, 19) i;
INSERT INTO ng.tenant (name) SELECT 't' || i FROM generate_series(0, 99) i;
INSERT INTO ng.node (site_id, provider_id, name, spiffe_id, receipt_key, gpus, gpu_model, gpu_memory_mib, offered, state, last_sync_at, enrolled_at)
SELECT s.id, p.id, 'n' || i, 'spiffe://bench/' || i, sha256(('r' || i)::bytea), int4range(i * 8 + 1, i * 8 + 9),
       (ARRAY['H100-SXM5-80GB', 'A100-SXM4-80GB', 'L40S'])[1 + i / 20 % 3], 81559, 255, 'up', now(), bench.since()
  FROM generate_series(0, 399) i JOIN ng.site s ON s.name = 's' || i % 10 JOIN ng.provider p ON p.name = 'p' || i % 20;
DO $$ BEGIN
    FOR i IN 0 .. 11 LOOP
        EXECUTE format('CREATE TABLE ng.usage_%s PARTITION OF ng.usage FOR VALUES FROM (%L) TO (%L)',
            to_char(bench.since() + make_interval(months => i), 'YYYY_MM'), bench.since() + make_interval(months => i),
            bench.since() + make_interval(months => i + 1));
        EXECUTE format('ALTER TABLE ng.usage_%s OWNER TO neargpu_owner', to_char(bench.since() + make_interval(months => i), 'YYYY_MM'));
    END LOOP;
END $$;
CREATE TABLE bench.lease AS
SELECT c * 4000 + s AS no, md5('lease' || c * 4000 + s)::uuid AS id, bench.since() + c * interval '96 hours' AS at, s, n.id AS node, n.site_id, n.provider_id,
       n.gpu_model, lower(n.gpus) + s / 400 AS gpu, t.id AS tenant, (s + c) % 5 = 0 AS spot
  FROM generate_series(0, 8760 / 96 - 1) c CROSS JOIN generate_series(0, :leases - 1) s
  JOIN ng.node n ON n.name = 'n' || s % 400 JOIN ng.tenant t ON t.name = 't' || (s * 7 + c * 13) % 100;
SET session_replication_role = replica;
INSERT INTO ng.reservation (id, tenant_id, state, created_at, during, request, data, currency, per_hour_micro, total_micro, effective_micro,
    fee_ppm, idem_key, idem_hash, spot, preempted_at)
SELECT id, tenant, 'ended', at - (no % 500) * interval '1 minute', tstzrange(at, at + interval '96 hours'), '{}',
       jsonb_build_array(jsonb_build_object('name', 'd', 'site', 's' || no % 10, 'rtt_us', 9000)), 'JPY', 300000000, 1, 1, 50000, no::text,
       sha256(no::text::bytea), spot, CASE WHEN spot AND no % 7 = 0 THEN at + interval '5 hours' END FROM bench.lease ORDER BY at;
INSERT INTO ng.booking (reservation_id, node_id, site_id, gpus, during, epoch, per_gpu_hour_micro, notice_us)
SELECT id, node, site_id, int4range(gpu, gpu + 1), tstzrange(at, at + interval '96 hours'), 1, 300000000, CASE WHEN spot THEN 60000000 END
  FROM bench.lease ORDER BY at;
INSERT INTO ng.meter (reservation_id, node_id, gpu_ms) SELECT id, node, 96 * 3600000::bigint FROM bench.lease;
INSERT INTO ng.quote (id, tenant_id, created_at, expires_at, request, plan, hash)
SELECT md5('quote' || no)::uuid, tenant, at - interval '1 day', at, '{}', '{}', sha256('q') FROM bench.lease ORDER BY at;
SET session_replication_role = origin;
SQL
psql_admin -v matches="$matches" >>"$run/load.out" <<'SQL'
INSERT INTO ng.match_log (at, kind, outcome, match_us, gpu_model, gpus, duration_s, why)
SELECT now() - interval '90 days' * (1 - i / :matches::float8), (ARRAY['offers', 'quote', 'reserve'])[1 + i % 3],
       CASE WHEN i % 11 = 0 THEN 'no_fit' ELSE 'ok' END, 50 + (random() ^ 4 * 5000)::integer, (ARRAY['H100-SXM5-80GB', 'A100-SXM4-80GB', ''])[1 + i % 3],
       1 + i % 8, 3600 * (1 + i % 20), CASE WHEN i % 11 = 0 THEN (ARRAY['price', 'rtt', 'capacity'])[1 + i % 3] ELSE '' END
  FROM generate_series(1, :matches) i;
SQL
echo "leases, bookings, matches: $(since "$start") ms" >&2
start=$(now_ms)
for month in $(seq 0 11); do
    psql_admin -c "
        INSERT INTO ng.usage (at, used_at, quantity_ms, amount_micro, fee_micro, late_ms, reservation_id, tenant_id, provider_id, site_id,
            node_id, spot, currency, gpu_model)
        SELECT h + interval '1 hour 5 s', h, 3600000, CASE WHEN spot THEN 120000000 ELSE 300000000 END, CASE WHEN spot THEN 6000000 ELSE 15000000 END,
               CASE WHEN l.no % 100 = 0 THEN 400000 ELSE 2000 END, l.id, l.tenant, l.provider_id, l.site_id, l.node, l.spot, 'JPY', l.gpu_model
          FROM generate_series(bench.since() + make_interval(months => $month),
                               bench.since() + make_interval(months => $month + 1) - interval '1 hour', interval '1 hour') h
          JOIN bench.lease l ON l.at = bench.since() + floor(extract(epoch FROM h - bench.since()) / 345600) * interval '96 hours'
         ORDER BY h"
done
load_ms=$(since "$start")
psql_admin -c "DROP SCHEMA bench CASCADE" 2>/dev/null
psql_admin -c "VACUUM ANALYZE" -c "UPDATE ng.roll_state SET done_to = date_trunc('month', now(), 'UTC') - interval '12 months' WHERE kind IN ('capacity', 'orders')"
count=$(psql_admin -c "SELECT count(*) FROM ng.usage")
bytes=$(psql_admin -c "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'ng.usage'::regclass")
echo "use: $count rows in $load_ms ms, $bytes bytes" >&2

# What is marked, as billd does it: one transaction a day of a kind.
declare -A rolled
for kind in capacity use money match orders; do
    start=$(now_ms)
    psql_admin -c "DO \$\$ BEGIN LOOP EXIT WHEN NOT api.billing_rollup('$kind'); COMMIT; END LOOP; END \$\$"
    rolled[$kind]=$(since "$start")
    echo "roll-up $kind: ${rolled[$kind]} ms" >&2
done
psql_admin -c "VACUUM ANALYZE" -c CHECKPOINT
[ "$(psql_admin -c "SELECT count(*) FROM report.check_rollup")" = 0 ] || { echo "bench_reports: the roll-ups are not the sum of their rows" >&2; exit 1; }

# One connection, as a server's; each run another month, matches in the last two.
timed() { # timed NAME SQL: milliseconds of $2 in $3 runs, one a line; %M is the month of a run
    local i
    {
        echo '\timing on'
        echo '\o /dev/null'
        for i in $(seq 0 "$3"); do
            printf '%s\n' "${2//%M/$((i * 5 % $4 + 1))}"
        done
    } | psql_admin -U neargpu_report | awk '/^Time:/ {print $2}' | tail -n +2 >"$run/time.$1"
}
from="date_trunc('month', now(), 'UTC') - make_interval(months => %M)"
to="date_trunc('month', now(), 'UTC') - make_interval(months => %M - 1)"
for line in $(psql_admin -c "SELECT name || ',' || period || ',' || ('match' = ANY (rolls)) FROM report.catalog ORDER BY 1"); do
    IFS=, read -r name period matched <<<"$line"
    args="'$name'"
    [ "$period" = true ] && args="'$name', $from, $to"
    months=11
    [ "$matched" = true ] && months=2
    timed "$name" "SELECT report.run($args);" "$runs" "$months"
done
# The same questions to the rows.
raw() {
    PGOPTIONS='-c role=neargpu_owner' timed "raw.$1" "$2" 4 "$3"
}
timed_user=$(declare -f timed | sed 's/-U neargpu_report/-U postgres/')
eval "$timed_user"
period="at >= $from AND at < $to"
used="used_at >= $from AND used_at < $to"
raw provider_revenue "SELECT date_trunc('day', at, 'UTC'), provider_id, site_id, currency, count(DISTINCT reservation_id), sum(amount_micro), sum(fee_micro) FROM ng.usage WHERE $period GROUP BY 1, 2, 3, 4;" 11
raw top_tenants "SELECT tenant_id, currency, sum(quantity_ms), sum(amount_micro) FROM ng.usage WHERE $period GROUP BY 1, 2;" 11
raw price_index "SELECT date_trunc('day', at, 'UTC'), gpu_model, currency, sum(amount_micro) / sum(quantity_ms) FROM ng.usage WHERE $period AND NOT spot GROUP BY 1, 2, 3;" 11
raw late_usage "SELECT date_trunc('day', used_at, 'UTC'), site_id, provider_id, count(*), count(*) FILTER (WHERE late_ms > 300000) FROM ng.usage WHERE $used GROUP BY 1, 2, 3;" 11
raw reserved_coverage "SELECT date_trunc('day', used_at, 'UTC'), site_id, gpu_model, sum(quantity_ms) FILTER (WHERE spot), sum(quantity_ms) FROM ng.usage WHERE $used GROUP BY 1, 2, 3;" 11
raw match_latency "SELECT date_trunc('day', at, 'UTC'), kind, percentile_cont(ARRAY[0.5, 0.95, 0.99, 0.999]) WITHIN GROUP (ORDER BY match_us) FROM ng.match_log WHERE $period GROUP BY 1, 2;" 2
raw demand_heatmap "SELECT extract(isodow FROM at), extract(hour FROM at), count(*), sum(gpus::bigint * duration_s) FROM ng.match_log WHERE $period GROUP BY 1, 2;" 2

p95() { sort -n "$1" | awk '{v[NR] = $1} END {i = int(0.95 * NR + 0.999999); print v[i]}'; }
median() { sort -n "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
for file in "$run"/time.*; do
    name=${file#"$run"/time.}
    case $name in
    raw.*) echo "{\"reports.raw_ms.${name#raw.}\": $(median "$file")}" ;;
    *) echo "{\"reports.p95_ms.$name\": $(p95 "$file"), \"reports.p50_ms.$name\": $(median "$file")}" ;;
    esac
done | jq -s add >"$run/times.json"
jq -n --slurpfile t "$run/times.json" --argjson count "$count" --argjson bytes "$bytes" --argjson load "$load_ms" --argjson matches "$matches" \
    --argjson use "${rolled[use]}" --argjson money "${rolled[money]}" --argjson match "${rolled[match]}" --argjson capacity "${rolled[capacity]}" \
    --argjson orders "${rolled[orders]}" --argjson runs "$runs" '
    ($t[0] | to_entries | map(select(.key | startswith("reports.p95_ms."))) | max_by(.value)) as $worst
    | {name: "reports", metrics: ({
        "reports.worst_p95_ms": $worst.value, "reports.rollup_s_per_m": (($use + $money) / 1000 / ($count / 1000000)),
        "reports.rollup_match_s_per_m": ($match / 1000 / ($matches / 1000000)), "reports.rollup_capacity_year_s": ($capacity / 1000),
        "reports.rollup_orders_year_s": ($orders / 1000), "reports.usage_rows": $count, "reports.bytes_per_usage_row": ($bytes / $count),
        "reports.usage_insert_per_s": ($count / $load * 1000)} + $t[0]),
      note: "worst: \($worst.key); one month each, \($runs) runs over the months of a year; from SQL, by the reports'"'"' role; raw: median of 4"}' >"$out"
