"""Snapshots and histories are caches: taken at a clean stop, used by a start, believed only if the log vouches."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from eventsched import codec
from eventsched.client import Client, Submitted
from eventsched.errors import EventschedError
from eventsched.events import DigestRecorded
from eventsched.log.jetstream import JetStreamLog
from eventsched.log.link import Link, connect
from eventsched.log.port import Outgoing
from eventsched.log.streams import SNAP_BUCKET, ensure_streams
from eventsched.nats_server import NatsServer
from eventsched.projections.cluster.digest import decode_state, digest_of_image, encode_state
from eventsched.projections.cluster.state import ClusterState
from eventsched.projections.replaying import replay_digest
from eventsched.projections.replica import Replica
from eventsched.projections.snapshots import DIGEST_SUBJECT, KEPT, Snapshots
from eventsched.spec import FakeRun, JobSpec
from eventsched.views import JobView

from ..cluster import Cluster, until
from ..support import ready

FINISHED_KEEP = 5


# ---- what the log and the bucket hold -----------------------------------------------------------


async def _recorded(client: Client) -> dict[int, str]:
    """Sequence -> digest, as the leaders recorded them."""
    events = [one.event async for one in client.follow_events(follow=False)]
    return {event.at_seq: event.digest for event in events if isinstance(event, DigestRecorded)}


async def _bucket(link: Link) -> ObjectStore:
    return await link.client.jetstream(timeout=10).object_store(SNAP_BUCKET)


async def _snapshots(bucket: ObjectStore) -> list[int]:
    """Sequences of the stored snapshots, oldest first."""
    try:
        found = await bucket.list()
    except NotFoundError:  # an empty bucket
        return []
    return sorted(int(entry.name) for entry in found if not entry.deleted)


def _started_from(cluster: Cluster, name: str = "s1") -> int:
    """Sequence of the snapshot that the last start used; 0 = none."""
    return int(re.findall(r"starting .*snapshot_seq=(\d+)", cluster.log(name).read_text())[-1])


pytestmark = pytest.mark.calm  # schedulers are stopped and started


# ---- a cluster with a past ----------------------------------------------------------------------


async def _begin(cluster: Cluster, *arguments: str) -> Client:
    cluster.scheduler("s1", *arguments)
    cluster.agent("n1", "--cpus", "20")
    return await cluster.ready(1)


async def _work(client: Client, count: int) -> list[str]:
    """Run so many jobs, every tenth of which fails; their ids."""
    specs = [JobSpec(driver="fake", fake=FakeRun(exit_code=int(number % 10 == 9))) for number in range(count)]
    before = sum((await client.stats()).ended.values())
    results = await client.submit_many(specs)

    async def over() -> bool:
        return sum((await client.stats()).ended.values()) == before + count

    await until(over, what=f"{count} jobs to end")
    return [one.job_id for one in results if isinstance(one, Submitted)]


async def _held(client: Client, job_id: str) -> None:
    """A job that waits, and has been judged."""
    await client.submit(JobSpec(driver="fake", hold=True), job_id=job_id)

    async def judged() -> bool:
        return (await client.get(job_id)).reason == "held"

    await until(judged, what="the held job to be admitted")


async def _stop(cluster: Cluster, name: str = "s1") -> None:
    assert await cluster.end(name) == 0


async def _start(cluster: Cluster) -> None:
    """Start s1 again; return when it leads (the state names it as leader also before)."""
    cluster.scheduler("s1")
    client = await cluster.ready(1)

    async def leads() -> bool:
        return (await client.stats()).role == "leading"

    await until(leads, what="s1 to lead again")


async def _answers(client: Client) -> tuple[dict[str, int], dict[str, int], list[JobView]]:
    stats = await client.stats()
    assert (stats.digest_mismatches, stats.anomalies) == (0, {})
    return stats.jobs, stats.ended, await client.list()


async def test_a_clean_stop_records_a_digest_and_the_next_start_uses_its_snapshot(cluster: Cluster) -> None:
    client = await _begin(cluster)
    await _work(client, 30)
    await _held(client, "waits")
    before = await _answers(client)
    assert await _recorded(client) == {}
    await _stop(cluster)
    ((at_seq, digest),) = (await _recorded(client)).items()
    assert await _snapshots(await _bucket((await cluster.client("tester")).link)) == [at_seq]
    assert (await replay_digest(cluster.server.options("operator"), at_seq))["digest"] == digest
    await _start(cluster)
    assert _started_from(cluster) == at_seq
    assert await _answers(client) == before
    await client.release("waits")
    assert (await client.wait("waits", timeout=20)).state == "succeeded", "and it goes on from there"


async def test_a_deleted_snapshot_changes_no_answer(cluster: Cluster) -> None:
    client = await _begin(cluster)
    await _work(client, 30)
    await _held(client, "waits")
    before = await _answers(client)
    link = (await cluster.client("tester")).link
    options = cluster.server.options("operator")
    for what in ("objects", "bucket"):
        await _stop(cluster)
        at_seq, digest = max((await _recorded(client)).items())
        bucket = await _bucket(link)
        assert at_seq in await _snapshots(bucket), "there is something to delete"
        if what == "objects":
            for seq in await _snapshots(bucket):
                await bucket.delete(f"{seq:020d}")
        else:
            await link.client.jetstream().delete_object_store(SNAP_BUCKET)
        await _start(cluster)
        assert _started_from(cluster) == 0
        assert await _answers(client) == before
        assert (await replay_digest(options, at_seq))["digest"] == digest
    await _stop(cluster)
    assert await _snapshots(await _bucket(link)) == [max(await _recorded(client))], "a new one is taken"


async def test_a_replay_from_the_first_event_gives_the_recorded_digests(cluster: Cluster) -> None:
    client = await _begin(cluster, "--digest-every", "40")
    await _work(client, 100)
    bucket = await _bucket((await cluster.client("tester")).link)

    async def taken() -> bool:
        return bool(await _recorded(client)) and bool(await _snapshots(bucket))

    await until(taken, what="a digest and a snapshot on the way")
    await _stop(cluster)
    recorded, snapshots = await _recorded(client), await _snapshots(bucket)
    assert (len(snapshots), snapshots[-1]) == (KEPT, max(recorded))
    assert all(at_seq % 40 == 0 for at_seq in sorted(recorded)[:-1])
    options = cluster.server.options("operator")
    for at_seq, digest in recorded.items():
        whole = await replay_digest(options, at_seq)
        assert (whole["digest"], whole["from_seq"]) == (digest, 1)
    for at_seq in recorded.keys() & snapshots:
        short = await replay_digest(options, at_seq, from_snapshot=True)
        assert (short["digest"], short["from_seq"]) == (recorded[at_seq], at_seq + 1), "nothing was left to fold"
    whole = await replay_digest(options)
    short = await replay_digest(options, from_snapshot=True)
    assert (short["seq"], short["digest"]) == (whole["seq"], whole["digest"])
    with pytest.raises(EventschedError, match="the log ends at sequence"):
        await replay_digest(options, at=int(str(whole["seq"])) + 1)


async def test_a_tampered_snapshot_is_not_trusted_by_a_scheduler(cluster: Cluster) -> None:
    client = await _begin(cluster)
    await _work(client, 30)
    before = await _answers(client)
    await _stop(cluster)
    bucket = await _bucket((await cluster.client("tester")).link)
    (seq,) = await _snapshots(bucket)
    name = f"{seq:020d}"
    state = decode_state(zlib.decompress((await bucket.get(name)).data or b""))
    assert state.seq == seq
    for job in state.jobs.values():
        job.exit_code = 7
    await bucket.put(name, zlib.compress(encode_state(state)))
    await _start(cluster)
    assert _started_from(cluster) == 0
    assert "snapshot_digest_differs" in cluster.log("s1").read_text()
    assert await _answers(client) == before


# ---- which snapshots are believed, on a log written by hand -------------------------------------


class Past:
    """A log with two recorded digests and their snapshots, at `older` and `newer`."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.log = JetStreamLog(link)
        self.snapshots = Snapshots(link)
        self.ledger = ready()
        self.older = self.newer = 0
        self.images: dict[int, bytes] = {}

    async def write(self) -> None:
        await ensure_streams(self.link, 1, self.ledger.entries[0].payload)
        await self.append(1)
        self.older = await self.snapshot()
        at = len(self.ledger.entries)
        for job_id in ("a", "b", "c"):
            self.ledger.submit(job_id)
        self.ledger.settle()
        await self.append(at)
        self.newer = await self.snapshot()

    async def append(self, start: int) -> None:
        await self.log.append([Outgoing(one.subject, one.payload) for one in self.ledger.entries[start:]])

    async def image(self) -> tuple[int, bytes]:
        """Sequence and image of the state at the log's end."""
        replica = Replica(ClusterState())
        feed = self.log.read(1)
        while feed.pending != 0:
            replica.fold_entries(await feed.get(5))
        await feed.close()
        return replica.state.seq, encode_state(replica.state)

    async def record(self, at_seq: int, digest: str) -> None:
        event = DigestRecorded(epoch=self.ledger.state.epoch, at_seq=at_seq, digest=digest)
        await self.log.append([Outgoing(DIGEST_SUBJECT, codec.encode(event))])

    async def snapshot(self) -> int:
        """What a leader does: record the digest, save the image; the sequence."""
        seq, image = await self.image()
        await self.record(seq, digest_of_image(image))
        await self.snapshots.save("test", seq, image)
        self.images[seq] = image
        return seq

    async def put(self, data: bytes) -> None:
        """Other bytes in the place of the newer snapshot."""
        await (await _bucket(self.link)).put(f"{self.newer:020d}", data)


@pytest.fixture
async def past(nats_server: NatsServer) -> AsyncIterator[Past]:
    link = await connect(nats_server.options("tester"), "t")
    made = Past(link)
    await made.write()
    assert await _snapshots(await _bucket(link)) == [made.older, made.newer]
    yield made
    await link.close()


async def _bytes_changed(past: Past) -> None:
    packed = bytearray(zlib.compress(past.images[past.newer]))
    packed[len(packed) // 2] ^= 0xFF
    await past.put(bytes(packed))


async def _not_packed(past: Past) -> None:
    await past.put(past.images[past.newer])


async def _image_of_the_older(past: Past) -> None:
    await past.put(zlib.compress(past.images[past.older]))


async def _nothing_in_it(past: Past) -> None:
    await past.put(b"")


async def _chunks_lost(past: Past) -> None:
    bucket = await _bucket(past.link)
    info = await bucket.get_info(f"{past.newer:020d}")
    await past.link.client.jetstream().purge_stream(f"OBJ_{SNAP_BUCKET}", subject=f"$O.{SNAP_BUCKET}.C.{info.nuid}")


async def _deleted(past: Past) -> None:
    await (await _bucket(past.link)).delete(f"{past.newer:020d}")


DAMAGES = [_bytes_changed, _not_packed, _image_of_the_older, _nothing_in_it, _chunks_lost, _deleted]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_behind_a_damaged_snapshot_the_older_one_is_used(
    past: Past, damage: Callable[[Past], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventsched.projections.snapshots.LOAD_TIMEOUT_S", 0.3)  # lost chunks never come
    assert (await past.snapshots.load()).seq == past.newer
    await damage(past)
    state = await Snapshots(past.link).load()
    assert state.seq == past.older
    assert encode_state(state) == past.images[past.older]


async def test_a_snapshot_counts_only_with_its_digest_in_the_log(past: Past) -> None:
    seq, image = await past.image()
    await past.snapshots.save("test", seq, image)
    assert (await past.snapshots.load()).seq == past.newer, "nobody recorded a digest for it"
    await past.record(seq, "0" * 32)
    await past.record(seq, digest_of_image(image))
    assert (await past.snapshots.load()).seq == past.newer, "the first record counts, and it is another"
    later = await past.snapshot()
    assert (await past.snapshots.load()).seq == later


@pytest.mark.parametrize("what", ["no image", "an image of another sequence"])
async def test_a_recorded_digest_of_the_wrong_thing_makes_no_snapshot(past: Past, what: str) -> None:
    seq, _ = await past.image()
    data = b"\xc1 is never msgpack" if what == "no image" else past.images[past.older]
    await past.record(seq, digest_of_image(data))
    await past.snapshots.save("test", seq, data)
    assert (await past.snapshots.load()).seq == past.newer


async def test_a_snapshot_at_most_so_new_is_found(past: Past) -> None:
    for at_most, expected in (
        (past.newer + 100, past.newer),
        (past.newer, past.newer),
        (past.newer - 1, past.older),
        (past.older, past.older),
        (past.older - 1, 0),
    ):
        assert (await past.snapshots.load(at_most)).seq == expected
    for _ in range(2):
        await past.snapshot()
    assert past.newer not in await _snapshots(await _bucket(past.link)), "only the newest two are kept"


# ---- the history --------------------------------------------------------------------------------


async def _all_are_found(client: Client, jobs: list[str]) -> None:
    for index, job_id in enumerate(jobs):
        assert (await client.get(job_id)).state == ("failed" if index % 10 == 9 else "succeeded")
    assert {view.job_id for view in await client.list()} == set(jobs)


async def _complete(client: Client) -> None:
    async def complete() -> bool:
        return (await client.stats()).history == "complete"

    await until(complete, what="the history to be complete")


async def test_a_deleted_history_is_filled_in_again(cluster: Cluster) -> None:
    """The start is from a snapshot, which knows the last few ended jobs only."""
    client = await _begin(cluster, "--finished-keep", str(FINISHED_KEEP))
    jobs = await _work(client, 40)
    await _all_are_found(client, jobs)
    await _stop(cluster)
    files = list((cluster.directory / "s1").glob("history-*"))
    assert files
    for file in files:
        file.unlink()
    cluster.scheduler("s1")
    await cluster.ready(1)
    await _stop(cluster)  # most likely in the midst of it: the next start goes on
    await _start(cluster)
    assert _started_from(cluster) > 0
    await _complete(client)
    await _all_are_found(client, jobs)
    assert "backfill_started" in cluster.log("s1").read_text()


async def test_a_killed_scheduler_goes_on_from_an_older_snapshot_with_a_whole_history(cluster: Cluster) -> None:
    client = await _begin(cluster, "--finished-keep", str(FINISHED_KEEP))
    jobs = await _work(client, 20)
    await _stop(cluster)
    (at_seq,) = await _recorded(client)
    await _start(cluster)
    jobs += await _work(client, 20)
    await cluster.kill("s1")
    await _start(cluster)
    assert _started_from(cluster) == at_seq
    assert (await client.stats()).history == "complete", "the file reached further than the snapshot"
    await _all_are_found(client, jobs)
    assert list(await _recorded(client)) == [at_seq]
