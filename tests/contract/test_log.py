"""What every log promises, held against all: in memory, and on JetStream with either way of reading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from eventsched import codec
from eventsched.events import ClusterCreated
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import Link, connect
from eventsched.log.memory import MemoryLog
from eventsched.log.port import BATCH_MAX, AppendError, Conflict, Duplicate, EventLog, Fenced, Outgoing, Refused
from eventsched.log.streams import ensure_streams
from eventsched.nats_server import NatsServer

CREATED = codec.encode(ClusterCreated(cluster_id="contract"))


@pytest.fixture(params=["memory", "jetstream", "jetstream-direct"])
async def log(request: pytest.FixtureRequest, nats_server: NatsServer) -> AsyncIterator[EventLog]:
    if request.param == "memory":
        memory = MemoryLog()
        await memory.append([Outgoing("ev.admin.cluster_created", CREATED)])
        yield memory
        return
    # the operator may not claim the lead; a user that may do everything is needed here
    link = await connect(nats_server.options("tester"), "contract")
    await ensure_streams(link, 1, CREATED)
    yield JetStreamLog(link, direct=request.param == "jetstream-direct")
    await link.close()


def _out(subject: str = "ev.x", payload: bytes = b"{}", **more: object) -> Outgoing:
    return Outgoing(subject, payload, **more)  # type: ignore[arg-type]


async def _all(log: EventLog, from_seq: int = 1, count: int = 1) -> list[tuple[int, str, bytes]]:
    feed = log.read(from_seq)
    found: list[tuple[int, str, bytes]] = []
    while len(found) < count:
        entries = await feed.get(5)
        assert entries, f"{len(found)} of {count} came"
        found += [(entry.seq, entry.subject, entry.payload) for entry in entries]
    await feed.close()
    return found


async def test_sequences_are_contiguous_from_one(log: EventLog) -> None:
    assert await log.append([_out()]) == 2
    assert await log.append([_out(payload=b"%d" % n) for n in range(5)]) == 7
    assert [seq for seq, _, _ in await _all(log, count=7)] == list(range(1, 8))


async def test_a_batch_keeps_its_order_and_subjects(log: EventLog) -> None:
    await log.append([_out(f"ev.s{n}", b"%d" % n) for n in range(100)])
    assert [(subject, payload) for _, subject, payload in (await _all(log, 2, 100))] == [
        (f"ev.s{n}", b"%d" % n) for n in range(100)
    ]


async def test_the_fence(log: EventLog) -> None:
    claim = await log.append([_out("ev.leader", expect=0)])
    assert await log.append([_out("ev.assign.n1")], fence=claim) == claim + 1
    assert await log.append([_out("ev.assign.n1"), _out("ev.decide.x")], fence=claim) == claim + 3
    await log.append([_out("ev.elsewhere")])
    newer = await log.append([_out("ev.leader", expect=claim)])
    for batch in (1, 2, 50):
        with pytest.raises(Fenced):
            await log.append([_out("ev.assign.n1")] * batch, fence=claim)
    assert await log.append([_out("ev.assign.n1")], fence=newer) == newer + 1


async def test_of_two_claims_one_wins(log: EventLog) -> None:
    results = await asyncio.gather(
        *(log.append([_out("ev.leader", b"%d" % n, expect=0)]) for n in range(5)), return_exceptions=True
    )
    won = [result for result in results if isinstance(result, int)]
    assert len(won) == 1
    assert all(isinstance(result, AppendError) for result in results if not isinstance(result, int))


async def test_a_new_subject_is_new_once(log: EventLog) -> None:
    first = await log.append([_out("ev.job.t.j.submitted", expect=0)])
    with pytest.raises(Conflict):
        await log.append([_out("ev.job.t.j.submitted", expect=0)])
    with pytest.raises(Conflict):
        await log.append([_out("ev.job.t.k.submitted", expect=0), _out("ev.job.t.j.submitted", expect=0)])
    assert await log.last_on("ev.job.t.k.submitted") is None, "a refused batch stores nothing"
    assert await log.append([_out()]) == first + 1, "and uses up no sequence"


async def test_a_message_id_is_stored_once(log: EventLog) -> None:
    first = await log.append([_out(msg_id="m1")])
    assert await log.append([_out(msg_id="m1")]) == first
    with pytest.raises(Duplicate):
        await log.append([_out(msg_id="m2"), _out(msg_id="m1")])
    assert await log.append([_out(msg_id="m2")]) == first + 1


async def test_the_newest_entry_of_a_subject_with_its_id(log: EventLog) -> None:
    assert await log.last_on("ev.a") is None
    await log.append([_out("ev.a", msg_id="m1")])
    seq = await log.append([_out("ev.a", msg_id="m2"), _out("ev.b")])
    assert await log.last_on("ev.a") == (seq - 1, "m2")
    assert await log.last_on("ev.b") == (seq, "")


async def test_batches_have_a_size(log: EventLog) -> None:
    await log.append([_out()] * BATCH_MAX)
    for count in (0, BATCH_MAX + 1):
        with pytest.raises(Refused):
            await log.append([_out()] * count)


async def test_a_reader_sees_old_and_new_and_may_filter(log: EventLog) -> None:
    await log.append([_out("ev.assign.n1", b"1"), _out("ev.assign.n2", b"2"), _out("ev.node.n1", b"3")])
    feed = log.read(2, ["ev.assign.n1", "ev.node.*"])
    seen: list[bytes] = []
    while len(seen) < 2:
        seen += [entry.payload for entry in await feed.get(5)]
    await log.append([_out("ev.other")])
    await log.append([_out("ev.assign.n1", b"4")])
    seen += [entry.payload for entry in await feed.get(5)]
    assert seen == [b"1", b"3", b"4"]
    assert await feed.get(0.05) == [], "nothing comes, and it says so"
    await feed.close()


async def test_a_reader_knows_when_it_has_everything(log: EventLog) -> None:
    for _ in range(3):
        await log.append([_out()] * 500)
    feed = log.read(1)
    count = 0
    while feed.pending != 0:
        count += len(await feed.get(5))
    assert count == 1501
    await feed.close()


async def test_times_are_milliseconds_and_payloads_are_bytes(log: EventLog) -> None:
    import time

    payload = bytes(range(256)) * 10
    seq = await log.append([_out(payload=payload)])
    feed = log.read(seq)
    (entry,) = await feed.get(5)
    assert entry.payload == payload
    assert abs(entry.at_ms - time.time() * 1000) < 60_000
    await feed.close()


async def test_concurrent_writers_lose_nothing(log: EventLog) -> None:
    async def write(who: int) -> None:
        for n in range(20):
            await log.append([_out(f"ev.w{who}", b"%d" % n)] * (1 + n % 3))

    await asyncio.gather(*(write(who) for who in range(5)))
    total = 5 * sum(1 + n % 3 for n in range(20))
    found = await _all(log, 2, total)
    for who in range(5):
        mine = [int(payload) for _, subject, payload in found if subject == f"ev.w{who}"]
        assert mine == sorted(mine), "each writer's order is kept"
        assert len(mine) == total // 5


async def test_two_connections_agree(nats_server: NatsServer) -> None:
    links: list[Link] = [await connect(nats_server.options("tester"), f"c{n}") for n in range(2)]
    await asyncio.gather(*(ensure_streams(link, 1, CREATED) for link in links))
    logs = [JetStreamLog(link) for link in links]
    await asyncio.gather(*(log.append([_out(payload=b"%d" % n)]) for n, log in enumerate(logs * 10)))
    assert await _all(logs[0], count=21) == await _all(logs[1], count=21)
    for link in links:
        await link.close()
