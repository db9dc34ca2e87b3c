"""Bad days of the disk: full, read-only, slow, failing. Nothing that was acknowledged is lost, and what can go on
goes on by itself."""

import contextlib
import errno
import threading
import time

import pytest
from conftest import QUICK
from server import Lost, alive, free_port, wait_until
from weather import S, SmallDisk, Weather

CONFIG = QUICK + "log: {segment_size: 1MiB}\n"


@pytest.fixture
def weather(tmp_path):
    return Weather(tmp_path, tmp_path / "s0" / "data")


@pytest.fixture
def server(servers, weather):
    """Not started; its clock and disk are the test's to spoil."""
    return servers(CONFIG, start=False, env=weather.env, port=free_port())


@pytest.fixture
def disk(server, weather):
    disk = SmallDisk(server.data, weather)
    yield disk
    server.close()
    disk.close()


def refused_start(server, seconds=20):
    """Starts it, and it ends: (status, what it said)."""
    before = len(server.log_text())
    server.launch()
    status = server.process.wait(seconds)
    return status, server.log_text()[before:]


def submit_until(client, code, seconds=15):
    """Submits until that problem comes; the ids of what was accepted."""
    ids, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        r = client.submit({"pad": "x" * 3000})
        if r.status == 503:
            assert r.problem(503, code)["detail"] and int(r.headers["retry-after"]) >= 1, r
            return ids
        ids.append(r.expect(202).json["id"])
    raise AssertionError(f"no {code} within {seconds} s: {len(ids)} were accepted")


# ---- full -----------------------------------------------------------------------------------------

def test_a_full_disk_and_its_recovery(server, disk):
    """Others fill the disk under the running server: what is accepted ends, submits are refused, and all is well
    again when there is space, without a restart. A kill in between loses nothing."""
    c = server.start().client()
    c.post("/v1/models/echo/pause").expect(200)
    ids = [c.new({"i": i}) for i in range(40)]
    late = c.new({"canceled": True}, delay_s=600)
    keyed = c.submit("once", key="k").expect(202).json["id"]
    large = c.submit("x" * 200_000, key="large").expect(202).json["id"]
    disk.fill()
    ids += submit_until(c, "disk_full")
    c.upload(b"x" * 100_000).problem(503, "disk_full")
    c.submit("twice", key="l").problem(503, "disk_full")
    for input, key, id in (("once", "k", keyed), ("x" * 200_000, "large", large)):  # a repeat needs no room
        r = c.submit(input, key=key).expect(202)
        assert r.json["id"] == id and r.headers["idempotent-replayed"] == "true"

    # What was accepted can be read, canceled and finished: there is room kept for that.
    assert c.task(ids[0])["status"] == "queued"
    assert c.post(f"/v1/tasks/{late}/cancel").expect(200).json["status"] == "canceled"
    c.post("/v1/models/echo/resume").expect(200)
    for id in [*ids[:40], keyed]:
        assert c.done(id, 20)["status"] == "succeeded"
    c.submit(1).problem(503, "disk_full")

    disk.free()
    new = wait_until(lambda: (r := c.submit("again")).status == 202 and r.json["id"], 10, "a submit to be accepted")
    assert c.done(new)["output"] == "again"
    assert c.submit("once", key="k").expect(202, 200).json["id"] == keyed
    assert c.upload(b"x" * 100_000).status == 201
    for id in ids:
        assert c.done(id, 20)["status"] == "succeeded"
    assert server.started == 1 and "broken invariant" not in server.log_text()
    server.kill()
    c = server.start().client()
    assert {t["id"] for t in c.list(status="succeeded")} >= {*ids, keyed, new}
    assert c.task(late)["status"] == "canceled"


def test_a_large_output_waits_for_space(server, disk):
    """An output that is a file has no reserved room: the worker keeps it until there is space."""
    c = server.start().client()
    c.post("/v1/models/echo/pause").expect(200)
    id = c.new({"pad": "y" * 200_000})
    disk.fill()
    c.post("/v1/models/echo/resume").expect(200)
    c.until(id, "running")
    wait_until(lambda: c.submit("z" * 3000).status == 503, 15, "the disk to be full")
    assert c.task(id)["status"] == "running"
    disk.free()
    task = c.done(id, 30)
    assert task["status"] == "succeeded" and task["attempt"] == 1, task


def test_a_start_on_a_full_disk(server, disk):
    """A server that was killed on a full disk comes back on it, and goes on when there is space."""
    c = server.start().client()
    done = c.run("before")["id"]
    waiting = c.new({"waits": True}, delay_s=3)
    disk.fill()
    queued = submit_until(c, "disk_full")
    server.kill()
    disk.fill()  # what the kill left unused
    server.launch()
    wait_until(lambda: answers(server, f"http://127.0.0.1:{server.port}"), 20, "an answer")
    server.endpoint = f"http://127.0.0.1:{server.port}"
    c = server.client()
    assert c.task(done)["status"] == "succeeded"
    wait_until(lambda: c.submit("no").status == 503, 15, "a refusal")
    disk.free()
    for id in [waiting, *queued]:
        assert c.done(id, 30)["status"] == "succeeded"
    wait_until(lambda: c.submit("yes").status == 202, 10, "a submit to be accepted")


def answers(server, endpoint):
    from server import Client
    assert server.running, server.log_tail()
    with contextlib.suppress(Lost):
        return Client(endpoint).get("/livez").status == 200
    return False


def test_a_start_without_any_space(servers, tmp_path):
    """A disk without a free byte: the message says what helps, nothing is changed, and the start after that works."""
    data = tmp_path / "s0" / "data"
    weather = Weather(tmp_path, data)
    server = servers(CONFIG, start=False, env=weather.env)
    disk = SmallDisk(data, weather, size=1 << 20)
    try:
        disk.fill()
        status, said = refused_start(server)
        assert status == 1 and "disk full" in said and "Free some space" in said and "nothing is lost" in said, said
        disk.free()
        c = server.start().client()
        ids = [c.run(i)["id"] for i in range(5)]
        server.kill()
        weather.set(write_err=errno.ENOSPC)  # not even what the server itself had set aside
        status, said = refused_start(server)
        assert status == 1 and "Free some space" in said and str(data) in said, said
        weather.set(write_err=0)
        assert [t["id"] for t in server.start().client().list()] == ids[::-1]
    finally:
        server.close()
        disk.close()


# ---- read-only ------------------------------------------------------------------------------------

def test_a_read_only_directory(server, disk, weather):
    """It becomes read-only under the server: the server stops and says so. It does not start on it; made writable
    again, it does, and nothing is lost."""
    c = server.start().client()
    ids = [c.run(i)["id"] for i in range(5)] + [c.new("later", delay_s=600)]
    weather.set(write_err=errno.EROFS)
    with contextlib.suppress(Lost):
        raise AssertionError(f"acknowledged without a write: {c.submit('lost')}")
    assert server.process.wait(20) == 1
    assert "the log failed (read-only)" in server.log_text(), server.log_tail()
    weather.set(write_err=0)
    disk.read_only(True)
    status, said = refused_start(server)
    assert status == 1 and "read-only" in said and "writable" in said and "--data" in said, said
    disk.read_only(False)
    c = server.start().client()
    assert {t["id"] for t in c.list()} >= set(ids)
    assert c.run("well again")["output"] == "well again"


# ---- a slow or failing log device -----------------------------------------------------------------

def test_a_log_device_that_takes_a_second(servers, tmp_path):
    """Each sync takes 1.5 s, leases last 3 s: submits are refused while the log lags, no lease ends, nothing is
    lost, and it recovers by itself."""
    weather = Weather(tmp_path, tmp_path / "s0" / "data")
    server = servers("timeouts: {lease: 3s, ping: 1s}\n", env=weather.env, port=free_port())
    c = server.client()
    long = c.new({"sleep_ms": 5000, "units": 50})
    c.until(long, "running")
    weather.set(sync_ns=1.5 * S)
    ids, refused, begin = [], [], time.monotonic()

    def submit(i):  # at its time, whatever the others wait for
        time.sleep(max(0, begin + i * 0.1 - time.monotonic()))
        mine = server.client()
        r = mine.submit("slow")
        if r.status == 503:
            refused.append(r)
        else:
            ids.append(r.expect(202).json["id"])
        mine.close()

    threads = [threading.Thread(target=submit, args=(i,)) for i in range(40)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert ids and refused and len(ids) + len(refused) == 40, (len(ids), len(refused))
    for r in refused:
        r.problem(503, "log_stalled")
        assert int(r.headers["retry-after"]) >= 1
    weather.set(sync_ns=0)
    wait_until(lambda: c.submit("quick").status == 202, 10, "a submit to be accepted")
    assert_leased_once(c, long)
    assert server.started == 1
    server.kill()
    c = server.start().client()
    for id in ids:
        assert c.done(id)["status"] == "succeeded"


def assert_leased_once(client, id):
    """It succeeds, and no lease of it ended before."""
    assert client.done(id, 30)["status"] == "succeeded"
    with client.events(id) as stream:
        states = [e.data["status"] for e in stream if e.name == "status"]
    assert states == ["queued", "running", "succeeded"], states


def test_a_log_device_that_hangs(servers, tmp_path):
    """One sync takes 5 s, more than twice the lease: submits get log_stalled, running tasks keep their leases."""
    weather = Weather(tmp_path, tmp_path / "s0" / "data")
    server = servers("timeouts: {lease: 2s, ping: 1s}\nworkers: {devices: 2}\n", env=weather.env)
    c, other = server.client(), server.client()
    running = [c.new({"sleep_ms": 6000, "units": 60, "i": i}) for i in range(2)]
    for id in running:
        c.until(id, "running")
    weather.set(sync_ns=5 * S)
    got = []
    t = threading.Thread(target=lambda: got.append(other.submit("held")))
    t.start()
    wait_until(lambda: c.get("/readyz").status == 503, 5, "not to be ready")
    assert "not synced" in c.get("/readyz").body.decode()
    c.submit("x").problem(503, "log_stalled")
    weather.set(sync_ns=0)  # of the syncs that follow
    t.join()
    assert got[0].status == 202, got
    for id in running:
        assert_leased_once(c, id)
    assert c.done(got[0].json["id"])["output"] == "held"


def test_a_sync_that_fails_once(server, weather):
    """After a sync that failed the page cache says more than the disk: the process stops, it does not try again.
    The next start replays what is there."""
    c = server.start().client()
    ids = [c.run(i)["id"] for i in range(10)]
    waits = c.new("later", delay_s=600)
    workers = server.workers()
    weather.set(sync_fail=1)
    with contextlib.suppress(Lost):
        raise AssertionError(f"acknowledged without a sync: {c.submit('in doubt')}")
    assert server.process.wait(10) == 1
    assert weather.get("failures") == 1 and weather.get("sync_fail") == 0
    syncs = weather.get("syncs")
    assert "the log failed (input/output error)" in server.log_text(), server.log_tail()
    for pid in workers:
        wait_until(lambda pid=pid: not alive(pid), 10, "the workers to end")
    assert weather.get("syncs") == syncs, "it tried again"
    c = server.start().client()
    for id in ids:
        assert c.task(id)["status"] == "succeeded"
    assert c.task(waits)["status"] == "queued"
    assert c.run("goes on")["output"] == "goes on"
