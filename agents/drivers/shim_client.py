"""The process driver's end of the talk with the shim (`eventsched.agents.shim`)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventsched.agents.drivers.base import StartFailed
from eventsched.agents.process_runs import read_journal
from eventsched.agents.shim import LINE_MAX, SOCKET, in_directory

CONNECT_S = 10.0
CONNECT_POLL_S = 0.01


class ShimClient:
    """A connection to the node's shim; the shim is started, and the connection made, when first needed.

    on_end(run, code) is called for every run that ends, maybe more than once; on_broken() when the
    shim has gone away: what was missed meanwhile stands in the journal.
    """

    def __init__(
        self, directory: Path, on_end: Callable[[int, int | None], None], on_broken: Callable[[], None]
    ) -> None:
        self._directory = directory
        self._on_end = on_end
        self._on_broken = on_broken
        self._connecting = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._child: subprocess.Popen[bytes] | None = None

    async def connect(self) -> asyncio.StreamWriter:
        """Connect if that is not so yet. Raises StartFailed when no shim answers."""
        if self._writer is not None:
            return self._writer
        async with self._connecting:
            if self._writer is None:
                reader, self._writer = await self._reach()
                self._listener = asyncio.get_running_loop().create_task(self._listen(reader))
            return self._writer

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = asyncio.get_running_loop().time() + CONNECT_S
        while asyncio.get_running_loop().time() < deadline:
            with in_directory(self._directory) as short, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return await asyncio.open_unix_connection(f"{short}/{SOCKET}", limit=LINE_MAX)
            self._start_shim()
            await asyncio.sleep(CONNECT_POLL_S)
        raise StartFailed("engine_error", f"the shim does not answer; see {self._directory / 'shim.log'}")

    def _start_shim(self) -> None:
        """Start one unless one of ours is just starting; a second one ends by itself."""
        if self._child is not None and self._child.poll() is None:
            return
        with (self._directory / "shim.log").open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "eventsched.agents.shim", str(self._directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            while line := await reader.readline():
                message = json.loads(line)
                if "code" in message:
                    self._on_end(message["run"], message["code"])
                    continue
                answer = self._asked.pop(message["run"], None)
                if answer is not None and not answer.done():
                    answer.set_result(message)
        self._writer = None
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError())
        self._asked.clear()
        self._on_broken()

    async def _ask(self, run: int, request: dict[str, Any]) -> dict[str, Any]:
        """The answer. Raises ConnectionResetError when the shim goes away before it comes."""
        writer = await self.connect()
        if run in self._asked:
            raise FileExistsError(errno.EEXIST, "it is being started already")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[run] = answer
        writer.write(json.dumps({**request, "run": run}).encode() + b"\n")
        return await answer

    async def start(self, run: int, request: dict[str, Any]) -> int:
        """Start a run; its pid. Raises StartFailed, or OSError with the reason of the refusal."""
        try:
            reply = await self._ask(run, {"do": "start", **request})
        except ConnectionResetError:
            await self.connect()  # a new shim has looked what became of it
            record = read_journal(self._directory).get(run)
            if record is None or not record.pid:
                raise StartFailed("engine_error", "the shim went away before it could start this run") from None
            return record.pid
        if "failed" in reply:
            raise OSError(reply["failed"], "")
        return int(reply["pid"])

    async def forget(self, run: int) -> None:
        """Have a run's traces removed."""
        with contextlib.suppress(ConnectionResetError, FileExistsError):
            await self._ask(run, {"do": "forget"})

    async def close(self, leave: bool = False) -> None:
        """End the connection; leave: and the shim too, if nothing runs."""
        writer, listener = self._writer, self._listener
        if writer is not None:
            if leave:
                writer.write(b'{"do": "leave"}\n')
            self._on_broken = lambda: None
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        if listener is not None:
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener
        if leave and self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._child.wait, CONNECT_S)
