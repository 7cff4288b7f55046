"""Jobs in files, row by row: NDJSON or CSV, each row with its line number and its own fate.

Uploads and `submit -f` read them alike. Memory is bounded: rows are read as they are submitted.
"""

from __future__ import annotations

import asyncio
import codecs
import csv
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from typing import IO, Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from eventsched.errors import InvalidSpec, UsageError
from eventsched.forms import BadForm
from eventsched.spec import Problem

READ_BYTES = 256 * 1024
LINE_MAX = 256 * 1024
ROWS_AT_ONCE = 250
"""Few enough that others wait for some milliseconds only while they are read."""
AHEAD = 8
NUMBERS = ("gpus", "gpu_count", "priority", "submitted_at", "max_runtime", "timeout_s")
DECIMALS = ("cpu_cores", "memory_gb")
COLUMNS = ("job_id", "tenant_id", "gpu_type", "docker_image", *NUMBERS, *DECIMALS)
CSV_HEADER = ("job_id", "tenant_id", "gpu_type", "gpus", "priority", "submitted_at")

WRITE_UTF8 = "write it again as UTF-8"

RowFormat = Literal["ndjson", "csv"]
Fate = TypeVar("Fate")


class Row(Struct):
    """A row: the line it begins on, and the job in it, or what is wrong with it."""

    line: int
    body: Any = None
    wrong: InvalidSpec | None = None


class BadFile(UsageError):
    """A file that cannot be read as a whole; nothing of it was submitted."""

    def __init__(self, message: str, code: str = "BAD_FORMAT", hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


class Encoding:
    """Looks at the bytes of a file as they come: they must be UTF-8."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def check(self, chunk: bytes, final: bool = False) -> None:
        """Raises BadFile at the first byte that is not."""
        try:
            self._decoder.decode(chunk, final)
        except UnicodeDecodeError as error:
            raise BadFile("the file is not UTF-8; nothing of it was submitted", "BAD_ENCODING", WRITE_UTF8) from error


async def in_turn(
    rows: Iterator[Row], submit: Callable[[list[Row]], Awaitable[list[Fate]]]
) -> AsyncIterator[tuple[list[Row], list[Fate]]]:
    """Rows and their fates, some at a time and in order; while some are written, the next ones are read."""
    under_way: deque[tuple[list[Row], asyncio.Future[list[Fate]]]] = deque()
    try:
        while True:
            chunk = list(islice(rows, ROWS_AT_ONCE))
            if chunk:
                under_way.append((chunk, asyncio.ensure_future(submit(chunk))))
            elif not under_way:
                return
            if len(under_way) > AHEAD or not chunk:
                told, task = under_way.popleft()
                yield told, await task
            else:
                await asyncio.sleep(0)
    finally:
        for _, task in under_way:
            task.cancel()


# ---- reading ------------------------------------------------------------------------------------


def read_rows(file: IO[bytes], fmt: RowFormat) -> Iterator[Row]:
    """The rows of a file that is UTF-8. Raises BadFile when its header is wrong."""
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
        raise BadFile(f"{what}; {wanted}")
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
