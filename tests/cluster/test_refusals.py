"""What is refused since it would go wrong later without a word."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from harness import Cluster, Database
from harness.jobs import (
    complete,
    fail,
    progress,
    start,
    start_count,
    wait_for,
    wait_for_nap_between_batches,
    wait_for_state,
)
from harness.tables import counts, make_table

MINUTE = 60_000


@pytest.fixture
def bare(shared_cluster: Cluster) -> Iterator[Database]:
    """A database without the extension, in which the role squatter may create schemas."""
    shared_cluster.sql("DO $$ BEGIN CREATE ROLE squatter LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    shared_cluster.sql("CREATE DATABASE bare")
    shared_cluster.sql("GRANT CREATE ON DATABASE bare TO squatter")
    yield shared_cluster.database("bare")
    shared_cluster.close_connections()
    shared_cluster.sql("DROP DATABASE bare WITH (FORCE)")


def test_a_generated_key_is_refused(db: Database) -> None:
    """It may be computed from what set_clause writes: rows would move ahead of the walk."""
    db.sql("""
        CREATE TABLE t (a int NOT NULL, g int GENERATED ALWAYS AS (a) STORED PRIMARY KEY, n int DEFAULT 0);
        INSERT INTO t SELECT i * 10 FROM generate_series(1, 500) i
    """)
    for options in ({}, {"key": "t_pkey"}):
        with pytest.raises(psycopg.Error) as caught:
            start(db, "t", "a = a + 2003, n = n + 1", batch=10, options=options)
        diag = caught.value.diag
        assert "generated" in f"{diag.message_primary} {diag.message_detail}" and diag.message_hint


def test_a_rule_for_update_is_refused(db: Database) -> None:
    """It would turn the batch's UPDATE into something else; disabled it does no harm."""
    make_table(db, 300)
    db.sql("CREATE RULE r AS ON UPDATE TO t DO INSTEAD NOTHING")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="rule r") as caught:
        start(db, "t", "n = n + 1")
    assert "DISABLE RULE" in caught.value.diag.message_hint
    db.sql("ALTER TABLE t DISABLE RULE r")
    complete(db, start(db, "t", "n = n + 1"))
    assert counts(db) == [(1, 300)]


def test_a_rule_that_comes_during_the_run_fails_the_job(db: Database) -> None:
    """With nothing passed over: it goes on once the rule is gone."""
    make_table(db, 300)
    job = start_count(db, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    db.sql("CREATE RULE r AS ON UPDATE TO t DO INSTEAD NOTHING")
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    assert "rule r" in fail(db, job)
    assert progress(db, job)["rows_done"] == 100
    db.sql("DROP RULE r ON t")
    db.sql("SELECT backfill.resume(%s)", [job])
    wait_for(db, job, "completed")
    assert counts(db) == [(1, 300)]


@pytest.mark.parametrize("kind", ["regclass", "regtype", "regproc"])
def test_a_key_of_names_is_passed_over(db: Database, kind: str) -> None:
    """The text form of these types is a name, which can come to mean another object during the walk."""
    db.sql(f"CREATE TABLE t (r {kind} PRIMARY KEY, n int NOT NULL DEFAULT 0)")
    with pytest.raises(psycopg.Error, match="no key to walk it by") as caught:
        start(db, "t", "n = n + 1")
    assert caught.value.diag.message_hint
    db.sql("ALTER TABLE t ADD id int UNIQUE NOT NULL; INSERT INTO t VALUES (0, 0, 1)")
    complete(db, start(db, "t", "n = n + 1"))
    assert db.value("SELECT n FROM t") == 1


@pytest.mark.parametrize(
    "squat",
    [
        "SELECT 1",
        "CREATE FUNCTION backfill.start(regclass, integer) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OPERATOR backfill./ (LEFTARG = bigint, RIGHTARG = float8, FUNCTION = float84div)",
    ],
    ids=["empty", "function", "operator"],
)
def test_a_schema_of_anothers_is_not_moved_into(bare: Database, squat: str) -> None:
    """Its owner could change at any time what the names in it mean."""
    bare.sql("CREATE SCHEMA backfill", user="squatter")
    if "float84div" in squat:
        bare.sql(
            "CREATE FUNCTION backfill.f(bigint, float8) RETURNS float8 LANGUAGE sql AS 'SELECT 1.0::float8'",
            user="squatter",
        )
        squat = squat.replace("float84div", "backfill.f")
    bare.sql(squat, user="squatter")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match='schema "backfill"') as caught:
        bare.sql("CREATE EXTENSION backfill")
    assert "DROP SCHEMA" in caught.value.diag.message_hint
    bare.sql("DROP SCHEMA backfill CASCADE; CREATE EXTENSION backfill")


def test_an_empty_schema_of_ones_own_is_used(bare: Database) -> None:
    """As a dump brings it; with something in it, it is refused as well."""
    bare.sql("CREATE SCHEMA backfill; CREATE TABLE backfill.mine ()")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not empty"):
        bare.sql("CREATE EXTENSION backfill")
    bare.sql("DROP TABLE backfill.mine; CREATE EXTENSION backfill")
    make_table(bare, 100)
    wait_for_state(bare, start_count(bare), "completed")


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_old_snapshot_hides_no_other_job_on_the_column(db: Database, level: str) -> None:
    """Two jobs on one column are refused also where the transaction's snapshot does not show the first."""
    make_table(db, 300)
    late = db.connect()
    late.execute(f"BEGIN ISOLATION LEVEL {level}")
    late.execute("SELECT 1")
    job = start_count(db, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    with pytest.raises(psycopg.Error) as caught:
        late.execute("SELECT backfill.start('t', set_clause => 'n = n + 1', name => 'late')")
        late.execute("COMMIT")
    assert caught.value.diag.message_hint
    late.rollback()
    assert db.value("SELECT count(*) FROM backfill.progress") == 1


def test_pause_all_waits_for_nobody(db: Database) -> None:
    """One job is being changed in somebody's open transaction: the others are paused, and a WARNING names it."""
    jobs = []
    for name in ("a", "b", "c"):
        make_table(db, 300, name)
        jobs.append(start_count(db, name, sleep_ms=MINUTE))
    for job in jobs:
        wait_for_nap_between_batches(db, job)
    other = db.connect(autocommit=False)
    other.execute("SELECT backfill.alter(%s, 2)", [jobs[0]])
    notices: list[str] = []
    connection = db.connect()
    connection.add_notice_handler(lambda d: notices.append(f"{d.severity}: {d.message_primary} {d.message_hint}"))
    # It would be an error if it waited at all.
    connection.execute("SET lock_timeout = '1s'")
    assert connection.execute("SELECT backfill.pause_all()").fetchone() == (2,)
    for job in jobs[1:]:
        wait_for_state(db, job, "paused")
    assert len(notices) == 1 and notices[0].startswith("WARNING") and f"job {jobs[0]}" in notices[0], notices
    assert "backfill.enabled" in notices[0]
    assert progress(db, jobs[0])["state"] == "running"
    other.commit()
    assert connection.execute("SELECT backfill.pause_all()").fetchone() == (1,)
