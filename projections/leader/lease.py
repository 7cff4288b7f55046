"""The lease: a key with a time to live, renewed by whoever leads. Only a hint when to claim.

Nothing depends on it for safety: two schedulers that both believe in it are told apart by the
fence. A bucket in memory, as it is worthless after a restart.
"""

from __future__ import annotations

import msgspec
import nats.errors
import nats.js.errors
from nats.js.kv import KeyValue

from eventsched.errors import NoServer
from eventsched.log.link import Link
from eventsched.log.streams import LEASE_BUCKET, api

LEASE_KEY = "leader"
LEASE_TTL_S = 1.5
RENEW_EVERY_S = 0.4
_TROUBLE = (NoServer, TimeoutError, nats.errors.Error, nats.js.errors.Error, OSError)


class Lease:
    """The lease as one scheduler sees it."""

    def __init__(self, link: Link, name: str, replicas: int = 1) -> None:
        self._link = link
        self._name = name
        self._replicas = replicas
        self._bucket: KeyValue | None = None

    async def _open(self) -> KeyValue:
        if self._bucket is None:
            config = {
                "name": f"KV_{LEASE_BUCKET}",
                "subjects": [f"$KV.{LEASE_BUCKET}.>"],
                "storage": "memory",
                "num_replicas": self._replicas,
                "max_msgs_per_subject": 1,
                "max_age": int(LEASE_TTL_S * 1_000_000_000),
                "duplicate_window": 1_000_000_000,
                "discard": "new",
                "allow_rollup_hdrs": True,
                "deny_delete": True,
                "allow_direct": True,
            }
            await api(self._link, f"STREAM.CREATE.KV_{LEASE_BUCKET}", config)  # it may exist: all the same
            self._bucket = await self._link.client.jetstream(timeout=2).key_value(LEASE_BUCKET)
        return self._bucket

    async def holder(self) -> str | None:
        """Who holds the lease; "" = nobody; None = cannot be told now."""
        try:
            entry = await (await self._open()).get(LEASE_KEY)
            return (entry.value or b"").decode(errors="replace")
        except nats.js.errors.KeyNotFoundError:
            return ""
        except (*_TROUBLE, msgspec.MsgspecError):
            self._bucket = None
            return None

    async def take(self) -> bool:
        """Take the lease if nobody holds it; False when another was quicker, or it cannot be told.

        Of several that see it free only one claims, so that they don't depose each other in turn.
        """
        try:
            await (await self._open()).create(LEASE_KEY, self._name.encode())
            return True
        except nats.js.errors.KeyWrongLastSequenceError:
            return False
        except _TROUBLE:
            self._bucket = None
            return False

    async def renew(self) -> None:
        """Say that this scheduler leads."""
        try:
            await (await self._open()).put(LEASE_KEY, self._name.encode())
        except _TROUBLE:
            self._bucket = None

    async def release(self) -> None:
        """Let go at once, so that another need not wait."""
        try:
            await (await self._open()).delete(LEASE_KEY)
        except _TROUBLE:
            self._bucket = None
