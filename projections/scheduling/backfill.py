"""Backfill: what is promised for later, and what may start before it.

A job that does not fit now may be given a reservation: the earliest time at which it will fit, if
runs end when they are expected to. Overdue runs, and those being stopped, are taken to end now; runs
of unknown length never end. At the start of each reservation stands a `Shadow`: the fleet as it will
then be, the reservation included. What starts now must fit now and into every shadow before its own
end, so it delays nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.state import ClusterState, Job, Run
from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.fleet import Fleet, Held, Ints, Trial
from eventsched.projections.scheduling.gang import room
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.order import expected_ms

NEVER = 2**62
STRIDES = 64
"""So many looks find about when a job fits; the exact time is then looked for between two of them."""


@dataclass(frozen=True, slots=True)
class Backfill:
    """One way of it. reservations: how many jobs get one, -1 = as many as the parameter says."""

    summary: str
    reservations: int


BACKFILLS: dict[str, Backfill] = {
    "none": Backfill("a job that does not fit is skipped and blocks nobody", 0),
    "easy": Backfill("the first job that does not fit gets a reservation; others start if they do not delay it", 1),
    "conservative": Backfill("every job that does not fit gets a reservation; others start if they delay none", -1),
}


class Ending(NamedTuple):
    """Something held on a row until a time."""

    at_ms: int
    row: int
    held: Held


class Reservation(NamedTuple):
    """Rows promised to a job from one time to another, once for each run."""

    key: str
    at_ms: int
    end_ms: int
    rows: tuple[int, ...]
    need: Need


class Shadow(NamedTuple):
    """The fleet as it will be at a time."""

    at_ms: int
    trial: Trial


def held_by(run: Run) -> Held:
    """What an open run holds."""
    return Held(run.cpu_millis, run.memory_bytes, run.gpus, run.gpu_millis)


def is_stopping(run: Run) -> bool:
    """True when the run has been told to stop, or will be."""
    return bool(run.stop_reason or run.stop_owed) and run.state != "unknown"


def end_of(now_ms: int, job: Job) -> int:
    """When a run of this job that starts now will probably end."""
    expected = expected_ms(job.spec)
    return now_ms + expected if expected else NEVER


class Outlook:
    """What is expected to happen, and what is promised, as far as one round knows."""

    def __init__(self, state: ClusterState, fleet: Fleet, now_ms: int) -> None:
        self._state = state
        self._fleet = fleet
        self._now_ms = now_ms
        self.shadows: list[Shadow] = []
        self._soon: Trial | None = None
        self.reservations: list[Reservation] = []
        self.placed: list[Ending] = []
        self._giving_way: dict[int, Held] = {}

    # ---- what may start now ---------------------------------------------------------------------

    def until(self, end_ms: int) -> list[Trial]:
        """Where something that starts now and ends then must fit, too."""
        trials = [shadow.trial for shadow in self.shadows if shadow.at_ms < end_ms]
        return trials if self._soon is None else [self._soon, *trials]

    def took(self, row: int, need: Need, gpus: tuple[str, ...], end_ms: int) -> None:
        """Something starts now on this row."""
        for trial in self.until(end_ms):
            trial.commit(row, need)
        held = Held(need.cpu_millis, need.memory_bytes, gpus)
        self.placed.append(Ending(end_ms, row, held))

    def save(self) -> tuple[Trial | None, list[Shadow], int]:
        """What to go back to if a gang does not fit."""
        soon = None if self._soon is None else self._soon.copy()
        return soon, [Shadow(at_ms, trial.copy()) for at_ms, trial in self.shadows], len(self.placed)

    def restore(self, saved: tuple[Trial | None, list[Shadow], int]) -> None:
        """Undo what was taken since."""
        self._soon, self.shadows = saved[:2]
        del self.placed[saved[2] :]

    # ---- promises -------------------------------------------------------------------------------

    def soon(self, now: Trial) -> Trial:
        """The fleet without the runs that are being stopped: another shadow, at this very time."""
        if self._soon is None:
            self._soon = now.copy()
            for run in self._state.runs.values():
                if is_stopping(run):
                    self._soon.release(self._fleet.row[run.node], held_by(run))
        return self._soon

    def promise(self, key: str, row: int, need: Need, end_ms: int, victims: dict[int, Held]) -> None:
        """Keep a row for a job others give way to; with them gone there must be room in `soon`.

        A reservation it collides with is overridden: who may drive out others may also be first.
        """
        shadows = [shadow for shadow in self.shadows if shadow.at_ms < end_ms]
        for at_ms, trial in [(self._now_ms, self._soon), *shadows]:
            assert trial is not None
            for seq, held in victims.items():
                if trial is self._soon or self._end_of_run(self._state.runs[seq]) > at_ms:
                    trial.release(row, held)
            if feasible(trial, need)[row]:
                trial.commit(row, need)
        self._giving_way |= victims
        self.reservations.append(Reservation(key, self._now_ms, end_ms, (row,), need))

    def is_promised(self, key: str) -> bool:
        """True when a place is kept for this job already."""
        return any(one.key == key for one in self.reservations)

    # ---- reservations ---------------------------------------------------------------------------

    def reserve(self, now: Trial, job: Job, need: Need, count: int) -> Reservation | None:
        """The earliest place for `count` runs of a job at once, kept; None when that is never."""
        lasts = expected_ms(job.spec) or NEVER
        freed = np.where(feasible(now, need), -1, 0)
        for at_ms, trial in self._times(now, need, count, freed):
            reserved = [one for one in self.reservations if one.at_ms <= at_ms < one.end_ms]
            trial = trial.copy() if reserved else trial
            for one in reserved:
                for row in one.rows:
                    trial.commit(row, one.need)
            rows = self._choose(trial.copy(), at_ms, at_ms + lasts, need, count, freed)
            if rows is not None:
                made = Reservation(job.key, at_ms, at_ms + lasts, rows, need)
                self._keep(made, trial.copy())
                return made
        return None

    def _choose(
        self, trial: Trial, at_ms: int, end_ms: int, need: Need, count: int, freed: Ints
    ) -> tuple[int, ...] | None:
        """Rows for all runs, those that become free last: the others may be of use meanwhile."""
        later = [shadow.trial.copy() for shadow in self.shadows if at_ms < shadow.at_ms < end_ms]
        rows: list[int] = []
        while len(rows) < count:
            mask = feasible(trial, need)
            for one in later:
                mask = mask & feasible(one, need)
            if not mask.any():
                return None
            row = int(np.argmax(np.where(mask, freed, -2)))
            rows.append(row)
            for one in (trial, *later):
                one.commit(row, need)
        return tuple(rows)

    def _keep(self, made: Reservation, trial: Trial) -> None:
        for shadow in self.shadows:
            if made.at_ms < shadow.at_ms < made.end_ms:
                for row in made.rows:
                    shadow.trial.commit(row, made.need)
        for row in made.rows:
            trial.commit(row, made.need)
        self.reservations.append(made)
        self._insert(Shadow(made.at_ms, trial))

    def _insert(self, shadow: Shadow) -> None:
        self.shadows.append(shadow)
        self.shadows.sort(key=lambda one: one.at_ms)

    def _times(self, now: Trial, need: Need, count: int, freed: Ints) -> Iterator[tuple[int, Trial]]:
        """Times at which there may be room, reservations aside, with the fleet as it will then be.

        Room only grows as runs end: so the first such time is searched for in strides. freed: -1 for
        rows that have room now; for others the time of their last end is noted there.
        """
        groups = self._endings()
        trial, before = now.copy(), 0
        stride = max(1, len(groups) // STRIDES)
        while before < len(groups):
            ahead, upto = trial.copy(), min(before + stride, len(groups))
            for _, endings in groups[before:upto]:
                _release(ahead, endings)
            if int(room(ahead, need, feasible(ahead, need)).sum()) >= count:
                break
            trial, before = ahead, upto
        for at_ms, endings in groups[:before]:
            _note(freed, at_ms, endings)
        for at_ms, endings in groups[before:]:
            _release(trial, endings)
            _note(freed, at_ms, endings)
            if int(room(trial, need, feasible(trial, need)).sum()) >= count:
                yield at_ms, trial

    def _endings(self) -> list[tuple[int, list[Ending]]]:
        """What ends when, by time; a time at which only a reservation ends is one to look at, too."""
        found = [*self.placed]
        for run in self._state.runs.values():
            found.append(Ending(self._end_of_run(run), self._fleet.row[run.node], held_by(run)))
        groups: dict[int, list[Ending]] = {one.end_ms: [] for one in self.reservations if one.end_ms < NEVER}
        for ending in found:
            if ending.at_ms < NEVER:
                groups.setdefault(ending.at_ms, []).append(ending)
        return sorted(groups.items())

    def _end_of_run(self, run: Run) -> int:
        if is_stopping(run) or run.seq in self._giving_way:
            return self._now_ms
        job = self._state.jobs.get(run.key)
        if job is None or run.state == "unknown" or not expected_ms(job.spec):
            return NEVER
        return max(self._now_ms, (run.started_ms or run.assigned_ms) + expected_ms(job.spec))


def _note(freed: Ints, at_ms: int, endings: list[Ending]) -> None:
    for ending in endings:
        if freed[ending.row] >= 0:
            freed[ending.row] = at_ms


def _release(trial: Trial, endings: list[Ending]) -> None:
    for ending in endings:
        trial.release(ending.row, ending.held)
