"""What Rails' in_batches does below maintenance_tasks."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from bench.contenders.base import BATCH, Contender, Task


@dataclass(frozen=True)
class MaintenanceTasks(Contender):
    """The keys of a batch come to the client, and go back as a list."""

    name: str = "maintenance-tasks"
    label: str = "maintenance_tasks' statements"

    def fill(self, task: Task) -> None:
        """Two statements a batch."""
        work = task.dataset
        select = (
            f"SELECT {work.key} FROM {work.table} WHERE {work.where} AND {work.key} > %(last)s"
            f" ORDER BY {work.key} LIMIT {BATCH}"
        )
        update = sql.SQL(f"UPDATE {work.table} SET {work.set_clause} WHERE {work.where} AND {work.key} IN ({{}})")
        first = select.replace(f"AND {work.key} > %(last)s", "")
        with task.connect() as connection:
            keys = [key for (key,) in connection.execute(first)]
            while keys:
                connection.execute(update.format(sql.SQL(", ").join(keys)))
                keys = [key for (key,) in connection.execute(select, {"last": keys[-1]})]
