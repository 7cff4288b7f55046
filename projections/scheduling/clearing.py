"""Clearing a node: which borrowed runs must go so that an owner's job fits on one node.

For when no node has room. Tried out on a copy of the fleet on which all that is being stopped has
gone already, so nobody is asked twice.
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.scheduling.backfill import held_by, is_stopping
from eventsched.projections.scheduling.filters import feasible, has_room, lasting
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.trial import Trial
from eventsched.projections.scheduling.usage import Lent

ROWS_MAX = 128
"""Nodes looked at for one job."""


class Clearing:
    """The fleet of one round as it will soon be; what is cleared and kept for a job is taken from it."""

    def __init__(self, state: ClusterState, trial: Trial) -> None:
        self._state = state
        self._soon = trial.copy()
        for run in state.runs.values():
            if is_stopping(run):
                self._soon.release(self._soon.fleet.row[run.node], held_by(state, run))

    def free_row(self, need: Need) -> int:
        """The first row that will have room without anybody's going; -1 = none."""
        rows = np.flatnonzero(feasible(self._soon.fleet, need))
        return int(rows[0]) if len(rows) else -1

    def models(self, row: int, need: Need) -> tuple[str, ...]:
        """Models of the devices the need gets from a row that has room."""
        return self._soon.models(row, need)

    def likely(self, need: Need) -> dict[tuple[str, ...], dict[int, None]]:
        """Models of the devices the need could get, each with the rows where it probably would."""
        count = need.gpus or (1 if need.gpu_millis else 0)
        found: dict[tuple[str, ...], dict[int, None]] = {}
        fleet = self._soon.fleet
        suited = lasting(fleet, need)
        for row in range(fleet.count):
            if suited is not None and not suited[row]:
                continue
            layout = fleet.layout_of[row]
            fitting = layout.models(layout.suited(need.names))
            if len(fitting) >= count:
                found.setdefault(tuple(fitting[:count]), {})[row] = None
        return found

    def keep(self, row: int, need: Need) -> None:
        """The row is promised."""
        self._soon.commit(row, need)

    def rows_of(self, lent: list[Lent], among: dict[int, None]) -> dict[int, list[Lent]]:
        """Borrowed runs by the row they are on, in their order."""
        found: dict[int, list[Lent]] = {}
        for one in lent:
            row = self._soon.fleet.row[one.run.node]
            if row in among:
                found.setdefault(row, []).append(one)
        return dict(islice(found.items(), ROWS_MAX))

    def clear(self, row: int, need: Need, lent: list[Lent]) -> list[Lent]:
        """Of the borrowed runs of a row, those that must go, none that can be spared; [] = it would not help.
        They are gone from the fleet as it will soon be: `back` undoes that."""
        chosen: list[Lent] = []
        for one in lent:
            if self._fits(row, need):
                break
            self._release(row, one, -1)
            chosen.append(one)
        enough = self._fits(row, need)
        for one in reversed(chosen[:]):
            self._release(row, one, 1)
            if not enough or self._fits(row, need):
                chosen.remove(one)
            else:
                self._release(row, one, -1)
        return chosen

    def back(self, row: int, chosen: list[Lent]) -> None:
        """They stay after all."""
        for one in chosen:
            self._release(row, one, 1)

    def _release(self, row: int, one: Lent, sign: int) -> None:
        self._soon.release(row, held_by(self._state, one.run), sign)

    def _fits(self, row: int, need: Need) -> bool:
        return bool(has_room(self._soon.fleet, need, np.array([row], dtype=np.int64))[0])
