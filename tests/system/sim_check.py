#!/usr/bin/env python3
"""sim_check DIR POLICY WAIT: is DIR/place.csv (with DIR/out.json) a right answer of
neargpu-sim to DIR/{nodes,jobs,rtt}.csv and, if there, profiles.csv and prices.csv?

Written from the documents alone, with counts of free GPUs per node and plain scans: it
shares no code and no data structure with the simulator. Jobs must name their data and
either no profile or one of kind stream. Prints the first breach and exits 1."""
import csv
import json
import sys
from collections import defaultdict

EPS = 2e-6


def fail(text):
    print("sim_check: " + text)
    sys.exit(1)


def rows(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def optional(path):
    try:
        return rows(path)
    except FileNotFoundError:
        return None


where, policy, wait = sys.argv[1:4]
exact_backfill = len(sys.argv) > 4 and sys.argv[4] == "exact"

rtt, sites = {}, []
for r in rows(where + "/rtt.csv"):
    rtt[r["src"], r["dst"]] = float(r["rtt_ms"])
    for s in (r["src"], r["dst"]):
        if s not in sites:
            sites.append(s)
for s in sites:
    rtt.setdefault((s, s), 0.0)

nodes = {}
for r in rows(where + "/nodes.csv"):
    if int(r["gpus"]) > 0:
        site = r.get("site") or sites[len(nodes) % len(sites)]
        nodes[r["node"]] = (site, r["gpu_model"], int(r["gpus"]))
size_of = defaultdict(int)  # (site, model) -> GPUs of its largest node
for site, model, gpus in nodes.values():
    size_of[site, model] = max(size_of[site, model], gpus)

price_rows = optional(where + "/prices.csv")
prices = None
if price_rows is not None:
    prices = {(r["site"], r["gpu_model"]): float(r["price_per_gpu_hour"]) for r in price_rows}
profiles = {r["profile"]: r for r in optional(where + "/profiles.csv") or []}


def price(site, model):
    return 1.0 if prices is None else prices.get((site, model))


def slowdown(profile, ms):
    """stream: max(1, d/X), X = D q / (R + t_s), t_s = 0.5 ms; both grow with the GPUs."""
    if not profile:
        return 1.0
    p = profiles[profile]
    demand = float(p["demand_MBps_per_gpu"]) * 1e6
    supply = float(p["outstanding_per_gpu"]) * float(p["request_bytes"]) / (ms / 1000 + 0.0005)
    return max(1.0, demand / supply)


class Job:
    pass


jobs, skipped = [], 0
for at, r in enumerate(rows(where + "/jobs.csv"), 1):
    j = Job()
    openb = "num_gpu" in r
    j.gpus = int(r["num_gpu" if openb else "gpus"])
    if j.gpus == 0:
        skipped += 1
        continue
    j.submit = float(r["creation_s" if openb else "submit_s"])
    j.length = float(r["deletion_s"]) - j.submit if openb else float(r["duration_s"])
    wish = r.get("gpu_spec" if openb else "gpu_model") or ""
    j.models = set(wish.split("|")) if wish else None
    j.name = r.get("name" if openb else "job") or str(at)
    j.data, j.profile = r.get("data"), r.get("profile")
    j.order = at
    jobs.append(j)
jobs.sort(key=lambda j: (j.submit, j.order))

placed = defaultdict(list)
for r in rows(where + "/place.csv"):
    placed[r["job"]].append(r)
if len({j.name for j in jobs} | set(placed)) != len(jobs):
    fail("place.csv names a job that the trace does not have")


def places(j):
    """What could ever serve the job: (site, model) -> (nodes, GPUs each, slow-down, price)."""
    fits = {k: v for k, v in size_of.items()
            if (j.models is None or k[1] in j.models) and price(*k) is not None}
    if not fits:
        return {}
    gang = j.gpus > max(fits.values())
    out = {}
    for (site, model), size in fits.items():
        ms = rtt.get((site, j.data))
        if ms is None and j.profile:
            continue
        each = size if gang else j.gpus
        count = -(-j.gpus // size) if gang else 1
        have = sum(1 for s, m, g in nodes.values() if (s, m) == (site, model) and g >= each)
        if have >= count:
            slow = 1.0 if ms is None else slowdown(j.profile, ms)
            out[site, model] = (count, each, slow, price(site, model), ms)
    return out


def near(a, b):
    return abs(a - b) <= EPS * max(1.0, abs(a), abs(b))


# ---- each row for itself ----
booked = defaultdict(list)  # node -> [(start, end, gpus, job order index)]
for index, j in enumerate(jobs):
    j.index, j.places, j.rows = index, places(j), placed.get(j.name, [])
    if not j.rows:
        continue
    first = j.rows[0]
    j.start, j.end = float(first["start_s"]), float(first["end_s"])
    j.at = (first["site"], nodes[first["node"]][1])
    if j.at not in j.places:
        fail(f"job {j.name}: {j.at} cannot serve it")
    count, each, slow, cost, ms = j.places[j.at]
    if len(j.rows) != count or len({r["node"] for r in j.rows}) != count:
        fail(f"job {j.name}: {len(j.rows)} nodes, expected {count}")
    for r in j.rows:
        node_site, model, size = nodes[r["node"]]
        same = (r["site"], model, r["start_s"], r["end_s"]) == \
            (first["site"], j.at[1], first["start_s"], first["end_s"])
        if not same or node_site != r["site"]:
            fail(f"job {j.name}: rows of one job differ, or {r['node']} is not at {r['site']}")
        if int(r["gpus"]) != each or (count > 1 and size != each):
            fail(f"job {j.name}: {r['gpus']} GPUs on {r['node']}, expected {each}")
        if r["data"] != j.data or not near(float(r["submit_s"]), j.submit):
            fail(f"job {j.name}: data or submission differ from the trace")
        if (r["rtt_ms"] == "") != (ms is None) or (ms is not None and abs(float(r["rtt_ms"]) - ms) > 0.00051):
            fail(f"job {j.name}: RTT {r['rtt_ms']}, expected {ms}")
        # The RTT is kept in whole microseconds.
        if abs(float(r["slowdown"]) - slow) > 1e-4 * slow:
            fail(f"job {j.name}: slow-down {r['slowdown']}, expected {slow}")
        if not near(j.end - j.start, j.length * float(r["slowdown"])):
            fail(f"job {j.name}: {j.end - j.start} s is not {j.length} s x {r['slowdown']}")
        if not near(float(r["price_per_gpu_hour"]), cost):
            fail(f"job {j.name}: price {r['price_per_gpu_hour']}, expected {cost}")
        if not near(float(r["effective"]), cost * each * (j.end - j.start) / 3600):
            fail(f"job {j.name}: effective {r['effective']}")
        if j.end > j.start:
            booked[r["node"]].append((j.start, j.end, each, index))
    if j.start < j.submit:
        fail(f"job {j.name} starts before it is submitted")

# ---- capacity at every instant ----
for node, list_ in booked.items():
    events = sorted([(s, 1, g) for s, e, g, _ in list_] + [(e, 0, -g) for s, e, g, _ in list_])
    used = 0
    for _, _, g in events:
        used += g
        if used > nodes[node][2]:
            fail(f"{node} holds {used} GPUs, has {nodes[node][2]}")


def room(j, at, before):
    """Places with room for j at the instant, given the jobs of which before(index) holds."""
    free = {n: v[2] - sum(g for s, e, g, i in booked[n] if s <= at < e and before(i))
            for n, v in nodes.items()}
    out = []
    for key, (count, each, slow, cost, ms) in j.places.items():
        have = sum(1 for n, v in nodes.items() if (v[0], v[1]) == key and free[n] >= each)
        if have >= count:
            out.append(key)
    return out


def score(j, key):
    count, each, slow, cost, ms = j.places[key]
    if policy == "neargpu":
        return cost * slow * count * each
    if policy == "nearest":
        return float("inf") if ms is None else ms
    return cost if policy == "cheapest" else 0.0


def check_choice(j, at, before):
    here = room(j, at, before)
    if j.at not in here:
        fail(f"job {j.name}: {j.at} has no room at {at}")
    best = min(score(j, k) for k in here)
    mine = score(j, j.at)
    if mine > best and not near(mine, best) and not mine - best <= 1e-4 * best:
        fail(f"job {j.name} at {at}: {j.at} scores {mine}, there is {best}")


def free_during(j, key, at, before):
    """Nodes of the place with room during all of the job's time there."""
    count, each, slow, cost, ms = j.places[key]
    end = at + max(j.length * slow, 1e-6)
    have = 0
    for n, v in nodes.items():
        if (v[0], v[1]) != key:
            continue
        list_ = [b for b in booked[n] if before(b[3]) and b[0] < end and at < b[1]]
        peak = max((sum(g for s, e, g, _ in list_ if s <= t < e)
                    for t in [at] + [s for s, _, _, _ in list_ if s > at]), default=0)
        have += v[2] - peak >= each
    return have >= count


later = 0
previous = None
ends = sorted({e for l in booked.values() for _, e, _, _ in l})
for j in jobs:
    if not j.rows:
        if not j.places:
            continue
        if wait != "none":
            fail(f"job {j.name} is refused though it could wait")
        if room(j, j.submit, lambda i: i < j.index):
            fail(f"job {j.name} is refused though there is room")
        continue
    if wait == "none":
        if not near(j.start, j.submit):
            fail(f"job {j.name} waits")
        check_choice(j, j.start, lambda i: i < j.index)
    elif wait == "fifo":
        if previous is not None and j.start < previous.start:
            fail(f"job {j.name} passes {previous.name}")
        check_choice(j, j.start, lambda i: i < j.index)
        turn = max(j.submit, previous.start) if previous is not None else j.submit
        for t in [turn] + [e for e in ends if turn < e < j.start]:
            if t < j.start - 1e-6 and room(j, t, lambda i: i < j.index):
                fail(f"job {j.name} could start at {t}, starts at {j.start}")
        previous = j
    else:
        # Earliest start that leaves everybody before it alone.
        before = lambda i: i < j.index
        for t in [j.submit] + [e for e in ends if j.submit < e]:
            if t >= j.start - 1e-6:
                break
            if any(free_during(j, k, t, before) for k in j.places):
                later += 1
                if exact_backfill:
                    fail(f"job {j.name} could start at {t}, starts at {j.start}")
                break
        if near(j.start, j.submit):
            here = [k for k in j.places if free_during(j, k, j.start, before)]
            best = min(score(j, k) for k in here)
            mine = score(j, j.at)
            if mine > best * (1 + 1e-4):
                later += 1
                if exact_backfill:
                    fail(f"job {j.name}: {j.at} scores {mine}, there is {best}")

# ---- the figures ----
with open(where + "/out.json") as f:
    out = json.load(f)
good = [j for j in jobs if j.rows]
waits = sorted(j.start - j.submit for j in good)


def percentile(p):
    return waits[-(-len(waits) * p // 100) - 1] if waits else 0


want = {"jobs": len(jobs), "placed": len(good), "refused": len(jobs) - len(good), "skipped": skipped,
        "waited": sum(1 for w in waits if w > 5e-7), "wait_p50_s": percentile(50), "wait_p99_s": percentile(99),
        "gpus": sum(v[2] for v in nodes.values()),
        "effective_cost": sum(float(r["effective"]) for j in good for r in j.rows)}
if good:
    want["slowdown_mean"] = sum(float(j.rows[0]["slowdown"]) for j in good) / len(good)
    span = max(j.end for j in good) - min(j.submit for j in jobs)
    used = sum((j.end - j.start) * int(r["gpus"]) for j in good for r in j.rows)
    want["utilisation"] = used / span / want["gpus"] if span > 0 else 0
for key, value in want.items():
    if not near(out[key], value):
        fail(f"out.json: {key} is {out[key]}, expected {value}")
if sum(out["refused_reasons"].values()) != out["refused"]:
    fail("out.json: refused_reasons do not add up")
print(f"later={later} waited={out['waited']} refused={out['refused']}")
