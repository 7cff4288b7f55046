"""Several schedulers: one leads, the others stand by; killing and freezing the leader, with real processes."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from eventsched import codec
from eventsched.client import Client, Submitted
from eventsched.events import LeaderClaimed, RunAssigned
from eventsched.log.port import Outgoing
from eventsched.projections.replaying import replay_digest
from eventsched.spec import FakeRun, JobSpec

from ..cluster import Cluster, until

KILLS = 20
FAILOVER_MAX_S = 3.0
SCHEDULERS = ("s1", "s2", "s3")


async def _leader(client: Client) -> tuple[int, str]:
    """(epoch, name) of the last claim in the log."""
    feed = client.log.read(1, ["ev.leader"])
    found = (0, "")
    while feed.pending != 0:
        for seq, _, subject, payload in await feed.get(5):
            event = codec.decode(subject, payload)
            assert isinstance(event, LeaderClaimed)
            found = (seq, event.leader)
    await feed.close()
    return found


async def _first_assign_of(client: Client, epoch: int) -> None:
    """Return when a decision of this epoch, or of a later one, is in the log."""
    feed = client.log.read(epoch, ["ev.assign.*"])
    try:
        async with asyncio.timeout(20):
            while True:
                for _, _, subject, payload in await feed.get():
                    event = codec.decode(subject, payload)
                    if isinstance(event, RunAssigned) and event.epoch >= epoch:
                        return
    finally:
        await feed.close()


@pytest.mark.alone
@pytest.mark.timeout(300)
async def test_kill_9_of_the_leader_under_load(cluster: Cluster) -> None:
    """Twenty kills: each time another leads and assigns within three seconds; no job is lost, doubled or stuck."""
    for name in SCHEDULERS:
        cluster.scheduler(name)
    for node in ("n1", "n2"):
        cluster.agent(node, "--cpus", "40")
    client = await cluster.ready(2)
    submitted: list[str] = []
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            results = await client.submit_many([JobSpec(driver="fake", fake=FakeRun(duration_ms=50))] * 10)
            submitted.extend(one.job_id for one in results if isinstance(one, Submitted))
            await asyncio.sleep(0.05)

    loading = asyncio.ensure_future(load())
    took: list[float] = []
    for _ in range(KILLS):
        epoch, name = await _leader(client)
        began = time.monotonic()
        cluster.signal(name, signal.SIGKILL)

        async def another(epoch: int = epoch) -> int:
            now, _ = await _leader(client)
            return now if now > epoch else 0

        newer = await until(another, 20, f"somebody to follow {name}")
        await _first_assign_of(client, newer)
        took.append(time.monotonic() - began)
        cluster.processes[name].wait()
        cluster.scheduler(name)
        await asyncio.sleep(0.3)
    stop.set()
    await loading
    print("failover seconds", [round(one, 2) for one in took])
    assert max(took) <= FAILOVER_MAX_S, took

    async def all_over() -> bool:
        return (await client.stats()).ended.get("succeeded", 0) >= len(submitted)

    await until(all_over, 60, "all jobs to succeed")
    stats = await client.stats()
    assert stats.ended == {"succeeded": len(submitted)}
    assert (stats.runs, stats.jobs) == (0, {})
    assert stats.digest_mismatches == 0
    await _assigned_once_each(client, submitted)


async def _assigned_once_each(client: Client, jobs: list[str]) -> None:
    """No job ran twice: none was lost, so one assign each."""
    feed = client.log.read(1, ["ev.assign.*"])
    assigned: dict[str, int] = {}
    while feed.pending != 0:
        for _, _, subject, payload in await feed.get(5):
            event = codec.decode(subject, payload)
            if isinstance(event, RunAssigned):
                assigned[event.job] = assigned.get(event.job, 0) + 1
    await feed.close()
    assert assigned == dict.fromkeys(jobs, 1)


async def test_a_frozen_leader_that_wakes_up_is_fenced_and_steps_down(cluster: Cluster) -> None:
    cluster.scheduler("s1")
    cluster.agent("n1")
    client = await cluster.ready(1)
    cluster.scheduler("s2")
    epoch, first = await _leader(client)
    assert first == "s1"
    cluster.signal("s1", signal.SIGSTOP)

    async def taken_over() -> bool:
        now, name = await _leader(client)
        return now > epoch and name == "s2"

    await until(taken_over, what="s2 to lead")
    job = await client.submit(driver="fake")
    assert (await client.wait(job.job_id, timeout=20)).state == "succeeded"
    cluster.signal("s1", signal.SIGCONT)

    async def stepped_down() -> bool:
        return "role=standby" in cluster.log("s1").read_text()

    await until(stepped_down, what="the sleeper to notice")
    jobs = [await client.submit(driver="fake") for _ in range(5)]
    for one in jobs:
        assert (await client.wait(one.job_id, timeout=20)).attempt == 1
    assert (await _leader(client))[1] == "s2", "the sleeper does not take the lead back"
    stats = await client.stats()
    assert stats.anomalies == {}, "the fence refused what the sleeper wrote: nothing of it is in the log"


async def test_the_fence_refuses_a_deposed_leader_at_the_server(cluster: Cluster) -> None:
    cluster.scheduler("s1")
    client = await cluster.ready(0)
    epoch, _ = await _leader(client)
    tester = await cluster.client("tester")
    rival = LeaderClaimed(leader="rival", nonce="r")
    await tester.log.append([Outgoing("ev.leader", codec.encode(rival), expect=epoch)])

    async def s1_leads_again() -> bool:
        return (await _leader(client))[1] == "s1"

    await until(s1_leads_again, what="s1 to notice and claim again")
    assert "role=standby" in cluster.log("s1").read_text()


async def test_replicas_and_a_replay_agree(cluster: Cluster) -> None:
    for name in SCHEDULERS:
        cluster.scheduler(name, "--digest-every", "100")
    cluster.agent("n1", "--cpus", "20")
    client = await cluster.ready(1)
    await client.submit_many([JobSpec(driver="fake", fake=FakeRun())] * 200)

    async def done() -> bool:
        return (await client.stats()).ended.get("succeeded", 0) == 200

    await until(done, what="200 jobs")
    options = cluster.server.options("operator")
    whole = await replay_digest(options)
    again = await replay_digest(options, from_snapshot=True)
    assert whole["checked"]
    assert whole["digest"] == (await replay_digest(options, at=int(str(whole["seq"]))))["digest"]
    at_same = await replay_digest(options, at=int(str(again["seq"])))
    assert at_same["digest"] == again["digest"]
