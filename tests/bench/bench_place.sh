#!/usr/bin/env bash
# bench_place OUT.json: are the places right?
#   place.differences  placements of random small markets that differ from trying every
#                      place, node and start (tests/model/model_place)
#   place.vs_ilp       40 waiting requests placed at once, the queue's answer improved in
#                      sum (server/core/improve, nobody pays more than 50 % more than in
#                      queue order): effective cost over that of the exact optimum by cbc,
#                      which serves as many; median over batches
# and beside it the same without improvement, with 25 %, and without that limit. A batch that cbc does not solve in time is left out and counted.
set -euo pipefail
out=$1
build=$NEARGPU_BUILD
batches=${BENCH_BATCHES:-15}
markets=${BENCH_MARKETS:-2000}
command -v cbc >/dev/null || { echo "bench place: cbc is missing: apt-get install coinor-cbc" >&2; exit 1; }
run=$(mktemp -d "${TMPDIR:-/tmp}/neargpu-bench.XXXXXX")
trap 'rm -rf "$run"' EXIT
"$build/tests/model/model_place" 1 "$markets" >"$run/model" || true
read -r questions differences < <(sed -n 's/^\([0-9]*\) questions, \([0-9]*\) differences$/\1 \2/p' "$run/model")

unsolved=0
for seed in $(seq "$batches"); do
    "$build/tests/bench/place_batch" "$seed" "$run/batch.lp" >"$run/ours"
    rm -f "$run/best"
    # Costs are some hundred in sum: a gap of 0.1 is less than 0.05 %.
    timeout 120 cbc "$run/batch.lp" allow 0.1 sec 30 solve solution "$run/best" >"$run/cbc.log" 2>&1 || true
    if ! grep -q '^Optimal' "$run/best" 2>/dev/null; then
        unsolved=$((unsolved + 1))
        continue
    fi
    # Column 4 is cost - 10000, so that serving counts first.
    awk '$2 ~ /^x_/ && $3 > 0.5 {n++; c += $4 + 10000} END {printf "{\"served\": %d, \"cost\": %.6f}\n", n, c}' \
        "$run/best" >"$run/exact"
    jq -c --slurpfile exact "$run/exact" '. + {exact: $exact[0]}' "$run/ours" >>"$run/all"
done
jq -s --argjson questions "$questions" --argjson differences "$differences" --argjson unsolved "$unsolved" '
    def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
    def round4: . * 10000 | round / 10000;
    def ratio(f): map(select((f | .served) == .exact.served) | (f | .cost) / .exact.cost);
    {name: "place",
     metrics: {
        "place.differences": $differences, "place.questions": $questions,
        "place.vs_ilp": (ratio(.rise50) | median | round4),
        "place.vs_ilp_max": (ratio(.rise50) | max | round4),
        "place.vs_ilp_queue_order": (ratio(.queue) | median | round4),
        "place.vs_ilp_queue_order_max": (ratio(.queue) | max | round4),
        "place.vs_ilp_rise25": (ratio(.rise25) | median | round4),
        "place.vs_ilp_unlimited": (ratio(.improved) | median | round4),
        "place.largest_rise": (map(.rise50.worst_rise) | median | round4),
        "place.served_less_than_ilp": (map(select(.rise50.served < .exact.served)) | length),
        "place.queue_served_less_than_ilp": (map(select(.queue.served < .exact.served)) | length),
        "place.improve_ms": (map(.rise50.ms) | median | round4),
        "place.batches": length, "place.unsolved": $unsolved},
     note: "40 requests, 24 nodes of 8 GPUs at 6 sites; 1 is the optimum; queue_order: each takes the best place left when its turn comes; vs_ilp: then improved in sum, every start kept, nobody pays more than 50 % more than in queue order (rise25: 25 %, unlimited: no such limit); largest_rise: how much more the request that lost most pays than in queue order (1 = 100 %), median over batches"}
    ' "$run/all" >"$out"
