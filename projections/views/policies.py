"""Policies and tenants as people see them."""

from __future__ import annotations

from eventsched.projections.cluster.state import TERMINAL, ClusterState, TenantLimits
from eventsched.projections.scheduling.backfill import BACKFILLS
from eventsched.projections.scheduling.order import ORDERS
from eventsched.projections.scheduling.policies import POLICIES, complete
from eventsched.projections.scheduling.quota import EVERYBODY, limits_of
from eventsched.projections.scheduling.scores import SCORES
from eventsched.projections.scheduling.usage import CPU, GPUS, MEMORY, RUNS, Shares, Usage, gpu_kind
from eventsched.views import PolicyView, TenantView


def policy_views(state: ClusterState) -> list[PolicyView]:
    """All policies of this build, by name."""
    found = []
    for name, policy in sorted(POLICIES.items()):
        current = name == state.policy.name
        params = complete(policy, state.policy.params if current else {})
        order, score = str(params["order"]), str(params["score"])
        stages = {"order": ORDERS[order].summary, "score": SCORES[score].summary}
        if params["backfill"] != "none":
            stages["backfill"] = BACKFILLS[str(params["backfill"])].summary
        found.append(
            PolicyView(
                name=name,
                version=policy.version,
                summary=policy.summary,
                ties=policy.ties,
                params=params,
                current=current,
                stages=stages,
            )
        )
    return found


def tenant_views(state: ClusterState) -> list[TenantView]:
    """Every tenant that has limits, runs or waiting jobs, by name."""
    usage = Usage(state)
    weights = {name: limits.weight for name, limits in state.tenants.items()}
    shares = Shares(usage, {})
    waiting: dict[str, int] = {}
    for job in state.jobs.values():
        if job.state not in TERMINAL and not job.run:
            members = job.spec.array - job.array.next if job.array is not None else 1
            waiting[job.tenant] = waiting.get(job.tenant, 0) + members
    return [
        TenantView(
            tenant=name,
            weight=weights.get(name, 1),
            limits=_limits(limits_of(state, name)),
            held={kind: amount for kind, amount in sorted(shares.held(name).items()) if amount},
            share_ppm=shares.dominant(name) if name != EVERYBODY else 0,
            waiting=waiting.get(name, 0),
            own_limits=name in state.tenants,
        )
        for name in sorted({**state.tenants, **usage.by_tenant, **waiting})
    ]


def _limits(limits: TenantLimits | None) -> dict[str, int]:
    if limits is None:
        return {}
    pairs = ((RUNS, limits.runs), (CPU, limits.cpu_millis), (MEMORY, limits.memory_bytes), (GPUS, limits.gpus))
    found = {kind: limit for kind, limit in pairs if limit is not None}
    return found | {gpu_kind(model): limit for model, limit in limits.gpu_models.items()}
