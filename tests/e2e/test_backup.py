"""Backup, restore, and a history view that is made anew: nothing that was acknowledged is lost, and
what is lost is said."""

import contextlib
import json

import pytest
from conftest import QUICK
from server import Lost, headrace, wait_until

SMALL = QUICK + "log: {segment_size: 256KiB}\n"
BOOM = (AssertionError, Lost, RuntimeError)


def finished_in_memory(c):
    return sum(int(v) for k, v in c.metrics().items()
               if k.startswith("headrace_tasks{") and '"queued"' not in k and '"running"' not in k)


def left(c):
    """Waits until every finished task has left memory."""
    wait_until(lambda: finished_in_memory(c) == 0, 10, "finished tasks to leave memory")


def many(c, n, pad=300, tag="x"):
    """n tasks by one batch; {id: output}."""
    lines = [json.dumps({"model": "echo", "input": {"tag": tag, "n": i, "pad": "p" * pad}}) for i in range(n)]
    r = c.post("/v1/tasks:batch", "\n".join(lines).encode(),
               headers={"Content-Type": "application/x-ndjson"}).expect(200)
    answers = [json.loads(line) for line in r.body.splitlines()]
    assert all(a["status"] == 202 for a in answers)
    return {a["task"]["id"]: {"tag": tag, "n": i, "pad": "p" * pad} for i, a in enumerate(answers)}


def all_there(c, tasks):
    """Every one of them once, with its answer."""
    got = {}
    for t in c.list(limit=200):
        assert t["id"] not in got, f"{t['id']} is listed twice"
        got[t["id"]] = t
    for id, output in tasks.items():
        assert id in got, f"{id} is gone"
        assert got[id]["output"] == output and got[id]["status"] == "succeeded"


def without_wal(server):
    """The view alone: as a clean stop leaves it."""
    for name in ("history.sqlite-wal", "history.sqlite-shm"):
        with contextlib.suppress(FileNotFoundError):
            (server.data / name).unlink()


def rebuild(server, status=0):
    r = headrace("history", "rebuild", "--data", server.data)
    assert r.returncode == status, r.stdout + r.stderr
    return r


def refuses_to_start(server):
    with pytest.raises(BOOM):
        server.start()
    assert "headrace history rebuild" in server.log_tail(20)


# ---- headrace history -----------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["deleted", "emptied", "garbage", "truncated", "older"])
def test_a_lost_view_is_rebuilt_from_the_log(servers, how):
    server = servers(QUICK)
    c = server.client()
    tasks = many(c, 300, tag="a")
    for id in tasks:
        c.done(id)
    left(c)
    server.stop()
    view = server.data / "history.sqlite"
    older = view.read_bytes()
    server.start()
    c = server.client()
    tasks |= many(c, 200, tag="b")
    gone = c.run("secret")["id"]
    for id in tasks:
        c.done(id)
    assert c.delete(f"/v1/tasks/{gone}").status == 204
    queued = c.new("later", delay_s=3600)
    left(c)
    server.kill()
    if how == "deleted":
        view.unlink()
        without_wal(server)
    elif how == "older":
        view.write_bytes(older)
        without_wal(server)
    else:
        whole = view.read_bytes()
        without_wal(server)
        view.write_bytes({"emptied": b"", "garbage": b"garbage" * 999, "truncated": whole[:len(whole) // 2]}[how])
    refuses_to_start(server)
    r = rebuild(server)
    assert "nothing is lost" in r.stdout
    kept = list(server.data.glob("history.sqlite.old-*"))
    assert bool(kept) == (how in ("garbage", "truncated")), kept
    assert not list(server.data.glob("*aside*")) and not list(server.data.glob("*.new*"))
    assert not (server.data / "spill-rebuild").exists()
    server.start()
    c = server.client()
    all_there(c, tasks)
    assert c.task(queued)["status"] == "queued"
    assert len(c.list(limit=200)) == len(tasks) + 2
    assert c.run("on")["output"] == "on"


def test_a_rebuild_joins_the_log_and_the_old_view(servers):
    """Segments that were recycled: what they held is in the old view only."""
    server = servers(SMALL)
    c = server.client()
    tasks = {}
    for round in range(5):
        tasks |= many(c, 400, pad=900, tag=f"r{round}")
        wait_until(lambda: finished_in_memory(c) == 0 and not c.list(status="queued,running"), 20, "it to finish")
    dead = next(iter(tasks))
    assert c.delete(f"/v1/tasks/{dead}").status == 204
    last = list(tasks)[-1]
    assert c.delete(f"/v1/tasks/{last}").status == 204  # the log still has its data
    del tasks[dead], tasks[last]
    wait_until(lambda: not (server.data / "log" / "0000000001.seg").exists(), 15, "segments to be recycled")
    assert "in use" in headrace("history", "info", "--data", server.data).stderr
    r = rebuild(server, status=1)
    assert "another process uses this data directory" in r.stderr
    server.stop()
    info = headrace("history", "info", "--data", server.data)
    assert info.returncode == 0 and f"tasks    {len(tasks) + 2}\n" in info.stdout
    # A healthy one: nothing is lost, nothing is kept.
    r = rebuild(server)
    assert "nothing is lost" in r.stdout and not list(server.data.glob("history.sqlite.*"))
    server.start()
    c = server.client()
    all_there(c, tasks)
    for id in (dead, last):
        assert c.task(id)["data_removed"] is True
    server.stop()
    # A bad page: what the log does not have and that page had is lost, and it is said.
    view = server.data / "history.sqlite"
    data = bytearray(view.read_bytes())
    for at in range(40 * 4096, 44 * 4096):
        data[at] ^= 0x55
    view.write_bytes(data)
    info = headrace("history", "info", "--data", server.data)
    assert info.returncode == 1 and "history rebuild" in info.stderr
    r = rebuild(server)
    assert "nothing is lost" not in r.stdout and "were in the old history only" in r.stderr
    assert "kept as history.sqlite.old-1" in r.stdout
    server.start()
    c = server.client()
    found = {t["id"]: t for t in c.list(limit=200)}
    assert len(tasks) - 60 < len(found) < len(tasks) + 2
    for id, t in found.items():
        assert id in (dead, last) or t["output"] == tasks[id]
    # Without it: what the log retains, and an honest word about the rest.
    server.stop()
    view.unlink()
    r = rebuild(server)
    assert "there was no file" in r.stdout and "they are lost" in r.stderr
    server.start()
    c = server.client()
    newest = [id for id in list(tasks)[-100:]]
    all_there(c, {id: tasks[id] for id in newest})


def test_history_needs_a_data_directory(tmp_path):
    r = headrace("history", "rebuild", "--data", tmp_path)
    assert r.returncode == 1 and "no folder 'log'" in r.stderr
    r = headrace("history", "rebuild", "--data", tmp_path / "none")
    assert r.returncode == 1 and not (tmp_path / "none").exists()
    assert headrace("history", "rebuil").returncode == 2
