"""What tenants hold: running totals by tenant, and their dominant shares, in integers.

Derived from the state and kept in step node by node. A round works on a `Shares`, which its own
commits change.
"""

from __future__ import annotations

from collections.abc import Iterable

from eventsched.projections.cluster.state import ClusterState, Run
from eventsched.projections.scheduling.needs import Need

RUNS, CPU, MEMORY, GPUS = "runs", "cpu_millis", "memory_bytes", "gpus"
"""Names of what is counted; a GPU model is counted as `gpu:<model>`."""

Amounts = dict[str, int]
_PPM = 1_000_000


def gpu_kind(model: str) -> str:
    """The name under which devices of a model are counted."""
    return f"gpu:{model.lower()}"


class Usage:
    """What each tenant's open runs hold, and what all usable nodes have."""

    def __init__(self, state: ClusterState) -> None:
        self.by_tenant: dict[str, Amounts] = {}
        self.capacity: Amounts = {}
        self._by_node: dict[str, dict[str, Amounts]] = {}
        self._capacity_of: dict[str, Amounts] = {}
        self.sync(state, state.nodes)

    def sync(self, state: ClusterState, nodes: Iterable[str]) -> None:
        """Count changed nodes anew."""
        for name in nodes:
            for tenant, amounts in self._by_node.pop(name, {}).items():
                _add(self.by_tenant.setdefault(tenant, {}), amounts, -1)
            _add(self.capacity, self._capacity_of.pop(name, {}), -1)
            node = state.nodes.get(name)
            if node is None:
                continue
            models = {gpu.uuid: gpu.model for gpu in node.capacity.gpus}
            held: dict[str, Amounts] = {}
            for seq in node.runs:
                run = state.runs[seq]
                tenant = run.key.partition("/")[0]
                _add(held.setdefault(tenant, {}), _amounts_of_run(run, models), 1)
            for tenant, amounts in held.items():
                _add(self.by_tenant.setdefault(tenant, {}), amounts, 1)
            self._by_node[name] = held
            if node.session:
                self._capacity_of[name] = _capacity(node.capacity.cpu_millis, node.capacity.memory_bytes, models)
                _add(self.capacity, self._capacity_of[name], 1)


class Shares:
    """What tenants hold after this round's commits so far."""

    def __init__(self, usage: Usage, weights: dict[str, int]) -> None:
        self._usage = usage
        self._weights = weights
        self._held: dict[str, Amounts] = {}

    def copy(self) -> Shares:
        """Another one, equal for now."""
        copy = Shares(self._usage, self._weights)
        copy._held = {tenant: dict(amounts) for tenant, amounts in self._held.items()}
        return copy

    def held(self, tenant: str) -> Amounts:
        """What a tenant holds; absent = 0."""
        return self._held.get(tenant) or self._usage.by_tenant.get(tenant, {})

    def take(self, tenant: str, need: Need, models: Iterable[str]) -> None:
        """One more run of a tenant; `models` of the devices it got."""
        held = self._held.get(tenant)
        if held is None:
            held = self._held[tenant] = dict(self._usage.by_tenant.get(tenant, {}))
        _add(held, amounts_of_need(need, models), 1)

    def dominant(self, tenant: str) -> int:
        """A tenant's largest share of any resource in ppm of the cluster, divided by its weight."""
        held, capacity = self.held(tenant), self._usage.capacity
        shares = [
            held.get(kind, 0) * _PPM // capacity[kind] for kind in (CPU, MEMORY, GPUS) if capacity.get(kind, 0) > 0
        ]
        return max(shares, default=0) // max(1, self._weights.get(tenant, 1))


def amounts_of_need(need: Need, models: Iterable[str]) -> Amounts:
    """What a run of this class takes when it gets devices of these models."""
    amounts = {RUNS: 1, CPU: need.cpu_millis, MEMORY: need.memory_bytes, GPUS: need.gpus}
    for model in models:
        kind = gpu_kind(model)
        amounts[kind] = amounts.get(kind, 0) + 1
    return amounts


def _amounts_of_run(run: Run, models: dict[str, str]) -> Amounts:
    amounts = {RUNS: 1, CPU: run.cpu_millis, MEMORY: run.memory_bytes, GPUS: len(run.gpus)}
    for uuid in run.gpus:
        kind = gpu_kind(models.get(uuid, ""))
        amounts[kind] = amounts.get(kind, 0) + 1
    return amounts


def _capacity(cpu_millis: int, memory_bytes: int, models: dict[str, str]) -> Amounts:
    return {CPU: cpu_millis, MEMORY: memory_bytes, GPUS: len(models)}


def _add(total: Amounts, amounts: Amounts, sign: int) -> None:
    for kind, amount in amounts.items():
        total[kind] = total.get(kind, 0) + sign * amount
