"""What is measured, in which words it is reported, and who drives it."""

import os
from dataclasses import dataclass
from pathlib import Path

import servers
from servers import CACHE, HERE

# name: clients, as many workers; tasks of a batch
SCENARIOS = {"one": (1, 1), "many": (64, 1), "batch": (32, 100)}

# What a queue for inference needs besides a round trip. "by hand": its users build it from what it has.
TRAITS = ("results", "HTTP", "events", "priorities", "delay", "retries", "deadline", "idempotency", "lease")


@dataclass
class System:
    name: str
    title: str
    server: type
    results: bool  # a result is stored, durable, and the client reads it
    traits: dict  # of TRAITS: what it does
    how: str  # is a task put, taken and acknowledged here
    source: str = ""  # of the generator in C
    variant: str = ""
    script: tuple = ()  # or in another language: argv
    needs: tuple = ()  # of bench/peers/install
    scenarios: tuple = tuple(SCENARIOS)
    fill_max: int = 10**9  # tasks in the queue from which its memory can be told; more would take too long
    synced: bool = True  # what it acknowledges has been synced

    @property
    def drive(self):
        if self.source:
            return self._drive_c
        return self._drive_script if self.script else None

    def _drive_c(self, server, clients, batch, seconds, warmup):
        return [str(CACHE / f"drive-{self.source}"), "--port", str(server.port), "--variant", self.variant, "--clients",
                str(clients), "--batch", str(batch), "--seconds", str(seconds), "--warmup", str(warmup)]

    def _drive_script(self, server, clients, batch, seconds, warmup):
        return [*self.script, str(server.port), str(clients), str(batch), str(seconds), str(warmup)]

    def fill(self, server, tasks):
        if self.source:
            return [str(CACHE / f"drive-{self.source}"), "--port", str(server.port), "--variant", self.variant,
                    "--clients", "1", "--fill", str(tasks)]
        return [*self.script, str(server.port), "fill", str(tasks)]

    def start_workers(self, server, clients):
        return []


def traits(text):
    return dict(zip(TRAITS, (t.strip() for t in text.split("|")), strict=True))


SYSTEMS = [
    System("headrace", "Headrace", servers.Headrace, True,
           traits("yes | yes | yes | yes | yes | yes | yes | yes | yes, and a late result is fenced off"),
           "`headrace serve`, its echo worker (one process for all) and `headrace bench`: `POST /v1/tasks` or "
           "`/v1/tasks:batch` with `Prefer: wait`, answered with the result"),
    System("redis-list", "Redis list", servers.Redis, True,
           traits("a key, by hand | no | by hand | by hand | by hand | by hand | by hand | by hand | by hand: a list a "
                  "worker, to be swept"),
           "RPUSH; BLMOVE to a list of the worker; SET with EX, PUBLISH and DEL, with the next BLMOVE in one write. "
           "Batches: RPUSH of 100, a script that moves 100", source="redis", variant="list", needs=("redis",)),
]
