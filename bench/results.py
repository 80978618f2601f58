"""What a run of a scenario came to, kept in a file of its own so that nothing is lost or measured twice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.figures import Figures
from bench.host import Host


@dataclass(frozen=True)
class Run:
    """One contender, once. `repetition` pairs it with the others that ran right before and after it."""

    entry: str
    repetition: int
    figures: Figures | None
    error: str | None = None


@dataclass
class ScenarioResult:
    """All runs of a scenario, and where they took place."""

    scenario: str
    host: Host
    settings: dict[str, str]
    """PostgreSQL's version, shared_buffers, and what else the reader has to know of the server."""
    runs: list[Run] = field(default_factory=list)

    def of(self, entry: str) -> dict[int, Figures]:
        """The good runs of a contender, by repetition."""
        return {run.repetition: run.figures for run in self.runs if run.entry == entry and run.figures}

    def errors(self, entry: str) -> list[str]:
        """What went wrong with it."""
        return [run.error for run in self.runs if run.entry == entry and run.error]

    def median(self, entry: str, measure: str) -> float | None:
        """The median of a measure; None without a run, or where the measure makes no sense."""
        values = [getattr(figures, measure) for figures in self.of(entry).values()]
        known = [value for value in values if value is not None]
        return median(known) if known else None

    def save(self, folder: Path) -> None:
        """Writes it to the folder; one file a scenario."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.scenario}.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self), indent=1) + "\n")
        new.replace(path)


def load(folder: Path) -> dict[str, ScenarioResult]:
    """What there is in the folder, by scenario."""
    results = [_parse(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    return {result.scenario: result for result in results}


def _parse(stored: dict[str, Any]) -> ScenarioResult:
    runs = [run | {"figures": run["figures"] and Figures.parse(run["figures"])} for run in stored["runs"]]
    return ScenarioResult(
        stored["scenario"], Host(**stored["host"]), stored["settings"], [Run(**stored_run) for stored_run in runs]
    )
