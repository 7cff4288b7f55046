"""Choosing: one job's quota -> filter -> score -> commit, on what this round has left so far.

Works on the fleet's own arrays and on the tenants' shares, which its choices change; the state is
never touched. Everything is an integer, and every choice has a total order that ends in a node id.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.state import ClusterState, Job, TenantLimits
from eventsched.projections.scheduling.fleet import Fleet, Ints
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.planner import Class
from eventsched.projections.scheduling.policies import Chosen
from eventsched.projections.scheduling.quota import limits_of, model_refusal, refusal
from eventsched.projections.scheduling.ranking import Ranking, Rankings
from eventsched.projections.scheduling.scores import NOBODY, Draw
from eventsched.projections.scheduling.trial import Trial
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
    runner_up_score: int
    terms: dict[str, int]
    feasible: int


class Chooser:
    """One round's choices: a trial of the fleet and of the tenants' shares."""

    def __init__(
        self, state: ClusterState, fleet: Fleet, usage: Usage, policy: Chosen, rankings: Rankings | None = None
    ) -> None:
        self._state = state
        self._policy = policy
        self._rankings = rankings or Rankings(fleet, policy.score)
        self.trial = Trial(fleet, policy.score.pick)
        self.shares = Shares(usage, {name: limits.weight for name, limits in state.tenants.items()})
        self._full: dict[Need, None] = {}

    def is_full(self, alike: Class) -> bool:
        """True when no node has room for this class any more."""
        return alike.need in self._full

    @property
    def full(self) -> dict[Need, None]:
        """The needs that were found to have no room."""
        return self._full

    def choose(self, job: Job, member: int, alike: Class) -> Placement | None:
        """The best node for a job, taken; None when its quota or the fleet has no room."""
        need = alike.need
        limits = limits_of(self._state, alike.tenant)
        if refusal(limits, self.shares, alike.tenant, need) is not None:
            return None
        ranking = self._rankings.of(need)
        count = ranking.count()
        if not count:
            self._full[need] = None
            return None
        rank = self._rank(job, member, alike, ranking, limits)
        if rank is None:
            return None
        row = int(rank.argmax())
        node = self.trial.fleet.names[row]
        score, terms = self._points(int(rank[row]), row, job, need)
        runner_up, runner_up_score = "", 0
        if count > 1:
            kept, rank[row] = rank[row], NOBODY
            second = int(rank.argmax())
            if rank[second] > NOBODY:
                runner_up = self.trial.fleet.names[second]
                runner_up_score, _ = self._points(int(rank[second]), second, job, need)
            rank[row] = kept
        given = self.trial.commit(row, need)
        self.shares.take(alike.tenant, need, [gpu.model for gpu in given])
        gpus = tuple(gpu.uuid for gpu in given)
        return Placement(job, member, need, node, gpus, score, runner_up, runner_up_score, terms, count)

    def _points(self, rank: int, row: int, job: Job, need: Need) -> tuple[int, dict[str, int]]:
        """A row's points as people see them, and their terms if there are several."""
        score = self._policy.score
        if score.terms is None:
            return score.points_of(rank) // score.shown, {}
        terms = score.terms(self.trial.fleet, need, row, job)
        return sum(terms.values()), terms

    def _rank(self, job: Job, member: int, alike: Class, ranking: Ranking, limits: TenantLimits | None) -> Ints | None:
        """The rank of every row for this very job; None when its tenant may have none of the devices."""
        score, fleet, need = self._policy.score, self.trial.fleet, alike.need
        rank = ranking.rank
        if score.points is not None:
            rows = np.flatnonzero(ranking.fits)
            draw = Draw(self._policy.seed, (job.seq << 24) + (job.attempt << 16) + max(0, member))
            rank = np.full(fleet.count, NOBODY, dtype=np.int64)
            rank[rows] = score.points(fleet, need, rows, draw)
        if limits is not None and limits.gpu_models and (need.gpus or need.gpu_millis):
            rank = self._within_quota(limits, alike, rank)
            if not (rank > NOBODY).any():
                return None
        avoided = fleet.row.get(job.avoid_node) if job.avoid_node else None
        if avoided is not None and rank[avoided] > NOBODY and np.count_nonzero(rank > NOBODY) > 1:
            rank = rank.copy()
            rank[avoided] = NOBODY
        if self._policy.on_demand_after and job.evictions >= self._policy.on_demand_after:
            safe = np.where(fleet.spot, NOBODY, rank)
            rank = safe if (safe > NOBODY).any() else rank
        return rank

    def _within_quota(self, limits: TenantLimits, alike: Class, rank: Ints) -> Ints:
        """The rank of the rows whose devices the tenant may still have, by model."""
        verdicts: dict[tuple[str, ...], bool] = {}
        kept = np.full(len(rank), NOBODY, dtype=np.int64)
        for row in np.flatnonzero(rank > NOBODY).tolist():
            models = tuple(gpu.model for gpu in self.trial.devices(row, alike.need))
            if models not in verdicts:
                verdicts[models] = model_refusal(limits, self.shares, alike.tenant, models) is None
            if verdicts[models]:
                kept[row] = rank[row]
        return kept
