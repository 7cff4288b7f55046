"""Agents in this process, over a real log: leaving, starting and beating at the wrong moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from eventsched import codec
from eventsched.agents.drivers.base import EngineAway, Progress
from eventsched.agents.drivers.fake import FakeDriver, FakeEngine
from eventsched.agents.effects import KnownRun, Launch
from eventsched.agents.lease import Terms, boot_ms, read_lease, write_lease
from eventsched.agents.runtime import Agent
from eventsched.agents.settings import AgentSettings
from eventsched.client import Client
from eventsched.events import NodeJoined, NodeLeaving, NodeLeft
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import Link, connect
from eventsched.log.streams import api, hb_config
from eventsched.spec import FakeRun
from eventsched.views import JobView
from eventsched.wire import Event

from ..cluster import Cluster, until
from ..proxy import Proxy

LONG = FakeRun(duration_ms=600_000)


class Slow(FakeDriver):
    """A fake whose inventory and starts wait for the test.

    away: so many inventories fail. committed: a start waits behind the point of no return, not before it.
    """

    def __init__(self, engine: FakeEngine) -> None:
        super().__init__(engine)
        self.away = 0
        self.committed = False
        self.asked, self.begun = asyncio.Event(), asyncio.Event()
        self.inventory_may, self.start_may = asyncio.Event(), asyncio.Event()
        self.inventory_may.set()
        self.start_may.set()

    async def inventory(self) -> list[KnownRun]:
        self.asked.set()
        if self.away:
            self.away -= 1
            raise EngineAway("no engine here for the moment")
        await self.inventory_may.wait()
        return await super().inventory()

    async def start(self, launch: Launch, progress: Progress) -> None:
        self.begun.set()
        if not self.committed:
            await self.start_may.wait()
        progress("starting")
        await self.start_may.wait()
        await super().start(launch, progress)


class Nodes:
    """A cluster whose agents for node `n1` live in this process, one after the other, on one machine."""

    def __init__(self, cluster: Cluster, client: Client, cluster_id: str) -> None:
        self.cluster = cluster
        self.client = client
        self.proxy = Proxy(cluster.server.port)
        self.url = ""
        self.engine = FakeEngine()
        self._cluster_id = cluster_id
        self._links: list[Link] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def agent(self, heartbeat_ms: int = 300, fence_after_ms: int = 1_500) -> tuple[Agent, Slow]:
        """Another agent of the same machine, not running yet."""
        options = replace(self.cluster.server.options("agent"), url=self.url)
        self._links.append(await connect(options, "agent"))
        settings = AgentSettings(
            data=self.cluster.directory / "agents",
            node="n1",
            cpus="4",
            heartbeat_ms=heartbeat_ms,
            fence_after_ms=fence_after_ms,
            fence_grace_ms=1_000,
            leash=False,
        )
        driver = Slow(self.engine)
        return Agent(self._links[-1], self._cluster_id, settings, [driver]), driver

    def run(self, agent: Agent) -> asyncio.Task[None]:
        """Let it work."""
        self._tasks.append(asyncio.ensure_future(agent.run()))
        return self._tasks[-1]

    async def close(self) -> None:
        """Stop what is left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links:
            await link.close()
        await self.proxy.close()

    async def events(self) -> list[Event]:
        """What was said on `ev.node.n1`."""
        link = await connect(self.cluster.server.options("tester"), "t")
        feed = JetStreamLog(link).read(1, ["ev.node.n1"])
        found: list[Event] = []
        while feed.pending:
            found += [codec.decode(entry.subject, entry.payload) for entry in await feed.get(1)]
        await feed.close()
        await link.close()
        return found

    async def running(self) -> JobView:
        """A job on n1 that goes on for long, once it runs."""
        job = await self.client.submit(driver="fake", fake=LONG)
        return await self.cluster.until_state(self.client, job.job_id, "running")  # type: ignore[no-any-return]

    def alive(self) -> list[int]:
        """The runs that go on in the engine."""
        return [run for run, one in self.engine.runs.items() if not one.over.done()]


@pytest.fixture
async def nodes(cluster: Cluster) -> AsyncIterator[Nodes]:
    cluster.scheduler()
    client = await cluster.ready(0)
    made = Nodes(cluster, client, (await client.stats()).cluster_id)
    made.url = await made.proxy.start()
    yield made
    await made.close()


# ---- leaving ------------------------------------------------------------------------------------


async def _over(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(20):
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("trouble", ["no leader answers the join", "the join does not get through"])
async def test_an_agent_that_leaves_before_it_was_let_in_says_nothing_of_its_runs(nodes: Nodes, trouble: str) -> None:
    """It reported them as gone and dropped the lease, and its jobs were started a second time beside them."""
    first, _ = await nodes.agent()
    killed = nodes.run(first)
    job = await nodes.running()
    killed.cancel()
    await _over(killed)
    second, driver = await nodes.agent()
    if trouble == "no leader answers the join":
        await nodes.cluster.kill("s1")
    else:
        nodes.proxy.cut()
    leaving = nodes.run(second)

    async def joining() -> bool:
        return second.session is not None and (nodes.proxy.is_cut or second.session.core.session > 0)

    await until(joining, what="the agent to join")
    assert driver.asked.is_set()
    await second.leave()
    await _over(leaving)
    assert not any(isinstance(event, NodeLeaving | NodeLeft) for event in await nodes.events())
    assert read_lease(second.directory) is not None, "the leash goes on watching"
    assert nodes.alive() == [job.run]
    nodes.proxy.heal()
    if trouble == "no leader answers the join":
        nodes.cluster.scheduler()
    third, _ = await nodes.agent()
    nodes.run(third)
    await asyncio.wait_for(third.ready.wait(), 30)
    view = await nodes.client.get(job.job_id)
    assert (view.state, view.run, view.attempt, view.losses) == ("running", job.run, 1, 0)
    assert nodes.alive() == [job.run]


@pytest.mark.parametrize("answers", [True, False])
async def test_an_agent_told_to_leave_while_it_takes_its_inventory_does_not_join(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr("eventsched.agents.runtime.ENGINE_ANSWER_S", 0.3)
    agent, driver = await nodes.agent()
    write_lease(agent.directory, boot_ms() + 20_000, 1, Terms("cluster", agent.node, 1_000))
    driver.inventory_may.clear()
    running = nodes.run(agent)
    await driver.asked.wait()
    await agent.leave()
    if answers:
        driver.inventory_may.set()
    await _over(running)
    assert running.exception() is None
    assert await nodes.events() == []
    assert (read_lease(agent.directory) is None) is answers, "silence says nothing about what runs"


async def test_an_engine_that_is_away_for_a_while_is_waited_for(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent ended with a traceback when its engine restarted while it joined anew."""
    monkeypatch.setattr("eventsched.agents.runtime.ENGINE_RETRY_S", 0.05)
    agent, driver = await nodes.agent()
    driver.away = 3
    nodes.run(agent)
    await asyncio.wait_for(agent.ready.wait(), 20)
    assert driver.away == 0


async def test_a_leave_in_good_order_gives_everything_back(nodes: Nodes) -> None:
    agent, _ = await nodes.agent()
    running = nodes.run(agent)
    job = await nodes.running()
    await agent.leave()
    await _over(running)
    assert [type(event) for event in await nodes.events()] == [NodeJoined, NodeLeaving, NodeLeft]
    assert read_lease(agent.directory) is None
    assert not nodes.alive()
    view = await nodes.client.get(job.job_id)
    assert (view.state, view.attempt, view.losses) == ("pending", 1, 1)


# ---- cut off --------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [False, True])
async def test_what_was_being_started_when_the_session_ended_does_not_go_on(nodes: Nodes, committed: bool) -> None:
    """A slow start came through after the fence, and nothing stopped it."""
    agent, driver = await nodes.agent()
    driver.committed = committed
    driver.start_may.clear()
    nodes.run(agent)
    job = await nodes.client.submit(driver="fake", fake=LONG)
    await driver.begun.wait()
    session = agent.session
    assert session is not None
    (run,) = session.core.runs
    nodes.proxy.cut()

    async def over() -> bool:
        return session.core.over

    await until(over, what="the lease to run out")
    driver.start_may.set()

    async def settled() -> bool:
        return run not in nodes.alive() and session.core.runs[run].phase == "ended"

    await until(settled, what="the late start to be undone")
    assert (run in nodes.engine.runs) is committed, "without a need it is not even begun"
    nodes.proxy.heal()

    async def again() -> JobView | None:
        view = await nodes.client.get(job.job_id)
        return view if view.state == "running" and view.run > run else None

    view = await until(again, what="the job to run in another try")
    assert nodes.alive() == [view.run]


async def test_heartbeats_the_server_refuses_renew_no_lease(nodes: Nodes) -> None:
    """Any answer did, so that a node went on working which the leader had given up."""
    agent, _ = await nodes.agent()
    nodes.run(agent)
    await asyncio.wait_for(agent.ready.wait(), 20)
    session = agent.session
    assert session is not None
    link = await connect(nodes.cluster.server.options("tester"), "t")
    await api(link, "STREAM.UPDATE.HB", {**hb_config(1), "max_msg_size": 10})

    async def over() -> bool:
        return session.core.over

    await until(over, 10, "the lease to run out")
    await link.close()


@pytest.mark.alone
async def test_a_lost_heartbeat_is_made_good_before_the_lease_runs_out(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole period was waited for the answer, and then another one until the next heartbeat."""
    agent, _ = await nodes.agent(heartbeat_ms=600, fence_after_ms=1_800)
    request = agent.link.request
    sent: list[int] = []

    async def every_other(subject: str, payload: bytes, timeout: float = 5, headers: object = None) -> bytes:
        if subject == "hb.n1":
            sent.append(boot_ms())
            if len(sent) % 2 == 0:
                await asyncio.sleep(timeout)
                raise TimeoutError
        return await request(subject, payload, timeout, headers)

    monkeypatch.setattr(agent.link, "request", every_other)
    nodes.run(agent)
    await asyncio.wait_for(agent.ready.wait(), 20)
    session = agent.session

    async def often() -> bool:
        return len(sent) >= 6

    await until(often, 20, "three heartbeats to be lost")
    assert agent.session is session
    assert not agent.lease.expired()
