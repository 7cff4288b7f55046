"""Sandboxes: one kept network namespace per tenant, without any network, shared by its runs here.

Making a network namespace is most of what starting a container costs. A run with network
`sandbox` joins the kept one of its tenant on this node: no network, as with `none`, and a
loopback shared with the tenant's other runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from eventsched.agents.drivers.base import Place, StartFailed
from eventsched.agents.drivers.containers import LABEL
from eventsched.agents.drivers.images import ImageStore
from eventsched.agents.drivers.pause import PAUSE_IMAGE, pause_archive


class Sandboxes:
    """The kept namespaces of one node."""

    def __init__(self, docker: Docker, images: ImageStore, place: Place) -> None:
        self._docker = docker
        self._images = images
        self._place = place
        self._locks: dict[str, asyncio.Lock] = {}
        self._known: dict[str, str] = {}

    def _name(self, tenant: str) -> str:
        return f"es-{self._place.cluster8}-{self._place.node}-sandbox-{tenant}"

    async def namespace_of(self, tenant: str) -> str:
        """Id of the container that holds the tenant's namespace, started if it does not run."""
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            known = self._known.get(tenant)
            if known is not None and await self._runs(known):
                return known
            self._known[tenant] = await self._start(tenant)
            return self._known[tenant]

    async def _runs(self, container: str) -> bool:
        try:
            details = await self._docker.containers.container(container).show()
        except DockerError:
            return False
        return bool(details["State"]["Running"])

    async def _start(self, tenant: str) -> str:
        try:
            existing = await self._docker.containers.get(self._name(tenant))
            if not existing["State"]["Running"]:
                await existing.start()
            return str(existing.id)
        except DockerError as error:
            if error.status != 404:
                raise StartFailed("engine_error", f"sandbox of {tenant}: {error.message}") from error
        if not await self._images.exists(PAUSE_IMAGE):
            try:
                await self._images.import_archive(PAUSE_IMAGE, pause_archive())
            except KeyError as error:
                raise StartFailed("network_refused", f"network sandbox is not available on {error}") from error
        config = {
            "Image": PAUSE_IMAGE,
            "Cmd": ["/pause"],
            "Labels": {
                f"{LABEL}.cluster": self._place.cluster,
                f"{LABEL}.node": self._place.node,
                f"{LABEL}.sandbox": tenant,
            },
            "HostConfig": {
                "NetworkMode": "none",
                "Memory": 8 * 1024 * 1024,
                "PidsLimit": 4,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "RestartPolicy": {"Name": "no"},
                "LogConfig": {"Type": "none"},
            },
        }
        try:
            container = await self._docker.containers.create(config, name=self._name(tenant))
            await container.start()
        except DockerError as error:
            raise StartFailed("engine_error", f"sandbox of {tenant}: {error.message}") from error
        return str(container.id)

    async def remove_all(self) -> None:
        """Remove every kept namespace of this node; runs in them have ended."""
        labels = [f"{LABEL}.cluster={self._place.cluster}", f"{LABEL}.node={self._place.node}", f"{LABEL}.sandbox"]
        self._known.clear()
        with contextlib.suppress(DockerError, aiohttp.ClientError, OSError):  # else the next leave does it
            for container in await self._docker.containers.list(all=1, filters=json.dumps({"label": labels})):
                with contextlib.suppress(DockerError):
                    await container.delete(force=True)
