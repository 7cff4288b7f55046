"""Starting and stopping the service: uvicorn at once, the link and the follower as soon as they can be had."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import structlog
import uvicorn

from eventsched.client import Client
from eventsched.ending import end
from eventsched.errors import EventschedError, NoServer, StreamMismatch
from eventsched.garbage import collect_rarely
from eventsched.log.link import LinkOptions
from eventsched.projections.following import Follower
from eventsched.projections.http.app import make_app
from eventsched.projections.http.auth import Gate
from eventsched.projections.http.desk import Desk
from eventsched.projections.http.edges import KEEP_ALIVE_S, Edge, Protocol
from eventsched.projections.http.errors import ApiError

_log = structlog.get_logger("eventsched.http")
STOP_S = 3
BACKLOG = 2048
AGAIN_S = 0.3
ADDRESS_IN_USE = 98


def bind(host: str, port: int) -> socket.socket:
    """A listening socket (port 0 = any free one); EventschedError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        taken = error.errno == ADDRESS_IN_USE
        text = f"HTTP port {port} of {host} is taken" if taken else f"{host}:{port}: {error.strerror or error}"
        raise EventschedError(text, "choose another with --port (0 = any)") from error
    return listener


def make_server(desk: Desk, gate: Gate) -> uvicorn.Server:
    """The server of one desk; it listens to nothing yet."""
    return uvicorn.Server(
        uvicorn.Config(
            Edge(make_app(desk, gate)),
            log_config=None,
            access_log=False,
            lifespan="off",
            http=Protocol,
            ws="none",
            timeout_keep_alive=int(KEEP_ALIVE_S),
            timeout_graceful_shutdown=STOP_S,
            server_header=False,
            proxy_headers=False,
        )
    )


async def serve(
    options: LinkOptions,
    listener: socket.socket,
    gate: Gate,
    desk: Desk,
    stop: asyncio.Event,
) -> None:
    """Serve until `stop` is set. Raises what makes following the log impossible (UpgradeNeeded, LogGap)."""
    server = make_server(desk, gate)
    loop = asyncio.get_running_loop()
    serving = loop.create_task(server._serve([listener]))
    following = loop.create_task(_follow(desk, options))
    stopping = loop.create_task(stop.wait())
    try:
        await asyncio.wait((serving, following, stopping), return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
    finally:
        server.should_exit = True
        await desk.close()
        stopping.cancel()
        await end(following)
        await asyncio.gather(serving, following, stopping, return_exceptions=True)


async def _follow(desk: Desk, options: LinkOptions) -> None:
    """Reach the log, however long that takes, and follow it."""
    said = ""
    while True:
        try:
            client = await Client.connect(options=options)
            break
        except (NoServer, StreamMismatch) as error:
            if error.message != said:
                _log.info("waiting_for_the_log", why=error.message)
            said = error.message
            await asyncio.sleep(AGAIN_S)
    async with client:
        follower = Follower(client.link)
        desk.open(client, follower)
        telling = asyncio.ensure_future(_tell_others(desk))
        try:
            await follower.run()
        finally:
            telling.cancel()


async def _tell_others(desk: Desk) -> None:
    """Be ready as soon as it is so, not with the first request."""
    await desk.follower.ready.wait()
    collect_rarely()  # what has been folded stays
    while True:
        with contextlib.suppress(ApiError):
            return desk.check_ready()
        await asyncio.sleep(AGAIN_S)
