#!/usr/bin/env bash
# api_race: servers killed at each step of a gang's booking, its extension and its move
# leave no part of it; four servers on one database and 200 clients on few GPUs leave a
# history that makes sense (api_race.py). Prints libcheck's summary line.
set -uo pipefail
. "$(dirname "$(readlink -f "$0")")/api_lib.sh"

up "$run/s" --listen 127.0.0.1:0 --rate-limits no
pid=$server_pid home=$addr
admin=$run/s/admin.key acme=$run/acme.key seller=$run/seller.key
cd "$run" || exit 1
ask "$admin" POST /v1/sites '{"name":"tokyo","city":"Tokyo","lat":35.69,"lon":139.69,"residency":"jp"}'
ask "$admin" POST /v1/sites '{"name":"osaka","city":"Osaka","lat":34.69,"lon":135.50,"residency":"jp"}'
ask "$admin" POST /v1/providers '{"name":"seller"}'
get .api_key >"$seller"
ask "$admin" POST /v1/tenants '{"name":"acme"}'
get .api_key >"$acme"
ask "$admin" POST /v1/tenants/acme/topup '{"amount":{"currency":"USD","micro":900000000000},"reference":"bank 1"}'
for n in t1 t2; do enrol "$seller" tokyo $n; done
enrol "$seller" osaka o1
report_all() {
    report t1 4 2000000
    report t2 4 2000000
    report o1 4 2500000
}
report_all
is "the nodes report" "$code" 200

# A further server on the same database: other DIR; sets $server_pid and $addr.
also() {
    mkdir -p "$run/$1"
    cat >"$run/$1.conf" <<CONF
data_dir = $run/$1
pki_dir = $run/s/pki
database = host=$run/s/run dbname=neargpu user=neargpu_server
listen = 127.0.0.1:0
rate_limits = no
CONF
    up "$run/$1" --conf "$run/$1.conf"
    for _ in $(seq 100); do
        ask - GET /readyz
        [ "$code" = 200 ] && return
        sleep 0.05
    done
}
hour() { date -u -d "@$(($(date +%s) / 3600 * 3600 + $1 * 3600))" +%FT%TZ; }
# What is held in the wallet's hold account beyond what reservations say, parts of gangs,
# bookings of reservations that are over: all 0.
rest() {
    sql "SELECT (SELECT coalesce(sum(balance_micro), 0) FROM ng.account WHERE kind = 'hold')
              - (SELECT coalesce(sum(held_micro - captured_micro - released_micro), 0) FROM ng.reservation),
            (SELECT count(*) FROM ng.reservation r WHERE state IN ('confirmed', 'active', 'held')
                AND coalesce((request->>'nodes')::int, 1) <> (SELECT count(*) FROM ng.booking b WHERE b.reservation_id = r.id AND NOT isempty(during))),
            (SELECT count(*) FROM ng.booking b JOIN ng.reservation r ON r.id = b.reservation_id
              WHERE NOT isempty(b.during) AND r.state NOT IN ('confirmed', 'active', 'held'))"
}

# ---- killed at each step ----
# crash KIND STEP METHOD PATH BODY KEY: asks a server that dies there, then one that does
# not; sets $first (000: it died) and $code, $body of the second answer.
crash() {
    local keep=$pid2
    NEARGPU_CRASH_AT=$1:$2 also doomed
    local doomed=$server_pid
    ask "$acme" "$3" "$4" "$5" -H "Idempotency-Key: $6"
    first=$code
    if [ "$first" = 000 ]; then wait "$doomed" 2>/dev/null; else stop_pid "$doomed" TERM; fi
    pid2=$keep addr=$home
    is "$1:$2: nothing is left over" "$(rest)" "0|0|0"
    ask "$acme" "$3" "$4" "$5" -H "Idempotency-Key: $6"
}
n=0
for step in check rank book outcome reply; do
    n=$((n + 1))
    crash flow_reserve $step POST /v1/reservations "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":3,\"together\":\"any\",\"start\":\"$(hour $((30 + n)))\"}" "crash-$step"
    case $step in outcome | reply) want=200 ;; *) want=201 ;; esac
    is "flow_reserve:$step: dies, then is granted" "$first $code $(get .nodes)" "000 $want 3"
    is "flow_reserve:$step: once" "$(sql "SELECT count(*) FROM ng.reservation WHERE idem_key = 'crash-$step'")" 1
    is "flow_reserve:$step: whole" "$(rest)" "0|0|0"
done
for step in rank preempt wait waiting reply; do
    crash flow_reserve $step POST /v1/reservations "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":3,\"together\":\"any\",\"start\":\"$(hour 31)\",\"wait\":true}" "wait-$step"
    case $step in waiting | reply) want=200 ;; *) want=201 ;; esac
    is "flow_reserve:$step: dies, then waits" "$first $code $(get .state)" "000 $want waiting"
    is "flow_reserve:$step: once" "$(sql "SELECT count(*) FROM ng.reservation WHERE idem_key = 'wait-$step'")" 1
done
n=0
for step in check write reply; do
    n=$((n + 1))
    ask "$acme" POST /v1/reservations "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":2,\"start\":\"$(hour $((40 + 3 * n)))\"}"
    id=$(get .id)
    crash flow_extend $step PATCH "/v1/reservations/$id" "{\"end\":\"$(hour $((42 + 3 * n)))\"}" "-"
    is "flow_extend:$step: dies, then is extended once" "$first $code $(get .generation) $(get .price.total_micro)" "000 200 2 32000000"
    is "flow_extend:$step: whole" "$(rest)" "0|0|0"
done
n=0
for step in check ask read rank book outcome reply; do
    n=$((n + 1))
    ask "$acme" POST /v1/reservations "{\"duration\":\"1h\",\"gpus\":4,\"nodes\":2,\"start\":\"$(hour $((60 + n)))\"}"
    id=$(get .id)
    crash flow_move $step POST "/v1/reservations/$id/move" "{\"start\":\"$(hour $((80 + n)))\"}" "-"
    is "flow_move:$step: dies, then is moved once" "$first $code $(get .generation) $(get .start)" "000 200 2 $(hour $((80 + n)))"
    is "flow_move:$step: whole" "$(rest)" "0|0|0"
    is "flow_move:$step: the old place is free" "$(sql "SELECT count(*) FROM ng.booking WHERE during && tstzrange('$(hour $((60 + n)))', '$(hour $((61 + n)))')")" 0
done

# ---- four servers, 200 clients, twelve GPUs ----
report_all
servers=("$home")
for i in 2 3 4; do
    also "s$i"
    more_pids+=("$server_pid")
    servers+=("$addr")
done
addr=$home
sql "CREATE TABLE public.before AS SELECT id FROM ng.reservation" >/dev/null
seed=${NEARGPU_TEST_SEED:-$RANDOM}
echo "seed $seed (NEARGPU_TEST_SEED)" >&2
timeout 150 python3 "$here/api_race.py" run s/pki/ca.pem "$acme" "${NEARGPU_RACE_SECONDS:-12}" 200 "$seed" history.json "${servers[@]}" 2>race.log
is "all clients were answered" "$?" 0
sql "SELECT b.reservation_id || '|' || g.uuid || '|' || to_char(lower(b.during) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') || '|' || to_char(upper(b.during) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
       FROM ng.booking b JOIN ng.reservation r ON r.id = b.reservation_id JOIN ng.node n ON n.id = b.node_id
       JOIN ng.gpu g ON g.no <@ b.gpus
      WHERE NOT isempty(b.during) AND r.state IN ('confirmed', 'active') AND r.id NOT IN (SELECT id FROM public.before)" >rows
lost=0
for addr in "${servers[@]}"; do
    ask - GET /metrics
    lost=$((lost + $(sed -n 's/^neargpu_book_lost_total //p' <<<"$body")))
done
addr=$home
is "servers did lose races ($lost)" "$((lost > 0))" 1
is "the history makes sense" "$(python3 "$here/api_race.py" check history.json rows)" ok
is "nothing is left over" "$(rest)" "0|0|0"
ask "$admin" GET /v1/admin/status
is "the checks hold" "$(get '[.checks[].rows] | add')" 0
sql "DROP TABLE public.before" >/dev/null
summary
