"""The extension's own tables, and the roles whose numbers stand in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from harness import Cluster, Database, wait_until
from harness.jobs import complete, progress, start, switch, wait_for_no_worker, wait_for_rows
from harness.tables import counts, make_table
from harness.traps.installed import grant_by_default, grant_no_more, open_doors

New = Callable[..., Cluster]
DENIED = psycopg.errors.InsufficientPrivilege


@pytest.fixture
def bare(shared_cluster: Cluster) -> Iterator[Database]:
    """A database without the extension, and a role that it is to be installed for."""
    shared_cluster.sql("""
        DO $$ BEGIN CREATE ROLE settler LOGIN; CREATE ROLE penman LOGIN IN ROLE pg_write_all_data, pg_read_all_data;
        EXCEPTION WHEN duplicate_object THEN NULL; END $$
    """)
    shared_cluster.sql("CREATE DATABASE settled")
    yield shared_cluster.database("settled")
    shared_cluster.close_connections()
    shared_cluster.sql("DROP DATABASE settled WITH (FORCE)")


def test_default_privileges_and_a_trigger(bare: Database) -> None:
    """A superuser's default privileges give a role TRIGGER on the table of jobs: it runs as whoever starts a job."""
    grant_by_default(bare, "settler")
    bare.sql("CREATE EXTENSION backfill")
    grant_no_more(bare, "settler")
    found = []
    attacks = {
        "a trigger": "CREATE TRIGGER mine BEFORE INSERT ON backfill_internal.job"
        " FOR EACH ROW EXECUTE FUNCTION settled.seize()",
        "an operator": "CREATE OPERATOR backfill.= (LEFTARG = int, RIGHTARG = text, FUNCTION = settled.equal)",
        "an operator within": "CREATE OPERATOR backfill_internal.="
        " (LEFTARG = int, RIGHTARG = text, FUNCTION = settled.equal)",
        "the number of the next job": "SELECT setval('backfill_internal.job_id_seq', 1)",
        "a look at all jobs": "SELECT count(*) FROM backfill_internal.job",
        "a row": "DELETE FROM backfill_internal.event",
    }
    bare.sql("CREATE SCHEMA settled AUTHORIZATION settler")
    bare.sql(
        """
        CREATE FUNCTION settled.seize() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN ALTER ROLE settler SUPERUSER; RETURN NEW; END $$;
        CREATE FUNCTION settled.equal(int, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        GRANT USAGE ON SCHEMA settled TO PUBLIC
        """,
        user="settler",
    )
    for what, statement in attacks.items():
        try:
            bare.sql(statement, user="settler")
            found.append(what)
        except DENIED:
            pass
    make_table(bare, 10)
    complete(bare, start(bare, "t", "n = 1"))
    if bare.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'settler'"):
        found.append("superuser")
        bare.sql("ALTER ROLE settler NOSUPERUSER")
    assert found + open_doors(bare) == []


def test_the_guard_under_replica(db: Database, bare: Database) -> None:
    """Who may write to all tables, and set session_replication_role, makes a job the superuser's."""
    db.sql("GRANT SET ON PARAMETER session_replication_role TO penman")
    make_table(db, 10)
    job = start(db, "t", "n = 1", batch=1, sleep_ms=60_000)
    try:
        for write in (
            "UPDATE backfill_internal.job SET owner = 'postgres',"
            f""" work = work || '{{"set_clause": "n = 666"}}' WHERE id = {job}""",
            "DELETE FROM backfill_internal.checkpoint",
            "INSERT INTO backfill_internal.event OVERRIDING SYSTEM VALUE SELECT * FROM backfill_internal.event",
        ):
            with pytest.raises(DENIED):
                db.sql(f"SET session_replication_role = replica; {write}", user="penman")
    finally:
        db.sql("REVOKE SET ON PARAMETER session_replication_role FROM penman")
    assert open_doors(db) == []


def test_a_role_with_the_number_of_one_that_is_gone(new_cluster: New) -> None:
    """The launcher runs a dropped role's job as whoever has its OID now, without any call."""
    server = new_cluster(conf={"backfill.launcher_interval": "1s"})
    server.sql("CREATE EXTENSION backfill; CREATE ROLE gone LOGIN; CREATE ROLE proof LOGIN")
    make_table(server, 100)
    make_table(server, 100, "other")
    server.sql("GRANT ALL ON t TO gone")
    job = start(server, "t", "n = n + 1", batch=10, sleep_ms=60_000, user="gone")
    wait_for_rows(server, job, 10)
    switch(server, False)
    wait_for_no_worker(server, job)
    number = server.value("SELECT 'gone'::regrole::oid")
    server.sql("REVOKE ALL ON t FROM gone; DROP ROLE gone; CREATE ROLE heir LOGIN SUPERUSER")
    server.sql(f"SET allow_system_table_mods = on; UPDATE pg_authid SET oid = {number} WHERE rolname = 'heir'")
    done = counts(server)
    switch(server, True)
    other = start(server, "other", "n = 1", batch=10, sleep_ms=60_000)
    # The launcher has been there when it has taken up another.
    server.terminate_worker(other)
    server.worker_pid(other)
    row = wait_until(
        lambda: (row := progress(server, job))["state"] in ("paused", "failed") and row, 30, "the job to stand still"
    )
    assert row["waiting_for"] or row["last_error"], row
    assert server.worker_pids(job) == [] and counts(server) == done
