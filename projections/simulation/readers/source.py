"""What every reader stands on: a file's text (gz or not), and faults that name file, place and field."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from eventsched.errors import InvalidSpec
from eventsched.ids import ID_RULE, is_id
from eventsched.projections.simulation.workload import SimJob, SimNode, widest
from eventsched.spec import GANG_MAX, problems

HEAD_CHARS = 8_192
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
SECONDS_MAX = 3_650 * 86_400
Found = TypeVar("Found")
Item = TypeVar("Item")


class BadField(Exception):
    """A value that cannot be used: which field, and what is wrong with it."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}")
        self.field = field
        self.text = text


class Source:
    """A file being read. skip: faulty rows are left out and noted, instead of ending the reading.

    nodes: where the jobs are going to run. beside: a second file some formats need.
    """

    def __init__(
        self, path: Path, *, skip: bool = False, nodes: list[SimNode] | None = None, beside: Path | None = None
    ) -> None:
        self.path = path
        self.skip = skip
        self.nodes = nodes or []
        self.beside = beside
        self.notes: list[str] = []
        self.skipped = 0
        self.text = read_text(path)
        self.name = path.name.removesuffix(".gz")

    @property
    def head(self) -> str:
        """The beginning, to tell formats apart."""
        return self.text[:HEAD_CHARS]

    def bad(self, place: str, field: str, text: str) -> None:
        """A row that cannot be used. Raises InvalidSpec, or notes it and goes on."""
        message = f"{self.path}, {place}, {field}: {text}" if field else f"{self.path}, {place}: {text}"
        if not self.skip:
            raise InvalidSpec(message, "mend the file, or give --skip-bad-rows to go on without such rows")
        self.skipped += 1
        self.notes.append("left out: " + message)

    def fatal(self, text: str, hint: str) -> InvalidSpec:
        """An error that no skipping helps against."""
        return InvalidSpec(f"{self.path}: {text}", hint)

    def each(self, items: Iterable[tuple[str, Item]], make: Callable[[Item], Found]) -> Iterator[Found]:
        """What `make` makes of each item; faults are reported at the item's place."""
        for place, item in items:
            try:
                yield make(item)
            except BadField as fault:
                self.bad(place, fault.field, fault.text)

    def lines(self) -> Iterator[tuple[str, str]]:
        """Lines that are not empty, each with its place.

        A line ends with a line feed and nothing else: U+2028 and its like may stand within a JSON text.
        """
        for number, line in enumerate(self.text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", line.removesuffix("\r")

    def table(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[tuple[str, Row]]:
        """The rows of a CSV with a header; unknown and missing columns are faults of line 1."""
        reader = csv.reader(io.StringIO(self.text))
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in required if name not in header]
        if missing:
            raise self.fatal(f"line 1: no column {missing[0]!r}", f"needed: {', '.join(required)}")
        for name in header:
            if name not in required and name not in optional:
                self.bad("line 1", name, f"unknown column; known: {', '.join((*required, *optional))}")
        try:
            for values in reader:
                place = f"line {reader.line_num}"
                if not values:
                    continue
                if len(values) != len(header):
                    self.bad(place, "", f"{len(values)} values for {len(header)} columns")
                    continue
                yield place, Row(dict(zip(header, values, strict=True)))
        except csv.Error as error:
            raise self.fatal(f"line {reader.line_num}: {error}", "is it a CSV file?") from None

    def tabbed(self, columns: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
        """The rows of a file without a header whose columns are separated by tabs."""
        for place, line in self.lines():
            values = line.split("\t")
            if len(values) != len(columns):
                self.bad(place, "", f"{len(values)} values; this format has {len(columns)}: {', '.join(columns)}")
                continue
            yield place, Row(dict(zip(columns, values, strict=True)))

    def json(self) -> Any:
        """The whole file as JSON."""
        try:
            return msgspec.json.decode(self.text)
        except (ValueError, RecursionError) as error:
            raise self.fatal(f"no JSON: {error}", "is it the right file?") from None

    def gang(self, gpus: int, field: str) -> tuple[int, int]:
        """(members, GPUs of each) for a job that spans nodes: as few equal parts as the nodes allow."""
        per_node = max(1, widest(self.nodes))
        members = next(count for count in range(1, gpus + 1) if gpus % count == 0 and gpus // count <= per_node)
        if members > GANG_MAX:
            raise BadField(field, f"{gpus} GPUs would be a gang of {members} on nodes of {per_node}; most: {GANG_MAX}")
        return members, gpus // members


class Row:
    """One row, its values by column; every look-up names the column if it fails."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) not in (None, "")

    def get(self, name: str) -> Any:
        """The value as it stands; None when absent."""
        return self._values.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        """A text; `default` when absent or empty."""
        value = self._values.get(name)
        if value is None or value == "":
            if default is None:
                raise BadField(name, "is missing")
            return default
        return str(value).strip()

    def ident(self, name: str, default: str | None = None) -> str:
        """An id."""
        text = self.text(name, default)
        if not is_id(text):
            raise BadField(name, f"{text[:80]!r} is not an id ({ID_RULE})")
        return text

    def number(self, name: str, low: float = 0, high: float = 2**53, default: float | None = None) -> float:
        """A number within bounds."""
        value = self._values.get(name)
        if value is None or value == "":
            if default is None:
                raise BadField(name, "is missing")
            return default
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # nan
            raise BadField(name, f"{str(value)[:80]!r} is not a number")
        if not low <= value <= high:
            shown = f"{value:g}" if isinstance(value, float) else str(value)[:80]
            raise BadField(name, f"{shown} is not between {low:g} and {high:g}")
        return value

    def integer(self, name: str, low: int = 0, high: int = 2**53, default: int | None = None) -> int:
        """A whole number within bounds."""
        value = self.number(name, low, high, default)
        if value != int(value):
            raise BadField(name, f"{value:g} is not a whole number")
        return int(value)

    def boolean(self, name: str) -> bool:
        """True or false; false when absent."""
        value = self._values.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise BadField(name, f"{str(value)[:80]!r} is neither true nor false")
        return value

    def seconds_ms(self, name: str, default: float | None = None) -> int:
        """A time in seconds, as milliseconds."""
        return round(self.number(name, 0, SECONDS_MAX, default) * 1000)

    def known(self, names: Iterable[str]) -> None:
        """Refuse fields that are none of these."""
        allowed = tuple(names)
        for name in self._values:
            if name not in allowed:
                raise BadField(name, f"unknown field; known: {', '.join(allowed)}")


def read_text(path: Path) -> str:
    """A file's text, unpacked if it is gz. Raises InvalidSpec."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidSpec(f"{path} cannot be read: {error.strerror or error}", "is the name right?") from None
    except (EOFError, zlib.error) as error:
        raise InvalidSpec(f"{path} cannot be unpacked: {error}", "is it damaged?") from None
    except UnicodeDecodeError:
        raise InvalidSpec(
            f"{path} is no text in UTF-8", "workloads are CSV, JSON or plain text, or these in gz"
        ) from None


def checked(job: SimJob) -> SimJob:
    """The job, if its values are possible; raises BadField."""
    for name, value in (("tenant", job.tenant), ("job_id", job.job_id)):
        if not is_id(value):
            raise BadField(name, f"{value[:80]!r} is not an id ({ID_RULE})")
    found = problems(job.spec)
    if found:
        raise BadField(found[0].field or "job", found[0].detail)
    return job


def from_zero(jobs: list[SimJob]) -> list[SimJob]:
    """The same jobs with the first submission at 0: for formats that give dates."""
    first = min((job.submit_ms for job in jobs), default=0)
    return [msgspec.structs.replace(job, submit_ms=job.submit_ms - first) for job in jobs]
