"""What one run of a contender came to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from bench.latency import Latency, Waits

MB = 2**20
HORIZON = re.compile(r"transaction|snapshot|horizon|xmin", re.IGNORECASE)


@dataclass(frozen=True)
class Figures:
    """Measured from the start of the work to its end, unless a field says otherwise. Sizes are bytes."""

    rows: int
    """Rows of the table."""
    seconds: float
    wal: int
    wal_records: int
    full_page_images: int
    heap_before: int
    heap_after: int
    indexes_before: int
    indexes_after: int
    toast_before: int
    toast_after: int
    updated: int
    hot: int
    """Updates, and those of them that needed no index entry. A rewrite has neither."""
    commits: int
    """Transactions that wrote."""
    longest: float
    """Seconds of the longest transaction, as sampled every 50 ms."""
    memory: int
    """The most private memory (RssAnon) that a process of the server's had for this work."""
    cpu: float
    """Seconds of the processor, of the whole server."""
    client_cpu: float
    """The same, of the client that sent the statements."""
    pages_read: int
    """Pages that were not in shared_buffers; up to PostgreSQL 15 also those that a table grew by."""
    pages_written: int
    """Pages written, a checkpoint after the end included."""
    latency: Latency | None = None
    """Of an application's transactions meanwhile, where there is one."""
    waits: Waits | None = None
    """Of somebody who wants rows of the batch at work, where there is one."""
    said: list[str] = field(default_factory=list)
    """What the extension's view said meanwhile; looked at where that is asked for only."""

    @property
    def p50(self) -> float | None:
        """Seconds that half of the application's transactions took at most."""
        return self.latency and self.latency.p50

    @property
    def p95(self) -> float | None:
        """Likewise, 95 of 100."""
        return self.latency and self.latency.p95

    @property
    def p99(self) -> float | None:
        """Likewise, 99 of 100."""
        return self.latency and self.latency.p99

    @property
    def worst(self) -> float | None:
        """Seconds of the application's longest transaction."""
        return self.latency and self.latency.worst

    @property
    def transactions(self) -> float | None:
        """The application's, a second."""
        return self.latency and self.latency.count / self.seconds

    @property
    def waited(self) -> float | None:
        """Seconds that 99 of 100 who wanted a row of the batch at work waited at most."""
        return self.waits and self.waits.p99

    @property
    def heap_growth(self) -> float:
        """Size of the heap after, in sizes of it before."""
        return self.heap_after / self.heap_before

    @property
    def index_growth(self) -> float:
        """Size of all indexes after, in sizes of them before."""
        return self.indexes_after / self.indexes_before

    @property
    def toast_growth(self) -> float:
        """Size of the TOAST tables after, in sizes of them before."""
        return self.toast_after / self.toast_before if self.toast_before else 1.0

    @property
    def hot_share(self) -> float | None:
        """Share of the updates that were heap-only."""
        return self.hot / self.updated if self.updated else None

    @property
    def noticed(self) -> float:
        """1 if the view said that somebody holds the horizon back, in whichever words."""
        return float(any(HORIZON.search(text) for text in self.said))

    @property
    def seconds_per_row(self) -> float:
        """For tables of different sizes."""
        return self.seconds / self.rows

    @classmethod
    def parse(cls, stored: dict[str, Any]) -> Figures:
        """From JSON; what it does not know any more is left out."""
        known = {known.name for known in fields(cls)}
        figures = {key: value for key, value in stored.items() if key in known}
        if latency := figures.get("latency"):
            figures["latency"] = Latency.parse(latency)
        if waits := figures.get("waits"):
            figures["waits"] = Waits.parse(waits)
        return cls(**figures)
