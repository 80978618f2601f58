"""When a start takes effect, whose job it becomes, and when it is refused."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from harness import Cluster, Database, Server, wait_until
from harness.jobs import progress, wait_for_nap_between_batches, wait_for_nap_in_batch, wait_for_state
from harness.tables import counts, make_table, sleep_at

New = Callable[..., Cluster]
TALKATIVE = {"log_min_messages": "debug1", "log_statement": "ddl"}
START = "SELECT backfill.start('t', 100, 0, set_clause => 'n = n + 1')"
SLOW = "SELECT backfill.start('t', 100, 60000, set_clause => 'n = n + 1', name => 'slow')"


def nothing_started(db: Database) -> None:
    """No job was left behind, and no process was started for one, as the postmaster tells at DEBUG1.

    A canary job, started afterwards, has its worker registered after any other, and runs to its end.
    """
    assert db.value("SELECT count(*) FROM backfill_internal.job") == 0
    make_table(db, 10, "canary")
    canary = db.value("SELECT backfill.start('canary', set_clause => 'n = n + 1')")
    wait_for_state(db, canary, "completed")
    assert db.value("SELECT count(*) FROM backfill_internal.job") == 1
    assert db.value("SELECT count(*) FROM backfill_internal.event WHERE job_id <> %s", [canary]) == 0
    log = db.cluster.log.read_text(errors="replace")
    # From the last job of another test on: ids begin anew in each database.
    log = log[log.rfind("CREATE EXTENSION") :]
    assert re.findall(r'starting background worker process "(backfill job \d+)', log) == [f"backfill job {canary}"]
    assert counts(db) == [(0, 1000)]


def only_job_completes(db: Database) -> None:
    """There is one job, and it does its work."""
    job = db.value("SELECT job_id FROM backfill.progress")
    wait_for_state(db, job, "completed")
    assert counts(db) == [(1, 1000)]


@pytest.fixture(scope="module")
def talkative(server: Server) -> Iterator[Cluster]:
    """A server that tells of each process it starts."""
    with Cluster(server=server, conf=TALKATIVE) as cluster:
        yield cluster


@pytest.fixture
def watched(talkative: Cluster, request: pytest.FixtureRequest) -> Database:
    """A database of that server, with a table of 1,000 rows."""
    name = f"db_{abs(hash(request.node.name))}"
    talkative.sql(f"CREATE DATABASE {name}")
    db = talkative.database(name)
    db.sql("CREATE EXTENSION backfill")
    make_table(db, 1000)
    return db


@pytest.fixture
def table(db: Database) -> Database:
    """A database with a table of 1,000 rows."""
    make_table(db, 1000)
    return db


def test_rollback_starts_nothing(watched: Database) -> None:
    """BEGIN; start; ROLLBACK."""
    with watched.connect(autocommit=False) as connection:
        connection.execute(START)
        connection.rollback()
        # The same session commits something else: nothing may have been kept for that.
        connection.execute("SELECT 1")
        connection.commit()
    nothing_started(watched)


def test_an_error_after_it_starts_nothing(watched: Database) -> None:
    """A statement that fails later in the transaction takes the start with it."""
    connection = watched.connect()
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute(START.replace("SELECT ", "SELECT 1 / (1 - ") + ")")
    connection.execute("SELECT 1")
    nothing_started(watched)


def test_rollback_to_a_savepoint_starts_nothing(watched: Database) -> None:
    """Savepoints, nested and released into one that is rolled back; the transaction itself commits."""
    watched.psql(
        f"BEGIN; SAVEPOINT a; SAVEPOINT b; {START}; RELEASE b; ROLLBACK TO a; RELEASE a; COMMIT; SELECT 1;",
    )
    nothing_started(watched)


def test_a_caught_exception_starts_nothing(watched: Database) -> None:
    """A PL/pgSQL block with EXCEPTION is a subtransaction, too."""
    watched.sql(
        f"DO $$ BEGIN PERFORM ({START}); RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN NULL; END $$"
    )
    nothing_started(watched)


def test_released_savepoints_start(table: Database) -> None:
    """A savepoint that is kept starts it at COMMIT, and not before."""
    connection = table.connect(autocommit=False)
    connection.execute(f"SAVEPOINT a; SAVEPOINT b; {START}; RELEASE b; RELEASE a")
    assert table.value("SELECT count(*) FROM backfill_internal.job") == 0
    assert counts(table) == [(0, 1000)]
    connection.commit()
    only_job_completes(table)


@pytest.mark.parametrize(
    "script",
    [
        f"DO $$ BEGIN PERFORM ({START}); END $$;",
        f"DO $$ BEGIN PERFORM ({START}); COMMIT; PERFORM 1; END $$;",
        f"DO $$ BEGIN PERFORM ({START}); COMMIT; RAISE EXCEPTION 'too late'; END $$;",
        f"CREATE FUNCTION go() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN ({START}); END $$; SELECT go();",
        f"CREATE FUNCTION go() RETURNS bigint LANGUAGE sql AS $$ {START} $$; SELECT go();",
        f"BEGIN; {START}; COMMIT;",
        f"PREPARE go AS {START}; EXECUTE go;",
    ],
    ids=["DO", "DO with COMMIT", "DO, COMMIT, error", "plpgsql", "sql", "BEGIN", "EXECUTE"],
)
def test_commit_starts_it(table: Database, script: str) -> None:
    """However the call is wrapped: the commit starts the job."""
    table.psql(script, check="too late" not in script)
    only_job_completes(table)


def test_a_psql_script_in_one_transaction(table: Database, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`psql -1 -f`: a failing script starts nothing, a good one starts the job after its last line."""
    script = tmp_path_factory.mktemp("psql") / "migration.sql"
    script.write_text(f"ALTER TABLE t ADD extra int;\n{START};\nSELECT 1 / 0;\n")
    failed = table.psql("", options=["-1", "-f", str(script)], check=False)
    assert "division by zero" in failed.stderr
    assert table.value("SELECT count(*) FROM backfill_internal.job") == 0
    script.write_text(f"ALTER TABLE t ADD extra int;\n{START};\nALTER TABLE t ADD extra2 int;\n")
    table.psql("", options=["-1", "-f", str(script)])
    only_job_completes(table)


def test_a_table_of_the_same_transaction(db: Database) -> None:
    """The migration that creates and fills the table may start its backfill at once."""
    db.psql(
        "BEGIN; CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);"
        f"INSERT INTO t SELECT generate_series(1, 1000); {START}; COMMIT;"
    )
    only_job_completes(db)


def test_prepare_transaction_is_refused(new_cluster: New) -> None:
    """With a hint; the session works on, and its next commit starts nothing."""
    cluster = new_cluster(conf=TALKATIVE | {"max_prepared_transactions": 5})
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, 1000)
    connection = cluster.connect()
    connection.execute("BEGIN")
    connection.execute(START)
    with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
        connection.execute("PREPARE TRANSACTION 'x'")
    assert caught.value.diag.message_hint
    connection.execute("CREATE TABLE later ()")
    assert cluster.value("SELECT count(*) FROM pg_prepared_xacts") == 0
    nothing_started(cluster)
    connection.execute("BEGIN; INSERT INTO t VALUES (2000); PREPARE TRANSACTION 'fine'")
    connection.execute("ROLLBACK PREPARED 'fine'")
    connection.execute(START)
    wait_until(lambda: counts(cluster) == [(1, 1000)], 30, "the job")


def test_a_repeated_start_gives_the_same_job(table: Database) -> None:
    """With a name: the same id while it runs and when it has completed, with a NOTICE, and nothing runs twice."""
    connection = table.connect()
    notices: list[str] = []
    connection.add_notice_handler(lambda diag: notices.append(diag.message_primary or ""))
    first = connection.execute(SLOW).fetchone()
    assert first and not notices
    # Another pace is the same definition.
    assert connection.execute(SLOW.replace("60000", "0")).fetchone() == first
    assert notices.pop() == f'backfill job {first[0]} ("slow") is already running'
    wait_for_nap_between_batches(table, first[0])
    assert progress(table, first[0])["sleep_ms"] == 60000
    table.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [first[0]])
    wait_for_state(table, first[0], "completed")
    assert connection.execute(SLOW).fetchone() == first
    assert notices.pop() == f'backfill job {first[0]} ("slow") has already completed'
    assert counts(table) == [(1, 1000)]
    assert table.value("SELECT count(*) FROM backfill.progress") == 1


@pytest.mark.parametrize(
    "other",
    [
        "'t', set_clause => 'n = n + 2', name => 'slow'",
        "'t', set_clause => 'n = n + 1', where_clause => 'id > 5', name => 'slow'",
        "'u', set_clause => 'n = n + 1', name => 'slow'",
    ],
    ids=["SET", "WHERE", "table"],
)
def test_another_definition_under_a_name_is_an_error(table: Database, other: str) -> None:
    """The message names the job."""
    make_table(table, 10, "u")
    table.sql(SLOW)
    for function in ("start", "define"):
        call = other if function == "start" else other.replace("set_clause => ", "").replace("where_clause => ", "")
        with pytest.raises(psycopg.errors.DuplicateObject, match='"slow"') as caught:
            table.sql(f"SELECT backfill.{function}({call})")
        assert caught.value.diag.message_hint


def test_the_definer_owns_what_another_starts(table: Database) -> None:
    """The batches of a job that a superuser releases run as the role that defined it, in its session."""
    table.sql(
        "CREATE TABLE seen (who text, session text, path text); GRANT INSERT ON seen TO PUBLIC;"
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.seen VALUES (current_user, session_user, current_setting('search_path'));"
        " RETURN new; END $$;"
        "CREATE TRIGGER see BEFORE UPDATE ON t FOR EACH ROW WHEN (old.id % 100 = 0) EXECUTE FUNCTION see();"
        "DO $$ BEGIN CREATE ROLE dev LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        "GRANT SELECT, UPDATE ON t TO dev"
    )
    table.psql(
        "SET search_path = public, pg_temp; SELECT backfill.define('t', 'n = n + 1', name => 'mine');", user="dev"
    )
    job = table.value("SELECT backfill.start('t', 50, 0)")
    wait_for_state(table, job, "completed")
    assert table.sql("SELECT who, session, path, count(*) FROM seen GROUP BY 1, 2, 3") == [
        ("dev", "dev", "public, pg_temp", 10)
    ]
    assert progress(table, job)["owner"] == "dev"
    events = table.sql("SELECT event, actor::text FROM backfill.events WHERE job_id = %s ORDER BY event_id", [job])
    assert events == [("define", "dev"), ("start", "postgres"), ("worker started", "dev"), ("completed", "dev")]


def test_three_arguments_need_exactly_one_definition(table: Database) -> None:
    """None and several are errors with a hint; several are named; a name picks one."""
    with pytest.raises(psycopg.errors.UndefinedObject) as caught:
        table.sql("SELECT backfill.start('t', 100, 0)")
    assert "set_clause" in (caught.value.diag.message_hint or "")
    table.sql("ALTER TABLE t ADD m int NOT NULL DEFAULT 0")
    table.sql("SELECT backfill.define('t', 'n = n + 1', name => 'first')")
    table.sql("SELECT backfill.define('t', 'm = m + 1', name => 'second')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
        table.sql("SELECT backfill.start('t', 100, 0)")
    diag = caught.value.diag
    told = f"{diag.message_primary} {diag.message_detail} {diag.message_hint}"
    assert '"first"' in told and '"second"' in told and diag.message_hint
    job = table.value("SELECT backfill.start('t', 100, 0, name => 'second')")
    wait_for_state(table, job, "completed")
    assert table.sql("SELECT sum(n), sum(m) FROM t") == [(0, 1000)]
    # One is left: no name is needed any more.
    wait_for_state(table, table.value("SELECT backfill.start('t', 100, 0)"), "completed")
    assert counts(table) == [(1, 1000)]


def test_a_definition_waits_for_its_start(table: Database) -> None:
    """define checks and stores, and starts nothing; a repeated one is the same."""
    define = "SELECT backfill.define('t', 'n = n + 1', name => 'later')"
    job = table.value(define)
    assert table.value(define) == job
    assert table.sql("SELECT state, waiting_for FROM backfill.progress") == [("pending", "backfill.start()")]
    with pytest.raises(psycopg.errors.UndefinedColumn):
        table.sql("SELECT backfill.define('t', 'nn = 1')")
    assert table.value("SELECT backfill.cancel(%s)", [job]) == "cancelled"
    with pytest.raises(psycopg.errors.UndefinedObject):
        table.sql("SELECT backfill.start('t', 100, 0)")


def test_a_standby_refuses(new_cluster: New) -> None:
    """25006, with a hint, from every function that writes; the view works there."""
    primary = new_cluster()
    primary.sql("CREATE EXTENSION backfill")
    make_table(primary, 1000)
    job = primary.value(SLOW)
    wait_for_nap_between_batches(primary, job)
    with primary.standby() as standby:
        primary.wait_for_replay(standby)
        calls = ["pause(1)", "resume(1)", "cancel(1)", "pause_all()", "resume_all()", "alter(1, 5)", "forget(1)"]
        calls += ["define('t', 'n = 1')", "start('t', 100, 0, 'n = 1')", "start('t', 100, 0)"]
        for call in calls:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="standby") as caught:
                standby.value(f"SELECT backfill.{call}")
            assert "primary" in caught.value.diag.message_hint, call
        assert standby.sql("SELECT job_id, rows_done FROM backfill.progress") == [(job, 100)]


def test_two_jobs_on_one_column_are_refused(table: Database) -> None:
    """While the first is active in any way; other columns are fine, and so is its successor."""
    table.sql("ALTER TABLE t ADD m int")
    job = table.value(SLOW)
    wait_for_nap_between_batches(table, job)
    for clause in ("n = 5", "m = 1, n = 2", "(m, n) = (SELECT 1, 2)"):
        with pytest.raises(psycopg.errors.ObjectInUse, match=f"by job {job}") as caught:
            table.sql("SELECT backfill.start('t', 10, 0, set_clause => %s)", [clause])
        assert caught.value.diag.message_hint
    wait_for_state(table, table.value("SELECT backfill.start('t', set_clause => 'm = 1')"), "completed")
    table.sql("SELECT backfill.pause(%s)", [job])
    wait_for_state(table, job, "paused")
    with pytest.raises(psycopg.errors.ObjectInUse):
        table.sql(START)
    table.sql("SELECT backfill.cancel(%s)", [job])
    wait_for_state(table, table.value(START), "completed")


def test_two_jobs_on_one_column_are_refused_in_a_race(table: Database) -> None:
    """Two sessions, neither of which sees the other's job yet: the second waits, and is refused."""
    first = table.connect(autocommit=False)
    first.execute(SLOW)
    second = table.connect()
    outcome: list[str | None] = []

    def race() -> None:
        try:
            second.execute(START)
            outcome.append(None)
        except psycopg.Error as error:
            outcome.append(error.sqlstate)

    thread = threading.Thread(target=race)
    thread.start()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    wait_until(lambda: table.value(waits, [second.info.backend_pid]), 30, "the second start to wait")
    first.commit()
    thread.join(30)
    assert outcome == ["55006"]
    assert table.value("SELECT count(*) FROM backfill.progress") == 1


def test_starts_by_name_in_a_race_give_one_job(table: Database) -> None:
    """Two deployments run the same migration at once."""
    first = table.connect(autocommit=False)
    expected = first.execute(SLOW).fetchone()
    second = table.connect()
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(second.execute(SLOW).fetchone()))
    thread.start()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    wait_until(lambda: table.value(waits, [second.info.backend_pid]), 30, "the second start to wait")
    first.commit()
    thread.join(30)
    assert got == [expected]


def test_a_cancelling_job_still_has_its_columns(table: Database) -> None:
    """Until its batch has ended, it may still write."""
    sleep_at(table, 50)
    job = table.value(START)
    wait_for_nap_in_batch(table, job)
    assert table.value("SELECT backfill.cancel(%s)", [job]) == "cancelling"
    with pytest.raises(psycopg.errors.ObjectInUse):
        table.sql(START)
