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
from typing import Any

import msgspec
import structlog

from eventsched.agents.drivers.base import Chunk, EngineAway, Place, Progress, StartFailed, exited, run_environment
from eventsched.agents.drivers.shim_client import ShimClient
from eventsched.agents.effects import Ended, KnownRun, Launch
from eventsched.agents.process_runs import RUNS, RunRecord, read_journal
from eventsched.agents.processes import CLOCK_TICKS, boot_id, boot_ticks, is_alive, signal_group, tree_usage
from eventsched.heartbeat import RunUsage

_log = structlog.get_logger("eventsched.process")

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR", "LD_LIBRARY_PATH")
_TAIL_POLL_S = 0.1
_READ_BYTES = 65_536
RETRY_S = 0.5
KILL_S = 5
PROGRAMS_MAX = 1_024


class ProcessDriver:
    """See `Driver`.

    `_records` is what the journal says, kept up to date by the shim's news; what happened while
    there was no shim to hear from is read again.
    """

    name = "process"
    keeps_ended = False

    def __init__(self, place: Place) -> None:
        self._place = place
        self._directory = place.directory
        self._boot = boot_id()
        self._records: dict[int, RunRecord] = {}
        self._waiting: dict[int, asyncio.Future[Ended]] = {}
        self._stopping: dict[int, bool] = {}
        self._cpu_seen: dict[int, tuple[float, int]] = {}
        self._shim = ShimClient(place.directory, self._started, self._ended, self._broken)
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

    # ---- knowing ----------------------------------------------------------------------------

    async def _refresh(self) -> None:
        """Read the journal when all is in it: a shim that is there has done what it was asked, and one
        that is not is started if it must find out what became of runs. Raises StartFailed."""
        live = any(not record.over for record in read_journal(self._directory).values())
        await self._shim.connect(start=live)
        self._records = read_journal(self._directory)

    async def _find(self, run: int) -> RunRecord | None:
        """What is known of a run; those of an earlier agent are looked for."""
        record = self._records.get(run)
        if record is None or not (record.pid or record.over):
            await self._look_again()
        return self._records.get(run)

    async def _look_again(self) -> None:
        """Refresh, and tell those who wait; tried until it works, once for all who ask."""
        await asyncio.shield(self._catching_up())

    def _catching_up(self) -> asyncio.Task[None]:
        if self._again is None or self._again.done():
            self._again = asyncio.get_running_loop().create_task(self._catch_up())
        return self._again

    async def _catch_up(self) -> None:
        while True:
            try:
                await self._refresh()
            except (StartFailed, OSError) as error:
                _log.warning("shim_out_of_reach", node=self._place.node, error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                break
        for run in list(self._waiting):
            self._settle(run)

    async def inventory(self) -> list[KnownRun]:
        """See `Driver.inventory`."""
        try:
            await self._refresh()
        except StartFailed as failure:
            raise EngineAway(f"driver process: {failure.detail}") from None
        found = []
        for run, record in self._records.items():
            try:
                launch = msgspec.json.decode(record.launch, type=Launch)
            except msgspec.MsgspecError:
                continue
            if record.over:
                found.append(KnownRun(launch, self._verdict(run, record.code)))
            else:
                ran_ms = (boot_ticks() - record.born[0]) * 1000 // CLOCK_TICKS
                found.append(KnownRun(launch, None, max(0, ran_ms)))
        return found

    # ---- starting ---------------------------------------------------------------------------

    async def start(self, launch: Launch, progress: Progress) -> None:
        """See `Driver.start`."""
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment.update(run_environment(self._place, launch))
        spec, run = launch.spec, launch.run
        if run in self._records:
            raise StartFailed("engine_error", f"run {run} exists already")
        path = self._program(spec.command[0], environment, spec.workdir)
        text = msgspec.json.encode(launch).decode()
        keep = spec.on_disconnect == "keep"
        request = {
            "path": path,
            "argv": spec.command,
            "env": environment,
            "cwd": spec.workdir or os.getcwd(),
            "launch": text,
            "grace_ms": spec.stop_grace_ms,
            "keep": keep,
        }
        self._records[run] = RunRecord(run, text, spec.stop_grace_ms, keep, boot=self._boot)
        try:
            await self._start(run, request)
        except BaseException as error:
            self._records.pop(run, None)
            self._programs.clear()
            if isinstance(error, OSError):
                find_program(spec.command[0], environment.get("PATH", ""), spec.workdir)  # raises if it has changed
                raise _start_failure(run, path, error) from None
            raise

    async def _start(self, run: int, request: dict[str, Any]) -> None:
        """Have it started; if the shim goes away meanwhile, find out whether it was, or ask once more."""
        try:
            await self._shim.start(run, request)
        except ConnectionResetError:
            await self._refresh()
            if run not in self._records:
                await self._shim.start(run, request)

    def _program(self, command: str, environment: dict[str, str], workdir: str) -> str:
        """`find_program`, remembered: a start that fails forgets it."""
        key = command, environment.get("PATH", ""), workdir
        if key not in self._programs:
            if len(self._programs) >= PROGRAMS_MAX:
                self._programs.clear()
            self._programs[key] = find_program(*key)
        return self._programs[key]

    def _started(self, run: int, pid: int, born: tuple[int, int]) -> None:
        record = self._records.get(run)
        if record is not None:
            record.pid, record.born = pid, born

    # ---- ending -----------------------------------------------------------------------------

    def _ended(self, run: int, code: int | None) -> None:
        record = self._records.get(run)
        if record is not None:
            record.over, record.code = True, code
        self._settle(run)

    def _settle(self, run: int) -> None:
        """Answer those who wait for a run that is over, or that nobody knows."""
        record = self._records.get(run)
        if run in self._waiting and (record is None or record.over):
            self._waiting.pop(run).set_result(self._verdict(run, record.code if record else None))

    def _broken(self) -> None:
        """The shim is gone: a new one finds out what became of what runs."""
        if any(not record.over for record in self._records.values()):
            self._catching_up()

    async def wait(self, run: int) -> Ended:
        """See `Driver.wait`."""
        record = await self._find(run)
        if record is not None and not record.over and not self._shim.connected:
            await self._look_again()
        if run not in self._waiting:
            self._waiting[run] = asyncio.get_running_loop().create_future()
        future = self._waiting[run]
        self._settle(run)
        return await asyncio.shield(future)

    def over(self, run: int) -> Ended | None:
        """See `Driver.over`."""
        record = self._records.get(run)
        return self._verdict(run, record.code) if record is not None and record.over else None

    def _verdict(self, run: int, code: int | None) -> Ended:
        """How an ended run ended, as far as anybody knows."""
        self._cpu_seen.pop(run, None)
        stopped = self._stopping.get(run, False)
        if code is None:
            if stopped:
                return Ended("stopped", 137)
            return Ended("lost", None, "engine_lost", "its shim was killed; nobody saw how it ended")
        return Ended("stopped", code) if stopped else exited(code)

    async def stop(self, run: int, grace_ms: int) -> None:
        """See `Driver.stop`."""
        record = await self._find(run)
        before = self._stopping.get(run, False)
        self._stopping[run] = True
        number = signal.SIGTERM if grace_ms > 0 else signal.SIGKILL
        if record is None or not signal_group(record, number, self._boot):
            self._stopping[run] = before
            return
        try:
            async with asyncio.timeout(grace_ms / 1000 if grace_ms > 0 else KILL_S):
                await self.wait(run)
        except TimeoutError:
            signal_group(record, signal.SIGKILL, self._boot)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILL_S):
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
        """See `Driver.remove`; OSError(EBUSY) for a run that is not over."""
        await self._shim.forget(run)
        self._records.pop(run, None)
        self._stopping.pop(run, None)
        self._cpu_seen.pop(run, None)

    async def usage(self, runs: Iterable[int]) -> dict[int, RunUsage]:
        """See `Driver.usage`: of all processes that a run has started and that have not left it."""
        records = (self._records[run] for run in runs if run in self._records)
        used = await asyncio.to_thread(self._used, [record for record in records if record.pid and not record.over])
        found: dict[int, RunUsage] = {}
        now = time.monotonic()
        for run, (ticks, memory) in used.items():
            before, ticks_before = self._cpu_seen.get(run, (now, ticks))
            if run in self._records:
                self._cpu_seen[run] = (now, ticks)
            busy_s = (ticks - ticks_before) / CLOCK_TICKS
            percent = 100 * busy_s / (now - before) if now > before else 0.0
            found[run] = RunUsage(round(max(0.0, percent), 1), memory)
        return found

    def _used(self, records: list[RunRecord]) -> dict[int, tuple[int, int]]:
        return tree_usage({record.pid: record.run for record in records if is_alive(record, self._boot)})

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


def _start_failure(run: int, path: str, error: OSError) -> StartFailed:
    """What the shim's refusal of a start means."""
    match error.errno:
        case errno.EEXIST:
            return StartFailed("engine_error", f"run {run} exists already")
        case errno.ENOENT:  # it was there a moment ago
            return StartFailed("command_not_found", f"{path}: not found on this node")
        case errno.EACCES | errno.ENOEXEC:
            return StartFailed("command_not_executable", f"{path}: {os.strerror(error.errno)}")
        case None:
            return StartFailed("engine_error", "the shim went away twice before it could start this run")
    return StartFailed("engine_error", f"{path}: {os.strerror(error.errno)}")
