"""What is expected of a scenario, and whether it was reached."""

from __future__ import annotations

from dataclasses import dataclass

from bench import ratios
from bench.results import ScenarioResult

# A limit in here is one of a few percent: judged by pairs and their interval.
NEAR_ONE = (0.8, 1.2)


@dataclass(frozen=True)
class Verdict:
    """`state` is reached, missed, unclear (the interval holds the limit) or not measured."""

    state: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    against: str | None = None
    pairs: int = 0


@dataclass(frozen=True)
class Bar:
    """A measure of one contender, or its ratio to that of another; of several others, the best one counts."""

    text: str
    of: str
    at_most: float
    against: tuple[str, ...] = ()
    measure: str = "seconds"
    at_least: float = 0.0
    unit: str = "x"

    @property
    def is_close(self) -> bool:
        """Whether a few percent decide."""
        return bool(self.against) and NEAR_ONE[0] <= self.at_most <= NEAR_ONE[1]

    def judge(self, result: ScenarioResult) -> Verdict:
        """Compares it with what was measured."""
        value = result.median(self.of, self.measure)
        if value is None:
            return Verdict("not measured")
        if not self.against:
            return Verdict(self._state(value, value), value)
        medians = {name: result.median(name, self.measure) for name in self.against}
        known = {name: found for name, found in medians.items() if found}
        # The best of some that did not all run may not be the best.
        if len(known) < len(self.against):
            return Verdict("not measured")
        best = min(known, key=lambda name: known[name])
        pairs = ratios.paired(self._values(result, self.of), self._values(result, best))
        if not self.is_close:
            ratio = value / known[best]
            return Verdict(self._state(ratio, ratio), ratio, None, best, len(pairs))
        if not pairs:
            return Verdict("not measured")
        ratio, interval = ratios.center(pairs), ratios.interval(pairs)
        state = self._state(*interval) if interval else "unclear"
        return Verdict(state, ratio, interval, best, len(pairs))

    def _values(self, result: ScenarioResult, entry: str) -> dict[int, float]:
        return {repetition: getattr(figures, self.measure) for repetition, figures in result.of(entry).items()}

    def _state(self, low: float, high: float) -> str:
        if self.at_least <= low and high <= self.at_most:
            return "reached"
        return "missed" if high < self.at_least or low > self.at_most else "unclear"
