"""backfill.set_not_null: a column becomes NOT NULL while the table is in use, step by step, and again without harm."""

from __future__ import annotations

import threading

import psycopg
import pytest
from harness import Database, wait_until

CALL = "CALL backfill.set_not_null({})"
STATEMENTS = "SELECT statement FROM backfill.set_not_null_statements({}) ORDER BY step"


def make(db: Database) -> None:
    """A table with values in its column `v`."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int)")
    db.sql("INSERT INTO t SELECT g, g FROM generate_series(1, 1000) g")


def is_not_null(db: Database, table: str = "t", column: str = "v") -> bool:
    """Whether the column is NOT NULL, and known to be."""
    return db.value(
        "SELECT attnotnull AND NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = attrelid AND NOT convalidated)"
        " FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
        [table, column],
    )


def constraints(db: Database, table: str = "t") -> list[str]:
    """The CHECK constraints of the table, and on NOT NULL of its column `v`."""
    found = db.sql(
        "SELECT conname::text FROM pg_constraint WHERE conrelid = %s::regclass AND (contype = 'c' OR contype = 'n' AND"
        " conkey <> ARRAY[1::smallint]) ORDER BY 1",
        [table],
    )
    return [name for (name,) in found]


def steps(db: Database, arguments: str = "'t', 'v'") -> list[str]:
    """The statements that are left to be run."""
    return [statement for (statement,) in db.sql(STATEMENTS.format(arguments))]


def has_native(db: Database) -> bool:
    """Whether the server itself knows a NOT NULL that is not validated."""
    return db.value("SELECT current_setting('server_version_num')::int >= 180000")


def refused(db: Database, call: str, *, user: str = "postgres") -> psycopg.Error:
    """The error that the call ends with, which has a hint."""
    with psycopg.connect(db.dsn(user), autocommit=True) as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute(call)
    assert caught.value.diag.message_hint
    return caught.value


def test_step_by_step(db: Database) -> None:
    """Each statement stands in a transaction of its own; none reads the table under an ACCESS EXCLUSIVE lock."""
    make(db)
    with psycopg.connect(db.dsn(), autocommit=True) as connection:
        said: list[str] = []
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        wanted = steps(db)
        connection.execute(CALL.format("'t', 'v'"))
        assert said == wanted
        if not has_native(db):
            assert wanted == [
                "ALTER TABLE public.t ADD CONSTRAINT backfill_not_null_v CHECK (v IS NOT NULL) NOT VALID",
                "ALTER TABLE public.t VALIDATE CONSTRAINT backfill_not_null_v",
                "ALTER TABLE public.t ALTER COLUMN v SET NOT NULL",
                "ALTER TABLE public.t DROP CONSTRAINT backfill_not_null_v",
            ]
        else:
            assert wanted == [
                "ALTER TABLE public.t ADD CONSTRAINT t_v_not_null NOT NULL v NOT VALID",
                "ALTER TABLE public.t VALIDATE CONSTRAINT t_v_not_null",
            ]
        said.clear()
        connection.execute(CALL.format("'t', 'v'"))
        assert said == []
    assert is_not_null(db)
    assert constraints(db) == (["t_v_not_null"] if has_native(db) else [])


def test_set_not_null_reads_nothing(db: Database) -> None:
    """PostgreSQL takes the CHECK as the proof: at SET NOT NULL it does not look at the rows."""
    make(db)
    db.sql("ALTER TABLE t ADD CONSTRAINT own CHECK (v IS NOT NULL)")
    [statement] = steps(db)
    assert statement == "ALTER TABLE public.t ALTER COLUMN v SET NOT NULL"
    with psycopg.connect(db.dsn(), autocommit=True) as connection:
        said: list[str] = []
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary))
        connection.execute("SET client_min_messages = debug1")
        connection.execute(statement)
    assert any("sufficient to prove" in line for line in said), said
    assert constraints(db)[0] == "own"


def test_it_goes_on_from_an_earlier_try(db: Database) -> None:
    """After so many of the steps: what is left is done, and nothing is left over."""
    make(db)
    for done in range(len(steps(db))):
        for statement in steps(db)[:done]:
            db.sql(statement)
        db.sql(CALL.format("'t', 'v'"))
        assert is_not_null(db) and steps(db) == []
        assert constraints(db) == (["t_v_not_null"] if has_native(db) else [])
        db.sql("ALTER TABLE t ALTER v DROP NOT NULL")


def test_rows_that_are_null(db: Database) -> None:
    """An error that says so; the constraint, which would hinder updates of these rows, is gone again."""
    make(db)
    db.sql("UPDATE t SET v = NULL WHERE id = 17")
    error = refused(db, CALL.format("'t', 'v'"))
    assert error.sqlstate == "23502" and "rows of it are NULL" in str(error)
    assert "SELECT * FROM public.t WHERE v IS NULL" in error.diag.message_hint
    assert constraints(db) == []
    db.sql("UPDATE t SET id = -17 WHERE id = 17; UPDATE t SET v = 0 WHERE v IS NULL")
    db.sql(CALL.format("'t', 'v'"))
    assert is_not_null(db)


def test_others_go_first(db: Database) -> None:
    """A transaction that holds the table holds it up, not the others; it tries again when that one is gone."""
    make(db)
    with psycopg.connect(db.dsn()) as holder:
        holder.execute("SELECT count(*) FROM t")
        error = refused(db, CALL.format("'t', 'v', lock_timeout_ms => 20, retries => 2"))
        assert error.sqlstate == "55P03" and "3 tries of 20 ms" in str(error)
        assert "take back" not in error.diag.message_hint
        assert constraints(db) == []
        call = threading.Thread(target=db.sql, args=[CALL.format("'t', 'v', lock_timeout_ms => 20")])
        call.start()
        try:
            asleep = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CALL%' AND wait_event_type = 'Extension'"
            wait_until(lambda: db.sql(asleep), 20, "it to wait for the next try")
            db.sql("SET lock_timeout = '10s'; UPDATE t SET v = v + 1 WHERE id = 3")
        finally:
            holder.rollback()
            call.join(60)
    assert is_not_null(db)


def test_several_at_once(db: Database) -> None:
    """Each comes to the same end, whichever of them was faster at each step."""
    make(db)
    errors: list[psycopg.Error] = []

    def call() -> None:
        try:
            db.sql(CALL.format("'t', 'v', lock_timeout_ms => 100"))
        except psycopg.Error as error:
            errors.append(error)

    for _ in range(5):
        with psycopg.connect(db.dsn()) as holder:
            holder.execute("SELECT count(*) FROM t")
            calls = [threading.Thread(target=call) for _ in range(4)]
            for thread in calls:
                thread.start()
            waiting = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND NOT granted"
            wait_until(lambda query=waiting: db.value(query) > 1, 30, "two of them to wait")
        for thread in calls:
            thread.join()
        assert errors == []
        assert is_not_null(db) and steps(db) == []
        db.sql("ALTER TABLE t ALTER v DROP NOT NULL")


def test_a_name_that_is_taken(db: Database) -> None:
    """By a constraint of another kind: it is named, and nothing is done."""
    kinds = ["FOREIGN KEY (v) REFERENCES other", "UNIQUE (v)", "CHECK (v IS NOT NULL) NO INHERIT", "CHECK (v > 0)"]
    make(db)
    db.sql("CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other SELECT id FROM t")
    for kind in kinds:
        db.sql(f"ALTER TABLE t ADD CONSTRAINT backfill_not_null_v {kind}")
        error = refused(db, CALL.format("'t', 'v'"))
        assert error.sqlstate == "42710" and "Rename it" in error.diag.message_hint
        db.sql("ALTER TABLE t DROP CONSTRAINT backfill_not_null_v")


def test_a_proof_that_children_do_not_share(db: Database) -> None:
    """A constraint that is not inherited says nothing of a child's rows, which SET NOT NULL would then read."""
    make(db)
    db.sql("ALTER TABLE t ADD CONSTRAINT own CHECK (v IS NOT NULL) NO INHERIT")
    assert len(steps(db)) == 1
    db.sql("CREATE TABLE child () INHERITS (t); INSERT INTO child VALUES (1, 1)")
    assert any("VALIDATE" in step for step in steps(db))
    db.sql(CALL.format("'t', 'v'"))
    assert is_not_null(db) and is_not_null(db, "child")


def test_a_partition_of_one_that_is_halfway(db: Database) -> None:
    """A call for the parent was cut off: what it left to its partitions is not theirs to drop."""
    db.sql("CREATE TABLE t (id int, v int) PARTITION BY RANGE (id)")
    db.sql("CREATE TABLE part PARTITION OF t FOR VALUES FROM (0) TO (100); INSERT INTO t VALUES (1, NULL), (2, 2)")
    db.sql(steps(db)[0])
    error = refused(db, CALL.format("'part', 'v'"))
    assert error.sqlstate == "23502" and "rows of it are NULL" in str(error)
    db.sql("UPDATE t SET v = 1 WHERE v IS NULL")
    db.sql(CALL.format("'part', 'v'"))
    assert is_not_null(db, "part")
    db.sql(CALL.format("'t', 'v'"))
    assert is_not_null(db) and steps(db) == []


def test_a_script_for_psql(db: Database) -> None:
    """What is generated can be run as it stands."""
    make(db)
    db.psql(STATEMENTS.format("'t', 'v'") + " \\gexec\n")
    assert is_not_null(db) and steps(db) == []


def test_partitioned(db: Database) -> None:
    """The parent and all its partitions."""
    db.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);"
        " CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (500); CREATE TABLE t2 PARTITION OF t DEFAULT;"
        " INSERT INTO t SELECT g, g FROM generate_series(1, 1000) g"
    )
    db.sql(CALL.format("'t1', 'v'"))
    assert is_not_null(db, "t1") and not is_not_null(db, "t")
    db.sql(CALL.format("'t', 'v'"))
    for table in ("t", "t1", "t2"):
        assert is_not_null(db, table)
        assert not [name for name in constraints(db, table) if name.startswith("backfill")]


def test_odd_names(db: Database) -> None:
    """Names that have to be quoted, and such as fill all the bytes that there are."""
    db.sql('CREATE SCHEMA "S s"; CREATE TABLE "S s"."T;t" (id int PRIMARY KEY)')
    for column in ('Or"der', "a" * 63, "\u00e9" * 31, "with space"):
        quoted = column.replace('"', '""')
        db.sql(f'ALTER TABLE "S s"."T;t" ADD "{quoted}" int')
        db.sql('CALL backfill.set_not_null(\'"S s"."T;t"\', %s)', [column])
        assert is_not_null(db, '"S s"."T;t"', column)


@pytest.mark.parametrize("role", ["Bob", "alice@example.com", "some.one", 'Quo"te'])
def test_odd_roles(db: Database, role: str) -> None:
    """The owner, and a superuser, under names that have to be quoted."""
    quoted = '"' + role.replace('"', '""') + '"'
    make(db)
    db.sql("ALTER TABLE t ADD w int NOT NULL DEFAULT 1; ALTER TABLE t ALTER w DROP NOT NULL")
    db.sql(f"CREATE ROLE {quoted} LOGIN; ALTER TABLE t OWNER TO {quoted}")
    try:
        db.sql(CALL.format("'t', 'v'"), user=role)
        db.sql(f"ALTER ROLE {quoted} SUPERUSER")
        db.sql("ALTER TABLE t OWNER TO postgres")
        db.sql(CALL.format("'t', 'w'"), user=role)
        assert is_not_null(db) and is_not_null(db, "t", "w")
    finally:
        db.cluster.close_connections()
        db.sql(f"DROP ROLE {quoted}")


def test_composite_columns(db: Database) -> None:
    """Where IS NOT NULL means something else than NOT NULL, it is not used."""
    db.sql("CREATE TYPE pair AS (a int, b int); CREATE DOMAIN dpair AS pair")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v dpair); INSERT INTO t VALUES (1, ROW(1, NULL))")
    if has_native(db):
        db.sql(CALL.format("'t', 'v'"))
        assert is_not_null(db)
    else:
        error = refused(db, CALL.format("'t', 'v'"))
        assert error.sqlstate == "0A000" and "composite" in str(error)


def test_within_a_transaction(db: Database) -> None:
    """Refused before anything is done, however the transaction came about."""
    make(db)
    call = CALL.format("'t', 'v'")
    for statements in (f"BEGIN; {call}", f"SELECT 1; {call}", f"DO $$ BEGIN PERFORM 1; {call}; END $$; SELECT 1"):
        assert refused(db, statements).sqlstate == "25001"
    assert constraints(db) == []


REFUSED = [
    ("'t', 'nothing'", "42703", 'column "nothing" of relation "t" does not exist'),
    ("'t', 'ctid'", "42703", 'column "ctid"'),
    ("'seen', 'v'", "42809", "public.seen is not a table"),
    ("4294967295::oid::regclass, 'v'", "42P01", "there is no table with OID 4294967295"),
    ("NULL, 'v'", "22004", "relation must not be NULL"),
    ("'t', NULL", "22004", "column_name must not be NULL"),
    ("'t', 'v', 0", "22023", "lock_timeout_ms must be at least 1"),
    ("'t', 'v', 10, -1", "22023", "retries at least 0"),
]


def test_what_is_refused(db: Database) -> None:
    """With a message that names it."""
    make(db)
    db.sql("CREATE VIEW seen AS SELECT * FROM t")
    for arguments, sqlstate, message in REFUSED:
        error = refused(db, CALL.format(arguments))
        assert (error.sqlstate, message in str(error)) == (sqlstate, True), error


def test_the_rights_are_the_callers(db: Database) -> None:
    """Who does not own the table can do nothing; what stands on a caller's search_path is not called."""
    make(db)
    if not db.value("SELECT to_regrole('stranger') IS NOT NULL"):
        db.sql("CREATE ROLE stranger LOGIN")
    error = refused(db, CALL.format("'t', 'v'"), user="stranger")
    assert error.sqlstate == "42501" and "must be owner of table public.t" in str(error)
    trap = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$"
    db.sql(
        f"CREATE SCHEMA evil; CREATE FUNCTION evil.format(text, VARIADIC text[]) RETURNS text {trap};"
        f" CREATE FUNCTION evil.gt(int, int) RETURNS boolean {trap};"
        f" CREATE FUNCTION evil.pg_sleep(float8) RETURNS void {trap};"
        " CREATE OPERATOR evil.> (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.gt);"
        " CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.gt);"
        " CREATE OPERATOR evil.< (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.gt)"
    )
    with psycopg.connect(db.dsn(), autocommit=True, options="-c search_path=evil,public,pg_catalog") as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("evil,public,pg_catalog",)
        connection.execute(CALL.format("'t', 'v'"))
        assert connection.execute("SHOW search_path").fetchone() == ("evil,public,pg_catalog",)
        assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)
    assert is_not_null(db)
