"""The dev server's HTTP port: claimed here, served by `eventsched api`, which inherits the socket.

So a port that is taken is an error before anything starts, and while the service is started again
after a crash, connections wait instead of being refused.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import tomllib
from pathlib import Path

from eventsched.errors import EventschedError, SettingsError

DEFAULT_PORT = 8000
TOKEN_FILE = "http-tokens.toml"


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


def dev_token(data: Path) -> str:
    """The operator's token of this data directory, drawn once and readable by its owner only. Raises SettingsError."""
    path = data / TOKEN_FILE
    if not path.exists():
        fresh = data / f"{TOKEN_FILE}.new"
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(f'[[token]]\ntoken = "{secrets.token_urlsafe(24)}"\nrole = "operator"\n')
        fresh.replace(path)
    try:
        return str(tomllib.loads(path.read_text())["token"][0]["token"])
    except (ValueError, LookupError, TypeError, OSError) as error:
        raise SettingsError(f"{path} names no token", "mend it, or remove it: another is drawn then") from error


async def is_ready(port: int) -> bool:
    """True when the service behind the port has folded the log."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
