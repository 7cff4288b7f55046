"""Reclaiming: whose runs give way when a tenant of a cohort wants back what it owns.

Only for a tenant that stays within its own limits, only runs of members that hold more than they own
of what is wanted, the youngest first; those whose job would not survive another loss come last. What
is being stopped already counts as given back. Nobody is stopped in vain: unless the job fits when they
are gone, nobody is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eventsched.projections.cluster.state import ClusterState, Job, Run
from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.quota import Quotas
from eventsched.projections.scheduling.trial import Trial
from eventsched.projections.scheduling.usage import Amounts, amounts_of_need, amounts_of_run

RECLAIMS_MAX = 64
"""Jobs a round makes place for."""


class Held(NamedTuple):
    """A run of a cohort's member, and what it holds."""

    run: Run
    tenant: str
    amounts: Amounts


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
        self._by_cohort: dict[str, list[Held]] = {}
        for run in reversed(state.runs.values()):
            tenant = run.key.partition("/")[0]
            limits = state.tenants.get(tenant)
            if limits is None or not limits.cohort:
                continue
            models = {gpu.uuid: gpu.model for gpu in state.nodes[run.node].capacity.gpus} if run.gpus else {}
            held = Held(run, tenant, amounts_of_run(run, models))
            if run.stop_owed or run.stop_reason:
                self._quotas.change(tenant, held.amounts, -1)
            elif run.state != "unknown":
                self._by_cohort.setdefault(limits.cohort, []).append(held)
        for runs in self._by_cohort.values():
            runs.sort(key=self._would_end)  # stable: the youngest first among both sorts

    def _would_end(self, held: Held) -> bool:
        job = self._state.jobs.get(held.run.key)
        return job is not None and job.losses >= job.spec.max_lost

    def lent(self, tenant: str, wanted: Amounts) -> list[Held]:
        """Runs that hold of `wanted` what their tenants do not own, in the order they are to be given up; [] when
        the tenant does not own it either. Each still borrows when all those before it are gone."""
        limits = self._state.tenants.get(tenant)
        left = self._quotas.copy()
        if limits is None or any(left.over(tenant, kind, amount) > 0 for kind, amount in wanted.items() if amount):
            return []
        found: list[Held] = []
        for held in self._by_cohort.get(limits.cohort, []):
            if held.tenant != tenant and self._borrows(left, held, wanted):
                found.append(held)
                left.change(held.tenant, held.amounts, -1)
        return found

    def _borrows(self, quotas: Quotas, held: Held, wanted: Amounts) -> bool:
        return any(
            held.amounts.get(kind) and quotas.over(held.tenant, kind) > 0 for kind, amount in wanted.items() if amount
        )

    def reclaim(self, tenant: str, wanted: Amounts) -> tuple[Run, ...] | None:
        """The runs whose going lets a tenant have `wanted`, none that can be spared; () when none need go, and
        None when it would not help. Unless it is None, no other gets what is wanted here."""
        trial = self._quotas.copy()
        chosen: list[Held] = []
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
        trial.change(tenant, wanted)
        self._quotas = trial
        for runs in self._by_cohort.values():
            runs[:] = [held for held in runs if held not in chosen]
        return tuple(held.run for held in chosen)


def reclaims(
    state: ClusterState, quotas: Quotas, trial: Trial, waiting: list[tuple[Need, Iterator[Job]]]
) -> Iterator[Reclaim]:
    """What is to be given up for jobs that wait for what their tenants own. Each is promised a node that has
    room already, and its quota: in this round nobody else gets them.

    waiting: classes, best first, with their jobs in order.
    """
    reclaiming = Reclaiming(state, quotas)
    looks = RECLAIMS_MAX
    for need, jobs in waiting:
        for job in jobs:
            looks -= 1
            found = _for_one(reclaiming, quotas, trial, need, job) if looks >= 0 else None
            if found is None:
                break
            yield found


def _for_one(reclaiming: Reclaiming, quotas: Quotas, trial: Trial, need: Need, job: Job) -> Reclaim | None:
    """Make place for one job on a node that has room; None when that can't be."""
    tried: dict[tuple[str, ...], None] = {}
    for row in np.flatnonzero(feasible(trial.fleet, need)):
        models = tuple(gpu.model for gpu in trial.devices(int(row), need))
        if models in tried:
            continue
        tried[models] = None
        runs = reclaiming.reclaim(job.tenant, amounts_of_need(need, models))
        if runs is not None:
            quotas.take(job.tenant, need, models)
            trial.commit(int(row), need)
            return Reclaim(job, runs)
    return None
