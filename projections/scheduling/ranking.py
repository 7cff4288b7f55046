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
LEAST_KEPT, MOST_KEPT = 16, 2_048
"""Rankings kept, whatever the number of rows."""
MANY = 16
"""With more changes than this part of the rows, they are not looked at as they are listed, one by one."""


class Best(NamedTuple):
    """A row and its points; row is -1 where there is none."""

    row: int
    points: int


NONE = Best(-1, 0)
_AS_COST = np.array((BLOCKED, 0), dtype=np.int16)


class Ranking:
    """One need's answer: `rank`, `blocked` or `fits`, as the score counts.

    rank: higher is better, NOBODY without room. blocked: 0, or BLOCKED without room. fits: where there is
    room. Equals go to the smaller row.
    """

    __slots__ = (
        "_costs",
        "_fits",
        "_fleet",
        "_lasting",
        "_least",
        "_need",
        "_score",
        "_worth",
        "blocked",
        "generation",
        "now",
        "rank",
        "size",
        "tastes",
    )  # fmt: skip

    def __init__(self, fleet: Fleet, need: Need, score: Score) -> None:
        self._fleet, self._need, self._score = fleet, need, score
        self._fits: Mask = np.zeros(0 if score.cost else fleet.count, dtype=np.bool_)
        self.rank: Ints = np.full(fleet.count if score.by_row else 0, NOBODY, dtype=np.int64)
        self.blocked: Shorts = np.full(fleet.count if score.cost else 0, BLOCKED, dtype=np.int16)
        self._costs = np.zeros_like(self.blocked)
        self._least = least_room(need)
        self._worth = 0
        self.size = fleet.count
        self.generation = self.tastes = -1
        self.now = 0

    def sync(self) -> None:
        """Look at what changed."""
        fleet = self._fleet
        tastes = fleet.tastes if self._score.learns else 0
        known = self.generation == fleet.generation and self.tastes == tastes
        rows = fleet.since(self.now) if known else None
        if rows is None:
            if self.generation != fleet.generation:
                self._lasting = lasting(fleet, self._need)
                self._worth = self._score.worth(fleet, self._need)
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
        self.generation, self.tastes, self.now = fleet.generation, tastes, fleet.now

    def _look(self, rows: Rows) -> None:
        fits = has_room(self._fleet, self._need, rows, self._least)
        if self._lasting is not None:
            fits &= self._lasting[rows]
        if self._score.cost is not None:
            self.blocked[rows] = _AS_COST.take(fits.view(np.int8))
            return
        self._fits[rows] = fits
        if self._score.by_row is not None:
            self.rank[rows] = np.where(fits, self._score.rank(self._fleet, self._need, rows), NOBODY)

    @property
    def fits(self) -> Mask:
        """Rows with room."""
        return self._fits if self._score.cost is None else self.blocked == 0

    def count(self) -> int:
        """How many rows have room."""
        if self._score.cost is None:
            return int(np.count_nonzero(self._fits))
        return len(self.blocked) - int(np.count_nonzero(self.blocked))

    def best(self) -> tuple[Best, Best]:
        """The best row and the second, for scores that go by row."""
        score = self._score
        if score.cost is None:
            return best_of(score, self.rank)
        worth, costs = self._worth, self._costs
        np.maximum(score.cost(self._fleet), self.blocked, out=costs)
        row = int(costs.argmin())
        cost = costs.item(row)
        if cost == BLOCKED:
            return NONE, NONE
        costs[row] = BLOCKED
        second = int(costs.argmin())
        other = costs.item(second)
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
        kept, most = self._kept, min(MOST_KEPT, max(LEAST_KEPT, CELLS_MAX // max(1, self.fleet.count)))
        ranking = kept.get(need)
        if ranking is None or ranking.size != self.fleet.count:
            kept.pop(need, None)
            if len(kept) >= most:
                del kept[next(iter(kept))]
            ranking = kept[need] = Ranking(self.fleet, need, self.score)
        elif len(kept) == most:  # the order only matters when one must go
            kept[need] = kept.pop(need)
        ranking.sync()
        return ranking
