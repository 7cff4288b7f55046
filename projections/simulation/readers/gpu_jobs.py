"""What traces of training jobs share: a number of GPUs, spread over nodes where one has too few."""

from __future__ import annotations

from typing import Any

from eventsched.projections.simulation.readers.source import Source
from eventsched.resources import Resources
from eventsched.spec import JobSpec


def gpu_spec(source: Source, gpus: int, field: str, estimate_ms: int, **more: Any) -> JobSpec:
    """A job of so many GPUs with a core for each (one core without any); a gang where it spans nodes."""
    members, each = source.gang(gpus, field) if gpus else (1, 0)
    return JobSpec(
        driver="fake",
        resources=Resources(cpu_millis=1_000 * max(1, each), gpus=each),
        estimate_ms=estimate_ms,
        max_lost=1_000,  # traces know no limit to how often a job may be put back
        array=members if members > 1 else 0,
        gang=members > 1,
        **more,
    )
