"""Finished tasks leave memory for the history view; every read sees them as before."""

import contextlib
import http.client
import json
import random
import signal
import socket
import sqlite3
import time

import pytest
from conftest import QUICK
from server import Lost, wait_until
from test_backup import FakeWorker


def in_memory(c):
    """Tasks in memory, by state."""
    return {k.split('"')[1]: int(v) for k, v in c.metrics().items() if k.startswith("headrace_tasks{")}


def left(c, ended=0):
    """Waits until all but `ended` finished tasks have left memory."""
    def look():
        m = in_memory(c)
        return sum(v for k, v in m.items() if k not in ("queued", "running")) <= ended
    wait_until(look, 10, "finished tasks to leave memory")


@pytest.fixture(scope="module")
def past(server):
    """One task of each end, all of them in the history; {name: task as it was read before}."""
    c = server.client()
    ids = {
        "fine": c.new({"a": 1, "b": "ü"}, metadata={"k": "v"}, key="once"),
        "failed": c.new({"x": 1, "fail": "final"}),
        "retried": c.new({"x": 2, "fail": "retryable", "fail_attempts": [1]}),
        "canceled": c.new(1, delay_s=600),
        "expired": c.new(2, delay_s=0, deadline_s=1, model="echo", priority="batch",
                         metadata={"late": "yes"}) if False else c.new({"sleep_ms": 5000}, deadline_s=1),
        "large": c.new({"pad": "x" * 70000}),
    }
    c.post(f"/v1/tasks/{ids['canceled']}/cancel").expect(200)
    before = {name: c.done(id) for name, id in ids.items()}
    c.new("live", delay_s=3600)
    left(c)
    yield before
    c.close()


def test_reads_are_as_before(client, past):
    for name, task in past.items():
        assert client.task(task["id"]) == task, name
        assert client.task(task["id"], "?wait=5") == task, name
    assert client.task(past["fine"]["id"], "?include=input")["input"] == {"a": 1, "b": "ü"}
    assert past["fine"]["metadata"] == {"k": "v"} and past["failed"]["error"]["code"] == "model_error"
    assert past["expired"]["status"] == "expired" and past["canceled"]["status"] == "canceled"


def test_events_are_replayed(client, past):
    events = [e.data["status"] for e in client.events(past["retried"]["id"]) if e.name == "status"]
    assert events == ["queued", "running", "queued", "running", "succeeded"]
    last = [e for e in client.events(past["fine"]["id"])][-1]
    assert last.data["task"] == past["fine"]
    assert client.get(f"/v1/tasks/{past['fine']['id']}/events",
                      headers={"Last-Event-ID": last.id}).status == 204


def test_nothing_changes_them(client, past):
    for name, task in past.items():
        p = client.post(f"/v1/tasks/{task['id']}/cancel").problem(409, "already_terminal")
        assert task["status"] in p["detail"], name
        assert client.get(f"/v1/tasks/{task['id']}/logs").status == 200
        assert client.task(task["id"]) == task


def test_retry_makes_a_new_one(client, past):
    new = client.post(f"/v1/tasks/{past['fine']['id']}/retry").expect(201).json
    assert new["retry_of"] == past["fine"]["id"] and new["id"] != past["fine"]["id"]
    assert client.done(new["id"])["output"] == {"a": 1, "b": "ü"}
    again = client.post(f"/v1/tasks/{past['large']['id']}/retry").expect(201).json
    assert client.done(again["id"])["status"] == "succeeded"


def test_a_repeat_finds_its_task(client, past):
    r = client.submit({"a": 1, "b": "ü"}, key="once", metadata={"k": "v"})
    assert r.expect(202).json["id"] == past["fine"]["id"] and r.headers["idempotent-replayed"] == "true"
    client.submit({"a": 2}, key="once", metadata={"k": "v"}).problem(422, "idempotency_mismatch")
    r = client.submit({"a": 1, "b": "ü"}, key="once", wait=5, metadata={"k": "v"})
    assert r.expect(200).json == past["fine"]
    lines = [json.dumps({"model": "echo", "input": i, "idempotency_key": f"line-{i}"}) for i in range(4)]
    def batch():
        r = client.post("/v1/tasks:batch", "\n".join(lines).encode(),
                        headers={"Content-Type": "application/x-ndjson"})
        return [json.loads(line) for line in r.expect(200).body.splitlines()]
    first = [a["task"]["id"] for a in batch()]
    for id in first:
        client.done(id)
    left(client)
    second = batch()
    assert [a["task"]["id"] for a in second] == first
    assert all(a["replayed"] and a["task"]["status"] == "succeeded" for a in second)


def test_delete_forgets_the_payload(client):
    secret = "wipe-me-" + "s" * 300
    id = client.run({"secret": secret})["id"]
    left(client)
    assert client.delete(f"/v1/tasks/{id}").status == 204
    task = client.task(id, "?include=input")
    assert task["input"] is None and task["output"] is None and task["data_removed"] is True
    assert client.delete(f"/v1/tasks/{id}").status == 204
    client.post(f"/v1/tasks/{id}/retry").problem(410, "gone")


def test_a_delete_races_with_the_hand_over(client):
    """Deleted at the very moment in which they leave memory: never is the payload back."""
    for i in range(30):
        id = client.run({"secret": i})["id"]
        time.sleep(random.random() * 0.03)
        assert client.delete(f"/v1/tasks/{id}").status == 204
        assert client.task(id)["output"] is None
        left(client)
        assert client.task(id)["output"] is None


def test_files_of_finished_tasks(model_server):
    c = model_server.client()
    task = c.run({"prompt": "a bag", "steps": 1}, model="fashion-diffusion", seconds=120)
    file = task["output"]["images"][0]["$file"]
    before = c.get(f"/v1/files/{file}").expect(200).json
    content = c.get(f"/v1/files/{file}/content").expect(200).body
    c.delete(f"/v1/files/{file}").problem(409, "conflict")
    left(c)
    c.delete(f"/v1/files/{file}").problem(409, "conflict")
    assert c.get(f"/v1/files/{file}").expect(200).json | {"task": 0} == before | {"task": 0}
    assert c.get(f"/v1/files/{file}/content").expect(200).body == content
    part = c.get(f"/v1/files/{file}/content", headers={"Range": "bytes=1-3"}).expect(206)
    assert part.body == b"PNG"
    etag = c.get(f"/v1/files/{file}/content").headers["etag"]
    assert c.get(f"/v1/files/{file}/content", headers={"If-None-Match": etag}).status == 304
    assert (model_server.data / "files" / file).exists()
    model_server.kill()
    model_server.start()
    c = model_server.client()
    assert c.get(f"/v1/files/{file}/content").expect(200).body == content
    assert c.delete(f"/v1/tasks/{task['id']}").status == 204
    c.get(f"/v1/files/{file}").problem(404, "not_found")
    wait_until(lambda: not (model_server.data / "files" / file).exists(), 5, "the file to go")


def test_lists_are_one(servers):
    """Live and finished tasks, in memory and out of it, under any filter and page size: as if all
    were in one place."""
    server = servers(QUICK)
    c = server.client()
    chance, made = random.Random(4), []
    for i in range(120):
        state = chance.choice(["succeeded", "failed", "canceled", "queued"])
        priority = chance.choice(["standard", "batch", "critical"])
        if state == "queued":
            id = c.new(i, delay_s=900, priority=priority)
        elif state == "canceled":
            id = c.new(i, delay_s=900, priority=priority)
            c.post(f"/v1/tasks/{id}/cancel").expect(200)
        else:
            id = c.new({"i": i} | ({"fail": "final"} if state == "failed" else {}), priority=priority)
        made.insert(0, (id, state, priority))
        if i % 40 == 39:
            left(c, ended=30)
    for id, state, _ in made:
        if state != "queued":
            c.done(id)
    for _ in range(2):
        for _ in range(12):
            states = chance.sample(["succeeded", "failed", "canceled", "queued"], chance.randint(1, 4))
            priorities = chance.sample(["standard", "batch", "critical"], chance.randint(1, 3))
            got = c.list(status=",".join(states), priority=",".join(priorities), limit=chance.randint(1, 30))
            assert [t["id"] for t in got] == [id for id, s, p in made if s in states and p in priorities]
        assert [t["id"] for t in c.list(model="echo:1", limit=50)] == [m[0] for m in made]
        left(c)


def test_retention_in_the_history(servers):
    server = servers(QUICK + "history: {max_tasks: 20}\n")
    c = server.client()
    short = c.run("short", retention_s=3)["id"]
    left(c)
    assert c.task(short)["output"] == "short"
    wait_until(lambda: c.get(f"/v1/tasks/{short}").status == 410, 10, "its retention to be over")
    ids = [c.run(i)["id"] for i in range(60)]
    # Not by the metric alone: it is 20 for a moment while the others are on their way into the view.
    wait_until(lambda: len(c.list()) == 20, 10, "the bound")
    wait_until(lambda: c.metrics()["headrace_history_tasks"] == 20, 10, "the bound")
    c.get(f"/v1/tasks/{ids[0]}").problem(410, "gone")
    assert c.task(ids[-1])["output"] == 59


def test_a_crash_at_any_moment_loses_nothing(servers):
    server = servers(QUICK)
    c = server.client()
    ids, chance = {}, random.Random(9)
    for round in range(8):
        end = time.monotonic() + chance.uniform(0.2, 1.2)
        while time.monotonic() < end:
            r = c.submit({"n": len(ids)}, wait=10).expect(200)
            ids[r.json["id"]] = r.json
        server.kill()
        server.start()
        c = server.client()
        for id in chance.sample(sorted(ids), min(40, len(ids))):
            assert c.task(id) == ids[id]
    left(c)
    assert {t["id"]: t["output"] for t in c.list(limit=200)} == {k: t["output"] for k, t in ids.items()}
    wait_until(lambda: c.metrics()["headrace_history_tasks"] == len(ids), 5, "the count")


def test_the_disk_stays_bounded(servers):
    """Segments are recycled and old tasks go: a long run takes no more room than a short one."""
    server = servers(QUICK + "log: {segment_size: 256KiB}\nhistory: {max_tasks: 500}\n")
    c = server.client()
    line = json.dumps({"model": "echo", "input": {"pad": "x" * 300}})
    body = "\n".join([line] * 1000).encode()

    def run(times):
        for _ in range(times):
            r = c.post("/v1/tasks:batch", body, headers={"Content-Type": "application/x-ndjson"}).expect(200)
            answers = [json.loads(x) for x in r.body.splitlines()]
            assert all(a["status"] == 202 for a in answers), next(a for a in answers if a["status"] != 202)
            c.done(answers[-1]["task"]["id"])

    def size():
        return sum(f.stat().st_blocks * 512 for d in ("log", "spill") for f in (server.data / d).iterdir()) + \
            sum((server.data / f).stat().st_blocks * 512 for f in ("history.sqlite", "history.sqlite-wal"))

    run(10)
    left(c)
    early = size()
    run(40)
    left(c)
    wait_until(lambda: c.metrics()["headrace_history_tasks"] <= 500, 20, "old tasks to go")
    wait_until(lambda: size() < 2 * early + 4 * 2**20, 30, "segments to be recycled")


def test_a_view_that_is_garbage(servers):
    server = servers(QUICK, start=False)
    server.start()
    c = server.client()
    id = c.run("kept")["id"]
    left(c)
    server.stop()
    path = server.data / "history.sqlite"
    for name in ("history.sqlite-wal", "history.sqlite-shm"):
        with contextlib.suppress(FileNotFoundError):
            (server.data / name).unlink()
    good = path.read_bytes()
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises((AssertionError, Lost, RuntimeError)):
        server.start()
    assert "history rebuild" in server.log_tail(20)
    path.write_bytes(good)
    server.start()
    assert server.client().task(id)["output"] == "kept"


# ---- files that more than one task has ------------------------------------------------------------

def test_a_damaged_row_hides_no_other(servers):
    server = servers(QUICK)
    c = server.client()
    ids = [c.run(i)["id"] for i in range(5)]
    left(c)
    server.stop()
    with contextlib.closing(sqlite3.connect(server.data / "history.sqlite")) as db:
        (no,) = db.execute("SELECT no FROM tasks ORDER BY no LIMIT 1 OFFSET 2").fetchone()
        db.execute("UPDATE tasks SET body = zeroblob(length(body)) WHERE no = ?", (no,))
        db.commit()
    server.start()
    c = server.client()
    for query in ("", "?model=echo", "?status=succeeded"):
        assert [t["id"] for t in c.get(f"/v1/tasks{query}").expect(200).json["tasks"]] == \
            [ids[i] for i in (4, 3, 1, 0)]
    assert int(c.metrics()["headrace_history_damaged_total"]) == 3
    log = server.log_tail(50)
    assert log.count(f"the row of task number {no} is damaged") == 1 and "headrace history rebuild" in log
    p = c.get(f"/v1/tasks/{ids[2]}").expect(503).json
    assert "headrace history rebuild" in p["detail"]
    assert c.task(ids[3])["output"] == 3


def with_file(c, **fields):
    """A finished task, and the file that is its output."""
    task = c.run({"pad": "y" * 80000}, **fields)
    return task["id"], task["output"]["$file"]


def batch(c, inputs, **headers):
    body = "\n".join(json.dumps({"model": "echo"} | (i if isinstance(i, dict) and "input" in i else {"input": i}))
                     for i in inputs).encode()
    r = c.post("/v1/tasks:batch", body, headers={"Content-Type": "application/x-ndjson"} | headers)
    return [json.loads(line) for line in r.expect(200).body.splitlines()]


def test_an_output_in_the_history_is_an_input(servers):
    """What a task has made can be the next one's input, also when its maker has left memory."""
    server = servers(QUICK)
    c = server.client()
    maker, file = with_file(c)
    user = c.run({"in": {"$file": file}})["id"]
    left(c)
    first = c.submit({"$file": file}, key="once", wait=10).expect(200).json
    assert first["status"] == "succeeded"
    again = c.post(f"/v1/tasks/{user}/retry").expect(201).json
    assert c.done(again["id"])["status"] == "succeeded"
    left(c)
    assert c.submit({"$file": file}, key="once").expect(202).json["id"] == first["id"]
    nobody = {"$file": "file_" + "0" * 26}
    c.submit(nobody).problem(422, "invalid_request")
    for headers, fine in (({}, 202), ({"Prefer": "wait=20"}, 200)):
        _, other = with_file(c)
        left(c)
        got = batch(c, [1, {"$file": other}, nobody, {"$file": file}, 2], **headers)
        assert [a["status"] for a in got] == [fine, fine, 422, fine, fine]
        for a in got:
            if "task" in a:
                assert c.done(a["task"]["id"])["status"] == "succeeded"
    left(c)
    assert (server.data / "files" / file).exists()
    server.kill()
    server.start()
    c = server.client()
    c.get(f"/v1/files/{file}/content").expect(200)
    assert c.task(maker)["output"]["$file"] == file


def test_a_file_stays_while_somebody_has_it(servers):
    server = servers(QUICK)
    c = server.client()
    maker, file = with_file(c)
    path = server.data / "files" / file
    # A task that has it is deleted; the one that made it is in the history.
    user = c.new({"in": {"$file": file}}, delay_s=3600)
    left(c)
    c.post(f"/v1/tasks/{user}/cancel").expect(200)
    assert c.delete(f"/v1/tasks/{user}").status == 204
    left(c)
    time.sleep(0.3)
    assert c.task(maker)["output"]["$file"] == file
    c.get(f"/v1/files/{file}/content").expect(200)
    # The one that made it is deleted; a task still has it, then that one leaves.
    user = c.new({"in": {"$file": file}}, delay_s=3600)
    assert c.delete(f"/v1/tasks/{maker}").status == 204
    time.sleep(0.3)
    c.get(f"/v1/files/{file}/content").expect(200)
    c.post(f"/v1/tasks/{user}/cancel").expect(200)
    wait_until(lambda: not path.exists(), 10, "the file to go with the last task")


def test_without_the_view_for_a_while(servers):
    """A start with history.enabled: false takes nothing from what the view has."""
    server = servers(QUICK)
    c = server.client()
    task, file = with_file(c)
    left(c)
    server.stop()
    config = server.config_path.read_text()
    server.config_path.write_text(config + "history: {enabled: false}\n")
    server.start()
    server.client().get(f"/v1/tasks/{task}").problem(410, "gone")
    server.stop()
    server.config_path.write_text(config)
    server.start()
    c = server.client()
    assert c.task(task)["output"]["$file"] == file
    c.get(f"/v1/files/{file}/content").expect(200)


# ---- batches that wait ----------------------------------------------------------------------------

def test_a_waiting_batch_finds_what_has_left_memory(servers):
    server = servers(QUICK + "workers: {devices: 2}\n")
    c = server.client()
    got = batch(c, [{"input": {"sleep_ms": 2500}, "priority": "critical"}, 2, 3], Prefer="wait=20")
    assert [(a["status"], "replayed" in a, a["task"]["status"]) for a in got] == [(200, False, "succeeded")] * 3


def test_a_shutdown_answers_a_waiting_batch(servers):
    server = servers(QUICK)
    c = server.client()
    with socket.create_connection(c.address, timeout=20) as s:
        body = "".join(json.dumps({"model": "echo", "input": i, "delay_s": 600}) + "\n" for i in range(3))
        s.sendall(b"POST /v1/tasks:batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
                  b"Prefer: wait=60\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body.encode()))
        wait_until(lambda: len(c.list()) == 3, 10, "its lines to be accepted")
        server.process.send_signal(signal.SIGTERM)
        r = http.client.HTTPResponse(s, method="POST")
        r.begin()
        assert [json.loads(line)["status"] for line in r.read().splitlines()] == [202] * 3
    assert server.process.wait(20) == 0


@pytest.mark.parametrize("limit", ["finished_max: 50", "finished_bytes_max: 600KiB"])
def test_few_may_wait_in_memory(servers, limit):
    """A small bound of finished tasks in memory stops nobody: they leave it sooner. (On a slow disk the view may be
    behind for a moment; then a submit is to be repeated.)"""
    server = servers(QUICK + f"limits: {{{limit}}}\n")
    c = server.client()
    for i in range(300):
        wait_until(lambda: c.submit(f"{i}" + "x" * 2000, wait=5).expect(200, 503).status == 200, 20, "the view")


# ---- what a model printed -------------------------------------------------------------------------

def test_logs_stay_readable(servers):
    server = servers(QUICK + "workers: {devices: 0}\n")
    c = server.client()
    w = FakeWorker(server)
    id = c.new(1, model="m")
    task = w.task()
    assert w.say("log", task, text="hello\n") == "accepted"
    assert w.say("result", task, output=2) == "accepted"
    left(c)
    assert c.get(f"/v1/tasks/{id}/logs").expect(200).body == b"hello\n"
    w.close()
