"""The HTTP service over a real cluster, for tests: started as a process, asked over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from eventsched.nats_server import free_port

from .cluster import Cluster, until

QUOTA = ("--clock", "manual", "--job-id-scope", "cluster")


class Service:
    """One `eventsched api` process and a client of it."""

    def __init__(self, cluster: Cluster, *arguments: str, name: str = "api") -> None:
        self.cluster = cluster
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = arguments
        self.http = httpx.AsyncClient(base_url=self.url, timeout=30)

    def start(self) -> None:
        """Start the process; it listens soon."""
        options = self.cluster.server.options("operator")
        self.cluster.spawn(
            self.name,
            "api",
            *("--port", str(self.port), *self._arguments),
            EVENTSCHED_NATS_USER=options.user,
            EVENTSCHED_NATS_PASSWORD=options.password,
        )

    async def answers(self, path: str = "/readyz", status: int = 200) -> httpx.Response:
        """Wait until it answers a path with a status."""

        async def asked() -> httpx.Response | None:
            try:
                found = await self.http.get(path)
            except httpx.TransportError:
                return None
            return found if found.status_code == status else None

        found = await until(asked, what=f"{path} to answer {status}")
        assert isinstance(found, httpx.Response)
        return found

    async def post(self, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        """The JSON answer of a POST, whose status must be this."""
        found = await self.http.post(path, json=body, headers=headers)
        assert found.status_code == status, (found.status_code, found.text)
        return found.json()

    async def get(self, path: str, expect: int = 200, **query: Any) -> Any:
        """The JSON answer of a GET, whose status must be as expected."""
        found = await self.http.get(path, params=query or None)
        assert found.status_code == expect, (found.status_code, found.text)
        return found.json()

    async def until_state(self, job_id: str, *states: str) -> Any:
        """The job once it is in one of the states."""

        async def reached() -> Any:
            job = await self.get(f"/jobs/{job_id}")
            return job if job["state"] in states else None

        return await until(reached, what=f"job {job_id} to be {' or '.join(states)}")


@asynccontextmanager
async def running(cluster: Cluster, *arguments: str, name: str = "api") -> AsyncIterator[Service]:
    """A service that is ready."""
    service = Service(cluster, *arguments, name=name)
    service.start()
    try:
        await service.answers()
        yield service
    finally:
        await service.http.aclose()


def tokens(directory: Path, *lines: tuple[str, str, str]) -> Path:
    """A file of (token, role, tenant)."""
    path = directory / "tokens.toml"
    path.write_text(
        "".join(
            f'[[token]]\ntoken = "{token}"\nrole = "{role}"\ntenant = "{tenant}"\n' for token, role, tenant in lines
        )
    )
    return path
