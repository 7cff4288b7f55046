"""The process driver: a command as a process group of its own, without a container.

The command runs under a few lines of shell that write its exit code into a file, so the outcome
survives the agent; the shell waits for a word from us before it starts, so that nothing can run
whose pid is not on disk. Ends are noticed through pidfds, for our children and for those of an
agent before us alike. Limits of cpu and memory are not enforced (see docker for that).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import psutil

from eventsched.agents.drivers.base import Chunk, Place, Progress, StartFailed, exited, run_environment
from eventsched.agents.effects import Ended, KnownRun, Launch
from eventsched.agents.process_runs import (
    RUNS,
    boot_id,
    is_alive,
    read_pid,
    run_directories,
    signal_run,
    start_time,
)
from eventsched.heartbeat import RunUsage

# $1 is the status file, the rest the command. The trap keeps the shell alive through the SIGTERM
# that its whole group gets; the command itself finds the signal's default.
_SHIM = 'read -r go || exit 125; exec </dev/null; f=$1; shift; trap : TERM INT HUP; "$@"; echo $? >"$f"'
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR", "LD_LIBRARY_PATH")
_TAIL_POLL_S = 0.1
_READ_BYTES = 65_536


class ProcessDriver:
    """See `Driver`."""

    name = "process"
    keeps_ended = False

    def __init__(self, place: Place) -> None:
        self._place = place
        self._state = place.directory
        self._stopping: dict[int, bool] = {}
        self._over: dict[int, asyncio.Future[Ended]] = {}
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._boot = boot_id()
        self._cpu_seen: dict[int, tuple[float, float]] = {}

    async def open(self) -> None:
        """See `Driver.open`."""
        (self._state / RUNS).mkdir(parents=True, exist_ok=True)

    async def close(self) -> None:
        """See `Driver.close`."""

    def _directory(self, run: int) -> Path:
        return self._state / RUNS / str(run)

    async def inventory(self) -> list[KnownRun]:
        """See `Driver.inventory`."""
        found = []
        ticks = os.sysconf("SC_CLK_TCK")
        for run, directory in run_directories(self._state).items():
            try:
                launch = msgspec.json.decode((directory / "launch.json").read_bytes(), type=Launch)
            except (OSError, msgspec.MsgspecError):
                shutil.rmtree(directory, ignore_errors=True)  # the agent died before anything could run
                continue
            record = read_pid(directory)
            if is_alive(record, self._boot):
                assert record is not None
                ran_s = time.clock_gettime(time.CLOCK_BOOTTIME) - record.started / ticks
                found.append(KnownRun(launch, None, max(0, int(ran_s * 1000))))
            else:
                found.append(KnownRun(launch, self._status(run)))
        return found

    async def start(self, launch: Launch, progress: Progress) -> None:
        """See `Driver.start`."""
        directory = self._directory(launch.run)
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment.update(run_environment(self._place, launch))
        spec = launch.spec
        _check_command(spec.command[0], environment, spec.workdir)
        try:
            directory.mkdir()
        except FileExistsError:
            raise StartFailed("engine_error", f"run {launch.run} exists already") from None
        (directory / "launch.json").write_bytes(msgspec.json.encode(launch))
        go_read, go_write = os.pipe()
        output = os.open(directory / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(
                ["/bin/sh", "-c", _SHIM, "eventsched", str(directory / "status"), *spec.command],
                stdin=go_read,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=spec.workdir or None,
                start_new_session=True,
            )
        except OSError as error:
            os.close(go_write)
            shutil.rmtree(directory, ignore_errors=True)
            raise StartFailed("engine_error", f"{error.strerror}: {error.filename}") from error
        finally:
            os.close(go_read)
            os.close(output)
        keep = int(spec.on_disconnect == "keep")
        started = start_time(child.pid)
        (directory / "pid").write_text(f"{child.pid} {started} {self._boot} {spec.stop_grace_ms} {keep}\n")
        self._children[launch.run] = child
        with contextlib.suppress(BrokenPipeError):
            os.write(go_write, b"\n")
        os.close(go_write)

    async def wait(self, run: int) -> Ended:
        """See `Driver.wait`."""
        future = self._over.get(run)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            self._over[run] = future
            self._watch(run, future)
        return await asyncio.shield(future)

    def over(self, run: int) -> Ended | None:
        """See `Driver.over`."""
        future = self._over.get(run)
        return future.result() if future is not None and future.done() else None

    def _watch(self, run: int, over: asyncio.Future[Ended]) -> None:
        loop = asyncio.get_running_loop()
        record = read_pid(self._directory(run))
        if not is_alive(record, self._boot):
            over.set_result(self._status(run))
            return
        assert record is not None
        try:
            handle = os.pidfd_open(record.pid)
        except ProcessLookupError:
            over.set_result(self._status(run))
            return

        def ended() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            over.set_result(self._status(run))

        loop.add_reader(handle, ended)

    def _status(self, run: int) -> Ended:
        """How an ended run ended, as far as anybody knows."""
        child = self._children.pop(run, None)
        if child is not None:
            with contextlib.suppress(ChildProcessError):
                child.wait()
        self._cpu_seen.pop(run, None)
        stopped = self._stopping.pop(run, False)
        try:
            code = int((self._directory(run) / "status").read_text())
        except (OSError, ValueError):
            if stopped:
                return Ended("stopped", 137)
            return Ended("lost", None, "engine_lost", "its shell was killed; nobody saw how it ended")
        return Ended("stopped", code) if stopped else exited(code)

    async def stop(self, run: int, grace_ms: int) -> None:
        """See `Driver.stop`."""
        self._stopping[run] = True
        number = signal.SIGTERM if grace_ms > 0 else signal.SIGKILL
        if not signal_run(self._state, run, number):
            self._stopping.pop(run, None)
            return
        try:
            async with asyncio.timeout(grace_ms / 1000 if grace_ms > 0 else 5):
                await self.wait(run)
        except TimeoutError:
            signal_run(self._state, run, signal.SIGKILL)

    async def output(self, run: int, skip: int) -> AsyncIterator[Chunk]:
        """See `Driver.output`: standard output and error in one file, in the order written."""
        over = asyncio.ensure_future(self.wait(run))
        try:
            with (self._directory(run) / "output").open("rb") as file:
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
            return (self._directory(run) / "output").stat().st_size > 0
        except OSError:
            return False

    async def remove(self, run: int) -> None:
        """See `Driver.remove`."""
        self._over.pop(run, None)
        shutil.rmtree(self._directory(run), ignore_errors=True)

    async def usage(self, runs: Iterable[int]) -> dict[int, RunUsage]:
        """See `Driver.usage`: the whole process group's."""
        found: dict[int, RunUsage] = {}
        for run in runs:
            record = read_pid(self._directory(run))
            if record is None:
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
        """See `Driver.leave`."""

    async def finish(self, run: int, exit_code: int) -> None:
        """See `Driver.finish`."""


def _check_command(command: str, environment: dict[str, str], workdir: str) -> None:
    """Say beforehand what the shell would only mumble into the output."""
    if workdir and not Path(workdir).is_dir():
        raise StartFailed("engine_error", f"workdir {workdir} does not exist on this node")
    found = shutil.which(command, mode=os.F_OK, path=environment.get("PATH"))
    if "/" in command:
        path = Path(workdir or "/") / command
        found = str(path) if path.exists() else None
    if found is None:
        raise StartFailed("command_not_found", f"{command}: not found on this node")
    if not os.access(found, os.X_OK) or Path(found).is_dir():
        raise StartFailed("command_not_executable", f"{found} may not be executed")
