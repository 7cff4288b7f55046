"""Files of jobs: .ndjson (.jsonl) and .csv, row by row; .json (one or a list) and .toml as a whole; - is stdin."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Literal, NamedTuple

import msgspec

from eventsched.errors import InvalidSpec
from eventsched.forms import BadForm, read_form
from eventsched.rows import READ_BYTES, BadFile, Encoding, Row, read_rows

FileFormat = Literal["json", "toml", "ndjson", "csv"]
WHOLE_MAX = 64 * 1024 * 1024
"""Larger documents are refused: they are held in memory, rows are not."""
KNOWN = "use .ndjson (one job a line), .csv, .json or .toml; --format names what the file's name does not"
_SUFFIXES: dict[str, FileFormat] = {".toml": "toml", ".ndjson": "ndjson", ".jsonl": "ndjson", ".csv": "csv"}


class JobFile(NamedTuple):
    """An open file of jobs. `place` is what a row's number counts; `size` is in bytes."""

    name: str
    rows: Iterator[Row]
    place: Literal["line", "job"]
    data: IO[bytes]
    size: int


@contextmanager
def open_jobs(path: Path, file_format: FileFormat | None = None) -> Iterator[JobFile]:
    """A file of jobs, to be read once. Raises InvalidSpec naming the file when it can't be read as a whole.

    Documents are checked to their end first: one with a fault submits nothing. Of rows, each has its own fate.
    """
    chosen = file_format or _SUFFIXES.get(path.suffix.lower(), "json")
    name = "stdin" if str(path) == "-" else str(path)
    with ExitStack() as stack:
        try:
            data = stack.enter_context(_opened(path))
            size = _checked(data)
            whole = chosen in ("json", "toml")
            rows = iter(_whole(name, data, size, chosen)) if whole else _rows(data, chosen)
        except OSError as error:
            raise InvalidSpec(f"{name} cannot be read: {error.strerror}", "-f names a file, - is stdin") from error
        except BadFile as error:
            raise InvalidSpec(f"{name}: {error.message}", error.hint or KNOWN) from error
        yield JobFile(name, rows, "job" if whole else "line", data, size)


def _opened(path: Path) -> IO[bytes]:
    """The file, at its start; what can be read only once is kept on disk."""
    if str(path) != "-" and path.is_file():
        return path.open("rb")
    with ExitStack() as stack:
        kept = stack.enter_context(TemporaryFile())
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as source:
            while chunk := source.read(READ_BYTES):
                kept.write(chunk)
        kept.seek(0)
        stack.pop_all()  # it is the caller's now
        return kept


def _rows(data: IO[bytes], chosen: FileFormat) -> Iterator[Row]:
    return read_rows(data, "csv" if chosen == "csv" else "ndjson")


def _checked(data: IO[bytes]) -> int:
    """How large it is; BadFile if it is not UTF-8."""
    encoding = Encoding()
    while chunk := data.read(READ_BYTES):
        encoding.check(chunk)
    encoding.check(b"", final=True)
    size = data.tell()
    data.seek(0)
    return size


# ---- documents ----------------------------------------------------------------------------------


def _whole(name: str, data: IO[bytes], size: int, chosen: FileFormat) -> list[Row]:
    if size > WHOLE_MAX:
        raise InvalidSpec(f"{name} is larger than {WHOLE_MAX >> 20} MiB", "write one job a line: .ndjson has no limit")
    found = _parsed(name, data.read(), chosen)
    rows = [Row(number, body) for number, body in enumerate(found if isinstance(found, list) else [found], 1)]
    if not rows:
        raise InvalidSpec(f"{name}: no job in it", KNOWN)
    for row in rows:
        try:
            read_form(row.body)
        except BadForm as error:
            raise InvalidSpec(f"{name}, job {row.line}: {error.message}", "see the fields of JobSpec") from error
    return rows


def _parsed(name: str, data: bytes, chosen: FileFormat) -> Any:
    try:
        if chosen == "toml":
            tables = tomllib.loads(data.decode())
            return tables.get("jobs", [tables])
        return msgspec.json.decode(data)
    except RecursionError:
        raise InvalidSpec(f"{name}: nested too deeply", "a job has few levels: see the fields of JobSpec") from None
    except ValueError as error:  # msgspec, tomllib and decoding raise kinds of ValueError
        raise InvalidSpec(f"{name}: {error}", KNOWN) from error
