"""The main proof in its short form (harness.py has the long one): SIGKILL of the server and its worker, again and
again, under load, half of the server's with the power cut; nothing that was acknowledged is lost, doubled or stranded.
And kills at chosen moments.

    HEADRACE_KILLS=200 HEADRACE_SEED=… pytest tests/e2e/test_kill_loop.py      longer, or once more
"""

import os
import random
import signal
import time

from harness import QUICK, Run
from server import free_port, wait_until

KILLS = int(os.environ.get("HEADRACE_KILLS", "50"))
SEED = int(os.environ.get("HEADRACE_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


def test_fifty_kills_under_load(tmp_path):
    print(f"\nHEADRACE_KILLS={KILLS} HEADRACE_SEED={SEED}")
    run = Run(tmp_path, KILLS, SEED, QUICK)
    violations = run.go()
    print(run.summary)
    assert not violations, "\n".join([f"seed {SEED}, history in {run.history.path}:", *violations])
    assert len(run.ids) >= 10 * KILLS, "too little load to prove anything"
    assert run.followed >= min(5, KILLS), "no task was followed to its end"


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
