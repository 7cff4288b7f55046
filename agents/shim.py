"""The shim: a small process that starts process runs, sees them end and writes both down.

Runs must outlive the agent, and only a parent learns an exit code; so they are this process's
children, not the agent's. One shim serves a node; the agent starts it when it is needed, talks to
it over a socket in the node's directory (JSON lines), and may die and come back meanwhile. It ends
when nothing runs and nobody is connected.

    to the shim    {"do": "start", "run", "path", "argv", "env", "cwd", "launch", "grace_ms", "keep"}
                   {"do": "forget", "run"}   {"do": "leave"}
    to everybody   {"run", "pid"} | {"run", "failed": errno} | {"run", "code"} | {"run", "forgotten"}

Run as `python -m eventsched.agents.shim DIRECTORY`. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eventsched.agents.process_runs import (
    JOURNAL,
    RUNS,
    RunRecord,
    boot_id,
    boot_ticks,
    find_process,
    is_alive,
    read_journal,
)

SOCKET = "shim.sock"
LOCK_FILE = "shim.lock"
IDLE_S = 10.0
RETRY_S = 0.5
COMPACT_BYTES = 1024 * 1024
LINE_MAX = 4 * 1024 * 1024
UNREAD_MAX = 1024 * 1024
_EXISTS = 17
_DEFAULT_AGAIN = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class Shim:
    """One node's shim."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._boot = boot_id()
        self._records = read_journal(directory)
        self._runs_by_pid: dict[int, int] = {}
        self._clients: dict[asyncio.StreamWriter, None] = {}
        self._journal = _append_to(directory / JOURNAL)
        self._compact_at = COMPACT_BYTES
        self._unwritten: list[bytes] = []
        self._news: list[bytes] = []
        self._leaving = asyncio.Event()

    # ---- life -------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Serve until nothing runs and nobody is connected."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for number in (signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: None)
        self._journal.write(b"\n")  # the last line may be torn
        self._inherit()
        with in_directory(self._directory) as short:
            (self._directory / SOCKET).unlink(missing_ok=True)
            before = os.umask(0o077)
            server = await asyncio.start_unix_server(self._client, f"{short}/{SOCKET}", limit=LINE_MAX)
            os.umask(before)
        async with server:
            while not self._leaving.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._leaving.wait(), IDLE_S)
                if not self._clients and not self._live():
                    return

    def _live(self) -> bool:
        return any(not record.over for record in self._records.values())

    def _inherit(self) -> None:
        """Take over what an earlier shim left: its runs are no children of ours, their codes are lost."""
        for record in self._records.values():
            if record.over:
                continue
            if not record.pid and record.boot == self._boot and (pid := find_process(self._directory, record.run)):
                record.born = (0, boot_ticks())
                record.pid = pid
                self._note({"run": record.run, "pid": pid, "born": record.born})
            try:
                handle = os.pidfd_open(record.pid) if is_alive(record, self._boot) else -1
            except ProcessLookupError:
                handle = -1
            if handle < 0:
                self._over(record, None)
            else:
                asyncio.get_running_loop().add_reader(handle, self._stranger_ended, record, handle)

    def _stranger_ended(self, record: RunRecord, handle: int) -> None:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(record.pid, signal.SIGKILL)  # the number is theirs while one of the group lives
        self._over(record, None)

    # ---- talking ----------------------------------------------------------------------------

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients[writer] = None
        try:
            while line := await reader.readline():
                self._handle(json.loads(line))
        except (ConnectionError, ValueError):
            pass
        finally:
            self._clients.pop(writer, None)
            writer.close()

    def _handle(self, request: dict[str, Any]) -> None:
        match request["do"]:
            case "start":
                self._start(request)
            case "forget":
                self._forget(request["run"])
                self._tell({"run": request["run"], "forgotten": True})
            case "leave" if not self._live():
                self._leaving.set()

    def _tell(self, message: dict[str, Any]) -> None:
        """To every client, with whatever else there is to say in this turn of the loop."""
        self._flush_soon()
        self._news.append(_line(message))

    def _note(self, entry: dict[str, Any]) -> None:
        """For the journal, before anybody is told in this turn of the loop."""
        self._flush_soon()
        self._unwritten.append(_line(entry))

    def _flush_soon(self) -> None:
        if not self._news and not self._unwritten:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Write down, then tell. A client that does not read is cut off; the journal has it all."""
        try:
            self._journal.write(b"".join(self._unwritten))
        except OSError:  # a full disk: nobody is told what is not written
            asyncio.get_running_loop().call_later(RETRY_S, self._flush)
            return
        news = b"".join(self._news)
        self._unwritten.clear()
        self._news.clear()
        for writer in list(self._clients):
            if writer.transport.get_write_buffer_size() > UNREAD_MAX:
                writer.transport.abort()
                self._clients.pop(writer, None)
            else:
                writer.write(news)

    # ---- running ----------------------------------------------------------------------------

    def _start(self, request: dict[str, Any]) -> None:
        run = request["run"]
        if run in self._records:
            self._tell({"run": run, "failed": _EXISTS})
            return
        record = RunRecord(run, request["launch"], request["grace_ms"], request["keep"], boot=self._boot)
        self._records[run] = record
        self._journal.write(_line(record.lines()[0]))  # nothing may run that nobody knows of
        before = boot_ticks()
        try:
            record.pid = self._spawn(request)
        except OSError as error:
            self._forget(run)
            self._tell({"run": run, "failed": error.errno})
            return
        record.born = (before, boot_ticks())
        self._runs_by_pid[record.pid] = run
        self._note({"run": run, "pid": record.pid, "born": record.born})
        self._tell({"run": run, "pid": record.pid})

    def _spawn(self, request: dict[str, Any]) -> int:
        output = str(self._directory / RUNS / str(request["run"]))
        os.chdir(request["cwd"])
        try:
            return os.posix_spawn(
                request["path"],
                request["argv"],
                request["env"],
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=_DEFAULT_AGAIN,
            )
        finally:
            os.chdir("/")

    def _reap(self) -> None:
        """Children have ended: kill what is left of their groups while the number is still theirs."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(ended.si_pid, signal.SIGKILL)
            _, status = os.waitpid(ended.si_pid, 0)
            code = os.waitstatus_to_exitcode(status)
            run = self._runs_by_pid.pop(ended.si_pid, None)
            record = self._records.get(run) if run is not None else None
            if record is not None:
                self._over(record, code if code >= 0 else 128 - code)

    def _over(self, record: RunRecord, code: int | None) -> None:
        record.over, record.code = True, code
        self._note({"run": record.run, "code": code})
        self._tell({"run": record.run, "code": code})

    # ---- the journal ------------------------------------------------------------------------

    def _forget(self, run: int) -> None:
        with contextlib.suppress(OSError):
            (self._directory / RUNS / str(run)).unlink(missing_ok=True)
        if self._records.pop(run, None) is not None:
            self._note({"run": run})
        if self._journal.tell() > self._compact_at:
            self._compact()

    def _compact(self) -> None:
        """Write the journal anew, without the runs that were removed."""
        self._unwritten.clear()  # it stands in the records
        fresh = self._directory / (JOURNAL + ".new")
        fresh.unlink(missing_ok=True)
        journal = _append_to(fresh)
        journal.write(b"".join(_line(line) for record in self._records.values() for line in record.lines()))
        fresh.replace(self._directory / JOURNAL)
        self._journal.close()
        self._journal = journal
        self._compact_at = max(COMPACT_BYTES, 2 * journal.tell())


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _append_to(path: Path) -> io.FileIO:
    """Unbuffered and private: jobs' environments stand in it."""
    return io.FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a")


@contextlib.contextmanager
def in_directory(directory: Path) -> Iterator[str]:
    """A short path to a directory: a socket's path may have 107 bytes, a data directory's more."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def main() -> None:
    """Entry point of the process; a second shim of the same directory ends at once."""
    directory = Path(sys.argv[1])
    handle = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    asyncio.run(Shim(directory).serve())


if __name__ == "__main__":
    main()
