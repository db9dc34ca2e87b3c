"""Bad days of the data directory: a second server, flipped bits, and data of a newer version. What is refused is
refused with a message that says how to go on, and nothing is changed."""

import os
import random
import shutil
import signal
import struct

import pytest
from conftest import QUICK
from server import alive, headrace, wait_until

TINY = QUICK + "log: {segment_size: 32KiB}\n"


def refused(server, data=None, **env):
    """`serve` on that directory, which does not start: what it says."""
    p = headrace("serve", "--data", data or server.data, "--config", server.config_path, "--listen", "127.0.0.1:0",
                 timeout=30, **env)
    assert p.returncode == 1 and "cannot start" in p.stderr, p
    return p.stderr


def bytes_of(folder):
    """What lies in it, but for the lock, which says who came last."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


# ---- a second server ------------------------------------------------------------------------------

def test_a_second_server_beside_one_that_sleeps(servers):
    """The lock is the process's, not its pulse's: a stopped server is not taken for a dead one."""
    first = servers()
    c = first.client()
    id = c.new({"sleep_ms": 1500})
    c.until(id, "running")
    os.kill(first.pid, signal.SIGSTOP)
    try:
        said = refused(first)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert "another process uses this data directory" in said and str(first.pid) in said, said
    assert c.done(id)["status"] == "succeeded" and first.endpoint_file.read_text().strip() == first.endpoint
    # A dead one holds nothing.
    first.kill()
    assert first.start().client().task(id)["status"] == "succeeded"


# ---- flipped bits ---------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """The directory of a stopped server with segments and snapshots, and what it served."""
    from server import Server
    with Server(tmp_path_factory.mktemp("history"), TINY) as s:
        c = s.start().client()
        lines = b"".join(b'{"model":"echo","input":"%s"}\n' % (b"x" * 300) for _ in range(100))
        more, count = True, 0
        while more:  # and once more, so that there are segments behind the newest snapshot
            more = len(list((s.data / "log").glob("*.snap"))) < 2
            r = c.post("/v1/tasks:batch", lines, headers={"Content-Type": "application/x-ndjson"}).expect(200)
            count += r.body.count(b'"status":202')  # with segments this small some are told to come again
            assert count < 5000, "no snapshots"
            wait_until(lambda: not c.list(status="queued,running", limit=1), 30)
        tasks = {t["id"]: t for t in c.list(limit=200)}
        assert len(tasks) == count
        assert s.stop() == 0
        assert headrace("log", "verify", s.data).returncode == 0
        yield s, tasks


def needed_segments(log):
    """The segments that a start reads, oldest first: from the one with the newest snapshot's point on."""
    covers = max(int(p.stem) for p in log.glob("*.snap"))
    starts = {p: struct.unpack_from("<Q", p.read_bytes(), 64)[0] for p in sorted(log.glob("*.seg"))}
    base = max(p for p in starts if starts[p] <= covers)
    return [p for p in starts if p >= base]


def groups(raw):
    """[(where, frames, bytes of its body)] of a segment: behind the last one lies what the file held before."""
    found, at, generation = [], 512, raw[24:32]
    while raw[at:at + 4] == b"HLRG" and raw[at + 8:at + 16] == generation:
        frames, body = struct.unpack_from("<I", raw, at + 4)[0], struct.unpack_from("<I", raw, at + 40)[0]
        found.append((at, frames, body))
        at += (48 + body + 511) // 512 * 512
    return found


def flip(path, at, bit):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ bit]))


def copy_of(server, servers):
    copy = servers(TINY, start=False)
    shutil.copytree(server.data, copy.data)
    return copy


def test_a_flipped_bit_in_a_segment(history, servers):
    """Wherever it is: no start; the file, the place and the ways out are named; nothing is changed. Put right, all
    is there."""
    original, tasks = history
    server, chance = copy_of(original, servers), random.Random(7)
    log = server.data / "log"
    segments = needed_segments(log)
    places = []
    for path in segments:
        end = groups(path.read_bytes())[-1][0]  # the last group proves what lies below it
        places += [(path, at) for at in {chance.randrange(0, 92), *(chance.randrange(end) for _ in range(2))}
                   if at < end]
    assert len(places) >= 5, places
    for path, at in chance.sample(places, min(len(places), 10)):
        bit = 1 << chance.randrange(8)
        flip(path, at, bit)
        before = bytes_of(server.data)
        said = refused(server)
        # A damaged length or version may be told as what it looks like.
        assert path.name in said and ("backup" in said or "newer" in said), (path.name, at, bit, said)
        assert "headrace log verify" in said or "newer" in said, said
        assert bytes_of(server.data) == before, "a refused start has changed something"
        flip(path, at, bit)
    server.start()
    assert {t["id"]: t for t in server.client().list(limit=200)} == tasks


def test_a_flipped_bit_in_a_snapshot(history, servers):
    """One damaged snapshot costs time, not data: the start names it and replays from the older one. Two, and there
    is no start: the segments before them are gone."""
    server, tasks = history
    chance = random.Random(11)
    copy = copy_of(server, servers)
    older, newest = sorted((copy.data / "log").glob("*.snap"))
    flip(newest, chance.randrange(newest.stat().st_size), 1 << chance.randrange(8))
    assert headrace("log", "verify", copy.data).returncode == 1
    c = copy.start().client()
    assert newest.name in copy.log_text() and "warn" in copy.log_text(), copy.log_tail()
    assert {t["id"]: t for t in c.list(limit=200)} == tasks
    copy.kill()

    shutil.rmtree(copy.data)
    shutil.copytree(server.data, copy.data)
    for path in (older, newest):
        flip(path, chance.randrange(path.stat().st_size), 1 << chance.randrange(8))
    before = bytes_of(copy.data)
    said = refused(copy)
    assert older.name in said and newest.name in said and "backup" in said and "log verify" in said, said
    assert bytes_of(copy.data) == before


# ---- data of a newer version ----------------------------------------------------------------------

def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def put_u32(path, at, value):
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(struct.pack("<I", value))


def newer_format(data):
    (data / "format").write_text("headrace-data 2\n")


def newer_segment(data):
    """The head of the last segment says version 2."""
    path = max((data / "log").glob("*.seg"))
    put_u32(path, 8, 2)
    put_u32(path, 508, crc32c(path.read_bytes()[:508]))


def newer_snapshot(data):
    path = max((data / "log").glob("*.snap"))
    put_u32(path, 8, 2)
    put_u32(path, 124, crc32c(path.read_bytes()[:124]))


def change_last_frame(data, at_in_frame, byte):
    """One byte of the last frame of the log, with a CRC that fits."""
    path = max((data / "log").glob("*.seg"))
    raw, last = path.read_bytes(), None
    generation = struct.unpack_from("<Q", raw, 24)[0]
    for at, frames, _ in groups(raw):
        entry = at + 48
        for _ in range(frames):
            last, length = entry, struct.unpack_from("<I", raw, entry)[0]
            entry += 8 + length
    length = struct.unpack_from("<I", raw, last)[0]
    frame = bytearray(raw[last + 8:last + 8 + length])
    frame[at_in_frame] = byte
    with open(path, "r+b") as f:
        f.seek(last + 8)
        f.write(frame)
    put_u32(path, last + 4, crc32c(struct.pack("<QQI", generation, last, length) + frame))


NEWER = {
    "format": (newer_format, "format"),
    "segment": (newer_segment, ".seg"),
    "snapshot": (newer_snapshot, ".snap"),
    "frame": (lambda data: change_last_frame(data, 0, 2), ".seg"),
    "record type": (lambda data: change_last_frame(data, 64, 200), ".seg"),
    "record version": (lambda data: change_last_frame(data, 65, 2), ".seg"),
}


@pytest.mark.parametrize("what", NEWER)
def test_data_of_a_newer_version(history, servers, what):
    """An old program on newer data refuses, says what to run, and changes nothing."""
    copy = copy_of(history[0], servers)
    change, name = NEWER[what]
    change(copy.data)
    before = bytes_of(copy.data)
    said = refused(copy)
    assert name in said and "newer" in said and "version" in said, said
    assert "corrupt" not in said and "backup" not in said, "it is no damage"
    assert bytes_of(copy.data) == before
    assert not [p for p in copy.children() if alive(p)]
