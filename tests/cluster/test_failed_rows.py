"""A row that fails is found, recorded and stepped over; the others of its batch are done."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, fail, start
from harness.tables import counts, make_table

ROWS = 3000
BAD = [1, 2, 700, 701, 999, 1000, 1001, 2345, 2999, 3000]
WALKS: dict[str, dict[str, Any]] = {
    "sequential": {"options": {"strategy": "sequential"}},
    "by lists": {"where": "n = 0", "options": {"walk": "key"}},
    "in waves": {"options": {"strategy": "waves", "waves": 5}},
    "in physical order": {"where": "n = 0", "options": {}},
}


def spoil(db: Database, bad: list[int] = BAD) -> None:
    """Updates of these rows fail."""
    rows = ", ".join(map(str, bad))
    db.sql(f"ALTER TABLE t ADD CONSTRAINT not_these CHECK (n = 0 OR NOT id IN ({rows}))")


def failed(db: Database, job: int) -> list[int]:
    """The keys in the view."""
    keys = db.sql("SELECT key FROM backfill.failed_rows WHERE job_id = %s ORDER BY key[1]::int", [job])
    return [int(key) for ((key,),) in keys]


def keyless(db: Database) -> None:
    """Without a key for now: a job that begins so goes in physical order."""
    db.sql("ALTER TABLE t DROP CONSTRAINT t_pkey")


@pytest.mark.parametrize("walk", WALKS)
def test_bad_rows_are_stepped_over(db: Database, walk: str) -> None:
    """All others are done, each once; the view has the bad ones with their errors."""
    make_table(db, ROWS)
    spoil(db)
    arguments = {**WALKS[walk], "options": {**WALKS[walk]["options"], "max_failed_rows": 10}}
    if "physical" in walk:
        keyless(db)
    job = start(db, "t", "n = n + 1", batch=500, **arguments)
    if "physical" in walk:
        assert "ctid (" in fail(db, job)
        db.sql("ALTER TABLE t ADD PRIMARY KEY (id)")
        db.sql("SELECT backfill.resume(%s)", [job])
    row = complete(db, job)
    assert failed(db, job) == BAD
    assert counts(db) == [(0, len(BAD)), (1, ROWS - len(BAD))]
    assert row["rows_failed"] == len(BAD) and row["rows_updated"] == ROWS - len(BAD)
    assert "10 rows failed: see backfill.failed_rows" in row["note"]
    line = f"backfill job {job} on public.t (database {db.name}, owner postgres) completed: 10 rows failed"
    assert line in db.cluster.log.read_text()
    (details,) = db.sql(
        "SELECT relation::text, key_columns, sqlstate, message, detail, constraint_name FROM backfill.failed_rows"
        " WHERE job_id = %s AND key = '{700}'",
        [job],
    )
    assert details[:3] == ("t", ["id"], "23514") and details[5] == "not_these"
    assert 'violates check constraint "not_these"' in details[3] and "(700, 1)" in details[4]


@pytest.mark.parametrize("most", [0, 3])
def test_one_more_than_may_fail_fails_the_job(db: Database, most: int) -> None:
    """The error names the row; what may fail is recorded; with the row mended, the job goes on behind it."""
    make_table(db, ROWS)
    spoil(db, [100, 200, 300, 2000])
    options = {"max_failed_rows": most, "strategy": "sequential"}
    job = start(db, "t", "n = n + 1", batch=1000, options=options)
    key = [100, 200, 300, 2000][most]
    error = fail(db, job)
    assert f"in batch (id) = ({key})" in error and "not_these" in error
    assert failed(db, job) == [100, 200, 300, 2000][:most]
    assert counts(db) == [(0, ROWS - key + 1 + most), (1, key - 1 - most)]
    db.sql("ALTER TABLE t DROP CONSTRAINT not_these")
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    expected = [(1, ROWS)] if most == 0 else [(0, most), (1, ROWS - most)]
    assert counts(db) == expected


def test_in_physical_order_the_key_is_named_too(db: Database) -> None:
    """A place in the table means nothing to a person."""
    make_table(db, ROWS)
    spoil(db, [700])
    job = start(db, "t", "n = n + 1", batch=500, where="n = 0", options={"walk": "physical"})
    error = fail(db, job)
    assert "in batch ctid (" in error and "of public.t, (id) = (700)" in error and "not_these" in error


def test_a_row_is_found_in_few_transactions(db: Database) -> None:
    """Halves: some tries per power of two, not one per row."""
    make_table(db, 100_000)
    spoil(db, [77_777])
    db.sql("""
        CREATE SEQUENCE tries;
        CREATE FUNCTION tried() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM nextval(''tries''); RETURN NULL; END';
        CREATE TRIGGER tried BEFORE UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION tried()
    """)
    options = {"max_failed_rows": 1, "strategy": "sequential"}
    job = start(db, "t", "n = n + 1", batch=10_000, options=options)
    complete(db, job)
    # Ten for all rows; fourteen powers of two, each with a half that fails, one that works, and one that is too large.
    assert 10 + 14 < db.value("SELECT last_value FROM tries") < 10 + 14 * 4
    assert counts(db) == [(0, 1), (1, 99_999)]


def test_an_error_at_commit_is_found(db: Database) -> None:
    """Deferred constraints are checked when the batch commits."""
    make_table(db, ROWS)
    db.sql("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF new.id % 1000 = 7 THEN RAISE 'no %', new.id USING ERRCODE = '23000'; END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse()
    """)
    job = start(db, "t", "n = n + 1", batch=1000, options={"max_failed_rows": 100})
    complete(db, job)
    assert failed(db, job) == [7, 1007, 2007]
    assert counts(db) == [(0, 3), (1, ROWS - 3)]
    assert db.value("SELECT message FROM backfill.failed_rows WHERE key = '{1007}'") == "no 1007"


def test_a_row_whose_predicate_fails_is_found(db: Database) -> None:
    """The error comes up where rows are read, many at a time."""
    make_table(db, ROWS)
    db.sql("ALTER TABLE t ADD d int NOT NULL DEFAULT 1; UPDATE t SET d = 0 WHERE id IN (5, 1500, 3000)")
    options = {"max_failed_rows": 100, "walk": "key"}
    job = start(db, "t", "n = n + 1", where="10 / d = 10", batch=1000, options=options)
    complete(db, job)
    assert failed(db, job) == [5, 1500, 3000]
    assert counts(db) == [(0, 3), (1, ROWS - 3)]


def test_keys_of_several_columns_are_recorded_whole(db: Database) -> None:
    """With the columns in the order of the index."""
    db.sql("""
        CREATE TABLE t (a text, b date, n int DEFAULT 0, PRIMARY KEY (b, a), CHECK (n = 0 OR a <> 'it''s, 3'));
        INSERT INTO t SELECT 'it''s, ' || g, '2024-02-29' FROM generate_series(1, 100) g
    """)
    job = start(db, "t", "n = n + 1", batch=30, options={"max_failed_rows": 1})
    complete(db, job)
    found = db.sql("SELECT key_columns, key FROM backfill.failed_rows")
    assert found == [(["b", "a"], ["2024-02-29", "it's, 3"])]
    assert counts(db) == [(0, 1), (1, 99)]


def test_errors_of_no_row_are_not_looked_for_in_rows(db: Database) -> None:
    """A right that is missing is missing for all."""
    make_table(db, ROWS)
    db.sql("""
        DROP ROLE IF EXISTS clerk; CREATE ROLE clerk LOGIN; GRANT SELECT, UPDATE ON t TO clerk;
        CREATE FUNCTION no_right() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_read_file(''/etc/passwd''); RETURN new; END';
        CREATE TRIGGER no_right BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no_right()
    """)
    job = start(db, "t", "n = n + 1", batch=1000, user="clerk", options={"max_failed_rows": 1000})
    assert "(SQLSTATE 42501)" in fail(db, job)
    assert failed(db, job) == []


def test_who_may_not_read_the_table_sees_no_rows_of_it(db: Database) -> None:
    """Members of pg_monitor see how many rows failed and why, others nothing."""
    make_table(db, ROWS)
    spoil(db, [42])
    db.sql(
        "CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor; DROP ROLE IF EXISTS nobody; CREATE ROLE nobody LOGIN"
    )
    job = start(db, "t", "n = n + 1", options={"max_failed_rows": 1})
    complete(db, job)
    query = "SELECT key, sqlstate, message, detail, constraint_name FROM backfill.failed_rows"
    with db.connect(user="monitor") as connection:
        rows = connection.execute(query).fetchall()
    assert rows == [(None, "23514", "(may hold row data: it takes SELECT on the relation)", None, "not_these")]
    with db.connect(user="nobody") as connection:
        assert connection.execute(query).fetchall() == []


def test_a_record_of_a_bad_row_that_is_interrupted(db: Database) -> None:
    """The row is found again, and recorded once: a cancel that hits the record does not fail the job."""
    make_table(db, 50)
    spoil(db, [7])
    with psycopg.connect(db.dsn()) as other:
        # As an administrator's CREATE INDEX or VACUUM FULL would.
        other.execute("LOCK TABLE backfill_internal.failed_row IN SHARE MODE")
        job = start(db, "t", "n = n + 1", options={"max_failed_rows": 1})
        blocked = "SELECT pid FROM pg_locks WHERE relation = 'backfill_internal.failed_row'::regclass AND NOT granted"
        [(pid,)] = wait_until(lambda: db.sql(blocked), 30, "the worker to wait for the lock")
        assert db.value("SELECT pg_cancel_backend(%s)", [pid])
        cancelled = "SELECT count(*) = 0 FROM pg_locks WHERE pid = %s AND NOT granted"
        wait_until(lambda: db.value(cancelled, [pid]), 30, "the worker to give up", every=0.001)
    complete(db, job)
    assert failed(db, job) == [7]
    assert counts(db) == [(0, 1), (1, 49)]
