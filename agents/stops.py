"""Why runs were stopped, on disk: written before the first signal, so that whoever comes next knows it.

An agent may die between a stop and the report of its end. Without this its successor would find a
run that ended by a signal, and call that the job's own failure. One line a stop; the first reason of
a run counts. What the leash has stopped stands in a file of its own (`lease.FENCED_DIRECTORY`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import structlog

_log = structlog.get_logger("eventsched.agent")

STOPS_FILE = "stops"
REWRITE_LINES = 1_000
FENCED = "fenced"
"""The reason of runs that the agent itself stops for want of a session: their end is not their own."""


class StopReasons:
    """The file, and what stands in it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / STOPS_FILE
        self._reasons, self._lines = _read(self._path)
        self._unwritten: list[str] = []
        self._writing = asyncio.Lock()

    def get(self, run: int) -> str:
        """Why a run was stopped; "" = it was not."""
        return self._reasons.get(run, "")

    def forget(self, run: int) -> None:
        """Its end is reported."""
        self._reasons.pop(run, None)

    def keep_only(self, runs: Iterable[int]) -> None:
        """Forget all but these: there are no others any more."""
        self._reasons = {run: self._reasons[run] for run in runs if run in self._reasons}

    async def note(self, run: int, reason: str) -> None:
        """Write down why a run is about to be stopped; many at once are one write."""
        if run in self._reasons:
            return
        self._reasons[run] = reason
        self._unwritten.append(_line(run, reason))
        async with self._writing:
            lines, self._unwritten = self._unwritten, []
            if lines:
                await self._write(lines)

    async def _write(self, lines: list[str]) -> None:
        anew = self._lines > REWRITE_LINES + 2 * len(self._reasons)
        if anew:
            lines = [_line(run, reason) for run, reason in self._reasons.items()]
        try:
            await asyncio.to_thread(_replace if anew else _append, self._path, "".join(lines))
        except OSError as error:  # a full disk must not keep anything running
            _log.warning("stop_reason_not_written", path=str(self._path), error=str(error))
        self._lines = len(lines) + (0 if anew else self._lines)


def _line(run: int, reason: str) -> str:
    return f"\n{run} {reason}"  # the line before may be torn


def _read(path: Path) -> tuple[dict[int, str], int]:
    found: dict[int, str] = {}
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = path.read_text().splitlines()
    for line in lines:
        run, _, reason = line.partition(" ")
        if run.isdigit() and reason:
            found.setdefault(int(run), reason)
    return found, len(lines)


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    _append(fresh, text)
    os.replace(fresh, path)
