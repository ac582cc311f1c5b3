#!/usr/bin/env bash
# agent_front: the agent's two processes as they really are: what the front can not do, that
# the warden has no network and jobs have one, and what happens when either is killed, or
# when the front says rubbish, while a job runs. Usage: agent_front.sh [BUILD_DIR]. Exit 77
# unless root.
set -uo pipefail
# shellcheck source=tests/system/node_lib.sh
. "$(dirname "$(readlink -f "$0")")/node_lib.sh"
node_needs
sites=fukuoka
front_of() { # front_of WARDEN: its front, the child that is no keeper
    local p
    for p in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        tr '\0' ' ' <"/proc/$p/cmdline" | grep -q '^/proc/self/exe front' && echo "$p"
    done
}
# Writes bytes into the front's own end of the link, as a front that was taken over could.
say_rubbish() { # say_rubbish FRONT HEX
    python3 - "$1" "$2" <<'PY'
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pidfd = libc.syscall(434, int(sys.argv[1]), 0)
fd = libc.syscall(438, pidfd, 3, 0)
if fd < 0:
    sys.exit("pidfd_getfd: " + os.strerror(ctypes.get_errno()))
os.write(fd, bytes.fromhex(sys.argv[2]))
PY
}

server_start || die "no server"
login admin "$run/server/admin.key"
site_prepare fukuoka || die "no node"
conf=$run/agents/fukuoka/agent.conf
state=$run/agents/fukuoka/state

# ---- before it runs: the confinement, tried
mkdir -p "$state/leases"
"$neargpu_agent" front-selftest --conf "$conf" >"$run/selftest"
is "the front may do none of what is tried" $? 0
sed 's/^/     /' "$run/selftest"
grep -q ALLOWED "$run/selftest" && bad "something was allowed"
is "and 30 things or more are tried" "$([ "$(grep -c ^refused: "$run/selftest")" -ge 30 ] && echo yes)" yes

agent_start fukuoka
up() { [ "$(as admin -o json provider nodes | jq '[.nodes[] | select(.state == "up")] | length')" = 1 ]; }
wait_for 30 up || die "the node does not come up"
warden=$agent_pid
front=$(front_of "$warden")
[ -n "$front" ] || die "no front"

# ---- as it runs
status_of() { awk -v k="$2:" '$1 == k {print $2; exit}' "/proc/$1/status"; }
is "the front is not root" "$([ "$(status_of "$front" Uid)" != 0 ] && echo yes)" yes
is "it has no capabilities" "$(status_of "$front" CapPrm)$(status_of "$front" CapEff)$(status_of "$front" CapBnd)" 000000000000000000000000000000000000000000000000
is "no new privileges" "$(status_of "$front" NoNewPrivs)" 1
is "a system call filter" "$(status_of "$front" Seccomp)" 2
is "it sees the host's network" "$(readlink "/proc/$front/ns/net")" "$(readlink /proc/self/ns/net)"
is "not the host's mounts" "$([ "$(readlink "/proc/$front/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ] && echo yes)" yes
is "an empty /dev" "$(ls -A "/proc/$front/root/dev")" ""
is "an empty state directory" "$(ls -A "/proc/$front/root$state")" ""
is "it holds no file of the state but its own directory" \
    "$(find "/proc/$front/fd" -lname "$state/*" -printf '%l\n' | grep -vE "^$state/(front|identity/ca.pem)$")" ""
is "the warden is root" "$(status_of "$warden" Uid)" 0
is "and has no network" "$(nsenter -t "$warden" -n cat /proc/net/dev | tail -n +3 | awk '{print $1}' | grep -v '^lo:')" ""
is "not even loopback" "$(nsenter -t "$warden" -n sh -c 'exec 3<>/dev/tcp/127.0.0.1/1' 2>&1 | head -c 0; nsenter -t "$warden" -n cat /proc/net/if_inet6 /proc/net/fib_trie 2>/dev/null)" ""
is "it listens to no port" "$(find "/proc/$warden/fd" -lname 'socket:*' | wc -l | awk '{print ($1 <= 8)}')" 1

# ---- a job
tenant_create lab 100
as lab -o json reserve --yes --gpu H100 --gpus 1 --for 5m >"$run/r.json" || die "no reservation"
r=$(jq -r .id "$run/r.json")
"$neargpu" --account lab run "$r" -- /bin/sh -c 'readlink /proc/self/ns/net; i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done' >"$run/out" 2>"$run/err" &
cli=$!
remember cli $cli
more() { [ "$(wc -l <"$run/out")" -gt "${1:-3}" ]; }
wait_for 20 more || die "the job does not run: $(cat "$run/err")"
is "the job has the host's network" "$(head -n 1 "$run/out")" "$(readlink /proc/self/ns/net)"
count() { "$neargpu_agent" leases --conf "$conf" | jq -r '.leases[0].state'; }
ticks() { find "$state/leases/$r/jobs" -name output -printf '%s\n' | head -n 1; }
goes_on() { # goes_on WHAT: the job writes on and its lease runs
    local at
    at=$(ticks)
    grown() { [ "$(ticks)" -gt "$at" ]; }
    wait_for 5 grown && [ "$(count)" = running ] && ok "$1" || bad "$1: $(count)"
}

signed() { [ -s "$state/spool/$r/acked" ]; }
wait_for 15 signed && ok "its receipt goes when the market has countersigned it" || bad "no countersign was good: $(ls "$state/spool/$r")"

# ---- the front is killed
another() { local f; f=$(front_of "$warden"); [ -n "$f" ] && [ "$f" != "$front" ]; }
kill -KILL "$front"
wait_for 10 another && ok "a front that is killed is followed by another" || die "no other front"
front=$(front_of "$warden")
goes_on "and its jobs go on"
lines=$(wc -l <"$run/out")
further() { more $((lines + 5)); }
wait_for 20 further && ok "and are heard on: the tenant's own command comes back to them" || bad "nothing more comes: $(tail -n 3 "$run/err")"

# ---- rubbish
for bytes in ff00000002 0100000002 "0400000003$(printf 'xyz' | xxd -p 2>/dev/null || printf 78797a)" 01ffffffff 0600000010; do
    before=$front
    say_rubbish "$front" "${bytes}7b7d7b7d7b7d7b7d7b7d7b7d7b7d7b7d" || bad "could not say rubbish"
    wait_for 15 another || bad "rubbish $bytes: the front goes on"
    front=$(front_of "$warden")
done
is "rubbish ends fronts, not the warden" "$([ "$(status_of "$warden" State)" != Z ] && kill -0 "$warden" && echo alive)" alive
goes_on "nor its jobs"
grep -q 'front .* ended (' "$run/agents/fukuoka/log" && ok "it is logged" || bad "not a word in the log"

# ---- the warden is killed
front=$(front_of "$warden")
kill -KILL "$warden"
front_gone() { pid_gone "$front"; }
wait_for 3 front_gone && ok "the front ends with its warden" || bad "front $front lives on"
goes_on "jobs do not"
agent_start fukuoka
warden=$agent_pid
has_front() { [ -n "$(front_of "$warden")" ]; }
wait_for 10 has_front && ok "a new run has a new front" || bad "no front"
goes_on "and finds the job again"

# ---- a front that is stopped does not keep the warden from its work
front=$(front_of "$warden")
kill -STOP "$front"
goes_on "a stopped front stops nothing"
kill -KILL "$warden"
wait_for 3 front_gone && ok "and ends with its warden all the same" || bad "front $front lives on"

kill -KILL "$cli" 2>/dev/null
node_done
