"""The dev server's HTTP port. Until the service has its own API it answers `/healthz` only."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from eventsched.errors import EventschedError

DEFAULT_PORT = 8000


def bind(port: int) -> socket.socket:
    """A listening socket on loopback (0 = any free port); EventschedError when it can't be had."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise EventschedError(f"HTTP port {port} {what}", "choose another with --http-port (0 = any)") from error
    return listener


async def _healthz(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        return
    found = scope["path"] == "/healthz" and scope["method"] in ("GET", "HEAD")
    body = (
        b'{"status":"ok"}'
        if found
        else b'{"error":{"code":"NOT_FOUND","message":"only /healthz is served","details":[]}}'
    )
    status = 200 if found else 404
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def serve(listener: socket.socket) -> None:
    """Serve until cancelled."""
    import uvicorn

    config = uvicorn.Config(_healthz, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    task = asyncio.get_running_loop().create_task(server._serve([listener]))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        server.should_exit = True
        await task
        raise
