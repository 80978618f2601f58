"""What the fuzzers share: what must never happen, whatever the server is given."""

from __future__ import annotations

import hashlib
import random
import re

import psycopg

from harness.cluster import Cluster

# Of a statement that was refused, or a line of the log: the server's fault, or ours.
BAD_LINES = re.compile(
    r"PANIC:|TRAP:|panicked|terminated by signal|terminated by exception|SQLSTATE XX|\bXX\d\d\d (ERROR|FATAL|LOG)"
    r"|leak:|reference leak|left non-empty|not closed|still referenced|unpinned|problem in alloc set"
)
# PostgreSQL's own errors that reach a call from without, and need no hint of ours.
PASSING = ("25P02", "40", "53", "54001", "55P03", "57")


class Violation(AssertionError):
    """What must never happen has happened."""


def source(seed: int, kind: str, number: int) -> random.Random:
    """The numbers of a case: the same for the same seed, kind and number, on every machine."""
    return random.Random(hashlib.sha256(f"{seed} {kind} {number}".encode()).digest())


def short(text: str, most: int = 1500) -> str:
    """The text for people: without the middle of what is long."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {len(text)} characters ... {text[-most // 2 :]}"


def judge(error: psycopg.Error, statement: str) -> None:
    """Complains of an error that no call may end with: no SQLSTATE, an internal one, no message, no hint."""
    diag = error.diag
    what = (
        f"{error.sqlstate} {type(error).__name__}: {short(str(error))}\nHINT: {diag.message_hint}\n{short(statement)}"
    )
    if error.sqlstate is None:
        raise Violation(f"the connection is lost, or the error has no SQLSTATE: {what}")
    if error.sqlstate.startswith("XX"):
        raise Violation(f"an internal error: {what}")
    if not (diag.message_primary or "").strip():
        raise Violation(f"an error without a message: {what}")
    # Where an error of PostgreSQL's own passes through a call, it is raised again by the extension.
    ours = diag.source_file == "backfill"
    if ours and not (diag.message_hint or "").strip() and not error.sqlstate.startswith(PASSING):
        raise Violation(f"an error without a hint: {what}")


class Watch:
    """One server that is watched over: its postmaster, and its log."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._pid = cluster.pid
        self._read = cluster.log.stat().st_size

    def look(self) -> None:
        """Complains of a crash, a panic or an internal error since the last look."""
        if not self.cluster.running or self.cluster.pid != self._pid:
            raise Violation(f"the server is not the one that was started\n{self.cluster.log_tail(40)}")
        with self.cluster.log.open(errors="replace") as log:
            log.seek(self._read)
            lines = log.read()
            self._read = log.tell()
        shown = lines.splitlines()
        bad = next((at for at, line in enumerate(shown) if BAD_LINES.search(line)), None)
        if bad is not None:
            raise Violation("in the server's log: " + "\n".join(short(line) for line in shown[bad : bad + 4]))


# Settings of a server that is fuzzed. The SQLSTATE is in each line of its log.
CONF = {
    "log_line_prefix": "%m [%p] %q%a %u@%d %e ",
    "max_prepared_transactions": "5",
    "max_worker_processes": "12",
    "backfill.max_workers": "6",
    "log_min_messages": "warning",
    "autovacuum": "off",
}
