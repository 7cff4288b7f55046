"""Uploads of jobs, kept on disk before anything of them is submitted.

So a broken encoding, a cut connection or a missing header costs the whole of an upload and leaves
nothing half done; and memory is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from tempfile import SpooledTemporaryFile
from typing import IO

from litestar.datastructures import UploadFile

from eventsched.projections.http.desk import Asked
from eventsched.projections.http.errors import ApiError
from eventsched.rows import READ_BYTES, BadFile, Encoding

IN_MEMORY = 1024 * 1024
CHUNK_TIMEOUT_S = 30.0
"""How long an upload may stand still."""


async def receive(request: Asked, limit: int) -> IO[bytes]:
    """The upload as a file at its start: the multipart field `file`, or the body itself. Raises ApiError, BadFile."""
    kept: IO[bytes] = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 (it outlives this function)
    try:
        encoding = Encoding()
        size = 0
        async for chunk in _chunks(request):
            size += len(chunk)
            if size > limit:
                raise ApiError(413, "PAYLOAD_TOO_LARGE", f"the upload is larger than {limit} bytes")
            encoding.check(chunk)
            kept.write(chunk)
        encoding.check(b"", final=True)
    except BaseException:
        kept.close()
        raise
    kept.seek(0)
    return kept


async def _chunks(request: Asked) -> AsyncIterator[bytes]:
    if request.content_type[0] != "multipart/form-data":
        stream = request.stream()
        while True:
            try:
                async with asyncio.timeout(CHUNK_TIMEOUT_S):
                    yield await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise ApiError(408, "REQUEST_TIMEOUT", f"nothing arrived for {CHUNK_TIMEOUT_S:g} s") from None
    form = await request.form()
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise BadFile("the multipart field `file` is missing, or is no file")
    while chunk := await file.read(READ_BYTES):
        yield chunk
