#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables are set by market.sh
# agent_witness: an agent cosigns the log's heads by itself, over its sync: others see and
# demand it, Go's sumdb reads it, what it saw outlives it, and a market that shows another log
# gets no cosignature but an entry in its own audit log. Prints libcheck's line.
set -uo pipefail
build=$NEARGPU_BUILD src=$NEARGPU_SRC
[ "$(id -u)" = 0 ] || { echo "needs root: embedded cluster, an agent"; exit 77; }
command -v go >/dev/null || { echo "go is not installed"; exit 77; }
export PATH="$PATH:/usr/sbin:/sbin"
run=$(mktemp -d /srv/neargpu-agent-witness.XXXXXX)
# shellcheck source=tests/system/market.sh
. "$src/tests/system/market.sh"
sites=fukuoka
trap 'market_stop; [ -n "${NEARGPU_KEEP:-}" ] || rm -rf "$run"' EXIT
checks=0 failures=0
is() { # is WHAT GOT WANT
    checks=$((checks + 1))
    [ "$2" = "$3" ] && return
    failures=$((failures + 1))
    echo "FAILED: $1: got '$2', want '$3'"
}
has() { # has WHAT TEXT PART
    checks=$((checks + 1))
    case $2 in *"$3"*) return ;; esac
    failures=$((failures + 1))
    echo "FAILED: $1: '$3' is not in: $2"
}
super() { psql -X -q -At -v ON_ERROR_STOP=1 -h "$run/server/run" -U postgres -d neargpu -c "$1"; }
logged() { [ "$(super 'SELECT count(*) FROM ng.log_todo')" = 0 ]; }
stop_agent() {
    kill -TERM "$agent_pid"
    wait_for 20 pid_gone "$agent_pid"
}

server_start || exit 1
billd_start
login admin "$run/server/admin.key"
tenant_create acme 1000
site_prepare fukuoka || exit 1
echo "witness_interval = 1s" >>"$run/agents/fukuoka/agent.conf"
log=$run/agents/fukuoka/log kept=$run/agents/fukuoka/state/witness
wait_for 20 logged

# ---- it cosigns what it is shown, and others see it ----
agent_start fukuoka
cosigned() { [ "$(super 'SELECT count(*) FROM ng.node_witness WHERE at IS NOT NULL')" -ge "${1:-1}" ]; }
wait_for 40 cosigned 1
is "a head is cosigned" $? 0
key=$(sed -n 's/^.*witness \(neargpu.local.*\)$/\1/p' "$log" | tail -n 1)
has "its name is the node's" "$key" "neargpu.local/site/fukuoka/node/fukuoka-1+"
is "the key is its own" "$(stat -c %a "$kept/key")" 600
as acme verify --witness "$key" >"$run/verify.out" 2>&1
only_ledger=$(super "SELECT count(*) FROM ng.log WHERE name = 'usage' AND size > 0") # no receipts yet
is "it can be demanded" "$? $only_ledger" "0 0"
is "and is counted" "$(as acme -o json verify | jq '[.logs[] | select(.log == "ledger") | .witnesses][0]')" 1
listed=$(as admin -o json admin witness list | jq -c '.witnesses[] | select(.node == "fukuoka-1") | [.site, .log, .last != null, .why]')
is "an administrator sees it" "$listed" '["fukuoka","ledger",true,null]'
has "with its age" "$(as admin admin witness list)" "fukuoka-1"
is "a tenant sees no nodes" "$(as acme -o json admin witness list | jq '.witnesses | length')" 0

# ---- an independent reader ----
get() { curl -fsS --cacert "$run/server/pki/ca.pem" -H "Authorization: Bearer $(cat "$run/acme.key")" "$server_url$1"; }
size_of() { jq -r '.ledger.size // 0' "$kept/heads.json"; }
get '/v1/log/checkpoint?log=ledger' >"$run/old.json"
before=$(size_of)
as admin admin tenant topup acme --amount 5 --reference more >/dev/null
wait_for 20 logged
stop_agent
is "the head is kept" "$(size_of)" "$before"
agent_start fukuoka # asks at once; else when its poll is over
grown() { [ "$(size_of)" -gt "$before" ] && [ "$(super "SELECT size FROM ng.node_witness WHERE log = 'ledger'")" = "$(size_of)" ]; }
wait_for 60 grown
is "it follows the log" $? 0
get "/v1/log/checkpoint?log=ledger&from=$(jq .size "$run/old.json")" >"$run/new.json"
jq -n --slurpfile o "$run/old.json" --slurpfile n "$run/new.json" '{bundle: {}, old: $o[0], new: $n[0]}' >"$run/all.json"
GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$run/go GOFLAGS='' go build -o "$run/logcheck" "$src/tests/tools/logcheck.go" || exit 1
has "Go's note takes its cosignature" "$("$run/logcheck" <"$run/all.json" 2>&1)" "1 cosignatures"

# ---- what it saw outlives it; a market that shows another log ----
before=$(size_of)
stop_agent
billd=$(awk '$2 == "neargpu-billd" {print $1}' "$run/pids")
kill -TERM "$billd"
wait_for 20 pid_gone "$billd"
super "BEGIN; SET LOCAL session_replication_role = replica;
    INSERT INTO ng.log_todo (log, kind, refs) SELECT log, kind, ARRAY[ref] FROM ng.log_leaf ORDER BY index DESC;
    UPDATE ng.node_witness SET size = NULL, line = NULL, at = NULL;
    DELETE FROM ng.log_leaf; DELETE FROM ng.log_tile; DELETE FROM ng.log_checkpoint; UPDATE ng.log SET size = 0; COMMIT"
billd_start
wait_for 20 logged
agent_start fukuoka
refused() { [ "$(super "SELECT count(*) FROM ng.node_witness WHERE refused_at IS NOT NULL")" = 1 ]; }
wait_for 40 refused
is "it says what it was shown" $? 0
is "it does not cosign it" "$(super "SELECT count(*) FROM ng.node_witness WHERE log = 'ledger' AND at IS NOT NULL")" 0
has "its own log" "$(tail -n 30 "$log")" "do not extend"
is "the audit log" "$(as admin -o json admin audit --action REFUSE | jq -r '.audit[] | "\(.actor) \(.action)"')" \
    "agent:spiffe://neargpu.local/site/fukuoka/node/fukuoka-1 REFUSE /v1/log/checkpoint/ledger"
is "an event for its provider" "$(super "SELECT count(*) FROM ng.event WHERE kind = 'log.refused' AND node_id IS NOT NULL")" 1
has "and the list" "$(as admin -o json admin witness list | jq -r '.witnesses[].why')" "different logs"
is "both heads are kept" "$(head -n 1 "$kept/refused-ledger.note") $(jq -r .ledger.checkpoint "$kept/heads.json" | head -n 1)" \
    "neargpu.local/ledger neargpu.local/ledger"
is "the one of before stays" "$(size_of)" "$before"
rss() { awk '$1 == "VmRSS:" {print $2}' "/proc/$1/status"; }
echo "agent: $(rss "$agent_pid") KiB resident"
printf '%d%%: Checks: %d, Failures: %d, Errors: 0\n' $(((checks - failures) * 100 / checks)) $checks $failures
[ $failures = 0 ]
