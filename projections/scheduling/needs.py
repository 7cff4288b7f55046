"""What a job needs from a node, reduced to what placement compares: equal needs share every answer."""

from __future__ import annotations

from typing import NamedTuple

from eventsched.projections.cluster.state import Job


class Need(NamedTuple):
    """A job's class. gpu_millis: a share of one GPU, instead of whole ones.

    avoid: a node to pass over if another will do (it failed there last).
    """

    driver: str
    cpu_millis: int
    memory_bytes: int
    gpus: int
    gpu_millis: int
    gpu_model: str
    avoid: str


def need_of(job: Job) -> Need:
    """The class of a job."""
    asked = job.spec.resources
    model = asked.gpu_model.lower() if asked.gpus or asked.gpu_millis else ""
    return Need(
        job.spec.driver,
        asked.cpu_millis,
        asked.memory_bytes,
        asked.gpus,
        asked.gpu_millis,
        "" if model == "any" else model,
        job.avoid_node,
    )
