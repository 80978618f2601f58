"""Jobs that keep a rate, and give way to those who wait for their batches."""

from __future__ import annotations

import contextlib
import threading

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, progress, start, wait_for_rows
from harness.tables import counts, make_table
from harness.throttles import ROWS, throttled


@pytest.fixture
def table(db: Database) -> Database:
    """A database with the table t."""
    make_table(db, ROWS)
    return db


def rate_of(db: Database, job: int) -> tuple[float, float]:
    """Rows, and bytes of WAL, per second from the start of the job to its end, by the server's clock."""
    seconds, rows = db.sql(
        "SELECT extract(epoch FROM finished_at - started_at)::float8, rows_updated"
        " FROM backfill.progress WHERE job_id = %s",
        [job],
    )[0]
    wal = db.value("SELECT max(wal_bytes) FROM backfill_internal.sample WHERE job_id = %s", [job])
    return rows / seconds, wal / seconds


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_per_second(table: Database, workers: int) -> None:
    """Of all workers together: not more, and nearly as many; in batches that are small enough to be steady."""
    options = {"max_rows_per_second": 5000, "workers": workers, "vacuum": False, "analyze": False}
    job = start(table, "t", "n = n + 1", batch=10_000, options=options)
    said = throttled(table, job, "max_rows_per_second: 5000 rows a second")
    assert said.count("max_rows_per_second") <= workers
    wait_for_rows(table, job, 1000)
    assert progress(table, job)["batch_rows"] <= 5000 // 8 // workers
    complete(table, job)
    rate, _ = rate_of(table, job)
    # The last batch has no pause; a machine that is busy may be slower.
    assert 1000 < rate < 5500
    assert counts(table) == [(1, ROWS)]


def test_wal_per_second(table: Database) -> None:
    """With full page images, and what the bookkeeping writes."""
    options = {"max_wal_rate": "512kB", "vacuum": False, "analyze": False}
    job = start(table, "t", "n = n + 1", batch=200, options=options)
    throttled(table, job, "max_wal_rate: 512 kB of WAL a second")
    complete(table, job)
    rows, wal = rate_of(table, job)
    assert 0 < wal < 512 * 1024 * 1.2, (rows, wal)
    assert counts(table) == [(1, ROWS)]


def test_who_waits_for_a_batch_makes_the_job_pause(table: Database) -> None:
    """Clients that want rows of a batch in progress: the job says so, rests, and comes back with smaller batches."""
    table.sql("""
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE UPDATE OF n ON t FOR EACH ROW EXECUTE FUNCTION slow();
        ALTER TABLE t ADD touched int DEFAULT 0
    """)
    options = {"max_lock_waiters": 0, "lock_timeout_ms": 0}
    job = start(table, "t", "n = n + 1", batch=500, options=options)
    stop = threading.Event()
    clients = [threading.Thread(target=_touch, args=[table, job, stop]) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        throttled(table, job, "max_lock_waiters:", "backends waited for a batch, 0 may", timeout=60)
        wait_until(lambda: (progress(table, job)["batch_rows"] or 500) < 500, 60, "smaller batches")
    finally:
        stop.set()
        for client in clients:
            client.join(60)
    table.sql("DROP TRIGGER slow ON t")
    complete(table, job)
    assert counts(table) == [(1, ROWS)]


def _touch(db: Database, job: int, stop: threading.Event) -> None:
    """Wants a row of the batch in progress, again and again."""
    with db.connect() as connection:
        while not stop.is_set():
            done = progress(db, job)["rows_done"]
            with contextlib.suppress(psycopg.errors.DeadlockDetected):
                connection.execute("UPDATE t SET touched = touched + 1 WHERE id = %s", [done + 1])


def test_smaller_batches_without_any_bound(table: Database) -> None:
    """Who waits for a batch is given way to, also by a job that has no option for that."""
    table.sql("""
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE UPDATE OF n ON t FOR EACH ROW EXECUTE FUNCTION slow();
        ALTER TABLE t ADD touched int DEFAULT 0
    """)
    job = start(table, "t", "n = n + 1", batch=500, options={"lock_timeout_ms": 0})
    stop = threading.Event()
    client = threading.Thread(target=_touch, args=[table, job, stop])
    client.start()
    try:
        wait_until(lambda: (progress(table, job)["batch_rows"] or 500) < 500, 60, "smaller batches")
    finally:
        stop.set()
        client.join(60)
    table.sql("DROP TRIGGER slow ON t")
    # They grow back.
    wait_until(lambda: progress(table, job)["batch_rows"] in (500, None), 60, "batches to grow")
    complete(table, job)
    assert counts(table) == [(1, ROWS)]


def test_taking_an_option_away_brings_its_default_back(table: Database) -> None:
    """null in alter; an unknown name is refused there, too."""
    job = start(table, "t", "n = n + 1", batch=10, sleep_ms=100, options={"max_rows_per_second": 1, "target_ms": 50})
    throttled(table, job, "max_rows_per_second: 1 rows a second")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="max_rows"):
        table.sql("SELECT backfill.alter(%s, options => '{\"max_rows\": null}')", [job])
    table.sql("SELECT backfill.alter(%s, sleep_ms => 0, options => '{\"max_rows_per_second\": null}')", [job])
    complete(table, job)
    assert table.value("SELECT options FROM backfill_internal.job WHERE id = %s", [job]) == {"target_ms": 50}
    change = table.sql("SELECT old, new FROM backfill.events WHERE event = 'alter max_rows_per_second'")
    assert change == [("1", "default")]
