"""Somebody holds what a call, or a worker, needs: the wait ends, and says who it is."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, progress, start_count, wait_for, wait_for_nap_between_batches, wait_for_rows
from harness.tables import counts, make_table

MINUTE = 60_000


def refused(db: Database, call: str, *, within: float = 20, before: str = "SELECT 1") -> psycopg.Error:
    """The error of the call, which does not take long; it has a detail and a hint."""
    with psycopg.connect(db.dsn(), autocommit=True) as connection:
        # Of the build without a bound, to fail instead of hanging.
        connection.execute("SET statement_timeout = '20s'")
        connection.execute(before)
        begun = time.monotonic()
        with pytest.raises(psycopg.errors.LockNotAvailable) as caught:
            connection.execute(call)
    assert time.monotonic() - begun < within
    assert caught.value.diag.message_hint
    return caught.value


@pytest.fixture
def job(db: Database) -> Iterator[int]:
    """A job that sleeps after its first batch."""
    make_table(db, 500)
    started = start_count(db, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, started)
    yield started
    db.cluster.close_connections()


def test_an_open_define_does_not_hold_up_others_for_ever(db: Database) -> None:
    """start and define on the table end with who it is and since when; then they go on."""
    make_table(db, 500)
    make_table(db, 500, "other")
    holder = db.connect(autocommit=False)
    holder.execute("SELECT backfill.define('t', 'n = n + 1')")
    for call in ("SELECT backfill.start('t', set_clause => 'n = 2')", "SELECT backfill.define('t', 'n = 3')"):
        error = refused(db, call)
        assert error.diag.message_primary == (
            'table public.t is in use by another call of the extension "backfill" that has not committed'
        )
        assert f"Process {holder.info.backend_pid} of role postgres holds it" in error.diag.message_detail
        assert "open since 20" in error.diag.message_detail
        assert f"pg_terminate_backend({holder.info.backend_pid})" in error.diag.message_hint
    # On another table nothing is in the way, and a caller that wants to wait less does.
    complete(db, start_count(db, "other"))
    refused(db, "SELECT backfill.start('t', set_clause => 'n = 2')", within=3, before="SET lock_timeout = '200ms'")
    holder.rollback()
    complete(db, start_count(db))


@pytest.mark.parametrize("call", ["pause({})", "resume({})", "cancel({})", "alter({}, 7)", "retry_failed({})"])
def test_an_open_pause_does_not_hold_up_others_for_ever(db: Database, job: int, call: str) -> None:
    """Nor the session of who calls: its transaction can go on behind a savepoint."""
    holder = db.connect(autocommit=False)
    holder.execute("SELECT backfill.pause(%s)", [job])
    error = refused(db, f"SELECT backfill.{call.format(job)}", before="SET lock_timeout = '300ms'", within=5)
    assert error.diag.message_primary == f"backfill job {job} is being changed by a call that has not committed"
    assert f"Process {holder.info.backend_pid} of role postgres holds it" in error.diag.message_detail
    holder.rollback()
    with psycopg.connect(db.dsn()) as connection:
        connection.execute("SHOW lock_timeout")
        assert connection.execute(f"SELECT backfill.cancel({job})").fetchone() == ("cancelling",)
        assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)


def test_a_wait_without_lock_timeout_is_bounded(db: Database, job: int) -> None:
    """cancel, where nobody has set anything."""
    db.connect(autocommit=False).execute("SELECT backfill.alter(%s, 7)", [job])
    refused(db, f"SELECT backfill.cancel({job})", within=10)


def test_locked_tables_of_the_extension_hold_up_no_row(db: Database) -> None:
    """pg_write_all_data may lock them: the batch is rolled back, the view tells, and then it goes on where it was."""
    make_table(db, 3000)
    if not db.value("SELECT to_regrole('scribe') IS NOT NULL"):
        db.sql("CREATE ROLE scribe LOGIN; GRANT pg_write_all_data TO scribe")
    db.sql("GRANT pg_write_all_data TO scribe")
    job = start_count(db, batch_size=100, sleep_ms=20, options={"lock_timeout_ms": 0})
    wait_for_rows(db, job, 200)
    scribe = db.connect("scribe", autocommit=False)
    scribe.execute("LOCK TABLE backfill_internal.checkpoint IN SHARE MODE")
    told = lambda: progress(db, job)["waiting_for"] or ""  # noqa: E731
    wait_until(lambda: told().startswith('a lock on a table of the extension "backfill"'), 40, "the view to tell")
    # No row of a batch stays locked for longer than a moment.
    client = db.connect()
    client.execute("SET lock_timeout = '5s'")
    client.execute("UPDATE t SET n = n")
    scribe.rollback()
    complete(db, job)
    assert counts(db) == [(1, 3000)]


@pytest.mark.parametrize("table", ["job", "slice", "outcome", "walk"])
def test_whatever_is_locked_the_job_goes_on_afterwards(db: Database, table: str) -> None:
    """Also at the end: completed is recorded when the lock is gone, without anybody's doing."""
    make_table(db, 2000)
    db.sql("DO $$ BEGIN IF to_regrole('scribe') IS NULL THEN CREATE ROLE scribe LOGIN; END IF; END $$")
    db.sql("GRANT pg_write_all_data TO scribe")
    job = start_count(db, batch_size=100, sleep_ms=20)
    wait_for_rows(db, job, 200)
    pid = db.worker_pid(job)
    scribe = db.connect("scribe", autocommit=False)
    scribe.execute(f"LOCK TABLE backfill_internal.{table}")
    waits = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
    wait_until(lambda: db.value(waits, [pid]), 40, "the worker to wait")
    wait_until(lambda: not db.value(waits, [pid]), 40, "the worker to wait no more")
    scribe.rollback()
    complete(db, job)
    assert counts(db) == [(1, 2000)]


def test_calls_do_not_wait_for_locked_tables_for_ever(db: Database, job: int) -> None:
    """The error names what is locked, and its hint finds who."""
    db.sql("DO $$ BEGIN IF to_regrole('scribe') IS NULL THEN CREATE ROLE scribe LOGIN; END IF; END $$")
    db.sql("GRANT pg_write_all_data TO scribe")
    scribe = db.connect("scribe", autocommit=False)
    scribe.execute("LOCK TABLE backfill_internal.event")
    error = refused(db, f"SELECT backfill.pause({job})")
    assert error.diag.message_primary == (
        'a table of the extension "backfill", or a row in it, is locked by somebody else'
    )
    query = error.diag.message_hint.removeprefix("Who: ").split(". Try again")[0]
    assert (scribe.info.backend_pid, "scribe") in {(row[0], row[1]) for row in db.sql(query)}
    scribe.rollback()
    db.sql("SELECT backfill.cancel(%s)", [job])
    wait_for(db, job, "cancelled")
