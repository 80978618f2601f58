"""Keys that are kept as labels of an enum: what they mean may change while a job pauses, or runs."""

from __future__ import annotations

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, fail, progress, start, wait_for, wait_for_rows

LABELS = [f"l{n:03}" for n in range(100)]
KEYS = ["e", "e[]", "er"]


def table(db: Database, of_type: str = "e") -> None:
    """2,000 rows, 20 of each label, whose key begins with it."""
    db.sql(f"CREATE TYPE e AS ENUM ({', '.join(repr(x) for x in LABELS)})")
    db.sql("CREATE TYPE er AS RANGE (subtype = e)")
    value = {"e": "l::e", "e[]": "ARRAY[l::e]", "er": "er(l::e, NULL)"}[of_type]
    db.sql(f"CREATE TABLE t (k {of_type}, id int, n int NOT NULL DEFAULT 0, PRIMARY KEY (k, id))")
    db.sql(f"INSERT INTO t SELECT {value}, i FROM unnest(enum_range(NULL::e)) l, generate_series(1, 20) i")


def paused(db: Database, rows: int = 700) -> int:
    """A job that has done so many rows, and stands still."""
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=300)
    wait_for_rows(db, job, rows)
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for(db, job, "paused")
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    return job


def swap(db: Database, one: str, other: str) -> None:
    """Each label means what the other one did."""
    for old, new in [(one, "x"), (other, one), ("x", other)]:
        db.sql(f"ALTER TYPE e RENAME VALUE '{old}' TO '{new}'")


def refused(db: Database, job: int) -> str:
    """The job fails, and no row was done twice."""
    error = fail(db, job)
    assert "55000" in error and "labels have changed" in error and "HINT: Rename them back" in error
    assert db.value("SELECT max(n) FROM t") == 1
    return error


@pytest.mark.parametrize("of_type", KEYS)
def test_labels_that_were_swapped_during_a_pause(db: Database, of_type: str) -> None:
    """The checkpoint would be another place: 1,300 of 2,000 rows were left out. Back again, it goes on."""
    table(db, of_type)
    job = paused(db)
    at = db.value("SELECT (key)[1] FROM backfill_internal.checkpoint ORDER BY seq DESC LIMIT 1")
    label = next(x for x in LABELS if x in at)
    swap(db, label, LABELS[-1])
    db.sql("SELECT backfill.resume(%s)", [job])
    refused(db, job)
    swap(db, label, LABELS[-1])
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 2000)]


def test_a_label_that_was_renamed_during_a_pause(db: Database) -> None:
    """22P02 without a word on what to do, it was; whichever label it is, and only if it is one of before."""
    table(db)
    job = paused(db)
    db.sql("ALTER TYPE e ADD VALUE 'new' BEFORE 'l000'; ALTER TYPE e ADD VALUE 'newer' AFTER 'l050'")
    db.sql("ALTER TYPE e RENAME VALUE 'l001' TO 'first'")
    db.sql("SELECT backfill.resume(%s)", [job])
    assert '"l001" is "first" now' in refused(db, job)
    db.sql("ALTER TYPE e RENAME VALUE 'first' TO 'l001'; ALTER TYPE e RENAME VALUE 'new' TO 'newest'")
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 2000)]


def test_labels_that_are_swapped_while_the_job_runs(db: Database) -> None:
    """Seen by the next batch."""
    table(db)
    job = start(db, "t", "n = n + 1", batch=20, sleep_ms=100)
    wait_for_rows(db, job, 100)
    swap(db, "l005", "l099")
    refused(db, job)


def test_a_batch_and_an_open_rename_wait_for_each_other(db: Database) -> None:
    """No label changes between the reading of a key and its use."""
    table(db)
    job = start(db, "t", "n = n + 1", batch=20, sleep_ms=50, options={"lock_timeout_ms": 200})
    wait_for_rows(db, job, 60)
    with psycopg.connect(db.dsn()) as other:
        other.execute("ALTER TYPE e RENAME VALUE 'l003' TO 'renamed'")
        wait_until(lambda: progress(db, job)["waiting_for"], 30, "the job to say that it waits")
        other.rollback()
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 2000)]


def test_a_type_that_was_replaced_by_one_of_the_same_name(db: Database) -> None:
    """Its labels are called the same, and are others, in another order."""
    table(db)
    job = paused(db)
    turned = ", ".join(repr(x) for x in reversed(LABELS))
    db.sql(
        f"ALTER TYPE e RENAME TO was; CREATE TYPE e AS ENUM ({turned}); ALTER TABLE t ALTER k TYPE e USING k::text::e"
    )
    db.sql("SELECT backfill.resume(%s)", [job])
    refused(db, job)
