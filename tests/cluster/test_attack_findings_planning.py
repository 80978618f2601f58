"""An owner's text in somebody else's session: planned, analysed, read as a type, or run and rolled back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import cancel_running, complete, progress, start, wait_for
from harness.traps.spring import CLEAN, OWNER, Watch, arm, lay

CALLERS = ["postgres", "ally"]
TABLE = "CREATE TABLE trap.t (id {key} PRIMARY KEY, n int DEFAULT 0); INSERT INTO trap.t {rows}; ANALYZE trap.t"


@pytest.fixture
def lair(db: Database) -> Iterator[Database]:
    """A database in which the owner has laid a table and its traps."""
    lay(db)
    db.sql(TABLE.format(key="int", rows="SELECT generate_series(1, 30)"), user=OWNER)
    arm(db)
    yield db
    # What a caller has begun holds locks.
    db.cluster.close_connections()
    cancel_running(db)
    db.sql(CLEAN)


# What a session can keep of what was run in it.
LEFT = """
    SELECT 'statement', name FROM pg_catalog.pg_prepared_statements WHERE statement !~ 'AS SELECT version'
    UNION ALL SELECT 'cursor', name FROM pg_catalog.pg_cursors WHERE name <> ''
    UNION ALL SELECT 'temporary', relname FROM pg_catalog.pg_class WHERE relnamespace = pg_my_temp_schema()
    UNION ALL SELECT 'temporary', proname FROM pg_catalog.pg_proc WHERE pronamespace = pg_my_temp_schema()
    UNION ALL SELECT 'listens to', pg_listening_channels()
    UNION ALL SELECT 'lock', objid::text FROM pg_catalog.pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'
    UNION ALL SELECT 'setting', name FROM pg_settings
        WHERE source = 'session' AND name IN ('search_path', 'role', 'application_name')
    UNION ALL SELECT 'setting', setting FROM current_setting('trap.mine', true) setting WHERE setting = 'left'
"""


class Caller:
    """A session of somebody else's, with the prepared statement of its driver."""

    def __init__(self, db: Database, user: str) -> None:
        self.db, self.watch = db, Watch(db.cluster)
        self.connection = db.connect(user, autocommit=False, prepare_threshold=None)
        self.connection.execute("PREPARE driver AS SELECT version()")
        self.connection.commit()

    def call(self, statement: str) -> list[tuple[Any, ...]]:
        """One call, and COMMIT."""
        rows = self.connection.execute(statement).fetchall()
        self.connection.commit()
        return rows

    def assert_untouched(self) -> None:
        """No code of the owner's has run in this session, nothing of it is left there, and nothing was gained."""
        answer = self.connection.execute("EXECUTE driver").fetchone()
        self.connection.commit()
        sprung, seized = self.watch.look()
        pid = self.connection.info.backend_pid
        found = sorted(
            {f"{trap.place} ran in the caller's session as {trap.user}" for trap in sprung if trap.pid == pid}
        )
        found += [f"{trap.place} ran as {trap.user}" for trap in sprung if trap.user != OWNER and trap.pid != pid]
        found += [f"seized: {what}" for what in seized]
        found += [f"left: {kind} {name}" for kind, name in self.connection.execute(LEFT).fetchall()]
        if not answer or not answer[0].startswith("PostgreSQL"):
            found.append("the driver's prepared statement is another one")
        try:
            self.connection.execute("SELECT currval('trap.number')")
            found.append("left: the value of a sequence")
        except psycopg.errors.ObjectNotInPrerequisiteState:
            self.connection.rollback()
        raised = "SELECT rolsuper OR pg_has_role(oid, 'pg_read_all_data', 'MEMBER') FROM pg_roles WHERE rolname = %s"
        if self.db.value(raised, [OWNER]):
            found.append("the owner has rights that it had not")
        assert found == []


def define(db: Database, where: str | None = None, options: dict[str, Any] | None = None) -> int:
    """A definition of the owner's, called j."""
    call = "SELECT backfill.define('trap.t', 'n = n + 1', %s, 'j', %s)"
    return db.value(call, [where, json.dumps(options or {})], user=OWNER)


def finished(db: Database, where: str | None = None, options: dict[str, Any] | None = None) -> int:
    """A job of the owner's that has completed."""
    job = start(db, "trap.t", "n = 7", where=where, name="j", options=options, user=OWNER)
    complete(db, job)
    return job


@pytest.mark.parametrize("user", CALLERS)
def test_a_plan_by_name(lair: Database, user: str) -> None:
    """An IMMUTABLE function of the clause, called while planning, defers a trigger and holds a cursor."""
    define(lair, "trap.constant('the WHERE clause')")
    caller = Caller(lair, user)
    assert caller.call("SELECT * FROM backfill.plan('trap.t', name => 'j')")
    caller.assert_untouched()


@pytest.mark.parametrize("arguments", ["recompute => true", "check_clause => 'n > 0'", "options => '{\"workers\": 1}'"])
@pytest.mark.parametrize("user", CALLERS)
def test_a_verification(lair: Database, user: str, arguments: str) -> None:
    """The same by verify, which plans what its job will run."""
    job = finished(lair, "trap.constant('the WHERE clause')")
    caller = Caller(lair, user)
    ((verification,),) = caller.call(f"SELECT backfill.verify({job}, {arguments})")
    wait_for(lair, verification, "completed", "failed")
    caller.assert_untouched()


@pytest.mark.parametrize("user", CALLERS)
@pytest.mark.parametrize("place", ["alter", "verify"])
def test_a_throttle_query(lair: Database, user: str, place: str) -> None:
    """The owner's throttle_query is planned by whoever alters another throttle, or verifies the job."""
    throttle = "SELECT NOT trap.constant('the throttle query')"
    if place == "alter":
        job = start(lair, "trap.t", "n = 1", batch=1, sleep_ms=60_000, options={"throttle_query": throttle}, user=OWNER)
        statement = f"SELECT backfill.alter({job}, options => '{{\"max_active_backends\": 1000}}')"
    else:
        job = finished(lair, options={"throttle_query": throttle})
        statement = f"SELECT backfill.verify({job}, 'n > 0')"
    caller = Caller(lair, user)
    caller.call(statement)
    caller.assert_untouched()


@pytest.mark.parametrize("user", CALLERS)
@pytest.mark.parametrize("value", ["'{0}'::trap.dom[]", "'(1,2)'::trap.pair"])
def test_a_reapplication(lair: Database, user: str, value: str) -> None:
    """A constant of a domain in the WHERE clause is checked when the clause is only analysed."""
    # What the traps do to the path of their own owner's session is not the matter here.
    lair.sql("TRUNCATE trap.remains")
    job = finished(lair, f"{value} IS NOT NULL")
    lair.sql("UPDATE trap.t SET n = 0 WHERE id < 4", user=OWNER)
    verification = lair.value("SELECT backfill.verify(%s, 'n > 0')", [job], user=OWNER)
    wait_for(lair, verification, "completed")
    arm(lair)
    caller = Caller(lair, user)
    ((again,),) = caller.call(f"SELECT backfill.reapply({job})")
    wait_for(lair, again, "completed", "failed")
    caller.assert_untouched()


@pytest.mark.parametrize("user", CALLERS)
@pytest.mark.parametrize("how", ["start", "alter", "plan", "preview"])
def test_bounds_of_a_key_of_domains(lair: Database, user: str, how: str) -> None:
    """The bounds of the walk are texts that become values of the key's type: the input function checks the domain."""
    arrays = TABLE.format(key="trap.dom[]", rows="SELECT ARRAY[g] FROM generate_series(1, 30) g")
    lair.sql(f"DROP TABLE trap.t; {arrays}", user=OWNER)
    job = define(lair, options={"key_from": "{2}", "key_to": "{20}"})
    statements = {
        "start": "SELECT backfill.start('trap.t')",
        "alter": f'SELECT backfill.alter({job}, options => \'{{"key_to": "{{10}}"}}\')',
        "plan": "SELECT * FROM backfill.plan('trap.t', name => 'j')",
        "preview": "SELECT * FROM backfill.preview('trap.t', name => 'j')",
    }
    caller = Caller(lair, user)
    caller.call(statements[how])
    caller.assert_untouched()


@pytest.mark.parametrize("user", CALLERS)
@pytest.mark.parametrize("how", ["preview", "rehearse"])
def test_what_a_rollback_leaves(lair: Database, user: str, how: str) -> None:
    """A call that runs the owner's code and rolls it back: DEALLOCATE and PREPARE replace the caller's statement."""
    job = define(lair, "trap.volatile('the WHERE clause')")
    caller = Caller(lair, user)
    statements = {
        "preview": "SELECT * FROM backfill.preview('trap.t', name => 'j')",
        "rehearse": f"SELECT * FROM backfill.rehearse({job}, 10)",
    }
    assert caller.call(statements[how])
    caller.assert_untouched()
    assert progress(lair, job)["state"] == "pending"


@pytest.mark.parametrize("user", CALLERS)
@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_the_definition_of_an_open_transaction(lair: Database, user: str, isolation: str) -> None:
    """A caller under any isolation, who has become the owner to define, and looks before the COMMIT."""
    caller = Caller(lair, user)
    caller.connection.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
    caller.connection.execute(f"SET LOCAL ROLE {OWNER}")
    caller.connection.execute("SELECT backfill.define('trap.t', 'n = 2', 'n <> 2', 'j')")
    caller.connection.execute("RESET ROLE")
    for call in ("plan", "preview"):
        rows = caller.connection.execute(f"SELECT * FROM backfill.{call}('trap.t', name => 'j')").fetchall()
        assert rows, call
    caller.connection.commit()
    caller.assert_untouched()
