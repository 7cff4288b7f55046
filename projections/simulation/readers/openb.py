"""openb: the nodes and pods of a GPU cluster with shared GPUs (Alibaba, 2023), as CSV.

Nodes: sn, cpu_milli, memory_mib, gpu (how many), model. Pods: name, cpu_milli, memory_mib, num_gpu, gpu_milli
(of each GPU; less than 1000 only of a single one), and where present gpu_spec (`A|B`), qos and times.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from eventsched.events import NodeJoined
from eventsched.ids import is_id
from eventsched.projections.simulation.readers.rows import Row, read_rows
from eventsched.resources import Capacity, Gpu, Resources

MIB = 1 << 20
GPUS_MAX = 64
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


def read_nodes(path: Path) -> dict[str, NodeJoined]:
    """Node id -> its join, in the order of the file."""
    nodes: dict[str, NodeJoined] = {}
    for row in read_rows(path, ("sn", "cpu_milli", "memory_mib", "gpu", "model")):
        name = row.text("sn")
        if not is_id(name) or name in nodes:
            raise row.bad("sn", f"{name[:80]!r} is no id of a node, or stands twice")
        model = row.text("model")
        count = row.integer("gpu", 0, GPUS_MAX)
        if count and not model:
            raise row.bad("model", "is empty, yet the node has GPUs")
        gpus = tuple(Gpu(f"{name}-{index}", model) for index in range(count))
        capacity = Capacity(row.integer("cpu_milli"), row.integer("memory_mib", 0, 2**33) * MIB, gpus)
        nodes[name] = NodeJoined(machine_id=name, boot_id="1", capacity=capacity, drivers=("fake",))
    return nodes


def read_pods(path: Path) -> list[Pod]:
    """The pods, in the order of the file."""
    return [_pod(row) for row in read_rows(path, _POD, _POD_MORE)]


def _pod(row: Row) -> Pod:
    gpus, millis = row.integer("num_gpu", 0, GPUS_MAX), row.integer("gpu_milli", 0, 1_000)
    if gpus and not millis:
        raise row.bad("gpu_milli", "is 0, yet GPUs are asked for")
    if gpus > 1 and millis < 1_000:
        raise row.bad("gpu_milli", "several GPUs can only be asked for whole (1000)")
    share = millis if gpus == 1 and millis < 1_000 else 0
    asked = Resources(
        cpu_millis=max(1, row.integer("cpu_milli", 0, 100_000_000)),
        memory_bytes=row.integer("memory_mib", 0, 2**33) * MIB,
        gpus=0 if share else gpus,
        gpu_millis=share,
        gpu_model=_optional(row, "gpu_spec") if gpus else "",
    )
    times = [_seconds(row, name) for name in ("creation_time", "scheduled_time", "deletion_time")]
    return Pod(row.text("name"), asked, _optional(row, "qos"), *times)


def _optional(row: Row, field: str) -> str:
    return row.text(field) if row.has(field) else ""


def _seconds(row: Row, field: str) -> int:
    text = _optional(row, field)
    return row.integer(field) if text else -1
