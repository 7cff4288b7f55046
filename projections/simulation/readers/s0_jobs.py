"""jobs.json of the cost-aware scheduler: all submitted at once; costs are per minute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eventsched.projections.simulation.readers.source import BadField, Row, Source
from eventsched.projections.simulation.workload import SimJob
from eventsched.resources import Resources
from eventsched.spec import JobSpec, Sla

DURATION_S = 10
SLAS: dict[str, Sla] = {"BATCH": "batch", "LATENCY_SENSITIVE": "latency_sensitive"}
FIELDS = (
    "jobId", "tenant", "priority", "resourceRequest", "slaType", "maxTolerableCost", "isRescheduled",
    "durationSeconds", "submitSeconds",
)  # fmt: skip
RESOURCES = ("cpu", "memory_gb", "gpuType", "gpuCount")


def looks_like(source: Source) -> bool:
    """JSON with its names."""
    return source.head.lstrip()[:1] in ("[", "{") and '"resourceRequest"' in source.head


def read(source: Source) -> Iterator[SimJob]:
    """A list of jobs, or an object with such a list under "jobs"."""
    return source.each(objects(source, "jobs"), _job)


def objects(source: Source, name: str) -> Iterator[tuple[str, Row]]:
    """The objects of a file, each with its place."""
    content: Any = source.json()
    if isinstance(content, dict):
        content = content.get(name)
    if not isinstance(content, list):
        raise source.fatal(f"neither a list nor an object with a list {name!r}", "see the formats in the docs")
    for number, one in enumerate(content, 1):
        place = f"{name[:-1]} {number}"
        if isinstance(one, dict):
            yield place, Row(one)
        else:
            source.bad(place, "", "is not an object")


def part(row: Row, name: str) -> Row:
    """An object within an object, whose fields are called `name.field`."""
    value = row.get(name)
    if not isinstance(value, dict):
        raise BadField(name, "is missing" if value is None else "is not an object")
    return Row({f"{name}.{field}": one for field, one in value.items()})


def millis(row: Row, name: str, default: float | None = None) -> int:
    """Cores as thousandths."""
    return round(row.number(name, 0, 100_000, default) * 1_000)


def gigabytes(row: Row, name: str, default: float | None = None) -> int:
    """GB (2^30) as bytes."""
    return round(row.number(name, 0, 1_000_000, default) * (1 << 30))


def micros_per_h(row: Row, name: str) -> int:
    """Money per minute as millionths per hour."""
    return round(row.number(name, 0, 100_000) * 60 * 1_000_000)


def _job(row: Row) -> SimJob:
    row.known(FIELDS)
    asked = part(row, "resourceRequest")
    asked.known(f"resourceRequest.{name}" for name in RESOURCES)
    sla = row.text("slaType", "BATCH")
    if sla not in SLAS:
        raise BadField("slaType", f"{sla[:80]!r} is none of {', '.join(SLAS)}")
    gpus = asked.integer("resourceRequest.gpuCount", 0, 1_024, 0)
    model = asked.text("resourceRequest.gpuType", "") if gpus else ""
    spec = JobSpec(
        driver="fake",
        resources=Resources(
            cpu_millis=max(1, millis(asked, "resourceRequest.cpu", 1)),
            memory_bytes=gigabytes(asked, "resourceRequest.memory_gb", 0),
            gpus=gpus,
            gpu_model="" if model == "any" else model,
        ),
        priority=row.integer("priority", 1, 10, 1),
        sla=SLAS[sla],
        max_price_micros_per_h=micros_per_h(row, "maxTolerableCost") if "maxTolerableCost" in row else None,
        max_lost=1_000,
        rescheduled=row.boolean("isRescheduled"),
    )
    takes_ms = row.seconds_ms("durationSeconds", DURATION_S)
    return SimJob(
        row.seconds_ms("submitSeconds", 0), row.ident("tenant", "default"), row.ident("jobId"), spec, takes_ms
    )
