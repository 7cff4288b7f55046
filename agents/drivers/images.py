"""Images: pulling what is absent, once for all who wait for it, and giving up in time."""

from __future__ import annotations

import asyncio

import aiohttp
import structlog
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from eventsched.agents.drivers.base import StartFailed

_log = structlog.get_logger("eventsched.images")
_MISSING = ("not found", "access denied", "manifest unknown", "does not exist", "no such image", "unauthorized")


class ImageStore:
    """Images of one engine. stall_s: a pull without progress for this long has failed."""

    def __init__(self, docker: Docker, session: aiohttp.ClientSession, stall_s: float) -> None:
        self._docker = docker
        self._session = session
        self._stall_s = stall_s
        self._pulls: dict[str, asyncio.Task[None]] = {}

    async def pull(self, image: str) -> None:
        """Pull an image. Raises StartFailed naming it: `image_missing` or `image_pull_failed`."""
        task = self._pulls.get(image)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._pull(image))
            self._pulls[image] = task
            task.add_done_callback(lambda _: self._pulls.pop(image, None))
        await asyncio.shield(task)

    async def _pull(self, image: str) -> None:
        _log.info("pull_started", image=image)
        stream = self._docker.images.pull(image, stream=True)
        last = ""
        try:
            while True:
                async with asyncio.timeout(self._stall_s):
                    line = await anext(stream)
                if line.get("status") and line["status"] != last:
                    last = line["status"]
                    _log.debug("pull", image=image, layer=line.get("id", ""), status=last)
        except StopAsyncIteration:
            _log.info("pull_done", image=image)
        except DockerError as error:
            text = str(error.message)
            reason = "image_missing" if any(word in text.lower() for word in _MISSING) else "image_pull_failed"
            raise StartFailed(reason, f"image {image}: {text[:300]}") from error
        except TimeoutError as error:
            raise StartFailed(
                "image_pull_failed", f"image {image}: no progress for {self._stall_s:g} s (is the registry reachable?)"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise StartFailed("image_pull_failed", f"image {image}: {error}") from error

    async def exists(self, image: str) -> bool:
        """True when the engine has it."""
        try:
            await self._docker.images.inspect(image)
        except DockerError:
            return False
        return True

    async def import_archive(self, image: str, archive: bytes) -> None:
        """Make an image of a root file system in a tar archive."""
        repository, _, tag = image.rpartition(":")
        url = "http://localhost/images/create"
        params = {"fromSrc": "-", "repo": repository, "tag": tag}
        async with self._session.post(url, params=params, data=archive) as response:
            if response.status != 200:
                raise StartFailed("engine_error", f"image {image} cannot be made: {await response.text()}")
            await response.read()
