"""Agents killed, frozen, cut off and doubled, with real processes and real containers."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventsched.client import Client
from eventsched.views import JobView

from ..cluster import Cluster, until
from ..engine import Daemon, containers_of, docker, engine_time, remove_all
from ..proxy import Proxy

DOCKER = ("docker",)


@pytest.fixture
async def live(cluster: Cluster) -> AsyncIterator[Cluster]:
    """A cluster with a scheduler, whose containers are removed in the end."""
    cluster.scheduler("s1")
    client = await cluster.ready(0)
    cluster_id = (await client.stats()).cluster_id
    yield cluster
    await cluster.stop()
    await remove_all(cluster_id)


async def _running(cluster: Cluster, client: Client, script: str, **fields: object) -> JobView:
    spec = {"image": "busybox", "command": ["sh", "-c", script], "network": "none", **fields}
    job = await client.submit(**spec)  # type: ignore[arg-type]
    return await cluster.until_state(client, job.job_id, "running")  # type: ignore[no-any-return]


@pytest.mark.calm
async def test_a_killed_agent_adopts_what_runs_and_reports_what_has_ended(live: Cluster) -> None:
    live.agent("n1", drivers=DOCKER)
    client = await live.ready(1)
    long = await _running(live, client, "echo before; sleep 4; echo after; exit 5")
    short = await _running(live, client, "sleep 0.8; echo done; exit 6")
    await live.kill("n1")

    async def over() -> bool:
        return not (await containers_of(short.job_id))[0]["State"]["Running"]

    await until(over, what="the short one to end while nobody looks")
    live.agent("n1", drivers=DOCKER)
    ended = await client.wait(short.job_id, timeout=20)
    assert (ended.state, ended.exit_code, ended.attempt) == ("failed", 6, 1), "it ended while nobody looked"
    assert await client.logs(short.job_id) == "done\n"
    ended = await client.wait(long.job_id, timeout=20)
    assert (ended.state, ended.exit_code, ended.attempt, ended.losses) == ("failed", 5, 1, 0)
    assert await client.logs(long.job_id) == "before\nafter\n", "each line once, across two agents"
    assert len(await containers_of(long.job_id)) == 1
    assert len(await containers_of(short.job_id)) == 1


@pytest.mark.calm
async def test_an_agent_killed_before_a_start_leaves_no_half_runs(live: Cluster) -> None:
    """Killed at any moment of many starts: each job ends well, none twice at a time."""
    live.agent("n1", drivers=DOCKER)
    client = await live.ready(1)
    job = await client.submit(
        image="busybox", command=["true"], network="none", array=12, max_lost=50, resources={"cpu_millis": 100}
    )
    for _ in range(3):
        await asyncio.sleep(0.7)
        await live.kill("n1")
        live.agent("n1", drivers=DOCKER)
    view = await client.wait(job.job_id, timeout=60)
    assert (view.state, view.members) == ("succeeded", {"succeeded": 12})
    for index in range(12):
        await _one_after_the_other(f"{job.job_id}.{index}")


async def _moved(client: Client, job_id: str) -> JobView:
    """The job, once it runs on n2."""

    async def moved() -> JobView | None:
        view = await client.get(job_id)
        return view if view.state == "running" and view.node == "n2" else None

    return await until(moved, what="the job to run on n2")  # type: ignore[no-any-return]


async def _one_after_the_other(job_id: str) -> None:
    found = [one for one in await containers_of(job_id) if not one["State"]["StartedAt"].startswith("0001")]
    for earlier, later in itertools.pairwise(found):
        assert engine_time(earlier["State"]["FinishedAt"]) <= engine_time(later["State"]["StartedAt"])


async def test_orphans_are_removed_after_a_grace_time_and_strangers_are_left_alone(live: Cluster) -> None:
    client = await live.ready(0)
    cluster_id = (await client.stats()).cluster_id
    launch = '{"run":424242,"tenant":"t","job_id":"ghost","attempt":1,"gpus":[],"spec":{"image":"busybox"}}'
    labels = {
        "eventsched.cluster": cluster_id,
        "eventsched.node": "n1",
        "eventsched.run": "424242",
        "eventsched.job": "ghost",
        "eventsched.launch": launch,
    }

    async def run(**changes: str) -> str:
        options = [part for name, value in {**labels, **changes}.items() for part in ("--label", f"{name}={value}")]
        return (await docker("run", "-d", "--network", "none", *options, "busybox", "sleep", "120")).strip()

    orphan, other_node, other_cluster = (
        await run(),
        await run(**{"eventsched.node": "n2"}),
        await run(**{"eventsched.cluster": "x"}),
    )

    async def there(container: str) -> bool:
        return bool(await docker("ps", "-q", "--no-trunc", "--filter", f"id={container}"))

    live.agent("n1", "--orphan-grace", "1s", "--orphans-dry-run", drivers=DOCKER)
    await live.ready(1)

    async def gone() -> bool:
        return not await there(orphan)

    # it was in the inventory of the join, and the log never knew it: it is stopped at once
    await until(gone, what="the unknown run to be stopped")
    assert await there(other_node)
    assert await there(other_cluster)
    await docker("rm", "-f", other_node, other_cluster)
    late = await run(**{"eventsched.run": "424243", "eventsched.launch": launch.replace("424242", "424243")})

    async def noticed() -> bool:
        return "orphan" in live.log("n1").read_text()

    await until(noticed, what="the orphan to be noticed")
    assert await there(late), "a dry run only says so"
    await live.end("n1")
    live.agent("n1", "--orphan-grace", "1s", "--keep", "500ms", drivers=DOCKER)

    async def removed() -> bool:
        return not await docker("ps", "-aq", "--no-trunc", "--filter", f"id={late}")

    await until(removed, what="the orphan to be removed")


@pytest.mark.parametrize("trouble", ["cut off", "killed", "frozen"])
async def test_the_leash_stops_the_first_container_before_the_second_starts(live: Cluster, trouble: str) -> None:
    proxy = Proxy(live.server.port)
    live.agent("n1", drivers=DOCKER, url=await proxy.start())
    client = await live.ready(1)
    job = await _running(live, client, "trap '' TERM; while true; do sleep 0.1; done", stop_grace_ms=500)
    assert job.node == "n1"
    live.agent("n2", drivers=DOCKER)
    await live.ready(2)
    match trouble:
        case "cut off":
            proxy.cut()
        case "killed":
            await live.kill("n1")
        case "frozen":
            live.signal("n1", signal.SIGSTOP)
    moved = await _moved(client, job.job_id)
    assert (moved.losses, moved.failures) == (1, 0)
    first, second = await containers_of(job.job_id)
    stopped, started = engine_time(first["State"]["FinishedAt"]), engine_time(second["State"]["StartedAt"])
    print(f"{trouble}: stopped {started - stopped:.2f} s before the second started")
    assert not first["State"]["Running"]
    assert stopped < started
    assert (await client.node("n1")).state == "lost"
    await _come_back(live, client, proxy, trouble)
    view = await client.get(job.job_id)
    assert (view.state, view.node, view.run) == ("running", "n2", moved.run), "coming back disturbs nothing"
    assert len(await containers_of(job.job_id)) == 2
    await client.abort(job.job_id)
    assert (await client.wait(job.job_id, timeout=20)).state == "aborted"
    await proxy.close()


async def _come_back(live: Cluster, client: Client, proxy: Proxy, trouble: str) -> None:
    match trouble:
        case "cut off":
            proxy.heal()
        case "killed":
            live.agent("n1", drivers=DOCKER)
        case "frozen":
            live.signal("n1", signal.SIGCONT)

    async def ready() -> bool:
        return (await client.node("n1")).state == "ready"

    await until(ready, 20, "n1 to come back")


@pytest.mark.alone
async def test_a_short_cut_disturbs_nothing(live: Cluster) -> None:
    proxy = Proxy(live.server.port)
    live.agent("n1", drivers=DOCKER, url=await proxy.start())
    client = await live.ready(1)
    job = await _running(live, client, "sleep 3; echo done")
    proxy.cut()
    await asyncio.sleep(0.7)
    proxy.heal()
    view = await client.wait(job.job_id, timeout=20)
    assert (view.state, view.attempt) == ("succeeded", 1)
    assert await client.logs(job.job_id) == "done\n"
    await proxy.close()


async def test_a_run_that_ended_by_itself_while_cut_off_keeps_its_outcome(live: Cluster) -> None:
    """It ended before the leash could touch it, so its exit code is its own."""
    proxy = Proxy(live.server.port)
    live.agent("n1", drivers=DOCKER, url=await proxy.start())
    client = await live.ready(1)
    job = await _running(live, client, "sleep 0.5; exit 9", max_lost=5)
    proxy.cut()
    await asyncio.sleep(2.5)
    proxy.heal()
    view = await client.wait(job.job_id, timeout=20)
    assert (view.state, view.exit_code, view.attempt) == ("failed", 9, 1)
    await proxy.close()


async def test_keep_on_disconnect_goes_on_and_is_found_again(live: Cluster) -> None:
    proxy = Proxy(live.server.port)
    live.agent("n1", drivers=DOCKER, url=await proxy.start())
    client = await live.ready(1)
    job = await _running(live, client, "sleep 12; exit 3", on_disconnect="keep")
    proxy.cut()

    async def unknown() -> bool:
        view = await client.get(job.job_id)
        return view.reason == "node_unknown" and (await client.node("n1")).state == "lost"

    await until(unknown, what="the run to be unknown")
    proxy.heal()
    view = await client.wait(job.job_id, timeout=30)
    assert (view.state, view.exit_code, view.attempt) == ("failed", 3, 1)
    assert len(await containers_of(job.job_id)) == 1
    await proxy.close()


async def test_two_agents_with_one_node_name(live: Cluster, tmp_path: Path) -> None:
    live.agent("n1")
    client = await live.ready(1)
    live.spawn("twin", "agent", "--node", "n1", "--driver", "fake", "--data", str(live.directory / "agents"))
    assert await asyncio.to_thread(live.processes["twin"].wait, 20) == 1
    assert "an agent for node n1 runs on this machine already" in live.log("twin").read_text()
    other = (
        "--node",
        "n1",
        "--driver",
        "fake",
        "--data",
        str(tmp_path / "other-machine"),
        "--heartbeat",
        "300ms",
        "--fence-after",
        "1500ms",
        "--fence-grace",
        "1s",
    )
    live.spawn("impostor", "agent", *other, EVENTSCHED_MACHINE_ID="another")
    assert await asyncio.to_thread(live.processes["impostor"].wait, 20) == 1
    assert "name_taken" in live.log("impostor").read_text()
    job = await client.submit(driver="fake")
    assert (await client.wait(job.job_id, timeout=10)).state == "succeeded", "the first one was not disturbed"
    await live.kill("n1")

    async def lost() -> bool:
        return (await client.node("n1")).state == "lost"

    await until(lost, what="n1 to be lost")
    live.spawn("heir", "agent", *other, EVENTSCHED_MACHINE_ID="another")

    async def inherited() -> bool:
        view = await client.node("n1")
        return view.state == "ready" and view.machine_id == "another"

    await until(inherited, what="the other machine to take the name")


async def test_timers_that_do_not_fit_are_refused_with_numbers(live: Cluster) -> None:
    live.spawn("slow", "agent", "--node", "n9", "--driver", "fake", "--data", str(live.directory / "slow"))
    assert await asyncio.to_thread(live.processes["slow"].wait, 20) == 1
    words = live.log("slow").read_text()
    assert "fence_after 20000 ms and stopping 12000 ms do not fit into lost_after 6000 ms" in words


@pytest.mark.calm
async def test_an_agent_that_leaves_hands_its_runs_back(live: Cluster) -> None:
    live.agent("n1", drivers=DOCKER)
    client = await live.ready(1)
    job = await _running(live, client, "sleep 60")
    live.agent("n2", drivers=DOCKER)
    await live.ready(2)
    assert await live.end("n1") == 0
    view = await _moved(client, job.job_id)
    assert (view.losses, view.failures, (await client.node("n1")).state) == (1, 0, "left")


@pytest.mark.calm
async def test_drain_moves_runs_and_uncordon_takes_new_ones(live: Cluster) -> None:
    live.agent("n1", drivers=DOCKER)
    client = await live.ready(1)
    job = await _running(live, client, "sleep 60")
    live.agent("n2", drivers=DOCKER)
    await live.ready(2)
    await client.drain("n1", now=True)
    await _moved(client, job.job_id)
    assert (await client.node("n1")).draining
    await client.uncordon("n1")
    assert not (await client.node("n1")).cordoned


@pytest.mark.calm
async def test_processes_are_adopted(live: Cluster) -> None:
    live.agent("n1", drivers=("process",))
    client = await live.ready(1)
    job = await client.submit(driver="process", command=["sh", "-c", "echo a; sleep 2.5; echo b; exit 4"])
    await live.until_state(client, job.job_id, "running")
    await live.kill("n1")
    live.agent("n1", drivers=("process",))
    view = await client.wait(job.job_id, timeout=20)
    assert (view.state, view.exit_code, view.attempt) == ("failed", 4, 1)
    assert await client.logs(job.job_id) == "a\nb\n"


async def test_processes_are_leashed(live: Cluster) -> None:
    live.agent("n1", drivers=("process",))
    client = await live.ready(1)
    marker = live.directory / "alive"
    job = await client.submit(
        driver="process", command=["sh", "-c", f"while true; do date +%s.%N >{marker}; sleep 0.05; done"]
    )
    await live.until_state(client, job.job_id, "running")
    await live.kill("n1")
    live.agent("n2", drivers=("fake",))

    async def lost() -> bool:
        return (await client.node("n1")).state == "lost"

    await until(lost, what="n1 to be lost")
    before = marker.read_text()
    await asyncio.sleep(0.5)
    assert marker.read_text() == before, "the leash has stopped it"


@pytest.mark.calm
@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_docker_daemon_that_restarts_under_the_agent(
    live: Cluster, daemon: Daemon, number: signal.Signals
) -> None:
    live.agent("n1", drivers=DOCKER, DOCKER_HOST=daemon.host)
    client = await live.ready(1)
    job = await _running(live, client, "sleep 5; echo done", max_lost=3)
    await daemon.end(number)
    await asyncio.sleep(1)
    assert (await client.get(job.job_id)).state == "running", "nobody knows yet, so nothing is said"
    await daemon.start()
    view = await client.wait(job.job_id, timeout=60)
    assert (view.state, view.failures) == ("succeeded", 0), "re-attached, or honestly lost and run again"
    assert view.losses == view.attempt - 1
    found = await containers_of(job.job_id, host=daemon.host)
    for earlier, later in itertools.pairwise(found):
        assert engine_time(earlier["State"]["FinishedAt"]) <= engine_time(later["State"]["StartedAt"])
    again = await client.submit(image="busybox", command=["true"], network="none")
    assert (await client.wait(again.job_id, timeout=30)).state == "succeeded"
