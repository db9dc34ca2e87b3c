#!/usr/bin/python3
"""Celery and RQ: pythons.py celery|rq PORT CLIENTS BATCH SECONDS WARMUP, or PORT fill TASKS.

One thread keeps as many tasks on their way as there are clients: more threads of Python would be slower. Celery's
results come as its backend publishes them; RQ's from the stream of results of each job, which one XREAD waits for.
The workers are theirs: `celery -A pythons worker`, `rq worker` with one process for several jobs (SimpleWorker)."""

import json
import os
import resource
import sys
import time

PAYLOAD = 256


def echo(payload):
    return payload


def celery_app(port):
    from celery import Celery
    app = Celery("pythons", broker=f"redis://127.0.0.1:{port}/0", backend=f"redis://127.0.0.1:{port}/1")
    app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, result_expires=3600, task_serializer="json",
                    broker_connection_retry_on_startup=True)
    app.task(name="echo")(echo)
    return app


if os.environ.get("PEER_PORT"):  # of Celery's worker, which imports this file
    app = celery_app(os.environ["PEER_PORT"])


class Celery:
    def __init__(self, port):
        self.app = celery_app(port)
        self.back = []

    def put(self, key, payload):
        # The callback fires when the result, its text included, has arrived.
        self.app.tasks["echo"].delay(payload).then(lambda result: self.back.append((key, result.result)))

    def come_back(self):
        self.back = []
        self.app.backend.result_consumer.drain_events(timeout=1)
        return self.back

    def fill(self, tasks):
        with self.app.producer_pool.acquire(block=True) as producer:
            for i in range(tasks):
                self.app.tasks["echo"].apply_async((f"{i}-".ljust(PAYLOAD, "x"),), producer=producer)


class Rq:
    def __init__(self, port):
        import redis
        import rq
        self.redis = redis.Redis(port=port)
        self.queue = rq.Queue("q", connection=self.redis)
        self.waiting = {}

    def put(self, key, payload):
        job = self.queue.enqueue("pythons.echo", payload, result_ttl=3600)
        self.waiting[f"rq:results:{job.id}".encode()] = key

    def come_back(self):
        found = self.redis.xread(dict.fromkeys(self.waiting, "0"), block=1000) or []
        return [(self.waiting.pop(stream), entries[0][1].get(b"return_value")) for stream, entries in found]

    def fill(self, tasks):
        for i in range(0, tasks, 1000):
            self.queue.enqueue_many([self.queue.prepare_data("pythons.echo", (f"{i + k}-".ljust(PAYLOAD, "x"),))
                                     for k in range(min(1000, tasks - i))])


def cpu_s():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return u.ru_utime + u.ru_stime


def measure(system, clients, seconds, warmup):
    put_at, samples, tasks, began = {}, [], 0, None

    def put(client):
        put_at[client] = time.monotonic()
        system.put(client, f"{client}-".ljust(PAYLOAD, "x"))

    for client in range(clients):
        put(client)
    started = None  # by the first that comes back: a worker's start takes seconds
    until = time.monotonic() + 60
    while True:
        back = system.come_back()
        now = time.monotonic()
        started = started or (back and now)
        if not started and now > until:
            sys.exit("no task came back")
        if began is None and started and now > started + warmup:
            print("begin", flush=True)
            began, cpu = time.monotonic(), cpu_s()
        elif began and now > began + seconds:
            break
        for client, result in back:
            if not result:
                sys.exit("no result")
            if began:
                samples.append(now - put_at[client])
                tasks += 1
            put(client)
    elapsed, cpu = time.monotonic() - began, cpu_s() - cpu
    print("end", flush=True)
    samples.sort()
    print(json.dumps({"tasks": tasks, "elapsed_s": elapsed, "tasks_per_s": tasks / elapsed, "client_cpu_s": cpu,
                      "p50_ms": samples[len(samples) // 2] * 1000, "p99_ms": samples[len(samples) * 99 // 100] * 1000}))


def main(name, port, *rest):
    system = {"celery": Celery, "rq": Rq}[name](int(port))
    if rest[0] == "fill":
        system.fill(int(rest[1]))
        print("filled", flush=True)
        sys.stdin.read()
    else:
        clients, _, seconds, warmup = map(float, rest)
        measure(system, int(clients), seconds, warmup)
    sys.stdout.flush()
    os._exit(0)  # their threads and connections need no farewell


if __name__ == "__main__":
    main(*sys.argv[1:])
