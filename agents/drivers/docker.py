"""The docker driver: a run as a container, through aiodocker.

Containers are named `es-<cluster8>-<run>` and labelled with everything needed to find and adopt
them; nothing is touched that does not carry our cluster's *and* node's labels. No privileged
containers, no new privileges, all capabilities dropped but the few that ordinary images need to
change users and own files. Docker never restarts anything by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp
import msgspec
import structlog
from aiodocker import Docker
from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError

from eventsched.agents.drivers.base import Chunk, EngineAway, Place, Progress, StartFailed, exited
from eventsched.agents.drivers.containers import (
    LABEL,
    DockerLimits,
    container_config,
    ran_ms,
    start_failure,
    was_started,
)
from eventsched.agents.drivers.engine_line import EngineLine, EngineWatch
from eventsched.agents.drivers.images import ImageStore
from eventsched.agents.drivers.sandbox import Sandboxes
from eventsched.agents.effects import Ended, KnownRun, Launch
from eventsched.errors import NoServer
from eventsched.heartbeat import RunUsage

_log = structlog.get_logger("eventsched.docker")

DEFAULT_SOCKET = "/var/run/docker.sock"
STARTS_PER_CORE = 2
RETRY_S = 0.5
WARN_EVERY = 60
CREATED_MAX_S = 120
AFTER_SIGNAL_S = 1.0
"""After a signal that was not ours: whoever shuts a machine down may have sent one to the container and one to
the engine, in any order."""
_KILLED = (137, 143)
_NOT_RUNNING = (304, 404)
_NO_ANSWER = 900
"""aiodocker's status for an engine that went away."""
_ENGINE_GONE = (aiohttp.ClientError, OSError, asyncio.IncompleteReadError)


class DockerDriver:
    """See `Driver`."""

    name = "docker"
    keeps_ended = True

    def __init__(self, place: Place, limits: DockerLimits = DockerLimits(), socket_path: str = "") -> None:
        self._place = place
        self._limits = limits
        self.socket_path = socket_path or _socket_from_environment()
        self._watch = EngineWatch(self.socket_path)
        self._starting = asyncio.Semaphore(max(2, STARTS_PER_CORE * (os.cpu_count() or 1)))
        self._stopping: dict[int, None] = {}
        self._cpu_seen: dict[int, tuple[int, int]] = {}
        self._ids: dict[int, str] = {}
        self._unwatched: dict[int, None] = {}  # runs that an engine went away from

    async def open(self) -> None:
        """See `Driver.open`."""
        connector = aiohttp.UnixConnector(self.socket_path, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        self._docker = Docker("unix://localhost", connector=connector, session=self._session)
        try:
            async with asyncio.timeout(10):
                version = await self._docker.version()
        except (*_ENGINE_GONE, DockerError, TimeoutError) as error:
            await self.close()
            raise NoServer(
                f"no container engine answers at {self.socket_path} ({str(error) or type(error).__name__})",
                "start Docker, or run the agent with --driver process",
            ) from error
        self._images = ImageStore(self._docker, self._session, self._limits.pull_stall_s)
        self._sandboxes = Sandboxes(self._docker, self._images, self._place)
        _log.info("engine", socket=self.socket_path, version=version.get("Version"), api=version.get("ApiVersion"))

    async def close(self) -> None:
        """See `Driver.close`."""
        self._watch.close()
        await self._docker.close()
        await self._session.close()

    # ---- finding ----------------------------------------------------------------------------

    def _filters(self, **more: list[str]) -> str:
        labels = [f"{LABEL}.cluster={self._place.cluster}", f"{LABEL}.node={self._place.node}", f"{LABEL}.run"]
        return json.dumps({"label": labels, **more})

    def _name(self, run: int) -> str:
        return f"es-{self._place.cluster8}-{run}"

    def _container(self, run: int) -> DockerContainer:
        return self._docker.containers.container(self._ids.get(run) or self._name(run))

    async def inventory(self) -> list[KnownRun]:
        """See `Driver.inventory`. Old containers that were made and never started are removed."""
        try:
            return await self._inventory()
        except (*_ENGINE_GONE, DockerError) as error:
            text = str(error) or type(error).__name__
            raise EngineAway(f"the container engine at {self.socket_path} does not answer: {text}") from error

    async def _inventory(self) -> list[KnownRun]:
        found = []
        for listed in await self._docker.containers.list(all=1, filters=self._filters()):
            labels = listed["Labels"]
            try:
                launch = msgspec.json.decode(labels[f"{LABEL}.launch"], type=Launch)
            except (KeyError, msgspec.MsgspecError):
                _log.warning("container_without_launch", container=listed["Names"])
                continue
            self._ids[launch.run] = listed["Id"]
            if listed["State"] == "created":
                if time.time() - listed["Created"] > CREATED_MAX_S:
                    await self.remove(launch.run)
                continue
            try:
                details = await self._container(launch.run).show()
            except DockerError as error:
                if error.status == 404:
                    continue  # removed since the list was made
                raise
            ended = None if details["State"]["Running"] else self._verdict(launch.run, details)
            found.append(KnownRun(launch, ended, ran_ms(details["State"])))
        return sorted(found, key=lambda known: known.launch.run)

    # ---- starting ---------------------------------------------------------------------------

    async def start(self, launch: Launch, progress: Progress) -> None:
        """See `Driver.start`."""
        if self._starting.locked():
            progress("queued")
        async with self._starting:
            progress("creating")
            try:
                config = container_config(launch, self._place, self._limits, await self._network(launch))
                container = await self._create(launch, config, progress)
                self._ids[launch.run] = container.id
                await self._start(launch, container, progress)
            except _ENGINE_GONE as error:
                raise StartFailed("engine_error", f"the container engine went away: {error}") from error

    async def _create(self, launch: Launch, config: dict[str, Any], progress: Progress) -> DockerContainer:
        try:
            return await self._docker.containers.create(config, name=self._name(launch.run))
        except DockerError as error:
            if error.status != 404 or "image" not in str(error.message).lower():
                raise StartFailed("engine_error", str(error.message)) from error
        progress("pulling")
        await self._images.pull(launch.spec.image)
        progress("creating")
        try:
            return await self._docker.containers.create(config, name=self._name(launch.run))
        except DockerError as error:
            raise StartFailed("engine_error", str(error.message)) from error

    async def _start(self, launch: Launch, container: DockerContainer, progress: Progress) -> None:
        """Start what was made; whoever fails or gives up on the way leaves nothing behind that runs."""
        asked: asyncio.Future[None] | None = None
        try:
            progress("starting")
            asked = asyncio.ensure_future(container.start())
            await asyncio.shield(asked)
        except DockerError as error:
            gone = error.status == _NO_ANSWER
            if gone and await self._started_after_all(container):
                return
            await self._discard(container)
            if gone:
                raise StartFailed("engine_error", f"the container engine went away: {error.message}") from error
            raise start_failure(launch.spec, str(error.message)) from error
        except (StartFailed, asyncio.CancelledError):
            if asked is not None:
                await asyncio.wait((asked,))  # the engine does what it was asked for: undo it afterwards
                asked.exception()
            await self._discard(container)
            raise

    async def _started_after_all(self, container: DockerContainer) -> bool:
        """The engine went away while it was starting this: once it is back, the container tells."""
        while True:
            try:
                return was_started((await container.show())["State"])
            except DockerError as error:
                if error.status == 404:
                    return False
            except _ENGINE_GONE:
                pass
            await asyncio.sleep(RETRY_S)

    async def _discard(self, container: DockerContainer) -> None:
        with contextlib.suppress(DockerError, *_ENGINE_GONE):
            await container.delete(force=True)

    async def _network(self, launch: Launch) -> str:
        network = launch.spec.network
        if network == "host" and not self._limits.host_network:
            raise StartFailed(
                "network_refused", "network host is not allowed on this node (agent --allow-host-network)"
            )
        if network == "sandbox":
            return f"container:{await self._sandboxes.namespace_of(launch.tenant)}"
        return network

    # ---- ending -----------------------------------------------------------------------------

    async def wait(self, run: int) -> Ended:
        """See `Driver.wait`. An engine that shuts down stops its containers, so an end it tells of while
        it goes away is not the run's own. It is waited for; then the container tells whether it has
        outlived that, and if not, nobody can say how it would have ended."""
        while True:
            try:
                ended = await self._end_of(run)
            except DockerError as error:
                if error.status == 404:
                    return Ended("lost", None, "engine_lost", "the container was removed by somebody else")
            except _ENGINE_GONE:
                pass
            else:
                if ended is not None:
                    return ended
                continue
            self._unwatched[run] = None
            await asyncio.sleep(RETRY_S)

    async def _end_of(self, run: int) -> Ended | None:
        """How it ended, if the engine that saw the end goes on; None if it has not ended. Raises when the
        engine goes away before that is known."""
        container = self._container(run)
        line = await self._watch.line()
        if run in self._unwatched:
            details = await container.show()
            if details["State"]["Running"]:
                self._unwatched.pop(run)
            elif not details["State"].get("OOMKilled"):
                return Ended("lost", None, "engine_lost", "it ended while the container engine was down")
        code = await self._exit_code(container, line)
        details = await container.show() if code else None  # a zero says all there is to say
        if details and details["State"]["Running"]:
            return None
        if run not in self._stopping and not (details and details["State"].get("OOMKilled")):
            if code in _KILLED:
                await asyncio.sleep(AFTER_SIGNAL_S)
            await self._watch.confirm(line)
        if details is None:
            return Ended("stopped", 0) if run in self._stopping else exited(0)
        return self._verdict(run, details)

    async def _exit_code(self, container: DockerContainer, line: EngineLine) -> int:
        """When it ends, while the line holds."""
        waiting = asyncio.ensure_future(container.wait())
        try:
            await asyncio.wait((waiting, line.ended), return_when=asyncio.FIRST_COMPLETED)
            if line.ended.done():
                raise ConnectionResetError("the container engine went away")
            return int(waiting.result()["StatusCode"])
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    def over(self, run: int) -> Ended | None:
        """See `Driver.over`."""
        return None

    def _verdict(self, run: int, details: dict[str, Any]) -> Ended:
        """How an ended container ended; the same whoever asks, and however often."""
        state = details["State"]
        code = int(state["ExitCode"])
        if state.get("OOMKilled"):
            limit = details["HostConfig"].get("Memory", 0)
            return Ended("oom", code, "out_of_memory", f"over its memory limit of {limit} bytes")
        if run in self._stopping:
            return Ended("stopped", code)
        if code and state.get("Error"):
            return Ended("exited", code, "engine_error", str(state["Error"]))
        return exited(code)

    async def stop(self, run: int, grace_ms: int) -> None:
        """See `Driver.stop`. Asked again until the engine says that it is over: what an engine refuses
        to stop goes on running, and nobody may say otherwise."""
        loop = asyncio.get_running_loop()
        kill_at, refusals = loop.time() + grace_ms / 1000, 0
        untouched = run not in self._stopping  # no signal of ours can have reached it yet
        self._stopping[run] = None
        url = f"http://localhost/containers/{self._container(run).id}/stop"
        while True:
            seconds = math.ceil(max(0.0, kill_at - loop.time()))
            try:
                async with self._session.post(url, params={"t": str(seconds)}) as response:
                    status, words = response.status, await response.text()
            except aiohttp.ClientConnectorError:
                pass
            except _ENGINE_GONE:
                untouched = False
            else:
                if status in _NOT_RUNNING and untouched:
                    self._stopping.pop(run, None)  # it was over before our signal
                if status in (204, *_NOT_RUNNING):
                    return
                untouched = False
                if refusals % WARN_EVERY == 0:
                    _log.error("stop_refused", run=run, status=status, engine=words.strip()[:300])
                refusals += 1
            await asyncio.sleep(RETRY_S)

    async def has_output(self, run: int) -> bool:
        """See `Driver.has_output`: only reading tells."""
        return True

    async def output(self, run: int, skip: int) -> AsyncIterator[Chunk]:
        """See `Driver.output`: both streams in the order the engine wrote them."""
        url = f"http://localhost/containers/{self._container(run).id}/logs"
        params = {"stdout": "1", "stderr": "1", "follow": "1"}
        try:
            async with self._session.get(url, params=params) as response:
                if response.status != 200:
                    return
                while True:
                    header = await response.content.readexactly(8)
                    data = await response.content.readexactly(int.from_bytes(header[4:], "big"))
                    if skip >= len(data):
                        skip -= len(data)
                        continue
                    yield ("stderr" if header[0] == 2 else "stdout"), data[skip:]
                    skip = 0
        except _ENGINE_GONE:
            return  # the end, or the engine went away: the caller asks again if the run goes on

    async def remove(self, run: int) -> None:
        """See `Driver.remove`."""
        with contextlib.suppress(DockerError, *_ENGINE_GONE):
            await self._container(run).delete(force=True, v=True)
        for known in (self._ids, self._cpu_seen, self._stopping, self._unwatched):
            known.pop(run, None)

    async def usage(self, runs: Iterable[int]) -> dict[int, RunUsage]:
        """See `Driver.usage`: one sample each; cpu since the sample before."""
        found: dict[int, RunUsage] = {}

        async def sample(run: int) -> None:
            url = f"http://localhost/v1.41/containers/{self._container(run).id}/stats"
            with contextlib.suppress(*_ENGINE_GONE, TimeoutError, ValueError, KeyError):
                async with self._session.get(url, params={"stream": "0", "one-shot": "1"}) as response:
                    stats = await response.json()
                cpu, now = int(stats["cpu_stats"]["cpu_usage"]["total_usage"]), time.monotonic_ns()
                memory = int(stats["memory_stats"].get("usage", 0))
                before = self._cpu_seen.get(run)
                self._cpu_seen[run] = (cpu, now)
                percent = 100 * (cpu - before[0]) / (now - before[1]) if before else 0.0
                found[run] = RunUsage(round(max(0.0, percent), 1), memory)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.gather(*(sample(run) for run in list(runs)[:64]))
        return found

    async def leave(self) -> None:
        """See `Driver.leave`."""
        await self._sandboxes.remove_all()

    async def finish(self, run: int, exit_code: int) -> None:
        """See `Driver.finish`."""


def _socket_from_environment() -> str:
    host = os.environ.get("DOCKER_HOST", "")
    return host.removeprefix("unix://") if host.startswith("unix://") else DEFAULT_SOCKET
