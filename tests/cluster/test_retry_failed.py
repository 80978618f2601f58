"""backfill.retry_failed: rows that failed are tried again once their cause is mended."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, fail, progress, start, wait_for_state
from harness.tables import counts, make_table

ROWS = 2000
BAD = [1, 500, 501, 1999, 2000]


def spoil(db: Database, bad: list[int]) -> None:
    """Updates of these rows fail."""
    rows = ", ".join(map(str, bad))
    db.sql("ALTER TABLE t DROP CONSTRAINT IF EXISTS not_these")
    db.sql(f"ALTER TABLE t ADD CONSTRAINT not_these CHECK (n = 0 OR NOT id IN ({rows}))")


def mend(db: Database) -> None:
    """Updates of all rows work."""
    db.sql("ALTER TABLE t DROP CONSTRAINT not_these")


def failed(db: Database, job: int) -> list[int]:
    """The keys in the view."""
    keys = db.sql("SELECT key FROM backfill.failed_rows WHERE job_id = %s ORDER BY key[1]::int", [job])
    return [int(key) for ((key,),) in keys]


def start_failing(db: Database, **options: Any) -> int:
    """A job that may step over any row."""
    return start(db, "t", "n = n + 1", batch=300, options={"max_failed_rows": 100, **options})


def retry(db: Database, job: int) -> int:
    """How many rows are tried again."""
    return db.value("SELECT backfill.retry_failed(%s)", [job])


@pytest.mark.parametrize("options", [{}, {"strategy": "waves", "waves": 4, "workers": 2}, {"locked_rows": "skip"}])
def test_mended_rows_are_done(db: Database, options: dict[str, Any]) -> None:
    """Each once, and no other row again; the job is completed twice."""
    make_table(db, ROWS)
    spoil(db, BAD)
    job = start_failing(db, **options)
    complete(db, job)
    assert failed(db, job) == BAD
    mend(db)
    assert retry(db, job) == len(BAD)
    row = complete(db, job)
    assert counts(db) == [(1, ROWS)]
    assert (row["rows_updated"], row["rows_failed"], row["rows_done"]) == (ROWS, 0, ROWS)
    assert "failed" not in (row["note"] or "")
    events = [
        event for (event,) in db.sql("SELECT event FROM backfill.events WHERE job_id = %s ORDER BY event_id", [job])
    ]
    assert events.count("completed") == 2 and events.count("retry failed rows") == 1
    with pytest.raises(psycopg.Error, match="it has completed"), db.connect() as connection:
        connection.execute("SELECT backfill.resume(%s)", [job])


def test_rows_that_fail_again_are_recorded_again(db: Database) -> None:
    """With the error of today; the others of the retry are done."""
    make_table(db, ROWS)
    spoil(db, BAD)
    job = start_failing(db)
    complete(db, job)
    spoil(db, [501])
    db.sql("ALTER TABLE t ADD CONSTRAINT nor_this CHECK (n = 0 OR id <> 1999)")
    assert retry(db, job) == len(BAD)
    row = complete(db, job)
    assert failed(db, job) == [501, 1999] and row["rows_failed"] == 2
    assert counts(db) == [(0, 2), (1, ROWS - 2)]
    names = db.sql("SELECT constraint_name FROM backfill.failed_rows WHERE job_id = %s ORDER BY key", [job])
    assert names == [("nor_this",), ("not_these",)]
    mend(db)
    db.sql("ALTER TABLE t DROP CONSTRAINT nor_this")
    assert retry(db, job) == 2
    complete(db, job)
    assert counts(db) == [(1, ROWS)]
    assert retry(db, job) == 0
    assert progress(db, job)["state"] == "completed"


def test_an_error_at_commit_is_found_among_them(db: Database) -> None:
    """Deferred constraints are checked when the batch commits."""
    make_table(db, ROWS)
    spoil(db, BAD)
    job = start_failing(db)
    complete(db, job)
    mend(db)
    db.sql("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF new.id = 500 THEN RAISE 'no %', new.id USING ERRCODE = '23000'; END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse()
    """)
    retry(db, job)
    complete(db, job)
    assert failed(db, job) == [500]
    assert counts(db) == [(0, 1), (1, ROWS - 1)]


def test_more_than_may_fail_fails_the_job(db: Database) -> None:
    """The error names the row's key; resume goes on with the rest."""
    make_table(db, ROWS)
    spoil(db, BAD)
    job = start_failing(db)
    complete(db, job)
    db.sql("""SELECT backfill.alter(%s, options => '{"max_failed_rows": 2}')""", [job])
    retry(db, job)
    error = fail(db, job)
    assert "in batch (id) = (501)" in error and "not_these" in error
    assert failed(db, job) == [1, 500]
    mend(db)
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert counts(db) == [(0, 2), (1, ROWS - 2)]
    assert retry(db, job) == 2
    complete(db, job)
    assert counts(db) == [(1, ROWS)]


def test_a_failed_job_does_the_rest_first(db: Database) -> None:
    """retry_failed resumes it, and the rows that failed come last."""
    make_table(db, ROWS)
    spoil(db, BAD)
    job = start(db, "t", "n = n + 1", batch=300, options={"max_failed_rows": 2})
    fail(db, job)
    assert failed(db, job) == [1, 500]
    mend(db)
    assert retry(db, job) == 2
    complete(db, job)
    assert counts(db) == [(1, ROWS)]


def test_while_the_job_runs(db: Database) -> None:
    """The rows that have failed so far are tried again at its end."""
    make_table(db, ROWS)
    spoil(db, BAD)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=50, options={"max_failed_rows": 100})
    wait_until(lambda: failed(db, job)[:3] == BAD[:3], 30, "the first failures")
    assert retry(db, job) == 3
    mend(db)
    complete(db, job)
    assert failed(db, job) == [] and counts(db) == [(1, ROWS)]


def test_a_crash_loses_none_of_them(new_cluster) -> None:
    """kill -9 while they are tried."""
    server = new_cluster()
    server.sql("CREATE EXTENSION backfill")
    make_table(server, ROWS)
    spoil(server, list(range(1, 400)))
    job = start(server, "t", "n = n + 1", batch=300, options={"max_failed_rows": 1000})
    complete(server, job)
    mend(server)
    server.sql("SELECT backfill.alter(%s, batch_size => 10, sleep_ms => 20)", [job])
    assert retry(server, job) == 399
    wait_until(lambda: progress(server, job)["rows_updated"] > ROWS - 350, 30, "some of them")
    server.crash_worker(job)
    complete(server, job)
    assert counts(server) == [(1, ROWS)]


def test_partitions_and_keys_of_their_own(db: Database) -> None:
    """Each row goes by the key by which it failed."""
    db.sql("""
        CREATE TABLE t (id int NOT NULL, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (1000);
        CREATE TABLE t2 PARTITION OF t (UNIQUE (id)) FOR VALUES FROM (1000) TO (3001);
        INSERT INTO t SELECT generate_series(1, 2000)
    """)
    spoil(db, BAD)
    job = start_failing(db)
    complete(db, job)
    assert failed(db, job) == BAD
    mend(db)
    assert retry(db, job) == len(BAD)
    complete(db, job)
    assert counts(db) == [(1, ROWS)]


def test_where_it_is_refused(db: Database) -> None:
    """A job that stands still, and one of somebody else's."""
    make_table(db, ROWS)
    job = start(db, "t", "n = n + 1", batch=10, sleep_ms=1000)
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for_state(db, job, "paused")
    with pytest.raises(psycopg.Error) as caught, db.connect() as connection:
        connection.execute("SELECT backfill.retry_failed(%s)", [job])
    assert caught.value.sqlstate == "55000"
    assert caught.value.diag.message_primary == f"cannot retry the failed rows of backfill job {job}: it is paused"
    assert "backfill.resume" in (caught.value.diag.message_hint or "")
    db.sql("DROP ROLE IF EXISTS latecomer; CREATE ROLE latecomer LOGIN")
    with pytest.raises(psycopg.Error) as caught, db.connect(user="latecomer") as connection:
        connection.execute("SELECT backfill.retry_failed(%s)", [job])
    assert caught.value.sqlstate == "42501"


def test_another_job_on_the_column_comes_first(db: Database) -> None:
    """A completed job does not begin again beside it."""
    make_table(db, ROWS)
    spoil(db, BAD)
    job = start_failing(db)
    complete(db, job)
    other = start(db, "t", "n = n + 0", batch=10, sleep_ms=1000)
    with pytest.raises(psycopg.Error, match=f"already being backfilled by job {other}"), db.connect() as connection:
        connection.execute("SELECT backfill.retry_failed(%s)", [job])
    assert progress(db, job)["state"] == "completed" and failed(db, job) == BAD
