"""The servers that everything runs on, and fresh copies of the tables in them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
from harness import DURABLE, Cluster, Database, Server

from bench.datasets import Dataset

GB = 2**30
# One for the largest table and its copy; else no checkpoint would be left out of the middle of a run.
CONF = DURABLE | {
    "max_wal_size": "12GB",
    "min_wal_size": "3GB",
    "checkpoint_timeout": "1h",
    "maintenance_work_mem": "512MB",
    "autovacuum_naptime": "1min",
}
# For a run that only shows that all of it works.
QUICK = {"fsync": "off", "max_wal_size": "1GB", "min_wal_size": "80MB", "maintenance_work_mem": "64MB"}
# So that no contender pays for the first use of WAL segments: these are written once and then recycled.
SPARE_WAL = 2 * GB
EMIT = "SELECT count(pg_logical_emit_message(false, 'spare', repeat('x', 1048576))) FROM generate_series(1, %s)"
PAGES = """
SELECT sum(pg_prewarm(oid)) FROM pg_class WHERE relkind IN ('r', 'i', 't') AND relnamespace = 'public'::regnamespace
"""


def shared_buffers() -> str:
    """2 GB where that is a quarter of the memory or less, else the quarter."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{min(2 * GB, ram // 4) // 2**20}MB"


class BenchServer:
    """One server with its settings. Each table is built once, in a database that nobody can enter, and copied."""

    def __init__(self, conf: Mapping[str, str], *, quick: bool, memory_cgroup: Path | None) -> None:
        base = CONF | {"shared_buffers": "128MB" if quick else shared_buffers()}
        self.cluster = Cluster(server=_server(), conf=base | dict(conf) | (QUICK if quick else {}))
        self.quick = quick
        self.memory_cgroup = memory_cgroup
        self._numbers = itertools.count(1)
        self._templates: set[str] = set()

    def __enter__(self) -> BenchServer:
        self.cluster.__enter__()
        try:
            if self.memory_cgroup:
                # What the postmaster starts from now on is born there.
                (self.memory_cgroup / "cgroup.procs").write_text(str(self.cluster.pid))
            if not self.quick:
                self.cluster.sql(EMIT, [SPARE_WAL // 2**20])
                self.cluster.sql("CHECKPOINT")
        except BaseException:
            self.cluster.destroy()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.destroy()

    @property
    def version(self) -> str:
        """PostgreSQL's, without the distribution's."""
        return self.cluster.value("SHOW server_version").split()[0]

    def show(self, setting: str) -> str:
        """A setting, as people write it."""
        return self.cluster.value(f"SHOW {setting}")

    def build(self, dataset: Dataset) -> None:
        """Makes the table to copy, if it is not there yet."""
        name = f"template-{dataset.name}"
        if name in self._templates:
            return
        self.cluster.sql(f'CREATE DATABASE "{name}"')
        with psycopg.connect(self.cluster.database(name).dsn(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION backfill")
            if connection.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_prewarm'").fetchone():
                connection.execute("CREATE EXTENSION pg_prewarm")
            for statement in dataset.statements():
                connection.execute(statement)
        # Neither workers nor anybody else shall be in it when it is copied.
        self.cluster.sql(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false IS_TEMPLATE true')
        self._templates.add(name)

    def forget(self, dataset: Dataset) -> None:
        """Gives the room of a table back."""
        name = f"template-{dataset.name}"
        if name in self._templates:
            self.cluster.sql(f'ALTER DATABASE "{name}" WITH IS_TEMPLATE false')
            self.cluster.sql(f'DROP DATABASE "{name}" WITH (FORCE)')
            self._templates.remove(name)

    @contextlib.contextmanager
    def copy(self, dataset: Dataset, *, warm: bool) -> Iterator[Database]:
        """A database with the table as it was built, page by page; it is gone at the end."""
        name = f"run_{next(self._numbers)}"
        self.cluster.sql(f'CREATE DATABASE {name} TEMPLATE "template-{dataset.name}" STRATEGY file_copy')
        db = self.cluster.database(name)
        try:
            if warm:
                _warm(db, dataset)
            yield db
        finally:
            self.cluster.sql(f"DROP DATABASE {name} WITH (FORCE)")


def _warm(db: Database, dataset: Dataset) -> None:
    """Reads the table into shared_buffers: whole where there is pg_prewarm, else the heap."""
    if db.sql("SELECT FROM pg_extension WHERE extname = 'pg_prewarm'"):
        db.sql(PAGES)
    else:
        db.sql(f"SELECT count(*) FROM {dataset.table} WHERE {dataset.where}")


def _server() -> Server:
    server = Server()
    server.hold()
    return server
