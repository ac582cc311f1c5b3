#!/usr/bin/env bash
# bench_sim OUT.json: neargpu-sim over public data, the four policies side by side on the
# same files with the same seeds. NEARGPU_DATA names the folder with nodes_openb.csv,
# jobs_openb_default.csv, rtt_aws_p50_ms.csv, japan_shortest_paths.csv,
# prices_aws_gpu_by_region.csv and workload_profiles.csv; without it, `data` in or beside
# the source tree is looked at. Markets (bench_sim_files.py says how they are made):
#   sim.*       32 AWS regions, 6,212 GPUs, prices by region; room for everybody
#   sim.busy_*  the same regions, a sixth of the nodes, jobs 200 times as fast, --wait fifo
#   sim.jpn_*   25 cities of Japan by fibre, one price
set -euo pipefail
out=$1
sim=$NEARGPU_BUILD/server/neargpu-sim
here=$(dirname "$(readlink -f "$0")")
seeds=${BENCH_SEEDS:-"1 2 3 4 5"}
data=''
for d in "${NEARGPU_DATA:-}" "$NEARGPU_SRC/data" "$NEARGPU_SRC/../data" "$NEARGPU_SRC/../shared/data"; do
    if [ -n "$d" ] && [ -r "$d/jobs_openb_default.csv" ]; then
        data=$(readlink -f "$d")
        break
    fi
done
if [ -z "$data" ]; then
    echo "bench sim: SKIPPED: no folder with the public data; name it in NEARGPU_DATA" >&2
    jq -n '{name: "sim", metrics: {}, note: "skipped: no folder with the public data; name it in NEARGPU_DATA"}' >"$out"
    exit 0
fi
run=$(mktemp -d "${TMPDIR:-/tmp}/neargpu-bench.XXXXXX")
trap 'rm -rf "$run"' EXIT
python3 "$here/bench_sim_files.py" "$data" "$run"
cd "$run"

# replay MARKET FILES…: each policy with each seed, one JSON line each into runs.
replay() {
    local market=$1 seed policy
    shift
    for seed in $seeds; do
        for policy in neargpu nearest cheapest random; do
            "$sim" "$@" --profiles "$data/workload_profiles.csv" --policy $policy --seed "$seed" |
                jq -c --arg market "$market" '{$market} + .' >>runs
        done
    done
}
replay '' --nodes nodes.csv --jobs jobs.csv --rtt rtt_aws.csv --prices prices.csv
replay busy_ --nodes nodes_few.csv --jobs jobs_dense.csv --rtt rtt_aws.csv --prices prices.csv --wait fifo
replay jpn_ --nodes nodes.csv --jobs jobs.csv --rtt rtt_jpn.csv
# Ratios are of runs with the same seed (same data sites); then the median over seeds.
jq -s '
    def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
    def round4: . * 10000 | round / 10000;
    def of($m; $p): map(select(.market == $m and .policy == $p)) | sort_by(.seed);
    def ratio($m; $a; $b; f): [of($m; $a), of($m; $b)] | transpose | map((.[0] | f) / (.[1] | f));
    . as $runs |
    if any(group_by([.market, .seed])[]; [.[].placed] | unique | length > 1)
    then error("policies placed different numbers of jobs: their costs cannot be compared") else . end |
    [("", "busy_", "jpn_") as $m |
        ({key: "cost_vs_nearest", v: ($runs | ratio($m; "neargpu"; "nearest"; .effective_cost))},
         {key: "cost_vs_cheapest", v: ($runs | ratio($m; "neargpu"; "cheapest"; .effective_cost))},
         {key: "cost_vs_random", v: ($runs | ratio($m; "neargpu"; "random"; .effective_cost))},
         {key: "slowdown_vs_nearest", v: ($runs | ratio($m; "neargpu"; "nearest"; .slowdown_mean))},
         {key: "slowdown_vs_cheapest", v: ($runs | ratio($m; "neargpu"; "cheapest"; .slowdown_mean))},
         {key: "waited", v: ($runs | of($m; "neargpu") | map(.waited))},
         {key: "jobs_per_s", v: ($runs | of($m; "neargpu") | map(.jobs / .ns_run * 1e9 | round))})
        | ({key: ("sim." + $m + .key), value: (.v | median | round4)},
           {key: ("sim." + $m + .key + "_min"), value: (.v | min | round4)},
           {key: ("sim." + $m + .key + "_max"), value: (.v | max | round4)})]
    | from_entries as $metrics
    | {name: "sim",
       metrics: ($metrics + {"sim.jobs": $runs[0].jobs, "sim.gpus": $runs[0].gpus,
                             "sim.match_p50_ns": ($runs | of(""; "neargpu") | map(.ns_per_match_p50) | median),
                             "sim.match_p99_ns": ($runs | of(""; "neargpu") | map(.ns_per_match_p99) | median)}),
       note: ("medians over " + ($runs | map(.seed) | unique | length | tostring) + " seeds (with the smallest and largest); effective cost and mean slow-down of policy neargpu divided by the same of nearest, cheapest, random on the same files and seed; jobs per second of the whole replay, one core; markets: 32 AWS regions, busy_ the same with a sixth of the nodes and jobs 200 times as fast (fifo), jpn_ 25 cities of Japan at one price")}
    ' runs >"$out"
