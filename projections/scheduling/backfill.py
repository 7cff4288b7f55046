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
from eventsched.projections.scheduling.diary import Ints
from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.gang import room
from eventsched.projections.scheduling.needs import Need, group_of
from eventsched.projections.scheduling.order import expected_ms
from eventsched.projections.scheduling.trial import Held, Trial

NEVER = 2**62
POINTS_MAX = 64
"""So many moments of the future are looked at; with more ends than that, several count as one."""


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


class Point(NamedTuple):
    """The fleet at a time without reservations: what ended since the point before, and for each row the
    time of its last end (0 = none yet)."""

    at_ms: int
    trial: Trial
    groups: list[tuple[int, list[Ending]]]
    freed: Ints


class Shadow(NamedTuple):
    """The fleet as it will be at a time."""

    at_ms: int
    trial: Trial


def held_by(state: ClusterState, run: Run) -> Held:
    """What an open run holds."""
    job = state.jobs.get(run.key)
    group = group_of(job) if job is not None and job.run == run.seq else ""
    return Held(run.cpu_millis, run.memory_bytes, run.gpus, run.gpu_millis, group)


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
        self._placed: list[Ending] = []
        self._points: list[Point] | None = None
        self._in_points = 0
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
        held = Held(need.cpu_millis, need.memory_bytes, gpus, need.gpu_millis, need.group)
        self._placed.append(Ending(end_ms, row, held))

    def save(self) -> tuple[Trial | None, list[Shadow], int]:
        """What to go back to if a gang does not fit."""
        soon = None if self._soon is None else self._soon.copy()
        return soon, [Shadow(at_ms, trial.copy()) for at_ms, trial in self.shadows], len(self._placed)

    def restore(self, saved: tuple[Trial | None, list[Shadow], int]) -> None:
        """Undo what was taken since."""
        self._soon, self.shadows = saved[:2]
        del self._placed[saved[2] :]

    # ---- promises -------------------------------------------------------------------------------

    def soon(self, now: Trial) -> Trial:
        """The fleet without the runs that are being stopped: another shadow, at this very time."""
        if self._soon is None:
            self._soon = now.copy()
            for run in self._state.runs.values():
                if is_stopping(run):
                    self._soon.release(self._fleet.row[run.node], held_by(self._state, run))
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
            if feasible(trial.fleet, need)[row]:
                trial.commit(row, need)
        if victims:
            self._giving_way |= victims
            self._points = None
        self.reservations.insert(0, Reservation(key, self._now_ms, end_ms, (row,), need))

    def is_promised(self, key: str) -> bool:
        """True when a place is kept for this job already."""
        return any(one.key == key for one in self.reservations)

    # ---- reservations ---------------------------------------------------------------------------

    def reserve(self, now: Trial, job: Job, need: Need, count: int, exact: bool) -> Reservation | None:
        """The earliest place for `count` runs of a job at once, kept; None when that is never.

        exact: look at every end, not at points only; for one reservation the price is the same.
        """
        lasts = expected_ms(job.spec) or NEVER
        ready = feasible(now.fleet, need)
        for at_ms, trial, freed in self._times(now, need, count, exact):
            self._keep_reserved(trial, at_ms)
            rows = self._choose(trial.copy(), at_ms, at_ms + lasts, need, count, np.where(ready, -1, freed))
            if rows is not None:
                made = Reservation(job.key, at_ms, at_ms + lasts, rows, need)
                self._keep(made, trial)
                return made
        return None

    def _keep_reserved(self, trial: Trial, at_ms: int) -> None:
        """Take what is reserved at that time; promises come first, and what they override has no room any more."""
        for one in self.reservations:
            if one.at_ms <= at_ms < one.end_ms:
                for row in one.rows:
                    if feasible(trial.fleet, one.need)[row]:
                        trial.commit(row, one.need)

    def _choose(
        self, trial: Trial, at_ms: int, end_ms: int, need: Need, count: int, freed: Ints
    ) -> tuple[int, ...] | None:
        """Rows for all runs, those that become free last: the others may be of use meanwhile."""
        later = [shadow.trial.copy() for shadow in self.shadows if at_ms < shadow.at_ms < end_ms]
        rows: list[int] = []
        while len(rows) < count:
            mask = feasible(trial.fleet, need)
            for one in later:
                mask = mask & feasible(one.fleet, need)
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

    def _times(self, now: Trial, need: Need, count: int, exact: bool) -> Iterator[tuple[int, Trial, Ints]]:
        """Times at which there may be room, reservations aside, with the fleet as it will then be.

        Room only grows as runs end, so what is before the first such point is passed over.
        """
        points = self._timeline(now)
        first = next((index for index, one in enumerate(points) if _has_room(one.trial, need, count)), None)
        if first is None:
            return
        if exact:
            before = points[first - 1] if first else None
            trial = (before.trial if before else now).copy()
            freed = before.freed.copy() if before else np.zeros(len(self._fleet.names), dtype=np.int64)
            for at_ms, endings in points[first].groups:
                _release(trial, freed, at_ms, endings)
                if _has_room(trial, need, count):
                    yield at_ms, trial.copy(), freed
        times = {one.at_ms: index for index, one in enumerate(points)}
        ends = [one.end_ms for one in self.reservations if points[first].at_ms < one.end_ms < NEVER]
        index = first
        for at_ms in sorted({**dict.fromkeys(times), **dict.fromkeys(ends)}):
            index = times.get(at_ms, index)
            if at_ms >= points[first].at_ms:
                yield at_ms, points[index].trial.copy(), points[index].freed

    def _timeline(self, now: Trial) -> list[Point]:
        """The future in points, made once and kept up to date with what starts in this round."""
        if self._points is None:
            self._points, self._in_points = self._make_points(now), len(self._placed)
        for ending in self._placed[self._in_points :]:
            for point in self._points:
                if point.at_ms < ending.at_ms:
                    point.trial.release(ending.row, ending.held, sign=1)
        self._in_points = len(self._placed)
        return self._points

    def _make_points(self, now: Trial) -> list[Point]:
        found = self._placed.copy()
        for run in self._state.runs.values():
            found.append(Ending(self._end_of_run(run), self._fleet.row[run.node], held_by(self._state, run)))
        by_time: dict[int, list[Ending]] = {}
        for ending in found:
            if ending.at_ms < NEVER:
                by_time.setdefault(ending.at_ms, []).append(ending)
        groups = sorted(by_time.items())
        stride = -(-len(groups) // POINTS_MAX) or 1
        trial, freed = now.copy(), np.zeros(len(self._fleet.names), dtype=np.int64)
        points: list[Point] = []
        for start in range(0, len(groups), stride):
            several = groups[start : start + stride]
            for at_ms, endings in several:
                _release(trial, freed, at_ms, endings)
            points.append(Point(several[-1][0], trial.copy(), several, freed.copy()))
        return points

    def _end_of_run(self, run: Run) -> int:
        if is_stopping(run) or run.seq in self._giving_way:
            return self._now_ms
        job = self._state.jobs.get(run.key)
        if job is None or run.state == "unknown" or not expected_ms(job.spec):
            return NEVER
        return max(self._now_ms, (run.started_ms or run.assigned_ms) + expected_ms(job.spec))


def _has_room(trial: Trial, need: Need, count: int) -> bool:
    return int(room(trial, need, feasible(trial.fleet, need)).sum()) >= count


def _release(trial: Trial, freed: Ints, at_ms: int, endings: list[Ending]) -> None:
    for ending in endings:
        trial.release(ending.row, ending.held)
        freed[ending.row] = at_ms
