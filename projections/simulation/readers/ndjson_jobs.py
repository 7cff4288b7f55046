"""Our own format: a line is a JobSpec with `job_id`, `tenant`, `submit_ms` and `duration_ms` beside its fields.

`duration_ms` is a number, a list (of each member of an array), or an object (by GPU model).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from eventsched.projections.simulation.readers.source import SECONDS_MAX, BadField, Row, Source
from eventsched.projections.simulation.workload import SimJob
from eventsched.spec import JobSpec

OWN = ("job_id", "tenant", "submit_ms", "duration_ms")
MS_MAX = SECONDS_MAX * 1000
_TELLING = ("duration_ms", "submit_ms", "image", "resources")


def looks_like(source: Source) -> bool:
    """A first line that is an object with a time, or with what only a JobSpec has: then what it lacks is named."""
    first = source.head.lstrip().partition("\n")[0]
    return first.startswith("{") and first.rstrip().endswith("}") and any(f'"{name}"' in first for name in _TELLING)


def read(source: Source) -> Iterator[SimJob]:
    """Without a driver a job has the fake one: nothing is really run."""
    return source.each(source.lines(), _job)


def decoded(line: str) -> dict[str, Any]:
    """A line's object; raises BadField."""
    try:
        found = msgspec.json.decode(line)
    except (ValueError, RecursionError) as error:
        raise BadField("", f"no JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadField("", "is not an object")
    return found


def _job(line: str) -> SimJob:
    fields = decoded(line)
    own = Row({name: fields.pop(name) for name in OWN if name in fields})
    if "image" not in fields:
        fields.setdefault("driver", "process" if fields.get("command") else "fake")
    try:
        spec = msgspec.convert(fields, JobSpec)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        raise BadField(path.strip(".`") or "job", text) from None
    takes = own.get("duration_ms")
    members: tuple[int, ...] = ()
    models: dict[str, int] = {}
    if isinstance(takes, list) and takes:
        members = tuple(Row({"duration_ms": one}).integer("duration_ms", 0, MS_MAX) for one in takes)
        if len(members) != spec.array:
            raise BadField("duration_ms", f"{len(members)} durations for an array of {spec.array}")
    elif isinstance(takes, dict) and takes:
        models = {
            model.lower(): Row({"duration_ms": one}).integer("duration_ms", 0, MS_MAX) for model, one in takes.items()
        }
    one_ms = max((*members, *models.values())) if members or models else own.integer("duration_ms", 0, MS_MAX)
    return SimJob(
        own.integer("submit_ms", 0, MS_MAX, 0), own.ident("tenant", "default"), own.ident("job_id"), spec, one_ms,
        members, models,
    )  # fmt: skip
