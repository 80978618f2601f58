"""UPDATE … FROM: option `from`. Rows without a partner stay as they are, and one with several is an error."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, fail

ROWS = 5_000
SET = "price = r.price, note = r.name"
ON = "r.id = t.rate"


def make(db: Database, key: str = "id int PRIMARY KEY") -> None:
    """Rows of which three of five have a partner."""
    db.sql(f"""
        CREATE TABLE t ({key}, rate int, price numeric, note text);
        INSERT INTO t (id, rate) SELECT g, g % 500 FROM generate_series(1, {ROWS}) g;
        CREATE TABLE rates (id int, price numeric, name text);
        INSERT INTO rates SELECT g, g / 10.0, 'rate ' || g FROM generate_series(0, 299) g;
        ANALYZE t, rates
    """)


def start(db: Database, set_clause: str = SET, where: str | None = ON, **given: Any) -> int:
    """Starts a job."""
    options = {"from": given.pop("item", "rates r")} | given.pop("options", {})
    name = given.pop("name", None)
    assert not given
    call = "SELECT backfill.start('t', 300, 0, %s, %s, %s, %s)"
    return int(db.value(call, [set_clause, where, name, json.dumps(options)]))


def wanted(db: Database, set_clause: str = SET, item: str = "rates r", where: str = ON) -> list[tuple[Any, ...]]:
    """The rows after one UPDATE, which is rolled back."""
    with db.connect(autocommit=False) as once:
        once.execute(f"UPDATE t SET {set_clause} FROM {item} WHERE {where}")
        rows = once.execute("SELECT id, rate, price, note FROM t ORDER BY id").fetchall()
        once.rollback()
    return rows


def rows(db: Database) -> list[tuple[Any, ...]]:
    """The rows as they are."""
    return db.sql("SELECT id, rate, price, note FROM t ORDER BY id")


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "by key": ("id int PRIMARY KEY", {}),
    "by key of two columns": ("b int DEFAULT 1, id int, PRIMARY KEY (b, id)", {}),
    "in waves": ("id int PRIMARY KEY", {"strategy": "waves"}),
    "in waves, by two columns": ("b int DEFAULT 1, id int, PRIMARY KEY (b, id)", {"strategy": "waves"}),
    "by several workers": ("id int PRIMARY KEY", {"workers": 3}),
    "locked rows later": ("id int PRIMARY KEY", {"locked_rows": "skip"}),
    "one pass": ("id int PRIMARY KEY", {"strategy": "sequential"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_does_what_update_from_does(db: Database, way: str) -> None:
    """Rows without a partner keep what they have."""
    key, options = WAYS[way]
    make(db, key)
    db.sql("UPDATE t SET price = -1, note = 'old' WHERE rate > 250; CREATE INDEX ON t (rate); CREATE INDEX ON t (note)")
    want = wanted(db)
    row = complete(db, start(db, options=options))
    assert rows(db) == want
    assert row["rows_updated"] == ROWS * 3 // 5 and row["rows_done"] == ROWS, row
    assert row["where_clause"] == ON and row["set_clause"] == SET
    assert db.value("SELECT count(*) FROM t WHERE price = -1") > 0


@pytest.mark.parametrize(
    ("item", "set_clause", "where"),
    [
        ("rates AS r JOIN rates s ON s.id = r.id + 1", "price = r.price + s.price", "r.id = t.rate AND t.id > 100"),
        ("(SELECT id, max(price) AS top FROM rates GROUP BY id) r", "price = r.top", "r.id = t.rate"),
        ("generate_series(1, 100) AS g", "(price, note) = (SELECT g, 'g' || g)", "g = t.rate"),
        ("t AS other", "note = 'after ' || other.id", "other.id = t.id - 1"),
        ("LATERAL (SELECT 7 AS n) r", "price = n", "t.id < 50"),
    ],
)
def test_items_of_from(db: Database, item: str, set_clause: str, where: str) -> None:
    """Joins, subqueries, functions, the table itself."""
    make(db)
    want = wanted(db, set_clause, item, where)
    assert want != rows(db)
    complete(db, start(db, set_clause, where, item=item))
    assert rows(db) == want


def test_partitions(db: Database) -> None:
    """The clauses call each of them by the name of the partitioned table."""
    db.sql("""
        CREATE TABLE t (id int, rate int, price numeric, note text, PRIMARY KEY (rate, id)) PARTITION BY LIST (rate);
        CREATE TABLE t0 PARTITION OF t FOR VALUES IN (0); CREATE TABLE t1 PARTITION OF t DEFAULT;
        INSERT INTO t SELECT g, g % 3 FROM generate_series(1, 1000) g;
        CREATE TABLE rates AS SELECT g AS id, g::numeric AS price, 'r' || g AS name FROM generate_series(0, 1) g
    """)
    complete(db, start(db))
    assert db.sql("SELECT rate, price, count(*) FROM t GROUP BY 1, 2 ORDER BY 1") == [
        (0, 0, 333),
        (1, 1, 334),
        (2, None, 333),
    ]


def test_a_row_with_several_partners_is_an_error_that_names_it(db: Database) -> None:
    """UPDATE would take any of them. It can be stepped over, or mended."""
    make(db)
    db.sql("INSERT INTO rates VALUES (7, 0, 'another')")
    error = fail(db, start(db))
    assert "(id) = (7)" in error and "more than one partner" in error, error
    db.sql("SELECT backfill.cancel(job_id) FROM backfill.progress")
    row = complete(db, start(db, options={"max_failed_rows": 100}))
    assert row["rows_failed"] == ROWS // 500
    assert db.value("SELECT count(*) FROM t WHERE rate = 7 AND price IS NULL") == ROWS // 500
    db.sql("DELETE FROM rates WHERE name = 'another'")
    db.sql("SELECT backfill.retry_failed(%s)", [row["job_id"]])
    complete(db, row["job_id"])
    assert rows(db) == wanted(db)


def test_it_is_planned_previewed_and_verified(db: Database) -> None:
    """Like any other update; a procedure of it is refused."""
    make(db)
    given = {"set": SET, "where": ON, "options": '{"from": "rates r"}'}
    call = "('t', set_clause => %(set)s, where_clause => %(where)s, options => %(options)s"
    plan = dict(db.connect().execute(f"SELECT item, value FROM backfill.plan{call})", given).fetchall())
    assert "MERGE INTO" in plan["batch"] and plan["rows that match"].startswith("3,000"), plan
    looks = f'SELECT before, after, error FROM backfill.preview{call}, "limit" => 5)'
    shown = db.connect().execute(looks, given).fetchall()
    assert len(shown) == 5 and all(after["note"].startswith("rate ") for _, after, _ in shown), shown
    dry = complete(db, start(db, options={"dry_run": True}))
    assert f"dry run: of {ROWS} rows 3000 would change" in dry["note"], dry["note"]
    job = start(db, name="priced")
    complete(db, job)
    assert start(db, name="priced") == job
    with pytest.raises(psycopg.errors.DuplicateObject):
        start(db, name="priced", item="rates AS r")
    assert "is verified" in complete(db, db.value("SELECT backfill.verify('priced', recompute => true)"))["note"]
    db.sql("UPDATE rates SET price = 0 WHERE id = 3")
    found = complete(db, db.value("SELECT backfill.verify('priced', recompute => true)"))
    assert "10 of " in found["note"] and "not what" in found["note"], found["note"]
    complete(db, db.value("SELECT backfill.reapply('priced')"))
    assert rows(db) == wanted(db)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="from"):
        db.sql("SELECT backfill.procedure('priced')")
    assert "rates r" in db.value("SELECT backfill.report('priced')")


def test_it_is_corrected(db: Database) -> None:
    """redefine takes the condition that joins the two."""
    make(db)
    job = start(db, "price = 1 / (r.id - 200)")
    assert "division by zero" in fail(db, job)
    db.sql("SELECT backfill.redefine(%s, 'price = r.price', 'r.id = t.rate AND r.id <> 200')", [job])
    db.sql("SELECT backfill.resume(%s)", [job])
    row = complete(db, job)
    assert row["where_clause"] == "r.id = t.rate AND r.id <> 200"
    assert db.value("SELECT count(*) FROM t WHERE rate = 200 AND price IS NOT NULL") == 0


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no condition": ({"where": None}, "22004", "where_clause"),
    "no such table": ({"item": "nowhere r"}, "42P01", "nowhere"),
    "no such column": ({"set_clause": "price = r.nope"}, "42703", "nope"),
    "no such name": ({"where": "x.id = t.rate"}, "42P01", "x"),
    "a list": ({"item": "rates r, rates s"}, "42601", "not a list"),
    "more than an item": ({"item": "rates r WHERE true"}, "42601", "WHERE"),
    "a second statement": ({"item": "rates r; SELECT 1"}, "42601", "semicolon"),
    "nothing": ({"item": ""}, "22023", "empty"),
    "no text": ({"item": 7}, "22023", "from"),
    "in physical order": ({"where": f"{ON} AND t.price IS NULL", "options": {"walk": "physical"}}, "0A000", "key"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(db: Database, case: str) -> None:
    """With a SQLSTATE, the thing at fault, and a hint; nothing stays behind."""
    make(db)
    given, state, said = BAD[case]
    with pytest.raises(psycopg.Error) as caught:
        start(db, **given)
    assert caught.value.sqlstate == state and said in str(caught.value), (caught.value.sqlstate, caught.value)
    assert caught.value.diag.message_hint, caught.value
    assert db.value("SELECT count(*) FROM backfill.progress") == 0


def test_the_hint_for_from_in_set_clause_works(db: Database) -> None:
    """It says how; and other calls have no use for the option."""
    make(db)
    with pytest.raises(psycopg.errors.SyntaxError) as caught:
        db.sql("SELECT backfill.start('t', set_clause => 'price = r.price FROM rates r WHERE r.id = t.rate')")
    assert '"from"' in (caught.value.diag.message_hint or "")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="columns that are set"):
        db.sql("""SELECT backfill.delete('t', where_clause => 'true', options => '{"from": "rates r"}')""")
