"""A job in the worst of weathers: clients that write the same rows, workers killed, the server restarted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import psycopg

from harness.cluster import DURABLE, Cluster
from harness.server import Server
from harness.wait import wait_until

# pgbench's own tpcb-like, as a script that the load can start again and again.
TPCB = """
\\set aid random(1, 100000 * :scale)
\\set bid random(1, 1 * :scale)
\\set tid random(1, 10 * :scale)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
"""
BALANCES = """
SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
       (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
"""


@dataclass
class Storm:
    """`run` makes the weather and lets the job end; what came of it is in the other fields."""

    scale: int = 2
    batch_size: int = 500
    clients: int = 4
    kills: int = 3
    restart_mode: str = "immediate"
    timeout: float = 90
    conf: dict[str, str] = field(default_factory=dict)

    counts: list[tuple[int, int]] = field(default_factory=list)
    balances: tuple[int, ...] = ()
    workers: int = 0
    transactions: int = 0
    load_starts: int = 0
    seconds: float = 0
    struck_at: list[int] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows of pgbench_accounts."""
        return self.scale * 100_000

    def run(self, server: Server) -> None:
        """A server of its own, with preload and fsync; nobody touches the job after its start."""
        with Cluster(server=server, conf=DURABLE | self.conf) as cluster:
            at = ["-h", cluster.folder, "-p", cluster.port, "-U", "postgres", "postgres"]
            cluster.run("pgbench", "-i", "-q", "-s", self.scale, *at)
            cluster.sql("CREATE EXTENSION backfill; ALTER TABLE pgbench_accounts ADD n int NOT NULL DEFAULT 0")
            with cluster.load(TPCB, clients=self.clients, options=["-s", str(self.scale)]) as load:
                history = "SELECT count(*) FROM pgbench_history"
                wait_until(lambda: cluster.value(history) > 100, 30, "pgbench to work")
                began = time.monotonic()
                job = cluster.value(
                    "SELECT backfill.start('pgbench_accounts', %s, 0, set_clause => 'n = n + 1')", [self.batch_size]
                )
                self._strike(cluster, job)
                wait_until(lambda: self._look(cluster, job)[0] == "completed", self.timeout, "the job to complete")
                self.seconds = time.monotonic() - began
                self.load_starts = load.starts
            self.counts = cluster.sql("SELECT n, count(*) FROM pgbench_accounts GROUP BY n ORDER BY n")
            self.balances = cluster.sql(BALANCES)[0]
            self.transactions = cluster.value(history)
            self.workers = cluster.value("SELECT count(*) FROM backfill.events WHERE event = 'worker started'")

    def _strike(self, cluster: Cluster, job: int) -> None:
        """kill -9 of the worker at even distances, and a restart of the server after the last one."""
        for n in range(1, self.kills + 2):
            due = self.rows * n // (self.kills + 2)
            wait_until(lambda due=due: self._passed(cluster, job, due), self.timeout, f"row {due}", every=0.005)
            self.struck_at.append(self._look(cluster, job)[1])
            if n <= self.kills:
                cluster.crash_worker(job)
            else:
                cluster.restart(self.restart_mode)

    def _passed(self, cluster: Cluster, job: int, rows: int) -> bool:
        state, done = self._look(cluster, job)
        assert state == "running", f"the job is {state} already: too few rows for this machine"
        return done >= rows

    @staticmethod
    def _look(cluster: Cluster, job: int) -> tuple[str, int]:
        """State and rows done; as if at the start while the server lets nobody in."""
        try:
            return cluster.sql("SELECT state, rows_done FROM backfill.progress WHERE job_id = %s", [job])[0]
        except psycopg.OperationalError:
            return ("running", 0)
