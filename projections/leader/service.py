"""The service of a scheduler over NATS: endpoints, who asks, errors, and the numbers of it.

Every scheduler runs one; NATS hands each request to any of them. A request that comes by
`eventsched.<tenant>.<endpoint>` is of that tenant: see `eventsched.query`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, EndpointStats
from nats.micro.service import Service as MicroService

from eventsched import query
from eventsched.endpoints import ENDPOINTS, Endpoint
from eventsched.errors import (
    Ambiguous,
    DuplicateJob,
    EventschedError,
    NotFound,
    PermissionDenied,
    StoreFull,
    WaitTimeout,
)
from eventsched.forms import BadForm
from eventsched.log.link import Link
from eventsched.log.port import Busy, OutcomeUnknown, Unavailable
from eventsched.spec import Problem
from eventsched.visible import visible

_log = structlog.get_logger("eventsched.service")
_STATUS: tuple[tuple[type[EventschedError], str], ...] = (
    (PermissionDenied, "403"),
    (NotFound, "404"),
    (Ambiguous, "409"),
    (DuplicateJob, "409"),
    (StoreFull, "503"),
    (Unavailable, "503"),
    (Busy, "503"),
    (WaitTimeout, "504"),
    (OutcomeUnknown, "504"),
)
_INBOXES = ("_INBOX.", "_R_.")
"""Where answers go: a client's inbox, or what stands for that of a client in another account."""
BY_TENANT = "by_tenant"
AT_ONCE_MAX = 4_096
"""Requests in hand; what comes beyond is told to come again."""
LAST_ANSWERS_S = 0.5
_encode = msgspec.json.Encoder().encode

Answer = Callable[[Any, str], Awaitable[Any]]
"""Answers a request of a caller: the tenant it is of, or "" when it may speak for every tenant."""
Report = Callable[[], query.ReplicaReport]


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """The body of an answer that is an error: what is wrong, how to mend it, and each wrong field."""

    message: str
    hint: str = ""
    problems: list[Problem] = []


async def serve(link: Link, version: str, answers: dict[str, Answer], report: Report | None = None) -> Service:
    """Offer endpoints: for each name, the coroutine that answers. report: what the scheduler says of itself."""
    service = Service(link, answers, report)
    await service.start(version)
    return service


class Service:
    """The endpoints of one scheduler, while they are offered. Make it with `serve`."""

    def __init__(self, link: Link, answers: dict[str, Answer], report: Report | None) -> None:
        self._front = _Front(link.client)
        self._answers = answers
        self._report = report
        self._decoders = {name: msgspec.json.Decoder(_kind(ENDPOINTS[name])) for name in answers}
        self._errors: dict[str, tuple[int, str]] = {}
        self._micro: MicroService | None = None

    async def start(self, version: str) -> None:
        """Announce it, and take requests."""
        self._micro = await add_service(
            cast(Client, self._front),
            name=query.SERVICE,
            version=version,
            description="eventsched: jobs, nodes and the cluster; `nats req eventsched.schema ''` explains",
            stats_handler=self._numbers,
        )
        group = self._micro.add_group(name=query.SERVICE)
        for name in self._answers:
            metadata = ENDPOINTS[name].metadata
            await group.add_endpoint(EndpointConfig(name=name, handler=self._handler(name), metadata=metadata))
        metadata = {"summary": "the same for a tenant, by the import of its account"}
        await group.add_endpoint(
            EndpointConfig(name=BY_TENANT, subject="*.*", handler=self._handler(""), metadata=metadata)
        )

    async def stop(self) -> None:
        """Take no more requests; those in hand are answered, or given up after a moment."""
        if self._micro is not None:
            await self._micro.stop()
        await self._front.finish(LAST_ANSWERS_S)

    # ---- one request ------------------------------------------------------------------------------

    def _handler(self, name: str) -> Callable[[Request], Awaitable[None]]:
        async def handle(request: Request) -> None:
            caller, endpoint = "", name
            if not name:
                caller, endpoint = request.subject.split(".")[1:]
            error: EventschedError | None = None
            try:
                answer = _encode(await self._answer(endpoint, request.data, caller))
            except EventschedError as raised:
                error = raised
            except Exception as raised:
                _log.exception("request_failed", endpoint=endpoint)
                error, answer = _Defect(f"{type(raised).__name__}: {raised}"), b""
            if error is None:
                await request.respond(answer)
            else:
                code, text = _status(error), " ".join(visible(error.message).split())[:500]
                self._errors[name or BY_TENANT] = self._errors.get(name or BY_TENANT, (0, ""))[0] + 1, f"{code}:{text}"
                await request.respond_error(code, text, data=_encode(_body(error)))

        return handle

    async def _answer(self, endpoint: str, data: bytes, caller: str) -> Any:
        if endpoint not in self._answers:
            raise NotFound(f"no endpoint {endpoint!r}", f"there are: {', '.join(self._answers)}")
        try:
            asked = self._decoders[endpoint].decode(data or b"{}")
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise EventschedError(f"bad request: {error}", f"e.g. {ENDPOINTS[endpoint].example}") from error
        return await self._answers[endpoint](asked, caller)

    # ---- numbers ----------------------------------------------------------------------------------

    def _numbers(self, stats: EndpointStats) -> Any:
        """For `$SRV.STATS`: the errors (nats-py counts only those it answers itself), and the scheduler's own."""
        count, last = self._errors.get(stats.name, (0, ""))
        stats.num_errors += count
        stats.last_error = last or stats.last_error
        if stats.name == "stats" and self._report is not None:
            return msgspec.to_builtins(self._report())
        return None


class _Front:
    """The client as nats-py's service sees it.

    Requests that want their answer elsewhere than in an inbox don't arrive: the server checks nobody's
    reply subjects, and a scheduler may write what others may not; an answer sent to `ev.leader` would be
    stored as a claim. And each request is handled by a task of its own: nats-py would make all that ask
    one endpoint wait for one another.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def subscribe(self, subject: str, *, cb: Callable[[Msg], Awaitable[None]], **more: Any) -> Subscription:
        async def handle(message: Msg) -> None:
            try:
                await cb(message)
            except Exception as error:  # the connection is gone, or the answer is too large for it
                _log.warning("not_answered", subject=message.subject, error=str(error) or type(error).__name__)

        async def take(message: Msg) -> None:
            if not message.reply.startswith(_INBOXES):
                _log.debug("no_inbox", subject=message.subject, reply=message.reply)
            elif len(self._tasks) >= AT_ONCE_MAX:
                await Request(message).respond_error("503", "too many requests at once: ask again in a moment")
            else:
                task = asyncio.get_running_loop().create_task(handle(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        return await self._client.subscribe(subject, cb=take, **more)

    async def finish(self, timeout_s: float) -> None:
        """Wait for what is in hand, then call it off."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            task.cancel()


class _Defect(EventschedError):
    """A fault of ours."""


def _kind(endpoint: Endpoint) -> Any:
    return Any if endpoint.loose else endpoint.request


def _status(error: EventschedError) -> str:
    if isinstance(error, _Defect):
        return "500"
    return next((status for kind, status in _STATUS if isinstance(error, kind)), "400")


def _body(error: EventschedError) -> ErrorBody:
    if isinstance(error, BadForm):
        return ErrorBody(error.message, f"{query.SCHEMA} lists the fields of a job", error.problems)
    return ErrorBody(error.message, error.hint)
