"""Folding tenants: what they may hold, and what they weigh."""

from __future__ import annotations

from eventsched.events import TenantSet
from eventsched.ids import is_id
from eventsched.projections.cluster.anomalies import anomaly
from eventsched.projections.cluster.state import ClusterState, TenantLimits
from eventsched.recorded import Recorded

WEIGHT_MAX = 1_000


def tenant_set(state: ClusterState, recorded: Recorded, event: TenantSet) -> None:
    """New limits, in place of the old ones; what runs already is not touched."""
    if event.tenant != "*" and not is_id(event.tenant):
        anomaly(state, recorded, "bad_tenant", f"{event.tenant[:64]!r} is not an id")
        return
    if event.removed:
        state.tenants.pop(event.tenant, None)
        return
    amounts = [event.cpu_millis, event.memory_bytes, event.gpus, event.runs, *event.gpu_models.values()]
    if any(amount is not None and amount < 0 for amount in amounts):
        anomaly(state, recorded, "bad_tenant", "limits are 0 or more")
        return
    if not 1 <= event.weight <= WEIGHT_MAX:
        anomaly(state, recorded, "bad_tenant", f"weight is 1 to {WEIGHT_MAX}")
        return
    models = {model.lower(): event.gpu_models[model] for model in sorted(event.gpu_models)}
    state.tenants[event.tenant] = TenantLimits(
        event.cpu_millis, event.memory_bytes, event.gpus, models, event.runs, event.weight
    )
