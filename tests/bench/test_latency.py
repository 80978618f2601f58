"""What the benchmark makes of an application's transactions."""

from __future__ import annotations

import xml.etree.ElementTree
from dataclasses import replace

import pytest
from samples import FIGURES, HOST

from bench import foreground_plot, report
from bench.latency import Latency, Second, Transaction, Waits, of_window, parse_log, percentile, summary
from bench.results import Run, ScenarioResult, load
from bench.scenarios import FOREGROUND, LOCK_WAITER

SETTINGS = {
    "PostgreSQL": "16.1",
    "shared_buffers": "2GB",
    "autovacuum": "on",
    "memory": "not limited",
    "application": "pgbench, 8 clients, 100 transactions a second",
}
LATENCY = Latency(3, 0.001, 0.002, 0.0034, 0.5, [Second(0, 2, 0.001, 0.0034, 0.0034), Second(1, 1, 0.5, 0.5, 0.5)])


def measured(p99: dict[str, list[float]]) -> ScenarioResult:
    """An application that saw such latencies, run after run."""
    runs = [
        Run(entry, repetition, replace(FIGURES, latency=replace(LATENCY, p99=value)))
        for entry, values in p99.items()
        for repetition, value in enumerate(values)
    ]
    return ScenarioResult(FOREGROUND.name, HOST, SETTINGS, runs)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """The least one that so large a share does not exceed, also of a few."""
    hundred = [float(n) for n in range(1, 101)]
    assert [percentile(hundred, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert [percentile([7.0], share) for share in (0.0, 0.5, 1.0)] == [7, 7, 7]
    assert summary([3.0, 1.0, 2.0]) == (2, 3, 3, 3)


def test_latency_counts_from_when_a_transaction_was_due() -> None:
    """The log's time holds the lag, its stamps are of the end."""
    assert parse_log(["3 17 1500000 0 1700000010 500000 400000\n"]) == [Transaction(1700000009.0, 1.5)]


def test_who_waits_for_the_end_of_the_work_counts() -> None:
    """Due in the window, done long after it. Those due before or after it do not count, whenever they were done."""
    due = [Transaction(9.9, 50.0), Transaction(10.0, 30.0), Transaction(10.5, 0.1), Transaction(11.2, 0.2)]
    seen = of_window([*due, Transaction(12.0, 60.0)], 10.0, 12.0)
    assert (seen.count, seen.p50, seen.worst) == (3, 0.2, 30.0)
    assert [(one.second, one.count, one.worst) for one in seen.timeline] == [(0, 2, 30.0), (1, 1, 0.2)]


def test_nothing_due_is_no_result() -> None:
    """Rather than the latency of nobody."""
    with pytest.raises(AssertionError, match="no transaction"):
        of_window([Transaction(1.0, 0.1)], 2.0, 3.0)


def test_what_was_seen_survives_the_file(tmp_path) -> None:
    """Also what is made of several parts."""
    found = measured({"idle": [0.002]})
    found.runs.append(Run("ours", 0, replace(FIGURES, waits=Waits(9, 0.1, 0.2, 0.3, 0.4))))
    found.save(tmp_path)
    assert load(tmp_path)[FOREGROUND.name].runs == found.runs


def test_the_table_has_the_median_and_the_range_and_the_ratio_to_nothing_else() -> None:
    """Of the runs."""
    text = report.markdown({FOREGROUND.name: measured({"idle": [0.002, 0.001, 0.004], "ours": [0.003, 0.003, 0.003]})})
    [idle] = [line for line in text.splitlines() if line.startswith("| nothing else")]
    [ours] = [line for line in text.splitlines() if line.startswith("| backfill, full speed |")]
    assert "2.0 (1.0 to 4.0) | 1.00 |" in idle and "3.0 (3.0 to 3.0) | 1.50 |" in ours
    assert SETTINGS["application"] in text


def test_waits_of_all_runs_are_shown() -> None:
    """Their number is the sum, the others medians."""
    name = LOCK_WAITER.entries[0].name
    runs = [Run(name, n, replace(FIGURES, waits=Waits(1000, 0.01, 0.02, 0.03 + n / 100, 0.5))) for n in range(3)]
    text = report.markdown({LOCK_WAITER.name: ScenarioResult(LOCK_WAITER.name, HOST, SETTINGS, runs)})
    assert "| 3,000 | 10.0 | 20.0 | 40.0 | 500 |" in text
    # 40 ms are just what is allowed with target_ms 20.
    [bar] = [line for line in text.splitlines() if line.startswith("| lock-waiter")]
    assert bar.endswith("| 0.04 s | reached |")


def test_the_picture_of_latency_is_the_same_for_the_same_figures(tmp_path) -> None:
    """So that a commit of it shows a change; a contender that was not run is left out."""
    found = measured({entry.name: [0.001, 0.002] for entry in FOREGROUND.entries[:3]})
    for name in ("one.svg", "two.svg"):
        foreground_plot.draw(FOREGROUND, found, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert xml.etree.ElementTree.parse(tmp_path / "one.svg").getroot().tag.endswith("svg")
