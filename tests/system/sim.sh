#!/usr/bin/env bash
# sim: neargpu-sim as users run it: known answers worked out by hand for each policy and
# way of waiting, refusals with file and line, both forms of traces, and random traces
# checked by sim_check.py, which shares nothing with the simulator.
# NEARGPU_SEED: first seed of the random traces. Prints libcheck's summary line.
set -uo pipefail
build=$NEARGPU_BUILD
here=$(dirname "$(readlink -f "$0")")
run=$(mktemp -d "${TMPDIR:-/tmp}/neargpu-sim.XXXXXX")
trap 'rm -rf "$run"' EXIT
trap 'exit 130' INT TERM
cd "$run" || exit 1
sim=$build/server/neargpu-sim
checks=0 failures=0

# is NAME GOT WANT
is() {
    checks=$((checks + 1))
    [ "$2" = "$3" ] && return 0
    failures=$((failures + 1))
    printf 'FAILED: %s\n--- got\n%s\n--- want\n%s\n' "$1" "$2" "$3" >&2
}
# replay [OPTION…]: over the files of this folder; sets $rc, $said.
replay() {
    rm -f place.csv out.json
    said=$("$sim" --nodes nodes.csv --jobs jobs.csv --rtt rtt.csv --place place.csv "$@" 2>&1 >out.json)
    rc=$?
}
placed() { tail -n +2 place.csv; }
figure() { jq -c "$1" out.json; }

# ---- known answers ----
# Slow-down of `lin` is 100 (R + 0.5 ms), at least 1: 1 in Tokyo and Osaka, 4 in Fukuoka.
cat >rtt.csv <<'X'
src,dst,rtt_ms
tokyo,tokyo,0.5
osaka,tokyo,9.5
fukuoka,tokyo,39.5
X
cat >nodes.csv <<'X'
node,cpu_milli,gpus,gpu_model,site
empty,1000,0,,tokyo
t1,1000,2,H100,tokyo
o1,1000,2,H100,osaka
f1,1000,2,H100,fukuoka
X
cat >prices.csv <<'X'
site,gpu_model,price_per_gpu_hour
tokyo,H100,3.5
osaka,H100,3
fukuoka,H100,1
fukuoka,B200,9
X
cat >profiles.csv <<'X'
profile,kind,demand_MBps_per_gpu,request_bytes,outstanding_per_gpu,startup_bytes,checkpoint_bytes,sync_bytes_per_s_compute,step_s
lin,stream,100,1000000,1,0,,,0.1
X
cat >jobs.csv <<'X'
submit_s,vc,duration_s,gpus,job,gpu_model,data,profile
0,x,3600,2,j1,,tokyo,lin
0,x,3600,1,j2,H100,tokyo,lin
600,x,1800,2,j3,A100|H100,tokyo,lin
600,x,3600,2,j4,,tokyo,lin
1200,x,600,1,j5,,tokyo,
X
market=(--prices prices.csv --profiles profiles.csv)
# answer POLICY WAIT FIGURES: PLACE without its header on standard input.
answer() {
    replay "${market[@]}" --policy "$1" --wait "$2"
    is "$1 $2: exit" "$rc $said" "0 "
    is "$1 $2: PLACE" "$(placed)" "$(cat)"
    is "$1 $2: figures" "$(figure '[.placed,.waited,.refused,.wait_p50_s,.wait_p99_s,.slowdown_mean,.effective_cost]')" "$3"
}
answer neargpu none '[4,0,1,0,0,1.75,14.083333]' <<'X'
j1,0,0,3600,osaka,o1,2,tokyo,9.5,1,3,6
j2,0,0,3600,tokyo,t1,1,tokyo,0.5,1,3.5,3.5
j3,600,600,7800,fukuoka,f1,2,tokyo,39.5,4,1,4
j5,1200,1200,1800,tokyo,t1,1,tokyo,0.5,1,3.5,0.583333
X
is "refusals are counted by reason" "$(figure .refused_reasons)" '{"busy":1}'
is "what was read" "$(figure '[.sites,.nodes,.gpus,.jobs,.skipped,.skipped_nodes,.seed,.policy,.wait]')" \
    '[3,3,6,5,0,1,1,"neargpu","none"]'
# 7,200 + 3,600 + 14,400 + 600 GPU-seconds of 6 GPUs for 7,800 s
is "utilisation" "$(figure '.utilisation * 1e6 | round')" 551282
answer neargpu fifo '[5,2,0,0,3000,1.6,20.083333]' <<'X'
j1,0,0,3600,osaka,o1,2,tokyo,9.5,1,3,6
j2,0,0,3600,tokyo,t1,1,tokyo,0.5,1,3.5,3.5
j3,600,600,7800,fukuoka,f1,2,tokyo,39.5,4,1,4
j4,600,3600,7200,osaka,o1,2,tokyo,9.5,1,3,6
j5,1200,3600,4200,tokyo,t1,1,tokyo,0.5,1,3.5,0.583333
X
answer neargpu backfill '[5,1,0,0,3000,1.6,20.083333]' <<'X'
j1,0,0,3600,osaka,o1,2,tokyo,9.5,1,3,6
j2,0,0,3600,tokyo,t1,1,tokyo,0.5,1,3.5,3.5
j3,600,600,7800,fukuoka,f1,2,tokyo,39.5,4,1,4
j4,600,3600,7200,osaka,o1,2,tokyo,9.5,1,3,6
j5,1200,1200,1800,tokyo,t1,1,tokyo,0.5,1,3.5,0.583333
X
answer nearest none '[4,0,1,0,0,1.75,14.5]' <<'X'
j1,0,0,3600,tokyo,t1,2,tokyo,0.5,1,3.5,7
j2,0,0,3600,osaka,o1,1,tokyo,9.5,1,3,3
j3,600,600,7800,fukuoka,f1,2,tokyo,39.5,4,1,4
j5,1200,1200,1800,osaka,o1,1,tokyo,9.5,1,3,0.5
X
answer nearest fifo '[5,2,0,0,3000,1.6,21.5]' <<'X'
j1,0,0,3600,tokyo,t1,2,tokyo,0.5,1,3.5,7
j2,0,0,3600,osaka,o1,1,tokyo,9.5,1,3,3
j3,600,600,7800,fukuoka,f1,2,tokyo,39.5,4,1,4
j4,600,3600,7200,tokyo,t1,2,tokyo,0.5,1,3.5,7
j5,1200,3600,4200,osaka,o1,1,tokyo,9.5,1,3,0.5
X
answer nearest backfill '[5,1,0,0,3000,1.6,21.5]' <<'X'
j1,0,0,3600,tokyo,t1,2,tokyo,0.5,1,3.5,7
j2,0,0,3600,osaka,o1,1,tokyo,9.5,1,3,3
j3,600,600,7800,fukuoka,f1,2,tokyo,39.5,4,1,4
j4,600,3600,7200,tokyo,t1,2,tokyo,0.5,1,3.5,7
j5,1200,1200,1800,osaka,o1,1,tokyo,9.5,1,3,0.5
X
answer cheapest none '[4,0,1,0,0,1.75,15]' <<'X'
j1,0,0,14400,fukuoka,f1,2,tokyo,39.5,4,1,8
j2,0,0,3600,osaka,o1,1,tokyo,9.5,1,3,3
j3,600,600,2400,tokyo,t1,2,tokyo,0.5,1,3.5,3.5
j5,1200,1200,1800,osaka,o1,1,tokyo,9.5,1,3,0.5
X
answer cheapest fifo '[5,2,0,0,1800,1.6,22]' <<'X'
j1,0,0,14400,fukuoka,f1,2,tokyo,39.5,4,1,8
j2,0,0,3600,osaka,o1,1,tokyo,9.5,1,3,3
j3,600,600,2400,tokyo,t1,2,tokyo,0.5,1,3.5,3.5
j4,600,2400,6000,tokyo,t1,2,tokyo,0.5,1,3.5,7
j5,1200,2400,3000,osaka,o1,1,tokyo,9.5,1,3,0.5
X
answer cheapest backfill '[5,1,0,0,1800,1.6,22]' <<'X'
j1,0,0,14400,fukuoka,f1,2,tokyo,39.5,4,1,8
j2,0,0,3600,osaka,o1,1,tokyo,9.5,1,3,3
j3,600,600,2400,tokyo,t1,2,tokyo,0.5,1,3.5,3.5
j4,600,2400,6000,tokyo,t1,2,tokyo,0.5,1,3.5,7
j5,1200,1200,1800,osaka,o1,1,tokyo,9.5,1,3,0.5
X
is "PLACE's header" "$(head -n 1 place.csv)" \
    "job,submit_s,start_s,end_s,site,node,gpus,data,rtt_ms,slowdown,price_per_gpu_hour,effective"
replay "${market[@]}"
is "what is not said: neargpu, none, seed 1" "$(figure '[.policy,.wait,.seed]')" '["neargpu","none",1]'

# ---- refusals ----
# refuses NAME FILE TEXT WANT: with FILE made of TEXT; the other files are good.
refuses() {
    cp "$2" kept
    printf "$3" >"$2"
    replay "${market[@]}"
    is "refusal: $1" "$rc $said" "2 neargpu-sim: $4"
    is "refusal: $1: nothing is written" "$(ls place.csv 2>/dev/null)" ""
    cp kept "$2"
}
refuses "empty" jobs.csv '' 'jobs.csv:1: the file is empty: a header line is missing'
refuses "column missing" jobs.csv 'submit_s,gpus\n0,1\n' 'jobs.csv:1: column duration_s is missing'
refuses "openb column missing" jobs.csv 'num_gpu,creation_s,deletion_s\n1,0,1\n' 'jobs.csv:1: column gpu_spec is missing'
refuses "column twice" jobs.csv 'submit_s,gpus,duration_s,gpus\n0,1,1,1\n' 'jobs.csv:1: column gpus stands there twice'
refuses "too few fields" jobs.csv 'submit_s,duration_s,gpus\n0,1,1\n0,1\n' 'jobs.csv:3: 2 fields, the header has 3'
refuses "too many fields" jobs.csv 'submit_s,duration_s,gpus\n0,1,1,1\n' 'jobs.csv:2: 4 fields, the header has 3'
refuses "empty line" jobs.csv 'submit_s,duration_s,gpus\n\n0,1,1\n' 'jobs.csv:2: an empty line'
refuses "negative" jobs.csv 'submit_s,duration_s,gpus\n-1,1,1\n' "jobs.csv:2: submit_s is '-1', expected a number 0..100000000000"
refuses "no number" jobs.csv 'submit_s,duration_s,gpus\n0,nan,1\n' "jobs.csv:2: duration_s is 'nan', expected a number 0..100000000000"
refuses "half a GPU" jobs.csv 'submit_s,duration_s,gpus\n0,1,0.5\n' "jobs.csv:2: gpus is '0.5', expected a whole number 0..1000000"
refuses "trailing text" jobs.csv 'submit_s,duration_s,gpus\n0,1s,1\n' "jobs.csv:2: duration_s is '1s', expected a number 0..100000000000"
refuses "a job twice" jobs.csv 'job,submit_s,duration_s,gpus\na,0,1,1\nb,0,1,1\na,0,1,0\n' "jobs.csv:4: job 'a' stands there twice"
refuses "unknown data" jobs.csv 'submit_s,duration_s,gpus,data\n0,1,1,kyoto\n' "jobs.csv:2: data 'kyoto' is no site of the RTT matrix"
refuses "unknown profile" jobs.csv 'submit_s,duration_s,gpus,profile\n0,1,1,resnet50_h100\n' "jobs.csv:2: profile 'resnet50_h100' is not known"
refuses "empty alternative" jobs.csv 'submit_s,duration_s,gpus,gpu_model\n0,1,1,A||B\n' "jobs.csv:2: gpu_model 'A||B' has an empty part"
refuses "ends before it begins" jobs.csv 'num_gpu,gpu_spec,creation_s,deletion_s\n1,,5,4\n' 'jobs.csv:2: deletion_s is before creation_s'
refuses "open quote" jobs.csv 'submit_s,duration_s,gpus\n0,1,1\n0,1,"1\n' 'jobs.csv:3: a quote is not closed'
refuses "quote inside" jobs.csv 'submit_s,duration_s,gpus\n0,1"",1\n' 'jobs.csv:2: a quote inside a field that does not begin with one'
refuses "text after a quote" jobs.csv 'submit_s,duration_s,gpus\n0,"1"0,1\n' 'jobs.csv:2: text after a closing quote'
refuses "lone CR" jobs.csv 'submit_s,duration_s,gpus\n0,1\r,1\n' 'jobs.csv:2: a CR without LF'
refuses "NUL" jobs.csv 'submit_s,duration_s,gpus\n0,1\0,1\n' 'jobs.csv:2: a NUL byte: this is no CSV file'
refuses "line of a row after a quoted line end" jobs.csv 'job,submit_s,duration_s,gpus,x\na,0,1,1,"y\nz"\nb,0,x,1,y\n' \
    "jobs.csv:4: duration_s is 'x', expected a number 0..100000000000"
refuses "a node twice" nodes.csv 'node,gpus,gpu_model\na,1,X\na,2,X\n' "nodes.csv:3: node 'a' stands there twice"
refuses "a node without model" nodes.csv 'node,gpus,gpu_model\na,1,\n' 'nodes.csv:2: gpu_model is empty'
refuses "too many GPUs" nodes.csv 'node,gpus,gpu_model\na,65,X\n' "nodes.csv:2: gpus is '65', expected a whole number 0..64"
refuses "a site without RTT" nodes.csv 'node,gpus,gpu_model,site\na,1,X,kyoto\n' "nodes.csv:2: site 'kyoto' is not in the RTT matrix"
refuses "no GPU at all" nodes.csv 'node,gpus,gpu_model\na,0,\n' 'nodes.csv:2: no node has a GPU'
refuses "a pair twice" rtt.csv 'src,dst,rtt_ms\na,b,1\nb,a,1\na,b,2\n' 'rtt.csv:4: a to b stands there twice'
refuses "RTT negative" rtt.csv 'src,dst,rtt_ms\na,b,-1\n' "rtt.csv:2: rtt_ms is '-1', expected a number 0..3600000"
refuses "no RTT" rtt.csv 'src,dst,rtt_ms\n' 'rtt.csv:1: no row: without a site there is no market'
refuses "a price twice" prices.csv 'site,gpu_model,price_per_gpu_hour\ntokyo,H100,1\ntokyo,H100,1\n' 'prices.csv:3: H100 of tokyo stands there twice'
refuses "a price that is none" prices.csv 'site,gpu_model,price_per_gpu_hour\ntokyo,H100,\n' "prices.csv:2: price_per_gpu_hour is '', expected a number 0..1000000000"
refuses "a profile twice" profiles.csv "$(cat profiles.csv)\n$(tail -n 1 profiles.csv)\n" "profiles.csv:3: profile 'lin' stands there twice"
refuses "unknown kind" profiles.csv "$(sed s/stream/steam/ profiles.csv)\n" "profiles.csv:2: kind is 'steam', which the slow-down model does not know"
rm -f out.json
"$sim" --nodes nodes.csv --jobs absent.csv --rtt rtt.csv >/dev/null 2>said
is "a file that is not there" "$? $(grep -c absent.csv said)" "5 1"
for bad in "--policy near" "--wait long" "--seed -1" "--seed 1x" "--sed 1"; do
    # shellcheck disable=SC2086
    replay $bad
    is "usage: $bad" "$rc" 2
done
replay --place /nowhere/place.csv
is "usage: --place twice" "$rc" 2
"$sim" --nodes nodes.csv --jobs jobs.csv --rtt rtt.csv "${market[@]}" --place nowhere/place.csv >/dev/null 2>&1
is "PLACE cannot be written" "$?" 1

# ---- forms and rules ----
printf 'src,dst,rtt_ms\r\n"a",b,10\r\nb,"a, or ""b""",10\r\n' >rtt.csv
printf '\xef\xbb\xbfnode,gpus,gpu_model\r\n"n,1",2,X\r\nnone,0,\r\nn2,2,W\r\nn3,2,Y\r\nn4,4,Y' >nodes.csv
printf 'name,num_gpu,gpu_milli,gpu_spec,qos,creation_s,deletion_s\np0,1,460,,LS,10,20\np1,0,0,,LS,5,7\np2,2,1000,X|Z,BE,7,9\np3,1,1000,Z,BE,7,9\np4,5,1000,Y,BE,7,7\n' >jobs.csv
replay
is "openb: exit" "$rc $said" "0 "
is "openb: fractions count one, rows without GPUs are skipped, quotes are kept" \
    "$(placed | sed 's/,[^,]*,[^,]*,[^,]*,[^,]*,[^,]*$//' | grep -v '^p0')" 'p2,7,7,9,a,"n,1",2'
is "openb: a fraction is one GPU" "$(placed | grep -c '^p0,10,10,20,.*,1,')" 1
is "openb: figures" "$(figure '[.jobs,.placed,.refused,.skipped,.skipped_nodes,.refused_reasons]')" \
    '[4,2,2,1,1,{"model":1,"too_few_nodes":1}]'
printf 'src,dst,rtt_ms\na,b,10\n' >rtt.csv
cat >nodes.csv <<'X'
node,gpus,gpu_model,site
n1,2,X,a
n2,2,X,b
n3,2,X,b
n4,2,X,b
n5,1,X,b
m1,1,Y,b
X
cat >jobs.csv <<'X'
submit_s,duration_s,gpus,gpu_model,data,profile
0,10,1,Y,a,resnet50_h100
0,10,1,Y,a,
0,10,1,Y,b,resnet50_h100
X
replay --wait fifo
is "an RTT that nobody knows, one to itself" "$(figure '[.placed,.refused_reasons]') $(placed | tr '\n' ' ')" \
    '[2,{"no_rtt":1}] 2,0,0,10,b,m1,1,a,,1,1,0.002778 3,0,10,20,b,m1,1,b,0,1,1,0.002778 '
cat >jobs.csv <<'X'
submit_s,duration_s,gpus,data,profile
0,3600,5,b,resnet50_h100
1,3600,1,b,resnet50_h100
2,3600,3,b,resnet50_h100
3,3600,7,b,
X
for wait in fifo backfill; do
    replay --wait $wait
    is "$wait: a gang takes whole nodes of one site" "$(placed | cut -d, -f1-5,7- | sort | uniq -c | tr -s ' ')" \
        " 3 1,0,0,3600,b,2,b,0,1,1,2
 1 2,1,1,3601,b,1,b,0,1,1,1
 2 3,2,3600,7200,b,2,b,0,1,1,2"
    is "$wait: a gang that no site holds" "$(figure .refused_reasons)" '{"too_few_nodes":1}'
done
printf 'site,gpu_model,price_per_gpu_hour\na,X,2\n' >prices.csv
printf 'submit_s,duration_s,gpus,gpu_model,data,profile\n0,3600,1,X|Y,b,\n0,3600,1,,b,resnet50_h100\n0,1,1,Y,b,\n' >jobs.csv
replay --prices prices.csv
# 204.75 MB/s wanted; 8 x 256 KiB in flight over 10.5 ms give 199.729 MB/s: 1.025140
is "only what has a price is sold" "$(placed | tr '\n' ' ')$(figure .refused_reasons)" \
    '1,0,0,3600,a,n1,1,b,10,1,2,2 2,0,0,3690.504,a,n1,1,b,10,1.02514,2,2.05028 {"no_price":1}'
# 2 of 4 GPUs come free that are no neighbours.
printf 'node,gpus,gpu_model\nn,4,X\n' >nodes.csv
printf 'src,dst,rtt_ms\na,a,0\n' >rtt.csv
printf 'submit_s,duration_s,gpus\n0,9,1\n0,5,1\n0,9,1\n0,5,1\n6,1,2\n' >jobs.csv
for wait in none fifo backfill; do
    replay --wait $wait
    is "$wait: any free GPUs of a node serve" "$(placed | tail -n 1)" "5,6,6,7,a,n,2,a,0,1,1,0.000556"
    replay --wait $wait --fixed-gpus
    is "$wait: neighbours only, as the market books" "$(placed | tail -n 1 | cut -d, -f1-4)" \
        "$([ $wait = none ] && echo 4,0,0,5 || echo 5,6,9,10)"
done
printf 'submit_s,duration_s,gpus\n0,5,4\n5,5,4\n5,5,1\n10,5,1\n' >jobs.csv
replay
is "at one instant ends come before submissions" "$(placed | cut -d, -f1-4 | tr '\n' ' ')" "1,0,0,5 2,5,5,10 4,10,10,15 "
printf 'submit_s,duration_s,gpus\n' >jobs.csv
for wait in none fifo backfill; do
    replay --wait $wait
    is "$wait: an empty trace" "$rc $(placed)$(figure '[.jobs,.placed,.wait_p99_s,.slowdown_mean,.utilisation,.matches]')" "0 [0,0,0,0,0,0]"
done

# ---- determinism ----
# same NAME A B: two runs say the same, but for what is named ns_.
same() { is "$1" "$(jq -cS 'with_entries(select(.key | startswith("ns_") | not))' "$2/out.json")$(cat "$2/place.csv")" \
    "$(jq -cS 'with_entries(select(.key | startswith("ns_") | not))' "$3/out.json")$(cat "$3/place.csv")"; }
seed=${NEARGPU_SEED:-$((RANDOM * 32768 + RANDOM))}
echo "seed $seed"
mkdir a b c
python3 "$here/sim_trace.py" "$seed" . gangs
cut -d, -f1-5 jobs.csv >drawn.csv # the data is drawn
for policy in neargpu random; do
    for seed_of in "a $seed" "b $seed" "c $((seed + 1))"; do
        read -r dir with <<<"$seed_of"
        "$sim" --nodes nodes.csv --jobs drawn.csv --rtt rtt.csv --policy $policy --wait fifo --seed "$with" \
            --place "$dir/place.csv" >"$dir/out.json"
    done
    same "$policy: the same seed, the same answer" a b
    is "$policy: another seed, another answer" "$(cmp -s a/place.csv c/place.csv && echo same)" ""
done
is "the drawn data does not depend on the policy" "$(
    for policy in nearest random; do
        "$sim" --nodes nodes.csv --jobs drawn.csv --rtt rtt.csv --policy $policy --wait fifo --seed 5 \
            --place $policy.csv >/dev/null
        cut -d, -f1,8 $policy.csv | sort -u | md5sum
    done | uniq | wc -l)" 1

# ---- random traces ----
for at in $(seq "$seed" $((seed + 3))); do
    python3 "$here/sim_trace.py" "$at" . $([ $((at % 2)) = 0 ] && echo gangs)
    for policy in neargpu nearest cheapest random; do
        for wait in none fifo backfill; do
            replay "${market[@]}" --policy $policy --wait $wait --seed "$at"
            [ $rc = 0 ] && said=$(python3 "$here/sim_check.py" . $policy $wait exact)
            is "trace $at $policy $wait" "$? $(sed s/waited=.*// <<<"$said")" "0 later=0 "
        done
    done
    # What comes later changes nothing for those before: without the last half of the
    # trace the first half goes where it went.
    { head -n 1 jobs.csv; tail -n +2 jobs.csv | sort -t, -s -k1,1g; } >sorted.csv
    mv sorted.csv jobs.csv
    replay "${market[@]}" --wait backfill
    mv place.csv whole.csv
    head -n 21 jobs.csv >half.csv
    mv half.csv jobs.csv
    replay "${market[@]}" --wait backfill
    is "trace $at: nobody is delayed by who comes later" "$(cat place.csv)" "$(head -n "$(wc -l <place.csv)" whole.csv)"
done
printf '100%%: Checks: %d, Failures: %d, Errors: 0\n' "$checks" "$failures"
[ "$failures" = 0 ]
