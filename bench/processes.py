"""What the server's processes have used, as /proc shows it."""

from __future__ import annotations

import os
from pathlib import Path

from harness import process

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(postmaster: int, without: int) -> float:
    """Processor time of a server so far: its living processes but one, and all that have ended."""
    living = [pid for pid in process.children(postmaster) if pid != without]
    return sum(map(_own, living)) + _own(postmaster) + _of_ended_children(postmaster)


def memory(pid: int) -> int:
    """Private memory of a process; 0 when it has gone."""
    try:
        return process.rss_anon(pid)
    except KeyError:
        return 0


def _own(pid: int) -> float:
    times = _times(pid)
    return (times[0] + times[1]) / TICKS


def _of_ended_children(pid: int) -> float:
    times = _times(pid)
    return (times[2] + times[3]) / TICKS


def _times(pid: int) -> list[int]:
    """User and system time, then those of ended children, in ticks."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return [0, 0, 0, 0]
    # The name, in parentheses, may hold anything.
    return [int(field) for field in text.rpartition(")")[2].split()[11:15]]
