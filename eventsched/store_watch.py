"""Submissions stop while the log's store is nearly full, so that reports of what runs still fit."""

from __future__ import annotations

import time

import msgspec

from eventsched.errors import PermissionDenied, StoreFull
from eventsched.log.link import Link

LIMIT_PERCENT = 90
LOOK_EVERY_S = 10.0


class StoreWatch:
    """Looks at the store now and then; a user who may not look is not stopped."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._good_until = 0.0

    async def check(self) -> None:
        """Raises StoreFull."""
        if time.monotonic() < self._good_until:
            return
        try:
            info = msgspec.json.decode(await self._link.request("$JS.API.INFO", b""))
        except (PermissionDenied, TimeoutError):
            return
        limit, used = info.get("limits", {}).get("max_storage", -1), info.get("storage", 0)
        if limit > 0 and used * 100 >= limit * LIMIT_PERCENT:
            raise StoreFull(
                f"the log's store is {used * 100 // limit} % full ({used} of {limit} bytes)",
                "enlarge the store of the NATS server; running jobs go on",
            )
        self._good_until = time.monotonic() + LOOK_EVERY_S
