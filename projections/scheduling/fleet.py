"""The nodes as arrays: one row per node, rows in order of node id, integers only.

Derived from the state and kept in step through `sync`; a decision works on a `Trial`, a copy
that its own commits change, so that deciding never touches the state.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from eventsched.projections.cluster.state import ClusterState, Node
from eventsched.projections.scheduling.needs import Need
from eventsched.resources import Gpu

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

DRIVER_BITS = {"docker": 1, "process": 2, "fake": 4, "manual": 8}


def gpu_names(gpu: Gpu) -> tuple[str, ...]:
    """The names a request may use for this device, "" (any) first."""
    model, variant = gpu.model.lower(), gpu.variant.lower()
    return ("", model) if variant in ("", model) else ("", model, variant)


class Fleet:
    """Struct of arrays over all nodes."""

    def __init__(self, state: ClusterState) -> None:
        self.rebuild(state)

    def rebuild(self, state: ClusterState) -> None:
        """Lay out the rows anew: at start, and when a node is new or forgotten."""
        self.names = sorted(state.nodes)
        self.row = {name: row for row, name in enumerate(self.names)}
        count = len(self.names)
        self.usable: Mask = np.zeros(count, dtype=np.bool_)
        self.drivers: Ints = np.zeros(count, dtype=np.int64)
        self.cpu_total: Ints = np.zeros(count, dtype=np.int64)
        self.cpu_free: Ints = np.zeros(count, dtype=np.int64)
        self.memory_total: Ints = np.zeros(count, dtype=np.int64)
        self.memory_free: Ints = np.zeros(count, dtype=np.int64)
        self.gpu_total: dict[str, Ints] = {"": np.zeros(count, dtype=np.int64)}
        self.gpu_free: dict[str, Ints] = {"": np.zeros(count, dtype=np.int64)}
        self.devices: list[list[Gpu]] = [[] for _ in range(count)]
        for name in self.names:
            self._fill_row(state.nodes[name])

    def sync(self, state: ClusterState, changed: Iterable[str]) -> None:
        """Bring the rows of changed nodes up to date."""
        for name in changed:
            if name not in self.row or name not in state.nodes:
                self.rebuild(state)
                return
        for name in changed:
            self._fill_row(state.nodes[name])

    def _fill_row(self, node: Node) -> None:
        row = self.row[node.node_id]
        self.usable[row] = node.state == "ready" and node.session > 0 and not node.cordoned
        self.drivers[row] = sum(DRIVER_BITS.get(driver, 0) for driver in node.drivers)
        self.cpu_total[row] = node.capacity.cpu_millis
        self.cpu_free[row] = node.cpu_free_millis
        self.memory_total[row] = node.capacity.memory_bytes
        self.memory_free[row] = node.memory_free_bytes
        for counts in (*self.gpu_total.values(), *self.gpu_free.values()):
            counts[row] = 0
        free = []
        for gpu in node.capacity.gpus:
            is_free = gpu.uuid not in node.gpu_runs
            if is_free:
                free.append(gpu)
            for name in gpu_names(gpu):
                self._column(self.gpu_total, name)[row] += 1
                self._column(self.gpu_free, name)[row] += is_free
        self.devices[row] = free

    def _column(self, table: dict[str, Ints], name: str) -> Ints:
        if name not in table:
            table[name] = np.zeros(len(self.names), dtype=np.int64)
        return table[name]


class Trial:
    """What would be free after this round's commits so far."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.cpu_free = fleet.cpu_free.copy()
        self.memory_free = fleet.memory_free.copy()
        self._gpu_free: dict[str, Ints] = {}
        self._taken: dict[int, dict[str, None]] = {}

    def gpu_free(self, name: str) -> Ints:
        """Free devices per row that answer to `name`."""
        counts = self._gpu_free.get(name)
        if counts is None:
            source = self.fleet.gpu_free.get(name)
            counts = np.zeros(len(self.fleet.names), dtype=np.int64) if source is None else source.copy()
            self._gpu_free[name] = counts
            for row, taken in self._taken.items():
                for gpu in self.fleet.devices[row]:
                    counts[row] -= gpu.uuid in taken and name in gpu_names(gpu)
        return counts

    def devices(self, row: int, need: Need) -> list[Gpu]:
        """The devices that `need` would get from `row`, in the node's order."""
        taken = self._taken.get(row, {})
        free = (gpu for gpu in self.fleet.devices[row] if gpu.uuid not in taken and need.gpu_model in gpu_names(gpu))
        return list(islice(free, need.gpus))

    def commit(self, row: int, need: Need) -> list[Gpu]:
        """Take what `need` asks for from `row`; the devices given."""
        self.cpu_free[row] -= need.cpu_millis
        self.memory_free[row] -= need.memory_bytes
        if not need.gpus:
            return []
        given = self.devices(row, need)
        assert len(given) == need.gpus, (row, need)
        taken = self._taken.setdefault(row, {})
        for gpu in given:
            taken[gpu.uuid] = None
            for name in gpu_names(gpu):
                if name in self._gpu_free:
                    self._gpu_free[name][row] -= 1
        return given
