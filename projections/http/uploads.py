"""Uploads of jobs, kept on disk before anything of them is submitted.

So a broken encoding, a cut connection or a missing header costs the whole of an upload and leaves
nothing half done; and memory is bounded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from tempfile import SpooledTemporaryFile
from typing import IO

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from eventsched.projections.http.desk import Asked
from eventsched.projections.http.errors import ApiError
from eventsched.rows import BadFile, Encoding

IN_MEMORY = 1024 * 1024
PARTS_MAX = 100


async def receive(request: Asked, limit: int) -> IO[bytes]:
    """The upload as a file at its start: the multipart field `file`, or the body itself. Raises ApiError, BadFile."""
    with ExitStack() as stack:
        kept: IO[bytes] = stack.enter_context(SpooledTemporaryFile(IN_MEMORY))
        encoding = Encoding()
        async for chunk in _content(request, _limited(request, limit)):
            encoding.check(chunk)
            kept.write(chunk)
        encoding.check(b"", final=True)
        kept.seek(0)
        stack.pop_all()  # it is the caller's now
        return kept


async def _limited(request: Asked, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise ApiError(413, "PAYLOAD_TOO_LARGE", f"the upload is larger than {limit} bytes")
        yield chunk


async def _content(request: Asked, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What is to be kept of a body: all of it, or of a form the field `file`."""
    kind, options = request.content_type
    if kind != "multipart/form-data":
        async for chunk in chunks:
            yield chunk
        return
    found = wanted = False
    try:
        with PushMultipartParser(options.get("boundary", ""), max_segment_count=PARTS_MAX) as parser:
            async for chunk in chunks:
                for part in parser.parse(chunk) if chunk and not parser.closed else ():
                    if isinstance(part, MultipartSegment):
                        wanted = part.name == "file" and bool(part.filename)
                        found = found or wanted
                    elif part and wanted:
                        yield bytes(part)
    except MultipartError as error:
        raise BadFile(f"the form is no multipart/form-data: {error}") from error
    if not found:
        raise BadFile("the multipart field `file` is missing, or is no file")
