"""An installed PostgreSQL: the private copy of one major that scripts/setup prepared."""

from __future__ import annotations

import fcntl
import os
import pwd
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


class Server:
    """The programs of one major; without a number that of the environment's PG, else the newest prepared."""

    def __init__(self, major: int | None = None) -> None:
        wanted = [str(major)] if major else []
        found = subprocess.run(
            [REPOSITORY / "scripts" / "pg-config", *wanted], stdout=subprocess.PIPE, text=True, check=True
        )
        self.pg_config = found.stdout.strip()
        self.bindir = Path(self.ask("--bindir"))
        self.major = int(self.ask("--version").split()[1].split(".")[0])

    def hold(self) -> None:
        """Keeps others from installing into this copy until this process ends; waits for one who is at it."""
        lock = Path(self.pg_config).parents[2] / f".lock-{self.major}"
        # Kept open, and by no child of ours: a server that outlives us must not hold it.
        self._lock = lock.open("a")
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def program(self, name: str) -> str:
        """The full path of a program of this major."""
        return str(self.bindir / name)

    def ask(self, option: str) -> str:
        """What pg_config answers to an option."""
        return subprocess.run([self.pg_config, option], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def server_user() -> str | None:
    """Whom servers run as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def clean_environment() -> dict[str, str]:
    """The environment without what would steer clients (PGHOST and its kin) or translate messages."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}
