"""Small statistics: nearest rank, Jain's index, an interval by bootstrap. Deterministic to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from eventsched.projections.simulation import chance

RESAMPLES = 1_000


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def nearest_rank(values: Sequence[float], percent: int) -> float:
    """The smallest value that at least `percent` % do not exceed; values are in order."""
    if not values:
        return 0.0
    return values[max(1, -(-len(values) * percent // 100)) - 1]


def jain(values: Sequence[float]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the mean, by drawing again from the values (with a fixed counter)."""
    means = sorted(sum(values[index] for index in drawn) / len(values) for drawn in _draws(len(values)))
    cut = RESAMPLES * 25 // 1_000
    return means[cut - 1], means[-cut]


@cache
def _draws(count: int) -> list[list[int]]:
    return [[chance.below(count, 95, sample, index) for index in range(count)] for sample in range(RESAMPLES)]
