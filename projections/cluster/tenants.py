"""Folding tenants: what they may hold and cost, and what they weigh."""

from __future__ import annotations

from eventsched.events import TenantSet
from eventsched.projections.cluster.anomalies import anomaly
from eventsched.projections.cluster.state import ClusterState, TenantLimits
from eventsched.recorded import Recorded
from eventsched.tenancy import EVERYBODY, tenant_problems


def limits_of(state: ClusterState, tenant: str) -> TenantLimits | None:
    """A tenant's limits: its own, or everybody's; None = it has none."""
    return state.tenants.get(tenant) or state.tenants.get(EVERYBODY)


def tenant_set(state: ClusterState, recorded: Recorded, event: TenantSet) -> None:
    """New limits, in place of the old ones; what runs already is not touched."""
    found = tenant_problems(event)
    if found:
        anomaly(state, recorded, "bad_tenant", str(found[0]))
        return
    state.changes.tenants = True
    if event.removed:
        state.tenants.pop(event.tenant, None)
        return
    state.tenants[event.tenant] = TenantLimits(
        event.cpu_millis,
        event.memory_bytes,
        event.gpus,
        {model.lower(): event.gpu_models[model] for model in sorted(event.gpu_models)},
        event.runs,
        event.weight,
        event.cohort,
        event.borrow_percent,
        event.lend_percent,
        event.budget_micros,
        event.budget_period_ms,
    )
