"""Bad requests of every kind get their problem document, and the server lives on: each test ends with a
good one (see `alive`)."""

import contextlib
import json
import socket
import time
from urllib.parse import urlsplit

import pytest
from conftest import QUICK
from server import Client, parse_answers, raw

CRLF = "\r\n"
TASK = '{"model":"echo","input":1}'


@pytest.fixture(autouse=True)
def alive(server):
    """After each test the same process still answers."""
    pid = server.pid
    yield
    assert server.running and server.pid == pid, server.log_tail()
    c = server.client()
    assert c.submit("alive", wait=20).expect(200).json["output"] == "alive"
    c.close()


def request(*lines, body=b""):
    return CRLF.join([*lines, "", ""]).encode("latin-1") + (body if isinstance(body, bytes) else body.encode())


def refused(server, data, status, code="invalid_request", **kw):
    """Exactly one answer: the problem, whole; and the connection ends."""
    answers = parse_answers(raw(server.endpoint, data, **kw))
    assert len(answers) == 1, f"{len(answers)} answers: {answers}"
    problem = answers[0].problem(status, code)
    return answers[0], problem


GET = "GET /livez HTTP/1.1"
POST = "POST /v1/tasks HTTP/1.1"
HOST = "Host: localhost"
TYPE = "Content-Type: application/json"
LENGTH = f"Content-Length: {len(TASK)}"


# ---- malformed HTTP -------------------------------------------------------------------------------

MALFORMED = {
    "no host": (request(GET), 400),
    "two hosts": (request(GET, HOST, "Host: localhost"), 400),
    "empty host": (request(GET, "Host:"), 400),
    "bad host": (request(GET, "Host: a b"), 400),
    "two different lengths": (request(POST, HOST, TYPE, LENGTH, "Content-Length: 5", body=TASK), 400),
    "the same length twice": (request(POST, HOST, TYPE, LENGTH, LENGTH, body=TASK), 400),
    "a list of lengths": (request(POST, HOST, TYPE, "Content-Length: 26, 26", body=TASK), 400),
    "length and chunked": (request(POST, HOST, TYPE, LENGTH, "Transfer-Encoding: chunked", body="0\r\n\r\n"), 400),
    "chunked and length": (request(POST, HOST, TYPE, "Transfer-Encoding: chunked", LENGTH, body="0\r\n\r\n"), 400),
    "chunked twice": (request(POST, HOST, TYPE, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked",
                              body="0\r\n\r\n"), 400),
    "another coding": (request(POST, HOST, TYPE, "Transfer-Encoding: gzip, chunked", body="0\r\n\r\n"), (400, 501)),
    "identity coding": (request(POST, HOST, TYPE, "Transfer-Encoding: identity", body=""), (400, 501)),
    "chunked with a vertical tab": (
        request(POST, HOST, TYPE, "Transfer-Encoding: \x0bchunked", body="0\r\n\r\n"), (400, 501)),
    "negative length": (request(POST, HOST, TYPE, "Content-Length: -1"), 400),
    "length with a sign": (request(POST, HOST, TYPE, "Content-Length: +26", body=TASK), 400),
    "length in hex": (request(POST, HOST, TYPE, "Content-Length: 0x1a", body=TASK), 400),
    "length that overflows": (request(POST, HOST, TYPE, "Content-Length: 99999999999999999999999"), 400),
    "bare LF": (b"GET /livez HTTP/1.1\nHost: localhost\n\n", 400),
    "bare LF between headers": (b"GET /livez HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", 400),
    "bare CR": (b"GET /livez HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n", 400),
    "folded header": (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", 400),
    "first header folded": (b"GET /livez HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    "blank before the colon": (request(GET, "Host : localhost"), 400),
    "header without a colon": (request(GET, HOST, "nonsense"), 400),
    "empty header name": (request(GET, HOST, ": x"), 400),
    "NUL in a header": (request(GET, HOST, "X: a\0b"), 400),
    "control character in a header": (request(GET, HOST, "X: a\x01b"), 400),
    "NUL in the path": (b"GET /livez\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "blank in the path": (b"GET /li vez HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "no path": (b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a whole URL": (request("GET http://localhost/livez HTTP/1.1", HOST), 400),
    "fragment": (request("GET /livez#x HTTP/1.1", HOST), 400),
    "asterisk": (request("GET * HTTP/1.1", HOST), 400),
    "no version": (b"GET /livez\r\n\r\n", (400, 505)),
    "HTTP/1.0": (b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n", 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 505)),
    "HTTP/3.7": (b"GET /livez HTTP/3.7\r\nHost: localhost\r\n\r\n", (400, 505)),
    "lower case method": (request("get /livez HTTP/1.1", HOST), 400),
    "unknown method": (request("FROB /livez HTTP/1.1", HOST), (400, 405, 501)),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400),
    "garbage": (bytes(range(256)) * 4, 400),
    "header too large": (request(GET, HOST, "X: " + "y" * 20000), 431),
    "path too long": (request("GET /" + "x" * 20000 + " HTTP/1.1", HOST), (414, 431)),
    "too many headers": (request(GET, HOST, *[f"X{i}: y" for i in range(300)]), 431),
    "unknown expectation": (request(POST, HOST, TYPE, LENGTH, "Expect: 200-ok", body=TASK), 417),
    "chunk size not hex": (request(POST, HOST, TYPE, "Transfer-Encoding: chunked", body="zz\r\n{}\r\n0\r\n\r\n"), 400),
    "negative chunk": (request(POST, HOST, TYPE, "Transfer-Encoding: chunked", body="-1\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk size overflows": (request(POST, HOST, TYPE, "Transfer-Encoding: chunked",
                                     body="fffffffffffffffff\r\n{}\r\n0\r\n\r\n"), 400),
    "chunk longer than it says": (
        request(POST, HOST, TYPE, "Transfer-Encoding: chunked", body="2\r\n{}{}\r\n0\r\n\r\n"), 400),
    "chunk with a bare LF": (request(POST, HOST, TYPE, "Transfer-Encoding: chunked", body="2\n{}\n0\n\n"), 400),
    "endless chunk extension": (request(POST, HOST, TYPE, "Transfer-Encoding: chunked",
                                        body="2;" + "x" * 40000 + "\r\n{}\r\n0\r\n\r\n"), (400, 431)),
    "endless trailers": (request(POST, HOST, TYPE, "Transfer-Encoding: chunked",
                                 body="2\r\n{}\r\n0\r\n" + "X: y\r\n" * 10000 + "\r\n"), (400, 431)),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_http(server, name):
    data, statuses = MALFORMED[name]
    answers = parse_answers(raw(server.endpoint, data, timeout=3))
    assert len(answers) == 1, f"{len(answers)} answers: {answers}"
    a = answers[0]
    wanted = statuses if isinstance(statuses, tuple) else (statuses,)
    assert a.status in wanted, (wanted, a)
    a.problem(a.status, "method_not_allowed" if a.status == 405 else
              "too_large" if a.json["code"] == "too_large" and a.status == 431 else "invalid_request")
    if a.status != 405:
        assert a.headers.get("connection") == "close", a.headers


def test_nothing_after_a_malformed_request_is_read(server):
    """Request smuggling: what follows an ambiguous request is no request."""
    inner = request("POST /v1/models/echo/pause HTTP/1.1", HOST)
    for data in (request(POST, HOST, TYPE, f"Content-Length: {len(inner)}", "Transfer-Encoding: chunked",
                         body=b"0\r\n\r\n" + inner),
                 request(POST, HOST, TYPE, "Content-Length: 0", f"Content-Length: {len(inner)}", body=inner),
                 b"GET /livez HTTP/1.1\nHost: localhost\n\n" + inner):
        refused(server, data, 400)
    assert server.client().get("/v1/models/echo").json["paused"] is False


def test_a_good_request_byte_by_byte(server):
    data = request(POST, HOST, TYPE, LENGTH, "Connection: close", body=TASK)
    answers = parse_answers(raw(server.endpoint, [bytes([b]) for b in data]))
    assert [a.status for a in answers] == [202]


def test_chunked_bodies_are_fine(server):
    body = "".join(f"{len(c):x};a=b\r\n{c}\r\n" for c in (TASK[:5], TASK[5:6], TASK[6:])) + "0\r\nX-Trailer: y\r\n\r\n"
    data = request(POST, HOST, TYPE, "Transfer-Encoding: chunked", "Connection: close", body=body)
    assert [a.status for a in parse_answers(raw(server.endpoint, data))] == [202]


# ---- sizes and slowness ---------------------------------------------------------------------------

def test_huge_lengths_are_refused_at_the_head(server):
    for length in (9 * 1024 * 1024, 10**12, 2**63 - 1):
        start = time.monotonic()
        _, p = refused(server, request(POST, HOST, TYPE, f"Content-Length: {length}"), 413, "too_large", timeout=3)
        assert time.monotonic() - start < 2, "it waited for the body"
        assert str(8 * 1024 * 1024) in p["detail"]
    refused(server, request("POST /v1/files HTTP/1.1", HOST, f"Content-Length: {2**40}"), 413, "too_large", timeout=3)


def test_a_body_too_large_by_chunks(server):
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    head = request(POST, HOST, TYPE, "Transfer-Encoding: chunked")
    got = parse_answers(raw(server.endpoint, [head] + [chunk] * 9 + [b"0\r\n\r\n"], timeout=5))
    if got:  # the reset of the connection may overtake the answer
        got[0].problem(413, "too_large")


def test_expect_continue(server):
    parts = urlsplit(server.endpoint)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as s:
        s.sendall(request(POST, HOST, TYPE, LENGTH, "Expect: 100-continue", "Connection: close"))
        assert s.recv(100).startswith(b"HTTP/1.1 100 ")
        s.sendall(TASK.encode())
        got = b""
        while piece := s.recv(65536):
            got += piece
    assert parse_answers(got)[0].status == 202
    # A refusal needs no body first.
    _, p = refused(server, request(POST, HOST, TYPE, "Content-Length: 999999999",
                   "Expect: 100-continue"), 413, "too_large")
    assert p


def test_slow_clients_are_timed_out(servers):
    """Small limits: a head that never ends, a body that never comes, a connection that says nothing."""
    slow = servers(QUICK.replace("timeouts:", "timeouts:\n  header: 500ms\n  idle: 1s"))
    for data in (b"GET /livez HT", request(POST, HOST, TYPE, "Content-Length: 100", body='{"model"')):
        start = time.monotonic()
        a = parse_answers(raw(slow.endpoint, data, timeout=10))
        assert 0.3 < time.monotonic() - start < 5
        assert a and a[0].status == 408, a
        a[0].problem(408, "invalid_request")
    start = time.monotonic()
    assert raw(slow.endpoint, b"", timeout=10) == b""
    assert 0.5 < time.monotonic() - start < 5
    # Drop by drop: time is counted from the first byte.
    start = time.monotonic()
    a = parse_answers(raw(slow.endpoint, [b"G", b"E", b"T", b" ", b"/", b"l", b"i", b"v"], pause=0.2, timeout=10))
    assert time.monotonic() - start < 5 and a[0].status == 408
    assert slow.client().get("/livez").status == 200


def test_connections_are_capped(servers):
    small = servers(QUICK + "limits: {connections_max: 8}\n")
    parts = urlsplit(small.endpoint)
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=5))
        time.sleep(0.2)
        answers = parse_answers(raw(small.endpoint, request(GET, HOST, "Connection: close"), timeout=3))
        if answers:
            assert answers[0].status == 503, answers
            assert "retry-after" in answers[0].headers
    time.sleep(0.3)
    assert small.client().run("room again")["output"] == "room again"


def test_clients_that_leave(server):
    """In the middle of a head, a body, an answer, a stream."""
    c = server.client()
    id = c.new({"sleep_ms": 300, "units": 3})
    parts = urlsplit(server.endpoint)
    for data in (b"",
    b"GET /li",
    request(GET,
    HOST),
    request(POST,
    HOST,
    TYPE,
    LENGTH,
    body=TASK[:5]),
    request(f"GET /v1/tasks/{id}/events HTTP/1.1",
    HOST),
    request(f"GET /v1/tasks/{id}?wait=30 HTTP/1.1",
    HOST),
    request("GET /metrics HTTP/1.1",
    HOST) * 50,
    request("POST /v1/files HTTP/1.1",
    HOST,
    "Content-Length: 1000000",
    body=b"x" * 70000),
    request("POST /v1/tasks:batch HTTP/1.1",
    HOST,
    "Content-Type: application/x-ndjson",
    "Transfer-Encoding: chunked",
     body=f"1b\r\n{TASK}\n\r\n")):
        for linger in (False, True):
            s = socket.create_connection((parts.hostname, parts.port), timeout=5)
            s.sendall(data)
            if linger:  # a reset instead of an end
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            s.close()
    assert c.done(id)["status"] == "succeeded"


def test_uploads_that_break_off_leave_nothing(server):
    """No file, no leftovers on disk."""
    before = sorted(p.name for p in (server.data / "files").rglob("*") if p.is_file())
    for _ in range(3):
        raw(server.endpoint, request("POST /v1/files HTTP/1.1", HOST, "Content-Length: 3000000", body=b"x" * 2_000_000),
            timeout=0.3)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        after = sorted(p.name for p in (server.data / "files").rglob("*") if p.is_file())
        if after == before:
            break
        time.sleep(0.05)
    assert after == before


# ---- who may ask ----------------------------------------------------------------------------------

@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example",
                         "localhost.", "0.0.0.0", "localhost:1@evil"])
def test_foreign_hosts(server, host):
    """A name that somebody points at this machine (DNS rebinding) gets nowhere."""
    answers = parse_answers(raw(server.endpoint, request(GET, f"Host: {host}", "Connection: close")))
    assert answers[0].status in (400, 403), answers
    answers[0].problem(answers[0].status, "forbidden" if answers[0].status == 403 else "invalid_request")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "LOCALHOST:80", "[::1]", "127.0.0.1:99"])
def test_local_hosts(server, host):
    assert parse_answers(raw(server.endpoint, request(GET, f"Host: {host}", "Connection: close")))[0].status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost", "http://localhost:1", ""])
def test_foreign_origins(server, origin):
    """A page in somebody's browser gets nowhere, whatever the method."""
    port = urlsplit(server.endpoint).port
    for line in (GET, POST):
        a = parse_answers(raw(server.endpoint,
    request(line,
    f"Host: localhost:{port}",
    f"Origin: {origin}",
    TYPE,
    LENGTH,
    "Connection: close",
     body=TASK)))[0]
        a.problem(403, "forbidden")
        assert "access-control-allow-origin" not in a.headers
    own = request(GET, f"Host: localhost:{port}", f"Origin: http://localhost:{port}", "Connection: close")
    assert parse_answers(raw(server.endpoint, own))[0].status == 200
    preflight = request("OPTIONS /v1/tasks HTTP/1.1", f"Host: localhost:{port}", f"Origin: {origin}",
                        "Access-Control-Request-Method: POST", "Connection: close")
    a = parse_answers(raw(server.endpoint, preflight))[0]
    assert a.status in (403, 405) and not [h for h in a.headers if h.startswith("access-control")]


def test_workers_need_their_key(server):
    c = server.client()
    for path, kind in (("/v1/worker/register", "application/json"), ("/v1/worker/x/reports", "application/x-ndjson")):
        c.post(path, b"{}", headers={"Content-Type": kind}).problem(401, "unauthorized")
        c.post(
    path,
    b"{}",
    headers={
        "Content-Type": kind,
        "Authorization": "Bearer hr_worker_wrong"}).problem(
            401,
             "unauthorized")
    c.get("/v1/worker/x/stream").problem(401, "unauthorized")
    c.get("/v1/tasks", headers={"Authorization": "Bearer hr_live_wrong"}).problem(401, "unauthorized")
    c.get("/v1/tasks", headers={"Authorization": "Basic YTpi"}).problem(401, "unauthorized")


def test_bad_words_of_workers(server):
    w = Client(server.endpoint, server.worker_key)
    nd = {"Content-Type": "application/x-ndjson"}
    hello = {"protocol": [1], "name": "w", "devices": [{"index": 0, "kind": "cpu"}], "models": []}
    for bad in (
    {}, [], {
        "protocol": [99]}, hello | {
            "protocol": [2]}, hello | {
                "devices": []}, hello | {
                    "devices": 5}, hello | {
                        "name": ""}, hello | {
                            "models": [
                                {
                                    "name": "x"}]}, hello | {
                                        "models": [
                                            {
                                                "name": "a:b", "version": "1"}]}, {
                                                    k: v for k, v in hello.items() if k != "devices"}):
        r = w.post("/v1/worker/register", bad)
        assert 400 <= r.status < 500, (bad, r)
        r.problem(r.status, r.json["code"])
    w.post("/v1/worker/worker_nonesuch/reports", b'{"t":"pong","n":1}\n', headers=nd).problem(404, "not_found")
    w.get("/v1/worker/worker_nonesuch/stream").problem(404, "not_found")
    w.get("/v1/tasks").problem(403, "forbidden")
    me = w.post("/v1/worker/register", hello).expect(200).json["worker"]
    task = server.client().new(1)
    lines = [b"nonsense", b"{}", b"[]", b'{"t":"result"}', b'{"t":"frob"}',
             b'{"t":"result","id":"task_x","token":5,"output":1}',
             json.dumps({"t": "result", "id": task, "token": 1, "output": "stolen"}).encode(),
             json.dumps({"t": "error", "id": task, "token": 2**62, "code": "bad_input", "message": "m"}).encode(),
             json.dumps({"t": "result", "id": task, "token": -1, "output": 1}).encode(),
             json.dumps({"t": "telemetry", "device": 9, "model": "echo", "version": "1", "event": "loaded"}).encode()]
    r = w.post(f"/v1/worker/{me}/reports", b"\n".join(lines) + b"\n", headers=nd).expect(200)
    answers = [json.loads(line)["status"] for line in r.body.splitlines()]
    assert len(answers) == len(lines)
    assert set(answers) <= {"invalid", "fenced"} and answers[6] == "fenced" and answers[7] == "fenced", answers
    assert server.client().done(task)["output"] == 1


# ---- JSON -----------------------------------------------------------------------------------------

BAD_JSON = {
    "empty": b"",
    "blank": b"  ",
    "cut": b'{"model":"echo","input":',
    "not json": b"model=echo",
    "two": TASK.encode() * 2,
    "trailing comma": b'{"model":"echo","input":[1,]}',
    "single quotes": b"{'model':'echo'}",
    "comment": b'{"model":"echo",/*x*/"input":1}',
    "NaN": b'{"model":"echo","input":NaN}',
    "Infinity": b'{"model":"echo","input":-Infinity}',
    "leading zero": b'{"model":"echo","input":01}',
    "plus": b'{"model":"echo","input":+1}',
    "hex": b'{"model":"echo","input":0x1}',
    "dot": b'{"model":"echo","input":.5}',
    "bad escape": b'{"model":"echo","input":"\\x"}',
    "raw newline": b'{"model":"echo","input":"a\nb"}',
    "NUL": b'{"model":"echo","input":"a\0b"}',
    "bad UTF-8": b'{"model":"echo","input":"\xff\xfe"}',
    "overlong UTF-8": b'{"model":"echo","input":"\xc0\xaf"}',
    "lone surrogate": b'{"model":"echo","input":"\\ud800"}',
    "surrogate in UTF-8": b'{"model":"echo","input":"\xed\xa0\x80"}',
    "byte order mark": b"\xef\xbb\xbf" + TASK.encode(),
    "UTF-16": TASK.encode("utf-16"),
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "depth 10,000": b'{"model":"echo","input":' + b"[" * 10000 + b"]" * 10000 + b"}",
    "depth 10,000 of objects": b'{"model":"echo","input":' + b'{"a":' * 10000 + b"1" + b"}" * 10000 + b"}",
    "depth 10,000, never closed": b"[" * 10000,
    "depth 65": b'{"model":"echo","input":' + b"[" * 64 + b"]" * 64 + b"}",
     }


@pytest.mark.parametrize("name", BAD_JSON)
def test_bad_json(client, name):
    r = client.post("/v1/tasks", BAD_JSON[name], headers={"Content-Type": "application/json"})
    assert r.status in (400, 413, 422), r
    r.problem(r.status, "too_large" if r.status == 413 else "invalid_request")


@pytest.mark.parametrize("body", ["[]", '"x"', "1", "null", "true"])
def test_the_body_is_an_object(client, body):
    r = client.post("/v1/tasks", body.encode(), headers={"Content-Type": "application/json"})
    assert r.status in (400, 422), r
    r.problem(r.status, "invalid_request")


def test_depth_63_is_fine(client):
    deep = json.loads("[" * 60 + "]" * 60)
    assert client.run(deep)["output"] == deep


def test_many_numbers_and_keys(client):
    """What is slow for careless parsers is not slow here."""
    start = time.monotonic()
    client.submit({str(i): i for i in range(200_000)}).expect(202)
    client.submit([1e308] * 300_000).expect(202)
    client.submit("\\" * 2_000_000).expect(202)
    client.post("/v1/tasks", b'{"model":"echo","input":' + b"1" * 1_000_000 + b"}",
                headers={"Content-Type": "application/json"}).expect(202, 400, 413, 422)
    assert time.monotonic() - start < 10


WRONG = [
    ("model", [None, 1, "", [], {}, True]),
    ("priority", ["", "urgent", "CRITICAL", "harvest", 1, []]),
    ("deadline_s", [0, -1, "30", 1e18, True, [], 0.0000001]),
    ("delay_s", [-1, "1", 1e18, {}]),
    ("max_attempts", [0, -1, 21, 1.5, "3", 2**64, 1e3, []]),
    ("retention_s", [-1, 1.5, "1", 2**63]),
    ("metadata", [[], "x", {"k": 1}, {"k": None}, {"": "v"}, {"k" * 65: "v"}, {"k": "v" * 513},
                  {str(i): "v" for i in range(17)}, {"k": {}}]),
    ("webhook", [{}, "https://example.org", {"url": "x"}]),
]


@pytest.mark.parametrize("field,value", [(f, v) for f, values in WRONG for v in values], ids=lambda v: str(v)[:20])
def test_wrong_values(client, field, value):
    r = client.post("/v1/tasks", {"model": "echo", "input": 1} | {field: value})
    if field == "metadata" and value is None:
        return
    p = r.problem(422, "invalid_request")
    assert p["field"] == field and field in p["detail"], p


def test_missing_fields(client):
    assert client.post("/v1/tasks", {"input": 1}).problem(422, "invalid_request")["field"] == "model"
    assert client.post("/v1/tasks", {"model": "echo"}).problem(422, "invalid_request")["field"] == "input"
    assert client.submit(None).expect(202), "null is an input"


@pytest.mark.parametrize("wrong,near", [("inptu", "input"), ("Priority", "priority"), ("max_attempt", "max_attempts"),
                                        ("deadline", "deadline_s"), ("metdata", "metadata"), ("zzzzzzzz", None)])
def test_unknown_fields_name_the_nearest(client, wrong, near):
    p = client.post("/v1/tasks", {"model": "echo", "input": 1, wrong: 1})
    assert p.status in (400, 422), p
    p = p.problem(p.status, "unknown_field")
    assert wrong in p["detail"] and (near is None or near in p["detail"]), p


def test_fields_given_twice(client):
    r = client.post("/v1/tasks", b'{"model":"echo","input":1,"input":2}', headers={"Content-Type": "application/json"})
    assert r.status in (400, 422), r
    r.problem(r.status, "invalid_request")


def test_unknown_models_name_the_nearest(client):
    p = client.submit(1, model="ecoh").problem(404, "unknown_model")
    assert "echo" in p["detail"] and p["field"] == "model"
    client.submit(1, model="x" * 300).expect(404, 422)
    client.submit(1, model="echo:").expect(404, 422)
    client.submit(1, model=":1").expect(404, 422)
    client.submit(1, model="../../etc/passwd").problem(404, "unknown_model")


# ---- routes ---------------------------------------------------------------------------------------

def test_unknown_routes(client):
    for path in ("/nothing", "/v1", "/v1/", "/v1/task", "/v1/tasks/", "/V1/tasks", "//v1/tasks", "/v1//tasks",
                 "/v1/tasks/x/y", "/v1/tasks/../tasks", "/%2e%2e/etc/passwd", "/v1/tasks/x/events/"):
        client.get(path).problem(404, "not_found")


@pytest.mark.parametrize("method,path,allow", [
    ("DELETE", "/v1/tasks", {"GET", "HEAD", "POST"}), ("PUT", "/v1/tasks/x", {"GET", "HEAD", "DELETE"}),
    ("GET", "/v1/tasks/x/cancel", {"POST"}), ("POST", "/livez", {"GET", "HEAD"}),
    ("PATCH", "/v1/models", {"GET", "HEAD"}),
    ("GET", "/v1/tasks:batch", {"POST"}), ("OPTIONS", "/v1/tasks", {"GET", "HEAD", "POST"})])
def test_wrong_methods_say_which_are_right(client, method, path, allow):
    r = client.request(method, path)
    r.problem(405, "method_not_allowed")
    assert {m.strip() for m in r.headers["allow"].split(",")} == allow


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                                  "application/jsonx", "", None])
def test_wrong_content_types(client, kind):
    """What a form on a foreign page can send is never taken for JSON."""
    headers = {} if kind is None else {"Content-Type": kind}
    client.post("/v1/tasks", TASK.encode(), headers=headers).problem(415, "invalid_request")
    client.post("/v1/tasks:batch", TASK.encode() + b"\n", headers=headers).problem(415, "invalid_request")


def test_bodies_where_none_belong(client):
    id = client.new(1, delay_s=600)
    client.post(f"/v1/tasks/{id}/cancel",
    b"[1,2,3]",
    headers={"Content-Type": "application/json"}).problem(400,
     "invalid_request")
    assert client.task(id)["status"] == "queued"
    client.post(f"/v1/tasks/{id}/cancel", b"{}", headers={"Content-Type": "application/json"}).expect(200)
    client.request("GET", "/livez", b"body").expect(200, 400)


def test_unknown_query_parameters(client):
    id = client.run(1)["id"]
    assert "wait" in client.get(f"/v1/tasks/{id}?wiat=3").problem(422, "unknown_field")["detail"]
    client.get("/livez?x=1").problem(422, "unknown_field")
    client.get(f"/v1/tasks/{id}?wait=1&wait=2").problem(400, "invalid_request")
    client.get(f"/v1/tasks/{id}?include=output").problem(422, "invalid_request")
    for bad in ("%", "%zz", "%00", "%ff"):
        client.get(f"/v1/tasks?model={bad}").expect(200, 400, 422)
    client.get("/v1/tasks?" + "&".join(f"a{i}=1" for i in range(100))).expect(400, 422)


def test_bad_uploads(client):
    for query in ("?sha256=", "?nmae=x", "?name=" + "x" * 5000, "?name=a%00b", "?task=task_x&token=1", "?token=1"):
        r = client.upload(b"x", query)
        assert r.status in (201, 400, 403, 409, 422, 431), (query, r)
        if r.status != 201:
            r.problem(r.status, r.json["code"])
    for name in ("../../evil", "/etc/passwd", "a\\b", "..", "%0d%0aX-Evil:%20y"):
        r = client.upload(b"x", "?name=" + name.replace("/", "%2f").replace("\\", "%5c"))
        if r.status == 201:
            content = client.get(f"/v1/files/{r.json['id']}/content").expect(200)
            assert "x-evil" not in content.headers
        else:
            r.problem(r.status, "invalid_request")
    r = client.upload(b"x", kind="text/html\x01").expect(400)
    page = client.upload(b"<script>alert(1)</script>", kind="text/html").expect(201).json
    r = client.get(f"/v1/files/{page['id']}/content").expect(200)
    assert r.headers["content-disposition"].startswith(
        "attachment") and r.headers["x-content-type-options"] == "nosniff"


def test_refusals_leave_nothing_in_the_log(client):
    """Bad requests are not counted as tasks."""
    before = client.metrics()["headrace_tasks_submitted_total"]
    for body in ({}, {"model": "nope", "input": 1}, {"model": "echo"}, {"model": "echo", "input": 1, "priority": "x"}):
        assert client.post("/v1/tasks", body).status >= 400
    assert client.metrics()["headrace_tasks_submitted_total"] == before


def test_a_storm_of_rubbish(server):
    """A thousand seeded mutations of a good request: every one is answered or dropped, none hurts."""
    import random
    chance = random.Random(17)
    good = request(POST, HOST, TYPE, LENGTH, "Idempotency-Key: \"k\"", "Prefer: wait=1", "Connection: close", body=TASK)
    for _ in range(400):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data))
            kind = chance.randrange(4)
            if kind == 0:
                data[at] = chance.randrange(256)
            elif kind == 1:
                del data[at:at + chance.randrange(1, 10)]
            elif kind == 2:
                data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 10)))
            else:
                data[at:at] = data[chance.randrange(len(data)):][:chance.randrange(1, 40)]
            if not data:
                break
        raw(server.endpoint, bytes(data), timeout=1.5, close=True)
