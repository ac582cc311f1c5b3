#!/usr/bin/env bash
# payout: money out through the real server and the real command line: two administrators,
# a payout from its request to the bank's file and back, terms, bank accounts, disputes,
# refunds, withdrawals, a statement. Prints libcheck's summary line.
set -uo pipefail
. "$(dirname "$(readlink -f "$0")")/api_lib.sh"

currency=JPY
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
login admin "$run/s/admin.key"
cli admin admin user add hanako --key-file "$run/hanako.key"
is "a second administrator" "$code" 0
is "nobody else was there to ask, and it is said" "$(grep -c "needs nobody's approval" <<<"$body")" 1
sleep 1
login hanako "$run/hanako.key"
cli admin admin user add hanako
is "a name once" "$code" 6
cli admin admin user list
is "both" "$(grep -cE '^(admin|hanako) ' <<<"$body")" 2
# A third waits for the second's yes: by himself the first gets no second pair of eyes.
cli admin admin user add taro --key-file "$run/taro.key"
is "a third" "$code" 0
is "waits, and it is said" "$(grep -c 'opens nothing until another administrator approves' <<<"$body")" 1
sleep 1
ask "$run/taro.key" GET /v1/admins
is "his key opens nothing yet" "$code" 403
is "and says why" "$(get .detail | grep -c 'waits for another')" 1
cli taro login --server "https://$addr" --ca "$run/s/pki/ca.pem" --api-key-file "$run/taro.key"
is "nor is he let in" "$code" 4
cli admin admin user approve taro
is "not by who made him" "$code" 4
cli hanako admin user approve taro
is "by another" "$code" 0
sleep 1
login taro "$run/taro.key"
cli taro admin audit
is "the audit log has all" "$(grep -cE 'admin:admin .*POST /v1/admins +201|admin:hanako .*POST /v1/admins/taro/approve +200' <<<"$body")" 3
cli hanako admin user list
is "who made and approved him" "$(grep -cE '^taro .* admin +hanako ' <<<"$body")" 1
cli admin admin user rm taro
is "he goes again" "$code" 0
cli admin admin user rm admin
is "nobody removes himself" "$code" 6
cli admin admin provider create seller --key-file "$run/seller.key"
cli admin admin tenant create lab --key-file "$run/lab.key"
login seller "$run/seller.key"
login lab "$run/lab.key"
cli admin admin tenant topup lab --amount 1000 --reference one
# What is too much is said in money, not in what a computer counts.
cli admin admin tenant create rich --key-file "$run/rich.key"
cli admin admin tenant topup rich --amount 1000000001 --reference much
is "too much at once" "$code $(grep -c -- '--amount: is more than 1000000000 JPY' <<<"$body")" "2 1"
cli admin admin promo grant rich 1000000001 --expires 2999-01-01T00:00 --reason much
is "too much credit" "$code $(grep -c 'at most 1000000000 JPY' <<<"$body")" "2 1"
cli admin admin fx set USD/JPY 99999999999 --source typo
cli admin admin tenant topup rich --amount 1000000000USD --reference exchanged
is "too much exchanged" "$code $(grep -c -- '--amount: at 99999999999 .* at most 1000000000 JPY' <<<"$body")" "2 1"
cli admin admin tenant topup rich --amount 0.01USD --reference exchanged
is "much, and not too much" "$code $(grep -c ' 999999999.99 JPY' <<<"$body")" "0 1"

# ---- terms and accounts ----
cli admin admin terms --dispute-window 3d --reserve 5% --reserve-for 30d --client 0123456789 --bank 0005 --branch 123 --type 1 --number 7654321 --holder 'ｶ)ﾏ-ｹﾂﾄ'
is "terms" "$code" 0
is "in words" "$(grep -c '^Hold window  *1d$' <<<"$body") $(grep -c Registration <<<"$body")" "1 0"
cli admin admin terms --hold-window 0
is "a whole lease, in words" "$(grep -c '^Hold window  *the whole lease$' <<<"$body")" 1
cli admin admin terms --hold-window 1d
is "terms are kept" "$(sql "SELECT dispute_window, reserve_ppm, bank->>'bank' FROM ng.market")" "72:00:00|50000|0005"
cli admin admin terms --provider seller --reserve 10%
is "a provider's own reserve" "$(sql "SELECT reserve_ppm FROM ng.provider")" 100000
cli seller provider bank set --bank 0001 --branch 012 --type 1 --number 12345
is "half an account is none" "$code" 2
cli seller provider bank set --bank 0001 --branch 012 --type 1 --number 1234567 --holder 'ﾕ)ｾﾗ-' --registration T7000012050002
is "bank" "$code" 0
cli lab provider bank
is "tenants have no bank" "$code" 4

# ---- a payout ----
day=$(sql "SELECT ng.bank_today() + 7")
cli admin admin payout request seller
is "nothing is there yet, in money" "$code $(grep -c '0 JPY is available to seller' <<<"$body")" "7 1"
cli seller provider statement --month "$(TZ=Asia/Tokyo date +%Y-%m)"
is "a statement of nothing has zeros" "$(grep -cE '^Closing: (pending|available|reserve) +0 JPY' <<<"$body")" 3
sql "SELECT ng.post('settle', ng.account_of('provider_pending', NULL, id, 'JPY'), ng.account_of('provider_available', NULL, id, 'JPY'), 'JPY', 5000000500, NULL, 'x') FROM ng.provider" >/dev/null
cli admin admin payout request seller --amount 6000
is "more than there is" "$code" 7
cli admin admin payout request seller
is "request" "$code" 0
cli admin admin payout approve 1
is "not by who asked" "$code" 4
cli hanako admin payout approve 1
is "by another" "$code" 0
cli admin admin payout file --on 2026-11-31 --to "$run/f"
is "no such day" "$code" 2
cli admin admin payout file --on tomorrow --to "$run/f"
is "nor this" "$code $(grep -c -- "--on: 'tomorrow' is no day such as 2026-11-30" <<<"$body")" "2 1"
cli admin admin payout file --on 2026-11-02 --to "$run/f"
is "not a day that is over" "$code $(grep -c "2026-11-02 is over: the bank's day is 20" <<<"$body")" "2 1"
cli admin admin payout file --on "$day" --to "$run/f"
is "file" "$code" 0
is "five records less one" "$(stat -c %s "$run/f")" $((4 * 122))
is "kana in one byte each" "$(sed -n 2p "$run/f" | cut -b1-5,51-70 | iconv -f SHIFT_JIS -t UTF-8)" "$(printf '20001%s' "ﾕ)ｾﾗ-               ")"
is "the sum" "$(sed -n 3p "$run/f" | cut -c1-19)" 8000001000000005000
cli hanako admin payout file --on "$day" --to "$run/g"
is "in no second file" "$code" 6
cli hanako admin payout file --again 1 --to "$run/g"
is "the same again" "$(cmp "$run/f" "$run/g" && echo same)" same
cli hanako admin payout returned 1 --reason 'no such account'
is "returned" "$code" 0
cli admin admin payout request seller --amount 2000
cli hanako admin payout reject 2 --reason later
is "rejected" "$code" 0
cli seller provider payouts
is "the provider sees both" "$(grep -cE ' (returned|rejected) ' <<<"$body")" 2
cli seller provider statement --month "$(TZ=Asia/Tokyo date +%Y-%m)"
is "a statement that adds up" "$code" 0
is "which is of a month that is not over" "$(grep -c '^The month is not over: these are its sums so far' <<<"$body")" 1
cli seller provider statement --month "$(TZ=Asia/Tokyo date -d "$(TZ=Asia/Tokyo date +%Y-%m-15) -1 month" +%Y-%m)"
is "that before it is over" "$code $(grep -c 'not over' <<<"$body")" "0 0"
cli seller provider statement --month 2999-01
is "one that has not begun has no statement" "$code $(grep -c '2999-01 has not begun in ' <<<"$body")" "2 1"
cli seller provider statement --month 2026-13
is "no such month" "$code $(grep -c "'2026-13' is no month: YYYY-MM" <<<"$body")" "2 1"

# ---- what the bank says ----
# One of each kind is sent, paid by the bank's own file, which is ours with results in it.
sql "SELECT ng.post('settle', ng.account_of('provider_pending', NULL, id, 'JPY'), ng.account_of('provider_available', NULL, id, 'JPY'), 'JPY', 2000000000, NULL, 'y') FROM ng.provider" >/dev/null
cli admin admin payout request seller --amount 3000
cli hanako admin payout approve 3
cli admin admin payout file --on "$day" --to "$run/h"
cli admin admin payout request seller --amount 1500
cli hanako admin payout approve 4
cli admin admin payout file --on "$day" --to "$run/i"
# results FROM TO RESULT TRAILER: the bank's answer to our file.
results() {
    python3 - "$@" <<'PY'
import sys
b = bytearray(open(sys.argv[1], "rb").read())
b[122 + 111] = ord(sys.argv[3])
b[244:244 + 55] = sys.argv[4].encode()
open(sys.argv[2], "wb").write(b)
PY
}
results "$run/h" "$run/bad" 0 8000001000000003000000001000000002999000000000000000000
cli admin admin payout results "$run/bad"
is "sums that do not agree" "$code $(grep -c 'the trailer says of what was paid' <<<"$body")" "2 1"
results "$run/h" "$run/paid" 0 8000001000000003000000001000000003000000000000000000000
cli admin admin payout results "$run/paid"
is "paid" "$code $(grep -cE ' 3 +seller +3000 JPY +done +yes' <<<"$body")" "0 1"
cli hanako admin payout results "$run/paid"
is "a file once, whoever reads it" "$code $(grep -c 'was read on .* by admin: nothing in it is done again' <<<"$body")" "6 1"
results "$run/h" "$run/back" 2 8000001000000003000000000000000000000000001000000003000
cli hanako admin payout results "$run/back"
is "come back after it was paid" "$code $(grep -cE ' 3 +seller +3000 JPY +returned +yes +no such account' <<<"$body")" "0 1"
is "all of it is there again" "$(sql "SELECT sum(balance_micro) FROM ng.account WHERE kind = 'provider_available'")" 5500000500
cli admin admin payout results
is "what was read, by whom" "$(grep -cE "admin +zengin +1 +0 +1 +$(sha256sum "$run/paid" | cut -c1-64)|hanako +zengin +0 +1 +1 " <<<"$body")" 2
printf 'payout,state,date,reason\r\n4,done,2026-11-20,\r\n9,done,,\r\n' >"$run/c.csv"
cli admin admin payout results "$run/c.csv"
is "one that is not there refuses all" "$code $(sql 'SELECT state FROM ng.payout WHERE id = 4')" "6 sent"
printf 'payout,state,date,reason\r\n4,done,2026-11-20,\r\n' >"$run/d.csv"
cli admin admin payout results "$run/d.csv"
is "CSV" "$code $(sql 'SELECT state FROM ng.payout WHERE id = 4')" "0 done"
cli admin admin payout returned 4 --reason closed --amount 1000
is "no part of it" "$code $(grep -c 'is 1500 JPY, not 1000 JPY: it comes back whole' <<<"$body")" "6 1"
cli admin admin payout returned 4 --reason closed --fee 880
is "returned with the bank's fee" "$code $(grep -cE "^Bank's fee +880 JPY" <<<"$body")" "0 1"
: >"$run/empty"
cli admin admin payout results "$run/empty"
is "an empty file" "$code $(grep -c 'empty is empty' <<<"$body")" "2 1"
cli seller -o csv provider statement --month "$(TZ=Asia/Tokyo date +%Y-%m)"
is "a statement as CSV is what was used" "$code $(head -n 1 <<<"$body" | tr -d '\r')" "0 reservation,site,gross_micro,gross_currency,fee_micro,fee_currency,net_micro,net_currency"
cli seller provider payouts
is "the provider sees the fee" "$(grep -cE '^ *4 +1500 JPY +returned .* 880 JPY +closed' <<<"$body")" 1
cli seller provider statement --month "$(TZ=Asia/Tokyo date +%Y-%m)"
is "it adds up with a fee in it" "$code $(grep -cE "^Banks' fees for that +-880 JPY" <<<"$body")" "0 1"
cli admin admin report payouts
is "the report" "$code $(grep -cE ' seller +JPY +3 +9500 +0 +3 +9500 +880' <<<"$body")" "0 1"
# A date is a day of UTC, wherever it is typed; a table shows it as that.
cli admin -o csv admin report payouts
today=$(sed -n 2p <<<"$body" | cut -c1-10)
for zone in Asia/Tokyo UTC America/Los_Angeles; do
    TZ=$zone cli admin admin report payouts --from "$today" --to "$(date -u -d "$today + 1 day" +%F)"
    is "the day of $zone" "$code $(grep -cE "^$today +seller" <<<"$body")" "0 1"
    TZ=$zone cli admin admin report payouts --from "$today" --to "$today"
    is "no day of $zone" "$code" 2
done
told=$(timeout 3 curl -sS -N --cacert "$run/s/pki/ca.pem" -H "Authorization: Bearer $(cat "$run/seller.key")" -H 'Last-Event-ID: 0:0' "https://$addr/v1/events")
is "the provider was told" "$(grep -oE 'payout\.[a-z]+' <<<"$told" | sort -u | tr '\n' ' ')" "payout.done payout.rejected payout.returned payout.sent "

# ---- tenants' money ----
cli admin admin withdraw lab --amount 1001
is "not more than there is" "$code" 7
cli admin admin withdraw lab --amount 400
is "withdrawn" "$code" 0
id=01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d
cli admin admin refund $id --all --reason x
is "no such reservation" "$code" 5
cli lab dispute $id --reason x
is "nor to dispute" "$code" 5
cli lab dispute $id --close
is "tenants close none" "$code" 4
cli lab credit-note list
is "no notes" "$code" 0
cli lab credit-note show CN-2026-000001
is "nor this" "$code" 5
ask "$run/hanako.key" GET /v1/whoami
is "her name" "$(get .name)" hanako
cli admin admin user rm hanako
is "removed" "$code" 0
sleep 1
ask "$run/hanako.key" GET /v1/admins
is "her key opens nothing" "$code" 401

# ---- a market that is not in yen ----
stop_pid "$pid" TERM
currency=EUR
up "$run/e" --listen 127.0.0.1:0
pid=$server_pid
euro() { psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$run/e/run" -U postgres -d neargpu -c "$1"; }
elogin() { cli "$1" login --server "https://$addr" --ca "$run/e/pki/ca.pem" --api-key-file "$2"; is "login $1" "$code" 0; }
elogin eadmin "$run/e/admin.key"
cli eadmin admin user add second --key-file "$run/second.key"
cli eadmin admin provider create rhein --key-file "$run/rhein.key"
cli eadmin admin provider create bay --key-file "$run/bay.key"
sleep 1
elogin second "$run/second.key"
elogin rhein "$run/rhein.key"
elogin bay "$run/bay.key"
cli rhein provider bank set --holder 'Rhein GPU GmbH' --iban DE89370400440532013001
is "check digits" "$code $(grep -c 'is no IBAN' <<<"$body")" "2 1"
cli rhein provider bank set --bank 0001 --branch 012 --type 1 --number 1234567 --holder A
is "no account of yen" "$code" 2
cli rhein provider bank set --holder 'Rhein GPU GmbH' --iban 'de89 3704 0044 0532 0130 00' --bic COBADEFFXXX
is "an IBAN, as it stands on paper" "$code $(grep -cE '^IBAN +DE89370400440532013000' <<<"$body")" "0 1"
cli bay provider bank set --holder 'Bay GPU, Inc.' --account-no 021000021/123456 --bank-name 'First Bank'
is "a number and a bank" "$code" 0
euro "SELECT ng.post('settle', ng.account_of('provider_pending', NULL, id, 'EUR'), ng.account_of('provider_available', NULL, id, 'EUR'), 'EUR', 1234567000, NULL, name) FROM ng.provider" >/dev/null
cli eadmin admin payout request rhein
cli eadmin admin payout request bay --amount 10.5
cli second admin payout approve 1
cli second admin payout approve 2
cli eadmin admin payout file --on 2028-02-29 --to "$run/k.csv"
is "a file for the 29th of a February" "$code" 0
is "CSV with the accounts" "$(tr -d '\r' <"$run/k.csv")" 'payout,provider,currency,amount,holder,iban,bic,account,bank_name
1,rhein,EUR,1234.56,Rhein GPU GmbH,DE89370400440532013000,COBADEFFXXX,,
2,bay,EUR,10.50,"Bay GPU, Inc.",,,021000021/123456,First Bank'
printf 'payout,state,date,reason,amount\n1,done,2026-11-20,,1234.56\n2,returned,2026-11-20,"closed, it says",10.5\n' >"$run/l.csv"
cli second admin payout results "$run/l.csv"
is "its results" "$code $(euro "SELECT string_agg(state || '/' || reason, ' ' ORDER BY id) FROM ng.payout")" "0 done/ returned/closed, it says"
cli second admin payout results "$run/k"
is "a file that is not there" "$code" 5
cli second admin payout results "$run/k.csv"
is "a file that is none" "$code" 2
is "every check is empty" "$(euro "SELECT coalesce(string_agg(name, ' '), '') FROM api.check_all() WHERE breaches > 0 AND name <> 'check_settled'")" ""
summary
