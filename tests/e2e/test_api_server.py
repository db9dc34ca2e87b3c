"""The native API beside tasks (those are in test_api.py): files, models, workers, queues, admission, operations."""

import hashlib
import json
import re
import threading
import time

from conftest import QUICK
from server import ROOT, Client, free_port, nonce, wait_until

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Paused:
    """Nothing of the model `echo` starts meanwhile: what is submitted waits."""

    def __init__(self, client):
        self.client = client

    def __enter__(self):
        self.client.post("/v1/models/echo/pause").expect(200)

    def __exit__(self, *_):
        self.client.post("/v1/models/echo/resume").expect(200)


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
