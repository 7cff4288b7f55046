"""Edges of the HTTP service that once gave way, over a real cluster."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from eventsched import codec
from eventsched.client import Client, Submitted
from eventsched.errors import StoreFull
from eventsched.events import ClusterCreated
from eventsched.forms import read_form
from eventsched.log.link import connect
from eventsched.log.store import StoreCheck
from eventsched.log.streams import ensure_streams
from eventsched.nats_server import NatsServer
from eventsched.projections.following import Follower
from eventsched.projections.http.intake import Intake, Owned

from ..cluster import Cluster, until
from ..service import QUOTA, Service, running, tokens
from .test_http_earlier import error_code
from .test_http_more import bearer

FAKE = {"driver": "fake", "command": ["x"]}
HELD = {"driver": "fake", "hold": True}


async def test_pages_of_large_jobs_fit_in_a_message(cluster: Cluster) -> None:
    cluster.scheduler()
    async with running(cluster) as service:
        jobs = [{**HELD, "command": ["x" * 2_500], "job_id": f"j{index}"} for index in range(600)]
        for start in (0, 300):
            answer = await service.post("/jobs/batch", jobs[start : start + 300])
            assert len(answer["accepted"]) == 300
        assert [one["job_id"] for one in await service.get("/jobs", limit=1)] == ["j599"]
        whole = await service.http.get("/jobs")
        assert len(whole.json()) == 500
        rest = await service.http.get(whole.links["next"]["url"])
        assert [one["job_id"] for one in whole.json() + rest.json()] == [f"j{index}" for index in range(599, -1, -1)]
        assert "next" not in rest.links
        picked = await service.get("/jobs", status="PENDING", limit=500)
        assert len(picked) == 500


async def test_a_policy_is_refused_with_the_field_whatever_its_parameters_are_called(cluster: Cluster) -> None:
    cluster.scheduler()
    async with running(cluster) as service:
        for params in ({"name": "x"}, {"self": 1}, {"aging": "much"}):
            said = await service.http.put("/policy", json={"name": "fgd", "params": params})
            assert (said.status_code, error_code(said.json())) == (422, "VALIDATION_ERROR"), (params, said.text)
        unknown = await service.http.put("/policy", json={"name": "best-guess"})
        assert (unknown.status_code, error_code(unknown.json())) == (422, "VALIDATION_ERROR")
        told = await service.http.put("/policy", json={"name": "best-fit"})
        assert (told.status_code, told.json()["name"], told.json()["current"]) == (200, "best-fit", True)
        assert (await service.get("/policy"))["name"] == "best-fit"


async def test_a_whole_id_is_meant_where_an_id_is_asked_for(cluster: Cluster) -> None:
    cluster.scheduler()
    async with running(cluster) as service:
        for job_id in ("abc1", "abc2"):
            await service.post("/jobs", {**HELD, "job_id": job_id}, 201)
        for job_id in ("abc", "abc.0"):
            assert error_code(await service.get(f"/jobs/{job_id}", 404)) == "JOB_NOT_FOUND"
        assert (await service.get("/jobs/abc1"))["job_id"] == "abc1"


async def test_events_resume_behind_the_assign_they_belong_to(cluster: Cluster, tmp_path: Path) -> None:
    cluster.scheduler()
    cluster.agent("n1")
    client = await cluster.ready()
    submit, other = "submit-0123456789abcdef", "other-0123456789abcdef"
    path = tokens(tmp_path, (submit, "submitter", "a"), (other, "viewer", "b"))
    await client.submit(driver="fake", job_id="j", tenant="a")
    await client.wait("j", tenant="a")
    await client.submit(driver="fake", job_id="bad", tenant="a", after_ok=("nobody",))
    await client.wait("bad", tenant="a")
    async with running(cluster, "--tokens", str(path)) as service:
        whole = await _told(service, submit)
        kinds = [one["kind"] for one in whole]
        assert kinds.index("run.assigned") < kinds.index("run.ended") < len(kinds) - 1 == kinds.index("admitted", 4)
        for index, one in enumerate(whole):
            assert await _told(service, submit, one["seq"]) == whole[index + 1 :], kinds[index]
        of_job = await _told(service, submit, job="j")
        for index, one in enumerate(of_job):
            assert await _told(service, submit, one["seq"], job="j") == of_job[index + 1 :], one["kind"]
        assert await _told(service, other, whole[0]["seq"]) == []


async def test_a_key_whose_job_was_void_is_refused_again(cluster: Cluster) -> None:
    cluster.scheduler("s1", *QUOTA)
    async with running(cluster) as service:
        await service.post("/jobs", {**HELD, "job_id": "j", "tenant": "a"}, 201)
        for key, owner, status in (("one", "b", 409), ("one", "b", 409), ("two", "a", 409)):
            body = {**HELD, "job_id": "j", "tenant": owner}
            said = await service.http.post("/jobs", json=body, headers={"Idempotency-Key": key})
            assert said.status_code == status, (key, said.text)
        own = [
            await service.http.post("/jobs", json={**HELD, "job_id": "k"}, headers={"Idempotency-Key": "three"})
            for _ in range(2)
        ]
        assert [one.status_code for one in own] == [201, 201]
        assert own[0].json() == own[1].json()


async def test_a_key_counts_as_waiting_and_is_held_up_by_a_full_store_unless_it_is_known(
    nats_server: NatsServer,
) -> None:
    link = await connect(nats_server.options("scheduler"), "test")
    await ensure_streams(link, 1, codec.encode(ClusterCreated(cluster_id="c")))
    client = await Client.connect(options=nats_server.options("operator"))
    intake = Intake(client, Follower(client.link))
    one = Owned("t", read_form(HELD))
    asking = asyncio.ensure_future(intake.submit_keyed(one, "known"))
    await asyncio.sleep(0)
    assert intake.waiting == 1
    first = await asking
    assert (isinstance(first, Submitted), intake.waiting) == (True, 0)
    ask = client.link.request

    async def nearly_full(subject: str, payload: bytes, timeout: float = 5.0) -> bytes:
        full = b'{"limits":{"max_storage":1000},"storage":900}'
        return full if subject == "$JS.API.INFO" else await ask(subject, payload, timeout)

    client.link.request = nearly_full  # type: ignore[method-assign,assignment]
    client.store = StoreCheck(client.link)
    assert await intake.submit_keyed(one, "known") == first
    with pytest.raises(StoreFull):
        await intake.submit_keyed(one, "new")
    await intake.close()
    await client.close()
    await link.close()


@pytest.mark.parametrize("started", [1, 2, 4])
async def test_it_stops_when_it_is_told_to_while_its_workers_start(cluster: Cluster, started: int) -> None:
    """Some of them have just been forked, others are not there yet."""
    cluster.server.stop()
    service = Service(cluster, "--workers", "4")
    service.start()
    parent = cluster.processes[service.name]

    async def forked() -> bool:
        said = cluster.log(service.name).read_text() if cluster.log(service.name).exists() else ""
        return "listens on" in said and len(psutil.Process(parent.pid).children()) >= started

    await until(forked, what=f"{started} workers")
    children = psutil.Process(parent.pid).children()
    assert await cluster.end(service.name, 20) == 0
    assert not [child for child in children if child.is_running()]
    await service.http.aclose()


async def test_a_worker_that_dies_is_replaced(cluster: Cluster) -> None:
    cluster.scheduler()
    async with running(cluster, "--workers", "2") as service:
        parent = psutil.Process(cluster.processes[service.name].pid)
        before = parent.children()
        before[0].kill()

        async def replaced() -> bool:
            return len(parent.children()) == 2 and before[0] not in parent.children()

        await until(replaced, what="another worker")
        assert (await service.answers("/readyz")).status_code == 200
        assert await cluster.end(service.name, 20) == 0


async def _told(service: Service, token: str, after: int = 0, **query: str) -> list[Any]:
    headers = bearer(token) | ({"Last-Event-ID": str(after)} if after else {})
    said = await service.http.get("/events", params=query, headers=headers)
    return [json.loads(line[6:]) for line in said.text.splitlines() if line.startswith("data: ")]
