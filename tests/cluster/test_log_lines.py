"""What the server log says of a job, and how often it says how far it is."""

from __future__ import annotations

import re
from collections.abc import Callable

from harness import Cluster, Database, wait_until
from harness.jobs import complete, fail, start, wait_for, wait_for_nap_between_batches
from harness.tables import make_table

MINUTE = 60_000


class Log:
    """The server log from now on: other tests have jobs of the same ids in it, in databases of their own."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        self.database = database
        self.path = cluster.log
        self.begin = self.path.stat().st_size

    def lines(self, job: int) -> list[str]:
        """What it says of the job, without what comes before that."""
        text = self.path.read_bytes()[self.begin :].decode(errors="replace")
        found = re.findall(rf"LOG:  backfill job {job}\b(.*) on ([^ ]+ \(database [^ ]+, owner [^ ]+\)):? (.*)", text)
        for _name, where, _what in found:
            assert where == f"public.t (database {self.database}, owner postgres)"
        return [f"{name.strip()} {what}".strip() for name, _where, what in found]


def test_start_pause_end_and_failure(shared_cluster: Cluster, db: Database) -> None:
    """A line each, whether a worker or a call brings it about."""
    log = Log(shared_cluster, db.name)
    make_table(db, 100)
    job = start(db, "t", "n = n + 1", batch=10, sleep_ms=MINUTE, name="first")
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for(db, job, "paused")
    db.sql("SELECT backfill.cancel(%s)", [job])
    wait_until(lambda: len(log.lines(job)) == 3, 30, "three lines")
    wanted = ['("first") runs', '("first") paused', '("first") cancelled']
    assert log.lines(job) == wanted
    job = start(db, "t", "n = 1 / (id - 50)")
    fail(db, job)
    wait_until(lambda: len(log.lines(job)) == 2, 30, "two lines")
    assert log.lines(job)[1].startswith("failed: division by zero (SQLSTATE 22012)")


def test_a_cancel_that_is_rolled_back_leaves_no_line(shared_cluster: Cluster, db: Database) -> None:
    """What is logged has happened."""
    log = Log(shared_cluster, db.name)
    make_table(db, 10)
    job = db.value("SELECT backfill.define('t', 'n = 1')")
    db.sql(f"BEGIN; SELECT backfill.cancel({job}); ROLLBACK")
    assert log.lines(job) == []
    db.sql("SELECT backfill.cancel(%s)", [job])
    assert log.lines(job) == ["cancelled"]


def test_the_heartbeat(new_cluster: Callable[..., Cluster]) -> None:
    """One worker of two says how far the job is, without its clauses; 0 turns it off."""
    cluster = new_cluster(conf={"backfill.log_heartbeat_interval": 1})
    db = cluster.database("postgres")
    db.sql("CREATE EXTENSION backfill")
    log = Log(cluster, "postgres")
    make_table(db, 200_000)
    db.sql("ANALYZE t")
    job = start(db, "t", "n = n + 4711", batch=10, sleep_ms=50, options={"workers": 2})
    beats = lambda: [line for line in log.lines(job) if " % " in line or "%," in line]  # noqa: E731
    wait_until(lambda: len(beats()) >= 3, 60, "three heartbeats")
    pattern = r"\d+\.\d %, \d+ of \d+ rows, \d+\.\d rows/s, ETA [0-9:.]+, 2 workers"
    assert any(re.fullmatch(pattern, line) for line in beats()), beats()
    assert "4711" not in "".join(beats())
    elapsed = db.value("SELECT extract(epoch FROM clock_timestamp() - started_at)::float FROM backfill.progress")
    # Each worker begins to count when it begins: no more than one of them speaks.
    assert len(beats()) <= elapsed + 1
    cluster.set(**{"backfill.log_heartbeat_interval": 0})
    cluster.reload()
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for(db, job, "paused")
    known = len(beats())
    db.sql("SELECT backfill.resume(%s)", [job])
    db.sql("SELECT backfill.alter(%s, batch_size => 1000, sleep_ms => 0)", [job])
    complete(db, job)
    assert len(beats()) == known


def test_events_name_who_is_logged_in(db: Database) -> None:
    """Not only the role that was SET; and a job that has lost its worker tells of its resume."""
    db.sql("DROP ROLE IF EXISTS person, crew_1; CREATE ROLE crew_1; CREATE ROLE person LOGIN IN ROLE crew_1")
    make_table(db, 100)
    db.sql("ALTER TABLE t OWNER TO crew_1; ALTER ROLE person IN DATABASE " + db.name + " SET role = crew_1")
    job = start(db, "t", "n = n + 1", batch=10, sleep_ms=MINUTE, user="person")
    wait_for_nap_between_batches(db, job)
    db.terminate_worker(job)
    db.sql("SELECT backfill.resume(%s)", [job])
    wait_until(lambda: db.worker_pids(job) != [], 30, "another worker")
    db.sql("SELECT backfill.cancel(%s)", [job], user="person")
    wait_for(db, job, "cancelled")
    events = db.sql(
        "SELECT event, actor::text, login FROM backfill.events WHERE job_id = %s AND event <> 'worker started'"
        " ORDER BY event_id",
        [job],
    )
    assert ("define", "crew_1", "person") in events and ("start", "crew_1", "person") in events
    assert ("resume", "postgres", "postgres") in events and ("cancel", "crew_1", "person") in events
    db.cluster.close_connections()
    db.sql("DROP OWNED BY person, crew_1 CASCADE; DROP ROLE person, crew_1")
