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
from eventsched.projections.scheduling.ranking import Best, Ranking, Rankings, best_of
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
        best, second = self._best(job, member, alike, ranking, limits)
        if best.row < 0:
            return None
        fleet, score = self.trial.fleet, self._policy.score
        points, other = best.points // score.shown, second.points // score.shown
        terms: dict[str, int] = {}
        if score.terms is not None:
            terms = score.terms(fleet, need, best.row, job)
            points, other = points + sum(terms.values()) - points, other + sum(terms.values()) - points
        given = self.trial.commit(best.row, need)
        self.shares.take(alike.tenant, need, [gpu.model for gpu in given])
        return Placement(
            job,
            member,
            need,
            fleet.names[best.row],
            tuple(gpu.uuid for gpu in given),
            points,
            fleet.names[second.row] if second.row >= 0 else "",
            other if second.row >= 0 else 0,
            terms,
            count,
        )

    def _best(
        self, job: Job, member: int, alike: Class, ranking: Ranking, limits: TenantLimits | None
    ) -> tuple[Best, Best]:
        """The best row for this very job, and the second; none when its tenant may have none of the devices."""
        score, fleet, policy = self._policy.score, self.trial.fleet, self._policy
        models = limits is not None and limits.gpu_models and (alike.need.gpus or alike.need.gpu_millis)
        wary = policy.on_demand_after and job.evictions >= policy.on_demand_after
        if score.points is None and not models and not wary and not job.avoid_node:
            return ranking.best()
        if score.points is None:
            rank = ranking.ranks()
        else:
            rows = np.flatnonzero(ranking.fits)
            draw = Draw(policy.seed, (job.seq << 24) + (job.attempt << 16) + max(0, member))
            rank = np.full(fleet.count, NOBODY, dtype=np.int64)
            rank[rows] = score.points(fleet, alike.need, rows, draw)
        if models and limits is not None:
            rank = self._within_quota(limits, alike, rank)
        avoided = fleet.row.get(job.avoid_node) if job.avoid_node else None
        if avoided is not None and np.count_nonzero(rank > NOBODY) > 1:
            rank[avoided] = NOBODY
        if wary:
            safe = np.where(fleet.spot, NOBODY, rank)
            rank = safe if (safe > NOBODY).any() else rank
        return best_of(score, rank)

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
