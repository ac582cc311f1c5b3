#!/usr/bin/env bash
# image: `neargpu run --image`, with a real market, agent, podman and kernel: devices,
# user, work directory, output, input, exit status, signals, an agent killed meanwhile,
# the end of everything in it, and nothing left.
# Usage: image.sh [BUILD_DIR]. Exit 77 unless root and podman runs here.
set -uo pipefail
# shellcheck source=tests/system/node_lib.sh
. "$(dirname "$(readlink -f "$0")")/node_lib.sh"
# shellcheck source=tests/system/podman_lib.sh
. "$here/podman_lib.sh"
podman_skip image
node_needs
sites="n1"
node=/dev/ngtest-$$-nvidia # runc binds a node by its own name only
podman_options overlay
end_first() { podman_down; }
end_last() {
    rm -f "$node"[01]
    [ "$failed" = 0 ] || cat "$run/said"
}
in_image() { timeout 60 "$neargpu" --account lab run "$id" --image localhost/ngtest:1 "$@"; }

podman_image localhost/ngtest:1 || { cat "$run/podman/log"; echo "image: podman cannot make an image here"; exit 77; }
node_market "$node" 230 "podman = $(command -v podman)
image_store = $run/podman/store"
node_reserve 1

# ---- what it sees
is "exit status" "$(in_image -- sh -c 'exit 7' >/dev/null 2>&1; echo $?)" 7
out=$(in_image -- sh -c "ls /dev; (: <$node$mine) 2>&1; id -u; pwd; echo \$HOME; sed -n 's/^0:://p' /proc/self/cgroup 2>/dev/null || cat /proc/self/cgroup" 2>"$run/said")
like "its GPU opens" "$out" "*${node#/dev/}$mine: No such device or address*"
if grep -qx "${node#/dev/}$other" <<<"$out"; then bad "the other GPU is there"; else ok "no other GPU"; fi
like "an unprivileged user, in the work directory" "$out" $'*\n65534\n/run/neargpu/work\n/run/neargpu/work*'
is "the image's files, not the host's" "$(in_image -- cat /etc/passwd 2>/dev/null)" 'tenant:x:65534:65534::/tmp:/bin/sh'
is "environment" "$(in_image --env 'A=b c' -- sh -c 'echo "$A $CUDA_VISIBLE_DEVICES"' 2>/dev/null)" "b c GPU-n1-$mine"
is "input" "$(printf 'one\ntwo\n' | in_image -- cat 2>/dev/null)" "$(printf 'one\ntwo')"
is "errors apart" "$(in_image -- sh -c 'echo out; echo err >&2' 2>/dev/null)" out
in_image -- sh -c 'echo kept >kept' >/dev/null 2>&1
is "the work directory is the lease's" "$(timeout 30 "$neargpu" --account lab run "$id" -- cat kept 2>/dev/null)" kept
like "an image that is not there" "$(timeout 60 "$neargpu" --account lab run "$id" --image localhost/none:1 -- true 2>&1)" "*image not known*"
v2=$(findmnt -n -o TARGET -t cgroup2 | head -n 1)

# ---- it stays in the lease's cgroup, in all hierarchies; the agent may die
job=$(in_image --detach -- sh -c 'trap "" TERM INT; sleep 1000 & while :; do sleep 1; echo tick; done')
in_lease() { find "$v2" -path "*/$id/img-$job/*" -name cgroup.procs -exec cat {} + | grep -q .; }
wait_for 10 in_lease && ok "the container is in the lease's cgroup" || bad "where is it? $(find "$v2" -path "*$id*" -type d)"
is_sh() { # no more the runtime that makes it
    pid=$(find "$v2" -path "*/$id/img-$job/*" -name cgroup.procs -exec cat {} + | head -n 1)
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = sh ]
}
wait_for 10 is_sh || bad "what runs there is no shell: $(cat "/proc/$pid/comm")"
like "no capabilities, no new privileges, filtered" "$(grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$pid/status" | tr -d '\n\t')" "CapEff:0000000000000000CapBnd:0000000000000000NoNewPrivs:1Seccomp:2"
is "nothing of it in the node's own podman" "$(podman ps -aq 2>/dev/null | wc -l)" 0
kill -9 "$agent_pid"
agent_start n1
is_back() { near lab run "$id" --list; }
wait_for 20 is_back || bad "the agent is not back"
[ -d "/proc/$pid" ] && ok "a restart of the agent is not noticed" || bad "the container is gone"

# ---- the end
near lab cancel "$id" --yes >/dev/null 2>&1 || bad "cancel"
gone() { [ ! -d "/proc/$pid" ]; }
wait_for 10 gone && ok "the end ends it" || bad "it runs on"
none() { [ -z "$(find /sys/fs/cgroup -type d -name "$id")" ]; }
wait_for 10 none && ok "no cgroup is left" || bad "left: $(find /sys/fs/cgroup -type d -name "$id")"
grep -q QUARANTINED "$run/agents/n1/log" && bad "quarantined"
findmnt | grep -q "$run" && bad "mounts are left"

node_done
