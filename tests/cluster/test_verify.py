"""backfill.verify and backfill.reapply: the rows are as they should be, or are made so."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, progress, start, wait_for

ROWS = 20_000
SPOILED = [1, 2, 17, 6000, 6001, 12_345, 19_999, 20_000]


def make(db: Database, **options: Any) -> int:
    """A table, and a job on it that is done."""
    db.sql("CREATE TABLE orders (id integer PRIMARY KEY, rate integer, rate_new integer)")
    db.sql(f"INSERT INTO orders SELECT id, id FROM generate_series(1, {ROWS}) id")
    job = start(db, "orders", "rate_new = rate", where="rate_new IS NULL", name="rates", options=options)
    complete(db, job)
    return job


def spoil(db: Database, value: str = "-1") -> None:
    """Makes some rows wrong."""
    db.sql(f"UPDATE orders SET rate_new = {value} WHERE id = ANY (%s)", [SPOILED])


def verify(db: Database, job: int, arguments: str = "") -> dict[str, Any]:
    """The verification's row, once it is done."""
    return complete(db, db.value(f"SELECT backfill.verify(%s{arguments})", [job]))


def wrong(db: Database, job: int) -> list[int]:
    """The keys in the view, of the newest verification."""
    return [
        int(key)
        for ((key,),) in db.sql(
            "SELECT key FROM backfill.verify_failures WHERE job_id = %s AND verification_id ="
            " (SELECT max(job_id) FROM backfill.progress WHERE verifies = %s) ORDER BY key[1]::int",
            [job, job],
        )
    ]


@pytest.mark.parametrize(
    "arguments, value",
    [
        (", check_clause => 'rate_new = rate'", "-1"),
        (", check_clause => 'rate_new = rate'", "NULL"),
        (", recompute => true", "-1"),
        ("", "NULL"),
    ],
)
def test_wrong_rows_are_found_and_done_again(db: Database, arguments: str, value: str) -> None:
    """Exactly these: the others are not touched."""
    job = make(db)
    assert "is verified" in verify(db, job, arguments)["note"]
    assert db.value("SELECT backfill.reapply(%s)", [job]) is None
    spoil(db, value)
    row = verify(db, job, arguments)
    assert (row["kind"], row["verifies"], row["rows_updated"]) == ("verification", job, len(SPOILED))
    assert f"is not verified: {len(SPOILED)} of {ROWS} rows" in row["note"]
    assert wrong(db, job) == SPOILED
    places = dict(db.sql("SELECT id, ctid::text FROM orders"))
    again = complete(db, db.value("SELECT backfill.reapply(%s)", [job]))
    assert (again["kind"], again["rows_updated"]) == ("backfill", len(SPOILED))
    assert db.value("SELECT count(*) FROM orders WHERE rate_new IS DISTINCT FROM rate") == 0
    moved = [id for id, place in db.sql("SELECT id, ctid::text FROM orders") if places[id] != place]
    assert sorted(moved) == SPOILED
    assert "is verified" in verify(db, job, arguments)["note"]


CONDITIONS = [
    # where_clause, the part of it that a verification keeps to
    ("country = 'DE'", "(country = 'DE'::text)"),
    ("country = 'DE' AND net IS NULL", "(country = 'DE'::text)"),
    ("(country = 'DE' AND id > 0) AND (net IS NULL AND cents <> 0)", "id > 0"),
    ("country IN (SELECT 'DE') AND net IS NULL", None),
    ("country = 'DE' OR net = -1", None),
]


@pytest.mark.parametrize("where, kept", CONDITIONS)
def test_rows_that_the_job_was_not_about(db: Database, where: str, kept: str | None) -> None:
    """They are not counted where the clause tells, and never touched where a part of it says so."""
    db.sql("CREATE TABLE prices (id int PRIMARY KEY, country text, cents int, net int)")
    db.sql(
        "INSERT INTO prices SELECT id, CASE id % 2 WHEN 0 THEN 'DE' ELSE 'FR' END, id FROM generate_series(1, 1000) id"
    )
    job = start(db, "prices", "net = 1000000 / (cents * 2 - cents)", where=where)
    complete(db, job)
    db.sql("UPDATE prices SET net = 0 WHERE id IN (7, 8)")
    found = verify(db, job, ", recompute => true")
    assert (found["where_clause"] is None) == (kept is None)
    assert kept is None or kept in found["where_clause"]
    assert found["rows_updated"] == (501 if kept is None else 1)
    complete(db, db.value("SELECT backfill.reapply(%s)", [job]))
    others = "SELECT count(*) FROM prices WHERE country = 'FR' AND net IS NOT NULL"
    assert db.value(others) == (1 if "OR" not in where else 500)
    assert db.value("SELECT net FROM prices WHERE id = 8") == 125_000
    assert verify(db, job, ", check_clause => 'net > 0'")["rows_updated"] == (0 if kept or "OR" in where else 500)


def test_rows_of_which_the_set_list_fails_are_not_evaluated(db: Database) -> None:
    """The clause kept the job from them, and keeps the verification from them."""
    db.sql("CREATE TABLE parts (id int PRIMARY KEY, n int, share int)")
    db.sql("INSERT INTO parts SELECT id, id % 10 FROM generate_series(1, 1000) id")
    job = start(db, "parts", "share = 100 / n", where="n <> 0")
    complete(db, job)
    assert "is verified" in verify(db, job, ", recompute => true")["note"]


@pytest.mark.parametrize("clock", ["now()", "current_timestamp", "localtimestamp(0)", "current_date", "txid_current()"])
def test_what_is_another_thing_each_time_is_not_computed_again(db: Database, clock: str) -> None:
    """Every row would be wrong, and wrong again when it is done again."""
    db.sql("CREATE TABLE stamped (id int PRIMARY KEY, n int, at text); INSERT INTO stamped VALUES (1), (2)")
    job = start(db, "stamped", f"n = id, at = {clock}::text")
    complete(db, job)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="something else each time"):
        db.sql("SELECT backfill.verify(%s, recompute => true)", [job])
    assert "is verified" in verify(db, job, ", check_clause => 'n = id AND at IS NOT NULL'")["note"]


@pytest.mark.parametrize("clause", ["n = n + 1", "m = 1, n = length(orders::text)", "m = n, n = m"])
def test_what_reads_a_column_that_it_sets_is_undecided(db: Database, clause: str) -> None:
    """Rows that are right would be done twice."""
    db.sql(
        "CREATE TABLE orders (id int PRIMARY KEY, n int DEFAULT 0, m int DEFAULT 7); INSERT INTO orders VALUES (1), (2)"
    )
    job = start(db, "orders", clause)
    complete(db, job)
    before = db.sql("SELECT * FROM orders ORDER BY id")
    note = verify(db, job, ", recompute => true")["note"]
    assert re.search(r'2 of 2 rows are undecided.* it reads column "[nm]", which it sets', note) or "none of 2" in note
    if "undecided" in note:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=r'it reads column "[nm]", which it sets'):
            db.sql("SELECT backfill.reapply(%s)", [job])
    assert db.sql("SELECT * FROM orders ORDER BY id") == before
    assert "is not verified: 2 of 2" in verify(db, job, ", check_clause => 'n < 0'")["note"]


def test_a_trigger_may_change_what_the_clause_reads(db: Database) -> None:
    """Rows that are done would not be looked at: so all are; but others are not done again."""
    job = make_touched(db)
    found = verify(db, job, ", recompute => true")
    assert (found["where_clause"], found["rows_updated"]) == (None, 502)
    complete(db, db.value("SELECT backfill.reapply(%s)", [job]))
    assert db.value("SELECT count(*) FROM touched WHERE n IS NULL") == 500


def make_touched(db: Database) -> int:
    """A job whose clause is about a column that a trigger sets; two of its rows are spoiled."""
    db.sql("""
        CREATE TABLE touched (id int PRIMARY KEY, kind text, at date DEFAULT '2020-01-01', n int);
        INSERT INTO touched SELECT id, CASE WHEN id % 2 = 0 THEN 'even' ELSE 'odd' END FROM generate_series(1, 1000) id;
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN new.at := now(); RETURN new; END';
        CREATE TRIGGER touch BEFORE UPDATE ON touched FOR EACH ROW EXECUTE FUNCTION touch()
    """)
    job = start(db, "touched", "n = 1", where="kind = 'even' AND at < '2021-01-01'")
    complete(db, job)
    db.sql("UPDATE touched SET n = 2 WHERE id IN (10, 20)")
    return job


def test_a_part_of_a_table_is_verified_as_a_part(db: Database) -> None:
    """Between the bounds of the first, small run; no call can narrow that down."""
    db.sql("CREATE TABLE orders (id integer PRIMARY KEY, rate integer, rate_new integer)")
    db.sql(f"INSERT INTO orders SELECT id, id FROM generate_series(1, {ROWS}) id")
    bounds = {"key_from": 10, "key_to": 2000}
    job = start(db, "orders", "rate_new = rate", where="rate_new IS NULL", name="rates", options=bounds)
    wait_for(db, job, "paused")
    assert "is verified: none of 1991 rows" in verify(db, job, ", recompute => true")["note"]
    spoil(db)
    verify(db, job, ", recompute => true")
    assert wrong(db, job) == [17]
    for option in ("key_from", "key_to"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=f'option "{option}" cannot be given'):
            db.sql(f"SELECT backfill.verify(%s, recompute => true, options => '{{\"{option}\": 5}}')", [job])
    db.sql('SELECT backfill.alter(%s, options => \'{"key_from": null, "key_to": null}\')', [job])
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    verify(db, job, ", recompute => true")
    assert wrong(db, job) == SPOILED


def test_rows_that_cannot_be_looked_at(db: Database) -> None:
    """They are not called right, nor can they be done again."""
    db.sql("CREATE TABLE texts (id int PRIMARY KEY, source text, n int)")
    db.sql("INSERT INTO texts SELECT id, id::text FROM generate_series(1, 1000) id")
    job = start(db, "texts", "n = source::int", name="texts")
    complete(db, job)
    db.sql("UPDATE texts SET source = 'x' WHERE id IN (10, 20)")
    found = verify(db, job, ", recompute => true, options => '{\"max_failed_rows\": 10}'")
    assert "is not verified: 2 of 1000 rows could not be looked at" in found["note"]
    for call in (f"backfill.reapply({job})", "backfill.require_completed('texts', verified => true)"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
            db.sql(f"SELECT {call}")
        assert "2 rows could not be looked at" in str(caught.value)
        assert "See backfill.failed_rows" in caught.value.diag.message_hint


def test_a_row_that_is_right_by_now_is_left_alone(db: Database) -> None:
    """What the check asks is asked once more before a row is done again."""
    job = make(db)
    spoil(db)
    verify(db, job, ", check_clause => 'rate_new = rate'")
    db.sql("UPDATE orders SET rate = 5, rate_new = 5 WHERE id = 17")
    again = complete(db, db.value("SELECT backfill.reapply(%s)", [job]))
    assert again["rows_updated"] == len(SPOILED) - 1
    assert f"for {len(SPOILED)} rows that job {job + 1} has found to be wrong, if still so" in again["note"]


def test_partitions_and_keys_of_several_columns(db: Database) -> None:
    """Wrong rows are named with their partition."""
    db.sql("CREATE TABLE p (a integer, b text, n integer, PRIMARY KEY (a, b)) PARTITION BY LIST (a)")
    db.sql("CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)")
    db.sql("INSERT INTO p SELECT 1 + id % 2, 'k' || id FROM generate_series(1, 4000) id")
    job = start(db, "p", "n = p.a * 10")
    complete(db, job)
    db.sql("UPDATE p SET n = 0 WHERE b IN ('k7', 'k8', 'k3999')")
    verify(db, job, ", check_clause => 'p.n = p.a * 10', options => '{\"workers\": 2}'")
    found = db.sql("SELECT relation::text, key_columns, key FROM backfill.verify_failures ORDER BY key")
    assert found == [
        ("p1", ["a", "b"], ["1", "k8"]),
        ("p2", ["a", "b"], ["2", "k3999"]),
        ("p2", ["a", "b"], ["2", "k7"]),
    ]
    assert complete(db, db.value("SELECT backfill.reapply(%s)", [job]))["rows_updated"] == 3
    assert db.value("SELECT count(*) FROM p WHERE n <> a * 10") == 0


def test_a_table_without_a_key(db: Database) -> None:
    """Wrong rows are known by their places; to do them again takes another job."""
    db.sql("CREATE TABLE heap (v integer, n integer); INSERT INTO heap SELECT id FROM generate_series(1, 3000) id")
    job = start(db, "heap", "n = v", where="n IS NULL")
    complete(db, job)
    db.sql("UPDATE heap SET n = 0 WHERE v = 1500")
    db.sql("DELETE FROM heap WHERE v > 1600")
    row = verify(db, job, ", check_clause => 'n = v'")
    assert row["rows_updated"] == 1
    assert "1 of 1600 rows do not pass the check" in row["note"]
    place = db.value("SELECT ctid::text FROM heap WHERE v = 1500")
    assert db.sql("SELECT key_columns, key FROM backfill.verify_failures") == [(["ctid"], [place])]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has no key to find the rows by"):
        db.sql("SELECT backfill.reapply(%s)", [job])


def test_a_verification_is_a_job(db: Database) -> None:
    """It can be paused, killed and resumed, and finds each wrong row once."""
    job = make(db)
    spoil(db)
    verification = db.value(
        "SELECT backfill.verify(%s, 'pg_sleep(0.0002) IS NOT NULL AND rate_new = rate')",
        [job],
    )
    db.sql("SELECT backfill.alter(%s, 500, 20)", [verification])
    wait_until(lambda: progress(db, verification)["rows_done"] > 4000, 60, "the verification to get on")
    db.sql("SELECT backfill.pause(%s)", [verification])
    wait_for(db, verification, "paused")
    db.sql("SELECT backfill.resume(%s)", [verification])
    wait_until(lambda: progress(db, verification)["rows_done"] > 9000, 60, "the verification to get on")
    kill_a_worker(db, verification)
    row = complete(db, verification, timeout=120)
    assert (row["rows_done"], row["rows_updated"]) == (ROWS, len(SPOILED))
    assert wrong(db, job) == SPOILED


def kill_a_worker(db: Database, job: int) -> None:
    """As pg_terminate_backend does; the job is resumed."""
    pids = db.worker_pids(job)
    for pid in pids:
        db.sql("SELECT pg_terminate_backend(%s)", [pid])
    wait_until(lambda: not set(db.worker_pids(job)) & set(pids), 30, "the worker to end")
    db.sql("SELECT backfill.resume(%s)", [job])


@pytest.mark.parametrize(
    "call, state, message",
    [
        ("verify(%(job)s, 'nothing = 1')", "42703", 'column "nothing" does not exist'),
        ("verify(%(job)s, 'rate = 1; DROP TABLE orders')", "42601", "check_clause contains a semicolon"),
        ("verify(%(job)s, 'true', options => '{\"walk\": \"physical\"}')", "22023", '"walk" cannot be given to verify'),
        ("verify(%(job)s, ' ')", "22023", "check_clause is empty"),
        ("verify(%(job)s, 'true', true)", "22023", "check_clause and recompute are both given"),
        ("verify(%(job)s, options => '{\"dry_run\": true}')", "22023", 'option "dry_run" cannot be given'),
        ("verify(999)", "42704", "backfill job 999 does not exist"),
        ("verify(NULL)", "22004", "job_id must not be NULL"),
        ("reapply(%(job)s)", "55000", "has not been verified"),
    ],
)
def test_bad_calls(db: Database, call: str, state: str, message: str) -> None:
    """Each says what is wrong, and leaves nothing behind."""
    job = make(db)
    with pytest.raises(psycopg.Error) as caught:
        db.sql(f"SELECT backfill.{call}", {"job": job})
    assert caught.value.sqlstate == state
    assert message in str(caught.value)
    assert caught.value.diag.message_hint
    assert db.value("SELECT count(*) FROM backfill.progress") == 1


def test_what_can_be_verified(db: Database) -> None:
    """Not what runs, not what only reads, and not what comes to something else each time."""
    db.sql("CREATE TABLE t (id integer PRIMARY KEY, n float); INSERT INTO t SELECT generate_series(1, 1000)")
    job = start(db, "t", "n = random()", batch=10, sleep_ms=1000)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is running"):
        db.sql("SELECT backfill.verify(%s, 'n > 0')", [job])
    db.sql("SELECT backfill.alter(%s, 1000, 0)", [job])
    complete(db, job)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no where_clause that would tell"):
        db.sql("SELECT backfill.verify(%s)", [job])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="VOLATILE"):
        db.sql("SELECT backfill.verify(%s, recompute => true)", [job])
    verification = db.value("SELECT backfill.verify(%s, 'n >= 0')", [job])
    complete(db, verification)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has changed nothing"):
        db.sql("SELECT backfill.verify(%s, 'n >= 0')", [verification])


def test_rights(db: Database) -> None:
    """Somebody else's job can't be verified, nor are its wrong rows seen; a check runs with the owner's rights."""
    db.sql("DROP ROLE IF EXISTS eve; CREATE ROLE eve LOGIN")
    job = make(db)
    spoil(db)
    verify(db, job, ", check_clause => 'rate_new = rate'")
    with psycopg.connect(db.dsn("eve"), autocommit=True) as eve:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            eve.execute("SELECT backfill.verify(%s, 'true')", [job])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            eve.execute("SELECT backfill.reapply(%s)", [job])
        assert eve.execute("SELECT count(*) FROM backfill.verify_failures").fetchone() == (0,)
    db.sql("GRANT pg_monitor TO eve")
    with psycopg.connect(db.dsn("eve"), autocommit=True) as eve:
        rows = eve.execute("SELECT DISTINCT relation::text, key FROM backfill.verify_failures").fetchall()
        assert rows == [("orders", None)]
    db.sql("DROP ROLE eve")
