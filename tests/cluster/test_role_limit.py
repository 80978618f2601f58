"""backfill.max_workers_per_role: one role's jobs leave slots to others, whatever their code does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from harness import Cluster, Database, wait_until
from harness.jobs import cancel_running, complete, progress, start_count, wait_for, wait_for_nap_between_batches
from harness.tables import counts, make_table

New = Callable[..., Cluster]
MINUTE = 60_000
TABLES = "abcdef"
HELD = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid IN (7702, 7707, 7708)"


@pytest.fixture
def crowd(new_cluster: New) -> Iterator[Cluster]:
    """A server with three slots, and tables of two roles; without the launcher's help."""
    cluster = new_cluster(preload=False, conf={"backfill.max_workers": 3})
    cluster.sql(
        "CREATE EXTENSION backfill; CREATE ROLE greedy LOGIN; CREATE ROLE modest LOGIN;"
        " GRANT CREATE ON SCHEMA public TO greedy"
    )
    for table in TABLES:
        make_table(cluster, 300, table)
        cluster.sql(f"ALTER TABLE {table} OWNER TO greedy")
    make_table(cluster, 300, "m")
    cluster.sql("ALTER TABLE m OWNER TO modest")
    yield cluster
    cancel_running(cluster)


def workers(db: Database, jobs: list[int]) -> int:
    """Processes that work on these jobs."""
    return sum(len(db.worker_pids(job)) for job in jobs)


def asleep(db: Cluster, tables: str) -> list[int]:
    """Jobs of the greedy role that sleep after their first batch."""
    jobs = [start_count(db, table, sleep_ms=MINUTE, user="greedy") for table in tables]
    for job in jobs:
        wait_for_nap_between_batches(db, job)
    return jobs


def test_all_but_one_by_default(crowd: Cluster) -> None:
    """The third job of the role waits and says why; another role's runs; when one ends, the next is taken up."""
    jobs = asleep(crowd, "ab")
    third = start_count(crowd, "c", user="greedy")
    waits = lambda: progress(crowd, third)["waiting_for"] or ""  # noqa: E731
    wait_until(lambda: "role greedy has 2 of 2 (backfill.max_workers_per_role)" in waits(), 20, "the view to tell")
    complete(crowd, start_count(crowd, "m", user="modest"))
    assert crowd.worker_pids(third) == []
    crowd.sql("SELECT backfill.cancel(%s)", [jobs[0]])
    complete(crowd, third)
    assert counts(crowd, "c") == [(1, 300)]


def test_a_job_of_another_role_behind_many_is_taken_up(crowd: Cluster) -> None:
    """What waits longer, and may not run yet, does not stand in its way."""
    jobs = asleep(crowd, "ab")
    blocker = start_count(crowd, "m", sleep_ms=MINUTE, user="modest")
    wait_for_nap_between_batches(crowd, blocker)
    waiting = [start_count(crowd, table, user="greedy") for table in "cdef"]
    make_table(crowd, 300, "m2")
    crowd.sql("ALTER TABLE m2 OWNER TO modest")
    last = start_count(crowd, "m2", user="modest")
    crowd.sql("SELECT backfill.cancel(%s)", [blocker])
    complete(crowd, last)
    assert workers(crowd, jobs) == 2 and workers(crowd, waiting) == 0
    crowd.sql("SELECT backfill.cancel(%s)", [jobs[0]])
    for job in waiting:
        complete(crowd, job)


def test_no_limit_superusers_and_a_reload(crowd: Cluster) -> None:
    """0 is none; superusers have none; a limit that is lowered makes those beyond it wait."""
    crowd.set(**{"backfill.max_workers_per_role": 0})
    crowd.reload()
    jobs = asleep(crowd, "abc")
    assert workers(crowd, jobs) == 3
    crowd.set(**{"backfill.max_workers_per_role": 1})
    crowd.reload()
    wait_until(lambda: workers(crowd, jobs) == 1, 30, "two workers to leave")
    for job in jobs:
        crowd.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    for job in jobs:
        complete(crowd, job)
    mine = [start_count(crowd, table, sleep_ms=MINUTE) for table in "def"]
    for job in mine:
        wait_for_nap_between_batches(crowd, job)


def test_a_trigger_that_lets_go_of_all_locks_gets_no_more(crowd: Cluster) -> None:
    """pg_advisory_unlock_all() in a batch that goes on for long: neither the role nor the server counts one less."""
    crowd.sql(
        "SET ROLE greedy; CREATE FUNCTION let_go() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_advisory_unlock_all(), pg_sleep(60); RETURN new; END $$"
    )
    for table in "abc":
        crowd.sql(f"CREATE TRIGGER let_go BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION let_go()")
    jobs = [start_count(crowd, table, user="greedy") for table in "ab"]
    sleeping = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'backfill job%' AND wait_event = 'PgSleep'"
    )
    wait_until(lambda: crowd.value(sleeping) == 2, 30, "both to sleep without a lock")
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 7702"
    assert crowd.value(held) == 0
    third = start_count(crowd, "c", user="greedy")
    wait_until(lambda: "max_workers_per_role" in (progress(crowd, third)["waiting_for"] or ""), 20, "the third to wait")
    # One slot is left, and no more.
    mine = [start_count(crowd, table, sleep_ms=MINUTE) for table in "de"]
    wait_for_nap_between_batches(crowd, mine[0])
    wait_until(
        lambda: "3 of 3 (backfill.max_workers)" in (progress(crowd, mine[1])["waiting_for"] or ""), 20, "the last"
    )
    assert (crowd.value(sleeping), workers(crowd, [third, mine[1]])) == (2, 0)
    for job in jobs:
        crowd.sql("SELECT backfill.cancel(%s, now => true)", [job])
        wait_for(crowd, job, "cancelled")


def test_a_worker_that_is_ended_between_batches_leaves_no_seat_taken(new_cluster: New) -> None:
    """However it ends: terminated asleep, or by DROP DATABASE ... WITH (FORCE). The next job finds a slot at once."""
    cluster = new_cluster(preload=False, conf={"backfill.max_workers": "1"})
    cluster.sql("CREATE EXTENSION backfill")
    for number in range(3):
        cluster.sql(f"CREATE DATABASE d{number}")
        database = cluster.database(f"d{number}")
        database.sql("CREATE EXTENSION backfill")
        make_table(database, 100)
        job = start_count(database, sleep_ms=60_000, batch_size=10)
        wait_for_nap_between_batches(database, job)
        if number == 1:
            database.terminate_worker(job)
        cluster.sql(f"DROP DATABASE d{number} WITH (FORCE)")
        wait_until(lambda: cluster.value(HELD) == 0, 30, "the seat to be free")
