"""Batches whose rows take no more bytes than the option `batch_bytes` says."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, progress

MB = 1 << 20


def make(db: Database, rows: int, bytes_of: str) -> None:
    """Rows with a document of this many bytes each, and how many of them each transaction has written."""
    db.sql(f"""
        CREATE TABLE t (id int PRIMARY KEY, doc text, n int DEFAULT 0, batch bigint);
        ALTER TABLE t ALTER doc SET STORAGE EXTERNAL;
        INSERT INTO t SELECT g, repeat('x', {bytes_of}) FROM generate_series(1, {rows}) g
    """)


def start(db: Database, set_clause: str, **given: Any) -> int:
    """Starts a job with large batches."""
    call = "SELECT backfill.start('t', 10000, 0, %s, NULL, NULL, %s)"
    return int(db.value(call, [f"{set_clause}, batch = txid_current()", json.dumps(given)]))


def sizes(db: Database) -> list[int]:
    """Rows of each batch, in order."""
    rows = db.sql("SELECT count(*) FROM t GROUP BY batch ORDER BY min(id)")
    return [count for (count,) in rows]


@pytest.mark.parametrize("analyzed", [False, True])
def test_the_first_batch_is_small_already(db: Database, analyzed: bool) -> None:
    """Of documents that are written anew: each batch reads and writes no more, within the error of an average."""
    make(db, 60, str(MB))
    if analyzed:
        db.sql("VACUUM ANALYZE t")
    row = complete(db, start(db, "doc = doc || 'y'", batch_bytes="8MB"))
    found = sizes(db)
    # A row is read, and written: 2 MB.
    assert row["rows_updated"] == 60 and max(found) <= 6 and len(found) >= 10, found
    assert found[0] <= 6, found


def test_rows_that_are_not_written_whole(db: Database) -> None:
    """What is out of line stays there: only what is read counts then, and batches grow."""
    make(db, 200, str(MB // 4))
    db.sql("VACUUM ANALYZE t")
    complete(db, start(db, "n = length(doc)", batch_bytes=8 * MB))
    found = sizes(db)
    assert found[0] <= 20 and 25 <= max(found) <= 40, found


def test_narrow_rows_are_not_held_up(db: Database) -> None:
    """And without the option nothing changes; alter takes it away."""
    make(db, 30_000, "10")
    db.sql("VACUUM ANALYZE t")
    complete(db, start(db, "n = 1", batch_bytes="64MB", strategy="sequential"))
    assert sizes(db) == [10_000] * 3
    db.sql("UPDATE t SET batch = NULL")
    job = db.value(
        "SELECT backfill.start('t', 10000, 60000, 'n = 2, batch = txid_current()', NULL, NULL, %s)",
        ['{"batch_bytes": 1000, "strategy": "sequential"}'],
    )
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0, options => '{\"batch_bytes\": null}')", [job])
    complete(db, job)
    assert max(sizes(db)) == 10_000 and progress(db, job)["options"] == {"strategy": "sequential"}


@pytest.mark.parametrize("value", ["much", "8XB", True, [1], 1.5])
def test_what_is_refused(db: Database, value: Any) -> None:
    """Anything else than an amount of bytes."""
    make(db, 1, "1")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="batch_bytes") as caught:
        start(db, "n = 1", batch_bytes=value)
    assert caught.value.diag.message_hint
