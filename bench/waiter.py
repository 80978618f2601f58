"""Somebody who all the time wants a row that the batch at work has updated, and waits for it."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
from harness import Database

from bench.latency import Waits, summary

# Pages to look through, first those after the last find, then more of them, then all.
WIDTHS = (64, 1024)
# A row's version whose updater was at work when the statement began: exactly what one has to wait for.
LOCKED = """
SELECT id, (ctid::text::point)[0]::bigint FROM orders
WHERE ctid >= %(low)s::tid AND ctid < %(high)s::tid
  AND amount_new IS NULL AND xmax <> '0'::xid
  AND NOT pg_visible_in_snapshot(xmax::text::xid8, pg_current_snapshot())
LIMIT 1
"""


class Waiter:
    """As a context manager: at work until its end. `waits` tells what it saw."""

    def __init__(self, db: Database) -> None:
        self.times: list[float] = []
        self._connection = psycopg.connect(db.dsn(), application_name="application")
        self._pages = int(db.value("SELECT pg_relation_size('orders') / 8192"))
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Waiter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._connection.close()

    def waits(self) -> Waits:
        """None at all is an error: nothing was measured then."""
        self._done.set()
        self._thread.join()
        if self._error:
            raise self._error
        assert self.times, "nobody had to wait for a row: nothing was measured"
        return Waits(len(self.times), *summary(self.times))

    def _run(self) -> None:
        try:
            page = 0
            while not self._done.is_set():
                found = self._look(page)
                if found is None:
                    page = 0
                    continue
                key, page = found
                if self._is_locked(key):
                    began = time.monotonic()
                    self._connection.execute("UPDATE orders SET balance = balance + 1 WHERE id = %s", [key])
                    self.times.append(time.monotonic() - began)
                    # A transaction does something with a row before it lets it go; the wait is what is measured.
                    self._connection.rollback()
        except BaseException as error:
            self._error = error

    def _is_locked(self, key: Any) -> bool:
        """Whether it still is: the batch may have ended while the row was looked for, and that would be no wait."""
        try:
            self._connection.execute("SELECT FROM orders WHERE id = %s FOR NO KEY UPDATE NOWAIT", [key])
        except psycopg.errors.LockNotAvailable:
            return True
        finally:
            self._connection.rollback()
        return False

    def _look(self, page: int) -> tuple[Any, int] | None:
        places = [(page, page + width) for width in WIDTHS] + [(0, 2 * self._pages)]
        for low, high in places:
            found = self._connection.execute(LOCKED, {"low": f"({low},0)", "high": f"({high},0)"}).fetchone()
            self._connection.rollback()
            if found:
                return found[0], found[1]
        return None
