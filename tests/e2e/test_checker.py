"""The checkers themselves, this folder's and the simulator's: each accepts a right history, and names each kind of
wrong one."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from checker import check
from load import judge, write_history


def task(id="task_1", status="queued", **more):
    base = {"id": id, "model": "echo", "version": "1", "priority": "standard", "status": status, "output": None,
            "error": None, "attempt": 0, "max_attempts": 3, "created_at": "2026-01-01T00:00:00.000Z",
            "started_at": None, "finished_at": None, "deadline_at": None,
            "metrics": {"queue_ms": 0, "run_ms": 0, "device_ms": 0, "batch_size": 0},
            "metadata": {"nonce": "n-" + id}, "receipt": {"shard": 0, "epoch": 1, "seq": int(id[5:])}}
    if status == "running":
        base |= {"attempt": 1, "started_at": "2026-01-01T00:00:01.000Z"}
    if status in ("succeeded", "failed"):
        base |= {"attempt": 1, "started_at": "2026-01-01T00:00:01.000Z", "finished_at": "2026-01-01T00:00:02.000Z"}
    if status == "succeeded":
        base |= {"output": {"x": 1}, "metrics": base["metrics"] | {"device_ms": 900}}
    if status == "canceled":
        base |= {"finished_at": "2026-01-01T00:00:02.000Z"}
    return base | more


def submit(at, t, outcome="accepted", key=None, **more):
    return {"op": "submit", "client": "a", "start": at, "end": at + 0.1, "nonce": t["metadata"]["nonce"], "key": key,
            "input": {"x": 1}, "outcome": outcome, "task": t if outcome == "accepted" else None,
            "expect": ["succeeded", "canceled"], "delay_s": 0} | more


def read(at, t, client="a"):
    return {"op": "read", "client": client, "start": at, "end": at + 0.1, "task": t}


def cancel(at, outcome="ok"):
    return {"op": "cancel", "client": "a", "start": at, "end": at + 0.1, "id": "task_1", "outcome": outcome}


def good():
    return [submit(1, task()), read(2, task(status="running")), read(3, task(status="succeeded"), "b"),
            {"op": "drained", "start": 4, "end": 4},
            read(5, task(status="succeeded")),
            {"op": "list", "client": "a", "start": 6, "end": 6.1, "tasks": [task(status="succeeded")]}]


def test_a_right_history_passes():
    violations, summary = check(good())
    assert violations == []
    assert summary.startswith("1 tasks (1 succeeded)")


def broken():
    """Name, invariant, history."""
    h = good()
    yield "stranded", 1, [*h[:2], h[3], read(5, task(status="running"))]
    yield "lost", 1, h[:5] + [submit(1, task("task_2"))]
    yield "not listed", 1, [*h[:5], {"op": "list", "client": "a", "start": 6, "end": 6.1, "tasks": []}]
    yield "nobody submitted it", 2, [*h, read(7, task("task_9", "succeeded"))]
    yield "a refused one exists", 2, [*h, submit(1, task("task_9"), "refused"), read(7, task("task_9"))]
    yield "seen before its submit", 2, [read(0.5, task()), *h]
    yield "two outputs", 3, [*h, read(7, task(status="succeeded", output={"x": 2}))]
    yield "two ends", 3, [*h, read(7, task(status="canceled"))]
    yield "changed after its end", 3, [*h, read(7, task(status="succeeded", attempt=2))]
    yield "not the echo", 3, [submit(1, task()), read(3, task(status="succeeded", output={"x": 2}))]
    yield "one key, two tasks", 7, [submit(1, task(), key="k"),
                                    submit(2, task("task_2", metadata={"nonce": "n-task_1"}), key="k")]
    yield "canceled and succeeded", 9, [*h, cancel(1.5)]
    yield "canceled by nobody", 9, [submit(1, task()), read(2, task(status="canceled"))]
    yield "started too early", 9, [submit(1, task(), delay_s=5), read(2, task(status="running"))]
    yield "started too late", 9, [submit(1, task(deadline_at="2026-01-01T00:00:00.500Z")),
                                  read(2, task(status="running", deadline_at="2026-01-01T00:00:00.500Z"))]
    yield "back to queued", 14, [submit(1, task()), read(2, task(status="running"), "b"), read(3, task())]
    yield "out of its end", 14, [*h[:3], read(3.5, task(status="running"))]
    up = {"op": "upload", "client": "a", "start": 1, "end": 1.1, "id": "file_1", "sha256": "aa", "outcome": "accepted"}
    got = {"op": "content", "client": "a", "start": 7, "end": 7.1, "id": "file_1", "status": 200, "sha256": "aa",
           "task": None, "output": None}
    yield "another content", 15, [*h, up, got, got | {"sha256": "bb"}]
    yield "a file that is gone", 15, [*h, up, got | {"status": 404, "sha256": None}]
    yield "a file that nobody looked for", 15, [*h, up]
    yield "a file that is not the output", 15, [*h, got | {"task": "task_1", "output": {"x": 2}}]
    yield "charged twice", 18, [*h, read(7, task(status="succeeded", metrics=task()["metrics"] | {"device_ms": 1800}))]
    yield "failed without cause", 21, [submit(1, task(), expect=["succeeded"]),
                                       read(2, task(status="failed", error={"code": "internal"}))]
    event = {"op": "event", "client": "a", "start": 2, "end": 2, "id": "task_1", "attempt": 1, "stream": "s"}
    yield "an event twice", 14, [*h, event | {"seq": 3, "status": "running"}, event | {"seq": 3, "status": "running"}]
    yield "another end in the events", 3, [*h, event | {"seq": 3, "status": "failed"}]


@pytest.mark.parametrize("name,invariant,history", broken(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_history_is_named(name, invariant, history):
    violations, _ = check(copy.deepcopy(history))
    assert any(v.startswith(f"invariant {invariant}:") for v in violations), violations


# What workers did and what lies in files the simulator's judge knows from inside only.
PYTHON_ONLY = {"not the echo", "another content", "a file that is gone", "a file that nobody looked for",
               "a file that is not the output"}


def judge_whole(history, path):
    """With ids as long as they are."""
    text = json.dumps(history)
    for n in "129":
        text = text.replace(f'"task_{n}"', f'"task_0000000000000000000000000{n}"')
    write_history(json.loads(text), path)
    return judge(path)


def test_the_judge_lets_a_right_history_pass(tmp_path):
    broken, said = judge_whole(good(), tmp_path / "history.jsonl")
    assert not broken and said.startswith("1 submits, 1 tasks"), said


@pytest.mark.parametrize("name,invariant,history", [b for b in broken() if b[0] not in PYTHON_ONLY],
                         ids=lambda v: v if isinstance(v, str) else "")
def test_the_judge_names_a_wrong_history(name, invariant, history, tmp_path):
    broken, said = judge_whole(history, tmp_path / "history.jsonl")
    if name == "a refused one exists":
        invariant = 16  # an operation that was refused did not apply
    assert broken and f"invariant {invariant}:" in said, said


def test_it_reads_json_lines():
    program = Path(__file__).with_name("checker.py")
    for history, status in ((good(), 0), (good()[:2] + good()[3:4], 1)):
        p = subprocess.run([sys.executable, program], input="\n".join(map(json.dumps, history)),
                           capture_output=True, text=True)
        assert p.returncode == status, p.stdout
