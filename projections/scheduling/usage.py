"""What tenants hold: running totals by tenant, and their dominant shares, in integers.

Derived from the state and kept in step node by node. A round works on a `Shares`, which its own
commits change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from eventsched.projections.cluster.state import ClusterState, Node, Run, TenantLimits
from eventsched.projections.scheduling.needs import Need
from eventsched.resources import Capacity
from eventsched.tenancy import EVERYBODY

RUNS, CPU, MEMORY, GPUS = "runs", "cpu_millis", "memory_bytes", "gpu_millis"
"""Names of what is counted; devices of one model are counted as `gpu_millis:<model>` too."""

Amounts = dict[str, int]
_PPM = 1_000_000


def gpu_kind(model: str) -> str:
    """The name under which devices of a model are counted."""
    return f"{GPUS}:{model.lower()}"


@dataclass(slots=True)
class _Counted:
    """A node as it is counted: while its capacity stays, only runs that came or went need a look."""

    capacity: Capacity
    models: dict[str, str]
    there: bool = False
    runs: dict[int, tuple[str, Amounts]] = field(default_factory=dict)


class Usage:
    """What each tenant's open runs hold and cost, and what all usable nodes have. Changes are counted when somebody
    asks: without limits and shares nobody does."""

    def __init__(self, state: ClusterState) -> None:
        self._by_tenant: dict[str, Amounts] = {}
        self._capacity: Amounts = {}
        self._rates: dict[str, dict[int, tuple[int, int]]] = {}
        self._counted: dict[str, _Counted] = {}
        self._state = state
        self._changed = dict.fromkeys(state.nodes)

    def counted(self) -> Self:
        """Itself, counted now: for whoever keeps it while the state goes on."""
        self._catch_up()
        return self

    def sync(self, state: ClusterState, nodes: Mapping[str, None]) -> None:
        """Follow changed nodes."""
        self._state = state
        self._changed |= nodes

    @property
    def by_tenant(self) -> dict[str, Amounts]:
        """What each tenant holds."""
        self._catch_up()
        return self._by_tenant

    @property
    def capacity(self) -> Amounts:
        """What all usable nodes have."""
        self._catch_up()
        return self._capacity

    @property
    def rates(self) -> dict[str, dict[int, tuple[int, int]]]:
        """By tenant: its open runs that cost something, each with its rate and when it was assigned."""
        self._catch_up()
        return self._rates

    def _catch_up(self) -> None:
        if not self._changed:
            return
        state = self._state
        changed, self._changed = self._changed, {}
        for name in changed:
            node, counted = state.nodes.get(name), self._counted.get(name)
            if counted is not None and (node is None or counted.capacity is not node.capacity):
                self._forget(self._counted.pop(name))
                counted = None
            if node is None:
                continue
            if counted is None:
                models = {gpu.uuid: gpu.model for gpu in node.capacity.gpus}
                counted = self._counted[name] = _Counted(node.capacity, models)
            self._count_runs(state, node, counted)
            if counted.there != (node.session > 0):
                counted.there = node.session > 0
                _add(self._capacity, _capacity(counted), 1 if counted.there else -1)

    def _count_runs(self, state: ClusterState, node: Node, counted: _Counted) -> None:
        for seq in [seq for seq in counted.runs if seq not in node.runs]:
            self._drop(counted, seq)
        for seq in node.runs:
            if seq in counted.runs:
                continue
            run = state.runs[seq]
            tenant = run.key.partition("/")[0]
            counted.runs[seq] = tenant, amounts_of_run(run, counted.models)
            _add(self._by_tenant.setdefault(tenant, {}), counted.runs[seq][1], 1)
            if seq in state.rates:
                self._rates.setdefault(tenant, {})[seq] = state.rates[seq], run.assigned_ms

    def _drop(self, counted: _Counted, seq: int) -> None:
        tenant, amounts = counted.runs.pop(seq)
        _add(self._by_tenant[tenant], amounts, -1)
        self._rates.get(tenant, {}).pop(seq, None)

    def _forget(self, counted: _Counted) -> None:
        for seq in list(counted.runs):
            self._drop(counted, seq)
        if counted.there:
            _add(self._capacity, _capacity(counted), -1)


class Shares:
    """What tenants hold after this round's commits so far."""

    def __init__(self, usage: Usage, tenants: Mapping[str, TenantLimits]) -> None:
        self._usage = usage
        self._tenants = tenants
        self._held: dict[str, Amounts] = {}
        self._later: list[tuple[str, Need, Sequence[str], int]] = []

    def held(self, tenant: str) -> Amounts:
        """What a tenant holds; absent = 0."""
        if self._later:
            self._catch_up()
        return self._held.get(tenant) or self._usage.by_tenant.get(tenant, {})

    def change(self, tenant: str, amounts: Amounts, sign: int = 1) -> None:
        """A tenant holds more, or less."""
        held = self._held.get(tenant)
        if held is None:
            held = self._held[tenant] = dict(self._usage.by_tenant.get(tenant, {}))
        _add(held, amounts, sign)

    def take(self, tenant: str, need: Need, models: Sequence[str], sign: int) -> None:
        """A tenant holds one run more, or less, with devices of these models. It is counted when somebody asks: in
        most rounds nobody does."""
        self._later.append((tenant, need, models, sign))

    def _catch_up(self) -> None:
        later, self._later = self._later, []
        for tenant, need, models, sign in later:
            self.change(tenant, amounts_of_need(need, models), sign)

    def copy(self) -> Shares:
        """Another one, equal for now."""
        self._catch_up()
        copy = Shares(self._usage, self._tenants)
        copy._held = {tenant: dict(amounts) for tenant, amounts in self._held.items()}
        return copy

    def dominant(self, tenant: str) -> int:
        """A tenant's largest share of any resource in ppm of the cluster, divided by its weight."""
        held, capacity = self.held(tenant), self._usage.capacity
        shares = [
            held.get(kind, 0) * _PPM // capacity[kind] for kind in (CPU, MEMORY, GPUS) if capacity.get(kind, 0) > 0
        ]
        limits = self._tenants.get(tenant) or self._tenants.get(EVERYBODY)
        return max(shares, default=0) // (limits.weight if limits is not None else 1)


class Lent(NamedTuple):
    """A run of a cohort's member, and what it holds."""

    run: Run
    tenant: str
    amounts: Amounts


def amounts_of_need(need: Need, models: Iterable[str] = ()) -> Amounts:
    """What a run of this class takes when it gets devices of these models."""
    amounts = {RUNS: 1, CPU: need.cpu_millis, MEMORY: need.memory_bytes, GPUS: need.gpus * 1000 + need.gpu_millis}
    return amounts | amounts_of_models(models, need.gpu_millis)


def amounts_of_run(run: Run, models: Mapping[str, str]) -> Amounts:
    """What a run holds. models: of the devices of its node, by UUID."""
    total = len(run.gpus) * (run.gpu_millis or 1000)
    amounts = {RUNS: 1, CPU: run.cpu_millis, MEMORY: run.memory_bytes, GPUS: total}
    return amounts | amounts_of_models((models.get(uuid, "") for uuid in run.gpus), run.gpu_millis)


def amounts_of_models(models: Iterable[str], gpu_millis: int) -> Amounts:
    """Devices of these models, whole ones or a share of each."""
    amounts: Amounts = {}
    for model in models:
        kind = gpu_kind(model)
        amounts[kind] = amounts.get(kind, 0) + (gpu_millis or 1000)
    return amounts


def _capacity(counted: _Counted) -> Amounts:
    total = counted.capacity
    return {CPU: total.cpu_millis, MEMORY: total.memory_bytes, GPUS: len(counted.models) * 1000}


def _add(total: Amounts, amounts: Amounts, sign: int) -> None:
    for kind, amount in amounts.items():
        total[kind] = total.get(kind, 0) + sign * amount
