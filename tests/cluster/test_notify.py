"""Whoever listens on the channel "backfill" is told of each change of state, when it has committed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from harness import Cluster, Database, Server, wait_until
from harness.jobs import complete, fail, start, wait_for, wait_for_nap_between_batches
from harness.tables import make_table

MINUTE = 60_000


class Ear:
    """A session that listens."""

    def __init__(self, db: Database) -> None:
        db.sql("DROP ROLE IF EXISTS ear; CREATE ROLE ear LOGIN")
        self.connection = db.connect("ear")
        self.connection.execute("LISTEN backfill")
        self.heard: list[str] = []

    def hear(self, seconds: float = 0.1) -> list[str]:
        """All payloads so far."""
        self.heard += [notify.payload for notify in self.connection.notifies(timeout=seconds)]
        return self.heard

    def states(self, job: int) -> list[str]:
        """The states that were told of the job."""
        return [told["state"] for told in map(json.loads, self.hear()) if told["job_id"] == job]

    def expect(self, job: int, *states: str) -> None:
        """Waits until these, and no others, have been told."""
        wait_until(lambda: len(self.states(job)) >= len(states), 30, f"{states}, but heard {self.heard}")
        assert self.states(job) == list(states)


@pytest.fixture
def ear(db: Database) -> Iterator[Ear]:
    """Anyone may listen: a role without any right."""
    ear = Ear(db)
    yield ear
    ear.connection.close()
    db.sql("DROP ROLE ear")


def test_each_state_from_define_to_completed(db: Database, ear: Ear) -> None:
    """By calls and by workers: nothing but the id and the state."""
    make_table(db, 100)
    job = db.value("SELECT backfill.define('t', 'n = n + 1', 'id > 0 OR ''secret'' = ''''', 'secret name')")
    ear.expect(job, "pending")
    db.sql("SELECT backfill.start('t', 10, %s)", [MINUTE])
    ear.expect(job, "pending", "running")
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for(db, job, "paused")
    ear.expect(job, "pending", "running", "pausing", "paused")
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    ear.expect(job, "pending", "running", "pausing", "paused", "running", "completed")
    assert ear.heard == [
        json.dumps({"job_id": job, "state": state}, separators=(",", ":")) for state in ear.states(job)
    ]


def test_failure_retry_and_cancel(db: Database, ear: Ear) -> None:
    """A failed job that is cancelled, one that tries its failed rows again, and one cancelled while it runs."""
    make_table(db, 100)
    job = start(db, "t", "n = 1 / (id - 50)")
    fail(db, job)
    db.sql("SELECT backfill.cancel(%s)", [job])
    ear.expect(job, "pending", "running", "failed", "cancelled")
    job = start(db, "t", "n = 1 / (id - 50)", options={"max_failed_rows": 5})
    complete(db, job)
    db.sql("SELECT backfill.retry_failed(%s)", [job])
    complete(db, job)
    ear.expect(job, "pending", "running", "completed", "running", "completed")
    job = start(db, "t", "n = 7", batch=10, sleep_ms=MINUTE)
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.cancel(%s)", [job])
    wait_for(db, job, "cancelled")
    ear.expect(job, "pending", "running", "cancelling", "cancelled")


def test_only_what_commits_is_told(db: Database, ear: Ear) -> None:
    """Nothing of a rolled-back call or savepoint, and nothing before the commit."""
    make_table(db, 10)
    db.sql("CREATE TABLE other (id int PRIMARY KEY, n int)")
    with psycopg.connect(db.dsn()) as connection:
        connection.execute("SELECT backfill.define('t', 'n = 1')")
        connection.rollback()
        connection.execute("SAVEPOINT s")
        connection.execute("SELECT backfill.define('t', 'n = 2')")
        connection.execute("ROLLBACK TO s")
        connection.execute("SAVEPOINT s")
        row = connection.execute("SELECT backfill.define('other', 'n = 3')").fetchone()
        connection.execute("RELEASE s")
        assert row and ear.hear(0.5) == []
        connection.commit()
    ear.expect(row[0], "pending")
    assert len(ear.heard) == 1


def test_a_definition_cannot_be_prepared(new_cluster: Callable[..., Cluster]) -> None:
    """Its locks would be held without a session; and nothing of it is told."""
    db = new_cluster(conf={"max_prepared_transactions": 4}).database("postgres")
    db.sql("CREATE EXTENSION backfill")
    make_table(db, 10)
    with db.connect() as connection:
        connection.execute("LISTEN backfill")
        connection.execute("BEGIN")
        connection.execute("SELECT backfill.define('t', 'n = 1')")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            connection.execute("PREPARE TRANSACTION 'p'")
        # The next commit of the session tells nothing of it either.
        connection.execute("CREATE TABLE another ()")
        assert list(connection.notifies(timeout=0.2)) == []
    assert db.value("SELECT count(*) FROM backfill.progress") == 0


def test_a_full_queue_holds_nothing_up(server: Server, new_cluster: Callable[..., Cluster]) -> None:
    """A session that listens and does not read fills the queue; a job goes on, and the log says what is missing."""
    if server.major < 17:
        pytest.skip("max_notify_queue_pages came with PostgreSQL 17: before, the queue takes 8 GB")
    cluster = new_cluster(conf={"max_notify_queue_pages": 64})
    db = cluster.database("postgres")
    db.sql("CREATE EXTENSION backfill")
    make_table(db, 100)
    sleeper = db.connect()
    sleeper.execute("LISTEN flood")
    sleeper.execute("BEGIN")
    sleeper.execute("SELECT 1")
    deadline = time.monotonic() + 60
    with pytest.raises(psycopg.Error, match="too many notifications"):
        while time.monotonic() < deadline:
            db.sql("SELECT pg_notify('flood', repeat('x', 7000) || i) FROM generate_series(1, 4) i")
    job = start(db, "t", "n = n + 1")
    complete(db, job)
    assert "a change of state is not announced: the NOTIFY queue is" in cluster.log_tail(200)
    sleeper.close()
