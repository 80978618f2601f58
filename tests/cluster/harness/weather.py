"""What happens to a table and its job while the workers are at it: writers, and single events."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors

from harness.cases import Case
from harness.database import Database
from harness.jobs import switch
from harness.wait import wait_until

# A job in physical order does later rows, too, and one that is slower than its clients would go on for long.
MOST_INSERTS = 1500


class Writer:
    """A client that writes one row a transaction, through whatever happens to the server."""

    def __init__(self, db: Database, case: Case, kind: str) -> None:
        self.kind = kind
        self.deleted = self.written = 0
        self.error: Exception | None = None
        self._db, self._case = db, case
        self._rng = random.Random(f"{case.seed}/{case.number}/{kind}")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), f"writer {self.kind} hangs"
        if self.error:
            raise self.error

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self._db.dsn(), autocommit=True, connect_timeout=10) as connection:
                    while not self._stopping.is_set():
                        self._write(connection)
                        self._stopping.wait(0.002)
            except (psycopg.OperationalError, errors.InternalError_, errors.CheckViolation):
                # The server is down for a moment, this was a deadlock's victim, or a partition is gone.
                self._stopping.wait(0.05)
            except Exception as error:
                self.error = error
                return

    def _write(self, connection: psycopg.Connection) -> None:
        rows, rng = self._case.rows, self._rng
        rid = rng.randint(1, max(rows, 1))
        if self.kind == "touch":
            text = f"UPDATE t SET w = w + 1 WHERE rid = {rid}"
        elif self.kind == "widen":
            text = f"UPDATE t SET pad = pad || 'more' WHERE rid = {rid} AND length(pad) < 1500"
        elif self.kind == "widest":
            pad = f"left(repeat(md5(rid::text), 60), {rng.randint(1, 1900)})"
            text = f"UPDATE t SET pad = {pad}, w = w + 1 WHERE rid = {rid}"
        elif self.kind == "hammer":
            text = f"UPDATE t SET w = w + 1 WHERE rid = {rows // 2 + 1}"
        elif self.kind == "delete":
            if self.deleted > rows // 3:
                return
            text = f"DELETE FROM t WHERE rid = {rid}"
            self.deleted += 1
        elif self.written > MOST_INSERTS:
            return
        else:
            text = f"INSERT INTO t SELECT {self._case.values} FROM (SELECT nextval('rids') g) s"
        connection.execute(text)
        self.written += 1


class Events:
    """Lets things happen to the job; `crashed` counts what may have lost commits."""

    def __init__(self, db: Database, case: Case, job: int) -> None:
        self.db, self.case, self.job = db, case, job
        self.crashed = self.cancelled = self.retries = 0
        self.others: list[int] = []
        self.happened: list[str] = []
        self._threads: list[threading.Thread] = []

    def happen(self, kind: str, number: int) -> None:
        """One event; a job that has ended meanwhile is none of its concern."""
        self.happened.append(kind)
        event: Callable[[random.Random], None] = getattr(self, "_" + kind.replace(" ", "_"))
        try:
            event(random.Random(number))
        except (errors.ObjectNotInPrerequisiteState, errors.InvalidParameterValue):
            if kind != "resume" and self.state() not in ("completed", "failed", "cancelling", "cancelled"):
                raise

    def wait(self) -> None:
        """Waits for what goes on in the background."""
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client in the background hangs"

    def state(self) -> str:
        """The job's state now."""
        return self.db.value("SELECT state FROM backfill.progress WHERE job_id = %s", [self.job])

    # Calls

    def _call(self, function: str) -> None:
        self.db.sql(f"SELECT backfill.{function}(%s)", [self.job])

    def _pause(self, rng: random.Random) -> None:
        self._call("pause")
        wait_until(lambda: self.state() in ("paused", "completed", "cancelled"), 30, "the job to pause")
        if self.state() == "paused":
            # They let go of the job, and then exit.
            wait_until(lambda: not self.db.worker_pids(self.job), 10, "the processes of a paused job to exit")
            time.sleep(rng.random() / 10)
            self._call("resume")

    def _resume(self, _: random.Random) -> None:
        self._call("resume")

    def _alter(self, batch: int | None = None, sleep: int | None = None, **options: Any) -> None:
        self.db.sql("SELECT backfill.alter(%s, %s, %s, %s)", [self.job, batch, sleep, json.dumps(options)])

    def _alter_batch(self, rng: random.Random) -> None:
        sizes = [1, 10, 100, 1000, 10000] if self.case.rows < 4000 else [50, 100, 10000]
        self._alter(batch=rng.choice(sizes), sleep=0)

    def _alter_sleep(self, rng: random.Random) -> None:
        self._alter(sleep=rng.choice([0, 1, 5]))

    def _alter_workers(self, rng: random.Random) -> None:
        self._alter(workers=rng.randint(1, 6))

    def _alter_strategy(self, rng: random.Random) -> None:
        self._alter(strategy=rng.choice(["waves", "sequential", "auto"]), waves=rng.randint(2, 30))

    def _alter_target(self, rng: random.Random) -> None:
        self._alter(sleep=0, target_ms=rng.choice([1, 10, 1000]), scan_limit=rng.choice([100, 1000, 100000]))

    def _cancel(self, rng: random.Random) -> None:
        self.db.sql("SELECT backfill.cancel(%s, %s)", [self.job, rng.random() < 0.5])

    def _another_job(self, _: random.Random) -> None:
        if not self.others:
            self.db.sql("CREATE TABLE u (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)")
            self.db.sql("INSERT INTO u SELECT generate_series(1, 500)")
            call = "SELECT backfill.start('u', 20, 1, set_clause => 'n = n + 1', options => '{\"workers\": 3}')"
            self.others.append(self.db.value(call))

    # Blows

    def _worker(self, rng: random.Random) -> int | None:
        pids = self.db.worker_pids(self.job)
        return rng.choice(pids) if pids else None

    def _kill(self, rng: random.Random) -> None:
        if pid := self._worker(rng):
            self.crashed += 1
            self.db.cluster.kill_backend(pid)

    def _terminate(self, rng: random.Random) -> None:
        if pid := self._worker(rng):
            self.db.sql("SELECT pg_terminate_backend(%s, 10000)", [pid])
            # The launcher looks then; else it may be a minute.
            self.db.cluster.reload()

    def _cancel_query(self, rng: random.Random) -> None:
        if pid := self._worker(rng):
            self.cancelled += 1
            self.db.sql("SELECT pg_cancel_backend(%s)", [pid])

    def forgive(self, row: dict[str, Any]) -> bool:
        """Resumes a job that has failed because a statement of its was cancelled here; whether that is why."""
        if self.cancelled == 0 or "SQLSTATE 57014" not in row["last_error"]:
            return False
        self.cancelled -= 1
        wait_until(lambda: not self.db.worker_pids(self.job), 30, "the other workers of a failed job to end")
        self._call("resume")
        return True

    def _immediate(self, _: random.Random) -> None:
        self.crashed += 1
        self.db.cluster.restart("immediate")

    def _fast(self, _: random.Random) -> None:
        self.crashed += 1
        self.db.cluster.restart("fast")

    def _crash(self, _: random.Random) -> None:
        self.crashed += 1
        self.db.cluster.crash()
        self.db.cluster.start()

    def _switch(self, rng: random.Random) -> None:
        switch(self.db, on=False)
        wait_until(lambda: not self.db.worker_pids(self.job), 30, "the workers to stop for the kill switch")
        time.sleep(rng.random() / 10)
        switch(self.db, on=True)

    # Others

    def _leaf(self, rng: random.Random) -> str:
        leaves = self.db.sql("SELECT relid::regclass::text FROM pg_partition_tree('t') WHERE isleaf ORDER BY 1")
        return rng.choice(leaves)[0] if leaves else "t"

    def _detach(self, rng: random.Random) -> None:
        self._partition(rng, "ALTER TABLE {parent} DETACH PARTITION {leaf}; DROP TABLE {leaf}")

    def _drop_partition(self, rng: random.Random) -> None:
        self._partition(rng, "DROP TABLE {leaf}")

    def _partition(self, rng: random.Random, statement: str) -> None:
        leaf = self._leaf(rng)
        parent = self.db.sql("SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = %s::regclass", [leaf])
        if parent:
            self.db.sql(statement.format(parent=parent[0][0], leaf=leaf))

    def _vacuum_full(self, rng: random.Random) -> None:
        self.db.sql(f"VACUUM FULL {self._leaf(rng)}")

    def _vacuum(self, rng: random.Random) -> None:
        self.db.sql(f"VACUUM (FREEZE) {self._leaf(rng)}")

    def _analyze(self, _: random.Random) -> None:
        self.db.sql("ANALYZE t")

    def _cluster(self, rng: random.Random) -> None:
        leaf = self._leaf(rng)
        index = self.db.sql(
            "SELECT indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = indexrelid"
            " JOIN pg_am a ON a.oid = relam AND amname = 'btree'"
            " WHERE indrelid = %s::regclass AND indpred IS NULL AND indisvalid ORDER BY 1",
            [leaf],
        )
        if index:
            self.db.sql(f"CLUSTER {leaf} USING {rng.choice(index)[0].split('.')[-1]}")

    def _rewrite_column(self, rng: random.Random) -> None:
        self.db.sql(f"ALTER TABLE t ADD COLUMN IF NOT EXISTS r{rng.randrange(9)} float DEFAULT random()")

    def _set_fillfactor(self, rng: random.Random) -> None:
        leaf = self._leaf(rng)
        self.db.sql(f"ALTER TABLE {leaf} SET (fillfactor = {rng.choice([10, 50, 100])})")
        self.db.sql(f"VACUUM FULL {leaf}")

    def _add_column(self, rng: random.Random) -> None:
        self.db.sql(f"ALTER TABLE t ADD COLUMN IF NOT EXISTS extra{rng.randrange(9)} int DEFAULT 7")

    def _add_index(self, rng: random.Random) -> None:
        self.db.sql(f"CREATE INDEX ON t {rng.choice(['(w)', '(n)', '(pad)', '(part)'])}")

    def _drop_index(self, _: random.Random) -> None:
        self.db.sql("DROP INDEX IF EXISTS t_0")

    def _hold_snapshot(self, rng: random.Random) -> None:
        self._aside("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()", rng.uniform(0.2, 1.5))

    def _lock_row(self, rng: random.Random) -> None:
        rid = rng.randint(1, max(self.case.rows, 1))
        self._aside(f"BEGIN; SELECT FROM t WHERE rid = {rid} FOR UPDATE", rng.uniform(0.1, 0.6))

    def _aside(self, statements: str, seconds: float) -> None:
        """Keeps a transaction open for a while; the server may crash meanwhile."""

        def hold() -> None:
            try:
                with psycopg.connect(self.db.dsn(), autocommit=True, connect_timeout=10) as connection:
                    connection.execute(statements)
                    time.sleep(seconds)
            except psycopg.Error:
                pass

        self._threads.append(threading.Thread(target=hold, daemon=True))
        self._threads[-1].start()
