"""Clauses whose result in batches is another one than that of one UPDATE: said before, or made right."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, start


def notices(db: Database, query: str, params: list[Any] | None = None) -> tuple[list[tuple[Any, ...]], list[str]]:
    """The rows, and what was said along with them: message and hint."""
    said: list[str] = []
    with psycopg.connect(db.dsn(), autocommit=True) as connection:
        connection.add_notice_handler(lambda n: said.append(f"{n.severity}: {n.message_primary} {n.message_hint}"))
        rows = connection.execute(query, params).fetchall()
    return rows, said


def warnings_of_plan(
    db: Database, table: str, set_clause: str, where: str | None = None, **options: Any
) -> dict[str, tuple[str, str]]:
    """Warnings of `backfill.plan`, by item: value and advice."""
    rows = db.sql(
        "SELECT item, value, advice FROM backfill.plan(%s, set_clause => %s, where_clause => %s, options => %s)"
        " WHERE section = 'warnings'",
        [table, set_clause, where, psycopg.types.json.Jsonb(options)],
    )
    return {item: (value, advice) for item, value, advice in rows}


READ_BACK = [
    ("v = v / (SELECT sum(v) FROM sc)", None),
    ("v = v / (SELECT sum(x.v) FROM sc AS x WHERE x.k = sc.k)", None),
    ("v = 1", "v < (SELECT avg(v) FROM sc)"),
    ("v = 1", "EXISTS (SELECT FROM sc o WHERE o.id = sc.id - 1 AND o.v > 0)"),
    ("v = (WITH all_of AS (SELECT v FROM sc) SELECT max(v) FROM all_of)", None),
    ("v = (SELECT max(total) FROM totals)", None),
    ("v = (SELECT count(o) FROM sc o)", None),
    ("(k, v) = (SELECT o.k, o.v FROM sc o WHERE o.id = 1)", None),
]
ALONE = [
    ("v = v / 2", "v > 0"),
    ("v = (SELECT count(*) FROM sc o WHERE o.k = sc.k)", None),
    ("v = (SELECT x FROM others WHERE others.id = sc.id)", "v IS NOT NULL"),
    ("v = v + (SELECT v FROM others WHERE others.id = sc.id)", None),
]


@pytest.fixture
def scores(db: Database) -> Database:
    """Rows that a subquery may read back, and others."""
    db.sql("""
        CREATE TABLE sc (id int PRIMARY KEY, k int, v numeric);
        CREATE TABLE others (id int PRIMARY KEY, x numeric, v numeric);
        CREATE VIEW totals AS SELECT sum(v) AS total FROM sc;
        INSERT INTO sc SELECT g, g % 7, g FROM generate_series(1, 1000) g
    """)
    return db


@pytest.mark.parametrize(("set_clause", "where"), READ_BACK)
def test_a_subquery_that_reads_what_is_set(scores: Database, set_clause: str, where: str | None) -> None:
    """It sees what earlier batches have committed: start says so, and plan."""
    _, said = notices(scores, "SELECT backfill.define('sc', %s, %s)", [set_clause, where])
    assert [line for line in said if line.startswith("WARNING") and '"v"' in line and "table public.sc" in line], said
    warned = warnings_of_plan(scores, "sc", set_clause, where)
    assert '"v"' in warned["rows read back"][0]


@pytest.mark.parametrize(("set_clause", "where"), ALONE)
def test_a_subquery_that_does_not(scores: Database, set_clause: str, where: str | None) -> None:
    """No word of it where rows of the table are not read, or not what is set."""
    _, said = notices(scores, "SELECT backfill.define('sc', %s, %s)", [set_clause, where])
    assert not [line for line in said if line.startswith("WARNING")]
    assert "rows read back" not in warnings_of_plan(scores, "sc", set_clause, where)


def test_read_back_by_way_of_partitions_and_children(db: Database) -> None:
    """A partition, its partitioned table, and what inherits are the same rows."""
    db.sql("""
        CREATE TABLE m (id int, d int, v int, PRIMARY KEY (id, d)) PARTITION BY RANGE (d);
        CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
        CREATE TABLE par (id int PRIMARY KEY, v int); CREATE TABLE ch (PRIMARY KEY (id)) INHERITS (par)
    """)
    for table, clause in [
        ("m", "v = (SELECT max(v) FROM m1)"),
        ("m1", "v = (SELECT max(v) FROM m)"),
        ("ch", "v = (SELECT max(v) FROM par)"),
    ]:
        assert "rows read back" in warnings_of_plan(db, table, clause), table
    assert "rows read back" not in warnings_of_plan(db, "ch", "v = (SELECT max(v) FROM ONLY par)")


def test_the_hint_of_the_warning_works(scores: Database) -> None:
    """What the subquery reads, computed once: the result of one UPDATE."""
    _, said = notices(scores, "SELECT backfill.define('sc', 'v = v / (SELECT sum(v) FROM sc)')")
    assert "CREATE TABLE" in said[0]
    scores.sql("CREATE TABLE before AS SELECT sum(v) AS v FROM sc")
    complete(scores, start(scores, "sc", "v = v / (SELECT v FROM before)", batch=100))
    assert scores.value("SELECT round(sum(v), 9) FROM sc") == 1


def test_update_from_becomes_a_subquery_and_a_condition(db: Database) -> None:
    """FROM is named, not WHERE; what the hint says, and a subquery with EXISTS, leave rows without a partner alone."""
    db.sql("""
        CREATE TABLE o (id int PRIMARY KEY, region text); INSERT INTO o SELECT g, 'old' FROM generate_series(1, 1000) g;
        CREATE TABLE lk (id int PRIMARY KEY, region text); INSERT INTO lk SELECT g, 'new' FROM generate_series(1, 400) g
    """)
    with pytest.raises(psycopg.errors.SyntaxError) as error:
        start(db, "o", "region = lk.region FROM lk WHERE lk.id = o.id")
    assert error.value.diag.message_primary == "set_clause must be one SET list, but has FROM"
    hint = error.value.diag.message_hint or ""
    assert '"from"' in hint and "where_clause" in hint
    job = complete(db, start(db, "o", "region = lk.region", where="lk.id = o.id", options={"from": "lk"}))
    assert job["rows_updated"] == 400
    assert db.sql("SELECT region, count(*) FROM o GROUP BY region ORDER BY region") == [("new", 400), ("old", 600)]
    db.sql("UPDATE o SET region = 'old'")
    set_clause = "region = (SELECT lk.region FROM lk WHERE lk.id = o.id)"
    job = complete(db, start(db, "o", set_clause, where="EXISTS (SELECT FROM lk WHERE lk.id = o.id)"))
    assert job["rows_updated"] == 400
    assert db.sql("SELECT region, count(*) FROM o GROUP BY region ORDER BY region") == [("new", 400), ("old", 600)]
    for clause, what in [("region = 'x' WHERE id = 1", "WHERE"), ("region = 'x' RETURNING id", "RETURNING")]:
        with pytest.raises(psycopg.errors.SyntaxError, match=f"but has {what}") as error:
            start(db, "o", clause)
        assert "EXISTS" not in (error.value.diag.message_hint or "")


ORDERED = {"walk": "key", "strategy": "sequential"}


def numbered(db: Database) -> None:
    """A table whose rows are not stored in the order of the key, with indexes, so that waves would pay."""
    db.sql("""
        CREATE TABLE t (id int PRIMARY KEY, no bigint, pad text, a int DEFAULT 1, b int DEFAULT 2, c int DEFAULT 3);
        INSERT INTO t (id, pad) SELECT g, repeat('x', 80) FROM generate_series(1, 5000) g ORDER BY g * 7919 % 5003;
        CREATE INDEX ON t (a); CREATE INDEX ON t (b); CREATE INDEX ON t (c); CREATE SEQUENCE s
    """)
    db.sql("VACUUM ANALYZE t")


INVERSIONS = "SELECT count(*) FROM (SELECT no, lag(no) OVER (ORDER BY id) AS before FROM t) x WHERE before > no"


def test_numbers_of_a_sequence_are_in_no_order(db: Database) -> None:
    """Said by start and by plan, with the way to have them in order."""
    numbered(db)
    for clause in ["no = nextval('s')", "no = nextval('s') + 1, a = 2"]:
        _, said = notices(db, "SELECT backfill.define('t', %s)", [clause])
        assert [line for line in said if "WARNING" in line and "order" in line and "ordered" in line], said
        assert "sequence" in warnings_of_plan(db, "t", clause)
    assert "sequence" in warnings_of_plan(db, "t", "no = nextval('s')", strategy="sequential", workers=2, walk="key")
    assert "sequence" not in warnings_of_plan(db, "t", "no = 1")


@pytest.mark.parametrize("where", [None, "no IS NULL", "id % 3 > 0"])
@pytest.mark.parametrize(("batch", "key"), [(7, None), (1000, None), (1000, "downwards")])
def test_a_sequential_walk_by_key_is_in_order(db: Database, where: str | None, batch: int, key: str | None) -> None:
    """What the hint promises: not one inversion, though rows are stored in another order. And no warning."""
    numbered(db)
    if key:
        db.sql("ALTER TABLE t DROP CONSTRAINT t_pkey; CREATE UNIQUE INDEX downwards ON t (id DESC)")
    assert "sequence" not in warnings_of_plan(db, "t", "no = nextval('s')", where, **ORDERED)
    complete(db, start(db, "t", "no = nextval('s')", where=where, batch=batch, options=ORDERED))
    expected = db.value(f"SELECT count(*) FROM t WHERE {'true' if where in (None, 'no IS NULL') else where}")
    assert db.value("SELECT count(DISTINCT no) FROM t") == expected
    assert db.value(INVERSIONS) == 0
    assert db.value("SELECT max(no) FROM t") == expected


def positions(db: Database, order: str = "g") -> None:
    """Positions, in the order of the key or another one."""
    db.sql(f"""
        CREATE TABLE pos (id int PRIMARY KEY, p int NOT NULL, n int DEFAULT 0);
        INSERT INTO pos (id, p) SELECT g, {order} FROM generate_series(1, 500) g
    """)


@pytest.mark.parametrize(
    "unique",
    [
        "CREATE UNIQUE INDEX ON pos (p)",
        "ALTER TABLE pos ADD UNIQUE (p) DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE pos ADD UNIQUE (n, p)",
    ],
)
@pytest.mark.parametrize("clause", ["p = p + 1", "p = 3 + p, n = 0", "p = p + 2::smallint"])
def test_a_shift_under_a_unique_index(db: Database, unique: str, clause: str) -> None:
    """The first batch would meet rows that still have its values: refused at once, and foreseen by plan."""
    positions(db)
    db.sql(unique)
    clause = clause.replace(", n = 0", "") if "(n, p)" in unique else clause
    with pytest.raises(psycopg.errors.UniqueViolation) as error:
        start(db, "pos", clause, batch=100)
    diag = error.value.diag
    assert "shifts column" in (diag.message_primary or "") and "two" in (diag.message_hint or "").lower()
    with pytest.raises(psycopg.errors.UniqueViolation, match="shifts column"):
        db.sql("SELECT * FROM backfill.plan('pos', 100, set_clause => %s)", [clause])
    assert "unique indexes on columns that are set" in warnings_of_plan(db, "pos", "p = p * 2")
    assert db.value("SELECT count(*) FROM backfill.progress") == 0


def test_the_two_steps_of_the_hint(db: Database) -> None:
    """What the hint says, to the letter."""
    positions(db)
    db.sql("CREATE UNIQUE INDEX ON pos (p)")
    with pytest.raises(psycopg.errors.UniqueViolation) as error:
        start(db, "pos", "p = p + 1", batch=100)
    hint = error.value.diag.message_hint or ""
    steps = [("p = -(p + 1)", "p >= 0"), ("p = -p", "p < 0")]
    for clause, where in steps:
        assert f"set_clause => '{clause}', where_clause => '{where}'" in hint
        complete(db, start(db, "pos", clause, where=where, batch=100))
    assert db.value("SELECT count(*) FROM pos WHERE p <> id + 1") == 0


@pytest.mark.parametrize(
    ("order", "clause", "where"),
    [
        # Against the order of the key: each value is free when its turn comes.
        ("g", "p = p - 1", None),
        ("1000 - g", "p = p + 1", None),
        # To where nothing is.
        ("g", "p = p + 1000", None),
        ("g", "p = p - 1000", None),
        # No two rows that are apart by it.
        ("g * 10", "p = p + 5", None),
        ("g", "p = p + 250", "p > 250"),
        # No shift.
        ("g", "p = -p", None),
        ("g", "p = p * 1000", None),
    ],
)
def test_a_shift_that_works(db: Database, order: str, clause: str, where: str | None) -> None:
    """No verdict without proof: what the batches can do, they do."""
    positions(db, order)
    db.sql("CREATE UNIQUE INDEX ON pos (p); CREATE TABLE was AS SELECT * FROM pos")
    complete(db, start(db, "pos", clause, where=where, batch=50))
    db.sql(f"UPDATE was SET {clause} WHERE {where or 'true'}")
    assert db.value("SELECT count(*) FROM pos JOIN was USING (id) WHERE pos.p <> was.p") == 0


def test_a_shift_of_columns_that_are_not_unique(db: Database) -> None:
    """Other indexes, and no index, are no matter."""
    positions(db)
    db.sql("CREATE INDEX ON pos (p)")
    complete(db, start(db, "pos", "p = p + 1", batch=100))
    assert db.value("SELECT sum(p - id) FROM pos") == 500


def test_a_unique_violation_on_the_way(db: Database) -> None:
    """Not foreseen: the hint speaks of the two steps, not of resuming alone."""
    positions(db)
    db.sql("CREATE UNIQUE INDEX ON pos (p)")
    job = start(db, "pos", "p = 501 - p", batch=100)
    from harness.jobs import fail

    error = fail(db, job)
    assert "23505" in error and "two steps" in error
