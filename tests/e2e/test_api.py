"""The native API, route by route, as docs and design/api.md promise it."""

import hashlib
import json
import re
import threading
import time
from datetime import datetime

import pytest
from conftest import QUICK
from server import ROOT, TERMINAL, Client, Lost, free_port, nonce, wait_until

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ID = re.compile(r"task_[0-9A-HJKMNP-TV-Z]{26}")


def seconds(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Paused:
    """Nothing of the model `echo` starts meanwhile: what is submitted waits."""

    def __init__(self, client):
        self.client = client

    def __enter__(self):
        self.client.post("/v1/models/echo/pause").expect(200)

    def __exit__(self, *_):
        self.client.post("/v1/models/echo/resume").expect(200)


# ---- submit and get -------------------------------------------------------------------------------

def test_submit_and_get(client):
    r = client.submit({"hello": "world"}, metadata={"order": "17"}).expect(202)
    task = r.json
    id = task["id"]
    assert ID.fullmatch(id), id
    assert r.headers["location"] == f"/v1/tasks/{id}"
    assert r.headers["content-type"] == "application/json"
    assert task["model"] == "echo" and task["version"] and task["priority"] == "standard"
    assert task["status"] in ("queued", "running", "succeeded")
    assert task["metadata"] == {"order": "17"}
    assert set(task["receipt"]) == {"shard", "epoch", "seq"}
    assert task["urls"]["self"] == f"/v1/tasks/{id}"

    done = client.done(id)
    assert done["status"] == "succeeded" and done["output"] == {"hello": "world"} and done["error"] is None
    assert done["attempt"] == 1 and "input" not in done
    for name in ("created_at", "started_at", "finished_at"):
        assert TIME.fullmatch(done[name]), (name, done[name])
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    assert done["deadline_at"] is None
    assert done["receipt"] == task["receipt"]
    assert set(done["metrics"]) >= {"queue_ms", "run_ms", "device_ms", "batch_size"}
    assert done["metrics"]["batch_size"] >= 1
    assert client.task(id, "?include=input")["input"] == {"hello": "world"}
    for name in ("self", "cancel", "events"):
        assert done["urls"][name].startswith(f"/v1/tasks/{id}")
    assert client.request("HEAD", f"/v1/tasks/{id}").expect(200).body == b""


@pytest.mark.parametrize("input", [None, True, 0, -1.5, 1e300, 12345678901234567890, "ü\U0001f600\n\"\\/\x7f", [], {},
                                   [[[[]]]], {"": {"": None}}, {"a": 1, "b": [1, 2, {"c": "d"}]}, " " * 1000])
def test_any_json_is_an_input(client, input):
    assert client.run(input)["output"] == input


def test_numbers_come_back_as_they_were_written(client):
    body = b'{"model":"echo","input":{"n":[1.0,1e5,0.10,123456789012345678901234567890,-0.0,1E-7]}}'
    r = client.post("/v1/tasks", body, headers={"Content-Type": "application/json", "Prefer": "wait=20"})
    assert b'[1.0,1e5,0.10,123456789012345678901234567890,-0.0,1E-7]' in r.expect(200).body


def test_line_breaks_in_the_body(client):
    body = b'{\r\n "model": "echo",\n "input": {\n  "a": [1,\n 2]\n },\r\n\t"metadata": {\n"k": "v"\n}\n}\n'
    r = client.post("/v1/tasks", body, headers={"Content-Type": "application/json; charset=utf-8", "Prefer": "wait=20"})
    assert r.expect(200).json["output"] == {"a": [1, 2]}
    assert r.json["metadata"] == {"k": "v"}


def test_a_version_pins(client):
    version = client.get("/v1/models/echo").json["latest"]
    assert client.run(1, model=f"echo:{version}")["version"] == version
    client.submit(1, model="echo:99999").problem(404, "unknown_model")


def test_prefer_wait(client):
    r = client.submit({"a": 1}, wait=20).expect(200)
    assert r.json["status"] == "succeeded" and r.json["output"] == {"a": 1}
    assert r.headers["location"].endswith(r.json["id"])
    start = time.monotonic()
    slow = client.submit({"sleep_ms": 4000}, wait=1).expect(202)
    assert 0.9 < time.monotonic() - start < 3
    assert slow.json["status"] in ("queued", "running")
    client.post(f"/v1/tasks/{slow.json['id']}/cancel").expect(200)
    for bad in ("wait=0", "wait=x", "wait=-1"):
        client.post("/v1/tasks", {"model": "echo", "input": 1}, headers={"Prefer": bad}).problem(400, "invalid_request")


def test_long_poll(client):
    id = client.new({"sleep_ms": 700}, delay_s=0.3)
    assert client.task(id)["status"] == "queued"
    assert client.task(id)["not_before_at"]
    seen, start = [], time.monotonic()
    while not seen or seen[-1] not in TERMINAL:
        seen.append(client.task(id, "?wait=10")["status"])
        assert time.monotonic() - start < 20
    assert seen[0] == "running" and seen[-1] == "succeeded", seen
    start = time.monotonic()
    assert client.task(id, "?wait=10")["status"] == "succeeded"
    assert time.monotonic() - start < 1, "a task that has ended is not waited for"
    id = client.new(1, delay_s=60)
    start = time.monotonic()
    assert client.task(id, "?wait=1")["status"] == "queued"
    assert 0.9 < time.monotonic() - start < 3
    client.get(f"/v1/tasks/{id}?wait=61").problem(422, "invalid_request")
    client.get(f"/v1/tasks/{id}?wait=x").problem(422, "invalid_request")
    client.post(f"/v1/tasks/{id}/cancel").expect(200)


def test_progress(client):
    id = client.new({"sleep_ms": 2000, "units": 20})
    seen = []
    task = client.until(id, "running")
    while task["status"] == "running":
        if "progress" in task:
            assert task["progress"]["steps"] == 20
            seen.append(task["progress"]["step"])
        task = client.task(id, "?wait=5")
    assert task["status"] == "succeeded" and "progress" not in task
    assert len(set(seen)) >= 5 and seen == sorted(seen), seen
    assert task["metrics"]["device_ms"] >= 1800 and task["metrics"]["run_ms"] >= 1800, task["metrics"]


def test_progress_after_a_rest(client):
    """The first steps of a task are seen as soon as those of the ones before, also when nothing ran for a while."""
    for _ in range(2):
        time.sleep(1.1)
        with client.events(client.new({"sleep_ms": 800, "units": 8})) as stream:
            steps = [e.data["step"] for e in stream if e.name == "progress"]
        assert len(steps) >= 4 and steps[0] <= 3, steps


def test_queue_estimate(client):
    with Paused(client):
        ids = [client.new(i) for i in range(3)]
        ahead = [client.task(id)["queue"]["ahead"] for id in ids]
        assert ahead == [0, 1, 2], ahead
    for id in ids:
        client.done(id)


def test_webhook_is_refused_until_it_exists(client):
    p = client.submit(
    1,
    webhook={
        "url": "https://example.org/",
        "events": ["finished"]}).problem(
            422,
             "invalid_request")
    assert p["field"] == "webhook" and "webhook" in p["detail"]


# ---- idempotency ----------------------------------------------------------------------------------

def test_idempotency(client):
    key = nonce()
    first = client.submit({"a": 1}, key=key).expect(202)
    again = client.submit({"a": 1}, key=key).expect(202)
    assert again.json["id"] == first.json["id"]
    assert again.headers.get("idempotent-replayed") == "true" and "idempotent-replayed" not in first.headers
    client.submit({"a": 2}, key=key).problem(422, "idempotency_mismatch")
    client.submit({"a": 1}, key=key, priority="batch").problem(422, "idempotency_mismatch")
    done = client.done(first.json["id"])
    after = client.submit({"a": 1}, key=key, wait=5)
    assert after.expect(200).json == done
    assert client.submit({"a": 1}, key=nonce()).json["id"] != done["id"]
    other = client.post("/v1/tasks", b'{"input": {"a": 1}, "model": "echo"}',
                        headers={"Content-Type": "application/json", "Idempotency-Key": f'"{key}"'})
    other.problem(422, "idempotency_mismatch")  # identity is that of the bytes


def test_a_refused_request_binds_no_key(client):
    key = nonce()
    client.submit(1, model="nonesuch", key=key).problem(404, "unknown_model")
    client.submit(2, key=key).expect(202)


@pytest.mark.parametrize("bad", ["naked", '""', '"', '"a', 'a"', '"ü"', '"' + "x" * 256 + '"', "'a'", '"a" "b"'])
def test_a_key_is_a_quoted_string(client, bad):
    client.post("/v1/tasks", {"model": "echo", "input": 1},
                headers={"Idempotency-Key": bad.encode()}).problem(400, "invalid_request")


def test_concurrent_duplicates(server, client):
    for _ in range(5):
        key, ids, gate = nonce(), [], threading.Barrier(8)

        def one(key=key, ids=ids, gate=gate):
            c = server.client()
            gate.wait()
            ids.append(c.submit({"k": key}, key=key).expect(202).json["id"])
            c.close()

        threads = [threading.Thread(target=one) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(ids) == 8 and len(set(ids)) == 1, ids


def test_idempotency_across_kills_and_restarts(servers):
    server = servers(port=free_port())
    c = server.client()
    running = c.submit({"sleep_ms": 400}, key="r").expect(202).json["id"]
    waiting = c.submit(1, key="w", delay_s=600).expect(202).json["id"]
    ended = c.submit(2, key="e", wait=20).expect(200).json
    for restart in (server.kill, server.stop):
        restart()
        server.start()
        c = server.client()
        assert c.submit({"sleep_ms": 400}, key="r").expect(202, 200).json["id"] == running
        assert c.submit(1, key="w", delay_s=600).expect(202).json["id"] == waiting
        assert c.submit(2, key="e", wait=5).expect(200).json == ended
        c.submit(3, key="e").problem(422, "idempotency_mismatch")
    assert c.done(running)["output"] == {"sleep_ms": 400}


# ---- when, how often, in which order --------------------------------------------------------------

def test_delay(client):
    task = client.done(client.new(1, delay_s=0.6))
    waited = seconds(task["started_at"]) - seconds(task["created_at"])
    assert 0.5999 <= waited < 1.6, task  # the difference of two floats


def test_deadlines(client):
    running = client.new({"sleep_ms": 20000}, deadline_s=0.5)
    with Paused(client):
        queued = client.new(1, deadline_s=0.3)
        task = client.done(queued, 5)
        assert task["status"] == "expired" and task["error"]["code"] == "expired", task
        assert task["attempt"] == 0 and task["started_at"] is None
    task = client.done(running, 5)
    assert task["status"] == "expired" and task["error"]["code"] == "expired", task
    assert 0.4 < seconds(task["finished_at"]) - seconds(task["created_at"]) < 1.2
    assert seconds(task["deadline_at"]) - seconds(task["created_at"]) == pytest.approx(0.5, abs=0.002)
    in_time = client.done(client.new({"sleep_ms": 100}, deadline_s=30))
    assert in_time["status"] == "succeeded"
    assert client.submit(1, deadline_s=5, delay_s=5).problem(422, "invalid_request")["field"] == "delay_s"
    client.submit(1, deadline_s=0).problem(422, "invalid_request")


def test_priorities(client):
    """What waits starts by class: critical before standard before batch."""
    with Paused(client):
        ids = {}
        for i in range(24):
            for priority in ("batch", "standard", "critical"):
                ids[client.new({"sleep_ms": 20, "i": i}, priority=priority)] = priority
    starts = {"critical": [], "standard": [], "batch": []}
    for id, priority in ids.items():
        task = client.done(id)
        assert task["priority"] == priority
        starts[priority].append(task["started_at"])
    assert max(starts["critical"]) <= min(starts["standard"]), starts
    assert max(starts["standard"]) <= min(starts["batch"]), starts


def test_earlier_deadlines_go_first(client):
    with Paused(client):
        late = [client.new({"sleep_ms": 20, "i": i}) for i in range(40)]
        soon = [client.new({"sleep_ms": 20, "i": i}, deadline_s=60) for i in range(10)]
    last = max(client.done(id)["started_at"] for id in soon)
    assert last <= max(client.done(id)["started_at"] for id in late)
    assert last <= sorted(client.done(id)["started_at"] for id in late)[30], "deadlines waited behind those without"


def test_failures(client):
    start = time.monotonic()
    task = client.done(client.new({"fail": "retryable"}, max_attempts=3))
    assert task["status"] == "failed" and task["attempt"] == 3 and task["max_attempts"] == 3, task
    assert task["error"]["code"] == "model_error" and task["error"]["retryable"] is True
    assert "attempt 3" in task["error"]["message"]
    assert task["output"] is None
    assert time.monotonic() - start > 0.15, "the second and third attempts come after a wait"

    task = client.done(client.new({"fail": "final"}, max_attempts=3))
    assert task["status"] == "failed" and task["attempt"] == 1 and task["error"]["retryable"] is False, task

    task = client.done(client.new({"fail": "retryable", "fail_attempts": [1, 2]}))
    assert task["status"] == "succeeded" and task["attempt"] == 3 and task["error"] is None, task

    task = client.done(client.new({"fail": "retryable"}, max_attempts=1))
    assert task["status"] == "failed" and task["attempt"] == 1

    task = client.done(client.new({"sleep_ms": "long"}))
    assert task["status"] == "failed" and task["error"]["code"] == "bad_input" and task["attempt"] == 1, task
    assert "sleep_ms" in task["error"]["message"]


def test_backoff_grows(client):
    id = client.new({"fail": "retryable"}, max_attempts=4)
    client.done(id)
    with client.events(id) as events:
        starts, ends = [], []
        for e in events:
            if e.data.get("status") == "running":
                starts.append(seconds(e.data["at"]))
            elif e.data["attempt"]:
                ends.append(seconds(e.data["at"]))
    waits = [s - e for s, e in zip(starts[1:], ends)]
    assert len(waits) == 3
    for wait, least in zip(waits, (0.05, 0.1, 0.2)):
        assert least - 0.005 <= wait < 2 * least + 1, waits


# ---- cancel, retry, delete ------------------------------------------------------------------------

def test_cancel_queued(client):
    id = client.new(1, delay_s=600)
    task = client.post(f"/v1/tasks/{id}/cancel").expect(200).json
    assert task["status"] == "canceled" and task["finished_at"] and task["output"] is None
    assert task["error"] is None and task["attempt"] == 0
    client.post(f"/v1/tasks/{id}/cancel").problem(409, "already_terminal")
    done = client.run(1)
    client.post(f"/v1/tasks/{done['id']}/cancel").problem(409, "already_terminal")
    assert client.task(done["id"])["status"] == "succeeded"


def test_cancel_running_frees_the_slot(client):
    ids = [client.new({"sleep_ms": 30000, "units": units}) for units in (1, 10)]
    for id in ids:
        client.until(id, "running")
    start = time.monotonic()
    for id in ids:
        assert client.post(f"/v1/tasks/{id}/cancel").expect(200).json["status"] == "canceled"
    wait_until(lambda: client.metrics()["headrace_leases_held"] == 0, 1, "the slots to be free")
    assert client.run({"next": 1})["output"] == {"next": 1}
    assert time.monotonic() - start < 2
    time.sleep(0.1)
    for id in ids:
        task = client.task(id)
        assert task["status"] == "canceled" and task["metrics"]["device_ms"] < 25000, task


def test_cancel_ends_a_hang(client):
    id = client.new({"fail": "hang"})
    client.until(id, "running")
    client.post(f"/v1/tasks/{id}/cancel").expect(200)
    wait_until(lambda: client.metrics()["headrace_leases_held"] == 0, 2, "the slot to be free")
    assert client.run("after it")["output"] == "after it"


def test_retry_makes_a_new_task(client):
    old = client.done(client.new({"fail": "final"}, metadata={"a": "b"}, priority="batch", max_attempts=2))
    r = client.post(f"/v1/tasks/{old['id']}/retry").expect(201)
    new = r.json
    assert new["id"] != old["id"] and new["retry_of"] == old["id"]
    assert r.headers["location"] == f"/v1/tasks/{new['id']}"
    assert new["metadata"] == {"a": "b"} and new["priority"] == "batch" and new["max_attempts"] == 2
    assert client.done(new["id"])["status"] == "failed"
    assert client.task(old["id"]) == old, "the old one never changes"
    assert client.task(new["id"], "?include=input")["input"] == {"fail": "final"}
    waiting = client.new(1, delay_s=600)
    client.post(f"/v1/tasks/{waiting}/retry").problem(409, "conflict")
    client.post(f"/v1/tasks/{waiting}/cancel").expect(200)
    again = client.post(f"/v1/tasks/{waiting}/retry").expect(201).json
    assert again["retry_of"] == waiting
    client.post(f"/v1/tasks/{again['id']}/cancel")


def test_delete_forgets_input_and_output(client):
    task = client.run({"secret": "s3cret"})
    client.delete(f"/v1/tasks/{task['id']}").expect(204)
    client.delete(f"/v1/tasks/{task['id']}").expect(204)  # once more changes nothing
    r = client.get(f"/v1/tasks/{task['id']}?include=input").expect(200, 410)
    assert b"s3cret" not in r.body
    if r.status == 200:
        assert r.json["output"] is None and r.json["input"] is None and r.json["data_removed"] is True
        assert r.json["status"] == "succeeded"
    client.post(f"/v1/tasks/{task['id']}/retry").problem(410, "gone")
    waiting = client.new(1, delay_s=600)
    client.delete(f"/v1/tasks/{waiting}").problem(409, "conflict")
    client.post(f"/v1/tasks/{waiting}/cancel").expect(200)
    client.delete(f"/v1/tasks/{waiting}").expect(204)


def test_logs(client):
    id = client.run(1)["id"]
    r = client.get(f"/v1/tasks/{id}/logs").expect(200)
    assert r.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("method,path", [
    ("GET", "/v1/tasks/{}"), ("GET", "/v1/tasks/{}/events"), ("GET", "/v1/tasks/{}/logs"),
    ("POST", "/v1/tasks/{}/cancel"), ("POST", "/v1/tasks/{}/retry"), ("DELETE", "/v1/tasks/{}")])
def test_unknown_tasks(client, method, path):
    real = client.new(1)
    forged = real[:-1] + ("0" if real[-1] != "0" else "1")
    for id in (
    "task_01J00000000000000000000000",
    "task_",
    "x",
    "task_01j00000000000000000000000",
    forged,
    "%00",
     "..%2f"):
        client.request(method, path.format(id)).expect(404, 400)
    client.request(method, path.format("task_01J00000000000000000000000")).problem(404, "not_found")


# ---- batch ----------------------------------------------------------------------------------------

def batch(client, lines, **headers):
    data = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    r = client.post("/v1/tasks:batch", data, headers={"Content-Type": "application/x-ndjson"} | headers, timeout=120)
    assert r.expect(200).headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in r.body.splitlines()]


def test_batch(client):
    key = nonce()
    big = "x" * 100_000
    answers = batch(client, [
        {"model": "echo", "input": 0},
        b"{not json",
        {"model": "nonesuch", "input": 1},
        {"model": "echo", "input": 3, "idempotency_key": key},
        {"model": "echo", "input": {"big": big}},
        {"model": "echo", "input": 3, "idempotency_key": key},
        {"model": "echo", "input": 4, "idempotency_key": key},
        {"model": "echo", "input": 7, "priority": "batch", "metadata": {"a": "b"}},
        {"model": "echo", "inptu": 8},
        b"[]", b"",
        {"model": "echo", "input": 9},
    ])
    assert len(answers) == 11, "one answer a line, blank lines have none"
    codes = [a["error"]["code"] if "error" in a else None for a in answers]
    assert codes == [None, "invalid_request", "unknown_model", None, None, None, "idempotency_mismatch", None,
                     "unknown_field", "invalid_request", None], answers
    assert all(a["status"] >= 400 for a in answers if "error" in a)
    assert all(a["status"] == 202 for a in answers if "error" not in a)
    assert answers[5]["task"]["id"] == answers[3]["task"]["id"]
    assert [client.done(answers[i]["task"]["id"])["output"] for i in (0, 3, 7, 10)] == [0, 3, 7, 9]
    assert answers[7]["task"]["priority"] == "batch" and answers[7]["task"]["metadata"] == {"a": "b"}
    output = client.done(answers[4]["task"]["id"])["output"]
    content = client.get(f"/v1/files/{output['$file']}/content").expect(200)
    assert content.json == {"big": big}


def test_batch_of_thousands(client):
    answers = batch(client, [{"model": "echo", "input": i} for i in range(3000)])
    assert len(answers) == 3000 and all(a["status"] == 202 for a in answers)
    ids = [a["task"]["id"] for a in answers]
    assert len(set(ids)) == 3000
    for i in (0, 1, 1499, 2999):
        assert client.done(ids[i])["output"] == i
    wait_until(lambda: not client.get("/v1/tasks?status=queued,running&limit=1").json["tasks"], 60)


def test_batch_limits(client):
    answers = batch(client, [b'{"model":"nonesuch","input":1}'] * 10001)
    assert len(answers) == 10001
    assert answers[-1]["error"]["code"] == "too_large" and answers[-2]["error"]["code"] == "unknown_model"
    assert batch(client, []) == []


# ---- list -----------------------------------------------------------------------------------------

def test_list_filters(servers):
    server = servers()
    c = server.client()
    start = c.run(0)
    time.sleep(0.01)
    done = [c.run(i)["id"] for i in range(3)]
    failed = c.done(c.new({"fail": "final"}, priority="critical"))["id"]
    waiting = [c.new(i, delay_s=600, priority="batch") for i in range(2)]

    def ids(**filters):
        return [t["id"] for t in c.list(**filters)]

    everything = ids()
    assert everything == [*reversed(waiting), failed, *reversed(done), start["id"]], "newest first"
    assert ids(status="queued") == list(reversed(waiting))
    assert ids(status="failed,queued") == [*reversed(waiting), failed]
    assert ids(status="failed") == [failed] == ids(priority="critical")
    assert ids(priority="batch", status="succeeded") == []
    assert ids(model="echo") == everything and ids(model="nonesuch") == []
    assert ids(created_after=start["created_at"]) == everything[:-1]
    assert ids(limit=1) == ids(limit=4) == everything, "page by page"
    assert ids(tenant="default") == everything and ids(tenant="nobody") == []
    page = c.get("/v1/tasks?limit=2").json
    assert len(page["tasks"]) == 2 and page["next"] and page["at_seq"] > 0
    get = {t["id"]: t for t in c.list()}
    for id in [*done, failed]:
        assert get[id] == c.task(id), "a list shows what a get shows"
    for bad in ("status=done", "priority=urgent", "created_after=yesterday", "limit=0", "limit=201", "limit=x",
                "cursor=zzz", "cursor=", "limit=1&limit=2"):
        r = c.get(f"/v1/tasks?{bad}")
        assert r.status in (400, 422) and r.json["code"] == "invalid_request", (bad, r)
    c.get("/v1/tasks?stauts=failed").problem(422, "unknown_field")


def test_pages_while_new_ones_arrive(server, client):
    """Paging shows each task that was there at its start once, whatever arrives meanwhile."""
    before = {client.new(i) for i in range(60)}
    stop = threading.Event()

    def more():
        c = server.client()
        while not stop.is_set():
            c.new(1)
        c.close()

    thread = threading.Thread(target=more)
    thread.start()
    try:
        seen, cursor = [], ""
        while cursor is not None:
            page = client.get(f"/v1/tasks?limit=7{cursor and '&cursor=' + cursor}").expect(200).json
            seen += [t["id"] for t in page["tasks"]]
            cursor = page["next"]
            if before <= set(seen):
                break
    finally:
        stop.set()
        thread.join()
    assert len(seen) == len(set(seen)), "a task is on two pages"
    assert before <= set(seen), "a task is on no page"


# ---- files ----------------------------------------------------------------------------------------

def test_files_raw(client):
    data = bytes(range(256)) * 5000
    r = client.upload(data, "?name=all%20bytes.bin", "image/png").expect(201)
    f = r.json
    assert f["size"] == len(data) and f["sha256"] == hashlib.sha256(data).hexdigest()
    assert f["name"] == "all bytes.bin" and f["content_type"] == "image/png"
    assert re.fullmatch(r"file_[0-9A-HJKMNP-TV-Z]{26}", f["id"])
    assert TIME.fullmatch(f["created_at"]) and TIME.fullmatch(f["expires_at"])
    assert client.get(f"/v1/files/{f['id']}").expect(200).json == f
    c = client.get(f"/v1/files/{f['id']}/content").expect(200)
    assert c.body == data and c.headers["content-type"] == "image/png"
    assert "attachment" in c.headers["content-disposition"] and "all bytes.bin" in c.headers["content-disposition"]
    head = client.request("HEAD", f"/v1/files/{f['id']}/content").expect(200)
    assert head.body == b"" and head.headers["content-length"] == str(len(data))
    part = client.get(f"/v1/files/{f['id']}/content", headers={"Range": "bytes=10-19"}).expect(206)
    assert part.body == data[10:20] and part.headers["content-range"] == f"bytes 10-19/{len(data)}"
    assert client.get(f"/v1/files/{f['id']}/content", headers={"Range": "bytes=-5"}).expect(206).body == data[-5:]
    client.get(f"/v1/files/{f['id']}/content", headers={"Range": f"bytes={len(data)}-"}).expect(416)
    tag = c.headers["etag"]
    client.get(f"/v1/files/{f['id']}/content", headers={"If-None-Match": tag}).expect(304)
    client.delete(f"/v1/files/{f['id']}").expect(204)
    for path in ("", "/content"):
        client.get(f"/v1/files/{f['id']}{path}").problem(404, "not_found")
    client.delete(f"/v1/files/{f['id']}").problem(404, "not_found")
    empty = client.upload(b"").expect(201).json
    assert empty["size"] == 0 and client.get(f"/v1/files/{empty['id']}/content").expect(200).body == b""


def test_files_digest(client):
    data = b"some bytes"
    good = hashlib.sha256(data).hexdigest()
    assert client.upload(data, f"?sha256={good}").expect(201).json["sha256"] == good
    r = client.upload(data, f"?sha256={'0' * 64}")
    assert r.status in (400, 422) and r.json["code"] == "invalid_request", r
    assert "sha256" in r.json["detail"].lower() or r.json.get("field") == "sha256"
    client.upload(data, "?sha256=xyz").expect(400, 422)


def multipart(parts, boundary="b0undary"):
    body = b""
    for head, data in parts:
        body += b"--" + boundary.encode() + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n"
    return body + b"--" + boundary.encode() + b"--\r\n", f"multipart/form-data; boundary={boundary}"


def test_files_multipart(client):
    data = b"\r\n--b0undar\r\n\x00\xff" * 30000
    head = b'Content-Disposition: form-data; name="file"; filename="p\xc3\xa4th.png"\r\nContent-Type: image/png'
    f = client.upload(*swap(multipart([(head, data)]))).expect(201).json
    assert f["size"] == len(data) and f["sha256"] == hashlib.sha256(data).hexdigest()
    assert f["name"] == "päth.png" and f["content_type"] == "image/png"
    assert client.get(f"/v1/files/{f['id']}/content").expect(200).body == data
    for bad, kind in ((multipart([(head, data)])[0][:-20], "multipart/form-data; boundary=b0undary"),
                      (b"nothing like it", "multipart/form-data; boundary=b0undary"),
                      (b"x", "multipart/form-data"), multipart([])):
        r = client.upload(bad, kind=kind)
        assert r.status in (400, 422) and r.json["code"] == "invalid_request", (bad[:50], r)


def swap(body_and_kind):
    body, kind = body_and_kind
    return body, "", kind


def test_files_are_streamed(client):
    """A large file, sent in chunks, does not grow the server's memory by its size."""
    piece, n = b"0123456789abcdef" * 65536, 96

    def pieces():
        for _ in range(n):
            yield piece

    f = client.post("/v1/files", pieces(), headers={"Content-Type": "application/octet-stream"},
                    timeout=60).expect(201).json
    digest = hashlib.sha256()
    for _ in range(n):
        digest.update(piece)
    assert f["size"] == n * len(piece) and f["sha256"] == digest.hexdigest()
    client.conn.request("GET", f"/v1/files/{f['id']}/content")
    r, size, digest = client.conn.getresponse(), 0, hashlib.sha256()
    while got := r.read(1 << 20):
        size += len(got)
        digest.update(got)
    assert size == f["size"] and digest.hexdigest() == f["sha256"]
    client.delete(f"/v1/files/{f['id']}").expect(204)


def test_memory_stays_small_with_large_files(servers):
    server = servers()
    c = server.client()

    def peak():
        status = open(f"/proc/{server.pid}/status").read()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024

    asan = "asan" in open(f"/proc/{server.pid}/maps").read()  # it keeps freed memory for a while
    before = peak()
    test_files_are_streamed(c)
    assert peak() - \
                before < (500 if asan else 48), \
                f"96 MiB up and down took the peak from {before:.0f} to {peak():.0f} MiB"


def test_files_in_inputs(client):
    f = client.upload(b"abc", "?name=a.txt", "text/plain").expect(201).json
    input = {"text": {"$file": f["id"]}, "n": 1}
    with Paused(client):
        id = client.new(input)
        client.delete(f"/v1/files/{f['id']}").problem(409, "conflict")
    assert client.done(id)["output"] == input
    p = client.submit({"text": {"$file": "file_01J00000000000000000000000"}}).problem(422, "invalid_request")
    assert p["field"] == "input"
    client.submit({"text": {"$file": 17}}).problem(422, "invalid_request")
    client.delete(f"/v1/tasks/{id}").expect(204)
    client.delete(f"/v1/files/{f['id']}").expect(204)


def test_files_survive_a_kill(servers):
    server = servers(port=free_port())
    c = server.client()
    f = c.upload(b"x" * 300_000).expect(201).json
    server.kill()
    server.start()
    c = server.client()
    assert c.get(f"/v1/files/{f['id']}").expect(200).json == f
    assert c.get(f"/v1/files/{f['id']}/content").expect(200).body == b"x" * 300_000


def test_large_inputs_and_outputs_are_files(client):
    """Over 64 KiB inline they go through a file, both ways, and nobody has to care."""
    for size in (65_000, 66_000, 1_000_000, 7_000_000):
        input = {"text": "ü\n\\" + "x" * size}
        task = client.run(input)
        shown = client.task(task["id"], "?include=input")["input"]
        if size == 65_000:
            assert task["output"] == input and shown == input
            continue
        assert "$file" in shown and "$file" in task["output"], task
        for ref in (shown, task["output"]):
            content = client.get(f"/v1/files/{ref['$file']}/content").expect(200)
            assert content.json == input
            assert content.headers["content-type"].startswith("application/json")
    new = client.post(f"/v1/tasks/{task['id']}/retry").expect(201).json["id"]
    output = client.done(new)["output"]
    assert client.get(f"/v1/files/{output['$file']}/content").json == input
    meta = client.get(f"/v1/files/{task['output']['$file']}").json
    assert meta.get("task", task["id"]) == task["id"]  # not told of one that has left memory
    client.delete(f"/v1/tasks/{task['id']}").expect(204)
    wait_until(lambda: client.get(f"/v1/files/{meta['id']}").status == 404, 5, "a task's file to go with it")
    # The same with a key: a repeat makes neither task nor file.
    key = nonce()
    first = client.submit(input, key=key).expect(202).json["id"]
    assert client.submit(input, key=key).expect(202).json["id"] == first


# ---- events ---------------------------------------------------------------------------------------

def place(event):
    seq, _, n = event.id.partition(".")
    return int(seq), int(n or 0)


def test_events(client):
    id = client.new({"sleep_ms": 1000, "units": 10})
    with client.events(id) as stream:
        assert stream.status == 200 and stream.headers["content-type"].startswith("text/event-stream")
        events = list(stream)
    statuses = [e.data["status"] for e in events if e.name == "status"]
    assert statuses == ["queued", "running", "succeeded"], events
    places = [place(e) for e in events]
    assert places == sorted(set(places)), places
    steps = [(e.data["step"], e.data["steps"]) for e in events if e.name == "progress"]
    assert len(steps) >= 5 and all(s[1] == 10 for s in steps) and steps == sorted(steps), steps
    assert events[-1].data["task"] == client.task(id)
    for e in events:
        assert e.data["id"] == id
    # Resumed from each of its events, and after the last one.
    for i, e in enumerate(events):
        with client.events(id, e.id) as stream:
            if i == len(events) - 1:
                assert stream.status == 204
                continue
            rest = [x for x in stream if x.name == "status"]
        assert [place(x) for x in rest] == [p for p in (place(x) for x in events if x.name == "status") if p > place(e)]
    r = client.get(f"/v1/tasks/{id}/events?last_event_id={events[0].id}").expect(200)
    assert b"succeeded" in r.body and b'"status":"queued"' not in r.body
    client.get(f"/v1/tasks/{id}/events", headers={"Last-Event-ID": "abc"}).problem(400, "invalid_request")


def test_events_of_retries(client):
    id = client.new({"fail": "retryable", "fail_attempts": [1]})
    with client.events(id) as stream:
        events = [e for e in stream if e.name == "status"]
    assert [(e.data["status"], e.data["attempt"]) for e in events] == \
        [("queued", 0), ("running", 1), ("queued", 1), ("running", 2), ("succeeded", 2)], events
    assert events[2].data["code"] == "model_error"


def test_events_go_on_across_a_kill(servers):
    server = servers(port=free_port())
    c = server.client()
    id = c.new({"sleep_ms": 1500, "units": 5}, delay_s=1.5)
    got = []
    stream = c.events(id)
    it = iter(stream)
    got.append(next(it))
    server.kill()
    with pytest.raises(Lost):
        list(it)
        raise Lost("it ended without the last event")
    stream.close()
    server.start()
    c = server.client()
    with c.events(id, got[0].id) as stream:
        for e in stream:
            got.append(e)
            if e.data.get("status") == "running":
                break
    server.kill()
    server.start()
    c = server.client()
    with c.events(id, got[-1].id) as stream:
        got += list(stream)
    statuses = [e.data["status"] for e in got if e.name == "status"]
    assert statuses[0] == "queued" and statuses[1] == "running" and statuses[-1] == "succeeded", statuses
    places = [place(e) for e in got]
    assert places == sorted(set(places)), places
    assert got[-1].data["task"] == c.task(id)


# ---- batches with their results --------------------------------------------------------------------

def echo(input, **fields):
    return {"model": "echo", "input": input} | fields


def test_a_batch_waits_for_its_results(client):
    lines = [echo({"i": i, "sleep_ms": 20 * (i % 3)}) for i in range(40)]
    lines[7] = {"model": "echo"}
    lines[9] = echo({"fail": "final"})
    lines[11] = echo({"sleep_ms": 400})
    answers = batch(client, lines, Prefer="wait=20")
    assert [a["status"] for a in answers] == [422 if i == 7 else 200 for i in range(40)]
    for i, a in enumerate(answers):
        if i == 9:
            assert a["task"]["status"] == "failed"
        elif i not in (7, 11):
            assert a["task"]["status"] == "succeeded" and a["task"]["output"]["i"] == i
    assert answers[0]["task"] == client.task(answers[0]["task"]["id"])


def test_a_batch_waits_no_longer_than_asked(client):
    start = time.monotonic()
    answers = batch(client, [echo(1), echo(2, delay_s=60), echo(3)], Prefer="wait=1")
    assert [a["status"] for a in answers] == [200, 202, 200] and time.monotonic() - start < 5
    assert answers[1]["task"]["status"] == "queued"
    client.post(f"/v1/tasks/{answers[1]['task']['id']}/cancel").expect(200)


def test_a_batch_with_short_answers(client):
    keyed = [echo(i, idempotency_key=f"short-{i}") for i in range(5)]
    first = batch(client, keyed, Prefer="return=minimal")
    assert all(set(a["task"]) == {"id", "status"} and a["status"] == 202 for a in first)
    again = batch(client, keyed, Prefer="return=minimal, wait=10")
    assert [a["task"]["id"] for a in again] == [a["task"]["id"] for a in first]
    assert all(a["replayed"] and a["task"]["status"] == "succeeded" for a in again)


# ---- retention ------------------------------------------------------------------------------------

def test_the_oldest_finished_leave_first(servers):
    server = servers(QUICK + "limits: {finished_max: 5}\nhistory: {enabled: false}\n", port=free_port())
    c = server.client()
    waiting = c.new("kept", delay_s=600)
    ids = [c.run(i)["id"] for i in range(20)]
    wait_until(lambda: len(c.list()) == 6, 5, "the list to hold the bound and what is not finished")
    for _ in range(2):
        for id in ids[:15]:
            for r in (c.get(f"/v1/tasks/{id}"), c.get(f"/v1/tasks/{id}/events"), c.post(f"/v1/tasks/{id}/cancel")):
                p = r.problem(410, "gone")
                assert "left memory" in p["detail"] or "retention" in p["detail"]
        for i, id in enumerate(ids[15:]):
            assert c.task(id)["output"] == 15 + i
        assert c.task(waiting)["status"] == "queued"
        server.kill()
        server.start()
        c = server.client()


def test_finished_bytes_are_bounded(servers):
    server = servers(QUICK + "limits: {finished_bytes_max: 100KiB}\nhistory: {enabled: false}\n")
    c = server.client()
    ids = [c.run({"i": i, "pad": "x" * 20000})["id"] for i in range(10)]
    wait_until(lambda: len(c.list()) <= 3, 5, "the bound")
    c.get(f"/v1/tasks/{ids[0]}").problem(410, "gone")
    assert c.task(ids[-1])["output"]["i"] == 9


def test_retention(client):
    id = client.run("short", retention_s=1)["id"]
    assert client.task(id)["output"] == "short"
    wait_until(lambda: client.get(f"/v1/tasks/{id}").status == 410, 10, "its retention to be over", every=0.2)
    client.get(f"/v1/tasks/{id}").problem(410, "gone")
    other = client.run("long")["id"]
    time.sleep(1.2)
    assert client.task(other)["output"] == "long"


# ---- admission ------------------------------------------------------------------------------------

def test_full_queues_and_rates(servers):
    server = servers(QUICK + "limits: {queue_max: 5}\n")
    c = server.client()
    ids = [c.new(1, delay_s=600) for _ in range(5)]
    r = c.submit(1)
    r.problem(429, "queue_full")
    assert int(r.headers["retry-after"]) >= 1
    c.post(f"/v1/tasks/{ids[0]}/cancel").expect(200)
    c.submit(1).expect(202)

    server = servers(QUICK + "limits: {submit_rate: 5}\n")
    c = server.client()
    answers = [c.submit(1) for _ in range(12)]
    assert answers[0].status == 202
    limited = [r for r in answers if r.status != 202]
    assert limited, "12 submits at once got through a rate of 5"
    limited[0].problem(429, "rate_limited")
    assert "retry-after" in limited[0].headers and "ratelimit" in limited[0].headers
    assert "ratelimit-policy" in answers[0].headers
    wait_until(lambda: c.submit(1).status == 202, 3, "the rate to let one in")


# ---- models, workers, queues ----------------------------------------------------------------------

def test_models(client):
    client.run(1)
    models = {m["name"]: m for m in client.get("/v1/models").expect(200).json["models"]}
    echo = models["echo"]
    assert echo == client.get("/v1/models/echo").expect(200).json
    assert echo["paused"] is False
    version = echo["versions"][0]
    assert version["version"] == echo["latest"]
    assert version["loaded_on"] and version["succeeded"] >= 1
    assert client.get(f"/v1/models/echo/versions/{echo['latest']}").expect(200).json["digest"] == version["digest"]
    client.get("/v1/models/nonesuch").problem(404, "unknown_model")
    client.get("/v1/models/echo/versions/77").problem(404, "unknown_model")
    client.post("/v1/models/nonesuch/pause").problem(404, "unknown_model")


def test_pause_and_resume(client):
    with Paused(client):
        assert client.get("/v1/models/echo").json["paused"] is True
        id = client.new(1)
        time.sleep(0.4)
        assert client.task(id)["status"] == "queued"
        client.post("/v1/models/echo/pause").expect(200)
    assert client.get("/v1/models/echo").json["paused"] is False
    assert client.done(id)["status"] == "succeeded"


def test_a_pause_outlives_a_restart(servers):
    server = servers(port=free_port())
    c = server.client()
    c.post("/v1/models/echo/pause").expect(200)
    id = c.new(1)
    server.kill()
    server.start()
    c = server.client()
    assert c.get("/v1/models/echo").json["paused"] is True
    time.sleep(0.4)
    assert c.task(id)["status"] == "queued"
    c.post("/v1/models/echo/resume").expect(200)
    assert c.done(id)["status"] == "succeeded"


def test_workers(client):
    workers = client.get("/v1/workers").expect(200).json["workers"]
    assert len(workers) == 1
    w = workers[0]
    assert w["status"] == "ready" and w["devices"][0]["kind"] == "cpu" and w["pid"] > 1
    assert client.get(f"/v1/workers/{w['id']}").expect(200).json["name"] == w["name"]
    client.get("/v1/workers/worker_nonesuch").problem(404, "not_found")
    id = client.new({"sleep_ms": 500})
    client.until(id, "running")
    now = client.get(f"/v1/workers/{w['id']}").json
    assert now["running"] == 1 and now["devices"][0]["running"] == 1
    assert 0 <= now["devices"][0]["idle_share"] <= 1
    client.done(id)


def test_cordon(client):
    w = client.get("/v1/workers").json["workers"][0]
    running = client.new({"sleep_ms": 600})
    client.until(running, "running")
    assert client.post(f"/v1/workers/{w['id']}/cordon").expect(200).json["status"] == "cordoned"
    try:
        waiting = client.new(1)
        assert client.done(running)["status"] == "succeeded", "what runs goes on"
        time.sleep(0.2)
        assert client.task(waiting)["status"] == "queued"
    finally:
        assert client.post(f"/v1/workers/{w['id']}/uncordon").expect(200).json["status"] == "ready"
    assert client.done(waiting)["status"] == "succeeded"
    client.post("/v1/workers/worker_nonesuch/cordon").problem(404, "not_found")


def test_drain(client):
    """A drained worker finishes what it runs and ends; a supervised one comes back fresh."""
    w = client.get("/v1/workers").json["workers"][0]
    id = client.new({"sleep_ms": 700})
    client.until(id, "running")
    assert client.post(f"/v1/workers/{w['id']}/drain").expect(200).json["status"] == "draining"
    task = client.done(id)
    assert task["status"] == "succeeded" and task["attempt"] == 1, task
    assert client.run("after")["output"] == "after"
    assert client.get("/v1/workers").json["workers"][0]["pid"] != w["pid"]
    client.post("/v1/workers/worker_nonesuch/drain").problem(404, "not_found")


def test_queues_and_tenants(client):
    with Paused(client):
        ids = [client.new(i, priority="critical") for i in range(2)] + [client.new(9, delay_s=600)]
        time.sleep(0.05)
        q = [q for q in client.get("/v1/queues").expect(200).json["queues"] if q["model"] == "echo"][0]
        assert q["ready"]["critical"] == 2 and q["delayed"] >= 1 and q["oldest_age_s"] >= 0.04, q
    for id in ids[:2]:
        client.done(id)
    client.post(f"/v1/tasks/{ids[2]}/cancel")
    t = [t for t in client.get("/v1/tenants").expect(200).json["tenants"] if t["name"] == "default"][0]
    assert t["submitted_total"] >= 3 and t["succeeded"] >= 2 and t["running"] == 0


def test_a_worker_from_elsewhere(servers, tmp_path):
    import subprocess

    from server import HEADRACE, environment
    server = servers(QUICK + "workers: {devices: 0}\n")
    c = server.client()
    assert c.get("/v1/workers").json["workers"] == []
    log = open(tmp_path / "worker.log", "wb")
    command = [HEADRACE, "worker", "--server", server.endpoint, "--key-file", server.data / "worker.key",
               "--name", "far", "--data", tmp_path / "far"]
    refused = subprocess.run([*command[:4], "--name", "far"], capture_output=True, text=True, timeout=20,
                             env=environment(HEADRACE_WORKER_KEY="wrong"), stdin=subprocess.DEVNULL)
    assert refused.returncode != 0 and "key" in refused.stderr, refused
    worker = subprocess.Popen(command, stdout=log, stderr=log, env=environment(), stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: c.get("/v1/workers").json["workers"], 20, "the worker to join")
        assert c.run({"far": "away"})["output"] == {"far": "away"}
        id = c.new({"sleep_ms": 800})
        c.until(id, "running")
        worker.terminate()
        task = c.done(id, 20)
        assert task["status"] == "succeeded" and task["attempt"] == 1, task
        assert worker.wait(10) == 0
    finally:
        worker.kill()
        worker.wait()
        log.close()


# ---- operations -----------------------------------------------------------------------------------

def test_health(client):
    for path in ("/livez", "/readyz", "/startupz", "/readyz?verbose"):
        assert client.get(path).expect(200).body
    r = client.get("/").expect(200)
    assert r.headers["content-type"].startswith("text/html") and b"Headrace" in r.body


def test_metrics(client):
    before = client.metrics()
    client.run(1)
    after = client.metrics()
    assert after["headrace_tasks_submitted_total"] == before["headrace_tasks_submitted_total"] + 1
    assert after["headrace_leader"] == 1
    assert after["headrace_log_commits_total"] > before["headrace_log_commits_total"]
    assert after["headrace_log_misfits_total"] == 0
    names = [n for n in after if n.startswith("headrace_http_requests_total")]
    assert any('route="/v1/tasks"' in n and 'method="POST"' in n for n in names), names


ISSUE = """
POST /v1/tasks · POST /v1/tasks:batch · GET /v1/tasks/{id} · GET /v1/tasks/{id}/events · POST /v1/tasks/{id}/cancel
POST /v1/tasks/{id}/retry · GET /v1/tasks/{id}/logs · DELETE /v1/tasks/{id} · GET /v1/tasks · POST /v1/files
GET /v1/files/{id} · GET /v1/files/{id}/content · DELETE /v1/files/{id} · GET /v1/models · GET /v1/models/{name}
GET /v1/models/{name}/versions/{version} · POST /v1/models/{name}/pause · POST /v1/models/{name}/resume
GET /v1/workers · POST /v1/workers/{id}/drain · POST /v1/workers/{id}/cordon · GET /v1/queues · GET /livez · GET /readyz
GET /startupz · GET /metrics · GET /openapi.json · GET / · POST /v1/worker/register · GET /v1/worker/{id}/stream
POST /v1/worker/{id}/reports
"""


def test_openapi_lists_every_route(client):
    r = client.get("/openapi.json").expect(200)
    assert r.headers["content-type"] == "application/json"
    spec = r.json
    assert spec["openapi"].startswith("3.1")
    listed = {(m.upper(), p) for p, item in spec["paths"].items() for m in item if m != "parameters"}
    wanted = {tuple(e.split()) for line in ISSUE.strip().splitlines() for e in line.split("·")}
    assert wanted <= listed, wanted - listed
    in_source = set(re.findall(r'^    \{(?:HTTP_M_)?(GET|POST|DEL|PUT), "([^"]+)"',
                               (ROOT / "src/gateway/route.c").read_text(), re.M))
    assert {("DELETE" if m == "DEL" else m, p) for m, p in in_source} == listed
    for path, item in spec["paths"].items():
        for method, op in item.items():
            if method == "parameters":
                continue
            assert op["summary"] and op["responses"], (method, path)
            named = {p["name"] for p in op.get("parameters", []) + item.get("parameters", []) if p.get("in") == "path"}
            assert set(re.findall(r"\{(\w+)\}", path)) == named, (method, path)

    def refs(value):
        if isinstance(value, dict):
            if "$ref" in value and isinstance(value["$ref"], str):
                yield value["$ref"]
            for v in value.values():
                yield from refs(v)
        elif isinstance(value, list):
            for v in value:
                yield from refs(v)

    for ref in set(refs(spec)):
        at = spec
        assert ref.startswith("#/"), ref
        for part in ref[2:].split("/"):
            at = at[part]
    # Every route is there: nothing answers that there is nothing at this path.
    for method, path in sorted(listed):
        full = re.sub(r"\{\w+\}", "x", path)
        r = client.request(method, full, b"{}" if method == "POST" else None,
                           headers={"Content-Type": "text/plain"} if method == "POST" else None)
        assert r.status != 405, (method, path, r)
        assert r.status != 404 or b"there is nothing at this path" not in r.body, (method, path, r)


def test_openapi_describes_what_is_served(client):
    """The task's properties of the specification are those of a task."""
    spec = client.get("/openapi.json").json
    task = client.run(1, metadata={"a": "b"}, deadline_s=60)
    batch = spec["paths"]["/v1/tasks:batch"]["post"]
    assert "Prefer" in {p["name"] for p in batch["parameters"]}
    worker = spec["components"]["schemas"]["WorkerAnswer"]["properties"]["status"]["enum"]
    source = (ROOT / "src/gateway/workers.c").read_text()
    told = re.findall(r'"(\w+)"', re.search(r"answers\[\] = \{(.*?)\}", source)[1])
    assert len(told) == 5 and set(told) == set(worker), (told, worker)
    described = spec["components"]["schemas"]["Task"]["properties"]
    assert set(task) <= set(described), set(task) - set(described)


def test_answers_to_pipelined_requests_come_in_order(server, client):
    from server import parse_answers, raw
    id = client.run("x")["id"]
    host = b"Host: 127.0.0.1\r\n"
    requests = b"".join(b"GET " + path + b" HTTP/1.1\r\n" + host + b"\r\n" for path in (
        f"/v1/tasks/{id}".encode(), b"/livez", b"/nothing", f"/v1/tasks/{id}?include=input".encode()))
    requests += b"GET /livez HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n"
    answers = parse_answers(raw(server.endpoint, requests))
    assert [a.status for a in answers] == [200, 200, 404, 200, 200]
    assert answers[0].json["id"] == id and "input" in answers[3].json


def test_many_clients_at_once(server):
    """40 connections: each sees its own results."""
    errors = []

    def one(k):
        c = Client(server.endpoint)
        try:
            for i in range(10):
                value = {"k": k, "i": i}
                assert c.submit(value, wait=30).expect(200).json["output"] == value
        except Exception as e:
            errors.append(e)
        finally:
            c.close()

    threads = [threading.Thread(target=one, args=(k,)) for k in range(40)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[:3]
