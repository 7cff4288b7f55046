"""Process runs on disk: the journal that the shim keeps, for whoever comes next.

`runs.journal` has a JSON object a line: what was asked (before anything can run), the pid, the exit
code, and that the run was removed. Output lies in `runs/<run>`. Standard library only: the shim and
the leash read this too.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNS = "runs"
JOURNAL = "runs.journal"
OUTPUT_MAX_BYTES = 16 * 1024 * 1024
"""So much of a run's output is shipped; what comes after that is dropped."""


@dataclass(slots=True)
class RunRecord:
    """What the journal says of a run.

    launch: what the driver keeps with it. born: clock ticks since boot just before and just after it was started.
    over: it has ended, with `code` (128 + n for signal n; None = nobody saw it).
    """

    run: int
    launch: str = ""
    grace_ms: int = 0
    keep: bool = False
    pid: int = 0
    born: tuple[int, int] = (0, 0)
    boot: str = ""
    over: bool = False
    code: int | None = None

    def asked_line(self) -> bytes:
        """The journal's line for what was asked."""
        return line(
            {"run": self.run, "launch": self.launch, "grace_ms": self.grace_ms, "keep": self.keep, "boot": self.boot}
        )

    def pid_line(self) -> bytes:
        """The journal's line for its process."""
        return line({"run": self.run, "pid": self.pid, "born": self.born})

    def over_line(self) -> bytes:
        """The journal's line for its end."""
        return line({"run": self.run, "code": self.code})

    def lines(self) -> bytes:
        """All that is known, as the journal says it."""
        return self.asked_line() + (self.pid_line() if self.pid else b"") + (self.over_line() if self.over else b"")


def line(entry: dict[str, Any]) -> bytes:
    """One line of JSON."""
    return json.dumps(entry).encode() + b"\n"


def read_journal(directory: Path) -> dict[int, RunRecord]:
    """The runs that were started and not removed, in order of their start. A torn last line is left out."""
    records: dict[int, RunRecord] = {}
    try:
        lines = (directory / JOURNAL).read_bytes().splitlines()
    except OSError:
        return records
    for text in lines:
        try:
            entry = json.loads(text)
            run = int(entry["run"])
        except (ValueError, KeyError, TypeError):
            continue
        if "launch" in entry:
            records[run] = RunRecord(run, entry["launch"], entry["grace_ms"], entry["keep"], boot=entry["boot"])
        elif run not in records:
            continue
        elif "pid" in entry:
            records[run].pid, records[run].born = entry["pid"], tuple(entry["born"])
        elif "code" in entry:
            records[run].over, records[run].code = True, entry["code"]
        else:
            del records[run]
    return records


class RunJournal:
    """The journal, for its one writer. What is appended is there as a whole or, after an OSError (a full
    disk), not at all. Private: jobs' environments stand in it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / JOURNAL
        self._file = self._open(self._path)
        known = self._path.read_bytes()
        self.size = len(known)
        self.cut(known.rfind(b"\n") + 1)  # a torn line

    @staticmethod
    def _open(path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, data: bytes) -> None:
        """Write lines at the end."""
        try:
            _write_all(self._file, data)
        except OSError:
            self.cut(self.size)
            raise
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Take back what lies behind `size`."""
        os.ftruncate(self._file, size)
        self.size = size

    def replace(self, records: Iterable[RunRecord]) -> None:
        """Write it anew with these records alone; an OSError leaves it as it was."""
        fresh = self._path.with_name(JOURNAL + ".new")
        fresh.unlink(missing_ok=True)
        file = self._open(fresh)
        try:
            data = b"".join(record.lines() for record in records)
            _write_all(file, data)
            fresh.replace(self._path)
        except OSError:
            os.close(file)
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        os.close(self._file)
        self._file, self.size = file, len(data)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
