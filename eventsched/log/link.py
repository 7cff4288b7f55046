"""A connection to NATS: connect, reconnect for ever, and turn its troubles into our errors.

A publish that the server denies shows only as a time-out plus a message to the error callback;
here it fails at once, with the reason. Publishing while disconnected fails at once too
(`pending_size=0`): nothing is sent behind the caller's back after a reconnect.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client

from eventsched.errors import NoServer, PermissionDenied
from eventsched.log import seams
from eventsched.log.credentials import connect_arguments, without_secrets
from eventsched.telemetry import configure_logging

_log = structlog.get_logger("eventsched.link")
_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"')


class LinkOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to reach the server. Files are paths; TLS is on when a file for it is set or the URL says tls.

    nkey_seed: the seed, or the path of a file that holds it.
    """

    url: str = "nats://127.0.0.1:4222"
    user: str = ""
    password: str = ""
    token: str = ""
    credentials_file: str = ""
    nkey_seed: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    inbox_prefix: str = "_INBOX"
    connect_timeout_s: int = 5

    def __repr__(self) -> str:
        return f"<LinkOptions {without_secrets(self.url)}>"


class Link:
    """One NATS connection. Make it with `connect`; `client` is nats-py's."""

    def __init__(self, client: Client, parser: seams.BulkParser, options: LinkOptions) -> None:
        self.client = client
        self.parser = parser
        self.options = options
        self.connected = asyncio.Event()
        self.closed = asyncio.Event()
        self.on_reconnect: list[Callable[[], None]] = []
        self.last_error = ""
        self.unauthorized = False
        self._waiting: dict[str, list[asyncio.Future[Any]]] = {}

    @property
    def url(self) -> str:
        """The server's address, for people: without the user and password that may stand in it."""
        return without_secrets(self.options.url)

    async def request(self, subject: str, payload: bytes, timeout: float = 5.0, headers: Any = None) -> bytes:
        """A request and its answer's payload.

        Raises PermissionDenied at once when the server says so, NoResponders when nobody listens,
        TimeoutError otherwise.
        """
        reply = await self.guard(subject, self.client.request(subject, payload, timeout=timeout, headers=headers))
        return bytes(reply.data)

    async def guard(self, subject: str, waiting: Awaitable[Any]) -> Any:
        """Await something about `subject`, but fail at once if the server denies the subject."""
        denied: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        key = subject.lower()
        self._waiting.setdefault(key, []).append(denied)
        work = asyncio.ensure_future(waiting)
        try:
            await asyncio.wait((work, denied), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise PermissionDenied(
                f"the server at {self.url} refuses this user to publish to {subject}",
                "use credentials of a role that may (see the docs page on roles)",
            )
        finally:
            work.cancel()
            waiters = self._waiting[key]
            waiters.remove(denied)
            if not waiters:
                del self._waiting[key]

    async def close(self) -> None:
        """Flush and close; never raises."""
        try:
            async with asyncio.timeout(2):
                await self.client.close()
        except (TimeoutError, nats.errors.Error, OSError):
            pass

    # ---- callbacks of nats-py -------------------------------------------------------------

    async def _on_error(self, error: Exception) -> None:
        self.last_error = str(error) or type(error).__name__
        self.unauthorized = self.unauthorized or "authorization" in self.last_error.lower()
        match = _DENIED.search(str(error))
        if match is None:
            _log.debug("nats_error", error=str(error) or type(error).__name__)
            return
        _log.debug("nats_denied", what=match[1], subject=match[2])
        for waiter in self._waiting.get(match[2], []):
            if not waiter.done():
                waiter.set_result(None)

    async def _on_disconnected(self) -> None:
        if self.connected.is_set() and not self.client.is_closed:
            _log.warning("nats_disconnected", url=self.url)
        self.connected.clear()

    async def _on_reconnected(self) -> None:
        _log.info("nats_reconnected", url=self.url)
        self.connected.set()
        for callback in self.on_reconnect:
            callback()

    async def _on_closed(self) -> None:
        self.connected.clear()
        self.closed.set()


async def connect(options: LinkOptions, name: str, *, forever: bool = True) -> Link:
    """Connect, or raise NoServer (SettingsError for credentials that cannot be used).

    forever: keep trying to reconnect once connected.
    """
    if not structlog.is_configured():  # a program that uses the SDK and says nothing about logging
        configure_logging(level="warning")
    arguments = connect_arguments(options)
    client = Client()
    parser = seams.install(client)
    if parser is None:
        raise NoServer("this version of nats-py is not supported", "install nats-py 2.16")
    link = Link(client, parser, options)
    try:
        async with asyncio.timeout(options.connect_timeout_s):
            await client.connect(
                name=name,
                error_cb=link._on_error,
                disconnected_cb=link._on_disconnected,
                reconnected_cb=link._on_reconnected,
                closed_cb=link._on_closed,
                allow_reconnect=forever,
                max_reconnect_attempts=-1 if forever else 1,
                reconnect_time_wait=0.1,
                connect_timeout=max(1, options.connect_timeout_s // 2),
                ping_interval=5,
                max_outstanding_pings=2,
                inbox_prefix=options.inbox_prefix,
                pending_size=0,
                **arguments,
            )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        await link.close()
        raise _no_server(link, str(error).strip() or link.last_error or type(error).__name__) from error
    link.connected.set()
    return link


def _no_server(link: Link, text: str) -> NoServer:
    if link.unauthorized or "authorization" in text.lower():  # what came after a refusal may be a mere end of file
        return NoServer(f"the NATS server at {link.url} refuses these credentials", "check user, password or file")
    return NoServer(
        f"no NATS server answers at {link.url} ({text})",
        "start one with `eventsched dev`, or name another with --nats or EVENTSCHED_NATS",
    )
