#!/usr/bin/env bash
# up BUILD_DIR up|down: the demo's market left running to play with, or ended and removed.
set -uo pipefail
build=$1
command=$2
[ "$(id -u)" = 0 ] || exec sudo -E "$0" "$@"
here=$(dirname "$(readlink -f "$0")")
export PATH="$PATH:/usr/sbin:/sbin"
run=/srv/neargpu-up
# shellcheck source=tests/system/market.sh
. "$here/market.sh"

if [ "$command" = down ]; then
    [ -d $run ] || { echo "up: no market is running ($run is not there)"; exit 0; }
    market_stop
    rm -rf $run
    echo "up: stopped and removed"
    exit 0
fi
[ ! -e $run ] || { echo "up: $run is there: a market is up already; ./dev down ends it" >&2; exit 1; }
mkdir -m 755 $run
fail() {
    echo "up: $*" >&2
    market_stop
    rm -rf $run
    exit 1
}
server_start || fail "neargpud did not start"
billd_start
login admin $run/server/admin.key || fail "login failed"
for site in $sites; do
    site_prepare "$site" || fail "enrolment of $site failed"
    agent_start "$site"
done
wait_for 30 nodes_up 3 || fail "the nodes did not sync"
NEARGPU_STAY=1 data_start || fail "the data endpoint did not start"
tenant_create kagaku-lab 1000 || fail "no tenant"
as kagaku-lab data add genome-tokyo --endpoint "$data_url" --site tokyo >/dev/null || fail "no data set"
cat <<TXT
A market is up: $server_url (three sites, 24 simulated H100, data set genome-tokyo). To play with it:

  export NEARGPU_CONFIG_DIR=$NEARGPU_CONFIG_DIR NEARGPU_ACCOUNT=kagaku-lab
  alias neargpu=$neargpu

  neargpu offers --near genome-tokyo --gpu H100 --gpus 8 --for 4h --profile resnet50_h100
  neargpu reserve --near genome-tokyo --gpu H100 --gpus 1 --for 10m
  neargpu run ID -- /bin/sh -c 'ls -l /dev; id'
  neargpu --account admin admin status

Logs are in $run. ./dev down ends and removes it.
TXT
