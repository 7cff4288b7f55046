"""The JSON Schema of the event catalogue; `/schema` itself is the service's own."""

from __future__ import annotations

from functools import cache

import msgspec
from litestar import Response

from eventsched.events.schemas import event_schemas
from eventsched.projections.http.bodies import JSON, reads


@cache
def catalogue_schema() -> bytes:
    """Made once; the same as `eventsched.schema` answers over NATS."""
    return msgspec.json.encode(event_schemas())


@reads("/schema/events", summary="The event catalogue as JSON Schema", tags=["events"])
async def event_schema() -> Response[bytes]:
    """By subject (and `type`, where several share one), what the payload is: each a document of its own."""
    return Response(catalogue_schema(), media_type=JSON)


ROUTES = [event_schema]
