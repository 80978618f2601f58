"""The extension."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from bench.contenders.base import BATCH, Contender, Task

START = "SELECT backfill.start(%s::regclass, %s, %s, %s, %s, NULL, %s)"
# By name out of JSON: a column that this build does not have is nothing said.
SAID = "SELECT concat_ws('; ', to_jsonb(p) ->> 'waiting_for', to_jsonb(p) ->> 'note') FROM backfill.progress p"
LOOK_EVERY = 0.1


@dataclass(frozen=True)
class Ours(Contender):
    """`backfill.start` and `CALL backfill.wait`, with such options."""

    options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = BATCH
    sleep_ms: int = 0

    def fill(self, task: Task) -> None:
        """From the call that starts it until it has completed."""
        work = task.dataset
        with psycopg.connect(task.db.dsn(), autocommit=True) as connection, _listening(task):
            row = connection.execute(
                START,
                [
                    *(work.table, self.batch_size, self.sleep_ms),
                    *(work.set_clause, work.where, json.dumps(dict(self.options))),
                ],
            ).fetchone()
            assert row is not None
            connection.execute("CALL backfill.wait(%s, %s)", [row[0], int(task.timeout * 1000)])


def ours(name: str, label: str, *, batch_size: int = BATCH, sleep_ms: int = 0, **options: Any) -> Ours:
    """Without the phase of VACUUM and ANALYZE at the end, which nothing else here has."""
    return Ours(name, f"backfill, {label}", {"vacuum": False, "analyze": False} | options, batch_size, sleep_ms)


def with_all_defaults() -> Ours:
    """As a user calls it who gives no option."""
    return Ours("ours-defaults", "backfill, VACUUM and ANALYZE included")


@dataclass(frozen=True)
class Standalone(Contender):
    """The procedure that `backfill.procedure` writes, which needs no extension."""

    name: str = "standalone"
    label: str = "backfill.procedure"
    batch_size: int = BATCH

    def prepare(self, task: Task) -> None:
        """Writes it down and creates it."""
        work = task.dataset
        job = task.db.value("SELECT backfill.define(%s::regclass, %s, %s)", [work.table, work.set_clause, work.where])
        task.db.sql("SELECT backfill.procedure(%s::bigint, install => true)", [job])
        task.db.sql("SELECT backfill.cancel(%s)", [job])

    def fill(self, task: Task) -> None:
        """Calls it."""
        with task.connect() as connection:
            connection.execute(f"CALL backfill_{task.dataset.table}(%s, 0)", [self.batch_size])


@contextlib.contextmanager
def _listening(task: Task) -> Iterator[None]:
    """Collects what the view says while the job runs, where that is asked for."""
    if not task.watch:
        yield
        return
    done = threading.Event()

    def listen() -> None:
        with psycopg.connect(task.db.dsn(), autocommit=True) as connection:
            while not done.wait(LOOK_EVERY):
                task.said.update(text for (text,) in connection.execute(SAID) if text)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
