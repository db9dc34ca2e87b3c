"""Fixtures: a server for a whole file, servers for one test, and nothing left running afterwards."""

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
    with Server(tmp_path_factory.mktemp("models"), QUICK, models=models) as s:
        yield s.start()
