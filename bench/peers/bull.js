// BullMQ: one process with the clients, one with the workers.
//   bull.js worker PORT CONCURRENCY
//   bull.js PORT CLIENTS BATCH SECONDS WARMUP
//   bull.js PORT fill TASKS
// A client adds a job, or a bulk of them, and waits for its event, which carries the result; the
// result also stays in the job. All clients share a connection, whose commands ioredis pipelines.
"use strict";
const path = require("node:path");
const { createRequire } = require("node:module");
const { Queue, QueueEvents, Worker } = createRequire(
    path.join(__dirname, ".cache/bullmq/package.json"))("bullmq");

const queueName = "q";
const connectionTo = (port) => ({ host: "127.0.0.1", port: Number(port), maxRetriesPerRequest: null });
const payload = (client, i) => `${client}-${i}-`.padEnd(256, "x");
const fail = (e) => { console.error(String(e)); process.exit(1); };

function work(port, concurrency) {
    const worker = new Worker(queueName, async (job) => job.data.p,
        { connection: connectionTo(port), concurrency: Number(concurrency) });
    worker.on("error", fail);
}

async function fill(port, tasks) {
    const queue = new Queue(queueName, { connection: connectionTo(port) });
    for (let left = Number(tasks); left > 0; left -= 1000)
        await queue.addBulk(Array.from({ length: Math.min(left, 1000) },
            (_, i) => ({ name: "t", data: { p: payload(0, i) } })));
    console.log("filled");
    process.stdin.on("end", () => process.exit(0)).resume();
}

async function measure(port, clients, batch, seconds, warmup) {
    const queue = new Queue(queueName, { connection: connectionTo(port) });
    const events = new QueueEvents(queueName, { connection: connectionTo(port) });
    await events.waitUntilReady();
    const waiting = new Map(); // id: what to do when it has come back
    const early = new Set(); // came back before its add was answered
    let measuring = false, tasks = 0;
    const samples = [];
    events.on("completed", ({ jobId, returnvalue }) => {
        if (!returnvalue) fail("no result");
        if (measuring) tasks++;
        const back = waiting.get(jobId);
        waiting.delete(jobId);
        if (back) back(); else early.add(jobId);
    });
    const comeBack = (id) => early.delete(id) ? null : new Promise((r) => waiting.set(id, r));

    async function client(index) {
        for (let n = 0; ; n++) {
            const begin = process.hrtime.bigint();
            const jobs = batch === 1
                ? [await queue.add("t", { p: payload(index, n) })]
                : await queue.addBulk(Array.from({ length: batch },
                    (_, i) => ({ name: "t", data: { p: payload(index, i) } })));
            await Promise.all(jobs.map((job) => comeBack(job.id)));
            if (measuring) samples.push(Number(process.hrtime.bigint() - begin) / 1e6);
        }
    }
    for (let i = 0; i < clients; i++) client(i).catch(fail);
    await new Promise((r) => setTimeout(r, warmup * 1000 + 500)); // the worker's start is in it
    console.log("begin");
    const from = process.cpuUsage(), begin = process.hrtime.bigint();
    measuring = true;
    await new Promise((r) => setTimeout(r, seconds * 1000));
    measuring = false;
    const elapsed = Number(process.hrtime.bigint() - begin) / 1e9, cpu = process.cpuUsage(from);
    console.log("end");
    samples.sort((a, b) => a - b);
    const at = (q) => samples.length ? samples[Math.floor((samples.length - 1) * q)] : 0;
    if (!tasks) fail("no task came back");
    console.log(JSON.stringify({ tasks, elapsed_s: elapsed, tasks_per_s: tasks / elapsed, p50_ms: at(0.5),
        p99_ms: at(0.99), client_cpu_s: (cpu.user + cpu.system) / 1e6 }));
    process.exit(0);
}

const args = process.argv.slice(2);
if (args[0] === "worker") work(args[1], args[2]);
else if (args[1] === "fill") fill(args[0], args[2]).catch(fail);
else measure(args[0], ...args.slice(1).map(Number)).catch(fail);
