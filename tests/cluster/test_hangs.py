"""A batch that hangs: the view says on what, and who holds it; and it can be broken off."""

from __future__ import annotations

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, progress, start, wait_for, wait_for_rows
from harness.tables import counts, make_table

ROWS = 3_000


def hanging(db: Database, blocker: psycopg.Connection[tuple[object, ...]], statement: str) -> int:
    """A job whose batch waits for a lock without a bound."""
    make_table(db, ROWS)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=100, options={"lock_timeout_ms": 0})
    wait_for_rows(db, job, 100)
    blocker.execute(statement)
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    return job


def waits(db: Database, job: int, state: str, *parts: str) -> None:
    """The view says so, and since when."""

    def says() -> bool:
        row = progress(db, job)
        text = row["waiting_for"] or ""
        return row["state"] == state and all(part in text for part in parts) and row["waiting_since"] is not None

    wait_until(says, 30, f"job {job}, {state}, to wait for {parts}; it says {progress(db, job)['waiting_for']}")


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE t SET n = n WHERE id = 2950", "a row that another transaction has changed or locked"),
        ("SELECT FROM t WHERE id = 2950 FOR UPDATE", "a row"),
        ("LOCK TABLE t IN SHARE MODE", "a lock on t (RowExclusiveLock)"),
    ],
)
def test_what_a_batch_hangs_on(db: Database, statement: str, what: str) -> None:
    """Also while it pauses; and to any role that sees the job."""
    with psycopg.connect(db.dsn(), application_name="the culprit") as blocker:
        job = hanging(db, blocker, statement)
        pid = blocker.info.backend_pid
        who = f"held by pid {pid} (postgres, the culprit)"
        waits(db, job, "running", what, who)
        db.sql("SELECT backfill.pause(%s)", [job])
        waits(db, job, "pausing", what, who)
        assert db.value("SELECT backfill.pause(%s, now => true)", [job]) == "pausing"
        wait_for(db, job, "paused")
        assert progress(db, job)["waiting_for"] is None
        blocker.rollback()
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert counts(db) == [(1, ROWS)]


def test_pause_now_rolls_the_batch_back(db: Database) -> None:
    """At the first call, within a batch; what was committed stays, and each row is done once."""
    make_table(db, ROWS)
    db.sql("""
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF new.id = 1050 THEN PERFORM pg_sleep(1000); END IF; RETURN new; END $$;
        CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION slow()
    """)
    job = start(db, "t", "n = n + 1", batch=100, options={"strategy": "sequential"})
    wait_for_rows(db, job, 1000)
    with pytest.raises(psycopg.errors.NullValueNotAllowed):
        db.sql("SELECT backfill.pause(%s, NULL)", [job])
    db.sql("SELECT backfill.pause(%s, now => true)", [job])
    wait_for(db, job, "paused")
    done = progress(db, job)["rows_done"]
    assert db.sql("SELECT count(*) FROM t WHERE n = 1") == [(done,)]
    db.sql(f"DROP TRIGGER slow ON t; SELECT backfill.resume({job})")
    complete(db, job)
    assert counts(db) == [(1, ROWS)]
