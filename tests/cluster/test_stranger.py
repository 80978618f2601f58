"""Text of another role's is looked at in a process of that role's: what that means for whoever asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from harness import Cluster, Database, wait_until

CHECKERS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'backfill checker'"


@pytest.fixture
def theirs(db: Database) -> Iterator[Database]:
    """A table and a definition of painter's."""
    db.sql("DROP ROLE IF EXISTS painter, helper; CREATE ROLE painter LOGIN; CREATE ROLE helper LOGIN IN ROLE painter")
    db.sql("GRANT ALL ON SCHEMA public TO painter")
    db.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, n integer); INSERT INTO t SELECT i FROM generate_series(1, 200) i;"
        " CREATE FUNCTION place() RETURNS integer LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN pg_backend_pid(); END $$",
        user="painter",
    )
    yield db
    db.cluster.close_connections()
    db.sql("DROP OWNED BY painter CASCADE; DROP ROLE helper, painter")


def define(db: Database, set_clause: str = "n = place()", **arguments: str) -> int:
    """A definition of painter's."""
    more = "".join(f", {name} => {value}" for name, value in arguments.items())
    return db.value(f"SELECT backfill.define('t', $${set_clause}$${more})", user="painter")


def ask(db: Database, query: str, **options: Any) -> list[tuple[Any, ...]]:
    """Asks as a superuser, in a connection that is kept."""
    return db.connect(**options).execute(query).fetchall()


def test_it_runs_in_a_process_of_the_owners(theirs: Database) -> None:
    """Not in the session of who asks, which may be a superuser's or a member's; the process is gone afterwards."""
    define(theirs)
    for user in ("postgres", "helper"):
        connection = theirs.connect(user)
        mine = connection.info.backend_pid
        [(after,)] = connection.execute("SELECT after FROM backfill.preview('t', \"limit\" => 1)").fetchall()
        assert int(after["n"]) != mine
    wait_until(lambda: theirs.sql(CHECKERS) == [], 30, "the checkers to end")
    # The owner's own text is looked at where it is.
    connection = theirs.connect("painter")
    [(after,)] = connection.execute("SELECT after FROM backfill.preview('t', \"limit\" => 1)").fetchall()
    assert int(after["n"]) == connection.info.backend_pid


def test_a_caller_whose_snapshot_is_old(theirs: Database) -> None:
    """The answer comes over shared memory, not through a table."""
    define(theirs)
    with theirs.connect(autocommit=False) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM t")
        assert len(connection.execute("SELECT * FROM backfill.preview('t')").fetchall()) == 10


def test_a_definition_that_is_not_committed(theirs: Database) -> None:
    """Its text goes along; a table that only this transaction sees can't be looked at."""
    with theirs.connect(autocommit=False) as connection:
        connection.execute("SET LOCAL ROLE painter; SELECT backfill.define('t', 'n = 1'); RESET ROLE")
        assert len(connection.execute("SELECT * FROM backfill.preview('t')").fetchall()) == 10
    with theirs.connect(autocommit=False) as connection:
        connection.execute("SET LOCAL ROLE painter; CREATE TABLE fresh (id integer PRIMARY KEY, n integer)")
        connection.execute("SELECT backfill.define('fresh', 'n = 1'); RESET ROLE")
        with pytest.raises(psycopg.errors.UndefinedTable) as error:
            connection.execute("SELECT * FROM backfill.plan('fresh')")
        assert "not committed" in str(error.value.diag.message_hint)


def test_a_lock_that_the_caller_holds(theirs: Database) -> None:
    """Nobody would ever see that deadlock: an error names the lock at once, and nothing is left running."""
    define(theirs)
    with theirs.connect(autocommit=False) as connection:
        connection.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        begun = time.monotonic()
        with pytest.raises(psycopg.errors.LockNotAvailable) as error:
            connection.execute("SELECT * FROM backfill.plan('t')")
        assert time.monotonic() - begun < 4, "it is told before the checker's own time is over"
        assert "table public.t" in str(error.value.diag.message_detail) and error.value.diag.message_hint
    wait_until(lambda: theirs.sql(CHECKERS) == [], 30, "the checker to end")


def test_a_lock_that_somebody_else_holds(theirs: Database) -> None:
    """It is waited for, a few seconds at most."""
    define(theirs)
    with theirs.connect(autocommit=False) as other:
        other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable) as error:
            theirs.sql("SELECT * FROM backfill.plan('t')")
        assert f"table public.t, held by process {other.info.backend_pid}" in str(error.value.diag.message_detail)
    assert theirs.sql("SELECT * FROM backfill.plan('t')")


def test_a_function_that_does_not_return(theirs: Database) -> None:
    """Whoever asks can cancel, or go: the checker ends with them. Two may wait at the same time, no more."""
    theirs.sql(
        "CREATE FUNCTION stay() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 1; END $$", user="painter"
    )
    define(theirs, "n = stay()")
    theirs.sql(
        "CREATE OR REPLACE FUNCTION stay() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$",
        user="painter",
    )
    ends: list[Exception] = []

    def wait_in_vain(connection: psycopg.Connection) -> None:
        try:
            connection.execute("SELECT * FROM backfill.plan('t')")
        except psycopg.Error as error:
            ends.append(error)

    askers = [theirs.connect() for _ in range(2)]
    threads = [threading.Thread(target=wait_in_vain, args=[connection], daemon=True) for connection in askers]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(theirs.sql(CHECKERS)) == 2, 30, "two checkers")
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded) as error:
        theirs.sql("SELECT * FROM backfill.plan('t')")
    assert "painter" in str(error.value) and error.value.diag.message_hint
    # Own text needs no checker.
    assert theirs.sql("SELECT * FROM backfill.plan('t', set_clause => 'n = 1')")
    pids = [connection.info.backend_pid for connection in askers]
    assert theirs.value("SELECT pg_cancel_backend(%s)", [pids[0]])
    assert theirs.value("SELECT pg_terminate_backend(%s)", [pids[1]])
    wait_until(lambda: theirs.sql(CHECKERS) == [], 30, "the checkers to end")
    for thread in threads:
        thread.join(30)
    assert {type(end) for end in ends} == {psycopg.errors.QueryCanceled, psycopg.errors.AdminShutdown}


def test_no_process_is_free(new_cluster: Any) -> None:
    """A clear error, and the owner can still do it."""
    server: Cluster = new_cluster(preload=False, conf={"max_worker_processes": "0", "max_parallel_workers": "0"})
    server.sql("CREATE EXTENSION backfill; CREATE ROLE painter LOGIN; GRANT ALL ON SCHEMA public TO painter")
    define = "CREATE TABLE t (id integer PRIMARY KEY, n integer); SELECT backfill.define('t', 'n = 1')"
    server.sql(define, user="painter")
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded) as error:
        server.sql("SELECT * FROM backfill.plan('t')")
    assert "max_worker_processes" in str(error.value.diag.message_hint)
    assert server.sql("SET ROLE painter; SELECT * FROM backfill.plan('t')")


def test_what_it_says_comes_back(theirs: Database) -> None:
    """Errors with SQLSTATE, position and hint, and answers that are longer than the queue."""
    theirs.sql("ALTER TABLE t ADD COLUMN old integer", user="painter")
    define(theirs, "n = old", name="'x'")
    theirs.sql("ALTER TABLE t DROP COLUMN old", user="painter")
    with pytest.raises(psycopg.errors.UndefinedColumn) as error:
        theirs.sql("SELECT * FROM backfill.plan('t', name => 'x')")
    assert 'column "old" does not exist' in str(error.value)
    long = "n = CASE WHEN id IN (" + ", ".join(str(number) for number in range(100_000)) + ") THEN 1 END"
    assert len(long) > 500_000
    define(theirs, long, name="'long'")
    lines = theirs.sql("SELECT value FROM backfill.plan('t', name => 'long') WHERE item = 'batch'")
    assert [line for (line,) in lines if long in line]


def test_alter_has_the_owners_text_looked_at_by_nobody(theirs: Database) -> None:
    """What is not changed is not checked again; what is changed is checked as the owner."""
    query = "SELECT place() < 0"
    options = f"jsonb_build_object('throttle_query', '{query}')"
    job = define(theirs, "n = 1", options=options)
    theirs.sql("DROP FUNCTION place()", user="painter")
    theirs.sql("SELECT backfill.alter(%s, options => '{\"max_lock_waiters\": 3}')", [job])
    theirs.sql("CREATE TABLE private (n integer)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        theirs.sql(
            'SELECT backfill.alter(%s, options => \'{"throttle_query": "SELECT count(*) > 1 FROM private"}\')', [job]
        )
    theirs.sql('SELECT backfill.alter(%s, options => \'{"throttle_query": "SELECT count(*) > 1 FROM t"}\')', [job])
    theirs.sql("DROP TABLE private")


def test_set_not_null_on_a_table_of_another_role(theirs: Database) -> None:
    """ALTER TABLE evaluates what is constant in the table's constraints: that is not done in the caller's session."""
    theirs.sql(
        "CREATE SEQUENCE here; CREATE SEQUENCE elsewhere;"
        "CREATE FUNCTION spring() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        " IF (SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid()) = 'client backend'"
        " THEN PERFORM nextval('public.here'); ELSE PERFORM nextval('public.elsewhere'); END IF; RETURN true; END $$;"
        "CREATE FUNCTION constant() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN RETURN public.spring(); END $$;"
        "ALTER TABLE t ADD CHECK (public.constant() OR n > 0); UPDATE t SET n = id",
        user="painter",
    )
    for user in ("postgres", "helper"):
        theirs.sql("ALTER TABLE t ALTER COLUMN n DROP NOT NULL; UPDATE t SET n = NULL WHERE id = 7", user="painter")
        theirs.sql("SELECT setval('here', 1), setval('elsewhere', 1)", user="painter")
        with pytest.raises(psycopg.errors.NotNullViolation):
            theirs.sql("CALL backfill.set_not_null('t', 'n')", user=user)
        assert theirs.value("SELECT count(*) FROM pg_constraint WHERE conname LIKE 'backfill%%'") == 0
        theirs.sql("UPDATE t SET n = id", user="painter")
        theirs.sql("SELECT setval('here', 1), setval('elsewhere', 1)", user="painter")
        theirs.sql("CALL backfill.set_not_null('t', 'n')", user=user)
        assert theirs.value("SELECT attnotnull FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'n'")
        assert theirs.value("SELECT last_value FROM here") == 1, "it ran in the caller's session"
        # From 18 on no constraint is looked at: the column is NOT NULL, NOT VALID first.
        if theirs.value("SELECT current_setting('server_version_num')::int") < 180000:
            assert theirs.value("SELECT last_value FROM elsewhere") > 1, "the trap is one"
