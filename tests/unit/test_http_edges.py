"""Clients at their worst, over real sockets: slow ones, rude ones, and those that want the head only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from eventsched.projections.http import edges
from eventsched.projections.http.auth import Gate
from eventsched.projections.http.desk import Desk, Limits
from eventsched.projections.http.server import bind, make_server

SOON_S = 5
"""Every wait here ends long before: it is the service that ends it."""
FORM = "multipart/form-data; boundary=xyz"
FIELD = '--xyz\r\nContent-Disposition: form-data; name="file"'
FILE = FIELD + '; filename="jobs"'


class Line:
    """A connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, text: str) -> None:
        """Send what stands there."""
        self._writer.write(text.encode())
        await self._writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next answer."""
        async with asyncio.timeout(SOON_S):
            raw = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = raw.strip().split("\r\n")
        return int(status.split()[1]), {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }

    async def answer(self) -> tuple[int, str]:
        """Status and code of the next answer, an error."""
        status, headers = await self.head()
        body = json.loads(await self._reader.readexactly(int(headers["content-length"])))
        assert body["error"]["message"]
        return status, body["error"]["code"]

    async def ended(self) -> bool:
        """True once the service has closed the connection and said nothing more."""
        async with asyncio.timeout(SOON_S):
            return await self._reader.read() == b""


@asynccontextmanager
async def line_to(limits: Limits | None = None) -> AsyncIterator[Line]:
    """A connection to a service that has not reached its log."""
    listener = bind("127.0.0.1", 0)
    server = make_server(Desk(limits), Gate([], open_on_loopback=True))
    serving = asyncio.ensure_future(server._serve([listener]))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        server.should_exit = True
        await serving
        listener.close()


def request(path: str, method: str = "GET", body: str = "", **headers: str) -> str:
    """A whole request."""
    fields = {"Host": "localhost", **({"Content-Length": str(len(body))} if body else {}), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n{body}"


async def test_head_is_answered_as_get_without_a_body() -> None:
    async with line_to() as line:
        await line.say(request("/healthz"))
        status, of_get = await line.head()
        await line._reader.readexactly(int(of_get["content-length"]))
        await line.say(request("/healthz", "HEAD") + request("/readyz", "HEAD") + request("/jobs/batch", "HEAD"))
        assert (await line.head())[1] | {"date": ""} == of_get | {"date": ""}
        assert (status, (await line.head())[0], (await line.head())[0]) == (200, 503, 405)
        await line.say(request("/schema/events", "HEAD"))
        assert (await line.head())[0] == 200
        await line.say(request("/healthz", "HEAD", Connection="close"))
        assert (await line.head())[0] == 200
        assert await line.ended()


@pytest.mark.parametrize("said", ["", "GET /healthz HTT", "GET /healthz HTTP/1.1\r\nHost: local", "\r\n\r\n"])
async def test_a_head_that_does_not_come_is_given_up(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "HEAD_S", 0.1)
    async with line_to() as line:
        await line.say(said)
        assert await line.answer() == (408, "REQUEST_TIMEOUT")
        assert await line.ended()


async def test_a_head_that_comes_in_time_is_answered_and_the_next_one_has_its_own_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edges, "HEAD_S", 0.1)
    async with line_to() as line:
        for _ in range(3):
            whole = request("/readyz")
            await line.say(whole[:9])
            await line.say(whole[9:])
            assert await line.answer() == (503, "SERVICE_NOT_READY")
        await line.say("GET /readyz HTTP/1.1\r\n")
        assert await line.answer() == (408, "REQUEST_TIMEOUT")


@pytest.mark.parametrize("idle", ["\r\n", "POST /nix HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\nx"])
async def test_a_connection_kept_alive_is_not_kept_for_ever(idle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "HEAD_S", 0.05)
    monkeypatch.setattr(edges, "KEEP_ALIVE_S", 0.05)
    async with line_to() as line:
        await line.say(request("/readyz"))
        assert await line.answer() == (503, "SERVICE_NOT_READY")
        await line.say(idle)
        if "POST" in idle:
            assert await line.answer() == (404, "NOT_FOUND")
        assert (await line.answer())[0] == 408
        assert await line.ended()


@pytest.mark.parametrize(
    ("path", "kind"), [("/jobs", "application/json"), ("/ingest", "text/plain"), ("/ingest", FORM)]
)
async def test_a_body_that_does_not_come_is_given_up(path: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "PAUSE_S", 0.1)
    monkeypatch.setattr(Desk, "check_ready", lambda _: None)
    monkeypatch.setattr(Desk, "check_pressure", lambda _: None)
    async with line_to() as line:
        await line.say(request(path, "POST", Content_Length="400", Content_Type=kind) + '{"image":')
        assert await line.answer() == (408, "REQUEST_TIMEOUT")
        assert await line.ended()


async def test_a_body_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "PAUSE_S", 0.3)
    monkeypatch.setattr(edges, "BODY_RATE", 1000)
    async with line_to() as line:
        await line.say(request("/jobs", "POST", Content_Length="4000"))
        answering = asyncio.ensure_future(line.answer())
        while not answering.done():
            await line.say(" ")
            await asyncio.sleep(0.01)
        assert answering.result() == (408, "REQUEST_TIMEOUT")


@pytest.mark.parametrize(
    ("part", "content", "code"),
    [
        (FILE, "{}\n", "BAD_FORMAT"),  # cut off
        (FIELD, "{}\n\r\n--xyz--\r\n", "BAD_FORMAT"),  # no file
        (FIELD, "x" * 3000, "PAYLOAD_TOO_LARGE"),
        (FILE, "x" * 3000, "PAYLOAD_TOO_LARGE"),
        ("nothing of that kind", "", "BAD_FORMAT"),
    ],
)
async def test_a_form_is_read_within_limits(
    part: str, content: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Desk, "check_ready", lambda _: None)
    monkeypatch.setattr(Desk, "check_pressure", lambda _: None)
    async with line_to(Limits(upload_bytes=2000)) as line:
        await line.say(request("/ingest", "POST", f"{part}\r\n\r\n{content}", Content_Type=FORM))
        assert await line.answer() == (413 if code == "PAYLOAD_TOO_LARGE" else 400, code)


async def test_what_is_no_http_is_refused_in_our_form() -> None:
    async with line_to() as line:
        await line.say("what is this?\r\n\r\n")
        assert await line.answer() == (400, "BAD_REQUEST")
        assert await line.ended()
