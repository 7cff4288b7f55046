"""Ingest: many jobs from a file, each row with its own fate, told as it is known."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Any

from litestar.openapi.spec import OpenAPIMediaType, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.params import QueryParameter
from litestar.response import Stream

from eventsched.errors import EventschedError
from eventsched.projections.http.auth import Caller
from eventsched.projections.http.bodies import JSON, OBJECT, body_of, encode, writes
from eventsched.projections.http.desk import Asked, Desk, come_in
from eventsched.projections.http.errors import ApiError
from eventsched.projections.http.routes.jobs import TAGS, rejected_body, submit_bodies, submitted_body
from eventsched.projections.http.uploads import IN_MEMORY, receive
from eventsched.rows import READ_BYTES, BadFile, Row, in_turn, read_rows

_BINARY = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
TAKES = body_of(OBJECT(properties={"file": _BINARY}, required=["file"]), media="multipart/form-data")
TAKES.content |= {
    "application/x-ndjson": OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING)),
    "text/csv": OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING)),
}


@writes("/ingest", summary="Submit the jobs of a file", tags=TAGS, takes=TAKES, request_max_body_size=None)
async def ingest(request: Asked, fmt: Annotated[str, QueryParameter(description="ndjson or csv")] = "ndjson") -> Stream:
    """NDJSON or CSV, as multipart field `file` or as the body itself. Partial success, with line numbers.

    A row is told as accepted only once it is durable, and the answer is sent as it grows: whatever
    part of it arrives is true.
    """
    desk, caller = come_in(request)
    caller.require("submitter")
    if fmt not in ("ndjson", "csv"):
        raise ApiError(400, "BAD_FORMAT", f"fmt: {fmt[:40]!r} is neither ndjson nor csv")
    desk.check_ready()
    desk.check_pressure()
    file = await receive(request, desk.limits.upload_bytes)
    try:
        rows = read_rows(file, "csv" if fmt == "csv" else "ndjson")
    except BadFile:
        file.close()
        raise
    return Stream(_answer(desk, caller, file, rows), media_type=JSON)


async def _answer(desk: Desk, caller: Caller, file: IO[bytes], rows: Iterator[Row]) -> AsyncIterator[bytes]:
    """`{"accepted": [...], "rejected": [...]}`; what was rejected waits on disk for its turn."""
    with file, SpooledTemporaryFile(IN_MEMORY) as refused:
        counts = {"accepted_count": 0, "rejected_count": 0}
        yield b'{"accepted":['
        async for chunk, fates in in_turn(rows, partial(_submit, desk, caller)):
            accepted: list[bytes] = []
            for row, fate in zip(chunk, fates, strict=True):
                if isinstance(fate, tuple):
                    accepted.append(encode({"line": row.line, **submitted_body(*fate)}))
                    continue
                refused.write(b"," if counts["rejected_count"] else b"")
                refused.write(encode({"line": row.line, **rejected_body(fate, row.body)}))
                counts["rejected_count"] += 1
            if accepted:
                yield (b"," if counts["accepted_count"] else b"") + b",".join(accepted)
            counts["accepted_count"] += len(accepted)
        yield b'],"rejected":['
        refused.seek(0)
        while part := refused.read(READ_BYTES):
            yield part
        yield b"]," + encode(counts)[1:]


async def _submit(desk: Desk, caller: Caller, rows: list[Row]) -> list[Any]:
    """The fate of each row, in order; once the answer has begun, an error is the rows' fate."""
    whole = [row.body for row in rows if row.wrong is None]
    try:
        fates = iter(await submit_bodies(desk, caller, whole))
    except (EventschedError, ApiError) as error:
        return [row.wrong or error for row in rows]
    return [row.wrong or next(fates) for row in rows]


ROUTES = [ingest]
