"""Figures that nobody measured."""

from __future__ import annotations

from dataclasses import replace

from bench.figures import Figures
from bench.host import Host
from bench.results import Run, ScenarioResult

HOST = Host(2, 8 * 2**30, "SSD", "x86_64", "0123456789")
FIGURES = Figures(
    rows=1000,
    seconds=1.0,
    wal=1000,
    wal_records=10,
    full_page_images=1,
    heap_before=100,
    heap_after=120,
    indexes_before=200,
    indexes_after=260,
    toast_before=0,
    toast_after=0,
    updated=10,
    hot=9,
    commits=3,
    longest=0.1,
    memory=1,
    cpu=1.0,
    client_cpu=0.0,
    pages_read=1,
    pages_written=1,
)


def result(**seconds: list[float]) -> ScenarioResult:
    """A scenario in which each contender took so long, run after run."""
    runs = [
        Run(entry, repetition, replace(FIGURES, seconds=value))
        for entry, values in seconds.items()
        for repetition, value in enumerate(values)
    ]
    return ScenarioResult("some", HOST, {"PostgreSQL": "16.1"}, runs)
