"""Choosing: one job's quota -> filter -> score -> commit, on what this round has left so far.

Works on a trial of the fleet and of the tenants' shares, which its own choices change; the state is
never touched. Everything is an integer, and every choice has a total order that ends in a node id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

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

    borrow: whether tenants may hold more than they own now.
    refused: why the last choice failed: its quota (`refusal` is its word), no room on any node, or no room
    that is not spoken for later on.
    """

    refused: Literal["quota", "room", "later"] = "room"

    def __init__(self, state: ClusterState, fleet: Fleet, usage: Usage, policy: Chosen, now_ms: int) -> None:
        self._policy = policy
        self.trial = Trial(fleet)
        self.quotas = Quotas(state, usage, now_ms)
        self.borrow = False
        self.refusal: Refusal | None = None
        self._full: dict[Need, None] = {}

    def is_full(self, alike: Class) -> bool:
        """True when no node has room for this class any more."""
        return alike.need in self._full

    def save(self) -> tuple[Trial, Quotas, dict[Need, None]]:
        """What to go back to if a gang does not fit."""
        return self.trial.copy(), self.quotas.copy(), dict(self._full)

    def restore(self, saved: tuple[Trial, Quotas, dict[Need, None]]) -> None:
        """Undo what was chosen since; when money comes again stays known."""
        renewal_ms = self.quotas.renewal_ms
        self.trial, self.quotas, self._full = saved
        self.quotas.renewal_ms = renewal_ms

    def choose(self, job: Job, member: int, alike: Class, later: Sequence[Trial] = ()) -> Placement | None:
        """The best node for a job, taken; None when its quota or the fleet has no room.

        later: where it must fit, too.
        """
        trial, need = self.trial, alike.need
        self.refused = "quota"
        self.refusal = self.quotas.refusal(alike.tenant, need, borrow=self.borrow)
        if self.refusal is not None:
            return None
        rows = self._rows(need, later)
        if not len(rows):
            return None
        if (need.gpus or need.gpu_millis) and self.quotas.minds_models(alike.tenant):
            self.refused = "quota"
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

    def _within_quota(self, alike: Class, rows: Ints) -> Ints:
        """The rows whose devices the tenant may still have, by model; none = `refusal` says why."""
        verdicts: dict[tuple[str, ...], Refusal | None] = {}
        kept = []
        for row in rows:
            models = tuple(gpu.model for gpu in self.trial.devices(int(row), alike.need))
            if models not in verdicts:
                verdicts[models] = self.quotas.model_refusal(alike.tenant, alike.need, models, borrow=self.borrow)
            if verdicts[models] is None:
                kept.append(row)
        if not kept:
            self.refusal = mildest(verdicts.values())
        return np.array(kept, dtype=np.int64)
