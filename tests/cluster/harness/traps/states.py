"""Jobs of the hostile owner in every state."""

from __future__ import annotations

import contextlib
import functools
import json
from typing import Any

import psycopg

from harness.database import Database
from harness.jobs import progress
from harness.traps.objects import KINDS, OPTIONS, SET, WHERE
from harness.traps.spring import OWNER
from harness.wait import wait_until

STATES = (
    "pending", "running", "paused", "failed", "completed", "cancelled", "verified", "verification", "dry run",
    "waiting for approval",
)  # fmt: skip
ENDED = {"completed", "verified", "verification"}


class Job:
    """A job in a state, on a table of its own; it is made anew when a call has changed it."""

    def __init__(self, db: Database, looker: psycopg.Connection, kind: str, state: str) -> None:
        self.db, self.kind, self.state = db, KINDS[kind], state
        self._looker = looker
        self.name, self.place = f"{kind}, {state}", kind
        self.table = f"trap.t{[*KINDS].index(kind)}_{STATES.index(state)}"
        self.id = 0
        self._made: tuple[Any, ...] = ()
        self.made = 0

    def ready(self) -> None:
        """Sees to it that the job is there, and as it was."""
        if not self.id or self._now() != self._made:
            self._clear()
            self._make()
            self.made += 1
            self._made = self._now()

    def _now(self) -> tuple[Any, ...]:
        """What a call can have changed: the job's state, and which jobs there are on the table."""
        jobs = "SELECT job_id, state FROM backfill.progress WHERE relation = to_regclass(%s) ORDER BY 1"
        return tuple(self._looker.execute(jobs, [self.table]).fetchall())

    def _clear(self) -> None:
        db = self.db
        jobs = "SELECT job_id, state FROM backfill.progress WHERE relation = to_regclass(%s) ORDER BY job_id DESC"
        for job, state in db.sql(jobs, [self.table]):
            if state not in ("completed", "cancelled", "failed"):
                # It may come to its end by itself just now.
                with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):
                    db.sql("SELECT backfill.cancel(%s, true)", [job])
        idle = "SELECT bool_and(workers = 0 AND state NOT IN ('running', 'cancelling')) IS NOT FALSE"
        wait_until(
            lambda: db.value(f"{idle} FROM backfill.progress WHERE relation = to_regclass(%s)", [self.table]),
            30,
            "the end",
        )
        for job, _ in db.sql(jobs, [self.table]):
            wait_until(functools.partial(self._forget, job), 30, "the last of its workers")

    def _forget(self, job: int) -> bool:
        """False while a worker that was started before the job was cancelled has yet to see that."""
        try:
            self.db.sql("SELECT backfill.forget(%s)", [job])
        except psycopg.errors.ObjectNotInPrerequisiteState:
            return False
        return True

    def _make(self) -> None:
        db, user = self.db, self.kind.table_owner
        db.sql(f"DROP TABLE IF EXISTS {self.table} CASCADE", user=user)
        create = self.kind.create(self.table)
        if user != OWNER:
            create += f"; GRANT SELECT, UPDATE (n, m) ON {self.table} TO {OWNER}"
        db.sql(create, user=user)
        getattr(self, "_" + self.state.replace(" ", "_"))()

    # Each as the owner does it

    def _as_owner(self, query: str, parameters: list[Any] | None = None, before: str = "") -> Any:
        with psycopg.connect(self.db.dsn(OWNER), autocommit=True) as connection:
            connection.execute(before or "SELECT 1")
            return connection.execute(query, parameters).fetchone()[0]  # type: ignore[index]

    def _begin(self, *, more: dict[str, Any] | None = None, sleep_ms: int = 0, where: str = WHERE) -> None:
        # A job with an upper or lower bound pauses there, and never completes.
        bounds = {} if self.state in ENDED else self.kind.options
        options = OPTIONS | bounds | (more or {})
        call = f"SELECT backfill.start('{self.table}', 5, %s, %s, %s, %s, %s)"
        self.id = self._as_owner(call, [sleep_ms, SET, where, self.name, json.dumps(options)])

    def _reach(self, *states: str, rows: int = 0) -> None:
        def there() -> bool:
            row = progress(self.db, self.id)
            now = row["state"]
            assert now in states or now not in ("completed", "failed", "cancelled", "paused"), (self.name, row)
            return now in states and (row["workers"] == 0 or now == "running") and row["rows_done"] >= rows

        try:
            wait_until(there, 30, f"{self.name}: {states}")
        except AssertionError as late:
            raise AssertionError(f"{late}: {progress(self.db, self.id)}") from None

    def _pending(self) -> None:
        call = f"SELECT backfill.define('{self.table}', %s, %s, %s, %s)"
        self.id = self._as_owner(call, [SET, WHERE, self.name, json.dumps(OPTIONS | self.kind.options)])

    def _running(self) -> None:
        self._begin(sleep_ms=600_000)
        self._reach("running", rows=1)

    def _paused(self) -> None:
        self._running()
        self._as_owner(f"SELECT backfill.pause({self.id})")
        self._reach("paused")

    def _failed(self) -> None:
        self._begin(where=f"{WHERE} AND 1 / (n - n) > 0")
        self._reach("failed")

    def _completed(self) -> None:
        self._begin()
        self._reach("completed")

    def _cancelled(self) -> None:
        self._running()
        self._as_owner(f"SELECT backfill.cancel({self.id})")
        self._reach("cancelled")

    def _verified(self) -> None:
        self._completed()
        job = self.id
        self.db.sql(f"UPDATE {self.table} SET n = 0 WHERE n IS NOT NULL", user=OWNER)
        self.id = self._as_owner(f"SELECT backfill.verify({job}, 'n > 0')")
        self._reach("completed")
        self.id, self.verification = job, self.id

    def _verification(self) -> None:
        self._verified()
        self.id = self.verification

    def _dry_run(self) -> None:
        self._begin(more={"dry_run": True})
        self._reach("completed")

    def _waiting_for_approval(self) -> None:
        self.db.sql(f"ALTER ROLE {OWNER} SET backfill.require_approval = on")
        self._begin()
        self.db.sql(f"ALTER ROLE {OWNER} RESET backfill.require_approval")
