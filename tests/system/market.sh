#!/usr/bin/env bash
# shellcheck disable=SC2154,SC2034 # build and run come from the sourcing script
# market: functions that start and stop a whole market on this machine, for the demo,
# `./dev up` and the system tests. Sourced; needs $build (build directory) and $run (an
# own, empty directory). Everything started is remembered in $run/pids and ended by id.
#
# Three sites, H100 prices per GPU-hour in USD, as published:
#   fukuoka 1.99  median of public H100 SXM5 offers, tugot17/gpu-price-tracker, 2025-10-19 21:01 UTC
#   osaka   2.12  the same, 2025-10-19 21:55 UTC
#   tokyo   8.60  AWS p5.4xlarge on demand, ap-northeast-1, tsaol/aws-gpu, 2026-01-21
# Round trips over fibre (model JPN12, 4.9 us/km one way): Tokyo-Osaka 552.6 km 5.415 ms,
# Tokyo-Hakata (Fukuoka) 1174.9 km 11.514 ms.

neargpu=$build/client/cli/neargpu
neargpu_agent=$build/client/agent/neargpu-agent
neargpud=$build/server/neargpud
neargpu_billd=$build/billing/neargpu-billd
gpu_major=242 # local/experimental: no driver answers, so an open that is let through ends in ENXIO
sites="fukuoka osaka tokyo"
declare -A site_city=([fukuoka]=Fukuoka [osaka]=Osaka [tokyo]=Tokyo)
declare -A site_lat=([fukuoka]=33.5902 [osaka]=34.6937 [tokyo]=35.6895)
declare -A site_lon=([fukuoka]=130.4017 [osaka]=135.5023 [tokyo]=139.6917)
declare -A site_price=([fukuoka]=1.99 [osaka]=2.12 [tokyo]=8.60)
declare -A site_source=([fukuoka]=127.0.1.11 [osaka]=127.0.1.12 [tokyo]=127.0.1.13)
declare -A site_rtt_us=([fukuoka]=11514 [osaka]=5415 [tokyo]=200)
declare -A site_minor=([fukuoka]=0 [osaka]=8 [tokyo]=16)

export NEARGPU_CONFIG_DIR=$run/config

# remember NAME PID
remember() { echo "$2 $1" >>"$run/pids"; }

# wait_for SECONDS COMMAND…: until the command succeeds.
wait_for() {
    local limit=$1 end
    shift
    end=$(($(date +%s) + limit))
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.1
    done
}

server_start() {
    rm -f "$run/server/listen"
    "$neargpud" --data-dir "$run/server" --listen "${server_addr:-127.0.0.1:0}" --currency USD ${server_options:-} >>"$run/neargpud.log" 2>&1 &
    server_pid=$!
    remember neargpud $server_pid
    wait_for 60 test -s "$run/server/listen" || { tail -n 20 "$run/neargpud.log" >&2; return 1; }
    server_addr=$(head -n 1 "$run/server/listen")
    server_url=https://$server_addr
    wait_for 30 curl -fsS --cacert "$run/server/pki/ca.pem" "$server_url/readyz"
}

billd_start() {
    "$neargpu_billd" --data-dir "$run/server" --interval 1s >>"$run/billd.log" 2>&1 &
    remember neargpu-billd $!
}

# login ACCOUNT KEYFILE
login() {
    "$neargpu" --account "$1" login --server "$server_url" --ca "$run/server/pki/ca.pem" --api-key-file "$2" >/dev/null
}

as() { # as ACCOUNT VERB…
    local account=$1
    shift
    "$neargpu" --account "$account" "$@"
}

secret() { # secret FILE: standard input into a 0600 file
    (umask 077 && cat >"$1")
}

site_prepare() { # site_prepare SITE: site, provider, join code, device nodes, agent's files
    local site=$1 i
    as admin admin site add "$site" --city "${site_city[$site]}" --lat "${site_lat[$site]}" --lon "${site_lon[$site]}" --residency jp >/dev/null
    as admin -o json admin provider create "$site-gpu" | jq -r .api_key | secret "$run/$site-gpu.key"
    login "$site-gpu" "$run/$site-gpu.key"
    mkdir -p "$run/dev/$site" "$run/agents/$site"
    chmod 755 "$run" "$run/dev" "$run/dev/$site"
    for i in 0 1 2 3 4 5 6 7; do
        mknod -m 666 "$run/dev/$site/nvidia$i" c $gpu_major $((${site_minor[$site]} + i))
    done
    jq -n --arg site "$site" --arg dev "$run/dev/$site/nvidia" --argjson major $gpu_major --argjson minor "${site_minor[$site]}" '
        {gpus: [range(8) | {uuid: "GPU-\($site)-0000-0000-00000000000\(.)", model: "H100-SXM5-80GB",
          memory_mib: 81559, pci: "0000:\(.+1)0:00.0", device: "\($dev)\(.)", major: $major, minor: ($minor + .),
          busy: false, lost: false}]}' >"$run/agents/$site/gpus.json"
    cat >"$run/agents/$site/agent.conf" <<EOF
server = $server_url
state_dir = $run/agents/$site/state
runtime_dir = $run/agents/$site/run
listen = 127.0.0.1:0
inventory = sim
sim_file = $run/agents/$site/gpus.json
price_per_gpu_hour = ${site_price[$site]}
currency = USD
probe_source = ${site_source[$site]}
probe_interval = 5s
EOF
    as "$site-gpu" -o json provider join-code --site "$site" --node "$site-1" | jq -r .code | secret "$run/$site.join"
    "$neargpu_agent" enroll --conf "$run/agents/$site/agent.conf" --ca "$run/server/pki/ca.pem" --join-code-file "$run/$site.join" >>"$run/agents/$site/log" 2>&1 ||
        { tail -n 5 "$run/agents/$site/log" >&2; return 1; }
}

agent_start() { # agent_start SITE
    "$neargpu_agent" run --conf "$run/agents/$1/agent.conf" >>"$run/agents/$1/log" 2>&1 &
    agent_pid=$!
    echo $agent_pid >"$run/agents/$1/pid"
    remember "neargpu-agent-$1" $agent_pid
}

data_start() {
    local args=() site
    for site in $sites; do args+=("${site_source[$site]}=${site_rtt_us[$site]}"); done
    "$build/tests/tools/data_endpoint" 127.0.0.1:0 "${args[@]}" >"$run/data.port" 2>>"$run/data.log" &
    remember data_endpoint $!
    wait_for 10 test -s "$run/data.port"
    data_url=http://127.0.0.1:$(cat "$run/data.port")/genome
}

tenant_create() { # tenant_create NAME AMOUNT
    as admin -o json admin tenant create "$1" | jq -r .api_key | secret "$run/$1.key"
    as admin admin tenant topup "$1" --amount "$2" --reference "bank transfer of $1" >/dev/null
    login "$1" "$run/$1.key"
}

# sql ROLE STATEMENT: as the superuser of the embedded cluster after SET ROLE.
sql() {
    local role=$1
    shift
    psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$run/server/run" -U postgres -d neargpu -c "SET ROLE $role" -c "$*"
}

nodes_up() { # nodes_up N: N nodes synced and with a price
    [ "$(as admin -o json provider nodes | jq '[.nodes[] | select(.state == "up" and .gpus == 8)] | length')" -ge "$1" ]
}

# Ends what was started, newest first, by id; then whatever leases left in the kernel.
market_stop() {
    local pid name
    [ -e "$run/pids" ] || return 0
    for site in $sites; do
        [ -x "$neargpu_agent" ] && [ -e "$run/agents/$site/agent.conf" ] &&
            "$neargpu_agent" cleanup --conf "$run/agents/$site/agent.conf" >>"$run/agents/$site/log" 2>&1
    done
    tac "$run/pids" | while read -r pid _; do
        kill -0 "$pid" 2>/dev/null || continue
        kill -TERM "$pid" 2>/dev/null
        wait_for 15 pid_gone "$pid" || kill -KILL "$pid" 2>/dev/null
    done
    rm -f "$run/pids"
}
pid_gone() { [ ! -e "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }
