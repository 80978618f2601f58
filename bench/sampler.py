"""Looks at the sessions that work, often, from outside of them."""

from __future__ import annotations

import threading
import time

import psycopg
from harness import Cluster

from bench import processes
from bench.contenders.base import APPLICATION

EVERY = 0.05
# Reading /proc is dearer, and memory moves slowly.
MEMORY_EVERY = 4
# Asks the function below pg_stat_activity, which would join names that nobody wants.
LOOK = f"""
SELECT pid, coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8 FROM pg_stat_get_activity(NULL)
WHERE datid = %s AND (application_name = '{APPLICATION}' OR backend_type = 'backfill worker')
"""


class Sampler:
    """As a context manager: samples until its end; `longest` and `memory` are the maxima."""

    def __init__(self, cluster: Cluster, database: int) -> None:
        # In another database, so that it counts in none of the figures of this one.
        self.connection = psycopg.connect(cluster.dsn(), autocommit=True, application_name="sampler")
        self.pid = self.connection.info.backend_pid
        self.database = database
        self.longest = 0.0
        self.memory = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.connection.close()

    def _run(self) -> None:
        rounds = 0
        seen: set[int] = set()
        while not self._done.is_set():
            began = time.monotonic()
            rows = self.connection.execute(LOOK, [self.database]).fetchall()
            self.longest = max([self.longest, *(seconds for _, seconds in rows)])
            for pid, _ in rows:
                if rounds % MEMORY_EVERY == 0 or pid not in seen:
                    self.memory = max(self.memory, processes.memory(pid))
                    seen.add(pid)
            rounds += 1
            self._done.wait(max(0.0, EVERY - (time.monotonic() - began)))
