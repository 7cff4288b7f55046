"""The nodes as arrays: one row per node, rows in order of node id, integers only.

Derived from the state and kept in step through `sync`; a decision works on a `Trial`, a copy
that its own commits change, so that deciding never touches the state.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventsched.projections.cluster.state import ClusterState, Node
from eventsched.projections.scheduling.needs import Need
from eventsched.resources import Gpu

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Held(NamedTuple):
    """What a run, or a placement, takes from its node; GPUs by UUID."""

    cpu_millis: int
    memory_bytes: int
    gpus: tuple[str, ...]
    gpu_millis: int = 0


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
        self.all_devices: list[tuple[Gpu, ...]] = [() for _ in range(count)]
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
        self.all_devices[row] = node.capacity.gpus

    def _column(self, table: dict[str, Ints], name: str) -> Ints:
        if name not in table:
            table[name] = np.zeros(len(self.names), dtype=np.int64)
        return table[name]


class Trial:
    """What would be free after some commits and releases: now, or at a later time."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.cpu_free = fleet.cpu_free.copy()
        self.memory_free = fleet.memory_free.copy()
        self._gpu_free: dict[str, Ints] = {}
        self._devices: dict[int, list[Gpu]] = {}

    def copy(self) -> Trial:
        """Another one, equal for now."""
        copy = Trial.__new__(Trial)
        copy.fleet = self.fleet
        copy.cpu_free = self.cpu_free.copy()
        copy.memory_free = self.memory_free.copy()
        copy._gpu_free = {name: counts.copy() for name, counts in self._gpu_free.items()}
        copy._devices = dict(self._devices)  # lists are replaced, never changed
        return copy

    def gpu_free(self, name: str) -> Ints:
        """Free devices per row that answer to `name`."""
        counts = self._gpu_free.get(name)
        if counts is None:
            source = self.fleet.gpu_free.get(name)
            counts = np.zeros(len(self.fleet.names), dtype=np.int64) if source is None else source.copy()
            self._gpu_free[name] = counts
            for row, free in self._devices.items():
                counts[row] = sum(name in gpu_names(gpu) for gpu in free)
        return counts

    def _free(self, row: int) -> list[Gpu]:
        free = self._devices.get(row)
        return self.fleet.devices[row] if free is None else free

    def devices(self, row: int, need: Need) -> list[Gpu]:
        """The devices that `need` would get from `row`, in the node's order."""
        free = (gpu for gpu in self._free(row) if need.gpu_model in gpu_names(gpu))
        return list(islice(free, need.gpus))

    def commit(self, row: int, need: Need) -> list[Gpu]:
        """Take what `need` asks for from `row`; the devices given."""
        self.cpu_free[row] -= need.cpu_millis
        self.memory_free[row] -= need.memory_bytes
        if not need.gpus:
            return []
        given = self.devices(row, need)
        assert len(given) == need.gpus, (row, need)
        uuids = [gpu.uuid for gpu in given]
        self._devices[row] = [gpu for gpu in self._free(row) if gpu.uuid not in uuids]
        self._count(row, given, -1)
        return given

    def release(self, row: int, held: Held) -> None:
        """Give back to `row` what is held of it."""
        self.cpu_free[row] += held.cpu_millis
        self.memory_free[row] += held.memory_bytes
        if not held.gpus:
            return
        free = [gpu.uuid for gpu in self._free(row)]
        back = [gpu for gpu in self.fleet.all_devices[row] if gpu.uuid in held.gpus and gpu.uuid not in free]
        given = [*free, *(gpu.uuid for gpu in back)]
        self._devices[row] = [gpu for gpu in self.fleet.all_devices[row] if gpu.uuid in given]
        self._count(row, back, 1)

    def _count(self, row: int, devices: list[Gpu], sign: int) -> None:
        for gpu in devices:
            for name in gpu_names(gpu):
                if name in self._gpu_free:
                    self._gpu_free[name][row] += sign
