"""Lists of keys go by the places where their rows were read: these may have changed since."""

from __future__ import annotations

import pytest
from harness import Database
from harness.jobs import complete, start, wait_for, wait_for_rows
from harness.tables import counts

ROWS = 20_000
WAVES = {"strategy": "waves", "vacuum": False, "analyze": False}


@pytest.fixture
def table(db: Database) -> Database:
    """A table in which a job opens one region; nobody else works on it."""
    db.sql(f"""
        CREATE TABLE t (id int, n int NOT NULL DEFAULT 0 CHECK (n < 2), pad text) WITH (autovacuum_enabled = off);
        INSERT INTO t SELECT g, 0, repeat('x', 50) FROM generate_series(1, {ROWS}) g;
        ALTER TABLE t ADD PRIMARY KEY (id);
        CREATE INDEX ON t (pad);
        ANALYZE t
    """)
    return db


def begin(db: Database) -> int:
    """Starts a job, and waits until some rows are done and most are not."""
    job = start(db, "t", "n = n + 1", batch=200, sleep_ms=60, options=WAVES)
    wait_for_rows(db, job, 400)
    return job


def finish(db: Database, job: int) -> None:
    """Lets it go on without pauses, to its end."""
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    done = complete(db, job)
    assert done["rows_done"] < ROWS * 1.1


def test_an_error_of_another_row_is_not_that_of_the_batch(table: Database) -> None:
    """The places of rows that are to be done now hold rows that were done; these must not be done again."""
    job = begin(table)
    table.sql("SELECT backfill.pause(%s)", [job])
    wait_for(table, job, "paused")
    table.sql("SELECT backfill.alter(%s, sleep_ms => 200)", [job])
    table.sql("SELECT backfill.resume(%s)", [job])
    wait_for_rows(table, job, 1000)
    # Rows that are not done make room on their pages, and rows that are done come there.
    table.sql("CREATE TABLE places AS SELECT ctid AS place FROM t WHERE n = 0")
    table.sql("DELETE FROM t WHERE n = 0 AND id % 2 = 0")
    table.sql("VACUUM (INDEX_CLEANUP on) t")
    table.sql("UPDATE t SET pad = repeat('z', 100) WHERE n = 1")
    there = table.value("SELECT count(*) FROM t JOIN places ON t.ctid = place WHERE n = 1")
    assert there > 100, "the test needs done rows in places that are listed"
    finish(table, job)
    assert table.value("SELECT count(*) FROM t WHERE n <> 1") == 0


def test_rows_that_moved_are_found_by_their_keys(table: Database) -> None:
    """An application has updated most of them since they were read."""
    job = begin(table)
    table.sql("UPDATE t SET pad = repeat('y', 80) WHERE id % 3 > 0")
    finish(table, job)
    assert counts(table) == [(1, ROWS)]


def test_a_table_in_another_order(table: Database) -> None:
    """Each place holds another row of the region: the batch is done by keys, and those after it."""
    table.sql("CREATE INDEX t_back ON t ((-id))")
    job = begin(table)
    table.sql("CLUSTER t USING t_back")
    finish(table, job)
    assert counts(table) == [(1, ROWS)]


def test_a_new_row_in_the_place_of_a_deleted_one(table: Database) -> None:
    """Rows with keys beyond the walk's last one are none of the job's, wherever they are."""
    table.sql("CREATE TABLE places AS SELECT ctid AS place FROM t")
    job = begin(table)
    table.sql("DELETE FROM t WHERE id BETWEEN 8001 AND 12000")
    table.sql("VACUUM (INDEX_CLEANUP on) t")
    table.sql(f"INSERT INTO t SELECT {ROWS} + g, 0, 'new' FROM generate_series(1, 4000) g")
    there = table.value("SELECT count(*) FROM t JOIN places ON t.ctid = place WHERE pad = 'new'")
    assert there > 100, "the test needs rows in places that are listed"
    finish(table, job)
    assert counts(table) == [(0, 4000), (1, ROWS - 4000)]


SUPPRESS = """
    CREATE TABLE fired (id int PRIMARY KEY);
    CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO fired VALUES (old.id);
        IF old.id % 2 = 0 THEN RETURN NULL; END IF;
        RETURN new;
    END $$
"""
TRIGGER = "CREATE TRIGGER suppress BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress()"


def test_a_trigger_that_suppresses_updates_fires_once_for_each_row(table: Database) -> None:
    """Rows that did not come back are not tried once more: the key of `fired` would be violated."""
    table.sql(f"{SUPPRESS}; {TRIGGER}")
    job = start(table, "t", "n = n + 1", batch=500, options=WAVES)
    done = complete(table, job)
    assert (done["rows_done"], done["rows_updated"]) == (ROWS, ROWS / 2)
    assert table.value("SELECT count(*) FROM fired") == ROWS
    assert counts(table) == [(0, ROWS // 2), (1, ROWS // 2)]


def test_the_same_for_a_trigger_that_comes_while_the_job_runs(table: Database) -> None:
    """The statements of a region that is open already are looked at again."""
    table.sql(SUPPRESS)
    job = begin(table)
    table.sql(TRIGGER)
    finish(table, job)
    fired = table.value("SELECT count(*) FROM fired")
    assert 0 < fired < ROWS
    assert table.value("SELECT count(*) FROM t JOIN fired USING (id) WHERE n <> id % 2") == 0
    assert table.value("SELECT count(*) FROM t LEFT JOIN fired f USING (id) WHERE f IS NULL AND n <> 1") == 0


# Where the places themselves make the order.

FEW = f"""
    CREATE TABLE t (id int PRIMARY KEY, n int, status text);
    INSERT INTO t SELECT g, 0, CASE g % 1000 WHEN 0 THEN 'stale' ELSE 'idle' END
    FROM generate_series(1, {10 * ROWS}) g;
    ANALYZE t
"""


def test_few_rows_to_do_are_looked_for_page_by_page(db: Database) -> None:
    """It reads a fraction of what it would through the index."""
    db.sql(FEW)
    done = complete(db, start(db, "t", "status = 'fresh'", where="status = 'stale'"))
    assert "public.t goes in physical order, not by a key" in done["note"]
    assert done["rows_updated"] == ROWS / 100
    assert db.value("SELECT count(*) FROM t WHERE status = 'fresh'") == ROWS / 100


def test_a_new_column_is_not_taken_for_one_of_few_rows(db: Database) -> None:
    """It has no statistics, and the planner guesses that hardly any row is NULL: they all are."""
    db.sql(FEW)
    db.sql("ALTER TABLE t ADD m int")
    done = complete(db, start(db, "t", "m = n", where="m IS NULL"))
    assert "physical" not in (done["note"] or "")
    assert done["rows_updated"] == 10 * ROWS
