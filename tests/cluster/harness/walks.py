"""One table, walked in each of the ways there are, and caught between two batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from harness.database import Database
from harness.jobs import Look, progress, start
from harness.wait import wait_until

ROWS = 1200
# Nobody waits so long: a batch runs when the test says so.
NAP = 3_600_000

# `n` is set by `u`, chosen by `w`; `code` could be a key as well, and `spare` is nobody's.
TABLE = """
    CREATE TABLE {name} (
        id int CONSTRAINT {short}_pkey PRIMARY KEY,
        code int NOT NULL CONSTRAINT {short}_code UNIQUE,
        n int NOT NULL DEFAULT 0,
        u int NOT NULL DEFAULT 1,
        w int NOT NULL DEFAULT 7,
        spare int DEFAULT 5
    ) WITH (autovacuum_enabled = off, fillfactor = 10);
    INSERT INTO {name} (id, code) SELECT g, {rows} + 1 - g FROM generate_series(1, {rows}) g;
    ANALYZE {name};
"""
# So that a small table has as many slices as workers: these ask the planner. A sample of its pages gives the bounds,
# so there are many; and autovacuum would know better, so there is none.
SLICES = "UPDATE pg_class SET reltuples = 65000 * 3 WHERE oid = '{name}'::regclass"


@dataclass
class Way:
    """How a table is walked."""

    options: dict[str, Any] = field(default_factory=dict)
    where: str | None = None
    workers: int = 1


WAYS = {
    # Ranges of keys.
    "ranges": Way({"strategy": "sequential"}),
    # A region that is open, by lists of keys and by places.
    "waves": Way({"strategy": "waves", "waves": 4}, "w > 0"),
    "workers": Way({"strategy": "waves", "waves": 4, "workers": 3}, "w > 0", workers=3),
    "pages": Way({"walk": "physical"}, "n = 0 AND w > 0"),
}


def make(db: Database, name: str = "t", rows: int = ROWS, user: str = "postgres") -> None:
    """Makes such a table; one that is called `s.t` with its schema."""
    schema, _, short = name.rpartition(".")
    if schema:
        db.sql(f"CREATE SCHEMA {schema}", user=user)
    db.sql(TABLE.format(name=name, short=short, rows=rows), user=user)


def begin(
    db: Database,
    way: str,
    name: str = "t",
    *,
    set_clause: str = "n = n + u",
    where: str | None = None,
    batch: int = 40,
    user: str = "postgres",
) -> int:
    """Starts a job on the table, and waits until each of its workers sleeps after its first batches."""
    how = WAYS[way]
    if how.workers > 1:
        db.sql(SLICES.format(name=name))
    where = " AND ".join(filter(None, [how.where, where])) or None
    job = start(db, name, set_clause, where=where, batch=batch, sleep_ms=NAP, options=how.options, user=user)
    at = (
        "SELECT state, wait_event FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s"
    )
    seen: list[tuple[str, str]] = []

    def asleep() -> bool:
        seen[:] = db.sql(at, [f"backfill job {job}:%"])
        return seen == [("idle", "Extension")] * how.workers and done(db, job) > 0

    try:
        wait_until(asleep, 30, f"{how.workers} workers of job {job} to sleep")
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}, {progress(db, job)}") from None
    return job


def begin_all(db: Database, ways: Iterable[str] = WAYS, user: str = "postgres", **how: Any) -> dict[str, int]:
    """Makes a table `t` in a schema for each way, and has a job in the middle of each."""
    for way in ways:
        make(db, f"{way}.t", user=user)
    return {way: begin(db, way, f"{way}.t", user=user, **how) for way in ways}


def done(db: Database, job: int) -> int:
    """Rows that the job has passed."""
    return progress(db, job)["rows_done"]


def step(db: Database, job: int) -> None:
    """Lets each worker run a batch more, and waits for it."""
    before = progress(db, job)
    nap = 2 * NAP - 1 - before["sleep_ms"]
    db.sql("SELECT backfill.alter(%s, sleep_ms => %s)", [job, nap])

    def further() -> bool:
        row = look(job)
        assert row["state"] == "running", f"job {job} is {row['state']}: {row['last_error']}"
        return row["rows_done"] > before["rows_done"]

    with Look(db) as look:
        wait_until(further, 60, f"job {job} to pass more rows than {before['rows_done']}")


def go(db: Database, job: int) -> None:
    """Lets it run to its end."""
    db.sql("SELECT backfill.alter(%s, 400, 0)", [job])


def assert_partly(db: Database, job: int, name: str = "t", column: str = "n") -> None:
    """What is done is done once, and counted."""
    counts = dict(db.sql(f"SELECT {column}, count(*) FROM {name} GROUP BY 1"))
    updated = progress(db, job)["rows_updated"]
    assert set(counts) <= {0, 1} and counts[1] == updated, f"{counts}, of which {updated} are said to be updated"


def assert_once(db: Database, job: int, name: str = "t", column: str = "n", rows: int = ROWS) -> None:
    """Every row was updated once, and counted."""
    assert db.sql(f"SELECT {column}, count(*) FROM {name} GROUP BY 1") == [(1, rows)]
    assert progress(db, job)["rows_updated"] == rows
