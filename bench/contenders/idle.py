"""Nobody does anything: what the application's latency is compared with."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from bench.contenders.base import Contender, Task


@dataclass(frozen=True)
class Idle(Contender):
    """Time passes."""

    name: str = "idle"
    label: str = "nothing else"
    works: ClassVar[bool] = False

    def fill(self, task: Task) -> None:
        """Leaves the table as it is."""
        time.sleep(task.idle)
