"""One short life of a server in which everything happens once, and what must be left of it whatever fails.

Start, upload, submits (small, large, with a file, delayed), runs, a cancel, reads, a snapshot; SIGTERM, a second start,
reads; SIGTERM. Any step may be refused or lost, and the process may end if it says why. In the end a server
without faults has everything that was acknowledged, as it was acknowledged.
"""

import contextlib
import hashlib
import signal
import time

from server import TERMINAL, Client, Lost, headrace, kill

CONFIG = """
log: {segment_size: 16KiB}
timeouts: {lease: 2s, ping: 1s}
retry: {backoff_first: 50ms, backoff_max: 200ms}
"""
STEP_S = 40  # with every core busy: what takes longer hangs
PATIENCE_S = 3  # a server that answers 503 for so long need not be asked again
LARGE = 200_000


class Ended(Exception):
    """The server has ended by itself."""


class Life:
    """`problems`: what must not be. `server` is not started."""

    def __init__(self, server, history=True, spill=False):
        self.server, self.problems = server, []
        server.config_path.write_text(server.config_path.read_text() +
                                      ("" if history else "history: {enabled: false}\n") +
                                      ("limits: {payload_memory: 0}\n" if spill else ""))
        self.tasks = {}     # id: (body, key), acknowledged
        self.ended = {}     # id: the task as it was seen terminal
        self.canceled = set()
        self.files = {}     # id: content
        self.said = 0       # how much of the log is judged

    # -- with faults

    def run(self, may_be_killed=False, may_abort=False):
        """All of it. may_abort: where memory or threads are out the end may be an abort, with words."""
        with contextlib.suppress(Ended):
            for go in (self.first, self.second):
                self.start()
                go()
                self.stop()
        if self.server.running:
            self.problem(f"it hangs:\n{self.server.log_tail()}")
            self.server.kill()
        self.judge_end(self.server.process.returncode, may_be_killed, may_abort)

    def start(self):
        self.said = len(self.server.log_text())
        self.server.launch()
        end = time.monotonic() + STEP_S
        while not self.server.endpoint_file.exists() or not self.server.endpoint_file.read_text().endswith("\n"):
            self.look()
            if time.monotonic() > end:
                self.hangs("the start")
            time.sleep(0.005)
        self.server.endpoint = self.server.endpoint_file.read_text().strip()
        self.http = Client(self.server.endpoint, timeout=STEP_S)

    def first(self):
        self.upload(b"content " * 5000)
        bodies = [{"model": "echo", "input": {"i": i}} for i in range(3)]
        bodies.append({"model": "echo", "input": {"pad": "y" * LARGE}})
        bodies.append({"model": "echo", "input": "soon", "delay_s": 0.05})
        if self.files:
            bodies.append({"model": "echo", "input": {"of": {"$file": next(iter(self.files))}}})
        for n, body in enumerate(bodies):
            self.submit(body, f"key-{n}")
        late = self.submit({"model": "echo", "input": "never", "delay_s": 600}, "late")
        if late and self.ask("POST", f"/v1/tasks/{late}/cancel").status == 200:
            self.canceled.add(late)
        self.wait_for_all()
        end = time.monotonic() + 0.5  # a snapshot, if it comes soon
        while not list((self.server.data / "log").glob("*.snap")) and time.monotonic() < end:
            self.look()
            time.sleep(0.01)

    def second(self):
        self.submit({"model": "echo", "input": "again"}, "again")
        self.wait_for_all()
        self.ask("GET", "/v1/tasks")

    def stop(self):
        self.http.close()
        self.server.children()
        kill(self.server.pid, signal.SIGTERM)
        end = time.monotonic() + STEP_S
        while self.server.running:
            if time.monotonic() > end:
                self.hangs("the end")
            time.sleep(0.005)
        if self.server.process.returncode:
            raise Ended

    # -- steps

    def look(self):
        if not self.server.running:
            raise Ended

    def hangs(self, what):
        self.problem(f"{what} takes longer than {STEP_S} s:\n{self.server.log_tail()}")
        self.server.kill()
        raise Ended

    def problem(self, text):
        self.problems.append(text)

    def ask(self, method, path, body=None, headers=None):
        """The answer, once there is one; a server that refuses for long gives its last 503."""
        begin = time.monotonic()
        while True:
            try:
                r = self.http.request(method, path, body, headers)
                if r.status != 503 or time.monotonic() > begin + PATIENCE_S:
                    return r
            except Lost as e:
                # A process that is ending closes its connections before it is gone.
                if "imed out" in str(e):
                    self.hangs(f"{method} {path}")
            self.look()
            if time.monotonic() > begin + STEP_S:
                self.hangs(f"{method} {path}")
            time.sleep(0.02)

    def upload(self, data):
        r = self.ask("POST", "/v1/files", data, {"Content-Type": "application/octet-stream"})
        if r.status == 201:
            self.files[r.json["id"]] = data
        elif r.status not in (500, 503):
            self.problem(f"upload: {r}")

    def submit(self, body, key):
        r = self.ask("POST", "/v1/tasks", body, {"Idempotency-Key": f'"{key}"'})
        if r.status == 202:
            self.tasks[r.json["id"]] = (body, key)
            return r.json["id"]
        if r.status not in (500, 503):
            self.problem(f"submit: {r}")
        return None

    def wait_for_all(self):
        end = time.monotonic() + STEP_S
        for id in self.tasks:
            while True:
                r = self.ask("GET", f"/v1/tasks/{id}?wait=1")
                if r.status in (500, 503):
                    break  # one read may fail
                if r.status != 200:
                    self.problem(f"{id} was acknowledged: {r}")
                    break
                if r.json["status"] in TERMINAL:
                    self.judge_task(id, r.json)
                    break
                if time.monotonic() > end:
                    self.hangs(f"task {id} ({r.json['status']})")

    # -- judgement

    def judge_end(self, status, may_be_killed, may_abort):
        said = self.server.log_text()[self.said:]
        if status == 0 or (may_be_killed and status == -signal.SIGKILL):
            return
        if may_abort and status == -signal.SIGSEGV and "listening on" not in said:
            return  # OpenSSL's own beginning, when it gets no memory: nobody was served yet
        excuses = {1: (" error ",), 2: ("cannot be read",), -signal.SIGABRT: ("stopping",) if may_abort else ()}
        if not any(e in said for e in excuses.get(status, ())) or "broken invariant" in said:
            self.problem(f"it ended with {status} and said\n{said[-1200:]}")

    def judge_task(self, id, task):
        body, _ = self.tasks[id]
        before = self.ended.setdefault(id, task)
        for name in ("status", "output", "finished_at", "attempt"):
            if before[name] != task[name]:
                self.problem(f"{id}: {name} was {before[name]}, then {task[name]}")
        wanted = "canceled" if id in self.canceled else "succeeded"
        if task["status"] != wanted and not (body["input"] == "never" and task["status"] == "canceled"):
            self.problem(f"{id} is {task['status']}, not {wanted}: {task['error']}")

    def check(self):
        """Without faults: everything that was acknowledged is there. The list of problems."""
        self.said = len(self.server.log_text())
        try:
            self.server.start(STEP_S)
        except AssertionError as e:
            self.problem(f"it does not start any more: {e}")
            return self.problems
        http = self.server.client(timeout=STEP_S)
        for id, data in self.files.items():
            r = http.get(f"/v1/files/{id}/content")
            if r.status != 200 or r.body != data:
                self.problem(f"the content of {id}: {r.status}, {len(r.body)} bytes")
        for id, (body, key) in self.tasks.items():
            r = http.post("/v1/tasks", body, headers={"Idempotency-Key": f'"{key}"'})
            if r.status not in (200, 202) or r.json["id"] != id:
                self.problem(f"{key} was {id}, and is {r}")
                continue
            if body["input"] == "never" and id not in self.canceled:
                continue
            task = http.done(id, STEP_S)
            self.judge_task(id, task)
            if task["status"] == "succeeded":
                self.judge_output(http, id, body, task["output"])
        if self.server.stop(STEP_S):
            self.problem(f"its last end has a status: {self.server.log_tail()}")
        verified = headrace("log", "verify", self.server.data)
        if verified.returncode:
            self.problem(f"log verify: {verified.stdout}{verified.stderr}")
        return self.problems

    def judge_output(self, http, id, body, output):
        if isinstance(output, dict) and set(output) >= {"$file", "size"}:
            r = http.get(f"/v1/files/{output['$file']}/content")
            if r.status != 200:
                self.problem(f"the output of {id}: {r}")
                return
            output = r.json
        want = body["input"]
        if output != want:
            self.problem(f"the output of {id} is {str(output)[:200]}, not {str(want)[:200]}")


def name_of(*parts):
    """A short name for a folder."""
    text = "-".join(map(str, parts))
    return f"{text}-{hashlib.sha256(text.encode()).hexdigest()[:4]}"
