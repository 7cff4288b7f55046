"""Cohorts: tenants that lend each other what they own and do not use.

Of each kind (runs, cpu, memory, GPUs, a GPU model) a member owns its limit, keeps a part of it for
itself and lends the rest. What members hold beyond what they keep comes out of one pool, the sum of
what all lend; so all of them together never hold more than they own. A member without a limit of a
kind takes nothing from the pool, and puts nothing in.
"""

from __future__ import annotations

from dataclasses import dataclass

from eventsched.projections.cluster.state import ClusterState, TenantLimits
from eventsched.projections.scheduling.usage import CPU, GPUS, MEMORY, RUNS, Amounts, Shares, gpu_kind


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What one tenant owns, by kind. other_models: of GPU models that are not named; None = unlimited."""

    owned: dict[str, int]
    other_models: int | None = None
    cohort: str = ""
    borrow_percent: int | None = None
    lend_percent: int = 100

    def of(self, kind: str) -> int | None:
        """How much it owns; None = unlimited."""
        amount = self.owned.get(kind)
        return self.other_models if amount is None and kind.startswith(f"{GPUS}:") else amount

    @property
    def names_models(self) -> bool:
        """True when it matters which models of GPUs it gets."""
        return self.other_models is not None or any(kind.startswith(f"{GPUS}:") for kind in self.owned)

    def kept(self, kind: str) -> int:
        """How much of it others can never use."""
        owned = self.of(kind) or 0
        return owned - owned * self.lend_percent // 100

    def most(self, kind: str) -> int | None:
        """How much it may hold with what it borrows; None = as much as the others lend."""
        owned = self.of(kind)
        if owned is None or self.borrow_percent is None:
            return None
        return owned + owned * self.borrow_percent // 100


def ceiling_of(limits: TenantLimits | None, grants_only: bool) -> Ceiling | None:
    """A tenant's limits by kind; None = it has none. grants_only: it owns no GPU they do not name."""
    if limits is None:
        return Ceiling({RUNS: 0}) if grants_only else None
    other_models = 0 if grants_only and limits.gpus is None else None
    total = None if limits.gpus is None else limits.gpus * 1000
    if other_models == 0 and not limits.gpu_models:
        total = 0
    pairs = ((RUNS, limits.runs), (CPU, limits.cpu_millis), (MEMORY, limits.memory_bytes), (GPUS, total))
    owned = {kind: amount for kind, amount in pairs if amount is not None}
    owned |= {gpu_kind(model): amount * 1000 for model, amount in limits.gpu_models.items()}
    return Ceiling(owned, other_models, limits.cohort, limits.borrow_percent, limits.lend_percent)


class Cohort:
    """One cohort in one round: the pool of each kind, and how much of it is in use."""

    def __init__(self, members: dict[str, Ceiling], shares: Shares) -> None:
        self.members = members
        self._shares = shares
        self._pool: dict[str, int] = {}
        self._used: dict[str, int] = {}

    def pool(self, kind: str) -> int:
        """The sum of what the members lend."""
        if kind not in self._pool:
            owned = {name: member.of(kind) or 0 for name, member in self.members.items()}
            self._pool[kind] = sum(amount - self.members[name].kept(kind) for name, amount in owned.items())
        return self._pool[kind]

    def used(self, kind: str) -> int:
        """How much of the pool is in use, by owners or by others."""
        if kind not in self._used:
            held = {name: self._shares.held(name).get(kind, 0) for name in self.members}
            self._used[kind] = sum(self.drawn(name, kind, amount) for name, amount in held.items())
        return self._used[kind]

    def drawn(self, tenant: str, kind: str, held: int) -> int:
        """What a member that holds so much draws from the pool."""
        member = self.members[tenant]
        return 0 if member.of(kind) is None else max(0, held - member.kept(kind))

    def note(self, tenant: str, amounts: Amounts, sign: int) -> None:
        """A member is about to hold more, or less."""
        before = self._shares.held(tenant)
        for kind, amount in amounts.items():
            if kind in self._used:
                held = before.get(kind, 0)
                self._used[kind] += self.drawn(tenant, kind, held + sign * amount) - self.drawn(tenant, kind, held)

    def borrowers(self, kind: str, besides: str) -> tuple[str, ...]:
        """Members that hold more than they own, in order of name."""
        found = []
        for name in sorted(self.members):
            owned = self.members[name].of(kind)
            if name != besides and owned is not None and self._shares.held(name).get(kind, 0) > owned:
                found.append(name)
        return tuple(found)


def cohort_of(state: ClusterState, name: str, shares: Shares) -> Cohort:
    """The cohort of that name, with all its members."""
    members: dict[str, Ceiling] = {}
    for tenant, limits in state.tenants.items():
        if limits.cohort == name:
            ceiling = ceiling_of(limits, state.grants_only)
            assert ceiling is not None
            members[tenant] = ceiling
    return Cohort(members, shares)
