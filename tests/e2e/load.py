"""Clients of a server that breaks: they submit, read, cancel, upload and follow tasks, and write down what they saw as
checker.py describes it. A seed decides what they do, not when."""

import contextlib
import hashlib
import json
import random
import subprocess
import threading
import time

from checker import Checker
from server import HEADRACE, TERMINAL, Client, Lost, nonce

LIVENESS_S = 60  # after the last fault everything ends within it
OPEN_MAX = 200   # unfinished tasks of one client


class History:
    """Operations of all threads, as checker.py describes them."""

    def __init__(self, path):
        self.path, self.lock, self.operations = path, threading.Lock(), []

    def add(self, op, client, start, **more):
        o = {"op": op, "client": client, "start": start, "end": time.monotonic()} | more
        with self.lock:
            self.operations.append(o)

    def save(self):
        write_history(self.operations, self.path)

    def verdict(self):
        """What this folder's checker says of it, and the simulator's."""
        checker = Checker()
        for o in self.operations:
            checker.add(o)
        violations = checker.verdict()
        self.save()
        broken, said = judge(self.path)
        return violations + (said.splitlines() if broken else []), checker.summary()


def write_history(operations, path):
    path.write_text("".join(json.dumps(o) + "\n" for o in operations))


def judge(path):
    """(is something broken, what it says): the simulator's checker."""
    p = subprocess.run([HEADRACE, "sim", "--judge", path], capture_output=True, text=True)
    return p.returncode != 0, p.stdout + p.stderr


# ---- load -----------------------------------------------------------------------------------------

def make_task(chance, who, number):
    """(body, expected ends). The input names its task, so that no two are the same."""
    name = f"{who}-{number}"
    body = {"model": "echo", "input": {"of": name}, "metadata": {"nonce": f"{name}-{nonce()[:8]}"},
            "max_attempts": 20}
    expect = {"succeeded", "canceled"}  # clients cancel any of theirs
    kind = chance.choices(("plain", "sleep", "units", "retry", "final", "crash", "delay", "deadline", "large"),
                          (30, 25, 12, 10, 5, 0.1, 10, 7, 1.5))[0]
    if kind == "large":  # input and output are files
        body["input"]["pad"] = "x" * chance.randrange(70_000, 150_000)
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

    def __init__(self, who, seed, endpoint, history, stop):
        super().__init__(name=who, daemon=True)
        self.who, self.history, self.stop = who, history, stop
        self.chance = random.Random(f"{seed}-{who}")
        self.http = Client(endpoint, timeout=15)
        self.number, self.ids, self.unknown, self.kept = 0, [], [], []
        self.files = []  # ids of what was uploaded
        self.open = {}   # ids of tasks that were not seen to have ended, oldest look first
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
        if len(self.open) > OPEN_MAX:  # what is slow here must not become a backlog
            id = next(iter(self.open))
            self.open[id] = self.open.pop(id)
            self.read(id, "?wait=1" if what < 0.5 else "")
        elif what < 0.06 and self.unknown:
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
        elif what < 0.95:
            self.upload(self.chance.randbytes(self.chance.choice([0, 100, 5000, 300_000])))
        elif what < 0.97 and self.files:
            read_content(self.http, self.history, self.who, self.chance.choice(self.files))
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
        self.open[task["id"]] = True
        if key:
            self.kept.append((body, expect, key))

    def read(self, id, query=""):
        start = time.monotonic()
        with contextlib.suppress(Lost):
            task = self.http.get(f"/v1/tasks/{id}{query}").expect(200).json
            self.history.add("read", self.who, start, task=task)
            if task["status"] in TERMINAL:
                self.open.pop(id, None)

    def upload(self, data):
        start, digest = time.monotonic(), hashlib.sha256(data).hexdigest()
        try:
            r = self.http.upload(data).expect(201, 503)
        except Lost:
            self.history.add("upload", self.who, start, outcome="unknown", id=None, sha256=digest)
            return
        if r.status == 503:
            self.history.add("upload", self.who, start, outcome="refused", id=None, sha256=digest)
            return
        self.files.append(r.json["id"])
        self.history.add("upload", self.who, start, outcome="accepted", id=r.json["id"], sha256=digest)

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

    def __init__(self, loads, seed, endpoint, history, stop):
        super().__init__(name="follower", daemon=True)
        self.loads, self.history, self.stop = loads, history, stop
        self.chance = random.Random(f"{seed}-follower")
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


def read_content(http, history, who, id, of=None):
    """Reads a file; of: the task whose output it is."""
    start = time.monotonic()
    with contextlib.suppress(Lost):
        r = http.get(f"/v1/files/{id}/content")
        if r.status == 503:
            return
        digest = hashlib.sha256(r.body).hexdigest() if r.status == 200 else None
        history.add("content", who, start, id=id, status=r.status, sha256=digest, task=of,
                    output=r.json if of and r.status == 200 else None)


def look_at_all(http, history, who, ids, files):
    start = time.monotonic()
    history.add("list", who, start, tasks=http.list(limit=200))
    for id in ids:
        start = time.monotonic()
        task = http.task(id)
        history.add("read", who, start, task=task)
        if isinstance(task["output"], dict) and "$file" in task["output"]:
            read_content(http, history, who, task["output"]["$file"], of=id)
    for id in files:
        read_content(http, history, who, id)
