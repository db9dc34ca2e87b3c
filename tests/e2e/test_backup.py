"""Backup, restore, and a history view that is made anew: nothing that was acknowledged is lost, and
what is lost is said."""

import contextlib
import hashlib
import http.client
import io
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from urllib.parse import urlsplit

import pytest
from conftest import QUICK
from server import HEADRACE, Lost, Server, headrace, wait_until

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

@pytest.mark.parametrize("how", ["deleted", "garbage", "truncated", "older"])
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
    wiped = [next(iter(tasks)), list(tasks)[-1]]  # they are in the view only, but the log still has their data
    for id in wiped:
        assert c.delete(f"/v1/tasks/{id}").status == 204
        del tasks[id]
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
        view.write_bytes({"garbage": b"garbage" * 999, "truncated": whole[:len(whole) // 2]}[how])
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
    for id in wiped:
        task = c.task(id, "?include=input")
        assert task["input"] is None and task["output"] is None and task["data_removed"] is True
    assert len(c.list(limit=200)) == len(tasks) + 4
    assert int(c.metrics()["headrace_log_misfits_total"]) == 0
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


@pytest.mark.parametrize("cut", ["linked", "renamed", "exchanged"])
def test_a_rebuild_that_was_cut_off(servers, cut):
    """At any moment of the exchange both files are there, the old one with its -wal."""
    server = servers(QUICK)
    c = server.client()
    tasks = many(c, 50)
    for id in tasks:
        c.done(id)
    dead = c.run("dead")["id"]
    left(c)
    assert c.delete(f"/v1/tasks/{dead}").status == 204  # in the -wal only
    server.kill()
    data = server.data
    shutil.copy(data / "history.sqlite-wal", data / "history.sqlite.aside-wal")
    os.link(data / "history.sqlite", data / "history.sqlite.aside")
    if cut == "linked":
        (data / "history.sqlite-wal").unlink()
    else:
        (data / "history.sqlite").unlink()
        without_wal(server)
        if cut == "exchanged":
            rebuild(server)
            os.link(data / "history.sqlite", data / "x")
            shutil.copy(data / "x", data / "history.sqlite.aside")
            (data / "x").unlink()
    (data / "history.sqlite.new").write_bytes(b"half")
    assert "nothing is lost" in rebuild(server).stdout
    assert not list(data.glob("*aside*")) and not list(data.glob("*.new*"))
    server.start()
    c = server.client()
    all_there(c, tasks)
    assert c.task(dead)["data_removed"] is True and c.task(dead)["output"] is None


def test_history_needs_a_data_directory(tmp_path):
    r = headrace("history", "rebuild", "--data", tmp_path)
    assert r.returncode == 1 and "no folder 'log'" in r.stderr
    r = headrace("history", "rebuild", "--data", tmp_path / "none")
    assert r.returncode == 1 and not (tmp_path / "none").exists()
    assert headrace("history", "rebuil").returncode == 2


# ---- headrace backup and restore ------------------------------------------------------------------

def backup(server, path):
    r = headrace("backup", "-o", path, server=server)
    assert r.returncode == 0, r.stderr
    assert "whole and checked" in r.stderr
    return path


def restore(path, server):
    """Into the data directory of a server that was not started yet."""
    r = headrace("restore", path, "--data", server.data)
    assert r.returncode == 0, r.stdout + r.stderr
    assert f"headrace serve --data {server.data}" in r.stdout
    return r.stdout


def names(path):
    with tarfile.open(path) as t:
        return [m.name for m in t.getmembers()]


def leftovers(server):
    return [p.name for p in server.data.iterdir() if p.name in ("backup", "restoring")]


class Load:
    """Clients that submit and wait, and remember what was said to them and when."""

    def __init__(self, server, threads=3):
        self.server, self.stop, self.lock = server, threading.Event(), threading.Lock()
        self.acked, self.took = {}, []  # {id: (output, time it was said)}
        self.threads = [threading.Thread(target=self.run, args=(k,)) for k in range(threads)]
        for t in self.threads:
            t.start()

    def run(self, k):
        c = self.server.client()
        n = 0
        while not self.stop.is_set():
            n += 1
            body = {"k": k, "n": n, "pad": "y" * 200}
            begin = time.monotonic()
            id = c.new(body)
            now = time.monotonic()
            with self.lock:
                self.acked[id] = (body, now)
                self.took.append((begin, now - begin))
            if n % 5 == 0:
                c.done(id)
        c.close()

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join()

    def until(self, when):
        return {id: body for id, (body, at) in self.acked.items() if at < when}

    def p99_ms(self, begin, end):
        took = sorted(t for at, t in self.took if begin <= at < end)
        return took[int(len(took) * 0.99)] * 1000 if took else 0


def test_a_backup_under_load(servers, tmp_path):
    server = servers(SMALL)
    c = server.client()
    for round in range(4):  # some history, some snapshots, recycled segments
        many(c, 500, pad=900, tag=f"r{round}")
    wait_until(lambda: not c.list(status="queued,running", limit=1), 20, "them to finish")
    held = c.new({"held": 1}, delay_s=3600)
    load = Load(server)
    time.sleep(1)
    quiet = time.monotonic()
    time.sleep(1)
    # Clients that leave midway: nothing of theirs stays, and the next one gets its own.
    url = urlsplit(server.endpoint)
    for _ in range(3):
        with socket.create_connection((url.hostname, url.port)) as s:
            s.sendall(f"GET /v1/backup HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
            s.recv(1000)
        wait_until(lambda: not leftovers(server), 10, "it to let go")
    backups = []
    for i in range(2):
        begin = time.monotonic()
        backups.append((begin, backup(server, tmp_path / f"b{i}.tar")))
        time.sleep(0.3)
    end = time.monotonic()
    load.end()
    print(f"\np99 of a submit: {load.p99_ms(quiet, quiet + 1):.1f} ms without a backup, "
          f"{load.p99_ms(quiet + 1, end):.1f} ms with one")
    assert names(backups[0][1])[-1] == "manifest" and names(backups[0][1])[0] == "format"
    assert not any("worker.key" in n or "lock" in n for n in names(backups[0][1]))
    everything = {t["id"] for t in c.list(limit=200)}
    server.stop()
    for begin, path in backups:
        said = load.until(begin)
        assert len(said) > 50
        other = servers(SMALL, start=False)
        out = restore(path, other)
        assert "queued" in out and "history" in out
        assert headrace("log", "verify", other.data).returncode == 0
        other.start()
        d = other.client()
        for id in said:
            d.done(id)
        wait_until(lambda: d.list(status="queued,running", limit=10) == [d.task(held)], 20, "the rest")
        found = [t["id"] for t in d.list(limit=200)]
        assert len(found) == len(set(found)), "a task is there twice"
        assert set(found) <= everything
        all_there(d, said)
        assert len(found) >= 2000 + len(said)
        left(d)
        all_there(d, said)
        assert d.run("on")["output"] == "on"
        other.kill()
        other.start()
        d = other.client()
        all_there(d, said)
        other.stop()


def test_files_come_along(servers, tmp_path):
    server = servers(QUICK)
    c = server.client()
    big = {"pad": "z" * 200000}
    kept = c.post("/v1/files?name=a.bin", b"\0\1\2" * 5000,
                  headers={"Content-Type": "application/octet-stream"}).expect(201).json["id"]
    past = c.run(big)["id"]
    left(c)
    ahead = c.new(big, delay_s=2)
    path = backup(server, tmp_path / "b.tar")
    assert sum(n.startswith("files/") for n in names(path)) == 4, names(path)  # 1, input and output, input
    # A client that does not read, of more than sockets hold: the server waits for it, and nothing
    # that it is to get goes away meanwhile.
    large = c.upload(bytes(24 * 2**20)).expect(201).json["id"]

    @contextlib.contextmanager
    def stalled():
        url = urlsplit(server.endpoint)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect((url.hostname, url.port))
            s.sendall(f"GET /v1/backup HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
            assert s.recv(100).startswith(b"HTTP/1.1 200")
            yield

    with stalled():
        c.get("/v1/backup").problem(409, "conflict")
        assert c.delete(f"/v1/files/{large}").status == 204
        c.run("meanwhile")
        time.sleep(0.3)
        assert (server.data / "files" / large).exists()
    wait_until(lambda: not (server.data / "files" / large).exists(), 10, "the file to go")
    assert not leftovers(server)
    c.upload(bytes(24 * 2**20)).expect(201)
    with stalled():
        assert leftovers(server)
        server.kill()
    server.start()
    assert not leftovers(server)
    with stalled():
        assert server.stop() == 0
    # A view that is turned off comes along all the same.
    apart = Server(server.folder, QUICK + "history: {enabled: false}\n")
    with apart:
        apart.start()
        assert "history.sqlite" in names(backup(apart, tmp_path / "apart.tar"))
    restore(tmp_path / "apart.tar", servers(QUICK, start=False))
    other = servers(QUICK, start=False)
    restore(path, other)
    other.start()
    d = other.client()
    assert d.get(f"/v1/files/{kept}/content").expect(200).body == b"\0\1\2" * 5000
    for id in (past, ahead):
        task = d.done(id)
        assert task["status"] == "succeeded"
        file = task["output"]["$file"]
        assert json.loads(d.get(f"/v1/files/{file}/content").expect(200).body) == big


class FakeWorker:
    """One that speaks the protocol by hand, and forgets nothing when its server is another one."""

    def __init__(self, server, running=(), former=None):
        self.c = server.client(key=server.worker_key)
        hello = {"protocol": [1], "name": "w", "pid": 1, "region": "", "runtime": "",
                 "devices": [{"index": 0, "kind": "cpu", "memory_bytes": 2**30, "threads": 1}],
                 "models": [{"name": "m", "version": "1", "engine": "echo", "digest": "0" * 64,
                             "description": "", "max_batch": 1, "memory_bytes": 1}],
                 "running": [{"id": t["id"], "token": t["token"]} for t in running]}
        if former:
            hello["worker"] = former
        self.me = self.c.post("/v1/worker/register", hello).expect(200).json
        self.conn = http.client.HTTPConnection(*self.c.address, timeout=10)
        self.conn.request("GET", f"/v1/worker/{self.me['worker']}/stream",
                          headers={"Authorization": f"Bearer {server.worker_key}"})
        self.lines = self.conn.getresponse()
        assert self.lines.status == 200

    def task(self):
        """The next one it is given."""
        while True:
            line = json.loads(self.lines.readline())
            if line["t"] == "lease":
                return line["tasks"][0]

    def say(self, kind, task, **more):
        line = {"t": kind, "id": task["id"], "token": task["token"], "device_ns": 0, "run_ns": 0} | more
        r = self.c.post(f"/v1/worker/{self.me['worker']}/reports", (json.dumps(line) + "\n").encode(),
                        headers={"Content-Type": "application/x-ndjson"}).expect(200)
        return json.loads(r.body)["status"]

    def close(self):
        self.conn.close()
        self.c.close()


def test_the_lost_time_is_fenced(servers, tmp_path):
    """A worker and clients that come back with what they got before the backup and after it."""
    config = QUICK.replace("lease: 5s", "lease: 30s") + "workers: {devices: 0}\n"
    server = servers(config)
    c = server.client()
    w = FakeWorker(server)
    before = c.new("before", model="m")
    held = w.task()
    ahead = [c.new(i, model="m") for i in range(5)]
    path = backup(server, tmp_path / "b.tar")
    # The lost time: the first one ends, the next ones are leased, end, and new ones come.
    assert w.say("result", held, output="lost") == "accepted"
    lost = w.task()
    assert lost["id"] == ahead[0]
    with c.events(ahead[1]) as events:
        assert w.say("result", lost, output="lost") == "accepted"
        kept = w.task()
        assert kept["id"] == ahead[1]
        seen = [e.id for e in itertools.islice(events, 2)][-1]  # queued, running
    unknown = [c.new("unknown", model="m") for _ in range(3)]
    key = c.post("/v1/tasks", {"model": "m", "input": 1}, headers={"Idempotency-Key": '"k"'}).expect(202).json
    receipt = key["receipt"]
    w.close()
    server.stop()

    for _ in range(2):  # twice from the same backup: the second time knows nothing of the first
        other = servers(config, start=False)
        out = restore(path, other)
        assert "5 queued, 1 running" in out
        other.start()
        d = other.client()
        w = FakeWorker(other, running=[held, lost, kept], former=w.me["worker"])
        assert sorted(w.me["stale"]) == sorted([lost["token"], kept["token"]])
        assert d.task(before)["status"] == "running"
        # What the lost time leased is fenced, whatever is said and however often …
        for task in (lost, kept):
            assert w.say("result", task, output="stale") == "fenced"
            assert d.task(task["id"])["output"] is None
        # … what was leased before it goes on.
        assert w.say("result", held, output="good") == "accepted"
        assert d.task(before)["output"] == "good"
        tokens = []
        for i in range(5):
            task = w.task()
            assert task["id"] == ahead[i]
            assert task["token"] > kept["token"] and task["token"] < 2**53
            tokens.append(task["token"])
            for stale in (lost, kept):
                assert w.say("error", stale, code="bad_input", message="", retryable=False) == "fenced"
            assert w.say("result", task, output=i) == "accepted"
            assert d.task(task["id"])["output"] == i
        assert not {lost["token"], kept["token"]} & set(tokens)
        lost = lost | {"token": tokens[0]}
        kept = kept | {"token": tokens[1]}  # of the time that the second restore loses
        # A client that saw an event of the lost time sees the new end.
        with d.events(ahead[1], last=seen) as events:
            assert events.status == 200
            assert [e.data["status"] for e in events if e.name == "status"][-1] == "succeeded"
        # Ids of the lost time are nobody's, in memory and when their numbers come again.
        for id in unknown:
            d.get(f"/v1/tasks/{id}").problem(404, "not_found")
        new = [d.new("new", model="m") for _ in range(3)]
        again = d.post("/v1/tasks", {"model": "m", "input": 1},
                       headers={"Idempotency-Key": '"k"'}).expect(202).json
        assert again["id"] != key["id"] and again["receipt"]["epoch"] > receipt["epoch"] + 10**6
        for id in [*new, again["id"]]:
            assert w.say("result", w.task(), output="new") == "accepted"
            assert d.task(id)["output"] == "new"
        left(d)
        for id in [*unknown, key["id"]]:
            d.get(f"/v1/tasks/{id}").problem(404, "not_found")
        assert d.task(new[0])["output"] == "new"
        w.close()
        other.stop()


def test_a_bad_backup_is_refused(servers, tmp_path):
    server = servers(QUICK)
    c = server.client()
    for i in range(20):
        c.done(c.new({"n": i, "pad": "x" * 900}))
    c.upload(b"f" * 3000)
    left(c)
    good = backup(server, tmp_path / "good.tar").read_bytes()
    server.stop()
    bad = tmp_path / "bad.tar"
    data = tmp_path / "new"

    def refused(content, word=""):
        bad.write_bytes(content)
        r = headrace("restore", bad, "--data", data)
        assert r.returncode == 1 and word in r.stderr, r.stdout + r.stderr
        assert not data.exists()

    chance = random.Random(5)
    refused(b"", "empty")
    refused(b"no tar at all" * 100, "no backup of Headrace")
    for end in (1000, len(good) // 2, len(good) - 1024 - 600, len(good) - 600):
        refused(good[:end], "not whole" if end > 3000 else "")
    with tarfile.open(fileobj=io.BytesIO(good)) as t:
        members = t.getmembers()
        content = {m.name: t.extractfile(m).read() for m in members}
    for m in members:  # a bit of every entry, and of its header
        if m.size:
            at = m.offset_data + chance.randrange(m.size)
            refused(good[:at] + bytes([good[at] ^ 1 << chance.randrange(8)]) + good[at + 1:])
        at = m.offset + chance.randrange(100)
        refused(good[:at] + bytes([good[at] ^ 4]) + good[at + 1:])

    def packed(changes, order=None):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as t:
            for name in order or list(content):
                info = tarfile.TarInfo(name)
                if isinstance(changes.get(name), tarfile.TarInfo):
                    t.addfile(changes[name])
                    continue
                info.size = len(content[name])
                t.addfile(info, io.BytesIO(content[name]))
            for name, body in changes.items():
                if name not in content:
                    info = tarfile.TarInfo(name)
                    info.size = len(body)
                    t.addfile(info, io.BytesIO(body))
        return out.getvalue()

    bad.write_bytes(packed({}))  # packed again by another hand: the same
    assert headrace("restore", bad, "--data", data).returncode == 0
    r = headrace("restore", bad, "--data", data)
    assert r.returncode == 1 and "is not empty" in r.stderr and (data / "format").exists()
    shutil.rmtree(data)
    data.mkdir()
    (data / "something").write_text("mine")
    assert headrace("restore", bad, "--data", data).returncode == 1
    assert [p.name for p in data.iterdir()] == ["something"]
    shutil.rmtree(data)
    for name in ("../evil", "/tmp/evil", "log/../../evil", "files/file_../../evil", "lock", "worker.key",
                 "files/tmp/x", "log/x.seg", "restoring/x"):
        rest = [n for n in content if n != "manifest"]
        content[name] = b"evil"
        refused(packed({}, [rest[0], name, *rest[1:], "manifest"]), "no part of a backup")
        del content[name]
    link = tarfile.TarInfo("history.sqlite")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    refused(packed({"history.sqlite": link}), "no backup of Headrace")
    without = [n for n in content if not n.startswith("log/")]
    refused(packed({}, without), "manifest")
    assert not (tmp_path / "evil").exists()
    # A pipe will do, and an empty directory.
    data.mkdir()
    r = subprocess.run([HEADRACE, "restore", "-", "--data", data], input=good, capture_output=True)
    assert r.returncode == 0, r.stderr


def test_a_backup_needs_the_scope_and_room(servers, tmp_path):
    secret = {name: f"hr_live_{name * 26}"[:34] for name in ("a", "b")}
    keys = "".join(f"  - {{name: {n}, sha256: {hashlib.sha256(k.encode()).hexdigest()}, scopes: [{scope}]}}\n"
                   for (n, k), scope in zip(secret.items(), ("admin", "read, submit, operate")))
    server = servers(QUICK + "keys:\n" + keys, key=secret["a"])
    r = headrace("backup", "-o", tmp_path / "b.tar", server=server, HEADRACE_API_KEY=secret["b"])
    assert r.returncode == 4 and "admin" in r.stderr
    assert not list(tmp_path.glob("b.tar*"))
    r = headrace("backup", "--to", tmp_path, server=server, HEADRACE_API_KEY=secret["a"])
    assert r.returncode == 0, r.stderr
    assert len(list(tmp_path.glob("headrace-*.tar"))) == 1
    assert headrace("backup", "-o", tmp_path / "none" / "b.tar", server=server).returncode == 1
    assert headrace("backup", "-o", tmp_path / "c.tar", server="http://127.0.0.1:1").returncode == 3
    answer = server.client().get("/v1/backup").expect(200)
    assert answer.headers["content-type"] == "application/x-tar"
    assert tarfile.open(fileobj=io.BytesIO(answer.body)).getnames()[-1] == "manifest"
