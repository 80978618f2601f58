"""Walks by an index that contains a key, and in the strict order of the key."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, fail, progress
from harness.wait import wait_until

ROWS = 3_000


def make(db: Database) -> None:
    """Rows in no order, with a key, and an index that contains it and is not unique itself."""
    db.sql(f"""
        CREATE TABLE t (id int PRIMARY KEY, tenant int NOT NULL, no bigint, n int DEFAULT 0);
        INSERT INTO t (id, tenant) SELECT g, g % 7 FROM generate_series(1, {ROWS}) g ORDER BY g * 7919 % 3001;
        CREATE INDEX t_tenant ON t (tenant, id); CREATE INDEX t_down ON t (tenant DESC, id DESC);
        CREATE INDEX t_only ON t (tenant); CREATE SEQUENCE nos
    """)
    db.sql("VACUUM ANALYZE t")


def start(db: Database, set_clause: str = "n = n + 1", where: str | None = None, **options: Any) -> int:
    """Starts a job."""
    batch, sleep_ms = options.pop("batch", 100), options.pop("sleep_ms", 0)
    call = "SELECT backfill.start('t', %s, %s, %s, %s, NULL, %s)"
    return int(db.value(call, [batch, sleep_ms, set_clause, where, json.dumps(options)]))


@pytest.mark.parametrize("key", ["t_tenant", "t_down"])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("where", [None, "id % 5 < 2"])
def test_an_index_that_contains_a_key(db: Database, key: str, workers: int, where: str | None) -> None:
    """It orders the walk if it is named; each row is done once."""
    make(db)
    row = complete(db, start(db, where=where, key=key, workers=workers))
    assert row["key_columns"] == ["tenant", "id"]
    done = f"SELECT count(*) FROM t WHERE n = 1 AND {where or 'true'}"
    assert db.value(done) == row["rows_updated"] == db.value(f"SELECT count(*) FROM t WHERE {where or 'true'}")
    assert db.value("SELECT count(*) FROM t WHERE n > 1") == 0
    # Unasked, the key itself is taken.
    assert complete(db, start(db))["key_columns"] == ["id"]


def test_one_that_contains_none(db: Database) -> None:
    """Rows of one key would be in several batches, or be lost between two."""
    make(db)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="unique") as caught:
        start(db, key="t_only")
    assert caught.value.diag.message_hint
    db.sql("CREATE TABLE u (a int NOT NULL, b int NOT NULL, n int); CREATE INDEX u_i ON u (a, b)")
    db.sql("CREATE UNIQUE INDEX ON u (a) WHERE n > 0")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="unique"):
        db.sql("""SELECT backfill.start('u', set_clause => 'n = 1', options => '{"key": "u_i"}')""")


def test_the_key_goes_during_the_run(db: Database) -> None:
    """Nothing tells then that the index has each key once: the job fails until there is one again."""
    make(db)
    job = start(db, key="t_tenant", sleep_ms=60_000)
    wait_until(lambda: progress(db, job)["rows_done"], 30, "the first batch")
    db.sql("ALTER TABLE t DROP CONSTRAINT t_pkey")
    db.sql("SELECT backfill.alter(%s, sleep_ms => 0)", [job])
    assert "t_tenant" in fail(db, job)
    db.sql("CREATE UNIQUE INDEX ON t (id)")
    db.sql("SELECT backfill.resume(%s)", [job])
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY 1") == [(1, ROWS)]


@pytest.mark.parametrize("key", ["t_pkey", "t_tenant"])
@pytest.mark.parametrize("where", [None, "id % 5 < 2"])
def test_rows_are_numbered_in_the_order_of_the_key(db: Database, key: str, where: str | None) -> None:
    """By one nextval a row, without a gap, also with most rows left out."""
    make(db)
    complete(db, start(db, "no = nextval('nos')", where, key=key, ordered=True))
    columns = {"t_pkey": "id", "t_tenant": "tenant, id"}[key]
    numbered = f"SELECT no, row_number() OVER (ORDER BY {columns}) AS wanted FROM t WHERE {where or 'true'}"
    wrong = f"SELECT count(*) FROM ({numbered}) s WHERE no IS DISTINCT FROM wanted"
    assert db.value(wrong) == 0
    assert db.value(f"SELECT count(*) FROM t WHERE no IS NOT NULL AND NOT ({where or 'true'})") == 0


def test_a_copy_in_the_order_of_the_key(db: Database) -> None:
    """Rows get their numbers in the target."""
    make(db)
    db.sql("CREATE TABLE new (no bigint GENERATED ALWAYS AS IDENTITY, id int, tenant int)")
    job = db.value("""SELECT backfill.copy('t', 'new', 100, 0, 'id, tenant', 'id, tenant',
                                           options => '{"ordered": true, "key": "t_tenant"}')""")
    complete(db, job)
    numbered = "SELECT no, row_number() OVER (ORDER BY tenant, id) AS wanted FROM new"
    assert db.sql(f"SELECT count(*), count(*) FILTER (WHERE no = wanted) FROM ({numbered}) s") == [(ROWS, ROWS)]


@pytest.mark.parametrize(
    "other", [{"walk": "physical"}, {"strategy": "waves"}, {"workers": 2}, {"locked_rows": "skip"}], ids=str
)
def test_what_contradicts_it(db: Database, other: dict[str, Any]) -> None:
    """At the call, and later."""
    make(db)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="contradicts") as caught:
        start(db, ordered=True, **other)
    assert caught.value.diag.message_hint
    if "walk" not in other:
        job = start(db, ordered=True, sleep_ms=60_000)
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="contradicts"):
            db.sql("SELECT backfill.alter(%s, options => %s)", [job, json.dumps(other)])


def test_several_tables_have_no_common_order(db: Database) -> None:
    """They are walked one after another, or at once."""
    db.sql("CREATE TABLE t (id int PRIMARY KEY, n int) PARTITION BY HASH (id)")
    db.sql("CREATE TABLE t0 PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="several tables"):
        start(db, "n = 1", ordered=True)


def test_the_warning_names_the_option(db: Database) -> None:
    """And it is gone with it."""
    make(db)
    connection = db.connect()
    said: list[str] = []
    connection.add_notice_handler(lambda diag: said.append(f"{diag.severity}: {diag.message_hint}"))
    call = "SELECT backfill.start('t', set_clause => 'no = nextval(''nos'')', options => %s)"
    job = connection.execute(call, ["{}"]).fetchone()
    assert job is not None and any("ordered" in line for line in said if line.startswith("WARNING")), said
    complete(db, job[0])
    said.clear()
    connection.execute(call, ['{"ordered": true}'])
    assert not [line for line in said if line.startswith("WARNING")], said
