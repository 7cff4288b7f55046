"""openb: the nodes and pods of a GPU cluster with shared GPUs (Alibaba, 2023), as CSV.

Nodes: sn, cpu_milli, memory_mib, gpu (how many), model. Pods: name, cpu_milli, memory_mib, num_gpu, gpu_milli
(of each GPU; less than 1000 only of a single one), and where present gpu_spec (`A|B`), qos and times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from msgspec import Struct

from eventsched.events import NodeJoined
from eventsched.projections.simulation.readers.source import BadField, Row, Source
from eventsched.resources import Capacity, Gpu, Resources

MIB = 1 << 20
GPUS_MAX = 64
Made = TypeVar("Made")
_NODE = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
_POD = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
_POD_MORE = ("gpu_spec", "qos", "pod_phase", "creation_time", "deletion_time", "scheduled_time")


class Pod(Struct, frozen=True):
    """One pod: what it asks for. Times are seconds; -1 where the file has none."""

    name: str
    resources: Resources
    qos: str = ""
    created_s: int = -1
    scheduled_s: int = -1
    deleted_s: int = -1


def read_nodes(source: Source) -> dict[str, NodeJoined]:
    """Node id -> its join, in the order of the file."""
    nodes: dict[str, NodeJoined] = {}
    nodes.update(source.each(source.table(_NODE), lambda row: _node(row, nodes)))  # each row sees those above it
    return nodes


def _node(row: Row, others: dict[str, NodeJoined]) -> tuple[str, NodeJoined]:
    name = row.ident("sn")
    if name in others:
        raise BadField("sn", f"{name!r} stands twice")
    model, count = row.text("model", ""), row.integer("gpu", 0, GPUS_MAX)
    if count and not model:
        raise BadField("model", "is empty, yet the node has GPUs")
    gpus = tuple(Gpu(f"{name}-{index}", model) for index in range(count))
    capacity = Capacity(row.integer("cpu_milli"), row.integer("memory_mib", 0, 2**33) * MIB, gpus)
    return name, NodeJoined(machine_id=name, boot_id="1", capacity=capacity, drivers=("fake",))


def pods(source: Source, make: Callable[[Pod], Made]) -> Iterator[Made]:
    """What `make` makes of each pod, in the order of the file; it may raise BadField."""
    return source.each(source.table(_POD, _POD_MORE), lambda row: make(_pod(row)))


def read_pods(source: Source) -> list[Pod]:
    """The pods, in the order of the file."""
    return list(pods(source, lambda pod: pod))


def _pod(row: Row) -> Pod:
    gpus, millis = row.integer("num_gpu", 0, GPUS_MAX), row.integer("gpu_milli", 0, 1_000)
    if gpus and not millis:
        raise BadField("gpu_milli", "is 0, yet GPUs are asked for")
    if gpus > 1 and millis < 1_000:
        raise BadField("gpu_milli", "several GPUs can only be asked for whole (1000)")
    share = millis if gpus == 1 and millis < 1_000 else 0
    asked = Resources(
        cpu_millis=max(1, row.integer("cpu_milli", 0, 100_000_000)),
        memory_bytes=row.integer("memory_mib", 0, 2**33) * MIB,
        gpus=0 if share else gpus,
        gpu_millis=share,
        gpu_model=row.text("gpu_spec", "") if gpus else "",
    )
    times = [row.integer(name, default=-1) for name in ("creation_time", "scheduled_time", "deletion_time")]
    return Pod(row.text("name"), asked, row.text("qos", ""), *times)
