"""While a command waits for a job: say on stderr why the job waits, when it does so for long."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eventsched.client import Client
from eventsched.ending import end
from eventsched.errors import EventschedError
from eventsched.reasons import in_words
from eventsched.visible import visible

LOOK_EVERY_S = 3.0
_SOON = ("", "unjudged", "turn")
"""Reasons that pass by themselves: nobody needs to hear of them."""


@asynccontextmanager
async def saying_why(client: Client, job_id: str, tenant: str = "") -> AsyncIterator[None]:
    """Each reason is said once, as long as the block lasts."""
    looking = asyncio.create_task(_look(client, job_id, tenant))
    try:
        yield
    finally:
        await end(looking)


async def _look(client: Client, job_id: str, tenant: str) -> None:
    said = ""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            view = await client.get(job_id, tenant=tenant)
        except EventschedError:  # whoever waits will hear of it
            continue
        if view.ended:
            return
        if view.state == "pending" and view.reason not in (*_SOON, said):
            said = view.reason
            text = f"{view.tenant}/{view.job_id} waits: {said}: {in_words(view.reason, view.detail)}"
            print(visible(text), file=sys.stderr, flush=True)
