"""A worker process runs one job: nothing that the code of one has left is there for the next."""

from __future__ import annotations

from collections.abc import Callable

from harness import Cluster, Database, wait_until
from harness.jobs import complete, start, start_count, wait_for_nap_between_batches
from harness.tables import counts, make_table

New = Callable[..., Cluster]
MINUTE = 60_000
LEAVE = """
CREATE TABLE left_over (what text);
CREATE SEQUENCE counter;
CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('app.left', true) IS NULL THEN
        PERFORM pg_advisory_lock(4711), set_config('app.left', 'here', false), nextval('counter');
        EXECUTE 'PREPARE stmt AS SELECT 1';
        EXECUTE 'CREATE TEMP TABLE temporary (n int)';
        PERFORM setseed(0.5);
    END IF;
    RETURN new;
END $$;
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO left_over
    SELECT 'lock' FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND objid = 4711
    UNION ALL SELECT 'setting' WHERE current_setting('app.left', true) IS NOT NULL
    UNION ALL SELECT 'statement ' || name FROM pg_prepared_statements
    UNION ALL SELECT 'temporary' WHERE to_regclass('temporary') IS NOT NULL
    UNION ALL SELECT 'process' FROM seen WHERE pid = pg_backend_pid();
    RETURN new;
END $$;
CREATE TABLE seen (pid int);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO seen VALUES (pg_backend_pid()); RETURN NULL; END $$;
CREATE TRIGGER leave BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION leave();
CREATE TRIGGER see AFTER UPDATE ON a FOR EACH STATEMENT EXECUTE FUNCTION see();
CREATE TRIGGER look BEFORE UPDATE ON b FOR EACH ROW WHEN (old.id = 1) EXECUTE FUNCTION look();
"""


def one_after_the_other(cluster: Database) -> None:
    """Two jobs of one owner's, the second of which waits for the first one's slot."""
    cluster.sql("CREATE EXTENSION backfill")
    for table in "ab":
        make_table(cluster, 300, table)
    cluster.sql(LEAVE)
    first = start_count(cluster, "a", sleep_ms=MINUTE)
    wait_for_nap_between_batches(cluster, first)
    second = start_count(cluster, "b")
    # After a checkpoint, the process that comes anew must not take the end of the first job for a crash.
    cluster.sql("CHECKPOINT")
    cluster.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [first])
    for job in (first, second):
        complete(cluster, job)
    assert (counts(cluster, "a"), counts(cluster, "b")) == ([(1, 300)], [(1, 300)])
    assert cluster.sql("SELECT * FROM left_over") == []
    assert cluster.value("SELECT count(*) FROM seen") > 0
    gone = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'backfill worker'"
    wait_until(lambda: cluster.value(gone) == 0, 20, "the workers to end")


def test_nothing_of_one_job_is_there_for_the_next(new_cluster: New) -> None:
    """Locks, settings, prepared statements, temporary tables, of the same owner."""
    one_after_the_other(new_cluster(preload=False, conf={"backfill.max_workers": 1}))


def test_nor_where_the_server_has_one_process_only(new_cluster: New) -> None:
    """The server's own logical replication launcher has the other: the one that ends makes room for its successor."""
    one_after_the_other(new_cluster(preload=False, conf={"max_worker_processes": 2}))


def test_a_terminated_worker_stays_away(new_cluster: New) -> None:
    """Only who asks for it is started anew."""
    cluster = new_cluster(preload=False)
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, 300)
    job = start_count(cluster, sleep_ms=MINUTE)
    wait_for_nap_between_batches(cluster, job)
    cluster.terminate_worker(job)
    none = "none is running this job"
    view = "SELECT waiting_for FROM backfill.progress"
    wait_until(lambda: none in (cluster.value(view) or ""), 20, "the view to say so")
    assert cluster.worker_pids(job) == []


def test_an_owner_whose_code_ends_the_process(new_cluster: New) -> None:
    """A trigger that terminates its own worker: neither the server nor the next job is harmed."""
    cluster = new_cluster(preload=False, conf={"backfill.max_workers": 1})
    cluster.sql("CREATE EXTENSION backfill")
    for table in "ab":
        make_table(cluster, 300, table)
    cluster.sql(
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN new; END $$;"
        "CREATE TRIGGER stop BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION stop()"
    )
    start(cluster, "a", "n = n + 1")
    wait_until(lambda: "terminating background worker" in cluster.log.read_text(errors="replace"), 20, "its end")
    complete(cluster, start_count(cluster, "b"))
    assert "all server processes terminated" not in cluster.log.read_text(errors="replace")
