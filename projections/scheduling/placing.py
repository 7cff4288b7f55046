"""Placement: merge the queues by rank, and give each job in turn to the chooser.

What can't be placed once can't be placed again in the round, as commits only take: so a class is
left at its first refusal, and a round costs what it places plus one look per class, however many
jobs wait. Jobs that would take their tenant over what it owns come last, when all others had
their turn and owners were promised what is lent: nobody borrows what its owner waits for.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice

from eventsched.projections.cluster.arrays import is_unreached
from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.scheduling.choosing import Chooser, Placement
from eventsched.projections.scheduling.order import Key, Moment
from eventsched.projections.scheduling.planner import Class, Planner
from eventsched.projections.scheduling.quota import BORROWS, LENT_OUT
from eventsched.projections.scheduling.reclaiming import Reclaim, reclaims

_Head = tuple[Key, str, int, Class]
"""The next job of a class: its rank, its key, where in the queue it stands."""


def place(state: ClusterState, planner: Planner, now_ms: int, skip: dict[str, None]) -> Iterator[Placement | Reclaim]:
    """Placements in order, best job first, and what is to be given back to owners that wait for it; the
    caller stops taking them when its budget is spent.

    skip: keys that end in this very round.
    """
    placing = _Placing(state, planner, now_ms)
    try:
        yield from placing.run(skip)
    finally:
        planner.renewal_ms = placing.renewal_ms


class _Placing:
    """One round's placing: a trial of the fleet and of the tenants' shares."""

    def __init__(self, state: ClusterState, planner: Planner, now_ms: int) -> None:
        self._state = state
        self._planner = planner
        self._chooser = Chooser(state, planner.fleet, planner.usage, planner.policy, now_ms)
        self._moment = Moment(now_ms, self._chooser.quotas.shares, planner.policy.aging_ms)
        self._borrowing: dict[Class, int] = {}
        self._lent_out: dict[Class, int] = {}
        self._placed: dict[str, int] = {}

    @property
    def renewal_ms(self) -> int:
        """When money comes again for jobs that wait for it; 0 = none does."""
        return self._chooser.quotas.renewal_ms

    def run(self, skip: dict[str, None]) -> Iterator[Placement | Reclaim]:
        yield from self._merge([self._head(alike, queue.start) for alike, queue in self._planner.queues.items()], skip)
        yield from self._reclaims(skip)
        self._chooser.borrow = True
        yield from self._merge([self._head(alike, index) for alike, index in self._borrowing.items()], skip)

    def _merge(self, heads: list[_Head], skip: dict[str, None]) -> Iterator[Placement]:
        order = self._planner.policy.order
        heapq.heapify(heads)
        while heads:
            rank, key, index, alike = heads[0]
            job = self._state.jobs[key]
            if self._chooser.is_full(alike):
                heapq.heappop(heads)
                continue
            if order.moving and order.rank(self._moment, job) > rank:  # its tenant got something meanwhile
                heapq.heapreplace(heads, self._head(alike, index))
                continue
            stopped = False
            if key not in skip:
                for member in islice(_members(job), self._placed.get(key, 0), None):
                    placement = self._chooser.choose(job, member, alike)
                    if placement is None:
                        stopped = True
                        break
                    self._placed[key] = self._placed.get(key, 0) + 1
                    yield placement
            if not stopped and index + 1 < len(self._planner.queues[alike].items):
                heapq.heapreplace(heads, self._head(alike, index + 1))
                continue
            heapq.heappop(heads)
            refused = self._chooser.refused
            if stopped and refused is not None and refused.cause in (BORROWS, LENT_OUT):
                (self._borrowing if refused.cause == BORROWS else self._lent_out)[alike] = index

    def _reclaims(self, skip: dict[str, None]) -> Iterator[Reclaim]:
        """What is to be given back to the owners that wait for it."""
        if not self._lent_out:
            return iter(())
        heads = sorted(self._head(alike, index) for alike, index in self._lent_out.items())
        waiting = [(alike.need, self._rest(alike, index, skip)) for _, _, index, alike in heads]
        return reclaims(self._state, self._chooser.quotas, self._chooser.trial, waiting)

    def _rest(self, alike: Class, index: int, skip: dict[str, None]) -> Iterator[Job]:
        """The jobs of a class from `index` on, each as often as it has members that wait."""
        for _, key in islice(self._planner.queues[alike].items, index, None):
            job = self._state.jobs[key]
            for _ in islice(_members(job) if key not in skip else (), self._placed.get(key, 0), None):
                yield job

    def _head(self, alike: Class, index: int) -> _Head:
        key = self._planner.queues[alike].items[index][1]
        return self._planner.policy.order.rank(self._moment, self._state.jobs[key]), key, index, alike


def _members(job: Job) -> Iterator[int]:
    """The members of an array that were never reached, in order; (-1) or itself for a plain job."""
    if job.array is None:
        yield job.member
        return
    for index in range(job.array.next, job.spec.array):
        if is_unreached(job.array, index):
            yield index
