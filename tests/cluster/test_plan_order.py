"""backfill.plan and backfill.preview describe the walk that backfill.start then takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import Database
from harness.jobs import complete, start, wait_for

PARTS = """
CREATE TABLE t (id integer NOT NULL, code integer NOT NULL, v integer, w integer) PARTITION BY RANGE (id);
CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (500);
CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (500) TO (2000);
INSERT INTO t SELECT id, 3000 - id, id FROM generate_series(1, 1000) id;
CREATE UNIQUE INDEX t_code ON t (id, code);
CREATE UNIQUE INDEX other1 ON t1 (id);
CREATE UNIQUE INDEX other2 ON t2 (id);
ANALYZE t
"""


def walk_of(db: Database, relation: str, set_clause: str, where: str | None, **options: Any) -> dict[str, str]:
    """What the plan says of the walk, and the plan of the first batch."""
    rows = db.sql(
        "SELECT item, value FROM backfill.plan(%s::regclass, set_clause => %s, where_clause => %s, options => %s)",
        [relation, set_clause, where, json.dumps(options)],
    )
    return dict(rows)


def test_a_partitioned_table_with_a_named_key(db: Database) -> None:
    """The name is that of an index of the root: each partition has its own."""
    db.sql(PARTS)
    assert walk_of(db, "t", "w = v", "w IS NULL", key="t_code")["order"] == 'by key (id, code): option "key"'
    bounds = {"key": "t_code", "key_from": [101, 0], "key_to": [120, 9999]}
    found = walk_of(db, "t", "w = v", "w IS NULL", **bounds)
    assert int(found["rows that match"].split(",")[0]) == 20, found["rows that match"]
    shown = db.sql(
        "SELECT key FROM backfill.preview('t', set_clause => 'w = v', options => %s, \"limit\" => 50)",
        [json.dumps(bounds)],
    )
    ids = [int(key.split("= (")[1].split(",")[0]) for (key,) in shown]
    assert len(ids) == 20 and min(ids) == 101 and max(ids) == 120
    done = complete(db, start(db, "t", "w = v", where="w IS NULL", options={"key": "t_code"}))
    assert done["key_columns"] == ["id", "code"] and "physical" not in (done["note"] or "")


@pytest.fixture
def random_keys(db: Database) -> Database:
    """A table of a thousand pages and more, whose rows are in no order of either key."""
    db.sql("CREATE TABLE r (id integer PRIMARY KEY, code integer UNIQUE NOT NULL, pad text, v integer)")
    db.sql(
        "INSERT INTO r SELECT id, id, repeat('x', 500) FROM (SELECT id FROM generate_series(1, 20000) id"
        " ORDER BY hashint4(id)) s"
    )
    db.sql("VACUUM ANALYZE r")
    return db


@pytest.mark.parametrize(
    "where, options, physical",
    [
        ("v IS NULL", {}, True),
        ("v IS NULL", {"key": "r_code_key"}, False),
        ("v IS NULL", {"walk": "key"}, False),
        ("v IS NULL OR id = 0", {"key_to": 20000}, False),
        (None, {}, False),
        ("v IS NULL", {"walk": "physical"}, True),
        ("v IS NULL", {"dry_run": True}, False),
    ],
)
def test_the_order_is_the_same(
    random_keys: Database, where: str | None, options: dict[str, Any], physical: bool
) -> None:
    """By the key or by the pages, whatever it depends on; and with or without waves."""
    db = random_keys
    said = walk_of(db, "r", "v = id", where, **options)
    assert said["order"].startswith("page by page" if physical else "by key"), said["order"]
    job = start(db, "r", "v = id", where=where, options=options)
    wait_for(db, job, "completed", "paused")
    pages = "SELECT 1 FROM backfill_internal.slice WHERE job_id = %s AND first_block IS NOT NULL"
    assert bool(db.sql(pages, [job])) == physical


def test_no_waves_where_neighbours_are_apart(random_keys: Database) -> None:
    """As the workers find it, not by the rows of a page alone."""
    said = walk_of(random_keys, "r", "v = id", None)
    assert said["waves"].startswith("none: rows next to each other in the walk are on different pages")
    assert "waves" not in walk_of(random_keys, "r", "v = id", None, dry_run=True)["waves"].split(":")[0]


def test_the_plan_of_the_first_batch_is_the_workers(db: Database) -> None:
    """The planner would take another index; a worker goes by the key."""
    db.sql("CREATE TABLE o (id integer PRIMARY KEY, kind integer NOT NULL, v integer)")
    db.sql("INSERT INTO o SELECT id, id % 5000, NULL FROM generate_series(1, 50000) id")
    db.sql("CREATE INDEX o_kind ON o (kind); CREATE INDEX o_v ON o (v)")
    db.sql("VACUUM ANALYZE o")
    said = walk_of(db, "o", "v = id", "kind = 5", strategy="sequential")
    assert "o_kind" not in said["plan of the first read"] + said["plan of the first batch"]
    assert "Index Scan using o_pkey" in said["plan of the first read"]
    assert "Tid Scan on o" in said["plan of the first batch"]
    said = walk_of(db, "o", "v = id", None)
    assert "Index Scan using o_pkey" in said["plan of the first batch"]
    # Nothing of it is left in the session.
    session = "SELECT backfill.plan('o', set_clause => 'v = id'); EXPLAIN UPDATE o SET v = 1 WHERE kind = 5"
    assert "o_kind" in str(db.sql(session))
