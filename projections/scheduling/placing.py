"""Placement: merge the queues in order, and for each job quota -> filter -> score -> commit.

A class found infeasible is not looked at again in the round, as commits only take: so a round
costs what it places plus one look per class, however many jobs wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.arrays import is_unreached
from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.fleet import Trial
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.planner import Planner


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


def place(state: ClusterState, planner: Planner, skip: dict[str, None]) -> Iterator[Placement]:
    """Placements in order, best job first; the caller stops taking them when its budget is spent.

    skip: keys that end in this very round.
    """
    trial = Trial(planner.fleet)
    heads = [(queue.items[queue.start], queue.start, need) for need, queue in planner.queues.items()]
    heapq.heapify(heads)
    while heads:
        entry, index, need = heads[0]
        job = state.jobs[entry[1]]
        fits = True
        if entry[1] not in skip and planner.policy.quota(state, job) is None:
            for member in _members(job):
                placement = _choose(planner, trial, job, member, need)
                if placement is None:
                    fits = False
                    break
                yield placement
        items = planner.queues[need].items
        if fits and index + 1 < len(items):
            heapq.heapreplace(heads, (items[index + 1], index + 1, need))
        else:
            heapq.heappop(heads)


def _members(job: Job) -> Iterator[int]:
    """The members of an array that were never reached, in order; (-1) or itself for a plain job."""
    if job.array is None:
        yield job.member
        return
    for index in range(job.array.next, job.spec.array):
        if is_unreached(job.array, index):
            yield index


def _choose(planner: Planner, trial: Trial, job: Job, member: int, need: Need) -> Placement | None:
    rows = np.flatnonzero(feasible(trial, need))
    if not len(rows):
        return None
    scores = planner.policy.score(trial, need, rows)
    best = int(np.argmax(scores))
    score = int(scores[best])
    runner_up = ""
    if len(rows) > 1:
        others = np.delete(scores, best)
        second = int(np.argmax(others))
        runner_up = trial.fleet.names[int(rows[second + (second >= best)])]
    row = int(rows[best])
    gpus = trial.commit(row, need)
    return Placement(job, member, need, trial.fleet.names[row], gpus, score, runner_up, len(rows))
