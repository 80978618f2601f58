"""The statements of GitLab's batched background migrations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from bench.contenders.base import BATCH, Contender, Task

SUB_BATCH = 100


@dataclass(frozen=True)
class Gitlab(Contender):
    """Batches of 1,000 keys, in each of them sub-batches of 100; its pause of 100 ms is left out."""

    name: str = "gitlab"
    label: str = "GitLab's statements, no pauses"

    def fill(self, task: Task) -> None:
        """The outer walk."""
        work = task.dataset
        with task.connect() as connection:
            low = self._one(connection, f"SELECT min({work.key}) FROM {work.table}")
            while low is not None:
                edge = (
                    f"SELECT {work.key} FROM {work.table} WHERE {work.key} >= %(low)s"
                    f" ORDER BY {work.key} LIMIT 1 OFFSET %(offset)s"
                )
                high = self._one(connection, edge, low=low, offset=BATCH - 1)
                if high is None:
                    high = self._one(connection, f"SELECT max({work.key}) FROM {work.table}")
                self._batch(connection, task, low, high)
                after = f"SELECT min({work.key}) FROM {work.table} WHERE {work.key} > %(high)s"
                low = self._one(connection, after, high=high)

    def _batch(self, connection: psycopg.Connection, task: Task, low: Any, high: Any) -> None:
        """The inner walk: each sub-batch is a transaction."""
        work = task.dataset
        inside = f"{work.key} BETWEEN %(low)s AND %(high)s AND {work.key} >= %(start)s"
        edge = (
            f"SELECT {work.key} FROM {work.table} WHERE {inside} AND {work.where}"
            f" ORDER BY {work.key} LIMIT 1 OFFSET {SUB_BATCH}"
        )
        update = f"UPDATE {work.table} SET {work.set_clause} WHERE {inside} AND {work.where}"
        start = low
        while start is not None:
            bounds = {"low": low, "high": high, "start": start}
            stop = self._one(connection, edge, **bounds)
            if stop is None:
                connection.execute(update, bounds)
            else:
                connection.execute(f"{update} AND {work.key} < %(stop)s", bounds | {"stop": stop})
            start = stop

    @staticmethod
    def _one(connection: psycopg.Connection, query: str, **params: Any) -> Any:
        row = connection.execute(query, params).fetchone()
        return row and row[0]
