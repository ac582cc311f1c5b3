#!/usr/bin/env bash
# The demo is a test: every step of it must hold, and nothing may be left behind.
set -uo pipefail
[ "$(id -u)" = 0 ] || { echo "needs root: device nodes, cgroups, device programs"; exit 77; }
here=$(dirname "$(readlink -f "$0")")
before=$(find /sys/fs/cgroup -type d -path '*neargpu*' 2>/dev/null | sort)
"$here/demo.sh" "$NEARGPU_BUILD" || exit 1
after=$(find /sys/fs/cgroup -type d -path '*neargpu*' 2>/dev/null | sort)
left=$(comm -13 <(printf '%s\n' "$before") <(printf '%s\n' "$after"))
[ -z "$left" ] || { echo "cgroups left behind: $left"; exit 1; }
