"""The endpoints of the service: what each takes and gives, as JSON Schema, with an example.

The service announces itself with it (`nats micro info eventsched`), and its endpoint `schema` and
the documentation are made from it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from eventsched import query
from eventsched.errors import NotFound
from eventsched.events.schemas import event_schemas
from eventsched.explanation import Explanation
from eventsched.views import JobList, JobView, NodeView, PolicyView, PriceView, Stats, TenantView

Schema = dict[str, Any]


class Endpoint(Struct, frozen=True):
    """One endpoint. loose: the request is any JSON value, which whoever answers reads himself."""

    name: str
    summary: str
    request: Any
    answer: Any
    example: str = "{}"
    loose: bool = False

    @property
    def subject(self) -> str:
        """Where it is asked."""
        return f"{query.SERVICE}.{self.name}"

    @property
    def metadata(self) -> dict[str, str]:
        """What the service announces of it: everything as text, schemas without their prose."""
        return {
            "summary": self.summary,
            "example": self.example,
            "request_schema": _text(_bare(msgspec.json.schema(self.request))),
            "answer_schema": _text(_bare(msgspec.json.schema(self.answer))),
        }


ENDPOINTS: dict[str, Endpoint] = {
    one.name: one
    for one in (
        Endpoint(
            "submit",
            "submit a job; answered when it is durable",
            query.SubmitRequest,
            query.Written,
            '{"image":"busybox","command":["echo","hi"]}',
            loose=True,
        ),
        Endpoint("abort", "end a job", query.AbortRequest, query.Written, '{"job_id":"j1","reason":"wrong data"}'),
        Endpoint("get", "one job, by its id or the beginning of it", query.GetRequest, JobView, '{"job_id":"j1"}'),
        Endpoint(
            "explain",
            "why a job waits, or why it went where it went",
            query.ExplainRequest,
            Explanation,
            '{"job_id":"j1"}',
        ),
        Endpoint(
            "wait",
            "one job, once it has ended or the time is up",
            query.WaitRequest,
            JobView,
            '{"job_id":"j1","timeout_ms":20000}',
        ),
        Endpoint(
            "list",
            "jobs, newest first, a page at a time",
            query.ListRequest,
            JobList,
            '{"states":["running"],"limit":10}',
        ),
        Endpoint("nodes", "all nodes, or one", query.NodesRequest, list[NodeView], '{"node":"n1"}'),
        Endpoint("stats", "the cluster in numbers", query.StatsRequest, Stats),
        Endpoint("policies", "the policies there are, and the current one", query.PoliciesRequest, list[PolicyView]),
        Endpoint("tenants", "what tenants may hold, hold and have spent", query.TenantsRequest, list[TenantView]),
        Endpoint("prices", "the price book", query.PricesRequest, PriceView),
        Endpoint(
            "schema",
            "all of this, with explanations, and the events of the log",
            query.SchemaRequest,
            Schema,
            '{"endpoint":"submit"}',
        ),
    )
}


def schema_of(endpoint: str) -> Schema:
    """What the endpoint `schema` answers. Raises NotFound naming the endpoints."""
    if not endpoint:
        return {"endpoints": {name: _page(one) for name, one in ENDPOINTS.items()}, "events": event_schemas()}
    if endpoint not in ENDPOINTS:
        raise NotFound(f"no endpoint {endpoint!r}", f"there are: {', '.join(ENDPOINTS)}")
    return _page(ENDPOINTS[endpoint])


def _page(endpoint: Endpoint) -> Schema:
    return {
        "subject": endpoint.subject,
        "summary": endpoint.summary,
        "request": msgspec.json.schema(endpoint.request),
        "answer": msgspec.json.schema(endpoint.answer),
        "example": msgspec.json.decode(endpoint.example),
    }


def _bare(schema: Any, named: bool = False) -> Any:
    """A schema without titles and prose; below `properties` and `$defs` the keys are names, not keywords."""
    if isinstance(schema, list):
        return [_bare(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _bare(value, named=not named and key in ("properties", "$defs"))
        for key, value in schema.items()
        if named or key not in ("title", "description")
    }


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
