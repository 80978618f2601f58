"""The clock is set forward and back by a day while a job runs: waits, rates and percentages know nothing of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from harness import Cluster, wait_until
from harness.jobs import complete, progress, start, start_count, wait_for_nap_between_batches, wait_for_rows
from harness.tables import counts, make_table

New = Callable[..., Cluster]
DAY = 86_400
MINUTE = 60_000
ROWS = 4000
LIBRARIES = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
]


class Clock:
    """The clock of a server: `set(3600)` sets it an hour ahead of that of the machine."""

    def __init__(self, cluster: Cluster, file: Path) -> None:
        self.cluster = cluster
        self.file = file

    def set(self, seconds: int) -> None:
        """The monotonic clock, which the kernel keeps apart, goes on as it did; so it is with a real one."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.chmod(0o644)
        new.rename(self.file)
        offset = "SELECT extract(epoch FROM clock_timestamp())"

        def is_set() -> bool:
            return abs(float(self.cluster.value(offset)) - float(os.popen("date +%s.%N").read()) - seconds) < 60

        wait_until(is_set, 10, f"the clock to be {seconds} s ahead")


@pytest.fixture
def clock(new_cluster: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """A server whose clock can be set."""
    library = next((path for path in LIBRARIES if Path(path).exists()), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    cluster = new_cluster(conf={"backfill.launcher_interval": "1s"})
    cluster.stop()
    file = cluster.folder / "clock"
    file.write_text("+0")
    file.chmod(0o644)
    settings = {"FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
    with monkeypatch.context() as environment:
        for name, value in (settings | {"LD_PRELOAD": library, "NO_FAKE_STAT": "1"}).items():
            environment.setenv(name, value)
        cluster.start()
    cluster.sql("CREATE EXTENSION backfill")
    yield Clock(cluster, file)


def test_the_clock_jumps(clock: Clock) -> None:
    """Sleeps are as long as before, the percentage never falls, the rate stays what it is, the end is in sight."""
    cluster = clock.cluster
    make_table(cluster, ROWS)
    job = start_count(cluster, batch_size=40, sleep_ms=50)
    seen = []
    for jump in (DAY, -DAY):
        since = progress(cluster, job)["rows_done"]
        wait_for_rows(cluster, job, since + 1000)
        seen.append(progress(cluster, job))
        clock.set(jump)
    while (row := progress(cluster, job))["state"] == "running":
        seen.append(row)
    assert [row["percent"] for row in seen] == sorted(row["percent"] for row in seen)
    rates = [float(row["rows_per_second"]) for row in seen if row["rows_per_second"] is not None]
    # No faster than its sleeps allow.
    assert len(rates) > 3 and min(rates) > 0 and max(rates) < 2000, rates
    left = [row["eta"] for row in seen if row["eta"] is not None]
    assert left and all(timedelta(0) <= eta < timedelta(minutes=10) for eta in left), left
    # In the moment in which it ends, it is said to do so.
    assert {row["waiting_for"] for row in seen if row["workers"] > 0} == {None}
    assert not [row for row in seen if "none is running" in (row["waiting_for"] or "")]
    complete(cluster, job)
    assert counts(cluster) == [(1, ROWS)]


def test_the_clock_jumps_while_a_batch_waits(clock: Clock) -> None:
    """The pauses between two tries are no longer, nor is the launcher's nap; a missing worker is called missing."""
    cluster = clock.cluster
    make_table(cluster, ROWS)
    # Never ahead of the machine's: with this library a lock_timeout ends no wait then, of nobody's.
    for jump in (-DAY, 0):
        with cluster.connect(autocommit=False) as other:
            other.execute("UPDATE t SET n = n WHERE id = 1234")
            job = start(cluster, "t", "n = n + 1", batch=500, options={"lock_timeout_ms": 50})
            wait_until(lambda job=job: progress(cluster, job)["rows_done"] == 1233, 30, "the rows before that one")
            clock.set(jump)
            other.commit()
        complete(cluster, job, timeout=20)
    assert counts(cluster) == [(2, ROWS)]
    job = start_count(cluster, sleep_ms=MINUTE)
    wait_for_nap_between_batches(cluster, job)
    clock.set(-DAY)
    worker = cluster.terminate_worker(job)
    wait_until(lambda: cluster.worker_pids(job) not in ([], [worker]), 30, "the launcher")
    cluster.set(**{"backfill.launcher_interval": 0})
    cluster.reload()
    clock.set(-2 * DAY)
    wait_for_nap_between_batches(cluster, job)
    cluster.terminate_worker(job)
    wait_until(lambda: "none is running" in (progress(cluster, job)["waiting_for"] or ""), 10, "the view to tell")
    cluster.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    cluster.sql("SELECT backfill.resume(%s)", [job])
    complete(cluster, job)
    assert counts(cluster) == [(3, ROWS)]
