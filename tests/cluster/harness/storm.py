"""A job in the worst of weathers: clients that write the same table, workers killed at random moments, a restart."""

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
from harness.cluster import DURABLE, Cluster
from harness.server import Server
from harness.wait import wait_until

# What a run does: its clause and options, and whether the table is partitioned.
KINDS: dict[str, tuple[str | None, dict[str, Any], bool]] = {
    "key": (None, {"walk": "key", "strategy": "waves"}, False),
    "physical": ("n = 0", {"walk": "physical", "strategy": "waves"}, False),
    "key-partitioned": (None, {"walk": "key", "strategy": "waves"}, True),
    "physical-partitioned": ("n = 0", {"walk": "physical", "strategy": "waves"}, True),
    "delete": ("t.id % 10 < 7", {"walk": "key", "archive_into": "gone"}, False),
    "delete-physical": ("t.id % 10 < 7", {"walk": "physical", "archive_into": "gone"}, False),
    "delete-partitioned": ("t.id % 10 < 7", {"archive_into": "gone"}, True),
    "copy": (None, {}, False),
    "copy-partitioned": (None, {}, True),
    "execute": (None, {}, False),
    "execute-partitioned": (None, {}, True),
}
# Whom `kill -9` hits, in twentieths of the kills; the rest hit a worker somewhere in its work.
TARGETS = {"worker that takes over": 4, "checkpointer": 2, "backfill launcher": 2}

TABLE = """
CREATE TABLE t (
    id bigint PRIMARY KEY, w int NOT NULL DEFAULT 0, p int NOT NULL, pad text NOT NULL, n int NOT NULL DEFAULT 0
) {partitioned}
"""
FILL = """
CREATE INDEX t_w ON t (w);
CREATE INDEX t_p ON t (p, id);
CREATE SEQUENCE ids START {next};
CREATE TABLE ledger (w int NOT NULL);
CREATE TABLE gone (id bigint, w int, p int, pad text, n int);
CREATE TABLE deleted (id bigint);
INSERT INTO t SELECT g, 0, g % 100, repeat('x', (g % 50)::int) FROM generate_series(1, {rows}) g
"""
# Each transaction moves w between a row of the table and the ledger, so that the sums tell whether one was lost.
CLIENT = """
\\set id random(1, :rows)
\\set what random(1, 20)
\\set d random(1, 100)
BEGIN;
\\if :what <= 9
WITH there AS (UPDATE t SET w = w + :d WHERE id = :id RETURNING id) INSERT INTO ledger SELECT :d FROM there;
\\elif :what <= 12
UPDATE t SET pad = pad || 'longer', p = :d WHERE id = :id;
\\elif :what <= 17
INSERT INTO t (id, w, p, pad) VALUES (nextval('ids'), :d, :d, 'new');
INSERT INTO ledger VALUES (:d);
\\else
WITH away AS (DELETE FROM t WHERE id = :id RETURNING id, w), noted AS (INSERT INTO deleted SELECT id FROM away)
INSERT INTO ledger SELECT -w FROM away;
\\endif
END;
"""
# Rows that are not where they should be after a job that deletes. Each id was there once.
WRONG = """
WITH places AS (
    SELECT id, 't' AS place FROM t UNION ALL SELECT id, 'gone' FROM gone UNION ALL SELECT id, 'deleted' FROM deleted
), counted AS (
    SELECT g AS id, count(p.place) AS places
    FROM generate_series(1, %(last)s) g LEFT JOIN places p ON p.id = g GROUP BY g
)
SELECT 'in two places', count(*) FROM counted WHERE places > 1
UNION ALL SELECT 'lost', count(*) FROM counted c WHERE places = 0 AND id <= %(rows)s
UNION ALL SELECT 'left', count(*) FROM t WHERE id %% 10 < 7 AND id <= %(rows)s
UNION ALL SELECT 'deleted by mistake', count(*) FROM gone WHERE id %% 10 >= 7
"""
# Of a job that copies rows, those that are there more than once, not at all, or for no row. Clients delete some
# before it, and some after.
WRONG_COPIES = """
SELECT 'twice', count(*) FROM (SELECT id FROM gone GROUP BY id HAVING count(*) > 1) s
UNION ALL SELECT 'lost', count(*) FROM t WHERE id <= %(rows)s AND NOT EXISTS (SELECT FROM gone WHERE gone.id = t.id)
UNION ALL SELECT 'of no row', count(*) FROM gone g WHERE NOT EXISTS (SELECT FROM t WHERE t.id = g.id)
                                                   AND NOT EXISTS (SELECT FROM deleted d WHERE d.id = g.id)
"""


@dataclass
class Storm:
    """`run` makes the weather and lets the job end; what came of it is in the other fields."""

    kind: str = "key"
    rows: int = 60_000
    batch_size: int = 200
    workers: int = 4
    slices: int = 8
    """What the statistics are made to say, for one table: a small one would be a single worker's."""
    clients: int = 4
    kills: int = 4
    """How many processes get `kill -9`, of the kinds in `TARGETS`."""
    restarts: int = 1
    restart_mode: str = "immediate"
    seed: int = 0
    timeout: float = 90
    conf: dict[str, str] = field(default_factory=dict)

    counts: list[tuple[bool, int, int]] = field(default_factory=list)
    """Of rows that were there at the start, and of later ones: n, and how many have it."""
    sums: tuple[int, int] = (0, 0)
    workers_started: int = 0
    load_starts: int = 0
    client_rows: tuple[int, int] = (0, 0)
    """Rows that clients have deleted, and inserted."""
    seconds: float = 0
    struck_at: list[int] = field(default_factory=list)
    blows: Counter[str] = field(default_factory=Counter)
    """How many there were of each kind."""
    wrong: list[tuple[str, int]] = field(default_factory=list)
    """Of a job that deletes: what is not as it should be, and how many rows."""
    note: str | None = None
    messages: list[str] = field(default_factory=list)

    @property
    def once(self) -> bool:
        """Whether each row that was there at the start has been updated once, and no other one twice.

        Where rows are deleted: whether each is in one place, and the right one.
        """
        if self.deletes or self.keeps:
            return not self.wrong
        return all(n == 1 if early else n in (0, 1) for early, n, _ in self.counts)

    @property
    def deletes(self) -> bool:
        """Whether the job deletes rows."""
        return self.kind.startswith("delete")

    @property
    def keeps(self) -> bool:
        """Whether the job leaves its rows as they are, and fills another table."""
        return self.kind.startswith(("copy", "execute"))

    def run(self, server: Server) -> None:
        """A server of its own, with preload and fsync; nobody touches the job after its start."""
        with Cluster(server=server, conf=DURABLE | {"backfill.max_workers": self.workers} | self.conf) as cluster:
            self._make(cluster)
            options = ["-D", f"rows={self.rows}"]
            with cluster.load(CLIENT, clients=self.clients, options=options) as load:
                ledger = "SELECT count(*) FROM ledger"
                wait_until(lambda: cluster.value(ledger) > 100, 30, "the clients to work")
                began = time.monotonic()
                # What was there at the start: the walk's first transaction comes later, and sees at least as much.
                last = cluster.value("SELECT max(id) FROM t")
                job = self._start(cluster)
                self._strike(cluster, job)
                wait_until(lambda: self._look(cluster, job)[0] == "completed", self.timeout, "the job to complete")
                self.seconds = time.monotonic() - began
                self.load_starts, self.messages = load.starts, load.messages
            self._sum_up(cluster, job, last)

    def _make(self, cluster: Cluster) -> None:
        partitioned = KINDS[self.kind][2]
        cluster.sql("CREATE EXTENSION backfill")
        cluster.sql(TABLE.format(partitioned="PARTITION BY HASH (id)" if partitioned else ""))
        if partitioned:
            for i in range(8):
                cluster.sql(f"CREATE TABLE t{i} PARTITION OF t FOR VALUES WITH (MODULUS 8, REMAINDER {i})")
        cluster.sql(FILL.format(rows=self.rows, next=self.rows + 1))
        cluster.sql("VACUUM ANALYZE t")
        if self.slices and not partitioned:
            share = 65_000.0 * self.slices / self.rows
            cluster.sql("UPDATE pg_class SET reltuples = reltuples * %s WHERE oid = 't'::regclass", [share])

    def _start(self, cluster: Cluster) -> int:
        where, options, _ = KINDS[self.kind]
        options = options | {"workers": self.workers}
        if self.deletes:
            return cluster.value(
                "SELECT backfill.delete('t', %s, 0, where_clause => %s, options => %s)",
                [self.batch_size, where, json.dumps(options)],
            )
        if self.keeps:
            calls = {
                "copy": "SELECT backfill.copy('t', 'gone', %s, 0, options => %s)",
                "execute": "SELECT backfill.execute('t', 'INSERT INTO gone TABLE batch', %s, 0, options => %s)",
            }
            return cluster.value(calls[self.kind.split("-")[0]], [self.batch_size, json.dumps(options)])
        return cluster.value(
            "SELECT backfill.start('t', %s, 0, set_clause => 'n = n + 1', where_clause => %s, options => %s)",
            [self.batch_size, where, json.dumps(options)],
        )

    def _strike(self, cluster: Cluster, job: int) -> None:
        """The blows in random order, at random numbers of rows. There is always a restart among the last of them."""
        rng = random.Random(self.seed)
        blows = self._blows(rng)
        moments = sorted(rng.sample(range(self.rows * 9 // 10), len(blows)))
        for due, blow in zip(moments, blows, strict=True):
            # One that comes on the heels of the last one waits for no row.
            if blow != "worker that takes over":
                wait_until(lambda due=due: self._passed(cluster, job, due), self.timeout, f"row {due}", every=0.005)
            self.struck_at.append(self._look(cluster, job)[1])
            self._blow(cluster, job, rng, blow)
            self.blows[blow] += 1

    def _blows(self, rng: random.Random) -> list[str]:
        """What happens, in order: shuffled, with a restart at the end."""
        special = [target for target, share in TARGETS.items() for _ in range(share * self.kills // 20)]
        # Every third restart comes while the server still recovers from a kill.
        restarts = ["restart in recovery" if n % 3 == 2 else "restart" for n in range(self.restarts)]
        blows = [*special, *["worker"] * (self.kills - len(special)), *restarts[1:]]
        rng.shuffle(blows)
        return blows + restarts[:1]

    def _blow(self, cluster: Cluster, job: int, rng: random.Random, blow: str) -> None:
        if blow == "restart":
            cluster.restart(self.restart_mode)
            return
        if blow == "restart in recovery":
            # Nobody waits for the end of the recovery here.
            pid = wait_until(lambda: cluster.worker_pids(job), 60, "a worker to kill")[0]
            process.send(pid, signal.SIGKILL)
            cluster.restart("immediate")
            return
        query = "SELECT pid FROM pg_stat_activity WHERE backend_type = %s"

        def pids() -> list[int]:
            if blow.startswith("worker"):
                return cluster.worker_pids(job)
            return [pid for (pid,) in cluster.sql(query, [blow])]

        def kill() -> bool:
            there = pids()
            return bool(there) and cluster.kill_backend(rng.choice(there))

        wait_until(kill, 60, f"a {blow} to kill", every=0.005)

    def _passed(self, cluster: Cluster, job: int, rows: int) -> bool:
        state, done = self._look(cluster, job)
        assert state == "running", f"the job is {state} already: too few rows for this machine"
        return done >= rows

    @staticmethod
    def _look(cluster: Cluster, job: int) -> tuple[str, int]:
        """State and rows done; as if at the start while the server lets nobody in."""
        try:
            state, done, error = cluster.sql(
                "SELECT state, rows_done, last_error FROM backfill.progress WHERE job_id = %s", [job]
            )[0]
        except psycopg.OperationalError:
            return ("running", 0)
        assert state != "failed", error
        return (state, done)

    def _sum_up(self, cluster: Cluster, job: int, last: int) -> None:
        # A client that was killed may have left a transaction that goes on to its end.
        left = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'"
        wait_until(lambda: cluster.value(left), 30, "the clients' sessions to end")
        rows = "SELECT id, n FROM t" + ("" if self.keeps else " UNION ALL SELECT id, n FROM gone")
        self.counts = cluster.sql(
            f"SELECT id <= %s, n, count(*) FROM ({rows}) s GROUP BY 1, 2 ORDER BY 1 DESC, 2", [last]
        )
        # Rows that the job has deleted took their w along.
        all_w = "SELECT w FROM t" if self.keeps else "SELECT w FROM t UNION ALL SELECT w FROM gone"
        self.sums = cluster.sql(f"SELECT (SELECT sum(w) FROM ({all_w}) s), (SELECT sum(w) FROM ledger)")[0]
        if self.keeps:
            self.wrong = [pair for pair in cluster.sql(WRONG_COPIES, {"rows": self.rows}) if pair[1]]
        if self.deletes:
            self.wrong = [pair for pair in cluster.sql(WRONG, {"last": last, "rows": self.rows}) if pair[1]]
        there = """
            SELECT (SELECT count(*) FROM deleted WHERE id <= %s),
                   count(*) FILTER (WHERE id > %s) + (SELECT count(*) FROM gone WHERE id > %s AND %s) FROM t
        """
        self.client_rows = cluster.sql(there, [*[self.rows] * 3, not self.keeps])[0]
        self.workers_started = cluster.value("SELECT count(*) FROM backfill.events WHERE event = 'worker started'")
        self.note = cluster.value("SELECT note FROM backfill.progress WHERE job_id = %s", [job])
