"""The command line, as a person and as a program uses it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time

import pytest
from conftest import QUICK
from server import HEADRACE, environment, free_port, headrace, kill, wait_until

OK, FAILED, USAGE, NO_SERVER, REFUSED, SERVER, TIMEOUT = range(7)
ID = re.compile(r"task_[0-9A-HJKMNP-TV-Z]{26}")


@pytest.fixture
def run(server, client, tmp_path):
    """Runs a command against the shared server: run(*args, status=OK) → the process."""
    def run(*args, status=OK, input=None, cwd=tmp_path, **env):
        p = headrace(*args, server=server, input=input, cwd=cwd, **env)
        assert p.returncode == status, (args, p.returncode, p.stdout, p.stderr)
        assert "\033" not in p.stdout + p.stderr, "no colours where there is no terminal"
        if status not in (OK, FAILED, TIMEOUT):
            assert p.stderr.startswith("error: "), p.stderr
        return p
    return run


def submit(run, *args, **kw):
    id = run("submit", *args, **kw).stdout.strip()
    assert ID.fullmatch(id), id
    return id


# ---- submit, get, wait ----------------------------------------------------------------------------

def test_submit_and_get(run):
    id = submit(run, "echo", "-i", '{"hello": "world"}')
    assert json.loads(run("wait", id).stdout) == {"hello": "world"}
    shown = run("get", id).stdout
    assert id in shown and "succeeded" in shown and "world" in shown and "echo:1" in shown
    task = json.loads(run("get", id, "--json").stdout)
    assert task["id"] == id and task["output"] == {"hello": "world"}
    assert "input" not in task and json.loads(run("get", id, "--json", "--input").stdout)["input"] == {"hello": "world"}
    assert json.loads(run("submit", "echo", "-i", "1", "--json").stdout)["status"] in ("queued", "running", "succeeded")


def test_submit_and_wait(run, tmp_path):
    assert json.loads(run("submit", "echo", "-i", "[1,2]", "--wait").stdout) == [1, 2]
    task = json.loads(run("submit", "echo", "-i", "[1,2]", "--wait", "--json").stdout)
    assert task["status"] == "succeeded" and task["output"] == [1, 2]
    p = run("submit", "echo", "-i", '{"fail": "final"}', "-w", status=FAILED)
    assert p.stdout == "" and "failed" in p.stderr and "model_error" in p.stderr
    run("submit", "echo", "-i", '{"x": 1}', "-o", "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == {"x": 1}
    start = time.monotonic()
    p = run("submit", "echo", "-i", '{"sleep_ms": 20000}', "--wait", "--timeout", "1s", status=TIMEOUT)
    assert time.monotonic() - start < 6
    id = ID.search(p.stderr)[0]
    run("cancel", id)


def test_ways_to_give_the_input(run, tmp_path):
    (tmp_path / "in.json").write_text('{"from": "file"}')
    assert json.loads(run("submit", "echo", "-i", "@in.json", "-w").stdout) == {"from": "file"}
    assert json.loads(run("submit", "echo", "-i", "-", "-w", input='{"from": "stdin"}').stdout) == {"from": "stdin"}
    p = run("submit", "echo", "--set", "a=1", "-S", "b=text", "--set", 'c={"d":[true]}', "-w")
    assert json.loads(p.stdout) == {"a": 1, "b": "text", "c": {"d": [True]}}
    p = run("submit", "echo", "-i", '{"a": 1, "b": 2}', "--set", "b=3", "-w")
    assert json.loads(p.stdout) == {"a": 1, "b": 3}
    (tmp_path / "photo.png").write_bytes(b"\x89PNG not really")
    output = json.loads(run("submit", "echo", "--file", "image=photo.png", "-w").stdout)
    run("files", "get", output["image"]["$file"], "-o", "again.png")
    assert (tmp_path / "again.png").read_bytes() == b"\x89PNG not really"
    assert "line 1, column" in run("submit", "echo", "-i", "{'a': 1}", status=USAGE).stderr
    assert "missing.json" in run("submit", "echo", "-i", "@missing.json", status=USAGE).stderr
    run("submit", "echo", status=USAGE)
    run("submit", status=USAGE)


def test_numbers_that_fit_no_type_pass_through(run):
    text = '{"n":[1e999,123456789012345678901234567890,-0.0]}'
    assert run("submit", "echo", "-i", text, "--wait").stdout.strip() == text
    p = run("submit", "echo", "-i", "{}", "--set", "n=18446744073709551616")
    assert run("wait", p.stdout.strip()).stdout.strip() == '{"n":18446744073709551616}'
    id = submit(run, "echo", "-i", text)
    run("wait", id)
    assert "1e999" in run("get", id).stdout


def test_submit_options(run):
    id = submit(run, "echo:1", "-i", "1", "--priority", "batch", "--deadline", "10m", "--delay", "2m",
                "--max-attempts", "5", "--metadata", "a=b", "--metadata", "c=d=e", "--retention", "1h")
    task = json.loads(run("get", id, "--json").stdout)
    assert task["priority"] == "batch" and task["max_attempts"] == 5 and task["metadata"] == {"a": "b", "c": "d=e"}
    assert task["deadline_at"] and task["not_before_at"] and task["status"] == "queued"
    assert "queued" in run("get", id).stdout
    run("cancel", id)
    one = submit(run, "echo", "-i", "1", "--idempotency-key", 'my "key" \\')
    assert submit(run, "echo", "-i", "1", "--idempotency-key", 'my "key" \\') == one
    assert "idempotency_mismatch" in run(
    "submit",
    "echo",
    "-i",
    "2",
    "--idempotency-key",
    'my "key" \\',
     status=REFUSED).stderr
    assert "priority" in run("submit", "echo", "-i", "1", "--priority", "urgent", status=REFUSED).stderr
    run("submit", "echo", "-i", "1", "--deadline", "soon", status=USAGE)
    run("submit", "echo", "-i", "1", "--max-attempts", "none", status=USAGE)
    assert "nonesuch" in run("submit", "nonesuch", "-i", "1", status=REFUSED).stderr


def test_large_outputs(run, tmp_path):
    (tmp_path / "big.json").write_text(json.dumps({"text": "x" * 200_000}))
    output = json.loads(run("submit", "echo", "-i", "@big.json", "-w").stdout)
    assert "$file" in output or output["text"] == "x" * 200_000
    run("submit", "echo", "-i", "@big.json", "-o", "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == {"text": "x" * 200_000}


def test_wait_for_several(run):
    ids = [submit(run, "echo", "-i", str(i)) for i in range(3)]
    assert [json.loads(line) for line in run("wait", *ids).stdout.splitlines()] == [0, 1, 2]
    bad = submit(run, "echo", "-i", '{"fail": "final"}')
    assert "failed" in run("wait", ids[0], bad, status=FAILED).stderr
    slow = submit(run, "echo", "-i", "1", "--delay", "1h")
    p = run("wait", slow, "--timeout", "0.5s", status=TIMEOUT)
    assert "not finished" in p.stderr and slow in p.stderr
    run("cancel", slow)
    assert "canceled" in run("wait", slow, status=FAILED).stderr


def test_get_output_of_unfinished_and_failed(run):
    slow = submit(run, "echo", "-i", "1", "--delay", "1h")
    run("get", slow, "-o", "x", status=TIMEOUT)
    run("cancel", slow)
    shown = run("get", slow).stdout
    assert "canceled" in shown
    bad = submit(run, "echo", "-i", '{"fail": "final"}')
    run("wait", bad, status=FAILED)
    assert "model_error" in run("get", bad).stdout
    assert "not_found" in run("get", "task_01J00000000000000000000000", status=REFUSED).stderr
    run("get", status=USAGE)
    assert run("get", bad, "--logs").returncode == OK


def test_wait_goes_on_across_a_restart(servers):
    server = servers(port=free_port())
    id = server.client().new({"sleep_ms": 300}, delay_s=1.5)
    p = subprocess.Popen([HEADRACE, "wait", id, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         stdin=subprocess.DEVNULL, env=environment(HEADRACE_SERVER=server.endpoint))
    try:
        time.sleep(0.5)
        server.kill()
        time.sleep(0.3)
        server.start()
        out, err = p.communicate(timeout=30)
    finally:
        kill(p.pid)
        p.wait()
    assert p.returncode == OK, (out, err)
    assert json.loads(out)["status"] == "succeeded"


def test_interrupted_wait_leaves_the_task(server, client):
    id = client.new(1, delay_s=600)
    p = subprocess.Popen([HEADRACE, "wait", id], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         stdin=subprocess.DEVNULL, env=environment(HEADRACE_SERVER=server.endpoint))
    time.sleep(0.5)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=10)
    assert p.returncode == 130 and id in err
    assert client.task(id)["status"] == "queued"
    client.post(f"/v1/tasks/{id}/cancel").expect(200)


# ---- events, cancel, retry, delete, tasks ---------------------------------------------------------

def test_events(run):
    id = submit(run, "echo", "-i", '{"sleep_ms": 400, "units": 4}')
    lines = run("events", id).stdout.splitlines()
    assert "queued" in lines[0] and "succeeded" in lines[-1] and any("running" in line for line in lines)
    events = [json.loads(line) for line in run("events", id, "--json").stdout.splitlines()]
    assert [e["status"] for e in events if "status" in e] == ["queued", "running", "succeeded"]
    after = [json.loads(line) for line in run("events", id, "--json",
                        "--after", str(events[0]["seq"])).stdout.splitlines()]
    assert [e["status"] for e in after if "status" in e] == ["running", "succeeded"]
    run("events", "task_01J00000000000000000000000", status=REFUSED)


def test_cancel_retry_delete(run):
    id = submit(run, "echo", "-i", '{"a": 1}', "--delay", "1h")
    assert id in run("cancel", id).stdout
    assert "already_terminal" in run("cancel", id, status=REFUSED).stderr
    new = run("retry", id).stdout.strip()
    assert ID.fullmatch(new) and new != id
    done = submit(run, "echo", "-i", '{"a": 1}')
    run("wait", done)
    assert json.loads(run("retry", done, "--wait").stdout) == {"a": 1}
    assert json.loads(run("retry", done, "--json").stdout)["retry_of"] == done
    assert done in run("delete", done).stdout
    assert "gone" in run("retry", done, status=REFUSED).stderr
    run("delete", new, status=OK if json.loads(run("get", new, "--json").stdout)["status"] == "succeeded" else REFUSED)
    assert "conflict" in run("delete", slow := submit(run, "echo", "-i", "1", "--delay", "1h"), status=REFUSED).stderr
    run("cancel", slow)


def test_tasks(servers):
    server = servers()
    c = server.client()

    def run(*args, status=OK):
        p = headrace(*args, server=server)
        assert p.returncode == status, p
        return p

    assert run("tasks").stdout == "no tasks\n"
    ids = [c.run(i)["id"] for i in range(30)]
    bad = c.done(c.new({"fail": "final"}, priority="critical"))["id"]
    lines = run("tasks").stdout.splitlines()
    assert lines[0].split()[:4] == ["TASK", "MODEL", "STATUS", "PRIORITY"]
    assert len(lines) == 21 and lines[1].startswith(bad) and "failed" in lines[1]
    assert "more" in run("tasks").stderr
    assert run("tasks", "--quiet").stdout.split() == [bad, *reversed(ids)]
    assert run("tasks", "--status", "failed", "-q").stdout.split() == [bad]
    assert run("tasks", "--priority", "critical", "--model", "echo", "-q").stdout.split() == [bad]
    assert len(run("tasks", "-n", "5").stdout.splitlines()) == 6
    assert len(json.loads(run("tasks", "--json", "--limit", "7").stdout)["tasks"]) == 7
    run("tasks", "--status", "done", status=REFUSED)
    run("tasks", "--limit", "x", status=USAGE)


# ---- models, workers, queues ----------------------------------------------------------------------

def test_models(run):
    run("submit", "echo", "-i", "1", "-w")
    lines = run("models").stdout.splitlines()
    assert lines[0].split()[:2] == ["MODEL", "ENGINE"]
    echo = next(line for line in lines if line.startswith("echo"))
    assert echo.startswith("echo:1") and " echo " in echo and "Built in" in echo, echo
    assert "256" in echo, f"its batch: {echo}"
    assert json.loads(run("models", "--json").stdout)["models"]
    one = json.loads(run("models", "echo", "--json").stdout)
    assert one["name"] == "echo"
    assert "unknown_model" in run("models", "nonesuch", status=REFUSED).stderr


def test_workers_and_orders(run):
    lines = run("workers").stdout.splitlines()
    assert lines[0].split()[:2] == ["WORKER", "NAME"]
    assert "local-0" in lines[1] and "ready" in lines[1] and "cpu" in lines[1]
    id = lines[1].split()[0]
    assert json.loads(run("workers", "--json").stdout)["workers"][0]["id"] == id
    assert "no new tasks" in run("cordon", id).stdout
    assert "cordoned" in run("workers").stdout
    assert "tasks again" in run("uncordon", id).stdout
    assert "ready" in run("workers").stdout
    assert "not_found" in run("drain", "worker_nonesuch", status=REFUSED).stderr


def test_queues(run):
    id = submit(run, "echo", "-i", "1", "--delay", "1h")
    lines = run("queues").stdout.splitlines()
    assert lines[0].split()[0] == "MODEL" and lines[1].startswith("echo:1")
    assert json.loads(run("queues", "--json").stdout)["queues"]
    run("cancel", id)


def test_files(run, tmp_path):
    (tmp_path / "a.txt").write_text("text of a")
    (tmp_path / "b.bin").write_bytes(os.urandom(100_000))
    a, b = run("files", "put", "a.txt", "b.bin").stdout.split()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run("files", "get", a, cwd=elsewhere)
    assert (elsewhere / "a.txt").read_text() == "text of a"
    run("files", "get", b, "-o", "c.bin")
    assert (tmp_path / "c.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    assert json.loads(run("files", "get", a, "--json").stdout)["name"] == "a.txt"
    run("files", "rm", a)
    assert "not_found" in run("files", "get", a, status=REFUSED).stderr
    run("files", "put", "missing.txt", status=USAGE)
    run("files", "eat", "x", status=USAGE)


def test_a_picture_from_the_command_line(model_server, tmp_path):
    p = headrace("submit", "fashion-diffusion", "--set", "prompt=a red sneaker", "--set", "steps=4", "-o", "shoe.png",
                 server=model_server, cwd=tmp_path)
    assert p.returncode == OK, p
    assert (tmp_path / "shoe.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    p = headrace("submit", "fashion-diffusion", "--set", "prompt=a bag", "--set", "steps=2", "--set", "images=2", "-o",
                 "bag.png", server=model_server, cwd=tmp_path)
    assert p.returncode == OK and sorted(f.name for f in tmp_path.glob("bag*")) == ["bag-1.png", "bag-2.png"], p
    p = headrace("show", "shoe.png", cwd=tmp_path, COLUMNS="80", LINES="30")
    assert p.returncode == OK and len(p.stdout.splitlines()) >= 5, p
    assert headrace("show", "missing.png", cwd=tmp_path).returncode != OK


# ---- log ------------------------------------------------------------------------------------------

def test_log(servers):
    server = servers(QUICK + "log: {segment_size: 64KiB}\n")
    c = server.client()
    ids = [c.run({"i": i, "pad": "x" * 300})["id"] for i in range(300)]
    live = headrace("log", "verify", server.data)  # reads only: also of a live server
    assert live.returncode == OK and "good" in live.stdout, live
    # The snapshot is written in the background: below it is looked for damage too.
    wait_until(lambda: list((server.data / "log").glob("*.snap")), 20)
    assert server.stop() == 0
    p = headrace("log", "inspect", server.data)
    assert p.returncode == OK and "segment" in p.stdout and "records" in p.stdout, p
    p = headrace("log", "dump", server.data, timeout=60)
    assert p.returncode == OK, p.stderr
    assert any(ids[-1] in line or "submit" in line for line in p.stdout.splitlines())
    assert len(headrace("log", "dump", server.data, "-n", "3").stdout.splitlines()) < 40
    assert headrace("log", "verify", server.data).returncode == OK
    assert headrace("log", "verify", server.data / "log").returncode == OK
    assert headrace("log", "verify", server.folder / "nothing").returncode == USAGE
    assert "verify" in headrace("log", "verfy", server.data).stderr

    # A flipped bit anywhere below the synced position is found, in segments and snapshots.
    import random
    chance = random.Random(5)
    files = sorted(f for f in (server.data / "log").iterdir() if f.suffix in (".seg", ".snap"))
    assert {f.suffix for f in files} == {".seg", ".snap"}, [f.name for f in files]
    written = {f: len(f.read_bytes().rstrip(b"\0")) for f in files}
    # Behind the live segment's last group may lie what the file held before it was recycled.
    groups = re.findall(r"^log/(\d+\.seg):(\d+) group", headrace("log", "dump", server.data).stdout, re.M)
    written[server.data / "log" / groups[-1][0]] = int(groups[-1][1])
    found = 0
    for _ in range(40):
        f = chance.choice([f for f in files if written[f]])
        at, bit = chance.randrange(written[f]), 1 << chance.randrange(8)
        data = bytearray(f.read_bytes())
        data[at] ^= bit
        f.write_bytes(data)
        p = headrace("log", "verify", server.data)
        data[at] ^= bit
        f.write_bytes(data)
        assert p.returncode == FAILED and "DAMAGE" in p.stdout, \
            f"bit {bit} of byte {at} of {written[f]} in {f.name} was not found: {p.stdout[-300:]}{p.stderr}"
        found += 1
    assert found == 40
    assert headrace("log", "verify", server.data).returncode == OK


def test_a_damaged_log_is_not_served(servers):
    """A bad frame below a synced position: the server refuses to start, and says where."""
    server = servers()
    c = server.client()
    for i in range(100):
        c.run({"i": i, "pad": "x" * 300})
    assert server.stop() == 0
    segment = max((f for f in (server.data / "log").iterdir() if f.is_file()),
                  key=lambda f: len(f.read_bytes().rstrip(b"\0")))
    data = bytearray(segment.read_bytes())
    at = len(data.rstrip(b"\0")) // 2
    data[at] ^= 4
    segment.write_bytes(data)
    p = headrace("serve", "--config", server.config_path, "--data", server.data, "--listen", "127.0.0.1:0", timeout=20)
    assert p.returncode == FAILED, p
    assert segment.name in p.stderr and "acknowledged" in p.stderr and "backup" in p.stderr, p.stderr
    data[at] ^= 4
    segment.write_bytes(data)
    server.start()
    assert len(server.client().list()) == 100


# ---- help, errors, completion ---------------------------------------------------------------------

COMMANDS = (
    "serve worker submit get wait events cancel retry delete tasks models pause resume warm workers drain cordon "
    "uncordon queues "
    "files show log bench key help version completion").split()


def test_help():
    for args in ((), ("help",), ("--help",), ("-h",)):
        p = headrace(*args)
        assert p.returncode == OK and all(re.search(rf"^  {c}\b", p.stdout, re.M) for c in COMMANDS), p
    for command in COMMANDS:
        for args in ((command, "--help"), ("help", command)):
            p = headrace(*args)
            assert p.returncode == OK and p.stdout.startswith(f"headrace {command}"), (args, p)
            assert "xit status" in p.stdout
    p = headrace("help", "exit-codes")
    assert p.returncode == OK and all(re.search(rf"^ *{n}  ", p.stdout, re.M)
                                      for n in (0, 1, 2, 3, 4, 5, 6, 130)), p.stdout
    for args in (("version",), ("--version",), ("-V",)):
        assert re.fullmatch(r"headrace \d+\.\d+\.\d+\S*\n?", headrace(*args).stdout.splitlines()[0] + "\n")


def test_helpful_errors():
    p = headrace("sumbit", "echo")
    assert p.returncode == USAGE and "did you mean 'submit'" in p.stderr
    p = headrace("submit", "echo", "--prioritty", "batch", "-i", "1")
    assert p.returncode == USAGE and "--priority" in p.stderr
    p = headrace("get")
    assert p.returncode == USAGE and "--help" in p.stderr
    p = headrace("tasks", "extra")
    assert p.returncode == USAGE and "extra" in p.stderr
    p = headrace("wait", "x", "--timeout")
    assert p.returncode == USAGE and "needs a value" in p.stderr


@pytest.mark.parametrize("args", [("tasks",), ("submit", "echo", "-i", "1"), ("get", "task_x"), ("models",),
                                  ("workers",),
                                  ("events", "task_x"), ("cancel", "task_x"), ("queues",), ("files", "rm", "file_x")])
def test_no_server(args):
    start = time.monotonic()
    p = headrace(*args, server="http://127.0.0.1:9")
    assert p.returncode == NO_SERVER, p
    assert "no server at http://127.0.0.1:9" in p.stderr
    assert "start one with" in p.stderr and "headrace serve" in p.stderr
    assert p.stdout == "" and time.monotonic() - start < 10


def test_the_server_is_found(server, client, tmp_path):
    """By option, by environment, by data directory; and one that is not there is named."""
    port = server.endpoint.rsplit(":", 1)[1]
    for args, env in ((("--server", server.endpoint), {}), (("-s", f"127.0.0.1:{port}"), {}),
                      ((), {"HEADRACE_SERVER": server.endpoint + "/"}), (("--data", server.data), {}),
                      ((), {"HEADRACE_DATA": str(server.data)})):
        p = headrace("tasks", "-n", "1", *args, **env)
        assert p.returncode == OK, (args, env, p)
    p = headrace("tasks", "--data", tmp_path)
    assert p.returncode == NO_SERVER and "headrace serve --data" in p.stderr
    assert headrace("tasks", "--server", "ftp://x").returncode != OK
    # An own server in the usual place is found without being told.
    home = tmp_path / "home"
    (home / ".local/state").mkdir(parents=True)
    (home / ".local/state/headrace").symlink_to(server.data)
    p = headrace("tasks", "-n", "1", HOME=str(home), XDG_STATE_HOME="")
    assert p.returncode == OK, p


def test_something_that_is_no_headrace(tmp_path):
    import http.server
    import threading

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<html>\033[31mhello\033[0m</html>"
            self.send_response(200 if self.path == "/v1/tasks?limit=20" else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as s:
        thread = threading.Thread(target=s.serve_forever)
        thread.start()
        try:
            for args in (("tasks",), ("models",)):
                p = headrace(*args, server=f"http://127.0.0.1:{s.server_port}")
                assert p.returncode in (REFUSED, SERVER), p
                assert "Headrace server" in p.stderr and "\033" not in p.stdout + p.stderr
        finally:
            s.shutdown()
            thread.join()


def test_completion(tmp_path):
    for shell in ("bash", "zsh", "fish"):
        p = headrace("completion", shell)
        assert p.returncode == OK and all(c in p.stdout for c in COMMANDS)
    assert headrace("completion", "tcsh").returncode == USAGE
    script = tmp_path / "completion.bash"
    script.write_text(headrace("completion", "bash").stdout)

    def complete(*words):
        text = f"""source {script}; COMP_WORDS=({' '.join(f"'{w}'" for w in words)}); COMP_CWORD={len(words) - 1}
                   _headrace; printf '%s\\n' "${{COMPREPLY[@]}}" """
        return subprocess.run(["bash", "-c", text], capture_output=True,
                              text=True, timeout=10, cwd=tmp_path).stdout.split()

    assert "submit" in complete("headrace", "su") and complete("headrace", "can") == ["cancel"]
    assert "--priority" in complete("headrace", "submit", "--pri")
    assert complete("headrace", "submit", "--priority", "cr") == ["critical"]
    assert complete("headrace", "log", "ver") == ["verify"]


def test_progress_and_colours_on_a_terminal(server, client, tmp_path):
    """On a terminal there is a progress line and colour; NO_COLOR takes the colour away."""
    import pty
    import select
    for env, coloured in (({"TERM": "xterm-256color"}, True), ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False)):
        pid, fd = pty.fork()
        if pid == 0:
            os.execve(HEADRACE, [HEADRACE, "submit", "echo", "-i", '{"sleep_ms": 900, "units": 9}', "--wait"],
                      environment(HEADRACE_SERVER=server.endpoint, COLUMNS="100", LINES="30", **env))
        out, end = b"", time.monotonic() + 20
        while time.monotonic() < end:
            if select.select([fd], [], [], 0.2)[0]:
                try:
                    piece = os.read(fd, 65536)
                except OSError:
                    break
                if not piece:
                    break
                out += piece
        _, status = os.waitpid(pid, 0)
        os.close(fd)
        text = out.decode()
        assert os.waitstatus_to_exitcode(status) == OK, text
        assert "\r" in text and "running" in text, text
        assert re.search(r"\d/9", text), f"no steps in {text!r}"
        assert bool(re.search(r"\033\[[0-9;]*m", text)) == coloured, text
        assert '"sleep_ms"' in text


def test_output_to_a_closed_pipe(server, client):
    p = subprocess.run(["bash", "-c", f"'{HEADRACE}' tasks --limit 200 --json | head -c 1"],
                       capture_output=True, timeout=20, env=environment(HEADRACE_SERVER=server.endpoint))
    assert p.returncode == 0 and b"SIG" not in p.stderr


# ---- key, worker ----------------------------------------------------------------------------------

def test_key_new():
    p = headrace("key", "new", "--name", "ci", "--tenant", "team-a", "--scopes", "submit,read,operate")
    assert p.returncode == OK and re.fullmatch(r"hr_live_[0-9a-z]{26}\n", p.stdout), p
    import hashlib
    assert hashlib.sha256(p.stdout.strip().encode()).hexdigest() in p.stderr and "team-a" in p.stderr
    assert headrace("key", "new").stdout != headrace("key", "new").stdout
    assert headrace("key", "new", "--scopes", "everything").returncode == USAGE
    assert headrace("key", "old").returncode == USAGE


def test_worker_usage():
    assert headrace("worker").returncode == USAGE
    p = headrace("worker", "--server", "http://127.0.0.1:9", "--key-file", "/nonexistent")
    assert p.returncode == USAGE and "/nonexistent" in p.stderr
