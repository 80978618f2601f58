"""The picture: seconds, WAL and growth of each way, side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.figures import MB, Figures
from bench.report import title
from bench.results import ScenarioResult
from bench.scenarios import Scenario

# A bar that is so many times as long as the first entry's is cut: the others would be too short to tell apart.
LONGEST = 3.0
OURS, OTHERS, OFFLINE = "#1f6f8b", "#b8bec6", "#d9a441"
PANELS: list[tuple[str, Callable[[Figures], float], Callable[[float], str]]] = [
    ("seconds", lambda one: one.seconds, lambda value: f"{value:.1f}"),
    ("WAL, MB", lambda one: one.wal / MB, lambda value: f"{value:,.0f}"),
    (
        "growth of heap and indexes, MB",
        lambda one: (one.heap_after - one.heap_before + one.indexes_after - one.indexes_before) / MB,
        lambda value: f"{value:,.0f}",
    ),
]


def draw(scenario: Scenario, result: ScenarioResult, path: Path) -> None:
    """Writes the SVG; the same figures give the same file."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "font.family": "DejaVu Sans", "font.size": 9})
    from matplotlib import pyplot

    entries = [entry for entry in scenario.entries if entry.drawn and result.of(entry.name)]
    first = entries[0].name
    # The slowest on top, as in a race seen from the finish.
    entries.sort(key=lambda entry: result.median(entry.name, "seconds") or 0)
    figure, axes = pyplot.subplots(
        1, len(PANELS), sharey=True, figsize=(11, 0.9 + 0.27 * len(entries)), layout="constrained"
    )
    for axis, (heading, measure, show) in zip(axes, PANELS, strict=True):
        medians = {entry.name: _median(result, entry.name, measure) for entry in entries}
        limit = LONGEST * medians[first]
        bars = axis.barh(
            [entry.contender.label for entry in entries],
            [min(value, limit) for value in medians.values()],
            color=[_color(name) for name in medians],
        )
        texts = [show(value) + (" (cut)" if value > limit else "") for value in medians.values()]
        axis.bar_label(bars, texts, padding=3, fontsize=8)
        axis.set_title(heading, loc="left", fontsize=9, fontweight="bold")
        # Room for the text behind the longest.
        axis.set_xlim(0, max(1e-9, min(max(medians.values()), limit)) * 1.25)
        axis.xaxis.set_visible(False)
        axis.tick_params(left=False)
        for side in ("top", "right", "bottom"):
            axis.spines[side].set_visible(False)
    figure.suptitle(title(scenario, result), fontsize=10, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
    pyplot.close(figure)


def _median(result: ScenarioResult, entry: str, measure: Callable[[Figures], float]) -> float:
    return median(measure(found) for found in result.of(entry).values())


def _color(name: str) -> str:
    if name.startswith("ours"):
        return OURS
    return OFFLINE if name == "table-rewrite" else OTHERS
