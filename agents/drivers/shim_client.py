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
from eventsched.agents.shim import LINE_MAX, SOCKET, in_directory

CONNECT_S = 10.0
CONNECT_POLL_S = 0.01

OnStart = Callable[[int, int, tuple[int, int]], None]
OnEnd = Callable[[int, int | None], None]


class ShimClient:
    """A connection to the node's shim, made when first needed.

    on_start(run, pid, born) and on_end(run, code) are called for every run that starts and ends,
    maybe more than once; on_broken() when the shim has gone away: what was missed meanwhile stands
    in the journal.
    """

    def __init__(self, directory: Path, on_start: OnStart, on_end: OnEnd, on_broken: Callable[[], None]) -> None:
        self._directory = directory
        self._on_start = on_start
        self._on_end = on_end
        self._on_broken = on_broken
        self._connecting = asyncio.Lock()
        self._line: _Line | None = None
        self._asked: dict[int, tuple[str, asyncio.Future[dict[str, Any]]]] = {}
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def connected(self) -> bool:
        """Whether news arrive."""
        return self._line is not None

    # ---- connecting -------------------------------------------------------------------------

    async def connect(self, start: bool = True) -> bool:
        """Connect if that is not so yet: then the journal has all that anybody asked of the shim before.
        start: a shim is started where there is none. False when there is none; StartFailed when none answers."""
        if self._line is not None:
            return True
        async with self._connecting:
            if self._line is None:
                self._line = await self._reach(start)
            return self._line is not None

    async def _reach(self, start: bool) -> _Line | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONNECT_S
        while (left := deadline - loop.time()) > 0:
            with in_directory(self._directory) as short, contextlib.suppress(FileNotFoundError, ConnectionError):
                _, line = await loop.create_unix_connection(lambda: _Line(self._heard, self._lost), f"{short}/{SOCKET}")
                if await line.greet(left):
                    return line
                await asyncio.sleep(CONNECT_POLL_S)
                continue  # it has just ended
            if not start:
                return None
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

    # ---- talking ----------------------------------------------------------------------------

    def _heard(self, news: dict[str, Any]) -> None:
        run = news["run"]
        if "code" in news:
            self._on_end(run, news["code"])
            return
        if "pid" in news:
            self._on_start(run, news["pid"], tuple(news["born"]))
        what, answer = self._asked.get(run, ("", None))
        if answer is not None and not answer.done() and (what == "start" or "pid" not in news):
            answer.set_result(news)

    def _lost(self, line: _Line) -> None:
        if line is not self._line:
            return
        self._line = None
        for _, answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError())
        self._on_broken()

    async def _ask(self, run: int, request: dict[str, Any]) -> None:
        """Have something done. Raises OSError with the reason of a refusal, ConnectionResetError when the
        shim goes away before the answer comes."""
        await self.connect()
        if self._line is None:
            raise ConnectionResetError
        if run in self._asked:
            raise OSError(errno.EALREADY, "it is being asked already")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[run] = request["do"], answer
        try:
            self._line.send({**request, "run": run})
            news = await answer
        finally:
            del self._asked[run]
        if "failed" in news:
            raise OSError(news["failed"], "")

    async def start(self, run: int, request: dict[str, Any]) -> None:
        """Start a run. Raises StartFailed when there is no shim, else as `_ask` does."""
        await self._ask(run, {"do": "start", **request})

    async def forget(self, run: int) -> None:
        """Have an ended run's traces removed; OSError(EBUSY) for one that is not over."""
        with contextlib.suppress(ConnectionResetError):
            await self._ask(run, {"do": "forget"})

    async def close(self, leave: bool = False) -> None:
        """End the connection; leave: and the shim too, if nothing runs."""
        line, self._line = self._line, None
        if line is not None:
            if leave:
                line.send({"do": "leave"})
            await line.close()
        if leave and self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._child.wait, CONNECT_S)


class _Line(asyncio.Protocol):
    """A connection: JSON lines both ways."""

    def __init__(self, heard: Callable[[dict[str, Any]], None], lost: Callable[[_Line], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._begun = b""
        self._greeted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()

    async def greet(self, seconds: float) -> bool:
        """Ask the shim to answer once all is done that it was asked before; False when it does not."""
        self.send({"do": "hello"})
        try:
            async with asyncio.timeout(seconds):
                return await self._greeted and not self._gone.is_set()
        except TimeoutError:
            self._transport.abort()
            return False

    def send(self, request: dict[str, Any]) -> None:
        """Send one request."""
        self._transport.write(json.dumps(request).encode() + b"\n")

    async def close(self) -> None:
        """Send what is still to be sent, and end the connection."""
        self._transport.close()
        await self._gone.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._gone.set()
        if not self._greeted.done():
            self._greeted.set_result(False)
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        *lines, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > LINE_MAX:
            self._transport.abort()
        for text in lines:
            news = json.loads(text)
            if "hello" not in news:
                self._heard(news)
            elif not self._greeted.done():
                self._greeted.set_result(True)
