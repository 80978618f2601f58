"""Jobs that give way: what most tests of signals need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.database import Database
from harness.jobs import Look, complete, progress, start
from harness.tables import counts
from harness.wait import wait_until

ROWS = 20_000


def throttled(db: Database, job: int, *parts: str, timeout: float = 30) -> str:
    """Waits until the view says why the job waits, in these words; returns what it says."""

    def says() -> str | None:
        row = look(job)
        assert row["state"] == "running", row
        text = row["waiting_for"] or ""
        return text if all(part in text for part in parts) else None

    with Look(db) as look:
        return wait_until(says, timeout, f"job {job} to wait for {parts}")


def stands_still(db: Database, job: int) -> None:
    """Two looks of the worker at its signals make no difference."""
    before = progress(db, job)["rows_done"]
    looked = db.value("SELECT clock_timestamp()")
    wait_until(lambda: db.value("SELECT clock_timestamp() > %s + interval '2.5 s'", [looked]), 30, "two looks")
    assert progress(db, job)["rows_done"] == before


def waits_and_goes_on(
    db: Database, options: dict[str, Any], over: Callable[[], object], parts: tuple[str, ...], *, sleep_ms: int = 0
) -> str:
    """A job with the options waits, in the words given, stands still, and completes once `over` has been called.
    Returns what the view said."""
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=sleep_ms, options=options)
    said = throttled(db, job, *parts)
    stands_still(db, job)
    over()
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    complete(db, job)
    assert counts(db) == [(1, ROWS)]
    waited = db.value("SELECT sum((throttled_by ->> %s)::numeric) FROM backfill.samples", [parts[0].rstrip(":")])
    assert waited is not None and waited > 2, f"the samples say {waited} s"
    return said
