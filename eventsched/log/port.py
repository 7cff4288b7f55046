"""The port: what the rest of the system may expect of a log, and nothing of how it is kept.

Writing: `append` stores all messages or none, in order, with contiguous sequences. It either
returns the last sequence or raises one of the errors below, and each error says whether
something may have been stored; only `OutcomeUnknown` leaves it open.
Reading: `read` yields entries in sequence order without gaps, for ever.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from eventsched.errors import EventschedError

BATCH_MAX = 1_000
"""Messages in one atomic append."""


class Entry(NamedTuple):
    """A stored message: stream sequence, stored time (ms), subject, payload."""

    seq: int
    at_ms: int
    subject: str
    payload: bytes


class Outgoing(Struct, frozen=True):
    """A message to append.

    msg_id: the broker drops a second message with this id inside the duplicate window.
    expect: the last sequence of this very subject must be this (0 = the subject is new).
    """

    subject: str
    payload: bytes
    msg_id: str = ""
    expect: int | None = None


class AppendError(EventschedError):
    """An append that was not acknowledged; nothing was stored, unless it is OutcomeUnknown."""


class Fenced(AppendError):
    """Somebody else has claimed the lead: stop leading. Nothing was stored."""


class Conflict(AppendError):
    """An `expect` does not hold. Nothing was stored."""


class Duplicate(AppendError):
    """A message id of the batch is stored already. Nothing was stored now."""


class Busy(AppendError):
    """Another conditional write on the subject is in flight: try again. Nothing was stored."""


class Unavailable(AppendError):
    """The log cannot be reached at present. Nothing was stored."""


class Denied(AppendError):
    """This user may not write that subject. Nothing was stored."""


class Refused(AppendError):
    """The log will never take this (too large, store full, …). Nothing was stored."""


class OutcomeUnknown(AppendError):
    """No answer came: all of it was stored, or nothing was."""


class EventLog(Protocol):
    """A log."""

    async def append(self, messages: Sequence[Outgoing], *, fence: int | None = None) -> int:
        """Store all messages (1 to BATCH_MAX) or none; the sequence of the last one.

        fence: the last sequence on `ev.leader` must be this, else `Fenced`.
        """
        ...

    async def last_on(self, subject: str) -> tuple[int, str] | None:
        """Sequence and message id of the newest entry on one subject; None when there is none."""
        ...

    def read(self, from_seq: int, subjects: Sequence[str] = ()) -> Feed:
        """Entries from `from_seq` on, for ever; `subjects` restricts them (with NATS wildcards)."""
        ...


class Feed(Protocol):
    """A reader's position in a log."""

    pending: int
    """How many entries the log held beyond the last one yielded, when that was sent; -1 = not known yet."""

    def __aiter__(self) -> AsyncIterator[list[Entry]]: ...

    async def get(self, timeout: float | None = None) -> list[Entry]:
        """The next entries, at least one; [] when `timeout` seconds pass without any."""
        ...

    async def close(self) -> None:
        """Stop reading and free what the reader holds."""
        ...
