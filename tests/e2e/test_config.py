"""Configuration, keys, and a server's beginning and end."""

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time

import pytest
from conftest import QUICK
from server import HEADRACE, Client, alive, environment, free_port, headrace, kill, wait_until

USAGE, FAILED = 2, 1


def check(tmp_path, text, *args, **env):
    """serve --check-config of this text: (exit status, the problems said)."""
    path = tmp_path / "conf.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    p = headrace(
    "serve",
    "--config",
    path,
    "--data",
    tmp_path / "data",
    "--check-config",
    *args,
    cwd=tmp_path,
    timeout=20,
     **env)
    return p.returncode, p.stderr


# ---- the file -------------------------------------------------------------------------------------

def test_a_good_file(tmp_path):
    text = """
listen: 127.0.0.1:0
models: []
limits: {body_max: 16MiB, file_max: 2GiB, connections_max: 500, queue_max: 1000, submit_rate: 0.5}
timeouts:
  idle: 500ms
  lease: 1m
retention: {file: 7d, idempotency_key: 48h}
log: {segment_size: 1MiB, level: warn, format: json}
workers: {devices: 2, threads: 1, memory: 1.5GiB}
retry: {backoff_first: 100ms, backoff_max: 1m}
keys:
  - {name: ci, sha256: "%s", tenant: team-a, scopes: [submit, read], expires: 2030-01-01T00:00:00Z}
tenants:
  - {name: team-a, weight: 3, queued_max: 10}
""" % ("ab" * 32)
    status, said = check(tmp_path, text)
    assert status == 0, said
    assert not (tmp_path / "data").exists(), "checking makes nothing"
    assert check(tmp_path, "")[0] == 0


@pytest.mark.parametrize("text,line,words", [
    ("listne: 127.0.0.1:0\n", 1, ("listne", "listen")),
    ("\nlimits:\n  body_mx: 1MiB\n", 3, ("body_mx", "body_max")),
    ("limits:\n  body_max: 8 apples\n", 2, ("limits.body_max", "8 apples", "64MiB")),
    ("limits:\n  body_max: 1\n", 2, ("limits.body_max", "64 KiB")),
    ("timeouts:\n  lease: 30\n", 2, ("timeouts.lease", "30s")),
    ("timeouts:\n  lease: 1y\n", 2, ("timeouts.lease",)),
    ("log:\n  level: loud\n", 2, ("log.level", "loud", "debug, info, warn or error")),
    ("listen: nowhere\n", 1, ("listen", "nowhere")),
    ("listen: 127.0.0.1:99999\n", 1, ("listen", "99999")),
    ("insecure_http: yes please\n", 1, ("insecure_http", "true")),
    ("models: {a: b}\n", 1, ("models", "list")),
    ("models: [/nonexistent/models]\n", 1, ("models", "/nonexistent/models")),
    ("workers:\n  devices: -1\n", 2, ("workers.devices", "-1")),
    ("workers:\n  devices: 1000\n", 2, ("workers.devices", "256")),
    ("body_max: 8MiB\n", 1, ("body_max", "limits")),
    ("limits: 5\n", 1, ("limits",)),
    ("limits:\n  queue_max: 5\n  queue_max: 6\n", 3, ("queue_max", "line 2")),
    ("timeouts:\n  ping: 20s\n  lease: 30s\n", 2, ("timeouts.ping", "lease")),
    ("retry:\n  backoff_first: 2m\n", 2, ("retry.backoff_first", "backoff_max")),
    ("keys:\n  - name: ci\n", 2, ("sha256",)),
    ("keys:\n  - name: ci\n    sha256: xyz\n", 3, ("keys.sha256", "headrace key new")),
    ("keys:\n  - name: ci\n    sha256: %s\n    scopes: [fly]\n" % ("ab" * 32), 4, ("fly", "submit")),
    ("keys:\n  - name: ci\n    sha256: %s\n    expires: soon\n" % ("ab" * 32), 4, ("expires", "soon")),
    ("keys: 5\n", 1, ("keys", "list")),
    ("listen: [\n", 2, ("YAML",)),
    ("\tlisten: x\n", 1, ("YAML",)),
    ("- a\n- b\n", 1, ("keys and values", "list")),
    ("listen: 127.0.0.1:0\n---\nlisten: x\n", 3, ("document",)),
], ids=lambda v: str(v)[:25].strip().replace("\n", " ") if isinstance(v, str) else "")
def test_errors_say_where_what_and_how(tmp_path, text, line, words):
    status, said = check(tmp_path, text)
    assert status == USAGE, (status, said)
    assert f"conf.yaml:{line}: " in said, said
    for word in words:
        assert word in said, said


def test_all_errors_at_once(tmp_path):
    status, said = check(tmp_path, "listne: x\nlimits:\n  body_max: y\nlog: {level: z}\n")
    assert status == USAGE
    for part in ("conf.yaml:1:", "conf.yaml:3:", "conf.yaml:4:"):
        assert part in said, said


def test_rubbish_files(tmp_path):
    for text in (b"\xff\xfe\x00", b"\0\0\0", b"a: &a [*a, *a]\n", b"{" * 5000, b"x" * (2 << 20), bytes(range(256))):
        status, said = check(tmp_path, text)
        assert status == USAGE and said, (text[:20], status, said)
    p = headrace("serve", "--config", tmp_path / "missing.yaml", "--check-config")
    assert p.returncode == USAGE and "missing.yaml" in p.stderr


def test_options(tmp_path):
    assert check(tmp_path, "", "--set", "limits.body_max=1MiB")[0] == 0
    assert check(tmp_path, "", "--set", "models=[]")[0] == 0
    status, said = check(tmp_path, "", "--set", "limits.body_mix=1MiB")
    assert status == USAGE and "body_max" in said
    assert check(tmp_path, "", "--set", "nonsense")[0] == USAGE
    status, said = check(tmp_path, "", "--listen", "nowhere")
    assert status == USAGE and "--listen" in said
    assert check(tmp_path, "", "--models", "/nonexistent")[0] == USAGE
    assert check(tmp_path, "", "--frobnicate")[0] == USAGE
    p = headrace("serve", "--print-config-reference")
    assert p.returncode == 0 and "`backoff_first`" in p.stdout and "`segment_size`" in p.stdout


def test_no_configuration_is_needed(tmp_path):
    """`headrace serve` alone, in an empty home."""
    (tmp_path / "home").mkdir()
    log = open(tmp_path / "log", "wb")
    p = subprocess.Popen([HEADRACE,
    "serve",
    "--listen",
    "127.0.0.1:0"],
    stdout=log,
    stderr=log,
    stdin=subprocess.DEVNULL,
    cwd=tmp_path,
    env=environment(HOME=str(tmp_path / "home"),
     XDG_STATE_HOME=""))
    try:
        endpoint = tmp_path / "home/.local/state/headrace/endpoint"
        wait_until(lambda: endpoint.exists() or p.poll() is not None, 30, "the server")
        assert p.poll() is None, (tmp_path / "log").read_text()
        url = endpoint.read_text()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+\n", url)
        assert url.strip() in (tmp_path / "log").read_text(), "the bound address is printed"
        assert Client(url.strip()).run("hi")["output"] == "hi"
        p.terminate()
        assert p.wait(20) == 0
        assert not endpoint.exists(), "a server that has ended leaves no endpoint"
    finally:
        p.kill()
        p.wait()
        log.close()


# ---- where it listens -----------------------------------------------------------------------------

def test_only_loopback_without_keys(tmp_path):
    for listen in ("0.0.0.0:0", "[::]:0", "192.0.2.1:0"):
        status, said = check(tmp_path, f'listen: "{listen}"\n')
        assert status == USAGE and "listen" in said and "key" in said, said
        p = headrace("serve", "--listen", listen, "--data", tmp_path / "data", cwd=tmp_path, timeout=20)
        assert p.returncode == USAGE and "key" in p.stderr, p
    key = "keys:\n  - {name: a, sha256: %s}\n" % ("ab" * 32)
    status, said = check(tmp_path, key + "listen: 0.0.0.0:0\n")
    assert status == USAGE and "insecure_http" in said
    assert check(tmp_path, key + "listen: 0.0.0.0:0\ninsecure_http: true\n")[0] == 0


def test_ipv6(servers):
    with socket.socket(socket.AF_INET6) as s:
        try:
            s.bind(("::1", 0))
        except OSError:
            return  # no IPv6 on this machine: nothing to test
    server = servers(start=False)
    server.launch = lambda: launch(server, "[::1]:0")
    server.start()
    assert server.endpoint.startswith("http://[::1]:")
    assert server.client().run(6)["output"] == 6


def launch(server, listen):
    with open(server.log_path, "ab") as log:
        server.process = subprocess.Popen([*server.command, "--listen", listen], stdin=subprocess.DEVNULL, stdout=log,
                                          stderr=log, cwd=server.folder, env=server.env)
    return server


def test_a_taken_port(servers):
    first = servers(port=free_port())
    second = servers(start=False, port=first.port)
    second.launch()
    assert second.process.wait(20) == FAILED
    assert str(first.port) in second.log_text() and "in use" in second.log_text()
    assert first.client().run(1)


# ---- keys -----------------------------------------------------------------------------------------

def new_key(*args):
    p = headrace("key", "new", *args)
    assert p.returncode == 0, p
    snippet = p.stderr[p.stderr.index("keys:\n") + 6:]
    return p.stdout.strip(), snippet


def test_keys_and_scopes(servers):
    keys, config = {}, QUICK + "keys:\n"
    for name, tenant, scopes in (("submit", "a", "submit"), ("read", "a", "read"), ("both", "b", "submit,read"),
                                 ("operate", "a", "operate"), ("admin", "a", "admin"), ("worker", "a", "worker")):
        keys[name], snippet = new_key("--name", name, "--tenant", tenant, "--scopes", scopes)
        config += snippet
    keys["old"], snippet = new_key("--name", "old", "--expires", "2020-01-01T00:00:00Z")
    server = servers(config + snippet)
    c = {name: server.client(key) for name, key in keys.items()}
    nobody = Client(server.endpoint)

    r = nobody.get("/v1/tasks")
    r.problem(401, "unauthorized")
    assert r.headers["www-authenticate"].startswith("Bearer")
    assert nobody.get("/livez").status == 200 and nobody.get("/readyz").status == 200
    nobody.submit(1).problem(401, "unauthorized")
    Client(server.endpoint, "hr_live_" + "0" * 26).get("/v1/tasks").problem(401, "unauthorized")
    c["old"].get("/v1/tasks").problem(401, "unauthorized")

    mine = c["submit"].new({"of": "a"})
    assert c["submit"].done(mine)["output"] == {"of": "a"}, "who submits may read its task"
    assert c["read"].task(mine)["tenant"] == "a"
    c["read"].submit(1).problem(403, "forbidden")
    c["read"].post(f"/v1/tasks/{mine}/cancel").problem(403, "forbidden")
    c["submit"].post("/v1/models/echo/pause").problem(403, "forbidden")
    c["operate"].post("/v1/models/echo/pause").expect(200)
    c["operate"].post("/v1/models/echo/resume").expect(200)
    c["operate"].submit(1).problem(403, "forbidden")
    c["worker"].get("/v1/tasks").problem(403, "forbidden")
    c["both"].post("/v1/worker/register", {}).problem(403, "forbidden")
    assert c["admin"].task(mine)["id"] == mine

    # Tenants are apart: another one's task, file, key is not there.
    theirs = c["both"].run({"of": "b"})["id"]
    c["read"].get(f"/v1/tasks/{theirs}").problem(404, "not_found")
    c["submit"].post(f"/v1/tasks/{theirs}/cancel").problem(404, "not_found")
    c["submit"].delete(f"/v1/tasks/{theirs}").problem(404, "not_found")
    c["read"].get(f"/v1/tasks/{theirs}/events").problem(404, "not_found")
    assert [t["id"] for t in c["both"].list()] == [theirs]
    assert mine not in [t["id"] for t in c["both"].list()]
    assert {t["tenant"] for t in c["admin"].list()} == {"a", "b"}
    f = c["both"].upload(b"b's").expect(201).json
    c["submit"].get(f"/v1/files/{f['id']}/content").problem(404, "not_found")
    c["submit"].submit({"x": {"$file": f["id"]}}).problem(422, "invalid_request")
    assert c["both"].submit(1, key="same").json["id"] != c["submit"].submit(2, key="same").json["id"]
    c["read"].get("/v1/tasks?tenant=b").expect(403, 200)

    # The command line takes a key from the environment or a file.
    p = headrace("tasks", "-q", server=server, HEADRACE_API_KEY=keys["both"])
    assert p.returncode == 0 and theirs in p.stdout
    (server.folder / "key").write_text(keys["both"] + "\n")
    assert headrace("tasks", "--key-file", server.folder / "key", server=server).returncode == 0
    p = headrace("tasks", server=server)
    assert p.returncode == 4 and "HEADRACE_API_KEY" in p.stderr


def test_secrets_stay_secret(servers):
    """The worker's key is for its owner only, and no key is in a log or a command line."""
    key, snippet = new_key("--scopes", "admin")
    server = servers(QUICK + "keys:\n" + snippet)
    c = server.client(key)
    c.run(1)
    path = server.data / "worker.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.data.stat().st_mode) & 0o077 == 0, "the data directory is open to others"
    worker_key = server.worker_key
    log = server.log_text()
    assert key not in log and worker_key not in log
    for pid in server.workers():
        assert worker_key.encode() not in open(f"/proc/{pid}/cmdline", "rb").read()
    assert worker_key.encode() not in c.get("/v1/workers").body + c.get("/metrics").body


def test_fair_share_between_tenants(servers):
    """Who floods waits: another tenant's tasks start among the flood's, not behind it."""
    a, one = new_key("--name", "a", "--tenant", "flood")
    b, two = new_key("--name", "b", "--tenant", "calm")
    ops, three = new_key("--name", "o", "--scopes", "operate")
    server = servers(QUICK + "keys:\n" + one + two + three)
    flood, calm, operator = server.client(a), server.client(b), server.client(ops)
    operator.post("/v1/models/echo/pause").expect(200)
    many = [flood.new({"sleep_ms": 10, "i": i}) for i in range(600)]
    few = [calm.new({"sleep_ms": 10, "i": i}) for i in range(50)]
    operator.post("/v1/models/echo/resume").expect(200)
    last = max(calm.done(id, 60)["started_at"] for id in few)
    starts = sorted(flood.done(id, 60)["started_at"] for id in many)
    assert last <= starts[len(starts) // 2], (last, starts[len(starts) // 2], starts[-1])


# ---- the end --------------------------------------------------------------------------------------

def test_sigterm_drains(servers):
    """A running task finishes; what waits stays queued; nothing new is taken; no attempt burns."""
    server = servers(port=free_port())
    c = server.client()
    running = c.new({"sleep_ms": 1500})
    c.until(running, "running")
    waiting = c.new("later", delay_s=1)
    answers = []
    poll = server.client()
    start = time.monotonic()
    kill(server.pid, signal.SIGTERM)
    time.sleep(0.3)
    with contextlib.suppress(Exception):
        r = c.submit("too late")
        answers.append(r)
        r.problem(503, r.json["code"])
    with contextlib.suppress(Exception):
        answers.append(poll.get(f"/v1/tasks/{running}?wait=10"))
    assert server.process.wait(20) == 0
    assert 0.8 < time.monotonic() - start < 8
    assert all(a.status in (200, 503) for a in answers), answers
    server.start()
    c = server.client()
    task = c.task(running)
    assert task["status"] == "succeeded" and task["attempt"] == 1 and task["output"] == {"sleep_ms": 1500}, task
    assert c.done(waiting)["output"] == "later"
    assert not [t for t in c.list() if t["output"] == "too late"]


def test_a_second_sigterm_hurries(servers):
    server = servers(port=free_port())
    c = server.client()
    id = c.new({"sleep_ms": 60000, "units": 600, "n": 1})
    c.until(id, "running")
    kill(server.pid, signal.SIGTERM)
    time.sleep(0.5)
    assert server.running, "the task runs still"
    start = time.monotonic()
    kill(server.pid, signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert time.monotonic() - start < 6
    server.start()
    c = server.client()
    task = wait_until(lambda: (t := c.task(id)) and t["status"] == "running" and t, 20, "it to run again")
    assert task["attempt"] == 1, "handed back: no attempt is burned"
    c.post(f"/v1/tasks/{id}/cancel").expect(200)


def test_sigint_is_the_same(servers):
    server = servers()
    assert server.client().run(1)
    kill(server.pid, signal.SIGINT)
    assert server.process.wait(20) == 0


def test_long_polls_and_streams_end_with_the_server(servers):
    server = servers()
    c = server.client()
    id = c.new(1, delay_s=600)
    stream = c.events(id)
    it = iter(stream)
    next(it)
    start = time.monotonic()
    kill(server.pid, signal.SIGTERM)
    assert [e for e in it] == []
    assert server.process.wait(20) == 0
    assert time.monotonic() - start < 8
    stream.close()


def test_one_server_a_data_directory(servers):
    first = servers()
    log = first.folder / "second.log"
    p = headrace("serve", "--data", first.data, "--config", first.config_path, "--listen", "127.0.0.1:0", timeout=30)
    log.write_text(p.stderr)
    assert p.returncode == FAILED and re.search(r"another|lock|in use|runs", p.stderr, re.I), p
    assert str(first.pid) in p.stderr, "it says who"
    c = first.client()
    assert first.endpoint_file.read_text().strip() == first.endpoint, "the second one touched nothing"
    assert c.run("unharmed")["output"] == "unharmed"


def test_children_end_with_the_server(servers):
    server = servers("workers: {devices: 3}\n")
    assert len(server.client().get("/v1/workers").json["workers"]) == 3
    pids = server.workers()
    assert len(pids) == 3
    assert server.stop() == 0
    assert not [p for p in pids if alive(p)]
    server.start()
    pids = server.workers()
    server.kill()
    assert not [p for p in pids if alive(p)]


def test_a_killed_worker_comes_back(servers):
    server = servers()
    c = server.client()
    id = c.new({"sleep_ms": 1000})
    c.until(id, "running")
    start = time.monotonic()
    [pid] = server.workers()
    kill(pid)
    task = c.done(id)
    assert task["status"] == "succeeded" and task["attempt"] == 2, "a crash costs one attempt, of what ran alone"
    assert time.monotonic() - start < 4, "the leases of a dead child end at once, not by time"
    assert server.workers() != [pid]


def test_a_crash_costs_companions_nothing(servers):
    """Who shared a batch with what crashed pays no attempt; what crashes each time fails in the end."""
    server = servers()
    c = server.client()
    c.post("/v1/models/echo/pause").expect(200)
    good = [c.new({"sleep_ms": 300, "i": i}, max_attempts=1) for i in range(5)]
    bad = c.new({"sleep_ms": 100, "fail": "crash"}, max_attempts=2)
    c.post("/v1/models/echo/resume").expect(200)
    task = c.done(bad, 60)
    assert task["status"] == "failed" and task["error"]["code"] == "model_crashed", task
    for id in good:
        task = c.done(id, 60)
        assert task["status"] == "succeeded" and task["attempt"] == 1, task


def test_a_data_directory_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("x")
    p = headrace("serve", "--data", tmp_path / "file", "--listen", "127.0.0.1:0", cwd=tmp_path, timeout=20)
    assert p.returncode in (USAGE, FAILED) and "file" in p.stderr, p
    p = headrace("serve", "--data", tmp_path / "file" / "below", "--listen", "127.0.0.1:0", cwd=tmp_path, timeout=20)
    assert p.returncode in (USAGE, FAILED) and "below" in p.stderr, p
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        p = headrace(
    "serve",
    "--data",
    tmp_path /
    "locked" /
    "data",
    "--listen",
    "127.0.0.1:0",
    cwd=tmp_path,
     timeout=20)
        assert p.returncode in (USAGE, FAILED) and "locked" in p.stderr, p


def test_a_restored_copy_serves_the_same(servers):
    """A copy of the directory of a server that was killed is as good as the original."""
    server = servers(port=free_port())
    c = server.client()
    ids = [c.run(i)["id"] for i in range(20)]
    seen = [c.task(id) for id in ids]
    server.kill()
    copy = servers(start=False)
    shutil.copytree(server.data, copy.data)
    copy.start()
    c = copy.client()
    for task in seen:
        again = c.task(task["id"])
        assert {**again, "receipt": 0} == {**task, "receipt": 0}
