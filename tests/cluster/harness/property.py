"""Runs a random case, and compares what came of it with what was promised."""

from __future__ import annotations

import json
import math
import threading
import time
from typing import Any

import psycopg
from psycopg.rows import dict_row

from harness.cases import Case
from harness.cluster import Cluster
from harness.database import Database
from harness.wait import wait_until
from harness.weather import Events, Writer

# How long a run with events is made to last, about.
SECONDS = 1.5
TIMEOUT = 100
# Far more than the workers and events of any case explain: they come and go for nothing.
MOST_STARTS = 200

# Rows of the table as it was when the job started, and whether each was to be updated.
BEFORE = "CREATE TABLE before AS SELECT rid, ({where}) IS TRUE AS wanted FROM t"
WRONG = """
SELECT t.rid, b.wanted, t.n, t.p, t.ctid::text, t.tableoid::regclass::text, to_jsonb(t) - 'pad'
FROM t LEFT JOIN before b USING (rid)
WHERE CASE WHEN b.rid IS NULL THEN t.n NOT IN (0, 1)
           WHEN {cancelled} THEN t.n NOT IN (0, b.wanted::int)
           ELSE t.n IS DISTINCT FROM b.wanted::int END
ORDER BY t.rid LIMIT 5
"""
COUNTS = """
SELECT (SELECT count(*) FROM t WHERE n = 1), (SELECT count(*) FROM t), (SELECT last_value FROM rids)
"""
LEFT_OVER = """
SELECT l.locktype, l.objid, l.objsubid, l.mode, l.pid FROM pg_locks l
WHERE l.locktype = 'advisory' AND l.objsubid BETWEEN 7701 AND 7715 OR l.relation = 't'::regclass
"""
WORKERS = """
SELECT pid, state, wait_event_type, wait_event, now() - xact_start AS xact, pg_blocking_pids(pid) AS blocked_by, query
FROM pg_stat_activity WHERE backend_type LIKE 'backfill%'
"""


class Violation(AssertionError):
    """A promise was not kept."""


class Watcher:
    """Polls backfill.progress, and complains of what it should never show."""

    def __init__(self, db: Database, job: int, events: Events) -> None:
        self.rows: list[dict[str, Any]] = []
        self.polls = 0
        self.complaint: str | None = None
        self._db, self._job, self._events = db, job, events
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it; complains."""
        self._stopping.set()
        self._thread.join(60)
        if self.complaint:
            raise Violation(self.complaint)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self._db.dsn(), autocommit=True, row_factory=dict_row) as connection:
                    self._poll(connection)
            except psycopg.OperationalError:
                self._stopping.wait(0.05)
            except Exception as error:
                self.complaint = self.complaint or f"progress: {error!r}"
                return

    def _poll(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        last: dict[str, Any] | None = None
        while not self._stopping.wait(0.015):
            # What a crash may take back, and a look at it that began before.
            crashed = self._events.crashed
            row = connection.execute("SELECT * FROM backfill.progress WHERE job_id = %s", [self._job]).fetchone()
            if row is None:
                self.complaint = "the job is not in the view"
                return
            self.polls += 1
            if last and crashed == self._events.crashed == last["crashed"]:
                self._compare(last, row)
            last = row | {"crashed": crashed}

    def _compare(self, last: dict[str, Any], row: dict[str, Any]) -> None:
        def complain(what: str) -> None:
            self.complaint = self.complaint or f"{what}: {_shown(last)} and then {_shown(row)}"

        for column in ("percent", "rows_done", "rows_updated"):
            if row[column] is not None and last[column] is not None and row[column] < last[column]:
                complain(f"{column} goes backwards")
        if last["percent"] is not None and row["percent"] is None:
            complain("percent is unknown again")
        if row["percent"] is not None and row["percent"] > 100:
            complain("more than 100 percent")
        if last["state"] == "completed" and row["state"] != "completed":
            complain("completed, but not for good")
        if row["rows_updated"] > row["rows_done"]:
            complain("more rows updated than passed")


def is_clear(cluster: Cluster) -> bool:
    """Drops the tables of the last case; false if an ANALYZE by autovacuum, of a partition, won a deadlock."""
    try:
        cluster.sql("DROP TABLE IF EXISTS t, before, u; DROP SEQUENCE IF EXISTS rids")
    except psycopg.errors.DeadlockDetected:
        return False
    return True


def run(cluster: Cluster, case: Case, sabotage: str = "") -> dict[str, Any]:
    """Runs the case in the database postgres; a Violation says what is wrong. `sabotage` comes before the check."""
    log_from = cluster.log.stat().st_size
    wait_until(lambda: is_clear(cluster), TIMEOUT, "the tables of the last case to be gone")
    for statement in case.statements():
        cluster.sql(statement)
    cluster.sql(BEFORE.format(where=case.where or "true"))
    cluster.sql("ANALYZE t")
    if case.slices > 1:
        # The planner's idea of the table decides how many slices there are.
        share = 65_000.0 * case.slices / max(case.rows, 1)
        cluster.sql(
            "UPDATE pg_class SET reltuples = reltuples * %s WHERE relkind = 'r' AND relname ~ '^t(_|$)'", [share]
        )
    job = cluster.value(
        "SELECT backfill.start('t', %s, %s, set_clause => 'n = n + 1', where_clause => %s, options => %s)",
        [case.batch_size, _sleep_ms(case), case.where, json.dumps(case.options)],
    )
    events = Events(cluster, case, job)
    writers: list[Writer] = []
    watcher = Watcher(cluster, job, events)
    try:
        writers += [Writer(cluster, case, kind) for kind in case.writers]
        _let_happen(events, case)
        _wait_for_end(events)
        events.wait()
        for writer in writers:
            writer.stop()
        watcher.stop()
        if case.failing:
            _retry(events)
        if sabotage:
            cluster.sql(sabotage)
        return _check(events, log_from) | {"events": events.happened, "polls": watcher.polls}
    except Violation:
        raise
    except AssertionError as error:
        raise Violation(str(error)) from error
    finally:
        watcher._stopping.set()
        for writer in writers:
            writer._stopping.set()


def _sleep_ms(case: Case) -> int:
    if not case.events:
        return 0
    if "target_ms" in case.options or case.slices > 1:
        # Batches are much smaller than asked for, here because the statistics lie.
        return 3
    rows = case.rows
    small = "scan_limit" in case.options or ("insert" in case.writers and case.batch_size < 10)
    if case.writers and small:
        # Those that are inserted meanwhile count where a read, or a batch, is a row or a few.
        rows += 1000
    batches = 2 * rows / min(case.batch_size, case.options.get("scan_limit", 1_000_000)) + 1
    if case.failing:
        # Each row that fails is found by halves of the batch it is in, with a pause after each.
        batches += case.rows / 37 * 2 * math.log2(case.batch_size + 1)
    return max(0, min(300, round(SECONDS * 1000 * case.options.get("workers", 1) / batches)))


def _let_happen(events: Events, case: Case) -> None:
    began = time.monotonic()
    for share, kind, number in case.events:
        left = began + share * SECONDS - time.monotonic()
        if left > 0:
            time.sleep(left)
        events.happen(kind, number)


def _wait_for_end(events: Events) -> None:
    db, job = events.db, events.job

    def ended() -> bool:
        row = _row(db, job)
        if row["state"] == "cancelled" and "cancel" in events.happened:
            return True
        if row["state"] in ("failed", "cancelled", "paused") and not (row["last_error"] and events.forgive(row)):
            raise Violation(f"the job is {row['state']}: {row['last_error']}")
        return row["state"] == "completed"

    try:
        wait_until(ended, TIMEOUT, "the job to complete", every=0.05)
    except Violation:
        raise
    except AssertionError:
        raise Violation(f"the job does not end: {_shown(_row(db, job))}; workers {db.sql(WORKERS)}") from None


def _retry(events: Events) -> None:
    """Mends what makes rows fail, and has them done."""
    db, job = events.db, events.job
    failed = _row(db, job)["rows_failed"]
    undone = db.value("SELECT count(*) FROM t JOIN before b USING (rid) WHERE rid % 37 = 5 AND n = 0 AND b.wanted")
    if failed < undone:
        raise Violation(f"{undone} rows failed, but the view says {failed}")
    db.sql("ALTER TABLE t DROP CONSTRAINT failing")
    if db.value("SELECT backfill.retry_failed(%s)", [job]) != failed:
        raise Violation(f"not all of {failed} failed rows are tried again")
    _wait_for_end(events)
    if left := _row(db, job)["rows_failed"]:
        raise Violation(f"{left} rows failed again, of nothing")
    events.retries += bool(failed)


def _check(events: Events, log_from: int) -> dict[str, Any]:
    cluster, case, job = events.db.cluster, events.case, events.job
    others = [_complete(cluster, other) for other in events.others]
    try:
        wait_until(lambda: cluster.sql(LEFT_OVER) == [], 20, "locks to go")
        wait_until(lambda: cluster.worker_pids(job) == [], 20, "workers to go")
        # One that was asked for before the end may come only now; it sees that the job has ended, and leaves.
        row = wait_until(lambda: (at := _row(cluster, job))["workers"] == 0 and at, 20, "late workers to go")
    except AssertionError as error:
        raise Violation(f"something stays behind: {error}") from error
    cancelled = row["state"] == "cancelled"
    wrong = cluster.sql(WRONG.format(cancelled=cancelled))
    if wrong:
        counts = cluster.sql(
            "SELECT b.wanted, t.n, count(*) FROM t LEFT JOIN before b USING (rid) GROUP BY 1, 2 ORDER BY 1, 2"
        )
        raise Violation(f"rows not as promised: {wrong}; (wanted, n, count): {counts}; {_shown(row)}")
    updated, rows, last_rid = cluster.sql(COUNTS)[0]
    if not updated <= row["rows_updated"] <= updated + (last_rid - rows):
        raise Violation(f"{updated} rows are updated, {last_rid - rows} gone, but the view says {_shown(row)}")
    if row["last_error"] or row["waiting_for"] or row["workers"] or (row["percent"] != 100 and not cancelled):
        raise Violation(f"an odd end: {_shown(row)}")
    # In physical order, rows that were done may be met again where they have moved to, or by a later walk by key.
    by_key_alone = row["key_columns"] and "in physical order" not in (row["note"] or "")
    most = case.rows + (0 if by_key_alone else row["rows_updated"])
    if case.calm and not case.rows <= row["rows_done"] <= most:
        raise Violation(f"nobody else was there, but of {case.rows} rows were passed: {_shown(row)}")
    _check_events(cluster, job, row["state"], 1 + events.retries)
    _check_log(cluster, log_from)
    return row | {"others": len(others)}


def _complete(db: Database, job: int) -> None:
    """Another job, on table u, is done, too."""
    wait_until(lambda: _row(db, job)["state"] == "completed", TIMEOUT, f"job {job} to complete")
    counts = db.sql("SELECT n, count(*) FROM u GROUP BY n")
    if counts != [(1, 500)]:
        raise Violation(f"another job has done its rows like this: {counts}")


def _check_events(db: Database, job: int, end: str, ends: int) -> None:
    events = db.sql(
        "SELECT at::time::text, event, old, new FROM backfill.events WHERE job_id = %s ORDER BY event_id", [job]
    )
    names = [event for _, event, _, _ in events]
    if names.count("completed") + names.count("cancelled") != ends or end not in names:
        raise Violation(f"it did not end as often as it should, {ends}: {events}")
    if names.count("worker started") > MOST_STARTS:
        raise Violation(f"workers were started too often: {events[:50]}")


def _check_log(cluster: Cluster, begin: int) -> None:
    with cluster.log.open(errors="replace") as log:
        log.seek(begin)
        for line in log:
            if any(word in line for word in ("PANIC:", "TRAP:", "panicked", "signal 11", "signal 6")):
                raise Violation(f"in the server log: {line}")


def _row(db: Database, job: int) -> dict[str, Any]:
    with psycopg.connect(db.dsn(), autocommit=True, connect_timeout=10, row_factory=dict_row) as connection:
        row = connection.execute("SELECT * FROM backfill.progress WHERE job_id = %s", [job]).fetchone()
    assert row is not None
    return row


def _shown(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items() if value is not None)
