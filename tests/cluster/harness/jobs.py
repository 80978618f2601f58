"""What most tests of a job's life need: a table to walk, its state, and a worker caught in the act."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb

from harness.database import Database
from harness.wait import wait_until


def make_table(db: Database, rows: int, name: str = "t") -> None:
    """A table (id primary key, n = 0), analysed; `n = n + 1` counts how often a row was updated."""
    db.sql(
        f"CREATE TABLE {name} (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);"
        f"INSERT INTO {name} SELECT generate_series(1, {rows})"
    )
    db.sql(f"ANALYZE {name}")


def counts(db: Database, name: str = "t") -> list[tuple[int, int]]:
    """How many rows were updated how often."""
    return db.sql(f"SELECT n, count(*) FROM {name} GROUP BY n ORDER BY n")


def start(
    db: Database,
    name: str = "t",
    batch_size: int = 100,
    sleep_ms: int = 0,
    user: str = "postgres",
    options: dict[str, Any] | None = None,
) -> int:
    """Starts the count on such a table; returns the job's id."""
    call = "SELECT backfill.start(%s, %s, %s, set_clause => 'n = n + 1', options => %s)"
    return db.value(call, [name, batch_size, sleep_ms, Jsonb(options or {})], user=user)


def progress(db: Database, job: int, column: str) -> Any:
    """One column of the job's row in the view."""
    return db.value(f"SELECT {column} FROM backfill.progress WHERE job_id = %s", [job])


def wait_for_state(db: Database, job: int, state: str, timeout: float = 60) -> None:
    """Waits until the job has the state; it is an error at once if it has come to another end."""

    def reached() -> bool:
        now, error = db.sql("SELECT state, last_error FROM backfill.progress WHERE job_id = %s", [job])[0]
        ended = now in ("completed", "failed", "cancelled")
        assert now == state or not ended, f"job {job} is {now}, not {state}: {error}"
        return now == state

    wait_until(reached, timeout, f"job {job} to be {state}")


def wait_for_rows(db: Database, job: int, rows: int, timeout: float = 60) -> None:
    """Waits until the walk has passed so many rows."""
    wait_until(lambda: progress(db, job, "rows_done") >= rows, timeout, f"job {job} to pass {rows} rows")


def sleep_at(db: Database, row: int, seconds: float = 60, name: str = "t") -> None:
    """Lets every batch that reaches the row sleep in a trigger."""
    db.sql(
        f"CREATE FUNCTION sleep_at_{row}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_sleep({seconds}); RETURN new; END $$;"
        f"CREATE TRIGGER sleep_at_{row} BEFORE UPDATE ON {name} FOR EACH ROW"
        f" WHEN (old.id = {row}) EXECUTE FUNCTION sleep_at_{row}()"
    )


def wait_for_nap_in_batch(db: Database, job: int) -> int:
    """Waits until the job's worker sleeps within a batch, and returns its pid."""
    return _wait_for_activity(db, job, "state = 'active' AND wait_event = 'PgSleep'")


def wait_for_nap_between_batches(db: Database, job: int) -> int:
    """Waits until the job's worker sleeps between two batches, and returns its pid."""
    return _wait_for_activity(db, job, "state = 'idle' AND wait_event = 'Extension'")


def wait_for_no_worker(db: Database, job: int) -> None:
    """Waits until no process works on the job."""
    wait_until(lambda: not db.worker_pids(job), 30, f"the worker of job {job} to end")


def switch(db: Database, on: bool) -> None:
    """Throws the kill switch as an administrator does; LOAD, since without preload nobody knows the setting."""
    value = "on" if on else "off"
    db.psql(f"LOAD 'backfill'; ALTER SYSTEM SET backfill.enabled = {value}; SELECT pg_reload_conf();")


def _wait_for_activity(db: Database, job: int, condition: str) -> int:
    here = "datname = current_database() AND application_name LIKE %s"
    query = f"SELECT pid FROM pg_stat_activity WHERE {here} AND {condition}"
    rows = wait_until(lambda: db.sql(query, [f"backfill job {job}:%"]), 60, f"worker of job {job}: {condition}")
    return rows[0][0]
