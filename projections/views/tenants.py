"""Tenants and prices as people see them: what is owned, held, borrowed and spent."""

from __future__ import annotations

from eventsched.projections.cluster.arrays import unreached
from eventsched.projections.cluster.money import cost_between, spent_micros
from eventsched.projections.cluster.state import TERMINAL, ClusterState
from eventsched.projections.cluster.tenants import limits_of
from eventsched.projections.scheduling.quota import Quotas
from eventsched.projections.scheduling.usage import Usage
from eventsched.tenancy import EVERYBODY
from eventsched.views import PriceView, TenantView


def tenant_views(state: ClusterState, now_ms: int, only: str = "") -> list[TenantView]:
    """Every tenant that has limits, runs, waiting jobs or an account, by name. only: at most this one."""
    usage = Usage(state)
    quotas = Quotas(state, usage, now_ms)
    waiting: dict[str, int] = {}
    for job in state.jobs.values():
        if job.state not in TERMINAL and not job.run:
            members = 1 if job.array is None else unreached(job)
            waiting[job.tenant] = waiting.get(job.tenant, 0) + members
    names = sorted({**state.tenants, **usage.by_tenant, **waiting, **state.accounts})
    return [_view(state, usage, quotas, name, waiting.get(name, 0), now_ms) for name in names if only in ("", name)]


def _view(state: ClusterState, usage: Usage, quotas: Quotas, tenant: str, waiting: int, now_ms: int) -> TenantView:
    limits, ceiling = limits_of(state, tenant), quotas.ceiling(tenant)
    owned = ceiling.owned if ceiling is not None else {}
    held = {kind: amount for kind, amount in sorted(quotas.shares.held(tenant).items()) if amount}
    view = TenantView(
        tenant=tenant,
        weight=state.tenants[tenant].weight if tenant in state.tenants else 1,
        limits=dict(owned),
        held=held,
        share_ppm=quotas.shares.dominant(tenant) if tenant != EVERYBODY else 0,
        waiting=waiting,
        own_limits=tenant in state.tenants,
        total_micros=quotas.spent(tenant, 0),
    )
    if limits is None:
        return view
    if limits.cohort and ceiling is not None:
        view.cohort, view.borrow_percent, view.lend_percent = limits.cohort, limits.borrow_percent, limits.lend_percent
        over = {kind: amount - (ceiling.of(kind) or 0) for kind, amount in held.items() if ceiling.of(kind) is not None}
        view.borrowed = {kind: amount for kind, amount in over.items() if amount > 0}
    period_ms = limits.budget_period_ms
    view.budget_micros, view.budget_period_ms = limits.budget_micros, period_ms
    view.spent_micros = quotas.spent(tenant, period_ms)
    if period_ms:
        start_ms = now_ms // period_ms * period_ms
        view.previous_micros = spent_micros(state.accounts.get(tenant), period_ms, now_ms)[1]
        for rate, since_ms in usage.rates.get(tenant, {}).values():
            view.previous_micros += cost_between(rate, since_ms, start_ms - period_ms, start_ms)
        view.next_period_ms = start_ms + period_ms
    return view


def price_view(state: ClusterState) -> PriceView:
    """The price book."""
    models = {name.removeprefix("gpu:"): price for name, price in state.prices.items() if name.startswith("gpu:")}
    return PriceView(
        core_micros_per_h=state.prices.get("core", 0),
        gib_micros_per_h=state.prices.get("gib", 0),
        gpu_micros_per_h=state.prices.get("gpu", 0),
        gpu_models=models,
    )
