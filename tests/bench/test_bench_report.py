"""What the benchmark shows, and that its scenarios are of one piece."""

from __future__ import annotations

import re
from dataclasses import fields
from itertools import pairwise

import pytest
from samples import FIGURES, HOST, result

from bench import cli, page, report
from bench.figures import Figures
from bench.results import Run, ScenarioResult
from bench.scenarios import MAIN, SCENARIOS, Scenario

SETTINGS = {"PostgreSQL": "16.1", "shared_buffers": "2GB", "autovacuum": "on", "memory": "not limited"}
by_name = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


def full(scenario: Scenario) -> ScenarioResult:
    """As if every contender had run once."""
    runs = [Run(entry.name, 0, FIGURES) for entry in scenario.entries]
    return ScenarioResult(scenario.name, HOST, SETTINGS, runs)


@by_name
def test_entries_have_names_of_their_own_and_bars_know_them(scenario: Scenario) -> None:
    """A misspelt name would make a bar that is never measured."""
    names = [entry.name for entry in scenario.entries]
    assert len(set(names)) == len(names)
    assert {name for bar in scenario.bars for name in (bar.of, *bar.against)} <= set(names)


@by_name
def test_bars_measure_what_there_is(scenario: Scenario) -> None:
    """Fields and properties of the figures."""
    known = {item.name for item in fields(Figures)} | {name for name in vars(Figures) if not name.startswith("_")}
    assert {bar.measure for bar in scenario.bars} <= known


@by_name
def test_bars_of_a_few_percent_get_the_pairs_they_need(scenario: Scenario) -> None:
    """Else they would stay unclear for ever."""
    times = {entry.name: entry.repetitions or scenario.repetitions for entry in scenario.entries}
    for bar in scenario.bars:
        if bar.is_close:
            assert min(times[name] for name in (bar.of, *bar.against)) >= 5, bar.text


def test_neighbours_share_a_server() -> None:
    """Each server is filled with tables anew: settings that come back would cost that twice."""
    confs = [(*scenario.conf.items(), scenario.small_memory) for scenario in SCENARIOS]
    changes = sum(one != other for one, other in pairwise(confs))
    assert changes == len(set(confs)) - 1


def test_the_report_has_a_table_for_each_scenario() -> None:
    """All rows of a table have as many cells as its head."""
    text = report.markdown({scenario.name: full(scenario) for scenario in SCENARIOS}, "bench.svg")
    assert "![" in text and HOST.commit in text
    for scenario in SCENARIOS:
        assert scenario.title in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert len(tables) == 1 + len(SCENARIOS)
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_a_failure_is_in_the_report_and_breaks_no_table() -> None:
    """Also one that has lines and bars in it."""
    found = full(MAIN)
    found.runs[0] = Run(MAIN.entries[0].name, 0, None, "broken | in\ntwo")
    text = report.markdown({MAIN.name: found})
    assert "failed: broken \\| in two" in text


def test_the_text_between_the_markers_is_replaced() -> None:
    """And nothing else."""
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    once = page.replace_between(text, "new\n")
    assert once == f"before\n{page.BEGIN}\nnew\n{page.END}\nafter\n"
    assert page.replace_between(once, "new") == once


@pytest.mark.parametrize("text", ["", page.BEGIN, page.END + page.BEGIN, 2 * (page.BEGIN + page.END)])
def test_a_file_without_its_markers_is_left_alone(text: str) -> None:
    """An error, not a guess."""
    with pytest.raises(ValueError, match="once each"):
        page.replace_between(text, "new")


def test_the_page_has_its_markers() -> None:
    """Else the report has nowhere to go."""
    text = cli.PAGE.read_text()
    assert "new" in page.replace_between(text, "new")


def test_quick_is_small_and_complete() -> None:
    """Every contender once; no table is larger than it says."""
    chosen = cli.choose(cli.parser().parse_args(["--quick"]))
    assert [scenario.name for scenario in chosen] == [scenario.name for scenario in SCENARIOS]
    assert {entry.dataset.rows for scenario in chosen for entry in scenario.entries} == {cli.QUICK_ROWS}
    assert all((entry.repetitions or scenario.repetitions) == 1 for scenario in chosen for entry in scenario.entries)


def test_names_choose() -> None:
    """With the shell's wildcards; a scenario without such a contender is left out."""
    chosen = cli.choose(cli.parser().parse_args(["-s", "ma*", "uuid", "-c", "ours-waves-*", "-r", "2"]))
    assert [scenario.name for scenario in chosen] == ["main"]
    assert {entry.name for entry in chosen[0].entries} == {f"ours-waves-{k}" for k in (8, 12, 16, 24)}
    assert chosen[0].repetitions == 2


def test_the_plot_is_the_same_for_the_same_figures(tmp_path) -> None:
    """So that a commit of it shows a change."""
    from bench import plot

    found = result(**{entry.name: [1.0, 2.0] for entry in MAIN.entries})
    found.settings = SETTINGS
    for name in ("one.svg", "two.svg"):
        plot.draw(MAIN, found, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
