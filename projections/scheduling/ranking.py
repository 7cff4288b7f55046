"""Rankings: for a class of jobs, every row's place, kept from one decision to the next.

A ranking looks again only at the rows that changed since it was last asked. It is derived, and
never changes a choice: what it says is what a look at all rows would say (tests hold them against
each other). The number of rankings kept is bounded; the one not asked for longest goes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eventsched.projections.scheduling.filters import ALL, Rows, has_room, lasting, least_room
from eventsched.projections.scheduling.fleet import Fleet, Ints, Mask, Shorts
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.scores import BLOCKED, NOBODY, Score

CELLS_MAX = 1 << 24
"""Rows times rankings kept: 150 MB at most."""
LEAST_KEPT = 16
MANY = 16
"""With more changes than this part of the rows, they are not looked at as they are listed, one by one."""


class Best(NamedTuple):
    """A row and its points; row is -1 where there is none."""

    row: int
    points: int


NONE = Best(-1, 0)


class Ranking:
    """One need's answer. fits: where there is room; `rank` or `blocked` beside it, as the score counts.

    rank: higher is better, NOBODY without room. blocked: 0, or BLOCKED without room. Equals go to the
    smaller row.
    """

    __slots__ = (
        "_costs",
        "_fleet",
        "_lasting",
        "_least",
        "_need",
        "_score",
        "blocked",
        "fits",
        "generation",
        "now",
        "rank",
    )

    def __init__(self, fleet: Fleet, need: Need, score: Score) -> None:
        self._fleet, self._need, self._score = fleet, need, score
        self.fits: Mask = np.zeros(fleet.count, dtype=np.bool_)
        self.rank: Ints = np.full(fleet.count if score.by_row else 0, NOBODY, dtype=np.int64)
        self.blocked: Shorts = np.full(fleet.count if score.cost else 0, BLOCKED, dtype=np.int16)
        self._costs = np.zeros_like(self.blocked)
        self._least = least_room(need)
        self.generation = -1
        self.now = 0

    def sync(self) -> None:
        """Look at what changed."""
        fleet = self._fleet
        rows = fleet.since(self.now) if self.generation == fleet.generation else None
        if rows is None:
            if self.generation != fleet.generation:
                self._lasting = lasting(fleet, self._need)
            self._look(ALL)
        elif len(rows) * MANY > fleet.count:
            if self._score.by_row is None:
                self._look(ALL)  # cheap, and then cheaper than to pick out rows
            else:
                changed = np.zeros(fleet.count, dtype=np.bool_)
                changed[rows] = True
                self._look(changed.nonzero()[0])
        elif len(rows):
            self._look(rows)
        self.generation, self.now = fleet.generation, fleet.now

    def _look(self, rows: Rows) -> None:
        fits = has_room(self._fleet, self._need, rows, self._least)
        if self._lasting is not None:
            fits &= self._lasting[rows]
        self.fits[rows] = fits
        if self._score.cost is not None:
            self.blocked[rows] = np.multiply(~fits, BLOCKED, dtype=np.int16)
        elif self._score.by_row is not None:
            self.rank[rows] = np.where(fits, self._score.rank(self._fleet, self._need, rows), NOBODY)

    def count(self) -> int:
        """How many rows have room."""
        return int(np.count_nonzero(self.fits))

    def best(self) -> tuple[Best, Best]:
        """The best row and the second, for scores that go by row."""
        score = self._score
        if score.cost is None:
            return best_of(score, self.rank)
        worth = score.worth(self._fleet, self._need)
        costs = np.maximum(score.cost(self._fleet), self.blocked, out=self._costs)
        row = int(costs.argmin())
        cost, costs[row] = int(costs[row]), BLOCKED
        second = int(costs.argmin())
        other = int(costs[second])
        return Best(row, worth - cost), NONE if other == BLOCKED else Best(second, worth - other)

    def ranks(self) -> Ints:
        """The rank of every row, a copy; for scores that go by row."""
        if self._score.by_row is not None:
            return self.rank.copy()
        return np.where(self.fits, self._score.rank(self._fleet, self._need, ALL), NOBODY)


def best_of(score: Score, rank: Ints) -> tuple[Best, Best]:
    """The best row and the second by rank; `rank` is left as it was."""
    row = int(rank.argmax())
    kept = int(rank[row])
    if kept == NOBODY:
        return NONE, NONE
    rank[row] = NOBODY
    second = int(rank.argmax())
    other = int(rank[second])
    rank[row] = kept
    return Best(row, score.points_of(kept)), NONE if other == NOBODY else Best(second, score.points_of(other))


class Rankings:
    """The rankings of a fleet under one score."""

    def __init__(self, fleet: Fleet, score: Score) -> None:
        self.fleet, self.score = fleet, score
        self._kept: dict[Need, Ranking] = {}

    def of(self, need: Need) -> Ranking:
        """The ranking for a need, up to date."""
        ranking = self._kept.pop(need, None)
        if ranking is None or len(ranking.fits) != self.fleet.count:
            ranking = Ranking(self.fleet, need, self.score)
            if len(self._kept) >= max(LEAST_KEPT, CELLS_MAX // max(1, self.fleet.count)):
                del self._kept[next(iter(self._kept))]
        self._kept[need] = ranking
        ranking.sync()
        return ranking
