"""Telling an engine that goes on from one that is going away.

An engine that is told to shut down stops listening first, and then its containers; on the connections
it has it answers as ever until it exits, so only a new connection tells. And one that has been replaced
meanwhile answers there too; only a connection to the earlier one tells.
"""

from __future__ import annotations

import asyncio

_PING = b"GET /_ping HTTP/1.1\r\nHost: localhost\r\n\r\n"


class EngineLine(asyncio.Protocol):
    """A connection that an engine has answered on, and that ends with this engine at the latest."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._answered: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.BaseTransport | None = None

    @classmethod
    async def open(cls, socket_path: str) -> EngineLine:
        """Raises OSError where nobody listens. Waits for an answer: a socket that somebody else keeps
        open takes connections for an engine that is still to come."""
        _, line = await asyncio.get_running_loop().create_unix_connection(cls, socket_path)
        try:
            await line._answered
        except BaseException:
            line.close()
            raise
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask at once."""
        self._transport = transport
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(_PING)

    def data_received(self, data: bytes) -> None:
        """Any answer will do."""
        if not self._answered.done():
            self._answered.set_result(None)

    def eof_received(self) -> None:
        """Known from here on, not one turn of the loop later."""
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed by either side."""
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        if not self._answered.done():
            self._answered.set_exception(ConnectionResetError("the engine closed the connection"))

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


class EngineWatch:
    """The line to the engine that is there now; one for all runs."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._line: EngineLine | None = None
        self._opening = asyncio.Lock()

    async def line(self) -> EngineLine:
        """Raises OSError while no engine listens."""
        async with self._opening:
            if self._line is None or self._line.ended.done():
                self._line = await EngineLine.open(self._socket_path)
            return self._line

    async def confirm(self, line: EngineLine) -> None:
        """Raises OSError unless the engine behind this line still takes new connections. If it does not,
        the line is ended, so that everybody looks again once there is an engine."""
        try:
            fresh = await EngineLine.open(self._socket_path)
        except OSError:
            line.close()
            raise
        fresh.close()
        if line.ended.done():
            raise ConnectionResetError("the engine that answered is gone, and another one answers now")

    def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line.close()
