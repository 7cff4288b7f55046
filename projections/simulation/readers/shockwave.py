"""Shockwave traces: Gavel's columns with an adaptation mode and the duration. Commands are labels."""

from __future__ import annotations

from collections.abc import Iterator

from eventsched.projections.simulation.readers.gpu_jobs import gpu_spec
from eventsched.projections.simulation.readers.source import Row, Source
from eventsched.projections.simulation.workload import SimJob

COLUMNS = (
    "job_type", "command", "working_dir", "steps_flag", "needs_data_dir", "total_steps", "scale_factor", "mode",
    "priority_weight", "slo", "duration_s", "arrival_time_s",
)  # fmt: skip


def looks_like(source: Source) -> bool:
    """By the number of its columns."""
    return source.head.partition("\n")[0].count("\t") == len(COLUMNS) - 1


def read(source: Source) -> Iterator[SimJob]:
    """Rows have no id: jobs are numbered by line. Their own duration is the estimate."""

    def make(item: tuple[str, Row]) -> SimJob:
        place, row = item
        takes_ms = row.seconds_ms("duration_s")
        slo = row.number("slo", -1, 1_000_000)
        spec = gpu_spec(
            source,
            row.integer("scale_factor", 1, 100_000),
            "scale_factor",
            takes_ms,
            deadline_ms=round(slo * takes_ms) if slo > 0 else 0,
        )
        name = "s" + place.removeprefix("line ")
        return SimJob(row.seconds_ms("arrival_time_s"), "default", name, spec, takes_ms)

    rows = ((place, (place, row)) for place, row in source.tabbed(COLUMNS))
    return source.each(rows, make)
