"""Every kind of call of the server fails once at its n-th time, for n = 1, 2, 3 ... until the whole of fault_life.py
passes without meeting it; and the power fails at the n-th change of a file.

    HEADRACE_FAULTS=all pytest tests/e2e/test_fault_calls.py        every n (memory: a sample); minutes
    HEADRACE_FAULTS=write:ENOSPC:17 pytest -s ...                   that one

Without it: a sample by the seed, within BUDGET_S. After each failure the process goes on, or ends with a clear
message; a restart has everything that was acknowledged. Nothing hangs."""

import errno
import itertools
import os
import random
import shutil
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

from fault import KILL, SHORT, NthCall, Unsynced, preload
from fault_life import CONFIG, Life, name_of
from server import Server, alive

WANTED = os.environ.get("HEADRACE_FAULTS", "")
SEED = int(os.environ.get("HEADRACE_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
BUDGET_S = 30
AT_ONCE = 2
MEMORY_SAMPLE = 300  # of some 16,000 allocations, most of them in the libraries' beginnings

HOWS = {
    "open": ("EMFILE", "EIO", "ENOSPC"),
    "read": ("EIO", "EINTR", "SHORT"),
    "write": ("EIO", "ENOSPC", "SHORT", "EINTR"),
    "sync": ("EIO",),
    "allocate": ("ENOSPC", "EOPNOTSUPP", "EINTR"),
    "truncate": ("EIO",),
    "rename": ("EIO", "ENOSPC"),
    "unlink": ("EIO",),
    "mkdir": ("ENOSPC",),
    "recv": ("ECONNRESET", "EINTR", "SHORT"),
    "send": ("EPIPE", "EINTR", "SHORT"),
    "accept": ("EMFILE", "ECONNABORTED", "EINTR"),
    "memory": ("ENOMEM",),
    "mmap": ("ENOMEM",),
    "thread": ("EAGAIN",),
    "disk": ("CUT", "TORN", "KILL"),
}
HOW = {"SHORT": SHORT, "KILL": KILL, "CUT": KILL, "TORN": KILL}


def one(folder, call, how, n):
    """One life with one fault: (was it met?, the problems)."""
    folder = folder / name_of(call, how, n)
    folder.mkdir()
    chance = random.Random(f"{call}-{how}-{n}")
    nth, unsynced = NthCall(folder), Unsynced(folder, folder / "s" / "data")
    cuts = how in ("CUT", "TORN")
    env = preload(nth.env, unsynced.env) if cuts else nth.env
    count = chance.choice((1, 1, 2, 5)) if call not in ("memory", "disk") else 1
    nth.set(call, n, HOW[how] if how in HOW else getattr(errno, how), count)
    with Server(folder / "s", CONFIG, env=env) as server:
        life = Life(server, history=n % 3 != 0, spill=n % 4 == 0)
        life.run(may_be_killed=call == "disk", may_abort=call in ("read", "memory", "mmap", "thread"))
        met = nth.get("failed") > 0
        for pid in server.ours:
            wait_for_end(pid)
        if met and cuts:
            unsynced.cut(chance if how == "TORN" else None)
        nth.calm()
        if met or life.problems:
            life.check()
    if not life.problems:
        shutil.rmtree(folder)
    what = f"HEADRACE_FAULTS={call}:{how}:{n} ({folder})"
    return met, [f"{what}: {p}" for p in life.problems]


def wait_for_end(pid):
    end = time.monotonic() + 10
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)


def everything(folder, call, how, pool):
    """n = 1, 2, 3 … until it is not met. (how many were, the problems)"""
    met_n, problems = 0, []
    for first in itertools.count(1, 16):
        done = list(pool.map(lambda n: one(folder, call, how, n), range(first, first + 16)))
        met_n += sum(met for met, _ in done)
        problems += [p for _, some in done for p in some]
        if not all(met for met, _ in done):
            return met_n, problems


def counts(folder):
    """How many calls of each kind a life without faults has."""
    folder = folder / "calm"
    folder.mkdir()
    nth = NthCall(folder)
    with Server(folder / "s", CONFIG, env=nth.env) as server:
        life = Life(server)
        life.run()
        seen = {call: nth.get(call) for call in HOWS}
        assert not life.check(), life.problems
    return seen


def sample(seen, chance):
    """Faults without end: each kind in turn, half of them among its first 40 calls."""
    while True:
        for call, hows in HOWS.items():
            last = max(1, seen[call])
            yield call, chance.choice(hows), chance.randint(1, min(last, 40) if chance.random() < 0.5 else last)


def run_sample(folder, seen, pool):
    """Until the time is over: ({call: met}, the problems)."""
    faults, end = sample(seen, random.Random(SEED)), time.monotonic() + BUDGET_S
    met, problems, done, lock = defaultdict(int), [], set(), threading.Lock()

    def work(_):
        while time.monotonic() < end and not problems:
            with lock:
                fault = next(faults)
                is_new = fault not in done
                done.add(fault)
            if not is_new:
                continue
            was_met, some = one(folder, *fault)
            met[fault[0]] += was_met
            problems.extend(some)

    list(pool.map(work, range(AT_ONCE)))
    return met, problems


def test_the_nth_call_fails(tmp_path):
    begin = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        if WANTED.count(":") == 2:
            call, how, n = WANTED.split(":")
            met, problems = one(tmp_path, call, how, int(n))
            print("met" if met else "not met")
        elif WANTED:
            problems = run_all(tmp_path, pool)
        else:
            print(f"\nHEADRACE_SEED={SEED}")
            met, problems = run_sample(tmp_path, counts(tmp_path), pool)
            print(f"{sum(met.values())} faults in {time.monotonic() - begin:.0f} s: {dict(met)}")
    assert not problems, "\n".join(problems)


def run_all(folder, pool):
    """Every kind, or the one that is named; says a line each."""
    problems = []
    for call, hows in HOWS.items():
        for how in hows:
            if WANTED not in ("all", call, f"{call}:{how}"):
                continue
            begin = time.monotonic()
            if call == "memory":
                last, chance = counts(folder)[call], random.Random(SEED)
                ns = sorted({*range(1, 20), *(chance.randint(1, last) for _ in range(MEMORY_SAMPLE))})
                done = list(pool.map(lambda n: one(folder, "memory", "ENOMEM", n), ns))
                met, some = sum(met for met, _ in done), [p for _, ps in done for p in ps]
            else:
                met, some = everything(folder, call, how, pool)
            problems += some
            print(f"{call}:{how}: {met} failures, {len(some)} problem(s), {time.monotonic() - begin:.0f} s",
                  flush=True)
            for p in some:
                print(p[:1500], flush=True)
    return problems
