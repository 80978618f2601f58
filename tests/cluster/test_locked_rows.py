"""Rows that others have locked: left for the end of the slice, with the option locked_rows."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Database, wait_until
from harness.jobs import complete, progress, start, wait_for_state
from harness.tables import counts, make_table

ROWS = 3000
LOCKED = [1, 2, 700, 1500, 2999, 3000]
WALKS: dict[str, dict[str, Any]] = {
    "sequential": {"options": {"strategy": "sequential"}},
    "with a predicate": {"where": "n = 0", "options": {"walk": "key"}},
    "in waves": {"options": {"strategy": "waves", "waves": 5}},
    "several workers": {"options": {"strategy": "waves", "waves": 3, "workers": 3}},
}
LOCK = f"UPDATE t SET n = n WHERE id IN ({', '.join(map(str, LOCKED))})"


def start_skipping(db: Database, *, where: str | None = None, options: dict[str, Any] | None = None) -> int:
    """A job that leaves locked rows for later."""
    return start(db, "t", "n = n + 1", where=where, batch=500, options={"locked_rows": "skip", **(options or {})})


def skipped(db: Database, job: int) -> list[int]:
    """The keys in the view."""
    keys = db.sql("SELECT key FROM backfill.skipped_rows WHERE job_id = %s ORDER BY key[1]::int", [job])
    return [int(key) for ((key,),) in keys]


def waits(db: Database, job: int, rows: int) -> str:
    """What the view says once all that is left are locked rows."""
    phrase = f"{rows} row{'' if rows == 1 else 's'} that others have locked: see backfill.skipped_rows"
    return wait_until(
        lambda: said if phrase in (said := progress(db, job)["waiting_for"] or "") else None, 30, f'"{phrase}"'
    )


@pytest.mark.parametrize("walk", WALKS)
def test_locked_rows_are_done_last(db: Database, walk: str) -> None:
    """All others are done meanwhile, and the job says which are left, until their locks are free."""
    make_table(db, ROWS)
    with db.connect(autocommit=False) as other:
        other.execute(LOCK)
        job = start_skipping(db, **WALKS[walk])
        rest = ROWS - len(LOCKED)
        wait_until(lambda: progress(db, job)["rows_updated"] == rest, 60, "all other rows")
        wait_until(lambda: skipped(db, job) == LOCKED, 10, "the locked rows in the view")
        assert progress(db, job)["state"] == "running"
        if walk != "several workers":
            assert "next at" in waits(db, job, len(LOCKED))
        # One is free: it is done, the others are waited for.
        other.commit()
        other.execute("UPDATE t SET n = n WHERE id = 700")
        wait_until(lambda: skipped(db, job) in ([700], []), 30, "the rows that are free")
        other.commit()
    row = complete(db, job)
    assert counts(db) == [(1, ROWS)]
    assert row["rows_updated"] == ROWS and row["rows_done"] == ROWS
    assert skipped(db, job) == []


def test_physical_order_comes_back_for_them(db: Database) -> None:
    """The passes after the first wait for the rows that still match."""
    make_table(db, ROWS)
    with db.connect(autocommit=False) as other:
        other.execute(LOCK)
        job = start_skipping(db, where="n = 0", options={"walk": "physical", "lock_timeout_ms": 50})
        wait_until(lambda: progress(db, job)["rows_updated"] == ROWS - len(LOCKED), 60, "all other rows")
        said = wait_until(lambda: progress(db, job)["waiting_for"], 30, "what it waits for")
        assert "a lock that somebody else holds" in said or ", held by pid " in said
        other.commit()
    complete(db, job)
    assert counts(db) == [(1, ROWS)]


def test_a_share_lock_of_a_foreign_key_is_no_reason_to_skip(db: Database) -> None:
    """It does not stand in the way of an UPDATE that leaves the key alone."""
    make_table(db, 100)
    db.sql("CREATE TABLE detail (t_id int REFERENCES t)")
    with db.connect(autocommit=False) as other:
        other.execute("INSERT INTO detail VALUES (50)")
        job = start_skipping(db)
        complete(db, job)
        assert "locked" not in (progress(db, job)["note"] or "")
    assert counts(db) == [(1, 100)]


def test_an_update_of_a_unique_column_skips_it(db: Database) -> None:
    """There it does: the batch would wait."""
    make_table(db, 100)
    db.sql("ALTER TABLE t ADD code int UNIQUE; UPDATE t SET code = id; CREATE TABLE detail (t_id int REFERENCES t)")
    with db.connect(autocommit=False) as other:
        other.execute("INSERT INTO detail VALUES (50)")
        job = start(db, "t", "n = n + 1, code = -code", options={"locked_rows": "skip"})
        waits(db, job, 1)
        assert skipped(db, job) == [50]
        assert db.value("SELECT count(*) FROM t WHERE code < 0") == 99
        other.commit()
    complete(db, job)
    assert counts(db) == [(1, 100)]


def test_rows_that_are_gone_are_not_waited_for(db: Database) -> None:
    """Deleted, or not matching any more, by who had them locked."""
    make_table(db, 100)
    with db.connect(autocommit=False) as other:
        other.execute(
            "DELETE FROM t WHERE id = 10; UPDATE t SET n = 7 WHERE id = 20; SELECT FROM t WHERE id = 30 FOR UPDATE"
        )
        job = start_skipping(db, where="n < 7", options={"walk": "key"})
        wait_until(lambda: skipped(db, job) == [10, 20, 30], 30, "the locked rows")
        other.commit()
    row = complete(db, job)
    assert counts(db) == [(1, 98), (7, 1)]
    assert row["rows_updated"] == 98


def test_other_slices_come_first(db: Database) -> None:
    """One worker does not stand before a locked row while there is other work."""
    db.sql("""
        CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (1000);
        CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (1000) TO (2000);
        CREATE TABLE t3 PARTITION OF t FOR VALUES FROM (2000) TO (3001);
        INSERT INTO t SELECT generate_series(1, 3000)
    """)
    with db.connect(autocommit=False) as one, db.connect(autocommit=False) as two:
        one.execute("UPDATE t SET n = n WHERE id = 5")
        two.execute("UPDATE t SET n = n WHERE id = 1005")
        job = start_skipping(db)
        wait_until(lambda: progress(db, job)["rows_updated"] == ROWS - 2, 60, "all other rows")
        wait_until(lambda: skipped(db, job) == [5, 1005], 10, "the locked rows in the view")
        # Neither holds up the other.
        two.commit()
        wait_until(lambda: skipped(db, job) == [5], 30, "the row of the second partition")
        one.commit()
    complete(db, job)
    assert counts(db) == [(1, ROWS)]


def test_a_crash_forgets_no_row(new_cluster) -> None:
    """Which rows were left is committed with the batch that left them."""
    server = new_cluster()
    server.sql("CREATE EXTENSION backfill")
    make_table(server, ROWS)
    # A prepared transaction keeps its locks through the crash.
    server.set(max_prepared_transactions=2)
    server.restart()
    with server.connect(autocommit=False) as other:
        other.execute(LOCK)
        other.execute("PREPARE TRANSACTION 'locks'")
    job = start_skipping(server, options={"strategy": "waves", "waves": 4})
    waits(server, job, len(LOCKED))
    server.crash_worker(job)
    wait_until(lambda: server.worker_pids(job), 60, "another worker")
    # The crash may have taken the last batches: they are done again.
    wait_until(lambda: skipped(server, job) == LOCKED, 30, "the rows that were left")
    server.sql("COMMIT PREPARED 'locks'")
    complete(server, job)
    assert counts(server) == [(1, ROWS)]


def test_a_pause_while_it_waits(db: Database) -> None:
    """What waits for locks can be paused, altered and resumed as anything else."""
    make_table(db, 100)
    with db.connect(autocommit=False) as other:
        other.execute("UPDATE t SET n = n WHERE id = 5")
        job = start_skipping(db)
        waits(db, job, 1)
        db.sql("SELECT backfill.pause(%s)", [job])
        wait_for_state(db, job, "paused")
        db.sql("""SELECT backfill.alter(%s, options => '{"locked_rows": "wait", "lock_timeout_ms": 20}')""", [job])
        db.sql("SELECT backfill.resume(%s)", [job])
        wait_until(lambda: "a lock that somebody" in (progress(db, job)["waiting_for"] or ""), 30, "the wait")
        other.commit()
    complete(db, job)
    assert counts(db) == [(1, 100)]


def test_keys_of_several_columns(db: Database) -> None:
    """With a type whose equality is not that of its text."""
    db.sql("""
        CREATE TABLE t (a numeric, b text, n int NOT NULL DEFAULT 0, PRIMARY KEY (a, b));
        INSERT INTO t SELECT g / 10.0, 'it''s "' || g, 0 FROM generate_series(1, 500) g
    """)
    with db.connect(autocommit=False) as other:
        other.execute("UPDATE t SET n = n WHERE a IN (1.0, 20, 50.0)")
        job = start_skipping(db, options={"strategy": "waves", "waves": 3})
        waits(db, job, 3)
        shown = db.sql("SELECT key_columns, key FROM backfill.skipped_rows ORDER BY key")
        assert shown[0][0] == ["a", "b"] and "it's \"10" in {key[1] for _, key in shown}
        other.commit()
    complete(db, job)
    assert counts(db) == [(1, 500)]


def test_keys_without_arrays_are_waited_for(db: Database) -> None:
    """And the view says that the option has no effect."""
    db.sql("""
        CREATE TABLE t (id int[] PRIMARY KEY, n int NOT NULL DEFAULT 0);
        INSERT INTO t SELECT ARRAY[g, 1] FROM generate_series(1, 100) g
    """)
    with db.connect(autocommit=False) as other:
        other.execute("UPDATE t SET n = n WHERE id = '{50, 1}'")
        job = start_skipping(db, options={"lock_timeout_ms": 20})
        wait_until(lambda: "a lock that somebody" in (progress(db, job)["waiting_for"] or ""), 30, "the wait")
        phrase = "rows that others have locked are waited for"
        wait_until(lambda: phrase in (progress(db, job)["note"] or ""), 30, "the note")
        other.commit()
    complete(db, job)
    assert counts(db) == [(1, 100)]
