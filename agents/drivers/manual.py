"""The manual driver: a run that takes its resources and ends when somebody says so.

For work that happens elsewhere, and for clusters driven by hand. A run is a small file, so that
it outlives the agent.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec

from eventsched.agents.drivers.base import Chunk, Place, Progress, StartFailed, exited
from eventsched.agents.effects import Ended, KnownRun, Launch
from eventsched.heartbeat import RunUsage


class _Record(msgspec.Struct):
    launch: Launch
    started_s: int
    ended: Ended | None = None


class ManualDriver:
    """See `Driver`."""

    name = "manual"
    keeps_ended = False

    def __init__(self, place: Place) -> None:
        self._directory = place.directory / "manual"
        self._over: dict[int, asyncio.Event] = {}

    async def open(self) -> None:
        """See `Driver.open`."""
        self._directory.mkdir(parents=True, exist_ok=True)

    async def close(self) -> None:
        """See `Driver.close`."""

    def _path(self, run: int) -> Path:
        return self._directory / f"{run}.json"

    def _read(self, run: int) -> _Record | None:
        try:
            return msgspec.json.decode(self._path(run).read_bytes(), type=_Record)
        except (OSError, msgspec.MsgspecError):
            return None

    def _write(self, run: int, record: _Record) -> None:
        temporary = self._path(run).with_suffix(".new")
        temporary.unlink(missing_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(record))  # the job's environment stands in it
        os.replace(temporary, self._path(run))

    async def inventory(self) -> list[KnownRun]:
        """See `Driver.inventory`."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            record = self._read(int(path.stem)) if path.stem.isdigit() else None
            if record is not None:
                ran_ms = max(0, int(time.time()) - record.started_s) * 1000
                found.append(KnownRun(record.launch, record.ended, ran_ms))
        return found

    async def start(self, launch: Launch, progress: Progress) -> None:
        """See `Driver.start`."""
        if self._path(launch.run).exists():
            raise StartFailed("engine_error", f"run {launch.run} exists already")
        self._write(launch.run, _Record(launch, int(time.time())))

    async def wait(self, run: int) -> Ended:
        """See `Driver.wait`."""
        while True:
            record = self._read(run)
            if record is None:
                return Ended("lost", None, "engine_lost")
            if record.ended is not None:
                return record.ended
            await self._over.setdefault(run, asyncio.Event()).wait()

    def over(self, run: int) -> Ended | None:
        """See `Driver.over`."""
        return None

    def _end(self, run: int, ended: Ended) -> None:
        record = self._read(run)
        if record is not None and record.ended is None:
            record.ended = ended
            self._write(run, record)
        self._over.setdefault(run, asyncio.Event()).set()

    async def stop(self, run: int, grace_ms: int) -> None:
        """See `Driver.stop`."""
        self._end(run, Ended("stopped"))

    async def leave(self) -> None:
        """See `Driver.leave`."""

    async def finish(self, run: int, exit_code: int) -> None:
        """See `Driver.finish`."""
        self._end(run, exited(exit_code))

    async def output(self, run: int, skip: int) -> AsyncIterator[Chunk]:
        """See `Driver.output`: there is none."""
        await self.wait(run)
        if False:  # an async generator that yields nothing
            yield "stdout", b""

    async def has_output(self, run: int) -> bool:
        """See `Driver.has_output`."""
        return False

    async def remove(self, run: int) -> None:
        """See `Driver.remove`."""
        self._path(run).unlink(missing_ok=True)
        self._over.pop(run, None)

    async def usage(self, runs: Iterable[int]) -> dict[int, RunUsage]:
        """See `Driver.usage`: nothing is known."""
        return {}
