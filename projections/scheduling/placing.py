"""Placement: merge the queues by rank, and give each job in turn to the chooser.

What can't be placed once can't be placed again in the round, as commits only take: so a class is
left at its first refusal, and a round costs what it places plus one look per class, however many
jobs wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from eventsched.projections.cluster.arrays import is_unreached
from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.scheduling.choosing import Chooser, Placement
from eventsched.projections.scheduling.order import Key, Moment
from eventsched.projections.scheduling.planner import Class, Planner

_Head = tuple[Key, str, int, Class]
"""The next job of a class: its rank, its key, where in the queue it stands."""


def place(state: ClusterState, planner: Planner, now_ms: int, skip: dict[str, None]) -> Iterator[Placement]:
    """Placements in order, best job first; the caller stops taking them when its budget is spent.

    skip: keys that end in this very round.
    """
    return _Placing(state, planner, now_ms).run(skip)


class _Placing:
    """One round's placing: a trial of the fleet and of the tenants' shares."""

    def __init__(self, state: ClusterState, planner: Planner, now_ms: int) -> None:
        self._state = state
        self._planner = planner
        self._chooser = Chooser(state, planner.fleet, planner.usage, planner.policy, planner.rankings)
        self._moment = Moment(now_ms, self._chooser.shares, planner.policy.aging_ms)

    def run(self, skip: dict[str, None]) -> Iterator[Placement]:
        order = self._planner.policy.order
        heads = [self._head(alike, queue.start) for alike, queue in self._planner.open.items()]
        heapq.heapify(heads)
        while heads:
            rank, key, index, alike = heads[0]
            job = self._state.jobs[key]
            if self._chooser.is_full(alike):
                self._planner.park(alike)
                heapq.heappop(heads)
                continue
            if order.moving and order.rank(self._moment, job) > rank:  # its tenant got something meanwhile
                heapq.heapreplace(heads, self._head(alike, index))
                continue
            stopped = False
            if key not in skip:
                for member in _members(job):
                    placement = self._chooser.choose(job, member, alike)
                    if placement is None:
                        stopped = True
                        break
                    yield placement
            if stopped and self._chooser.is_full(alike):
                self._planner.park(alike)
            if not stopped and index + 1 < len(self._planner.queues[alike].items):
                heapq.heapreplace(heads, self._head(alike, index + 1))
            else:
                heapq.heappop(heads)

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
