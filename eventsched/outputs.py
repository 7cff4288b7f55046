"""Reading a job's output from LOGS: from the start, at any time, also after the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Protocol

from msgspec import Struct

from eventsched import subjects
from eventsched.log.direct import DirectReader
from eventsched.log.link import Link
from eventsched.log.streams import LOGS
from eventsched.views import JobView

POLL_S = 0.25
CATCH_UP_S = 5.0


class OutputChunk(Struct, frozen=True):
    """A piece of output: which run, "stdout" or "stderr", the bytes."""

    run: int
    stream: str
    data: bytes


class Jobs(Protocol):
    """Where a job is looked up again and again while its output is read."""

    @property
    def link(self) -> Link:
        """The connection the output is read through."""
        ...

    async def get(self, job_id: str, *, tenant: str = "") -> JobView:
        """The job as it is now."""
        ...


class _Place(Struct):
    """How far a run's output has been read: the next sequence in LOGS, and how many chunks came before."""

    next_seq: int = 1
    chunks: int = 0


async def read_output(client: Jobs, view: JobView, follow: bool) -> AsyncIterator[OutputChunk]:
    """The output of a job's runs, oldest run first."""
    places: dict[int, _Place] = {}
    done: dict[int, None] = {}
    while True:
        view = await client.get(view.job_id, tenant=view.tenant)
        for one in view.tries:
            if one.run in done:
                continue
            place = places.setdefault(one.run, _Place())
            async for chunk in _read_run(client, view, one.node, one.run, one.log_chunks, place, follow):
                yield chunk
            fresh = await client.get(view.job_id, tenant=view.tenant)
            if fresh.run != one.run or fresh.ended:
                done[one.run] = None
            view = fresh
        pending = [one for one in view.tries if one.run not in done]
        if not follow or (view.ended and not pending):
            return
        if not pending:
            await asyncio.sleep(POLL_S)


async def _read_run(
    client: Jobs, view: JobView, node: str, run: int, total: int, place: _Place, follow: bool
) -> AsyncIterator[OutputChunk]:
    """One run's chunks that were not read yet, until all are there (`total`; -1 = it runs)."""
    reader = DirectReader(client.link, LOGS, place.next_seq, [subjects.logs(view.tenant, node, run)])
    ended_at = time.monotonic()
    try:
        while total < 0 or place.chunks < total:
            page = await reader.get_page(POLL_S)
            for entry, msg_id in zip(page.entries, page.msg_ids, strict=True):
                place.next_seq = entry.seq + 1
                place.chunks += 1
                yield OutputChunk(run, msg_id.rpartition(".")[2] or "stdout", entry.payload)
            if page.entries:
                continue
            if total >= 0 and time.monotonic() - ended_at > CATCH_UP_S:
                return  # the stream has let go of its oldest output
            if total < 0 and reader.pending == 0:
                if not follow:
                    return
                fresh = await client.get(view.job_id, tenant=view.tenant)
                total = {one.run: one.log_chunks for one in fresh.tries}.get(run, place.chunks)
                ended_at = time.monotonic()
    finally:
        await reader.close()
