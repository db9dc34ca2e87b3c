"""The power goes: what was acknowledged was synced before, and is there. A kill alone cannot show that: the page cache
outlives it."""

import os
import random
import subprocess
import sys
import textwrap
import time

from fault import Unsynced
from server import free_port, wait_until

CONFIG = """
log: {segment_size: 16KiB}
timeouts: {lease: 2s, ping: 1s}
"""


# ---- the tool itself ------------------------------------------------------------------------------

PROGRAM = """
    import os, sys
    d = sys.argv[1]
    def put(name, data, at=0, sync=False):
        fd = os.open(f"{d}/{name}", os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(fd, data, at)
        if sync:
            os.fsync(fd)
        os.close(fd)
    def sync():
        fd = os.open(d, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    for name in ("a", "b", "c", "d"):
        put(name, b"1" * 2000, sync=True)
    sync()
    put("a", b"2" * 3000)
    put("b", b"2" * 3000, sync=True)
    put("b", b"3" * 1000, 500)
    os.truncate(os.open(f"{d}/b", os.O_RDWR), 100)
    os.unlink(f"{d}/c")
    os.rename(f"{d}/a", f"{d}/d")
    put("new", b"new", sync=True)
    os.mkdir(f"{d}/folder")
    put("folder/in", b"in", sync=True)
"""


def shimmed(tmp_path, chance=None):
    data = tmp_path / "data"
    data.mkdir(parents=True)
    unsynced = Unsynced(tmp_path, data)
    (tmp_path / "serve").write_text(textwrap.dedent(PROGRAM))
    # The shim looks for a first argument "serve".
    subprocess.run([sys.executable, "serve", str(data)], cwd=tmp_path, env=os.environ | unsynced.env, check=True)
    assert (data / "d").read_bytes() == b"2" * 3000 and (data / "b").read_bytes() == b"2" * 100
    unsynced.cut(chance)
    return data


def test_the_cut_takes_what_was_not_synced(tmp_path):
    data = shimmed(tmp_path)
    assert {p.name: p.read_bytes() for p in data.iterdir()} == {
        "a": b"1" * 2000, "b": b"2" * 3000, "c": b"1" * 2000, "d": b"1" * 2000}


def test_a_torn_cut_takes_some_of_it(tmp_path):
    seen = set()
    for seed in range(12):
        data = shimmed(tmp_path / str(seed), random.Random(seed))
        if (data / "b").exists():
            b = (data / "b").read_bytes()
            assert b == b"2" * 100 or (len(b) == 3000 and set(b) <= set(b"23") and b[1536:] == b"2" * 1464), b
        if (data / "a").exists():
            a = (data / "a").read_bytes()
            assert len(a) in (2000, 3000) and set(a) <= set(b"12\0")
            seen.add(a)
        seen.add(tuple(sorted(p.name for p in data.iterdir())))
    assert len(seen) > 6, "all cuts are alike"


# ---- the server -----------------------------------------------------------------------------------

def test_what_was_acknowledged_outlives_the_power(servers, tmp_path):
    """From the first second on: folders that the first start made, files, tasks, outputs that are files, the
    history; again and again, the cuts torn or not."""
    unsynced = Unsynced(tmp_path, tmp_path / "s0" / "data")
    server = servers(CONFIG, start=False, env=unsynced.env, port=free_port())
    chance = random.Random(7)
    tasks, files = {}, {}
    for i in range(6):
        c = server.start().client()
        for id, content in files.items():
            assert c.get(f"/v1/files/{id}/content").expect(200).body == content
        for id, of in tasks.items():
            task = c.done(id)
            assert task["status"] == "succeeded", task
            if task["output"] != of:
                body = c.get(f"/v1/files/{task['output']['$file']}/content").expect(200)
                assert body.json == of
        data = random.Random(i).randbytes(3000)
        files[c.upload(data).expect(201).json["id"]] = data
        for n in range(8):
            of = {"n": [i, n], "pad": "x" * chance.choice([10, 100, 3000, 80_000])}
            # With segments as small as these the log may want room first; then a submit is to be repeated.
            r = wait_until(lambda: (r := c.submit(of).expect(202, 503)).status == 202 and r, 20, "room in the log")
            tasks[r.json["id"]] = of
        if i % 3 == 1:
            for id in tasks:
                c.done(id)
        if i % 3 == 2:
            wait_until(lambda: list((server.data / "log").glob("*.snap")), 10, "a snapshot")
            time.sleep(chance.random())
        server.kill()
        unsynced.cut(chance if i % 2 else None)
    server.start()
    assert server.client().list() and unsynced.cuts == 6
