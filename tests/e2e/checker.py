#!/usr/bin/env python3
"""Judge a history of what clients saw against the invariants of the design.

    python3 checker.py <history.jsonl        prints each violation; status 1 when there are any

A history is JSON objects, one a line, in any order. The end-to-end tests write it; so can a simulator.
Times `start` and `end` are seconds of one clock that never steps, around each operation as its client
saw it. Operations:

    {"op": "submit", "client": "c1", "start": …, "end": …, "nonce": "…", "key": "…"|null, "input": …,
     "outcome": "accepted"|"refused"|"unknown", "task": {…}|null, "expect": ["succeeded"],
     "delay_s": 0, "deadline_s": null}
    {"op": "read",   "client": …, "start": …, "end": …, "task": {…}}         any full view of a task
    {"op": "cancel", "client": …, "start": …, "end": …, "id": …, "outcome": "ok"|"refused"|"unknown"}
    {"op": "event",  "client": …, "start": …, "end": …, "id": …, "seq": 17, "status": …, "attempt": …,
     "stream": "…"}                          in the order in which they came, per stream
    {"op": "list",   "client": …, "start": …, "end": …, "tasks": [{…}, …]}   everything there is
    {"op": "upload", "client": …, "start": …, "end": …, "id": …|null, "sha256": "…", "outcome": as a submit's}
    {"op": "content", "client": …, "start": …, "end": …, "id": …, "status": 200, "sha256": "…"|null,
     "task": …|null, "output": …}            a file that was read; task: whose output it is, with its JSON
    {"op": "fault",  "start": …, "end": …, "what": "…"}                      for the reader only
    {"op": "drained", "start": …, "end": …}  from here on nothing may be unfinished, and every task is
                                             read at least once

A task is the API's object. Its metadata's member "nonce" names the submit operation it came from: all
tries under one idempotency key share a nonce; otherwise each try has its own.
"""

import json
import sys
from collections import defaultdict
from datetime import datetime

TERMINAL = ("succeeded", "failed", "canceled", "expired")
STATES = ("queued", "running", *TERMINAL)
SLACK_MS = 5  # times have milliseconds, and are rounded


def _ms(text):
    """RFC 3339 in UTC to milliseconds."""
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000


def _rank(task):
    """How far a task has come. It never decreases: a later lease starts later, and within a lease
    running comes before queued again."""
    if task["status"] in TERMINAL:
        return (float("inf"), 0)
    started = _ms(task["started_at"])
    if started is None:
        return (0.0, 0)
    return (started, 0 if task["status"] == "running" else 1)


def _final(task):
    """What must not change any more once the task has ended. A task that is canceled or expires while it
    runs is charged when its worker lets go: later, and once."""
    kept = {k: v for k, v in task.items() if k not in ("queue", "input")}
    if task["status"] in ("canceled", "expired"):
        kept = {k: v for k, v in kept.items() if k != "metrics"}
        kept["metrics"] = {"queue_ms": task["metrics"]["queue_ms"]}
    return json.dumps(kept, sort_keys=True)


def _is_file(output):
    """An output too large to stand in its task; _files looks at it."""
    return isinstance(output, dict) and set(output) == {"$file", "content_type", "size"}


class Checker:
    """Feed it operations, then ask for the violations."""

    def __init__(self, limit=10):
        self.operations, self.problems, self.limit = [], [], limit
        self.counts = defaultdict(int)  # by invariant

    def add(self, operation):
        self.operations.append(operation)

    def bad(self, invariant, text):
        self.counts[invariant] += 1
        if self.counts[invariant] <= self.limit:
            self.problems.append(f"invariant {invariant}: {text}")

    def verdict(self):
        """The list of violations; empty: the history is right."""
        self.operations.sort(key=lambda o: (o["end"], o["start"]))
        self._sort()
        self._submits()
        self._known()
        self._order()
        self._ends()
        self._cancels()
        self._times()
        self._charges()
        self._events()
        self._files()
        self._drained()
        for invariant, n in sorted(self.counts.items()):
            if n > self.limit:
                self.problems.append(f"invariant {invariant}: … and {n - self.limit} more")
        return self.problems

    def summary(self):
        """One line for people."""
        ends = defaultdict(int)
        for views in self.views.values():
            ends[views[-1][2]["status"]] += 1
        ops = defaultdict(int)
        for o in self.operations:
            ops[o["op"] + ("?" if o.get("outcome") == "unknown" else "")] += 1
        return (f"{len(self.views)} tasks ({', '.join(f'{n} {s}' for s, n in sorted(ends.items()))}); "
                f"{', '.join(f'{n} {o}' for o, n in sorted(ops.items()))}")

    # ---- what was seen

    def _sort(self):
        self.views = defaultdict(list)    # id -> [(start, end, task, client)], by end
        self.accepted = {}                # id -> submit operation
        self.by_nonce = defaultdict(list)  # nonce -> submits
        for o in self.operations:
            if o["op"] == "submit":
                self.by_nonce[o["nonce"]].append(o)
                if o["outcome"] == "accepted":
                    self.accepted.setdefault(o["task"]["id"], o)
                    self._view(o, o["task"])
            elif o["op"] == "read":
                self._view(o, o["task"])
            elif o["op"] == "list":
                for task in o["tasks"]:
                    self._view(o, task)

    def _view(self, o, task):
        if task["status"] not in STATES:
            self.bad(3, f"{task['id']} has the status {task['status']!r}")
            return
        self.views[task["id"]].append((o["start"], o["end"], task, o["client"]))

    # ---- the invariants

    def _submits(self):
        """7: one key, one task. 16: an unknown outcome applied wholly or not at all."""
        for nonce, submits in self.by_nonce.items():
            ids = {o["task"]["id"] for o in submits if o["outcome"] == "accepted"}
            if len(ids) > 1:
                self.bad(7, f"key {submits[0]['key']!r} gave {sorted(ids)}")
            if submits[0]["key"] is None and len(submits) > 1:
                raise ValueError(f"nonce {nonce}: tries without a key must have a nonce each")

    def _known(self):
        """2: no task nobody submitted; a submit made one at most, and what it made is what it said."""
        made = defaultdict(set)
        for id, views in self.views.items():
            task = views[0][2]
            nonce = task["metadata"].get("nonce")
            submits = self.by_nonce.get(nonce, [])
            if not any(o["outcome"] != "refused" and o["start"] <= views[0][1] for o in submits):
                self.bad(2, f"{id} is there, but nobody submitted it: {task}")
            made[nonce].add(id)
            for name in ("model", "version", "priority", "created_at", "deadline_at", "metadata",
                         "max_attempts", "receipt"):
                other = [v[2] for v in views if v[2].get(name) != task.get(name)]
                if other:
                    self.bad(3, f"{id}: {name} was {task.get(name)}, then {other[0].get(name)}")
        for nonce, ids in made.items():
            if len(ids) > 1:
                self.bad(7, f"one submit ({nonce}) made {sorted(ids)}")

    def _order(self):
        """14: nobody who looks later sees less; attempts and charges never go back either."""
        for id, views in self.views.items():
            best, pending = None, []  # the furthest view that ended before this one started
            for start, end, task, client in sorted(views, key=lambda v: v[0]):
                while pending and pending[0][0] < start:
                    seen = pending.pop(0)
                    if best is None or seen[1] > best[1]:
                        best = seen
                rank = _rank(task)
                if best is not None:
                    before = best[2]
                    if rank < best[1]:
                        self.bad(14, f"{id} was {before['status']} (attempt {before['attempt']}, started "
                                     f"{before['started_at']}), then {task['status']} (attempt "
                                     f"{task['attempt']}, started {task['started_at']}) for {client}")
                    if task["attempt"] < before["attempt"]:
                        self.bad(8, f"{id} went from attempt {before['attempt']} to {task['attempt']}")
                    if task["metrics"]["device_ms"] < before["metrics"]["device_ms"]:
                        self.bad(18, f"{id}: device_ms fell from {before['metrics']['device_ms']} to "
                                     f"{task['metrics']['device_ms']}")
                pending.append((end, rank, task))
                pending.sort(key=lambda p: p[0])

    def _ends(self):
        """3: one terminal state, immutable, the same to every reader; the output is the echo of the input."""
        for id, views in self.views.items():
            ends = [v for v in views if v[2]["status"] in TERMINAL]
            if not ends:
                continue
            first = ends[0][2]
            for _, _, task, client in ends[1:]:
                if _final(task) != _final(first):
                    self.bad(3, f"{id} ended in two ways, the latter for {client}:\n    {first}\n    {task}")
                    break
            submits = self.by_nonce.get(first["metadata"].get("nonce"))
            if not submits:
                continue
            wanted = submits[0]
            for _, _, task, _ in ends:
                if task["status"] == "succeeded" and not _is_file(task["output"]) and \
                        task["output"] != wanted["input"]:
                    self.bad(3, f"{id}: output {task['output']} of input {wanted['input']}")
                    break
                if task["status"] != "succeeded" and task["output"] is not None:
                    self.bad(3, f"{id} is {task['status']} and has an output")
                    break
            status, error = first["status"], first["error"]
            if (status in ("failed", "expired")) != (error is not None):
                self.bad(3, f"{id} is {status} with the error {error}")
            if status not in wanted["expect"]:
                self.bad(21, f"{id} is {status} ({error}), not {wanted['expect']}; input {wanted['input']}, "
                             f"attempt {first['attempt']} of {first['max_attempts']}")
            if not first["finished_at"] or first["finished_at"] < first["created_at"]:
                self.bad(3, f"{id} was created at {first['created_at']}, finished at {first['finished_at']}")

    def _cancels(self):
        """9: an acknowledged cancel never succeeds; nothing is canceled that nobody canceled."""
        asked = defaultdict(list)
        for o in self.operations:
            if o["op"] == "cancel":
                asked[o["id"]].append(o)
        for id, views in self.views.items():
            for _, _, task, _ in views:
                acknowledged = any(o["outcome"] == "ok" for o in asked[id])
                if task["status"] in TERMINAL and task["status"] != "canceled" and acknowledged:
                    self.bad(9, f"{id}: its cancel was acknowledged, yet it is {task['status']}")
                    break
                if task["status"] == "canceled" and all(o["outcome"] == "refused" for o in asked[id]):
                    self.bad(9, f"{id} is canceled, but no cancel got through")
                    break
            for o in asked[id]:
                for start, _, task, client in views:
                    if o["outcome"] == "ok" and start > o["end"] and task["status"] != "canceled":
                        self.bad(9, f"{id}: {task['status']} for {client} after its cancel was acknowledged")
                        break

    def _times(self):
        """9: no start before its delay is over or after its deadline; no success after the deadline."""
        for id, views in self.views.items():
            task = views[-1][2]
            submits = self.by_nonce.get(task["metadata"].get("nonce"), [])
            if not submits:
                continue
            created, deadline = _ms(task["created_at"]), _ms(task["deadline_at"])
            delay = (submits[0].get("delay_s") or 0) * 1000
            for _, _, view, _ in views:
                started = _ms(view["started_at"])
                if started is not None and started + SLACK_MS < created + delay:
                    self.bad(
    9, f"{id} started {started - created:.0f} ms after its accept, with a delay of {delay:.0f} ms")
                    break
                if started is not None and deadline is not None and started > deadline + SLACK_MS:
                    self.bad(9, f"{id} started {started - deadline:.0f} ms after its deadline")
                    break
            finished = _ms(task["finished_at"])
            if deadline is not None and task["status"] == "succeeded" and finished > deadline + SLACK_MS:
                self.bad(9, f"{id} succeeded {finished - deadline:.0f} ms after its deadline")
            if task["status"] == "expired" and (deadline is None or finished + SLACK_MS < deadline):
                self.bad(9, f"{id} expired at {task['finished_at']}, its deadline is {task['deadline_at']}")

    def _charges(self):
        """18: what is charged fits between accept and end; after the end it changes once at most, and only
        where a task ended under its worker."""
        for id, views in self.views.items():
            charges = []
            for _, _, task, _ in views:
                if task["status"] in TERMINAL:
                    charge = task["metrics"]["device_ms"]
                    if charge not in charges:
                        charges.append(charge)
            last = views[-1][2]
            if len(charges) > (2 if last["status"] in ("canceled", "expired") else 1):
                self.bad(18, f"{id} is {last['status']} and was charged {charges} ms")
            if last["status"] == "succeeded":
                span = _ms(last["finished_at"]) - _ms(last["created_at"])
                if last["metrics"]["device_ms"] > span + SLACK_MS:
                    self.bad(18, f"{id} was charged {last['metrics']['device_ms']} ms of the {span:.0f} ms it lived")

    def _events(self):
        """3, 14: a stream's events come in order, none twice, and the last one ends it; streams agree."""
        streams, said = defaultdict(list), {}
        for o in self.operations:
            if o["op"] != "event":
                continue
            streams[o["id"], o["stream"]].append(o)
            known = said.setdefault((o["id"], o["seq"]), (o["status"], o["attempt"]))
            if known != (o["status"], o["attempt"]):
                self.bad(3, f"{o['id']}: event {o['seq']} was {known}, then {(o['status'], o['attempt'])}")
        for (id, stream), events in streams.items():
            seqs = [o["seq"] for o in events]
            if seqs != sorted(set(seqs)):
                self.bad(14, f"{id}: stream {stream} gave the events {seqs}")
            ends = [o for o in events if o["status"] in TERMINAL]
            if len(ends) > 1 or (ends and events[-1] is not ends[0]):
                self.bad(3, f"{id}: stream {stream} gave {[o['status'] for o in events]}")
            views = self.views.get(id)
            if ends and views and views[-1][2]["status"] in TERMINAL and views[-1][2]["status"] != ends[0]["status"]:
                self.bad(3, f"{id}: {ends[0]['status']} in its events, {views[-1][2]['status']} when read")

    def _files(self):
        """15: what was uploaded, or is an output, can be read and is what it was."""
        said = {o["id"]: o["sha256"] for o in self.operations if o["op"] == "upload" and o["outcome"] == "accepted"}
        for o in self.operations:
            if o["op"] != "content":
                continue
            want = said.setdefault(o["id"], o["sha256"])
            if o["status"] != 200 or o["sha256"] != want:
                self.bad(15, f"{o['id']} (of {o['task']}) gave {o['status']}, {o['sha256']} instead of {want}, to "
                             f"{o['client']}")
            elif o["task"]:
                nonce = self.views[o["task"]][0][2]["metadata"].get("nonce")
                if o["output"] != self.by_nonce[nonce][0]["input"]:
                    self.bad(15, f"{o['id']}: the output of {o['task']} is not its input")

    def _drained(self):
        """1: accepted − terminal = ∅. 13: the list is what was accepted, and agrees with the reads."""
        marks = [o["end"] for o in self.operations if o["op"] == "drained"]
        if not marks:
            return
        mark = max(marks)
        for id in self.accepted:
            later = [v for v in self.views[id] if v[0] >= mark]
            if not later:
                self.bad(1, f"{id} was accepted and never seen again")
            for _, _, task, client in later:
                if task["status"] not in TERMINAL:
                    self.bad(1, f"{id} is {task['status']} for {client} after everything should have ended")
                    break
        read = {o["id"] for o in self.operations if o["op"] == "content" and o["start"] >= mark}
        for o in self.operations:
            if o["op"] == "upload" and o["outcome"] == "accepted" and o["id"] not in read:
                self.bad(15, f"{o['id']} was uploaded and never read again")
        lists = [o for o in self.operations if o["op"] == "list" and o["start"] >= mark]
        for o in lists:
            ids = [t["id"] for t in o["tasks"]]
            if len(ids) != len(set(ids)):
                self.bad(13, f"the list names {len(ids) - len(set(ids))} task(s) twice")
            missing = set(self.accepted) - set(ids)
            if missing:
                self.bad(1, f"the list lacks {len(missing)} accepted task(s), such as {min(missing)}")
            order = [(t["created_at"], t["id"]) for t in o["tasks"]]
            if order != sorted(order, reverse=True):
                self.bad(13, "the list is not ordered by time and id, newest first")


def check(operations):
    """The violations in a history, and a line about it."""
    checker = Checker()
    for o in operations:
        checker.add(o)
    return checker.verdict(), checker.summary()


if __name__ == "__main__":
    found, about = check(json.loads(line) for line in sys.stdin if line.strip())
    print("\n".join(found))
    print(f"{about}; {len(found)} violation(s)" if found else f"{about}; all invariants hold")
    sys.exit(1 if found else 0)
