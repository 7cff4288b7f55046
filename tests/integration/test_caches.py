"""Caches beside a scheduler that are damaged, deleted or slow: it goes on, and they come back by themselves."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import psutil
import pytest

from eventsched import codec
from eventsched.client import Client
from eventsched.events import ClusterCreated
from eventsched.log.link import connect
from eventsched.log.streams import SNAP_BUCKET, ensure_streams
from eventsched.nats_server import NatsServer
from eventsched.projections.snapshots import LOAD_TIMEOUT_S, Snapshots

from ..cluster import Cluster, until
from .test_snapshots import (
    FINISHED_KEEP,
    _all_are_found,
    _begin,
    _bucket,
    _complete,
    _snapshots,
    _start,
    _stop,
    _work,
)


def _file(cluster: Cluster) -> Path:
    return cluster.directory / "s1" / "history-s1.sqlite"


async def _with_a_past(cluster: Cluster, count: int) -> tuple[Client, list[str]]:
    client = await _begin(cluster, "--finished-keep", str(FINISHED_KEEP))
    return client, await _work(client, count)


# ---- the history --------------------------------------------------------------------------------


async def test_a_damaged_history_does_not_keep_a_scheduler_from_starting(cluster: Cluster) -> None:
    client, jobs = await _with_a_past(cluster, 30)
    await _stop(cluster)
    _file(cluster).write_bytes(b"not a database, for certain" * 1_000)
    await _start(cluster)
    await _complete(client)
    await _all_are_found(client, jobs)
    assert "history_set_aside" in cluster.log("s1").read_text()
    assert _file(cluster).with_name("history-s1.sqlite.damaged").read_bytes().startswith(b"not a database")


async def test_a_history_that_proves_damaged_when_it_is_asked_is_made_anew(cluster: Cluster) -> None:
    client, jobs = await _with_a_past(cluster, 30)
    await _stop(cluster)
    data = bytearray(_file(cluster).read_bytes())
    data[3 * 4096 :] = b"\xff" * (len(data) - 3 * 4096)  # the schema and what it covers can be read
    _file(cluster).write_bytes(data)
    await _start(cluster)
    assert "history_set_aside" not in cluster.log("s1").read_text()
    assert (await client.stats()).history == "complete"
    await client.list()
    assert "history_set_aside" in cluster.log("s1").read_text()
    await _complete(client)
    await _all_are_found(client, jobs)


async def test_filling_a_history_ends_with_its_scheduler(cluster: Cluster) -> None:
    await _with_a_past(cluster, 30)
    await _stop(cluster)
    for file in _file(cluster).parent.glob("history-*"):
        file.unlink()
    cluster.scheduler("s1")
    parent = psutil.Process(cluster.processes["s1"].pid)

    async def filler() -> psutil.Process | None:
        return next((one for one in parent.children() if "eventsched.projections.backfill" in one.cmdline()), None)

    child: psutil.Process = await until(filler, what="the gap to be filled")
    assert cluster.server.process is not None
    cluster.server.process.send_signal(signal.SIGSTOP)  # it can't come to its end by itself
    try:
        await cluster.kill("s1")
        await asyncio.to_thread(child.wait, 3)
    finally:
        cluster.server.process.send_signal(signal.SIGCONT)
    assert "backfill_done" not in cluster.log("s1").read_text()


# ---- snapshots ----------------------------------------------------------------------------------


async def test_a_scheduler_that_loads_a_snapshot_ends_when_it_is_told_to(cluster: Cluster) -> None:
    await _with_a_past(cluster, 10)
    await _stop(cluster)
    link = (await cluster.client("tester")).link
    bucket = await _bucket(link)
    for seq in await _snapshots(bucket):  # what is announced and never comes is waited for
        info = await bucket.get_info(f"{seq:020d}")
        subject = f"$O.{SNAP_BUCKET}.C.{info.nuid}"
        await link.client.jetstream().purge_stream(f"OBJ_{SNAP_BUCKET}", subject=subject)
    before = cluster.log("s1").read_text().count("snapshot_loading")
    cluster.scheduler("s1")
    await _said_again(cluster, before)
    started = time.monotonic()
    assert await cluster.end("s1") == 0
    assert time.monotonic() - started < LOAD_TIMEOUT_S / 2


async def _said_again(cluster: Cluster, before: int) -> None:
    async def loading() -> bool:
        return cluster.log("s1").read_text().count("snapshot_loading") > before

    await until(loading, what="s1 to load a snapshot")


@pytest.fixture
async def streams(nats_server: NatsServer) -> NatsServer:
    link = await connect(nats_server.options("tester"), "t")
    await ensure_streams(link, 1, codec.encode(ClusterCreated(cluster_id="test")))
    await link.close()
    return nats_server


async def test_a_deleted_bucket_is_made_again_for_the_next_snapshot(streams: NatsServer) -> None:
    link = await connect(streams.options("tester"), "t")
    snapshots = Snapshots(link)
    await snapshots.save("test", 10, b"an image")
    assert await _snapshots(await _bucket(link)) == [10]
    await link.client.jetstream().delete_object_store(SNAP_BUCKET)
    assert (await snapshots.load()).seq == 0, "and none is an answer, too"
    await snapshots.save("test", 20, b"an image")
    assert await _snapshots(await _bucket(link)) == [20]
    await link.close()


async def test_who_may_not_make_the_bucket_looks_for_snapshots_without_waiting(streams: NatsServer) -> None:
    link = await connect(streams.options("operator"), "t")
    async with asyncio.timeout(5):
        assert (await Snapshots(link).load()).seq == 0
        await Snapshots(link).save("test", 10, b"an image")  # refused at once, and no error of the caller's
    await link.close()
