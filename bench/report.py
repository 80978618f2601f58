"""The Markdown: a table of the bars, a table for each scenario, and where it was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from statistics import median

from bench.bars import Bar, Verdict
from bench.figures import MB
from bench.results import ScenarioResult
from bench.scenarios import SCENARIOS, Entry, Scenario

Column = Callable[[ScenarioResult, str], str]
EXPLANATION = """\
How to read the tables: each way had the same copy of the table, in turn with the others, and did all of its rows. The
figures are medians. Ratio: of the seconds, to those of the first row. Heap and indexes: their sizes after, in sizes
before. HOT: share of the updates that needed no index entry. Commits: transactions that wrote. Longest: the longest
transaction, sampled each 50 ms. Memory: private memory of the largest process at work. CPU: seconds of the whole
server, and of the client where it has work to do. Pages: read or made anew; written, with a checkpoint after the end.
*backfill* runs without its closing VACUUM and ANALYZE unless the row says otherwise, as nothing else here has them. The
migration tools' statements come from a client of ours that commits per batch as they do; Django is Django itself.
Where an application uses the table, p50, p95 and p99 are those of its transactions that were due while the work was
done, from when they were due, not from when they could begin; medians of the runs, with the least and the greatest.
WAL is that of both.

In the table of bars, a limit within 20 percent of 1 is judged by pairs of runs next to each other: the geometric mean
of their ratios, and the bootstrap interval that holds it with 95 percent. The bar is unclear while the limit is inside
of the interval."""


def markdown(
    results: dict[str, ScenarioResult], plot: str | None = None, plots: Mapping[str, str] | None = None
) -> str:
    """All of it; `plots` are those of single scenarios, by name."""
    measured = [(scenario, results[scenario.name]) for scenario in SCENARIOS if scenario.name in results]
    parts = [_where(result for _, result in measured)]
    if plot:
        parts.append(f"![Seconds, WAL and growth of each way to fill a column of a million rows]({plot})")
    parts.append(_bars(measured))
    for number, (scenario, result) in enumerate(measured):
        table = _table(scenario, result) + _said(result)
        if picture := (plots or {}).get(scenario.name):
            table = f"![{scenario.title}]({picture})\n\n{table}"
        if number == 0:
            parts.append(f"**{title(scenario, result)}**\n\n{table}")
        else:
            # A reader who wants to see them all unfolds them.
            parts.append(f"<details>\n<summary>{title(scenario, result)}</summary>\n\n{table}\n\n</details>")
    return "\n\n".join([*parts, EXPLANATION]) + "\n"


def _where(results: Iterable[ScenarioResult]) -> str:
    """One sentence for each machine and commit: usually one."""
    places: dict[str, list[str]] = {}
    for result in results:
        place = f"commit {result.host.commit} on {result.host}, PostgreSQL {result.settings['PostgreSQL']}"
        places.setdefault(place, []).append(result.scenario)
    if len(places) == 1:
        return f"Measured at {next(iter(places))}."
    return "\n".join(f"- {', '.join(names)}: measured at {place}." for place, names in places.items())


def title(scenario: Scenario, result: ScenarioResult) -> str:
    """What was run, and on what settings."""
    settings = result.settings
    told = [f"shared_buffers {settings['shared_buffers']}"]
    if scenario.small_memory:
        told.append(f"memory {settings['memory']}")
    if settings["autovacuum"] == "off" and "autovacuum" not in scenario.title:
        told.append("autovacuum off")
    if application := settings.get("application"):
        told.append(application)
    rows = {figures.rows for run in result.runs if (figures := run.figures)}
    if rows and rows != {entry.dataset.rows for entry in scenario.entries}:
        told.append("run with " + " and ".join(f"{count:,}" for count in sorted(rows)) + " rows")
    return f"{scenario.title} ({', '.join(told)})"


def _bars(measured: list[tuple[Scenario, ScenarioResult]]) -> str:
    lines = ["| scenario | what | bar | measured | |", "| --- | --- | --- | --- | --- |"]
    for scenario, result in measured:
        for number, bar in enumerate(scenario.bars):
            verdict = bar.judge(result)
            name = scenario.name if number == 0 else ""
            lines.append(
                f"| {name} | {bar.text}{_against(scenario, bar, verdict)} | {limit(bar)} | {_found(bar, verdict)}"
                f" | {verdict.state if verdict.state == 'reached' else f'**{verdict.state}**'} |"
            )
    return "\n".join(lines)


def _against(scenario: Scenario, bar: Bar, verdict: Verdict) -> str:
    """Which of several it was that counted."""
    if len(bar.against) < 2 or verdict.against is None:
        return ""
    return f" ({label(scenario, verdict.against)})"


def limit(bar: Bar) -> str:
    """What is expected, in words."""
    if not bar.unit:
        return "yes"
    if bar.at_least:
        return f"{bar.at_least:.2f} to {bar.at_most:.2f} {bar.unit}"
    return f"at most {bar.at_most:.2f} {bar.unit}"


def _found(bar: Bar, verdict: Verdict) -> str:
    if verdict.value is None:
        return ""
    if not bar.unit:
        return "yes" if verdict.value >= 1 else "no"
    digits = 3 if bar.is_close else 2
    text = f"{verdict.value:.{digits}f} {bar.unit}"
    if verdict.interval:
        low, high = verdict.interval
        text += f" ({low:.{digits}f} to {high:.{digits}f}, {verdict.pairs} pairs)"
    elif bar.is_close:
        text += f" ({verdict.pairs} pair{'s' if verdict.pairs != 1 else ''}: too few)"
    return text


def _table(scenario: Scenario, result: ScenarioResult) -> str:
    columns = _columns(scenario)
    header = " | ".join(columns)
    lines = [f"| way | {header} |", "| --- |" + " ---: |" * len(columns)]
    for entry in scenario.entries:
        if result.of(entry.name):
            cells = " | ".join(column(result, entry.name) for column in columns.values())
            lines.append(f"| {entry.contender.label} | {cells} |")
        elif errors := result.errors(entry.name):
            lines.append(f"| {entry.contender.label} | failed: {_oneline(errors[0])} {'| ' * len(columns)}|")
    return "\n".join(lines)


def _said(result: ScenarioResult) -> str:
    """What the view said in the first run that it said something in."""
    for run in result.runs:
        if run.figures and run.figures.said:
            return f"\n\nThe view said meanwhile: {_oneline(' / '.join(run.figures.said))}"
    return ""


def _columns(scenario: Scenario) -> dict[str, Column]:
    if scenario.application:
        return _of_application(scenario)
    if scenario.waiter:
        return _of_waiter()
    sizes = {entry.dataset.rows for entry in scenario.entries}
    return {
        "seconds": _median("seconds", seconds),
        **({"us a row": _median("seconds_per_row", lambda value: f"{value * 1e6:.1f}")} if len(sizes) > 1 else {}),
        "ratio": _ratio(scenario.entries[0].name),
        "WAL MB": _median("wal", megabytes),
        "heap": _median("heap_growth", lambda value: f"{value:.2f}"),
        "indexes": _median("index_growth", lambda value: f"{value:.2f}"),
        "HOT": _median("hot_share", lambda value: f"{value:.0%}".replace("%", " %")),
        "commits": _median("commits", lambda value: f"{value:,.0f}"),
        "longest": _median("longest", duration),
        "memory MB": _median("memory", lambda value: f"{value / MB:.1f}"),
        "CPU s": _cpu,
        "pages read": _median("pages_read", lambda value: f"{value:,.0f}"),
        "pages written": _median("pages_written", lambda value: f"{value:,.0f}"),
        "runs": lambda result, name: str(len(result.of(name))),
    }


def _of_application(scenario: Scenario) -> dict[str, Column]:
    first = scenario.entries[0].name
    return {
        "seconds": _range("seconds", seconds),
        **{f"{name} ms": _range(name, _milliseconds) for name in ("p50", "p95", "p99")},
        "p99 ratio": _ratio(first, "p99"),
        "longest ms": _range("worst", _milliseconds),
        "transactions/s": _median("transactions", lambda value: f"{value:,.0f}"),
        "WAL MB": _median("wal", megabytes),
        "runs": lambda result, name: str(len(result.of(name))),
    }


def _of_waiter() -> dict[str, Column]:
    def of(name: str) -> Column:
        def column(result: ScenarioResult, entry: str) -> str:
            values = [getattr(found.waits, name) for found in result.of(entry).values() if found.waits]
            return _milliseconds(median(values)) if values else ""

        return column

    def waits(result: ScenarioResult, entry: str) -> str:
        return f"{sum(found.waits.count for found in result.of(entry).values() if found.waits):,}"

    return {
        "seconds": _range("seconds", seconds),
        "waits": waits,
        **{f"{name} ms": of(name) for name in ("p50", "p95", "p99")},
        "longest ms": of("worst"),
        "commits": _median("commits", lambda value: f"{value:,.0f}"),
        "runs": lambda result, name: str(len(result.of(name))),
    }


def label(scenario: Scenario, name: str) -> str:
    """How the tables call a contender."""
    return _entry(scenario, name).contender.label


def _entry(scenario: Scenario, name: str) -> Entry:
    return next(entry for entry in scenario.entries if entry.name == name)


def _median(measure: str, show: Callable[[float], str]) -> Column:
    def column(result: ScenarioResult, name: str) -> str:
        value = result.median(name, measure)
        return "" if value is None else show(value)

    return column


def _range(measure: str, show: Callable[[float], str]) -> Column:
    """The median, and the least and the greatest where there are several."""

    def column(result: ScenarioResult, name: str) -> str:
        values = [getattr(figures, measure) for figures in result.of(name).values()]
        known = sorted(value for value in values if value is not None)
        if not known:
            return ""
        text = show(median(known))
        return f"{text} ({show(known[0])} to {show(known[-1])})" if len(known) > 1 else text

    return column


def _milliseconds(value: float) -> str:
    ms = value * 1000
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}"


def _ratio(baseline: str, measure: str = "seconds") -> Column:
    def column(result: ScenarioResult, name: str) -> str:
        base, value = result.median(baseline, measure), result.median(name, measure)
        return f"{value / base:.2f}" if base and value else ""

    return column


def _cpu(result: ScenarioResult, name: str) -> str:
    server, client = result.median(name, "cpu"), result.median(name, "client_cpu")
    if server is None or client is None:
        return ""
    return seconds(server) + (f" + {seconds(client)}" if client >= 0.1 else "")


def seconds(value: float) -> str:
    """Three digits or so."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def megabytes(value: float) -> str:
    """Whole ones."""
    return f"{value / MB:,.0f}"


def duration(value: float) -> str:
    """Seconds or milliseconds."""
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def _oneline(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
