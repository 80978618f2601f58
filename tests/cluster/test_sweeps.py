"""The launcher: what holds one database up does not hold up the others, nor itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from harness import Cluster, Database, wait_until
from harness.jobs import start_count, wait_for_nap_between_batches, wait_for_state
from harness.tables import counts, make_table

New = Callable[..., Cluster]
MINUTE = 60_000
SWEEPERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'backfill sweeper'"

# Before it is connected, a process is not in pg_stat_activity.
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'object' AND database = 0"


def two(new_cluster: New) -> tuple[Cluster, Database, Database]:
    """A server with two databases; the first one comes first in a sweep."""
    cluster = new_cluster(conf={"backfill.launcher_interval": "1s", "max_worker_processes": 20})
    one, other = (cluster.sql(f"CREATE DATABASE {name}") or cluster.database(name) for name in ("one", "two"))
    for db in (one, other):
        db.sql("CREATE EXTENSION backfill")
    make_table(other, 300)
    return cluster, one, other


def swept(db: Database) -> None:
    """Waits until the launcher has given a job of the database a new worker."""
    job = start_count(db, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    pid = db.terminate_worker(job)
    wait_until(lambda: db.worker_pids(job) not in ([], [pid]), 50, "another worker")
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    wait_for_state(db, job, "completed")
    assert counts(db) == [(1, 300)]


def test_a_database_that_is_being_renamed_holds_up_no_other(new_cluster: New) -> None:
    """Its sweep ends by itself and is tried again, one process at a time; SIGTERM reaches the launcher meanwhile."""
    cluster, one, other = two(new_cluster)
    wait_until(
        lambda: not one.sql("SELECT 1 FROM pg_stat_activity WHERE datname = 'one' AND pid <> pg_backend_pid()"),
        20,
        "peace",
    )
    holder = cluster.connect(autocommit=False)

    def renamed() -> bool:
        try:
            holder.execute("ALTER DATABASE one RENAME TO uno")
        except Exception:
            # A sweep is just there.
            holder.rollback()
            return False
        return True

    wait_until(renamed, 30, "the database to be renamed")
    wait_until(lambda: cluster.value(WAITING), 30, "a sweep to wait for it")
    launcher = cluster.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'backfill launcher'")
    swept(other)
    assert cluster.value(SWEEPERS) <= 2
    log = cluster.log.read_text(errors="replace")
    assert "canceling statement due to lock timeout" in log
    # Another sweep of it is at it: the launcher ends at once all the same.
    wait_until(lambda: cluster.value(WAITING), 30, "the next sweep")
    os.kill(launcher, signal.SIGTERM)
    begun = time.monotonic()
    alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
    wait_until(lambda: not cluster.value(alive, [launcher]), 10, "the launcher to end")
    assert time.monotonic() - begun < 5
    holder.rollback()


def test_a_sweep_that_hangs_is_ended_and_named(new_cluster: New) -> None:
    """Stopped dead for longer than it may take: its database is named in the log, the next one is swept."""
    cluster, one, other = two(new_cluster)
    # Enough tables' locks for more than the time of a sweep: what it reads first is in the way, again and again.
    found: list[int] = []

    def caught() -> bool:
        found[:] = [
            pid
            for (pid,) in cluster.sql(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'backfill sweeper' AND datname = 'one'"
            )
        ]
        for pid in found:
            os.kill(pid, signal.SIGSTOP)
        return bool(found)

    one.connect(autocommit=False).execute("LOCK TABLE backfill_internal.job")
    wait_until(caught, 30, "a sweep of the database", every=0.005)
    try:
        swept(other)
        log = cluster.log.read_text(errors="replace")
        assert 'backfill launcher: the sweep of database "one" has taken 30 seconds and is ended' in log
        assert cluster.value(SWEEPERS) <= 2
        wait_until(
            lambda: 'the sweep of database "one" has not ended yet' in cluster.log.read_text(errors="replace"),
            60,
            "the next",
        )
    finally:
        for pid in found:
            os.kill(pid, signal.SIGCONT)
