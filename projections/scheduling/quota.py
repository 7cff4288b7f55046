"""Quota: may this tenant have one more run of this class now?

Limits stand in the state (`tenant_set` events); "*" is every tenant that has none of its own. What
is not limited is unlimited, unless the cluster was created to give nothing by default. Tenants of a
cohort may hold more than they own while others of it hold less; see `cohorts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from eventsched.projections.cluster.money import cost_between, spent_micros
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.cluster.tenants import limits_of
from eventsched.projections.scheduling.cohorts import Ceiling, Cohort, ceiling_of, cohort_of
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.usage import Amounts, Shares, Usage, amounts_of_models, amounts_of_need

MONEY = "micros"

LIMIT, LENT_OUT, POOL, BORROWS, BUDGET = "limit", "lent_out", "pool", "borrows", "budget"
"""Causes of a refusal: the tenant's own limit; others hold what it owns; it would have to borrow, and the
cohort has nothing left, or borrowing is not its turn; its money is spent."""


_SEVERITY = {BORROWS: 0, LENT_OUT: 1, POOL: 2}


class Refusal(NamedTuple):
    """Which limit refuses, with numbers: asked and held now, of a limit.

    borrowers: who hold more than they own, if that is the cause. until_ms: when money comes again; 0 = never.
    """

    kind: str
    asked: int
    held: int
    limit: int
    cause: str = LIMIT
    borrowers: tuple[str, ...] = ()
    until_ms: int = 0


def mildest(refusals: Iterable[Refusal | None]) -> Refusal | None:
    """Of refusals of several models, the one that is mended soonest: borrowing, then reclaiming, then the first."""
    found = [refused for refused in refusals if refused is not None]
    return min(found, key=lambda refused: _SEVERITY.get(refused.cause, len(_SEVERITY)), default=None)


class Quotas:
    """The quota stage of one round; works on what tenants hold after the round's commits so far."""

    def __init__(self, state: ClusterState, usage: Usage, now_ms: int) -> None:
        self.shares = Shares(usage, state.tenants)
        self.renewal_ms = 0
        """When the first budget that refused something in this round begins anew; 0 = none refused."""
        self._state = state
        self._usage = usage
        self._now_ms = now_ms
        self._ceilings: dict[str, Ceiling | None] = {}
        self._cohorts: dict[str, Cohort] = {}
        self._money: dict[str, Refusal | None] = {}

    def ceiling(self, tenant: str) -> Ceiling | None:
        """What a tenant owns; None = it has no limits."""
        if tenant not in self._ceilings:
            self._ceilings[tenant] = ceiling_of(limits_of(self._state, tenant), self._state.grants_only)
        return self._ceilings[tenant]

    def cohort(self, tenant: str) -> Cohort | None:
        """The cohort a tenant is in."""
        ceiling = self.ceiling(tenant)
        name = ceiling.cohort if ceiling is not None else ""
        if not name:
            return None
        if name not in self._cohorts:
            self._cohorts[name] = cohort_of(self._state, name, self.shares)
        return self._cohorts[name]

    def minds_models(self, tenant: str) -> bool:
        """True when it matters for a tenant which models of GPUs it gets."""
        ceiling = self.ceiling(tenant)
        return ceiling is not None and ceiling.names_models

    def refusal(self, tenant: str, need: Need, *, borrow: bool = True) -> Refusal | None:
        """Why one more run would be too much; None = it may have it, GPU models aside.

        borrow: whether it may hold more than it owns, if its cohort has it.
        """
        if self.ceiling(tenant) is None:
            return None
        return self.money(tenant) or self.judge(tenant, amounts_of_need(need), borrow=borrow)

    def model_refusal(self, tenant: str, need: Need, models: tuple[str, ...], *, borrow: bool = True) -> Refusal | None:
        """Why the tenant may not have devices of these models; None = it may."""
        return self.judge(tenant, amounts_of_models(models, need.gpu_millis), borrow=borrow)

    def is_lent_out(self, tenant: str, need: Need, models: Iterable[str]) -> bool:
        """True when a tenant could have devices it asks for, of one of the cluster's models, but for those of
        its cohort that hold more than they own."""
        if not (need.gpus or need.gpu_millis) or self.cohort(tenant) is None or not self.minds_models(tenant):
            return False
        wanted = need.gpu_models or tuple(name for name in models if name)
        refusals = (self.model_refusal(tenant, need, (name,) * (need.gpus or 1), borrow=False) for name in wanted)
        return any(refused is not None and refused.cause == LENT_OUT for refused in refusals)

    def judge(self, tenant: str, asked: Amounts, *, borrow: bool = True) -> Refusal | None:
        """Which limit these amounts would break; None = none."""
        ceiling = self.ceiling(tenant)
        if ceiling is None:
            return None
        held = self.shares.held(tenant)
        for kind, amount in asked.items():
            if amount:
                refused = self._one(tenant, ceiling, kind, amount, held.get(kind, 0), borrow)
                if refused is not None:
                    return refused
        return None

    def _one(self, tenant: str, ceiling: Ceiling, kind: str, asked: int, held: int, borrow: bool) -> Refusal | None:
        owned = ceiling.of(kind)
        if owned is None:
            return None
        after = held + asked
        cohort = self.cohort(tenant)
        if cohort is None:
            if after <= owned:
                return None
            return Refusal(kind, asked, held, owned)
        most = ceiling.most(kind)
        if most is not None and after > most:
            return Refusal(kind, asked, held, most)
        grows = cohort.drawn(tenant, kind, after) - cohort.drawn(tenant, kind, held)
        if grows and cohort.used(kind) + grows > cohort.pool(kind):
            if after > owned:
                return Refusal(kind, asked, held, owned, POOL)
            return Refusal(kind, asked, held, owned, LENT_OUT, cohort.borrowers(kind, tenant))
        if after > owned and not borrow:
            return Refusal(kind, asked, held, owned, BORROWS)
        return None

    def take(self, tenant: str, need: Need, models: Sequence[str], sign: int = 1) -> None:
        """One more run of a tenant; `models` of the devices it got. sign -1: one less."""
        if self.cohort(tenant) is None:
            self.shares.take(tenant, need, models, sign)
        else:
            self.change(tenant, amounts_of_need(need, models), sign)

    def change(self, tenant: str, amounts: Amounts, sign: int = 1) -> None:
        """A tenant holds more, or less."""
        cohort = self.cohort(tenant)
        if cohort is not None:
            cohort.note(tenant, amounts, sign)
        self.shares.change(tenant, amounts, sign)

    def over(self, tenant: str, kind: str, more: int = 0) -> int:
        """By how much a tenant holds more than it owns, when it takes so much more; 0 or less = it does not."""
        ceiling = self.ceiling(tenant)
        owned = ceiling.of(kind) if ceiling is not None else None
        return 0 if owned is None else self.shares.held(tenant).get(kind, 0) + more - owned

    def copy(self) -> Quotas:
        """Another one, equal for now, to try things on."""
        copy = Quotas(self._state, self._usage, self._now_ms)
        copy.shares = self.shares.copy()
        copy.renewal_ms = self.renewal_ms
        return copy

    def money(self, tenant: str) -> Refusal | None:
        """The refusal of a tenant whose budget is spent, by closed runs and by what open ones cost so far."""
        if tenant not in self._money:
            self._money[tenant] = self._money_refusal(tenant)
        refused = self._money[tenant]
        if refused is not None and refused.until_ms:
            self.renewal_ms = min(self.renewal_ms or refused.until_ms, refused.until_ms)
        return refused

    def _money_refusal(self, tenant: str) -> Refusal | None:
        limits = limits_of(self._state, tenant)
        if limits is None or limits.budget_micros is None:
            return None
        period_ms = limits.budget_period_ms
        spent = self.spent(tenant, period_ms)
        if spent < limits.budget_micros:
            return None
        until_ms = (self._now_ms // period_ms + 1) * period_ms if period_ms else 0
        return Refusal(MONEY, 0, spent, limits.budget_micros, BUDGET, until_ms=until_ms)

    def spent(self, tenant: str, period_ms: int) -> int:
        """What a tenant's runs, closed and open, have cost in this window."""
        closed, _ = spent_micros(self._state.accounts.get(tenant), period_ms, self._now_ms)
        start_ms = self._now_ms // period_ms * period_ms if period_ms else 0
        open_runs = self._usage.rates.get(tenant, {}).values()
        return closed + sum(cost_between(rate, since, start_ms, self._now_ms) for rate, since in open_runs)
