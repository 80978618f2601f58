"""What every contender is, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg

if TYPE_CHECKING:
    from harness import Database

    from bench.datasets import Dataset

# By this name the sampler knows the sessions that do the work.
APPLICATION = "contender"
# Rows per commit of all that commit per batch, unless the scenario is about that: the default of most of them.
BATCH = 1000


@dataclass
class Task:
    """One run of a contender: a fresh copy of the table, and the work to be done on it."""

    db: Database
    dataset: Dataset
    timeout: float = 3600
    watch: bool = False
    """Whether to look at what the extension says of itself all the while."""
    said: set[str] = field(default_factory=set)
    idle: float = 30
    """Seconds of a contender that does nothing."""

    def connect(self, **options: Any) -> psycopg.Connection:
        """A session that works, and is measured. Statements are not prepared: the peers' clients send literals."""
        connection = psycopg.connect(
            self.db.dsn(), autocommit=True, application_name=APPLICATION, cursor_factory=psycopg.ClientCursor, **options
        )
        connection.prepare_threshold = None
        return connection


@dataclass(frozen=True)
class Contender:
    """A way to do the work. `name` is for the command line, `label` for the tables."""

    name: str
    label: str
    works: ClassVar[bool] = True
    """Whether the rows are done at its end."""

    def prepare(self, task: Task) -> None:
        """What stands before the work begins: procedures, triggers. Not timed."""

    def fill(self, task: Task) -> None:
        """Does the work; this is timed."""
        raise NotImplementedError
