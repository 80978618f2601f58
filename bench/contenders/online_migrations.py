"""The statements of the gem online_migrations, in line."""

from __future__ import annotations

from dataclasses import dataclass

from bench.contenders.base import BATCH, Contender, Task


@dataclass(frozen=True)
class OnlineMigrations(Contender):
    """Ranges of 1,000 keys that match; its pause of 50 ms a batch is left out."""

    name: str = "online-migrations"
    label: str = "online_migrations' statements, no pauses"

    def fill(self, task: Task) -> None:
        """One query for a range's end and the next one's start, one UPDATE."""
        work = task.dataset
        update = f"UPDATE {work.table} SET {work.set_clause} WHERE {work.where} AND {work.key} >= %(start)s"
        bounds = (
            f"SELECT {work.key} FROM {work.table} WHERE {work.where} AND {work.key} >= %(start)s"
            f" ORDER BY {work.key} LIMIT 2 OFFSET {BATCH - 1}"
        )
        with task.connect() as connection:
            row = connection.execute(f"SELECT min({work.key}) FROM {work.table} WHERE {work.where}").fetchone()
            start = row and row[0]
            while start is not None:
                found = connection.execute(bounds, {"start": start}).fetchall()
                if len(found) < 2:
                    connection.execute(update, {"start": start})
                    return
                stop = found[1][0]
                connection.execute(f"{update} AND {work.key} < %(stop)s", {"start": start, "stop": stop})
                start = stop
