#!/usr/bin/env bash
# exchange: a grant given on in part (RFC 8693) through a whole market: who holds it gives
# one GPU of two for some seconds to another tenant's key; the server's refusals by name;
# the delegate's job sees that GPU alone, by its own gate too, and ends at its own end
# while the lease goes on; he sees no other's jobs and cannot give it on.
# Usage: exchange.sh [BUILD_DIR]. Exit 77 unless root and jq are there.
set -uo pipefail
# shellcheck source=tests/system/node_lib.sh
. "$(dirname "$(readlink -f "$0")")/node_lib.sh"
node_needs ssh-keygen
sites="n1"
node_market "$run/dev/nvidia" 236
tenant_create bob 1000 || die "no second tenant"
near bob key list >/dev/null
ssh-keygen -q -t ed25519 -N '' -C third -f "$run/third"
near bob -o json key list | jq -r '.keys[0].key' >"$run/bob.pub"

node_reserve 2
is "its tenant has both GPUs" "$(near lab run "$id" -- /bin/sh -c 'ls /dev | grep -c nvidia[0-9]')" 2

# ---- what is given, and what the claims say
give() { # give FILE OPTION…: the token into FILE
    local file=$1
    shift
    near lab -o json token "$id" --for "$run/bob.pub" "$@" >"$run/reply.json" 2>"$run/why" || return 1
    jq -r '.tokens[0].token' "$run/reply.json" | secret "$file"
    address=$(jq -r '.tokens[0].address' "$run/reply.json")
}
claims() { cut -d. -f2 "$1" | tr '_-' '/+' | { read -r t; while [ $((${#t} % 4)) != 0 ]; do t=$t=; done; echo "$t"; } | base64 -d; }
give "$run/part" --gpus 1 --until +10s || die "no exchange: $(cat "$run/why")"
until_s=$(($(date +%s) + 10))
near lab -o json token "$id" >"$run/own.json"
jq -r '.tokens[0].token' "$run/own.json" | secret "$run/own"
is "one GPU, launch only, and who gave it" \
    "$(claims "$run/part" | jq -c '.authorization_details[0] | [.devices[].uuid, .actions]') $(claims "$run/part" | jq -r .act.sub)" \
    "[\"GPU-n1-1\",[\"launch\"]] $(claims "$run/own" | jq -r .cnf.jkt)"

# ---- the delegate's job: that GPU and no other, and its own end
near bob run --token-file "$run/part" --address "$address" "$id" -- \
    /bin/sh -c 'echo nodes $(cd /dev; ls -d nvidia[0-9]*); echo $CUDA_VISIBLE_DEVICES; trap "" TERM; echo up; sleep 60' </dev/null >"$run/job.out" 2>"$run/job.err" &
job=$!
remember run $job
wait_for 8 grep -q up "$run/job.out" || bad "the delegate's job: $(cat "$run/job.err")"
is "the job sees its GPU only" "$(head -n 2 "$run/job.out" | tr '\n' ' ')" "nodes nvidia1 GPU-n1-1 "
jti=$(claims "$run/part" | jq -r .jti)
v2=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
opened() { # opened CGROUP DEVICE: what the kernel says to root in there
    /bin/sh -c 'echo $$ >"$1/cgroup.procs" && exec 3<"$2"' sh "$1" "$run/dev/$2" 2>&1 | sed -E 's/.*(No such device or address|Operation not permitted).*/\1/'
}
cgroup=$(find "$v2" -type d -name "job-$jti" | head -n 1)
[ -n "$cgroup" ] || die "no cgroup of the job"
is "gate of the job: its GPU" "$(opened "$cgroup" nvidia1)" "No such device or address"
is "gate of the job: the other GPU" "$(opened "$cgroup" nvidia0)" "Operation not permitted"
lease_job=$(near lab -o json run "$id" --list | jq -r '.jobs[0].job')
is "the delegate lists his jobs only" "$(near bob -o json run --token-file "$run/part" --address "$address" "$id" --list | jq -r '[.jobs[].job] | join(" ")')" "$jti"
like "he cannot attach to another's" "$(near bob run --token-file "$run/part" --address "$address" "$id" --attach "$lease_job" 2>&1)" "*no job*"
like "the token is of no use to another key" "$(near lab run --token-file "$run/part" --address "$address" "$id" -- true 2>&1)" "*possession*"
wait_for 30 pid_gone $job
is "the job ended at its own end" "$([ "$(date +%s)" -ge $((until_s - 1)) ] && [ "$(date +%s)" -le $((until_s + 8)) ] && echo in time)" "in time"
is "as the lease's end would" "$(near lab -o json run "$id" --list | jq -r --arg j "$jti" '.jobs[] | select(.job == $j) | .exit.reason')" lease_end
is "the lease goes on" "$(near lab run "$id" -- /bin/sh -c 'ls /dev | grep -c nvidia[0-9]')" 2
like "no start after its own end" "$(near bob run --token-file "$run/part" --address "$address" "$id" -- true 2>&1)" "*details*"

# ---- refusals
refused() { # refused WHAT PATTERN OPTION…
    local what=$1 pattern=$2
    shift 2
    if near lab -o json token "$id" --for "$run/bob.pub" "$@" >"$run/reply.json" 2>"$run/why"; then bad "$what: was given"; else like "$what" "$(cat "$run/why")" "$pattern"; fi
}
refused "a later end" "*later than the grant*" --until +1h
refused "an unknown GPU" "*not one of the grant*" --gpus GPU-n1-7
refused "a place that is none" "*--gpus*" --gpus 2
refused "a GPU twice" "*not one of the grant*" --gpus 0,0
refused "a part with stop" "*launch only*" --gpus 0 --action stop --action launch
refused "an end that has been" "*nothing would be left*" --until "$(date -u -d '1 minute ago' +%FT%TZ)"
ask() { # ask FILTER: the exchange of reply `own` with this in it, without an API key
    jq -n --rawfile t "${2:-$run/own}" '{grant_type: "urn:ietf:params:oauth:grant-type:token-exchange", subject_token: ($t | rtrimstr("\n")),
        subject_token_type: "urn:ietf:params:oauth:token-type:access_token", proof: "e30.e30.e30",
        jwk: {kty: "OKP", crv: "Ed25519", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}} | '"$1" |
        curl -sS --cacert "$run/server/pki/ca.pem" -H 'Content-Type: application/json' --data-binary @- "$server_url/v1/token-exchange" | jq -r '"\(.status // 200) \(.detail // "given")"'
}
like "no proof" "$(ask 'del(.proof)')" "400 */proof*"
like "a proof that is none" "$(ask .)" "401 *proof*"
like "another grant type" "$(ask '.grant_type = "authorization_code"')" "400 */grant_type*"
like "not an access token" "$(ask '.subject_token_type += "x"')" "400 *"
like "another member" "$(ask '.audience = "x"')" "400 */audience*"
like "a key that is none" "$(ask '.jwk.x = "AAAA"')" "400 */jwk*"
like "a token of nobody's" "$(ask '.subject_token = "e30.e30.e30"')" "401 *"
like "a token with another signature" "$(ask '.subject_token |= .[:-4] + "AAAA"')" "401 *"
give "$run/whole" || die "no exchange of the whole"
like "one that was delegated" "$(ask . "$run/whole")" "403 *not delegated again*"
is "the whole has all of it" "$(claims "$run/whole" | jq -c '.authorization_details[0] | [(.devices | length), (.actions | length)]')" "[2,2]"
is "no longer to start than the grant" "$(jq -n --slurpfile w <(claims "$run/whole") '$w[0].exp - $w[0].iat <= 900')" true

# ---- a grant is renewed at half of its life while `run` is there
kill -TERM "$server_pid"
wait_for 15 pid_gone "$server_pid"
echo 'token_life = 20s' >"$run/neargpud.conf"
server_options="--conf $run/neargpud.conf"
server_start || die "neargpud did not start again"
issued() { sql neargpu_owner 'SELECT count(*) FROM ng.token'; }
before=$(issued)
near lab run "$id" -- sleep 13 || bad "a job while its token is renewed"
is "two tokens for it" "$(($(issued) - before))" 2
is "the second when the first had ten seconds left" "$(sql neargpu_owner "SELECT extract(epoch FROM max(issued_at) - min(issued_at)) BETWEEN 9 AND 12
    FROM (SELECT issued_at FROM ng.token ORDER BY jti DESC LIMIT 2) x")" t
near lab -o json token "$id" | jq -r '.tokens[0].token' | secret "$run/own"

near lab cancel "$id" --yes >/dev/null || bad "cancel"
like "of a revoked reservation" "$(ask .)" "4?? *"
logged() { [ "$(as admin -o json admin audit | grep -c /v1/token-exchange)" -gt 5 ]; }
wait_for 10 logged && ok "the audit log has it" || bad "the audit log: $(as admin -o json admin audit | head -c 600)"
is "without tokens" "$(as admin -o json admin audit | grep -c eyJ)" 0

node_done
