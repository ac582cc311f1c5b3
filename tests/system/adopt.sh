#!/usr/bin/env bash
# adopt: a container that podman has started is given a reservation's GPUs by `neargpu
# adopt`, with a real market, agent and kernel: granted and other devices, who may ask,
# an agent killed meanwhile, the end of everything in it.
# Usage: adopt.sh [BUILD_DIR]. Exit 77 unless root and podman runs here.
set -uo pipefail
# shellcheck source=tests/system/node_lib.sh
. "$(dirname "$(readlink -f "$0")")/node_lib.sh"
# shellcheck source=tests/system/podman_lib.sh
. "$here/podman_lib.sh"
podman_skip adopt
node_needs
sites="n1"
podman_options
end_first() { podman_down; }
sock=unix:$run/agents/n1/run/agent.sock
adopt() { near lab adopt "$@" --address "$sock" 2>&1; }

podman_image localhost/ngtest:1 || { cat "$run/podman/log"; echo "adopt: podman cannot make an image here"; exit 77; }
node_market "$run/dev/nvidia" 230
node_reserve 1

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
    "$(near lab -o json token "$id" | jq -r '.tokens[0].token' | secret "$run/launch.token" && adopt "$id" --cgroup "$cgroup" --token-file "$run/launch.token")" "*does not allow adopt*"
remote=$(jq -r '.allocations[0].address' "$run/r.json")
like "not over the network" "$(near lab adopt "$id" --cgroup "$cgroup" --address "$remote" 2>&1)" "*own socket only*"

like "adopted" "$(adopt "$id" --pid "$pid")" "*is the reservation's now*"
is "after: the granted one only" "$(try c1 nvidia$mine) $(try c1 nvidia$other)" "ENXIO EPERM"
like "again" "$(adopt "$id" --cgroup "$v2$cgroup")" "*is the reservation's now*"

# ---- the agent is killed: the gate stands; a new one knows what it has
kill -9 "$agent_pid"
is "without an agent" "$(try c1 nvidia$mine) $(try c1 nvidia$other)" "ENXIO EPERM"
agent_start n1
agent_listens() { [ -S "$run/agents/n1/run/agent.sock" ] && near lab run "$id" --list --address "$sock"; }
wait_for 20 agent_listens || bad "the agent is not back"
is "with a new agent" "$(try c1 nvidia$mine) $(try c1 nvidia$other)" "ENXIO EPERM"
is "it still runs" "$(pod inspect -f '{{.State.Running}}' c1)" true

# ---- the end
near lab cancel "$id" --yes >/dev/null || bad "cancel"
gone() { ! grep -qs 'populated 1' "$v2$cgroup/cgroup.events"; }
wait_for 10 gone && ok "the end ends all of it" || bad "still populated: $(cat "$v2$cgroup/cgroup.procs")"
is_idle() { [ "$(as admin -o json provider nodes | jq '[.nodes[] | select(.state == "up")] | length')" = 1 ]; }
wait_for 10 is_idle || bad "the node is not up"
grep -q QUARANTINED "$run/agents/n1/log" && bad "quarantined"
stopped() { [ "$(pod inspect -f '{{.State.Running}} {{.State.ExitCode}}' c1)" = "false 137" ]; }
wait_for 10 stopped && ok "podman knows that it was killed" || bad "podman: $(pod inspect -f '{{.State.Running}} {{.State.ExitCode}}' c1)"

node_done
