#!/usr/bin/env bash
# node_identity: one node, two agents from a copied state directory: both are told, and a
# job runs on; the node is attested again, and the job still runs; the node is banned, and
# it ends. Usage: node_identity.sh [BUILD_DIR]. Exit 77 unless root.
# shellcheck disable=SC2154 # market.sh sets server_url and agent_pid
set -uo pipefail
# shellcheck source=tests/system/node_lib.sh
. "$(dirname "$(readlink -f "$0")")/node_lib.sh"
node_needs
sites="fukuoka"
twin=$run/agents/twin
end_first() { [ -e "$twin/agent.conf" ] && "$neargpu_agent" cleanup --conf "$twin/agent.conf" >/dev/null 2>&1; }
db() { psql -X -q -A -t -h "$run/server/run" -U postgres -d neargpu -c "$1"; }

mkdir -p "$run/server"
printf 'receipt_interval = 1s\n' >"$run/server.conf"
server_options="--conf $run/server.conf"
server_start || die "no server"
login admin "$run/server/admin.key"
site_prepare fukuoka || die "no node"
conf=$run/agents/fukuoka/agent.conf
state=$run/agents/fukuoka/state
agent_start fukuoka
node_is() { [ "$(as admin -o json provider nodes | jq -r '.nodes[] | select(.name == "fukuoka-1") | .state')" = "$1" ]; }
wait_for 30 node_is up || die "the node does not come up"
agent=$agent_pid

# ---- restarts are no clone
for _ in 1 2 3 4; do
    kill -TERM "$agent"
    gone() { pid_gone "$agent"; }
    wait_for 10 gone || die "the agent does not stop"
    agent_start fukuoka
    agent=$agent_pid
    heard() { [ "$(db "SELECT run FROM ng.node")" = "$(sed 's/.*\.//' "$state/identity/instance")" ]; }
    wait_for 15 heard || die "the agent is not heard after a restart"
done
node_is up && ok "four restarts are no clone" || bad "four restarts: $(db 'SELECT cloned_at FROM ng.node')"

# ---- a job, and a copy of the node's state
mkdir -p "$twin"
cp -a "$state" "$twin/state"
sed -e "s|^state_dir = .*|state_dir = $twin/state|" -e "s|^runtime_dir = .*|runtime_dir = $twin/run|" "$conf" >"$twin/agent.conf"
tenant_create lab 100
as lab -o json reserve --yes --gpu H100 --gpus 1 --for 10m >"$run/r.json" || die "no reservation"
r=$(jq -r .id "$run/r.json")
"$neargpu" --account lab run "$r" -- /bin/sh -c 'while :; do date +%s; sleep 0.2; done' >"$run/out" 2>"$run/err" &
remember cli $!
ticks() { find "$state/leases/$r/jobs" -name output -printf '%s\n' 2>/dev/null | head -n 1; }
begun() { [ "$(ticks || echo 0)" -gt 10 ]; }
wait_for 20 begun || die "the job does not run: $(cat "$run/err")"
job() { head -n 1 "$state/leases/$r/jobs/"*/pid 2>/dev/null; }
goes_on() { # goes_on WHAT: the same job writes on
    local at
    at=$(ticks)
    grown() { [ "$(ticks)" -gt "$at" ]; }
    wait_for 5 grown && ok "$1" || bad "$1: $("$neargpu_agent" leases --conf "$conf" | jq -c .leases)"
}

"$neargpu_agent" run --conf "$twin/agent.conf" >>"$twin/log" 2>&1 &
twin_pid=$!
remember twin $twin_pid
wait_for 90 node_is cloned && ok "two agents with one identity are seen" || die "no clone is seen: $(db 'SELECT instance, run, boot_id, seq, repeats FROM ng.node; SELECT * FROM ng.node_speaker')"
told() { grep -q 'sync refused (cloned)' "$1"; }
wait_for 60 told "$run/agents/fukuoka/log" && ok "the first is told" || bad "the first is not told"
wait_for 60 told "$twin/log" && ok "and so is the second" || bad "the second is not told"
is "the provider has an event" "$(db "SELECT count(*) FROM ng.event WHERE kind = 'node.cloned'")" 1
not_offered() { [ "$(as lab -o json offers --gpu H100 --gpus 1 --for 5m 2>/dev/null | jq '.offers | length')" = 0 ]; }
wait_for 10 not_offered && ok "nothing of it is offered" || bad "it is offered still"
is "the status counts it" "$(as admin -o json admin status | jq -c .nodes)" '{"cloned":1}'
goes_on "its job goes on"
kill -TERM "$twin_pid"

# ---- attested again
code() { # code FILE ARGUMENT…
    local file=$1
    shift
    rm -f "$file"
    as fukuoka-gpu -o json provider "$@" | jq -r .code | secret "$file"
}
enroll() { "$neargpu_agent" enroll --conf "$conf" --ca "$run/server/pki/ca.pem" "$@" >"$run/enroll" 2>&1; }
code "$run/other.join" join-code --site fukuoka --node other
code "$run/again.join" reattest fukuoka-1
before=$(md5sum "$state/identity/receipt.key" "$state/front/node.pem")
enroll --join-code-file "$run/again.join" && bad "it enrols twice" || ok "an enrolled node is not enrolled by accident"
grep -q -e --again "$run/enroll" && ok "and how to is said" || bad "$(cat "$run/enroll")"
enroll --again --join-code-file "$run/other.join" && bad "it becomes another node" || ok "it does not become another node"
is "and stays what it was" "$(md5sum "$state/identity/receipt.key" "$state/front/node.pem")" "$before"
enroll --again --join-code-file "$run/again.join" && ok "it is enrolled again" || die "$(cat "$run/enroll")"
is "nothing is left lying about" "$(find "$state" -name 'enrol*')" ""
known() { # known CERT KEY: what the market says to a sync with it
    curl -s --cacert "$run/server/pki/ca.pem" --cert "$1" --key "$2" -H 'Content-Type: application/json' -d '{}' "$server_url/v1/agent/sync" | jq -r .code
}
is "the earlier certificate is nobody's" "$(known "$twin/state/front/node.pem" "$twin/state/front/node.key")" unauthenticated
is "the new one is the node's" "$(known "$state/front/node.pem" "$state/front/node.key")" bad_request
# As if the machine had lost power while the new identity was put in its place.
mkdir -p "$state/enrol.done/identity" "$state/enrol.done/front"
mv "$state/identity/market.json" "$state/identity/ca.pem" "$state/enrol.done/identity/"
mv "$state/front/node.pem" "$state/enrol.done/front/"
sleep 3 # receipts with the earlier key, which cannot be sent
goes_on "its job goes on"
kill -TERM "$agent"
wait_for 10 gone || die "the agent does not stop"
agent_start fukuoka
agent=$agent_pid
wait_for 30 node_is up && ok "it is up again" || die "it does not come up"
goes_on "its job goes on"
earlier() {
    [ "$(db "SELECT count(*) FROM ng.receipt r JOIN ng.node_key k ON k.node_id = r.node_id AND k.receipt_key = r.receipt_key
        WHERE r.reservation_id = '$r' AND k.attested = 1 AND r.received_at > (SELECT max(since) FROM ng.node_key)")" -ge 2 ]
}
wait_for 15 earlier && ok "receipts written with the earlier key are taken" || bad "receipts: $(db "SELECT seq, kind, received_at, receipt_key FROM ng.receipt")"
is "what was cut off is finished" "$(find "$state" -name 'enrol*')" ""
is "it has the number it had" "$(db "SELECT count(*), max(attested) FROM ng.node WHERE name = 'fukuoka-1'")" "1|2"

# ---- banned
as lab -o json reserve --yes --gpu H100 --gpus 1 --for 10m --start "$(date -u -d '+3 hours' +%FT%TZ)" >"$run/later.json" || bad "no reservation for later"
later=$(jq -r .id "$run/later.json")
as admin --yes admin node ban fukuoka-1 --reason "it is a test" >"$run/ban" && ok "it is banned" || die "no ban: $(cat "$run/ban")"
later_failed() { [ "$(as lab -o json show "$later" | jq -r '.state + " " + .reason')" = "failed node fukuoka-1 at fukuoka banned" ]; }
resv() { [ "$(as lab -o json show "$r" | jq -r .state)" = "$1" ]; }
wait_for 10 resv failed && ok "the reservation fails" || bad "it is $(as lab -o json show "$r" | jq -c '[.state, .reason]')"
is "with the reason named" "$(as lab -o json show "$r" | jq -r .reason)" "node fukuoka-1 at fukuoka banned"
wait_for 10 later_failed && ok "so does one that has not begun, for there is no other node" || bad "it is $(as lab -o json show "$later" | jq -c '[.state, .reason]')"
over() { [ "$("$neargpu_agent" leases --conf "$conf" | jq -r '[.leases[] | select(.state != "done")] | length')" = 0 ]; }
wait_for 25 over && ok "and the job ends" || bad "the job runs on"
grep -q 'sync refused (banned)' "$run/agents/fukuoka/log" && ok "the agent is told" || bad "the agent is not told"
node_is banned && ok "the provider sees it" || bad "the provider does not see it"
last() { [ "$(db "SELECT count(*) FROM ng.receipt WHERE reservation_id = '$r' AND kind = 'teardown'")" = 1 ]; }
wait_for 30 last && ok "its last receipt is still taken" || bad "no teardown receipt"
is "which has the new key, as the first has the earlier one" "$(db "SELECT string_agg(DISTINCT r.kind || k.attested, ' ') FROM ng.receipt r
    JOIN ng.node_key k ON k.node_id = r.node_id AND k.receipt_key = r.receipt_key WHERE r.kind <> 'interval'")" "ready1 teardown2"
is "no receipt was refused" "$(grep -c 'refused receipt' "$run/agents/fukuoka/log")" 0
as fukuoka-gpu provider reattest fukuoka-1 >"$run/ban" 2>&1 && bad "a code for a banned node" || ok "there is no code for a banned node"
as fukuoka-gpu --yes admin node unban fukuoka-1 >/dev/null 2>&1 && bad "a provider ends a ban" || ok "a provider does not end a ban"
as admin admin node unban fukuoka-1 >/dev/null && ok "the ban ends" || bad "the ban does not end"
wait_for 90 node_is up && ok "and it is up again" || bad "it is not up after the ban"

node_done
