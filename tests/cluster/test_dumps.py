"""pg_dump and pg_restore of a database with jobs: they come along, stand still, and go on when they are told to."""

from __future__ import annotations

import pytest
from harness import Cluster, Database, wait_until
from harness.dumps import dump, load, restore
from harness.jobs import (
    complete,
    fail,
    progress,
    start,
    start_count,
    wait_for,
    wait_for_nap_between_batches,
    wait_for_rows,
    wait_for_state,
)
from harness.tables import counts, make_table

MINUTE = 60_000
COPY = "this database is a copy of the one the job was started in, or that one after pg_upgrade"
RESUME = "SELECT backfill.resume(%s)"
QUICK = "SELECT backfill.alter(%s, sleep_ms => 0)"
DUMPED = ("job", "walk", "slice", "checkpoint", "region", "outcome", "failed_row", "event")
ONCE = [(1, 1000)]


@pytest.fixture
def app(shared_cluster: Cluster) -> str:
    """A role that owns jobs, other than the superuser."""
    if shared_cluster.value("SELECT count(*) FROM pg_roles WHERE rolname = 'app'") == 0:
        shared_cluster.sql("CREATE ROLE app LOGIN")
    return "app"


def rows(db: Database, table: str) -> list[tuple[str]]:
    """All rows of a table of the extension's, whichever way its columns are written."""
    return db.sql(f"SELECT t::text FROM backfill_internal.{table} t ORDER BY 1")


def jobs_in_every_state(db: Database) -> dict[str, int]:
    """One job a state, each on a table named like it; two that have begun are in the middle of waves and of pages."""
    jobs = {}
    for name in ("pending", "completed", "cancelled", "failed", "paused", "paused_waves", "paused_pages", "running"):
        make_table(db, 1000, name)
        # Its columns have other numbers where it is restored.
        db.sql(f"ALTER TABLE {name} ADD gone int; ALTER TABLE {name} DROP gone")
        db.sql(f"ALTER TABLE {name} OWNER TO app; ALTER TABLE {name} ADD pad text DEFAULT repeat('x', 500)")
        db.sql(f"VACUUM ANALYZE {name}")
    jobs["pending"] = db.value("SELECT backfill.define('pending', 'n = n + 1')", user="app")
    jobs["completed"] = start_count(db, "completed", user="app")
    complete(db, jobs["completed"])
    begun = {
        "cancelled": start_count(db, "cancelled", 100, MINUTE, user="app"),
        "paused": start_count(db, "paused", 100, MINUTE, user="app", options={"strategy": "sequential"}),
        "paused_waves": start_count(db, "paused_waves", 100, MINUTE, user="app", options={"strategy": "waves"}),
    }
    for name, job in begun.items():
        wait_for_nap_between_batches(db, job)
        db.value("SELECT backfill.cancel(%s)" if name == "cancelled" else "SELECT backfill.pause(%s)", [job])
        wait_for(db, job, name.split("_")[0])
    pages = {"walk": "physical"}
    begun["paused_pages"] = start(
        db, "paused_pages", "n = n + 1", batch=100, sleep_ms=MINUTE, where="n = 0", options=pages
    )
    wait_for_nap_between_batches(db, begun["paused_pages"])
    db.sql("SELECT backfill.pause(%s)", [begun["paused_pages"]])
    wait_for(db, begun["paused_pages"], "paused")
    jobs |= begun
    jobs["running"] = start_count(db, "running", 100, MINUTE, user="app")
    wait_for_nap_between_batches(db, jobs["running"])
    jobs["failed"] = start(db, "failed", "n = n + 1 + 0 / (id - 550)", batch=100, options={"strategy": "sequential"})
    fail(db, jobs["failed"])
    return jobs


@pytest.mark.parametrize("form", ["custom", "inserts"])
def test_jobs_of_every_state_come_along(shared_cluster: Cluster, db: Database, app: str, form: str) -> None:
    """Each row of the extension's tables; what ran is paused and says why; resumed, each row is done once."""
    jobs = jobs_in_every_state(db)
    options = {"custom": ["-Fc"], "inserts": ["--column-inserts"]}[form]
    path = dump(db, *options)
    before = {name: rows(db, name) for name in DUMPED}
    copy = restore(shared_cluster, f"{db.name}_{form}", path)
    assert {name: rows(copy, name) for name in DUMPED} == before
    for name, job in jobs.items():
        row, state = progress(copy, job), name.split("_")[0]
        assert row["state"] == ("paused" if state == "running" else state), name
        assert (row["rows_done"], row["rows_updated"]) == (
            progress(db, job)["rows_done"],
            progress(db, job)["rows_updated"],
        )
        if row["state"] == "paused":
            assert row["waiting_for"] == f"{COPY}: backfill.resume({job}) runs it here", name
        assert (row["owner"], row["relation"]) == (
            "postgres" if state == "failed" or name == "paused_pages" else app,
            name,
        )
    # In a new cluster the files may have the numbers that they had in the old one, with other rows on their pages.
    copy.sql("UPDATE backfill_internal.slice SET filenode = pg_relation_filenode(relation) WHERE walk = 'physical'")
    assert copy.value(RESUME, [jobs["running"]], user=app) == "running"
    for name in ("running", "paused", "paused_waves", "paused_pages"):
        copy.sql(QUICK, [jobs[name]])
    for name in ("paused", "paused_waves", "paused_pages"):
        assert copy.value(RESUME, [jobs[name]]) == "running"
    copy.sql("UPDATE failed SET id = -1 WHERE id = 550")
    assert copy.value(RESUME, [jobs["failed"]]) == "running"
    assert copy.value("SELECT backfill.start('pending')", user=app) == jobs["pending"]
    for name in ("running", "paused", "paused_waves", "paused_pages", "pending"):
        complete(copy, jobs[name])
        assert counts(copy, name) == ONCE, name
    complete(copy, jobs["failed"])
    assert counts(copy, "failed") == [(0, 1), (1, 999)]
    make_table(copy, 10, "new")
    assert start_count(copy, "new") == max(jobs.values()) + 1
    # The original has seen nothing of all that.
    assert progress(db, jobs["running"])["state"] == "running"
    shared_cluster.sql(f"DROP DATABASE {copy.name} WITH (FORCE)")


def test_a_dump_while_batches_commit(shared_cluster: Cluster, db: Database) -> None:
    """Taken by two connections in the middle of a run of three workers: rows and checkpoints belong together."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, pad text) WITH (fillfactor = 50)")
    db.sql("INSERT INTO t SELECT g, 0, repeat('x', 100) FROM generate_series(1, 100000) g")
    db.sql("CREATE INDEX ON t (pad, id); ANALYZE t")
    job = start_count(db, "t", 100, 1, options={"workers": 3, "strategy": "waves", "waves": 3})
    wait_for_rows(db, job, 3000)
    path = dump(db, "-Fd", "-j", "2", "-Z", "0")
    copy = restore(shared_cluster, f"{db.name}_copy", path)
    done = progress(copy, job)
    assert (done["state"], done["waiting_for"][: len(COPY)]) == ("paused", COPY)
    assert 3000 <= done["rows_done"] < 100_000 and counts(copy)[1] == (1, done["rows_updated"])
    copy.sql(QUICK, [job])
    assert copy.value(RESUME, [job]) == "running"
    for each in (copy, db):
        if progress(each, job)["state"] == "running":
            each.sql("SELECT backfill.alter(%s, sleep_ms => 0, batch_size => 5000)", [job])
        complete(each, job, 100)
        assert counts(each) == [(1, 100_000)]
    shared_cluster.sql(f"DROP DATABASE {copy.name} WITH (FORCE)")


def test_schema_only_and_data_only(shared_cluster: Cluster, db: Database) -> None:
    """The one brings the extension without jobs, the other the jobs of a database that has the extension."""
    make_table(db, 1000)
    job = start_count(db, "t", 100, MINUTE)
    wait_for_nap_between_batches(db, job)
    copy = restore(shared_cluster, f"{db.name}_copy", dump(db, "-Fc", "--schema-only"))
    assert copy.value("SELECT count(*) FROM backfill.progress") == 0
    load(copy, dump(db, "-Fc", "--data-only"))
    assert progress(copy, job)["state"] == "paused"
    copy.sql(QUICK, [job])
    copy.sql(RESUME, [job])
    complete(copy, job)
    assert counts(copy) == ONCE
    shared_cluster.sql(f"DROP DATABASE {copy.name} WITH (FORCE)")


def test_a_clean_restore_over_a_running_job(shared_cluster: Cluster, db: Database) -> None:
    """--clean drops the extension under its worker, which ends; the dump's jobs are there, and none runs."""
    make_table(db, 1000)
    job = start_count(db, "t", 100, MINUTE)
    wait_for_nap_between_batches(db, job)
    path = dump(db, "-Fc")
    db.sql(QUICK, [job])
    complete(db, job)
    db.sql("SELECT backfill.forget(%s)", [job])
    other = start(db, "t", "n = n + 1", batch=1, sleep_ms=20)
    wait_for_rows(db, other, 3)
    load(db, path, "--clean", "--if-exists")
    wait_until(lambda: db.worker_pids(job) + db.worker_pids(other) == [], 30, "the worker to end")
    # The same cluster and database; but a job that ran by itself might do so before all rows are there.
    row = progress(db, job)
    assert (row["state"], row["waiting_for"]) == ("paused", f"{COPY}: backfill.resume({job}) runs it here"), row
    db.sql(QUICK, [job])
    db.sql(RESUME, [job])
    complete(db, job)
    assert counts(db) == ONCE


def test_a_role_that_is_missing(shared_cluster: Cluster, db: Database) -> None:
    """The error names it; once it is there, the jobs alone can be loaded."""
    shared_cluster.sql("CREATE ROLE passing LOGIN")
    make_table(db, 1000)
    db.sql("GRANT SELECT, UPDATE ON t TO passing")
    job = start_count(db, "t", 100, MINUTE, user="passing")
    wait_for_nap_between_batches(db, job)
    path = dump(db, "-Fc", "--no-owner", "--no-acl")
    copy = shared_cluster.database(f"{db.name}_copy")
    db.sql("SELECT backfill.cancel(%s)", [job])
    wait_for_state(db, job, "cancelled")
    db.sql("REVOKE ALL ON t FROM passing")
    shared_cluster.sql("DROP ROLE passing; ")
    shared_cluster.sql(f"CREATE DATABASE {copy.name} TEMPLATE template0")
    told = load(copy, path, check=False)
    assert 'role "passing" does not exist' in told and "CONTEXT:  COPY " in told, told
    assert copy.value("SELECT count(*) FROM backfill.progress") == 0
    shared_cluster.sql("CREATE ROLE passing LOGIN")
    copy.sql(
        "DROP EXTENSION backfill; DROP SCHEMA IF EXISTS backfill; DROP SCHEMA public CASCADE; CREATE SCHEMA public"
    )
    load(copy, path)
    copy.sql("GRANT SELECT, UPDATE ON t TO passing; GRANT USAGE ON SCHEMA public TO passing")
    copy.sql(QUICK, [job])
    copy.sql(RESUME, [job])
    complete(copy, job)
    assert counts(copy) == ONCE
    shared_cluster.sql(f"DROP DATABASE {copy.name} WITH (FORCE)")
    db.sql("SELECT backfill.forget(%s)", [job])
    db.sql("DROP OWNED BY passing")
    shared_cluster.sql("DROP ROLE passing")


def test_what_is_gone_does_not_become_something_else(shared_cluster: Cluster, db: Database) -> None:
    """A dropped table or role is but a number in a dump, and may be another one's where that is restored."""
    shared_cluster.sql("CREATE ROLE passing LOGIN")
    for name in ("kept", "dropped"):
        make_table(db, 1000, name)
    db.sql("GRANT SELECT, UPDATE ON kept TO passing")
    db.sql("CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id)")
    for i in range(3):
        db.sql(f"CREATE TABLE part_{i} PARTITION OF parts FOR VALUES FROM ({i * 100}) TO ({i * 100 + 100})")
    db.sql("INSERT INTO parts SELECT g, 0 FROM generate_series(0, 299) g")
    db.sql("ANALYZE parts")
    gone = start_count(db, "dropped", 100, MINUTE)
    orphan = start_count(db, "kept", 100, MINUTE, user="passing")
    walk = start_count(db, "parts", 10, MINUTE)
    for job in (gone, orphan, walk):
        wait_for_nap_between_batches(db, job)
        db.sql("SELECT backfill.pause(%s)", [job])
        wait_for(db, job, "paused")
    db.sql("DROP TABLE dropped; DROP TABLE part_2; REVOKE ALL ON kept FROM passing")
    shared_cluster.sql("DROP ROLE passing")
    copy = restore(shared_cluster, f"{db.name}_copy", dump(db))
    assert copy.sql("SELECT job_id, relation::text FROM backfill.progress") == [(walk, "parts")]
    numbers = "SELECT count(*) FROM backfill_internal.{0} WHERE NOT EXISTS (SELECT FROM {1} c WHERE c.oid = {2})"
    for table, catalog, column in (
        ("job", "pg_class", "relation"),
        ("slice", "pg_class", "relation"),
        ("failed_row", "pg_class", "relation"),
        ("event", "pg_roles", "actor"),
    ):
        assert copy.value(numbers.format(table, catalog, column)) == 0, table
    copy.sql(QUICK, [walk])
    copy.sql(RESUME, [walk])
    complete(copy, walk)
    assert counts(copy, "parts") == [(1, 200)]
    assert counts(copy, "kept") == counts(db, "kept")
    shared_cluster.sql(f"DROP DATABASE {copy.name} WITH (FORCE)")
