#!/usr/bin/env bash
# invoice: one invoice with two rates of tax, from an administrator's word to the verified
# bundle, through the real server, billd and command line: two nodes whose use is of two
# classes, signed receipts, promotional credit, a refund; as JSON, tables, pages in both
# languages and FOCUS. Prints libcheck's summary line.
set -uo pipefail
. "$(dirname "$(readlink -f "$0")")/api_lib.sh"

printf '%s\n' 'issuer_name = Market K.K.' 'issuer_registration = T1234567890123' 'issuer_address = Floor 1' >"$run/conf.d"
up "$run/s" --listen 127.0.0.1:0 --rate-limits no --conf "$run/conf.d"
pid=$server_pid
cd "$run" || exit 1
export NEARGPU_CONFIG_DIR=$run/conf LC_ALL=C.UTF-8
mkdir -m 700 "$run/conf"
cli() { # cli ACCOUNT ARGUMENT…: sets $body (both streams) and $code (exit status)
    body=$("$build/client/cli/neargpu" --account "$1" --yes "${@:2}" 2>&1)
    code=$?
}
billd() { body=$("$build/billing/neargpu-billd" "$@" --data-dir "$run/s" 2>&1); code=$?; }
login() { cli "$1" login --server "https://$addr" --ca "$run/s/pki/ca.pem" --api-key-file "$2"; is "login $1" "$code" 0; }
login admin "$run/s/admin.key"
cli admin admin site add tokyo --city Tokyo --lat 35.69 --lon 139.69 --residency jp
is "site" "$code" 0
cli admin admin provider create seller --key-file "$run/seller.key"
for t in lab oslo; do
    cli admin admin tenant create $t --key-file "$run/$t.key"
    login $t "$run/$t.key"
    cli admin admin tenant topup $t --amount 100000 --reference "bank $t"
    is "topup $t" "$code" 0
done
cli lab billing --name 'Kagaku Lab' --address '1-1 Chiyoda' --lang ja

# ---- what administrators say of taxes ----
cli admin admin tax rate reduced 8%
is "a reduced rate" "$code" 0
cli admin admin tax rate reduced 10%
is "two classes of one rate are one" "$code" 6
cli admin admin tax class reduced --meter gpu --model A10
is "a model of another class" "$code" 0
cli admin admin tax class zero --tenant oslo
is "a tenant abroad" "$code" 0
cli admin admin tax class zero --tenant oslo
cli admin -o json admin tax list
is "said again nothing changes" "$(get '.rules | length') $(get '[.rates[] | select(.class == "reduced")] | length')" "2 1"
cli admin admin tax class none --tenant oslo
is "no such class" "$code" 2
cli admin admin tax rate standard 12% --from 2020-01-01
is "not backwards" "$code" 2
cli lab admin tax list
is "not for tenants" "$code" 4

# ---- two nodes, a lease on each ----
enrol "$run/seller.key" tokyo h1
enrol "$run/seller.key" tokyo a1
nodes() { report h1 4 3600004000; report a1 4 1800004000 '.gpus[].model = "A10"'; }
nodes
is "nodes report" "$code" 200
for _ in $(seq 50); do
    ask "$run/lab.key" GET '/v1/offers?duration=1h&gpus=1'
    [ "$(get '.offers | length')" = 2 ] && break
    sleep 0.1
done
is "two offers" "$(get '.offers | length')" 2
ask "$run/lab.key" POST /v1/quotes '{"duration":"1h","gpus":1,"gpu":"A10"}'
is "a quote says the reduced rate" "$(get '.tax | "\(.rate_ppm) \(.micro)"')" "80000 144000320"
ask "$run/oslo.key" POST /v1/quotes '{"duration":"1h","gpus":1,"gpu":"A10"}'
is "a tenant abroad none" "$(get '.tax | "\(.rate_ppm) \(.micro)"')" "0 0"
cli admin admin promo grant lab 2 --expires 2999-01-01T00:00 --reason welcome
is "promotional credit" "$code" 0

# receipt NODE ID SEQ KIND GPU_MS PREV: signed, on standard output
receipt() {
    local now head payload x kid
    now=$(date -u +%FT%T.%6NZ)
    x=$(openssl pkey -in "$1.receipt" -pubout -outform DER | tail -c 32 | basenc --base64url | tr -d '=\n')
    kid=$(printf '{"crv":"Ed25519","kty":"OKP","x":"%s"}' "$x" | openssl dgst -sha256 -binary | basenc --base64url | tr -d '=\n')
    head=$(printf '{"alg":"EdDSA","kid":"%s","typ":"neargpu-usage+jwt"}' "$kid" | basenc -w0 --base64url | tr -d =)
    payload=$(jq -cn --arg n "$1" --arg id "$2" --arg now "$now" --argjson seq "$3" --arg kind "$4" --argjson ms "$5" --arg prev "$6" --argjson epoch "$(cat "$2.epoch")" '{
        iss: "spiffe://neargpu.local/site/tokyo/node/\($n)", reservation: $id, seq: $seq, prev: $prev, kind: $kind, boot_id: "b", from: $now, to: $now,
        boot_from_us: 1, boot_to_us: 2, gpus: ["GPU-\($n)-0"], gpu_ms: $ms, epoch: $epoch, evidence: [], gaps: []}' | basenc -w0 --base64url | tr -d =)
    printf '%s.%s' "$head" "$payload" >signed
    openssl pkeyutl -sign -inkey "$1.receipt" -rawin -in signed -out sig
    printf '%s.%s' "$(cat signed)" "$(basenc -w0 --base64url sig | tr -d =)"
}
# lease NODE MODEL GPU_MS: booked, used, over; sets $id
lease() {
    local one two
    ask "$run/lab.key" POST /v1/reservations "{\"duration\":\"1h\",\"gpus\":1,\"gpu\":\"$2\"}"
    is "a lease on $1" "$code $(get '.allocations[0].node')" "201 $1"
    id=$(get .id)
    nodes >/dev/null
    report "$1" 4 "$([ "$1" = h1 ] && echo 3600004000 || echo 1800004000)" "$([ "$1" = h1 ] && echo . || echo '.gpus[].model = "A10"')"
    get '.leases[0].epoch' >"$id.epoch"
    sleep 1.1
    one=$(receipt "$1" "$id" 1 ready 0 '')
    two=$(receipt "$1" "$id" 2 teardown "$3" "$(printf '%s' "$one" | openssl dgst -sha256 -binary | basenc --base64url | tr -d '=\n')")
    ask - POST /v1/agent/receipts "$(jq -cn --arg a "$one" --arg b "$two" '{receipts: [$a, $b]}')" --cert "$1.pem" --key "$1.key"
    is "its receipts" "$code $(get '[.acks[].seq] | join(" ")') $(get '.rejected | length')" "200 1 2 0"
}
lease h1 H100-SXM5-80GB 5000
resv=$id
lease a1 A10 5000
billd --once
is "rated" "$code" 0
billd invoice --tenant lab --until now
is "invoiced" "$code" 0

# ---- the invoice ----
cli lab -o json invoice list
number=$(get '.invoices[0].number')
# 5 s at 3,600.004 and 1,800.004 an hour: 5.000005555… and 2.500005555…; 10 % of 5.00, 8 % of 2.50
cli lab -o json invoice show "$number"
printf '%s' "$body" >invoice.json
is "each rate once" "$(get '[.taxes[] | "\(.class) \(.rate_ppm) \(.base.micro) \(.tax.micro)"] | join(", ")')" "standard 100000 5000000 500000, reduced 80000 2500000 200000"
is "total = lines + taxes" "$(get '([.lines[].amount.micro] | add) + ([.taxes[].tax.micro] | add) - .total.micro')" 0
is "which is" "$(get '"\(.net.micro) \(.tax.micro) \(.total.micro) \(.tax_ppm)"')" "7500000 700000 8200000 null"
# The leases had a teardown long before their ends: the market credited that by itself.
is "what came out of promotional credit, and for incidents" "$(get '[.credits[] | "\(.kind) \(.incident) \(.amount.micro)"] | join(", ")')" "sla 1 2500003, sla 2 1250003, promo null 2000000"
cli lab invoice show "$number"
is "as tables" "$(grep -cE '^ *(standard +10.00 %|reduced +8.00 %|Address +Floor 1|promo |sla )' <<<"$body")" 6
cli lab invoice show "$number" --html page.ja
is "a page in the tenant's language" "$code $(grep -c '適格\|請求書</h1>' page.ja)" "0 1"
for t in '8.0 %, 軽減税率 ※' '※ は軽減税率対象です。' 'Floor 1' 'T1234567890123' 'Kagaku Lab 御中' 'プロモーションクレジット充当: welcome'; do
    is "the page says $t" "$(grep -cF -- "$t" page.ja | head -c1 | tr 1-9 1)" 1
done
cli lab invoice show "$number" --html page.en --lang en
is "and in English" "$(grep -c '8.0 %, reduced ※' page.en)" 3
is "with the incidents" "$(grep -cE 'Credit for incident [12]: node' page.en)" 2
cli lab invoice show "$number" --focus
is "FOCUS sums to the payable amount" "$(python3 -c 'import csv,sys
from decimal import Decimal as D
rows=list(csv.DictReader(sys.stdin))
print(sum(D(r["BilledCost"]) for r in rows), [r["BilledCost"] for r in rows if r["ChargeCategory"]=="Tax"])' <<<"$body")" "8.200000 ['0.2', '0.5']"

# ---- it is verified offline, rate by rate ----
billd --once
cli lab invoice show "$number" --bundle bundle.json >/dev/null
is "in the log" "$(jq '[.entries[] | select(.record.type == "invoice") | .record.taxes[]] | length' bundle.json)" 2
cli lab verify bundle.json
is "the bundle holds" "$code" 0
for forged in '.taxes[1].rate_ppm = 100000' '.lines[0].tax_class = "reduced"' '.taxes[0].tax_micro = "400000" | .tax_micro = "600000" | .total_micro = "8100000"'; do
    jq "(.entries[] | select(.record.type == \"invoice\") | .record) |= ($forged)" bundle.json >forged.json
    cli lab verify forged.json
    is "not when $forged" "$((code != 0)) $(grep -cE 'its tax is not its rate|do not make its net' <<<"$body" | tr 1-9 1)" "1 1"
done

# ---- a credit note ----
cli admin admin refund "$resv" --all --reason slow
is "refunded" "$code" 0
cli admin admin refund "$resv" --amount 1 --reason more
is "no more than is left, in money" "$code $(grep -cE '^neargpu: [0-9.]+ USD was captured and ' <<<"$body")" "6 1"
cli lab -o json invoice list
note=$(get '.credit_notes[0].number')
cli lab invoice list
is "beside the invoices, as what it takes off" "$(grep -cE "credit note +$note .*-2.750003" <<<"$body")" 1
cli lab -o json credit-note show "$note"
is "with its rate and what it refers to" "$(get '[.invoice, (.taxes[] | .class, .rate_ppm, .tax.micro), .of.from] | join(" ")')" "$number standard 100000 250000 $(jq -r .from invoice.json)"
cli lab credit-note show "$note" --html note.ja
is "as a page" "$code $(grep -c '<h1>適格返還請求書</h1>' note.ja) $(grep -cF "$number" note.ja) $(grep -c 'T1234567890123' note.ja)" "0 1 1 1"
cli lab credit-note show "$note" --html note.en --lang en
is "in English" "$code $(grep -c '<h1>Credit note</h1>' note.en) $(grep -cF '10.0 %' note.en)" "0 1 1"
for page in page.ja page.en note.ja note.en; do
    is "$page is well-formed" "$(python3 -c 'import sys, xml.dom.minidom as m; print(len(m.parse(sys.argv[1]).getElementsByTagName("table")) > 2)' $page)" True
done
cli admin -o json admin report tax
is "reported by rate" "$(get '[.rows[] | map(tostring) | join(" ")] | length')" 2
cli lab credit-note show "$note"
is "as a table" "$(grep -cE "^(Of invoice +$number|Registration +T1234567890123| *standard +10.00 %)" <<<"$body")" 3
cli lab -o json invoice show "$number"
is "on the invoice too" "$(get '.credit_notes[0].number')" "$note"
billd --once
cli lab invoice show "$number" --bundle noted.json >/dev/null
cli lab -o json verify noted.json
is "the note is proved with it" "$code $(get .credit_notes)" "0 1"
jq '(.entries[] | select(.record.kind == "refund_tax") | .record.amount_micro) = "1"' noted.json >forged.json
cli lab verify forged.json
is "not when less tax went back" "$(grep -c 'is not what was given back' <<<"$body")" 1
cli admin admin terms --issuer-address '2-2 Ote\nTokyo'
is "the issuer moves" "$code $(sql "SELECT issuer_address = E'2-2 Ote\nTokyo' FROM ng.market")" "0 t"
billd check
is "no breach" "$code" 0
summary
