"""backfill.require_approval: a job that was started waits until a second person says so."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, progress, wait_for
from harness.tables import counts, make_table

ROLES = (
    "CREATE ROLE team NOLOGIN; CREATE ROLE anne LOGIN IN ROLE team;"
    " CREATE ROLE ben LOGIN IN ROLE team; CREATE ROLE meddler LOGIN"
)
APPROVE = "SELECT backfill.approve({})"


@pytest.fixture
def app(db: Database) -> Database:
    """Tables of a role that two persons are members of, and the setting."""
    if not db.value("SELECT to_regrole('team') IS NOT NULL"):
        db.sql(ROLES)
    make_table(db, 1000)
    db.sql(f"ALTER TABLE t OWNER TO team; ALTER DATABASE {db.name} SET backfill.require_approval = on")
    return db


def start(db: Database, user: str = "anne", *, options: dict[str, Any] | None = None, batch: int = 100) -> int:
    """A job that `user` starts as the owner of the table; it says that it waits."""
    with psycopg.connect(db.dsn(user), autocommit=True) as connection:
        said: list[str] = []
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        connection.execute("SET ROLE team")
        row = connection.execute(
            "SELECT backfill.start('t', %s, 7, 'n = n + 1', name => 'n', options => %s)",
            [batch, json.dumps(options or {})],
        ).fetchone()
        assert said == [f'backfill job {row[0]} ("n") waits for approval']
    return row[0]


def refused(db: Database, call: str, user: str, *, before: str = "SELECT 1") -> str:
    """The error of the call, with its detail; it has a hint."""
    with psycopg.connect(db.dsn(user), autocommit=True) as connection:
        connection.execute(before)
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(call)
    assert caught.value.diag.message_hint
    return str(caught.value)


def test_a_second_person_approves(app: Database) -> None:
    """It waits and says for what; then it runs as it was started; the trail has both persons."""
    job = start(app)
    row = progress(app, job)
    assert (row["state"], row["waiting_for"]) == ("pending", f"approval: SELECT backfill.approve({job})")
    assert f"SELECT backfill.approve({job})." in refused(app, "SELECT backfill.require_completed('n')", "anne")
    # Another start changes nothing, neither the pace nor who it is that started it.
    assert start(app, "ben", batch=9) == job
    assert counts(app) == [(0, 1000)]
    assert app.value(APPROVE.format(job), user="ben") == "running"
    row = complete(app, job)
    assert (row["batch_size"], row["sleep_ms"]) == (100, 7)
    assert counts(app) == [(1, 1000)]
    trail = app.sql(
        "SELECT actor::text, event, new FROM backfill.events WHERE job_id = %s"
        " AND (event LIKE 'start%%' OR event LIKE 'approve%%') ORDER BY event_id",
        [job],
    )
    wanted = [("team", "start", "pending"), ("anne", "start by session", "team"), ("ben", "approve", "running")]
    assert trail == wanted
    assert "it has completed" in refused(app, APPROVE.format(job), "ben")


def test_who_may_not(app: Database) -> None:
    """Neither who started it, as whichever role, nor its owner, nor a stranger; a superuser may."""
    job = start(app)
    call = APPROVE.format(job)
    for before in ("SELECT 1", "SET ROLE team"):
        assert "it takes a second person\nDETAIL:  anne started it." in refused(app, call, "anne", before=before)
    assert "it takes a second person\nDETAIL:  team started it." in refused(app, call, "ben", before="SET ROLE team")
    assert "permission denied for backfill job" in refused(app, call, "meddler")
    app.sql(f"CREATE FUNCTION lend() RETURNS text SECURITY DEFINER LANGUAGE sql AS '{call}'")
    app.sql("ALTER FUNCTION lend() OWNER TO ben")
    assert "anne started it." in refused(app, "SELECT lend()", "anne")
    assert progress(app, job)["state"] == "pending"
    assert app.value(call) == "running"
    complete(app, job)


def test_what_was_not_started_is_not_approved(app: Database) -> None:
    """A definition waits for its start first; a job that is not there is an error."""
    job = app.value("SET ROLE team; SELECT backfill.define('t', 'n = n + 1')", user="anne")
    assert "it was not started" in refused(app, APPROVE.format(job), "ben")
    assert "does not exist" in refused(app, APPROVE.format(99), "ben")
    assert "job_id must not be NULL" in refused(app, APPROVE.format("NULL"), "ben")
    app.sql("SET ROLE team; SELECT backfill.start('t', 100)", user="ben")
    assert "ben started it" in refused(app, APPROVE.format(job), "ben")
    assert "anne wrote it" in refused(app, APPROVE.format(job), "anne")
    assert app.value(APPROVE.format(job)) == "running"
    complete(app, job)


def test_what_is_approved_does_not_grow(app: Database) -> None:
    """Of a small first run the pace may be altered by anybody who may; what it does only by a second person."""
    job = start(app, options={"limit_rows": 100})
    wider = "SELECT backfill.alter({}, options => '{}')"
    more, hook = '{"limit_rows": null}', '{"on_end": "SELECT 1"}'
    for change in (more, hook):
        assert "it takes a second person" in refused(app, wider.format(job, change), "anne")
    app.sql("SELECT backfill.alter(%s, batch_size => 50)", [job], user="anne")
    app.sql(APPROVE.format(job), user="ben")
    assert wait_for(app, job, "paused")["rows_updated"] == 100
    assert "alter limit_rows" in refused(app, wider.format(job, more), "anne")
    app.sql("SELECT backfill.resume(%s)", [job], user="anne")
    assert wait_for(app, job, "paused")["rows_updated"] == 100
    app.sql(wider.format(job, more), user="ben")
    app.sql("SELECT backfill.resume(%s)", [job], user="anne")
    assert complete(app, job)["batch_size"] == 50
    assert counts(app) == [(1, 1000)]


def test_what_changes_no_row_needs_none(app: Database) -> None:
    """Dry runs and verifications; and nothing does, where a superuser says so."""
    options = '{"dry_run": true}'
    call = f"SELECT backfill.start('t', set_clause => 'n = n + 1', options => '{options}')"
    complete(app, app.value(f"SET ROLE team; {call}", user="anne"))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.sql("SET backfill.require_approval = off", user="anne")
    job = app.value("SET backfill.require_approval = off; SELECT backfill.start('t', set_clause => 'n = n + 1')")
    complete(app, job)
    app.sql("UPDATE t SET n = 5 WHERE id = 7")
    complete(app, app.value("SELECT backfill.verify(%s, 'n = 1')", [job]))
    again = app.value("SELECT backfill.reapply(%s)", [job])
    assert progress(app, again)["waiting_for"].startswith("approval: ")
