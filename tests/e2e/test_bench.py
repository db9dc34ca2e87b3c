"""headrace bench: it counts what there was, says when something was wrong, and leaves nothing behind. How fast
anything is, is not tested here: bench/run measures that."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest
from server import EXAMPLES, HEADRACE, alive, environment, headrace, parents, wait_until

OK, FAILED, USAGE, NO_SERVER, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130
SHORT = ("--duration", "0.5s", "--warmup", "0.2s", "--patience", "0")


def bench(*args, **options):
    return headrace("bench", *SHORT, *args, **options)


def rows(p):
    assert p.returncode == OK, p
    found = {r["scenario"]: r for r in json.loads(p.stdout)["rows"]}
    assert all(r["errors"] == 0 for r in found.values()), found
    return found


def metric(client, name):
    return sum(float(line.split()[-1]) for line in client.get("/metrics").expect(200).body.decode().splitlines()
               if line.startswith(name))


def finished(client):
    return sum(v["succeeded"] for v in client.get("/v1/models/echo").expect(200).json["versions"])


def check_latency(latency):
    points = [latency[k] for k in ("min", "p50", "p90", "p99", "p999", "p9999", "max")]
    assert points == sorted(points) and points[0] > 0, latency
    assert latency["min"] <= latency["mean"] <= latency["max"]


def test_counts_are_the_servers(servers):
    """What it says it did is what the server says was done."""
    s = servers()
    client = s.client()
    p = bench("--server", s.endpoint, "--scenario", "roundtrip", "-c", "8", "--json")
    row = rows(p)["roundtrip"]
    assert row["connections"] == 8 and row["loop"] == "closed" and row["tasks_per_s"] > 0
    check_latency(row["latency_ms"])
    check_latency(row["corrected_ms"])
    measured = row["measured"]
    assert measured == row["latency_ms"]["count"] == pytest.approx(row["tasks_per_s"] * row["elapsed_s"], rel=0.01)
    assert measured <= finished(client) <= metric(client, "headrace_tasks_submitted_total")
    assert row["server_cpu_s_per_1000"] > 0 and row["rss_bytes"] > 1_000_000, row
    # As a table, for people.
    p = bench("--server", s.endpoint, "--scenario", "submit,batch", "-c", "4", "--batch", "10", "--data", s.data)
    assert p.returncode == OK, p
    table = p.stdout.splitlines()
    assert table[0].split()[:3] == ["SCENARIO", "CLIENTS", "TASKS/S"]
    assert [line.split()[:2] for line in table[1:3]] == [["submit", "4"], ["batch", "4"]]
    assert "10 tasks a request" in p.stdout and "coordinated omission" in p.stdout.replace("\n", " ")
    assert os.listdir(s.data) and not [n for n in os.listdir(s.data) if "probe" in n]
    client.close()


def test_open_loop(server):
    """A fixed schedule is kept; one that is too fast shows in the latencies, whatever was answered."""
    args = ("--server", server.endpoint, "--scenario", "roundtrip", "--json")
    row = rows(bench(*args, "--rate", "200"))["roundtrip"]
    assert row["loop"] == "open" and "corrected_ms" not in row and row["rate_asked"] == 200
    assert 0.4 * 200 <= row["latency_ms"]["count"] <= 1.2 * 200 * row["elapsed_s"], row
    row = rows(bench(*args, "--rate", "1000000", "-c", "4"))["roundtrip"]
    assert row["tasks_per_s"] < 500_000 and row["unanswered_at_end"] > 10_000, row
    # What was due at once and not answered for half a second is there with its age.
    assert row["latency_ms"]["count"] > 300_000 and row["latency_ms"]["max"] > 400, row
    assert "more than it takes" in row["note"]


def test_own_server(tmp_path):
    """Without --server it starts one, and takes it and its data away again."""
    before = set(parents())
    found = rows(bench("--scenario", "submit,latency,batch", "--data", tmp_path, "--json"))
    assert list(found) == ["submit", "batch", "latency submit", "latency result"]
    assert found["latency submit"]["fdatasync_p50_ms"] > 0
    assert found["latency result"]["latency_ms"]["p50"] > 0 and found["batch"]["batch"] == 100
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: not [p for p in set(parents()) - before if "bench" in command_line(p)], 5, "its processes' end")


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def test_memory_restart_backlog(tmp_path):
    p = bench("--scenario", "memory,backlog", "-n", "20000", "--payload", "64", "--data", tmp_path, "--json",
              timeout=120)
    found = rows(p)
    assert found["memory"]["tasks"] == 20000 and found["memory"]["payload_bytes"] == 64
    assert 0 < found["memory"]["bytes_per_task"] < 5000, found["memory"]
    assert found["restart"]["tasks"] == 20000 and 0 < found["restart"]["ready_s"] < 30
    assert found["backlog long"]["queued"] == 20000 and found["backlog long"]["cost_ratio"] > 0
    assert list(tmp_path.iterdir()) == []


def test_memory_gives_the_model_back(servers):
    """On somebody's server: paused for the time, resumed afterwards, the tasks run."""
    s = servers()
    with contextlib.closing(s.client()) as client:
        rows(bench("--server", s.endpoint, "--scenario", "memory", "-n", "500", "--json"))
        assert client.get("/v1/models/echo").expect(200).json["paused"] is False
        wait_until(lambda: finished(client) >= 500, 20, "the tasks")


@pytest.mark.skipif(not (EXAMPLES / "language-id").is_dir(), reason="no example models")
def test_busy_with_a_model(tmp_path):
    found = rows(bench("--scenario", "busy", "--models", EXAMPLES, "--model", "language-id", "-c", "16", "--data",
                       tmp_path, "-i", '{"text": "Guten Morgen,\\n wie geht es Ihnen?"}', "--json"))
    assert 0 < found["busy"]["busy_share"] <= 1


def test_refusals_are_told(servers):
    """What the server refuses ends the run, with the server's words."""
    s = servers(config="limits:\n  queue_max: 10\n  tenant_queued_max: 10\n")
    p = bench("--server", s.endpoint, "--scenario", "memory", "-n", "1000")
    assert p.returncode == REFUSED and "a line of a batch was refused: " in p.stderr, p
    p = bench("--server", s.endpoint, "--scenario", "roundtrip", "-c", "4", "-i", '{"fail": "final"}')
    assert "no measurement" in p.stderr and p.stdout == ""
    assert p.returncode == REFUSED and "a task did not succeed: " in p.stderr and "fail" in p.stderr, p
    p = bench("--server", s.endpoint, "--scenario", "submit", "--model", "ecco")
    assert p.returncode == REFUSED and "no such model" in p.stderr, p


@pytest.mark.parametrize("args,status,words", [
    (("--scenario", "roundtrp"), USAGE, "did you mean 'roundtrip'"),
    (("--scenario", "submit,,batch"), USAGE, "no scenario ''"),
    (("--start", "--server", "http://127.0.0.1:9"), USAGE, "exclude each other"),
    (("--server", "http://127.0.0.1:9"), NO_SERVER, "no server at http://127.0.0.1:9"),
    (("--server", "https://127.0.0.1:9"), USAGE, "plain HTTP only"),
    (("--server", "http://127.0.0.1:9/x"), USAGE, "should be http://HOST:PORT"),
    (("--server", "http://127.0.0.1:9", "--scenario", "backlog"), USAGE, "a server of its own"),
    (("--server", "http://127.0.0.1:9", "--models", "x"), USAGE, "--models is for"),
    (("--connections", "0"), USAGE, "--connections"),
    (("--duration", "0"), USAGE, "--duration"),
    (("--input", "{"), USAGE, "--input is no valid JSON"),
    (("--model", 'a"b'), USAGE, "no name of a model"),
    (("--data", "/proc/nowhere"), USAGE, "--data"),
    (("--models", "/nowhere"), FAILED, "could not start"),
])
def test_mistakes(args, status, words):
    p = bench(*args)
    assert p.returncode == status and words in p.stderr, p
    assert p.stdout == ""


def test_no_http():
    """Something else answers: said, not measured."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def speak():
            while True:
                try:
                    c, _ = listener.accept()
                except OSError:
                    return
                c.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n")
                c.close()
        threading.Thread(target=speak, daemon=True).start()
        p = bench("--server", f"http://127.0.0.1:{listener.getsockname()[1]}", "--scenario", "submit", timeout=30)
        assert p.returncode not in (OK, INTERRUPTED) and p.stdout == "" and "error:" in p.stderr, p


def test_interrupt(tmp_path):
    """Ctrl-C: the server ends, its data goes, and what was measured so far is not passed off as whole."""
    p = subprocess.Popen([HEADRACE, "bench", "--scenario", "submit", "--duration", "60s", "--patience", "0",
                          "--data", tmp_path],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    children = wait_until(lambda: [c for c, parent in parents().items() if parent == p.pid], 20, "a server")
    wait_until(lambda: list(tmp_path.glob("*/data/endpoint")), 20, "it to be ready")
    time.sleep(0.3)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=30)
    assert p.returncode == INTERRUPTED and "submit  " not in out, (out, err)
    assert not any(alive(c) for c in children) and list(tmp_path.iterdir()) == []


def test_killed(tmp_path):
    """Even then no server stays."""
    p = subprocess.Popen([HEADRACE, "bench", "--scenario", "submit", "--duration", "60s", "--patience", "0",
                          "--data", tmp_path],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    children = wait_until(lambda: [c for c, parent in parents().items() if parent == p.pid], 20, "a server")
    wait_until(lambda: list(tmp_path.glob("*/data/endpoint")), 20, "it to be ready")
    p.kill()
    p.wait(timeout=10)
    wait_until(lambda: not any(alive(c) for c in children), 20, "the server's end")
