"""A client whose connection is away for a moment: it waits, or says so; it never shows a library's error."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from eventsched.client import Client
from eventsched.errors import NoServer

from ..cluster import Cluster, until
from ..proxy import Proxy


async def test_a_submission_waits_for_the_connection_and_a_look_at_the_log_says_that_it_is_away(
    cluster: Cluster,
) -> None:
    cluster.scheduler("s1")
    await cluster.ready(0)
    proxy = Proxy(cluster.server.port)
    options = replace(cluster.server.options("operator"), url=await proxy.start())
    async with await Client.connect(options=options) as client:
        before = await client.last_seq()
        proxy.cut()

        async def away() -> bool:
            return not client.link.connected.is_set()

        await until(away, what="the client to see it")
        with pytest.raises(NoServer, match="cannot be reached"):
            await client.last_seq()
        submitting = asyncio.ensure_future(client.submit(driver="fake"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(submitting), 0.5)
        proxy.heal()
        assert (await submitting).seq > before
    await proxy.close()
