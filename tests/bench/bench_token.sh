#!/usr/bin/env bash
# bench_token RESULT.json: token checks beside bare verification (bench_token) and beside
# the JOSE libraries of Debian (token_peers.c, compiled here where they are installed:
# XS-Bench-Depends). Figures of both runs in one file.
set -euo pipefail
out=$1
src=$NEARGPU_SRC
build=$NEARGPU_BUILD
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$(dirname "$out")"
"$build/tests/bench/bench_token" "$tmp/own.json"
if pkg-config --exists librhonabwy cjose; then
    # shellcheck disable=SC2046
    cc -std=gnu17 -D_GNU_SOURCE -O2 -I"$src" -I"$build" -o "$tmp/peers" "$src/tests/bench/token_peers.c" \
        "$build/client/lib/libng.a" "$build/client/lib/libng_pure.a" \
        $(pkg-config --cflags --libs librhonabwy cjose jansson libcrypto) -lm
    "$tmp/peers" "$tmp/peers.json"
else
    echo "bench_token: librhonabwy-dev and libcjose-dev are not installed: no comparison with them" >&2
    echo '{}' >"$tmp/peers.json"
fi
jq -s '.[0].metrics += .[1] | .[0]' "$tmp/own.json" "$tmp/peers.json" >"$out"
