#!/usr/bin/env bash
# gang: three agents of one site with two simulated GPUs each; a gang over all of them is
# reserved and used: every rank's environment, ranks that find each other, output, input,
# failure, detaching, an agent killed on the way, a lease made shorter.
# Usage: gang.sh [BUILD_DIR]. Exit 77 unless root.
set -uo pipefail
# shellcheck source=tests/system/node_lib.sh
. "$(dirname "$(readlink -f "$0")")/node_lib.sh"
node_needs
sites="n1 n2 n3"
has() { # has WHAT FILE LINE: the file has exactly this line
    if grep -qxF -- "$3" "$2"; then ok "$1"; else bad "$1: no line '$3' in: $(head -c 2000 "$2")"; fi
}
near() { "$neargpu" --account lab "$@"; }

node_owner
minor=0
for node in $sites; do
    node_start "$node" "$run/dev/$node/nvidia" $minor "fabric = rack-a"
    minor=$((minor + 2))
done
wait_for 30 node_up 3 || die "the nodes did not sync"
tenant_create lab 1000 || die "no tenant"

near -o json reserve --yes --gpu H100 --nodes 3 --gpus 2 --together domain --for 10m >"$run/r.json" || die "no gang: $(cat "$run/r.json")"
id=$(jq -r .id "$run/r.json")
is "three nodes, six GPUs" "$(jq -c '[.nodes, (.allocations | length), ([.allocations[].gpus[]] | unique | length)]' "$run/r.json")" "[3,3,6]"
is "ranks from 0" "$(jq -c '[.allocations[].rank] | sort' "$run/r.json")" "[0,1,2]"
is "state" "$(jq -r '.state' "$run/r.json" | sed 's/active/confirmed/')" confirmed
hosts=$(jq -r '[.allocations | sort_by(.rank)[] | .address | sub(":[0-9]+$"; "")] | join(",")' "$run/r.json")
node_of() { jq -r --argjson r "$1" '.allocations[] | select(.rank == $r) | .node' "$run/r.json"; }

is_active() { [ "$(near -o json show "$id" | jq -r .state)" = active ]; }
wait_for 10 is_active && ok "the nodes open their leases by themselves" || bad "not active: $(tail -n 2 "$run"/agents/*/log)"

# ---- environment, lines, ranks that find each other
near run "$id" --prefix -- /bin/sh -c 'env; echo "cuda $CUDA_VISIBLE_DEVICES"; cat "$NEARGPU_HOSTFILE"' >"$run/env" 2>"$run/env.err"
is "exit status" $? 0
is "every line has its rank" "$(grep -cvE '^\[[012]\] ' "$run/env")" 0
for rank in 0 1 2; do
    for pair in "RANK=$rank" WORLD_SIZE=3 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 "GROUP_RANK=$rank" "NODE_RANK=$rank" NNODES=3 NPROC_PER_NODE=2 \
        "MASTER_ADDR=${hosts%%,*}" "PET_NODE_RANK=$rank" PET_NNODES=3 "OMPI_COMM_WORLD_RANK=$rank" OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_LOCAL_RANK=0 \
        "PMI_RANK=$rank" PMI_SIZE=3 "NEARGPU_RANK=$rank" NEARGPU_NODES=3 "NEARGPU_HOSTS=$hosts" "NEARGPU_RESERVATION=$id" NEARGPU_COORDINATOR=tokyo; do
        grep -qxF "[$rank] $pair" "$run/env" || bad "rank $rank has no $pair"
    done
    has "rank $rank sees the GPUs of its node" "$run/env" "[$rank] cuda GPU-$(node_of $rank)-0,GPU-$(node_of $rank)-1"
done
is "hostfile on each" "$(grep -c '^\[[012]\] 127.0.0.1 slots=2$' "$run/env")" 9

cat >"$run/meet.py" <<'EOF'
import os, signal, socket, time
signal.alarm(20)
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
at = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
if rank == 0:
    s = socket.create_server(at)
    got = sorted(int(s.accept()[0].recv(9)) for _ in range(world - 1))
    print("met", got)
else:
    for _ in range(100):
        try:
            socket.create_connection(at).sendall(str(rank).encode())
            break
        except OSError:
            time.sleep(0.1)
EOF
near run "$id" --prefix -- python3 -c "$(cat "$run/meet.py")" >"$run/meet" 2>&1
has "ranks meet at the master's address" "$run/meet" "[0] met [1, 2]"
near run "$id" --per-gpu -- python3 -c "$(cat "$run/meet.py")" >"$run/meet6" 2>&1
has "six of them with --per-gpu" "$run/meet6" "met [1, 2, 3, 4, 5]"
near run "$id" --per-gpu --prefix -- /bin/sh -c 'echo "$RANK $LOCAL_RANK $LOCAL_WORLD_SIZE $NODE_RANK $WORLD_SIZE $NEARGPU_GPU"' 2>&1 | sort >"$run/six"
has "a rank for each GPU" "$run/six" "[3] 3 1 2 1 6 GPU-$(node_of 1)-1"
is "six ranks" "$(wc -l <"$run/six")" 6

# ---- output, input
near run "$id" --output-dir "$run/out" -- /bin/sh -c 'echo "out $RANK"; echo "err $RANK" >&2' >"$run/console" 2>&1
is "nothing on the terminal" "$(cat "$run/console")" ""
is "files of each rank" "$(cat "$run/out/rank-0.out" "$run/out/rank-1.out" "$run/out/rank-2.err")" "$(printf 'out 0\nout 1\nerr 2')"
near run "$id" --prefix -- /bin/sh -c 'i=0; while [ $i -lt 300 ]; do printf "some words "; printf "of %s %s\n" $RANK $i; i=$((i+1)); done' >"$run/mixed" 2>&1
is "lines never mix" "$(grep -cxE '\[([012])\] some words of \1 [0-9]+' "$run/mixed") $(wc -l <"$run/mixed")" "900 900"
echo hello | near run "$id" --prefix -- cat >"$run/in" 2>&1
is "input goes to rank 0" "$(cat "$run/in")" "[0] hello"
echo hello | near run "$id" --prefix --stdin-rank all -- cat 2>&1 | sort >"$run/in"
is "or to all" "$(tr '\n' ' ' <"$run/in")" "[0] hello [1] hello [2] hello "

# ---- failure
from=$(date +%s)
near run "$id" --prefix -- /bin/sh -c '[ $RANK = 1 ] && exit 7; trap "echo told; exit 0" TERM; while :; do sleep 0.1; done' >"$run/fail" 2>&1
is "the first failure's status" $? 7
[ $(($(date +%s) - from)) -le 8 ] && ok "within seconds" || bad "it took $(($(date +%s) - from)) s"
is "the others were told" "$(grep -cxE '\[[02]\] told' "$run/fail")" 2
grep -q "rank 1 ($(node_of 1)) failed with exit status 7" "$run/fail" && ok "and the user" || bad "no word of the rank that failed: $(cat "$run/fail")"
near run "$id" --prefix --keep-going -- /bin/sh -c '[ $RANK = 1 ] && exit 7; sleep 1; echo done' >"$run/keep" 2>&1
is "--keep-going: the status is told in the end" $? 7
is "--keep-going: the others come to theirs" "$(grep -cxE '\[[02]\] done' "$run/keep")" 2
near run "$id" -- /no/such/program >"$run/none" 2>&1
is "what cannot be started fails" $? 1

# ---- leave and come back

near run "$id" --detach -- /bin/sh -c 'echo "start $RANK"; sleep 2; echo "end $RANK"; exit $RANK' >"$run/detached" 2>&1
gang=$(cat "$run/detached")
is "--detach prints the run" "${#gang}" 36
is "--list shows its ranks" "$(near -o json run "$id" --list | jq -c --arg r "$gang" '[.jobs[] | select(.run == $r) | .rank] | sort')" "[0,1,2]"
near run "$id" --prefix --attach >"$run/attach" 2>&1
status=$?
[ $status = 1 ] || [ $status = 2 ] && ok "--attach has the status of a rank that failed" || bad "--attach ended with $status"
is "--attach shows all, from the beginning" "$(grep -v neargpu: "$run/attach" | sort | tr '\n' ' ')" \
    "[0] end 0 [0] start 0 [1] end 1 [1] start 1 [2] end 2 [2] start 2 "

# ---- signals, and an agent killed on the way
"$neargpu" --account lab run "$id" --prefix -- /bin/sh -c 'trap "echo told; exit 3" TERM; i=0; echo up; while :; do echo "tick $i"; i=$((i+1)); sleep 0.1; done' >"$run/ticks" 2>"$run/ticks.err" &
pid=$!
wait_for 10 sh -c "[ \"\$(grep -c ' up' $run/ticks)\" = 3 ]" || bad "not all came up: $(head -c 500 "$run/ticks")"
victim=$(node_of 2)
kill -KILL "$(cat "$run/agents/$victim/pid")"
agent_start "$victim"
wait_for 20 grep -q "rank 2 .*connecting again" "$run/ticks.err" || bad "the loss was not noticed: $(cat "$run/ticks.err")"
seen=$(grep -c '^\[2\] tick' "$run/ticks")
more() { [ "$(grep -c '^\[2\] tick' "$run/ticks")" -gt $((seen + 10)) ]; }
wait_for 30 more && ok "a killed agent is found again" || bad "rank 2 did not go on: $(cat "$run/ticks.err")"
kill -TERM $pid
wait $pid
is "a signal reaches every rank, and its status comes back" "$? $(grep -cxE '\[[012]\] told' "$run/ticks")" "3 3"
is "nothing of rank 2 was lost or came twice" "$(grep '^\[2\] tick' "$run/ticks" | awk '$3 != NR - 1' | wc -l)" 0

# ---- grants are renewed at half of their life, all ranks' with one question
kill -TERM "$server_pid"
wait_for 15 pid_gone "$server_pid"
echo 'token_life = 20s' >"$run/neargpud.conf"
server_options="--conf $run/neargpud.conf"
server_start || die "neargpud did not start again"
issued() { sql neargpu_owner 'SELECT count(*) FROM ng.token'; }
asked() { sql neargpu_owner "SELECT count(*) FROM ng.audit WHERE path LIKE '%/tokens'"; }
before=$(issued)
before_asked=$(asked)
near run "$id" -- sleep 13 || bad "a gang while its tokens are renewed"
is "two tokens for each rank" "$(($(issued) - before))" 6
is "the second ones when the first had ten seconds left" "$(sql neargpu_owner "SELECT extract(epoch FROM max(issued_at) - min(issued_at)) BETWEEN 9 AND 12
    FROM (SELECT issued_at FROM ng.token ORDER BY jti DESC LIMIT 6) x")" t
twice() { [ "$(($(asked) - before_asked))" = 2 ]; }
wait_for 5 twice && ok "two questions" || bad "$(($(asked) - before_asked)) questions"

near cancel "$id" --yes >/dev/null 2>"$run/cancel" || bad "cancel: $(cat "$run/cancel")"
node_done
