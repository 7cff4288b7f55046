"""The server behind the log: hand-typed events, garbage, restarts, rights, and streams that were tampered with."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import msgspec
import pytest

from eventsched import codec
from eventsched.client import Client, Submitted
from eventsched.errors import EventschedError, NoServer, PermissionDenied, StoreFull, StreamMismatch
from eventsched.events import ClusterCreated, LeaderClaimed
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import LinkOptions, connect
from eventsched.log.port import Denied, OutcomeUnknown, Outgoing, Unavailable
from eventsched.log.store import StoreCheck
from eventsched.log.streams import api, differences, ensure_streams, ev_config, verify_ev
from eventsched.nats_server import NatsServer
from eventsched.spec import FakeRun, JobSpec

from ..cluster import Cluster, until
from ..servers import running

CREATED = codec.encode(ClusterCreated(cluster_id="test"))


class RawNats:
    """A NATS client of a few lines, with nothing of ours in it: what `nats pub` does."""

    async def open(self, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        await self.reader.readline()
        self.writer.write(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
        assert (await self.reader.readline()).strip() == b"PONG"

    async def pub(self, subject: str, payload: bytes) -> None:
        self.writer.write(b"PUB %s %d\r\n%s\r\nPING\r\n" % (subject.encode(), len(payload), payload))
        assert (await self.reader.readline()).strip() == b"PONG"

    def close(self) -> None:
        self.writer.close()


async def test_a_job_typed_by_hand_runs_in_a_container(cluster: Cluster) -> None:
    cluster.scheduler()
    cluster.agent("n1", drivers=("docker",))
    client = await cluster.ready(1)
    raw = RawNats()
    await raw.open(cluster.server.port)
    await raw.pub("ev.job.acme.j1.submitted", b'{"image":"busybox","command":["echo","hi"]}')

    async def there() -> bool:
        with contextlib.suppress(EventschedError):
            return bool(await client.get("j1", tenant="acme"))
        return False

    await until(there, what="the job to be known")
    view = await client.wait("j1", tenant="acme", timeout=30)
    assert (view.state, view.exit_code, view.tenant) == ("succeeded", 0, "acme")
    assert await client.logs("j1", tenant="acme") == "hi\n"
    raw.close()


GARBAGE: list[tuple[str, bytes]] = [
    ("ev.job.acme.b1.submitted", b"{"),
    ("ev.job.acme.b2.submitted", b"[" * 50_000),
    ("ev.job.acme.b3.submitted", b'{"image":"\xff\xfe"}'),
    ("ev.job.acme.b4.submitted", b'{"image":"x","priority":' + b"9" * 400 + b"}"),
    ("ev.job.acme.b5.submitted", b"{}"),
    ("ev.job.acme.b6.submitted", b'{"image":"x","colour":"red"}'),
    ("ev.job.acme.b7.submitted", b'{"image":"x","command":"echo"}'),
    ("ev.job.acme.b8.submitted", b'{"image":"' + b"x" * 300_000 + b'"}'),
    ("ev.job.acme.b9.submitted", b'{"image":"x","after_ok":["nobody"]}'),
    ("ev.job.acme.b9.submitted", b'{"driver":"fake"}'),
    ("ev.job.acme.b10.dance", b"{}"),
    ("ev.job.acme.-bad.submitted", b'{"driver":"fake"}'),
    ("ev.job.acme.b11.extra.submitted", b'{"driver":"fake"}'),
    ("ev.admin.revolution", b"{}"),
    ("ev.admin.node_drained", b'{"node":7}'),
    ("ev.job.acme.b1.abort_requested", b"\x00\x01"),
]
REJECTED = {
    "b1": "undecodable",
    "b2": "too_deep",
    "b3": "undecodable",
    "b4": "out_of_range",
    "b5": "missing_field",
    "b6": "unknown_field",
    "b7": "wrong_type",
    "b8": "too_large",
    "b9": "missing_parent",
}


async def test_garbage_is_seen_by_every_reader_and_stops_nothing(cluster: Cluster) -> None:
    cluster.scheduler()
    cluster.agent("n1")
    client = await cluster.ready(1)
    raw = RawNats()
    await raw.open(cluster.server.port)
    for subject, payload in GARBAGE:
        await raw.pub(subject, payload)
    job = await client.submit(driver="fake")
    assert (await client.wait(job.job_id, timeout=20)).state == "succeeded", "the next event is handled"
    for job_id, reason in REJECTED.items():
        view = await client.get(job_id, tenant="acme")
        assert (view.state, view.reason) == ("rejected", reason), job_id
        assert view.detail
    stats = await client.stats()
    assert stats.anomalies == {
        "duplicate_submission": 1,
        "unknown_verb": 2,
        "bad_id": 1,
        "bad_subject": 1,
        "wrong_type": 1,
        "undecodable": 1,
    }
    assert {one["kind"] for one in stats.recent_anomalies} == set(stats.anomalies)
    kinds = [
        one.subject async for one in client.follow_events(follow=False) if one.subject.startswith("ev.job.acme.b10")
    ]
    assert kinds == ["ev.job.acme.b10.dance"]
    raw.close()


@pytest.mark.calm
async def test_the_server_stopped_and_started(cluster: Cluster) -> None:
    """Everybody reconnects, nothing acknowledged is lost, runs go on."""
    cluster.scheduler()
    cluster.agent("n1", "--cpus", "20", drivers=("fake", "docker"))
    client = await cluster.ready(1)
    long = await client.submit(image="busybox", command=["sh", "-c", "echo a; sleep 4; echo b"], network="none")
    await cluster.until_state(client, long.job_id, "running")
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            results = await client.submit_many([JobSpec(driver="fake", fake=FakeRun(duration_ms=30))] * 5)
            acknowledged.extend(one.job_id for one in results if isinstance(one, Submitted))
            await asyncio.sleep(0.02)

    async def acknowledges() -> None:
        before = len(acknowledged)

        async def grown() -> bool:
            return len(acknowledged) >= before + 20

        await until(grown, what="submissions to be acknowledged")

    loading = asyncio.ensure_future(load())
    for how in ("stop", "kill"):
        await acknowledges()
        if how == "stop":
            await asyncio.to_thread(cluster.server.stop)
        else:
            cluster.server.kill()
        await asyncio.sleep(1)
        cluster.server.start()
        await cluster.server.wait_ready()
    await acknowledges()
    stop.set()
    await asyncio.wait_for(loading, 60)
    for job_id in acknowledged:
        assert (await client.wait(job_id, timeout=60)).state == "succeeded"
    view = await client.wait(long.job_id, timeout=30)
    assert (view.state, view.attempt) == ("succeeded", 1)
    assert await client.logs(long.job_id) == "a\nb\n"
    stats = await client.stats()
    assert stats.ended == {"succeeded": len(acknowledged) + 1}
    assert stats.digest_mismatches == 0


@pytest.mark.calm
async def test_an_acknowledged_submission_survives_kill_9_of_everything(cluster: Cluster) -> None:
    cluster.scheduler()
    client = await cluster.ready(0)
    results = await client.submit_many([JobSpec(driver="fake", fake=FakeRun())] * 200)
    assert all(isinstance(one, Submitted) for one in results)
    cluster.server.kill()
    await cluster.kill("s1")
    cluster.server.start()
    await cluster.server.wait_ready()
    cluster.scheduler()
    cluster.agent("n1", "--cpus", "100")

    async def done() -> bool:
        with contextlib.suppress(EventschedError):
            return (await client.stats()).ended.get("succeeded", 0) == 200
        return False

    await until(done, 40, "all 200 to succeed")


# ---- rights ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "subject", "allowed"),
    [
        ("operator", "ev.job.t.j.submitted", True),
        ("operator", "ev.admin.node_cordoned", True),
        ("operator", "ev.leader", False),
        ("operator", "ev.assign.n1", False),
        ("operator", "ev.decide.admitted", False),
        ("operator", "ev.run.n1", False),
        ("operator", "ev.node.n1", False),
        ("operator", "ev.admin.cluster_created", False),
        ("agent", "ev.run.n1", True),
        ("agent", "ev.node.n1", True),
        ("agent", "ev.job.t.j.submitted", False),
        ("agent", "ev.leader", False),
        ("agent", "ev.assign.n1", False),
        ("scheduler", "ev.assign.n1", True),
        ("scheduler", "ev.job.t.j.submitted", True),  # what its service is asked to submit
        ("scheduler", "ev.job.t.j.hold_requested", False),
    ],
)
async def test_roles_may_write_what_is_theirs(nats_server: NatsServer, role: str, subject: str, allowed: bool) -> None:
    tester = await connect(nats_server.options("tester"), "t")
    await ensure_streams(tester, 1, CREATED)
    link = await connect(nats_server.options(role), "t")
    log = JetStreamLog(link)
    if allowed:
        assert await log.append([Outgoing(subject, b"{}")]) == 2
    else:
        began = asyncio.get_running_loop().time()
        with pytest.raises(Denied, match="refuses this user"):
            await log.append([Outgoing(subject, b"{}")])
        assert asyncio.get_running_loop().time() - began < 2, "at once, not after a time-out"
    await link.close()
    await tester.close()


@pytest.mark.parametrize("verb", ["STREAM.DELETE.EV", "STREAM.PURGE.EV", "STREAM.UPDATE.EV", "STREAM.MSG.DELETE.EV"])
async def test_nobody_but_the_scheduler_may_touch_the_streams(nats_server: NatsServer, verb: str) -> None:
    tester = await connect(nats_server.options("tester"), "t")
    await ensure_streams(tester, 1, CREATED)
    for role in ("operator", "agent"):
        link = await connect(nats_server.options(role), "t")
        with pytest.raises(PermissionDenied):
            await api(link, verb, {})
        await link.close()
    deleted = await api(tester, "STREAM.MSG.DELETE.EV", {"seq": 1})
    assert deleted.error is not None, "and not even the scheduler may delete an event"
    await tester.close()


async def test_wrong_credentials_and_no_server_are_told_apart(nats_server: NatsServer) -> None:
    with pytest.raises(NoServer, match="refuses these credentials"):
        await connect(LinkOptions(url=nats_server.url, user="operator", password="wrong"), "t")
    with pytest.raises(NoServer, match=r"no NATS server answers at nats://127\.0\.0\.1:9"):
        await connect(LinkOptions(url="nats://127.0.0.1:9", connect_timeout_s=2), "t")


async def test_a_server_without_our_log_is_not_ours(nats_server: NatsServer) -> None:
    with pytest.raises(NoServer, match="has no eventsched log"):
        await Client.connect(options=nats_server.options("operator"))


# ---- streams --------------------------------------------------------------------------------


async def test_streams_are_made_once_and_verified(nats_server: NatsServer) -> None:
    links = [await connect(nats_server.options("tester"), "t") for _ in range(3)]
    await asyncio.gather(*(ensure_streams(link, 1, CREATED) for link in links))
    assert differences(await verify_ev(links[0])) == []
    feed = JetStreamLog(links[0]).read(1)
    (first,) = await feed.get(5)
    assert (first.seq, first.subject) == (1, "ev.admin.cluster_created")
    assert await feed.get(0.2) == [], "three racers, one first event"
    await feed.close()
    for link in links:
        await link.close()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_msgs": 5}, "max_msgs is 5"),
        ({"max_age": 3_600_000_000_000}, "max_age"),
        ({"discard": "old"}, "discard"),
        ({"allow_atomic": False}, "allow_atomic"),
        ({"deny_purge": False}, "deny_purge"),
        ({"subjects": ["ev.>", "x.>"]}, "subjects"),
        ({"duplicate_window": 1_000_000_000}, "duplicate_window"),
        ({"allow_msg_ttl": True}, "allow_msg_ttl"),
        ({"storage": "memory"}, "storage"),
    ],
)
async def test_a_stream_that_endangers_the_promises_is_refused_by_name(
    nats_server: NatsServer, change: dict[str, object], named: str
) -> None:
    link = await connect(nats_server.options("tester"), "t")
    made = await api(link, "STREAM.CREATE.EV", {**ev_config(1), **change})
    assert made.error is None, made.error
    with pytest.raises(StreamMismatch, match=named):
        await ensure_streams(link, 1, CREATED)
    await link.close()


def test_compression_with_replicas_is_refused() -> None:
    config = {**ev_config(3), "compression": "s2"}
    assert any("compression" in one for one in differences(config))
    assert differences({**config, "num_replicas": 1}) == []


async def test_a_full_store_stops_submissions_first(tmp_path: Path) -> None:
    class SmallServer(NatsServer):
        def _conf(self) -> str:
            return super()._conf().replace(f"max_file: {16 * 1024**3}", "max_file: 6442450944")

    async with running(SmallServer(tmp_path / "nats")) as server:
        await _fills_up(server)


async def _fills_up(server: NatsServer) -> None:
    link = await connect(server.options("scheduler"), "t")
    await ensure_streams(link, 1, CREATED)
    client = await Client.connect(options=server.options("operator"))
    await client.submit(driver="fake")
    raw = await link.request("$JS.API.INFO", b"")
    info = msgspec.json.decode(raw)
    assert info["limits"]["max_storage"] > 0, "the account has a limit, so its use can be seen"

    async def nearly_full(subject: str, payload: bytes, timeout: float = 5.0) -> bytes:
        return msgspec.json.encode({"limits": {"max_storage": 1000}, "storage": 900})

    client.link.request = nearly_full  # type: ignore[method-assign,assignment]
    client.store = StoreCheck(client.link)
    with pytest.raises(StoreFull, match="90 % full"):
        await client.submit(driver="fake")
    await client.close()
    await link.close()


@pytest.mark.parametrize("direct", [False, True])
async def test_a_gap_in_the_log_stops_the_reader(nats_server: NatsServer, direct: bool) -> None:
    """A stream from which an event was cut out (as damaged storage would) must not be folded over."""
    link = await connect(nats_server.options("tester"), "t")
    await api(link, "STREAM.CREATE.EV", {**ev_config(1), "deny_delete": False})
    log = JetStreamLog(link, direct=direct)
    await log.append([Outgoing("ev.x", b"{}") for _ in range(10)])
    await api(link, "STREAM.MSG.DELETE.EV", {"seq": 5})
    feed = log.read(1)
    assert [entry.seq for entry in await feed.get(5)] == [1, 2, 3, 4]
    with pytest.raises(EventschedError, match="has no sequence 5"):
        while True:
            assert await feed.get(10)
    await feed.close()
    await link.close()


@pytest.mark.parametrize(("direct", "words"), [(False, "stream EV is gone"), (True, "nobody serves stream EV")])
async def test_a_log_that_vanishes_is_an_error_not_a_wait_for_ever(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, direct: bool, words: str
) -> None:
    monkeypatch.setattr(f"eventsched.log.{'direct' if direct else 'reader'}.MISSING_S", 0.5)
    link = await connect(nats_server.options("tester"), "t")
    feed = JetStreamLog(link, direct=direct).read(1)
    with pytest.raises(NoServer, match=words):
        await feed.get(10)
    await feed.close()
    await link.close()


async def test_writes_without_a_server_say_whether_something_may_be_stored(nats_server: NatsServer) -> None:
    link = await connect(nats_server.options("tester"), "t")
    await ensure_streams(link, 1, CREATED)
    log = JetStreamLog(link, timeout_s=1)
    nats_server.stop()
    await asyncio.sleep(0.1)
    with pytest.raises((Unavailable, OutcomeUnknown)):
        await log.append([Outgoing("ev.x", b"{}")])
    with pytest.raises(Unavailable):
        await log.append([Outgoing("ev.x", b"{}")])
    nats_server.start()
    await nats_server.wait_ready()
    await asyncio.wait_for(link.connected.wait(), 10)
    assert await log.append([Outgoing("ev.x", b"{}")]) in (2, 3)
    await link.close()


async def test_an_older_scheduler_stops_at_events_of_a_newer_one(cluster: Cluster) -> None:
    cluster.scheduler("s1")
    client = await cluster.ready(0)
    tester = await cluster.client("tester")
    claimed = await client.log.last_on("ev.leader")
    assert claimed is not None
    claim = LeaderClaimed(leader="newer", nonce="n")
    epoch = await tester.log.append([Outgoing("ev.leader", codec.encode(claim), expect=claimed[0])])
    await tester.log.append([Outgoing("ev.decide.poetry", json.dumps({"epoch": epoch}).encode())])
    assert await asyncio.to_thread(cluster.processes["s1"].wait, 20) == 1
    assert "needs a newer eventsched" in cluster.log("s1").read_text()
