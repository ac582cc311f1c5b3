#!/usr/bin/env bash
# bench BUILD_DIR [NAME…]: runs the benchmarks; each writes BUILD_DIR/bench/NAME.json and
# prints it. A benchmark is a program tests/bench/bench_NAME or a script bench_NAME.sh.
set -uo pipefail
build=$1
shift
here=$(dirname "$(readlink -f "$0")")
export NEARGPU_BUILD=$build NEARGPU_SRC=${here%/tests/bench}
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(token book match sim place lease ledger log reports)
status=0
for name in "${names[@]}"; do
    out=$build/bench/$name.json
    if [ -x "$here/bench_$name.sh" ]; then
        "$here/bench_$name.sh" "$out" || status=1
    elif [ -x "$build/tests/bench/bench_$name" ]; then
        "$build/tests/bench/bench_$name" "$out" || status=1
    else
        echo "bench: no benchmark '$name'" >&2
        status=1
        continue
    fi
    [ -s "$out" ] && jq . "$out"
done
exit $status
