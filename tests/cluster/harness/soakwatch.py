"""What a server uses, seen from time to time: memory, files, locks, snapshots, room on disk."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness import process
from harness.cluster import Cluster
from harness.wait import wait_until

OURS = "SELECT pid, backend_type FROM pg_stat_activity WHERE backend_type LIKE 'backfill%'"
BETWEEN_BATCHES = (
    "SELECT pid, state_change FROM pg_stat_activity"
    " WHERE backend_type = 'backfill worker' AND state = 'idle'"
    " AND wait_event = 'Extension' AND backend_xmin IS NOT NULL"
)
SIZES = """
SELECT sum(pg_total_relation_size(c.oid))::bigint, (SELECT count(*) FROM backfill_internal.job)
FROM pg_class c WHERE c.relnamespace = 'backfill_internal'::regnamespace AND c.relkind = 'r'
"""
ORPHANS = """
SELECT f FROM pg_ls_dir(%s) f
WHERE f ~ '^[0-9]+' AND NOT EXISTS (
    SELECT FROM pg_class c WHERE pg_relation_filenode(c.oid) = substring(f FROM '^[0-9]+')::oid)
"""
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Sample:
    """At one moment: bytes of private memory, and numbers of open files."""

    seconds: float
    postmaster: int
    launcher: int
    worker: int
    """The largest one."""
    shared: int
    files: int
    """Of the process of ours that has most open."""
    tables: int
    """Bytes of the extension's own tables."""
    jobs: int


@dataclass
class Watch:
    """`look` takes a sample, `finish` looks at what is left when all jobs have ended."""

    cluster: Cluster
    problems: list[str]
    samples: list[Sample] = field(default_factory=list)
    lives: dict[int, list[int]] = field(default_factory=dict)
    """Of each process of ours its memory, sample by sample."""

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        self.postmaster = self.cluster.pid

    def look(self) -> None:
        """A sample; and whether a worker holds a snapshot between two batches."""
        cluster = self.cluster
        ours = cluster.sql(OURS)
        memory: dict[str, int] = {}
        files = 0
        for pid, kind in ours:
            # It may have ended.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):
                used = process.rss_anon(pid)
                self.lives.setdefault(pid, []).append(used)
                memory[kind] = max(memory.get(kind, 0), used)
                files = max(files, len([*Path(f"/proc/{pid}/fd").iterdir()]))
        shared = cluster.value("SELECT sum(allocated_size)::bigint FROM pg_shmem_allocations")
        tables, jobs = cluster.sql(SIZES)[0]
        sample = Sample(
            time.monotonic() - self.began,
            process.rss_anon(self.postmaster),
            memory.get("backfill launcher", 0),
            memory.get("backfill worker", 0),
            shared,
            files,
            tables,
            jobs,
        )
        self.samples.append(sample)
        self._snapshots()

    def _snapshots(self) -> None:
        """A worker that is seen twice in the same sleep, both times with a snapshot.

        That it is idle does not suffice: what it does between batches, as claiming a slice, takes a snapshot, too.
        """
        first = self.cluster.sql(BETWEEN_BATCHES)
        if first and (both := {*first} & {*self.cluster.sql(BETWEEN_BATCHES)}):
            self.problems.append(f"a snapshot is held between two batches: {both}")

    def finish(self) -> None:
        """When all jobs have ended: locks, slots, files."""
        cluster = self.cluster
        workers = "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'backfill worker'"
        wait_until(lambda: cluster.value(workers), 30, "the workers to end")
        self.look()
        locks = cluster.sql("SELECT objsubid, count(*) FROM pg_locks WHERE objsubid BETWEEN 7700 AND 7799 GROUP BY 1")
        if locks:
            self.problems.append(f"locks are left: {locks}")
        self._slots()
        self._files()
        self._judge()

    def _slots(self) -> None:
        """As many workers as the settings allow can run at once, still."""
        cluster = self.cluster
        slots = int(cluster.value("SHOW backfill.max_workers"))
        cluster.sql("CREATE TABLE all_slots (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)")
        cluster.sql("INSERT INTO all_slots SELECT generate_series(1, 100000)")
        cluster.sql("ANALYZE all_slots; UPDATE pg_class SET reltuples = 2e6 WHERE relname = 'all_slots'")
        job = cluster.value(
            "SELECT backfill.start('all_slots', 10, 1000, 'n = n + 1', options => %s)", [f'{{"workers": {slots}}}']
        )
        wait_until(lambda: len(cluster.worker_pids(job)) == slots, 60, f"{slots} workers at once")
        cluster.sql("SELECT backfill.cancel(%s, now => true)", [job])
        wait_until(lambda: not cluster.worker_pids(job), 30, "the workers to end")

    def _files(self) -> None:
        cluster = self.cluster
        cluster.sql("CHECKPOINT")
        temporary = [*(cluster.data / "base").glob("pgsql_tmp/*")]
        if temporary:
            self.problems.append(f"temporary files are left: {temporary}")
        oid = cluster.value("SELECT oid FROM pg_database WHERE datname = current_database()")
        if orphans := cluster.sql(ORPHANS, [f"base/{oid}"]):
            self.problems.append(f"files of no table are left: {orphans}")
        with cluster.connect() as connection:
            for (name,) in cluster.sql(
                "SELECT relname FROM pg_class WHERE relnamespace = 'backfill_internal'::regnamespace AND relkind = 'r'"
            ):
                connection.execute(f"VACUUM backfill_internal.{name}")
                connection.execute("SELECT pg_stat_force_next_flush()")
        dead = "SELECT coalesce(sum(n_dead_tup), 0) = 0 FROM pg_stat_all_tables WHERE schemaname = 'backfill_internal'"
        wait_until(lambda: cluster.value(dead), 30, "VACUUM to have removed all dead rows of the extension's tables")

    def _judge(self) -> None:
        """What has grown. The first minute is for caches that fill."""
        warm = [sample for sample in self.samples if sample.seconds > 60] or self.samples
        first, last = warm[0], warm[-1]
        if last.postmaster - first.postmaster > MEGABYTE:
            self.problems.append(f"the postmaster has grown from {first.postmaster} to {last.postmaster} bytes")
        if self.growth > 4 * MEGABYTE:
            self.problems.append(f"a process of ours has grown by {self.growth} bytes in its life")
        if {sample.shared for sample in warm} != {first.shared}:
            self.problems.append("shared memory is not what it was")
        quarter = len(warm) // 4 + 1
        early, late = (max(sample.files for sample in part) for part in (warm[:quarter], warm[-quarter:]))
        if late > 2 * early:
            self.problems.append(f"open files of one process: {early} at first, {late} at last")
        if last.tables > max(3 * first.tables, 8 * MEGABYTE):
            self.problems.append(f"the extension's tables have grown from {first.tables} to {last.tables} bytes")

    @property
    def growth(self) -> int:
        """Bytes by which that process of ours has grown that has grown most, from its fourth sample on.

        Before that its caches fill, with what it knows of tables and statements.
        """
        return max((max(seen[3:]) - seen[3] for seen in self.lives.values() if len(seen) > 3), default=0)

    @property
    def longest(self) -> list[int]:
        """Memory of the worker or launcher that was seen most often."""
        return max(self.lives.values(), key=len, default=[])
