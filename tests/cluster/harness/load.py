"""Clients that keep working all the while, through crashes and restarts."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.server import clean_environment

if TYPE_CHECKING:
    from harness.database import Database


class Load:
    """pgbench in a loop: a crash of any backend throws all clients out, so it is started anew until stopped."""

    def __init__(self, database: Database, script: str, *, clients: int, user: str, options: Sequence[str]) -> None:
        self._stopping = threading.Event()
        self._file = tempfile.NamedTemporaryFile("w", suffix=".sql")  # noqa: SIM115 - it lives as long as the load
        self._file.write(script)
        self._file.flush()
        self._command = [
            database.cluster.server.program("pgbench"),
            *["-n", "-c", str(clients), "-j", "1", "-T", "86400", "-f", self._file.name],
            *options,
            database.dsn(user),
        ]
        self._process: subprocess.Popen[str] | None = None
        self.starts = 0
        self.messages: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the clients; a second time does nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._process:
            self._process.kill()
        self._thread.join(30)
        self._file.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.starts += 1
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=clean_environment()
            )
            if self._stopping.is_set():
                self._process.kill()
            # Only what went wrong last is of interest, and a crash may say it once a client.
            self.messages = [*self.messages, *self._process.communicate()[1].splitlines()][-50:]
            # Not a guess at a duration: how often a server that is down gets asked.
            self._stopping.wait(0.1)
