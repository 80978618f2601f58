"""What a fourth reader found: ways over the wall around a superuser's job, and what stopped others' jobs."""

from __future__ import annotations

import time

import psycopg
import pytest
from harness import Cluster, wait_until
from test_attack_outsider import STATE, make_tables, server  # noqa: F401
from test_attack_third_verdicts import Make, end

# The wall


def leave_condition(cluster: Cluster, condition: str, name: str = "a", on: str = "UPDATE ON t") -> None:
    """eve creates a trigger of which nothing but the condition is hers."""
    cluster.sql(
        f"CREATE TRIGGER {name} BEFORE {on} FOR EACH ROW WHEN ({condition})"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        user="eve",
    )


@pytest.mark.parametrize(
    "function",
    [
        "set_config('backfill.allow_superuser_jobs', 'on', false) <> ''",
        "pg_notify('x', 'y') IS NULL",
        "lo_unlink(1) > 0",
        "pg_terminate_backend(1)",
    ],
)
def test_conditions_that_somebody_left_have_no_effects(server: Make, function: str) -> None:  # noqa: F811
    """eve had TRIGGER on a superuser's table once, and nothing tells who wrote the conditions of its triggers."""
    cluster = server()
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i")
    cluster.sql("GRANT SELECT, TRIGGER ON t TO eve")
    cluster.sql(
        "CREATE FUNCTION trap(integer) RETURNS integer LANGUAGE plpgsql AS"
        " 'BEGIN ALTER ROLE eve SUPERUSER; RETURN 1; END'",
        user="eve",
    )
    leave_condition(cluster, function)
    leave_condition(cluster, "public.trap(new.n) > 0", name="b")
    cluster.sql("REVOKE ALL ON t FROM eve")
    job = cluster.value("SELECT backfill.start('t', set_clause => 'n = n + 10')")
    assert end(cluster, job) == "failed"
    error = cluster.value("SELECT last_error FROM backfill.progress")
    assert "would run with the rights of a superuser" in error
    assert cluster.value("SELECT NOT rolsuper FROM pg_roles WHERE rolname = 'eve'")
    assert cluster.value("SELECT min(n) FROM t") == 1


def test_superusers_own_functions_have_effects(server: Make) -> None:  # noqa: F811
    """What their triggers notify, lock and set is theirs."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i;"
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('x', new.id::text);"
        " PERFORM set_config('app.x', 'y', true); PERFORM pg_advisory_xact_lock(1); RETURN new; END $$;"
        "CREATE TRIGGER tell BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tell();"
        "CREATE SEQUENCE s"
    )
    with cluster.connect() as session:
        session.execute("LISTEN x")
        job = cluster.value("SELECT backfill.start('t', set_clause => 'n = nextval(''s'')')")
        assert end(cluster, job) == "completed"
        assert len(list(session.notifies(timeout=5, stop_after=20))) == 20


def test_a_superusers_function_does_not_take_the_wall_down(server: Make) -> None:  # noqa: F811
    """Nor may it lend the setting to what comes after it."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i;"
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM set_config('backfill.allow_superuser_jobs', 'on', false); RETURN new; END $$;"
        "CREATE TRIGGER tell BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tell()"
    )
    job = cluster.value("SELECT backfill.start('t', set_clause => 'n = n + 10')")
    assert end(cluster, job) == "failed"
    assert "backfill.allow_superuser_jobs" in cluster.value("SELECT last_error FROM backfill.progress")


def test_the_wall_stands_where_workers_would_help(server: Make) -> None:  # noqa: F811
    """They have a superuser's rights, and no hooks of ours."""
    cluster = server()
    setting = "force_parallel_mode" if cluster.server.major < 16 else "debug_parallel_query"
    cluster.sql(
        "CREATE FUNCTION spring(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$ BEGIN"
        " RAISE WARNING 'sprung as %', current_user; RETURN true; END $$;"
        "CREATE DOMAIN dom AS integer CHECK (public.spring(VALUE))",
        user="eve",
    )
    cluster.sql("CREATE TABLE s (id int PRIMARY KEY, t text, n int)")
    cluster.sql("INSERT INTO s SELECT i, '{1}', 0 FROM generate_series(1, 3000) i; ANALYZE s")
    notices: list[str] = []
    with cluster.connect() as session:
        session.add_notice_handler(lambda it: notices.append(str(it.message_primary)))
        session.execute(f"SET {setting} = on")
        call = "backfill.{}('s', set_clause => 'n = 1', where_clause => $$t::public.dom[] IS NOT NULL$$)"
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="belongs to role eve"):
            session.execute(f"SELECT * FROM {call.format('plan')}")
        rows = session.execute(f"SELECT error FROM {call.format('preview')}").fetchall()
        assert rows and all("belongs to role eve" in error for (error,) in rows), rows
    assert not [notice for notice in notices if "sprung" in notice]


@pytest.mark.parametrize("helper", ["volatile", "not for everybody"])
def test_conditions_that_somebody_left_call_no_helpers(server: Make, helper: str) -> None:  # noqa: F811
    """CREATE TRIGGER does not ask whether its author may call them. The job's own clauses may."""
    cluster = server()
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i")
    cluster.sql("GRANT SELECT, TRIGGER ON t TO eve; CREATE TABLE told (n int)")
    kind = "VOLATILE" if helper == "volatile" else "IMMUTABLE"
    cluster.sql(
        f"CREATE FUNCTION dba(integer) RETURNS integer LANGUAGE plpgsql {kind} AS"
        " 'BEGIN INSERT INTO public.told VALUES ($1); RETURN $1; END';"
        + ("" if helper == "volatile" else "REVOKE EXECUTE ON FUNCTION dba FROM PUBLIC")
    )
    leave_condition(cluster, "public.dba(new.n) > 0")
    cluster.sql("REVOKE ALL ON t FROM eve")
    job = cluster.value("SELECT backfill.start('t', set_clause => 'n = n + 10')")
    assert end(cluster, job) == "failed"
    assert "would run with the rights of a superuser" in cluster.value("SELECT last_error FROM backfill.progress")
    assert cluster.value("SELECT count(*) FROM told") == 0
    cluster.sql("DROP TRIGGER a ON t; SELECT backfill.cancel(job_id) FROM backfill.progress")
    if helper == "volatile":
        job = cluster.value("SELECT backfill.start('t', set_clause => 'n = dba(n)')")
        assert end(cluster, job) == "completed"
        assert cluster.value("SELECT count(*) FROM told") == 20


@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
def test_conditions_on_tables_that_triggers_write_to(server: Make, event: str) -> None:  # noqa: F811
    """eve has TRIGGER there, which nobody looks at: a superuser's function is around what her conditions call."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 20) i;"
        "CREATE TABLE audit (id int PRIMARY KEY, n int);"
        "INSERT INTO audit SELECT i + 100, 0 FROM generate_series(1, 20) i;"
        "CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO public.audit VALUES (new.id, new.n);"
        " UPDATE public.audit SET n = 1 WHERE id = new.id + 100; RETURN new; END $$;"
        "CREATE TRIGGER log AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION log();"
        "GRANT SELECT, TRIGGER ON audit TO eve;"
        "CREATE FUNCTION dba(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; RETURN $1; END'"
    )
    leave_condition(cluster, "public.dba('ALTER ROLE eve SUPERUSER') = ''", on=f"{event} ON audit")
    job = cluster.value("SELECT backfill.start('t', set_clause => 'n = n + 10')")
    assert end(cluster, job) == "failed"
    assert "function dba is volatile, and nothing of a superuser's names it" in cluster.value(
        "SELECT last_error FROM backfill.progress"
    )
    assert cluster.value("SELECT NOT rolsuper FROM pg_roles WHERE rolname = 'eve'")


def test_what_superusers_have_written_names_functions(server: Make) -> None:  # noqa: F811
    """Defaults of their tables, bodies and defaults of their functions, whatever the language."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE told (n int);"
        "CREATE FUNCTION tell(n int) RETURNS int LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO public.told VALUES (n); RETURN n; END';"
        "CREATE FUNCTION in_sql(n int) RETURNS int LANGUAGE sql AS 'SELECT public.tell(n)';"
        "CREATE FUNCTION atomic(n int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT public.tell(n); END;"
        "CREATE FUNCTION by_default(n int DEFAULT public.tell(3)) RETURNS int LANGUAGE sql AS 'SELECT n';"
        "CREATE VIEW v AS SELECT public.tell(8) AS n;"
        "CREATE FUNCTION seen(n int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT v.n FROM public.v); END';"
        "CREATE TABLE audit (id int, n int DEFAULT public.tell(4), m int CHECK (public.tell(5) > 0));"
        "CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO public.audit (id) VALUES (new.id); RETURN new; END';"
    )
    for number, clause in enumerate(("n = in_sql(1)", "n = atomic(2)", "n = by_default()", "n = seen(7)", "n = 6")):
        cluster.sql(f"CREATE TABLE t{number} (id int PRIMARY KEY, n int); INSERT INTO t{number} VALUES (1, 0)")
        if clause == "n = 6":
            cluster.sql(f"CREATE TRIGGER log AFTER UPDATE ON t{number} FOR EACH ROW EXECUTE FUNCTION log()")
        job = cluster.value("SELECT backfill.start(%s, set_clause => %s)", [f"t{number}", clause])
        assert end(cluster, job) == "completed", cluster.sql("SELECT last_error FROM backfill.progress")
    assert cluster.value("SELECT array_agg(n ORDER BY n) FROM told") == [1, 2, 3, 4, 5, 8]


def test_arguments_of_triggers_have_an_author(server: Make) -> None:  # noqa: F811
    """Who may create triggers on a superuser's table says to what an extension's functions are applied."""
    cluster = server()
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY, a text, b tsvector); GRANT SELECT, TRIGGER ON t TO eve")
    cluster.sql(
        "CREATE TRIGGER x BEFORE UPDATE ON t FOR EACH ROW"
        " EXECUTE FUNCTION tsvector_update_trigger('b', 'pg_catalog.simple', 'a')",
        user="eve",
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="arguments of trigger x"):
        cluster.sql("SELECT backfill.start('t', set_clause => $$a = 'x'$$)")


# Places


def test_jobs_have_nothing_looked_at_by_others_processes(server: Make) -> None:  # noqa: F811
    """As many roles would ask as somebody is a member of, and leave no process to others."""
    cluster = server()
    cluster.sql("CREATE ROLE x; CREATE ROLE y; GRANT x TO y; GRANT y TO eve; GRANT ALL ON SCHEMA public TO x, y")
    for role in ("x", "y"):
        cluster.sql(
            f"SET ROLE {role}; CREATE TABLE of_{role} (id int PRIMARY KEY, n int); INSERT INTO of_{role} VALUES (1, 1)",
            user="eve",
        )
    others = cluster.value("SET ROLE x; SELECT backfill.define('of_x', 'n = 2', name => 'xs')", user="eve")
    cluster.sql(
        "SET ROLE y; CREATE FUNCTION asks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" PERFORM backfill.rehearse({others}); RETURN new; END $$;"
        "CREATE TRIGGER asks BEFORE UPDATE ON of_y FOR EACH ROW EXECUTE FUNCTION asks()",
        user="eve",
    )
    job = cluster.value("SET ROLE y; SELECT backfill.start('of_y', set_clause => 'n = 3')", user="eve")
    assert end(cluster, job) == "failed"
    error = cluster.value("SELECT last_error FROM backfill.progress WHERE job_id = %s", [job])
    assert "code of a backfill job can't have looked at what role x wrote" in error


# Names that are no text


ENCODINGS = {"SQL_ASCII": b"\xff", "WIN1252": b"\x81"}


class Bytes:
    """A database whose encoding has strings that no other has a form for."""

    def __init__(self, cluster: Cluster, encoding: str) -> None:
        cluster.sql(f"CREATE DATABASE a TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        self.cluster = cluster
        self.sql("CREATE EXTENSION backfill; GRANT ALL ON SCHEMA public TO PUBLIC")

    def sql(self, statement: str | bytes, user: str = "postgres") -> list[str]:
        """The first column of what a statement gives."""
        place = {"host": str(self.cluster.folder), "port": self.cluster.port, "dbname": "a", "user": user}
        with psycopg.connect(**place, autocommit=True, client_encoding="sql_ascii") as session:
            cursor = session.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
            return [row[0].decode("latin1") if isinstance(row[0], bytes) else row[0] for row in rows]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_name_that_is_no_text_stops_nobody_else(server: Make, encoding: str) -> None:  # noqa: F811
    """There names are bytes, or have no form in UTF-8."""
    d = Bytes(server(**{"backfill.max_workers": "1", "backfill.launcher_interval": "2"}), encoding)
    for table, user in (("eve", "eve"), ("bob", "bob"), ("bob2", "bob")):
        d.sql(
            f"CREATE TABLE {table} (id int PRIMARY KEY, n int); INSERT INTO {table} SELECT generate_series(1, 100)",
            user,
        )
    d.sql("SELECT backfill.start('bob', 10, 300, set_clause => 'n = 1')", "bob")
    d.sql("SELECT backfill.start('eve', 10, 0, set_clause => 'n = 1')", "eve")
    d.sql("SELECT backfill.start('bob2', 10, 0, set_clause => 'n = 1')", "bob")
    d.sql(b'ALTER TABLE eve RENAME TO "%s"' % ENCODINGS[encoding], "eve")
    d.sql("SELECT backfill.pause_all()")
    time.sleep(1)
    d.sql("SELECT backfill.resume_all()")
    states = "SELECT state FROM backfill.progress WHERE relation IN ('bob', 'bob2')"
    wait_until(lambda: set(d.sql(states)) == {"completed"}, 40, "the others' jobs")
    d.sql("SELECT * FROM backfill.progress; SELECT * FROM backfill.dashboard")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_error_whose_text_is_none_is_caught_by_who_expects_it(server: Make, encoding: str) -> None:  # noqa: F811
    """A trigger that handles it goes on, as it would in an UPDATE; what reaches the job keeps its SQLSTATE."""
    d = Bytes(server(), encoding)
    d.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT generate_series(1, 10), 0", "bob")
    raised = b"RAISE unique_violation USING MESSAGE = 'a %s b'" % ENCODINGS[encoding]
    d.sql(
        b"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN BEGIN " + raised + b";"
        b" EXCEPTION WHEN unique_violation THEN new.m = 1; END; IF new.n = 2 THEN "
        + raised
        + b"; END IF; RETURN new; END $$;"
        b"ALTER TABLE t ADD m int; CREATE TRIGGER f BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
        "bob",
    )
    d.sql("SELECT backfill.start('t', set_clause => 'n = 1')", "bob")
    states = "SELECT state FROM backfill.progress ORDER BY job_id"
    wait_until(lambda: d.sql(states)[0] in ("completed", "failed"), 30, "its end")
    assert d.sql("SELECT count(*) FROM t WHERE m = 1 AND n = 1") == [10], d.sql(
        "SELECT last_error FROM backfill.progress"
    )
    d.sql("SELECT backfill.start('t', set_clause => 'n = 2')", "bob")
    wait_until(lambda: d.sql(states)[1] in ("completed", "failed"), 30, "its end")
    error = d.sql("SELECT last_error FROM backfill.progress WHERE job_id = 2")[0]
    assert "a \xef\xbf\xbd b" in error or "a ? b" in error, error
    assert "SQLSTATE 23505" in error


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_error_whose_context_is_none_ends(server: Make, encoding: str) -> None:  # noqa: F811
    """The statement that failed is part of it. To copy it raised an error with the same context, and so on for ever."""
    d = Bytes(server(), encoding)
    d.sql("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT generate_series(1, 10), 0", "bob")
    insert = b"INSERT INTO public.u VALUES ('%s')" % ENCODINGS[encoding]
    d.sql(
        b"CREATE TABLE u (t text PRIMARY KEY); "
        + insert
        + b"; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        + insert
        + b"; RETURN new; END $$; CREATE TRIGGER f BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
        "bob",
    )
    d.sql("SELECT backfill.start('t', set_clause => 'n = 1')", "bob")
    wait_until(lambda: d.sql("SELECT state FROM backfill.progress") == ["failed"], 30, "its end")
    assert "SQLSTATE 23505" in d.sql("SELECT last_error FROM backfill.progress")[0]
    assert d.sql("SELECT error FROM backfill.preview('t', set_clause => 'n = 1')", "bob")


def test_nothing_is_looked_up_on_a_path_that_begins_with_somebody_elses_schema(server: Make) -> None:  # noqa: F811
    """Operators of eve's come before PostgreSQL's own there. They would write to the server's log."""
    cluster = server()
    make_tables(cluster, "b", 100, "bob")
    cluster.sql("CREATE SCHEMA evil AUTHORIZATION eve; GRANT USAGE ON SCHEMA evil TO PUBLIC")
    types = ("oid", "name", "text", "int2", "int4", "int8", "bool", '"char"', "regclass")
    cluster.sql(
        "SET search_path = evil, public;"
        + "".join(
            f"CREATE FUNCTION evil.spring({kind}, {kind}) RETURNS boolean LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE LOG 'sprung'; RETURN true; END $$;"
            + "".join(
                f"CREATE OPERATOR evil.{sign} (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = evil.spring);"
                for sign in ("=", "<>", ">", ">=", "<", "<=")
            )
            for kind in types
        ),
        user="eve",
    )
    with cluster.connect("bob") as bob:
        bob.execute("SET search_path = evil, pg_catalog, public")
        for number, call in enumerate(
            (
                "backfill.plan('public.b', set_clause => 'n = 1', where_clause => 'n IS NULL')",
                "backfill.preview('public.b', set_clause => 'n = 1', where_clause => 'n IS NULL')",
                "backfill.define('public.b', 'n = 1', name => 'x')",
                "backfill.start('public.b', name => 'x')",
                "backfill.report(1::bigint)",
                "backfill.procedure(1::bigint)",
                "backfill.set_not_null_statements('public.b', 'n')",
                "backfill.verify(1, check_clause => 'n IS NOT NULL')",
            )
        ):
            bob.execute(f"SELECT * FROM {call}")
            if number == 3:
                assert end(cluster, 1) == "completed"
        views = [row[0] for row in cluster.sql("SELECT viewname FROM pg_views WHERE schemaname = 'backfill'")]
        assert len(views) > 4
        for view in views:
            bob.execute(f"SELECT * FROM backfill.{view}")
        bob.execute("CALL backfill.set_not_null('public.b', 'n')")
        bob.execute("SELECT backfill.require_completed('x')")
    assert "sprung" not in cluster.log.read_text(errors="replace")
