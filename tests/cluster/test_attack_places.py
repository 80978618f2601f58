"""Every place of a table where its owner's code can stand: it runs as the job's owner, and gains nothing."""

from __future__ import annotations

import psycopg
import pytest
from harness import Database, wait_until
from harness.hostile import Scene
from harness.jobs import complete, fail, start

# What the owner adds to hostile.t, the SET clause of the job, the places that his code then speaks from.
PLACES = {
    "column default": (
        "ALTER TABLE hostile.t ALTER n SET DEFAULT hostile.step('default')",
        "n = DEFAULT",
        ["default"],
    ),
    "check constraint": (
        "ALTER TABLE hostile.t ADD CHECK (hostile.step('check') > 0)",
        "n = n + 1",
        ["check"],
    ),
    "generated column": (
        """CREATE FUNCTION hostile.generated(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
               $$ BEGIN PERFORM hostile.attack('generated'); RETURN $1; END $$;
           ALTER TABLE hostile.t ADD g int GENERATED ALWAYS AS (hostile.generated(n)) STORED""",
        "n = n + 1",
        ["generated"],
    ),
    "index": (
        """CREATE FUNCTION hostile.indexed(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
               $$ BEGIN PERFORM hostile.attack('index expression'); RETURN $1; END $$;
           CREATE FUNCTION hostile.chosen(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
               $$ BEGIN PERFORM hostile.attack('index predicate'); RETURN true; END $$;
           CREATE INDEX ON hostile.t (hostile.indexed(n)) WHERE hostile.chosen(n)""",
        "n = n + 1",
        ["index expression", "index predicate"],
    ),
    "domain": (
        """CREATE FUNCTION hostile.valid(int) RETURNS boolean LANGUAGE plpgsql AS
               $$ BEGIN PERFORM hostile.attack('domain of a column'); RETURN true; END $$;
           CREATE DOMAIN hostile.number AS int CHECK (hostile.valid(value));
           ALTER TABLE hostile.t ALTER n TYPE hostile.number""",
        "n = n + 1",
        ["domain of a column"],
    ),
    "cast and operator": (
        """CREATE TYPE hostile.pair AS (a int, b int);
           CREATE FUNCTION hostile.to_int(hostile.pair) RETURNS int LANGUAGE plpgsql AS
               $$ BEGIN PERFORM hostile.attack('cast'); RETURN $1.a; END $$;
           CREATE CAST (hostile.pair AS int) WITH FUNCTION hostile.to_int(hostile.pair) AS ASSIGNMENT;
           CREATE FUNCTION hostile.plus(int, int) RETURNS hostile.pair LANGUAGE plpgsql AS
               $$ BEGIN PERFORM hostile.attack('operator'); RETURN ROW($1 + 1, 0); END $$;
           CREATE OPERATOR hostile.|@| (LEFTARG = int, RIGHTARG = int, FUNCTION = hostile.plus)""",
        "n = n OPERATOR(hostile.|@|) 1",
        ["cast", "operator"],
    ),
    "statement trigger before": (
        """CREATE TRIGGER a0 BEFORE UPDATE ON hostile.t FOR EACH STATEMENT
               EXECUTE FUNCTION hostile.fire('before statement');
           CREATE TRIGGER z AFTER UPDATE ON hostile.t FOR EACH ROW EXECUTE FUNCTION hostile.fire('after row')""",
        "n = n + 1",
        ["before statement", "after row"],
    ),
}
STEP = """
    CREATE FUNCTION hostile.step(place text) RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN PERFORM hostile.attack(place); RETURN 1; END $$;
    DROP TRIGGER a ON hostile.t; DROP TRIGGER b ON hostile.t; DROP TRIGGER c ON hostile.t; DROP TRIGGER d ON hostile.t
"""


@pytest.mark.parametrize("place", PLACES)
def test_code_in_the_table_itself(scene: Scene, place: str) -> None:
    """It runs with the owner's rights in each row that a batch changes, from whichever place."""
    ddl, set_clause, speakers = PLACES[place]
    scene.add(f"{STEP}; {ddl}")
    complete(scene.db, scene.run(set_clause))
    scene.assert_harmless(*speakers)
    assert scene.db.value("SELECT count(*) FROM hostile.t WHERE n = 1") == 30


def test_code_in_an_index_while_the_job_vacuums_and_analyzes(scene: Scene) -> None:
    """After the last batch, too: run as the table's owner, also where a superuser's job does it."""
    db = scene.db
    scene.add(f"""
        {STEP};
        CREATE FUNCTION hostile.seen(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN PERFORM hostile.attack('index expression'); RETURN $1; END $$;
        CREATE INDEX ON hostile.t (hostile.seen(id::int))
    """)
    # A superuser's job; HOT updates, so that the batches themselves have no index entries to make.
    job = start(db, "hostile.t", "n = n + 1")
    complete(db, job)
    last = "SELECT who FROM hostile.log ORDER BY ctid DESC LIMIT 1"
    assert db.value("SELECT count(*) FROM hostile.log") > 0
    assert db.value(last) == scene.owner, "ANALYZE ran the owner's code as somebody else"


def test_code_in_a_policy_is_not_run_at_all(scene: Scene) -> None:
    """A policy that applies is an error before it is looked at, at the call and in a batch."""
    scene.add("""
        CREATE FUNCTION hostile.visible(int) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
            $$ BEGIN PERFORM hostile.attack('policy'); RETURN true; END $$;
        ALTER TABLE hostile.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY p ON hostile.t USING (hostile.visible(n))
    """)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"policies of table hostile\.t apply to you"):
        scene.run()
    # A superuser is exempt: his own job sees all rows, by no policy.
    complete(scene.db, start(scene.db, "hostile.t", "n = 7", session="ALTER TABLE hostile.t DISABLE TRIGGER ALL"))
    assert scene.db.value("SELECT count(*) FROM hostile.t WHERE n = 7") == 30
    assert scene.db.sql("SELECT place FROM hostile.log") == []


# What the owner's code may do, and what it comes to


def simple(db: Database, body: str, when: str = "BEFORE UPDATE") -> str:
    """A table of mallory's with one row trigger; gives the table's name."""
    db.sql("DO $$ BEGIN CREATE ROLE mallory LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    db.sql("GRANT CREATE ON SCHEMA public TO mallory")
    db.sql(
        f"""
        CREATE TABLE public.own (id int PRIMARY KEY, n int DEFAULT 0);
        INSERT INTO own SELECT generate_series(1, 30);
        CREATE FUNCTION public.act() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN {body} RETURN NEW; END $f$;
        CREATE TRIGGER act {when} ON own FOR EACH ROW EXECUTE FUNCTION act()
        """,
        user="mallory",
    )
    return "public.own"


def test_temporary_objects_named_like_ours(db: Database) -> None:
    """Temporary tables and types come before everything else, and shadow nothing of the extension's."""
    table = simple(
        db,
        """
        IF to_regclass('pg_temp.checkpoint') IS NULL THEN
            CREATE TEMP TABLE job (LIKE own); CREATE TEMP TABLE checkpoint (LIKE own); CREATE TEMP TABLE slice (id int);
            CREATE TEMP TABLE progress (id int); CREATE TEMP TABLE pg_class (oid oid); CREATE TEMP TABLE own (id int);
            CREATE DOMAIN pg_temp.oid AS pg_catalog.int4; CREATE DOMAIN pg_temp.text AS pg_catalog.int4;
            CREATE DOMAIN pg_temp.int8 AS pg_catalog.bool; CREATE DOMAIN pg_temp.bool AS pg_catalog.text;
            CREATE FUNCTION pg_temp.now() RETURNS int LANGUAGE sql AS 'SELECT 1/0';
            SET search_path = pg_temp, public, pg_catalog;
        END IF;
        """,
    )
    job = start(db, table, "n = n + 1", batch=5, user="mallory")
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM public.own GROUP BY n") == [(1, 30)]


def test_an_error_that_is_swallowed_undoes_no_checkpoint(db: Database) -> None:
    """A deferred trigger comes after the checkpoint: it can neither change nor lose it, whatever it catches."""
    attempts = " ".join(
        f"BEGIN {attack}; EXCEPTION WHEN OTHERS THEN NULL; END;"
        for attack in (
            "DELETE FROM backfill_internal.checkpoint",
            "RAISE SQLSTATE '40001'",
            "PERFORM 1/0",
            "EXECUTE 'ROLLBACK'",
        )
    )
    table = simple(db, attempts)
    db.sql(
        """
        DROP TRIGGER act ON own;
        CREATE CONSTRAINT TRIGGER act AFTER UPDATE ON own DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION act()
        """,
        user="mallory",
    )
    complete(db, start(db, table, "n = n + 1", batch=3, user="mallory"))
    assert db.sql("SELECT n, count(*) FROM own GROUP BY n") == [(1, 30)]


def test_a_trigger_that_will_not_be_cancelled_can_be_terminated(db: Database) -> None:
    """Code that catches query_canceled defies a cancel; not pg_terminate_backend. The wish to cancel stays."""
    table = simple(
        db,
        """LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;
           END LOOP;""",
    )
    job = start(db, table, "n = n + 1", user="mallory")
    pid = db.worker_pid(job)
    sleeps = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %s"
    wait_until(lambda: db.value(sleeps, [pid]), 30, "the trigger to sleep")
    db.sql(f"SELECT backfill.cancel({job}, true)", user="mallory")
    assert db.value("SELECT pg_terminate_backend(%s, 20000)", [pid], user="mallory")
    state = "SELECT state FROM backfill.progress WHERE job_id = %s"
    wait_until(lambda: db.value(state, [job]) == "cancelled", 30, "the job to be cancelled")
    assert db.sql("SELECT n, count(*) FROM own GROUP BY n") == [(0, 30)]


@pytest.mark.parametrize("call", ["pause", "cancel", "alter"])
def test_a_trigger_that_controls_its_own_job(db: Database, call: str) -> None:
    """It is the owner's right, takes effect with the commit, and blocks nobody."""
    act = {"pause": "pause(1)", "cancel": "cancel(1, true)", "alter": "alter(1, batch_size => 6)"}[call]
    table = simple(db, f"IF NEW.id = 12 THEN PERFORM backfill.{act}; END IF;")
    job = start(db, table, "n = n + 1", batch=5, options={"strategy": "sequential"}, user="mallory")
    assert job == 1
    state = "SELECT state FROM backfill.progress WHERE job_id = 1"
    end = {"pause": "paused", "cancel": "cancelled", "alter": "completed"}[call]
    wait_until(lambda: db.value(state) == end, 60, f"the job to be {end}")
    # Its own batch of 11 to 15 is whole, and the last; unless it is to go on.
    done = db.value("SELECT count(*) FROM own WHERE n = 1")
    assert (done, db.value("SELECT count(*) FROM own WHERE n > 1")) == (30 if call == "alter" else 15, 0)


def test_a_trigger_that_starts_jobs(db: Database) -> None:
    """Jobs of the owner's own, started with the commit of the batch; never more than the server allows."""
    table = simple(
        db,
        """IF NEW.id = 7 THEN PERFORM backfill.start('own2', set_clause => 'n = n + 1', name => 'second'); END IF;""",
    )
    db.sql("CREATE TABLE own2 (id int PRIMARY KEY, n int); INSERT INTO own2 VALUES (1, 0)", user="mallory")
    complete(db, start(db, table, "n = n + 1", user="mallory"))
    state = "SELECT state FROM backfill.progress WHERE name = 'second'"
    wait_until(lambda: db.value(state) == "completed", 60, "the second job to complete")
    assert db.sql("SELECT owner::text, workers FROM backfill.progress") == [("mallory", 0)] * 2
    assert db.value("SELECT n FROM own2") == 1


def test_notifications_go_out_with_the_commit(db: Database) -> None:
    """NOTIFY is anybody's right; it arrives once for each committed batch."""
    table = simple(db, "PERFORM pg_notify('rows', NEW.id::text);")
    listener = db.connect("mallory")
    listener.execute("LISTEN rows")
    complete(db, start(db, table, "n = n + 1", batch=7, user="mallory"))
    payloads = [int(note.payload) for note in listener.notifies(timeout=30, stop_after=30)]
    assert sorted(payloads) == [*range(1, 31)]


def test_listening_is_for_clients(db: Database) -> None:
    """A worker has nobody to pass notifications on to, and would keep the server from forgetting them."""
    table = simple(db, "EXECUTE 'LISTEN rows';")
    error = fail(db, start(db, table, "n = n + 1", user="mallory"))
    assert "cannot execute LISTEN within a background process" in error


def test_a_loop_back_through_dblink_takes_a_password(db: Database) -> None:
    """A connection that the server itself opens would be let in as anybody: dblink wants a password of him."""
    if not db.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'"):
        pytest.skip("this server has no contrib")
    db.sql("CREATE EXTENSION dblink SCHEMA public")
    where = f"host={db.cluster.folder} port={db.cluster.port} dbname={db.name}"
    table = simple(db, f"PERFORM dblink_exec('{where} user=postgres', 'ALTER ROLE mallory SUPERUSER');")
    error = fail(db, start(db, table, "n = n + 1", user="mallory"))
    assert "password" in error and "(SQLSTATE 2F003)" in error, error
    assert not db.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'")
