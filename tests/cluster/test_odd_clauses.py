"""Clauses that a worker's statements could have treated otherwise than one UPDATE does."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, start

SUBQUERIES = [
    "p IN (SELECT k FROM look)",
    "(p, q) IN (SELECT k, k FROM look)",
    "p IN (SELECT s.id FROM t s JOIN look ON s.id = k)",
    "p IN (SELECT s.p FROM t s WHERE s.id = 3) OR EXISTS (SELECT FROM look WHERE k = id)",
    "EXISTS (SELECT FROM t s, look WHERE s.id = look.k AND s.p = t.p)",
]


@pytest.mark.parametrize("options", [{}, {"locked_rows": "skip"}, {"strategy": "waves"}])
@pytest.mark.parametrize("key", ["id", "id, q"])
def test_subqueries_in_where_clause(db: Database, key: str, options: dict[str, Any]) -> None:
    """The planner joins them to the table before it joins the list of keys; there has to be a plan."""
    db.sql(f"CREATE TABLE t (id int, p int, q int, n int NOT NULL DEFAULT 0, m int DEFAULT 0, PRIMARY KEY ({key}))")
    db.sql("CREATE TABLE look (k int PRIMARY KEY); INSERT INTO look SELECT generate_series(1, 20)")
    db.sql("INSERT INTO t SELECT g, g % 30, g % 30 FROM generate_series(1, 300) g")
    db.sql("VACUUM ANALYZE t")
    for where in SUBQUERIES:
        complete(db, start(db, "t", "n = n + 1", where=where, batch=7, options=options))
        db.sql(f"UPDATE t SET m = m + 1 WHERE {where}")
        assert db.value("SELECT count(*) FROM t WHERE n <> m") == 0, where
    assert db.value("SELECT count(*) FROM t WHERE n > 0") > 0


@pytest.mark.parametrize("options", [{}, {"locked_rows": "skip"}, {"strategy": "waves"}, {"walk": "physical"}])
def test_what_follows_a_null_is_not_looked_at(db: Database, options: dict[str, Any]) -> None:
    """As after WHERE: as a value, NULL AND an error is an error. Nor is what costs more than what is false."""
    db.sql("""
        CREATE FUNCTION strict_one(x int) RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN IF x = 7 THEN RAISE 'seven'; END IF; RETURN x; END $$;
        CREATE TABLE t (id int PRIMARY KEY, p int, q int, n int NOT NULL DEFAULT 0);
        INSERT INTO t SELECT g, nullif(g % 5, 0), g % 5 FROM generate_series(1, 50) g
    """)
    for where, rows in [("n = 0 AND p > 1 AND 10 / q > 2", 20), ("n <= 1 AND strict_one(id) > 0 AND id < 5", 4)]:
        expected = db.value(f"SELECT count(*) FROM t WHERE {where}")
        assert expected == rows
        # Physical order takes no function that is not known to be immutable.
        if "strict_one" in where and options.get("walk"):
            continue
        job = complete(db, start(db, "t", "n = n + 1", where=where, batch=7, options=options))
        assert job["rows_updated"] == rows


@pytest.mark.parametrize("where", ["NULL", "'yes'", "'on'", "'1'", "'no'"])
@pytest.mark.parametrize("options", [{}, {"locked_rows": "skip"}, {"strategy": "waves"}])
def test_a_literal_is_a_boolean(db: Database, where: str, options: dict[str, Any]) -> None:
    """Also where the worker asks of a row that it has read whether it matches."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO t SELECT generate_series(1, 50)")
    complete(db, start(db, "t", "n = n + 1", where=where, batch=7, options=options))
    expected = 50 if db.value(f"SELECT coalesce({where}::boolean, false)") else 0
    assert db.value("SELECT sum(n) FROM t") == expected


def test_a_literal_is_a_boolean_in_physical_order(db: Database) -> None:
    """Where it is asked whether a row that was updated matches still."""
    db.sql("CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    db.sql("CREATE TABLE t (id int, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 50)")
    db.sql("CREATE TRIGGER pass BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION pass()")
    assert complete(db, start(db, "t", "n = n + 1", where="NULL"))["rows_updated"] == 0


@pytest.mark.parametrize("where", ["true", "id > 3", "id > 3 AND pad IS NULL", "id IS NOT NULL OR 1 < 2"])
def test_rows_that_can_never_fall_out_are_refused_at_once(db: Database, where: str) -> None:
    """Without a key, a batch would fail for it: no column of where_clause is set."""
    db.sql("CREATE TABLE t (id int, n int DEFAULT 0, pad text, twice int GENERATED ALWAYS AS (n * 2) STORED)")
    db.sql("INSERT INTO t SELECT generate_series(1, 50)")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="no key to walk it by") as refused:
        start(db, "t", "n = n + 1", where=where)
    assert "set_clause sets no column that where_clause reads" in (refused.value.diag.message_detail or "")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="sets no column that where_clause reads"):
        start(db, "t", "n = n + 1", where=where, options={"walk": "physical"})


@pytest.mark.parametrize("where", ["n = 0", "NOT t = ROW(t.id, 1, 2)::t", "twice = 0", "t.n < 1 AND id > 0"])
def test_rows_that_can_fall_out_are_not(db: Database, where: str) -> None:
    """A column that is set, the whole row, or one that is generated from others."""
    db.sql("CREATE TABLE t (id int, n int DEFAULT 0, twice int GENERATED ALWAYS AS (n * 2) STORED)")
    db.sql("INSERT INTO t SELECT generate_series(1, 50)")
    complete(db, start(db, "t", "n = n + 1", where=where))
    assert db.value("SELECT sum(n) FROM t") == 50


def test_a_trigger_may_make_rows_fall_out(db: Database) -> None:
    """One that fires before the UPDATE can set any column: what becomes of the rows is seen with each batch."""
    db.sql("CREATE TABLE t (id int, n int DEFAULT 0, touched bool); INSERT INTO t SELECT generate_series(1, 50)")
    db.sql("CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.touched := true; RETURN NEW; END'")
    db.sql("CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()")
    complete(db, start(db, "t", "n = n + 1", where="touched IS NULL"))
    assert db.value("SELECT sum(n) FROM t") == 50
