"""What the view and the history tell of time, batches and WAL, and that ended jobs tell the same."""

from __future__ import annotations

from typing import Any

from harness import Database, wait_until
from harness.jobs import complete, progress, start, wait_for_rows, wait_for_state
from harness.tables import counts, make_table
from harness.throttles import throttled

SUMS = ("rows_done", "rows_total", "rows_updated", "hot_percent", "seconds_working", "seconds_sleeping",
        "seconds_throttled", "wal_bytes")  # fmt: skip


def sums(row: dict[str, Any]) -> dict[str, Any]:
    """What a job has come to."""
    return {name: row[name] for name in SUMS}


def test_where_the_time_went(db: Database) -> None:
    """Working, sleeping and waiting are apart, and add up to no more than there was, of each worker."""
    make_table(db, 3000)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=50, options={"throttle_query": "SELECT true"})
    throttled(db, job, "throttle_query:")
    row = wait_until(lambda: (found := progress(db, job))["seconds_throttled"] > 5 and found, 60, "the wait to count")
    assert row["seconds_sleeping"] == 0 and row["waiting_since"] is not None and row["eta_state"] == "waiting"
    db.sql("SELECT backfill.alter(%s, options => '{\"throttle_query\": null}')", [job])
    row = wait_until(lambda: (found := progress(db, job))["eta_state"] is None and found, 60, "an ETA")
    assert row["waiting_since"] is None and row["eta"] is not None
    row = complete(db, job)
    seconds = db.value(
        "SELECT extract(epoch FROM finished_at - started_at)::float8 FROM backfill.progress WHERE job_id = %s", [job]
    )
    assert row["seconds_throttled"] >= 5 and row["seconds_sleeping"] >= 1
    assert db.value("SELECT worked_ms FROM backfill_internal.outcome WHERE job_id = %s", [job]) > 0
    assert row["seconds_throttled"] + row["seconds_sleeping"] + row["seconds_working"] <= seconds + 0.2
    assert row["wal_bytes"] > 3000 * 30
    waited = db.value("SELECT sum((throttled_by ->> 'throttle_query')::numeric) FROM backfill.samples")
    assert abs(waited - row["seconds_throttled"]) < 1.5


def test_batches_are_timed(db: Database) -> None:
    """Also what a trigger takes."""
    make_table(db, 3000)
    db.sql("""
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
        CREATE TRIGGER slow AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION slow()
    """)
    job = start(db, "t", "n = n + 1", batch=100, options={"strategy": "sequential"})
    row = wait_until(lambda: (found := progress(db, job))["batch_ms_p95"] and found, 60, "batches")
    assert row["batch_ms"] >= 50 and row["batch_ms_p95"] >= 50
    complete(db, job)


def test_what_has_ended_tells_what_it_told_before(db: Database) -> None:
    """The end has the sums; without them, the slices say the same. Also of a job that is cancelled, and one that
    goes on after its end."""
    make_table(db, 2000)
    db.sql("CREATE TABLE parts (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY HASH (id)")
    for i in range(3):
        db.sql(f"CREATE TABLE parts_{i} PARTITION OF parts FOR VALUES WITH (MODULUS 3, REMAINDER {i})")
    db.sql("INSERT INTO parts SELECT generate_series(1, 2000)")
    done = start(db, "parts", "n = 1 / (id % 500)", batch=100, options={"max_failed_rows": 100, "workers": 2})
    complete(db, done)
    cancelled = start(db, "t", "n = n + 1", batch=100, sleep_ms=30)
    wait_for_rows(db, cancelled, 500)
    db.sql("SELECT backfill.cancel(%s)", [cancelled])
    wait_for_state(db, cancelled, "cancelled")
    for job in (done, cancelled):
        summed = ("SELECT count(rows_done) FROM backfill_internal.outcome WHERE job_id = %s", [job])
        wait_until(lambda summed=summed: db.value(*summed), 30, "the sums")
    with_sums = {job: sums(progress(db, job)) for job in (done, cancelled)}
    assert with_sums[done]["rows_done"] == 2000 and 500 <= with_sums[cancelled]["rows_done"] < 2000
    percent = progress(db, cancelled)["percent"]
    db.sql("UPDATE backfill_internal.walk SET summed = false")
    assert {job: sums(progress(db, job)) for job in (done, cancelled)} == with_sums
    assert progress(db, cancelled)["percent"] == percent
    assert db.value("SELECT backfill.retry_failed(%s)", [done]) == 4
    wait_for_state(db, done, "completed")
    assert progress(db, done)["rows_failed"] == 4


def test_options_are_shown_without_secrets(db: Database) -> None:
    """Anybody of pg_monitor sees the view."""
    make_table(db, 10)
    options = {"max_failed_rows": 3, "settings": {"app.token": "hush", "work_mem": "1MB"}}
    complete(db, start(db, "t", "n = n + 1", options=options))
    shown = db.value("SELECT options FROM backfill.progress")
    assert shown == {"max_failed_rows": 3, "settings": {"app.token": "...", "work_mem": "..."}}


def test_samples_go_with_their_job(db: Database) -> None:
    """The first at its start, the last at its end; none of them is left when it is forgotten."""
    make_table(db, 1000)
    job = start(db, "t", "n = n + 1", batch=100)
    complete(db, job)
    rows = db.sql("SELECT rows_done, interval_seconds IS NULL FROM backfill.samples ORDER BY at")
    assert rows[0] == (0, True) and rows[-1] == (1000, False)
    assert db.value("SELECT sum(wal_bytes) FROM backfill.samples") <= progress(db, job)["wal_bytes"]
    db.sql("SELECT backfill.forget(%s)", [job])
    assert db.value("SELECT count(*) FROM backfill_internal.sample") == 0
    assert counts(db) == [(1, 1000)]


def test_of_many_samples_every_second_one_goes(db: Database) -> None:
    """So they are never more than a thousand, and cover all of a long job."""
    make_table(db, 1000)
    job = start(db, "t", "n = n + 1", batch=10, sleep_ms=60_000)
    wait_until(lambda: db.value("SELECT count(*) FROM backfill_internal.sample"), 30, "the first sample")
    db.sql("""
        INSERT INTO backfill_internal.sample (job_id, at, spacing, rows_done, rows_updated, wal_bytes, worked_ms,
                                              slept_ms)
        SELECT job_id, at - g * interval '10 s', 10, 0, 0, 0, 0, 0
        FROM backfill_internal.sample, generate_series(1, 1005) g
    """)
    first = db.value("SELECT min(at) FROM backfill_internal.sample")
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    complete(db, job)
    assert 500 <= db.value("SELECT count(*) FROM backfill_internal.sample") <= 510
    assert db.value("SELECT max(spacing) FROM backfill_internal.sample") == 20
    assert db.value("SELECT min(at) FROM backfill_internal.sample") == first
