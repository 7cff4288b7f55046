"""Placement: merge the queues by rank, and for each job quota -> filter -> score -> commit.

What can't be placed once can't be placed again in the round, as commits only take: so a class is
left at its first refusal, and a round costs what it places plus one look per class, however many
jobs wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.arrays import is_unreached
from eventsched.projections.cluster.state import ClusterState, Job, TenantLimits
from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.fleet import Ints, Trial
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.order import Key, Moment
from eventsched.projections.scheduling.planner import Class, Planner
from eventsched.projections.scheduling.quota import limits_of, model_refusal, refusal
from eventsched.projections.scheduling.scores import Draw
from eventsched.projections.scheduling.usage import Shares


class Placement(NamedTuple):
    """One job on one node, and why there. member: index in an array, else -1."""

    job: Job
    member: int
    need: Need
    node: str
    gpus: tuple[str, ...]
    score: int
    runner_up: str
    feasible: int


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
        self._trial = Trial(planner.fleet)
        self._shares = Shares(planner.usage, {name: limits.weight for name, limits in state.tenants.items()})
        self._moment = Moment(now_ms, self._shares, planner.policy.aging_ms)
        self._full: dict[Need, None] = {}

    def run(self, skip: dict[str, None]) -> Iterator[Placement]:
        order = self._planner.policy.order
        heads = [self._head(alike, queue.start) for alike, queue in self._planner.queues.items()]
        heapq.heapify(heads)
        while heads:
            rank, key, index, alike = heads[0]
            job = self._state.jobs[key]
            if alike.need in self._full:
                heapq.heappop(heads)
                continue
            if order.moving and order.rank(self._moment, job) > rank:  # its tenant got something meanwhile
                heapq.heapreplace(heads, self._head(alike, index))
                continue
            stopped = False
            if key not in skip:
                for member in _members(job):
                    placement = self._choose(job, member, alike)
                    if placement is None:
                        stopped = True
                        break
                    yield placement
            if not stopped and index + 1 < len(self._planner.queues[alike].items):
                heapq.heapreplace(heads, self._head(alike, index + 1))
            else:
                heapq.heappop(heads)

    def _head(self, alike: Class, index: int) -> _Head:
        key = self._planner.queues[alike].items[index][1]
        return self._planner.policy.order.rank(self._moment, self._state.jobs[key]), key, index, alike

    def _choose(self, job: Job, member: int, alike: Class) -> Placement | None:
        """The best node for a job, taken; None when its quota or the fleet has no room."""
        trial, need = self._trial, alike.need
        limits = limits_of(self._state, alike.tenant)
        if refusal(limits, self._shares, alike.tenant, need) is not None:
            return None
        rows = np.flatnonzero(feasible(trial, need))
        if not len(rows):
            self._full[need] = None
            return None
        if limits is not None and limits.gpu_models and need.gpus:
            rows = self._within_quota(limits, alike, rows)
            if not len(rows):
                return None
        policy = self._planner.policy
        draw = Draw(policy.seed, (job.seq << 24) + (job.attempt << 16) + max(0, member))
        scores = policy.score.points(trial, need, rows, draw)
        best = int(np.argmax(scores))
        score, runner_up = int(scores[best]), ""
        if len(rows) > 1:
            others = np.delete(scores, best)
            second = int(np.argmax(others))
            runner_up = trial.fleet.names[int(rows[second + (second >= best)])]
        row = int(rows[best])
        given = trial.commit(row, need)
        self._shares.take(alike.tenant, need, [gpu.model for gpu in given])
        gpus = tuple(gpu.uuid for gpu in given)
        return Placement(job, member, need, trial.fleet.names[row], gpus, score, runner_up, len(rows))

    def _within_quota(self, limits: TenantLimits, alike: Class, rows: Ints) -> Ints:
        """The rows whose devices the tenant may still have, by model."""
        verdicts: dict[tuple[str, ...], bool] = {}
        kept = []
        for row in rows:
            models = tuple(gpu.model for gpu in self._trial.devices(int(row), alike.need))
            if models not in verdicts:
                verdicts[models] = model_refusal(limits, self._shares, alike.tenant, models) is None
            if verdicts[models]:
                kept.append(row)
        return np.array(kept, dtype=np.int64)


def _members(job: Job) -> Iterator[int]:
    """The members of an array that were never reached, in order; (-1) or itself for a plain job."""
    if job.array is None:
        yield job.member
        return
    for index in range(job.array.next, job.spec.array):
        if is_unreached(job.array, index):
            yield index
