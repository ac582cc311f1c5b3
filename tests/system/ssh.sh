#!/usr/bin/env bash
# ssh: Debian's sshd on loopback, with the drop-in that is shipped, in front of the
# agent's own leases on the real kernel (ssh_rig): shell, commands, scp, sftp, rsync,
# forwarding by policy, foreign keys, before and after the window, one use of a ticket.
# The login user exists in a private mount namespace only: /etc/passwd is not touched.
# Usage: ssh.sh [BUILD_DIR]. Exit 77 unless root and sshd, rsync and python3 are there.
set -uo pipefail
build=${1:-${NEARGPU_BUILD_DIR:-$PWD}}
build=$(readlink -f "$build")
here=$(dirname "$(readlink -f "$0")")
export PATH="$PATH:/usr/sbin:/sbin"
[ "$(id -u)" = 0 ] || { echo "ssh: needs root for leases and sshd"; exit 77; }
for program in sshd ssh scp sftp rsync python3 unshare; do
    command -v $program >/dev/null || { echo "ssh: $program is not installed"; exit 77; }
done
if [ -z "${NEARGPU_SSH_INSIDE:-}" ]; then
    NEARGPU_SSH_INSIDE=1 exec unshare --mount --propagation private "$0" "$build"
fi
run=$(mktemp -d /srv/neargpu-ssh.XXXXXX)
chmod 755 "$run"
user=neargpu-ssh
uid=64999
pids=()
made_dir=
finish() {
    local status=$? pid
    trap - EXIT INT TERM
    exec 7>&- 8<&-
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null; done
    [ ! -e "$run/agent.conf" ] || "$build/client/agent/neargpu-agent" cleanup --conf "$run/agent.conf" >/dev/null 2>&1
    [ -z "$made_dir" ] || rmdir /run/sshd 2>/dev/null
    [ -n "${NEARGPU_SSH_KEEP:-}" ] || rm -rf "$run"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

failed=0
ok() { echo "ok: $*"; }
bad() {
    echo "FAILED: $*"
    failed=$((failed + 1))
}
is() { # is WHAT GOT WANTED
    if [ "$2" = "$3" ]; then ok "$1"; else bad "$1: '$2', not '$3'"; fi
}
like() { # like WHAT GOT PATTERN
    # shellcheck disable=SC2053 # a pattern is meant
    if [[ $2 == $3 ]]; then ok "$1"; else bad "$1: '$2' is not like '$3'"; fi
}
die() {
    bad "$*"
    tail -n 20 "$run"/*.log 2>/dev/null
    exit 1
}
wait_for() { # wait_for SECONDS COMMAND…
    local end=$(($(date +%s) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        sleep 0.05
    done
}

# ---- a login user of this namespace, keys, device nodes
for file in passwd group shadow; do
    cp -p /etc/$file "$run/$file"
    sed -i "/^$user:/d" "$run/$file"
done
echo "$user:x:$uid:$uid::/:/bin/sh" >>"$run/passwd"
echo "$user:x:$uid:" >>"$run/group"
echo "$user:*:19000::::::" >>"$run/shadow"
for file in passwd group shadow; do mount --bind "$run/$file" /etc/$file || die "bind $file"; done
mkdir -p "$run/bin" "$run/dev" "$run/home"
install -m 755 "$build/client/agent/neargpu-agent" "$run/bin/neargpu-agent"
for key in host alice bob; do ssh-keygen -q -t ed25519 -N '' -C "$key" -f "$run/$key"; done
for i in 0 1 2; do mknod -m 666 "$run/dev/nvidia$i" c 242 $((240 + i)); done
python3 - "$run" >"$run/gpus.json" <<'PY'
import json, sys
print(json.dumps({"gpus": [{"uuid": f"GPU-ssh-{i}", "model": "H100-SXM5-80GB", "memory_mib": 81559,
    "device": f"{sys.argv[1]}/dev/nvidia{i}", "major": 242, "minor": 240 + i} for i in range(3)]}))
PY
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

conf() { # conf FORWARD
    cat >"$run/agent.conf" <<TXT
state_dir = $run/state
runtime_dir = $run/run
inventory = sim
sim_file = $run/gpus.json
ssh_user = $user
ssh_forward = $1
ssh_port = $port
ssh_host_key = $run/host.pub
TXT
}
rig_start() {
    rm -f "$run/in" "$run/out"
    mkfifo "$run/in" "$run/out"
    "$build/tests/system/ssh_rig" "$run/agent.conf" "$run/gpus.json" <"$run/in" >"$run/out" 2>>"$run/rig.log" &
    rig_pid=$!
    pids+=($rig_pid)
    exec 7>"$run/in" 8<"$run/out"
    wait_for 10 test -S "$run/run/ssh.sock" || die "no ssh.sock"
}
order() {
    local answer
    echo "$*" >&7
    read -r -t 10 answer <&8 || die "the rig does not answer"
    [ "$answer" = ok ] || { bad "order $*: $answer"; return 1; }
}

# ---- the drop-in as it is shipped, but for its program and socket
{
    cat <<TXT
ListenAddress 127.0.0.1:$port
HostKey $run/host
PidFile $run/sshd.pid
UsePAM no
StrictModes yes
LogLevel VERBOSE
Subsystem sftp /usr/lib/openssh/sftp-server
TXT
    sed -e "s,/usr/sbin/neargpu-agent ssh-keys,$run/bin/neargpu-agent ssh-keys --socket $run/run/ssh.sock," \
        "$here/../../packaging/ssh/sshd_config.d/neargpu.conf"
} >"$run/sshd_config"
[ -d /run/sshd ] || { mkdir -m 755 /run/sshd && made_dir=1; }
"$(command -v sshd)" -t -f "$run/sshd_config" || die "sshd refuses the drop-in"
"$(command -v sshd)" -D -f "$run/sshd_config" -E "$run/sshd.log" &
pids+=($!)
echo "[127.0.0.1]:$port $(cut -d' ' -f1,2 "$run/host.pub")" >"$run/known"
opts=(-F none -o "UserKnownHostsFile=$run/known" -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR -o ConnectTimeout=10)
key=alice
# The orders' pipes are not for those that go on in the background.
near() { timeout 30 ssh "${opts[@]}" -i "$run/$key" -p "$port" "$@" 7>&- 8<&-; }
node=$user@127.0.0.1

res() { echo "019307d0-7b3a-7c3e-8a5b-0123456789$1"; }
conf none
rig_start
wait_for 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" || die "sshd does not listen"

# ---- before the window
like "before the window the key is refused" "$(near "$node" true 2>&1)" "*Permission denied (publickey)*"

# ---- inside
order lease "$(res 01)" GPU-ssh-0 600 "$run/alice.pub"
is "a command" "$(near "$node" 'echo hello; id -u')" $'hello\n65534'
near "$node" 'exit 7'
is "its exit code" $? 7
near "$node" 'kill -9 $$'
is "128 + signal" $? 137
near "$node" 'echo out; echo err >&2' >"$run/o" 2>"$run/e"
is "output and errors stay apart" "$(cat "$run/o")/$(cat "$run/e")" out/err
is "standard input" "$(echo in | near "$node" 'cat; echo end')" $'in\nend'
head -c 3000000 /dev/urandom >"$run/big"
near "$node" cat <"$run/big" | cmp - "$run/big" && ok "3 MB there and back" || bad "3 MB differ"
is "the lease's environment" "$(near "$node" 'echo $NEARGPU_RESERVATION $CUDA_VISIBLE_DEVICES; pwd')" "$(res 01) GPU-ssh-0"$'\n/run/neargpu/work'
is "only its device is there" "$(near "$node" 'ls /dev | grep nvidia')" nvidia0
like "its device is let through to the driver" "$(near "$node" 'cat /dev/nvidia0' 2>&1)" "*No such device or address*"
like "another's device is not" "$(near "$node" "cat $run/dev/nvidia1" 2>&1)" "*[Pp]er*"
near "$node" 'exec sleep 4711' &
bg=$!
wait_for 5 pgrep -xf 'sleep 4711' || bad "no sleep"
like "it is in the lease's cgroup" "$(cat "/proc/$(pgrep -xf 'sleep 4711')/cgroup" | tr '\n' ' ')" "*$(res 01)*"

# ---- a ticket is good once, and only as it was made
session=$(pgrep -f "^$run/bin/neargpu-agent ssh-session" | head -n 1)
ticket=$(tr '\0' '\n' <"/proc/$session/cmdline" | tail -n 1)
again() { setpriv --reuid $uid --regid $uid --clear-groups "$run/bin/neargpu-agent" ssh-session --socket "$run/run/ssh.sock" -- "$1" </dev/null 2>&1; }
like "a ticket is good once" "$(again "$ticket")" "*the ticket was used*"
last=${ticket: -2:1}
like "a forged ticket" "$(again "${ticket%??}$([ "$last" = A ] && echo B || echo A)${ticket: -1}")" "*ticket*"
like "no ticket" "$(again AAAA)" "*this is no ticket*"
like "another user cannot ask" "$(setpriv --reuid 65534 --regid 65534 --clear-groups "$run/bin/neargpu-agent" ssh-session --socket "$run/run/ssh.sock" -- "$ticket" 2>&1)" "*Permission denied*"
like "keys are told to sshd's child only" "$("$run/bin/neargpu-agent" ssh-keys --socket "$run/run/ssh.sock" $user $(cut -d' ' -f1,2 "$run/alice.pub") 2>&1)" "*not started by sshd*"
kill "$(pgrep -P $bg)"
wait $bg 2>/dev/null

# ---- a terminal
cat >"$run/term.py" <<'PY'
import fcntl, os, pty, re, select, struct, sys, termios, time
def size(fd, rows, cols): fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
pid, fd = pty.fork()
if pid == 0:
    time.sleep(0.2)
    os.execvp(sys.argv[1], sys.argv[1:])
size(fd, 33, 111)
seen = b""
def expect(pattern, seconds=15):
    global seen
    end = time.time() + seconds
    while not re.search(pattern, seen):
        if time.time() > end or not select.select([fd], [], [], max(0, end - time.time()))[0]:
            sys.exit("not seen: %r in %r" % (pattern, seen))
        try: seen += os.read(fd, 65536)
        except OSError: break
    if not re.search(pattern, seen): sys.exit("ended before %r: %r" % (pattern, seen))
    seen = seen[re.search(pattern, seen).end():]
def type_(text): os.write(fd, text.encode())
type_("stty size; echo $TERM; tty\n")
expect(rb"33 111\r\n"); expect(rb"dumb\r\n"); expect(rb"/dev/pts/\d+\r\n")
size(fd, 20, 60); time.sleep(0.3); type_("stty size\n"); expect(rb"20 60\r\n")
type_("sleep 100\n"); time.sleep(0.5); type_("\x03"); type_("echo st''atus $?\n"); expect(rb"status 130\r\n")
type_("exit 9\n")
while True:
    try:
        if not os.read(fd, 65536): break
    except OSError: break
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
PY
is "a shell with a terminal: size, changed size, ^C, exit code" \
    "$(TERM=dumb timeout 60 python3 "$run/term.py" ssh "${opts[@]}" -i "$run/alice" -p "$port" "$node" 2>&1 | tail -n 1)" 9

# ---- files
cp_opts=("${opts[@]}" -i "$run/alice" -P "$port")
timeout 30 scp -q "${cp_opts[@]}" "$run/big" "$node:there" && timeout 30 scp -q "${cp_opts[@]}" "$node:there" "$run/back" && cmp "$run/big" "$run/back" && ok "scp" || bad "scp"
timeout 30 scp -q -O "${cp_opts[@]}" "$run/big" "$node:there2" && timeout 30 scp -q -O "${cp_opts[@]}" "$node:there2" "$run/back2" && cmp "$run/big" "$run/back2" && ok "scp, the old way" || bad "scp -O"
printf 'put %s there3\nget there3 %s\nls\n' "$run/big" "$run/back3" | timeout 30 sftp -q -b - "${cp_opts[@]}" "$node" >/dev/null && cmp "$run/big" "$run/back3" && ok "sftp" || bad "sftp"
mkdir "$run/tree" && cp "$run/big" "$run/term.py" "$run/tree"
timeout 30 rsync -a -e "ssh ${opts[*]} -i $run/alice -p $port" "$run/tree/" "$node:tree/" && timeout 30 rsync -a -e "ssh ${opts[*]} -i $run/alice -p $port" "$node:tree/" "$run/tree2/" && diff -r "$run/tree" "$run/tree2" && ok "rsync" || bad "rsync"
is "what came is the lease's, not the host's" "$(near "$node" 'ls /run/neargpu/work')" $'there\nthere2\nthere3\ntree'

# ---- pinned as `neargpu ssh` does it: one host key, of nobody's files
pinned() { # pinned KEYFILE COMMAND
    timeout 30 ssh -F none -o BatchMode=yes -o LogLevel=ERROR -o HostKeyAlias=neargpu-x -o HostKeyAlgorithms=ssh-ed25519 \
        -o "KnownHostsCommand=/bin/echo neargpu-x $(cut -d' ' -f1,2 "$1")" -o UserKnownHostsFile=/dev/null -o GlobalKnownHostsFile=/dev/null \
        -o StrictHostKeyChecking=yes -o UpdateHostKeys=no -o ControlPath=none -o IdentitiesOnly=yes -i "$run/alice" -p "$port" "$node" "$2" 7>&- 8<&-
}
is "the market's host key" "$(pinned "$run/host.pub" 'echo in' 2>&1)" in
like "another host key" "$(pinned "$run/bob.pub" 'echo in' 2>&1)" "*Host key verification failed*"

# ---- a key that an SSH agent holds, named by its public half
ssh-agent -D -a "$run/held.sock" >/dev/null 2>&1 7>&- 8<&- &
pids+=($!)
wait_for 5 test -S "$run/held.sock"
SSH_AUTH_SOCK=$run/held.sock ssh-add -q "$run/alice"
cut -d' ' -f1,2 "$run/alice.pub" >"$run/held" && chmod 600 "$run/held"
is "a key in an SSH agent" "$(SSH_AUTH_SOCK=$run/held.sock key=held near "$node" 'echo in' 2>&1)" in

# ---- others
like "the key of another tenant is refused" "$(key=bob near "$node" true 2>&1)" "*Permission denied (publickey)*"
like "forwarding is off: -L" "$(near -o ExitOnForwardFailure=yes -W "127.0.0.1:$port" "$node" 2>&1 </dev/null)" "*stdio forwarding failed*"
like "forwarding is off: -R" "$(near -o ExitOnForwardFailure=yes -R 0:127.0.0.1:22 "$node" true 2>&1)" "*remote port forwarding failed*"

# ---- several leases of one key
order lease "$(res 12)" GPU-ssh-1 600 "$run/bob.pub" "$run/alice.pub"
like "several leases: which?" "$(near "$node" true 2>&1)" "neargpu: *several leases*: $(res 12), $(res 01)"
is "this one" "$(near -o SetEnv=NEARGPU_RES="$(res 12)" "$node" 'echo $CUDA_VISIBLE_DEVICES' 2>&1)" GPU-ssh-1
is "the other" "$(near -o SetEnv=NEARGPU_RES="$(res 0)" "$node" 'echo $CUDA_VISIBLE_DEVICES' 2>&1)" GPU-ssh-0
like "one that is not there" "$(near -o SetEnv=NEARGPU_RES=ffff "$node" true 2>&1)" "neargpu: the key opens no lease ffff here"
is "bob has one lease: his" "$(key=bob near "$node" 'echo $NEARGPU_RESERVATION')" "$(res 12)"
like "and not alice's" "$(key=bob near -o SetEnv=NEARGPU_RES="$(res 01)" "$node" true 2>&1)" "neargpu: the key opens no lease *"
order holders "$(res 12)" "$run/bob.pub"
is "a key that was taken away opens nothing" "$(near "$node" 'echo $NEARGPU_RESERVATION')" "$(res 01)"

# ---- the status of the market is too old: nothing starts
order stale
like "no start with a stale status" "$(near "$node" true 2>&1)" "neargpu: *"
order fresh
is "and again with a fresh one" "$(near "$node" 'echo yes' 2>&1)" yes

# ---- whoever hangs up takes his session with him
(timeout 60 ssh "${opts[@]}" -tt -i "$run/alice" -p "$port" "$node" 'exec sleep 4712' </dev/null >/dev/null 2>&1 & echo $! >"$run/hang.pid"; wait)&
wait_for 5 pgrep -xf 'sleep 4712' || bad "no sleep to hang up"
kill -KILL "$(pgrep -P "$(cat "$run/hang.pid")" ssh || cat "$run/hang.pid")" "$(cat "$run/hang.pid")" 2>/dev/null
gone() { ! pgrep -xf "$1"; }
wait_for 5 gone 'sleep 4712' && ok "hung up" || bad "the session outlives its user"

# ---- the end: from the lease, and from the market
order lease "$(res 23)" GPU-ssh-2 4 "$run/bob.pub"
key=bob
began=$(date +%s%N)
out=$(near -o SetEnv=NEARGPU_RES="$(res 23)" "$node" 'echo started; exec sleep 100' 2>&1)
is "at the end: exit code" $? 137
is "at the end: one clear line" "$out" $'started\nneargpu: the lease has ended, and this session with it'
took=$((($(date +%s%N) - began) / 1000000))
[ $took -lt 6000 ] && ok "the session ended with the lease (${took} ms)" || bad "it took $took ms"
like "after the window" "$(near -o SetEnv=NEARGPU_RES="$(res 23)" "$node" true 2>&1)" "neargpu: the key opens no lease*"
near "$node" 'exec sleep 4713' >"$run/revoked" 2>&1 &
bg=$!
wait_for 5 pgrep -xf 'sleep 4713' || bad "no sleep to revoke"
order end "$(res 12)" revoked
wait $bg
is "revoked" "$(cat "$run/revoked")" "neargpu: the lease was revoked, and this session with it"
like "after the end the key is refused" "$(near "$node" true 2>&1)" "*Permission denied (publickey)*"
key=alice

# ---- the agent restarts: sessions go on, the keys are remembered; ports by policy
near "$node" 'sleep 2; echo still here' >"$run/still" 2>&1 &
bg=$!
sleep 0.5
exec 7>&- 8<&-
wait "$rig_pid"
like "without the agent nobody comes in" "$(near "$node" true 2>&1)" "*Permission denied*"
conf local
rig_start
is "after a restart the keys are known" "$(near "$node" 'echo in')" in
wait $bg
is "a session outlives the agent's restart" "$(cat "$run/still")" "still here"
near "$node" 'exec python3 -u -c "
import socket
s = socket.create_server((\"0.0.0.0\", 0)); print(s.getsockname()[1])
while True:
    c = s.accept()[0]; c.sendall(b\"from the job\"); c.close()"' >"$run/served" 2>&1 &
serving=$!
wait_for 5 test -s "$run/served" || bad "no server in the job: $(cat "$run/served")"
at=$(cat "$run/served")
is "forwarding to the node's loopback" "$(near -W "127.0.0.1:$at" "$node" </dev/null)" "from the job"
like "but to no other host" "$(near -W "127.0.0.2:$at" "$node" 2>&1 </dev/null)" "*stdio forwarding failed*"
like "and none the other way" "$(near -o ExitOnForwardFailure=yes -R 0:127.0.0.1:22 "$node" true 2>&1)" "*remote port forwarding failed*"
near -N -L "$run/home/sock:127.0.0.1:$at" "$node" &
bg=$!
wait_for 5 test -S "$run/home/sock" || bad "no forwarding"
is "a connection of forwarding alone" "$(python3 -c 'import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(99).decode())' "$run/home/sock")" "from the job"
order end "$(res 01)" stopped
began=$(date +%s)
wait $bg
[ $(($(date +%s) - began)) -le 8 ] && ok "it ends with the lease too" || bad "forwarding outlived the lease"
wait $serving
like "stopped" "$(tail -n 1 "$run/served")" "neargpu: the lease was stopped*"

[ $failed = 0 ] || { tail -n 30 "$run/rig.log" "$run/sshd.log"; echo "$failed failed"; exit 1; }
echo "ssh: all held"
