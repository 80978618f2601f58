"""DDL waits for the batches in progress, and for no more: not for the job, and not behind its other workers."""

from __future__ import annotations

import psycopg
import pytest
from harness import Database
from harness.jobs import complete, progress, start
from harness.walks import SLICES

ROWS, BATCH = 240, 10
TABLES = {
    "table": "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, w int DEFAULT 7)"
    " WITH (autovacuum_enabled = off, fillfactor = 10)",
    "partitioned": """
        CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, w int DEFAULT 7) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (80);
        CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (80) TO (160);
        CREATE TABLE t3 PARTITION OF t FOR VALUES FROM (160) TO (240)
    """,
}
# Each row takes 50 ms: a batch takes half a second, and all of them 12 seconds.
SLOW = """
    INSERT INTO t (id) SELECT generate_series(0, 239);
    ANALYZE t;
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION slow();
"""
CHANGES = [
    "ALTER TABLE t ADD extra int DEFAULT 3",
    "ALTER TABLE t ALTER w TYPE bigint",
    "LOCK TABLE t",
    "ALTER TABLE t DROP extra",
]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", TABLES)
def test_ddl_waits_for_a_batch_at_most(db: Database, kind: str, workers: int) -> None:
    """What the workers have done between the request and the grant is the batch that each was in, or had just ended."""
    db.sql(f"{TABLES[kind]}; {SLOW}")
    if kind == "table" and workers > 1:
        db.sql(SLICES.format(name="t"))
    options = {"workers": workers, "strategy": "sequential", "lock_timeout_ms": 500}
    job = start(db, "t", "n = n + 1", batch=BATCH, where="w > 0", options=options)
    done = "SELECT count(*) FROM t WHERE n = 1"
    with psycopg.connect(db.dsn(), autocommit=True) as application:
        for ddl in CHANGES:
            with application.transaction():
                before = application.execute(done).fetchone()[0]
                application.execute("SET LOCAL statement_timeout = '30s'")
                application.execute(ddl)
                after = application.execute(done).fetchone()[0]
                assert after - before <= 2 * workers * BATCH, f"{ddl} waited for {after - before} rows"
            assert progress(db, job)["state"] == "running"
    assert 0 < after < ROWS, f"the job was to be in the middle of its rows, not at {after}"
    db.sql("ALTER TABLE t DISABLE TRIGGER slow")
    row = complete(db, job)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, ROWS)]
    assert row["rows_updated"] == ROWS
