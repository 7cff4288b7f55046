"""A trial: what a round takes of the fleet, device by device, and can give back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from eventsched.projections.scheduling.fleet import Fleet
from eventsched.projections.scheduling.layouts import WHOLE
from eventsched.projections.scheduling.needs import Need
from eventsched.projections.scheduling.scores import Pick, tightest


class Held(NamedTuple):
    """What a run, or a placement, takes from its node; GPUs by UUID."""

    cpu_millis: int
    memory_bytes: int
    gpus: tuple[str, ...]
    gpu_millis: int = 0
    group: str = ""


_Taken = tuple[int, Need, Sequence[int]]
"""Row, need, indexes of devices."""


class Trial:
    """What this round has taken of the fleet; it can be given back, to a mark or altogether.

    Works on the fleet's own arrays: one trial at a time. A `copy` has a fleet of its own.
    """

    def __init__(self, fleet: Fleet, pick: Pick = tightest) -> None:
        self.fleet = fleet
        self._pick = pick
        self._taken: list[_Taken] = []

    def models(self, row: int, need: Need) -> tuple[str, ...]:
        """The models of the devices that `need` would get from a row; () where it has not got them."""
        return tuple(self.fleet.layout_of[row].models(chosen_devices(self.fleet, row, need, self._pick)))

    def commit(self, row: int, need: Need) -> Sequence[int]:
        """Take what `need` asks for from `row`; the devices given, by their place on the node."""
        fleet = self.fleet
        devices: Sequence[int] = ()
        if need.gpus or need.gpu_millis:
            devices = chosen_devices(fleet, row, need, self._pick)
            assert len(devices) == (need.gpus or 1), (row, need)
        fleet.take(row, need, devices)
        self._taken.append((row, need, devices))
        return devices

    def copy(self) -> Trial:
        """Another one, equal for now; nothing it takes or releases shows here."""
        return Trial(self.fleet.fork(), self._pick)

    def release(self, row: int, held: Held, sign: int = -1) -> None:
        """Give back to `row` what is held of it; sign 1: hold it again. Not for `undo`."""
        devices = [index for index, uuid in enumerate(self.fleet.uuids[row]) if uuid in held.gpus]
        self.fleet.hold(row, sign, held.cpu_millis, held.memory_bytes, held.gpu_millis, held.group, devices)

    def mark(self) -> int:
        """Where the trial stands, for `undo`."""
        return len(self._taken)

    def undo(self, mark: int = 0) -> None:
        """Give back what was taken since a mark, the last first."""
        while len(self._taken) > mark:
            row, need, devices = self._taken.pop()
            self.fleet.take(row, need, devices, sign=-1)


def chosen_devices(fleet: Fleet, row: int, need: Need, pick: Pick) -> Sequence[int]:
    """Indexes of the devices for a need: whole ones of the first model that has enough, in the node's order;
    for a share, what `pick` prefers among all that will do, those of a model named earlier first."""
    levels, indexes, millis, count = fleet.levels[row], fleet.layout_of[row].indexes, need.gpu_millis, need.gpus
    found: list[int] = []
    for name in need.gpu_models or ("",):
        if count:
            free = [index for index in indexes.get(name, ()) if levels[index] == WHOLE]
            if len(free) >= count:
                return free[:count]
        elif millis:
            more = [index for index in indexes.get(name, ()) if levels[index] >= millis]
            found = [*found, *(index for index in more if index not in found)] if found else more
    if len(found) > 1:
        return [pick(fleet, need, row, found)]
    return found
