"""Partitions that come, go and change under a running job, and whole tables that are gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import Cluster, Database, Server
from harness.jobs import complete, fail
from harness.walks import WAYS, begin, begin_all, go, make, step

# Three partitions of 400 rows each; all are in progress where there are three workers, else the first one is.
PARTITIONED = """
    CREATE SCHEMA {s};
    SET search_path = {s};
    CREATE TABLE p (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, u int DEFAULT 1, w int DEFAULT 7, spare int)
        PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (400);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (400) TO (800);
    CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (800) TO (1200);
    INSERT INTO p (id) SELECT generate_series(0, 1199);
    ANALYZE p;
"""


@pytest.fixture(scope="module")
def shared_cluster(server: Server) -> Iterator[Cluster]:
    """A server with room for a job in each way at a time."""
    with Cluster(server=server, conf={"backfill.max_workers": 8}) as cluster:
        yield cluster


def begin_partitioned(db: Database, way: str) -> int:
    """A job in the middle of such a table."""
    db.sql(PARTITIONED.format(s=way))
    return begin(db, way, f"{way}.p")


def counts(db: Database, table: str) -> list[tuple[int, int]]:
    """How many rows were updated how often."""
    return db.sql(f"SELECT n, count(*) FROM ONLY {table} GROUP BY n ORDER BY n")


# In this order, with a batch after each.
CHANGES = [
    "CREATE TABLE p4 (LIKE p INCLUDING ALL); INSERT INTO p4 (id) SELECT generate_series(1200, 1599);"
    " ALTER TABLE p ATTACH PARTITION p4 FOR VALUES FROM (1200) TO (1600)",
    "ALTER TABLE p DETACH PARTITION p2; ALTER TABLE p2 DROP spare",
    "CLUSTER p1 USING p1_pkey",
    "ALTER TABLE p ADD more int DEFAULT 3; ALTER TABLE p DROP spare; ALTER TABLE p ALTER u TYPE bigint",
    "ALTER TABLE p RENAME id TO key; ALTER TABLE p RENAME TO q; CREATE SCHEMA {s}_other;"
    " ALTER TABLE q SET SCHEMA {s}_other",
    "ALTER TABLE {s}_other.q SET SCHEMA {s}; ALTER TABLE q RENAME TO p; ALTER TABLE p RENAME key TO id",
    # As one splits a partition: the rows are in other tables then, one of them of the old one's name.
    "ALTER TABLE p DETACH PARTITION p3; ALTER TABLE p3 RENAME TO old;"
    " CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (800) TO (1000);"
    " CREATE TABLE p5 PARTITION OF p FOR VALUES FROM (1000) TO (1200);"
    " INSERT INTO p (id, n) SELECT id, n FROM old; DROP TABLE old",
]


@pytest.mark.parametrize("way", WAYS)
def test_partitions_that_come_and_go(db: Database, way: str) -> None:
    """What was there at the start and is there is done once; the note names all that came, went, or was detached."""
    job = begin_partitioned(db, way)
    for ddl in CHANGES:
        db.sql(f"SET search_path = {way}; {ddl.format(s=way)}")
        step(db, job)
    db.sql(f"ALTER TABLE {way}.p DETACH PARTITION {way}.p1 CONCURRENTLY")
    step(db, job)
    moved = db.sql(f"SELECT n, count(*) FROM {way}.p WHERE id < 1200 GROUP BY n ORDER BY n")
    go(db, job)
    row = complete(db, job)
    assert counts(db, f"{way}.p1") == counts(db, f"{way}.p2") == [(1, 400)]
    # In physical order each row shows whether it is done. Else nothing tells that of rows that came from elsewhere.
    shown = way == "pages"
    assert counts(db, f"{way}.p4") == [(1 if shown else 0, 400)]
    now = db.sql(f"SELECT n, count(*) FROM {way}.p WHERE id < 1200 GROUP BY n ORDER BY n")
    assert now == ([(1, 400)] if shown else moved)
    assert row["rows_updated"] == (1600 if shown else 800 + dict(moved).get(1, 0))
    left = "" if shown else ": its rows are not done"
    for note in (
        f"partition {way}.p3 was dropped: what was left of it is not done",
        f"partition {way}.p3 came during the run{left}",
        f"partition {way}.p4 came during the run{left}",
        f"partition {way}.p5 came during the run{left}",
        f"{way}.p1 was detached during the run: its rows are done all the same",
        f"{way}.p2 was detached during the run",
    ):
        assert note in row["note"], row["note"]


ENDS = {
    "column renamed": (
        "ALTER TABLE p RENAME u TO v",
        'column "u" of table {s}.p1, which the clauses use, is called "v" now (SQLSTATE 42703)',
        "ALTER TABLE p RENAME v TO u",
    ),
    "column of one partition another one": (
        "ALTER TABLE p DETACH PARTITION p1; ALTER TABLE p1 RENAME u TO x; ALTER TABLE p1 RENAME spare TO u",
        'column "u" of table {s}.p1, which the clauses use, is called "x" now (SQLSTATE 42703)',
        "ALTER TABLE p1 RENAME u TO spare; ALTER TABLE p1 RENAME x TO u;"
        " ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (400)",
    ),
    "key of the whole dropped": (
        "ALTER TABLE p DROP CONSTRAINT p_pkey",
        "table {s}.p1 has no usable unique index on (id) any more (SQLSTATE 55000)",
        "ALTER TABLE p ADD PRIMARY KEY (id)",
    ),
    "all of it dropped": ("DROP TABLE p", "table {s}.p no longer exists (SQLSTATE 42P01)", None),
}


@pytest.mark.parametrize("change", ENDS)
def test_a_change_of_a_partitioned_table_that_ends_the_job(db: Database, change: str) -> None:
    """It names the partition and what has changed; the change undone, the job goes on."""
    ddl, says, undo = ENDS[change]
    ways = [way for way in ("ranges", "waves", "pages") if way != "pages" or not change.startswith("key")]
    jobs = {way: begin_partitioned(db, way) for way in ways}
    for way in jobs:
        db.sql(f"SET search_path = {way}; {ddl}")
    for way, job in jobs.items():
        go(db, job)
        error = fail(db, job)
        assert says.format(s=way) in error and "HINT: " in error, error
        if undo is None:
            assert db.value("SELECT backfill.cancel(%s)", [job]) == "cancelled"
            continue
        db.sql(f"SET search_path = {way}; {undo}")
        db.sql("SELECT backfill.resume(%s)", [job])
        row = complete(db, job)
        assert db.sql(f"SELECT n, count(*) FROM {way}.p GROUP BY n") == [(1, 1200)]
        assert row["rows_updated"] == 1200


def test_a_table_that_is_gone_and_comes_again(db: Database) -> None:
    """Dropped, the job fails; another table by its name is none of its business."""
    jobs = begin_all(db)
    for way, job in jobs.items():
        db.sql(f"DROP TABLE {way}.t; DROP SCHEMA {way}")
        make(db, f"{way}.t")
        go(db, job)
    for way, job in jobs.items():
        error = fail(db, job)
        assert f"table {way}.t no longer exists (SQLSTATE 42P01)" in error and f"backfill.cancel({job})" in error
        assert counts(db, f"{way}.t") == [(0, 1200)]
        assert db.value("SELECT backfill.cancel(%s)", [job]) == "cancelled"


def test_a_table_that_is_emptied(db: Database) -> None:
    """Nothing is left to be done; rows that came after it are done at most once."""
    jobs = begin_all(db)
    for way, job in jobs.items():
        db.sql(f"TRUNCATE {way}.t; INSERT INTO {way}.t (id, code) SELECT g, g FROM generate_series(1, 1200) g")
        go(db, job)
    for way, job in jobs.items():
        complete(db, job)
        assert {n for n, _ in counts(db, f"{way}.t")} <= {0, 1}
