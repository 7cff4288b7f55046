"""The Philly traces, as an extract: submission, duration, GPUs and virtual cluster (the tenant)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from eventsched.projections.simulation.readers.gpu_jobs import gpu_spec
from eventsched.projections.simulation.readers.source import BadField, Row, Source, from_zero
from eventsched.projections.simulation.workload import SimJob

COLUMNS = ("timestamp", "duration", "num_gpus", "gpu_time", "cluster")


def looks_like(source: Source) -> bool:
    """By the names of its columns."""
    return source.head.startswith("timestamp,duration,num_gpus")


def read(source: Source) -> Iterator[SimJob]:
    """Rows have no id: jobs are numbered by line. Their own duration is the estimate."""

    def make(row: tuple[str, Row]) -> SimJob:
        place, values = row
        takes_ms = values.seconds_ms("duration")
        spec = gpu_spec(source, values.integer("num_gpus", 0, 100_000), "num_gpus", takes_ms)
        line = place.removeprefix("line ")
        return SimJob(_time_ms(values), values.ident("cluster", "default"), f"p{line}", spec, takes_ms)

    rows = ((place, (place, row)) for place, row in source.table(COLUMNS[:3], COLUMNS[3:]))
    yield from from_zero(list(source.each(rows, make)))


def _time_ms(row: Row) -> int:
    text = row.text("timestamp")
    try:
        return round(datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()) * 1000
    except ValueError:
        raise BadField("timestamp", f"{text[:80]!r} is not a time like 2017-10-09 07:01:55") from None
