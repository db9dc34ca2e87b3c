"""bench/peers: what it writes from given figures, and its options. No peer is needed, and nothing is measured."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from server import ROOT

PEERS = ROOT / "bench/peers"
sys.path.insert(0, str(PEERS))
import report  # noqa: E402
from systems import SCENARIOS, SYSTEMS  # noqa: E402


def row(rate, cpu, slow=False):
    return {"tasks_per_s": rate, "p50_ms": 0.5, "p99_ms": 1.5, "server_cpu": cpu, "generator_cpu": 0.01,
            "worker_cpu": 0.002, "flushes": 2.0, "slow": slow}


def system(rates, cpu, memory):
    return {"version": "1", "durability": "yes", "memory": {"bytes": memory, "tasks": 10, "of": 10},
            "rows": {s: [row(r, cpu) for r in rates] for s in SCENARIOS}}


@pytest.fixture
def results():
    return {"rounds": 3, "seconds": 3, "took_s": 60, "command": "bench/peers/run", "probes": [0.1, 0.2],
            "machine": {"date": "2026-01-02"}, "left_out": {"nats": "it is <not> here"},
            "systems": {"headrace": system([140, 150, 160], 0.02, 2e8),
                        "redis-list": system([100, 100, 100], 0.03, 3e8),
                        "rabbitmq-classic": system([110, 120, 110], 0.01, 1e8),
                        "postgres": system([10, 20, 30], 0.3, 1.5e8)}}


def line_of(text, begin):
    return next(line for line in text.splitlines() if line.startswith(begin))


def test_verdicts(results):
    text = report.section(results)
    # Beside the fastest of all; by rounds: 140/110, 150/120, 160/110.
    line = line_of(text, "| Full round trips, 64 clients")
    assert "RabbitMQ classic: 110/s" in line and "| 1.27x | 1.25x..1.45x |" in line and "| reached |" in line
    assert "| missed |" in line_of(text, "| Full round trips by batches")
    # Of what a result costs, only those with results can tell.
    line = line_of(text, "| Server CPU")
    assert "Redis list (with results): 0.0300" in line and "| 0.67x |" in line and "| reached |" in line
    line = line_of(text, "| Memory")
    assert "PostgreSQL (with results): 150 MB" in line and "| 1.33x |" in line and "| missed |" in line
    assert "- Left out: NATS JetStream: it is <not> here" in text


def test_rounds_with_a_slow_disk_do_not_count(results):
    results["systems"]["headrace"]["rows"]["many"][0] = row(1, 0.9, slow=True)
    text = report.section(results)
    assert "| 155/s |" in line_of(text, "| Full round trips, 64 clients") and "1 of 36 measurements" in text


def test_plot_is_a_picture(results):
    picture = ElementTree.fromstring(report.plot(results))
    words = {e.text for e in picture.iter() if e.text}
    assert {"Headrace", "Redis list", "PostgreSQL", "150"} <= words


def test_section_is_replaced_and_the_rest_stays(results):
    once = report.replace_section("# Results\n\nothers\n", report.section(results))
    twice = report.replace_section(once, report.section(results | {"rounds": 5}))
    assert once.startswith("# Results\n\nothers\n\n" + report.BEGIN) and once.endswith(report.END + "\n")
    assert twice.count(report.BEGIN) == 1 and "medians of 5" in twice and twice.startswith("# Results\n\nothers\n")


@pytest.mark.parametrize(("options", "status", "says"), [
    (["--help"], 0, "--rounds"),
    (["--only", "redis-list,kafka"], 2, "there is no system kafka"),
    (["--rounds", "0"], 2, "--rounds from 1"),
])
def test_options(options, status, says):
    p = subprocess.run([PEERS / "run", *options], capture_output=True, text=True, check=False, timeout=20)
    assert p.returncode == status and says in p.stdout + p.stderr


def test_every_system_says_what_it_does_not_do():
    for s in SYSTEMS:
        assert tuple(s.traits) == report.TRAITS and s.how, s.name
