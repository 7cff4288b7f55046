"""Choosing: one job's quota -> filter -> score -> commit, on what this round has left so far.

Works on the fleet's own arrays and on the tenants' shares, which its choices change; the state is
never touched. Everything is an integer, and every choice has a total order that ends in a node id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from eventsched.projections.cluster.state import ClusterState, Job
from eventsched.projections.scheduling.diary import Ints
from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.fleet import Fleet, Mask
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.planner import Class
from eventsched.projections.scheduling.policies import Chosen
from eventsched.projections.scheduling.quota import Quotas, Refusal, mildest
from eventsched.projections.scheduling.ranking import Best, Ranking, Rankings, best_of
from eventsched.projections.scheduling.scores import NOBODY, Draw
from eventsched.projections.scheduling.trial import Trial
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
    runner_up_score: int
    terms: dict[str, int]
    feasible: int


class Chooser:
    """One round's choices: a trial of the fleet and of the tenants' shares.

    borrow: whether tenants may hold more than they own now.
    refused: why the last choice failed: its quota (`refusal` is its word), no room on any node, or no room
    that is not spoken for later on.
    """

    refused: Literal["quota", "room", "later"] = "room"

    def __init__(
        self,
        state: ClusterState,
        fleet: Fleet,
        usage: Usage,
        policy: Chosen,
        now_ms: int,
        rankings: Rankings | None = None,
    ) -> None:
        self._policy = policy
        self._rankings = rankings or Rankings(fleet, policy.score)
        self.trial = Trial(fleet, policy.score.pick)
        self.quotas = Quotas(state, usage, now_ms)
        self.borrow = False
        self.refusal: Refusal | None = None
        self._full: dict[Need, None] = {}

    def is_full(self, alike: Class) -> bool:
        """True when no node has room for this class any more."""
        return alike.need in self._full

    def save(self) -> tuple[int, Quotas, dict[Need, None]]:
        """What to go back to if a gang does not fit."""
        return self.trial.mark(), self.quotas.copy(), dict(self._full)

    def restore(self, saved: tuple[int, Quotas, dict[Need, None]]) -> None:
        """Undo what was chosen since; when money comes again stays known."""
        mark, quotas, self._full = saved
        quotas.renewal_ms = self.quotas.renewal_ms
        self.quotas = quotas
        self.trial.undo(mark)

    def choose(self, job: Job, member: int, alike: Class, later: Sequence[Trial] = ()) -> Placement | None:
        """The best node for a job, taken; None when its quota or the fleet has no room.

        later: where it must fit, too.
        """
        need = alike.need
        self.refused = "quota"
        self.refusal = self.quotas.refusal(alike.tenant, need, borrow=self.borrow)
        if self.refusal is not None:
            return None
        ranking = self._rankings.of(need)
        count, only = self._room(need, ranking, later)
        if not count:
            return None
        row, points, second, other = self._best(job, member, alike, ranking, only)
        if row < 0:
            self.refused = "quota"
            return None
        fleet, score = self.trial.fleet, self._policy.score
        if score.shown != 1:
            points, other = points // score.shown, other // score.shown
        terms: dict[str, int] = {}
        if score.terms is not None:
            terms = {name: int(part) for name, part in score.terms(fleet, need, row, job).items()}
            points, other = sum(terms.values()), other + sum(terms.values()) - points
        given = self.trial.commit(row, need)
        self.quotas.take(alike.tenant, need, fleet.layout_of[row].models(given))
        names, uuids = fleet.names, fleet.uuids[row]
        return Placement(
            job,
            member,
            need,
            names[row],
            tuple([uuids[index] for index in given]),
            points,
            names[second] if second >= 0 else "",
            other if second >= 0 else 0,
            terms,
            count,
        )

    def _room(self, need: Need, ranking: Ranking, later: Sequence[Trial]) -> tuple[int, Mask | None]:
        """How many rows have room, now and later; and which, if that is not what the ranking says. For none,
        the reason is noted."""
        count = ranking.count()
        if not count:
            self.refused = "room"
            self._full[need] = None
        if not count or not later:
            return count, None
        self.refused = "later"
        only = ranking.fits.copy()
        for trial in later:
            only &= feasible(trial.fleet, need)
        return int(np.count_nonzero(only)), only

    def _best(self, job: Job, member: int, alike: Class, ranking: Ranking, only: Mask | None) -> Best:
        """The best row for this very job, and the second; none when its tenant may have none of the devices.
        only: rows that may be looked at."""
        score, fleet, policy = self._policy.score, self.trial.fleet, self._policy
        models = (alike.need.gpus or alike.need.gpu_millis) and self.quotas.minds_models(alike.tenant)
        wary = policy.on_demand_after and job.evictions >= policy.on_demand_after
        if score.points is None and only is None and not models and not wary and not job.avoid_node:
            return ranking.best()
        if score.points is None:
            rank = ranking.ranks()
        else:
            rows = np.flatnonzero(ranking.fits)
            draw = Draw(policy.seed, (job.seq << 24) + (job.attempt << 16) + max(0, member))
            rank = np.full(fleet.count, NOBODY, dtype=np.int64)
            rank[rows] = score.points(fleet, alike.need, rows, draw)
        if only is not None:
            rank = np.where(only, rank, NOBODY)
        if models:
            rank = self._within_quota(alike, rank)
        avoided = fleet.row.get(job.avoid_node) if job.avoid_node else None
        if avoided is not None and np.count_nonzero(rank > NOBODY) > 1:
            rank[avoided] = NOBODY
        if wary:
            safe = np.where(fleet.spot, NOBODY, rank)
            rank = safe if (safe > NOBODY).any() else rank
        return best_of(score, rank)

    def _within_quota(self, alike: Class, rank: Ints) -> Ints:
        """The rank of the rows whose devices the tenant may still have, by model; none = `refusal` says why."""
        verdicts: dict[tuple[str, ...], Refusal | None] = {}
        kept = np.full(len(rank), NOBODY, dtype=np.int64)
        for row in np.flatnonzero(rank > NOBODY).tolist():
            models = self.trial.models(row, alike.need)
            if models not in verdicts:
                verdicts[models] = self.quotas.model_refusal(alike.tenant, alike.need, models, borrow=self.borrow)
            if verdicts[models] is None:
                kept[row] = rank[row]
        if not (kept > NOBODY).any():
            self.refusal = mildest(verdicts.values())
        return kept
