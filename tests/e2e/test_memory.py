"""Models and memory: what needs more than there is waits with a reason that everybody can read, the others go on, and
it starts by itself once there is a place for it. And the other reasons for which tasks cannot start."""

import contextlib
import json
import subprocess

from conftest import QUICK
from server import HEADRACE, environment, headrace, wait_until

MIB = 1024 * 1024

# Takes memory at its start and, when told to, for a task; refuses to start while there is no file `room`.
PROGRAM = '''
import json, os, sys
size = int(START)
if NEEDS_ROOM and not os.path.exists(ROOM):
    raise MemoryError("no room at all")
held = [bytearray(b"x") * (size << 20)]  # once: no copy beside it for a moment
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    m = json.loads(line)
    if m["op"] == "run":
        held.append(bytearray(b"x") * ((m["input"] or {}).get("mib", 0) << 20))
        print(json.dumps({"id": m["id"], "output": len(held)}), flush=True)
'''


def add_model(repository, name, memory, start_mib=0, room=None):
    version = repository / name / "1"
    version.mkdir(parents=True)
    program = PROGRAM.replace("START)", f"{start_mib})").replace("NEEDS_ROOM", str(room is not None)).replace(
        "ROOM)", f"{str(room)!r})")
    (version / "model.py").write_text(program)
    (repository / name / "model.yaml").write_text(
        f'engine: exec\nmemory: {memory}\nexec:\n  command: ["/usr/bin/python3", "-u", "-B", "model.py"]\n')


@contextlib.contextmanager
def another_worker(server, folder, *args):
    """A worker beside the server's own; its name is `more`."""
    folder.mkdir()
    with open(folder / "worker.log", "wb") as log:
        worker = subprocess.Popen(
            [HEADRACE, "worker", "--server", server.endpoint, "--key-file", str(server.data / "worker.key"), "--name",
             "more", "--data", str(folder), *map(str, args)],
            stdout=log, stderr=log, env=environment(), stdin=subprocess.DEVNULL)
        try:
            yield worker
        finally:
            worker.kill()
            worker.wait()


def version(c, name):
    return c.get(f"/v1/models/{name}/versions/1").expect(200).json


def queue(c, name):
    return next((q for q in c.get("/v1/queues").expect(200).json["queues"] if q["model"] == name), None)


def blocked(c, name):
    """{reason: tasks} of /metrics"""
    found = {}
    for key, value in c.metrics().items():
        if key.startswith("headrace_queue_blocked{") and f'model="{name}"' in key:
            found[key.split('reason="')[1].split('"')[0]] = value
    return found


def why(c, name, code, seconds=20):
    """The reason, once it is the one expected."""
    v = wait_until(lambda: (v := version(c, name)).get("reason_code") == code and v, seconds, f"{name} to be {code}")
    assert v["schedulable"] is False and v["reason"]
    return v["reason"]


# ---- memory ---------------------------------------------------------------------------------------

def test_a_model_that_wants_a_gpu_waits_and_says_so(servers, tmp_path):
    add_model(tmp_path / "repo", "fast", "64MiB")
    with open(tmp_path / "repo" / "fast" / "model.yaml", "a") as yaml:
        yaml.write("require_gpu: true\n")
    server = servers(QUICK, models=[tmp_path / "repo"])
    c = server.client()
    id = c.new(1, model="fast")
    assert why(c, "fast", "no_device") == "no device of kind cuda is connected"
    assert blocked(c, "fast") == {"no_device": 1} and queue(c, "fast")["reason_code"] == "no_device"
    task = c.task(id)
    assert task["status"] == "queued" and task["attempt"] == 0 and task["queue"]["reason_code"] == "no_device", task
    wait_until(lambda: "cannot start: no device of kind cuda is connected" in server.log_tail(20), 5, "the log's line")


def test_a_model_that_fits_nowhere_waits_and_says_so(servers, tmp_path):
    repository = tmp_path / "repo"
    add_model(repository, "huge", "900MiB")
    add_model(repository, "small", "64MiB")
    server = servers(QUICK + "workers: {memory: 256MiB}\n", models=[repository])
    c = server.client()
    ids = [c.new({"n": n}, model="huge") for n in range(3)]
    reason = why(c, "huge", "no_memory")
    assert "900 MiB" in reason and "256 MiB" in reason and "local-0" in reason, reason
    q = queue(c, "huge")
    assert q["queued"] == 3 and q["reason"] == reason and q["reason_code"] == "no_memory"
    assert blocked(c, "huge") == {"no_memory": 3}
    assert "reason" not in version(c, "echo") and version(c, "echo")["schedulable"] is True
    task = c.task(ids[0])
    assert task["status"] == "queued" and not (task.get("queue") or {}).get("estimated_start_at"), task
    assert "256 MiB" in headrace("models", server=server).stdout
    assert "256 MiB" in headrace("queues", server=server).stdout
    assert "256 MiB" in headrace("models", "huge", server=server).stdout
    # The others are served meanwhile, and it is said once.
    for n in range(20):
        assert c.run(n)["output"] == n
    assert c.run({}, model="small")["output"] == 2
    said = wait_until(lambda: [s for s in server.log_text().splitlines() if "of huge:1 cannot start" in s], 10,
                      "a line")
    assert "900 MiB" in said[0]
    for n in range(20):
        c.run(n)
    assert sum("of huge:1 cannot start" in s for s in server.log_text().splitlines()) == 1
    # A larger worker joins: they start by themselves, and only there.
    with another_worker(server, tmp_path / "more", "--memory", "2GiB", "--models", repository):
        for id in ids:
            task = c.done(id, 30)
            assert task["status"] == "succeeded" and task["attempt"] == 1, task
        v = version(c, "huge")
        assert v["schedulable"] is True and "reason" not in v and blocked(c, "huge") == {}
        assert [p["worker"] for p in v["loaded_on"]] == ["more"]
    assert "tasks of huge:1 can start again" in server.log_text()


def test_memory_that_was_not_declared_is_measured(servers, tmp_path):
    """It declares 64 MiB and takes 400: it is unloaded again, no attempt is burned, and a larger worker runs it."""
    repository = tmp_path / "repo"
    add_model(repository, "liar", "64MiB", start_mib=400)
    server = servers(QUICK + "workers: {memory: 256MiB}\n", models=[repository])
    c = server.client()
    assert version(c, "liar")["schedulable"] is True
    id = c.new({}, model="liar")
    reason = why(c, "liar", "no_memory")
    assert "as measured" in reason and "256 MiB" in reason, reason
    task = c.task(id)
    assert task["status"] == "queued", task
    assert version(c, "liar")["loaded_on"] == []
    assert not [p for p in server.children() if p not in server.workers()], "its program has ended"
    assert c.run("fine")["output"] == "fine"
    assert version(c, "echo")["memory_bytes"] <= 2 * MIB, "one model's size is not another's"
    with another_worker(server, tmp_path / "more", "--memory", "2GiB", "--models", repository):
        task = c.done(id, 30)
        assert task["status"] == "succeeded", task
        [place] = version(c, "liar")["loaded_on"]
        assert place["worker"] == "more" and 400 * MIB < place["memory_bytes"] < 600 * MIB, place


def test_growth_is_seen(servers, tmp_path):
    """A program that grows while it runs: what it takes is corrected, and idle models make room for it."""
    repository = tmp_path / "repo"
    add_model(repository, "grows", "64MiB")
    add_model(repository, "other", "200MiB")
    server = servers(QUICK + "workers: {memory: 512MiB}\n", models=[repository])
    c = server.client()
    c.run({}, model="other")
    c.run({}, model="grows")
    assert len(version(c, "other")["loaded_on"]) == 1
    c.run({"mib": 350}, model="grows")
    takes = wait_until(lambda: c.run({}, model="grows") and
                       (m := version(c, "grows")["loaded_on"][0]["memory_bytes"]) > 350 * MIB and m, 20, "its growth")
    assert takes < 512 * MIB
    wait_until(lambda: version(c, "other")["loaded_on"] == [], 10, "the other one to make room")
    devices = c.get("/v1/workers").json["workers"][0]["devices"]
    assert sum(m["memory_bytes"] for d in devices for m in d["loaded"]) <= 512 * MIB
    c.run({}, model="other")  # and back: the grown one goes
    assert version(c, "grows")["loaded_on"] == []


def test_no_memory_at_the_start_is_no_tasks_fault(servers, tmp_path):
    """Its program finds no memory for now: tried again, shown with the message and the time, no attempt burned."""
    repository, room = tmp_path / "repo", tmp_path / "room"
    add_model(repository, "cramped", "64MiB", room=room)
    server = servers(QUICK, models=[repository])
    c = server.client()
    id = c.new({}, model="cramped", max_attempts=1)
    reason = why(c, "cramped", "load_failed")
    assert "no room at all" in reason and "local-0" in reason and "tried again at 2" in reason, reason
    assert blocked(c, "cramped") == {"load_failed": 1}
    assert c.run("fine")["output"] == "fine"
    room.write_text("")
    task = c.done(id, 30)
    assert task["status"] == "succeeded", task
    assert "problem" not in version(c, "cramped")


# ---- other reasons --------------------------------------------------------------------------------

def test_reasons_of_workers(servers, tmp_path):
    repository = tmp_path / "repo"
    add_model(repository, "mine", "64MiB")
    server = servers(QUICK + "workers: {devices: 0}\n")
    c = server.client()
    with another_worker(server, tmp_path / "more", "--models", repository) as worker:
        wait_until(lambda: c.get("/v1/models/mine").status == 200, 20, "the worker")
        id = c.get("/v1/workers").json["workers"][0]["id"]
        c.post(f"/v1/workers/{id}/cordon").expect(200)
        task = c.new({}, model="mine")
        assert "more" in (reason := why(c, "mine", "unavailable")) and "cordoned" in reason, reason
        c.post(f"/v1/workers/{id}/uncordon").expect(200)
        assert c.done(task)["status"] == "succeeded"
        c.post("/v1/models/mine/pause").expect(200)
        assert "resume" in why(c, "mine", "paused")
        task = c.new({}, model="mine")
        assert queue(c, "mine")["reason_code"] == "paused"
        c.post("/v1/models/mine/resume").expect(200)
        assert c.done(task)["status"] == "succeeded"
        c.post(f"/v1/workers/{id}/drain").expect(200)
        worker.wait(20)
        shown = wait_until(lambda: [w for w in c.get("/v1/workers").json["workers"] if w["status"] == "drained"], 10,
                           "the worker to be drained")
        assert shown[0]["name"] == "more"
        task = c.new({}, model="mine")
        assert "drained" in why(c, "mine", "unavailable")
    server.kill()
    server.start()
    c = server.client()
    assert "no worker is connected" in why(c, "mine", "no_worker")
    assert c.task(task)["status"] == "queued"


# ---- pause and resume -----------------------------------------------------------------------------

def test_pause_and_resume_by_command(servers):
    server = servers(QUICK)
    c = server.client()

    def run(*args, status=0):
        p = headrace(*args, server=server)
        assert p.returncode == status, (args, p)
        return p

    assert "echo is paused" in run("pause", "echo").stdout
    id = c.new({"a": 1})
    assert "echo:1 (paused)" in run("models").stdout
    assert "resume echo" in run("models", "echo").stdout and "resume echo" in run("queues").stdout
    server.kill()
    server.start()
    c = server.client()
    assert "echo:1 (paused)" in run("models").stdout, "a pause outlives a restart"
    assert c.task(id)["status"] == "queued"
    assert run("resume", "echo").stdout == "echo goes on\n"
    assert c.done(id)["output"] == {"a": 1}
    assert "paused" not in run("models").stdout
    assert "unknown_model" in run("pause", "nonesuch", status=4).stderr
    assert json.loads(run("pause", "echo", "--json").stdout)["paused"] is True
    assert json.loads(run("resume", "echo", "--json").stdout)["paused"] is False
    assert run("pause", status=2).stderr

