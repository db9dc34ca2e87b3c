#!/usr/bin/python3
"""The main proof: a real server and its workers are killed, stopped, restarted and starved under load, again and
again; nothing that was acknowledged is lost, doubled or stranded.

    tests/e2e/harness.py [--kills 200] [--seed N] [--only FAULT,FAULT] [--keep DIR]

Safety phase: client threads (load.py) submit, read, cancel, upload and follow tasks while faults come. Liveness phase:
the faults stop, and everything must end within LIVENESS_S. Then every task and file is read twice, listed, and once
more after a restart. checker.py judges what was seen. Kills are SIGKILLs; some take what was not synced with them
(fault.py), wholly or torn. The seed decides what is done, not when.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from fault import Unsynced, preload
from load import LIVENESS_S, Follower, History, Load, drain, look_at_all
from server import Server, free_port, headrace, kill, wait_until
from weather import S, Weather

CLIENTS = 3
CALM_MS = (20, 2000)  # between two faults

# Small limits, so that each is met: segments rotate and are folded every few seconds, leases of a killed
# server's worker end soon, a task outlives as many lost workers as it takes. Two workers: what one that was
# stopped says later is stale.
CONFIG = """
log:
  segment_size: 256KiB
limits:
  worker_losses_max: 255
workers:
  devices: 2
timeouts:
  lease: 2s
  ping: 1s
retry:
  backoff_first: 50ms
  backoff_max: 500ms
"""
PAUSE_S = (2.3, 4)  # longer than a lease
ROOM = 16 << 20     # of the disk, while it is not full
CLOCK_BACK_S = 40   # a start with a clock a minute behind the log's last record is refused
CLOCK_TOP_S = 6 * 3600  # idempotency keys are kept for a day

# How often each comes.
ALL = {"kill": 5, "cut": 4, "torn": 4, "worker": 8, "restart": 1.5, "restart_worker": 1.5, "pause": 0.6,
       "pause_worker": 1, "full_disk": 1.5, "slow_disk": 0.8, "failed_sync": 0.8, "clock": 2}
QUICK = {"kill": 3, "cut": 2, "torn": 2, "worker": 7}  # those that take no time


class Faults:
    """What is done to one server: a method a fault, from its beginning to its end."""

    def __init__(self, folder, chance):
        self.chance = chance
        data = folder / "data"
        self.weather, self.unsynced = Weather(folder, data), Unsynced(folder, data)
        self.server = Server(folder, CONFIG, port=free_port(), env=preload(self.weather.env, self.unsynced.env))
        self.done, self.kills, self.ready = Counter(), 0, True
        self.clock_top = 0

    def strike(self, what):
        # Nothing but what was done to it ends it.
        assert self.server.running, f"it ended with {self.server.process.returncode}:\n{self.server.log_tail()}"
        getattr(self, what)()
        self.done[what] += 1

    def start(self):
        self.server.launch()
        self.ready = self.chance.random() < 0.75  # sometimes the next fault comes before it is ready
        if self.ready:
            self.server.wait_ready()
        else:
            self.done["while starting"] += 1

    def calm(self):
        self.weather.set(sync_ns=0, sync_fail=0, room=-1)
        if not self.server.running:
            self.server.launch()
        self.server.wait_ready()

    # -- kills

    def kill(self):
        self.server.kill()
        self.kills += 1
        self.start()

    def cut(self, chance=None):
        self.server.kill()
        self.kills += 1
        self.unsynced.cut(chance)
        self.start()

    def torn(self):
        self.cut(self.chance)

    def one_worker(self, number):
        workers = self.server.workers()
        if workers:
            kill(self.chance.choice(workers), number)
        return workers

    def worker(self):
        if self.one_worker(signal.SIGKILL):
            self.kills += 1
        else:
            self.kill()  # it is starting, and has none yet

    # -- restarts and pauses

    def restart(self):
        if not self.ready:
            self.server.wait_ready()
        status = self.server.stop()
        assert status == 0, f"SIGTERM ended it with {status}:\n{self.server.log_tail()}"
        self.start()

    def restart_worker(self):
        self.one_worker(signal.SIGTERM)

    def paused(self, pids):
        for pid in pids:
            kill(pid, signal.SIGSTOP)
        try:
            time.sleep(self.chance.uniform(*PAUSE_S))
        finally:
            for pid in pids:
                kill(pid, signal.SIGCONT)

    def pause(self):
        self.paused([self.server.pid])

    def pause_worker(self):
        self.paused(self.server.workers()[:1])

    # -- weather

    def full_disk(self):
        """Full for a while, and killed there, now and then: a start on a full disk may be refused."""
        self.weather.set(room=self.chance.choice([0, 5000, 200_000]))
        time.sleep(self.chance.uniform(0.2, 3))
        if self.chance.random() < 0.5:
            self.server.kill()
            self.kills += 1
            if self.chance.random() < 0.5:
                self.unsynced.cut(self.chance)
            self.server.launch()
            time.sleep(self.chance.uniform(0.1, 1))
            self.done["starts on a full disk"] += 1
        self.weather.set(room=-1)
        if not self.server.running:
            said = self.server.log_tail()
            assert self.server.process.returncode == 1 and "Free some space" in said, said
            self.done["refused starts"] += 1
            self.server.launch()
        self.server.wait_ready()
        self.ready = True

    def slow_disk(self):
        self.weather.set(sync_ns=self.chance.uniform(0.05, 1.3) * S)
        time.sleep(self.chance.uniform(0.3, 3))
        self.weather.set(sync_ns=0)

    def failed_sync(self):
        """It ends by itself, says why, and what the page cache still has may be gone."""
        if not self.ready:
            self.server.wait_ready()
        self.weather.set(sync_fail=1)
        wait_until(lambda: not self.server.running or not self.weather.get("sync_fail"), 20, "a sync to fail")
        # Of the history or of a snapshot or an upload: those go on.
        time.sleep(0.5)
        if not self.server.running:
            said = self.server.log_tail()
            assert self.server.process.returncode == 1 and " error " in said, said
            self.done["ends by a failed sync"] += 1
            self.unsynced.cut(self.chance if self.chance.random() < 0.5 else None)
            self.start()

    def clock(self):
        now = self.weather.get("clock_ns") / S
        to = now + self.chance.choice([-15, -1, 0.5, 30, 600, 1800]) * self.chance.random()
        to = min(max(to, self.clock_top - CLOCK_BACK_S), CLOCK_TOP_S)
        self.clock_top = max(to, self.clock_top)
        self.weather.set(clock_ns=to * S)


def break_things(faults, kills, weights, history, check):
    """Faults until there were so many kills."""
    names, odds = list(weights), list(weights.values())
    while faults.kills < kills:
        time.sleep(faults.chance.uniform(*CALM_MS) / 1000)
        check()
        start = time.monotonic()
        what = faults.chance.choices(names, odds)[0]
        faults.strike(what)
        history.add("fault", "breaker", start, what=what)
    faults.calm()


def count_all(http, ids):
    """What the server counts is what was seen."""
    def all_counted():
        m = http.metrics()
        here = sum(v for k, v in m.items() if k.startswith("headrace_tasks{"))
        return here + m["headrace_history_tasks"] == len(ids)
    wait_until(all_counted, 20, "every task to be counted once, in memory or in the history")
    m = http.metrics()
    assert m["headrace_tasks_submitted_total"] == len(ids), (m["headrace_tasks_submitted_total"], len(ids))
    assert m["headrace_leases_held"] == 0 and m["headrace_log_misfits_total"] == 0


class Run:
    """One run: its violations, and what there is to say about it."""

    def __init__(self, folder, kills, seed, weights):
        self.folder, self.kills, self.seed, self.weights = Path(folder), kills, seed, weights
        self.history = History(self.folder / "history.jsonl")

    def go(self):
        begin, stop = time.monotonic(), threading.Event()
        faults = Faults(self.folder, random.Random(self.seed))
        with faults.server as server:
            server.start()
            loads = [Load(f"c{i}", self.seed, server.endpoint, self.history, stop) for i in range(CLIENTS)]
            threads = [*loads, Follower(loads, self.seed, server.endpoint, self.history, stop)]

            def check():
                for t in threads:
                    if t.failure:
                        raise t.failure

            for t in threads:
                t.start()
            try:
                break_things(faults, self.kills, self.weights, self.history, check)
                time.sleep(0.5)
            finally:
                stop.set()
                for t in threads:
                    t.join(2 * LIVENESS_S)
                self.history.save()
            check()
            assert not any(t.is_alive() for t in threads)
            self.followed = threads[-1].followed
            files = [id for load in loads for id in load.files]
            took = self.liveness(server, files)
        violations, seen = self.history.verdict()
        unsynced = faults.unsynced
        self.summary = (f"{faults.kills} kills ({unsynced.cuts} power cuts undid {unsynced.undone} changes) and all in "
                        f"all {dict(faults.done)}; quiet after {took:.1f} s; {seen}; {len(files)} files; "
                        f"{time.monotonic() - begin:.0f} s; {len(violations)} violation(s)")
        return violations

    def liveness(self, server, files):
        http = server.client()
        took = drain(http, self.history)
        self.history.add("drained", "main", time.monotonic())
        self.ids = [t["id"] for t in http.list(limit=200)]
        look_at_all(http, self.history, "reader-1", self.ids, files)
        look_at_all(server.client(), self.history, "reader-2", self.ids, files)
        count_all(http, self.ids)
        # Replay is exact: after a restart every reader gets the same.
        assert server.stop() == 0
        server.start()
        look_at_all(server.client(), self.history, "after restart", self.ids, files)
        assert server.stop() == 0
        verified = headrace("log", "verify", server.data)
        assert verified.returncode == 0, verified.stdout
        return took


def main():
    parser = argparse.ArgumentParser(description="Kills a server under load and judges what its clients saw.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help=f"some of {', '.join(ALL)}")
    parser.add_argument("--keep", help="an empty folder for data, log and history; default: removed when all is well")
    args = parser.parse_args()
    seed = args.seed or random.SystemRandom().randrange(1, 2**32)
    weights = {name: ALL[name] for name in args.only.split(",")} if args.only else ALL
    folder = Path(args.keep or tempfile.mkdtemp(prefix="headrace-harness-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, in {folder}", flush=True)
    run = Run(folder, args.kills, seed, weights)
    violations = run.go()
    print(run.summary)
    for text in violations:
        print(text)
    if not violations and not args.keep:
        shutil.rmtree(folder)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.exit(main())
