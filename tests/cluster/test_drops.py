"""What is dropped or copied under a running job."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest
from harness import Cluster, Database, wait_until
from harness.jobs import (
    progress,
    start_count,
    switch,
    wait_for_nap_between_batches,
    wait_for_no_worker,
    wait_for_rows,
    wait_for_state,
)
from harness.tables import counts, make_table

New = Callable[..., Cluster]
MINUTE = 60_000
# So that what only the launcher's sweep can find is found within a test.
EAGER = {"backfill.launcher_interval": "1s"}


def test_drop_extension_ends_the_worker_quietly(shared_cluster: Cluster, db: Database) -> None:
    """Between batches and within one: the worker goes, and the log has no error of it."""
    make_table(db, 1000)
    job = start_count(db, batch_size=10, sleep_ms=50)
    pid = db.worker_pid(job)
    wait_for_rows(db, job, 30)
    db.sql("DROP EXTENSION backfill")
    wait_for_no_worker(db, job)
    lines = [line for line in shared_cluster.log_tail(200).splitlines() if f"[{pid}]" in line]
    assert not [line for line in lines if "ERROR" in line or "FATAL" in line], lines
    db.sql("CREATE EXTENSION backfill")
    again = start_count(db)
    wait_for_state(db, again, "completed")


def test_drop_database_with_force(shared_cluster: Cluster) -> None:
    """It ends the worker; without FORCE it is refused as long as one is there."""
    shared_cluster.sql("CREATE DATABASE doomed")
    doomed = shared_cluster.database("doomed")
    doomed.sql("CREATE EXTENSION backfill")
    make_table(doomed, 1000)
    job = start_count(doomed, sleep_ms=MINUTE)
    wait_for_nap_between_batches(doomed, job)
    began = time.monotonic()
    shared_cluster.sql("DROP DATABASE doomed WITH (FORCE)")
    assert time.monotonic() - began < 5
    assert "doomed" not in [name for (name,) in shared_cluster.sql("SELECT datname FROM pg_database")]


@pytest.mark.parametrize("sleep_ms", [MINUTE, 20])
def test_a_dropped_table_fails_the_job(db: Database, sleep_ms: int) -> None:
    """With a message that names it; cancel and forget clear up; the view stays readable."""
    make_table(db, 1000)
    job = start_count(db, batch_size=10, sleep_ms=sleep_ms)
    wait_for_rows(db, job, 10)
    db.sql("DROP TABLE t")
    if sleep_ms == MINUTE:
        # Whatever makes it look: it must not wait out its sleep first.
        db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    wait_for_state(db, job, "failed")
    error = progress(db, job)["last_error"]
    assert "42P01" in error and "public.t no longer exists" in error, error
    assert db.value("SELECT backfill.cancel(%s)", [job]) == "cancelled"
    db.sql("SELECT backfill.forget(%s)", [job])


def test_a_copied_database_does_not_run_the_job(new_cluster: New) -> None:
    """CREATE DATABASE … TEMPLATE: paused there, with a reason, also for the launcher; resume runs it on purpose."""
    cluster = new_cluster(preload=True, conf=EAGER)
    cluster.sql("CREATE DATABASE original")
    original = cluster.database("original")
    original.sql("CREATE EXTENSION backfill")
    make_table(original, 1000)
    job = start_count(original, batch_size=100, sleep_ms=MINUTE)
    wait_for_nap_between_batches(original, job)
    # A template must have no connections: stop the worker by the switch, so that the job still is to run.
    switch(cluster, on=False)
    wait_for_no_worker(original, job)

    def copied() -> bool:
        try:
            cluster.sql("CREATE DATABASE copy TEMPLATE original")
        except psycopg.errors.ObjectInUse:
            return False
        return True

    wait_until(copied, 30, "the template to be free")
    copy = cluster.database("copy")
    before = counts(copy)
    assert before[0][0] == 0
    switch(cluster, on=True)
    wait_for_nap_between_batches(original, job)
    assert progress(copy, job)["state"] == "paused"
    assert "copy of the one the job was started in" in progress(copy, job)["waiting_for"]
    # A job of the copy's own that comes back shows that the launcher has been there.
    make_table(copy, 1000, "own")
    own = start_count(copy, "own", batch_size=10, sleep_ms=20)
    copy.terminate_worker(own)
    wait_for_state(copy, own, "completed")
    assert progress(copy, job)["state"] == "paused"
    assert counts(copy) == before
    copy.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    assert copy.value("SELECT backfill.resume(%s)", [job]) == "running"
    wait_for_state(copy, job, "completed")
    assert counts(copy) == [(1, 1000)]
    assert progress(original, job)["state"] == "running"
    assert (0, 700) in counts(original) or (0, 800) in counts(original)
