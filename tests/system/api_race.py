#!/usr/bin/env python3
"""Many clients, several servers, few GPUs: books, moves and cancels gangs through all servers at
once, keeps the history (when each request was sent and answered, and what was said), and
checks it against what the database has in the end:

 - each GPU is held by at most one reservation at any instant: of two grants that overlap
   on a GPU, one must have been given back or moved away before the other was answered (a
   linear order of the operations on that GPU exists);
 - what was granted and not given back is in the database with exactly the GPUs that were
   told, nothing else is there (no lost, no phantom reservation), and gangs are whole;
 - every request was answered: granted, refused with a reason, or repeated until known.

usage: api_race.py run CA KEY SECONDS CLIENTS SEED HISTORY ADDR...
       api_race.py check HISTORY ROWS     ROWS: reservation|gpu|from|to, a line each
"""
import http.client
import json
import random
import ssl
import sys
import threading
import time

BASE_S = 2 * 24 * 3600  # the contended hours lie two days ahead
HOURS = 3


def iso(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Client(threading.Thread):
    def __init__(self, number, setup):
        super().__init__(daemon=True)
        self.number, self.setup = number, setup
        self.random = random.Random(setup["seed"] * 1000 + number)
        self.addr = setup["addrs"][number % len(setup["addrs"])]
        self.conn, self.mine, self.history, self.serial = None, [], [], 0

    def ask(self, method, path, body, key):
        """Sent again with the same key until the outcome is known."""
        headers = {"Authorization": "Bearer " + self.setup["key"]}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        for _ in range(50):
            try:
                if self.conn is None:
                    host, port = self.addr.rsplit(":", 1)
                    self.conn = http.client.HTTPSConnection(host, int(port), timeout=60, context=self.setup["tls"])
                self.conn.request(method, path, None if body is None else json.dumps(body), headers)
                reply = self.conn.getresponse()
                said = json.loads(reply.read())
                if reply.status < 500:
                    return reply.status, said
            except (OSError, http.client.HTTPException, ValueError):
                self.conn = None
            time.sleep(0.05)
        return 0, {}

    def book(self):
        r, self.serial = self.random, self.serial + 1
        start = self.setup["base"] + 3600 * r.randrange(HOURS)
        body = {"duration": "1h", "start": iso(start), "gpus": r.choice([1, 2, 4]), "nodes": r.choice([1, 1, 2, 3])}
        if body["nodes"] > 1:
            body["together"] = r.choice(["site", "any"])
        sent = time.monotonic()
        status, said = self.ask("POST", "/v1/reservations", body, "race-%d-%d" % (self.number, self.serial))
        op = {"op": "book", "sent": sent, "done": time.monotonic(), "status": status, "nodes": body["nodes"], "gpus": body["gpus"]}
        if status in (200, 201):
            op["id"] = said["id"]
            self.keep(op, said)
            self.mine.append((said["id"], body["nodes"], body["gpus"]))
        else:
            op["code"] = said.get("code", "")
        self.history.append(op)

    @staticmethod
    def keep(op, said):
        op["got"] = sorted([g, a["start"], a["end"]] for a in said["allocations"] for g in a["gpus"])
        op["whole"] = len(said["allocations"]) == op["nodes"] and all(len(a["gpus"]) == op["gpus"] for a in said["allocations"])

    def move(self):
        chosen, nodes, gpus = self.random.choice(self.mine)
        start = self.setup["base"] + 3600 * self.random.randrange(HOURS)
        sent = time.monotonic()
        status, said = self.ask("POST", "/v1/reservations/" + chosen + "/move", {"start": iso(start)}, None)
        op = {"op": "move", "id": chosen, "sent": sent, "done": time.monotonic(), "status": status, "code": said.get("code", ""), "nodes": nodes, "gpus": gpus}
        if status == 200:
            self.keep(op, said)
        self.history.append(op)

    def cancel(self):
        chosen = self.mine.pop(self.random.randrange(len(self.mine)))[0]
        sent = time.monotonic()
        status, said = self.ask("DELETE", "/v1/reservations/" + chosen, None, None)
        self.history.append({"op": "cancel", "id": chosen, "sent": sent, "done": time.monotonic(), "status": status, "code": said.get("code", "")})

    def run(self):
        while time.monotonic() < self.setup["until"]:
            dice = self.random.random() if self.mine else 1
            if dice < 0.3:
                self.cancel()
            elif dice < 0.5:
                self.move()
            else:
                self.book()


def run(ca, key, seconds, clients, seed, out, addrs):
    threading.stack_size(512 * 1024)
    setup = {
        "key": open(key).read().strip(),
        "tls": ssl.create_default_context(cafile=ca),
        "addrs": addrs,
        "seed": int(seed),
        "base": int(time.time()) // 3600 * 3600 + BASE_S,
        "until": time.monotonic() + float(seconds),
    }
    setup["tls"].check_hostname = False
    crowd = [Client(i, setup) for i in range(int(clients))]
    for c in crowd:
        c.start()
    for c in crowd:
        c.join()
    with open(out, "w") as f:
        json.dump([op for c in crowd for op in c.history], f)


def check(history, rows):
    ops = json.load(open(history))
    booked = {op["id"]: op for op in ops if op["op"] == "book" and "id" in op}
    cancelled = {op["id"]: op for op in ops if op["op"] == "cancel" and op["status"] == 200}
    bad = []
    for op in ops:
        if op["status"] == 0 or (op["status"] not in (200, 201) and op["code"] not in ("no_fit", "conflict")):
            bad.append("not answered as it should: %s" % op)
        if "got" in op and not op["whole"]:
            bad.append("part of a gang: %s" % op)
    # The stays of each reservation, from the grant or move that began it to what ended it; one client's, so in order.
    stays, last, moves = [], {}, 0
    for op in sorted(ops, key=lambda op: op["done"]):
        if "got" not in op and not (op["op"] == "cancel" and op["status"] == 200):
            continue
        if op["id"] in last:
            last[op["id"]]["until"] = op
            moves += op["op"] == "move" and op["got"] != last[op["id"]]["got"]
        if op["op"] == "cancel":
            last[op["id"]]["gone"] = True
            continue
        last[op["id"]] = {"id": op["id"], "got": op["got"], "since": op}
        stays.append(last[op["id"]])
    per_gpu = {}
    for stay in stays:
        for gpu, start, end in stay["got"]:
            per_gpu.setdefault(gpu, []).append((start, end, stay))
    overlaps = 0
    for held in per_gpu.values():
        for i, (start, end, a) in enumerate(held):
            for start2, end2, b in held[i + 1:]:
                if start < end2 and start2 < end and a["id"] != b["id"]:
                    overlaps += 1
                    if not any("until" in x and x["until"]["sent"] < y["since"]["done"] for x, y in ((a, b), (b, a))):
                        bad.append("two at once: %s and %s" % (a["id"], b["id"]))
    stored = {}
    for line in open(rows):
        reservation, gpu, start, end = line.strip().split("|")
        stored.setdefault(reservation, []).append([gpu, start, end])
    kept = {i: stay["got"] for i, stay in last.items() if "gone" not in stay}
    for i in set(kept) | set(stored):
        if kept.get(i) != sorted(stored.get(i, [])):
            bad.append("%s: told %s, stored %s" % (i, kept.get(i), sorted(stored.get(i, []))))
    for line in bad[:10]:
        print(line, file=sys.stderr)
    refused = sum(1 for op in ops if op["op"] == "book" and "id" not in op)
    lost = sum(1 for op in ops if op.get("code") == "conflict")
    print("%d requests, %d granted, %d refused (%d lost races to the end), %d moved, %d given back, %d reuses of a GPU" % (
        len(ops), len(booked), refused, lost, moves, len(cancelled), overlaps), file=sys.stderr)
    print("ok" if not bad and booked and overlaps and moves else "bad")


if sys.argv[1] == "run":
    run(*sys.argv[2:8], sys.argv[8:])
else:
    check(*sys.argv[2:4])
