"""Scores: how good a feasible node is, in integer points, higher is better.

Equal points go to the node with the least left over where a score says so, and then to the smallest
node id (rows are in id order). A score's rule is part of the name and version of every policy that
uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eventsched.projections.cluster.state import Job
from eventsched.projections.scheduling.costs import cost_aware_points, cost_aware_terms, expected_cost_points
from eventsched.projections.scheduling.diary import Ints
from eventsched.projections.scheduling.fgd import fgd_pick, fgd_points
from eventsched.projections.scheduling.filters import Rows, whole
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.layouts import WHOLE
from eventsched.projections.scheduling.needs import PLAIN, Looks, Need

NOBODY = -(2**62)
"""The rank of a row without room."""
_LEFT_BITS = 20
POINTS_MAX = 2**40
"""Points of a kept score are no larger than this, either way."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What makes a random choice: the policy's seed, and a number no other choice has."""

    seed: int = 0
    number: int = 0


Points = Callable[[Fleet, Need, Ints, Draw], Ints]
RowPoints = Callable[[Fleet, Need, Rows], Ints]
Pick = Callable[[Fleet, Need, int, Sequence[int]], int]
"""Which of a row's devices gets a share, of those with room for it; all alike: the first."""
Terms = Callable[[Fleet, Need, int, Job], dict[str, int]]


def tightest(fleet: Fleet, need: Need, row: int, devices: Sequence[int]) -> int:
    """The device with the least left."""
    return min(devices, key=fleet.levels[row].__getitem__)


def anyone(fleet: Fleet, need: Need, row: int, devices: Sequence[int]) -> int:
    """Any device, without a preference: as it falls out of the node's number and what is free there."""
    return devices[(row + sum(fleet.levels[row])) % len(devices)]


@dataclass(frozen=True, slots=True)
class Score:
    """One score: a summary, and points for rows, given in one of three ways.

    points: looks at all feasible rows at once. by_row: a row's points depend only on the row and the need;
    then answers are kept between decisions. per_left: they depend only on what is left there for the need:
    so many points for each part of it (-1, 0 or 1).

    least_left: between equal points of by_row, the least left over decides before the node id. unit:
    points that are worth a thousand of another score's in a sum. shown: divisor of points for people.
    pick: the device for a share. learns: points depend on the jobs that are typical. terms: the parts of
    the points, for people; what all nodes have alike included. looks: what makes classes.
    """

    summary: str
    points: Points | None = None
    by_row: RowPoints | None = None
    per_left: int | None = None
    least_left: bool = False
    unit: int = 1_000
    shown: int = 1
    pick: Pick = tightest
    learns: bool = False
    terms: Terms | None = None
    looks: Looks = PLAIN

    def rank(self, fleet: Fleet, need: Need, rows: Rows) -> Ints:
        """Points and tie rule in one number, for scores that go by row."""
        points = self.of_rows(fleet, need, rows)
        return (points << _LEFT_BITS) - fleet.spare(rows) if self.least_left else points

    def of_rows(self, fleet: Fleet, need: Need, rows: Rows) -> Ints:
        """Points by row."""
        if self.per_left is not None:
            points: Ints = self.worth(fleet, need) + self.per_left * fleet.left[rows].astype(np.int64)
            return points
        assert self.by_row is not None
        return self.by_row(fleet, need, rows)

    def worth(self, fleet: Fleet, need: Need) -> int:
        """The points of a row where nothing is left, for scores that go by what is left."""
        return -self.per_left * asked_parts(fleet, need) if self.per_left else 0

    def points_of(self, rank: int) -> int:
        """The points that a rank was made of."""
        return -(-rank >> _LEFT_BITS) if self.least_left else rank


def asked_parts(fleet: Fleet, need: Need) -> int:
    """What a need takes of what is `left`."""
    cpu = need.cpu_millis * WHOLE // fleet.cpu_largest
    if fleet.memory_largest:
        return cpu + need.memory_bytes * WHOLE // fleet.memory_largest
    return cpu + whole(need) * WHOLE // fleet.gpu_largest


def dot_product(fleet: Fleet, need: Need, rows: Rows) -> Ints:
    """The smaller the product of what is free and what is asked, the better (Tetris turned around, as in
    the FGD study): cpu and GPUs of the largest node's, in halves of a hundredth: finer, it would fill worse."""
    cpu = (fleet.cpu_free[rows] * WHOLE // fleet.cpu_largest) * (need.cpu_millis * WHOLE // fleet.cpu_largest)
    gpu = (fleet.gpu_millis[rows] * WHOLE // fleet.gpu_largest) * (whole(need) * WHOLE // fleet.gpu_largest)
    points: Ints = -((cpu + gpu) // (20 * WHOLE))
    return points


def packing(fleet: Fleet, need: Need, rows: Rows) -> Ints:
    """Fill what is begun: for a share, the fullest device that is shared already, then a node with GPUs in
    use; for whole GPUs, the node with most of them in use. Jobs without GPUs go where fewest are free."""
    total, full = fleet.gpu_devices[rows], fleet.gpu_full[""][rows]
    begun = (total - full) * WHOLE // np.maximum(total, 1)
    if not need.gpu_millis:
        return np.where(total == 0, WHOLE, begun)
    levels = fleet.matrix[rows]
    shared = np.where((levels < WHOLE) & (levels >= need.gpu_millis), levels, WHOLE).min(axis=1)
    points: Ints = np.where(shared < WHOLE, 3 * WHOLE - shared, begun)
    return points


def random(fleet: Fleet, need: Need, rows: Ints, draw: Draw) -> Ints:
    """Every node alike, drawn by counter: the same seed and choice give the same node for ever."""
    mixed = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed += np.uint64((draw.seed * 0xD1342543DE82EF95 + draw.number * 0xBF58476D1CE4E5B9) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    points: Ints = (mixed >> np.uint64(12)).astype(np.int64)  # 52 bits: what an event may carry
    return points


def weighted(parts: Mapping[str, tuple[Score, int]]) -> Score:
    """The sum of several scores, each times its weight and in its own unit."""
    scores = list(parts.values())

    def points(fleet: Fleet, need: Need, rows: Ints, draw: Draw) -> Ints:
        total = np.zeros(len(rows), dtype=np.int64)
        for score, weight in scores:
            one = score.points(fleet, need, rows, draw) if score.points else score.of_rows(fleet, need, rows)
            total = total + weight * (one * WHOLE // score.unit)
        return total

    def by_row(fleet: Fleet, need: Need, rows: Rows) -> Ints:
        found = points(fleet, need, np.arange(fleet.count, dtype=np.int64)[rows], Draw())
        return np.clip(found, -POINTS_MAX, POINTS_MAX)

    def terms(fleet: Fleet, need: Need, row: int, job: Job) -> dict[str, int]:
        one = np.array([row], dtype=np.int64)
        return {
            name: weight * (int(score.of_rows(fleet, need, one)[0]) * WHOLE // score.unit)
            for name, (score, weight) in parts.items()
            if score.points is None
        }

    kept = all(score.points is None for score, _ in scores)
    heaviest = max(scores, key=lambda one: (one[0].pick is not tightest, one[1]))[0]
    looks = Looks(*(any(one) for one in zip(*(score.looks for score, _ in scores), strict=True)))
    return Score(
        " + ".join(f"{weight} x {name}" for name, (_, weight) in parts.items()),
        points=None if kept else points,
        by_row=by_row if kept else None,
        least_left=kept and any(score.least_left for score, _ in scores),
        pick=heaviest.pick,
        learns=any(score.learns for score, _ in scores),
        terms=terms,
        looks=looks,
    )


SCORES: dict[str, Score] = {
    "first-fit": Score("the first node that fits, by id", per_left=0),
    "best-fit": Score("the node with the least left over", per_left=-1),
    "spread": Score("the node with the most left over", per_left=1),
    "dot-product": Score(
        "the node whose free resources match the request least (keeps the rest useful)", by_row=dot_product
    ),
    "packing": Score("fill GPUs and nodes that are begun; then the least left over", by_row=packing, least_left=True),
    "fgd": Score(
        "the node whose free GPUs lose least of their use for the jobs this cluster gets; then the least left over",
        by_row=fgd_points,
        least_left=True,
        unit=25,  # a GPU lost to everybody
        pick=fgd_pick,
        learns=True,
    ),
    "cost-aware": Score(
        "0.2 cost + 0.3 priority + 0.2 SLA + 0.2 reschedule + 0.1 resource, in millionths",
        by_row=cost_aware_points,
        unit=10**12,
        shown=10**6,
        terms=cost_aware_terms,
        looks=Looks(sla=True),
    ),
    "expected-cost": Score(
        "the node that is expected to cost least: price, and work lost when a spot node is taken away",
        by_row=expected_cost_points,
        least_left=True,
        looks=Looks(estimate=True),
    ),
    "random": Score("any node, drawn by counter", points=random, pick=anyone),
}
