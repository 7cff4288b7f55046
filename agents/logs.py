"""Shipping output: from a driver into LOGS, as it comes, each byte once.

A chunk's message id is `<run>.<chunk>.<offset>.<stream>`, where offset counts all bytes up to the
chunk's end: an agent that adopts a run asks the stream for the last one and goes on behind it.
A run's output is bounded; what comes after the limit is dropped, and the last chunk says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import structlog

from eventsched.agents.drivers.base import Chunk
from eventsched.agents.process_runs import OUTPUT_MAX_BYTES
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.port import AppendError, Conflict, Outgoing, Refused

_log = structlog.get_logger("eventsched.logs")

CHUNK_BYTES = 32 * 1024
FLUSH_S = 0.2
RETRY_S = 0.5


class Shipper:
    """Ships one run's output."""

    def __init__(self, log: JetStreamLog, subject: str, run: int, limit: int = OUTPUT_MAX_BYTES) -> None:
        self._log = log
        self._subject = subject
        self._run = run
        self._limit = limit
        self.chunks = 0
        self.offset = 0

    async def resume(self) -> None:
        """Go on behind what is stored already."""
        last = await self._log.last_on(self._subject)
        parts = last[1].split(".") if last is not None else []
        if len(parts) == 4 and parts[0] == str(self._run):
            self.chunks, self.offset = int(parts[1]) + 1, int(parts[2])

    async def ship(self, output: AsyncIterator[Chunk]) -> None:
        """Ship everything `output` yields (which begins at our offset); returns at its end."""
        source = output.__aiter__()
        waiting: asyncio.Task[Chunk | None] | None = None
        stream, buffer = "stdout", bytearray()
        try:
            while True:
                if waiting is None:
                    waiting = asyncio.ensure_future(_next(source))
                await asyncio.wait((waiting,), timeout=FLUSH_S if buffer else None)
                if not waiting.done():
                    await self._flush(stream, buffer)
                    continue
                chunk, waiting = waiting.result(), None
                if chunk is None:
                    break
                if chunk[0] != stream:
                    await self._flush(stream, buffer)
                    stream = chunk[0]
                buffer += chunk[1]
                while len(buffer) >= CHUNK_BYTES:
                    await self._put(stream, bytes(buffer[:CHUNK_BYTES]))
                    del buffer[:CHUNK_BYTES]
            await self._flush(stream, buffer)
        finally:
            if waiting is not None:
                waiting.cancel()

    async def _flush(self, stream: str, buffer: bytearray) -> None:
        if buffer:
            await self._put(stream, bytes(buffer))
            buffer.clear()

    async def _put(self, stream: str, data: bytes) -> None:
        start, self.offset = self.offset, self.offset + len(data)
        if start > self._limit:  # the chunk that crossed it has said so
            return
        if self.offset > self._limit:
            cut = f"\n[eventsched: output cut at {self._limit} bytes]\n".encode()
            data = data[: self._limit - start] + cut
        message = Outgoing(self._subject, data, msg_id=f"{self._run}.{self.chunks}.{self.offset}.{stream}")
        while True:
            try:
                await self._log.append([message])
                break
            except (Refused, Conflict) as error:
                _log.warning("output_lost", run=self._run, chunk=self.chunks, error=str(error))
                break
            except AppendError as error:
                _log.debug("output_waits", run=self._run, error=str(error))
                await asyncio.sleep(RETRY_S)
        self.chunks += 1


async def _next(source: AsyncIterator[Chunk]) -> Chunk | None:
    try:
        return await anext(source)
    except StopAsyncIteration:
        return None
