"""FGD: fragmentation gradient descent, in integers (Weng et al., USENIX ATC 2023).

How fragmented a node is depends on the jobs the cluster gets: for one kind of job, the free GPU
thousandths it cannot use there (all of them, where it does not fit for cpu, GPUs or model); for
the typical kinds together (`state.typical`), the sum weighted by their numbers. A job goes where that
grows least, in steps of BUCKET thousandths: finer differences are noise, and then the least left
over decides.

Written as what is usable, the sum falls apart: a share of m thousandths can use every device with
m or more free, so a device of level l is worth l times the number of share kinds that fit into l; whole
GPUs can use all untouched devices if there are enough of them. Both are table look-ups by the node's
kind, its free cpu and the level.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.demand import TOTAL
from eventsched.projections.scheduling.diary import Ints
from eventsched.projections.scheduling.filters import ALL, Rows, whole
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.layouts import WHOLE
from eventsched.projections.scheduling.needs import Need, models_of

BUCKET = 110
_NEVER = -(2**60)


class Kind(NamedTuple):
    """One typical kind of job, and how many there were."""

    cpu_millis: int
    gpus: int
    gpu_millis: int
    models: tuple[str, ...]
    number: int


def kinds_of(typical: dict[str, int]) -> list[Kind]:
    """The typical kinds, read back from their names."""
    found = []
    for text, number in typical.items():
        if text != TOTAL:
            cpu, gpus, millis, models = text.split(":", 3)
            found.append(Kind(int(cpu), int(gpus), int(millis), models_of(models), number))
    return found


class Tables:
    """What is usable, by kind of node, free cpu (as a step of `cpus`) and level or number of devices.

    shares_flat[node kind, cpu step, level step]: how many share kinds fit; wholes_flat[node kind, cpu step, n]:
    how many kinds of whole GPUs fit into n untouched devices. usable: per row, as it is now.
    """

    def __init__(self, fleet: Fleet) -> None:
        kinds = kinds_of(fleet.typical)
        self.number = sum(kind.number for kind in kinds)
        self.most = fleet.gpu_largest // WHOLE
        cpus = sorted(dict.fromkeys(kind.cpu_millis for kind in kinds))
        levels = sorted(dict.fromkeys(kind.gpu_millis for kind in kinds if kind.gpu_millis))
        self.cpus = np.array(cpus, dtype=np.int64)
        self.step = np.searchsorted(np.array(levels, dtype=np.int64), np.arange(WHOLE + 1), side="right").astype(
            np.int64
        )
        shape = (len(fleet.layouts.kinds), len(cpus) + 1)
        shares = np.zeros((*shape, len(levels) + 1), dtype=np.int64)
        wholes = np.zeros((*shape, self.most + 1), dtype=np.int64)
        for names, row in fleet.layouts.kinds.items():
            for kind in kinds:
                if kind.models and not any(model in names for model in kind.models):
                    continue
                cpu = cpus.index(kind.cpu_millis) + 1
                if kind.gpu_millis:
                    shares[row, cpu, levels.index(kind.gpu_millis) + 1] += kind.number
                elif kind.gpus <= self.most:
                    wholes[row, cpu, kind.gpus] += kind.number
        self.cpu_steps, self.width = cpus, len(levels) + 1
        self.shares_flat: Ints = shares.cumsum(axis=1).cumsum(axis=2).ravel()
        self.wholes_flat: Ints = wholes.cumsum(axis=1).cumsum(axis=2).ravel()
        self.usable: Ints = np.zeros(fleet.count, dtype=np.int64)
        self._now = -1

    def sync(self, fleet: Fleet) -> None:
        """Bring `usable` up to date."""
        diary = fleet.diary
        if diary.now != self._now:
            where: Rows = diary.since(self._now) if diary.reaches(self._now) else ALL
            self._now = diary.now
            levels, full = fleet.matrix[where], fleet.gpu_full[""][where]
            at = self.at(fleet, where, 0)
            self.usable[where] = self.of_shares(at, levels).sum(axis=1) + self.of_wholes(at, full)

    def at(self, fleet: Fleet, rows: Rows, cpu_millis: int) -> Ints:
        """Where rows stand in both tables, flattened, when so much cpu is taken from them."""
        step = self.cpus.searchsorted(fleet.cpu_free[rows] - cpu_millis, side="right")
        found: Ints = fleet.kind[rows] * (len(self.cpus) + 1) + step
        return found

    def at_one(self, fleet: Fleet, row: int, cpu_millis: int) -> int:
        """`at` of one row."""
        step = bisect_right(self.cpu_steps, int(fleet.cpu_free[row]) - cpu_millis)
        return int(fleet.kind[row]) * (len(self.cpu_steps) + 1) + step

    def of_shares(self, at: Ints, levels: Ints) -> Ints:
        """What share kinds can use of each device."""
        found: Ints = levels * self.shares_flat.take((at * self.width)[:, None] + self.step.take(levels))
        return found

    def of_share(self, at: int, level: int) -> int:
        """What share kinds can use of one device."""
        return level * int(self.shares_flat[at * self.width + int(self.step[level])])

    def of_untouched(self, at: Ints) -> Ints:
        """What share kinds can use of an untouched device."""
        found: Ints = WHOLE * self.shares_flat.take(at * self.width + self.width - 1)
        return found

    def of_wholes(self, at: Ints, full: Ints) -> Ints:
        """What kinds of whole GPUs can use of so many untouched devices."""
        found: Ints = WHOLE * full * self.wholes_flat.take(at * (self.most + 1) + full)
        return found


def _tables(fleet: Fleet) -> Tables:
    tables = fleet.memo("fgd", Tables)
    tables.sync(fleet)
    return tables


def fgd_points(fleet: Fleet, need: Need, rows: Rows) -> Ints:
    """Minus the growth of fragmentation, in steps of BUCKET thousandths of a GPU for the average kind."""
    tables = _tables(fleet)
    if not tables.number:
        return np.zeros(fleet.count, dtype=np.int64)[rows]
    lost = tables.usable[rows] - _usable_after(fleet, tables, need, rows) - tables.number * whole(need)
    return -(lost // (tables.number * BUCKET))


def _usable_after(fleet: Fleet, tables: Tables, need: Need, rows: Rows) -> Ints:
    levels, full = fleet.matrix[rows], fleet.gpu_full[""][rows]
    at = tables.at(fleet, rows, need.cpu_millis)
    before = tables.of_shares(at, levels)
    if need.gpu_millis:
        untouched = levels == WHOLE
        after = tables.of_shares(at, np.maximum(levels - need.gpu_millis, 0)) - before
        after += np.where(
            untouched, tables.of_wholes(at, np.maximum(full - 1, 0))[:, None], tables.of_wholes(at, full)[:, None]
        )
        best: Ints = np.where(levels >= need.gpu_millis, after, _NEVER).max(axis=1)
        found: Ints = best + before.sum(axis=1)
    else:
        left = np.maximum(full - need.gpus, 0)
        lost = (full - left) * tables.of_untouched(at) - tables.of_wholes(at, left)
        found = before.sum(axis=1) - lost
    return found


def fgd_pick(fleet: Fleet, need: Need, row: int, devices: Sequence[int]) -> int:
    """The device whose share leaves most usable; then the one with the least left."""
    tables = _tables(fleet)
    levels, full = fleet.levels[row], int(fleet.gpu_full[""][row])
    at = tables.at_one(fleet, row, need.cpu_millis)

    def after(index: int) -> tuple[int, int]:
        level = levels[index]
        left, untouched = level - need.gpu_millis, full - (level == WHOLE)
        usable = tables.of_share(at, left) - tables.of_share(at, level)
        return usable + WHOLE * untouched * int(tables.wholes_flat[at * (tables.most + 1) + untouched]), -level

    return max(devices, key=after)
