#!/usr/bin/env bash
# image: `neargpu run --image`, with a real market, agent, podman and kernel: devices,
# user, work directory, output, input, exit status, signals, an agent killed meanwhile,
# the end of everything in it, and nothing left.
# Usage: image.sh [BUILD_DIR]. Exit 77 unless root and podman runs here.
set -uo pipefail
build=${1:-${NEARGPU_BUILD_DIR:-$PWD}}
build=$(readlink -f "$build")
here=$(dirname "$(readlink -f "$0")")
export PATH="$PATH:/usr/sbin:/sbin"
# shellcheck source=tests/system/podman_lib.sh
. "$here/podman_lib.sh"
podman_skip image
run=$(mktemp -d /srv/neargpu-image.XXXXXX)
chmod 755 "$run"
# shellcheck source=tests/system/market.sh
. "$here/market.sh"
sites="n1"
node=/dev/ngtest-$$-nvidia # runc binds a node by its own name only
podman_options overlay

finish() {
    local status=$?
    trap - EXIT INT TERM
    podman_down
    market_stop
    rm -f "$node"[01]
    [ -n "${NEARGPU_IMAGE_KEEP:-}" ] || rm -rf "$run"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

failed=0
ok() { echo "ok: $*"; }
bad() {
    echo "FAILED: $*"
    failed=$((failed + 1))
}
is() { # is WHAT GOT WANTED
    if [ "$2" = "$3" ]; then ok "$1"; else bad "$1: '$2', not '$3'"; fi
}
like() { # like WHAT GOT PATTERN
    # shellcheck disable=SC2053 # a pattern is meant
    if [[ $2 == $3 ]]; then ok "$1"; else bad "$1: '$2' is not like '$3'"; fi
}
die() {
    bad "$*"
    tail -n 20 "$run"/neargpud.log "$run"/agents/*/log 2>/dev/null
    exit 1
}
near() { "$neargpu" --account lab "$@"; }
in_image() { timeout 60 "$neargpu" --account lab run "$id" --image localhost/ngtest:1 "$@"; }

podman_image localhost/ngtest:1 || { cat "$run/podman/log"; echo "image: podman cannot make an image here"; exit 77; }
server_start || die "neargpud did not start"
login admin "$run/server/admin.key" || die "login failed"
as admin admin site add tokyo --city Tokyo --lat 35.6895 --lon 139.6917 --residency jp >/dev/null || die "no site"
as admin -o json admin provider create owner | jq -r .api_key | secret "$run/owner.key"
login owner "$run/owner.key"
mkdir -p "$run/dev" "$run/agents/n1"
for i in 0 1; do mknod -m 666 "$node$i" c $gpu_major $((230 + i)); done
jq -n --arg dev "$node" --argjson major $gpu_major '
    {gpus: [range(2) | {uuid: "GPU-n1-\(.)", model: "H100-SXM5-80GB", memory_mib: 81559,
      device: "\($dev)\(.)", major: $major, minor: (230 + .)}]}' >"$run/agents/n1/gpus.json"
cat >"$run/agents/n1/agent.conf" <<EOF
server = $server_url
state_dir = $run/agents/n1/state
runtime_dir = $run/agents/n1/run
listen = 127.0.0.1:0
inventory = sim
sim_file = $run/agents/n1/gpus.json
price_per_gpu_hour = 2
currency = USD
podman = $(command -v podman)
image_store = $run/podman/store
EOF
as owner -o json provider join-code --site tokyo --node n1 | jq -r .code | secret "$run/n1.join"
"$neargpu_agent" enroll --conf "$run/agents/n1/agent.conf" --ca "$run/server/pki/ca.pem" --join-code-file "$run/n1.join" >>"$run/agents/n1/log" 2>&1 || die "no enrolment"
agent_start n1
is_up() { [ "$(as admin -o json provider nodes | jq '[.nodes[] | select(.state == "up" and .gpus == 2)] | length')" = 1 ]; }
wait_for 30 is_up || die "the node did not sync"
tenant_create lab 1000 || die "no tenant"
near -o json reserve --yes --gpu H100 --gpus 1 --for 10m >"$run/r.json" || die "no reservation: $(cat "$run/r.json")"
id=$(jq -r .id "$run/r.json")
is_active() { [ "$(near -o json show "$id" | jq -r .state)" = active ]; }
wait_for 15 is_active || die "not active"
case $(jq -r '.allocations[0].gpus[0].uuid? // .allocations[0].gpus[0]' "$run/r.json") in
*-0) mine=0 other=1 ;;
*-1) mine=1 other=0 ;;
*) die "which GPU? $(cat "$run/r.json")" ;;
esac

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
pid=$(find "$v2" -path "*/$id/img-$job/*" -name cgroup.procs -exec cat {} + | head -n 1)
like "no capabilities, no new privileges, filtered" "$(grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$pid/status" | tr -d '\n\t')" "CapEff:0000000000000000CapBnd:0000000000000000NoNewPrivs:1Seccomp:2"
is "nothing of it in the node's own podman" "$(podman ps -aq 2>/dev/null | wc -l)" 0
kill -9 "$agent_pid"
agent_start n1
is_back() { near run "$id" --list; }
wait_for 20 is_back || bad "the agent is not back"
[ -d "/proc/$pid" ] && ok "a restart of the agent is not noticed" || bad "the container is gone"

# ---- the end
near cancel "$id" --yes >/dev/null 2>&1 || bad "cancel"
gone() { [ ! -d "/proc/$pid" ]; }
wait_for 10 gone && ok "the end ends it" || bad "it runs on"
none() { [ -z "$(find /sys/fs/cgroup -type d -name "$id")" ]; }
wait_for 10 none && ok "no cgroup is left" || bad "left: $(find /sys/fs/cgroup -type d -name "$id")"
grep -q QUARANTINED "$run/agents/n1/log" && bad "quarantined"
findmnt | grep -q "$run" && bad "mounts are left"

[ "$failed" = 0 ] || { tail -n 30 "$run/agents/n1/log"; cat "$run/said"; echo "$failed failed"; exit 1; }
echo "image: all as promised"
