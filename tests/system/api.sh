#!/usr/bin/env bash
# api: a real neargpud over its HTTP API, with curl and openssl as clients: the market is
# set up, bookings race, servers are killed and started again, two of them share one
# database, a node enrols and reports. Prints libcheck's summary line.
set -uo pipefail
. "$(dirname "$(readlink -f "$0")")/api_lib.sh"

up "$run/s" --listen 127.0.0.1:0
pid=$server_pid
listen=$addr
admin=$run/s/admin.key
acme=$run/acme.key
seller=$run/seller.key

# ---- people, places, refusals ----
ask - GET /readyz
is "ready" "$code" 200
ask "$admin" GET /v1/whoami
is "whoami" "$(get '.role + " " + .market + " " + .currency')" "admin neargpu.local USD"
is "admin.key mode" "$(stat -c %a "$admin")" 600
is "signing keys' mode" "$(stat -c %a "$run"/s/pki/signer/*.key)" 600
is "root key's mode" "$(stat -c %a "$run/s/pki/root.key")" 600
ask "$admin" POST /v1/sites '{"name":"tokyo","city":"Tokyo","lat":35.69,"lon":139.69,"residency":"jp"}'
is "site" "$code" 201
ask "$admin" POST /v1/sites '{"name":"tokyo","city":"Tokyo","lat":35.69,"lon":139.69,"residency":"jp"}'
is "site twice" "$code $(get .code)" "409 conflict"
ask "$admin" POST /v1/sites '{"name":"Tokyo!","city":"Tokyo","lat":35.69,"lon":139.69,"residency":"jp"}'
is "bad name" "$code $(get .code)" "400 bad_request"
ask "$admin" POST /v1/sites '{"name":"x","city":"X","lat":35.69,"lon":139.69,"residency":"jp","hm":1}'
is "unknown member" "$code $(get '.detail | test("hm")')" "400 true"
ask "$admin" POST /v1/tenants '{"name":"acme"}' -H 'Idempotency-Key: t1'
is "tenant" "$code" 201
get .api_key >"$acme"
ask "$admin" POST /v1/tenants '{"name":"acme"}' -H 'Idempotency-Key: t1'
is "tenant again, same key: another key of the same tenant" "$code $(get '.name')" "201 acme"
ask "$admin" POST /v1/tenants '{"name":"other"}' -H 'Idempotency-Key: t1'
is "tenant, key reused" "$code $(get .code)" "422 key_reused"
ask "$admin" POST /v1/tenants/acme/topup '{"amount":{"currency":"USD","micro":100000000},"reference":"bank 1"}'
is "topup" "$code $(get .balance.micro)" "200 100000000"
ask "$admin" PATCH /v1/terms '{"hold_window":"0s"}' # a lease's whole price is held
is "terms" "$code" 200
ask "$admin" POST /v1/tenants/acme/topup '{"amount":{"currency":"JPY","micro":1},"reference":"bank 2"}'
is "topup in another currency" "$code" 400
ask "$admin" POST /v1/tenants/acme/topup '{"amount":{"currency":"USD","micro":1001000},"reference":"bank 2"}'
is "topup of a part of a cent" "$code" 400
ask "$admin" POST /v1/providers '{"name":"seller"}'
get .api_key >"$seller"
ask "$acme" POST /v1/sites '{}'
is "a tenant makes no site" "$code $(get .code)" "403 forbidden"
ask - GET /v1/wallet
is "no key" "$code" 401
ask "$acme" GET /v1/nowhere
is "no such path" "$code" 404
ask "$acme" GET '/v1/offers?duration=4h&colour=red'
is "unknown query parameter" "$code $(get '.detail | test("colour")')" "400 true"
ask "$acme" GET /v1/offers
is "no duration" "$code $(get '.detail | test("duration")')" "400 true"
ask "$acme" POST /v1/reservations '{"duration":"1h"}'
is "nothing on offer" "$code $(get .code) $(get '.rejected | length')" "409 no_fit 0"

# ---- a node enrols with openssl and curl, and reports ----
cd "$run" || exit 1
ask "$seller" POST /v1/join-codes '{"site":"tokyo","node":"n1"}'
is "join code" "$code" 201
join=$(get .code)
is "the CA to pin" "$(get .ca_sha256)" "$(openssl x509 -in s/pki/ca.pem -outform DER | sha256sum | cut -d' ' -f1)"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout node.key -out node.csr -subj /CN=whatever 2>/dev/null
openssl req -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.csr -subj /CN=x 2>/dev/null
openssl genpkey -algorithm ed25519 -out receipt.key 2>/dev/null
x=$(openssl pkey -in receipt.key -pubout -outform DER | tail -c 32 | basenc --base64url | tr -d '=\n')
enroll() { jq -cn --arg code "$1" --rawfile csr "$2" --arg x "$x" '{code: $code, csr: $csr, receipt_jwk: {kty: "OKP", crv: "Ed25519", x: $x}}'; }
ask - POST /v1/agent/enroll "$(enroll "$join" rsa.csr)"
is "an RSA key is refused" "$code" 400
ask - POST /v1/agent/enroll "$(enroll ngj_wrong node.csr)"
is "a wrong code" "$code" 401
ask - POST /v1/agent/enroll "$(enroll "$join" node.csr)"
is "enrolled" "$code $(get .spiffe_id)" "200 spiffe://neargpu.local/site/tokyo/node/n1"
get .certificate >node.pem
is "only our name is in it" "$(openssl x509 -in node.pem -noout -ext subjectAltName | tail -n 1 | tr -d ' ')" "URI:spiffe://neargpu.local/site/tokyo/node/n1"
is "it is the CA's" "$(openssl verify -CAfile s/pki/ca.pem node.pem)" "node.pem: OK"
node=(--cert node.pem --key node.key)
observed() { # observed VERSION WAIT [LEASES]
    jq -cn --arg v "$1" --arg w "$2" --argjson l "${3:-[]}" '{agent: {version: "1", boot_id: "b", seq: 1, address: "127.0.0.1:7"},
        gpus: [range(4) | {index: ., uuid: "GPU-n1-\(.)", model: "H100-SXM5-80GB", memory_mib: 81559, pci: "", minor: ., state: "idle"}],
        price: {currency: "USD", micro: 2000000}, windows: [], leases: $l, probes: [], desired_version: $v, wait: $w}'
}
ask - POST /v1/agent/sync "$(observed '' 0s)"
is "no certificate, no sync" "$code" 401
ask - POST /v1/agent/sync "$(observed '' 0s)" "${node[@]}"
is "sync" "$code $(get '.leases | length')" "200 0"
version=$(get .desired_version)
is "the status document is signed" "$(get .status | cut -d. -f1 | basenc -d --base64url 2>/dev/null | jq -r .typ)" "neargpu-status+jwt"
ask - POST /v1/agent/sync '{"agent":{}}' "${node[@]}"
is "a bad report" "$code" 400
for _ in $(seq 30); do
    ask "$acme" GET '/v1/offers?duration=1h&gpus=4'
    [ "$(get '.offers | length')" = 1 ] && break
    sleep 0.1
done
is "its GPUs are on offer" "$(get '.offers[0] | "\(.site) \(.free) \(.price.total_micro)"')" "tokyo 4 8000000"

# ---- a reservation wakes the node's poll; token; receipt; end ----
started=$(date +%s%N)
(ask - POST /v1/agent/sync "$(observed "$version" 20s)" "${node[@]}"; printf '%s' "$body" >poll.json; date +%s%N >poll.at) &
poll=$!
sleep 0.5
ask "$acme" POST /v1/reservations '{"duration":"1h","gpus":2,"gpu":"H100"}' -H 'Idempotency-Key: r1'
is "reserved" "$code $(get .state) $(get '.allocations[0].node') $(get '.allocations[0].gpus | length') $(get .price.total_micro)" "201 confirmed n1 2 4000000"
first=$body
id=$(get .id)
wait $poll
is "the poll woke up" "$((($(cat poll.at) - started) / 1000000000 < 5))" 1
is "with the lease" "$(jq -r '.leases[0].reservation' poll.json)" "$id"
is "for the tenant's id" "$(jq -r '.leases[0].tenant | length' poll.json)" 36
ask "$acme" POST /v1/reservations '{"duration":"1h","gpus":2,"gpu":"H100"}' -H 'Idempotency-Key: r1'
is "the same request again" "$code $(jq -S 'del(.state)' <<<"$body" | sha256sum)" "200 $(jq -S 'del(.state)' <<<"$first" | sha256sum)"
ask "$acme" POST /v1/reservations '{"duration":"2h","gpus":2}' -H 'Idempotency-Key: r1'
is "another request under that key" "$code $(get .code)" "422 key_reused"
ask "$acme" POST /v1/reservations '{"duration":"1h","gpus":3}'
is "too busy" "$code $(get .code) $(get '.rejected[0].why')" "409 no_fit busy"
ask "$acme" POST /v1/reservations '{"duration":"30d","gpus":2}'
is "too dear" "$code $(get .code)" "402 funds"
ask "$acme" POST "/v1/reservations/$id/tokens" "$(jq -cn --arg x "$x" '{jwk: {kty: "OKP", crv: "Ed25519", x: $x}}')"
is "token" "$code $(get '.tokens[0].audience')" "201 spiffe://neargpu.local/site/tokyo/node/n1"
get '.tokens[0].token' >token
ask - GET /.well-known/jwks.json
printf '%s' "$body" >jwks.json
is "it verifies offline" "$("$build/client/agent/neargpu-agent" verify --keys jwks.json --audience spiffe://neargpu.local/site/tokyo/node/n1 <token | jq -r '.authorization_details[0].identifier')" "$id"
ask "$acme" PATCH "/v1/reservations/$id" "{\"end\":\"$(date -u -d '+2 hours' +%FT%TZ)\"}" -H 'If-Match: 9'
is "another generation" "$code" 409
ask "$acme" PATCH "/v1/reservations/$id" "{\"end\":\"$(date -u -d '+2 hours' +%FT%TZ)\"}"
is "extended" "$code $(get .generation)" "200 2"

receipt() { # receipt SEQ KIND GPU_MS PREV: a signed receipt on standard output
    local now head payload
    now=$(date -u +%FT%T.%6NZ)
    kid=$(printf '{"crv":"Ed25519","kty":"OKP","x":"%s"}' "$x" | openssl dgst -sha256 -binary | basenc --base64url | tr -d '=\n')
    head=$(printf '{"alg":"EdDSA","kid":"%s","typ":"neargpu-usage+jwt"}' "$kid" | basenc -w0 --base64url | tr -d =)
    payload=$(jq -cn --arg id "$id" --arg now "$now" --argjson seq "$1" --arg kind "$2" --argjson ms "$3" --arg prev "$4" --argjson epoch "$(jq ".leases[0].epoch" "$run/poll.json")" '{iss: "spiffe://neargpu.local/site/tokyo/node/n1",
        reservation: $id, seq: $seq, prev: $prev, kind: $kind, boot_id: "b", from: $now, to: $now, boot_from_us: 1, boot_to_us: 2,
        gpus: ["GPU-n1-0", "GPU-n1-1"], gpu_ms: $ms, epoch: $epoch, evidence: [], gaps: []}' | basenc -w0 --base64url | tr -d =)
    printf '%s.%s' "$head" "$payload" >signed
    openssl pkeyutl -sign -inkey receipt.key -rawin -in signed -out sig
    printf '%s.%s' "$(cat signed)" "$(basenc -w0 --base64url sig | tr -d =)"
}
sleep 1.2
one=$(receipt 1 ready 0 '')
prev=$(printf '%s' "$one" | openssl dgst -sha256 -binary | basenc --base64url | tr -d '=\n')
two=$(receipt 2 teardown 5000 "$prev")
bad=${two%?????}AAAAA
ask - POST /v1/agent/receipts "$(jq -cn --arg a "$one" --arg b "$bad" '{receipts: [$a, $b]}')" "${node[@]}"
is "a good and a spoilt receipt" "$code $(get '.acks[0].seq') $(get '.rejected | length')" "200 1 1"
ask - POST /v1/agent/receipts "$(jq -cn --arg a "$one" --arg b "$two" '{receipts: [$a, $b]}')" "${node[@]}"
is "one again and the next" "$code $(get '[.acks[].seq] | join(" ")') $(get '.rejected | length')" "200 1 2 0"
ask "$acme" GET "/v1/reservations/$id"
is "torn down" "$(get .state)" ended
ask "$acme" GET "/v1/usage?reservation=$id"
is "metered" "$(get '.usage[0].gpu_ms') $(get '.usage[0].receipts')" "5000 2"
openssl req -new -key node.key -out node2.csr -subj /CN=x 2>/dev/null
ask - POST /v1/agent/renew "$(jq -cn --rawfile csr node2.csr '{csr: $csr}')" "${node[@]}"
is "renewed" "$code" 200
get .certificate >node2.pem
ask - GET /v1/whoami '' "${node[@]}"
is "the old certificate still works" "$code" 200
ask - POST /v1/agent/sync "$(observed '' 0s)" --cert node2.pem --key node.key
is "the new one is used" "$code" 200
for _ in $(seq 30); do
    ask - GET /v1/whoami '' "${node[@]}"
    [ "$code" = 401 ] && break
    sleep 0.1
done
is "then the old one is void" "$code" 401
node=(--cert node2.pem --key node.key)

# ---- events, quotes, cancelling ----
curl -sN --max-time 3 --cacert s/pki/ca.pem -H "Authorization: Bearer $(cat "$acme")" -H 'Last-Event-ID: 0:0' "https://$addr/v1/events" >events 2>/dev/null &
events=$!
ask "$acme" POST /v1/quotes '{"duration":"1h","gpus":4}'
quote=$(get .id)
is "quote" "$code $(get .plan.price.total_micro)" "201 8000000"
ask "$acme" POST /v1/reservations "{\"quote\":\"$quote\",\"gpus\":1}"
is "a quote is not changed" "$code" 400
ask "$acme" POST /v1/reservations "{\"quote\":\"$quote\"}"
is "quote booked" "$code $(get .price.total_micro)" "201 8000000"
second=$(get .id)
ask "$acme" POST /v1/reservations "{\"quote\":\"$quote\"}"
is "its GPUs are gone" "$code" 409
wait $events
is "events since the beginning" "$(grep -c '^event: reservation.confirmed' events)" 2
ask "$acme" DELETE "/v1/reservations/$second"
is "cancelled" "$code" 200

# ---- a poll that a cancellation wakes names the lease, and so does its signed status ----
both=0
for i in $(seq 8); do
    ask "$acme" POST /v1/reservations "{\"start\":\"$(date -u -d '+3 hours' +%FT%TZ)\",\"duration\":\"1h\",\"gpus\":1}" -H "Idempotency-Key: proof-$i"
    cut=$(get .id)
    ask - POST /v1/agent/sync "$(observed '' 0s)" "${node[@]}"
    version=$(get .desired_version)
    running=$(jq -c --arg id "$cut" '[.leases[] | select(.reservation == $id) | {reservation, state: "ready", epoch, gpus}]' <<<"$body")
    (ask - POST /v1/agent/sync "$(observed "$version" 20s "$running")" "${node[@]}"; printf '%s' "$body" >cut.json) &
    poll=$!
    sleep 0.3
    ask "$acme" DELETE "/v1/reservations/$cut"
    wait $poll
    named=$(jq -r --arg id "$cut" '[.end[] | select(.reservation? // . == $id)] | length' cut.json)
    signed=$(jq -r .status cut.json | cut -d. -f2 | tr '_-' '/+' | base64 -d 2>/dev/null | jq --arg id "$cut" '[.revoked[] | select(. == $id)] | length')
    [ "$named $signed" = "1 1" ] && both=$((both + 1)) || echo "  $i: in the list $named, signed $signed"
done
is "an end comes with its proof" "$both" 8
ask "$acme" POST "/v1/reservations/$second/tokens" "$(jq -cn --arg x "$x" '{jwk: {kty: "OKP", crv: "Ed25519", x: $x}}')"
is "no token any more" "$code" 409

# ---- killed at each step of a booking: nothing is lost, nothing is done twice ----
soon=$(date -u -d '+1 day' +%FT%TZ)
n=0
for step in book outcome reply; do
    n=$((n + 1))
    stop_pid "$pid" TERM
    NEARGPU_CRASH_AT=flow_reserve:$step up "$run/s" --listen "$listen"
    pid=$server_pid
    request="{\"duration\":\"1h\",\"gpus\":4,\"start\":\"$(date -u -d "$soon + $n hour" +%FT%TZ)\"}"
    ask "$acme" POST /v1/reservations "$request" -H "Idempotency-Key: crash-$step"
    is "no answer when killed before $step" "$code" 000
    wait "$pid" 2>/dev/null
    up "$run/s" --listen "$listen"
    pid=$server_pid
    ask "$acme" POST /v1/reservations "$request" -H "Idempotency-Key: crash-$step"
    if [ $step = book ]; then want=201; else want=200; fi
    is "killed before $step: the same request again" "$code" $want
    is "killed before $step: one reservation" "$(sql "SELECT count(*) FROM ng.reservation WHERE idem_key = 'crash-$step'")" 1
done

# ---- two servers, one database, fifty clients, one GPU ----
mkdir s2
cat >s2.conf <<CONF
data_dir = $run/s2
pki_dir = $run/s/pki
database = host=$run/s/run dbname=neargpu user=neargpu_server
listen = 127.0.0.1:0
rate_limits = no
CONF
up "$run/s2" --conf "$run/s2.conf"
pid2=$server_pid
addr2=$addr
is "the second makes no administrator" "$(test -e s2/admin.key && echo there)" ""
addr=$listen
stop_pid "$pid" KILL # the cluster goes with it
wait "$pid" 2>/dev/null
pid=
up "$run/s" --listen "$listen"
pid=$server_pid
for _ in $(seq 100); do
    addr=$addr2
    ask "$acme" GET /v1/wallet
    [ "$code" = 200 ] && break
    sleep 0.1
done
is "the second server found the database again" "$code" 200
for round in 1 2 3; do
    at=$(date -u -d "$soon + $((round + 24)) hour" +%FT%TZ)
    for i in $(seq 50); do
        if [ $((i % 2)) = 0 ]; then to=$addr2; else to=$listen; fi
        printf 'next\nurl = "https://%s/v1/reservations"\ncacert = "%s"\nheader = "Authorization: Bearer %s"\nheader = "Content-Type: application/json"\ndata = "{\\"duration\\":\\"1h\\",\\"gpus\\":4,\\"start\\":\\"%s\\"}"\noutput = "race.%s"\nwrite-out = "%%{http_code}\\n"\n' \
            "$to" "$run/s/pki/ca.pem" "$(cat "$acme")" "$at" "$i"
    done | sed 1d >race.conf
    curl -sS --max-time 60 -Z --parallel-immediate --parallel-max 50 -K race.conf >race.codes 2>>curl.log
    is "race $round: one winner" "$(grep -c 201 race.codes)" 1
    is "race $round: the others are told" "$(grep -c 409 race.codes)" 49
done
is "nothing booked twice" "$(sql "SELECT count(*) FROM ng.booking a JOIN ng.booking b ON a.id < b.id AND a.gpus && b.gpus AND a.during && b.during")" 0
addr=$listen
ask "$admin" GET /v1/admin/status
is "the checks hold" "$(get '[.checks[].rows] | add')" 0
at=$(date -u -d "$soon + 90 hour" +%FT%TZ)
ask "$acme" POST /v1/reservations "{\"duration\":\"1h\",\"gpus\":4,\"start\":\"$at\"}"
is "booked through the first" "$code" 201
addr=$addr2
for _ in $(seq 30); do
    ask "$acme" GET "/v1/offers?duration=1h&gpus=4&start=$at"
    [ "$(get '.rejected[0].why')" = busy ] && break
    sleep 0.1
done
is "seen by the second" "$(get '.rejected[0].why')" busy
stop_pid "$pid2" TERM
wait "$pid2" 2>/dev/null
is "ends as asked" "$?" 0
pid2=
addr=$listen

# ---- connections to the database cut under load: every key is granted once ----
stop_pid "$pid" TERM
wait "$pid" 2>/dev/null
up "$run/s" --listen "$listen" --rate-limits no
pid=$server_pid
for i in $(seq 120); do
    printf 'next\nurl = "https://%s/v1/reservations"\ncacert = "%s"\nheader = "Authorization: Bearer %s"\nheader = "Content-Type: application/json"\nheader = "Idempotency-Key: cut-%s"\ndata = "{\\"duration\\":\\"1m\\",\\"start\\":\\"%s\\"}"\noutput = "cut.%s"\nwrite-out = "%%{http_code}\\n"\n' \
        "$listen" "$run/s/pki/ca.pem" "$(cat "$acme")" "$i" "$(date -u -d "$soon + 5 day + $i min" +%FT%TZ)" "$i"
done | sed 1d >cut.conf
curl -sS --max-time 60 -Z --parallel-immediate --parallel-max 20 -K cut.conf >cut.codes 2>>curl.log &
load=$!
for _ in $(seq 8); do
    sql "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'neargpu_server'" >/dev/null
    sleep 0.05
done
wait $load
curl -sS --max-time 60 -Z --parallel-max 20 -K cut.conf >cut.again 2>>curl.log
is "all granted when asked again" "$(grep -cE '^20[01]$' cut.again)" 120
is "those confirmed at first were not granted anew" "$(grep -c 201 cut.again)" "$((120 - $(grep -cE '^20[01]$' cut.codes)))"
is "each key once" "$(sql "SELECT count(*), count(DISTINCT idem_key) FROM ng.reservation WHERE idem_key LIKE 'cut-%'")" "120|120"

# ---- a request that fails leaves its place to the one that waited for it ----
ask "$admin" POST /v1/tenants '{"name":"poor"}'
get .api_key >poor.key
ask "$admin" POST /v1/tenants/acme/topup '{"amount":{"currency":"USD","micro":1000000000},"reference":"bank 9"}'
wins=0
for i in $(seq 10); do
    request="{\"duration\":\"1h\",\"gpus\":4,\"start\":\"$(date -u -d "$soon + 8 day + $i hour" +%FT%TZ)\"}"
    (ask poor.key POST /v1/reservations "$request"; echo "$code" >poor.code) &
    first=$!
    (ask poor.key POST /v1/reservations "$request") &
    second=$!
    ask "$acme" POST /v1/reservations "$request"
    [ "$code" = 201 ] && wins=$((wins + 1))
    wait $first $second
done
is "who can pay gets it" "$wins" 10
is "who cannot is told so" "$(grep -cE '402|409' poor.code)" 1

# ---- the description is the server's, the sample the program's ----
"$build/server/neargpud" sample-conf >sample
is "sample configuration" "$(cmp sample "${NEARGPU_SRC:-$here/../..}/packaging/examples/neargpud.conf" && echo same)" same
ask - GET /openapi.json
is "openapi" "$(get .openapi)" 3.1.0
get '.paths | to_entries[] | select(.value.get and (.key | test("[{]|events") | not)) | "\(.key) \(.value.get["x-roles"] | .[0])"' >reads
while read -r path role; do
    case $role in
    tenant) key=$acme ;;
    provider) key=$seller ;;
    admin) key=$admin ;;
    *) key=- ;;
    esac
    case $path in /v1/offers | /v1/explain) path="$path?duration=1h" ;; /v1/admin/drill) path="$path?lose=tokyo" ;; /v1/statement) path="$path?month=2026-11" ;;
    /v1/log/checkpoint) path="$path?log=usage" ;; /v1/log/proof) continue ;; esac # proof: demo.sh
    ask "$key" GET "$path"
    want=200
    [ "$path" != /v1/budget ] || want=404 # none was set
    is "GET $path as $role" "$code" $want
done <reads
is "as many as there are" "$(($(wc -l <reads) > 15))" 1
for report in $(ask "$admin" GET /v1/reports; get '.reports[].name'); do
    ask "$admin" GET "/v1/reports/$report"
    is "report $report" "$code $(get 'has("rows")')" "200 true"
done
ask "$acme" GET "/v1/reservations?limit=2"
is "a page" "$(get '.reservations | length')" 2
ask "$acme" GET "/v1/reservations?limit=2&cursor=$(get .next)"
is "the next page" "$(get '.reservations | length')" 2
for list in reservations nodes; do
    ask "$admin" GET "/v1/$list?cursor=zzz"
    is "a cursor that is none: $list" "$code $(get '.detail | startswith("cursor")')" "400 true"
done
for endpoint in http:// a:99999 ftp://a/ '[::1:80'; do
    ask "$acme" POST /v1/datasets "{\"name\":\"odd\",\"endpoint\":\"$endpoint\",\"lat\":1,\"lon\":1}"
    is "an endpoint nobody could probe: $endpoint" "$code $(get '.detail | startswith("/endpoint")')" "400 true"
done
# ---- who did what ----
sleep 0.5 # batches are written every 0.2 s
printf 'ngk_%043d' 0 >"$run/wrong.key"
ask "$run/wrong.key" POST /v1/quotes '{}'
sleep 0.5
ask "$admin" GET "/v1/audit?action=POST%20/v1/tenants&limit=500"
is "tenants were made, by the administrator" "$(get '[.audit[] | select(.status == 201 and .actor == "admin:admin")] | length > 0')" true
ask "$admin" GET "/v1/audit?action=POST%20/v1/quotes&limit=1"
is "who is refused is there" "$(get '.audit[0] | "\(.actor) \(.status)"')" "- 401"
ask "$acme" GET "/v1/audit?limit=500"
is "a tenant sees what it did, and no more" "$(get '[.audit[].actor] | unique | tostring')" '["tenant:acme"]'
is "no key, no token in it" "$(sql 'SELECT count(*) FROM ng.audit a WHERE a::text ~ '"'ngk_[A-Za-z0-9_-]{20}|eyJ[A-Za-z0-9_-]{20}'")" 0
ask - GET /metrics
is "bookings are counted" "$(grep -c '^neargpu_booked_total [1-9]' <<<"$body")" 1

# ---- roll-ups that nobody keeps, and that are kept ----
fresh() { grep -cE '^neargpu_rollup_(age|hour_age)_seconds\{rollup="(capacity|match|money|orders|use)"\} [0-9]+$' <<<"$body"; }
is "no roll-ups: late" "$(grep -c '^neargpu_rollup_late 1$' <<<"$body") $(fresh)" "1 0"
ask "$admin" GET /v1/admin/status
is "... and the status warns" "$(get '"\(.rollups.late) \(.rollups.advice)"')" "true neargpu-billd has not rolled up yet: is it running?"
"$build/billing/neargpu-billd" --once --data-dir "$run/s" >>"$run/log" 2>&1
ask - GET /metrics
is "roll-ups: not late, each has an age" "$(grep -c '^neargpu_rollup_late 0$' <<<"$body") $(fresh)" "1 10"
is "... of this minute" "$(awk -F'[} ]+' '/^neargpu_rollup_age_seconds/ && $2 < 60 {n++} /^neargpu_rollup_hour_age_seconds/ && $2 < 3660 {n++} END {print n}' <<<"$body")" 10
ask "$admin" GET /v1/admin/status
is "... and no warning" "$(get '"\(.rollups.late) [\(.rollups.advice)] \(.rollups.kinds | length) \(.rollups.last[0:2])"')" "false [] 5 20"
summary
