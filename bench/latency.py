"""How long transactions of an application took, while something else was at work."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Transaction(NamedTuple):
    """When it was due, in seconds since the epoch, and how long after that it was done."""

    due: float
    took: float


@dataclass(frozen=True)
class Second:
    """What was due in one second of a run: for the picture."""

    second: int
    count: int
    p50: float
    p99: float
    worst: float


@dataclass(frozen=True)
class Latency:
    """Seconds, of the transactions that were due between the start and the end of the work."""

    count: int
    p50: float
    p95: float
    p99: float
    worst: float
    timeline: list[Second]

    @classmethod
    def parse(cls, stored: dict[str, Any]) -> Latency:
        """From JSON."""
        return cls(**stored | {"timeline": [Second(**second) for second in stored["timeline"]]})


@dataclass(frozen=True)
class Waits:
    """Seconds that statements took which wanted a row of the batch at work."""

    count: int
    p50: float
    p95: float
    p99: float
    worst: float

    @classmethod
    def parse(cls, stored: dict[str, Any]) -> Waits:
        """From JSON."""
        return cls(**stored)


def parse_log(lines: Iterable[str]) -> list[Transaction]:
    """Of pgbench --log with --rate: the third column counts from when the transaction was due, not from its start."""
    found = []
    for line in lines:
        fields = line.split()
        took = int(fields[2]) / 1e6
        done = int(fields[4]) + int(fields[5]) / 1e6
        found.append(Transaction(done - took, took))
    return found


def of_window(transactions: Iterable[Transaction], began: float, ended: float) -> Latency:
    """Those that were due in there, whenever they were done: who waits for the end of the work counts, too."""
    inside = [one for one in transactions if began <= one.due < ended]
    if not inside:
        raise AssertionError("no transaction of pgbench's was due while the work was done")
    return Latency(len(inside), *(summary([one.took for one in inside])), timeline=list(_timeline(inside, began)))


def summary(times: Sequence[float]) -> tuple[float, float, float, float]:
    """p50, p95, p99, and the longest."""
    ranked = sorted(times)
    return percentile(ranked, 0.5), percentile(ranked, 0.95), percentile(ranked, 0.99), ranked[-1]


def percentile(ranked: Sequence[float], share: float) -> float:
    """The least of the sorted values that so large a share does not exceed."""
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def _timeline(transactions: list[Transaction], began: float) -> Iterable[Second]:
    seconds: dict[int, list[float]] = {}
    for one in transactions:
        seconds.setdefault(int(one.due - began), []).append(one.took)
    for second, times in sorted(seconds.items()):
        p50, _, p99, worst = summary(times)
        yield Second(second, len(times), p50, p99, worst)
