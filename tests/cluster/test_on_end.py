"""What the owner wants done when his job has ended: once, as he is, and whatever comes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from harness import Cluster, Database, wait_until
from harness.hostile import Scene
from harness.jobs import complete, fail, progress, start, wait_for, wait_for_nap_between_batches
from harness.tables import make_table

MINUTE = 60_000
SETTINGS = (
    "current_setting('backfill_job.id'), current_setting('backfill_job.name'), current_setting('backfill_job.state')"
)
NOTE = f"INSERT INTO ended SELECT {SETTINGS}, current_user"
FINISH = f"""
    CREATE FUNCTION finish() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {NOTE}; PERFORM 1 FROM gate; END $$
"""


def prepare(db: Database, rows: int = 100) -> None:
    """A table to walk, and one for what is done at the end."""
    make_table(db, rows)
    db.sql("CREATE TABLE ended (id bigint, name text, state text, who name)".replace("bigint", "text"))


def ended(db: Database, rows: int = 1) -> list[tuple[Any, ...]]:
    """What was done, once there are so many rows."""
    wait_until(lambda: db.value("SELECT count(*) FROM ended") >= rows, 60, f"{rows} rows in ended")
    return db.sql("SELECT id, name, state, who FROM ended")


def results(db: Database, job: int) -> list[tuple[str, str]]:
    """The events of it: the end that it was for, and what came of it."""
    return db.sql(
        "SELECT old, new FROM backfill.events WHERE job_id = %s AND event = 'on_end' ORDER BY event_id", [job]
    )


def test_after_each_end_and_not_after_a_pause(db: Database) -> None:
    """Completed, failed and cancelled by a worker, with the job's id, name and state."""
    prepare(db)
    job = start(db, "t", "n = n + 1", name="first", options={"on_end": NOTE})
    complete(db, job)
    assert ended(db) == [(str(job), "first", "completed", "postgres")]
    wait_until(lambda: results(db, job) == [("completed", "done")], 30, "the event")
    db.sql("DELETE FROM ended")
    job = start(db, "t", "n = 1 / (id - 50)", options={"on_end": NOTE})
    fail(db, job)
    assert ended(db) == [(str(job), "", "failed", "postgres")]
    # To be cancelled afterwards is another end, for which a worker comes.
    assert db.value("SELECT backfill.cancel(%s)", [job]) == "cancelled"
    assert [row[2] for row in ended(db, 2)] == ["failed", "cancelled"]
    db.sql("DELETE FROM ended")
    job = start(db, "t", "n = n + 1", batch=10, sleep_ms=MINUTE, options={"on_end": NOTE})
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for(db, job, "paused")
    db.sql("SELECT backfill.resume(%s)", [job])
    wait_for_nap_between_batches(db, job)
    assert db.value("SELECT count(*) FROM ended") == 0
    db.sql("SELECT backfill.cancel(%s)", [job])
    assert ended(db) == [(str(job), "", "cancelled", "postgres")]
    assert results(db, job) == [("cancelled", "done")]


def test_a_job_that_is_cancelled_without_a_worker(db: Database) -> None:
    """A worker comes for it; not for a definition that was never started."""
    prepare(db)
    job = start(db, "t", "n = n + 1", batch=10, sleep_ms=MINUTE, options={"on_end": NOTE})
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for(db, job, "paused")
    assert db.value("SELECT backfill.cancel(%s)", [job]) == "cancelled"
    assert ended(db) == [(str(job), "", "cancelled", "postgres")]
    assert results(db, job) == [("cancelled", "done")]
    other = db.value("SELECT backfill.define('t', 'n = 5', options => %s)", [json.dumps({"on_end": NOTE})])
    db.sql("SELECT backfill.cancel(%s)", [other])
    complete(db, start(db, "t", "n = 6", options={"on_end": NOTE}))
    assert [row[2] for row in ended(db, 2)] == ["cancelled", "completed"]
    assert results(db, other) == []


def test_its_failure_is_recorded_and_changes_nothing(db: Database) -> None:
    """Event and note without the message, which may hold row data; the job is completed."""
    prepare(db)
    job = start(
        db, "t", "n = n + 1", options={"on_end": "DO $$ BEGIN RAISE 'row data' USING ERRCODE = 'P0007'; END $$"}
    )
    complete(db, job)
    wanted = ("completed", "failed with SQLSTATE P0007")
    wait_until(lambda: results(db, job) == [wanted], 30, "the event")
    row = progress(db, job)
    assert row["state"] == "completed" and row["last_error"] is None
    assert row["note"] == "on_end (completed) failed with SQLSTATE P0007, see the server log"


def test_a_deferred_trigger_of_it_fails_it_as_a_whole(db: Database) -> None:
    """An error at its commit undoes it, and is recorded as its failure."""
    prepare(db)
    db.sql("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
        CREATE CONSTRAINT TRIGGER r AFTER INSERT ON ended DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION refuse()
    """)
    job = start(db, "t", "n = n + 1", options={"on_end": NOTE})
    complete(db, job)
    wait_until(lambda: results(db, job) == [("completed", "failed with SQLSTATE P0001")], 30, "the event")
    assert db.value("SELECT count(*) FROM ended") == 0


def test_it_is_bounded_in_time(db: Database) -> None:
    """By the statement timeout of the job."""
    prepare(db)
    job = start(db, "t", "n = n + 1", options={"on_end": "SELECT pg_sleep(600)", "statement_timeout_ms": 2000})
    complete(db, job)
    wait_until(lambda: results(db, job) == [("completed", "failed with SQLSTATE 57014")], 60, "the event")


def test_a_worker_that_is_lost_in_it_does_it_not_and_another_does(db: Database) -> None:
    """It is undone with its worker, and done once by the next worker of the database."""
    prepare(db)
    db.sql("CREATE TABLE gate ()")
    with db.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE gate")
        db.sql(FINISH)
        job = start(db, "t", "n = n + 1", options={"on_end": "SELECT finish()"})
        query = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT finish()' AND wait_event_type = 'Lock'"
        pid = wait_until(lambda: db.value(query) if db.sql(query) else None, 60, "on_end to wait")
        assert progress(db, job)["state"] == "completed"
        db.sql("SELECT pg_terminate_backend(%s, 10000)", [pid])
        holder.execute("ROLLBACK")
    assert results(db, job) == [] and db.value("SELECT count(*) FROM ended") == 0
    complete(db, start(db, "t", "n = 7"))
    assert ended(db) == [(str(job), "", "completed", "postgres")]
    assert results(db, job) == [("completed", "done")]


def test_a_crash_of_the_server_in_it(new_cluster: Callable[..., Cluster]) -> None:
    """With the library preloaded, it is done once the server is back."""
    cluster = new_cluster(conf={"backfill.launcher_interval": 1})
    db = cluster.database("postgres")
    db.sql("CREATE EXTENSION backfill")
    prepare(db)
    db.sql("CREATE TABLE gate ()")
    db.sql(FINISH)
    holder = db.connect()
    holder.execute("BEGIN")
    holder.execute("LOCK TABLE gate")
    job = start(db, "t", "n = n + 1", options={"on_end": "SELECT finish()"})
    query = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT finish()' AND wait_event_type = 'Lock'"
    wait_until(lambda: db.sql(query), 60, "on_end to wait")
    cluster.stop("immediate")
    cluster.start()
    assert ended(db) == [(str(job), "", "completed", "postgres")]
    assert results(db, job) == [("completed", "done")]


def test_one_that_no_worker_comes_back_from(new_cluster: Callable[..., Cluster]) -> None:
    """It is begun three times, and not for ever: it may take the server along each time."""
    cluster = new_cluster(conf={"backfill.launcher_interval": 1})
    db = cluster.database("postgres")
    db.sql("CREATE EXTENSION backfill")
    prepare(db)
    statement = "SELECT pg_terminate_backend(pg_backend_pid())"
    job = start(db, "t", "n = n + 1", options={"on_end": statement})
    wait_until(lambda: results(db, job) == [("completed", "failed with SQLSTATE 57P02")], 60, "the tries to end")
    ended = r"terminating background worker \"backfill worker\" due to administrator command"
    assert len(re.findall(ended, cluster.log.read_text())) >= 3
    assert progress(db, job)["state"] == "completed"


def test_it_can_be_altered_while_the_job_runs(db: Database) -> None:
    """Given, changed and taken away; the events do not show its text."""
    prepare(db)
    job = start(db, "t", "n = n + 1", batch=10, sleep_ms=MINUTE, options={"on_end": "SELECT 'secret'"})
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0, options => %s)", [job, json.dumps({"on_end": NOTE})])
    complete(db, job)
    assert len(ended(db)) == 1
    event = "SELECT old, new FROM backfill.events WHERE event = 'alter on_end'"
    assert db.sql(event) == [("a statement (not shown)", "a statement (not shown)")]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("", 'option "on_end" must be one SQL statement'),
        ("SELECT 1; SELECT 2", 'option "on_end" must be one SQL statement'),
        ("SELEC 1", 'option "on_end": syntax error at or near "SELEC"'),
        ("COMMIT", 'option "on_end" must be one SQL statement, and none that begins or ends a transaction'),
        ("SAVEPOINT s", 'option "on_end" must be one SQL statement, and none that begins or ends a transaction'),
        ("VACUUM t", 'option "on_end" must be one SQL statement that a worker can run within a transaction'),
        ("COPY t TO STDOUT", 'option "on_end" must be one SQL statement, and not COPY'),
        ("SELECT * FROM nowhere", 'option "on_end": relation "nowhere" does not exist'),
        (7, 'option "on_end" must be a string: an SQL statement, not 7'),
    ],
)
def test_what_it_cannot_be(db: Database, statement: Any, message: str) -> None:
    """Said at once, with a hint, by define and by alter."""
    make_table(db, 10)
    with pytest.raises(psycopg.Error) as refused:
        db.sql("SELECT backfill.define('t', 'n = 1', options => %s)", [json.dumps({"on_end": statement})])
    assert refused.value.diag.message_primary == message and refused.value.diag.message_hint
    job = db.value("SELECT backfill.define('t', 'n = 1')")
    with pytest.raises(psycopg.Error) as refused:
        db.sql("SELECT backfill.alter(%s, options => %s)", [job, json.dumps({"on_end": statement})])
    assert refused.value.diag.message_primary == message and refused.value.diag.message_hint


def test_a_hostile_owner_gains_nothing_by_it(scene: Scene) -> None:
    """His job is started, and ended, by a superuser: it runs with his rights, and he stays who he is."""
    db = scene.db
    db.sql(f"SET ROLE {scene.owner}; CREATE DOMAIN hostile.once AS int")
    db.sql(
        f"""SET ROLE {scene.owner};
        CREATE TABLE hostile.last (place text);
        CREATE CONSTRAINT TRIGGER z AFTER INSERT ON hostile.last DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION hostile.fire('end, deferred');
        CREATE FUNCTION hostile.finish() RETURNS void LANGUAGE plpgsql AS
            $$ BEGIN PERFORM hostile.attack('end'); INSERT INTO hostile.last VALUES ('x'); END $$"""
    )
    options = json.dumps({"on_end": "SELECT hostile.finish()"})
    with psycopg.connect(db.dsn(), autocommit=True) as connection:
        connection.execute(f"SET ROLE {scene.owner}")
        row = connection.execute(
            "SELECT backfill.define('hostile.t', 'n = n + 1', options => %s)", [options]
        ).fetchone()
    assert row
    job = db.value("SELECT backfill.start('hostile.t')")
    assert job == row[0]
    complete(db, job)
    wait_until(lambda: results(db, job), 60, "on_end")
    scene.assert_harmless("end", "end, deferred")
    assert results(db, job) == [("completed", "done")]
