"""The picture of an application's latency: by what else is at work, and second by second."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

from bench.figures import Figures
from bench.report import title
from bench.results import ScenarioResult
from bench.scenarios import Entry, Scenario

SHARES = {"p50": "o", "p95": "s", "p99": "D"}
COLORS = ["#555b63", "#d9a441", "#a23b3b", "#1f6f8b", "#4c9f70", "#7a5195"]


def draw(scenario: Scenario, result: ScenarioResult, path: Path) -> None:
    """Writes the SVG; the same figures give the same file."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "font.family": "DejaVu Sans", "font.size": 9})
    from matplotlib import pyplot

    entries = [entry for entry in scenario.entries if result.median(entry.name, "p99") is not None]
    if not entries:
        return
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    _percentiles(left, entries, result)
    _over_time(right, entries, result)
    for axis in (left, right):
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.suptitle(fill(title(scenario, result), 130), fontsize=10, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
    pyplot.close(figure)


def _percentiles(axis: Any, entries: list[Entry], result: ScenarioResult) -> None:
    """A row each: medians of the runs, and a line from the least to the greatest."""
    for row, entry in enumerate(entries):
        color = COLORS[row % len(COLORS)]
        for name, marker in SHARES.items():
            values = sorted(1000 * getattr(found, name) for found in result.of(entry.name).values())
            axis.plot([values[0], values[-1]], [row, row], color=color, linewidth=1, alpha=0.6)
            axis.plot(median(values), row, marker, color=color, markersize=5)
    for name, marker in SHARES.items():
        axis.plot([], [], marker, color="#555b63", label=name)
    axis.set_yticks(range(len(entries)), [entry.contender.label for entry in entries])
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_title("latency, ms", loc="left", fontsize=9, fontweight="bold")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(frameon=False, fontsize=8, loc="lower right")


def _over_time(axis: Any, entries: list[Entry], result: ScenarioResult) -> None:
    """The run in the middle of each, by its p99."""
    for row, entry in enumerate(entries):
        seconds = _typical(result, entry.name).latency.timeline  # type: ignore[union-attr]
        axis.plot(
            [one.second for one in seconds],
            [one.p99 * 1000 for one in seconds],
            color=COLORS[row % len(COLORS)],
            linewidth=1.2,
            label=entry.contender.label,
        )
    axis.set_yscale("log")
    axis.set_xlabel("seconds since the work began")
    axis.set_title("p99 of what was due in each second, ms", loc="left", fontsize=9, fontweight="bold")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False, fontsize=7)


def _typical(result: ScenarioResult, entry: str) -> Figures:
    runs = sorted(result.of(entry).values(), key=lambda found: found.p99 or 0)
    return runs[(len(runs) - 1) // 2]
