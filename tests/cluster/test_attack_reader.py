"""Attacks that an outside reader of the source has found: each fails as long as its attack works."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import Cluster, Database, wait_until

IS_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = 'eve'"
STEP = "ALTER ROLE eve SUPERUSER"


@pytest.fixture
def ground(new_cluster: Any) -> Cluster:
    """A server with the extension, and with eve, who may create tables and nothing else."""
    cluster: Cluster = new_cluster(conf={"backfill.allow_superuser_jobs": "off"})
    cluster.sql("CREATE EXTENSION backfill; GRANT ALL ON SCHEMA public TO PUBLIC; CREATE ROLE eve LOGIN")
    return cluster


def create_trap(database: Database, statement: str) -> None:
    """An IMMUTABLE function of eve's that has a statement run by whoever evaluates it, if that is a superuser."""
    database.sql(
        "CREATE FUNCTION public.spring() RETURNS integer LANGUAGE plpgsql AS $$"
        f" BEGIN IF current_user = 'postgres' THEN EXECUTE $x${statement}$x$; END IF; RETURN 1; END $$;"
        "CREATE FUNCTION public.trap() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN RETURN public.spring(); END $$",
        user="eve",
    )


@pytest.mark.parametrize("role", ["postgres", "eve"])
def test_set_not_null_runs_checks_of_the_tables_owner(ground: Cluster, role: str) -> None:
    """A superuser calls set_not_null on eve's table, after SET ROLE eve as well: ALTER TABLE folds the constants of
    CHECKs, and eve's function says RESET ROLE."""
    ground.sql(
        "CREATE FUNCTION public.spring() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN IF session_user = 'postgres' THEN"
        f" RESET ROLE; {STEP}; END IF; RETURN 1; END $$;"
        "CREATE FUNCTION public.trap() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN RETURN public.spring(); END $$",
        user="eve",
    )
    ground.sql("CREATE TABLE t (id integer PRIMARY KEY, n integer, CHECK (public.trap() > 0))", user="eve")
    ground.sql("INSERT INTO t SELECT i, i FROM generate_series(1, 10) i", user="eve")
    with ground.connect() as superuser:
        superuser.execute(f"SET ROLE {role}")
        with contextlib.suppress(psycopg.Error):
            superuser.execute("CALL backfill.set_not_null('t', 'n')")
    assert ground.value(IS_SUPERUSER) is False


def test_a_script_of_a_procedure_breaks_out_of_its_quotes(ground: Cluster) -> None:
    """A type of the key that is named like the dollar quote ends it: psql runs what comes next."""
    kind = f'"t$backfill$;{STEP};--"'
    ground.sql(f"CREATE TYPE {kind} AS ENUM ('a'); CREATE TABLE t (id {kind} PRIMARY KEY, n integer)", user="eve")
    job = ground.value("SELECT backfill.define('t', 'n = 1')", user="eve")
    script = Path(ground.folder) / "procedure.sql"
    script.write_text(ground.value("SELECT backfill.procedure(%s)", [job]))
    ground.run("psql", "-X", "-d", ground.dsn(), "-f", script, check=False)
    assert ground.value(IS_SUPERUSER) is False


@pytest.mark.parametrize(
    "call",
    [
        "SELECT * FROM backfill.plan('t', set_clause => 'n = 2')",
        "SELECT * FROM backfill.preview('t', set_clause => 'n = 2')",
        "SELECT backfill.define('t', 'n = 2')",
    ],
)
def test_a_superusers_look_at_anothers_table(ground: Cluster, call: str) -> None:
    """A superuser who only plans or previews on eve's table runs her index expressions, whose COPY TO PROGRAM stays."""
    mark = ground.data / "was-here"
    create_trap(ground, f"COPY (SELECT 1) TO PROGRAM 'touch {mark}'")
    ground.sql("CREATE TABLE t (id integer PRIMARY KEY, n integer)", user="eve")
    ground.sql("CREATE INDEX ON t (n) WHERE public.trap() > 0; INSERT INTO t VALUES (1, 1)", user="eve")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
        ground.sql(call)
    assert "SET ROLE eve" in str(error.value.diag.message_hint)
    assert not mark.exists()
    # What the hint says works.
    assert ground.sql(f"SET ROLE eve; {call}")
    assert not mark.exists()


def test_checkers_take_all_background_workers(new_cluster: Any) -> None:
    """A member of three roles asks about definitions that never return, and no job of anybody's gets a worker."""
    cluster: Cluster = new_cluster(conf={"max_worker_processes": "8"})
    cluster.sql("CREATE EXTENSION backfill; GRANT ALL ON SCHEMA public TO PUBLIC")
    cluster.sql("CREATE ROLE eve LOGIN; CREATE ROLE bob LOGIN")
    roles = ["one", "two", "three"]
    askers = []
    for role in roles:
        cluster.sql(f"CREATE ROLE {role}; GRANT {role} TO eve")
        for attempt in range(2):
            asker = cluster.connect("eve")
            if attempt == 0:
                body = "LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN {} RETURN 1; END $$"
                create = f"CREATE OR REPLACE FUNCTION stay_{role}() RETURNS integer {body}"
                asker.execute(f"SET ROLE {role}; CREATE TABLE t_{role} (id integer PRIMARY KEY, n integer)")
                asker.execute(f"INSERT INTO t_{role} VALUES (1, 1)")
                asker.execute(create.format(""))
                asker.execute(f"SELECT backfill.define('t_{role}', 'n = stay_{role}()')")
                asker.execute(create.format("PERFORM pg_sleep(600);") + "; RESET ROLE")
            askers.append((asker, f"SELECT * FROM backfill.preview('t_{role}')"))

    def wait_in_vain(asker: psycopg.Connection, call: str) -> None:
        with contextlib.suppress(psycopg.Error):
            asker.execute(call)

    threads = [threading.Thread(target=wait_in_vain, args=asked, daemon=True) for asked in askers]
    for thread in threads:
        thread.start()
    # Those that would not get in are refused at once.
    checkers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'backfill checker'"
    wait_until(lambda: cluster.value(checkers) > 0, 30, "checkers")
    end = time.monotonic() + 2
    wait_until(lambda: cluster.value(checkers) == 6 or time.monotonic() > end, 30, "as many as there are")
    cluster.sql("CREATE TABLE b (id integer PRIMARY KEY, n integer); INSERT INTO b VALUES (1, 1)", user="bob")
    job = cluster.value("SELECT backfill.start('b', set_clause => 'n = 2')", user="bob")
    try:
        state = "SELECT state FROM backfill.progress WHERE job_id = %s"
        wait_until(lambda: cluster.value(state, [job]) == "completed", 15, "bob's job, which nobody else has a say in")
    finally:
        for asker, _ in askers:
            cluster.sql(f"SELECT pg_terminate_backend({asker.info.backend_pid})")
        for thread in threads:
            thread.join(30)


def test_the_launcher_waits_for_each_locked_database_in_turn(new_cluster: Any) -> None:
    """A role with CREATEDB holds locks on databases of its own, and the launcher is 10 s late for each of them."""
    cluster: Cluster = new_cluster(conf={"backfill.launcher_interval": "1s"})
    cluster.sql("CREATE ROLE eve LOGIN CREATEDB")
    names = [f"a{i}" for i in range(4)]
    for name in names:
        cluster.sql(f"CREATE DATABASE {name}", user="eve")
    # Its turn comes after those that were created before it.
    cluster.sql("CREATE DATABASE victim")
    victim = cluster.database("victim")
    victim.sql("CREATE EXTENSION backfill; CREATE TABLE t (id integer PRIMARY KEY, n integer)")
    victim.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 100000) i")
    job = victim.value("SELECT backfill.start('t', 10, 100, set_clause => 'n = 1')")
    workers = "SELECT workers FROM backfill.progress"
    wait_until(lambda: victim.value(workers) == 1, 30, "the job to run")
    with cluster.connect("eve", autocommit=False) as eve:
        for name in names:
            eve.execute(f"ALTER DATABASE {name} RENAME TO {name}x")
        # The sweep that is on its way has passed when the next one waits.
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND NOT granted"
        wait_until(lambda: cluster.value(waits) > 0, 30, "a sweeper to wait")
        victim.terminate_worker(job)
        wait_until(lambda: victim.value(workers) == 1, 15, "the launcher to give the job another worker")


def test_what_a_job_waits_for_is_told_to_anybody(new_cluster: Any) -> None:
    """Called by hand with the number of a job, waiting_for would name its owner to a role that may not see it."""
    cluster: Cluster = new_cluster(conf={"backfill.max_workers_per_role": "1"})
    cluster.sql("CREATE EXTENSION backfill; GRANT ALL ON SCHEMA public TO PUBLIC")
    cluster.sql("CREATE ROLE bob LOGIN; CREATE ROLE eve LOGIN")
    cluster.sql("CREATE TABLE b (id integer PRIMARY KEY, n integer)", user="bob")
    cluster.sql("INSERT INTO b SELECT i, 0 FROM generate_series(1, 1000) i", user="bob")
    job = cluster.value("SELECT backfill.start('b', 1, 1000, set_clause => 'n = 1')", user="bob")
    wait_until(lambda: cluster.value("SELECT workers FROM backfill.progress") == 1, 30, "the job to run")
    assert cluster.sql("SELECT * FROM backfill.progress", user="eve") == []
    waits = "SELECT backfill_internal.waiting_for('running', %s, 0, 0, 100, 'here')"
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="schema backfill_internal"):
        cluster.value(waits, [job], user="eve")
    # A member of pg_read_all_data may use every schema.
    cluster.sql("GRANT pg_read_all_data TO eve")
    assert "bob" not in (cluster.value(waits, [job], user="eve") or "")


def test_a_worker_is_not_a_second_person(new_cluster: Any) -> None:
    """alice has a job of a group call backfill.approve: its session is the group's, which did not start anything."""
    cluster: Cluster = new_cluster(conf={"backfill.require_approval": "on"})
    cluster.sql("CREATE EXTENSION backfill; GRANT ALL ON SCHEMA public TO PUBLIC")
    cluster.sql("CREATE ROLE app; CREATE ROLE team; GRANT app TO team")
    cluster.sql("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT team TO alice, bob")
    for table, owner in (("t", "app"), ("u", "team")):
        cluster.sql(f"CREATE TABLE {table} (id integer PRIMARY KEY, n integer); INSERT INTO {table} VALUES (1, 1)")
        cluster.sql(f"ALTER TABLE {table} OWNER TO {owner}")
    alice = cluster.connect("alice")

    def start(role: str, call: str) -> int:
        alice.execute(f"SET ROLE {role}")
        [(job,)] = alice.execute(f"SELECT backfill.start({call})").fetchall()
        alice.execute("RESET ROLE")
        return job

    wanted = start("app", "'t', set_clause => 'n = 666'")
    alice.execute("CREATE FUNCTION public.tell() RETURNS text LANGUAGE sql AS $$ SELECT 'done' $$")
    decoy = start("team", "'u', set_clause => 'n = 2', options => '{\"on_end\": \"SELECT public.tell()\"}'")
    # bob has looked at all of this; functions can be replaced at any time.
    tell = f"SELECT backfill.approve({wanted})"
    alice.execute(f"CREATE OR REPLACE FUNCTION public.tell() RETURNS text LANGUAGE sql AS '{tell}'")
    cluster.sql(f"SELECT backfill.approve({decoy})", user="bob")
    ended = "SELECT count(*) FROM backfill.events WHERE job_id = %s AND event = 'on_end'"
    wait_until(lambda: cluster.value(ended, [decoy]) > 0, 30, "on_end to be run")
    state = cluster.value("SELECT state FROM backfill.progress WHERE job_id = %s", [wanted])
    assert state == "pending", "alice has approved what she started"


@pytest.mark.parametrize("is_called", ["true", "false"])
def test_nobody_can_stop_a_job_any_more(ground: Cluster, is_called: str) -> None:
    """A member of pg_write_all_data uses up the numbers of events, all or all but one: pause and cancel would fail."""
    ground.sql("GRANT pg_write_all_data TO eve; CREATE TABLE t (id integer PRIMARY KEY, n integer)")
    ground.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 1000) i")
    job = ground.value("SELECT backfill.start('t', 1, 1000, set_clause => 'n = 1')")
    wait_until(lambda: ground.value("SELECT workers FROM backfill.progress") == 1, 30, "the job to run")
    ground.sql(f"SELECT setval('backfill_internal.event_id_seq', 9223372036854775807, {is_called})", user="eve")
    for call in ("pause", "resume", "pause", "resume"):
        ground.sql(f"SELECT backfill.{call}(%s)", [job])
    ground.sql("SELECT backfill.cancel(%s, now => true)", [job])
    state = "SELECT state FROM backfill.progress"
    wait_until(lambda: ground.value(state) == "cancelled", 30, "the job to be cancelled")


def test_the_dashboard_of_a_database_without_unicode(new_cluster: Any) -> None:
    """No attack: the planner folds chr(9608) wherever it stands, also where there is no such sign."""
    cluster: Cluster = new_cluster()
    cluster.sql("CREATE DATABASE l TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    database = cluster.database("l")
    database.sql("CREATE EXTENSION backfill")
    assert database.sql("SET client_encoding = 'LATIN1'; SELECT * FROM backfill.dashboard") == []
