"""Calls that make a job write, two of them at once: never two active jobs on one column."""

from __future__ import annotations

import itertools
import re
import threading

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, start, wait_for, wait_for_nap_between_batches
from harness.server import REPOSITORY
from harness.tables import make_table

MINUTE = 60_000
ACTIVE = """
    SELECT count(*) FROM backfill.progress
    WHERE kind = 'backfill' AND state IN ('running', 'pausing', 'paused', 'failed')
"""
# Each makes a job on column n of t active that was not, or would.
CALLS = {
    "start": "SELECT backfill.start('t', 10, 60000, 'n = n + {no}', name => 'start {no}')",
    "start a definition": "SELECT backfill.start('t', 10, 60000, name => 'defined {no}')",
    "approve": "SELECT backfill.approve({asked})",
    "resume": "SELECT backfill.resume({paused})",
    "resume_all": "SELECT backfill.resume_all()",
    "retry_failed": "SELECT backfill.retry_failed({completed})",
    "reapply": "SELECT backfill.reapply({verified})",
}
PAIRS = [(a, b) for a, b in itertools.combinations_with_replacement(CALLS, 2)]


@pytest.fixture
def scene(db: Database) -> Database:
    """A table of a role's that two persons are members of."""
    if not db.value("SELECT to_regrole('crew') IS NOT NULL"):
        db.sql("CREATE ROLE crew NOLOGIN; CREATE ROLE carl LOGIN IN ROLE crew; CREATE ROLE dora LOGIN IN ROLE crew")
    make_table(db, 200)
    db.sql("ALTER TABLE t ADD CHECK (id <> 150 OR n < 1) NOT VALID; ALTER TABLE t OWNER TO crew")
    return db


def made(db: Database, call: str, no: int) -> dict[str, int]:
    """What the call is about, as far as it needs anything."""
    as_crew = "SET ROLE crew"
    if call == "start a definition":
        db.sql(f"SET ROLE crew; SELECT backfill.define('t', 'n = n + {no}', name => 'defined {no}')")
    if call == "approve":
        rows = db.sql(
            f"SET backfill.require_approval = on; SET SESSION AUTHORIZATION carl; SET ROLE crew;"
            f" SELECT backfill.start('t', 10, 60000, 'n = n + {no}', name => 'asked {no}')"
        )
        return {"asked": rows[0][0]}
    if call in ("resume", "resume_all"):
        job = start(db, "t", f"n = n + {no}", batch=10, sleep_ms=MINUTE, name=f"paused {no}", session=as_crew)
        wait_for_nap_between_batches(db, job)
        db.sql("SELECT backfill.pause(%s)", [job])
        wait_for(db, job, "paused")
        return {"paused": job}
    if call == "retry_failed":
        job = start(
            db, "t", "n = n + 1", batch=200, name=f"done {no}", session=as_crew, options={"max_failed_rows": 10}
        )
        wait_for(db, job, "completed")
        return {"completed": job}
    if call == "reapply":
        job = start(db, "t", "n = n + 1", where="id < 100", name=f"right {no}", session=as_crew)
        complete(db, job)
        db.sql("UPDATE t SET n = 0 WHERE id < 5")
        wait_for(db, db.value("SELECT backfill.verify(%s, check_clause => 'n > 0 OR id >= 100')", [job]), "completed")
        return {"verified": job}
    return {}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_calls_at_once_never_make_two_jobs(scene: Database, one: str, other: str) -> None:
    """Whichever comes first: the other is refused, also where it began before the first had committed."""
    db = scene
    # What is active already keeps the other off anyway.
    about = {no: made(db, call, no) for no, call in ((1, one), (2, other)) if "resume" not in call}
    for no, call in ((1, one), (2, other)):
        if "resume" in call and not (about.get(0)):
            about[no] = about[0] = made(db, call, no)
        elif "resume" in call:
            about[no] = about[0]
    first, second = (CALLS[call].format(no=no, **about[no]) for no, call in ((1, one), (2, other)))
    holder = db.connect("dora", autocommit=False)
    holder.execute("SET ROLE crew" if "approve" not in one else "SELECT 1")
    begun = threading.Event()
    errors: list[psycopg.Error] = []

    def call_second() -> None:
        with psycopg.connect(db.dsn("dora"), autocommit=True) as connection:
            connection.execute("SET ROLE crew" if "approve" not in other else "SELECT 1")
            begun.set()
            try:
                connection.execute(second)
            except psycopg.Error as error:
                errors.append(error)

    try:
        holder.execute(first)
        failed = False
    except psycopg.Error as error:
        errors.append(error)
        failed = True
    thread = threading.Thread(target=call_second)
    thread.start()
    assert begun.wait(10)
    # The other waits for this transaction, or is refused: both are found to be in order.
    thread.join(0.3)
    holder.rollback() if failed else holder.commit()
    thread.join(30)
    assert not thread.is_alive()
    for error in errors:
        assert isinstance(error, psycopg.errors.ObjectInUse | psycopg.errors.ObjectNotInPrerequisiteState), error
    assert db.value(ACTIVE) <= 1, (one, other, errors)


def test_who_makes_a_job_active_looks_for_others_under_the_lock() -> None:
    """In the source: a call that is new is in the list above, and takes the lock as the others do."""
    found = set()
    for path in (REPOSITORY / "src" / "api").glob("*.rs"):
        text = path.read_text()
        if re.search(r"\b(set_wish|begin_retry)\(", text):
            found.add(path.stem)
            if path.stem == "stop":
                assert "Wish::Run" not in text and "begin_retry" not in text
                continue
            assert "refuse_overlap(" in text, path
            assert re.search(r"\b(activated_job|definition_lock::(try_)?take)\(", text), path
    assert found == {"start", "approve", "control", "retry_failed", "reapply", "stop"}
