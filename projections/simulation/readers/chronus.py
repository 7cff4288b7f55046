"""Chronus traces: Philly jobs with deadlines. Their unit of time is not documented; it is taken for minutes."""

from __future__ import annotations

from collections.abc import Iterator

from eventsched.projections.simulation.readers.gpu_jobs import gpu_spec
from eventsched.projections.simulation.readers.source import BadField, Row, Source, from_zero
from eventsched.projections.simulation.workload import SimJob

TICK_MS = 60_000
TICKS_MAX = 3_650 * 1_440
COLUMNS = (
    "job_id", "user", "num_gpu", "submit_time", "iterations", "model_name", "duration", "interval",
    "expect_time_list", "expect_value_list", "best_effort", "job_type",
)  # fmt: skip


def looks_like(source: Source) -> bool:
    """By the names of its columns."""
    return "expect_time_list" in source.head.partition("\n")[0]


def read(source: Source) -> Iterator[SimJob]:
    """strict: a deadline. soft: its first one. best: none, and first to give way."""
    source.notes.append("chronus: the unit of time is not documented; a tick is taken for a minute")
    yield from from_zero(list(source.each(source.table(COLUMNS), lambda row: _job(source, row))))


def _job(source: Source, row: Row) -> SimJob:
    takes_ms = TICK_MS * row.integer("duration", 0, TICKS_MAX)
    kind = row.text("job_type")
    if kind not in ("strict", "soft", "best"):
        raise BadField("job_type", f"{kind[:80]!r} is none of strict, soft, best")
    more: dict[str, object] = {"sla": "best_effort", "deadline_ms": 0}
    if kind != "best":
        expected = Row({"expect_time_list": row.text("expect_time_list").partition("-")[0]})
        more = {"sla": "batch", "deadline_ms": TICK_MS * expected.integer("expect_time_list", 0, TICKS_MAX)}
    spec = gpu_spec(source, row.integer("num_gpu", 0, 100_000), "num_gpu", takes_ms, **more)
    submit_ms = TICK_MS * row.integer("submit_time", 0, TICKS_MAX)
    return SimJob(submit_ms, row.ident("user", "default"), row.ident("job_id"), spec, takes_ms)
