#!/usr/bin/env bash
# hold: a lease whose tenant's money runs out, through a whole market: the server books ten
# minutes against a hold of half a minute, neargpu-billd holds on while there is money,
# says when there is not, and the job ends in the kernel at the instant that was said; with
# a top-up in time the next one goes on.
# Usage: hold.sh [BUILD_DIR]. Exit 77 unless root and jq are there.
set -uo pipefail
# shellcheck source=tests/system/node_lib.sh
. "$(dirname "$(readlink -f "$0")")/node_lib.sh"
node_needs
sites="fukuoka"
show() { near lab -o json show "$id" | jq -r "$1"; }
seconds() { # seconds JQ-OF-A-TIME…: of the reservation, to a thousandth
    show "$1 | sub(\"Z\$\"; \"\") | split(\".\") | (.[0] + \"Z\" | fromdate) + ((\"0.\" + (.[1] // \"0\")) | tonumber)"
}
event() { # event KIND: the newest of this reservation
    sql neargpu_owner "SELECT payload FROM ng.event WHERE kind = '$1' AND reservation_id = '$id' ORDER BY id DESC LIMIT 1"
}

server_start || die "neargpud did not start"
billd_start
login admin "$run/server/admin.key" || die "login failed"
site_prepare fukuoka || die "no site"
agent_start fukuoka
wait_for 30 nodes_up 1 || die "the node did not sync"
tenant_create lab 0.16 || die "no tenant"
near lab key list >/dev/null

# ---- the terms
like "a window has bounds" "$(near admin admin terms --hold-window 3s 2>&1)" "*half a minute to 31 days*"
is "a window of half a minute" "$(near admin -o json admin terms --hold-window 30s | jq -r .hold_window_s)" 30
is "it stays so" "$(near admin -o json admin terms | jq -r .hold_window_s)" 30
quote() { near lab -o json quote --gpu H100 --gpus 8 --for 10m | jq -r ".plan.hold.held.micro"; }
said() { [ "$(quote)" = 132667 ]; } # 30 s of 15.92 USD an hour, rounded
wait_for 5 said || bad "the quote says what is held at first: $(quote)"

# ---- money that does not reach
id=$(near lab -o json reserve --yes --gpu H100 --gpus 8 --for 10m | jq -r .id)
[ -n "$id" ] || die "no reservation"
is_active() { [ "$(show .state)" = active ]; }
wait_for 15 is_active || die "not active"
is "ten minutes are booked with money for 36 seconds" "$(near lab -o json wallet | jq -r .held_micro)" 132667
near lab run "$id" -- /bin/sh -c 'trap "" TERM; while :; do date +%s.%N; sleep 0.1; done' >"$run/alive" 2>"$run/job.err" </dev/null &
job=$!
remember run $job
low() { [ "$(show .hold.low_since)" != null ]; }
wait_for 25 low || bad "no warning: $(near lab -o json show "$id")"
start=$(seconds .start)
paid=$(seconds .hold.paid_until)
is "what is there is held" "$(awk "BEGIN {print int($paid - $start)}")" 36
like "show says so" "$(near lab show "$id")" "*your money reaches until*"
like "and the wallet" "$(near lab wallet)" "*YOUR MONEY DOES NOT REACH THE END OF*$id*"
like "the event says so" "$(event funds.low)" '*"why": "the wallet"*'
ends() { [ "$(seconds .end)" = "$paid" ]; }
wait_for 25 ends || bad "its end is not what is paid: $(seconds .end), $paid"
left=$(awk "BEGIN {print int($paid - $(date +%s.%N))}")
[ "$left" -ge 10 ] && ok "and is known ahead" || bad "it was settled only $left s before"
like "and why" "$(show .reason)" "the wallet paid for it until *"
wait $job
like "who runs it is told" "$(cat "$run/job.err")" "*the reservation has ended, and the job with it*"
gone=$(awk "BEGIN {print $(tail -n 1 "$run/alive") - $paid}")
awk "BEGIN {exit !($gone < 0.05 && $gone > -1.5)}" && ok "the job ended then ($gone s)" || bad "the job's last sign was $gone s after"
is_ended() { [ "$(show .state)" = ended ]; }
wait_for 20 is_ended || bad "it is $(show .state)"
settled() { [ "$(near lab -o json wallet | jq -r .held_micro)" = 0 ]; }
wait_for 20 settled || bad "something is still held: $(near lab -o json wallet)"
is "nothing is owed" "$(sql neargpu_owner "SELECT ng.owed(id, 'USD') FROM ng.tenant WHERE name = 'lab'")" 0

# ---- the same, and money in time
near admin admin tenant topup lab --amount 0.16 --reference second >/dev/null
id=$(near lab -o json reserve --yes --gpu H100 --gpus 8 --for 10m | jq -r .id)
[ -n "$id" ] || die "no second reservation"
wait_for 30 low || bad "no second warning"
first=$(seconds .hold.paid_until)
near admin admin tenant topup lab --amount 5 --reference third >/dev/null
further() { awk "BEGIN {exit !($(seconds .hold.paid_until) > $first)}"; }
wait_for 10 further || bad "it does not go on"
is "all is well again" "$(show '[.hold.low_since, .reason, .state] | @csv')" ',"","active"'
is "it keeps its end" "$(awk "BEGIN {print int($(seconds .end) - $(seconds .start))}")" 600
near lab cancel "$id" --yes >/dev/null || bad "cancel"
wait_for 20 is_ended || bad "it is $(show .state)"
wait_for 20 settled || bad "something is still held: $(near lab -o json wallet)"
is "every check is empty" "$(sql neargpu_owner "SELECT coalesce(string_agg(name, ' '), '') FROM api.check_all() WHERE breaches > 0 AND name <> 'check_unbilled'")" ""
node_done
