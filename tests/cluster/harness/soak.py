"""Very many small batches while somebody keeps a snapshot open: does the last one cost more than the first?"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from harness import process
from harness.cluster import Cluster
from harness.jobs import start_count
from harness.server import Server
from harness.tables import counts, make_table
from harness.wait import wait_until

CHECKPOINT = """
SELECT seq, extract(epoch FROM at)::float8 FROM backfill_internal.checkpoint
WHERE slice_id = (SELECT id FROM backfill_internal.slice WHERE job_id = %s) ORDER BY seq DESC LIMIT 1
"""
POLL = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM backfill.progress"


@dataclass(frozen=True)
class Sample:
    """Where the job was at some time, and what its worker had used of the processor by then."""

    seq: int
    at: float
    cpu: float


@dataclass
class Soak:
    """`run` runs the job; the figures of its first and last `span` batches are in the other fields."""

    batches: int = 100_000
    batch_size: int = 10
    span: int = 1000

    first: float = 0
    last: float = 0
    first_cpu: float = 0
    last_cpu: float = 0
    seconds: float = 0
    pages_early: int = 0
    pages_late: int = 0
    memory: dict[int, int] = field(default_factory=dict)
    counts: list[tuple[int, int]] = field(default_factory=list)

    def run(self, server: Server) -> None:
        """A server of its own, with a REPEATABLE READ snapshot open from before the start of the job to its end."""
        # PostgreSQL's own pace of autovacuum: each second, as in other tests, it would scan in vain all the time.
        conf = {"shared_buffers": "256MB", "max_wal_size": "4GB", "autovacuum_naptime": "1min"}
        with Cluster(server=server, conf=conf) as cluster:
            cluster.sql("CREATE EXTENSION backfill")
            # A few batches more than are measured: the worker is still there for the last look.
            make_table(cluster, (self.batches + 2 * self.span) * self.batch_size)
            connection = cluster.connect()
            connection.execute("VACUUM ANALYZE t")
            connection.execute(POLL)
            old = cluster.connect(autocommit=False)
            old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            old.execute("SELECT count(*) FROM t")
            job = start_count(cluster, batch_size=self.batch_size)
            began = time.monotonic()
            self._watch(connection, job, cluster.worker_pid(job))
            self.seconds = time.monotonic() - began
            assert old.execute("SELECT sum(n) FROM t").fetchone() == (0,)
            cluster.sql("CALL backfill.wait(%s)", [job])
            self.counts = counts(cluster)

    def _watch(self, connection: psycopg.Connection, job: int, pid: int) -> None:
        self.first, self.first_cpu = self._measure(connection, job, pid, 1)
        self.pages_early = _pages(connection)
        for mark in (500, 5000, self.batches - self.span):
            if mark < self.batches:
                wait_until(lambda mark=mark: _sample(connection, job, pid).seq >= mark, 900, f"batch {mark}", 0.01)
                self.memory[mark] = process.rss_anon(pid)
        self.last, self.last_cpu = self._measure(connection, job, pid, 0)
        self.pages_late = _pages(connection)

    def _measure(self, connection: psycopg.Connection, job: int, pid: int, after: int) -> tuple[float, float]:
        """Mean cost of the next batches. Looks rarely: looking takes processor time, which may be what is scarce."""

        def reached(seq: int) -> Sample:
            def look() -> Sample | None:
                sample = _sample(connection, job, pid)
                return sample if sample.seq >= seq else None

            return wait_until(look, 60, f"batch {seq}", every=0.003)

        begin = reached(after)
        return _cost(begin, reached(begin.seq + self.span))


def _sample(connection: psycopg.Connection, job: int, pid: int) -> Sample:
    row = connection.execute(CHECKPOINT, [job]).fetchone() or (0, 0.0)
    cpu = 0.0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        cpu = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return Sample(row[0], row[1], cpu)


def _cost(one: Sample, two: Sample) -> tuple[float, float]:
    """Seconds a batch between two samples, by the clock and of the processor."""
    batches = two.seq - one.seq
    return (two.at - one.at) / batches, (two.cpu - one.cpu) / batches


def _pages(connection: psycopg.Connection) -> int:
    """Pages that a poll of the view reads; the best of several, since some fall into a commit."""

    def once() -> int:
        row = connection.execute(POLL).fetchone()
        assert row
        plan = (json.loads(row[0]) if isinstance(row[0], str) else row[0])[0]["Plan"]
        return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]

    return min(once() for _ in range(10))
