"""Jobs that wait for a worker: in order of their priority, then age; and those that come after others."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from harness import Cluster, Database, wait_until
from harness.jobs import complete, fail, progress, wait_for


def make(db: Database, tables: int, rows: int = 20) -> None:
    """Tables t1, t2, ... with rows to be done, and one that keeps a worker busy."""
    for table in range(1, tables + 1):
        db.sql(f"CREATE TABLE t{table} (id int PRIMARY KEY, n int)")
        db.sql(f"INSERT INTO t{table} SELECT g, 0 FROM generate_series(1, {rows}) g")


def start(db: Database, table: str, name: str | None = None, sleep_ms: int = 0, **options: Any) -> int:
    """Starts a job."""
    user = options.pop("user", None)
    call = "SELECT backfill.start(%s::regclass, 10, %s, 'n = n + 1', NULL, %s, %s)"
    values = [table, sleep_ms, name, json.dumps(options)]
    return int(db.value(call, values, **({"user": user} if user else {})))


def order(db: Database) -> list[int]:
    """Jobs in the order in which they got a worker for the first time."""
    began = """
        SELECT job_id FROM (SELECT job_id, min(event_id) AS first FROM backfill.events
                            WHERE event = 'worker started' GROUP BY job_id) s ORDER BY first
    """
    return [job for (job,) in db.sql(began)]


@pytest.fixture
def narrow(server: Any) -> Any:
    """A server that lets one worker run."""
    with Cluster(server=server, conf={"backfill.max_workers": 1}) as cluster:
        cluster.sql("CREATE DATABASE narrow")
        db = cluster.database("narrow")
        db.sql("CREATE EXTENSION backfill")
        yield db


def test_the_higher_priority_comes_first(narrow: Database) -> None:
    """Then the longest waiting. The view shows who is next, and alter moves a job ahead."""
    make(narrow, 7)
    first = start(narrow, "t1", sleep_ms=60_000)
    wait_until(lambda: progress(narrow, first)["rows_done"], 30, "the first batch")
    low = start(narrow, "t2", priority=-5)
    early = start(narrow, "t3", "early")
    late = start(narrow, "t4")
    high = start(narrow, "t5", priority=10)
    moved = start(narrow, "t6")
    assert [job for (job,) in narrow.sql("SELECT job_id FROM backfill.queue")] == [high, early, late, moved, low]
    narrow.sql("SELECT backfill.alter(%s, options => '{\"priority\": 11}')", [moved])
    columns = "position, job_id, name, relation::text, priority, workers_wanted, waiting_for"
    rows = narrow.sql(f"SELECT {columns} FROM backfill.queue")
    assert [row[:2] for row in rows] == [(1, moved), (2, high), (3, early), (4, late), (5, low)]
    assert rows[2][2:6] == ("early", "t3", 0, 1) and "max_workers" in rows[2][6]
    narrow.sql("SELECT backfill.cancel(%s)", [first])
    for job in (low, early, late, high, moved):
        complete(narrow, job)
    assert order(narrow) == [first, moved, high, early, late, low]
    assert narrow.sql("SELECT * FROM backfill.queue") == []


def test_roles_take_turns(narrow: Database) -> None:
    """A role's high priority puts its jobs before its own others, not before all of another's."""
    make(narrow, 6)
    narrow.sql("CREATE ROLE pushy LOGIN; GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO pushy")
    first = start(narrow, "t1", sleep_ms=60_000)
    wait_until(lambda: progress(narrow, first)["rows_done"], 30, "the first batch")
    mine = [start(narrow, "t2"), start(narrow, "t3")]
    theirs = [start(narrow, "t4", user="pushy", priority=1000), start(narrow, "t5", user="pushy", priority=999)]
    wanted = [mine[0], theirs[0], mine[1], theirs[1]]
    assert [job for (job,) in narrow.sql("SELECT job_id FROM backfill.queue")] == wanted
    assert [job for (job,) in narrow.sql("SELECT job_id FROM backfill.queue", user="pushy")] == theirs
    narrow.sql("SELECT backfill.cancel(%s)", [first])
    for job in wanted:
        complete(narrow, job)
    begun = order(narrow)
    assert begun[:2] == [first, mine[0]] and begun.index(theirs[0]) < begun.index(theirs[1]), begun


def test_a_job_comes_after_others(db: Database) -> None:
    """When all of them have completed, at once, and all that come after them."""
    make(db, 6)
    slow = [start(db, "t1", "one", sleep_ms=60_000), start(db, "t2", "two", sleep_ms=60_000)]
    connection = db.connect()
    notices: list[str] = []
    connection.add_notice_handler(lambda diag: notices.append(diag.message_primary or ""))
    call = "SELECT backfill.start('t3', 10, 0, 'n = n + 1', name => 'three', options => %s)"
    found = connection.execute(call, ['{"after": ["one", "two"]}']).fetchone()
    assert found is not None
    after = [found[0], *(start(db, f"t{table}", after=["one"]) for table in (4, 5)), start(db, "t6", after=["three"])]
    assert any('comes after "one", "two"' in notice for notice in notices), notices
    row = progress(db, after[0])
    assert (row["state"], row["workers"], row["rows_done"]) == ("running", 0, 0)
    assert row["waiting_for"] == 'the end of job "one", and of "two"', row
    # A call that would start a worker does not.
    db.sql("SELECT backfill.resume(%s)", [after[0]])
    db.sql("SELECT backfill.pause('one')")
    wait_for(db, slow[0], "paused")
    assert progress(db, after[1])["waiting_for"] == 'the end of job "one", which is paused'
    db.sql("SELECT backfill.alter('one', sleep_ms => 0)")
    db.sql("SELECT backfill.resume('one')")
    complete(db, slow[0])
    for job in after[1:3]:
        complete(db, job)
    assert progress(db, after[0])["waiting_for"] == 'the end of job "two"'
    db.sql("SELECT backfill.alter('two', sleep_ms => 0)")
    for job in (*slow, *after):
        complete(db, job)
    begun = order(db)
    assert begun.index(slow[1]) < begun.index(after[0]) < begun.index(after[3]), begun
    for table in range(1, 7):
        assert db.sql(f"SELECT n, count(*) FROM t{table} GROUP BY 1") == [(1, 20)]


def test_one_that_fails_holds_up_those_after_it(db: Database) -> None:
    """Until it has completed after all; a retry of its rows holds up nobody."""
    make(db, 2)
    db.sql("ALTER TABLE t1 ADD CHECK (n < 1 OR id <> 15)")
    first = start(db, "t1", "first")
    fail(db, first)
    second = start(db, "t2", "second", after=["first"])
    assert progress(db, second)["waiting_for"] == 'the end of job "first", which has failed'
    db.sql("ALTER TABLE t1 DROP CONSTRAINT t1_check")
    db.sql("SELECT backfill.resume('first')")
    complete(db, first)
    complete(db, second)
    make_again = start(db, "t2", "third", after=["first", "second"])
    complete(db, make_again)


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no such job": ({"after": ["nothing"]}, "42704", "nothing"),
    "itself": ({"after": ["me"]}, "22023", "itself"),
    "no list": ({"after": "one"}, "22023", "array"),
    "an empty name": ({"after": [""]}, "22023", "empty"),
    "a long name": ({"after": ["x" * 64]}, "22023", "64 bytes"),
    "too many": ({"after": ["x"] * 101}, "22023", "101 names"),
    "no number": ({"priority": "high"}, "22023", "priority"),
    "too much": ({"priority": 1001}, "22023", "1000"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(db: Database, case: str) -> None:
    """With a SQLSTATE, the thing at fault, and a hint; nothing stays behind."""
    make(db, 1)
    options, state, said = BAD[case]
    with pytest.raises(psycopg.Error) as caught:
        start(db, "t1", "me", **options)
    assert caught.value.sqlstate == state and said in str(caught.value), (caught.value.sqlstate, caught.value)
    assert caught.value.diag.message_hint, caught.value
    assert db.value("SELECT count(*) FROM backfill.progress") == 0
