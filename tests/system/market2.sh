#!/usr/bin/env bash
# market2: what a real neargpud does of itself, with nodes played by curl: it has paths lit
# and released by the operator's program, plans and books the waiting list, tells spot
# leases in terms and preempts them, drills, and places anew what a lost node had. Prints
# libcheck's summary line.
# shellcheck disable=SC2154 # run, code, body, checks, failures, server_pid are api_lib's
set -uo pipefail
# shellcheck source=tests/system/api_lib.sh
. "$(dirname "$(readlink -f "$0")")/api_lib.sh"

cat >"$run/hook" <<EOF
#!/bin/sh
# The first attempt at each path fails: it must be repeated.
read -r job
echo "\$1 \$2 \$job" >>"$run/hook.log"
[ -e "$run/hook.\$2" ] && exit 0
: >"$run/hook.\$2"
echo "port 7 does not answer" >&2
exit 3
EOF
chmod 755 "$run/hook"
printf 'unknown_after = 10s\nlost_after = 11s\npath_hook = %s/hook\npath_hook_limit = 1s\nrate_limits = no\n' "$run" >"$run/conf"

up "$run/s" --listen 127.0.0.1:0 --conf "$run/conf"
pid=$server_pid
first_addr=$addr
# A second server on the same database does all of it as well: nothing may happen twice.
mkdir -p "$run/t"
cp -r "$run/s/pki" "$run/t/pki"
up "$run/t" --listen 127.0.0.1:0 --conf "$run/conf" --database "host=$run/s/run dbname=neargpu user=neargpu_server"
pid2=$server_pid
second_addr=$addr
addr=$first_addr
admin=$run/s/admin.key
acme=$run/acme.key
beta=$run/beta.key
poor=$run/poor.key
seller=$run/seller.key
for site in 'tokyo Tokyo 35.69 139.69' 'osaka Osaka 34.69 135.50'; do
    read -r name city lat lon <<<"$site"
    ask "$admin" POST /v1/sites "{\"name\":\"$name\",\"city\":\"$city\",\"lat\":$lat,\"lon\":$lon,\"residency\":\"jp\",\"zone\":\"$name-bay\"}"
done
is "a site has a zone" "$code $(get .zone)" "201 osaka-bay"
ask "$admin" PATCH /v1/sites/osaka '{"zone":"kansai"}'
is "which may change" "$code $(get .zone)" "200 kansai"
for t in acme beta poor; do
    ask "$admin" POST /v1/tenants "{\"name\":\"$t\"}"
    get .api_key >"$run/$t.key"
    [ $t = poor ] || ask "$admin" POST "/v1/tenants/$t/topup" '{"amount":{"currency":"USD","micro":1000000000},"reference":"'$t'"}'
done
ask "$admin" POST /v1/providers '{"name":"seller"}'
get .api_key >"$seller"
ask "$admin" POST /v1/providers '{"name":"net-west"}'
net=$run/net.key
get .api_key >"$net"
enrol "$seller" tokyo n1
enrol "$seller" osaka n2

# keep NODE PRICE: its reports until NODE.off is there. The last answer is in NODE.json.
keep() {
    while [ ! -e "$run/$1.off" ]; do
        report "$1" 4 "$2"
        printf '%s' "$body" >"$run/$1.new" && mv "$run/$1.new" "$run/$1.json"
        sleep 2
    done
}
keep n1 2000000 2>/dev/null &
more_pids+=($!)
keep n2 3000000 2>/dev/null &
more_pids+=($!)

# until_is NAME JQ WANT KEY PATH [SECONDS]: asks until the answer is as wanted.
until_is() {
    for _ in $(seq $((${6:-15} * 5))); do
        ask "$4" GET "$5"
        [ "$(get "$2")" = "$3" ] && break
        sleep 0.2
    done
    is "$1" "$(get "$2")" "$3"
}
at() { date -u -d "${2:-now} $1" +%FT%TZ; }
until_is "both nodes are on offer" '.offers | length' 2 "$acme" '/v1/offers?duration=1h&gpus=4'

# ---- paths: booked with the GPUs, lit and released by the operator's program ----
ask "$admin" POST /v1/paths '{"name":"west-1","from":"tokyo","to":"osaka","lanes":4,"lane_bandwidth":"10Gbps","rtt":"6ms","lossless":true,"price_per_gbps_hour":{"currency":"USD","micro":100000},"setup":"30s","provider":"net-west"}'
is "a path" "$code $(get '"\(.name) \(.lanes) \(.lane_bandwidth) \(.rtt) \(.setup) \(.state) \(.price_per_gbps_hour.micro)"')" "201 west-1 4 10Gbps 6ms 30s up 100000"
ask "$admin" POST /v1/paths '{"name":"west-1","from":"tokyo","to":"osaka","lanes":4,"lane_bandwidth":"10Gbps","price_per_gbps_hour":{"currency":"USD","micro":1},"provider":"net-west"}'
is "its name is taken" "$code" 409
ask "$admin" POST /v1/paths '{"name":"nowhere","from":"tokyo","to":"atlantis","lanes":4,"lane_bandwidth":"10Gbps","price_per_gbps_hour":{"currency":"USD","micro":1},"provider":"net-west"}'
is "a path to nowhere" "$code" 404
ask "$acme" GET /v1/paths
is "all see it" "$code $(get '.paths | length')" "200 1"
ask "$acme" POST /v1/datasets '{"name":"far","endpoint":"tcp://127.0.0.1:9","site":"osaka"}'
is "a data set" "$code" 201
ask "$acme" POST /v1/reservations "{\"duration\":\"10m\",\"gpus\":2,\"site\":\"tokyo\",\"data\":[\"far\"],\"bandwidth\":\"20Gbps\",\"start\":\"$(at '+40 seconds')\"}"
is "GPUs and lanes together" "$code $(get '.paths[0] | "\(.name) \(.lanes) \(.bandwidth_Bps)"')" "201 west-1 2 2500000000"
path_id=$(get .id)
ask "$acme" POST /v1/reservations "{\"duration\":\"10m\",\"gpus\":1,\"site\":\"tokyo\",\"data\":[\"far\"],\"bandwidth\":\"30Gbps\",\"start\":\"$(at '+40 seconds')\"}"
is "no more lanes than there are" "$code $(get .code)" "409 no_fit"
until_is "it failed first, and says why" '.paths[0].state + " " + .paths[0].error' "planned exit status 3: port 7 does not answer" "$acme" "/v1/reservations/$path_id" 30
until_is "it is lit before the start" '.paths[0].state' lit "$acme" "/v1/reservations/$path_id" 20
is "by the program" "$(grep -c '^light west-1 {.*"lanes":2' "$run/hook.log")" 2
is "which is told what" "$(sed -n 's/^light west-1 //p' "$run/hook.log" | head -n 1 | jq -r '"\(.from) \(.to) \(.provider) \(.first) \(.bandwidth_Bps) \(.reservation)"')" "tokyo osaka net-west 0 2500000000 $path_id"
ask "$acme" DELETE "/v1/reservations/$path_id"
is "cancelled" "$code" 200
until_is "and put out again" '.paths[0].state' released "$acme" "/v1/reservations/$path_id" 20
is "by the program" "$(grep -c '^release west-1 ' "$run/hook.log")" 1
for _ in $(seq 50); do [ "$(jq -r '.probes | length' "$run/n2.json")" = 1 ] && break; sleep 0.2; done
is "each site has somebody measure the data" "$(jq -r '.probes[].endpoint' "$run/n1.json" "$run/n2.json" | sort | uniq -c | tr -s ' ')" " 2 tcp://127.0.0.1:9"
ask "$admin" PATCH /v1/paths/west-1 '{"rtt":"11ms600us","setup":"1m"}'
is "a path's promise may change" "$code $(get '"\(.rtt) \(.setup)"')" "200 11ms600us 1m"
ask "$admin" PATCH /v1/paths/west-1 '{"state":"down","price_per_gbps_hour":{"currency":"USD","micro":200000}}'
is "taken out of service" "$code $(get .state) $(get .price_per_gbps_hour.micro)" "200 down 200000"
ask "$acme" POST /v1/reservations '{"duration":"10m","gpus":1,"site":"tokyo","data":["far"],"bandwidth":"10Gbps"}'
is "it is not sold" "$code $(get .code)" "409 no_fit"

# ---- a hook that is a URL is posted to by a process of its own ----
post() { echo "$1" | "$build/server/neargpud" post-hook "https://$addr/v1/providers" "$run/s/pki/ca.pem" "${@:2}" 2>"$run/post.log"; }
post '{"name":"posted"}' "$admin"
is "posted with the token" "$?" 0
ask "$admin" GET /v1/providers
is "it arrived" "$(get '[.providers[].name] | index("posted") != null')" true
post '{"name":"posted2"}'
is "without the token" "$? $(grep -c . "$run/post.log")" "1 1"

# ---- the waiting list ----
reserve() { # reserve KEY BODY: sets $id
    ask "$1" POST /v1/reservations "$2"
    id=$(get .id)
}
full='"gpus":4,"site":"tokyo"'
reserve "$acme" "{\"duration\":\"1h\",$full,\"start\":\"$(at '+3 minutes')\"}"
first=$id first_end=$(get .end)
is "tokyo is full" "$code" 201
ask "$acme" POST /v1/reservations "{\"duration\":\"30m\",$full}"
is "another is refused" "$code $(get .code)" "409 no_fit"
reserve "$acme" "{\"duration\":\"30m\",$full,\"wait\":true}"
is "or waits" "$(get '"\(.state) \(.allocations | length)"')" "waiting 0"
order1=$id
reserve "$beta" "{\"duration\":\"30m\",$full,\"wait\":true}"
order2=$id
until_is "the first is told when it would start" '.waiting | "\(.position) \(.predicted_start)"' "1 $first_end" "$acme" "/v1/reservations/$order1"
until_is "the second after it" '.waiting | "\(.position) \(.predicted_start)"' "2 $(at '+30 minutes' "$first_end")" "$beta" "/v1/reservations/$order2"
until_is "newcomers come after them" '.offers[0].start' "$(at '+1 hour' "$first_end")" "$acme" "/v1/offers?duration=30m&gpus=4&site=tokyo&earliest=$(at '+1 minute')&latest=$(at '+3 hours')"
ask "$admin" PATCH /v1/tenants/beta '{"priority":10}'
is "priority" "$code $(get .priority)" "200 10"
until_is "it goes first now" .waiting.position 1 "$beta" "/v1/reservations/$order2"
reserve "$acme" "{\"duration\":\"10m\",$full,\"wait\":true,\"wait_until\":\"$(at '+3 seconds')\"}"
until_is "one that waited long enough is given up" '.state + " " + .reason[:14]' "failed nothing fitted" "$acme" "/v1/reservations/$id"
ask "$acme" DELETE "/v1/reservations/$first"
until_is "room is made: the first of the list is booked" '.state + " " + (.waiting | tostring)' "active null" "$beta" "/v1/reservations/$order2"
until_is "the other moves up" '.waiting.position' 1 "$acme" "/v1/reservations/$order1"
ask "$acme" DELETE "/v1/reservations/$order1"
is "an order may be withdrawn" "$code $(get .state)" "200 cancelled"
later=$(at '+5 hours')
reserve "$acme" "{\"duration\":\"1h\",$full,\"start\":\"$later\"}"
first=$id
reserve "$poor" "{\"duration\":\"1h\",$full,\"start\":\"$later\",\"wait\":true}"
order1=$id
reserve "$beta" "{\"duration\":\"1h\",$full,\"start\":\"$later\",\"wait\":true}"
order2=$id
until_is "a fixed start that is taken" '.waiting | "\(.position) \(.predicted_start) \(.why)"' "2 null busy" "$poor" "/v1/reservations/$order1"
ask "$admin" PATCH /v1/tenants/poor '{"priority":20}'
until_is "who is poor may be first" '.waiting.position' 1 "$poor" "/v1/reservations/$order1"
ask "$acme" DELETE "/v1/reservations/$first"
until_is "and waits for money" '.waiting.why' funds "$poor" "/v1/reservations/$order1"
until_is "which holds up nobody" .state confirmed "$beta" "/v1/reservations/$order2"
sleep 2 # a look at what was just booked, hours before it starts
for addr in "$second_addr" "$first_addr"; do
    ask "$acme" GET "/v1/offers?duration=1h&gpus=4&site=tokyo&start=$later"
    is "its place is taken, for the server that booked it too" "$code $(get '.offers | length')" "200 0"
done
ask "$beta" DELETE "/v1/reservations/$order2"
ask "$poor" DELETE "/v1/reservations/$order1"

# ---- spot: told in terms, preempted with notice ----
ask "$seller" POST /v1/prices '{"site":"osaka","per_gpu_hour":{"currency":"USD","micro":3000000},"spot_per_gpu_hour":{"currency":"USD","micro":1000000},"notice":"30s"}'
is "spot is on offer" "$code $(get .nodes)" "200 1"
ask "$seller" GET /v1/prices
is "and shown" "$(get '.prices[] | select(.site == "osaka" and .until == null) | "\(.spot_per_gpu_hour.micro) \(.notice)"')" "1000000 30s"
until_is "to tenants too" '.offers[] | select(.site == "osaka") | "\(.spot_per_gpu_hour_micro) \(.notice_s)"' "1000000 30" "$acme" '/v1/offers?duration=1h&gpus=4'
reserve "$acme" '{"duration":"1h","gpus":4,"spot":true}'
spot=$id
is "a spot lease" "$code $(get '"\(.spot) \(.price.total_micro) \(.allocations[0].node)"')" "201 true 4000000 n2"
spot_of() { jq -r ".leases[] | select(.reservation == \"$spot\") | $1" "$run/n2.json"; }
for _ in $(seq 50); do [ -n "$(spot_of .epoch)" ] && break; sleep 0.2; done
term=$(spot_of .generation)
is "its node is told of it for less than the notice" "$(($(date -d "$(spot_of .not_after)" +%s) - $(date +%s) <= 30))" 1
is "in terms" "$((term >= 1048576))" 1
for _ in $(seq 100); do [ "$(spot_of .generation)" -gt "$term" ] && break; sleep 0.2; done
is "which roll on" "$(($(spot_of .generation) > term))" 1
reserve "$beta" "{\"duration\":\"10m\",\"gpus\":4,\"site\":\"osaka\",\"earliest\":\"$(at '+1 second')\",\"latest\":\"$(at '+2 minutes')\"}"
is "firm demand takes it" "$code $(get '"\(.state) \(.allocations[0].node)"')" "201 confirmed n2"
firm_start=$(get .start)
ask "$acme" GET "/v1/reservations/$spot"
is "with its notice" "$(get '"\(.preempted_by) \(.end)"')" "firm demand $firm_start"
is "which it is told" "$(($(date -d "$firm_start" +%s) - $(date +%s) >= 28))" 1
is "and why" "$(get '.reason | test("preempted by firm demand.*notice 30s")')" true
curl -sN --max-time 2 --cacert "$run/s/pki/ca.pem" -H "Authorization: Bearer $(cat "$acme")" -H 'Last-Event-ID: 0:0' "https://$addr/v1/events" >"$run/events" 2>/dev/null
is "by an event" "$(grep -c '^event: reservation.preempted' "$run/events")" 1

# ---- drill, and a node that is really lost ----
two='"duration":"1h","gpus":2'
reserve "$acme" "{$two,\"start\":\"$(at '+3 hours')\"}"
moves=$id moves_price=$(get .price.total_micro)
is "tokyo is cheaper" "$(get '.allocations[0].site')" tokyo
reserve "$beta" "{$two,\"site\":\"tokyo\",\"start\":\"$(at '+3 hours')\"}"
stuck=$id
reserve "$beta" "{$two,\"site\":\"osaka\",\"start\":\"$(at '+6 hours')\"}"
ask "$seller" POST /v1/prices '{"site":"osaka","per_gpu_hour":{"currency":"USD","micro":2000000}}'
drill=''
for _ in $(seq 50); do
    ask "$admin" GET '/v1/admin/drill?lose=tokyo'
    drill=$(get ".tenants[] | select(.tenant == \"acme\").detail[] | select(.reservation == \"$moves\") | \"\(.outcome) \(.to_site)\"")
    [ "$drill" = "moved osaka" ] && break
    sleep 0.2
done
is "the drill says what moves" "$drill" "moved osaka"
is "what is lost" "$(get ".tenants[] | select(.tenant == \"beta\").detail[] | select(.reservation == \"$stuck\") | .outcome")" lost
is "and what is not touched" "$(get '.tenants[] | select(.tenant == "beta").survive > 0')" true
is "in sum" "$(get '.reservations | "\(.moved) \(.lost)"')" "1 2"
ask "$acme" GET "/v1/reservations/$moves"
is "nothing is changed" "$(get '"\(.allocations[0].site) \(.generation)"')" "tokyo 1"
ask "$admin" GET '/v1/admin/drill?lose=atlantis'
is "a site that is none" "$code" 404
: >"$run/n1.off"
until_is "a node that is silent is lost" '.nodes[] | select(.name == "n1").state' lost "$seller" /v1/nodes 40
until_is "what was booked there moves" '"\(.allocations[0].site) \(.state) \(.price.total_micro)"' "osaka confirmed $moves_price" "$acme" "/v1/reservations/$moves" 20
until_is "what can go nowhere fails, with the fault named" '"\(.state) \(.fault)"' "failed node n1 at tokyo lost" "$beta" "/v1/reservations/$stuck" 20
ask "$admin" GET /v1/admin/status
is "the books balance, nothing is sold twice" "$(get '[.checks[].rows] | add')" 0
: >"$run/n2.off"
summary
