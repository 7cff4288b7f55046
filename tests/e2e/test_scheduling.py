"""Policies on real containers: three agents with emulated GPUs, two tenants with quotas, and a policy that
is switched while jobs run; then the log is folded, and every round decided, once more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eventsched.client import Client
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.port import Entry
from eventsched.projections.redeciding import redecide

from ..cluster import Cluster, until
from .terminal import Terminal

pytestmark = pytest.mark.calm
NODES = {
    "n1": ("--gpus", "A100:3", "--price", "3.00"),
    "n2": ("--gpus", "A100:1,H100:1", "--price", "2.00"),
    "n3": ("--gpus", "none", "--price", "0.50", "--label", "disk=ssd"),
}


@pytest.fixture
async def live(cluster: Cluster) -> Cluster:
    cluster.scheduler("s1")
    for node, options in NODES.items():
        cluster.agent(node, "--cpus", "4", "--memory", "4G", *options, drivers=("docker",))
    await cluster.ready(3)
    return cluster


class Desk:
    """The command line, as one user after another types it."""

    def __init__(self, live: Cluster, directory: Path) -> None:
        self._terminal = Terminal(directory)
        self._where = {"EVENTSCHED_NATS": live.server.url}

    def run(self, *words: str, code: int = 0) -> str:
        return self._terminal.run(*words, code=code, environment=self._where).out

    def submit(self, job_id: str, *options: str, seconds: int = 60, tenant: str = "red") -> None:
        words = ("--id", job_id, "--tenant", tenant, *options, "busybox", "--", "sleep", str(seconds))
        self.run("submit", "--cpus", "0.5", "--grace", "1s", *words)

    def json(self, *words: str) -> Any:
        return self._terminal.run(*words, "-o", "json", environment=self._where).json

    def explain(self, job_id: str) -> Any:
        return self.json("explain", job_id)


async def _log(client: Client, upto: int) -> list[Entry]:
    feed = JetStreamLog(client.link).read(1)
    entries: list[Entry] = []
    while len(entries) < upto:
        entries += await feed.get(5)
    await feed.close()
    return entries[:upto]


async def test_three_agents_two_tenants_and_a_policy_switched_while_jobs_run(live: Cluster, tmp_path: Path) -> None:
    client, desk = await live.ready(3), Desk(live, tmp_path)
    desk.run("tenant", "set", "red", "--gpus", "A100:2")
    desk.run("tenant", "set", "blue", "--gpus", "A100:1", "--gpus", "H100:1")
    for job_id in ("red1", "red2"):
        desk.submit(job_id, "--gpus", "A100:1")
    desk.submit("blue1", "--gpus", "A100:1", tenant="blue")
    for job_id in ("red1", "red2", "blue1"):
        await live.until_state(client, job_id, "running")

    desk.submit("red3", "--gpus", "A100:1")
    found = desk.explain("red3")
    assert (found["stage"], found["code"]) == ("quota", "quota")
    assert found["quota"]["held"]["gpu_millis:a100"] == found["quota"]["limits"]["gpu_millis:a100"] == 2000
    assert {one["job_id"] for one in found["quota"]["holders"]} == {"red1", "red2"}
    assert "asks 1 A100; tenant red holds 2 of 2" in desk.run("explain", "red3")

    desk.submit("nobody", "--gpus", "B200:1", tenant="green")
    found = desk.explain("nobody")
    assert found["code"] == "gpu_model"
    assert found["nodes"]["refused"] == [{"code": "gpu_model", "nodes": 3}]

    await client.submit(
        image="busybox", job_id="cheap", tenant="green", max_price_micros_per_h=1_000_000, resources={"gpus": 1}
    )
    found = desk.explain("cheap")
    assert {(one["code"], one["nodes"]) for one in found["nodes"]["refused"]} == {("price", 2), ("gpu_model", 1)}

    desk.run("submit", "--id", "gang", "--tenant", "green", "--cpus", "2", "--array", "6", "--gang", "busybox")
    found = desk.explain("gang")
    assert (found["code"], found["text"]) == ("gang_forming", "4 of 6 members fit")

    for name in ("cheap", "gang", "nobody"):
        desk.run("abort", name, "--tenant", "green")

    desk.run("policy", "set", "order=drf,score=spread")
    desk.submit("after", tenant="green")
    view = await live.until_state(client, "after", "running")
    found = desk.explain("after")
    choice = found["choice"]
    assert (choice["node"], choice["seq"], choice["policy"]) == (view.node, view.run, "composed/1")
    assert (choice["feasible"], choice["runner_up"] in NODES) == (3, True)
    assert choice["score"] >= choice["runner_up_score"]
    assert "best of 3 nodes with room" in desk.run("explain", "after")

    desk.run("abort", "red1", "--tenant", "red")
    await live.until_state(client, "red3", "running")
    for name, tenant in (("red2", "red"), ("red3", "red"), ("blue1", "blue"), ("after", "green")):
        desk.run("abort", name, "--tenant", tenant)

    async def over() -> bool:
        return not (await client.stats()).runs

    await until(over, what="the runs to end")
    replayed = desk.json("replay", "digest")
    assert replayed == {**desk.json("replay", "digest", "--at", str(replayed["seq"])), "checked": replayed["checked"]}
    again = redecide(await _log(client, replayed["seq"]))
    assert (again.differing, again.unknown) == ([], 0)
    assert again.rounds > 10
