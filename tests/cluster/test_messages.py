"""What is said reaches clients and databases of other encodings, and says no more than it should."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from harness import Cluster, Database
from harness.jobs import complete, fail, start, start_count, wait_for, wait_for_nap_between_batches, wait_for_state
from harness.tables import make_table

MINUTE = 60_000


@pytest.fixture
def latin1(shared_cluster: Cluster) -> Iterator[Database]:
    """A database in LATIN1, with the extension; its clients speak UTF-8."""
    shared_cluster.sql("CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    database = shared_cluster.database("latin1")
    database.sql("CREATE EXTENSION backfill")
    yield database
    shared_cluster.close_connections()
    shared_cluster.sql("DROP DATABASE latin1 WITH (FORCE)")


def test_a_warning_reaches_a_latin1_client(db: Database) -> None:
    """Its hint has no character that this client's encoding lacks."""
    db.sql("CREATE UNLOGGED TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1)")
    notices: list[str] = []
    connection = db.connect(client_encoding="latin1")
    connection.add_notice_handler(lambda diag: notices.append(f"{diag.message_primary} {diag.message_hint}"))
    row = connection.execute("SELECT backfill.start('t', set_clause => 'n = 1')").fetchone()
    assert row and len(notices) == 1 and "unlogged" in notices[0]
    complete(db, row[0])


def test_umlauts_in_a_latin1_database(latin1: Database) -> None:
    """In the names of table, columns and index, in clauses, options, the job's name and an error."""
    latin1.sql("""
        CREATE TABLE "prüf" (nr int, "schlüssel" text NOT NULL, "größe" text);
        INSERT INTO "prüf" SELECT g, 'ä' || g FROM generate_series(1, 500) g;
        CREATE UNIQUE INDEX "prüfung" ON "prüf" ("schlüssel");
        CREATE UNIQUE INDEX anderer ON "prüf" ("schlüssel", nr)
    """)
    job = start(
        latin1,
        '"prüf"',
        "\"größe\" = 'Öl' || current_setting('app.wert')",
        where="\"schlüssel\" <> 'äöü'",
        name="Übung",
        batch=100,
        options={"key": "prüfung", "settings": {"app.wert": "ß"}},
    )
    row = complete(latin1, job)
    assert (row["name"], row["rows_done"]) == ("Übung", 500)
    assert latin1.sql('SELECT "größe", count(*) FROM "prüf" GROUP BY 1') == [("Ölß", 500)]
    latin1.sql("""
        CREATE FUNCTION "prüfe"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'zu groß'; END $$;
        CREATE TRIGGER "prüfe" BEFORE UPDATE ON "prüf" FOR EACH ROW EXECUTE FUNCTION "prüfe"()
    """)
    assert "zu groß" in fail(latin1, start(latin1, '"prüf"', "\"größe\" = ''"), timeout=15)


@pytest.mark.parametrize(
    "options",
    [
        '{"scan_limit": 1e400}',
        "[" * 300 + "]" * 300,
        '{"settings": {"a.b": 1e400}}',
        '{"key": %s}' % ("[" * 300 + "]" * 300),
    ],
    ids=["number", "array", "number in settings", "array in key"],
)
def test_options_that_cannot_be_read_are_refused_in_our_words(db: Database, options: str) -> None:
    """As any other wrong argument: no internal error, and nothing of the program's stack."""
    make_table(db, 10)
    with pytest.raises(psycopg.Error) as caught:
        db.sql("SELECT backfill.start('t', set_clause => 'n = 1', options => %s)", [options])
    diag = caught.value.diag
    assert caught.value.sqlstate == "22023", caught.value
    told = f"{diag.message_primary} {diag.message_detail} {diag.message_hint}"
    assert "option" in told and ".rs" not in told and "backtrace" not in told.lower(), told


def test_events_do_not_tell_the_values_of_settings(db: Database) -> None:
    """They may be secrets, and pg_monitor sees the events."""
    make_table(db, 500)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=MINUTE, options={"settings": {"app.key": "old-secret"}})
    wait_for_nap_between_batches(db, job)
    db.sql("""SELECT backfill.alter(%s, options => '{"settings": {"app.key": "s3cret"}}')""", [job])
    rows = db.sql("SELECT event, old, new FROM backfill.events WHERE job_id = %s", [job])
    altered = [row for row in rows if row[0] == "alter settings"]
    assert len(altered) == 1 and "app.key" in altered[0][2]
    assert "s3cret" not in str(rows) and "old-secret" not in str(rows)


def test_a_commit_without_a_free_process_cannot_fail(new_cluster: Callable[..., Cluster]) -> None:
    """The client could not even be told of the procedure that commits: that must not end in a PANIC."""
    cluster = new_cluster(preload=False, conf={"max_worker_processes": 2})
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, 300, "a")
    make_table(cluster, 300, "b")
    # The server's own logical replication launcher has the other place.
    napping = start_count(cluster, "a", sleep_ms=MINUTE)
    wait_for_nap_between_batches(cluster, napping)
    cluster.sql("""
        CREATE PROCEDURE "дом"() LANGUAGE plpgsql AS
            $$ BEGIN PERFORM backfill.start('b', set_clause => 'n = n + 1'); COMMIT; END $$;
        CREATE PROCEDURE wrapper() LANGUAGE plpgsql AS $$ BEGIN CALL "дом"(); END $$
    """)
    witness = cluster.connect()
    with cluster.connect(client_encoding="latin1") as client:
        client.execute("CALL wrapper()")
    assert witness.execute("SELECT count(*) FROM backfill.progress").fetchone() == (2,)
    log = cluster.log.read_text(errors="replace")
    assert "PANIC" not in log and "no background worker slot is free" in log
    cluster.sql("SELECT backfill.cancel(%s)", [napping])
    wait_for_state(cluster, napping + 1, "completed")


def test_an_sqlstate_of_ones_own_is_caught_also_when_raised_in_planning(db: Database) -> None:
    """A function that is run while a trigger's statement is planned: its handler catches what it names."""
    make_table(db, 10)
    db.sql("""
        ALTER TABLE t ADD note text;
        CREATE FUNCTION own_error(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'custom' USING ERRCODE = 'AB001'; END $$;
        CREATE FUNCTION catch() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE x int; state text; told text; BEGIN
                BEGIN
                    x := (SELECT own_error(1) FROM pg_class LIMIT 1);
                EXCEPTION WHEN SQLSTATE 'AB001' THEN
                    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, told = PG_EXCEPTION_DETAIL;
                    new.note := 'caught ' || state || told;
                END;
                RETURN new; END $$;
        CREATE TRIGGER catch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION catch()
    """)
    complete(db, start(db, "t", "n = n + 1"))
    assert db.sql("SELECT note, count(*) FROM t GROUP BY note") == [("caught AB001", 10)]


def test_an_sqlstate_of_ones_own_is_recorded(db: Database) -> None:
    """The same error, caught by nobody."""
    make_table(db, 10)
    db.sql("""
        CREATE FUNCTION own_error(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'custom' USING ERRCODE = 'AB001'; END $$;
        CREATE FUNCTION fall() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN new.n := (SELECT own_error(1) FROM pg_class LIMIT 1); RETURN new; END $$;
        CREATE TRIGGER fall BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION fall()
    """)
    error = fail(db, start(db, "t", "n = n + 1"))
    assert "custom" in error and "AB001" in error and ".rs" not in error, error


def test_an_error_raised_again_is_recorded_as_what_it_was(db: Database) -> None:
    """Not as the one that its handler met meanwhile."""
    make_table(db, 10)
    db.sql("""
        CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM 1 / (old.id - old.id);
            RETURN new;
        EXCEPTION WHEN OTHERS THEN
            BEGIN PERFORM 'x'::text::int; EXCEPTION WHEN OTHERS THEN NULL; END;
            RAISE;
        END $$;
        CREATE TRIGGER again BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION again()
    """)
    job = start(db, "t", "n = n + 1")
    error = fail(db, job)
    assert "22012" in error and "division by zero" in error and "22P02" not in error, error
    db.sql(f"DROP TRIGGER again ON t; SELECT backfill.resume({job})")
    wait_for(db, job, "completed")
