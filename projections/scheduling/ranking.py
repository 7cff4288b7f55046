"""Rankings: for a class of jobs, every row's place, kept from one decision to the next.

A ranking looks again only at the rows that changed since it was last asked. It is derived, and
never changes a choice: what it says is what a look at all rows would say (tests hold them against
each other). The number of rankings kept is bounded; the one not asked for longest goes.
"""

from __future__ import annotations

import numpy as np

from eventsched.projections.scheduling.filters import ALL, Rows, has_room, lasting
from eventsched.projections.scheduling.fleet import Fleet, Ints, Mask
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.scores import NOBODY, Draw, Score

CELLS_MAX = 1 << 24
"""Rows times rankings kept: 150 MB."""
LEAST_KEPT = 16


class Ranking:
    """One need's answer. rank: higher is better, NOBODY where there is no room; fits: where there is.

    Equal ranks go to the smaller row. `rank` is left out (all 0) for scores that look at more than a row.
    """

    __slots__ = ("_fleet", "_lasting", "_need", "_score", "fits", "generation", "now", "rank")

    def __init__(self, fleet: Fleet, need: Need, score: Score) -> None:
        self._fleet, self._need, self._score = fleet, need, score
        self.rank: Ints = np.full(fleet.count, NOBODY, dtype=np.int64)
        self.fits: Mask = np.zeros(fleet.count, dtype=np.bool_)
        self.generation = -1
        self.now = 0

    def sync(self) -> None:
        """Look at what changed."""
        fleet = self._fleet
        rows = fleet.since(self.now) if self.generation == fleet.generation else None
        if rows is None or len(rows) > fleet.count:
            if self.generation != fleet.generation:
                self._lasting = lasting(fleet, self._need)
            self._look(ALL)
        elif len(rows):
            self._look(rows)
        self.generation, self.now = fleet.generation, fleet.now

    def _look(self, rows: Rows) -> None:
        fits = has_room(self._fleet, self._need, rows)
        if self._lasting is not None:
            fits &= self._lasting[rows]
        self.fits[rows] = fits
        self.rank[rows] = np.where(fits, self._score.rank(self._fleet, self._need, rows), NOBODY)

    def count(self) -> int:
        """How many rows have room."""
        return int(np.count_nonzero(self.fits))


class Rankings:
    """The rankings of a fleet under one score."""

    def __init__(self, fleet: Fleet, score: Score) -> None:
        self.fleet, self.score = fleet, score
        self._kept: dict[Need, Ranking] = {}

    def of(self, need: Need) -> Ranking:
        """The ranking for a need, up to date."""
        ranking = self._kept.pop(need, None)
        if ranking is None or len(ranking.rank) != self.fleet.count:
            ranking = Ranking(self.fleet, need, self.score)
            if len(self._kept) >= max(LEAST_KEPT, CELLS_MAX // max(1, self.fleet.count)):
                del self._kept[next(iter(self._kept))]
        self._kept[need] = ranking
        ranking.sync()
        return ranking


__all__ = ["Draw", "Ranking", "Rankings"]
