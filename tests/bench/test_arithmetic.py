"""What the benchmark concludes from figures: ratios, intervals, verdicts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from samples import FIGURES, result

from bench import ratios
from bench.bars import Bar
from bench.results import Run, load


def test_pairs_are_runs_of_the_same_repetition() -> None:
    """A repetition that one of the two has not, or failed in, is no pair."""
    assert ratios.paired({0: 2.0, 1: 3.0, 3: 8.0}, {0: 1.0, 2: 5.0, 3: 2.0}) == [2.0, 4.0]


def test_the_center_of_inverse_ratios_is_the_inverse() -> None:
    """So that it does not matter which of two comes first."""
    assert ratios.center([2.0, 0.5]) == pytest.approx(1)
    assert ratios.center([2.0, 8.0]) == pytest.approx(4)


def test_the_interval_holds_the_center_and_narrows_with_agreement() -> None:
    """And is the same each time."""
    wide, narrow = [0.8, 1.3, 0.9, 1.1, 1.0, 1.2], [1.0, 1.01, 0.99, 1.0, 1.02, 0.98]
    low, high = ratios.interval(wide) or (0, 0)
    assert 0.8 < low < ratios.center(wide) < high < 1.3
    assert ratios.interval(wide) == (low, high)
    tight = ratios.interval(narrow) or (0, 9)
    assert tight[1] - tight[0] < (high - low) / 5


def test_too_few_pairs_have_no_interval() -> None:
    """Three runs can't tell a few percent."""
    assert ratios.interval([1.0, 1.0, 1.0]) is None


@pytest.mark.parametrize(("seconds", "state"), [(2.9, "reached"), (3.0, "reached"), (3.1, "missed")])
def test_a_factor_is_judged_by_medians(seconds: float, state: str) -> None:
    """One run out of line moves nothing."""
    found = result(ours=[seconds, seconds, 99.0], other=[10.0, 10.0, 0.1])
    verdict = Bar("", "ours", 0.30, ("other",)).judge(found)
    assert (verdict.state, verdict.value) == (state, pytest.approx(seconds / 10))


@pytest.mark.parametrize(("factor", "state"), [(1.0, "reached"), (1.1, "unclear"), (1.2, "missed")])
def test_a_few_percent_are_judged_by_the_interval(factor: float, state: str) -> None:
    """Pairs are compared: that the machine was slow in half of them does not widen the interval."""
    other = [10.0, 20.0, 10.0, 20.0, 10.0, 20.0]
    ours = [value * factor * noise for value, noise in zip(other, [1.02, 0.98, 1.01, 0.99, 1.03, 0.97], strict=True)]
    verdict = Bar("", "ours", 1.10, ("other",)).judge(result(ours=ours, other=other))
    assert verdict.state == state
    assert verdict.interval and verdict.interval[1] - verdict.interval[0] < 0.05


def test_a_few_percent_are_unclear_with_few_pairs() -> None:
    """However far the figures are from the limit."""
    verdict = Bar("", "ours", 1.10, ("other",)).judge(result(ours=[1.0], other=[2.0]))
    assert (verdict.state, verdict.interval, verdict.pairs) == ("unclear", None, 1)


def test_a_band_can_be_missed_on_both_sides() -> None:
    """Being quicker than expected is a difference, too."""
    bar = Bar("", "ours", 1.1, ("other",), at_least=0.9)
    found = {value: bar.judge(result(ours=[value] * 6, other=[1.0] * 6)).state for value in (0.8, 1.0, 1.2)}
    assert found == {0.8: "missed", 1.0: "reached", 1.2: "missed"}


def test_of_several_others_the_best_counts() -> None:
    """Quicker than each is quicker than the quickest."""
    verdict = Bar("", "ours", 0.4, ("slow", "quick")).judge(result(ours=[3.0], slow=[100.0], quick=[6.0]))
    assert (verdict.state, verdict.against, verdict.value) == ("missed", "quick", 0.5)


def test_a_bar_is_not_measured_while_one_of_the_others_is_missing() -> None:
    """It might have been the best."""
    bar = Bar("", "ours", 0.4, ("slow", "quick"))
    assert bar.judge(result(ours=[1.0], slow=[100.0])).state == "not measured"
    assert bar.judge(result(slow=[1.0], quick=[1.0])).state == "not measured"


def test_growth_is_compared_with_itself() -> None:
    """No other contender is needed."""
    found = result(ours=[1.0])
    assert Bar("", "ours", 1.20, measure="heap_growth").judge(found).state == "reached"
    assert Bar("", "ours", 1.29, measure="index_growth").judge(found).state == "missed"
    assert Bar("", "ours", 1.0, measure="toast_growth").judge(found).value == 1


def test_only_words_about_the_horizon_are_a_notice_of_it() -> None:
    """Other notes are no excuse."""
    assert replace(FIGURES, said=["an open transaction (pid 7) holds back the xmin horizon"]).noticed == 1
    assert replace(FIGURES, said=["1 of 2 workers"]).noticed == 0
    assert FIGURES.noticed == 0


def test_results_survive_the_disk(tmp_path) -> None:
    """Failures included."""
    saved = result(ours=[1.0, 2.0])
    saved.runs.append(Run("other", 0, None, "it broke"))
    saved.save(tmp_path)
    assert load(tmp_path) == {"some": saved}
    assert load(tmp_path)["some"].errors("other") == ["it broke"]
