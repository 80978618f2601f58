"""pgroll's statements: a batch touches its rows, and a trigger computes the value."""

from __future__ import annotations

from dataclasses import dataclass

from bench.contenders.base import BATCH, Contender, Task

FLAG = "needs_backfill"


@dataclass(frozen=True)
class Pgroll(Contender):
    """A flag on each row says what is left; the trigger that fills the column clears it."""

    name: str = "pgroll"
    label: str = "pgroll's statements"

    def prepare(self, task: Task) -> None:
        """The flag, and the trigger."""
        work = task.dataset
        # In a trigger the work's expression is about NEW.
        task.db.sql(f"""
            ALTER TABLE {work.table} ADD {FLAG} boolean DEFAULT true;
            CREATE FUNCTION compute() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                NEW.{work.column} := NEW.{work.expression};
                NEW.{FLAG} := false;
                RETURN NEW;
            END $$;
            CREATE TRIGGER compute BEFORE INSERT OR UPDATE ON {work.table} FOR EACH ROW EXECUTE FUNCTION compute();
        """)

    def fill(self, task: Task) -> None:
        """A transaction a batch, without a pause, which is its default."""
        last = None
        with task.connect() as connection:
            connection.execute("SET lock_timeout = '500ms'")
            while True:
                after = "" if last is None else f"AND ({task.dataset.key}) > (%(last)s)"
                row = connection.execute(self.batch(task, after), {"last": last}).fetchone()
                if row is None:
                    return
                last = row[0]

    def batch(self, task: Task, after: str) -> str:
        """One batch; what comes back is the last key of it."""
        table, key = task.dataset.table, task.dataset.key
        return f"""
            WITH batch AS (
                SELECT {key} FROM {table} WHERE {FLAG} = true {after} ORDER BY {key} LIMIT {BATCH} FOR NO KEY UPDATE
            ), touched AS (
                UPDATE {table} SET {key} = {table}.{key} FROM batch WHERE {table}.{key} = batch.{key}
                RETURNING {table}.{key}
            )
            SELECT last_value({key}) OVER () FROM touched"""
