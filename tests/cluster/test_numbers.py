"""The numbers of backfill.progress are those of what happened."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from harness import Database, wait_until
from harness.jobs import complete, progress, start, wait_for_rows, wait_for_state


def closed(db: Database) -> str:
    """A window that opens in some hours."""
    now: datetime = db.value("SELECT now()::timestamp")
    opens = now + timedelta(hours=5)
    return f"{opens:%H:%M}-{opens + timedelta(hours=2):%H:%M}"


def test_a_job_that_waits_has_no_rate_and_no_eta(db: Database) -> None:
    """What it did before the window closed says nothing of when it will be done."""
    db.sql(
        "CREATE TABLE t (id integer PRIMARY KEY, v integer); INSERT INTO t SELECT generate_series(1, 20000); ANALYZE t"
    )
    job = start(db, "t", "v = id", batch=100, sleep_ms=50)
    wait_until(lambda: progress(db, job)["eta"], 30, "an estimate of the end")
    before = progress(db, job)
    assert before["rows_per_second"] > 0 and before["eta_state"] is None
    options = json.dumps({"run_window": closed(db)})
    db.sql("SELECT backfill.alter(%s, options => %s)", [job, options])
    wait_until(lambda: "run_window" in (progress(db, job)["waiting_for"] or ""), 30, "the job to wait")
    waiting = progress(db, job)
    assert (waiting["rows_per_second"], waiting["eta"], waiting["eta_state"]) == (0, None, "waiting")
    [(rate, eta)] = db.sql("SELECT rate, eta FROM backfill.dashboard")
    assert (rate, eta) == ("0/s", "waits")
    db.sql("SELECT backfill.alter(%s, 5000, 0, '{\"run_window\": null}')", [job])
    complete(db, job)


def test_a_table_with_dead_pages_is_not_twice_as_large(db: Database) -> None:
    """An UPDATE that was rolled back has doubled it, and nobody has looked since."""
    db.sql("CREATE TABLE t (id integer PRIMARY KEY, v integer) WITH (autovacuum_enabled = off)")
    db.sql("INSERT INTO t SELECT generate_series(1, 60000); ANALYZE t")
    db.sql("BEGIN; UPDATE t SET v = 1; ROLLBACK")
    job = start(db, "t", "v = id", batch=500, options={"limit_rows": 20000})
    wait_for_state(db, job, "paused")
    row = progress(db, job)
    assert row["rows_done"] == 20000
    assert 50_000 < row["rows_total"] < 72_000, row["rows_total"]
    assert abs(row["rows_done"] * 100 / row["rows_total"] - float(row["percent"])) < 0.2
    assert 28 < row["percent"] < 40


def test_the_columns_agree_while_slices_turn_out_smaller(db: Database) -> None:
    """Percent is the share that rows_done has in rows_total, also when slices have ended."""
    db.sql("CREATE TABLE t (id integer PRIMARY KEY, v integer) WITH (autovacuum_enabled = off)")
    db.sql("INSERT INTO t SELECT generate_series(1, 400000); ANALYZE t")
    db.sql("DELETE FROM t WHERE id > 250000 AND id % 10 <> 0")
    job = start(db, "t", "v = id", batch=2000, sleep_ms=20)
    for rows in (50_000, 150_000, 240_000):
        wait_for_rows(db, job, rows)
        row = progress(db, job)
        if row["state"] == "running":
            assert abs(row["rows_done"] * 100 / row["rows_total"] - float(row["percent"])) < 0.3, row
    done = complete(db, job)
    assert done["rows_done"] == done["rows_total"] == 265_000


@pytest.mark.parametrize("workers", [1, 2])
def test_physical_order_counts_each_row_once(db: Database, workers: int) -> None:
    """Rows that an update has moved to pages ahead were passed before."""
    db.sql("CREATE TABLE t (id integer, v integer, pad text) WITH (autovacuum_enabled = off)")
    db.sql("INSERT INTO t SELECT id, NULL, repeat('x', 100) FROM generate_series(1, 140000) id")
    # Pages full of rows, then pages with room for more, as VACUUM tells.
    db.sql("DELETE FROM t WHERE id > 70000 AND id % 3 <> 0")
    db.sql("VACUUM ANALYZE t")
    rows = db.value("SELECT count(*) FROM t")
    options = {"strategy": "sequential", "workers": workers, "vacuum": False}
    done = complete(db, start(db, "t", "v = id", where="v IS NULL", batch=1000, options=options))
    assert done["rows_updated"] == rows
    assert done["rows_done"] == done["rows_total"]
    # Of several workers, one may have passed the pages that another one's rows move to.
    assert workers > 1 or done["rows_done"] == rows
    assert abs(done["rows_done"] - rows) < rows * 0.1


def test_what_tries_that_failed_took_is_counted(db: Database) -> None:
    """The time that a row at fault costs while it is looked for, and the WAL of what was rolled back."""
    db.sql("CREATE TABLE t (id integer PRIMARY KEY, v text) WITH (autovacuum_enabled = off)")
    db.sql("INSERT INTO t SELECT generate_series(1, 400); ALTER TABLE t ALTER v SET STORAGE EXTERNAL")
    db.sql(
        "CREATE FUNCTION slow(id integer) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.002);"
        " IF id = 399 THEN RAISE 'this one'; END IF; RETURN repeat('x', 20000); END $$"
    )
    before = db.value("SELECT pg_current_wal_insert_lsn()")
    options = {"max_failed_rows": 1, "vacuum": False, "analyze": False}
    job = start(db, "t", "v = slow(id)", batch=400, options=options)
    done = complete(db, job)
    assert (done["rows_failed"], done["rows_updated"]) == (1, 399)
    wall = db.value("SELECT extract(epoch FROM finished_at - started_at) FROM backfill.progress")
    told = done["seconds_working"] + done["seconds_sleeping"] + done["seconds_throttled"]
    assert float(wall) * 0.75 < float(told) <= float(wall) * 1.05, (wall, told)
    # Tries: 400, then halves; the first alone writes as much as all that is kept.
    written = db.value("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", [before])
    assert written > 1.5 * 400 * 20000
    assert done["wal_bytes"] > 0.8 * float(written), (done["wal_bytes"], written)
