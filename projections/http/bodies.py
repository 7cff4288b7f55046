"""Bodies, in and out: read within limits, written as bytes, and described for the documentation.

Bodies are decoded here, not by the framework: it would decode, convert and validate them once more,
and its errors could not name the field.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec
from litestar import Response, get, post, put
from litestar.datastructures import ResponseHeader
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example, OpenAPIMediaType, Operation, Reference, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType

from eventsched.forms import problem_of
from eventsched.projections.http.desk import Asked
from eventsched.projections.http.errors import ApiError, Detail, ErrorBody

JSON = "application/json"
DEPTH_HINT = "nested too deeply"
SEQ_HEADER = "Eventsched-Seq"

T = TypeVar("T")
encode = msgspec.json.encode
Answer = Response[bytes]
Route = Callable[[Callable[..., Awaitable[Any]]], HTTPRouteHandler]


async def read_json(request: Asked, kind: type[T], *, empty: bytes = b"") -> T:
    """The body as JSON of a kind. empty: stands for a body of nothing. Raises ApiError naming the place."""
    body = await request.body() or empty
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        found = problem_of(error)
        detail = Detail(found.field, found.code, found.detail)
        raise ApiError(422, "VALIDATION_ERROR", str(found), [detail]) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if not _is_utf8(body):
            raise ApiError(400, "BAD_ENCODING", "the body is not UTF-8") from error
        raise ApiError(400, "BAD_FORMAT", f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise ApiError(400, "BAD_FORMAT", f"the body is {DEPTH_HINT}") from error


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def joined(*parts: Any) -> bytes:
    """Structs and dicts as one JSON object."""
    texts = (encode(part) for part in parts)
    return b"{" + b",".join(text[1:-1] for text in texts if len(text) > 2) + b"}"


def answer(content: bytes, status: int = 200, seq: int = 0, headers: dict[str, str] | None = None) -> Answer:
    """An answer of JSON. seq: the sequence it is about, or was written at."""
    named = dict(headers or {})
    if seq:
        named[SEQ_HEADER] = str(seq)
    return Response(content, status_code=status, headers=named, media_type=JSON)


# ---- documentation ------------------------------------------------------------------------------

_TEXTS = {
    400: "It cannot be read, or does not fit the present state",
    401: "The token is missing or not known",
    403: "The token's role or tenant may not do this",
    404: "There is none of that name",
    408: "The body did not arrive in time",
    409: "It contradicts what is stored",
    413: "The body is too large",
    422: "A field is wrong; `details` names it",
    429: "Too much is pending; try again after `Retry-After` seconds",
    500: "A defect of the service",
    501: "Reserved",
    503: "Not ready yet, or the log cannot be reached",
    504: "It did not happen in time",
}
READS = (400, 401, 403, 404, 409, 422, 500, 501, 503, 504)
WRITES = (*READS, 408, 413, 429)


def _spec(status: int) -> ResponseSpec:
    example = Example(value={"error": {"code": "SOME_CODE", "message": "In words", "details": []}})
    return ResponseSpec(ErrorBody, description=_TEXTS[status], examples=[example], generate_examples=False)


def _documented(decorator: Any, statuses: tuple[int, ...], kind: Any, path: str, **more: Any) -> Route:
    status = more.setdefault("status_code", 200)
    described = ResponseSpec(kind, description="As asked", media_type=more.pop("media", JSON), generate_examples=False)
    takes: RequestBody | None = more.pop("takes", None)
    if takes is not None:
        more["operation_class"] = _operation(takes)
    headers = [ResponseHeader(name=SEQ_HEADER, value=None, description="a sequence", documentation_only=True)]
    responses = {status: described, **{one: _spec(one) for one in statuses}}
    route: Route = decorator(path, responses=responses, response_headers=headers, **more)
    return route


def reads(path: str, kind: Any = dict[str, Any], **more: Any) -> Route:
    """A GET route that answers a `kind`, with its errors documented."""
    return _documented(get, READS, kind, path, **more)


def writes(path: str, kind: Any = dict[str, Any], **more: Any) -> Route:
    """A POST route that answers a `kind`, with its errors documented. takes: its body."""
    return _documented(post, WRITES, kind, path, **more)


def sets(path: str, kind: Any = dict[str, Any], **more: Any) -> Route:
    """A PUT route, likewise."""
    return _documented(put, WRITES, kind, path, **more)


def _operation(body: RequestBody) -> type[Operation]:
    @dataclass
    class Described(Operation):
        def __post_init__(self) -> None:
            self.request_body = body

    return Described


def body_of(schema: Schema, *, required: bool = True, media: str = JSON, **examples: Any) -> RequestBody:
    """A request's body for the documentation, with examples by name."""
    shown: dict[str, Example | Reference] = {
        name: Example(value=value, summary=name.replace("_", " ")) for name, value in examples.items()
    }
    return RequestBody(content={media: OpenAPIMediaType(schema=schema, examples=shown or None)}, required=required)


OBJECT = partial(Schema, type=OpenAPIType.OBJECT)
