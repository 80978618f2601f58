"""The extension itself, its database and its owner's role change under a running job."""

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, progress
from harness.tables import counts
from harness.walks import assert_once, begin, go, make, step


def test_an_old_worker_never_meets_a_new_job(db: Database) -> None:
    """The extension is dropped and created again while a worker sleeps: it does nothing more, and the new jobs run."""
    make(db, "old", 300)
    make(db, "new", 300)
    before = begin(db, "ranges", "old")
    worker = db.worker_pid(before)
    # In one transaction: the worker, if it wakes, never sees it gone.
    db.sql("DROP EXTENSION backfill; CREATE EXTENSION backfill")
    job = begin(db, "ranges", "new", set_clause="n = n + 10 * u")
    assert worker not in db.worker_pids(job)
    assert progress(db, job)["workers"] == 1
    # Whatever wakes it.
    db.sql("SELECT pg_cancel_backend(%s)", [worker])
    step(db, job)
    go(db, job)
    complete(db, job)
    gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s"
    wait_until(lambda: db.value(gone, [worker]), 40, "the old worker to end")
    assert db.sql("SELECT n, count(*) FROM new GROUP BY n") == [(10, 300)]
    assert db.sql("SELECT n, count(*) FROM old GROUP BY n ORDER BY n") == [(0, 260), (1, 40)]


@pytest.mark.parametrize("way", ["ranges", "waves", "pages"])
def test_an_old_worker_of_the_same_id(db: Database, way: str) -> None:
    """Even if the new job is given the old one's id, and stands where that stood."""
    make(db, "old", 300)
    make(db, "new", 300)
    before = begin(db, way, "old")
    worker, stands = db.worker_pid(before), counts(db, "old")
    with db.connect() as connection, connection.transaction():
        connection.execute("DROP EXTENSION backfill; CREATE EXTENSION backfill")
        for ids in ("job_id_seq", "slice_id_seq"):
            connection.execute("SELECT setval(%s, 1, false)", [f"backfill_internal.{ids}"])
        # It looks as if it had a worker: nothing runs it until that one is gone.
        job = connection.execute("SELECT backfill.start('new', 40, 0, 'n = n + 10')").fetchone()[0]
    assert job == before
    gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s"
    wait_until(lambda: db.value(gone, [worker]), 40, "the old worker to end")
    # The launcher, or the old worker's last look, may have been quicker.
    with suppress(psycopg.errors.ObjectNotInPrerequisiteState):
        db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM new GROUP BY n") == [(10, 300)]
    assert counts(db, "old") == stands


def test_what_cannot_be_done_to_the_extension(db: Database) -> None:
    """It stays in its schema, and the tables stay in it; a database that a worker is in is not renamed."""
    make(db)
    job = begin(db, "ranges")
    for ddl, why in {
        "ALTER EXTENSION backfill SET SCHEMA public": "does not support SET SCHEMA",
        "DROP TABLE backfill_internal.checkpoint": "extension backfill requires it",
        "DROP SCHEMA backfill": "depend",
        "DROP SCHEMA backfill_internal": "extension backfill requires it",
        f"ALTER DATABASE {db.name} RENAME TO other": "is being accessed|current database",
    }.items():
        with pytest.raises(psycopg.Error, match=why):
            db.sql(ddl)
    with pytest.raises(psycopg.errors.ObjectInUse):
        db.cluster.sql(f"ALTER DATABASE {db.name} RENAME TO other")
    go(db, job)
    complete(db, job)
    assert_once(db, job)


@pytest.mark.parametrize("schema", ["backfill", "backfill_internal"])
def test_the_schema_of_the_extension_is_renamed(db: Database, schema: str) -> None:
    """The worker ends; with the name back, `resume` goes on where the job stood."""
    make(db)
    job = begin(db, "waves")
    worker = db.worker_pid(job)
    db.sql(f"ALTER SCHEMA {schema} RENAME TO elsewhere")
    gone = "SELECT NOT pg_cancel_backend(%s)"
    wait_until(lambda: db.value(gone, [worker]), 40, "the worker, which this wakes, to end")
    db.sql(f"ALTER SCHEMA elsewhere RENAME TO {schema}")
    db.sql("SELECT backfill.resume(%s)", [job])
    go(db, job)
    complete(db, job)
    assert_once(db, job)
