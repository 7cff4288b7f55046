"""The process driver over a directory of its own, for tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from eventsched.agents.drivers.base import Place
from eventsched.agents.drivers.process import ProcessDriver
from eventsched.agents.effects import Launch
from eventsched.new_ids import new_ulid
from eventsched.spec import JobSpec


def launch(run: int, *command: str, **fields: Any) -> Launch:
    """A run of this command."""
    return Launch(run, "acme", "job", 1, (), JobSpec(driver="process", command=command, **fields))


def quiet(_: str) -> None:
    """Take no notice of progress."""


async def until(claim: Callable[[], object], seconds: float = 10) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@asynccontextmanager
async def process_driver(directory: Path, cluster: str = "", node: str = "node-1") -> AsyncIterator[ProcessDriver]:
    """An open driver; what it still runs is stopped at the end."""
    driver = ProcessDriver(Place(cluster or new_ulid(), node, directory))
    await driver.open()
    try:
        yield driver
    finally:
        for known in await driver.inventory():
            await driver.stop(known.launch.run, 0)
            await driver.remove(known.launch.run)
        await driver.leave()
