"""Rows of a CSV file, gzipped or not: each value asked for by name, each mistake with file, line and field."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path

from eventsched.errors import EventschedError


class BadFile(EventschedError):
    """A file of nodes or jobs cannot be read as it is."""


class Row:
    """One line of a file."""

    def __init__(self, path: Path, line: int, values: Mapping[str, str | None]) -> None:
        self._path, self._line, self._values = path, line, values

    def has(self, field: str) -> bool:
        """True when the line has this column."""
        return self._values.get(field) is not None

    def text(self, field: str) -> str:
        """The value of a column."""
        value = self._values.get(field)
        if value is None:
            raise self.bad(field, "is missing: the line is too short")
        return value.strip()

    def integer(self, field: str, low: int = 0, high: int = 2**53) -> int:
        """The value of a column, as an integer within bounds."""
        text = self.text(field)
        try:
            value = int(text)
        except ValueError:
            raise self.bad(field, f"{text[:40]!r} is no integer") from None
        if not low <= value <= high:
            raise self.bad(field, f"{value} is not between {low} and {high}")
        return value

    def bad(self, field: str, what: str) -> BadFile:
        """The error to raise about a field."""
        return BadFile(f"{self._path}:{self._line}: {field}: {what}", "mend the line, or leave it out")


def read_rows(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[Row]:
    """The lines of a CSV file with a header; BadFile if it cannot be read or columns are missing or unknown."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="") as file
        ):
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            missing = [name for name in required if name not in header]
            unknown = [name for name in header if name not in required + optional]
            if missing or unknown:
                text = f"lacks {', '.join(missing)}" if missing else f"has unknown columns {', '.join(unknown)}"
                raise BadFile(f"{path}:1: the header {text}", f"columns: {', '.join(required + optional)}")
            for values in reader:
                yield Row(path, reader.line_num, values)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadFile(f"{path}: {why}", "give a CSV file in UTF-8, gzipped or not") from None
