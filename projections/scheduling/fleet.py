"""The nodes as arrays: one row per node, rows in order of node id, integers only.

Derived from the state and kept in step through `sync`. A round works on the arrays themselves, and
whatever it took is laid anew from the state by the next `sync`: so deciding never touches the state,
and nothing is copied. Every change of a row is listed (`diary.py`), so that answers kept for a class of
jobs need only look at the rows that changed since (`ranking.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from eventsched.projections.cluster.state import ClusterState, Node
from eventsched.projections.scheduling.diary import ENTRIES_MIN, Diary, Ints, Shorts
from eventsched.projections.scheduling.layouts import WHOLE, Layout, Layouts
from eventsched.projections.scheduling.needs import Need, group_of
from eventsched.projections.scheduling.readings import groups_on, levels_of, static_part

Mask = NDArray[np.bool_]
T = TypeVar("T")
_SHARED = (
    *("names", "row", "count", "ready", "cordoned", "spot", "tainted", "drivers", "price", "hazard", "kind"),
    *("cpu_total", "memory_total", "gpu_devices", "gpu_total", "uuids", "layouts", "layout_of"),
    *("cpu_largest", "memory_largest", "gpu_largest", "typical", "generation", "tastes"),
    *("_static", "_labels", "_taints", "_grouped", "_typical", "_look_for_groups"),
)
"""What a fork has in common with its fleet: nothing of it changes while anything is tried out."""

DRIVER_BITS = {"docker": 1, "process": 2, "fake": 4, "manual": 8}
NO_ROOM = -(2**60)
"""The free cpu of a node that takes no work: less than any job asks for."""
UNSEEN = NO_ROOM - 1
"""The free cpu of a row that was not looked at since its node changed."""
FORK_ENTRIES = 256
"""What a fork lists: many are made, and few changes are made to one."""
LEFT_PARTS = 1_000
"""What is left of a resource is counted in so many parts of what the largest node has."""


class Fleet:
    """Struct of arrays over all nodes.

    room: what is free, the four columns that decide whether a job fits: cpu (NO_ROOM where the node takes
    no work), memory, untouched devices, thousandths of the best device. diary: its changes. gpu_full,
    gpu_most: the last two, and the same by device name for names somebody asked for (`full`, `most`).
    levels: each device's free thousandths, in the node's order; gpu_millis: their sum. uuids, layout_of: the
    devices' own names, and what they are. left: the measure of best-fit, what is free of cpu and GPUs (of cpu
    and memory, where no node has GPUs) in parts of the largest node's.
    """

    def __init__(self, source: ClusterState | Fleet, *, groups: bool = True) -> None:
        """The nodes of a state, or a `fork`. groups: look for jobs with a limit per node now; else `watch_groups`
        says that there is one."""
        if isinstance(source, Fleet):
            self._fork(source)
            return
        self._look_for_groups = groups
        self.generation = self.tastes = 0
        self.rebuild(source)

    # ---- layout -------------------------------------------------------------------------------

    def rebuild(self, state: ClusterState) -> None:
        """Lay out the rows anew: at start, and when a node is new."""
        self.names = sorted(state.nodes)
        self.row = {name: row for row, name in enumerate(self.names)}
        count = len(self.names)
        self.count = count
        self.ready: Mask = np.zeros(count, dtype=np.bool_)
        self.cordoned: Mask = np.zeros(count, dtype=np.bool_)
        self.spot: Mask = np.zeros(count, dtype=np.bool_)
        self.tainted: Mask = np.zeros(count, dtype=np.bool_)
        for name in ("drivers", "price", "hazard", "kind", "cpu_total", "memory_total", "gpu_devices", "gpu_millis"):
            setattr(self, name, np.zeros(count, dtype=np.int64))
        self.gpu_total: dict[str, Ints] = {"": np.zeros(count, dtype=np.int64)}
        self.room: Ints = np.zeros((4, count), dtype=np.int64)
        self.left: Shorts = np.zeros(count, dtype=np.int16)
        self.gpu_full: dict[str, Ints] = {}
        self.gpu_most: dict[str, Ints] = {}
        self._view_columns()
        self.levels: list[list[int]] = [[] for _ in range(count)]
        self.uuids: list[tuple[str, ...]] = [()] * count
        self.layouts = Layouts()
        self.layout_of: list[Layout] = [self.layouts.of(())] * count
        self._static: list[tuple[object, ...]] = [()] * count
        self._labels: list[dict[str, str]] = [{}] * count
        self._taints: list[tuple[str, ...]] = [()] * count
        self.groups: dict[str, dict[int, int]] = {}
        self._groups_of: dict[int, dict[str, int]] = {}
        self._grouped = self._look_for_groups and any(group_of(job) for job in state.jobs.values())
        self.cpu_largest = self.gpu_largest = self.memory_largest = 0
        self._matrix: Ints | None = None
        self._typical = self.typical = state.typical
        self.touched: dict[int, None] = {}
        self._freed: dict[int, None] = {}
        self.diary = Diary(max(ENTRIES_MIN, 8 * count))
        self._forget_answers()
        for name in self.names:
            self._set_static(self.row[name], state.nodes[name])
        self._set_scale()
        for name in self.names:
            self._set_row(state, self.row[name], state.nodes[name])

    drivers: Ints
    price: Ints
    hazard: Ints
    kind: Ints
    cpu_total: Ints
    memory_total: Ints
    gpu_devices: Ints
    gpu_millis: Ints

    def _forget_answers(self) -> None:
        """Whatever was derived from rows no longer holds."""
        self.generation += 1
        self._memo: dict[object, Any] = {}
        self.diary = Diary(self.diary.size)

    def memo(self, key: object, make: Callable[[Self], T]) -> T:
        """Something derived from what seldom changes, kept until it does."""
        if key not in self._memo:
            self._memo[key] = make(self)
        found: T = self._memo[key]
        return found

    def fork(self) -> Fleet:
        """Another one, equal for now: for what is tried out, or expected of a later time."""
        return Fleet(self)

    def _fork(self, other: Fleet) -> None:
        for name in _SHARED:
            setattr(self, name, getattr(other, name))
        self.room = other.room.copy()
        self.gpu_full = {name: column.copy() for name, column in other.gpu_full.items()}
        self.gpu_most = {name: column.copy() for name, column in other.gpu_most.items()}
        self.left, self.gpu_millis = other.left.copy(), other.gpu_millis.copy()
        self._view_columns()
        self.levels = other.levels.copy()  # its lists are replaced, never changed
        self.groups = {group: dict(rows) for group, rows in other.groups.items()}
        self._groups_of = dict(other._groups_of)
        self.touched, self._freed, self._matrix = {}, {}, None
        self.diary = Diary(FORK_ENTRIES)
        self._forget_answers()

    def _view_columns(self) -> None:
        """Name the columns of `room`, and give each a view for one row at a time: far quicker than the array."""
        self.cpu_free, self.memory_free, self.gpu_full[""], self.gpu_most[""] = self.room
        self._cpu, self._memory, self._full, self._most = (column.data for column in self.room)
        self._left, self._millis = self.left.data, self.gpu_millis.data

    # ---- following the state ------------------------------------------------------------------

    def sync(self, state: ClusterState, changed: Iterable[str]) -> list[int] | None:
        """Bring changed nodes, and what the last round took, up to date.

        The rows that gained room; None when everything may have changed.
        """
        rows = dict.fromkeys(self.touched)
        for name in changed:
            row = self.row.get(name)
            if row is None or name not in state.nodes:
                self.rebuild(state)
                return None
            rows[row] = None
        self.touched.clear()
        generation, gained = self.generation, list(self._freed)
        self._freed.clear()
        if self._typical is not state.typical:
            self._typical = self.typical = state.typical
            self.tastes += 1
            self._memo.clear()
        for row in rows:
            node = state.nodes[self.names[row]]
            if self._static[row] != static_part(node):
                self._set_static(row, node)
                self._set_scale()
                self._forget_answers()
            if self._set_row(state, row, node):
                gained.append(row)
        return gained if generation == self.generation else None

    def watch_groups(self, state: ClusterState) -> None:
        """From now on, runs are counted by group: a job with a limit per node has turned up."""
        if not self._grouped:
            self._grouped = True
            for name, row in self.row.items():
                node = state.nodes.get(name)  # None: it has gone since the rows were laid out
                if node is not None:
                    self._set_groups(row, groups_on(state, node))

    def _set_static(self, row: int, node: Node) -> None:
        self._static[row] = static_part(node)
        devices = node.capacity.gpus
        layout = self.layouts.of(devices)
        self.uuids[row], self.layout_of[row] = tuple([gpu.uuid for gpu in devices]), layout
        self.drivers[row] = sum(DRIVER_BITS.get(driver, 0) for driver in dict.fromkeys(node.drivers))
        self.price[row], self.hazard[row], self.spot[row] = node.price_micros_per_h, node.hazard_ppm_per_h, node.spot
        self._labels[row], self._taints[row], self.tainted[row] = node.labels, node.taints, bool(node.taints)
        self.kind[row] = layout.kind
        self.cpu_total[row], self.memory_total[row] = node.capacity.cpu_millis, node.capacity.memory_bytes
        self.gpu_devices[row] = layout.size
        self.gpu_millis[row] = 0  # counted again below, if any node has GPUs
        for table in (self.gpu_total, self.gpu_full, self.gpu_most):
            for counts in table.values():
                counts[row] = 0
        for name, indexes in layout.indexes.items():
            if name not in self.gpu_total:
                self.gpu_total[name] = np.zeros(self.count, dtype=np.int64)
            self.gpu_total[name][row] = len(indexes)
        self.levels[row] = [-1] * layout.size
        self.cpu_free[row] = UNSEEN  # so that the next look sets the row, whatever is free
        self.memory_free[row] = 0  # nor is anything left there by the new measure
        self._matrix = None

    def _set_scale(self) -> bool:
        """Measure the largest node; True if it is another than before, and with it what is left everywhere."""
        cpu, gpu = int(self.cpu_total.max(initial=1)), max(1, int(self.gpu_devices.max(initial=0))) * WHOLE
        memory = 0 if self.gpu_devices.any() else int(self.memory_total.max(initial=1))
        if (cpu, gpu, memory) == (self.cpu_largest, self.gpu_largest, self.memory_largest):
            return False
        self.cpu_largest, self.gpu_largest, self.memory_largest = cpu, gpu, memory
        for row in range(self.count):
            self._left[row] = self._left_of(row, self._cpu[row], self._memory[row])
        return True

    def _set_row(self, state: ClusterState, row: int, node: Node) -> bool:
        """Lay a row; True if it has gained room."""
        ready = node.state == "ready" and node.session > 0
        room = node.cpu_free_millis if ready and not node.cordoned else NO_ROOM
        memory = node.memory_free_bytes
        levels = levels_of(node)
        groups = groups_on(state, node) if self._grouped else {}
        old_groups = self._groups_of.get(row, {})
        before = (self._cpu[row], self._memory[row], self.levels[row], old_groups)
        self.ready[row], self.cordoned[row] = ready, node.cordoned
        if before == (room, memory, levels, groups):
            return False
        self._cpu[row], self._memory[row] = room, memory
        if levels != before[2]:
            self._set_levels(row, levels)
        if groups != old_groups:
            self._set_groups(row, groups)
        self._changed(row)
        return (
            room > before[0]
            or memory > before[1]
            or any(new > old for new, old in zip(levels, before[2], strict=True))
            or any(groups.get(group, 0) < number for group, number in old_groups.items())
        )

    def _set_levels(self, row: int, levels: list[int]) -> None:
        self.levels[row] = levels
        self._full[row] = levels.count(WHOLE)
        self._most[row] = max(levels, default=0)
        self._millis[row] = sum(levels)
        if len(self.gpu_full) > 1:
            layout = self.layout_of[row]
            for name, column in self.gpu_full.items():
                indexes = layout.indexes.get(name)
                if indexes:
                    free = levels if layout.alike else [levels[index] for index in indexes]
                    column[row] = free.count(WHOLE)
                    self.gpu_most[name][row] = max(free)
        if self._matrix is not None:
            self._matrix[row, : len(levels)] = levels

    def _set_groups(self, row: int, groups: dict[str, int]) -> None:
        for group in self._groups_of.pop(row, {}):
            del self.groups[group][row]
            if not self.groups[group]:
                del self.groups[group]
        for group, number in groups.items():
            self.groups.setdefault(group, {})[row] = number
        if groups:
            self._groups_of[row] = groups

    def _left_of(self, row: int, cpu: int, memory: int) -> int:
        left: int = cpu * LEFT_PARTS // self.cpu_largest if cpu > 0 else 0
        if not self.memory_largest:
            return left + self._millis[row] * LEFT_PARTS // self.gpu_largest
        return left + memory * LEFT_PARTS // self.memory_largest if memory > 0 else left

    def _changed(self, row: int) -> None:
        cpu, memory = self._cpu[row], self._memory[row]
        self._left[row] = left = self._left_of(row, cpu, memory)
        self.diary.add(row, cpu, memory, self._full[row], self._most[row], left)

    # ---- what is asked about rows -------------------------------------------------------------

    @property
    def matrix(self) -> Ints:
        """`levels` as an array, 0 where a node has no further device."""
        if self._matrix is None:
            width = max((len(levels) for levels in self.levels), default=0)
            self._matrix = np.zeros((self.count, max(1, width)), dtype=np.int64)
            for row, levels in enumerate(self.levels):
                self._matrix[row, : len(levels)] = levels
        return self._matrix

    def labelled(self, name: str, value: str) -> Mask:
        """Rows with this label; "" = any value."""
        found = [name in labels and value in ("", labels[name]) for labels in self._labels]
        return np.array(found, dtype=np.bool_)

    def tolerated(self, tolerations: Sequence[str]) -> Mask:
        """Rows all of whose taints are tolerated."""
        found = ~self.tainted
        if "*" in tolerations:
            found[:] = True
        elif tolerations:
            for row in np.flatnonzero(self.tainted).tolist():
                found[row] = all(taint in tolerations for taint in self._taints[row])
        return found

    def spare(self, rows: Ints | slice) -> Ints:
        """What is free, GPUs first and cpu only between equals (`left`, where no node has GPUs): less of it
        decides between equal points."""
        if self.memory_largest:
            return self.left[rows].astype(np.int64)
        cpu = np.maximum(self.cpu_free[rows], 0) * LEFT_PARTS // self.cpu_largest
        found: Ints = self.gpu_millis[rows] * LEFT_PARTS // self.gpu_largest * LEFT_PARTS + cpu
        return found

    def full(self, name: str) -> Ints:
        """By row, how many devices that answer to `name` are untouched."""
        return self._under(self.gpu_full, name)

    def most(self, name: str) -> Ints:
        """By row, the largest free part of a device that answers to `name`."""
        return self._under(self.gpu_most, name)

    def _under(self, table: dict[str, Ints], name: str) -> Ints:
        """A column of a table; the columns of a name are kept from the first time somebody asks for it."""
        if name not in table:
            self.gpu_full[name] = np.zeros(self.count, dtype=np.int64)
            self.gpu_most[name] = np.zeros(self.count, dtype=np.int64)
            for row, levels in enumerate(self.levels):
                free = [levels[index] for index in self.layout_of[row].indexes.get(name, ())]
                self.gpu_full[name][row] = free.count(WHOLE)
                self.gpu_most[name][row] = max(free, default=0)
        return table[name]

    # ---- taking and giving back ---------------------------------------------------------------

    def take(self, row: int, need: Need, devices: Sequence[int], sign: int = 1) -> None:
        """Take what `need` asks for from a row, with these devices; sign = -1 gives it back."""
        self.hold(row, sign, need.cpu_millis, need.memory_bytes, need.gpu_millis, need.group, devices)

    def hold(
        self, row: int, sign: int, cpu: int, memory: int, gpu_millis: int, group: str, devices: Sequence[int]
    ) -> None:
        """A run holds (sign = 1) or gives back (-1) so much of a row."""
        self.touched[row] = None
        if sign < 0:
            self._freed[row] = None
        self._cpu[row] -= sign * cpu
        self._memory[row] -= sign * memory
        if devices:
            levels, each = self.levels[row].copy(), sign * (gpu_millis or WHOLE)
            for index in devices:
                levels[index] -= each
            self._set_levels(row, levels)
        if group:
            groups = dict(self._groups_of.get(row, {}))
            groups[group] = groups.get(group, 0) + sign
            self._set_groups(row, {name: number for name, number in groups.items() if number})
        self._changed(row)
