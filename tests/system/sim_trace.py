#!/usr/bin/env python3
"""sim_trace SEED DIR [gangs]: a random small market and trace for neargpu-sim in DIR.

Prices and round trips differ, so that a choice is seldom a tie; submissions fall on the
same second often, ends meet starts, and the market is too small for the trace."""
import random
import sys

seed, where = int(sys.argv[1]), sys.argv[2]
gangs = len(sys.argv) > 3
rng = random.Random(seed)
sites = ["site%d" % i for i in range(rng.randint(1, 4))]
models = ["A", "B"]


def write(name, header, lines):
    with open(where + "/" + name, "w") as f:
        f.write("\n".join([header] + lines) + "\n")


pairs = [(a, b) for a in sites for b in sites if a == b or rng.random() < 0.95]
write("rtt.csv", "src,dst,rtt_ms",
      ["%s,%s,%g" % (a, b, 0.2 if a == b else rng.randint(1000, 60000) / 1000) for a, b in pairs] +
      ["nowhere,%s,50" % s for s in sites])
nodes = ["n%d,%d,%s,%s" % (i, rng.choice([0, 2, 4, 8]), rng.choice(models), rng.choice(sites))
         for i in range(rng.randint(2, 10))]
write("nodes.csv", "node,gpus,gpu_model,site", nodes + ["last,8,A," + sites[0]])
write("prices.csv", "site,gpu_model,price_per_gpu_hour",
      ["%s,%s,%g" % (s, m, rng.randint(50, 400) / 100) for s in sites for m in models
       if m == "A" or rng.random() < 0.9])
write("profiles.csv",
      "profile,kind,demand_MBps_per_gpu,request_bytes,outstanding_per_gpu,startup_bytes,"
      "checkpoint_bytes,sync_bytes_per_s_compute,step_s",
      ["few_large,stream,3177.103,146600628,4,0,0,0,0.3", "many_small,stream,204.75,262144,8,0,0,0,0.2",
       "middle,stream,808.139,2828486,4,0,0,0,0.0035"])
jobs, at = [], 0
sizes = [0, 1, 1, 1, 2, 2, 3, 4, 8] + ([12, 16] if gangs else [])
for i in range(rng.randint(20, 80)):
    at += rng.choice([0, rng.randint(0, 20)])
    jobs.append("%g,%g,%d,j%d,%s,%s,%s" % (
        at + rng.choice([0, 0.25]), rng.choice([0, 0.5, rng.randint(1, 200)]), rng.choice(sizes), i,
        rng.choice(["", "A", "B", "A|B"]), rng.choice(sites),
        rng.choice(["", "few_large", "many_small", "middle"])))
rng.shuffle(jobs)
write("jobs.csv", "submit_s,duration_s,gpus,job,gpu_model,data,profile", jobs)
