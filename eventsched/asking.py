"""Asking schedulers: reads are answered by any of them, also while one of them is frozen."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec
import nats.errors

from eventsched import codec, query
from eventsched.errors import Ambiguous, EventschedError, NoScheduler, NotFound, WaitTimeout
from eventsched.events import PolicyJudged
from eventsched.log.link import Link
from eventsched.log.port import EventLog

ATTEMPTS = 16
HEDGE_S = 0.5
RETRY_S = 0.2

Answer = TypeVar("Answer")


class Asker:
    """Questions of one client (subjects and requests: `eventsched.query`)."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ask(
        self, subject: str, request: Any, kind: type[Answer], patience_s: float = HEDGE_S, attempts: int = ATTEMPTS
    ) -> Answer:
        """Ask any scheduler. One that is frozen may be handed the question, so after `patience_s` it is
        asked again, most likely of another; the first answer counts.

        Raises NoScheduler, or what the scheduler answered: NotFound, Ambiguous, WaitTimeout.
        """
        payload = msgspec.json.encode(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s * attempts
        asked: set[asyncio.Task[Any]] = set()
        try:
            while loop.time() < deadline:
                asked.add(asyncio.ensure_future(self._once(subject, payload, deadline - loop.time())))
                done, asked = await asyncio.wait(asked, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    reply = task.result()
                    if reply is None:
                        await asyncio.sleep(RETRY_S)
                    elif reply.headers and query.ERROR_HEADER in reply.headers:
                        raise _refusal(reply)
                    else:
                        return msgspec.json.decode(reply.data, type=kind)
        finally:
            for task in asked:
                task.cancel()
        raise NoScheduler(
            f"the log at {self._link.url} is there, but no scheduler answers",
            "start one with `eventsched scheduler` (or `eventsched dev`)",
        )

    async def _once(self, subject: str, payload: bytes, timeout_s: float) -> Any:
        """The reply, or None when nobody is there to answer."""
        try:
            return await self._link.guard(subject, self._link.client.request(subject, payload, timeout=timeout_s))
        except (TimeoutError, nats.errors.Error):
            return None


async def policy_answer(log: EventLog, request: int, timeout_s: float) -> int:
    """Sequence of the leader's answer to the `policy_set` at sequence `request`.

    Raises EventschedError when it was refused, NoScheduler when nobody answers in time.
    """
    feed = log.read(request, ["ev.decide.policy_judged"])
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                for entry in await feed.get(1):
                    event = codec.decode(entry.subject, entry.payload)
                    if isinstance(event, PolicyJudged) and event.request == request:
                        if event.refused:
                            raise EventschedError(event.refused, "see `eventsched policy list`")
                        return int(entry.seq)
    except TimeoutError:
        raise NoScheduler("no scheduler has answered yet", "the request is in the log, and will be judged") from None
    finally:
        await feed.close()


def _refusal(reply: Any) -> EventschedError:
    code, text = reply.headers.get(query.ERROR_CODE_HEADER), reply.headers[query.ERROR_HEADER]
    hint = ""
    if reply.data:
        try:
            body = msgspec.json.decode(reply.data)
            text, hint = body.get("message", text), body.get("hint", "")
        except msgspec.MsgspecError:
            pass
    kind = {"404": NotFound, "409": Ambiguous, "504": WaitTimeout}.get(code or "", EventschedError)
    return kind(text, hint)
