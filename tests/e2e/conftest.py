"""Fixtures: a server for a whole file, servers for one test, and nothing left running afterwards.

With HEADRACE_SANITIZER=asan or tsan (tools/check sets it) the program is one with that sanitizer: what it
reports, in whatever process, is in a file of $HEADRACE_REPORTS and fails the test that it came in."""

import os
import sys
from pathlib import Path

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))

from server import EXAMPLES, FETCHED, HEADRACE, Server  # noqa: E402

# The defaults, but what would make tests wait: retries come soon.
QUICK = """
retry:
  backoff_first: 100ms
  backoff_max: 1s
timeouts:
  lease: 5s
  ping: 1s
"""


SANITIZER = os.environ.get("HEADRACE_SANITIZER", "")
REPORTS = Path(os.environ.get("HEADRACE_REPORTS", "/nonexistent"))

# What a sanitizer's build leaves out, and why: by the beginning of a test's name.
ONNX = "ONNX Runtime is not instrumented: ThreadSanitizer sees races in it that are none"
FIGURES = "its figures are those of a build without a sanitizer"
LEFT_OUT = {
    "asan": {
        "test_bench.py": FIGURES,
        "test_memory.py::test_a_model_that_fits": FIGURES,
        "test_memory.py::test_memory_that_was_not_declared": FIGURES,
        "test_memory.py::test_growth_is_seen": FIGURES,
        "test_models.py::test_models_are_evicted_by_memory": FIGURES,
    },
    "tsan": {
        "test_bench.py": FIGURES,
        "test_memory.py::test_a_model_that_fits": FIGURES,
        "test_memory.py::test_memory_that_was_not_declared": FIGURES,
        "test_memory.py::test_growth_is_seen": FIGURES,
        "test_docs.py::test_commands": ONNX,
        "test_cli.py::test_a_picture_from_the_command_line": ONNX,
        "test_history.py::test_files_of_finished_tasks": ONNX,
        "test_bad_days_models.py::test_files_that_are_no_models": ONNX,
        "test_bad_days_models.py::test_tensors_that_do_not_fit": ONNX,
    } | {f"test_models.py::test_{name}": ONNX for name in (
        "all_models_are_there", "a_picture", "the_seed_decides", "images_of_one_task", "the_same_alone",
        "progress_by_step", "cancel_while_drawing", "bad_pictures", "voice_activity", "tensors_nested",
        "wrong_tensors", "workers_speak_to_their", "models_are_evicted", "a_broken_model_fails")},
}


def pytest_collection_modifyitems(items):
    for item in items:
        name = f"{item.path.name}::{item.name}"
        for start, reason in LEFT_OUT.get(SANITIZER, {}).items():
            if name.startswith(start):
                item.add_marker(pytest.mark.skip(reason=f"{SANITIZER}: {reason}"))


def take_reports():
    """The reports that have come since the last call, as one text; they are kept under another name."""
    texts = []
    for path in sorted(REPORTS.glob("report.*")) if REPORTS.is_dir() else []:
        texts.append(path.read_text(errors="replace"))
        path.rename(path.with_name(f"told-{path.name}"))
    return "\n".join(texts)


@pytest.fixture(autouse=True)
def no_reports():
    yield
    text = take_reports()
    assert not text, f"the sanitizer reports:\n{text[:20000]}"


def pytest_sessionfinish(session):
    """A server of a whole file ends after the last test's check."""
    text = take_reports()
    if text:
        print(f"\nthe sanitizer reports, after the last test:\n{text}")
        session.exitstatus = 1


def pytest_configure():
    if not Path(HEADRACE).exists():
        pytest.exit(f"{HEADRACE} does not exist: build it, or name one by $HEADRACE", 3)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of its servers' logs."""
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for value in item.funcargs.values():
            for server in getattr(value, "servers", [value]):
                if isinstance(server, Server):
                    report.sections.append((f"log of {server.folder.name}", server.log_tail(40)))


class Servers:
    """Makes servers for one test."""

    def __init__(self, folder):
        self.folder, self.servers = folder, []

    def __call__(self, config=QUICK, start=True, **options):
        server = Server(self.folder / f"s{len(self.servers)}", config, **options)
        self.servers.append(server)
        return server.start() if start else server

    def close(self):
        for server in self.servers:
            server.close()


@pytest.fixture
def servers(tmp_path):
    made = Servers(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One for all tests of a file: with the model `echo` only."""
    with Server(tmp_path_factory.mktemp("shared"), QUICK) as s:
        yield s.start()


@pytest.fixture
def client(server):
    """Of the shared server; brings it back when a test before has lost it."""
    if not server.running:
        server.start()
    c = server.client()
    yield c
    c.close()


@pytest.fixture(scope="module")
def model_server(tmp_path_factory):
    """One with the example models and those that set-up fetches."""
    models = [d for d in (EXAMPLES, FETCHED) if d.is_dir()]
    if SANITIZER == "tsan":  # LEFT_OUT says why
        models = [tmp_path_factory.mktemp("programs")]
        (models[0] / "language-id").symlink_to(EXAMPLES / "language-id")
    with Server(tmp_path_factory.mktemp("models"), QUICK, models=models) as s:
        yield s.start()
