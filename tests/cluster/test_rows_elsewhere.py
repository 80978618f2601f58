"""Tables whose rows are not where the relation is: other extensions keep them in shards or chunks.

The extensions themselves are not here: their lists of tables are made as they make them."""

from __future__ import annotations

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, fail, progress, start, start_count, wait_for_nap_between_batches, wait_for_state
from harness.tables import counts, make_table

CITUS = """
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (
    logicalrelid regclass PRIMARY KEY, partmethod "char", partkey text, colocationid int, repmodel "char",
    autoconverted bool);
CREATE TABLE pg_catalog.pg_dist_local_group (groupid int PRIMARY KEY);
CREATE TABLE pg_catalog.pg_dist_shard (logicalrelid regclass, shardid bigint);
INSERT INTO pg_catalog.pg_dist_local_group VALUES (0);
RESET allow_system_table_mods
"""
TIMESCALE = """
CREATE SCHEMA _timescaledb_catalog;
CREATE TABLE _timescaledb_catalog.hypertable (schema_name name, table_name name);
CREATE TABLE _timescaledb_catalog.chunk (schema_name name, table_name name, compressed_chunk_id int)
"""
# How a table is listed, and what is said of it.
LISTED = {
    "distributed": (CITUS, "pg_dist_partition VALUES ('t', 'h', 'id', 1, 's')", "Citus keeps its rows in shards"),
    "reference": (CITUS, "pg_dist_partition VALUES ('t', 'n', NULL, 1, 't')", "Citus keeps a copy of it on each node"),
    "of a tenant": (CITUS, "pg_dist_partition VALUES ('t', 'n', NULL, 7, 's')", "Citus keeps its rows in shards"),
    "on a worker": (
        CITUS,
        "pg_dist_partition VALUES ('t', 'n', NULL, 0, 's'); UPDATE pg_dist_local_group SET groupid = 2",
        "Citus keeps its rows on other nodes",
    ),
    "shard": (
        CITUS,
        "pg_dist_shard SELECT 'whole', 102008; ALTER TABLE t RENAME TO whole_102008",
        "Citus may move it to another node: it is a shard",
    ),
    "hypertable": (
        TIMESCALE,
        "_timescaledb_catalog.hypertable VALUES ('public', 't')",
        "TimescaleDB keeps its rows in chunks",
    ),
    "compressed": (
        TIMESCALE,
        "_timescaledb_catalog.chunk VALUES ('public', 't', 4)",
        "TimescaleDB keeps its rows compressed in another table",
    ),
}


def refused(db: Database, call: str, what: str) -> None:
    """The call is refused with the reason, and a hint."""
    with pytest.raises(psycopg.errors.FeatureNotSupported, match=what) as caught:
        db.sql(call)
    assert "UPDATE it through" in caught.value.diag.message_hint


@pytest.mark.parametrize("kind", LISTED)
def test_each_call_refuses_it(db: Database, kind: str) -> None:
    """A job that was made before the table was handed over does not run, and is not verified either."""
    lists, row, what = LISTED[kind]
    make_table(db, 300)
    db.sql("CREATE TABLE whole (); ALTER TABLE t ADD COLUMN m int")
    done = start(db, "t", "m = id")
    complete(db, done)
    job = start_count(db, batch_size=50, sleep_ms=60_000)
    wait_for_nap_between_batches(db, job)
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for_state(db, job, "paused")
    db.sql("SELECT backfill.define('t', 'n = n + 3', name => 'later')")
    db.sql(lists)
    db.sql(f"INSERT INTO {row}")
    table = "whole_102008" if kind == "shard" else "t"
    for call in (
        f"backfill.start('{table}', set_clause => 'n = n + 1')",
        f"backfill.start('{table}', name => 'later')",
        f"backfill.define('{table}', 'n = n + 1')",
        f"backfill.plan('{table}', set_clause => 'n = n + 1')",
        f"backfill.plan('{table}', name => 'later')",
        f"backfill.preview('{table}', set_clause => 'n = n + 1')",
        f"backfill.verify({done}, recompute => true)",
        f"backfill.rehearse({job})",
        f"backfill.procedure({job})",
    ):
        refused(db, f"SELECT {call}", what)
    db.sql("SELECT backfill.resume(%s)", [job])
    fail(db, job)
    assert what in progress(db, job)["last_error"]


def test_tables_that_are_where_they_seem_go_on(db: Database) -> None:
    """A table that only the coordinator has, and one that is not listed; a chunk that is not compressed."""
    make_table(db, 300)
    db.sql(CITUS)
    db.sql(TIMESCALE)
    db.sql("INSERT INTO pg_dist_partition VALUES ('t', 'n', NULL, 0, 's')")
    db.sql("INSERT INTO _timescaledb_catalog.chunk VALUES ('public', 't', NULL)")
    complete(db, start_count(db))
    db.sql("DELETE FROM pg_dist_partition")
    complete(db, start_count(db))
    assert counts(db) == [(2, 300)]


def test_what_others_put_under_that_name_is_not_read(db: Database) -> None:
    """The schema is free where the extension is not installed."""
    make_table(db, 300)
    if not db.value("SELECT to_regrole('squatter') IS NOT NULL"):
        db.sql("CREATE ROLE squatter LOGIN")
    db.sql(TIMESCALE)
    db.sql("""
        ALTER SCHEMA _timescaledb_catalog OWNER TO squatter;
        ALTER TABLE _timescaledb_catalog.hypertable RENAME TO h;
        CREATE VIEW _timescaledb_catalog.hypertable AS SELECT * FROM _timescaledb_catalog.h
    """)
    db.sql("INSERT INTO _timescaledb_catalog.h VALUES ('public', 't')")
    complete(db, start_count(db))
    db.sql("DROP VIEW _timescaledb_catalog.hypertable; ALTER TABLE _timescaledb_catalog.h RENAME TO hypertable")
    db.sql("ALTER TABLE _timescaledb_catalog.hypertable OWNER TO squatter")
    complete(db, start_count(db))
    assert counts(db) == [(2, 300)]
