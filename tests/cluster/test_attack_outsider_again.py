"""The same, by somebody who tried to get around what was mended: tables under names that stay, code that is attached to
a superuser's table in other ways and at other times, four eyes that become two."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest
from harness import Cluster, wait_until
from test_attack_outsider import STATE, SUPERUSER, SWAP, TRAP, make_tables, server, two  # noqa: F401

Make = Callable[..., Cluster]
ENDED = ("completed", "failed", "paused")
TRIGGER_FUNCTION = (
    "CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.spring(); RETURN new; END';"
)
CALLS = {
    "plan": "SELECT backfill.plan('{}', set_clause => 'n = 2')",
    "preview": "SELECT backfill.preview('{}', set_clause => 'n = 2')",
    "define": "SELECT backfill.define('{}', 'n = 2')",
    "start": "SELECT backfill.start('{}', set_clause => 'n = 2')",
    "set_not_null": "CALL backfill.set_not_null('{}', 'n', 20000)",
}


def while_it_waits(cluster: Cluster, statement: str, holder: psycopg.Connection, then: Callable[[], object]) -> None:
    """A superuser makes the call, which waits for the holder; then something is done, and the holder commits."""

    def ask() -> None:
        with suppress(psycopg.Error), cluster.connect() as session:
            session.execute("SET lock_timeout = '20s'")
            session.execute(statement)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        wait_until(lambda: cluster.value("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0, 20, "it to wait")
        with suppress(psycopg.errors.DeadlockDetected):
            then()
    finally:
        holder.commit()
        holder.close()
        thread.join(60)


def trapped(cluster: Cluster) -> Callable[[], bool]:
    """Makes eve's functions; whether one of them has run as the superuser, also where that was rolled back."""
    mark = cluster.data / "was-here"
    touch = f"COPY (SELECT 1) TO PROGRAM 'touch {mark}'"
    cluster.sql(TRAP.format(victim="postgres", author="eve").replace("ALTER ROLE eve SUPERUSER", touch), user="eve")
    return mark.exists


NEW = (
    "CREATE TABLE s.t (id integer PRIMARY KEY, n integer, CHECK (trap(1) > 0)); INSERT INTO s.t VALUES (1, 1);"
    "ALTER TABLE s.t ADD CONSTRAINT backfill_not_null_n CHECK (n IS NOT NULL);"
    "CREATE INDEX ON s.t (n) WHERE public.trap(1) > 0"
)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("call", CALLS)
def test_another_table_of_the_same_name(server: Make, call: str, when: str) -> None:  # noqa: F811
    """The owner of a schema may drop whatever is in it."""
    cluster = server()
    cluster.sql(
        "CREATE SCHEMA s AUTHORIZATION eve; CREATE TABLE s.t (id integer PRIMARY KEY, n integer);"
        "INSERT INTO s.t VALUES (1, 1); ALTER TABLE s.t ADD CONSTRAINT backfill_not_null_n CHECK (n IS NOT NULL);"
        "GRANT SELECT, UPDATE ON s.t TO eve"
    )
    sprung = trapped(cluster)
    holder = cluster.connect("eve", autocommit=False)
    replace = lambda: holder.execute(f"DROP TABLE s.t; {NEW}")  # noqa: E731
    if when == "before":
        replace()
        while_it_waits(cluster, CALLS[call].format("s.t"), holder, lambda: None)
    else:
        # What an UPDATE waits for, and what only ALTER TABLE does.
        mode = "ACCESS SHARE" if call == "set_not_null" else "SHARE"
        holder.execute(f"LOCK TABLE s.t IN {mode} MODE")
        while_it_waits(cluster, CALLS[call].format("s.t"), holder, replace)
    assert not sprung()


@pytest.mark.parametrize("call", ["plan", "preview", "define", "start"])
def test_two_schemas_that_change_their_names(server: Make, call: str) -> None:  # noqa: F811
    """Both are of the job: each is known, but under the other's name."""
    cluster = server()
    cluster.sql(
        "CREATE SCHEMA s AUTHORIZATION eve; CREATE SCHEMA w AUTHORIZATION eve;"
        "CREATE TABLE s.p (id integer PRIMARY KEY, n integer) PARTITION BY RANGE (id);"
        "CREATE TABLE w.p1 PARTITION OF s.p FOR VALUES FROM (0) TO (100); INSERT INTO s.p VALUES (1, 1);"
        "GRANT SELECT, UPDATE ON w.p1, s.p TO eve"
    )
    sprung = trapped(cluster)
    cluster.sql(
        "CREATE TABLE s.p1 (id integer PRIMARY KEY, n integer, CHECK (trap(1) > 0)); INSERT INTO s.p1 VALUES (1, 1);"
        "CREATE INDEX ON s.p1 (n) WHERE public.trap(1) > 0",
        user="eve",
    )
    holder = cluster.connect("eve", autocommit=False)
    holder.execute("LOCK TABLE w.p1 IN ACCESS EXCLUSIVE MODE")
    while_it_waits(cluster, CALLS[call].format("s.p"), holder, lambda: cluster.sql(SWAP, user="eve"))
    assert not sprung()


# Code on a superuser's table: what eve is granted, and what she makes of it.
ATTACHED = {
    "the condition of a trigger": (
        "GRANT SELECT, TRIGGER ON t TO eve",
        "CREATE TRIGGER x BEFORE UPDATE ON t FOR EACH ROW WHEN (trap(new.n) > 0)"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ),
    "a foreign key, two levels down": (
        "CREATE TABLE c (n integer UNIQUE REFERENCES t (n) ON UPDATE CASCADE); INSERT INTO c VALUES (1);"
        "GRANT SELECT, REFERENCES ON c TO eve",
        "CREATE TABLE g (n integer REFERENCES c (n) ON UPDATE CASCADE); INSERT INTO g VALUES (1);"
        "CREATE TRIGGER x AFTER UPDATE ON g FOR EACH ROW EXECUTE FUNCTION trg()",
    ),
    "a trigger on the table of a foreign key": (
        "CREATE TABLE c (n integer REFERENCES t (n) ON UPDATE CASCADE); INSERT INTO c VALUES (1);"
        "GRANT SELECT, TRIGGER ON c TO eve",
        "CREATE TRIGGER x BEFORE UPDATE ON c FOR EACH ROW EXECUTE FUNCTION trg()",
    ),
    "a domain": ("ALTER TABLE t ADD d d", "ALTER DOMAIN d ADD CHECK (trap(VALUE) > 0) NOT VALID"),
}


@pytest.mark.parametrize("way", ATTACHED)
@pytest.mark.parametrize("when", ["before", "once it is defined"])
def test_code_that_is_attached(server: Make, way: str, when: str) -> None:  # noqa: F811
    """In whatever way, and also after the job was defined: then its worker refuses."""
    cluster = server()
    cluster.sql("CREATE DOMAIN d AS integer", user="eve")
    cluster.sql("CREATE TABLE t (id integer PRIMARY KEY, n integer UNIQUE); INSERT INTO t VALUES (1, 1)")
    cluster.sql(TRAP.format(victim="postgres", author="eve") + TRIGGER_FUNCTION, user="eve")
    granted, made = ATTACHED[way]
    if when == "before":
        cluster.sql(granted)
        cluster.sql(made, user="eve")
        for call in ("plan", "preview", "define", "start"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="would run what role eve wrote"):
                cluster.sql(CALLS[call].format("t"))
    else:
        cluster.sql("SELECT backfill.define('t', 'n = n + 10')")
        cluster.sql(granted)
        cluster.sql(made, user="eve")
        job = cluster.value("SELECT backfill.start('t')")
        wait_until(lambda: cluster.value(STATE, [job]) in ENDED, 30, "its end")
        assert "would run what role eve wrote" in cluster.value("SELECT last_error FROM backfill.progress")
        assert cluster.value("SELECT n FROM t") == 1
    assert cluster.value(SUPERUSER, ["eve"]) is False


def test_a_trigger_that_comes_while_it_runs(server: Make) -> None:  # noqa: F811
    """The worker looks again when the table has changed."""
    cluster = server()
    make_tables(cluster, "t", 300, "postgres")
    cluster.sql("GRANT SELECT, TRIGGER ON t TO eve")
    cluster.sql(TRAP.format(victim="postgres", author="eve") + TRIGGER_FUNCTION, user="eve")
    job = cluster.value("SELECT backfill.start('t', 10, 100, set_clause => 'n = n + 10')")
    wait_until(lambda: cluster.value("SELECT rows_updated FROM backfill.progress") > 0, 30, "it to run")
    cluster.sql("CREATE TRIGGER x BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION trg()", user="eve")
    wait_until(lambda: cluster.value(STATE, [job]) in ENDED, 30, "its end")
    assert cluster.value(STATE, [job]) == "failed"
    assert cluster.value(SUPERUSER, ["eve"]) is False
    # What was allowed when it was started is so for its workers.
    cluster.sql("DROP TRIGGER x ON t; SELECT backfill.cancel(job_id) FROM backfill.progress")
    cluster.sql("CREATE FUNCTION ok() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'", user="eve")
    cluster.sql("CREATE TRIGGER y BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION ok()", user="eve")
    start = "SELECT backfill.start('t', set_clause => 'n = 7')"
    job = cluster.sql(f"SET backfill.allow_superuser_jobs = on; {start}")[0][0]
    wait_until(lambda: cluster.value(STATE, [job]) == "completed", 30, "the other")


def test_another_extensions_tables_are_not_eves(server: Make) -> None:  # noqa: F811
    """A schema of hers under the name of TimescaleDB's, with a superuser's table and a view of hers in it."""
    cluster = server()
    cluster.sql("CREATE SCHEMA s AUTHORIZATION eve; CREATE TABLE s.hypertable (schema_name name, table_name name)")
    make_tables(cluster, "mine", 3)
    cluster.sql(
        TRAP.format(victim="postgres", author="eve") + "ALTER SCHEMA s RENAME TO _timescaledb_catalog;"
        "CREATE VIEW _timescaledb_catalog.chunk AS SELECT n.nspname AS schema_name, c.relname AS table_name,"
        " public.spring() AS compressed_chunk_id FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE public.spring() > 0",
        user="eve",
    )
    job = cluster.value("SELECT backfill.start('mine', set_clause => 'n = 5')", user="eve")
    wait_until(lambda: cluster.value(STATE, [job]) == "completed", 30, "her job")
    assert cluster.value(SUPERUSER, ["eve"]) is False


def test_what_was_approved_is_not_redefined(two: Cluster) -> None:  # noqa: F811
    """Who approved it would be its author, and nobody else's eyes on it."""
    two.sql("GRANT app TO bob")
    job = two.value("SET ROLE app; SELECT backfill.start('t', 10, 60000, set_clause => 'n = 1')", user="eve")
    two.sql("SELECT backfill.approve(%s)", [job], user="bob")
    two.sql("SELECT backfill.pause(%s)", [job], user="bob")
    wait_until(lambda: two.value(STATE, [job]) == "paused", 20, "the pause")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="it was approved as it is"):
        two.sql("SELECT backfill.redefine(%s, set_clause => 'n = 666')", [job], user="bob")
