"""A hostile owner: nothing that he puts in a batch's way ever runs with more than his own rights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, fail, progress, start, wait_for

# Each is run by the owner's code within a batch; none may give it another role's rights.
ATTACKS = [
    "SET ROLE postgres",
    "SET ROLE none",
    "RESET ROLE",
    "SET LOCAL ROLE none",
    "SET SESSION AUTHORIZATION postgres",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET LOCAL SESSION AUTHORIZATION DEFAULT",
    "RESET SESSION AUTHORIZATION",
    "RESET ALL",
    "DISCARD ALL",
    "SELECT set_config('role', 'none', false)",
    "SELECT set_config('role', 'postgres', true)",
    "SELECT set_config('session_authorization', 'postgres', false)",
    "SELECT set_config('session_authorization', 'default', true)",
    "SELECT set_config('is_superuser', 'on', false)",
    "UPDATE pg_settings SET setting = 'none' WHERE name = 'role'",
    "SELECT hostile.by_clause()",
    "SELECT hostile.by_definer()",
    "SELECT hostile.by_parallel_query()",
    "DO $do$ BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN EXECUTE 'RESET SESSION AUTHORIZATION'; END $do$",
    "CALL hostile.by_procedure()",
    "SET session_replication_role = replica",
    "SET backfill.enabled = off",
    "SET log_statement = 'all'",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "ALTER ROLE SESSION_USER PASSWORD 'mine'",
    "CREATE ROLE evil SUPERUSER",
    "GRANT pg_read_all_data TO CURRENT_USER",
    "SELECT pg_read_file('PG_VERSION')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT * FROM private.secret",
    "ALTER EXTENSION backfill UPDATE",
    "SELECT * FROM backfill.job",
    "SELECT * FROM backfill.checkpoint",
    "UPDATE backfill.job SET owner = 10",
    "UPDATE backfill.checkpoint SET key = NULL",
    "DELETE FROM backfill.checkpoint",
    "DELETE FROM backfill.slice",
    "INSERT INTO backfill.outcome (job_id, outcome, attempt, at) VALUES (1, 'completed', 1, now())",
    "TRUNCATE backfill.event",
    "CREATE TABLE backfill.mine ()",
    "CREATE OR REPLACE FUNCTION backfill.pause(bigint) RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'checkpointer'",
]

# As the owner makes them, but for `by_clause`, which he could not: a superuser gives it to him.
HOSTILE = r"""
CREATE SCHEMA hostile AUTHORIZATION {owner};
CREATE SCHEMA private; CREATE TABLE private.secret (id int);
CREATE TABLE hostile.attacks (attack text);
CREATE TABLE hostile.log (place text, attack text, who name, failed text);
GRANT SELECT ON hostile.attacks TO PUBLIC; GRANT ALL ON hostile.log TO {owner};
CREATE FUNCTION hostile.by_clause() RETURNS name LANGUAGE sql SET role = 'postgres' AS 'SELECT current_user';
ALTER FUNCTION hostile.by_clause() OWNER TO {owner};
SET ROLE {owner};
CREATE FUNCTION hostile.by_definer() RETURNS name LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN RESET ROLE; RESET SESSION AUTHORIZATION; RETURN current_user; END $$;
CREATE PROCEDURE hostile.by_procedure() LANGUAGE plpgsql AS $$ BEGIN COMMIT; RESET ROLE; END $$;
CREATE FUNCTION hostile.whoami() RETURNS text LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN
    BEGIN SET ROLE postgres; EXCEPTION WHEN OTHERS THEN NULL; END;
    IF current_user <> '{owner}' THEN RAISE LOG 'BREACH as %', current_user; END IF;
    RETURN current_user; END $$;
CREATE FUNCTION hostile.by_parallel_query() RETURNS name LANGUAGE plpgsql AS $$
    DECLARE who name; BEGIN
        PERFORM set_config(name, 'on', true) FROM pg_settings
        WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
        SELECT hostile.whoami() INTO who FROM pg_class LIMIT 1; RETURN who; END $$;
CREATE FUNCTION hostile.attack(place text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    DECLARE attack text; BEGIN
    INSERT INTO hostile.log VALUES (place, 'as it comes', current_user);
    IF (SELECT count(*) FROM hostile.log l WHERE l.place = attack.place) > 1 THEN RETURN; END IF;
    FOR attack IN SELECT a.attack FROM hostile.attacks a LOOP
        BEGIN
            EXECUTE attack;
            INSERT INTO hostile.log VALUES (place, attack, current_user);
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO hostile.log VALUES (place, attack, current_user, SQLERRM);
        END;
    END LOOP; END $$;
CREATE FUNCTION hostile.fire() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS
    $$ BEGIN PERFORM hostile.attack(TG_ARGV[0]); RETURN NEW; END $$;
CREATE FUNCTION hostile.fire_later() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
    -- A held cursor is run to its end while the transaction commits.
    EXECUTE format('DECLARE %I CURSOR WITH HOLD FOR SELECT hostile.attack(''held cursor'')', 'c' || clock_timestamp());
    RETURN NEW; END $$;
CREATE FUNCTION hostile.value(n int) RETURNS int LANGUAGE plpgsql SET search_path = pg_catalog AS
    $$ BEGIN PERFORM hostile.attack('set_clause'); RETURN n + 1; END $$;
CREATE FUNCTION hostile.matches(n int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN PERFORM hostile.attack('where_clause'); RETURN true; END $$;
CREATE FUNCTION hostile.constant() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM hostile.attack('constant'); RETURN true; END $$;
CREATE FUNCTION hostile.checked(v int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN PERFORM hostile.attack('domain'); RETURN true; END $$;
CREATE DOMAIN hostile.key AS int CHECK (hostile.checked(value));
CREATE TABLE hostile.t (id hostile.key PRIMARY KEY, n int DEFAULT 0);
INSERT INTO hostile.t SELECT generate_series(1, 30);
CREATE TRIGGER a BEFORE UPDATE ON hostile.t FOR EACH ROW EXECUTE FUNCTION hostile.fire('before row');
CREATE TRIGGER b AFTER UPDATE ON hostile.t FOR EACH STATEMENT EXECUTE FUNCTION hostile.fire('after statement');
CREATE TRIGGER c AFTER UPDATE ON hostile.t FOR EACH STATEMENT EXECUTE FUNCTION hostile.fire_later();
CREATE CONSTRAINT TRIGGER d AFTER UPDATE ON hostile.t DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION hostile.fire('deferred');
"""
# Operators and functions named like those that the extension's own statements use.
OPERATORS = ["=", "<>", "<", "<=", ">", ">=", "<<", "|", "||", "+", "-", "/", "*"]
TYPES = ["bigint", "integer", "text", "oid", "boolean", "float8", "text[]"]
PLACES = ["after statement", "before row", "deferred", "held cursor", "set_clause", "where_clause"]


def evil_operators() -> str:
    """Operators of the owner's that would be found first, were they looked for on his search_path."""
    made = []
    for number, kind in enumerate(TYPES):
        made.append(f"""CREATE FUNCTION hostile.op{number}({kind}, {kind}) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN PERFORM hostile.attack('operator'); RETURN true; END $$""")
        for operator in OPERATORS:
            made.append(f"""CREATE OPERATOR hostile.{operator}
                (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = hostile.op{number})""")
    for function in ("now()", "clock_timestamp()", "current_setting(text)", "to_json(text[])", "count(bigint)"):
        made.append(f"""CREATE FUNCTION hostile.{function} RETURNS text LANGUAGE plpgsql AS
            $$ BEGIN PERFORM hostile.attack('function'); RETURN ''; END $$""")
    return "; ".join(made)


class Scene:
    """The owner, the session that he comes by, and his objects."""

    def __init__(self, db: Database, owner: str, user: str, session: str) -> None:
        self.db, self.owner, self.user, self.session = db, owner, user, session

    def run(self, set_clause: str = "n = hostile.value(n)", where: str | None = None, path: str = "public") -> int:
        """Starts the job as the owner."""
        session = f"{self.session}; SET search_path = {path}"
        return start(self.db, "hostile.t", set_clause, where=where, batch=7, user=self.user, session=session)

    def assert_harmless(self, *places: str) -> None:
        """All attacks were made in these places, and all as the owner."""
        db = self.db
        assert db.sql("SELECT * FROM hostile.log WHERE who <> %s", [self.owner]) == []
        made = dict(db.sql("SELECT place, count(DISTINCT attack) FROM hostile.log GROUP BY place"))
        for place in places:
            assert made.get(place) == len(ATTACKS) + 1, f"not all attacks in {place}: {made}"
        supers = db.sql("SELECT rolname FROM pg_roles WHERE rolsuper OR rolname = 'evil' ORDER BY 1")
        assert supers == [("postgres",)]
        assert db.value("SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'postgres'")
        assert not db.value("SELECT pg_has_role(%s, 'pg_read_all_data', 'MEMBER')", [self.owner])
        log = db.cluster.log.read_text(errors="replace").splitlines()
        assert [line for line in log if "BREACH" in line and f"@{db.name} " in line] == []


OWNERS = {
    "login": ("mallory", "mallory", "SET application_name = 'x'"),
    "no login": ("cuckoo", "postgres", "SET ROLE cuckoo"),
}
# What an attack that succeeds leaves to the tests that come after it.
CLEAN = """
    DROP ROLE IF EXISTS evil; ALTER ROLE mallory NOSUPERUSER; ALTER ROLE cuckoo NOSUPERUSER;
    REVOKE pg_read_all_data FROM mallory, cuckoo; ALTER ROLE postgres PASSWORD NULL
"""


@pytest.fixture(params=OWNERS)
def scene(request: pytest.FixtureRequest, db: Database) -> Iterator[Scene]:
    """A database with everything that the owner has made."""
    if not db.value("SELECT to_regrole('mallory') IS NOT NULL"):
        db.sql("CREATE ROLE mallory LOGIN; CREATE ROLE cuckoo")
    owner, user, session = OWNERS[request.param]
    db.sql(HOSTILE.format(owner=owner))
    for attack in ATTACKS:
        db.sql("INSERT INTO hostile.attacks VALUES (%s)", [attack])
    db.sql("TRUNCATE hostile.log")
    yield Scene(db, owner, user, session)
    db.sql("SELECT backfill.cancel(job_id, true) FROM backfill.progress WHERE state IN ('running', 'pausing')")
    db.sql(CLEAN)


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
