"""Ending a task for certain."""

from __future__ import annotations

import asyncio
from typing import Any

CANCEL_AGAIN_S = 0.5


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task until it has ended; how it did is its own affair. nats-py asks within `asyncio.wait_for`, which on
    Python 3.11 may swallow a cancellation that comes together with its result."""
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=CANCEL_AGAIN_S)
