"""Bad weather for the real processes: a clock that steps, a disk that is slow, full, failing or read-only.

The clock and a failing disk come from a preloaded library (shim/weather.c) that looks at a file which the test
writes. A full or read-only disk is a real one, a small tmpfs, where this process may mount; elsewhere the same
library stands in for it, so that the tests run on every machine.
"""

import contextlib
import errno
import mmap
import os
import struct
import subprocess
from pathlib import Path

from server import HEADRACE

LIBRARY = Path(HEADRACE).resolve().parent / "tests" / "weather.so"
S = 1_000_000_000


class Weather:
    """What the wall clock and the disk of a server do. `env` is for the server's environment."""

    FIELDS = ("clock_ns", "sync_ns", "sync_fail", "write_err", "room", "syncs", "failures")

    def __init__(self, folder, data):
        assert LIBRARY.exists(), f"{LIBRARY} is built with the tests: tools/build dev"
        path = Path(folder) / "weather"
        path.write_bytes(bytes(8 * len(self.FIELDS)))
        with open(path, "r+b") as f:
            self._map = mmap.mmap(f.fileno(), 8 * len(self.FIELDS))
        self.set(room=-1)
        self.env = {"LD_PRELOAD": str(LIBRARY), "HEADRACE_WEATHER": str(path),
                    "HEADRACE_WEATHER_DIR": str(Path(data).resolve())}

    def set(self, **fields):
        for name, value in fields.items():
            struct.pack_into("q", self._map, 8 * self.FIELDS.index(name), int(value))

    def get(self, name):
        return struct.unpack_from("q", self._map, 8 * self.FIELDS.index(name))[0]

    def step_clock(self, seconds):
        self.set(clock_ns=self.get("clock_ns") + int(seconds * S))


def _mount(*args):
    return subprocess.run(["mount", *map(str, args)], capture_output=True, check=False).returncode == 0


class SmallDisk:
    """A disk of its own for a data directory: `real` where this process may mount one."""

    def __init__(self, data, weather, size=8 << 20):
        self.data, self.weather, self.size = Path(data), weather, size
        self.data.mkdir(parents=True)
        self.real = "HEADRACE_NO_MOUNT" not in os.environ and os.geteuid() == 0 and \
            _mount("-t", "tmpfs", "-o", f"size={size},mode=700", "headrace-test", self.data)
        if not self.real:
            weather.set(room=size)

    def fill(self, leave=0):
        """Others take all that is left, but for about `leave` bytes."""
        if not self.real:
            self.weather.set(room=leave)
            return
        with open(self.data / "ballast", "ab", buffering=0) as f, contextlib.suppress(OSError):
            while f.write(bytes(4096)) == 4096:
                pass
        if leave:
            os.truncate(self.data / "ballast", os.path.getsize(self.data / "ballast") - leave)

    def free(self):
        if self.real:
            (self.data / "ballast").unlink()
        else:
            self.weather.set(room=self.size)

    def read_only(self, yes):
        """For the next start: files that are open for writing keep a mount as it is."""
        if self.real:
            assert _mount("-o", "remount,ro" if yes else "remount,rw", self.data)
        else:
            self.weather.set(write_err=errno.EROFS if yes else 0)

    def close(self):
        if self.real:
            subprocess.run(["umount", "-l", str(self.data)], capture_output=True, check=False)
