"""What somebody found who had the source, and no hand in it: names that mean another table by the time that they are
read, slots that code lets go of, one person who acts as two."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest
from harness import Cluster, Database, wait_until

New = Callable[..., Cluster]
WORKERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'backfill worker'"
CHECKERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'backfill checker'"
STATE = "SELECT state FROM backfill.progress WHERE job_id = %s"
SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = %s"
# Makes its author a superuser, as whoever else runs it.
TRAP = """
CREATE FUNCTION spring() RETURNS integer LANGUAGE plpgsql SET search_path = public AS $$
BEGIN IF current_user = '{victim}' THEN ALTER ROLE {author} SUPERUSER; END IF; RETURN 1; END $$;
CREATE FUNCTION trap(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN public.spring(); END $$;
"""
SWAP = "BEGIN; ALTER SCHEMA s RENAME TO x; ALTER SCHEMA w RENAME TO s; ALTER SCHEMA x RENAME TO w; COMMIT"


@pytest.fixture
def server(new_cluster: New) -> Callable[..., Cluster]:
    """Makes a server with the roles eve, who attacks, and bob, with the extension as it is installed."""

    def make(preload: bool = True, **conf: object) -> Cluster:
        conf = {"backfill.allow_superuser_jobs": "off"} | conf
        cluster: Cluster = new_cluster(preload=preload, conf=conf)
        cluster.sql("CREATE EXTENSION backfill; CREATE ROLE eve LOGIN; CREATE ROLE bob LOGIN")
        cluster.sql("GRANT ALL ON SCHEMA public TO PUBLIC; GRANT CREATE ON DATABASE postgres TO eve")
        return cluster

    return make


def make_tables(db: Database, names: str, rows: int = 100, user: str = "eve") -> None:
    """Tables of a role's."""
    for name in names.split():
        db.sql(f"CREATE TABLE {name} (id integer PRIMARY KEY, n integer)", user=user)
        db.sql(f"INSERT INTO {name} SELECT i, 0 FROM generate_series(1, {rows}) i", user=user)


def bob_gets_a_worker(db: Database) -> None:
    """A job of somebody else's is done."""
    make_tables(db, "bobs", 10, "bob")
    job = db.value("SELECT backfill.start('bobs', set_clause => 'n = 2')", user="bob")
    wait_until(lambda: db.value(STATE, [job]) == "completed", 30, "bob's job")


# Names


@pytest.mark.parametrize("name", ["DBA", "Alice"])
def test_a_superuser_whose_name_has_capitals(server: Callable[..., Cluster], name: str) -> None:
    """The role whose name is the same but for these is another one."""
    cluster, author = server(), name.lower()
    cluster.sql(f'CREATE ROLE "{name}" LOGIN SUPERUSER; CREATE ROLE {author} LOGIN')
    cluster.sql(TRAP.format(victim=name, author=author), user=author)
    cluster.sql("CREATE TABLE t (id integer PRIMARY KEY, n integer, CHECK (trap(1) > 0))", user=author)
    cluster.sql("INSERT INTO t VALUES (1, 1)", user=author)
    cluster.sql("CALL backfill.set_not_null('t', 'n')", user=name)
    assert cluster.value(SUPERUSER, [author]) is False
    assert cluster.value("SELECT attnotnull FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'n'")


@pytest.mark.parametrize("call", ["plan", "preview", "define", "start", "set_not_null"])
def test_another_table_comes_under_the_name(server: Callable[..., Cluster], call: str) -> None:
    """While the call waits for a lock, the owner of the table's schema puts another schema in its place."""
    cluster = server()
    # Not a change of tables: all of that is rolled back.
    mark = cluster.data / "was-here"
    cluster.sql(
        "CREATE SCHEMA s AUTHORIZATION eve; CREATE TABLE s.t (id integer PRIMARY KEY, n integer);"
        "INSERT INTO s.t VALUES (1, 1);"
        "ALTER TABLE s.t ADD CONSTRAINT backfill_not_null_n CHECK (n IS NOT NULL); GRANT SELECT, UPDATE ON s.t TO eve"
    )
    touch = f"COPY (SELECT 1) TO PROGRAM 'touch {mark}'"
    cluster.sql(TRAP.format(victim="postgres", author="eve").replace("ALTER ROLE eve SUPERUSER", touch), user="eve")
    cluster.sql(
        "CREATE SCHEMA w; CREATE TABLE w.t (id integer PRIMARY KEY, n integer, CHECK (trap(1) > 0));"
        "INSERT INTO w.t VALUES (1, 1);"
        "ALTER TABLE w.t ADD CONSTRAINT backfill_not_null_n CHECK (n IS NOT NULL);"
        "CREATE INDEX ON w.t (n) WHERE public.trap(1) > 0",
        user="eve",
    )
    statement = {
        "set_not_null": "CALL backfill.set_not_null('s.t', 'n', 20000)",
        "define": "SELECT backfill.define('s.t', 'n = 2')",
    }.get(call, f"SELECT backfill.{call}('s.t', set_clause => 'n = 2')")
    holder = cluster.connect("eve", autocommit=False)
    holder.execute("LOCK TABLE s.t IN ACCESS EXCLUSIVE MODE")
    said: list[str] = []

    def ask() -> None:
        with suppress(psycopg.Error), cluster.connect() as session:
            session.execute("SET lock_timeout = '20s'")
            session.execute(statement)
            said.append("done")

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: cluster.value("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0, 20, "it to wait")
    cluster.sql(SWAP, user="eve")
    holder.commit()
    holder.close()
    thread.join(60)
    assert not mark.exists()


def test_another_table_comes_within_a_batch(server: Callable[..., Cluster]) -> None:
    """Between the look at the name and the UPDATE, which PostgreSQL analyses again whenever a schema changes."""
    cluster = server()
    for schema in ("s", "w"):
        owner = "AUTHORIZATION eve" if schema == "s" else ""
        user = "postgres" if schema == "s" else "eve"
        cluster.sql(f"CREATE SCHEMA {schema} {owner}", user=user)
        make_tables(cluster, f"{schema}.t", 300_000, user)
    cluster.sql(
        "CREATE FUNCTION stolen() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$"
        " BEGIN IF current_user = 'postgres' THEN RAISE LOG 'stolen'; END IF; RETURN NULL; END $$;"
        "CREATE TRIGGER x BEFORE UPDATE ON w.t FOR EACH STATEMENT EXECUTE FUNCTION stolen()",
        user="eve",
    )
    cluster.sql("GRANT SELECT ON s.t TO eve; ANALYZE s.t")
    job = cluster.value("SELECT backfill.start('s.t', 20000, 0, set_clause => 'n = n + 1')")
    end = time.monotonic() + 60
    with cluster.connect("eve") as eve:
        for swaps in range(2000):
            eve.execute(SWAP)
            time.sleep(0.01)
            if swaps % 20 == 0 and (cluster.value(STATE, [job]) != "running" or time.monotonic() > end):
                break
        # The superuser's table is at its place again.
        if not cluster.value("SELECT relowner = 'postgres'::regrole FROM pg_class WHERE oid = 's.t'::regclass"):
            eve.execute(SWAP)
    if cluster.value(STATE, [job]) == "failed":
        cluster.sql("SELECT backfill.resume(%s)", [job])
    wait_until(lambda: cluster.value(STATE, [job]) == "completed", 60, "the job")
    assert cluster.sql("SELECT n, count(*) FROM s.t GROUP BY n") == [(1, 300_000)]
    assert "LOG:  stolen" not in cluster.log.read_text(errors="replace")


@pytest.mark.parametrize("kind", ["partition", "child"])
def test_a_part_of_the_table_is_anothers(server: Callable[..., Cluster], kind: str) -> None:
    """ALTER TABLE of the whole evaluates what its owner wrote."""
    cluster = server()
    cluster.sql("CREATE TABLE p (id integer, n integer)" + (" PARTITION BY RANGE (id)" if kind == "partition" else ""))
    part = "p1 PARTITION OF p FOR VALUES FROM (0) TO (100)" if kind == "partition" else "p1 () INHERITS (p)"
    cluster.sql(f"CREATE TABLE {part}; ALTER TABLE p1 OWNER TO eve")
    cluster.sql("INSERT INTO p1 VALUES (1, 1)", user="eve")
    cluster.sql(TRAP.format(victim="postgres", author="eve") + "ALTER TABLE p1 ADD CHECK (trap(1) > 0)", user="eve")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
        cluster.sql("CALL backfill.set_not_null('p', 'n')")
    assert refused.value.diag.message_hint == "ALTER TABLE public.p1 OWNER TO postgres;"
    assert cluster.value(SUPERUSER, ["eve"]) is False


@pytest.mark.parametrize("way", ["trigger", "foreign key"])
def test_what_others_attach_to_a_superusers_table(server: Callable[..., Cluster], way: str) -> None:
    """A trigger, or a foreign key that follows: the code behind it would run as the superuser."""
    cluster = server()
    cluster.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, n integer UNIQUE); INSERT INTO t VALUES (1, 1); GRANT ALL ON t TO eve"
    )
    make = {
        "trigger": "CREATE TRIGGER x BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION trg()",
        "foreign key": "CREATE TABLE child (n integer CONSTRAINT follows REFERENCES t (n) ON UPDATE CASCADE);"
        " CREATE TRIGGER x AFTER UPDATE ON child FOR EACH ROW EXECUTE FUNCTION trg()",
    }[way]
    cluster.sql(
        f"CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'; {make}", user="eve"
    )
    for call in ("start", "plan", "preview"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"role eve wrote .(trigger|foreign key)"):
            cluster.sql(f"SELECT backfill.{call}('t', set_clause => 'n = n + 10')")
    cluster.sql("SET backfill.allow_superuser_jobs = on; SELECT backfill.define('t', 'n = n + 10')")


# Slots and processes

LET_GO = {
    "throttle_query": ("", {"throttle_query": "SELECT let_go()"}),
    "batch, tried again": ("53200", {}),
    "batch, then on_end": ("P0001", {"on_end": "SELECT pg_sleep(600)", "statement_timeout_ms": 600_000}),
}


@pytest.mark.parametrize("where", LET_GO)
@pytest.mark.parametrize("preload", [True, False])
def test_code_that_lets_go_of_its_slot(server: Callable[..., Cluster], where: str, preload: bool) -> None:
    """By an unlock and an error: its role has no more processes than it may."""
    conf = {"backfill.max_workers": 3, "max_worker_processes": 12, "backfill.launcher_interval": "1s"}
    cluster = server(preload=preload, **conf)
    make_tables(cluster, "a b c d e f", 5)
    sqlstate, options = LET_GO[where]
    raises = f"RAISE EXCEPTION 'x' USING ERRCODE = '{sqlstate or 'P0001'}'"
    cluster.sql(
        "CREATE FUNCTION let_go() RETURNS boolean LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_advisory_unlock_all(); {raises}; END $$;"
        "CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM let_go(); RETURN new; END $$",
        user="eve",
    )
    jobs = []
    most = 0
    for name in "abcdef":
        if sqlstate:
            cluster.sql(f"CREATE TRIGGER x BEFORE UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION trg()", user="eve")
        start = f"SELECT backfill.start('{name}', 10, 0, 'n = 1', options => '{json.dumps(options)}')"
        jobs.append(cluster.value(start, user="eve"))
    end = time.monotonic() + 8
    while time.monotonic() < end:
        most = max(most, cluster.value(f"{WORKERS} AND wait_event_type IS NOT NULL"))
        with suppress(psycopg.Error):
            cluster.sql(f"SELECT backfill.resume({jobs[0]})", user="eve")
        time.sleep(0.2)
    # Those that have come, found no slot and go are there for a moment.
    assert most <= 4, f"{most} processes of eve's, who may have 2"
    bob_gets_a_worker(cluster)


def test_checkers_that_do_not_end(server: Callable[..., Cluster]) -> None:
    """What does not hear of being told to keeps its place until it ends."""
    cluster = server(max_worker_processes=8)
    make_tables(cluster, "a", 10)
    body = "CREATE OR REPLACE FUNCTION f() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN {} RETURN 1; END $$"
    cluster.sql(body.format(""), user="eve")
    job = cluster.value("SELECT backfill.define('a', 'n = f()')", user="eve")
    deaf = "PERFORM strpos(repeat('a', 500000), 'b' || repeat('a', 250000));"
    cluster.sql(body.format(deaf), user="eve")
    seen = []
    for _ in range(5):
        with cluster.connect("eve") as eve, suppress(psycopg.Error):
            eve.execute("SET statement_timeout = '1s'")
            eve.execute("SELECT * FROM backfill.rehearse(%s)", [job])
        seen.append(cluster.value(CHECKERS))
    assert 1 <= max(seen) <= 2, seen
    bob_gets_a_worker(cluster)
    cluster.stop("immediate")


def test_jobs_whose_code_ends_their_worker(server: Callable[..., Cluster]) -> None:
    """A hundred of them: somebody else's job is taken up all the same, and the log is not flooded."""
    cluster = server(**{"backfill.launcher_interval": "1s"})
    make_tables(cluster, "a", 5)
    cluster.sql(
        "CREATE FUNCTION die() RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); RETURN true; END $$",
        user="eve",
    )
    job = cluster.value("SELECT backfill.start('a', set_clause => 'n = 1')", user="eve")
    wait_until(lambda: cluster.value(STATE, [job]) == "completed", 30, "the end")
    cluster.sql(f"SELECT backfill.verify({job}, 'die()') FROM generate_series(1, 110)", user="eve")
    make_tables(cluster, "b", 1000, "bob")
    bob = cluster.value("SELECT backfill.start('b', 1, 500, set_clause => 'n = 2')", user="bob")
    workers = "SELECT workers FROM backfill.progress WHERE job_id = %s"
    for gone in (False, True):
        if gone:
            cluster.sql("REASSIGN OWNED BY eve TO postgres; DROP OWNED BY eve; DROP ROLE eve")
        wait_until(lambda: cluster.value(workers, [bob]) == 1, 60, "bob's job to run")
        cluster.terminate_worker(bob)
    wait_until(lambda: cluster.value(workers, [bob]) == 1, 60, "bob's job to run again")
    lines = [line for line in cluster.log.read_text(errors="replace").splitlines() if "no longer exists" in line]
    assert max((sum(line[:19] == other[:19] for other in lines) for line in lines), default=0) <= 5


def test_resume_in_a_loop(server: Callable[..., Cluster]) -> None:
    """A role that has all it may have asks for more: others find a process."""
    cluster = server(**{"max_worker_processes": 8, "backfill.max_workers": 4})
    make_tables(cluster, "a b c d")
    start = "SELECT backfill.start('{}', 1, 60000, 'n = 1')"
    for name in "abc":
        cluster.sql(start.format(name), user="eve")
    wait_until(lambda: cluster.value(WORKERS) == 3, 20, "three workers")
    fourth = cluster.value(start.format("d"), user="eve")
    make_tables(cluster, "bobs", 10, "bob")
    cluster.sql("SELECT backfill.define('bobs', 'n = 2')", user="bob")
    stop = threading.Event()

    def loop() -> None:
        with cluster.connect("eve") as eve:
            while not stop.is_set():
                with suppress(psycopg.Error):
                    eve.execute("SELECT backfill.resume(%s)", [fourth])

    threads = [threading.Thread(target=loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(40):
            cluster.sql("SELECT count(*) FROM backfill.preview('bobs')")
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# A second person


@pytest.fixture
def two(server: Callable[..., Cluster]) -> Cluster:
    """eve is a member of the owner app, and of a group that is one, too. bob is nobody."""
    cluster = server(**{"backfill.require_approval": "on"})
    cluster.sql("CREATE ROLE app; CREATE ROLE eves IN ROLE app; GRANT app, eves TO eve")
    make_tables(cluster, "t", 100, "eve")
    cluster.sql("ALTER TABLE t OWNER TO app")
    return cluster


@pytest.mark.parametrize("how", ["definer", "analyze"])
def test_who_is_made_to_approve_is_no_second_person(two: Cluster, how: str) -> None:
    """By a SECURITY DEFINER function, or by an index function while a superuser analyses a table."""
    job = two.value("SET ROLE app; SELECT backfill.start('t', set_clause => 'n = 666')", user="eve")
    if how == "definer":
        approve = f"SELECT backfill.approve({job})"
        two.sql(
            f"SET ROLE eves; CREATE FUNCTION hello() RETURNS text LANGUAGE sql SECURITY DEFINER AS '{approve}'",
            user="eve",
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="second person"):
            two.sql("SELECT hello()", user="bob")
    else:
        two.sql(
            f"""SET ROLE eves; CREATE TABLE x (a integer);
            CREATE FUNCTION spring() RETURNS text LANGUAGE plpgsql SET search_path = public AS $$ BEGIN
            IF session_user <> 'eve' THEN RETURN backfill.approve({job}); END IF; RETURN '';
            EXCEPTION WHEN OTHERS THEN RETURN ''; END $$;
            CREATE FUNCTION hello(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN PERFORM public.spring(); RETURN $1; END $$;
            INSERT INTO x VALUES (1), (2), (3); CREATE INDEX ON x (hello(a))""",
            user="eve",
        )
        two.sql("ANALYZE x")
    assert two.value(STATE, [job]) == "pending"


def test_nor_who_is_made_to_alter_what_was_approved(two: Cluster) -> None:
    """More rows than were approved."""
    start = """SET ROLE app; SELECT backfill.start('t', 10, 0, 'n = 666', options => '{"limit_rows": 10}')"""
    job = two.value(start, user="eve")
    two.sql("SELECT backfill.approve(%s)", [job])
    wait_until(lambda: two.value(STATE, [job]) == "paused", 20, "the limit")
    alter = f"""SELECT backfill.alter({job}, options => '{{"limit_rows": null}}')"""
    two.sql(
        f"SET ROLE eves; CREATE FUNCTION hello() RETURNS void LANGUAGE sql SECURITY DEFINER AS $${alter}$$", user="eve"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="second person"):
        two.sql("SELECT hello()", user="bob")
    assert two.value("SELECT count(*) FROM t WHERE n = 666") == 10


@pytest.mark.parametrize("way", ["throttle_query", "literal"])
def test_a_dry_run_writes_nothing(two: Cluster, way: str) -> None:
    """It needs no approval. A cursor read at the commit can't write, nor what a clause runs when it is analysed."""
    body = "BEGIN UPDATE public.u SET n = 666; RETURN 1; END"
    write = f"CREATE FUNCTION write() RETURNS integer LANGUAGE plpgsql AS $$ {body} $$"
    make_tables(two, "u", 10)
    two.sql(write, user="eve")
    options: dict[str, object] = {"dry_run": True}
    clause = "n = 1"
    if way == "throttle_query":
        two.sql(
            "CREATE FUNCTION ask() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
            " BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT public.write()';"
            " EXCEPTION WHEN duplicate_cursor THEN NULL; END;"
            " RETURN false; END $$",
            user="eve",
        )
        options["throttle_query"] = "SELECT public.ask()"
    else:
        two.sql(
            "CREATE FUNCTION chk(integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
            " IF current_setting('application_name') LIKE 'backfill job%' THEN"
            " BEGIN PERFORM public.write(); EXCEPTION WHEN OTHERS THEN NULL; END; END IF; RETURN true; END $$;"
            "CREATE DOMAIN dom AS integer CHECK (public.chk(VALUE))",
            user="eve",
        )
        clause = "n = ('{1}'::dom[])[1]"
    job = two.value(
        "SELECT backfill.start('u', set_clause => %s, options => %s)", [clause, json.dumps(options)], user="eve"
    )
    wait_until(lambda: two.value(STATE, [job]) == "completed", 20, "the end")
    assert two.value("SELECT max(n) FROM u") == 0
