"""Bad days of the models: files that are none, programs that print rubbish, hang or flood, tensors that do not fit.
Each ends in an error that says what is wrong, and in nothing else: the worker and the other models go on."""

import json
import random
import time

import pytest
from conftest import QUICK
from server import EXAMPLES, FETCHED, alive, wait_until

needs_silero = pytest.mark.skipif(not (FETCHED / "silero-vad").is_dir(),
                                  reason=".deps/models/silero-vad is missing: tools/setup.sh fetches it")


def add_model(repository, name, files, yaml=None):
    version = repository / name / "1"
    version.mkdir(parents=True)
    for file, content in files.items():
        (version / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    if yaml is not None:
        (repository / name / "model.yaml").write_bytes(yaml if isinstance(yaml, bytes) else yaml.encode())


def failed(client, id, seconds=60):
    task = client.done(id, seconds)
    assert task["status"] == "failed" and task["error"]["message"], task
    return task["error"]


# ---- files that are no models ---------------------------------------------------------------------

def rubbish(n, seed=3):
    return random.Random(seed).randbytes(n)


def broken_files():
    """{name: (files, model.yaml)}"""
    onnx = {"onnx-random": rubbish(50_000), "onnx-empty": b"", "onnx-zeros": bytes(10_000),
            "onnx-text": b"<html>404 Not Found</html>"}
    silero = FETCHED / "silero-vad" / "1" / "model.onnx"
    if silero.exists():
        whole = silero.read_bytes()
        onnx["onnx-cut"] = whole[:len(whole) // 2]
        onnx["onnx-flipped"] = whole[:100] + rubbish(3000) + whole[3100:]
    models = {name: ({"model.onnx": data}, None) for name, data in onnx.items()}
    program = {"model.py": "print('{\"ready\":true}')"}
    yamls = {"yaml-random": rubbish(3000), "yaml-empty": b"", "yaml-list": b"- 1\n- 2\n",
             "yaml-open": b"engine: {exec: [",
             "yaml-deep": b"engine: " + b"[" * 10_000, "yaml-engine": b"engine: warp\n",
             "yaml-bomb": b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
                 b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9)),
             "yaml-key": b"engine: exec\nexce:\n  command: [x]\n",
             "yaml-command": b"engine: exec\nexec:\n  command: []\n",
             "yaml-huge": b"description: " + b"x" * 2_000_000, "yaml-nul": b"engine: ex\0ec\n"}
    models |= {name: (program, yaml) for name, yaml in yamls.items()}
    picture = EXAMPLES / "fashion-diffusion"
    files = {p.name: p.read_bytes() for p in (picture / "1").iterdir() if p.is_file()}
    models["picture-cut"] = ({n: d[:len(d) // 3] if n.endswith(".onnx") else d for n, d in files.items()},
                             (picture / "model.yaml").read_bytes())
    models["picture-words"] = ({n: rubbish(500) if n == "vocab.txt" else d for n, d in files.items()},
                               (picture / "model.yaml").read_bytes())
    return models


def test_files_that_are_no_models(servers, tmp_path):
    """Whatever lies in the repository: the server starts, says which model is wrong and why, and runs the others. A
    model that is only found out when it is loaded fails its tasks, each of them, at once."""
    models = broken_files()
    for name, (files, yaml) in models.items():
        add_model(tmp_path / "models", name, files, yaml)
    server = servers(QUICK, models=[tmp_path / "models"])
    c = server.client(timeout=60)
    worker = server.workers()
    listed = {m["name"] for m in c.get("/v1/models").expect(200).json["models"]}
    ids = {}
    for name in models:
        if name in listed:
            ids[name] = c.new({"inputs": []}, model=name, max_attempts=1)
        else:
            c.submit(1, model=name).problem(404, "unknown_model")
            assert name in server.log_text(), f"nothing was said about {name}"
    assert c.run("fine")["output"] == "fine"
    for name, id in ids.items():
        error = failed(c, id)
        assert error["code"] in ("model_error", "bad_input", "model_crashed", "bad_output"), (name, error)
        assert name in error["message"] or error["code"] != "model_error", (name, error)
    assert {n for n in models if n.startswith("onnx-")} <= set(ids), "a file is looked into when it is loaded"
    assert c.run("still fine")["output"] == "still fine"
    assert server.workers() == worker, server.log_tail()


# ---- programs -------------------------------------------------------------------------------------

READY = 'say({"ready": True})\n'
PROGRAMS = {  # name: (source, what the error says, or None: the task succeeds)
    "nothing": ("time.sleep(1000)", "no {\"ready\":true} within 1 s"),
    "exits": ("sys.exit(0)", "exit status 0"),
    "raises": ("raise RuntimeError('weights are missing')", "weights are missing"),
    "rubbish": ("print('Loading model... 100%')", "no JSON object"),
    "binary": ("put(bytes(range(256)) * 100 + b'\\n')", "no JSON object"),
    "not-ready": ('say({"ready": "soon"})', "first line"),
    "half-a-line": ('put(b\'{"ready": tr\'); time.sleep(1000)', "no {\"ready\":true} within 1 s"),
    "half-and-exit": ('put(b\'{"ready": tr\')', "ended"),
    "flood": ("put(b'x' * 100_000_000); time.sleep(1000)", "more than 8 MiB"),
    "closes-stdout": ("os.close(1); time.sleep(1000)", "ended"),
    "dies-at-work": (READY + "read(); os.kill(os.getpid(), 11)", "signal 11"),
    "exits-at-work": (READY + "read(); sys.exit(7)", "exit status 7"),
    "rubbish-at-work": (READY + "read(); put(b'\\xff\\xfe\\x00oops\\n')", "no JSON object"),
    "half-at-work": (READY + "m = read(); put(b'{\"id\": \"'); time.sleep(1000)",
                     "said nothing about the task for 1 s"),
    "flood-at-work": (READY + "read()\nwhile True: put(b'y' * 1_000_000)", "more than 8 MiB"),
    "hangs": (READY + "read(); time.sleep(1000)", "said nothing about the task for 1 s"),
    "never-reads": (READY + "time.sleep(1000)", "said nothing about the task for 1 s"),
    "no-answer": (READY + "m = read(); say({'id': m['id'], 'answer': 1}); time.sleep(1000)", "without output"),
    "deep": (READY + "m = read(); put(b'{\"id\":\"%s\",\"output\":%s1%s}\\n' % (m['id'].encode(), b'[' * 10_000, "
             "b']' * 10_000)); time.sleep(1000)", ""),
    "another-id": (READY + "m = read(); say({'id': 'task_x', 'output': 'stolen'}); say({'id': m['id'], 'output': 1}); "
                   "time.sleep(1000)", None),
    "twice": (READY + "m = read(); say({'id': m['id'], 'output': 1}); say({'id': m['id'], 'output': 2}); "
              "time.sleep(1000)", None),
    "noisy": (READY + "m = read(); sys.stderr.write('z' * 50_000_000); sys.stderr.flush(); "
              "say({'id': m['id'], 'output': 1}); time.sleep(1000)", None),
}
PRELUDE = """
import json, os, sys, time
def put(b):
    while b:
        b = b[os.write(1, b):]
def say(o): put(json.dumps(o).encode() + b"\\n")
def read(): return json.loads(sys.stdin.readline())
"""
YAML = """engine: exec
exec:
  command: ["/usr/bin/python3", "-u", "-B", "-S", "-E", "model.py"]
  start_timeout_s: 1
  timeout_s: 1
"""


def test_programs_that_misbehave(servers, tmp_path):
    """Each fails its own task with words that name the cause; the worker outlives them all, and no child stays."""
    for name, (source, _) in PROGRAMS.items():
        add_model(tmp_path / "models", name, {"model.py": PRELUDE + source}, YAML)
    add_model(tmp_path / "models", "no-program", {}, YAML.replace("/usr/bin/python3", "/nonexistent/python"))
    server = servers(QUICK + "workers: {devices: 3}\n", models=[tmp_path / "models"])
    c = server.client(timeout=60)
    workers = server.workers()
    ids = {name: c.new({"pad": "p" * 30_000}, model=name, max_attempts=1) for name in [*PROGRAMS, "no-program"]}
    for name, id in ids.items():
        task, words = c.done(id, 60), PROGRAMS.get(name, ("", "No such file"))[1]
        if words is None:
            assert task["status"] == "succeeded" and task["output"] == 1, (name, task)
        elif words or task["status"] == "failed":
            assert task["status"] == "failed" and words in task["error"]["message"], (name, task)
            assert task["error"]["code"] in ("model_error", "model_crashed", "bad_output", "timeout"), (name, task)
    assert c.run("unharmed")["output"] == "unharmed"
    assert sorted(server.workers()) == sorted(workers), server.log_tail()
    children = server.children()
    assert server.stop() == 0
    wait_until(lambda: not [p for p in children if alive(p)], 10, "the programs to end with their server")


def test_a_hang_ends_by_cancel_or_deadline(servers):
    """A model that never ends: a cancel frees its device, so does a deadline, and who waited behind it runs."""
    server = servers()
    c = server.client()
    hang = c.new({"fail": "hang"})
    c.until(hang, "running")
    behind = [c.new(i) for i in range(5)]
    start = time.monotonic()
    assert c.post(f"/v1/tasks/{hang}/cancel").expect(200).json["status"] == "canceled"
    assert [c.done(id, 20)["output"] for id in behind] == list(range(5))
    late = c.new({"fail": "hang"}, deadline_s=1)
    c.until(late, "running")
    behind = [c.new(i) for i in range(5)]
    assert c.done(late, 20)["status"] == "expired"
    assert [c.done(id, 20)["output"] for id in behind] == list(range(5))
    wait_until(lambda: c.metrics()["headrace_leases_held"] == 0, 20, "the devices to be free")
    assert time.monotonic() - start < 15


def test_a_hang_holds_up_nobody_else(servers):
    """One device hangs in a model that never ends; the idle one takes the rest."""
    server = servers(QUICK + "workers: {devices: 2}\n")
    c = server.client()
    c.run("first")  # so that it is known how long a load takes
    hang = c.new({"fail": "hang"})
    c.until(hang, "running")
    id = c.new("next")
    try:
        assert c.done(id, 4)["output"] == "next"
    finally:
        c.post(f"/v1/tasks/{hang}/cancel").expect(200)
        c.done(id)


# ---- tensors --------------------------------------------------------------------------------------

def tensor(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def frame(**change):
    inputs = [tensor("input", "FP32", [1, 576], [0] * 576), tensor("state", "FP32", [2, 1, 128], [0] * 256),
              tensor("sr", "INT64", [], [16000])]
    inputs[0].update(change)
    return {"inputs": [{k: v for k, v in i.items() if v is not None} for i in inputs]}


HUGE = 2**40
TENSORS = {
    "no name": (frame(name=None), "name"),
    "a number for a name": (frame(name=5), "name"),
    "a name of 10,000 letters": (frame(name="x" * 10_000), "input"),
    "no type": (frame(datatype=None), "datatype"),
    "an unknown type": (frame(datatype="FP33"), "FP32"),
    "a type in small letters": (frame(datatype="fp32"), "FP32"),
    "no shape": (frame(shape=None), "shape"),
    "a shape that is no list": (frame(shape=576), "shape"),
    "a negative shape": (frame(shape=[-1, 576]), "input"),
    "a shape with a fraction": (frame(shape=[1, 576.5]), "shape"),
    "a shape that overflows": (frame(shape=[HUGE, HUGE]), "input"),
    "a shape of exabytes": (frame(shape=[1, 2**60]), "input"),
    "a shape of 1,000 axes": (frame(shape=[1] * 1000), "input"),
    "no data": (frame(data=None), "data"),
    "too little data": (frame(data=[0] * 575), "576"),
    "too much data": (frame(data=[0] * 577), "576"),
    "data of words": (frame(data="silence"), "input"),
    "data that are nested unevenly": (frame(data=[[0] * 500, [0] * 76]), "input"),
    "a file that is no file": (frame(data={"$file": 5}), "file"),
    "the same input twice": ({"inputs": frame()["inputs"] + frame()["inputs"][:1]}, "input"),
    "an input that is a number": ({"inputs": [1, 2, 3]}, "inputs"),
    "another input too": ({"inputs": [*frame()["inputs"], tensor("more", "FP32", [1], [0])]}, "more"),
}


@needs_silero
def test_tensors_that_do_not_fit(model_server):
    """A wrong name, type, shape or length: bad_input at the first attempt, and the message names what is wanted."""
    c = model_server.client(timeout=60)
    ids = {}
    for name, (input, word) in TENSORS.items():
        r = c.submit(input, model="silero-vad")
        if r.status == 422:  # seen at the door already
            assert word in r.problem(422, "invalid_request")["detail"], (name, r)
        else:
            ids[name] = r.expect(202).json["id"]
    for name, id in ids.items():
        task = c.done(id, 60)
        assert task["status"] == "failed" and task["attempt"] == 1, (name, task)
        assert task["error"]["code"] == "bad_input", (name, task)
        assert TENSORS[name][1] in task["error"]["message"], (name, task["error"])
        assert len(json.dumps(task["error"])) < 5000, name
    good = c.run(frame(), model="silero-vad")["output"]["outputs"]
    assert {o["name"] for o in good} == {"output", "stateN"}
