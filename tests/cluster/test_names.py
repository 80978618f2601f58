"""Odd names, and the session that a job was defined in: what a clause means doesn't change on its way to a batch."""

from __future__ import annotations

import pytest
from harness import Database, wait_until
from harness.jobs import complete, fail, progress, start, wait_for

NAMES = [
    'Weird "Name"',
    "o'clock",
    "select",
    "UPPER lower",
    "größe 日本 🙂",
    " leading and trailing ",
    "a.b",
    "$1",
    "%s {} \\",
    "--",
    "/* no comment */",
    "a;b",
    "now",
    "n" * 63,
]


def ident(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("name", NAMES)
def test_any_name_for_schema_table_and_columns(db: Database, name: str) -> None:
    """Schema, table, key, index and the columns of the clauses, all named alike."""
    q = ident(name)
    n, m = ident(name[:62] + "2"), ident(name[:62] + "3")
    db.sql(f"""
        CREATE SCHEMA {q};
        CREATE TABLE {q}.{q} ({q} int, {n} int DEFAULT 0, {m} int, 
            CONSTRAINT {ident(name[:62] + "4")} PRIMARY KEY ({q}));
        INSERT INTO {q}.{q} SELECT g, 0, g FROM generate_series(1, 2000) g
    """)
    table = f"{q}.{q}"
    row = complete(db, start(db, table, f"{n} = {table}.{n} + {m}", where=f"{q} % 2 = 0", name=name))
    assert (row["name"], row["rows_updated"]) == (name, 1000)
    complete(db, start(db, table, f"{n} = {q}.{n} + {m}", options={"key": name[:62] + "4"}))
    assert db.value(f"SELECT sum({n}) FROM {table}") == sum(range(1, 2001)) + sum(range(2, 2001, 2))


@pytest.mark.parametrize("where", [None, '"s" + "c" + "hit" + "walk" = "k1" * 4'])
def test_columns_called_like_the_parts_of_the_statements(db: Database, where: str | None) -> None:
    """Names that the batch's own statements use too."""
    db.sql("""
        CREATE TABLE s (k1 int, k2 int, scanned int, matched int, hit int, s int, c int, walk int,
            PRIMARY KEY (k1, k2));
        INSERT INTO s SELECT g, g, 0, 0, g, g, g, g FROM generate_series(1, 2000) g;
        CREATE VIEW c AS SELECT 1 AS k1
    """)
    complete(db, start(db, "s", "scanned = scanned + k1 + s.s, matched = matched + 1", where=where))
    assert db.value("SELECT count(*) FROM s WHERE scanned = 2 * k1 AND matched = 1") == 2000


def test_a_table_called_like_a_function(db: Database) -> None:
    """`count` the table beside `count` the function, `row_number` and `now` as columns."""
    db.sql("""
        CREATE TABLE count (row_number int PRIMARY KEY, now int DEFAULT 0);
        INSERT INTO count SELECT generate_series(1, 2000)
    """)
    complete(db, start(db, "count", "now = now + (SELECT count(*) FROM generate_series(1, 3))", where="row_number > 0"))
    assert db.sql("SELECT now, count(*) FROM count GROUP BY now") == [(3, 2000)]


FUNCTION = """
    CREATE SCHEMA app; CREATE SCHEMA evil;
    CREATE FUNCTION app.price(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2';
    CREATE FUNCTION evil.price(int) RETURNS int LANGUAGE sql AS 'SELECT -1';
    CREATE TABLE public.t (id int PRIMARY KEY, n int DEFAULT 0);
    INSERT INTO public.t SELECT generate_series(1, 3000)
"""


def test_the_search_path_of_the_definer_holds(db: Database) -> None:
    """A function named without its schema stays what it was, after a restart of the job by somebody else too."""
    db.sql(FUNCTION)
    job = start(db, "public.t", "n = n + price(id)", batch=100, sleep_ms=20, session="SET search_path = app, public")
    wait_for(db, job, "running")
    db.sql(f"SET search_path = evil; SELECT backfill.pause({job})")
    wait_for(db, job, "paused")
    db.sql(f"SET search_path = evil; SELECT backfill.resume({job})")
    db.terminate_worker(job)
    db.sql(f"SET search_path = evil; SELECT backfill.alter({job}, sleep_ms => 0); SELECT backfill.resume({job})")
    complete(db, job)
    assert db.value("SELECT count(*) FROM t WHERE n = id * 2") == 3000


def test_a_stored_definition_keeps_its_session(db: Database) -> None:
    """`start` by another session runs the definition as its definer meant it: search_path, TimeZone, DateStyle."""
    db.sql(FUNCTION)
    db.sql("ALTER TABLE t ADD at timestamptz, ADD shown text")
    db.sql("""
        SET search_path = app, public; SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'SQL, DMY';
        SET IntervalStyle = iso_8601;
        SELECT backfill.define('t',
            'n = n + price(id), at = ''02/03/2024 10:00''::timestamptz,
             shown = now()::date::text || interval ''90 min''')
    """)
    job = db.value("""
        SET search_path = evil; SET TimeZone = 'America/New_York'; SET DateStyle = 'ISO, MDY';
        SELECT backfill.start('public.t', 500)
    """)
    complete(db, job)
    wanted = "SELECT count(*) FROM t WHERE n = id * 2 AND at = '2024-03-02 04:15Z' AND shown ~ '^../../....PT1H30M$'"
    assert db.value(wanted) == 3000


def test_settings_of_the_options_are_seen_by_triggers(db: Database) -> None:
    """`app.user`, as audit triggers read it, in every batch; changed by `alter` too."""
    db.sql("""
        CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, who text);
        INSERT INTO t SELECT generate_series(1, 3000);
        CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.who := current_setting('app.user'); RETURN NEW; END $$;
        CREATE TRIGGER stamp BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp()
    """)
    name = 'o\'backfill "x" 日本'
    complete(db, start(db, "t", "n = n + 1", options={"settings": {"app.user": name}}))
    assert db.sql("SELECT who, n, count(*) FROM t GROUP BY who, n") == [(name, 1, 3000)]

    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=20, options={"settings": {"app.user": "one"}})
    db.sql("""SELECT backfill.alter(%s, sleep_ms => 0, options => '{"settings": {"app.user": "two"}}')""", [job])
    complete(db, job)
    assert db.value("SELECT who FROM t ORDER BY id DESC LIMIT 1") == "two"
    assert db.value("SELECT count(*) FROM t WHERE n = 2") == 3000


LEAKS = {
    "search_path": "SET search_path = evil, pg_temp",
    "DateStyle": "SET DateStyle = 'SQL, MDY'",
    "IntervalStyle": "SET IntervalStyle = 'sql_standard'",
    "TimeZone": "SET TimeZone = 'Asia/Kathmandu'",
    "extra_float_digits": "SET extra_float_digits = -15",
    "bytea_output": "SET bytea_output = escape",
    "isolation": "SET default_transaction_isolation = serializable",
    "session characteristics": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, DEFERRABLE",
    "read only": "SET default_transaction_read_only = on",
    "statement_timeout": "SET statement_timeout = 1",
    "lock_timeout": "SET lock_timeout = 1",
    "idle timeout": "SET idle_in_transaction_session_timeout = 1",
    "row_security": "SET row_security = on",
    "replication role": "SET session_replication_role = replica",
    "plans": "SET enable_indexscan = off; SET enable_bitmapscan = off; DISCARD PLANS; DEALLOCATE ALL",
    "string constants": "SET standard_conforming_strings = off; SET backslash_quote = on",
    "role": "SET ROLE nobody",
    "session authorization": "SET SESSION AUTHORIZATION nobody",
    "encoding": "SET client_encoding = latin1",
    "locks": "PERFORM pg_advisory_unlock_all()",
    "all of it": "RESET ALL",
}


@pytest.mark.parametrize("leak", LEAKS)
def test_what_a_trigger_sets_does_not_outlive_its_batch(db: Database, leak: str) -> None:
    """A BEFORE trigger's SET neither breaks keys nor changes what later batches do."""
    db.sql("""
        DO $$ BEGIN CREATE ROLE nobody; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        CREATE SCHEMA app; CREATE SCHEMA evil; GRANT USAGE ON SCHEMA app TO nobody;
        CREATE FUNCTION app.plus(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1';
        CREATE FUNCTION evil.plus(int) RETURNS int LANGUAGE sql AS 'SELECT -1';
        CREATE TABLE t (at timestamptz, span interval, f float8, b bytea, w text, n int DEFAULT 0,
            seen text, PRIMARY KEY (at, span, f, b, w));
        INSERT INTO t SELECT timestamptz '2024-10-26 22:00Z' + g * interval '1.000001 min', g * interval '1.5 h',
            g / 7.0, sha256(g::text::bytea), '\\''ä' || g FROM generate_series(1, 1500) g;
    """)
    db.sql(
        f"""CREATE FUNCTION leak() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {LEAKS[leak]}; RETURN NEW; END $$;
        -- The first to fire: it shows what the batch was begun with.
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
            NEW.seen := concat_ws(' ', current_user, session_user,
                current_setting('TimeZone'), current_setting('DateStyle'),
                current_setting('transaction_isolation'), current_setting('transaction_read_only'),
                current_setting('transaction_deferrable'), current_setting('statement_timeout'),
                current_setting('lock_timeout'), current_setting('row_security'),
                current_setting('session_replication_role'), current_setting('standard_conforming_strings'),
                current_setting('bytea_output'), current_setting('app.user')); RETURN NEW; END $$;
        CREATE TRIGGER a_look BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION look();
        CREATE TRIGGER b_leak AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION leak()"""
    )
    session = "SET search_path = app, public; SET TimeZone = 'Europe/Berlin'; SET DateStyle = 'SQL, DMY'"
    options = {"settings": {"app.user": "me"}}
    complete(db, start(db, "public.t", "n = plus(n)", batch=100, session=session, options=options))
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 1500)]
    wanted = "postgres postgres Europe/Berlin SQL, DMY read committed off off 0 500ms off origin on hex me"
    assert db.sql("SELECT seen, count(*) FROM t GROUP BY seen") == [(wanted, 1500)]


def test_only_the_named_table_of_an_inheritance_tree(db: Database) -> None:
    """A parent is walked without its children if that is wanted, a child without its parent always."""
    db.sql("""
        CREATE TABLE parent (id int PRIMARY KEY, n int DEFAULT 0);
        CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
        INSERT INTO parent SELECT generate_series(1, 2000); INSERT INTO child SELECT generate_series(1, 3000)
    """)
    row = complete(db, start(db, "parent", "n = n + 1", where="n = 0", options={"only": True}))
    assert (row["rows_done"], row["rows_updated"]) == (2000, 2000)
    complete(db, start(db, "parent", "n = n + 1", options={"only": True}))
    assert db.sql("SELECT n, count(*) FROM ONLY parent GROUP BY n") == [(2, 2000)]
    assert db.sql("SELECT n, count(*) FROM child GROUP BY n") == [(0, 3000)]
    complete(db, start(db, "child", "n = n + 1"))
    assert db.sql("SELECT n, count(*) FROM child GROUP BY n") == [(1, 3000)]


# DDL during a run


@pytest.fixture
def slow(db: Database) -> int:
    """A job in the middle of its table `t`, which takes a while longer."""
    db.sql("""
        CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0, old text DEFAULT 'x');
        INSERT INTO t SELECT generate_series(1, 2000)
    """)
    job = start(db, "t", "n = t.n + 1", batch=20, sleep_ms=20)
    in_the_middle(db, job)
    return job


def in_the_middle(db: Database, job: int) -> None:
    """Waits until the job has done some more batches."""
    done = progress(db, job)["rows_done"]
    wait_until(lambda: progress(db, job)["rows_done"] > done + 40, 30, "some batches")


DDL = {
    "column added": "ALTER TABLE t ADD extra int DEFAULT 7",
    "column dropped": "ALTER TABLE t DROP old",
    "column's type changed": "ALTER TABLE t ALTER n TYPE bigint",
    "table rewritten": "ALTER TABLE t ALTER old TYPE varchar(7), ADD more uuid DEFAULT gen_random_uuid()",
    "key's type changed": "ALTER TABLE t ALTER id TYPE bigint",
    "key made again": "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD CONSTRAINT other PRIMARY KEY (id)",
    "key index made again": "CREATE UNIQUE INDEX later ON t (id); ALTER TABLE t DROP CONSTRAINT t_pkey",
    "reindexed": "REINDEX TABLE t",
    "clustered": "CLUSTER t USING t_pkey",
    "trigger created": """CREATE FUNCTION same() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER same BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION same()""",
    "analysed": "ANALYZE t",
}


@pytest.mark.parametrize("ddl", DDL)
def test_ddl_during_a_run(db: Database, slow: int, ddl: str) -> None:
    """The run takes notice and goes on; no row twice."""
    db.sql(DDL[ddl])
    in_the_middle(db, slow)
    db.sql(f"SELECT backfill.alter({slow}, batch_size => 777, sleep_ms => 0)")
    complete(db, slow)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 2000)]


MOVES = {
    "renamed": ("ALTER TABLE t RENAME TO moved", "moved"),
    "other schema": ("CREATE SCHEMA elsewhere; ALTER TABLE t SET SCHEMA elsewhere", "elsewhere.t"),
    "schema renamed": ("CREATE SCHEMA a; ALTER TABLE t SET SCHEMA a; ALTER SCHEMA a RENAME TO b", "b.t"),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_table_that_moves_is_followed_and_its_stand_in_is_not_touched(db: Database, move: str) -> None:
    """The job is about a table, not about a name."""
    ddl, moved = MOVES[move]
    db.sql("""
        CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 2000)
    """)
    job = start(db, "t", "n = n + 1", batch=20, sleep_ms=20)
    in_the_middle(db, job)
    db.sql(
        ddl + "; CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 2000)"
    )
    in_the_middle(db, job)
    assert moved.split(".")[-1] in str(progress(db, job)["relation"])
    db.sql(f"SELECT backfill.alter({job}, batch_size => 777, sleep_ms => 0)")
    complete(db, job)
    assert db.sql(f"SELECT n, count(*) FROM {moved} GROUP BY n") == [(1, 2000)]
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(0, 2000)]


def test_a_table_renamed_under_a_clause_that_names_it_fails_and_goes_on_when_it_is_back(
    db: Database, slow: int
) -> None:
    """A clause that says `t.n` has no meaning once there is no t: a clear failure, no harm."""
    db.sql("ALTER TABLE t RENAME TO moved")
    assert 'missing FROM-clause entry for table "t" (SQLSTATE 42P01)' in fail(db, slow)
    db.sql(f"ALTER TABLE moved RENAME TO t; SELECT backfill.alter({slow}, 777, 0); SELECT backfill.resume({slow})")
    complete(db, slow)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 2000)]


def test_a_dropped_table_fails_its_job(db: Database, slow: int) -> None:
    """The view still shows the job, and what to do."""
    db.sql("DROP TABLE t")
    error = fail(db, slow)
    assert "no longer exists (SQLSTATE 42P01)" in error and "cancel" in error
    assert db.value(f"SELECT backfill.cancel({slow})") == "cancelled"


def test_a_key_that_is_gone_fails_the_job_until_it_is_back(db: Database, slow: int) -> None:
    """Without an index that orders it the walk doesn't go on, by whatever other index there is."""
    db.sql("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD other uuid NOT NULL UNIQUE DEFAULT gen_random_uuid()")
    assert "has no usable unique index on (id) any more" in fail(db, slow)
    db.sql(f"ALTER TABLE t ADD PRIMARY KEY (id); SELECT backfill.alter({slow}, 777, 0); SELECT backfill.resume({slow})")
    complete(db, slow)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 2000)]


def test_a_truncated_table_completes(db: Database, slow: int) -> None:
    """Nothing left is no error."""
    db.sql("TRUNCATE t")
    complete(db, slow)
