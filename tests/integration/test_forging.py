"""A tenant or an operator gets nothing onto subjects of others, whatever reply subject its requests name.

The server delivers answers unchecked, wherever a request says; with the configuration of production it does so in
the account of whoever asked. All these attempts succeed when the user shares the account of the log.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import pytest

from eventsched import codec
from eventsched.client import Client, Submitted
from eventsched.errors import DuplicateJob, EventschedError, NotFound, PermissionDenied
from eventsched.events import ClusterCreated, LeaderClaimed
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import Link, connect
from eventsched.log.port import Conflict, Outgoing
from eventsched.log.streams import ensure_streams
from eventsched.nats_server import NatsServer
from eventsched.projections.leader.service import serve
from eventsched.query import NodesRequest
from eventsched.spec import FakeRun, JobSpec

from ..cluster import opened
from ..production import ProductionServer
from ..servers import running

TARGETS = (
    "ev.leader",
    "ev.assign.n1",
    "ev.decide.admitted",
    "ev.admin.tenant_set",
    "ev.admin.cluster_created",
    "ev.job.other.j.submitted",
    "ev.node.n1",
    "ev.run.n1",
    "hb._marker",
)
FORGED = b'{"type":"run.assigned","epoch":2,"session":1,"tenant":"acme","job":"x","spec":{"driver":"fake"}}'
OWN = "ev.job.acme.forged.submitted"


@pytest.fixture
async def production(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with running(ProductionServer(tmp_path / "nats")) as server:
        yield server


async def _nodes(_: NodesRequest, __: str) -> list[str]:
    return []


async def _with_a_log(server: NatsServer) -> Link:
    """The scheduler's connection to a log with a claim and a run's output in it, and the query service over it."""
    link = await connect(server.options("scheduler"), "t")
    await ensure_streams(link, 1, codec.encode(ClusterCreated(cluster_id="test")))
    await JetStreamLog(link).append([Outgoing("ev.leader", codec.encode(LeaderClaimed(leader="s1", nonce="n")))])
    agent = await connect(server.options("agent"), "t")
    await JetStreamLog(agent, stream="LOGS").append([Outgoing("logs.acme.n1.7", FORGED)])
    await agent.close()
    await serve(link, "1.0.0", {"nodes": _nodes})
    await link.client.flush()
    return link


async def _stored(link: Link) -> dict[str, int]:
    """How many messages each subject of EV and HB has."""
    found: dict[str, int] = {}
    for stream in ("EV", "HB"):
        raw = await link.request(f"$JS.API.STREAM.INFO.{stream}", b'{"subjects_filter":">"}')
        found |= json.loads(raw)["state"].get("subjects") or {}
    return found


async def _attempt(link: Link, target: str) -> None:
    """Everything that makes somebody else publish to `target`. The server has seen it all when this returns."""
    push = {"deliver_subject": target, "deliver_policy": "all", "ack_policy": "none"}
    requests: list[tuple[str, object]] = [
        ("$JS.API.INFO", None),
        ("$JS.API.STREAM.INFO.EV", None),
        ("$JS.API.STREAM.MSG.GET.EV", {"last_by_subj": OWN}),
        ("$JS.API.DIRECT.GET.EV", {"last_by_subj": OWN}),
        ("$JS.API.DIRECT.GET.EV", {"seq": 1, "batch": 10, "next_by_subj": OWN}),
        ("$JS.API.DIRECT.GET.LOGS", {"last_by_subj": "logs.acme.n1.7"}),
        (OWN, {}),
        ("eventsched.nodes", {}),
        ("eventsched.nodes", "no request"),
        ("$SRV.PING", None),
        ("$SRV.INFO.eventsched", None),
        ("$JS.API.CONSUMER.CREATE.LOGS", {"stream_name": "LOGS", "config": push}),
        ("$JS.API.CONSUMER.CREATE.EV", {"stream_name": "EV", "config": {**push, "filter_subject": OWN}}),
        ("$JS.API.CONSUMER.MSG.NEXT.EV.c", {"batch": 1}),
        ("$JS.API.CONSUMER.MSG.NEXT.LOGS.c", {"batch": 1}),
    ]
    for subject, body in requests:
        await link.client.publish(subject, b"" if body is None else json.dumps(body).encode(), reply=target)
    await link.client.flush()


async def _pulling_consumers(link: Link) -> None:
    """Consumers a forger could pull from, made by one who may: making them is not the only defence."""
    for stream in ("EV", "LOGS"):
        config = {"durable_name": "c", "ack_policy": "none", "deliver_policy": "all"}
        body = json.dumps({"stream_name": stream, "config": config}).encode()
        assert "error" not in json.loads(await link.request(f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.c", body))


@pytest.mark.parametrize("role", ["acme", "operator"])
async def test_answers_reach_only_the_account_that_asked(production: NatsServer, role: str) -> None:
    scheduler = await _with_a_log(production)
    await _pulling_consumers(scheduler)
    forger = await connect(production.options(role), "t")
    await JetStreamLog(forger).append([Outgoing(OWN, FORGED)])
    before = await _stored(scheduler)
    for target in TARGETS:
        await _attempt(forger, target)
    # Answers come by the same ways as this one, and before it.
    await forger.request("eventsched.nodes", b"{}")
    await JetStreamLog(forger).append([Outgoing("ev.job.acme.last.submitted", b"{}")])
    after = await _stored(scheduler)
    after.pop("ev.job.acme.last.submitted")
    assert after.pop(OWN) == before.pop(OWN) + len(TARGETS), "what it may write did arrive"
    assert after == before
    listed = json.loads(await scheduler.request("$JS.API.CONSUMER.NAMES.LOGS", b""))["consumers"]
    assert listed == ["c"], "it made no consumer"
    await forger.close()
    await scheduler.close()


@pytest.mark.parametrize("subject", ["eventsched.nodes", "$SRV.PING", "$SRV.INFO.eventsched"])
async def test_the_query_service_answers_nothing_but_inboxes(nats_server: NatsServer, subject: str) -> None:
    """In dev, too, where the operator shares the account of the log."""
    scheduler = await _with_a_log(nats_server)
    operator = await connect(nats_server.options("operator"), "t")
    before = await _stored(scheduler)
    for target in ("ev.leader", "ev.assign.n1", "hb._marker"):
        await operator.client.publish(subject, b"{}", reply=target)
    await operator.client.publish(subject, b"{}")
    assert await operator.request(subject, b"{}"), "an inbox gets its answer, later than the others would"
    await scheduler.client.flush()
    assert await _stored(scheduler) == before
    await operator.close()
    await scheduler.close()


async def test_a_tenant_can_do_all_it_should(production: NatsServer, tmp_path: Path) -> None:
    async with opened(tmp_path, production) as cluster:
        cluster.scheduler()
        cluster.agent("n1", drivers=("fake", "process"))
        operator = await cluster.ready(1)
        acme = await cluster.client("acme")
        acme.tenant = operator.tenant = "acme"
        await _submits_and_reads(acme)
        await _is_refused(acme)
        await operator.cordon("n1")
        await operator.uncordon("n1")
        await operator.set_tenant("acme", weight=2)
        assert (await operator.set_policy("fifo")).name == "fifo"
        job = await operator.submit(driver="fake", fake={"duration_ms": 60_000})
        await operator.abort(job.job_id)
        assert (await operator.wait(job.job_id, timeout=30)).state == "aborted"
        assert [view.tenant for view in await operator.tenants()] == ["acme"]


async def _submits_and_reads(acme: Client) -> None:
    job = await acme.submit(driver="process", command=("sh", "-c", "echo one; sleep 0.5; echo two"))
    followed = b"".join([chunk.data async for chunk in acme.follow_logs(job.job_id)])
    assert followed == b"one\ntwo\n"
    assert (await acme.wait(job.job_id, timeout=30)).state == "succeeded"
    assert await acme.logs(job.job_id) == "one\ntwo\n"
    many = await acme.submit_many([JobSpec(driver="fake", fake=FakeRun(duration_ms=1)) for _ in range(300)])
    assert all(isinstance(one, Submitted) for one in many), "atomic batches pass"
    with pytest.raises(DuplicateJob):
        await acme.submit(driver="fake", job_id=job.job_id)
    assert isinstance(many[-1], Submitted)
    await acme.wait(many[-1].job_id, timeout=30)
    assert len(await acme.list()) == 301
    assert [node.node for node in await acme.nodes()] == ["n1"]
    events = [recorded async for recorded in acme.follow_events(follow=False)]
    assert [recorded.seq for recorded in events] == list(range(1, len(events) + 1))
    assert len(events) > 300
    story = [recorded.subject async for recorded in acme.follow_events(job_id=job.job_id, follow=False)]
    assert {"ev.assign.n1", "ev.run.n1"} < set(story)
    with pytest.raises(NotFound):
        await acme.get("nothing")


async def _is_refused(acme: Client) -> None:
    for attempt in (
        acme.submit(driver="fake", tenant="other"),
        acme.set_tenant("acme", weight=100),
        acme.cordon("n1"),
    ):
        with pytest.raises(PermissionDenied, match="refuses this user"):
            await attempt
    with pytest.raises(Conflict):
        await acme.log.append([Outgoing("ev.job.acme.x.hold_requested", b"{}", expect=7)])
    for subject in ("$JS.API.STREAM.PURGE.EV", "$JS.API.STREAM.NAMES", "$JS.API.CONSUMER.CREATE.EV"):
        with pytest.raises((nats.errors.NoRespondersError, EventschedError)):
            await acme.link.request(subject, b"{}", timeout=1)
