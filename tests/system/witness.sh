#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables are set by market.sh
# witness: the log seen from outside: two tenants and a witness, Go's sumdb as an independent
# reader, a forged cosignature, and a market that shows another log. Prints libcheck's line.
set -uo pipefail
build=$NEARGPU_BUILD src=$NEARGPU_SRC
[ "$(id -u)" = 0 ] || { echo "needs root (embedded cluster under its own user)"; exit 77; }
command -v go >/dev/null || { echo "go is not installed"; exit 77; }
run=$(mktemp -d /var/tmp/neargpu-witness.XXXXXX)
chmod 755 "$run"
# shellcheck source=tests/system/market.sh
. "$src/tests/system/market.sh"
trap 'market_stop; rm -rf "$run"' EXIT
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

server_start || exit 1
billd_start
login admin "$run/server/admin.key"
for t in acme rival; do tenant_create $t 1000; done
wait_for 20 logged

# ---- a witness cosigns; others see it, and can demand it ----
out=$(as acme witness 2>&1)
is "a first look" $? 0
has "it says its key" "$out" "witness acme/witness+"
key=$(sed -n 's/^.*witness \(acme\/witness+.*\)$/\1/p' <<<"$out")
is "one witness" "$(as rival -o json verify | jq -c '[.logs[] | select(.size > 0) | .witnesses]')" "[1]"
as rival verify --witness "$key" >/dev/null 2>&1
is "the one that is demanded" $? 0
out=$(as rival verify --witness "other+00000000+BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" 2>&1)
is "one that never was there" $? 4
has "says who" "$out" "not cosigned by other"
is "again changes nothing" "$(as acme witness >/dev/null 2>&1; echo $?) $(super 'SELECT count(*) FROM ng.witness')" "0 1"
out=$(as rival witness --name acme/witness 2>&1)
is "a name is one account's" $? 6
has "says so" "$out" "is there already"

# ---- what is not a witness's is not kept ----
post() { # post PATH BODY: the status
    curl -sS -o "$run/body" -w '%{http_code}' --cacert "$run/server/pki/ca.pem" -H "Authorization: Bearer $(cat "$run/acme.key")" \
        -H 'Content-Type: application/json' -d "$2" "$server_url$1"
}
line=$(super "SELECT line FROM ng.log_cosign WHERE log = 'ledger'")
size=$(super "SELECT max(size) FROM ng.log_cosign WHERE log = 'ledger'")
cosign() { # cosign LINE SIZE
    post /v1/log/cosignatures "$(jq -cn --arg l "$1"$'\n' --argjson s "$2" '{log: "ledger", size: $s, witness: "acme/witness", cosignature: $l}')"
}
is "its own again" "$(cosign "$line" "$size")" 201
forged=${line%????????}AAAAAAAA
is "one that is forged" "$(cosign "$forged" "$size") $(jq -r .code "$run/body")" "400 bad_request"
is "of a head that never was" "$(cosign "$line" $((size + 1000)))" 404
is "two lines" "$(cosign "$line"$'\n'"$line" "$size")" 400
is "a log's key is no witness's" "$(post /v1/log/witnesses "$(super "SELECT jsonb_build_object('vkey', vkey) FROM ng.log WHERE name = 'ledger'")")" 400

# ---- an independent reader ----
get() { curl -fsS --cacert "$run/server/pki/ca.pem" -H "Authorization: Bearer $(cat "$run/acme.key")" "$server_url$1"; }
super "INSERT INTO ng.site (name, city, lat, lon, residency) VALUES ('tokyo', 'Tokyo', 35.69, 139.69, 'jp');
    INSERT INTO ng.provider (name) VALUES ('seller');
    INSERT INTO ng.node (site_id, provider_id, name, spiffe_id, cert_sha256, receipt_key, gpus, gpu_model, gpu_memory_mib, offered, state, last_sync_at)
    SELECT s.id, p.id, 'n1', 'spiffe://neargpu.local/site/tokyo/node/n1', sha256('c'), sha256('r'), '[8,16)', 'H100', 81559, 255, 'up', now() + interval '1 day'
      FROM ng.site s, ng.provider p;
    INSERT INTO ng.gpu (no, node_id, ix, uuid, model, memory_mib, minor, state)
    SELECT 8 + g, n.id, g, 'GPU-' || g, n.gpu_model, 81559, g, 'idle' FROM ng.node n, generate_series(0, 7) g;
    INSERT INTO ng.price (node_id, during, currency, per_gpu_hour_micro, set_by) SELECT id, tstzrange(now(), NULL), 'USD', 1990000, 'x' FROM ng.node;"
kill -TERM "$server_pid"
wait_for 30 pid_gone "$server_pid"
server_start
for a in admin acme rival; do login $a "$run/$([ $a = admin ] && echo server/)$a.key"; done
get '/v1/log/checkpoint?log=ledger' >"$run/old.json"
resv=$(as acme --yes -o json reserve --gpus 2 --for 1h --start "$(date -u -d '+2 hours' +%FT%TZ)" | jq -r .id)
as acme --yes cancel "$resv" >/dev/null 2>&1
as acme quote --gpus 1 --for 1h >/dev/null 2>&1
wait_for 20 logged
is "quotes are in the log" "$(super "SELECT count(*) > 0 FROM ng.log_leaf WHERE kind = 'quote'")" t
as acme witness >/dev/null 2>&1
get "/v1/log/proof?reservation=$resv" >"$run/bundle.json"
get "/v1/log/checkpoint?log=ledger&from=$(jq .size "$run/old.json")" >"$run/new.json"
jq -n --slurpfile b "$run/bundle.json" --slurpfile o "$run/old.json" --slurpfile n "$run/new.json" '{bundle: $b[0], old: $o[0], new: $n[0]}' >"$run/all.json"
GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$run/go GOFLAGS='' go build -o "$run/logcheck" "$src/tests/tools/logcheck.go" || exit 1
out=$("$run/logcheck" <"$run/all.json" 2>&1)
is "Go's note and tlog agree" $? 0
has "with all of it" "$out" "2 records"
has "and with the witness" "$out" "1 cosignatures"

# ---- a market that shows another log ----
is "the log as it was" "$(as rival verify --witness "$key" >/dev/null 2>&1; echo $?)" 0
pid=$(awk '$2 == "neargpu-billd" {print $1}' "$run/pids")
kill -TERM "$pid"
wait_for 20 pid_gone "$pid"
super "BEGIN; SET LOCAL session_replication_role = replica;
    INSERT INTO ng.log_todo (log, kind, refs) SELECT log, kind, ARRAY[ref] FROM ng.log_leaf ORDER BY random();
    DELETE FROM ng.log_leaf; DELETE FROM ng.log_tile; DELETE FROM ng.log_checkpoint; UPDATE ng.log SET size = 0; COMMIT"
billd_start
wait_for 20 logged
out=$(as acme witness 2>&1)
is "the witness does not cosign it" $? 4
out=$(as rival verify 2>&1)
is "nor does a reader take it" $? 4
summary() {
    printf '%d%%: Checks: %d, Failures: %d, Errors: 0\n' $(((checks - failures) * 100 / checks)) $checks $failures
    [ $failures = 0 ]
}
summary
