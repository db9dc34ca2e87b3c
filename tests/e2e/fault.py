"""Faults at one exact place in a real server: the n-th call of a kind fails (shim/nth_call.c), and a kill takes what
was not synced with it, as a power cut does (shim/unsynced.c)."""

import errno
import mmap
import os
import shutil
import struct
from pathlib import Path

from server import HEADRACE

LIBRARIES = Path(HEADRACE).resolve().parent / "tests"


def preload(*envs):
    """The environments of several shims as one: the first is asked first."""
    env = {}
    for e in envs:
        libraries = [v for v in (env.get("LD_PRELOAD"), e.get("LD_PRELOAD")) if v]
        env |= e
        env["LD_PRELOAD"] = " ".join(libraries)
    return env


def library(name):
    path = LIBRARIES / name
    assert path.exists(), f"{path} is built with the tests: tools/build dev"
    return str(path)


# ---- the n-th call --------------------------------------------------------------------------------

CALLS = ("open", "read", "write", "sync", "allocate", "truncate", "rename", "unlink", "mkdir", "recv", "send", "accept",
         "memory", "mmap", "thread", "disk")
SHORT, KILL = 0, -1  # instead of an errno: half of it is done; the process ends there


class NthCall:
    """Makes calls of a server fail. `env` is for its environment; set() arms it, any time."""

    FIELDS = ("call", "nth", "count", "how", "failed", *CALLS)

    def __init__(self, folder):
        path = Path(folder) / "nth"
        path.write_bytes(bytes(8 * len(self.FIELDS)))
        with open(path, "r+b") as f:
            self._map = mmap.mmap(f.fileno(), 8 * len(self.FIELDS))
        self.env = {"LD_PRELOAD": library("nth_call.so"), "HEADRACE_NTH": str(path)}

    def _put(self, name, value):
        struct.pack_into("q", self._map, 8 * self.FIELDS.index(name), int(value))

    def get(self, name):
        """`failed`, or how many calls of a kind there were."""
        return struct.unpack_from("q", self._map, 8 * self.FIELDS.index(name))[0]

    def set(self, call, nth, how=errno.EIO, count=1):
        """From now on the n-th call of that kind fails, counted since the start of the first server."""
        self._put("nth", 0)
        for name, value in (("call", CALLS.index(call)), ("count", count), ("how", how), ("nth", nth)):
            self._put(name, value)

    def calm(self):
        self._put("nth", 0)


# ---- the power cut --------------------------------------------------------------------------------

WROTE, TRUNCATED, SYNCED, CREATED, RENAMED, UNLINKED, MADE_DIR = range(1, 8)
NAMES = (CREATED, RENAMED, UNLINKED, MADE_DIR)
ENTRY = struct.Struct("6Q")
SECTOR = 512


class Entry:
    def __init__(self, place, fields, data):
        self.place, self.data = place, data
        self.what, self.inode, self.at, self.len, self.before, _ = fields

    @property
    def names(self):
        return [os.fsdecode(n) for n in self.data.split(b"\0")[:-1]]


class Unsynced:
    """What a server's files would lose in a power cut. `env` is for its environment; cut() when it has ended."""

    def __init__(self, folder, data):
        self.place = Path(folder) / "unsynced"
        self.place.mkdir()
        self.cuts, self.undone = 0, 0
        self.env = {"LD_PRELOAD": library("unsynced.so"), "HEADRACE_UNSYNCED": str(self.place.resolve()),
                    "HEADRACE_UNSYNCED_DIR": str(Path(data).resolve())}

    def _entries(self):
        path, found = self.place / "journal", []
        data = path.read_bytes() if path.exists() else b""
        at = 0
        while at + ENTRY.size <= len(data):
            fields = ENTRY.unpack_from(data, at)
            end = at + ENTRY.size + fields[-1]
            if end > len(data):
                break  # the kill came while it was written: its change never was
            found.append(Entry(at, fields, data[at + ENTRY.size:end]))
            at = end
        return found

    def unsynced(self):
        """Entries that no sync covers, in order."""
        entries, covered = self._entries(), {}
        for e in entries:
            if e.what == SYNCED:
                covered[e.inode] = max(covered.get(e.inode, 0), e.at)

        def is_safe(e):
            folders = {RENAMED: (e.at, e.len), CREATED: (e.at,), UNLINKED: (e.at,), MADE_DIR: (e.at,)}
            return any(e.place < covered.get(i, 0) for i in folders.get(e.what, (e.inode,)))
        return [e for e in entries if e.what != SYNCED and not is_safe(e)]

    def cut(self, chance=None):
        """The power goes: all that was not synced is undone. With chance, a Random: any part of it (sectors of what
        was written; of what happened to names, the later part). Returns how many entries were undone."""
        lost = self.unsynced()
        kept = 0
        if chance:
            kept = chance.randrange(sum(e.what in NAMES for e in lost) + 1)
        late = [e for e in lost if e.what in NAMES][kept:]
        for e in reversed(lost):
            if e.what in NAMES:
                if e in late:
                    self._undo_name(e)
            elif not chance or e.what == WROTE or chance.random() < 0.5:
                self._undo_bytes(e, chance)
        shutil.rmtree(self.place)  # what is on the disk now has been there for ever
        self.place.mkdir()
        self.cuts += 1
        self.undone += len(lost)
        return len(lost)

    def _undo_bytes(self, e, chance):
        try:
            fd = os.open(self.place / str(e.inode), os.O_RDWR)
        except FileNotFoundError:
            return  # it had no name any more when it was written
        try:
            size = os.fstat(fd).st_size
            if e.what == TRUNCATED:
                os.pwrite(fd, e.data, e.at)
                os.ftruncate(fd, e.before)
            else:
                for at in range(e.at - e.at % SECTOR, e.at + e.len, SECTOR):
                    if chance and chance.random() < 0.5:
                        continue
                    start, end = max(at, e.at), min(at + SECTOR, e.at + e.len, size)
                    old = e.data[start - e.at:end - e.at] if end > start else b""
                    os.pwrite(fd, old + bytes(max(0, end - start - len(old))), start)
                if size > e.before and (not chance or chance.random() < 0.5):
                    os.ftruncate(fd, e.before)
        finally:
            os.close(fd)

    def _undo_name(self, e):
        names = e.names
        if e.what == MADE_DIR:
            shutil.rmtree(names[0], ignore_errors=True)
        elif e.what == CREATED and _inode(names[0]) == e.inode:
            os.unlink(names[0])
        elif e.what == RENAMED and _inode(names[1]) == e.inode:
            os.rename(names[1], names[0])
            if e.before:
                self._back(e.before, names[1])
        elif e.what == UNLINKED and _inode(names[0]) is None:
            self._back(e.inode, names[0])

    def _back(self, inode, name):
        if Path(name).parent.is_dir():
            os.link(self.place / str(inode), name)


def _inode(path):
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None
