"""Bad days of the wall clock: steps of hours, forwards and backwards, while tasks wait and run and across a restart."""

import time

import pytest
from server import free_port, headrace, wait_until
from weather import Weather

HOURS = 3600.0


@pytest.fixture
def weather(tmp_path):
    return Weather(tmp_path, tmp_path / "s0" / "data")


@pytest.fixture
def server(servers, weather):
    return servers("timeouts: {lease: 2s, ping: 1s}\nretry: {backoff_first: 100ms, backoff_max: 1s}\n",
                   env=weather.env, port=free_port())


def states(client, id):
    with client.events(id) as stream:
        return [e.data["status"] for e in stream if e.name == "status"]


@pytest.mark.parametrize("hours", [5, -5])
def test_a_step_while_it_runs(server, weather, hours):
    """Delays, deadlines, leases, backoff and retention keep their lengths: the server's time does not step."""
    c = server.client()
    start = time.monotonic()
    delayed = c.new("delayed", delay_s=2.5)
    far = c.new("far", delay_s=3600)
    tight = c.new({"sleep_ms": 60_000, "units": 600}, deadline_s=3)
    wide = c.new("wide", delay_s=1, deadline_s=3600)
    kept = c.run("kept", retention_s=3600)["id"]
    running = c.new({"sleep_ms": 3500, "units": 35})
    c.until(running, "running")
    c.until(tight, "running")
    weather.step_clock(hours * HOURS)
    assert c.task(far)["status"] == "queued" and c.task(kept)["output"] == "kept"
    assert c.task(delayed)["status"] == "queued" or time.monotonic() - start >= 2.5
    assert c.task(tight)["status"] == "running" or time.monotonic() - start >= 3
    assert c.done(wide, 20)["status"] == "succeeded"
    assert c.done(delayed, 20)["status"] == "succeeded" and time.monotonic() - start >= 2.5
    assert c.done(tight, 20)["status"] == "expired" and time.monotonic() - start >= 3
    failing = c.done(c.new({"fail": "retryable", "fail_attempts": [1]}), 20)
    assert failing["status"] == "succeeded" and failing["attempt"] == 2
    c.done(running, 30)
    assert states(c, running) == ["queued", "running", "succeeded"], "no lease ended"
    assert c.task(far)["status"] == "queued" and c.task(kept)["output"] == "kept"
    # Keys are still remembered, and a kill with the new clock loses nothing.
    key = c.submit("keyed", key="k").expect(202).json["id"]
    weather.step_clock(-hours * HOURS)
    assert c.submit("keyed", key="k").expect(200, 202).json["id"] == key
    server.kill()
    c = server.start().client()
    assert c.task(far)["status"] == "queued" and c.submit("keyed", key="k").expect(200, 202).json["id"] == key


def test_a_step_forwards_across_a_restart(server, weather):
    """The clock is right and the server was away for five hours, as far as it can tell: what came due meanwhile is
    due now, what did not is not, and nobody pays an attempt."""
    c = server.client()
    due = c.new("due", delay_s=3 * HOURS)
    far = c.new("far", delay_s=10 * HOURS)
    late = c.new("late", delay_s=1 * HOURS, deadline_s=2 * HOURS)
    fine = c.new("fine", delay_s=1 * HOURS, deadline_s=20 * HOURS)
    running = c.new({"sleep_ms": 1500, "units": 15})
    c.until(running, "running")
    key = c.submit("keyed", key="k", wait=10).json["id"]
    server.kill()
    weather.step_clock(5 * HOURS)
    c = server.start().client()
    assert c.done(due, 20)["status"] == "succeeded"
    assert c.done(fine, 20)["status"] == "succeeded"
    assert c.done(late, 20)["status"] == "expired"
    assert c.task(far)["status"] == "queued"
    task = c.done(running, 30)
    assert task["status"] == "succeeded" and task["attempt"] == 1, task
    assert c.submit("keyed", key="k").expect(200, 202).json["id"] == key


def test_a_clock_behind_the_log(server, weather):
    """More than a minute behind the last record: the clock is wrong, or the log another's. The server says so and
    does not start, until it is told to; time then goes on from the last record."""
    c = server.client()
    done, far = c.run("done"), c.new("far", delay_s=1 * HOURS)
    server.kill()
    weather.step_clock(-4 * HOURS)
    p = headrace("serve", "--data", server.data, "--config", server.config_path, "--listen", "127.0.0.1:0",
                 **weather.env)
    assert p.returncode == 1 and "--accept-clock" in p.stderr and "the clock is" in p.stderr, p
    assert "behind the log's last record" in p.stderr
    # A clock that is a little behind is nobody's fault.
    weather.step_clock(4 * HOURS - 30)
    c = server.start().client()
    assert c.task(done["id"])["output"] == "done" and c.task(far)["status"] == "queued"
    soon = c.new("soon", delay_s=1)
    assert c.done(soon, 20)["created_at"] >= done["created_at"], "time does not go back"
    server.kill()

    weather.step_clock(-2 * HOURS)
    server.command.append("--accept-clock")
    c = server.start().client()
    assert c.task(far)["status"] == "queued"
    before = time.monotonic()
    task = c.done(c.new("after", delay_s=1), 20)
    assert task["status"] == "succeeded" and time.monotonic() - before >= 1
    assert task["created_at"] > done["created_at"]
    wait_until(lambda: c.metrics()["headrace_leases_held"] == 0, 10)
    assert server.stop() == 0
