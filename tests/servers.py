"""Real nats-servers for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from eventsched.nats_server import NatsServer, free_port

Server = TypeVar("Server", bound=NatsServer)


class TestServer(NatsServer):
    """A server with one more user, `tester`, who may do everything: tests look behind the roles."""

    __test__ = False

    def _conf(self) -> str:
        tester = f'{{ user: tester, password: "{self._password("tester")}" }}'
        return (
            super()
            ._conf()
            .replace("    users: [\n      { user: scheduler", f"    users: [ {tester}\n      {{ user: scheduler")
        )


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Server]:
    """A server while it runs: ready within, stopped whatever happens. Its port is any: others start theirs, too."""
    server.port = server.port or free_port()
    server.start()
    try:
        await server.wait_ready()
        yield server
    finally:
        server.stop()
