"""A million orders get a new column before your eyes, with a pause, a standby that lags, and a crash on the way;
then a copy of them by one UPDATE, to compare.

Run it through `make demo`. KEEP=1 leaves the server running for a look around.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from demo_view import Progress, View

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))

from harness import DURABLE, Cluster, Server, process  # noqa: E402

ROWS = 1_000_000
CONF = DURABLE | {
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "maintenance_work_mem": "256MB",
    "log_min_messages": "warning",
}
ORDERS = f"""
CREATE TABLE orders AS
SELECT id, (random() * 100000)::int AS customer_id,
       (ARRAY['new','paid','shipped','done'])[1 + (id % 4)] AS status,
       now() - random() * interval '1000 hours' AS created_at,
       random() * 1000 AS amount, repeat(md5(id::text), 3) AS payload
FROM generate_series(1::bigint, {ROWS}) id;
"""
INDEXES = """
ALTER TABLE orders ADD PRIMARY KEY (id);
CREATE INDEX ON orders (customer_id);
CREATE INDEX ON orders (created_at);
CREATE INDEX ON orders (amount);
CREATE INDEX ON orders (status, created_at);
"""
# The same table once more, for the one UPDATE.
COPY = "CREATE TABLE orders_copy AS TABLE orders;"
MIGRATION = """
ALTER TABLE orders ADD amount_new numeric,
                   ADD touched int NOT NULL DEFAULT 0;
"""
START = """
SELECT backfill.start('orders', 5000, 0,
         set_clause => 'amount_new = amount, touched = touched + 1',
         name => 'orders: amount as numeric');
"""
ONE_UPDATE = """
UPDATE orders_copy SET amount_new = amount, touched = touched + 1;
"""
WORKED = "SELECT seconds_working, wal_bytes FROM backfill.progress WHERE job_id = %s"
PROGRESS = """
SELECT state, percent, rows_done, rows_total, rows_per_second, eta, waiting_for,
       (SELECT min(pid) FROM pg_stat_activity WHERE application_name LIKE 'backfill job ' || job_id || ':%%')
FROM backfill.progress WHERE job_id = %s
"""
SIZES = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn, pg_table_size('{0}'), pg_indexes_size('{0}')"
GIVE_UP_AFTER = 300


@dataclass(frozen=True)
class Cost:
    """What a way to do it took: seconds, bytes of WAL, and how the table and its indexes grew, as shown."""

    seconds: float
    wal: float
    heap: str
    indexes: str


class Demo:
    """One run, from the empty server to the report."""

    def __init__(self, cluster: Cluster, view: View) -> None:
        self.cluster = cluster
        self.view = view
        self.job = 0
        self.last = Progress("starting", None, 0, None, None, None)
        self.deadline = time.monotonic() + GIVE_UP_AFTER
        self._connection: psycopg.Connection | None = None

    def run(self) -> bool:
        """Shows it all; True if every row was updated exactly once."""
        self.make_table()
        self.view.step("The migration: two new columns. Instant, but a million rows have no value yet.")
        self.show_and_run(MIGRATION)
        self.cluster.sql(MIGRATION.replace("orders", "orders_copy"))
        before = self.sizes("orders")
        self.view.step("One call starts a background worker. No client has to stay connected.")
        started = time.monotonic()
        self.job = self.show_and_run(START)[0][0]
        self.view.note(f"job {self.job}; watching [bold]backfill.progress[/]")
        with self.view.watching():
            self.watch(until=lambda: self.at(30))
            paused = self.pause()
            self.watch(until=lambda: self.at(50))
            lagged = self.lag()
            self.watch(until=lambda: self.at(75))
            self.crash()
            self.watch(until=lambda: self.last.state == "completed")
        seconds = time.monotonic() - started
        job = self.cost(before, "orders", float(self.cluster.sql(WORKED, [self.job])[0][0]))
        self.view.step("The same by one UPDATE, on a copy of the table, while nothing disturbs it")
        before = self.sizes("orders_copy")
        started = time.monotonic()
        self.show_and_run(ONE_UPDATE)
        one = self.cost(before, "orders_copy", time.monotonic() - started)
        return self.report(job, one, (seconds, paused, lagged))

    def sizes(self, table: str) -> list[float]:
        """WAL written so far, and the sizes of the table and of its indexes, in bytes."""
        return [float(size) for size in self.cluster.sql(SIZES.format(table))[0]]

    def cost(self, before: list[float], table: str, seconds: float) -> Cost:
        """What was written since, with the time that it took."""
        wal, heap, indexes = (now - then for now, then in zip(self.sizes(table), before, strict=True))
        return Cost(seconds, wal, _growth(heap, before[1]), _growth(indexes, before[2]))

    def make_table(self) -> None:
        """The table as an application would have it."""
        self.view.step("A table with a million orders and five indexes")
        for statement in (ORDERS, INDEXES):
            self.show_and_run(statement)
        self.cluster.sql(COPY)
        self.cluster.sql(INDEXES.replace("orders", "orders_copy"))
        self.cluster.sql("VACUUM (FREEZE, ANALYZE) orders, orders_copy")
        self.cluster.sql("CHECKPOINT")
        self.cluster.sql("CREATE EXTENSION backfill")

    def pause(self) -> float:
        """Pauses for two seconds and goes on; returns how long it stood still."""
        if self.last.state == "completed":
            self.view.note("done before there was time for a pause: a fast machine")
            return 0.0
        self.view.note("pausing, as one would when the site is slow")
        self.show_and_run(f"SELECT backfill.pause({self.job});")
        self.watch(until=lambda: self.last.state == "paused")
        since = time.monotonic()
        rows = self.last.rows_done
        self.watch(until=lambda: time.monotonic() > since + 2)
        self.view.note(f"two seconds at {rows:,} rows: nothing held, nothing lost; on we go")
        self.show_and_run(f"SELECT backfill.resume({self.job});")
        self.watch(until=lambda: self.last.state != "paused")
        return time.monotonic() - since

    def lag(self) -> float:
        """A standby that does not follow: the job waits, and goes on when that is over; returns how long."""
        if self.last.state == "completed":
            self.view.note("done before there was time for a standby: a fast machine")
            return 0.0
        self.view.note("a standby does not follow any more: its slot keeps WAL")
        self.show_and_run("SELECT pg_create_physical_replication_slot('replica1', true);")
        options = '{"max_lag_bytes": "16MB"}'
        self.show_and_run(f"SELECT backfill.alter({self.job}, options => '{options}');")
        self.watch(until=lambda: self.last.waiting_for or self.last.state == "completed")
        since = time.monotonic()
        self.view.note(f"[yellow]{self.last.waiting_for}[/]")
        self.watch(until=lambda: time.monotonic() > since + 2)
        self.show_and_run("SELECT pg_drop_replication_slot('replica1');")
        self.watch(until=lambda: not self.last.waiting_for or self.last.state == "completed")
        took = time.monotonic() - since
        self.view.note(f"the slot is gone, and the job goes on by itself, after {took:.1f} s")
        return took

    def crash(self) -> None:
        """kill -9 to the worker: the server restarts, and the job goes on by itself."""
        self.watch(until=lambda: self.last.worker or self.last.state == "completed")
        victim = self.last.worker
        if victim is None:
            self.view.note("done before there was time for a crash: a fast machine")
            return
        self.view.note(f"[bold red]kill -9 {victim}[/]: the worker dies in the middle of a batch")
        killed = time.monotonic()
        process.kill_and_wait(victim)
        self.watch(until=lambda: self.last.worker not in (None, victim))
        took = time.monotonic() - killed
        self.view.note(f"after crash recovery the launcher took the job up again, {took:.1f} s later")

    def at(self, percent: int) -> bool:
        """True once the job is that far, or over already on a fast machine."""
        return (self.last.percent or 0) >= percent or self.last.state == "completed"

    def watch(self, until: Callable[[], object]) -> None:
        """Polls and shows the progress until something is so."""
        while True:
            self.look()
            self.view.progress(self.last)
            if until():
                return
            if self.last.state in ("failed", "cancelled"):
                raise RuntimeError(f"the job is {self.last.state}\n{self.cluster.log_tail()}")
            if time.monotonic() > self.deadline:
                raise RuntimeError(f"no end after {GIVE_UP_AFTER} s: {self.last}\n{self.cluster.log_tail()}")
            time.sleep(0.05)

    def look(self) -> None:
        """Asks backfill.progress once; a server in recovery is a state to show, too."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self.cluster.connect()
            row = self._connection.execute(PROGRESS, [self.job]).fetchone()
        except psycopg.OperationalError:
            if self._connection:
                self._connection.close()
            self.last.state, self.last.worker, self.last.eta = "crash recovery", None, None
            return
        if row is None:
            raise RuntimeError(f"job {self.job} is gone\n{self.cluster.log_tail()}")
        state, percent, done, total, rate, eta, waiting_for, worker = row
        number = None if percent is None else float(percent)
        rate = None if rate is None else float(rate)
        self.last = Progress(state, number, done or 0, total, rate, eta, worker, waiting_for)

    def report(self, job: Cost, one: Cost, times: tuple[float, float, float]) -> bool:
        """Counts for real what happened to the rows, and what it cost, beside one UPDATE."""
        self.view.step("What happened, counted in the table itself")
        counted = self.show_and_run(
            "SELECT count(*), count(*) FILTER (WHERE touched = 1),\n"
            "       count(*) FILTER (WHERE amount_new = amount::numeric) FROM orders;"
        )
        rows, once, right = counted[0]
        seconds, paused, lagged = times
        self.view.table(
            [
                ("Rows", f"{rows:,}"),
                ("Updated exactly once", f"{_verdict(once == rows)} {once:,} of {rows:,}"),
                ("With the right value", f"{_verdict(right == rows)} {right:,} of {rows:,}"),
                ("Time", f"{seconds:.1f} s: {paused:.1f} s paused, {lagged:.1f} s gave way, a crash"),
            ]
        )
        self.view.comparison(
            ("", "backfill", "one UPDATE"),
            [
                ("Time at work", f"{job.seconds:.1f} s", f"{one.seconds:.1f} s"),
                ("WAL written", f"{job.wal / 2**20:,.0f} MB", f"{one.wal / 2**20:,.0f} MB"),
                ("Growth of the heap", job.heap, one.heap),
                ("Growth of its indexes", job.indexes, one.indexes),
                ("Rows locked until", "the batch commits", "the end"),
                ("After a crash", "it goes on", "it starts again"),
            ],
        )
        return once == right == rows == ROWS

    def show_and_run(self, statement: str) -> list[tuple]:
        """Prints a statement and runs just that."""
        self.view.sql(statement)
        return self.cluster.sql(statement)


def _verdict(good: bool) -> str:
    return "[bold green]✓[/]" if good else "[bold red]✗[/]"


def _growth(bytes_more: float, before: float) -> str:
    return f"{bytes_more / 2**20:,.0f} MB ({100 * bytes_more / before:+.0f} %)"


def farewell(cluster: Cluster, view: View) -> None:
    """How to get into the server that stays, and how to be rid of it."""
    psql = cluster.server.program("psql")
    view.step("The server stays. To look around:")
    view.console.print(f"{psql} -h {cluster.folder} -p {cluster.port} -U postgres", soft_wrap=True)
    view.step("To stop and remove it:")
    view.console.print(f"kill -INT {cluster.pid}; sleep 2; rm -rf {cluster.folder}", soft_wrap=True)


def main() -> int:
    """Runs the demo; the exit code says whether each row was updated exactly once."""
    process.exit_on_sigterm()
    view = View()
    server = Server()
    server.hold()
    cluster = Cluster(server=server, conf=CONF)
    kept = False
    try:
        cluster.__enter__()
        version = cluster.value("SHOW server_version").split()[0]
        view.title(f"backfill on PostgreSQL {version}: a million rows, a pause, a lag, a crash")
        good = Demo(cluster, view).run()
        if os.environ.get("KEEP"):
            cluster.close_connections()
            farewell(cluster, view)
            kept = True
        return 0 if good else 1
    except KeyboardInterrupt:
        return 130
    except (AssertionError, RuntimeError, psycopg.Error) as error:
        view.console.print(f"[bold red]The demo failed:[/] {error}", soft_wrap=True)
        return 1
    finally:
        if not kept:
            cluster.destroy()


if __name__ == "__main__":
    sys.exit(main())
