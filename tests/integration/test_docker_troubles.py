"""The docker driver and an engine that refuses, forgets to answer, or goes away."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventsched.agents.drivers.base import EngineAway, Place, StartFailed, exited
from eventsched.agents.drivers.docker import DockerDriver
from eventsched.agents.effects import Ended, Launch
from eventsched.new_ids import new_ulid
from eventsched.spec import JobSpec
from eventsched.views import JobView

from ..cluster import Cluster, until
from ..engine import Daemon, containers_of, docker, engine_time, remove_all
from ..engine_proxy import EngineProxy

DEAF = "trap '' TERM; echo ready; while true; do sleep 0.1; done"


class Box:
    """A driver behind a proxy."""

    def __init__(self, directory: Path) -> None:
        self.proxy = EngineProxy(directory / "engine.sock")
        self.place = Place(new_ulid(), "node-1", directory)
        self.driver = DockerDriver(self.place, socket_path=self.proxy.path)
        self.numbers = itertools.count(1)
        self.words: list[str] = []
        self._seen: dict[str, int] = {}

    def launch(self, script: str = "sleep 60") -> Launch:
        spec = JobSpec(image="busybox", command=("sh", "-c", script), network="none")
        return Launch(next(self.numbers), "acme", "job", 1, (), spec)

    async def run(self, script: str = "sleep 60") -> int:
        launch = self.launch(script)
        await self.driver.start(launch, self.words.append)
        return launch.run

    async def asked(self, part: str) -> None:
        """Until the driver has asked this (once more than at the call before)."""
        count = self._seen[part] = self._seen.get(part, 0) + 1

        async def arrived() -> bool:
            return sum(part in line for line in self.proxy.asked) >= count

        await until(arrived, what=f"{part} to be asked")

    async def end(self, run: int) -> None:
        """As an engine does that shuts down: behind the driver's back."""
        await docker("stop", "-t", "5", f"es-{self.place.cluster8}-{run}")

    async def containers(self, *options: str) -> int:
        label = f"label=eventsched.cluster={self.place.cluster}"
        return len((await docker("ps", "-q", *options, "--filter", label)).split())


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    box = Box(tmp_path)
    await box.proxy.start()
    await box.driver.open()
    yield box
    await box.driver.close()
    await box.proxy.close()
    await remove_all(box.place.cluster)


async def test_a_stop_the_engine_refuses_is_asked_for_again(box: Box) -> None:
    """A 500 was taken for a success: the run was thought to be stopped, and went on."""
    run = await box.run(DEAF)
    box.proxy.refuse["/stop"] = 2
    began = asyncio.get_running_loop().time()
    await box.driver.stop(run, 2_000)
    assert await box.containers() == 0
    assert await box.driver.wait(run) == Ended("stopped", 137)
    assert asyncio.get_running_loop().time() - began < 5, "trying again does not make its grace longer"
    graces = [line.partition("t=")[2].split()[0] for line in box.proxy.asked if "/stop" in line]
    assert graces == ["2", "2", "1"]


async def test_a_stop_whose_answer_is_lost_was_ours_all_the_same(box: Box) -> None:
    run = await box.run()
    box.proxy.lose["/stop"] = 1
    await box.driver.stop(run, 2_000)
    assert (await box.driver.wait(run)).outcome == "stopped"


async def test_a_second_stop_does_not_take_the_first_one_back(box: Box) -> None:
    """The second finds it over, by the first one's signal."""
    run = await box.run()
    await box.driver.stop(run, 2_000)
    await box.driver.stop(run, 2_000)
    assert (await box.driver.wait(run)).outcome == "stopped"


async def test_a_start_whose_answer_is_lost_is_a_start(box: Box) -> None:
    """It was reported as failed, and ran."""
    box.proxy.lose["/start"] = 1
    run = await box.run("exit 5")
    assert (await box.driver.wait(run)).exit_code == 5


async def test_a_start_that_is_called_off_between_making_and_starting_leaves_nothing(box: Box) -> None:
    def no(word: str) -> None:
        box.words.append(word)
        if word == "starting":
            raise StartFailed("unwanted", "")

    with pytest.raises(StartFailed):
        await box.driver.start(box.launch(), no)
    assert box.words == ["creating", "starting"]
    assert await box.containers("-a") == 0


async def test_a_start_that_is_given_up_is_undone_before_anybody_may_go_on(box: Box) -> None:
    """The engine goes on with what it was asked for; the run would have run, and nobody would have known."""
    box.proxy.slow["/start"] = answer = asyncio.Event()
    starting = asyncio.ensure_future(box.driver.start(box.launch(), box.words.append))

    async def running() -> None:
        while not await box.containers():
            await asyncio.sleep(0.05)

    await asyncio.wait_for(running(), 20)
    starting.cancel()
    done, _ = await asyncio.wait((starting,), timeout=0.3)
    assert not done, "it is not over while nobody knows what the engine does"
    answer.set()
    await asyncio.wait((starting,), timeout=20)
    assert starting.cancelled()
    assert await box.containers("-a") == 0


async def test_an_engine_that_is_away_says_nothing_about_what_runs(box: Box) -> None:
    await box.run()
    await box.proxy.close()
    with pytest.raises(EngineAway, match="does not answer"):
        await box.driver.inventory()
    await box.proxy.start()
    assert len(await box.driver.inventory()) == 1
    box.proxy.refuse["/containers"] = 1
    with pytest.raises(EngineAway, match="did not receive an exit event"):
        await box.driver.inventory()


OBLIGING = "trap 'exit %d' TERM; echo ready; while true; do sleep 0.1; done"


async def _ready(box: Box, run: int) -> None:
    """Its trap is set."""
    async for _, data in box.driver.output(run, 0):
        assert data == b"ready\n"
        return


@pytest.mark.parametrize("script", ["echo ready; sleep 60", OBLIGING % 0, OBLIGING % 3])
async def test_an_end_told_by_an_engine_that_goes_away_is_not_the_runs_own(box: Box, script: str) -> None:
    """It stops listening, stops its containers, and tells of it on the connections that there are, for as
    long as its slowest container takes. The job was called failed, or worse, succeeded."""
    run = await box.run(script)
    await _ready(box, run)
    waiting = asyncio.ensure_future(box.driver.wait(run))
    await box.asked("/wait")
    await box.proxy.stop_listening()
    await box.end(run)
    done, _ = await asyncio.wait((waiting,), timeout=3)
    assert not done, "nothing is said before there is an engine to ask"
    box.proxy.cut()
    await box.proxy.start()
    assert await waiting == Ended("lost", None, "engine_lost", "it ended while the container engine was down")


async def test_an_engine_that_was_replaced_before_anybody_looked_is_noticed(box: Box) -> None:
    """The answer is the old engine's, and only the new one can be asked."""
    run = await box.run()
    box.proxy.slow["/wait"] = answer = asyncio.Event()
    waiting = asyncio.ensure_future(box.driver.wait(run))
    await box.asked("/wait")
    await box.end(run)
    box.proxy.cut("/_ping")
    answer.set()
    assert (await waiting).outcome == "lost"


async def test_a_run_that_outlives_its_engine_ends_with_its_own_code(box: Box) -> None:
    """It was called lost, however long after the engine's return it ended."""
    run = await box.run(OBLIGING % 5)
    await _ready(box, run)
    waiting = asyncio.ensure_future(box.driver.wait(run))
    await box.asked("/wait")
    await box.proxy.stop_listening()
    box.proxy.cut()
    await box.proxy.start()
    await box.asked("/wait")
    await box.end(run)
    ended = await waiting
    assert (ended.outcome, ended.exit_code) == ("exited", 5)


async def test_a_run_that_somebody_else_kills_has_failed(box: Box) -> None:
    """The engine goes on, so it was not the engine's going away."""
    run = await box.run()
    await docker("kill", f"es-{box.place.cluster8}-{run}")
    ended = await box.driver.wait(run)
    assert (ended.outcome, ended.exit_code, ended.reason) == ("exited", 137, "killed")


@pytest.fixture
async def own(daemon: Daemon, tmp_path: Path) -> AsyncIterator[DockerDriver]:
    """A driver of the test's own engine."""
    driver = DockerDriver(Place(new_ulid(), "node-1", tmp_path), socket_path=daemon.host.removeprefix("unix://"))
    await driver.open()
    yield driver
    await driver.close()


async def _begun(driver: DockerDriver, *scripts: str) -> list[asyncio.Future[Ended]]:
    """The ends of runs that have begun."""
    ends = []
    for number, script in enumerate(scripts, 1):
        spec = JobSpec(image="busybox", command=("sh", "-c", script), network="none")
        await driver.start(Launch(number, "acme", "job", 1, (), spec), lambda word: None)
        ends.append(asyncio.ensure_future(driver.wait(number)))
    return ends


@pytest.mark.timeout(120)
async def test_a_shutdown_that_takes_its_time_fails_nobody(daemon: Daemon, own: DockerDriver) -> None:
    """One container takes long to stop, so the engine is long in going, and answers all the while."""
    slow = "trap 'sleep 4; exit 0' TERM; while true; do sleep 0.1; done"
    ends = await _begun(own, slow, "sleep 60", OBLIGING % 0, OBLIGING % 3)
    await daemon.end()
    assert not any(end.done() for end in ends), "nothing is said before there is an engine to ask"
    await daemon.start()
    assert [(end.outcome, end.reason) for end in await asyncio.gather(*ends)] == [("lost", "engine_lost")] * 4


@pytest.mark.timeout(120)
async def test_live_restore_costs_no_run(daemon: Daemon, own: DockerDriver) -> None:
    await daemon.end()
    await daemon.start("--live-restore")
    (end,) = await _begun(own, "while ! [ -e /over ]; do sleep 0.1; done; exit 5")
    await daemon.end()

    async def missed() -> bool:
        return bool(own._unwatched)

    async def found_again() -> bool:
        return not own._unwatched

    await until(missed, what="the engine to be missed")
    await daemon.start("--live-restore")
    await until(found_again, what="the run to be watched again")
    await docker("exec", own._name(1), "touch", "/over", host=daemon.host)
    assert (await end) == exited(5)


async def test_an_agent_that_leaves_while_its_engine_is_silent_stays_on_the_leash(
    cluster: Cluster, tmp_path: Path
) -> None:
    """It can stop nothing, so it says nothing: the leash does it, and only then is the job started elsewhere."""
    proxy = EngineProxy(tmp_path / "engine.sock")
    await proxy.start()
    cluster.scheduler()
    cluster.agent("n1", drivers=("docker",), DOCKER_HOST=proxy.host)
    client = await cluster.ready(1)
    cluster_id = (await client.stats()).cluster_id
    try:
        script = ("sh", "-c", "while true; do sleep 0.1; done")
        submitted = await client.submit(image="busybox", command=script, network="none", stop_grace_ms=500)
        job: JobView = await cluster.until_state(client, submitted.job_id, "running")
        cluster.agent("n2", drivers=("docker",))
        await cluster.ready(2)
        proxy.fall_silent()
        leaving = asyncio.ensure_future(cluster.end("n1", 60))

        async def leaving_shown() -> bool:
            return (await client.node("n1")).state == "leaving"

        await until(leaving_shown, what="n1 to say that it leaves")
        assert await leaving == 0
        assert "left_with_runs" in cluster.log("n1").read_text()
        assert (await client.node("n1")).state in ("leaving", "suspect"), "it has not said goodbye"
        proxy.speak()

        async def elsewhere() -> JobView | None:
            view = await client.get(job.job_id)
            return view if (view.state, view.node) == ("running", "n2") else None

        await until(elsewhere, 30, "the job to run on n2")
        assert (await client.node("n1")).state == "lost"
        first, second = await containers_of(job.job_id)
        assert engine_time(first["State"]["FinishedAt"]) < engine_time(second["State"]["StartedAt"])
    finally:
        await cluster.stop()
        await remove_all(cluster_id)
        await proxy.close()
