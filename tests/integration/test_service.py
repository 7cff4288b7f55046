"""The service over NATS, asked by an independent client: discovery, jobs, errors, and whose word counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from eventsched.asking import Asker, ask_replicas
from eventsched.endpoints import ENDPOINTS
from eventsched.errors import NoScheduler, NoServer, SchedulerFault
from eventsched.log.link import connect
from eventsched.log.port import Unavailable
from eventsched.nats_server import NatsServer
from eventsched.projections.leader import service
from eventsched.projections.leader.service import BY_TENANT
from eventsched.query import STATS, NodesRequest, ReplicaReport, StatsRequest

from ..cluster import Cluster, opened, until
from ..production import ProductionServer
from ..raw_nats import RawNats, raw_nats
from ..servers import running

LONG = {"driver": "fake", "fake": {"duration_ms": 600_000}}
SHORT = {"driver": "fake"}


@pytest.fixture
async def operator(nats_server: NatsServer, cluster: Cluster) -> AsyncIterator[RawNats]:
    """A client of a cluster of one scheduler and one node, as operator."""
    cluster.scheduler()
    cluster.agent("n1", "--cpus", "64")
    await cluster.ready(1)
    async with raw_nats(nats_server) as client:
        yield client


async def test_it_is_found_and_explains_itself(operator: RawNats) -> None:
    pong = (await operator.request("$SRV.PING")).json
    assert (pong["name"], pong["type"]) == ("eventsched", "io.nats.micro.v1.ping_response")
    info = (await operator.request("$SRV.INFO.eventsched")).json
    assert info["id"] == pong["id"]
    subjects = {one["name"]: one["subject"] for one in info["endpoints"]}
    assert subjects == {**{name: f"eventsched.{name}" for name in ENDPOINTS}, BY_TENANT: "eventsched.*.*"}
    for one in info["endpoints"]:
        if one["name"] != BY_TENANT:
            asked, answer = (json.loads(one["metadata"][f"{side}_schema"]) for side in ("request", "answer"))
            assert answer
            names = asked["$defs"][asked["$ref"].rpartition("/")[2]]["properties"]
            assert set(json.loads(one["metadata"]["example"])) <= set(names)
    (page,) = [(await operator.request("eventsched.schema", {"endpoint": "submit"})).json]
    assert "max_runtime_ms" in page["request"]["$defs"]["SubmitRequest"]["properties"]
    whole = (await operator.request("eventsched.schema")).json
    assert set(whole["endpoints"]) == set(ENDPOINTS)
    assert "ev.job.<tenant>.<job>.submitted" in whole["events"]


async def test_its_statistics_count_requests_and_errors_and_speak_of_the_scheduler(operator: RawNats) -> None:
    await operator.request("eventsched.submit", SHORT)
    await operator.request("eventsched.submit", {"imge": "busybox"})
    stats = (await operator.request("$SRV.STATS.eventsched")).json
    numbers = {one["name"]: one for one in stats["endpoints"]}
    assert (numbers["submit"]["num_requests"], numbers["submit"]["num_errors"]) == (2, 1)
    assert "imge" in numbers["submit"]["last_error"]
    assert numbers["submit"]["average_processing_time"] > 0
    own = numbers["stats"]["data"]
    assert (own["scheduler"], own["role"]) == ("s1", "leading")
    assert own["seq"] > 3


async def test_a_job_from_its_submission_to_its_abort(operator: RawNats) -> None:
    followed = await operator.subscribe("ev.job.default.j1.>")
    written = (await operator.request("eventsched.submit", {**LONG, "job_id": "j1", "priority": 7})).json
    assert (written["job_id"], written["tenant"], written["state"]) == ("j1", "default", "pending")
    view = (await operator.request("eventsched.get", {"job_id": "j1", "min_seq": written["seq"]})).json
    assert (view["seq"], view["priority"], view["tenant"]) == (written["seq"], 7, "default")
    aborted = (await operator.request("eventsched.abort", {"job_id": "default/j1", "reason": "enough"})).json
    assert aborted["seq"] > written["seq"]
    ended = (await operator.request("eventsched.wait", {"job_id": "j1", "timeout_ms": 9_000})).json
    assert ended["state"] == "aborted"
    listed = (await operator.request("eventsched.list", {"states": ["aborted"]})).json
    assert [job["job_id"] for job in listed["jobs"]] == ["j1"]
    seen = [await asyncio.wait_for(followed.get(), 10) for _ in range(2)]
    assert [message.subject.rpartition(".")[2] for message in seen] == ["submitted", "abort_requested"]
    assert seen[1].json == {"reason": "enough"}


async def test_events_published_by_hand_are_jobs(operator: RawNats) -> None:
    ack = (await operator.request("ev.job.acme.byhand.submitted", SHORT)).json
    assert ack["stream"] == "EV"
    request = {"job_id": "byhand", "tenant": "acme", "min_seq": ack["seq"], "timeout_ms": 9_000}
    assert (await operator.request("eventsched.wait", request)).json["state"] == "succeeded"


@pytest.mark.parametrize(
    ("form", "image"),
    [
        ({"image": "busybox", "command": ["echo", "hi"]}, "busybox"),
        ({"docker_image": "alpine:latest", "cpu_cores": 1, "memory_gb": 1, "gpu_type": None}, "alpine:latest"),
        ({"jobId": "job-7", "resourceRequest": {"cpu": 1, "memory_gb": 1, "gpuType": None, "gpuCount": 0}}, ""),
    ],
)
async def test_every_form_is_read(operator: RawNats, form: dict[str, Any], image: str) -> None:
    written = (await operator.request("eventsched.submit", form)).json
    view = (await operator.request("eventsched.get", {"job_id": written["job_id"], "min_seq": written["seq"]})).json
    assert view["image"] == image
    await operator.request("eventsched.abort", {"job_id": written["job_id"]})


WRONG: tuple[tuple[str, object, str, str], ...] = (
    ("submit", {"imge": "busybox"}, "400", "imge"),
    ("submit", {"driver": "fake", "priority": "high"}, "400", "priority"),
    ("submit", {"driver": "fake", "retries": -1}, "400", "retries"),
    ("submit", {"driver": "fake", "tenant": "a b"}, "400", "tenant"),
    ("submit", [], "400", "JSON object"),
    ("submit", b"{", "400", "bad request"),
    ("submit", b"\xff\xfe", "400", "bad request"),
    ("submit", b"[" * 100_000, "400", "bad request"),
    ("submit", {"driver": "fake", "env": {"A": "x" * 300_000}}, "400", "bytes"),
    ("submit", {"driver": "fake", "job_id": "taken"}, "409", "taken"),
    ("abort", {"job_id": "nobody"}, "404", "nobody"),
    ("abort", {}, "400", "job_id"),
    ("abort", {"job_id": "x", "resaon": "?"}, "400", "resaon"),
    ("get", {"job_id": "nobody\nNats-Service-Error: forged"}, "404", "nobody"),
    ("schema", {"endpoint": "nothing"}, "404", "nothing"),
    ("acme.nothing", {}, "404", "no endpoint"),
)


async def test_what_is_wrong_is_named(operator: RawNats) -> None:
    await operator.request("eventsched.submit", {**LONG, "job_id": "taken"})
    for endpoint, body, code, says in WRONG:
        answer = await operator.request(f"eventsched.{endpoint}", body)
        assert answer.error[0] == code, (body, answer.error)
        assert says in answer.error[1]
        assert says in answer.json["message"]
        if endpoint == "submit" and isinstance(body, dict) and code == "400" and says != "bytes":
            assert [problem["field"].partition("_")[0] for problem in answer.json["problems"]] == [says]
    assert not operator.errors


async def test_requests_at_once_do_not_wait_for_one_another(operator: RawNats) -> None:
    """They share batches; and whoever waits for a long job keeps nobody from asking."""
    long = (await operator.request("eventsched.submit", {**LONG, "job_id": "long"})).json
    patient = await operator.ask("eventsched.wait", {"job_id": "long", "timeout_ms": 20_000, "min_seq": long["seq"]})
    asked = [await operator.ask("eventsched.submit", SHORT) for _ in range(300)]
    written = [(await asyncio.wait_for(queue.get(), 20)).json for queue in asked]
    assert len({one["job_id"] for one in written}) == 300
    for one in (written[0], written[-1]):
        request = {"job_id": one["job_id"], "min_seq": one["seq"], "timeout_ms": 15_000}
        assert (await operator.request("eventsched.wait", request)).json["state"] == "succeeded"
    assert patient.empty()
    await operator.request("eventsched.abort", {"job_id": "long"})
    assert (await asyncio.wait_for(patient.get(), 15)).json["state"] == "aborted"


async def test_too_many_requests_are_told_so_and_those_in_hand_are_answered_at_the_end(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def nodes(_: NodesRequest, __: str) -> list[str]:
        asked.set()
        await go_on.wait()
        return ["slow"]

    monkeypatch.setattr(service, "AT_ONCE_MAX", 1)
    link = await connect(nats_server.options("scheduler"), "test")
    offered = await service.serve(link, "1.0.0", {"nodes": nodes})
    async with raw_nats(nats_server) as client:
        first = await client.ask("eventsched.nodes")
        await asyncio.wait_for(asked.wait(), 10)
        assert (await client.request("eventsched.nodes")).error[0] == "503"
        stopping = asyncio.ensure_future(offered.stop())
        go_on.set()
        await stopping
        assert (await asyncio.wait_for(first.get(), 10)).json == ["slow"]
        assert (await client.request("eventsched.nodes")).headers["Status"].startswith("503"), "nobody is there"
    await link.close()


async def test_one_that_has_no_time_is_asked_again_and_one_that_fails_says_so(nats_server: NatsServer) -> None:
    asked: list[int] = []

    async def stats(request: StatsRequest, _: str) -> list[str]:
        asked.append(request.min_seq)
        if request.min_seq == 2 or len(asked) == 1:
            raise Unavailable("too much to do")
        if request.min_seq == 1:
            raise RuntimeError("broken")
        return ["at last"]

    link = await connect(nats_server.options("scheduler"), "test")
    offered = await service.serve(link, "1.0.0", {"stats": stats})
    asking = await connect(nats_server.options("operator"), "test")
    asker = Asker(asking)
    assert await asker.ask(STATS, StatsRequest(), list[str]) == ["at last"]
    assert asked == [0, 0]
    with pytest.raises(SchedulerFault, match="broken"):
        await asker.ask(STATS, StatsRequest(1), list[str])
    with pytest.raises(NoScheduler, match="too much to do"):
        await asker.ask(STATS, StatsRequest(2), list[str], attempts=1)
    await asking.close()
    await offered.stop()
    await link.close()


# ---- whose word counts --------------------------------------------------------------------------


async def test_a_tenant_speaks_for_itself_only(tmp_path: Path) -> None:
    async with running(ProductionServer(tmp_path / "nats")) as server, opened(tmp_path, server) as cluster:
        cluster.scheduler()
        await cluster.ready(0)
        async with raw_nats(server) as operator, raw_nats(server, "acme") as acme:
            await _speaks_for_itself(operator, acme)
            await _is_found(acme)


async def _speaks_for_itself(operator: RawNats, acme: RawNats) -> None:
    async def submit(client: RawNats, **fields: str) -> tuple[str, str]:
        answer = await client.request("eventsched.submit", {"driver": "fake", **fields})
        return answer.error[0], "" if answer.error[0] else answer.json["tenant"]

    assert await submit(operator, job_id="theirs") == ("", "default")
    assert await submit(operator, job_id="theirs", tenant="other") == ("", "other")
    assert await submit(acme, job_id="own") == ("", "acme")
    assert await submit(acme, tenant="acme") == ("", "acme")
    assert await submit(acme, tenant="other") == ("403", "")
    assert await submit(acme, tenant_id="other") == ("403", "")
    for request in ({"job_id": "other/theirs"}, {"job_id": "theirs", "tenant": "other"}):
        assert (await acme.request("eventsched.abort", request)).error[0] == "403"
    assert (await acme.request("eventsched.abort", {"job_id": "other/theirs", "tenant": "acme"})).error[0] == "403"
    assert (await acme.request("eventsched.abort", {"job_id": "theirs"})).error[0] == "404"
    assert (await acme.request("eventsched.abort", {"job_id": "own"})).json["tenant"] == "acme"
    for subject in ("eventsched.other.submit", "eventsched.acme.submit"):
        assert (await acme.request(subject, SHORT)).headers["Status"].startswith("503"), "nobody listens there"
    assert (await operator.request("eventsched.abort", {"job_id": "other/theirs"})).json["tenant"] == "other"
    listed = (await operator.request("eventsched.list", {"tenant": "other", "states": ["pending"]})).json
    assert listed["jobs"] == []
    found = await acme.ask("$JS.API.DIRECT.GET.EV", {"seq": 1, "batch": 10, "next_by_subj": "ev.job.acme.own.>"})
    story = [(await asyncio.wait_for(found.get(), 10)).headers for _ in range(3)]
    assert [one.get("Nats-Subject", "").rpartition(".")[2] for one in story[:2]] == ["submitted", "abort_requested"]
    assert story[2]["Status"].startswith("204"), "and that is all"


async def _is_found(acme: RawNats) -> None:
    assert (await acme.request("$SRV.PING.eventsched")).json["name"] == "eventsched"
    stats = (await acme.request("$SRV.STATS.eventsched")).json
    assert next(one for one in stats["endpoints"] if one["name"] == BY_TENANT)["num_errors"] >= 6
    view = (await acme.request("eventsched.get", {"job_id": "own"})).json
    assert view["tenant"] == "acme"


@pytest.mark.parametrize("stolen", ['"eventsched.other.*" }, to: "eventsched.*"', '"eventsched.*" }'])
async def test_no_account_can_be_given_the_name_of_another(tmp_path: Path, stolen: str) -> None:
    """A slip in the configuration stops the server, instead of giving one tenant the jobs of others."""

    class Slipped(ProductionServer):
        def _conf(self) -> str:
            right = '"eventsched.acme.*" }, to: "eventsched.*"'
            assert right in super()._conf()
            return super()._conf().replace(right, stolen)

    with pytest.raises(NoServer, match="not authorized"):
        async with running(Slipped(tmp_path / "nats")):
            pass


# ---- what schedulers say of themselves --------------------------------------------------------------


@pytest.mark.parametrize("kind", [NatsServer, ProductionServer])
async def test_every_scheduler_reports_for_metrics(tmp_path: Path, kind: type[NatsServer]) -> None:
    """Across accounts, too."""
    async with running(kind(tmp_path / "nats")) as server, opened(tmp_path, server) as cluster:
        link = await connect(server.options("operator"), "test")
        assert await ask_replicas(link) == []
        cluster.scheduler("s1")
        cluster.agent("n1")
        client = await cluster.ready(1)
        cluster.scheduler("s2")

        async def both() -> list[ReplicaReport]:
            found = await ask_replicas(link)
            return found if len(found) == 2 else []

        await until(both, what="two schedulers")
        job = await client.submit(driver="fake")
        await client.wait(job.job_id, timeout=30)
        s1, s2 = await both()
        assert (s1.scheduler, s1.role, s1.placements) == ("s1", "leading", 1)
        assert (s2.scheduler, s2.role, s2.placements, s2.rounds) == ("s2", "standby", 0, 0)
        assert s1.rounds >= 2
        assert s1.decide_ns > 0
        assert s1.commit_ns > 0
        assert 0 <= s1.heartbeat_age_ms["ready"] < 10_000
        await cluster.kill("s2")
        assert [one.scheduler for one in await ask_replicas(link)] == ["s1"]
        await link.close()
