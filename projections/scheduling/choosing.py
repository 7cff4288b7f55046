"""Choosing: one job's quota -> filter -> score -> commit, on what this round has left so far.

Works on a trial of the fleet and of the tenants' shares, which its own choices change; the state is
never touched. Everything is an integer, and every choice has a total order that ends in a node id.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.fleet import Fleet, Ints, Trial
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.planner import Class
from eventsched.projections.scheduling.policies import Chosen
from eventsched.projections.scheduling.quota import Quotas, Refusal, mildest
from eventsched.projections.scheduling.scores import Draw
from eventsched.projections.scheduling.usage import Usage


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


class Chooser:
    """One round's choices: a trial of the fleet and of the tenants' shares.

    borrow: whether tenants may hold more than they own now. refused: the quota's word on the last job
    that got no node; None = the fleet had none.
    """

    def __init__(self, state: ClusterState, fleet: Fleet, usage: Usage, policy: Chosen, now_ms: int) -> None:
        self._policy = policy
        self.trial = Trial(fleet)
        self.quotas = Quotas(state, usage, now_ms)
        self.borrow = False
        self.refused: Refusal | None = None
        self._full: dict[Need, None] = {}

    def is_full(self, alike: Class) -> bool:
        """True when no node has room for this class any more."""
        return alike.need in self._full

    def choose(self, job: Job, member: int, alike: Class) -> Placement | None:
        """The best node for a job, taken; None when its quota or the fleet has no room."""
        trial, need = self.trial, alike.need
        self.refused = self.quotas.refusal(alike.tenant, need, borrow=self.borrow)
        if self.refused is not None:
            return None
        rows = np.flatnonzero(feasible(trial, need))
        if not len(rows):
            self._full[need] = None
            return None
        if (need.gpus or need.gpu_millis) and self.quotas.minds_models(alike.tenant):
            rows = self._within_quota(alike, rows)
            if not len(rows):
                return None
        policy = self._policy
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
        self.quotas.take(alike.tenant, need, [gpu.model for gpu in given])
        gpus = tuple(gpu.uuid for gpu in given)
        return Placement(job, member, need, trial.fleet.names[row], gpus, score, runner_up, len(rows))

    def _within_quota(self, alike: Class, rows: Ints) -> Ints:
        """The rows whose devices the tenant may still have, by model; none = `refused` says why."""
        verdicts: dict[tuple[str, ...], Refusal | None] = {}
        kept = []
        for row in rows:
            models = tuple(gpu.model for gpu in self.trial.devices(int(row), alike.need))
            if models not in verdicts:
                verdicts[models] = self.quotas.model_refusal(alike.tenant, alike.need, models, borrow=self.borrow)
            if verdicts[models] is None:
                kept.append(row)
        if not kept:
            self.refused = mildest(verdicts.values())
        return np.array(kept, dtype=np.int64)
