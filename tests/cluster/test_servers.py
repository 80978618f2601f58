"""Restarts, crashes, standbys, the kill switch, and too few slots for workers."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from harness import DURABLE, Cluster, wait_until
from harness.jobs import (
    progress,
    start_count,
    switch,
    wait_for_nap_between_batches,
    wait_for_nap_in_batch,
    wait_for_no_worker,
    wait_for_rows,
    wait_for_state,
)
from harness.tables import counts, make_table, sleep_at

New = Callable[..., Cluster]
MINUTE = 60_000
# So that what only the launcher's sweep can find is found within a test.
EAGER = {"backfill.launcher_interval": "1s"}


def with_extension(cluster: Cluster) -> Cluster:
    """The same cluster, with the extension in its database postgres."""
    cluster.sql("CREATE EXTENSION backfill")
    return cluster


def test_a_fast_shutdown_does_not_wait_for_the_batch(new_cluster: New) -> None:
    """Under 2 s though the batch takes a minute; the batch is rolled back, and done after the start."""
    cluster = with_extension(new_cluster(preload=True))
    make_table(cluster, 1000)
    sleep_at(cluster, 150)
    job = start_count(cluster)
    wait_for_nap_in_batch(cluster, job)
    began = time.monotonic()
    cluster.stop("fast")
    took = time.monotonic() - began
    assert took < 2, f"{took:.2f} s"
    cluster.start()
    wait_for_nap_in_batch(cluster, job)
    assert counts(cluster) == [(0, 900), (1, 100)]
    # DROP TRIGGER would wait for the batch; the reload makes the launcher look for jobs at once.
    cluster.terminate_worker(job)
    cluster.sql("DROP TRIGGER sleep_at_150 ON t")
    cluster.reload()
    wait_for_state(cluster, job, "completed")
    assert counts(cluster) == [(1, 1000)]


def test_a_fast_shutdown_does_not_wait_for_a_sleeping_worker(new_cluster: New) -> None:
    """Under 2 s between two batches, too."""
    cluster = with_extension(new_cluster(preload=False))
    make_table(cluster, 1000)
    job = start_count(cluster, sleep_ms=MINUTE)
    wait_for_nap_between_batches(cluster, job)
    began = time.monotonic()
    cluster.stop("fast")
    assert time.monotonic() - began < 2


def test_jobs_of_two_databases_go_on_after_an_immediate_restart(new_cluster: New) -> None:
    """With preload nobody has to touch anything; each row is updated once."""
    cluster = new_cluster(preload=True, conf=DURABLE)
    databases = []
    for name in ("one", "two"):
        cluster.sql(f"CREATE DATABASE {name}")
        db = cluster.database(name)
        db.sql("CREATE EXTENSION backfill")
        make_table(db, 10_000)
        databases.append(db)
    # Long enough to be at it still when the server goes, on a busy machine, too.
    jobs = [(db, start_count(db, batch_size=50, sleep_ms=20)) for db in databases]
    for db, job in jobs:
        wait_for_rows(db, job, 1000)
    # Workers commit asynchronously: what they wrote in the last moments may be lost, their events too.
    cluster.sql("CHECKPOINT")
    cluster.restart("immediate")
    for db, job in jobs:
        wait_for_state(db, job, "completed")
        assert counts(db) == [(1, 10_000)]
        started = "SELECT count(*) FROM backfill.events WHERE job_id = %s AND event = 'worker started'"
        assert db.value(started, [job]) == 2


def test_a_paused_job_stays_paused_over_a_restart(new_cluster: New) -> None:
    """Only jobs that were to run are taken up."""
    cluster = with_extension(new_cluster(preload=True))
    for name in ("held", "free"):
        make_table(cluster, 1000, name)
    held, free = (start_count(cluster, name, batch_size=10, sleep_ms=MINUTE) for name in ("held", "free"))
    wait_for_nap_between_batches(cluster, held)
    wait_for_nap_between_batches(cluster, free)
    cluster.sql("SELECT backfill.pause(%s)", [held])
    wait_for_state(cluster, held, "paused")
    cluster.restart()
    wait_for_nap_between_batches(cluster, free)
    assert progress(cluster, held)["state"] == "paused"
    assert cluster.worker_pids(held) == []


def test_without_preload_resume_takes_it_up_after_a_restart(new_cluster: New) -> None:
    """The view says that nothing runs the job, and what to do; resume does."""
    cluster = with_extension(new_cluster(preload=False))
    make_table(cluster, 1000)
    job = start_count(cluster, sleep_ms=MINUTE)
    wait_for_nap_between_batches(cluster, job)
    cluster.restart()
    told = "SELECT state, workers, waiting_for FROM backfill.progress WHERE job_id = %s"
    wait_until(lambda: f"resume({job})" in (cluster.sql(told, [job])[0][2] or ""), 10, "the view to tell what to do")
    state, workers, waiting_for = cluster.sql(told, [job])[0]
    assert (state, workers) == ("running", 0)
    assert "none is running this job" in waiting_for
    cluster.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    assert cluster.value("SELECT backfill.resume(%s)", [job]) == "running"
    wait_for_state(cluster, job, "completed")
    assert counts(cluster) == [(1, 1000)]


def test_without_preload_resume_all_takes_up_orphans(new_cluster: New) -> None:
    """After a restart one call brings all jobs back that should be running."""
    cluster = with_extension(new_cluster(preload=False))
    jobs = []
    for name in ("a", "b"):
        make_table(cluster, 500, name)
        jobs.append(start_count(cluster, name, sleep_ms=300))
    for job in jobs:
        cluster.worker_pid(job)
    cluster.restart()
    assert [cluster.worker_pids(job) for job in jobs] == [[], []]
    cluster.sql("SELECT backfill.resume_all()")
    for job in jobs:
        wait_for_state(cluster, job, "completed")
    assert [counts(cluster, name) for name in "ab"] == [[(1, 500)]] * 2


@pytest.mark.parametrize("preload", [True, False])
def test_the_kill_switch(new_cluster: New, preload: bool) -> None:
    """Off: workers stop after their batch, a new job waits, the view says why. On: with preload they go on."""
    cluster = with_extension(new_cluster(preload=preload))
    make_table(cluster, 1000)
    make_table(cluster, 100, "asleep")
    make_table(cluster, 100, "new")
    sleep_at(cluster, 150, seconds=2)
    working = start_count(cluster)
    asleep = start_count(cluster, "asleep", batch_size=10, sleep_ms=MINUTE)
    wait_for_nap_between_batches(cluster, asleep)
    wait_for_nap_in_batch(cluster, working)
    switch(cluster, on=False)
    for job in (working, asleep):
        wait_for_no_worker(cluster, job)
    # The batch was finished, and no other begun.
    assert counts(cluster) == [(0, 800), (1, 200)]
    wait_until(lambda: not enabled(cluster), 10, "the reload")
    new = start_count(cluster, "new", batch_size=10)
    for job in (working, asleep, new):
        assert progress(cluster, job)["state"] == "running"
        assert progress(cluster, job)["waiting_for"] == "backfill.enabled is off"
        assert cluster.worker_pids(job) == []
        cluster.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    assert counts(cluster) == [(0, 800), (1, 200)]
    assert counts(cluster, "new") == [(0, 100)]
    switch(cluster, on=True)
    wait_until(lambda: enabled(cluster), 10, "the reload")
    if not preload:
        cluster.sql("SELECT backfill.resume(%s)", [working])
    # Without preload the one resumed takes up the others when it ends.
    for job in (working, asleep, new):
        wait_for_state(cluster, job, "completed")
    assert [counts(cluster, name) for name in ("t", "asleep", "new")] == [[(1, 1000)], [(1, 100)], [(1, 100)]]


def enabled(cluster: Cluster) -> bool:
    """Whether new sessions have the switch on."""
    return cluster.psql("LOAD 'backfill'; SHOW backfill.enabled;", options=["-At"]).stdout.split()[-1] == "on"


@pytest.mark.parametrize("preload", [True, False])
def test_a_second_job_waits_for_the_only_slot(new_cluster: New, preload: bool) -> None:
    """max_workers = 1: the others wait, say so, and are taken up in turn by whoever ends, in order."""
    cluster = with_extension(new_cluster(preload=preload))
    cluster.psql("LOAD 'backfill'; ALTER SYSTEM SET backfill.max_workers = 1; SELECT pg_reload_conf();")
    wait_until(lambda: cluster.psql("LOAD 'backfill'; SHOW backfill.max_workers;").stdout.count("1") > 0, 10, "reload")
    for name in ("a", "b", "c"):
        make_table(cluster, 500, name)
    first = start_count(cluster, "a", sleep_ms=MINUTE)
    wait_for_nap_between_batches(cluster, first)
    notices: list[str] = []
    connection = cluster.connect()
    connection.add_notice_handler(lambda diag: notices.append(f"{diag.message_primary} {diag.message_hint}"))
    row = connection.execute("SELECT backfill.start('b', 100, 0, 'n = n + 1')").fetchone()
    assert row and len(notices) == 1 and "backfill.max_workers" in notices[0]
    second, third = row[0], start_count(cluster, "c")
    waits = "SELECT waiting_for FROM backfill.progress WHERE job_id = %s"
    wait_until(
        lambda: "backfill.max_workers" in cluster.value(waits, [second]), 10, "the view to say what it waits for"
    )
    assert (cluster.worker_pids(second), cluster.worker_pids(third)) == ([], [])
    # A cancel frees the slot as well as an end does.
    cluster.sql("SELECT backfill.cancel(%s)", [first])
    for job in (second, third):
        wait_for_state(cluster, job, "completed")
    assert cluster.value("SELECT count(*) FROM backfill_internal.event WHERE event = 'worker started'") == 3
    assert progress(cluster, second)["finished_at"] < progress(cluster, third)["finished_at"]


def test_no_free_process_for_a_worker(new_cluster: New) -> None:
    """max_worker_processes is used up: the log says so, and the job waits for the next worker that ends."""
    cluster = with_extension(new_cluster(preload=False, conf={"max_worker_processes": 2}))
    make_table(cluster, 500, "a")
    make_table(cluster, 500, "b")
    # The server's own logical replication launcher takes a place as well.
    napping = start_count(cluster, "a", sleep_ms=MINUTE)
    wait_for_nap_between_batches(cluster, napping)
    waiting = start_count(cluster, "b")
    assert f"no background worker slot is free for backfill job {waiting}" in cluster.log_tail()
    cluster.sql("SELECT backfill.cancel(%s)", [napping])
    wait_for_state(cluster, waiting, "completed")


def test_a_promoted_standby_goes_on(new_cluster: New) -> None:
    """The primary is lost in the middle: with preload the job goes on where the standby got to."""
    primary = with_extension(new_cluster(preload=True, conf=DURABLE))
    make_table(primary, 20_000)
    with primary.standby() as standby:
        job = start_count(primary, batch_size=50, sleep_ms=5)
        wait_for_rows(primary, job, 1000)
        wait_until(lambda: progress(standby, job)["rows_done"] > 0, 30, "the standby to see progress")
        # Read on the standby, where no worker runs.
        assert progress(standby, job)["state"] == "running"
        assert standby.worker_pids(job) == []
        primary.crash()
        standby.promote()
        wait_for_state(standby, job, "completed")
        assert counts(standby) == [(1, 20_000)]


def test_without_preload_resume_takes_it_up_on_a_promoted_standby(new_cluster: New) -> None:
    """The same system identifier and database: it is the job's own server."""
    primary = with_extension(new_cluster(preload=False))
    make_table(primary, 1000)
    with primary.standby() as standby:
        job = start_count(primary, sleep_ms=MINUTE)
        wait_for_nap_between_batches(primary, job)
        primary.wait_for_replay(standby)
        primary.crash()
        standby.promote()
        standby.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
        assert standby.value("SELECT backfill.resume(%s)", [job]) == "running"
        wait_for_state(standby, job, "completed")
        assert counts(standby) == [(1, 1000)]


def test_a_terminated_worker_comes_back(new_cluster: New) -> None:
    """pg_terminate_backend is obeyed in a batch; with preload the launcher starts another worker."""
    cluster = with_extension(new_cluster(preload=True, conf=EAGER))
    make_table(cluster, 1000)
    sleep_at(cluster, 150, seconds=3)
    job = start_count(cluster)
    wait_for_nap_in_batch(cluster, job)
    gone = cluster.terminate_worker(job)
    assert gone != cluster.worker_pid(job)
    wait_for_state(cluster, job, "completed")
    assert counts(cluster) == [(1, 1000)]


@pytest.mark.parametrize("preload", [True, False])
def test_a_killed_worker_comes_back(new_cluster: New, preload: bool) -> None:
    """kill -9 resets the server: with preload the job goes on by itself, else with resume."""
    cluster = with_extension(new_cluster(preload=preload, conf=DURABLE))
    make_table(cluster, 10_000)
    job = start_count(cluster, batch_size=50, sleep_ms=5)
    wait_for_rows(cluster, job, 500)
    cluster.crash_worker(job)
    if not preload:
        assert cluster.worker_pids(job) == []
        cluster.sql("SELECT backfill.resume(%s)", [job])
    wait_for_state(cluster, job, "completed")
    assert counts(cluster) == [(1, 10_000)]
