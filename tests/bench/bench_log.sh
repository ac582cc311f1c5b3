#!/usr/bin/env bash
# shellcheck disable=SC2154,SC2034 # variables are set by, and for, market.sh
# bench_log OUT.json: leaves per second that billd takes from the ledger, hashes, appends and
# signs, durably; beside it the tree alone in memory (no database), and proofs at 10 million leaves.
set -euo pipefail
out=$1
build=$NEARGPU_BUILD
[ "$(id -u)" = 0 ] || { echo "bench_log needs root (embedded cluster under its own user)" >&2; exit 1; }
run=$(mktemp -d /var/tmp/neargpu-bench.XXXXXX)
chmod 755 "$run"
# shellcheck source=tests/system/market.sh
. "$NEARGPU_SRC/tests/system/market.sh"
trap 'market_stop; rm -rf "$run"' EXIT
rounds=${BENCH_ROUNDS:-3}
leaves=${BENCH_LEAVES:-20000}

server_start
psql_admin() { psql -X -q -At -v ON_ERROR_STOP=1 -h "$run/server/run" -U postgres -d neargpu "$@"; }
psql_admin -c "SELECT api.tenant_create('bench', 'UTC', NULL, sha256('x'), 'a', NULL, NULL)" >/dev/null
for round in $(seq 0 "$rounds"); do
    psql_admin -c "SELECT count(ng.post('topup', ng.account_of('bank', NULL, NULL, ng.currency()), a.id, ng.currency(), 1000, NULL, NULL))
        FROM ng.account a, generate_series(1, $leaves) WHERE a.kind = 'wallet'" >/dev/null
    start=$(date +%s%N)
    "$neargpu_billd" --data-dir "$run/server" --once >/dev/null 2>&1
    took=$((($(date +%s%N) - start) / 1000))
    [ "$round" = 0 ] || echo "$((leaves * 1000000 / took))" >>"$run/durable" # the first makes the key
done
[ "$(psql_admin -c 'SELECT count(*) FROM ng.log_todo')" = 0 ] || { echo "bench_log: not all was logged" >&2; exit 1; }
for _ in $(seq "$rounds"); do "$build/tests/bench/log_tree" "${BENCH_TREE:-10000000}" >>"$run/tree"; done
jq -n --slurpfile t "$run/tree" --argjson d "[$(paste -sd, "$run/durable")]" '
    def median: sort | .[(length - 1) / 2 | floor];
    {name: "log", metrics: {
        "log.leaves_per_s": ($d | median), "log.leaves_spread": (($d | max - min) / ($d | median)),
        "log.tree_per_s": ($t | map(.append_per_s) | median),
        "log.proof_us": ($t | map(.proof_us) | median), "log.check_us": ($t | map(.check_us) | median),
        "log.proof_bytes": $t[0].proof_bytes, "log.extension_us": ($t | map(.extension_p50_us) | median), "log.tree_leaves": $t[0].leaves},
     note: "leaves_per_s: one round of billd with rows of the ledger, from the queue to the signed head, durable; proof_us: an inclusion proof made and checked, in memory; extension_us: made, old root computed and checked, median"}' >"$out"
