"""Preemption: who gives way to a job that does not fit, so that it surely does.

Only runs of lower standing give way (see `order.standing`), all on one node, no more of them than it
takes: those of the lowest standing first, on spot nodes before others, then those that lose the least
work, then the youngest. The job's place is kept while they stop. Nobody is stopped in vain: without
a set of runs whose going makes room, or over the job's quota, nothing happens. Counted in looks, not
in time.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.gangs import unit_of
from eventsched.projections.cluster.state import ClusterState, Job, Run
from eventsched.projections.scheduling.backfill import held_by, is_stopping
from eventsched.projections.scheduling.filters import feasible, has_room
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.order import Key, standing, width
from eventsched.projections.scheduling.quota import Quotas
from eventsched.projections.scheduling.trial import Held, Trial

ROWS_MAX = 128
"""Nodes looked at closely for one job."""
REASON = "preempted"


class Victim(NamedTuple):
    """A run that may be asked to give way; compares as (who goes first, ...)."""

    standing: Key
    not_spot: int
    lost: int
    younger: int
    run: int
    tenant: str
    held: Held


class Eviction(NamedTuple):
    """Runs that give way to a job on a node, and what they are told."""

    job: Job
    node: str
    victims: tuple[Victim, ...]

    @property
    def detail(self) -> str:
        """For the victims."""
        return f"in favour of {self.job.key} (priority {self.job.spec.priority})"


class Preemption:
    """One round's victims: candidates by row, those with the least claim to stay first."""

    def __init__(self, state: ClusterState, fleet: Fleet, now_ms: int, tenant_max: int) -> None:
        self._state = state
        self._fleet = fleet
        self._rows: dict[int, list[Victim]] = {}
        self._left: dict[str, int] = {}
        for run in state.runs.values():
            tenant = run.key.partition("/")[0]
            left = self._left.setdefault(tenant, tenant_max)
            if REASON in (run.stop_reason, run.stop_owed):
                self._left[tenant] = left - 1
            elif (victim := _victim(state, run, now_ms)) is not None:
                self._rows.setdefault(fleet.row[run.node], []).append(victim)
        for victims in self._rows.values():
            victims.sort()

    def find(self, job: Job, need: Need, soon: Trial, quotas: Quotas) -> Eviction | None:
        """Who gives way to `job`; None when nobody may, or nobody needs to.

        soon: the fleet as it is when what is being stopped is gone and what is promised is taken.
        """
        if feasible(soon.fleet, need).any():
            return None
        lower = self._lower(standing(job))
        emptied = soon.copy()
        for row, victims in lower.items():
            for victim in victims:
                emptied.release(row, victim.held)
        able = feasible(emptied.fleet, need)
        rows = sorted((row for row in lower if able[row]), key=lambda row: (lower[row][0].standing, row))
        scratch = soon.copy()
        best: tuple[tuple[int | Key, ...], int, tuple[Victim, ...]] | None = None
        for row in islice(rows, ROWS_MAX):
            chosen = self._fewest(scratch, row, need, lower[row])
            if chosen and self._may_have(job, need, scratch, row, quotas):
                cost = (_cost(chosen), row, chosen)
                best = cost if best is None else min(best, cost)
            for victim in chosen:
                scratch.release(row, victim.held, 1)
        if best is None:
            return None
        _, row, chosen = best
        for victim in chosen:
            self._rows[row].remove(victim)
            self._left[victim.tenant] -= 1
        return Eviction(job, self._fleet.names[row], chosen)

    def _lower(self, claim: Key) -> dict[int, list[Victim]]:
        """By row, those of lower standing whose tenants have not given way too often already."""
        found: dict[int, list[Victim]] = {}
        for row, victims in self._rows.items():
            lower = [one for one in victims if one.standing < claim and self._left[one.tenant] > 0]
            if lower:
                found[row] = lower
        return found

    def _fewest(self, scratch: Trial, row: int, need: Need, victims: list[Victim]) -> tuple[Victim, ...]:
        """A set none of which can be spared; () when even all of them would not do. Those of the set are
        released on `scratch`."""
        left = dict(self._left)
        chosen: list[Victim] = []
        for victim in victims:
            if _fits(scratch, row, need):
                break
            if left[victim.tenant] > 0:
                left[victim.tenant] -= 1
                chosen.append(victim)
                scratch.release(row, victim.held)
        enough = _fits(scratch, row, need)
        for victim in reversed(chosen[:]):
            scratch.release(row, victim.held, 1)
            if not enough or _fits(scratch, row, need):
                chosen.remove(victim)
            else:
                scratch.release(row, victim.held)
        return tuple(chosen)

    def _may_have(self, job: Job, need: Need, trial: Trial, row: int, quotas: Quotas) -> bool:
        """Whether the quota allows the devices it would get."""
        if not need.gpus or not quotas.minds_models(job.tenant):
            return True
        models = trial.models(row, need)
        return quotas.model_refusal(job.tenant, need, models) is None


def _fits(trial: Trial, row: int, need: Need) -> bool:
    """Whether a row has room; that it passes all else is known."""
    return bool(has_room(trial.fleet, need, np.array([row], dtype=np.int64))[0])


def _cost(victims: tuple[Victim, ...]) -> tuple[int | Key, ...]:
    """The less the better: the highest standing hurt, nodes that are not spot, work lost, how many."""
    return (
        max(victim.standing for victim in victims),
        max(victim.not_spot for victim in victims),
        sum(victim.lost for victim in victims),
        len(victims),
        max(victim.younger for victim in victims),
    )


def _victim(state: ClusterState, run: Run, now_ms: int) -> Victim | None:
    """What a run would lose; None when it cannot give way, or would not survive it."""
    job = state.jobs.get(run.key)
    if job is None or job.run != run.seq or job.abort_seq or is_stopping(run) or run.state == "unknown":
        return None
    unit = unit_of(state, job)
    if unit.losses >= job.spec.max_lost:
        return None
    size = job.spec.array if job.spec.gang else 1
    began_ms = run.started_ms or now_ms
    lost = max(0, now_ms - began_ms) * width(job) * size
    node = state.nodes[run.node]
    return Victim(standing(job), int(not node.spot), lost, -began_ms, run.seq, job.tenant, held_by(state, run))
