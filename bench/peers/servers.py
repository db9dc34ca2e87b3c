"""The servers that are measured: what starts each on loopback with its data in a folder of its own, with every
acknowledged write synced, and how that is checked. Debian's own instances of them are never touched."""

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
TICKS = os.sysconf("SC_CLK_TCK")
START_S, STOP_S = 60, 20


class Unavailable(Exception):
    """This peer can't be measured here, and why; the others go on."""


# ---- processes ----

def die_with_parent():
    """In a child, before exec: our death is its own. A later change of user clears it."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def spawn(argv, log=None, **options):
    """In a process group of its own, so that a Ctrl-C reaches it through us only."""
    with open(log, "ab") if log else contextlib.nullcontext(subprocess.DEVNULL) as out:
        options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out} | options
        return subprocess.Popen(argv, start_new_session=True, preexec_fn=die_with_parent, **options)


def stop(process, number=signal.SIGTERM):
    """It, and what it started and left behind in its group."""
    if process is None:
        return
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tree(roots):
    """These processes and all below them."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int(Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found, todo = [], list(roots)
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu_s(roots):
    """User and system time of them all, with that of children that have ended."""
    total = 0
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            total += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return total / TICKS


def memory_bytes(roots):
    """Proportional set size: what processes share counts once."""
    total = 0
    for pid in tree(roots):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def program(name, *places):
    found = shutil.which(name, path=os.pathsep.join([*map(str, places), os.environ["PATH"], "/usr/sbin"]))
    if not found:
        raise Unavailable(f"{name} is not installed")
    return found


def output(*argv, **options):
    p = subprocess.run(argv, capture_output=True, text=True, check=False, **options)
    return (p.stdout + p.stderr).strip()


# ---- servers ----

class Server:
    """start() leaves self.process and self.port; roots() are the processes that count as the server."""

    def __init__(self, folder, relaxed=False):
        self.folder = Path(folder)  # of our own, and empty
        self.log = self.folder / "server.log"
        self.relaxed = relaxed  # to fill it for the question of memory: no need to sync
        self.process = None
        self.port = free_port()

    def start(self):
        raise NotImplementedError

    def check(self):
        """What the server itself says about its durability; Unavailable when it is not what was asked for."""
        return ""

    def roots(self):
        return [self.process.pid]

    def stop(self):
        stop(self.process)

    def wait_for(self, ready, what="did not get ready"):
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                if ready():
                    return
            time.sleep(0.02)
        log = self.log.read_text(errors="replace")[-600:] if self.log.exists() else ""
        raise Unavailable(f"the server {what}: {log.strip()}")

    def listening(self):
        with socket.create_connection(("127.0.0.1", self.port), 1):
            return True


def expect(what, found, wanted):
    if found != wanted:
        raise Unavailable(f"{what} is {found!r}, not {wanted!r}: not durable")


class Redis(Server):
    def start(self):
        self.process = spawn([program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--dir",
                              str(self.folder), "--appendonly", "yes", "--appendfsync",
                              "no" if self.relaxed else "always", "--save", "", "--daemonize", "no"], self.log)
        self.wait_for(lambda: b"PONG" in self.ask("PING"))

    def ask(self, line):
        with socket.create_connection(("127.0.0.1", self.port), 5) as s:
            s.sendall(line.encode() + b"\r\n")
            return s.recv(65536)

    def check(self):
        for key, wanted in ("appendonly", "yes"), ("appendfsync", "always"):
            expect(key, self.ask(f"CONFIG GET {key}").split(b"\r\n")[4].decode(), wanted)
        return "appendonly yes, appendfsync always"

    @staticmethod
    def version():
        return "Redis " + output(program("redis-server"), "--version").split("v=")[1].split()[0]


class Postgres(Server):
    @staticmethod
    def bin(name):
        return program(name, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))

    def as_user(self):
        """It refuses to run as root: as Debian's user then."""
        if os.getuid():
            return []
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            raise Unavailable("there is no user postgres, and PostgreSQL does not run as root") from None
        os.chown(self.folder, user.pw_uid, user.pw_gid)
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig", "INT"]

    def start(self):
        as_user, data = self.as_user(), self.folder / "data"
        p = subprocess.run([*as_user, self.bin("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E",
                            "UTF8", "--locale=C"], capture_output=True, text=True, check=False, cwd=self.folder)
        if p.returncode:
            raise Unavailable(f"initdb failed: {p.stderr[-300:]}")
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "",
                    "max_connections": 200, "synchronous_commit": "off" if self.relaxed else "on", "fsync": "on"}
        sets = [x for k, v in settings.items() for x in ("-c", f"{k}={v}")]
        self.process = spawn([*as_user, self.bin("postgres"), "-D", str(data), *sets], self.log, cwd=self.folder)
        self.wait_for(lambda: self.ask("SELECT 1") == "1")

    def ask(self, sql):
        return output(self.bin("psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-XAtc", sql)

    def check(self):
        for key in "synchronous_commit", "fsync", "full_page_writes":
            expect(key, self.ask(f"SHOW {key}"), "on")
        return f"synchronous_commit on, fsync on, wal_sync_method {self.ask('SHOW wal_sync_method')}"

    def stop(self):
        stop(self.process, signal.SIGINT)  # fast: does not wait for clients

    @staticmethod
    def version():
        return "PostgreSQL " + output(Postgres.bin("postgres"), "--version").split()[2]


class Rabbit(Server):
    """The beam and what it starts; epmd, which names its node, is ours too, on a port of its own."""

    epmd = None

    def start(self):
        base = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        if not base.exists():
            raise Unavailable("rabbitmq-server is not installed")
        epmd_port, dist_port = free_port(), free_port()
        f = self.folder
        (f / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = 127.0.0.1:{self.port}\nloopback_users = none\nheartbeat = 0\n"
            "log.console = false\nvm_memory_high_watermark.relative = 0.8\ndisk_free_limit.absolute = 50MB\n")
        (f / "enabled_plugins").write_text("[].\n")
        env = dict(os.environ, HOME=str(f), ERL_EPMD_PORT=str(epmd_port), ERL_EPMD_ADDRESS="127.0.0.1",
                   RABBITMQ_NODENAME="peer@localhost", RABBITMQ_MNESIA_BASE=str(f / "mnesia"),
                   RABBITMQ_LOG_BASE=str(f / "log"), RABBITMQ_CONFIG_FILE=str(f / "rabbitmq.conf"),
                   RABBITMQ_CONF_ENV_FILE="/dev/null", RABBITMQ_ENABLED_PLUGINS_FILE=str(f / "enabled_plugins"),
                   RABBITMQ_DIST_PORT=str(dist_port), RABBITMQ_PID_FILE=str(f / "pid"),
                   RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}")
        self.epmd = spawn([program("epmd"), "-address", "127.0.0.1", "-port", str(epmd_port)], self.log)
        self.process = spawn([str(base)], self.log, env=env, cwd=f)
        self.wait_for(self.listening)

    def check(self):
        return "durable queues, persistent messages, publisher confirms"

    def roots(self):
        return [self.process.pid, self.epmd.pid]

    def stop(self):
        stop(self.process)
        stop(self.epmd)

    @staticmethod
    def version():
        return "RabbitMQ " + output("dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server").split("-")[0]


class Beanstalkd(Server):
    def start(self):
        sync = ["-F"] if self.relaxed else ["-f", "0"]
        self.process = spawn([program("beanstalkd"), "-l", "127.0.0.1", "-p", str(self.port), "-b",
                              str(self.folder), *sync], self.log)
        self.wait_for(self.listening)

    def check(self):
        command = Path(f"/proc/{self.process.pid}/cmdline").read_text().split("\0")
        expect("-f", command[command.index("-f") + 1], "0")
        return "-b with -f 0: a sync a write"

    @staticmethod
    def version():
        return output(program("beanstalkd"), "-v")


class Nats(Server):
    def start(self):
        sync = "2m" if self.relaxed else "always"
        (self.folder / "nats.conf").write_text(
            f'host: "127.0.0.1"\nport: {self.port}\n'
            f'jetstream {{ store_dir: "{self.folder}/js", sync_interval: {sync} }}\n')
        self.process = spawn([program("nats-server", CACHE), "-c", str(self.folder / "nats.conf")], self.log)
        self.wait_for(lambda: self.listening() and "Server is ready" in self.log.read_text(errors="replace"))

    def check(self):
        text = self.log.read_text(errors="replace")
        if "sync" in text.lower() and "unknown" in text.lower():
            raise Unavailable("this nats-server does not know sync_interval")
        return "sync_interval always"

    @staticmethod
    def version():
        text = output(program("nats-server", CACHE), "--version")
        if tuple(map(int, text.split("v")[-1].split(".")[:2])) < (2, 10):
            raise Unavailable(f"{text} can't sync before it acknowledges; 2.10 can")
        return "NATS " + text.split("v")[-1]


class Headrace(Server):
    """CPU is counted by `headrace bench`: the server's process alone; its worker, a child, apart."""

    binary = None  # set by run

    def start(self):
        data = self.folder / "data"
        models = self.folder / "models"
        models.mkdir()
        self.process = spawn([self.binary, "serve", "--data", str(data), "--models", str(models), "--listen",
                              f"127.0.0.1:{self.port}"], self.log)
        self.wait_for(lambda: (data / "endpoint").exists())

    def check(self):
        return "there is no way to switch it off"

    def roots(self):
        return [self.process.pid]

    @staticmethod
    def version():
        return output(Headrace.binary, "version").splitlines()[0]
