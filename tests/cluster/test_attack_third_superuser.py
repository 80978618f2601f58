"""A superuser's own jobs, attacked by a third reader: code that the look into the catalogs misses, or that comes later.

Whatever the way, no function of a role that is no superuser runs with a superuser's rights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from harness import Cluster, wait_until
from test_attack_outsider import STATE

Make = Callable[..., Cluster]
SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = 'eve'"
ENDED = ("completed", "failed", "paused", "cancelled")
START = "SELECT backfill.start('t', set_clause => $c${}$c$)"
LOOKS = (
    "SELECT backfill.plan('t', set_clause => $c${}$c$)",
    "SELECT backfill.preview('t', set_clause => $c${}$c$)",
)
TRAP = """
CREATE FUNCTION spring() RETURNS integer LANGUAGE plpgsql SET search_path = public AS $$
BEGIN IF current_user <> 'eve' THEN {then}; END IF; RETURN 1; END $$;
CREATE FUNCTION trap(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN public.spring(); END $$;
CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM public.spring(); RETURN coalesce(new, old); END';
"""


@pytest.fixture
def cluster(new_cluster: Make) -> Cluster:
    """A server where superusers' jobs are refused on what others have written."""
    made = new_cluster(conf={"backfill.allow_superuser_jobs": "off"})
    made.sql("CREATE EXTENSION backfill; CREATE ROLE eve LOGIN; GRANT ALL ON SCHEMA public TO PUBLIC")
    return made


def arm(cluster: Cluster) -> Path:
    """Makes eve's functions: with more rights than hers they make her a superuser, and a file, which stays for good."""
    mark = cluster.data / "was-here"
    cluster.sql(TRAP.format(then=f"COPY (SELECT 1) TO PROGRAM 'touch {mark}'; ALTER ROLE eve SUPERUSER"), user="eve")
    return mark


def attempt(cluster: Cluster, statement: str, user: str = "postgres") -> object:
    """A call, which may be refused; what it gives."""
    with suppress(psycopg.Error):
        rows = cluster.sql(statement, user=user)
        return rows[0][0] if rows else None
    return None


def run(cluster: Cluster, clause: str) -> None:
    """Looks at a backfill, and runs it to its end."""
    for look in LOOKS:
        attempt(cluster, look.format(clause))
    if job := attempt(cluster, START.format(clause)):
        wait_until(lambda: cluster.value(STATE, [job]) in ENDED, 30, "its end")


def assert_nothing_ran(cluster: Cluster, mark: Path) -> None:
    """No function of eve's had more rights than hers."""
    assert (mark.exists(), cluster.value(SUPERUSER)) == (False, False)


REFERENCES = {
    "to a table of eve's": (
        "CREATE TABLE g (n int PRIMARY KEY); INSERT INTO g SELECT generate_series(1, 100);"
        "CREATE INDEX ON g (n) WHERE trap(1) > 0; GRANT REFERENCES ON g TO PUBLIC",
        "CREATE TABLE t (id int PRIMARY KEY, n int REFERENCES g (n)); INSERT INTO t VALUES (1, 1)",
        "",
    ),
    "from a table of eve's": (
        "",
        "CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE); INSERT INTO t VALUES (1, 1);"
        "GRANT SELECT, REFERENCES ON t TO eve",
        "CREATE TABLE g (n int REFERENCES t (n)); CREATE INDEX ON g (n) WHERE trap(1) > 0",
    ),
    "from a table of eve's, RESTRICT": (
        "",
        "CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE); INSERT INTO t VALUES (1, 1);"
        "GRANT SELECT, REFERENCES ON t TO eve",
        "CREATE TABLE g (n int REFERENCES t (n) ON UPDATE RESTRICT); CREATE INDEX ON g (n) WHERE trap(1) > 0",
    ),
}


@pytest.mark.parametrize("way", REFERENCES)
def test_a_referential_check(cluster: Cluster, way: str) -> None:
    """It runs as eve, but what it queues is fired at the commit, as the superuser."""
    before, table, after = REFERENCES[way]
    cluster.sql(
        "CREATE TABLE q (x int);"
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS"
        " $$ BEGIN IF current_user <> 'eve' THEN ALTER ROLE eve SUPERUSER; END IF; RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON q DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION late();"
        "CREATE FUNCTION trap(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';" + before,
        user="eve",
    )
    cluster.sql(table)
    if after:
        cluster.sql(after, user="eve")
    cluster.sql(
        "CREATE OR REPLACE FUNCTION trap(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
        " INSERT INTO public.q VALUES (1); RETURN 1; EXCEPTION WHEN OTHERS THEN RETURN 1; END $$",
        user="eve",
    )
    run(cluster, "n = n + 1")
    assert cluster.value(SUPERUSER) is False


TYPES = {
    "a domain three deep": (
        "CREATE DOMAIN d2 AS d; CREATE DOMAIN d3 AS d2; CREATE TABLE t (id int PRIMARY KEY, n d3)",
        "n = 1",
    ),
    "a domain in a row type": (
        "CREATE TYPE c AS (a d); CREATE TABLE t (id int PRIMARY KEY, n c)",
        "n = ('(2)'::text)::c",
    ),
    "a range": ("CREATE TABLE t (id int PRIMARY KEY, n r)", "n = '[1,5)'"),
    "an array of a domain": ("CREATE DOMAIN d2 AS d; CREATE TABLE t (id int PRIMARY KEY, n d2[])", "n = '{2}'"),
    "the cast of an enum": ("CREATE TABLE t (id int PRIMARY KEY, was text DEFAULT 'a', n e)", "n = was::e"),
}


@pytest.mark.parametrize("way", TYPES)
def test_a_type(cluster: Cluster, way: str) -> None:
    """What its values are checked by, and made with."""
    table, clause = TYPES[way]
    cluster.sql(
        "CREATE DOMAIN d AS integer; CREATE TYPE r AS RANGE (subtype = d); CREATE TYPE e AS ENUM ('a')", user="eve"
    )
    cluster.sql(f"{table}; INSERT INTO t (id) VALUES (1)")
    mark = arm(cluster)
    cluster.sql(
        "ALTER DOMAIN d ADD CHECK (trap(VALUE) > 0) NOT VALID;"
        "CREATE FUNCTION to_e(text) RETURNS e LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN PERFORM public.spring(); RETURN 'a'; END $$;"
        "CREATE CAST (text AS e) WITH FUNCTION to_e(text)",
        user="eve",
    )
    run(cluster, clause)
    assert_nothing_ran(cluster, mark)


@pytest.mark.parametrize("event", ["INSERT", "DELETE"])
def test_a_row_that_moves_to_another_partition(cluster: Cluster, event: str) -> None:
    """Where a foreign key follows, an UPDATE may be a DELETE and an INSERT."""
    cluster.sql(
        "CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE); INSERT INTO t VALUES (1, 1);"
        "CREATE TABLE f (n int REFERENCES t (n) ON UPDATE CASCADE) PARTITION BY RANGE (n);"
        "CREATE TABLE f1 PARTITION OF f FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE f2 PARTITION OF f FOR VALUES FROM (10) TO (1000); INSERT INTO f VALUES (1);"
        "GRANT SELECT, TRIGGER ON f, f1, f2 TO eve"
    )
    mark = arm(cluster)
    cluster.sql(f"CREATE TRIGGER x BEFORE {event} ON f FOR EACH ROW EXECUTE FUNCTION trg()", user="eve")
    run(cluster, "n = n + 10")
    assert_nothing_ran(cluster, mark)


def test_a_condition_of_a_trigger_whose_author_has_lost_the_right(cluster: Cluster) -> None:
    """Nothing tells any more who wrote it."""
    cluster.sql(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1); GRANT SELECT, TRIGGER ON t TO eve"
    )
    mark = arm(cluster)
    cluster.sql(
        "CREATE TRIGGER x BEFORE UPDATE ON t FOR EACH ROW WHEN (trap(new.n) > 0)"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        user="eve",
    )
    cluster.sql("REVOKE ALL ON t FROM eve")
    run(cluster, "n = n + 10")
    assert_nothing_ran(cluster, mark)


def test_a_condition_of_a_trigger_that_reads_files(cluster: Cluster) -> None:
    """It calls a function of PostgreSQL's own that its author may not call."""
    cluster.sql(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1); GRANT SELECT, TRIGGER ON t TO eve"
    )
    cluster.sql(
        "CREATE TRIGGER x BEFORE UPDATE ON t FOR EACH ROW WHEN (pg_read_file('PG_VERSION') <> new.n::text)"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        user="eve",
    )
    cluster.sql("REVOKE ALL ON t FROM eve")
    job = cluster.value(START.format("n = n + 10"))
    wait_until(lambda: cluster.value(STATE, [job]) in ENDED, 30, "its end")
    error = cluster.value("SELECT last_error FROM backfill.progress WHERE job_id = %s", [job])
    assert cluster.value(STATE, [job]) == "failed" and "not everybody may call function pg_read_file" in error, error


def test_code_that_is_attached_while_the_job_runs(cluster: Cluster) -> None:
    """Not to its table, but to one that a foreign key follows."""
    cluster.sql(
        "CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE); INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i;"
        "CREATE TABLE f (n int REFERENCES t (n) ON UPDATE CASCADE); INSERT INTO f SELECT n FROM t;"
        "GRANT SELECT, TRIGGER ON f TO eve"
    )
    mark = arm(cluster)
    job = cluster.value("SELECT backfill.start('t', 10, 50, set_clause => 'n = n + 10000')")
    wait_until(lambda: cluster.value("SELECT rows_updated FROM backfill.progress") > 0, 30, "a batch")
    cluster.sql("CREATE TRIGGER x BEFORE UPDATE ON f FOR EACH ROW EXECUTE FUNCTION trg()", user="eve")
    wait_until(lambda: cluster.value(STATE, [job]) in ENDED, 30, "its end")
    assert cluster.value(STATE, [job]) == "failed"
    assert_nothing_ran(cluster, mark)


def test_code_that_came_after_the_definition(cluster: Cluster) -> None:
    """Who looks at a definition, or rehearses it, is as careful as who defines it: another superuser, too."""
    cluster.sql(
        "CREATE ROLE dba LOGIN SUPERUSER; CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)"
    )
    mark = arm(cluster)
    job = cluster.value("SELECT backfill.define('t', 'n = n + 10')")
    cluster.sql("GRANT SELECT, TRIGGER ON t TO eve")
    cluster.sql("CREATE TRIGGER x BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION trg()", user="eve")
    calls = ["SELECT backfill.plan('t')", "SELECT backfill.preview('t')", f"SELECT backfill.rehearse({job})"]
    for user in ("postgres", "dba"):
        for call in calls:
            attempt(cluster, call, user)
    assert_nothing_ran(cluster, mark)
    cluster.sql("ALTER TABLE t OWNER TO eve; GRANT ALL ON t TO PUBLIC")
    cluster.sql("CREATE INDEX ON t (n) WHERE trap(1) > 0", user="eve")
    for user in ("postgres", "dba"):
        for call in calls:
            attempt(cluster, call, user)
    assert_nothing_ran(cluster, mark)


def test_a_partition_that_came_after_the_job(cluster: Cluster) -> None:
    """It is looked at by each call about the job."""
    cluster.sql(
        "CREATE TABLE p (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100); INSERT INTO p VALUES (1, 1), (2, 2)"
    )
    mark = arm(cluster)
    cluster.sql(
        "CREATE TABLE p2 (id int NOT NULL, n int); INSERT INTO p2 VALUES (101, 1);"
        "CREATE INDEX ON p2 (n) WHERE trap(1) > 0",
        user="eve",
    )
    job = cluster.value("SELECT backfill.start('p', set_clause => 'n = 5', where_clause => 'n <> 5')")
    wait_until(lambda: cluster.value(STATE, [job]) == "completed", 30, "its end")
    pending = cluster.value("SELECT backfill.define('p', 'n = 6', 'n <> 6', name => 'pend')")
    cluster.sql("ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200)")
    # PostgreSQL itself has called it to see whether an index of the partition will do.
    cluster.sql("ALTER ROLE eve NOSUPERUSER")
    mark.unlink(missing_ok=True)
    for call in (
        f"SELECT backfill.verify({job})",
        f"SELECT backfill.verify({job}, check_clause => 'n > 0')",
        "SELECT backfill.plan('p', name => 'pend')",
        "SELECT backfill.preview('p', name => 'pend')",
        f"SELECT backfill.rehearse({pending})",
        f"SELECT backfill.procedure({pending})",
        "SELECT backfill.start('p', name => 'pend')",
    ):
        attempt(cluster, call)
    time.sleep(1)
    assert_nothing_ran(cluster, mark)
