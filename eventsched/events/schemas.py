"""JSON Schema of the events of the log, from the same table as their documentation."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import NODEFAULT, Raw, structs

from eventsched.events.catalogue import ADMIN_KINDS, DECIDE_KINDS, EXAMPLES, JOB_VERBS
from eventsched.spec import JobSpec
from eventsched.wire import Event


def event_schemas() -> dict[str, Any]:
    """The schema of each kind of event, by its subject (and its `type`, where several share a subject)."""
    kinds: dict[str, type[Event]] = {f"ev.job.<tenant>.<job>.{verb}": kind for verb, kind in JOB_VERBS.items()}
    kinds |= {f"ev.admin.{name}": kind for name, kind in ADMIN_KINDS.items()}
    kinds |= {f"ev.decide.{name}": kind for name, kind in DECIDE_KINDS.items()}
    for subject, event in EXAMPLES:
        place, tag = subject.split(".")[1], type(event).__struct_config__.tag
        if place == "leader":
            kinds[subject] = type(event)
        elif place in ("node", "run", "assign"):
            kinds[f"ev.{place}.<node> {tag}"] = type(event)
    return {name: msgspec.json.schema(_decoded(kind)) for name, kind in sorted(kinds.items())}


def _decoded(kind: type[Event]) -> type[Any]:
    """The kind; or, if it carries a job as bytes, its twin with the job in it."""
    fields = structs.fields(kind)
    if not any(one.type is Raw for one in fields):
        return kind
    twins = [
        (one.encode_name, JobSpec, JobSpec()) if one.type is Raw else (one.encode_name, one.type, _default(one))
        for one in fields
    ]
    return msgspec.defstruct(
        kind.__name__, twins, tag=kind.__struct_config__.tag, kw_only=True, namespace={"__doc__": kind.__doc__}
    )


def _default(one: structs.FieldInfo) -> Any:
    if one.default is not NODEFAULT:
        return one.default
    return msgspec.field() if one.default_factory is NODEFAULT else msgspec.field(default_factory=one.default_factory)
