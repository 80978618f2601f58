"""Measures one run: what the server says and what /proc says, before and after."""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness import Database, wait_until

from bench import processes
from bench.contenders.base import APPLICATION, Contender, Task
from bench.figures import Figures
from bench.foreground import Load
from bench.sampler import Sampler
from bench.waiter import Waiter

SIZES = """
WITH parts AS (SELECT %(table)s::regclass AS oid UNION SELECT relid FROM pg_partition_tree(%(table)s::regclass))
SELECT sum(pg_table_size(oid) - toast.bytes), sum(pg_indexes_size(oid)), sum(toast.bytes),
       sum(pg_stat_get_tuples_updated(oid)), sum(pg_stat_get_tuples_hot_updated(oid))
FROM parts JOIN pg_class USING (oid),
     LATERAL (SELECT CASE reltoastrelid WHEN 0 THEN 0 ELSE pg_total_relation_size(reltoastrelid) END) AS toast (bytes)
"""
WAL = """
SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, wal_records, wal_fpi, pg_snapshot_xmax(pg_current_snapshot())::text
FROM pg_stat_wal
"""
READ = "SELECT blks_read FROM pg_stat_database WHERE datname = current_database()"
# The first major of each way to count the pages written by all processes together.
WRITTEN = {
    15: "SELECT buffers_checkpoint + buffers_clean + buffers_backend FROM pg_stat_bgwriter",
    16: "SELECT sum(writes) FROM pg_stat_io WHERE object = 'relation'",
    18: "SELECT sum(write_bytes) / 8192 FROM pg_stat_io WHERE object = 'relation'",
}
# Likewise for the checkpoints that were asked for.
CHECKPOINTS = {
    15: "SELECT checkpoints_req FROM pg_stat_bgwriter",
    17: "SELECT num_requested FROM pg_stat_checkpointer",
}
STILL_THERE = f"""
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND (application_name = '{APPLICATION}' OR backend_type = 'backfill worker')
"""


@dataclass
class _Counters:
    """What only ever grows, and the sizes."""

    wal: int
    records: int
    images: int
    xid: int
    heap: int
    indexes: int
    toast: int
    updated: int
    hot: int
    read: int


def measure(contender: Contender, task: Task, load: Load | None = None, waiter: Waiter | None = None) -> Figures:
    """Runs the contender, and returns what it took, and what whoever used the table meanwhile saw of it."""
    db = task.db
    postmaster = db.cluster.pid
    oid = db.value("SELECT oid FROM pg_database WHERE datname = current_database()")
    written = _of_major(WRITTEN, db)
    with Sampler(db.cluster, oid) as sampler:
        pages = int(db.value(written))
        before = _read(db, task.dataset.table)
        cpu = processes.cpu_seconds(postmaster, sampler.pid)
        client_cpu, due, began = time.thread_time(), time.time(), time.monotonic()
        contender.fill(task)
        seconds, client_cpu = time.monotonic() - began, time.thread_time() - client_cpu
        # Processes report their last figures when they end.
        wait_until(lambda: db.value(STILL_THERE) == 0, 60, "the sessions that worked to end")
        cpu = processes.cpu_seconds(postmaster, sampler.pid) - cpu
    waits = waiter.waits() if waiter else None
    after = _read(db, task.dataset.table)
    latency = load.finish(due, due + seconds) if load else None
    checkpoint(db)
    return Figures(
        rows=task.dataset.rows,
        seconds=seconds,
        wal=after.wal - before.wal,
        wal_records=after.records - before.records,
        full_page_images=after.images - before.images,
        heap_before=before.heap,
        heap_after=after.heap,
        indexes_before=before.indexes,
        indexes_after=after.indexes,
        toast_before=before.toast,
        toast_after=after.toast,
        updated=after.updated - before.updated,
        hot=after.hot - before.hot,
        commits=after.xid - before.xid,
        longest=min(sampler.longest, seconds),
        memory=sampler.memory,
        cpu=cpu,
        client_cpu=client_cpu,
        pages_read=after.read - before.read,
        pages_written=int(db.value(written)) - pages,
        latency=latency,
        waits=waits,
        said=sorted(task.said),
    )


def checkpoint(db: Database) -> None:
    """A checkpoint, and its figures are in the statistics: they come a moment later."""
    count = _of_major(CHECKPOINTS, db)
    before = db.value(count)
    db.sql("CHECKPOINT")
    wait_until(lambda: db.value(count) > before, 60, "the checkpoint to be counted")


def _of_major(queries: dict[int, str], db: Database) -> str:
    return queries[max(major for major in queries if major <= db.cluster.server.major)]


def _read(db: Database, table: str) -> _Counters:
    wal, records, images, xid = db.sql(WAL)[0]
    heap, indexes, toast, updated, hot = db.sql(SIZES, {"table": table})[0]
    read = db.value(READ)
    return _Counters(*map(int, (wal, records, images, xid, heap, indexes, toast, updated, hot, read)))
