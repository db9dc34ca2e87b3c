"""What bench/peers/run measured, as the section "Beside the peers" of bench/RESULTS.md, and as a plot of bars."""

import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
from html import escape
from pathlib import Path

from systems import SYSTEMS, TRAITS

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "RESULTS.md"
BEGIN, END = "<!-- bench/peers/run: begin -->", "<!-- bench/peers/run: end -->"
OURS = "headrace"


# ---- figures ----

class Figures:
    """The rows of a run, and medians over its rounds; rounds with a slow disk count only when there are no others."""

    def __init__(self, results):
        self.results = results
        found = results["systems"]
        self.systems = [s for s in SYSTEMS if any(found.get(s.name, {}).get("rows", {}).values())]
        self.systems.sort(key=lambda s: (s.name != OURS, -(self.median(s.name, "many", "tasks_per_s") or 0)))

    def rows(self, name, scenario):
        rows = self.results["systems"].get(name, {}).get("rows", {}).get(scenario, [])
        return [r for r in rows if not r["slow"]] or rows

    def values(self, name, scenario, key):
        if key == "memory":
            memory = self.results["systems"].get(name, {}).get("memory")
            return [memory["bytes"] / 1e6] if memory else []
        return [r[key] for r in self.rows(name, scenario) if r.get(key) is not None]

    def median(self, name, scenario, key):
        values = self.values(name, scenario, key)
        return statistics.median(values) if values else None

    def best(self, scenario, key, more, only_results):
        """The peer to beat."""
        peers = [(self.median(s.name, scenario, key), s) for s in self.systems
                 if s.name != OURS and (s.results or not only_results)]
        peers = [p for p in peers if p[0] is not None]
        return (max if more else min)(peers, key=lambda p: p[0])[1] if peers else None

    def ratios(self, peer, scenario, key):
        """Ours to the peer's, round by round."""
        if key == "memory":
            ours, theirs = self.values(OURS, scenario, key), self.values(peer, scenario, key)
        else:
            rows = [self.results["systems"][n]["rows"].get(scenario, []) for n in (OURS, peer)]
            pairs = list(zip(*rows, strict=False))
            pairs = [p for p in pairs if not (p[0]["slow"] or p[1]["slow"])] or pairs
            ours, theirs = [p[0][key] for p in pairs], [p[1][key] for p in pairs]
        return [a / b for a, b in zip(ours, theirs, strict=False) if b]

    def slow_share(self):
        rows = [r for s in self.systems for rs in self.results["systems"][s.name]["rows"].values() for r in rs]
        return sum(r["slow"] for r in rows), len(rows)


# name, scenario, key, unit, required, stretch, larger is better, only peers with results
TARGETS = [
    ("Full round trips, 64 clients, a task a request", "many", "tasks_per_s", "{:,.0f}/s", 1.25, 1.5, True, False),
    ("Full round trips by batches of 100", "batch", "tasks_per_s", "{:,.0f}/s", 1.5, 2.5, True, False),
    ("Server CPU seconds a thousand round trips, 64 clients", "many", "server_cpu", "{:.4f}", 1, None, False, True),
    ("Memory, a million queued", "many", "memory", "{:,.0f} MB", 1, None, False, True),
]


def targets(f):
    lines = ["| measure | Headrace | the best synced peer | ratio | min..max | required | stretch | |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name, scenario, key, form, required, stretch, more, only_results in TARGETS:
        peer, ours = f.best(scenario, key, more, only_results), f.median(OURS, scenario, key)
        if not peer or ours is None:
            lines.append(f"| {name} | | | | | | | not measured |")
            continue
        ratios = f.ratios(peer.name, scenario, key)
        ratio = statistics.median(ratios)
        if more:
            verdict = "**stretch**" if stretch and ratio >= stretch else "reached" if ratio >= required else "missed"
        else:
            verdict = "reached" if ratio < required else "missed"
        bars = [f"≥ {required:.2f}x", f"≥ {stretch:.2f}x"] if more else ["below it", ""]
        lines.append(f"| {name} | {form.format(ours)} | {peer.title}{' (with results)' if only_results else ''}: "
                     f"{form.format(f.median(peer.name, scenario, key))} | {ratio:.2f}x | "
                     f"{min(ratios):.2f}x..{max(ratios):.2f}x | {bars[0]} | {bars[1]} | {verdict} |")
    return lines


def spread(values, form):
    if not values:
        return ""
    text = form.format(statistics.median(values))
    low, high = form.format(min(values)), form.format(max(values))
    return text if low == high else f"{text} ({low}..{high})"


def rate_table(f):
    lines = ["| system | results | 1 client, 1 worker | p50, p99 ms | 64 and 64 | Headrace to it | 32 and 32, "
             "batches of 100 | Headrace to it |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for s in f.systems:
        def rate(scenario, s=s):
            return spread(f.values(s.name, scenario, "tasks_per_s"), "{:,.0f}")

        def beside(scenario, s=s):
            ratios = [] if s.name == OURS else f.ratios(s.name, scenario, "tasks_per_s")
            return f"{statistics.median(ratios):.2f}x" if ratios else ""

        latency = [f.median(s.name, "one", k) for k in ("p50_ms", "p99_ms")]
        title = f"**{s.title}**" if s.name == OURS else s.title
        lines.append(f"| {title} | {'yes' if s.results else 'no'} | {rate('one')} | "
                     f"{', '.join(f'{v:.2f}' for v in latency if v is not None)} | {rate('many')} | {beside('many')} | "
                     f"{rate('batch')} | {beside('batch')} |")
    return lines


def cost_table(f):
    lines = ["| system | server CPU s a 1,000, 64 and 64 | in batches | workers and clients, 64 and 64 | a million "
             "queued, MB | syncs a task, one client |", "| --- | --- | --- | --- | --- | --- |"]
    for s in f.systems:
        others = [r["generator_cpu"] + r["worker_cpu"] for r in f.rows(s.name, "many")]
        memory = f.results["systems"][s.name].get("memory")
        cell = f"{memory['bytes'] / 1e6:,.0f}" if memory else ""
        if memory and memory["tasks"] != memory["of"]:
            cell = f"~{cell} (from {memory['tasks']:,})"
        title = f"**{s.title}**" if s.name == OURS else s.title
        lines.append(f"| {title} | {spread(f.values(s.name, 'many', 'server_cpu'), '{:.4f}')} | "
                     f"{spread(f.values(s.name, 'batch', 'server_cpu'), '{:.4f}')} | {spread(others, '{:.4f}')} | "
                     f"{cell} | {spread(f.values(s.name, 'one', 'flushes'), '{:.1f}')} |")
    return lines


def trait_table(f):
    heads = {"results": "keeps results", "HTTP": "HTTP", "events": "progress, events", "priorities": "priorities",
             "delay": "delay", "retries": "retries, limited", "deadline": "deadline", "idempotency": "once by a key",
             "lease": "a dead worker's task comes back"}
    lines = ["| system | " + " | ".join(heads[t] for t in TRAITS) + " |", "| --- |" + " --- |" * len(TRAITS)]
    lines += [f"| {s.title} | " + " | ".join(s.traits[t] for t in TRAITS) + " |" for s in f.systems]
    return lines


def how_table(f):
    found = f.results["systems"]
    lines = ["| system | version | durability, as it was checked | a round trip |", "| --- | --- | --- | --- |"]
    lines += [f"| {s.title} | {found[s.name]['version']} | {found[s.name].get('durability', '')} | {s.how} |"
              for s in f.systems]
    return lines


def run(*command):
    p = subprocess.run(command, capture_output=True, text=True, check=False)
    return p.stdout.strip() if p.returncode == 0 else ""


def machine(folder, binary):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    commit = run("git", "-C", str(HERE), "rev-parse", "--short=12", "HEAD")
    system = re.search(r'PRETTY_NAME="(.*)"', Path("/etc/os-release").read_text())
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "program": f"{run(binary, 'version').splitlines()[0]}, commit {commit or 'unknown'}",
        "processor": f"{cpu[1].strip() if cpu else platform.machine()}, {os.cpu_count()} cores, shared by server, "
                     "workers and generator",
        "memory": f"{int(memory[1]) / 1048576:.0f} GiB" if memory else "unknown",
        "system": f"{system[1] if system else ''}, {platform.system()} {platform.release()}",
        "file system of the data": run("stat", "-f", "-c", "%T", str(folder)),
    }


def notes(f):
    slow, rows = f.slow_share()
    lines = []
    if slow:
        lines.append(f"**{slow} of {rows} measurements had a slow disk (an fdatasync of 4 KiB took over 2 ms) and "
                     "count only where there is no other: figures to be repeated.**")
    for name, why in f.results.get("left_out", {}).items():
        lines.append(f"- Left out: {next(s.title for s in SYSTEMS if s.name == name)}: {' '.join(why.split())[:200]}")
    for s in f.systems:
        for scenario, why in f.results["systems"][s.name].get("failed", {}).items():
            lines.append(f"- {s.title}, {scenario}: {' '.join(why.split())[:200]}")
    return [*lines, ""] if lines else []


def section(results):
    f = Figures(results)
    probes = results["probes"]
    n = results["rounds"]
    facts = results["machine"] | {
        "fdatasync of 4 KiB there, p50": f"{statistics.median(probes):.3f} ms ({min(probes):.3f}..{max(probes):.3f})",
        "load average before each round": ", ".join(map(str, results.get("loads", []))),
        "command": f"`{results['command']}`, {results['took_s'] / 60:.0f} minutes"}
    return "\n".join([
        BEGIN, "## Beside the peers", "",
        f"Written by `bench/peers/run`: medians of {n} interleaved round{'s' if n > 1 else ''} of "
        f"{results['seconds']:g} s each (min..max). A task of 256 bytes is put, taken under a lease and acknowledged, "
        "each synced before it is answered; where a system keeps results, one of 256 bytes is stored and its client "
        "reads it. Ratios are taken round by round.", "",
        *notes(f), *targets(f), "", "![Bars of the figures below](peers/plot.svg)", "",
        "### Tasks a second", "", *rate_table(f), "",
        "### What it costs", "", *cost_table(f), "",
        "CPU is user and system time of all processes of the server. \"Workers and clients\" are the load generator "
        "and, for Headrace, BullMQ, Celery and RQ, worker processes of their own. Memory is the server's, as PSS "
        "(Headrace: RSS), after the queue was filled; for it alone Redis, PostgreSQL, beanstalkd and NATS were filled "
        "without syncing. Syncs are cache flushes of the whole disk, so other programs' too.", "",
        "### What each does not do", "", *trait_table(f), "",
        "No peer has HTTP in its path; Headrace always has, and keeps each task's history besides. RabbitMQ and "
        "NATS do not answer an acknowledgement, so that theirs costs no round trip; a classic queue of RabbitMQ "
        "may confirm a message that was delivered and acknowledged before it was ever synced. \"By hand\": its "
        "users build it from what it has.", "",
        "### How", "", *how_table(f), "",
        "The generator is one thread of C on epoll with a connection a client and a worker; BullMQ, Celery and RQ are "
        "used from their own languages, with all clients in one process. All over TCP on loopback.", "",
        "| | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in facts.items()), END, ""])


# ---- the plot ----

NAMES, PANEL, LONGEST, GAP, ROW, BAR = 148, 180, 132, 14, 30, 18
TOP, BOTTOM, PAD = 118, 44, 24
INK, SOFT, RULE = "#1c2430", "#5b6675", "#e3e7ec"
COLORS = {"ours": "#0f766e", "results": "#7c8aa0", "none": "#c3cbd6"}
PANELS = [
    ("1 client, 1 worker", "tasks/s", "one", "tasks_per_s", True),
    ("64 clients, 64 workers", "tasks/s", "many", "tasks_per_s", True),
    ("Batches of 100", "tasks/s", "batch", "tasks_per_s", True),
    ("Server CPU, 64 and 64", "s a 1,000 tasks", "many", "server_cpu", False),
    ("A million queued", "MB of memory", "many", "memory", False),
]


def short(value):
    if value >= 10000:
        return f"{value / 1000:,.1f}k" if value < 100000 else f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}" if value >= 1 else f"{value:.3f}"


def text(x, y, words, size=12, color=INK, anchor="start", weight=400):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{escape(words)}</text>')


def bar_of(x, y, values, scale_max, color, ours):
    """A bar to the median, its spread as a line, its value behind; torn when it would not fit."""
    value = statistics.median(values)
    width = max(min(value / scale_max, 1) * LONGEST, 1.5)
    out = [f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BAR}" rx="2" fill="{color}"/>']
    low, high = (x + min(v / scale_max, 1) * LONGEST for v in (min(values), max(values)))
    if value > scale_max:  # two white strokes
        out += [f'<path d="M{x + width - 22 + 5 * i:.1f} {y + BAR + 2} l6 -{BAR + 4}" stroke="#fff" stroke-width="2"/>'
                for i in (0, 1)]
    elif high - low > 1.5:
        middle = y + BAR / 2
        out.append(f'<path d="M{low:.1f} {middle - 3} v6 m0 -3 H{high:.1f} m0 -3 v6" fill="none" stroke="{INK}" '
                   'stroke-width="1.2" opacity=".7"/>')
    return [*out, text(max(x + width, high) + 6, y + 13.5, short(value), 12, INK, "start", 700 if ours else 400)]


def scale_of(f, scenario, key, more):
    """The longest bar's value. Where less is better and a few would dwarf the rest, they are torn."""
    medians = sorted(m for s in f.systems if (m := f.median(s.name, scenario, key)) is not None)
    if more or len(medians) < 4:
        return max((v for s in f.systems for v in f.values(s.name, scenario, key)), default=1)
    ours = f.median(OURS, scenario, key) or medians[0]
    return min(medians[-1], max(ours * 14, medians[len(medians) // 2]))


def plot(results):
    f = Figures(results)
    width = PAD * 2 + NAMES + len(PANELS) * (PANEL + GAP) - GAP
    height = TOP + len(f.systems) * ROW + BOTTOM
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           'font-family="DejaVu Sans, Verdana, sans-serif" role="img" '
           'aria-label="Headrace beside its peers: tasks a second, CPU and memory">',
           f'<rect width="{width}" height="{height}" fill="#fff"/>',
           text(PAD, 36, "Durable round trips, side by side", 19, INK, weight=700)]
    x = width - PAD
    for color, words in (("none", "keeps no results"), ("results", "keeps results"), ("ours", "Headrace, over HTTP")):
        x -= 7.4 * len(words)
        out.append(text(x, 35, words, 12, SOFT))
        x -= 17
        out.append(f'<rect x="{x:.1f}" y="25" width="11" height="11" rx="2" fill="{COLORS[color]}"/>')
        x -= 22
    for row, s in enumerate(f.systems):
        y = TOP + row * ROW
        ours = s.name == OURS
        if ours:
            out.append(f'<rect x="{PAD - 10}" y="{y}" width="{width - 2 * PAD + 20}" height="{ROW}" rx="4" '
                       'fill="#0f766e" opacity=".08"/>')
        out.append(text(PAD, y + 19.5, s.title, 13, INK, weight=700 if ours else 400))
    for i, (head, unit, scenario, key, more) in enumerate(PANELS):
        x = PAD + NAMES + i * (PANEL + GAP)
        out += [text(x, TOP - 36, head, 13, INK, weight=700),
                text(x, TOP - 18, f"{unit}, {'more' if more else 'less'} is better", 10.5, SOFT),
                f'<path d="M{x - .5} {TOP - 6} V{height - BOTTOM + 4}" stroke="{RULE}"/>']
        scale = scale_of(f, scenario, key, more)
        for row, s in enumerate(f.systems):
            values = f.values(s.name, scenario, key)
            y = TOP + row * ROW + (ROW - BAR) / 2
            if values:
                color = COLORS["ours" if s.name == OURS else "results" if s.results else "none"]
                out += bar_of(x, y, values, scale, color, s.name == OURS)
            else:
                why = "no batches" if scenario not in s.scenarios else "not measured"
                out.append(text(x + 5, y + 13.5, why, 11, SOFT))
    out.append(text(PAD, height - 18, f"Medians of {results['rounds']} interleaved rounds; lines: min to max. 256-byte "
                    "tasks, synced before each answer. Torn bars are longer than drawn. "
                    f"{results['machine'].get('date', '')[:10]}", 11, SOFT))
    return "\n".join([*out, "</svg>", ""])


# ---- files ----

def replace_section(document, new):
    """The document with its section between the markers exchanged, or with the section at its end."""
    if BEGIN in document and END in document:
        before, rest = document.split(BEGIN, 1)
        return before + new.rstrip("\n") + rest.split(END, 1)[1]
    return document.rstrip("\n") + "\n\n" + new


def write(results, to_files):
    new = section(results)
    if not to_files:
        print(new)
        return 0
    RESULTS.write_text(replace_section(RESULTS.read_text(), new))
    (HERE / "plot.svg").write_text(plot(results))
    run("rsvg-convert", "--zoom", "2", "-o", str(HERE / "plot.png"), str(HERE / "plot.svg"))
    print("written: bench/RESULTS.md, bench/peers/plot.svg", file=sys.stderr)
    return 0
