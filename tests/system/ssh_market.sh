#!/usr/bin/env bash
# ssh_market: a tenant's own SSH keys through a whole market: login and `neargpu key add`
# tell the server, the server tells the node with the lease, the node's agent tells
# Debian's sshd. `neargpu ssh` and plain ssh inside the lease, a key taken away, another
# tenant's key, after the end. The login user exists in a private mount namespace only.
# Usage: ssh_market.sh [BUILD_DIR]. Exit 77 unless root and sshd, jq and python3 are there.
set -uo pipefail
if [ -z "${NEARGPU_SSH_INSIDE:-}" ] && [ "$(id -u)" = 0 ] && command -v unshare >/dev/null; then
    NEARGPU_SSH_INSIDE=1 exec unshare --mount --propagation private "$0" "$@"
fi
# shellcheck source=tests/system/node_lib.sh
. "$(dirname "$(readlink -f "$0")")/node_lib.sh"
node_needs sshd ssh ssh-keygen python3 unshare
sites="n1"
user=neargpu-ssh
uid=64999
made_dir=
end_last() { [ -z "$made_dir" ] || rmdir /run/sshd 2>/dev/null; }

# ---- a login user of this namespace, sshd with the drop-in as it is shipped
for file in passwd group shadow; do
    cp -p /etc/$file "$run/$file"
    sed -i "/^$user:/d" "$run/$file"
done
echo "$user:x:$uid:$uid::/:/bin/sh" >>"$run/passwd"
echo "$user:x:$uid:" >>"$run/group"
echo "$user:*:19000::::::" >>"$run/shadow"
for file in passwd group shadow; do mount --bind "$run/$file" /etc/$file || die "bind $file"; done
mkdir -p "$run/bin"
install -m 755 "$build/client/agent/neargpu-agent" "$run/bin/neargpu-agent"
neargpu_agent=$run/bin/neargpu-agent
for key in host second other; do ssh-keygen -q -t ed25519 -N '' -C "$key" -f "$run/$key"; done
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
{
    cat <<TXT
ListenAddress 127.0.0.1:$port
HostKey $run/host
PidFile $run/sshd.pid
UsePAM no
StrictModes yes
LogLevel VERBOSE
TXT
    sed -e "s,/usr/sbin/neargpu-agent ssh-keys,$run/bin/neargpu-agent ssh-keys --socket $run/agents/n1/run/ssh.sock," \
        "$here/../../packaging/ssh/sshd_config.d/neargpu.conf"
} >"$run/sshd_config"
[ -d /run/sshd ] || { mkdir -m 755 /run/sshd && made_dir=1; }
"$(command -v sshd)" -D -f "$run/sshd_config" -E "$run/sshd.log" &
remember sshd $!

# ---- the market: one site, one node that takes ssh, two tenants
node_market "$run/dev/nvidia" 226 "ssh_user = $user
ssh_port = $port
ssh_host_key = $run/host.pub"
tenant_create rival 1000 || die "no second tenant"
near rival key add "$run/other.pub" 2>/dev/null || bad "key add of the other tenant"
is "login has added the account's own key" "$(near lab -o json key list | jq '.keys | length')" 1
jkt=$(near lab -o json key list | jq -r '.keys[0].jkt')

node_reserve 1
is "where the node takes ssh" "$(near lab -o json show "$id" | jq -r '.allocations[0].ssh | "\(.user) \(.port) \(.host_key)"')" "$user $port $(cat "$run/host.pub")"

# ---- inside
opens() { near lab ssh "$id" -- true; }
wait_for 30 opens || die "no way in: $(near lab ssh "$id" -- true 2>&1)"
is "neargpu ssh is in the lease" "$(near lab ssh "$id" -- 'echo $NEARGPU_RESERVATION; ls /dev | grep -c nvidia' 2>&1)" "$id"$'\n1'
near lab ssh "$id" -- 'exit 7'
is "its exit code" $? 7
# Plain ssh, with the account's key, a second one and the other tenant's.
near lab ssh "$id" --config >"$run/lab.conf" || bad "--config"
for key in second other; do
    sed "s,IdentityFile .*,IdentityFile $run/$key," "$run/lab.conf" >"$run/$key.conf"
done
plain() { # plain CONF COMMAND
    timeout 30 ssh -F "$run/$1.conf" -o BatchMode=yes -o LogLevel=ERROR -o ConnectTimeout=10 "$id" "$2" 2>&1
}
is "plain ssh" "$(plain lab 'echo in')" in
like "another tenant's key is refused" "$(plain other true)" "*Permission denied (publickey)*"
like "another tenant does not see it" "$(near rival ssh "$id" -- true 2>&1)" "*there is no reservation*"
like "a key not added is refused" "$(plain second true)" "*Permission denied (publickey)*"

# ---- keys come and go while the lease lasts
like "a private key is not sent" "$(near lab key add "$run/second" 2>&1)" "*private key*"
near lab key add "$run/second.pub" 2>/dev/null || bad "key add"
second_opens() { [ "$(plain second 'echo in')" = in ]; }
wait_for 30 second_opens && ok "a key that was added opens it" || bad "the second key opens nothing"
near lab key rm "$jkt" --yes 2>/dev/null || bad "key rm"
refused() { [[ $(plain "$1" true) == *"Permission denied (publickey)"* ]]; }
began=$(date +%s)
wait_for 30 refused lab && ok "the key taken away is refused ($(($(date +%s) - began)) s)" || bad "the key taken away still opens it"
is "the other key is not" "$(plain second 'echo in')" in

# ---- the end
near lab cancel "$id" --yes >/dev/null || bad "cancel"
wait_for 30 refused second && ok "after the end the key is refused" || bad "after the end: $(plain second true)"

node_done
