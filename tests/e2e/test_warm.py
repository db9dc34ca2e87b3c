"""Models that are kept loaded ahead of demand: by their model.yaml, by order; and that a task says why it waits."""

import hashlib
import subprocess

from conftest import QUICK
from server import HEADRACE, environment, headrace, wait_until
from test_memory import add_model, another_worker, version


def make(repository, name, memory, min_warm=None):
    add_model(repository, name, memory)
    if min_warm is not None:
        yaml = repository / name / "model.yaml"
        yaml.write_text(f"min_warm: {min_warm}\n{yaml.read_text()}")


def loaded(c, name):
    return sorted((p["worker"], p["device"]) for p in version(c, name)["loaded_on"])


def until_loaded(c, name, n=1, seconds=20):
    return wait_until(lambda: len(on := loaded(c, name)) == n and on, seconds, f"{name} to be loaded {n} times")


def test_warm_by_its_model_yaml(servers, tmp_path):
    """Loaded before its first task, again after its worker's and the server's restart, and no eviction's victim."""
    repository = tmp_path / "repo"
    make(repository, "warm", "100MiB", 1)
    make(repository, "b", "100MiB")
    make(repository, "c", "100MiB")
    server = servers(QUICK + "workers: {memory: 220MiB}\n", models=[repository])
    c = server.client()
    until_loaded(c, "warm")
    assert version(c, "warm")["warm"] == {"replicas": 1, "loaded": 1, "ordered": False}
    assert version(c, "warm")["succeeded"] == 0
    for _ in range(3):  # one of them only beside it
        for name in ("b", "b", "c"):
            c.run({}, model=name)
            assert loaded(c, "warm") == [("local-0", 0)]
    assert loaded(c, "b") == []
    [pid] = server.workers()
    subprocess.run(["kill", "-9", str(pid)], check=True)
    wait_until(lambda: server.workers() not in ([], [pid]), 20, "another worker")
    until_loaded(c, "warm")
    server.kill()
    server.start()
    c = server.client()
    until_loaded(c, "warm")


def test_warm_by_order(servers, tmp_path):
    repository = tmp_path / "repo"
    make(repository, "m", "100MiB")
    make(repository, "whole", "200MiB")
    server = servers(QUICK + "workers: {memory: 220MiB}\n", models=[repository])
    c = server.client()
    wait_until(lambda: c.get("/v1/models/m").status == 200, 20, "the worker")
    url = "/v1/models/m/warm"
    c.post("/v1/models/nonesuch/warm", {"replicas": 1}).problem(404, "unknown_model")
    for bad in ({}, {"replicas": -1}, {"replicas": 65}, {"replicas": "1"}, {"replica": 1}):
        assert c.post(url, bad).status in (400, 422), bad
    assert "warm" not in version(c, "m")
    c.post(url, {"replicas": 2}).expect(200)
    until_loaded(c, "m")
    w = version(c, "m")["warm"]
    assert (w["replicas"], w["loaded"], w["ordered"]) == (2, 1, True) and "only 1 device" in w["reason"], w
    assert "1 of 2" in headrace("models", server=server).stdout
    assert "only 1 device" in headrace("models", "m", server=server).stdout
    with another_worker(server, tmp_path / "more", "--models", repository, "--memory", "1GiB"):
        until_loaded(c, "m", 2)
        assert "reason" not in version(c, "m")["warm"]
    # It outlives a restart; work goes before warmth, which comes back.
    server.kill()
    server.start()
    c = server.client()
    until_loaded(c, "m")
    c.run({}, model="whole")
    assert loaded(c, "m") == []
    until_loaded(c, "m")
    p = headrace("warm", "m", "default", server=server)
    assert p.returncode == 0 and "model.yaml" in p.stdout, p
    assert "warm" not in version(c, "m")
    assert headrace("warm", "m", "1", server=server).stdout == "m is kept loaded on 1 device, as far as memory allows\n"
    assert headrace("warm", "m", "many", server=server).returncode == 2


def test_a_task_says_why_it_waits(servers, tmp_path):
    repository = tmp_path / "repo"
    make(repository, "huge", "900MiB")
    server = servers(QUICK + "workers: {memory: 256MiB}\n", models=[repository])
    c = server.client()
    wait_until(lambda: c.get("/v1/models/huge").status == 200, 20, "the worker")
    task = c.submit({}, model="huge").expect(202).json
    assert task["queue"]["reason_code"] == "no_memory" and "256 MiB" in task["queue"]["reason"], task
    assert task["queue"]["estimated_start_at"] is None
    assert c.task(task["id"])["queue"] == task["queue"]
    assert "256 MiB" in headrace("get", task["id"], server=server).stdout
    p = headrace("wait", task["id"], "--timeout", "3s", server=server)
    assert p.returncode == 6 and "cannot start now: needs 900 MiB" in p.stderr, p
    fine = c.new({"sleep_ms": 1})
    assert "reason" not in (c.task(fine).get("queue") or {})


def test_the_names_of_own_workers_are_theirs(servers, tmp_path):
    key = "hr_live_far_worker_key_0123456789"
    digest = hashlib.sha256(key.encode()).hexdigest()
    server = servers(QUICK + "keys: [{name: far, sha256: %s, scopes: [worker]}]\n" % digest)
    p = subprocess.run(
        [HEADRACE, "worker", "--server", server.endpoint, "--name", "local-0", "--data", str(tmp_path / "far")],
        env=environment(HEADRACE_WORKER_KEY=key), capture_output=True, text=True,
        timeout=20, stdin=subprocess.DEVNULL)
    assert p.returncode != 0 and "server's own workers" in p.stderr, p
