"""Gangs and machines that are taken away, with real processes."""

from __future__ import annotations

import signal

import pytest

from eventsched.client import Client
from eventsched.events import NodeLeaving, RunAssigned, RunEnded, StopOrdered
from eventsched.log.port import Entry
from eventsched.projections.redeciding import redecide
from eventsched.resources import Resources
from eventsched.spec import FakeRun

from ..cluster import Cluster, until

pytestmark = pytest.mark.calm
PROCESS = ("process",)
CHECKPOINT = "trap 'sleep 0.3; echo saved; exit 0' TERM; echo began; while :; do sleep 0.05; done"


@pytest.mark.parametrize("how", ["signal", "file", "command"])
async def test_a_spot_notice_stops_runs_with_time_to_save_and_they_wait_again(cluster: Cluster, how: str) -> None:
    cluster.scheduler("s1")
    gone = cluster.directory / "gone"
    options = {"signal": [], "file": ["--spot-file", str(gone)], "command": ["--spot-command", f"test -e {gone}"]}[how]
    cluster.agent("n1", "--spot", "--hazard", "0.05", "--price", "1.25", *options, drivers=PROCESS)
    client = await cluster.ready(1)
    job = await client.submit(driver="process", command=["sh", "-c", CHECKPOINT])
    await cluster.until_state(client, job.job_id, "running")

    async def began() -> bool:
        return "began" in await client.logs(job.job_id)

    await until(began, what="the trap to be set")
    if how == "signal":
        cluster.signal("n1", signal.SIGUSR1)
    else:
        gone.touch()
    view = await cluster.until_state(client, job.job_id, "pending")
    assert (view.losses, view.failures) == (1, 0)
    assert "saved" in await client.logs(job.job_id)
    assert cluster.processes["n1"].wait(30) == 0, "the agent leaves"
    events = [recorded.event async for recorded in client.follow_events(follow=False)]
    (leaving,) = (event for event in events if isinstance(event, NodeLeaving))
    assert leaving.reason == "spot"
    (ended,) = (event for event in events if isinstance(event, RunEnded))
    assert (ended.outcome, ended.reason) == ("stopped", "preempted")
    cluster.agent("n2", drivers=PROCESS)
    assert (await cluster.until_state(client, job.job_id, "running")).node == "n2"
    await client.abort(job.job_id)
    await client.wait(job.job_id, timeout=30)


async def test_a_gang_finds_its_head_and_restarts_as_one(cluster: Cluster) -> None:
    cluster.scheduler("s1")
    for name in ("n1", "n2"):
        cluster.agent(name, "--cpus", "2", drivers=PROCESS)
    client = await cluster.ready(2)
    script = "echo $EVENTSCHED_ARRAY_INDEX of $EVENTSCHED_GANG_SIZE at $EVENTSCHED_GANG_HEAD; sleep 60"
    job = await client.submit(driver="process", command=["sh", "-c", script], array=4, gang=True)

    async def told(member: int) -> str:
        return (await client.logs(f"{job.job_id}.{member}")).strip().splitlines()[-1:] and (
            (await client.logs(f"{job.job_id}.{member}")).strip().splitlines()[-1]
        )

    await cluster.until_state(client, job.job_id, "running")
    for member in range(4):
        await cluster.until_state(client, f"{job.job_id}.{member}", "running")
        text = await until(lambda member=member: told(member), what="its output")  # type: ignore[misc]
        head = (await client.get(f"{job.job_id}.0")).node
        assert text == f"{member} of 4 at {head}"
    assert await cluster.end("n2") == 0

    async def all_wait() -> bool:
        view = await client.get(job.job_id)
        return view.members.get("pending") == 4

    await until(all_wait, what="all members to wait")
    assert (await client.get(job.job_id)).reason == "gang_forming"
    cluster.agent("n3", "--cpus", "2", drivers=PROCESS)
    for member in range(4):
        assert (await cluster.until_state(client, f"{job.job_id}.{member}", "running")).attempt == 2
    await client.abort(job.job_id)
    assert (await client.wait(job.job_id, timeout=30)).state == "aborted"


async def test_a_preemptor_gets_the_place_its_victims_leave(cluster: Cluster) -> None:
    cluster.scheduler("s1")
    cluster.agent("n1", "--cpus", "2")
    client = await cluster.ready(1)
    await client.set_policy("best-fit", preempt=1)
    asked = Resources(cpu_millis=1000)
    lows = [await client.submit(driver="fake", resources=asked, fake=FakeRun(duration_ms=60_000)) for _ in range(2)]
    for low in lows:
        await cluster.until_state(client, low.job_id, "running")
    high = await client.submit(
        driver="fake", resources=Resources(cpu_millis=2000), priority=10, fake=FakeRun(duration_ms=10)
    )
    assert (await client.wait(high.job_id, timeout=30)).state == "succeeded"
    for low in lows:
        view = await cluster.until_state(client, low.job_id, "running")
        assert (view.attempt, view.losses, view.failures) == (2, 1, 0)
    events = [recorded.event async for recorded in client.follow_events(follow=False)]
    stops = [event for event in events if isinstance(event, StopOrdered)]
    assert {one.detail for one in stops} == {f"in favour of default/{high.job_id} (priority 10)"}
    assert len([event for event in events if isinstance(event, RunAssigned)]) == 5
    assert len([event for event in events if isinstance(event, RunEnded)]) == 3
    assert await cluster.end("s1") == 0
    again = redecide(await _whole_log(client))
    assert again.rounds >= 5
    assert (again.differing, again.unknown) == ([], 0), "what was decided live is decided again from the log"


async def _whole_log(client: Client) -> list[Entry]:
    feed = client.log.read(1)
    entries: list[Entry] = []
    while not entries or feed.pending:
        entries += await feed.get(5)
    await feed.close()
    return entries
