#!/usr/bin/env bash
# keys: the market's keys with real servers: two on one database, keys rotated, revoked,
# signed by a root that is elsewhere; grants of old and new keys; how fast a revoked
# lease reaches a node, also through another server. Prints libcheck's summary line.
set -uo pipefail
. "$(dirname "$(readlink -f "$0")")/api_lib.sh"

up "$run/s" --listen 127.0.0.1:0
pid=$server_pid
listen=$addr
admin=$run/s/admin.key
acme=$run/acme.key
seller=$run/seller.key
pki=$run/s/pki
keys() { "$build/server/neargpud" keys "$@" --data-dir "$run/s"; }
revoke() { "$build/server/neargpud" keys revoke --data-dir "$run/s" -- "$1"; } # a kid may begin with -
payload() { awk -F. '{ p = $2; while (length(p) % 4) p = p "="; printf "%s", p }' | basenc -d --base64url; }
kid_of() { cut -d. -f1 <<<"$1" | basenc -d --base64url 2>/dev/null | jq -r .kid; }

ask "$admin" POST /v1/sites '{"name":"tokyo","city":"Tokyo","lat":35.69,"lon":139.69,"residency":"jp"}'
ask "$admin" POST /v1/tenants '{"name":"acme"}'
get .api_key >"$acme"
ask "$admin" POST /v1/tenants/acme/topup '{"amount":{"currency":"USD","micro":100000000},"reference":"1"}'
ask "$admin" POST /v1/providers '{"name":"seller"}'
get .api_key >"$seller"
enrol "$seller" tokyo n1
is "enrolled: the root's thumbprint, and a set it signed" "$(get '.root.kty')" OKP
is "the set in the reply is the one in force" "$(get .key_set)" "$(cat "$pki/keyset.jws")"
root_x=$(get .root.x)
report n1 4 2000000
is "sync" "$code" 200
is "the set comes with each answer" "$(get .key_set)" "$(cat "$pki/keyset.jws")"
ask "$admin" GET /v1/admin/status
is "a root that lies here is told of" "$(get '.keys.root_here, (.keys.advice | test("move it away"))' | xargs)" "true true"

# ---- another server on the same database: its own signing key is not needed, it shares the directory ----
printf 'data_dir = %s\ndatabase = host=%s port=5432 dbname=neargpu user=neargpu_server\npki_dir = %s\nlisten = 127.0.0.1:0\ncurrency = USD\n' \
    "$run/s2" "$run/s/run" "$pki" >"$run/s2.conf"
mkdir "$run/s2"
up "$run/s2" --conf "$run/s2.conf"
pid2=$server_pid
listen2=$addr
addr=$listen

x=$(openssl pkey -in "$run/n1.receipt" -pubout -outform DER | tail -c 32 | basenc --base64url | tr -d '=\n') # any key will do
token() { # token: a grant for the reservation $id by this server, on standard output
    ask "$acme" POST "/v1/reservations/$id/tokens" "$(jq -cn --arg x "$x" '{jwk: {kty: "OKP", crv: "Ed25519", x: $x}}')"
    get '.tokens[0].token'
}
believed() { # believed TOKEN: whether a verifier with today's keys believes it
    ask - GET /.well-known/jwks.json
    printf '%s' "$body" >"$run/jwks.json"
    "$build/client/agent/neargpu-agent" verify --keys "$run/jwks.json" --audience spiffe://neargpu.local/site/tokyo/node/n1 <<<"$1" >/dev/null 2>&1 && echo yes || echo no
}
for _ in $(seq 30); do
    ask "$acme" GET '/v1/offers?duration=1h&gpus=4'
    [ "$(get '.offers | length')" = 1 ] && break
    sleep 0.1
done
ask "$acme" POST /v1/reservations '{"duration":"1h","gpus":2}'
is "reserved" "$code" 201
id=$(get .id)

# ---- old, both, new ----
old=$(token)
old_kid=$(kid_of "$old")
is "a grant by the first key" "$(believed "$old")" yes
seq_of() { keys list | sed -n '1s/^key set \([0-9]*\) .*/\1/p'; }
first=$(seq_of)
keys rotate >/dev/null
is "rotated: the next number" "$(seq_of)" $((first + 1))
cp "$pki/keyset.jws" "$run/second.jws"
is "the new key is published, and does not sign yet" "$(keys list | grep -c ' published$') $(keys list | grep -c ' valid$')" "1 1"
for _ in $(seq 50); do
    ask - GET /v1/keyset
    [ "$(get .key_set)" = "$(cat "$run/second.jws")" ] && break
    sleep 0.1
done
is "the running server has taken it over" "$(get .key_set)" "$(cat "$run/second.jws")"
is "its root is the one pinned" "$(get .root.x)" "$root_x"
is "still the old key" "$(kid_of "$(token)")" "$old_kid"
is "the old grant is believed while both are there" "$(believed "$old")" yes
ask - GET /.well-known/jwks.json
is "both keys" "$(get '.keys | length')" 2

# ---- a new one at once ----
keys rotate --now >/dev/null
for _ in $(seq 50); do
    new=$(token)
    [ "$(kid_of "$new")" != "$old_kid" ] && break
    sleep 0.1
done
new_kid=$(kid_of "$new")
is "the new key signs" "$([ "$new_kid" != "$old_kid" ] && echo yes)" yes
is "new and old are believed" "$(believed "$new") $(believed "$old")" "yes yes"

# ---- the other server follows, too ----
addr=$listen2
for _ in $(seq 50); do
    other=$(token)
    [ "$(kid_of "$other")" = "$new_kid" ] && break
    sleep 0.1
done
is "the other server signs with it as well" "$(kid_of "$other")" "$new_kid"
addr=$listen

# ---- revoked ----
revoke "$old_kid" >/dev/null
for _ in $(seq 50); do
    [ "$(believed "$old")" = no ] && break
    sleep 0.1
done
is "a grant by a revoked key is worth nothing, a new one is" "$(believed "$old") $(believed "$(token)")" "no yes"
ask - GET /v1/status
is "the status document names the key" "$(get .status | payload | jq -r '.revoked_kids[0]')" "$old_kid"
is "a key is revoked once" "$(revoke "$old_kid" 2>&1 | grep -c 'revoked already')" 1
is "no such key" "$(keys revoke nobody 2>&1 | grep -c 'has no key')" 1

# ---- no way back; the root elsewhere ----
is "an older set is refused" "$(keys import "$run/second.jws" 2>&1 | grep -c rollback)" 1
mv "$pki/root.key" "$run/root.key"
is "without the root nothing changes" "$(keys rotate 2>&1 | grep -c -- '--request FILE')" 1
before=$(seq_of)
keys rotate --now --request "$run/set.req" >/dev/null
is "a request changes nothing yet" "$(seq_of)" "$before"
"$build/server/neargpud" keys root-new "$run/foreign.key" >/dev/null
"$build/server/neargpud" keys sign --root "$run/foreign.key" "$run/set.req" >"$run/foreign.jws" 2>/dev/null
is "a set of another root is refused" "$(keys import "$run/foreign.jws" 2>&1 | grep -c 'root')" 1
"$build/server/neargpud" keys sign --root "$run/root.key" "$run/set.req" >"$run/set.jws" 2>/dev/null
keys import "$run/set.jws" >/dev/null
is "the root's own is taken" "$(seq_of)" $((before + 1))
for _ in $(seq 50); do
    newest=$(token)
    [ "$(kid_of "$newest")" != "$new_kid" ] && break
    sleep 0.1
done
is "and its key signs" "$([ "$(kid_of "$newest")" != "$new_kid" ] && believed "$newest")" yes
ask "$admin" GET /v1/admin/status
is "the root is gone from here" "$(get '.keys.root_here')" false

# ---- a revoked lease reaches the node's poll at once, cancelled here or there ----
revoked_in() { # revoked_in ADDRESS: cancels $id through ADDRESS while the node polls $listen; ms until it knows
    local poll version woke here=$addr
    report n1 4 2000000
    version=$(get .desired_version)
    (report n1 4 2000000 '.desired_version = "'"$version"'" | .wait = "20s"'; printf '%s' "$body" >"$run/poll.json"; date +%s%N >"$run/poll.at") &
    poll=$!
    sleep 0.7
    addr=$1
    started=$(date +%s%N)
    ask "$acme" DELETE "/v1/reservations/$id"
    addr=$here
    wait $poll
    for _ in $(seq 40); do # its lease went with the poll; the signed list may follow by a blink
        jq -r .status "$run/poll.json" | payload | jq -e --arg id "$id" '.revoked | index($id) != null' >/dev/null && break
        report n1 4 2000000
        printf '%s' "$body" >"$run/poll.json"
        date +%s%N >"$run/poll.at"
    done
    woke=$(cat "$run/poll.at")
    [ "$woke" -gt "$started" ] || { echo 99999; return; } # not by this
    echo $((($(cat "$run/poll.at") - started) / 1000000))
}
sleep 1.2 # the lease runs
ms=$(revoked_in "$listen")
is "revoked here: told within a second ($ms ms)" "$((ms < 1000))" 1
is "it is in the signed list" "$(jq -r .status "$run/poll.json" | payload | jq -r --arg id "$id" '.revoked | index($id) != null')" true
is "its GPUs need a later epoch" "$(jq -r .status "$run/poll.json" | payload | jq -r '.min_epochs | keys | join(" ")')" "GPU-n1-0 GPU-n1-1"
ask "$acme" POST /v1/reservations '{"duration":"1h","gpus":2}'
is "reserved again" "$code" 201
id=$(get .id)
epoch=$(token | payload | jq '.authorization_details[0].epoch')
sleep 1.2
ms=$(revoked_in "$listen2")
is "revoked through the other server: told within a second ($ms ms)" "$((ms < 1000))" 1
is "it is in the signed list, too" "$(jq -r .status "$run/poll.json" | payload | jq -r --arg id "$id" '.revoked | index($id) != null')" true
is "with the epoch of its grant" "$(jq -r .status "$run/poll.json" | payload | jq --argjson e "$epoch" '[.min_epochs[] == $e] | any')" true
summary
