"""Ratios of paired runs and how sure they are."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from statistics import fmean

RESAMPLES = 10_000
SURE = 0.95
# Below this many pairs an interval says nothing.
PAIRS = 5


def paired(ones: Mapping[int, float], others: Mapping[int, float]) -> list[float]:
    """Ratios of the runs of the same repetition."""
    return [ones[repetition] / others[repetition] for repetition in sorted(ones.keys() & others.keys())]


def center(ratios: list[float]) -> float:
    """The geometric mean: that of the inverse ratios is its inverse."""
    return math.exp(fmean(map(math.log, ratios)))


def interval(ratios: list[float]) -> tuple[float, float] | None:
    """A bootstrap interval of the center that holds it with 95 percent; None for too few pairs."""
    if len(ratios) < PAIRS:
        return None
    # The same figures give the same interval.
    draw = random.Random(0)
    means = sorted(center(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    cut = int(RESAMPLES * (1 - SURE) / 2)
    return means[cut], means[-1 - cut]
