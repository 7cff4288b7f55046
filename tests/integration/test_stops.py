"""An agent that dies in the middle of a stop: its successor knows that the end was not the job's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from eventsched.agents.process_runs import JOURNAL, read_journal
from eventsched.client import Client

from ..cluster import Cluster, until
from ..engine import docker, remove_all

pytestmark = pytest.mark.calm
REAL = ("process", "docker")
SLOW = "trap 'echo stopping; sleep 2; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
STUBBORN = "trap 'echo stopping' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
async def live(cluster: Cluster) -> AsyncIterator[Cluster]:
    cluster.scheduler("s1")
    client = await cluster.ready(0)
    cluster_id = (await client.stats()).cluster_id
    yield cluster
    await cluster.stop()
    await remove_all(cluster_id)


async def _ready(live: Cluster, client: Client, driver: str, script: str, **fields: object) -> str:
    """A job that has said that it is ready for SIGTERM."""
    image = {"image": "busybox", "network": "none"} if driver == "docker" else {}
    spec = {"driver": driver, "command": ["sh", "-c", script], "stop_grace_ms": 4_000, **image, **fields}
    job = await client.submit(**spec)  # type: ignore[arg-type]

    async def said() -> bool:
        return await client.logs(job.job_id) == "ready\n"

    await until(said, what="the job to be ready")
    return job.job_id


async def _kill_in_the_middle_of_a_stop(live: Cluster, job_id: str, client: Client) -> None:
    async def signalled() -> bool:
        return "stopping\n" in await client.logs(job_id)  # beside what the shell says

    await until(signalled, what="the job to get its signal")
    await live.kill("n1")


@pytest.mark.parametrize("driver", REAL)
async def test_over_its_time_and_ended_before_the_next_agent_came(live: Cluster, driver: str) -> None:
    live.agent("n1", drivers=(driver,))
    client = await live.ready(1)
    job_id = await _ready(live, client, driver, SLOW, max_runtime_ms=1_500)
    await _kill_in_the_middle_of_a_stop(live, job_id, client)
    await _ended_by_itself(live, client, job_id, driver)
    view = await client.wait(job_id, timeout=20)
    assert (view.state, view.exit_code, view.attempt) == ("timed_out", 9, 1)


@pytest.mark.parametrize("driver", REAL)
async def test_ordered_to_stop_and_ended_before_the_next_agent_came(live: Cluster, driver: str) -> None:
    live.agent("n1", drivers=(driver,))
    client = await live.ready(1)
    job_id = await _ready(live, client, driver, SLOW)
    await client.drain("n1", now=True)
    await _kill_in_the_middle_of_a_stop(live, job_id, client)
    await _ended_by_itself(live, client, job_id, driver)

    async def put_back() -> bool:
        return (await client.get(job_id)).state != "running"

    await until(put_back, what="the end to be reported")
    view = await client.get(job_id)
    assert (view.state, view.failures, view.attempt) == ("pending", 0, 1)


async def test_what_ignores_the_signal_is_stopped_by_the_next_agent(live: Cluster) -> None:
    """An agent that leaves has its own reason, which no leader repeats."""
    live.agent("n1", drivers=("process",))
    client = await live.ready(1)
    job_id = await _ready(live, client, "process", STUBBORN)
    first = (await client.get(job_id)).run
    live.processes["n1"].terminate()
    await _kill_in_the_middle_of_a_stop(live, job_id, client)
    live.agent("n1", drivers=("process",))

    async def again() -> bool:
        view = await client.get(job_id)
        return view.state == "running" and view.run != first

    await until(again, what="the next attempt")
    view = await client.get(job_id)
    assert (view.failures, view.attempt) == (0, 2)
    await client.abort(job_id)
    assert (await client.wait(job_id, timeout=20)).state == "aborted"


async def _ended_by_itself(live: Cluster, client: Client, job_id: str, driver: str) -> None:
    """Wait for that, and only then start the next agent."""
    run = (await client.get(job_id)).run
    cluster8 = (await client.stats()).cluster_id[-8:].lower()

    async def over() -> bool:
        if driver == "docker":
            return (await docker("inspect", "-f", "{{.State.Running}}", f"es-{cluster8}-{run}")).strip() == "false"
        return all(
            record.over for path in live.directory.rglob(JOURNAL) for record in read_journal(path.parent).values()
        )

    await until(over, what="the job to end")
    live.agent("n1", drivers=(driver,))
