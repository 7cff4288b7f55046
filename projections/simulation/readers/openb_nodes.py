"""openb's nodes."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from eventsched.projections.simulation.readers.openb import read_nodes
from eventsched.projections.simulation.readers.source import Source
from eventsched.projections.simulation.workload import DRIVERS, SimNode


def looks_like(source: Source) -> bool:
    """By the names of its columns."""
    return source.head.startswith("sn,cpu_milli")


def read(source: Source) -> Iterator[SimNode]:
    """All of a file."""
    for name, joined in read_nodes(source).items():
        yield SimNode(name, replace(joined, drivers=DRIVERS))
