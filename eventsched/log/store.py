"""The store behind the log: submissions stop while it is nearly full, so that reports still fit."""

from __future__ import annotations

import asyncio

import msgspec
import nats.errors

from eventsched.errors import PermissionDenied, StoreFull
from eventsched.log.link import Link

LIMIT_PERCENT = 90
CHECK_EVERY_S = 10.0


class StoreCheck:
    """Looks now and then how full the store is."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._good_until = 0.0

    async def check(self) -> None:
        """Raise StoreFull while the store takes no submissions; whoever may not or can't look is let through."""
        now = asyncio.get_running_loop().time()
        if now < self._good_until:
            return
        try:
            info = msgspec.json.decode(await self._link.request("$JS.API.INFO", b""))
        except (PermissionDenied, TimeoutError, nats.errors.Error):  # cut off, the writer knows how long to try
            return
        limit, used = info.get("limits", {}).get("max_storage", -1), info.get("storage", 0)
        if limit > 0 and used * 100 >= limit * LIMIT_PERCENT:
            raise StoreFull(
                f"the log's store is {used * 100 // limit} % full ({used} of {limit} bytes)",
                "enlarge the store of the NATS server; running jobs go on",
            )
        self._good_until = now + CHECK_EVERY_S
