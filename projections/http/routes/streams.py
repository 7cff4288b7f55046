"""What goes on: events of the log and output of jobs, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from eventsched.log.link import Link
from eventsched.outputs import OutputChunk, read_output
from eventsched.projections.http.auth import Caller
from eventsched.projections.http.bodies import encode, reads
from eventsched.projections.http.desk import MIN_SEQ_MAX, Asked, Desk, come_in
from eventsched.projections.http.errors import ApiError, Detail
from eventsched.projections.http.feed import frame
from eventsched.projections.http.routes.jobs import TAGS, Tenant
from eventsched.views import JobView

EVENTS = "text/event-stream"
LastId = Annotated[str, HeaderParameter(name="Last-Event-ID", description="where a broken stream is to go on")]
Seq = Annotated[int, QueryParameter(ge=0, le=MIN_SEQ_MAX, description="the first event; 0 = see the text")]
Follow = Annotated[bool, QueryParameter(description="go on as it happens; otherwise end with what there is")]


async def _counted(desk: Desk, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    desk.streams += 1
    try:
        async for part in frames:
            if desk.closing:
                return
            yield part
    finally:
        desk.streams -= 1


def _check_room(desk: Desk) -> None:
    if desk.streams >= desk.limits.streams:
        text = f"{desk.streams} clients follow; the limit is {desk.limits.streams}"
        raise ApiError(429, "TOO_MANY_STREAMS", text, Retry_After="5")


def _after(last_id: str) -> int:
    """The number of the last event a client has got; 0 = none."""
    if not last_id:
        return 0
    if not (last_id.isascii() and last_id.isdigit() and len(last_id) <= 16):
        raise ApiError(
            422,
            "VALIDATION_ERROR",
            "Last-Event-ID is not one of ours",
            [Detail("Last-Event-ID", "bad_value", "a number")],
        )
    return int(last_id)


@reads("/events", str, media=EVENTS, summary="Events of the log", tags=["events"])
async def events(
    request: Asked,
    from_seq: Seq = 0,
    job: Annotated[str, QueryParameter(max_length=80, description="only what is about this job")] = "",
    tenant: Tenant = "",
    follow: Follow = False,
    last_id: LastId = "",
) -> Stream:
    """Server-sent events; the id of each is its sequence, so that `Last-Event-ID` resumes.

    Without `from_seq`: from the job's submission; else, following, from now on; else from the first.
    A tenant sees what is about its own jobs.
    """
    desk, caller = come_in(request)
    desk.check_ready()
    _check_room(desk)
    view = await desk.job(caller, job, tenant) if job else None
    last = _after(last_id)
    start = last + 1 if last else from_seq
    if not start:
        start = view.seq if view is not None else desk.follower.state.seq + 1 if follow else 1
    frames = desk.feed.frames(start, follow=follow, job=view, tenant=caller.tenant)
    return Stream(_counted(desk, frames), media_type=EVENTS, headers={"Cache-Control": "no-cache"})


@reads("/jobs/{job_id:str}/logs", str, media="text/plain", summary="A job's output", tags=TAGS)
async def logs(
    job_id: FromPath[str], request: Asked, tenant: Tenant = "", follow: Follow = False, last_id: LastId = ""
) -> Stream:
    """Text: all there is, run after run. With `follow`, server-sent events `stdout` and `stderr` (the data
    is a JSON string), and `end` with the job's state when it has ended."""
    desk, caller = come_in(request)
    view = await desk.job(caller, job_id, tenant)
    if not follow:
        chunks = read_output(_Jobs(desk, caller), view, False)
        return Stream(_data(chunks), media_type="text/plain; charset=utf-8")
    _check_room(desk)
    frames = _output(desk, caller, view, _after(last_id))
    return Stream(_counted(desk, frames), media_type=EVENTS, headers={"Cache-Control": "no-cache"})


class _Jobs:
    """Where `read_output` looks jobs up: this process's own replica, which costs the schedulers nothing."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller

    @property
    def link(self) -> Link:
        """The connection output is read through."""
        return self._desk.client.link

    async def get(self, job_id: str, *, tenant: str = "") -> JobView:
        """The job as it is now."""
        return await self._desk.job(self._caller, job_id, tenant)


async def _data(chunks: AsyncIterator[OutputChunk]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk.data


async def _output(desk: Desk, caller: Caller, view: JobView, skip: int) -> AsyncIterator[bytes]:
    number = 0
    jobs = _Jobs(desk, caller)
    async for chunk in read_output(jobs, view, True):
        number += 1
        if number > skip:
            yield frame(number, chunk.stream, encode(chunk.data.decode(errors="replace")))
    ended = await jobs.get(view.job_id, tenant=view.tenant)
    yield frame(number + 1, "end", encode({"state": ended.state, "exit_code": ended.exit_code}))


ROUTES = [events, logs]
