"""Our own format of nodes: one a line, or with `count` several alike (`<node>-0`, `<node>-1`, …).

`{"node": "n", "count": 4, "cpu_millis": 8000, "memory_bytes": 68719476736, "gpus": {"A100": 4},
"labels": {}, "taints": [], "spot": true, "hazard_ppm_per_h": 50000, "price_micros_per_h": 2500000}`
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct, ValidationError, convert, field

from eventsched.events import NodeJoined
from eventsched.ids import ID_RULE, is_id
from eventsched.projections.simulation.readers.ndjson_jobs import decoded
from eventsched.projections.simulation.readers.source import BadField, Source
from eventsched.projections.simulation.workload import DRIVERS, ENDLESS_MEMORY, SimNode
from eventsched.resources import Capacity, Gpu
from eventsched.wire import Int

GPUS_MAX, COUNT_MAX = 64, 100_000


class Line(Struct, forbid_unknown_fields=True, kw_only=True):
    """One line. gpus: how many by model."""

    node: str
    count: Int = 1
    cpu_millis: Int = 1_000
    memory_bytes: Int = ENDLESS_MEMORY
    gpus: dict[str, Int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    spot: bool = False
    hazard_ppm_per_h: Int = 0
    price_micros_per_h: Int = 0


def looks_like(source: Source) -> bool:
    """A first line that is an object naming a node."""
    first = source.head.lstrip().partition("\n")[0]
    return first.startswith("{") and '"node"' in first


def read(source: Source) -> Iterator[SimNode]:
    """The nodes of all lines."""
    for place, line in source.lines():
        try:
            yield from _nodes(_line(decoded(line)))
        except BadField as fault:
            source.bad(place, fault.field, fault.text)


def _line(fields: dict[str, Any]) -> Line:
    try:
        line = convert(fields, Line)
    except ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        raise BadField(path.strip(".`") or "node", text) from None
    amounts = {
        "cpu_millis": line.cpu_millis,
        "memory_bytes": line.memory_bytes,
        "hazard_ppm_per_h": line.hazard_ppm_per_h,
    }
    for name, value in {**amounts, "price_micros_per_h": line.price_micros_per_h}.items():
        if value < 0:
            raise BadField(name, f"{value} is negative")
    if not 1 <= line.count <= COUNT_MAX:
        raise BadField("count", f"{line.count} is not between 1 and {COUNT_MAX}")
    if not 0 <= sum(line.gpus.values()) <= GPUS_MAX or min(line.gpus.values(), default=0) < 0:
        raise BadField("gpus", f"a node has 0 to {GPUS_MAX} GPUs")
    if "" in line.gpus:
        raise BadField("gpus", 'a model has no name: write {"A100": 4}')
    if not is_id(line.node):
        raise BadField("node", f"{line.node[:80]!r} is not an id ({ID_RULE})")
    return line


def _nodes(line: Line) -> Iterator[SimNode]:
    width = len(str(line.count - 1))
    for index in range(line.count):
        name = f"{line.node}-{index:0{width}}" if line.count > 1 else line.node
        models = [model for model, count in line.gpus.items() for _ in range(count)]
        gpus = tuple(Gpu(f"{name}-gpu{number}", model) for number, model in enumerate(models))
        joined = NodeJoined(
            machine_id=name,
            boot_id="simulated",
            capacity=Capacity(line.cpu_millis, line.memory_bytes, gpus),
            drivers=DRIVERS,
            labels=line.labels,
            taints=line.taints,
            spot=line.spot,
            hazard_ppm_per_h=line.hazard_ppm_per_h,
            price_micros_per_h=line.price_micros_per_h,
        )
        yield SimNode(name, joined)
