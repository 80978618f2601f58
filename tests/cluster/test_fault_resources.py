"""The server has run out of something: room for locks, connections, memory. The job waits, says so, and goes on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from harness import Cluster, Database, wait_until
from harness.jobs import complete, progress, start, wait_for, wait_for_rows
from harness.tables import counts, make_table

New = Callable[..., Cluster]
ROWS = 2000
MINUTE = 60_000
MEGABYTE = 1024 * 1024


def told(db: Database, job: int) -> str:
    """What the view says of a job that must not end."""
    row = progress(db, job)
    assert row["state"] == "running", row
    return row["waiting_for"] or ""


LEAVE_FEW = """
    DO $$ BEGIN
        FOR i IN 1..1000000 LOOP PERFORM pg_advisory_lock(7, i); END LOOP;
    EXCEPTION WHEN out_of_memory THEN
        PERFORM pg_advisory_unlock(7, i) FROM generate_series(1, 80) i;
    END $$
"""


def test_no_room_for_locks(new_cluster: New) -> None:
    """Others hold nearly all: the call fails at once, a worker waits, and the view names the setting."""
    cluster = new_cluster(conf={"max_locks_per_transaction": 10})
    cluster.sql("""
        CREATE EXTENSION backfill;
        CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0) PARTITION BY RANGE (id)
    """)
    for part in range(10):
        cluster.sql(f"""
            DO $$ BEGIN FOR i IN {part * 10}..{part * 10 + 9} LOOP
                EXECUTE format('CREATE TABLE t_%s PARTITION OF t FOR VALUES FROM (%s) TO (%s)', i, i * 10, i * 10 + 10);
            END LOOP; END $$
        """)
    cluster.sql("INSERT INTO t SELECT generate_series(0, 999)")
    options = '{"vacuum": false, "analyze": false}'
    job = cluster.value("SELECT backfill.define('t', 'n = n + 1', options => %s::jsonb)", [options])
    with cluster.connect() as others:
        others.execute(LEAVE_FEW)
        with pytest.raises(psycopg.errors.OutOfMemory, match="max_locks_per_transaction"):
            start(cluster, "t", "n = n + 2")
        cluster.sql("SELECT backfill.start('t', 100)")

        def named() -> bool:
            # A try takes all the room there is, for a moment: then there is none for others either.
            with suppress(psycopg.OperationalError):
                return "max_locks_per_transaction" in told(cluster, job)
            return False

        wait_until(named, 60, "the view to tell")
        log = cluster.log.read_text(errors="replace")
        assert (
            f"backfill job {job} on public.t" in log
            and "try 3 to take the next rows failed" in log
            and "out of shared memory" in log
        )
    complete(cluster, job)
    assert counts(cluster) == [(1, 1000)]


def test_no_process_is_left(new_cluster: New) -> None:
    """max_worker_processes is used up by others: the view says so, and the launcher looks again."""
    # The launcher, that of logical replication, and the worker of another job.
    conf = {"max_worker_processes": 3, "max_parallel_workers": 0, "backfill.launcher_interval": "1s"}
    cluster = new_cluster(conf=conf)
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, ROWS)
    make_table(cluster, ROWS, "other")
    other = start(cluster, "other", "n = n + 1", batch=100, sleep_ms=MINUTE)
    wait_for_rows(cluster, other, 100)
    job = start(cluster, "t", "n = n + 1")
    wait_until(lambda: "all 3 (max_worker_processes) are taken" in told(cluster, job), 30, "the view to tell")
    assert f"no background worker slot is free for backfill job {job}" in cluster.log.read_text(errors="replace")
    cluster.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [other])
    for each in (other, job):
        complete(cluster, each)
    assert (counts(cluster), counts(cluster, "other")) == ([(1, ROWS)], [(1, ROWS)])


def test_no_connection_is_left(new_cluster: New) -> None:
    """A worker is no client: neither the one that runs nor the one that comes after it needs a place."""
    cluster = new_cluster(conf={"max_connections": 10, "backfill.launcher_interval": "1s"})
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, ROWS)
    mine = cluster.connect()
    job = start(cluster, "t", "n = n + 1", batch=50, sleep_ms=30)
    wait_for_rows(cluster, job, 40)
    with pytest.raises(psycopg.OperationalError, match="too many clients"):
        for _ in range(20):
            cluster.connect()
    pid = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'backfill worker'"
    [(before,)] = mine.execute(pid).fetchall()
    mine.execute("SELECT pg_terminate_backend(%s, 10000)", [before])
    wait_until(lambda: mine.execute(pid).fetchall() not in ([], [(before,)]), 30, "another worker")
    state = "SELECT state, waiting_for FROM backfill.progress WHERE job_id = %s"
    wait_until(lambda: mine.execute(state, [job]).fetchall() == [("completed", None)], 60, "the job to complete")
    assert mine.execute("SELECT n, count(*) FROM t GROUP BY n").fetchall() == [(1, ROWS)]


def test_a_trigger_that_finds_no_connection(new_cluster: New) -> None:
    """One that opens one needs a place for it: the batch is tried again until there is one."""
    cluster = new_cluster(conf={"max_connections": 10, "superuser_reserved_connections": 2})
    if not cluster.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'"):
        pytest.skip("this server comes without dblink")
    make_table(cluster, ROWS)
    cluster.sql(f"""
        CREATE EXTENSION backfill;
        CREATE EXTENSION dblink;
        CREATE FUNCTION elsewhere() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM * FROM dblink('{cluster.dsn()}', 'SELECT 1') AS r (one int);
            RETURN new;
        END $$;
        CREATE TRIGGER elsewhere BEFORE UPDATE ON t FOR EACH ROW WHEN (old.id = 1000) EXECUTE FUNCTION elsewhere()
    """)
    mine = cluster.connect()
    job = start(cluster, "t", "n = n + 1", batch=100, sleep_ms=20)
    taken = []
    with pytest.raises(psycopg.OperationalError, match="too many clients"):
        for _ in range(20):
            taken.append(cluster.connect())
    row = "SELECT state, waiting_for FROM backfill.progress WHERE job_id = %s"

    def waits() -> bool:
        state, waiting_for = mine.execute(row, [job]).fetchone()
        assert state == "running"
        return "a connection that broke" in (waiting_for or "")

    wait_until(waits, 60, "the view to tell")
    for connection in taken:
        connection.close()
    complete(cluster, job)
    assert counts(cluster) == [(1, ROWS)]


def limit_memory(db: Database, pid: int, size: str) -> None:
    """Of a process, as its own user: root may lack the right in a container."""
    user = db.cluster.os_user
    subprocess.run(["prlimit", f"--pid={pid}", f"--as={size}:"], check=True, user=user, group=user)


def test_no_memory(db: Database) -> None:
    """A trigger wants more than the process may have: tried again, until it may."""
    make_table(db, ROWS)
    db.sql("""
        CREATE FUNCTION greedy() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM length(repeat(''x'', 500000000)); RETURN new; END';
        CREATE TRIGGER greedy BEFORE UPDATE ON t FOR EACH ROW WHEN (old.id = 1234) EXECUTE FUNCTION greedy()
    """)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=MINUTE, options={"strategy": "sequential"})
    wait_for(db, job, "running")
    wait_for_rows(db, job, 100)
    pid = db.worker_pid(job)
    used = int(Path(f"/proc/{pid}/status").read_text().split("VmSize:")[1].split()[0]) * 1024
    limit_memory(db, pid, str(used + 128 * MEGABYTE))
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    wait_until(lambda: "out of memory" in told(db, job), 60, "the view to tell")
    # The rows before it are done, by ever smaller batches.
    wait_until(lambda: progress(db, job)["rows_done"] == 1233, 60, "the rows before it")
    limit_memory(db, pid, "unlimited")
    complete(db, job)
    assert db.worker_pids(job) == []
    assert counts(db) == [(1, ROWS)]


def test_no_synchronous_standby_answers(new_cluster: New) -> None:
    """Batches do not wait for one, the record of the end does: the view does not call the worker missing meanwhile."""
    cluster = new_cluster(conf={"backfill.launcher_interval": "1s"})
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, ROWS)
    job = start(cluster, "t", "n = n + 1", batch=100, sleep_ms=20)
    wait_for_rows(cluster, job, 100)
    cluster.set(synchronous_standby_names="absent")
    cluster.reload()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'backfill worker' AND wait_event = 'SyncRep'"
    wait_until(lambda: cluster.value(waits), 60, "the last commit to wait")
    assert counts(cluster) == [(1, ROWS)]
    # Longer than a worker may take to start, and than the launcher sleeps.
    for _ in range(30):
        assert told(cluster, job) == "its worker, which is ending"
        time.sleep(0.1)
    cluster.set(synchronous_standby_names="")
    cluster.reload()
    complete(cluster, job)
    assert counts(cluster) == [(1, ROWS)]
