"""More jobs than workers, calls that cross each other, and workers that are cancelled or blocked."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest
from harness import DURABLE, Cluster, Database, wait_until
from harness.jobs import (
    start_count,
    wait_for_nap_between_batches,
    wait_for_nap_in_batch,
    wait_for_no_worker,
    wait_for_rows,
    wait_for_state,
)
from harness.tables import counts, make_table, sleep_at

New = Callable[..., Cluster]
MINUTE = 60_000


@pytest.mark.parametrize("limit", [1, 3])
def test_thirty_jobs_share_few_workers(new_cluster: New, limit: int) -> None:
    """Without preload: whoever ends takes up the next, none is forgotten, and never are there more than allowed."""
    cluster = new_cluster(preload=False)
    cluster.psql(f"LOAD 'backfill'; ALTER SYSTEM SET backfill.max_workers = {limit}; SELECT pg_reload_conf();")
    cluster.sql("CREATE EXTENSION backfill")
    names = [f"t{n}" for n in range(30)]
    for name in names:
        cluster.sql(
            f"CREATE TABLE {name} (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);"
            f"INSERT INTO {name} SELECT generate_series(1, 50)"
        )
    starts = "; ".join(f"SELECT backfill.start('{name}', 10, 1, 'n = n + 1')" for name in names)
    connection = cluster.connect()
    connection.execute(starts)
    # Not those that still have to find out that they are one too many.
    busy = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 7701"
    most = 0

    def all_done() -> bool:
        nonlocal most
        most = max(most, connection.execute(busy).fetchone()[0])
        states = connection.execute("SELECT DISTINCT state FROM backfill.progress").fetchall()
        return states == [("completed",)]

    wait_until(all_done, 60, "all jobs to complete", every=0.002)
    assert most <= limit
    assert all(counts(cluster, name) == [(1, 50)] for name in names)


def test_a_higher_limit_is_used_after_the_reload(new_cluster: New) -> None:
    """With preload a job that waited for a slot starts as soon as there is one more."""
    cluster = new_cluster(preload=True, conf={"backfill.max_workers": 1})
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, 500, "a")
    make_table(cluster, 500, "b")
    wait_for_nap_between_batches(cluster, start_count(cluster, "a", sleep_ms=MINUTE))
    second = start_count(cluster, "b")
    cluster.set(**{"backfill.max_workers": 2})
    cluster.reload()
    wait_for_state(cluster, second, "completed", 20)


def test_a_slot_freed_in_another_database(new_cluster: New) -> None:
    """Slots are the server's: with preload the launcher finds the waiting job of the other database."""
    cluster = new_cluster(preload=True, conf={"backfill.max_workers": 1, "backfill.launcher_interval": "1s"})
    jobs = []
    for name in ("one", "two"):
        cluster.sql(f"CREATE DATABASE {name}")
        db = cluster.database(name)
        db.sql("CREATE EXTENSION backfill")
        make_table(db, 500)
        jobs.append((db, start_count(db, sleep_ms=MINUTE if name == "one" else 0)))
        if name == "one":
            wait_for_nap_between_batches(*jobs[0])
    (one, first), (two, second) = jobs
    assert two.worker_pids(second) == []
    one.sql("SELECT backfill.pause(%s)", [first])
    wait_for_state(two, second, "completed", 20)
    one.sql("SELECT backfill.alter(%s, sleep_ms => 0); ", [first])
    one.sql("SELECT backfill.resume(%s)", [first])
    wait_for_state(one, first, "completed", 20)


@pytest.mark.parametrize(("call", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_start_and_its_opposite_in_one_transaction(db: Database, call: str, state: str) -> None:
    """The last word counts, and no row is touched."""
    make_table(db, 500)
    job = db.value(
        f"WITH s AS MATERIALIZED (SELECT backfill.start('t', set_clause => 'n = n + 1') AS id) {CALLS[call]}"
    )
    # The worker may still be starting: it comes, sees that it is not wanted, and goes.
    wait_for_state(db, job, state)
    wait_for_no_worker(db, job)
    assert counts(db) == [(0, 500)]
    if call == "pause":
        db.sql("SELECT backfill.resume(%s)", [job])
        wait_for_state(db, job, "completed")


CALLS = {name: f"SELECT id FROM s WHERE backfill.{name}(id) <> ''" for name in ("pause", "cancel")}


def test_calls_that_are_rolled_back_change_nothing(db: Database) -> None:
    """alter, pause and cancel, also with now: the worker sleeps on."""
    make_table(db, 500)
    job = start_count(db, sleep_ms=MINUTE)
    pid = wait_for_nap_between_batches(db, job)
    connection = db.connect(autocommit=False)
    for call in ("alter(%s, 7, 0)", "pause(%s)", "cancel(%s)", "cancel(%s, true)"):
        connection.execute(f"SELECT backfill.{call}", [job])
        connection.rollback()
    assert db.sql("SELECT state, batch_size, sleep_ms FROM backfill.progress") == [("running", 100, MINUTE)]
    assert db.worker_pids(job) == [pid]
    assert counts(db) == [(0, 400), (1, 100)]


def test_cancel_now_between_batches(db: Database) -> None:
    """The signal meets no statement: the job is cancelled all the same."""
    make_table(db, 500)
    job = start_count(db, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.cancel(%s, now => true)", [job])
    wait_for_state(db, job, "cancelled", 9)
    wait_for_no_worker(db, job)


def test_a_signal_to_a_sleeping_worker_does_no_harm(db: Database) -> None:
    """pg_cancel_backend between two batches: there is nothing to cancel, and the worker sleeps on."""
    make_table(db, 500)
    job = start_count(db, sleep_ms=MINUTE)
    pid = wait_for_nap_between_batches(db, job)
    db.sql("SELECT pg_cancel_backend(%s)", [pid])
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    wait_for_state(db, job, "completed")
    assert db.value("SELECT count(*) FROM backfill.events WHERE event = 'worker started'") == 1


def test_a_batch_that_waits_for_a_row_can_be_cancelled(db: Database) -> None:
    """Somebody's open transaction has one of its rows: cancel with now ends the wait, and nothing is left locked."""
    make_table(db, 500)
    other = db.connect(autocommit=False)
    other.execute("UPDATE t SET n = 7 WHERE id = 250")
    job = start_count(db, options={"strategy": "sequential"})
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s AND wait_event_type = 'Lock'"
    wait_until(lambda: db.value(blocked, [f"backfill job {job}:%"]), 30, "the batch to wait for the row")
    assert db.value("SELECT backfill.pause(%s)", [job]) == "pausing"
    db.sql("SELECT backfill.cancel(%s, now => true)", [job])
    wait_for_state(db, job, "cancelled", 20)
    assert counts(db) == [(0, 300), (1, 200)]
    other.commit()
    db.sql("UPDATE t SET n = 9")


def test_a_batch_waits_for_a_row_and_builds_on_it(db: Database) -> None:
    """The other's value is not lost: n = n + 1 of what he committed."""
    make_table(db, 500)
    other = db.connect(autocommit=False)
    other.execute("UPDATE t SET n = 7 WHERE id = 250")
    job = start_count(db)
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s AND wait_event_type = 'Lock'"
    wait_until(lambda: db.value(blocked, [f"backfill job {job}:%"]), 30, "the batch to wait for the row")
    other.commit()
    wait_for_state(db, job, "completed")
    assert counts(db) == [(1, 499), (8, 1)]


def test_two_resumes_at_once_start_one_worker(db: Database) -> None:
    """One resumes, the other is told that it runs already, or does no harm."""
    make_table(db, 5000)
    job = start_count(db, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    for _ in range(10):
        db.sql("SELECT backfill.pause(%s)", [job])
        wait_for_state(db, job, "paused")
        barrier = threading.Barrier(2)

        def resume(barrier: threading.Barrier = barrier) -> None:
            connection = db.connect()
            barrier.wait()
            try:
                connection.execute("SELECT backfill.resume(%s)", [job])
            except psycopg.errors.ObjectNotInPrerequisiteState:
                return

        threads = [threading.Thread(target=resume) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        wait_for_nap_between_batches(db, job)
        assert len(db.worker_pids(job)) == 1
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    wait_for_state(db, job, "completed")
    assert counts(db) == [(1, 5000)]


def test_nothing_is_held_between_batches(db: Database) -> None:
    """No snapshot, no transaction, no lock but the worker's own four; DDL and VACUUM get their turn."""
    make_table(db, 500)
    job = start_count(db, sleep_ms=MINUTE)
    pid = wait_for_nap_between_batches(db, job)
    held = "SELECT backend_xid, backend_xmin, xact_start FROM pg_stat_activity WHERE pid = %s"
    assert db.sql(held, [pid]) == [(None, None, None)]
    locks = "SELECT locktype, objsubid FROM pg_locks WHERE pid = %s ORDER BY objsubid"
    assert db.sql(locks, [pid]) == [("advisory", number) for number in (7701, 7702, 7704, 7708)]
    # As little would do to wait for a lock.
    connection = db.connect()
    connection.execute("SET lock_timeout = '5s'")
    connection.execute("ALTER TABLE t ADD later int")
    connection.execute("VACUUM FULL t")
    connection.execute("ALTER TABLE t RENAME TO renamed")
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    wait_for_state(db, job, "completed")
    assert counts(db, "renamed") == [(1, 500)]


def test_a_truncated_table_ends_the_walk(db: Database) -> None:
    """No rows are left: completed. Rows that came after it, within the walk's bounds, are done."""
    make_table(db, 500)
    job = start_count(db, sleep_ms=MINUTE, options={"strategy": "sequential"})
    wait_for_nap_between_batches(db, job)
    db.sql("TRUNCATE t; INSERT INTO t VALUES (5), (300), (900)")
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    wait_for_state(db, job, "completed")
    assert db.sql("SELECT * FROM t ORDER BY id") == [(5, 0), (300, 1), (900, 0)]


def test_a_lost_machine(new_cluster: New) -> None:
    """Every process dies at once, in the middle of a batch: with preload the job goes on, each row exactly once."""
    cluster = new_cluster(preload=True, conf=DURABLE)
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, 20_000)
    sleep_at(cluster, 15_000, seconds=2)
    job = start_count(cluster, batch_size=50, sleep_ms=1)
    wait_for_rows(cluster, job, 1000)
    cluster.crash()
    cluster.start()
    wait_for_nap_in_batch(cluster, job)
    cluster.crash()
    cluster.start()
    wait_for_state(cluster, job, "completed")
    assert counts(cluster) == [(1, 20_000)]


def test_a_smart_shutdown_ends_workers(new_cluster: New) -> None:
    """It waits for clients, not for jobs."""
    cluster = new_cluster(preload=True)
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, 500)
    job = start_count(cluster, sleep_ms=MINUTE)
    wait_for_nap_between_batches(cluster, job)
    cluster.stop("smart")
    cluster.start()
    wait_for_nap_between_batches(cluster, job)
