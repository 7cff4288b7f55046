"""Placement: merge the queues by rank, and give each job in turn to the chooser.

What can't be placed once can't be placed again in the round, as commits only take: so a class is
left at its first refusal, and a round costs what it places plus one look per class, however many
jobs wait. Behind a reservation shorter jobs of a class may still fit; there a round looks at a
bounded number of jobs. Jobs that would take their tenant over what it owns come last, when all others
had their turn and owners were promised what is lent: nobody borrows what its owner waits for.

What comes out are units that belong into one round: a placement, all those of a gang, an eviction, or
what is given back to an owner.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Literal

from eventsched.projections.cluster.arrays import is_unreached
from eventsched.projections.cluster.state import ArrayState, ClusterState, Job
from eventsched.projections.scheduling.backfill import NEVER, Outlook, Reservation, end_of
from eventsched.projections.scheduling.choosing import Chooser, Placement
from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.gang import fits_together, waiting_members
from eventsched.projections.scheduling.order import Key, Moment, standing
from eventsched.projections.scheduling.planner import Class, Planner
from eventsched.projections.scheduling.preempting import Eviction, Preemption
from eventsched.projections.scheduling.quota import BORROWS, LENT_OUT
from eventsched.projections.scheduling.reclaiming import Reclaim, reclaims

_Head = tuple[Key, str, int, Class]
"""The next job of a class: its rank, its key, where in the queue it stands."""
Unit = tuple[Placement, ...] | Eviction | Reclaim
Fits = Callable[[Job, int], bool]
"""Whether so many messages about a job still fit into the round."""
Units = Generator[Unit, None, Literal["placed", "refused", "round_full"]]

SWEPT_MAX = 1_000
"""Jobs a sweep looks at first."""


def place(state: ClusterState, planner: Planner, now_ms: int, skip: dict[str, None], fits: Fits) -> Units:
    """Units in order, best job first; the caller stops taking them when its budget is spent.

    skip: keys that end in this very round.
    """
    placing = Placing(state, planner, now_ms, skip, fits)
    try:
        return (yield from placing.run())
    finally:
        planner.renewal_ms = placing.renewal_ms


class Placing:
    """One round's placing: a trial of the fleet, of the tenants' shares and of what is promised.

    reserved: reservations made, by job. behind: jobs that fit now, each with the reservation it would delay.
    """

    def __init__(self, state: ClusterState, planner: Planner, now_ms: int, skip: dict[str, None], fits: Fits) -> None:
        self._state = state
        self._planner = planner
        self._policy = planner.policy
        self._now_ms = now_ms
        self._seen = dict(skip)
        self._fits = fits
        self._chooser = Chooser(state, planner.fleet, planner.usage, planner.policy, now_ms, planner.rankings)
        self._moment = Moment(now_ms, self._chooser.quotas.shares, planner.policy.aging_ms)
        self._outlook = Outlook(state, planner.fleet, now_ms)
        self._looks_ahead = bool(self._policy.reservations or self._policy.preempt or planner.promised)
        self._parks = not (self._policy.reservations or self._policy.preempt)
        self._preemption: Preemption | None = None
        self._unmoved: dict[Class, None] = {}
        self._stuck: dict[Class, None] = {}
        self._over: dict[Class, None] = {}
        self._too_long: dict[Class, int] = {}
        self._placed: dict[str, int] = {}
        self._borrowing: dict[Class, None] = {}
        self._lent_out: dict[Class, None] = {}
        self._without_room: dict[Class, None] = {}
        self._looks_left = self._policy.backfill_looks if self._policy.reservations else NEVER
        self.reserved: dict[str, Reservation] = {}
        self.behind: dict[str, Reservation] = {}

    @property
    def renewal_ms(self) -> int:
        """When money comes again for jobs that wait for it; 0 = none does."""
        return self._chooser.quotas.renewal_ms

    def run(self) -> Units:
        """Promised places first, then, in a round that sweeps, the oldest, then all in order; at last what
        owners want back, and what others may borrow."""
        if self._planner.promised and (yield from self._promised()) == "round_full":
            return "round_full"
        if self._policy.sweep_every and (yield from self._sweep()) == "round_full":
            return "round_full"
        if (yield from self._merge(self._planner.open)) == "round_full":
            return "round_full"
        if self._lent_out and (yield from self._reclaims()) == "round_full":
            return "round_full"
        if self._borrowing:
            return (yield from self._borrowers())
        return "placed"

    # ---- who comes first ------------------------------------------------------------------------

    def _promised(self) -> Units:
        """Jobs others have given way to: those whose place is free now; for the rest it is kept."""
        jobs = [self._state.jobs[key] for key in self._planner.promised if key not in self._seen]
        jobs.sort(key=lambda job: (standing(job), -job.seq, -job.member), reverse=True)
        waiting: list[tuple[Job, int, Class]] = []
        for job in jobs:
            row, alike = self._planner.fleet.row.get(job.promised), self._planner.places[job.key][0]
            if row is None:
                continue
            if not feasible(self._chooser.trial.fleet, alike.need)[row]:
                waiting.append((job, row, alike))
                continue
            self._seen[job.key] = None
            if (yield from self._try(job, alike)) == "round_full":
                return "round_full"
        for job, row, alike in waiting:
            if feasible(self._outlook.soon(self._chooser.trial).fleet, alike.need)[row]:
                self._outlook.promise(job.key, row, alike.need, end_of(self._now_ms, job), {})
        return "placed"

    def _sweep(self) -> Units:
        ages = self._planner.by_age
        if (self._state.rounds + 1) % self._policy.sweep_every == 0:
            for _, key in islice(ages.items, ages.start, ages.start + SWEPT_MAX):
                alike = self._planner.places[key][0]
                if key in self._seen or self._is_over(alike):
                    continue
                self._seen[key] = None
                if (yield from self._try(self._state.jobs[key], alike)) == "round_full":
                    return "round_full"
        return "placed"

    def _merge(self, classes: Iterable[Class]) -> Units:
        order = self._policy.order
        heads = [self._head(alike, self._planner.queues[alike].start) for alike in classes]
        heapq.heapify(heads)
        while heads and self._looks_left > 0:
            rank, key, index, alike = heads[0]
            if self._is_over(alike):
                heapq.heappop(heads)
                continue
            job = self._state.jobs[key]
            if order.moving and order.rank(self._moment, job) > rank:  # its tenant got something meanwhile
                heapq.heapreplace(heads, self._head(alike, index))
                continue
            if key not in self._seen:
                fate = yield from self._try(job, alike)
                if fate == "round_full":
                    return "round_full"
                if fate == "placed":
                    self._seen[key] = None
            if self._parks and self._chooser.is_full(alike) and self._chooser.quotas.cohort(alike.tenant) is None:
                self._planner.park(alike)  # not looked at until a node has room for it
            if index + 1 < len(self._planner.queues[alike].items):
                heapq.heapreplace(heads, self._head(alike, index + 1))
            else:
                heapq.heappop(heads)
        return "placed"

    def _reclaims(self) -> Units:
        """What is to be given back to the owners that wait for it. Gangs wait until it comes back by itself."""
        classes = [alike for alike in self._lent_out if not alike.gang]
        if classes:
            heads = sorted(self._head(alike, self._planner.queues[alike].start) for alike in classes)
            waiting = [(alike.need, self._rest(alike)) for _, _, _, alike in heads]
            for one in reclaims(self._state, self._chooser.quotas, self._chooser.trial, waiting):
                if one.runs and not self._fits(one.job, len(one.runs)):
                    return "round_full"
                yield one
        return "placed"

    def _rest(self, alike: Class) -> Iterator[Job]:
        """The jobs of a class that wait, each as often as it has members that do."""
        queue = self._planner.queues[alike]
        for _, key in islice(queue.items, queue.start, None):
            if key not in self._seen:
                job = self._state.jobs[key]
                for _ in islice(_members(job), self._placed.get(key, 0), None):
                    yield job

    def _borrowers(self) -> Units:
        """Those that would hold more than they own, now that all others had their turn."""
        self._chooser.borrow = True
        for alike in self._borrowing:
            self._over.pop(alike, None)
        return (yield from self._merge(self._borrowing))

    def _head(self, alike: Class, index: int) -> _Head:
        key = self._planner.queues[alike].items[index][1]
        return self._planner.policy.order.rank(self._moment, self._state.jobs[key]), key, index, alike

    def _is_over(self, alike: Class) -> bool:
        """True when no further job of the class can start, drive out others or be given a reservation."""
        if alike in self._over or alike not in self._planner.open:
            return True
        if alike not in self._stuck and not self._chooser.is_full(alike):
            return False
        may_preempt = self._policy.preempt and not alike.gang and alike not in self._unmoved
        may_want_back = alike not in self._without_room and self._chooser.quotas.cohort(alike.tenant) is not None
        return not may_preempt and not may_want_back and not self._may_reserve()

    def _may_reserve(self) -> bool:
        return len(self.reserved) < self._policy.reservations

    # ---- one job --------------------------------------------------------------------------------

    def _try(self, job: Job, alike: Class) -> Units:
        """All of a job that fits: itself, the members of an array, or a whole gang."""
        if alike.gang:
            return (yield from self._try_gang(job, alike))
        if job.member >= 0 or not job.spec.array:
            placement = self._choose(job, job.member, alike)
            if placement is None:
                return (yield from self._refused(job, alike))
            yield (placement,)
            return "placed"
        for member in islice(_members(job), self._placed.get(job.key, 0), None):
            placement = self._choose(job, member, alike)
            if placement is None:
                return (yield from self._refused(job, alike))
            self._placed[job.key] = self._placed.get(job.key, 0) + 1
            yield (placement,)
        return "placed"

    def _choose(self, job: Job, member: int, alike: Class) -> Placement | None:
        if not self._looks_ahead:
            return self._chooser.choose(job, member, alike)
        end_ms = end_of(self._now_ms, job)
        if end_ms >= self._too_long.get(alike, NEVER + 1):  # a shorter one of its class was refused
            self._chooser.refused = "later"
            return None
        placement = self._chooser.choose(job, member, alike, self._outlook.until(end_ms))
        if placement is not None:
            self._outlook.took(self._planner.fleet.row[placement.node], alike.need, placement.gpus, end_ms)
        return placement

    def _try_gang(self, job: Job, alike: Class) -> Units:
        """All members that wait, or none."""
        if not self._fits(job, alike.gang):
            return "round_full"
        if not fits_together(self._chooser.trial, alike.need, alike.gang):
            self._chooser.refused = "room"
            return (yield from self._refused(job, alike))
        saved = self._chooser.save(), self._outlook.save()
        placements: list[Placement] = []
        for member in waiting_members(job):
            placement = self._choose(job, member, alike)
            if placement is None:
                self._chooser.restore(saved[0])
                self._outlook.restore(saved[1])
                self._moment = replace(self._moment, shares=self._chooser.quotas.shares)
                if self._chooser.refused == "room" and self._outlook.until(NEVER):
                    self._chooser.refused = "later"
                return (yield from self._refused(job, alike))
            placements.append(placement)
        yield tuple(placements)
        return "placed"

    # ---- what does not fit ----------------------------------------------------------------------

    def _refused(self, job: Job, alike: Class) -> Units:
        """Others may give way to it, or it is promised a place later on."""
        self._looks_left -= 1
        why = self._chooser.refused
        if why == "quota":
            self._over[alike] = None
            refusal = self._chooser.refusal
            if refusal is not None and refusal.cause in (BORROWS, LENT_OUT):
                (self._borrowing if refusal.cause == BORROWS else self._lent_out)[alike] = None
            return "refused"
        if why == "later":
            self._note_behind(job, alike)
        else:
            self._stuck[alike] = None
            self._without_room[alike] = None
            if self._chooser.quotas.is_lent_out(alike.tenant, alike.need, self._planner.fleet.gpu_total):
                self._lent_out[alike] = None
            if self._policy.preempt and not alike.gang and not self._outlook.is_promised(job.key):
                eviction = self._find_victims(job, alike)
                if eviction is not None:
                    if not self._fits(job, len(eviction.victims)):
                        return "round_full"
                    yield eviction
                    return "placed"
        if self._may_reserve() and not self._outlook.is_promised(job.key):
            count, exact = max(1, alike.gang), self._policy.reservations == 1
            made = self._outlook.reserve(self._chooser.trial, job, alike.need, count, exact)
            if made is None:
                self._over[alike] = None  # it will never fit, and none like it
            else:
                self.reserved[job.key] = made
        return "refused"

    def _note_behind(self, job: Job, alike: Class) -> None:
        end_ms = end_of(self._now_ms, job)
        before = [one for one in self._outlook.reservations if one.at_ms < end_ms]
        if before:
            self.behind[job.key] = min(before, key=lambda one: (one.at_ms, one.key))
        if not self._may_reserve():
            self._too_long[alike] = min(end_ms, self._too_long.get(alike, NEVER))

    def _find_victims(self, job: Job, alike: Class) -> Eviction | None:
        if alike in self._unmoved:
            return None
        if self._preemption is None:
            fleet, most = self._planner.fleet, self._policy.preempt_max
            self._preemption = Preemption(self._state, fleet, self._now_ms, most)
        soon = self._outlook.soon(self._chooser.trial)
        eviction = self._preemption.find(job, alike.need, soon, self._chooser.quotas)
        if eviction is None:
            self._unmoved[alike] = None
            return None
        victims = {victim.run: victim.held for victim in eviction.victims}
        row = self._planner.fleet.row[eviction.node]
        self._outlook.promise(job.key, row, alike.need, end_of(self._now_ms, job), victims)
        return eviction


def _members(job: Job) -> Iterator[int]:
    """The members of an array that were never reached, in order; (-1) or itself for a plain job."""
    if job.member >= 0 or not job.spec.array:
        yield job.member
        return
    array = job.array or ArrayState()  # not accepted yet: its first assign accepts it
    for index in range(array.next, job.spec.array):
        if is_unreached(array, index):
            yield index
