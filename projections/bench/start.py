"""bench start: how soon a scheduler leads again with very many jobs waiting, and how soon `dev` is ready."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from typing import Annotated

from cyclopts import Parameter

from eventsched.bench import BenchCluster
from eventsched.cli.common import print_json
from eventsched.client import Client, Submitted
from eventsched.errors import EventschedError
from eventsched.spec import JobSpec
from eventsched.telemetry import configure_logging

BATCH = 20_000


async def start(
    *,
    jobs: Annotated[int, Parameter(help="waiting jobs")] = 100_000,
    repeats: Annotated[int, Parameter(help="starts of each kind; medians are printed")] = 3,
) -> None:
    """Start a scheduler from a snapshot with many jobs waiting; start `eventsched dev` from nothing."""
    configure_logging(level="error")
    async with BenchCluster() as cluster:
        first = cluster.spawn("scheduler", "scheduler", "--name", "bench")
        client = await cluster.client(0)
        await _fill(client, jobs)
        await _stop(first)
        seconds: list[float] = []
        for _ in range(repeats):
            took = await _lead_again(cluster, client, jobs)
            seconds.append(took)
            await _stop(cluster.processes["scheduler"])
        await client.close()
        from_log = _first_log_line(cluster)
    print_json(
        {
            "start_s": round(sorted(seconds)[repeats // 2], 3),
            "dev_ready_s": round(sorted(_dev_ready() for _ in range(repeats))[repeats // 2], 3),
            "jobs": jobs,
            "runs": [round(one, 3) for one in seconds],
            "snapshot": from_log,
        }
    )


async def _fill(client: Client, jobs: int) -> None:
    for begin in range(0, jobs, BATCH):
        count = min(BATCH, jobs - begin)
        specs = [JobSpec(image="busybox", command=("sh", "-c", f"echo {begin + index}")) for index in range(count)]
        for result in await client.submit_many(specs):
            if not isinstance(result, Submitted):
                raise result
    while (await client.stats()).jobs.get("pending", 0) < jobs:
        await asyncio.sleep(0.1)


async def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    await asyncio.to_thread(process.wait, 60)


async def _lead_again(cluster: BenchCluster, client: Client, jobs: int) -> float:
    """Seconds from starting the process until it leads, with every job in its state."""
    epoch = await client.log.last_on("ev.leader")
    assert epoch is not None
    began = time.perf_counter()
    cluster.spawn("scheduler", "scheduler", "--name", "bench")
    while True:
        claimed = await client.log.last_on("ev.leader")
        if claimed is not None and claimed[0] > epoch[0]:
            break
        await asyncio.sleep(0.01)
    stats = await client.stats()
    seconds = time.perf_counter() - began
    if stats.jobs.get("pending", 0) != jobs:
        raise EventschedError(f"{stats.jobs} after the start, {jobs} pending before")
    return seconds


def _first_log_line(cluster: BenchCluster) -> str:
    """What the last start said of the snapshot it began with."""
    lines = (cluster.directory / "scheduler.log").read_text().splitlines()
    return next((line.split("] ", 1)[-1] for line in reversed(lines) if "snapshot_seq" in line), "")


def _dev_ready() -> float:
    """What `eventsched dev` prints as the time it took, on a fresh directory."""
    with tempfile.TemporaryDirectory() as directory:
        command = [
            sys.executable,
            "-m",
            "eventsched",
            "dev",
            "--driver",
            "fake",
            "--data",
            directory,
            "--http-port",
            "0",
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
        process.communicate(timeout=60)
    found = re.search(r"\((\d+\.\d) s\)", line)
    if found is None:
        raise EventschedError(f"eventsched dev said {line!r}")
    return float(found[1])
