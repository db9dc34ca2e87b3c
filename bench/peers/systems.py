"""What is measured, in which words it is reported, and who drives it."""

import os
from dataclasses import dataclass

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
    software: object = None  # on top of the server: its version
    workers: object = None  # starts worker processes: server, clients, batch

    def version(self):
        on = self.server.version()
        return f"{self.software()} on {on}" if self.software else on

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
                    "--clients", "8", "--fill", str(tasks)]
        return [*self.script, str(server.port), "fill", str(tasks)]

    def start_workers(self, server, clients, batch):
        """Those that are processes of their own."""
        return self.workers(server, clients, batch) if self.workers else []


def packaged(package, title):
    return lambda: f"{title} {servers.output('dpkg-query', '-W', '-f', '${Version}', package).split('-')[0]}"


def bullmq_version():
    pin = CACHE / "bullmq/pin"
    if not pin.exists():
        raise servers.Unavailable("BullMQ is not installed; see bench/peers/.cache/npm.log")
    return "BullMQ " + pin.read_text().split()[0].split("@")[1]


def bullmq_workers(server, clients, batch):
    return [servers.spawn(["node", HERE / "bull.js", "worker", str(server.port), str(max(clients, batch))],
                          server.folder / "worker.log")]


def celery_workers(server, clients, batch):
    env = dict(os.environ, PEER_PORT=str(server.port), PYTHONDONTWRITEBYTECODE="1")
    return [servers.spawn(["/usr/bin/python3", "-m", "celery", "-A", "pythons", "worker", "-c", str(min(clients, 2)),
                           "-l", "error", "--without-gossip", "--without-mingle", "--without-heartbeat"],
                          server.folder / "worker.log", env=env, cwd=HERE)]


def rq_workers(server, clients, batch):
    env = dict(os.environ, PYTHONPATH=str(HERE), PYTHONDONTWRITEBYTECODE="1")
    return [servers.spawn(["/usr/bin/python3", "-m", "rq.cli", "worker", "-q", "-u",
                           f"redis://127.0.0.1:{server.port}/0", "-w", "rq.SimpleWorker", "q"],
                          server.folder / "worker.log", env=env, cwd=server.folder) for _ in range(min(clients, 2))]


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
    System("redis-stream", "Redis stream", servers.Redis, True,
           traits("a key, by hand | no | by hand | by hand | by hand | counted, by hand | by hand | by hand | "
                  "XAUTOCLAIM, asked for by hand"),
           "XADD; XREADGROUP; SET with EX, PUBLISH, XACK and XDEL, with the next XREADGROUP in one write. Batches: 100 "
           "XADDs in one write, COUNT 100", source="redis", variant="stream", needs=("redis",)),
    System("rabbitmq-classic", "RabbitMQ classic", servers.Rabbit, False,
           traits("no | no | no | yes | by a second queue | without a limit | expires in the queue | no | "
                  "the connection, or 30 min"),
           "persistent publish, confirm; delivery with a prefetch of 1 (100 in batches); basic.ack, which is not "
           "answered", source="rabbitmq", variant="classic", needs=("rabbitmq",)),
    System("rabbitmq-quorum", "RabbitMQ quorum", servers.Rabbit, False,
           traits("no | no | no | no | by a second queue | yes | expires in the queue | no | "
                  "the connection, or 30 min"),
           "the same on a quorum queue of one node", source="rabbitmq", variant="quorum", needs=("rabbitmq",)),
    System("postgres", "PostgreSQL", servers.Postgres, True,
           traits("a column | no | NOTIFY, by hand | by hand | by hand | by hand | by hand | unique index, by hand | "
                  "by hand: a column, to be swept"),
           "INSERT; UPDATE of rows selected with SKIP LOCKED; UPDATE with the result in one transaction with the next "
           "take; SELECT of the result. Batches: a statement for 100. Workers and clients are told for nothing when "
           "to ask", source="postgres", needs=("postgres",)),
    System("beanstalkd", "beanstalkd", servers.Beanstalkd, False,
           traits("no | no | no | yes | yes | by the worker | no | no | yes: time to run"),
           "put; reserve; delete. It has no batches: 100 puts in one write", source="beanstalkd",
           needs=("beanstalkd",)),
    System("nats", "NATS JetStream", servers.Nats, False,
           traits("no | no | advisories, not stored | no | after a failure | yes | by stream | by name, for 2 min | "
                  "yes: ack wait"),
           "publish with the stream's answer; pull consumer; +NXT, which is not answered. Batches: 100 publishes in "
           "one write, pulls of 100", source="nats", needs=("nats",)),
    System("bullmq", "BullMQ", servers.Redis, True,
           traits("yes | no | yes | yes | yes | yes | no | by its id | yes: a lock, renewed"),
           "`queue.add`, its event with the result; a worker with a concurrency of 64 (1 alone, 100 in batches). "
           "Batches: `addBulk` of 100", script=("node", str(HERE / "bull.js")), needs=("bullmq",),
           software=bullmq_version, workers=bullmq_workers, fill_max=100000),
    System("celery", "Celery", servers.Redis, True,
           traits("yes | no | not stored | emulated | in a worker's memory | yes | expires in the queue | no | "
                  "visibility time-out, 1 h"),
           "`delay` with acks_late, results in Redis; two worker processes (one for one client)",
           script=("/usr/bin/python3", str(HERE / "pythons.py"), "celery"), needs=("celery",),
           scenarios=("one", "many"), software=packaged("python3-celery", "Celery"), workers=celery_workers,
           fill_max=20000),
    System("rq", "RQ", servers.Redis, True,
           traits("yes | no | no | by queues | yes | yes | of one run | no | the worker's heartbeat"),
           "`enqueue`, the job's stream of results; two SimpleWorkers (one for one client)",
           script=("/usr/bin/python3", str(HERE / "pythons.py"), "rq"), needs=("rq",), scenarios=("one", "many"),
           software=packaged("python3-rq", "RQ"), workers=rq_workers, fill_max=20000),
]
