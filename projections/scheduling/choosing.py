"""Choosing: one job's quota -> filter -> score -> commit, on what this round has left so far.

Works on a trial of the fleet and of the tenants' shares, which its own choices change; the state is
never touched. Everything is an integer, and every choice has a total order that ends in a node id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from eventsched.projections.cluster.state import ClusterState, Job, TenantLimits
from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.fleet import Fleet, Ints, Trial
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.planner import Class
from eventsched.projections.scheduling.policies import Chosen
from eventsched.projections.scheduling.quota import limits_of, model_refusal, refusal
from eventsched.projections.scheduling.scores import Draw
from eventsched.projections.scheduling.usage import Shares, Usage


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

    refused: why the last choice failed: its quota, no room on any node, or no room that is not
    spoken for later on.
    """

    refused: Literal["quota", "room", "later"] = "room"

    def __init__(self, state: ClusterState, fleet: Fleet, usage: Usage, policy: Chosen) -> None:
        self._state = state
        self._policy = policy
        self.trial = Trial(fleet)
        self.shares = Shares(usage, {name: limits.weight for name, limits in state.tenants.items()})
        self._full: dict[Need, None] = {}

    def is_full(self, alike: Class) -> bool:
        """True when no node has room for this class any more."""
        return alike.need in self._full

    def save(self) -> tuple[Trial, Shares, dict[Need, None]]:
        """What to go back to if a gang does not fit."""
        return self.trial.copy(), self.shares.copy(), dict(self._full)

    def restore(self, saved: tuple[Trial, Shares, dict[Need, None]]) -> None:
        """Undo what was chosen since."""
        self.trial, self.shares, self._full = saved

    def choose(self, job: Job, member: int, alike: Class, later: Sequence[Trial] = ()) -> Placement | None:
        """The best node for a job, taken; None when its quota or the fleet has no room.

        later: where it must fit, too.
        """
        trial, need = self.trial, alike.need
        limits = limits_of(self._state, alike.tenant)
        self.refused = "quota"
        if refusal(limits, self.shares, alike.tenant, need) is not None:
            return None
        rows = self._rows(need, later)
        if not len(rows):
            return None
        if limits is not None and limits.gpu_models and need.gpus:
            self.refused = "quota"
            rows = self._within_quota(limits, alike, rows)
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
        self.shares.take(alike.tenant, need, [gpu.model for gpu in given])
        gpus = tuple(gpu.uuid for gpu in given)
        return Placement(job, member, need, trial.fleet.names[row], gpus, score, runner_up, len(rows))

    def _rows(self, need: Need, later: Sequence[Trial]) -> Ints:
        """The rows that have room now and later; none with the reason noted."""
        mask = feasible(self.trial, need)
        self.refused = "room"
        if not mask.any():
            self._full[need] = None
        for trial in later:
            if mask.any():
                self.refused = "later"
                mask = mask & feasible(trial, need)
        rows: Ints = np.flatnonzero(mask)
        return rows

    def _within_quota(self, limits: TenantLimits, alike: Class, rows: Ints) -> Ints:
        """The rows whose devices the tenant may still have, by model."""
        verdicts: dict[tuple[str, ...], bool] = {}
        kept = []
        for row in rows:
            models = tuple(gpu.model for gpu in self.trial.devices(int(row), alike.need))
            if models not in verdicts:
                verdicts[models] = model_refusal(limits, self.shares, alike.tenant, models) is None
            if verdicts[models]:
                kept.append(row)
        return np.array(kept, dtype=np.int64)
