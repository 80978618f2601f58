"""ALTER EXTENSION backfill UPDATE: the result is what a new database has, and jobs go on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import pytest
from harness import Cluster, Database
from harness.jobs import complete, progress, wait_for_state
from harness.tables import counts, make_table
from harness.versions import install_old, inventory

RESUME = "SELECT backfill.resume(%s)"


@pytest.fixture
def old(shared_cluster: Cluster, db: Database) -> Iterator[Database]:
    """A database with the extension of 0.2.0; `db` is one with that of today."""
    install_old(shared_cluster.server)
    name = f"old_{db.name}"
    shared_cluster.sql(f"CREATE DATABASE {name}")
    database = shared_cluster.database(name)
    database.sql("CREATE EXTENSION backfill VERSION '0.2.0'")
    yield database
    shared_cluster.close_connections()
    shared_cluster.sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_an_upgraded_database_is_like_a_new_one(db: Database, old: Database) -> None:
    """Tables, columns, constraints, views, functions, comments, rights, and what a dump takes along."""
    assert inventory(old) != inventory(db)
    old.sql("ALTER EXTENSION backfill UPDATE")
    lines = difflib.unified_diff(inventory(old), inventory(db), "upgraded", "new", n=1, lineterm="")
    difference = "\n".join(lines)
    assert difference == "", f"what lacks in the upgrade script (+), or is too much in it (-):\n{difference}"


def write_old_job(db: Database, table: str, wish: str, done: int | None, outcome: str | None = None) -> int:
    """Writes a job as 0.2.0 did, on a table of 1000 rows whose first ones are `done`."""
    make_table(db, 1000, table)
    job: int = db.value(
        "INSERT INTO backfill.job (name, relation, relation_name, owner, set_clause, set_columns, key_columns, session,"
        " batch_size, sleep_ms, wish, attempt, system_identifier, database_oid, started_at)"
        " SELECT %s, %s::regclass, 'public.' || %s, 'postgres', 'n = n + 1', '{n}', '{id}', '{}', 100, 0, %s,"
        " CASE %s WHEN 'define' THEN 0 ELSE 1 END, system_identifier, ('backfill.job'::regclass::oid::bigint << 32) |"
        " (SELECT oid FROM pg_database WHERE datname = current_database())::bigint, now() FROM pg_control_system()"
        " RETURNING id",
        [table, table, table, wish, wish],
    )
    if done is not None:
        db.sql(f"UPDATE {table} SET n = 1 WHERE id <= {done}")
        db.sql(
            "INSERT INTO backfill.walk (job_id, pass, phase, tables, at) SELECT id, 1, 'walk', ARRAY[relation], now()"
            " FROM backfill.job WHERE id = %s",
            [job],
        )
        db.sql(
            "WITH new AS (INSERT INTO backfill.slice (job_id, no, pass, relation, relation_name, walk, weight,"
            " last_key, key_columns, key_order, done) SELECT id, 0, 1, relation, relation_name, 'key', 1000, '{1000}',"
            " '{id}',"
            " '{pg_catalog.integer_ops}', %s FROM backfill.job WHERE id = %s RETURNING id)"
            " INSERT INTO backfill.checkpoint (slice_id, seq, epoch, key, rows_done, rows_updated, rows_hot,"
            " rows_found, rows_total, percent, past_estimate, at)"
            " SELECT id, 8, 2, ARRAY[%s::text], %s, %s, 0, 0, 1000, %s, false, now() FROM new",
            [outcome == "completed", job, done, done, done, done / 10],
        )
    if outcome:
        db.sql(
            "INSERT INTO backfill.outcome (job_id, outcome, attempt, at, sqlstate, message)"
            " VALUES (%s, %s, 1, now(), '22012', 'division by zero')",
            [job, outcome],
        )
    return job


def test_jobs_of_the_old_version_go_on(old: Database) -> None:
    """Paused, failed, ended or only defined: each has its state after the update, and each row is done once."""
    paused = write_old_job(old, "paused", "pause", 300)
    unbegun = write_old_job(old, "unbegun", "pause", None)
    failed = write_old_job(old, "failed", "run", 400, "failed")
    completed = write_old_job(old, "completed", "run", 1000, "completed")
    pending = write_old_job(old, "pending", "define", None)
    old.sql("CREATE VIEW public.of_mine AS SELECT job_id, state FROM backfill.progress")
    old.sql("ALTER EXTENSION backfill UPDATE")
    states = [
        (paused, "paused"),
        (unbegun, "paused"),
        (failed, "failed"),
        (completed, "completed"),
        (pending, "pending"),
    ]
    assert old.sql("SELECT * FROM of_mine ORDER BY 1") == states
    assert (progress(old, paused)["percent"], progress(old, paused)["rows_total"]) == (30, 1000)
    for job in (paused, unbegun, failed):
        assert old.value(RESUME, [job]) == "running"
    old.sql("SELECT backfill.start('pending', 100, 0)")
    for job, _ in states:
        assert complete(old, job)["rows_done"] == 1000
    assert [counts(old, progress(old, job)["name"]) for job, _ in states] == [[(1, 1000)]] * 5
    old.sql("SELECT backfill.forget(%s)", [paused])
    assert old.value("SELECT count(*) FROM backfill_internal.walk") == 4


def test_a_running_job_waits_for_the_update(old: Database) -> None:
    """The library is new, the database not yet: nothing runs, the view says why; then the launcher takes it up."""
    job = write_old_job(old, "t", "run", 500)
    waits = progress(old, job)
    assert waits["state"] == "running" and waits["waiting_for"].endswith("ALTER EXTENSION backfill UPDATE;"), waits
    old.cluster.reload()
    old.sql("ALTER EXTENSION backfill UPDATE")
    assert progress(old, job)["state"] in ("running", "completed")
    old.cluster.reload()
    wait_for_state(old, job, "completed")
    assert counts(old, "t") == [(1, 1000)]
