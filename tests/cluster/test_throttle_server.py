"""Jobs that give way to what else the server does: archiving, clients, VACUUM, what the owner asks for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import psycopg
import pytest
from harness import Cluster, Database, wait_until
from harness.jobs import complete, progress, start, wait_for_state
from harness.tables import counts, make_table
from harness.throttles import ROWS, stands_still, throttled, waits_and_goes_on

New = Callable[..., Cluster]


@pytest.fixture
def table(db: Database) -> Database:
    """A database with the table t."""
    make_table(db, ROWS)
    return db


def test_an_archiver_that_fails(new_cluster: New) -> None:
    """Until it is mended."""
    cluster = new_cluster(conf={"archive_mode": "on", "archive_command": "false"})
    cluster.sql("CREATE EXTENSION backfill; CREATE TABLE filler (x int)")
    make_table(cluster, ROWS)
    for _ in range(3):
        cluster.sql("INSERT INTO filler VALUES (1)")
        cluster.sql("SELECT pg_switch_wal()")

    def mend() -> None:
        cluster.set(archive_command="true")
        cluster.reload()
        # The archiver waits a minute after failures, or until there is another segment.
        cluster.sql("INSERT INTO filler VALUES (1)")
        cluster.sql("SELECT pg_switch_wal()")

    waits_and_goes_on(
        cluster, {"max_archive_backlog": 1}, mend, ("max_archive_backlog:", "of 1 segments of WAL wait to be archived")
    )


def test_clients_at_work(new_cluster: New) -> None:
    """Idle ones do not count, nor do workers; a role that sees nothing of others is given the truth all the same."""
    cluster = new_cluster()
    cluster.sql("CREATE EXTENSION backfill; CREATE ROLE plain LOGIN")
    make_table(cluster, ROWS)
    cluster.sql("ALTER TABLE t OWNER TO plain")
    busy = [cluster.connect() for _ in range(3)]
    idle = [cluster.connect() for _ in range(5)]
    threads = [threading.Thread(target=_nap, args=[connection]) for connection in busy]
    for thread in threads:
        thread.start()
    active = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_until(lambda: cluster.value(active) == 3, 30, "clients to be at work")
    job = start(cluster, "t", "n = n + 1", batch=100, user="plain", options={"max_active_backends": 2})
    throttled(cluster, job, "max_active_backends:", "of 2 clients are at work")
    stands_still(cluster, job)
    cluster.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    for thread in threads:
        thread.join(30)
    complete(cluster, job)
    assert counts(cluster) == [(1, ROWS)] and len(idle) == 5


def _nap(connection: psycopg.Connection) -> None:
    with contextlib.suppress(psycopg.errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(120)")


@pytest.mark.parametrize("option", ["max_dead_tuples", "max_growth"])
def test_a_table_that_waits_for_vacuum(table: Database, option: str) -> None:
    """Autovacuum is off: a person does it."""
    table.sql("ALTER TABLE t SET (autovacuum_enabled = off, fillfactor = 100)")
    bound = {"max_dead_tuples": 5000, "max_growth": 10}[option]
    words = {"max_dead_tuples": "dead tuples in the table; it waits for VACUUM", "max_growth": "it waits for VACUUM"}
    table.sql("ALTER TABLE t ADD pad text DEFAULT repeat('x', 200)")
    table.sql("VACUUM FULL t")
    job = start(table, "t", "n = n + 1", batch=200, sleep_ms=50, options={option: bound})
    throttled(table, job, f"{option}:", words[option], timeout=60)
    stands_still(table, job)
    done = progress(table, job)["rows_done"]
    assert 0 < done < ROWS
    table.sql("VACUUM t")
    wait_until(lambda: progress(table, job)["rows_done"] > done, 30, "the job to go on")
    table.sql("SELECT backfill.alter(%s, sleep_ms => 0, options => jsonb_build_object(%s::text, -1))", [job, option])
    complete(table, job)
    assert counts(table) == [(1, ROWS)]


def test_vacuum_of_the_table(table: Database) -> None:
    """A slow one, as autovacuum's are; the job waits from one look to the next."""
    table.sql("ALTER TABLE t ADD pad text DEFAULT repeat('x', 500)")
    table.sql("UPDATE t SET pad = pad || 'y'")
    vacuum = table.connect()
    vacuum.execute("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 20; SET vacuum_cost_page_dirty = 100")
    thread = threading.Thread(target=_vacuum, args=[vacuum])
    thread.start()
    running = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 't'::regclass"
    wait_until(lambda: table.value(running), 30, "VACUUM to begin")
    job = start(table, "t", "n = n + 1", options={"yield_to_autovacuum": True, "vacuum": False})
    throttled(table, job, "yield_to_autovacuum: VACUUM of the table is")
    table.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_vacuum")
    thread.join(30)
    complete(table, job)
    assert counts(table) == [(1, ROWS)]


def _vacuum(connection: psycopg.Connection) -> None:
    with contextlib.suppress(psycopg.errors.QueryCanceled):
        connection.execute("VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) t")


def test_the_owners_query(table: Database) -> None:
    """True, NULL, no row, an error, and no answer in time: wait. It runs as the owner, by his names."""
    table.sql("""
        CREATE ROLE asks LOGIN; ALTER TABLE t OWNER TO asks; CREATE SCHEMA asks AUTHORIZATION asks;
        CREATE TABLE asks.flag (busy boolean, who name); INSERT INTO asks.flag VALUES (true, 'asks');
        ALTER TABLE asks.flag OWNER TO asks
    """)
    query = "SELECT busy OR who <> current_user FROM flag -- of the application"
    job = start(
        table,
        "t",
        "n = n + 1",
        batch=100,
        user="asks",
        session="SET search_path = asks, public",
        options={"throttle_query": query},
    )
    throttled(table, job, "throttle_query: the query gives true")
    stands_still(table, job)
    table.sql("UPDATE asks.flag SET busy = NULL")
    throttled(table, job, "throttle_query: the query gives NULL")
    table.sql("DELETE FROM asks.flag")
    throttled(table, job, "throttle_query: the query gives NULL")
    table.sql("INSERT INTO asks.flag VALUES (false, 'asks'), (false, 'asks')")
    said = throttled(table, job, "throttle_query: the query fails (SQLSTATE 21000)")
    assert "more than one row" not in said
    table.sql("""
        TRUNCATE asks.flag; INSERT INTO asks.flag VALUES (false, 'asks');
        ALTER TABLE asks.flag RENAME TO flags;
        CREATE VIEW asks.flag AS SELECT f.busy, f.who FROM asks.flags f, pg_sleep(30);
        ALTER VIEW asks.flag OWNER TO asks
    """)
    throttled(table, job, "throttle_query: the query takes longer than 1000 ms")
    table.sql("DROP VIEW asks.flag; ALTER TABLE asks.flags RENAME TO flag")
    complete(table, job)
    assert counts(table) == [(1, ROWS)]


def test_what_the_query_does_to_the_session_is_undone(table: Database) -> None:
    """It lets the worker's locks go, and sets what is pinned: the next batch has them again."""
    table.sql("""
        CREATE TABLE seen (setting text);
        CREATE FUNCTION meddle() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_advisory_unlock_all();
            PERFORM set_config('row_security', 'on', false), set_config('search_path', 'nowhere', false);
            RETURN false;
        END $$;
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO public.seen SELECT current_setting(s) FROM unnest('{row_security,search_path}'::text[]) s;
            RETURN NULL;
        END $$;
        CREATE TRIGGER look AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION look()
    """)
    options = {"throttle_query": "SELECT public.meddle()", "workers": 2}
    job = start(table, "t", "n = n + 1", batch=100, sleep_ms=20, options=options)
    wait_until(lambda: progress(table, job)["rows_done"] > 5000, 60, "a few looks")
    table.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    complete(table, job)
    assert counts(table) == [(1, ROWS)]
    assert {setting for (setting,) in table.sql("SELECT DISTINCT setting FROM seen")} == {
        "off",
        '"$user", public, pg_temp',
    }


@pytest.mark.parametrize(
    ("query", "error", "words"),
    [
        ("SELECT 1", psycopg.errors.DatatypeMismatch, "must be type boolean"),
        ("SELECT true; SELECT true", psycopg.errors.SyntaxError, "throttle_query"),
        ("true", psycopg.errors.SyntaxError, "must be one query"),
        ("SELECT true) OR (SELECT false", psycopg.errors.SyntaxError, "must be one query"),
        ("SELECT a FROM nowhere", psycopg.errors.UndefinedTable, "nowhere"),
        ("DELETE FROM t", psycopg.errors.SyntaxError, "syntax error"),
        ("SELECT rolpassword IS NULL FROM pg_authid", psycopg.errors.InsufficientPrivilege, "pg_authid"),
    ],
)
def test_a_query_that_cannot_be_one(table: Database, query: str, error: type[psycopg.Error], words: str) -> None:
    """Is refused at once, with nothing left behind, by start and by alter."""
    table.sql("DROP ROLE IF EXISTS someone")
    table.sql("CREATE ROLE someone LOGIN; ALTER TABLE t OWNER TO someone")
    with pytest.raises(error, match=words) as refused:
        start(table, "t", "n = n + 1", user="someone", options={"throttle_query": query})
    assert refused.value.diag.message_hint
    assert table.sql("SELECT * FROM backfill.progress") == []
    job = start(table, "t", "n = n + 1", user="someone", sleep_ms=60_000)
    with pytest.raises(error, match=words):
        table.sql(
            "SELECT backfill.alter(%s, options => jsonb_build_object('throttle_query', %s::text))",
            [job, query],
            user="someone",
        )
    table.sql("SELECT backfill.cancel(%s)", [job])
    wait_for_state(table, job, "cancelled")
    table.sql("ALTER TABLE t OWNER TO postgres; DROP OWNED BY someone")


# Half a day from now, and around now, in a time zone that is far from the server's.
CLOSED, OPEN = (
    f"SELECT to_char(now() AT TIME ZONE %s + interval '{a} h', 'HH24:MI-')"
    f" || to_char(now() AT TIME ZONE %s + interval '{b} h', 'HH24:MI')"
    for a, b in ((11, 13), (-1, 1))
)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/St_Johns"])
def test_hours_to_run_in(table: Database, zone: str) -> None:
    """By the clock of another time zone."""
    closed, window = (f"{table.value(sql, [zone, zone])} {zone}" for sql in (CLOSED, OPEN))
    job = start(table, "t", "n = n + 1", options={"run_window": closed})
    throttled(table, job, f"run_window: opens at {closed[:5]} {zone}")
    stands_still(table, job)
    table.sql("SELECT backfill.alter(%s, options => jsonb_build_object('run_window', %s::text))", [job, window])
    complete(table, job)
    assert counts(table) == [(1, ROWS)]


def test_hours_of_the_session_that_defined_it(table: Database) -> None:
    """Without a time zone, its own."""
    window = table.value(CLOSED, ["Asia/Tokyo", "Asia/Tokyo"])
    job = start(table, "t", "n = n + 1", session="SET TimeZone = 'Asia/Tokyo'", options={"run_window": window})
    throttled(table, job, "run_window: opens at")
    window = table.value(OPEN, ["Asia/Tokyo", "Asia/Tokyo"])
    table.sql("SELECT backfill.alter(%s, options => jsonb_build_object('run_window', %s::text))", [job, window])
    complete(table, job)


@pytest.mark.parametrize("window", ["22:00-06:00 Mars/Base", "22-6", "", 22])
def test_hours_that_there_are_not(table: Database, window: object) -> None:
    """Are refused at once."""
    if window == "":
        # No bound.
        complete(table, start(table, "t", "n = n + 1", options={"run_window": window}))
        return
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="run_window") as refused:
        start(table, "t", "n = n + 1", options={"run_window": window})
    assert refused.value.diag.message_hint


def test_a_default_that_makes_no_sense(new_cluster: New) -> None:
    """Makes jobs wait and say so, until it is mended."""
    cluster = new_cluster(conf={"backfill.run_window": "at night"})
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, ROWS)
    job = start(cluster, "t", "n = n + 1")
    throttled(cluster, job, 'the setting backfill.run_window cannot be read: "at night"')
    cluster.set(**{"backfill.run_window": ""})
    cluster.reload()
    complete(cluster, job)
