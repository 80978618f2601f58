"""One statement that does it all."""

from __future__ import annotations

from dataclasses import dataclass

from bench.contenders.base import Contender, Task


@dataclass(frozen=True)
class OneUpdate(Contender):
    """The statement that nobody dares to run: all locks and all dead rows until its end."""

    name: str = "one-update"
    label: str = "one UPDATE"

    def fill(self, task: Task) -> None:
        """One transaction."""
        work = task.dataset
        with task.connect() as connection:
            connection.execute(f"UPDATE {work.table} SET {work.set_clause} WHERE {work.where}")


@dataclass(frozen=True)
class TableRewrite(Contender):
    """The limit, offline: nobody can even read the table meanwhile."""

    name: str = "table-rewrite"
    label: str = "table rewrite (ACCESS EXCLUSIVE: offline)"

    def fill(self, task: Task) -> None:
        """ALTER TYPE with an expression writes a new heap and new indexes."""
        work = task.dataset
        with task.connect() as connection:
            connection.execute(
                f"ALTER TABLE {work.table} ALTER COLUMN {work.column} TYPE numeric USING {work.expression}::numeric"
            )
