"""Procedures that a DBA writes by hand, with a COMMIT per batch."""

from __future__ import annotations

from dataclasses import dataclass

from bench.contenders.base import BATCH, Contender, Task


@dataclass(frozen=True)
class Procedure(Contender):
    """A PL/pgSQL procedure, called from a client that stays connected."""

    batch_size: int = BATCH

    def body(self, task: Task) -> str:
        """The procedure, with `batch` as its argument."""
        raise NotImplementedError

    def prepare(self, task: Task) -> None:
        """Creates the procedure."""
        body = self.body(task)
        task.db.sql(f"CREATE PROCEDURE fill(batch int) LANGUAGE plpgsql AS $procedure${body}$procedure$")

    def fill(self, task: Task) -> None:
        """Calls it."""
        with task.connect() as connection:
            connection.execute("CALL fill(%s)", [self.batch_size])


@dataclass(frozen=True)
class PredicateProcedure(Procedure):
    """Takes what is left by the predicate, so that each batch passes over what the ones before it have done."""

    name: str = "procedure-predicate"
    label: str = "procedure, LIMIT on the predicate"

    def body(self, task: Task) -> str:
        """No place is remembered."""
        work = task.dataset
        return f"""
        BEGIN
            LOOP
                UPDATE {work.table} SET {work.set_clause}
                WHERE {work.key} IN (SELECT {work.key} FROM {work.table} WHERE {work.where} LIMIT batch);
                EXIT WHEN NOT FOUND;
                COMMIT;
            END LOOP;
        END"""


@dataclass(frozen=True)
class KeysetProcedure(Procedure):
    """Walks the key: the best that is commonly recommended."""

    name: str = "procedure-keyset"
    label: str = "procedure, keyset"

    def body(self, task: Task) -> str:
        """The place is a variable: gone with the session."""
        work = task.dataset
        return f"""
        DECLARE
            low {work.table}.{work.key}%TYPE := {work.key_floor};
            high {work.table}.{work.key}%TYPE;
        BEGIN
            LOOP
                SELECT {work.key} INTO high FROM {work.table} WHERE {work.key} > low
                ORDER BY {work.key} OFFSET batch - 1 LIMIT 1;
                EXIT WHEN NOT FOUND;
                UPDATE {work.table} SET {work.set_clause}
                WHERE {work.key} > low AND {work.key} <= high AND ({work.where});
                COMMIT;
                low := high;
            END LOOP;
            UPDATE {work.table} SET {work.set_clause} WHERE {work.key} > low AND ({work.where});
            COMMIT;
        END"""
