"""Jobs of the quota-aware GPU scheduler, as NDJSON or CSV; seconds, maybe of logical time.

Nobody completes them in a simulation: each ends after its `max_runtime`, or after a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from eventsched.forms import BadForm, read_form
from eventsched.projections.simulation.readers.ndjson_jobs import decoded
from eventsched.projections.simulation.readers.source import BadField, Row, Source
from eventsched.projections.simulation.workload import SimJob

TAKES_S = 60
COLUMNS = ("job_id", "tenant_id", "gpu_type", "gpus", "priority", "submitted_at")
NUMBERS = ("gpus", "priority", "submitted_at", "max_runtime")


def looks_like(source: Source) -> bool:
    """By its names."""
    first = source.head.lstrip().partition("\n")[0]
    return '"gpu_type"' in first or first.strip().split(",")[: len(COLUMNS)] == list(COLUMNS)


def read(source: Source) -> Iterator[SimJob]:
    """A job a line."""
    if source.head.lstrip().startswith("{"):
        return source.each(source.lines(), lambda line: _job(decoded(line)))
    return source.each(source.table(COLUMNS, ("max_runtime",)), lambda row: _job(_body(row)))


def _body(row: Row) -> dict[str, Any]:
    """A row of a CSV as the object it would be."""
    body: dict[str, Any] = {name: row.text(name) for name in ("job_id", "tenant_id", "gpu_type")}
    return body | {name: row.integer(name, -(2**53)) for name in NUMBERS if name in row}


def _job(body: dict[str, Any]) -> SimJob:
    try:
        found = read_form(body)
    except BadForm as error:
        raise BadField(error.problems[0].field, error.problems[0].detail) from None
    for name, value in (("job_id", found.job_id), ("submitted_at", "submitted_at" in body)):
        if not value:
            raise BadField(name, "is missing")
    takes_ms = found.spec.max_runtime_ms or TAKES_S * 1000
    spec = replace(found.spec, driver="fake", estimate_ms=takes_ms, submitted_ms=None)
    return SimJob(1000 * int(body["submitted_at"]), found.tenant or "default", found.job_id, spec, takes_ms)
