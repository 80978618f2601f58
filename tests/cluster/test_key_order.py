"""A walk stops when the order of its key is no longer the one that it was begun in."""

from __future__ import annotations

import pytest
from harness import Database, wait_until
from harness.jobs import complete, fail, progress, start, wait_for
from harness.tables import need

# Sorted by what each begins with, which is no matter of course in any two collations.
WORDS = "(ARRAY['a', 'A', 'Ä', 'ä', 'z', 'Z', '-', '_', '{', 'ß', 'é', 'o'])[1 + g % 12] || md5(g::text)"


REORDERINGS = {
    "index of another collation": """DROP INDEX t_k; CREATE UNIQUE INDEX t_k ON t (k COLLATE "sv-x-icu")""",
    "index of another collation beside": """CREATE UNIQUE INDEX t_later ON t (k COLLATE "sv-x-icu"); DROP INDEX t_k""",
    "column of another collation": """ALTER TABLE t ALTER k TYPE text COLLATE "sv-x-icu" """,
    "column of another type": "ALTER TABLE t ALTER k TYPE bytea USING convert_to(reverse(k), 'UTF8')",
}


@pytest.mark.parametrize("change", REORDERINGS)
def test_another_order_of_the_key_stops_the_walk(db: Database, change: str) -> None:
    """A walk that went on in another order would skip rows: it says so, and goes on when the order is back."""
    need(db, "icu")
    db.sql(f"""
        CREATE TABLE t (id int, k text COLLATE "de-x-icu" NOT NULL, n int DEFAULT 0);
        INSERT INTO t SELECT g, {WORDS} FROM generate_series(1, 4000) g;
        CREATE UNIQUE INDEX t_k ON t (k)
    """)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=60_000)
    wait_until(lambda: progress(db, job)["rows_done"], 30, "the first batch")
    db.sql(REORDERINGS[change])
    db.sql(f"SELECT backfill.alter({job}, 777, 0)")
    assert "HINT" in fail(db, job)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n HAVING n = 1") == [(1, 100)]


def test_another_version_of_the_collation_stops_the_walk(db: Database) -> None:
    """As after an upgrade of the system's libraries."""
    need(db, "icu")
    db.sql("""
        CREATE TABLE t (k text COLLATE "de-x-icu" PRIMARY KEY, n int DEFAULT 0);
        INSERT INTO t SELECT md5(g::text) FROM generate_series(1, 2000) g
    """)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=60_000)
    wait_until(lambda: progress(db, job)["rows_done"], 30, "the first batch")
    db.sql(f"SELECT backfill.pause({job})")
    wait_for(db, job, "paused")
    before = db.value("SELECT key_order FROM backfill_internal.slice")
    assert before[0]
    db.sql("UPDATE backfill_internal.slice SET key_order = '{pg_catalog.text_ops 1.2.3}'")
    db.sql(f"SELECT backfill.alter({job}, 777, 0); SELECT backfill.resume({job})")
    error = fail(db, job)
    assert "1.2.3 before" in error and "REINDEX" in error
    db.sql("UPDATE backfill_internal.slice SET key_order = %s", [before])
    db.sql(f"SELECT backfill.resume({job})")
    complete(db, job)
    assert db.sql("SELECT n, count(*) FROM t GROUP BY n") == [(1, 2000)]
