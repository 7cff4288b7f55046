"""The JSON Schema of the event catalogue; `/schema` itself is the service's own."""

from __future__ import annotations

from functools import cache
from typing import Any, Union, get_args

import msgspec
from litestar import Response

from eventsched.events.catalogue import ADMIN_KINDS, DECIDE_KINDS, JOB_VERBS
from eventsched.events.decisions import LeaderClaimed, Order, RunAssigned
from eventsched.events.nodes import NodeEvent
from eventsched.events.runs import RunEvent
from eventsched.projections.http.bodies import JSON, reads
from eventsched.spec import JobSpec
from eventsched.wire import Decision

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def _described(order: type[Decision]) -> type[Any]:
    """An order as it is; of an assign, what its raw `spec` holds."""
    if order is not RunAssigned:
        return order
    fields: list[Any] = []
    for one in msgspec.structs.fields(RunAssigned):
        if one.name == "spec":
            fields.append((one.name, JobSpec))
        elif one.default_factory is not msgspec.NODEFAULT:
            fields.append((one.name, one.type, msgspec.field(default_factory=one.default_factory)))
        elif one.default is not msgspec.NODEFAULT:
            fields.append((one.name, one.type, one.default))
        else:
            fields.append((one.name, one.type))
    config = RunAssigned.__struct_config__
    return msgspec.defstruct("RunAssigned", fields, kw_only=True, tag_field=config.tag_field, tag=config.tag)


@cache
def catalogue_schema() -> bytes:
    """Subject (with placeholders) -> the schema of its payload; shared parts in `$defs`."""
    kinds: dict[str, Any] = {
        **{f"ev.job.<tenant>.<job>.{verb}": struct for verb, struct in JOB_VERBS.items()},
        **{f"ev.admin.{kind}": struct for kind, struct in ADMIN_KINDS.items()},
        "ev.node.<node>": NodeEvent,
        "ev.run.<node>": RunEvent,
        "ev.leader": LeaderClaimed,
        "ev.assign.<node>": Union[tuple(_described(one) for one in get_args(Order))],  # noqa: UP007
        **{f"ev.decide.{kind}": struct for kind, struct in DECIDE_KINDS.items()},
    }
    schemas, parts = msgspec.json.schema_components(kinds.values(), ref_template="#/$defs/{name}")
    by_subject = dict(zip(kinds, schemas, strict=True))
    return msgspec.json.encode({"$schema": DRAFT, "title": "Events", "subjects": by_subject, "$defs": parts})


@reads("/schema/events", summary="The event catalogue as JSON Schema", tags=["events"])
async def event_schema() -> Response[bytes]:
    """By subject, what its payload is."""
    return Response(catalogue_schema(), media_type=JSON)


ROUTES = [event_schema]
