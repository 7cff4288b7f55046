"""Standard Workload Format: 18 numbers a line, comments after `;`, -1 = unknown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from eventsched.projections.simulation.readers.source import BadField, Row, Source
from eventsched.projections.simulation.workload import SimJob
from eventsched.resources import Resources
from eventsched.spec import GANG_MAX, JobSpec

COLUMNS = (
    "job_number", "submit_time", "wait_time", "run_time", "allocated_processors", "average_cpu_time", "used_memory",
    "requested_processors", "requested_time", "requested_memory", "status", "user_id", "group_id", "executable",
    "queue", "partition", "preceding_job", "think_time",
)  # fmt: skip
_LINE = re.compile(r"\s*(?:-?[0-9.]+\s+){17}-?[0-9.]+\s*")


def looks_like(source: Source) -> bool:
    """By its ending, or by lines of 18 numbers after comments."""
    if source.name.lower().endswith(".swf"):
        return True
    lines = [line for line in source.head.splitlines()[:-1] if line.strip() and not line.lstrip().startswith(";")]
    return bool(lines) and _LINE.fullmatch(lines[0]) is not None


def read(source: Source) -> Iterator[SimJob]:
    """One core a processor; several processors are a gang. The tenant is the user's group."""
    return source.each(_rows(source), _job)


def _rows(source: Source) -> Iterator[tuple[str, Row]]:
    for place, line in source.lines():
        text = line.partition(";")[0].split()
        if not text:
            continue
        if len(text) != len(COLUMNS):
            source.bad(place, "", f"{len(text)} values; a line of this format has {len(COLUMNS)}")
            continue
        yield place, Row(dict(zip(COLUMNS, text, strict=True)))


def _job(row: Row) -> SimJob:
    asked = row.integer("requested_processors", -1)
    field = "requested_processors" if asked > 0 else "allocated_processors"
    width = row.integer(field, -1)
    if not 1 <= width <= GANG_MAX:
        raise BadField(field, f"{width} is not between 1 and {GANG_MAX}")
    if row.number("run_time", -1) < 0:
        raise BadField("run_time", "is unknown (-1): the job cannot be simulated")
    estimate = row.number("requested_time", -1)
    group = row.integer("group_id", -1)
    memory_kb = row.number("requested_memory", -1)
    spec = JobSpec(
        driver="fake",
        resources=Resources(cpu_millis=1_000, memory_bytes=int(memory_kb * 1024) if memory_kb > 0 else 0),
        estimate_ms=round(estimate * 1000) if estimate > 0 else 0,
        array=width if width > 1 else 0,
        gang=width > 1,
    )
    tenant = f"group{group}" if group >= 0 else "default"
    return SimJob(
        row.seconds_ms("submit_time"), tenant, str(row.integer("job_number")), spec, row.seconds_ms("run_time")
    )
