"""Filters: which nodes can take a job at all. Each refuses for one reason code.

A filter says for some rows which of them pass. Their order is the order in which reasons are
reported. The first ones hang on what seldom changes, and are answered once for a class of jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from eventsched.projections.scheduling.diary import Ints
from eventsched.projections.scheduling.fleet import DRIVER_BITS, NO_ROOM, Fleet, Mask
from eventsched.projections.scheduling.layouts import WHOLE
from eventsched.projections.scheduling.needs import Need

Rows = Ints | slice
ALL = slice(None)


class Filter(NamedTuple):
    """One filter. matters: whether a need asks for it. best: the most any of these rows offers, of what it counts."""

    code: str
    lasting: bool
    matters: Callable[[Need], bool]
    passes: Callable[[Fleet, Need, Rows], Mask]
    asked: Callable[[Need], int] | None = None
    offered: Callable[[Fleet, Need, Rows], Ints] | None = None


def _labels(fleet: Fleet, need: Need, rows: Rows) -> Mask:
    mask = np.ones(fleet.count, dtype=np.bool_)
    for name, value in need.labels:
        mask = mask & fleet.labelled(name, value)
    found: Mask = mask[rows]
    return found


def _gpu_model(fleet: Fleet, need: Need, rows: Rows) -> Mask:
    mask = np.zeros(fleet.count, dtype=np.bool_)[rows]
    for name in need.names:
        if name in fleet.gpu_total:
            mask = mask | (fleet.gpu_total[name][rows] > 0)
    return mask


def gpus_offered(fleet: Fleet, need: Need, rows: Rows) -> Ints:
    """What rows offer of the devices asked for: untouched ones, or thousandths of the best one."""
    of = fleet.most if need.gpu_millis else fleet.full
    most = of(need.names[0])[rows]
    for name in need.names[1:]:
        most = np.maximum(most, of(name)[rows])
    return most


def _per_node(fleet: Fleet, need: Need, rows: Rows) -> Mask:
    held = np.zeros(fleet.count, dtype=np.int64)
    for row, number in fleet.groups.get(need.group, {}).items():
        held[row] = number
    mask: Mask = held[rows] < need.per_node
    return mask


def _always(need: Need) -> bool:
    return True


FILTERS: tuple[Filter, ...] = (
    Filter("no_nodes", False, _always, lambda fleet, need, rows: fleet.ready[rows]),
    Filter("cordoned", False, _always, lambda fleet, need, rows: ~fleet.cordoned[rows]),
    Filter("driver", True, _always, lambda fleet, need, rows: (fleet.drivers[rows] & DRIVER_BITS[need.driver]) != 0),
    Filter("node_labels", True, lambda need: bool(need.labels), _labels),
    Filter("taint", True, _always, lambda fleet, need, rows: fleet.tolerated(need.tolerations)[rows]),
    Filter("spot", True, lambda need: need.on_demand, lambda fleet, need, rows: ~fleet.spot[rows]),
    Filter(
        "price",
        True,
        lambda need: need.max_price >= 0,
        lambda fleet, need, rows: fleet.price[rows] <= need.max_price,
        lambda need: need.max_price,
        lambda fleet, need, rows: fleet.price[rows],
    ),
    Filter("gpu_model", True, lambda need: bool(need.gpus or need.gpu_millis), _gpu_model),
    Filter(
        "cpu",
        False,
        _always,
        lambda fleet, need, rows: fleet.cpu_free[rows] >= need.cpu_millis,
        lambda need: need.cpu_millis,
        lambda fleet, need, rows: fleet.cpu_free[rows],
    ),
    Filter(
        "memory",
        False,
        lambda need: need.memory_bytes > 0,
        lambda fleet, need, rows: fleet.memory_free[rows] >= need.memory_bytes,
        lambda need: need.memory_bytes,
        lambda fleet, need, rows: fleet.memory_free[rows],
    ),
    Filter(
        "gpu",
        False,
        lambda need: bool(need.gpus or need.gpu_millis),
        lambda fleet, need, rows: gpus_offered(fleet, need, rows) >= (need.gpu_millis or need.gpus),
        lambda need: need.gpu_millis or need.gpus,
        gpus_offered,
    ),
    Filter("per_node", False, lambda need: bool(need.group), _per_node),
)
"""All filters, in the order in which they are asked."""


def filters_for(need: Need) -> list[Filter]:
    """The filters that matter for a need."""
    return [one for one in FILTERS if one.matters(need)]


def lasting(fleet: Fleet, need: Need) -> Mask | None:
    """Rows that pass the filters that hang on what seldom changes; None = all do."""
    mask = np.ones(fleet.count, dtype=np.bool_)
    for one in FILTERS:
        if one.lasting and one.matters(need):
            mask = mask & one.passes(fleet, need, ALL)
    return None if mask.all() else mask


Least = tuple[int, int, int, int]
"""Of each amount in `room`, how much there must be at least."""


def least_room(need: Need) -> Least:
    """What a row must have free for a need that names no models; what is not asked for may be overdrawn. For one
    row after the other, as `bounds_of` is for columns."""
    return need.cpu_millis, need.memory_bytes or NO_ROOM, need.gpus or NO_ROOM, need.gpu_millis or NO_ROOM


Bounds = list[tuple[Ints, Ints]]
"""Columns of a fleet, each with the least that a row must have there (without axes: compared faster than a number)."""


def bounds_of(fleet: Fleet, need: Need) -> Bounds:
    """What can be said of `has_room` a column at a time; they hold while the fleet's generation does."""
    columns = [(fleet.cpu_free, need.cpu_millis)]
    if need.memory_bytes:
        columns.append((fleet.memory_free, need.memory_bytes))
    if (need.gpus or need.gpu_millis) and len(need.names) == 1:  # of several models, the best: see `has_room`
        columns.append((gpus_offered(fleet, need, ALL), need.gpu_millis or need.gpus))
    return [(column, np.array(least)) for column, least in columns]


def has_room(fleet: Fleet, need: Need, rows: Rows, bounds: Bounds | None = None) -> Mask:
    """Rows that pass the other filters: alive, and enough is free. bounds: `bounds_of(fleet, need)`, if at hand."""
    if bounds is None:
        bounds = bounds_of(fleet, need)
    column, least = bounds[0]
    mask: Mask = column[rows] >= least
    for column, least in bounds[1:]:
        mask &= column[rows] >= least
    if len(need.names) > 1:
        mask &= gpus_offered(fleet, need, rows) >= (need.gpu_millis or need.gpus)
    if need.group:
        mask &= _per_node(fleet, need, rows)
    return mask


def feasible(fleet: Fleet, need: Need) -> Mask:
    """Rows that pass every filter."""
    mask, last = has_room(fleet, need, ALL), lasting(fleet, need)
    return mask if last is None else mask & last


def needs_with_room(fleet: Fleet, needs: Iterable[Need], rows: Ints) -> list[Need]:
    """The needs that one of these rows may have room for; a few too many, where something lasting forbids it."""
    cpu, memory, full, most = fleet.room[:, rows].max(axis=1).tolist()
    return [
        need
        for need in needs
        if need.cpu_millis <= cpu
        and (not need.memory_bytes or need.memory_bytes <= memory)
        and need.gpus <= full
        and need.gpu_millis <= most
        and bool(has_room(fleet, need, rows).any())
    ]


class Refused(NamedTuple):
    """How many nodes a filter refused that passed all before it.

    asked, best: what it counts (thousandths of a core, bytes, devices or thousandths of one, micros per
    hour): what the job asks, and the best that any of the refused offers; both -1 where nothing is counted.
    """

    code: str
    nodes: int
    asked: int = -1
    best: int = -1


def refusals(fleet: Fleet, need: Need) -> list[Refused]:
    """Who refused a need, in the order of the filters: each node counts once, at its first refusal."""
    found = []
    rows = np.arange(fleet.count, dtype=np.int64)
    for one in filters_for(need):
        mask = one.passes(fleet, need, rows)
        out = rows[~mask]
        rows = rows[mask]
        if not len(out):
            continue
        if one.asked is None or one.offered is None:
            found.append(Refused(one.code, len(out)))
            continue
        offered = one.offered(fleet, need, out)
        best = offered.min() if one.code == "price" else offered.max()
        found.append(Refused(one.code, len(out), one.asked(need), int(best)))
    return found


def whole(need: Need) -> int:
    """Thousandths of devices a need takes in all."""
    return need.gpu_millis or need.gpus * WHOLE
