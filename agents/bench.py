"""bench docker, bench process: what scheduling costs on top of the engine itself.

Docker: blocks of containers through the whole system and blocks through a bare aiodocker loop take
turns in one run, with the same image, host configuration and number at once. Process: the same
with `true` as a process, against asyncio alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from aiodocker import Docker
from cyclopts import Parameter

from eventsched.agents.drivers.base import Place
from eventsched.agents.drivers.containers import LABEL, DockerLimits, container_config
from eventsched.agents.effects import Launch
from eventsched.bench import BenchCluster
from eventsched.cli.common import print_json
from eventsched.client import Client, Submitted
from eventsched.errors import EventschedError
from eventsched.resources import Resources
from eventsched.spec import JobSpec
from eventsched.telemetry import configure_logging

POLL_S = 0.02
WARM_UP = 8
NODE = "bench"


async def docker(
    *,
    jobs: Annotated[int, Parameter(help="containers in a block")] = 60,
    blocks: Annotated[int, Parameter(help="blocks of each kind; they take turns")] = 5,
    image: Annotated[str, Parameter(help="an image with `true`")] = "busybox",
    network: Annotated[Literal["none", "bridge", "sandbox"], Parameter(help="which network they get")] = "none",
    at_once: Annotated[int, Parameter(help="containers at once; 0 = two a core")] = 0,
) -> None:
    """Share of a bare aiodocker loop's rate that containers reach through the whole system."""
    configure_logging(level="error")
    limit = at_once or max(2, 2 * (os.cpu_count() or 1))
    spec = JobSpec(image=image, command=("true",), network=network, resources=Resources(cpu_millis=1000))
    ours: list[float] = []
    bare: list[float] = []
    async with BenchCluster() as cluster, Docker() as engine:
        client = await _one_agent(cluster, "docker", limit, "--keep", "0s")
        place = Place((await client.stats()).cluster_id, NODE, Path())
        config = container_config(Launch(1, "t", "j", 1, (), spec), place, DockerLimits(), network)
        config["Labels"] = {"eventsched.bench": "1"}
        try:
            await _through_us(client, spec, WARM_UP)
            await _bare_loop(engine, config, WARM_UP, limit)
            for _ in range(blocks):
                ours.append(jobs / (await _through_us(client, spec, jobs) + await _until_removed(engine, place)))
                bare.append(jobs / await _bare_loop(engine, config, jobs, limit))
        finally:
            await client.close()
    print_json(
        {
            "ratio": round(statistics.median(_ratios(ours, bare)), 3),
            "jobs_per_s": round(statistics.median(ours), 2),
            "bare_per_s": round(statistics.median(bare), 2),
            "blocks": [[round(one, 2), round(other, 2)] for one, other in zip(ours, bare, strict=True)],
            "jobs": jobs,
            "at_once": limit,
            "network": network,
            "cores": os.cpu_count(),
        }
    )


async def process(
    *,
    jobs: Annotated[int, Parameter(help="jobs in a block")] = 3_000,
    blocks: Annotated[int, Parameter(help="blocks, after one to warm up")] = 3,
    at_once: Annotated[int, Parameter(help="processes at once")] = 64,
) -> None:
    """Processes (`true`) a second through the whole system, one agent; and through asyncio alone."""
    configure_logging(level="error")
    if sys.version_info < (3, 12):  # later ones choose this by themselves
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.get_event_loop_policy().set_child_watcher(watcher)
    ours: list[float] = []
    bare: list[float] = []
    spec = JobSpec(driver="process", command=("true",), resources=Resources(cpu_millis=1000))
    async with BenchCluster() as cluster:
        client = await _one_agent(cluster, "process", at_once)
        try:
            await _through_us(client, spec, jobs // 10)
            for _ in range(blocks):
                ours.append(jobs / await _through_us(client, spec, jobs))
                bare.append(jobs / await _bare_processes(jobs, at_once))
        finally:
            await client.close()
    print_json(
        {
            "jobs_per_s": round(statistics.median(ours), 1),
            "bare_per_s": round(statistics.median(bare), 1),
            "ratio": round(statistics.median(_ratios(ours, bare)), 3),
            "blocks": [[round(one, 1), round(other, 1)] for one, other in zip(ours, bare, strict=True)],
            "jobs": jobs,
            "at_once": at_once,
            "cores": os.cpu_count(),
        }
    )


def _ratios(ours: list[float], bare: list[float]) -> list[float]:
    return [one / other for one, other in zip(ours, bare, strict=True)]


async def _one_agent(cluster: BenchCluster, driver: str, cpus: int, *arguments: str) -> Client:
    cluster.spawn("scheduler", "scheduler", "--name", "bench")
    cluster.spawn("agent", "agent", "--node", NODE, "--driver", driver, "--cpus", str(cpus), *arguments)
    return await cluster.client(1)


async def _through_us(client: Client, spec: JobSpec, jobs: int) -> float:
    """Seconds from the first submission until the log has the last success."""
    before = (await client.stats()).ended.get("succeeded", 0)
    began_ms = time.time() * 1000
    for result in await client.submit_many([spec] * jobs):
        if not isinstance(result, Submitted):
            raise result
    while True:
        stats = await client.stats()
        if stats.ended.get("succeeded", 0) >= before + jobs:  # the log's clock stands at the last end
            return (stats.clock_ms - began_ms) / 1000
        if sum(stats.ended.values()) > stats.ended.get("succeeded", 0):
            raise EventschedError(f"some jobs did not succeed: {stats.ended}", "see `eventsched jobs` for why")
        await asyncio.sleep(POLL_S)


async def _until_removed(engine: Docker, place: Place) -> float:
    """Seconds until the engine has no container of ours any more."""
    began = time.perf_counter()
    labels = json.dumps({"label": [f"{LABEL}.cluster={place.cluster}"]})
    while await engine.containers.list(all=1, filters=labels):
        await asyncio.sleep(POLL_S)
    return time.perf_counter() - began


async def _bare_loop(engine: Docker, config: dict[str, Any], jobs: int, limit: int) -> float:
    """Seconds for the same containers without us: created, started, waited for, removed."""
    slots = asyncio.Semaphore(limit)

    async def one() -> None:
        async with slots:
            container = await engine.containers.create(config)
            await container.start()
            await container.wait()
            await container.delete()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(jobs):
            group.create_task(one())
    return time.perf_counter() - began


async def _bare_processes(jobs: int, limit: int) -> float:
    """Seconds for the same processes started by asyncio alone."""
    slots = asyncio.Semaphore(limit)

    async def one() -> None:
        async with slots:
            nowhere = asyncio.subprocess.DEVNULL
            child = await asyncio.create_subprocess_exec("true", stdin=nowhere, stdout=nowhere, start_new_session=True)
            await child.wait()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(jobs):
            group.create_task(one())
    return time.perf_counter() - began
