"""Jobs, from start to end: what most tests need of them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import psycopg
from psycopg.rows import dict_row

from harness.database import Database
from harness.wait import wait_until

ENDED = ("completed", "failed", "cancelled")


def start(
    db: Database,
    relation: str,
    set_clause: str,
    *,
    batch: int = 777,
    sleep_ms: int = 0,
    where: str | None = None,
    name: str | None = None,
    options: dict[str, Any] | None = None,
    session: str = "",
    user: str = "postgres",
) -> int:
    """Starts a backfill in a session of its own, after the statements in `session`; returns its id."""
    with psycopg.connect(db.dsn(user), autocommit=True, connect_timeout=10) as connection:
        if session:
            connection.execute(session)
        row = connection.execute(
            "SELECT backfill.start(%s::regclass, %s, %s, %s, %s, %s, %s)",
            [relation, batch, sleep_ms, set_clause, where, name, json.dumps(options or {})],
        ).fetchone()
    assert row is not None
    return row[0]


def progress(db: Database, job: int, *, user: str = "postgres") -> dict[str, Any]:
    """The job's row of the view."""
    with Look(db, user) as look:
        return look(job)


class Look:
    """Looks at jobs again and again on one connection: a new one takes four times as long, to read the rule."""

    def __init__(self, db: Database, user: str = "postgres") -> None:
        self.db = db
        self.user = user
        self.connection: psycopg.Connection | None = None

    def __enter__(self) -> Look:
        return self

    def __exit__(self, *_: object) -> None:
        if self.connection:
            self.connection.close()

    def __call__(self, job: int) -> dict[str, Any]:
        """The job's row; a connection that was lost in a crash, or knows the view as it was before, is made anew."""
        if self.connection:
            try:
                return self._row(self.connection, job)
            except (psycopg.OperationalError, psycopg.errors.FeatureNotSupported):
                self.connection.close()
        # JSON is read as UTF-8, whatever the database has.
        options: dict[str, Any] = {"client_encoding": "utf8", "connect_timeout": 10}
        self.connection = psycopg.connect(self.db.dsn(self.user), autocommit=True, **options)
        return self._row(self.connection, job)

    def _row(self, connection: psycopg.Connection, job: int) -> dict[str, Any]:
        query = "SELECT * FROM backfill.progress WHERE job_id = %s"
        row = connection.cursor(row_factory=dict_row).execute(query, [job], prepare=True).fetchone()
        assert row is not None, f"{self.user} sees no job {job}"
        return row


def wait_for(db: Database, job: int, *states: str, timeout: float = 60) -> dict[str, Any]:
    """Waits until the job is in one of the states and no worker holds it; returns its row."""

    def there() -> dict[str, Any] | None:
        row = look(job)
        if row["state"] in ENDED:
            assert row["state"] in states, f"job {job} is {row['state']}: {row['last_error']}"
        return row if row["state"] in states and (row["workers"] == 0 or row["state"] == "running") else None

    with Look(db) as look:
        return wait_until(there, timeout, f"job {job} to be {' or '.join(states)}")


def complete(db: Database, job: int, timeout: float = 60) -> dict[str, Any]:
    """Waits for the job's end, which must be a good one; returns its row."""
    row = wait_for(db, job, "completed", timeout=timeout)
    assert row["percent"] == 100 and row["waiting_for"] is None and row["last_error"] is None, row
    return row


def fail(db: Database, job: int, timeout: float = 60) -> str:
    """Waits until the job has failed; returns the error that the view shows."""
    row = wait_for(db, job, "failed", timeout=timeout)
    assert row["last_error"], row
    return row["last_error"]


def start_count(
    db: Database,
    name: str = "t",
    batch_size: int = 100,
    sleep_ms: int = 0,
    user: str = "postgres",
    options: dict[str, Any] | None = None,
) -> int:
    """Starts the count on such a table; returns the job's id."""
    return start(db, name, "n = n + 1", batch=batch_size, sleep_ms=sleep_ms, user=user, options=options)


def wait_for_state(db: Database, job: int, state: str, timeout: float = 60) -> None:
    """Waits until the job has the state; it is an error at once if it has come to another end."""

    def reached() -> bool:
        row = look(job)
        now = row["state"]
        assert now == state or now not in ENDED, f"job {job} is {now}, not {state}: {row['last_error']}"
        return now == state

    with Look(db) as look:
        wait_until(reached, timeout, f"job {job} to be {state}")


def wait_for_rows(db: Database, job: int, rows: int, timeout: float = 60) -> None:
    """Waits until the walk has passed so many rows."""
    with Look(db) as look:
        wait_until(lambda: look(job)["rows_done"] >= rows, timeout, f"job {job} to pass {rows} rows")


def wait_for_nap_in_batch(db: Database, job: int) -> int:
    """Waits until the job's worker sleeps within a batch, and returns its pid."""
    return _wait_for_activity(db, job, "state = 'active' AND wait_event = 'PgSleep'")


def wait_for_nap_between_batches(db: Database, job: int) -> int:
    """Waits until the job's worker sleeps between two batches, and returns its pid."""
    return _wait_for_activity(db, job, "state = 'idle' AND wait_event = 'Extension'")


def wait_for_no_worker(db: Database, job: int) -> None:
    """Waits until no process works on the job."""
    wait_until(lambda: not db.worker_pids(job), 30, f"the worker of job {job} to end")


def cancel_running(db: Database) -> None:
    """Cancels what runs, at the end of a test."""
    for (job,) in db.sql("SELECT job_id FROM backfill.progress WHERE state IN ('running', 'pausing')"):
        # It may end by itself just now.
        with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):
            db.sql("SELECT backfill.cancel(%s, true)", [job])


def switch(db: Database, on: bool) -> None:
    """Throws the kill switch as an administrator does; LOAD, since without preload nobody knows the setting."""
    value = "on" if on else "off"
    db.psql(f"LOAD 'backfill'; ALTER SYSTEM SET backfill.enabled = {value}; SELECT pg_reload_conf();")


def _wait_for_activity(db: Database, job: int, condition: str) -> int:
    here = "datname = current_database() AND application_name LIKE %s"
    query = f"SELECT pid FROM pg_stat_activity WHERE {here} AND {condition}"
    rows = wait_until(lambda: db.sql(query, [f"backfill job {job}:%"]), 60, f"worker of job {job}: {condition}")
    return rows[0][0]
