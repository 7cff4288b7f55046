"""Layouts: what devices a node has, by the names requests may use. Nodes of one kind share one."""

from __future__ import annotations

from collections.abc import Sequence

from eventsched.resources import Gpu

WHOLE = 1_000
"""Thousandths in a device."""


def gpu_names(gpu: Gpu) -> tuple[str, ...]:
    """The names a request may use for this device, each once, "" (any) first."""
    return tuple(dict.fromkeys(("", gpu.model.lower(), gpu.variant.lower())))


class Layout:
    """One arrangement of models. `kind` numbers the nodes with the same names on them."""

    __slots__ = ("_models", "alike", "indexes", "kind", "size")

    def __init__(self, devices: Sequence[Gpu], kinds: dict[tuple[str, ...], int]) -> None:
        self.size = len(devices)
        self._models = tuple(gpu.model for gpu in devices)
        self.indexes: dict[str, tuple[int, ...]] = {}
        for index, gpu in enumerate(devices):
            for name in gpu_names(gpu):
                self.indexes[name] = (*self.indexes.get(name, ()), index)
        self.alike = all(len(indexes) == self.size for indexes in self.indexes.values())
        self.kind = kinds.setdefault(tuple(sorted(self.indexes)), len(kinds))

    def models(self, devices: Sequence[int]) -> list[str]:
        """The models of some of the devices."""
        return [self._models[index] for index in devices]

    def suited(self, names: Sequence[str]) -> list[int]:
        """The devices that answer to any of these names, in the node's order."""
        return sorted(dict.fromkeys(index for name in names for index in self.indexes.get(name, ())))


class Layouts:
    """All layouts of a fleet, each made once."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, ...], int] = {}
        self._known: dict[tuple[tuple[str, str], ...], Layout] = {}

    def of(self, devices: Sequence[Gpu]) -> Layout:
        """The layout of a node's devices."""
        key = tuple((gpu.model, gpu.variant) for gpu in devices)
        layout = self._known.get(key)
        if layout is None:
            layout = self._known[key] = Layout(devices, self.kinds)
        return layout
