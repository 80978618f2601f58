"""Processes, as /proc shows them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

from harness.wait import wait_until


def adopt_orphans() -> None:
    """Makes this process the parent of servers that pg_ctl leaves behind, so that the killed ones can be reaped here.

    A container's init may be slow to reap, or never do it, and a postmaster does not start where a zombie has its pid.
    """
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def alive(pid: int) -> bool:
    """True while the process runs; a zombie does not, and is reaped if it is ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return _status(pid).get("State", "Z")[0] not in "ZX"


def children(pid: int) -> list[int]:
    """The process's direct children."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [child for child in pids if _status(child).get("PPid") == str(pid)]


def rss_anon(pid: int) -> int:
    """Bytes of memory of the process's own. VmRSS would count each page of the shared buffers that it ever touched."""
    return int(_status(pid)["RssAnon"].split()[0]) * 1024


def cpu_seconds(pid: int) -> float:
    """Time that the process has had the processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def send(pid: int, number: signal.Signals) -> None:
    """Sends a signal; that the process is gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def freeze(pid: int) -> None:
    """Stops the process where it is; it does nothing more when this returns."""
    send(pid, signal.SIGSTOP)
    wait_until(lambda: _status(pid).get("State", "Z")[0] in "TtZX", 30, f"process {pid} to stop")


def kill_and_wait(*pids: int) -> None:
    """SIGKILL, and the processes are really gone when this returns."""
    for pid in pids:
        send(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(alive, pids)), 30, f"processes {pids} to die")


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def exit_on_sigterm() -> None:
    """Lets SIGTERM end the program in order, so that its servers do not outlive it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
