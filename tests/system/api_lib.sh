# api_lib: what the tests of the HTTP API share; sourced. A directory of its own, servers
# that are started and stopped, questions with curl, checks that are counted.
build=$NEARGPU_BUILD
here=$(dirname "$(readlink -f "$0")")
run=$(mktemp -d /var/tmp/neargpu-api.XXXXXX) # short: sockets lie in it
chmod 755 "$run"
checks=0 failures=0 pid='' pid2=''
more_pids=() # of further servers

stop_pid() { # stop_pid PID SIGNAL: and wait until it is gone
    [ -n "$1" ] || return 0
    kill "-$2" "$1" 2>/dev/null
    for _ in $(seq 200); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$1"
}
cleanup() {
    local p
    for p in "${more_pids[@]}"; do stop_pid "$p" TERM; done
    stop_pid "$pid2" TERM
    stop_pid "$pid" TERM
    rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# is NAME GOT WANT
is() {
    checks=$((checks + 1))
    [ "$2" = "$3" ] && return 0
    failures=$((failures + 1))
    echo "FAILED: $1: got '$2', want '$3'; last answer $code: $body" >&2
}

# up DIR [OPTION…]: starts a server, sets $server_pid and $addr.
up() {
    local dir=$1
    shift
    rm -f "$dir/listen"
    "$build/server/neargpud" --data-dir "$dir" --currency "${currency:-USD}" "$@" >>"$run/log" 2>&1 &
    server_pid=$!
    for _ in $(seq 300); do
        [ -s "$dir/listen" ] && break
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.1
    done
    addr=$(cat "$dir/listen" 2>/dev/null) || { tail -n 20 "$run/log" >&2; echo "neargpud does not start" >&2; exit 1; }
}

# ask KEYFILE|- METHOD PATH [BODY] [CURL ARGUMENT…]: sets $code and $body.
ask() {
    local key=$1 method=$2 path=$3 data=${4:-} args=()
    shift $(($# > 4 ? 4 : $#))
    [ "$key" = - ] || args+=(-H "Authorization: Bearer $(cat "$key")")
    [ -z "$data" ] || args+=(-H 'Content-Type: application/json' -d "$data")
    body=$(curl -sS --max-time 60 --cacert "$run/s/pki/ca.pem" -X "$method" "${args[@]}" "$@" -w '\n%{http_code}' "https://$addr$path" 2>>"$run/curl.log")
    code=${body##*$'\n'}
    body=${body%$'\n'*}
}
get() { jq -r "$1" <<<"$body" 2>/dev/null; }
sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$run/s/run" -U postgres -d neargpu -c "$1"; }
code='' body=''

# summary: libcheck's line, and whether all held; last in a test.
summary() {
    printf '%d%%: Checks: %d, Failures: %d, Errors: 0\n' $(((checks - failures) * 100 / checks)) $checks $failures
    [ $failures = 0 ]
}

# ---- nodes, as curl and openssl see them ----

# enrol SELLERKEY SITE NODE: makes NODE.key, NODE.pem and its receipt key.
enrol() {
    local join x
    ask "$1" POST /v1/join-codes "{\"site\":\"$2\",\"node\":\"$3\"}"
    join=$(get .code)
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$run/$3.key" -out "$run/$3.csr" -subj "/CN=$3" 2>/dev/null
    openssl genpkey -algorithm ed25519 -out "$run/$3.receipt" 2>/dev/null
    x=$(openssl pkey -in "$run/$3.receipt" -pubout -outform DER | tail -c 32 | basenc --base64url | tr -d '=\n')
    ask - POST /v1/agent/enroll "$(jq -cn --arg code "$join" --rawfile csr "$run/$3.csr" --arg x "$x" '{code: $code, csr: $csr, receipt_jwk: {kty: "OKP", crv: "Ed25519", x: $x}}')"
    get .certificate >"$run/$3.pem"
}
# report NODE GPUS PRICE_MICRO [JQ FILTER over the report]: one sync; sets $code and $body.
report() {
    ask - POST /v1/agent/sync "$(jq -cn --arg n "$1" --argjson gpus "$2" --argjson price "$3" '{agent: {version: "1", boot_id: "b", seq: 1, address: "127.0.0.1:7"},
        gpus: [range($gpus) | {index: ., uuid: "GPU-\($n)-\(.)", model: "H100-SXM5-80GB", memory_mib: 81559, pci: "", minor: ., state: "idle"}],
        price: {currency: "USD", micro: $price}, windows: [], leases: [], probes: [], desired_version: "", wait: "0s"} | '"${4:-.}")" \
        --cert "$run/$1.pem" --key "$run/$1.key"
}
