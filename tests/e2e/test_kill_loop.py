"""The main proof: SIGKILL of the server and its worker, again and again, under load; nothing that was
acknowledged is lost, doubled or stranded.

    HEADRACE_KILLS=200 HEADRACE_SEED=… pytest tests/e2e/test_kill_loop.py      longer, or once more

Safety phase: client threads submit, read, cancel and follow tasks while the killer works. Liveness phase:
the kills stop, and everything must end within LIVENESS_S. Then every task is read twice, listed, and once
more after a restart. The checker judges what was seen. The seed decides what is done, not when.
"""

import contextlib
import json
import os
import random
import signal
import threading
import time

from checker import Checker
from server import TERMINAL, Client, Lost, Server, free_port, headrace, kill, nonce, wait_until

KILLS = int(os.environ.get("HEADRACE_KILLS", "50"))
SEED = int(os.environ.get("HEADRACE_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
CLIENTS = 3
CALM_MS = (20, 2000)  # between a start and the next kill
LIVENESS_S = 60

# Small limits, so that each is met: segments rotate and are folded every few seconds, leases of a killed
# server's worker end soon, a task outlives as many lost workers as it takes.
CONFIG = """
log:
  segment_size: 256KiB
limits:
  worker_losses_max: 255
timeouts:
  lease: 2s
  ping: 1s
retry:
  backoff_first: 50ms
  backoff_max: 500ms
"""


class History:
    """Operations of all threads, as checker.py describes them."""

    def __init__(self, path):
        self.path, self.lock, self.operations = path, threading.Lock(), []

    def add(self, op, client, start, **more):
        o = {"op": op, "client": client, "start": start, "end": time.monotonic()} | more
        with self.lock:
            self.operations.append(o)

    def verdict(self):
        with open(self.path, "w") as f:
            for o in self.operations:
                f.write(json.dumps(o) + "\n")
        checker = Checker()
        for o in self.operations:
            checker.add(o)
        return checker.verdict(), checker.summary()


# ---- load -----------------------------------------------------------------------------------------

def make_task(chance, who, number):
    """(body, expected ends). The input names its task, so that no two are the same."""
    name = f"{who}-{number}"
    body = {"model": "echo", "input": {"of": name}, "metadata": {"nonce": f"{name}-{nonce()[:8]}"},
            "max_attempts": 20}
    expect = {"succeeded", "canceled"}  # clients cancel any of theirs
    kind = chance.choices(("plain", "sleep", "units", "retry", "final", "crash", "delay", "deadline"),
                          (30, 25, 12, 10, 5, 0.1, 10, 7))[0]
    if kind == "plain":
        body["input"] = chance.choice([body["input"], [name, None, True, -1, 2.5e-3, "ümläut"], name,
                                       body["input"] | {"pad": "x" * chance.randrange(2000)}])
    if kind in ("sleep", "units"):
        body["input"]["sleep_ms"] = chance.randrange(5, 51)
    if kind == "units":
        body["input"] |= {"sleep_ms": chance.randrange(20, 200), "units": chance.randrange(2, 9)}
    if kind in ("retry", "final", "crash"):
        body["input"]["fail"] = {"retry": "retryable"}.get(kind, kind)
    if kind in ("retry", "crash"):
        body["input"]["fail_attempts"] = [1]
    if kind == "final":
        expect = {"failed", "canceled"}
    if kind == "delay":
        body["delay_s"] = chance.choice([0.1, 0.5, 2, 3.25])
    if kind == "deadline":
        body["deadline_s"] = chance.choice([0.2, 1, 5, 600])
        expect |= {"expired"}
    if chance.random() < 0.3:
        body["priority"] = chance.choice(["critical", "standard", "batch"])
    return body, sorted(expect)


class Load(threading.Thread):
    """One client that does whatever its chance says until told to stop; then it asks again for what it has
    no answer for yet, where a key makes that safe."""

    def __init__(self, who, endpoint, history, stop):
        super().__init__(name=who, daemon=True)
        self.who, self.history, self.stop = who, history, stop
        self.chance = random.Random(f"{SEED}-{who}")
        self.http = Client(endpoint, timeout=15)
        self.number, self.ids, self.unknown, self.kept = 0, [], [], []
        self.failure = None

    def run(self):
        try:
            while not self.stop.is_set():
                self.step()
            end = time.monotonic() + LIVENESS_S
            while self.unknown:
                assert time.monotonic() < end, f"{len(self.unknown)} submits were never answered"
                self.again()
        except Exception as e:  # told by the main thread
            self.failure = e
        finally:
            self.http.close()

    def step(self):
        what = self.chance.random()
        if what < 0.06 and self.unknown:
            self.again()
        elif what < 0.09 and self.kept:  # a repeat of what was accepted long ago
            self.submit(*self.chance.choice(self.kept))
        elif what < 0.55 or not self.ids:
            self.number += 1
            body, expect = make_task(self.chance, self.who, self.number)
            key = f"{self.who}-{self.number}-{nonce()}" if self.chance.random() < 0.6 else None
            self.submit(body, expect, key)
        elif what < 0.85:
            id = self.chance.choice(self.ids[-200:])
            self.read(id, "?wait=1" if self.chance.random() < 0.05 else "")
        elif what < 0.93:
            self.cancel(self.chance.choice(self.ids[-8:]))
        else:
            time.sleep(self.chance.random() / 5)

    def again(self):
        self.submit(*self.unknown.pop(0))

    def submit(self, body, expect, key):
        start = time.monotonic()
        said = {"nonce": body["metadata"]["nonce"], "key": key, "input": body["input"], "expect": expect,
                "delay_s": body.get("delay_s", 0), "deadline_s": body.get("deadline_s")}
        try:
            r = self.http.post("/v1/tasks", body, headers={"Idempotency-Key": f'"{key}"'} if key else None)
        except Lost:
            self.history.add("submit", self.who, start, outcome="unknown", task=None, **said)
            if key:
                self.unknown.append((body, expect, key))
            time.sleep(0.02)
            return
        if r.status == 503:
            self.history.add("submit", self.who, start, outcome="refused", task=None, **said)
            assert r.headers.get("retry-after"), r
            return
        task = r.expect(202).json
        self.history.add("submit", self.who, start, outcome="accepted", task=task, **said)
        self.ids.append(task["id"])
        if key:
            self.kept.append((body, expect, key))

    def read(self, id, query=""):
        start = time.monotonic()
        with contextlib.suppress(Lost):
            task = self.http.get(f"/v1/tasks/{id}{query}").expect(200).json
            self.history.add("read", self.who, start, task=task)

    def cancel(self, id):
        start = time.monotonic()
        try:
            r = self.http.post(f"/v1/tasks/{id}/cancel")
        except Lost:
            self.history.add("cancel", self.who, start, id=id, outcome="unknown")
            return
        r.expect(200, 409, 503)
        self.history.add("cancel", self.who, start, id=id, outcome="ok" if r.status == 200 else "refused")
        if r.status == 200:
            self.history.add("read", self.who, start, task=r.json)


class Follower(threading.Thread):
    """Follows one task after another by their events, across every kill, by Last-Event-ID."""

    def __init__(self, loads, endpoint, history, stop):
        super().__init__(name="follower", daemon=True)
        self.loads, self.history, self.stop = loads, history, stop
        self.chance = random.Random(f"{SEED}-follower")
        self.http = Client(endpoint)
        self.followed, self.failure = 0, None

    def run(self):
        try:
            while not self.stop.is_set():
                ids = self.chance.choice(self.loads).ids
                if ids:
                    self.follow(self.chance.choice(ids[-20:]))
                time.sleep(0.01)
        except Exception as e:
            self.failure = e

    def follow(self, id):
        last, over, end = None, False, None
        while not over:
            if self.stop.is_set():  # while things break, a task may take as long as it takes
                end = end or time.monotonic() + LIVENESS_S
                assert time.monotonic() < end, f"{id} did not end in its event stream (last event {last})"
            start = time.monotonic()
            with contextlib.suppress(Lost), self.http.events(id, last, timeout=5) as events:
                if events.status == 204:  # nothing comes after the last one we have
                    return
                assert events.status in (200, 503), events.status
                for e in events:
                    last = e.id
                    if e.name == "status":
                        seq = int(e.id.split(".")[0])
                        self.history.add("event", self.name, start, id=id, seq=seq, status=e.data["status"],
                                         attempt=e.data["attempt"], stream=f"f{self.followed}")
                        over = e.data["status"] in TERMINAL
            if not over:
                time.sleep(0.05)
        self.followed += 1


# ---- faults ---------------------------------------------------------------------------------------

def break_things(server, history, chance, check):
    """KILLS SIGKILLs: of the server (its worker dies with it), and of the worker alone, in turn."""
    done = {"server": 0, "worker": 0, "while starting": 0}
    ready = True
    for i in range(KILLS):
        time.sleep(chance.uniform(*CALM_MS) / 1000)
        check()
        start = time.monotonic()
        workers = server.workers() if i % 2 else []
        if workers:
            kill(workers[0])
            done["worker"] += 1
        else:
            server.kill()
            done["server"] += 1
            done["while starting"] += not ready
            server.launch()
            ready = chance.random() < 0.75  # sometimes the next kill comes before it is ready
            if ready:
                server.wait_ready()
        history.add("fault", "killer", start, what="worker" if workers else "server")
    if not ready:
        server.wait_ready()
    return done


def drain(http, history):
    """The liveness phase: everything ends, within the bound."""
    start = time.monotonic()
    while True:
        left = http.list(status="queued,running", limit=200)
        if not left:
            return time.monotonic() - start
        assert time.monotonic() - start < LIVENESS_S, \
            f"{len(left)} task(s) did not end {LIVENESS_S} s after the last fault, such as {left[:3]}"
        time.sleep(0.2)


def look_at_all(http, history, who, ids):
    start = time.monotonic()
    history.add("list", who, start, tasks=http.list(limit=200))
    for id in ids:
        start = time.monotonic()
        history.add("read", who, start, task=http.task(id))


def test_fifty_kills_under_load(tmp_path):
    print(f"\nHEADRACE_KILLS={KILLS} HEADRACE_SEED={SEED}")
    chance = random.Random(SEED)
    history = History(tmp_path / "history.jsonl")
    stop = threading.Event()
    with Server(tmp_path, CONFIG, port=free_port()) as server:
        server.start()
        loads = [Load(f"c{i}", server.endpoint, history, stop) for i in range(CLIENTS)]
        threads = [*loads, Follower(loads, server.endpoint, history, stop)]

        def check():
            for t in threads:
                if t.failure:
                    raise t.failure

        for t in threads:
            t.start()
        try:
            done = break_things(server, history, chance, check)
            time.sleep(0.5)
        finally:
            stop.set()
            for t in threads:
                t.join(2 * LIVENESS_S)
        check()
        assert not any(t.is_alive() for t in threads)

        http = server.client()
        took = drain(http, history)
        now = time.monotonic()
        history.add("drained", "main", now)
        ids = [t["id"] for t in http.list(limit=200)]
        look_at_all(http, history, "reader-1", ids)
        look_at_all(server.client(), history, "reader-2", ids)

        # What the server counts is what was seen.
        def all_counted():
            m = http.metrics()
            here = sum(v for k, v in m.items() if k.startswith("headrace_tasks{"))
            assert m["headrace_tasks_submitted_total"] == len(ids)
            return here + m["headrace_history_tasks"] == len(ids)
        wait_until(all_counted, 10, "every task to be counted once, in memory or in the history")
        m = http.metrics()
        assert m["headrace_leases_held"] == 0 and m["headrace_log_misfits_total"] == 0

        # Replay is exact: after a restart every reader gets the same.
        assert server.stop() == 0
        server.start()
        look_at_all(server.client(), history, "after restart", ids)
        assert server.stop() == 0
        verified = headrace("log", "verify", server.data)

    violations, summary = history.verdict()
    print(f"{done}; quiet after {took:.1f} s; {summary}")
    assert verified.returncode == 0, verified.stdout
    assert not violations, "\n".join([f"seed {SEED}, history in {history.path}:", *violations])
    assert len(ids) >= 10 * KILLS, "too little load to prove anything"
    assert threads[-1].followed >= min(5, KILLS), "no task was followed to its end"


def test_a_worker_that_dies_again_and_again(servers):
    """A model that crashes whatever runs it fails its task after its attempts; the server and the next
    task live on."""
    server = servers()
    c = server.client()
    bad = c.new({"fail": "crash"}, max_attempts=3)
    task = c.done(bad, 60)
    assert task["status"] == "failed" and task["error"]["code"] == "model_crashed", task
    assert task["attempt"] == 3
    assert c.run({"after": "the crash"})["output"] == {"after": "the crash"}
    once = c.done(c.new({"fail": "crash", "fail_attempts": [1]}), 60)
    assert once["status"] == "succeeded" and once["attempt"] == 2, once


def test_poison_is_bounded(servers):
    """A few tasks that crash whatever runs them, each within its attempts, do not hold up the others for
    long: who crashed alone pays for it, and is no reason to distrust the worker."""
    server = servers()
    c = server.client()
    bad = [c.new({"fail": "crash", "i": i}, max_attempts=3) for i in range(4)]
    good = [c.new({"i": i}) for i in range(20)]
    end = time.monotonic() + 40
    for id in good:
        assert c.done(id, max(1, end - time.monotonic()))["status"] == "succeeded"
    for id in bad:
        task = c.done(id, max(1, end - time.monotonic()))
        assert task["status"] == "failed" and task["error"]["code"] == "model_crashed", task
    assert c.run("after", seconds=10)["output"] == "after"


def test_kill_at_the_moment_of_the_answer(servers):
    """What was answered is there after a kill that follows at once."""
    server = servers(port=free_port())
    ids = {}
    for i in range(5):
        c = server.client()
        for k in range(20):
            ids[c.new({"n": [i, k], "sleep_ms": 1})] = [i, k]
        server.kill()
        server.start()
    c = server.client()
    for id, n in ids.items():
        assert c.done(id, 60)["output"] == {"n": n, "sleep_ms": 1}


def test_stopped_worker_loses_its_lease(servers):
    """A worker that hangs (SIGSTOP) is not waited for longer than its lease; when it comes back, what it
    says about the old lease changes nothing."""
    server = servers("timeouts: {lease: 2s, ping: 1s}\nworkers: {devices: 2}\n")
    c = server.client()
    id = c.new({"sleep_ms": 1500})
    c.until(id, "running")
    busy = wait_until(lambda: [w for w in c.get("/v1/workers").json["workers"] if w["running"]], 10)[0]
    worker = busy["pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        task = c.done(id, 30)
        assert task["status"] == "succeeded" and task["output"] == {"sleep_ms": 1500}, task
    finally:
        os.kill(worker, signal.SIGCONT)
    time.sleep(2.5)
    again = c.task(id)
    assert {k: again[k] for k in ("status", "finished_at", "metrics")} == \
        {k: task[k] for k in ("status", "finished_at", "metrics")}
    assert c.run({"still": "here"})
