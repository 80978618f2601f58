"""Waves: what they achieve, beside whom, and when they rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from harness import Database, wait_until
from harness.jobs import complete, progress, start
from harness.tables import counts

ROWS = 100_000
TABLE = f"""
CREATE TABLE t (id bigint PRIMARY KEY, a int, b int, c int, padding text, n int NOT NULL DEFAULT 0);
INSERT INTO t SELECT g, g % 977, g % 1009, g % 7, repeat('x', 120) FROM generate_series(1, {ROWS}) g;
CREATE INDEX ON t (a);
CREATE INDEX ON t (b);
CREATE INDEX ON t (c)
"""
QUIET = {"vacuum": False, "analyze": False}


@pytest.fixture
def table(db: Database) -> Database:
    """Pages full of rows, with four indexes."""
    db.sql(TABLE)
    db.sql("VACUUM ANALYZE t")
    return db


def hot_percent(row: dict[str, Any]) -> float:
    """The share of the updates that were heap-only."""
    return float(row["hot_percent"])


@contextmanager
def short_transactions(db: Database, seconds: float) -> Iterator[None]:
    """One after the other, each with a snapshot for so long."""
    ended = threading.Event()

    def go_on() -> None:
        with db.connect(autocommit=False) as other:
            while not ended.is_set():
                other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                other.execute("SELECT 1 FROM t LIMIT 1")
                time.sleep(seconds)
                other.rollback()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("walk", ["key", "physical"])
def test_most_updates_are_heap_only(table: Database, walk: str) -> None:
    """In waves, of a table with four indexes and full pages; hardly any is without."""
    options = QUIET | {"walk": walk}
    waves = complete(table, start(table, "t", "n = n + 1", where="n = 0", options=options))
    assert hot_percent(waves) > 85
    assert counts(table) == [(1, ROWS)]
    table.sql("VACUUM FULL t")
    single = start(table, "t", "n = n + 1", where="n = 1", options=options | {"strategy": "sequential"})
    assert hot_percent(complete(table, single)) < 20
    assert counts(table) == [(2, ROWS)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("walk", ["key", "physical"])
def test_short_transactions_are_waited_for(table: Database, walk: str, workers: int) -> None:
    """Those of the application, and of the other workers.

    On a busy machine a transaction may happen to last for longer than is worth waiting, so one of a
    few runs has to be good.
    """
    shares: list[float] = []
    while max(shares, default=0) < 70 and len(shares) < 3:
        done = len(shares)
        with short_transactions(table, 0.002):
            options = QUIET | {"walk": walk, "workers": workers}
            job = start(table, "t", "n = n + 1", where=f"n = {done}", batch=500, options=options)
            shares.append(hot_percent(complete(table, job)))
        assert counts(table) == [(done + 1, ROWS)]
        table.sql("VACUUM FULL ANALYZE t")
    assert max(shares) > 70, shares


@pytest.mark.parametrize("walk", ["key", "physical"])
def test_waves_rest_while_a_snapshot_is_held(table: Database, walk: str) -> None:
    """The view tells whose; once it is gone, there are waves again, and the note is gone too."""
    with table.connect(autocommit=False) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1 FROM t LIMIT 1")
        options = QUIET | {"walk": walk, "scan_limit": 10_000}
        job = start(table, "t", "n = n + 1", where="n = 0", batch=400, sleep_ms=5, options=options)
        pid = other.info.backend_pid
        told = f"waves rest: transaction of pid {pid}"
        wait_until(lambda: told in (progress(table, job)["note"] or ""), 30, told, every=0.01)
        # However busy the machine is, most rows are to be done with the transaction gone.
        table.sql("SELECT backfill.alter(%s, sleep_ms => 200)", [job])
        other.rollback()
    wait_until(lambda: told not in (progress(table, job)["note"] or ""), 30, "the note to be gone", every=0.01)
    before = progress(table, job)
    table.sql("SELECT backfill.alter(%s, sleep_ms => 5)", [job])
    after = complete(table, job)
    hot = [float(row["hot_percent"] or 0) / 100 * row["rows_updated"] for row in (before, after)]
    share = (hot[1] - hot[0]) / (after["rows_updated"] - before["rows_updated"])
    # A region or two more may have rested.
    assert share > 0.5, (before, after)
    assert counts(table) == [(1, ROWS)]


def test_a_pause_while_a_snapshot_is_held_is_quick(table: Database) -> None:
    """Waiting for the horizon ends at once."""
    with table.connect(autocommit=False) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1 FROM t LIMIT 1")
        job = start(table, "t", "n = n + 1", batch=100, sleep_ms=1, options=QUIET | {"strategy": "waves"})
        wait_until(lambda: progress(table, job)["rows_done"] > 0, 30, "a batch", every=0.001)
        begun = time.monotonic()
        table.sql("SELECT backfill.pause(%s)", [job])
        wait_until(lambda: progress(table, job)["state"] == "paused", 30, "the pause", every=0.001)
        assert time.monotonic() - begun < 5
        other.rollback()
    table.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    table.sql("SELECT backfill.resume(%s)", [job])
    complete(table, job)
    assert counts(table) == [(1, ROWS)]


def test_a_worker_that_takes_over_goes_on_in_waves(table: Database) -> None:
    """It finds a region open, and passes over the rest of it; one that was killed has not lost its room."""
    job = start(table, "t", "n = n + 1", batch=500, sleep_ms=1, options=QUIET | {"strategy": "waves"})
    for _ in range(3):
        done = progress(table, job)["rows_done"]
        wait_until(lambda done=done: progress(table, job)["rows_done"] > done + 9000, 30, "rows", every=0.001)
        region = table.sql("SELECT wave FROM backfill_internal.checkpoint WHERE region_key IS NOT NULL AND wave > 0")
        table.sql("SELECT backfill.pause(%s)", [job])
        wait_until(lambda: progress(table, job)["state"] == "paused", 30, "the pause")
        table.sql("SELECT backfill.resume(%s)", [job])
        assert region, "no region was open"
    assert hot_percent(complete(table, job)) > 75
    assert counts(table) == [(1, ROWS)]


@pytest.mark.parametrize("walk", ["key", "physical"])
def test_smaller_commits_have_shorter_pauses(table: Database, walk: str) -> None:
    """Waves over small regions make many commits of few rows; the job sleeps no longer for that."""
    options = QUIET | {"walk": walk, "scan_limit": 2000, "waves": 16}
    begun = time.monotonic()
    where = "n = 0 AND id <= 20000"
    job = start(table, "t", "n = n + 1", where=where, batch=2000, sleep_ms=100, options=options)
    complete(table, job)
    seconds = time.monotonic() - begun
    assert counts(table) == [(0, ROWS - 20_000), (1, 20_000)]
    # A pause of the full length after each would be more than half of it.
    commits = 20_000 / 2000 * 16 * 2
    assert seconds < commits * 0.1 / 2


def test_few_matching_rows_do_not_make_reads_longer(db: Database) -> None:
    """In physical order a statement reads `scan_limit` rows, however few of them match."""
    db.sql("CREATE TABLE t (id int, n int DEFAULT 0); INSERT INTO t SELECT generate_series(1, 60000)")
    db.sql("VACUUM ANALYZE t")
    job = start(db, "t", "n = n + 1", where="n = 0 AND id % 500 = 0", options=QUIET | {"scan_limit": 1000})
    complete(db, job)
    assert counts(db) == [(0, 59880), (1, 120)]
    # Each read is a batch of its own.
    assert db.value("SELECT max(seq) FROM backfill_internal.checkpoint") >= 60
