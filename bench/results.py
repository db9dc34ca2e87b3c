#!/usr/bin/python3
"""bench/results.py FOLDER DATA BINARY: what bench/run measured, as the Markdown of RESULTS.md on stdout.

FOLDER holds ROUND-NAME.json, the answers of `headrace bench --json`; NAME.command, the command lines; load."""

import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path


def row(document, scenario):
    """The last row of that name; None when the disk was slow meanwhile, or there is none."""
    found = [r for r in document["rows"] if r["scenario"] == scenario]
    return found[-1] if found and found[-1]["comparable"] else None


# What is measured: file, row, where its value lies, its bars, how it is written; more: larger is better.
MEASURES = [
    ("Durable submits, 64 connections, a task a request", "submit", "submit", "tasks_per_s", 60000, 80000, "{:,.0f}/s",
     True),
    ("Full round trip, 64 clients, each one `Prefer: wait` request a task", "roundtrip", "roundtrip", "tasks_per_s",
     25000, 30000, "{:,.0f}/s", True),
    ("Full round trips by `tasks:batch` of 100", "batch", "batch", "tasks_per_s", 120000, 200000, "{:,.0f}/s", True),
    ("One client's submit, p50, beyond one fdatasync", "latency", "latency submit", "beyond_fdatasync_ms", 0.15, 0.05,
     "{:.3f} ms", False),
    ("Submit to result through an idle echo worker, p50, beyond two fdatasyncs", "latency", "latency result",
     "beyond_fdatasync_ms", 1, 0.4, "{:.3f} ms", False),
    ("Memory of the server, a million queued tasks of 256 bytes", "memory", "memory", "rss_mb", 280, 150, "{:.0f} MB",
     False),
    ("Start with a million queued tasks", "memory", "restart", "ready_s", 2, 0.5, "{:.2f} s", False),
    ("Device busy while diffusion work waits", "busy", "busy", "busy_percent", 97, 99, "{:.1f} %", True),
    ("Server CPU per task, ten million queued against ten thousand, without snapshots", "backlog", "backlog long",
     "cost_ratio_lasting", 1.2, 1.05, "{:.2f}x", False),
    ("The same with the snapshots that fell into the measured time", "backlog", "backlog long", "cost_ratio", None,
     None, "{:.2f}x", False),
    ("Server CPU seconds per 1,000 round trips, 64 clients", "roundtrip", "roundtrip", "server_cpu_s_per_1000", 0.037,
     0.025, "{:.4f}", False),
]


def value(found, key):
    if key == "rss_mb":
        return found["rss_bytes"] / 1e6
    if key == "busy_percent":
        return found["busy_share"] * 100
    return found.get(key)


def read(folder):
    """{name: [document, …]}, in the order in which they were measured."""
    documents = {}
    for path in sorted(folder.glob("*-*.json"), key=lambda p: p.stat().st_mtime_ns):
        documents.setdefault(path.stem.split("-", 1)[1], []).append(json.loads(path.read_text()))
    return documents


def bar(limit, form, more):
    return "" if limit is None else f"{'≥' if more else '≤'} {form.format(limit)}"


def table(documents):
    lines = ["| measure | required | stretch | median | min..max | |", "| --- | --- | --- | --- | --- | --- |"]
    for name, file, scenario, key, required, stretch, form, more in MEASURES:
        if file not in documents:
            continue
        rows = [row(d, scenario) for d in documents[file]]
        values = [v for r in rows if r for v in [value(r, key)] if v is not None]
        bars = f"| {name} | {bar(required, form, more)} | {bar(stretch, form, more)} "
        if not values:
            lines.append(bars + "| | | no comparable run: the disk was slow |")
            continue
        median = statistics.median(values)
        reached = [limit for limit in (required, stretch)
                   if limit is not None and (median >= limit if more else median <= limit)]
        verdict = "" if required is None else ("missed", "reached", "**stretch**")[len(reached)]
        if len(values) < len(rows):
            verdict += f" ({len(values)} of {len(rows)} runs; else the disk was slow)"
        lines.append(bars + f"| {form.format(median)} | {form.format(min(values))}..{form.format(max(values))} "
                            f"| {verdict} |")
    return lines


def details(documents):
    """Every comparable run's latencies and CPU."""
    lines = ["| scenario | runs | tasks/s | p50 ms | p99 ms | p99.9 ms | server CPU s/1,000 | worker CPU s/1,000 |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for file in documents:
        for scenario in dict.fromkeys(r["scenario"] for r in documents[file][0]["rows"]):
            rows = [r for r in (row(d, scenario) for d in documents[file]) if r]

            def median(take, form, rows=rows):
                values = [v for v in map(take, rows) if v is not None]
                return form.format(statistics.median(values)) if values else ""

            cells = [median(lambda r: r.get("tasks_per_s"), "{:,.0f}")]
            cells += [median(lambda r, p=p: r.get("latency_ms", {}).get(p), "{:.3f}") for p in ("p50", "p99", "p999")]
            cells += [median(lambda r, k=k: r.get(k), "{:.4f}")
                      for k in ("server_cpu_s_per_1000", "worker_cpu_s_per_1000")]
            if any(cells):
                lines.append(f"| {scenario} | {len(rows)} | " + " | ".join(cells) + " |")
    return lines


def run(*command):
    p = subprocess.run(command, capture_output=True, text=True, check=False)
    return p.stdout.strip() if p.returncode == 0 else ""


def machine(documents, data, binary, folder):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    syncs = [r["fdatasync_ms"]["p50"] for ds in documents.values() for d in ds for r in d["rows"]
             if r["comparable"] and "fdatasync_ms" in r]
    loads = [line.split()[0] for line in (folder / "load").read_text().splitlines()]
    commit = run("git", "rev-parse", "--short=12", "HEAD")
    changed = " with changes" if run("git", "status", "--porcelain", "src") else ""
    facts = [
        ("date", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        ("program", f"{run(binary, 'version').splitlines()[0]}, commit {commit or 'unknown'}{changed}"),
        ("processor", f"{cpu[1].strip() if cpu else platform.machine()}, {os.cpu_count()} cores, shared by server, "
                      "worker and generator"),
        ("memory", f"{int(memory[1]) / 1048576:.0f} GiB" if memory else "unknown"),
        ("system", f"{platform.system()} {platform.release()}"),
        ("file system of the data", run("stat", "-f", "-c", "%T", data) or "unknown"),
        ("fdatasync of 4 KiB there, p50", f"{statistics.median(syncs):.3f} ms ({min(syncs):.3f}..{max(syncs):.3f})"
         if syncs else "slow throughout"),
        ("load average before each round", ", ".join(loads)),
    ]
    return ["| | |", "| --- | --- |"] + [f"| {a} | {b} |" for a, b in facts]


def main():
    folder, data, binary = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    documents = read(folder)
    rounds = max(len(d) for d in documents.values())
    commands = [(folder / f"{name}.command").read_text().strip() for name in documents]
    print("\n".join([
        "# Results", "",
        f"Written by `bench/run`: medians of {rounds} interleaved round{'s' if rounds > 1 else ''}. Client, server and "
        "worker share the machine;", "ratios mean more than figures, and figures of another machine nothing.", "",
        *table(documents), "",
        "A run is left out when the disk was slow in it: an fdatasync of 4 KiB took over 2 ms before, after or within.",
        "", "## What else was seen", "", *details(documents), "",
        "Latencies of closed loops, as they were; `headrace bench --rate R` measures open ones.", "",
        "## The machine", "", *machine(documents, data, binary, folder), "",
        "## How", "", *(f"    {c}" for c in commands), "",
        "Each starts a fresh server of its own. What the scenarios do: `headrace bench --help`.",
    ]))


if __name__ == "__main__":
    main()
