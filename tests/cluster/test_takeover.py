"""Jobs that wait for a worker get exactly one, whatever stands in the way of those that give it to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from harness import Cluster, Database, Server, wait_until
from harness.jobs import progress, start_count, wait_for_nap_between_batches, wait_for_nap_in_batch, wait_for_state
from harness.tables import counts, make_table, sleep_at

New = Callable[..., Cluster]
MINUTE = 60_000
WORKERS_STARTED = "SELECT count(*) FROM backfill_internal.event WHERE event = 'worker started' AND job_id = %s"
# What the server itself has registered, also for workers that find nothing to do.
TALKATIVE = {"log_min_messages": "debug1", "backfill.max_workers": 1}


@pytest.fixture(scope="module")
def narrow(server: Server) -> Iterator[Cluster]:
    """A server with room for one worker, whose log tells of each process it starts."""
    with Cluster(server=server, conf=TALKATIVE) as cluster:
        yield cluster


@pytest.fixture
def single(narrow: Cluster, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database of that server with the tables a, b and c of 300 rows."""
    name = f"db_{abs(hash(request.node.name))}"
    narrow.sql(f"CREATE DATABASE {name}")
    db = narrow.database(name)
    db.sql("CREATE EXTENSION backfill")
    for table in "abc":
        make_table(db, 300, table)
    yield db
    narrow.close_connections()
    narrow.sql(f"DROP DATABASE {name} WITH (FORCE)")


def busy(db: Database) -> int:
    """A job on table a that keeps the only worker, asleep after its first batch."""
    job = start_count(db, "a", sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    return job


def processes_started(cluster: Cluster, job: int) -> int:
    """How many processes the server has started for jobs of this id, in all its databases."""
    lines = cluster.log.read_text(errors="replace").splitlines()
    return sum("starting background worker process" in line and f"backfill job {job}" in line for line in lines)


@pytest.mark.parametrize("why", ["renamed", "no CONNECT"])
def test_jobs_that_stand_still_are_not_in_the_way(single: Database, why: str) -> None:
    """Of more than one look takes, all older: their owner has another name now, or may not connect."""
    enabled = "ALTER SYSTEM SET backfill.enabled = {}; SELECT pg_reload_conf()"
    role = f"away_{why[:2]}"
    single.sql(f"CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA public TO {role}")
    for statement in enabled.format("off").split("; "):
        single.sql(statement)
    wait_until(lambda: single.value("SHOW backfill.enabled") == "off", 10, "the setting")
    single.sql(
        "DO $$ BEGIN FOR i IN 1 .. 120 LOOP EXECUTE format('CREATE TABLE x%s (id int PRIMARY KEY, n int)', i);"
        " PERFORM backfill.start(format('x%s', i)::regclass, set_clause => 'n = 1'); END LOOP; END $$",
        user=role,
    )
    if why == "renamed":
        single.sql(f"ALTER ROLE {role} RENAME TO {role}_now")
    else:
        single.sql(f"REVOKE CONNECT ON DATABASE {single.name} FROM PUBLIC")
    for statement in enabled.format("on").split("; "):
        single.sql(statement)
    wait_until(lambda: single.value("SHOW backfill.enabled") == "on", 10, "the setting")
    first = busy(single)
    second = start_count(single, "b")
    single.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [first])
    for job in (first, second):
        wait_for_state(single, job, "completed")
    assert counts(single, "b") == [(1, 300)]


def test_a_worker_that_comes_late_leaves_a_completed_job_alone(single: Database) -> None:
    """It was asked for while the job waited, and comes when another has completed it: later rows are not touched."""
    first = busy(single)
    late = start_count(single, "b")
    connection = single.connect(autocommit=False)
    connection.execute("""SELECT backfill.alter(%s, options => '{"workers": 2}')""", [late])
    single.sql("SELECT backfill.cancel(%s)", [first])
    wait_for_state(single, late, "completed")
    single.sql("INSERT INTO b SELECT generate_series(1001, 1050)")
    before = processes_started(single.cluster, late)
    connection.commit()
    wait_until(lambda: processes_started(single.cluster, late) > before, 30, "the late worker")
    alive = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'backfill%'"
    wait_until(lambda: single.value(alive) == 0, 30, "the late worker to end")
    assert counts(single, "b") == [(0, 50), (1, 300)]
    assert progress(single, late)["rows_done"] == 300
    assert single.value(WORKERS_STARTED, [late]) == 1


def test_a_worker_that_cannot_record_its_end_is_not_started_again_and_again(single: Database) -> None:
    """As on a full disk: the job waits for somebody to look, and goes on when that is over."""
    single.sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'could not extend file'; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON backfill_internal.outcome FOR EACH ROW WHEN (new.job_id = 1)"
        " EXECUTE FUNCTION full_disk(); ALTER TABLE backfill_internal.outcome ENABLE ALWAYS TRIGGER full_disk"
    )
    job = start_count(single, "a")
    wait_until(lambda: single.value(WORKERS_STARTED, [job]) and not single.worker_pids(job), 30, "the worker to end")
    # A worker of another job looks for waiting ones too.
    wait_for_state(single, start_count(single, "b"), "completed")
    assert single.value(WORKERS_STARTED, [job]) <= 2
    assert progress(single, job)["state"] == "running"
    wait_until(lambda: "none is running" in (progress(single, job)["waiting_for"] or ""), 10, "the view to say so")
    single.sql("DROP TRIGGER full_disk ON backfill_internal.outcome")
    single.sql("SELECT backfill.resume(%s)", [job])
    wait_for_state(single, job, "completed")
    assert counts(single, "a") == [(1, 300)]


def test_a_job_that_cannot_be_read_stops_no_other(single: Database) -> None:
    """As after a restore of a newer version's dump."""
    first = busy(single)
    unreadable, waiting = start_count(single, "b"), start_count(single, "c")
    single.sql("""UPDATE backfill_internal.job SET options = '{"future": 1}' WHERE id = %s""", [unreadable])
    single.sql("SELECT backfill.cancel(%s)", [first])
    wait_for_state(single, waiting, "completed")
    assert single.value("SELECT backfill.pause_all()") == 0
    assert counts(single, "b") == [(0, 300)]
    assert f"backfill job {unreadable} cannot be read" in single.cluster.log.read_text(errors="replace")


def test_a_late_cancel_interrupts_no_other_job(single: Database) -> None:
    """cancel(now) commits when its job has completed, and the same process is in a batch of the next."""
    sleep_at(single, 150, seconds=2, name="b")
    first = start_count(single, "a", batch_size=200, sleep_ms=700)
    second = start_count(single, "b")
    wait_for_nap_between_batches(single, first)
    connection = single.connect(autocommit=False)
    connection.execute("SELECT backfill.cancel(%s, now => true)", [first])
    wait_for_nap_in_batch(single, second)
    connection.commit()
    wait_for_state(single, second, "completed")
    assert counts(single, "b") == [(1, 300)]


def test_a_worker_that_waits_for_its_table_holds_no_snapshot(db: Database) -> None:
    """Behind LOCK TABLE, or a long ALTER, VACUUM elsewhere is not held up."""
    make_table(db, 300)
    job = start_count(db, sleep_ms=MINUTE)
    pid = wait_for_nap_between_batches(db, job)
    connection = db.connect(autocommit=False)
    connection.execute("LOCK TABLE t")
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    waits = "SELECT backend_xmin FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    rows = wait_until(lambda: db.sql(waits, [pid]), 30, "the worker to wait for the table")
    assert rows == [(None,)]
    connection.rollback()
    wait_for_state(db, job, "completed")
    assert counts(db) == [(1, 300)]


def test_two_hundred_jobs_each_run_once(new_cluster: New) -> None:
    """All started in one transaction, with room for two: nobody takes up what another has taken up already."""
    cluster = new_cluster(conf={"backfill.max_workers": 2})
    cluster.sql(
        "CREATE EXTENSION backfill;"
        "DO $$ BEGIN FOR i IN 1..200 LOOP"
        " EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t%s VALUES (1)', i, i);"
        " END LOOP; END $$"
    )
    cluster.sql(
        "SET client_min_messages = warning; SELECT backfill.start(oid::regclass, 10, 0, 'n = n + 1')"
        " FROM pg_class WHERE relname ~ '^t[0-9]+$' AND relkind = 'r'"
    )
    left = "SELECT count(*) FROM backfill.progress WHERE state <> 'completed'"
    wait_until(lambda: cluster.value(left) == 0, 60, "all jobs to complete", every=0.2)
    events = "SELECT count(*), count(DISTINCT job_id) FROM backfill_internal.event WHERE event = %s"
    assert cluster.sql(events, ["worker started"]) == [(200, 200)]
    assert cluster.sql(events, ["completed"]) == [(200, 200)]


def test_a_locked_database_holds_up_no_other(new_cluster: New) -> None:
    """The launcher gives up on a database where the tables of the extension are locked, and goes on to the next."""
    cluster = new_cluster(conf={"backfill.launcher_interval": "1s"})
    one, two = (cluster.sql(f"CREATE DATABASE {name}") or cluster.database(name) for name in ("one", "two"))
    for db in (one, two):
        db.sql("CREATE EXTENSION backfill")
    make_table(two, 300)
    job = start_count(two, sleep_ms=MINUTE)
    wait_for_nap_between_batches(two, job)
    one.connect(autocommit=False).execute("LOCK TABLE backfill_internal.job")
    sweeper = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'one' AND wait_event_type = 'Lock'"
    wait_until(lambda: cluster.value(sweeper), 30, "the sweep to come to the locked database")
    pid = two.terminate_worker(job)
    wait_until(lambda: two.worker_pids(job) not in ([], [pid]), 20, "another worker")
