#!/usr/bin/env bash
# exchange_form: RFC 8693 as a stranger's client speaks it: curl with a form, openssl for
# the proof, a real neargpud. What comes out is checked by the agent's own verifier; each
# way of doing it wrong answers in OAuth's words. Prints libcheck's summary line.
set -uo pipefail
. "$(dirname "$(readlink -f "$0")")/api_lib.sh"

up "$run/s" --listen 127.0.0.1:0
pid=$server_pid
admin=$run/s/admin.key
acme=$run/acme.key
seller=$run/seller.key
cd "$run" || exit 1

# ---- a lease of two GPUs, a grant of it for the holder's key, and another's key ----
ask "$admin" POST /v1/sites '{"name":"tokyo","city":"Tokyo","lat":35.69,"lon":139.69,"residency":"jp"}'
ask "$admin" POST /v1/tenants '{"name":"acme"}'
get .api_key >"$acme"
ask "$admin" POST /v1/tenants/acme/topup '{"amount":{"currency":"USD","micro":100000000},"reference":"bank 1"}'
ask "$admin" POST /v1/providers '{"name":"seller"}'
get .api_key >"$seller"
enrol "$seller" tokyo n1
report n1 2 2000000
reserve() {
    ask "$acme" POST /v1/reservations '{"duration":"1h","gpus":2}'
    [ "$code" = 201 ]
}
for _ in $(seq 50); do
    reserve && break
    sleep 0.1
done
is "reserved" "$code" 201
id=$(get .id)
b64() { basenc -w0 --base64url | tr -d =; }
jwk_of() { # jwk_of FILE: its public key
    printf '{"crv":"Ed25519","kty":"OKP","x":"%s"}' "$(openssl pkey -in "$1" -pubout -outform DER | tail -c 32 | b64)"
}
for who in holder other; do
    openssl genpkey -algorithm ed25519 -out $who.key 2>/dev/null
    jwk_of $who.key >$who.jwk
    openssl dgst -sha256 -binary $who.jwk | b64 >$who.jkt
done
grant() { # grant: the tenant's, into the file token
    ask "$acme" POST "/v1/reservations/$id/tokens" "$(jq -c '{jwk: ., actions: ["launch", "stop"]}' holder.jwk)"
    get '.tokens[0].token' | tr -d '\n' >token
}
grant
is "a grant" "$code" 201
node=spiffe://neargpu.local/site/tokyo/node/n1

# proof KEY [GPUS [NOT_AFTER [ACTIONS]]]: over a grant for the other's key, signed
proof() {
    local head payload words
    words=$(printf '%s\0%s\0%s\0%s\0' "$(cat other.jkt)" "${2:-}" "${3:-}" "${4:-}" | openssl dgst -sha256 -binary | b64)
    head=$(printf '{"alg":"EdDSA","kid":"%s","typ":"neargpu-pop+jwt"}' "$(cat "$1.jkt")" | b64)
    payload=$(jq -cn --slurpfile jwk "$1.jwk" --arg ath "$(openssl dgst -sha256 -binary token | b64)" --arg words "$words" --argjson now "$(date +%s)" \
        '{nonce: "exchange", aud: "https://neargpu.local", ath: $ath, action: "exchange", argv_hash: $words, iat: $now, jwk: $jwk[0]}' | tr -d '\n' | b64)
    printf '%s.%s' "$head" "$payload" >signed
    openssl pkeyutl -sign -inkey "$1.key" -rawin -in signed -out sig
    printf '%s.%s' "$(cat signed)" "$(b64 <sig)"
}
type=urn:ietf:params:oauth:grant-type:token-exchange
access=urn:ietf:params:oauth:token-type:access_token
# form ARGUMENT…: the exchange, with further arguments of curl's; sets $code and $body,
# and the answer's headers in the file headers.
form() {
    ask - POST /v1/token-exchange '' -D headers --data-urlencode "grant_type=$type" --data-urlencode subject_token@token --data-urlencode "subject_token_type=$access" \
        --data-urlencode "jwk=${jwk:-$(cat other.jwk)}" "$@"
}
answer() { printf '%s %s' "$code" "$(get '.error // "no error"')"; }
header() { sed -nE "s/^$1: (.*)\r$/\1/Ip" headers; }
claims() { get .access_token | cut -d. -f2 | basenc -d --base64url 2>/dev/null; }

# ---- rightly ----
form --data-urlencode "proof=$(proof holder)"
is "the whole" "$code $(get '[.issued_token_type, .token_type] | join(" ")')" "200 $access N_A"
is "its life is told" "$(get '.expires_in > 800 and .expires_in <= 900')" true
is "nothing else is" "$(get 'keys | join(" ")')" "access_token expires_in issued_token_type token_type"
is "not to be stored" "$(header cache-control) $(header pragma)" "no-store no-cache"
is "as JSON" "$(header content-type)" application/json
get .access_token | tr -d '\n' >given
ask - GET /.well-known/jwks.json
printf '%s' "$body" >jwks.json
is "it verifies offline" "$("$build/client/agent/neargpu-agent" verify --keys jwks.json --audience $node <given | jq -r '.cnf.jkt + " " + .act.sub')" \
    "$(cat other.jkt) $(cat holder.jkt)"
until=$(date -u -d '+30 min' +%FT%TZ)
form --data-urlencode "proof=$(proof holder GPU-n1-1 "$until" launch)" -d gpus=GPU-n1-1 --data-urlencode "not_after=$until" -d actions=launch
is "a part" "$(claims | jq -c '.authorization_details[0] | [[.devices[].uuid], .actions, .not_after]')" "[[\"GPU-n1-1\"],[\"launch\"],\"$until\"]"
form --data-urlencode "proof=$(proof holder GPU-n1-1,GPU-n1-0)" -d gpus=GPU-n1-1%2CGPU-n1-0
is "two by a list" "$(claims | jq -c '[.authorization_details[0].devices[].uuid] | sort')" '["GPU-n1-0","GPU-n1-1"]'
form --data-urlencode "proof=$(proof holder)" -d "gpus=&actions=&scope=&not_after&client_id=me&hello=world"
is "empty and unknown ones say nothing" "$(answer)" "200 no error"
form --data-urlencode "proof=$(proof holder)" --data-urlencode audience=$node --data-urlencode resource=$node -d "requested_token_type=$access&audience=$node"
is "for its node, by name, twice" "$(answer)" "200 no error"
form --data-urlencode "proof=$(proof holder)" -H 'Content-Type: application/x-www-form-urlencoded; charset=UTF-8'
is "with the charset said" "$(answer)" "200 no error"
ask - POST /v1/token-exchange "$(jq -cn --rawfile t token --slurpfile jwk other.jwk --arg p "$(proof holder)" --arg type $type --arg access $access --arg node $node \
    '{grant_type: $type, subject_token: $t, subject_token_type: $access, jwk: $jwk[0], proof: $p, audience: [$node]}')"
is "and as JSON" "$code $(get .token_type)" "200 N_A"

# ---- wrongly: the form ----
good=(--data-urlencode "proof=$(proof holder)")
wrong() { # wrong WHAT ANSWER ARGUMENT…
    local what=$1 want=$2
    shift 2
    form "$@"
    is "$what" "$(answer) $(get '.error_description | length > 0') $(header content-type) $(header cache-control)" "$want true application/json no-store"
}
wrong "a parameter twice" "400 invalid_request" "${good[@]}" "${good[@]}"
is "it is named" "$(get .error_description)" "proof: given more than once"
wrong "an empty one beside it" "400 invalid_request" "${good[@]}" -d proof=
wrong "an unknown one twice" "400 invalid_request" "${good[@]}" -d "hello=1&hello=2"
wrong "the type twice" "400 invalid_request" "${good[@]}" -d "grant_type=$type"
wrong "a percent sign alone" "400 invalid_request" "${good[@]}" -d gpus=%
wrong "half an escape" "400 invalid_request" "${good[@]}" -d gpus=%4
wrong "no hexadecimal digits" "400 invalid_request" "${good[@]}" -d gpus=%zz
wrong "NUL" "400 invalid_request" "${good[@]}" -d gpus=GPU-n1-1%00
wrong "not UTF-8" "400 invalid_request" "${good[@]}" -d hello=%ff
wrong "no name" "400 invalid_request" "${good[@]}" -d =1
wrong "forty parameters" "400 invalid_request" "${good[@]}" -d "$(seq -f 'p%g=1' -s '&' 40)"
head -c 66000 /dev/zero | tr '\0' x >much
wrong "64 KiB" "400 invalid_request" "${good[@]}" --data-urlencode hello@much
jwk='{' wrong "a JWK that is no JSON" "400 invalid_request" "${good[@]}"
is "it is named, too" "$(get '.error_description | .[:13]')" "jwk: bad JSON"
jwk='{"kty":"OKP","crv":"Ed25519","x":"AAAA"}' wrong "a JWK that is no key" "400 invalid_request" "${good[@]}"
wrong "no proof" "400 invalid_request" -d hello=world
wrong "a time that is none" "400 invalid_request" "${good[@]}" -d not_after=tomorrow
ask - POST /v1/token-exchange '' -D headers -H 'Content-Type: application/x-www-form-urlencoded'
is "no form" "$(answer)" "400 invalid_request"
ask - POST /v1/token-exchange '' -d grant_type=client_credentials
is "another grant type alone" "$(answer)" "400 unsupported_grant_type"
ask - POST /v1/token-exchange '' -d "subject_token=x"
is "no grant type" "$(answer)" "400 invalid_request"
ask - POST /v1/token-exchange '' -d a=1 -H 'Content-Type: text/plain'
is "neither form nor JSON: a problem" "$code $(get .code)" "415 bad_request"
ask - POST /v1/token-exchange "{}"
is "JSON keeps its problems" "$code $(get .code) $(get .error)" "400 bad_request null"
ask - POST /v1/keys '' -d a=1 -H "Authorization: Bearer $(cat "$acme")"
is "no other path takes a form" "$code $(get .code)" "415 bad_request"

# ---- wrongly: what is asked for ----
wrong "another's proof" "401 invalid_client" --data-urlencode "proof=$(proof other)"
is "a challenge" "$(header www-authenticate)" 'Bearer realm="neargpu"'
wrong "a proof over something else" "401 invalid_client" "${good[@]}" -d gpus=GPU-n1-1
wrong "a wrong API key" "401 invalid_client" "${good[@]}" -H "Authorization: Bearer ngk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
wrong "a client's password" "401 invalid_client" "${good[@]}" -u me:secret
wrong "a GPU of nobody's" "400 invalid_scope" --data-urlencode "proof=$(proof holder GPU-n1-7)" -d gpus=GPU-n1-7
wrong "one GPU twice" "400 invalid_scope" --data-urlencode "proof=$(proof holder GPU-n1-1,GPU-n1-1)" -d gpus=GPU-n1-1,GPU-n1-1
wrong "an action too many" "400 invalid_scope" --data-urlencode "proof=$(proof holder '' '' adopt)" -d actions=adopt
later=$(date -u -d '+9 hours' +%FT%TZ)
wrong "a later end" "400 invalid_scope" --data-urlencode "proof=$(proof holder '' "$later")" --data-urlencode "not_after=$later"
wrong "a scope" "400 invalid_scope" "${good[@]}" -d scope=launch
wrong "another audience" "400 invalid_target" "${good[@]}" -d audience=${node}2
wrong "a second resource" "400 invalid_target" "${good[@]}" -d "resource=$node&resource=https://example.org/"
wrong "an actor" "400 invalid_request" "${good[@]}" -d "actor_token=x&actor_token_type=$access"
wrong "another kind of token" "400 invalid_request" "${good[@]}" -d requested_token_type=urn:ietf:params:oauth:token-type:saml2
mv token whole
cp given token
wrong "one that was given on" "400 invalid_request" --data-urlencode "proof=$(proof other)"
printf 'e30.e30.e30' >token
wrong "a token of nobody's" "400 invalid_request" "${good[@]}"
mv whole token
ask "$acme" DELETE "/v1/reservations/$id"
is "cancelled" "$code" 200
wrong "of a revoked reservation" "400 invalid_request" --data-urlencode "proof=$(proof holder)"

ask "$admin" GET '/v1/audit?limit=200'
is "the audit log has them" "$(get '[.audit[] | select(.action == "POST /v1/token-exchange")] | length > 40')" true
is "without tokens" "$(grep -c eyJ <<<"$body")" 0
is "nor has the server's log" "$(grep -c eyJ "$run/log")" 0
summary
