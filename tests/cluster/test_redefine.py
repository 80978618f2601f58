"""backfill.redefine: a job that failed, or is paused, goes on from its checkpoint with other clauses."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, fail, start, wait_for

ROWS = 10_000
BAD = 4001
SAFE = "n = n + 1, val = CASE WHEN raw ~ '^[0-9]+$' THEN raw::int ELSE -1 END"


def begin(db: Database, options: dict[str, Any] | None = None, user: str = "postgres") -> int:
    """A job that counts its rows, and has failed at one of them."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, raw text, val int)", user=user)
    db.sql(f"INSERT INTO t (id, raw) SELECT i, i::text FROM generate_series(1, {ROWS}) i", user=user)
    db.sql(f"UPDATE t SET raw = 'x' WHERE id = {BAD}", user=user)
    job = start(db, "t", "n = n + 1, val = raw::int", batch=500, name="t.val", options=options, user=user)
    fail(db, job)
    return job


def assert_once(db: Database) -> None:
    """Each row was done once."""
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, ROWS)]
    assert db.value("SELECT array_agg(id) FROM t WHERE val IS DISTINCT FROM id") == [BAD]


@pytest.mark.parametrize(
    "options", [{}, {"workers": 3}, {"strategy": "waves", "waves": 4}, {"strategy": "sequential"}], ids=str
)
def test_a_failed_job_goes_on_with_a_mended_clause(db: Database, options: dict[str, Any]) -> None:
    """What is done is not done again; the trail has both clauses."""
    job = begin(db, options)
    done = db.value("SELECT count(*) FROM t WHERE n = 1")
    db.sql("SELECT backfill.redefine(%s, %s)", [job, SAFE])
    db.sql("SELECT backfill.resume(%s)", [job])
    row = complete(db, job)
    assert_once(db)
    assert (row["set_clause"], row["rows_updated"], row["rows_done"]) == (SAFE, ROWS, ROWS)
    if done:
        assert f"redefined after {done} rows" in row["note"]
    events = "SELECT actor::text, old, new FROM backfill.events WHERE job_id = %s AND event = 'redefine set_clause'"
    assert db.sql(events, [job]) == [("postgres", "n = n + 1, val = raw::int", SAFE)]
    if done:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="clauses or settings") as caught:
            db.sql("SELECT backfill.require_completed('t.val')")
        assert "was not verified" in (caught.value.diag.message_detail or "")
        complete(db, db.value("SELECT backfill.verify(%s, 'n = 1')", [job]))
    db.sql("SELECT backfill.require_completed('t.val')")


def test_the_way_is_told(db: Database) -> None:
    """By the start of the mended clause under the same name, and by whoever waits."""
    job = begin(db)
    with pytest.raises(psycopg.errors.DuplicateObject) as caught:
        start(db, "t", SAFE, name="t.val")
    hint = caught.value.diag.message_hint or ""
    assert f"backfill.redefine({job}, " in hint and f"backfill.resume({job})" in hint
    for call in (f"CALL backfill.wait({job})", "SELECT backfill.require_completed('t.val')"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as stopped:
            db.sql(call)
        assert "backfill.redefine" in (stopped.value.diag.message_hint or "")
    db.sql("SELECT backfill.redefine(%s, %s)", [job, SAFE])
    # The same call is about the same job again.
    assert start(db, "t", SAFE, name="t.val") == job


def test_a_paused_job_is_about_other_rows(db: Database) -> None:
    """From its checkpoint on."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 1000)")
    job = start(db, "t", "n = n + 1", batch=100, options={"limit_rows": 300})
    wait_for(db, job, "paused")
    db.sql("SELECT backfill.redefine(%s, where_clause => 'id %% 2 = 0')", [job])
    db.sql("SELECT backfill.alter(%s, options => '{\"limit_rows\": null}')", [job])
    db.sql("SELECT backfill.resume(%s)", [job])
    row = complete(db, job)
    assert (row["rows_updated"], row["where_clause"]) == (300 + 350, "id % 2 = 0")
    assert db.value("SELECT count(*) FROM t WHERE n <> CASE WHEN id <= 300 OR id % 2 = 0 THEN 1 ELSE 0 END") == 0


def test_columns_that_the_new_clause_uses_are_watched(db: Database) -> None:
    """Those of the old one may go; those of the new one may not."""
    job = begin(db)
    db.sql("SELECT backfill.redefine(%s, 'n = n + 1, val = id')", [job])
    db.sql("ALTER TABLE t DROP raw")
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, ROWS)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("NULL, NULL", "neither set_clause nor where_clause is given"),
        ("'n = n + 1'", "set_clause sets n, but the rows that are done have been given n, val"),
        ("'n = n + 1, val = 1, id = 2'", "set_clause sets n, val, id"),
        ("'n = n + 1, val = nothing'", 'column "nothing" does not exist'),
        ("'n = n + 1, val = 1; DROP TABLE t'", "set_clause contains a semicolon"),
        ("'n = n + 1, val = '", "syntax error"),
        ("where_clause => 'nothing > 1'", 'column "nothing" does not exist'),
    ],
)
def test_bad_clauses(db: Database, arguments: str, message: str) -> None:
    """They are checked as `start` checks them, and leave the job as it is."""
    job = begin(db)
    with pytest.raises(psycopg.Error) as caught:
        db.sql(f"SELECT backfill.redefine({job}, {arguments})")
    assert message in str(caught.value) and caught.value.diag.message_hint
    db.sql(f"UPDATE t SET raw = {BAD} WHERE id = {BAD}")
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, ROWS)]


def test_states(db: Database) -> None:
    """Not of a job that runs, or has ended, or only reads."""
    job = begin(db)
    dry = start(db, "t", "n = n + 1", options={"dry_run": True})
    complete(db, dry)
    db.sql("SELECT backfill.cancel(%s)", [job])
    db.sql("CREATE TABLE u (id int PRIMARY KEY, n int); INSERT INTO u SELECT generate_series(1, 100)")
    running = start(db, "u", "n = 1", batch=1, sleep_ms=600_000)
    wait_for(db, running, "running")
    for id, message in ((job, "has been cancelled"), (dry, "changes nothing"), (running, "is running")):
        with pytest.raises(psycopg.Error, match=message) as caught:
            db.sql("SELECT backfill.redefine(%s, 'n = 2')", [id])
        assert caught.value.diag.message_hint
    db.sql("SELECT backfill.cancel(%s, now => true)", [running])


def test_in_physical_order_the_where_clause_stays(db: Database) -> None:
    """It tells which rows are done; the SET list may be another one."""
    db.sql("CREATE TABLE heap (v text, n int); INSERT INTO heap SELECT i::text FROM generate_series(1, 2000) i")
    db.sql("UPDATE heap SET v = 'x' WHERE v = '1500'")
    job = start(db, "heap", "n = v::int", where="n IS NULL", batch=100)
    fail(db, job)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="in physical order"):
        db.sql("SELECT backfill.redefine(%s, where_clause => 'n IS NULL OR n < 0')", [job])
    db.sql("SELECT backfill.redefine(%s, $$n = nullif(v, 'x')::int + 0$$, 'n IS NULL')", [job])
    db.sql("SELECT backfill.redefine(%s, $$n = coalesce(nullif(v, 'x')::int, 0)$$)", [job])
    db.sql("SELECT backfill.resume(%s)", [job])
    assert complete(db, job)["rows_updated"] == 2000
    assert db.value("SELECT count(*) FROM heap WHERE n IS DISTINCT FROM coalesce(nullif(v, 'x')::int, 0)") == 0


def test_what_another_role_gives_runs_as_the_owner(db: Database) -> None:
    """It is looked at in a session of the owner's, with the owner's rights, and is for members only."""
    for role in ("owner_of_t", "eve"):
        if not db.value("SELECT to_regrole(%s) IS NOT NULL", [role]):
            db.sql(f"CREATE ROLE {role} LOGIN")
    db.sql("GRANT CREATE ON SCHEMA public TO owner_of_t; CREATE TABLE secret (id int, v int)")
    job = begin(db, user="owner_of_t")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for backfill job"):
        db.sql("SELECT backfill.redefine(%s, %s)", [job, SAFE], user="eve")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="secret"):
        db.sql("SELECT backfill.redefine(%s, 'n = n + 1, val = (SELECT v FROM secret LIMIT 1)')", [job])
    db.sql("SELECT backfill.redefine(%s, %s)", [job, SAFE])
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert_once(db)
    db.sql("DROP TABLE t, secret; DROP OWNED BY owner_of_t, eve")


def test_it_takes_a_dry_run_where_that_is_required(db: Database) -> None:
    """Of the clauses as they are to be."""
    job = begin(db)
    statement = f"SET backfill.require_dry_run = '1h'; SELECT backfill.redefine({job}, $clause${SAFE}$clause$)"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="wants a dry run"):
        db.sql(statement)
    complete(db, start(db, "t", SAFE, options={"dry_run": True}))
    db.sql(statement)
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert_once(db)
