"""Four jobs at a time for as long as one likes, in the worst of company: is anything left, does anything grow?"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg

from harness import process
from harness.cluster import Cluster
from harness.server import Server
from harness.soakwatch import Sample, Watch
from harness.wait import wait_until

# What each job does: clauses, options, and what the rows are when it has done them.
KINDS: dict[str, tuple[str, str | None, dict[str, Any], str]] = {
    "waves": ("n = n + 1", None, {"walk": "key", "strategy": "waves"}, "1"),
    "physical": ("n = n + 1", "n = 0", {"walk": "physical"}, "1"),
    "parted": ("n = n + 1", None, {"workers": 2}, "1"),
    "sparse": (
        "n = n + 1 + 0 / (id % 1000)",
        "id % 10 = 0",
        {"max_failed_rows": 1000, "locked_rows": "skip"},
        "(id % 10 = 0 AND id % 1000 <> 0)::int",
    ),
}
TABLE = "(id int PRIMARY KEY, n int NOT NULL DEFAULT 0, w int NOT NULL DEFAULT 0, pad text NOT NULL)"
CLIENT = """
\\set id random(1, :rows)
\\set d random(1, 100)
BEGIN;
UPDATE waves SET w = w + :d WHERE id = :id;
UPDATE physical SET w = w + :d WHERE id = :id;
UPDATE parted SET w = w + :d WHERE id = :id;
UPDATE sparse SET w = w + :d WHERE id = :id;
END;
\\sleep 20 ms
"""
# What befalls a job, and how often in a hundred times.
EVENTS = {"pause": 35, "alter": 30, "terminate": 14, "cancel batch": 12, "cancel": 6, "kill -9": 3}


@dataclass
class SoakJobs:
    """`run` runs jobs and looks at the server; `problems` should be empty."""

    minutes: float = 60
    seed: int = 0
    rows: int = 100_000
    """Of each table. A worker is to live long enough for its memory to be looked at several times."""
    clients: int = 2
    problems: list[str] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    watch: Watch | None = None

    def run(self, server: Server) -> None:
        """A server of its own. One thread does all, so that no table is filled while the server crashes."""
        conf = {"shared_buffers": "128MB", "backfill.max_workers": 6, "backfill.launcher_interval": 2, "fsync": "on"}
        self.rng = random.Random(self.seed)
        with Cluster(server=server, conf=conf) as cluster:
            self.cluster = cluster
            self._make()
            self.watch = Watch(cluster, self.problems)
            with cluster.load(CLIENT, clients=self.clients, options=["-D", f"rows={self.rows}"]):
                self.jobs = {kind: self._start(kind) for kind in KINDS}
                self._loop()
                self._drain()
            # A client that was killed goes on to the end of its transaction.
            left = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'"
            wait_until(lambda: cluster.value(left), 30, "the clients' sessions to end")
            self.watch.finish()
            self.samples = self.watch.samples

    def _make(self) -> None:
        self.cluster.sql("CREATE EXTENSION backfill")
        for kind in KINDS:
            self.cluster.sql(f"CREATE TABLE {kind} {TABLE}" + (" PARTITION BY HASH (id)" if kind == "parted" else ""))
        for i in range(4):
            self.cluster.sql(f"CREATE TABLE parted_{i} PARTITION OF parted FOR VALUES WITH (MODULUS 4, REMAINDER {i})")

    def _start(self, kind: str) -> int:
        """Fills the table anew and starts the job of the kind."""
        set_clause, where, options, _ = KINDS[kind]
        self.cluster.sql(
            f"TRUNCATE {kind};"
            f" INSERT INTO {kind} SELECT g, 0, 0, repeat('x', g % 60) FROM generate_series(1, {self.rows}) g"
        )
        self.cluster.sql(f"ANALYZE {kind}")
        return self.cluster.value(
            "SELECT backfill.start(%s::regclass, %s, %s, %s, %s, options => %s)",
            [kind, self.rng.choice([50, 200]), self.rng.choice([20, 100, 300]), set_clause, where, json.dumps(options)],
        )

    def _loop(self) -> None:
        assert self.watch
        end = time.monotonic() + self.minutes * 60
        due = 0.0
        while time.monotonic() < end:
            if time.monotonic() > due:
                self.watch.look()
                due = time.monotonic() + 5
            for kind, job in self.jobs.items():
                if self._has_ended(kind, job):
                    self.jobs[kind] = self._start(kind)
            self._event()
            # How often something befalls a job; nothing is waited for here.
            time.sleep(0.5)

    def _has_ended(self, kind: str, job: int) -> bool:
        """Whether the job has ended; then what it did is looked at. A job that was paused goes on."""
        state, workers, error = self.cluster.sql(
            "SELECT state, workers, last_error FROM backfill.progress WHERE job_id = %s", [job]
        )[0]
        if state == "paused":
            self.cluster.sql("SELECT backfill.resume(%s)", [job])
        if state == "failed":
            self.problems.append(f"{kind}: job {job} has failed: {error}")
            self.cluster.sql("SELECT backfill.cancel(%s)", [job])
            return False
        if state not in ("completed", "cancelled") or workers:
            return False
        self.ended[f"{kind} {state}"] += 1
        self._verify(kind, job, state)
        # A few are kept, as a DBA would.
        self.cluster.sql(
            "SELECT backfill.forget(job_id) FROM (SELECT job_id FROM backfill.progress"
            " WHERE state IN ('completed', 'cancelled') AND NOT job_id = ANY (%s)"
            " ORDER BY job_id DESC OFFSET 10) old",
            # Those may have ended just now, and have not been looked at.
            [[*self.jobs.values()]],
        )
        return True

    def _verify(self, kind: str, job: int, state: str) -> None:
        """Each row once, or where the job was cancelled at most once."""
        wanted = KINDS[kind][3]
        wrong = f"n <> {wanted}" if state == "completed" else f"n NOT IN (0, {wanted})"
        rows = self.cluster.sql(f"SELECT n, count(*), min(id) FROM {kind} WHERE {wrong} GROUP BY n")
        if rows:
            self.problems.append(f"{kind}: job {job} is {state}, and wrong are (n, rows, first id) {rows}")
        if kind == "sparse" and state == "completed":
            failed = self.cluster.value("SELECT count(*) FROM backfill.failed_rows WHERE job_id = %s", [job])
            if failed != self.rows // 1000:
                self.problems.append(f"sparse: job {job} names {failed} failed rows, not {self.rows // 1000}")

    def _event(self) -> None:
        """Something befalls one of the jobs."""
        event = self.rng.choices([*EVENTS], [*EVENTS.values()])[0]
        kind = self.rng.choice([*self.jobs])
        job = self.jobs[kind]
        try:
            if self._happen(event, job):
                self.events[event] += 1
        except psycopg.errors.ObjectNotInPrerequisiteState:
            # It has ended meanwhile.
            pass

    def _happen(self, event: str, job: int) -> bool:
        sql = self.cluster.sql
        if event == "pause":
            sql("SELECT backfill.pause(%s)", [job])
        elif event == "alter":
            pace = [job, self.rng.choice([20, 100, 500]), self.rng.choice([0, 20, 100, 300])]
            sql("SELECT backfill.alter(%s, %s, %s)", pace)
        elif event == "cancel":
            sql("SELECT backfill.cancel(%s, now => %s)", [job, self.rng.random() < 0.7])
        else:
            pids = self.cluster.worker_pids(job)
            if not pids:
                return False
            if event == "kill -9":
                return self.cluster.kill_backend(pids[0])
            process.send(pids[0], signal.SIGTERM if event == "terminate" else signal.SIGINT)
        return True

    def _drain(self) -> None:
        """Lets what runs come to its end, without events and without pauses."""
        for job in self.jobs.values():
            try:
                self.cluster.sql("SELECT backfill.alter(%s, 1000, 0)", [job])
            except psycopg.errors.ObjectNotInPrerequisiteState:
                continue
        for kind, job in self.jobs.items():
            wait_until(
                lambda kind=kind, job=job: self._has_ended(kind, job), 120, f"job {job} on {kind} to end", every=0.1
            )
