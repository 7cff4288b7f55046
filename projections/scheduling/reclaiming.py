"""Reclaiming: whose runs give way when a tenant of a cohort wants back what it owns.

Only for a tenant that stays within its own limits, only runs of members that hold more than they own
of what is wanted, the youngest first; those whose job would not survive another loss come last. What
is being stopped already counts as given back. Where no node has room, they go from one node until it has.
Nobody is stopped in vain: unless the job fits when they are gone, nobody is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.state import ClusterState, Job, Run
from eventsched.projections.scheduling.clearing import Clearing
from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.quota import Quotas
from eventsched.projections.scheduling.trial import Trial
from eventsched.projections.scheduling.usage import Amounts, Lent, amounts_of_need, amounts_of_run

RECLAIMS_MAX = 64
"""Jobs a round makes place for."""


class Reclaim(NamedTuple):
    """Runs that give way to a job of the tenant that owns what they hold; none = enough has been given back."""

    job: Job
    runs: tuple[Run, ...]

    @property
    def detail(self) -> str:
        """For the runs' owners."""
        return f"reclaimed by tenant {self.job.tenant} for job {self.job.job_id}"


class Reclaiming:
    """One round's reclaims, on the quotas as they will be when what is being stopped has gone."""

    def __init__(self, state: ClusterState, quotas: Quotas) -> None:
        self._state = state
        self._quotas = quotas.copy()
        self._by_cohort: dict[str, list[Lent]] = {}
        for run in reversed(state.runs.values()):
            tenant = run.key.partition("/")[0]
            limits = state.tenants.get(tenant)
            if limits is None or not limits.cohort:
                continue
            models = {gpu.uuid: gpu.model for gpu in state.nodes[run.node].capacity.gpus} if run.gpus else {}
            held = Lent(run, tenant, amounts_of_run(run, models))
            if run.stop_owed or run.stop_reason:
                self._quotas.change(tenant, held.amounts, -1)
            elif run.state != "unknown":
                self._by_cohort.setdefault(limits.cohort, []).append(held)
        for runs in self._by_cohort.values():
            runs.sort(key=self._would_end)  # stable: the youngest first among both sorts

    def _would_end(self, held: Lent) -> bool:
        job = self._state.jobs.get(held.run.key)
        return job is not None and job.losses >= job.spec.max_lost

    def lent(self, tenant: str, wanted: Amounts) -> list[Lent]:
        """Runs that hold of `wanted` what their tenants do not own, in the order they are to be given up; [] when
        the tenant does not own it either. Each still borrows when all those before it are gone."""
        limits = self._state.tenants.get(tenant)
        left = self._quotas.copy()
        if limits is None or any(left.over(tenant, kind, amount) > 0 for kind, amount in wanted.items() if amount):
            return []
        found: list[Lent] = []
        for held in self._by_cohort.get(limits.cohort, []):
            if held.tenant != tenant and self._borrows(left, held, wanted):
                found.append(held)
                left.change(held.tenant, held.amounts, -1)
        return found

    def _borrows(self, quotas: Quotas, held: Lent, wanted: Amounts) -> bool:
        return any(
            held.amounts.get(kind) and quotas.over(held.tenant, kind) > 0 for kind, amount in wanted.items() if amount
        )

    def reclaim(self, tenant: str, wanted: Amounts) -> tuple[Run, ...] | None:
        """The runs whose going lets a tenant have `wanted`, none that can be spared; () when none need go, and
        None when it would not help. Unless it is None, no other gets what is wanted here."""
        trial = self._quotas.copy()
        chosen: list[Lent] = []
        for held in self.lent(tenant, wanted):
            if trial.judge(tenant, wanted, borrow=False) is None:
                break
            trial.change(held.tenant, held.amounts, -1)
            chosen.append(held)
        if trial.judge(tenant, wanted, borrow=False) is not None:
            return None
        for held in reversed(chosen[:-1]):
            trial.change(held.tenant, held.amounts)
            if trial.judge(tenant, wanted, borrow=False) is None:
                chosen.remove(held)
            else:
                trial.change(held.tenant, held.amounts, -1)
        self._gone(trial, tenant, wanted, chosen)
        return tuple(held.run for held in chosen)

    def give_up(self, tenant: str, wanted: Amounts, chosen: list[Lent]) -> bool:
        """Let these runs go for a tenant, if it may then have `wanted`."""
        trial = self._quotas.copy()
        for held in chosen:
            trial.change(held.tenant, held.amounts, -1)
        if trial.judge(tenant, wanted, borrow=False) is not None:
            return False
        self._gone(trial, tenant, wanted, chosen)
        return True

    def _gone(self, quotas: Quotas, tenant: str, wanted: Amounts, chosen: list[Lent]) -> None:
        quotas.change(tenant, wanted)
        self._quotas = quotas
        for runs in self._by_cohort.values():
            runs[:] = [held for held in runs if held not in chosen]


def reclaims(
    state: ClusterState, quotas: Quotas, trial: Trial, waiting: list[tuple[Need, Iterator[Job]]]
) -> Iterator[Reclaim]:
    """What is to be given up for jobs that wait for what their tenants own. Each is promised a place, now or
    when the runs have gone, and its quota: in this round nobody else gets them.

    waiting: classes, best first, with their jobs in order.
    """
    reclaiming = Reclaiming(state, quotas)
    clearing: Clearing | None = None
    looks = RECLAIMS_MAX
    for need, jobs in waiting:
        for job in jobs:
            looks -= 1
            found = _on_a_node_with_room(reclaiming, quotas, trial, need, job) if looks >= 0 else None
            if found is None and looks >= 0 and not feasible(trial.fleet, need).any():
                clearing = clearing or Clearing(state, trial)
                found = _by_clearing_a_node(reclaiming, clearing, need, job)
            if found is None:
                break
            yield found


def _on_a_node_with_room(reclaiming: Reclaiming, quotas: Quotas, trial: Trial, need: Need, job: Job) -> Reclaim | None:
    """Make place for one job in its quota, on a node that has room; None when that can't be."""
    tried: dict[tuple[str, ...], None] = {}
    for row in np.flatnonzero(feasible(trial.fleet, need)):
        models = trial.models(int(row), need)
        if models in tried:
            continue
        tried[models] = None
        runs = reclaiming.reclaim(job.tenant, amounts_of_need(need, models))
        if runs is not None:
            quotas.take(job.tenant, need, models)
            trial.commit(int(row), need)
            return Reclaim(job, runs)
    return None


def _by_clearing_a_node(reclaiming: Reclaiming, clearing: Clearing, need: Need, job: Job) -> Reclaim | None:
    """Make place for one job in its quota and on a node; None when that can't be."""
    row = clearing.free_row(need)
    if row >= 0:
        runs = reclaiming.reclaim(job.tenant, amounts_of_need(need, clearing.models(row, need)))
        if runs is not None:
            clearing.keep(row, need)
            return Reclaim(job, runs)
        return None
    for models, rows in clearing.likely(need).items():
        lent = reclaiming.lent(job.tenant, amounts_of_need(need, models))
        for row, runs_there in clearing.rows_of(lent, rows).items():
            chosen = clearing.clear(row, need, runs_there)
            if not chosen:
                continue
            if reclaiming.give_up(job.tenant, amounts_of_need(need, clearing.models(row, need)), chosen):
                clearing.keep(row, need)
                return Reclaim(job, tuple(one.run for one in chosen))
            clearing.back(row, chosen)
    return None
