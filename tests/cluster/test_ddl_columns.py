"""Columns and keys that change under a running job: gone along with, or an end that says what has changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from harness import Cluster, Database, Server
from harness.jobs import complete, fail
from harness.walks import WAYS, assert_once, assert_partly, begin_all, go


@pytest.fixture(scope="module")
def shared_cluster(server: Server) -> Iterator[Cluster]:
    """A server with room for a job in each way at a time."""
    with Cluster(server=server, conf={"backfill.max_workers": 8}) as cluster:
        yield cluster


@dataclass
class End:
    """A change that ends the job; what it says, with which SQLSTATE; how to undo it."""

    ddl: str
    says: str
    sqlstate: str
    undo: str | None = None
    ways: tuple[str, ...] = tuple(WAYS)
    # What `n` is called, or whether the rows can be counted at all meanwhile.
    n: str | None = "n"


WITH_WHERE = ("waves", "workers", "pages")
BY_KEY = ("ranges", "waves", "workers")
ENDS = {
    "set column renamed": End(
        "ALTER TABLE t RENAME n TO m",
        'column "n" of table public.t, which the clauses use, is called "m" now',
        "42703",
        "ALTER TABLE t RENAME m TO n",
        n="m",
    ),
    "column that is read renamed": End(
        "ALTER TABLE t RENAME u TO v",
        'column "u" of table public.t, which the clauses use, is called "v" now',
        "42703",
        "ALTER TABLE t RENAME v TO u",
        ways=("ranges", "pages"),
    ),
    "column of where_clause renamed": End(
        "ALTER TABLE t RENAME w TO v",
        'column "w" of table public.t, which the clauses use, is called "v" now',
        "42703",
        "ALTER TABLE t RENAME v TO w",
        ways=WITH_WHERE,
    ),
    "two columns swapped": End(
        "ALTER TABLE t RENAME u TO x; ALTER TABLE t RENAME spare TO u; ALTER TABLE t RENAME x TO spare",
        'column "u" of table public.t, which the clauses use, is called "spare" now',
        "42703",
        "ALTER TABLE t RENAME u TO x; ALTER TABLE t RENAME spare TO u; ALTER TABLE t RENAME x TO spare",
    ),
    "column that is read dropped": End(
        "ALTER TABLE t DROP u", 'column "u" of table public.t, which the clauses use, was dropped', "42703"
    ),
    "set column made anew": End(
        "ALTER TABLE t DROP n, ADD n int NOT NULL DEFAULT 0",
        'column "n" of table public.t, which the clauses use, was dropped',
        "42703",
        n=None,
    ),
    "set column made an identity": End(
        "ALTER TABLE t ALTER n DROP DEFAULT, ALTER n ADD GENERATED ALWAYS AS IDENTITY",
        'column "n" can only be updated to DEFAULT',
        "428C9",
        "ALTER TABLE t ALTER n DROP IDENTITY",
        ways=("ranges", "waves", "pages"),
    ),
    "key column dropped": End(
        "ALTER TABLE t DROP id", 'key column "id" of table public.t was dropped', "42703", ways=BY_KEY
    ),
    "key dropped": End(
        "ALTER TABLE t DROP CONSTRAINT t_pkey",
        "table public.t has no usable unique index on (id) any more",
        "55000",
        "ALTER TABLE t ADD CONSTRAINT another PRIMARY KEY (id)",
        ways=BY_KEY,
    ),
    "key with another column": End(
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, code)",
        "table public.t has no usable unique index on (id) any more",
        "55000",
        "CREATE UNIQUE INDEX later ON t (id)",
        ways=("ranges", "waves"),
    ),
    "key deferrable": End(
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD CONSTRAINT t_pkey PRIMARY KEY (id) DEFERRABLE",
        "table public.t has no usable unique index on (id) any more",
        "55000",
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD CONSTRAINT t_pkey PRIMARY KEY (id)",
        ways=("ranges", "waves"),
    ),
    "key of another type": End(
        "ALTER TABLE t ALTER id TYPE numeric",
        "the key has another type or collation",
        "55000",
        "ALTER TABLE t ALTER id TYPE int",
        ways=("ranges", "waves"),
    ),
    "rule": End(
        "CREATE RULE nothing AS ON UPDATE TO t DO INSTEAD NOTHING",
        "cannot backfill table public.t: its rule nothing rewrites UPDATEs",
        "0A000",
        "DROP RULE nothing ON t",
        ways=("waves", "pages"),
    ),
}


@pytest.mark.parametrize("change", ENDS)
def test_a_change_that_ends_the_job(db: Database, change: str) -> None:
    """It says what has changed and what to do; the change undone, the job goes on to its end."""
    end = ENDS[change]
    jobs = begin_all(db, end.ways)
    for way in jobs:
        db.sql(f"SET search_path = {way}; {end.ddl}")
    for job in jobs.values():
        go(db, job)
    for way, job in jobs.items():
        error = fail(db, job)
        assert end.says.replace("public.t", f"{way}.t") in error and f"SQLSTATE {end.sqlstate}" in error, error
        assert "HINT: " in error or "DETAIL: " in error, error
        if end.n:
            assert_partly(db, job, f"{way}.t", end.n)
        if end.undo is None:
            assert db.value("SELECT backfill.cancel(%s)", [job]) == "cancelled"
            continue
        db.sql(f"SET search_path = {way}; {end.undo}")
        db.sql("SELECT backfill.resume(%s)", [job])
    for way, job in jobs.items() if end.undo else ():
        complete(db, job)
        assert_once(db, job, f"{way}.t")
