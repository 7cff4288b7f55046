"""Starting and stopping the service: the link, the follower, uvicorn."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from eventsched.client import Client
from eventsched.errors import EventschedError
from eventsched.log.link import LinkOptions
from eventsched.projections.following import Follower
from eventsched.projections.http.app import make_app
from eventsched.projections.http.auth import Gate
from eventsched.projections.http.desk import Desk, Limits

KEEP_ALIVE_S = 30
STOP_S = 5
BACKLOG = 2048


def bind(host: str, port: int, reuse: bool = False) -> socket.socket:
    """A listening socket (port 0 = any free one); EventschedError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        text = f"HTTP port {port} of {host} is taken" if error.errno == 98 else f"{host}:{port}: {error.strerror}"
        raise EventschedError(text, "choose another with --http-port (0 = any)") from error
    return listener


async def serve(options: LinkOptions, listener: socket.socket, gate: Gate, limits: Limits) -> None:
    """Serve until cancelled."""
    async with await Client.connect(options=options) as client:
        follower = Follower(client.link)
        app = make_app(Desk(client, follower, limits), gate)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S,
            server_header=False,
        )
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None
        async with asyncio.TaskGroup() as group:
            following = group.create_task(follower.run())
            serving = group.create_task(server._serve([listener]))
            try:
                await asyncio.shield(serving)
            except asyncio.CancelledError:
                server.should_exit = True
                await serving
                raise
            finally:
                following.cancel()
