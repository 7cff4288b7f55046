"""The end of a job's output, for clients that want it with the job."""

from __future__ import annotations

import time
from collections import OrderedDict

from msgspec import Struct

from eventsched import subjects
from eventsched.client import Client
from eventsched.errors import EventschedError
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.streams import LOGS
from eventsched.views import JobView

TAIL_BYTES = 64 * 1024
CACHED_MAX = 512
FRESH_S = 0.5
"""The output of a job that runs is read again after this."""
READ_TIMEOUT_S = 2.0
ASK_S = 0.02


class _Tail(Struct):
    text: str
    read_mono: float


class Tails:
    """Reads the ends of outputs, and keeps those that were asked for last."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: OrderedDict[tuple[str, int], _Tail] = OrderedDict()

    async def of(self, view: JobView) -> str:
        """The last 64 KiB of what the job's last run wrote; "" when there is none (yet)."""
        if not view.tries or view.tries[-1].log_chunks == 0 or view.driver == "manual":
            return ""
        last = view.tries[-1]
        key = (subjects.logs(view.tenant, last.node, last.run), last.log_chunks)
        known = self._known.get(key)
        if known is not None and (last.log_chunks > 0 or time.monotonic() - known.read_mono < FRESH_S):
            self._known.move_to_end(key)
            return known.text
        text, chunks = await self._read(key[0])
        if last.log_chunks < 0 or chunks >= last.log_chunks:
            self._known[key] = _Tail(text, time.monotonic())
            while len(self._known) > CACHED_MAX:
                self._known.popitem(last=False)
        return text

    async def _read(self, subject: str) -> tuple[str, int]:
        """(the end of what is stored, number of chunks)."""
        tail, chunks = b"", 0
        deadline = time.monotonic() + READ_TIMEOUT_S
        feed = JetStreamLog(self._client.link, stream=LOGS, direct=True).read(1, [subject])
        try:
            while feed.pending != 0 and time.monotonic() < deadline:
                entries = await feed.get(ASK_S)
                chunks += len(entries)
                tail = b"".join((tail, *(entry.payload for entry in entries)))[-TAIL_BYTES:]
        except EventschedError:
            return "", 0  # no stream of output: the job can be answered without
        finally:
            await feed.close()
        return tail.decode(errors="replace"), chunks
