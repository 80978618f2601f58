"""Jobs that wait notice what is changed meanwhile: bounds, settings, wishes; and count their time."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
import pytest
from harness import Cluster, Database, wait_until
from harness.jobs import complete, progress, start, wait_for, wait_for_rows
from harness.tables import counts, make_table
from harness.throttles import ROWS, stands_still, throttled

SWALLOW = """
CREATE FUNCTION swallow() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..25 LOOP
        BEGIN
            PERFORM pg_sleep(0.2);
        EXCEPTION WHEN query_canceled THEN NULL;
        END;
    END LOOP;
    RETURN false;
END $$
"""


@pytest.fixture
def table(db: Database) -> Database:
    """A database with the table t."""
    make_table(db, ROWS)
    return db


def alter(db: Database, job: int, **options: object) -> None:
    """Changes options of the job."""
    db.sql("SELECT backfill.alter(%s, options => %s)", [job, json.dumps(options)])


@pytest.mark.parametrize(
    "low, high",
    [
        ({"max_wal_rate": "1kB"}, {"max_wal_rate": "1GB"}),
        ({"max_wal_rate": "1kB"}, {"max_wal_rate": -1}),
        ({"max_rows_per_second": 1}, {"max_rows_per_second": 1_000_000}),
        ({"max_rows_per_second": 1}, {"max_rows_per_second": None}),
    ],
)
def test_a_rate_that_is_raised_is_in_force_at_once(
    table: Database, low: dict[str, object], high: dict[str, object]
) -> None:
    """A pause of minutes ends, and what an old rate has left owed is paid at the new one."""
    options = {"vacuum": False, "analyze": False, **low}
    job = start(table, "t", "n = n + 1", batch=500, options=options)
    throttled(table, job, next(iter(low)))
    alter(table, job, **high)
    complete(table, job, timeout=30)
    assert counts(table) == [(1, ROWS)]


def test_a_setting_that_is_raised_is_in_force_at_once(new_cluster: Callable[..., Cluster]) -> None:
    """With the reload."""
    cluster = new_cluster(conf={"backfill.max_wal_rate": "1kB"})
    db = cluster.database("postgres")
    db.sql("CREATE EXTENSION backfill")
    make_table(db, ROWS)
    job = start(db, "t", "n = n + 1", batch=500, options={"vacuum": False, "analyze": False})
    throttled(db, job, "max_wal_rate: 1024 bytes of WAL a second")
    cluster.set(**{"backfill.max_wal_rate": "1GB"})
    cluster.reload()
    complete(db, job, timeout=30)
    assert counts(db) == [(1, ROWS)]


def test_a_query_that_swallows_its_cancel_holds_up_no_wish(table: Database) -> None:
    """It counts as too long; and once it has come back, the job sees that it is to end."""
    table.sql(SWALLOW)
    job = start(table, "t", "n = n + 1", batch=100, options={"throttle_query": "SELECT swallow()"})
    throttled(table, job, "throttle_query: the query takes longer than 1000 ms")
    table.sql("SELECT backfill.cancel(%s)", [job])
    wait_for(table, job, "cancelled", timeout=30)


def test_a_query_writes_nothing(table: Database) -> None:
    """Not by a function either: the job waits, and says that the query fails."""
    table.sql("CREATE TABLE log (at timestamptz)")
    table.sql(
        "CREATE FUNCTION noted() RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.log VALUES (now()); RETURN false; END $$"
    )
    job = start(table, "t", "n = n + 1", batch=100, options={"throttle_query": "SELECT noted()"})
    throttled(table, job, "throttle_query: the query fails (SQLSTATE 25006)")
    assert table.value("SELECT count(*) FROM log") == 0
    alter(table, job, throttle_query=None)
    complete(table, job)


@pytest.mark.parametrize("option", ["max_rows_per_second", "max_wal_rate"])
def test_a_rate_of_nothing_is_no_rate_without_a_bound(table: Database, option: str) -> None:
    """As of all other bounds, 0 is the strictest."""
    job = start(table, "t", "n = n + 1", batch=100, options={option: 0})
    throttled(table, job, f"{option}: the bound is 0")
    stands_still(table, job)
    alter(table, job, **{option: None})
    complete(table, job)


def test_the_time_of_a_long_pause_is_counted_while_it_lasts(table: Database) -> None:
    """Nobody reads of an interval in which a worker waited for longer than that took."""
    job = start(table, "t", "n = n + 1", batch=500, sleep_ms=100, options={"max_wal_rate": "1kB"})
    throttled(table, job, "max_wal_rate")
    wait_until(lambda: progress(table, job)["seconds_throttled"] > 9, 60, "the time to be counted")
    query = "SELECT interval_seconds, seconds_throttled FROM backfill.samples WHERE interval_seconds IS NOT NULL"
    wait_until(lambda: table.sql(query), 60, "a sample")
    for interval, waited in table.sql(query):
        assert waited <= interval + 3, (interval, waited)
    table.sql("SELECT backfill.cancel(%s)", [job])
    wait_for(table, job, "cancelled")


def test_growth_is_counted_over_a_pause(table: Database) -> None:
    """From when the job began, whoever looks."""
    table.sql("ALTER TABLE t ADD pad text DEFAULT repeat('x', 300)")
    table.sql("ALTER TABLE t SET (autovacuum_enabled = off)")
    table.sql("UPDATE t SET n = 0")
    table.sql("ALTER TABLE t ALTER pad SET NOT NULL, ALTER id TYPE bigint")
    options = {"max_growth": 10, "strategy": "sequential", "vacuum": False}
    job = start(table, "t", "n = n + 1", batch=100, sleep_ms=100, options=options)
    wait_for_rows(table, job, 500)
    table.sql("SELECT backfill.pause(%s)", [job])
    wait_for(table, job, "paused")
    table.sql("SELECT backfill.alter(%s, sleep_ms => 20)", [job])
    table.sql("SELECT backfill.resume(%s)", [job])
    throttled(table, job, "max_growth: the table has grown by", "since the job began or it was vacuumed", timeout=60)
    done = progress(table, job)["rows_done"]
    table.sql("SELECT backfill.pause(%s)", [job])
    wait_for(table, job, "paused")
    table.sql("SELECT backfill.resume(%s)", [job])
    throttled(table, job, "max_growth: the table has grown by")
    assert progress(table, job)["rows_done"] <= done + 100
    table.sql("VACUUM t")
    alter(table, job, max_growth=None)
    complete(table, job)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lag_include": ["a", "b"], "lag_exclude": ["b"]}, '"b" is both in option "lag_include" and in "lag_exclude"'),
        ({"throttle_query": "SELECT true; SELECT true"}, 'option "throttle_query": syntax error'),
        ({"throttle_query": "SELECT true /*"}, 'option "throttle_query": unterminated /* comment'),
    ],
)
def test_what_makes_no_sense_is_refused(table: Database, options: dict[str, object], message: str) -> None:
    """With a hint."""
    with pytest.raises(psycopg.Error) as caught:
        start(table, "t", "n = n + 1", options=options)
    assert message in str(caught.value) and caught.value.diag.message_hint


@pytest.mark.parametrize("hours", ["0:00 - 23:59 Etc/UTC", "9:00-8:59", "00:00-23:59 Etc/GMT-3"])
def test_hours_are_read_as_people_write_them(table: Database, hours: str) -> None:
    """With one digit, and with blanks; the zone may have a dash."""
    job = start(table, "t", "n = n + 1", batch=100, sleep_ms=1000, options={"run_window": hours})
    assert table.value("SELECT options ->> 'run_window' FROM backfill.progress WHERE job_id = %s", [job])
    table.sql("SELECT backfill.cancel(%s)", [job])
