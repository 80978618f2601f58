"""Processes that die or are told to: clients within `start`, the postmaster, workers in each phase, the launcher."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import psycopg
import pytest
from harness import DURABLE, Cluster, Database, process, wait_until
from harness.jobs import (
    complete,
    progress,
    start,
    start_count,
    wait_for_nap_between_batches,
    wait_for_nap_in_batch,
    wait_for_rows,
    wait_for_state,
)
from harness.server import clean_environment
from harness.tables import counts, make_table, sleep_at

New = Callable[..., Cluster]
ROWS = 2000
MINUTE = 60_000
EAGER = {"backfill.launcher_interval": "1s"}
CALL = "SELECT backfill.start('t', 100, 0, 'n = n + 1', name => 'once')"


# Clients


def client(db: Database, script: str) -> subprocess.Popen[str]:
    """A psql that runs the script, and then waits for more."""
    command = [db.cluster.server.program("psql"), "-X", db.dsn()]
    psql = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=clean_environment()
    )
    assert psql.stdin
    psql.stdin.write(script)
    psql.stdin.flush()
    return psql


def test_a_client_killed_before_its_commit(db: Database) -> None:
    """Nothing is started, and nothing is left of the job."""
    make_table(db, ROWS)
    psql = client(db, f"BEGIN;\n{CALL};\n")
    idle = "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()"
    wait_until(lambda: db.sql(idle), 30, "the call to return")
    psql.kill()
    psql.wait()
    wait_until(lambda: not db.sql(idle), 30, "the server to notice")
    assert db.sql("SELECT * FROM backfill.progress") == []
    complete(db, db.value(CALL))
    assert counts(db) == [(1, ROWS)]


def test_a_client_killed_within_its_commit(db: Database) -> None:
    """The job runs, though nobody was told; the same call once more gives the same job, by its name."""
    make_table(db, ROWS)
    db.sql("""
        CREATE TABLE slow (a int);
        CREATE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER nap AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION nap()
    """)
    psql = client(db, f"BEGIN;\nINSERT INTO slow VALUES (1);\n{CALL};\nCOMMIT;\n")
    commits = "SELECT pid FROM pg_stat_activity WHERE query = 'COMMIT;' AND wait_event = 'PgSleep'"
    [(pid,)] = wait_until(lambda: db.sql(commits), 30, "the commit")
    psql.kill()
    psql.wait()
    alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
    wait_until(lambda: db.value(alive, [pid]) == 0, 30, "the server to notice")
    job = db.value(CALL)
    complete(db, job)
    assert db.sql("SELECT job_id FROM backfill.progress") == [(job,)]
    assert counts(db) == [(1, ROWS)]


# The server


def test_a_postmaster_killed_alone(new_cluster: New) -> None:
    """Its children see it and end by themselves, the worker in its batch too; after the start the job goes on."""
    cluster = new_cluster(conf=DURABLE)
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, ROWS)
    sleep_at(cluster, 1050)
    job = start_count(cluster)
    worker = wait_for_nap_in_batch(cluster, job)
    postmaster = cluster.pid
    others = process.children(postmaster)
    assert worker in others
    process.kill_and_wait(postmaster)
    cluster.close_connections()
    wait_until(lambda: not any(map(process.alive, others)), 30, "the others to end")
    cluster.start()
    wait_for_nap_in_batch(cluster, job)
    assert counts(cluster) == [(0, ROWS - 1000), (1, 1000)]
    cluster.terminate_worker(job)
    cluster.sql("DROP TRIGGER sleep_at_1050 ON t")
    cluster.reload()
    complete(cluster, job)
    assert counts(cluster) == [(1, ROWS)]


def test_a_smart_shutdown_in_a_batch(new_cluster: New) -> None:
    """While a client is still there the job goes on; when that has gone, nothing waits for the batch."""
    cluster = new_cluster(conf=DURABLE)
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, ROWS)
    sleep_at(cluster, 1950)
    job = start_count(cluster, sleep_ms=20)
    with cluster.connect() as client:
        wait_for_rows(cluster, job, 100)
        process.send(cluster.pid, signal.SIGTERM)
        row = "SELECT rows_done, workers FROM backfill.progress WHERE job_id = %s"
        asleep = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'backfill worker' AND wait_event = 'PgSleep'"
        )
        wait_until(lambda: client.execute(asleep).fetchone() == (1,), 60, "the batch that sleeps")
        assert client.execute(row, [job]).fetchone() == (1900, 1)
    wait_until(lambda: not cluster.running, 20, "the server to stop")
    cluster.start()
    wait_for_nap_in_batch(cluster, job)
    assert counts(cluster) == [(0, 100), (1, 1900)]
    cluster.terminate_worker(job)
    cluster.sql("DROP TRIGGER sleep_at_1950 ON t")
    cluster.reload()
    complete(cluster, job)
    assert counts(cluster) == [(1, ROWS)]


# Workers


SIGNALS = ["pg_cancel_backend", "pg_terminate_backend"]


def signalled(db: Database, job: int, function: str) -> None:
    """Sends it to the job's worker; a job whose worker is gone is shown so, and is taken up by hand."""
    pid = db.worker_pid(job)
    db.sql(f"SELECT {function}(%s)", [pid])
    if function == "pg_terminate_backend":
        wait_until(lambda: not process.alive(pid), 10, "the worker to end")
        wait_until(lambda: "none is running" in (progress(db, job)["waiting_for"] or ""), 10, "the view to tell")
        db.sql("SELECT backfill.resume(%s)", [job])


def waits_for_a_lock(db: Database, job: int) -> None:
    """Until its worker does, with no lock timeout of its own to end it."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s AND wait_event_type = 'Lock'"
    wait_until(lambda: db.value(query, [f"backfill job {job}:%"]), 30, "the worker to wait for the lock")


@pytest.mark.parametrize("function", SIGNALS)
def test_signals_between_batches(db: Database, function: str) -> None:
    """A cancel has nothing to cancel; a terminate ends the process, not the job."""
    make_table(db, ROWS)
    job = start_count(db, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    signalled(db, job, function)
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    complete(db, job)
    assert counts(db) == [(1, ROWS)]


@pytest.mark.parametrize("function", SIGNALS)
@pytest.mark.parametrize("phase", ["before the first batch", "in a batch", "at the end"])
def test_signals_to_a_worker_that_waits_for_a_lock(db: Database, phase: str, function: str) -> None:
    """It is tried again, or goes on where it was; never the job fails for it."""
    db.sql("""
        CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (1) TO (1001);
        CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (1001) TO (2001);
        INSERT INTO t SELECT generate_series(1, 2000);
    """)
    options = """{"lock_timeout_ms": 0, "vacuum": false, "analyze": false}"""
    job = db.value("SELECT backfill.define('t', 'n = n + 1', options => %s::jsonb)", [options])
    with db.connect(autocommit=False) as other:
        if phase == "before the first batch":
            other.execute("LOCK TABLE t_2")
        db.sql("SELECT backfill.start('t', 100, 20)")
        if phase == "in a batch":
            wait_for_rows(db, job, 100)
            other.execute("UPDATE t SET n = n WHERE id = 1500")
        if phase == "at the end":
            wait_for_rows(db, job, 1100)
            other.execute("LOCK TABLE t_1")
        waits_for_a_lock(db, job)
        signalled(db, job, function)
        waits_for_a_lock(db, job)
        assert progress(db, job)["state"] == "running"
        other.rollback()
    complete(db, job)
    assert counts(db) == [(1, 2000)]


def test_signals_at_any_time(new_cluster: New) -> None:
    """Cancels and terminates without a break: whatever they hit, the job goes on, and every row is done once."""
    cluster = new_cluster(conf=EAGER)
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, 20_000)
    options = {"workers": 2, "strategy": "waves", "waves": 3}
    job = start(cluster, "t", "n = n + 1", batch=100, sleep_ms=2, options=options)
    workers = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'backfill worker'"
    sent = 0
    with cluster.connect() as connection:
        while progress(cluster, job)["state"] == "running":
            for (pid,) in connection.execute(workers).fetchall():
                function = SIGNALS[sent % 15 == 14]
                connection.execute(f"SELECT {function}(%s)", [pid])
                sent += 1
    complete(cluster, job)
    assert sent > 15
    assert counts(cluster) == [(1, 20_000)]


def test_signals_to_the_launcher(new_cluster: New) -> None:
    """It comes back, if it went, and takes up what has no worker."""
    cluster = new_cluster(conf=EAGER)
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, ROWS)
    job = start_count(cluster, sleep_ms=MINUTE)
    wait_for_nap_between_batches(cluster, job)
    launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'backfill launcher'"
    pid = cluster.value(launcher)
    for function in SIGNALS:
        cluster.sql(f"SELECT {function}(%s)", [pid])
        if function == "pg_terminate_backend":
            wait_until(lambda: cluster.sql(launcher) not in ([], [(pid,)]), 30, "the launcher to come back")
        worker = cluster.terminate_worker(job)
        wait_until(lambda worker=worker: cluster.worker_pids(job) not in ([], [worker]), 30, "another worker")
    cluster.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    complete(cluster, job)
    assert counts(cluster) == [(1, ROWS)]


# Databases


def test_drop_database_without_force(shared_cluster: Cluster) -> None:
    """It is refused, as with any session in it, and does the job no harm; paused, the job is no obstacle."""
    shared_cluster.sql("CREATE DATABASE busy")
    busy = shared_cluster.database("busy")
    busy.sql("CREATE EXTENSION backfill")
    make_table(busy, ROWS)
    job = start_count(busy, sleep_ms=MINUTE)
    wait_for_nap_between_batches(busy, job)
    with pytest.raises(psycopg.errors.ObjectInUse, match="being accessed by other users"):
        shared_cluster.sql("DROP DATABASE busy")
    assert progress(busy, job)["state"] == "running"
    busy.sql("SELECT backfill.alter(%s, sleep_ms => 20)", [job])
    wait_for_rows(busy, job, 500)
    busy.sql("SELECT backfill.pause(%s)", [job])
    wait_for_state(busy, job, "paused")
    [(done, rows)] = [row for row in counts(busy) if row[0] > 0]
    assert (done, rows) == (1, progress(busy, job)["rows_done"])
    shared_cluster.sql("DROP DATABASE busy")


def test_drop_database_with_force_in_a_batch(shared_cluster: Cluster) -> None:
    """The batch is rolled back; nothing of the job is left in the server, nor does anything look for it."""
    shared_cluster.sql("CREATE DATABASE doomed")
    doomed = shared_cluster.database("doomed")
    doomed.sql("CREATE EXTENSION backfill")
    make_table(doomed, ROWS)
    sleep_at(doomed, 150)
    pid = wait_for_nap_in_batch(doomed, start_count(doomed))
    oid = shared_cluster.value("SELECT oid FROM pg_database WHERE datname = 'doomed'")
    shared_cluster.sql("DROP DATABASE doomed WITH (FORCE)")
    assert not process.alive(pid)
    assert shared_cluster.value("SELECT count(*) FROM pg_locks WHERE database = %s", [oid]) == 0
    shared_cluster.reload()
    left = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'backfill%%' AND datid = %s"
    assert shared_cluster.value(left, [oid]) == 0
