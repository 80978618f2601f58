"""Crashes, hangs and jobs that stand in others' way, by roles with few rights or none."""

from __future__ import annotations

import resource
from collections.abc import Callable

import psycopg
import pytest
from harness import Cluster, Database, wait_until
from harness.jobs import complete, progress, start, wait_for, wait_for_nap_between_batches, wait_for_rows
from harness.tables import counts, make_table
from harness.traps.calls import routines

New = Callable[..., Cluster]
MINUTE = 60_000
HUGE = 250_000_000
BOUNDED = ("54000", "42602", "22023", "53200", "22001", "42804")


@pytest.fixture
def house(db: Database) -> Database:
    """A table of proprietor's, of which lodger may update a column."""
    db.sql("""
        DO $$ BEGIN CREATE ROLE proprietor LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        DO $$ BEGIN CREATE ROLE lodger LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$
    """)
    make_table(db, 100)
    db.sql("ALTER TABLE t OWNER TO proprietor; GRANT SELECT, UPDATE (n) ON t TO lodger")
    return db


@pytest.mark.timeout(300)
def test_arguments_too_large_for_the_memory(new_cluster: New) -> None:
    """An argument of 250 MB makes an allocation fail, and the server ends all sessions: by anybody, any function."""
    server = new_cluster(conf={"shared_buffers": "16MB"})
    server.sql("CREATE EXTENSION backfill; CREATE ROLE anybody LOGIN; CREATE TABLE t (id int PRIMARY KEY, n int)")
    # The server's processes have the limit that this one has while it starts them.
    before = resource.getrlimit(resource.RLIMIT_AS)
    server.stop()
    resource.setrlimit(resource.RLIMIT_AS, (2_500_000_000, before[1]))
    try:
        server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    witness = server.connect()
    ends: dict[str, str] = {}
    for routine in routines(server):
        least = len(routine.parameters) - routine.defaults
        for at, (name, kind) in enumerate(routine.parameters):
            if kind not in ("text", "jsonb", "name"):
                continue
            long = f"repeat('x', {HUGE})"
            values = [
                "1" if other in ("bigint", "integer") else "'t'" if other == "regclass" else f"NULL::{other}"
                for _, other in routine.parameters
            ]
            values[at] = {"jsonb": f"('\"' || {long} || '\"')::jsonb", "name": long, "text": f"'n = 1' || {long}"}[kind]
            given = [
                f'"{parameter}" => {values[number]}'
                for number, (parameter, _) in enumerate(routine.parameters)
                if number < least or number == at
            ]
            verb = "CALL" if routine.procedure else "SELECT * FROM"
            what = f"{routine.name}({name})"
            try:
                server.sql(f"{verb} {routine.schema}.{routine.name}({', '.join(given)})", user="anybody")
                ends[what] = "answered"
            except psycopg.Error as error:
                ends[what] = error.sqlstate or f"lost: {error}"
            assert witness.execute("SELECT 1").fetchone() == (1,), f"the server has crashed by {what}"
    assert "terminated by signal" not in server.log.read_text(errors="replace")
    # Some are for triggers only, of a kind that the caller may not have, or were cut to a name by PostgreSQL.
    internal = ("42703", "0A000", "42883", "42501", "42704", "02000", "55000", "answered")
    assert {what: end for what, end in ends.items() if end not in (*BOUNDED, *internal)} == {}
    assert ends["plan(set_clause)"] in BOUNDED and ends["start(options)"] in BOUNDED, ends


def test_two_approvals_at_once(db: Database) -> None:
    """Two jobs on one column, each approved while the approval of the other is not committed."""
    make_table(db, 100)
    db.sql("DO $$ BEGIN CREATE ROLE asker LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    db.sql(f"ALTER TABLE t OWNER TO asker; ALTER DATABASE {db.name} SET backfill.require_approval = on")
    jobs = [start(db, "t", f"n = {n}", name=f"j{n}", sleep_ms=MINUTE, batch=10, user="asker") for n in (1, 2)]
    first, second = db.connect(autocommit=False), db.connect(autocommit=False)
    first.execute("SELECT backfill.approve(%s)", [jobs[0]])
    second.execute("SET statement_timeout = '20s'")
    second.commit()
    try:
        second.execute("SELECT backfill.approve(%s)", [jobs[1]])
        second.commit()
    except psycopg.errors.LockNotAvailable:
        second.rollback()
    first.commit()
    states = {job: progress(db, job)["state"] for job in jobs}
    assert sorted(states.values()) == ["pending", "running"], states
    with pytest.raises(psycopg.errors.ObjectInUse):
        second.execute("SELECT backfill.approve(%s)", [jobs[1]])


def test_a_lock_of_another_job(new_cluster: New) -> None:
    """A session's advisory lock, taken by a trigger of one job, is held while the same process runs the next one."""
    server = new_cluster(conf={"backfill.max_workers": "1", "backfill.launcher_interval": "1s"})
    server.sql("CREATE EXTENSION backfill; CREATE ROLE one LOGIN; CREATE ROLE two LOGIN")
    for name, owner in (("a", "one"), ("b", "one"), ("c", "two")):
        make_table(server, 20, name)
        server.sql(f"ALTER TABLE {name} OWNER TO {owner}")
    server.sql("""
        CREATE FUNCTION lock() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_lock(4711), set_config('left.by', TG_RELNAME, false); RETURN NEW; END $$;
        CREATE TRIGGER lock BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION lock();
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.n := length(coalesce(current_setting('left.by', true), '')); RETURN NEW; END $$;
        CREATE TRIGGER see BEFORE UPDATE ON b FOR EACH ROW EXECUTE FUNCTION see();
    """)
    first = start(server, "a", "n = 1", batch=10, sleep_ms=1000, user="one")
    wait_for_rows(server, first, 10)
    second = start(server, "b", "n = 1", batch=10, sleep_ms=MINUTE, user="one")
    complete(server, first)
    wait_for_rows(server, second, 10)
    assert server.sql("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711") == []
    assert dict(counts(server, "b")) == {0: 20}, "a setting of the first job's trigger is there"


def test_the_owner_of_the_table_is_the_master(house: Database) -> None:
    """A role with UPDATE on one column blocks the table's owner, who can neither see the job nor cancel it."""
    job = start(house, "t", "n = n + 1", batch=10, sleep_ms=MINUTE, user="lodger")
    wait_for_nap_between_batches(house, job)
    assert progress(house, job, user="proprietor")["owner"] == "lodger"
    house.sql("SELECT backfill.pause(%s)", [job], user="proprietor")
    wait_for(house, job, "paused")
    house.sql("SELECT backfill.cancel(%s)", [job], user="proprietor")
    assert progress(house, job)["state"] == "cancelled"
    complete(house, start(house, "t", "n = 7", user="proprietor"))


@pytest.mark.parametrize("state", ["paused", "running", "failed"])
def test_a_job_whose_owner_has_lost_the_right(house: Database, state: str) -> None:
    """After REVOKE the job can't go on, and keeps the column from everybody else."""
    job = start(
        house, "t", "n = n + 1 / (id - 15)", batch=10, sleep_ms=0 if state == "failed" else MINUTE, user="lodger"
    )
    if state == "failed":
        wait_for(house, job, "failed")
    else:
        wait_for_nap_between_batches(house, job)
    if state == "paused":
        house.sql("SELECT backfill.pause(%s)", [job], user="lodger")
        wait_for(house, job, "paused")
    house.sql("REVOKE UPDATE (n) ON t FROM lodger")

    def begun() -> int | None:
        try:
            return start(house, "t", "n = 7", user="proprietor")
        except psycopg.errors.ObjectInUse:
            return None

    complete(house, wait_until(begun, 20, "the table's owner to start a job", every=0.5))
    wait_until(lambda: progress(house, job)["state"] in ("cancelled", "failed"), 30, "the job to end")
    assert house.value("SELECT count(*) FROM t WHERE n = 7") == 100


def test_an_open_definition(house: Database) -> None:
    """A transaction that has defined a job, and is left open, makes others' calls wait for ever."""
    idler = house.connect("lodger", autocommit=False)
    idler.execute("SELECT backfill.define('t', 'n = 1')")
    with pytest.raises(psycopg.errors.LockNotAvailable) as error:
        house.sql("SET statement_timeout = '40s'; SELECT backfill.start('t', set_clause => 'n = 2')", user="proprietor")
    said = f"{error.value.diag.message_primary} {error.value.diag.message_detail}"
    assert str(idler.info.backend_pid) in said and "lodger" in said and error.value.diag.message_hint
    idler.rollback()
    complete(house, start(house, "t", "n = 2", user="proprietor"))


def test_a_database_that_is_being_renamed(new_cluster: New) -> None:
    """ALTER DATABASE of one database in an open transaction stops the launcher for all of them."""
    server = new_cluster(conf={"backfill.launcher_interval": "1s"})
    for name in ("first", "second"):
        server.sql(f"CREATE DATABASE {name}")
        server.database(name).sql("CREATE EXTENSION backfill")
    work = server.database("second")
    make_table(work, 300)
    job = start(work, "t", "n = n + 1", batch=10, sleep_ms=200)
    renaming = server.connect(autocommit=False)
    renaming.execute("ALTER DATABASE first RENAME TO third")
    for _ in range(3):
        pid = work.terminate_worker(job)
        wait_until(lambda old=pid: set(work.worker_pids(job)) - {old}, 40, "the launcher to take the job up again")
    renaming.rollback()
    complete(work, job)


def test_jobs_that_only_wait(new_cluster: New) -> None:
    """Jobs of one role that wait for their throttles hold all slots; nobody else's job ever runs."""
    server = new_cluster(conf={"backfill.max_workers": "4", "backfill.launcher_interval": "1s"})
    server.sql("CREATE EXTENSION backfill; CREATE ROLE greedy LOGIN; GRANT ALL ON SCHEMA public TO greedy")
    for number in range(6):
        make_table(server, 10, f"g{number}")
        server.sql(f"ALTER TABLE g{number} OWNER TO greedy")
        start(server, f"g{number}", "n = 1", options={"throttle_query": "SELECT true"}, user="greedy")
    make_table(server, 100)
    complete(server, start(server, "t", "n = 1"), timeout=40)


def test_a_lock_on_the_extensions_table(new_cluster: New) -> None:
    """Who may write to all tables may lock them: workers wait for that lock while they hold those of their rows."""
    server = new_cluster(conf={"backfill.launcher_interval": "1s"})
    server.sql("CREATE EXTENSION backfill; CREATE ROLE penman LOGIN IN ROLE pg_write_all_data")
    make_table(server, 1000)
    job = start(server, "t", "n = n + 1", batch=10, sleep_ms=20)
    wait_for_rows(server, job, 10)
    locker = server.connect("penman", autocommit=False)
    for table in server.sql(
        "SELECT oid::regclass::text FROM pg_class"
        " WHERE relnamespace = 'backfill_internal'::regnamespace AND relkind = 'r'"
    ):
        try:
            with locker.transaction():
                locker.execute(f"LOCK TABLE {table[0]} IN ACCESS EXCLUSIVE MODE")
        except psycopg.errors.InsufficientPrivilege:
            continue

    def nobody_waits() -> bool:
        return not server.value("SELECT count(*) FROM pg_locks WHERE NOT granted")

    def rows_are_free() -> bool:
        try:
            server.sql("SELECT count(*) FROM (SELECT FROM t FOR UPDATE NOWAIT) r")
            return True
        except psycopg.errors.LockNotAvailable:
            return False

    # Twice in a row: a batch that runs holds its rows for a moment.
    wait_until(lambda: nobody_waits() or rows_are_free(), 30, "the rows to be free again")
    wait_until(rows_are_free, 30, "the rows to be free again")
    locker.rollback()
    wait_until(lambda: progress(server, job)["rows_done"] > 20, 30, "the job to go on")


def test_texts_of_errors(db: Database) -> None:
    """An error of 40 MB is stored in full, and shown to everybody who looks at backfill.progress."""
    make_table(db, 3)
    db.sql("""
        CREATE FUNCTION scream() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION '%', repeat('x', 20000000) USING DETAIL = repeat('y', 20000000); END $$;
        CREATE TRIGGER scream BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION scream()
    """)
    jobs = [start(db, "t", "n = 1"), 0]
    wait_for(db, jobs[0], "failed")
    db.sql("SELECT backfill.cancel(%s)", [jobs[0]])
    jobs[1] = start(db, "t", "n = 1", options={"max_failed_rows": 20})
    wait_for(db, jobs[1], "completed", "failed")
    # Each text by itself; what is shown is put together of some.
    for view in ("progress", "failed_rows", "events"):
        assert db.value(f"SELECT coalesce(max(octet_length(v::text)), 0) FROM backfill.{view} v") < 20_000, view
    for column in ("message", "detail", "hint", "context"):
        assert db.value(f"SELECT coalesce(max(octet_length({column})), 0) FROM backfill.failed_rows") <= 8192, column
