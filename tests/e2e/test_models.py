"""Real models through the whole path: a program (language-id), a text-to-image model (fashion-diffusion), an
ONNX model (Silero VAD), and programs that misbehave."""

import json
import math
import os
import random
import re
import struct
import threading
import time
import zlib
from pathlib import Path

import pytest
from conftest import QUICK
from server import EXAMPLES, FETCHED, free_port, wait_until

needs_silero = pytest.mark.skipif(not (FETCHED / "silero-vad").is_dir(),
                                  reason=".deps/models/silero-vad is missing: tools/setup.sh fetches it")


@pytest.fixture
def models(model_server):
    if not model_server.running:
        model_server.start()
    c = model_server.client(timeout=60)
    yield c
    c.close()


def test_all_models_are_there(models):
    names = {m["name"] for m in models.get("/v1/models").expect(200).json["models"]}
    assert {"echo", "fashion-diffusion", "language-id"} <= names


# ---- exec: language-id ----------------------------------------------------------------------------

@pytest.mark.parametrize("text,language", [
    ("Guten Morgen, wie geht es Ihnen heute?", "de"), ("Where is the nearest railway station?", "en"),
    ("Où se trouve la gare la plus proche ?", "fr"), ("Где находится ближайший вокзал?", "ru"),
    ("Gdzie jest najbliższy dworzec kolejowy?", "pl"), ("Missä on lähin rautatieasema?", "fi")])
def test_language(models, text, language):
    output = models.run({"text": text}, model="language-id")["output"]
    assert output["language"] == language, output
    assert 0 < output["confidence"] <= 1 and len(output["scores"]) == 15
    assert sum(output["scores"].values()) == pytest.approx(1, abs=0.01)


def test_language_bad_input(models):
    for input in ({"text": "123"}, {"txt": "hello"}, "hello", None):
        task = models.done(models.new(input, model="language-id"))
        assert task["status"] == "failed" and task["error"]["code"] == "bad_input", task
        assert task["attempt"] == 1 and task["error"]["message"]


def test_many_languages_at_once(models):
    ids = [models.new({"text": f"Das ist der Satz mit der Nummer {i}, und er ist deutsch."}, model="language-id")
           for i in range(100)]
    assert {models.done(id)["output"]["language"] for id in ids} == {"de"}


# ---- exec: programs of one's own ------------------------------------------------------------------

PROGRAM = '''
import json, sys, time, os
print("starting up", file=sys.stderr, flush=True)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    m = json.loads(line)
    if m["op"] != "run":
        continue
    i, id = m["input"], m["id"]
    do = i.get("do")
    print("working on", i, file=sys.stderr, flush=True)
    if do == "die":
        os._exit(3)
    if do == "die once" and m["attempt"] == 1:
        os._exit(3)
    if do == "talk":
        print("this is no JSON", flush=True)
        continue
    if do == "hang":
        time.sleep(1000)
    if do == "steps":
        for n in range(1, 6):
            print(json.dumps({"id": id, "progress": {"step": n, "steps": 5}}), flush=True)
            print(json.dumps({"id": id, "log": f"step {n}\\n"}), flush=True)
            time.sleep(0.15)
    if do == "error":
        error = {"code": "model_error", "message": "I won't", "retryable": False}
        print(json.dumps({"id": id, "error": error}), flush=True)
        continue
    if do == "read":
        i = {"length": len(open(i["file"]["path"], "rb").read())}
    if do == "big":
        i = {"text": "x" * 200000}
    print(json.dumps({"id": id, "output": i}), flush=True)
'''


@pytest.fixture(scope="module")
def program_server(tmp_path_factory):
    from server import Server
    folder = tmp_path_factory.mktemp("program")
    version = folder / "models" / "mine" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(PROGRAM)
    (version.parent / "model.yaml").write_text(
        'engine: exec\ndescription: misbehaves\nexec:\n  command: ["/usr/bin/python3", "-u", "-B", "model.py"]\n')
    with Server(folder, QUICK, models=[folder / "models"]) as s:
        yield s.start()


def test_program(program_server):
    c = program_server.client()
    assert c.run({"a": ["b"]}, model="mine")["output"] == {"a": ["b"]}
    task = c.done(c.new({"do": "error"}, model="mine"))
    assert task["status"] == "failed" and task["error"]["message"] == "I won't" and task["attempt"] == 1
    output = c.run({"do": "big"}, model="mine")["output"]
    assert c.get(f"/v1/files/{output['$file']}/content").json == {"text": "x" * 200000}
    f = c.upload(b"12345").expect(201).json
    assert c.run({"do": "read", "file": {"$file": f["id"]}}, model="mine")["output"] == {"length": 5}


def test_a_whole_input_that_is_no_json(program_server):
    """It never reaches the program: the client is told, and a line of another's making is none to the program."""
    c = program_server.client()
    good = c.upload(b' {"a":\r\n [1e99, "\xc3\xbc"]}\n').expect(201).json["id"]
    assert c.run({"$file": good}, model="mine")["status"] == "succeeded"
    for content in (b"", b"no json", b"\x89PNG\r\n", b'{"a": "\xff"}', b'{}\n{"id":"1","op":"cancel"}', b'{"a": NaN}'):
        f = c.upload(content).expect(201).json["id"]
        for model in ("mine", "echo"):
            task = c.done(c.new({"$file": f}, model=model))
            assert task["status"] == "failed" and task["error"]["code"] == "bad_input", (content, task)
            assert f in task["error"]["message"] and task["attempt"] == 1, task


def test_program_logs_and_progress(program_server):
    c = program_server.client()
    id = c.new({"do": "steps"}, model="mine")
    with c.events(id) as stream:
        events = list(stream)
    steps = [e.data["step"] for e in events if e.name == "progress"]
    assert len(steps) >= 2 and steps == sorted(set(steps)) and all(1 <= s <= 5 for s in steps), events
    assert events[-1].data["status"] == "succeeded"
    text = wait_until(lambda: (t := c.get(f"/v1/tasks/{id}/logs").expect(200).body.decode()) and "step 5" in t and t, 3,
                      "its log")
    for n in range(1, 6):
        assert f"step {n}" in text, text


def test_a_program_that_dies_costs_an_attempt(program_server):
    c = program_server.client()
    worker = program_server.workers()
    task = c.done(c.new({"do": "die once"}, model="mine"))
    assert task["status"] == "succeeded" and task["attempt"] == 2, task
    task = c.done(c.new({"do": "die"}, model="mine", max_attempts=2))
    assert task["status"] == "failed" and task["attempt"] == 2 and task["error"]["code"] == "model_crashed", task
    task = c.done(c.new({"do": "talk"}, model="mine", max_attempts=1))
    assert task["status"] == "failed", task
    assert c.run({"still": "there"}, model="mine")["output"] == {"still": "there"}
    assert program_server.workers() == worker, "a program's end is not its worker's"


def test_a_program_that_hangs_can_be_canceled(program_server):
    c = program_server.client()
    id = c.new({"do": "hang"}, model="mine")
    c.until(id, "running")
    start = time.monotonic()
    assert c.post(f"/v1/tasks/{id}/cancel").expect(200).json["status"] == "canceled"
    assert c.run({"next": 1}, model="mine")["output"] == {"next": 1}
    assert time.monotonic() - start < 10


def test_programs_end_with_their_server(program_server):
    c = program_server.client()
    c.run({}, model="mine")
    below = program_server.children()
    assert len(below) >= 2, "a worker and its program"
    program_server.kill()  # asserts that they end
    program_server.start()
    assert program_server.client().run({"x": 1}, model="mine")["output"] == {"x": 1}


# ---- diffusion ------------------------------------------------------------------------------------

def read_png(data):
    """(width, height, rows of bytes); checks every chunk."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:16]
    at, pixels, head = 8, b"", None
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0] == zlib.crc32(kind + body)
        at += 12 + size
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            pixels += body
    assert kind == b"IEND" and at == len(data)
    assert head[2:4] == (8, 2), "8 bits, RGB"
    return head[0], head[1], zlib.decompress(pixels)


def picture(c, prompt="a red sneaker on white background", seed=7, steps=6, **more):
    """The task and its pictures' bytes."""
    task = c.run({"prompt": prompt, "seed": seed, "steps": steps} | more, model="fashion-diffusion")
    return task, [fetch(c, image) for image in task["output"]["images"]]


def fetch(c, image):
    r = c.get(f"/v1/files/{image['$file']}/content").expect(200)
    assert r.headers["content-type"] == "image/png"
    return r.body


def test_a_picture(models):
    task, [png] = picture(models, steps=20)
    width, height, pixels = read_png(png)
    assert (width, height) == (32, 32) and len(pixels) == 32 * (1 + 32 * 3)
    image = task["output"]["images"][0]
    assert image["width"] == 32 and image["height"] == 32
    assert task["output"]["seed"] == 7
    # A red shoe on white: the corners are light, and red leads where it is not white.
    rows = undo_filters(pixels)
    corners = [rows[y][3 * x:3 * x + 3] for y in (0, 31) for x in (0, 31)]
    assert all(min(c) > 180 for c in corners), corners
    inside = [rows[y][3 * x:3 * x + 3] for y in range(32) for x in range(32) if min(rows[y][3 * x:3 * x + 3]) < 160]
    assert len(inside) > 40, "the picture is empty"
    red, green, blue = (sum(p[i] for p in inside) / len(inside) for i in range(3))
    assert red > green + 25 and red > blue + 25, (red, green, blue)


def undo_filters(data):
    rows, before = [], bytes(96)
    for y in range(32):
        kind, line = data[y * 97], bytearray(data[y * 97 + 1:(y + 1) * 97])
        for i in range(96):
            a, b, c = line[i - 3] if i >= 3 else 0, before[i], before[i - 3] if i >= 3 else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line[i] = (line[i] + (0, a, b, (a + b) // 2, paeth)[kind]) & 255
        rows.append(bytes(line))
        before = rows[-1]
    return rows


def test_the_seed_decides(models):
    _, first = picture(models)
    _, again = picture(models)
    assert first == again
    assert picture(models, seed=8)[1] != first
    assert picture(models, prompt="a black coat on white background")[1] != first
    assert picture(models, solver="euler")[1] != first
    task = models.run({"prompt": "a blue bag", "steps": 2}, model="fashion-diffusion")
    _, same = picture(models, prompt="a blue bag", seed=task["output"]["seed"], steps=2)
    assert same == [fetch(models, task["output"]["images"][0])], "the drawn seed is told, and gives the picture again"


def test_images_of_one_task_differ_and_repeat(models):
    _, three = picture(models, images=3)
    assert len(three) == 3 and len(set(three)) == 3
    assert picture(models, images=3)[1] == three
    assert picture(models)[1][0] == three[0]


def test_the_same_alone_and_in_a_batch(models, model_server):
    """Requests of different steps and guidance share batches; what each draws does not depend on that."""
    wanted = [dict(seed=s, steps=4 + s % 5, guidance=1.0 + s % 3, prompt=p)
              for s, p in enumerate(["a red sneaker", "a black coat", "a blue bag",
                                     "a green dress on white background"] * 3)]
    alone = [picture(models, **w)[1] for w in wanted]
    # They join one after the other, while others are under way …
    results = [None] * len(wanted)

    def one(i):
        c = model_server.client()
        _, results[i] = picture(c, **wanted[i])
        c.close()

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(wanted))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == alone
    # … and all begin as one batch.
    models.post("/v1/models/fashion-diffusion/pause").expect(200)
    try:
        ids = [models.new(w, model="fashion-diffusion") for w in wanted]
    finally:
        models.post("/v1/models/fashion-diffusion/resume").expect(200)
    tasks = [models.done(id) for id in ids]
    assert max(t["metrics"]["batch_size"] for t in tasks) > 1, "nothing shared a batch"
    assert [[fetch(models, image) for image in t["output"]["images"]] for t in tasks] == alone


def test_progress_by_step(models):
    id = models.new({"prompt": "a red sneaker", "steps": 100, "images": 4, "seed": 1}, model="fashion-diffusion")
    with models.events(id) as stream:
        events = list(stream)
    steps = [e.data["step"] for e in events if e.name == "progress"]
    assert len(steps) >= 3 and steps == sorted(set(steps)), steps
    assert all(e.data["steps"] == 100 for e in events if e.name == "progress")
    assert events[-1].data["status"] == "succeeded"


def test_cancel_while_drawing(models):
    id = models.new({"prompt": "a red sneaker", "steps": 100, "images": 8}, model="fashion-diffusion")
    models.until(id, "running")
    models.post(f"/v1/tasks/{id}/cancel").expect(200)
    wait_until(lambda: models.metrics()["headrace_leases_held"] == 0, 2, "the slot to be free")
    picture(models, steps=2)


@pytest.mark.parametrize(
    "input,word", [
        ({}, "prompt"), ({
            "prompt": 5}, "prompt"), ({
                "prompt": "a", "steps": 0}, "steps"), ({
                    "prompt": "a", "steps": 1000}, "steps"), ({
                        "prompt": "a", "solver": "magic"}, "solver"), ({
                            "prompt": "a", "images": 99}, "images"), ({
                                "prompt": "a", "guidance": "x"}, "guidance"), ({
                                    "prompt": "a", "seed": -1.5}, "seed"), ({
                                        "prompt": "a", "stpes": 5}, "steps"), ("a red sneaker", "object")])
def test_bad_pictures(models, input, word):
    task = models.done(models.new(input, model="fashion-diffusion"))
    assert task["status"] == "failed" and task["error"]["code"] == "bad_input" and task["attempt"] == 1, task
    assert word in task["error"]["message"], task["error"]


def test_a_picture_survives_a_kill(servers):
    """The server dies while the picture is drawn; it is drawn again, and is the same."""
    server = servers("timeouts: {lease: 2s, ping: 1s}\n", models=[EXAMPLES], port=free_port())
    c = server.client()
    input = {"prompt": "a red sneaker", "seed": 3, "steps": 60}
    before = [fetch(c, i) for i in c.run(input, model="fashion-diffusion")["output"]["images"]]
    id = c.new(input, model="fashion-diffusion")
    c.until(id, "running")
    server.kill()
    server.start()
    c = server.client()
    task = c.done(id, 60)
    assert task["status"] == "succeeded", task
    assert [fetch(c, i) for i in task["output"]["images"]] == before


# ---- onnx: Silero VAD -----------------------------------------------------------------------------

def tensor(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def frame(sound):
    return {"inputs": [tensor("input", "FP32", [1, 576], sound), tensor("state", "FP32", [2, 1, 128], [0] * 256),
                       tensor("sr", "INT64", [], [16000])]}


@needs_silero
def test_voice_activity(models):
    task = models.run(frame([0.0] * 576), model="silero-vad")
    outputs = {o["name"]: o for o in task["output"]["outputs"]}
    assert set(outputs) == {"output", "stateN"}
    p = outputs["output"]
    assert p["datatype"] == "FP32" and p["shape"] == [1, 1] and 0 <= p["data"][0] < 0.2, p
    assert outputs["stateN"]["shape"] == [2, 1, 128] and len(outputs["stateN"]["data"]) == 256
    assert all(math.isfinite(x) for x in outputs["stateN"]["data"])


@needs_silero
def test_tensors_nested_and_chosen(models):
    chance = random.Random(1)
    sound = [chance.uniform(-0.5, 0.5) for _ in range(576)]
    flat = models.run(frame(sound), model="silero-vad")["output"]["outputs"]
    nested = frame([sound])
    nested["inputs"].reverse()  # in any order
    nested["outputs"] = [{"name": "output"}]
    only = models.run(nested, model="silero-vad")["output"]["outputs"]
    assert [o["name"] for o in only] == ["output"]
    assert only[0] == next(o for o in flat if o["name"] == "output")
    nested["outputs"] = [{"name": "stateN", "parameters": {"file": True}}]
    out = models.run(nested, model="silero-vad")["output"]["outputs"][0]
    ref = out["data"]["$file"] if isinstance(out.get("data"), dict) else out["$file"]
    raw = models.get(f"/v1/files/{ref}/content").expect(200).body
    want = next(o for o in flat if o["name"] == "stateN")["data"]
    assert struct.unpack("<256f", raw) == pytest.approx(want, rel=1e-6)
    f = models.upload(struct.pack("<576f", *sound)).expect(201).json
    by_file = frame({"$file": f["id"]})
    assert models.run(by_file, model="silero-vad")["output"]["outputs"] == flat


@needs_silero
@pytest.mark.parametrize("change,words", [
    (lambda i: i["inputs"][0].update(name="x"), ("input", "FP32", "state", "sr", "INT64")),
    (lambda i: i["inputs"].pop(), ("sr",)),
    (lambda i: i["inputs"][0].update(datatype="INT8"), ("FP32",)),
    (lambda i: i["inputs"][0].update(shape=[1, 577]), ("577", "576")),
    (lambda i: i["inputs"][0].update(shape=[1, 2, 288]), ("input",)),
    (lambda i: i["inputs"][1].update(shape=[3, 1, 128], data=[0] * 384), ("state", "2")),
    (lambda i: i["inputs"][0].update(data=["a"] * 576), ("input",)),
    (lambda i: i["inputs"][2].update(data=[1.5]), ("sr",)),
    (lambda i: i.update(outputs=[{"name": "nope"}]), ("output", "stateN")),
    (lambda i: i.update(inputs=5), ("inputs",)),
    (lambda i: i.clear(), ("inputs",)),
])
def test_wrong_tensors_are_told_what_is_wanted(models, change, words):
    input = frame([0.0] * 576)
    change(input)
    task = models.done(models.new(input, model="silero-vad"))
    assert task["status"] == "failed" and task["error"]["code"] == "bad_input" and task["attempt"] == 1, task
    for word in words:
        assert word in task["error"]["message"], task["error"]


# ---- what workers open ----------------------------------------------------------------------------

def sockets_of(pid):
    """[(kind, remote address)] of a process's sockets, from /proc."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if m := re.fullmatch(r"socket:\[(\d+)\]", target):
            inodes.add(m[1])
    found = []
    for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[9] in inodes:
                host, port = parts[2].split(":")
                found.append((kind, host, int(port, 16)))
    return found


@needs_silero
def test_workers_speak_to_their_server_only(models, model_server):
    """ONNX Runtime's telemetry stays off: whatever runs, the only address is the server's."""
    port = int(model_server.endpoint.rsplit(":", 1)[1])
    stop, seen = threading.Event(), set()

    def watch():
        while not stop.is_set():
            for pid in model_server.children():
                try:
                    seen.update((kind, host, remote) for kind, host, remote in sockets_of(pid))
                except (FileNotFoundError, PermissionError):
                    pass
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for _ in range(5):
            models.run(frame([0.0] * 576), model="silero-vad")
            picture(models, steps=3)
        time.sleep(0.5)
    finally:
        stop.set()
        thread.join()
    assert any(kind == "tcp" and host == "0100007F" and remote == port for kind, host, remote in seen), seen
    others = {s for s in seen if not (s[0] == "tcp" and s[1] == "0100007F" and s[2] == port)}
    assert not others, f"a worker has sockets to {others}"
    for pid in model_server.workers():
        opened = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        strange = [p for p in opened if p.startswith(
            "/") and not p.startswith(("/dev/", "/proc/", str(model_server.folder)))]
        strange = [p for p in strange if "/models/" not in p]
        assert not strange, strange


# ---- memory and loading ---------------------------------------------------------------------------

@needs_silero
def test_models_are_evicted_by_memory(servers):
    """Where only one fits, each task still finds its model."""
    server = servers(QUICK + "workers: {memory: 150MiB}\n", models=[EXAMPLES, FETCHED])
    c = server.client(timeout=60)
    for i in range(3):
        picture(c, steps=2, seed=i)
        c.run(frame([0.0] * 576), model="silero-vad")
    worker = c.get("/v1/workers").json["workers"][0]
    loaded = worker["devices"][0]["loaded"]
    assert sum(m["memory_bytes"] for m in loaded) <= 150 * 1024 * 1024, loaded
    assert "silero-vad" in {m["name"] for m in loaded}


def test_a_broken_model_fails_its_tasks_and_nothing_else(servers, tmp_path):
    version = tmp_path / "repo" / "broken" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"this is no model")
    server = servers(QUICK, models=[tmp_path / "repo"])
    c = server.client()
    if "broken" in {m["name"] for m in c.get("/v1/models").json["models"]}:
        task = c.done(c.new({"inputs": []}, model="broken"), 60)
        assert task["status"] == "failed" and "broken" in json.dumps(task["error"]) or task["error"]["message"], task
    assert c.run("fine")["output"] == "fine"
