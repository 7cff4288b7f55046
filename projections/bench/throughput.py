"""bench throughput: jobs a second through everything, and how soon one starts when nothing else does."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Annotated, Literal

import psutil
from cyclopts import Parameter

from eventsched import codec
from eventsched.bench import BenchCluster, percentile
from eventsched.cli.common import print_json
from eventsched.client import Client, Submitted
from eventsched.errors import EventschedError
from eventsched.events import RunAssigned, RunStarted
from eventsched.log.jetstream import JetStreamLog
from eventsched.spec import FakeRun, JobSpec
from eventsched.telemetry import configure_logging

POLL_S = 0.2
AGENT_CPUS = 250


async def throughput(
    *,
    jobs: Annotated[int, Parameter(help="jobs in the burst")] = 20_000,
    agents: Annotated[int, Parameter(help="fake agents, each a process")] = 8,
    mode: Annotated[
        Literal["many", "array"], Parameter(help="submit them one by one in gathered batches, or as one array")
    ] = "many",
    singles: Annotated[int, Parameter(help="single jobs at idle, one after the other")] = 300,
) -> None:
    """Submit a burst of jobs through the SDK and count them to `succeeded`; then single jobs at idle."""
    configure_logging(level="error")
    async with BenchCluster() as cluster:
        cluster.spawn("scheduler", "scheduler", "--name", "bench")
        for index in range(agents):
            cluster.spawn(
                f"agent-{index}", "agent", "--node", f"n{index}", "--driver", "fake", "--cpus", str(AGENT_CPUS)
            )
        client = await cluster.client(agents)
        try:
            await _burst(client, 500, "many")  # warm up
            cpu_before = _cpu(cluster)
            seconds, submit_s = await _burst(client, jobs, mode)
            cpu = {name: round(after - cpu_before[name], 3) for name, after in _cpu(cluster).items()}
            assigned, started = await _single_jobs(client, singles)
        finally:
            await client.close()
    print_json(
        {
            "jobs_per_s": round(jobs / seconds, 1),
            "start_p50_ms": round(percentile(started, 50), 2),
            "start_p99_ms": round(percentile(started, 99), 2),
            "assign_p50_ms": round(percentile(assigned, 50), 2),
            "assign_p99_ms": round(percentile(assigned, 99), 2),
            "jobs": jobs,
            "agents": agents,
            "mode": mode,
            "seconds": round(seconds, 3),
            "submit_s": round(submit_s, 3),
            "cpu_s": {
                "nats": cpu["nats"],
                "scheduler": cpu["scheduler"],
                "agents": round(sum(value for name, value in cpu.items() if name.startswith("agent")), 3),
                "client": cpu["client"],
            },
            "cores": os.cpu_count(),
        }
    )


def _cpu(cluster: BenchCluster) -> dict[str, float]:
    """CPU seconds so far of every process."""
    pids = {name: process.pid for name, process in cluster.processes.items()}
    assert cluster.nats.process is not None
    pids |= {"nats": cluster.nats.process.pid, "client": os.getpid()}
    return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in pids.items()}


async def _burst(client: Client, jobs: int, mode: str) -> tuple[float, float]:
    """(seconds from the first submission to the last success, seconds until all were submitted)."""
    before = (await client.stats()).ended.get("succeeded", 0)
    spec = JobSpec(driver="fake", fake=FakeRun())
    began = time.perf_counter()
    began_ms = time.time() * 1000
    if mode == "array":
        array = JobSpec(driver="fake", fake=FakeRun(), array=jobs)
        await client.submit(array)
        expected = before + jobs + 1
    else:
        results = await client.submit_many([spec] * jobs)
        failed = [result for result in results if not isinstance(result, Submitted)]
        if failed:
            raise failed[0]
        expected = before + jobs
    submitted = time.perf_counter() - began
    while True:
        stats = await client.stats()
        ended = stats.ended
        if ended.get("succeeded", 0) >= expected:  # the log's clock then stands at the last end
            return (stats.clock_ms - began_ms) / 1000, submitted
        if sum(ended.values()) > ended.get("succeeded", 0):
            raise EventschedError(f"some jobs did not succeed: {ended}")
        await asyncio.sleep(POLL_S)


async def _single_jobs(client: Client, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds from before the submission until its assign, and its start, were read from the log."""
    feed = JetStreamLog(client.link).read(await client.last_seq() + 1, ["ev.assign.*", "ev.run.*"])
    await feed.get(0.3)
    assigned, started = [], []
    try:
        for _ in range(count):
            began = time.perf_counter()
            submitting = asyncio.ensure_future(client.submit(driver="fake", fake={"duration_ms": 20}))
            run = 0
            while True:
                entries = await feed.get(5)
                if not entries:
                    raise EventschedError("a single job did not start within 5 s")
                now = time.perf_counter()
                events = [(seq, codec.decode(subject, payload)) for seq, _, subject, payload in entries]
                for seq, event in events:
                    if isinstance(event, RunAssigned):
                        run = seq
                        assigned.append((now - began) * 1000)
                if any(isinstance(event, RunStarted) and event.run == run for _, event in events):
                    started.append((now - began) * 1000)
                    break
            await submitting
            await asyncio.sleep(0.03)
    finally:
        await feed.close()
    return assigned, started
