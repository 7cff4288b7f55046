"""The shim: a small process that starts process runs, sees them end and writes both down.

Runs must outlive the agent, and only a parent learns an exit code; so they are this process's
children, not the agent's. One shim serves a node; the agent starts it when it is needed, talks to
it over a socket in the node's directory (JSON lines), and may die and come back meanwhile. It ends
when nothing runs and nobody is connected.

    to the shim    {"do": "start", "run", "path", "argv", "env", "cwd", "launch", "grace_ms", "keep"}
                   {"do": "forget", "run"}   {"do": "hello"}   {"do": "leave"}
    to everybody   {"run", "pid", "born"} | {"run", "failed": errno} | {"run", "code"} | {"run", "forgotten"}
    to one         {"hello": pid}, when all is done and written that anybody had sent before

Run as `python -m eventsched.agents.shim DIRECTORY`. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import signal
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eventsched.agents.process_runs import OUTPUT_MAX_BYTES, RUNS, RunJournal, RunRecord, line, read_journal
from eventsched.agents.processes import (
    MARK,
    boot_id,
    boot_ticks,
    is_alive,
    leader_of,
    marked,
    signal_marked,
)

SOCKET = "shim.sock"
LOCK_FILE = "shim.lock"
IDLE_S = 10.0
RETRY_S = 0.5
CLEAR_S = 0.05
COMPACT_BYTES = 1024 * 1024
LINE_MAX = 4 * 1024 * 1024
UNREAD_MAX = 1024 * 1024
TRIM_EVERY_S = 0.5
TRIM_SLACK_BYTES = 1024 * 1024
_DEFAULT_AGAIN = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class Shim:
    """One node's shim."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._outputs = os.path.realpath(directory / RUNS)
        self._boot = boot_id()
        self._journal = RunJournal(directory)
        self._records = read_journal(directory)
        self._runs_by_pid: dict[int, int] = {}
        self._clients: dict[_Client, None] = {}
        self._compact_at = COMPACT_BYTES
        self._unwritten: list[bytes] = []
        self._news: list[bytes] = []
        self._flush_due = False
        self._leaving = asyncio.Event()

    # ---- life -------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Serve until nothing runs and nobody is connected."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for number in (signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: None)
        self._inherit()
        self._trim()
        with in_directory(self._directory) as short:
            (self._directory / SOCKET).unlink(missing_ok=True)
            before = os.umask(0o077)
            server = await loop.create_unix_server(lambda: _Client(self), f"{short}/{SOCKET}")
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
        open_records = [record for record in self._records.values() if not record.over]
        by_mark = marked(self._directory) if open_records else {}
        gone = []
        for record in open_records:
            leader = None if record.pid else leader_of(by_mark.get(record.run, ()))
            if leader is not None:  # the earlier one ended between starting it and writing that down
                record.pid, record.born, record.boot = leader.pid, (leader.born, leader.born), self._boot
                self._note(record.pid_line())
            try:
                handle = os.pidfd_open(record.pid) if is_alive(record, self._boot) else -1
            except ProcessLookupError:
                handle = -1
            if handle < 0:
                gone.append(record.run)
            else:
                asyncio.get_running_loop().add_reader(handle, self._stranger_ended, record, handle)
        self._clear(gone)

    def _stranger_ended(self, record: RunRecord, handle: int) -> None:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(record.pid, signal.SIGKILL)  # the number is theirs while one of the group lives
        self._clear([record.run])

    def _clear(self, runs: list[int]) -> None:
        """Kill what is left of runs whose commands are gone unseen; they are over when nothing is left."""
        by_mark = marked(self._directory) if runs else {}
        for run in runs:
            if run in by_mark:
                signal_marked(self._directory, run, by_mark[run], signal.SIGKILL)
            else:
                self._over(self._records[run], None)
        rest = [run for run in runs if run in by_mark]
        if rest:
            asyncio.get_running_loop().call_later(CLEAR_S, self._clear, rest)

    # ---- talking ----------------------------------------------------------------------------

    def came(self, client: _Client) -> None:
        """Somebody has connected."""
        self._clients[client] = None

    def went(self, client: _Client) -> None:
        """Somebody is gone."""
        self._clients.pop(client, None)

    def handle(self, client: _Client, request: dict[str, Any]) -> None:
        """One request."""
        match request["do"]:
            case "start":
                self._start(request)
            case "forget":
                self._forget(request["run"])
            case "hello":
                self._hello(client)
            case "leave" if not self._live():
                self._leaving.set()

    def _hello(self, client: _Client) -> None:
        """Answer when the others' sockets are empty: an agent that died may have left requests in its own."""
        if any(other.has_unread() for other in self._clients if other is not client):
            asyncio.get_running_loop().call_soon(self._hello, client)
            return
        with contextlib.suppress(OSError):
            self._write_down()
        client.send(line({"hello": os.getpid()}))

    def _tell(self, news: bytes) -> None:
        """To everybody, with whatever else there is to say in this turn of the loop."""
        self._flush_soon()
        self._news.append(news)

    def _note(self, entry: bytes) -> None:
        """Into the journal, and then to everybody."""
        self._flush_soon()
        self._unwritten.append(entry)

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Write down, then tell. A client that does not read is cut off; the journal has it all."""
        self._flush_due = False
        try:
            self._write_down()
        except OSError:  # a full disk: nobody is told what is not written
            asyncio.get_running_loop().call_later(RETRY_S, self._flush_soon)
        news = b"".join(self._news)
        self._news.clear()
        if news:
            for client in list(self._clients):
                client.send(news)

    def _write_down(self) -> None:
        if self._unwritten:
            self._journal.append(b"".join(self._unwritten))
            self._written()

    def _written(self) -> None:
        self._news += self._unwritten
        self._unwritten.clear()

    # ---- running ----------------------------------------------------------------------------

    def _start(self, request: dict[str, Any]) -> None:
        """Start a run. What cannot be written down, before and after, does not run: a full disk fails it."""
        run = request["run"]
        if run in self._records:
            self._tell(line({"run": run, "failed": errno.EEXIST}))
            return
        record = RunRecord(run, request["launch"], request["grace_ms"], request["keep"], boot=self._boot)
        before = self._journal.size
        try:
            self._write_down()
            before = self._journal.size
            self._journal.append(record.asked_line())
            earliest = boot_ticks()
            record.pid = self._spawn(request)
            record.born = (earliest, boot_ticks())
            self._journal.append(record.pid_line())  # at once: a shim may be killed at any moment
        except OSError as error:
            self._undo(record, before)
            self._tell(line({"run": run, "failed": error.errno}))
            return
        self._records[run] = record
        self._runs_by_pid[record.pid] = run
        self._tell(record.pid_line())

    def _undo(self, record: RunRecord, journal_size: int) -> None:
        if record.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(record.pid, signal.SIGKILL)
        self._journal.cut(journal_size)
        self._remove_output(record.run)

    def _spawn(self, request: dict[str, Any]) -> int:
        output = f"{self._outputs}/{request['run']}"
        os.chdir(request["cwd"])
        try:
            return os.posix_spawn(
                request["path"],
                request["argv"],
                {**request["env"], MARK: output},
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
            if run is not None:
                self._over(self._records[run], code if code >= 0 else 128 - code)

    def _over(self, record: RunRecord, code: int | None) -> None:
        record.over, record.code = True, code
        self._trim_output(record.run)
        self._note(record.over_line())

    def _trim(self) -> None:
        """A run that says too much must not fill the disk, whether or not an agent is there to read it."""
        for record in self._records.values():
            if not record.over:
                self._trim_output(record.run)
        asyncio.get_running_loop().call_later(TRIM_EVERY_S, self._trim)

    def _trim_output(self, run: int) -> None:
        """Cut off what is never shipped, but for a byte, by which readers see that there was more. What is
        written next comes behind that: the file is open for appending."""
        output = f"{self._outputs}/{run}"
        with contextlib.suppress(OSError):
            if os.stat(output).st_size > OUTPUT_MAX_BYTES + TRIM_SLACK_BYTES:
                os.truncate(output, OUTPUT_MAX_BYTES + 1)

    # ---- forgetting -------------------------------------------------------------------------

    def _forget(self, run: int) -> None:
        """Remove the traces of an ended run. One that is not over stays known: else nobody could stop it."""
        record = self._records.get(run)
        if record is not None and not record.over:
            self._tell(line({"run": run, "failed": errno.EBUSY}))
            return
        self._remove_output(run)
        forgotten = line({"run": run, "forgotten": True})
        if record is None:
            self._tell(forgotten)
            return
        del self._records[run]
        self._note(forgotten)
        if self._journal.size > self._compact_at:
            self._compact()

    def _remove_output(self, run: int) -> None:
        with contextlib.suppress(OSError):
            (self._directory / RUNS / str(run)).unlink(missing_ok=True)

    def _compact(self) -> None:
        """Write the journal anew, without the runs that were removed; when the disk is full, some other time."""
        try:
            self._journal.replace(self._records.values())
        except OSError:
            self._compact_at = self._journal.size + COMPACT_BYTES
            return
        self._written()  # it stands in the records
        self._compact_at = max(COMPACT_BYTES, 2 * self._journal.size)


class _Client(asyncio.Protocol):
    """One connection: lines in, lines out. What was read has been handled."""

    def __init__(self, shim: Shim) -> None:
        self._shim = shim
        self._begun = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._shim.came(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._shim.went(self)

    def data_received(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = bytes(self._begun) + lines[0]
            self._begun.clear()
        self._begun += rest
        try:
            for text in lines:
                self._shim.handle(self, json.loads(text))
        except (ValueError, KeyError, TypeError):
            self._cut_off()
        if len(self._begun) > LINE_MAX:
            self._cut_off()

    def has_unread(self) -> bool:
        """Whether something was sent that was not read yet."""
        waiting = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
        return waiting != bytes(4)

    def send(self, data: bytes) -> None:
        """Send, unless the other side has long stopped reading."""
        if self._transport.get_write_buffer_size() > UNREAD_MAX:
            self._cut_off()
        else:
            self._transport.write(data)

    def _cut_off(self) -> None:
        self._transport.abort()
        self._shim.went(self)


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
