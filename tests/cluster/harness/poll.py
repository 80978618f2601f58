"""A server with many jobs, most of them ended, and what a look at its views costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg

from harness.cluster import Cluster
from harness.jobs import complete, start
from harness.process import cpu_seconds
from harness.wait import wait_until

POLLS = {
    "progress": "SELECT * FROM backfill.progress",
    "progress, one job": "SELECT * FROM backfill.progress WHERE job_id = 1",
    "progress, by state": "SELECT state, count(*) FROM backfill.progress GROUP BY state",
    "dashboard": "SELECT * FROM backfill.dashboard",
}
# More than a job at full speed gets done here: it must not end before it is measured.
ROWS_PER_SECOND = 450_000
# Columns that count by themselves are left out: each copy gets a value of its own.
COLUMNS = """
SELECT array_agg(quote_ident(attname) ORDER BY attnum) FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attidentity = ''
"""


@dataclass
class Cost:
    """What a poll takes: as a client sees it, and of the processor in its server process."""

    median_ms: float
    p95_ms: float
    cpu_ms: float
    rows: int


class Crowd:
    """Jobs of `slices` slices each: one that really ran, copied until `ended` have, and `running` real ones."""

    def __init__(self, *, ended: int, failed: int = 0, running: int = 0, slices: int = 40) -> None:
        self.ended = ended
        self.failed = failed
        self.running = running
        self.slices = slices

    def conf(self) -> dict[str, object]:
        """Room for that many workers; a server like most."""
        return {
            "max_worker_processes": self.running + 10,
            "backfill.max_workers": self.running + 1,
            "max_connections": 60,
            "shared_buffers": "256MB",
        }

    def build(self, db: Cluster) -> None:
        """Makes all of them; what runs goes on for some minutes."""
        db.sql("CREATE EXTENSION IF NOT EXISTS backfill")
        self.table(db, "ended", 5)
        first = start(db, "ended", "n = n + 1", name="ended", options={"vacuum": False})
        complete(db, first)
        slices = db.value("SELECT count(*) FROM backfill_internal.slice WHERE job_id = %s", [first])
        assert slices == self.slices, f"{slices} slices"
        self.copy(db, first, self.ended + self.failed - 1)
        # One that failed may be resumed: it has no sums.
        db.sql(
            "WITH failed AS (SELECT id FROM backfill_internal.job ORDER BY id DESC LIMIT %s),"
            " walks AS (UPDATE backfill_internal.walk SET summed = false WHERE job_id IN (SELECT id FROM failed))"
            " UPDATE backfill_internal.outcome SET outcome = 'failed', sqlstate = '22012', message = 'division by zero'"
            " WHERE job_id IN (SELECT id FROM failed)",
            [self.failed],
        )
        for n in range(self.running):
            self.table(db, f"running_{n}", 500)
            start(db, f"running_{n}", "n = n + 1", batch=10, sleep_ms=200, options={"vacuum": False})
        for table in ("job", "slice", "checkpoint", "outcome", "walk", "event", "sample"):
            db.sql(f"VACUUM ANALYZE backfill_internal.{table}")
        wait_until(lambda: self.at_work(db) == self.running, 120, f"{self.running} jobs to run")

    def table(self, db: Cluster, name: str, rows: int) -> None:
        """A table whose every partition becomes a slice."""
        db.sql(
            f"CREATE TABLE {name} (id int, part int, n int NOT NULL DEFAULT 0, PRIMARY KEY (part, id))"
            " PARTITION BY LIST (part);"
            + "".join(f"CREATE TABLE {name}_{i} PARTITION OF {name} FOR VALUES IN ({i});" for i in range(self.slices))
            + f"INSERT INTO {name} SELECT id, part FROM generate_series(1, {rows}) id,"
            f" generate_series(0, {self.slices - 1}) part; ANALYZE {name}"
        )

    def copy(self, db: Cluster, job: int, times: int) -> None:
        """Everything that the extension knows of a job, again and again, for new jobs."""
        own = {"name": "concat_ws(' ', o.name, g)"}
        insert(db, "job", own, f"generate_series(1, {times}) g WHERE o.id = {job}")
        new = f"backfill_internal.job j WHERE o.job_id = {job} AND j.id > {job}"
        for table in ("outcome", "walk", "slice", "event", "sample"):
            insert(db, table, {"job_id": "j.id"}, new)
        insert(
            db,
            "checkpoint",
            {"slice_id": "s.id"},
            f"backfill_internal.slice f, backfill_internal.slice s WHERE f.id = o.slice_id AND f.job_id = {job}"
            f" AND s.no = f.no AND s.job_id > {job}",
        )

    def at_work(self, db: Cluster) -> int:
        """Jobs that workers hold and that have made a batch."""
        query = "SELECT count(*) FROM backfill.progress WHERE state = 'running' AND workers > 0 AND rows_done > 0"
        return db.value(query)


def insert(db: Cluster, table: str, values: Mapping[str, str], source: str) -> None:
    """Copies rows `o` of one of the extension's tables, but for the columns given."""
    columns = db.value(COLUMNS, [f"backfill_internal.{table}"])
    chosen = ", ".join(values.get(column, f"o.{column}") for column in columns)
    own = f"backfill_internal.{table}"
    db.sql(f"INSERT INTO {own} ({', '.join(columns)}) SELECT {chosen} FROM {own} o, {source}")


def cost(connection: psycopg.Connection, query: str, polls: int) -> Cost:
    """Of a query that is sent anew each time, as psql and exporters do."""
    pid = connection.info.backend_pid
    times = []
    for _ in range(3):
        rows = connection.execute(query, prepare=False).fetchall()
    before = cpu_seconds(pid)
    for _ in range(polls):
        begun = time.perf_counter()
        rows = connection.execute(query, prepare=False).fetchall()
        times.append(1000 * (time.perf_counter() - begun))
    cpu = 1000 * (cpu_seconds(pid) - before) / polls
    return Cost(statistics.median(times), statistics.quantiles(times, n=20)[-1], cpu, len(rows))


def pages(db: Cluster, query: str) -> int:
    """Pages that the query looks at."""
    plan = db.value(f"EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json) {query}")[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def effect(db: Cluster, pairs: int, seconds: float) -> list[float]:
    """What a job at full speed gets done with a poll of both views each second, as a share of what it does without."""
    rows = int(2 * pairs * seconds * ROWS_PER_SECOND)
    db.sql(
        # Every update needs a new entry in both indexes: a job that is long enough, of a table that is not too large.
        "CREATE TABLE fast (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);"
        f"INSERT INTO fast SELECT generate_series(1, {rows}); CREATE INDEX ON fast (n)"
    )
    db.sql("VACUUM ANALYZE fast")
    job = start(db, "fast", "n = n + 1", batch=100, options={"vacuum": False, "strategy": "sequential"})
    watch, poll = db.connect(), db.connect()
    done = (
        "SELECT coalesce(sum(rows), 0)::bigint FROM (SELECT max(c.rows_done) AS rows"
        " FROM backfill_internal.checkpoint c JOIN backfill_internal.slice s ON s.id = c.slice_id"
        " WHERE s.job_id = %s GROUP BY s.id) f"
    )

    def rows_done() -> int:
        row = watch.execute(done, [job]).fetchone()
        return row[0] if row else 0

    def rate(polled: bool) -> float:
        begun, before = time.monotonic(), rows_done()
        while time.monotonic() < begun + seconds:
            if polled:
                for name in ("progress", "dashboard"):
                    poll.execute(POLLS[name], prepare=False).fetchall()
            time.sleep(min(1, max(0, begun + seconds - time.monotonic())))
        return (rows_done() - before) / (time.monotonic() - begun)

    wait_until(lambda: rows_done() > 0, 60, "the fast job to begin")
    shares = []
    for pair in range(pairs):
        # Whoever is second may find another machine: they take turns.
        order = (True, False) if pair % 2 else (False, True)
        rates = {polled: rate(polled) for polled in order}
        state = db.value("SELECT state FROM backfill.progress WHERE job_id = %s", [job])
        assert state == "running", f"the fast job has {state} after {pair} pairs: ask for fewer, or for shorter ones"
        shares.append(rates[True] / rates[False])
    db.sql("SELECT backfill.cancel(%s, true)", [job])
    return shares
