"""nodes.json of the cost-aware scheduler: prices per minute, spot or on demand."""

from __future__ import annotations

from collections.abc import Iterator

from eventsched.projections.simulation.readers.s0_jobs import gigabytes, micros_per_h, millis, objects, part
from eventsched.projections.simulation.readers.source import BadField, Row, Source
from eventsched.projections.simulation.workload import Shape, SimNode, make_node

FIELDS = (
    "nodeId", "cloudProvider", "instanceType", "totalCapacity", "allocatable", "nodeType", "realTimeCostPerMinute",
)  # fmt: skip


def looks_like(source: Source) -> bool:
    """JSON with its names."""
    return source.head.lstrip()[:1] in ("[", "{") and '"nodeId"' in source.head


def read(source: Source) -> Iterator[SimNode]:
    """A list of nodes, or an object with such a list under "nodes"."""

    def make(row: Row) -> SimNode:
        row.known(FIELDS)
        kind = row.text("nodeType", "ON_DEMAND")
        if kind not in ("ON_DEMAND", "SPOT"):
            raise BadField("nodeType", f"{kind[:80]!r} is neither ON_DEMAND nor SPOT")
        name = row.ident("nodeId")
        total = _shape(row, "totalCapacity")
        free = _shape(row, "allocatable") if "allocatable" in row else total
        if free != total:
            source.notes.append(f"node {name}: partly taken already; only what is allocatable is simulated")
        labels = {key: row.text(key) for key in ("cloudProvider", "instanceType") if key in row}
        price = micros_per_h(row, "realTimeCostPerMinute") if "realTimeCostPerMinute" in row else 0
        return make_node(name, free, labels=labels, spot=kind == "SPOT", price_micros_per_h=price)

    return source.each(objects(source, "nodes"), make)


def _shape(row: Row, name: str) -> Shape:
    has = part(row, name)
    has.known(f"{name}.{field}" for field in ("cpu", "memory_gb", "gpuType", "gpuCount"))
    gpus = has.integer(f"{name}.gpuCount", 0, 64, 0)
    model = has.text(f"{name}.gpuType", "GPU") if gpus else ""
    return Shape(millis(has, f"{name}.cpu"), gigabytes(has, f"{name}.memory_gb", 0), model, gpus)
