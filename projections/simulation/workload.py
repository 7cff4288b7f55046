"""What is simulated: jobs with the time they really take, and nodes. Policies never see the former."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from eventsched.events import NodeJoined
from eventsched.resources import Capacity, Gpu
from eventsched.spec import JobSpec

DRIVERS = ("docker", "process", "fake", "manual")
"""Simulated nodes offer every driver: nothing is really run."""


class SimJob(Struct, frozen=True):
    """One submission and its truth.

    submit_ms: counted from the start of the workload. duration_ms: how long a run takes; member_ms: of
    each member of an array, where they differ; model_ms: by GPU model in lower case, where it matters.
    """

    submit_ms: int
    tenant: str
    job_id: str
    spec: JobSpec
    duration_ms: int
    member_ms: tuple[int, ...] = ()
    model_ms: dict[str, int] = {}

    def takes_ms(self, member: int, model: str) -> int:
        """How long a run of this job (or of a member) takes on a node with this GPU model."""
        if self.member_ms and 0 <= member < len(self.member_ms):
            return self.member_ms[member]
        return self.model_ms.get(model, self.duration_ms)


class SimNode(Struct, frozen=True):
    """A node as it would join."""

    node_id: str
    joined: NodeJoined

    @property
    def gpu_model(self) -> str:
        """The model of its first device, in lower case; "" without any."""
        gpus = self.joined.capacity.gpus
        return gpus[0].model.lower() if gpus else ""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one node has: `cpus=8,memory=64G,gpus=V100:4` on the command line. memory_bytes 0: no limit.

    devices: the model of each, where they differ; then `gpu_model` and `gpus` say nothing.
    """

    cpu_millis: int = 1_000
    memory_bytes: int = 0
    gpu_model: str = ""
    gpus: int = 0
    devices: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """The model of each device."""
        return self.devices or (self.gpu_model or "GPU",) * self.gpus


@dataclass(slots=True)
class Workload:
    """Jobs in order of submission, on nodes. notes: what was skipped or assumed when they were read."""

    jobs: list[SimJob]
    nodes: list[SimNode]
    notes: list[str] = field(default_factory=list)


ENDLESS_MEMORY = 1 << 50
"""Memory of a node whose memory nobody has stated: more than any job asks for."""


ENDLESS_CORES_MILLIS = 1_000_000
"""Cores of a node where only GPUs are counted."""


def make_node(node_id: str, shape: Shape, **joined: object) -> SimNode:
    """A node of a shape; further fields of `NodeJoined` as they are."""
    gpus = tuple(Gpu(f"{node_id}-gpu{index}", model) for index, model in enumerate(shape.models))
    capacity = Capacity(shape.cpu_millis, shape.memory_bytes or ENDLESS_MEMORY, gpus)
    fields = {"machine_id": node_id, "boot_id": "simulated", "capacity": capacity, "drivers": DRIVERS, **joined}
    return SimNode(node_id, NodeJoined(**fields))  # type: ignore[arg-type]


def make_nodes(count: int, shape: Shape) -> list[SimNode]:
    """So many nodes of one shape, named so that the order of ids is their order."""
    width = len(str(max(0, count - 1)))
    return [make_node(f"node-{index:0{width}}", shape) for index in range(count)]


def widest(nodes: list[SimNode]) -> int:
    """The most GPUs a node has."""
    return max((len(node.joined.capacity.gpus) for node in nodes), default=0)
