"""Gathering: concurrent writes of one process become atomic batches.

A lone acknowledged write pays its own fsync; a batch pays one for all. One batch is in flight at
a time, and what arrives meanwhile forms the next one, so an idle writer waits for nobody and a
busy one batches by itself. Order is kept. Each caller learns the fate of its own message: a
batch is all or nothing, so when one member is refused the batch is halved until the culprit
stands alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from eventsched.log.port import (
    AppendError,
    Busy,
    Conflict,
    Duplicate,
    EventLog,
    OutcomeUnknown,
    Outgoing,
    Unavailable,
)

_log = structlog.get_logger("eventsched.gather")

GATHER_MAX = 500
GATHER_BYTES_MAX = 2 * 1024 * 1024
RETRY_S = (0.05, 0.1, 0.25)

Done = Callable[[int | AppendError], None]
"""Told the sequence of a stored message, or why it was not stored."""

_Waiting = tuple[Outgoing, Done]


class GatheringWriter:
    """Writes messages to a log in batches.

    give_up_s: how long to go on trying while the log is out of reach; None = for ever.
    linger_s: right after a batch, wait this long for more to join the next one. Many writers share one
    log, and few large batches cost it far less than many small ones; an idle writer never lingers.
    regather_s: if the first message comes so soon after a batch, wait this long for others: callers who were
    answered together ask again together, and would else be a batch of one and a batch of the rest.
    """

    def __init__(
        self, log: EventLog, give_up_s: float | None = None, linger_s: float = 0.0, regather_s: float = 0.0
    ) -> None:
        self._log = log
        self._linger_s = linger_s
        self._regather_s = regather_s
        self._give_up_s = give_up_s
        self._queue: deque[_Waiting] = deque()
        self._parts: deque[list[_Waiting]] = deque()
        """Taken from the queue and not told yet: a batch, or what it was split into. The first is being written."""
        self._unknown: OutcomeUnknown | None = None
        """Set once an attempt to write the present batch had no answer: parts of it may be stored."""
        self._closed = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def post(self, message: Outgoing, done: Done) -> None:
        """Queue a message; `done` is called when its fate is known."""
        if self._closed:
            _tell(done, Unavailable("the writer was closed"))
            return
        self._queue.append((message, done))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        if self._idle.is_set():
            self._idle.clear()
            self._wake.set()

    def put_soon(self, message: Outgoing) -> asyncio.Future[int]:
        """Queue a message; the future gives its sequence, or raises an AppendError."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def done(outcome: int | AppendError) -> None:
            if future.done():
                return
            if isinstance(outcome, int):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

        self.post(message, done)
        return future

    def put_all(self, messages: Sequence[Outgoing]) -> asyncio.Future[list[int | AppendError]]:
        """Queue messages; the future gives the fate of each, in order, once all are known."""
        future: asyncio.Future[list[int | AppendError]] = asyncio.get_running_loop().create_future()
        fates: dict[int, int | AppendError] = {}

        def done(index: int, outcome: int | AppendError) -> None:
            fates[index] = outcome
            if len(fates) == len(messages) and not future.done():
                future.set_result([fates[one] for one in range(len(messages))])

        for index, message in enumerate(messages):
            self.post(message, partial(done, index))
        if not messages:
            future.set_result([])
        return future

    async def put(self, message: Outgoing) -> int:
        """Write one message; its sequence. Raises AppendError."""
        return await self.put_soon(message)

    async def drain(self) -> None:
        """Wait until everything queued has met its fate."""
        await self._idle.wait()

    async def close(self) -> None:
        """Stop for good. A batch in flight has an unknown outcome; what is queued or yet to come is Unavailable."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        while self._parts:
            self._told(OutcomeUnknown("the writer was closed during the write"))
        while self._queue:
            _tell(self._queue.popleft()[1], Unavailable("the writer was closed"))
        self._idle.set()

    async def _run(self) -> None:
        await self._write_batch()  # posted to a writer at rest
        loop = asyncio.get_running_loop()
        written = loop.time()
        while True:
            if not self._queue:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
                if loop.time() < written + self._regather_s:
                    await asyncio.sleep(self._regather_s)
            elif self._linger_s and len(self._queue) < GATHER_MAX:
                await asyncio.sleep(self._linger_s)
            await self._write_batch()
            written = loop.time()

    async def _write_batch(self) -> None:
        self._unknown = None
        self._parts.append(self._next_batch())
        while self._parts:
            await self._write_part()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        seen: dict[str, None] = {}  # one subject or id twice in a batch is refused as a whole
        while self._queue and len(batch) < GATHER_MAX and size < GATHER_BYTES_MAX:
            message = self._queue[0][0]
            marks = [message.msg_id, message.subject if message.expect is not None else ""]
            if any(mark in seen for mark in marks if mark):
                break
            seen.update(dict.fromkeys(marks))
            item = self._queue.popleft()
            batch.append(item)
            size += len(item[0].payload)
        return batch

    async def _write_part(self) -> None:
        """Write the first part and tell its fate, or split it to find the culprit."""
        part = self._parts[0]
        try:
            last = await self._append([message for message, _ in part])
        except (Conflict, Duplicate) as error:
            if len(part) > 1:
                self._split()
            else:
                self._told(await self._settled(part[0][0], error))
        except AppendError as error:
            self._told(error)
        except Exception as error:  # a defect of ours must not leave callers waiting for ever
            _log.exception("gathering_failed", messages=len(part))
            self._told(OutcomeUnknown(f"the write failed: {type(error).__name__}: {error}"))
        else:
            self._told(last)

    def _split(self) -> None:
        part = self._parts.popleft()
        middle = len(part) // 2
        self._parts.extendleft((part[middle:], part[:middle]))

    def _told(self, outcome: int | AppendError) -> None:
        """The first part has met its fate: stored up to this sequence, or refused."""
        part = self._parts.popleft()
        for back, (_, done) in zip(range(len(part) - 1, -1, -1), part, strict=True):
            _tell(done, outcome - back if isinstance(outcome, int) else outcome)

    async def _append(self, messages: list[Outgoing]) -> int:
        """Append, again and again while it may still succeed. A second attempt after an unknown
        outcome is safe: ids and expectations mark what is stored already, and messages without
        either are such that a repetition says nothing new. Once an outcome was unknown, no later
        error says that nothing is stored."""
        loop = asyncio.get_running_loop()
        deadline = None if self._give_up_s is None else loop.time() + self._give_up_s
        attempt = 0
        while True:
            try:
                return await self._log.append(messages)
            except (Conflict, Duplicate):
                raise
            except (Busy, Unavailable, OutcomeUnknown) as error:
                if isinstance(error, OutcomeUnknown):
                    self._unknown = error
                if deadline is not None and loop.time() >= deadline:
                    raise self._unknown or error from None
                if attempt == 3:
                    waiting = sum(map(len, self._parts)) + len(self._queue)
                    _log.info("log_unavailable", error=str(error), waiting=waiting)
            except AppendError as error:
                raise self._unknown or error from None
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1

    async def _settled(self, message: Outgoing, error: AppendError) -> int | AppendError:
        """The same message stored by an earlier attempt of ours is a success."""
        if message.msg_id:
            try:
                stored = await self._log.last_on(message.subject)
            except Exception:
                stored = None
            if stored is not None and stored[1] == message.msg_id:
                return stored[0]
        return error


def _tell(done: Done, outcome: int | AppendError) -> None:
    try:
        done(outcome)
    except Exception:  # one caller's defect must not keep the others waiting
        _log.exception("caller_failed", outcome=str(outcome))
