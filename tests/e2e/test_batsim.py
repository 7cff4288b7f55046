"""A real workload through the live system: 801 jobs of Batsim's `medium` trace on 32 cpus, time compressed."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time
from pathlib import Path

import pytest

from eventsched.client import Submitted
from eventsched.events import DigestRecorded
from eventsched.projections.replaying import replay_digest
from eventsched.resources import Resources
from eventsched.spec import FakeRun, JobSpec
from tests.cluster import Cluster

TRACE = Path(__file__).parents[1] / "data" / "batsim-medium" / "medium_late.json.gz"
CPUS = 32
SPEED = int(os.environ.get("BATSIM_SPEED", "2000"))


def workload() -> list[tuple[float, str, JobSpec]]:
    """(second of arrival, job id, job), compressed; `res` machines are cpus, the delay is the run time."""
    trace = json.loads(gzip.decompress(TRACE.read_bytes()))
    jobs = []
    for job in trace["jobs"]:
        run_ms = max(1, round(trace["profiles"][job["profile"]]["delay"] * 1000 / SPEED))
        spec = JobSpec(
            driver="fake", resources=Resources(cpu_millis=1000 * job["res"]), fake=FakeRun(duration_ms=run_ms)
        )
        jobs.append((job["subtime"] / SPEED, f"batsim-{job['id']}", spec))
    return sorted(jobs, key=lambda one: one[0])


@pytest.mark.timeout(600)
@pytest.mark.calm
async def test_every_job_succeeds_and_a_replay_from_the_start_agrees(cluster: Cluster) -> None:
    cluster.scheduler("s1")
    cluster.agent("n1", "--cpus", str(CPUS))
    client = await cluster.ready()
    jobs = workload()
    assert len(jobs) == 801
    began = time.monotonic()
    for second, job_id, spec in jobs:
        await asyncio.sleep(max(0.0, began + second - time.monotonic()))
        (result,) = await client.submit_many([(job_id, spec)])
        assert isinstance(result, Submitted)
    for _, job_id, _ in jobs:
        await client.wait(job_id, timeout=120)
    views = await client.list()
    assert {view.state for view in views} == {"succeeded"}
    assert len(views) == 801
    stats = await client.stats()
    assert stats.ended == {"succeeded": 801}
    assert stats.free["cpu_millis"] == CPUS * 1000

    assert await cluster.end("s1") == 0
    last = None
    async for recorded in client.follow_events(follow=False):
        if isinstance(recorded.event, DigestRecorded):
            last = recorded.event
    assert last is not None, "a clean stop records the digest of the live state"
    replayed = await replay_digest(cluster.server.options("operator"), last.at_seq, False)
    assert replayed["digest"] == last.digest
