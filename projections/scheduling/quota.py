"""Quota: may this tenant have one more run of this class now?

Limits stand in the state (`tenant_set` events); "*" is every tenant that has none of its own. What
is not limited is unlimited.
"""

from __future__ import annotations

from typing import NamedTuple

from eventsched.projections.cluster.state import ClusterState, TenantLimits
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.usage import CPU, GPUS, MEMORY, RUNS, Shares, gpu_kind

EVERYBODY = "*"


class Refusal(NamedTuple):
    """Which limit refuses, with numbers: asked and held now, of a limit."""

    kind: str
    asked: int
    held: int
    limit: int


def limits_of(state: ClusterState, tenant: str) -> TenantLimits | None:
    """A tenant's limits; None = unlimited."""
    return state.tenants.get(tenant) or state.tenants.get(EVERYBODY)


def refusal(limits: TenantLimits | None, shares: Shares, tenant: str, need: Need) -> Refusal | None:
    """Why one more run would be over the quota; None = it may have it, GPU models aside."""
    if limits is None:
        return None
    held = shares.held(tenant)
    for kind, asked, limit in (
        (RUNS, 1, limits.runs),
        (CPU, need.cpu_millis, limits.cpu_millis),
        (MEMORY, need.memory_bytes, limits.memory_bytes),
        (GPUS, need.gpus, limits.gpus),
    ):
        if limit is not None and asked and held.get(kind, 0) + asked > limit:
            return Refusal(kind, asked, held.get(kind, 0), limit)
    return None


def model_refusal(limits: TenantLimits, shares: Shares, tenant: str, models: tuple[str, ...]) -> Refusal | None:
    """Why the tenant may not have these devices, by their models; None = it may."""
    held = shares.held(tenant)
    for model in dict.fromkeys(models):
        limit = limits.gpu_models.get(model.lower())
        asked, kind = models.count(model), gpu_kind(model)
        if limit is not None and held.get(kind, 0) + asked > limit:
            return Refusal(kind, asked, held.get(kind, 0), limit)
    return None
