"""Snapshots: a state at a sequence, so that starting need not read the whole log.

A cache: deleting all of them changes no answer, only the start-up time. A snapshot is used only
if its bytes hash to the digest the leader recorded *in the log* for that sequence. They lie in an
object store bucket (stream `OBJ_SNAP`), two are kept.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.js.api import ObjectMeta, ObjectMetaOptions, ObjectStoreConfig
from nats.js.object_store import ObjectStore

from eventsched import codec
from eventsched.errors import PermissionDenied
from eventsched.events import DigestRecorded
from eventsched.log.link import Link
from eventsched.log.streams import EV, SNAP_BUCKET
from eventsched.projections.cluster.digest import decode_state, digest_of_image
from eventsched.projections.cluster.state import FOLD_VERSION, ClusterState
from eventsched.subjects import decide

_log = structlog.get_logger("eventsched.snapshots")
LIST_TIMEOUT_S = 10.0
KEPT = 2
LOAD_TIMEOUT_S = 30
DIGEST_SUBJECT = decide("digest_recorded")
_CHUNK_BYTES = 512 * 1024
_TROUBLE = (TimeoutError, nats.errors.Error, nats.js.errors.Error, OSError, PermissionDenied)
_INFO_SUBJECT = f"$JS.API.STREAM.INFO.OBJ_{SNAP_BUCKET}"
_CREATE_SUBJECT = f"$JS.API.STREAM.CREATE.OBJ_{SNAP_BUCKET}"


class Snapshots:
    """The snapshots of one log."""

    def __init__(self, link: Link, replicas: int = 1) -> None:
        self._link = link
        self._replicas = replicas

    async def _bucket(self) -> ObjectStore | None:
        """The bucket, asked for each time: it may be deleted at any time. None when there is none."""
        jetstream = self._link.client.jetstream(timeout=10)
        try:
            return await self._link.guard(_INFO_SUBJECT, jetstream.object_store(SNAP_BUCKET))
        except (nats.js.errors.BucketNotFoundError, nats.js.errors.NotFoundError):
            return None

    async def _made_bucket(self) -> ObjectStore:
        bucket = await self._bucket()
        if bucket is None:
            config = ObjectStoreConfig(bucket=SNAP_BUCKET, replicas=self._replicas)
            making = self._link.client.jetstream(timeout=10).create_object_store(SNAP_BUCKET, config=config)
            bucket = await self._link.guard(_CREATE_SUBJECT, making)
        return bucket

    async def save(self, cluster_id: str, seq: int, image: bytes) -> None:
        """Store the image of the state at `seq`; old ones go. Raises nothing: a snapshot is a convenience."""
        try:
            packed = await asyncio.to_thread(zlib.compress, image, 1)  # a large one takes a second
            bucket = await self._made_bucket()
            meta = ObjectMeta(
                name=_name(seq),
                description=f"state of {cluster_id} at {seq}, fold {FOLD_VERSION}",
                options=ObjectMetaOptions(max_chunk_size=_CHUNK_BYTES),
            )
            await bucket.put(_name(seq), packed, meta=meta)
            _log.info("snapshot_saved", seq=seq, bytes=len(packed))
            for old in (await self._sequences(bucket))[KEPT:]:
                await bucket.delete(_name(old))
        except _TROUBLE as error:
            _log.warning("snapshot_failed", seq=seq, error=str(error) or type(error).__name__)

    async def _sequences(self, bucket: ObjectStore) -> list[int]:
        """Sequences of the stored snapshots, newest first."""
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S):  # nats-py waits for ever on an entry it cannot read
                found = await bucket.list()
        except nats.js.errors.NotFoundError:
            return []
        names = (entry.name for entry in found if not entry.deleted)
        return sorted((int(name) for name in names if _is_name(name)), reverse=True)

    async def load(self, at_most: int | None = None) -> ClusterState:
        """The newest usable state at or before `at_most` (None: the newest at all); an empty state
        when there is none."""
        try:
            bucket = await self._bucket()
            for seq in await self._sequences(bucket) if bucket is not None else ():
                if at_most is not None and seq > at_most:
                    continue
                state = await self._load_one(bucket, seq)
                if state is not None:
                    return state
        except _TROUBLE as error:
            _log.info("no_snapshots", error=str(error) or type(error).__name__)
        return ClusterState()

    async def _load_one(self, bucket: ObjectStore, seq: int) -> ClusterState | None:
        _log.info("snapshot_loading", seq=seq)
        recorded = await self._recorded_digest(seq)
        if recorded is None:
            _log.warning("snapshot_without_digest", seq=seq)
            return None
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                packed = await bucket.get(_name(seq))
            image = zlib.decompress(packed.data or b"")
        except (*_TROUBLE, zlib.error) as error:
            _log.warning("snapshot_unreadable", seq=seq, error=str(error) or type(error).__name__)
            return None
        if digest_of_image(image) != recorded:
            _log.warning("snapshot_digest_differs", seq=seq, recorded=recorded)
            return None
        try:
            state = decode_state(image)
        except msgspec.MsgspecError as error:
            _log.warning("snapshot_undecodable", seq=seq, error=str(error))
            return None
        if state.seq != seq:
            _log.warning("snapshot_of_another_sequence", seq=seq, found=state.seq)
            return None
        return state

    async def _recorded_digest(self, seq: int) -> str | None:
        """The digest the log records for `seq`."""
        after = seq + 1
        while True:
            body: dict[str, Any] = {"seq": after, "next_by_subj": DIGEST_SUBJECT}
            raw = await self._link.request(f"$JS.API.STREAM.MSG.GET.{EV}", msgspec.json.encode(body))
            message = json.loads(raw).get("message")
            if message is None:
                return None
            event = codec.decode(DIGEST_SUBJECT, msgspec.json.decode(f'"{message["data"]}"', type=bytes))
            if isinstance(event, DigestRecorded):
                if event.at_seq == seq:
                    return event.digest
                if event.at_seq > seq:
                    return None
            after = message["seq"] + 1


def _name(seq: int) -> str:
    return f"{seq:020d}"


def _is_name(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) == 20
