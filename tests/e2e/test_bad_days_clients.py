"""Bad days of the clients: bodies without end, clients that dawdle or never read, ten thousand of them, and too few
descriptors for them. The server stays there for everybody else."""

import contextlib
import resource
import socket
import struct
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import QUICK
from server import SLOW, kill, parse_answers, wait_until

RESET = struct.pack("ii", 1, 0)


def connect(server, timeout=10.0, buffer=None):
    parts = urlsplit(server.endpoint)
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)  # no thousands of ports in TIME_WAIT
    if buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    s.settimeout(timeout)
    s.connect((parts.hostname, parts.port))
    return s


def is_over(s):
    """Has the server ended this connection?"""
    s.setblocking(False)
    try:
        while s.recv(65536):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def memory_mib(server):
    for line in Path("/proc", str(server.pid), "status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024


def descriptors(server):
    return len(list(Path("/proc", str(server.pid), "fd").iterdir()))


def assert_responsive(server, n=20, within=1.0):
    """Whatever others do: requests of a good client are answered at once, and its tasks run."""
    c = server.client()
    for i in range(n):
        start = time.monotonic()
        c.get("/livez").expect(200)
        assert c.submit(i, wait=20).expect(200).json["output"] == i
        took = time.monotonic() - start
        assert took < within * SLOW, f"{took:.2f} s for a task that does nothing"
    c.close()


@contextlib.contextmanager
def many_files():
    """For so many sockets of our own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- bodies without end ---------------------------------------------------------------------------

@pytest.mark.parametrize("path,kind,limit_mib", [
    ("/v1/tasks", "application/json", 8), ("/v1/tasks:batch", "application/x-ndjson", 64),
    ("/v1/files", "application/octet-stream", 12)])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_of_10_gb(big_bodies, path, kind, limit_mib, chunked):
    """Announced, it is refused at once; in chunks without end, at the limit. It is never read to its end."""
    server, before = big_bodies, memory_mib(big_bodies)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {10 * 10**9}"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{length}\r\n\r\n"
    piece = b" " * (1 << 20)
    sent, got, start = 0, b"", time.monotonic()
    with connect(server) as s:
        s.sendall(head.encode())
        try:
            while sent < 300 << 20:
                s.sendall(b"100000\r\n" + piece + b"\r\n" if chunked else piece)
                sent += len(piece)
        except OSError:
            pass  # it has had enough
        with contextlib.suppress(OSError):
            while data := s.recv(65536):
                got += data
    assert sent < 300 << 20, "it reads on and on"
    assert sent >> 20 <= (limit_mib if chunked else 0) + 60, f"{sent >> 20} MiB were taken"
    assert time.monotonic() - start < 15
    if b"\r\n\r\n" in got and chunked is False:
        parse_answers(got)[0].problem(413, "too_large")
    assert_responsive(server, 2, within=5)
    assert memory_mib(server) - before < 200
    wait_until(lambda: not [p for p in (server.data / "files").rglob("*") if p.is_file()], 10, "no leftovers")


@pytest.fixture(scope="module")
def big_bodies(tmp_path_factory):
    from server import Server
    with Server(tmp_path_factory.mktemp("big"), QUICK + "limits: {file_max: 12MiB}\n") as s:
        yield s.start()


# ---- clients that dawdle --------------------------------------------------------------------------

def test_a_crowd_of_slow_clients(servers):
    """Heads and bodies drop by drop, from hundreds at once: each is cut off in time, nobody else notices."""
    server = servers(QUICK.replace("timeouts:", "timeouts:\n  header: 1s\n  idle: 2s"))
    heads = [connect(server) for _ in range(200)]
    bodies = [connect(server) for _ in range(200)]
    silent = [connect(server) for _ in range(100)]
    for s in bodies:
        s.sendall(b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  b"Content-Length: 100000\r\n\r\n{")
    line, start = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n", time.monotonic()
    for n in range(12):  # a byte at a time, always more to come
        for s in heads:
            with contextlib.suppress(OSError):
                s.send(line[n:n + 1])
        assert_responsive(server, 1)
        time.sleep(0.1)
    everyone = heads + bodies + silent
    wait_until(lambda: all(is_over(s) for s in everyone), 15, "all of them to be cut off", every=0.2)
    assert time.monotonic() - start < 20
    assert_responsive(server, 5)
    for s in everyone:
        s.close()


def test_readers_that_never_read(servers):
    """Downloads, answers and event streams that nobody takes: memory stays small, and they are cut off."""
    server = servers(QUICK.replace("timeouts:", "timeouts:\n  idle: 2s"))
    c = server.client()
    file = c.upload(b"x" * 20_000_000).expect(201).json["id"]
    for _ in range(50):
        c.submit("y" * 20_000).expect(202)
    running = c.new({"sleep_ms": 6000, "units": 600})
    before, asks = memory_mib(server), []
    for _ in range(40):
        asks.append((f"GET /v1/files/{file}/content HTTP/1.1\r\nHost: localhost\r\n\r\n", 1))
        asks.append(("GET /v1/tasks?limit=200 HTTP/1.1\r\nHost: localhost\r\n\r\n", 2000))
        asks.append((f"GET /v1/tasks/{running}/events HTTP/1.1\r\nHost: localhost\r\n\r\n", 1))
    sockets = []
    for text, times in asks:
        s = connect(server, timeout=0.01, buffer=4096)
        sockets.append((s, times))
        with contextlib.suppress(OSError):
            s.sendall(text.encode() * times)
    most = 0
    for _ in range(5):
        assert_responsive(server, 3, within=2)
        most = max(most, memory_mib(server) - before)
    assert most < 400, f"{most} MiB for answers that nobody reads"
    # An event stream this small fits into the kernel's buffers: it may go on until its task ends.
    wait_until(lambda: c.metrics()["headrace_http_connections"] <= 45, 20, "them to be cut off", every=0.2)
    assert c.done(running, 20)["status"] == "succeeded"
    for s, _ in sockets:
        s.close()


# ---- very many ------------------------------------------------------------------------------------

def test_ten_thousand_connections(servers):
    """As many as are configured are served; more are refused politely; the server stays responsive, and there is
    room again when they leave."""
    with many_files() as ours, contextlib.ExitStack() as stack:
        wanted = min(10_000, ours - 300)
        server = servers(QUICK + f"limits: {{connections_max: {wanted}}}\n")
        crowd = []
        c = server.client()
        c.get("/livez").expect(200)  # it holds its connection from before
        room = wanted - int(c.metrics()["headrace_http_connections"])
        for i in range(room):
            crowd.append(stack.enter_context(connect(server)))
            if i % 2000 == 0:
                c.get("/livez").expect(200)
        wait_until(lambda: c.metrics()["headrace_http_connections"] >= wanted, 20, "all of them to be there")
        start = time.monotonic()
        assert c.submit("among many", wait=20).expect(200).json["output"] == "among many"
        assert time.monotonic() - start < 2
        refused = [stack.enter_context(connect(server)) for _ in range(100)]
        answers = []
        for s in refused:
            with contextlib.suppress(OSError):
                answers += parse_answers(s.recv(65536))
        assert answers, "none was told why"
        for a in answers:
            a.problem(503, "rate_limited")
            assert "retry-after" in a.headers and a.headers["connection"] == "close"
        assert memory_mib(server) < 600
        for s in crowd[::97]:  # they are served, not only kept
            s.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for s in crowd[::97]:
            assert s.recv(100).startswith(b"HTTP/1.1 200")
    wait_until(lambda: c.metrics()["headrace_http_connections"] < 100, 20, "them to be gone")
    assert_responsive(server, 3)
    assert descriptors(server) < 200
    c.close()


def test_too_few_descriptors(servers):
    """Where the system allows fewer files than connections are configured, it says so and holds fewer; uploads that
    take all their share leave the log its own."""
    server = servers(QUICK + "log: {segment_size: 32KiB}\n", start=False)
    server.command = ["sh", "-c", 'ulimit -n 400; exec "$@"', "sh", *server.command]
    server.start()
    said = server.log_text()
    assert "connections at a time instead of 10000" in said and "ulimit -n" in said and "400" in said, said
    half = b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 300_000
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connect(server)) for _ in range(100)]
        for s in crowd:
            s.sendall(half)
        answers = []
        for s in crowd:
            s.settimeout(0.02)
            with contextlib.suppress(OSError):
                answers += parse_answers(s.recv(65536))
        assert 10 <= len(answers) < 100
        for a in answers:
            a.problem(503, "rate_limited")
        more = []
        for _ in range(300):
            with contextlib.suppress(OSError):
                more.append(stack.enter_context(connect(server)))
        assert descriptors(server) < 400
        for s in more:
            s.close()
        wait_until(lambda: can_submit(server), 10, "room for a client")
        c = server.client()
        for _ in range(100):  # through many segments: each is a descriptor
            wait_until(lambda: c.submit("z" * 2000).expect(202, 503).status == 202, 20, "room for a task")
        assert len(list((server.data / "log").glob("*.seg"))) > 2
        c.close()
    assert_responsive(server, 3)


def test_the_limit_of_open_files_is_raised(servers):
    """The soft limit is for programs that do not know better: the server takes what it needs of the hard one."""
    server = servers(QUICK + "limits: {connections_max: 600}\n", start=False)
    server.command = ["sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh", *server.command]
    server.start()
    [line] = [x for x in Path("/proc", str(server.pid), "limits").read_text().splitlines() if "open files" in x]
    assert int(line.split()[3]) > 1200, line
    assert "connections at a time instead" not in server.log_text()
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(connect(server))
        assert_responsive(server, 1)


def can_submit(server):
    from server import Lost
    with contextlib.suppress(Lost):
        return server.client().submit("in").status == 202
    return False


# ---- many polls, and the end ----------------------------------------------------------------------

def test_a_cancel_behind_a_poll_and_the_past(servers):
    """On one connection, at once: a long poll, a list that the history view answers, and the cancel of what is polled.
    The cancel is not stuck behind the others."""
    server = servers()
    c = server.client()
    c.run("past")
    id = c.new("polled", delay_s=600)
    lines = [f"GET /v1/tasks/{id}?wait=60", *["GET /v1/tasks?limit=5"] * 3, f"POST /v1/tasks/{id}/cancel"]
    start = time.monotonic()
    with connect(server, timeout=30) as s:
        s.sendall("".join(f"{line} HTTP/1.1\r\nHost: localhost\r\n\r\n" for line in lines[:-1]).encode() +
                  f"{lines[-1]} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        got = b""
        while piece := s.recv(65536):
            got += piece
    answers = parse_answers(got)
    assert [a.status for a in answers] == [200] * 5 and answers[0].json["status"] == "canceled", answers
    assert time.monotonic() - start < 10


def test_pipelined_polls_and_the_end(servers):
    """Dozens of long polls of one task on one connection, dozens of connections, and SIGTERM: an answer for each
    connection at least, and an orderly end."""
    server = servers()
    c = server.client()
    ids = [c.new(i, delay_s=600) for i in range(3)]
    polls = b"".join(f"GET /v1/tasks/{ids[i % 3]}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                     for i in range(40))
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connect(server)) for _ in range(40)]
        for s in crowd:
            s.sendall(polls)
        wait_until(lambda: c.metrics()["headrace_http_connections"] >= 41, 10)
        c.get("/livez").expect(200)  # behind all of theirs
        kill(server.pid, 15)
        for s in crowd:
            got = b""
            with contextlib.suppress(OSError):
                while piece := s.recv(65536):
                    got += piece
            answers = parse_answers(got)
            assert answers and all(a.status == 200 and a.json["status"] == "queued" for a in answers), got[:300]
            assert answers[-1].headers.get("connection") == "close"
    assert server.process.wait(20) == 0, server.log_tail()
