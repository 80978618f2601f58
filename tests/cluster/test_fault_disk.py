"""A disk that is full: of the table, of the whole database, of the WAL. The job waits, says so, and goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import psycopg
import pytest
from harness import DURABLE, Cluster, wait_until
from harness.disk import SmallDisk
from harness.jobs import complete, start, wait_for_rows
from harness.tables import counts

New = Callable[..., Cluster]
ROWS = 20_000
MEGABYTE = 1024 * 1024
WIDE = f"""
    CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, filler text) WITH (autovacuum_enabled = off);
    INSERT INTO t SELECT g, 0, repeat('x', 200) FROM generate_series(1, {ROWS}) g;
    ANALYZE t
"""


# Before `new_cluster`: the server has to be gone when the disk goes.
@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """One of 64 MB."""
    made = SmallDisk(64)
    yield made
    made.unmount()


@pytest.mark.parametrize("what", ["table", "database"])
def test_a_full_disk(disk: SmallDisk, new_cluster: New, what: str) -> None:
    """With the tables of the extension on it, too, the view can't tell for sure, but the log does."""
    cluster = new_cluster()
    cluster.sql(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
    where = "TABLESPACE small" if what == "database" else ""
    cluster.sql(f"CREATE DATABASE app {where}")
    db = cluster.database("app")
    db.sql("SET default_tablespace = small; CREATE EXTENSION backfill;" + WIDE)
    # A new connection may need room, too.
    with db.connect() as mine:
        disk.fill(leave=2 * MEGABYTE)
        begun = "SELECT backfill.start('t', 500, 0, 'n = n + 1', options => '{\"strategy\": \"sequential\"}')"
        [job] = mine.execute(begun).fetchone()
        view = "SELECT state, waiting_for FROM backfill.progress WHERE job_id = %s"

        def told() -> bool:
            state, waiting_for = mine.execute(view, [job]).fetchone()
            assert state == "running"
            return "disk full (SQLSTATE 53100)" in (waiting_for or "")

        if what == "table":
            wait_until(told, 30, "the view to tell")
        tries = "owner postgres): try"
        wait_until(lambda: tries in cluster.log_tail(500), 30, "the log to tell")
        assert "No space left on device" in cluster.log_tail(500)
        done = dict(mine.execute("SELECT n, count(*) FROM t GROUP BY n").fetchall())
        assert 0 < done.pop(1) < ROWS and done.keys() == {0}
    disk.make_room()
    row = complete(db, job)
    assert row["rows_updated"] == ROWS
    assert counts(db) == [(1, ROWS)]


def test_a_full_disk_of_the_wal(disk: SmallDisk, new_cluster: New) -> None:
    """The server stops with a PANIC, as it does for whoever writes; with room and a start the job goes on."""
    # Nothing of the WAL is used again before it is full.
    conf = DURABLE | {"max_wal_size": "4GB", "checkpoint_timeout": "1h"}
    cluster = new_cluster(conf=conf)
    cluster.sql("CREATE EXTENSION backfill;" + WIDE)
    cluster.stop()
    wal = cluster.data / "pg_wal"
    shutil.copytree(wal, disk.folder / "pg_wal", copy_function=shutil.copy)
    for path in [disk.folder / "pg_wal", *(disk.folder / "pg_wal").rglob("*")]:
        if cluster.os_user:
            shutil.chown(path, cluster.os_user)
    (disk.folder / "pg_wal").chmod(0o700)
    wal.rename(cluster.data / "pg_wal.before")
    wal.symlink_to(disk.folder / "pg_wal")
    cluster.start()
    disk.fill(leave=0)
    job = start(cluster, "t", "n = n + 1", batch=100, sleep_ms=5, options={"strategy": "sequential"})
    wait_for_rows(cluster, job, 500)
    # Somebody else's work takes what is left of the segment.
    with pytest.raises(psycopg.OperationalError), cluster.connect() as other:
        for _ in range(100):
            other.execute("CREATE TABLE junk AS SELECT repeat(g::text, 100) FROM generate_series(1, 10000) g")
            other.execute("DROP TABLE junk")
    wait_until(lambda: not cluster.running, 60, "the server to give up")
    log = cluster.log.read_text(errors="replace")
    assert "PANIC" in log and "No space left on device" in log
    disk.make_room()
    cluster.start()
    complete(cluster, job)
    assert counts(cluster) == [(1, ROWS)]
