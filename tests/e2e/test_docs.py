"""Every command in the documents is run, and what they show of its output is held against what comes.

Fences: ```sh is run; all of a document's in one bash session, in order, stopped by the first that fails.
```sh server is a command that goes on running (a terminal of its own). ```sh no-test is not run, and needs a
reason in NOT_RUN. A ```json or ```text block right after a ```sh one is what that prints last: JSON must have
these members with these types, and words their values; text these lines in this order. "…" stands for anything,
digits for other digits, an id for another id.

The documents speak to 127.0.0.1:8700 and use `headrace` and `examples/models` as a reader would in the sources'
folder; the port is another one here, and the folder a temporary one.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from server import FETCHED, HEADRACE, ROOT, environment, free_port

DOCUMENTS = [ROOT / "README.md", ROOT / "HACKING.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md")),
             *sorted(ROOT.glob("examples/**/README.md"))]
SECONDS = 50  # for one document

# (document, start of the block's first command): why it cannot be run here.
NOT_RUN = {
    ("README.md", "make demo"): "test of its own: it builds, fetches and takes minutes",
    ("HACKING.md", "make"): "this very test is part of `make check`",
    ("docs/operating.md", "make install"): "installs into the system",
    ("docs/operating.md", "sudo systemctl"): "changes the system",
    ("docs/operating.md", "headrace worker --server http://10."): "names a machine that is not here",
}

COMMAND = re.compile(r"^\s*\$?\s*(sudo|curl|headrace|build/headrace|make|cmake|ctest|ninja|systemctl|python3|tools/\w+)"
                     r"\s")


@dataclass
class Block:
    document: str
    line: int
    info: str
    text: str
    shown: "Block | None" = None  # what its last command prints


@dataclass
class Document:
    path: Path
    blocks: list = field(default_factory=list)
    loose: list = field(default_factory=list)  # commands outside of fences

    @property
    def name(self):
        return str(self.path.relative_to(ROOT))

    def shell(self, *infos):
        return [b for b in self.blocks if b.info in infos]


def read(path):
    """A document's fenced blocks, and commands in indented ones."""
    d, at, after_blank, last = Document(path), None, True, None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if at:
            if line.strip() == "```":
                at.text = at.text.rstrip("\n") + "\n"
                if at.info in ("json", "text") and last:
                    last.shown = at
                last = at if at.info == "sh" else None
                at = None
            else:
                at.text += line + "\n"
        elif line.lstrip().startswith("```"):
            at = Block(d.name, number, line.strip()[3:].strip(), "")
            d.blocks.append(at)
        elif line.strip():
            if line.startswith("    ") and COMMAND.match(line):
                d.loose.append(f"{d.name}:{number}: {line.strip()}")
            last = None
    assert not at, f"{d.name}:{at.line}: this fence is never closed"
    return d


PARSED = [read(p) for p in DOCUMENTS]


def script(document, endpoint, folder):
    """A bash script of the document's blocks; block n prints to n.out and n.err."""
    text = ["set -eu", "say() { echo \"$1\" >>blocks; }"]
    port = endpoint.rsplit(":", 1)[1]
    for n, b in enumerate(document.shell("sh", "sh server")):
        body = b.text.replace("127.0.0.1:8700", f"127.0.0.1:{port}")
        text += [f"exec >{folder}/{n}.out 2>{folder}/{n}.err", f"echo {n} >{folder}/at"]
        if b.info == "sh":
            text.append(body)
            continue
        body = re.sub(r"\b(headrace serve)\b", rf"\1 --listen 127.0.0.1:{port}", body, count=1).strip()
        text += [f"[ ! -e {folder}/pid ] || {{ kill $(cat {folder}/pid); wait $(cat {folder}/pid) || true; }}",
                 f"( exec {body} ) & echo $! >{folder}/pid",
                 f"until curl -sf {endpoint}/readyz; do kill -0 $(cat {folder}/pid); sleep 0.05; done"]
    return "\n".join(text) + "\n"


# ---- what is shown --------------------------------------------------------------------------------

def json_values(text):
    """One JSON text, or one a line."""
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def fits(shown, got, at="$"):
    """None, or what does not fit."""
    if isinstance(shown, dict):
        if not isinstance(got, dict):
            return f"{at} is {got!r}, no object"
        for key, value in shown.items():
            if key not in got:
                return f"{at}.{key} is missing; there are {', '.join(got)}"
            if why := fits(value, got[key], f"{at}.{key}"):
                return why
        return None
    if isinstance(shown, list):
        if not isinstance(got, list) or len(got) < len(shown):
            return f"{at} is {got!r}, not a list of {len(shown)}"
        return next(filter(None, (fits(s, g, f"{at}[{i}]") for i, (s, g) in enumerate(zip(shown, got)))), None)
    if isinstance(shown, str) and isinstance(got, str):
        return None if re.fullmatch(pattern(shown), got, re.S) else f"{at} is {got!r}, not {shown!r}"
    if isinstance(shown, bool) or shown is None or isinstance(got, bool) or got is None:
        return None if shown is got else f"{at} is {got!r}, not {shown!r}"
    if isinstance(shown, (int, float)):
        return None if isinstance(got, (int, float)) else f"{at} is {got!r}, no number"
    return f"{at} is {got!r}, not {shown!r}"


def pattern(line):
    """A regular expression of a shown line: ids, digits, spaces and … stand for others."""
    parts = re.split(r"(\b(?:task|file|worker)_\w+…?|…|\d+|\s+)", line)
    return "".join(r"\w+" if re.match(r"(task|file|worker)_\w", p) else ".*" if p == "…" else r"\d+" if p.isdigit()
                   else r"\s+" if p.isspace() else re.escape(p) for p in parts)


def check_shown(block, out):
    where = f"{block.document}:{block.shown.line}"
    if block.shown.info == "json":
        want = json_values(block.shown.text)
        # The last texts of all that the block prints.
        got = []
        decoder, rest = json.JSONDecoder(), out.strip()
        while rest:
            value, end = decoder.raw_decode(rest)
            got.append(value)
            rest = rest[end:].lstrip()
        assert len(got) >= len(want), f"{where}: it prints less: {out}"
        for w, g in zip(want, got[-len(want):]):
            why = fits(w, g)
            assert not why, f"{where}: {why}\n{out}"
        return
    lines = iter(out.splitlines())
    for line in block.shown.text.splitlines():
        if line.strip() and line.strip() != "…":
            assert any(re.fullmatch(pattern(line.strip()), got.strip()) for got in lines), \
                f"{where}: {line!r} is not in what it prints, or not in this place:\n{out}"


def test_what_is_shown_is_held():
    """The checks themselves: they take what is right, and nothing else."""
    got = {"id": "task_01M82C10VA00000000000ZWF0Q", "n": 7, "status": "queued", "list": [{"a": None}],
           "at": "2026-01-02"}
    right = ['{"id": "task_…"}', '{"id": "task_01J"}', '{"n": 1.5, "list": [{"a": null}]}', '{"at": "1999-31-00"}',
             '{"at": "…"}']
    wrong = ['{"id": "file_…"}', '{"n": "7"}', '{"status": "running"}', '{"list": [{"a": 1}]}', '{"list": [{}, {}]}',
             '{"missing": 1}', '{"at": "2026-01"}', '[]', '{"n": null}']
    assert not [t for t in right if fits(json.loads(t), got)]
    assert not [t for t in wrong if not fits(json.loads(t), got)]
    for kind, shown, out, good in (
            ("text", "one\nid: 22 of …\n", "one\ntwo\nid: 4711 of it\n", True),
            ("text", "two\none\n", "one\ntwo\n", False), ("text", "on\n", "one\n", False),
            ("json", '{"a": 1}\n{"b": 2}', '{"c": 3}{"a": 5}\n{"b": 6}\n', True),
            ("json", '{"a": 1}\n{"b": 2}', '{"b": 6}\n', False)):
        block = Block("here", 1, "sh", "", Block("here", 2, kind, shown))
        if good:
            check_shown(block, out)
        else:
            with pytest.raises(AssertionError):
                check_shown(block, out)


# ---- the tests ------------------------------------------------------------------------------------

def run_document(document, tmp_path):
    work, notes = tmp_path / "work", tmp_path / "notes"
    for d in (work / "build", notes):
        d.mkdir(parents=True)
    (work / "build" / "headrace").symlink_to(HEADRACE)
    (work / "examples").symlink_to(ROOT / "examples")
    if FETCHED.is_dir():
        (work / ".deps").symlink_to(FETCHED.parent)
    endpoint = f"http://127.0.0.1:{free_port()}"
    (notes / "script").write_text(script(document, endpoint, notes))
    env = environment(PATH=f"{work / 'build'}:{os.environ['PATH']}", HEADRACE_SERVER=endpoint, HOME=str(work),
                      XDG_STATE_HOME=str(work / "state"))
    # Its own session, so that whatever it leaves running is found.
    bash = subprocess.Popen(["bash", str(notes / "script")], cwd=work, env=env, stdin=subprocess.DEVNULL,
                            start_new_session=True)
    try:
        status = bash.wait(SECONDS)
    except subprocess.TimeoutExpired:
        status = f"nothing for {SECONDS} s"
    finally:
        pid = (notes / "pid").read_text().strip() if (notes / "pid").exists() else ""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(bash.pid, number)
            except ProcessLookupError:
                break
            end = time.monotonic() + 5
            while time.monotonic() < end and pid and Path("/proc", pid).exists():
                time.sleep(0.02)
        bash.wait()
    return status, notes


@pytest.mark.parametrize("document", [d for d in PARSED if d.shell("sh")], ids=lambda d: d.name)
def test_commands(document, tmp_path):
    if not shutil.which("curl"):
        pytest.fail("curl is missing: tools/setup.sh installs it")
    status, notes = run_document(document, tmp_path)
    blocks = document.shell("sh", "sh server")
    at = int((notes / "at").read_text()) if (notes / "at").exists() else 0

    def said(n, kind):
        path = notes / f"{n}.{kind}"
        return path.read_text(errors="replace") if path.exists() else ""
    if status != 0:
        b = blocks[at]
        pytest.fail(f"{b.document}:{b.line}: ended with {status}\n{b.text}---- it printed\n"
                    f"{said(at, 'out')[-3000:]}{said(at, 'err')[-3000:]}", pytrace=False)
    for n, b in enumerate(blocks):
        if b.shown:
            check_shown(b, said(n, "out"))
        # curl -s takes a refusal for success.
        assert "urn:headrace:error:" not in said(n, "out") or b.shown and '"code"' in b.shown.text, \
            f"{b.document}:{b.line}: this is refused, and the document does not say so:\n{said(n, 'out')}"


def test_every_command_is_run_or_excused():
    used = set()
    for d in PARSED:
        assert not d.loose, "commands outside of fences, which nobody runs:\n" + "\n".join(d.loose)
        for b in d.blocks:
            assert b.info, f"{b.document}:{b.line}: say what this is: ```sh, ```json, ```text, …"
            if not b.info.startswith("sh"):
                assert b.info in ("json", "text", "yaml", "python", "ini", "http"), f"{b.document}:{b.line}: {b.info}"
                if b.info in ("text", "yaml", "ini"):
                    lines = [x for x in b.text.splitlines() if COMMAND.match(x)]
                    assert not lines, f"{b.document}:{b.line}: this is a command: {lines}"
                continue
            assert b.info in ("sh", "sh server", "sh no-test"), f"{b.document}:{b.line}: {b.info}"
            if b.info == "sh no-test":
                keys = [k for k in NOT_RUN if k[0] == d.name and b.text.startswith(k[1])]
                assert keys, f"{b.document}:{b.line}: why is this not run? Give the reason in NOT_RUN"
                used.update(keys)
    assert used == set(NOT_RUN), f"no longer in the documents: {set(NOT_RUN) - used}"


def test_links_and_names():
    """Relative links lead somewhere; targets of make, and paths of the sources, exist."""
    made = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))

    def anchors(path):
        text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
        return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-")
                for h in re.findall(r"^#+ (.*)$", text, re.M)}
    for d in PARSED:
        text = d.path.read_text()
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if link.startswith(("http://", "https://", "mailto:")):
                continue
            path, _, anchor = link.partition("#")
            to = (d.path.parent / path).resolve() if path else d.path
            assert to.exists(), f"{d.name}: the link {link} leads nowhere"
            if anchor:
                assert anchor in anchors(to), f"{d.name}: {link}: there is no such heading"
        for target in re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.M):
            assert target in made, f"{d.name}: there is no `make {target}`"
        for path in re.findall(r"`((?:src|tests|tools|fuzz|cmake|docs|examples)/[\w./-]+\.\w+)`", text):
            assert "/X." in path or (ROOT / path).exists(), f"{d.name}: there is no {path}"


def test_calls_are_explained():
    """api.md tells of every call that clients and operators make."""
    routes = re.findall(r'^    \{(\w+), "(/[^"]*)",', (ROOT / "src/gateway/route.c").read_text(), re.M)
    assert len(routes) > 30
    text = (ROOT / "docs/api.md").read_text()
    for method, path in routes:
        if path.startswith("/v1/worker/") or path == "/":
            continue
        last = [p for p in path.removeprefix("/v1").split("/") if p and p[0] != "{"][-1]
        assert re.search(rf"/{re.escape(last)}\b", text), f"{method} {path} is not in docs/api.md"


def test_codes_are_explained():
    """Every code that a caller can meet has a heading or a row in troubleshooting.md."""
    names = (ROOT / "src/task/names.c").read_text()
    fails = re.findall(r'\[FAIL_\w+\] = "(\w+)"', names)
    codes = re.findall(r'\[CODE_\w+\] = \{"(\w+)", \d+\}', names)
    assert len(fails) >= 9 and len(codes) >= 20
    text = (ROOT / "docs/troubleshooting.md").read_text()
    refusals, _, tasks = text.partition("## A task failed")
    for code in set(codes) - {"ok"}:
        assert re.search(rf"^\| `{code}` \|", refusals, re.M), f"the code {code} is not explained"
    for code in fails:
        assert re.search(rf"^\| `{code}` \|", tasks, re.M), f"the task error {code} is not explained"


def test_metrics_are_explained(server):
    """operating.md knows every metric, and no other."""
    text = (ROOT / "docs/operating.md").read_text()
    c = server.client()
    c.run(1)
    found = set(re.findall(r"^# TYPE (headrace_\w+)", c.get("/metrics").expect(200).body.decode(), re.M))
    told = set(re.findall(r"`(headrace_\w+)", text))
    assert not found - told, f"not in docs/operating.md: {sorted(found - told)}"
    assert not told - found, f"docs/operating.md tells of metrics that there are not: {sorted(told - found)}"


def test_model_keys_are_explained():
    """models.md has every key of a model.yaml."""
    source = (ROOT / "src/engine/model_yaml.c").read_text()
    keys = set(re.findall(r'^    \{"(\w+)", KEY_', source, re.M))
    assert len(keys) > 15
    text = (ROOT / "docs/models.md").read_text()
    missing = {k for k in keys if not re.search(rf"`(\w+\.)*{k}`", text)}
    assert not missing, f"not in docs/models.md: {sorted(missing)}"


def test_help_is_enough():
    """Every subcommand's help says what it does, what it takes, and gives an example."""
    listed = subprocess.run([HEADRACE, "help"], capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^  ([a-z]+)  ", listed, re.M)
    assert len(commands) > 20
    for name in commands:
        text = subprocess.run([HEADRACE, name, "--help"], capture_output=True, text=True, check=True).stdout
        assert text.startswith(f"headrace {name}"), text
        assert "\nExamples\n" in text or name in ("help", "version"), f"headrace {name} --help has no example"
        assert "exit-codes" in text
        for example in re.findall(r"^  (headrace .*)$", text.partition("\nExamples\n")[2], re.M):
            assert example.split()[1] in commands, example
