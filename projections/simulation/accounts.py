"""Accounts of a simulation: amounts held and jobs in the system, added up over time.

Everything is counted twice, by different ways: once as it changes (what nodes have free, who is in),
and once run by run and job by job. The two must agree exactly; if they don't, the result is void.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from eventsched.errors import EventschedError
from eventsched.projections.cluster.state import Node
from eventsched.projections.simulation.fragments import Fragments

Amounts = tuple[int, int, int]
"""cpu_millis, memory_bytes, gpu_millis."""
KINDS = ("cpu", "memory", "gpu")
_NOTHING: Amounts = (0, 0, 0)


@dataclass(slots=True)
class TenantBooks:
    """One tenant's account. active_ms: how long it had jobs in the system; held_time: as in `Accounts`."""

    jobs_in: int = 0
    since_ms: int = 0
    active_ms: int = 0
    held_time: list[int] = field(default_factory=lambda: [0, 0, 0])


class BrokenLaw(EventschedError):
    """What was counted in two ways differs."""


@dataclass(slots=True)
class Accounts:
    """Running totals; every `*_time` is an amount times milliseconds.

    jobs_running: of the jobs in the system, those with a run; while there are others, something waits:
    `wanted_*` are used and capacity over such times only. fragments: idle GPU thousandths a typical job
    cannot use, times the number of typical jobs.
    cost_*: node-milliseconds times price per hour, in millionths: of all nodes there are (`there`),
    and of those while they run something (`busy`), of which on spot nodes (`busy_spot`).
    """

    now_ms: int
    fragmentation: Fragments
    jobs_in: int = 0
    jobs_running: int = 0
    jobs_time: int = 0
    used: list[int] = field(default_factory=lambda: [0, 0, 0])
    used_time: list[int] = field(default_factory=lambda: [0, 0, 0])
    capacity: list[int] = field(default_factory=lambda: [0, 0, 0])
    capacity_time: list[int] = field(default_factory=lambda: [0, 0, 0])
    wanted_used_time: list[int] = field(default_factory=lambda: [0, 0, 0])
    wanted_capacity_time: list[int] = field(default_factory=lambda: [0, 0, 0])
    fragments: int = 0
    fragments_time: int = 0
    price: int = 0
    price_busy: int = 0
    price_busy_spot: int = 0
    cost_there: int = 0
    cost_busy: int = 0
    cost_busy_spot: int = 0
    held_time: list[int] = field(default_factory=lambda: [0, 0, 0])
    lost_time: list[int] = field(default_factory=lambda: [0, 0, 0])
    sojourn: int = 0
    tenants: dict[str, TenantBooks] = field(default_factory=dict)
    _nodes: dict[str, tuple[Amounts, Amounts, int, bool, bool]] = field(default_factory=dict)
    _fragments: dict[str, int] = field(default_factory=dict)

    def advance(self, now_ms: int) -> None:
        """Time passes while nothing changes."""
        passed = now_ms - self.now_ms
        if not passed:
            return
        self.now_ms = now_ms
        self.jobs_time += passed * self.jobs_in
        _add(self.used_time, passed, self.used)
        _add(self.capacity_time, passed, self.capacity)
        if self.jobs_in > self.jobs_running:
            _add(self.wanted_used_time, passed, self.used)
            _add(self.wanted_capacity_time, passed, self.capacity)
        self.fragments_time += passed * self.fragments
        if self.price:
            self.cost_there += passed * self.price
            self.cost_busy += passed * self.price_busy
            self.cost_busy_spot += passed * self.price_busy_spot

    def look(self, node: Node) -> None:
        """Something happened on this node: count it as it is now."""
        busy = bool(node.runs)
        there = node.session > 0
        capacity = _NOTHING
        if there:
            total = node.capacity
            capacity = (total.cpu_millis, total.memory_bytes, 1000 * len(total.gpus))
        used = (
            node.capacity.cpu_millis - node.cpu_free_millis,
            node.capacity.memory_bytes - node.memory_free_bytes,
            1000 * len(node.gpu_runs) + (sum(node.gpu_shares.values()) if node.gpu_shares else 0),
        )
        new = (capacity, used, node.price_micros_per_h if there else 0, busy, node.spot)
        old = self._nodes.get(node.node_id, (_NOTHING, _NOTHING, 0, False, False))
        self._nodes[node.node_id] = new
        _add(self.used, 1, used)
        _add(self.used, -1, old[1])
        if capacity != old[0]:
            _add(self.capacity, 1, capacity)
            _add(self.capacity, -1, old[0])
        if new[2] or old[2]:
            self._count_price(old, -1)
            self._count_price(new, 1)
        if capacity[2] or old[0][2]:
            fragments = self.fragmentation.of(node) if there else 0
            self.fragments += fragments - self._fragments.get(node.node_id, 0)
            self._fragments[node.node_id] = fragments

    def _count_price(self, one: tuple[Amounts, Amounts, int, bool, bool], sign: int) -> None:
        _, _, price, busy, spot = one
        self.price += sign * price
        if busy:
            self.price_busy += sign * price
            if spot:
                self.price_busy_spot += sign * price

    def entered(self, tenant: str) -> None:
        """A job of this tenant is in the system now."""
        self.jobs_in += 1
        one = self.tenants.setdefault(tenant, TenantBooks())
        if not one.jobs_in:
            one.since_ms = self.now_ms
        one.jobs_in += 1

    def left(self, tenant: str, stayed_ms: int) -> None:
        """A job of this tenant has ended, so long after it was submitted."""
        self.jobs_in -= 1
        self.sojourn += stayed_ms
        one = self.tenants[tenant]
        one.jobs_in -= 1
        if not one.jobs_in:
            one.active_ms += self.now_ms - one.since_ms

    def end(self, submitted_ms: Iterable[int]) -> None:
        """The books are closed while jobs submitted at these times are still there."""
        self.sojourn += sum(self.now_ms - one for one in submitted_ms)
        for tenant in self.tenants.values():
            if tenant.jobs_in:
                tenant.active_ms += self.now_ms - tenant.since_ms

    def closed(self, tenant: str, held: Amounts, since_ms: int, useful: bool) -> None:
        """A run of this tenant that held so much since then is closed."""
        passed = self.now_ms - since_ms
        _add(self.held_time, passed, held)
        _add(self.tenants[tenant].held_time, passed, held)
        if not useful:
            _add(self.lost_time, passed, held)

    def check(self) -> None:
        """The laws, once all runs are closed and all jobs counted. Raises BrokenLaw."""
        if self.sojourn != self.jobs_time:
            raise BrokenLaw(
                f"Little's law is broken: {self.jobs_time} job-milliseconds in the system, "
                f"but the jobs were there for {self.sojourn}",
                "this is a bug of the simulator: please report it with the workload",
            )
        for kind, used, held in zip(KINDS, self.used_time, self.held_time, strict=True):
            if used != held:
                raise BrokenLaw(
                    f"{kind}: nodes say {used} units x ms were taken, runs say {held}",
                    "this is a bug of the simulator: please report it with the workload",
                )


def _add(total: list[int], times: int, amounts: Sequence[int]) -> None:
    """Add so many times these amounts; the three written out, as this is most of the accounting."""
    cpu, memory, gpu = amounts
    total[0] += times * cpu
    total[1] += times * memory
    total[2] += times * gpu
