"""Rankings: for a class of jobs, every row's place, kept from one decision to the next.

A ranking looks again only at the rows that changed since it was last asked. It is derived, and
never changes a choice: what it says is what a look at all rows would say (tests hold them against
each other). The number of rankings kept is bounded; the one not asked for longest goes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from eventsched.projections.scheduling.diary import Entry, Ints, Shorts
from eventsched.projections.scheduling.filters import ALL, Bounds, Rows, bounds_of, has_room, lasting, least_room
from eventsched.projections.scheduling.fleet import Fleet, Mask
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.scores import NOBODY, Score

CELLS_MAX = 1 << 24
"""Rows times rankings kept: 150 MB at most."""
LEAST_KEPT, MOST_KEPT = 16, 2_048
"""Rankings kept, whatever the number of rows."""
MANY = 2
"""With more changes than this part of the rows, they are not looked at as they are listed, one by one."""
FEW = 48
"""So many changes at most are quicker looked at one by one, in plain integers."""
MERIT = 1 << 14
"""The merit of a row with room where no points go by what is left; no room has none, which is 0."""
_MERIT = np.array(MERIT, dtype=np.int16)

Best = tuple[int, int, int, int]
"""The best row and its points, then the second's; row -1 where there is none."""
NONE: Best = (-1, 0, -1, 0)


class Ranking(ABC):
    """One need's answer for every row, kept in step with the fleet. Equals go to the smaller row."""

    __slots__ = ("_bounds", "_fleet", "_lasting", "_need", "_score", "generation", "now", "size", "tastes")

    def __init__(self, fleet: Fleet, need: Need, score: Score) -> None:
        self._fleet, self._need, self._score = fleet, need, score
        self._bounds: Bounds = []
        self._lasting: Mask | None = None
        self.size = fleet.count
        self.generation = self.tastes = -1
        self.now = 0

    def sync(self) -> None:
        """Look at what changed."""
        fleet = self._fleet
        tastes = fleet.tastes if self._score.learns else 0
        known = self.generation == fleet.generation and self.tastes == tastes
        diary = fleet.diary
        if known and self.now == diary.now:
            return
        if not known or not diary.reaches(self.now):
            if self.generation != fleet.generation:
                self._begin()
            self._look_at_all()
            self.generation, self.tastes = fleet.generation, tastes
        else:
            self._follow(diary.now - self.now)
        self.now = diary.now

    def _begin(self) -> None:
        """Ask anew what seldom changes."""
        self._bounds = bounds_of(self._fleet, self._need)
        self._lasting = lasting(self._fleet, self._need)

    def _fitting(self, rows: Rows) -> Mask:
        """Whether rows have room now: the same for each time a row is listed."""
        fits = has_room(self._fleet, self._need, rows, self._bounds)
        if self._lasting is not None:
            fits &= self._lasting[rows]
        return fits

    @property
    @abstractmethod
    def fits(self) -> Mask:
        """Rows with room."""

    def count(self) -> int:
        """How many rows have room."""
        return int(np.count_nonzero(self.fits))

    def best(self) -> Best:
        """The best row and the second, for scores that go by row."""
        return best_of(self._score, self.ranks())

    def ranks(self) -> Ints:
        """The rank of every row, a copy; for scores that go by row."""
        return np.where(self.fits, self._score.rank(self._fleet, self._need, ALL), NOBODY)

    @abstractmethod
    def _look_at_all(self) -> None:
        """Look at every row."""

    @abstractmethod
    def _follow(self, number: int) -> None:
        """Look at the last changes of the diary."""


class ByMerit(Ranking):
    """For scores that go by what is left. merit: MERIT, more or less what is left; 0 without room.

    Most decisions follow few changes, and then a dozen calls of NumPy cost more than to look at the rows one by one.
    """

    __slots__ = ("_count", "_least", "_merit", "_per_left", "_plain", "_worth", "merit")

    def __init__(self, fleet: Fleet, need: Need, score: Score) -> None:
        super().__init__(fleet, need, score)
        self._per_left = score.per_left or 0
        self._worth = 0
        self._least = least_room(need)
        self._plain = not need.gpu_models and not need.group
        self.merit: Shorts = np.zeros(fleet.count, dtype=np.int16)
        self._merit = self.merit.data
        self._count = 0

    def _begin(self) -> None:
        super()._begin()
        self._worth = self._score.worth(self._fleet, self._need)

    def _look_at_all(self) -> None:
        self.merit[:] = self._merits(self._fleet.left) * self._fitting(ALL)
        self._count = int(np.count_nonzero(self.merit))

    def _merits(self, left: Shorts) -> Shorts | np.int16:
        if not self._per_left:
            return np.int16(MERIT)
        return left + _MERIT if self._per_left > 0 else _MERIT - left

    def _follow(self, number: int) -> None:
        fleet, merit = self._fleet, self.merit
        if number <= FEW and self._plain:
            self._follow_few(fleet.diary.last(number))
        elif number * MANY > self.size:
            self._look_at_all()
        else:
            rows = fleet.diary.since(self.now)
            merit[rows] = 0
            rows = rows[self._fitting(rows)]
            merit[rows] = self._merits(fleet.left[rows])
            self._count = int(np.count_nonzero(merit))

    def _follow_few(self, entries: list[Entry]) -> None:
        merit, lasting, per_left, count = self._merit, self._lasting, self._per_left, self._count
        least_cpu, least_memory, least_full, least_most = self._least
        for row, cpu, memory, full, most, left in entries:
            before = merit[row]
            if (
                cpu >= least_cpu
                and memory >= least_memory
                and full >= least_full
                and most >= least_most
                and (lasting is None or lasting[row])
            ):
                merit[row] = MERIT + per_left * left
                if not before:
                    count += 1
            elif before:
                merit[row] = 0
                count -= 1
        self._count = count

    @property
    def fits(self) -> Mask:
        """Rows with room."""
        return self.merit > 0

    def count(self) -> int:
        """How many rows have room."""
        return self._count

    def best(self) -> Best:
        """The best row and the second."""
        if not self._count:
            return NONE
        merit, at = self.merit, self._merit
        row = int(merit.argmax())
        kept = at[row]
        at[row] = 0
        second = int(merit.argmax())
        other = at[second]
        at[row] = kept
        if not other:
            return row, self._points(kept), -1, 0
        return row, self._points(kept), second, self._points(other)

    def _points(self, merit: int) -> int:
        return self._worth + merit - MERIT


class ByRow(Ranking):
    """For scores that give points to rows. rank: higher is better, NOBODY without room."""

    __slots__ = ("rank",)

    def __init__(self, fleet: Fleet, need: Need, score: Score) -> None:
        super().__init__(fleet, need, score)
        self.rank: Ints = np.full(fleet.count, NOBODY, dtype=np.int64)

    def _look(self, rows: Rows) -> None:
        fits = self._fitting(rows)
        self.rank[rows] = np.where(fits, self._score.rank(self._fleet, self._need, rows), NOBODY)

    def _look_at_all(self) -> None:
        self._look(ALL)

    def _follow(self, number: int) -> None:
        rows = self._fleet.diary.since(self.now)
        if number * MANY <= self.size:
            self._look(rows)
            return
        changed = np.zeros(self.size, dtype=np.bool_)
        changed[rows] = True
        self._look(changed.nonzero()[0])

    @property
    def fits(self) -> Mask:
        """Rows with room."""
        return self.rank > NOBODY

    def best(self) -> Best:
        """The best row and the second."""
        return best_of(self._score, self.rank)

    def ranks(self) -> Ints:
        """The rank of every row, a copy."""
        return self.rank.copy()


class WhoFits(Ranking):
    """For scores that look at all rows anew each time: only where there is room is kept."""

    __slots__ = ("_fits",)

    def __init__(self, fleet: Fleet, need: Need, score: Score) -> None:
        super().__init__(fleet, need, score)
        self._fits: Mask = np.zeros(fleet.count, dtype=np.bool_)

    def _look_at_all(self) -> None:
        self._fits = self._fitting(ALL)

    def _follow(self, number: int) -> None:
        if number * MANY > self.size:
            self._look_at_all()
        else:
            rows = self._fleet.diary.since(self.now)
            self._fits[rows] = self._fitting(rows)

    @property
    def fits(self) -> Mask:
        """Rows with room."""
        return self._fits


def best_of(score: Score, rank: Ints) -> Best:
    """The best row and the second by rank; `rank` is left as it was."""
    row = int(rank.argmax())
    kept = int(rank[row])
    if kept == NOBODY:
        return NONE
    rank[row] = NOBODY
    second = int(rank.argmax())
    other = int(rank[second])
    rank[row] = kept
    if other == NOBODY:
        return row, score.points_of(kept), -1, 0
    return row, score.points_of(kept), second, score.points_of(other)


class Rankings:
    """The rankings of a fleet under one score."""

    def __init__(self, fleet: Fleet, score: Score) -> None:
        self.fleet, self.score = fleet, score
        self._kind: type[Ranking] = ByMerit if score.per_left is not None else ByRow if score.by_row else WhoFits
        self._kept: dict[Need, Ranking] = {}

    def of(self, need: Need) -> Ranking:
        """The ranking for a need, up to date."""
        kept = self._kept
        ranking = kept.get(need)
        if ranking is None or ranking.size != self.fleet.count:
            kept.pop(need, None)
            if len(kept) >= self._most():
                del kept[next(iter(kept))]
            ranking = kept[need] = self._kind(self.fleet, need, self.score)
        elif len(kept) >= LEAST_KEPT and len(kept) >= self._most():  # the order only matters when one must go
            kept[need] = kept.pop(need)
        ranking.sync()
        return ranking

    def _most(self) -> int:
        return min(MOST_KEPT, max(LEAST_KEPT, CELLS_MAX // max(1, self.fleet.count)))
