#!/usr/bin/env bash
# adopt: a container that podman has started is given a reservation's GPUs by `neargpu
# adopt`, with a real market, agent and kernel: granted and other devices, who may ask,
# an agent killed meanwhile, the end of everything in it.
# Usage: adopt.sh [BUILD_DIR]. Exit 77 unless root and podman runs here.
set -uo pipefail
build=${1:-${NEARGPU_BUILD_DIR:-$PWD}}
build=$(readlink -f "$build")
here=$(dirname "$(readlink -f "$0")")
export PATH="$PATH:/usr/sbin:/sbin"
# shellcheck source=tests/system/podman_lib.sh
. "$here/podman_lib.sh"
podman_skip adopt
run=$(mktemp -d /srv/neargpu-adopt.XXXXXX)
chmod 755 "$run"
# shellcheck source=tests/system/market.sh
. "$here/market.sh"
sites="n1"
podman_options

finish() {
    local status=$?
    trap - EXIT INT TERM
    podman_down
    market_stop
    [ -n "${NEARGPU_ADOPT_KEEP:-}" ] || rm -rf "$run"
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
sock=unix:$run/agents/n1/run/agent.sock
adopt() { near adopt "$@" --address "$sock" 2>&1; }

podman_image localhost/ngtest:1 || { cat "$run/podman/log"; echo "adopt: podman cannot make an image here"; exit 77; }
server_start || die "neargpud did not start"
login admin "$run/server/admin.key" || die "login failed"
as admin admin site add tokyo --city Tokyo --lat 35.6895 --lon 139.6917 --residency jp >/dev/null || die "no site"
as admin -o json admin provider create owner | jq -r .api_key | secret "$run/owner.key"
login owner "$run/owner.key"
mkdir -p "$run/dev" "$run/agents/n1"
for i in 0 1; do mknod -m 666 "$run/dev/nvidia$i" c $gpu_major $((230 + i)); done
jq -n --arg dev "$run/dev/nvidia" --argjson major $gpu_major '
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

# ---- a container with both GPUs of the machine, many processes, one that ignores SIGTERM
start() { # start NAME SCRIPT
    pod run -d --name "$1" --network none --pull=never --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
        --device "$run/dev/nvidia0:/dev/nvidia0" --device "$run/dev/nvidia1:/dev/nvidia1" \
        localhost/ngtest:1 sh -c "$2" >/dev/null 2>"$run/podman/log"
}
pid_of() { pod inspect -f '{{.State.Pid}}' "$1"; }
try() { # try NAME NODE: what opening it says in the container
    local said
    said=$(pod exec "$1" sh -c ": </dev/$2" 2>&1)
    case $said in
    *"No such device or address"*) echo ENXIO ;;
    *"not permitted"*) echo EPERM ;;
    *) echo "${said:-opened}" ;;
    esac
}
start c1 'trap "" TERM; sleep 1000 & sleep 1000 & while :; do sleep 1; done' || { cat "$run/podman/log"; echo "adopt: podman cannot run a container here"; exit 77; }
pid=$(pid_of c1)
cgroup=$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
v2=$(findmnt -n -o TARGET -t cgroup2 | head -n 1)
is "before: any device" "$(try c1 nvidia$mine) $(try c1 nvidia$other)" "ENXIO ENXIO"

like "a bad path" "$(adopt "$id" --cgroup /no/such/cgroup)" "*no cgroup*"
like "the root" "$(adopt "$id" --cgroup /)" "*not a cgroup*"
like "no path" "$(adopt "$id")" "*--cgroup PATH or --pid PID*"
like "a token to launch with is none to adopt with" \
    "$(near -o json token "$id" | jq -r '.tokens[0].token' | secret "$run/launch.token" && adopt "$id" --cgroup "$cgroup" --token-file "$run/launch.token")" "*does not allow adopt*"
remote=$(jq -r '.allocations[0].address' "$run/r.json")
like "not over the network" "$(near adopt "$id" --cgroup "$cgroup" --address "$remote" 2>&1)" "*own socket only*"

like "adopted" "$(adopt "$id" --pid "$pid")" "*is the reservation's now*"
is "after: the granted one only" "$(try c1 nvidia$mine) $(try c1 nvidia$other)" "ENXIO EPERM"
like "again" "$(adopt "$id" --cgroup "$v2$cgroup")" "*is the reservation's now*"

# ---- the agent is killed: the gate stands; a new one knows what it has
kill -9 "$agent_pid"
is "without an agent" "$(try c1 nvidia$mine) $(try c1 nvidia$other)" "ENXIO EPERM"
agent_start n1
agent_listens() { [ -S "$run/agents/n1/run/agent.sock" ] && near run "$id" --list --address "$sock"; }
wait_for 20 agent_listens || bad "the agent is not back"
is "with a new agent" "$(try c1 nvidia$mine) $(try c1 nvidia$other)" "ENXIO EPERM"
is "it still runs" "$(pod inspect -f '{{.State.Running}}' c1)" true

# ---- the end
near cancel "$id" --yes >/dev/null || bad "cancel"
gone() { ! grep -qs 'populated 1' "$v2$cgroup/cgroup.events"; }
wait_for 10 gone && ok "the end ends all of it" || bad "still populated: $(cat "$v2$cgroup/cgroup.procs")"
is_idle() { [ "$(as admin -o json provider nodes | jq '[.nodes[] | select(.state == "up")] | length')" = 1 ]; }
wait_for 10 is_idle || bad "the node is not up"
grep -q QUARANTINED "$run/agents/n1/log" && bad "quarantined"
stopped() { [ "$(pod inspect -f '{{.State.Running}} {{.State.ExitCode}}' c1)" = "false 137" ]; }
wait_for 10 stopped && ok "podman knows that it was killed" || bad "podman: $(pod inspect -f '{{.State.Running}} {{.State.ExitCode}}' c1)"

[ "$failed" = 0 ] || { tail -n 30 "$run/agents/n1/log"; echo "$failed failed"; exit 1; }
echo "adopt: all as promised"
