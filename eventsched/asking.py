"""Asking schedulers: reads are answered by any of them, also while one of them is frozen."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec
import nats.errors

from eventsched import query
from eventsched.errors import Ambiguous, EventschedError, NoScheduler, NotFound, WaitTimeout
from eventsched.log.link import Link

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
