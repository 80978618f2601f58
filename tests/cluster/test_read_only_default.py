"""default_transaction_read_only, as providers and DBAs set it: jobs give way, and can be paused and cancelled."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from harness import Cluster, Database, wait_until
from harness.jobs import complete, progress, start, wait_for, wait_for_rows
from harness.tables import counts, make_table
from harness.throttles import stands_still, throttled

ROWS = 20_000
SAYS = ("default_transaction_read_only: it is on",)
WRITABLE = "SET default_transaction_read_only = off"


def run(db: Database, *statements: str) -> None:
    """In a session that may write, each by itself."""
    with psycopg.connect(db.dsn(), autocommit=True) as connection:
        for statement in (WRITABLE, *statements):
            connection.execute(statement)


def running(db: Database) -> int:
    """A job that is at work, slowly."""
    make_table(db, ROWS)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=100)
    wait_for_rows(db, job, 100)
    return job


@pytest.mark.parametrize(
    "whose", ["DATABASE {name}", "ROLE postgres IN DATABASE {name}", "ROLE ALL IN DATABASE {name}"]
)
def test_a_job_gives_way(db: Database, whose: str) -> None:
    """It says why, and goes on by itself; a worker that is terminated comes back, and waits."""
    job = running(db)
    of = whose.format(name=db.value("SELECT current_database()"))
    run(db, f"ALTER {of} SET default_transaction_read_only = on")
    throttled(db, job, *SAYS)
    stands_still(db, job)
    run(db, f"ALTER {of} SET default_transaction_read_only = off")
    before = progress(db, job)["rows_done"]
    wait_until(lambda: progress(db, job)["rows_done"] > before, 30, "the job to go on")
    run(db, f"ALTER {of} SET default_transaction_read_only = on")
    throttled(db, job, *SAYS)
    run(db, f"ALTER {of} RESET default_transaction_read_only")
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    complete(db, job)
    assert counts(db) == [(1, ROWS)]


@pytest.mark.parametrize("call", ["pause", "cancel", "pause_all", "pause_now"])
def test_it_can_be_paused_and_cancelled(db: Database, call: str) -> None:
    """In a session that is read only by the same setting; and what the views show can be seen there."""
    job = running(db)
    run(db, f"ALTER DATABASE {db.value('SELECT current_database()')} SET default_transaction_read_only = on")
    throttled(db, job, *SAYS)
    assert db.value("SHOW transaction_read_only") == "on"
    for view in ("progress", "dashboard", "failed_rows", "events", "samples"):
        db.sql(f"SELECT * FROM backfill.{view}")
    statement = {"pause_all": "SELECT backfill.pause_all()", "pause_now": f"SELECT backfill.pause({job}, now => true)"}
    db.sql(statement.get(call, f"SELECT backfill.{call}({job})"))
    wait_for(db, job, "cancelled" if call == "cancel" else "paused")
    # What makes a job write is refused, with what to do; and nothing else may be written.
    for refused in ("SELECT backfill.resume(%s)", "SELECT backfill.retry_failed(%s)"):
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as error:
            db.sql(refused, [job])
        assert "BEGIN READ WRITE" in (error.value.diag.message_hint or "")
    with psycopg.connect(db.dsn()) as connection:
        connection.execute(f"SELECT backfill.{'cancel' if call == 'cancel' else 'pause'}({job})")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("UPDATE t SET n = 5")
    assert db.value("SELECT count(*) FROM t WHERE n = 5") == 0


def test_a_transaction_that_is_declared_read_only(db: Database) -> None:
    """Nothing is written there, where the default is another."""
    job = running(db)
    with psycopg.connect(db.dsn(), autocommit=True) as connection:
        connection.execute("BEGIN READ ONLY")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("SELECT backfill.pause(%s)", [job])
        connection.execute("ROLLBACK")
        connection.execute("SET default_transaction_read_only = on")
        connection.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("SELECT backfill.pause(%s)", [job])
        connection.execute("ROLLBACK")
    assert progress(db, job)["state"] == "running"
    db.sql("SELECT backfill.cancel(%s)", [job])


def test_the_whole_server(new_cluster: Callable[..., Cluster]) -> None:
    """ALTER SYSTEM and a reload; a new worker, after the first was terminated; a role that is exempt."""
    cluster = new_cluster(preload=True, conf={"backfill.launcher_interval": "1s"})
    cluster.sql("CREATE EXTENSION backfill")
    job = running(cluster)
    run(cluster, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    throttled(cluster, job, *SAYS)
    pid = cluster.terminate_worker(job)
    wait_until(lambda: cluster.worker_pids(job) not in ([], [pid]), 50, "another worker")
    throttled(cluster, job, *SAYS)
    stands_still(cluster, job)
    run(cluster, "ALTER ROLE postgres SET default_transaction_read_only = off")
    before = progress(cluster, job)["rows_done"]
    wait_until(lambda: progress(cluster, job)["rows_done"] > before, 30, "the exempt role's job to go on")
    # Without that, the server's value counts again.
    run(cluster, "ALTER ROLE postgres RESET default_transaction_read_only")
    throttled(cluster, job, *SAYS)
    run(cluster, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
    cluster.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    complete(cluster, job)
    assert counts(cluster) == [(1, ROWS)]
