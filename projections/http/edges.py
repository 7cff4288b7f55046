"""Between clients and the application: patience with slow ones, and HEAD.

A client gets HEAD_S for the head of a request; its body may pause for PAUSE_S, and must come at BODY_RATE
on the whole. Who takes longer is told so (408) and loses the connection: else a few clients that send a
byte now and then could hold all connections there are.
"""

from __future__ import annotations

import asyncio
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from eventsched.projections.http.errors import ApiError, body_of_error

HEAD_S = 10.0
KEEP_ALIVE_S = 30.0
PAUSE_S = 30.0
BODY_RATE = 16 * 1024
_WITH_BODIES = ("POST", "PUT")


# ---- heads --------------------------------------------------------------------------------------


class Protocol(HttpToolsProtocol):
    """uvicorn's, with errors of our form, and an end to the time a request may take to begin."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The first request is to come within its time."""
        super().connection_made(transport)
        self._expect(HEAD_S)

    def on_message_begin(self) -> None:
        """The rest of the head is to come."""
        super().on_message_begin()
        self._expect(HEAD_S)

    def on_headers_complete(self) -> None:
        """From here on time is counted for the body, by who reads it."""
        self._expect(0)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """The next request may take a while to come; blank lines, or the rest of a body that nobody
        reads any more, make it no longer."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._expect(KEEP_ALIVE_S + HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        self._expect(0)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(400, "Bad Request", "BAD_REQUEST", msg)

    def _expect(self, within_s: float) -> None:
        """A head within so many seconds; 0: none is expected."""
        if self._late is not None:
            self._late.cancel()
        self._late = self.loop.call_later(within_s, self._too_late) if within_s else None

    def _too_late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            text = f"the head of the request did not arrive within {HEAD_S:g} s"
            self._refuse(408, "Request Timeout", "REQUEST_TIMEOUT", text)
        else:  # in the middle of an answer there is no place for another
            self.transport.close()

    def _refuse(self, status: int, phrase: str, code: str, text: str) -> None:
        if self.transport.is_closing():
            return
        body = body_of_error(code, text)
        head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()


# ---- bodies, and HEAD ---------------------------------------------------------------------------


class Edge:
    """The application, for clients of every pace; a GET route answers HEAD as well."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        method = scope.get("method")
        if method in _WITH_BODIES:
            await self._app(scope, _Body(receive).receive, send)
        elif method == "HEAD":
            await self._head(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _head(self, scope: Any, receive: Receive, send: Send) -> None:
        """What GET would answer, as far as its headers; an answer without end ends there as well."""
        told = asyncio.Event()

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                told.set()

        answering = asyncio.ensure_future(self._app(scope | {"method": "GET"}, receive, send_head))
        telling = asyncio.ensure_future(told.wait())
        try:
            await asyncio.wait((answering, telling), return_when=asyncio.FIRST_COMPLETED)
            if not told.is_set():
                answering.result()
        finally:
            for task in (answering, telling):
                task.cancel()
            await asyncio.gather(answering, telling, return_exceptions=True)


class _Body:
    """A request's body as it arrives. ApiError 408 when that takes too long."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._began = asyncio.get_running_loop().time()
        self._size = 0
        self._whole = False

    async def receive(self) -> Any:
        """The next part; after the last one, word that the client has gone."""
        if self._whole:
            return await self._receive()
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(now, self._began + self._size / BODY_RATE) + PAUSE_S):
                message = await self._receive()
        except TimeoutError:
            text = f"a body may pause for {PAUSE_S:g} s, and must come at {BODY_RATE} bytes/s or faster"
            raise ApiError(408, "REQUEST_TIMEOUT", text, Connection="close") from None
        if message["type"] == "http.request":
            self._size += len(message["body"])
            self._whole = not message["more_body"]
        return message
