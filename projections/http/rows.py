"""Uploads of jobs, row by row: NDJSON or CSV, each row with its line number.

An upload is kept on disk before anything is submitted: so a broken encoding, a cut connection or a
missing header costs the whole of it and leaves nothing half done; and memory is bounded.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import AsyncIterator, Iterator
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Literal

import msgspec
from msgspec import Struct
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from eventsched.errors import InvalidSpec
from eventsched.forms import BadForm
from eventsched.projections.http.desk import Asked
from eventsched.projections.http.errors import ApiError
from eventsched.spec import Problem

IN_MEMORY = 1024 * 1024
READ_BYTES = 256 * 1024
LINE_MAX = 256 * 1024
PARTS_MAX = 100
NUMBERS = ("gpus", "gpu_count", "priority", "submitted_at", "max_runtime", "timeout_s")
DECIMALS = ("cpu_cores", "memory_gb")
COLUMNS = ("job_id", "tenant_id", "gpu_type", "docker_image", *NUMBERS, *DECIMALS)
CSV_HEADER = ("job_id", "tenant_id", "gpu_type", "gpus", "priority", "submitted_at")

RowFormat = Literal["ndjson", "csv"]


class Row(Struct):
    """A row: the line it begins on, and the job in it, or what is wrong with it."""

    line: int
    body: Any = None
    wrong: InvalidSpec | None = None


def _bad_format(message: str) -> ApiError:
    return ApiError(400, "BAD_FORMAT", message)


# ---- receiving ----------------------------------------------------------------------------------


async def receive(request: Asked, limit: int) -> IO[bytes]:
    """The upload as a file at its start: the multipart field `file`, or the body itself. Raises ApiError."""
    kept: IO[bytes] = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 (it outlives this function)
    try:
        check = codecs.getincrementaldecoder("utf-8")()
        async for chunk in _content(request, _limited(request, limit)):
            check.decode(chunk)
            kept.write(chunk)
        check.decode(b"", final=True)
    except UnicodeDecodeError as error:
        kept.close()
        raise ApiError(400, "BAD_ENCODING", "the upload is not UTF-8; nothing of it was submitted") from error
    except BaseException:
        kept.close()
        raise
    kept.seek(0)
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
        raise _bad_format(f"the form is no multipart/form-data: {error}") from error
    if not found:
        raise _bad_format("the multipart field `file` is missing, or is no file")


# ---- reading ------------------------------------------------------------------------------------


def read_rows(file: IO[bytes], fmt: RowFormat) -> Iterator[Row]:
    """The rows of an upload. Raises ApiError when its header is wrong."""
    lines = _lines(file)
    if fmt == "ndjson":
        return _ndjson(lines)
    header = next(_records(lines), None)
    return _csv(lines, _columns(header))


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(number, line) without ends of lines; of a line that is too long only the beginning."""
    number = 0
    while line := file.readline(LINE_MAX + 1):
        number += 1
        yield number, line.rstrip(b"\r\n").removeprefix(codecs.BOM_UTF8 if number == 1 else b"")
        while len(line) > LINE_MAX and not line.endswith(b"\n"):
            line = file.readline(LINE_MAX + 1)
            if not line:
                return


def _ndjson(lines: Iterator[tuple[int, bytes]]) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        if len(line) > LINE_MAX:
            yield Row(number, wrong=_wrong("too_large", "", f"the line is longer than {LINE_MAX} bytes"))
            continue
        try:
            yield Row(number, msgspec.json.decode(line))
        except (msgspec.DecodeError, RecursionError) as error:
            yield Row(number, wrong=_wrong("wrong_type", "", f"is not JSON: {error}"))


csv.field_size_limit(LINE_MAX)
Record = tuple[int, list[str] | BadForm]
"""The line it begins on, and its fields, or what is wrong with it."""


def _records(lines: Iterator[tuple[int, bytes]]) -> Iterator[Record]:
    """Each CSV record; a quoted field may hold ends of lines."""
    held: list[str] = []
    began = size = quotes = 0
    for number, line in lines:
        began = began if held else number
        held.append(line.decode(errors="replace"))
        size += len(line) + 1
        quotes += held[-1].count('"')
        if quotes % 2 and size <= LINE_MAX:
            continue
        if any(held):
            yield began, _fields(held, size)
        held, size, quotes = [], 0, 0
    if held:
        yield began, _fields(held, size)


def _fields(lines: list[str], size: int) -> list[str] | BadForm:
    if size > LINE_MAX:
        return _wrong("too_large", "", f"the row is longer than {LINE_MAX} bytes, or a quote in it is never closed")
    try:
        return next(csv.reader(["\n".join(lines)]), [])
    except csv.Error as error:
        return _wrong("wrong_type", "", f"is not CSV: {str(error).partition(' - ')[0]}")


def _columns(header: Record | None) -> list[str]:
    names = [name.strip() for name in header[1]] if header and isinstance(header[1], list) else []
    wanted = f"a CSV begins with its header, e.g. {','.join(CSV_HEADER)}"
    unknown = [name for name in names if name not in COLUMNS]
    if not names or unknown or len(dict.fromkeys(names)) < len(names):
        what = f"column {unknown[0][:40]!r} is none of {', '.join(COLUMNS)}" if unknown else "the header is missing"
        raise _bad_format(f"{what}; {wanted}")
    return names


def _csv(lines: Iterator[tuple[int, bytes]], columns: list[str]) -> Iterator[Row]:
    for number, fields in _records(lines):
        if isinstance(fields, BadForm):
            yield Row(number, wrong=fields)
            continue
        if len(fields) != len(columns):
            yield Row(number, wrong=_wrong("wrong_type", "", f"{len(fields)} fields; the header has {len(columns)}"))
            continue
        body: dict[str, Any] = {}
        try:
            for name, text in zip(columns, fields, strict=True):
                if text.strip():
                    body[name] = _value(name, text.strip())
        except BadForm as error:
            yield Row(number, body, error)
        else:
            yield Row(number, body)


def _value(name: str, text: str) -> Any:
    kind = int if name in NUMBERS else float if name in DECIMALS else str
    try:
        return kind(text) if len(text) <= 20 or kind is str else kind("")
    except ValueError:
        raise _wrong("wrong_type", name, f"{text[:40]!r} is no number") from None


def _wrong(code: str, field: str, detail: str) -> BadForm:
    return BadForm([Problem(code, field, detail)])
