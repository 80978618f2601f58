"""Logical replication of everything: batches pass, jobs stay where they are, and nothing runs on the subscriber."""

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
    cluster = new_cluster(conf=LOGICAL | EAGER, own_identity=True)
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
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'backfill_internal'::regnamespace"
        " AND c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)"
    )
    assert without == [] and db.value("SELECT count(*) > 9 FROM pg_tables WHERE schemaname = 'backfill_internal'")


def test_a_subscriber_of_all_tables(new_cluster: New, publisher: Cluster) -> None:
    """A backfill passes through; its jobs stay where they are, whatever the launcher does, and whichever ids meet."""
    before = start_count(publisher, "asleep", 100, MINUTE)
    wait_for_nap_between_batches(publisher, before)
    subscriber = subscribe(new_cluster, publisher)
    job = start_count(publisher, "t", 100, 1, options={"strategy": "waves", "workers": 2})
    wait_for_rows(publisher, job, 500)
    wait_until(lambda: len(counts(subscriber)) == 2, 60, "rows to arrive")
    assert subscriber.value("SELECT count(*) FROM backfill.progress") == 0
    # Jobs of its own, with the same ids.
    for name in ("own", "other"):
        make_table(subscriber, 1000, name)
    own = start_count(subscriber, "own", 10, 20)
    other = start_count(subscriber, "other", 100, MINUTE)
    assert (own, other) == (before, job)
    subscriber.terminate_worker(own)
    wait_for_nap_between_batches(subscriber, other)
    kept = subscriber.sql("SELECT j::text FROM backfill_internal.job j ORDER BY id")
    complete(publisher, job)
    publisher.sql(f"SELECT backfill.alter({before}, 7, 0)")
    complete(publisher, before)
    publisher.sql(f"SELECT backfill.forget({job}); SELECT backfill.forget({before})")
    caught_up(publisher)
    assert counts(subscriber) == counts(publisher) == [(1, 10_000)]
    assert counts(subscriber, "asleep") == counts(publisher, "asleep") == [(1, 1000)]
    complete(subscriber, own)
    assert subscriber.sql("SELECT j::text FROM backfill_internal.job j ORDER BY id") == kept
    assert progress(subscriber, other)["rows_done"] == 100
    subscriber.sql(f"SELECT backfill.alter({other}, 100, 0)")
    complete(subscriber, other)
    assert counts(subscriber, "own") == counts(subscriber, "other") == [(1, 1000)]


def test_rows_that_a_publisher_forges(new_cluster: New, publisher: Cluster) -> None:
    """A superuser there, or who may write to that server, writes a job; here it neither arrives nor runs."""
    subscriber = subscribe(new_cluster, publisher)
    job = publisher.value("SELECT backfill.define('t', 'n = 666')")
    make_table(subscriber, 10, "own")
    own = start_count(subscriber, "own")
    complete(subscriber, own)
    from_here = f"SELECT system_identifier, database_oid FROM backfill_internal.job WHERE id = {own}"
    identifier, database = subscriber.sql(from_here)[0]
    publisher.sql(
        f"UPDATE backfill_internal.job SET wish = 'run', system_identifier = {identifier}, database_oid = {database}"
        f" WHERE id = {job};"
        "INSERT INTO backfill_internal.outcome (job_id, outcome, attempt, at) VALUES (1, 'cancelled', 9, now())"
    )
    publisher.sql("DELETE FROM backfill_internal.event; INSERT INTO asleep VALUES (5000, 7)")
    wait_until(lambda: subscriber.value("SELECT count(*) FROM asleep WHERE n = 7") == 1, 60, "what came after it")
    assert subscriber.sql("SELECT job_id, state FROM backfill.progress") == [(own, "completed")]
    assert subscriber.value("SELECT count(*) FROM backfill_internal.event") > 0
    publisher.sql("TRUNCATE backfill_internal.event")
    told = 'a TRUNCATE of a table of the extension "backfill" was replicated'
    wait_until(lambda: told in subscriber.log.read_text(), 60, "the subscriber to refuse it")
    assert subscriber.value("SELECT count(*) FROM backfill_internal.event") > 0


def test_a_subscriber_without_the_extension(new_cluster: New, publisher: Cluster) -> None:
    """It stops at the first job and names what it lacks; with the extension it goes on, and no row is lost."""
    subscriber = new_cluster(conf=LOGICAL, own_identity=True)
    publisher.sql("DROP EXTENSION backfill")
    for name in ("t", "asleep"):
        make_table(subscriber, 0, name)
    subscriber.sql(f"CREATE SUBSCRIPTION all_of_it CONNECTION '{publisher.dsn()}' PUBLICATION everything")
    wait_until(lambda: counts(subscriber) == [(0, 10_000)], 60, "the first copy")
    publisher.sql("CREATE EXTENSION backfill")
    job = start_count(publisher, "t", 1000)
    complete(publisher, job)
    lacks = 'logical replication target relation "backfill_internal.job" does not exist'
    wait_until(lambda: lacks in subscriber.log.read_text(), 60, "the subscriber to name what it lacks")
    subscriber.sql("CREATE EXTENSION backfill")
    caught_up(publisher)
    assert counts(subscriber) == [(1, 10_000)]
    assert subscriber.value("SELECT count(*) FROM backfill.progress") == 0
