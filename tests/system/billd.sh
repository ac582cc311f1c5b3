#!/usr/bin/env bash
# shellcheck disable=SC2154 # variables are set by api_lib.sh
# billd: what goes on beside its rounds. A round that cannot go on (somebody holds the lock of
# the ledger) delays neither the verifiable log nor the checks, and goes on when it can.
# Prints libcheck's summary line.
set -uo pipefail
. "$(dirname "$(readlink -f "$0")")/api_lib.sh"

up "$run/s" --listen 127.0.0.1:0
pid=$server_pid
soon() { # soon NAME SQL: its answer becomes t, within a while
    local answer=f
    for _ in $(seq 200); do
        answer=$(sql "$2")
        [ "$answer" = t ] && break
        sleep 0.1
    done
    is "$1" "$answer" t
}
empty="SELECT count(*) = 0 FROM ng.log_todo"
waits="EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'neargpu_billd' AND wait_event = 'advisory')"
sql "SELECT api.tenant_create('acme', 'UTC', NULL, sha256('a'), 'test', NULL, NULL)" >/dev/null
sql "SELECT api.topup('acme', 1000000000, ng.currency(), 'first', 'test', NULL, NULL)" >/dev/null
printf 'check_interval = 1s\ninterval = 200ms\ndata_dir = %s\n' "$run/s" >"$run/billd.conf"
"$build/billing/neargpu-billd" --conf "$run/billd.conf" 2>"$run/billd.log" &
pid2=$!
soon "what is there is logged" "$empty"

# The lock of all that posts, held until the pipe is closed; every round wants it.
exec 3> >(exec psql -X -q -h "$run/s/run" -U postgres -d neargpu >/dev/null)
echo "SELECT pg_advisory_lock(hashtext('neargpu.billing'));" >&3
soon "a round waits for the lock" "SELECT $waits"
sql "SELECT ng.post('topup', ng.account_of('bank', NULL, NULL, ng.currency()), ng.account_of('wallet', id, NULL, ng.currency()),
    ng.currency(), 1000000, NULL, 'second') FROM ng.tenant" >/dev/null
now=$(sql 'SELECT clock_timestamp()')
soon "what comes meanwhile is logged" "$empty"
soon "all is checked meanwhile" "SELECT min(at) > '$now' FROM ng.check_result"
is "the round still waits" "$(sql "SELECT $waits")" t
exec 3>&-
soon "it goes on" "SELECT NOT $waits"
is "nothing was wrong" "$(grep -i 'error\|warn' "$run/billd.log")" ""
summary
