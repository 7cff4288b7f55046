"""Reading a stream: an ephemeral pull consumer, asked for messages with our own requests.

Many messages a request, two requests outstanding, delivered in runs straight from the socket.
Contiguity is checked: a hole makes the reader start its consumer anew from the last entry it
handed on, and a hole that stays in an unfiltered stream is data loss (`LogGap`). A consumer that
falls silent (server restarted, consumer gone) is replaced within two seconds or so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import nats.errors
import structlog

from eventsched.errors import LogGap, NoServer, PermissionDenied
from eventsched.log import seams
from eventsched.log.holes import HOLES_MAX, lost_event
from eventsched.log.link import Link
from eventsched.log.port import Entry
from eventsched.log.streams import NANOS

_log = structlog.get_logger("eventsched.reader")

REQUEST_MESSAGES = 4_000
REQUEST_BYTES = 8 * 1024 * 1024
EXPIRES_S = 30
HEARTBEAT_S = 1.0
SILENT_S = 2.5
MISSING_S = 10.0
_STREAM_NOT_FOUND = 10059
_new_tuple = tuple.__new__  # half the price of calling Entry(...), a million times a replay
_TRANSIENT = (TimeoutError, OSError, nats.errors.Error, asyncio.IncompleteReadError)


class _NoStream(Exception):
    """The server answers and has no such stream (for a moment after a restart, or for good)."""


class StreamReader:
    """`Feed` over one JetStream stream. contiguous: every sequence must be there (EV, unfiltered)."""

    def __init__(
        self, link: Link, stream: str, from_seq: int, subjects: Sequence[str] = (), *, contiguous: bool = False
    ) -> None:
        self.pending = -1
        self._link = link
        self._stream = stream
        self._next = max(1, from_seq)
        self._subjects = list(subjects)
        self._contiguous = contiguous and not subjects
        self._runs: list[tuple[list[Entry], int]] = []
        self._ready = asyncio.Event()
        self._failure: Exception | None = None
        self._consumer = ""
        self._consumer_seq = 0
        self._prefix = 0
        self._credit = 0
        self._inbox = ""
        self._sid = b""
        self._subscription: Any = None
        self._heard = 0.0
        self._restart = asyncio.Event()
        self._asking: set[asyncio.Task[None]] = set()
        self._holes = 0
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    # ---- Feed -----------------------------------------------------------------------------

    async def get(self, timeout: float | None = None) -> list[Entry]:
        """See `Feed.get`. Raises LogGap, PermissionDenied."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_consumer())
        if not self._runs:
            self._ready.clear()
            if self._failure is not None:
                raise self._failure
            try:
                async with asyncio.timeout(timeout):
                    await self._ready.wait()
            except TimeoutError:
                return []
            if self._failure is not None and not self._runs:
                raise self._failure
        entries, self.pending = self._runs.pop(0)
        return entries

    async def __aiter__(self) -> AsyncIterator[list[Entry]]:
        while True:
            yield await self.get()

    async def close(self) -> None:
        """See `Feed.close`."""
        self._closed = True
        self._restart.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._drop_consumer()

    # ---- the consumer ---------------------------------------------------------------------

    async def _keep_consumer(self) -> None:
        missing_since: float | None = None
        try:
            while not self._closed:
                try:
                    await self._make_consumer()
                    missing_since = None
                except (LogGap, PermissionDenied):
                    raise
                except _NoStream:
                    missing_since = missing_since or time.monotonic()
                    if time.monotonic() - missing_since > MISSING_S:
                        raise NoServer(
                            f"stream {self._stream} is gone from {self._link.url}",
                            "restore it from a replica or a backup",
                        ) from None
                    await asyncio.sleep(0.2)
                    continue
                except _TRANSIENT as error:
                    _log.debug("reader_retry", stream=self._stream, error=str(error) or type(error).__name__)
                    await asyncio.sleep(0.1)
                    continue
                await self._watch()
                await self._drop_consumer()
        except Exception as error:
            self._failure = error
            self._ready.set()

    async def _watch(self) -> None:
        """Return when the consumer must be replaced."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S / 2):
                    await self._restart.wait()
            except TimeoutError:
                if time.monotonic() - self._heard > SILENT_S:
                    _log.debug("reader_silent", stream=self._stream, next=self._next)
                    return
                continue
            return

    async def _make_consumer(self) -> None:
        async with asyncio.timeout(1):  # not wait_for: on 3.11 it may swallow our own cancellation
            await self._link.connected.wait()
        self._restart.clear()
        config: dict[str, Any] = {
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._next,
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 30 * NANOS,
        }
        if self._subjects:
            config["filter_subjects"] = self._subjects
        body = msgspec.json.encode({"stream_name": self._stream, "config": config})
        raw = await self._link.request(f"$JS.API.CONSUMER.CREATE.{self._stream}", body, timeout=2)
        reply = msgspec.json.decode(raw)
        if reply.get("error", {}).get("err_code") == _STREAM_NOT_FOUND:
            raise _NoStream
        if "error" in reply:
            raise nats.errors.Error(str(reply["error"].get("description")))
        self._consumer = reply["name"]
        self._consumer_seq = self._prefix = 0
        self._credit = 0
        if not reply.get("num_pending") and not self._runs:
            self.pending = 0
        self._inbox = self._link.client.new_inbox()
        self._subscription = await self._link.client.subscribe(self._inbox, cb=_ignore)
        self._sid = str(self._subscription._id).encode()
        self._link.parser.sinks[self._sid] = self._take
        self._heard = time.monotonic()
        self._credit = 2 * REQUEST_MESSAGES
        await self._ask(REQUEST_MESSAGES)
        await self._ask(REQUEST_MESSAGES)

    async def _drop_consumer(self) -> None:
        self._link.parser.sinks.pop(self._sid, None)
        subscription, self._subscription = self._subscription, None
        consumer, self._consumer = self._consumer, ""
        if subscription is None or self._link.client.is_closed:
            return
        try:
            await subscription.unsubscribe()
            await self._link.client.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{consumer}")
        except _TRANSIENT:
            pass  # it goes by itself when it is not used

    async def _ask(self, count: int) -> None:
        body = msgspec.json.encode(
            {
                "batch": count,
                "max_bytes": REQUEST_BYTES,
                "expires": EXPIRES_S * NANOS,
                "idle_heartbeat": int(HEARTBEAT_S * NANOS),
            }
        )
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        try:
            await self._link.client.publish(subject, body, reply=self._inbox)
        except _TRANSIENT:
            self._restart.set()

    def _ask_soon(self) -> None:
        count = 2 * REQUEST_MESSAGES - self._credit
        self._credit += count
        task = asyncio.get_running_loop().create_task(self._ask(count))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    # ---- what arrives ---------------------------------------------------------------------

    def _take(self, deliveries: list[seams.Delivery]) -> None:
        """Called from the socket with a run of messages: check, convert, hand on. Never waits.

        A consumer is done for once it is to be replaced: what it still delivers comes again from the next
        one, and a hole in it is one hole, however many runs of messages follow.
        A reply subject reads `$JS.ACK.<stream>.<consumer>.1.<sequence>.<consumer's>.<time ns>.<pending>`.
        """
        if self._restart.is_set():
            return
        self._heard = time.monotonic()
        entries: list[Entry] = []
        contiguous, prefix = self._contiguous, self._prefix
        expected, consumer_seq = self._next, self._consumer_seq
        pending, hole = b"0", 0
        for subject, reply, payload, status in deliveries:
            if not reply:
                self._take_status(status)
                continue
            if not prefix:
                prefix = self._prefix = len(b".".join(reply.split(b".")[:5])) + 1
            stream_seq, own_seq, nanos, pending = reply[prefix:].split(b".")
            seq = int(stream_seq)
            consumer_seq += 1
            if seq != expected and (contiguous or int(own_seq) != consumer_seq):
                hole = seq
                break
            expected = seq + 1
            entries.append(_new_tuple(Entry, (seq, int(nanos[:-6]), subject.decode(errors="replace"), payload)))
        self._next, self._consumer_seq = expected, consumer_seq
        self._credit -= len(entries)
        if self._credit < REQUEST_MESSAGES:
            self._ask_soon()
        if entries:
            self._holes = 0
            self._runs.append((entries, int(pending)))
            self._ready.set()
        if hole:
            self._hole(expected, hole)

    def _take_status(self, header: bytes) -> None:
        line, _, rest = header.partition(b"\r\n")
        code = line[9:12]
        if code == b"100":
            return
        if code == b"408" or b"Exceeds" in line or b"Batch Completed" in line:
            for row in rest.split(b"\r\n"):
                name, _, value = row.partition(b": ")
                if name.lower() == b"nats-pending-messages":
                    self._credit -= int(value)
            if self._credit < REQUEST_MESSAGES:
                self._ask_soon()
            return
        _log.debug("reader_status", stream=self._stream, status=line.decode(errors="replace"))
        self._restart.set()

    def _hole(self, expected: int, got: int) -> None:
        """A consumer may lose its place; a stream may not: the same hole thrice is a lost event."""
        self._holes += 1
        if self._holes >= HOLES_MAX and self._contiguous:
            self._failure = lost_event(self._stream, expected, got)
            self._ready.set()
        self._restart.set()


async def _ignore(_: object) -> None:
    """Messages go to the sink; nats-py needs a callback to leave the subscription alone."""
