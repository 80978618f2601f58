"""One database of a cluster, and the ways to talk to it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import psycopg

from harness.load import Load
from harness.server import clean_environment
from harness.wait import wait_until

if TYPE_CHECKING:
    from harness.cluster import Cluster


class Database:
    """Every method takes `user`, so that a test can be several people; nobody needs a password."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def dsn(self, user: str = "postgres") -> str:
        """What libpq needs to come here."""
        return f"host={self.cluster.folder} port={self.cluster.port} dbname={self.name} user={user}"

    def connect(self, user: str = "postgres", *, autocommit: bool = True, **options: Any) -> psycopg.Connection:
        """A connection that the caller keeps; it is closed when the cluster goes, at the latest."""
        connection = psycopg.connect(self.dsn(user), autocommit=autocommit, connect_timeout=10, **options)
        self.cluster.connections.append(connection)
        return connection

    def sql(self, query: str, params: Sequence[Any] | None = None, *, user: str = "postgres") -> list[tuple[Any, ...]]:
        """Runs statements on a connection of its own, several in one transaction; returns the rows of the last one."""
        with psycopg.connect(self.dsn(user), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(query, params)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, params: Sequence[Any] | None = None, *, user: str = "postgres") -> Any:
        """The one value that the query returns."""
        rows = self.sql(query, params, user=user)
        assert len(rows) == 1 and len(rows[0]) == 1, f"not one value but {rows!r}: {query}"
        return rows[0][0]

    def psql(
        self, script: str, *, user: str = "postgres", check: bool = True, options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Feeds a script to the real psql, which stops at the first error."""
        command = [self.cluster.server.program("psql"), "-X", "-v", "ON_ERROR_STOP=1", *options, self.dsn(user)]
        result = subprocess.run(
            command, input=script, capture_output=True, text=True, env=clean_environment(), timeout=120
        )
        if check and result.returncode != 0:
            raise AssertionError(f"psql failed ({result.returncode}):\n{result.stdout}\n{result.stderr}")
        return result

    def load(self, script: str, *, clients: int = 2, user: str = "postgres", options: Sequence[str] = ()) -> Load:
        """Starts pgbench on a script, again and again until stopped: `with db.load('SELECT 1;'): …`."""
        load = Load(self, script, clients=clients, user=user, options=options)
        self.cluster.loads.append(load)
        return load

    # The jobs of the extension

    def worker_pids(self, job: int) -> list[int]:
        """The processes that work on a job of this database now."""
        rows = self.sql(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE %s ORDER BY pid",
            [f"backfill job {job}:%"],
        )
        return [pid for (pid,) in rows]

    def worker_pid(self, job: int, timeout: float = 30) -> int:
        """Waits until a process works on the job, and returns its pid."""
        return wait_until(lambda: self.worker_pids(job), timeout, f"a worker of job {job}")[0]

    def crash_worker(self, job: int) -> int:
        """kill -9 on a worker of the job; returns, when the server is through its recovery, which pid that was."""
        pid = self.worker_pid(job)
        assert self.cluster.kill_backend(pid), f"worker {pid} had ended"
        return pid

    def terminate_worker(self, job: int) -> int:
        """pg_terminate_backend on a worker of the job, waiting until it is gone; returns its pid."""
        pid = self.worker_pid(job)
        assert self.value("SELECT pg_terminate_backend(%s, 10000)", [pid]), f"worker {pid} survived SIGTERM"
        return pid
