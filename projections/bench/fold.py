"""bench fold: how fast events are folded, from memory and from JetStream, and what a live job weighs."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from typing import Annotated

import psutil
from cyclopts import Parameter

from eventsched import codec
from eventsched.bench import BenchCluster
from eventsched.cli.common import print_json
from eventsched.client import Client, Submitted
from eventsched.errors import EventschedError
from eventsched.garbage import collect_rarely
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import connect
from eventsched.log.port import Entry
from eventsched.projections.cluster.digest import digest, encode_state
from eventsched.projections.cluster.evolve import evolve
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.replica import Replica
from eventsched.recorded import Recorded
from eventsched.spec import FakeRun, JobSpec
from eventsched.telemetry import configure_logging

EVENTS_PER_JOB = 4
AGENTS = 4
CHUNK = 20_000
LIVE_JOBS = 100_000


async def fold(
    *,
    events: Annotated[int, Parameter(help="events in the log, written by the live path")] = 1_000_000,
    repeats: Annotated[int, Parameter(help="rebuilds and folds; medians are printed")] = 3,
) -> None:
    """Write a log by running jobs through a live cluster, then fold it: from memory, and from the server."""
    configure_logging(level="error")
    async with BenchCluster() as cluster:
        cluster.spawn("scheduler", "scheduler", "--name", "bench")
        for index in range(AGENTS):
            cluster.spawn(f"agent-{index}", "agent", "--node", f"n{index}", "--driver", "fake", "--cpus", "500")
        client = await cluster.client(AGENTS)
        await _write_log(client, events)
        await client.close()
        for name in ("scheduler", *(f"agent-{index}" for index in range(AGENTS))):
            cluster.processes.pop(name).terminate()
        link = await connect(cluster.nats.options("operator"), "bench-fold")
        collect_rarely()
        rebuilds = [await _rebuild(JetStreamLog(link)) for _ in range(repeats)]
        entries = await _read_all(JetStreamLog(link))
        await link.close()
    recorded = [Recorded(seq, at, subject, codec.decode(subject, payload)) for seq, at, subject, payload in entries]
    evolves = sorted(_evolve(recorded) for _ in range(repeats))
    rates = sorted(rate for rate, _ in rebuilds)
    print_json(
        {
            "evolve_events_per_s": round(evolves[repeats // 2]),
            "rebuild_events_per_s": round(rates[repeats // 2]),
            "bytes_per_live_job": _bytes_per_live_job(),
            "events": len(entries),
            "log_bytes": sum(len(payload) for _, _, _, payload in entries),
            "digest": rebuilds[0][1],
            "runs": {"evolve": [round(one) for one in evolves], "rebuild": [round(one) for one in rates]},
            "cores": os.cpu_count(),
        }
    )


async def _write_log(client: Client, events: int) -> None:
    """Run jobs until the log holds so many events."""
    spec = JobSpec(driver="fake", fake=FakeRun(), image="", name="bench", labels={"team": "a"})
    while True:
        missing = events - await client.last_seq()
        if missing <= 0:
            return
        jobs = min(CHUNK, max(1, missing // EVENTS_PER_JOB))
        before = sum((await client.stats()).ended.values())
        for result in await client.submit_many([spec] * jobs):
            if not isinstance(result, Submitted):
                raise result
        while sum((await client.stats()).ended.values()) < before + jobs:
            await asyncio.sleep(0.1)


async def _rebuild(log: JetStreamLog) -> tuple[float, str]:
    """Events a second from the server into a state, as a starting replica does it; and the digest."""
    state = ClusterState()
    replica = Replica(state)
    feed = log.read(1)
    gc.collect()
    began = time.perf_counter()
    while feed.pending != 0:
        entries = await feed.get(10)
        if not entries:
            raise EventschedError("the log stopped coming")
        replica.fold_entries(entries)
    seconds = time.perf_counter() - began
    await feed.close()
    if replica.mismatches:
        raise EventschedError(f"digests differ: {replica.mismatches[0]}")
    return state.seq / seconds, digest(state)


async def _read_all(log: JetStreamLog) -> list[Entry]:
    entries: list[Entry] = []
    feed = log.read(1)
    while feed.pending != 0:
        entries += await feed.get(10)
    await feed.close()
    return entries


def _evolve(recorded: list[Recorded]) -> float:
    """Events a second from memory."""
    state = ClusterState()
    collect_rarely()
    began = time.perf_counter()
    for one in recorded:
        evolve(state, one)
    seconds = time.perf_counter() - began
    return len(recorded) / seconds


def _bytes_per_live_job() -> int:
    """What a waiting job adds to the process, measured on a hundred thousand different ones."""
    state = ClusterState()
    evolve(
        state,
        Recorded(1, 1, "ev.admin.cluster_created", codec.decode("ev.admin.cluster_created", b'{"cluster_id":"b"}')),
    )
    gc.collect()
    before = psutil.Process().memory_info().rss
    for index in range(LIVE_JOBS):
        subject = f"ev.job.tenant{index % 10}.job{index}.submitted"
        payload = b'{"image":"busybox","command":["sh","-c","echo %d"],"labels":{"i":"%d"}}' % (index, index)
        evolve(state, Recorded(index + 2, 1, subject, codec.decode(subject, payload)))
    state.changes.forget_touched()
    gc.collect()
    used = psutil.Process().memory_info().rss - before
    assert len(state.jobs) == LIVE_JOBS
    assert encode_state(state)
    return int(used // LIVE_JOBS)
