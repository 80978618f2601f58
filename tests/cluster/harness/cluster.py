"""A throw-away PostgreSQL server in a folder of its own."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from harness import process
from harness.database import Database
from harness.load import Load
from harness.server import Server, clean_environment, server_user
from harness.wait import wait_until

# Small and quick; a test overrides what it is about.
DEFAULTS: dict[str, str] = {
    "fsync": "off",
    # Tests act as postgres on everybody's tables.
    "backfill.allow_superuser_jobs": "on",
    "shared_buffers": "64MB",
    "max_connections": "50",
    "max_worker_processes": "20",
    "max_wal_senders": "5",
    "wal_level": "replica",
    "autovacuum_naptime": "1s",
    "log_line_prefix": "%m [%p] %q%a %u@%d ",
    "listen_addresses": "",
}
# For tests of safety: nothing is given up for speed.
DURABLE: dict[str, str] = {"fsync": "on"}

INITDB = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
# Of each major started here, a data directory that no server has run on: a copy costs a tenth of initdb.
TEMPLATES: dict[tuple[str, str | None], Path] = {}

# Where the folders of servers are made. Not in a private TMPDIR: a socket's path has at most 107 bytes, and the
# server's user has to get in.
DISK = Path("/tmp")
MEMORY = Path("/dev/shm")

# Those not destroyed yet, so that a failing test can show their logs and the end of the session can stop them.
LIVE: list[Cluster] = []


class Cluster(Database):
    """One server, and its database `postgres`. As a context manager it is started, and gone at the end."""

    # The tests set it; what the scripts write may be larger.
    in_memory = False

    def __init__(
        self,
        *,
        preload: bool = True,
        conf: Mapping[str, Any] | None = None,
        server: Server | None = None,
        own_identity: bool = False,
    ) -> None:
        super().__init__(self, "postgres")
        process.adopt_orphans()
        self.server = server or Server()
        self.preload = preload
        self.own_identity = own_identity
        self.conf = DEFAULTS | ({"shared_preload_libraries": "backfill"} if preload else {}) | _text(conf or {})
        self.os_user = server_user()
        self.folder = Path(tempfile.mkdtemp(prefix="backfill-", dir=self._place()))
        if self.os_user:
            shutil.chown(self.folder, self.os_user)
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.port = free_port()
        self.connections: list[psycopg.Connection] = []
        self.loads: list[Load] = []
        LIVE.append(self)

    def _place(self) -> Path:
        """In memory where tests may: ext4 takes its time to give out inodes when thousands were freed just before."""
        return MEMORY if Cluster.in_memory and self.conf["fsync"] == "off" and _room() else DISK

    def __enter__(self) -> Cluster:
        try:
            if not self.data.exists():
                self.init()
            if not self.running:
                self.start()
        except BaseException:
            self.destroy()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    def database(self, name: str) -> Database:
        """Another database of this server, which exists."""
        return Database(self, name)

    # Start and stop

    def init(self) -> None:
        """Creates the data directory: superuser postgres, trust for everyone.

        It is a copy of one that was made once, with the same system identifier, unless `own_identity` is asked for.
        """
        if self.own_identity:
            self.run("initdb", "-D", self.data, *INITDB)
        else:
            self._copy_template()
        self.write_conf()

    def _copy_template(self) -> None:
        key = (str(self.server.bindir), self.os_user)
        if key not in TEMPLATES:
            folder = Path(tempfile.mkdtemp(prefix="backfill-template-", dir=self._place()))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            if self.os_user:
                shutil.chown(folder, self.os_user)
            self.run("initdb", "-D", folder / "data", *INITDB)
            TEMPLATES[key] = folder / "data"
        # As the server's user, whose files they are to be.
        self.run(shutil.which("cp") or "cp", "-R", "--preserve=mode", TEMPLATES[key], self.data)

    def write_conf(self) -> None:
        """Writes the settings to a file of their own, below those of ALTER SYSTEM."""
        own = self.conf | {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        lines = [f"{name} = '{value}'\n" for name, value in own.items()]
        (self.data / "test.conf").write_text("".join(lines))
        main = self.data / "postgresql.conf"
        if "test.conf" not in main.read_text():
            with main.open("a") as file:
                file.write("include 'test.conf'\n")
        if self.os_user:
            shutil.chown(self.data / "test.conf", self.os_user)

    def set(self, **settings: Any) -> None:
        """Changes settings in the file; they take effect with `reload` or `restart`."""
        self.conf |= _text(settings)
        self.write_conf()

    def start(self) -> None:
        """Starts the server and waits until it lets clients in."""
        result = self.run("pg_ctl", "-D", self.data, "-l", self.log, "-w", "-t", "60", "start", check=False)
        if result.returncode != 0:
            raise AssertionError(f"the server did not start: {result.stdout}\n{self.log_tail()}")

    def stop(self, mode: str = "fast") -> None:
        """Stops the server: `smart`, `fast` or `immediate`."""
        self.close_connections()
        self.run("pg_ctl", "-D", self.data, "-m", mode, "-w", "-t", "60", "stop")

    def restart(self, mode: str = "fast") -> None:
        """Stops the server in the given mode and starts it again."""
        self.stop(mode)
        self.start()

    def reload(self) -> None:
        """Makes the server read its settings again."""
        self.run("pg_ctl", "-D", self.data, "reload")

    def crash(self) -> None:
        """SIGKILL to every process of the server at once, as when the machine is lost. `start` brings it back."""
        postmaster = self.pid
        # A worker that it forks now would live on, and keep the server from starting.
        process.freeze(postmaster)
        process.kill_and_wait(postmaster, *process.children(postmaster))
        self.close_connections()

    def kill_backend(self, pid: int) -> bool:
        """SIGKILL to one backend or worker; the server throws all others out, and is open again when this returns.

        False if the process had just come to its own end.
        """
        checkpointer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
        before = self.sql(checkpointer)
        process.freeze(pid)
        if not process.alive(pid):
            return False
        process.kill_and_wait(pid)

        def is_new() -> bool:
            try:
                return self.sql(checkpointer) not in ([], before)
            except psycopg.OperationalError:
                return False

        wait_until(is_new, 60, f"the server to recover from the kill of {pid}")
        return True

    def destroy(self) -> None:
        """Stops what is left of the server, by its pid, and removes its folder. A second time does nothing."""
        for load in self.loads:
            load.stop()
        self.close_connections()
        if self.running:
            postmaster = self.pid
            process.send(postmaster, signal.SIGQUIT)
            try:
                wait_until(lambda: not process.alive(postmaster), 10, "the server to stop")
            except AssertionError:
                process.kill_and_wait(postmaster, *process.children(postmaster))
        shutil.rmtree(self.folder, ignore_errors=True)
        if self in LIVE:
            LIVE.remove(self)

    # Standbys

    def standby(self, name: str = "standby", *, conf: Mapping[str, Any] | None = None) -> Cluster:
        """Makes and starts a streaming standby with a slot of its name; the caller destroys it, or uses `with`."""
        copy = Cluster(
            preload=self.preload, conf=self.conf | {"cluster_name": name} | _text(conf or {}), server=self.server
        )
        try:
            source = ["-d", self.dsn(), "-D", copy.data, "-R", "-C", "-S", name, "-c", "fast", "--no-sync"]
            self.run("pg_basebackup", *source)
            copy.write_conf()
            copy.start()
        except BaseException:
            copy.destroy()
            raise
        return copy

    def promote(self) -> None:
        """Ends recovery; the server takes writes when this returns."""
        self.run("pg_ctl", "-D", self.data, "-w", "promote")

    def wait_for_replay(self, standby: Cluster, timeout: float = 60) -> None:
        """Waits until the standby has replayed all that is in this server's WAL now."""
        lsn = self.value("SELECT pg_current_wal_lsn()::text")
        replayed = "SELECT coalesce(pg_last_wal_replay_lsn() >= %s::pg_lsn, false)"
        wait_until(lambda: standby.value(replayed, [lsn]), timeout, f"the standby to replay {lsn}")

    # What a test looks at

    @property
    def pid(self) -> int:
        """The postmaster's pid."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    @property
    def running(self) -> bool:
        """True while the postmaster lives."""
        try:
            return process.alive(self.pid)
        except (FileNotFoundError, IndexError):
            return False

    def rss_anon(self, pid: int) -> int:
        """Bytes of private memory of a process of this server."""
        return process.rss_anon(pid)

    def log_tail(self, lines: int = 60) -> str:
        """The end of the server's log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def run(self, program: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs one of the server's own programs as the server's user."""
        # A file, not a pipe: a postmaster started from here would hold the pipe open for ever.
        with tempfile.TemporaryFile("w+") as output:
            result: subprocess.CompletedProcess[str] = subprocess.run(
                [self.server.program(program), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=clean_environment(),
                user=self.os_user,
                group=self.os_user,
                extra_groups=[] if self.os_user else None,
                timeout=120,
            )
            output.seek(0)
            result.stdout = output.read()
        if check and result.returncode != 0:
            raise AssertionError(f"{program} failed ({result.returncode}): {result.stdout}\n{self.log_tail()}")
        return result

    def close_connections(self) -> None:
        """Closes the connections that tests have opened and may have lost."""
        while self.connections:
            self.connections.pop().close()


def _text(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as the file has them: on and off for booleans."""
    words = {True: "on", False: "off"}
    return {name: words[value] if isinstance(value, bool) else str(value) for name, value in settings.items()}


def _room() -> bool:
    """True where a few servers more find a place in memory: a container has often 64 MB of /dev/shm."""
    try:
        there = os.statvfs(MEMORY)
        memory = Path("/proc/meminfo").read_text()
    except OSError:
        return False
    available = int(memory.partition("MemAvailable:")[2].split()[0]) * 1024
    return min(there.f_bavail * there.f_frsize, available) > 2 << 30


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
