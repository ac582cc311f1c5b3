#!/usr/bin/env bash
# demo BUILD_DIR [--json FILE]: the whole market on this machine, every step checked.
# Exit 0 only if each step held. Leaves nothing behind, also after ^C.
set -uo pipefail
build=$1
shift
json=
if [ "${1:-}" = --json ]; then
    json=${2:?demo: --json needs a FILE}
    shift 2
fi
[ $# = 0 ] || { echo "demo: unknown argument '$1': usage: ./dev demo [--json FILE]" >&2; exit 2; }
if [ "$(id -u)" != 0 ]; then
    exec sudo -E "$0" "$build" ${json:+--json "$json"}
fi
here=$(dirname "$(readlink -f "$0")")
export PATH="$PATH:/usr/sbin:/sbin"
run=$(mktemp -d /srv/neargpu-demo.XXXXXX)
results=$run/results.jsonl
# shellcheck source=tests/system/market.sh
. "$here/market.sh"

finish() {
    local status=$?
    trap - EXIT INT TERM
    market_stop
    [ -z "${NEARGPU_DEMO_KEEP:-}" ] && rm -rf "$run"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

failed=0
r1="" r1_end=0 audience=""
detail=
# step NAME: runs step_NAME; what it prints is the transcript, $detail the result's text.
step() {
    local name=$1 ok=true
    printf '\n== %s\n' "$name"
    detail=
    if "step_$name"; then
        printf '   ok: %s\n' "$detail"
    else
        ok=false
        failed=$((failed + 1))
        printf '   FAILED: %s\n' "${detail:-see above}"
    fi
    jq -cn --arg n "$name" --argjson ok $ok --arg d "$detail" '{name: $n, ok: $ok, detail: $d}' >>"$results"
    [ -z "$json" ] || jq -s '{steps: .}' "$results" >"$json"
}
show() { # show COMMAND…: as a person would type it, then its output
    printf '$ %s\n' "$*"
    "$@" 2>&1 | sed 's/^/  /'
    return "${PIPESTATUS[0]}"
}
# holds FILE FILTER [jq options…]: the file holds JSON for which the filter is true. jq 1.6 calls an
# empty file a success.
holds() {
    local file=$1 filter=$2
    shift 2
    [ -s "$file" ] && jq -e "$@" "$filter" "$file" >/dev/null
}
neargpu() { "$build/client/cli/neargpu" "$@"; }
# shellcheck disable=SC2034
export NEARGPU_ACCOUNT=kagaku-lab

step_database_up() {
    server_start || { detail="neargpud did not start"; return 1; }
    billd_start
    login admin "$run/server/admin.key" || return 1
    show neargpu --account admin admin status
    detail="$(sql postgres 'SELECT version()' | cut -d, -f1 | cut -d'(' -f1)in $run/server/pg, socket only, $(sql postgres "SELECT count(*) || ' tables' FROM pg_tables WHERE schemaname = 'ng'")"
    [ "$(sql postgres 'SHOW fsync')" = on ] && [ -z "$(sql postgres 'SHOW listen_addresses')" ]
}

step_agents_enrolled() {
    local site
    for site in $sites; do
        site_prepare "$site" || { detail="enrolment of $site failed"; return 1; }
        agent_start "$site"
    done
    wait_for 30 nodes_up 3 || { detail="not every node synced"; tail -n 3 "$run"/agents/*/log; return 1; }
    show neargpu --account admin provider nodes
    detail="3 agents, 24 GPUs, certificates of the market's CA"
}

rtt_of() { jq -r --arg s "$1" '[.offers[], .rejected[]] | map(select(.site == $s)) | .[0].rtt_us // 0' "$run/offers.json"; }
all_measured() {
    as kagaku-lab -o json offers --near genome-tokyo --gpu H100 --for 1h >"$run/offers.json" &&
        [ "$(jq '[.offers[] | select(.rtt_source == "measured" and .rtt_count > 0 and .rtt_confidence != null)] | length' "$run/offers.json")" = 3 ]
}
step_probes_measured() {
    data_start || return 1
    tenant_create kagaku-lab 1000 || return 1
    show neargpu data add genome-tokyo --endpoint "$data_url" --site tokyo || return 1
    wait_for 60 all_measured || { detail="no measured round trip from every site"; cat "$run/offers.json"; return 1; }
    local f o t
    f=$(rtt_of fukuoka) o=$(rtt_of osaka) t=$(rtt_of tokyo)
    detail="tokyo $t us, osaka $o us, fukuoka $f us (fibre: 200, 5415, 11514)"
    [ "$t" -lt "$o" ] && [ "$o" -lt "$f" ] && [ "$o" -ge 5415 ] && [ "$f" -ge 11514 ]
}

# ranked PROFILE WINNER
ranked() {
    local best
    show neargpu offers --near genome-tokyo --gpu H100 --gpus 8 --for 4h --profile "$1"
    best=$(as kagaku-lab -o json offers --near genome-tokyo --gpu H100 --gpus 8 --for 4h --profile "$1" |
        tee "$run/offers.json" | jq -r '.offers[0].site')
    detail="best: $(jq -r '[.offers[] | "\(.site) \(.price.effective_per_hour_micro / 1e6) USD/h (slow-down \(.slowdown))"] | join(", ")' "$run/offers.json")"
    [ "$best" = "$2" ]
}
step_offers_ranked_resnet50() { ranked resnet50_h100 osaka; }
step_offers_ranked_llama2_70b() { ranked llama2_70b_lora_8xh100 fukuoka; }

step_bound_excludes() {
    show neargpu offers --near genome-tokyo --gpu H100 --gpus 8 --for 4h --profile llama2_70b_lora_8xh100 --max-rtt 5ms
    as kagaku-lab -o json offers --near genome-tokyo --gpu H100 --gpus 8 --for 4h --profile llama2_70b_lora_8xh100 --max-rtt 5ms >"$run/offers.json"
    detail="fukuoka: $(jq -r '.rejected[] | select(.site == "fukuoka") | .reason' "$run/offers.json")"
    holds "$run/offers.json" '(.offers | map(.site)) == ["tokyo"] and (.rejected[] | select(.site == "fukuoka") | .why == "too_far")'
}

lease_s=100
step_reserved() {
    show neargpu quote --near genome-tokyo --gpu H100 --gpus 1 --for ${lease_s}s --max-rtt 20ms
    as kagaku-lab -o json reserve --yes --near genome-tokyo --gpu H100 --gpus 1 --for ${lease_s}s --max-rtt 20ms >"$run/r1.json" || { detail=$(cat "$run/r1.json"); return 1; }
    r1=$(jq -r .id "$run/r1.json")
    r1_end=$(date -d "$(jq -r .end "$run/r1.json")" +%s)
    show neargpu list
    detail="$r1: $(jq -r '.allocations[0] | "\(.site) \(.node) \(.gpus[0])"' "$run/r1.json") until $(jq -r .end "$run/r1.json")"
    holds "$run/r1.json" '.state == "confirmed" or .state == "active"' &&
        [ "$(jq -r '.allocations[0].site' "$run/r1.json")" = fukuoka ]
}

step_double_booking_refused() {
    local i start end wins refused out row
    as kagaku-lab -o json reserve --yes --site tokyo --gpu H100 --gpus 7 --for 1h >/dev/null || { detail="7 GPUs of tokyo could not be reserved"; return 1; }
    start=$(date -u -d '+10 min' +%FT%TZ)
    for i in $(seq 50); do
        printf 'next\nurl = "%s/v1/reservations"\ncacert = "%s"\nheader = "Authorization: Bearer %s"\nheader = "Content-Type: application/json"\nheader = "Idempotency-Key: race-%d"\ndata = "%s"\noutput = "%s"\nwrite-out = "%%{http_code}\\n"\nsilent\n' \
            "$server_url" "$run/server/pki/ca.pem" "$(cat "$run/kagaku-lab.key")" "$i" \
            "{\\\"site\\\":\\\"tokyo\\\",\\\"gpu\\\":\\\"H100\\\",\\\"gpus\\\":1,\\\"duration\\\":\\\"30m\\\",\\\"start\\\":\\\"$start\\\"}" "$run/race.$i"
    done | sed '1d' | secret "$run/race.curl"
    curl --parallel --parallel-immediate --parallel-max 50 --config "$run/race.curl" >"$run/race.status" 2>/dev/null
    wins=$(grep -c '^201' "$run/race.status")
    refused=$(grep -cE '^4(09|22)' "$run/race.status")
    echo "  50 clients asked for the last GPU of tokyo at $start: $wins won, $refused refused"
    out=$(sql neargpu_owner "INSERT INTO ng.booking (reservation_id, node_id, site_id, gpus, during, epoch, per_gpu_hour_micro)
        SELECT reservation_id, node_id, site_id, gpus, during, epoch, per_gpu_hour_micro FROM ng.booking WHERE reservation_id = '$r1'" 2>&1)
    row=$?
    end=$(grep -o 'booking_no_double' <<<"$out" | head -n 1)
    echo "  raw INSERT as the table's owner: $(grep -m 1 ERROR <<<"$out")"
    detail="API race: $wins of 50 won; owner's raw INSERT: refused by ${end:-nothing}"
    [ "$wins" = 1 ] && [ "$refused" = 49 ] && [ $row != 0 ] && [ "$end" = booking_no_double ]
}

step_token_verified_elsewhere() {
    as kagaku-lab -o json token "$r1" | jq -r '.tokens[0].token' | secret "$run/r1.token"
    curl -fsS --cacert "$run/server/pki/ca.pem" "$server_url/.well-known/jwks.json" >"$run/jwks.json" || return 1
    /usr/bin/python3 "$here/../tools/jose_verify.py" "$run/jwks.json" <"$run/r1.token" >"$run/claims.json" || { detail="jwcrypto refused the token"; return 1; }
    jq . "$run/claims.json" | sed 's/^/  /'
    audience=$(jq -r .aud "$run/claims.json")
    detail="Debian's python3-jwcrypto verified it from /.well-known/jwks.json; aud $audience"
    holds "$run/claims.json" '.authorization_details[0].identifier == $r' --arg r "$r1"
}

step_job_sees_only_its_gpu() {
    local out code pid
    # Inside: the granted node; another GPU's node that root puts there from outside, on a mount of
    # its own without nodev; a node the job makes itself.
    # shellcheck disable=SC2016
    as kagaku-lab run "$r1" -- /bin/sh -c '
        for d in /dev/nvidia[0-9]*; do echo "granted $d: $( (: <$d) 2>&1)"; done
        i=0; while [ ! -e /tmp/outside/nvidia7 ] && [ $i -lt 100 ]; do i=$((i+1)); sleep 0.1; done
        ls -l /tmp/outside/nvidia7
        echo "other: $( (: </tmp/outside/nvidia7) 2>&1)"
        echo "mknod: $(mknod /tmp/own c 242 7 2>&1)"
        echo "uid: $(id -u)"; exit 7' >"$run/sees.out" 2>&1 &
    local job=$!
    wait_for 20 grep -q '^granted' "$run/sees.out"
    pid=$(job_pids | sed -n 2p) # after lease-init the first is the job itself; later ones come and go
    nsenter -t "$pid" -m -r sh -c "mkdir /tmp/outside && mount -t tmpfs -o mode=755 outside /tmp/outside && umask 0 && mknod /tmp/outside/nvidia7 c $gpu_major 7" ||
        { detail="root could not put a device into the job's /tmp"; return 1; }
    wait $job
    code=$?
    out=$(cat "$run/sees.out")
    sed 's/^/  /' <<<"$out"
    detail="granted: ENXIO (let through to the driver), another GPU's node: EPERM, mknod refused, exit code $code passed on"
    [ $code = 7 ] && [ "$(grep -c '^granted .*No such device or address' <<<"$out")" = 1 ] && [ "$(grep -c '^granted' <<<"$out")" = 1 ] &&
        grep -q '^other: .*Operation not permitted' <<<"$out" && grep -q '^mknod: .*Operation not permitted' <<<"$out" && ! grep -q '^uid: 0' <<<"$out"
}

refused_with() { # refused_with WHAT PATTERN COMMAND…
    local what=$1 pattern=$2 out
    shift 2
    out=$("$@" 2>&1) && { echo "  $what: ACCEPTED"; return 1; }
    printf '  %s: %s\n' "$what" "$(tail -n 1 <<<"$out")"
    grep -qE "$pattern" <<<"$out"
}
step_stolen_token_refused() {
    local address other bad=0
    address=$(as kagaku-lab -o json token "$r1" | jq -r '.tokens[0].address')
    other=$(as admin -o json provider nodes | jq -r '.nodes[] | select(.site == "osaka") | .address')
    tenant_create thief 10 || return 1
    refused_with "without the tenant's key" possession as thief run "$r1" --token-file "$run/r1.token" --address "$address" -- /bin/true || bad=1
    refused_with "on another node" audience as kagaku-lab run "$r1" --token-file "$run/r1.token" --address "$other" -- /bin/true || bad=1
    refused_with "twenty minutes later" times "$neargpu_agent" verify --keys "$run/jwks.json" --audience "$audience" --now "$(date -u -d '+20 min' +%FT%TZ)" <"$run/r1.token" || bad=1
    "$neargpu_agent" verify --keys "$run/jwks.json" --audience "$audience" <"$run/r1.token" >/dev/null || { echo "  the honest check failed too"; bad=1; }
    detail="without the key, on another node, after expiry: each refused by its step"
    [ $bad = 0 ]
}

job_pids() { find /sys/fs/cgroup -path "*neargpu*$r1*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un; }
keepers() { pgrep -f "neargpu-agent keeper .*$r1" || true; }
step_agent_killed_job_lives() {
    local before after
    # A job that ignores signals, with children in sessions of their own.
    # shellcheck disable=SC2016
    show neargpu run "$r1" --detach -- /bin/sh -c 'trap "" TERM INT HUP; setsid sh -c "trap \"\" TERM INT HUP; while :; do sleep 1; done" & i=0; while :; do i=$((i+1)); echo tick $i; sleep 1; done' || return 1
    sleep 2
    before=$(job_pids | tr '\n' ' ')
    [ -n "$before" ] || { detail="no process in the lease's cgroup"; return 1; }
    kill -KILL "$(cat "$run/agents/fukuoka/pid")"
    echo "  killed the agent with SIGKILL; processes of the job: $before"
    sleep 2
    agent_start fukuoka
    sleep 3
    after=$(job_pids | tr '\n' ' ')
    timeout 5 "$neargpu" --account kagaku-lab run "$r1" --attach </dev/null >"$run/attach.out" 2>/dev/null
    sed -n 's/^/  re-attached: /p' "$run/attach.out" | tail -n 2
    detail="job's first process $(head -n 1 <<<"${before// /$'\n'}") untouched; re-attached: $(tail -n 1 "$run/attach.out")"
    # Looked for among all: new numbers may be lower when they have begun anew.
    [[ " $after " == *" ${before%% *} "* ]] && grep -q 'tick [3-9]' "$run/attach.out"
}

step_lease_end_enforced() {
    local k left cg before opened
    before=$(job_pids | tr '\n' ' ')
    kill -KILL "$(cat "$run/agents/fukuoka/pid")"
    for k in $(keepers); do kill -KILL "$k"; done
    echo "  killed the agent and the keeper; the job (processes $before) ignores TERM, INT and HUP"
    left=$((r1_end - $(date +%s)))
    [ $left -gt 0 ] || { detail="the lease ended before this step began"; return 1; }
    [ -n "$before" ] || { detail="the job was gone before the end"; return 1; }
    echo "  waiting $left s for the end of the lease"
    sleep "$left"
    sleep 1
    cg=$(find /sys/fs/cgroup -depth -type d -path "*neargpu*$r1*" 2>/dev/null | grep -E 'unified|/cgroup/neargpu' | head -n 1)
    opened=$(sh -c "echo \$\$ >'${cg:-/nonexistent}/cgroup.procs' && : <$run/dev/fukuoka/nvidia0" 2>&1)
    echo "  one second after the end: processes left: $(job_pids | wc -l); an open inside the lease's cgroup: ${opened##*: }"
    detail="processes left 0; open inside the cgroup: ${opened##*: }"
    [ "$(job_pids | wc -l)" = 0 ] && grep -q 'Operation not permitted' <<<"$opened" || { detail="processes $(job_pids | wc -l), open: $opened"; return 1; }
    agent_start fukuoka
    wait_for 30 resv_state "$r1" ended || { detail="the reservation did not end: $(as kagaku-lab -o json show "$r1" | jq -r .state)"; return 1; }
    [ -z "$(find /sys/fs/cgroup -type d -path "*neargpu*$r1*" 2>/dev/null)" ] || { detail="a cgroup of the lease is left"; return 1; }
}
resv_state() { [ "$(as kagaku-lab -o json show "$1" | jq -r .state)" = "$2" ]; }

usage_there() { [ "$(as kagaku-lab -o json usage --reservation "$r1" | jq '[.usage[] | select(.closed)] | length')" = 1 ]; }
step_usage_metered() {
    local want got
    wait_for 30 usage_there || { detail="no closed usage record"; as kagaku-lab -o json usage --reservation "$r1"; return 1; }
    show neargpu usage --reservation "$r1"
    want=$((lease_s * 1000))
    got=$(as kagaku-lab -o json usage --reservation "$r1" | jq '.usage[0].gpu_ms')
    detail="$got GPU-ms metered, $want reserved"
    [ $((got - want)) -le 1000 ] && [ $((want - got)) -le 1000 ]
}

checks_empty() { [ -z "$(sql neargpu_owner "SELECT * FROM api.check_all() WHERE breaches > 0")" ]; }
step_ledger_balanced() {
    wait_for 20 checks_empty || { detail="$(sql neargpu_owner 'SELECT * FROM api.check_all() WHERE breaches > 0')"; return 1; }
    show neargpu wallet
    detail="$(sql neargpu_owner 'SELECT count(*) FROM ng.transfer') transfers, $(sql neargpu_owner 'SELECT count(*) FROM api.check_all()') check views empty"
}

step_invoice_issued() {
    "$neargpu_billd" invoice --data-dir "$run/server" --tenant kagaku-lab --until now >"$run/billd-invoice.out" 2>&1 || { detail=$(cat "$run/billd-invoice.out"); return 1; }
    show neargpu invoice list
    local number
    number=$(as kagaku-lab -o json invoice list | jq -r '.invoices[0].number // empty')
    [ -n "$number" ] || { detail="no invoice: $(cat "$run/billd-invoice.out")"; return 1; }
    show neargpu invoice show "$number"
    as kagaku-lab -o json invoice show "$number" >"$run/invoice.json"
    detail="invoice $number: $(jq -r '"net \(.net.micro / 1e6), tax \(.tax.micro / 1e6), total \(.total.micro / 1e6) \(.total.currency)"' "$run/invoice.json")"
    holds "$run/invoice.json" '.net.micro + .tax.micro == .total.micro and .total.micro > 0' || return 1
    # As a page, and as FOCUS, whose charges sum to what is payable.
    as kagaku-lab invoice show "$number" --html "$run/invoice.html" --lang ja || { detail="no page"; return 1; }
    grep -q 請求書 "$run/invoice.html" || { detail="the page is no invoice"; return 1; }
    as kagaku-lab invoice show "$number" --focus >"$run/focus.csv"
    charged=$(awk -F, 'NR > 1 {sum += $1 * 1000000} END {printf "%.0f", sum}' "$run/focus.csv")
    [ "$charged" = "$(jq .total.micro "$run/invoice.json")" ] || { detail="FOCUS says $charged"; return 1; }
    detail="$detail; FOCUS: $(($(wc -l <"$run/focus.csv") - 1)) charges, the same sum"
}

# The invoice, its receipts and postings, checked against the signed log; then each of three forgeries is found.
step_invoice_verified() {
    local number forged
    number=$(jq -r .number "$run/invoice.json")
    in_log() { as kagaku-lab invoice show "$number" --bundle "$run/bundle.json" && [ "$(jq '[.entries[] | select(.record.type == "invoice")] | length' "$run/bundle.json")" = 1 ]; }
    wait_for 20 in_log || { detail="the invoice got no place in the log"; return 1; }
    show neargpu witness
    show neargpu verify
    show neargpu verify "$run/bundle.json" || { detail="the bundle is refused"; return 1; }
    [ "$(as kagaku-lab -o json verify "$run/bundle.json" | jq '.countersigned')" = "$(jq '.receipts | length' "$run/bundle.json")" ] || { detail="not all receipts are countersigned"; return 1; }
    show neargpu usage --receipts "$r1" || { detail="the receipts are refused"; return 1; }
    sql postgres "INSERT INTO ng.receipt_fork SELECT reservation_id, node_id, seq, 'another' FROM ng.receipt WHERE reservation_id = '$r1' AND seq = 2"
    as kagaku-lab usage --receipts "$r1" >/dev/null 2>"$run/fork.err" && { detail="a forked receipt is not told"; return 1; }
    grep -q 'another receipt 2' "$run/fork.err" || { detail=$(cat "$run/fork.err"); return 1; }
    sql postgres "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM ng.receipt_fork; COMMIT"
    for forged in '(.entries[] | select(.record.type == "invoice") | .record.total_micro) = "1"' \
        '.receipts[1].receipt = .receipts[0].receipt' 'del(.entries[] | select(.record.kind == "fee"))'; do
        jq "$forged" "$run/bundle.json" >"$run/forged.json"
        as kagaku-lab verify "$run/forged.json" >/dev/null 2>&1 && { detail="taken although forged: $forged"; return 1; }
    done
    detail="$(jq '.entries | length' "$run/bundle.json") records and $(jq '.receipts | length' "$run/bundle.json") receipts hold; three forgeries found"
    "$neargpu_billd" verify-log --data-dir "$run/server" >"$run/verify-log.out" 2>&1 || { detail=$(head -n 3 "$run/verify-log.out"); return 1; }
}

report_has_fukuoka() { as admin -o json admin report utilisation_hourly --site fukuoka | jq -e '.rows != []' >/dev/null; }
step_report_utilisation() {
    wait_for 40 report_has_fukuoka || return 1 # rolled up every 15 s
    show neargpu --account admin admin report utilisation_hourly
    detail="$(as admin -o json admin report utilisation_hourly | jq -r '(.columns | map(.name)) as $c | [.rows[] | [$c, .] | transpose | map({(.[0]): .[1]}) | add | select(.site == "fukuoka")] | .[0] | tostring')"
    [ "$detail" != null ] || return 1
    as admin admin report --all --html "$run/reports" 2>/dev/null && grep -q 'utilisation_hourly.html' "$run/reports/index.html" &&
        grep -q '<svg' "$run/reports/utilisation_hourly.html"
}

book_stream() { # reservations one after the other until the server is gone; ids confirmed go to a file
    local i id
    for i in $(seq 400); do
        id=$(curl -fsS --max-time 5 --cacert "$run/server/pki/ca.pem" -H "Authorization: Bearer $(cat "$run/kagaku-lab.key")" \
            -H 'Content-Type: application/json' -H "Idempotency-Key: stream-$1-$i" \
            -d "{\"gpu\":\"H100\",\"gpus\":1,\"duration\":\"10m\",\"earliest\":\"$(date -u -d '+1 hour' +%FT%TZ)\",\"latest\":\"$(date -u -d '+10 days' +%FT%TZ)\"}" \
            "$server_url/v1/reservations" 2>/dev/null | jq -r .id) || break
        [ -n "$id" ] && echo "$id" >>"$run/confirmed.$1"
    done
}
step_server_killed_nothing_lost() {
    local i pg confirmed found doubled
    local streams=()
    for i in 1 2 3 4; do
        book_stream $i &
        streams+=($!)
    done
    sleep 3
    pg=$(head -n 1 "$run/server/pg/postmaster.pid")
    # shellcheck disable=SC2046
    kill -KILL "$server_pid" "$pg" $(pgrep -P "$pg") 2>/dev/null
    echo "  SIGKILL to neargpud, the postmaster and all its backends under four streams of reservations"
    wait "${streams[@]}" 2>/dev/null
    server_start || { detail="the server did not come back"; return 1; }
    confirmed=$(cat "$run"/confirmed.* | sort -u | wc -l)
    found=$(sql neargpu_owner "SELECT count(*) FROM ng.reservation r WHERE state IN ('confirmed','active') AND EXISTS (SELECT FROM ng.booking b WHERE b.reservation_id = r.id AND NOT isempty(b.during))
        AND id IN ($(sed "s/.*/'&'/" "$run"/confirmed.* | paste -sd,))")
    doubled=$(sql neargpu_owner 'SELECT count(*) FROM ng.booking a JOIN ng.booking b ON a.id < b.id AND a.gpus && b.gpus AND a.during && b.during')
    detail="$confirmed confirmed before the kill, $found there after the restart, $doubled doubled"
    [ "$confirmed" -gt 0 ] && [ "$confirmed" = "$found" ] && [ "$doubled" = 0 ] && wait_for 20 checks_empty
}

echo "neargpu demo: three sites, a data set in Tokyo, GPUs near and far. Everything runs in $run."
for name in database_up agents_enrolled probes_measured offers_ranked_resnet50 offers_ranked_llama2_70b bound_excludes \
    reserved double_booking_refused token_verified_elsewhere job_sees_only_its_gpu stolen_token_refused \
    agent_killed_job_lives lease_end_enforced usage_metered ledger_balanced invoice_issued invoice_verified report_utilisation \
    server_killed_nothing_lost; do
    step $name
done
printf '\n'
if [ $failed = 0 ]; then
    echo "demo: all $(wc -l <"$results") steps hold"
else
    echo "demo: $failed of $(wc -l <"$results") steps failed"
    exit 1
fi
