#!/usr/bin/env bash
# budget: what tenants limit themselves to and what they are given back, through the real
# server and the real command line: hard and soft budgets, alerts, promotional credit, terms
# of credits, an outage as it lasts. Prints libcheck's summary line.
set -uo pipefail
. "$(dirname "$(readlink -f "$0")")/api_lib.sh"

up "$run/s" --listen 127.0.0.1:0
pid=$server_pid
export NEARGPU_CONFIG_DIR=$run/conf LC_ALL=C.UTF-8
mkdir -m 700 "$run/conf"
# cli ACCOUNT ARGUMENT…: sets $body (both streams) and $code (exit status).
cli() {
    body=$("$build/client/cli/neargpu" --account "$1" --yes "${@:2}" 2>&1)
    code=$?
}
login() { cli "$1" login --server "https://$addr" --ca "$run/s/pki/ca.pem" --api-key-file "$2"; is "login $1" "$code" 0; }
has() { is "$1" "$(grep -cE "$2" <<<"$body")" 1; } # has NAME PATTERN: one line of the answer
login admin "$run/s/admin.key"
cli admin admin site add tokyo --city Tokyo --lat 35.6895 --lon 139.6917 --residency jp
cli admin admin provider create seller --key-file "$run/seller.key"
cli admin admin tenant create lab --key-file "$run/lab.key"
cli admin admin tenant create other --key-file "$run/other.key"
login seller "$run/seller.key"
login lab "$run/lab.key"
login other "$run/other.key"
cli admin admin tenant topup lab --amount 1000 --reference one
enrol "$run/seller.key" tokyo n1
report n1 8 2000000
is "the node synced" "$code" 200

# ---- a hard budget: 40 of 1000
cli lab budget show
is "none yet" "$code" 5
cli lab budget set 0x10
is "not an amount" "$code" 2
cli lab budget set 40
is "forty" "$code" 0
has "hard, a month" '^Period +month'
cli lab reserve --gpu H100 --gpus 8 --for 3h
is "48 are too much" "$code" 7
is "said in one line, which says what to do" "$(tail -n 1 <<<"$body")" "neargpu: your budget does not cover 48.00 USD; raise it"
cli lab reserve --gpu H100 --gpus 8 --for 2h --start +1d
is "32 are not" "$code" 0
cli lab budget show
has "32 are committed" '^Committed +32.*USD'
has "told at half and four fifths" '^Alerted at % +80'
is "by events" "$(sql "SELECT string_agg(payload->>'percent', ' ' ORDER BY id) FROM ng.event WHERE kind = 'budget.alert'")" "50 80"
cli lab wallet
has "the wallet shows it" '^Committed of it +32'
cli lab reserve --gpu H100 --gpus 8 --for 1h --start +2d
is "16 more are too much" "$code" 7
cli other budget show --tenant lab
is "another's is not shown" "$code" 4
cli lab budget set 60
cli lab reserve --gpu H100 --gpus 8 --for 1h --start +2d
is "not with a higher one" "$code" 0
# ---- a soft one says, and lets
cli lab budget set 40 --soft
cli lab reserve --gpu H100 --gpus 8 --for 1h --start +3d
is "soft" "$code" 0
cli lab budget show
has "and over" '^Committed +64'
has "told" '^Alerted at % +100'
cli lab budget rm
is "away" "$code" 0
cli lab wallet
is "the wallet shows none" "$(grep -c '^Budget' <<<"$body")" 0

# ---- promotional credit
cli admin admin promo grant other 20
is "until when and why" "$code" 2
cli admin admin promo grant other 20 --expires +30d --reason "first project"
is "given" "$code" 0
cli other wallet
has "to be used" '^Promotional credit left +20'
cli other reserve --gpu H100 --gpus 8 --for 1h --start +4d
is "reserved with" "$code" 0
cli other reserve --gpu H100 --gpus 8 --for 1h --start +5d
is "once" "$code" 7
cli other withdraw 1
is "and is no money" "$([ "$code" != 0 ] && echo refused)" refused

# ---- terms of credits
cli lab sla
has "the tenant sees them" '^ *20.*50'
cli lab admin sla terms 1%:1m:50%
is "and sets none" "$code" 4
cli admin admin sla terms 1%:1m
is "three parts" "$code" 2
cli admin admin sla terms 1%:1m:50% 1%:2m:60%
is "a share once" "$code" 2
cli admin admin sla terms 1%:1m:50%
is "set" "$code" 0
cli lab sla
is "one row" "$(wc -l <<<"$body")" 2
cli admin admin sla terms --none
cli lab sla
has "or none" 'nothing is credited of itself'

# ---- an outage, while it lasts
cli lab -o json reserve --gpu H100 --gpus 2 --for 1h
is "a lease now" "$code" 0
id=$(get .id)
for _ in $(seq 50); do
    cli lab -o json show "$id"
    [ "$(get .state)" = active ] && break
    sleep 0.1
done
is "it runs" "$(get .state)" active
cli lab incidents
has "nothing yet" 'no incidents'
sql "UPDATE ng.node SET state = 'lost' WHERE name = 'n1'" >/dev/null
cli lab incidents
has "its tenant sees it" '^ *1 +node +n1 +provider .* - +0 .*market +node n1 at tokyo has not been heard of since'
cli seller incidents
has "the provider too" 'node +n1'
cli other incidents
has "nobody else" 'no incidents'
cli admin admin incident list
has "and the administrator" 'node +n1'
report n1 8 2000000
cli lab -o json incidents
is "over when it is back" "$(get '.incidents[0].to != null')" true
is "told to its tenant" "$(sql "SELECT string_agg(e.kind, ' ' ORDER BY e.id) FROM ng.event e JOIN ng.tenant t ON t.id = e.tenant_id WHERE t.name = 'lab' AND e.kind LIKE 'incident.%'")" "incident.opened incident.closed"
is "every check is empty" "$(sql "SELECT coalesce(string_agg(name, ' '), '') FROM api.check_all() WHERE breaches > 0 AND name NOT IN ('check_log', 'check_unbilled')")" ""
summary
