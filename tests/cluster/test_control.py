"""pause, resume, cancel, alter, wait, forget: on working and on sleeping workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import (
    progress,
    start,
    start_count,
    wait_for,
    wait_for_nap_between_batches,
    wait_for_nap_in_batch,
    wait_for_rows,
    wait_for_state,
)
from harness.tables import counts, make_table, sleep_at

STATE = "SELECT state FROM backfill.progress WHERE job_id = %s"
MINUTE = 60_000


def milliseconds_until(db: Database, call: str, job: int, state: str) -> float:
    """Time from the call until the view shows the state, polled without a rest on one connection."""
    connection = db.connect()
    connection.execute(STATE, [job])
    began = time.monotonic()
    connection.execute(call, [job])
    while (seen := connection.execute(STATE, [job]).fetchone()) != (state,):
        assert time.monotonic() < began + 30, f"still {seen}"
    return (time.monotonic() - began) * 1000


def test_pause_reaches_a_sleeping_worker_at_once(db: Database) -> None:
    """Paused in under 100 ms though the worker has a minute to sleep; resume goes on from the checkpoint.

    The best of three tries, since another process may have both processors meanwhile.
    """
    make_table(db, 1000)
    job = start_count(db, batch_size=100, sleep_ms=MINUTE)
    took: list[float] = []
    while not took or (min(took) >= 100 and len(took) < 3):
        if took:
            db.sql("SELECT backfill.resume(%s)", [job])
        wait_for_nap_between_batches(db, job)
        took.append(milliseconds_until(db, "SELECT backfill.pause(%s)", job, "paused"))
        assert counts(db) == [(0, 1000 - 100 * len(took)), (1, 100 * len(took))]
    assert min(took) < 100, took
    assert db.worker_pids(job) == []
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    assert db.value("SELECT backfill.resume(%s)", [job]) == "running"
    wait_for_state(db, job, "completed")
    assert counts(db) == [(1, 1000)]


def test_pause_of_a_working_worker_waits_for_its_batch(db: Database) -> None:
    """pausing while the batch goes on, paused after it, with the batch committed."""
    make_table(db, 1000)
    sleep_at(db, 150, seconds=1)
    job = start_count(db)
    wait_for_nap_in_batch(db, job)
    assert db.value("SELECT backfill.pause(%s)", [job]) == "pausing"
    assert db.value("SELECT backfill.pause(%s)", [job]) == "pausing"
    wait_for_state(db, job, "paused")
    assert counts(db) == [(0, 800), (1, 200)]
    assert db.value("SELECT backfill.pause(%s)", [job]) == "paused"


def test_a_pause_taken_back_leaves_the_same_worker_at_work(db: Database) -> None:
    """resume of a pausing job needs no second worker."""
    make_table(db, 1000)
    sleep_at(db, 150, seconds=1)
    job = start_count(db, sleep_ms=1)
    pid = wait_for_nap_in_batch(db, job)
    assert db.value("SELECT backfill.pause(%s)", [job]) == "pausing"
    assert db.value("SELECT backfill.resume(%s)", [job]) == "running"
    wait_for_rows(db, job, 300)
    assert set(db.worker_pids(job)) <= {pid}
    wait_for_state(db, job, "completed")
    assert counts(db) == [(1, 1000)]


def test_alter_is_in_force_with_the_next_batch(db: Database) -> None:
    """A sleeping worker is woken: the rest goes in one batch. What was changed is in the events."""
    make_table(db, 1000)
    job = start_count(db, batch_size=10, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.alter(%s, batch_size => 5000, sleep_ms => 0)", [job])
    wait_for_state(db, job, "completed")
    assert counts(db) == [(1, 1000)]
    # One to take the slice, then a batch of 10 and one of the rest.
    seq = (
        "SELECT seq FROM backfill_internal.checkpoint c"
        " JOIN backfill_internal.slice s ON s.id = c.slice_id WHERE s.job_id = %s"
    )
    assert db.value(seq, [job]) == 4
    altered = "SELECT event, old, new FROM backfill.events WHERE job_id = %s AND event LIKE 'alter%%' ORDER BY event"
    assert db.sql(altered, [job]) == [("alter batch_size", "10", "5000"), ("alter sleep_ms", "60000", "0")]


@pytest.mark.parametrize("walk", ["key", "physical"])
def test_a_larger_batch_size_is_in_force_within_a_region(db: Database, walk: str) -> None:
    """With a WHERE clause a region's rows are known ahead; the size of its batches is not."""
    make_table(db, 1000)
    options = {"walk": walk, "vacuum": False, "analyze": False}
    job = start(db, "t", "n = n + 1", where="n = 0", batch=10, sleep_ms=MINUTE, options=options)
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.alter(%s, batch_size => 5000)", [job])
    wait_for_state(db, job, "completed")
    assert counts(db) == [(1, 1000)]


def test_alter_of_a_paused_job_does_not_wake_it(db: Database) -> None:
    """It stays paused, and uses the new pace when resumed."""
    make_table(db, 1000)
    job = start_count(db, batch_size=10, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for_state(db, job, "paused")
    db.sql("SELECT backfill.alter(%s, batch_size => 1000, sleep_ms => 0)", [job])
    assert progress(db, job)["state"] == "paused"
    db.sql("SELECT backfill.resume(%s)", [job])
    wait_for_state(db, job, "completed")


def test_cancel_reaches_a_sleeping_worker_at_once(db: Database) -> None:
    """By the same latch as a pause, whose time is measured above; what was committed stays."""
    make_table(db, 1000)
    job = start_count(db, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    assert milliseconds_until(db, "SELECT backfill.cancel(%s)", job, "cancelled") < MINUTE / 10
    assert counts(db) == [(0, 900), (1, 100)]
    assert db.value("SELECT backfill.cancel(%s)", [job]) == "cancelled"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="it has been cancelled"):
        db.sql("SELECT backfill.resume(%s)", [job])


def test_cancel_waits_for_the_batch_and_now_interrupts_it(db: Database) -> None:
    """A plain cancel leaves the batch alone; a second one with now rolls it back."""
    make_table(db, 1000)
    sleep_at(db, 150)
    job = start_count(db)
    wait_for_nap_in_batch(db, job)
    assert db.value("SELECT backfill.cancel(%s)", [job]) == "cancelling"
    assert progress(db, job)["state"] == "cancelling"
    began = time.monotonic()
    assert db.value("SELECT backfill.cancel(%s, now => true)", [job]) in ("cancelling", "cancelled")
    wait_for_state(db, job, "cancelled")
    assert time.monotonic() - began < 20, "the batch was not interrupted"
    assert counts(db) == [(0, 900), (1, 100)]
    assert progress(db, job)["last_error"] is None
    assert progress(db, job)["finished_at"] is not None


def test_cancel_now_in_one_call(db: Database) -> None:
    """The same without a cancel before it; the events tell who and what."""
    make_table(db, 1000)
    sleep_at(db, 150)
    job = start_count(db)
    wait_for_nap_in_batch(db, job)
    db.sql("SELECT backfill.cancel(%s, now => true)", [job])
    wait_for_state(db, job, "cancelled", 20)
    assert counts(db) == [(0, 900), (1, 100)]
    events = [
        event for (event,) in db.sql("SELECT event FROM backfill.events WHERE job_id = %s ORDER BY event_id", [job])
    ]
    assert events == ["define", "start", "worker started", "cancel", "cancelled"]


def test_an_open_pause_blocks_neither_worker_nor_batches(db: Database) -> None:
    """Whoever pauses and goes to lunch without COMMIT holds nothing up; and ROLLBACK means no pause."""
    make_table(db, 1000)
    make_table(db, 1000, "other")
    job = start_count(db, batch_size=10, sleep_ms=20)
    connection = db.connect(autocommit=False)
    connection.execute("SELECT backfill.pause(%s)", [job])
    second = start_count(db, "other", batch_size=10)
    wait_for_state(db, second, "completed")
    wait_for_state(db, job, "completed")
    connection.rollback()
    assert counts(db) == [(1, 1000)]
    assert counts(db, "other") == [(1, 1000)]


def test_an_open_pause_is_obeyed_once_it_is_committed(db: Database) -> None:
    """The worker sleeps meanwhile, and is woken by the COMMIT."""
    make_table(db, 1000)
    job = start_count(db, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    connection = db.connect(autocommit=False)
    connection.execute("SELECT backfill.pause(%s)", [job])
    assert progress(db, job)["state"] == "running"
    connection.commit()
    wait_for_state(db, job, "paused", 9)


def test_pause_all_and_resume_all(db: Database) -> None:
    """They count what they change, and leave the others alone."""
    jobs = []
    for name in ("a", "b", "c"):
        make_table(db, 500, name)
        jobs.append(start_count(db, name, sleep_ms=MINUTE))
    done = jobs.pop()
    for job in jobs:
        wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [done])
    wait_for_state(db, done, "completed")
    assert db.value("SELECT backfill.pause_all()") == 2
    for job in jobs:
        wait_for_state(db, job, "paused")
    assert db.value("SELECT backfill.pause_all()") == 0
    assert db.value("SELECT backfill.resume_all()") == 2
    for job in jobs:
        wait_for_nap_between_batches(db, job)
    assert db.value("SELECT backfill.resume_all()") == 0
    for job in jobs:
        db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
        wait_for_state(db, job, "completed")
    assert [counts(db, name) for name in "abc"] == [[(1, 500)]] * 3


def test_wait_returns_at_the_end_and_holds_no_snapshot(db: Database) -> None:
    """While it waits, its session keeps no xmin; when the job completes, the CALL returns."""
    make_table(db, 1000)
    job = start_count(db, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    waiter = db.connect()
    pid = waiter.info.backend_pid
    thread = threading.Thread(target=waiter.execute, args=("CALL backfill.wait(%s)", [job]))
    thread.start()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'Extension'"
    wait_until(lambda: db.value(waits, [pid]), 30, "the CALL to wait")
    held = "SELECT backend_xmin FROM pg_stat_activity WHERE pid = %s AND wait_event = 'Extension'"
    seen = [row for _ in range(20) for row in db.sql(held, [pid])]
    assert seen and set(seen) == {(None,)}
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    thread.join(30)
    assert not thread.is_alive()
    assert progress(db, job)["state"] == "completed"
    db.sql("CALL backfill.wait(%s)", [job])


def test_wait_gives_up_when_told_to(db: Database) -> None:
    """A timeout is an error that leaves the job alone; 0 only looks."""
    make_table(db, 1000)
    job = start_count(db, sleep_ms=MINUTE)
    for timeout in (200, 0):
        with pytest.raises(psycopg.errors.QueryCanceled, match=f"is still running after {timeout} ms"):
            db.sql("CALL backfill.wait(%s, %s)", [job, timeout])
    assert progress(db, job)["state"] == "running"
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for(db, job, "paused")
    with pytest.raises(psycopg.errors.QueryCanceled, match="is still paused") as caught:
        db.sql("CALL backfill.wait(%s, 0)", [job])
    assert f"SELECT backfill.resume({job})" in caught.value.diag.message_hint
    db.sql("SELECT backfill.cancel(%s)", [job])
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has been cancelled"):
        db.sql("CALL backfill.wait(%s)", [job])


def test_wait_is_refused_in_a_transaction_block(db: Database) -> None:
    """It would hold a snapshot for the whole run."""
    connection = db.connect(autocommit=False)
    with pytest.raises(psycopg.errors.ActiveSqlTransaction) as caught:
        connection.execute("CALL backfill.wait(1)")
    assert "snapshot" in caught.value.diag.message_hint


def test_a_waiting_call_can_be_cancelled(db: Database) -> None:
    """pg_cancel_backend ends the CALL, not the job."""
    make_table(db, 1000)
    job = start_count(db, sleep_ms=MINUTE)
    waiter = db.connect()
    pid = waiter.info.backend_pid
    errors: list[str | None] = []

    def call() -> None:
        try:
            waiter.execute("CALL backfill.wait(%s)", [job])
        except psycopg.Error as error:
            errors.append(error.sqlstate)

    thread = threading.Thread(target=call)
    thread.start()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'Extension'"
    wait_until(lambda: db.value(waits, [pid]), 30, "the CALL to wait")
    db.sql("SELECT pg_cancel_backend(%s)", [pid])
    thread.join(30)
    assert errors == ["57014"]
    assert progress(db, job)["state"] == "running"


def test_a_failed_batch_says_what_and_where_and_goes_on_when_mended(db: Database) -> None:
    """SQLSTATE, message and the row's key; wait raises; resume starts at the checkpoint, and no row is done twice."""
    make_table(db, 1000)
    db.sql("ALTER TABLE t ADD CHECK (id <> 450 OR n = 0)")
    job = start_count(db)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has failed") as caught:
        db.sql("CALL backfill.wait(%s)", [job])
    assert "t_check" in (caught.value.diag.message_detail or "")
    wait_for_state(db, job, "failed")
    error = progress(db, job)["last_error"]
    assert "23514" in error
    assert 'violates check constraint "t_check"' in error
    assert "in batch (id) = (450)" in error
    assert counts(db) == [(0, 551), (1, 449)]
    db.sql("ALTER TABLE t DROP CONSTRAINT t_check")
    assert db.value("SELECT backfill.resume(%s)", [job]) == "running"
    wait_for_state(db, job, "completed")
    assert counts(db) == [(1, 1000)]


def test_an_error_at_commit_fails_the_batch(db: Database) -> None:
    """A deferred constraint trigger that raises rolls the checkpoint back with its rows."""
    make_table(db, 1000)
    db.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'P0007', HINT = 'ask me'; END $$;"
        "CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (new.id = 350) EXECUTE FUNCTION refuse()"
    )
    job = start_count(db)
    wait_for_state(db, job, "failed")
    error = progress(db, job)["last_error"]
    assert all(part in error for part in ("P0007", "not this one", "ask me", "in batch (id) = (350)")), error
    assert counts(db) == [(0, 651), (1, 349)]
    db.sql("DROP TRIGGER refuse ON t")
    db.sql("SELECT backfill.resume(%s)", [job])
    wait_for_state(db, job, "completed")
    assert counts(db) == [(1, 1000)]


def test_forget_removes_an_ended_job_only(db: Database) -> None:
    """Nothing of it is left anywhere but that its number is used up; a running job is refused, and goes on."""
    make_table(db, 1000)
    job = start_count(db, sleep_ms=MINUTE)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="it is running"):
        db.sql("SELECT backfill.forget(%s)", [job])
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.cancel(%s)", [job])
    wait_until(lambda: not db.worker_pids(job), 30, "the worker to end")
    db.sql("SELECT backfill.forget(%s)", [job])
    for table in ("job", "slice", "checkpoint", "outcome"):
        assert db.value(f"SELECT count(*) FROM backfill_internal.{table}") == 0, table
    assert db.sql("SELECT job_id, event FROM backfill_internal.event") == [(job, "forget")]
    with pytest.raises(psycopg.errors.UndefinedObject, match=f"job {job} does not exist"):
        db.sql("SELECT backfill.pause(%s)", [job])


@pytest.mark.parametrize("sleep_ms", [0, 5])
def test_two_who_pause_and_resume_never_lose_the_worker(db: Database, sleep_ms: int) -> None:
    """Whatever the interleaving: after a last resume the job runs, and completes."""
    make_table(db, 20_000)
    job = start_count(db, batch_size=10, sleep_ms=sleep_ms)
    stop = threading.Event()
    unexpected: list[str] = []
    calls = {"pause": 0, "resume": 0}

    def loop(function: str) -> Callable[[], None]:
        def run() -> None:
            connection = db.connect()
            while not stop.is_set():
                try:
                    connection.execute(f"SELECT backfill.{function}(%s)", [job])
                    calls[function] += 1
                except psycopg.errors.ObjectNotInPrerequisiteState:
                    # Running already, or completed: what one of two may find.
                    continue
                except psycopg.Error as error:
                    unexpected.append(str(error))
                    return

        return run

    threads = [threading.Thread(target=loop(name)) for name in ("pause", "resume", "pause", "resume")]
    for thread in threads:
        thread.start()
    stop.wait(4)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert unexpected == []
    assert calls["pause"] > 10 and calls["resume"] > 10, calls
    if progress(db, job)["state"] in ("pausing", "paused"):
        db.sql("SELECT backfill.resume(%s)", [job])
    # Nothing but its own worker helps it from here on: the launcher sweeps once a minute.
    db.sql("SELECT backfill.alter(%s, batch_size => 1000, sleep_ms => 0)", [job])
    wait_for_state(db, job, "completed", 40)
    assert counts(db) == [(1, 20_000)]
