"""Asking schedulers: reads are answered by any of them, also while one of them is frozen."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec
import nats.errors

from eventsched import codec, query
from eventsched.errors import (
    Ambiguous,
    EventschedError,
    NoScheduler,
    NotFound,
    PolicyRefused,
    SchedulerFault,
    WaitTimeout,
)
from eventsched.events import PolicyJudged
from eventsched.log.link import Link
from eventsched.log.port import EventLog

ATTEMPTS = 16
HEDGE_S = 0.5
RETRY_S = 0.2
_BUSY = "503"
_REFUSALS: dict[str, type[EventschedError]] = {
    "404": NotFound,
    "409": Ambiguous,
    "500": SchedulerFault,
    "504": WaitTimeout,
}

REPLICAS_S, QUIET_S = 0.5, 0.1
"""How long the statistics of all schedulers may take, and the silence after which no more are awaited."""

Answer = TypeVar("Answer")


class _EndpointNumbers(msgspec.Struct):
    data: Any = None


class _Statistics(msgspec.Struct):
    """As much of the answer to `$SRV.STATS` as is wanted here."""

    endpoints: list[_EndpointNumbers] = []


class Asker:
    """Questions of one client (subjects and requests: `eventsched.query`)."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ask(
        self, subject: str, request: Any, kind: type[Answer], patience_s: float = HEDGE_S, attempts: int = ATTEMPTS
    ) -> Answer:
        """Ask any scheduler. One that is frozen may be handed the question, so after `patience_s` it is
        asked again, most likely of another; the first answer counts. One that has no time says so, and is
        asked again as well.

        Raises NoScheduler, or what the scheduler answered: NotFound, Ambiguous, WaitTimeout, SchedulerFault.
        """
        payload = msgspec.json.encode(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s * attempts
        asked: set[asyncio.Task[Any]] = set()
        busy = ""
        try:
            while loop.time() < deadline:
                asked.add(asyncio.ensure_future(self._once(subject, payload, deadline - loop.time())))
                done, asked = await asyncio.wait(asked, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    reply = task.result()
                    refused = reply is not None and reply.headers and query.ERROR_HEADER in reply.headers
                    if refused and reply.headers.get(query.ERROR_CODE_HEADER) == _BUSY:
                        busy = reply.headers[query.ERROR_HEADER]
                        await asyncio.sleep(RETRY_S)
                    elif refused:
                        raise _refusal(reply)
                    elif reply is None:
                        await asyncio.sleep(RETRY_S)
                    else:
                        return msgspec.json.decode(reply.data, type=kind)
        finally:
            for task in asked:
                task.cancel()
        if busy:
            raise NoScheduler(f"no scheduler has time for this: {busy}", "try again in a moment")
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


async def ask_replicas(link: Link) -> list[query.ReplicaReport]:
    """What every scheduler that answers says of itself, by name. A frozen one is missing."""
    inbox = link.client.new_inbox()
    subscription = await link.client.subscribe(inbox)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + REPLICAS_S
    found: dict[str, query.ReplicaReport] = {}
    try:
        await link.client.publish(f"$SRV.STATS.{query.SERVICE}", b"", reply=inbox)
        while (left_s := deadline - loop.time()) > 0:
            message = await subscription.next_msg(min(left_s, QUIET_S) if found else left_s)
            report = _report_in(message.data)
            if report is not None:
                found[report.scheduler] = report
            elif not message.data:  # the server's word that nobody listens
                break
    except (TimeoutError, nats.errors.Error):
        pass
    finally:
        if not link.client.is_closed:
            await subscription.unsubscribe()
    return [found[name] for name in sorted(found)]


def _report_in(payload: bytes) -> query.ReplicaReport | None:
    """The scheduler's words in the statistics of its service; None if these are of another service."""
    try:
        numbers = msgspec.json.decode(payload, type=_Statistics)
        return next((msgspec.convert(one.data, query.ReplicaReport) for one in numbers.endpoints if one.data), None)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


async def policy_answer(log: EventLog, request: int, timeout_s: float) -> int:
    """Sequence of the leader's answer to the `policy_set` at sequence `request`.

    Raises PolicyRefused, or NoScheduler when nobody answers in time.
    """
    feed = log.read(request, ["ev.decide.policy_judged"])
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                for entry in await feed.get(1):
                    event = codec.decode(entry.subject, entry.payload)
                    if isinstance(event, PolicyJudged) and event.request == request:
                        if event.refused:
                            raise PolicyRefused(event.refused, "see `eventsched policy list`")
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
    return _REFUSALS.get(code or "", EventschedError)(text, hint)
