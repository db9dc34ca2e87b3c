"""Start, break and talk to a Headrace server: what every end-to-end test stands on.

Standard library only. Nothing is left behind: whoever makes a Server closes it, which ends exactly the
processes that it started, by their numbers.
"""

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path
from urllib.parse import quote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
HEADRACE = os.environ.get("HEADRACE", str(ROOT / "build" / "headrace"))
EXAMPLES = ROOT / "examples" / "models"
FETCHED = ROOT / ".deps" / "models"
TERMINAL = ("succeeded", "failed", "canceled", "expired")
SLOW = float(os.environ.get("HEADRACE_SLOW", "1"))  # of a sanitizer's build: how many times as long to wait
START_S = 40  # with both cores busy


def environment(**more):
    """The environment without anything that would lead a command to another server."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    return env | {"TERM": "dumb", "LC_ALL": "C.UTF-8"} | more


def free_port():
    """A port outside the range the kernel picks from: a client that hammers on a dead server's port
    must not be given that very port for its own end, or the server could not have it back."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(200):
        port = random.SystemRandom().randrange(10000, max(low, 10001))
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                s.bind(("127.0.0.1", port))
                return port
    raise RuntimeError("no free port")


def wait_until(condition, seconds, what="it", every=0.02):
    """The first true value of condition(), or a failed assertion that says what was waited for."""
    seconds *= SLOW
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(every)


# ---- processes ------------------------------------------------------------------------------------

def parents():
    """{pid: parent's pid} of every process there is; zombies are not counted."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                text = Path("/proc", entry, "stat").read_text()
                state, parent = text[text.rindex(")") + 2:].split()[:2]
                if state != "Z":
                    found[int(entry)] = int(parent)
    return found


def alive(pid):
    """Is that process there (and more than a zombie)?"""
    try:
        text = Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return False
    return text[text.rindex(")") + 2] not in "ZX"


def kill(pid, number=signal.SIGKILL):
    """Sends a signal to a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# ---- HTTP -----------------------------------------------------------------------------------------

class Lost(Exception):
    """No whole answer came: whether the server has done it is not known."""


class Answer:
    """One HTTP answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:400]!r}>"

    def expect(self, *statuses):
        """Itself, when it has one of these statuses."""
        assert self.status in statuses, f"expected {statuses}, got {self}"
        return self

    def problem(self, status, code):
        """The problem document, checked: RFC 9457 members and our code."""
        assert self.status == status, f"expected {status} {code}, got {self}"
        kind = self.headers.get("content-type", "")
        assert kind.split(";")[0] == "application/problem+json", (kind, self)
        p = self.json
        assert p["status"] == status and p["code"] == code, self
        assert p["type"] and p["title"] and p["detail"], self
        return p


class Client:
    """Keep-alive HTTP to one server; one thread at a time. A connection that the server has closed
    between two requests is opened again, but no request is ever sent twice."""

    def __init__(self, endpoint, key=None, timeout=30):
        self.endpoint, self.key, self.timeout = endpoint, key, timeout * SLOW
        parts = urlsplit(endpoint)
        self.address = (parts.hostname, parts.port)
        self.conn = None

    def close(self):
        if self.conn:
            self.conn.close()
        self.conn = None

    def _connection(self, timeout):
        if self.conn and self.conn.sock:
            self.conn.sock.settimeout(0)
            try:
                gone = self.conn.sock.recv(1, socket.MSG_PEEK) in (b"", b"x")
            except BlockingIOError:
                gone = False
            except OSError:
                gone = True
            if gone:
                self.close()
        if not self.conn:
            self.conn = http.client.HTTPConnection(*self.address, timeout=timeout)
        if self.conn.sock:
            self.conn.sock.settimeout(timeout)
        self.conn.timeout = timeout
        return self.conn

    def request(self, method, path, body=None, headers=None, timeout=None):
        """An Answer, or Lost. A dict or list as body is sent as JSON."""
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        if self.key:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        try:
            conn = self._connection(timeout * SLOW if timeout else self.timeout)
            conn.request(method, path, body, headers)
            r = conn.getresponse()
            answer = Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
        except (OSError, http.client.HTTPException) as e:
            self.close()
            raise Lost(f"{method} {path}: {e!r}") from e
        if r.will_close:
            self.close()
        return answer

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body=None, **kw):
        return self.request("POST", path, body, **kw)

    def delete(self, path, **kw):
        return self.request("DELETE", path, **kw)

    # -- tasks

    def submit(self, input, model="echo", key=None, wait=None, **fields):
        """The raw answer of POST /v1/tasks."""
        headers = {}
        if key is not None:
            headers["Idempotency-Key"] = json.dumps(key)
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        return self.post("/v1/tasks", {"model": model, "input": input} | fields, headers=headers,
                         timeout=self.timeout / SLOW + (wait or 0))

    def new(self, input, model="echo", **fields):
        """The id of a task that was accepted."""
        return self.submit(input, model, **fields).expect(202).json["id"]

    def task(self, id, query=""):
        return self.get(f"/v1/tasks/{id}{query}").expect(200).json

    def done(self, id, seconds=30):
        """The task once it has ended, by long polls."""
        seconds *= SLOW
        end = time.monotonic() + seconds
        task = self.task(id)
        while task["status"] not in TERMINAL:
            left = end - time.monotonic()
            assert left > 0, f"after {seconds} s still {task}"
            task = self.task(id, f"?wait={max(1, min(5, int(left)))}")
        return task

    def until(self, id, status, seconds=20):
        """The task once it has that status."""
        def look():
            task = self.task(id)
            assert task["status"] == status or task["status"] not in TERMINAL, task
            return task if task["status"] == status else None
        return wait_until(look, seconds, f"{id} to be {status}")

    def run(self, input, model="echo", seconds=60, **fields):
        """Submits and waits: the task, succeeded."""
        task = self.done(self.new(input, model, **fields), seconds)
        assert task["status"] == "succeeded", task
        return task

    def list(self, **filters):
        """Every task that matches, page by page."""
        tasks, cursor = [], None
        while True:
            query = "&".join(f"{k}={quote(str(v))}" for k, v in filters.items())
            query += f"&cursor={cursor}" if cursor else ""
            page = self.get(f"/v1/tasks?{query.lstrip('&')}").expect(200).json
            tasks += page["tasks"]
            cursor = page["next"]
            if not cursor:
                return tasks

    def upload(self, data, query="", kind="application/octet-stream", **headers):
        return self.post(f"/v1/files{query}", data, headers={"Content-Type": kind} | headers)

    def metrics(self):
        """{name or name{labels}: value}"""
        return parse_metrics(self.get("/metrics").expect(200).body.decode())

    def events(self, id, last=None, timeout=30):
        return Events(self, id, last, timeout)


class Event:
    def __init__(self, id, name, data):
        self.id, self.name, self.data = id, name, data

    def __repr__(self):
        return f"<{self.id} {self.name} {json.dumps(self.data)[:200]}>"


class Events:
    """A task's event stream on a connection of its own: iterate over it. Ends with the stream; raises
    Lost when that breaks off. `status` is the HTTP status; `last` the id to go on from."""

    def __init__(self, client, id, last=None, timeout=30):
        headers = {"Accept": "text/event-stream"}
        if client.key:
            headers["Authorization"] = f"Bearer {client.key}"
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        self.last = last
        self.conn = http.client.HTTPConnection(*client.address, timeout=timeout * SLOW)
        try:
            self.conn.request("GET", f"/v1/tasks/{id}/events", headers=headers)
            self.response = self.conn.getresponse()
        except (OSError, http.client.HTTPException) as e:
            self.conn.close()
            raise Lost(repr(e)) from e
        self.status = self.response.status
        self.headers = {k.lower(): v for k, v in self.response.getheaders()}

    def close(self):
        self.conn.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        fields = {}
        while True:
            try:
                line = self.response.readline().decode()
            except (OSError, ValueError, http.client.HTTPException) as e:
                raise Lost(repr(e)) from e
            if not line:
                # http.client takes a connection that breaks between chunks for an end; it then leaves
                # chunk_left at 0.
                if self.response.chunk_left is not None or fields:
                    raise Lost("the stream broke off")
                return
            line = line.rstrip("\n")
            if not line:
                if "data" in fields:
                    self.last = fields.get("id", self.last)
                    yield Event(fields.get("id"), fields.get("event", "message"),
                                json.loads(fields["data"]))
                fields = {}
            elif not line.startswith(":"):
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")


def parse_metrics(text):
    """Prometheus' text format, strictly."""
    values, types = {}, {}
    number = r"[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|Inf|NaN)"
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in ("counter", "gauge", "histogram", "summary"), line
            assert name not in types, f"{name} has two TYPE lines"
            types[name] = kind
        elif line and not line.startswith("#"):
            m = re.fullmatch(r'([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*\})? '
                             rf"({number})", line)
            assert m, f"not a metric: {line!r}"
            family = re.sub(r"_(bucket|sum|count)$", "", m[1])
            assert m[1] in types or family in types, f"{m[1]} has no TYPE"
            assert m[1] + (m[2] or "") not in values, f"{line!r} is given twice"
            values[m[1] + (m[2] or "")] = float(m[3])
    assert text.endswith("\n")
    return values


def raw(endpoint, data, timeout=10, close=False, pause=0.0):
    """Sends bytes (a list: piece by piece) as they are; everything that comes back until the other side
    closes, or until nothing comes for `timeout` seconds."""
    parts = urlsplit(endpoint)
    pieces = data if isinstance(data, list) else [data]
    got = b""
    with socket.create_connection((parts.hostname, parts.port), timeout=timeout) as s:
        try:
            for piece in pieces:
                s.sendall(piece)
                if pause:
                    time.sleep(pause)
            if close:
                s.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered and closed without reading all
        with contextlib.suppress(socket.timeout, ConnectionResetError):
            while piece := s.recv(65536):
                got += piece
    return got


def parse_answers(data):
    """The answers in bytes that raw() returned; asserts that they are whole."""
    answers = []
    while data:
        head, gap, data = data.partition(b"\r\n\r\n")
        assert gap, f"an answer without its end: {head[:200]!r}"
        first, *lines = head.decode("latin-1").split("\r\n")
        assert first.startswith("HTTP/1.1 "), first
        headers = {}
        for line in lines:
            name, colon, value = line.partition(":")
            assert colon, line
            headers[name.lower()] = value.strip()
        status = int(first.split(" ")[1])
        if status < 200:
            continue
        size = int(headers.get("content-length", 0))
        assert len(data) >= size, f"{first}: {len(data)} of {size} bytes"
        answers.append(Answer(status, headers, data[:size]))
        data = data[size:]
    return answers


# ---- the server -----------------------------------------------------------------------------------

class Server:
    """`headrace serve` on a data directory of its own.

    config: YAML text; models: repositories; port 0: a free one, kept over restarts when `port` is given.
    """

    def __init__(self, folder, config="", models=(), port=0, args=(), env=None, key=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.log_path = self.folder / "server.log"
        self.port, self.key = port, key
        self.process = None
        self.endpoint = None
        self.env = environment(**(env or {}))
        self.command = [HEADRACE, "serve", "--data", str(self.data)]
        self.config_path = self.folder / "headrace.yaml"
        if not models and "models:" not in config:
            config = "models: []\n" + config
        self.config_path.write_text(config)
        self.command += ["--config", str(self.config_path)]
        for repository in models:
            self.command += ["--models", str(repository)]
        self.command += list(args)
        self.started = 0
        self.ours = set()  # numbers of all processes seen below it

    # -- life

    def launch(self):
        """Starts the process and does not wait."""
        assert not self.running, "it runs already"
        with contextlib.suppress(OSError):  # the disk may be read-only
            self.endpoint_file.unlink()
        with open(self.log_path, "ab") as log:
            log.write(f"---- start {self.started + 1}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                [*self.command, "--listen", f"127.0.0.1:{self.port}"], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, cwd=self.folder, env=self.env)
        self.started += 1
        return self

    def wait_ready(self, seconds=START_S):
        def look():
            assert self.running, f"it ended with {self.process.returncode}:\n{self.log_tail()}"
            with contextlib.suppress(OSError):
                text = self.endpoint_file.read_text()
                if text.endswith("\n"):
                    return text.strip()
            return None
        self.endpoint = wait_until(look, seconds, f"the server to be ready\n{self.log_tail()}")
        self.children()
        return self

    def start(self, seconds=START_S):
        return self.launch().wait_ready(seconds)

    def stop(self, seconds=30):
        """SIGTERM; its exit status."""
        self.children()
        kill(self.process.pid, signal.SIGTERM)
        try:
            return self.process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{seconds} s after SIGTERM it still runs\n{self.log_tail()}") from None

    def kill(self):
        """kill -9, and its children end with it."""
        children = self.children()
        self.process.kill()
        self.process.wait()
        for pid in children:
            wait_until(lambda pid=pid: not alive(pid), 10, f"child {pid} to end with its server")

    def close(self):
        """Ends whatever is left of it."""
        if self.running:
            self.children()
            kill(self.process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5 * SLOW)
        if self.running:
            self.process.kill()
            self.process.wait()
        left = [pid for pid in self.ours if alive(pid)]
        for pid in left:
            with contextlib.suppress(AssertionError):
                wait_until(lambda pid=pid: not alive(pid), 3)
            if alive(pid) and str(self.folder).encode() in _command_line(pid):
                kill(pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- facts

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self):
        return self.process.pid

    @property
    def endpoint_file(self):
        return self.data / "endpoint"

    @property
    def worker_key(self):
        return (self.data / "worker.key").read_text().strip()

    def children(self):
        """Numbers of the processes below it (its workers and theirs)."""
        if not self.running:
            return []
        tree, found, look = parents(), [], [self.process.pid]
        while look:
            at = look.pop()
            below = [pid for pid, parent in tree.items() if parent == at]
            found += below
            look += below
        self.ours.update(found)
        return found

    def workers(self):
        """Numbers of its worker processes."""
        tree = parents()
        found = [pid for pid, parent in tree.items()
                 if parent == self.process.pid and b"worker" in _command_line(pid)]
        self.ours.update(found)
        return found

    def client(self, key=None, timeout=30):
        return Client(self.endpoint, key or self.key, timeout)

    def log_text(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines=30):
        return "\n".join(self.log_text().splitlines()[-lines:])


def _command_line(pid):
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return b""


def headrace(*args, server=None, input=None, timeout=60, cwd=None, **env):
    """Runs a command of the program to its end: a CompletedProcess with text."""
    env = environment(**env)
    if server is not None:
        env["HEADRACE_SERVER"] = server.endpoint if isinstance(server, Server) else server
    return subprocess.run([HEADRACE, *map(str, args)], input=input, capture_output=True, text=True,
                          timeout=timeout * SLOW, env=env, cwd=cwd, stdin=None if input else subprocess.DEVNULL)


def nonce():
    return uuid.uuid4().hex
