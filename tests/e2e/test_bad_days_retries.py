"""A client that sends everything ten times, at once and again after every answer that it lost, while the server is
killed under it: exactly one task each, and the same answer to the same question."""

import json
import threading
import time

from conftest import QUICK
from server import Lost, free_port, nonce

TIMES = 10


class Everywhere:
    """Threads, each with a connection of its own; the first failure is the test's."""

    def __init__(self, n, each):
        self.failure = None
        self.threads = [threading.Thread(target=self._run, args=(each, i)) for i in range(n)]
        for t in self.threads:
            t.start()

    def _run(self, each, i):
        try:
            each(i)
        except BaseException as e:  # told by join()
            self.failure = self.failure or e

    def join(self):
        for t in self.threads:
            t.join()
        if self.failure:
            raise self.failure


def insist(server, send, seconds=60):
    """The answer to what is sent until there is one: a lost answer or a 503 is no answer."""
    end = time.monotonic() + seconds
    while True:
        c = server.client(timeout=10)
        try:
            r = send(c)
            if r.status != 503:
                return r
        except Lost:
            pass
        finally:
            c.close()
        assert time.monotonic() < end, "no answer"
        time.sleep(0.05)


def test_every_submit_ten_times(servers):
    """Ten threads send the same 25 submits (small ones, large ones, delayed ones, batches) with their keys; the server
    is killed twice meanwhile, and restarted once more before all is sent again."""
    server = servers(QUICK, port=free_port())
    run, seen, lock = nonce(), {}, threading.Lock()
    inputs = [{"i": i, "pad": "x" * (100_000 if i % 10 == 3 else 10), "sleep_ms": 20} for i in range(20)]
    lines = [(f"{run}-line-{i}", {"line": i}) for i in range(5)]

    def note(key, id):
        with lock:
            assert seen.setdefault(key, id) == id, f"{key}: two tasks, {seen[key]} and {id}"

    def everything(_):
        for i, input in enumerate(inputs):
            key = f"{run}-{i}"
            time.sleep(0.02)  # so that there are some before, between and after the kills
            r = insist(server, lambda c: c.submit(input, key=key, delay_s=1 if i % 5 == 0 else 0))
            note(key, r.expect(202, 200).json["id"])
        body = "".join('{"model":"echo","input":{"line":%d},"idempotency_key":"%s"}\n' % (v["line"], k)
                       for k, v in lines)
        waiting, end = True, time.monotonic() + 60
        while waiting:
            r = insist(server, lambda c: c.post("/v1/tasks:batch", body.encode(),
                                                headers={"Content-Type": "application/x-ndjson"}))
            answers = [json.loads(line) for line in r.expect(200).body.splitlines()]
            waiting = [a for a in answers if a["status"] == 503]
            assert time.monotonic() < end
        for (key, _), a in zip(lines, answers):
            note(key, a["task"]["id"])

    crowd = Everywhere(TIMES, everything)
    for _ in range(2):
        time.sleep(0.3)
        server.kill()
        server.start()
    crowd.join()
    assert len(seen) == len(inputs) + len(lines)
    c = server.client()
    for i in range(len(inputs)):
        task = c.done(seen[f"{run}-{i}"], 30)
        assert task["status"] == "succeeded" and task["attempt"] == 1, task
    server.kill()
    server.start()
    files = set((server.data / "files").iterdir())
    everything(0)
    assert set((server.data / "files").iterdir()) == files, "a repeat leaves nothing on the disk"
    c = server.client()
    tasks = c.list(limit=200)
    assert {t["id"] for t in tasks} == set(seen.values()) and len(tasks) == len(seen), "nothing that nobody asked for"
    r = c.submit(inputs[0], key=f"{run}-0", delay_s=1)
    assert r.headers["idempotent-replayed"] == "true" and r.json["id"] == seen[f"{run}-0"]
    c.submit({"another": "body"}, key=f"{run}-0").problem(422, "idempotency_mismatch")


def ten(server, send):
    """The answers to the same request, sent ten times at once."""
    answers, gate = [], threading.Barrier(TIMES)

    def one(_):
        c = server.client()
        c.get("/livez")
        gate.wait()
        answers.append(send(c))
        c.close()

    Everywhere(TIMES, one).join()
    return answers


def test_cancel_ten_times(server, client):
    """Queued, running, ended: one cancel acts, and the other nine are told so, whoever comes first."""
    waiting, running = client.new("waits", delay_s=600), client.new({"sleep_ms": 30_000, "units": 300})
    client.until(running, "running")
    for id in (waiting, running):
        answers = ten(server, lambda c, id=id: c.post(f"/v1/tasks/{id}/cancel"))
        assert sorted(a.status for a in answers) == [200] + [409] * 9, answers
        for a in answers:
            if a.status == 200:
                assert a.json["status"] == "canceled"
            else:
                a.problem(409, "already_terminal")
        task = client.task(id)
        assert task["status"] == "canceled"
        for a in ten(server, lambda c, id=id: c.post(f"/v1/tasks/{id}/cancel")):
            a.problem(409, "already_terminal")
        again = client.task(id)
        assert all(again[k] == task[k] for k in task if k not in ("receipt", "metrics")), "usage may come later"


def test_delete_ten_times(server, client):
    """Input and output are forgotten once; each repeat gets the same answer, and the record stays."""
    id = client.run({"secret": 1})["id"]
    answers = ten(server, lambda c: c.delete(f"/v1/tasks/{id}"))
    assert {a.status for a in answers} == {204}, answers
    assert {a.status for a in ten(server, lambda c: c.delete(f"/v1/tasks/{id}"))} == {204}
    task = client.task(id)
    assert task["status"] == "succeeded" and task["output"] is None
    file = client.upload(b"x").expect(201).json["id"]
    answers = ten(server, lambda c: c.delete(f"/v1/files/{file}"))
    assert sorted(a.status for a in answers) == [204] + [404] * 9, answers


def test_pause_drain_and_cordon_ten_times(server, client):
    """Orders are states, not steps: ten of the same are one."""
    worker = client.get("/v1/workers").json["workers"][0]["id"]
    for path in ("/v1/models/echo/pause", "/v1/models/echo/resume", f"/v1/workers/{worker}/cordon",
                 f"/v1/workers/{worker}/uncordon"):
        assert {a.status for a in ten(server, lambda c, path=path: c.post(path))} == {200}, path
    assert client.run("on it goes")["output"] == "on it goes"


def test_retry_ten_times_with_a_key(server, client):
    """A retry is a POST that makes a task: with a key it makes one."""
    id = client.run({"again": 1})["id"]
    key = nonce()
    headers = {"Idempotency-Key": f'"{key}"'}
    answers = ten(server, lambda c: c.post(f"/v1/tasks/{id}/retry", headers=headers))
    assert {a.status for a in answers} == {201}, answers
    [made] = {a.json["id"] for a in answers}
    assert made != id and client.done(made)["output"] == {"again": 1}
    again = client.post(f"/v1/tasks/{id}/retry", headers=headers).expect(201)
    assert again.json["id"] == made and again.headers["idempotent-replayed"] == "true"
    client.post(f"/v1/tasks/{made}/retry", headers=headers).problem(422, "idempotency_mismatch")
    client.submit({"again": 1}, key=key).problem(422, "idempotency_mismatch")
    client.post(f"/v1/tasks/{id}/retry", headers={"Idempotency-Key": "bare"}).problem(400, "invalid_request")
    without = {client.post(f"/v1/tasks/{id}/retry").expect(201).json["id"] for _ in range(2)}
    assert len(without | {made, id}) == 4, "without a key each is a new one"
