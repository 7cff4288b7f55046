"""The query service: answers over NATS what this replica knows (`eventsched.query`).

Every scheduler runs one; NATS hands each request to any of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, Service

from eventsched import query
from eventsched.errors import Ambiguous, EventschedError, NotFound, WaitTimeout
from eventsched.log.link import Link

_log = structlog.get_logger("eventsched.service")
_STATUS: dict[type[EventschedError], str] = {NotFound: "404", Ambiguous: "409", WaitTimeout: "504"}
_INBOXES = ("_INBOX.", "_R_.")
"""Where answers go: a client's inbox, or what stands for that of a client in another account."""
_encode = msgspec.json.Encoder().encode

Answer = Callable[[Any], Awaitable[Any]]


async def serve(link: Link, version: str, answers: dict[str, tuple[type, Answer]]) -> Service:
    """Offer endpoints; `answers` gives for each name the request's type and the coroutine that answers."""
    service = await add_service(
        cast(Client, _AnswersInboxesOnly(link.client)),
        name=query.SERVICE,
        version=version,
        description="eventsched: jobs, nodes and the cluster",
    )
    group = service.add_group(name=query.SERVICE)
    for name, (kind, answer) in answers.items():
        await group.add_endpoint(EndpointConfig(name=name, handler=_handler(kind, answer)))
    return service


class _AnswersInboxesOnly:
    """The client as nats-py's service sees it: requests that want their answer elsewhere don't arrive.

    The server checks nobody's reply subjects, and a scheduler may write what others may not: an
    answer sent to `ev.leader` would be stored as a claim.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def subscribe(self, subject: str, *, cb: Callable[[Msg], Awaitable[None]], **more: Any) -> Subscription:
        async def answer(message: Msg) -> None:
            if message.reply.startswith(_INBOXES):
                await cb(message)
            else:
                _log.debug("no_inbox", subject=message.subject, reply=message.reply)

        return await self._client.subscribe(subject, cb=answer, **more)


def _handler(kind: type, answer: Answer) -> Callable[[Request], Awaitable[None]]:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)

    async def handle(request: Request) -> None:
        try:
            asked = decoder.decode(request.data or b"{}")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            await request.respond_error("400", _header(f"bad request: {error}"))
            return
        try:
            await request.respond(_encode(await answer(asked)))
        except EventschedError as error:
            body = _encode({"message": error.message, "hint": error.hint})
            await request.respond_error(_STATUS.get(type(error), "400"), _header(error.message), data=body)
        except Exception as error:
            _log.exception("query_failed", request=kind.__name__)
            await request.respond_error("500", _header(f"{type(error).__name__}: {error}"))

    return handle


def _header(text: str) -> str:
    return " ".join(text.split())[:500]
