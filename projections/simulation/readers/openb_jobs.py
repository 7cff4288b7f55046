"""openb's pods, timed: submitted when they were created, running as long as they did."""

from __future__ import annotations

from collections.abc import Iterator

from eventsched.projections.simulation.readers.openb import Pod, pods
from eventsched.projections.simulation.readers.source import BadField, Source, from_zero
from eventsched.projections.simulation.workload import SimJob
from eventsched.spec import JobSpec, Sla


def looks_like(source: Source) -> bool:
    """By the names of its columns."""
    return source.head.startswith("name,cpu_milli,memory_mib,num_gpu,gpu_milli")


def read(source: Source) -> Iterator[SimJob]:
    """Pods without times cannot be played: they are for `evaluate placement`."""
    yield from from_zero(list(pods(source, _job)))


def _job(pod: Pod) -> SimJob:
    if pod.created_s < 0 or pod.deleted_s < pod.scheduled_s or pod.scheduled_s < 0:
        raise BadField("deletion_time", "the pod has no time of creation, start and deletion")
    takes_ms = (pod.deleted_s - pod.scheduled_s) * 1000
    sla: Sla = "best_effort" if pod.qos == "BE" else "batch"
    spec = JobSpec(driver="fake", resources=pod.resources, estimate_ms=takes_ms, sla=sla, max_lost=1_000)
    return SimJob(pod.created_s * 1000, "default", pod.name, spec, takes_ms)
