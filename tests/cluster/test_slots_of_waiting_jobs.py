"""A job that may not run now keeps no worker slot from one that could."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import Cluster, wait_until
from harness.jobs import complete, progress, start, wait_for_rows
from harness.tables import counts, make_table
from harness.throttles import throttled

New = Callable[..., Cluster]
ROWS = 2_000


def clock(cluster: Cluster, hours: int) -> str:
    """The time in so many hours."""
    return cluster.value(
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC' + make_interval(hours => %s), 'HH24:MI')", [hours]
    )


def crowd(new_cluster: New, **conf: object) -> Cluster:
    """A server with two worker slots, and more tables than that."""
    cluster = new_cluster(conf={"backfill.max_workers": 2, "max_worker_processes": 12, **conf})
    cluster.sql("CREATE EXTENSION backfill")
    for name in ("a", "b", "c", "t"):
        make_table(cluster, ROWS, name)
    return cluster


@pytest.mark.parametrize("preload", [True, False])
def test_outside_of_its_hours(new_cluster: New, preload: bool) -> None:
    """Two jobs hold both slots for a day: the third one runs all the same, and the two do when their hour comes."""
    cluster = crowd(new_cluster, **{} if preload else {"shared_preload_libraries": ""})
    closed = f"{clock(cluster, 11)}-{clock(cluster, 13)} UTC"
    waiting = [start(cluster, name, "n = n + 1", batch=100, options={"run_window": closed}) for name in ("a", "b")]
    for job in waiting:
        throttled(cluster, job, "run_window")
    third = start(cluster, "t", "n = n + 1", batch=100)
    complete(cluster, third)
    # Nobody else wants a slot: they are back in theirs, or wait for one, and say why.
    for job in waiting:
        wait_until(
            lambda job=job: "run_window" in (progress(cluster, job)["waiting_for"] or ""), 60, "the hours to be shown"
        )
        window = f"{clock(cluster, -1)}-{clock(cluster, 1)} UTC"
        cluster.sql("SELECT backfill.alter(%s, options => jsonb_build_object('run_window', %s::text))", [job, window])
        complete(cluster, job)
    assert counts(cluster) == [(1, ROWS)]


@pytest.mark.timeout(300)
def test_a_long_wait(new_cluster: New) -> None:
    """Of whatever kind: after a minute it is the turn of who could run; then of who has waited longest, all of them."""
    cluster = crowd(new_cluster)
    query = {"throttle_query": "SELECT true"}
    waiting = [start(cluster, name, "n = n + 1", batch=100, options=query) for name in ("a", "b")]
    for job in waiting:
        throttled(cluster, job, "throttle_query")
    third = start(cluster, "t", "n = n + 1", batch=100, sleep_ms=100)
    wait_until(lambda: "busy" in (progress(cluster, third)["waiting_for"] or ""), 30, "the third one to wait")
    wait_for_rows(cluster, third, 500, timeout=120)
    assert sum(progress(cluster, job)["workers"] for job in waiting) == 1
    complete(cluster, third)
    for job in waiting:
        cluster.sql("SELECT backfill.alter(%s, options => '{\"throttle_query\": null}')", [job])
        complete(cluster, job)
    assert counts(cluster) == [(1, ROWS)]
