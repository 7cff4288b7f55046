"""What a tenant's quota says of a job that waits, all of it together: numbers, money, GPU models, gangs.

A round asks these one after the other, of the devices it is about to give. Asked before that, devices are
judged by the models the job names, and then by those that are free.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eventsched.projections.scheduling.filters import feasible
from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.quota import Quotas, Refusal, mildest
from eventsched.projections.scheduling.trial import Trial
from eventsched.projections.scheduling.usage import gpu_kind


class Disallowed(NamedTuple):
    """Why the quota refuses; of a gang, how many members it would have let start."""

    members: int
    refusal: Refusal


def disallowed(fleet: Fleet, quotas: Quotas, tenant: str, need: Need, count: int = 1) -> Disallowed | None:
    """Why a job's quota refuses it now, or so many members of a gang together; None = it allows it."""
    if quotas.ceiling(tenant) is None:
        return None
    minds = bool(need.gpus or need.gpu_millis) and quotas.minds_models(tenant)
    trying = quotas.copy() if count > 1 else quotas
    for member in range(count):
        refusal = trying.refusal(tenant, need)
        models: tuple[str, ...] = ()
        if minds and refusal is None:
            models, refusal = _named(trying, tenant, need)
        if refusal is not None:
            return Disallowed(member, refusal)
        if count > 1:
            trying.take(tenant, need, models)
    return _where_there_is_room(fleet, quotas, tenant, need, count) if minds else None


def _named(quotas: Quotas, tenant: str, need: Need) -> tuple[tuple[str, ...], Refusal | None]:
    """The first of the models it names that the tenant may have; why not, if it may have none of them.

    A name that its limits don't know may be that of a variant: who can tell before there is a device.
    """
    ceiling = quotas.ceiling(tenant)
    refusals = []
    for name in need.gpu_models:
        if ceiling is None or gpu_kind(name) not in ceiling.owned:
            return (), None
        models = (name,) * (need.gpus or 1)
        refusal = quotas.model_refusal(tenant, need, models)
        if refusal is None:
            return models, None
        refusals.append(refusal)
    return (), mildest(refusals)


def _where_there_is_room(fleet: Fleet, quotas: Quotas, tenant: str, need: Need, count: int) -> Disallowed | None:
    """The tenant may have no more of the devices that are free; None also where too few are.

    A node that is refused stays refused, as others only take.
    """
    trial, trying = Trial(fleet), quotas.copy()
    open_rows = np.ones(fleet.count, dtype=np.bool_)
    refusals: list[Refusal] = []
    found: Disallowed | None = None
    for member in range(count):
        for row in np.flatnonzero(feasible(fleet, need) & open_rows).tolist():
            models = trial.models(row, need)
            refusal = trying.model_refusal(tenant, need, models)
            if refusal is None:
                trial.commit(row, need)
                trying.take(tenant, need, models)
                break
            refusals.append(refusal)
            open_rows[row] = False
        else:
            worst = mildest(refusals)
            found = None if worst is None else Disallowed(member, worst)
            break
    trial.undo()
    return found
