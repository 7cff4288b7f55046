"""A log in memory: the same promises as JetStream, for tests, simulation and what-if.

`MemoryCore` is synchronous and knows no clock: the caller says what time it is. `MemoryLog`
is the asyncio adapter over it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

from eventsched.log.matching import matches
from eventsched.log.port import BATCH_MAX, Busy, Conflict, Duplicate, Entry, Fenced, Outgoing, Refused
from eventsched.subjects import LEADER


class MemoryCore:
    """The rules of the log, without waiting."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._last: dict[str, int] = {}
        self._ids: dict[str, int] = {}
        self._id_at: dict[int, str] = {}

    @property
    def last_seq(self) -> int:
        """The sequence of the newest entry, 0 = empty."""
        return len(self.entries)

    def append(self, messages: Sequence[Outgoing], at_ms: int, fence: int | None = None) -> int:
        """As `EventLog.append`, at the given time."""
        if not 1 <= len(messages) <= BATCH_MAX:
            raise Refused(f"{len(messages)} messages in one append; 1 to {BATCH_MAX} are allowed")
        if fence is not None and self._last.get(LEADER, 0) != fence:
            raise Fenced(f"fence {fence}, last claim {self._last.get(LEADER, 0)}")
        expecting = [message.subject for message in messages if message.expect is not None]
        if len(dict.fromkeys(expecting)) < len(expecting):
            raise Busy("one subject twice in a batch, with an expectation")  # as the server does, every time
        for message in messages:
            last = self._last.get(message.subject, 0)
            if len(messages) == 1 and message.expect is not None and last != message.expect:
                raise Conflict(f"{message.subject} is at {last}, not {message.expect}")
            if message.msg_id and message.msg_id in self._ids:
                if len(messages) == 1:
                    return self._ids[message.msg_id]
                raise Duplicate(f"message id {message.msg_id} is stored already")
            if message.expect is not None and last != message.expect:
                raise Conflict(f"{message.subject} is at {last}, not {message.expect}")
        for message in messages:
            seq = len(self.entries) + 1
            self.entries.append(Entry(seq, at_ms, message.subject, message.payload))
            self._last[message.subject] = seq
            if message.msg_id:
                self._ids[message.msg_id] = seq
                self._id_at[seq] = message.msg_id
        return len(self.entries)

    def last_on(self, subject: str) -> tuple[int, str] | None:
        """As `EventLog.last_on`."""
        seq = self._last.get(subject)
        return None if seq is None else (seq, self._id_at.get(seq, ""))

    def slice(self, from_seq: int, subjects: Sequence[str] = ()) -> list[Entry]:
        """Stored entries from `from_seq` on that fit one of `subjects` (all, when there are none)."""
        found = self.entries[max(from_seq, 1) - 1 :]
        if subjects:
            found = [entry for entry in found if any(matches(pattern, entry.subject) for pattern in subjects)]
        return found


class MemoryLog:
    """`EventLog` over a `MemoryCore`; `clock` gives milliseconds."""

    def __init__(self, core: MemoryCore | None = None, clock: Callable[[], int] | None = None) -> None:
        self.core = core or MemoryCore()
        self._clock = clock or (lambda: time.time_ns() // 1_000_000)
        self._grown = asyncio.Condition()

    async def append(self, messages: Sequence[Outgoing], *, fence: int | None = None) -> int:
        """See `EventLog.append`."""
        seq = self.core.append(messages, self._clock(), fence)
        async with self._grown:
            self._grown.notify_all()
        return seq

    async def last_on(self, subject: str) -> tuple[int, str] | None:
        """See `EventLog.last_on`."""
        return self.core.last_on(subject)

    def read(self, from_seq: int, subjects: Sequence[str] = ()) -> MemoryFeed:
        """See `EventLog.read`."""
        return MemoryFeed(self, from_seq, subjects)


class MemoryFeed:
    """`Feed` over a `MemoryLog`."""

    def __init__(self, log: MemoryLog, from_seq: int, subjects: Sequence[str]) -> None:
        self._log = log
        self._next = from_seq
        self._subjects = subjects
        self.pending = -1

    async def get(self, timeout: float | None = None) -> list[Entry]:
        """See `Feed.get`."""
        try:
            async with asyncio.timeout(timeout):
                async with self._log._grown:
                    await self._log._grown.wait_for(lambda: self._log.core.slice(self._next, self._subjects))
        except TimeoutError:
            return []
        found = self._log.core.slice(self._next, self._subjects)
        self._next = found[-1].seq + 1
        self.pending = 0
        return found

    async def __aiter__(self) -> AsyncIterator[list[Entry]]:
        while True:
            yield await self.get()

    async def close(self) -> None:
        """See `Feed.close`."""
