"""A third reader, who had the source: sessions that are somebody else's, what code leaves in a worker's session between
two batches, an update that fires what others have put on the tables, and text by the megabyte."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from harness import Cluster, Database, wait_until
from harness.versions import install_old
from test_attack_outsider import STATE, server  # noqa: F401

Make = Callable[..., Cluster]
ENDED = ("completed", "failed", "paused", "cancelled")
# Says in the log whose rights it has, wherever it runs: also where all it does is rolled back.
TRAP = """
CREATE FUNCTION spring() RETURNS integer LANGUAGE plpgsql SET search_path = public AS $$
BEGIN IF current_user <> 'eve' THEN RAISE LOG 'sprung as %', current_user; END IF; RETURN 1; END $$;
CREATE FUNCTION trap(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN public.spring(); END $$;
CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.spring(); RETURN new; END';
"""
LOOKUP = "(SELECT v FROM lookup WHERE lookup.id = b.id)"
# Eve's, under the name of the table that a clause reads.
BAIT = (
    "CREATE TEMP TABLE lookup (id integer, v integer); CREATE INDEX ON pg_temp.lookup (id) WHERE public.trap(1) > 0;"
    "GRANT ALL ON pg_temp.lookup TO PUBLIC"
)


def sprung(cluster: Cluster) -> bool:
    """Whether the trap has run with somebody else's rights."""
    return "sprung as" in cluster.log.read_text()


def ended(db: Database, job: int) -> str:
    """The state that the job comes to."""
    wait_until(lambda: db.value(STATE, [job]) in ENDED, 60, "its end")
    state: str = db.value(STATE, [job])
    return state


def make_lookup(db: Database, user: str, rows: int = 10) -> None:
    """A table b, and one that its clause reads."""
    db.sql(
        "CREATE TABLE lookup (id integer PRIMARY KEY, v integer);"
        f"INSERT INTO lookup SELECT i, i FROM generate_series(1, {rows}) i;"
        "CREATE TABLE b (id integer PRIMARY KEY, n integer UNIQUE);"
        f"INSERT INTO b SELECT i, -i FROM generate_series(1, {rows}) i",
        user=user,
    )


# Sessions of somebody else's

WRAPPED = {
    "verify": "backfill.verify({})",
    "verify, with a clause": f"backfill.verify({{}}, check_clause => 'n = {LOOKUP}')",
    "redefine": f"backfill.redefine({{}}, where_clause => 'n IS DISTINCT FROM {LOOKUP} AND true')",
    "alter": "backfill.alter({}, options => jsonb_build_object('throttle_query', 'SELECT count(*) > 100 FROM lookup'))",
}


@pytest.mark.parametrize("owner", ["bob", "postgres"])
@pytest.mark.parametrize("call", WRAPPED)
def test_a_wrapper_that_is_written_as_it_should_be(server: Make, owner: str, call: str) -> None:  # noqa: F811
    """SECURITY DEFINER, with a safe search_path. The job's own would have the caller's temporary tables come first."""
    cluster = server()
    make_lookup(cluster, owner)
    job = cluster.value(
        f"SELECT backfill.start('b', 1, 60000, set_clause => 'n = {LOOKUP}',"
        f" where_clause => 'n IS DISTINCT FROM {LOOKUP}')",
        user=owner,
    )
    cluster.sql("SELECT backfill.pause(%s, now => true)", [job])
    assert ended(cluster, job) == "paused"
    body = WRAPPED[call].format(job)
    cluster.sql(
        f"CREATE FUNCTION wrapper() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
        f" AS $$ SELECT {body}::text $$; REVOKE ALL ON FUNCTION wrapper() FROM PUBLIC;"
        "GRANT EXECUTE ON FUNCTION wrapper() TO eve",
        user=owner,
    )
    cluster.sql(TRAP, user="eve")
    with cluster.connect("eve") as session:
        session.execute(BAIT)
        session.execute("SELECT public.wrapper()")
        # The session's own settings are its own still.
        assert session.execute("SHOW search_path").fetchall() == [('"$user", public',)]
    assert not sprung(cluster)


def test_after_set_role_it_is_looked_at_here(server: Make) -> None:  # noqa: F811
    """The session is the login's own; and what a clause means there by a temporary table of its own is refused."""
    cluster = server()
    cluster.sql("GRANT bob TO eve")
    make_lookup(cluster, "bob")
    with cluster.connect("eve") as session:
        session.execute("CREATE TEMP TABLE lookup (id integer, v integer, only_here integer); SET ROLE bob")
        for call in ("plan", "start"):
            with pytest.raises((psycopg.errors.FeatureNotSupported, psycopg.errors.InsufficientPrivilege)):
                session.execute(f"SELECT backfill.{call}('b', set_clause => 'n = {LOOKUP}')")
        session.execute("RESET ROLE; DROP TABLE lookup; SET ROLE bob")
        job = session.execute(f"SELECT backfill.start('b', set_clause => 'n = {LOOKUP}')").fetchone()
    assert job
    assert ended(cluster, job[0]) == "completed"
    assert cluster.value("SELECT count(*) FROM b WHERE n = id") == 10


# What code leaves in a worker's session

SPRING = "CREATE OR REPLACE FUNCTION spring() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN {} RETURN 1; END $$"
FOREIGN_KEY = (
    f"{SPRING.format('')};"
    "CREATE FUNCTION trap(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE"
    " AS $$ BEGIN RETURN public.spring(); END $$;"
    "CREATE TABLE g (n integer REFERENCES b (n)); CREATE INDEX ON g (n) WHERE trap(1) > 0"
)


def test_a_temporary_table_of_who_refers_to_the_table(server: Make) -> None:  # noqa: F811
    """SELECT and REFERENCES suffice: the check of her foreign key calls her index's function in the worker, as her."""
    cluster = server()
    make_lookup(cluster, "bob", 500)
    cluster.sql("GRANT SELECT, REFERENCES ON b TO eve", user="bob")
    cluster.sql(
        "CREATE FUNCTION tr(integer) RETURNS integer LANGUAGE plpgsql SET search_path = public AS $$"
        " BEGIN IF current_user = 'bob' THEN RAISE LOG 'sprung as %', current_user; END IF; RETURN 1; END $$;"
        "CREATE FUNCTION trap2(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE"
        " AS $$ BEGIN RETURN public.tr(1); END $$;"
        "GRANT EXECUTE ON FUNCTION trap2(integer) TO PUBLIC",
        user="eve",
    )
    cluster.sql(FOREIGN_KEY, user="eve")
    bait = BAIT.replace("trap(1)", "trap2(1)")
    cluster.sql(SPRING.format(f"IF to_regclass('pg_temp.lookup') IS NULL THEN {bait}; END IF;"), user="eve")
    job = cluster.value(f"SELECT backfill.start('b', 10, 20, set_clause => 'n = {LOOKUP}')", user="bob")
    for _ in range(5):
        time.sleep(0.1)
        # Statements are analysed again.
        cluster.sql("ANALYZE b; COMMENT ON TABLE b IS 'x'", user="bob")
    assert ended(cluster, job) == "completed"
    assert cluster.value("SELECT count(*) FROM b WHERE n = id") == 500
    assert not sprung(cluster)


def test_settings_of_who_refers_to_the_table(server: Make) -> None:  # noqa: F811
    """Of those that no worker pins: one of the server's that changes results, and one of an application's."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE tags (a integer[]); INSERT INTO tags SELECT ARRAY[i % 50, i] FROM generate_series(1, 60000) i;"
        "CREATE INDEX ON tags USING gin (a); ANALYZE tags;"
        "CREATE FUNCTION hits(integer) RETURNS bigint LANGUAGE sql SET enable_seqscan = off"
        " AS 'SELECT count(*) FROM tags WHERE a @> ARRAY[$1 % 50]';"
        "CREATE TABLE b (id integer PRIMARY KEY, n integer UNIQUE, h bigint, s text);"
        "INSERT INTO b SELECT i, -i FROM generate_series(1, 100) i; GRANT SELECT, REFERENCES ON b TO eve",
        user="bob",
    )
    cluster.sql(FOREIGN_KEY, user="eve")
    left = "PERFORM set_config('gin_fuzzy_search_limit', '20', false), set_config('app.tenant', 'eve', false);"
    cluster.sql(SPRING.format(left), user="eve")
    setting = "coalesce(current_setting(''app.tenant'', true), '''')"
    job = cluster.value(
        f"SELECT backfill.start('b', 10, 20, set_clause => 'n = id, h = hits(id), s = {setting}')", user="bob"
    )
    assert ended(cluster, job) == "completed"
    right = "h = (SELECT count(*) FROM tags WHERE a @> ARRAY[b.id % 50])"
    assert cluster.sql(f"SELECT {right}, s, count(*) FROM b GROUP BY 1, 2") == [(True, "", 100)]


FOUND = (
    "to_regclass('pg_temp.mine')::text, (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors"
    " WHERE is_holdable), nullif(current_setting('app.mine', true), ''), nullif(current_setting('app.late', true), ''),"
    " current_setting('work_mem'), current_setting('DateStyle')"
)


@pytest.mark.parametrize("login", [True, False])
def test_what_the_jobs_own_triggers_leave(server: Make, login: bool) -> None:  # noqa: F811
    """A batch finds what the first one found: no temporary table, prepared statement, cursor, setting, nor the same
    random()."""
    cluster = server()
    if not login:
        cluster.sql("ALTER ROLE bob NOLOGIN")
    as_bob = "SET ROLE bob; " if not login else ""
    user = "bob" if login else "postgres"
    cluster.sql(
        f"{as_bob}CREATE TABLE b (id integer PRIMARY KEY, n integer);"
        "INSERT INTO b SELECT i, 0 FROM generate_series(1, 100) i;"
        "CREATE TABLE found (mine text, statements bigint, cursors bigint, own text, late text, work_mem text,"
        " datestyle text, chance double precision);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO found (mine, statements, cursors, own, late, work_mem, datestyle, chance)"
        f" SELECT {FOUND}, random();"
        " CREATE TEMP TABLE mine (); SET app.mine = 'x'; SET work_mem = '99MB'; SET DateStyle = 'German';"
        " PERFORM setseed(0.5); EXECUTE 'PREPARE mine AS SELECT 1';"
        " EXECUTE 'DECLARE mine CURSOR WITH HOLD FOR SELECT 1'; RETURN NULL; END $$;"
        "CREATE TRIGGER note AFTER UPDATE ON b FOR EACH STATEMENT EXECUTE FUNCTION note();"
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET app.late = 'x'; RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON b DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION late()",
        user=user,
    )
    job = cluster.sql(f"{as_bob}SELECT backfill.start('b', 10, 0, set_clause => 'n = id')", user=user)[0][0]
    assert ended(cluster, job) == "completed", cluster.value("SELECT last_error FROM backfill.progress")
    found = cluster.sql(
        "SELECT mine, statements, cursors, own, late, work_mem, datestyle, count(*) FROM found"
        " GROUP BY 1, 2, 3, 4, 5, 6, 7"
    )
    assert found == [(None, 0, 0, None, None, "4MB", "ISO, MDY", 10)]
    assert cluster.value("SELECT count(DISTINCT chance) FROM found") == 10


# An update of the extension

STRANGE = {
    "trigger": (
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO eve",
        "CREATE TRIGGER x BEFORE UPDATE ON backfill.job FOR EACH STATEMENT EXECUTE FUNCTION trg()",
        "trigger x on backfill.job",
        "DROP TRIGGER x ON backfill.job",
    ),
    "foreign key": (
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO eve",
        "CREATE TABLE mine (id bigint REFERENCES backfill.job ON UPDATE CASCADE)",
        "foreign key mine_id_fkey of public.mine",
        "ALTER TABLE mine DROP CONSTRAINT mine_id_fkey",
    ),
    "function": (
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO eve",
        "CREATE FUNCTION backfill.library_version(integer DEFAULT 1) RETURNS text LANGUAGE sql"
        " AS 'SELECT public.spring()::text'",
        "function backfill.library_version.integer. in its schema",
        "DROP FUNCTION backfill.library_version(integer)",
    ),
    "view": (
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO eve",
        "CREATE VIEW backfill.samples2 AS SELECT public.spring()",
        "view backfill.samples2 in its schema",
        "DROP VIEW backfill.samples2",
    ),
    "default": (
        "SELECT",
        None,
        "function public.spring.., which default value for column note of table backfill.checkpoint refers to",
        "ALTER TABLE backfill.checkpoint ALTER COLUMN note DROP DEFAULT",
    ),
    "index": (
        "SELECT",
        None,
        "function public.trap.integer., which index backfill.x refers to",
        "DROP INDEX backfill.x",
    ),
    "rule": ("SELECT", None, "rule x on backfill.event", "DROP RULE x ON backfill.event"),
}
# What takes the owner of the tables.
BY_MISTAKE = {
    "default": "ALTER TABLE backfill.checkpoint ALTER COLUMN note SET DEFAULT public.spring()::text",
    "index": "CREATE INDEX x ON backfill.job (public.trap(attempt))",
    "rule": "CREATE RULE x AS ON INSERT TO backfill.event DO ALSO SELECT public.spring()",
}


@pytest.mark.parametrize("kind", STRANGE)
def test_an_update_with_something_strange_on_the_tables(server: Make, kind: str) -> None:  # noqa: F811
    """Refused before its first statement that would fire it; once it is gone, the update goes through."""
    cluster = server()
    install_old(cluster.server)
    granted, made, told, remedy = STRANGE[kind]
    cluster.sql("CREATE DATABASE old")
    old = cluster.database("old")
    old.sql(f"GRANT ALL ON SCHEMA public TO PUBLIC; {granted}")
    old.sql("CREATE EXTENSION backfill VERSION '0.2.0'")
    old.sql(TRAP, user="eve")
    if made:
        old.sql(made, user="eve")
    else:
        old.sql(BY_MISTAKE[kind])
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=told) as refused:
        old.sql("ALTER EXTENSION backfill UPDATE")
    assert refused.value.diag.message_hint
    assert "sprung as postgres" not in cluster.log.read_text()
    old.sql(remedy)
    old.sql("ALTER EXTENSION backfill UPDATE")
    assert old.value("SELECT extversion FROM pg_extension WHERE extname = 'backfill'") == "0.3.0"


# Text by the megabyte, locks without a session


def most_memory(session: psycopg.Connection) -> int:
    """The most that the session's process has had, in kB."""
    status = Path(f"/proc/{session.info.backend_pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def test_definitions_of_a_megabyte(server: Make) -> None:  # noqa: F811
    """A role has so many; and calls of others do not read them."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE b (id integer PRIMARY KEY, n integer, m integer); GRANT SELECT, UPDATE ON b TO eve", user="bob"
    )
    cluster.sql("INSERT INTO b SELECT i, 0 FROM generate_series(1, 1000) i", user="bob")
    calls = ("pause_all()", "resume_all()", "cancel_mine()")

    def memory(call: str) -> int:
        mine = cluster.value("SELECT backfill.start('b', 10, 60000, set_clause => 'm = 1')", user="bob")
        with cluster.connect("bob") as session:
            session.execute(f"SELECT backfill.{call.replace('_mine()', f'({mine})')}")
            most = most_memory(session)
        cluster.sql("SELECT backfill.cancel(%s, now => true)", [mine])
        wait_until(lambda: cluster.value(STATE, [mine]) == "cancelled", 30, "its end")
        return most

    before = {call: memory(call) for call in calls}
    clause = "n = length('" + "x" * 1_040_000 + "')"
    define = "SELECT backfill.define('b', %s)"
    jobs = []
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded) as refused:
        for _ in range(40):
            jobs.append(cluster.value(define, [clause], user="eve"))
    assert len(jobs) == 16
    assert refused.value.diag.message_hint
    # Small ones are no matter, and what has ended makes room.
    cluster.value(define, ["n = 1"], user="eve")
    cluster.sql("SELECT backfill.cancel(%s)", [jobs[0]], user="eve")
    cluster.value(define, [clause], user="eve")
    for call in calls:
        assert memory(call) - before[call] < 6_000, call


@pytest.mark.parametrize("call", ["define('b', 'm = 1')", "plan('b', set_clause => 'm = 1')"])
def test_a_prepared_transaction_holds_no_lock_of_ours(server: Make, call: str) -> None:  # noqa: F811
    """Nobody's session would have it; nor does it help to take the role's rights back."""
    cluster = server(max_prepared_transactions=5)
    make_lookup(cluster, "bob")
    cluster.sql("ALTER TABLE b ADD m integer; GRANT SELECT, UPDATE (m) ON b TO eve", user="bob")
    with cluster.connect("eve") as session:
        session.execute("BEGIN")
        session.execute(f"SELECT backfill.{call}")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            session.execute("PREPARE TRANSACTION 'x'")
        session.execute("ROLLBACK")
        # It is of that transaction.
        session.execute("BEGIN; SELECT 1; PREPARE TRANSACTION 'y'")
        session.execute("ROLLBACK PREPARED 'y'")
    assert (
        ended(cluster, cluster.value("SELECT backfill.start('b', set_clause => 'n = 2 + id')", user="bob"))
        == "completed"
    )


def test_a_prepared_transaction_is_named(server: Make) -> None:  # noqa: F811
    """Where one holds a job's row all the same."""
    cluster = server(max_prepared_transactions=5)
    make_lookup(cluster, "bob")
    job = cluster.value("SELECT backfill.define('b', 'n = 1')", user="bob")
    cluster.sql("BEGIN; SELECT FROM backfill_internal.job FOR UPDATE; PREPARE TRANSACTION 'it''s mine'")
    with pytest.raises(psycopg.errors.LockNotAvailable) as refused:
        cluster.sql("SELECT backfill.cancel(%s)", [job], user="bob")
    assert "The transaction 'it''s mine' of role postgres holds it" in str(refused.value.diag.message_detail)
    assert "ROLLBACK PREPARED 'it''s mine'" in str(refused.value.diag.message_hint)
    cluster.sql("ROLLBACK PREPARED 'it''s mine'")
    assert cluster.value("SELECT backfill.cancel(%s)", [job], user="bob") == "cancelled"


def test_a_clause_full_of_the_tags_of_a_procedures_quotes(server: Make) -> None:  # noqa: F811
    """Each is looked for at once, not one after the other."""
    cluster = server()
    cluster.sql("CREATE TABLE t (id integer PRIMARY KEY, n integer); INSERT INTO t VALUES (1, 1)", user="eve")
    tags, word = [], "backfill"
    while sum(map(len, tags)) < 950_000:
        tags.append(f"${word}$ ")
        word += "_"
    job = cluster.value("SELECT backfill.define('t', %s)", [f"n = length('{''.join(tags)}')"], user="eve")
    begun = time.monotonic()
    with cluster.connect("eve") as session:
        script = session.execute("SELECT backfill.procedure(%s)", [job]).fetchone()
        assert script
        session.execute(script[0])
    assert time.monotonic() - begun < 4


def test_a_preview_of_many_columns(server: Make) -> None:  # noqa: F811
    """All that it shows is bounded, not each value alone; few columns are shown as ever."""
    cluster = server()
    columns = [f"c{i}" for i in range(1500)]
    cluster.sql(f"CREATE TABLE t (id integer PRIMARY KEY, {', '.join(c + ' text' for c in columns)})", user="eve")
    cluster.sql("INSERT INTO t (id) SELECT generate_series(1, 1000)", user="eve")
    wide = ", ".join(f"{c} = repeat('x', 8000)" for c in columns)
    preview = (
        "SELECT count(*), sum(length(after::text) + length(before::text)), max(length(after ->> 'c1'))"
        " FROM backfill.preview('t', set_clause => %s, \"limit\" => %s)"
    )
    with cluster.connect("eve") as session:
        said: list[str] = []
        session.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
        for limit in (40, 1000):
            rows, length, longest = session.execute(preview, [wide, limit]).fetchone() or (0, 0, 0)
            assert 30 < rows <= limit and length < 10_000_000, (limit, rows, length)
            assert longest < 8000
        assert any("rows are shown, not 1000" in line for line in said), said
        assert most_memory(session) < 200_000
    with cluster.connect("eve") as session:
        row = session.execute(preview, ["c1 = repeat('x', 8000), c2 = repeat('y', 9000)", 10]).fetchone()
        assert row and row[0] == 10 and row[2] == 8000
