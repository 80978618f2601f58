"""A small first run: limit_rows, key_from and key_to; and then the rest, no row twice."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, progress, start, wait_for
from harness.tables import counts, make_table

ROWS = 10_000


def done(db: Database, table: str = "t") -> set[int]:
    """The keys of the rows that were updated."""
    return {id for (id,) in db.sql(f"SELECT id FROM {table} WHERE n > 0")}


def go_on(db: Database, job: int, options: str) -> None:
    """Widens what the job may do, and lets it go on."""
    db.sql("SELECT backfill.alter(%s, options => %s)", [job, options])
    db.sql("SELECT backfill.resume(%s)", [job])


@pytest.mark.parametrize("options", [{}, {"workers": 3}, {"strategy": "waves", "waves": 4}, {"target_ms": 5}])
def test_limit_rows(db: Database, options: dict[str, Any]) -> None:
    """So many rows and not one more; then more; then all."""
    make_table(db, ROWS)
    job = start(db, "t", "n = n + 1", batch=300, options={"limit_rows": 1000, **options})
    row = wait_for(db, job, "paused")
    assert row["rows_updated"] == 1000
    assert counts(db) == [(0, ROWS - 1000), (1, 1000)]
    assert row["note"].startswith("paused at limit_rows (1000)") and "backfill.resume" in row["note"]
    # Without more to do, it pauses again.
    db.sql("SELECT backfill.resume(%s)", [job])
    assert wait_for(db, job, "paused")["attempt"] == 2
    assert counts(db) == [(0, ROWS - 1000), (1, 1000)]
    go_on(db, job, '{"limit_rows": 2500}')
    wait_for(db, job, "paused")
    assert counts(db) == [(0, ROWS - 2500), (1, 2500)]
    go_on(db, job, '{"limit_rows": null}')
    row = complete(db, job)
    assert (row["note"] or "waves rested").startswith("waves rested")
    assert counts(db) == [(1, ROWS)]
    paused = "SELECT actor::text, old, new FROM backfill.events WHERE job_id = %s AND event = 'pause'"
    assert set(db.sql(paused, [job])) == {("postgres", "running", "pausing")}


def test_limit_rows_counts_rows_that_match(db: Database) -> None:
    """Those that were updated, and no others."""
    make_table(db, ROWS)
    job = start(db, "t", "n = n + 1", where="id % 10 = 0", batch=100, options={"limit_rows": 250})
    row = wait_for(db, job, "paused")
    assert row["rows_updated"] == 250 and row["rows_done"] >= 2400
    assert len(done(db)) == 250
    go_on(db, job, '{"limit_rows": null}')
    complete(db, job)
    assert done(db) == set(range(10, ROWS + 1, 10))


def test_limit_rows_without_a_key(db: Database) -> None:
    """In physical order, too."""
    db.sql("CREATE TABLE heap (v integer, n integer); INSERT INTO heap SELECT id FROM generate_series(1, 5000) id")
    job = start(db, "heap", "n = 1", where="n IS NULL", batch=100, options={"limit_rows": 150})
    wait_for(db, job, "paused")
    assert db.value("SELECT count(n) FROM heap") == 150
    go_on(db, job, '{"limit_rows": null}')
    complete(db, job)
    assert db.value("SELECT count(n) FROM heap") == 5000


def test_as_many_rows_as_there_are(db: Database) -> None:
    """A limit that is not in the way does nothing."""
    make_table(db, 500)
    complete(db, start(db, "t", "n = n + 1", options={"limit_rows": 501}))
    assert counts(db) == [(1, 500)]


@pytest.mark.parametrize("options", [{}, {"workers": 2}])
def test_key_bounds_are_widened(db: Database, options: dict[str, Any]) -> None:
    """Between the bounds, then between wider ones, then all of it: each row once."""
    make_table(db, ROWS)
    bounds = {"key_from": 4000, "key_to": "5000"}
    job = start(db, "t", "n = n + 1", batch=300, options=bounds | options)
    row = wait_for(db, job, "paused")
    assert done(db) == set(range(4000, 5001))
    assert float(row["percent"]) == pytest.approx(99.9)
    assert row["note"].startswith("paused at key_to (5000)")
    go_on(db, job, '{"key_to": 6000}')
    wait_for(db, job, "paused")
    assert done(db) == set(range(4000, 6001))
    # Others would do what lies between, too.
    for moved in ('{"key_from": 4500}', '{"key_to": 5999}', '{"key_from": 7000, "key_to": 8000}'):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot become"):
            db.sql("SELECT backfill.alter(%s, options => %s)", [job, moved])
    go_on(db, job, '{"key_from": 3000, "key_to": 7000}')
    wait_for(db, job, "paused")
    assert done(db) == set(range(3000, 7001))
    go_on(db, job, '{"key_from": null, "key_to": null}')
    row = complete(db, job)
    assert counts(db) == [(1, ROWS)]
    assert row["rows_done"] == ROWS


def test_bounds_without_rows(db: Database) -> None:
    """Nothing is done, and the rest is done later."""
    make_table(db, 1000)
    job = start(db, "t", "n = n + 1", options={"key_from": 5000})
    wait_for(db, job, "paused")
    assert done(db) == set()
    go_on(db, job, '{"key_from": 900}')
    wait_for(db, job, "paused")
    assert done(db) == set(range(900, 1001))
    go_on(db, job, '{"key_from": null}')
    complete(db, job)
    assert counts(db) == [(1, 1000)]


def test_bounds_of_a_key_of_two_columns_and_partitions(db: Database) -> None:
    """In each partition between the same bounds."""
    db.sql("CREATE TABLE p (a integer, b text, n integer DEFAULT 0, PRIMARY KEY (a, b)) PARTITION BY LIST (a)")
    db.sql("CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)")
    db.sql("INSERT INTO p SELECT 1 + id % 2, to_char(id, 'FM00000') FROM generate_series(1, 4000) id")
    options = {"key_from": [1, "01000"], "key_to": ["2", "02000"]}
    job = start(db, "p", "n = p.n + 1", options=options)
    wait_for(db, job, "paused")
    between = "(a, b) >= (1, '01000') AND (a, b) <= (2, '02000')"
    assert db.value(f"SELECT count(*) FROM p WHERE (n = 1) <> ({between})") == 0
    go_on(db, job, '{"key_from": null, "key_to": null}')
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM p GROUP BY n") == [(1, 4000)]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"limit_rows": 0}, '"limit_rows" must be between 1'),
        ({"limit_rows": "many"}, '"limit_rows" must be an integer'),
        ({"key_from": "a"}, 'invalid input syntax for type integer: "a"'),
        ({"key_to": ["1", "2"]}, '"key_to" has 2 values, but the key of table public.t is (id)'),
        ({"key_to": True}, '"key_to" must be a key'),
        ({"key_to": 1.5}, '"key_to" must be a key: a string, an integer'),
        ({"key_from": 10, "key_to": "9"}, '"key_from" (10) comes after "key_to" (9)'),
        ({"key_from": 1, "walk": "physical"}, "need a key to walk by"),
    ],
)
def test_bad_options(db: Database, options: dict[str, Any], message: str) -> None:
    """Each says what is wrong, and what to do."""
    make_table(db, 10)
    with pytest.raises(psycopg.Error) as caught:
        start(db, "t", "n = 1", where="n = 0", options=options)
    assert message in str(caught.value) and caught.value.diag.message_hint
    assert db.value("SELECT count(*) FROM backfill.progress") == 0


def test_rows_that_come_before_the_first_one(db: Database) -> None:
    """Between the call and the first batch: they are not between the bounds."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1000, 1100)")
    db.sql("CREATE TABLE hold AS SELECT true AS held")
    options = {"key_from": 500, "key_to": 1100, "throttle_query": "SELECT held FROM public.hold"}
    job = start(db, "t", "n = n + 1", options=options)
    wait_until(lambda: progress(db, job)["waiting_for"], 30, "the job to give way")
    db.sql("INSERT INTO t VALUES (400), (600); UPDATE hold SET held = false")
    wait_for(db, job, "paused")
    assert done(db) == {600, *range(1000, 1101)}
    go_on(db, job, '{"key_from": null, "key_to": null}')
    complete(db, job)
    assert counts(db) == [(1, 103)]


def test_bounds_that_were_taken_away_can_be_put_back(db: Database) -> None:
    """Nothing has been done beyond them as yet."""
    make_table(db, 1000)
    job = start(db, "t", "n = n + 1", options={"key_to": 100})
    wait_for(db, job, "paused")
    for bound in ("null", "200"):
        db.sql("SELECT backfill.alter(%s, options => %s)", [job, f'{{"key_to": {bound}}}'])
    db.sql("SELECT backfill.resume(%s)", [job])
    wait_for(db, job, "paused")
    assert done(db) == set(range(1, 201))


def test_bounds_are_compared_in_the_order_of_the_key(db: Database) -> None:
    """By the collation of its column: capital letters come first in "C", and in no language."""
    db.sql('CREATE TABLE words (word text COLLATE "C" PRIMARY KEY, n int DEFAULT 0)')
    db.sql("INSERT INTO words VALUES ('A'), ('B'), ('a'), ('b'), ('c')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"\(a\) comes after .* \(B\)"):
        start(db, "words", "n = n + 1", options={"key_from": "a", "key_to": "B"})
    job = start(db, "words", "n = n + 1", options={"key_from": "B", "key_to": "a"})
    wait_for(db, job, "paused")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"is \(B\) and cannot become \(a\)"):
        db.sql('SELECT backfill.alter(%s, options => \'{"key_from": "a"}\')', [job])
    go_on(db, job, '{"key_from": "A"}')
    wait_for(db, job, "paused")
    assert db.value("SELECT string_agg(word, '' ORDER BY word) FROM words WHERE n = 1") == "ABa"


def test_bounds_are_compared_with_the_owners_rights(db: Database) -> None:
    """Reading a value of a type of his may call a function of his."""
    if not db.value("SELECT to_regrole('boxer') IS NOT NULL"):
        db.sql("CREATE ROLE boxer LOGIN")
    db.sql("""
        CREATE SCHEMA boxer AUTHORIZATION boxer; SET SESSION AUTHORIZATION boxer;
        CREATE TABLE boxer.seen (who text);
        CREATE FUNCTION boxer.note(text) RETURNS boolean LANGUAGE plpgsql AS
            'BEGIN INSERT INTO boxer.seen VALUES (current_user); RETURN true; END';
        CREATE DOMAIN boxer.name AS text CHECK (boxer.note(VALUE));
        CREATE TABLE boxer.t (id boxer.name PRIMARY KEY, n int DEFAULT 0);
        INSERT INTO boxer.t VALUES ('a'), ('b'), ('c')
    """)
    job = start(db, "boxer.t", "n = n + 1", options={"key_from": "b", "key_to": "b"}, user="boxer")
    wait_for(db, job, "paused")
    go_on(db, job, '{"key_from": "a"}')
    wait_for(db, job, "paused")
    assert db.sql("SELECT DISTINCT who FROM boxer.seen") == [("boxer",)]
    assert db.value("SELECT count(*) FROM boxer.t WHERE n = 1") == 2


def test_bounds_are_not_brought_in(db: Database) -> None:
    """Of a job that has begun with all of the table, there is nothing left out that could be added."""
    make_table(db, 1000)
    job = start(db, "t", "n = n + 1", batch=10, sleep_ms=200)
    wait_for(db, job, "running")
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for(db, job, "paused")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="has begun to walk all of table"):
        db.sql("SELECT backfill.alter(%s, options => '{\"key_to\": 10}')", [job])
    assert progress(db, job)["state"] == "paused"


@pytest.mark.parametrize("stack", ["2MB", "100kB"])
def test_a_clause_of_thousands_of_operators(db: Database, stack: str) -> None:
    """It works, or the stack is too small for it: in no more time than PostgreSQL itself needs to say so."""
    make_table(db, 10)
    for operators in (200, 2000, 20_000):
        for call in ("define('t', {})", "plan('t', set_clause => {})"):
            clause = f"'n = ' || repeat('1+', {operators}) || '1'"
            with suppress(psycopg.errors.StatementTooComplex):
                limits = f"SET max_stack_depth = '{stack}'; SET statement_timeout = '20s'"
                db.sql(f"{limits}; SELECT backfill.{call.format(clause)}")
