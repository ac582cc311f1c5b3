#!/usr/bin/env bash
# bench_lease OUT.json: what holding a node to its leases costs. With 64 running leases:
# grant to exec, end to the first refused open, end to an empty lease, revocation to an
# empty lease (lease_load: the real kernel, devices of an unused major). Then an enrolled
# agent with 8 simulated GPUs and nothing to do: its processor time and memory, all its
# processes together.
# shellcheck disable=SC2154 # variables of market.sh
set -euo pipefail
out=$1
build=$NEARGPU_BUILD
[ "$(id -u)" = 0 ] || { echo "bench_lease needs root" >&2; exit 1; }
run=$(mktemp -d /srv/neargpu-bench.XXXXXX)
chmod 755 "$run"
# shellcheck source=tests/system/market.sh
. "$NEARGPU_SRC/tests/system/market.sh"
trap 'market_stop; rm -rf "$run"' EXIT
seconds=${BENCH_SECONDS:-20}

"$build/tests/bench/lease_load" | sed -n '/^{$/,/^}$/p' >"$run/load.json"
jq -e . "$run/load.json" >/dev/null

server_start
login admin "$run/server/admin.key"
site_prepare tokyo
agent_start tokyo
wait_for 30 nodes_up 1
sleep 5 # enrolment, first sync and first samples are over

agent_pids() { # the agent and what it started
    local pid
    pid=$(cat "$run/agents/tokyo/pid")
    echo "$pid"
    tr ' ' '\n' <"/proc/$pid/task/$pid/children" | grep . || true
}
ticks() { # processor time so far, in clock ticks
    local pid sum=0
    for pid in $(agent_pids); do
        sum=$((sum + $(sed 's/.*) //' "/proc/$pid/stat" | awk '{print $12 + $13}')))
    done
    echo $sum
}
before=$(ticks)
sleep "$seconds"
after=$(ticks)
rss=0
count=0
for pid in $(agent_pids); do
    rss=$((rss + $(awk '/^VmRSS/ {print $2}' "/proc/$pid/status")))
    count=$((count + 1))
done
jq -n --slurpfile l "$run/load.json" --argjson ticks $((after - before)) --argjson hz "$(getconf CLK_TCK)" \
    --argjson s "$seconds" --argjson rss "$rss" --argjson n "$count" '
    $l[0] as $l | {
      "lease.launch_p99_ms": ($l.launch.p99 / 1000), "lease.end_refused_p99_us": $l.end_refused.p99,
      "lease.end_empty_p99_ms": ($l.end_empty.p99 / 1000), "lease.revoke_empty_p99_ms": ($l.revoke_empty.p99 / 1000),
      "lease.agent_cpu_percent": (100 * $ticks / $hz / $s), "lease.agent_rss_mib": (($rss / 1024) * 10 | round / 10),
      "lease.launch_p50_ms": ($l.launch.p50 / 1000), "lease.end_refused_p50_us": $l.end_refused.p50,
      "lease.end_empty_p50_ms": ($l.end_empty.p50 / 1000), "lease.revoke_empty_p50_ms": ($l.revoke_empty.p50 / 1000),
      quantiles_us: $l, agent_processes: $n, running_leases: 64}' >"$out"
