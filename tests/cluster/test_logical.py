"""Logical replication of everything: batches pass, jobs arrive, and nothing runs on the subscriber."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import Cluster, Database, wait_until
from harness.jobs import (
    complete,
    progress,
    start_count,
    wait_for_nap_between_batches,
    wait_for_rows,
)
from harness.tables import counts, make_table

New = Callable[..., Cluster]
MINUTE = 60_000
LOGICAL = {"wal_level": "logical"}
EAGER = {"backfill.launcher_interval": "1s"}


@pytest.fixture
def publisher(new_cluster: New) -> Cluster:
    """A server that publishes all its tables, those of the extension among them."""
    cluster = new_cluster(conf=LOGICAL)
    cluster.sql("CREATE EXTENSION backfill; CREATE PUBLICATION everything FOR ALL TABLES")
    make_table(cluster, 10_000)
    make_table(cluster, 1000, "asleep")
    return cluster


def subscribe(new_cluster: New, publisher: Cluster) -> Cluster:
    """A server with the same tables and the extension, which has all rows there are."""
    cluster = new_cluster(conf=LOGICAL | EAGER)
    cluster.sql("CREATE EXTENSION backfill")
    for name in ("t", "asleep"):
        make_table(cluster, 0, name)
    cluster.sql(f"CREATE SUBSCRIPTION all_of_it CONNECTION '{publisher.dsn()}' PUBLICATION everything")
    left = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'"
    wait_until(lambda: cluster.value(left) == 0, 60, "the first copy of all tables")
    return cluster


def caught_up(publisher: Cluster) -> None:
    """Waits until the subscriber has all that is committed now."""
    lsn = publisher.value("SELECT pg_current_wal_flush_lsn()::text")
    there = "SELECT coalesce(bool_and(replay_lsn >= %s::pg_lsn), false) FROM pg_stat_replication"
    wait_until(lambda: publisher.value(there, [lsn]), 60, f"the subscriber to get to {lsn}")


def test_every_table_has_a_key(db: Database) -> None:
    """Without one, UPDATE and DELETE of a published table are refused: no batch could commit."""
    without = db.sql(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'backfill'::regnamespace"
        " AND c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)"
    )
    assert without == []


def test_a_subscriber_of_all_tables(new_cluster: New, publisher: Cluster) -> None:
    """A backfill passes through; the jobs that arrive are paused there and say why, whatever the launcher does."""
    before = start_count(publisher, "asleep", 100, MINUTE)
    wait_for_nap_between_batches(publisher, before)
    subscriber = subscribe(new_cluster, publisher)
    job = start_count(publisher, "t", 100, 1, options={"strategy": "waves", "workers": 2})
    wait_for_rows(publisher, job, 500)
    wait_until(lambda: subscriber.sql("SELECT 1 FROM backfill.progress WHERE rows_done > 500"), 60, "the job to arrive")
    for each in (before, job):
        row = progress(subscriber, each)
        assert row["state"] == "paused" and row["workers"] == 0, row
        assert row["waiting_for"].endswith(f"backfill.resume({each}) runs it here"), row
    # A job of its own that is taken up shows that the launcher has been there.
    make_table(subscriber, 1000, "own")
    subscriber.sql("ALTER SEQUENCE backfill.job_id_seq RESTART 1000; ALTER SEQUENCE backfill.slice_id_seq RESTART 1000")
    subscriber.sql("ALTER SEQUENCE backfill.event_id_seq RESTART 1000")
    own = start_count(subscriber, "own", 10, 20)
    subscriber.terminate_worker(own)
    complete(subscriber, own)
    complete(publisher, job)
    caught_up(publisher)
    assert counts(subscriber) == counts(publisher) == [(1, 10_000)]
    assert counts(subscriber, "asleep") == counts(publisher, "asleep")
    for name in ("job", "walk", "slice", "checkpoint", "region", "outcome", "event"):
        of = "id" if name == "job" else "slice_id" if name in ("checkpoint", "region") else "job_id"
        rows = f"SELECT t::text FROM backfill.{name} t WHERE {of} < 1000 ORDER BY 1"
        assert subscriber.sql(rows) == publisher.sql(rows), name
    assert progress(subscriber, job)["state"] == "completed"


def test_a_subscriber_without_the_extension(new_cluster: New, publisher: Cluster) -> None:
    """It stops at the first job and names what it lacks; with the extension it goes on, and no row is lost."""
    subscriber = new_cluster(conf=LOGICAL)
    publisher.sql("DROP EXTENSION backfill")
    for name in ("t", "asleep"):
        make_table(subscriber, 0, name)
    subscriber.sql(f"CREATE SUBSCRIPTION all_of_it CONNECTION '{publisher.dsn()}' PUBLICATION everything")
    wait_until(lambda: counts(subscriber) == [(0, 10_000)], 60, "the first copy")
    publisher.sql("CREATE EXTENSION backfill")
    job = start_count(publisher, "t", 1000)
    complete(publisher, job)
    lacks = 'logical replication target relation "backfill.job" does not exist'
    wait_until(lambda: lacks in subscriber.log.read_text(), 60, "the subscriber to name what it lacks")
    subscriber.sql("CREATE EXTENSION backfill")
    caught_up(publisher)
    assert counts(subscriber) == [(1, 10_000)]
    # Jobs are replicated once the subscription knows their tables.
    assert subscriber.value("SELECT count(*) FROM backfill.progress") == 0
