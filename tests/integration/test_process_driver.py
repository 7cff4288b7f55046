"""The process driver where files, workdirs and shims are not what they were a moment ago."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventsched.agents.drivers import process, shim_client
from eventsched.agents.drivers.base import EngineAway, Place, StartFailed
from eventsched.agents.drivers.process import ProcessDriver
from eventsched.agents.logs import Shipper
from eventsched.agents.process_runs import OUTPUT_MAX_BYTES, RUNS
from eventsched.agents.shim import LOCK_FILE
from eventsched.log.memory import MemoryLog
from eventsched.new_ids import new_ulid

from ..processes import launch, process_driver, quiet, until


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[ProcessDriver]:
    async with process_driver(tmp_path) as driver:
        yield driver


async def test_a_workdir_that_has_gone_is_said_to_be_gone(driver: ProcessDriver, tmp_path: Path) -> None:
    """The command was, which had been found there and remembered."""
    workdir = tmp_path / "work"
    workdir.mkdir()
    await driver.start(launch(1, "true", workdir=str(workdir)), quiet)
    await driver.wait(1)
    workdir.rmdir()
    with pytest.raises(StartFailed, match=r"workdir .* does not exist") as failed:
        await driver.start(launch(2, "true", workdir=str(workdir)), quiet)
    assert failed.value.reason == "engine_error"


async def test_what_is_remembered_of_commands_is_bounded(
    driver: ProcessDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PROGRAMS_MAX", 3)
    for run in range(1, 8):
        workdir = tmp_path / f"work-{run}"
        workdir.mkdir()
        await driver.start(launch(run, "true", workdir=str(workdir)), quiet)
        await driver.wait(run)
        assert 1 <= len(driver._programs) <= 3


async def test_output_nobody_will_ever_see_does_not_fill_the_disk(driver: ProcessDriver, tmp_path: Path) -> None:
    size = OUTPUT_MAX_BYTES + 20 * 1024 * 1024
    done = tmp_path / "done"
    script = f"yes | head -c {size}; touch {done}; sleep 60"
    await driver.start(launch(1, "sh", "-c", script), quiet)
    output = tmp_path / RUNS / "1"
    await until(done.exists)
    await until(lambda: output.stat().st_size == OUTPUT_MAX_BYTES + 1)
    log = MemoryLog()
    shipper = Shipper(log, "logs.acme.n1.1", 1)  # type: ignore[arg-type]
    shipping = asyncio.ensure_future(shipper.ship(driver.output(1, 0)))
    await until(lambda: shipper.offset > OUTPUT_MAX_BYTES)
    await driver.stop(1, 0)
    await shipping
    feed = log.read(1)
    chunks: list[bytes] = []
    while len(chunks) < shipper.chunks:
        chunks += [entry.payload for entry in await feed.get(1)]
    shipped = b"".join(chunks)
    assert shipped[:OUTPUT_MAX_BYTES] == b"y\n" * (OUTPUT_MAX_BYTES // 2)
    assert shipped[OUTPUT_MAX_BYTES:] == f"\n[eventsched: output cut at {OUTPUT_MAX_BYTES} bytes]\n".encode()


async def test_a_removed_run_leaves_nothing_behind(driver: ProcessDriver) -> None:
    await driver.start(launch(1, "true"), quiet)
    await driver.wait(1)
    driver._cpu_seen[1] = (0.0, 0)  # by a measurement that was under way when it ended
    await driver.remove(1)
    assert driver._cpu_seen == {}


async def test_without_a_shim_nobody_can_say_what_runs(
    driver: ProcessDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was an error of ours, by which an agent ended instead of asking again."""
    monkeypatch.setattr(shim_client, "CONNECT_S", 0.5)
    await driver.start(launch(1, "sleep", "60"), quiet)
    child = driver._shim._child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    other = ProcessDriver(Place(new_ulid(), "node-1", tmp_path))
    with (tmp_path / LOCK_FILE).open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody who does not answer
        with pytest.raises(EngineAway, match="does not answer"):
            await other.inventory()
    monkeypatch.undo()
    (known,) = await other.inventory()
    assert known.launch.run == 1
    await other.close()
