"""Reading a stream by direct gets: page after page, each one request with many answers.

Nothing is kept on the server, so nothing is left behind there, and a user needs one right only.
It is a right that can be given to people who are not trusted: making consumers cannot, since a
consumer delivers wherever its maker says. `StreamReader` is faster and hears of news at once;
this one has to ask for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
import nats.errors
import structlog

from eventsched.errors import NoServer
from eventsched.log import seams
from eventsched.log.holes import HOLES_MAX, lost_event
from eventsched.log.link import Link
from eventsched.log.matching import matches
from eventsched.log.port import Entry

PAGE_MESSAGES = 2_000
PAGE_BYTES = 4 * 1024 * 1024
PAGE_TIMEOUT_S = 5.0
POLL_MIN_S = 0.02
POLL_MAX_S = 0.25
RETRY_S = 0.1
MISSING_S = 10.0
_log = structlog.get_logger("eventsched.direct")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TRANSIENT = (TimeoutError, OSError, nats.errors.Error)


class Page(NamedTuple):
    """What one request found: entries, their message ids ("" = none), and how many more there were."""

    entries: list[Entry]
    msg_ids: list[str]
    pending: int


NOTHING = Page([], [], 0)


async def fetch(link: Link, stream: str, from_seq: int, subject: str = ">") -> Page:
    """Entries of a stream from a sequence on, as many as a page holds; empty when there are none.

    Raises PermissionDenied, NoRespondersError (no such stream, or nobody has it at present), TimeoutError.
    """
    request = f"$JS.API.DIRECT.GET.{stream}"
    asked = {"seq": max(1, from_seq), "next_by_subj": subject, "batch": PAGE_MESSAGES, "max_bytes": PAGE_BYTES}
    page = Page([], [], 0)
    done: asyncio.Future[Page] = asyncio.get_running_loop().create_future()

    def take(deliveries: list[seams.Delivery]) -> None:
        for _, _, payload, block in deliveries:
            if not done.done():
                _take(page, done, payload, block)

    # An inbox for each page: when its subscription ends, the server forgets whose answers go there.
    inbox = link.client.new_inbox()
    subscription = await link.client.subscribe(inbox, cb=_ignore)
    sid = str(subscription._id).encode()
    link.parser.sinks[sid] = take
    try:
        await link.client.publish(request, msgspec.json.encode(asked), reply=inbox)
        async with asyncio.timeout(PAGE_TIMEOUT_S):
            return Page(*await link.guard(request, done))
    finally:
        link.parser.sinks.pop(sid, None)
        if not link.client.is_closed:
            await subscription.unsubscribe()


def _take(page: Page, done: asyncio.Future[Page], payload: bytes, block: bytes) -> None:
    """One answer: an entry, or the end. Headers of the server come last, behind those of whoever wrote it."""
    status, *lines = block.decode(errors="replace").split("\r\n")
    headers = dict(line.partition(": ")[::2] for line in lines)
    code = status[9:12]
    if not code:
        at_ms = (datetime.fromisoformat(headers["Nats-Time-Stamp"]) - _EPOCH) // _MILLISECOND
        page.entries.append(Entry(int(headers["Nats-Sequence"]), at_ms, headers["Nats-Subject"], payload))
        page.msg_ids.append(headers.get("Nats-Msg-Id", ""))
    elif code == "204":
        done.set_result(page._replace(pending=int(headers.get("Nats-Num-Pending", "0"))))
    elif code == "404":
        done.set_result(page)
    elif code == "503":
        done.set_exception(nats.errors.NoRespondersError())
    else:
        done.set_exception(nats.errors.Error(status))


class DirectReader:
    """`Feed` by direct gets. contiguous: every sequence must be there (EV, unfiltered)."""

    def __init__(
        self, link: Link, stream: str, from_seq: int, subjects: Sequence[str] = (), *, contiguous: bool = False
    ) -> None:
        self.pending = -1
        self._link = link
        self._stream = stream
        self._next = max(1, from_seq)
        self._subjects = list(subjects)
        self._contiguous = contiguous and not subjects
        self._holes = 0
        self._reading: asyncio.Task[Page] | None = None

    async def get(self, timeout: float | None = None) -> list[Entry]:
        """See `Feed.get`. Raises LogGap, NoServer, PermissionDenied."""
        return (await self.get_page(timeout)).entries

    async def get_page(self, timeout: float | None = None) -> Page:
        """As `get`, with the message ids."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())
        # A request outlives a caller's patience: a slow page would never come if each call began anew.
        await asyncio.wait((self._reading,), timeout=timeout)
        if not self._reading.done():
            return NOTHING
        page, self._reading = self._reading.result(), None
        self.pending = page.pending
        if page.pending:
            self._reading = asyncio.get_running_loop().create_task(self._read())
        return page

    async def __aiter__(self) -> AsyncIterator[list[Entry]]:
        while True:
            yield await self.get()

    async def close(self) -> None:
        """See `Feed.close`."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> Page:
        """The next page that holds something."""
        subject = self._subjects[0] if len(self._subjects) == 1 else ">"
        wait_s = POLL_MIN_S
        missing_since: float | None = None
        while True:
            await self._link.connected.wait()
            try:
                page = await fetch(self._link, self._stream, self._next, subject)
            except nats.errors.NoRespondersError:
                missing_since = missing_since or time.monotonic()
                if time.monotonic() - missing_since > MISSING_S:
                    raise NoServer(
                        f"nobody serves stream {self._stream} at {self._link.url}", "look at the NATS servers"
                    ) from None
                await asyncio.sleep(RETRY_S)
                continue
            except _TRANSIENT as error:
                _log.debug("direct_retry", stream=self._stream, error=str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_S)
                continue
            missing_since = None
            accepted = self._accept(page)
            if accepted.entries:
                return accepted
            if not page.pending:
                self.pending = 0
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, POLL_MAX_S)

    def _accept(self, page: Page) -> Page:
        """What is wanted of a page, up to a hole if there is one; the same hole thrice is a lost event."""
        entries, msg_ids, pending = page
        expected, count = self._next, len(entries)
        if self._contiguous and entries and entries[-1].seq != expected + count - 1:
            count = next(index for index, entry in enumerate(entries) if entry.seq != expected + index)
            self._holes = 0 if count else self._holes + 1
            if self._holes >= HOLES_MAX:
                raise lost_event(self._stream, expected, entries[0].seq)
        pending += len(entries) - count
        if count:
            self._next = entries[count - 1].seq + 1
        kept = [index for index in range(count) if self._wants(entries[index].subject)]
        return Page([entries[index] for index in kept], [msg_ids[index] for index in kept], pending)

    def _wants(self, subject: str) -> bool:
        return len(self._subjects) < 2 or any(matches(pattern, subject) for pattern in self._subjects)


async def _ignore(_: object) -> None:
    """Answers go to the sink; nats-py needs a callback to leave the subscription alone."""
