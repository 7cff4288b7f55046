"""The shape of a cluster as Tiresias has it: switches, nodes below each, and what a node has (memory in GB)."""

from __future__ import annotations

from collections.abc import Iterator

from eventsched.projections.simulation.readers.source import Source
from eventsched.projections.simulation.workload import Shape, SimNode, make_nodes

COLUMNS = ("num_switch", "num_node_p_switch", "num_gpu_p_node", "num_cpu_p_node", "mem_p_node")


def looks_like(source: Source) -> bool:
    """By its first column."""
    return source.head.startswith("num_switch,")


def read(source: Source) -> Iterator[SimNode]:
    """All nodes alike."""
    for _, row in source.table(COLUMNS):
        count = row.integer("num_switch", 1, 1_000) * row.integer("num_node_p_switch", 1, 10_000)
        memory = row.integer("mem_p_node", 1, 1_000_000) << 30
        cpus, gpus = row.integer("num_cpu_p_node", 1, 10_000), row.integer("num_gpu_p_node", 0, 64)
        yield from make_nodes(count, Shape(1_000 * cpus, memory, "GPU", gpus))
        return
