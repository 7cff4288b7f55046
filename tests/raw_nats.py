"""A NATS client of some lines, over a socket: it shares no code with the library the product uses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from eventsched.nats_server import NatsServer


class Message(NamedTuple):
    """A message that came: subject, headers by name, body."""

    subject: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def error(self) -> tuple[str, str]:
        """Code and text of a service's error; ("", "") when it is none."""
        return self.headers.get("Nats-Service-Error-Code", ""), self.headers.get("Nats-Service-Error", "")


class RawNats:
    """One connection. Make it with `raw_nats`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._queues: dict[str, asyncio.Queue[Message]] = {}
        self._pongs: asyncio.Queue[None] = asyncio.Queue()
        self._last = 0
        self.errors: list[str] = []

    async def run(self) -> None:
        """Read what the server sends."""
        while line := (await self._reader.readline()).decode().strip():
            verb, *words = line.split(" ")
            if verb in ("MSG", "HMSG"):
                block = int(words[-2]) if verb == "HMSG" else 0
                data = await self._reader.readexactly(int(words[-1]) + 2)
                lines = data[:block].decode().split("\r\n")
                headers = dict(one.split(": ", 1) for one in lines[1:] if ": " in one)
                if lines[0].startswith("NATS/1.0 "):
                    headers["Status"] = lines[0].removeprefix("NATS/1.0 ")
                self._queues[words[1]].put_nowait(Message(words[0], headers, data[block:-2]))
            elif verb == "PING":
                self._writer.write(b"PONG\r\n")
            elif verb == "PONG":
                self._pongs.put_nowait(None)
            elif verb == "-ERR":
                self.errors.append(line)

    async def flush(self) -> None:
        """The server has seen everything sent so far."""
        self._writer.write(b"PING\r\n")
        await asyncio.wait_for(self._pongs.get(), 10)

    async def subscribe(self, subject: str) -> asyncio.Queue[Message]:
        """What comes on a subject from now on."""
        self._last += 1
        queue = self._queues[str(self._last)] = asyncio.Queue[Message]()
        self._writer.write(f"SUB {subject} {self._last}\r\n".encode())
        await self.flush()
        return queue

    def publish(self, subject: str, body: bytes, reply: str = "") -> None:
        """Send a message."""
        self._writer.write(f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n")

    async def ask(self, subject: str, body: object = None) -> asyncio.Queue[Message]:
        """Send a request (bytes as they are, anything else as JSON); its answers, as they come."""
        self._last += 1
        queue = self._queues[str(self._last)] = asyncio.Queue[Message]()
        inbox = f"_INBOX.raw.{self._last}"
        self._writer.write(f"SUB {inbox} {self._last}\r\n".encode())
        self.publish(subject, body if isinstance(body, bytes) else b"" if body is None else _json(body), inbox)
        return queue

    async def request(self, subject: str, body: object = None) -> Message:
        """The first answer to a request."""
        return await asyncio.wait_for((await self.ask(subject, body)).get(), 10)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@asynccontextmanager
async def raw_nats(server: NatsServer, role: str = "operator") -> AsyncIterator[RawNats]:
    """A connection as a role."""
    options = server.options(role)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await reader.readline()
    hello = {"verbose": False, "headers": True, "no_responders": True, "user": role, "pass": options.password}
    writer.write(f"CONNECT {json.dumps(hello)}\r\n".encode())
    client = RawNats(reader, writer)
    reading = asyncio.ensure_future(client.run())
    try:
        await client.flush()
        yield client
    finally:
        reading.cancel()
        writer.close()
