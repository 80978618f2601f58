"""A job is called by its name wherever it is called by its number."""

from __future__ import annotations

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, progress, wait_for
from harness.wait import wait_until

ROWS = 500
ROUTINES = """
SELECT p.proname, bool_or(p.proargtypes[0] = 'text'::regtype), bool_or(p.proargtypes[0] = 'bigint'::regtype)
FROM pg_proc p WHERE p.pronamespace = 'backfill'::regnamespace AND p.proargnames[1] IN ('job_id', 'name') GROUP BY 1
"""


def make(db: Database, table: str = "t", rows: int = ROWS) -> None:
    """A table with rows to be done."""
    db.sql(f"CREATE TABLE {table} (id int PRIMARY KEY, n int)")
    db.sql(f"INSERT INTO {table} SELECT g, 0 FROM generate_series(1, {rows}) g")


def begin(db: Database, name: str, table: str = "t", user: str | None = None, sleep_ms: int = 0, **more: str) -> int:
    """Starts a job of this name."""
    options = more.get("options", "{}")
    call = "SELECT backfill.start(%s::regclass, 100, %s, 'n = 1', 'n = 0', %s, %s)"
    return int(db.value(call, [table, sleep_ms, name, options], **({"user": user} if user else {})))


def test_each_call_takes_both(db: Database) -> None:
    """Every routine whose first argument is a job has both forms; `require_completed` is about names alone."""
    forms = {name: (by_name, by_id) for name, by_name, by_id in db.sql(ROUTINES)}
    assert {name for name, form in forms.items() if form != (True, True)} == {"require_completed"}
    assert len(forms) > 13, forms


def test_a_jobs_life_by_its_name(db: Database) -> None:
    """From its start to its end, without its number."""
    make(db)
    job = begin(db, "orders.rate", sleep_ms=60_000)
    wait_until(lambda: progress(db, job)["rows_updated"], 30, "the first batch")
    assert db.value("SELECT backfill.pause('orders.rate')") in ("pausing", "paused")
    wait_for(db, job, "paused")
    assert db.value("SELECT (backfill.status('orders.rate')).state") == "paused"
    db.sql("SELECT backfill.alter('orders.rate', sleep_ms => 0)")
    db.sql("SELECT backfill.redefine('orders.rate', set_clause => 'n = 2')")
    db.sql("SELECT backfill.resume('orders.rate')")
    with db.connect() as connection:
        connection.execute("CALL backfill.wait('orders.rate', 60000)")
    assert db.sql("SELECT n, count(*) FROM t GROUP BY 1 ORDER BY 1") == [(1, 100), (2, 400)]
    assert "orders.rate" in db.value("SELECT backfill.report('orders.rate')")
    found = db.value("SELECT backfill.verify('orders.rate', 'n > 1')")
    assert "100 of 500" in complete(db, found)["note"]
    complete(db, db.value("SELECT backfill.reapply('orders.rate')"))
    assert db.value("SELECT count(*) FROM t WHERE n = 2") == ROWS
    assert db.value("SELECT backfill.retry_failed('orders.rate')") == 0
    # A verification is about a job, and goes with it.
    db.sql("SELECT backfill.forget('orders.rate')")
    with pytest.raises(psycopg.errors.UndefinedObject, match="named"):
        db.sql("SELECT backfill.status('orders.rate')")


def test_a_definition_and_a_cancelled_job(db: Database) -> None:
    """What can be called before the start, and what ends it."""
    make(db)
    db.sql("SELECT backfill.define('t', 'n = 1', name => 'later')")
    assert db.value("SELECT tried FROM backfill.rehearse('later', 10) LIMIT 1") == 10
    assert db.value("SELECT backfill.cancel('later')") == "cancelled"
    with db.connect() as connection, pytest.raises(psycopg.Error, match="cancelled"):
        connection.execute("CALL backfill.wait('later')")


def test_a_number_as_text(db: Database) -> None:
    """As drivers send it that know no types; a name that looks like a number comes first."""
    make(db)
    job = begin(db, "first")
    complete(db, job)
    assert db.value("SELECT (backfill.status(%s)).name", [str(job)]) == "first"
    make(db, "u")
    other = begin(db, str(job), "u")
    complete(db, other)
    assert db.value("SELECT (backfill.status(%s)).job_id", [str(job)]) == other
    for wrong in ("nothing", "", "7x", "99999999999999999999"):
        with pytest.raises(psycopg.errors.UndefinedObject) as caught:
            db.sql("SELECT backfill.pause(%s)", [wrong])
        assert caught.value.diag.message_hint
    with pytest.raises(psycopg.errors.NullValueNotAllowed):
        db.sql("SELECT backfill.pause(NULL)")
    with pytest.raises(psycopg.errors.InvalidName, match="bytes long"):
        db.sql("SELECT backfill.pause(repeat('x', 1000))")


def test_names_of_several_roles(db: Database) -> None:
    """One's own comes first; among others' the schema tells, or an error says that nothing does."""
    db.sql("CREATE ROLE anna LOGIN; CREATE SCHEMA a AUTHORIZATION anna")
    db.sql("CREATE ROLE boris LOGIN; CREATE SCHEMA b AUTHORIZATION boris")
    try:
        jobs = {}
        for role, schema in (("anna", "a"), ("boris", "b")):
            make(db, f"{schema}.t")
            db.sql(f"ALTER TABLE {schema}.t OWNER TO {role}")
            jobs[role] = begin(db, "same", f"{schema}.t", user=role)
            complete(db, jobs[role])
        of_status = "SELECT (backfill.status('{}')).job_id"
        for role, job in jobs.items():
            assert db.value(of_status.format("same"), user=role) == job
        with pytest.raises(psycopg.Error) as caught:
            db.value(of_status.format("same"))
        assert caught.value.sqlstate == "42P08" and str(jobs["anna"]) in str(caught.value)
        assert "schema" in caught.value.diag.message_hint
        assert db.value(of_status.format("a.same")) == jobs["anna"]
        assert db.value(of_status.format("b.same")) == jobs["boris"]
        with pytest.raises(psycopg.errors.UndefinedObject):
            db.value(of_status.format("b.same"), user="anna")
        make(db)
        mine = begin(db, "same")
        complete(db, mine)
        assert db.value(of_status.format("same")) == mine
        # The owner of a table may see, and stop, what others do to it; others' rights decide about the rest.
        db.sql("GRANT ALL ON a.t TO boris; GRANT USAGE ON SCHEMA a TO boris")
        db.sql("UPDATE a.t SET n = 0")
        theirs = begin(db, "guest", "a.t", user="boris", sleep_ms=60_000)
        assert db.value(of_status.format("guest"), user="anna") == theirs
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.sql("SELECT backfill.resume('guest')", user="anna")
        assert db.value("SELECT backfill.cancel('guest', true)", user="anna") in ("cancelling", "cancelled")
        wait_for(db, theirs, "cancelled")
    finally:
        db.sql("SELECT backfill.cancel(job_id, true) FROM backfill.progress WHERE state = 'running'")
        db.sql("DROP OWNED BY anna, boris CASCADE; DROP ROLE anna, boris")


def test_a_dry_run_of_the_same_name(db: Database) -> None:
    """The name is the run's; without one, the dry run's."""
    make(db)
    dry = begin(db, "both", options='{"dry_run": true}')
    complete(db, dry)
    assert db.value("SELECT (backfill.status('both')).job_id") == dry
    job = begin(db, "both")
    complete(db, job)
    assert db.value("SELECT (backfill.status('both')).job_id") == job
