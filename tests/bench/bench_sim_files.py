#!/usr/bin/env python3
"""bench_sim_files DATA OUT: files for neargpu-sim from public data.

rtt_aws.csv     as it is (32 regions, measured p50)
rtt_jpn.csv     shortest paths of the JPN25 topology, both ways, and 0.1 ms within a city
nodes.csv       nodes_openb, without sites: neargpu-sim deals them out
nodes_few.csv   every 6th of those with GPUs
jobs.csv        jobs_openb_default with a profile each, drawn by the job's name (CRC-32):
                a sixth each ResNet-50, CosmoFlow, U-Net3D, BERT, Llama 2 70B LoRA, none
jobs_dense.csv  the same jobs submitted 200 times as fast: as it is, the trace uses
                at most 71 of the 6,212 GPUs at once, and nobody waits
prices.csv      by region, USD per GPU-hour: the lowest on-demand price over instances
                with that GPU, divided by their GPUs. A region that does not sell it: the
                GPU's median over regions times the region's price level (median over the
                GPUs it sells of price / median). V100M16 and V100M32 are V100; A10 and G2
                A10G; G3 A100 (the trace does not name G2 and G3); P100, never sold there,
                half a V100."""
import csv
import statistics
import sys
import zlib
from collections import defaultdict

data, out = sys.argv[1:3]
PROFILES = ["resnet50_a100", "cosmoflow_a100", "unet3d_a100", "bert_v100", "llama2_70b_lora_8xh100", ""]
DENSE, FEW = 200, 6
SOLD_AS = {"V100M16": ("NVIDIA V100", 1), "V100M32": ("NVIDIA V100", 1), "T4": ("NVIDIA T4", 1),
           "A10": ("NVIDIA A10G", 1), "G2": ("NVIDIA A10G", 1), "G3": ("NVIDIA A100", 1),
           "P100": ("NVIDIA V100", 0.5)}


def rows(name):
    with open(data + "/" + name, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def write(name, header, lines):
    with open(out + "/" + name, "w", newline="", encoding="utf-8") as f:
        w = csv.writer(f, lineterminator="\n")
        w.writerow(header)
        w.writerows(lines)


rtt = rows("rtt_aws_p50_ms.csv")
write("rtt_aws.csv", ["src", "dst", "rtt_ms"], [(r["src"], r["dst"], r["rtt_ms"]) for r in rtt])
regions = list(dict.fromkeys(r["src"] for r in rtt))

paths = [r for r in rows("japan_shortest_paths.csv") if r["network"] == "JPN25"]
cities = list(dict.fromkeys(c for r in paths for c in (r["a"], r["b"])))
write("rtt_jpn.csv", ["src", "dst", "rtt_ms"],
      [(c, c, "0.1") for c in cities] + [(r["a"], r["b"], r["min_rtt_ms"]) for r in paths] +
      [(r["b"], r["a"], r["min_rtt_ms"]) for r in paths])

nodes = [(r["node"], r["gpus"], r["gpu_model"]) for r in rows("nodes_openb.csv")]
write("nodes.csv", ["node", "gpus", "gpu_model"], nodes)
write("nodes_few.csv", ["node", "gpus", "gpu_model"], [n for n in nodes if int(n[1]) > 0][::FEW])

jobs = []
for r in rows("jobs_openb_default.csv"):
    profile = PROFILES[zlib.crc32(r["name"].encode()) % len(PROFILES)]
    jobs.append((r["name"], r["num_gpu"], r["gpu_spec"], int(r["creation_s"]), int(r["deletion_s"]), profile))
header = ["name", "num_gpu", "gpu_spec", "creation_s", "deletion_s", "profile"]
write("jobs.csv", header, jobs)
write("jobs_dense.csv", header, [(n, g, s, a // DENSE, a // DENSE + b - a, p) for n, g, s, a, b, p in jobs])

price = defaultdict(dict)  # GPU -> region -> USD per GPU-hour
for r in rows("prices_aws_gpu_by_region.csv"):
    if r["ondemand_usd_h"] and r["gpus"] and float(r["gpus"]) > 0 and r["region"] in regions:
        each = float(r["ondemand_usd_h"]) / float(r["gpus"])
        price[r["gpu"]][r["region"]] = min(each, price[r["gpu"]].get(r["region"], each))
median = {gpu: statistics.median(by.values()) for gpu, by in price.items()}


def level(region):
    ratios = [by[region] / median[gpu] for gpu, by in price.items() if region in by]
    return statistics.median(ratios) if ratios else 1.0


levels = {region: level(region) for region in regions}
write("prices.csv", ["site", "gpu_model", "price_per_gpu_hour"],
      [(region, model, "%.6f" % (part * price[gpu].get(region, median[gpu] * levels[region])))
       for region in regions for model, (gpu, part) in SOLD_AS.items()])
