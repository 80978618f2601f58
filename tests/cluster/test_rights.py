"""Who sees and controls which job, and with whose rights a batch runs."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import cancel_running, complete, fail, progress, start, wait_for

DENIED = psycopg.errors.InsufficientPrivilege
ROLES = """
    CREATE ROLE app_owner; CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE mate LOGIN IN ROLE alice;
    CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE deployer LOGIN IN ROLE app_owner
"""


@pytest.fixture
def people(db: Database) -> Iterator[Database]:
    """Roles, and a table `alice.t` of 2,000 rows."""
    if not db.value("SELECT to_regrole('app_owner') IS NOT NULL"):
        db.sql(ROLES)
    db.sql("""
        CREATE SCHEMA alice AUTHORIZATION alice; CREATE SCHEMA app AUTHORIZATION app_owner;
        CREATE TABLE alice.t (id int PRIMARY KEY, n int DEFAULT 0, secret text DEFAULT 'hush');
        INSERT INTO alice.t SELECT generate_series(1, 2000);
        ALTER TABLE alice.t OWNER TO alice;
        CREATE TABLE app.t AS TABLE alice.t; ALTER TABLE app.t ADD PRIMARY KEY (id);
        ALTER TABLE app.t OWNER TO app_owner
    """)
    yield db
    # A worker that is left would keep its database from being dropped by the owner's connection.
    cancel_running(db)


def held(db: Database, user: str = "alice", session: str = "", table: str = "alice.t") -> int:
    """A job that sleeps after its first batch."""
    job = start(db, table, "n = n + 1", batch=100, sleep_ms=60_000, user=user, session=session)
    wait_until(lambda: progress(db, job)["rows_done"], 30, "the first batch")
    return job


# What is closed

TABLES = ["job", "walk", "slice", "checkpoint", "region", "outcome", "event"]


@pytest.mark.parametrize("user", ["bob", "alice", "watcher"])
@pytest.mark.parametrize("table", TABLES)
def test_tables_are_closed(people: Database, table: str, user: str) -> None:
    """Not even the owner of a job, nor monitoring, gets at the tables themselves."""
    complete(people, start(people, "alice.t", "n = n + 1", user="alice"))
    last = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass ORDER BY attnum DESC LIMIT 1"
    column = people.value(last, [f"backfill_internal.{table}"])
    for statement in (
        f"SELECT FROM backfill_internal.{table}",
        f"INSERT INTO backfill_internal.{table} DEFAULT VALUES",
        f"UPDATE backfill_internal.{table} SET {column} = NULL",
        f"DELETE FROM backfill_internal.{table}",
        f"TRUNCATE backfill_internal.{table}",
        f"BEGIN; LOCK TABLE backfill_internal.{table}",
        f"CREATE TRIGGER t BEFORE INSERT ON backfill_internal.{table}"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ):
        with pytest.raises(DENIED):
            people.sql(statement, user=user)
    for statement in (
        "SELECT nextval('backfill_internal.job_id_seq')",
        "CREATE TABLE backfill.mine ()",
        "CREATE TABLE backfill_internal.mine ()",
    ):
        with pytest.raises(DENIED):
            people.sql(statement, user=user)


@pytest.mark.parametrize("view", ["progress", "events"])
def test_views_cannot_be_written(people: Database, view: str) -> None:
    """They are for looking."""
    for statement in (f"DELETE FROM backfill.{view}", f"UPDATE backfill.{view} SET name = 'x'"):
        with pytest.raises((DENIED, psycopg.errors.ObjectNotInPrerequisiteState)):
            people.sql(statement, user="alice")


def test_views_show_a_role_its_own_jobs_and_those_of_its_roles(people: Database) -> None:
    """Members see what they could do themselves; superusers and monitoring see all; others nothing."""
    of_alice = start(people, "alice.t", "n = n + 1", user="alice")
    of_app = start(people, "app.t", "n = n + 1", session="SET ROLE app_owner")
    complete(people, of_alice)
    complete(people, of_app)
    wanted = {
        "alice": [of_alice],
        "mate": [of_alice],
        "deployer": [of_app],
        "bob": [],
        "watcher": [of_alice, of_app],
        "postgres": [of_alice, of_app],
    }
    for user, jobs in wanted.items():
        assert people.sql("SELECT job_id FROM backfill.progress ORDER BY 1", user=user) == [(j,) for j in jobs], user
        seen = people.sql("SELECT DISTINCT job_id FROM backfill.events ORDER BY 1", user=user)
        assert seen == [(j,) for j in jobs], user
        for job in (of_alice, of_app):
            if job in jobs:
                state = people.sql("SELECT state FROM backfill.status(%s)", [job], user=user)
                assert state == [("completed",)]
            else:
                with pytest.raises(DENIED):
                    people.sql("SELECT * FROM backfill.status(%s)", [job], user=user)


CALLS = [
    "SELECT backfill.pause({})",
    "SELECT backfill.resume({})",
    "SELECT backfill.cancel({})",
    "SELECT backfill.cancel({}, now => true)",
    "SELECT backfill.alter({}, batch_size => 7)",
    """SELECT backfill.alter({}, options => '{{"settings": {{"search_path": "bob"}}}}')""",
    "SELECT backfill.forget({})",
]


@pytest.mark.parametrize("user", ["bob", "watcher"])
def test_strangers_and_monitoring_control_nothing(people: Database, user: str) -> None:
    """Each call is refused with 42501, and nothing has changed."""
    job = held(people)
    before = people.sql("SELECT * FROM backfill_internal.job")
    for call in CALLS:
        with pytest.raises(DENIED, match=str(job)):
            people.sql(call.format(job), user=user)
    if user == "bob":
        with pytest.raises(DENIED):
            people.sql(f"CALL backfill.wait({job}, 1000)", user=user)
    for call in ("pause_all", "resume_all"):
        assert people.value(f"SELECT backfill.{call}()", user=user) == 0
    assert people.sql("SELECT * FROM backfill_internal.job") == before
    assert progress(people, job)["state"] == "running"


def test_a_stranger_cannot_start_what_another_has_defined(people: Database) -> None:
    """Nor finds out by its name that it is there."""
    people.sql("SELECT backfill.define('alice.t', 'n = n + 1', name => 'mine')", user="alice")
    people.sql("GRANT ALL ON alice.t TO bob; GRANT USAGE ON SCHEMA alice TO bob, watcher")
    for user in ("bob", "watcher"):
        for name in ("NULL", "'mine'"):
            with pytest.raises(psycopg.errors.UndefinedObject):
                people.sql(f"SELECT backfill.start('alice.t', name => {name})", user=user)
    assert people.value("SELECT state FROM backfill.progress") == "pending"
    # The name is free for somebody else's own job.
    complete(people, start(people, "alice.t", "secret = 'x'", name="mine", user="bob"))


@pytest.mark.parametrize("user", ["alice", "mate", "postgres"])
def test_members_and_superusers_control(people: Database, user: str) -> None:
    """Whoever has the owner's rights may do everything, and is named in the events."""
    job = held(people)
    assert people.value(f"SELECT backfill.pause({job})", user=user) in ("pausing", "paused")
    wait_for(people, job, "paused")
    people.sql(f"SELECT backfill.alter({job}, batch_size => 777, sleep_ms => 0)", user=user)
    assert people.value(f"SELECT backfill.resume({job})", user=user) == "running"
    complete(people, job)
    rows = people.sql("SELECT DISTINCT actor::text FROM backfill.events WHERE event IN ('pause', 'resume', 'alter')")
    assert rows == [(user,)]
    assert people.sql("SELECT n, count(*) FROM alice.t GROUP BY n") == [(1, 2000)]
    people.sql(f"SELECT backfill.forget({job})", user=user)


# What may carry row data


def test_error_details_take_select_on_the_relation(people: Database) -> None:
    """Monitoring sees that and how a job failed, but no values of rows."""
    people.sql("INSERT INTO alice.t VALUES (9999, 0, 'top secret')")
    job = start(people, "alice.t", "n = secret::int", where="secret <> 'hush'", user="alice")
    assert "top secret" in fail(people, job)
    assert "top secret" in progress(people, job, user="alice")["last_error"]
    shown = progress(people, job, user="watcher")["last_error"]
    assert "22P02" in shown and "top secret" not in shown and "9999" not in shown
    seen = str(people.sql("SELECT * FROM backfill.events", user="watcher"))
    assert "top secret" not in seen and "9999" not in seen
    people.sql("GRANT SELECT ON alice.t TO watcher")
    assert "top secret" in progress(people, job, user="watcher")["last_error"]
    people.sql("REVOKE SELECT ON alice.t FROM watcher; DROP TABLE alice.t")
    assert "top secret" not in progress(people, job, user="watcher")["last_error"]


@pytest.mark.parametrize("view", ["progress", "events"])
def test_a_leaky_function_sees_no_hidden_row(people: Database, view: str) -> None:
    """However cheap it says it is, it is called for visible rows only."""
    complete(people, start(people, "alice.t", "n = n + 1", user="alice"))
    connection = people.connect("bob")
    notices: list[str | None] = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    connection.execute("""CREATE FUNCTION pg_temp.leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
        $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$""")
    for column in ("job_id", "name", "v"):
        connection.execute(f"SELECT * FROM backfill.{view} v WHERE pg_temp.leak({column}::text)")
        connection.execute(f"SELECT 1 / (job_id - 1) FROM backfill.{view} v")
    assert notices == []


# Whose rights a batch has


def test_a_batch_runs_as_the_definer_also_at_commit(people: Database) -> None:
    """Whoever starts it: clauses, triggers and deferred triggers see the definer."""
    people.sql(
        """
        CREATE TABLE alice.seen (place text, who name, login name);
        CREATE FUNCTION alice.look() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO alice.seen VALUES (TG_ARGV[0], current_user, session_user); RETURN NEW; END $$;
        CREATE TRIGGER a BEFORE UPDATE ON alice.t FOR EACH ROW EXECUTE FUNCTION alice.look('before');
        CREATE TRIGGER b AFTER UPDATE ON alice.t FOR EACH STATEMENT EXECUTE FUNCTION alice.look('after');
        CREATE CONSTRAINT TRIGGER c AFTER UPDATE ON alice.t DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION alice.look('deferred');
        SELECT backfill.define('alice.t', 'n = n + 1, secret = current_user')
        """,
        user="alice",
    )
    job = people.value("SELECT backfill.start('alice.t', 777)")
    complete(people, job)
    seen = people.sql("SELECT DISTINCT place, who, login FROM alice.seen ORDER BY 1")
    assert seen == [(place, "alice", "alice") for place in ("after", "before", "deferred")]
    assert people.sql("SELECT n, secret, count(*) FROM alice.t GROUP BY 1, 2") == [(1, "alice", 2000)]


def test_missing_rights_are_refused_at_once_with_a_hint(people: Database) -> None:
    """UPDATE on the columns and SELECT on the key, no less; no more is asked for."""
    people.sql("GRANT USAGE ON SCHEMA alice TO bob")
    grants = ["", "GRANT SELECT ON alice.t TO bob", "REVOKE SELECT ON alice.t FROM bob; GRANT UPDATE ON alice.t TO bob"]
    for grant in grants:
        if grant:
            people.sql(grant)
        with pytest.raises(DENIED) as error:
            start(people, "alice.t", "n = 1", user="bob")
        assert error.value.diag.message_hint, error.value
    people.sql("REVOKE ALL ON alice.t FROM bob; GRANT UPDATE (n), SELECT (id) ON alice.t TO bob")
    with pytest.raises(DENIED):
        start(people, "alice.t", "n = n + 1", user="bob")
    assert people.sql("SELECT * FROM backfill.progress") == []
    complete(people, start(people, "alice.t", "n = 1", user="bob"))
    assert people.sql("SELECT n, count(*) FROM alice.t GROUP BY n") == [(1, 2000)]


def test_missing_rights_on_a_partition_and_a_column_that_there_is_not(people: Database) -> None:
    """The hint has the GRANT that is missing first."""
    people.sql("""
        CREATE TABLE alice.parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
        CREATE TABLE alice.part PARTITION OF alice.parts DEFAULT; GRANT USAGE ON SCHEMA alice TO bob
    """)
    with pytest.raises(DENIED) as denied:
        people.sql("SELECT backfill.define('alice.parts', 'v = 1')", user="bob")
    hint = denied.value.diag.message_hint or ""
    assert "GRANT SELECT" in hint and "alice.part" in hint


def test_row_security_is_an_error_never_a_filter(people: Database) -> None:
    """At the call, when it comes up during a run, and in a table that a trigger reads."""
    people.sql("""
        GRANT USAGE ON SCHEMA alice TO bob; GRANT SELECT, UPDATE ON alice.t TO bob;
        ALTER TABLE alice.t ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON alice.t USING (id % 2 = 0)
    """)
    with pytest.raises(DENIED, match="policies") as error:
        start(people, "alice.t", "n = n + 1", user="bob")
    assert "BYPASSRLS" in error.value.diag.message_hint
    # The owner is exempt, until it is forced.
    complete(people, start(people, "alice.t", "n = n + 1", user="alice"))
    assert people.sql("SELECT n, count(*) FROM alice.t GROUP BY n") == [(1, 2000)]
    job = held(people)
    people.sql(f"ALTER TABLE alice.t FORCE ROW LEVEL SECURITY; SELECT backfill.alter({job}, sleep_ms => 0)")
    assert "(SQLSTATE 42501)" in fail(people, job)
    people.sql(f"ALTER TABLE alice.t NO FORCE ROW LEVEL SECURITY; SELECT backfill.resume({job})")
    complete(people, job)
    assert people.sql("SELECT n, count(*) FROM alice.t GROUP BY n") == [(2, 2000)]


def test_row_security_of_a_table_that_a_trigger_reads(people: Database) -> None:
    """It would hide rows from the trigger just as quietly; the hint says what has happened."""
    people.sql("""
        CREATE TABLE app.rules AS SELECT 1 AS id; GRANT USAGE ON SCHEMA app TO alice;
        GRANT SELECT ON app.rules TO alice;
        ALTER TABLE app.rules ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON app.rules USING (false);
        CREATE FUNCTION alice.read() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.n := (SELECT count(*) FROM app.rules); RETURN NEW; END $$;
        CREATE TRIGGER read BEFORE UPDATE ON alice.t FOR EACH ROW EXECUTE FUNCTION alice.read()
    """)
    error = fail(people, start(people, "alice.t", "secret = NULL", user="alice"))
    assert 'row-level security policy for table "rules" (SQLSTATE 42501)' in error and "HINT" in error


# Who may run backfills at all


def test_a_role_that_may_not_connect_is_refused_with_the_recipe(people: Database) -> None:
    """A worker that can't connect would leave no trace but the server log."""
    people.sql(f"REVOKE CONNECT ON DATABASE {people.name} FROM PUBLIC; GRANT USAGE ON SCHEMA app TO alice")
    with pytest.raises(DENIED) as error:
        start(people, "alice.t", "n = n + 1", session="SET SESSION AUTHORIZATION alice")
    assert "GRANT CONNECT" in error.value.diag.message_hint and "alice" in error.value.diag.message_hint
    assert people.sql("SELECT * FROM backfill.progress") == []


@pytest.mark.parametrize("call", ["define", "start"])
def test_not_within_a_security_definer_function(people: Database, call: str) -> None:
    """The job would belong to the function's owner."""
    people.sql(f"""
        CREATE FUNCTION alice.go() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
            $$ SELECT backfill.{call}('alice.t', set_clause => 'n = n + 1') $$;
        CREATE FUNCTION alice.indirectly() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS
            $$ BEGIN RETURN backfill.{call}('alice.t', set_clause => 'n = n + 1'); END $$;
    """)
    for function in ("go", "indirectly"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="SECURITY DEFINER"):
            people.sql(f"SELECT alice.{function}()")
    assert people.sql("SELECT * FROM backfill.progress") == []


def test_a_definer_that_loses_his_rights(people: Database) -> None:
    """A clear failure; with the rights back it goes on where it stood."""
    people.sql("GRANT USAGE ON SCHEMA alice TO bob; GRANT SELECT, UPDATE ON alice.t TO bob")
    job = held(people, "bob")
    # In two transactions: a commit wakes the worker a moment before it tells other processes about the rights.
    people.sql("REVOKE UPDATE ON alice.t FROM bob")
    people.sql(f"SELECT backfill.alter({job}, 777, 0)")
    error = fail(people, job)
    assert "permission denied for table t (SQLSTATE 42501)" in error and "the rights of role bob" in error, error
    people.sql(f"GRANT UPDATE ON alice.t TO bob; SELECT backfill.resume({job})")
    complete(people, job)
    assert people.sql("SELECT n, count(*) FROM alice.t GROUP BY n") == [(1, 2000)]


def test_a_definer_that_loses_connect_while_his_job_is_paused(people: Database) -> None:
    """`resume` says why it can't be, and the job stays as it is."""
    job = held(people)
    people.sql(f"SELECT backfill.pause({job})")
    wait_for(people, job, "paused")
    people.sql(f"REVOKE CONNECT ON DATABASE {people.name} FROM PUBLIC")
    with pytest.raises(DENIED) as error:
        people.sql(f"SELECT backfill.resume({job})")
    assert "GRANT CONNECT" in error.value.diag.message_hint
    assert progress(people, job)["state"] == "paused"
    people.sql(f"GRANT CONNECT ON DATABASE {people.name} TO alice; SELECT backfill.alter({job}, 777, 0)")
    assert people.value(f"SELECT backfill.resume({job})") == "running"
    complete(people, job)


def test_a_definer_that_is_dropped(people: Database) -> None:
    """The job fails, stays visible to superusers, says why it doesn't go on, and can be ended."""
    people.sql("""
        CREATE ROLE gone LOGIN;
        GRANT USAGE ON SCHEMA alice TO gone; GRANT SELECT, UPDATE ON alice.t TO gone
    """)
    job = held(people, "gone")
    people.sql("DROP OWNED BY gone; DROP ROLE gone")
    people.sql(f"SELECT backfill.alter({job}, 777, 0)")
    assert "(SQLSTATE " in fail(people, job)
    with pytest.raises(psycopg.Error) as error:
        people.sql(f"SELECT backfill.resume({job})")
    assert error.value.sqlstate not in ("XX000", None) and error.value.diag.message_hint, error.value
    assert progress(people, job)["state"] == "failed"
    assert people.value(f"SELECT backfill.cancel({job})") == "cancelled"
    people.sql(f"SELECT backfill.forget({job})")
    assert people.sql("SELECT n, count(*) FROM alice.t GROUP BY n ORDER BY n") == [(0, 1900), (1, 100)]
