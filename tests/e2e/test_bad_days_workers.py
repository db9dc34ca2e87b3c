"""Bad days of a worker host and the network to it: it vanishes, it comes back with what it did meanwhile, it stands
still. The task runs elsewhere after its lease, late words change nothing, and no attempt is paid for."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from urllib.parse import urlsplit

import pytest
from server import HEADRACE, Server, alive, environment, wait_until


def test_no_thread_for_a_device(tmp_path):
    """A worker that cannot start its threads says so and exits; it is no mistake of ours."""
    stack_kib = 1 << 37  # of every thread: more than there are addresses
    r = subprocess.run(["sh", "-c", f'ulimit -s {stack_kib}; exec "$@"', "sh", HEADRACE, "worker", "--server",
                        "http://127.0.0.1:1", "--data", tmp_path, "--devices", "2"], env=environment(), timeout=20,
                       capture_output=True, text=True)
    assert r.returncode == 1, (r.returncode, r.stderr)
    assert "cannot start the thread of device 0" in r.stderr and "ulimit" in r.stderr, r.stderr
    assert "broken invariant" not in r.stderr


def test_a_registration_that_comes_late(servers):
    """A worker gave up on a registration and made another; then the first one arrives. It goes on by the second, so
    nobody would open what the late one closed: the server has it begin anew."""
    server = servers()
    c = server.client()
    worker = c.get("/v1/workers").expect(200).json["workers"][0]
    digest = c.get("/v1/models/echo/versions/1").expect(200).json["digest"]
    key = (server.data / "worker.key").read_text().strip()
    c.post("/v1/worker/register", {
        "protocol": [1], "name": worker["name"], "worker": worker["id"], "pid": worker["pid"], "running": [],
        "devices": [{"index": 0, "kind": "cpu", "memory_bytes": 1 << 30, "threads": 1}],
        "models": [{"name": "echo", "version": "1", "engine": "echo", "digest": digest, "max_batch": 256}],
    }, headers={"Authorization": f"Bearer {key}"}).expect(200)
    assert c.run("late")["output"] == "late"
    assert server.log_text().count("registered at") == 2


class Network:
    """A wire between a worker and its server that can be cut: nothing gets through, no connection ends."""

    def __init__(self, endpoint):
        parts = urlsplit(endpoint)
        self.target = (parts.hostname, parts.port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.whole, self.stop = threading.Event(), False
        self.whole.set()
        self.pairs = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        ends = {}  # socket: the one that its bytes go to
        while not self.stop:
            if not self.whole.wait(0.05):
                continue
            for s in select.select([self.listener, *ends], [], [], 0.05)[0]:
                if not self.whole.is_set():
                    break
                if s is self.listener:
                    near = s.accept()[0]
                    try:
                        far = socket.create_connection(self.target)
                    except OSError:  # no server there
                        near.close()
                        continue
                    ends |= {near: far, far: near}
                    self.pairs.append((near, far))
                elif s in ends:
                    try:
                        data = s.recv(65536)
                        ends[s].sendall(data)
                    except OSError:
                        data = b""
                    if not data:
                        other = ends.pop(s)
                        del ends[other]
                        other.close()
                        s.close()

    def cut(self):
        self.whole.clear()
        time.sleep(0.1)  # for the turn that is under way

    def heal(self):
        self.whole.set()

    def reset(self):
        """Every connection breaks at once, as when a router restarts."""
        for pair in self.pairs:
            for s in pair:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.stop = True
        self.whole.set()
        self.thread.join()
        for s in [self.listener, *[s for pair in self.pairs for s in pair]]:
            s.close()


class Site:
    """A server without workers of its own, and workers elsewhere, each behind a network of its own."""

    def __init__(self, server, folder, names=("near", "far")):
        self.server, self.client = server, server.client()
        self.networks, self.processes = {}, {}
        for name in names:
            network = self.networks[name] = Network(server.endpoint)
            with open(folder / f"{name}.log", "wb") as log:
                self.processes[name] = subprocess.Popen(
                    [HEADRACE, "worker", "--server", network.endpoint, "--key-file", server.data / "worker.key",
                     "--name", name, "--data", folder / name],
                    stdout=log, stderr=log, env=environment(), stdin=subprocess.DEVNULL)
        wait_until(lambda: len(self.workers()) == len(names), 20, "the workers to join")

    def workers(self):
        return {w["name"]: w for w in self.client.get("/v1/workers").expect(200).json["workers"]}

    def holder(self, id):
        """Who runs it, once somebody does."""
        self.client.until(id, "running")
        return wait_until(lambda: [n for n, w in self.workers().items() if w["running"]], 10, "a holder")[0]

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
        for network in self.networks.values():
            network.close()
        self.client.close()


@pytest.fixture
def site(servers, tmp_path):
    site = Site(servers("timeouts: {lease: 2s, ping: 1s}\nworkers: {devices: 0}\n"), tmp_path)
    yield site
    site.close()


@pytest.fixture(scope="module")
def stuck(tmp_path_factory):
    """A worker of a server's own that stands still with a canceled task, under a long lease: (server, pid, when)."""
    with Server(tmp_path_factory.mktemp("stuck"), "timeouts: {lease: 120s, ping: 30s}\n") as server:
        c = server.start().client()
        id = c.new({"fail": "hang"})
        c.until(id, "running")
        [pid] = server.workers()
        os.kill(pid, signal.SIGSTOP)
        assert c.post(f"/v1/tasks/{id}/cancel").expect(200).json["status"] == "canceled"
        yield server, pid, time.monotonic()


def states(client, id):
    with client.events(id) as stream:
        return [e.data["status"] for e in stream if e.name == "status"]


def test_a_worker_host_that_vanishes(site, stuck):
    """Nothing comes from it and no connection ends: after the lease the task runs elsewhere. It had gone on meanwhile;
    what it then says is fenced, and it works again."""
    c = site.client
    id = c.new({"sleep_ms": 2500, "units": 25})
    lost = site.holder(id)
    site.networks[lost].cut()
    start = time.monotonic()
    wait_until(lambda: c.task(id)["status"] == "queued" or site.holder(id) != lost, 15, "the lease to end")
    assert time.monotonic() - start > 1, "a lease is not ended before its time"
    task = c.done(id, 20)
    assert task["status"] == "succeeded" and task["attempt"] == 1, "the network's fault burns no attempt"
    others = [c.run(i, seconds=20) for i in range(5)]  # nothing goes to who is not there
    fenced = c.metrics()["headrace_reports_fenced_total"]
    site.networks[lost].heal()
    wait_until(lambda: c.metrics()["headrace_reports_fenced_total"] > fenced or
               not site.workers().get(lost, {"running": 1})["running"], 20, "its late words")
    wait_until(lambda: lost in site.workers(), 20, "it to come back")
    again = c.task(id)
    for key in ("status", "output", "finished_at", "metrics", "attempt"):
        assert again[key] == task[key], (key, again, task)
    assert states(c, id).count("succeeded") == 1
    # It does its share again: the other one goes away for good.
    other = next(n for n in site.processes if n != lost)
    site.processes[other].kill()
    assert c.run("by who came back", seconds=30)["output"] == "by who came back"
    assert all(c.task(t["id"]) == t for t in others)
    assert c.metrics()["headrace_log_misfits_total"] == 0


def test_a_network_that_breaks_for_a_moment(site):
    """Every connection is reset while tasks run: the workers come back within their leases with what they hold, and
    nothing runs twice."""
    c = site.client
    ids = [c.new({"sleep_ms": 2500, "units": 25, "i": i}) for i in range(4)]
    for id in ids:
        c.until(id, "running")
    for network in site.networks.values():
        network.reset()
    for id in ids:
        assert c.done(id, 20)["status"] == "succeeded"
        assert states(c, id) == ["queued", "running", "succeeded"], "it kept its lease"
    assert c.metrics()["headrace_leases_held"] == 0


def test_a_worker_host_that_stands_still(site):
    """SIGSTOP of a remote worker: the same as a lost host. Continued, it drops what it held."""
    c = site.client
    id = c.new({"sleep_ms": 2000, "units": 20})
    lost = site.holder(id)
    os.kill(site.processes[lost].pid, signal.SIGSTOP)
    try:
        task = c.done(id, 20)
        assert task["status"] == "succeeded" and task["attempt"] == 1, task
    finally:
        os.kill(site.processes[lost].pid, signal.SIGCONT)
    wait_until(lambda: not site.workers().get(lost, {"running": 1})["running"], 20, "it to come back, with nothing")
    assert c.run("after", seconds=20)["output"] == "after"
    assert c.task(id) == task


def test_the_server_vanishes_and_comes_back(servers, tmp_path):
    """kill -9 of the server while remote workers run its tasks: they go on, and report to the next one."""
    from server import free_port
    server = servers("timeouts: {lease: 5s, ping: 1s}\nworkers: {devices: 0}\n", port=free_port())
    site = Site(server, tmp_path)
    try:
        c = site.client
        ids = [c.new({"sleep_ms": 2000, "units": 20, "i": i}) for i in range(4)]
        for id in ids:
            c.until(id, "running")
        server.kill()
        server.start()
        c = server.client()
        for id in ids:
            task = c.done(id, 30)
            assert task["status"] == "succeeded" and task["attempt"] == 1, task
            assert states(c, id) == ["queued", "running", "succeeded"], "nothing ran twice"
    finally:
        site.close()


def test_who_does_not_let_go_is_ended(stuck):
    """15 s after the cancel its process is ended and another one takes its place, long before the lease would end."""
    server, pid, since = stuck
    c = server.client()
    wait_until(lambda: not alive(pid), 30 - (time.monotonic() - since), "the stuck worker to be ended", every=0.1)
    assert time.monotonic() - since > 10
    assert c.run("the next one", seconds=20)["output"] == "the next one"
    assert server.workers() != [pid] and c.metrics()["headrace_leases_held"] == 0
