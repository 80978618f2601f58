"""Jobs that give way to standbys and slots that are behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from harness import Cluster, wait_until
from harness.jobs import complete, progress, start, wait_for_rows
from harness.tables import counts, make_table
from harness.throttles import ROWS, stands_still, throttled, waits_and_goes_on

New = Callable[..., Cluster]
WRITE = "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 3000)"


@pytest.fixture
def primary(new_cluster: New) -> Iterator[Cluster]:
    """A server whose WAL can be decoded, with a table, and another one to write to."""
    cluster = new_cluster(conf={"wal_level": "logical"})
    cluster.sql("CREATE EXTENSION backfill")
    make_table(cluster, ROWS)
    cluster.sql("CREATE TABLE filler (x text)")
    yield cluster


@pytest.mark.parametrize("option", ["max_lag_bytes", "max_lag"])
def test_a_standby_that_stops_to_replay(primary: Cluster, option: str) -> None:
    """Until it replays again. How long it lags is counted here: its own last answer stays as it is."""
    bound = {"max_lag_bytes": "1MB", "max_lag": "2s"}[option]
    with primary.standby("replica1") as standby:
        standby.sql("SELECT pg_wal_replay_pause()")
        primary.sql(WRITE)
        said = waits_and_goes_on(
            primary,
            {option: bound, "max_lag_bytes": bound if option == "max_lag_bytes" else -1},
            lambda: standby.sql("SELECT pg_wal_replay_resume()"),
            (f"{option}:", "standby replica1 lags", "since"),
            # It counts from the job's first look on.
            sleep_ms=50,
        )
        assert ("of 1024 kB" if option == "max_lag_bytes" else "of 2 s") in said, said


def test_a_standby_that_is_behind_by_its_own_delay_can_be_excluded(primary: Cluster) -> None:
    """And one that is named has to be there."""
    with primary.standby("delayed") as standby:
        standby.sql("SELECT pg_wal_replay_pause()")
        primary.sql(WRITE)
        job = start(primary, "t", "n = n + 1", options={"max_lag_bytes": "1MB", "lag_exclude": ["delayed"]})
        complete(primary, job)
        named = start(primary, "t", "n = n + 1", options={"max_lag_bytes": "1GB", "lag_include": ["replica1"]})
        throttled(primary, named, "max_lag_bytes: cannot be read", 'no standby or slot "replica1"')
        stands_still(primary, named)
        primary.sql('SELECT backfill.alter(%s, options => \'{"lag_include": ["delayed"]}\')', [named])
        complete(primary, named)
        standby.sql("SELECT pg_wal_replay_resume()")
    assert counts(primary) == [(2, ROWS)]


@pytest.mark.parametrize("kind", ["logical", "physical"])
def test_a_slot_that_nobody_reads(primary: Cluster, kind: str) -> None:
    """It keeps WAL on the disk."""
    make = {
        "logical": "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')",
        "physical": "SELECT pg_create_physical_replication_slot('cdc', true)",
    }[kind]
    primary.sql(make)
    primary.sql(WRITE)
    waits_and_goes_on(
        primary,
        {"max_lag_bytes": "1MB"},
        lambda: primary.sql("SELECT pg_drop_replication_slot('cdc')"),
        ("max_lag_bytes:", "slot cdc lags"),
    )


def test_the_server_has_a_bound_for_jobs_that_give_none(primary: Cluster) -> None:
    """256 MB; a reload is enough to change it, and a job may do without."""
    assert primary.value("SHOW backfill.max_lag_bytes") == "256MB"
    primary.sql("SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')")
    primary.sql(WRITE)
    primary.set(**{"backfill.max_lag_bytes": "1MB"})
    primary.reload()
    job = start(primary, "t", "n = n + 1", batch=100)
    throttled(primary, job, "max_lag_bytes: slot cdc lags")
    primary.sql("SELECT backfill.alter(%s, options => '{\"max_lag_bytes\": -1}')", [job])
    complete(primary, job)
    again = start(primary, "t", "n = n + 1", batch=100)
    throttled(primary, again, "max_lag_bytes: slot cdc lags")
    primary.set(**{"backfill.max_lag_bytes": "1GB"})
    primary.reload()
    complete(primary, again)
    assert counts(primary) == [(2, ROWS)]


def test_it_comes_up_while_the_job_runs(primary: Cluster) -> None:
    """By the job's own WAL; and by a plain role, which sees no lag itself."""
    primary.sql("CREATE ROLE plain LOGIN; ALTER TABLE t OWNER TO plain")
    with primary.standby("replica1") as standby:
        primary.wait_for_replay(standby)
        options = {"max_lag_bytes": "1MB"}
        job = start(primary, "t", "n = n + 1", batch=100, sleep_ms=20, user="plain", options=options)
        wait_for_rows(primary, job, 500)
        standby.sql("SELECT pg_wal_replay_pause()")
        primary.sql(WRITE)
        throttled(primary, job, "standby replica1 lags")
        stands_still(primary, job)
        assert 0 < progress(primary, job)["rows_done"] < ROWS
        standby.sql("SELECT pg_wal_replay_resume()")
        primary.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
        complete(primary, job)
    assert counts(primary) == [(1, ROWS)]
    assert wait_until(lambda: "waits: max_lag_bytes" in primary.log.read_text(), 10, "the log to tell")
