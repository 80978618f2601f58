"""Rights, roles and what the clauses call change under a running job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from harness import Cluster, Database, Server
from harness.jobs import complete, fail, progress, wait_for
from harness.walks import ROWS, WAYS, assert_once, assert_partly, begin, begin_all, go, make, step


@pytest.fixture(scope="module")
def shared_cluster(server: Server) -> Iterator[Cluster]:
    """A server with room for a job in each way at a time."""
    with Cluster(server=server, conf={"backfill.max_workers": 8}) as cluster:
        yield cluster


@pytest.fixture
def people(db: Database) -> Iterator[Database]:
    """Alice owns the tables, and defines the jobs; bob is somebody else."""
    db.sql(f"""
        CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN;
        GRANT CREATE ON DATABASE {db.name} TO alice, bob;
        CREATE SCHEMA lib;
        GRANT USAGE ON SCHEMA lib TO PUBLIC;
        CREATE FUNCTION lib.step(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
        CREATE TYPE lib.size AS ENUM ('small', 'large')
    """)
    yield db
    db.sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename IN ('alice', 'alicia', 'bob')")
    for role in ("alice", "alicia", "bob"):
        drop = f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}"
        db.sql(f"DO $$ BEGIN {drop}; EXCEPTION WHEN undefined_object THEN NULL; END $$")


@dataclass
class End:
    """A change that ends the job; what it says, with which SQLSTATE, and a part of its hint; how to undo it."""

    ddl: str
    says: str
    sqlstate: str
    hint: str
    undo: str


WHOSE = "The batches run with the rights of role alice, which defined the job"
ENDS = {
    "table given to another": End(
        "ALTER TABLE {t} OWNER TO bob",
        "permission denied for table",
        "42501",
        WHOSE,
        "ALTER TABLE {t} OWNER TO alice",
    ),
    "update revoked": End(
        "REVOKE UPDATE ON {t} FROM alice", "permission denied for table t", "42501", WHOSE, "GRANT ALL ON {t} TO alice"
    ),
    "select revoked": End(
        "REVOKE SELECT ON {t} FROM alice", "permission denied for table", "42501", WHOSE, "GRANT ALL ON {t} TO alice"
    ),
    "schema closed": End(
        "ALTER SCHEMA {s} OWNER TO bob",
        "permission denied for schema {s}",
        "42501",
        WHOSE,
        "GRANT USAGE ON SCHEMA {s} TO alice",
    ),
    "row security forced": End(
        "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        'query would be affected by row-level security policy for table "t"',
        "42501",
        "NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE {t} DISABLE ROW LEVEL SECURITY",
    ),
    "function closed": End(
        "REVOKE EXECUTE ON FUNCTION lib.step(int) FROM PUBLIC",
        "permission denied for function step",
        "42501",
        WHOSE,
        "GRANT EXECUTE ON FUNCTION lib.step(int) TO PUBLIC",
    ),
    "function renamed": End(
        "ALTER FUNCTION lib.step(int) RENAME TO stride",
        "function lib.step(integer) does not exist",
        "42883",
        "No function matches",
        "ALTER FUNCTION lib.stride(int) RENAME TO step",
    ),
    "type renamed": End(
        "ALTER TYPE lib.size RENAME TO extent",
        'type "lib.size" does not exist',
        "42704",
        "",
        "ALTER TYPE lib.extent RENAME TO size",
    ),
}
# A function and a type of somebody's, neither of which is evaluated when the statement is planned.
CLAUSE = "n = n + CASE WHEN u::text = 'small'::lib.size::text THEN 0 ELSE lib.step(u) END"


@pytest.mark.parametrize("change", ENDS)
def test_a_change_of_rights_or_of_what_is_called(people: Database, change: str) -> None:
    """The job ends, and says whose rights or what is missing; with it back, the job goes on."""
    db, end = people, ENDS[change]
    ways = ("ranges", "waves", "pages")
    jobs = {}
    for way in ways:
        make(db, f"{way}.t", user="alice")
        jobs[way] = begin(db, way, f"{way}.t", set_clause=CLAUSE, user="alice")
    everywhere = ways if "{" in end.ddl else ways[:1]
    for way in everywhere:
        db.sql(end.ddl.format(t=f"{way}.t", s=way))
    for job in jobs.values():
        go(db, job)
    for way, job in jobs.items():
        error = fail(db, job)
        assert end.says.format(s=way) in error and f"SQLSTATE {end.sqlstate}" in error and end.hint in error, error
        assert_partly(db, job, f"{way}.t")
    for way in everywhere:
        db.sql(end.undo.format(t=f"{way}.t", s=way))
    for way, job in jobs.items():
        db.sql("SELECT backfill.resume(%s)", [job])
        complete(db, job)
        assert_once(db, job, f"{way}.t")


@pytest.mark.parametrize("way", WAYS)
def test_a_role_that_changes(people: Database, way: str) -> None:
    """A job that runs goes on, whether or not its owner could log in now; of a renamed one a superuser decides."""
    db = people
    make(db, f"{way}.t", user="alice")
    job = begin(db, way, f"{way}.t", user="alice")
    for ddl in (
        "ALTER ROLE alice NOLOGIN",
        f"REVOKE CONNECT ON DATABASE {db.name} FROM PUBLIC",
        "ALTER ROLE alice CONNECTION LIMIT 0 VALID UNTIL '2000-01-01'",
        "ALTER ROLE alice SET statement_timeout = '1ms'",
        "ALTER ROLE alice SET role = 'bob'",
        "CREATE OR REPLACE FUNCTION lib.step(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'",
    ):
        db.sql(ddl)
        step(db, job)
    assert progress(db, job)["state"] == "running"
    db.sql("ALTER ROLE alice RENAME TO alicia")
    go(db, job)
    wait_for(db, job, "paused")
    assert "renamed" in progress(db, job)["waiting_for"]
    db.sql(f"ALTER ROLE alicia CONNECTION LIMIT -1; GRANT CONNECT ON DATABASE {db.name} TO alicia")
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert_once(db, job, f"{way}.t")


def test_a_role_that_could_not_be_let_in_again(people: Database) -> None:
    """Its job is paused: `resume` says what is missing, changes nothing, and goes on once it is there."""
    db = people
    make(db, "s.t", user="alice")
    job = begin(db, "waves", "s.t", user="alice")
    db.sql(f"REVOKE CONNECT ON DATABASE {db.name} FROM PUBLIC; SELECT backfill.pause({job})")
    wait_for(db, job, "paused")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
        db.sql("SELECT backfill.resume(%s)", [job])
    assert "GRANT CONNECT" in str(error.value.diag.message_hint)
    assert progress(db, job)["state"] == "paused"
    db.sql(f"GRANT CONNECT ON DATABASE {db.name} TO alice; SELECT backfill.resume({job})")
    go(db, job)
    complete(db, job)
    assert_once(db, job, "s.t")


def test_all_that_a_role_owns_is_given_away(people: Database) -> None:
    """REASSIGN OWNED moves the tables, not the jobs; DROP ROLE leaves jobs that say so and can be ended."""
    db = people
    jobs = begin_all(db, ("ranges", "waves", "pages"), user="alice")
    db.sql("REASSIGN OWNED BY alice TO bob; DROP OWNED BY alice")
    for job in jobs.values():
        go(db, job)
    for way, job in jobs.items():
        assert "permission denied for" in fail(db, job)
        assert_partly(db, job, f"{way}.t")
    db.sql("DROP ROLE alice")
    for job in jobs.values():
        with pytest.raises(psycopg.errors.UndefinedObject, match="role"):
            db.sql("SELECT backfill.resume(%s)", [job])
        assert db.value("SELECT backfill.cancel(%s)", [job]) == "cancelled"
        db.sql("SELECT backfill.forget(%s)", [job])


def test_a_function_that_is_replaced(people: Database) -> None:
    """The new one is called from the next batch on; each row is done once, by the one or the other."""
    db = people
    function = (
        "CREATE OR REPLACE FUNCTION lib.step(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN {}; END'"
    )
    db.sql(function.format(1))
    jobs = begin_all(db, ("ranges", "waves", "pages"), set_clause="n = n + lib.step(u)")
    before = {way: progress(db, job)["rows_updated"] for way, job in jobs.items()}
    db.sql(function.format(10))
    for job in jobs.values():
        go(db, job)
    for way, job in jobs.items():
        complete(db, job)
        counts = db.sql(f"SELECT n, count(*) FROM {way}.t GROUP BY n ORDER BY n")
        assert counts == [(1, before[way]), (10, ROWS - before[way])]
