"""A socket in front of the machine's container engine: its troubles, under the test's hand."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

ENGINE = "/var/run/docker.sock"
_REFUSAL = b'{"message":"tried to kill container, but did not receive an exit event"}'
_REFUSED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_REFUSAL),
    _REFUSAL,
)


class EngineProxy:
    """Forwards to the engine. Troubles go by a part of the request's first line.

    refuse: so many times answered with 500, and not forwarded. lose: so many times forwarded, and the
    connection closed when the answer comes. slow: forwarded; the answer waits for the event.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.refuse: dict[str, int] = {}
        self.lose: dict[str, int] = {}
        self.slow: dict[str, asyncio.Event] = {}
        self.asked: list[str] = []
        self._talking = asyncio.Event()
        self._talking.set()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}

    @property
    def host(self) -> str:
        """For DOCKER_HOST."""
        return f"unix://{self.path}"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._accept, self.path)

    def fall_silent(self) -> None:
        """Take everything in and answer nothing."""
        self._talking.clear()

    def speak(self) -> None:
        """Go on where it fell silent."""
        self._talking.set()

    async def stop_listening(self) -> None:
        """Take no new connections; those that there are go on. An engine that shuts down begins so."""
        assert self._server is not None
        self._server.close()
        Path(self.path).unlink(missing_ok=True)

    def cut(self, part: str = "") -> None:
        """Close the connections whose last request has this in its first line."""
        for task, connection in self._connections.items():
            if part in connection.line:
                task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(ENGINE)
        connection = _Connection(self, writer, there_writer)
        pumps = [asyncio.ensure_future(connection.requests(reader))]
        pumps.append(asyncio.ensure_future(connection.answers(there_reader)))
        self._connections.update(dict.fromkeys(pumps, connection))
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
            self._connections.pop(pump)
        writer.close()
        there_writer.close()

    def take(self, troubles: dict[str, int], line: str) -> bool:
        """Whether this request is to have this trouble."""
        part = next((part for part, count in troubles.items() if count and part in line), None)
        if part is not None:
            troubles[part] -= 1
        return part is not None

    async def talking(self) -> None:
        """Wait while it is silent."""
        await self._talking.wait()

    async def close(self) -> None:
        """Stop."""
        if self._server is not None:
            self._server.close()
        pumps = list(self._connections)
        self.cut()
        await asyncio.gather(*pumps, return_exceptions=True)
        Path(self.path).unlink(missing_ok=True)


class _Connection:
    """One client's connection; it has one request under way at a time."""

    def __init__(self, proxy: EngineProxy, client: asyncio.StreamWriter, engine: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._engine = engine
        self._losing = False
        self.line = ""

    async def requests(self, reader: asyncio.StreamReader) -> None:
        proxy = self._proxy
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if data.split(b" ", 1)[0] in (b"GET", b"POST", b"DELETE"):
                    self.line = data.split(b"\r\n", 1)[0].decode()
                    proxy.asked.append(self.line)
                    if proxy.take(proxy.refuse, self.line):
                        self._client.write(_REFUSED)
                        continue
                    self._losing = proxy.take(proxy.lose, self.line)
                await proxy.talking()
                if reader.at_eof():
                    return  # whoever asked is gone
                self._engine.write(data)

    async def answers(self, reader: asyncio.StreamReader) -> None:
        proxy = self._proxy
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await proxy.talking()
                for part, event in proxy.slow.items():
                    if part in self.line:
                        await event.wait()
                if self._losing:
                    return
                self._client.write(data)
