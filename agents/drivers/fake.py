"""The fake driver: runs that only take time, for benches, simulation and trying things out.

Same core, same subjects, same reports as real ones. The `FakeEngine` stands for the machine: it
lives on when the agent in front of it dies, if the caller keeps it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from eventsched.agents.drivers.base import Chunk, Progress, StartFailed, exited
from eventsched.agents.effects import Ended, KnownRun, Launch
from eventsched.heartbeat import RunUsage
from eventsched.spec import FakeRun


class _FakeRun:
    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.started = asyncio.get_running_loop().time()
        self.over: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None


class FakeEngine:
    """The runs of one imagined machine."""

    def __init__(self) -> None:
        self.runs: dict[int, _FakeRun] = {}


def fake_end(launch: Launch) -> Ended:
    """How this attempt is to end, by its spec."""
    fake = launch.spec.fake or FakeRun()
    fails = not fake.fail_attempts or launch.attempt <= fake.fail_attempts
    if fake.fail == "oom" and fails:
        return Ended("oom", 137, "out_of_memory", "as asked for")
    return exited(fake.exit_code if fails else 0)


class FakeDriver:
    """See `Driver`."""

    name = "fake"
    keeps_ended = False

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.engine = engine or FakeEngine()

    async def open(self) -> None:
        """See `Driver.open`."""

    async def close(self) -> None:
        """See `Driver.close`."""

    async def inventory(self) -> list[KnownRun]:
        """See `Driver.inventory`."""
        now = asyncio.get_running_loop().time()
        return [
            KnownRun(one.launch, one.over.result() if one.over.done() else None, int((now - one.started) * 1000))
            for one in self.engine.runs.values()
        ]

    async def start(self, launch: Launch, progress: Progress) -> None:
        """See `Driver.start`."""
        if launch.run in self.engine.runs:
            raise StartFailed("engine_error", f"run {launch.run} exists already")
        fake = launch.spec.fake or FakeRun()
        if fake.fail == "start" and (not fake.fail_attempts or launch.attempt <= fake.fail_attempts):
            raise StartFailed("engine_error", "as asked for")
        run = _FakeRun(launch)
        self.engine.runs[launch.run] = run
        if fake.duration_ms:
            loop = asyncio.get_running_loop()
            run.timer = loop.call_later(fake.duration_ms / 1000, _end, run, fake_end(launch))
        else:
            _end(run, fake_end(launch))

    async def wait(self, run: int) -> Ended:
        """See `Driver.wait`."""
        known = self.engine.runs.get(run)
        return Ended("lost", None, "engine_lost") if known is None else await asyncio.shield(known.over)

    def over(self, run: int) -> Ended | None:
        """See `Driver.over`."""
        known = self.engine.runs.get(run)
        return known.over.result() if known is not None and known.over.done() else None

    async def stop(self, run: int, grace_ms: int) -> None:
        """See `Driver.stop`."""
        known = self.engine.runs.get(run)
        if known is not None:
            if known.timer is not None:
                known.timer.cancel()
            _end(known, Ended("stopped", 143))

    async def output(self, run: int, skip: int) -> AsyncIterator[Chunk]:
        """See `Driver.output`."""
        known = self.engine.runs.get(run)
        text = known.launch.spec.fake.output.encode() if known is not None and known.launch.spec.fake else b""
        if text[skip:]:
            yield "stdout", text[skip:]
        await self.wait(run)

    async def has_output(self, run: int) -> bool:
        """See `Driver.has_output`."""
        known = self.engine.runs.get(run)
        return known is not None and known.launch.spec.fake is not None and bool(known.launch.spec.fake.output)

    async def remove(self, run: int) -> None:
        """See `Driver.remove`."""
        self.engine.runs.pop(run, None)

    async def usage(self, runs: Iterable[int]) -> dict[int, RunUsage]:
        """See `Driver.usage`: a fake uses what it was given."""
        known = (self.engine.runs[run].launch for run in runs if run in self.engine.runs)
        return {one.run: RunUsage(one.spec.resources.cpu_millis / 10, one.spec.resources.memory_bytes) for one in known}

    async def leave(self) -> None:
        """See `Driver.leave`."""

    async def finish(self, run: int, exit_code: int) -> None:
        """See `Driver.finish`."""


def _end(run: _FakeRun, ended: Ended) -> None:
    if not run.over.done():
        run.over.set_result(ended)
