"""The process driver: a command as a process group of its own, without a container.

Runs are children of the node's shim (`eventsched.agents.shim`), which writes their exit codes down,
so outcomes survive the agent. When a run's command ends, what is left of its process group is
killed. Limits of cpu and memory are not enforced (see docker for that).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import psutil

from eventsched.agents.drivers.base import Chunk, Place, Progress, StartFailed, exited, run_environment
from eventsched.agents.drivers.shim_client import ShimClient
from eventsched.agents.effects import Ended, KnownRun, Launch
from eventsched.agents.process_runs import (
    CLOCK_TICKS,
    RUNS,
    RunRecord,
    boot_id,
    boot_ticks,
    is_alive,
    read_journal,
    signal_run,
)
from eventsched.heartbeat import RunUsage

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR", "LD_LIBRARY_PATH")
_TAIL_POLL_S = 0.1
_READ_BYTES = 65_536


class ProcessDriver:
    """See `Driver`."""

    name = "process"
    keeps_ended = False

    def __init__(self, place: Place) -> None:
        self._place = place
        self._directory = place.directory
        self._stopping: dict[int, bool] = {}
        self._over: dict[int, asyncio.Future[Ended]] = {}
        self._boot = boot_id()
        self._cpu_seen: dict[int, tuple[float, float]] = {}
        self._shim = ShimClient(place.directory, self._ended, self._broken)
        self._again: asyncio.Task[None] | None = None
        self._programs: dict[tuple[str, str, str], str] = {}

    async def open(self) -> None:
        """See `Driver.open`."""
        (self._directory / RUNS).mkdir(parents=True, exist_ok=True)

    async def close(self) -> None:
        """See `Driver.close`."""
        if self._again is not None:
            self._again.cancel()
        await self._shim.close()

    async def inventory(self) -> list[KnownRun]:
        """See `Driver.inventory`."""
        found = []
        records = read_journal(self._directory)
        if any(not record.over for record in records.values()):
            await self._shim.connect()  # it finds out what became of runs that it did not start itself
            records = read_journal(self._directory)
        for run, record in records.items():
            try:
                launch = msgspec.json.decode(record.launch, type=Launch)
            except msgspec.ValidationError:
                continue
            if record.over:
                found.append(KnownRun(launch, self._verdict(run, record.code)))
            else:
                ran_ms = (boot_ticks() - record.born[0]) * 1000 // CLOCK_TICKS
                found.append(KnownRun(launch, None, max(0, ran_ms)))
        return found

    async def start(self, launch: Launch, progress: Progress) -> None:
        """See `Driver.start`."""
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment.update(run_environment(self._place, launch))
        spec = launch.spec
        path = self._program(spec.command[0], environment, spec.workdir)
        request = {
            "path": path,
            "argv": spec.command,
            "env": environment,
            "cwd": spec.workdir or os.getcwd(),
            "launch": msgspec.json.encode(launch).decode(),
            "grace_ms": spec.stop_grace_ms,
            "keep": spec.on_disconnect == "keep",
        }
        self._over.setdefault(launch.run, asyncio.get_running_loop().create_future())
        try:
            await self._shim.start(launch.run, request)
        except OSError as error:
            if error.errno == errno.EEXIST:
                raise StartFailed("engine_error", f"run {launch.run} exists already") from None
            self._over.pop(launch.run, None)
            self._programs.clear()
            if error.errno == errno.ENOENT:  # it was there a moment ago
                raise StartFailed("command_not_found", f"{path}: not found on this node") from None
            reason = "command_not_executable" if error.errno in (errno.EACCES, errno.ENOEXEC) else "engine_error"
            raise StartFailed(reason, f"{path}: {os.strerror(error.errno or 0)}") from None

    def _program(self, command: str, environment: dict[str, str], workdir: str) -> str:
        """`find_program`, remembered: a start that fails forgets it."""
        key = command, environment.get("PATH", ""), workdir
        if key not in self._programs:
            self._programs[key] = find_program(*key)
        return self._programs[key]

    # ---- ending -----------------------------------------------------------------------------

    def _ended(self, run: int, code: int | None) -> None:
        future = self._over.get(run)
        if future is not None and not future.done():
            future.set_result(self._verdict(run, code))

    def _broken(self) -> None:
        """The shim is gone: a new one finds out what became of what we wait for."""
        if any(not future.done() for future in self._over.values()):
            self._again = asyncio.get_running_loop().create_task(self._look_again())

    async def _look_again(self) -> None:
        await self._shim.connect()
        records = read_journal(self._directory)
        for run in list(self._over):
            record = records.get(run)
            if record is None or record.over:
                self._ended(run, record.code if record else None)

    async def wait(self, run: int) -> Ended:
        """See `Driver.wait`."""
        future = self._over.get(run)
        if future is None:
            future = self._over[run] = asyncio.get_running_loop().create_future()
            await self._look_again()
        return await asyncio.shield(future)

    def over(self, run: int) -> Ended | None:
        """See `Driver.over`."""
        future = self._over.get(run)
        return future.result() if future is not None and future.done() else None

    def _verdict(self, run: int, code: int | None) -> Ended:
        """How an ended run ended, as far as anybody knows."""
        self._cpu_seen.pop(run, None)
        stopped = self._stopping.get(run, False)
        if code is None:
            if stopped:
                return Ended("stopped", 137)
            return Ended("lost", None, "engine_lost", "its shim was killed; nobody saw how it ended")
        return Ended("stopped", code) if stopped else exited(code)

    def _record(self, run: int) -> RunRecord | None:
        return read_journal(self._directory).get(run)

    async def stop(self, run: int, grace_ms: int) -> None:
        """See `Driver.stop`."""
        record = self._record(run)
        before = self._stopping.get(run, False)
        self._stopping[run] = True
        if record is None or not signal_run(record, signal.SIGTERM if grace_ms > 0 else signal.SIGKILL):
            self._stopping[run] = before
            return
        try:
            async with asyncio.timeout(grace_ms / 1000 if grace_ms > 0 else 5):
                await self.wait(run)
        except TimeoutError:
            signal_run(record, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self.wait(run)

    async def output(self, run: int, skip: int) -> AsyncIterator[Chunk]:
        """See `Driver.output`: standard output and error in one file, in the order written."""
        over = asyncio.ensure_future(self.wait(run))
        try:
            with (self._output(run)).open("rb") as file:
                file.seek(skip)
                while True:
                    ended = over.done()
                    while data := file.read(_READ_BYTES):
                        yield "stdout", data
                    if ended:
                        return
                    await asyncio.wait((over,), timeout=_TAIL_POLL_S)
        except OSError:
            return
        finally:
            over.cancel()

    async def has_output(self, run: int) -> bool:
        """See `Driver.has_output`."""
        try:
            return (self._output(run)).stat().st_size > 0
        except OSError:
            return False

    def _output(self, run: int) -> Path:
        return self._directory / RUNS / str(run)

    async def remove(self, run: int) -> None:
        """See `Driver.remove`."""
        self._over.pop(run, None)
        self._stopping.pop(run, None)
        await self._shim.forget(run)

    async def usage(self, runs: Iterable[int]) -> dict[int, RunUsage]:
        """See `Driver.usage`: the whole process group's."""
        found: dict[int, RunUsage] = {}
        records = read_journal(self._directory)
        for run in runs:
            record = records.get(run)
            if record is None or not is_alive(record, self._boot):
                continue
            with contextlib.suppress(psutil.Error):
                leader = psutil.Process(record.pid)
                group = [leader, *leader.children(recursive=True)]
                memory = sum(process.memory_info().rss for process in group)
                busy = sum(sum(process.cpu_times()[:4]) for process in group)
                now = time.monotonic()
                before, busy_before = self._cpu_seen.get(run, (now, busy))
                self._cpu_seen[run] = (now, busy)
                percent = 100 * (busy - busy_before) / (now - before) if now > before else 0.0
                found[run] = RunUsage(round(max(0.0, percent), 1), memory)
        return found

    async def leave(self) -> None:
        """See `Driver.leave`: the shim ends too."""
        await self._shim.close(leave=True)

    async def finish(self, run: int, exit_code: int) -> None:
        """See `Driver.finish`."""


def find_program(command: str, search: str, workdir: str) -> str:
    """The file of a command, found as a shell would. Raises StartFailed."""
    if workdir and not Path(workdir).is_dir():
        raise StartFailed("engine_error", f"workdir {workdir} does not exist on this node")
    found = shutil.which(command, mode=os.F_OK, path=search or None)
    if "/" in command:
        path = Path(workdir or os.getcwd()) / command
        found = str(path) if path.exists() else None
    if found is None:
        raise StartFailed("command_not_found", f"{command}: not found on this node")
    if not os.access(found, os.X_OK) or Path(found).is_dir():
        raise StartFailed("command_not_executable", f"{found} may not be executed")
    return found
