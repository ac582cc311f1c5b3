#!/usr/bin/env bash
# shellcheck disable=SC2034,SC2154 # used by, and set by, the sourcing script and market.sh
# node_lib: what tests of one node in a whole market share: where things are, a directory
# of their own that goes with them, checks that are counted, a market of one site, and one
# node with two GPUs of it. Sourced; takes the build directory from the script's first
# argument; the script sets $sites (those with agents). Functions end_first and end_last of
# the script are called around the end of the market. NEARGPU_KEEP: nothing is removed.
build=${1:-${NEARGPU_BUILD:-${NEARGPU_BUILD_DIR:-$PWD}}}
build=$(readlink -f "$build")
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
name=$(basename "$0" .sh)
export PATH="$PATH:/usr/sbin:/sbin"
failed=0

node_needs() { # node_needs PROGRAM…: exit 77 unless root, and these are there
    local program
    [ "$(id -u)" = 0 ] || { echo "$name: needs root for leases"; exit 77; }
    for program in jq curl "$@"; do
        command -v "$program" >/dev/null || { echo "$name: $program is not installed"; exit 77; }
    done
}

node_finish() {
    local status=$?
    trap - EXIT INT TERM
    declare -F end_first >/dev/null && end_first
    market_stop
    declare -F end_last >/dev/null && end_last
    [ -n "${NEARGPU_KEEP:-}" ] || rm -rf "$run"
    exit $status
}
trap node_finish EXIT
trap 'exit 130' INT TERM
run=$(mktemp -d "/srv/neargpu-${name:0:5}.XXXXXX") # short: sockets lie in it
chmod 755 "$run"
# shellcheck source=tests/system/market.sh
. "$here/market.sh"

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
    tail -n 20 "$run"/neargpud.log "$run"/billd.log "$run"/agents/*/log "$run"/sshd.log 2>/dev/null
    exit 1
}
near() { timeout 60 "$neargpu" --account "$@"; } # near ACCOUNT VERB…
node_done() { # node_done: the last line, and whether all held
    [ "$failed" = 0 ] || { tail -n 30 "$run"/agents/*/log "$run"/sshd.log 2>/dev/null; echo "$failed failed"; exit 1; }
    echo "$name: all held"
    exit 0
}

# node_owner: a market with site tokyo and provider owner, both logged in.
node_owner() {
    server_start || die "neargpud did not start"
    login admin "$run/server/admin.key" || die "login failed"
    as admin admin site add tokyo --city Tokyo --lat 35.6895 --lon 139.6917 --residency jp >/dev/null || die "no site"
    as admin -o json admin provider create owner | jq -r .api_key | secret "$run/owner.key"
    login owner "$run/owner.key"
}
# node_start NODE DEVICE MINOR [MORE]: owner's node with the GPUs DEVICE0 and DEVICE1, enrolled,
# and its agent; MORE: further lines of its configuration.
node_start() {
    local node=$1 device=$2 minor=$3 more=${4:-} i
    mkdir -p "$(dirname "$device")" "$run/agents/$node"
    for i in 0 1; do mknod -m 666 "$device$i" c $gpu_major $((minor + i)); done
    jq -n --arg node "$node" --arg dev "$device" --argjson major $gpu_major --argjson minor "$minor" '
        {gpus: [range(2) | {uuid: "GPU-\($node)-\(.)", model: "H100-SXM5-80GB", memory_mib: 81559,
          device: "\($dev)\(.)", major: $major, minor: ($minor + .)}]}' >"$run/agents/$node/gpus.json"
    cat >"$run/agents/$node/agent.conf" <<TXT
server = $server_url
state_dir = $run/agents/$node/state
runtime_dir = $run/agents/$node/run
listen = 127.0.0.1:0
inventory = sim
sim_file = $run/agents/$node/gpus.json
price_per_gpu_hour = 2
currency = USD
$more
TXT
    as owner -o json provider join-code --site tokyo --node "$node" | jq -r .code | secret "$run/$node.join"
    "$neargpu_agent" enroll --conf "$run/agents/$node/agent.conf" --ca "$run/server/pki/ca.pem" --join-code-file "$run/$node.join" >>"$run/agents/$node/log" 2>&1 ||
        die "enrolment of $node failed"
    agent_start "$node"
}
node_up() { # node_up COUNT: so many are up with both GPUs
    [ "$(as admin -o json provider nodes | jq '[.nodes[] | select(.state == "up" and .gpus == 2)] | length')" = "$1" ]
}
# node_market DEVICE MINOR [MORE]: all of that with the node n1, and tenant lab.
node_market() {
    node_owner
    node_start n1 "$@"
    wait_for 30 node_up 1 || die "the node did not sync"
    tenant_create lab 1000 || die "no tenant"
}

# node_reserve COUNT: a lease of lab's for ten minutes, active; sets id, and of one GPU mine
# and other, the numbers of the one it has and the one it has not.
node_reserve() {
    near lab -o json reserve --yes --gpu H100 --gpus "$1" --for 10m >"$run/r.json" || die "no reservation: $(cat "$run/r.json")"
    id=$(jq -r .id "$run/r.json")
    wait_for 15 node_active || die "not active"
    case $(jq -r '.allocations[0].gpus[0].uuid? // .allocations[0].gpus[0]' "$run/r.json") in
    *-0) mine=0 other=1 ;;
    *-1) mine=1 other=0 ;;
    *) die "which GPU? $(cat "$run/r.json")" ;;
    esac
}
node_active() { [ "$(near lab -o json show "$id" | jq -r .state)" = active ]; }
