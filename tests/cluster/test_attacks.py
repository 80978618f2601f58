"""A hostile owner: nothing that he puts in a batch's way ever runs with more than his own rights."""

from __future__ import annotations

import contextlib

import psycopg
import pytest
from harness import wait_until
from harness.hostile import PLACES, Scene, evil_operators
from harness.jobs import complete, fail, progress, start, wait_for


def test_attacks_from_clauses_triggers_and_the_commit(scene: Scene) -> None:
    """From every place where the owner's code runs, through to a held cursor during the commit."""
    job = scene.run(where="hostile.matches(n)")
    complete(scene.db, job)
    scene.assert_harmless(*PLACES)
    assert scene.db.sql("SELECT n, count(*) FROM hostile.t GROUP BY n") == [(1, 30)]
    row = progress(scene.db, job)
    assert (row["rows_done"], row["rows_updated"]) == (30, 30)
    wanted = ["define", "start", "worker started", "completed"]
    assert [event for (event,) in scene.db.sql("SELECT event FROM backfill.events ORDER BY event_id")] == wanted


def test_attacks_from_a_constant(scene: Scene) -> None:
    """An IMMUTABLE function is called when a statement is planned, at the call already."""
    job = scene.run(where="hostile.constant()")
    complete(scene.db, job)
    scene.assert_harmless("constant")
    assert scene.db.sql("SELECT n, count(*) FROM hostile.t GROUP BY n") == [(1, 30)]


def test_attacks_from_operators_on_the_search_path(scene: Scene) -> None:
    """His operators come first on his path, and are never met by statements that aren't his."""
    scene.db.sql(f"SET ROLE {scene.owner}; {evil_operators()}")
    job = scene.run("n = 1", path="hostile, pg_catalog")
    complete(scene.db, job)
    # His triggers and functions do meet them, as him.
    scene.assert_harmless()
    assert scene.db.sql("SELECT n, count(*) FROM hostile.t GROUP BY n") == [(1, 30)]
    job = scene.run("n = 2", path="hostile, pg_catalog", where="hostile.matches(n)")
    complete(scene.db, job)
    scene.assert_harmless()
    assert scene.db.sql("SELECT n, count(*) FROM hostile.t GROUP BY n") == [(2, 30)]


def test_a_failing_batch_is_recorded_safely(scene: Scene) -> None:
    """Attacks, then an error while committing: what follows the abort runs nothing of the owner's."""
    scene.db.sql(f"""
        SET ROLE {scene.owner};
        CREATE FUNCTION hostile.refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = 'P0007', DETAIL = current_user; END $$;
        CREATE CONSTRAINT TRIGGER e AFTER UPDATE ON hostile.t DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION hostile.refuse()
    """)
    job = scene.run()
    error = fail(scene.db, job)
    assert "not now (SQLSTATE P0007)" in error and f"DETAIL: {scene.owner}" in error
    scene.assert_harmless()
    assert scene.db.sql("SELECT n, count(*) FROM hostile.t GROUP BY n") == [(0, 30)]
    scene.db.sql("DROP TRIGGER e ON hostile.t")
    scene.db.sql(f"SELECT backfill.resume({job})")
    complete(scene.db, job)
    scene.assert_harmless("deferred")
    assert scene.db.sql("SELECT n, count(*) FROM hostile.t GROUP BY n") == [(1, 30)]


def test_a_superuser_who_starts_a_definition_runs_nothing_of_it(scene: Scene) -> None:
    """Not even constants are folded with his rights: start, look, alter, pause, resume, cancel."""
    db = scene.db
    db.sql(f"SET ROLE {scene.owner}; {evil_operators()}")
    session = psycopg.connect(db.dsn(scene.user), autocommit=True)
    session.execute(f"{scene.session}; SET search_path = hostile, pg_catalog")
    define = "SELECT backfill.define('hostile.t', 'n = hostile.value(n)', 'hostile.constant()')"
    job = session.execute(define).fetchone()[0]  # type: ignore[index]
    session.close()
    db.sql("SELECT backfill.start('hostile.t', 7, 60000)")
    wait_until(lambda: progress(db, job)["rows_done"], 30, "the first batch")
    db.sql(f"SELECT * FROM backfill.status({job}); SELECT backfill.alter({job}, 8); SELECT backfill.pause({job})")
    wait_for(db, job, "paused")
    db.sql(f"SELECT backfill.alter({job}, 8, 0); SELECT backfill.resume({job})")
    complete(db, job)
    db.sql(f"SELECT * FROM backfill.progress; SELECT * FROM backfill.events; SELECT backfill.forget({job})")
    scene.assert_harmless("deferred", "set_clause", "constant")


def test_a_session_that_has_become_the_owner(scene: Scene) -> None:
    """After SET SESSION AUTHORIZATION no role that has logged in is left: the worker's session is the owner's alone."""
    session = f"SET SESSION AUTHORIZATION {scene.owner}"
    complete(scene.db, start(scene.db, "hostile.t", "n = hostile.value(n)", session=session))
    scene.assert_harmless("deferred", "held cursor", "set_clause")


@pytest.mark.parametrize("setting", ["role", "ROLE", "session_authorization", "is_superuser", "backfill.enabled"])
def test_options_settings_give_no_rights(scene: Scene, setting: str) -> None:
    """Settings that would change whose rights a batch has are refused at the call."""
    for value in ("postgres", "none", "on"):
        with pytest.raises(psycopg.Error) as error:
            start(
                scene.db,
                "hostile.t",
                "n = n + 1",
                options={"settings": {setting: value}},
                user=scene.user,
                session=scene.session,
            )
        assert error.value.diag.message_hint, error.value
    for name in ("session_replication_role", "log_statement", "zero_damaged_pages", "shared_preload_libraries"):
        with pytest.raises(psycopg.Error):
            start(
                scene.db,
                "hostile.t",
                "n = n + 1",
                options={"settings": {name: "on"}},
                user=scene.user,
                session=scene.session,
            )
    assert scene.db.sql("SELECT * FROM backfill.progress") == []


def test_a_trigger_that_lets_go_of_all_locks(scene: Scene) -> None:
    """The lock that says "this job has its worker" is gone; a second worker fences off the first."""
    db = scene.db
    db.sql(f"""
        SET ROLE {scene.owner};
        CREATE FUNCTION hostile.unlock() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_unlock_all(); RETURN NEW; END $$;
        DROP TRIGGER a ON hostile.t; DROP TRIGGER b ON hostile.t; DROP TRIGGER c ON hostile.t;
        DROP TRIGGER d ON hostile.t;
        CREATE TRIGGER a BEFORE UPDATE ON hostile.t FOR EACH ROW EXECUTE FUNCTION hostile.unlock()
    """)
    session = f"{scene.session}; SET search_path = public"
    job = start(db, "hostile.t", "n = n + 1", batch=1, sleep_ms=50, user=scene.user, session=session)
    for _ in range(5):
        # Refused while the job does seem to have its worker.
        with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):
            db.sql(f"SELECT backfill.resume({job})")
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM hostile.t GROUP BY n") == [(1, 30)]
