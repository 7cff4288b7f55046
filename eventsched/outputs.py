"""Reading a job's output from LOGS: from the start, at any time, also after the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Protocol

import nats.errors
from msgspec import Struct

from eventsched import subjects
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


async def read_output(client: Jobs, view: JobView, follow: bool) -> AsyncIterator[OutputChunk]:
    """The output of a job's runs, oldest run first."""
    read: dict[int, int] = {}
    done: dict[int, None] = {}
    while True:
        view = await client.get(view.job_id, tenant=view.tenant)
        for one in view.tries:
            if one.run in done:
                continue
            async for chunk in _read_run(client, view, one.node, one.run, one.log_chunks, read, follow):
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
    client: Jobs, view: JobView, node: str, run: int, total: int, read: dict[int, int], follow: bool
) -> AsyncIterator[OutputChunk]:
    """One run's chunks that were not read yet, until all are there (`total`; -1 = it runs)."""
    if total == 0:
        return
    subject = subjects.logs(view.tenant, node, run)
    jetstream = client.link.client.jetstream()
    subscription = await jetstream.subscribe(subject, stream=LOGS, ordered_consumer=True)
    seen = 0
    asked_at = started = time.monotonic()
    try:
        while total < 0 or seen < total:
            try:
                message = await subscription.next_msg(timeout=POLL_S)
            except (TimeoutError, nats.errors.TimeoutError):
                if total >= 0 and time.monotonic() - started > CATCH_UP_S:
                    return  # the stream has let go of its oldest output
                if not follow and total < 0 and seen >= read.get(run, 0):
                    return
                if total < 0 and time.monotonic() - asked_at > POLL_S:
                    asked_at = time.monotonic()
                    fresh = await client.get(view.job_id, tenant=view.tenant)
                    known = {one.run: one.log_chunks for one in fresh.tries}
                    total = known.get(run, seen)
                    started = time.monotonic()
                continue
            seen += 1
            if seen <= read.get(run, 0):
                continue
            read[run] = seen
            stream = (message.headers or {}).get("Nats-Msg-Id", "").rpartition(".")[2] or "stdout"
            yield OutputChunk(run, stream, message.data)
    finally:
        await subscription.unsubscribe()
