#!/usr/bin/env bash
# docs BUILD_DIR: documents and programs say the same.
set -uo pipefail
build=$1
bad=0
say() { echo "$*"; bad=1; }
for p in client/cli/neargpu:1 client/agent/neargpu-agent:8 server/neargpud:8 server/neargpu-sim:1 billing/neargpu-billd:8; do
    prog=$build/${p%:*}
    name=$(basename "${p%:*}")
    page=$("$prog" --man 2>/dev/null) || { say "$name: --man fails"; continue; }
    if command -v mandoc >/dev/null; then
        out=$(mandoc -Tlint -Wwarning <<<"$page" 2>&1 | grep -vE 'STYLE|outdated mandoc.db' | head -5)
        [ -z "$out" ] || say "$name: man page: $out"
    fi
    "$prog" --help >/dev/null 2>&1 || say "$name: --help fails"
done
# Every verb of the CLI stands in a page of docs/.
"$build/client/cli/neargpu" --man 2>/dev/null | sed -n 's/^\.Ss //p' | while read -r verb; do
    verb=${verb//[\"\\]/}
    [ "$verb" != "Options of every command" ] || continue
    grep -rqF "neargpu $verb" docs README.md || echo "neargpu $verb: in no page of docs/"
done | { ! grep . ; } || bad=1
exit $bad
