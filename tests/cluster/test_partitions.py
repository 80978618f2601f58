"""Partitioned tables, and tables without a key: the jobs do what one UPDATE would have done."""

from __future__ import annotations

import pytest
from harness import Database
from harness.jobs import complete, progress, start
from harness.tables import assert_same

TABLE = """
    CREATE TABLE p (id int, region text, day date, a int, n int) PARTITION BY LIST (region);
    CREATE TABLE eu PARTITION OF p FOR VALUES IN ('eu');
    ALTER TABLE eu ADD PRIMARY KEY (id);
    CREATE TABLE us PARTITION OF p FOR VALUES IN ('us') PARTITION BY RANGE (id);
    CREATE TABLE us_1 PARTITION OF us FOR VALUES FROM (0) TO (1000);
    CREATE TABLE us_rest PARTITION OF us DEFAULT;
    CREATE UNIQUE INDEX ON us_1 (id DESC, region DESC);
    ALTER TABLE us_1 ALTER id SET NOT NULL, ALTER region SET NOT NULL;
    CREATE TABLE rest (n int, gone int, a int, day date, id int, region text);
    ALTER TABLE rest DROP gone;
    ALTER TABLE p ATTACH PARTITION rest DEFAULT;
    CREATE TABLE nothing PARTITION OF p FOR VALUES IN ('nowhere');
    INSERT INTO p SELECT i, (ARRAY['eu', 'us', 'asia', NULL])[1 + i % 4], '2020-01-01', i, NULL
    FROM generate_series(1, 4000) i;
    CREATE TABLE lookup AS SELECT id, id * 2 AS double FROM p;
    ALTER TABLE lookup ADD PRIMARY KEY (id);
    CREATE TABLE expected AS SELECT * FROM p
"""


@pytest.mark.parametrize("batch", [100, 5000])
def test_each_partition_goes_its_own_way(db: Database, batch: int) -> None:
    """By its own key, or by its pages; whatever its columns' order; called by the name of the whole."""
    db.sql(TABLE)
    set_clause = "n = (SELECT lookup.double FROM lookup WHERE lookup.id = p.id AND lookup.id < 10)"
    where = "n IS NULL AND p.id < 3500"
    # Where the subquery finds nothing, the row would match for ever: another value for those.
    set_clause = f"n = COALESCE({set_clause[4:]}, 0)"
    job = start(db, "p", set_clause, batch=batch, where=where)
    row = complete(db, job)
    assert row["rows_updated"] == 3499
    db.sql(f"UPDATE expected AS p SET {set_clause} WHERE {where}")
    assert_same(db, "expected", "p")


def test_a_named_key_is_that_of_each_partition(db: Database) -> None:
    """The option names the index of the whole; each partition's has a name of its own."""
    db.sql("""
        CREATE TABLE p (id int NOT NULL, code text NOT NULL, n int DEFAULT 0) PARTITION BY HASH (code);
        CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE p1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE UNIQUE INDEX by_id ON p (id, code); CREATE UNIQUE INDEX by_code ON p (code);
        INSERT INTO p SELECT i, 'c' || i FROM generate_series(1, 1000) i
    """)
    job = start(db, "p", "n = n + 1", options={"key": "by_id", "walk": "key"})
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM p GROUP BY n") == [(1, 1000)]
    assert db.value("SELECT key_columns FROM backfill.progress WHERE job_id = %s", [job]) == ["id", "code"]


def test_no_partitions_is_a_job_done(db: Database) -> None:
    """There is nothing to do."""
    db.sql("CREATE TABLE p (id int PRIMARY KEY, n int) PARTITION BY LIST (id)")
    assert complete(db, start(db, "p", "n = 1"))["rows_updated"] == 0


def test_a_table_without_a_key(db: Database) -> None:
    """Goes by its pages; also one that is empty."""
    db.sql("CREATE TABLE t AS SELECT i AS a, NULL::int AS n FROM generate_series(1, 5000) i; CREATE TABLE e (n int)")
    job = start(db, "t", "n = a", where="n IS NULL", batch=100)
    assert complete(db, job)["rows_updated"] == 5000
    assert db.value("SELECT count(*) FROM t WHERE n = a") == 5000
    assert progress(db, job)["key_columns"] == []
    assert complete(db, start(db, "e", "n = 1", where="n IS NULL"))["rows_updated"] == 0


def test_partitions_that_the_clause_excludes_are_not_walked(db: Database) -> None:
    """By the planner's own proof; what it can't prove is walked. `plan` says the same."""
    db.sql("""
        CREATE TABLE e (id int, at date, n int DEFAULT 0, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
        CREATE TABLE e2020 PARTITION OF e FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        CREATE TABLE e2021 PARTITION OF e FOR VALUES FROM ('2021-01-01') TO ('2022-01-01') PARTITION BY LIST (id);
        CREATE TABLE e2021a PARTITION OF e2021 DEFAULT;
        CREATE TABLE e2022 PARTITION OF e FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
        INSERT INTO e SELECT g, date '2020-01-01' + g FROM generate_series(0, 1095) g
    """)
    where = "at >= '2021-06-01' AND at < '2022-01-01'"
    lines = "SELECT item, value FROM backfill.plan('e', set_clause => 'n = n + 1', where_clause => %s)"
    plan = dict(db.sql(lines, [where]))
    assert plan["tables"] == "1 of 3: where_clause excludes the others", plan
    row = complete(db, start(db, "e", "n = n + 1", where=where))
    assert "2 tables are excluded by where_clause" in row["note"]
    assert row["rows_total"] == row["rows_done"] == 365 and row["rows_updated"] == 214 and row["percent"] == 100, row
    assert db.value("SELECT count(*) FROM e WHERE n = 1") == db.value(f"SELECT count(*) FROM e WHERE {where}") == 214
    # None of them, and not known before it runs.
    row = complete(db, start(db, "e", "n = n + 1", where="at < '2019-01-01'"))
    assert (row["rows_updated"], row["percent"]) == (0, 100) and "3 tables are excluded" in row["note"]
    row = complete(db, start(db, "e", "n = n + 1", where="at < date_trunc('year', timestamptz '2021-01-01')"))
    assert row["rows_updated"] == 366 and "excluded" not in (row["note"] or "")
    assert complete(db, start(db, "e2020", "n = 2", where="at > '2022-01-01'"))["rows_updated"] == 0


def test_a_constraint_excludes_a_child(db: Database) -> None:
    """If it was validated."""
    db.sql("""
        CREATE TABLE par (id int PRIMARY KEY, kind int, n int DEFAULT 0);
        CREATE TABLE one (PRIMARY KEY (id), CHECK (kind = 1)) INHERITS (par);
        CREATE TABLE two (PRIMARY KEY (id)) INHERITS (par);
        INSERT INTO one SELECT g, 1 FROM generate_series(1, 100) g;
        INSERT INTO two SELECT g, 1 FROM generate_series(101, 150) g;
        ALTER TABLE two ADD CHECK (kind = 2) NOT VALID
    """)
    row = complete(db, start(db, "par", "n = 1", where="kind = 2"))
    assert "1 table is excluded" in row["note"] and row["rows_updated"] == 0
    # Its own rows may say otherwise still, and an UPDATE of such a row fails.
    lines = "SELECT item, value FROM backfill.plan('par', set_clause => 'n = 1', where_clause => 'kind = 1')"
    plan = dict(db.sql(lines))
    assert plan["and tables"] == "2 that inherit from it", plan
