#!/usr/bin/env bash
# api_match: gangs, federated groups, paths, quotes that hold, moves, dry runs, explain's
# way out, against a real neargpud with curl as clients and nodes. Prints libcheck's
# summary line.
set -uo pipefail
. "$(dirname "$(readlink -f "$0")")/api_lib.sh"

up "$run/s" --listen 127.0.0.1:0 --rate-limits no
pid=$server_pid
admin=$run/s/admin.key acme=$run/acme.key seller=$run/seller.key rival=$run/rival.key
cd "$run" || exit 1

# ---- three cities: 3 x 4 GPUs in Tokyo, 2 x 4 in Osaka (dearer, another seller), 4 in Frankfurt ----
ask "$admin" POST /v1/sites '{"name":"tokyo","city":"Tokyo","lat":35.69,"lon":139.69,"residency":"jp","zone":"kanto"}'
ask "$admin" POST /v1/sites '{"name":"osaka","city":"Osaka","lat":34.69,"lon":135.50,"residency":"jp","zone":"kansai"}'
ask "$admin" POST /v1/sites '{"name":"frankfurt","city":"Frankfurt","lat":50.11,"lon":8.68,"residency":"de","zone":"hesse"}'
is "a site with its zone" "$code $(get .zone)" "201 hesse"
for name in seller rival; do
    ask "$admin" POST /v1/providers "{\"name\":\"$name\"}"
    get .api_key >"$run/$name.key"
done
ask "$admin" POST /v1/tenants '{"name":"acme"}'
get .api_key >"$acme"
ask "$admin" POST /v1/tenants/acme/topup '{"amount":{"currency":"USD","micro":100000000000},"reference":"bank 1"}'
for n in t1 t2 t3; do enrol "$seller" tokyo $n; done
for n in o1 o2; do enrol "$rival" osaka $n; done
enrol "$seller" frankfurt f1
report_all() {
    local n
    for n in t1 t2 t3; do report $n 4 2000000; done
    for n in o1 o2; do report $n 4 3000000; done
    report f1 4 2500000
}
report_all
is "a node reports" "$code" 200
for d in tokyo osaka frankfurt; do
    ask "$acme" POST /v1/datasets "{\"name\":\"d-$d\",\"endpoint\":\"127.0.0.1:9\",\"site\":\"$d\"}"
done
is "data sets" "$code" 201
for _ in $(seq 50); do
    ask "$acme" GET '/v1/offers?duration=1h&gpus=4'
    [ "$(get '.offers | length')" = 3 ] && break
    sleep 0.1
done
is "three places" "$(get '[.offers[].site] | join(" ")')" "tokyo frankfurt osaka"

hour() { date -u -d "@$(($(date +%s) / 3600 * 3600 + $1 * 3600))" +%FT%TZ; } # hour N: N whole hours on
reserve() { # reserve JSON [CURL ARGUMENT…]: jq fills in the start H hours on given as "h"
    local rq=$1
    shift
    ask "$acme" POST /v1/reservations "$rq" "$@"
}
places() { get '[.allocations[] | "\(.node)"] | sort | join(" ")'; }
cancel() {
    ask "$acme" DELETE "/v1/reservations/$1"
}
# Gangs of which the database has a part.
parts() { sql "SELECT count(*) FROM ng.reservation r WHERE state IN ('confirmed', 'held', 'active') AND coalesce((request->>'nodes')::int, 1) * greatest(1, coalesce(jsonb_array_length(request->'federated'), 0)) <> (SELECT count(*) FROM ng.booking b WHERE b.reservation_id = r.id AND NOT isempty(during))"; }
held() { sql "SELECT coalesce(sum(held_micro - captured_micro - released_micro), 0) FROM ng.reservation"; }

# ---- gangs ----
at=$(hour 30)
reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":2,\"start\":\"$at\"}" -H 'Idempotency-Key: g1'
is "a gang on two of three nodes" "$code $(get .state) $(get .nodes) $(get '[.allocations[].rank] | join(" ")') $(get '[.allocations[].site] | unique | join(" ")') $(get '[.allocations[].gpus | length] | add')" "201 confirmed 2 0 1 tokyo 8"
is "different nodes" "$(get '[.allocations[].node] | unique | length')" 2
is "its price" "$(get .price.total_micro) $(get .price.per_hour_micro)" "16000000 16000000"
is "no groups, no paths, nothing waits" "$(get '"\(.groups) \(.paths) \(.coordinator) \(.waiting) \(.fault) \(.preempted_by)"')" "[] [] null null null null"
gang=$body
g1=$(get .id)
reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":2,\"start\":\"$at\"}" -H 'Idempotency-Key: g1'
is "the same request again" "$code $(jq -S . <<<"$body" | sha256sum)" "200 $(jq -S . <<<"$gang" | sha256sum)"
ask "$acme" GET "/v1/reservations/$g1"
is "as the database has it" "$(jq -S . <<<"$body" | sha256sum)" "$(jq -S . <<<"$gang" | sha256sum)"
reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":3,\"start\":\"$at\",\"site\":\"tokyo\"}"
is "three of one site do not fit now" "$code $(get .code) $(get '.rejected | map(select(.site == "tokyo")) | .[0].why')" "409 no_fit busy"
reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":3,\"start\":\"$at\"}"
is "no site has three free" "$code $(get .code) $(get '.rejected | length')" "409 no_fit 3"
reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":3,\"together\":\"any\",\"start\":\"$at\"}"
is "across sites and sellers" "$code $(get .nodes) $(get '[.allocations[].site] | unique | length > 1')" "201 3 true"
any=$(get .id)
reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":2,\"together\":\"any\",\"start\":\"$at\"}"
is "one node is left, two are asked" "$code $(get .code)" "409 no_fit"
is "nothing of it is held" "$(parts)" 0
cancel "$any"
is "given back" "$code" 200
reserve "{\"duration\":\"1h\",\"gpus\":2,\"nodes\":3,\"together\":\"any\",\"spread_zones\":true,\"start\":\"$at\"}"
is "each in a zone of its own" "$code $(get '[.allocations[].site] | unique | length')" "201 3"
cancel "$(get .id)"
reserve "{\"duration\":\"1h\",\"gpus\":2,\"nodes\":2,\"together\":\"any\",\"start\":\"$at\",\"avoid_zone\":[\"kanto\"],\"deny_provider\":[\"rival\"]}"
is "lists exclude" "$code $(get .code)" "409 no_fit"
is "and say so" "$(get '[.rejected[].why] | unique | sort | join(" ")')" "excluded zone"

for n in t1 t2 t3; do
    case $n in t3) fabric=red ;; *) fabric=blue ;; esac
    report $n 4 2000000 ".agent.fabric = \"$fabric\""
done
at=$(hour 32)
for _ in $(seq 50); do
    ask "$acme" GET "/v1/offers?duration=1h&gpus=4&nodes=3&together=domain&start=$at"
    [ "$(get '.offers | length')" = 0 ] && break
    sleep 0.1
done
reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":3,\"together\":\"domain\",\"start\":\"$at\"}"
is "three nodes on no one fabric" "$code $(get .code)" "409 no_fit"
reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":2,\"together\":\"domain\",\"site\":\"tokyo\",\"start\":\"$at\"}"
is "two of one fabric" "$code $(places)" "201 t1 t2"
cancel "$(get .id)"
reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":3,\"start\":\"$at\"}"
is "three of one site" "$code $(places)" "201 t1 t2 t3"
cancel "$(get .id)"
report_all

# ---- a group near each data set ----
at=$(hour 34)
reserve "{\"duration\":\"1h\",\"gpus\":2,\"federated\":[\"d-frankfurt\",\"d-tokyo\",\"d-osaka\"],\"max_rtt\":\"5ms\",\"start\":\"$at\"}"
is "three groups" "$code $(get '[.groups[] | "\(.data):\(.site):\(.nodes)"] | join(" ")')" "201 d-frankfurt:frankfurt:1 d-tokyo:tokyo:1 d-osaka:osaka:1"
is "the coordinator is in the middle, and first" "$(get '.coordinator == .allocations[0].site') $(get '.coordinator != "frankfurt"')" "true true"
is "each near its own" "$(get '[.data[] | .rtt_us < 5000] | all')" true
fed=$(get .id)
reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":2,\"federated\":[\"d-tokyo\",\"d-frankfurt\"],\"max_rtt\":\"5ms\",\"start\":\"$at\"}"
is "one group cannot be: none is" "$code $(get .code)" "409 no_fit"
reserve "{\"duration\":\"1h\",\"federated\":[\"d-tokyo\",\"d-nowhere\"],\"start\":\"$at\"}"
is "a data set that is none" "$code $(get '.detail | test("federated/1")')" "404 true"
cancel "$fed"

reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":2,\"federated\":[\"d-tokyo\",\"d-frankfurt\"],\"start\":\"$at\"}"
is "two groups of two go where there is room" "$code $(get '[.groups[].site] | sort | join(" ")')" "201 osaka tokyo"
cancel "$(get .id)"
reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":2,\"federated\":[\"d-tokyo\",\"d-frankfurt\"],\"start\":\"$at\",\"residency\":\"data\"}"
is "but not out of their countries" "$code $(get .code)" "409 no_fit"
reserve "{\"duration\":\"1h\",\"gpus\":4,\"federated\":[\"d-tokyo\",\"d-frankfurt\"],\"start\":\"$at\",\"residency\":\"data\"}"
is "each stays in its own" "$code $(get '[.groups[].site] | sort | join(" ")')" "201 frankfurt tokyo"
cancel "$(get .id)"
ask "$acme" GET "/v1/explain?duration=1h&near=d-tokyo,d-frankfurt&residency=data"
is "no place is in two countries" "$code $(get '.detail | test("no place is in both")')" "400 true"

# ---- paths ----
ask "$admin" POST /v1/paths '{"name":"tok-osa","from":"tokyo","to":"osaka","lanes":4,"lane_bandwidth":"10Gbps","rtt":"9ms","lossless":true,"price_per_gbps_hour":{"currency":"USD","micro":100000},"setup":"10m","provider":"seller"}' -H 'Idempotency-Key: p1'
is "a path" "$code $(get .lanes)" "201 4"
at=$(hour 38)
wide="{\"duration\":\"1h\",\"gpus\":1,\"data\":[\"d-osaka\"],\"site\":\"tokyo\",\"start\":\"$at\",\"bandwidth\""
reserve "$wide:\"15Gbps\"}"
is "lanes with the GPUs" "$code $(get '.paths[0] | "\(.name) \(.lanes) \(.bandwidth_Bps) \(.state)"')" "201 tok-osa 2 2500000000 planned"
is "lit before the start" "$(get '.paths[0].start < .start') $(get '.paths[0].end == .end')" "true true"
is "GPU and lanes in one price" "$(get .price.total_micro)" 4000000
lanes=$(get .id)
reserve "$wide:\"30Gbps\"}"
is "three more are not there: no GPU either" "$code $(get .code) $(get '.rejected | map(select(.site == "tokyo")) | .[0].why')" "409 no_fit path_busy"
reserve "$wide:\"20Gbps\"}"
is "two are" "$code" 201
is "lanes never twice" "$(sql "SELECT count(*) FROM ng.path_booking a JOIN ng.path_booking b ON a.id < b.id AND a.lanes && b.lanes AND a.during && b.during")" 0
cancel "$lanes"
reserve "$wide:\"20Gbps\"}"
is "given back lanes can be had" "$code" 201
reserve "{\"duration\":\"1h\",\"data\":[\"d-osaka\"],\"site\":\"osaka\",\"start\":\"$at\",\"bandwidth\":\"40Gbps\"}"
is "at the data itself no path is needed" "$code $(get '.paths | length')" "201 0"
ask "$admin" PATCH /v1/paths/tok-osa '{"state":"down"}'
reserve "{\"duration\":\"1h\",\"data\":[\"d-osaka\"],\"site\":\"tokyo\",\"start\":\"$(hour 41)\",\"bandwidth\":\"10Gbps\"}"
is "a path that is down" "$code $(get '.rejected | map(select(.site == "tokyo")) | .[0].why')" "409 no_path"
ask "$admin" PATCH /v1/paths/tok-osa '{"state":"up"}'

# ---- changes, at a cost known before ----
at=$(hour 50)
reserve "{\"duration\":\"2h\",\"gpus\":4,\"nodes\":2,\"start\":\"$at\"}"
id=$(get .id)
before=$(held)
ask "$acme" PATCH "/v1/reservations/$id" "{\"end\":\"$(hour 53)\",\"dry_run\":true}"
is "what an hour more costs" "$code $(get '.change | "\(.delta.micro) \(.new_total.micro) \(.dry_run)"') $(get .generation)" "200 16000000 48000000 true 2"
is "nothing was changed" "$(held)" "$before"
dry=$(jq -S 'del(.change.dry_run)' <<<"$body")
ask "$acme" PATCH "/v1/reservations/$id" "{\"end\":\"$(hour 53)\",\"generation\":1}"
is "it costs that" "$code $(jq -S 'del(.change.dry_run)' <<<"$body" | sha256sum)" "200 $(sha256sum <<<"$dry")"
is "held more" "$(held)" "$((before + 16000000))"
ask "$acme" PATCH "/v1/reservations/$id" "{\"end\":\"$(hour 54)\",\"generation\":1}"
is "another generation" "$code $(get .code)" "409 conflict"
ask "$acme" PATCH "/v1/reservations/$id" "{\"end\":\"$(hour $((50 + 32 * 24)))\"}"
is "longer than a lease may be" "$code $(get .code)" "400 bad_request"
ask "$acme" PATCH "/v1/reservations/$id" '{"gpus":3,"dry_run":true}'
is "what fewer GPUs give back" "$code $(get .change.delta.micro) $(get '[.allocations[].gpus | length] | join(" ")')" "200 -12000000 3 3"
ask "$acme" PATCH "/v1/reservations/$id" '{"gpus":3}'
is "they do" "$code $(get .change.delta.micro) $(get .price.total_micro) $(held)" "200 -12000000 36000000 $((before + 4000000))"
ask "$acme" PATCH "/v1/reservations/$id" '{"gpus":4}'
is "more GPUs are not taken so" "$code" 409
ask "$acme" PATCH "/v1/reservations/$id" "{\"gpus\":2,\"end\":\"$(hour 52)\"}"
is "one change at a time" "$code $(get .code)" "400 bad_request"
ask "$acme" POST "/v1/reservations/$id/move" ''
is "at its best place already" "$code $(get '.change | "\(.delta.micro) \(.moved)"')" "200 0 false"
ask "$acme" POST "/v1/reservations/$id/move" '{"site":"osaka","dry_run":true}'
is "what Osaka would cost" "$code $(get '.change | "\(.delta.micro) \(.dry_run) \(.moved)"') $(get '[.allocations[].site] | unique | join(" ")')" "200 18000000 true true osaka"
ask "$acme" GET "/v1/reservations/$id"
is "it did not move" "$(get '[.allocations[].site] | unique | join(" ")')" tokyo
ask "$acme" POST "/v1/reservations/$id/move" '{"site":"osaka"}'
is "moved" "$code $(get .change.delta.micro) $(get .change.new_total.micro) $(places)" "200 18000000 54000000 o1 o2"
for _ in $(seq 50); do
    ask "$acme" GET "/v1/offers?duration=1h&gpus=4&nodes=3&site=tokyo&start=$at"
    [ "$(get '.offers | length')" = 1 ] && break
    sleep 0.1
done
is "Tokyo is free again" "$(get '.offers | length')" 1
ask "$acme" POST "/v1/reservations/$id/move" '{"site":"frankfurt"}'
is "Frankfurt has one node" "$code $(get .code)" "409 no_fit"
ask "$acme" POST "/v1/reservations/$id/move" '{"colour":"red"}'
is "unknown member" "$code $(get '.detail | test("colour")')" "400 true"
ask "$acme" DELETE "/v1/reservations/$id?dry_run=true"
is "what cancelling gives back" "$code $(get .change.delta.micro) $(get .change.dry_run)" "200 -54000000 true"
ask "$acme" DELETE "/v1/reservations/$id"
is "cancelled" "$code $(get .state) $(get .change.delta.micro)" "200 cancelled -54000000"
ask "$acme" POST "/v1/reservations/$id/move" ''
is "what is cancelled does not move" "$code $(get .code)" "409 conflict"

at=$(hour 56)
reserve "{\"duration\":\"1h\",\"gpus\":4,\"site\":\"frankfurt\",\"start\":\"$(hour 57)\"}"
next=$(get .id)
reserve "{\"duration\":\"1h\",\"gpus\":4,\"site\":\"frankfurt\",\"start\":\"$at\"}"
id=$(get .id)
for dry in true false; do
    ask "$acme" PATCH "/v1/reservations/$id" "{\"end\":\"$(hour 58)\",\"dry_run\":$dry}"
    is "not into the next one's time (dry run $dry)" "$code $(get .code)" "409 conflict"
    ask "$acme" POST "/v1/reservations/$id/move" "{\"start\":\"$(hour 57)\",\"dry_run\":$dry}"
    is "nor onto it ($dry)" "$code $(get .code) $(get '.rejected | map(select(.site == "frankfurt")) | .[0].relax.member')" "409 no_fit start"
done
ask "$acme" POST "/v1/reservations/$id/move" "{\"start\":\"$(hour 56 | sed 's/:00:00Z/:30:00Z/')\",\"duration\":\"30m\"}"
is "within its own time it may move" "$code $(get .start | cut -c15-19) $(get .change.delta.micro)" "200 30:00 -5000000"
cancel "$next"

# ---- quotes that hold ----
at=$(hour 60)
hold="{\"duration\":\"1h\",\"gpus\":4,\"nodes\":3,\"start\":\"$at\",\"hold\":true}"
ask "$acme" POST /v1/quotes "$hold" -H 'Idempotency-Key: q1'
quote=$(get .id)
is "a quote that holds" "$code $(get .held) $(get .plan.state) $(get .plan.nodes)" "201 true held 3"
ask "$acme" POST /v1/quotes "$hold" -H 'Idempotency-Key: q1'
is "asked again: the same" "$code $(get .id)" "201 $quote"
reserve "{\"duration\":\"1h\",\"gpus\":4,\"start\":\"$at\",\"site\":\"tokyo\"}"
is "its GPUs are nobody else's" "$code $(get .code)" "409 no_fit"
reserve "{\"quote\":\"$quote\"}" -H 'Idempotency-Key: q2'
is "it is confirmed" "$code $(get .state) $(get .nodes) $(get .price.total_micro)" "201 confirmed 3 24000000"
reserve "{\"quote\":\"$quote\"}" -H 'Idempotency-Key: q2'
is "confirmed once" "$code" 200
ask "$acme" POST /v1/quotes "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":3,\"start\":\"$(hour 62)\",\"hold\":true}"
quote=$(get .id)
sql "UPDATE ng.reservation SET hold_until = now() - interval '1 s' WHERE quote_id = '$quote'; BEGIN; SET LOCAL session_replication_role = replica; UPDATE ng.quote SET expires_at = now() - interval '1 s' WHERE id = '$quote'; COMMIT" >/dev/null
for _ in $(seq 50); do
    reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":3,\"start\":\"$(hour 62)\",\"site\":\"tokyo\"}"
    [ "$code" = 201 ] && break
    sleep 0.2
done
is "a hold ends by itself" "$code" 201
reserve "{\"quote\":\"$quote\"}"
is "then the quote is over" "$code $(get .code)" "409 conflict"
ask "$acme" POST /v1/quotes '{"duration":"1h","gpus":1,"hold":true}'
is "held for now: it begins when the quote expires" "$code $(get '.plan.start == .expires_at')" "201 true"
reserve "{\"quote\":\"$(get .id)\"}"
is "and is confirmed" "$code $(get .state)" "201 confirmed"
cancel "$(get .id)"
ask "$acme" POST /v1/quotes "{\"duration\":\"1h\",\"gpus\":4,\"start\":\"$(hour 64)\",\"site\":\"frankfurt\"}"
quote=$(get .id)
report f1 4 9000000
reserve "{\"quote\":\"$quote\"}"
is "a quoted price holds" "$code $(get .price.total_micro)" "201 10000000"
ask "$acme" POST /v1/quotes "{\"duration\":\"1h\",\"gpus\":4,\"start\":\"$(hour 66)\",\"site\":\"frankfurt\"}"
quote=$(get .id)
report f1 4 2500000 '.gpus[2].state = "lost"'
for _ in $(seq 50); do
    ask "$acme" GET "/v1/offers?duration=1h&gpus=4&site=frankfurt"
    [ "$(get '.offers | length')" = 0 ] && break
    sleep 0.1
done
reserve "{\"quote\":\"$quote\"}"
is "GPUs that are offered no more are not sold" "$code $(get .code) $(get '.detail | test("does not offer")')" "409 conflict true"
report_all

# ---- why, and the way out ----
ask "$acme" GET "/v1/explain?duration=1h&gpus=4&near=d-osaka&max_rtt=2ms&site=tokyo&start=$(hour 70)"
is "too far" "$code $(get .chosen) $(get '.rejected[] | select(.site == "tokyo") | "\(.why) \(.relax.member)"')" "200 null too_far max_rtt"
more=$(get '.rejected[] | select(.site == "tokyo") | .relax.value')
ask "$acme" GET "/v1/explain?duration=1h&gpus=4&near=d-osaka&max_rtt=$more&site=tokyo&start=$(hour 70)"
is "with its relaxation it fits" "$code $(get '.chosen.allocations[0].site')" "200 tokyo"
relaxed=0
for rq in '{"gpus":4,"nodes":4,"site":"tokyo"}' '{"gpus":4,"site":"tokyo","max_price":{"currency":"USD","micro":7000000}}' '{"gpus":5,"site":"tokyo"}' \
    '{"gpus":4,"site":"tokyo","max_price_per_gpu_hour":{"currency":"USD","micro":1999999}}' '{"gpus":4,"residency":"de","site":"tokyo"}' \
    '{"gpus":4,"nodes":2,"site":"frankfurt"}' '{"gpus":4,"nodes":3,"site":"tokyo","full":true}' '{"gpus":2,"site":"osaka","data":["d-tokyo"],"bandwidth":"80Gbps"}'; do
    start=$(hour 72)
    [ "$(jq .full <<<"$rq")" = true ] && start=$(hour 62) # booked above
    rq=$(jq -c --arg at "$start" 'del(.full) + {duration: "1h", start: $at}' <<<"$rq")
    reserve "$rq"
    is "refused: $rq" "$code $(get .code)" "409 no_fit"
    relax=$(get ".rejected[] | select(.site == $(jq .site <<<"$rq")) | .relax")
    [ "$relax" = null ] && continue
    relaxed=$((relaxed + 1))
    again=$(jq -c --argjson r "$relax" '.[$r.member] = $r.value' <<<"$rq")
    reserve "$again"
    is "its relaxation $relax really fits" "$code" 201
    [ "$code" = 201 ] && cancel "$(get .id)"
done
is "most have a way out" "$((relaxed >= 6))" 1
ask "$acme" GET "/v1/calendar?site=tokyo&gpus=4&from=$(hour 60)&to=$(hour 64)&step=1h"
is "capacity over time" "$code $(get '.offers[0] | "\(.total) \([.steps[].free] | map(tostring) | join(" "))"')" "200 12 0 12 0 12"

# ---- spot, and who takes it ----
ask "$seller" POST /v1/prices '{"site":"frankfurt","per_gpu_hour":{"currency":"USD","micro":2500000},"spot_per_gpu_hour":{"currency":"USD","micro":500000},"notice":"2m"}'
is "spot terms" "$code" 200
for _ in $(seq 50); do
    ask "$acme" GET "/v1/offers?duration=1h&spot=true"
    [ "$(get '.offers | length')" = 1 ] && break
    sleep 0.1
done
is "spot is sold in Frankfurt" "$(get '.offers[0] | "\(.site) \(.spot_per_gpu_hour_micro) \(.notice_s) \(.price.total_micro)"') $(get '[.rejected[].why] | unique | join(" ")')" "frankfurt 500000 120 500000 no_spot"
at=$(hour 90)
reserve "{\"duration\":\"2h\",\"gpus\":2,\"spot\":true,\"start\":\"$at\"}"
is "a spot lease" "$code $(get .spot) $(get .price.total_micro)" "201 true 2000000"
spot=$(get .id)
reserve "{\"duration\":\"1h\",\"gpus\":2,\"site\":\"frankfurt\",\"start\":\"$at\"}"
is "firm demand takes what is free" "$code" 201
ask "$acme" GET "/v1/reservations/$spot"
is "and leaves spot alone" "$(get .state)" confirmed
reserve "{\"duration\":\"1h\",\"gpus\":2,\"spot\":true,\"start\":\"$at\"}"
is "spot preempts nobody" "$code $(get .code)" "409 no_fit"
ask "$acme" GET "/v1/explain?duration=1h&gpus=2&site=frankfurt&start=$at"
is "it would take spot's place" "$code $(get .chosen.allocations[0].site)" "200 frankfurt"
ask "$acme" POST /v1/quotes "{\"duration\":\"1h\",\"gpus\":2,\"site\":\"frankfurt\",\"start\":\"$at\"}"
is "a quote for spot's place" "$code $(get .plan.allocations[0].site)" "201 frankfurt"
quote=$(get .id)
ask "$acme" GET "/v1/reservations/$spot"
is "a quote ends nobody's lease" "$(get .state)" confirmed
reserve "{\"quote\":\"$quote\"}"
is "bought, it takes spot's place" "$code $(get .spot) $(get .price.total_micro)" "201 false 5000000"
ask "$acme" GET "/v1/reservations/$spot"
is "which is told why" "$(get .state) $(get .preempted_by)" "cancelled firm demand"
reserve "{\"duration\":\"1h\",\"gpus\":2,\"spot\":true}"
spot=$(get .id)
ask "$acme" POST "/v1/reservations/$spot/tokens" '{"jwk":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}'
payload=$(get '.tokens[0].token' | cut -d. -f2)
while [ $((${#payload} % 4)) != 0 ]; do payload="$payload="; done
ends=$(basenc -d --base64url <<<"$payload" | jq '.authorization_details[0].not_after // .authorization_details[0].lease.not_after // empty' 2>/dev/null)
[ -n "$ends" ] || ends=$(basenc -d --base64url <<<"$payload" | jq -c . 2>/dev/null)
case $ends in [0-9]*) ends=$((ends - $(date +%s))) ;; *) ends=$(($(date -d "$(tr -d '"' <<<"$ends")" +%s 2>/dev/null || echo 0) - $(date +%s))) ;; esac
is "its grant is for less than the notice ($ends s)" "$((ends > 60 && ends <= 108))" 1
cancel "$spot"

# ---- nothing free: the order waits ----
at=$(hour 94)
for s in tokyo:3 osaka:2 frankfurt:1; do
    reserve "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":${s#*:},\"site\":\"${s%:*}\",\"start\":\"$at\"}"
    is "all of ${s%:*}" "$code" 201
    full=$(get .id)
done
before=$(held)
reserve "{\"duration\":\"1h\",\"gpus\":1,\"site\":\"osaka\",\"start\":\"$at\",\"wait\":true}"
ask "$acme" DELETE "/v1/reservations/$(get .id)"
is "an order is given up" "$code $(get .state) $(get .change.delta.micro)" "200 cancelled 0"
reserve "{\"duration\":\"1h\",\"gpus\":4,\"site\":\"frankfurt\",\"start\":\"$at\",\"wait\":true}" -H 'Idempotency-Key: w1'
is "it waits" "$code $(get .state) $(get '.allocations | length') $(get '.waiting.until') $(get .start)" "201 waiting 0 $at null"
wait=$(get .id)
is "no money is held for it" "$(held)" "$before"
reserve "{\"duration\":\"1h\",\"gpus\":4,\"site\":\"frankfurt\",\"start\":\"$at\",\"wait\":true}" -H 'Idempotency-Key: w1'
is "once" "$code $(get .id)" "200 $wait"
cancel "$full"
for _ in $(seq 80); do
    ask "$acme" GET "/v1/reservations/$wait"
    [ "$(get .state)" = confirmed ] && break
    sleep 0.25
done
is "what comes free is its" "$(get .state) $(get '.allocations[0].site') $(get .waiting)" "confirmed frankfurt null"

# ---- what was cancelled is free at once, also while the feed waits for somebody's transaction ----
coproc hold { psql -X -q -At -h "$run/s/run" -U postgres -d neargpu; }
hold_pid=$!
echo 'BEGIN; SELECT pg_current_xact_id();' >&"${hold[1]}"
read -r -t 10 _ <&"${hold[0]}"
at=$(hour 98)
again=0
for _ in $(seq 20); do
    reserve "{\"duration\":\"1h\",\"gpus\":4,\"site\":\"frankfurt\",\"start\":\"$at\"}"
    [ "$code" = 201 ] && again=$((again + 1))
    cancel "$(get .id)"
done
is "the same GPUs twenty times" "$again" 20
echo 'ROLLBACK;' >&"${hold[1]}"
eval "exec ${hold[1]}>&-"
wait "$hold_pid"

# ---- the whole still adds up ----
ask "$admin" GET /v1/admin/status
is "the checks hold" "$(get '[.checks[].rows] | add')" 0
is "nothing booked twice" "$(sql "SELECT count(*) FROM ng.booking a JOIN ng.booking b ON a.id < b.id AND a.gpus && b.gpus AND a.during && b.during")" 0
summary
