"""Tiresias traces: GPUs, submission and duration in seconds."""

from __future__ import annotations

from collections.abc import Iterator

from eventsched.projections.simulation.readers.gpu_jobs import gpu_spec
from eventsched.projections.simulation.readers.source import Row, Source
from eventsched.projections.simulation.workload import SimJob

COLUMNS = ("job_id", "num_gpu", "submit_time", "iterations", "model_name", "duration", "interval")


def looks_like(source: Source) -> bool:
    """By the names of its columns, all of them."""
    return source.head.partition("\n")[0].strip() == ",".join(COLUMNS)


def read(source: Source) -> Iterator[SimJob]:
    """Their own duration is the estimate."""

    def make(row: Row) -> SimJob:
        takes_ms = row.seconds_ms("duration")
        spec = gpu_spec(source, row.integer("num_gpu", 0, 100_000), "num_gpu", takes_ms)
        return SimJob(row.seconds_ms("submit_time"), "default", row.ident("job_id"), spec, takes_ms)

    return source.each(source.table(COLUMNS), make)
