"""The leash: it obeys the lease of the last agent, and what hangs shields nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from eventsched.agents.drivers.process import ProcessDriver
from eventsched.agents.effects import Launch
from eventsched.agents.lease import LEASE_FILE, Terms, boot_ms, drop_lease, read_fenced, read_lease, write_lease
from eventsched.agents.processes import marked
from eventsched.new_ids import new_ulid
from eventsched.spec import JobSpec

from ..engine import docker, remove_all
from ..processes import process_driver

STUBBORN = "trap '' TERM; while :; do sleep 0.05; done"
ENGINE = "/var/run/docker.sock"


@pytest.fixture
def leash(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-m", "eventsched.agents.leash", str(tmp_path)]))
        return started[-1]

    yield start
    drop_lease(tmp_path)
    for process in started:
        assert process.wait(10) == 0, "it ends with the lease"


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[ProcessDriver]:
    async with process_driver(tmp_path, "c" * 26, "n1") as driver:
        yield driver


async def _start(driver: ProcessDriver, run: int, script: str, grace_ms: int, directory: Path) -> None:
    spec = JobSpec(driver="process", command=("sh", "-c", f"echo ready; {script}"), stop_grace_ms=grace_ms)
    await driver.start(Launch(run, "acme", "job", 1, (), spec), lambda _: None)
    async with asyncio.timeout(5):
        while not await driver.has_output(run):
            await asyncio.sleep(0.02)


async def _gone(directory: Path, seconds: float) -> float:
    """How long it took until no process of a run was left."""
    began = time.monotonic()
    while marked(directory):
        assert time.monotonic() - began < seconds, marked(directory)
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_a_leash_that_outlived_its_agent_obeys_the_next_one(
    leash: Callable[[], subprocess.Popen[bytes]], driver: ProcessDriver, tmp_path: Path
) -> None:
    write_lease(tmp_path, boot_ms() + 60_000, 3, Terms("c" * 26, "n1", 60_000))
    leash()
    await _start(driver, 1, STUBBORN, 60_000, tmp_path)
    write_lease(tmp_path, boot_ms() + 300, 4, Terms("c" * 26, "n1", 500))
    assert 0.7 < await _gone(tmp_path, 10) < 5
    assert read_fenced(tmp_path) == {1: None}
    assert (await driver.wait(1)).exit_code == 137


async def test_an_engine_named_by_a_later_lease_is_swept_too(
    leash: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    cluster = new_ulid()
    labels = {"cluster": cluster, "node": "n1", "run": "7", "grace_ms": "300"}
    options = [part for name, value in labels.items() for part in ("--label", f"eventsched.{name}={value}")]
    container = (await docker("run", "-d", "--network", "none", *options, "busybox", "sleep", "60")).strip()
    try:
        write_lease(tmp_path, boot_ms() + 60_000, 3, Terms(cluster, "n1", 300))
        leash()
        write_lease(tmp_path, boot_ms(), 4, Terms(cluster, "n1", 300, ENGINE))
        async with asyncio.timeout(15):
            assert (await docker("wait", container)).strip() == "137"
        assert read_fenced(tmp_path) == {7: None}
    finally:
        await remove_all(cluster)


async def test_an_engine_that_hangs_shields_no_process(
    leash: Callable[[], subprocess.Popen[bytes]], driver: ProcessDriver, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "engine.sock"))
        silent.listen()
        await _start(driver, 1, STUBBORN, 300, tmp_path)
        write_lease(tmp_path, boot_ms(), 3, Terms("c" * 26, "n1", 300, str(tmp_path / "engine.sock")))
        leash()
        assert await _gone(tmp_path, 10) < 4, "the engine's time-out is 5 s"


async def test_what_left_its_command_behind_is_stopped_as_well(
    leash: Callable[[], subprocess.Popen[bytes]], driver: ProcessDriver, tmp_path: Path
) -> None:
    await _start(driver, 1, f'setsid sh -c "{STUBBORN}" & wait', 300, tmp_path)
    await _start(driver, 2, "sleep 60", 300, tmp_path)
    write_lease(tmp_path, boot_ms(), 3, Terms("c" * 26, "n1", 300))
    os.kill(driver._records[1].pid, 19)  # a command that is stopped keeps nothing else from being stopped
    leash()
    await _gone(tmp_path, 5)
    assert read_fenced(tmp_path) == {1: None, 2: None}


def test_a_lease_that_cannot_be_read_is_no_end_of_the_lease(tmp_path: Path) -> None:
    assert read_lease(tmp_path) is None
    for text, what in {"": "Expecting", "[]": "lease.json", '{"deadline_ms": 5}': "cluster"}.items():
        (tmp_path / LEASE_FILE).write_text(text)
        with pytest.raises(ValueError, match=what):
            read_lease(tmp_path)
    terms = Terms("c", "n", 10_000, "/run/docker.sock")
    write_lease(tmp_path, 77, 3, terms)
    assert read_lease(tmp_path) == (77, terms)
