"""Errors that pass by themselves: a batch gives way, says so, and is tried again."""

from __future__ import annotations

import time
from contextlib import suppress

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, fail, progress, start, wait_for_rows, wait_for_state
from harness.tables import counts, make_table

ROWS = 2000


def raise_while(db: Database, sqlstate: str) -> None:
    """Lets updates fail with this SQLSTATE as long as there is a row in `trouble`."""
    db.sql(f"""
        CREATE TABLE trouble AS SELECT 1 AS one;
        CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM trouble) THEN RAISE EXCEPTION 'no luck' USING ERRCODE = '{sqlstate}'; END IF;
            RETURN new;
        END $$;
        CREATE TRIGGER trouble BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION trouble()
    """)


def waits(db: Database, job: int) -> str:
    """What the view says a running job waits for, once it says so."""

    def shown() -> str | None:
        row = progress(db, job)
        assert row["state"] == "running", row
        return row["waiting_for"] if "tries so far" in (row["waiting_for"] or "") else None

    return wait_until(shown, 30, "the tries in waiting_for")


@pytest.mark.parametrize("where", [None, "n = 0"])
@pytest.mark.parametrize("walk", ["key", "physical"])
def test_a_locked_row_holds_up_itself_only(db: Database, walk: str, where: str | None) -> None:
    """Rows before it are done, by ever smaller batches; nobody waits for the batch for long."""
    if walk == "physical" and where is None:
        pytest.skip("no predicate tells which rows are done")
    make_table(db, ROWS)
    with db.connect(autocommit=False) as other:
        other.execute("UPDATE t SET n = n WHERE id = 1234")
        options = {"walk": walk, "lock_timeout_ms": 50}
        job = start(db, "t", "n = n + 1", where=where, batch=1000, options=options)
        said = waits(db, job)
        assert "a lock that somebody else holds (SQLSTATE 55P03)" in said and "next at" in said
        wait_until(lambda: progress(db, job)["rows_done"] == 1233, 30, "the rows before it")
        # Somebody who wants a row of the same batch gets it.
        with db.connect() as third:
            third.execute("SET lock_timeout = '3s'; UPDATE t SET n = n WHERE id = 1300")
        assert progress(db, job)["state"] == "running"
        other.commit()
    row = complete(db, job)
    assert row["rows_updated"] == ROWS
    assert counts(db) == [(1, ROWS)]


def test_a_locked_table_is_waited_for(db: Database) -> None:
    """DDL that takes its time stands in nobody's way, and the batch in nobody's queue."""
    make_table(db, ROWS)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=50, options={"lock_timeout_ms": 100})
    wait_for_rows(db, job, 100)
    with db.connect(autocommit=False) as other:
        other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        assert "a lock that somebody else holds" in waits(db, job)
        other.commit()
    complete(db, job)
    assert counts(db) == [(1, ROWS)]


def test_without_a_lock_timeout_a_batch_waits(db: Database) -> None:
    """0 is for ever, as the server's own lock_timeout has it."""
    make_table(db, ROWS)
    with db.connect(autocommit=False) as other:
        other.execute("UPDATE t SET n = n WHERE id = 50")
        job = start(db, "t", "n = n + 1", batch=100, options={"lock_timeout_ms": 0})
        waiting = """
            SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type = 'backfill worker'
        """
        wait_until(lambda: db.value(waiting) == 1, 30, "the batch to wait")
        time.sleep(1.5)
        assert db.value(waiting) == 1 and ", held by pid " in progress(db, job)["waiting_for"]
        other.commit()
    complete(db, job)
    assert counts(db) == [(1, ROWS)]


def test_a_batch_that_takes_too_long_gets_smaller_and_grows_back(db: Database) -> None:
    """100 rows that take 20 ms each are too many for half a second; the others are done at full size."""
    make_table(db, ROWS)
    db.sql("""
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.02); RETURN new; END';
        CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW WHEN (old.id BETWEEN 401 AND 500) EXECUTE FUNCTION slow();
        CREATE TABLE sizes (at bigint, n bigint);
        CREATE FUNCTION size() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO sizes SELECT max(id), count(*) FROM changed; RETURN NULL; END';
        CREATE TRIGGER size AFTER UPDATE ON t REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION size()
    """)
    job = start(db, "t", "n = n + 1", batch=100, options={"statement_timeout_ms": 500})
    complete(db, job)
    assert counts(db) == [(1, ROWS)]
    assert db.value("SELECT max(n) FROM sizes WHERE at BETWEEN 402 AND 500") <= 25
    assert db.value("SELECT n FROM sizes WHERE at = 400") == 100
    assert db.value("SELECT max(n) FROM sizes WHERE at > 1500") == 100


def test_a_cancelled_batch_is_tried_again(db: Database) -> None:
    """pg_cancel_backend cancels a statement, as it does in any session; backfill.cancel is for jobs."""
    make_table(db, ROWS)
    db.sql("""
        CREATE SEQUENCE naps;
        CREATE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF nextval(''naps'') = 1 THEN PERFORM pg_sleep(120); END IF; RETURN new; END';
        CREATE TRIGGER nap BEFORE UPDATE ON t FOR EACH ROW WHEN (old.id = 300) EXECUTE FUNCTION nap()
    """)
    job = start(db, "t", "n = n + 1", batch=100)
    pid = wait_until(lambda: db.worker_pids(job), 30, "a worker")[0]
    asleep = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %s"
    wait_until(lambda: db.sql(asleep, [pid])[0][0], 30, "the worker to sleep")
    db.sql("SELECT pg_cancel_backend(%s)", [pid])
    complete(db, job)
    assert counts(db) == [(1, ROWS)]
    assert db.value("SELECT last_value FROM naps") == 2


@pytest.mark.parametrize(
    ("sqlstate", "what"),
    [
        ("53100", "disk full"),
        ("53200", "out of memory"),
        ("53300", "too many connections"),
        ("08006", "a connection that broke"),
        ("57P03", "a server that shuts down or starts"),
        ("40001", "serialization failure"),
    ],
)
def test_what_passes_is_waited_for(db: Database, sqlstate: str, what: str) -> None:
    """The view says what it is, how often it was tried and when it is tried next; a pause ends the wait at once."""
    make_table(db, ROWS)
    raise_while(db, sqlstate)
    job = start(db, "t", "n = n + 1", batch=500)
    said = waits(db, job)
    assert what in said and sqlstate[:2] in said and "tries so far" in said
    begun = time.monotonic()
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for_state(db, job, "paused")
    assert time.monotonic() - begun < 5
    db.sql("DELETE FROM trouble")
    db.sql("SELECT backfill.resume(%s)", [job])
    row = complete(db, job)
    assert row["waiting_for"] is None
    assert counts(db) == [(1, ROWS)]


def test_a_slice_whose_claim_failed_is_claimed_again(db: Database) -> None:
    """Its lock is the session's, and outlives the transaction that failed."""
    make_table(db, ROWS)
    db.sql("""
        CREATE SEQUENCE claims;
        CREATE FUNCTION claim() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('public.claims') = 1 THEN RAISE EXCEPTION 'no luck' USING ERRCODE = '40001'; END IF;
            RETURN new;
        END $$;
        CREATE TRIGGER claim BEFORE INSERT ON backfill_internal.checkpoint
        FOR EACH ROW WHEN (new.epoch = 2) EXECUTE FUNCTION claim();
        ALTER TABLE backfill_internal.checkpoint ENABLE ALWAYS TRIGGER claim
    """)
    job = start(db, "t", "n = n + 1", batch=500)
    complete(db, job)
    assert db.value("SELECT last_value FROM claims") > 1
    assert counts(db) == [(1, ROWS)]


def test_a_wait_is_ended_by_a_cancel(db: Database) -> None:
    """The job does not sleep on until the next try."""
    make_table(db, ROWS)
    raise_while(db, "53100")
    job = start(db, "t", "n = n + 1", batch=500)
    waits(db, job)
    db.sql("SELECT backfill.cancel(%s)", [job])
    wait_for_state(db, job, "cancelled", timeout=10)
    with suppress(psycopg.Error):
        db.sql("DELETE FROM trouble")
    assert counts(db) == [(0, ROWS)]


@pytest.mark.parametrize("sqlstate", ["22012", "23514", "P0001"])
def test_other_errors_fail_the_job_at_once(db: Database, sqlstate: str) -> None:
    """No retry would help; the error says which rows it was."""
    make_table(db, ROWS)
    raise_while(db, sqlstate)
    job = start(db, "t", "n = n + 1", batch=500)
    assert f"no luck (SQLSTATE {sqlstate})" in fail(db, job)
    assert counts(db) == [(0, ROWS)]
