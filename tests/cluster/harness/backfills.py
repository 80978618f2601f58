"""Jobs, from start to end, and the proof that they did what one UPDATE would have done."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
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
    with psycopg.connect(db.dsn(user), autocommit=True, connect_timeout=10, row_factory=dict_row) as connection:
        row = connection.execute("SELECT * FROM backfill.progress WHERE job_id = %s", [job]).fetchone()
    assert row is not None, f"{user} sees no job {job}"
    return row


def wait_for(db: Database, job: int, *states: str, timeout: float = 60) -> dict[str, Any]:
    """Waits until the job is in one of the states and no worker holds it; returns its row."""

    def there() -> dict[str, Any] | None:
        row = progress(db, job)
        if row["state"] in ENDED:
            assert row["state"] in states, f"job {job} is {row['state']}: {row['last_error']}"
        return row if row["state"] in states and (row["workers"] == 0 or row["state"] == "running") else None

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


def assert_same(db: Database, one: str, other: str) -> None:
    """Both tables hold the same rows, each as often."""
    for a, b in ((one, other), (other, one)):
        rows = db.sql(f"SELECT * FROM {a} EXCEPT ALL SELECT * FROM {b} LIMIT 3")
        assert rows == [], f"only in {a}: {rows}"


def need(db: Database, *what: str) -> None:
    """Skips the test where the server was built without ICU or comes without contrib's modules."""
    questions = {
        "icu": "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu')",
        "citext": "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citext')",
    }
    for name in what:
        if not db.value(questions[name]):
            pytest.skip(f"this server comes without {name}")
